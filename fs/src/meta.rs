//! What statx(2) tells of an entry.

use crate::error::{Op, Result};
use crate::fault;
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, Statx, StatxFlags};
use std::ffi::CStr;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The listing did not tell.
    Unknown,
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix-domain socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

impl Kind {
    pub(crate) fn of(t: rustix::fs::FileType) -> Kind {
        use rustix::fs::FileType as T;
        match t {
            T::RegularFile => Kind::File,
            T::Directory => Kind::Dir,
            T::Symlink => Kind::Symlink,
            T::Fifo => Kind::Fifo,
            T::Socket => Kind::Socket,
            T::CharacterDevice => Kind::CharDevice,
            T::BlockDevice => Kind::BlockDevice,
            T::Unknown => Kind::Unknown,
        }
    }

    /// Whether it is a device of either kind.
    pub fn is_device(self) -> bool {
        matches!(self, Kind::CharDevice | Kind::BlockDevice)
    }
}

/// A point in time: seconds since 1970, which may be negative, and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds.
    pub sec: i64,
    /// Nanoseconds, below 1 000 000 000.
    pub nsec: u32,
}

/// What statx(2) tells of an entry, in the units of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky: `mode & 0o7777`.
    pub mode: u32,
    /// Number of hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size in bytes.
    pub size: u64,
    /// Allocated blocks of 512 bytes.
    pub blocks: u64,
    /// Device of the file system, major and minor in one number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Device number of a device, major and minor.
    pub rdev: (u32, u32),
    /// Last access.
    pub atime: Time,
    /// Last modification of content.
    pub mtime: Time,
    /// Last change of anything.
    pub ctime: Time,
}

impl Meta {
    fn of(s: &Statx) -> Meta {
        let time = |t: &rustix::fs::StatxTimestamp| Time { sec: t.tv_sec, nsec: t.tv_nsec };
        Meta {
            kind: Kind::of(rustix::fs::FileType::from_raw_mode(u32::from(s.stx_mode))),
            mode: u32::from(s.stx_mode) & 0o7777,
            nlink: s.stx_nlink,
            uid: s.stx_uid,
            gid: s.stx_gid,
            size: s.stx_size,
            blocks: s.stx_blocks,
            dev: (u64::from(s.stx_dev_major) << 32) | u64::from(s.stx_dev_minor),
            ino: s.stx_ino,
            rdev: (s.stx_rdev_major, s.stx_rdev_minor),
            atime: time(&s.stx_atime),
            mtime: time(&s.stx_mtime),
            ctime: time(&s.stx_ctime),
        }
    }

    /// Whether fewer blocks are allocated than the size would need: the file has holes, or its file system
    /// packs or compresses it, which asking for its data ranges then tells.
    pub fn may_have_holes(&self) -> bool {
        self.blocks.saturating_mul(512) < self.size
    }
}

/// Tells of an entry by name; never follows a symlink.
#[inline]
pub fn stat(dir: BorrowedFd<'_>, name: &CStr) -> Result<Meta> {
    fault::gate("statx")
        .and_then(|()| rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS))
        .map(|s| Meta::of(&s))
        .op("statx")
}

/// Tells of an open file.
#[inline]
pub fn fstat(fd: BorrowedFd<'_>) -> Result<Meta> {
    fault::gate("statx")
        .and_then(|()| rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS))
        .map(|s| Meta::of(&s))
        .op("statx")
}

/// Tells of an entry by name, or `None` if there is none.
#[inline]
pub fn stat_if_there(dir: BorrowedFd<'_>, name: &CStr) -> Result<Option<Meta>> {
    match stat(dir, name) {
        Ok(m) => Ok(Some(m)),
        Err(e) if e.is_gone() => Ok(None),
        Err(e) => Err(e),
    }
}
/// A device number as `/proc` writes it, `MAJOR:MINOR`.
pub fn device_name(dev: u64) -> String {
    format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev))
}
