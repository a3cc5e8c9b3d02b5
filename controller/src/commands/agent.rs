//! `treeferry agent`: detects changes on one node.

use crate::agent::{self, Plan};
use crate::args::{Cluster, Daemon, UsageError, log};
use crate::cli;
use crate::commands::watch::POLL_EVERY;
use crate::watching::detect::How;
use std::path::PathBuf;
use std::time::Duration;
use treeferry_core::units::{parse_pause, parse_size};
use treeferry_service::Exit;

/// Tells the mirrors of the cluster what changes on this node
///
/// Start one on each node on which the source directories of mirrors are changed, and leave it running. It watches the
/// SRC of every mirror that 'treeferry watch' keeps in the cluster, and sends what it hears by RabbitMQ to whoever keeps
/// it. Those who change files never wait for it: while RabbitMQ is away what is heard goes to a file, and when that is
/// full the mirror is told so, and walks.
#[derive(Debug, clap::Args)]
#[command(after_long_help = cli::exit_codes())]
pub struct Args {
    /// How changes are detected on this node: a list, separated by commas
    ///
    /// Several may run together. Default: what 'treeferry watch --detect' says; if that says nothing, fanotify if this
    /// process may use it, else inotify.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',', help_heading = "Detection")]
    detect: Vec<How>,
    /// With `poll`: wait for DUR from the end of one walk of a source to the begin of the next [default: 60s]
    #[arg(long, value_name = "DUR", value_parser = parse_pause, help_heading = "Detection")]
    poll_every: Option<Duration>,
    /// With 'shim': the file through which programs tell what they change
    ///
    /// Default: /run/treeferry/shim.ring for root, else treeferry-shim.ring in $XDG_RUNTIME_DIR.
    #[arg(long, value_name = "PATH", value_hint = clap::ValueHint::FilePath, help_heading = "Detection")]
    ring: Option<PathBuf>,
    /// Keep what RabbitMQ does not take in DIR
    ///
    /// In a file without a name, of which nothing is left when the agent ends. Default: the directory for temporary
    /// files.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, help_heading = "Tuning")]
    spool_dir: Option<PathBuf>,
    /// Keep at most SIZE there for each mirror; K, M, G
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "1G", help_heading = "Tuning")]
    spool_size: u64,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    daemon: Daemon,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    match plan(args) {
        Ok(plan) => agent::run(&plan, &args.daemon),
        Err(e) => cli::refuse("agent", &e),
    }
}

fn plan(args: &Args) -> Result<Plan, UsageError> {
    let config = args.daemon.config()?;
    let site = args.cluster.site(&config)?.ok_or(UsageError::NoCluster)?;
    let mut detect = args.detect.clone();
    detect.sort();
    detect.dedup();
    if detect.contains(&How::List) {
        return Err(UsageError::ListInCluster);
    }
    let spool = args.spool_dir.clone().unwrap_or_else(std::env::temp_dir);
    let (poll_every, ring) = (args.poll_every.unwrap_or(POLL_EVERY), args.ring.clone());
    let dir = log::dir(None, &config.log);
    Ok(Plan { site, detect, poll_every, ring, spool, spool_bytes: args.spool_size, dir })
}
