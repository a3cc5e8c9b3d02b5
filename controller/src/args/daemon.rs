//! What every daemon takes.

use super::UsageError;
use std::ffi::OsString;
use std::path::Path;
use treeferry_core::config::Config;
use treeferry_service::configuration;

// not a doc comment: clap would take it for the manual of the command that includes these options
#[derive(Debug, clap::Args)]
pub struct Daemon {
    /// Take defaults, and the cluster, from FILE (TOML)
    ///
    /// An empty name means no file. Default: no file.
    #[arg(long, value_name = "FILE", env = configuration::VARIABLE, hide_env_values = true)]
    #[arg(value_parser = clap::builder::OsStringValueParser::new(), value_hint = clap::ValueHint::FilePath)]
    config: Option<OsString>,
    /// Say more, on standard error; twice: even more
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
}

impl Daemon {
    /// Reads the configuration file.
    pub fn config(&self) -> Result<Config, UsageError> {
        let path = self.config.as_deref().filter(|p| !p.is_empty());
        Ok(configuration::load(path.map(Path::new))?)
    }
}
