//! One walk: the source and the index of the walk before are compared as two streams, and a new index is written.

use super::index::{Entry, Head, Place, Reader, Writer, next_dir};
use super::names::Sorter;
use crate::beneath::{Root, entries};
use crate::{Excluded, Hint, News, What};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Statx, StatxFlags, statx};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Acquire};
use std::time::{Duration, Instant, SystemTime};
use treeferry_core::path::RelPath;
use xxhash_rust::xxh3::xxh3_64;

/// Names that are asked about together.
const BATCH: usize = 512;
/// Threads that ask, where each answer takes longer than [`SLOW`].
const THREADS: usize = 8;
/// An answer that has to come from elsewhere.
const SLOW: Duration = Duration::from_micros(150);
/// What has changed as lately as this may change again within the same tick of the clock that gives it its times: so it is
/// told once more. An hour, for that clock is the file server's.
const LATELY: Duration = Duration::from_secs(3600);
/// The ticks of such clocks are shorter.
const TICK: Duration = Duration::from_secs(2);

/// Why a walk has not come to its end.
#[derive(Debug)]
pub enum Ended {
    /// It is to stop.
    Stopped,
    /// The source is gone, or is another directory.
    Gone,
    /// The index cannot be written, or that of the walk before cannot be read.
    Index(io::Error),
}

impl From<io::Error> for Ended {
    fn from(e: io::Error) -> Ended {
        Ended::Index(e)
    }
}

/// What stays the same from walk to walk.
pub struct Walker {
    /// The source.
    pub root: Root,
    /// What is left out.
    pub excluded: Excluded,
    /// Bytes of names that are sorted in memory.
    pub run_bytes: usize,
    /// Directories that could not be read, and have been named.
    pub named: HashSet<Vec<u8>>,
    /// How long an answer of the file system takes.
    pub pace: Duration,
}

/// A directory whose subdirectories are being walked.
struct Level {
    /// Bytes of its path.
    length: usize,
    /// `None`: there are none.
    place: Option<Place>,
    /// It is told as a whole when all below has been seen.
    after: bool,
    /// It is below such a one, or is one: nothing in it is told by itself.
    inside: bool,
}

/// One walk.
pub struct Walk<'a> {
    /// Who walks.
    pub by: &'a mut Walker,
    /// The walk before.
    pub old: Option<Reader>,
    /// This one.
    pub new: Writer,
    /// Makes an empty file without a name.
    pub make: &'a dyn Fn() -> io::Result<File>,
    /// Told what differs; `false`: it is to stop.
    pub tell: &'a mut dyn FnMut(News) -> bool,
    /// It is to stop.
    pub stop: &'a AtomicBool,
    /// There is nothing to compare with: it is only taken down what there is.
    pub first: bool,
}

fn digest(parts: &[u64]) -> u64 {
    let mut bytes = [0u8; 96];
    for (to, n) in bytes.chunks_exact_mut(8).zip(parts) {
        to.copy_from_slice(&n.to_le_bytes());
    }
    xxh3_64(&bytes)
}

fn kind_of(m: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(m.stx_mode))
}

