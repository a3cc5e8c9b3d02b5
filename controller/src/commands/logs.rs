//! `treeferry logs`: shows events, or collects them into files.

use crate::args::control::{AskError, job_id};
use crate::args::daemon::host;
use crate::args::log::{dir, severity};
use crate::args::{Cluster, UsageError, config_of};
use crate::logs::{Files, LogsError, Place, Seen, Source, Trouble, Voice, sift};
use crate::output::{complain, grouped};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use treeferry_core::event::{EventKind, Line, Origin, Selection, micros};
use treeferry_core::{Event, JobId, RelPath, Severity, errno, escape};
use treeferry_queue::{Collector, EventStream, Site};
use treeferry_service::{Exit, configuration};

/// Between two looks of --follow.
const FOLLOW: Duration = Duration::from_secs(1);

/// Shows what happened, or collects it into files
///
/// Without PREFIX events are printed, the oldest first. With PREFIX they are appended to PREFIX.INFO, PREFIX.WARNING,
/// PREFIX.ERROR and PREFIX.DEBUG, each event once: the next call goes on where the last one stopped or was killed, and
/// PREFIX.state says where that was. Each PREFIX has all events; what others read takes nothing away.
///
/// With a cluster events come from its stream, else from the directory of --log-dir. What is told of a job is a matter of
/// its --log-level. Events that were removed before they were read are counted, and that is said.
#[derive(Debug, clap::Args)]
#[command(after_help = "docs/events.md describes the events.")]
pub struct Args {
    /// Collect events into files of which the names begin so
    #[arg(value_hint = clap::ValueHint::FilePath)]
    prefix: Option<PathBuf>,
    /// Look N times, with a pause between
    #[arg(short = 'i', long, value_name = "N", default_value_t = 1, conflicts_with = "follow")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    iterations: u64,
    /// Pause for SECS seconds. Default: 300, and 1 with --follow
    #[arg(short = 'p', long, value_name = "SECS")]
    pause: Option<u64>,
    /// Go on until a signal comes, which does no harm
    #[arg(short = 'f', long)]
    follow: bool,

    #[command(flatten)]
    wanted: Wanted,

    /// Take the cluster, and the directory, from FILE (TOML)
    ///
    /// An empty name means no file. Default: no file.
    #[arg(long, value_name = "FILE", env = configuration::VARIABLE, hide_env_values = true)]
    #[arg(value_parser = clap::builder::OsStringValueParser::new(), value_hint = clap::ValueHint::FilePath)]
    #[arg(help_heading = "Cluster")]
    config: Option<OsString>,
    #[command(flatten)]
    cluster: Cluster,
    /// Read the events of jobs without a cluster, which were written to DIR
    ///
    /// Default: without a cluster the environment variable TREEFERRY_LOG_DIR, else the configuration's `dir`, else
    /// /var/log/treeferry for root, and ~/.local/state/treeferry for others.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    #[arg(value_parser = clap::builder::OsStringValueParser::new(), help_heading = "Events")]
    log_dir: Option<OsString>,
    /// One JSON object a line
    #[arg(long, help_heading = "Output")]
    json: bool,
}

// not a doc comment: clap would take it for the manual of the command
// Which events. Of several values of one option one has to fit, and each option that is given has to.
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Which events")]
struct Wanted {
    /// Of this job
    #[arg(long, value_name = "JOB", value_parser = job_id)]
    job: Vec<JobId>,
    /// Told by this machine
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// At least so grave
    #[arg(long, value_name = "SEVERITY", value_parser = severity())]
    severity: Option<Severity>,
    /// Of this entry, or of what is below it: a path below SRC and DST, as events show it
    #[arg(long, value_name = "PATH", value_parser = rel_path)]
    path: Vec<RelPath>,
    /// Of this operation: a system call as failures name it, or a kind of task
    #[arg(long, value_name = "OP")]
    op: Vec<String>,
    /// With this error: a name like ENOSPC or a number; 0 for what the system had no part in
    #[arg(long, value_name = "ERRNO", value_parser = error_number)]
    errno: Vec<i32>,
    /// Of this kind: entry.failed, or entry for all that begin so
    #[arg(long, value_name = "EVENT")]
    event: Vec<String>,
}

