//! The source directory, opened once, and directories below it.

use crate::error::Error;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::path::{Path, PathBuf};

/// Longest part of a path that is given to the kernel in one call; PATH_MAX (4096) less some room.
const STEP_BYTES: usize = 4000;
/// Flags that open a directory as a place, not to be read.
const PLACE: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The source directory.
pub(crate) struct Root {
    fd: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens it; a symlink as the source itself is followed.
    pub(crate) fn open(path: &Path) -> Result<Root, Error> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, &path, flags, Mode::empty()) {
            Ok(fd) => Ok(Root { fd, path }),
            Err(errno) => Err(Error::Root { path, errno }),
        }
    }

    /// The directory itself.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The path by which it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it was removed.
    pub(crate) fn is_removed(&self) -> bool {
        rustix::fs::fstat(&self.fd).is_ok_and(|s| s.st_nlink == 0)
    }

    /// Opens a directory below, by a relative path of any length, following no symlink.
    pub(crate) fn place(&self, rel: &[u8]) -> Result<OwnedFd, Errno> {
        if rel.is_empty() {
            return rustix::fs::openat(&self.fd, c".", PLACE, Mode::empty());
        }
        let mut at: Option<OwnedFd> = None;
        let mut rest = rel;
        while !rest.is_empty() {
            let cut = match rest.get(..STEP_BYTES) {
                None => rest.len(),
                // a component has at most 255 bytes on every Linux file system, so there is a slash
                Some(part) => part.iter().rposition(|b| *b == b'/').unwrap_or(STEP_BYTES),
            };
            let (part, more) = rest.split_at(cut);
            at = Some(step(at.as_ref().map_or(self.fd(), |fd| fd.as_fd()), part)?);
            rest = more.get(1..).unwrap_or_default();
        }
        at.ok_or(Errno::NOENT)
    }
}

fn step(dir: BorrowedFd<'_>, part: &[u8]) -> Result<OwnedFd, Errno> {
    let path = CString::new(part).map_err(|_| Errno::INVAL)?;
    let how = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(dir, &path, PLACE, Mode::empty(), how) {
            Err(Errno::INTR | Errno::AGAIN) => continue,
            // before Linux 5.6, or forbidden to a container
            Err(Errno::NOSYS | Errno::PERM) => break,
            other => return other,
        }
    }
    let mut at: Option<OwnedFd> = None;
    for name in part.split(|b| *b == b'/') {
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        at = Some(place_in(at.as_ref().map_or(dir, |fd| fd.as_fd()), &name)?);
    }
    at.ok_or(Errno::NOENT)
}

/// Opens a directory in a directory.
pub(crate) fn place_in(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, PLACE, Mode::empty())
}

/// The path that stands for an open descriptor in this process.
pub(crate) fn proc_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// The absolute path of an open directory at this moment; `ENOENT` if it has none, being removed or out of sight.
pub(crate) fn path_of(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    if rustix::fs::fstat(fd)?.st_nlink == 0 {
        return Err(Errno::NOENT);
    }
    let path = rustix::fs::readlinkat(CWD, proc_path(fd), Vec::new())?.into_bytes();
    // "(unreachable)/..." otherwise
    if path.first() == Some(&b'/') { Ok(path) } else { Err(Errno::NOENT) }
}

/// Calls `each` for every entry of an open directory until it returns `false`: name, inode number, and type, which
/// may be unknown.
pub(crate) fn entries(
    dir: BorrowedFd<'_>,
    mut each: impl FnMut(&CStr, u64, FileType) -> bool,
) -> Result<(), Errno> {
    listing(dir, |name, ino, kind| name == c"." || name == c".." || each(name, ino, kind))
}

/// The same with `.` and `..`, if the file system tells of them.
pub(crate) fn listing(
    dir: BorrowedFd<'_>,
    mut each: impl FnMut(&CStr, u64, FileType) -> bool,
) -> Result<(), Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(dir, c".", flags | OFlags::NOATIME, Mode::empty()) {
        // not our directory, and no privilege: its access time will change
        Err(Errno::PERM) => rustix::fs::openat(dir, c".", flags, Mode::empty())?,
        other => other?,
    };
    let mut buffer = Vec::with_capacity(32 << 10);
    let mut listing = RawDir::new(fd, buffer.spare_capacity_mut());
    while let Some(entry) = listing.next() {
        let entry = entry?;
        if !each(entry.file_name(), entry.ino(), entry.file_type()) {
            break;
        }
    }
    Ok(())
}

/// Names of the directories in an open directory.
pub(crate) fn directories(dir: BorrowedFd<'_>) -> Result<Vec<CString>, Errno> {
    let mut names = Vec::new();
    entries(dir, |name, _, kind| {
        let is_dir = match kind {
            FileType::Unknown => rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|s| FileType::from_raw_mode(s.st_mode) == FileType::Directory),
            kind => kind == FileType::Directory,
        };
        if is_dir {
            names.push(name.to_owned());
        }
        true
    })?;
    Ok(names)
}

/// What is to be said of an entry that was just made and is no directory: a regular file with one name is being
/// written, all else is complete when it appears, or gone already.
pub(crate) fn made(dir: BorrowedFd<'_>, name: &CStr) -> crate::What {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(s) if FileType::from_raw_mode(s.st_mode) == FileType::RegularFile && s.st_nlink == 1 => {
            crate::What::Open
        }
        _ => crate::What::Changed,
    }
}

/// Whether bytes are the name of an entry, as opposed to what the kernel calls files that have none.
pub(crate) fn is_name(name: &CStr) -> bool {
    let name = name.to_bytes();
    !matches!(name, b"" | b"." | b"..") && !name.contains(&b'/')
}
