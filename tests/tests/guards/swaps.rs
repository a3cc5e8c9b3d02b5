//! Somebody swaps directories and files for symlinks that lead out, while it runs.

use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use treeferry_kit::oracle::snapshot;
use treeferry_tests::{Plant, Run, Scratch};

/// Rounds of syncs beside the swapping.
const ROUNDS: usize = 4;

/// Swaps two names for ever, beside some work; says how often.
fn beside(pairs: &[(PathBuf, PathBuf)], work: impl FnOnce()) -> u64 {
    let (over, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                for (a, b) in pairs {
                    // the run itself may just have replaced or deleted one of them
                    if renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).is_ok() {
                        swaps.fetch_add(1, Relaxed);
                    }
                }
            }
        });
        work();
        over.store(true, Relaxed);
    });
    swaps.into_inner()
}

/// A directory outside with what must not get in, and what must not be touched.
fn outside(s: &Scratch) -> Plant {
    let o = Plant::new(s.at("outside"));
    o.file("secret", "secret").file("sub/secret", "secret").file("0", "secret").mode("sub", 0o700);
    o
}

fn ended(r: Run) {
    assert!(matches!(r.status.code(), Some(0 | 23 | 24)), "{r}");
}

/// Whether any file below holds what must not get in; links are not followed.
fn has_secret(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().map(Result::unwrap).any(|e| {
        let kind = e.file_type().unwrap();
        (kind.is_dir() && has_secret(&e.path()))
            || (kind.is_file() && std::fs::read(e.path()).unwrap() == b"secret")
    })
}

fn many(t: &Plant, dir: &str, content: &str) {
    for i in 0..40 {
        t.file(&format!("{dir}/{i}"), content).file(&format!("{dir}/sub/{i}"), content);
    }
}

#[test]
fn a_directory_of_the_target_that_becomes_a_link_never_leads_outside() {
    for s in Scratch::both() {
        let out = outside(&s);
        for dir in ["a", "b/deep"] {
            many(&s.src(), dir, "1");
            many(&s.dst(), dir, "22");
        }
        let aside = Plant::new(s.at("aside"));
        aside.symlink("a", out.path("")).symlink("b", out.path(""));
        let before = snapshot(&s.at("outside")).unwrap();
        let pairs = [("dst/a", "aside/a"), ("dst/b/deep", "aside/b")].map(|(a, b)| (s.at(a), s.at(b)));
        let swaps = beside(&pairs, || {
            for i in 0..ROUNDS {
                s.src().file(&format!("a/new{i}"), "1").file("b/deep/sub/3", format!("{i}"));
                s.dst().file(&format!("extra{i}"), "1");
                ended(s.sync("--delete --force"));
            }
        });
        assert!(swaps > 0);
        assert_eq!(before.touched(&snapshot(&s.at("outside")).unwrap()), [""; 0]);
        s.sync("--delete --force").expect(0);
        s.assert_same();
    }
}

#[test]
fn a_directory_of_the_source_that_becomes_a_link_lets_nothing_in() {
    for s in Scratch::both() {
        let out = outside(&s);
        many(&s.src(), "a", "1");
        many(&s.src(), "b/deep", "1");
        Plant::new(s.at("aside")).symlink("a", out.path("")).symlink("b", out.path(""));
        let before = snapshot(&s.at("outside")).unwrap();
        let pairs = [("src/a", "aside/a"), ("src/b/deep", "aside/b")].map(|(a, b)| (s.at(a), s.at(b)));
        let swaps = beside(&pairs, || {
            for _ in 0..ROUNDS {
                let _ = std::fs::remove_dir_all(s.at("dst"));
                ended(s.sync("--delete -c"));
                assert!(!has_secret(&s.at("dst")));
            }
        });
        assert!(swaps > 0);
        assert_eq!(before.touched(&snapshot(&s.at("outside")).unwrap()), [""; 0]);
    }
}

#[test]
fn a_file_of_the_source_that_becomes_a_link_lets_nothing_in() {
    let s = Scratch::disk();
    let out = outside(&s);
    for name in ["f", "g", "d/h"] {
        s.src().file(name, "1");
    }
    let aside = Plant::new(s.at("aside"));
    aside.symlink("f", out.path("secret")).symlink("g", out.path("secret")).symlink("h", out.path("secret"));
    let names = [("src/f", "aside/f"), ("src/g", "aside/g"), ("src/d/h", "aside/h")];
    let swaps = beside(&names.map(|(a, b)| (s.at(a), s.at(b))), || {
        for i in 0..ROUNDS {
            let _ = std::fs::remove_dir_all(s.at("dst"));
            let options = ["", "-c", "--chunk-size 64K", "--verify"][i % 4];
            ended(s.sync(options));
            assert!(!has_secret(&s.at("dst")));
        }
    });
    assert!(swaps > 0);
}

#[test]
fn a_file_of_the_target_that_becomes_a_link_is_replaced_and_not_written_through() {
    let s = Scratch::disk();
    let out = outside(&s);
    s.src().file("f", "1").mode("f", 0o600).owner("f", 3, 4).xattr("f", "user.k", b"v");
    s.dst().file("f", "22");
    Plant::new(s.at("aside")).symlink("f", out.path("secret"));
    let before = snapshot(&s.at("outside")).unwrap();
    let swaps = beside(&[(s.at("dst/f"), s.at("aside/f"))], || {
        for i in 0..ROUNDS {
            s.src().file("f", "1".repeat(i % 3)).mode("f", 0o600 + i as u32 % 8);
            ended(s.sync(["", "-c", "--delete"][i % 3]));
        }
    });
    assert!(swaps > 0);
    assert_eq!(before.touched(&snapshot(&s.at("outside")).unwrap()), [""; 0]);
}

#[test]
fn a_directory_that_is_being_deleted_and_becomes_a_link_never_leads_outside() {
    for s in Scratch::both() {
        let out = outside(&s);
        Plant::new(s.at("aside")).symlink("x", out.path("")).symlink("y", out.path(""));
        let before = snapshot(&s.at("outside")).unwrap();
        for _ in 0..ROUNDS {
            many(&s.dst(), "x", "1");
            many(&s.dst(), "d/y", "1");
            let pairs = [("dst/x", "aside/x"), ("dst/d/y", "aside/y")].map(|(a, b)| (s.at(a), s.at(b)));
            beside(&pairs, || ended(s.sync("--delete")));
            // the next round begins with directories again
            s.sync("--delete").expect(0);
            let _ = std::fs::remove_dir_all(s.at("aside"));
            Plant::new(s.at("aside")).symlink("x", out.path("")).symlink("y", out.path(""));
        }
        assert_eq!(before.touched(&snapshot(&s.at("outside")).unwrap()), [""; 0]);
    }
}
