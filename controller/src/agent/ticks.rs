//! The keeper's clock, as an agent has read it. A detector says a moment of this node up to which it has told all; that is so
//! for the last tick that had been read by then.

use std::collections::VecDeque;
use std::time::Instant;
use treeferry_mirror::Tick;

/// So many are remembered: those of an hour and a half.
const MOST: usize = 1 << 17;

/// A tick that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// Counted up, from 1: another keeper's moments may be smaller than those of the one before.
    pub number: u64,
    /// What was read.
    pub tick: Tick,
}

/// Ticks that were read, in order.
#[derive(Default)]
pub struct Ticks {
    all: VecDeque<(Instant, Read)>,
    numbers: u64,
}

impl Ticks {
    /// One was read.
    pub fn put(&mut self, at: Instant, tick: Tick) {
        if self.all.back().is_some_and(|(_, r)| r.tick == tick) {
            return;
        }
        self.numbers += 1;
        self.all.push_back((at, Read { number: self.numbers, tick }));
        if self.all.len() > MOST {
            // of those that are long ago every other one does
            let mut n = 0;
            self.all.retain(|_| {
                n += 1;
                n > MOST / 2 || n % 2 == 0
            });
        }
    }

    /// The last that had been read at a moment.
    pub fn at(&self, moment: Instant) -> Option<Read> {
        let count = self.all.partition_point(|(at, _)| *at <= moment);
        self.all.get(count.checked_sub(1)?).map(|(_, r)| *r)
    }

    /// Nobody will ask for anything before this one.
    pub fn forget_before(&mut self, least: Read) {
        while self.all.front().is_some_and(|(_, r)| r.number < least.number) {
            self.all.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_last_that_had_been_read_counts_and_all_are_found_for_long() {
        let (mut t, began) = (Ticks::default(), Instant::now());
        let at = |n: u64| began + Duration::from_millis(n);
        assert_eq!(t.at(at(0)), None);
        let tick = |moment: u64| Tick { life: 7, moment };
        for n in 1..=200_000 {
            t.put(at(10 * n), tick(n));
            t.put(at(10 * n + 1), tick(n));
        }
        assert!(t.all.len() <= MOST);
        assert_eq!(t.at(at(9)), None);
        for n in [11_000, 123_456, 200_000] {
            let r = t.at(at(10 * n + 5)).unwrap();
            assert!(r.tick.moment <= n && r.tick.moment + 8 > n, "{n}: {r:?}");
        }
        // another keeper, whose clock is behind
        t.put(at(3_000_000), Tick { life: 8, moment: 5 });
        let last = t.at(at(3_000_001)).unwrap();
        assert_eq!(last.tick.moment, 5);
        assert!(last.number > t.at(at(2_999_999)).unwrap().number);
        t.forget_before(last);
        assert_eq!((t.all.len(), t.at(at(3_000_001))), (1, Some(last)));
    }
}
