//! Up to when everything was told. A program changes something, and tells of it a moment later; so what was under way at a
//! moment has to be told before that can be promised. And who died in between has not told it.

use std::collections::HashMap;
use std::time::{Duration, Instant};
use treeferry_ring::{Mark, Ring};

/// What takes longer than that is a call that waits for something, or was left by a jump, and has not changed anything.
const LONG: Duration = Duration::from_secs(1);

/// The next promise.
#[derive(Default)]
pub(crate) struct Promise {
    /// The moment, and what was under way then and is not known to be over.
    next: Option<(Instant, Vec<Mark>)>,
    /// Since when what is under way has been seen.
    seen: HashMap<Mark, Instant>,
    /// What was under way when this reader began: if that is not soon over, who was at it may have died while nobody read, and
    /// another process has its number.
    inherited: Vec<Mark>,
}

impl Promise {
    /// Nobody has read the ring for a while.
    pub(crate) fn inherit(&mut self, ring: &Ring<'_>) {
        self.inherited = ring.under_way().collect();
    }

    /// The moment up to which everything has been told when the ring has been read to its end after this. `None`: what
    /// was under way is not over.
    /// `is_gone` says whether a process is known to be gone.
    pub(crate) fn moment(
        &mut self,
        ring: &Ring<'_>,
        now: Instant,
        is_gone: &dyn Fn(u32) -> bool,
    ) -> Option<Instant> {
        let all: Vec<Mark> = ring.under_way().collect();
        for mark in all.iter().filter(|mark| is_gone(mark.pid())) {
            // it may have told, taken its mark back and ended since it was seen
            if ring.is_under_way(*mark) {
                ring.is_dead(*mark);
            }
        }
        self.seen.retain(|mark, _| all.contains(mark));
        for mark in &all {
            self.seen.entry(*mark).or_insert(now);
        }
        let (moment, marks) = self.next.get_or_insert((now, all));
        let is_long = |mark: &Mark| {
            self.seen.get(mark).is_some_and(|since| now.saturating_duration_since(*since) >= LONG)
        };
        for mark in self.inherited.extract_if(.., |mark| is_long(mark)) {
            if ring.is_under_way(mark) {
                ring.is_dead(mark);
            }
        }
        marks.retain(|mark| ring.is_under_way(*mark) && !is_long(mark));
        marks.is_empty().then_some(*moment)
    }

    /// It was given.
    pub(crate) fn is_told(&mut self) {
        self.next = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU64;
    use treeferry_ring::{MIN_SLOTS, bytes_for};

    #[test]
    fn who_dies_in_the_midst_is_known_to_have_and_who_has_told_and_ended_is_not_taken_for_that() {
        let words: Vec<AtomicU64> = (0..bytes_for(MIN_SLOTS) / 8).map(|_| AtomicU64::new(0)).collect();
        let ring = Ring::format(&words, 1, 1).unwrap();
        let began = Instant::now();
        let at = |s: u64| began + Duration::from_millis(s);
        let mut promise = Promise::default();
        let mark = ring.begins(7, 0).unwrap();
        let told_and_ended = |_: u32| {
            ring.ends(mark);
            true
        };
        assert_eq!(promise.moment(&ring, at(1), &told_and_ended), Some(at(1)));
        assert_eq!(ring.figures().unnamed, 0);
        promise.is_told();
        ring.begins(7, 2).unwrap();
        let long = ring.begins(8, 0).unwrap();
        assert_eq!(promise.moment(&ring, at(2), &|pid| pid == 7), None);
        assert_eq!(ring.figures().unnamed, 1);
        // what began after that moment does not hold it up
        ring.begins(9, 0).unwrap();
        ring.ends(long);
        assert_eq!(promise.moment(&ring, at(3), &|_| false), Some(at(2)));
    }

    #[test]
    fn what_was_under_way_before_and_is_not_soon_over_has_died() {
        let words: Vec<AtomicU64> = (0..bytes_for(MIN_SLOTS) / 8).map(|_| AtomicU64::new(0)).collect();
        let ring = Ring::format(&words, 1, 1).unwrap();
        let began = Instant::now();
        let (left, goes_on) = (ring.begins(7, 0).unwrap(), ring.begins(8, 1).unwrap());
        let mut promise = Promise::default();
        promise.inherit(&ring);
        let long = ring.begins(9, 2).unwrap();
        assert_eq!(promise.moment(&ring, began, &|_| false), None);
        ring.ends(goes_on);
        // a process that has the number of the one that died is alive
        assert_eq!(promise.moment(&ring, began + LONG, &|_| false), Some(began));
        assert_eq!(ring.figures().unnamed, 1);
        assert!(!ring.is_under_way(left) && ring.is_under_way(long));
    }
}
