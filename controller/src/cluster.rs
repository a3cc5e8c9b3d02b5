//! A job with the cluster engine: this process opens the roots, registers the job and seeds its first task, and then
//! waits and tells. The work is done by `treeferry worker` and `treeferry hardlinker`, here and elsewhere.

use crate::job::Request;
use crate::output::{Console, End, Reading};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use treeferry_core::{JobId, Stop};
use treeferry_queue::{Engine, JobRecord, Node, Site};
use treeferry_worker::{Job, OpenError, Reporter};

/// How often the ledger is asked how the job stands.
const TICK: Duration = Duration::from_millis(200);
/// Changes that are fetched at once.
const MOST_CHANGES: usize = 10_000;

/// Connects to broker and ledger.
pub fn connect(site: &Site, what: &str) -> Result<Arc<Node>, OpenError> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = format!("{what}-{}-{}", host.trim(), std::process::id());
    Node::connect(site, &name).map_err(|e| OpenError::Unreachable(e.to_string()))
}

/// Registers the job, and says how it ended.
pub fn run(
    site: &Site,
    id: JobId,
    request: &Request,
    stop: &Stop,
    console: &Arc<Console>,
) -> Result<End, OpenError> {
    let began = Instant::now();
    if request.spec.max_delete.is_some() {
        return Err(OpenError::Usage(
            "--max-delete cannot be used with a cluster: nobody counts for all nodes".into(),
        ));
    }
    let node = connect(site, "controller")?;
    let job = Job::open(request.spec.clone(), stop.clone())?;
    let roots = job.root_inodes();
    let record = JobRecord { spec: absolute(&request.spec), made_target: job.made_target(), roots };
    node.create_job(id, &record, job.first_task());
    tracing::info!(passes = %request.spec.passes, job = %id, "job registered");
    let engine = Engine::cluster(&node, id);
    let (mut told, mut said) = (0, BTreeSet::new());
    loop {
        let over = engine.wait(TICK);
        let now = engine.status();
        for f in now.failures.iter().skip(told) {
            console.failure(f);
        }
        told = now.failures.len();
        for n in node.notices(id) {
            if said.insert(n) {
                console.notice(n);
            }
        }
        while request.spec.itemize {
            let some = node.changes(id, MOST_CHANGES);
            console.changes(&some);
            if some.len() < MOST_CHANGES {
                break;
            }
        }
        if over {
            tracing::info!(state = now.state.name(), outstanding = now.outstanding, "job ended");
            let (state, counters) = (now.state, now.counters);
            return Ok(End { state, counters, failures: now.failures, aborted: now.aborted });
        }
        if stop.is_set() {
            engine.cancel();
        }
        console.tick(|| Reading {
            entries: now.counters.files + now.counters.dirs,
            bytes: now.counters.copied_bytes,
            outstanding: now.outstanding,
            failures: now.counters.failures,
            elapsed: began.elapsed(),
        });
    }
}

/// Other processes have other working directories.
fn absolute(spec: &treeferry_core::JobSpec) -> treeferry_core::JobSpec {
    let whole = |p: &std::path::Path| std::path::absolute(p).unwrap_or_else(|_| p.to_owned());
    let mut spec = spec.clone();
    spec.src = whole(&spec.src);
    spec.dst = whole(&spec.dst);
    spec.trash = spec.trash.as_deref().map(whole);
    spec
}
