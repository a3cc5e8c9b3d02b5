//! Owner, mode, times, ACLs, extended attributes, capabilities: on new entries, on entries that are there, on
//! directories, and against what the target's own directories would like to hand down.

use crate::checks::{is_root, settle};
use rustix::fs::{IFlags, ioctl_setflags};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use treeferry_kit::mounts::{FsKind, scratch};
use treeferry_kit::oracle::{Options, compare};
use treeferry_kit::put::{self, Meta};
use treeferry_tests::{Plant, Scratch};

/// cap_net_bind_service+ep, VFS_CAP_REVISION_2.
const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn set_time(tree: &Plant, name: &str, sec: i64, nsec: i64) {
    let dir = put::open_dir(&tree.path("")).unwrap();
    put::times(dir.as_fd(), name.as_bytes(), &Meta { mode: 0, uid: 0, gid: 0, sec, nsec }).unwrap();
}

#[test]
fn set_id_bits_and_capabilities_outlive_the_change_of_owner() {
    if !is_root() {
        return;
    }
    let s = Scratch::disk();
    s.src().file("suid", "x").owner("suid", 1000, 1001).mode("suid", 0o4755);
    s.src().file("sgid", "x").owner("sgid", 1000, 1001).mode("sgid", 0o2711);
    s.src().file("caps", "x").owner("caps", 1000, 1001).xattr("caps", "security.capability", CAPABILITY);
    s.src().dir("d").owner("d", 1000, 1001).mode("d", 0o7777);
    settle(&s, "");
    // on entries that are there the repair of the owner takes the bits and the capability away
    for name in ["suid", "sgid", "caps", "d"] {
        s.dst().owner(name, 0, 0);
    }
    assert_eq!(s.dst().mode_of("suid"), 0o755, "the kernel takes the bits when the owner changes");
    let run = settle(&s, "");
    assert_eq!((run.count("copied_files"), run.count("meta_fixed")), (0, 4), "{run}");
    s.src().file("suid", "other").owner("suid", 1001, 1000).mode("suid", 0o6755);
    settle(&s, "");
}

#[test]
fn files_and_directories_without_any_right_are_copied_updated_and_deleted() {
    let s = Scratch::disk();
    for mode in [0o000, 0o111, 0o222, 0o400, 0o444, 0o500, 0o555] {
        let (file, dir) = (format!("f{mode:o}"), format!("d{mode:o}"));
        s.src().file(&file, "x").mode(&file, mode);
        s.src().file(&format!("{dir}/in/f"), "x").mode(&format!("{dir}/in"), mode).mode(&dir, mode);
    }
    if !is_root() {
        return;
    }
    settle(&s, "");
    for mode in [0o000, 0o111, 0o222, 0o400, 0o444, 0o500, 0o555] {
        s.src().file(&format!("f{mode:o}"), "longer").file(&format!("d{mode:o}/in/f"), "longer");
        s.src().file(&format!("d{mode:o}/in/new"), "x");
    }
    settle(&s, "");
    for mode in [0o000, 0o111, 0o222] {
        s.src().remove(&format!("d{mode:o}/in")).remove(&format!("f{mode:o}"));
    }
    settle(&s, "--delete");
}

#[test]
fn nothing_of_what_target_directories_hand_down_leaks_into_the_copy() {
    if !is_root() {
        return;
    }
    for (chunks, place) in [("", Scratch::disk()), ("--chunk-size 64K", Scratch::memory())] {
        let s = place;
        s.src().file("f", "x").file("d/f", "x").dir("d/e").symlink("d/l", "x").fifo("d/p").mode("d", 0o750);
        s.src().file("big", vec![7; 300_000]).mode("big", 0o640).dir("old").file("old/f", "x");
        s.src().link("f", "d/linked");
        for dir in ["", "old"] {
            s.dst().dir(dir).owner(dir, 0, 1234).mode(dir, 0o2777).default_acl(dir, 1000, 7);
        }
        settle(&s, chunks);
        assert_eq!(s.dst().meta("d/f").gid(), 0);
    }
}

