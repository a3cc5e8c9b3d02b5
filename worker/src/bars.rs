//! How good something has to be to be told: each process tells the ledger only of what beats all but the best that it has
//! told already. So of a billion files some hundred are told, and a file that is not costs one comparison.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use treeferry_core::records::{Best, Record, Records};
use treeferry_core::{Outcome, RelPath};

/// A bar for each kind of record.
#[derive(Debug, Default)]
pub(crate) struct Bars([Bar; Best::ALL.len()]);

/// What was told of one kind.
#[derive(Debug, Default)]
struct Bar {
    /// What is not more than this need not be told.
    least: AtomicU64,
    told: Mutex<Vec<u64>>,
}

impl Bars {
    /// Puts something into an outcome, if it is good enough.
    #[inline]
    pub fn offer(
        &self,
        best: Best,
        value: u64,
        note: impl FnOnce() -> String,
        path: impl FnOnce() -> RelPath,
        out: &mut Outcome,
    ) {
        if value > self.0[best as usize].least.load(Relaxed) && self.0[best as usize].passes(value) {
            out.records.push(Record { best, value, note: note(), path: path() });
        }
    }

    /// As [`Bars::offer`], of a time.
    #[inline]
    pub fn offer_time(
        &self,
        best: Best,
        took: Duration,
        note: impl FnOnce() -> String,
        path: impl FnOnce() -> RelPath,
        out: &mut Outcome,
    ) {
        self.offer(best, took.as_micros() as u64, note, path, out);
    }
}

impl Bar {
    fn passes(&self, value: u64) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let full = told.len() >= Records::KEPT;
        // somebody may have raised it meanwhile
        if full && told.last().is_some_and(|least| value <= *least) {
            return false;
        }
        let at = told.partition_point(|v| *v >= value);
        told.insert(at, value);
        told.truncate(Records::KEPT);
        if told.len() == Records::KEPT {
            self.least.store(told.last().copied().unwrap_or(0), Relaxed);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_has_the_best_and_little_else() {
        let (bars, mut out) = (Bars::default(), Outcome::default());
        // a sequence in no order: multiples of a number that shares no factor with a million
        for i in 1..1_000_000u64 {
            let value = i * 77_777 % 1_000_000;
            let path = || RelPath::new(value.to_string()).unwrap();
            bars.offer(Best::LargestFile, value, String::new, path, &mut out);
        }
        assert!(out.records.len() < 500, "{}", out.records.len());
        let mut kept = Records::default();
        out.records.into_iter().for_each(|r| kept.add(r));
        let values: Vec<u64> = kept.of(Best::LargestFile).iter().map(|r| r.value).collect();
        assert_eq!(values, (999_980..1_000_000).rev().collect::<Vec<_>>());
    }

    #[test]
    fn nothing_is_no_record_and_equals_are_told_only_until_the_list_is_full() {
        let (bars, mut out) = (Bars::default(), Outcome::default());
        for i in 0..1000 {
            bars.offer(Best::LargestDir, 0, String::new, RelPath::root, &mut out);
            bars.offer(Best::LargestFile, 4096, || i.to_string(), RelPath::root, &mut out);
        }
        assert_eq!(out.records.len(), Records::KEPT);
    }
}
