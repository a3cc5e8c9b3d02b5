//! The pool: threads that take tasks, run them and commit them. Resizable while it runs.
//!
//! Without a given size it follows the load: as many threads as there are cores while they are busy, more
//! when they are found waiting for storage. (On two cores, warm, four threads are up to 37 % slower than two in
//! one big directory of ext4; cold, sixteen are twice as fast as two.)

use crate::job::Job;
use crate::worker::{Sink, Worker};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use treeferry_core::event;
use treeferry_core::records::Best;
use treeferry_core::{Change, Event, Failure, JobId, Notice, Outcome, Pass, RelPath, Task, Work};
use treeferry_queue::{Engine, Registry, RunningTask, Seat, Take};

/// How long an idle thread waits before it looks around.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often the load is looked at.
const LOAD_INTERVAL: Duration = Duration::from_millis(200);
/// With so many tasks queued by one thread a walker goes on by itself.
const PRESSED_TASKS: usize = 64;
/// With so many, of whatever kind, it runs some of them before it lists on: this bounds the frontier.
const FULL_TASKS: usize = 4096;
/// With so many events a task tells them before its end: this bounds what it keeps.
const MANY_EVENTS: usize = 512;
/// How deep such runs may lie in each other.
const MAX_NESTED: usize = 64;
/// The stack of a worker thread; it must hold `MAX_NESTED` runs in each other.
pub(crate) const STACK_BYTES: usize = 8 << 20;

/// What workers tell as it happens. Called from worker threads; must be quick.
pub trait Reporter: Send + Sync {
    /// Changes, for `--itemize`.
    fn changes(&self, changes: &[Change]);
    /// What else happened to entries; the time is 0 where it is now.
    fn events(&self, events: Vec<Event>);
    /// A named failure, and the pass in which it happened, if that can be told.
    fn failure(&self, f: &Failure, pass: Option<Pass>);
    /// Something that is said once for each kind in a job.
    fn notice(&self, n: Notice);
    /// A task has been run, and that took so long, with what was run within it.
    fn ran(&self, work: &Work, took: Duration);
}

/// Runs link tasks: the hardlinker, which this crate does not know.
pub trait RunLinks: Send + Sync {
    /// Runs a task of kind [`Work::Link`].
    fn run(&self, task: &Task, registry: &Registry) -> Outcome;
}

/// Number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolSize {
    /// Follows the load.
    Auto,
    /// So many.
    Fixed(usize),
}

/// A job with all that running its tasks takes.
pub struct Context {
    /// Its engine.
    pub engine: Engine,
    /// The job, open on this node.
    pub job: Arc<Job>,
    /// Makes its links.
    pub links: Box<dyn RunLinks>,
    /// Told what happens.
    pub reporter: Arc<dyn Reporter>,
    /// Its tasks are what events ask for, for as long as the mirror is kept.
    pub follows: bool,
}

struct Shared {
    context: Context,
    /// Threads with a number below this take tasks; the others wait.
    active: AtomicUsize,
    auto: AtomicBool,
    busy: AtomicUsize,
    over: AtomicBool,
    gate: Mutex<()>,
    opened: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// What each thread is at. A thread alone takes its own lock, but for who asks now and then.
    at: Mutex<Vec<Arc<Mutex<Option<At>>>>>,
}

/// What a thread is at.
struct At {
    work: &'static str,
    path: RelPath,
    since: Instant,
}

/// A pool of worker threads for one job.
pub struct Pool {
    shared: Arc<Shared>,
    governor: Option<JoinHandle<()>>,
}

impl Pool {
    /// Starts the threads.
    pub fn start(
        engine: &Engine,
        job: &Arc<Job>,
        links: Box<dyn RunLinks>,
        reporter: Arc<dyn Reporter>,
        size: PoolSize,
    ) -> Pool {
        let context =
            Context { engine: engine.clone(), job: Arc::clone(job), links, reporter, follows: false };
        Pool::of(context, size)
    }

