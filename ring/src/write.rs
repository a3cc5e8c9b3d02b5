//! The writer's side: reserve, fill, publish.
//!
//! The first slot of a record holds, word by word: position + 1 once it is published; who has reserved it and how many
//! slots; what and how long; a checksum; which file; and bytes of the paths. Further slots hold a mark, which is no position, and
//! more bytes.

use crate::layout::{HEAD, Ring, SLOT_WORDS, TAIL};
use crate::table::word_of;
use crate::{MAX_PATH_BYTES, Record, mixed};
use core::sync::atomic::Ordering::*;

pub(crate) const SEQ: usize = 0;
pub(crate) const CLAIM: usize = 1;
pub(crate) const META: usize = 2;
pub(crate) const SUM: usize = 3;
pub(crate) const ID: usize = 4;
pub(crate) const FIRST_DATA: usize = 5;
/// In the first word of a slot that goes on with a record.
pub(crate) const GOES_ON: u64 = 1 << 63;
/// Most slots of a record.
pub(crate) const MOST: usize = slots_for(2 * MAX_PATH_BYTES.div_ceil(8));

/// How many slots so many words of paths take.
pub(crate) const fn slots_for(words: usize) -> usize {
    let first = SLOT_WORDS - FIRST_DATA;
    1 + words.saturating_sub(first).div_ceil(SLOT_WORDS - 1)
}

/// What has become of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// It is in the ring.
    pub told: bool,
    /// The reader sleeps, and the caller has to wake it.
    pub wake: bool,
}

/// Checksum of a record: its position, its description, its words.
pub(crate) struct Sum(u64);

impl Sum {
    pub(crate) fn new(position: u64, meta: u64) -> Sum {
        let mut sum = Sum(0x9e37_79b9_7f4a_7c15);
        sum.add(position);
        sum.add(meta);
        sum
    }

    pub(crate) fn add(&mut self, word: u64) {
        self.0 = mixed(self.0, word);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0
    }
}

/// Kind, flags, and lengths of both paths in a word.
pub(crate) fn meta_of(r: &Record<'_>) -> u64 {
    u64::from(r.kind as u8)
        | u64::from(r.cut) << 8
        | (r.path.len() as u64) << 16
        | (r.other.len() as u64) << 32
}

/// Who reserves, how many slots, and at which position (its low bits).
pub(crate) fn claim_of(pid: u32, slots: usize, position: u64) -> u64 {
    u64::from(pid) << 32 | (slots as u64) << 24 | (position & 0xff_ffff)
}

impl Ring<'_> {
    /// Puts a record into the ring, or counts it as lost if there is no room for it, or if it is too long.
    pub fn push(&self, record: &Record<'_>) -> Pushed {
        if record.path.len() > MAX_PATH_BYTES || record.other.len() > MAX_PATH_BYTES {
            self.add_lost();
            return Pushed { told: false, wake: self.take_sleeper() };
        }
        let words = record.path.len().div_ceil(8) + record.other.len().div_ceil(8);
        let slots = slots_for(words);
        let position = self.reserve(slots as u64);
        match position {
            Some(position) => self.fill(position, slots, record),
            None => self.add_lost(),
        }
        Pushed { told: position.is_some(), wake: self.take_sleeper() }
    }

    /// Takes positions for a writer.
    pub(crate) fn reserve(&self, slots: u64) -> Option<u64> {
        self.reserve_from(self.word(HEAD).load(Relaxed), slots)
    }

    /// The same for one that has seen the head there.
    pub(crate) fn reserve_from(&self, mut head: u64, slots: u64) -> Option<u64> {
        loop {
            if !self.has_room(head, slots) {
                // others may have gone on meanwhile, and the reader past where this one has seen the head
                match self.word(HEAD).load(Relaxed) {
                    now if now == head => return None,
                    now => head = now,
                }
                continue;
            }
            match self.word(HEAD).compare_exchange_weak(head, head.wrapping_add(slots), AcqRel, Relaxed) {
                Ok(_) => return Some(head),
                Err(now) => head = now,
            }
        }
    }

    /// Whether so many slots are free after a position that was the head. A tail that is ahead of it leaves none.
    fn has_room(&self, head: u64, slots: u64) -> bool {
        let used = head.wrapping_sub(self.word(TAIL).load(Acquire));
        used.checked_add(slots).is_some_and(|n| n <= self.slots() as u64)
    }

    /// Whether there is no room for another record, whatever its length.
    pub fn is_full(&self) -> bool {
        let mut head = self.head();
        while !self.has_room(head, MOST as u64) {
            match self.head() {
                now if now == head => return true,
                now => head = now,
            }
        }
        false
    }

    fn fill(&self, position: u64, slots: usize, record: &Record<'_>) {
        let put = |at: u64, word: usize, value: u64| {
            if let Some(w) = self.slot(at).get(word) {
                w.store(value, Relaxed);
            }
        };
        put(position, CLAIM, claim_of(record.pid, slots, position));
        let meta = meta_of(record);
        let mut sum = Sum::new(position, meta);
        sum.add(u64::from(record.pid));
        sum.add(record.id);
        let (mut at, mut word) = (position, FIRST_DATA);
        for part in record.path.chunks(8).chain(record.other.chunks(8)) {
            if word == SLOT_WORDS {
                at = at.wrapping_add(1);
                put(at, SEQ, at.wrapping_add(1) | GOES_ON);
                word = SEQ + 1;
            }
            let value = word_of(part);
            sum.add(value);
            put(at, word, value);
            word += 1;
        }
        put(position, META, meta);
        put(position, ID, record.id);
        put(position, SUM, sum.value());
        if let Some(seq) = self.slot(position).get(SEQ) {
            seq.store(position.wrapping_add(1), Release);
        }
    }
}
