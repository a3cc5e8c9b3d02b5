//! Where a directory is, of which only the handle is known.

use super::events::Handle;
use crate::Excluded;
use crate::beneath::{Root, entries, path_of, place_in};
use crate::mounts::relative;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, fstat, statat};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::rc::Rc;
use std::time::Duration;
use treeferry_core::path::RelPath;

/// Longest path that is given to the kernel in one call.
const PATH_BYTES: usize = 4000;
/// How often a handle is tried of which the kernel says that it has no memory for it.
const ATTEMPTS: usize = 1000;

/// The identity of a file system, as events and statfs(2) tell it.
pub(super) type FsId = [u8; 8];

/// A file system that is marked, and where it is mounted.
pub(super) struct Marked {
    pub(super) point: RelPath,
    pub(super) fsid: FsId,
}

/// What a file is called.
pub(super) enum Names {
    /// It has a name, and nobody knows which. What is known of the file itself.
    Unknown(Option<Box<Stat>>),
    /// It is called so, below the source; if it is there and exists at all.
    Known {
        /// One path for each mount that shows it.
        paths: Vec<RelPath>,
        /// It has other names.
        several: bool,
    },
}

/// Directories that were found while one read is dealt with.
pub(super) struct Places<'a> {
    root: &'a Root,
    marked: &'a [Marked],
    excluded: &'a Excluded,
    /// The absolute path of the source.
    top: Vec<u8>,
    mounts: HashMap<&'a RelPath, Option<OwnedFd>>,
    found: HashMap<Vec<u8>, Rc<[RelPath]>>,
    removed: HashSet<Vec<u8>>,
    skipped: HashMap<RelPath, bool>,
}

impl<'a> Places<'a> {
    /// For one read. Fails if the source has no path.
    pub(super) fn new(
        root: &'a Root,
        marked: &'a [Marked],
        excluded: &'a Excluded,
    ) -> Result<Places<'a>, Errno> {
        let top = path_of(root.fd())?;
        Ok(Places {
            root,
            marked,
            excluded,
            top,
            mounts: HashMap::new(),
            found: HashMap::new(),
            removed: HashSet::new(),
            skipped: HashMap::new(),
        })
    }

    /// Whether the source still has the path by which all else was found.
    pub(super) fn is_right(&self) -> bool {
        path_of(self.root.fd()).is_ok_and(|top| top == self.top)
    }

    /// Where a directory is now, below the source and not excluded: nowhere, or at one path for each mount that
    /// shows it.
    pub(super) fn of(&mut self, handle: Handle<'_>) -> Result<Rc<[RelPath]>, Errno> {
        if let Some(known) = self.found.get(handle.whole) {
            return Ok(Rc::clone(known));
        }
        let mut paths = Vec::new();
        for marked in self.marked.iter().filter(|m| m.fsid[..] == *handle.fsid) {
            let root = self.root;
            let Some(mount) = shown_by(root, &mut self.mounts, &marked.point) else { continue };
            match open(mount, handle).and_then(|d| long_path(d.as_fd())) {
                Ok(path) => {
                    let path = relative(&path, &self.top);
                    paths.extend(path.filter(|p| !paths.contains(p)));
                }
                // it was removed, which is told of its parent, or this mount does not show it
                Err(Errno::STALE | Errno::NOENT | Errno::NOTDIR) => {
                    self.removed.insert(handle.whole.to_vec());
                }
                Err(errno) => return Err(errno),
            }
        }
        paths.retain(|path| !self.is_skipped(path));
        let paths: Rc<[RelPath]> = paths.into();
        self.found.insert(handle.whole.to_vec(), Rc::clone(&paths));
        Ok(paths)
    }

    /// Whether it was found that a directory was removed, or is out of sight.
    pub(super) fn is_removed(&self, handle: Handle<'_>) -> bool {
        self.removed.contains(handle.whole)
    }

    /// Whether a file has this name in a directory that was found.
    pub(super) fn is_at(&self, dir: &RelPath, name: &CStr, object: Handle<'_>) -> bool {
        let path = dir.child(name);
        let is = |at: BorrowedFd<'_>, path: &CStr| {
            crate::sys::handle_of(at, path).is_ok_and(|h| h.parts() == (object.kind, object.bytes))
        };
        if path.as_bytes().len() > PATH_BYTES {
            return self.root.place(dir.as_bytes()).is_ok_and(|dir| is(dir.as_fd(), name));
        }
        CString::new(path.as_bytes()).is_ok_and(|path| is(self.root.fd(), &path))
    }

    /// What a file is called that is no directory, as far as the kernel knows that without searching.
    pub(super) fn names_of(&mut self, object: Handle<'_>) -> Names {
        let mut paths = Vec::new();
        let (mut several, mut is_elsewhere, mut unknown) = (false, false, None);
        for marked in self.marked.iter().filter(|m| m.fsid[..] == *object.fsid) {
            let root = self.root;
            let Some(mount) = shown_by(root, &mut self.mounts, &marked.point) else { continue };
            let found = open(mount, object).and_then(|fd| Ok((fstat(&fd)?, fd)));
            let (stat, fd) = match found {
                Ok((stat, _)) if stat.st_nlink == 0 => continue,
                Ok(found) => found,
                Err(Errno::STALE | Errno::NOENT) => continue,
                Err(_) => {
                    unknown = unknown.or(Some(None));
                    continue;
                }
            };
            several |= stat.st_nlink > 1;
            let this = Some(Some(Box::new(stat)));
            // what the kernel says of a file without a name leads nowhere, or to another one
            let is_it = |found: Result<Stat, Errno>| {
                found.is_ok_and(|s| (s.st_dev, s.st_ino) == (stat.st_dev, stat.st_ino))
            };
            let Ok(whole) = path_of(fd.as_fd()) else {
                unknown = this;
                continue;
            };
            match relative(&whole, &self.top) {
                None if is_it(statat(CWD, &whole[..], AtFlags::SYMLINK_NOFOLLOW)) => is_elsewhere = true,
                None => unknown = this,
                Some(path) => match path.split() {
                    Some((dir, name))
                        if is_it(
                            root.place(dir.as_bytes())
                                .and_then(|d| statat(d, &*name, AtFlags::SYMLINK_NOFOLLOW)),
                        ) =>
                    {
                        if !paths.contains(&path) {
                            paths.push(path);
                        }
                    }
                    _ => unknown = this,
                },
            }
        }
        match unknown {
            Some(stat) if paths.is_empty() && !is_elsewhere => Names::Unknown(stat),
            _ => Names::Known { paths, several },
        }
    }

    /// Forgets what was found, since a directory was renamed.
    pub(super) fn forget(&mut self) {
        self.found.clear();
        self.skipped.clear();
    }

    /// Whether a directory is excluded, or lies in one that is.
    pub(super) fn is_skipped(&mut self, path: &RelPath) -> bool {
        if let Some(known) = self.skipped.get(path) {
            return *known;
        }
        let is = path
            .split()
            .is_some_and(|(dir, name)| self.is_skipped(&dir) || (self.excluded)(&dir, &name, true));
        self.skipped.insert(path.clone(), is);
        is
    }
}

