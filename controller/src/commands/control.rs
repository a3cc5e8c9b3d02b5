//! `pause`, `resume`, `cancel`, `pool`, `shutdown` and `retry`: what the cluster is told. All of it is kept in the ledger,
//! so that a worker that comes later obeys too.

use super::status::{explain, told};
use crate::args::control::{Ask, AskError, job_id};
use crate::args::limits::MOST_THREADS;
use crate::args::{Output, UsageError, log};
use crate::job::{self, Purpose, Request, Start};
use crate::output::put;
use serde_json::{Value, json};
use treeferry_core::JobId;
use treeferry_core::job::JobState;
use treeferry_queue::{Control, NodeReport, Which};
use treeferry_service::Exit;
use treeferry_service::metrics::Settings;
use treeferry_worker::PoolSize;

/// Pauses everything, one job, or some workers
///
/// What is under way is finished, up to the end of the present task of each thread; what is left waits until `resume`.
/// Without JOB and --worker every worker pauses, also those that start later.
#[derive(Debug, clap::Args)]
pub struct PauseArgs {
    /// Only this job; other jobs go on
    #[arg(value_name = "JOB", value_parser = job_id, conflicts_with = "worker")]
    job: Option<JobId>,
    /// Only this worker: its full name, or a name that several go by
    #[arg(long, value_name = "WORKER")]
    worker: Vec<String>,
    #[command(flatten)]
    ask: Ask,
}

/// Resumes what `pause` has paused
///
/// Without JOB and --worker every worker goes on, also those that were paused by name. A job that was paused by its id
/// is resumed by its id.
#[derive(Debug, clap::Args)]
pub struct ResumeArgs {
    #[command(flatten)]
    what: PauseArgs,
}

/// Ends a job before its time
///
/// What was done so far is right; the same `sync` again finishes it.
#[derive(Debug, clap::Args)]
pub struct CancelArgs {
    /// Which job
    #[arg(value_name = "JOB", value_parser = job_id)]
    job: JobId,
    #[command(flatten)]
    ask: Ask,
}

/// Changes how many threads workers have
///
/// `set` for all is obeyed also by workers that start later, and `set` for a name by those that go by it. `grow` and
/// `shrink` change each worker that runs now by N, down to 1 at least.
#[derive(Debug, clap::Args)]
pub struct PoolArgs {
    /// What to do
    #[arg(value_enum)]
    how: How,
    /// Threads, 1 to 4096
    #[arg(value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MOST_THREADS as i64))]
    n: u16,
    /// Which workers: full names, or names that several go by. Default: all
    #[arg(value_name = "WORKER")]
    workers: Vec<String>,
    #[command(flatten)]
    ask: Ask,
}

/// How a pool changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum How {
    /// to N threads each
    Set,
    /// by N threads more
    Grow,
    /// by N threads less
    Shrink,
}

/// Ends workers and hardlinkers
///
/// Each ends its present tasks and hands back the rest; those that take longer than 30 seconds are cut short. Nothing is
/// lost: others go on, or those that start next.
#[derive(Debug, clap::Args)]
pub struct ShutdownArgs {
    /// End at once; what was under way is done again by others
    #[arg(long)]
    now: bool,
    /// Which: full names, or names that several go by. Default: all that run
    #[arg(value_name = "WORKER")]
    workers: Vec<String>,
    #[command(flatten)]
    ask: Ask,
}

/// Tries the named failures of a job again, as a new job with the same options
#[derive(Debug, clap::Args)]
pub struct RetryArgs {
    /// A job that has ended
    #[arg(value_name = "JOB", value_parser = job_id)]
    job: JobId,
    /// Register the new job, print its id and return
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    ask: Ask,
}

fn answer(command: &str, json: bool, r: Result<(Value, String), AskError>) -> Exit {
    match r {
        Ok((object, text)) => {
            let line = if json { object.to_string() } else { text };
            put(format!("{line}\n").as_bytes());
            Exit::Done
        }
        Err(e) => explain(command, &e),
    }
}

/// Runs `pause`.
pub fn run_pause(args: &PauseArgs) -> Exit {
    answer("pause", args.ask.json, pause(args, true))
}

/// Runs `resume`.
pub fn run_resume(args: &ResumeArgs) -> Exit {
    answer("resume", args.what.ask.json, pause(&args.what, false))
}

fn pause(args: &PauseArgs, pause: bool) -> Result<(Value, String), AskError> {
    let control = args.ask.control()?;
    let which = match args.job {
        Some(id) => {
            must_run(&control, id)?;
            Which::Job(id)
        }
        None if args.worker.is_empty() => Which::All,
        None => {
            must_be_known(&told(control.nodes())?, &args.worker)?;
            Which::Workers(args.worker.clone())
        }
    };
    told(control.pause(&which, pause))?;
    let what = match &which {
        Which::All => "every worker".to_owned(),
        Which::Job(id) => format!("job {id}"),
        Which::Workers(names) => names.join(", "),
    };
    let word = if pause { "paused" } else { "resumed" };
    Ok((json!({ word: what }), format!("{word}: {what}")))
}

/// Refuses a job that is not running.
pub fn must_run(control: &Control, id: JobId) -> Result<(), AskError> {
    match told(control.job(id))? {
        None => Err(not_a_job(control, id)?),
        Some(j) if j.state != JobState::Running => {
            Err(AskError::Unknown(format!("job {id} has ended: {}", j.state.name())))
        }
        Some(_) => Ok(()),
    }
}

