//! A daemon of the cluster: connects, listens, and works for whatever job comes, until it is told to stop.

use crate::args::Daemon;
use crate::cluster::connect;
use crate::links::linker;
use crate::output::complain;
use std::sync::Arc;
use std::time::Duration;
use treeferry_core::{Change, Failure, JobId, Notice, Stop};
use treeferry_queue::{Engine, Lane, Node, Site};
use treeferry_service::{Exit, logging, signals};
use treeferry_worker::{Context, Job, Jobs, Member, NodePool, Reporter};

/// How often a daemon looks whether it is to stop; by eye.
const TICK: Duration = Duration::from_millis(100);

/// Runs until a signal.
pub fn run(what: &str, site: &Site, lanes: &[Lane], pool: usize, args: &Daemon) -> Exit {
    let sink = |line: &[u8]| {
        use std::io::Write;
        let _ = std::io::stderr().write_all(line);
    };
    if let Err(e) = logging::start(logging::level(false, args.verbose), sink) {
        complain(&e.to_string());
        return Exit::Usage;
    }
    let stop = Stop::default();
    if let Err(e) = signals::watch(&stop, || complain(signals::STOPPING)) {
        tracing::warn!("signals end this process at once: {e}");
    }
    let node = match connect(site, what) {
        Ok(n) => n,
        Err(e) => {
            complain(&e.to_string());
            return Exit::Unreachable;
        }
    };
    // what is under way is handed back at the end of its present task, which the job's own stop would cut short
    let jobs = Box::new(Here { node: Arc::clone(&node) });
    let pool = match NodePool::start(&node, jobs, &stop, pool) {
        Ok(p) => p,
        Err(e) => {
            complain(&format!("cannot start a thread: {e}"));
            return Exit::Unusable;
        }
    };
    node.listen(lanes, u16::try_from(pool.size()).unwrap_or(u16::MAX));
    complain(&format!("{what} is ready, with {} threads", pool.size()));
    while !stop.is_set() {
        std::thread::sleep(TICK);
    }
    pool.join();
    node.close();
    Exit::Done
}

/// Opens jobs on this node.
struct Here {
    node: Arc<Node>,
}

impl Jobs for Here {
    fn open(&self, id: JobId) -> Result<Context, String> {
        let record = self.node.record(id).ok_or("the ledger has no such job")?;
        let member = Member { made_target: record.made_target, roots: record.roots };
        let job = Job::join(record.spec, Stop::default(), &member).map_err(|e| e.to_string())?;
        Ok(Context {
            engine: Engine::cluster(&self.node, id),
            links: linker(&job),
            job,
            reporter: Arc::new(Log(id)),
        })
    }
}

/// Tells the log; what the user of the job is to hear, the ledger knows.
struct Log(JobId);

impl Reporter for Log {
    fn changes(&self, _: &[Change]) {}
    fn failure(&self, f: &Failure) {
        tracing::warn!("job {}: {f}", self.0);
    }
    fn notice(&self, n: Notice) {
        tracing::info!("job {}: {}", self.0, n.text());
    }
}
