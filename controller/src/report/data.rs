//! What is known of a job at one moment, and what follows from it. One structure: the ledger gives it, or the document
//! that a job without a cluster leaves behind; text, JSON and HTML are made from it.

use super::moments::{Moment, Rates};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use treeferry_core::figures::{Kind, Same};
use treeferry_core::job::JobState;
use treeferry_core::records::{Best, Record};
use treeferry_core::sizes::Sizes;
use treeferry_core::{Counters, Failure, Figures, RelPath, Sample, errno};

/// The form of the document.
pub const FORMAT: u32 = 1;
/// A job without a cluster that has said nothing for so long (ms) is thought to be dead: it writes every ten seconds.
const SILENT_MS: u64 = 60_000;
/// So many groups of unfinished subtrees are kept.
const SUBTREES: usize = 100;
/// Paths are grouped until there are no more groups than this.
const SUBTREE_GROUPS: usize = 20;

/// What is known of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The form of this.
    pub format: u32,
    /// Its id.
    pub job: String,
    /// Who runs it.
    pub engine: Engine,
    /// Where it runs, if it is one process.
    pub host: Option<String>,
    /// Its state.
    pub state: JobState,
    /// Nobody works for it until it is resumed.
    pub paused: bool,
    /// Why it became impossible; empty if it did not.
    pub error: String,
    /// The source, escaped.
    pub src: String,
    /// The inode of the source.
    pub src_inode: u64,
    /// The target, escaped.
    pub dst: String,
    /// Which passes.
    pub passes: Vec<String>,
    /// Nothing is touched.
    pub dry_run: bool,
    /// When it began, in ms since 1970.
    pub began_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// When all of this was so.
    pub seen_ms: u64,
    /// Tasks outstanding: with a cluster, bundles of them.
    pub outstanding: u64,
    /// What was counted, by name.
    pub counters: BTreeMap<String, u64>,
    /// Regular files by size.
    pub sizes: Vec<SizeClass>,
    /// By size.
    pub largest_files: Vec<FileRow>,
    /// By the time that their copy took.
    pub slowest_files: Vec<FileRow>,
    /// By entries.
    pub largest_dirs: Vec<DirRow>,
    /// By time.
    pub longest_tasks: Vec<TaskRow>,
    /// Tasks that run, the longest first.
    pub running: Vec<TaskRow>,
    /// Where something is left to do.
    pub unfinished: Vec<Subtree>,
    /// Failures by kind, the most frequent first.
    pub failure_groups: Vec<FailureGroup>,
    /// Failures one by one, as far as they are kept; only where they are asked for, or there is nobody else to ask.
    pub failures: Vec<FailureRow>,
    /// How it came along.
    pub history: Vec<Sample>,
    /// What each node has counted.
    pub nodes: Vec<NodeShare>,
}

/// Who runs a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// One process.
    Embedded,
    /// A cluster.
    Cluster,
}

/// Files of like size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeClass {
    /// The least size.
    pub from_bytes: u64,
    /// The least size that is too large; the last class has none.
    pub below_bytes: Option<u64>,
    /// Names of files.
    pub files: u64,
    /// The sum of their sizes.
    pub bytes: u64,
}

/// A file that stands out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileRow {
    /// Escaped.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// How long its copy took.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seconds: Option<f64>,
}

/// A directory that stands out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirRow {
    /// Escaped.
    pub path: String,
    /// Names in it.
    pub entries: u64,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskRow {
    /// What kind of work.
    pub work: String,
    /// Escaped.
    pub path: String,
    /// For how long it ran, or has been running.
    pub seconds: f64,
    /// Where it runs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub worker: Option<String>,
}

/// A part of the tree where something is left to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subtree {
    /// Escaped.
    pub path: String,
    /// Tasks at it or below it.
    pub tasks: u64,
}

/// Failures that have operation, error number and tree in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureGroup {
    /// The operation.
    pub op: String,
    /// The error number; 0: the finding is ours.
    pub errno: i32,
    /// Its name, `ENOSPC`.
    pub errno_name: Option<String>,
    /// `source` or `target`.
    pub side: String,
    /// In words.
    pub error: String,
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<String>,
}

/// A failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureRow {
    /// Escaped.
    pub path: String,
    /// The operation.
    pub op: String,
    /// The error number; 0: the finding is ours.
    pub errno: i32,
    /// `source` or `target`.
    pub side: String,
    /// In words.
    pub error: String,
}

/// What a node has counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeShare {
    /// Its name.
    pub node: String,
    /// By name of the counter.
    pub counters: BTreeMap<String, u64>,
}

/// How much there is, and who says so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Total {
    /// Files and directories.
    pub entries: u64,
    /// Who says so.
    pub source: TotalSource,
}

/// Who says how much there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TotalSource {
    /// Whoever asks.
    Given,
    /// A job with the same roots that was done.
    EarlierJob(String),
    /// The file system of SRC, by its count of inodes in use.
    FileSystem,
}

