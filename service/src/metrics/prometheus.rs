//! Prometheus asks, on a port. What it is told are the values of the last reading; a series that nobody has told
//! anything of for a while, because its job is over, is told no more.

use super::table::{self, Kind, QUANTILES};
use super::{Sample, Value};
use metrics::{Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{BuildError, ExporterFuture, PrometheusBuilder, PrometheusRecorder};
use metrics_util::MetricKindMask;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

/// So many ports are tried, from the one that is configured: one for each process of a node.
pub const PORTS: u16 = 10;
/// A series of which nothing was told for so many readings is forgotten; with a long interval that is long.
const FORGET_AFTER: u32 = 30;

/// What Prometheus is told.
pub struct Prometheus {
    recorder: PrometheusRecorder,
    /// Where it asks.
    pub address: SocketAddr,
}

/// Why Prometheus cannot ask.
#[derive(Debug, thiserror::Error)]
pub enum NoPrometheus {
    /// The address is not ours, or its ports are taken.
    #[error("{0}: {1}")]
    Address(SocketAddr, io::Error),
    /// No thread or no runtime.
    #[error("{0}")]
    Thread(#[from] io::Error),
    /// The exporter's own word.
    #[error("{0}")]
    Exporter(#[from] BuildError),
}

impl Prometheus {
    /// Listens at the first free port.
    pub fn start(wanted: SocketAddr, interval: Duration) -> Result<Prometheus, NoPrometheus> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (recorder, exporter, address) = {
            let _in = runtime.enter();
            first_free(wanted, interval)?
        };
        std::thread::Builder::new().name("tf-prometheus".to_owned()).spawn(move || {
            if runtime.block_on(exporter).is_err() {
                tracing::warn!("Prometheus cannot ask this process any more");
            }
        })?;
        for m in table::all().filter(|m| !m.name.is_empty()) {
            let (name, meaning) = (m.name.to_string().into(), m.meaning.into());
            match m.kind {
                Kind::Counter => recorder.describe_counter(name, None, meaning),
                Kind::Gauge | Kind::Increment => recorder.describe_gauge(name, None, meaning),
                Kind::Summary => recorder.describe_histogram(name, Some(Unit::Seconds), meaning),
            }
        }
        Ok(Prometheus { recorder, address })
    }

    /// Takes the values of a reading over.
    pub fn tell(&self, sample: &Sample) {
        if sample.metric.name.is_empty() {
            return;
        }
        let labels: Vec<Label> = sample.labels.iter().map(|(k, v)| Label::new(*k, v.clone())).collect();
        let key = Key::from_parts(sample.metric.name.to_string(), labels);
        let about = Metadata::new(module_path!(), Level::INFO, None);
        match &sample.value {
            Value::Count(n) => self.recorder.register_counter(&key, &about).absolute(*n),
            Value::Gauge(x) => self.recorder.register_gauge(&key, &about).set(*x),
            Value::Distribution(d) => {
                let histogram = self.recorder.register_histogram(&key, &about);
                d.classes().iter().for_each(|(s, n)| histogram.record_many(*s, *n as usize));
            }
        }
    }

    /// What it would be answered now.
    #[cfg(test)]
    pub fn render(&self) -> String {
        self.recorder.handle().render()
    }
}

/// The exporter at the first port that is free. Wants a runtime around it.
fn first_free(
    wanted: SocketAddr,
    interval: Duration,
) -> Result<(PrometheusRecorder, ExporterFuture, SocketAddr), NoPrometheus> {
    let quantiles = QUANTILES.map(|(_, part)| part);
    let mut last = io::ErrorKind::AddrInUse.into();
    for port in wanted.port()..=wanted.port().saturating_add(PORTS - 1) {
        let mut address = wanted;
        address.set_port(port);
        // the exporter does not tell why it cannot
        match TcpListener::bind(address) {
            Ok(free) => drop(free),
            Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
                last = e;
                continue;
            }
            Err(e) => return Err(NoPrometheus::Address(wanted, e)),
        }
        let builder = PrometheusBuilder::new()
            .with_http_listener(address)
            .set_quantiles(&quantiles)?
            .idle_timeout(MetricKindMask::ALL, Some(interval * FORGET_AFTER));
        match builder.build() {
            Ok((recorder, exporter)) => return Ok((recorder, exporter, address)),
            // another process was faster
            Err(BuildError::FailedToCreateHTTPListener(_)) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(NoPrometheus::Address(wanted, last))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::durations::Durations;
    use std::io::{Read, Write};

    fn some_port() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn what_was_told_is_what_is_answered_over_http() {
        let p = Prometheus::start(some_port(), Duration::from_secs(10)).unwrap();
        let host = || vec![("job_id", "00ff".to_owned()), ("host", "a.b\"c".to_owned())];
        let d = Durations::default();
        d.record(Duration::from_millis(100));
        let tell = |metric, labels, value| p.tell(&Sample { metric, labels, value, at: 0 });
        tell(&table::COUNTERS[1], host(), Value::Count(7));
        tell(&table::COUNTERS[1], host(), Value::Count(9));
        tell(&table::OUTSTANDING, vec![("job_id", "00ff".to_owned())], Value::Gauge(3.0));
        tell(&table::TASK_SECONDS, host(), Value::Distribution(d.take()));
        tell(&table::CMOVER_DATA, host(), Value::Count(1));
        let mut s = std::net::TcpStream::connect(p.address).unwrap();
        s.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        s.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200"), "{text}");
        for line in [
            "# TYPE treeferry_files_total counter",
            "# HELP treeferry_files_total names of regular files walked",
            "treeferry_files_total{job_id=\"00ff\",host=\"a.b\\\"c\"} 9",
            "treeferry_outstanding_tasks{job_id=\"00ff\"} 3",
            "treeferry_task_seconds_count{job_id=\"00ff\",host=\"a.b\\\"c\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
        assert!(text.contains("quantile=\"0.99\"") && !text.contains("cmover"), "{text}");
        assert!(p.render().contains("treeferry_files_total"));
    }

    #[test]
    fn the_next_port_is_taken_where_another_process_has_the_first() {
        // two free ports in a row
        let wanted = loop {
            let a = some_port();
            let mut next = a;
            next.set_port(a.port().saturating_add(1));
            if next != a && TcpListener::bind(next).is_ok() {
                break a;
            }
        };
        let _other = TcpListener::bind(wanted).unwrap();
        let p = Prometheus::start(wanted, Duration::from_secs(10)).unwrap();
        assert!(p.address.port() > wanted.port() && p.address.port() < wanted.port() + PORTS);
        let e = Prometheus::start("192.0.2.1:9464".parse().unwrap(), Duration::from_secs(10)).err().unwrap();
        assert!(e.to_string().contains("192.0.2.1:9464"), "{e}");
    }
}
