//! What arrived in each hour, and how long that took.

use crate::Latency;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

const HOUR_US: u64 = 3_600_000_000;
/// Hours in a day, of UTC.
const DAY: u64 = 24;
/// Hours are kept apart for so long, and days for so long: two months, and ten years.
const HOURS: u64 = 62 * DAY;
const DAYS: u64 = 3653;

/// Arrivals by the hour, and by the day before that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arrivals {
    /// By hours since 1970.
    hours: BTreeMap<u64, Latency>,
    /// By days since 1970; those whose hours are not kept any more.
    days: BTreeMap<u64, Latency>,
}

impl Arrivals {
    /// Counts one that arrived at a time (µs since 1970).
    pub fn count(&mut self, us: u64, took: Duration) {
        let hour = us / HOUR_US;
        if !self.hours.contains_key(&hour) {
            self.put_away(hour);
        }
        self.hours.entry(hour).or_default().count(took);
    }

    /// Counts what others have counted.
    pub fn add(&mut self, others: &Arrivals) {
        for (mine, theirs) in [(&mut self.hours, &others.hours), (&mut self.days, &others.days)] {
            for (at, l) in theirs {
                mine.entry(*at).or_default().add(l);
            }
        }
        if let Some(last) = self.hours.keys().last().copied() {
            self.put_away(last);
        }
    }

    /// Hours in which something arrived, by their beginning (s since 1970).
    pub fn hourly(&self) -> impl DoubleEndedIterator<Item = (u64, &Latency)> {
        self.hours.iter().map(|(hour, l)| (hour * 3600, l))
    }

    /// The same for days.
    pub fn daily(&self) -> BTreeMap<u64, Latency> {
        let mut all = self.days.clone();
        for (hour, l) in &self.hours {
            all.entry(hour / DAY).or_default().add(l);
        }
        all.into_iter().map(|(day, l)| (day * DAY * 3600, l)).collect()
    }

    /// Of what is long ago only the day is kept, and in the end not that.
    fn put_away(&mut self, now: u64) {
        while let Some(e) = self.hours.first_entry().filter(|e| e.key() + HOURS < now) {
            let (hour, l) = e.remove_entry();
            self.days.entry(hour / DAY).or_default().add(&l);
        }
        while let Some(e) = self.days.first_entry().filter(|e| e.key() + DAYS < now / DAY) {
            e.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: u64) -> u64 {
        hour * HOUR_US + 7
    }

    #[test]
    fn days_are_the_sums_of_their_hours_also_when_these_are_gone() {
        let mut a = Arrivals::default();
        let first = 24 * 20_000;
        for hour in 0..24 * 100 {
            for _ in 0..3 {
                a.count(at(first + hour), Duration::from_millis(hour));
            }
        }
        assert_eq!(a.hourly().count() as u64, HOURS + 1);
        let daily = a.daily();
        assert_eq!(daily.len(), 100);
        assert!(daily.values().all(|l| l.total() == 72));
        assert_eq!(daily[&(20_000 * 86_400)].most(), Duration::from_millis(23));
        let (last, l) = a.hourly().next_back().unwrap();
        assert_eq!((last, l.total()), ((first + 2399) * 3600, 3));
        // what is written is read again, and two are one
        let text = serde_json::to_string(&a).unwrap();
        let mut twice: Arrivals = serde_json::from_str(&text).unwrap();
        assert_eq!(twice, a);
        twice.add(&a);
        assert!(twice.daily().values().all(|l| l.total() == 144));
        // ten years later only the last is left
        a.count(at(first + 24 * 5000), Duration::ZERO);
        assert_eq!(a.daily().len(), 1);
    }
}
