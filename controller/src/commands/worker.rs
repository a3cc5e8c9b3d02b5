//! `treeferry worker` and `treeferry hardlinker`: the daemons of a cluster.

use crate::args::limits::MOST_THREADS;
use crate::args::log;
use crate::args::{Cluster, Daemon, UsageError};
use crate::cli;
use crate::daemon::{self, Plan};
use treeferry_core::config::Config;
use treeferry_queue::{Lane, Site};
use treeferry_service::Exit;
use treeferry_service::metrics::Settings;

/// Works for every job of the cluster
///
/// Takes tasks from RabbitMQ, walks, copies, deletes and finishes directories. Start one on each node on which the
/// file systems are mounted, and as many nodes as you like, at any time; stop them at any time, too: what one has begun
/// another ends. SIGTERM hands back what is under way, a second signal ends at once, and neither loses anything.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Use N threads, 1 to 4096
    ///
    /// Default: the configuration's `pool`, else twice as many as there are cores.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MOST_THREADS as i64), help_heading = "Tuning")]
    pool: Option<u16>,
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    daemon: Daemon,
}

/// Makes the hard links of every job of the cluster
///
/// One hardlinker works at a time; start two, on different nodes, and the second takes over when the first dies. A
/// third changes nothing. The file systems of the jobs must be mounted where it runs.
#[derive(Debug, clap::Args)]
pub struct HardlinkerArgs {
    #[command(flatten)]
    cluster: Cluster,
    #[command(flatten)]
    daemon: Daemon,
}

/// Runs the worker.
pub fn run(args: &Args) -> Exit {
    let started = (|| {
        let config = args.daemon.config()?;
        let site = args.cluster.site(&config)?.ok_or(UsageError::NoCluster)?;
        let cores = std::thread::available_parallelism().map_or(2, |n| n.get());
        let threads = args.pool.map(usize::from).or(config.sync.pool).unwrap_or(2 * cores);
        plan(site, threads, &config)
    })();
    match started {
        Ok(plan) => daemon::run("worker", &plan, &[Lane::Dirtime, Lane::Copy, Lane::Walk], &args.daemon),
        Err(e) => cli::refuse("worker", &e),
    }
}

fn plan(site: Site, threads: usize, config: &Config) -> Result<Plan, UsageError> {
    let telling = log::telling(&config.log, None)?;
    Ok(Plan { site, threads, telling, metrics: Settings::read(&config.metrics)? })
}

/// Runs the hardlinker.
pub fn run_hardlinker(args: &HardlinkerArgs) -> Exit {
    let started = (|| {
        let config = args.daemon.config()?;
        let site = args.cluster.site(&config)?.ok_or(UsageError::NoCluster)?;
        plan(site, 1, &config)
    })();
    match started {
        Ok(plan) => daemon::run("hardlinker", &plan, &[Lane::Links], &args.daemon),
        Err(e) => cli::refuse("hardlinker", &e),
    }
}
