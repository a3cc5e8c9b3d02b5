//! A failed system call: which, and with what errno. The path is known to the caller, who has it anyway.

use rustix::io::Errno;
use std::fmt;

/// A failed system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// Name of the call, as in its manual page.
    pub op: &'static str,
    /// What it returned.
    pub errno: Errno,
}

/// The result of a call.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of a call with an error number of the system.
    pub fn new(op: &'static str, errno: i32) -> Error {
        Error { op, errno: Errno::from_raw_os_error(errno) }
    }

    /// The error number, as in errno(3).
    pub fn raw(self) -> i32 {
        self.errno.raw_os_error()
    }

    /// Whether a name that was to be made is taken.
    pub fn is_exists(self) -> bool {
        self.errno == Errno::EXIST
    }

    /// Whether permission bits or an ACL refuse it, as opposed to what only root may do (EPERM).
    pub fn is_refused(self) -> bool {
        self.errno == Errno::ACCESS
    }

    /// Whether only a privileged process may do it, or the entry is immutable.
    pub fn is_not_permitted(self) -> bool {
        self.errno == Errno::PERM
    }

    /// Whether a directory that was to be removed is not empty.
    pub fn is_not_empty(self) -> bool {
        matches!(self.errno, Errno::NOTEMPTY | Errno::EXIST)
    }

    /// Whether the entry turned out to be of another kind than it was taken for: a symlink that is not
    /// followed, not a directory, a directory, a socket or FIFO.
    pub fn is_other_kind(self) -> bool {
        matches!(self.errno, Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::NXIO)
            // what was a symlink is none any more
            || (self.op == "readlinkat" && self.errno == Errno::INVAL)
    }

    /// Whether the entry was not there.
    pub fn is_gone(self) -> bool {
        self.errno == Errno::NOENT
    }

    /// Whether the kernel or the file system has no such operation, as opposed to refusing it.
    pub fn is_unsupported(self) -> bool {
        // ENOTSUP is EOPNOTSUPP on Linux
        matches!(self.errno, Errno::NOSYS | Errno::OPNOTSUPP | Errno::NOTTY)
    }

    /// Whether the same call may succeed a little later: device trouble, a server that is away, pressure.
    /// A full file system or a lack of permission does not pass by itself.
    pub fn retryable(self) -> bool {
        matches!(
            self.errno,
            Errno::IO
                | Errno::AGAIN
                | Errno::BUSY
                | Errno::NOMEM
                | Errno::STALE
                | Errno::TIMEDOUT
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::SHUTDOWN
                | Errno::REMOTEIO
                | Errno::NFILE
                | Errno::MFILE
                | Errno::TXTBSY
                | Errno::INTR
        )
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.op, self.errno)
    }
}
impl std::error::Error for Error {}

/// Gives an errno the name of the call that it came from.
pub(crate) trait Op<T> {
    fn op(self, op: &'static str) -> Result<T>;
}
impl<T> Op<T> for std::result::Result<T, Errno> {
    fn op(self, op: &'static str) -> Result<T> {
        self.map_err(|errno| Error { op, errno })
    }
}
