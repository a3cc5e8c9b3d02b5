//! SRC and DST: whether `sync` could begin, whether the one fits into the other, and what the other cannot hold.

use crate::commands::doctor::facts::{RootFacts, Tree, Trees};
use crate::commands::doctor::finding::{Area, Finding};
use std::path::Path;
use treeferry_core::escape;
use treeferry_core::units::show_size;
use treeferry_fs::Abilities;
use treeferry_fs::mounts::Room;
use treeferry_service::Exit;

use Area::{Source, Target};

/// A target with less than a hundredth of its bytes or inodes left is nearly full.
const NEARLY_FULL: u64 = 100;
/// So many mounts are named.
const NAMED: usize = 5;
/// ext4 with small inodes, NFSv3 servers and FAT round times.
const FINE_NSEC: u32 = 1;

/// Both trees.
pub fn judge(t: &Trees) -> Vec<Finding> {
    let mut found = Vec::new();
    match &t.src.root {
        Ok(r) => source(&t.src, r, t, &mut found),
        Err(e) => {
            let advice = "is it mounted, and may this user read it? 'findmnt' shows what is mounted where";
            found.push(Finding::problem(Source, "src", e, advice).ends_with(Exit::Unusable));
        }
    }
    match &t.dst.root {
        Ok(r) => target(r, t, &mut found),
        Err(e) => {
            let advice = "is it mounted? DST is made if it is missing, but its parent must be there";
            found.push(Finding::problem(Target, "dst", e, advice).ends_with(Exit::Unusable));
        }
    }
    match &t.guards {
        // what is wrong with a root was said
        Err(r) if t.src.root.is_ok() && t.dst.root.is_ok() => {
            let exit = if r.is_usage { Exit::Usage } else { Exit::Unusable };
            let advice = "this is what sync would say; it would touch nothing";
            found.push(Finding::problem(Target, "guards", &r.text, advice).ends_with(exit));
        }
        _ => {}
    }
    found
}

fn shown(path: &Path) -> String {
    escape::bytes(path.as_os_str().as_encoded_bytes()).to_string()
}

/// Type, source and mount point of a file system.
fn place(r: &RootFacts) -> String {
    match &r.mount {
        Some(m) => {
            let ro = if r.room.is_some_and(|r| r.read_only) { ", read-only" } else { "" };
            format!("{} {} at {}{ro}", m.kind, shown(&m.source), shown(&m.point))
        }
        None => "the kernel does not tell which mount it is".to_owned(),
    }
}

fn source(tree: &Tree, r: &RootFacts, t: &Trees, found: &mut Vec<Finding>) {
    let used = r.room.map_or_else(String::new, |r| format!(", {} in use there", show_size(r.used_bytes())));
    found.push(Finding::ok(Source, "src", format!("{}: {}{used}", shown(&tree.path), place(r))));
    if r.is_mount_point {
        let text = "SRC is itself a mount point: should it not be mounted once, the empty directory under it would be \
                    a valid, empty source";
        let advice = "name a directory below it, or begin scripts with 'mountpoint -q DIR || exit 1'";
        found.push(Finding::warning(Source, "src-mount-point", text, advice));
    }
    if r.is_empty && t.dst.root.as_ref().is_ok_and(|d| !t.dst_is_missing && !d.is_empty) {
        let text = "SRC is empty, and DST is not";
        found.push(Finding::warning(Source, "src-empty", text, "is SRC mounted? --delete would empty DST"));
    }
    if !r.mounts_below.is_empty() {
        let names: Vec<String> = r.mounts_below.iter().take(NAMED).map(|p| shown(p)).collect();
        let more = r.mounts_below.len().saturating_sub(NAMED);
        let and = if more > 0 { format!(" and {more} more") } else { String::new() };
        let text = format!("mounts below SRC are copied, too: {}{and}", names.join(", "));
        let advice = "leave out by --exclude what is not meant";
        found.push(Finding::warning(Source, "src-mounts", text, advice));
    }
}

