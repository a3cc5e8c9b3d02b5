//! What is seen of jobs and workers at one moment, and what follows from two of them. `status` and `top` show it.

use crate::output::grouped;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use treeferry_core::job::JobState;
use treeferry_core::{Counters, JobId, JobSpec, escape};
use treeferry_queue::{JobRow, NodeReport};

/// An agent that says nothing for so long is named (ms).
const SILENT_MS: u64 = 5000;

/// What was read at one moment.
#[derive(Clone, Debug, Default)]
pub struct View {
    /// Those that run, then some of those that have ended; of each the newest first.
    pub jobs: Vec<JobRow>,
    /// Entries of a running job, as an earlier one with the same SRC and DST has counted them.
    pub totals: HashMap<JobId, u64>,
    /// Workers and hardlinkers.
    pub nodes: Vec<NodeReport>,
    /// When that was, in ms since 1970.
    pub at_ms: u64,
    /// How mirrors stand: see `crate::watching`.
    pub mirrors: HashMap<JobId, Value>,
}

/// Which jobs are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// This one.
    Job(JobId),
    /// All that run, and so many that have ended.
    Recent(usize),
}

impl View {
    /// Chooses among all jobs, the newest first.
    pub fn new(all: Vec<JobRow>, nodes: Vec<NodeReport>, at_ms: u64, which: Which) -> View {
        let mut totals = HashMap::new();
        for j in all.iter().filter(|j| j.state == JobState::Running) {
            let same = |o: &&JobRow| {
                o.state == JobState::Done && (&o.spec.src, &o.spec.dst) == (&j.spec.src, &j.spec.dst)
            };
            if let Some(earlier) = all.iter().find(same) {
                totals.insert(j.id, entries(earlier));
            }
        }
        let (running, ended): (Vec<_>, Vec<_>) = all.into_iter().partition(|j| j.state == JobState::Running);
        let jobs = match which {
            Which::Job(id) => running.into_iter().chain(ended).filter(|j| j.id == id).collect(),
            Which::Recent(n) => running.into_iter().chain(ended.into_iter().take(n)).collect(),
        };
        View { jobs, totals, nodes, at_ms, mirrors: HashMap::new() }
    }

    /// With these mirrors, which go on for ever.
    pub fn with(mut self, mirrors: HashMap<JobId, Value>) -> View {
        self.totals.retain(|id, _| !mirrors.contains_key(id));
        View { mirrors, ..self }
    }
}

/// Up to what moment a mirror is complete, what there is to do, and how long changes take.
pub fn mirror_figures(m: &Value, now_ms: u64) -> [String; 3] {
    let n = |name: &str| m[name].as_u64().unwrap_or(0);
    let complete = match m["complete_up_to_us"].as_u64() {
        None if m["detect"] == json!(["list"]) => {
            "it is not known up to when it is complete: a list tells what is in it".to_owned()
        }
        None if n("walks") == 0 => {
            "not complete yet: the next walk tells what changed during the first".to_owned()
        }
        None => "not complete yet: the first walk is under way".to_owned(),
        Some(us) => {
            let behind = (now_ms * 1000).saturating_sub(us) as f64 / 1e6;
            format!("complete up to {behind:.1} s ago")
        }
    };
    let a = &m["arrivals"];
    let ms = |name: &str| a[name].as_f64().unwrap_or(0.0);
    let kept = match &m["kept_by"] {
        Value::Null if m.get("kept_by").is_some() => ", and nobody keeps it".to_owned(),
        _ => String::new(),
    };
    let silent: Vec<&str> = m["agents"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|a| a["heard_ms_ago"].as_u64().is_none_or(|ms| ms > SILENT_MS))
        .filter_map(|a| a["name"].as_str())
        .collect();
    let silent = match silent.is_empty() {
        true => String::new(),
        false => format!(", not heard of: {}", silent.join(", ")),
    };
    let failing = match n("failing") {
        0 => String::new(),
        some => format!(", but for {some} that fail"),
    };
    [
        format!("{complete}{kept}{silent}{failing}"),
        format!("{} wait, {} looked at", grouped(n("waiting")), grouped(n("busy"))),
        format!(
            "{} arrived within {:.1} ms (half), {:.1} ms (99 %)",
            grouped(a["count"].as_u64().unwrap_or(0)),
            ms("p50_ms"),
            ms("p99_ms"),
        ),
    ]
}

