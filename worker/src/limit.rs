//! `--bwlimit` and `--iops`: token buckets (GCRA) shared by all threads of a job.

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use std::num::NonZeroU32;
use std::time::Duration;
use treeferry_core::Stop;

/// Bytes are counted in these, so that a rate of many GB/s fits the bucket's 32 bits.
const BLOCK_BYTES: u64 = 4096;

/// A smaller step would cost more in calls than it is worth.
const MIN_STEP_BYTES: u64 = 64 << 10;

/// How long a thread sleeps at most before it looks whether it is to stop.
const NAP: Duration = Duration::from_millis(100);

/// The limits of a job; both absent cost nothing.
#[derive(Debug)]
pub(crate) struct Limit {
    blocks: Option<DefaultDirectRateLimiter>,
    ops: Option<DefaultDirectRateLimiter>,
    rate_bytes: Option<u64>,
    stop: Stop,
}

impl Limit {
    /// `bytes` and `ops` a second.
    pub fn new(bytes: Option<u64>, ops: Option<u32>, stop: Stop) -> Limit {
        let bucket = |per_second: u32| {
            let rate = NonZeroU32::new(per_second).unwrap_or(NonZeroU32::MIN);
            // a tenth of a second's worth at once: smooth for others, cheap for us
            let burst = NonZeroU32::new(per_second / 10).unwrap_or(NonZeroU32::MIN);
            RateLimiter::direct(Quota::per_second(rate).allow_burst(burst))
        };
        let blocks = bytes.map(|b| bucket(u32::try_from(b.div_ceil(BLOCK_BYTES)).unwrap_or(u32::MAX)));
        Limit { blocks, ops: ops.map(bucket), rate_bytes: bytes, stop }
    }

    /// Waits until so many operations may be done.
    #[inline]
    pub fn ops(&self, n: u32) {
        if let Some(b) = &self.ops {
            self.wait(b, u64::from(n));
        }
    }

    /// Waits until so many bytes may be copied.
    #[inline]
    pub fn bytes(&self, n: u64) {
        if let Some(b) = &self.blocks {
            self.wait(b, n.div_ceil(BLOCK_BYTES));
        }
    }

    /// The most that may be copied at once: a quarter of a second's worth, but not less than is sensible.
    pub fn step_bytes(&self) -> u64 {
        self.rate_bytes.map_or(u64::MAX, |r| (r / 4).max(MIN_STEP_BYTES))
    }

    fn wait(&self, bucket: &DefaultDirectRateLimiter, mut cells: u64) {
        // a bucket holds one burst; larger amounts go in parts
        let mut part = u32::MAX;
        while cells > 0 && !self.stop.is_set() {
            let n = NonZeroU32::new(part.min(u32::try_from(cells).unwrap_or(u32::MAX)))
                .unwrap_or(NonZeroU32::MIN);
            match bucket.check_n(n) {
                Err(too_many) => part = too_many.0.max(1),
                Ok(Ok(())) => cells -= u64::from(n.get()),
                Ok(Err(not_yet)) => {
                    use governor::clock::{Clock, DefaultClock};
                    std::thread::sleep(not_yet.wait_time_from(DefaultClock::default().now()).min(NAP));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn amounts_beyond_a_burst_pass_and_take_their_time() {
        let l = Limit::new(None, Some(1000), Stop::default());
        let t = Instant::now();
        l.ops(300);
        // 300 operations at 1000 a second, less a burst of 100: at least 0.2 s, however slow the machine is
        assert!(t.elapsed() >= Duration::from_millis(150));
    }

    #[test]
    fn a_stop_ends_the_wait() {
        let stop = Stop::default();
        stop.set();
        Limit::new(Some(1), Some(1), stop).bytes(u64::MAX);
    }
}
