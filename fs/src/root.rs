//! A root, SRC or DST: opened once, its identity remembered, and everything below it opened beneath it.

use crate::error::{Error, Op, Result};
use crate::fault;
use crate::meta::Time;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Longest part of a path that is given to the kernel in one call; PATH_MAX (4096) less some room.
const STEP_BYTES: usize = 4000;

/// An open root directory.
#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    path: PathBuf,
    identity: Identity,
    noatime: AtomicBool,
    no_openat2: AtomicBool,
}

/// What tells one directory from every other, and one mount of it from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Device of the file system.
    pub dev: (u32, u32),
    /// Inode number.
    pub ino: u64,
    /// Identity of the mount (`STATX_MNT_ID`, Linux 5.8; 0 before).
    pub mount: u64,
}

/// Why a root is not usable (any more).
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// It could not be opened.
    #[error("{}: {}", .0.display(), .1)]
    Open(PathBuf, Error),
    /// Its path leads to another directory, or to another mount, than when it was opened.
    #[error("{} is not the directory any more that it was when the run began (unmounted, moved or replaced)", .0.display())]
    Replaced(PathBuf),
}

impl Root {
    /// Opens a root directory; a symlink as the root itself is followed, as `rsync SRC/` does.
    pub fn open(path: &Path) -> std::result::Result<Root, RootError> {
        let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let err = |e| RootError::Open(path.to_owned(), e);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = fault::gate("open")
            .and_then(|()| rustix::fs::openat(CWD, &absolute, flags, Mode::empty()))
            .op("open")
            .map_err(err)?;
        let identity = identity(fd.as_fd(), c"".into()).map_err(err)?;
        Ok(Root {
            fd,
            path: absolute,
            identity,
            noatime: AtomicBool::new(false),
            no_openat2: AtomicBool::new(false),
        })
    }

    /// Directories below are opened so that listing them does not change their access times, where allowed.
    pub fn quietly(self) -> Root {
        self.noatime.store(true, Relaxed);
        self
    }

    /// The root's own descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it was when it was opened.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// When it was made (`STATX_BTIME`, statx(2)), which tells it from one that gets its path and number later. `None`: the
    /// file system does not say.
    pub fn born(&self) -> Option<Time> {
        let stat = rustix::fs::statx(&self.fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?;
        let told = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        told.then_some(Time { sec: stat.stx_btime.tv_sec, nsec: stat.stx_btime.tv_nsec })
    }

    /// Whether its path still leads to the directory, on the mount, that was opened. Asked before anything
    /// is deleted.
    pub fn check(&self) -> std::result::Result<(), RootError> {
        let name = CString::new(self.path.as_os_str().as_encoded_bytes()).unwrap_or_default();
        match identity(CWD, name) {
            Ok(i) if i == self.identity => Ok(()),
            Ok(_) => Err(RootError::Replaced(self.path.clone())),
            Err(e) if e.is_gone() => Err(RootError::Replaced(self.path.clone())),
            Err(e) => Err(RootError::Open(self.path.clone(), e)),
        }
    }

    /// Opens a directory below the root by its relative path, of any length, following no symlink.
    pub fn open_dir(&self, rel: &[u8]) -> Result<OwnedFd> {
        if self.noatime.load(Relaxed) {
            match self.walk_to(rel, OFlags::NOATIME) {
                // not our directory, and no privilege: the access time will change
                Err(e) if e.errno == Errno::PERM => self.noatime.store(false, Relaxed),
                other => return other,
            }
        }
        self.walk_to(rel, OFlags::empty())
    }

    /// Finds an entry below the root by its relative path, of any length, following no symlink: a descriptor that
    /// stands for whatever it is (`O_PATH`, open(2)).
    pub fn find(&self, rel: &[u8]) -> Result<OwnedFd> {
        let (up, name) = match rel.iter().rposition(|b| *b == b'/') {
            Some(i) => (&rel[..i], &rel[i + 1..]),
            None => (&[][..], rel),
        };
        if !self.no_openat2.load(Relaxed) && rel.len() <= STEP_BYTES {
            let path = CString::new(rel).map_err(|_| Error { op: "openat2", errno: Errno::INVAL })?;
            let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let r = fault::gate("openat2")
                .and_then(|()| rustix::fs::openat2(self.fd(), &path, flags, Mode::empty(), how));
            match r {
                // the entry itself is a symlink, which openat2 then does not open at all
                Err(Errno::LOOP | Errno::INTR | Errno::NOSYS) => {}
                r => return r.op("openat2"),
            }
        }
        let name = CString::new(name).map_err(|_| Error { op: "openat2", errno: Errno::INVAL })?;
        let dir = self.open_dir(up)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&dir, &name, flags, Mode::empty()).op("openat")
    }

    fn walk_to(&self, rel: &[u8], extra: OFlags) -> Result<OwnedFd> {
        if rel.is_empty() {
            return self.step(self.fd(), b".", extra);
        }
        if rel.len() <= STEP_BYTES {
            return self.step(self.fd(), rel, extra);
        }
        let mut at: Option<OwnedFd> = None;
        let mut rest = rel;
        loop {
            let (part, more) = if rest.len() <= STEP_BYTES {
                (rest, &[][..])
            } else {
                // a component has at most 255 bytes on every Linux file system, so there is a slash
                let cut = rest[..STEP_BYTES].iter().rposition(|b| *b == b'/').unwrap_or(STEP_BYTES);
                (&rest[..cut], rest.get(cut + 1..).unwrap_or_default())
            };
            let flags = if more.is_empty() { extra } else { OFlags::PATH };
            let next = self.step(at.as_ref().map_or(self.fd(), |f| f.as_fd()), part, flags)?;
            if more.is_empty() {
                return Ok(next);
            }
            at = Some(next);
            rest = more;
        }
    }

