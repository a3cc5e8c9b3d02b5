//! The pool of a node of the cluster: threads that take whatever comes, of any job.

use crate::pool::{Context, run};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use treeferry_core::{JobId, Stop};
use treeferry_queue::{Node, Take};

/// How long an idle thread waits before it looks around.
const PATIENCE: Duration = Duration::from_millis(100);

/// Opens jobs on this node.
pub trait Jobs: Send + Sync {
    /// Opens a job, or says why that cannot be done here.
    fn open(&self, job: JobId) -> Result<Context, String>;
}

struct Shared {
    node: Arc<Node>,
    jobs: Box<dyn Jobs>,
    open: Mutex<HashMap<JobId, Result<Arc<Context>, String>>>,
    stop: Stop,
    over: AtomicBool,
    busy: AtomicUsize,
}

/// Threads that work for every job of the cluster.
pub struct NodePool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl NodePool {
    /// Starts so many threads.
    pub fn start(
        node: &Arc<Node>,
        jobs: Box<dyn Jobs>,
        stop: &Stop,
        size: usize,
    ) -> std::io::Result<NodePool> {
        let shared = Arc::new(Shared {
            node: Arc::clone(node),
            jobs,
            open: Mutex::default(),
            stop: stop.clone(),
            over: AtomicBool::new(false),
            busy: AtomicUsize::new(0),
        });
        let mut threads = Vec::new();
        for n in 0..size.max(1) {
            let s = Arc::clone(&shared);
            threads.push(
                std::thread::Builder::new()
                    .name(format!("tf-worker-{n}"))
                    .stack_size(crate::pool::STACK_BYTES)
                    .spawn(move || work(&s))?,
            );
        }
        Ok(NodePool { shared, threads })
    }

    /// How many threads there are.
    pub fn size(&self) -> usize {
        self.threads.len()
    }

    /// How many threads run tasks now.
    pub fn busy(&self) -> usize {
        self.shared.busy.load(Relaxed)
    }

    /// Takes no more messages, hands back what is begun, and waits for the threads.
    pub fn join(self) {
        self.shared.over.store(true, Release);
        // a panic of a worker was caught in it
        self.threads.into_iter().for_each(|t| drop(t.join()));
    }
}

fn work(s: &Shared) {
    while !s.over.load(Acquire) && !s.stop.is_set() {
        let Some((job, seat)) = s.node.next_seat(PATIENCE) else { continue };
        let Ok(context) = context(s, job) else {
            seat.refuse();
            continue;
        };
        s.busy.fetch_add(1, Relaxed);
        if catch_unwind(AssertUnwindSafe(|| bundle(s, &context, seat))).is_err() {
            context
                .engine
                .abort("internal error in a worker thread: please report the message above as a bug");
        }
        s.busy.fetch_sub(1, Relaxed);
    }
}

/// Works off one message, or what is kept of it.
fn bundle(s: &Shared, context: &Context, mut seat: treeferry_queue::Seat) {
    let mut workers = Vec::new();
    loop {
        if s.over.load(Acquire) || s.stop.is_set() {
            // leaving, the seat hands the rest to everybody
            return;
        }
        match seat.take(PATIENCE) {
            Take::Over => return,
            Take::Idle => {}
            Take::Task(t) => run(context, &mut seat, &mut workers, 0, t),
        }
    }
}

fn context(s: &Shared, job: JobId) -> Result<Arc<Context>, String> {
    let mut open = s.open.lock().unwrap_or_else(PoisonError::into_inner);
    // jobs that are over are closed here: their descriptors and tables are of no more use
    open.retain(|id, _| *id == job || s.node.is_running(*id));
    let entry = open.entry(job).or_insert_with(|| {
        let r = s.jobs.open(job).map(Arc::new);
        if let Err(why) = &r {
            tracing::error!("job {job} is refused on this node: {why}");
        }
        r
    });
    entry.clone()
}
