//! A source that is not there any more, or is another one, while a run deletes.

use std::fs;
use std::process::Command;
use treeferry_kit::mounts::{FsKind, Mount};
use treeferry_tests::{Live, Plant, Scratch, args, command};

/// So many directories, each with one file in both trees and one that only the target has.
const DIRS: usize = 120;

fn plant(src: &Plant, dst: &Plant) {
    for i in 0..DIRS {
        src.file(&format!("{i}/f"), "1").time(&format!("{i}/f"), 5);
        dst.file(&format!("{i}/f"), "1").time(&format!("{i}/f"), 5).file(&format!("{i}/extra"), "1");
    }
}

/// How many extra files are left.
fn extra(dst: &Plant) -> usize {
    (0..DIRS).filter(|i| dst.has(&format!("{i}/extra"))).count()
}

/// Lets a slow run delete a little, loses the source, and sees to it that nothing more is deleted.
fn lose(src: &Plant, dst: &Plant, lose: impl FnOnce()) {
    let words = args!["--delete", "--iops", "300", "--pool", "2", src.path(""), dst.path("")];
    let mut run = Live::sync(words);
    run.until("some are deleted", || extra(dst) < DIRS - 3);
    run.freeze();
    lose();
    let left = extra(dst);
    run.thaw();
    let r = run.finish().expect(23);
    // each thread may have looked before and deleted after
    assert!(extra(dst) + 2 >= left && left > DIRS / 2, "{left} before, {} after: {r}", extra(dst));
    assert!((0..DIRS).all(|i| dst.has(&format!("{i}/f"))), "{r}");
    assert!(r.stderr.contains("SRC"), "{r}");
}

#[test]
fn nothing_is_deleted_once_the_source_was_renamed_away() {
    let s = Scratch::memory();
    plant(&s.src(), &s.dst());
    let (src, dst) = (s.src(), s.dst());
    lose(&src, &dst, || fs::rename(s.at("src"), s.at("moved")).unwrap());
}

#[test]
fn nothing_is_deleted_once_another_directory_stands_in_the_place_of_the_source() {
    let s = Scratch::memory();
    plant(&s.src(), &s.dst());
    let (src, dst) = (s.src(), s.dst());
    lose(&src, &dst, || {
        fs::rename(s.at("src"), s.at("moved")).unwrap();
        fs::create_dir(s.at("src")).unwrap();
    });
}

#[test]
fn nothing_is_deleted_once_the_source_was_unmounted() {
    let s = Scratch::disk();
    let mount = Mount::new(FsKind::Tmpfs).unwrap();
    let (src, dst) = (Plant::new(mount.path()), s.dst());
    plant(&src, &dst);
    lose(&src, &dst, || {
        let status = Command::new("umount").arg("-l").arg(mount.path()).status().unwrap();
        assert!(status.success());
    });
}

#[test]
fn nothing_is_deleted_once_something_was_mounted_over_the_source() {
    let s = Scratch::disk();
    let mount = Mount::new(FsKind::Tmpfs).unwrap();
    let (src, dst) = (Plant::new(mount.path().join("src")), s.dst());
    plant(&src, &dst);
    let mut umount = Command::new("umount");
    umount.arg("-l").arg(src.path(""));
    lose(&src, &dst, || {
        let status = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(src.path("")).status().unwrap();
        assert!(status.success());
    });
    assert!(umount.status().unwrap().success());
}

#[test]
fn a_source_emptied_by_its_owner_while_it_is_walked_is_no_mistake() {
    let s = Scratch::disk();
    plant(&s.src(), &s.dst());
    for i in 0..DIRS {
        s.src().remove(&format!("{i}"));
    }
    s.sync("--delete").expect(0);
    s.assert_same();
}

#[test]
fn nothing_is_deleted_where_the_source_cannot_be_listed() {
    let s = Scratch::disk();
    s.src().file("a/f", "1").file("b/f", "1");
    for name in ["a/f", "a/extra", "b/f", "b/extra", "extra"] {
        s.dst().file(name, "1");
    }
    let mut c = command(["sync", "--json"]);
    c.args(s.words("--delete")).env("TREEFERRY_FAULTS", "call=getdents64,errno=EIO,path=a,times=4");
    let r = treeferry_tests::Run::of(&mut c).expect(23);
    assert_eq!(r.failed(), ["a"], "{r}");
    assert_eq!(s.dst().list("a"), ["extra", "f"]);
    assert_eq!(
        (s.dst().list("b"), s.dst().list("")),
        (vec!["f".to_owned()], vec!["a".to_owned(), "b".to_owned()])
    );
}

#[test]
fn nothing_is_deleted_where_the_source_directory_cannot_be_opened() {
    let s = Scratch::disk();
    s.src().file("a/f", "1").file("b/f", "1");
    for name in ["a/f", "a/extra", "b/f", "b/extra"] {
        s.dst().file(name, "1");
    }
    for errno in ["EACCES", "EIO"] {
        let mut c = command(["sync", "--json"]);
        let fault = format!("call=openat2,errno={errno},path=a");
        let r =
            treeferry_tests::Run::of(c.args(s.words("--delete")).env("TREEFERRY_FAULTS", fault)).expect(23);
        assert_eq!(s.dst().list("a"), ["extra", "f"], "{r}");
    }
    assert_eq!(s.dst().list("b"), ["f"]);
}
