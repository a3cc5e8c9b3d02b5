//! The moment up to which the target is complete.
//!
//! **Complete up to T** means: every change that was over before T is on the target. Each sign has a *birth*, a moment
//! before which the change cannot have happened: the latest one up to which all changes had been told when the sign
//! came. The target is complete up to the earliest birth of all that waits or is under way, and, if there is none, up to
//! where all changes have been told. What was found at a path, or was not, may be the result of a rename that is not told
//! yet; so whatever waited for it is dealt with only when everything has been told up to the end of the look. A path that
//! failed is not waited for: it is named, and tried again by itself.
//!
//! Moments are µs that only go forward, whatever becomes of the clock of the wall; what that shows counts where somebody is
//! told ([`Births::time`]). 0 is before everything, and no moment.

use crate::wall::Wall;
use std::collections::{BTreeMap, VecDeque};

/// Births of all that is not done.
#[derive(Default)]
pub(crate) struct Births {
    /// How often each is held.
    pub held: BTreeMap<u64, usize>,
    /// Ends of looks and walks that were not told up to yet, with the births that they hold.
    ended: VecDeque<(u64, u64)>,
    told: u64,
    wall: Wall,
}

impl Births {
    /// Nothing is held, and all changes have been told up to a moment.
    pub fn resumed(told: u64) -> Births {
        Births { told, ..Births::default() }
    }

    /// Something is to be done.
    pub fn add(&mut self, birth: u64) {
        *self.held.entry(birth).or_default() += 1;
    }

    /// It is not, or is part of something else.
    pub fn drop(&mut self, birth: u64) {
        if let Some(n) = self.held.get_mut(&birth) {
            *n -= 1;
            if *n == 0 {
                self.held.remove(&birth);
            }
        }
    }

    /// It was done at this moment.
    pub fn end(&mut self, moment: u64, birth: u64) {
        match self.ended.back_mut() {
            // the later end is waited for in any case. While nothing is told, as by a list, all have the same birth
            Some((end, last)) if *last == birth => {
                *end = moment.max(*end);
                self.drop(birth);
            }
            _ => self.ended.push_back((moment, birth)),
        }
    }

    /// All changes before this moment have been told.
    pub fn told(&mut self, moment: u64) {
        self.told = self.told.max(moment);
        while let Some((_, birth)) = self.ended.front().copied().filter(|(end, _)| *end < self.told) {
            self.ended.pop_front();
            self.drop(birth);
        }
    }

    /// Up to which moment that was said.
    pub fn told_up_to(&self) -> u64 {
        self.told
    }

    /// Up to which moment the target is complete.
    pub fn earliest(&self) -> u64 {
        self.held.keys().next().copied().unwrap_or(self.told)
    }

    /// The clock of the wall showed `shown` (µs since 1970), between two moments.
    pub fn clock(&mut self, before: u64, shown: u64, after: u64) {
        self.wall.read(before, shown, after);
        self.wall.forget(self.earliest());
    }

    /// The time of day (µs since 1970) of a moment: whoever has read less did so before it. `None`: it is none.
    pub fn time(&self, moment: u64) -> Option<u64> {
        (moment > 0).then(|| self.wall.of(moment))
    }

    /// What the clock of the wall shows at a moment that is not long ago (µs since 1970).
    pub fn shown_at(&self, moment: u64) -> u64 {
        self.wall.shows(moment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_takes_no_room_while_nothing_is_told() {
        let mut births = Births::default();
        for moment in 1..=1000 {
            births.add(0);
            births.end(moment, 0);
        }
        assert_eq!(births.ended.len(), 1);
        births.told(1000);
        assert_eq!(births.earliest(), 0, "it may have found what a rename left that is not told yet");
        births.told(1001);
        assert_eq!((births.earliest(), births.held.len(), births.ended.len()), (1001, 0, 0));
        // of several births each is held until its last end is told
        for (moment, birth) in [(1100, 1001), (1101, 1001), (1102, 1002), (1103, 1001)] {
            births.add(birth);
            births.end(moment, birth);
        }
        for (told, earliest) in [(1102, 1001), (1103, 1001), (1104, 1104)] {
            births.told(told);
            assert_eq!(births.earliest(), earliest);
        }
    }
}
