//! `treeferry status` and `treeferry jobs`: what the cluster is doing.

use crate::args::UsageError;
use crate::args::control::{Ask, AskError, connect, job_id};
use crate::cli;
use crate::nearby;
use crate::output::{complain, grouped, harmless, put, share, took};
use crate::view::{
    Past, View, Which, entries, eta_s, job_json, mirror_figures, rates, shown, state_of, state_of_node,
};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::IsTerminal;
use std::time::Duration;
use treeferry_core::JobId;
use treeferry_core::job::JobState;
use treeferry_core::units::show_size;
use treeferry_queue::{Control, JobRow, QueueRow};
use treeferry_service::Exit;

/// Between two views of `--watch`.
const INTERVAL: Duration = Duration::from_secs(2);
/// Jobs that have ended, and are shown all the same.
const RECENT: usize = 5;
/// Running tasks that are shown of each worker.
const TASKS: usize = 4;

/// Shows what the cluster is doing: jobs, workers, queues
///
/// Without a cluster: the jobs that processes of the same user run on this machine.
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
            let server = if e.starts_with("the broker") { "RabbitMQ" } else { "Redis" };
            complain(&format!("{e}\nIs {server} running, and does the URL name it?"));
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
struct Seen {
    view: View,
    /// `None`: there is no cluster.
    queues: Option<Result<Vec<QueueRow>, String>>,
}

fn watch(args: &Args) -> Result<(), AskError> {
    // without a cluster the processes of this user on this machine are asked
    let cluster = args.ask.reach.site()?.map(|site| connect(&site)).transpose()?;
    let mut before: Option<Seen> = None;
    loop {
        let now = match &cluster {
            Some(c) => look(c, args.job)?,
            None => look_here(args.job, before.is_none())?,
        };
        let text = match args.ask.json {
            true => format!("{}\n", show_json(&now, before.as_ref())),
            false => show(&now, before.as_ref()),
        };
        if args.watch && !args.ask.json && std::io::stdout().is_terminal() {
            put(b"\x1b[H\x1b[2J");
        }
        put(text.as_bytes());
        let over = args.job.is_some() && now.view.jobs.iter().all(|j| j.state != JobState::Running);
        if !args.watch || over {
            return Ok(());
        }
        before = Some(now);
        std::thread::sleep(INTERVAL);
    }
}

fn look(control: &Control, only: Option<JobId>) -> Result<Seen, AskError> {
    let (mut all, nodes) = (told(control.jobs())?, told(control.nodes())?);
    let mut mirrors = HashMap::new();
    for found in told(nearby::mirrors(control))? {
        mirrors.extend(found.mirror.map(|m| (found.job.id, m)));
        all.insert(0, found.job);
    }
    let view = View::new(all, nodes, Control::now_ms(), which(only)).with(mirrors);
    match only.filter(|_| view.jobs.is_empty()) {
        Some(id) => Err(AskError::Unknown(format!("there is no job {id}"))),
        None => Ok(Seen { view, queues: Some(control.queues()) }),
    }
}

fn which(only: Option<JobId>) -> Which {
    only.map_or(Which::Recent(RECENT), Which::Job)
}

/// The same of this machine, where a job that has ended is known no more. `must_be`: finding nothing is a mistake.
fn look_here(only: Option<JobId>, must_be: bool) -> Result<Seen, AskError> {
    let all = nearby::look().map_err(|e| AskError::Unknown(e.to_string()))?;
    all.trouble.iter().for_each(|t| complain(t));
    let view = all.view(Control::now_ms(), which(only));
    if must_be && view.jobs.is_empty() && all.trouble.is_empty() {
        let what = only.map_or("no job".to_owned(), |id| format!("no job {id}"));
        return Err(AskError::Unknown(format!(
            "{}; and {what} of yours runs on this machine",
            UsageError::NoCluster
        )));
    }
    Ok(Seen { view, queues: None })
}

