//! The log: events of `tracing`, one line each, to a sink that the caller hands in (a terminal with a
//! progress bar needs its own).
//!
//! The level comes from `-q` and `-v`; the environment variable [`VARIABLE`] wins over both, and may give a
//! level for each module (`info,treeferry_fs=debug`).

use std::io;
use std::sync::Arc;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Sets levels from outside.
pub const VARIABLE: &str = "TREEFERRY_LOG";

/// Says that the variable does not hold levels.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE}='{given}': write a level (error, warn, info, debug, trace) or a list of MODULE=LEVEL")]
pub struct BadLevels {
    given: String,
}

/// The level that goes with a number of `-v`, or with `-q`.
pub fn level(quiet: bool, verbose: u8) -> LevelFilter {
    match (quiet, verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    }
}

/// Starts the log of this process. A second start has no effect.
pub fn start(default: LevelFilter, sink: impl Fn(&[u8]) + Send + Sync + 'static) -> Result<(), BadLevels> {
    let filter = filter(default, std::env::var_os(VARIABLE).map(|v| v.to_string_lossy().into_owned()))?;
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Sink(Arc::new(sink)))
        .with_target(false)
        .with_ansi(false)
        // the complaint about a failed write would go where the write has just failed
        .log_internal_errors(false)
        .try_init();
    Ok(())
}

fn filter(default: LevelFilter, given: Option<String>) -> Result<EnvFilter, BadLevels> {
    match given.filter(|g| !g.trim().is_empty()) {
        None if default >= LevelFilter::DEBUG => Ok(EnvFilter::default().add_directive(default.into())),
        // what lapin calls an error, a connection that broke, is said by us, once, with what follows from it; and
        // whoever asks for metrics and then leaves is of no interest
        None => EnvFilter::try_new(format!("{default},lapin=off,metrics_exporter_prometheus=off"))
            .map_err(|_| BadLevels { given: default.to_string() }),
        Some(given) => EnvFilter::try_new(&given).map_err(|_| BadLevels { given }),
    }
}

/// Gives each event, whole, to the caller's sink.
struct Sink<F>(Arc<F>);

impl<F: Fn(&[u8])> io::Write for &Sink<F> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        (self.0)(line);
        Ok(line.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a, F: Fn(&[u8]) + 'a> MakeWriter<'a> for Sink<F> {
    type Writer = &'a Sink<F>;
    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn quiet_and_verbose_set_the_level_and_the_environment_wins() {
        let say =
            |given: Option<&str>| filter(level(false, 1), given.map(str::to_owned)).map(|f| f.to_string());
        assert_eq!(say(None).unwrap(), "metrics_exporter_prometheus=off,lapin=off,info");
        assert_eq!(say(Some("")).unwrap(), "metrics_exporter_prometheus=off,lapin=off,info");
        assert_eq!(say(Some("treeferry_fs=trace")).unwrap(), "treeferry_fs=trace");
        assert!(say(Some("treeferry_fs=loud")).unwrap_err().to_string().contains("treeferry_fs=loud"));
        assert_eq!(level(true, 3), LevelFilter::ERROR);
        assert_eq!([0, 1, 2, 9].map(|v| level(false, v).to_string()), ["warn", "info", "debug", "trace"]);
    }

    #[test]
    fn an_event_arrives_in_one_piece() {
        let got = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&got);
        start(LevelFilter::INFO, move |line| to.lock().unwrap().push(line.to_vec())).unwrap();
        tracing::info!(entries = 3, "walked");
        let got = got.lock().unwrap();
        let line = String::from_utf8_lossy(&got[0]);
        assert_eq!(got.len(), 1);
        assert!(line.ends_with("INFO walked entries=3\n"), "{line}");
    }
}
