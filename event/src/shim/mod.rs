//! What programs tell themselves: those into which the library `libtreeferry_shim.so` is loaded put what they change into
//! a ring in shared memory ([`treeferry_ring`]). Needs no privilege.

mod file;
mod found;
mod held;
mod hub;
mod promise;
mod rest;
#[cfg(test)]
mod tests;

pub use file::default_ring;
pub use rest::Rest;

use crate::aside::Aside;
use crate::batch::Batch;
use crate::beneath::{Root, path_of};
use crate::error::{Call, Error};
use crate::mounts::{Mounts, relative};
use crate::{Detector, Excluded, News, Waker, What};
use held::{Held, Name, Rename, is_gone};
use hub::{Current, Hub};
use promise::Promise;
use rustix::event::PollFlags;
use rustix::fd::AsFd;
use std::collections::{HashMap, VecDeque};
use std::ffi::CString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use treeferry_core::path::RelPath;
use treeferry_ring::{Buffer, Cursor, Figures, Kind, Next, Record};

/// After so many records the caller has its turn, even if there are more.
const RECORDS: usize = 1 << 14;
/// How often it is looked after what says nothing by itself: the name of the ring, open files, mounts.
const TICK: Duration = Duration::from_secs(1);
/// How long to wait for a record that is being written.
const SOON: Duration = Duration::from_millis(1);
/// A program finds out where something is, and says so a moment later. If a directory above it was renamed in between,
/// what it says comes after the rename. So for this long after a rename what is told under the old name is told under
/// the new one too.
const ECHO: Duration = Duration::from_secs(2);
/// Most renames that are remembered for that.
const ECHOES: usize = 64;
/// Most open files that are remembered.
const MOST_HELD: usize = 1 << 20;
/// Directories of which it is remembered whether they are excluded.
const REMEMBERED: usize = 4096;

/// Detects what programs tell themselves.
///
/// Limits: programs that do not load the library, because they are static or change the user (setuid), and what is done
/// by other system calls than those of the C library's functions (raw ones, io_uring, mappings), are not seen. A file
/// that is open for writing is looked at once a second; it is finished when it is closed, or its process is gone.
pub struct Shim {
    root: Root,
    top: Vec<u8>,
    device: u64,
    mounts: Mounts,
    excluded: Excluded,
    known: HashMap<RelPath, bool>,
    aside: Aside,
    hub: Arc<Hub>,
    id: u64,
    current: Current,
    cursor: Cursor,
    told: Figures,
    buffer: Buffer,
    batch: Batch,
    held: Held,
    moves: VecDeque<(Instant, RelPath, RelPath)>,
    waker: Waker,
    began: Instant,
    ticked: Instant,
    more: bool,
    pending: bool,
    gone: bool,
    /// Files that were closed, and nobody knew that they were open.
    unknown: u64,
    /// Changes of what paths lead to, when they were last looked at ([`treeferry_ring::Ring::settle_changes`]).
    changes: (u64, u64),
    promise: Promise,
    goes_on: bool,
}

/// Reads the ring at a path, which is made if there is none. When this returns, no change will be missed that a program
/// with the library makes below `root`. If a reader was there before, what was told since it ended comes first; `rest` is
/// what that one has said of where it stopped ([`Detector::rest`]).
pub fn shim(ring: &Path, root: &Path, excluded: Excluded, rest: Option<&Rest>) -> Result<Shim, Error> {
    let root = Root::open(root)?;
    let mounts = Mounts::new(&root)?;
    let top = path_of(root.fd()).call("readlink")?;
    let device = device(&root, &mounts)?;
    let hub = Hub::of(ring)?;
    let waker = Waker::new()?;
    let mut held = Held::new()?;
    let goes_on = |generation, reader| {
        rest.filter(|r| r.is_still_true(&top, &mounts, generation, reader)).map(|r| r.at)
    };
    let place = hub.join(top.clone(), device, waker.clone(), goes_on)?;
    held.find(&top)?;
    let now = Instant::now();
    let current = hub.current();
    let mut promise = Promise::default();
    if let Some(ring) = current.file.ring().filter(|_| place.goes_on) {
        promise.inherit(&ring);
    }
    let mut shim = Shim {
        root,
        top,
        device,
        mounts,
        excluded,
        known: HashMap::new(),
        aside: Aside::default(),
        hub,
        id: place.id,
        current,
        cursor: Cursor::new(place.at),
        told: place.told,
        buffer: Buffer::default(),
        batch: Batch::default(),
        held,
        moves: VecDeque::new(),
        waker,
        began: now,
        ticked: now,
        more: true,
        pending: false,
        gone: false,
        unknown: 0,
        changes: (0, 0),
        promise,
        goes_on: place.goes_on,
    };
    if let Some(rest) = rest.filter(|_| place.goes_on) {
        // whoever had them open may be gone without a word
        for (path, cut) in &rest.open {
            shim.hint(path.clone(), if *cut { What::Tree } else { What::Changed });
        }
    }
    Ok(shim)
}