fn rel_path(text: &str) -> Result<RelPath, String> {
    let text = text.trim_end_matches('/');
    match text.strip_prefix("./").unwrap_or(text) {
        "" => Ok(RelPath::root()),
        p => RelPath::from_shown(p).map_err(|e| format!("{e}: write it as below SRC and DST")),
    }
}

fn error_number(text: &str) -> Result<i32, &'static str> {
    errno::parse(text).ok_or("neither the name of an error, as ENOSPC, nor a number")
}

impl Wanted {
    fn selection(&self) -> Selection {
        Selection {
            jobs: self.job.clone(),
            hosts: self.host.clone(),
            severity: self.severity,
            paths: self.path.clone(),
            ops: self.op.clone(),
            errnos: self.errno.clone(),
            events: self.event.clone(),
        }
    }
}

/// Why it ended.
#[derive(Debug, thiserror::Error)]
enum Why {
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error(transparent)]
    Logs(#[from] LogsError),
    /// Whoever read standard output wants no more.
    #[error("standard output: {0}")]
    Output(std::io::Error),
}

impl From<UsageError> for Why {
    fn from(e: UsageError) -> Why {
        Why::Ask(e.into())
    }
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    match collect(args) {
        Ok(()) => Exit::Done,
        Err(Why::Output(e)) if e.kind() == std::io::ErrorKind::BrokenPipe => Exit::Done,
        Err(Why::Ask(e)) => super::status::explain("logs", &e),
        Err(Why::Logs(LogsError::Ledger(e))) => {
            super::status::explain("logs", &AskError::Unreachable(e.to_string()))
        }
        Err(e) => {
            complain(&e.to_string());
            Exit::Usage
        }
    }
}

/// Where events come from, as asked for.
enum Where {
    Cluster(Box<Site>),
    Dir(PathBuf),
}

impl Where {
    fn of(args: &Args) -> Result<Where, UsageError> {
        let config = config_of(args.config.as_deref())?;
        let site = match args.log_dir {
            Some(_) => None,
            None => args.cluster.site(&config)?,
        };
        match site {
            Some(site) => Ok(Where::Cluster(Box::new(site))),
            None => dir(args.log_dir.as_deref(), &config.log).map(Where::Dir).ok_or(UsageError::NoLogDir),
        }
    }

    /// What it goes by where it is remembered; without the password.
    fn name(&self) -> String {
        match self {
            Where::Cluster(site) => {
                let (scheme, rest) = site.ledger.split_once("://").unwrap_or(("", &site.ledger));
                format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, place)| place))
            }
            Where::Dir(d) => {
                let d = std::path::absolute(d).unwrap_or_else(|_| d.clone());
                escape::bytes(d.as_os_str().as_encoded_bytes()).to_string()
            }
        }
    }

    fn stream(site: &Site) -> Result<EventStream, AskError> {
        EventStream::connect(site).map_err(|e| AskError::Unreachable(e.to_string()))
    }
}

/// Where events are put.
enum To {
    Terminal(Voice),
    Files(Box<Files>),
}

