//! How long changes took to arrive: a histogram with buckets that are 1/8 apart, which is what its quantiles are exact to.

use std::time::Duration;

/// Buckets a power of two is divided into.
const PARTS: u64 = 8;
/// 1 µs to 2^44 µs, which is half a year.
const BUCKETS: usize = 44 * PARTS as usize;

/// Times that were counted.
#[derive(Clone, Debug)]
pub struct Latency {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
    most: Duration,
}

impl Default for Latency {
    fn default() -> Self {
        Latency { counts: Box::new([0; BUCKETS]), total: 0, most: Duration::ZERO }
    }
}

fn bucket(us: u64) -> usize {
    let us = us.max(1);
    let power = us.ilog2() as u64;
    // the bits after the first
    let part = if power >= 3 { (us >> (power - 3)) & 7 } else { (us << (3 - power)) & 7 };
    ((power * PARTS + part) as usize).min(BUCKETS - 1)
}

/// The upper end of a bucket, in µs.
fn end(bucket: usize) -> u64 {
    let (power, part) = (bucket as u64 / PARTS, bucket as u64 % PARTS);
    (((1u64 << power) as f64) * (1.0 + (part + 1) as f64 / PARTS as f64)).ceil() as u64
}

impl Latency {
    /// Counts one.
    pub fn count(&mut self, took: Duration) {
        self.counts[bucket(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))] += 1;
        self.total += 1;
        self.most = self.most.max(took);
    }

    /// How many were counted.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The longest.
    pub fn most(&self) -> Duration {
        self.most
    }

    /// The time within which this share of them arrived, to an eighth. Zero if there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (share.clamp(0.0, 1.0) * self.total as f64).ceil().max(1.0) as u64;
        let mut sum = 0;
        for (i, n) in self.counts.iter().enumerate() {
            sum += n;
            if self.total > 0 && sum >= rank {
                return Duration::from_micros(end(i)).min(self.most);
            }
        }
        Duration::ZERO
    }

    /// How many took longer than this, to an eighth.
    pub fn above(&self, limit: Duration) -> u64 {
        let from = bucket(u64::try_from(limit.as_micros()).unwrap_or(u64::MAX)) + 1;
        self.counts[from.min(BUCKETS)..].iter().sum()
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
        assert_eq!((l.total(), l.most()), (2, Duration::MAX));
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