/// What a job had counted at some moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Past {
    /// When, in ms since 1970.
    pub at_ms: u64,
    /// Entries looked at.
    pub entries: u64,
    /// Bytes copied.
    pub bytes: u64,
}

impl Past {
    /// What a job has counted now.
    pub fn of(j: &JobRow, at_ms: u64) -> Past {
        Past { at_ms, entries: entries(j), bytes: j.counters.copied_bytes }
    }
}

/// Entries that a job has looked at.
pub fn entries(j: &JobRow) -> u64 {
    j.counters.files + j.counters.dirs
}

/// Entries and bytes a second: since an earlier moment, else since the job began.
pub fn rates(j: &JobRow, now_ms: u64, before: Option<Past>) -> (f64, f64) {
    let until = j.ended_ms.unwrap_or(now_ms);
    let then = before.unwrap_or(Past { at_ms: j.created_ms, entries: 0, bytes: 0 });
    let s = (until.saturating_sub(then.at_ms) as f64 / 1000.0).max(0.001);
    let a_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / s;
    (a_second(entries(j), then.entries), a_second(j.counters.copied_bytes, then.bytes))
}

/// Seconds to go, if an earlier job tells how much there is.
pub fn eta_s(j: &JobRow, total: Option<u64>, now_ms: u64) -> Option<u64> {
    let (done, total) = (entries(j), total?);
    let elapsed = now_ms.saturating_sub(j.created_ms) as f64 / 1000.0;
    (j.state == JobState::Running && done > 0 && total >= done)
        .then(|| ((total - done) as f64 * elapsed / done as f64) as u64)
}

/// A path as text.
pub fn shown(path: &std::path::Path) -> String {
    escape::bytes(path.as_os_str().as_encoded_bytes()).to_string()
}

/// The state of a job in a word.
pub fn state_of(j: &JobRow) -> &'static str {
    if j.paused && j.state == JobState::Running { "paused" } else { j.state.name() }
}

/// The state of a worker in a word.
pub fn state_of_node(n: &NodeReport) -> &'static str {
    match (n.stopping, n.paused, n.busy) {
        (true, ..) => "stopping",
        (_, true, _) => "paused",
        (.., 0) => "idle",
        _ => "busy",
    }
}

/// A job as a JSON object, with rates and what is to go where they are known.
pub fn job_json(j: &JobRow, rates: Option<(f64, f64)>, eta_s: Option<u64>) -> Value {
    let counters: serde_json::Map<String, Value> =
        j.counters.iter().map(|(name, n)| (name.to_owned(), json!(n))).collect();
    let mut v = json!({
        "job": j.id.to_string(),
        "state": j.state.name(),
        "paused": j.paused,
        "src": shown(&j.spec.src),
        "dst": shown(&j.spec.dst),
        "passes": j.spec.passes.names(),
        "created_ms": j.created_ms,
        "ended_ms": j.ended_ms,
        "outstanding": j.outstanding,
        "counters": counters,
        "eta_s": eta_s,
    });
    if let Some((e, b)) = rates {
        v["entries_per_s"] = json!(e);
        v["copied_bytes_per_s"] = json!(b);
    }
    if !j.why.is_empty() {
        v["error"] = json!(j.why);
    }
    v
}

