//! Directories of a test's own, on a disk file system or in memory, with a source and a target in them.

use crate::{Plant, Run, sync};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use treeferry_kit::mounts::{self, FsKind};
use treeferry_kit::oracle::{self, Options, Snapshot, snapshot};

/// A fresh directory with an empty `src` in it and no `dst` yet; removed when dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// What it lies in, if that is its own too.
    place: Option<mounts::Scratch>,
}

impl Scratch {
    /// Below the directory for temporary files (ext4, on most machines).
    pub fn disk() -> Scratch {
        Scratch::below(&std::env::temp_dir())
    }

    /// On tmpfs: a mount of this process's own, where nobody else uses up the room.
    pub fn memory() -> Scratch {
        let place = mounts::scratch(FsKind::Tmpfs, "e2e");
        let mut s = Scratch::below(&place);
        s.place = Some(place);
        s
    }

    /// One of each, for what may depend on the file system.
    pub fn both() -> [Scratch; 2] {
        [Scratch::disk(), Scratch::memory()]
    }

    /// Below a directory that is there.
    #[track_caller]
    pub fn below(dir: &Path) -> Scratch {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let n = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!("ferry-e2e-{}-{n}", std::process::id()));
        // of a test that was killed, whose process number came round again
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("src")).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        Scratch { path, place: None }
    }

    /// A path in it.
    pub fn at(&self, relative: &str) -> PathBuf {
        self.path.join(relative)
    }

    /// The source, to plant entries in.
    pub fn src(&self) -> Plant {
        Plant::new(self.at("src"))
    }

    /// The target, to plant entries in; made if it is missing.
    pub fn dst(&self) -> Plant {
        Plant::new(self.at("dst"))
    }

    /// Runs `treeferry sync --json OPTIONS src dst`, the options divided by white space.
    #[track_caller]
    pub fn sync(&self, options: &str) -> Run {
        sync(self.words(options))
    }

    /// The words of `OPTIONS src dst`.
    pub fn words(&self, options: &str) -> Vec<OsString> {
        let options = options.split_whitespace().map(OsString::from);
        options.chain([self.at("src").into(), self.at("dst").into()]).collect()
    }

    /// Fails the test if the target is not like the source in all that is kept.
    #[track_caller]
    pub fn assert_same(&self) {
        assert_same(&self.at("src"), &self.at("dst"));
    }

    /// The state of source and target, to see later whether anything was touched.
    #[track_caller]
    pub fn snapshot(&self) -> Snapshot {
        snapshot(&self.path).unwrap_or_else(|e| panic!("{}: {e}", self.path.display()))
    }

    /// Fails the test if anything was touched since.
    #[track_caller]
    pub fn assert_untouched(&self, since: &Snapshot) {
        assert_eq!(since.touched(&self.snapshot()), [""; 0]);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Fails the test if two trees differ in anything that is kept.
#[track_caller]
pub fn assert_same(src: &Path, dst: &Path) {
    let found = oracle::compare(src, dst, &Options::default());
    assert!(found.is_empty(), "{} and {} differ: {found}", src.display(), dst.display());
}
