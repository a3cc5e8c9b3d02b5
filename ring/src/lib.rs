//! The shared memory through which programs tell of what they change: many writers, one reader, no waiting.
//!
//! A file is mapped by the preloaded library in every process, and by the detector that reads it. It holds a header,
//! the table of directories that are mirrored, and a ring of slots. A [`Record`] says that something happened to a
//! path; it takes one slot, or several that follow each other.
//!
//! ```text
//!            tail: the reader has handed over all before                 head: the next to be reserved
//!             │                                                            │
//!  ── free ───┼── published ── published ── reserved ── published ─────────┼── free ──
//! ```
//!
//! A position counts slots since the ring was made, and never comes again. A writer takes positions by moving `head`,
//! fills their slots, and publishes by storing position + 1 into the first word of the first of them. It takes no lock
//! and never waits: without room it adds to a count of what was lost. What a slot held in the lap before has another
//! number, so the reader has nothing to clear; and a writer that was stopped so long that its slots were given to
//! another spoils a checksum.
//!
//! Whoever may write into the file may write nonsense. The reader takes nothing for granted: all sizes are those that
//! it has checked when it began, each step of [`Cursor::next`] goes forward or ends, and what is no record is
//! [`Next::Skipped`].
//!
//! Everything is in words of 64 bits, read and written as atomics, so that this crate needs no `unsafe`. What is told
//! apart by halves of a word is so by value, not by address: the layout is that of little-endian machines.

#![no_std]
#![forbid(unsafe_code)]

mod cursor;
mod handed;
mod layout;
mod table;
#[cfg(test)]
mod tests;
mod underway;
mod write;

pub use cursor::{Buffer, Cursor, Next};
pub use handed::Handed;
pub use layout::{
    Bad, END_BYTES, End, Epoch, Figures, MARK, MIN_SLOTS, Ring, SLOT_BYTES, VERSION, bytes_for, slots_in,
};
pub use table::{MAX_ROOTS, Root, word_of};
pub use underway::Mark;
pub use write::Pushed;

/// Longest path of a record, in bytes: what is longer is told as its nearest ancestor that fits ([`Record::cut`]).
pub const MAX_PATH_BYTES: usize = 1024;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The process has the file open for writing. When the process is gone the file is [`Kind::Closed`].
    Open = 1,
    /// The process has closed a file that was open for writing.
    Closed = 2,
    /// The process becomes another program, in which the file is not open any more.
    Left = 3,
    /// A name was made or removed, or a file changed, and not by way of an open descriptor.
    Changed = 4,
    /// Metadata changed.
    Attributes = 5,
    /// A directory was made or removed.
    Tree = 6,
    /// Something that is no directory was renamed: from [`Record::other`] to [`Record::path`].
    Moved = 7,
    /// A directory was renamed, in the same way.
    MovedDir = 8,
    /// The process was forked: it has open what the process has whose number is in [`Record::id`].
    Forked = 9,
}

impl Kind {
    fn of(number: u8) -> Option<Kind> {
        use Kind::*;
        [Open, Closed, Left, Changed, Attributes, Tree, Moved, MovedDir, Forked]
            .into_iter()
            .find(|k| *k as u8 == number)
    }
}

/// Something that happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// What.
    pub kind: Kind,
    /// `path` (or `other`) is too long and is an ancestor of what is meant.
    pub cut: bool,
    /// Who did it; 0: somebody whose number means nothing to the reader.
    pub pid: u32,
    /// Which file it is ([`id_of`]); 0: not known.
    pub id: u64,
    /// An absolute path without symlinks; any byte but NUL. Empty: that under which the reader knows the file.
    pub path: &'a [u8],
    /// The name before, of a rename; else empty.
    pub other: &'a [u8],
}

/// Tells a file from all others: a number made of those of its device and its inode, and never 0.
pub fn id_of(device: u64, inode: u64) -> u64 {
    mixed(mixed(0x9e37_79b9_7f4a_7c15, device), inode) | 1
}

/// A sum with another word, for tables and checks: quick, and no more than that.
pub fn mixed(sum: u64, word: u64) -> u64 {
    let product = (sum ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd);
    product ^ product >> 32
}
