//! What the target file system cannot hold is said once for each kind and counted; all else arrives.

use crate::checks::{assert_idle, is_root};
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use treeferry_kit::mounts::{FsKind, scratch};
use treeferry_kit::oracle::{Class, EntryKind, Options, compare};
use treeferry_kit::put::{self, Meta};
use treeferry_tests::{Run, Scratch};

/// A file system that the kit does not offer; unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: PathBuf, words: &[&str], what: &Path) -> Mounted {
        fs::create_dir_all(&at).unwrap();
        assert!(Command::new("mount").args(words).arg(what).arg(&at).status().unwrap().success());
        Mounted(at)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// How often a run has said something.
fn said(run: &Run, words: &str) -> usize {
    run.stderr.lines().filter(|l| l.contains(words)).count()
}

#[test]
fn attributes_that_the_target_lacks_are_said_once_and_counted() {
    if !is_root() {
        return;
    }
    let s = Scratch::disk();
    let _ramfs = Mounted::new(s.at("dst"), &["-t", "ramfs"], Path::new("ramfs"));
    for i in 0..5 {
        let (f, d) = (format!("f{i}"), format!("d{i}"));
        s.src().file(&f, "x").acl(&f, 1000, 5).xattr(&f, "user.a", b"x").xattr(&f, "trusted.b", b"x");
        s.src().dir(&d).default_acl(&d, 1000, 5).acl(&d, 1000, 5).xattr(&d, "user.a", b"x");
    }
    s.src().symlink("l", "x").fifo("p").file("plain", "x").owner("plain", 1, 2).mode("plain", 0o4711);
    for round in ["first", "second"] {
        let run = s.sync("").expect(0);
        assert_eq!(run.count("unsupported_acls"), 10, "{round}: {run}");
        assert_eq!(run.count("unsupported_xattrs"), 15, "{round}: {run}");
        assert_eq!(
            (said(&run, "unsupported_acls"), said(&run, "unsupported_xattrs")),
            (1, 1),
            "{round}: {run}"
        );
        if round == "second" {
            assert_idle(&run);
        }
        let found = compare(&s.at("src"), &s.at("dst"), &Options::default());
        let lost = |c: &Class| matches!(c, Class::Acl | Class::DefaultAcl | Class::Xattr(_));
        assert!(found.classes().iter().all(lost), "{round}: {found}");
    }
}

#[test]
fn times_that_the_target_rounds_or_clamps_are_said_once_and_counted() {
    if !is_root() {
        return;
    }
    let s = Scratch::disk();
    let image = s.at("image");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    // inodes of 128 bytes have room for seconds up to 2038
    let mkfs = Command::new("mkfs.ext4").args(["-q", "-F", "-I", "128"]).arg(&image).output().unwrap();
    assert!(mkfs.status.success());
    let _small = Mounted::new(s.at("mnt"), &["-o", "loop"], &image);
    let dst = s.at("mnt/dst");
    s.src().file("whole", "x").file("fine", "x").file("late", "x").symlink("link", "x").dir("dir");
    let set = |name: &[u8], sec, nsec| {
        let dir = put::open_dir(&s.at("src")).unwrap();
        put::times(dir.as_fd(), name, &Meta { mode: 0, uid: 0, gid: 0, sec, nsec }).unwrap();
    };
    for (name, sec, nsec) in [("whole", 5, 0), ("fine", 5, 999_999_999), ("late", 5_000_000_000, 0)] {
        set(name.as_bytes(), sec, nsec);
    }
    for name in [&b"link"[..], b"dir", b"."] {
        set(name, 1_600_000_000, 1);
    }
    for round in ["first", "second"] {
        let run = treeferry_tests::sync([&s.at("src"), &dst]).expect(0);
        assert_eq!(run.count("unsupported_times"), 5, "{round}: {run}");
        assert_eq!(said(&run, "unsupported_times"), 1, "{round}: {run}");
        if round == "second" {
            assert_idle(&run);
        }
        let found = compare(&s.at("src"), &dst, &Options::default());
        let rounded = |c: &Class| {
            matches!(c, Class::Mtime { close: true, .. })
                || *c == Class::Mtime { of: EntryKind::File, close: false }
        };
        assert!(found.classes().iter().all(rounded), "{round}: {found}");
        let late = Class::Mtime { of: EntryKind::File, close: false };
        assert_eq!(found.paths(&late), [b"late"], "{round}: {found}");
    }
}

#[test]
fn an_extended_attribute_that_is_too_large_for_the_target_is_counted_and_the_others_are_kept() {
    if !is_root() {
        return;
    }
    let (xfs, ext4) = (scratch(FsKind::Xfs, "large"), scratch(FsKind::Ext4, "large"));
    let s = Scratch::below(&xfs);
    s.src().file("f", "x").xattr("f", "user.large", &[1; 20_000]).xattr("f", "user.z", b"x");
    s.src().file("g", "x").xattr("g", "user.a", b"x");
    let dst = ext4.join("dst");
    for _ in 0..2 {
        let run = treeferry_tests::sync([&s.at("src"), &dst]).expect(0);
        assert_eq!(run.count("unsupported_xattrs"), 1, "{run}");
        let found = compare(&s.at("src"), &dst, &Options::default());
        assert_eq!(found.classes(), [Class::Xattr("user".to_owned())], "{found}");
        assert!(found.to_string().contains("user.large") && !found.to_string().contains("user.z"), "{found}");
    }
}

#[test]
fn an_extended_attribute_for_which_another_makes_room_is_kept() {
    if !is_root() {
        return;
    }
    let ext4 = scratch(FsKind::Ext4, "room");
    let s = Scratch::memory();
    let dst = ext4.join("dst");
    s.src().file("f", "x").xattr("f", "user.b", &[b'b'; 3000]);
    treeferry_tests::sync([&s.at("src"), &dst]).expect(0);
    s.src().xattr("f", "user.a", &[b'a'; 3000]);
    let run = treeferry_tests::sync([&s.at("src"), &dst]).expect(0);
    assert_eq!(run.count("unsupported_xattrs"), 1, "there is no room for both: {run}");
    rustix::fs::removexattr(s.at("src/f"), c"user.b").unwrap();
    let run = treeferry_tests::sync([&s.at("src"), &dst]).expect(0);
    assert_eq!(run.count("unsupported_xattrs"), 0, "{run}");
    treeferry_tests::assert_same(&s.at("src"), &dst);
}

#[test]
fn a_symlink_that_is_too_long_for_the_target_is_a_named_failure() {
    if !is_root() {
        return;
    }
    let xfs = scratch(FsKind::Xfs, "long");
    let s = Scratch::memory();
    s.src().symlink("long", "y/".repeat(1900)).symlink("short", "x").file("f", "x");
    let dst = xfs.join("dst");
    let run = treeferry_tests::sync([&s.at("src"), &dst]).expect(23);
    assert_eq!(run.failed(), ["long"], "{run}");
    assert_eq!(run.json["failures"][0]["op"], "symlinkat", "{run}");
    let found = compare(&s.at("src"), &dst, &Options::default());
    assert_eq!(found.classes(), [Class::Missing(EntryKind::Symlink)], "{found}");
    settle_on(&s);
}

/// Where there is room for it, the same symlink arrives.
fn settle_on(s: &Scratch) {
    crate::checks::settle(s, "");
}
