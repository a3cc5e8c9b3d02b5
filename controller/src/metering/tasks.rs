//! What the worker threads of this process tell of the tasks of a job.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;
use treeferry_core::{Change, Event, Failure, JobId, Notice, Pass, Work, errno};
use treeferry_service::metrics::table;
use treeferry_service::metrics::{Durations, Sample, Value};
use treeferry_worker::Reporter;

/// How long the tasks of a job took here, and which failures they named.
#[derive(Default)]
pub struct Tasks {
    took: RwLock<BTreeMap<&'static str, Durations>>,
    failures: Mutex<BTreeMap<String, u64>>,
}

impl Tasks {
    fn ran(&self, work: &'static str, took: Duration) {
        let known = self.took.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(d) = known.get(work) {
            return d.record(took);
        }
        drop(known);
        let mut all = self.took.write().unwrap_or_else(PoisonError::into_inner);
        all.entry(work).or_default().record(took);
    }

    fn failures(&self) -> MutexGuard<'_, BTreeMap<String, u64>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Failures by class.
    pub fn failures_by_errno(&self) -> BTreeMap<String, u64> {
        self.failures().clone()
    }

    /// How long tasks took that have ended since this was last asked.
    pub fn take(&self, id: JobId, host: &str, at: u64) -> Vec<Sample> {
        let all = self.took.read().unwrap_or_else(PoisonError::into_inner);
        let sample = |(work, d): (&&'static str, &Durations)| {
            let labels =
                vec![("job_id", id.to_string()), ("host", host.to_owned()), ("work", (*work).to_owned())];
            Sample { metric: &table::TASK_SECONDS, labels, value: Value::Distribution(d.take()), at }
        };
        all.iter().map(sample).collect()
    }
}

/// Takes note of what a reporter is told.
pub struct Counting {
    tasks: Arc<Tasks>,
    inner: Arc<dyn Reporter>,
}

impl Counting {
    /// Tells `inner` all of it.
    pub fn new(tasks: &Arc<Tasks>, inner: Arc<dyn Reporter>) -> Counting {
        Counting { tasks: Arc::clone(tasks), inner }
    }
}

impl Reporter for Counting {
    fn changes(&self, changes: &[Change]) {
        self.inner.changes(changes);
    }
    fn events(&self, events: Vec<Event>) {
        self.inner.events(events);
    }
    fn failure(&self, f: &Failure, pass: Option<Pass>) {
        *self.tasks.failures().entry(errno::class(f.errno).into_owned()).or_default() += 1;
        self.inner.failure(f, pass);
    }
    fn notice(&self, n: Notice) {
        self.inner.notice(n);
    }
    fn ran(&self, work: &Work, took: Duration) {
        self.tasks.ran(work.name(), took);
        self.inner.ran(work, took);
    }
}