fn target(r: &RootFacts, t: &Trees, found: &mut Vec<Finding>) {
    let same = if t.same_device { ", the file system of SRC" } else { "" };
    let text = format!("{}: {}{same}", shown(&t.dst.path), place(r));
    if t.dst_is_missing {
        let advice = "make it by hand, once: where the file system is not mounted, sync would make it in the mount point";
        found.push(Finding::warning(
            Target,
            "dst",
            format!("{text}; it is missing, and would be made"),
            advice,
        ));
    } else {
        found.push(Finding::ok(Target, "dst", text));
    }
    if let Some(room) = r.room {
        let source = t.src.root.as_ref().ok().and_then(|s| s.room).filter(|_| !t.same_device);
        found.extend(of_room(room, source));
    }
    match &t.abilities {
        Some(Ok(a)) => abilities(a, found),
        Some(Err(e)) => {
            let text = format!("nothing can be made in DST: {e}");
            let advice =
                "mount it for writing, and see that this user may write there (an export may squash root)";
            found.push(Finding::problem(Target, "dst-writable", text, advice).ends_with(Exit::Unusable));
        }
        None => {}
    }
}

/// `source`: the room of SRC, if that is another file system.
fn of_room(room: Room, source: Option<Room>) -> Vec<Finding> {
    let mut found = Vec::new();
    let bytes = ("dst-bytes", "bytes", room.free_bytes, room.bytes, source.map(|s| s.used_bytes()));
    let inodes = ("dst-inodes", "inodes", room.free_inodes, room.inodes, source.map(|s| s.used_inodes()));
    for (check, what, free, all, needed) in [bytes, inodes] {
        let show = |n: u64| if what == "bytes" { show_size(n) } else { format!("{n} inodes") };
        // a file system that makes inodes as they are needed says 0
        if all == 0 {
            continue;
        }
        let text = format!("{} free of {}", show(free), show(all));
        let advice = format!(
            "make room: a full target is a named failure for each entry, after all {what} are used up"
        );
        match needed {
            _ if free == 0 => {
                found.push(Finding::problem(Target, check, text, advice).ends_with(Exit::Unusable));
            }
            _ if free < all / NEARLY_FULL => found.push(Finding::warning(Target, check, text, advice)),
            Some(n) if n > free => {
                let text = format!("{text}; {} are in use on the file system of SRC", show(n));
                let advice =
                    "if SRC is all of that file system and DST has little of it yet, it will not fit";
                found.push(Finding::warning(Target, check, text, advice));
            }
            _ => found.push(Finding::ok(Target, check, text)),
        }
    }
    found
}

