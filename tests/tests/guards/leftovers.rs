//! Temporary files: those of dead runs are swept, those of live ones are not, and nobody else's is taken for one.

use rustix::process::Signal;
use std::fs;
use treeferry_tests::{Live, Plant, Scratch, args, sync};

const PREFIX: &str = ".treeferry.";

/// Names of temporary files in the target's root.
fn temporary(dst: &Plant) -> Vec<String> {
    dst.list("").into_iter().filter(|n| n.starts_with(PREFIX)).collect()
}

/// A file to be replaced, large enough to be caught in the middle at a low rate.
fn plant(s: &Scratch) {
    s.src().file("big", vec![1u8; 2 << 20]).file("small", "1");
    s.dst().file("big", "old");
}

/// A run that is caught while it copies.
fn caught(s: &Scratch, options: &str) -> Live {
    let mut run = Live::sync(s.words(&format!("--bwlimit 1M {options}")));
    run.until("a file is being copied", || !temporary(&s.dst()).is_empty());
    run
}

#[test]
fn a_run_that_is_killed_leaves_the_old_file_and_the_next_run_sweeps() {
    for (s, options) in Scratch::both().into_iter().zip(["", "--chunk-size 64K"]) {
        plant(&s);
        let run = caught(&s, options);
        run.signal(Signal::KILL);
        drop(run);
        assert_eq!((s.dst().read("big"), temporary(&s.dst()).len()), ("old".to_owned(), 1));
        let r = s.sync("").expect(0);
        assert_eq!((r.count("swept"), temporary(&s.dst()).len()), (1, 0));
        s.assert_same();
    }
}

#[test]
fn what_a_dead_run_left_is_swept_where_nothing_is_copied_and_where_all_is_right() {
    for options in ["--pass delete", "--pass dirtime", "--delete", ""] {
        let s = Scratch::memory();
        plant(&s);
        let run = caught(&s, "");
        run.signal(Signal::KILL);
        drop(run);
        s.src().file("big", "old").time("big", 5);
        s.dst().time("big", 5);
        s.sync(options).expect(0);
        assert_eq!(temporary(&s.dst()), [""; 0], "{options}");
    }
}

#[test]
fn a_dry_run_sweeps_nothing() {
    let s = Scratch::memory();
    plant(&s);
    let run = caught(&s, "");
    run.signal(Signal::KILL);
    drop(run);
    s.sync("-n --delete").expect(0);
    assert_eq!(temporary(&s.dst()).len(), 1);
}

#[test]
fn what_a_live_run_is_writing_is_left_alone() {
    let s = Scratch::memory();
    plant(&s);
    let run = caught(&s, "");
    run.freeze();
    let before = temporary(&s.dst());
    for options in ["", "--delete", "--pass delete"] {
        let r = s.sync(options).expect(0);
        assert_eq!((r.count("swept"), r.count("deleted")), (0, 0));
        assert_eq!(temporary(&s.dst()), before, "{options}");
    }
    run.thaw();
    run.finish().expect(0);
    assert_eq!(temporary(&s.dst()), [""; 0]);
    s.sync("").expect(0);
    s.assert_same();
}

#[test]
fn a_run_that_is_interrupted_leaves_nothing() {
    for options in ["", "--chunk-size 64K --pool 4"] {
        let s = Scratch::memory();
        plant(&s);
        let run = caught(&s, options);
        run.signal(Signal::TERM);
        run.finish().expect(20);
        assert!(s.dst().read("big") == "old", "{options}");
        assert_eq!(temporary(&s.dst()), [""; 0], "{options}");
    }
}

#[test]
fn a_name_that_only_begins_like_ours_is_an_entry_like_any_other() {
    let s = Scratch::disk();
    s.src().file(".treeferry.conf", "1").file(".treeferry.", "2").file("d/.treeferry.1.2.3-4-5.6", "3");
    s.sync("--delete").expect(0);
    s.assert_same();
    s.dst().file(".treeferry.extra", "1");
    let r = s.sync("").expect(0);
    assert!(s.dst().has(".treeferry.extra"));
    assert_eq!(r.count("swept"), 0);
    assert_eq!(s.sync("--delete").expect(0).count("deleted"), 1);
}

#[test]
fn what_another_run_left_in_the_source_is_not_copied() {
    let s = Scratch::memory();
    plant(&s);
    let run = caught(&s, "");
    run.signal(Signal::KILL);
    drop(run);
    fs::rename(s.at("dst"), s.at("half")).unwrap();
    let r = sync(args!["--delete", s.at("half"), s.at("dst")]).expect(0);
    assert_eq!((temporary(&s.dst()).len(), r.count("skipped")), (0, 1));
    assert_eq!(temporary(&Plant::new(s.at("half"))).len(), 1, "the source is not ours to clean");
}

#[test]
fn what_a_live_run_is_writing_below_something_extra_is_left_alone_and_named() {
    let s = Scratch::memory();
    plant(&s);
    s.dst().remove("big").file("inner/big", "old");
    let inner = Plant::new(s.at("dst/inner"));
    let mut run = Live::sync(args!["--bwlimit", "1M", s.at("src"), inner.path("")]);
    run.until("a file is being copied", || !temporary(&inner).is_empty());
    run.freeze();
    let before = temporary(&inner);
    // for this run all of it is extra
    s.src().dir("../none");
    let r = sync(args!["--delete", s.at("none"), s.at("dst")]).expect(23);
    assert_eq!((temporary(&inner), r.failed()), (before, vec!["inner"]), "{r}");
    run.thaw();
    run.finish().expect(0);
    assert_eq!(inner.meta("big").len(), 2 << 20);
}
