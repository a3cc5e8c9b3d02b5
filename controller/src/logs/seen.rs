//! Which events have been seen: of each process the number of the next.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A process of which nothing was heard for so long is forgotten.
const FORGET_S: u64 = 30 * 86_400;

/// What was seen of each process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The number of its next event, and when it was last heard of (s).
    next: BTreeMap<String, (u64, u64)>,
    /// What is not known was there before us, and may have been read by others.
    #[serde(default)]
    begins_late: bool,
    /// A process that was heard of before this (s) may have been forgotten.
    #[serde(default)]
    forgot: bool,
    #[serde(skip)]
    now_s: u64,
}

impl Seen {
    /// Of events that others may have read from before: a process that is met is not missed anything of before that.
    pub fn late() -> Seen {
        Seen { begins_late: true, ..Seen::default() }
    }

    /// The time, in seconds since 1970, from now on; and forgets who has been silent for long.
    pub fn at(&mut self, now_s: u64) {
        self.now_s = now_s;
        let before = self.next.len();
        self.next.retain(|_, (_, heard)| *heard + FORGET_S > now_s);
        self.forgot |= self.next.len() < before;
    }

    /// An event was met. `None`: it has been seen; else how many before it were missed.
    pub fn take(&mut self, source: &str, seq: u64) -> Option<u64> {
        let now_s = self.now_s;
        match self.next.get_mut(source) {
            Some((next, _)) if seq < *next => None,
            Some((next, heard)) => {
                let gap = seq - *next;
                (*next, *heard) = (seq + 1, now_s);
                Some(gap)
            }
            None => {
                self.next.insert(source.to_owned(), (seq + 1, now_s));
                Some(if self.begins_late || self.forgot { 0 } else { seq })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_tell_what_is_new_and_what_is_missing() {
        let mut s = Seen::default();
        let got = [0, 1, 1, 0, 4, 5].map(|n| s.take("a", n));
        assert_eq!(got, [Some(0), Some(0), None, None, Some(2), Some(0)]);
        assert_eq!(s.take("b", 3), Some(3), "it is met late, and all was to be had");
        assert_eq!(Seen::late().take("b", 3), Some(0));
        let back: Seen = serde_json::from_str(&serde_json::to_string(&s).unwrap()).unwrap();
        assert_eq!(back, s);
    }

    #[test]
    fn who_is_silent_for_long_is_forgotten_and_then_nobody_is_said_to_be_missed() {
        let mut s = Seen::default();
        s.at(1_000_000);
        s.take("a", 5);
        s.at(1_000_000 + FORGET_S / 2);
        assert_eq!(s.take("a", 5), None);
        s.at(1_000_000 + FORGET_S);
        assert_eq!((s.take("a", 9), s.take("c", 9)), (Some(0), Some(0)));
    }
}
