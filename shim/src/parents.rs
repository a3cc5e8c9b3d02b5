//! Where directories are by the paths that this process uses: found out once, and believed for a while.
//!
//! What a path leads to changes when a directory or a symlink on it is renamed, made or replaced. Whoever loads this
//! library counts such changes in the ring, before and after ([`Ring::changes`]), so what was believed before is asked
//! again; the count is looked at after the file was opened. What others do is noticed after [`BELIEVED_TICKS`].
//!
//! A path that is no absolute one is looked for as what it is below the working directory, which this process may change
//! meanwhile; so that is counted, too ([`going`]).
//!
//! No lock: a slot that another thread, or the code that a signal has interrupted, writes just now is not used.

use crate::apart::{self, Apart};
use crate::path::Path;
use crate::sys;
use core::ffi::c_int;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::*, fence};
use treeferry_ring::{Ring, mixed, word_of};

/// How long something is believed, in the unit of [`sys::ticks`]: a tenth of a second.
const BELIEVED_TICKS: u64 = 100;
const SLOTS: usize = 16;
/// Longest path that is remembered.
const PATH_WORDS: usize = 28;

pub(crate) struct Slot {
    /// Odd: it is being written.
    seq: AtomicU64,
    changes: AtomicU64,
    until: AtomicU64,
    /// Lengths of the path that was used (low half) and of the real one (0: what is there is not mirrored).
    lengths: AtomicU64,
    used: [AtomicU64; PATH_WORDS],
    real: [AtomicU64; PATH_WORDS],
}

/// What is believed.
pub(crate) struct Cache([Slot; SLOTS]);

/// How often somebody wanted to remember something. A process that opens one file has no use for it.
#[unsafe(link_section = ".data.hot")]
static WANTED: AtomicU32 = AtomicU32::new(0);

/// What is believed of a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parent {
    /// It is not mirrored.
    Elsewhere,
    /// It is mirrored, and its real path was handed out.
    Here,
}

/// How often this process has begun to go to another directory, and has gone.
#[unsafe(link_section = ".data.hot")]
static LEFT: AtomicU64 = AtomicU64::new(0);
#[unsafe(link_section = ".data.hot")]
static ARRIVED: AtomicU64 = AtomicU64::new(0);

/// Does something after which the working directory may be another.
pub(crate) fn going<R>(real: impl FnOnce() -> R) -> R {
    LEFT.fetch_add(1, SeqCst);
    let result = real();
    ARRIVED.fetch_add(1, SeqCst);
    result
}

/// How often the working directory was changed, if nobody is about to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stay(u64);

pub(crate) fn stay() -> Option<Stay> {
    let arrived = ARRIVED.load(SeqCst);
    (LEFT.load(SeqCst) == arrived).then_some(Stay(arrived))
}

/// Directory and name of a path as it was used, the directory as an absolute path. `since`: what [`stay`] said before it
/// was used. `None`: that cannot be said, or it ends in what is no name.
pub(crate) fn used<'a>(
    dir: c_int,
    path: &'a [u8],
    since: Option<Stay>,
    room: &'a mut Path,
) -> Option<(&'a [u8], &'a [u8])> {
    if path.first() == Some(&b'/') {
        return split(path);
    }
    let since = since.filter(|_| dir == libc::AT_FDCWD)?;
    let (parent, name) = match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (path.get(..at)?, path.get(at + 1..)?),
        None => (&b""[..], path),
    };
    if matches!(name, b"" | b"." | b"..") || !room.begin_at_working_directory() {
        return None;
    }
    if !parent.is_empty() {
        room.push(parent);
    }
    let is_whole = !room.is_cut() && LEFT.load(SeqCst) == since.0;
    is_whole.then_some((room.as_bytes(), name))
}

/// Directory and name of an absolute path; `None`: it is none, or ends in what is no name.
pub(crate) fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = path.iter().rposition(|b| *b == b'/')?;
    let (parent, name) = (path.get(..at)?, path.get(at + 1..)?);
    let is_name = !matches!(name, b"" | b"." | b"..");
    (path.first() == Some(&b'/') && is_name).then_some((parent, name))
}

/// `apart`: where the slots are.
fn slot(path: &[u8], apart: impl FnOnce() -> Option<&'static Apart>) -> Option<&'static Slot> {
    if path.len() > PATH_WORDS * 8 {
        return None;
    }
    let sum = path.chunks(8).fold(path.len() as u64, |sum, part| mixed(sum, word_of(part)));
    apart()?.cache.0.get(sum as usize % SLOTS)
}

/// What is believed of the directory of this path, and its real path.
pub(crate) fn look(ring: &Ring<'_>, used: &[u8], real: &mut Path) -> Option<Parent> {
    if WANTED.load(Relaxed) < 2 {
        return None;
    }
    let slot = slot(used, apart::get)?;
    let seq = slot.seq.load(Acquire);
    if seq & 1 != 0 || slot.lengths.load(Relaxed) as u32 as usize != used.len() {
        return None;
    }
    let same = used.chunks(8).zip(&slot.used).all(|(part, word)| word.load(Relaxed) == word_of(part));
    // what is later than it can be comes of another clock
    let left = slot.until.load(Relaxed).wrapping_sub(sys::ticks());
    if !same || slot.changes.load(Relaxed) != ring.changes() || left > BELIEVED_TICKS {
        return None;
    }
    let length = (slot.lengths.load(Relaxed) >> 32) as usize;
    real.set_words(slot.real.iter().map(|word| word.load(Relaxed)), length);
    fence(Acquire);
    if slot.seq.load(Relaxed) != seq {
        return None;
    }
    Some(if length == 0 { Parent::Elsewhere } else { Parent::Here })
}

/// Remembers where the directory of a path is. `changes` is what [`Ring::settled_changes`] said before that was found
/// out; `real` is empty if it is not mirrored.
pub(crate) fn remember(changes: Option<u64>, used: &[u8], real: &[u8]) {
    let Some(changes) = changes else { return };
    if WANTED.load(Relaxed) < 2 && WANTED.fetch_add(1, Relaxed) == 0 {
        return;
    }
    if real.len() > PATH_WORDS * 8 {
        return;
    }
    let Some(slot) = slot(used, apart::made) else { return };
    let seq = slot.seq.load(Relaxed);
    if seq & 1 != 0 || slot.seq.compare_exchange(seq, seq + 1, Acquire, Relaxed).is_err() {
        return;
    }
    fence(Release);
    let write = |words: &[AtomicU64], bytes: &[u8]| {
        words.iter().zip(bytes.chunks(8)).for_each(|(word, part)| word.store(word_of(part), Relaxed));
    };
    write(&slot.used, used);
    write(&slot.real, real);
    slot.lengths.store((real.len() as u64) << 32 | used.len() as u64, Relaxed);
    slot.changes.store(changes, Relaxed);
    slot.until.store(sys::ticks() + BELIEVED_TICKS, Relaxed);
    slot.seq.store(seq + 2, Release);
}
