//! SIGKILL at the n-th system call of each kind that changes anything, which strace sees to.

use crate::checks::is_root;
use crate::state::{Content, assert_whole, content, finish};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use treeferry_kit::run::{DEADLINE, collect};
use treeferry_tests::{Scratch, args, bin, neutral};

/// The calls, by strace's names.
const CALLS: &[&str] = &[
    "openat",
    "linkat",
    "renameat",
    "mkdirat",
    "mknodat",
    "symlinkat",
    "unlinkat",
    "write",
    "copy_file_range",
    "ftruncate",
    "fchown",
    "fchownat",
    "fchmod",
    "fsetxattr",
    "utimensat",
    "ioctl",
];

/// At which of the calls: early, and some of the later ones.
const WHICH: &[u32] = &[1, 2, 3, 4, 6, 9, 13, 20, 30, 45];

fn plant(s: &Scratch) {
    let src = s.src();
    src.file("a", "x").file("d/b", "xx").file("d/e/c", "xxx").dir("d/empty").symlink("d/l", "a").fifo("d/p");
    src.file("d/large", vec![1; 400_000])
        .file("d/chunks", vec![2; 1 << 20])
        .link("d/b", "h")
        .link("d/b", "d/i");
    src.file("x", "x").xattr("x", "user.a", b"1").acl("x", 1000, 4).file("suid", "x");
    src.owner("d/e/c", 1000, 1001).owner("suid", 1000, 1001).mode("suid", 0o6755).owner("d/l", 7, 7);
    for name in ["a", "d/b", "d/e/c", "d/large", "d/chunks", "x", "d", ""] {
        src.time(name, 1_500_000_000);
    }
}

fn change(s: &Scratch) {
    let src = s.src();
    src.file("a", "y").file("d/large", vec![3; 400_000]).file("d/chunks", vec![4; 1 << 20]);
    src.remove("d/l")
        .symlink("d/l", "b")
        .remove("d/i")
        .file("d/i", "apart")
        .mode("x", 0o600)
        .file("new", "n");
    s.dst().file("extra", "e").file("extras/deep/e", "e").dir("new");
}

/// Kills runs over what `prepare` makes, one at each moment.
fn kill_at_each(options: &str, prepare: impl Fn(&Scratch)) {
    if !is_root() {
        return;
    }
    let mut deaths = 0;
    for call in CALLS {
        for which in WHICH {
            let s = Scratch::memory();
            prepare(&s);
            let before = if s.at("dst").exists() { content(&s.at("dst")) } else { Content::new() };
            let what = format!("{call} {which}");
            let inject = format!("--inject={call}:signal=SIGKILL:when={which}");
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-o", "/dev/null", &inject]).arg(bin()).args(["sync", "-q"]);
            // one thread, so that its calls are counted together
            strace.args(args!["--pool", "1"]).args(s.words(options));
            let end = collect(neutral(&mut strace), DEADLINE);
            if end.status.signal() != Some(9) {
                // there are fewer calls than that
                assert_eq!(end.code(), Some(0), "{what}: {end}");
                break;
            }
            deaths += 1;
            // it may have died before it had made anything
            if s.at("dst").exists() {
                assert_whole(&s, &before, &what);
            }
            finish(&s, options, &what);
        }
    }
    assert!(deaths > 25, "only {deaths} runs were killed");
}

#[test]
fn a_first_clone_may_die_at_any_call() {
    kill_at_each("", plant);
}

#[test]
fn a_clone_into_a_directory_that_is_there_may_die_at_any_call() {
    kill_at_each("--chunk-size 64K", |s| {
        plant(s);
        s.dst();
    });
}

#[test]
fn a_run_that_changes_and_deletes_may_die_at_any_call() {
    kill_at_each("--delete --chunk-size 512K", |s| {
        plant(s);
        s.sync("").expect(0);
        change(s);
    });
}
