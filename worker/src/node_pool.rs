//! The pool of a node of the cluster: threads that take whatever comes, of any job. Resizable while it runs.

use crate::pool::{Context, run};
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use treeferry_core::{JobId, RelPath};
use treeferry_queue::{Node, Offer, Refusal, RunningTask, Take};

/// How long an idle thread waits before it looks around.
const PATIENCE: Duration = Duration::from_millis(100);
/// A job that could not be opened here is tried again after this.
const OPEN_AGAIN: Duration = Duration::from_secs(5);

/// Opens jobs on this node.
pub trait Jobs: Send + Sync {
    /// Opens a job, or says why that cannot be done here.
    fn open(&self, job: JobId) -> Result<Context, String>;
}

/// What a thread is at.
struct Slot {
    job: JobId,
    work: &'static str,
    path: RelPath,
    since: Instant,
}

/// A job that was opened, or could not be, and when.
type Opened = (Instant, Result<Arc<Context>, String>);

struct Shared {
    node: Arc<Node>,
    jobs: Box<dyn Jobs>,
    /// Held while a job is opened, which asks the ledger: never taken by what the ledger's own threads call.
    open: Mutex<HashMap<JobId, Opened>>,
    refused: Mutex<BTreeMap<JobId, String>>,
    slots: Mutex<BTreeMap<usize, Slot>>,
    /// Threads with a number below this take messages; the others end.
    active: AtomicUsize,
    paused: AtomicBool,
    over: AtomicBool,
    busy: AtomicUsize,
}

