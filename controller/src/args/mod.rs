//! Groups of options that several commands share, and how they become a job.

pub mod attributes;
pub mod cluster;
pub mod control;
pub mod daemon;
pub mod entries;
pub mod limits;
pub mod log;
pub mod output;

pub use attributes::Attributes;
pub use cluster::Cluster;
pub use daemon::Daemon;
pub use entries::Entries;
pub use limits::Limits;
pub use log::Log;
pub use output::Output;

use std::path::PathBuf;
use treeferry_core::escape;
use treeferry_service::configuration::ConfigError;
use treeferry_service::metrics::BadMetrics;

/// Why options that were each read without a fault make no job.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// It says how to delete where nothing is to be deleted.
    #[error("{0} has no effect without the delete pass: add --delete, or take it out")]
    NeedsDelete(&'static str),
    /// Only one of broker and ledger is known.
    #[error("a cluster takes both: {0} is missing, and the configuration file does not say it")]
    HalfCluster(&'static str),
    /// Neither is known.
    #[error("no cluster: give --broker and --ledger, or name a configuration file that has them")]
    NoCluster,
    /// A URL of another kind.
    #[error("{option}: the URL must begin with one of {}", schemes.join(", "))]
    Scheme {
        /// Which option.
        option: &'static str,
        /// What it takes.
        schemes: &'static [&'static str],
    },
    /// What is there already would have to go.
    #[error(
        "{0} is not for mirrors: what is there already would have to go when it comes of age; leave it out"
    )]
    NotForMirrors(&'static str),
    /// It says how a list is read where there is none.
    #[error("--null has no effect without --detect list")]
    OnlyForLists,
    /// It says how SRC is walked for changes where it is not.
    #[error("--poll-every and --index have no effect without --detect poll")]
    OnlyForPolling,
    /// It is not this process that walks.
    #[error("in a cluster it is agents that poll: give --poll-every to 'treeferry agent'")]
    PollingInCluster,
    /// It names a ring that nobody reads.
    #[error("--ring has no effect without --detect shim")]
    OnlyForShim,
    /// A ring is that of a node.
    #[error("--ring is for one process; in a cluster give it to 'treeferry agent'")]
    RingInCluster,
    /// A cluster reads no list.
    #[error("--detect list is for one process; in a cluster give the paths to 'treeferry post --from -'")]
    ListInCluster,
    /// It says whose word counts where nobody else speaks.
    #[error("--agents has no effect without a cluster")]
    AgentsWithoutCluster,
    /// Whoever keeps a mirror of the cluster hears of no changes of the target.
    #[error("--itemize is not for mirrors of a cluster: see 'treeferry logs' with --log-level info")]
    ItemizeFarMirror,
    /// An `--exclude-from` file.
    #[error("--exclude-from {}: {why}", escape::bytes(path.as_os_str().as_encoded_bytes()))]
    PatternFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// It says where to write events that are written elsewhere.
    #[error(
        "--log-dir has no effect with a cluster: events go to its stream, and 'treeferry logs' collects them"
    )]
    LogDirOfCluster,
    /// There is neither a cluster nor a directory.
    #[error(
        "no cluster, and no directory of events: give --log-dir, or name a configuration file that says more"
    )]
    NoLogDir,
    /// The configuration file has a value for events that makes no sense.
    #[error("configuration: log.{key} = {value} is too small: at least {least}")]
    LogValue {
        /// Which key.
        key: &'static str,
        /// What it says.
        value: u64,
        /// The least that is allowed.
        least: u64,
    },
    /// The configuration file cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its section `[metrics]` makes no sense.
    #[error(transparent)]
    Metrics(#[from] BadMetrics),
    /// The configuration file has a value that the command line would refuse.
    #[error("configuration: sync.{key} = {value} is {why}")]
    ConfigValue {
        /// Which key.
        key: &'static str,
        /// What it says.
        value: u64,
        /// What is wrong with that.
        why: String,
    },
}

/// Reads the configuration file, if one is named.
pub fn config_of(file: Option<&std::ffi::OsStr>) -> Result<treeferry_core::config::Config, UsageError> {
    let path = file.filter(|p| !p.is_empty());
    Ok(treeferry_service::configuration::load(path.map(std::path::Path::new))?)
}
