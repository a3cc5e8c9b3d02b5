//! Extended attributes, ACLs among them: of an open file, or of a name in an open directory that is never
//! followed.
//!
//! A name is reached with listxattrat(2) and its kin (Linux 6.13); before that through
//! `/proc/self/fd/DIR/NAME`, which resolves the descriptor and does not follow the name.

use crate::error::{Error, Op, Result};
use crate::fault;
use crate::sys;
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// The access ACL of a file or directory.
pub const ACL_ACCESS: &CStr = c"system.posix_acl_access";
/// The ACL that new entries of a directory inherit.
pub const ACL_DEFAULT: &CStr = c"system.posix_acl_default";
/// File capabilities.
pub const CAPABILITY: &CStr = c"security.capability";

/// Most bytes that the kernel lists or returns at once (XATTR_LIST_MAX, XATTR_SIZE_MAX in linux/limits.h).
const MAX_BYTES: usize = 65_536;

static NO_XATTRAT: AtomicBool = AtomicBool::new(false);

/// Where the attributes are.
#[derive(Clone, Copy, Debug)]
pub enum At<'a> {
    /// Of an open file or directory.
    Fd(BorrowedFd<'a>),
    /// Of a name in an open directory.
    Name(BorrowedFd<'a>, &'a CStr),
}

/// A reusable buffer for lists and values.
#[derive(Debug)]
pub struct Buffer(Vec<u8>);

impl Default for Buffer {
    fn default() -> Self {
        Buffer(vec![0; 4096])
    }
}

/// Which attributes there are: the NUL-ended names end to end, empty if there are none or the file system
/// has none.
#[inline]
pub fn list<'b>(at: At<'_>, buf: &'b mut Buffer) -> Result<&'b [u8]> {
    let n = match call(
        at,
        "listxattr",
        buf,
        |fd, b| rustix::fs::flistxattr(fd, b),
        sys::listxattrat,
        |p, b| rustix::fs::llistxattr(p, b),
    ) {
        Ok(n) => n,
        Err(e) if e.is_unsupported() => 0,
        Err(e) => return Err(e),
    };
    Ok(&buf.0[..n])
}

/// The value of an attribute, or `None` if there is none (any more).
pub fn get<'b>(at: At<'_>, key: &CStr, buf: &'b mut Buffer) -> Result<Option<&'b [u8]>> {
    let r = call(
        at,
        "getxattr",
        buf,
        |fd, b| rustix::fs::fgetxattr(fd, key, b),
        |d, n, b| sys::getxattrat(d, n, key, b),
        |p, b| rustix::fs::lgetxattr(p, key, b),
    );
    match r {
        Ok(n) => Ok(Some(&buf.0[..n])),
        Err(e) if e.errno == Errno::NODATA || e.is_unsupported() => Ok(None),
        Err(e) => Err(e),
    }
}

fn call<'a>(
    at: At<'a>,
    op: &'static str,
    buf: &mut Buffer,
    mut fd_call: impl FnMut(BorrowedFd<'a>, &mut [u8]) -> std::result::Result<usize, Errno>,
    mut at_call: impl FnMut(BorrowedFd<'a>, &CStr, &mut [u8]) -> std::result::Result<usize, Errno>,
    mut path_call: impl FnMut(&CStr, &mut [u8]) -> std::result::Result<usize, Errno>,
) -> Result<usize> {
    loop {
        fault::gate(op).op(op)?;
        let r = match at {
            At::Fd(fd) => fd_call(fd, &mut buf.0),
            At::Name(dir, name) => match newer(|| at_call(dir, name, &mut buf.0)) {
                Some(r) => r,
                None => path_call(&proc_path(dir, name), &mut buf.0),
            },
        };
        match r {
            Err(Errno::INTR) => {}
            Err(Errno::RANGE) if buf.0.len() < MAX_BYTES => buf.0.resize(MAX_BYTES, 0),
            // a few network file systems list more than the kernel's own limit
            Err(Errno::RANGE | Errno::TOOBIG) if buf.0.len() < MAX_BYTES << 6 => {
                let twice = buf.0.len() * 2;
                buf.0.resize(twice, 0);
            }
            r => return r.op(op),
        }
    }
}

/// Sets an attribute.
pub fn set(at: At<'_>, key: &CStr, value: &[u8]) -> Result<()> {
    const OP: &str = "setxattr";
    fault::gate(OP).op(OP)?;
    match at {
        At::Fd(fd) => rustix::fs::fsetxattr(fd, key, value, XattrFlags::empty()),
        At::Name(dir, name) => match newer(|| sys::setxattrat(dir, name, key, value)) {
            Some(r) => r,
            None => rustix::fs::lsetxattr(proc_path(dir, name), key, value, XattrFlags::empty()),
        },
    }
    .op(OP)
}

/// Removes an attribute; that it is gone already is no error.
pub fn remove(at: At<'_>, key: &CStr) -> Result<()> {
    const OP: &str = "removexattr";
    fault::gate(OP).op(OP)?;
    let r = match at {
        At::Fd(fd) => rustix::fs::fremovexattr(fd, key),
        At::Name(dir, name) => match newer(|| sys::removexattrat(dir, name, key)) {
            Some(r) => r,
            None => rustix::fs::lremovexattr(proc_path(dir, name), key),
        },
    };
    match r {
        Err(Errno::NODATA) => Ok(()),
        r => r.op(OP),
    }
}

/// The names of a list as [`list`] returns it.
pub fn names(list: &[u8]) -> impl Iterator<Item = &CStr> {
    list.split_inclusive(|b| *b == 0).filter_map(|n| CStr::from_bytes_with_nul(n).ok())
}

/// The call of Linux 6.13, or `None` on an older kernel.
#[inline]
fn newer<T>(
    mut call: impl FnMut() -> std::result::Result<T, Errno>,
) -> Option<std::result::Result<T, Errno>> {
    if NO_XATTRAT.load(Relaxed) {
        return None;
    }
    match fault::gate("xattrat").and_then(|()| call()) {
        Err(Errno::NOSYS) => {
            NO_XATTRAT.store(true, Relaxed);
            None
        }
        r => Some(r),
    }
}

fn proc_path(dir: BorrowedFd<'_>, name: &CStr) -> CString {
    let mut p = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    p.extend_from_slice(name.to_bytes());
    CString::new(p).unwrap_or_default()
}

/// Whether an error says that the file system has no such attribute, as opposed to refusing it: it does not
/// know the name space, or not on this kind of file, or the value is too large for it.
pub fn is_beyond(e: Error, key: &CStr) -> bool {
    let user = key.to_bytes().starts_with(b"user.");
    e.is_unsupported()
        || matches!(e.errno, Errno::TOOBIG | Errno::RANGE)
        || (e.errno == Errno::INVAL && !user)
        // no room for this value in the inode and its block, though the file system is not full
        || (e.errno == Errno::NOSPC && e.op == "setxattr")
}
