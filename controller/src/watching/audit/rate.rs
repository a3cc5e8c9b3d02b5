//! How many entries are compared in what time, and when the next one is due.

use std::fmt;
use std::time::{Duration, Instant};

/// The most that makes sense: so many a second.
const MOST_A_SECOND: f64 = 100.0;

/// A rate, more than 0 and at most 100 a second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    per_hour: f64,
}

/// Why a text is no rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRate {
    /// It is not written as one.
    #[error("'{0}' is not a rate: write entries an hour, or a number with /s, /m, /h or /d, e.g. 1000/h")]
    Text(String),
    /// Nothing, or too much.
    #[error("'{0}' is out of range: more than 0, and at most 100/s")]
    Range(String),
}

impl Rate {
    /// Reads `1000`, `1000/h`, `20/m`, `2/s` or `50000/d`; a bare number is that of an hour.
    pub fn parse(text: &str) -> Result<Rate, BadRate> {
        let bad = || BadRate::Text(text.to_owned());
        let (number, unit) = text.trim().split_once('/').unwrap_or((text.trim(), "h"));
        let in_an_hour = match unit.trim() {
            "s" => 3600.0,
            "m" | "min" => 60.0,
            "h" => 1.0,
            "d" => 1.0 / 24.0,
            _ => return Err(bad()),
        };
        let n: u32 = number.trim().parse().map_err(|_| bad())?;
        let per_hour = f64::from(n) * in_an_hour;
        match n > 0 && per_hour <= MOST_A_SECOND * 3600.0 {
            true => Ok(Rate { per_hour }),
            false => Err(BadRate::Range(text.to_owned())),
        }
    }

    /// Entries an hour.
    pub fn per_hour(self) -> f64 {
        self.per_hour
    }

    /// From one entry to the next.
    pub fn every(self) -> Duration {
        Duration::from_secs_f64(3600.0 / self.per_hour)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/h", self.per_hour)
    }
}

/// Says when the next entry is due: evenly, and after a pause not several at once.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    every: Duration,
    next: Instant,
}

impl Pace {
    /// The first is due at once.
    pub fn new(every: Duration, now: Instant) -> Pace {
        Pace { every, next: now }
    }

    /// How long until the next is due.
    pub fn left(&self, now: Instant) -> Duration {
        self.next.saturating_duration_since(now)
    }

    /// One was done.
    pub fn done(&mut self, now: Instant) {
        self.next = (self.next + self.every).max(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_people_write_them() {
        let read = |s| Rate::parse(s).map(Rate::per_hour);
        assert_eq!(read("1000"), Ok(1000.0));
        assert_eq!(read(" 1000/h "), Ok(1000.0));
        assert_eq!((read("2/s"), read("20/m"), read("48/d")), (Ok(7200.0), Ok(1200.0), Ok(2.0)));
        assert_eq!(Rate::parse("100/s").map(Rate::every), Ok(Duration::from_millis(10)));
        for s in ["", "x", "1/w", "-1", "1.5", "/h", "1/h/h"] {
            assert_eq!(read(s), Err(BadRate::Text(s.to_owned())), "{s}");
        }
        for s in ["0", "0/s", "101/s", "360001"] {
            assert_eq!(read(s), Err(BadRate::Range(s.to_owned())), "{s}");
        }
    }

    #[test]
    fn what_was_late_is_not_made_up_for_at_once() {
        let (every, begin) = (Duration::from_secs(10), Instant::now());
        let mut p = Pace::new(every, begin);
        assert_eq!(p.left(begin), Duration::ZERO);
        p.done(begin);
        assert_eq!(p.left(begin), every);
        // a little late: the next one is in time
        p.done(begin + Duration::from_secs(11));
        assert_eq!(p.left(begin + Duration::from_secs(11)), Duration::from_secs(9));
        // an hour late: one is due, not 360
        let late = begin + Duration::from_secs(3600);
        p.done(late);
        p.done(late);
        assert_eq!(p.left(late), every);
    }
}
