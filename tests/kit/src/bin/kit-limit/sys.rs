//! The system calls of the ruler, through libc as C programs make them, and how an
//! error ends the program.
//!
//! Rustix would spare most of the unsafe blocks, and does so for the rarer calls. But
//! it makes its calls without libc, which takes up to a tenth less time on a tree of
//! small files: the ruler stays what the targets were set with. All `unsafe` is here.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// What stat tells.
pub type Stat = libc::stat;

/// listxattrat(2), Linux 6.13 and newer: the same number on every architecture.
const SYS_LISTXATTRAT: libc::c_long = 465;

/// Ends the program: a ruler with a notch missing is worth nothing.
#[cold]
pub fn die(what: &str, name: &CStr, errno: Errno) -> ! {
    eprintln!("kit-limit: {what} {name:?}: {errno}");
    std::process::exit(1)
}

/// The value, or the end of the program.
#[inline]
pub fn must<T>(result: Result<T, Errno>, what: &str, name: &CStr) -> T {
    match result {
        Ok(value) => value,
        Err(errno) => die(what, name, errno),
    }
}

#[cold]
fn last_errno() -> Errno {
    Errno::from_raw_os_error(std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO))
}

/// What a call returned, or the error it left.
#[inline]
fn check(n: isize) -> Result<usize, Errno> {
    usize::try_from(n).map_err(|_| last_errno())
}

/// The directory fd that stands for the working directory.
pub const CWD: BorrowedFd<'static> = rustix::fs::CWD;

#[inline]
pub fn openat(dir: BorrowedFd<'_>, name: &CStr, flags: i32, mode: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: the name is NUL-terminated and outlives the call.
    let fd = unsafe { libc::openat(dir.as_raw_fd(), name.as_ptr(), flags, mode) };
    check(fd as isize)?;
    // SAFETY: the call has just made this fd, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[inline]
pub fn fstat(fd: BorrowedFd<'_>) -> Result<Stat, Errno> {
    let mut stat = MaybeUninit::<Stat>::uninit();
    // SAFETY: there is room for a stat.
    check(unsafe { libc::fstat(fd.as_raw_fd(), stat.as_mut_ptr()) } as isize)?;
    // SAFETY: a call that succeeds has filled it in.
    Ok(unsafe { stat.assume_init() })
}

/// Of `name` itself, symlink or not.
#[inline]
pub fn statat(dir: BorrowedFd<'_>, name: &CStr) -> Result<Stat, Errno> {
    let mut stat = MaybeUninit::<Stat>::uninit();
    let (fd, name) = (dir.as_raw_fd(), name.as_ptr());
    // SAFETY: the name is NUL-terminated and there is room for a stat.
    check(unsafe { libc::fstatat(fd, name, stat.as_mut_ptr(), libc::AT_SYMLINK_NOFOLLOW) } as isize)?;
    // SAFETY: a call that succeeds has filled it in.
    Ok(unsafe { stat.assume_init() })
}

#[inline]
pub fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `buf.len()` bytes to `buf`.
    check(unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) })
}

#[inline]
pub fn write(fd: BorrowedFd<'_>, buf: &[u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel reads at most `buf.len()` bytes of `buf`.
    check(unsafe { libc::write(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len()) })
}

#[inline]
pub fn unlinkat(dir: BorrowedFd<'_>, name: &CStr, flags: i32) -> Result<usize, Errno> {
    // SAFETY: the name is NUL-terminated and outlives the call.
    check(unsafe { libc::unlinkat(dir.as_raw_fd(), name.as_ptr(), flags) } as isize)
}

/// Renames within one directory.
#[inline]
pub fn renameat(dir: BorrowedFd<'_>, from: &CStr, to: &CStr) -> Result<usize, Errno> {
    let fd = dir.as_raw_fd();
    // SAFETY: both names are NUL-terminated and outlive the call.
    check(unsafe { libc::renameat(fd, from.as_ptr(), fd, to.as_ptr()) } as isize)
}

#[inline]
pub fn fchown(fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<usize, Errno> {
    // SAFETY: numbers only.
    check(unsafe { libc::fchown(fd.as_raw_fd(), uid, gid) } as isize)
}

#[inline]
pub fn fchmod(fd: BorrowedFd<'_>, mode: u32) -> Result<usize, Errno> {
    // SAFETY: numbers only.
    check(unsafe { libc::fchmod(fd.as_raw_fd(), mode) } as isize)
}

#[inline]
pub fn futimens(fd: BorrowedFd<'_>, stat: &Stat) -> Result<usize, Errno> {
    let time = |sec, nsec| libc::timespec { tv_sec: sec, tv_nsec: nsec };
    let times = [time(stat.st_atime, stat.st_atime_nsec), time(stat.st_mtime, stat.st_mtime_nsec)];
    // SAFETY: the two times that are read outlive the call.
    check(unsafe { libc::futimens(fd.as_raw_fd(), times.as_ptr()) } as isize)
}

#[inline]
pub fn flistxattr(fd: BorrowedFd<'_>, list: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: the kernel writes at most `list.len()` bytes to `list`.
    check(unsafe { libc::flistxattr(fd.as_raw_fd(), list.as_mut_ptr().cast(), list.len()) })
}

/// Lists the extended attributes of `name` itself; how many bytes the list has.
#[inline]
pub fn listxattrat(dir: BorrowedFd<'_>, name: &CStr, list: &mut [u8]) -> Result<usize, Errno> {
    let (fd, flags) = (dir.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
    // SAFETY: the name is NUL-terminated, and the kernel writes at most `list.len()` bytes to `list`.
    let n =
        unsafe { libc::syscall(SYS_LISTXATTRAT, fd, name.as_ptr(), flags, list.as_mut_ptr(), list.len()) };
    match check(n as isize) {
        Err(Errno::NOSYS) => {
            // An older kernel: through /proc, as everybody does there.
            let mut path = format!("/proc/self/fd/{fd}/").into_bytes();
            path.extend_from_slice(name.to_bytes());
            rustix::fs::llistxattr(&path[..], list)
        }
        other => other,
    }
}
