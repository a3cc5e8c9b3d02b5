//! A job with the memory engine: queue, ledger and workers are in this process, and end with it.

use crate::args::daemon::host;
use crate::events::{self, Teller, Watched};
use crate::job::Request;
use crate::links::linker;
use crate::metering::{self, Counting, Tasks};
use crate::nearby::{self, Post};
use crate::output::{Console, End, Reading};
use crate::report::journal::Journal;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};
use treeferry_core::{Event, JobId, Stop};
use treeferry_queue::{Control, Engine, JobRow, NodeReport};
use treeferry_service::metrics::{Meter, Metrics};
use treeferry_worker::{Job, OpenError, Pool, Reporter};

/// How often progress is drawn and the wish to stop is looked at; by eye.
const TICK: Duration = Duration::from_millis(100);

/// Opens the roots, runs every task, and says how it ended.
pub fn run(id: JobId, request: &Request, stop: &Stop, console: &Arc<Console>) -> Result<End, OpenError> {
    let began = Instant::now();
    let job = Job::open(request.spec.clone(), stop.clone())?;
    let engine = Engine::memory();
    let mut journal = Journal::begin(request.telling.dir.clone(), id, &request.spec, job.root_inodes().0);
    engine.begin(job.first_task());
    let log = events::log(&request.telling, id);
    let teller = log.as_ref().map(|l| Teller::new(l.outbox(), id, &request.spec));
    log.iter().for_each(|l| events::put(l.outbox(), events::job_began(id, &request.spec)));
    let mut reporter: Arc<dyn Reporter> = Arc::new(Watched { console: Arc::clone(console), teller });
    let tasks = Arc::new(Tasks::default());
    let metrics = request.metrics.clone().map(|s| Arc::new(Metrics::start(s)));
    if metrics.is_some() {
        reporter = Arc::new(Counting::new(&tasks, reporter));
    }
    let pool = Pool::start(&engine, &job, linker(&job), reporter, request.pool);
    let meter = metrics.map(|m| {
        let e = engine.clone();
        metering::local::start(&m, id, request.spec.passes, move || e.status(), &tasks, pool.load(), Vec::new)
    });
    let post = Post::open(id).unwrap_or_else(|e| {
        tracing::info!("nobody can watch this job: {e}");
        None
    });
    let shown = Shown { id, request, engine: &engine, pool: &pool, created_ms: Control::now_ms() };
    tracing::info!(passes = %request.spec.passes, "job begun");
    while !engine.wait(TICK) {
        if stop.is_set() {
            engine.cancel();
            break;
        }
        if let Some(p) = &post {
            p.answer(|| shown.report());
        }
        journal.tick(|| (&engine, pool.running(id)));
        console.tick(|| {
            let now = engine.status();
            Reading {
                entries: job.live_entries(),
                bytes: job.live_bytes(),
                outstanding: now.outstanding,
                failures: now.counters.failures,
                elapsed: began.elapsed(),
            }
        });
    }
    pool.join();
    if let Some(p) = post {
        p.close();
    }
    meter.into_iter().for_each(Meter::stop);
    let last = engine.status();
    journal.end(&engine, &last);
    tracing::info!(state = last.state.name(), outstanding = last.outstanding, "job ended");
    if let Some(log) = log {
        let why = last.aborted.as_deref().unwrap_or_default();
        let ended = Event::job_ended(id, last.state, &last.counters, began.elapsed(), why);
        events::put(log.outbox(), ended);
        log.finish();
    }
    Ok(End { state: last.state, counters: last.counters, failures: last.failures, aborted: last.aborted })
}

/// What others may see of the job.
struct Shown<'a> {
    id: JobId,
    request: &'a Request,
    engine: &'a Engine,
    pool: &'a Pool,
    created_ms: u64,
}

impl Shown<'_> {
    fn report(&self) -> Value {
        let now = self.engine.status();
        let job = JobRow {
            id: self.id,
            spec: self.request.spec.clone(),
            state: now.state,
            paused: false,
            why: now.aborted.unwrap_or_default(),
            created_ms: self.created_ms,
            ended_ms: None,
            outstanding: now.outstanding,
            counters: now.counters,
        };
        let name = host();
        let process = NodeReport {
            worker: format!("{name}-{}", std::process::id()),
            node: name,
            kind: "sync".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pool: self.pool.active(),
            busy: self.pool.busy(),
            started_ms: self.created_ms,
            seen_ms: Control::now_ms(),
            tasks: self.pool.running(self.id),
            ..NodeReport::default()
        };
        nearby::report(&job, &process, &now.failures)
    }
}
