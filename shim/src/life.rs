//! A process begins, is forked, becomes another program, ends: what is known of its open files goes along, or is told.

use crate::descriptors::{find, held, written, written_by};
use crate::table::{self, DESCRIPTORS, Known};
use crate::tell::{Saying, id_in, put, put_forked, put_known};
use crate::{ends, files, process, shared, sys};
use core::ffi::c_int;
use treeferry_ring::{Handed, Kind};

/// A program that begins is asked for its descriptors until so many numbers in a row are none: to ask for one costs a few
/// hundredths of a microsecond.
const GAP: u32 = 24;
/// What is known of so many descriptors is handed on to the program that comes next.
const HANDED_ON: c_int = 16;

/// Descriptors of a program that begins: whoever has started it has opened them, perhaps without this library, or has told
/// of them before it became this program.
pub(crate) fn begun() {
    let mut ring = None;
    let mut gap = 0;
    for fd in 0..DESCRIPTORS as c_int {
        let Ok(flags) = sys::flags_of(fd, libc::F_GETFL) else {
            gap += 1;
            if gap == GAP {
                break;
            }
            continue;
        };
        gap = 0;
        table::saw(fd);
        let Some(s) = written_by(fd, flags) else {
            if fd < 3 {
                table::set(fd, Known::Harmless);
            }
            continue;
        };
        ring = ring.or_else(shared::ring);
        let Some(ring) = ring else { continue };
        let (epoch, id) = (ring.epoch(), id_in(&s));
        if !ring.may_hold(s.st_dev) {
            table::set(fd, Known::Elsewhere(epoch, id));
            continue;
        }
        match ring.handed_over(process::number(), id) {
            Some(Handed::Told) => {
                // whoever has told has a number that the reader knows, and that is ours
                shared::is_known();
                table::set(fd, Known::Told(epoch, id));
            }
            Some(Handed::Elsewhere) => table::set(fd, Known::Elsewhere(epoch, id)),
            None => find(&ring, fd, epoch, &s),
        }
    }
}

/// This process is about to become another program: tells which files are not open then, and hands on what is known of
/// the others.
pub(crate) fn becoming_another() {
    if !shared::is_named() {
        return;
    }
    each(0, c_int::MAX, &mut |fd| {
        held_or_asked(fd);
        let (session, id, what) = match table::get(fd) {
            Known::Told(epoch, id) => (epoch.session(), id, Handed::Told),
            Known::Elsewhere(epoch, id) if fd < HANDED_ON => (epoch.session(), id, Handed::Elsewhere),
            _ => return,
        };
        let Some(ring) = shared::ring().filter(|r| r.epoch().session() == session) else { return };
        let goes = || sys::flags_of(fd, libc::F_GETFD).is_ok_and(|f| f & libc::FD_CLOEXEC != 0);
        if what == Handed::Told && goes() {
            put_known(&ring, Kind::Left, id);
        } else if fd < HANDED_ON {
            ring.hand_over(shared::process(&ring), id, what);
        }
    });
}

/// Each descriptor from one to another that may be open. Those of which nothing can be remembered may be few of a million;
/// if there are any, `/proc/self/fd` is listed.
pub(crate) fn each(first: c_int, last: c_int, does: &mut dyn FnMut(c_int)) {
    const LISTED: c_int = DESCRIPTORS as c_int;
    let last = last.min(table::highest());
    (first..=last.min(LISTED - 1)).for_each(&mut *does);
    let first = first.max(LISTED);
    if first <= last
        && !sys::each_descriptor(&mut |fd| {
            if (first..=last).contains(&fd) {
                does(fd)
            }
        })
    {
        (first..=last).for_each(does);
    }
}

/// Sees to it that the reader knows of a descriptor what there is to know.
fn held_or_asked(fd: c_int) {
    match table::get(fd) {
        Known::Harmless => {}
        // most processes never need the ring
        Known::Unknown if written(fd).is_none() => {}
        _ => held(fd),
    }
}

/// This process ends, or a file has got a name, by whichever descriptor it is open: tells of the files that it has open, and that
/// nobody knows of. The reader sees it go.
///
/// Asking for each number whether it is open costs a microsecond or two; to list `/proc/self/fd` costs a process that
/// lives for a millisecond a tenth of its life. So what is above all that was seen, and was not opened under this
/// library, is not found.
#[inline(never)]
pub(crate) fn ending() {
    if shared::is_named() {
        each(0, c_int::MAX, &mut held_or_asked);
    }
}

/// Files were written, and stay open.
pub(crate) fn flushed() {
    if !shared::is_named() {
        return;
    }
    each(0, c_int::MAX, &mut |fd| {
        held_or_asked(fd);
        if let (Known::Told(_, id), Some(ring)) = (table::get(fd), shared::ring()) {
            put_known(&ring, Kind::Changed, id);
        }
    });
}

/// Forks. `is_child` says of the result whether this is the child.
pub(crate) fn forking(real: impl FnOnce() -> c_int, is_child: impl FnOnce(c_int) -> bool) -> c_int {
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
    #[unsafe(link_section = ".data.hot")]
    static FORKS: AtomicU32 = AtomicU32::new(0);
    // one that does so again and again finds out once what each of its children would. (Not counted any further: what is
    // written between two forks costs a page that is copied.)
    if FORKS.load(Relaxed) < 2 && FORKS.fetch_add(1, Relaxed) == 1 {
        prepare();
        if let Some(ring) = shared::ring() {
            shared::process(&ring);
        }
    }
    if !shared::is_named() {
        return real();
    }
    // it may be gone before the child asks for it
    let parent = if table::has_open() { process::number() } else { 0 };
    let result = real();
    if is_child(result) {
        forked(parent);
    } else if let (1.., true, Some(ring)) = (result, parent != 0, shared::ring()) {
        // before this thread closes what the child has open too: the child may say so later
        put_forked(&ring, result as u32, parent);
    }
    result
}

/// Looks up what a shell uses in each of its children. No more: to look for what the C library does not have leaves an error
/// for dlerror(3).
#[cold]
fn prepare() {
    macro_rules! look_up {
        ($($file:ident :: $name:ident)*) => { $($file::$name::NEXT.look_up($file::$name::NAME);)* };
    }
    look_up! {
        files::open files::open64 files::openat files::close files::dup2 files::fcntl files::fclose files::fopen
        ends::execve ends::_exit
    }
}

/// This process has been forked; from whom is 0 if that had no files open.
fn forked(parent: u32) {
    table::own();
    shared::forked();
    if !table::has_open() {
        return;
    }
    let told = shared::ring().is_some_and(|ring| {
        parent != 0
            && put(&ring, &Saying { kind: Kind::Forked, id: u64::from(parent), path: None, other: None })
    });
    if !told {
        // the reader does not know this process, nor from which it was forked
        table::forget_told();
        ending();
    }
}
