//! A job of the embedded engine: this process knows all of it.

use super::{CMOVER_COUNTERS, Increments, Tasks, cmover_queues, counted, now_s, of_process, outstanding};
use crate::args::daemon::host;
use std::sync::Arc;
use treeferry_core::job::JobState;
use treeferry_core::{Counters, JobId, PassSet};
use treeferry_queue::Status;
use treeferry_service::metrics::{Meter, Metrics, Sample};

/// Tells of a job from now on. `status`: how it stands; `load`: threads, and those at work; `more`: what else there is.
pub fn start(
    metrics: &Arc<Metrics>,
    id: JobId,
    passes: PassSet,
    status: impl Fn() -> Status + Send + 'static,
    tasks: &Arc<Tasks>,
    load: impl Fn() -> (usize, usize) + Send + 'static,
    more: impl Fn() -> Vec<Sample> + Send + 'static,
) -> Meter {
    let step = metrics.settings().interval.as_secs().max(1);
    let mut told =
        Told { id, passes, host: host(), step, now: Default::default(), before: Default::default() };
    let (tasks, m) = (Arc::clone(tasks), Arc::clone(metrics));
    Meter::start(metrics, move || {
        let at = now_s();
        let mut all = told.reading(&status(), &tasks, m.settings().cmover_queues.as_deref(), at);
        all.extend(of_process(&told.host, &format!("sync_{id}"), load(), m.dropped(), at));
        all.extend(more());
        all
    })
}

struct Told {
    id: JobId,
    passes: PassSet,
    host: String,
    /// Of Graphite, in seconds.
    step: u64,
    /// What was counted when cmover's names were last told, and in which step that was ...
    now: (u64, Counters),
    /// ... and when they were last told in a step before that.
    before: Counters,
}

impl Told {
    fn reading(&mut self, now: &Status, tasks: &Tasks, cmover_names: Option<&str>, at: u64) -> Vec<Sample> {
        let by_errno = tasks.failures_by_errno();
        let by_errno = by_errno.iter().map(|(class, n)| (class.as_str(), *n));
        let mut all = counted(self.id, &self.host, at, &now.counters, by_errno);
        let left = if now.state == JobState::Running { now.outstanding } else { 0 };
        all.push(outstanding(self.id, at, left));
        all.extend(tasks.take(self.id, &self.host, at));
        if let Some(queues) = cmover_names {
            let new = self.increments(at, &now.counters);
            let value = |name: &str| new.iter().find(|(n, _)| *n == name).map_or(0, |(_, n)| n);
            let mut news = Increments { at, ..Increments::default() };
            news.add(self.passes, &CMOVER_COUNTERS.map(value));
            all.extend(news.samples(&self.host));
            all.extend(cmover_queues(queues, at, &[self.passes], left, 0));
        }
        all
    }

    /// What was counted since the step before this one. Of two readings in one step Graphite keeps the second.
    fn increments(&mut self, at: u64, counters: &Counters) -> Counters {
        let step = at / self.step;
        if step != self.now.0 {
            self.before = std::mem::take(&mut self.now.1);
        }
        self.now = (step, counters.clone());
        counters.since(&self.before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_reading_of_a_step_stands_for_the_first_too() {
        let passes = PassSet::default();
        let mut told = Told {
            id: JobId(1),
            passes,
            host: "h".to_owned(),
            step: 10,
            now: Default::default(),
            before: Default::default(),
        };
        let mut read = |at, files| told.increments(at, &Counters { files, ..Counters::default() }).files;
        assert_eq!([read(1003, 5), read(1013, 12), read(1018, 20), read(1023, 21)], [5, 7, 15, 1]);
    }
}
