//! The number of this process, remembered by those that need it often.
//!
//! It changes by a fork, and a fork need not be one that this library sees. So it is kept in memory that the kernel clears
//! in whatever is forked (`MADV_WIPEONFORK`, madvise(2), since Linux 4.14). A child that shares its memory with this
//! process has that number too: as long as there may be one, it is asked for.

use crate::apart::{self, Apart, PAGE_BYTES};
use crate::sys;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};

/// After so many questions it is remembered: to set that up costs more than to ask a few times.
const QUESTIONS: u32 = 32;
#[unsafe(link_section = ".data.hot")]
static ASKED: AtomicU32 = AtomicU32::new(0);
/// Whether a child may be using this memory: between vfork(2) and exec(2).
#[unsafe(link_section = ".data.hot")]
static IS_SHARED: AtomicBool = AtomicBool::new(false);

/// The number of this process.
#[inline]
pub(crate) fn number() -> u32 {
    if ASKED.load(Relaxed) <= QUESTIONS || is_shared() {
        ASKED.fetch_add(1, Relaxed);
        return sys::process();
    }
    match apart::get().map_or(0, |a| page(a).load(Relaxed)) {
        0 => ask(),
        number => number as u32,
    }
}

/// Where it is remembered.
fn page(apart: &Apart) -> &AtomicU64 {
    let [first, ..] = &apart.page;
    first
}

/// Also after a fork: then the page is cleared, and will be again.
#[cold]
fn ask() -> u32 {
    let number = sys::process();
    if let Some(apart) = apart::made()
        && sys::wipe_on_fork(&raw const apart.page as usize, PAGE_BYTES)
    {
        page(apart).store(u64::from(number), Relaxed);
    }
    number
}

/// A child that uses this memory is about to begin.
pub(crate) fn share() {
    IS_SHARED.store(true, Release);
}

/// Whether a child may be using this memory.
#[inline]
pub(crate) fn is_shared() -> bool {
    IS_SHARED.load(Relaxed)
}
