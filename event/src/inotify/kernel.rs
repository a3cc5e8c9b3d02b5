//! What is asked of inotify(7), and what it answers.

use super::nodes::{Nodes, Watch};
use crate::beneath::{Root, proc_path};
use crate::error::Error;
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::path::Path;

/// What is asked of a directory. `IN_MASK_ADD`, because [`add`] is how a directory is known again: without it the kernel
/// clears the mask of the watch that there is before it sets the same one (`inotify_update_existing_watch`), and what
/// happens between the two is told to nobody. (Measured with Linux 6.18, one thread that adds and one that makes files:
/// 27 of 600 000 events were lost, and with the flag none.)
const MASK: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::MASK_ADD);

/// Makes a queue with a watch on the source directory only.
pub(super) fn begin(root: &Root) -> Result<(OwnedFd, Nodes), Error> {
    let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).map_err(|errno| match errno {
        Errno::MFILE | Errno::NFILE => Error::Instances { limit: limit("max_user_instances") },
        errno => Error::Call { call: "inotify_init1", errno },
    })?;
    let watch = add(&queue, root.fd()).map_err(|errno| match errno {
        Errno::NOENT if !Path::new("/proc/self/fd").exists() => Error::Proc(errno),
        Errno::NOENT => Error::Gone(root.path().to_owned()),
        Errno::ACCESS => Error::Root { path: root.path().to_owned(), errno },
        errno => failed(errno),
    })?;
    Ok((queue, Nodes::new(watch)))
}

/// Watches an open directory; the same directory has the same watch, under whatever name.
pub(super) fn add(queue: &OwnedFd, dir: BorrowedFd<'_>) -> Result<Watch, Errno> {
    inotify::add_watch(queue, proc_path(dir), MASK)
}

/// Why no watch could be added.
pub(super) fn failed(errno: Errno) -> Error {
    match errno {
        Errno::NOSPC => Error::Watches { limit: limit("max_user_watches") },
        errno => Error::Call { call: "inotify_add_watch", errno },
    }
}

fn limit(name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/sys/fs/inotify/{name}"));
    text.map_or_else(|_| "unknown".to_owned(), |t| t.trim().to_owned())
}

/// The directory vanished, or is none.
pub(super) fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE)
}

/// Nothing more can be watched.
pub(super) fn is_fatal(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::NOMEM | Errno::MFILE | Errno::NFILE)
}
