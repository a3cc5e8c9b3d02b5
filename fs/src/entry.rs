//! Making, naming and removing entries of an open directory.

use crate::error::{Op, Result};
use crate::fault;
use crate::meta::Kind;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, makedev};
use rustix::io::Errno;
use std::ffi::{CStr, CString};

/// Opens a regular file for reading. Follows nothing, does not wait for a FIFO's writer should the name have
/// become one, and leaves the access time alone where we may (`noatime`; EPERM is tried again without).
#[inline]
pub fn open_file(dir: BorrowedFd<'_>, name: &CStr, noatime: bool) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let open = |flags| {
        loop {
            match fault::gate("openat").and_then(|()| rustix::fs::openat(dir, name, flags, Mode::empty())) {
                Err(Errno::INTR) => {}
                r => return r,
            }
        }
    };
    if noatime {
        match open(flags | OFlags::NOATIME) {
            Err(Errno::PERM) => {}
            r => return r.op("openat"),
        }
    }
    open(flags).op("openat")
}

/// Makes a regular file that must not exist, open for reading and writing. The umask is taken to be 0.
#[inline]
pub fn create(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        match fault::gate("create")
            .and_then(|()| rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(mode)))
        {
            Err(Errno::INTR) => {}
            r => return r.op("create"),
        }
    }
}

/// Makes a file without a name in the directory's file system (`O_TMPFILE`).
#[inline]
pub fn create_unnamed(dir: BorrowedFd<'_>, mode: u32) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    fault::gate("create")
        .and_then(|()| rustix::fs::openat(dir, c".", flags, Mode::from_raw_mode(mode)))
        .op("create")
}

/// Gives an open file, which may have no name so far, a name that must not exist: a hard link.
///
/// Naming it by its descriptor alone takes CAP_DAC_READ_SEARCH in the first user name space (before Linux
/// 6.10); without that the kernel says ENOENT, and the way through `/proc` is open to everybody (linkat(2)).
#[inline]
pub fn name_file(fd: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    fault::gate("linkat")
        .and_then(|()| match rustix::fs::linkat(fd, c"", dir, name, AtFlags::EMPTY_PATH) {
            Err(Errno::NOENT | Errno::PERM | Errno::INVAL) => {
                let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
                rustix::fs::linkat(rustix::fs::CWD, path, dir, name, AtFlags::SYMLINK_FOLLOW)
            }
            r => r,
        })
        .op("linkat")
}

/// Opens an existing regular file for writing, to continue a staged one.
pub fn open_for_writing(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    fault::gate("openat").and_then(|()| rustix::fs::openat(dir, name, flags, Mode::empty())).op("openat")
}

/// Opens a subdirectory, following nothing.
pub fn open_subdir(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fault::gate("openat").and_then(|()| rustix::fs::openat(dir, name, flags, Mode::empty())).op("openat")
}

/// mkdirat(2).
pub fn make_dir(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<()> {
    fault::gate("mkdirat")
        .and_then(|()| rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(mode)))
        .op("mkdirat")
}

/// symlinkat(2).
pub fn make_symlink(dir: BorrowedFd<'_>, name: &CStr, target: &CStr) -> Result<()> {
    fault::gate("symlinkat").and_then(|()| rustix::fs::symlinkat(target, dir, name)).op("symlinkat")
}

/// readlinkat(2), of any length.
pub fn read_symlink(dir: BorrowedFd<'_>, name: &CStr) -> Result<CString> {
    fault::gate("readlinkat").and_then(|()| rustix::fs::readlinkat(dir, name, Vec::new())).op("readlinkat")
}

/// mknodat(2) of a FIFO, socket or device.
pub fn make_special(dir: BorrowedFd<'_>, name: &CStr, kind: Kind, mode: u32, rdev: (u32, u32)) -> Result<()> {
    let t = match kind {
        Kind::Fifo => FileType::Fifo,
        Kind::Socket => FileType::Socket,
        Kind::CharDevice => FileType::CharacterDevice,
        Kind::BlockDevice => FileType::BlockDevice,
        _ => return Err(Errno::INVAL).op("mknodat"),
    };
    let dev = if kind.is_device() { makedev(rdev.0, rdev.1) } else { 0 };
    fault::gate("mknodat")
        .and_then(|()| rustix::fs::mknodat(dir, name, t, Mode::from_raw_mode(mode), dev))
        .op("mknodat")
}

/// renameat(2): replaces what has the new name, if it is not a directory.
#[inline]
pub fn rename(dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> Result<()> {
    fault::gate("renameat").and_then(|()| rustix::fs::renameat(dir, from, dir, to)).op("renameat")
}

/// renameat2(2) to another directory, refusing to replace anything.
pub fn move_to(from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, new: &CStr) -> Result<()> {
    fault::gate("renameat2")
        .and_then(|()| rustix::fs::renameat_with(from, name, to, new, rustix::fs::RenameFlags::NOREPLACE))
        .op("renameat2")
}

/// renameat(2) to another directory, in the place of whatever is there and is no directory.
pub fn move_over(from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, new: &CStr) -> Result<()> {
    fault::gate("renameat").and_then(|()| rustix::fs::renameat(from, name, to, new)).op("renameat")
}

/// renameat2(2) by which two entries change places.
pub fn exchange(from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, other: &CStr) -> Result<()> {
    fault::gate("renameat2")
        .and_then(|()| rustix::fs::renameat_with(from, name, to, other, rustix::fs::RenameFlags::EXCHANGE))
        .op("renameat2")
}

/// unlinkat(2) of what is not a directory.
#[inline]
pub fn remove(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    fault::gate("unlinkat").and_then(|()| rustix::fs::unlinkat(dir, name, AtFlags::empty())).op("unlinkat")
}

/// unlinkat(2) of an empty directory.
pub fn remove_dir(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    fault::gate("rmdir").and_then(|()| rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)).op("rmdir")
}

/// Sets the size of an open file.
pub fn set_size(fd: &OwnedFd, size: u64) -> Result<()> {
    fault::gate("ftruncate").and_then(|()| rustix::fs::ftruncate(fd.as_fd(), size)).op("ftruncate")
}
