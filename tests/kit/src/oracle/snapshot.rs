//! Says whether anything in a tree was touched at all between two moments.
//!
//! Inode number and ctime betray every change, even one that was undone: that a
//! dry run wrote nothing, that a second run rewrote nothing, that a source stayed as
//! it was. For small trees; times of access are not looked at.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The state of every entry of a tree at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot(BTreeMap<Vec<u8>, State>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    inode: (u64, u64),
    ctime: (i64, i64),
}

/// Takes a snapshot of the tree at `root`, which is part of it.
pub fn snapshot(root: &Path) -> io::Result<Snapshot> {
    let mut all = BTreeMap::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(path) = left.pop() {
        let meta = fs::symlink_metadata(&path)?;
        let relative = path.strip_prefix(root).unwrap_or(&path);
        all.insert(
            relative.as_os_str().as_bytes().to_vec(),
            State { inode: (meta.dev(), meta.ino()), ctime: (meta.ctime(), meta.ctime_nsec()) },
        );
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        }
    }
    Ok(Snapshot(all))
}

impl Snapshot {
    /// A line for each entry that is new, gone, replaced or touched in `later`.
    pub fn touched(&self, later: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (path, was) in &self.0 {
            let word = match later.0.get(path) {
                None => "gone",
                Some(is) if is.inode != was.inode => "replaced",
                Some(is) if is.ctime != was.ctime => "touched",
                Some(_) => continue,
            };
            lines.push(format!("{word}: \"{}\"", path.escape_ascii()));
        }
        for path in later.0.keys().filter(|path| !self.0.contains_key(*path)) {
            lines.push(format!("new: \"{}\"", path.escape_ascii()));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_was_touched() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for name in ["same", "written", "gone"] {
            fs::write(at(name), "x").unwrap();
        }
        let before = snapshot(place.path()).unwrap();
        assert_eq!(before.touched(&snapshot(place.path()).unwrap()), [""; 0]);
        // The clock of ctime moves in ticks of a few milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(at("written"), "x").unwrap();
        fs::remove_file(at("gone")).unwrap();
        fs::write(at("added"), "x").unwrap();
        let after = snapshot(place.path()).unwrap();
        assert_eq!(
            before.touched(&after),
            ["touched: \"\"", "gone: \"gone\"", "touched: \"written\"", "new: \"added\""]
        );
    }
}
