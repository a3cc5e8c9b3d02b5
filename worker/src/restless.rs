//! Files of a mirror that change whenever they are copied: such a one must not hold up all else for ever.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use treeferry_core::RelPath;

/// Files that change whenever they are copied.
#[derive(Default)]
pub(crate) struct Restless {
    /// How often in a row, and when that was first and last so.
    files: Mutex<HashMap<RelPath, (u32, Instant, Instant)>>,
    is_any: AtomicBool,
}

impl Restless {
    /// A file that has changed as often as that in a row, and for as long, is named as failing.
    const TIMES: u32 = 3;
    const WHILE: Duration = Duration::from_secs(10);
    /// Of so many files that is remembered; of those of which it was so for that long.
    const MOST: usize = 1000;
    const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

    /// A file has changed while it was copied. Whether it has done so long enough.
    pub fn again(&self, path: RelPath, now: Instant) -> bool {
        let mut files = self.files();
        if files.len() >= Self::MOST && !files.contains_key(&path) {
            files.retain(|_, (.., last)| now.duration_since(*last) < Self::FORGOTTEN_AFTER);
            if files.len() >= Self::MOST {
                files.clear();
            }
        }
        let (times, first, last) = files.entry(path).or_insert((0, now, now));
        *times += 1;
        *last = now;
        self.is_any.store(true, Relaxed);
        *times >= Self::TIMES && now.duration_since(*first) >= Self::WHILE
    }

    /// It was copied.
    pub fn rests(&self, path: impl FnOnce() -> RelPath) {
        if self.is_any.load(Relaxed) {
            let mut files = self.files();
            files.remove(&path());
            self.is_any.store(!files.is_empty(), Relaxed);
        }
    }

    fn files(&self) -> MutexGuard<'_, HashMap<RelPath, (u32, Instant, Instant)>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(n: usize) -> RelPath {
        RelPath::new(n.to_string()).unwrap()
    }

    #[test]
    fn a_file_is_named_that_was_never_at_rest_for_long_enough() {
        let (r, start) = (Restless::default(), Instant::now());
        let after = |s| start + Duration::from_secs(s);
        assert!(!r.again(path(1), start));
        assert!(!r.again(path(1), after(20)), "that may be chance");
        assert!(!r.again(path(2), after(20)));
        assert!(r.again(path(1), after(21)));
        assert!(!r.again(path(2), after(21)) && !r.again(path(2), after(22)), "too early");
        r.rests(|| path(1));
        assert!(!r.again(path(1), after(40)) && r.again(path(2), after(40)));
    }

    #[test]
    fn not_more_are_remembered_than_there_is_room_for() {
        let (r, start) = (Restless::default(), Instant::now());
        for n in 0..3 * Restless::MOST {
            r.again(path(n), start + Duration::from_millis(n as u64));
        }
        assert!(r.files().len() <= Restless::MOST);
        (0..3 * Restless::MOST).for_each(|n| r.rests(|| path(n)));
        assert!(r.files().is_empty() && !r.is_any.load(Relaxed));
    }
}
