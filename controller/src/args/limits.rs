//! How much of the machine a job may take, and where the site says so.

use super::UsageError;
use std::ffi::OsString;
use std::path::Path;
use treeferry_core::JobSpec;
use treeferry_core::config::Config;
use treeferry_core::units::parse_size;
use treeferry_service::configuration;
use treeferry_worker::PoolSize;

/// Threads of one process, at most: each has a stack, and maps memory of which a process may have so many pieces.
pub const MOST_THREADS: usize = 4096;

// not a doc comment: clap would take it for the manual of the command that includes these options
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Tuning")]
pub struct Limits {
    /// Use N threads, 1 to 4096
    ///
    /// Default: the configuration's `pool`, else as many as the load asks for.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MOST_THREADS as i64))]
    pool: Option<u16>,
    /// Copy no more than RATE bytes a second, over all threads of a process
    ///
    /// RATE takes K, M, G, T or P (powers of 1024), e.g. 200M; 0 means no limit. Default: the configuration's
    /// `bwlimit`, else no limit.
    #[arg(long, value_name = "RATE", value_parser = parse_size)]
    bwlimit: Option<u64>,
    /// Do no more than N operations a second, over all threads of a process; at least 1
    ///
    /// Operations are entries looked at, reads and writes. Default: the configuration's `iops`, else no limit.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    iops: Option<u32>,
    /// Take defaults from FILE (TOML)
    ///
    /// Options of the command line win over it; its exclude patterns come before theirs. An empty name means
    /// no file. Default: no file.
    #[arg(long, value_name = "FILE", env = configuration::VARIABLE, hide_env_values = true)]
    #[arg(value_parser = clap::builder::OsStringValueParser::new(), value_hint = clap::ValueHint::FilePath)]
    config: Option<OsString>,
}

impl Limits {
    /// Reads the configuration file and holds its numbers to the rules of the command line.
    pub fn config(&self) -> Result<Config, UsageError> {
        let path = self.config.as_deref().filter(|p| !p.is_empty());
        let config = configuration::load(path.map(Path::new))?;
        let zero = |key| UsageError::ConfigValue { key, value: 0, why: "too small: at least 1".into() };
        match &config.sync {
            s if s.pool == Some(0) => Err(zero("pool")),
            s if s.pool.is_some_and(|n| n > MOST_THREADS) => Err(UsageError::ConfigValue {
                key: "pool",
                value: s.pool.unwrap_or_default() as u64,
                why: format!("too large: at most {MOST_THREADS}"),
            }),
            s if s.iops == Some(0) => Err(zero("iops")),
            _ => Ok(config),
        }
    }

    /// Writes the limits into a job.
    pub fn apply(&self, spec: &mut JobSpec, config: &Config) {
        spec.bwlimit = self.bwlimit.or(config.sync.bwlimit.map(|q| q.0)).filter(|&limit| limit > 0);
        spec.iops = self.iops.or(config.sync.iops);
    }

    /// The number of threads.
    pub fn pool(&self, config: &Config) -> PoolSize {
        self.pool.map(usize::from).or(config.sync.pool).map_or(PoolSize::Auto, PoolSize::Fixed)
    }
}