/// The device of all that is below a directory; 0: it may be on several.
fn device(root: &Root, mounts: &Mounts) -> Result<u64, Error> {
    /// File systems of which every file has the device of the root (`f_type`, statfs(2)): ext2 to ext4, XFS, tmpfs,
    /// Lustre, GPFS, NFS. Others are not trusted to: overlayfs and btrfs do not.
    const ONE_DEVICE: [u64; 6] = [0xef53, 0x5846_5342, 0x0102_1994, 0x0bd0_0bd0, 0x4750_4653, 0x6969];
    let kind = rustix::fs::fstatfs(root.fd()).call("fstatfs")?.f_type as u64;
    if !ONE_DEVICE.contains(&kind) || !mounts.points().is_empty() {
        return Ok(0);
    }
    Ok(rustix::fs::fstat(root.fd()).call("fstat")?.st_dev)
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.hub.leave(self.id);
    }
}

impl Shim {
    /// Whether it began where the last reader stopped, and tells everything that has changed since.
    pub fn goes_on(&self) -> bool {
        self.goes_on
    }

    /// What says nothing by itself.
    fn tick(&mut self, tell: &mut dyn FnMut(News)) -> Result<(), Error> {
        self.ticked = Instant::now();
        self.hub.check()?;
        if let Some(ring) = self.current.file.ring() {
            self.changes = ring.settle_changes(self.changes);
        }
        match path_of(self.root.fd()) {
            Ok(top) if top == self.top => {}
            Ok(top) => {
                self.top = top;
                self.hub.change(self.id, self.top.clone(), self.device)?;
                self.lost("the source directory was renamed".to_owned(), tell)?;
            }
            Err(_) if self.root.is_removed() => {
                self.gone = true;
                tell(News::Lost("the source directory was removed or unmounted".to_owned()));
            }
            Err(errno) => return Err(errno).call("readlink"),
        }
        let (top, mut changed) = (self.top.clone(), Vec::new());
        self.held.look(&mut |path| changed.extend(relative(path, &top)));
        changed.into_iter().for_each(|path| self.hint(path, What::Open));
        Ok(())
    }

    fn mounted(&mut self) -> Result<(), Error> {
        let points = self.mounts.changes(&self.root)?;
        if points.is_empty() {
            return Ok(());
        }
        points.into_iter().for_each(|point| self.hint(point, What::Tree));
        self.device = device(&self.root, &self.mounts)?;
        self.hub.change(self.id, self.top.clone(), self.device)
    }

    /// Changes were missed, and with them perhaps what open files are called now. So programs tell that anew, and files that are open
    /// are looked for; what was closed before this is found by whoever looks at everything.
    fn lost(&mut self, why: String, tell: &mut dyn FnMut(News)) -> Result<(), Error> {
        tell(News::Lost(why));
        if let Some(ring) = self.current.file.ring() {
            ring.begin_session();
        }
        self.held.find(&self.top)
    }

    /// Takes the ring that is current, and says what went missing with it and before.
    fn follow(&mut self, tell: &mut dyn FnMut(News)) -> Result<(), Error> {
        let now = self.hub.current();
        if now.number != self.current.number {
            let place = now.file.ring().map_or((0, Figures::default()), |r| (r.tail(), r.figures_told()));
            (self.cursor, self.told) = (Cursor::new(place.0), place.1);
            self.current = now;
        }
        let figures = self.current.file.ring().map(|r| r.figures()).unwrap_or_default();
        let mut why = self.current.lost.take();
        // a count that goes back is nonsense, and something happened in any case
        if figures.lost != self.told.lost {
            let n = figures.lost.wrapping_sub(self.told.lost);
            why = Some(format!("the ring was full, and {n} changes were not told"));
        }
        if figures.unnamed != self.told.unnamed {
            let n = figures.unnamed.wrapping_sub(self.told.unnamed);
            why = Some(format!(
                "of {n} changes programs could not find out the path, or did not live to tell it"
            ));
        }
        self.told = figures;
        why.map_or(Ok(()), |why| self.lost(why, tell))
    }

