//! The calls that rustix does not have, and the only `unsafe` of this crate.
//!
//! The four `*xattrat` calls are Linux 6.13's: extended attributes of a name in an open directory, without
//! following it, in one call. Their numbers are the same on every architecture (all calls since 5.1 are).

use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::Errno;
use std::ffi::CStr;

const SYS_SETXATTRAT: libc::c_long = 463;
const SYS_GETXATTRAT: libc::c_long = 464;
const SYS_LISTXATTRAT: libc::c_long = 465;
const SYS_REMOVEXATTRAT: libc::c_long = 466;

/// `struct xattr_args` of `linux/xattr.h`.
#[repr(C)]
struct XattrArgs {
    value: u64,
    size: u32,
    flags: u32,
}

fn check(r: libc::c_long) -> Result<usize, Errno> {
    if r < 0 { Err(last_errno()) } else { Ok(r as usize) }
}

fn last_errno() -> Errno {
    std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}

/// listxattrat(2) with `AT_SYMLINK_NOFOLLOW`. Returns the length of the list.
pub fn listxattrat(dir: BorrowedFd<'_>, name: &CStr, buf: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: `name` is NUL-ended, the buffer is ours and its length is told.
    check(unsafe {
        libc::syscall(
            SYS_LISTXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            buf.as_mut_ptr(),
            buf.len(),
        )
    })
}

/// getxattrat(2) with `AT_SYMLINK_NOFOLLOW`. Returns the length of the value.
pub fn getxattrat(dir: BorrowedFd<'_>, name: &CStr, key: &CStr, buf: &mut [u8]) -> Result<usize, Errno> {
    let mut args = XattrArgs { value: buf.as_mut_ptr() as u64, size: buf.len() as u32, flags: 0 };
    // SAFETY: strings are NUL-ended; `args` lives through the call and names our buffer and its length.
    check(unsafe {
        libc::syscall(
            SYS_GETXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            key.as_ptr(),
            &raw mut args,
            size_of::<XattrArgs>(),
        )
    })
}

/// setxattrat(2) with `AT_SYMLINK_NOFOLLOW`.
pub fn setxattrat(dir: BorrowedFd<'_>, name: &CStr, key: &CStr, value: &[u8]) -> Result<(), Errno> {
    let args = XattrArgs { value: value.as_ptr() as u64, size: value.len() as u32, flags: 0 };
    // SAFETY: strings are NUL-ended; `args` lives through the call, the kernel only reads the value.
    check(unsafe {
        libc::syscall(
            SYS_SETXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            key.as_ptr(),
            &raw const args,
            size_of::<XattrArgs>(),
        )
    })
    .map(drop)
}

/// removexattrat(2) with `AT_SYMLINK_NOFOLLOW`.
pub fn removexattrat(dir: BorrowedFd<'_>, name: &CStr, key: &CStr) -> Result<(), Errno> {
    // SAFETY: strings are NUL-ended.
    check(unsafe {
        libc::syscall(
            SYS_REMOVEXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            key.as_ptr(),
        )
    })
    .map(drop)
}
