//! A ring has one reader, and a process may watch several directories: this is what their detectors share. Each goes
//! through the ring by itself; what all of them have handed over is free again.

use super::file::{Came, File, namespace};
use crate::sys::{futex_wait, futex_wake};
use crate::{Error, Waker};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use treeferry_ring::{Figures, Root};

/// After somebody was woken, nobody is for so long: a burst of records costs a wake-up now and then, and not each.
const PAUSE: Duration = Duration::from_micros(500);
/// How long the thread sleeps at most. Nothing depends on it.
const SLEEP: Duration = Duration::from_secs(60);

/// How long directories that a ring is found with are kept for their detectors.
const KEPT: Duration = Duration::from_secs(30);

/// After a ring was made so much goes by before what is told counts. Programs that have found none, or have another one that
/// was removed, look again after 50 ms by a clock that goes in steps of at most 10 (shim/src/shared.rs).
const SETTLES: Duration = Duration::from_millis(100);

static HUBS: Mutex<Vec<(PathBuf, Weak<Hub>)>> = Mutex::new(Vec::new());

/// A detector that reads the ring.
struct Reader {
    id: u64,
    root: Vec<u8>,
    device: u64,
    /// What it has handed over.
    done: u64,
    told: Figures,
    waker: Waker,
    /// It has stopped, and another process goes on there: what was told since is for that one.
    rests: bool,
}

/// What a ring is found with: its directories stay in the table, and what was told since nobody reads stays in the
/// ring, until their detectors have begun, one after the other, or [`KEPT`] is over.
struct Found {
    /// Who has read it before.
    reader: u64,
    at: u64,
    told: Figures,
    roots: Vec<(Vec<u8>, u64)>,
    since: Instant,
}

/// The ring at a path as it is now.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) file: Arc<File>,
    /// Counts up when another file takes its place.
    pub(crate) number: u64,
    /// Why changes were missed when this one came.
    pub(crate) lost: Option<String>,
}

struct State {
    current: Current,
    found: Option<Found>,
    readers: Vec<Reader>,
    next: u64,
}

struct Inner {
    state: Mutex<State>,
    over: AtomicBool,
}

/// What the detectors of one ring share.
pub(crate) struct Hub {
    inner: Arc<Inner>,
    thread: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// That of a path: there is one in a process.
    pub(crate) fn of(path: &Path) -> Result<Arc<Hub>, Error> {
        let failed = |e: std::io::Error| Error::Ring { path: path.to_owned(), why: e.to_string() };
        let path = std::path::absolute(path).map_err(failed)?;
        let mut hubs = lock(&HUBS);
        hubs.retain(|(_, hub)| hub.strong_count() > 0);
        if let Some(hub) = hubs.iter().find(|(p, _)| *p == path).and_then(|(_, hub)| hub.upgrade()) {
            return Ok(hub);
        }
        let (current, found) = open(&path, 0)?;
        let state = Mutex::new(State { current, found, readers: Vec::new(), next: 0 });
        let inner = Arc::new(Inner { state, over: AtomicBool::new(false) });
        let shared = Arc::clone(&inner);
        let thread = std::thread::Builder::new().name("tf-ring".to_owned()).spawn(move || pump(&shared));
        let hub = Arc::new(Hub { inner, thread: Some(thread.map_err(failed)?) });
        hubs.push((path, Arc::downgrade(&hub)));
        Ok(hub)
    }

    /// The ring.
    pub(crate) fn current(&self) -> Current {
        lock(&self.inner.state).current.clone()
    }

    /// Adds a detector of a directory: its number, where it begins, and what was told before. `goes_on` is asked, by the
    /// number of the ring and of who has read it last, up to where that one has read it, if it was the last detector of
    /// this directory; not if the directory was not in the table all the time.
    pub(crate) fn join(
        &self,
        root: Vec<u8>,
        device: u64,
        waker: Waker,
        goes_on: impl FnOnce(u64, u64) -> Option<u64>,
    ) -> Result<Place, Error> {
        let mut state = lock(&self.inner.state);
        let (done, told) = match &state.found {
            Some(found) => (found.at, found.told),
            None => beginning(&state.current),
        };
        let generation = state.current.file.ring().map(|ring| ring.generation());
        let before = state.found.as_ref().filter(|f| f.roots.iter().any(|(path, _)| *path == root));
        let from = generation.zip(before).and_then(|(generation, f)| goes_on(generation, f.reader));
        // a position that is not there is none
        let head = state.current.file.ring().map_or(done, |ring| ring.head());
        let from = from.filter(|at| at.wrapping_sub(done) <= head.wrapping_sub(done));
        let done = from.unwrap_or(done);
        let id = state.next;
        state.next += 1;
        state.readers.push(Reader { id, root, device, done, told, waker, rests: false });
        state.set_roots().inspect_err(|_| state.readers.retain(|r| r.id != id))?;
        Ok(Place { id, at: done, told, goes_on: from.is_some() })
    }

