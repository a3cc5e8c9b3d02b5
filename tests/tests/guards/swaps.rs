//! Somebody swaps directories and files for symlinks that lead out, while it runs.

use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::rename;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use treeferry_kit::oracle::snapshot;
use treeferry_tests::{Plant, Run, Scratch};

/// Rounds of syncs beside the swapping.
const ROUNDS: usize = 4;

/// An entry of a tree, and a symlink aside that it is swapped for.
struct Swap {
    entry: PathBuf,
    aside: PathBuf,
    to: PathBuf,
}

impl Swap {
    fn new(s: &Scratch, entry: &str, aside: &str, to: &str) -> Swap {
        let swap = Swap { entry: s.at(entry), aside: Plant::new(s.at("aside")).path(aside), to: s.at(to) };
        symlink(&swap.to, &swap.aside).unwrap();
        swap
    }

    /// Swaps them. Where a run has put the right thing in the place of the link there is a new link next time.
    fn once(&self, number: u64) -> bool {
        let is_link = |p: &Path| p.symlink_metadata().is_ok_and(|m| m.is_symlink());
        if !is_link(&self.entry) && !is_link(&self.aside) {
            let _ = rename(&self.aside, self.aside.with_extension(number.to_string()));
            let _ = symlink(&self.to, &self.aside);
        }
        renameat_with(CWD, &self.entry, CWD, &self.aside, RenameFlags::EXCHANGE).is_ok()
    }
}

/// Swaps for ever, beside some work; says how often.
fn beside(swaps: &[Swap], work: impl FnOnce()) -> u64 {
    let (over, done) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Relaxed) {
                for swap in swaps {
                    done.fetch_add(u64::from(swap.once(done.load(Relaxed))), Relaxed);
                }
            }
        });
        // not even a failed test leaves the other thread behind
        let result = catch_unwind(AssertUnwindSafe(work));
        over.store(true, Relaxed);
        if let Err(panic) = result {
            resume_unwind(panic);
        }
    });
    done.into_inner()
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
        outside(&s);
        for dir in ["a", "b/deep"] {
            many(&s.src(), dir, "1");
            many(&s.dst(), dir, "22");
        }
        let before = snapshot(&s.at("outside")).unwrap();
        let pairs = [("dst/a", "a"), ("dst/b/deep", "b")].map(|(e, a)| Swap::new(&s, e, a, "outside"));
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
        outside(&s);
        many(&s.src(), "a", "1");
        many(&s.src(), "b/deep", "1");
        let before = snapshot(&s.at("outside")).unwrap();
        let pairs = [("src/a", "a"), ("src/b/deep", "b")].map(|(e, a)| Swap::new(&s, e, a, "outside"));
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
    outside(&s);
    for name in ["f", "g", "d/h"] {
        s.src().file(name, "1");
    }
    let names = [("src/f", "f"), ("src/g", "g"), ("src/d/h", "h")];
    let swaps = beside(&names.map(|(e, a)| Swap::new(&s, e, a, "outside/secret")), || {
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
    outside(&s);
    s.src().file("f", "1").mode("f", 0o600).owner("f", 3, 4).xattr("f", "user.k", b"v");
    s.dst().file("f", "22");
    let before = snapshot(&s.at("outside")).unwrap();
    let swaps = beside(&[Swap::new(&s, "dst/f", "f", "outside/secret")], || {
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
        outside(&s);
        let before = snapshot(&s.at("outside")).unwrap();
        for _ in 0..ROUNDS {
            many(&s.dst(), "x", "1");
            many(&s.dst(), "d/y", "1");
            let pairs = [("dst/x", "x"), ("dst/d/y", "y")].map(|(e, a)| Swap::new(&s, e, a, "outside"));
            beside(&pairs, || ended(s.sync("--delete")));
            // the next round begins with directories again
            s.sync("--delete").expect(0);
            std::fs::remove_dir_all(s.at("aside")).unwrap();
        }
        assert_eq!(before.touched(&snapshot(&s.at("outside")).unwrap()), [""; 0]);
    }
}
