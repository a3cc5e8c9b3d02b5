//! Nothing is deleted on the word of a source that could not be asked.

use crate::checks::settle;
use crate::scene::{faulty, rule};
use treeferry_tests::Scratch;

/// A target with something extra at every level.
fn prepared() -> Scratch {
    let s = Scratch::disk();
    s.src().file("a/f", "x").file("b/f", "x").file("b/c/f", "x");
    s.sync("").expect(0);
    for extra in ["extra", "a/extra", "b/extra", "b/c/extra", "gone/deep/extra"] {
        s.dst().file(extra, "x");
    }
    s
}

#[test]
fn a_directory_that_cannot_be_listed_keeps_its_extra_entries_and_the_others_do_not() {
    for call in ["getdents64", "openat2"] {
        for errno in ["EIO", "EACCES", "ENOMEM", "ESTALE"] {
            let s = prepared();
            let run = faulty(&s, &rule(call, errno, "b", 0), "--delete").expect(23);
            // on either side
            assert!(run.failed().iter().all(|path| *path == "b"), "{run}");
            assert!(s.dst().has("b/extra") && s.dst().has("b/f"), "{call} {errno}: {run}");
            assert!(!s.dst().has("a/extra") && !s.dst().has("extra"), "{call} {errno}: {run}");
            assert!(!s.dst().has("gone"), "{call} {errno}: {run}");
            settle(&s, "--delete");
        }
    }
}

#[test]
fn a_root_that_cannot_be_listed_deletes_nothing_of_its_own() {
    let s = prepared();
    let run = faulty(&s, "call=getdents64,errno=EIO", "--delete").expect(23);
    for extra in ["extra", "a/extra", "b/extra", "b/c/extra", "gone/deep/extra"] {
        assert!(s.dst().has(extra), "{extra} is gone: {run}");
    }
    assert_eq!(run.count("deleted"), 0, "{run}");
}

#[test]
fn a_listing_that_breaks_off_in_the_middle_deletes_nothing() {
    let s = Scratch::memory();
    // more than one listing buffer holds
    for i in 0..6000 {
        s.src().file(&format!("{i:0>40}"), "");
    }
    s.sync("").expect(0);
    s.dst().file("extra", "x");
    for skip in 1..4 {
        let run = faulty(&s, &format!("call=getdents64,errno=EIO,skip={skip}"), "--delete").expect(23);
        assert_eq!(run.count("deleted"), 0, "{run}");
        assert!(s.dst().has("extra"), "{run}");
        assert_eq!(s.dst().list("").len(), 6001);
    }
    settle(&s, "--delete");
}

#[test]
fn a_pass_that_only_deletes_is_as_careful() {
    let s = prepared();
    let run = faulty(&s, &rule("getdents64", "EIO", "b", 0), "--pass delete").expect(23);
    assert!(s.dst().has("b/extra") && !s.dst().has("a/extra"), "{run}");
}

#[test]
fn a_source_that_cannot_say_whether_it_has_a_name_keeps_it() {
    for errno in ["EIO", "EACCES", "ESTALE"] {
        let s = prepared();
        let run = faulty(&s, &rule("statx", errno, "b", 0), "--delete");
        assert_eq!(run.status.code(), Some(23), "{errno}: {run}");
        assert!(s.dst().has("b/extra") && s.dst().has("b/f") && s.dst().has("b/c/f"), "{errno}: {run}");
    }
}

#[test]
fn a_source_root_that_cannot_be_told_to_be_the_same_deletes_nothing() {
    let s = prepared();
    // both roots are identified at the start, and the source again before anything is deleted
    for skip in 2..100 {
        let run = faulty(&s, &format!("call=statx-root,errno=EIO,skip={skip}"), "--delete");
        if run.status.code() == Some(23) {
            assert_eq!(run.count("deleted"), 0, "skip {skip}: {run}");
            for extra in ["extra", "a/extra", "b/extra", "b/c/extra", "gone/deep/extra"] {
                assert!(s.dst().has(extra), "{extra} is gone, skip {skip}: {run}");
            }
            return;
        }
        assert_eq!(run.status.code(), Some(3), "skip {skip}: {run}");
    }
    panic!("the source was never identified again");
}

#[test]
fn what_cannot_be_moved_to_the_trash_is_neither_lost_nor_removed() {
    for errno in ["EXDEV", "EIO", "ENOSPC", "EACCES"] {
        let s = prepared();
        let trash = s.at("trash");
        let options = format!("--delete --trash {}", trash.display());
        let run = faulty(&s, &rule("renameat2", errno, "a/extra", 0), &options).expect(23);
        assert_eq!(run.failed(), ["a/extra"], "{run}");
        assert!(s.dst().has("a/extra") && !s.dst().has("b/extra"), "{run}");
        assert!(trash.join("b/extra").exists() && trash.join("gone/deep/extra").exists());
    }
}
