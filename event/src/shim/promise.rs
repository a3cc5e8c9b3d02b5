//! Up to when everything was told. A program changes something, and tells of it a moment later; so what was under way at a
//! moment has to be told before that can be promised. And who died in between has not told it.

use super::held::is_gone;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};
use treeferry_ring::{Mark, Ring};

/// What takes longer than that is a call that waits for something, or was left by a jump, and has not changed anything.
const LONG: Duration = Duration::from_secs(1);

/// The next promise.
#[derive(Default)]
pub(crate) struct Promise {
    /// The moment, and what was under way then and is not known to be over.
    next: Option<(SystemTime, Vec<Mark>)>,
    /// Since when what is under way has been seen, by a clock that does not go back.
    seen: HashMap<Mark, Duration>,
}

impl Promise {
    /// The moment up to which everything has been told when the ring has been read to its end after this. `None`: what
    /// was under way is not over.
    pub(crate) fn moment(&mut self, ring: &Ring<'_>, now: SystemTime, clock: Duration) -> Option<SystemTime> {
        let all: Vec<Mark> = ring.under_way().collect();
        for mark in all.iter().filter(|mark| is_gone(mark.pid())) {
            ring.is_dead(*mark);
        }
        self.seen.retain(|mark, _| all.contains(mark));
        for mark in &all {
            self.seen.entry(*mark).or_insert(clock);
        }
        let (moment, marks) = self.next.get_or_insert((now, all));
        let is_long =
            |mark: &Mark| self.seen.get(mark).is_some_and(|since| clock.saturating_sub(*since) >= LONG);
        marks.retain(|mark| ring.is_under_way(*mark) && !is_long(mark));
        marks.is_empty().then_some(*moment)
    }

    /// It was given.
    pub(crate) fn is_told(&mut self) {
        self.next = None;
    }
}