    /// The directory of a detector is somewhere else, or not on one device any more.
    pub(crate) fn change(&self, id: u64, root: Vec<u8>, device: u64) -> Result<(), Error> {
        let mut state = lock(&self.inner.state);
        if let Some(r) = state.readers.iter_mut().find(|r| r.id == id) {
            (r.root, r.device) = (root, device);
        }
        state.set_roots()
    }

    /// A detector has handed over all before a position of this ring.
    pub(crate) fn handed_over(&self, id: u64, number: u64, at: u64, told: Figures) {
        let mut state = lock(&self.inner.state);
        if state.current.number != number {
            return;
        }
        if let Some(r) = state.readers.iter_mut().find(|r| r.id == id) {
            (r.done, r.told) = (at, told);
        }
        state.forget_found(Instant::now());
        state.free();
    }

    /// Sees to it that there is a ring under its name: programs that begin look for it there.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let mut state = lock(&self.inner.state);
        if state.current.file.is_there() {
            return Ok(());
        }
        let old = state.current.clone();
        let (mut new, _) = open(old.file.path(), old.number + 1)?;
        // what was told of them is gone with it
        state.found = None;
        new.lost.get_or_insert_with(|| format!("{} was removed", old.file.path().display()));
        state.current = new;
        let (done, told) = beginning(&state.current);
        state.readers.iter_mut().for_each(|r| (r.done, r.told) = (done, told));
        state.set_roots()?;
        if let Some(ring) = old.file.ring() {
            ring.replace();
            ring.wake_up();
            futex_wake(ring.sleeper());
        }
        state.readers.iter().for_each(|r| r.waker.wake());
        Ok(())
    }

    /// A detector has stopped where another process will go on, if this is the ring: what is told from now on is for that.
    pub(crate) fn rests(&self, id: u64, number: u64) -> bool {
        let mut state = lock(&self.inner.state);
        let is_current = state.current.number == number;
        let reader = state.readers.iter_mut().find(|r| r.id == id && is_current);
        reader.map(|r| r.rests = true).is_some()
    }

    /// A detector ends. Its directory stays in the table if it [rests](Hub::rests), and while nobody else reads the ring:
    /// what programs tell meanwhile is for whoever comes next.
    pub(crate) fn leave(&self, id: u64) {
        let mut state = lock(&self.inner.state);
        let rests = state.readers.iter().any(|r| r.id == id && r.rests);
        if !rests && state.readers.iter().any(|r| r.id != id && !r.rests) {
            state.readers.retain(|r| r.id != id);
            // fewer directories than were taken before
            let _ = state.set_roots();
            state.free();
        }
    }
}

/// Where a detector begins.
pub(crate) struct Place {
    pub(crate) id: u64,
    pub(crate) at: u64,
    pub(crate) told: Figures,
    /// Nobody has read it since the last one stopped.
    pub(crate) goes_on: bool,
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.inner.over.store(true, Release);
        let current = self.current();
        if let Some(ring) = current.file.ring() {
            ring.wake_up();
            futex_wake(ring.sleeper());
        }
        if let Some(thread) = self.thread.take() {
            // it does nothing that could fail
            let _ = thread.join();
        }
    }
}

impl State {
    fn set_roots(&mut self) -> Result<(), Error> {
        // those that nobody has asked for yet must not be in the way
        let is_done = self.write_roots() || (self.found.take().is_some() && self.write_roots());
        is_done.then_some(()).ok_or_else(|| Error::Ring {
            path: self.current.file.path().to_owned(),
            why: format!(
                "it has room for {} directories, with paths of up to 4095 bytes",
                treeferry_ring::MAX_ROOTS
            ),
        })
    }

