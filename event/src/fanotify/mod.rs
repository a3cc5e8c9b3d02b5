//! fanotify(7): a mark on each file system, whatever the number of directories. Needs root.

mod events;
mod look;
mod objects;
mod places;
mod search;
#[cfg(test)]
mod tests;
mod told;

use crate::aside::Aside;
use crate::batch::Batch;
use crate::beneath::Root;
use crate::error::Error;
use crate::mounts::Mounts;
use crate::{Detector, Excluded, News, Waker, What};
use look::Look;
use objects::{Doubts, Objects, Owed};
use places::{Marked, Places, mounted};
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use search::Search;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use told::Told;
use treeferry_core::path::RelPath;

/// Room for the events of one read.
const BUFFER_BYTES: usize = 256 << 10;
/// After so many reads the caller has its turn, even if there is more.
const READS: usize = 64;
/// For so long names are looked for before events have their turn.
const TURN: Duration = Duration::from_millis(10);
/// How often events are looked at again because the source was moved meanwhile.
const ATTEMPTS: usize = 5;

const FLAGS: libc::c_uint = libc::FAN_CLASS_NOTIF
    | libc::FAN_REPORT_DFID_NAME
    | libc::FAN_CLOEXEC
    | libc::FAN_NONBLOCK
    | libc::FAN_UNLIMITED_QUEUE
    | libc::FAN_UNLIMITED_MARKS;
/// Each event tells of which file it is, too. Linux 5.17.
const OBJECTS: libc::c_uint = libc::FAN_REPORT_FID | libc::FAN_REPORT_TARGET_FID;
const MASK: u64 = libc::FAN_CREATE
    | libc::FAN_DELETE
    | libc::FAN_ATTRIB
    | libc::FAN_MODIFY
    | libc::FAN_CLOSE_WRITE
    | libc::FAN_ONDIR;

/// Detects changes with fanotify(7).
///
/// It hears of all changes on the file systems of the source, also of those beside the source, and finds out where
/// they were. What this process itself changes is not told, unless [`Fanotify::with_own`] says so.
///
/// Since Linux 5.17 an event also tells which file it is of. If that does not have the name that is told (it was removed, or
/// never was one: `O_TMPFILE`, clients of the kernel's NFS server), the kernel is asked for one that it has; if it knows none,
/// the directories of the source are read until those are found that have it. Before 5.17 such changes are not told.
///
/// Limits: below a subvolume of btrfs, and on file systems without file handles, it does not work, and says so.
pub struct Fanotify {
    root: Root,
    group: OwnedFd,
    renames: u64,
    marked: Vec<Marked>,
    mounts: Mounts,
    excluded: Excluded,
    waker: Waker,
    buffer: Vec<u8>,
    batch: Batch,
    told: Told,
    aside: Aside,
    objects: Objects,
    search: Search,
    owed: Owed,
    own: bool,
    gone: bool,
}

/// Watches all file systems that are mounted at `root` and below it. When this returns, no change will be missed.
pub fn fanotify(root: &Path, excluded: Excluded) -> Result<Fanotify, Error> {
    let root = Root::open(root)?;
    let init = |flags| crate::sys::fanotify_init(flags, libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE);
    let group = match init(FLAGS | OBJECTS) {
        Err(Errno::INVAL) => init(FLAGS),
        other => other,
    };
    let group = group.map_err(|errno| match errno {
        Errno::PERM => Error::Privilege,
        Errno::INVAL | Errno::NOSYS => Error::Kernel,
        Errno::MFILE | Errno::NFILE => {
            let limit = std::fs::read_to_string("/proc/sys/fs/fanotify/max_user_groups");
            Error::Groups { limit: limit.map_or_else(|_| "unknown".to_owned(), |t| t.trim().to_owned()) }
        }
        errno => Error::Call { call: "fanotify_init", errno },
    })?;
    let mut fanotify = Fanotify {
        mounts: Mounts::new(&root)?,
        renames: libc::FAN_RENAME,
        marked: Vec::new(),
        waker: Waker::new()?,
        buffer: vec![0; BUFFER_BYTES],
        batch: Batch::default(),
        told: Told::default(),
        aside: Aside::default(),
        objects: Objects::default(),
        search: Search::default(),
        owed: Owed::default(),
        own: false,
        gone: false,
        root,
        group,
        excluded,
    };
    fanotify.mark(RelPath::root())?;
    for point in fanotify.mounts.points() {
        if !fanotify.is_skipped(&point)? {
            fanotify.mark(point)?;
        }
    }
    // opening a handle needs a privilege of its own
    match crate::sys::open_by_handle(fanotify.root.fd(), 0, &[0; 8]) {
        Err(Errno::PERM) => Err(Error::Privilege),
        _ => Ok(fanotify),
    }
}

