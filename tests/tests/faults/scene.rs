//! A small tree that makes a sync use every call, and runs of it with calls that fail.

use crate::checks::{is_root, leftovers};
use std::path::PathBuf;
use treeferry_kit::oracle::{Class, Options, compare};
use treeferry_tests::{Plant, Run, Scratch, command};

/// Larger than what goes by one read and one write.
pub const LARGE_BYTES: usize = 700_000;

/// A rule of failure injection. `times` 0: for ever.
pub fn rule(call: &str, errno: &str, path: &str, times: u32) -> String {
    let times = if times == 0 { String::new() } else { format!(",times={times}") };
    format!("call={call},errno={errno},path={path}{times}")
}

/// Runs `treeferry sync --json OPTIONS src dst` with calls that fail.
#[track_caller]
pub fn faulty(s: &Scratch, rules: &str, options: &str) -> Run {
    Run::of(command(["sync", "--json"]).env("TREEFERRY_FAULTS", rules).args(s.words(options)))
}

/// Plants the source: each name says what it is there for.
pub fn plant(s: &Scratch) {
    let src = s.src();
    src.file("dir/file", "content").xattr("dir/file", "user.a", b"1").mode("dir/file", 0o640);
    src.file("dir/large", vec![7; LARGE_BYTES]).symlink("dir/symlink", "anywhere").fifo("dir/fifo");
    src.file("dir/sub/in", "in").dir("dir/empty").file("set-id", "x").mode("set-id", 0o4755);
    src.file("one", "linked").link("one", "two").file("plain", "plain").acl("plain", 1000, 4);
    if is_root() {
        for name in ["dir/file", "dir/symlink", "dir/fifo", "dir", "set-id"] {
            src.owner(name, 1000, 1001);
        }
        src.mode("set-id", 0o4755);
    }
    for name in ["dir/file", "dir/large", "dir/symlink", "dir/fifo", "dir/sub", "dir/empty", "dir", "plain"] {
        src.time(name, 1_600_000_000);
    }
}

/// Changes everything that [`plant`] has planted, so that a further run uses the calls of a repair.
pub fn change(s: &Scratch) {
    let src = s.src();
    src.file("dir/file", "other content").file("dir/large", vec![8; LARGE_BYTES]).remove("dir/symlink");
    src.symlink("dir/symlink", "elsewhere").mode("plain", 0o600).mode("dir/fifo", 0o600);
    src.remove("two").file("two", "apart").remove("dir/empty").dir("dir/new").mode("dir/sub", 0o700);
    rustix::fs::removexattr(src.path("plain"), "system.posix_acl_access").unwrap();
    s.dst().xattr("dir/sub/in", "user.extra", b"1").file("dir/extra", "x").file("dir/extras/x", "x");
}

/// Fails the test unless the run has named this failure, once, and no other.
#[track_caller]
pub fn assert_failed_once(run: &Run, path: &str, op: &str, errno: i32) {
    assert_eq!(run.failed(), [path], "{op} {errno}: {run}");
    assert_eq!(run.count("failures"), 1, "{run}");
    let failure = &run.json["failures"][0];
    assert_eq!((failure["op"].as_str(), failure["errno"].as_i64()), (Some(op), Some(errno.into())), "{run}");
    let said = run.stderr.lines().filter(|line| line.starts_with(&format!("{path}: "))).count();
    assert!(said <= 1, "said {said} times: {run}");
    assert!(run.stderr.contains(path) && run.stderr.contains(op), "not said on standard error: {run}");
}

/// Fails the test if the trees differ in anything but these entries and what is below them, or if there is
/// anything unfinished in the target.
#[track_caller]
pub fn assert_only_differ(s: &Scratch, paths: &[&str], what: &str) {
    let found = compare(&s.at("src"), &s.at("dst"), &Options::default());
    for class in found.classes().iter().filter(|c| **c != Class::HardlinkGroup) {
        for path in found.paths(class) {
            let path = String::from_utf8_lossy(path);
            let known = paths.iter().any(|p| {
                let below = path.strip_prefix(p);
                below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            assert!(known, "{what}: {found}");
        }
    }
    assert_eq!(leftovers(&s.at("dst")), [""; 0].map(PathBuf::from), "{what}");
}

/// What stands in the target under a name: nothing, or this content.
#[track_caller]
pub fn assert_absent_or(dst: &Plant, name: &str, content: &[u8], what: &str) {
    if dst.has(name) {
        assert!(
            std::fs::read(dst.path(name)).unwrap() == content,
            "{what}: {name} is neither old nor absent"
        );
    }
}
