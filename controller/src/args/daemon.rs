//! What every daemon takes.

use super::{UsageError, config_of};
use std::ffi::OsString;
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
    /// Go by NAME, which with the process number makes the worker's full name: NAME-PID
    ///
    /// `status` shows it, and the other commands take it, to mean all that go by it. Default: the host's name.
    #[arg(long, value_name = "NAME", value_parser = node_name)]
    name: Option<String>,
    /// Say more, on standard error; twice: even more
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = "Output")]
    pub verbose: u8,
}

impl Daemon {
    /// What this process goes by.
    pub fn name(&self) -> String {
        self.name.clone().unwrap_or_else(host)
    }

    /// Reads the configuration file.
    pub fn config(&self) -> Result<Config, UsageError> {
        config_of(self.config.as_deref())
    }
}

/// The host's name, as far as it serves as a name.
pub fn host() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let clean: String = text.trim().chars().filter(|c| is_fit(*c)).collect();
    if clean.is_empty() { "localhost".to_owned() } else { clean }
}

fn is_fit(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

/// A name that a daemon may go by.
pub fn node_name(text: &str) -> Result<String, &'static str> {
    match !text.is_empty() && text.chars().all(is_fit) {
        true => Ok(text.to_owned()),
        false => Err("a name has letters, digits, '.', '-' and '_'"),
    }
}