/// How far a job has come.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Progress {
    /// Files and directories looked at.
    pub entries: u64,
    /// How many there are, and who says so.
    pub total: Option<Total>,
    /// Of the total.
    pub percent: Option<f64>,
    /// Of the latest tenth of the time, or the latest minute if that is longer.
    pub entries_per_s: f64,
    /// Seconds to go at this rate.
    pub eta_s: Option<u64>,
}

impl Facts {
    /// A counter.
    pub fn count(&self, name: &str) -> u64 {
        self.counters.get(name).copied().unwrap_or(0)
    }

    /// Files and directories that were looked at.
    pub fn entries(&self) -> u64 {
        self.count("files").saturating_add(self.count("dirs"))
    }

    /// How long it took, or takes so far, in seconds.
    pub fn elapsed_s(&self) -> f64 {
        self.ended_ms.unwrap_or(self.seen_ms).saturating_sub(self.began_ms) as f64 / 1000.0
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.state == JobState::Running
    }

    /// Whether it should have written since, and has not: it was killed, or its machine is gone.
    pub fn is_silent(&self, now_ms: u64) -> bool {
        self.engine == Engine::Embedded
            && self.is_running()
            && now_ms.saturating_sub(self.seen_ms) > SILENT_MS
    }

    /// The word for its state.
    pub fn state_word(&self, now_ms: u64) -> &'static str {
        match self.state {
            JobState::Running if self.is_silent(now_ms) => "silent",
            JobState::Running if self.paused => "paused",
            s => s.name(),
        }
    }

    /// Rates over time.
    pub fn rates(&self) -> Rates {
        let last = Moment {
            at_ms: self.ended_ms.unwrap_or(self.seen_ms),
            entries: self.entries(),
            copied_bytes: self.count("copied_bytes"),
            deleted: self.count("deleted"),
        };
        Rates::new(self.began_ms, &self.history, last)
    }

    /// How far it has come, of so much.
    pub fn progress(&self, total: Option<Total>) -> Progress {
        let entries = self.entries();
        let entries_per_s = self.rates().latest();
        // what is more than was expected is all of it, and says nothing of what is to come
        let percent =
            total.as_ref().filter(|t| t.entries > 0).map(|t| entries as f64 * 100.0 / t.entries as f64);
        let left = total.as_ref().and_then(|t| t.entries.checked_sub(entries));
        let moves = self.is_running() && !self.paused && entries_per_s > 0.0;
        let eta_s = left.filter(|_| moves).map(|n| (n as f64 / entries_per_s) as u64);
        Progress { entries, total, percent: percent.map(|p| p.min(100.0)), entries_per_s, eta_s }
    }

    /// Counters with something in them: name, value, meaning; in the order of the table.
    pub fn counted(&self) -> Vec<(&'static str, u64, &'static str)> {
        let all = Counters::TABLE.iter().map(|(name, meaning)| (*name, self.count(name), *meaning));
        all.filter(|(name, n, _)| *n > 0 || ["dirs", "files", "bytes", "failures"].contains(name)).collect()
    }

    /// Takes over what an engine has kept.
    pub fn take_figures(&mut self, f: &Figures) {
        self.sizes = sizes(&f.sizes);
        let files = |best| f.records.of(best).iter();
        let row = |r: &Record| FileRow { path: r.path.to_string(), bytes: r.value, seconds: None };
        self.largest_files = files(Best::LargestFile).map(row).collect();
        let row = |r: &Record| FileRow {
            path: r.path.to_string(),
            bytes: r.note.parse().unwrap_or(0),
            seconds: Some(seconds(r.value)),
        };
        self.slowest_files = files(Best::SlowestFile).map(row).collect();
        let row = |r: &Record| DirRow { path: r.path.to_string(), entries: r.value };
        self.largest_dirs = files(Best::LargestDir).map(row).collect();
        let row = |r: &Record| TaskRow {
            work: r.note.clone(),
            path: r.path.to_string(),
            seconds: seconds(r.value),
            worker: None,
        };
        self.longest_tasks = files(Best::LongestTask).map(row).collect();
        self.failure_groups =
            f.failures.by_count().into_iter().map(|(k, s)| FailureGroup::new(k, s)).collect();
    }
}

impl FailureGroup {
    fn new(kind: &Kind, same: &Same) -> FailureGroup {
        FailureGroup {
            op: kind.op.clone(),
            errno: kind.errno,
            errno_name: errno::name(kind.errno).map(str::to_owned),
            side: kind.side.name().to_owned(),
            error: same.examples.first().map(|f| f.error.clone()).unwrap_or_default(),
            count: same.count,
            examples: same.examples.iter().map(|f| f.path.to_string()).collect(),
        }
    }

    /// What tells it from others, as `--failures` takes it.
    pub fn name(&self) -> String {
        match (&self.errno_name, self.errno) {
            (Some(name), _) => format!("{}:{name}", self.op),
            (None, 0) => self.op.clone(),
            (None, n) => format!("{}:{n}", self.op),
        }
    }
}

