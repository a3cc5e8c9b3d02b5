//! What the comparisons of the last days tell of all entries. Sums are kept by the hour, so it takes the same little
//! memory however much is compared.

use crate::auditing::bound;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// The hours that count.
pub const WINDOW_HOURS: u64 = 7 * 24;
/// How sure the bound is.
pub const CONFIDENCE: f64 = 0.95;

/// The sums.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// The hour (since 1970) and what was compared in it, the oldest first.
    hours: VecDeque<(u64, Sums)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sums {
    compared: u64,
    weight: f64,
    squares: f64,
    wrong: f64,
}

/// What a tally tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Window {
    /// Entries that were compared; one that was drawn twice counts twice.
    pub compared: u64,
    /// As many equal draws as those are worth.
    pub effective: f64,
    /// The share that differed.
    pub share: f64,
    /// It is no larger than this, with [`CONFIDENCE`].
    pub share_at_most: f64,
}

impl Tally {
    /// An entry that stands for so many was compared. `now_s`: seconds since 1970.
    pub fn count(&mut self, now_s: u64, weight: f64, differs: bool) {
        let hour = now_s / 3600;
        // a clock that was set back goes on in the hour that there is
        if self.hours.back().is_none_or(|(h, _)| *h < hour) {
            self.hours.push_back((hour, Sums::default()));
        }
        self.forget(hour);
        if let Some((_, s)) = self.hours.back_mut() {
            s.compared += 1;
            s.weight += weight;
            s.squares += weight * weight;
            s.wrong += if differs { weight } else { 0.0 };
        }
    }

    /// What the hours up to now tell.
    pub fn window(&self, now_s: u64) -> Window {
        let hour = now_s / 3600;
        let mut all = Sums::default();
        for (_, s) in self.hours.iter().filter(|(h, _)| h + WINDOW_HOURS > hour) {
            all.compared += s.compared;
            all.weight += s.weight;
            all.squares += s.squares;
            all.wrong += s.wrong;
        }
        // as `auditing::sample::effective` says it of single weights
        let effective = if all.squares > 0.0 { all.weight * all.weight / all.squares } else { 0.0 };
        let share = if all.weight > 0.0 { all.wrong / all.weight } else { 0.0 };
        let share_at_most = bound::at_most(share, effective, CONFIDENCE);
        Window { compared: all.compared, effective, share, share_at_most }
    }

    fn forget(&mut self, hour: u64) {
        while self.hours.front().is_some_and(|(h, _)| h + WINDOW_HOURS <= hour) {
            self.hours.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auditing::sample::effective;

    #[test]
    fn it_tells_what_the_single_draws_would() {
        let mut t = Tally::default();
        assert_eq!(t.window(0), Window { share_at_most: 1.0, ..Window::default() });
        let draws = [(3.0, false), (1.0, true), (2.0, false), (2.0, false)];
        draws.iter().enumerate().for_each(|(i, (w, d))| t.count(1800 * i as u64, *w, *d));
        let w = t.window(7200);
        assert_eq!((w.compared, w.share), (4, 1.0 / 8.0));
        assert!((w.effective - effective(draws.iter().map(|d| d.0))).abs() < 1e-9);
        assert_eq!(w.share_at_most, bound::at_most(w.share, w.effective, CONFIDENCE));
    }

    #[test]
    fn what_is_older_than_a_week_counts_no_more_and_takes_no_room() {
        let mut t = Tally::default();
        t.count(0, 1.0, true);
        for hour in 1..=1000 {
            t.count(hour * 3600, 1.0, false);
        }
        assert_eq!(t.hours.len() as u64, WINDOW_HOURS);
        let w = t.window(1000 * 3600);
        assert_eq!((w.compared, w.share), (WINDOW_HOURS, 0.0));
        assert!((w.share_at_most - (1.0 - 0.05f64.powf(1.0 / WINDOW_HOURS as f64))).abs() < 1e-9);
        // nobody compares any more
        assert_eq!(t.window(2000 * 3600).compared, 0);
        // and a clock that was set back for long loses nothing
        t.count(500 * 3600, 1.0, false);
        assert_eq!(t.window(1000 * 3600).compared, WINDOW_HOURS + 1);
    }
}