    /// Starts the threads.
    pub fn of(context: Context, size: PoolSize) -> Pool {
        let shared = Arc::new(Shared {
            context,
            active: AtomicUsize::new(0),
            auto: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            gate: Mutex::new(()),
            opened: Condvar::new(),
            threads: Mutex::new(Vec::new()),
            at: Mutex::default(),
        });
        let mut pool = Pool { shared: Arc::clone(&shared), governor: None };
        pool.resize(size);
        pool.governor =
            std::thread::Builder::new().name("tf-governor".to_owned()).spawn(move || govern(&shared)).ok();
        pool
    }

    /// Changes the number of threads. A thread that is not needed any more ends its task first.
    pub fn resize(&self, size: PoolSize) {
        self.shared.auto.store(size == PoolSize::Auto, Release);
        set_active(
            &self.shared,
            match size {
                PoolSize::Auto => cores(),
                PoolSize::Fixed(n) => n.max(1),
            },
        );
    }

    /// How many threads take tasks now.
    pub fn active(&self) -> usize {
        self.shared.active.load(Acquire)
    }

    /// How many threads run a task now.
    pub fn busy(&self) -> usize {
        self.shared.busy.load(Relaxed)
    }

    /// What the threads are at, for this job, the longest first.
    pub fn running(&self, job: JobId) -> Vec<RunningTask> {
        let threads = lock(&self.shared.at);
        let task = |at: &At| RunningTask {
            job: job.to_string(),
            work: at.work.to_owned(),
            path: at.path.to_string(),
            age_ms: at.since.elapsed().as_millis() as u64,
        };
        let mut all: Vec<_> = threads.iter().filter_map(|t| lock(t).as_ref().map(task)).collect();
        all.sort_by_key(|t| std::cmp::Reverse(t.age_ms));
        all
    }

    /// Says at any time how many threads take tasks, and how many run one.
    pub fn load(&self) -> impl Fn() -> (usize, usize) + Send + use<> {
        let shared = Arc::clone(&self.shared);
        move || (shared.active.load(Relaxed), shared.busy.load(Relaxed))
    }

    /// Waits for the threads. The engine must have ended or been cancelled.
    pub fn join(self) {
        self.shared.over.store(true, Release);
        self.shared.opened.notify_all();
        // the governor first: it may still start threads
        let governor = self.governor.into_iter();
        governor.for_each(|t| drop(t.join()));
        let threads = std::mem::take(&mut *lock(&self.shared.threads));
        // a panic of a worker was caught in it and has aborted the job
        threads.into_iter().for_each(|t| drop(t.join()));
        let job = &self.shared.context.job;
        if !job.is_mirror() || job.is_stopped() {
            // of a mirror, another pool may be at work on them
            job.remove_staged_files();
        }
    }
}

fn lock<T>(m: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lets so many threads take tasks, and starts those that there are not yet.
fn set_active(s: &Arc<Shared>, n: usize) {
    let mut threads = lock(&s.threads);
    while threads.len() < n {
        match spawn(s, threads.len()) {
            Some(t) => threads.push(t),
            None => break,
        }
    }
    s.active.store(n, Release);
    drop(threads);
    drop(lock(&s.gate));
    s.opened.notify_all();
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get())
}

fn spawn(shared: &Arc<Shared>, number: usize) -> Option<JoinHandle<()>> {
    let s = Arc::clone(shared);
    std::thread::Builder::new()
        .name(format!("tf-worker-{number}"))
        .stack_size(STACK_BYTES)
        .spawn(move || {
            if catch_unwind(AssertUnwindSafe(|| work(&s, number))).is_err() {
                s.context
                    .engine
                    .abort("internal error in a worker thread: please report the message above as a bug");
            }
        })
        .inspect_err(|e| {
            if number == 0 {
                shared.context.engine.abort(&format!("cannot start a thread: {e}"));
            }
        })
        .ok()
}

