//! What a program knows of its open files, for that which takes its place by exec(2): a few words that overwrite each
//! other. Who does not find what it looks for finds out by itself.

use crate::layout::Ring;
use crate::mixed;
use crate::table::HANDED;
use core::sync::atomic::Ordering::*;

/// So many processes may be about to become another program at once.
pub(crate) const HANDED_WORDS: usize = 128;

/// What was handed over is found as long as fewer records than that were told since, and for some time not after twice as
/// many: by then another process may have the number.
const LAPSE: u64 = 4096;

/// What is known of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Handed {
    /// The reader knows that the process has it open.
    Told = 1,
    /// It is not mirrored.
    Elsewhere = 2,
}

impl Ring<'_> {
    /// Says what is known of a file that a process has open. It is found until some [`LAPSE`] records later.
    pub fn hand_over(&self, pid: u32, id: u64, what: Handed) {
        let tag = self.tag(pid, id, what, self.head() / LAPSE);
        self.word(place(tag)).store(tag, Release);
    }

    /// What this process knew of a file before it became another program.
    pub fn handed_over(&self, pid: u32, id: u64) -> Option<Handed> {
        let moment = self.head() / LAPSE;
        let there = |what: &Handed| {
            [moment, moment.wrapping_sub(1)].into_iter().any(|moment| {
                let tag = self.tag(pid, id, *what, moment);
                self.word(place(tag)).load(Acquire) == tag
            })
        };
        [Handed::Told, Handed::Elsewhere].into_iter().find(there)
    }

    fn tag(&self, pid: u32, id: u64, what: Handed, moment: u64) -> u64 {
        // what is elsewhere may come; what the reader knows it may forget
        let until = match what {
            Handed::Told => self.epoch().session(),
            Handed::Elsewhere => self.epoch().number(),
        };
        [u64::from(pid) << 8 | u64::from(what as u8), id, moment].into_iter().fold(until, mixed) | 1
    }
}

fn place(tag: u64) -> usize {
    // the low bit is always set
    HANDED + (tag >> 1) as usize % HANDED_WORDS
}