fn ctime(m: &Statx) -> u64 {
    (m.stx_ctime.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(u64::from(m.stx_ctime.tv_nsec))
}

/// Of an entry: what makes it what it is, and its other attributes. Of a directory what makes it that is its identity: what
/// is in it is compared by itself.
fn digests(m: &Statx) -> (u64, u64) {
    let kind = u64::from(m.stx_mode) & 0o170_000;
    let mtime =
        (m.stx_mtime.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(u64::from(m.stx_mtime.tv_nsec));
    let owner = u64::from(m.stx_uid) << 32 | u64::from(m.stx_gid);
    let rdev = u64::from(m.stx_rdev_major) << 32 | u64::from(m.stx_rdev_minor);
    let mode = u64::from(m.stx_mode);
    match kind_of(m) {
        FileType::Directory => {
            let dev = u64::from(m.stx_dev_major) << 32 | u64::from(m.stx_dev_minor);
            let is_mount = m.stx_attributes.bits() & rustix::fs::StatxAttributes::MOUNT_ROOT.bits();
            // the number of a device may be another after a boot: it counts only where one begins
            let dev = if is_mount != 0 { dev } else { 0 };
            (digest(&[kind, m.stx_ino, dev]), digest(&[mode, owner, mtime, ctime(m)]))
        }
        _ => (
            digest(&[kind, m.stx_ino, m.stx_size, mtime, rdev]),
            digest(&[mode, owner, u64::from(m.stx_nlink), ctime(m)]),
        ),
    }
}

fn ask(dir: BorrowedFd<'_>, name: &CStr) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    loop {
        match statx(dir, name, flags, StatxFlags::BASIC_STATS) {
            Err(Errno::INTR) => continue,
            r => return r,
        }
    }
}

impl Walk<'_> {
    /// Walks all of it.
    pub fn run(mut self) -> Result<File, Ended> {
        let mut path: Vec<u8> = Vec::new();
        let mut levels: Vec<Level> = Vec::new();
        let fd = self.by.root.place(b"").map_err(|_| Ended::Gone)?;
        levels.push(self.enter(&path, fd, true)?.ok_or(Ended::Gone)?);
        while let Some(level) = levels.last_mut() {
            path.truncate(level.length);
            let next = level.place.as_mut().map(|p| next_dir(self.new.file(), p)).transpose()?.flatten();
            match next {
                None => {
                    let after = level.after;
                    levels.pop();
                    if after {
                        self.hint(&path, What::Tree)?;
                    }
                }
                Some(sub) => {
                    let known = !level.inside;
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(&sub.name);
                    levels.extend(self.go_down(&path, &sub, known)?);
                }
            }
        }
        self.old = None;
        Ok(self.new.end()?)
    }

    /// Begins a directory. `known`: nothing above it is to be looked at as a whole.
    fn go_down(&mut self, path: &[u8], sub: &Entry, known: bool) -> Result<Option<Level>, Ended> {
        let opened = self.by.root.place(path).and_then(|fd| Ok((ask(fd.as_fd(), c".")?, fd)));
        match opened {
            // it must be what was seen in the directory that it is in
            Ok((m, fd)) if digests(&m).0 == sub.content => {
                let level = self.enter(path, fd, known)?;
                if level.is_some() {
                    self.by.named.remove(path);
                }
                Ok(level)
            }
            // it was renamed, or is gone: the next walk sees what is there then, for of this one nothing is noted below
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::STALE) => {
                self.hint(path, What::Tree)?;
                Ok(None)
            }
            Err(e) => self.unreadable(path, e).map(|()| None),
        }
    }

    fn unreadable(&mut self, path: &[u8], e: Errno) -> Result<(), Ended> {
        if self.by.named.insert(path.to_vec()) {
            let shown = treeferry_core::escape::bytes(path);
            tracing::warn!("{shown}: cannot be read, so what changes there is not seen: {e}");
        }
        // whoever looks names it
        self.hint(path, What::Tree)
    }

    fn hint(&mut self, path: &[u8], what: What) -> Result<(), Ended> {
        if self.first {
            return Ok(());
        }
        // names come from the kernel, so there is nothing in them that a path must not have
        let Ok(path) = RelPath::new(path) else { return Ok(()) };
        if (self.tell)(News::Hint(Hint { path, what })) { Ok(()) } else { Err(Ended::Stopped) }
    }

    fn go_on(&mut self) -> Result<(), Ended> {
        if self.stop.load(Acquire) { Err(Ended::Stopped) } else { Ok(()) }
    }

    /// Compares the entries of a directory. `None`: it cannot be listed. `known`: what differs is told; else all of it is
    /// going to be looked at.
    fn enter(&mut self, path: &[u8], fd: OwnedFd, known: bool) -> Result<Option<Level>, Ended> {
        self.go_on()?;
        let rel = RelPath::new(path).map_err(|_| Ended::Gone)?;
        let mut sorter = Sorter::new(self.by.run_bytes, self.make);
        let mut failed = None;
        let listed = entries(fd.as_fd(), |name, _, kind| {
            let left_out =
                kind != FileType::Unknown && (self.by.excluded)(&rel, name, kind == FileType::Directory);
            if !left_out {
                failed = sorter.add(name.to_bytes()).err();
            }
            failed.is_none()
        });
        if let Some(e) = failed {
            return Err(e.into());
        }
        if let Err(e) = listed {
            return self.unreadable(path, e).map(|()| None);
        }
        let mut names = sorter.sorted()?;
        let found = self.old.as_mut().map(|o| o.seek(path)).transpose()?.unwrap_or(false);
        // a directory that is new, or was not seen the last time
        let after = known && !found;
        let tells = known && found;
        let at = self.new.dir(path)?;
        let mut old = if found { self.old_entry()? } else { None };
        let mut subdirs = false;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        loop {
            let mut some: Vec<CString> = Vec::with_capacity(BATCH);
            while some.len() < BATCH {
                let Some(n) = names.next()? else { break };
                some.extend(CString::new(n));
            }
            if some.is_empty() {
                break;
            }
            let answers = self.ask_all(fd.as_fd(), &some);
            for (name, answer) in some.iter().zip(answers) {
                let bytes = name.to_bytes();
                let m = match answer {
                    Ok(m) => m,
                    Err(Errno::NOENT) => continue,
                    Err(e) => {
                        // not noted: it is new to the next walk
                        self.unreadable(&join(path, bytes), e)?;
                        continue;
                    }
                };
                let dir = kind_of(&m) == FileType::Directory;
                if (self.by.excluded)(&rel, name, dir) {
                    continue;
                }
                while old.as_ref().is_some_and(|o| o.name.as_slice() < bytes) {
                    self.gone(path, old.take(), tells)?;
                    old = self.old_entry()?;
                }
                let before = old.take_if(|o| o.name == bytes);
                if before.is_some() {
                    old = self.old_entry()?;
                }
                let (content, attributes) = digests(&m);
                let mut e = Entry { name: bytes.to_vec(), dir, fresh: 0, content, attributes };
                let same =
                    before.as_ref().is_some_and(|b| (b.content, b.attributes) == (content, attributes));
                let us = now.as_micros() as u64;
                e.fresh = match &before {
                    // a whole tick later it is still the same: whatever happened in that tick is told now
                    Some(b) if same => still_fresh(b.fresh, us),
                    _ => fresh(&m, us),
                };
                subdirs |= dir;
                if tells {
                    self.compare(path, &e, before.as_ref())?;
                }
                self.new.entry(&e)?;
            }
            self.go_on()?;
        }
        while old.is_some() {
            self.gone(path, old.take(), tells)?;
            old = self.old_entry()?;
        }
        self.new.end_dir()?;
        if subdirs {
            self.new.settle()?;
        }
        let place = subdirs.then(|| Place { at, name: Vec::new() });
        Ok(Some(Level { length: path.len(), place, after, inside: after || !known }))
    }

    fn old_entry(&mut self) -> Result<Option<Entry>, Ended> {
        Ok(self.old.as_mut().map(Reader::entry).transpose()?.flatten())
    }

    fn gone(&mut self, path: &[u8], old: Option<Entry>, tells: bool) -> Result<(), Ended> {
        let Some(old) = old.filter(|_| tells) else { return Ok(()) };
        let what = if old.dir { What::Tree } else { What::Changed };
        self.hint(&join(path, &old.name), what)
    }

    fn compare(&mut self, dir: &[u8], now: &Entry, before: Option<&Entry>) -> Result<(), Ended> {
        let what = match before {
            // of a directory that is new nothing is told before all below has been seen: whoever looks comes later
            None if now.dir => return Ok(()),
            None => What::Changed,
            Some(b) if b.dir != now.dir || b.content != now.content => {
                // a directory in the place of something else, which must go first
                if now.dir { What::Tree } else { What::Changed }
            }
            Some(b) if b.attributes != now.attributes || b.fresh > 0 => match now.dir {
                // whoever looks after us sees names that come and go before the next walk
                true => What::Names,
                // its times may tell nothing of what was written in the same tick
                false if b.fresh > 0 => What::Changed,
                false => What::Attributes,
            },
            Some(_) => return Ok(()),
        };
        self.hint(&join(dir, &now.name), what)
    }

    fn ask_all(&mut self, dir: BorrowedFd<'_>, names: &[CString]) -> Vec<Result<Statx, Errno>> {
        let began = Instant::now();
        let one = |some: &[CString]| some.iter().map(|n| ask(dir, n)).collect::<Vec<_>>();
        let threads = if self.by.pace > SLOW { names.len().min(THREADS) } else { 1 };
        let answers: Vec<_> = if threads > 1 {
            let parts = names.chunks(names.len().div_ceil(threads));
            std::thread::scope(|s| {
                let all: Vec<_> = parts.map(|p| s.spawn(move || one(p))).collect();
                let joined = all.into_iter().map(|t| t.join().unwrap_or_default());
                joined.flatten().collect()
            })
        } else {
            one(names)
        };
        let each = began.elapsed() * threads as u32 / names.len().max(1) as u32;
        self.by.pace = (self.by.pace * 7 + each) / 8;
        answers
    }
}

fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match dir {
        [] => name.to_vec(),
        dir => [dir, b"/", name].concat(),
    }
}

/// What the index says of the source itself; `None`: it is gone.
pub fn head(root: &Root, tag: u64) -> Option<Head> {
    let m = ask(root.fd(), c".").ok().filter(|_| !root.is_removed())?;
    let began =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
    Some(Head { root: m.stx_ino, tag, began, attributes: digests(&m).1, fresh: fresh(&m, began) })
}

/// Since when something is fresh that has changed; 0: it is not.
fn fresh(m: &Statx, now_us: u64) -> u64 {
    let lately = Duration::from_nanos(ctime(m)) + LATELY > Duration::from_micros(now_us);
    if lately { now_us } else { 0 }
}

/// The same of something that is as it was.
pub fn still_fresh(since_us: u64, now_us: u64) -> u64 {
    // a whole tick later it is still the same: whatever happened in that tick is told now
    if now_us.saturating_sub(since_us) > TICK.as_micros() as u64 { 0 } else { since_us }
}
