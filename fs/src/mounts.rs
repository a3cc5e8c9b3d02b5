//! Through which mount an open directory is seen, what is mounted below it, and how much room its file system has.

use crate::error::{Op, Result};
use crate::root::{mount_of, unescape};
use rustix::fd::BorrowedFd;
use rustix::fs::StatVfsMountFlags;
use std::path::{Path, PathBuf};

/// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Its identity, as statx(2) tells it.
    pub id: u64,
    /// The type of the file system, `nfs4` for example.
    pub kind: String,
    /// What is mounted: a device, a server's export.
    pub source: PathBuf,
    /// Where.
    pub point: PathBuf,
    /// Options of this mount and of its file system.
    pub options: Vec<String>,
}

/// What a file system holds and has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes in all.
    pub bytes: u64,
    /// Bytes that are left for whoever asks.
    pub free_bytes: u64,
    /// Inodes in all; 0 where they are made as they are needed.
    pub inodes: u64,
    /// Inodes that are left.
    pub free_inodes: u64,
    /// Nothing can be written through this mount.
    pub read_only: bool,
}

impl Room {
    /// Bytes that are in use.
    pub fn used_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.free_bytes)
    }

    /// Inodes that are in use.
    pub fn used_inodes(&self) -> u64 {
        self.inodes.saturating_sub(self.free_inodes)
    }
}

/// The mount through which an open directory is seen; `None` where the kernel does not tell (before Linux 5.8, or
/// without `/proc`).
pub fn of(dir: BorrowedFd<'_>) -> Option<Mount> {
    let id = mount_of(dir)?;
    table().into_iter().find(|m| m.id == id)
}

/// Where something is mounted below a directory, by its absolute path without symlinks.
pub fn below(dir: &Path) -> Vec<PathBuf> {
    let inside = |m: Mount| (m.point != dir && m.point.starts_with(dir)).then_some(m.point);
    let mut all: Vec<PathBuf> = table().into_iter().filter_map(inside).collect();
    all.sort();
    all.dedup();
    all
}

/// What the file system of an open directory has left (statvfs(3)).
pub fn room(dir: BorrowedFd<'_>) -> Result<Room> {
    let v = rustix::fs::fstatvfs(dir).op("statvfs")?;
    Ok(Room {
        bytes: v.f_blocks.saturating_mul(v.f_frsize),
        free_bytes: v.f_bavail.saturating_mul(v.f_frsize),
        inodes: v.f_files,
        free_inodes: v.f_favail,
        read_only: v.f_flag.contains(StatVfsMountFlags::RDONLY),
    })
}

fn table() -> Vec<Mount> {
    let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    text.split(|b| *b == b'\n').filter_map(parse).collect()
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|b| *b == b' ');
    let text = |f: &[u8]| String::from_utf8_lossy(f).into_owned();
    let id = text(fields.next()?).parse().ok()?;
    let (point, options) = (fields.nth(3)?, fields.next()?);
    // optional fields end with a hyphen
    fields.find(|f| *f == b"-")?;
    let (kind, source, more) = (fields.next()?, fields.next()?, fields.next()?);
    let all = [text(options), text(more)].join(",");
    let mut options: Vec<String> = all.split(',').map(str::to_owned).collect();
    options.sort();
    options.dedup();
    Some(Mount { id, kind: text(kind), source: unescape(source), point: unescape(point), options })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Root;

    #[test]
    fn a_line_is_read_with_and_without_optional_fields() {
        let line =
            b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 shared:7 - ext3 /dev/root rw,errors=continue";
        let m = parse(line).unwrap();
        assert_eq!((m.id, m.kind.as_str()), (36, "ext3"));
        assert_eq!((m.source, m.point), (PathBuf::from("/dev/root"), PathBuf::from("/mnt 2")));
        assert_eq!(m.options, ["errors=continue", "noatime", "rw"]);
        assert_eq!(parse(b"22 1 0:21 / / ro - tmpfs none ro").unwrap().options, ["ro"]);
        for broken in
            [&b""[..], b"x 35 98:0 / / rw - a b c", b"36 35 98:0 / / rw a b c", b"36 35 98:0 / / rw - a"]
        {
            assert_eq!(parse(broken), None);
        }
    }

    #[test]
    fn a_directory_has_a_mount_and_room() {
        let dir = Root::open(&std::env::temp_dir()).unwrap();
        let m = of(dir.fd()).unwrap();
        assert!(dir.path().canonicalize().unwrap().starts_with(&m.point) && !m.kind.is_empty(), "{m:?}");
        let r = room(dir.fd()).unwrap();
        assert!(r.bytes >= r.free_bytes && r.free_bytes > 0 && !r.read_only, "{r:?}");
        assert_eq!(r.used_bytes() + r.free_bytes, r.bytes);
        assert!(below(Path::new("/")).contains(&"/proc".into()));
    }
}