#[test]
fn what_source_directories_hand_down_is_kept_and_not_handed_down_twice() {
    let s = Scratch::disk();
    s.src().file("d/before", "x").dir("d/plain");
    s.src().default_acl("d", 1000, 7).file("d/after", "x").dir("d/heir").file("d/heir/f", "x").fifo("d/p");
    settle(&s, "");
    s.src().file("d/later", "x").file("d/before", "longer");
    settle(&s, "");
}

#[test]
fn times_are_kept_to_the_nanosecond_before_1970_and_after_2038() {
    let place = scratch(FsKind::Xfs, "times");
    for s in [Scratch::disk(), Scratch::memory(), Scratch::below(&place)] {
        for (i, (sec, nsec)) in
            [(0, 0), (-1, 999_999_999), (-2_000_000_000, 1), (2_147_483_648, 123_456_789), (9_000_000_000, 7)]
                .into_iter()
                .enumerate()
        {
            let name = |kind: &str| format!("{kind}{i}");
            s.src().file(&name("f"), "x").symlink(&name("l"), "x").fifo(&name("p")).dir(&name("d"));
            for kind in ["f", "l", "p", "d"] {
                set_time(&s.src(), &name(kind), sec, nsec);
            }
        }
        settle(&s, "");
        assert_eq!(s.dst().time_of("d1"), (-1, 999_999_999));
        assert_eq!(s.dst().time_of("l4"), (9_000_000_000, 7));
    }
}

#[test]
fn a_time_that_is_a_nanosecond_off_is_a_difference() {
    let s = Scratch::disk();
    s.src().file("f", "one").symlink("l", "x").dir("d");
    for name in ["f", "l", "d"] {
        set_time(&s.src(), name, 1_600_000_000, 5);
    }
    settle(&s, "");
    s.src().file("f", "two");
    for name in ["f", "l", "d"] {
        set_time(&s.src(), name, 1_600_000_000, 6);
    }
    let run = settle(&s, "");
    assert_eq!((run.count("copied_files"), run.count("meta_fixed")), (1, 2), "{run}");
}

#[test]
fn access_times_of_files_are_kept_and_those_of_the_source_left_alone() {
    let s = Scratch::disk();
    s.src().file("f", "x").file("d/big", vec![1; 400_000]);
    for name in ["f", "d/big"] {
        s.src().time(name, 1_600_000_000);
    }
    settle(&s, "--checksum");
    let options = Options { atime: true, ..Options::default() };
    let found = compare(&s.at("src"), &s.at("dst"), &options);
    assert!(found.is_empty(), "{found}");
    for tree in [s.src(), s.dst()] {
        assert_eq!((tree.meta("f").atime(), tree.meta("d/big").atime()), (1_600_000_000, 1_600_000_000));
    }
}

#[test]
fn extended_attributes_that_come_change_and_go_are_followed_without_copying() {
    let s = Scratch::disk();
    s.src().file("f", "x").dir("d").symlink("l", "x").fifo("p");
    let mut where_to = vec![("f", "user."), ("d", "user.")];
    if is_root() {
        where_to.extend(["f", "d", "l", "p"].map(|name| (name, "trusted.")));
    }
    let on_all = |value: &[u8], keys: &[&str]| {
        for (name, space) in &where_to {
            for key in keys {
                s.src().xattr(name, &format!("{space}{key}"), value);
            }
        }
    };
    on_all(b"", &["empty", "a name with spaces", "stays"]);
    settle(&s, "");
    on_all(b"\0\xff", &["empty", "added"]);
    let run = settle(&s, "");
    assert_eq!((run.count("copied_files"), run.count("symlinks")), (0, 0), "{run}");
    for (name, space) in &where_to {
        rustix::fs::lremovexattr(s.src().path(name), format!("{space}stays")).unwrap();
        s.dst().xattr(name, &format!("{space}only at the target"), b"x");
    }
    let run = settle(&s, "");
    assert_eq!((run.count("copied_files"), run.count("symlinks")), (0, 0), "{run}");
}

