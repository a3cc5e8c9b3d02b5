//! What is where in the file: the slots first, then the table, and the header at the end. All that is not in a slot counts
//! backwards from the last word.
//!
//! So the header is where the mapping ends, and that is next to what a process has mapped before, as Linux gives addresses from
//! the top down: it needs no page of the page table for itself, which would cost a process more than to look at the ring.

use core::sync::atomic::{AtomicU64, Ordering::*};

/// Version of the layout. Another one is another ring.
pub const VERSION: u64 = 3;
/// Bytes of a slot.
pub const SLOT_BYTES: usize = SLOT_WORDS * 8;
/// Fewest slots of a ring: the longest record fits into it three times.
pub const MIN_SLOTS: usize = 64;
/// Most slots: 4 GiB.
const MAX_SLOTS: usize = 1 << 24;

pub(crate) const SLOT_WORDS: usize = 32;

/// The word that marks a ring of any version: the last of its file, before version 3 the first.
pub const MARK: u64 = u64::from_le_bytes(*b"TFshring");

// Words of the header. What many write, and what one writes, is on lines of its own (64 bytes are 8 words).
const MAGIC: usize = 0;
const LAYOUT: usize = 1;
const SLOTS: usize = 2;
const GENERATION: usize = 3;
const REPLACED: usize = 4;
const NAMESPACE: usize = 5;
pub(crate) const TABLE_SEQ: usize = 6;
pub(crate) const TABLE_LEN: usize = 7;
pub(crate) const HEAD: usize = 8;
const LOST: usize = 16;
const UNNAMED: usize = 17;
pub(crate) const TAIL: usize = 24;
const LOST_TOLD: usize = 25;
const UNNAMED_TOLD: usize = 26;
const READER: usize = 27;
const ASLEEP: usize = 32;
const EPOCH: usize = 40;
const CHANGES_BEGUN: usize = 41;
const CHANGES_ENDED: usize = 42;
pub(crate) const TABLE: usize = 48;
/// Words that are not in slots: pages of 4 KiB, of which the last is the header and what all programs need.
const REST: usize = 33_280;

/// Why a file is no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It is not as long as it says, or too short.
    Size,
    /// It is something else.
    Magic,
    /// Its layout is another version.
    Version(u64),
    /// Its positions are nonsense.
    Positions,
}

impl core::fmt::Display for Bad {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Bad::Size => write!(f, "it has not the length of a ring"),
            Bad::Magic => write!(f, "it is no ring"),
            Bad::Version(v) => write!(f, "its layout is version {v}, and this is version {VERSION}"),
            Bad::Positions => write!(f, "its positions are nonsense"),
        }
    }
}

/// Length of a file with so many slots, in bytes.
pub const fn bytes_for(slots: usize) -> usize {
    (slots * SLOT_WORDS + REST) * 8
}

/// How many slots a file of this length has; `None`: it cannot be a ring.
pub fn slots_in(bytes: usize) -> Option<usize> {
    let slots = bytes.checked_sub(bytes_for(0))? / SLOT_BYTES;
    let fits = bytes_for(slots) == bytes && slots.is_power_of_two();
    (fits && (MIN_SLOTS..=MAX_SLOTS).contains(&slots)).then_some(slots)
}

const BORDER_BITS: u32 = 32;
/// Of the word, so many bits count: a writer keeps it beside three of its own.
const EPOCH_BITS: u64 = (1 << 61) - 1;

/// Until when it holds what a writer remembers of its open files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Epoch(u64);

impl Epoch {
    /// As a number of 61 bits.
    pub fn number(self) -> u64 {
        self.0
    }

    /// The number of the session alone: what the reader knows of open files holds as long as this does not change.
    pub fn session(self) -> u64 {
        self.0 >> BORDER_BITS
    }

    /// What [`Epoch::number`] gave.
    pub fn of(number: u64) -> Epoch {
        Epoch(number & EPOCH_BITS)
    }
}

/// What went missing since the ring was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Records for which there was no room.
    pub lost: u64,
    /// Changes of which the path could not be found out.
    pub unnamed: u64,
}

/// A mapped ring. How large it is is known from the mapping, and never read from it again.
#[derive(Clone, Copy)]
pub struct Ring<'a> {
    words: &'a [AtomicU64],
    slots: usize,
}

/// The last [`END_BYTES`] of a ring, for a process that has no room to map the whole: it can say that it has changed something.
#[derive(Clone, Copy)]
pub struct End<'a>(Ring<'a>);

/// So long is the end of a ring that has its header.
pub const END_BYTES: usize = 4096;

