//! What is told of a call: the cheapest test comes first, and most calls end there.

use crate::life::ending;
use crate::path::{self, Path, Where};
use crate::table::{self, Known};
use crate::{shared, sys};
use core::ffi::{CStr, c_char, c_int};
use treeferry_ring::{Epoch, Kind, Mark, Record, Ring, id_of};

/// A path of the program's, if it gave one.
///
/// # Safety
/// `path` is null, or a NUL-ended string that stays through `'a`.
pub(crate) unsafe fn given<'a>(path: *const c_char) -> &'a CStr {
    // SAFETY: as the caller vouches for; the call that was made with it has looked at it too.
    if path.is_null() { c"" } else { unsafe { CStr::from_ptr(path) } }
}

/// What is told, but who tells it.
pub(crate) struct Saying<'a> {
    pub(crate) kind: Kind,
    pub(crate) id: u64,
    pub(crate) path: Option<&'a Path>,
    pub(crate) other: Option<&'a Path>,
}

/// Tells; whether the reader will hear it, and know this process by its number.
pub(crate) fn put(ring: &Ring<'_>, what: &Saying<'_>) -> bool {
    put_of(ring, shared::process(ring), what)
}

/// Tells for a child of this process that it has been forked.
pub(crate) fn put_forked(ring: &Ring<'_>, child: u32, parent: u32) {
    // a number of ours means nothing to the reader where it does not know this process by its own
    if shared::process(ring) != 0 {
        put_of(ring, child, &Saying { kind: Kind::Forked, id: u64::from(parent), path: None, other: None });
    }
}

fn put_of(ring: &Ring<'_>, process: u32, what: &Saying<'_>) -> bool {
    let cut = [what.path, what.other].into_iter().flatten().any(Path::is_cut);
    let record = Record {
        kind: what.kind,
        cut,
        pid: process,
        id: what.id,
        path: what.path.map_or(&b""[..], Path::as_bytes),
        other: what.other.map_or(&b""[..], Path::as_bytes),
    };
    let pushed = ring.push(&record);
    if pushed.wake {
        sys::wake(ring.sleeper());
    }
    pushed.told && record.pid != 0
}

/// Tells something of a file that the reader knows by its number.
pub(crate) fn put_known(ring: &Ring<'_>, kind: Kind, id: u64) {
    put(ring, &Saying { kind, id, path: None, other: None });
}

/// Tells something of a path. Whether the reader will hear it, and know this process.
pub(crate) fn say(ring: &Ring<'_>, kind: Kind, id: u64, at: Where, path: &Path) -> bool {
    match at {
        Where::Here => put(ring, &Saying { kind, id, path: Some(path), other: None }),
        Where::Unknown => {
            unnamed(ring);
            false
        }
        Where::Elsewhere => false,
    }
}

pub(crate) fn unnamed(ring: &Ring<'_>) {
    if ring.add_unnamed() {
        sys::wake(ring.sleeper());
    }
}

/// Says that the reader has to hear of a file that is open for writing, and remembers what it knows then.
pub(crate) fn remember(ring: &Ring<'_>, fd: c_int, epoch: Epoch, id: u64, at: Where, path: &Path) {
    let known = match at {
        Where::Here => {
            // before it is told: another thread that closes the same file then sees that this one is open
            if !shared::is_foreign() {
                table::set(fd, Known::Told(epoch, id));
                table::tells();
            }
            if say(ring, Kind::Open, id, at, path) {
                return;
            }
            Known::Unknown
        }
        Where::Elsewhere => Known::Elsewhere(epoch, id),
        Where::Unknown => {
            unnamed(ring);
            Known::Unknown
        }
    };
    table::set(fd, known);
}

pub(crate) fn is_regular(s: &libc::stat) -> bool {
    s.st_mode & libc::S_IFMT == libc::S_IFREG
}

pub(crate) fn id_in(s: &libc::stat) -> u64 {
    id_of(s.st_dev, s.st_ino)
}

/// Something was done to a name, or made under it.
pub(crate) fn name(kind: Kind, dir: c_int, path: *const c_char) {
    if let Some(ring) = shared::ring() {
        let mut at = Path::new();
        // SAFETY: a call has just succeeded with it.
        let found = path::of_name(&ring, dir, unsafe { given(path) }, &mut at);
        say(&ring, kind, 0, found, &at);
    }
}

/// Something was done to what a path leads to; no path, or an empty one: to `dir` itself.
pub(crate) fn existing(kind: Kind, dir: c_int, path: *const c_char, follow: bool) {
    let Some(ring) = shared::ring() else { return };
    // SAFETY: a call has just succeeded with it.
    let path = unsafe { given(path) };
    let mut at = Path::new();
    let found = match (path.is_empty(), dir) {
        (true, libc::AT_FDCWD) => path::of_existing(&ring, dir, c".", true, &mut at),
        (true, _) => path::of_open(&ring, dir, &mut at),
        (false, _) => path::of_existing(&ring, dir, path, follow, &mut at),
    };
    say(&ring, kind, 0, found, &at);
}

/// Something was done to an open file or directory.
pub(crate) fn open(kind: Kind, fd: c_int) {
    if let Some(ring) = shared::ring() {
        let mut path = Path::new();
        let at = path::of_open(&ring, fd, &mut path);
        say(&ring, kind, 0, at, &path);
    }
}