#[test]
fn large_extended_attributes_are_carried_whole() {
    for kind in [FsKind::Xfs, FsKind::Btrfs] {
        let place = scratch(kind, "xattr");
        let s = Scratch::below(&place);
        s.src().file("f", "x").dir("d");
        let most = if kind == FsKind::Xfs { 65_536 } else { 10_000 };
        s.src().xattr("f", "user.large", &vec![0xa5; most]).xattr("d", "user.large", &vec![0x5a; most]);
        // a list of names that is longer than a page
        for i in 0..40 {
            s.src().xattr("f", &format!("user.{i:0200}"), b"x");
        }
        settle(&s, "");
        s.src().xattr("f", "user.large", &vec![0xa6; most]);
        settle(&s, "");
    }
}

#[test]
fn acls_that_come_change_and_go_are_followed_without_copying() {
    let s = Scratch::disk();
    s.src().file("f", "x").dir("d");
    settle(&s, "");
    s.src().acl("f", 1000, 5).acl("d", 1000, 7).default_acl("d", 1000, 7);
    assert_eq!(settle(&s, "").count("copied_files"), 0);
    s.src().acl("f", 4_000_000_000, 0).default_acl("d", 1001, 1);
    assert_eq!(settle(&s, "").count("copied_files"), 0);
    rustix::fs::removexattr(s.at("src/f"), "system.posix_acl_access").unwrap();
    rustix::fs::removexattr(s.at("src/d"), "system.posix_acl_default").unwrap();
    assert_eq!(settle(&s, "").count("copied_files"), 0);
}

#[test]
fn metadata_that_drifted_at_the_target_is_repaired_without_copying() {
    let s = Scratch::disk();
    s.src().file("d/f", "x").dir("d/e/g").symlink("d/l", "x").fifo("d/p");
    settle(&s, "");
    for name in ["", "d", "d/e", "d/f", "d/p"] {
        s.dst().mode(name, 0o700).time(name, 5).acl(name, 1000, 7);
    }
    for name in ["", "d", "d/e", "d/f"] {
        s.dst().xattr(name, "user.drift", b"x");
    }
    s.dst().time("d/l", 5);
    if is_root() {
        for name in ["", "d", "d/e", "d/f", "d/p", "d/l"] {
            s.dst().owner(name, 77, 78);
        }
    }
    // only the file's content was in doubt, its time being wrong
    let run = settle(&s, "");
    assert_eq!((run.count("copied_files"), run.count("meta_fixed")), (1, 5), "{run}");
}

#[test]
fn an_immutable_target_is_a_named_failure_and_the_rest_is_done() {
    if !is_root() {
        return;
    }
    let place = scratch(FsKind::Ext4, "immutable");
    let s = Scratch::below(&place);
    s.src().file("f", "x").file("d/f", "x").file("g", "x").file("h", "x");
    settle(&s, "");
    let set = |name: &str, flags| ioctl_setflags(File::open(s.at(name)).unwrap(), flags).unwrap();
    for name in ["dst/f", "dst/d", "dst/h"] {
        set(name, IFlags::IMMUTABLE);
    }
    s.src().file("f", "longer").file("d/new", "x").file("g", "longer").mode("h", 0o600);
    let run = s.sync("");
    for name in ["dst/f", "dst/d", "dst/h"] {
        set(name, IFlags::empty());
    }
    let run = run.expect(23);
    assert_eq!(run.failed()[..3.min(run.failed().len())], ["d", "d/new", "f"], "{run}");
    assert!(run.failed().contains(&"h") && !run.failed().contains(&"g"), "{run}");
    assert_eq!(s.dst().read("g"), "longer");
    settle(&s, "");
}

#[test]
fn a_directory_that_is_open_to_more_than_its_source_is_closed_before_anything_is_copied_into_it() {
    let s = Scratch::disk();
    s.src().file("d/secret", vec![5; 3 << 20]).mode("d", 0o700).owner("d", 3, 3);
    s.dst().dir("d").mode("d", 0o755).acl("d", 61_001, 7);
    let mut run = treeferry_tests::Live::sync(s.words("--bwlimit 1M --pool 1"));
    run.until("it is closed", || s.dst().mode_of("d") == 0o700);
    run.freeze();
    assert!(!s.dst().has("d/secret"), "the copy takes three seconds");
    assert!(!s.dst().has_xattr("d", "system.posix_acl_access"));
    assert_eq!(s.dst().meta("d").uid(), 3);
    run.thaw();
    run.finish().expect(0);
    s.assert_same();
}