fn work(s: &Shared, number: usize) {
    let mut seat = s.context.engine.seat();
    let mut workers = Vec::new();
    let here = Arc::new(Mutex::new(None));
    lock(&s.at).push(Arc::clone(&here));
    loop {
        if number >= s.active.load(Acquire) {
            if s.over.load(Acquire) {
                return;
            }
            drop(s.opened.wait_timeout(lock(&s.gate), PATIENCE));
            continue;
        }
        match seat.take(PATIENCE) {
            Take::Over => return,
            Take::Idle => {}
            Take::Task(t) => {
                let at = At { work: t.work.name(), path: t.work.path().clone(), since: Instant::now() };
                *lock(&here) = Some(at);
                s.busy.fetch_add(1, Relaxed);
                run(&s.context, &mut seat, &mut workers, 0, t);
                s.busy.fetch_sub(1, Relaxed);
                *lock(&here) = None;
            }
        }
    }
}

/// Runs a task and commits it. `workers` has a set of tools for each level of nesting.
pub(crate) fn run(s: &Context, seat: &mut Seat, workers: &mut Vec<Worker>, level: usize, task: Task) {
    if workers.len() <= level {
        workers.push(Worker::new(&s.job, &seat.registry(), s.follows));
    }
    // taken out for the while, so that a nested run can have the others
    let mut tools = workers.swap_remove(level.min(workers.len() - 1));
    let began = Instant::now();
    let mut out = match task.work {
        Work::Link { .. } => s.links.run(&task, &seat.registry()),
        _ => {
            let mut desk = Desk { s, seat, workers, level, task: &task };
            tools.run(&task, &mut desk)
        }
    };
    let settled = std::mem::take(&mut tools.settled);
    workers.push(tools);
    let took = began.elapsed();
    s.reporter.ran(&task.work, took);
    let (kind, path) = (|| task.work.name().to_owned(), || task.work.path().clone());
    s.job.bars.offer_time(Best::LongestTask, took, kind, path, &mut out);
    tell(s, &task.work, &mut out);
    if s.job.stop.is_set() {
        // not done, so not committed: only what it has counted and named is kept
        let Outcome { counters, failures, sizes, records, .. } = out;
        let mut rest = Outcome { counters, failures, sizes, records, ..Outcome::default() };
        seat.flush(&task, &mut rest, None);
        seat.leave(task);
        if !s.job.shared {
            s.engine.cancel();
        }
        return;
    }
    for n in seat.commit(&task, out) {
        s.reporter.notice(n);
    }
    settled.into_iter().for_each(|ticket| s.job.settled(ticket));
}

fn tell(s: &Context, work: &Work, out: &mut Outcome) {
    // those of a shared job go to the ledger, for whoever has asked
    if !out.changes.is_empty() && !s.job.shared {
        s.reporter.changes(&out.changes);
        out.changes.clear();
    }
    if !out.events.is_empty() {
        s.reporter.events(std::mem::take(&mut out.events));
    }
    for f in &out.failures {
        s.reporter.failure(f, event::pass_of(work));
    }
}

/// What a running task sees of the engine.
struct Desk<'a> {
    s: &'a Context,
    seat: &'a mut Seat,
    workers: &'a mut Vec<Worker>,
    level: usize,
    task: &'a Task,
}

impl Sink for Desk<'_> {
    fn flush(&mut self, out: &mut Outcome, instead: Option<Work>) {
        tell(self.s, &self.task.work, out);
        let instead = instead.map(|work| Task { work, ..self.task.clone() });
        self.seat.flush(self.task, out, instead);
        while self.level < MAX_NESTED && self.seat.backlog() > FULL_TASKS && !self.s.job.stop.is_set() {
            let Some(t) = self.seat.take_own() else { break };
            run(self.s, self.seat, self.workers, self.level + 1, t);
        }
    }

    fn tell(&mut self, out: &mut Outcome) {
        if out.events.len() >= MANY_EVENTS {
            self.s.reporter.events(std::mem::take(&mut out.events));
        }
    }

    fn pressed(&self) -> bool {
        self.seat.backlog() > PRESSED_TASKS
    }

    fn hungry(&self) -> bool {
        self.seat.hungry()
    }

    fn yields(&self, left: usize) -> usize {
        self.seat.yields(left)
    }
}