impl Fanotify {
    /// Tells what this process itself changes as well.
    #[must_use]
    pub fn with_own(mut self) -> Fanotify {
        self.own = true;
        self
    }

    /// Marks the file system that is mounted there.
    fn mark(&mut self, point: RelPath) -> Result<(), Error> {
        let opened = if point.is_root() { None } else { Some(mounted(&self.root, &point)) };
        let dir = match &opened {
            None => self.root.fd(),
            Some(Some(fd)) => fd.as_fd(),
            // a single file is mounted there, or nothing any more
            Some(None) => return Ok(()),
        };
        let renames =
            mark_open(self.group.as_fd(), self.renames, dir).map_err(|errno| self.refused(errno, &point))?;
        let fsid = rustix::fs::fstatvfs(dir).map_err(|errno| Error::Call { call: "statfs", errno })?.f_fsid;
        let fsid = fsid_bytes(fsid);
        self.renames = renames;
        self.marked.retain(|m| m.point != point);
        self.marked.push(Marked { point, fsid });
        Ok(())
    }

    fn refused(&self, errno: Errno, point: &RelPath) -> Error {
        match errno {
            Errno::PERM => Error::Privilege,
            Errno::INVAL | Errno::NOSYS => Error::Kernel,
            Errno::OPNOTSUPP | Errno::XDEV | Errno::NODEV => Error::NoHandles(self.absolute(point)),
            errno => Error::Call { call: "fanotify_mark", errno },
        }
    }

    fn absolute(&self, point: &RelPath) -> PathBuf {
        use std::os::unix::ffi::OsStrExt;
        self.root.path().join(std::ffi::OsStr::from_bytes(point.as_bytes()))
    }

    fn is_skipped(&self, path: &RelPath) -> Result<bool, Error> {
        let places = Places::new(&self.root, &self.marked, &self.excluded);
        places.map(|mut p| p.is_skipped(path)).map_err(|errno| self.no_path(errno))
    }

    fn no_path(&self, errno: Errno) -> Error {
        if self.root.is_removed() {
            return Error::Gone(self.root.path().to_owned());
        }
        Error::Root { path: self.root.path().to_owned(), errno }
    }

    /// Marks what was mounted, and forgets what was unmounted.
    fn remount(&mut self) -> Result<(), Error> {
        let changes = self.mounts.changes(&self.root)?;
        if changes.is_empty() {
            return Ok(());
        }
        let points = self.mounts.points();
        self.marked.retain(|m| m.point.is_root() || points.contains(&m.point));
        for point in changes {
            if self.is_skipped(&point)? {
                continue;
            }
            if points.contains(&point) {
                self.mark(point.clone())?;
            }
            self.batch.add(point, What::Tree);
        }
        Ok(())
    }

    /// Reads once what there is. `None`: there was nothing.
    fn read_once(&mut self, tell: &mut dyn FnMut(News)) -> Result<Option<()>, Error> {
        self.remount()?;
        self.batch.tell(tell);
        let length = match rustix::io::read(&self.group, &mut self.buffer[..]) {
            Ok(length) => length,
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => return Ok(Some(())),
            Err(errno) => return Err(Error::Call { call: "read", errno }),
        };
        for _ in 0..ATTEMPTS {
            let lost = match self.look_up(length) {
                Ok(Some(lost)) => lost,
                Ok(None) => continue,
                Err(_) if self.root.is_removed() => return Ok(Some(())),
                Err(errno) => return Err(self.no_path(errno)),
            };
            self.tell_batch(tell);
            if let Some(why) = lost {
                self.owed.paid();
                self.search.forget();
                tell(News::Lost(why));
            }
            return Ok(Some(()));
        }
        tell(News::Lost("the source directory is being moved".to_owned()));
        Ok(Some(()))
    }

    /// Tells what was found by asking where something is now, which may be the result of a rename that is not told yet.
    fn tell_batch(&mut self, tell: &mut dyn FnMut(News)) {
        self.batch.tell(&mut |news| {
            if let News::Hint(hint) = &news {
                self.told.add(hint);
            }
            tell(news);
        });
    }

