//! What an ordinary user gets: everything that is the user's to set, and a word about the rest.
//!
//! The tests need root, to plant what belongs to others and to become the user.

use std::env;
use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt, lchown};
use std::path::Path;
use std::process::{Command, Stdio};
use treeferry_kit::caps::own_ids;
use treeferry_kit::oracle::{Class, Options, compare};
use treeferry_tests::{Plant, Run, Scratch, bin};

/// The user and its own group; nobody else has these numbers.
const USER: u32 = 61_001;
/// A group that the user is a member of besides.
const TEAM: u32 = 61_002;
/// Another user, and a group that our user is not in.
const OTHER: u32 = 61_003;

/// A file capability, cap_net_bind_service=ep, as the kernel stores it.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A scratch directory of the user's, with the binary at a place where the user can run it.
#[track_caller]
fn scene() -> Scratch {
    assert_eq!(own_ids().0, 0, "these tests become another user and need root");
    let s = Scratch::disk();
    // by another process: none of ours shall have the copy open for writing while a test starts one
    done(Command::new("install").args(["-m", "755"]).arg(bin()).arg(s.at("treeferry")));
    for dir in [s.at(""), s.at("src")] {
        lchown(&dir, Some(USER), Some(USER)).unwrap();
    }
    s
}

/// Gives a tree to the user.
#[track_caller]
fn give(tree: &Path) {
    done(Command::new("chown").arg("-hR").arg(format!("{USER}:{USER}")).arg(tree));
}

#[track_caller]
fn done(command: &mut Command) {
    let status = command.status().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?}: {status}");
}

/// Runs `treeferry sync --json OPTIONS src dst` as the user.
#[track_caller]
fn sync(s: &Scratch, options: &str) -> Run {
    run(s, s.words(options))
}

#[track_caller]
fn run(s: &Scratch, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
    let mut c = Command::new("setpriv");
    c.args([format!("--reuid={USER}"), format!("--regid={USER}"), format!("--groups={TEAM}")]);
    c.arg(s.at("treeferry")).args(["sync", "--json"]).args(words).stdin(Stdio::null()).env("LC_ALL", "C");
    for (name, _) in env::vars_os().filter(|(n, _)| n.as_encoded_bytes().starts_with(b"TREEFERRY_")) {
        c.env_remove(name);
    }
    Run::of(treeferry_tests::keep_apart(&mut c))
}

/// Runs it again and fails the test if there was anything to do.
#[track_caller]
fn assert_settled(s: &Scratch) {
    let r = sync(s, "-i --delete").expect(0);
    for counter in ["copied_files", "meta_fixed", "made_dirs", "linked", "symlinks", "specials", "deleted"] {
        assert_eq!(r.count(counter), 0, "{counter} in {r}");
    }
    assert_eq!(r.items(), [""; 0], "{r}");
}

/// Fails the test if the trees differ in anything but these classes, or not in each of them.
#[track_caller]
fn assert_differ_only_in(s: &Scratch, classes: &[Class]) {
    let found = compare(&s.at("src"), &s.at("dst"), &Options::default());
    assert_eq!(found.classes(), classes, "{found}");
}

/// A tree of the user's with read-only directories in read-only directories.
fn read_only_source(s: &Scratch) -> Plant {
    let src = s.src();
    src.file("a/f", "1").file("a/b/g", "2").file("a/b/c/d/h", "3").symlink("a/b/c/l", "d/h");
    give(&s.at("src"));
    src.mode("a/b/c/d", 0o500).mode("a/b/c", 0o555).mode("a/b", 0o500).mode("a", 0o555);
    for dir in ["a/b/c/d", "a/b/c", "a/b", "a"] {
        src.time(dir, 1_400_000_000);
    }
    src
}

/// How many lines of standard error hold this.
fn said(r: &Run, text: &str) -> usize {
    r.stderr.lines().filter(|l| l.contains(text)).count()
}

#[test]
fn read_only_directories_are_cloned_with_their_modes() {
    let s = scene();
    read_only_source(&s);
    let r = sync(&s, "").expect(0);
    assert_eq!((r.count("copied_files"), r.count("left_out_owner")), (3, 0), "{r}");
    s.assert_same();
    assert_settled(&s);
    s.assert_same();
}