/// What DST cannot hold. `None` is not told: what we may not try is told with the capabilities.
fn abilities(a: &Abilities, found: &mut Vec<Finding>) {
    let before = found.len();
    let told = "mount it with the option for it, or choose another file system; else it is counted for each entry as";
    let kinds = [
        ("dst-acls", a.acls, "POSIX ACLs", format!("{told} unsupported_acls")),
        ("dst-user-xattrs", a.user_xattrs, "user.* attributes", format!("{told} unsupported_xattrs")),
        (
            "dst-trusted-xattrs",
            a.trusted_xattrs,
            "trusted.* attributes",
            format!("{told} unsupported_xattrs"),
        ),
        ("dst-fifos", a.fifos, "FIFOs", format!("{told} unsupported_specials")),
        ("dst-devices", a.devices, "devices", format!("{told} unsupported_specials")),
    ];
    for (check, held, what, advice) in kinds {
        if held == Some(false) {
            found.push(Finding::warning(Target, check, format!("DST cannot hold {what}"), advice));
        }
    }
    let failing = "choose another file system: each such entry is a named failure, exit code 23";
    for (check, held, what) in [
        ("dst-hard-links", a.hard_links, "hard links"),
        ("dst-symlinks", a.symlinks, "symbolic links"),
        ("dst-any-bytes", a.any_bytes, "names that are not UTF-8"),
    ] {
        if held == Some(false) {
            found.push(Finding::warning(Target, check, format!("DST cannot hold {what}"), failing));
        }
    }
    if a.owners == Some(false) {
        let text =
            "DST does not take owners, although this process may set them: a server squashes root, perhaps";
        let advice =
            "export it with no_root_squash to this node; else each entry of others is a named failure";
        found.push(Finding::problem(Target, "dst-owners", text, advice));
    }
    if a.case == Some(false) {
        let text = "DST does not tell upper from lower case: two names of SRC could be one there";
        let advice = "choose a file system that does; nobody could tell which of the two is kept";
        found.push(Finding::problem(Target, "dst-case", text, advice));
    }
    if a.limits.time_step_nsec > FINE_NSEC {
        let text = format!("DST holds times in steps of {} ns", a.limits.time_step_nsec);
        let advice =
            "nothing, or another file system: times are compared as DST holds them (unsupported_times)";
        found.push(Finding::warning(Target, "dst-times", text, advice));
    }
    if found.len() == before {
        let unnamed =
            if a.limits.unnamed_files { "" } else { "; it has no files without a name (O_TMPFILE)" };
        let text = format!("DST holds whatever this process may copy{unnamed}");
        found.push(Finding::ok(Target, "dst-abilities", text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::facts::Refused;
    use crate::commands::doctor::judge::tests::{fails, is_ok, is_silent, the, warns};
    use treeferry_fs::Limits;
    use treeferry_fs::mounts::Mount;

    const GIB: u64 = 1 << 30;

    fn room(bytes: u64, free_bytes: u64) -> Room {
        Room { bytes, free_bytes, inodes: 1000, free_inodes: 900, read_only: false }
    }

    fn good() -> Trees {
        let yes = Some(true);
        let abilities = Abilities {
            limits: Limits { unnamed_files: true, ..Limits::default() },
            user_xattrs: yes,
            trusted_xattrs: yes,
            acls: yes,
            hard_links: yes,
            symlinks: yes,
            fifos: yes,
            devices: yes,
            owners: yes,
            any_bytes: yes,
            case: yes,
        };
        let tree = |path: &str| {
            let mount = Mount {
                id: 1,
                kind: "xfs".into(),
                source: "/dev/sda1".into(),
                point: "/mnt".into(),
                options: vec!["rw".into()],
            };
            let root = RootFacts {
                mount: Some(mount),
                room: Some(room(100 * GIB, 60 * GIB)),
                ..RootFacts::default()
            };
            Tree { path: path.into(), root: Ok(root) }
        };
        Trees {
            src: tree("/mnt/src"),
            dst: tree("/mnt/dst"),
            dst_is_missing: false,
            same_device: false,
            guards: Ok(()),
            abilities: Some(Ok(abilities)),
        }
    }

    fn found(change: impl FnOnce(&mut Trees)) -> Vec<Finding> {
        let mut t = good();
        change(&mut t);
        judge(&t)
    }

    fn src(t: &mut Trees) -> &mut RootFacts {
        t.src.root.as_mut().unwrap()
    }

    fn dst(t: &mut Trees) -> &mut RootFacts {
        t.dst.root.as_mut().unwrap()
    }

    fn can(t: &mut Trees) -> &mut Abilities {
        t.abilities.as_mut().unwrap().as_mut().unwrap()
    }

    #[test]
    fn good_trees_are_ok() {
        let all = found(|_| ());
        for check in ["src", "dst", "dst-bytes", "dst-inodes", "dst-abilities"] {
            is_ok(&all, check);
        }
        assert_eq!(all.len(), 5, "{all:?}");
        assert!(
            the(&all, "src").text.contains("/mnt/src: xfs /dev/sda1 at /mnt, 40.0 GiB in use"),
            "{all:?}"
        );
        let all = found(|t| t.same_device = true);
        assert!(the(&all, "dst").text.contains("the file system of SRC"));
        let all = found(|t| can(t).limits.unnamed_files = false);
        assert!(the(&all, "dst-abilities").text.contains("O_TMPFILE"));
        let all = found(|t| src(t).room.as_mut().unwrap().read_only = true);
        assert!(the(&all, "src").text.contains("read-only"));
        assert!(the(&found(|t| src(t).mount = None), "src").text.contains("does not tell"));
    }

    #[test]
    fn roots_that_cannot_be_used_are_3() {
        let all = found(|t| t.src.root = Err("/x: open: No such file".into()));
        fails(&all, "src", Exit::Unusable, "No such file");
        let all = found(|t| t.dst.root = Err("/x: open: Not a directory".into()));
        fails(&all, "dst", Exit::Unusable, "Not a directory");
        let all = found(|t| t.abilities = Some(Err("create: Read-only file system".into())));
        fails(&all, "dst-writable", Exit::Unusable, "Read-only");
        is_silent(&all, "dst-abilities");
    }

    #[test]
    fn what_sync_would_refuse_is_told_once() {
        let refused = |is_usage| Err(Refused { text: "DST lies inside SRC".into(), is_usage });
        fails(&found(|t| t.guards = refused(true)), "guards", Exit::Usage, "inside");
        fails(&found(|t| t.guards = refused(false)), "guards", Exit::Unusable, "inside");
        let all = found(|t| {
            t.src.root = Err("gone".into());
            t.guards = refused(false);
        });
        is_silent(&all, "guards");
    }

    #[test]
    fn a_source_that_may_be_an_unmounted_one_is_told() {
        warns(&found(|t| src(t).is_mount_point = true), "src-mount-point", "mountpoint -q");
        warns(&found(|t| src(t).is_empty = true), "src-empty", "--delete would empty DST");
        let both = found(|t| {
            src(t).is_empty = true;
            dst(t).is_empty = true;
        });
        is_silent(&both, "src-empty");
        let all = found(|t| src(t).mounts_below = (0..7).map(|i| format!("/mnt/src/{i}").into()).collect());
        warns(&all, "src-mounts", "/mnt/src/4 and 2 more");
    }

    #[test]
    fn a_missing_target_is_told() {
        warns(&found(|t| t.dst_is_missing = true), "dst", "by hand");
    }

    #[test]
    fn room_is_told() {
        warns(&found(|t| dst(t).room = Some(room(1000 * GIB, GIB))), "dst-bytes", "make room");
        fails(&found(|t| dst(t).room = Some(room(GIB, 0))), "dst-bytes", Exit::Unusable, "0 B free");
        warns(&found(|t| dst(t).room = Some(room(100 * GIB, 30 * GIB))), "dst-bytes", "it will not fit");
        let same = found(|t| {
            t.same_device = true;
            dst(t).room = Some(room(100 * GIB, 30 * GIB));
        });
        is_ok(&same, "dst-bytes");
        let all = found(|t| dst(t).room.as_mut().unwrap().free_inodes = 0);
        fails(&all, "dst-inodes", Exit::Unusable, "0 inodes free of 1000 inodes");
        warns(&found(|t| dst(t).room.as_mut().unwrap().free_inodes = 3), "dst-inodes", "3 inodes");
        warns(
            &found(|t| dst(t).room.as_mut().unwrap().free_inodes = 50),
            "dst-inodes",
            "100 inodes are in use",
        );
        is_silent(&found(|t| dst(t).room.as_mut().unwrap().inodes = 0), "dst-inodes");
    }

    #[test]
    fn each_kind_that_dst_cannot_hold_is_told() {
        warns(&found(|t| can(t).acls = Some(false)), "dst-acls", "unsupported_acls");
        warns(&found(|t| can(t).user_xattrs = Some(false)), "dst-user-xattrs", "unsupported_xattrs");
        warns(&found(|t| can(t).trusted_xattrs = Some(false)), "dst-trusted-xattrs", "trusted");
        warns(&found(|t| can(t).fifos = Some(false)), "dst-fifos", "unsupported_specials");
        warns(&found(|t| can(t).devices = Some(false)), "dst-devices", "unsupported_specials");
        warns(&found(|t| can(t).hard_links = Some(false)), "dst-hard-links", "23");
        warns(&found(|t| can(t).symlinks = Some(false)), "dst-symlinks", "23");
        warns(&found(|t| can(t).any_bytes = Some(false)), "dst-any-bytes", "UTF-8");
        fails(&found(|t| can(t).owners = Some(false)), "dst-owners", Exit::Failures, "squash");
        fails(&found(|t| can(t).case = Some(false)), "dst-case", Exit::Failures, "case");
        warns(&found(|t| can(t).limits.time_step_nsec = 1_000_000_000), "dst-times", "1000000000 ns");
        // what was not tried is no finding here
        let all = found(|t| (can(t).devices, can(t).trusted_xattrs) = (None, None));
        is_ok(&all, "dst-abilities");
    }
}