    /// Finds out where the events of a read were, and puts hints into the batch. `None`: the source was moved
    /// meanwhile, and all is to be done again. Otherwise why changes may be missed, if so.
    fn look_up(&mut self, length: usize) -> Result<Option<Option<String>>, Errno> {
        self.batch.clear();
        let mut look = Look {
            places: Places::new(&self.root, &self.marked, &self.excluded)?,
            excluded: &self.excluded,
            root: &self.root,
            batch: &mut self.batch,
            told: &mut self.told,
            aside: &mut self.aside,
            objects: &mut self.objects,
            doubts: Doubts::default(),
            search: &mut self.search,
            owed: &mut self.owed,
        };
        let own = i32::try_from(std::process::id()).unwrap_or(0);
        let mut lost = None;
        let mut rest = self.buffer.get(..length).unwrap_or_default();
        loop {
            match events::next(&mut rest) {
                Ok(None) => break,
                Ok(Some(event)) if event.mask & libc::FAN_Q_OVERFLOW != 0 => {
                    look.objects.forget();
                    lost = Some("the queue of fanotify overflowed".to_owned());
                }
                Ok(Some(event)) if event.pid == own && !self.own => {}
                Ok(Some(event)) => {
                    if let Err(errno) = look.take(&event) {
                        lost = Some(format!("a directory that changed cannot be found: {errno}"));
                    }
                }
                Err(events::Malformed) => {
                    lost = Some("fanotify told what is not understood".to_owned());
                    break;
                }
            }
        }
        look.end();
        Ok(look.places.is_right().then_some(lost))
    }

    /// Looks for names that nobody knows, for a while.
    fn look_for_names(&mut self, tell: &mut dyn FnMut(News)) {
        match self.search.go_on(&self.root, &self.excluded, TURN) {
            None => {}
            Some(Ok(found)) => {
                for (path, what) in found {
                    self.batch.add(path, look::content(what));
                }
                self.tell_batch(tell);
            }
            Some(Err(why)) => {
                tracing::warn!("names of files that nobody knows cannot be looked for: {why}");
                self.search.forget();
                self.owed.add();
            }
        }
    }
}

/// Marks the file system of a directory. Returns by which events renames are told.
fn mark_open(group: BorrowedFd<'_>, renames: u64, dir: BorrowedFd<'_>) -> Result<u64, Errno> {
    let flags = libc::FAN_MARK_ADD | libc::FAN_MARK_FILESYSTEM;
    match crate::sys::fanotify_mark(group, flags, MASK | renames, dir, c".") {
        // before Linux 5.17: both halves of a rename on their own
        Err(Errno::INVAL) if renames == libc::FAN_RENAME => {
            mark_open(group, libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO, dir)
        }
        other => other.map(|()| renames),
    }
}

/// The identity of a file system as it is in events: two words, of which statvfs(3) makes one number.
fn fsid_bytes(number: u64) -> places::FsId {
    let mut bytes = [0; 8];
    let (first, second) = bytes.split_at_mut(4);
    // half of it each
    first.copy_from_slice(&(number as u32).to_ne_bytes());
    second.copy_from_slice(&((number >> 32) as u32).to_ne_bytes());
    bytes
}

impl Detector for Fanotify {
    fn name(&self) -> &'static str {
        "fanotify"
    }

    fn read(&mut self, timeout: Duration, tell: &mut dyn FnMut(News)) -> Result<(), Error> {
        if self.gone {
            return Err(Error::Gone(self.root.path().to_owned()));
        }
        let fds = [(self.group.as_fd(), PollFlags::IN), (self.mounts.fd(), Mounts::CHANGED)];
        self.waker.wait(&fds, if self.search.is_under_way() { Duration::ZERO } else { timeout })?;
        for _ in 0..READS {
            let before = Instant::now();
            let read = self.read_once(tell)?;
            if self.root.is_removed() {
                self.gone = true;
                tell(News::Lost("the source directory was removed".to_owned()));
                break;
            }
            if read.is_none() {
                self.told.pause();
                self.objects.pause();
                if self.owed.is_due(before) {
                    self.search.forget();
                    tell(News::Lost("a file was changed by nobody knows which name".to_owned()));
                }
                if !self.owed.is() && !self.search.is_due() {
                    tell(News::UpTo(before));
                }
                break;
            }
        }
        self.look_for_names(tell);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}
