//! Metrics: what is read at each interval goes to Graphite and is kept for Prometheus.
//!
//! There is no register of values in between, because what is told are readings of a ledger, which has them all, with
//! the time of each. Why so is in `docs/decisions/0015-metrics.md`; names and meanings are in [`table`].

pub mod durations;
mod graphite;
mod meter;
mod prometheus;
pub mod table;

pub use durations::{Distribution, Durations};
use graphite::Graphite;
pub use meter::Meter;
use prometheus::Prometheus;
use std::net::SocketAddr;
use std::time::Duration;
use table::{Metric, QUANTILES};
use treeferry_core::config::MetricsConfig;

/// Where metrics go, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    graphite: Option<String>,
    prefix: String,
    /// Between two readings.
    pub interval: Duration,
    buffer: usize,
    /// What the names of cmover's queues begin with, after the prefix, if cmover's names are sent.
    pub cmover_queues: Option<String>,
    prometheus: Option<SocketAddr>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            graphite: None,
            prefix: "treeferry".to_owned(),
            interval: Duration::from_secs(10),
            buffer: 100_000,
            cmover_queues: None,
            prometheus: None,
        }
    }
}

/// Says which key of `[metrics]` is wrong.
#[derive(Debug, thiserror::Error)]
#[error("configuration: metrics.{key} = {value} {why}")]
pub struct BadMetrics {
    key: &'static str,
    value: String,
    why: &'static str,
}

impl Settings {
    /// Reads the section; `None`: metrics go nowhere.
    pub fn read(c: &MetricsConfig) -> Result<Option<Settings>, BadMetrics> {
        let bad =
            |key, value: &dyn std::fmt::Debug, why| BadMetrics { key, value: format!("{value:?}"), why };
        let graphite = c.graphite.clone().filter(|g| !g.is_empty());
        let prometheus = c.prometheus.as_deref().filter(|p| !p.is_empty());
        if let Some(g) = &graphite {
            let port = g.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if port.and_then(|(_, p)| p.parse::<u16>().ok()).is_none_or(|p| p == 0) {
                return Err(bad("graphite", g, "is not HOST:PORT"));
            }
        }
        let address = match prometheus.map(str::parse::<SocketAddr>) {
            Some(Ok(a)) if a.port() != 0 => Some(a),
            Some(_) => {
                return Err(bad("prometheus", &prometheus.unwrap_or_default(), "is not ADDRESS:PORT"));
            }
            None => None,
        };
        let mut s = Settings { graphite, prometheus: address, ..Settings::default() };
        for (key, given) in [("prefix", &c.prefix), ("cmover-queues", &c.cmover_queues)] {
            if let Some(name) = given.as_ref().filter(|g| !is_path(g)) {
                let why = "is not a name: words of letters, digits, '-' and '_', with dots between";
                return Err(bad(key, name, why));
            }
        }
        s.prefix = c.prefix.clone().unwrap_or(s.prefix);
        if c.cmover_names {
            if s.graphite.is_none() {
                return Err(bad("cmover-names", &true, "has no effect without metrics.graphite"));
            }
            s.cmover_queues = Some(c.cmover_queues.clone().unwrap_or_else(|| "queue".to_owned()));
        }
        if let Some(seconds) = c.interval {
            if !(1..=3600).contains(&seconds) {
                return Err(bad("interval", &seconds, "is not from 1 to 3600"));
            }
            s.interval = Duration::from_secs(seconds);
        }
        if let Some(buffer) = c.buffer {
            if buffer < 1000 {
                return Err(bad("buffer", &buffer, "is less than 1000, which one reading may have"));
            }
            s.buffer = buffer;
        }
        Ok((s.graphite.is_some() || s.prometheus.is_some()).then_some(s))
    }
}

