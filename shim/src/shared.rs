//! The ring of this process: mapped when it is first needed, and shared with what is forked from it.

use crate::apart::PAGE_BYTES;
use crate::tell::id_in;
use crate::{process, sys};
use core::ffi::{CStr, c_char};
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::*};
use treeferry_ring::{END_BYTES, End, Ring, bytes_for, slots_in};

/// Longest path of a ring, with its NUL.
const PATH_BYTES: usize = 256;
/// Between two looks at whether there is a(nother) ring, in the unit of [`sys::ticks`]: who makes a ring waits longer than
/// that before it takes for told what it hears.
const LOOK_AGAIN_TICKS: u64 = 50;
const VARIABLE: &[u8] = b"TREEFERRY_SHIM=";

/// What the environment said when the program began: it may write over that later.
#[unsafe(link_section = ".data.hot")]
static PATH: [AtomicU8; PATH_BYTES] = [const { AtomicU8::new(0) }; PATH_BYTES];
/// 0: nobody has looked; 1: no ring is named; 2: it is in `PATH`.
#[unsafe(link_section = ".data.hot")]
static NAMED: AtomicU8 = AtomicU8::new(0);
/// 0, or where the ring is mapped (a multiple of 4096) and the logarithm of its slots.
#[unsafe(link_section = ".data.hot")]
static MAPPED: AtomicUsize = AtomicUsize::new(0);
/// Which file that is ([`id_in`]).
#[unsafe(link_section = ".data.hot")]
static FILE: AtomicU64 = AtomicU64::new(0);
/// 0, or where the end of the ring is that has the name, while there is no room to map the whole.
#[unsafe(link_section = ".data.hot")]
static END: AtomicUsize = AtomicUsize::new(0);
/// Which file that is ([`id_in`]).
#[unsafe(link_section = ".data.hot")]
static END_FILE: AtomicU64 = AtomicU64::new(0);
/// Until when what was found then is believed, in the unit of [`sys::ticks`]; 0: nobody has looked and come to an end. Until
/// somebody has, each thread looks by itself: what it does meanwhile is to be told, too.
#[unsafe(link_section = ".data.hot")]
static BELIEVED: AtomicU64 = AtomicU64::new(0);

/// Whether the reader knows this process by another number. 0: nobody has looked; 1: no; 2: yes.
#[unsafe(link_section = ".data.hot")]
static FOREIGN: AtomicU8 = AtomicU8::new(0);

/// Whether this process has written to the header of the ring.
#[unsafe(link_section = ".data.hot")]
static TOUCHED: AtomicBool = AtomicBool::new(false);
/// Whether a process that is forked from this one may be in another namespace.
#[unsafe(link_section = ".data.hot")]
static RENUMBERED: AtomicBool = AtomicBool::new(false);

#[link(name = "c")]
unsafe extern "C" {
    static environ: *const *const c_char;
}

/// Takes the name of the ring from an environment.
///
/// # Safety
/// `at` is null, or a list of NUL-ended strings that ends with null.
pub(crate) unsafe fn name_from(mut at: *const *const c_char) {
    // SAFETY: as the caller vouches for.
    unsafe {
        while !at.is_null() && !(*at).is_null() {
            let text = CStr::from_ptr(*at).to_bytes();
            if let Some(path) = text.strip_prefix(VARIABLE)
                && path.first() == Some(&b'/')
                && path.len() < PATH_BYTES
            {
                PATH.iter().zip(path).for_each(|(to, b)| to.store(*b, Relaxed));
                NAMED.store(2, Release);
                return;
            }
            at = at.add(1);
        }
    }
    NAMED.store(1, Release);
}

/// Whether a ring is named at all.
#[inline]
pub(crate) fn is_named() -> bool {
    match NAMED.load(Acquire) {
        2 => true,
        1 => false,
        _ => {
            // something else that is loaded begins before this library does
            // SAFETY: the C library keeps it as such a list.
            unsafe { name_from(environ) };
            NAMED.load(Acquire) == 2
        }
    }
}

/// The ring, if there is one.
pub(crate) fn ring() -> Option<Ring<'static>> {
    if !is_named() {
        return None;
    }
    let now = sys::ticks();
    // before what was found: that is never older than what is believed of it
    // what is later than it can be comes of another clock: something else that is loaded may answer for the C library
    let believed = (1..=LOOK_AGAIN_TICKS).contains(&BELIEVED.load(Acquire).wrapping_sub(now));
    let mapped = MAPPED.load(Acquire);
    match ring_at(mapped) {
        Some(ring) if believed && !ring.is_replaced() => Some(ring),
        None if believed => None,
        _ => {
            let ring = look(mapped);
            BELIEVED.store(now + LOOK_AGAIN_TICKS, Release);
            ring
        }
    }
}

/// The ring, if this process has it.
#[inline]
pub(crate) fn mapped() -> Option<Ring<'static>> {
    ring_at(MAPPED.load(Acquire)).filter(|r| !r.is_replaced())
}

/// The number by which the reader knows this process; 0: by none.
pub(crate) fn process(ring: &Ring<'_>) -> u32 {
    if FOREIGN.load(Relaxed) == 0 {
        FOREIGN.store(1 + u8::from(sys::namespace() != ring.namespace()), Relaxed);
    }
    // after a fork it is another one, so it is not remembered
    if FOREIGN.load(Relaxed) == 1 { process::number() } else { 0 }
}

