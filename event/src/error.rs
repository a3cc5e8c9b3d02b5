//! Why a detector does not work (any more), and what helps.

use rustix::io::Errno;
use std::path::PathBuf;

/// Why a detector does not work (any more), and what helps.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The source directory cannot be opened.
    #[error("{}: {errno}", path.display())]
    Root {
        /// Which directory.
        path: PathBuf,
        /// What the system said.
        errno: Errno,
    },
    /// The source directory was removed or unmounted while it was watched.
    #[error("{} is gone (removed or unmounted)", .0.display())]
    Gone(PathBuf),
    /// There may be no more inotify watches.
    #[error(
        "inotify has no watches left (fs.inotify.max_user_watches is {limit}): raise it with sysctl, or use fanotify as root"
    )]
    Watches {
        /// The limit, as text.
        limit: String,
    },
    /// There may be no more inotify queues.
    #[error(
        "no inotify queue can be made (fs.inotify.max_user_instances is {limit}, or too many files are open): raise it with sysctl"
    )]
    Instances {
        /// The limit, as text.
        limit: String,
    },
    /// There may be no more fanotify queues.
    #[error(
        "no fanotify queue can be made (fs.fanotify.max_user_groups is {limit}, or too many files are open): raise it with sysctl, or use inotify or poll"
    )]
    Groups {
        /// The limit, as text.
        limit: String,
    },
    /// Only root may use fanotify as it is used here.
    #[error("fanotify needs root (CAP_SYS_ADMIN, CAP_DAC_READ_SEARCH): use inotify or poll")]
    Privilege,
    /// The kernel is too old for fanotify with names.
    #[error("fanotify tells no names on this kernel (Linux 5.9 is needed): use inotify or poll")]
    Kernel,
    /// A file system has no file handles.
    #[error("the file system of {} cannot be watched with fanotify (no file handles): use inotify or poll", .0.display())]
    NoHandles(PathBuf),
    /// There is no `/proc`, which is needed to turn an open directory into a path.
    #[error("/proc is needed to watch directories: {0}")]
    Proc(Errno),
    /// A system call failed.
    #[error("{call}: {errno}")]
    Call {
        /// Name of the call, as in its manual page.
        call: &'static str,
        /// What it returned.
        errno: Errno,
    },
    /// The file through which programs tell of changes cannot be used.
    #[error("the ring {} cannot be used: {why}", path.display())]
    Ring {
        /// Which file.
        path: PathBuf,
        /// Why not, and what helps.
        why: String,
    },
    /// The file in which it is kept what walks have found cannot be used.
    #[error("the index {} cannot be used: {why}", path.display())]
    Index {
        /// Which file.
        path: PathBuf,
        /// Why not, and what helps.
        why: String,
    },
    /// The list of paths cannot be read.
    #[error("the list of paths cannot be read: {0}")]
    Input(std::io::Error),
}

/// Names the call of an error.
pub(crate) trait Call<T> {
    /// Names the call of an error.
    fn call(self, call: &'static str) -> Result<T, Error>;
}

impl<T> Call<T> for Result<T, Errno> {
    fn call(self, call: &'static str) -> Result<T, Error> {
        self.map_err(|errno| Error::Call { call, errno })
    }
}
