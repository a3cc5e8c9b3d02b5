//! What is measured: the one table of names, kinds, units and meanings. Both exporters and `docs/metrics.md` are made
//! from it; the counters in it are those of [`Counters::TABLE`].
//!
//! A name at Graphite is a path in which a word in braces stands for a label; the same labels are those of Prometheus.

use std::borrow::Cow;
use std::sync::LazyLock;
use treeferry_core::Counters;

/// How the values of a metric are to be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// How something is distributed over the tasks that ended since the reading before.
    Summary,
    /// What has come since the reading before.
    Increment,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Summary => "summary",
            Kind::Increment => "increment",
        }
    }
}

/// Who tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Teller {
    /// Every node that works for a job, for itself; for a node that is gone, and at the end of a job, the one process
    /// of the cluster that also looks after lost tasks.
    Node,
    /// Every process, for itself.
    Process,
    /// One process of the cluster, for all; with the embedded engine the only one.
    One,
}

impl Teller {
    fn name(self) -> &'static str {
        match self {
            Teller::Node => "node",
            Teller::Process => "process",
            Teller::One => "one",
        }
    }
}

/// A metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// At Graphite, below the prefix.
    pub path: Cow<'static, str>,
    /// At Prometheus; empty: not there.
    pub name: Cow<'static, str>,
    /// How its values are to be understood.
    pub kind: Kind,
    /// Of one.
    pub unit: &'static str,
    /// Who tells it.
    pub teller: Teller,
    /// What it is.
    pub meaning: &'static str,
}

impl Metric {
    const fn new(
        path: &'static str,
        name: &'static str,
        kind: Kind,
        unit: &'static str,
        teller: Teller,
        meaning: &'static str,
    ) -> Metric {
        Metric { path: Cow::Borrowed(path), name: Cow::Borrowed(name), kind, unit, teller, meaning }
    }

    /// The words of the path that stand for labels.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.path.split('{').skip(1).filter_map(|rest| rest.split('}').next())
    }
}

/// The quantiles that are told of a summary: of tasks, at Graphite and at Prometheus.
pub const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)];

/// Those of [`Counters::TABLE`], in its order.
pub static COUNTERS: LazyLock<Vec<Metric>> = LazyLock::new(|| {
    let row = |(name, meaning): &(&'static str, &'static str)| Metric {
        path: format!("{{job_id}}.{{host}}.{name}").into(),
        name: format!("treeferry_{name}_total").into(),
        kind: Kind::Counter,
        unit: unit(name),
        teller: Teller::Node,
        meaning,
    };
    Counters::TABLE.iter().map(row).collect()
});

fn unit(counter: &str) -> &'static str {
    match counter {
        "dirs" | "made_dirs" => "directories",
        "files" | "copied_files" | "unchanged_files" | "verified_files" | "swept" => "files",
        "linked" | "symlinks" => "links",
        "left_out_xattrs" | "unsupported_xattrs" => "attributes",
        "failures" => "failures",
        bytes if bytes.ends_with("bytes") => "bytes",
        _ => "entries",
    }
}

/// Failures by class.
pub static FAILURES_BY_ERRNO: Metric = Metric::new(
    "{job_id}.{host}.failures_by_errno.{errno}",
    "treeferry_failures_by_errno_total",
    Kind::Counter,
    "failures",
    Teller::Node,
    "failures by the name of the error number; `none` for a finding that has none",
);
/// How long tasks take.
pub static TASK_SECONDS: Metric = Metric::new(
    "{job_id}.{host}.task_seconds.{work}",
    "treeferry_task_seconds",
    Kind::Summary,
    "seconds",
    Teller::Process,
    "how long tasks took, by what they do, to 3 % (the longest exactly)",
);
/// What is outstanding in a job.
pub static OUTSTANDING: Metric = Metric::new(
    "{job_id}.all.outstanding",
    "treeferry_outstanding_tasks",
    Kind::Gauge,
    "tasks",
    Teller::One,
    "tasks that are queued, running or parked; of a cluster bundles of them. 0 when the job is over",
);
/// Threads.
pub static POOL: Metric = Metric::new(
    "node.{host}.{process}.pool",
    "treeferry_pool_threads",
    Kind::Gauge,
    "threads",
    Teller::Process,
    "threads that take tasks",
);
/// Threads at work.
pub static BUSY: Metric = Metric::new(
    "node.{host}.{process}.busy",
    "treeferry_busy_threads",
    Kind::Gauge,
    "threads",
    Teller::Process,
    "threads that run a task",
);
/// Messages in the hands of a process.
pub static UNACKED: Metric = Metric::new(
    "node.{host}.{process}.unacked",
    "treeferry_unacked_messages",
    Kind::Gauge,
    "messages",
    Teller::Process,
    "messages of RabbitMQ that the process has and has not settled",
);
/// Values lost for Graphite.
pub static DROPPED: Metric = Metric::new(
    "node.{host}.{process}.dropped",
    "treeferry_graphite_dropped_total",
    Kind::Counter,
    "values",
    Teller::Process,
    "values for Graphite that were dropped because it did not take them, since the process began",
);
/// Messages that wait.
pub static READY: Metric = Metric::new(
    "queue.{queue}.ready",
    "treeferry_queue_ready_messages",
    Kind::Gauge,
    "messages",
    Teller::One,
    "messages that wait in a queue of RabbitMQ: walk, copy, links, dirtime, dead",
);
/// Who listens.
pub static CONSUMERS: Metric = Metric::new(
    "queue.{queue}.consumers",
    "treeferry_queue_consumers",
    Kind::Gauge,
    "consumers",
    Teller::One,
    "processes that take messages of a queue of RabbitMQ",
);

