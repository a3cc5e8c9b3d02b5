//! `treeferry status` and `treeferry jobs`: what the cluster is doing.

use crate::args::control::{Ask, AskError, job_id};
use crate::cli;
use crate::output::{complain, grouped, harmless, put, took};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;
use treeferry_core::job::JobState;
use treeferry_core::units::show_size;
use treeferry_core::{JobId, escape};
use treeferry_queue::{Control, JobRow, NodeReport, QueueRow};
use treeferry_service::Exit;

/// Between two views of `--watch`.
const INTERVAL: Duration = Duration::from_secs(2);
/// Jobs that have ended, and are shown all the same.
const RECENT: usize = 5;
/// Running tasks that are shown of each worker.
const TASKS: usize = 4;

/// Shows what the cluster is doing: jobs, workers, queues
///
/// Of each job: passes, what was counted, rates, what is outstanding, failures, and when it may end if an earlier job
/// with the same SRC and DST tells how much there is. Of each worker: threads, what they are at and for how long. Of
/// each queue: messages that wait, messages that workers have, and consumers.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this job
    #[arg(value_name = "JOB", value_parser = job_id)]
    job: Option<JobId>,
    /// Show it again every 2 seconds, until the job has ended or a signal comes
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    ask: Ask,
}

/// Lists the jobs that the cluster knows, the newest first
///
/// A job that has ended is remembered for 30 days.
#[derive(Debug, clap::Args)]
pub struct JobsArgs {
    #[command(flatten)]
    ask: Ask,
}

/// Says why nothing could be asked, and how that ends.
pub fn explain(command: &str, why: &AskError) -> Exit {
    match why {
        AskError::Usage(e) => cli::refuse(command, e),
        AskError::Unknown(e) => {
            complain(e);
            Exit::Usage
        }
        AskError::Unreachable(e) => {
            complain(&format!("{e}\nIs Redis running, and does the URL name it?"));
            Exit::Unreachable
        }
    }
}

/// Makes an answer of the ledger an answer to the user.
pub fn told<T>(r: Result<T, impl std::fmt::Display>) -> Result<T, AskError> {
    r.map_err(|e| AskError::Unreachable(e.to_string()))
}

/// Runs `status`.
pub fn run(args: &Args) -> Exit {
    match watch(args) {
        Ok(()) => Exit::Done,
        Err(e) => explain("status", &e),
    }
}

/// Runs `jobs`.
pub fn run_jobs(args: &JobsArgs) -> Exit {
    let all = args.ask.control().and_then(|c| told(c.jobs()));
    match all {
        Ok(all) if args.ask.json => {
            let rows: Vec<Value> = all.iter().map(|j| job_json(j, None, None)).collect();
            put(format!("{}\n", json!({ "jobs": rows })).as_bytes());
            Exit::Done
        }
        Ok(all) => {
            let mut text = String::new();
            for j in &all {
                let _ = writeln!(text, "{}", job_line(j));
            }
            put(text.as_bytes());
            Exit::Done
        }
        Err(e) => explain("jobs", &e),
    }
}

/// What was read at one moment.
struct View {
    jobs: Vec<JobRow>,
    totals: HashMap<JobId, u64>,
    nodes: Vec<NodeReport>,
    queues: Result<Vec<QueueRow>, String>,
    at_ms: u64,
}

fn watch(args: &Args) -> Result<(), AskError> {
    let control = args.ask.control()?;
    let mut before: Option<View> = None;
    loop {
        let now = look(&control, args.job)?;
        let text = match args.ask.json {
            true => format!("{}\n", show_json(&now, before.as_ref())),
            false => show(&now, before.as_ref()),
        };
        if args.watch && !args.ask.json && std::io::stdout().is_terminal() {
            put(b"\x1b[H\x1b[2J");
        }
        put(text.as_bytes());
        let over = args.job.is_some() && now.jobs.iter().all(|j| j.state != JobState::Running);
        if !args.watch || over {
            return Ok(());
        }
        before = Some(now);
        std::thread::sleep(INTERVAL);
    }
}

fn look(control: &Control, only: Option<JobId>) -> Result<View, AskError> {
    let all = told(control.jobs())?;
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
    let jobs = match only {
        Some(id) => {
            let found = running.into_iter().chain(ended).find(|j| j.id == id);
            vec![found.ok_or_else(|| AskError::Unknown(format!("there is no job {id}")))?]
        }
        None => running.into_iter().chain(ended.into_iter().take(RECENT)).collect(),
    };
    let (nodes, queues) = (told(control.nodes())?, control.queues());
    Ok(View { jobs, totals, nodes, queues, at_ms: Control::now_ms() })
}

fn entries(j: &JobRow) -> u64 {
    j.counters.files + j.counters.dirs
}

/// Entries and bytes a second: since the view before, else since the job began.
fn rates(j: &JobRow, now: &View, before: Option<&View>) -> (f64, f64) {
    let then = before.and_then(|b| Some((b.at_ms, b.jobs.iter().find(|o| o.id == j.id)?)));
    let until = j.ended_ms.unwrap_or(now.at_ms);
    let (since, e, b) = match then {
        Some((at, o)) => (at, entries(o), o.counters.copied_bytes),
        None => (j.created_ms, 0, 0),
    };
    let s = (until.saturating_sub(since) as f64 / 1000.0).max(0.001);
    ((entries(j) - e.min(entries(j))) as f64 / s, j.counters.copied_bytes.saturating_sub(b) as f64 / s)
}

