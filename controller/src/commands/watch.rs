//! `treeferry watch`: keeps DST like SRC while SRC changes.

use crate::args::log;
use crate::args::{Attributes, Cluster, Entries, Limits, Log, Output, UsageError};
use crate::cli;
use crate::cluster::whole;
use crate::job::{self, Purpose, Request, Start};
use crate::watching::Wish;
use crate::watching::audit::{Plan, Rate};
use crate::watching::detect::How;
use std::path::PathBuf;
use std::time::Duration;
use treeferry_core::config::Config;
use treeferry_core::units::{parse_duration, parse_pause};
use treeferry_core::{JobSpec, PassSet};
use treeferry_mirror::Timing;
use treeferry_service::Exit;
use treeferry_service::metrics::Settings;

/// Between two walks of the source, where it is walked for changes: a minute's load for a minute's delay.
pub const POLL_EVERY: Duration = Duration::from_secs(60);

/// In a cluster, and by a list alone, what differs is compared again after this: as long as NFS clients keep attributes
/// (`acregmax`).
const SETTLE: Duration = Duration::from_secs(60);

/// Keeps the inside of DST like the inside of SRC, within a moment, while SRC changes
///
/// First the detection of changes begins, then DST is made like SRC by one walk (not if it is known what has changed
/// since the mirror was stopped), and from then on only what changes is looked at. What was missed is known to be
/// missed, and walked again. Entries that SRC does not have are deleted from DST: it is a mirror.
///
/// It runs until it is told to stop (SIGINT, SIGTERM, or SIGHUP if that is not ignored). `treeferry status` says meanwhile
/// up to what moment DST is complete, and how long changes take to arrive. What fails is named, and tried again until it
/// succeeds.
///
/// Without a cluster one process does it all, and sees what is done on this machine. What writers on other nodes do it
/// finds with `--detect poll`, or hears of with `--detect list` and from `treeferry post`. With a cluster `treeferry
/// agent` tells what changes on each node, and workers copy.
#[derive(Debug, clap::Args)]
#[command(after_long_help = cli::exit_codes())]
pub struct Args {
    /// The directory to copy from
    #[arg(value_hint = clap::ValueHint::DirPath)]
    src: PathBuf,
    /// The directory to copy to; made if missing
    #[arg(value_hint = clap::ValueHint::DirPath)]
    dst: PathBuf,

    /// How changes are detected: a list, separated by commas
    ///
    /// Several may run together. Default: fanotify if this process may use it, else inotify.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', help_heading = "Detection")]
    detect: Vec<How>,
    /// With `--detect shim`: the file through which programs tell what they change
    ///
    /// Those in whose environment LD_PRELOAD names libtreeferry_shim.so and TREEFERRY_SHIM names this file. It is made
    /// if it is missing, and one process reads it at a time. Default: /run/treeferry/shim.ring for root, else
    /// treeferry-shim.ring in $XDG_RUNTIME_DIR.
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::FilePath, help_heading = "Detection")]
    ring: Option<PathBuf>,
    /// With `--detect list`: paths end with NUL, as `find -print0` writes them
    ///
    /// Default: they end with a newline.
    #[arg(short = '0', long, help_heading = "Detection")]
    null: bool,
    /// With `--detect poll`: wait for DUR from the end of one walk of SRC to the begin of the next
    #[arg(long, value_name = "DUR", value_parser = parse_pause, help_heading = "Detection")]
    poll_every: Option<Duration>,
    /// With `--detect poll`: keep what a walk has seen in FILE
    ///
    /// Whoever mirrors the same directories next with the same options begins with it, and walks only SRC, not DST. Default: in
    /// the directory of events, as ID.index in `mirrors/`; without that directory nowhere.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Detection")]
    index: Option<PathBuf>,
    /// Walk everything first, whatever is known of the mirror from before
    ///
    /// A mirror that was stopped goes on without a walk in a cluster, with the index of `--detect poll`, and with `--detect
    /// shim` alone.
    #[arg(long, help_heading = "Detection")]
    rescan: bool,
    /// In a cluster: the agents whose word counts, separated by commas: those of the nodes on which SRC is changed
    ///
    /// The mirror is complete only as far as all of them say. Default: every agent that is heard.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = "Detection")]
    #[arg(value_parser = crate::args::daemon::node_name)]
    agents: Vec<String>,
    /// Compare entries drawn at random with SRC meanwhile, RATE of them: entries an hour, or N/s, N/m, N/h or N/d
    ///
    /// They are drawn evenly without walking the trees and compared in all attributes, with --checksum in content too, as
    /// `treeferry audit` does it. One that differs is compared again when DST is complete beyond that moment; if it differs
    /// still and nobody has changed it, it is named in the log, copied again, and counted. `treeferry status` says what
    /// share of all entries differed in the last seven days, and a bound that it does not exceed with 95 % confidence. About
    /// as many directories are listed as entries are drawn, and a thousand more each day. At most 100/s. Default: none.
    #[arg(long, value_name = "RATE", value_parser = Rate::parse, help_heading = "Audit")]
    audit: Option<Rate>,
    /// With --audit: compare what differs again after DUR at least
    ///
    /// To be longer than file systems show this machine what is no longer so (NFS: `actimeo`), and than a change takes to be
    /// listed where a list alone tells of it. Default: 60 s in a cluster and with a list alone, else 0.
    #[arg(long, value_name = "DUR", value_parser = parse_duration, requires = "audit", help_heading = "Audit")]
    audit_settle: Option<Duration>,
    /// Delete nothing from DST
    #[arg(long)]
    no_delete: bool,
    /// Decide by content, not by size and modification time, whether a file is unchanged
    #[arg(short = 'c', long)]
    checksum: bool,
    /// Print a line for each change, in rsync's form `%i %n`
    #[arg(short = 'i', long)]
    itemize: bool,

    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    attributes: Attributes,
    #[command(flatten)]
    entries: Entries,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    log: Log,
    #[command(flatten)]
    output: Output,
}