impl From<&Failure> for FailureRow {
    fn from(f: &Failure) -> FailureRow {
        FailureRow {
            path: f.path.to_string(),
            op: f.op.clone(),
            errno: f.errno,
            side: f.side.name().to_owned(),
            error: f.error.clone(),
        }
    }
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn sizes(s: &Sizes) -> Vec<SizeClass> {
    let row = |(class, c): (usize, treeferry_core::sizes::Class)| {
        let (from_bytes, below_bytes) = Sizes::bounds(class);
        SizeClass { from_bytes, below_bytes, files: c.files, bytes: c.bytes }
    };
    s.iter().map(row).collect()
}

/// Groups paths by the subtrees that they lie in: as deep as gives few groups, and at least by the entries of the root.
pub fn subtrees(paths: &[RelPath]) -> Vec<Subtree> {
    let deepest = paths.iter().map(depth).max().unwrap_or(0);
    let groups = |depth: usize| {
        let mut groups: BTreeMap<&[u8], u64> = BTreeMap::new();
        for p in paths {
            *groups.entry(first_components(p.as_bytes(), depth)).or_default() += 1;
        }
        groups
    };
    let mut found = groups(1);
    for d in 2..=deepest {
        let finer = groups(d);
        if finer.len() > SUBTREE_GROUPS {
            break;
        }
        found = finer;
    }
    let mut all: Vec<(&[u8], u64)> = found.into_iter().collect();
    all.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    // a part of a path is one too
    let shown = |p: &[u8]| RelPath::new(p).map(|p| p.to_string()).unwrap_or_default();
    all.into_iter().take(SUBTREES).map(|(p, tasks)| Subtree { path: shown(p), tasks }).collect()
}

fn depth(p: &RelPath) -> usize {
    if p.is_root() { 0 } else { p.as_bytes().iter().filter(|b| **b == b'/').count() + 1 }
}

fn first_components(path: &[u8], depth: usize) -> &[u8] {
    let slashes = path.iter().enumerate().filter(|(_, b)| **b == b'/');
    match slashes.map(|(i, _)| i).nth(depth - 1) {
        Some(i) => &path[..i],
        None => path,
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn a_document_survives_its_own_text() {
        for f in [samples::empty(), samples::running(), samples::odd(), samples::huge()] {
            let text = serde_json::to_string(&f).unwrap();
            assert_eq!(serde_json::from_str::<Facts>(&text).unwrap(), f);
        }
    }

    #[test]
    fn percent_and_time_to_go_follow_from_a_total() {
        let f = samples::running();
        let given = |entries| Some(Total { entries, source: TotalSource::Given });
        assert_eq!(f.progress(None).percent, None);
        assert_eq!(f.progress(None).eta_s, None);
        let p = f.progress(given(f.entries() * 4));
        assert_eq!(p.percent, Some(25.0));
        let eta = p.eta_s.unwrap() as f64 * p.entries_per_s;
        assert!((eta / (f.entries() as f64 * 3.0) - 1.0).abs() < 0.01, "{p:?}");
        let more = f.progress(given(1));
        assert_eq!((more.percent, more.eta_s), (Some(100.0), None), "there is more than was expected");
        assert_eq!(f.progress(given(0)).percent, None);
        let paused = Facts { paused: true, ..f };
        assert_eq!(paused.progress(given(1 << 40)).eta_s, None);
        assert_eq!(samples::done().progress(given(1 << 40)).eta_s, None);
    }

    #[test]
    fn who_has_not_written_for_long_is_silent() {
        let f = Facts { engine: Engine::Embedded, ..samples::running() };
        assert_eq!(f.state_word(f.seen_ms + 1000), "running");
        assert_eq!(f.state_word(f.seen_ms + 61_000), "silent");
        assert_eq!(samples::running().state_word(u64::MAX), "running", "the ledger is asked now");
        assert_eq!(samples::done().state_word(u64::MAX), "done");
    }

    #[test]
    fn paths_are_grouped_by_few_subtrees() {
        let path = |s: &str| RelPath::new(s).unwrap();
        let of = |paths: &[&str]| {
            let all: Vec<_> = paths.iter().map(|s| path(s)).collect();
            subtrees(&all).into_iter().map(|s| (s.path, s.tasks)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[""]), [(".".to_owned(), 1)]);
        assert_eq!(of(&["a/b/c", "a/b/c", "d"]), [("a/b/c".to_owned(), 2), ("d".to_owned(), 1)]);
        let many: Vec<String> = (0..3).flat_map(|i| (0..30).map(move |j| format!("d{i}/e{j}/f"))).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(of(&many), [("d0".to_owned(), 30), ("d1".to_owned(), 30), ("d2".to_owned(), 30)]);
        let wide: Vec<String> = (0..5000).map(|i| format!("x{i}/y")).collect();
        let wide: Vec<&str> = wide.iter().map(String::as_str).collect();
        assert_eq!(of(&wide).len(), SUBTREES);
    }
}
