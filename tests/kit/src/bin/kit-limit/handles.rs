//! Directories and big files in work. Their last user finishes them: the drop sets a
//! directory's metadata after its files, and removes it after its children.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::config::{Command, Config};
use crate::copy::{finish_meta, publish};
use crate::sys::{self, CWD, Stat, must};

/// A directory being worked on.
pub struct Dir {
    pub config: &'static Config,
    pub source: OwnedFd,
    /// With clone and noop.
    pub target: Option<OwnedFd>,
    /// Not with rm.
    pub stat: Option<Stat>,
    /// With rm, so that a parent goes after its children.
    pub parent: Option<Arc<Dir>>,
    pub name: CString,
}

impl Drop for Dir {
    fn drop(&mut self) {
        match (self.config.command, &self.target, &self.stat) {
            (Command::Clone, Some(target), Some(stat)) => {
                let chmod = stat.st_mode & 0o7777 != 0o700;
                finish_meta(self.config, self.source.as_fd(), target.as_fd(), stat, chmod);
            }
            (Command::Rm, ..) => {
                let parent = self.parent.as_ref().map_or(CWD, |parent| parent.source.as_fd());
                let result = sys::unlinkat(parent, &self.name, libc::AT_REMOVEDIR);
                must(result, "rmdir", &self.name);
            }
            _ => {}
        }
    }
}

/// A file that is copied by tasks of its own, and published when the last one is done.
pub struct Big {
    /// Keeps the directory's times from being set before.
    pub dir: Arc<Dir>,
    pub source: OwnedFd,
    pub target: OwnedFd,
    pub stat: Stat,
    pub temporary: Option<CString>,
    pub name: CString,
}

impl Drop for Big {
    fn drop(&mut self) {
        let config = self.dir.config;
        let result = rustix::fs::ftruncate(&self.target, self.stat.st_size as u64);
        must(result, "ftruncate", &self.name);
        finish_meta(config, self.source.as_fd(), self.target.as_fd(), &self.stat, false);
        if let Some(dir) = &self.dir.target {
            publish(config, dir.as_fd(), self.target.as_fd(), self.temporary.as_deref(), &self.name);
        }
    }
}
