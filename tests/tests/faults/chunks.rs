//! A file in chunks of which one fails: it is not published, it is named once, and its staged file goes.

use crate::checks::{leftovers, settle};
use crate::scene::{assert_failed_once, assert_only_differ, faulty};
use rustix::fs::ftruncate;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use treeferry_kit::put::write_at;
use treeferry_tests::Scratch;

const MIB: usize = 1 << 20;

/// A large file, one with holes, and a group of two names; all of them go in chunks.
fn plant(s: &Scratch, byte: u8) {
    s.src().file("big", vec![byte; MIB]).file("small", "x").file("d/one", vec![byte; MIB + 5]);
    if !s.src().has("d/two") {
        s.src().link("d/one", "d/two");
    }
    let f = File::create(s.at("src/holes")).unwrap();
    ftruncate(&f, 8 << 20).unwrap();
    for at in [0, 1 << 20, 5 << 20] {
        write_at(f.as_fd(), &[byte; 4096], at).unwrap();
    }
}

/// Call, errno and number of it, path, how many calls pass first.
const RULES: &[(&str, &str, i32, &str, u32)] = &[
    ("copy_file_range", "ENOSPC", 28, "big", 0),
    ("copy_file_range", "EDQUOT", 122, "big", 5),
    ("copy_file_range", "EIO", 5, "big", 15),
    ("copy_file_range", "EIO", 5, "holes", 1),
    ("ftruncate", "ENOSPC", 28, "big", 0),
    ("ftruncate", "EFBIG", 27, "holes", 0),
    ("create", "ENOSPC", 28, "big", 0),
    ("lseek", "EIO", 5, "holes", 0),
    ("lseek", "EIO", 5, "holes", 2),
    ("lseek", "EIO", 5, "holes", 5),
    ("openat", "EIO", 5, "big", 0),
    ("openat", "EIO", 5, "big", 1),
    ("openat", "EACCES", 13, "big", 4),
    ("futimens", "EACCES", 13, "big", 0),
    ("listxattr", "EIO", 5, "big", 0),
    ("renameat", "EIO", 5, "big", 0),
    ("renameat", "EDQUOT", 122, "holes", 0),
    ("statx", "EIO", 5, "big", 1),
    ("statx", "EIO", 5, "big", 4),
];

fn text((call, errno, _, path, skip): (&str, &str, i32, &str, u32), times: &str) -> String {
    format!("call={call},errno={errno},path={path},skip={skip}{times}")
}

#[test]
fn a_chunk_that_fails_for_good_never_lets_the_file_appear() {
    for &rule in RULES {
        let (call, _, errno, path, _) = rule;
        let what = text(rule, "");
        println!("{what}");
        let s = Scratch::disk();
        plant(&s, 1);
        let run = faulty(&s, &what, "--chunk-size 64K --pool 3").expect(23);
        assert_failed_once(&run, path, call, errno);
        assert!(!s.dst().has(path), "{what}");
        assert_only_differ(&s, &[path], &what);
        settle(&s, "--chunk-size 64K");
    }
}

#[test]
fn a_chunk_that_fails_for_good_leaves_the_old_version_as_it_was() {
    for &rule in RULES {
        let (call, _, errno, path, _) = rule;
        let what = text(rule, "");
        println!("{what}");
        let s = Scratch::disk();
        plant(&s, 1);
        s.sync("").expect(0);
        let old = std::fs::read(s.dst().path(path)).unwrap();
        plant(&s, 2);
        let run = faulty(&s, &what, "--chunk-size 64K --pool 3");
        // fewer calls pass than the rule waits for where the target is there: then it did not fail
        if run.status.code() == Some(23) {
            assert_failed_once(&run, path, call, errno);
            assert!(std::fs::read(s.dst().path(path)).unwrap() == old, "{what}");
            assert_only_differ(&s, &[path], &what);
        }
        settle(&s, "--chunk-size 64K");
    }
}

#[test]
fn a_chunk_that_fails_once_is_copied_again() {
    for &rule in RULES.iter().filter(|rule| rule.1 == "EIO") {
        let what = text(rule, ",times=1");
        println!("{what}");
        let s = Scratch::disk();
        plant(&s, 1);
        let run = faulty(&s, &what, "--chunk-size 64K --pool 3").expect(0);
        assert!(run.count("retried") > 0, "{what}: {run}");
        s.assert_same();
        settle(&s, "--chunk-size 64K");
    }
}

#[test]
fn a_group_whose_leader_goes_in_chunks_and_fails_is_led_by_the_next() {
    for (call, path) in [("copy_file_range", "d/one"), ("copy_file_range", "d/two"), ("renameat", "d/one")] {
        for errno in ["ENOSPC", "EIO"] {
            let s = Scratch::disk();
            plant(&s, 1);
            let what = format!("call={call},errno={errno},path={path}");
            let run = faulty(&s, &what, "--chunk-size 64K");
            match run.status.code() {
                Some(0) => s.assert_same(),
                Some(23) => {
                    assert_eq!(run.failed(), [path], "{run}");
                    assert_only_differ(&s, &[path], &what);
                    let other = if path == "d/one" { "d/two" } else { "d/one" };
                    assert!(s.dst().has(other), "{what}: {run}");
                }
                _ => panic!("{run}"),
            }
            assert_eq!(leftovers(&s.at("dst")), [""; 0].map(PathBuf::from));
            settle(&s, "--chunk-size 64K");
        }
    }
}
