//! What this process tells of itself and its jobs, put together for the exporters: see `docs/metrics.md`.

pub mod cluster;
pub mod local;
mod tasks;

pub use tasks::{Counting, Tasks};

use crate::watching::audit::{Counted, Window};
use treeferry_core::{Counters, JobId, PassSet};
use treeferry_mirror::Figures;
use treeferry_service::metrics::table::{self, Metric};
use treeferry_service::metrics::{Sample, Value};

/// What a job has counted on a node.
fn counted<'a>(
    id: JobId,
    host: &str,
    at: u64,
    counters: &Counters,
    failures_by_errno: impl IntoIterator<Item = (&'a str, u64)>,
) -> Vec<Sample> {
    let labels = || vec![("job_id", id.to_string()), ("host", host.to_owned())];
    let values = table::COUNTERS.iter().zip(counters.iter());
    let mut all: Vec<Sample> = values
        .map(|(metric, (_, n))| Sample { metric, labels: labels(), value: Value::Count(n), at })
        .collect();
    for (class, n) in failures_by_errno {
        let mut labels = labels();
        labels.push(("errno", class.to_owned()));
        all.push(Sample { metric: &table::FAILURES_BY_ERRNO, labels, value: Value::Count(n), at });
    }
    all
}

fn outstanding(id: JobId, at: u64, tasks: u64) -> Sample {
    gauge(&table::OUTSTANDING, vec![("job_id", id.to_string())], tasks, at)
}

fn gauge(metric: &'static Metric, labels: Vec<(&'static str, String)>, n: u64, at: u64) -> Sample {
    Sample { metric, labels, value: Value::Gauge(n as f64), at }
}

/// How a mirror stands, and what an audit has found of it, if there is one. `now_us`: µs since 1970.
pub fn of_mirror(id: JobId, f: &Figures, audit: Option<(Counted, Window)>, now_us: u64) -> Vec<Sample> {
    let of = |metric, value| {
        let labels = vec![("job_id", id.to_string())];
        Sample { metric, labels, value, at: now_us / 1_000_000 }
    };
    let one = |metric, value| of(metric, Value::Gauge(value));
    let mut all = vec![one(&table::MIRROR_FAILING, f.failing as f64)];
    if let Some(t) = f.complete_up_to {
        all.push(one(&table::MIRROR_COMPLETE, t as f64 / 1e6));
        all.push(one(&table::MIRROR_LAG, now_us.saturating_sub(t) as f64 / 1e6));
    }
    if let Some((counted, window)) = audit {
        all.push(of(&table::MIRROR_AUDITED, Value::Count(counted.compared)));
        all.push(of(&table::MIRROR_DIFFERING, Value::Count(counted.differing)));
        all.push(one(&table::MIRROR_SHARE, window.share));
        all.push(one(&table::MIRROR_SHARE_AT_MOST, window.share_at_most));
    }
    all
}

/// What a process tells of itself: threads, those at work, and values that did not get to Graphite.
fn of_process(host: &str, process: &str, (pool, busy): (usize, usize), dropped: u64, at: u64) -> Vec<Sample> {
    let labels = || vec![("host", host.to_owned()), ("process", process.to_owned())];
    vec![
        gauge(&table::POOL, labels(), pool as u64, at),
        gauge(&table::BUSY, labels(), busy as u64, at),
        Sample { metric: &table::DROPPED, labels: labels(), value: Value::Count(dropped), at },
    ]
}

/// The counters that cmover's names are made of, in this order.
const CMOVER_COUNTERS: [&str; 4] = ["files", "copied_bytes", "dirs", "deleted"];

/// What jobs have counted on a node since it was last told, under cmover's names.
#[derive(Clone, Copy, Debug, Default)]
struct Increments {
    at: u64,
    /// Nothing is told of what no job does.
    copy: Option<[u64; 3]>,
    delete: Option<[u64; 2]>,
}

impl Increments {
    /// Adds those of a job. `numbers`: of [`CMOVER_COUNTERS`].
    fn add(&mut self, passes: PassSet, numbers: &[u64]) {
        let &[files, bytes, dirs, deleted] = numbers else { return };
        if passes.copy {
            let [f, b, d] = self.copy.unwrap_or_default();
            self.copy = Some([f + files, b + bytes, d + dirs]);
        }
        if passes.delete {
            let [e, d] = self.delete.unwrap_or_default();
            self.delete = Some([e + deleted, d + dirs]);
        }
    }