fn collect(args: &Args) -> Result<(), Why> {
    let from = Where::of(args)?;
    let voice = if args.json { Voice::Json } else { Voice::Text };
    let (mut source, mut to, mut seen) = match &args.prefix {
        None => {
            let source = match &from {
                Where::Cluster(site) => Source::look(Where::stream(site)?),
                Where::Dir(d) => Source::dir(d, Default::default()),
            };
            (source, To::Terminal(voice), Seen::default())
        }
        Some(prefix) => {
            let mut files = Files::open(prefix, voice)?;
            let (place, seen) = files.remembered(&from.name()).map_or((None, None), |(p, s)| (p, Some(s)));
            let (source, new) = match (&from, place) {
                (Where::Cluster(site), place) => {
                    let last = match place {
                        Some(Place::Entry(id)) => id.parse().ok(),
                        _ => None,
                    };
                    let mut name = format!("logs:{}:", host()).into_bytes();
                    name.extend_from_slice(files.prefix().as_os_str().as_encoded_bytes());
                    Source::collect(Where::stream(site)?, Collector { name }, last)?
                }
                (Where::Dir(d), Some(Place::Marks(marks))) => (Source::dir(d, marks), true),
                (Where::Dir(d), _) => (Source::dir(d, Default::default()), true),
            };
            // one that was known and of which nothing is remembered has read before, who knows how far
            let known = seen.is_some();
            let seen = seen.unwrap_or_else(|| if new { Seen::default() } else { Seen::late() });
            if !known {
                // also if there is nothing yet: what is lost from now on is missed
                files.commit(&from.name(), source.place(), &seen)?;
            }
            (source, To::Files(Box::new(files)), seen)
        }
    };
    let pause = args.pause.map(Duration::from_secs);
    let pause = pause.unwrap_or(if args.follow { FOLLOW } else { Duration::from_secs(300) });
    let (selection, name, mut said) = (args.wanted.selection(), from.name(), 0);
    let mut looks = 0;
    loop {
        let mut trouble = Trouble::default();
        let drained = drain(&mut source, &mut to, &selection, &mut seen, &name, &mut said, &mut trouble);
        tell(&trouble);
        drained?;
        looks += 1;
        if !args.follow && looks == args.iterations {
            return Ok(());
        }
        std::thread::sleep(pause);
    }
}

/// Says what could not be shown.
fn tell(t: &Trouble) {
    if t.lost > 0 {
        complain(&format!("{} events were removed before they could be read (events.lost)", grouped(t.lost)));
    }
    if t.malformed > 0 {
        complain(&format!("{} lines are no events, and were left out", grouped(t.malformed)));
    }
}

/// Reads all there is.
fn drain(
    source: &mut Source,
    to: &mut To,
    selection: &Selection,
    seen: &mut Seen,
    name: &str,
    said: &mut u64,
    trouble: &mut Trouble,
) -> Result<(), Why> {
    loop {
        let batches = source.read()?;
        if batches.is_empty() {
            return Ok(());
        }
        let now = micros(SystemTime::now());
        seen.at(now / 1_000_000);
        let (mut out, mut failed) = (Vec::new(), Ok(()));
        let (t, lost) = sift(&batches, selection, seen, |line, raw| match to {
            To::Terminal(voice) => voice.write(line, raw, &mut out),
            To::Files(files) => {
                if failed.is_ok() {
                    failed = files.put(line, raw);
                }
            }
        })?;
        failed?;
        trouble.lost += t.lost;
        trouble.malformed += t.malformed;
        match to {
            To::Terminal(_) => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(&out).and_then(|()| stdout.flush()).map_err(Why::Output)?;
            }
            To::Files(files) => {
                let origin = Origin { host: host(), worker: format!("logs-{}", std::process::id()) };
                for (worker, count) in lost {
                    let text = format!("of {worker}");
                    let e = Event::new(EventKind::EventsLost).text(text);
                    let e = Event { time_us: now, count: Some(count), ..e };
                    let line = Line::of(&e, &origin, *said);
                    let mut raw = Vec::new();
                    line.write(&mut raw);
                    files.put(&line, &raw)?;
                    *said += 1;
                }
                files.commit(name, source.place(), seen)?;
                source.acknowledge()?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_as_they_are_shown() {
        let p = |b: &[u8]| RelPath::new(b).unwrap();
        for (text, want) in [
            ("a/b", p(b"a/b")),
            ("./a/b/", p(b"a/b")),
            (".", RelPath::root()),
            ("", RelPath::root()),
            ("new\\#012line\\#377", p(b"new\nline\xff")),
        ] {
            assert_eq!(rel_path(text).unwrap(), want, "{text}");
        }
        assert!(rel_path("/a").is_err() && rel_path("a/../b").is_err());
    }

    #[test]
    fn a_cluster_is_remembered_without_its_password() {
        let site = |url: &str| Where::Cluster(Box::new(Site::new(String::new(), url.to_owned()))).name();
        assert_eq!(site("redis://:p@ss@h:6379/0"), "redis://h:6379/0");
        assert_eq!(site("rediss://h/"), "rediss://h/");
        assert_eq!(Where::Dir("/x/y".into()).name(), "/x/y");
    }
}