/// Up to when a mirror is complete.
pub static MIRROR_COMPLETE: Metric = Metric::new(
    "{job_id}.all.mirror.complete_up_to",
    "treeferry_mirror_complete_up_to_seconds",
    Kind::Gauge,
    "seconds since 1970",
    Teller::One,
    "every change of a mirror's source that was over before this moment is on its target, but for paths that fail. \
     Missing until the first walk is done",
);
/// How far that is behind.
pub static MIRROR_LAG: Metric = Metric::new(
    "{job_id}.all.mirror.lag",
    "treeferry_mirror_lag_seconds",
    Kind::Gauge,
    "seconds",
    Teller::One,
    "how long ago that moment is; of a mirror that has caught up the time between two looks, a tenth of a second",
);
/// What a mirror cannot bring to its target.
pub static MIRROR_FAILING: Metric = Metric::new(
    "{job_id}.all.mirror.failing",
    "treeferry_mirror_failing_paths",
    Kind::Gauge,
    "paths",
    Teller::One,
    "paths of a mirror that failed when they were last tried",
);

/// What an audit of a mirror has compared.
pub static MIRROR_AUDITED: Metric = Metric::new(
    "{job_id}.all.mirror.audit.compared",
    "treeferry_mirror_audit_compared_total",
    Kind::Counter,
    "entries",
    Teller::One,
    "with `treeferry watch --audit`: entries that were drawn and compared since the mirror was first audited",
);
/// What it has found.
pub static MIRROR_DIFFERING: Metric = Metric::new(
    "{job_id}.all.mirror.audit.differing",
    "treeferry_mirror_audit_differing_total",
    Kind::Counter,
    "entries",
    Teller::One,
    "those of them that differed though the mirror was complete",
);
/// What that means for all.
pub static MIRROR_SHARE: Metric = Metric::new(
    "{job_id}.all.mirror.audit.share",
    "treeferry_mirror_audit_share",
    Kind::Gauge,
    "of 1",
    Teller::One,
    "the share of all entries that differed when they were compared, as far as the draws of the last seven days tell",
);
/// And at most.
pub static MIRROR_SHARE_AT_MOST: Metric = Metric::new(
    "{job_id}.all.mirror.audit.share_at_most",
    "treeferry_mirror_audit_share_at_most",
    Kind::Gauge,
    "of 1",
    Teller::One,
    "what that share does not exceed, with 95 % confidence",
);

/// All but the counters, and but cmover's.
static OTHERS: [&Metric; 16] = [
    &FAILURES_BY_ERRNO,
    &TASK_SECONDS,
    &OUTSTANDING,
    &MIRROR_COMPLETE,
    &MIRROR_LAG,
    &MIRROR_FAILING,
    &MIRROR_AUDITED,
    &MIRROR_DIFFERING,
    &MIRROR_SHARE,
    &MIRROR_SHARE_AT_MOST,
    &POOL,
    &BUSY,
    &UNACKED,
    &DROPPED,
    &READY,
    &CONSUMERS,
];

/// What cmover's users know, of what a job does on a node.
pub static CMOVER_FILES: Metric = cmover("cmover.file_{host}_0.files", "files", "`files` of jobs that copy");
/// The same.
pub static CMOVER_DATA: Metric = cmover("cmover.file_{host}_0.data", "bytes", "`copied_bytes`");
/// The same.
pub static CMOVER_DIRS: Metric =
    cmover("cmover.dir_{host}_0.dirs", "directories", "`dirs` of jobs that copy");