    fn samples(&self, host: &str) -> Vec<Sample> {
        let copy = [&table::CMOVER_FILES, &table::CMOVER_DATA, &table::CMOVER_DIRS];
        let delete = [&table::CMOVER_DEL_FILES, &table::CMOVER_DEL_DIRS];
        let copied = self.copy.into_iter().flat_map(|n| copy.into_iter().zip(n));
        let deleted = self.delete.into_iter().flat_map(|n| delete.into_iter().zip(n));
        let sample = |(metric, n): (&'static Metric, u64)| {
            let labels = vec![("host", host.to_owned())];
            Sample { metric, labels, value: Value::Count(n), at: self.at }
        };
        copied.chain(deleted).map(sample).collect()
    }
}

/// The lengths of cmover's queues. `passes`: of the jobs that run.
fn cmover_queues(queues: &str, at: u64, passes: &[PassSet], walk: u64, copy: u64) -> Vec<Sample> {
    let copies = passes.iter().any(|p| p.copy);
    let deletes = passes.iter().any(|p| p.delete);
    [
        ("mover.dir", copies, walk),
        ("mover.files", copies, copy),
        ("mover_del.dir", deletes, walk),
        ("mover_del.files", deletes, copy),
    ]
    .into_iter()
    .map(|(mover, does, n)| {
        let labels = vec![("queues", queues.to_owned()), ("mover", mover.to_owned())];
        gauge(&table::CMOVER_QUEUE, labels, if does { n } else { 0 }, at)
    })
    .collect()
}

fn now_s() -> u64 {
    treeferry_queue::Control::now_ms() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    fn told(all: &[Sample]) -> Vec<(String, Value)> {
        all.iter().map(|s| (s.metric.path.to_string(), s.value.clone())).collect()
    }

    #[test]
    fn every_label_of_a_metric_has_a_value() {
        let mut all = counted(JobId(1), "h", 7, &Counters::default(), [("EIO", 3)]);
        assert_eq!(all.len(), Counters::TABLE.len() + 1);
        all.push(outstanding(JobId(1), 7, 3));
        all.extend(of_process("h", "worker", (2, 1), 0, 7));
        let every = PassSet { copy: true, delete: true, dirtime: true };
        let mut news = Increments { at: 7, ..Increments::default() };
        news.add(every, &[1, 2, 3, 4]);
        all.extend(news.samples("h"));
        all.extend(cmover_queues("queue", 7, &[every], 1, 2));
        for s in &all {
            let given: Vec<&str> = s.labels.iter().map(|(k, _)| *k).collect();
            assert_eq!(s.metric.labels().collect::<Vec<_>>(), given, "{}", s.metric.path);
            assert_eq!(s.at, 7);
        }
    }

    #[test]
    fn each_counter_is_told_under_its_own_name() {
        let mut counters = Counters::default();
        (0..).zip(Counters::TABLE).for_each(|(n, (name, _))| counters.set(name, n));
        let all = counted(JobId(1), "h", 7, &counters, []);
        for ((s, n), (name, _)) in all.iter().zip(0..).zip(Counters::TABLE) {
            assert!(s.metric.path.ends_with(&format!("}}.{name}")), "{name}: {}", s.metric.path);
            assert_eq!(s.value, Value::Count(n));
        }
    }

    #[test]
    fn cmovers_passes_are_told_as_long_as_a_job_has_them() {
        let only_delete = PassSet { copy: false, delete: true, dirtime: false };
        let mut news = Increments::default();
        news.add(only_delete, &[1, 2, 3, 4]);
        let deleted = |entries, dirs| {
            [("cmover.del_file_{host}_0.files", entries), ("cmover.del_dir_{host}_0.dirs", dirs)]
                .map(|(path, n)| (path.to_owned(), Value::Count(n)))
        };
        assert_eq!(told(&news.samples("h")), deleted(4, 3));
        // of two jobs on one node the sum
        news.add(PassSet { copy: true, ..only_delete }, &[10, 20, 30, 40]);
        assert_eq!(told(&news.samples("h"))[3..], deleted(44, 33));
        let values =
            |p: &[PassSet]| cmover_queues("q", 7, p, 5, 6).into_iter().map(|s| s.value).collect::<Vec<_>>();
        assert_eq!(values(&[only_delete]), [0.0, 0.0, 5.0, 6.0].map(Value::Gauge));
        assert_eq!(values(&[]), [0.0; 4].map(Value::Gauge));
    }
}
