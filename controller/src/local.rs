//! A job with the memory engine: queue, ledger and workers are in this process, and end with it.

use crate::job::Request;
use crate::links::linker;
use crate::output::{Console, End, Reading};
use crate::report::journal::Journal;
use std::sync::Arc;
use std::time::{Duration, Instant};
use treeferry_core::{JobId, Stop};
use treeferry_queue::Engine;
use treeferry_worker::{Job, OpenError, Pool, Reporter};

/// How often progress is drawn and the wish to stop is looked at; by eye.
const TICK: Duration = Duration::from_millis(100);

/// Opens the roots, runs every task, and says how it ended.
pub fn run(id: JobId, request: &Request, stop: &Stop, console: &Arc<Console>) -> Result<End, OpenError> {
    let began = Instant::now();
    let job = Job::open(request.spec.clone(), stop.clone())?;
    let engine = Engine::memory();
    let mut journal = Journal::begin(request.log_dir.clone(), id, &request.spec, job.root_inodes().0);
    engine.begin(job.first_task());
    let reporter: Arc<dyn Reporter> = Arc::<Console>::clone(console);
    let pool = Pool::start(&engine, &job, linker(&job), reporter, request.pool);
    tracing::info!(passes = %request.spec.passes, "job begun");
    while !engine.wait(TICK) {
        if stop.is_set() {
            engine.cancel();
            break;
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
    let last = engine.status();
    journal.end(&engine, &last);
    tracing::info!(state = last.state.name(), outstanding = last.outstanding, "job ended");
    Ok(End { state: last.state, counters: last.counters, failures: last.failures, aborted: last.aborted })
}