/// The same.
pub static CMOVER_DEL_FILES: Metric =
    cmover("cmover.del_file_{host}_0.files", "entries", "`deleted`: entries of every kind");
/// The same.
pub static CMOVER_DEL_DIRS: Metric =
    cmover("cmover.del_dir_{host}_0.dirs", "directories", "`dirs` of jobs that delete");
/// And of its queues.
pub static CMOVER_QUEUE: Metric = Metric::new(
    "{queues}.{mover}",
    "",
    Kind::Gauge,
    "messages",
    Teller::One,
    "`mover.dir` and `mover.files`: messages that wait for walking and for copying, while a job copies; \
     `mover_del.dir` and `mover_del.files`: the same two, while a job deletes (which it does in the same walk). \
     0 otherwise. With the embedded engine `.dir` is `outstanding`, and `.files` is 0",
);

const fn cmover(path: &'static str, unit: &'static str, meaning: &'static str) -> Metric {
    Metric::new(path, "", Kind::Increment, unit, Teller::One, meaning)
}

static CMOVER: [&Metric; 6] =
    [&CMOVER_FILES, &CMOVER_DATA, &CMOVER_DIRS, &CMOVER_DEL_FILES, &CMOVER_DEL_DIRS, &CMOVER_QUEUE];

/// Every metric, in the order of the document.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    COUNTERS.iter().chain(OTHERS).chain(CMOVER)
}

/// `docs/metrics.md`.
pub fn document() -> String {
    let mut text = include_str!("head.md").to_owned();
    text += "\n## The table\n\n";
    rows(&mut text, COUNTERS.iter().chain(OTHERS), true);
    text += include_str!("cmover.md");
    rows(&mut text, CMOVER.into_iter(), false);
    text
}

fn rows(text: &mut String, metrics: impl Iterator<Item = &'static Metric>, named: bool) {
    let mut line = |cells: &[&str]| {
        // of those that Prometheus does not have its column is left out
        let cells = cells.iter().enumerate().filter(|(i, _)| named || *i != 1);
        let cells: Vec<&str> = cells.map(|(_, c)| *c).collect();
        *text += &format!("| {} |\n", cells.join(" | "));
    };
    line(&["Graphite, below the prefix", "Prometheus", "kind", "unit", "told by", "meaning"]);
    line(&["---"; 6]);
    for m in metrics {
        let (path, name) = (format!("`{}`", m.path), format!("`{}`", m.name));
        line(&[&path, &name, m.kind.name(), m.unit, m.teller.name(), m.meaning]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::path::Path;

    #[test]
    fn each_metric_has_a_name_of_its_own_that_both_can_hold() {
        let (mut paths, mut names) = (BTreeSet::new(), BTreeSet::new());
        for m in all() {
            assert!(paths.insert(&m.path), "{} twice", m.path);
            let plain = m.path.replace(['{', '}'], "");
            assert!(plain.split('.').all(|s| !s.is_empty()), "{}", m.path);
            assert!(plain.bytes().all(|b| b.is_ascii_alphanumeric() || b"._".contains(&b)), "{}", m.path);
            assert!(!m.meaning.is_empty() && !m.unit.is_empty() && !m.meaning.contains('|'), "{}", m.path);
            if m.name.is_empty() {
                assert!(m.kind == Kind::Increment || m.path.starts_with("{queues}"), "{}", m.path);
                continue;
            }
            assert!(names.insert(&m.name), "{} twice", m.name);
            assert!(m.name.starts_with("treeferry_"), "{}", m.name);
            assert_eq!(m.name.ends_with("_total"), m.kind == Kind::Counter, "{}", m.name);
        }
    }

    #[test]
    fn counters_have_the_names_that_are_promised() {
        assert_eq!(COUNTERS.len(), Counters::TABLE.len());
        let files = COUNTERS.iter().find(|m| m.name == "treeferry_files_total").unwrap();
        assert_eq!(files.path, "{job_id}.{host}.files");
        assert_eq!(files.labels().collect::<Vec<_>>(), ["job_id", "host"]);
        assert_eq!(COUNTERS.iter().filter(|m| m.unit == "bytes").count(), 2);
    }

    /// `TREEFERRY_WRITE_DOCS=1 cargo test -p treeferry-service --lib document` writes it anew.
    #[test]
    fn the_document_is_that_of_this_table() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        if std::env::var_os("TREEFERRY_WRITE_DOCS").is_some() {
            std::fs::write(&file, document()).unwrap();
        }
        let written = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            written == document(),
            "docs/metrics.md is stale: TREEFERRY_WRITE_DOCS=1 cargo test -p treeferry-service --lib document"
        );
    }
}
