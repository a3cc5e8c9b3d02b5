//! Walks of a mirror: the first one over everything, and later ones where it is not known what has changed. One at a
//! time, each a job of its own with an engine of its own, beside the looks, which do not wait for it.

use super::desk::Desk;
use crate::links::linker;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use treeferry_core::job::JobState;
use treeferry_core::{Counters, Fresh, JobId, NewTask, RelPath, Stop, Work};
use treeferry_fs::{Root, RootError};
use treeferry_queue::{Control, Engine, JobRecord, Node};
use treeferry_worker::{Job, Pool, PoolSize, Reporter};

/// How often the wish to stop is looked at.
const TICK: Duration = Duration::from_millis(200);
/// Failures that are read at once.
const FAILURES: usize = 10_000;
/// How often source and target are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// After a walk that did not come to its end.
const REST: Duration = Duration::from_secs(1);

/// Who walks.
pub enum Ground {
    /// This process.
    Here,
    /// The workers of a cluster: each walk is a job of it.
    Cluster {
        /// Our place in it.
        node: Arc<Node>,
        /// For which mirror.
        mirror: JobId,
        /// What a walk is to do.
        record: Box<JobRecord>,
    },
}

/// The thread that walks.
pub struct Walks {
    thread: JoinHandle<()>,
    over: Arc<AtomicBool>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Of walks that have ended.
    counters: Counters,
    now: Option<Engine>,
    aborted: Option<String>,
}

impl State {
    fn counted(&self) -> Counters {
        let mut all = self.counters.clone();
        self.now.iter().for_each(|e| all.add(&e.status().counters));
        all
    }
}

fn lock(m: &Mutex<State>) -> MutexGuard<'_, State> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread.
pub fn start(
    ground: Ground,
    desk: &Arc<Desk>,
    job: &Arc<Job>,
    reporter: &Arc<dyn Reporter>,
    pool: PoolSize,
    stop: &Stop,
) -> std::io::Result<Walks> {
    let (state, over): (Arc<Mutex<State>>, Arc<AtomicBool>) = Default::default();
    let walker = Walker {
        ground,
        desk: Arc::clone(desk),
        job: Arc::clone(job),
        reporter: Arc::clone(reporter),
        pool,
        stop: stop.clone(),
        over: Arc::clone(&over),
        state: Arc::clone(&state),
    };
    let thread = std::thread::Builder::new().name("tf-walks".to_owned()).spawn(move || walker.run())?;
    Ok(Walks { thread, over, state })
}

impl Walks {
    /// What was counted.
    pub fn counters(&self) -> Counters {
        lock(&self.state).counted()
    }

    /// Says at any time what was counted.
    pub fn counting(&self) -> impl Fn() -> Counters + Send + use<> {
        let state = Arc::clone(&self.state);
        move || lock(&state).counted()
    }

    /// Tasks of the walk that is under way.
    pub fn outstanding(&self) -> u64 {
        lock(&self.state).now.as_ref().map_or(0, |e| e.status().outstanding)
    }

    /// Waits for the thread, which the wish to stop ends. What was counted, and why the mirror cannot go on.
    pub fn end(self) -> (Counters, Option<String>) {
        self.over.store(true, Relaxed);
        let _ = self.thread.join();
        let s = lock(&self.state);
        (s.counters.clone(), s.aborted.clone())
    }
}

struct Walker {
    ground: Ground,
    desk: Arc<Desk>,
    job: Arc<Job>,
    reporter: Arc<dyn Reporter>,
    pool: PoolSize,
    stop: Stop,
    over: Arc<AtomicBool>,
    state: Arc<Mutex<State>>,
}

impl Walker {
    fn run(&self) {
        let mut looked = Instant::now();
        while !self.stop.is_set() && !self.over.load(Relaxed) {
            self.look_at_roots(&mut looked);
            let mut pending = self.desk.pending();
            let next = if self.desk.may_walk() { pending.take_below(Instant::now()) } else { None };
            let Some(next) = next else {
                self.desk.wait(pending, TICK);
                continue;
            };
            drop(pending);
            let complete = self.walk(&next.path);
            if complete && next.path.is_root() {
                self.desk.walked_once.store(true, Relaxed);
            }
            self.desk.pending().walked(self.desk.moment(), next.ticket, complete);
            self.desk.ring();
            if !complete {
                std::thread::sleep(REST);
            }
        }
    }

