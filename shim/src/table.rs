//! What is known of the descriptors of this process, so that to close most of them costs no question.
//!
//! ```text
//!            opened to be read                      ┌── closed ──> Unknown
//! Unknown ───────────────────────────> Harmless ────┘
//!    │       opened for writing, not mirrored
//!    ├───────────────────────────────> Elsewhere (until something comes from there, or more is mirrored)
//!    │       opened for writing, and the reader knows
//!    └───────────────────────────────> Told (until the reader forgets)
//! ```
//!
//! A descriptor is forgotten before it is closed: as soon as the kernel has closed it, another thread may get its number.
//! What is not known is asked for, so whatever was opened, copied or closed by other ways is no more than slow; a number
//! that was closed by such a way and given out again by another is the one thing that could be mistaken.

use crate::apart::{self, Apart};
use crate::process;
use core::ffi::c_int;
use core::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering::*};
use treeferry_ring::Epoch;

/// Of more than that many descriptors nothing is remembered.
pub(crate) const DESCRIPTORS: usize = 4096;
const FEW: usize = 32;

const UNKNOWN: u64 = 0;
const HARMLESS: u64 = 1;
const ELSEWHERE: u64 = 2;
const TOLD: u64 = 3;
/// It was opened with `O_NOFOLLOW`, and the program has asked for that.
const ASKED_FOR: u64 = 4;
/// Those of the kind, and that one.
const LOW_BITS: u32 = 3;
const KIND: u64 = 3;

/// What is known of a descriptor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing.
    Unknown,
    /// Nothing can be written by it.
    Harmless,
    /// The file of this number is not mirrored, as long as the epoch stays.
    Elsewhere(Epoch, u64),
    /// The reader knows that this process has the file of this number open, as long as the session stays.
    Told(Epoch, u64),
}

pub(crate) struct Slot {
    /// Which file it is.
    id: AtomicU64,
    /// The epoch, and what is known.
    known: AtomicU64,
}

const fn unknown<const N: usize>() -> [Slot; N] {
    [const { Slot { id: AtomicU64::new(0), known: AtomicU64::new(UNKNOWN) } }; N]
}

/// The first descriptors are those that every process uses.
#[unsafe(link_section = ".data.hot")]
static FIRST: [Slot; FEW] = unknown();
/// The others.
pub(crate) struct Others([Slot; DESCRIPTORS - FEW]);

/// The highest descriptor that is asked for when a program ends; at least that.
#[unsafe(link_section = ".data.hot")]
static HIGHEST: AtomicI32 = AtomicI32::new(15);
/// Whether this process has told of a file that it has open; so what is forked from it may have that open too.
#[unsafe(link_section = ".data.hot")]
static HAS_OPEN: AtomicBool = AtomicBool::new(false);
/// How often a descriptor was told.
#[unsafe(link_section = ".data.hot")]
static TELLS: AtomicU32 = AtomicU32::new(0);
/// The process whose descriptors these are, while a child may be using this memory with descriptors of its own.
#[unsafe(link_section = ".data.hot")]
static OWNER: AtomicU32 = AtomicU32::new(0);