#[test]
fn directories_that_only_others_may_enter_are_cloned_with_all_that_is_below() {
    let s = scene();
    let src = s.src();
    src.file("theirs/x/y/z/f", "1").file("theirs/x/g", "2").mode("theirs/x/g", 0o644);
    for dir in ["theirs", "theirs/x", "theirs/x/y", "theirs/x/y/z"] {
        src.owner(dir, OTHER, OTHER).mode(dir, 0o055);
    }
    let r = sync(&s, "").expect(0);
    assert_eq!((r.count("copied_files"), r.count("left_out_owner")), (2, 6), "{r}");
    assert_eq!(s.dst().mode_of("theirs/x/y/z"), 0o055);
    assert_differ_only_in(&s, &[Class::Uid, Class::Gid]);
    assert_settled(&s);
    src.file("theirs/x/y/z/f", "longer");
    assert_eq!(sync(&s, "").expect(0).count("copied_files"), 1);
    assert_differ_only_in(&s, &[Class::Uid, Class::Gid]);
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_done() {
    let s = scene();
    let src = s.src();
    src.file("a", "1").file("b/secret", "2").file("b/c", "3").file("locked/f", "4").file("z", "5");
    give(&s.at("src"));
    src.owner("b/secret", 0, 0).mode("b/secret", 0o600).owner("locked", 0, 0).mode("locked", 0o700);
    let r = sync(&s, "").expect(23);
    assert_eq!(r.failed(), ["b/secret", "locked"], "{r}");
    assert_eq!((r.count("failures"), r.count("copied_files")), (2, 3), "{r}");
    assert_eq!(said(&r, "Permission denied"), 2, "{r}");
    let dst = s.dst();
    assert_eq!((dst.list("b"), dst.read("z")), (vec!["c".into()], "5".into()));
}

#[test]
fn nothing_is_deleted_where_the_source_cannot_be_listed() {
    let s = scene();
    s.src().file("locked/f", "1");
    s.dst().file("locked/f", "1").file("locked/g", "2").file("extra", "3");
    give(&s.at(""));
    s.src().owner("locked", 0, 0).mode("locked", 0o700);
    let r = sync(&s, "--delete").expect(23);
    assert_eq!(r.failed(), ["locked"], "{r}");
    assert_eq!((s.dst().list("locked"), s.dst().has("extra")), (vec!["f".into(), "g".into()], false));
}

#[test]
fn owners_of_others_are_left_out_counted_and_said_once() {
    let s = scene();
    for name in ["a", "d/b", "d/c"] {
        s.src().file(name, name);
    }
    s.src().symlink("l", "a");
    give(&s.at("src"));
    for name in ["a", "d/b", "d", "l"] {
        s.src().owner(name, OTHER, USER);
    }
    let r = sync(&s, "").expect(0);
    assert_eq!(said(&r, "note: owners are left out"), 1, "{r}");
    assert_eq!(said(&r, "note:"), 1, "{r}");
    assert_eq!((r.count("left_out_owner"), r.count("failures")), (4, 0), "{r}");
    assert_differ_only_in(&s, &[Class::Uid, Class::UidSymlink]);
    assert_eq!(s.dst().meta("d/b").uid(), USER);
    assert_settled(&s);
}

#[test]
fn owners_of_others_are_failures_where_owners_were_asked_for_by_name() {
    let s = scene();
    s.src().file("theirs", "1").file("mine", "2");
    give(&s.at("src"));
    s.src().owner("theirs", OTHER, USER);
    let r = sync(&s, "-o").expect(23);
    assert_eq!((r.failed(), r.count("left_out_owner")), (vec!["theirs"], 0), "{r}");
    assert_eq!(s.dst().read("theirs"), "1");
    assert_eq!(said(&r, "note:"), 0, "{r}");
}

#[test]
fn a_group_that_the_user_is_in_is_kept() {
    let s = scene();
    s.src().file("d/f", "1").symlink("l", "f");
    give(&s.at("src"));
    for name in ["d/f", "d", "l"] {
        s.src().owner(name, USER, TEAM);
    }
    let r = sync(&s, "").expect(0);
    assert_eq!((r.count("left_out_owner"), said(&r, "note:")), (0, 0), "{r}");
    s.assert_same();
    s.src().owner("d/f", USER, USER);
    assert_eq!(sync(&s, "-g").expect(0).count("meta_fixed"), 1);
    s.assert_same();
}

#[test]
fn a_group_that_the_user_is_not_in_is_left_out_or_a_failure_with_g() {
    let s = scene();
    s.src().file("f", "1");
    give(&s.at("src"));
    s.src().owner("f", USER, OTHER);
    let r = sync(&s, "").expect(0);
    assert_eq!(
        (r.count("left_out_owner"), said(&r, "note: groups that you are not a member of")),
        (1, 1),
        "{r}"
    );
    assert_differ_only_in(&s, &[Class::Gid]);
    assert_eq!(sync(&s, "-g").expect(23).failed(), ["f"]);
}

#[test]
fn devices_are_left_out_and_counted_and_other_nodes_are_made() {
    let s = scene();
    s.src().fifo("fifo").socket("socket").file("f", "1");
    give(&s.at("src"));
    s.src().device("null", 1, 3).device("zero", 1, 5);
    let r = sync(&s, "").expect(0);
    assert_eq!((r.count("left_out_devices"), r.count("specials"), r.count("failures")), (2, 2, 0), "{r}");
    assert_eq!(said(&r, "note: devices are left out"), 1, "{r}");
    assert_eq!(s.dst().list(""), ["f", "fifo", "socket"]);
    assert_settled(&s);
}

#[test]
fn attributes_that_only_root_may_set_are_left_out_and_the_users_own_are_kept() {
    let s = scene();
    s.src().file("caps", "1").file("trusted", "2").file("own", "3");
    give(&s.at("src"));
    s.src().xattr("caps", "security.capability", &CAPABILITY).xattr("trusted", "trusted.t", b"t");
    s.src().xattr("own", "user.u", b"u").acl("own", OTHER, 4);
    let r = sync(&s, "").expect(0);
    // nobody but root sees that there are attributes of the kind trusted.*
    assert_eq!((r.count("left_out_xattrs"), r.count("failures")), (1, 0), "{r}");
    assert_eq!(said(&r, "note: extended attributes that only root may set are left out"), 1, "{r}");
    assert_differ_only_in(&s, &[Class::Capability, Class::Xattr("trusted".into())]);
    assert_settled(&s);
}

#[test]
fn set_id_bits_are_kept_with_the_ids_they_speak_of_and_dropped_without() {
    let s = scene();
    let cases = [
        ("own", USER, USER, 0o6755, 0o6755),
        ("own_team", USER, TEAM, 0o6755, 0o6755),
        ("their_group", USER, OTHER, 0o6755, 0o4755),
        ("theirs", OTHER, OTHER, 0o6755, 0o0755),
        ("their_setuid", OTHER, USER, 0o4755, 0o0755),
    ];
    for (name, uid, gid, mode, _) in cases {
        s.src().file(name, name).owner(name, uid, gid).mode(name, mode);
    }
    sync(&s, "").expect(0);
    for (name, .., mode) in cases {
        assert_eq!(s.dst().mode_of(name), mode, "{name}");
    }
    assert_settled(&s);
}

#[test]
fn a_file_in_a_read_only_directory_is_updated_and_the_directory_is_as_before() {
    let s = scene();
    let src = read_only_source(&s);
    sync(&s, "").expect(0);
    src.file("a/b/c/d/h", "longer").remove("a/b/g").time("a/b", 1_400_000_000);
    let r = sync(&s, "--delete").expect(0);
    assert_eq!((r.count("copied_files"), r.count("deleted")), (1, 1), "{r}");
    s.assert_same();
    assert_eq!((s.dst().mode_of("a/b"), s.dst().time_of("a/b/c/d")), (0o500, (1_400_000_000, 5)));
    assert_settled(&s);
}

#[test]
fn extra_directories_that_are_read_only_are_deleted_with_all_that_is_below() {
    let s = scene();
    let dst = s.dst();
    dst.file("extra/f", "1").file("extra/b/c/g", "2").file("extra/shut/h", "3");
    give(&s.at(""));
    dst.mode("extra/b/c", 0o500).mode("extra/b", 0o555).mode("extra/shut", 0).mode("extra", 0o555);
    let r = sync(&s, "--delete").expect(0);
    assert_eq!((r.count("deleted"), s.dst().list("")), (7, vec![]), "{r}");
}

#[test]
fn hard_links_between_read_only_directories_are_kept() {
    let s = scene();
    let src = s.src();
    src.file("a/f", "1").link("a/f", "b/c/f").link("a/f", "d/f");
    give(&s.at("src"));
    src.mode("a/f", 0o400).mode("a", 0o555).mode("b/c", 0o500).mode("b", 0o555).mode("d", 0o511);
    let r = sync(&s, "").expect(0);
    assert_eq!((r.count("copied_files"), r.count("linked")), (1, 2), "{r}");
    s.assert_same();
    assert_settled(&s);
}

#[test]
fn a_source_or_target_that_the_user_may_not_enter_is_unusable() {
    let s = scene();
    s.src().file("f", "1").owner("", 0, 0).mode("", 0o700);
    sync(&s, "").expect(3);
    s.src().mode("", 0o755);
    Plant::new(s.at("roots"));
    run(&s, [s.at("src"), s.at("roots/dst")]).expect(3);
    assert!(!s.at("roots/dst").exists());
}

#[test]
fn a_new_link_in_a_read_only_directory_is_made_and_the_directory_is_read_only_again() {
    let s = scene();
    s.src().file("d/f", "1").file("e/f", "2").mode("d", 0o555);
    give(&s.at("src"));
    sync(&s, "").expect(0);
    s.src().link("e/f", "d/g");
    let r = sync(&s, "").expect(0);
    assert_eq!(r.count("linked"), 1, "{r}");
    assert!(s.dst().is_linked("e/f", "d/g"));
    assert_eq!(s.dst().mode_of("d"), 0o555);
    assert_settled(&s);
}

#[test]
fn a_read_only_directory_is_read_only_again_whichever_task_has_worked_in_it() {
    for (pass, big) in
        [("copy", true), ("copy,dirtime", true), ("delete", false), ("copy,delete,dirtime", true)]
    {
        let s = scene();
        s.src().file("d/f", "1").mode("d", 0o555);
        give(&s.at("src"));
        sync(&s, "").expect(0);
        let (src, dst) = (s.src(), s.dst());
        if big {
            src.file("d/big", vec![7; 6 << 20]).owner("d/big", USER, USER);
        }
        dst.dir("d/extra").owner("d/extra", USER, USER);
        for (tree, name) in [(&src, "d"), (&dst, "d")] {
            tree.time(name, 1_600_000_000);
        }
        let r = sync(&s, &format!("-i --pass {pass}")).expect(0);
        assert_eq!(dst.mode_of("d"), 0o555, "{pass}: {r}");
        assert_eq!(r.item("d/"), None, "nothing of the directory itself has changed: {r}");
        assert_eq!(dst.has("d/extra"), !pass.contains("delete"));
    }
}

#[test]
fn what_is_refused_in_a_file_that_is_tried_again_is_named_once() {
    let s = scene();
    s.src().file("f", "1").owner("f", 0, 0);
    let mut c = Command::new("setpriv");
    c.args([format!("--reuid={USER}"), format!("--regid={USER}"), "--clear-groups".to_owned()]);
    c.arg(s.at("treeferry")).args(["sync", "--json", "-o", "-t"]).args([s.at("src"), s.at("dst")]);
    c.stdin(Stdio::null()).env("LC_ALL", "C").env("TREEFERRY_FAULTS", "call=linkat,path=f,errno=EIO,times=2");
    let r = Run::of(&mut c).expect(23);
    assert_eq!((r.count("retried"), r.count("failures")), (2, 1), "{r}");
    assert_eq!(r.failed(), ["f"]);
    assert_eq!(s.dst().read("f"), "1");
}
