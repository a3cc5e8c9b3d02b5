//! `treeferry report`: all that there is to be said of one job.

use super::status::{explain, told};
use crate::args::control::{Ask, AskError, job_id};
use crate::args::log;
use crate::output::{complain, grouped, put, took};
use crate::report::data::{FailureRow, Total, TotalSource};
use crate::report::{Facts, View, cluster, html, journal, moments, text};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use treeferry_core::{JobId, errno, escape};
use treeferry_queue::Control;
use treeferry_service::Exit;
use treeferry_service::state_dir::Documents;

/// Tells all that is known of a job, also long after its end
///
/// Counts by kind, rates over time, failures grouped by operation and error, the longest tasks, the largest directories,
/// the largest and the slowest files, a histogram of sizes; of a running job how far it has come, what is being worked
/// on and where something is left to do; of a job of a cluster what each node has done.
///
/// How much there is to do, and so percentage and time to go, is known if an earlier job with the same SRC and DST was
/// done, if SRC is the root of a file system that counts its inodes, or if --inodes says it.
///
/// A job of a cluster is known to its ledger for 30 days. A job without a cluster writes a document each ten seconds and
/// at its end; those of the last 200 jobs are kept. Without JOB the jobs that can be reported are listed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which job: its summary and the list name it
    #[arg(value_name = "JOB", value_parser = job_id)]
    job: Option<JobId>,
    /// Write a page to FILE that any browser shows: one file, no script, nothing fetched; - is standard output
    #[arg(long, value_name = "FILE", requires = "job", conflicts_with = "json", value_hint = clap::ValueHint::FilePath)]
    html: Option<PathBuf>,
    /// List failures one by one: all, or those of an operation, or of an operation and an error
    ///
    /// OP and ERRNO are as the groups of the report name them: `openat:EACCES`, `rename`, `:ENOSPC` for an error in
    /// whatever operation. Of a job without a cluster the first 10,000 are kept.
    #[arg(long, value_name = "OP[:ERRNO]", requires = "job", conflicts_with = "html", num_args = 0..=1)]
    #[arg(default_missing_value = "", value_parser = selection)]
    failures: Option<Selection>,
    /// Take N for the number of files and directories that there are to do
    #[arg(long, value_name = "N", requires = "job")]
    inodes: Option<u64>,
    /// Look for jobs without a cluster in DIR
    ///
    /// An empty name means nowhere. Default: the environment variable TREEFERRY_LOG_DIR, else the configuration's `dir`,
    /// else /var/log/treeferry for root, and ~/.local/state/treeferry for others.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    #[arg(value_parser = clap::builder::OsStringValueParser::new())]
    log_dir: Option<OsString>,
    #[command(flatten)]
    ask: Ask,
}

/// Which failures.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Selection {
    op: Option<String>,
    errno: Option<i32>,
}

fn selection(text: &str) -> Result<Selection, String> {
    let (op, error) = text.split_once(':').map_or((text, None), |(op, e)| (op, Some(e)));
    let number = |e: &str| errno::parse(e).ok_or_else(|| format!("'{e}' is no error: write ENOSPC, or 28"));
    let errno = error.map(number).transpose()?;
    Ok(Selection { op: Some(op.to_owned()).filter(|op| !op.is_empty()), errno })
}