impl<'a> End<'a> {
    /// Takes memory for the end of a ring if it is one.
    pub fn open(words: &'a [AtomicU64]) -> Option<End<'a>> {
        let end = End::again(words)?;
        let is_one = end.0.word(MAGIC).load(Acquire) == MARK && end.0.word(LAYOUT).load(Relaxed) == VERSION;
        is_one.then_some(end)
    }

    /// The same memory again.
    pub fn again(words: &'a [AtomicU64]) -> Option<End<'a>> {
        (words.len() * 8 >= END_BYTES).then_some(End(Ring { words, slots: 0 }))
    }

    /// Whether another ring has taken its place.
    pub fn is_replaced(&self) -> bool {
        self.0.is_replaced()
    }

    /// As [`Ring::add_unnamed`].
    pub fn add_unnamed(&self) -> bool {
        self.0.add_unnamed()
    }

    /// As [`Ring::sleeper`].
    pub fn sleeper(&self) -> &'a AtomicU64 {
        self.0.sleeper()
    }
}

impl<'a> Ring<'a> {
    /// Makes zeroed memory of [`bytes_for`] some slots a ring. `generation` tells it from others at the same path;
    /// `namespace` is that of the process numbers which the reader knows (inode of `/proc/self/ns/pid`).
    pub fn format(words: &'a [AtomicU64], generation: u64, namespace: u64) -> Result<Ring<'a>, Bad> {
        let slots = slots_in(words.len() * 8).ok_or(Bad::Size)?;
        let ring = Ring { words, slots };
        ring.word(LAYOUT).store(VERSION, Relaxed);
        ring.word(SLOTS).store(slots as u64, Relaxed);
        ring.word(GENERATION).store(generation, Relaxed);
        ring.word(NAMESPACE).store(namespace, Relaxed);
        // another one than those of rings that programs may have mapped before
        ring.word(EPOCH).store(generation.wrapping_mul(0x9e37_79b9_7f4a_7c15), Relaxed);
        ring.word(MAGIC).store(MARK, Release);
        Ok(ring)
    }

    /// Takes memory for a ring if it is one. It may be written to, as by [`Ring::touch`].
    pub fn open(words: &'a [AtomicU64]) -> Result<Ring<'a>, Bad> {
        let slots = slots_in(words.len() * 8).ok_or(Bad::Size)?;
        let ring = Ring { words, slots };
        ring.touch();
        if ring.word(MAGIC).load(Acquire) != MARK {
            // before version 3 the header came first
            return match words {
                [magic, version, ..] if magic.load(Relaxed) == MARK => {
                    Err(Bad::Version(version.load(Relaxed)))
                }
                _ => Err(Bad::Magic),
            };
        }
        match ring.word(LAYOUT).load(Relaxed) {
            VERSION => {}
            other => return Err(Bad::Version(other)),
        }
        if ring.word(SLOTS).load(Relaxed) != slots as u64 {
            return Err(Bad::Size);
        }
        Ok(ring)
    }

    /// The same memory again, which was a ring when it was mapped.
    pub fn again(words: &'a [AtomicU64]) -> Option<Ring<'a>> {
        Some(Ring { words, slots: slots_in(words.len() * 8)? })
    }

    /// Whether its positions make sense, for a reader that begins.
    pub fn check_positions(&self) -> Result<(), Bad> {
        let used = self.head().wrapping_sub(self.tail());
        if used <= self.slots as u64 { Ok(()) } else { Err(Bad::Positions) }
    }

    /// The memory.
    pub fn words(&self) -> &'a [AtomicU64] {
        self.words
    }

    /// How many slots it has.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// Sees to it that the header can be written: a page that is read first and then written is asked for twice.
    pub fn touch(&self) {
        self.word(MAGIC).fetch_or(0, Relaxed);
    }

    /// Who reads it, or was the last to: a number of its own, 0 before the first.
    pub fn reader(&self) -> u64 {
        self.word(READER).load(Relaxed)
    }

    /// A reader begins.
    pub fn set_reader(&self, number: u64) {
        self.word(READER).store(number, Relaxed);
    }

    /// What tells it from another one at the same path.
    pub fn generation(&self) -> u64 {
        self.word(GENERATION).load(Relaxed)
    }

    /// In which namespace the reader knows processes by number.
    pub fn namespace(&self) -> u64 {
        self.word(NAMESPACE).load(Relaxed)
    }

    /// Says in which namespace the reader knows processes by number.
    pub fn set_namespace(&self, inode: u64) {
        self.word(NAMESPACE).store(inode, Relaxed);
    }

    /// Whether another ring has taken its place.
    pub fn is_replaced(&self) -> bool {
        self.word(REPLACED).load(Relaxed) != 0
    }

    /// Says that another ring has taken its place.
    pub fn replace(&self) {
        self.word(REPLACED).store(1, Release);
    }

    /// What a writer remembers of its open files holds as long as this does not change.
    pub fn epoch(&self) -> Epoch {
        Epoch(self.word(EPOCH).load(SeqCst) & EPOCH_BITS)
    }

    /// The reader does not know any more which files are open, or directories are mirrored that were not: writers find
    /// out again, for each of their open files, where it is.
    pub fn begin_session(&self) {
        self.word(EPOCH).fetch_add(1 << BORDER_BITS, SeqCst);
    }

    /// Something that may be open has come from where nothing is mirrored to where something is.
    pub fn add_arrival(&self) {
        self.word(EPOCH).fetch_add(1, SeqCst);
    }

    /// A directory or a symlink is about to get, or lose, its place: what a path leads to may change.
    pub fn change_begins(&self) {
        self.word(CHANGES_BEGUN).fetch_add(1, SeqCst);
    }

    /// That was it, whether it succeeded or not.
    pub fn change_ends(&self) {
        self.word(CHANGES_ENDED).fetch_add(1, SeqCst);
    }

    /// How many such changes have begun.
    pub fn changes(&self) -> u64 {
        self.word(CHANGES_BEGUN).load(SeqCst)
    }

    /// The same if none is under way. What a path is found to lead to after this holds as long as
    /// [`Ring::changes`] says the same.
    pub fn settled_changes(&self) -> Option<u64> {
        let ended = self.word(CHANGES_ENDED).load(SeqCst);
        (self.changes() == ended).then_some(ended)
    }

    /// For the reader, from time to time: whoever has died in the midst of a change does not end it. `before` is what
    /// this returned when it was called last; if nothing has begun or ended since, all has.
    pub fn settle_changes(&self, before: (u64, u64)) -> (u64, u64) {
        let now = (self.changes(), self.word(CHANGES_ENDED).load(SeqCst));
        if now == before && now.0 != now.1 {
            // if somebody ends one at this moment, there is a next time
            let _ = self.word(CHANGES_ENDED).compare_exchange(now.1, now.0, SeqCst, Relaxed);
        }
        now
    }

    /// Counts a record for which there was no room. Returns whether the reader is to be woken.
    pub fn add_untold(&self) -> bool {
        self.add_lost();
        self.take_sleeper()
    }

    /// Position after the last that is reserved.
    pub fn head(&self) -> u64 {
        self.word(HEAD).load(Acquire)
    }

    /// Position up to which all has been handed over.
    pub fn tail(&self) -> u64 {
        self.word(TAIL).load(Acquire)
    }

    /// Everything before this position has been handed over: its slots may be used again.
    pub fn set_tail(&self, position: u64) {
        self.word(TAIL).store(position, Release);
    }

    /// What went missing.
    pub fn figures(&self) -> Figures {
        Figures { lost: self.word(LOST).load(Acquire), unnamed: self.word(UNNAMED).load(Acquire) }
    }

    /// What a reader has already said of what went missing.
    pub fn figures_told(&self) -> Figures {
        Figures { lost: self.word(LOST_TOLD).load(Relaxed), unnamed: self.word(UNNAMED_TOLD).load(Relaxed) }
    }

    /// Keeps what a reader has said of what went missing.
    pub fn set_figures_told(&self, told: Figures) {
        self.word(LOST_TOLD).store(told.lost, Relaxed);
        self.word(UNNAMED_TOLD).store(told.unnamed, Relaxed);
    }

    pub(crate) fn add_lost(&self) {
        self.word(LOST).fetch_add(1, AcqRel);
    }

    /// Counts a change of which the path could not be found out. Returns whether the reader is to be woken.
    pub fn add_unnamed(&self) -> bool {
        self.word(UNNAMED).fetch_add(1, AcqRel);
        self.take_sleeper()
    }

    /// The word on which the reader waits while it is 1, for futex(2): its low half, at the address of the whole.
    pub fn sleeper(&self) -> &'a AtomicU64 {
        self.word(ASLEEP)
    }

    /// The reader is about to sleep. What was published before this it has to look for once more; after this, whoever
    /// publishes wakes it.
    pub fn fall_asleep(&self) {
        self.word(ASLEEP).store(1, SeqCst);
        core::sync::atomic::fence(SeqCst);
    }

    /// The reader is awake: nobody needs to wake it.
    pub fn wake_up(&self) {
        self.word(ASLEEP).store(0, SeqCst);
    }

    /// Whether the reader sleeps, and the caller is the one who has to wake it.
    pub(crate) fn take_sleeper(&self) -> bool {
        core::sync::atomic::fence(SeqCst);
        self.word(ASLEEP).load(Relaxed) != 0 && self.word(ASLEEP).swap(0, SeqCst) != 0
    }

    /// A word of the header or of the table. Both are within every ring, as [`slots_in`] has seen to.
    pub(crate) fn word(&self, at: usize) -> &'a AtomicU64 {
        static NOWHERE: AtomicU64 = AtomicU64::new(0);
        self.words.len().checked_sub(1 + at).and_then(|at| self.words.get(at)).unwrap_or(&NOWHERE)
    }

    /// The words of the slot of a position.
    pub(crate) fn slot(&self, position: u64) -> &'a [AtomicU64] {
        let number = (position & (self.slots as u64 - 1)) as usize;
        let from = number * SLOT_WORDS;
        self.words.get(from..from + SLOT_WORDS).unwrap_or_default()
    }
}
