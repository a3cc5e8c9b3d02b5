//! Looks for the names of files that the kernel does not know: all directories of the source are read, and of what is in them
//! nothing is asked but what they tell anyway, the numbers of the inodes.
//!
//! That is done bit by bit, between the events. What gets another name meanwhile, or goes elsewhere with its directory, is
//! told by events.

use crate::Excluded;
use crate::beneath::{Root, listing};
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, FileType, Stat, fstat, statat};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CString;
use std::time::{Duration, Instant};
use treeferry_core::path::RelPath;

/// From the end of one search to the begin of the next: at least this, and so many times as long as it took.
const REST: Duration = Duration::from_secs(1);
const SHARE: u32 = 3;
/// In so many directories one entry is asked for its number, to see whether directories of this file system tell the truth.
const PROOFS: usize = 1000;
/// Files whose names are remembered.
const MOST: usize = 10_000;

/// Device and number of an inode.
pub(super) type Inode = (u64, u64);

/// A name that was found, and what happened to its file.
pub(super) type Found = (RelPath, u64);

/// Which files are looked for, and how far that has come.
pub(super) struct Search {
    /// What happened to files that nobody looks for yet.
    wanted: HashMap<Inode, u64>,
    walk: Option<Walk>,
    next: Instant,
    /// Those of earlier searches.
    known: HashMap<Inode, Vec<RelPath>>,
    is_possible: bool,
}

/// A search that is under way.
struct Walk {
    files: HashMap<Inode, (u64, Vec<RelPath>)>,
    /// Directories that are to be read.
    dirs: Vec<RelPath>,
    read: usize,
    took: Duration,
}

/// Why a search finds nothing that can be relied on.
enum Failed {
    /// Neither will another.
    Untrue,
    At(RelPath, Errno),
}

pub(super) fn inode_of(stat: &Stat) -> Inode {
    (stat.st_dev, stat.st_ino)
}

impl Default for Search {
    fn default() -> Search {
        let (wanted, walk, known) = Default::default();
        Search { wanted, walk, next: Instant::now(), known, is_possible: true }
    }
}

impl Search {
    /// Whether files can be looked for where this one is.
    pub(super) fn is_possible(&self) -> bool {
        self.is_possible
    }

    /// Whether there is something to look for.
    pub(super) fn is_due(&self) -> bool {
        !self.wanted.is_empty() || self.is_under_way()
    }

    /// Whether it goes on at once.
    pub(super) fn is_under_way(&self) -> bool {
        self.walk.is_some()
    }

    /// Looks for a file to which something happened.
    pub(super) fn add(&mut self, file: Inode, what: u64) {
        *self.wanted.entry(file).or_default() |= what;
    }

    /// All names of a file, if they were found before.
    pub(super) fn known(&self, root: &Root, file: &Stat) -> Option<Vec<RelPath>> {
        let names = self.known.get(&inode_of(file))?;
        let has = |path: &RelPath| {
            let Some((dir, name)) = path.split() else { return false };
            let there = root.place(dir.as_bytes()).and_then(|d| statat(d, &*name, AtFlags::SYMLINK_NOFOLLOW));
            there.is_ok_and(|s| inode_of(&s) == inode_of(file))
        };
        let are_all = usize::try_from(file.st_nlink) == Ok(names.len()) && names.iter().all(has);
        are_all.then(|| names.clone())
    }

    /// Everything is looked at anyway.
    pub(super) fn forget(&mut self) {
        (self.wanted, self.walk) = Default::default();
    }

    /// Goes on for so long, or until the directory that is then being read was read. Names that were found, once all were; or why
    /// there may be others.
    pub(super) fn go_on(
        &mut self,
        root: &Root,
        excluded: &Excluded,
        most: Duration,
    ) -> Option<Result<Vec<Found>, String>> {
        let began = Instant::now();
        if self.walk.is_none() && !self.wanted.is_empty() && began >= self.next {
            self.walk = Some(Walk::of(std::mem::take(&mut self.wanted)));
        }
        let walk = self.walk.as_mut()?;
        let failed = loop {
            let Some(dir) = walk.dirs.pop() else { break None };
            if let Err(e) = walk.read(root, excluded, &dir) {
                break Some(e);
            }
            if began.elapsed() >= most {
                walk.took += began.elapsed();
                return None;
            }
        };
        let walk = self.walk.take()?;
        let took = walk.took + began.elapsed();
        self.next = Instant::now() + REST.max(took * SHARE);
        tracing::debug!(dirs = walk.read, ?took, "files whose names nobody knows were looked for");
        match failed {
            None => Some(Ok(self.end(walk))),
            Some(Failed::Untrue) => {
                self.is_possible = false;
                Some(Err("directories tell other inode numbers than files have".to_owned()))
            }
            Some(Failed::At(dir, errno)) => Some(Err(format!("{dir} cannot be read: {errno}"))),
        }
    }

    fn end(&mut self, walk: Walk) -> Vec<Found> {
        let mut all = Vec::new();
        for (file, (what, names)) in walk.files {
            all.extend(names.iter().map(|path| (path.clone(), what)));
            if self.known.len() >= MOST {
                self.known.clear();
            }
            self.known.insert(file, names);
        }
        all
    }
}

impl Walk {
    fn of(files: HashMap<Inode, u64>) -> Walk {
        let files = files.into_iter().map(|(file, what)| (file, (what, Vec::new()))).collect();
        Walk { files, dirs: vec![RelPath::root()], read: 0, took: Duration::ZERO }
    }

    fn read(&mut self, root: &Root, excluded: &Excluded, dir: &RelPath) -> Result<(), Failed> {
        let failed = |errno| Failed::At(dir.clone(), errno);
        let place = match root.place(dir.as_bytes()) {
            // it was removed or renamed, or is none any more, and that is told
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            place => place.map_err(failed)?,
        };
        let own = fstat(&place).map_err(failed)?;
        let mut asks = self.read < PROOFS;
        let mut is_true = true;
        self.read += 1;
        let files = &mut self.files;
        let mut dirs: Vec<CString> = Vec::new();
        let read = listing(place.as_fd(), |name, ino, kind| {
            if name == c".." {
                return true;
            }
            if name == c"." {
                is_true = ino == own.st_ino;
                return is_true;
            }
            let stat = || statat(&place, name, AtFlags::SYMLINK_NOFOLLOW).ok();
            let kind = match kind {
                FileType::Unknown => stat().map_or(kind, |s| FileType::from_raw_mode(s.st_mode)),
                kind => kind,
            };
            if kind == FileType::Directory {
                if !excluded(dir, name, true) {
                    dirs.push(name.to_owned());
                }
                return true;
            }
            if std::mem::take(&mut asks) {
                // what was mounted over it is on another device
                is_true = stat().is_none_or(|s| s.st_ino == ino || s.st_dev != own.st_dev);
            }
            if let Some((_, names)) = files.get_mut(&(own.st_dev, ino))
                && !excluded(dir, name, false)
            {
                names.push(dir.child(name));
            }
            is_true
        });
        match read {
            Ok(()) if is_true => {}
            Ok(()) => return Err(Failed::Untrue),
            // removed while it was read
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        }
        self.dirs.extend(dirs.iter().map(|name| dir.child(name)));
        Ok(())
    }
}