/// Takes a name away. Where it is has to be known before: the path may lead through what goes.
#[inline(never)]
pub(crate) fn removing(kind: Kind, dir: c_int, path: *const c_char, real: &dyn Fn() -> c_int) -> c_int {
    let Some(ring) = shared::ring() else { return real() };
    if !sys::is_path(dir, path) {
        return real();
    }
    let mut at = Path::new();
    // SAFETY: the kernel has just read it.
    let found = path::of_name(&ring, dir, unsafe { given(path) }, &mut at);
    let result = real();
    if result == 0 {
        say(&ring, kind, 0, found, &at);
    }
    result
}

/// Does something that is told when it is done: the reader sees meanwhile that it is under way, and what has become of this
/// process if it is never told.
#[inline]
pub(crate) fn under_way<R>(what: impl FnOnce() -> R) -> R {
    let mark = begins();
    let result = what();
    if let Some((ring, mark)) = mark {
        ring.ends(mark);
    }
    shared::changed();
    result
}

#[inline(never)]
fn begins() -> Option<(Ring<'static>, Mark)> {
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
    #[unsafe(link_section = ".data.hot")]
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let ring = shared::ring()?;
    let mark = ring.begins(shared::process(&ring), NUMBER.fetch_add(2, Relaxed))?;
    Some((ring, mark))
}

/// Does something after which paths may lead to elsewhere.
pub(crate) fn changing<R>(real: impl FnOnce() -> R) -> R {
    let Some(ring) = shared::ring() else { return real() };
    ring.change_begins();
    let result = real();
    ring.change_ends();
    result
}

/// A name, seen from an open directory.
#[derive(Clone, Copy)]
pub(crate) struct Name(pub(crate) c_int, pub(crate) *const c_char);

/// Renames. Not inlined: the function of the C library is looked up before there are two paths on the stack, which may be
/// the small one of a signal handler.
#[inline(never)]
pub(crate) fn renaming(old: Name, new: Name, exchange: bool, real: &dyn Fn() -> c_int) -> c_int {
    let Some(ring) = shared::ring() else { return real() };
    if !sys::is_path(old.0, old.1) || !sys::is_path(new.0, new.1) {
        return real();
    }
    // SAFETY: the kernel has just read them.
    let (old_path, new_path) = unsafe { (given(old.1), given(new.1)) };
    let (mut from, mut to) = (Path::new(), Path::new());
    let was = path::of_name(&ring, old.0, old_path, &mut from);
    let is = path::of_name(&ring, new.0, new_path, &mut to);
    let leads = || sys::stat_at(old.0, old_path, libc::AT_SYMLINK_NOFOLLOW).is_ok_and(|s| !is_regular(&s));
    let result = if exchange || leads() { changing(real) } else { real() };
    if result != 0 {
        return result;
    }
    if [was, is].contains(&Where::Unknown) {
        // it may have come with what is open
        ring.add_arrival();
        say(&ring, Kind::Tree, 0, was, &from);
        say(&ring, Kind::Tree, 0, is, &to);
        return result;
    }
    if was != is {
        // before it is told: who closes a file then, and thinks that it is elsewhere, has written before it is looked at
        ring.add_arrival();
    }
    let moved = |at: Name, path: &CStr, from: &Path, to: &Path| {
        let (kind, id) = match sys::stat_at(at.0, path, libc::AT_SYMLINK_NOFOLLOW) {
            Ok(s) if s.st_mode & libc::S_IFMT != libc::S_IFDIR => (Kind::Moved, id_in(&s)),
            // also if it is gone again: the stronger word
            _ => (Kind::MovedDir, 0),
        };
        put(&ring, &Saying { kind, id, path: Some(to), other: Some(from) });
    };
    if was == Where::Here || is == Where::Here {
        moved(new, new_path, &from, &to);
        if exchange {
            moved(old, old_path, &to, &from);
        }
    }
    if was == Where::Elsewhere && is == Where::Here {
        // what this process has open there
        ending();
    }
    result
}

/// A file got another name. `follow`: the first is that to which a symlink leads, as one in /proc to an open file that has no
/// name.
pub(crate) fn linked(old: Name, new: Name, follow: bool) {
    // SAFETY: a call has just succeeded with it.
    let may_be_open = follow || unsafe { given(old.1) }.is_empty();
    if follow {
        existing(Kind::Changed, old.0, old.1, true);
    } else if !may_be_open {
        name(Kind::Changed, old.0, old.1);
    } else {
        open(Kind::Changed, old.0);
    }
    name(Kind::Changed, new.0, new.1);
    if !may_be_open {
        return;
    }
    ending();
    // by which name it is open is not known to the kernel if it had none
    let Some(ring) = shared::ring() else { return };
    // SAFETY: a call has just succeeded with it.
    let given = unsafe { given(new.1) };
    let mut at = Path::new();
    let found = path::of_name(&ring, new.0, given, &mut at);
    if let (Where::Here, Ok(s)) = (found, sys::stat_at(new.0, given, libc::AT_SYMLINK_NOFOLLOW)) {
        say(&ring, Kind::Open, id_in(&s), found, &at);
    }
}
