//! A job with the cluster engine: this process opens the roots, registers the job and seeds its first task, and then
//! waits and tells. The work is done by `treeferry worker` and `treeferry hardlinker`, here and elsewhere.

use crate::args::daemon::host;
use crate::events;
use crate::job::{Request, Start};
use crate::metering;
use crate::output::{Console, End, Reading};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use treeferry_core::{JobId, JobSpec, RelPath, Stop};
use treeferry_queue::{Control, Engine, JobRecord, Node, Site, Status};
use treeferry_service::metrics::{Meter, Metrics};
use treeferry_worker::{Job, OpenError, Reporter};

/// How often the ledger is asked how the job stands.
const TICK: Duration = Duration::from_millis(200);
/// Changes, or failures, that are fetched at once.
const AT_ONCE: usize = 10_000;

/// Connects to broker and ledger.
pub fn connect(site: &Site, name: &str) -> Result<Arc<Node>, OpenError> {
    Node::connect(site, name).map_err(|e| OpenError::Unreachable(e.to_string()))
}

/// Registers the job, and says how it ended; `None`: nobody wants to wait for that.
pub fn run(
    site: &Site,
    id: JobId,
    request: &Request,
    stop: &Stop,
    console: &Arc<Console>,
) -> Result<Option<End>, OpenError> {
    let node = connect(site, &format!("controller-{}", host()))?;
    node.tell(&host(), request.telling.keep.buffer, request.telling.stream_length);
    let job = Job::open(request.spec.clone(), stop.clone())?;
    let record = JobRecord {
        spec: absolute(&request.spec),
        made_target: job.made_target(),
        roots: job.root_inodes(),
        limits: job.limits().to_text(),
        created_ms: Control::now_ms(),
    };
    match request.start {
        Start::Whole => node.create_job(id, &record, job.first_task()),
        Start::Again(old) => {
            let control = Control::connect(site).map_err(|e| OpenError::Unreachable(e.to_string()))?;
            let failed = failed_paths(&control, old).map_err(|e| OpenError::Unreachable(e.to_string()))?;
            let begun = control.begin(id, &record, job.again(failed));
            begun.map_err(|e| OpenError::Unreachable(e.to_string()))?;
        }
    }
    tracing::info!(passes = %request.spec.passes, job = %id, "job registered");
    events::put(node.outbox(), events::job_began(id, &record.spec));
    if request.detach {
        node.close();
        return Ok(None);
    }
    // the workers tell what they do; this process may be the one that speaks for all
    let meter = request.metrics.clone().map(|s| {
        let metrics = Arc::new(Metrics::start(s));
        metering::cluster::start(
            &metrics,
            &node,
            metering::cluster::CONTROLLER,
            &Arc::default(),
            Box::new(|| None),
        )
    });
    let end = follow(&node, id, request.spec.itemize, stop, console);
    meter.into_iter().for_each(Meter::stop);
    node.close();
    Ok(Some(end))
}

fn failed_paths(control: &Control, job: JobId) -> Result<Vec<RelPath>, impl std::error::Error + use<>> {
    let mut all = Vec::new();
    loop {
        let some = control.failures(job, all.len(), AT_ONCE)?;
        let end = some.len() < AT_ONCE;
        all.extend(some.into_iter().map(|f| f.path));
        if end {
            return Ok::<_, treeferry_queue::LedgerError>(all);
        }
    }
}

/// Waits for the end of a job, and tells what happens.
fn follow(node: &Arc<Node>, id: JobId, itemize: bool, stop: &Stop, console: &Arc<Console>) -> End {
    let began = Instant::now();
    let engine = Engine::cluster(node, id);
    let (mut told, mut said) = (0, BTreeSet::new());
    loop {
        let over = engine.wait(TICK);
        let now = engine.status();
        for f in now.failures.iter().skip(told) {
            console.failure(f, None);
        }
        told = told.max(now.failures.len());
        // the rest, of which the status has not all
        while told >= Status::MAX_FAILURES && told < now.counters.failures as usize {
            let some = node.failures(id, told, AT_ONCE);
            some.iter().for_each(|f| console.failure(f, None));
            told += some.len();
            if some.is_empty() {
                break;
            }
        }
        for n in node.notices(id) {
            if said.insert(n) {
                console.notice(n);
            }
        }
        if itemize {
            loop {
                let some = node.changes(id, AT_ONCE);
                console.changes(&some);
                if some.len() < AT_ONCE {
                    break;
                }
            }
        }
        if over {
            tracing::info!(state = now.state.name(), outstanding = now.outstanding, "job ended");
            let (state, counters) = (now.state, now.counters);
            return End { state, counters, failures: now.failures, aborted: now.aborted };
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
pub fn absolute(spec: &JobSpec) -> JobSpec {
    let mut spec = spec.clone();
    spec.src = whole(&spec.src);
    spec.dst = whole(&spec.dst);
    spec.trash = spec.trash.as_deref().map(whole);
    spec
}

/// The one way in which a path is written of all that mean the same on every node: absolute, without `.` and slashes that say
/// nothing. Symlinks and `..` are left as they are, since what they lead to is another thing on another node.
pub fn whole(path: &Path) -> PathBuf {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    // components have no slash at their end
    whole.components().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_in_one_way() {
        let here = std::env::current_dir().unwrap();
        let is = |path: &str, want: &Path| {
            assert_eq!(whole(Path::new(path)).as_os_str(), want.as_os_str(), "{path}");
        };
        for path in ["s", "./s", "s/", "./s//", "s/.", ".//./s/./"] {
            is(path, &here.join("s"));
        }
        for path in ["/a/b", "/a/b/", "//a//b", "/a/./b/."] {
            is(path, Path::new("/a/b"));
        }
        is("/a/../b/", Path::new("/a/../b"));
        is("/", Path::new("/"));
        is(".", &here);
    }
}
