//! Entries that were seen to differ, and what becomes of them.
//!
//! ```text
//!             differs                    differs, and nobody has changed it
//!   compared ─────────► seen ──────────────────────────────────────────────► named ───► repaired
//!                       │  ▲ │                                               │  ▲ │
//!                 alike │  └─┘ differs, and was changed meanwhile            │  └─┘ differs still
//!                       ▼                                                    ▼
//!                     alike          (too often: restless)                not repaired
//! ```
//!
//! Each arrow but the first is a comparison that waits until the mirror is complete up to after the one before. So what
//! still differs then, though neither side was touched since, is nothing that the mirror was about to bring.

use crate::auditing::compare::Stamp;
use std::collections::VecDeque;
use std::time::Instant;
use treeferry_core::RelPath;

/// So many may wait; as long as there are more nothing new is drawn.
pub const MOST: usize = 1000;
/// An entry that is changed between any two of so many comparisons is given up.
const RESTLESS: u32 = 16;
/// One that differs though the mirror has looked at it so often cannot be repaired.
const HOPELESS: u32 = 3;

/// What was seen of an entry that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Suspect {
    /// The entry.
    pub path: RelPath,
    /// How many entries it stands for.
    pub weight: f64,
    /// It has been named, and the mirror asked to look at it.
    pub named: bool,
    /// It is compared again once the mirror is complete beyond this (µs since 1970) ...
    pub seen_us: u64,
    /// ... and not before this.
    pub not_before: Instant,
    /// What both sides were before and after it was compared; `None`: they were changed meanwhile.
    pub stamp: Option<Stamp>,
    /// How often it was compared since it was drawn, or named.
    pub tries: u32,
}

/// What comparing a suspect once more was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what it should be: the mirror was about to bring it.
    Alike,
    /// It differs, and is to be named and repaired.
    Differs,
    /// It is to be compared once more.
    Again,
    /// It never holds still: nothing can be said.
    Restless,
    /// It was named and is right now.
    Repaired,
    /// It was named and stays wrong.
    NotRepaired,
}

impl Suspect {
    /// Judges by another comparison: whether it differs, and what both sides were before and after that.
    pub fn judge(&self, differs: bool, stamp: Option<Stamp>) -> Verdict {
        let held_still = stamp.is_some() && stamp == self.stamp;
        match (self.named, differs) {
            (false, false) => Verdict::Alike,
            (false, true) if held_still => Verdict::Differs,
            (false, true) if self.tries < RESTLESS => Verdict::Again,
            (false, true) => Verdict::Restless,
            (true, false) => Verdict::Repaired,
            (true, true) if self.tries < HOPELESS => Verdict::Again,
            (true, true) => Verdict::NotRepaired,
        }
    }
}

/// Those that wait, the one that has waited longest first.
#[derive(Debug, Default)]
pub struct Suspects(VecDeque<Suspect>);

impl Suspects {
    /// One that is to be compared again.
    pub fn add(&mut self, s: Suspect) {
        self.0.push_back(s);
    }

    /// One that can be compared now, the mirror being complete up to a moment.
    pub fn take(&mut self, complete_up_to: Option<u64>, now: Instant) -> Option<Suspect> {
        let complete = complete_up_to?;
        let at = self.0.iter().position(|s| s.seen_us < complete && s.not_before <= now)?;
        self.0.remove(at)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether an entry is among them.
    pub fn has(&self, path: &RelPath) -> bool {
        self.0.iter().any(|s| s.path == *path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use treeferry_fs::Time;

    fn stamp(n: i64) -> Option<Stamp> {
        Some([Some((1, Time { sec: n, nsec: 0 })), None])
    }

    fn suspect() -> Suspect {
        Suspect {
            path: RelPath::new("d/f").unwrap(),
            weight: 1.0,
            named: false,
            seen_us: 100,
            not_before: Instant::now(),
            stamp: stamp(1),
            tries: 1,
        }
    }

    #[test]
    fn only_what_differs_twice_untouched_is_named() {
        let s = suspect();
        assert_eq!(s.judge(false, stamp(1)), Verdict::Alike);
        assert_eq!(s.judge(false, None), Verdict::Alike);
        assert_eq!(s.judge(true, stamp(1)), Verdict::Differs);
        assert_eq!(s.judge(true, stamp(2)), Verdict::Again, "somebody has changed it meanwhile");
        assert_eq!(s.judge(true, None), Verdict::Again, "while it was compared");
        let s = Suspect { stamp: None, ..suspect() };
        assert_eq!(s.judge(true, None), Verdict::Again, "what is not known is not the same");
        let s = Suspect { tries: RESTLESS, ..suspect() };
        assert_eq!(s.judge(true, stamp(2)), Verdict::Restless);
        assert_eq!(s.judge(true, stamp(1)), Verdict::Differs);
    }

    #[test]
    fn what_was_named_is_repaired_or_is_not() {
        let s = Suspect { named: true, ..suspect() };
        assert_eq!(s.judge(false, stamp(9)), Verdict::Repaired);
        assert_eq!(s.judge(true, stamp(1)), Verdict::Again);
        assert_eq!(Suspect { tries: HOPELESS, ..s }.judge(true, stamp(1)), Verdict::NotRepaired);
    }

    #[test]
    fn a_suspect_waits_until_the_mirror_is_complete_beyond_it() {
        let (mut all, now) = (Suspects::default(), Instant::now());
        let late = now + Duration::from_secs(60);
        all.add(Suspect { not_before: late, ..suspect() });
        all.add(Suspect { not_before: now, seen_us: 200, ..suspect() });
        assert_eq!(all.take(None, now), None);
        assert_eq!(all.take(Some(200), now), None, "not beyond");
        assert_eq!(all.take(Some(201), now).map(|s| s.seen_us), Some(200), "the first has to wait");
        assert!(all.take(Some(201), now).is_none() && all.has(&suspect().path));
        assert_eq!(all.take(Some(201), late).map(|s| s.seen_us), Some(100));
        assert_eq!(all.len(), 0);
    }
}
