//! What fails once and not again is tried again: the job succeeds, and says how often it had to.

use crate::checks::{is_root, settle};
use crate::scene::{assert_only_differ, change, faulty, plant, rule};
use treeferry_tests::{Run, Scratch};

/// Calls of a first clone.
const CLONING: &[(&str, &str)] = &[
    ("openat", "dir/file"),
    ("statx", "dir/file"),
    ("statx", "dir/symlink"),
    ("create", "dir/file"),
    ("read", "dir/file"),
    ("write", "dir/file"),
    ("copy_file_range", "dir/large"),
    ("listxattr", "dir/file"),
    ("getxattr", "dir/file"),
    ("setxattr", "dir/file"),
    ("fchown", "dir/file"),
    ("fchmod", "set-id"),
    ("futimens", "dir/file"),
    ("linkat", "dir/file"),
    ("linkat", "one"),
    ("linkat", "two"),
    ("mkdirat", "dir"),
    ("mkdirat", "dir/sub"),
    ("symlinkat", "dir/symlink"),
    ("readlinkat", "dir/symlink"),
    ("mknodat", "dir/fifo"),
    ("fchownat", "dir/fifo"),
    ("utimensat", "dir/symlink"),
    ("openat2", "dir/sub"),
    ("getdents64", "dir/sub"),
    ("getdents64", "dir"),
    ("fchown", "dir"),
    ("futimens", "dir"),
];

/// Calls of a run that changes, repairs and deletes.
const CHANGING: &[(&str, &str)] = &[
    ("renameat", "dir/file"),
    ("renameat", "dir/symlink"),
    ("removexattr", "plain"),
    ("fchmodat", "plain"),
    ("fchmodat", "dir/fifo"),
    ("fchmod", "dir/sub"),
    ("listxattr", "dir/sub"),
    ("statx", "one"),
    ("mkdirat", "dir/new"),
    ("unlinkat", "dir/extra"),
    ("unlinkat", "dir/extras/x"),
    ("rmdir", "dir/extras"),
    ("rmdir", "dir/empty"),
    ("getdents64", "dir/extras"),
    ("openat2", "dir/extras"),
];

/// What of a list did not go as it should: all of it is tried before the test fails.
fn try_all(calls: &[(&str, &str)], errno: &str, mut test: impl FnMut(&Scratch, &str) -> Run) {
    let mut wrong = Vec::new();
    for (call, path) in calls {
        let s = Scratch::disk();
        plant(&s);
        let run = test(&s, &rule(call, errno, path, 1));
        let retried = errno == "EINTR" || run.count("retried") > 0;
        if run.status.code() == Some(0) && retried {
            s.assert_same();
            assert_only_differ(&s, &[], call);
            settle(&s, "--delete");
        } else {
            let first = run.stderr.lines().next().unwrap_or_default();
            wrong.push(format!("{call} {path}: {}, retried {}: {first}", run.status, run.count("retried")));
        }
    }
    assert!(wrong.is_empty(), "{errno}, once:\n{}", wrong.join("\n"));
}

#[test]
fn a_call_that_fails_once_in_a_first_clone_is_made_again() {
    if is_root() {
        try_all(CLONING, "EIO", |s, rule| faulty(s, rule, ""));
    }
}

#[test]
fn a_call_that_fails_once_while_things_are_changed_is_made_again() {
    if is_root() {
        try_all(CHANGING, "EIO", |s, rule| {
            s.sync("").expect(0);
            change(s);
            faulty(s, rule, "--delete")
        });
    }
}

#[test]
fn an_interrupted_call_is_made_again_and_nobody_notices() {
    if is_root() {
        try_all(CLONING, "EINTR", |s, rule| faulty(s, rule, ""));
    }
}

#[test]
fn interrupted_and_short_reads_and_writes_are_invisible() {
    for effect in ["EINTR", "SHORT"] {
        for options in ["", "--verify", "--chunk-size 64K", "--no-sparse"] {
            let s = Scratch::disk();
            plant(&s);
            let rules: Vec<String> = ["read", "write", "copy_file_range"]
                .map(|call| format!("call={call},errno={effect},skip=1,times=25"))
                .to_vec();
            let run = faulty(&s, &rules.join(";"), options).expect(0);
            assert_eq!((run.count("retried"), run.count("failures")), (0, 0), "{effect} {options}: {run}");
            s.assert_same();
            settle(&s, "--checksum");
        }
    }
}

#[test]
fn every_read_and_write_may_be_short() {
    let s = Scratch::memory();
    s.src().file("small", vec![1; 3000]).file("d/other", vec![2; 777]);
    faulty(&s, "call=read,errno=SHORT;call=write,errno=SHORT", "").expect(0);
    s.assert_same();
    s.src().file("small", vec![3; 3001]);
    faulty(&s, "call=read,errno=SHORT;call=write,errno=SHORT", "--checksum --verify").expect(0);
    s.assert_same();
}

#[test]
fn a_call_that_fails_twice_is_made_a_third_time_and_one_that_always_fails_is_not_made_for_ever() {
    let s = Scratch::disk();
    s.src().file("f", "x");
    let run = faulty(&s, &rule("write", "EIO", "f", 2), "").expect(0);
    assert_eq!((run.count("retried"), run.count("copied_files")), (2, 1), "{run}");
    s.src().file("f", "longer");
    let run = faulty(&s, &rule("write", "EIO", "f", 0), "").expect(23);
    assert_eq!((run.count("retried"), run.count("failures")), (3, 1), "{run}");
    assert_eq!(s.dst().read("f"), "x");
}

#[test]
fn what_cannot_pass_is_not_tried_again() {
    for errno in ["ENOSPC", "EDQUOT", "EACCES", "EPERM", "EROFS"] {
        let s = Scratch::disk();
        s.src().file("f", "x");
        let run = faulty(&s, &rule("write", errno, "f", 1), "").expect(23);
        assert_eq!((run.count("retried"), run.count("failures")), (0, 1), "{errno}: {run}");
    }
}

#[test]
fn a_copy_that_reads_back_wrong_is_made_again_and_never_published() {
    let s = Scratch::disk();
    s.src().file("f", "x").file("g", vec![5; 600_000]);
    let run = faulty(&s, &rule("verify", "EIO", "f", 1), "--verify").expect(0);
    assert_eq!((run.count("retried"), run.count("verified_files")), (1, 2), "{run}");
    s.assert_same();
    s.src().file("f", "longer");
    let run = faulty(&s, &rule("verify", "EIO", "f", 0), "--verify").expect(23);
    assert_eq!((run.failed(), run.count("verified_files")), (vec!["f"], 0), "{run}");
    assert_eq!(run.json["failures"][0]["op"], "verify", "{run}");
    assert_eq!(s.dst().read("f"), "x");
    settle(&s, "--verify");
}
