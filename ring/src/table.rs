//! Which directories are mirrored. The reader changes the table while writers look at it: a sequence lock, in which a
//! writer never waits; what it cannot see unchanged it takes for mirrored.

use crate::handed::HANDED_WORDS;
use crate::layout::{Ring, TABLE, TABLE_LEN, TABLE_SEQ};
use crate::underway::UNDERWAY_WORDS;
use core::sync::atomic::{Ordering::*, fence};

/// Most directories.
pub const MAX_ROOTS: usize = 64;
/// Words of a path in the table: PATH_MAX.
const PATH_WORDS: usize = 512;
const DEVICES: usize = TABLE;
const LENGTHS: usize = DEVICES + MAX_ROOTS;
/// What programs hand to each other is on the same page as what all need, so that few pages are touched.
pub(crate) const HANDED: usize = LENGTHS + MAX_ROOTS;
pub(crate) const UNDERWAY: usize = HANDED + HANDED_WORDS;
const PATHS: usize = UNDERWAY + UNDERWAY_WORDS;
/// How often a writer looks again at a table that changes. The reader is at it for a few microseconds.
const PATIENCE: usize = 200;

/// A directory that is mirrored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root<'a> {
    /// Its real path.
    pub path: &'a [u8],
    /// The device of everything below it (`st_dev`); 0: not all is on one device.
    pub device: u64,
}

impl Ring<'_> {
    /// Says which directories are mirrored. Paths that are too long, and more than [`MAX_ROOTS`], are refused: `false`.
    pub fn set_roots<'r>(&self, roots: impl ExactSizeIterator<Item = Root<'r>> + Clone) -> bool {
        if roots.len() > MAX_ROOTS || roots.clone().any(|r| r.path.len() >= PATH_WORDS * 8) {
            return false;
        }
        // also after a reader that died in the midst of this
        let seq = self.word(TABLE_SEQ).load(Relaxed) | 1;
        self.word(TABLE_SEQ).store(seq, SeqCst);
        fence(SeqCst);
        self.word(TABLE_LEN).store(roots.len() as u64, Relaxed);
        for (n, root) in roots.enumerate() {
            self.word(DEVICES + n).store(root.device, Relaxed);
            self.word(LENGTHS + n).store(root.path.len() as u64, Relaxed);
            for (i, part) in root.path.chunks(8).enumerate() {
                self.word(PATHS + n * PATH_WORDS + i).store(word_of(part), Relaxed);
            }
        }
        self.word(TABLE_SEQ).store(seq.wrapping_add(1), SeqCst);
        true
    }

    /// Hands out the directories, for a reader that begins: no other changes them then. What is no path is left out.
    pub fn each_root(&self, each: &mut dyn FnMut(Root<'_>)) {
        if self.word(TABLE_SEQ).load(Acquire) & 1 != 0 {
            // of a reader that died in the midst of it
            return;
        }
        let mut path = [0_u8; PATH_WORDS * 8];
        for n in 0..self.roots() {
            let words = path.chunks_exact_mut(8).enumerate();
            words.for_each(|(i, part)| {
                part.copy_from_slice(&self.word(PATHS + n * PATH_WORDS + i).load(Relaxed).to_le_bytes());
            });
            let length = self.word(LENGTHS + n).load(Relaxed) as usize;
            let path = path.get(..length).filter(|p| p.first() == Some(&b'/') && !p.contains(&0));
            if let Some(path) = path {
                each(Root { path, device: self.word(DEVICES + n).load(Relaxed) });
            }
        }
    }

    /// Whether something on this device may be below one of the directories.
    pub fn may_hold(&self, device: u64) -> bool {
        self.looked(|| {
            (0..self.roots()).any(|n| {
                let of = self.word(DEVICES + n).load(Relaxed);
                of == 0 || of == device
            })
        })
    }

    /// Whether a path is one of the directories, or below one.
    pub fn holds(&self, path: &[u8]) -> bool {
        self.looked(|| (0..self.roots()).any(|n| self.is_below(n, path)))
    }

    fn roots(&self) -> usize {
        (self.word(TABLE_LEN).load(Relaxed) as usize).min(MAX_ROOTS)
    }

    fn is_below(&self, n: usize, path: &[u8]) -> bool {
        let length = self.word(LENGTHS + n).load(Relaxed) as usize;
        if length == 0 || length > PATH_WORDS * 8 {
            return false;
        }
        let Some((start, rest)) = path.split_at_checked(length) else { return false };
        // everything is below "/"
        let whole = length == 1 || rest.is_empty() || rest.first() == Some(&b'/');
        whole
            && start
                .chunks(8)
                .enumerate()
                .all(|(i, part)| self.word(PATHS + n * PATH_WORDS + i).load(Relaxed) == word_of(part))
    }

    fn looked(&self, look: impl Fn() -> bool) -> bool {
        for _ in 0..PATIENCE {
            let seq = self.word(TABLE_SEQ).load(Acquire);
            if seq & 1 == 0 {
                let seen = look();
                fence(Acquire);
                if self.word(TABLE_SEQ).load(Relaxed) == seq {
                    return seen;
                }
            }
            core::hint::spin_loop();
        }
        true
    }
}

/// Up to eight bytes as a word, filled up with zeros.
pub fn word_of(part: &[u8]) -> u64 {
    match part.try_into() {
        Ok(whole) => u64::from_le_bytes(whole),
        Err(_) => part.iter().rev().fold(0, |w, b| w << 8 | u64::from(*b)),
    }
}