/// There is no such job; it may be a mirror.
fn not_a_job(control: &Control, id: JobId) -> Result<AskError, AskError> {
    let is_mirror = told(control.mirrors())?.iter().any(|m| m.id == id);
    Ok(AskError::Unknown(match is_mirror {
        true => format!(
            "{id} is a mirror, which is ended by SIGTERM to whoever keeps it, as 'treeferry status' says, and for good by \
             'treeferry mirror forget'; what fails is tried again by itself; to pause it pause all workers"
        ),
        false => format!("there is no job {id}"),
    }))
}

fn goes_by(n: &NodeReport, name: &str) -> bool {
    n.worker == name || n.node == name
}

/// Agents take no tasks, and end by a signal.
fn takes_tasks(n: &NodeReport) -> bool {
    n.kind != "agent"
}

fn must_be_known(nodes: &[NodeReport], names: &[String]) -> Result<(), AskError> {
    let is_known = |name: &String| nodes.iter().any(|n| takes_tasks(n) && goes_by(n, name));
    match names.iter().find(|name| !is_known(name)) {
        Some(name) if nodes.iter().any(|n| goes_by(n, name)) => Err(AskError::Unknown(format!(
            "{name} is an agent, which takes no tasks; to end it send it SIGTERM where it runs"
        ))),
        Some(name) => {
            Err(AskError::Unknown(format!("no worker goes by {name}; 'treeferry status' shows who runs")))
        }
        None => Ok(()),
    }
}

/// Runs `cancel`.
pub fn run_cancel(args: &CancelArgs) -> Exit {
    let r = args.ask.control().and_then(|c| {
        must_run(&c, args.job)?;
        told(c.cancel(args.job))?;
        Ok((json!({ "cancelled": args.job.to_string() }), format!("cancelled: job {}", args.job)))
    });
    answer("cancel", args.ask.json, r)
}

/// Runs `pool`.
pub fn run_pool(args: &PoolArgs) -> Exit {
    answer("pool", args.ask.json, pool(args))
}

fn pool(args: &PoolArgs) -> Result<(Value, String), AskError> {
    let control = args.ask.control()?;
    let nodes = told(control.nodes())?;
    must_be_known(&nodes, &args.workers)?;
    let n = usize::from(args.n);
    let named = |w: &&NodeReport| args.workers.is_empty() || args.workers.iter().any(|name| goes_by(w, name));
    let workers = nodes.iter().filter(|w| w.kind == "worker").filter(named);
    let changed: Vec<(String, usize)> = workers
        .map(|w| match args.how {
            How::Set => (w.worker.clone(), n),
            How::Grow => (w.worker.clone(), w.pool + n),
            How::Shrink => (w.worker.clone(), w.pool.saturating_sub(n).max(1)),
        })
        .collect();
    match args.how {
        How::Set => told(control.set_pool(&args.workers, n))?,
        _ => {
            for (worker, threads) in &changed {
                told(control.set_pool(std::slice::from_ref(worker), *threads))?;
            }
        }
    }
    let lines: Vec<String> = changed.iter().map(|(w, n)| format!("{w}: {n} threads")).collect();
    let pools: serde_json::Map<String, Value> = changed.into_iter().map(|(w, n)| (w, json!(n))).collect();
    let text = if lines.is_empty() { "no worker runs now".to_owned() } else { lines.join("\n") };
    Ok((json!({ "pool": pools }), text))
}

/// Runs `shutdown`.
pub fn run_shutdown(args: &ShutdownArgs) -> Exit {
    let r = args.ask.control().and_then(|c| {
        let nodes = told(c.nodes())?;
        must_be_known(&nodes, &args.workers)?;
        let named = |w: &&NodeReport| args.workers.is_empty() || args.workers.iter().any(|n| goes_by(w, n));
        let all = nodes.iter().filter(|n| takes_tasks(n));
        let names: Vec<String> = all.filter(named).map(|w| w.worker.clone()).collect();
        if !names.is_empty() {
            told(c.shutdown(&names, args.now))?;
        }
        let text = if names.is_empty() { "no worker runs now".to_owned() } else { names.join("\n") };
        Ok((json!({ "shutdown": names }), text))
    });
    answer("shutdown", args.ask.json, r)
}

/// Runs `retry`.
pub fn run_retry(args: &RetryArgs) -> Exit {
    match retry(args) {
        Ok(request) => {
            let output = Output { json: args.ask.json, ..Output::default() };
            job::run(Purpose::Sync, request, &output)
        }
        Err(e) => explain("retry", &e),
    }
}

fn retry(args: &RetryArgs) -> Result<Request, AskError> {
    let site = args.ask.site()?;
    let control = args.ask.control()?;
    let unknown = |why: String| Err(AskError::Unknown(why));
    let id = args.job;
    let Some(job) = told(control.job(id))? else { return Err(not_a_job(&control, id)?) };
    if job.state == JobState::Running {
        return unknown(format!("job {id} is still running"));
    }
    if job.counters.failures == 0 {
        return unknown(format!("job {id} has no failures"));
    }
    let config = args.ask.config()?;
    Ok(Request {
        spec: job.spec,
        pool: PoolSize::Auto,
        site: Some(site),
        start: Start::Again(id),
        detach: args.detach,
        telling: log::telling(&config.log, None)?,
        metrics: Settings::read(&config.metrics).map_err(UsageError::from)?,
        watch: None,
    })
}
