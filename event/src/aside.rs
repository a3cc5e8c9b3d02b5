//! Excluded names of files that have others: what is written through one of them is seen under all, and some of the others may
//! not be excluded. So such a name is told, and whoever knows the others looks at them.

use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, FileType, statat};
use std::collections::HashSet;
use std::ffi::CStr;
use treeferry_core::path::RelPath;

/// So many names are remembered.
const MOST: usize = 100_000;

/// Excluded names that were those of files with several when something happened to them.
#[derive(Default)]
pub(crate) struct Aside(HashSet<RelPath>);

impl Aside {
    /// Something happened to an excluded name that is no directory: whether that is to be told. `dir`: where it is.
    pub(crate) fn is_told(&mut self, dir: Option<BorrowedFd<'_>>, path: &RelPath, name: &CStr) -> bool {
        let now = dir.and_then(|dir| statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok());
        let several =
            |s: rustix::fs::Stat| FileType::from_raw_mode(s.st_mode) != FileType::Directory && s.st_nlink > 1;
        if now.is_some_and(several) {
            if self.0.len() >= MOST {
                self.0.clear();
            }
            self.0.insert(path.clone());
            return true;
        }
        self.was(path)
    }

    /// The same of a name that is gone: it may have been the last but one of its file.
    pub(crate) fn was(&self, path: &RelPath) -> bool {
        self.0.contains(path)
    }
}
