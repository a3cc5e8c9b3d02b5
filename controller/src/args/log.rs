//! What is told of a job, and where that is written.

use super::UsageError;
use crate::events::Telling;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;
use treeferry_core::config::LogConfig;
use treeferry_core::{JobSpec, Severity};
use treeferry_service::events::{self, Keeping};

// not a doc comment: clap would take it for the manual of the command that includes these options
#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Events")]
pub struct Log {
    /// Tell events that are at least so grave
    ///
    /// info tells each thing that is done to an entry; debug also what was left alone, and long tasks. Begin and end of
    /// jobs and workers are always told. `treeferry logs` shows events. Default: the configuration's `level`, else
    /// warning.
    #[arg(long, value_name = "LEVEL", value_parser = severity())]
    log_level: Option<Severity>,
    /// Write events to files in DIR, if there is no cluster; with a cluster they go to its stream
    ///
    /// An empty name means nowhere. Default: the environment variable TREEFERRY_LOG_DIR, else the configuration's `dir`,
    /// else /var/log/treeferry for root, and ~/.local/state/treeferry for others.
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
    #[arg(value_parser = clap::builder::OsStringValueParser::new())]
    log_dir: Option<OsString>,
}

/// Reads a severity.
pub fn severity() -> impl TypedValueParser<Value = Severity> {
    let words = PossibleValuesParser::new(Severity::ALL.map(Severity::name));
    words.try_map(|w| Severity::from_name(&w).ok_or("no severity"))
}

impl Log {
    /// Writes the level into a job.
    pub fn apply(&self, spec: &mut JobSpec, config: &LogConfig) {
        spec.log_level = self.log_level.unwrap_or(config.level);
    }

    /// Where events go. `clustered`: the job is one of a cluster.
    pub fn telling(&self, config: &LogConfig, clustered: bool) -> Result<Telling, UsageError> {
        if clustered && self.log_dir.is_some() {
            return Err(UsageError::LogDirOfCluster);
        }
        telling(config, dir(self.log_dir.as_deref(), config))
    }
}

/// The directory of events.
pub fn dir(given: Option<&std::ffi::OsStr>, config: &LogConfig) -> Option<PathBuf> {
    let given = given.map(OsString::from).or_else(|| std::env::var_os(events::VARIABLE));
    let is_root = || treeferry_fs::Privilege::of_this_process().uid == 0;
    let named = given.map(PathBuf::from).or_else(|| config.dir.clone());
    named.or_else(|| events::default_dir(is_root())).filter(|d| !d.as_os_str().is_empty())
}

/// What the configuration says of events.
pub fn telling(config: &LogConfig, dir: Option<PathBuf>) -> Result<Telling, UsageError> {
    let small = |key, value, least| Err(UsageError::LogValue { key, value, least });
    match config {
        c if c.file_size.0 < LEAST_FILE_BYTES => return small("file-size", c.file_size.0, LEAST_FILE_BYTES),
        c if c.files < 2 => return small("files", c.files.into(), 2),
        c if c.keep_days < 1 => return small("keep-days", c.keep_days.into(), 1),
        c if c.buffer < LEAST_BUFFER => return small("buffer", c.buffer as u64, LEAST_BUFFER as u64),
        c if c.stream_length < LEAST_STREAM => return small("stream-length", c.stream_length, LEAST_STREAM),
        _ => {}
    }
    let keep = Keeping {
        buffer: config.buffer,
        file_bytes: config.file_size.0,
        files: config.files.into(),
        age: Duration::from_secs(86_400) * config.keep_days,
    };
    Ok(Telling { dir, keep, stream_length: config.stream_length })
}

/// Less would be a file for some hundred events.
const LEAST_FILE_BYTES: u64 = 64 << 10;
/// Less would be dropped by the first large directory.
const LEAST_BUFFER: usize = 100;
/// Less would be a few entries.
const LEAST_STREAM: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use treeferry_core::config::Config;

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        for (text, word) in [
            ("file-size = 1000", "file-size"),
            ("files = 1", "files"),
            ("keep-days = 0", "keep-days"),
            ("stream-length = 0", "stream-length"),
            ("buffer = 99", "buffer"),
        ] {
            let config = Config::parse(&format!("[log]\n{text}\n")).unwrap().log;
            let e = telling(&config, None).unwrap_err().to_string();
            assert!(e.contains(word) && e.contains("at least"), "{e}");
        }
        assert!(telling(&LogConfig::default(), None).is_ok());
        assert!(Config::parse("[log]\nlevel = \"loud\"\n").unwrap_err().contains("loud"));
    }

    #[test]
    fn a_directory_is_for_jobs_without_a_cluster_and_an_empty_name_means_nowhere() {
        let log = |dir: &str| Log { log_dir: Some(dir.into()), ..Log::default() };
        let c = LogConfig::default();
        assert!(matches!(log("/x").telling(&c, true), Err(UsageError::LogDirOfCluster)));
        assert_eq!(log("/x").telling(&c, false).unwrap().dir, Some("/x".into()));
        assert_eq!(log("").telling(&c, false).unwrap().dir, None);
        let config = LogConfig { dir: Some("/y".into()), ..LogConfig::default() };
        assert_eq!(log("/x").telling(&config, false).unwrap().dir, Some("/x".into()));
    }
}
