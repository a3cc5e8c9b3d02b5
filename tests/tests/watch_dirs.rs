//! Mirrors of directories that change while something is done in them.

mod checks;

use checks::is_root;
use checks::mirror::Mirror;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use treeferry_kit::mounts::{FsKind, Mount};
use treeferry_kit::run::wait_until;
use treeferry_tests::{Live, PATIENCE, Run, Scratch, command};

/// Files that a worker takes some seconds to look at, at [`SLOWLY`].
const FILES: u32 = 1000;
const SLOWLY: &str = "--iops 500";

#[test]
fn what_is_made_while_its_directory_changes_has_its_own_group_and_acl() {
    let s = Scratch::disk();
    s.src().dir("group").dir("acl");
    if !is_root() {
        return;
    }
    for early in [false, true] {
        let m = Mirror::start(&s, SLOWLY);
        m.catch_up();
        // with the group of the directory, or not, and the reverse
        let change = |dir: &str| {
            let (path, mode) = (s.at(&format!("src/{dir}")), if early { 0o755 } else { 0o2755 });
            chown(&path, None, Some(34)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        };
        for n in 0..FILES {
            s.src().file(&format!("group/{early}-{n}"), "").file(&format!("acl/{early}-{n}"), "");
        }
        change("group");
        s.src().default_acl("acl", 77, 7);
        m.assert_same();
        assert_eq!(m.stop().expect(0).count("failures"), 0);
    }
}

#[test]
fn a_mode_that_a_directory_gets_while_it_is_walked_stays() {
    let s = Scratch::disk();
    for n in 0..FILES {
        s.src().file(&format!("d/{n}"), "").file(&format!("d/s{}/{n}", n % 8), "");
    }
    Run::of(command(["sync", "-q"]).arg(s.at("src")).arg(s.at("dst"))).expect(0);
    let m = Mirror::start(&s, SLOWLY);
    m.until("it is at work there", || files(&m) > 100);
    assert_eq!(m.complete_up_to(), 0, "it is not over yet");
    fs::set_permissions(s.at("src/d"), Permissions::from_mode(0o700)).unwrap();
    m.assert_same();
    m.stop().expect(0);
}

/// What such a snapshot has in place of a subvolume is another directory each time it is looked for.
#[test]
fn a_directory_that_is_never_the_same_holds_up_nothing() {
    if !is_root() {
        return;
    }
    let s = Scratch::disk();
    let disk = Mount::new(FsKind::Btrfs).unwrap();
    let (src, dst) = (disk.path().join("src"), s.at("dst"));
    fs::create_dir(&src).unwrap();
    let subvolume = |words: &[&str], paths: &[&str]| {
        let mut c = Command::new("btrfs");
        c.args(["-q", "subvolume"]).args(words).args(paths.iter().map(|p| src.join(p)));
        assert!(c.status().unwrap().success());
    };
    subvolume(&["create"], &["sv"]);
    subvolume(&["create"], &["sv/in"]);
    let mut c = command(["watch", "--json", "--detect", "inotify"]);
    fs::create_dir_all(s.at("run")).unwrap();
    c.env("TREEFERRY_RUNTIME_DIR", s.at("run")).arg(&src).arg(&dst);
    let m = Mirror { s: &s, live: Live::of(&mut c) };
    m.catch_up();
    subvolume(&["snapshot"], &["sv", "copy"]);
    for n in 0..3 {
        fs::write(src.join(format!("f{n}")), "").unwrap();
        m.catch_up();
        assert!(dst.join("copy/in").is_dir() && dst.join(format!("f{n}")).is_file());
    }
    m.stop().expect(0);
}

/// As of builds with a fixed date, or what was unpacked with the times of an archive.
#[test]
fn what_takes_the_place_of_another_of_the_same_size_and_time_is_brought() {
    for detect in if is_root() { vec!["fanotify", "inotify"] } else { vec!["inotify"] } {
        let s = Scratch::disk();
        for n in 0..5 {
            s.src().file(&format!("{n}/cur/f"), "1").file(&format!("{n}/next/f"), "2");
            s.src().file(&format!("{n}/a"), "3").file(&format!("{n}/b"), "4").file(&format!("{n}/c"), "5");
            for name in ["cur/f", "next/f", "cur", "next", "a", "b", "c"] {
                s.src().time(&format!("{n}/{name}"), 1_000_000_000);
            }
        }
        let m = Mirror::start(&s, &format!("--detect {detect}"));
        m.assert_same();
        for late in [false, true] {
            if late {
                // of files that changed lately the content is compared in any case
                m.live.freeze();
            }
            for n in (0..5).filter(|n| late == (*n == 0)) {
                let at = |name: &str| s.at(&format!("src/{n}/{name}"));
                fs::rename(at("cur"), at("prev")).unwrap();
                fs::rename(at("next"), at("cur")).unwrap();
                exchange(&at("a"), &at("b"));
                fs::rename(at("c"), at("a")).unwrap();
            }
            if late {
                let changed = Instant::now();
                wait_until("that is no more lately", PATIENCE, || changed.elapsed() > LATELY);
                m.live.thaw();
            }
            m.assert_same();
        }
        m.stop().expect(0);
    }
}

/// Longer ago than that a file has not changed lately.
const LATELY: Duration = Duration::from_millis(3500);

fn exchange(a: &Path, b: &Path) {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
}

#[test]
fn what_is_extra_goes_also_if_something_is_removed_while_its_directory_is_walked() {
    let s = Scratch::disk();
    for n in 0..3 * FILES {
        s.src().file(&format!("d/{n}"), "");
    }
    Run::of(command(["sync", "-q"]).arg(s.at("src")).arg(s.at("dst"))).expect(0);
    s.dst().file("d/extra", "");
    // as long ago as anything that a program has left there
    s.dst().time("d", fs::metadata(s.at("src/d")).unwrap().mtime());
    let m = Mirror::start(&s, SLOWLY);
    m.until("it is at work there", || files(&m) > 300);
    assert_eq!(m.complete_up_to(), 0, "it is not over yet");
    // in the order of the listing
    let first = fs::read_dir(s.at("src/d")).unwrap().next().unwrap().unwrap();
    fs::remove_file(first.path()).unwrap();
    m.assert_same();
    m.stop().expect(0);
}

/// Of three entries, which leave no ACL, but a mode.
#[test]
fn a_default_acl_that_comes_late_gives_no_mode_and_goes_to_no_directory() {
    let s = Scratch::disk();
    if !is_root() {
        return;
    }
    for n in 0..FILES / 2 {
        fs::create_dir_all(s.at(&format!("in/e/{n}"))).unwrap();
        fs::create_dir_all(s.at("in/d")).unwrap();
        fs::write(s.at(&format!("in/d/{n}")), "").unwrap();
        fs::write(s.at(&format!("in/e/{n}/f")), "").unwrap();
    }
    let m = Mirror::start(&s, SLOWLY);
    m.catch_up();
    for dir in ["d", "e"] {
        fs::rename(s.at(&format!("in/{dir}")), s.at(&format!("src/{dir}"))).unwrap();
    }
    m.until("it is at work there", || files(&m) > 100);
    let least: Vec<u8> = [2_u32.to_le_bytes()]
        .into_iter()
        .chain([0x0007_0001_u32, u32::MAX, 4, u32::MAX, 32, u32::MAX].map(u32::to_le_bytes))
        .flatten()
        .collect();
    s.src().xattr("d", "system.posix_acl_default", &least).default_acl("e", 77, 7);
    m.assert_same();
    assert_eq!(m.stop().expect(0).count("failures"), 0);
}

#[test]
fn names_of_one_file_that_are_files_of_their_own_all_arrive() {
    let s = Scratch::disk();
    s.src().file("a", "1").dir("d").link("a", "d/b");
    let m = Mirror::start(&s, "--no-hardlinks");
    m.catch_up();
    fs::write(s.at("src/a"), "other").unwrap();
    fs::set_permissions(s.at("src/a"), Permissions::from_mode(0o600)).unwrap();
    m.until("all names have arrived", || {
        m.catch_up();
        let is = |name: &str| {
            s.dst().read(name) == "other"
                && fs::metadata(s.at("dst").join(name)).unwrap().mode() & 0o777 == 0o600
        };
        is("a") && is("d/b")
    });
    m.stop().expect(0);
}

/// How many files it has looked at.
fn files(m: &Mirror<'_>) -> u64 {
    let r = Run::of(command(["status", "--json"]).env("TREEFERRY_RUNTIME_DIR", m.s.at("run")));
    r.json["jobs"][0]["counters"]["files"].as_u64().unwrap_or(0)
}
