//! Where everything that a mirror hears of comes together: signs of detectors, findings of workers, ends of walks.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use treeferry_core::event::micros;
use treeferry_core::{Change, Event, Failure, Notice, Pass, RelPath, Work};
use treeferry_fs::{Root, RootError};
use treeferry_mirror::{Pending, Timing};
use treeferry_worker::{Mirrored, Reporter};

/// The desk.
pub struct Desk {
    pending: Mutex<Pending>,
    /// When this was, and what the clock of the wall showed then: moments count from there on (µs).
    began: (Instant, u64),
    news: Condvar,
    /// The whole source has been walked once.
    pub walked_once: AtomicBool,
    /// The walk that is under way is of a part of the source.
    pub walks_a_part: AtomicBool,
    /// Hints that were heard, but for those of files that are open.
    pub heard: AtomicU64,
    /// Entries that were renamed at the target.
    pub moved: AtomicU64,
    /// Detectors that take down what there is before anything may be walked.
    awaited: AtomicUsize,
    /// Why the mirror cannot be kept any longer.
    aborted: Mutex<Option<String>>,
    /// It cannot be said whether SRC is there, and that was said.
    in_doubt: AtomicBool,
    /// The latest failure of each of some paths.
    failures: Mutex<BTreeMap<RelPath, Failure>>,
}

/// So many failures are kept; how many paths fail is known exactly.
const FAILURES: usize = 10_000;

/// The memory of a mirror of which everything was walked before, by a process that said up to when it was complete (µs since
/// 1970). If that is still to come, this clock was set back since, or the other was ahead, and it says nothing.
pub fn resumed(timing: Timing, complete_up_to: u64) -> Pending {
    Pending::resumed(timing, if complete_up_to > now_us() { 0 } else { complete_up_to })
}

impl Desk {
    /// One on which there is everything to be done.
    pub fn new(pending: Pending) -> Arc<Desk> {
        Arc::new(Desk {
            pending: Mutex::new(pending),
            began: (Instant::now(), now_us()),
            news: Condvar::new(),
            walked_once: AtomicBool::new(false),
            walks_a_part: AtomicBool::new(false),
            heard: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            awaited: AtomicUsize::new(0),
            aborted: Mutex::default(),
            in_doubt: AtomicBool::new(false),
            failures: Mutex::default(),
        })
    }

    /// What is on it.
    pub fn pending(&self) -> MutexGuard<'_, Pending> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.moment();
        let shown = now_us();
        pending.clock(before, shown, self.moment());
        pending
    }

    /// This moment: µs that only go forward, and were those of the clock of the wall when this process began.
    pub fn moment(&self) -> u64 {
        self.moment_of(Instant::now())
    }

    /// Another one.
    pub fn moment_of(&self, at: Instant) -> u64 {
        let (began, us) = self.began;
        let micros = |d: Duration| d.as_micros() as u64;
        match at.checked_duration_since(began) {
            Some(after) => us.saturating_add(micros(after)),
            None => us.saturating_sub(micros(began.saturating_duration_since(at))),
        }
    }

    /// So many detectors are to have told something before anything is walked.
    pub fn awaits(&self, detectors: usize) {
        self.awaited.store(detectors, Relaxed);
    }

    /// One of them has.
    pub fn awaits_one_less(&self) {
        self.awaited.fetch_sub(1, Relaxed);
        self.ring();
    }

    /// Whether walks may begin.
    pub fn may_walk(&self) -> bool {
        self.awaited.load(Relaxed) == 0
    }

    /// The mirror cannot be kept any longer. The first reason counts.
    pub fn abort(&self, why: &str) {
        let mut aborted = self.aborted.lock().unwrap_or_else(PoisonError::into_inner);
        aborted.get_or_insert_with(|| why.to_owned());
        drop(aborted);
        self.ring();
    }

    /// Whether the path of SRC still leads to the directory that the mirror began with, at this moment. If it leads nowhere, or
    /// to another one, the mirror cannot be kept any longer; if that cannot be found out, it waits. To be asked after changes
    /// were told up to some moment, and before anything is called complete because of it: what is told of a directory that
    /// has gone elsewhere says nothing of SRC.
    pub fn finds(&self, src: &Root) -> bool {
        match src.check() {
            Ok(()) => {
                if self.in_doubt.swap(false, Relaxed) {
                    tracing::warn!("SRC can be looked at again");
                }
                return true;
            }
            Err(e @ RootError::Replaced(_)) => self.abort(&e.to_string()),
            Err(e) => {
                if !self.in_doubt.swap(true, Relaxed) {
                    tracing::warn!("SRC cannot be looked at, so nothing is called complete: {e}");
                }
            }
        }
        false
    }

    /// Why it cannot be.
    pub fn aborted(&self) -> Option<String> {
        self.aborted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Failures of paths that still fail.
    pub fn failures(&self) -> Vec<Failure> {
        let pending = self.pending();
        let mut all = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|path, _| pending.is_failing(path));
        all.values().cloned().collect()
    }

    fn keep_failure(&self, f: &Failure) {
        let mut all = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < FAILURES || all.contains_key(&f.path) {
            all.insert(f.path.clone(), f.clone());
        }
    }

    /// Tells whoever waits that there is something new.
    pub fn ring(&self) {
        self.news.notify_all();
    }

    /// Waits for news, at most so long.
    pub fn wait(&self, guard: MutexGuard<'_, Pending>, patience: Duration) {
        drop(self.news.wait_timeout(guard, patience));
    }
}

