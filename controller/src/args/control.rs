//! What every command takes that asks or tells the cluster something.

use super::{Cluster, UsageError, config_of};
use std::ffi::OsString;
use treeferry_core::JobId;
use treeferry_core::config::Config;
use treeferry_queue::{Control, Site};
use treeferry_service::configuration;

// not a doc comment: clap would take it for the manual of the command that includes these options
#[derive(Debug, clap::Args)]
pub struct Ask {
    /// Take the cluster from FILE (TOML)
    ///
    /// An empty name means no file. Default: no file.
    #[arg(long, value_name = "FILE", env = configuration::VARIABLE, hide_env_values = true)]
    #[arg(value_parser = clap::builder::OsStringValueParser::new(), value_hint = clap::ValueHint::FilePath)]
    config: Option<OsString>,
    #[command(flatten)]
    cluster: Cluster,
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

impl Ask {
    /// Where the cluster is.
    pub fn site(&self) -> Result<Site, UsageError> {
        self.site_if_any(&self.config()?)?.ok_or(UsageError::NoCluster)
    }

    /// Where the cluster is, if there is one.
    pub fn site_if_any(&self, config: &Config) -> Result<Option<Site>, UsageError> {
        self.cluster.site(config)
    }

    /// The configuration.
    pub fn config(&self) -> Result<Config, UsageError> {
        config_of(self.config.as_deref())
    }

    /// Connects to it.
    pub fn control(&self) -> Result<Control, AskError> {
        Control::connect(&self.site()?).map_err(|e| AskError::Unreachable(e.to_string()))
    }
}

/// Reads the id of a job.
pub fn job_id(text: &str) -> Result<JobId, String> {
    text.parse().map_err(|e: treeferry_core::ids::BadJobId| e.to_string())
}