    fn step(&self, dir: BorrowedFd<'_>, part: &[u8], extra: OFlags) -> Result<OwnedFd> {
        let flags = if extra.contains(OFlags::PATH) { OFlags::empty() } else { OFlags::RDONLY }
            | OFlags::DIRECTORY
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC
            | extra;
        let name = CString::new(part).map_err(|_| Error { op: "openat2", errno: Errno::INVAL })?;
        if !self.no_openat2.load(Relaxed) {
            let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
            loop {
                let r = fault::gate("openat2")
                    .and_then(|()| rustix::fs::openat2(dir, &name, flags, Mode::empty(), how));
                match r {
                    Err(Errno::INTR) => continue,
                    Err(Errno::NOSYS) => {
                        self.no_openat2.store(true, Relaxed);
                        break;
                    }
                    r => return r.op("openat2"),
                }
            }
        }
        // before Linux 5.6: component by component, none of them followed
        let mut at: Option<OwnedFd> = None;
        for c in part.split(|b| *b == b'/') {
            let c = CString::new(c).unwrap_or_default();
            let from = at.as_ref().map_or(dir, |f| f.as_fd());
            at = Some(rustix::fs::openat(from, &c, flags, Mode::empty()).op("openat")?);
        }
        at.ok_or(Error { op: "openat", errno: Errno::NOENT })
    }

    /// Where in its file system it lies, whatever is mounted where: the root of its mount within the file system
    /// (fields 4 and 5 of `/proc/self/mountinfo`, proc_pid_mountinfo(5)) and its path below the mount point. Two
    /// roots of one device lie in each other if one of these paths lies below the other. `None`: cannot be told.
    pub fn place(&self) -> Option<PathBuf> {
        let path = self.path.canonicalize().ok()?;
        let table = std::fs::read("/proc/self/mountinfo").ok()?;
        let id = self.identity.mount.to_string();
        let line =
            table.split(|b| *b == b'\n').find(|l| l.split(|b| *b == b' ').next() == Some(id.as_bytes()))?;
        let mut fields = line.split(|b| *b == b' ').skip(3).map(unescape);
        let (inside, point) = (fields.next()?, fields.next()?);
        Some(inside.join(path.strip_prefix(point).ok()?))
    }

    /// Identities of this directory and of all above it, nearest first, up to the root of the file system.
    pub fn ancestors(&self) -> Result<Vec<Identity>> {
        let mut out = vec![self.identity];
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = rustix::fs::openat(self.fd(), c".", flags, Mode::empty()).op("openat")?;
        loop {
            let up = rustix::fs::openat(&at, c"..", flags, Mode::empty()).op("openat")?;
            let i = identity(up.as_fd(), c"".into())?;
            if out.last() == Some(&i) {
                return Ok(out);
            }
            out.push(i);
            at = up;
        }
    }
}

impl Identity {
    /// Whether an entry is this directory, seen through whatever mount.
    pub fn is(&self, m: &crate::meta::Meta) -> bool {
        let dev = (u64::from(self.dev.0) << 32) | u64::from(self.dev.1);
        (dev, self.ino) == (m.dev, m.ino)
    }

    /// Whether both are the same directory, seen through whatever mount.
    pub fn same_dir(&self, other: &Identity) -> bool {
        (self.dev, self.ino) == (other.dev, other.ino)
    }
}

/// Blank, tab, newline and backslash are written `\ooo` in the table of mounts.
pub(crate) fn unescape(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&b, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| b == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(v) => {
                out.push(v);
                rest = &tail[3..];
            }
            None => {
                out.push(b);
                rest = tail;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

/// The mount through which an open directory is seen; `None` before Linux 5.8.
pub fn mount_of(dir: BorrowedFd<'_>) -> Option<u64> {
    identity(dir, CString::default()).ok().map(|i| i.mount).filter(|m| *m != 0)
}

fn identity(dir: BorrowedFd<'_>, name: CString) -> Result<Identity> {
    let flags = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::empty() };
    fault::gate("statx-root")
        .and_then(|()| rustix::fs::statx(dir, &name, flags, StatxFlags::BASIC_STATS | StatxFlags::MNT_ID))
        .map(|s| Identity {
            dev: (s.stx_dev_major, s.stx_dev_minor),
            ino: s.stx_ino,
            mount: if s.stx_mask & StatxFlags::MNT_ID.bits() != 0 { s.stx_mnt_id } else { 0 },
        })
        .op("statx")
}

/// How many inodes of the file system of a path are in use; `None`: it does not say, as btrfs and some others do not.
pub fn used_inodes(path: &Path) -> Option<u64> {
    let s = rustix::fs::statvfs(path).ok()?;
    s.f_files.checked_sub(s.f_ffree).filter(|_| s.f_files > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_made_anew_was_born_later() {
        let dir = std::env::temp_dir().join(format!("treeferry-root-{}", std::process::id()));
        let made = || {
            std::fs::create_dir(&dir).unwrap();
            let root = Root::open(&dir).unwrap();
            let (born, again) = (root.born(), Root::open(&dir).unwrap().born());
            std::fs::remove_dir(&dir).unwrap();
            assert_eq!(born, again);
            // the file systems on which this is tested all say so
            let born = born.unwrap();
            (born.sec, born.nsec)
        };
        let first = made();
        // the clock of file systems goes in steps
        let later = std::iter::repeat_with(made).find(|born| *born != first).unwrap();
        assert!(later > first);
    }
}