/// The time of day, in µs since 1970.
pub fn now_us() -> u64 {
    micros(SystemTime::now())
}

/// What workers say to the desk.
pub struct Listener(pub Arc<Desk>);

impl Mirrored for Listener {
    fn again(&self, path: RelPath, below: bool, owed: &RelPath) {
        self.0.pending().again(Instant::now(), path, below, owed);
        self.0.ring();
    }

    fn changed(&self, path: RelPath) {
        self.0.pending().changed(Instant::now(), path);
        self.0.ring();
    }

    fn later(&self, path: RelPath, wait: Duration, owed: &RelPath) {
        self.0.pending().later(Instant::now(), path, wait, owed);
        self.0.ring();
    }

    fn settled(&self, ticket: u64) {
        self.0.pending().settled(Instant::now(), self.0.moment(), ticket);
        self.0.ring();
    }

    fn moved(&self, _path: &RelPath) {
        self.0.moved.fetch_add(1, Relaxed);
    }

    fn names_are_known(&self) -> bool {
        self.0.walked_once.load(Relaxed)
    }

    fn walks_a_part(&self) -> bool {
        self.0.walks_a_part.load(Relaxed)
    }
}

/// Hears of failures, which are tried again, and passes all on.
pub struct Told {
    desk: Arc<Desk>,
    rest: Arc<dyn Reporter>,
}

impl Told {
    /// Between a desk and whoever else is told.
    pub fn new(desk: &Arc<Desk>, rest: Arc<dyn Reporter>) -> Told {
        Told { desk: Arc::clone(desk), rest }
    }
}

impl Reporter for Told {
    fn changes(&self, changes: &[Change]) {
        self.rest.changes(changes);
    }

    fn events(&self, events: Vec<Event>) {
        self.rest.events(events);
    }

    fn failure(&self, f: &Failure, pass: Option<Pass>) {
        let mut pending = self.desk.pending();
        let known = pending.is_failing(&f.path);
        pending.failed(Instant::now(), f.path.clone(), f.to_string());
        drop(pending);
        self.desk.keep_failure(f);
        match known {
            // it was said when it failed first; each attempt is a line of the log
            true => tracing::info!("again: {f}"),
            false => self.rest.failure(f, pass),
        }
    }

    fn notice(&self, n: Notice) {
        self.rest.notice(n);
    }

    fn ran(&self, work: &Work, took: Duration) {
        self.rest.ran(work, took);
    }
}