/// Rates of a job since the view before, else since it began.
fn rates_since(j: &JobRow, now: &Seen, before: Option<&Seen>) -> (f64, f64) {
    let earlier = |b: &Seen| Some(Past::of(b.view.jobs.iter().find(|o| o.id == j.id)?, b.view.at_ms));
    rates(j, now.view.at_ms, before.and_then(earlier))
}

fn job_line(j: &JobRow) -> String {
    let (src, dst) = (shown(&j.spec.src), shown(&j.spec.dst));
    format!("{}  {:<11}  {}  {src} -> {dst}", j.id, state_of(j), j.spec.passes)
}

fn show(seen: &Seen, before: Option<&Seen>) -> String {
    let v = &seen.view;
    let mut t = String::new();
    let _ = writeln!(t, "Jobs");
    if v.jobs.is_empty() {
        let _ = writeln!(t, "  none");
    }
    for j in &v.jobs {
        let (rate, bytes) = rates_since(j, seen, before);
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
        if let Some(mirror) = v.mirrors.get(&j.id) {
            let _ = writeln!(t, "    mirror: {}", mirror_figures(mirror, v.at_ms).join("; "));
            if let Some(line) = audit_line(&mirror["audit"]) {
                let _ = writeln!(t, "    {line}");
            }
        }
        if !j.why.is_empty() {
            let _ = writeln!(t, "    {}", harmless(&j.why, ""));
        }
    }
    let _ = writeln!(t, "Workers");
    if v.nodes.is_empty() {
        let _ = writeln!(t, "  none: start some with 'treeferry worker' and 'treeferry hardlinker'");
    }
    for n in &v.nodes {
        let ago = v.at_ms.saturating_sub(n.seen_ms) / 1000;
        let _ = writeln!(
            t,
            "  {:<24}  {:<10}  {:<8}  {}/{} threads, heard {ago} s ago",
            n.worker,
            n.kind,
            state_of_node(n),
            n.busy,
            n.pool
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
    let Some(queues) = &seen.queues else { return t };
    let _ = writeln!(t, "Queues");
    match queues {
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

/// What an audit of a mirror has found, if there is one.
fn audit_line(a: &Value) -> Option<String> {
    let compared = a["compared"].as_u64()?;
    let n = |name: &str| a[name].as_u64().unwrap_or(0);
    let percent = |name: &str| share(a[name].as_f64().unwrap_or(0.0));
    let found = match n("differing") {
        0 => "none differed".to_owned(),
        some => format!("{} differed ({} repaired)", grouped(some), grouped(n("repaired"))),
    };
    let last = &a["differing_paths"][0];
    let last = match (last["change"].as_str(), last["path"].as_str()) {
        (Some(change), Some(path)) => format!("; the last: {}", harmless(&format!("{change} {path}"), "")),
        _ => String::new(),
    };
    let trouble = match a["trouble"].as_str() {
        Some(why) => format!("; {} could not be looked at: {}", grouped(n("failures")), harmless(why, "")),
        None => String::new(),
    };
    Some(format!(
        "audit: {} compared, {found}; of the last {} days {} differed, at most {} ({:.0} % confidence){last}{trouble}",
        grouped(compared),
        n("window_hours") / 24,
        percent("share"),
        percent("share_at_most"),
        a["confidence"].as_f64().unwrap_or(0.0) * 100.0,
    ))
}

fn show_json(seen: &Seen, before: Option<&Seen>) -> Value {
    let v = &seen.view;
    let jobs: Vec<Value> = v
        .jobs
        .iter()
        .map(|j| {
            let rates = Some(rates_since(j, seen, before));
            let mut job = job_json(j, rates, eta_s(j, v.totals.get(&j.id).copied(), v.at_ms));
            if let Some(mirror) = v.mirrors.get(&j.id) {
                job["mirror"] = mirror.clone();
            }
            job
        })
        .collect();
    let queues = match &seen.queues {
        None | Some(Err(_)) => Value::Null,
        Some(Ok(all)) => all
            .iter()
            .map(
                |q| json!({"name": q.name, "ready": q.ready, "unacked": q.unacked, "consumers": q.consumers}),
            )
            .collect(),
    };
    json!({ "jobs": jobs, "workers": v.nodes, "queues": queues })
}