/// Threads that work for every job of the cluster.
pub struct NodePool {
    shared: Arc<Shared>,
    threads: Mutex<BTreeMap<usize, JoinHandle<()>>>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl NodePool {
    /// Starts so many threads.
    pub fn start(node: &Arc<Node>, jobs: Box<dyn Jobs>, size: usize) -> std::io::Result<NodePool> {
        let shared = Arc::new(Shared {
            node: Arc::clone(node),
            jobs,
            open: Mutex::default(),
            refused: Mutex::default(),
            slots: Mutex::default(),
            active: AtomicUsize::new(0),
            paused: AtomicBool::new(false),
            over: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
        });
        let pool = NodePool { shared, threads: Mutex::default() };
        pool.resize(size)?;
        Ok(pool)
    }

    /// Changes the number of threads. One that is not needed any more hands back what it has, after its task.
    pub fn resize(&self, size: usize) -> std::io::Result<()> {
        let mut threads = lock(&self.threads);
        threads.retain(|_, t| !t.is_finished());
        self.shared.active.store(size.max(1), Release);
        for n in 0..size.max(1) {
            if threads.contains_key(&n) {
                continue;
            }
            let s = Arc::clone(&self.shared);
            let thread = std::thread::Builder::new()
                .name(format!("tf-worker-{n}"))
                .stack_size(crate::pool::STACK_BYTES)
                .spawn(move || work(&s, n))?;
            threads.insert(n, thread);
        }
        Ok(())
    }

    /// Takes no more messages while this is set, and hands back what is begun, each thread after its task.
    pub fn pause(&self, paused: bool) {
        self.shared.paused.store(paused, Release);
    }

    /// Whether no more messages are taken until somebody says otherwise.
    pub fn is_paused(&self) -> bool {
        self.shared.paused.load(Relaxed)
    }

    /// Closes jobs that are over, for which no message comes any more. To be called now and then.
    pub fn tidy(&self) {
        // whoever opens one closes the others, too
        if let Ok(mut open) = self.shared.open.try_lock() {
            close_others(&self.shared, &mut open, None);
        }
    }

    /// How many threads take messages.
    pub fn size(&self) -> usize {
        self.shared.active.load(Relaxed)
    }

    /// How many threads run tasks now.
    pub fn busy(&self) -> usize {
        self.shared.busy.load(Relaxed)
    }

    /// What the threads are at, the longest first.
    pub fn running(&self) -> Vec<RunningTask> {
        let mut all: Vec<RunningTask> = lock(&self.shared.slots)
            .values()
            .map(|s| RunningTask {
                job: s.job.to_string(),
                work: s.work.to_owned(),
                path: s.path.to_string(),
                age_ms: s.since.elapsed().as_millis() as u64,
            })
            .collect();
        all.sort_by_key(|t| std::cmp::Reverse(t.age_ms));
        all
    }

    /// Jobs that cannot be worked for here, and why.
    pub fn refused(&self) -> Vec<Refusal> {
        let refused = lock(&self.shared.refused);
        let running = refused.iter().filter(|(id, _)| self.shared.node.is_running(**id));
        running.map(|(id, why)| Refusal { job: id.to_string(), why: why.clone() }).collect()
    }

    /// Takes no more messages and hands back what is begun. After `budget` also tasks are cut short: others do them
    /// again. Returns when the threads have ended.
    pub fn stop(&self, budget: Duration) {
        let s = &self.shared;
        s.over.store(true, Release);
        let began = Instant::now();
        let threads = std::mem::take(&mut *lock(&self.threads));
        while threads.values().any(|t| !t.is_finished()) {
            if began.elapsed() > budget {
                for (_, r) in lock(&s.open).values() {
                    r.iter().for_each(|c| c.job.stop());
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        // a panic of a worker was caught in it
        threads.into_values().for_each(|t| drop(t.join()));
    }
}

impl Shared {
    fn takes(&self, number: usize) -> bool {
        number < self.active.load(Acquire) && !self.over.load(Acquire) && !self.paused.load(Acquire)
    }
}

fn work(s: &Shared, number: usize) {
    loop {
        if s.over.load(Acquire) || number >= s.active.load(Acquire) {
            return;
        }
        if s.paused.load(Acquire) {
            std::thread::sleep(PATIENCE);
            continue;
        }
        let Some(offer) = s.node.next_offer(PATIENCE) else { continue };
        s.busy.fetch_add(1, Relaxed);
        serve(s, offer, number);
        s.busy.fetch_sub(1, Relaxed);
        lock(&s.slots).remove(&number);
    }
}

/// Works off one message, or what is kept of it.
fn serve(s: &Shared, offer: Offer, number: usize) {
    let job = offer.job();
    let Ok(context) = context(s, job) else {
        offer.decline();
        return;
    };
    let mut seat = offer.begin();
    let worked = catch_unwind(AssertUnwindSafe(|| {
        let mut workers = Vec::new();
        // leaving, the seat hands the rest to everybody
        while s.takes(number) && !context.job.is_stopped() {
            match seat.take(PATIENCE) {
                Take::Over => return,
                Take::Idle => {}
                Take::Task(t) => {
                    let slot =
                        Slot { job, work: t.work.name(), path: t.work.path().clone(), since: Instant::now() };
                    lock(&s.slots).insert(number, slot);
                    run(&context, &mut seat, &mut workers, 0, t);
                }
            }
        }
    }));
    if worked.is_err() {
        let why = "internal error in a worker thread: please report the message above as a bug";
        context.engine.abort(why);
    }
}

/// Jobs that are over are closed: their descriptors and tables are of no more use.
fn close_others(s: &Shared, open: &mut HashMap<JobId, Opened>, but: Option<JobId>) {
    open.retain(|id, (at, r)| match but {
        Some(job) if job == *id => r.is_ok() || at.elapsed() < OPEN_AGAIN,
        // one that was just begun may not be heard of yet
        _ => s.node.is_listed(*id) || at.elapsed() < OPEN_AGAIN,
    });
}

fn context(s: &Shared, job: JobId) -> Result<Arc<Context>, String> {
    let mut open = lock(&s.open);
    close_others(s, &mut open, Some(job));
    let entry = open.entry(job).or_insert_with(|| {
        let r = s.jobs.open(job).map(Arc::new);
        let mut refused = lock(&s.refused);
        refused.retain(|id, _| *id != job && s.node.is_running(*id));
        if let Err(why) = &r {
            tracing::error!("job {job} is refused on this node: {why}");
            refused.insert(job, why.clone());
        }
        (Instant::now(), r)
    });
    entry.1.clone()
}
