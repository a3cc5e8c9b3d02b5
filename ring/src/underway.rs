//! What writers are at: between a change and the record of it a writer may be killed, or made to wait. So before it begins
//! it leaves a mark, and takes it back when it has told.

use crate::layout::Ring;
use crate::mixed;
use crate::table::UNDERWAY;
use core::sync::atomic::Ordering::*;

/// So many changes may be under way at once; what is more leaves no mark.
pub(crate) const UNDERWAY_WORDS: usize = 128;
/// So many places are tried.
const TRIES: u64 = 8;

/// A change that is under way: its place and what is written there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    place: usize,
    word: u64,
}

impl Mark {
    /// The process.
    pub fn pid(self) -> u32 {
        (self.word >> 32) as u32
    }
}

impl Ring<'_> {
    /// A process begins to change something. `number` tells what it does from what it did before.
    pub fn begins(&self, pid: u32, number: u32) -> Option<Mark> {
        if pid == 0 {
            return None;
        }
        let word = u64::from(pid) << 32 | u64::from(number) | 1;
        let first = mixed(word, 0);
        (0..TRIES).map(|n| first.wrapping_add(n) as usize % UNDERWAY_WORDS).find_map(|place| {
            let at = self.word(UNDERWAY + place);
            let is_free = at.load(Relaxed) == 0 && at.compare_exchange(0, word, SeqCst, Relaxed).is_ok();
            is_free.then_some(Mark { place, word })
        })
    }

    /// It has told of it, or there is nothing to tell.
    pub fn ends(&self, mark: Mark) {
        // whoever took it for dead has taken the place
        let _ = self.word(UNDERWAY + mark.place).compare_exchange(mark.word, 0, SeqCst, Relaxed);
    }

    /// What is under way.
    pub fn under_way(&self) -> impl Iterator<Item = Mark> + use<'_> {
        (0..UNDERWAY_WORDS).filter_map(|place| {
            let word = self.word(UNDERWAY + place).load(SeqCst);
            (word != 0).then_some(Mark { place, word })
        })
    }

    /// Whether that is still under way.
    pub fn is_under_way(&self, mark: Mark) -> bool {
        self.word(UNDERWAY + mark.place).load(SeqCst) == mark.word
    }

    /// Its process is gone: a change may have gone untold, and that is counted for all readers.
    pub fn is_dead(&self, mark: Mark) {
        self.add_unnamed();
        self.ends(mark);
    }
}
