//! The clock of the wall, which may be set while a mirror is kept: by hand, by an NTP daemon that begins, when a machine
//! that slept wakes up.
//!
//! A mirror counts in moments of its own (µs) that only go forward, and says a time of day only at the end. What it says
//! then must hold for whoever reads a clock: if it is complete up to T, every change after which somebody has read less
//! than T is on the target, whatever clock that was read from, before it was set or after.

use std::collections::VecDeque;

/// What the clocks may differ by without having been set: both are cut to µs.
const SLACK_US: u64 = 10;
/// So many settings are told apart; what was before goes together.
const MOST: usize = 64;

/// For some moments, by how much the clock of the wall was ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    from: u64,
    until: u64,
    ahead: i64,
}

impl Span {
    fn shows(&self, moment: u64) -> u64 {
        moment.saturating_add_signed(self.ahead)
    }
}

/// What the clock of the wall has shown at which moments, as far as that still counts.
#[derive(Debug, Default)]
pub(crate) struct Wall {
    /// None: it shows what the moments are.
    spans: VecDeque<Span>,
}

impl Wall {
    /// It was read between two moments.
    pub fn read(&mut self, before: u64, shown: u64, after: u64) {
        // it was set between the last time that it was read and now
        let mut from = 0;
        if let Some(last) = self.spans.back_mut() {
            let (least, most) = (last.shows(before), last.shows(after));
            from = last.until;
            last.until = after;
            if (least.saturating_sub(SLACK_US)..=most.saturating_add(SLACK_US)).contains(&shown) {
                return;
            }
        }
        let ahead = (shown as i64).saturating_sub(after as i64);
        self.spans.push_back(Span { from, until: after, ahead });
        if self.spans.len() > MOST
            && let Some(first) = self.spans.pop_front()
            && let Some(next) = self.spans.front_mut()
        {
            (next.from, next.ahead) = (first.from, next.ahead.min(first.ahead));
        }
    }

    /// What it shows now at a moment that is not long ago.
    pub fn shows(&self, moment: u64) -> u64 {
        self.spans.back().map_or(moment, |s| s.shows(moment))
    }

    /// The time of day of a moment: whoever has read less did so before it.
    pub fn of(&self, moment: u64) -> u64 {
        let Some(last) = self.spans.back() else { return moment };
        let earlier = self.spans.iter().filter(|s| s.until > moment);
        earlier.chain([last]).map(|s| s.shows(moment.max(s.from))).min().unwrap_or(moment)
    }

    /// Nobody will ask for anything before this moment.
    pub fn forget(&mut self, before: u64) {
        while self.spans.len() > 1 && self.spans.front().is_some_and(|s| s.until <= before) {
            self.spans.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: u64 = 1_000_000;

    #[test]
    fn as_long_as_nobody_sets_it_a_moment_is_its_time_of_day() {
        let mut w = Wall::default();
        assert_eq!((w.of(7), w.shows(7)), (7, 7));
        for n in 0..100 {
            // read a little late, or by somebody who had to wait for a core
            w.read(
                100 * S + n * S,
                105 * S + n * S + 300,
                100 * S + n * S + if n == 50 { S / 2 } else { 400 },
            );
        }
        assert_eq!(w.spans.len(), 1);
        assert_eq!(w.of(150 * S), 155 * S - 100);
    }

    #[test]
    fn set_back_it_is_not_complete_up_to_what_was_shown_before() {
        let mut w = Wall::default();
        w.read(1000 * S, 1000 * S, 1000 * S);
        w.read(1001 * S, 881 * S, 1001 * S);
        // of a change at the moment 1000.5 somebody may read 880.5 afterwards
        assert_eq!(w.of(1000 * S), 880 * S);
        assert_eq!(w.of(1002 * S), 882 * S);
        // a moment before all that: it may have been read as 999, and as 880 later
        assert_eq!(w.of(999 * S), 880 * S);
        assert_eq!(w.of(800 * S), 800 * S);
    }

    #[test]
    fn set_forward_it_is_not_complete_up_to_what_comes_later() {
        let mut w = Wall::default();
        w.read(1000 * S, 1000 * S, 1000 * S);
        w.read(1001 * S, 4601 * S, 1001 * S);
        // of a change at the moment 1000.5 somebody may have read 1000.5
        assert_eq!(w.of(1000 * S), 1000 * S);
        assert_eq!(w.of(1001 * S), 4601 * S);
        w.forget(1001 * S);
        assert_eq!((w.spans.len(), w.of(1002 * S)), (1, 4602 * S));
    }

    proptest! {
        /// A clock that is set at random, and read by others at random moments, and by the mirror between two settings.
        #[test]
        fn who_has_read_less_did_so_before(
            steps in prop::collection::vec((1_u64..5 * S, -100 * S as i64..100 * S as i64, 0_u8..4), 1..200),
            back in 0_u64..20 * S,
        ) {
            let (mut w, mut now, mut ahead, mut known) = (Wall::default(), 1000 * S, 0_i64, true);
            w.read(now, now, now);
            let mut readings = Vec::new();
            for (wait, set, what) in steps {
                now += wait;
                if what == 0 && known {
                    (ahead, known) = (ahead + set, false);
                }
                let shown = now.saturating_add_signed(ahead);
                readings.push((now, shown));
                if what == 1 {
                    w.read(now, shown, now);
                    known = true;
                }
            }
            // whoever says something has looked at the clock just before
            w.read(now, now.saturating_add_signed(ahead), now);
            prop_assert_eq!(w.shows(now), now.saturating_add_signed(ahead));
            let moment = now - back.min(now - 1000 * S);
            let said = w.of(moment);
            for (at, shown) in readings {
                prop_assert!(shown >= said || at < moment, "{} was shown at {}, and {} was said", shown, at, said);
            }
            w.forget(moment);
            prop_assert_eq!(w.of(moment), said);
        }
    }
}
