//! What several test files ask of a run or of a tree.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod churn;
pub mod mirror;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use treeferry_kit::caps::own_ids;
use treeferry_tests::{Run, Scratch};

/// Counters of what a run did; all of them are 0 if it found everything right.
pub const DEEDS: [&str; 9] = [
    "copied_files",
    "meta_fixed",
    "made_dirs",
    "linked",
    "symlinks",
    "specials",
    "deleted",
    "swept",
    "failures",
];

/// Whether foreign owners, devices and mounts are at our command; says so if a test is left out.
pub fn is_root() -> bool {
    let root = own_ids().0 == 0;
    if !root {
        eprintln!("left out: only root can prepare this");
    }
    root
}

/// Fails the test if a run did anything at all.
#[track_caller]
pub fn assert_idle(run: &Run) {
    for deed in DEEDS {
        assert_eq!(run.count(deed), 0, "{deed} of a run that had nothing to do: {run}");
    }
}

/// Runs a sync that must succeed, leave equal trees and no rubbish, and have left nothing to a further run.
/// Returns the first of the two runs.
#[track_caller]
pub fn settle(s: &Scratch, options: &str) -> Run {
    let run = s.sync(options).expect(0);
    s.assert_same();
    assert_eq!(leftovers(&s.at("dst")), [""; 0].map(PathBuf::from));
    let before = s.snapshot();
    assert_idle(&s.sync(options).expect(0));
    s.assert_untouched(&before);
    run
}

/// All entries below a directory, itself not among them, by their path below it. What vanishes meanwhile is
/// left out, so that a tree can be looked at while it is worked on.
pub fn entries(root: &Path) -> BTreeMap<PathBuf, fs::Metadata> {
    let mut all = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(dir) = left.pop() {
        let listed = match fs::read_dir(&dir) {
            Ok(listed) => listed,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => continue,
            Err(e) => panic!("{}: {e}", dir.display()),
        };
        for path in listed.flatten().map(|e| e.path()) {
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            if meta.is_dir() {
                left.push(path.clone());
            }
            all.insert(path.strip_prefix(root).unwrap_or(&path).to_path_buf(), meta);
        }
    }
    all
}

/// The unfinished copies below a directory: `.treeferry.MACHINE.BOOT.PROCESS.NUMBER`.
pub fn leftovers(root: &Path) -> Vec<PathBuf> {
    let is_ours = |p: &PathBuf| {
        let name = p.file_name().unwrap_or_default().as_encoded_bytes();
        name.strip_prefix(b".treeferry.").is_some_and(|rest| rest.split(|b| *b == b'.').count() == 4)
    };
    entries(root).into_keys().filter(is_ours).collect()
}

/// Makes an entry immutable until it is dropped.
pub struct Immutable(PathBuf);

impl Immutable {
    /// On ext4, as root.
    pub fn new(path: PathBuf) -> Immutable {
        chattr("+i", &path);
        Immutable(path)
    }
}

impl Drop for Immutable {
    fn drop(&mut self) {
        chattr("-i", &self.0);
    }
}

fn chattr(change: &str, path: &Path) {
    let status = std::process::Command::new("chattr").arg(change).arg(path).status().expect("chattr runs");
    assert!(status.success(), "chattr {change} {}: is it on ext4?", path.display());
}