/// Follows the load while the pool's size is automatic.
fn govern(s: &Arc<Shared>) {
    let (least, most) = (cores(), (4 * cores()).clamp(16, 64));
    let mut clock = Clock::new();
    clock.find_threads();
    let mut last = (Instant::now(), clock.read());
    let mut interval = LOAD_INTERVAL;
    while !s.over.load(Acquire) {
        drop(s.opened.wait_timeout(lock(&s.gate), interval));
        let wall = last.0.elapsed();
        if wall < LOAD_INTERVAL / 2 {
            continue;
        }
        let now = (Instant::now(), clock.read());
        if s.auto.load(Acquire) {
            let active = s.active.load(Acquire);
            let used = now.1.saturating_sub(last.1).as_secs_f64() / (wall.as_secs_f64() * active as f64);
            let wanted = wanted_threads(active, least, most, used, s.busy.load(Relaxed) >= active);
            if wanted != active {
                set_active(s, wanted);
                clock.find_threads();
                last = (Instant::now(), clock.read());
                interval = LOAD_INTERVAL;
                continue;
            }
            // less often while nothing changes
            interval = (interval + LOAD_INTERVAL / 4).min(LOAD_INTERVAL * 5);
        }
        last = now;
    }
}

/// How many threads there should be. `used`: the share of their time in which they ran or waited for a core.
fn wanted_threads(active: usize, least: usize, most: usize, used: f64, all_busy: bool) -> usize {
    if used < 0.65 && all_busy {
        (active + (active / 2).max(1)).min(most)
    } else if used > 0.92 && active > least {
        active - 1
    } else {
        active
    }
}

/// Time that this process's threads ran or waited for a core: fields 1 and 2 of `/proc/PID/task/TID/schedstat`
/// (proc(5)), in nanoseconds. Waiting for a core is not waiting for storage.
struct Clock {
    threads: HashMap<OsString, File>,
}

impl Clock {
    fn new() -> Clock {
        Clock { threads: HashMap::new() }
    }

    /// Looks which threads there are now; the files stay open, so that a reading is one call a thread.
    fn find_threads(&mut self) {
        for t in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
            if let Ok(f) = File::open(t.path().join("schedstat")) {
                self.threads.insert(t.file_name(), f);
            }
        }
    }

    fn read(&mut self) -> Duration {
        let mut sum = 0u64;
        self.threads.retain(|_, f| {
            let mut buf = [0; 80];
            // the thread has ended: its time counts no more, which one reading may miss
            let Ok(n @ 1..) = f.read_at(&mut buf, 0) else { return false };
            let text = std::str::from_utf8(&buf[..n]).unwrap_or_default();
            sum += text.split_whitespace().take(2).filter_map(|n| n.parse::<u64>().ok()).sum::<u64>();
            true
        });
        Duration::from_nanos(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::wanted_threads;

    #[test]
    fn the_pool_grows_while_threads_wait_and_shrinks_to_the_cores() {
        assert_eq!(wanted_threads(2, 2, 16, 0.3, true), 3);
        assert_eq!(wanted_threads(12, 2, 16, 0.3, true), 16);
        assert_eq!(wanted_threads(2, 2, 16, 0.3, false), 2, "nothing to do for more");
        assert_eq!(wanted_threads(4, 2, 16, 0.99, true), 3);
        assert_eq!(wanted_threads(2, 2, 16, 0.99, true), 2);
        assert_eq!(wanted_threads(8, 2, 16, 0.8, true), 8);
    }
}