    /// Reads records. Whether all that there were have been read.
    fn drain(&mut self, tell: &mut dyn FnMut(News)) -> Result<bool, Error> {
        let file = Arc::clone(&self.current.file);
        let Some(ring) = file.ring() else { return Ok(true) };
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut skipped = 0_u64;
        let mut end = false;
        (self.more, self.pending) = (true, false);
        for _ in 0..RECORDS {
            match self.cursor.next(&ring, &mut buffer, self.began.elapsed(), &is_gone) {
                Next::Record(record) => self.take(&record),
                Next::Skipped => skipped += 1,
                Next::Waiting => {
                    (self.more, self.pending) = (false, true);
                    break;
                }
                Next::Nothing => {
                    (self.more, end) = (false, true);
                    break;
                }
            }
        }
        self.buffer = buffer;
        if skipped > 0 {
            let why = "records of the ring are no records: a program ended in the midst, or wrote nonsense";
            self.lost(format!("{skipped} {why}"), tell)?;
        }
        if self.unknown > 0 {
            let n = std::mem::take(&mut self.unknown);
            self.lost(format!("{n} files were closed of which it was not known where they are"), tell)?;
        }
        if self.held.len() > MOST_HELD {
            self.held = Held::new()?;
            ring.begin_session();
            tell(News::Lost("too many files are open for writing".to_owned()));
        }
        Ok(end)
    }

    fn take(&mut self, record: &Record<'_>) {
        let pid = record.pid;
        let what = match record.kind {
            Kind::Moved | Kind::MovedDir => return self.renamed(record),
            Kind::Forked => return self.held.forked(pid, record.id as u32),
            Kind::Open => {
                self.held.open(pid, id(record), record.path, record.cut);
                What::Open
            }
            Kind::Left if !self.held.has(pid, id(record)) => What::Open,
            Kind::Left | Kind::Closed | Kind::Changed => What::Changed,
            Kind::Attributes => What::Attributes,
            Kind::Tree => What::Tree,
        };
        if record.path.is_empty() {
            self.known(record, &what);
        } else if let Some(path) = relative(record.path, &self.top) {
            self.hint(path, if record.cut { What::Tree } else { what });
        }
        if record.kind == Kind::Closed {
            self.held.closed(pid, id(record));
        }
    }

    /// Says something of a file by the names under which it is known to be open.
    fn known(&mut self, record: &Record<'_>, what: &What) {
        let Some(names) = self.held.names(record.pid, id(record)) else {
            self.unknown += 1;
            return;
        };
        let of = |n: &Name| {
            let what = if n.cut { What::Tree } else { what.clone() };
            relative(&n.path, &self.top).map(|path| (path, what))
        };
        let hints: Vec<(RelPath, What)> = names.iter().filter_map(of).collect();
        hints.into_iter().for_each(|(path, what)| self.hint(path, what));
    }

    fn renamed(&mut self, record: &Record<'_>) {
        let (from, to) = (relative(record.other, &self.top), relative(record.path, &self.top));
        let dir = record.kind == Kind::MovedDir;
        self.held.moved(Rename {
            from: record.other.to_owned(),
            to: record.path.to_owned(),
            cut: record.cut,
            is_dir: dir,
            id: record.id,
        });
        let excludes =
            |shim: &mut Shim, path: &RelPath| shim.excludes(path, &What::Moved { from: path.clone(), dir });
        let mut told = |path: &RelPath| {
            let excluded = excludes(self, path);
            if excluded {
                self.tell_beside(path, What::Changed);
            }
            !excluded
        };
        let from = from.filter(&mut told);
        let to = to.filter(&mut told);
        match (from, to) {
            (Some(from), Some(to)) if !record.cut && !from.is_root() && !to.is_root() => {
                if dir {
                    if self.moves.len() >= ECHOES {
                        self.moves.pop_front();
                    }
                    self.moves.push_back((Instant::now(), from.clone(), to.clone()));
                }
                self.batch.add(to, What::Moved { from, dir });
            }
            // across the border: what is there now, and what is below it
            (from, to) => {
                from.into_iter().for_each(|p| self.batch.add(p, What::Tree));
                to.into_iter().for_each(|p| self.batch.add(p, What::Tree));
            }
        }
    }

