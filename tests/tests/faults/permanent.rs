//! A call that fails for good is one failure with its name, and all else is cloned.

use crate::checks::{is_root, settle};
use crate::scene::{assert_absent_or, assert_failed_once, assert_only_differ, change, faulty, plant, rule};
use treeferry_tests::Scratch;

const EIO: i32 = 5;
const EACCES: i32 = 13;
const ENOSPC: i32 = 28;
const EDQUOT: i32 = 122;

fn name(errno: i32) -> &'static str {
    match errno {
        EIO => "EIO",
        EACCES => "EACCES",
        ENOSPC => "ENOSPC",
        _ => "EDQUOT",
    }
}

/// Calls of a first clone: call, errno, path.
const CLONING: &[(&str, i32, &str)] = &[
    ("openat", EACCES, "dir/file"),
    ("openat", EIO, "dir/large"),
    ("statx", EIO, "dir/file"),
    ("statx", EACCES, "dir/symlink"),
    ("create", ENOSPC, "dir/file"),
    ("create", EDQUOT, "dir/large"),
    ("create", EIO, "dir/sub/in"),
    ("read", EIO, "dir/file"),
    ("write", ENOSPC, "dir/file"),
    ("write", EDQUOT, "dir/file"),
    ("write", EIO, "set-id"),
    ("copy_file_range", ENOSPC, "dir/large"),
    ("copy_file_range", EDQUOT, "dir/large"),
    ("copy_file_range", EIO, "dir/large"),
    ("listxattr", EIO, "dir/file"),
    ("getxattr", EIO, "dir/file"),
    ("setxattr", EDQUOT, "dir/file"),
    ("setxattr", EACCES, "plain"),
    ("futimens", EACCES, "dir/file"),
    ("linkat", EIO, "dir/file"),
    ("linkat", EDQUOT, "two"),
    ("mkdirat", ENOSPC, "dir/sub"),
    ("mkdirat", EDQUOT, "dir/empty"),
    ("mkdirat", EIO, "dir"),
    ("symlinkat", EDQUOT, "dir/symlink"),
    ("readlinkat", EIO, "dir/symlink"),
    ("mknodat", ENOSPC, "dir/fifo"),
    ("utimensat", EACCES, "dir/symlink"),
    ("utimensat", EIO, "dir/fifo"),
    ("openat2", EACCES, "dir/sub"),
    ("openat2", EIO, "dir"),
    ("getdents64", EIO, "dir/sub"),
    ("getdents64", EACCES, "dir"),
    ("futimens", EIO, "dir/empty"),
    ("futimens", EACCES, "dir"),
];

/// Calls that only an entry with a foreign owner or a set-id bit needs.
const CLONING_AS_ROOT: &[(&str, i32, &str)] = &[
    ("fchown", EDQUOT, "dir/file"),
    ("fchown", EIO, "set-id"),
    ("fchown", EACCES, "dir"),
    ("fchmod", EACCES, "set-id"),
    ("fchownat", EDQUOT, "dir/symlink"),
    ("fchownat", EACCES, "dir/fifo"),
];

/// Calls of a run that changes, repairs and deletes.
const CHANGING: &[(&str, i32, &str)] = &[
    ("create", ENOSPC, "dir/file"),
    ("create", EDQUOT, "dir/large"),
    ("write", ENOSPC, "dir/file"),
    ("copy_file_range", EDQUOT, "dir/large"),
    ("futimens", EACCES, "dir/file"),
    ("renameat", EIO, "dir/file"),
    ("renameat", ENOSPC, "dir/large"),
    ("renameat", EDQUOT, "dir/symlink"),
    ("symlinkat", ENOSPC, "dir/symlink"),
    ("statx", EIO, "dir/file"),
    ("statx", EIO, "one"),
    ("removexattr", EACCES, "plain"),
    ("fchmodat", EACCES, "plain"),
    ("fchmodat", EIO, "dir/fifo"),
    ("fchmod", EACCES, "dir/sub"),
    ("mkdirat", EDQUOT, "dir/new"),
    ("unlinkat", EACCES, "dir/extra"),
    ("rmdir", EACCES, "dir/empty"),
];

#[test]
fn in_a_first_clone_it_is_named_once_and_all_else_arrives() {
    let as_root = if is_root() { CLONING_AS_ROOT } else { &[] };
    for &(call, errno, path) in CLONING.iter().chain(as_root) {
        let s = Scratch::disk();
        plant(&s);
        let what = format!("{call} {} {path}", name(errno));
        println!("{what}");
        let run = faulty(&s, &rule(call, name(errno), path, 0), "").expect(23);
        assert_failed_once(&run, path, call, errno);
        assert_only_differ(&s, &[path], &what);
        settle(&s, "");
    }
}

