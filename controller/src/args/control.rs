//! What every command takes that asks or tells the cluster something.

use super::{Cluster, UsageError, config_of};
use std::ffi::OsString;
use std::path::Path;
use treeferry_core::JobId;
use treeferry_core::config::Config;
use treeferry_queue::{Control, Site};
use treeferry_service::configuration;

// not a doc comment: clap would take it for the manual of the command that includes these options
#[derive(Debug, clap::Args)]
pub struct Reach {
    /// Take the cluster from FILE (TOML)
    ///
    /// An empty name means no file. Default: no file.
    #[arg(long, value_name = "FILE", env = configuration::VARIABLE, hide_env_values = true)]
    #[arg(value_parser = clap::builder::OsStringValueParser::new(), value_hint = clap::ValueHint::FilePath)]
    config: Option<OsString>,
    #[command(flatten)]
    cluster: Cluster,
}

// not a doc comment, as above
#[derive(Debug, clap::Args)]
pub struct Ask {
    /// The cluster.
    #[command(flatten)]
    pub reach: Reach,
    /// Print one JSON object on standard output
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// Why nothing could be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The options are wrong.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// The ledger does not answer.
    #[error("{0}")]
    Unreachable(String),
    /// There is no such thing.
    #[error("{0}")]
    Unknown(String),
}

impl Reach {
    /// The configuration file, if one is named.
    pub fn file(&self) -> Option<&Path> {
        self.config.as_deref().filter(|p| !p.is_empty()).map(Path::new)
    }

    /// Reads the configuration file.
    pub fn config(&self) -> Result<Config, UsageError> {
        config_of(self.config.as_deref())
    }

    /// Where the cluster is; `None`: there is none.
    pub fn site(&self) -> Result<Option<Site>, UsageError> {
        self.cluster.site(&self.config()?)
    }
}

impl Ask {
    /// Reads the configuration file.
    pub fn config(&self) -> Result<Config, UsageError> {
        self.reach.config()
    }

    /// Where the cluster is.
    pub fn site(&self) -> Result<Site, UsageError> {
        self.reach.site()?.ok_or(UsageError::NoCluster)
    }

    /// Connects to it.
    pub fn control(&self) -> Result<Control, AskError> {
        connect(&self.site()?)
    }
}

/// Connects to a cluster.
pub fn connect(site: &Site) -> Result<Control, AskError> {
    Control::connect(site).map_err(|e| AskError::Unreachable(e.to_string()))
}

/// Reads the id of a job.
pub fn job_id(text: &str) -> Result<JobId, String> {
    text.parse().map_err(|e: treeferry_core::ids::BadJobId| e.to_string())
}