/// Whether it is known that the reader does not know this process by its number.
pub(crate) fn is_foreign() -> bool {
    FOREIGN.load(Relaxed) == 2
}

/// The reader knows this process by its number: that has been seen by other means.
pub(crate) fn is_known() {
    FOREIGN.store(1, Relaxed);
}

/// Whoever is forked from now on may have other numbers.
pub(crate) fn renumbered() {
    RENUMBERED.store(true, Relaxed);
}

/// This process has been forked.
pub(crate) fn forked() {
    sys::forked();
    TOUCHED.store(false, Relaxed);
    if RENUMBERED.load(Relaxed) {
        FOREIGN.store(0, Relaxed);
    }
}

fn ring_at(mapped: usize) -> Option<Ring<'static>> {
    if mapped == 0 {
        return None;
    }
    let words = bytes_for(1 << (mapped & 0xfff)) / 8;
    let at = (mapped & !0xfff) as *const AtomicU64;
    // SAFETY: it was mapped with this length, page-aligned, and is never unmapped. All access is by atomics.
    Ring::again(unsafe { core::slice::from_raw_parts(at, words) })
}

/// The ring, if this process has it, which is about to be written.
#[inline]
pub(crate) fn mapped_for_writing() -> Option<Ring<'static>> {
    let ring = mapped()?;
    if !TOUCHED.load(Relaxed) {
        ring.touch();
        TOUCHED.store(true, Relaxed);
    }
    Some(ring)
}

/// Maps the ring that has the name now. That which was mapped before stays: another thread may be writing into it.
#[cold]
fn look(mapped: usize) -> Option<Ring<'static>> {
    let mut path = [0_u8; PATH_BYTES];
    path.iter_mut().zip(&PATH).for_each(|(to, b)| *to = b.load(Relaxed));
    let path = CStr::from_bytes_until_nul(&path).ok()?;
    let known = ring_at(mapped).filter(|r| !r.is_replaced());
    let is_file = |s: &libc::stat| id_in(s) == FILE.load(Relaxed);
    if known.is_some() && sys::stat_at(libc::AT_FDCWD, path, 0).as_ref().is_ok_and(is_file) {
        return known;
    }
    let Some((now, file)) = map(path) else {
        return known;
    };
    match MAPPED.compare_exchange(mapped, now, AcqRel, Acquire) {
        Ok(_) => {
            FILE.store(file, Relaxed);
            ring_at(now)
        }
        Err(other) => {
            sys::unmap(now & !0xfff, bytes_for(1 << (now & 0xfff)));
            ring_at(other)
        }
    }
}

fn map(path: &CStr) -> Option<(usize, u64)> {
    let flags = libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NOCTTY | libc::O_NONBLOCK;
    let fd = sys::open_at(libc::AT_FDCWD, path, flags).ok()?;
    let mapped = map_open(fd);
    sys::close(fd);
    mapped
}

/// There is no room to map the whole, as under a low RLIMIT_AS; perhaps there is for its end.
#[cold]
#[inline(never)]
fn map_end(fd: core::ffi::c_int, bytes: usize, file: u64) {
    if END.load(Acquire) != 0 && END_FILE.load(Relaxed) == file {
        return;
    }
    let begins = bytes - END_BYTES;
    let from = begins & !(PAGE_BYTES - 1);
    let Ok(at) = sys::map(fd, from, bytes - from) else { return };
    let end = at + (begins - from);
    // SAFETY: it has just been mapped up to the end of the file.
    let words = unsafe { core::slice::from_raw_parts(end as *const AtomicU64, END_BYTES / 8) };
    if End::open(words).is_some() {
        END_FILE.store(file, Relaxed);
        END.store(end, Release);
    } else {
        sys::unmap(at, bytes - from);
    }
}

/// Something may have been changed. If there is no room to map the ring, that is said in its header: all that this process
/// changes is looked for.
#[inline]
pub(crate) fn changed() {
    if END.load(Relaxed) != 0 {
        missed();
    }
}

#[cold]
#[inline(never)]
fn missed() {
    let at = END.load(Acquire) as *const AtomicU64;
    if at.is_null() {
        return;
    }
    // SAFETY: it was mapped with this length, and is never unmapped. All access is by atomics.
    let end = End::again(unsafe { core::slice::from_raw_parts(at, END_BYTES / 8) });
    if let Some(end) = end.filter(|e| !e.is_replaced())
        && end.add_unnamed()
    {
        sys::wake(end.sleeper());
    }
}

fn map_open(fd: core::ffi::c_int) -> Option<(usize, u64)> {
    let s = sys::stat_of(fd).ok()?;
    let regular = s.st_mode & libc::S_IFMT == libc::S_IFREG;
    if !regular || (s.st_uid != 0 && s.st_uid != sys::user()) {
        return None;
    }
    let slots = slots_in(s.st_size as usize)?;
    let Ok(at) = sys::map(fd, 0, bytes_for(slots)) else {
        map_end(fd, bytes_for(slots), id_in(&s));
        return None;
    };
    let mapped = at | slots.trailing_zeros() as usize;
    // SAFETY: it has just been mapped with this length.
    let words = unsafe { core::slice::from_raw_parts(at as *const AtomicU64, bytes_for(slots) / 8) };
    if Ring::open(words).is_err() {
        sys::unmap(at, bytes_for(slots));
        return None;
    }
    END.store(0, Relaxed);
    TOUCHED.store(true, Relaxed);
    FOREIGN.store(0, Relaxed);
    Some((mapped, id_in(&s)))
}