/// `apart`: where the others are.
fn slot(fd: c_int, apart: impl FnOnce() -> Option<&'static Apart>) -> Option<&'static Slot> {
    let number = usize::try_from(fd).ok()?;
    let other = |number: usize| if number < DESCRIPTORS { apart()?.others.0.get(number - FEW) } else { None };
    let slot = FIRST.get(number).or_else(|| other(number))?;
    is_owned().then_some(slot)
}

/// Whether this memory speaks of the descriptors of this process.
fn is_owned() -> bool {
    !process::is_shared() || OWNER.load(Relaxed) == process::number()
}

/// What is known of a descriptor.
#[inline]
pub(crate) fn get(fd: c_int) -> Known {
    slot(fd, apart::get).map_or(Known::Unknown, |s| read(s, s.known.load(Acquire)))
}

/// Forgets a descriptor: it is about to be closed. Returns what was known.
#[inline]
pub(crate) fn take(fd: c_int) -> Known {
    slot(fd, apart::get).map_or(Known::Unknown, |s| match s.known.load(Acquire) {
        UNKNOWN => Known::Unknown,
        _ => read(s, s.known.swap(UNKNOWN, AcqRel)),
    })
}

fn read(slot: &Slot, known: u64) -> Known {
    let epoch = Epoch::of(known >> LOW_BITS);
    match known & KIND {
        HARMLESS => Known::Harmless,
        ELSEWHERE => Known::Elsewhere(epoch, slot.id.load(Relaxed)),
        TOLD => Known::Told(epoch, slot.id.load(Relaxed)),
        _ => Known::Unknown,
    }
}

/// A descriptor was given out: nothing is known of it.
#[inline]
pub(crate) fn begin(fd: c_int) {
    if is_owned() {
        saw(fd);
        take(fd);
    }
}

/// Remembers what is known of a descriptor. Whether it was asked not to follow a symlink stays.
#[inline]
pub(crate) fn set(fd: c_int, what: Known) {
    if fd < 0 || !is_owned() {
        return;
    }
    // also if there is no room to remember what is known of it
    saw(fd);
    if fd >= DESCRIPTORS as c_int {
        return;
    }
    if matches!(what, Known::Told(..)) && !HAS_OPEN.load(Relaxed) {
        HAS_OPEN.store(true, Relaxed);
    }
    let apart = if what == Known::Unknown { apart::get } else { apart::made };
    let Some(slot) = slot(fd, apart) else { return };
    let known = match what {
        Known::Unknown => UNKNOWN,
        Known::Harmless => HARMLESS,
        Known::Elsewhere(epoch, id) => {
            slot.id.store(id, Relaxed);
            epoch.number() << LOW_BITS | ELSEWHERE
        }
        Known::Told(epoch, id) => {
            slot.id.store(id, Relaxed);
            epoch.number() << LOW_BITS | TOLD
        }
    };
    slot.known.store(known | slot.known.load(Relaxed) & ASKED_FOR, Release);
}

/// Remembers that a descriptor was opened with `O_NOFOLLOW`, and that the program has asked for that.
pub(crate) fn ask_for(fd: c_int) {
    if let Some(slot) = slot(fd, apart::made) {
        slot.known.fetch_or(ASKED_FOR, AcqRel);
    }
}

/// Whether that is so.
pub(crate) fn is_asked_for(fd: c_int) -> bool {
    slot(fd, apart::get).is_some_and(|s| s.known.load(Acquire) & ASKED_FOR != 0)
}

/// A descriptor has become a copy of another.
pub(crate) fn copy(old: c_int, new: c_int) {
    begin(new);
    set(new, get(old));
    if is_asked_for(old) {
        ask_for(new);
    }
}

/// There is such a descriptor.
#[inline]
pub(crate) fn saw(fd: c_int) {
    if fd > HIGHEST.load(Relaxed) {
        HIGHEST.fetch_max(fd, Relaxed);
    }
}

/// The highest descriptor that there may be.
pub(crate) fn highest() -> c_int {
    HIGHEST.load(Relaxed)
}

/// Whether there are, or were, descriptors of which nothing is remembered.
pub(crate) fn has_forgotten() -> bool {
    highest() >= DESCRIPTORS as c_int
}

/// Whether this process, or that from which it was forked, has told of open files.
pub(crate) fn has_open() -> bool {
    HAS_OPEN.load(Relaxed)
}

fn seen() -> impl Iterator<Item = &'static Slot> {
    FIRST
        .iter()
        .chain(apart::get().into_iter().flat_map(|a| &a.others.0))
        .take(usize::try_from(highest()).map_or(0, |n| n + 1))
}

/// A descriptor is remembered, and is about to be told.
pub(crate) fn tells() {
    TELLS.fetch_add(1, SeqCst);
}

/// How often that was so.
pub(crate) fn told() -> u32 {
    TELLS.load(SeqCst)
}

/// Another descriptor that has the same file, as far as is known.
pub(crate) fn another(id: u64) -> Option<c_int> {
    let has = |s: &Slot| matches!(read(s, s.known.load(Acquire)), Known::Told(_, other) if other == id);
    seen().position(has).map(|at| at as c_int)
}

/// Forgets all that the reader was told: it does not know this process.
pub(crate) fn forget_told() {
    for slot in seen() {
        if matches!(read(slot, slot.known.load(Acquire)), Known::Told(..)) {
            slot.known.fetch_and(ASKED_FOR, AcqRel);
        }
    }
}

/// A child that uses this memory is about to begin.
pub(crate) fn share() {
    if !process::is_shared() {
        OWNER.store(process::number(), Relaxed);
        process::share();
    }
}

/// This process has been forked, and has memory and descriptors of its own.
pub(crate) fn own() {
    if process::is_shared() {
        OWNER.store(process::number(), Relaxed);
    }
}