#[test]
fn in_a_run_that_changes_things_it_is_named_once_and_what_was_there_is_whole() {
    if !is_root() {
        return;
    }
    for &(call, errno, path) in CHANGING {
        let s = Scratch::disk();
        plant(&s);
        s.sync("").expect(0);
        let old = [("dir/file", s.dst().read("dir/file")), ("dir/large", s.dst().read("dir/large"))];
        change(&s);
        let what = format!("{call} {} {path}", name(errno));
        println!("{what}");
        let run = faulty(&s, &rule(call, name(errno), path, 0), "--delete").expect(23);
        assert_failed_once(&run, path, call, errno);
        assert_only_differ(&s, &[path], &what);
        for (name, content) in old.iter().filter(|(name, _)| *name == path) {
            assert!(s.dst().has(name), "{what}: the old version is gone");
            assert_absent_or(&s.dst(), name, content.as_bytes(), &what);
        }
        settle(&s, "--delete");
    }
}

#[test]
fn a_directory_of_which_something_cannot_be_deleted_stays_with_it_and_is_named_too() {
    let s = Scratch::disk();
    s.src().file("f", "x");
    s.dst().file("extras/x", "x").file("extras/y", "x").file("others/z", "x");
    let run = faulty(&s, &rule("unlinkat", "EACCES", "extras/x", 0), "--delete").expect(23);
    assert_eq!(run.failed(), ["extras", "extras/x"], "{run}");
    assert_eq!(s.dst().list("extras"), ["x"]);
    assert_only_differ(&s, &["extras"], "extras");
    settle(&s, "--delete");
}

#[test]
fn a_name_of_a_group_that_cannot_be_made_does_not_take_the_others_with_it() {
    for (call, errno) in [("openat", EIO), ("write", ENOSPC), ("linkat", EDQUOT), ("statx", EACCES)] {
        for path in ["a", "b", "d/c"] {
            let s = Scratch::disk();
            s.src().file("a", "x").link("a", "b").link("a", "d/c");
            // at a first clone, and where there is something already
            for prepared in [false, true] {
                if prepared {
                    for name in ["a", "b", "d/c"] {
                        s.dst().remove(name).file(name, "in the way");
                    }
                }
                let what = format!("{call} {path}, prepared: {prepared}");
                let run = faulty(&s, &rule(call, name(errno), path, 0), "");
                let code = run.status.code();
                // a name that only became a link has not needed the call
                assert!(code == Some(23) && run.failed() == [path] || code == Some(0), "{what}: {run}");
                if code == Some(23) {
                    assert_only_differ(&s, &[path], &what);
                }
                settle(&s, "");
            }
        }
    }
}

#[test]
fn a_full_file_system_is_a_failure_for_each_file_and_the_first_hundred_are_listed() {
    let s = Scratch::memory();
    for i in 0..300 {
        s.src().file(&format!("d{}/f{i}", i % 5), "x");
    }
    let run = faulty(&s, "call=write,errno=ENOSPC", "").expect(23);
    assert_eq!(
        (run.count("failures"), run.count("files"), run.count("copied_files")),
        (300, 300, 0),
        "{run}"
    );
    assert_eq!(run.failed().len(), 100);
    assert_eq!(run.stderr.lines().filter(|l| l.contains("No space left on device")).count(), 300);
    assert_only_differ(&s, &["d0", "d1", "d2", "d3", "d4"], "full");
    settle(&s, "");
}

#[test]
fn a_small_file_system_that_fills_up_leaves_no_part_of_a_file() {
    use treeferry_kit::mounts::{FsKind, Mount};
    if !is_root() {
        return;
    }
    let small = Mount::sized(FsKind::Tmpfs, 4 << 20, None).unwrap();
    let s = Scratch::memory();
    for i in 0..40 {
        s.src().file(&format!("f{i:02}"), vec![i; 100_000 + 10_000 * usize::from(i)]);
    }
    for options in [&[][..], &["--chunk-size", "64K"]] {
        let dst = small.path().join("dst");
        let words = options.iter().map(Into::into).chain([s.at("src").into(), dst.clone().into()]);
        let run = treeferry_tests::sync(words.collect::<Vec<std::ffi::OsString>>()).expect(23);
        let there = crate::checks::entries(&dst);
        assert_eq!(run.count("copied_files") as usize, there.len(), "{run}");
        assert_eq!(run.count("failures") + run.count("copied_files"), 40, "{run}");
        assert!(!there.is_empty(), "{run}");
        for name in there.keys() {
            let [a, b] = [s.at("src"), dst.clone()].map(|root| std::fs::read(root.join(name)).unwrap());
            assert!(a == b, "{} is not whole", name.display());
        }
        std::fs::remove_dir_all(&dst).unwrap();
    }
}