    /// A target that is removed, or has another directory in its place, is none that could be kept the same; and a source that
    /// is removed or replaced is none to which it could be.
    fn look_at_roots(&self, looked: &mut Instant) {
        if looked.elapsed() < LOOK {
            return;
        }
        *looked = Instant::now();
        self.desk.finds(self.job.source());
        if let Some(Err(e @ RootError::Replaced(_))) = self.job.target().map(Root::check) {
            self.desk.abort(&e.to_string());
        }
    }

    /// Walks a directory with all that is below. Whether it came to its end; what failed is named then.
    fn walk(&self, path: &RelPath) -> bool {
        self.desk.walks_a_part.store(!path.is_root(), Relaxed);
        let first = path.is_root() && !self.desk.walked_once.load(Relaxed);
        let task = match first {
            true => self.job.first_task(),
            false => NewTask::new(None, Work::Walk { path: path.clone(), fresh: Fresh::No, resume: None }),
        };
        match &self.ground {
            Ground::Here => self.walk_here(task),
            Ground::Cluster { node, mirror, record } => {
                let made_target = first && self.job.made_target();
                let created_ms = Control::now_ms();
                let record = JobRecord { made_target, created_ms, ..(**record).clone() };
                self.walk_far(node, (*mirror, !path.is_root()), &record, task)
            }
        }
    }

    fn walk_here(&self, task: NewTask) -> bool {
        let engine = Engine::memory();
        engine.begin(task);
        lock(&self.state).now = Some(engine.clone());
        let reporter = Arc::clone(&self.reporter);
        let pool = Pool::start(&engine, &self.job, linker(&self.job), reporter, self.pool);
        self.wait(&engine);
        pool.join();
        self.over(&engine)
    }

    fn walk_far(
        &self,
        node: &Arc<Node>,
        (mirror, part): (JobId, bool),
        record: &JobRecord,
        task: NewTask,
    ) -> bool {
        let walk = JobId(RandomState::new().hash_one(mirror));
        if let Err(e) = node.note_walk(walk, mirror, part) {
            tracing::warn!("a walk cannot begin: {e}");
            return false;
        }
        tracing::info!(job = %walk, "walk begun");
        node.create_job(walk, record, task);
        let engine = Engine::cluster(node, walk);
        lock(&self.state).now = Some(engine.clone());
        self.wait(&engine);
        if matches!(node.record(walk), Ok(None)) {
            tracing::warn!(job = %walk, "the ledger has lost a walk");
            lock(&self.state).now = None;
            return false;
        }
        let mut failures = engine.status().failures;
        while failures.len() < engine.status().counters.failures as usize {
            let more = node.failures(walk, failures.len(), FAILURES);
            if more.is_empty() {
                break;
            }
            failures.extend(more);
        }
        failures.iter().for_each(|f| self.reporter.failure(f, None));
        node.notices(walk).into_iter().for_each(|n| self.reporter.notice(n));
        let complete = self.over(&engine);
        if let Err(e) = node.walk_is_over(walk) {
            tracing::warn!("{e}");
        }
        complete
    }

    fn wait(&self, engine: &Engine) {
        let mut looked = Instant::now();
        while !engine.wait(TICK) {
            self.look_at_roots(&mut looked);
            if self.stop.is_set() {
                engine.cancel();
                break;
            }
        }
    }

    /// Whether it came to its end.
    fn over(&self, engine: &Engine) -> bool {
        let end = engine.status();
        let mut s = lock(&self.state);
        s.now = None;
        s.counters.add(&end.counters);
        if let Some(why) = end.aborted {
            s.aborted = Some(why);
            self.stop.set();
        }
        matches!(end.state, JobState::Done | JobState::Failed)
    }
}
