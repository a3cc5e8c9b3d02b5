//! What a dead run may leave, and what it may not.

use crate::checks::{assert_idle, entries, leftovers};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use treeferry_tests::{Run, Scratch};

/// Content of every regular file of a tree.
pub type Content = BTreeMap<PathBuf, Vec<u8>>;

/// Reads all regular files below a directory; unfinished copies are none.
pub fn content(root: &Path) -> Content {
    let unfinished = leftovers(root);
    let files = entries(root).into_iter().filter(|(path, meta)| meta.is_file() && !unfinished.contains(path));
    files.map(|(path, _)| (path.clone(), fs::read(root.join(path)).unwrap())).collect()
}

/// Fails the test if a file of the target has neither the content of the source nor that which it had before
/// the run, or has the source's size and time but not its content, or lacks what only a finished copy has.
/// Returns how many files are the source's.
#[track_caller]
pub fn assert_whole(s: &Scratch, before: &Content, what: &str) -> usize {
    let (src, dst) = (s.at("src"), s.at("dst"));
    let mut done = 0;
    for (path, there) in content(&dst) {
        let wanted = fs::read(src.join(&path)).ok();
        let old = before.get(&path);
        let shown = path.display();
        if wanted.as_ref() != Some(&there) {
            assert!(old == Some(&there), "{what}: {shown} is neither new nor old");
            if let Ok(a) = fs::symlink_metadata(src.join(&path)) {
                let b = fs::symlink_metadata(dst.join(&path)).unwrap();
                let alike = (a.len(), a.mtime(), a.mtime_nsec()) == (b.len(), b.mtime(), b.mtime_nsec());
                assert!(!alike, "{what}: {shown} would be taken for right");
            }
            continue;
        }
        done += 1;
        if old.is_none() {
            let [a, b] = [&src, &dst].map(|root| fs::symlink_metadata(root.join(&path)).unwrap());
            let dress = |m: &fs::Metadata| (m.mode(), m.uid(), m.gid(), m.mtime(), m.mtime_nsec());
            assert_eq!(dress(&a), dress(&b), "{what}: {shown} was named before it was dressed");
        }
    }
    done
}

/// The run after a dead one: it must make the trees equal and leave nothing of it. Returns that run.
#[track_caller]
pub fn finish(s: &Scratch, options: &str, what: &str) -> Run {
    let run = s.sync(options).expect(0);
    s.assert_same();
    assert_eq!(leftovers(&s.at("dst")), [""; 0].map(PathBuf::from), "{what}");
    assert_idle(&s.sync(options).expect(0));
    run
}