    fn write_roots(&self) -> bool {
        let Some(ring) = self.current.file.ring() else { return false };
        let begun = self.readers.iter().map(|r| Root { path: &r.root, device: r.device });
        let found = self.unclaimed().map(|(path, device)| Root { path, device: *device });
        let is_done = ring.set_roots(begun.chain(found).collect::<Vec<_>>().into_iter());
        if is_done {
            // what was open already may be below a directory that was not mirrored, and no detector of it knows that
            ring.begin_session();
        }
        is_done
    }

    /// Directories that the ring was found with, and of which no detector has begun yet.
    fn unclaimed(&self) -> impl Iterator<Item = &(Vec<u8>, u64)> {
        let found = self.found.iter().flat_map(|f| &f.roots);
        found.filter(|(path, _)| self.readers.iter().all(|r| r.root != *path))
    }

    /// Forgets what the ring was found with if that has had its time, or takes too much room.
    fn forget_found(&mut self, now: Instant) {
        let (Some(ring), Some(found)) = (self.current.file.ring(), &self.found) else { return };
        let waits = ring.head().wrapping_sub(found.at);
        if now.saturating_duration_since(found.since) > KEPT || waits > ring.slots() as u64 / 2 {
            let shrinks = self.unclaimed().next().is_some();
            self.found = None;
            if shrinks {
                // there is room for fewer than there were
                let _ = self.set_roots();
            }
        }
    }

    /// What everybody has handed over may be used again.
    fn free(&self) {
        let Some(ring) = self.current.file.ring() else { return };
        let tail = ring.tail();
        // nearest to the tail; positions may wrap
        let done = || {
            let found = self.found.iter().map(|f| (f.at, f.told));
            self.readers.iter().map(|r| (r.done, r.told)).chain(found)
        };
        let nearest = done().map(|(at, _)| at).min_by_key(|at| at.wrapping_sub(tail));
        let least = |of: fn(&Figures) -> u64| done().map(|(_, told)| of(&told)).min();
        if let (Some(at), Some(lost), Some(unnamed)) = (nearest, least(|f| f.lost), least(|f| f.unnamed)) {
            ring.set_figures_told(Figures { lost, unnamed });
            ring.set_tail(at);
        }
    }
}

/// And what it was found with.
fn open(path: &Path, number: u64) -> Result<(Current, Option<Found>), Error> {
    let (file, came) = File::open(path)?;
    let mut found = None;
    if let Some(ring) = file.ring() {
        if came == Came::Found {
            let mut roots = Vec::new();
            ring.each_root(&mut |root| roots.push((root.path.to_vec(), root.device)));
            let (reader, at, told) = (ring.reader(), ring.tail(), ring.figures_told());
            found = (!roots.is_empty()).then_some(Found { reader, at, told, roots, since: Instant::now() });
        }
        ring.set_reader(RandomState::new().hash_one(path).max(1));
        ring.set_namespace(namespace());
        ring.wake_up();
    }
    let lost = match came {
        Came::Found | Came::Made => None,
        Came::Replaced(why) => Some(format!("{} was made anew: {why}", path.display())),
    };
    // one that was found may have been made by a process that was killed then
    std::thread::sleep(SETTLES.saturating_sub(file.age()));
    Ok((Current { file: Arc::new(file), number, lost }, found))
}

fn beginning(current: &Current) -> (u64, Figures) {
    current.file.ring().map_or((0, Figures::default()), |ring| (ring.tail(), ring.figures_told()))
}

/// Waits for writers, and passes that on to the detectors, which wait for other things too.
fn pump(inner: &Inner) {
    let mut seen = None;
    while !inner.over.load(Acquire) {
        let current = lock(&inner.state).current.clone();
        let Some(ring) = current.file.ring() else { return };
        ring.fall_asleep();
        let now = || Some((current.number, ring.head(), ring.figures()));
        if now() == seen && !inner.over.load(Acquire) {
            futex_wait(ring.sleeper(), 1, SLEEP);
        }
        ring.wake_up();
        if now() != seen {
            seen = now();
            lock(&inner.state).readers.iter().for_each(|r| r.waker.wake());
            std::thread::sleep(PAUSE);
        }
    }
}