    /// Says something of a path, and of what the path has become lately.
    fn hint(&mut self, path: RelPath, what: What) {
        let mut name = path.clone();
        let now = Instant::now();
        while self.moves.front().is_some_and(|(at, ..)| now.saturating_duration_since(*at) > ECHO) {
            self.moves.pop_front();
        }
        let mut more = Vec::new();
        for (_, from, to) in &self.moves {
            if let Some(new) = below(&name, from, to) {
                more.push(new.clone());
                name = new;
            }
        }
        for path in std::iter::once(path).chain(more) {
            if !self.excludes(&path, &what) {
                self.batch.add(path, what.clone());
            } else {
                self.tell_beside(&path, what.clone());
            }
        }
    }

    /// Something happened to an excluded name, which may have come or gone, and that changes the time of its directory. It is told
    /// itself if its file may have others.
    fn tell_beside(&mut self, path: &RelPath, what: What) {
        let Some((dir, name)) = path.split().filter(|(dir, _)| !self.excludes_below(dir)) else { return };
        let at = self.root.place(dir.as_bytes()).ok();
        self.batch.add(dir, What::Attributes);
        if CString::new(name).is_ok_and(|n| self.aside.is_told(at.as_ref().map(AsFd::as_fd), path, &n)) {
            self.batch.add(path.clone(), what);
        }
    }

    /// Whether nobody wants to hear of a path. What it is is not always known; then it is not excluded if it may be
    /// something that is not.
    fn excludes(&mut self, path: &RelPath, what: &What) -> bool {
        let Some((dir, name)) = path.split() else { return false };
        if self.excludes_below(&dir) {
            return true;
        }
        let Ok(name) = CString::new(name) else { return false };
        let excluded = |is_dir| (self.excluded)(&dir, &name, is_dir);
        match what {
            What::Changed | What::Open => excluded(false),
            What::Moved { dir, .. } => excluded(*dir),
            What::Attributes | What::Names | What::Tree => excluded(false) && excluded(true),
        }
    }

    /// Whether a directory, or one above it, is excluded.
    fn excludes_below(&mut self, dir: &RelPath) -> bool {
        let Some((parent, name)) = dir.split() else { return false };
        if let Some(known) = self.known.get(dir) {
            return *known;
        }
        let is = self.excludes_below(&parent)
            || CString::new(name).is_ok_and(|name| (self.excluded)(&parent, &name, true));
        if self.known.len() >= REMEMBERED {
            self.known.clear();
        }
        self.known.insert(dir.clone(), is);
        is
    }
}

/// Which file a record speaks of. One that does not say it speaks of a path.
fn id(record: &Record<'_>) -> u64 {
    if record.id != 0 {
        return record.id;
    }
    let mut sum = DefaultHasher::new();
    record.path.hash(&mut sum);
    sum.finish()
}

/// What a path below `from` has become when that was renamed.
fn below(path: &RelPath, from: &RelPath, to: &RelPath) -> Option<RelPath> {
    if !from.covers(path) {
        return None;
    }
    RelPath::new([to.as_bytes(), path.as_bytes().get(from.as_bytes().len()..)?].concat()).ok()
}

impl Detector for Shim {
    fn name(&self) -> &'static str {
        "shim"
    }

    fn read(&mut self, timeout: Duration, tell: &mut dyn FnMut(News)) -> Result<(), Error> {
        if self.gone {
            return Err(Error::Gone(self.root.path().to_owned()));
        }
        if !self.more {
            let timeout = if self.pending { timeout.min(SOON) } else { timeout };
            let fds = [(self.held.fd(), PollFlags::IN), (self.mounts.fd(), Mounts::CHANGED)];
            self.waker.wait(&fds, timeout)?;
        }
        if self.ticked.elapsed() >= TICK {
            self.tick(tell)?;
        }
        self.mounted()?;
        let ring = Arc::clone(&self.current.file);
        let moment = ring.ring().and_then(|ring| self.promise.moment(&ring, Instant::now(), &is_gone));
        self.follow(tell)?;
        let end = self.drain(tell)?;
        // who is at something is looked after soon
        self.pending |= moment.is_none();
        let (top, mut gone) = (self.top.clone(), Vec::new());
        self.held.settle(&mut |path, cut| gone.extend(relative(path, &top).map(|p| (p, cut))))?;
        for (path, cut) in gone {
            self.hint(path, if cut { What::Tree } else { What::Changed });
        }
        self.batch.tell(tell);
        // what went missing while this was read
        self.follow(tell)?;
        self.hub.handed_over(self.id, self.current.number, self.cursor.at(), self.told);
        if let Some(moment) = moment.filter(|_| end) {
            self.promise.is_told();
            tell(News::UpTo(moment));
        }
        Ok(())
    }

    fn rest(&mut self, tell: &mut dyn FnMut(News)) -> Result<Option<Rest>, Error> {
        self.stop_here(tell)
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}