/// Seconds to go, if an earlier job tells how much there is.
fn eta_s(j: &JobRow, total: Option<u64>, now_ms: u64) -> Option<u64> {
    let (done, total) = (entries(j), total?);
    let elapsed = now_ms.saturating_sub(j.created_ms) as f64 / 1000.0;
    (j.state == JobState::Running && done > 0 && total >= done)
        .then(|| ((total - done) as f64 * elapsed / done as f64) as u64)
}

fn shown(path: &std::path::Path) -> String {
    escape::bytes(path.as_os_str().as_encoded_bytes()).to_string()
}

fn state_of(j: &JobRow) -> &'static str {
    if j.paused && j.state == JobState::Running { "paused" } else { j.state.name() }
}

fn job_line(j: &JobRow) -> String {
    let (src, dst) = (shown(&j.spec.src), shown(&j.spec.dst));
    format!("{}  {:<11}  {}  {src} -> {dst}", j.id, state_of(j), j.spec.passes)
}

fn show(v: &View, before: Option<&View>) -> String {
    let mut t = String::new();
    let _ = writeln!(t, "Jobs");
    if v.jobs.is_empty() {
        let _ = writeln!(t, "  none");
    }
    for j in &v.jobs {
        let (rate, bytes) = rates(j, v, before);
        let until = j.ended_ms.unwrap_or(v.at_ms);
        let _ = writeln!(t, "  {}", job_line(j));
        let _ = writeln!(
            t,
            "    {} entries ({}/s), {} copied ({}/s), {} outstanding, {} failures, {}{}",
            grouped(entries(j)),
            grouped(rate as u64),
            show_size(j.counters.copied_bytes),
            show_size(bytes as u64),
            grouped(j.outstanding),
            grouped(j.counters.failures),
            took(until.saturating_sub(j.created_ms) as f64 / 1000.0),
            eta_s(j, v.totals.get(&j.id).copied(), v.at_ms)
                .map(|s| format!(", about {} to go", took(s as f64)))
                .unwrap_or_default(),
        );
        if !j.why.is_empty() {
            let _ = writeln!(t, "    {}", harmless(&j.why, ""));
        }
    }
    let _ = writeln!(t, "Workers");
    if v.nodes.is_empty() {
        let _ = writeln!(t, "  none: start some with 'treeferry worker' and 'treeferry hardlinker'");
    }
    for n in &v.nodes {
        let state = match (n.stopping, n.paused, n.busy) {
            (true, ..) => "stopping",
            (_, true, _) => "paused",
            (.., 0) => "idle",
            _ => "busy",
        };
        let ago = v.at_ms.saturating_sub(n.seen_ms) / 1000;
        let _ = writeln!(
            t,
            "  {:<24}  {:<10}  {:<8}  {}/{} threads, heard {ago} s ago",
            n.worker, n.kind, state, n.busy, n.pool
        );
        for r in n.tasks.iter().take(TASKS) {
            let age = took(r.age_ms as f64 / 1000.0);
            let _ = writeln!(t, "    {:<10} {:>8}  {}  {}", r.work, age, r.job, r.path);
        }
        if n.tasks.len() > TASKS {
            let _ = writeln!(t, "    and {} more", n.tasks.len() - TASKS);
        }
        if n.events_dropped > 0 {
            let _ = writeln!(
                t,
                "    {} events dropped: see events.dropped in docs/events.md",
                grouped(n.events_dropped)
            );
        }
        for r in &n.refused {
            let _ = writeln!(t, "    refuses job {}: {}", r.job, harmless(&r.why, ""));
        }
    }
    let _ = writeln!(t, "Queues");
    match &v.queues {
        Err(e) => drop(writeln!(t, "  the broker does not tell: {}", harmless(e, ""))),
        Ok(queues) => {
            for q in queues {
                let _ = writeln!(
                    t,
                    "  {:<18}  {:>8} ready  {:>6} unacked  {:>4} consumers",
                    q.name,
                    grouped(q.ready),
                    grouped(q.unacked),
                    q.consumers
                );
            }
        }
    }
    t
}

fn job_json(j: &JobRow, rates: Option<(f64, f64)>, eta_s: Option<u64>) -> Value {
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

fn show_json(v: &View, before: Option<&View>) -> Value {
    let jobs: Vec<Value> = v
        .jobs
        .iter()
        .map(|j| job_json(j, Some(rates(j, v, before)), eta_s(j, v.totals.get(&j.id).copied(), v.at_ms)))
        .collect();
    let queues = match &v.queues {
        Err(_) => Value::Null,
        Ok(all) => all
            .iter()
            .map(
                |q| json!({"name": q.name, "ready": q.ready, "unacked": q.unacked, "consumers": q.consumers}),
            )
            .collect(),
    };
    json!({ "jobs": jobs, "workers": v.nodes, "queues": queues })
}