fn is_path(name: &str) -> bool {
    name.split('.').all(|word| !word.is_empty() && word.chars().all(is_plain))
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

/// A value that was read.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Of what.
    pub metric: &'static Metric,
    /// For each label of the metric a value.
    pub labels: Vec<(&'static str, String)>,
    /// How much.
    pub value: Value,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// How much.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a counter or an increment.
    Count(u64),
    /// Of a gauge.
    Gauge(f64),
    /// Of a summary.
    Distribution(Distribution),
}

/// Sends what it is told to wherever the settings say.
pub struct Metrics {
    settings: Settings,
    graphite: Option<Graphite>,
    prometheus: Option<Prometheus>,
}

impl Metrics {
    /// Starts the exporters. One that cannot work is told, and is no reason not to work without.
    pub fn start(settings: Settings) -> Metrics {
        let graphite = settings.graphite.as_deref().and_then(|address| {
            let started = Graphite::start(address, settings.buffer);
            started.inspect_err(|e| tracing::warn!("nothing goes to Graphite: {e}")).ok()
        });
        let prometheus =
            settings.prometheus.and_then(|wanted| match Prometheus::start(wanted, settings.interval) {
                Ok(p) if p.address == wanted => Some(p),
                Ok(p) => {
                    tracing::warn!("{wanted} is taken: Prometheus can ask this process at {}", p.address);
                    Some(p)
                }
                Err(e) => {
                    tracing::warn!("Prometheus cannot ask this process: {e}");
                    None
                }
            });
        Metrics { settings, graphite, prometheus }
    }

    /// What was configured.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many values for Graphite were dropped.
    pub fn dropped(&self) -> u64 {
        self.graphite.as_ref().map_or(0, Graphite::dropped)
    }

    /// Takes a reading over. Never waits for the network.
    pub fn tell(&self, samples: Vec<Sample>) {
        if let Some(p) = &self.prometheus {
            samples.iter().for_each(|s| p.tell(s));
        }
        if let Some(g) = &self.graphite {
            let mut all = Vec::new();
            samples.iter().for_each(|s| lines(&self.settings.prefix, s, &mut all));
            g.push(all);
        }
    }

    /// Sends what is left. Takes some seconds at most.
    pub fn finish(&self) {
        let left = self.graphite.as_ref().map_or(0, Graphite::finish);
        if left > 0 {
            tracing::warn!("{left} values did not get to Graphite");
        }
    }
}

/// A sample as lines of Graphite's plaintext protocol.
fn lines(prefix: &str, s: &Sample, out: &mut Vec<String>) {
    let mut path = s.metric.path.to_string();
    for (label, value) in &s.labels {
        let keep_dots = matches!(*label, "queues" | "mover");
        path = path.replace(&format!("{{{label}}}"), &segment(value, keep_dots));
    }
    let mut line = |end: &str, value: &dyn std::fmt::Display| {
        out.push(format!("{prefix}.{path}{end} {value} {}\n", s.at));
    };
    match &s.value {
        Value::Count(n) => line("", n),
        Value::Gauge(x) => line("", x),
        Value::Distribution(d) if d.count() == 0 => {}
        Value::Distribution(d) => {
            line(".count", &d.count());
            QUANTILES.iter().for_each(|(name, part)| line(&format!(".{name}"), &d.quantile(*part)));
        }
    }
}

/// A word of a path: what Graphite cannot have in one becomes `_`, above all the dots of a host.
fn segment(value: &str, keep_dots: bool) -> String {
    let plain = |c: char| if is_plain(c) || keep_dots && c == '.' { c } else { '_' };
    if value.is_empty() { "_".to_owned() } else { value.chars().map(plain).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Settings>, String> {
        let config = treeferry_core::config::Config::parse(&format!("[metrics]\n{text}")).unwrap();
        Settings::read(&config.metrics).map_err(|e| e.to_string())
    }

    #[test]
    fn settings_are_checked_and_what_is_wrong_is_named() {
        assert_eq!(read(""), Ok(None));
        assert_eq!(read("graphite = \"\"\nprefix = \"x\""), Ok(None));
        let s = read("graphite = \"[::1]:2003\"\ninterval = 60\nprefix = \"a.b-c\"").unwrap().unwrap();
        assert_eq!((s.interval.as_secs(), s.prefix.as_str(), s.buffer), (60, "a.b-c", 100_000));
        assert_eq!((&s.cmover_queues, &s.prometheus), (&None, &None));
        let s = read("graphite = \"g:2003\"\ncmover-names = true").unwrap().unwrap();
        assert_eq!(s.cmover_queues.as_deref(), Some("queue"));
        for (text, said) in [
            ("graphite = \"g\"", "metrics.graphite = \"g\" is not HOST:PORT"),
            ("graphite = \":2003\"", "metrics.graphite"),
            ("graphite = \"g:0\"", "metrics.graphite"),
            ("graphite = \"g:99999\"", "metrics.graphite"),
            ("prometheus = \"9464\"", "metrics.prometheus = \"9464\" is not ADDRESS:PORT"),
            ("prometheus = \"127.0.0.1:0\"", "metrics.prometheus"),
            ("prefix = \"a..b\"", "metrics.prefix"),
            ("prefix = \"a b\"", "metrics.prefix"),
            ("cmover-names = true", "metrics.cmover-names"),
            ("graphite = \"g:1\"\ncmover-queues = \"\"", "metrics.cmover-queues"),
            ("interval = 0", "metrics.interval = 0 is not from 1 to 3600"),
            ("buffer = 10", "metrics.buffer"),
        ] {
            assert!(read(text).unwrap_err().contains(said), "{text}: {:?}", read(text));
        }
    }

    fn line(metric: &'static Metric, labels: &[(&'static str, &str)], value: Value) -> Vec<String> {
        let labels = labels.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
        let mut out = Vec::new();
        lines("treeferry", &Sample { metric, labels, value, at: 1_700_000_000 }, &mut out);
        out
    }

    #[test]
    fn a_line_has_a_path_without_strange_characters_a_value_and_a_time() {
        let labels = [("job_id", "00000000000000ff"), ("host", "node1.example.org")];
        assert_eq!(
            line(&table::COUNTERS[1], &labels, Value::Count(u64::MAX)),
            ["treeferry.00000000000000ff.node1_example_org.files 18446744073709551615 1700000000\n"]
        );
        let strange = [("job_id", "j"), ("host", "a b/\n(ü)"), ("errno", "")];
        assert_eq!(
            line(&table::FAILURES_BY_ERRNO, &strange, Value::Count(1)),
            ["treeferry.j.a_b_____.failures_by_errno._ 1 1700000000\n"]
        );
        assert_eq!(
            line(&table::OUTSTANDING, &[("job_id", "j")], Value::Gauge(0.0000001)),
            ["treeferry.j.all.outstanding 0.0000001 1700000000\n"]
        );
        assert_eq!(
            line(
                &table::CMOVER_QUEUE,
                &[("queues", "bobcat_queue"), ("mover", "mover.dir")],
                Value::Gauge(4.0)
            ),
            ["treeferry.bobcat_queue.mover.dir 4 1700000000\n"]
        );
        assert_eq!(
            line(&table::CMOVER_FILES, &[("host", "mover_7_1")], Value::Count(4)),
            ["treeferry.cmover.file_mover_7_1_0.files 4 1700000000\n"]
        );
    }

    #[test]
    fn a_distribution_becomes_its_quantiles_and_nothing_of_nothing() {
        let d = Durations::default();
        let labels = [("job_id", "j"), ("host", "h"), ("work", "finish-dir")];
        let none = line(&table::TASK_SECONDS, &labels, Value::Distribution(d.take()));
        assert_eq!(none, [""; 0]);
        d.record(Duration::from_secs(2));
        let one = line(&table::TASK_SECONDS, &labels, Value::Distribution(d.take()));
        assert_eq!(one.len(), 5);
        assert_eq!(one[4], "treeferry.j.h.task_seconds.finish-dir.max 2 1700000000\n");
    }
}