/// Opens a file or directory by its handle. While its inode number is being given to another one, after it was removed, the
/// kernel says that it has no memory; for as long as the one who makes that does not get on.
fn open(mount: BorrowedFd<'_>, handle: Handle<'_>) -> Result<OwnedFd, Errno> {
    for _ in 0..ATTEMPTS {
        match crate::sys::open_by_handle(mount, handle.kind, handle.bytes) {
            Err(Errno::NOMEM) => std::thread::sleep(Duration::from_millis(1)),
            other => return other,
        }
    }
    Err(Errno::NOMEM)
}

/// What is mounted at a point, opened once for one read. `None`: it cannot be.
fn shown_by<'m, 'a>(
    root: &'m Root,
    mounts: &'m mut HashMap<&'a RelPath, Option<OwnedFd>>,
    point: &'a RelPath,
) -> Option<BorrowedFd<'m>> {
    if point.is_root() {
        return Some(root.fd());
    }
    mounts.entry(point).or_insert_with(|| mounted(root, point)).as_ref().map(|m| m.as_fd())
}

/// Opens what is mounted below the source.
pub(super) fn mounted(root: &Root, point: &RelPath) -> Option<OwnedFd> {
    let place = root.place(point.as_bytes()).ok()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(place, c".", flags, Mode::empty()).ok()
}

/// The absolute path of a directory, of any length.
fn long_path(dir: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    match path_of(dir) {
        Err(Errno::NAMETOOLONG) => {}
        other => return other,
    }
    let mut names: Vec<CString> = Vec::new();
    let mut at = dir.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
    loop {
        let up = place_in(at.as_fd(), c"..")?;
        names.push(name_in(up.as_fd(), at.as_fd())?);
        match path_of(up.as_fd()) {
            Ok(mut path) => {
                for name in names.iter().rev() {
                    path.push(b'/');
                    path.extend_from_slice(name.to_bytes());
                }
                return Ok(path);
            }
            Err(Errno::NAMETOOLONG) => at = up,
            Err(errno) => return Err(errno),
        }
    }
}

/// The name of a directory in the one above it.
fn name_in(up: BorrowedFd<'_>, dir: BorrowedFd<'_>) -> Result<CString, Errno> {
    let wanted = fstat(dir)?;
    let mut found = None;
    entries(up, |name, ino, _| {
        let is = ino == wanted.st_ino
            && statat(up, name, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|s| (s.st_dev, s.st_ino) == (wanted.st_dev, wanted.st_ino));
        if is {
            found = Some(name.to_owned());
        }
        !is
    })?;
    found.ok_or(Errno::NOENT)
}