/// Runs the command.
pub fn run(args: Args) -> Exit {
    match args.request() {
        Ok(request) => job::run(Purpose::Watch, request, &args.output),
        Err(e) => cli::refuse("watch", &e),
    }
}

impl Args {
    fn request(&self) -> Result<Request, UsageError> {
        let config = self.limits.config()?;
        let mut detect = self.detect.clone();
        detect.sort();
        detect.dedup();
        if self.null && !detect.contains(&How::List) {
            return Err(UsageError::OnlyForLists);
        }
        if !detect.contains(&How::Poll) && (self.poll_every.is_some() || self.index.is_some()) {
            return Err(UsageError::OnlyForPolling);
        }
        if self.ring.is_some() && !detect.contains(&How::Shim) {
            return Err(UsageError::OnlyForShim);
        }
        let site = self.cluster.site(&config)?;
        if site.is_some() && self.ring.is_some() {
            return Err(UsageError::RingInCluster);
        }
        if site.is_some() && (self.poll_every.is_some() || self.index.is_some()) {
            return Err(UsageError::PollingInCluster);
        }
        if site.is_some() && detect.contains(&How::List) {
            return Err(UsageError::ListInCluster);
        }
        if site.is_some() && self.itemize {
            return Err(UsageError::ItemizeFarMirror);
        }
        if site.is_none() && !self.agents.is_empty() {
            return Err(UsageError::AgentsWithoutCluster);
        }
        let by_list = detect == [How::List];
        let settle = if site.is_some() || by_list { SETTLE } else { Duration::ZERO };
        let settle = self.audit_settle.unwrap_or(settle);
        let diary = log::dir(None, &config.log);
        let telling = self.log.telling(&config.log, site.is_some())?;
        Ok(Request {
            spec: self.spec(&config)?,
            pool: self.limits.pool(&config),
            site,
            start: Start::Whole,
            detach: false,
            telling,
            metrics: Settings::read(&config.metrics)?,
            watch: Some(Wish {
                detect,
                ring: self.ring.clone(),
                zero: self.null,
                timing: Timing::default(),
                agents: self.agents.clone(),
                rescan: self.rescan,
                diary,
                poll_every: self.poll_every.unwrap_or(POLL_EVERY),
                index: self.index.clone(),
                audit: self.audit.map(|rate| Plan { rate, settle, by_list }),
            }),
        })
    }

    fn spec(&self, config: &Config) -> Result<JobSpec, UsageError> {
        // however they are written it is the same mirror
        let mut spec = JobSpec::new(whole(&self.src), whole(&self.dst));
        spec.passes = PassSet { copy: true, delete: !self.no_delete, dirtime: true };
        spec.checksum = self.checksum;
        spec.itemize = self.itemize;
        self.attributes.apply(&mut spec);
        self.entries.apply(&mut spec, config)?;
        self.limits.apply(&mut spec, config);
        self.log.apply(&mut spec, &config.log);
        match spec.max_age {
            Some(_) => Err(UsageError::NotForMirrors("--max-age")),
            None => Ok(spec),
        }
    }
}
