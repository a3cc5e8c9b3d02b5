//! The site's configuration file (TOML). Every key has a default and is shown in `config/treeferry.toml`;
//! a key that is not known is an error, so that a misspelt one is not silently without effect.

use crate::event::Severity;
use crate::units::{BadQuantity, parse_size};
use serde::Deserialize;
use std::path::PathBuf;

/// What a configuration file can say. Options of the command line win over it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Defaults of `treeferry sync`.
    pub sync: SyncConfig,
    /// Where broker and ledger are.
    pub cluster: ClusterConfig,
    /// What is told of jobs, and where that is written.
    pub log: LogConfig,
    /// Where metrics go.
    pub metrics: MetricsConfig,
}

/// Section `[log]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct LogConfig {
    /// As `--log-level`.
    pub level: Severity,
    /// As `--log-dir`.
    pub dir: Option<PathBuf>,
    /// A file of the log directory has about so many bytes at most.
    pub file_size: Quantity,
    /// A job has so many files at most; the oldest goes when there is one more.
    pub files: u32,
    /// Files of jobs that have been silent for so many days are removed.
    pub keep_days: u32,
    /// How many events wait in a process to be written; what is too much is dropped.
    pub buffer: usize,
    /// How many events the stream of the cluster holds.
    pub stream_length: u64,
}

impl Default for LogConfig {
    fn default() -> Self {
        LogConfig {
            level: Severity::Warning,
            dir: None,
            file_size: Quantity(64 << 20),
            files: 16,
            // as long as the ledger of a cluster remembers a job
            keep_days: 30,
            // at 20,000 events a second, which is a lot for one process, three seconds; about 20 MB
            buffer: 65_536,
            // about 300 MB of Redis's memory
            stream_length: 1_000_000,
        }
    }
}

/// Section `[cluster]`.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct ClusterConfig {
    /// As `--broker`.
    pub broker: Option<String>,
    /// As `--ledger`.
    pub ledger: Option<String>,
    /// Seconds after which a message that is still worked on is acknowledged.
    pub acknowledge_after: Option<u64>,
}

impl std::fmt::Debug for ClusterConfig {
    /// Without the URLs: there may be passwords in them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "ClusterConfig {{ broker: {}, ledger: {}, acknowledge_after: {:?} }}",
            self.broker.is_some(),
            self.ledger.is_some(),
            self.acknowledge_after
        )
    }
}

impl ClusterConfig {
    /// Whether there is a password in it.
    pub fn is_secret(&self) -> bool {
        let has = |url: &Option<String>| {
            let rest = url.as_deref().and_then(|u| u.split_once("://")).map(|u| u.1);
            rest.and_then(|r| r.split_once('@')).is_some_and(|(user, _)| user.contains(':'))
        };
        has(&self.broker) || has(&self.ledger)
    }
}

/// Section `[sync]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct SyncConfig {
    /// Number of worker threads; absent: found out by the load.
    pub pool: Option<usize>,
    /// As `--chunk-size`.
    pub chunk_size: Option<Quantity>,
    /// As `--bwlimit`.
    pub bwlimit: Option<Quantity>,
    /// As `--iops`.
    pub iops: Option<u32>,
    /// Patterns that are excluded from every job, before those of the command line.
    pub exclude: Vec<String>,
}

/// Section `[metrics]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct MetricsConfig {
    /// HOST:PORT of Graphite's plaintext listener.
    pub graphite: Option<String>,
    /// What every name at Graphite begins with.
    pub prefix: Option<String>,
    /// Seconds between two readings.
    pub interval: Option<u64>,
    /// Values that are kept while Graphite does not take them.
    pub buffer: Option<usize>,
    /// The names that cmover's users know are sent too.
    pub cmover_names: bool,
    /// What the names of cmover's queues begin with, after the prefix.
    pub cmover_queues: Option<String>,
    /// ADDRESS:PORT at which Prometheus can ask.
    pub prometheus: Option<String>,
}

/// A number of bytes, written as a number or as text with a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Quantity(pub u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl TryFrom<Written> for Quantity {
    type Error = BadQuantity;
    fn try_from(w: Written) -> Result<Quantity, BadQuantity> {
        match w {
            Written::Number(n) => Ok(Quantity(n)),
            Written::Text(s) => parse_size(&s).map(Quantity),
        }
    }
}

impl Config {
    /// Reads the text of a configuration file. The error names line and key.
    pub fn parse(text: &str) -> Result<Config, String> {
        toml::from_str(text).map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_has_every_key_and_says_the_defaults() {
        let text = include_str!("../../config/treeferry.toml");
        assert_eq!(Config::parse(text).unwrap(), Config::default());
        let open: String =
            text.lines().map(|l| l.strip_prefix("#= ").unwrap_or(l)).collect::<Vec<_>>().join("\n");
        let all = Config::parse(&open).unwrap();
        let c = all.cluster;
        assert!(c.broker.is_some() && c.ledger.is_some() && c.acknowledge_after == Some(600));
        let log = all.log;
        assert!(log.dir.is_some());
        assert_eq!(LogConfig { dir: None, ..log }, LogConfig::default(), "examples show the defaults");
        let m = all.metrics;
        assert!(m.graphite.is_some() && m.prometheus.is_some() && m.cmover_names);
        assert_eq!((m.prefix.as_deref(), m.interval, m.buffer), (Some("treeferry"), Some(10), Some(100_000)));
        assert_eq!(m.cmover_queues.as_deref(), Some("queue"));
        let all = all.sync;
        assert!(
            all.pool.is_some() && all.chunk_size.is_some() && all.bwlimit.is_some() && all.iops.is_some()
        );
        assert!(!all.exclude.is_empty());
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let e = Config::parse("[sync]\npoool = 3\n").unwrap_err();
        assert!(e.contains("poool"), "{e}");
    }

    #[test]
    fn quantities_may_have_units() {
        let c = Config::parse("[sync]\nchunk-size = \"1G\"\nbwlimit = 1000\n").unwrap();
        assert_eq!((c.sync.chunk_size, c.sync.bwlimit), (Some(Quantity(1 << 30)), Some(Quantity(1000))));
        assert!(Config::parse("[sync]\nchunk-size = \"1 furlong\"\n").is_err());
    }
}
