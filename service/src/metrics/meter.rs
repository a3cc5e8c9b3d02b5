//! The clock of the metrics: at each interval, and once more at the end, somebody reads and the exporters are told.

use super::{Metrics, Sample};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Reads at each interval until it is stopped.
pub struct Meter {
    metrics: Arc<Metrics>,
    over: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Meter {
    /// Reads at once, and then at each interval. Without a thread to be had nothing is read but at the end.
    pub fn start(metrics: &Arc<Metrics>, mut read: impl FnMut() -> Vec<Sample> + Send + 'static) -> Meter {
        let over = Arc::new((Mutex::new(false), Condvar::new()));
        let (m, ended) = (Arc::clone(metrics), Arc::clone(&over));
        let thread = std::thread::Builder::new().name("tf-metrics".to_owned()).spawn(move || {
            let (interval, offset) = (m.settings().interval, offset(m.settings().interval));
            loop {
                m.tell(read());
                if sleep(&ended, until_next(since_1970(), interval, offset)) {
                    break;
                }
            }
            m.tell(read());
        });
        if let Err(e) = &thread {
            tracing::warn!("no metrics: cannot start a thread: {e}");
        }
        Meter { metrics: Arc::clone(metrics), over, thread: thread.ok() }
    }

    /// Reads a last time and waits a moment until it has arrived.
    pub fn stop(self) {
        *self.over.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.over.1.notify_all();
        self.thread.into_iter().for_each(|t| drop(t.join()));
        self.metrics.finish();
    }
}

/// Says whether the end came meanwhile.
fn sleep(over: &(Mutex<bool>, Condvar), for_so_long: Duration) -> bool {
    let guard = over.0.lock().unwrap_or_else(PoisonError::into_inner);
    let (guard, _) =
        over.1.wait_timeout_while(guard, for_so_long, |over| !*over).unwrap_or_else(PoisonError::into_inner);
    *guard
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Where in the interval this process reads: not all at the same moment, and each always at the same and far from where
/// Graphite's steps begin, so that each step gets one value.
fn offset(interval: Duration) -> Duration {
    let mut h = DefaultHasher::new();
    (std::process::id(), std::fs::read_to_string("/proc/sys/kernel/hostname").ok()).hash(&mut h);
    interval.mul_f64(0.2 + (h.finish() % 600) as f64 / 1000.0)
}

fn until_next(now: Duration, interval: Duration, offset: Duration) -> Duration {
    let (now, interval) = (now.as_nanos(), interval.as_nanos().max(1));
    let behind = (now + interval - offset.as_nanos() % interval) % interval;
    Duration::from_nanos(u64::try_from(interval - behind).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Settings;

    #[test]
    fn readings_come_at_the_same_place_of_each_interval() {
        let (s, ms) = (Duration::from_secs, Duration::from_millis);
        assert_eq!(until_next(s(1000), s(10), s(3)), s(3));
        assert_eq!(until_next(s(1003), s(10), s(3)), s(10));
        assert_eq!(until_next(ms(1_003_001), s(10), s(3)), ms(9_999));
        assert_eq!(until_next(s(1009), s(10), s(3)), s(4));
        assert!(offset(s(10)) < s(10) && offset(s(10)) == offset(s(10)));
    }

    #[test]
    fn the_last_reading_is_made_at_the_end() {
        let settings = Settings { interval: Duration::from_secs(3600), ..Settings::default() };
        let (read, seen) = std::sync::mpsc::channel();
        let meter = Meter::start(&Arc::new(Metrics::start(settings)), move || {
            read.send(()).unwrap();
            Vec::new()
        });
        seen.recv().unwrap();
        meter.stop();
        assert_eq!(seen.iter().count(), 1);
    }
}
