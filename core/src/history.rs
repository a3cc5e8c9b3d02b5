//! How a job came along: what it had counted at some moments, so that rates can be drawn.
//!
//! The list never has more than [`History::MOST`] samples. When it is full each second one is dropped, and from then on
//! they are taken half as often: so a minute and a week fit the same room, and both are drawn as finely as a picture
//! can show.

use crate::counters::Counters;
use serde::{Deserialize, Serialize};

macro_rules! sample {
    ($($name:ident,)*) => {
        /// What a job had counted at a moment; the names are those of [`Counters`].
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        #[expect(missing_docs, reason = "they are explained where they are counted")]
        pub struct Sample {
            /// The moment, in ms since 1970.
            pub at_ms: u64,
            /// Tasks outstanding.
            pub outstanding: u64,
            $(pub $name: u64,)*
        }

        impl Sample {
            /// Of counters.
            pub fn new(at_ms: u64, outstanding: u64, c: &Counters) -> Sample {
                Sample { at_ms, outstanding, $($name: c.$name,)* }
            }

            fn set(&mut self, name: &str, value: u64) {
                match name {
                    "at_ms" => self.at_ms = value,
                    "outstanding" => self.outstanding = value,
                    $(stringify!($name) => self.$name = value,)*
                    _ => {}
                }
            }
        }
    };
}

sample! { dirs, files, bytes, copied_files, copied_bytes, unchanged_files, linked, deleted, failures, }

impl Sample {
    /// Reads a sample as the ledger writes it: `name=number` with blanks between. What is missing is 0, what is not known
    /// is left out; without a moment it is none.
    pub fn read(text: &str) -> Option<Sample> {
        let mut s = Sample::default();
        for (name, value) in text.split(' ').filter_map(|w| w.split_once('=')) {
            s.set(name, value.parse().ok()?);
        }
        (s.at_ms > 0).then_some(s)
    }
}

/// Samples in the order of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    interval_ms: u64,
    samples: Vec<Sample>,
}

impl History {
    /// So many samples are kept at most.
    pub const MOST: usize = 1000;
    /// So far they are apart at first.
    pub const FIRST_INTERVAL_MS: u64 = 1000;

    /// Without a sample.
    pub fn new() -> History {
        History { interval_ms: History::FIRST_INTERVAL_MS, samples: Vec::new() }
    }

    /// Whether it is time for another sample.
    pub fn is_due(&self, now_ms: u64) -> bool {
        // a clock that was set back does not stop it for ever
        self.samples.last().is_none_or(|s| now_ms.abs_diff(s.at_ms) >= self.interval_ms)
    }

    /// Adds one, whether it is due or not.
    pub fn push(&mut self, s: Sample) {
        self.samples.push(s);
        if self.samples.len() >= History::MOST {
            self.interval_ms *= 2;
            let mut keep = true;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
        }
    }

    /// All of them.
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }
}

impl Default for History {
    fn default() -> History {
        History::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_week_fits_and_its_ends_stay() {
        let mut h = History::new();
        let week_ms = 7 * 86_400_000;
        let mut t = 0;
        while t < week_ms {
            t += 200;
            if h.is_due(t) {
                h.push(Sample { at_ms: t, files: t, ..Sample::default() });
            }
        }
        let all = h.samples();
        assert!((History::MOST / 2 - 2..History::MOST).contains(&all.len()), "{}", all.len());
        assert!(all.windows(2).all(|w| w[0].at_ms < w[1].at_ms));
        assert!(week_ms - all.last().unwrap().at_ms <= 2 * h.interval_ms);
        assert!(all[0].at_ms <= 2 * h.interval_ms, "the beginning is kept");
    }

    #[test]
    fn a_clock_that_is_set_back_does_no_harm() {
        let mut h = History::new();
        h.push(Sample { at_ms: 1 << 40, ..Sample::default() });
        assert!(h.is_due(5) && h.is_due(u64::MAX) && !h.is_due((1 << 40) + 1));
    }

    #[test]
    fn a_sample_of_the_ledger_is_read() {
        let s = Sample::read("at_ms=17 files=3 outstanding=2 what_is_new=9").unwrap();
        assert_eq!((s.at_ms, s.files, s.outstanding, s.dirs), (17, 3, 2, 0));
        for bad in ["", "files=3", "at_ms=x", "at_ms=-1"] {
            assert_eq!(Sample::read(bad), None, "{bad}");
        }
    }
}
