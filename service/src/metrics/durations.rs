//! How durations are distributed, between two readings: counted by many threads at once without a lock.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Each power of two of nanoseconds is divided into so many equal parts: a value is known to half of 1/16, 3 %.
const PARTS: usize = 16;
const CLASSES: usize = 64 * PARTS;

/// Counts of durations by class.
pub struct Durations {
    counts: Box<[AtomicU64]>,
    longest_ns: AtomicU64,
}

/// What was counted since the reading before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// Middle of a class in seconds, and how many fell into it; ascending.
    classes: Vec<(f64, u64)>,
    longest: f64,
}

impl Default for Durations {
    fn default() -> Durations {
        Durations { counts: (0..CLASSES).map(|_| AtomicU64::new(0)).collect(), longest_ns: AtomicU64::new(0) }
    }
}

impl Durations {
    /// Counts one.
    pub fn record(&self, took: Duration) {
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counts[class(ns)].fetch_add(1, Relaxed);
        self.longest_ns.fetch_max(ns, Relaxed);
    }

    /// Takes out what was counted.
    pub fn take(&self) -> Distribution {
        let classes = self.counts.iter().enumerate().filter(|(_, n)| n.load(Relaxed) > 0);
        let classes = classes.map(|(class, n)| (middle(class), n.swap(0, Relaxed))).collect();
        Distribution { classes, longest: self.longest_ns.swap(0, Relaxed) as f64 / 1e9 }
    }
}

/// The class of so many nanoseconds: the power of two, and the four bits below the first.
fn class(ns: u64) -> usize {
    match ns.checked_ilog2() {
        None => 0,
        Some(power @ 0..4) => PARTS * power as usize + ((ns << (4 - power)) as usize & (PARTS - 1)),
        Some(power) => PARTS * power as usize + ((ns >> (power - 4)) as usize & (PARTS - 1)),
    }
}

fn middle(class: usize) -> f64 {
    let (power, part) = (class / PARTS, class % PARTS);
    2f64.powi(power as i32) * (1.0 + (part as f64 + 0.5) / PARTS as f64) / 1e9
}

impl Distribution {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.classes.iter().map(|(_, n)| n).sum()
    }

    /// In seconds, what so great a part of them did not exceed; of all of them the longest itself.
    pub fn quantile(&self, part: f64) -> f64 {
        let wanted = (self.count() as f64 * part).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.classes.iter().find(|(_, n)| {
            seen += n;
            seen >= wanted
        });
        match found {
            Some((seconds, _)) if part < 1.0 => seconds.min(self.longest),
            _ => self.longest,
        }
    }

    /// Seconds, and how often.
    pub fn classes(&self) -> &[(f64, u64)] {
        &self.classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_has_a_class_whose_middle_is_near_it() {
        let mut last = 0;
        for power in 0..64 {
            for step in [0u64, 1, 7, 100] {
                let ns = (1u64 << power).saturating_add(step << (power.max(7) - 7));
                let (c, at) = (class(ns), ns as f64 / 1e9);
                assert!(c < CLASSES && c >= last, "{ns}");
                last = c;
                // below 16 ns a class is wider than what it holds
                assert!(power < 4 || (middle(c) / at - 1.0).abs() < 0.032, "{ns}: {}", middle(c));
            }
            last = class(1 << power);
        }
        assert_eq!((class(0), class(u64::MAX)), (0, CLASSES - 1));
    }

    #[test]
    fn quantiles_are_of_what_came_since_the_reading_before() {
        let d = Durations::default();
        assert_eq!(d.take(), Distribution::default());
        (1..=1000).for_each(|ms| d.record(Duration::from_millis(ms)));
        let all = d.take();
        assert_eq!((all.count(), all.quantile(1.0)), (1000, 1.0));
        for (part, seconds) in [(0.5, 0.5), (0.9, 0.9), (0.99, 0.99)] {
            assert!((all.quantile(part) / seconds - 1.0).abs() < 0.035, "{}", all.quantile(part));
        }
        d.record(Duration::from_secs(3));
        let one = d.take();
        assert_eq!((one.count(), one.quantile(0.5), one.quantile(1.0)), (1, one.quantile(0.99), 3.0));
        assert_eq!(d.take().count(), 0);
    }
}