/// The job that [`job_json`] has shown; of its options what is in there. `None`: this is no job.
pub fn job_of_json(v: &Value) -> Option<JobRow> {
    let text = |name: &str| v[name].as_str();
    let path = |name: &str| text(name).map(|t| PathBuf::from(OsString::from_vec(escape::unescape(t))));
    let mut spec = JobSpec::new(path("src")?, path("dst")?);
    let passes: Option<Vec<&str>> = v["passes"].as_array()?.iter().map(Value::as_str).collect();
    spec.passes = passes?.join(",").parse().ok()?;
    let mut counters = Counters::default();
    for (name, n) in v["counters"].as_object()? {
        counters.set(name, n.as_u64()?);
    }
    Some(JobRow {
        id: text("job")?.parse().ok()?,
        spec,
        state: JobState::from_name(text("state")?)?,
        paused: v["paused"].as_bool()?,
        why: text("error").unwrap_or_default().to_owned(),
        created_ms: v["created_ms"].as_u64()?,
        ended_ms: v["ended_ms"].as_u64(),
        outstanding: v["outstanding"].as_u64()?,
        counters,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    fn job(id: u64, state: JobState, files: u64) -> JobRow {
        JobRow {
            id: JobId(id),
            spec: JobSpec::new("/a", "/b"),
            state,
            paused: false,
            why: String::new(),
            created_ms: 1000,
            ended_ms: None,
            outstanding: 1,
            counters: Counters { files, copied_bytes: 10 * files, ..Counters::default() },
        }
    }

    #[test]
    fn running_jobs_come_first_and_an_earlier_one_tells_how_much_there_is() {
        let other = JobRow { spec: JobSpec::new("/a", "/c"), ..job(5, JobState::Running, 1) };
        let all = vec![
            job(4, JobState::Failed, 7),
            job(3, JobState::Running, 50),
            other,
            job(2, JobState::Done, 100),
            job(1, JobState::Done, 90),
        ];
        let ids = |w| View::new(all.clone(), vec![], 0, w).jobs.iter().map(|j| j.id.0).collect::<Vec<_>>();
        assert_eq!(ids(Which::Recent(2)), [3, 5, 4, 2]);
        assert_eq!(ids(Which::Job(JobId(1))), [1]);
        assert_eq!(ids(Which::Job(JobId(9))), [0; 0]);
        let v = View::new(all, vec![], 0, Which::Recent(9));
        assert_eq!(v.totals, HashMap::from([(JobId(3), 100)]));
    }

    #[test]
    fn rates_are_those_since_the_view_before() {
        let j = job(1, JobState::Running, 300);
        assert_eq!(rates(&j, 4000, None), (100.0, 1000.0));
        let then = Past { at_ms: 3000, entries: 100, bytes: 0 };
        assert_eq!(rates(&j, 4000, Some(then)), (200.0, 3000.0));
        let ended = JobRow { ended_ms: Some(2000), ..j.clone() };
        assert_eq!(rates(&ended, 9000, None), (300.0, 3000.0));
        // a ledger that lost its last second counts on from an earlier state
        assert_eq!(rates(&j, 4000, Some(Past { at_ms: 3000, entries: 400, bytes: 9999 })), (0.0, 0.0));
        assert!(rates(&j, 0, Some(then)).0.is_finite());
    }

    #[test]
    fn a_job_can_be_read_back_from_json() {
        let mut j = job(7, JobState::Running, 25);
        j.spec.src = OsStr::from_bytes(b"/a\xff\n\\#012").into();
        j.spec.passes.delete = true;
        (j.paused, j.why) = (true, "because".into());
        let v = job_json(&j, Some((1.5, 2.5)), Some(3));
        let read = job_of_json(&v).unwrap();
        assert_eq!((read.id, &read.spec, read.state), (j.id, &j.spec, j.state));
        assert_eq!((read.paused, &read.why, read.counters), (j.paused, &j.why, j.counters));
        assert_eq!((read.created_ms, read.ended_ms, read.outstanding), (1000, None, 1));
        for name in ["job", "state", "src", "passes", "counters", "created_ms", "outstanding", "paused"] {
            let mut broken = v.clone();
            broken[name] = json!([1]);
            assert!(job_of_json(&broken).is_none(), "{name}");
        }
        assert!(job_of_json(&Value::Null).is_none());
    }

    #[test]
    fn what_is_to_go_is_told_only_where_it_is_known() {
        let j = job(1, JobState::Running, 25);
        assert_eq!(eta_s(&j, Some(100), 11_000), Some(30));
        assert_eq!(eta_s(&j, None, 11_000), None);
        assert_eq!(eta_s(&j, Some(20), 11_000), None, "there is more than last time");
        assert_eq!(eta_s(&job(1, JobState::Done, 25), Some(100), 11_000), None);
    }
}
