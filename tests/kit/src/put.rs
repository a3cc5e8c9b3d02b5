//! Puts single entries into a tree: files, directories, links, nodes, attributes.
//!
//! Everything works on an open directory and one name, so that no path is ever too
//! long. Modes are set explicitly: the process's umask, which tests share between
//! threads, is neither used nor changed.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dev, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

/// Owner, permission bits and time of an entry; the access time equals `mtime`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds of the modification time; may be negative.
    pub sec: i64,
    /// Nanoseconds of the modification time, `0..1_000_000_000`.
    pub nsec: i64,
}

impl Meta {
    fn times(&self) -> Timestamps {
        let time = Timespec { tv_sec: self.sec, tv_nsec: self.nsec as _ };
        Timestamps { last_access: time, last_modification: time }
    }

    fn owner(&self) -> (Option<Uid>, Option<Gid>) {
        (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }
}

/// Gives a system call's error the words "what was done to which name".
pub(crate) fn told<T>(result: Result<T, Errno>, what: &str, name: &[u8]) -> io::Result<T> {
    result.map_err(|errno| {
        let error = io::Error::from(errno);
        let name = OsStr::from_bytes(name);
        io::Error::new(error.kind(), format!("{what} {name:?}: {error}"))
    })
}

/// Opens the directory `path` for use as the place where entries are put.
pub fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    open_dir_at(CWD, path.as_os_str().as_bytes())
}

/// Opens the directory `name` (or a relative path) below `dir`.
pub fn open_dir_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    told(rustix::fs::openat(dir, name, flags, Mode::empty()), "open directory", name)
}

/// Makes the directory `name`, mode 0755, and opens it.
pub fn dir(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let mode = Mode::from_raw_mode(0o755);
    told(rustix::fs::mkdirat(dir, name, mode), "mkdir", name)?;
    let fd = open_dir_at(dir, name)?;
    told(rustix::fs::fchmod(&fd, mode), "chmod", name)?;
    Ok(fd)
}

/// Creates the file `name`, empty and open for writing; it must not exist.
pub fn create(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    told(rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)), "create", name)
}

/// Creates the file `name` with this content and metadata.
pub fn file(dir: BorrowedFd<'_>, name: &[u8], data: &[u8], meta: &Meta) -> io::Result<()> {
    let fd = create(dir, name)?;
    write_at(fd.as_fd(), data, 0)?;
    finish(fd.as_fd(), meta)
}

/// Writes all of `data` at `offset`.
pub fn write_at(fd: BorrowedFd<'_>, data: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < data.len() {
        let n = rustix::io::pwrite(fd, &data[done..], offset + done as u64)?;
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        done += n;
    }
    Ok(())
}

/// Sets owner, mode and times of an open file or directory, in this order: a change
/// of owner clears set-id bits.
pub fn finish(fd: BorrowedFd<'_>, meta: &Meta) -> io::Result<()> {
    let (uid, gid) = meta.owner();
    told(rustix::fs::fchown(fd, uid, gid), "chown", b"")?;
    told(rustix::fs::fchmod(fd, Mode::from_raw_mode(meta.mode)), "chmod", b"")?;
    set_times(fd, meta)
}

/// Sets the times of an open file or directory.
pub fn set_times(fd: BorrowedFd<'_>, meta: &Meta) -> io::Result<()> {
    told(rustix::fs::futimens(fd, &meta.times()), "set times", b"")
}

/// Sets the owner of `name` itself, symlink or not.
pub fn owner(dir: BorrowedFd<'_>, name: &[u8], meta: &Meta) -> io::Result<()> {
    let (uid, gid) = meta.owner();
    told(rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW), "chown", name)
}

/// Sets the mode of `name`, which is no symlink.
pub fn mode(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> io::Result<()> {
    told(rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty()), "chmod", name)
}

/// Sets the times of `name` itself, symlink or not.
pub fn times(dir: BorrowedFd<'_>, name: &[u8], meta: &Meta) -> io::Result<()> {
    told(rustix::fs::utimensat(dir, name, &meta.times(), AtFlags::SYMLINK_NOFOLLOW), "set times", name)
}

/// Makes the symlink `name` that points at `target`.
pub fn symlink(dir: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> io::Result<()> {
    told(rustix::fs::symlinkat(target, dir, name), "symlink", name)
}

/// Gives the entry `name` a second name, `new`, in `new_dir`; symlinks are not followed.
pub fn link(dir: BorrowedFd<'_>, name: &[u8], new_dir: BorrowedFd<'_>, new: &[u8]) -> io::Result<()> {
    told(rustix::fs::linkat(dir, name, new_dir, new, AtFlags::empty()), "link", new)
}

/// Makes a FIFO, socket or device node with exactly this mode.
pub fn node(dir: BorrowedFd<'_>, name: &[u8], kind: FileType, mode: u32, dev: Dev) -> io::Result<()> {
    let bits = Mode::from_raw_mode(mode);
    told(rustix::fs::mknodat(dir, name, kind, bits, dev), "mknod", name)?;
    self::mode(dir, name, mode)
}

/// Sets the extended attribute `key` of `name` itself, symlink or not.
pub fn xattr(dir: BorrowedFd<'_>, name: &[u8], key: &[u8], value: &[u8]) -> io::Result<()> {
    let path = through_proc(dir, name);
    told(
        rustix::fs::lsetxattr(&path[..], key, value, XattrFlags::empty()),
        &format!("set {}", String::from_utf8_lossy(key)),
        name,
    )
}

/// A path for the calls that take no directory fd: short however deep `dir` lies.
pub(crate) fn through_proc(dir: BorrowedFd<'_>, name: &[u8]) -> Vec<u8> {
    use std::os::fd::AsRawFd;
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

/// One line of an ACL: tag, permission bits, and the id of a named user or group.
#[derive(Clone, Copy, Debug)]
pub enum AclEntry {
    /// The owner's permissions.
    UserObj(u16),
    /// A named user's.
    User(u16, u32),
    /// The owning group's.
    GroupObj(u16),
    /// A named group's.
    Group(u16, u32),
    /// The upper bound for everybody but the owner and others.
    Mask(u16),
    /// Everybody else's.
    Other(u16),
}

/// Encodes an ACL as the kernel takes it in `system.posix_acl_access` and `…_default`.
pub fn acl(entries: &[AclEntry]) -> Vec<u8> {
    const VERSION: u32 = 2;
    const NO_ID: u32 = u32::MAX;
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for entry in entries {
        let (tag, perm, id): (u16, u16, u32) = match *entry {
            AclEntry::UserObj(perm) => (1, perm, NO_ID),
            AclEntry::User(perm, id) => (2, perm, id),
            AclEntry::GroupObj(perm) => (4, perm, NO_ID),
            AclEntry::Group(perm, id) => (8, perm, id),
            AclEntry::Mask(perm) => (16, perm, NO_ID),
            AclEntry::Other(perm) => (32, perm, NO_ID),
        };
        bytes.extend(tag.to_le_bytes());
        bytes.extend(perm.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}
