//! Rates over time out of what was counted at some moments; and moments as people write them.

use treeferry_core::Sample;

/// What was counted at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// In ms since 1970.
    pub at_ms: u64,
    /// Files and directories looked at.
    pub entries: u64,
    /// Content copied.
    pub copied_bytes: u64,
    /// Entries deleted.
    pub deleted: u64,
}

/// How a job came along. The counters of a job only grow, and so do these.
#[derive(Clone, Debug)]
pub struct Rates {
    moments: Vec<Moment>,
}

/// Rates in one of some equal spans of time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    /// Where the span begins, in seconds after the beginning of the job.
    pub from_s: f64,
    /// Files and directories a second.
    pub entries_per_s: f64,
    /// Content copied a second.
    pub bytes_per_s: f64,
    /// Entries deleted a second.
    pub deleted_per_s: f64,
}

impl Rates {
    /// From the beginning, where nothing was counted, to the last moment.
    pub fn new(began_ms: u64, history: &[Sample], last: Moment) -> Rates {
        let mut moments = vec![Moment { at_ms: began_ms, ..Moment::default() }];
        let between = history.iter().map(|s| Moment {
            at_ms: s.at_ms,
            entries: s.files.saturating_add(s.dirs),
            copied_bytes: s.copied_bytes,
            deleted: s.deleted,
        });
        for m in between.chain([last]) {
            // a clock that was set back, or another's: what does not fit in is left out
            if m.at_ms > moments[moments.len() - 1].at_ms && m.at_ms <= last.at_ms {
                moments.push(m);
            }
        }
        Rates { moments }
    }

    /// How long it lasted, in seconds.
    pub fn seconds(&self) -> f64 {
        let (first, last) = (self.moments[0], self.moments[self.moments.len() - 1]);
        (last.at_ms - first.at_ms) as f64 / 1000.0
    }

    /// How many spans can be told from each other, `most` of them at most.
    pub fn spans(&self, most: usize) -> usize {
        (self.moments.len() - 1).clamp(1, most.max(1))
    }

    /// Rates in so many equal spans. What was counted between two moments is thought to have come evenly.
    pub fn in_spans(&self, n: usize) -> Vec<Rate> {
        let span_s = self.seconds() / n.max(1) as f64;
        if span_s <= 0.0 {
            return Vec::new();
        }
        let began = self.moments[0].at_ms as f64 / 1000.0;
        let at = |i: usize| self.at(began + span_s * i as f64);
        let mut before = at(0);
        let rate = |i: usize| {
            let now = at(i + 1);
            let each = |k: usize| ((now[k] - before[k]) / span_s).max(0.0);
            let r = Rate {
                from_s: span_s * i as f64,
                entries_per_s: each(0),
                bytes_per_s: each(1),
                deleted_per_s: each(2),
            };
            before = now;
            r
        };
        (0..n).map(rate).collect()
    }

    /// Entries a second in the latest tenth of the time, or the latest minute if that is longer.
    pub fn latest(&self) -> f64 {
        let window = (self.seconds() / 10.0).max(60.0).min(self.seconds());
        if window <= 0.0 {
            return 0.0;
        }
        let last = self.moments[self.moments.len() - 1];
        let then = self.at(last.at_ms as f64 / 1000.0 - window)[0];
        ((last.entries as f64 - then) / window).max(0.0)
    }

    /// What was counted at a time: entries, bytes, deletions.
    fn at(&self, seconds: f64) -> [f64; 3] {
        let ms = seconds * 1000.0;
        let next = self.moments.partition_point(|m| (m.at_ms as f64) < ms);
        let values = |m: &Moment| [m.entries as f64, m.copied_bytes as f64, m.deleted as f64];
        let last = self.moments.len() - 1;
        if next == 0 || next > last {
            return values(&self.moments[next.min(last)]);
        }
        let (a, b) = (&self.moments[next - 1], &self.moments[next]);
        let share = (ms - a.at_ms as f64) / (b.at_ms - a.at_ms) as f64;
        let (x, y) = (values(a), values(b));
        std::array::from_fn(|i| x[i] + (y[i] - x[i]) * share)
    }
}

/// A moment in UTC: `2026-11-23 05:36:11 UTC`.
pub fn utc(ms: u64) -> String {
    let seconds = ms / 1000;
    let (days, s) = (seconds / 86_400, seconds % 86_400);
    // years begin in March here, so that the day that some have more is their last (the algorithm is `civil_from_days`
    // of Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms")
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at_ms: u64, files: u64, copied_bytes: u64) -> Sample {
        Sample { at_ms, files, copied_bytes, ..Sample::default() }
    }

    #[test]
    fn spans_have_what_was_counted_in_them_and_nothing_is_lost() {
        let history = [sample(11_000, 100, 0), sample(12_000, 100, 0), sample(14_000, 500, 4096)];
        let last = Moment { at_ms: 20_000, entries: 600, copied_bytes: 8192, deleted: 10 };
        let r = Rates::new(10_000, &history, last);
        assert_eq!(r.seconds(), 10.0);
        let each: Vec<f64> = r.in_spans(10).iter().map(|r| r.entries_per_s.round()).collect();
        assert_eq!(each[..4], [100.0, 0.0, 200.0, 200.0]);
        for n in [1, 3, 7, 100] {
            let all = r.in_spans(n);
            assert_eq!(all.len(), n);
            let span = r.seconds() / n as f64;
            assert_eq!(all.iter().map(|r| r.entries_per_s * span).sum::<f64>().round(), 600.0);
            assert_eq!(all.iter().map(|r| r.bytes_per_s * span).sum::<f64>().round(), 8192.0);
            assert_eq!(all.iter().map(|r| r.deleted_per_s * span).sum::<f64>().round(), 10.0);
        }
    }

    #[test]
    fn a_job_without_a_past_has_no_rates_and_no_clock_does_harm() {
        let r = Rates::new(1000, &[], Moment { at_ms: 1000, entries: 5, ..Moment::default() });
        assert_eq!((r.seconds(), r.latest(), r.in_spans(10)), (0.0, 0.0, vec![]));
        let r = Rates::new(1000, &[], Moment { at_ms: 0, entries: 5, ..Moment::default() });
        assert_eq!((r.seconds(), r.latest()), (0.0, 0.0));
        let back = [sample(5000, 1, 0), sample(2000, 2, 0), sample(9000, 3, 0)];
        let r = Rates::new(1000, &back, Moment { at_ms: 6000, entries: 4, ..Moment::default() });
        assert!(r.in_spans(5).iter().all(|r| r.entries_per_s.is_finite() && r.entries_per_s >= 0.0));
    }

    #[test]
    fn the_latest_rate_forgets_the_past() {
        let history: Vec<Sample> = (1..=1000).map(|i| sample(i * 1000, i.min(500) * 10, 0)).collect();
        let last = Moment { at_ms: 1_000_000, entries: 5000, ..Moment::default() };
        assert_eq!(Rates::new(0, &history, last).latest(), 0.0);
        assert_eq!(
            Rates::new(0, &history[..400], Moment { at_ms: 400_000, entries: 4000, ..last }).latest(),
            10.0
        );
    }

    #[test]
    fn moments_are_written_as_the_calendar_has_them() {
        for (ms, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399_999, "2000-02-28 23:59:59 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (951_868_800_000, "2000-03-01 00:00:00 UTC"),
            (1_703_980_799_000, "2023-12-30 23:59:59 UTC"),
            (1_735_689_599_000, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(ms), text);
        }
        assert!(utc(u64::MAX).ends_with("UTC"));
    }
}
