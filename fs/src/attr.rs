//! Owner, mode and times.

use crate::error::{Op, Result};
use crate::fault;
use crate::meta::Time;
use rustix::fd::{AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use std::ffi::CStr;

fn stamps(atime: Time, mtime: Time) -> Timestamps {
    let t = |t: Time| Timespec { tv_sec: t.sec, tv_nsec: t.nsec.into() };
    Timestamps { last_access: t(atime), last_modification: t(mtime) }
}

/// fchown(2); `None` leaves that one alone. Clears set-id bits and capabilities: set those after it.
pub fn set_owner(fd: BorrowedFd<'_>, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    fault::gate("fchown")
        .and_then(|()| rustix::fs::fchown(fd, uid.map(Uid::from_raw), gid.map(Gid::from_raw)))
        .op("fchown")
}

/// fchownat(2) of a name that is not followed.
pub fn set_owner_at(dir: BorrowedFd<'_>, name: &CStr, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
    let (u, g) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
    fault::gate("fchownat")
        .and_then(|()| rustix::fs::chownat(dir, name, u, g, AtFlags::SYMLINK_NOFOLLOW))
        .op("fchownat")
}

/// fchmod(2).
pub fn set_mode(fd: BorrowedFd<'_>, mode: u32) -> Result<()> {
    fault::gate("fchmod").and_then(|()| rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))).op("fchmod")
}

/// chmod of a special file or of a file that we may not open, without following it should it have become a
/// symlink: through an `O_PATH` descriptor.
pub fn set_mode_at(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<()> {
    let fd = open_path(dir, name)?;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    fault::gate("fchmodat")
        .and_then(|()| rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(mode), AtFlags::empty()))
        .op("fchmodat")
}

/// A descriptor of the entry itself, of whatever kind, that gives no access to its content.
pub fn open_path(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fault::gate("openat").and_then(|()| rustix::fs::openat(dir, name, flags, Mode::empty())).op("openat")
}

/// futimens(2).
pub fn set_times(fd: BorrowedFd<'_>, atime: Time, mtime: Time) -> Result<()> {
    fault::gate("futimens").and_then(|()| rustix::fs::futimens(fd, &stamps(atime, mtime))).op("futimens")
}

/// utimensat(2) of a name that is not followed.
pub fn set_times_at(dir: BorrowedFd<'_>, name: &CStr, atime: Time, mtime: Time) -> Result<()> {
    fault::gate("utimensat")
        .and_then(|()| rustix::fs::utimensat(dir, name, &stamps(atime, mtime), AtFlags::SYMLINK_NOFOLLOW))
        .op("utimensat")
}
