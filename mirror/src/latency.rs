//! How long changes took to arrive: a histogram with buckets that are 1/8 apart, which is what its quantiles are exact to.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Buckets a power of two is divided into.
const PARTS: u64 = 8;
/// 1 µs to 2^44 µs, which is half a year.
const BUCKETS: u16 = 44 * PARTS as u16;

/// Times that were counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Of each bucket that has any: a mirror's times are in some dozens of them.
    counts: BTreeMap<u16, u64>,
    total: u64,
    /// In µs.
    most: u64,
}

fn bucket(us: u64) -> u16 {
    let us = us.max(1);
    let power = us.ilog2() as u64;
    // the bits after the first
    let part = if power >= 3 { (us >> (power - 3)) & 7 } else { (us << (3 - power)) & 7 };
    ((power * PARTS + part) as u16).min(BUCKETS - 1)
}

/// The upper end of a bucket, in µs.
fn end(bucket: u16) -> u64 {
    let (power, part) = (u64::from(bucket) / PARTS, u64::from(bucket) % PARTS);
    (((1u64 << power) as f64) * (1.0 + (part + 1) as f64 / PARTS as f64)).ceil() as u64
}

impl Latency {
    /// Counts one.
    pub fn count(&mut self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        *self.counts.entry(bucket(us)).or_default() += 1;
        self.total += 1;
        self.most = self.most.max(us);
    }

    /// Counts what others have counted.
    pub fn add(&mut self, others: &Latency) {
        for (bucket, n) in &others.counts {
            *self.counts.entry(*bucket).or_default() += n;
        }
        self.total += others.total;
        self.most = self.most.max(others.most);
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The longest, to a microsecond.
    pub fn most(&self) -> Duration {
        Duration::from_micros(self.most)
    }

    /// The time within which this share of them arrived, to an eighth. Zero if there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (share.clamp(0.0, 1.0) * self.total as f64).ceil().max(1.0) as u64;
        let mut sum = 0;
        for (bucket, n) in &self.counts {
            sum += n;
            if sum >= rank {
                return Duration::from_micros(end(*bucket).min(self.most));
            }
        }
        Duration::ZERO
    }

    /// How many took longer than this, to an eighth.
    pub fn above(&self, limit: Duration) -> u64 {
        let from = bucket(u64::try_from(limit.as_micros()).unwrap_or(u64::MAX)) + 1;
        self.counts.range(from..).map(|(_, n)| n).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_exact_to_an_eighth() {
        let mut l = Latency::default();
        assert_eq!((l.quantile(0.5), l.most(), l.total()), (Duration::ZERO, Duration::ZERO, 0));
        for us in 1..=10_000 {
            l.count(Duration::from_micros(us));
        }
        for share in [0.01, 0.5, 0.9, 0.99] {
            let (got, want) = (l.quantile(share).as_micros() as f64, share * 10_000.0);
            assert!(got >= want && got <= want * 1.13 + 1.0, "{share}: {got}");
        }
        assert_eq!((l.quantile(1.0), l.total()), (Duration::from_millis(10), 10_000));
        let above = l.above(Duration::from_micros(5000));
        assert!((4300..=5000).contains(&above), "{above}");
        assert_eq!(l.above(Duration::from_secs(300)), 0);
    }

    #[test]
    fn no_time_is_too_short_or_too_long() {
        let mut l = Latency::default();
        l.count(Duration::ZERO);
        l.count(Duration::MAX);
        assert_eq!((l.total(), l.most()), (2, Duration::from_micros(u64::MAX)));
        assert!(l.quantile(0.1) <= Duration::from_micros(2));
        assert_eq!(l.above(Duration::from_secs(600)), 1);
    }

    #[test]
    fn buckets_grow() {
        let mut last = 0;
        for us in (1..100_000u64).chain([1 << 30, 1 << 50]) {
            let b = bucket(us);
            assert!(b >= last && (us >= 1 << 44 || end(b) >= us), "{us} {b}");
            last = b;
        }
    }
}
