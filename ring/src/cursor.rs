//! The reader's side: one position that goes forward.

use crate::layout::{Ring, SLOT_WORDS};
use crate::write::{CLAIM, FIRST_DATA, GOES_ON, ID, META, MOST, SEQ, SUM, Sum, claim_of, slots_for};
use crate::{Kind, MAX_PATH_BYTES, Record};
use core::sync::atomic::Ordering::*;
use core::time::Duration;

/// After so long what was reserved and not published is given up.
const GIVE_UP: Duration = Duration::from_secs(1);
/// After so long it is asked whether its writer is alive. A writer publishes within a microsecond, unless it is made to
/// wait for a core.
const ASK: Duration = Duration::from_millis(20);

/// Room for the paths of a record.
pub struct Buffer([u8; 2 * MAX_PATH_BYTES]);

impl Default for Buffer {
    fn default() -> Self {
        Buffer([0; 2 * MAX_PATH_BYTES])
    }
}

/// What is next in the ring.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'b> {
    /// Nothing: all that was reserved has been read.
    Nothing,
    /// A record.
    Record(Record<'b>),
    /// A writer has reserved slots and not published them yet.
    Waiting,
    /// Something that was reserved will not come, or is no record: a change may have gone untold.
    Skipped,
}

/// Reads a ring from a position on.
#[derive(Clone, Debug)]
pub struct Cursor {
    at: u64,
    stall: Option<Stall>,
}

/// What was reserved and not published, when that was seen first.
#[derive(Clone, Copy, Debug)]
struct Stall {
    /// All before this was reserved then.
    head: u64,
    since: Duration,
}

impl Cursor {
    /// Begins at a position.
    pub fn new(at: u64) -> Cursor {
        Cursor { at, stall: None }
    }

    /// The position: everything before it has been read.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Reads what is next. `now` is a clock that does not go back; `is_dead` says whether a process is known to be gone.
    pub fn next<'b>(
        &mut self,
        ring: &Ring<'_>,
        buffer: &'b mut Buffer,
        now: Duration,
        is_dead: &dyn Fn(u32) -> bool,
    ) -> Next<'b> {
        let head = ring.head();
        let there = head.wrapping_sub(self.at);
        if there == 0 {
            self.stall = None;
            return Next::Nothing;
        }
        if there > ring.slots() as u64 {
            return self.go_to(head);
        }
        match word(ring, self.at, SEQ).map_or(0, |w| w.load(Acquire)) {
            seq if seq == self.at.wrapping_add(1) => {}
            // the rest of a record whose beginning was no record
            seq if seq == (self.at.wrapping_add(1) | GOES_ON) => return self.go_to(self.at.wrapping_add(1)),
            _ => return self.wait(ring, head, now, is_dead),
        }
        match parse(ring, self.at, there, buffer) {
            Some((record, slots)) => {
                self.at = self.at.wrapping_add(slots);
                self.stall = None;
                Next::Record(record)
            }
            None => self.go_to(self.at.wrapping_add(1)),
        }
    }

    fn go_to(&mut self, at: u64) -> Next<'static> {
        self.at = at;
        self.stall = None;
        Next::Skipped
    }

    fn wait(
        &mut self,
        ring: &Ring<'_>,
        head: u64,
        now: Duration,
        is_dead: &dyn Fn(u32) -> bool,
    ) -> Next<'static> {
        let stall = *self.stall.get_or_insert(Stall { head, since: now });
        let waited = now.saturating_sub(stall.since);
        if waited < ASK {
            return Next::Waiting;
        }
        let claim = claimed(ring, self.at).filter(|(_, n)| *n <= head.wrapping_sub(self.at));
        if let Some((pid, slots)) = claim
            && (waited >= GIVE_UP || (pid != 0 && is_dead(pid)))
        {
            return self.go_to(self.at.wrapping_add(slots));
        }
        if waited < GIVE_UP {
            return Next::Waiting;
        }
        // all up to there has had as long as this one
        let end = stall.head.wrapping_sub(self.at).min(ring.slots() as u64);
        let published = |at: u64| word(ring, at, SEQ).is_some_and(|w| w.load(Acquire) == at.wrapping_add(1));
        let skip = (1..end).find(|n| published(self.at.wrapping_add(*n))).unwrap_or(end.max(1));
        self.go_to(self.at.wrapping_add(skip))
    }
}

/// Who has reserved the slots from a position on, and how many, if that was written already.
fn claimed(ring: &Ring<'_>, at: u64) -> Option<(u32, u64)> {
    let claim = word(ring, at, CLAIM)?.load(Relaxed);
    let (pid, slots) = ((claim >> 32) as u32, (claim >> 24 & 0xff) as usize);
    ((1..=MOST).contains(&slots) && claim == claim_of(pid, slots, at)).then_some((pid, slots as u64))
}

fn word<'a>(ring: &Ring<'a>, at: u64, n: usize) -> Option<&'a core::sync::atomic::AtomicU64> {
    ring.slot(at).get(n)
}

fn parse<'b>(ring: &Ring<'_>, at: u64, there: u64, buffer: &'b mut Buffer) -> Option<(Record<'b>, u64)> {
    let load = |at: u64, n: usize| word(ring, at, n).map(|w| w.load(Relaxed));
    let meta = load(at, META)?;
    let kind = Kind::of(meta as u8)?;
    let (path, other) = ((meta >> 16 & 0xffff) as usize, (meta >> 32 & 0xffff) as usize);
    let id = load(at, ID)?;
    let is_named =
        path > 0 || (id != 0 && matches!(kind, Kind::Closed | Kind::Left | Kind::Changed | Kind::Forked));
    if !is_named || path > MAX_PATH_BYTES || other > MAX_PATH_BYTES {
        return None;
    }
    let (path_words, words) = (path.div_ceil(8), path.div_ceil(8) + other.div_ceil(8));
    let slots = slots_for(words) as u64;
    let (pid, claimed) = claimed(ring, at)?;
    if slots > there || claimed != slots {
        return None;
    }
    let mut sum = Sum::new(at, meta);
    sum.add(u64::from(pid));
    sum.add(id);
    let (mut slot, mut from) = (at, FIRST_DATA);
    for n in 0..words {
        if from == SLOT_WORDS {
            slot = slot.wrapping_add(1);
            from = SEQ + 1;
        }
        let value = load(slot, from)?;
        sum.add(value);
        buffer.0.get_mut(n * 8..n * 8 + 8)?.copy_from_slice(&value.to_le_bytes());
        from += 1;
    }
    if load(at, SUM)? != sum.value() {
        return None;
    }
    let old = path_words * 8;
    let record = Record {
        kind,
        cut: meta >> 8 & 1 != 0,
        pid,
        id,
        path: buffer.0.get(..path)?,
        other: buffer.0.get(old..old + other)?,
    };
    Some((record, slots))
}