impl Selection {
    fn takes(&self, f: &FailureRow) -> bool {
        self.op.as_ref().is_none_or(|op| *op == f.op) && self.errno.is_none_or(|e| e == f.errno)
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    match tell(args) {
        Ok(exit) => exit,
        Err(e) => explain("report", &e),
    }
}

/// Where a job was found.
enum Found {
    Ledger(Box<Control>, JobId),
    Document(Documents),
}

fn tell(args: &Args) -> Result<Exit, AskError> {
    let config = args.ask.config()?;
    let documents = log::dir(args.log_dir.as_deref(), &config.log).map(Documents::new);
    let control = match args.ask.reach.site()? {
        Some(site) => Some(Control::connect(&site).map_err(|e| AskError::Unreachable(e.to_string()))?),
        None => None,
    };
    let Some(id) = args.job else { return list(args, control.as_ref(), documents.as_ref()) };
    let (mut facts, found) = find(id, control, documents)?;
    if let Some(which) = &args.failures {
        return failures(args, &mut facts, &found, which);
    }
    let total = match (args.inodes, &found) {
        (Some(entries), _) => Some(Total { entries, source: TotalSource::Given }),
        (None, _) if !facts.is_running() => None,
        (None, Found::Ledger(c, id)) => told(cluster::total(c, *id, facts.src_inode))?,
        (None, Found::Document(d)) => journal::total(d, &facts),
    };
    let progress = facts.progress(total);
    let v = View { facts: &facts, progress, now_ms: Control::now_ms() };
    match &args.html {
        Some(file) => return Ok(write_page(file, &html::page(&v))),
        None if args.ask.json => put(format!("{}\n", as_json(&v)).as_bytes()),
        None => put(text::show(&v).as_bytes()),
    }
    Ok(Exit::Done)
}

fn find(
    id: JobId,
    control: Option<Control>,
    documents: Option<Documents>,
) -> Result<(Facts, Found), AskError> {
    if let Some(c) = control
        && let Some(f) = told(cluster::facts(&c, id))?
    {
        return Ok((f, Found::Ledger(Box::new(c), id)));
    }
    let read = |d: &Documents| journal::read(d, id).map_err(|e| AskError::Unknown(e.to_string()));
    if let Some(d) = documents
        && let Some(f) = read(&d)?
    {
        return Ok((f, Found::Document(d)));
    }
    Err(AskError::Unknown(format!(
        "there is no job {id}; 'treeferry report' lists those that can be reported; of mirrors tells 'treeferry mirror report'"
    )))
}

fn as_json(v: &View<'_>) -> Value {
    let mut all = serde_json::to_value(v.facts).unwrap_or_default();
    if let Value::Object(map) = &mut all {
        map.remove("failures");
        map.insert("state_now".to_owned(), json!(v.facts.state_word(v.now_ms)));
        map.insert("elapsed_s".to_owned(), json!(v.facts.elapsed_s()));
        map.insert("progress".to_owned(), json!(v.progress));
    }
    all
}

fn write_page(file: &std::path::Path, page: &str) -> Exit {
    if file.as_os_str() == "-" {
        put(page.as_bytes());
        return Exit::Done;
    }
    match std::fs::write(file, page) {
        Ok(()) => Exit::Done,
        Err(e) => {
            complain(&format!("{}: {e}", escape::bytes(file.as_os_str().as_encoded_bytes())));
            Exit::Usage
        }
    }
}

/// Lists failures in pieces: there may be millions of them.
fn failures(args: &Args, facts: &mut Facts, found: &Found, which: &Selection) -> Result<Exit, AskError> {
    let mut n = 0u64;
    let mut some = |rows: Vec<FailureRow>| {
        let rows: Vec<FailureRow> = rows.into_iter().filter(|f| which.takes(f)).collect();
        if args.ask.json {
            for r in &rows {
                let comma = if n > 0 { "," } else { "" };
                put(format!("{comma}{}", json!(r)).as_bytes());
                n += 1;
            }
        } else {
            n += rows.len() as u64;
            put(text::failure_lines(&rows).as_bytes());
        }
    };
    if args.ask.json {
        put(format!("{{\"job\":\"{}\",\"failures\":[", facts.job).as_bytes());
    }
    let kept = facts.failures.len() as u64;
    match found {
        Found::Ledger(c, id) => told(cluster::each_failure(c, *id, &mut some))?,
        Found::Document(_) => some(std::mem::take(&mut facts.failures)),
    }
    if args.ask.json {
        put(b"]}\n");
    }
    let all = facts.count("failures");
    if matches!(found, Found::Document(_)) && kept < all {
        complain(&format!("only the first {} of {} failures were kept", grouped(kept), grouped(all)));
    }
    Ok(Exit::Done)
}

/// What can be reported.
fn list(args: &Args, control: Option<&Control>, documents: Option<&Documents>) -> Result<Exit, AskError> {
    let now_ms = Control::now_ms();
    let mut jobs: Vec<Facts> = match control {
        Some(c) => told(c.jobs())?.iter().map(|row| Facts::of_row(row, 0)).collect(),
        None => Vec::new(),
    };
    if let Some(d) = documents {
        let (found, unreadable) = journal::all(d);
        unreadable.iter().for_each(|e| complain(&e.to_string()));
        jobs.extend(found);
    }
    jobs.sort_by_key(|f| std::cmp::Reverse(f.began_ms));
    if args.ask.json {
        let row = |f: &Facts| {
            json!({
                "job": f.job, "engine": f.engine, "state": f.state_word(now_ms), "src": f.src, "dst": f.dst,
                "passes": f.passes, "began_ms": f.began_ms, "ended_ms": f.ended_ms, "failures": f.count("failures"),
            })
        };
        let rows: Vec<Value> = jobs.iter().map(row).collect();
        put(format!("{}\n", json!({ "jobs": rows })).as_bytes());
        return Ok(Exit::Done);
    }
    let mut t = String::new();
    for f in &jobs {
        let _ = writeln!(
            t,
            "{}  {:<11}  {}  {:>12}  {} -> {}",
            f.job,
            f.state_word(now_ms),
            moments::utc(f.began_ms),
            took(f.elapsed_s()),
            f.src,
            f.dst
        );
    }
    if jobs.is_empty() {
        let dir = documents.map(|d| escape::bytes(d.dir().as_os_str().as_encoded_bytes()).to_string());
        let place = dir.map_or("nowhere".to_owned(), |d| format!("in {d}"));
        let cluster = if control.is_some() { "the ledger knows none, and " } else { "" };
        let _ =
            writeln!(t, "No job can be reported: {cluster}those without a cluster were looked for {place}.");
    }
    put(t.as_bytes());
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_chosen_by_operation_and_error() {
        let row = |op: &str, errno| FailureRow {
            path: "p".to_owned(),
            op: op.to_owned(),
            errno,
            side: "source".to_owned(),
            error: String::new(),
        };
        let takes = |text: &str, op, errno| selection(text).unwrap().takes(&row(op, errno));
        assert!(takes("", "rename", 28) && takes("rename", "rename", 1) && takes(":ENOSPC", "rename", 28));
        assert!(takes("rename:28", "rename", 28) && takes("rename:enospc", "rename", 28));
        assert!(!takes("rename", "openat", 28) && !takes("rename:EIO", "rename", 28));
        assert!(selection("rename:EWHAT").unwrap_err().contains("EWHAT"));
    }
}
