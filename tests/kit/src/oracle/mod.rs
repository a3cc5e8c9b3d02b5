//! The oracle: says in what two trees differ that a faithful clone keeps.
//!
//! Type, mode, owner, nanosecond mtime (directories too), size, content, symlink
//! text, device numbers, hard-link groups, extended attributes, ACLs, capabilities,
//! holes. Both trees are walked in step, so memory grows with the widest directory
//! and with the number of hard-linked names, not with the tree; a few fds are open
//! however deep it is. What cannot be looked at is a difference too: the oracle never
//! calls two trees alike that it has not seen.

pub(crate) mod attributes;
mod content;
mod differences;
mod links;
mod names;
mod snapshot;
#[cfg(test)]
mod tests;
mod walk;

pub use differences::{Class, Differences, EntryKind};
pub use snapshot::{Snapshot, snapshot};

use std::path::Path;

/// What to compare, and how much to remember.
#[derive(Clone, Debug)]
pub struct Options {
    /// Compare the access times of regular files, too.
    pub atime: bool,
    /// How many paths to keep of each class; all are counted.
    pub keep: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { atime: false, keep: 20 }
    }
}

/// Compares the tree at `src` with the one at `dst`, the roots themselves included.
pub fn compare(src: &Path, dst: &Path, options: &Options) -> Differences {
    walk::Walk::new(options).run(src, dst)
}

/// Compares with the default options and fails the test if the trees differ.
///
/// # Panics
/// When they do, with every class of difference and examples.
#[track_caller]
pub fn assert_alike(src: &Path, dst: &Path) {
    let found = compare(src, dst, &Options::default());
    assert!(found.is_empty(), "{} and {} differ: {found}", src.display(), dst.display());
}
