//! What is told of a call: the cheapest test comes first, and most calls end there.

use crate::path::{self, Path, Where};
use crate::{shared, sys};
use core::ffi::{CStr, c_char, c_int};
use core::sync::atomic::{AtomicBool, AtomicI32, Ordering::*};
use treeferry_ring::{Kind, Record, Ring};

/// Whether this process has told of a file that it has open; so what is forked from it may have that open too.
static HAS_OPEN: AtomicBool = AtomicBool::new(false);

/// The highest descriptor that is asked for when a program ends. A program gets descriptors of whoever starts it; more
/// than a few does nobody hand on who does not know what they are for.
static HIGHEST: AtomicI32 = AtomicI32::new(15);

/// A path of the program's, if it gave one.
///
/// # Safety
/// `path` is null, or a NUL-ended string that stays through `'a`.
unsafe fn given<'a>(path: *const c_char) -> &'a CStr {
    // SAFETY: as the caller vouches for; the call that was made with it has looked at it too.
    if path.is_null() { c"" } else { unsafe { CStr::from_ptr(path) } }
}

fn put(ring: &Ring<'_>, kind: Kind, path: &Path, other: Option<&Path>) {
    let cut = path.is_cut() || other.is_some_and(Path::is_cut);
    let other = other.map_or(&b""[..], Path::as_bytes);
    let record = Record { kind, cut, pid: shared::process(ring), path: path.as_bytes(), other };
    if ring.push(&record) {
        sys::wake(ring.sleeper());
    }
}

fn say(ring: &Ring<'_>, kind: Kind, at: Where, path: &Path) {
    match at {
        Where::Here => put(ring, kind, path, None),
        Where::Unknown => unnamed(ring),
        Where::Elsewhere => {}
    }
}

fn unnamed(ring: &Ring<'_>) {
    if ring.add_unnamed() {
        sys::wake(ring.sleeper());
    }
}

/// Where the file is if it is one, open for writing.
fn written(fd: c_int, path: &mut Path) -> Option<(Ring<'static>, Where)> {
    let flags = sys::flags_of(fd, libc::F_GETFL).ok()?;
    if flags & libc::O_ACCMODE == libc::O_RDONLY || flags & libc::O_PATH != 0 {
        return None;
    }
    let s = sys::stat_of(fd).ok()?;
    if s.st_mode & libc::S_IFMT != libc::S_IFREG {
        return None;
    }
    let ring = shared::ring()?;
    match path::of_known(&ring, fd, &s, path) {
        Where::Elsewhere => None,
        at => Some((ring, at)),
    }
}

/// A file was opened with these flags.
#[inline]
pub(crate) fn opened(fd: c_int, flags: c_int) -> c_int {
    const MAKES: c_int = libc::O_CREAT | libc::O_TRUNC;
    if fd >= 0 && flags & (libc::O_ACCMODE | MAKES) != libc::O_RDONLY && shared::is_named() {
        if flags & libc::O_ACCMODE == libc::O_RDONLY { made_by_opening(fd) } else { held(fd) }
    }
    fd
}

/// A descriptor is, or may still be, open for writing.
pub(crate) fn held(fd: c_int) {
    let mut path = Path::new();
    if let Some((ring, at)) = written(fd, &mut path) {
        HAS_OPEN.store(true, Relaxed);
        seen(fd);
        say(&ring, Kind::Open, at, &path);
    }
}

/// A descriptor may be that of a mirrored file.
pub(crate) fn seen(fd: c_int) {
    if fd > HIGHEST.load(Relaxed) {
        HIGHEST.fetch_max(fd, Relaxed);
    }
}

/// A file was made or emptied by opening it, and cannot be written by way of this descriptor.
#[cold]
fn made_by_opening(fd: c_int) {
    if let Some(ring) = shared::ring() {
        let mut path = Path::new();
        let at = path::of_open(&ring, fd, &mut path);
        say(&ring, Kind::Changed, at, &path);
    }
}

/// Closes a descriptor.
#[inline]
pub(crate) fn closing<R>(fd: c_int, real: impl FnOnce() -> R) -> R {
    if !shared::is_named() {
        return real();
    }
    let mut path = Path::new();
    match written(fd, &mut path) {
        None => real(),
        // also if it fails: the descriptor is closed even then
        Some((ring, at)) => {
            let result = real();
            say(&ring, Kind::Closed, at, &path);
            result
        }
    }
}

/// Something was done to a name, or made under it.
pub(crate) fn name(kind: Kind, dir: c_int, path: *const c_char) {
    if let Some(ring) = shared::ring() {
        let mut at = Path::new();
        // SAFETY: a call has just succeeded with it.
        let found = path::of_name(&ring, dir, unsafe { given(path) }, &mut at);
        say(&ring, kind, found, &at);
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
    say(&ring, kind, found, &at);
}

/// Something was done to an open file or directory.
pub(crate) fn open(kind: Kind, fd: c_int) {
    if let Some(ring) = shared::ring() {
        let mut path = Path::new();
        let at = path::of_open(&ring, fd, &mut path);
        say(&ring, kind, at, &path);
    }
}

/// Takes a name away. Where it is has to be known before: the path may lead through what goes.
pub(crate) fn removing(kind: Kind, dir: c_int, path: *const c_char, real: impl FnOnce() -> c_int) -> c_int {
    if path.is_null() {
        return real();
    }
    let Some(ring) = shared::ring() else { return real() };
    let mut at = Path::new();
    // SAFETY: the program hands it to a call that reads it too.
    let found = path::of_name(&ring, dir, unsafe { given(path) }, &mut at);
    let result = real();
    if result == 0 {
        say(&ring, kind, found, &at);
    }
    result
}

/// A name, seen from an open directory.
#[derive(Clone, Copy)]
pub(crate) struct Name(pub(crate) c_int, pub(crate) *const c_char);

/// Renames.
pub(crate) fn renaming(old: Name, new: Name, exchange: bool, real: impl FnOnce() -> c_int) -> c_int {
    if old.1.is_null() || new.1.is_null() {
        return real();
    }
    let Some(ring) = shared::ring() else { return real() };
    // SAFETY: the program hands them to a call that reads them too.
    let (old_path, new_path) = unsafe { (given(old.1), given(new.1)) };
    let (mut from, mut to) = (Path::new(), Path::new());
    let was = path::of_name(&ring, old.0, old_path, &mut from);
    let is = path::of_name(&ring, new.0, new_path, &mut to);
    let result = real();
    if result != 0 {
        return result;
    }
    if (was, is) != (Where::Here, Where::Here) {
        say(&ring, Kind::Tree, was, &from);
        say(&ring, Kind::Tree, is, &to);
        return result;
    }
    let moved = |dir: c_int, path: &CStr| match sys::stat_at(dir, path, libc::AT_SYMLINK_NOFOLLOW) {
        Ok(s) if s.st_mode & libc::S_IFMT != libc::S_IFDIR => Kind::Moved,
        // also if it is gone again: the stronger word
        _ => Kind::MovedDir,
    };
    put(&ring, moved(new.0, new_path), &to, Some(&from));
    if exchange {
        put(&ring, moved(old.0, old_path), &from, Some(&to));
    }
    result
}

/// A file got another name. `follow`: the first is that to which a symlink leads.
pub(crate) fn linked(old: Name, new: Name, follow: bool) {
    if follow {
        existing(Kind::Changed, old.0, old.1, true);
    // SAFETY: a call has just succeeded with it.
    } else if !unsafe { given(old.1) }.is_empty() {
        name(Kind::Changed, old.0, old.1);
    } else {
        open(Kind::Changed, old.0);
    }
    name(Kind::Changed, new.0, new.1);
}

/// What is said of a file that is open, and will be closed when this program becomes another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan {
    /// All files that are open for writing are `Open`.
    All,
    /// Those that will be closed are `Left`.
    Exec,
    /// Those from one descriptor to another are `Closed`.
    Close(u32, u32),
    /// They were written and stay open.
    Flushed,
}

/// Tells of the files that this process has open for writing.
///
/// Asking for each number whether it is open costs a microsecond or two; to list `/proc/self/fd` costs a process that
/// lives for a millisecond a tenth of its life. So what is above all that was seen, and was not opened under this
/// library, is not found.
#[inline(never)]
pub(crate) fn scan(what: Scan) {
    if !shared::is_named() {
        return;
    }
    let highest = HIGHEST.load(Relaxed);
    let (first, last) = match what {
        Scan::Close(first, last) => (c_int::try_from(first).unwrap_or(c_int::MAX), c_int::try_from(last)),
        _ => (0, Ok(highest)),
    };
    for fd in first..=last.unwrap_or(highest).min(highest) {
        tell_of(what, fd);
    }
}

fn tell_of(what: Scan, fd: c_int) {
    let mut path = Path::new();
    let Some((ring, at)) = written(fd, &mut path) else { return };
    let goes = || sys::flags_of(fd, libc::F_GETFD).is_ok_and(|f| f & libc::FD_CLOEXEC != 0);
    let kind = match what {
        Scan::Exec if goes() => Kind::Left,
        Scan::All | Scan::Exec => Kind::Open,
        Scan::Close(..) => Kind::Closed,
        Scan::Flushed => Kind::Changed,
    };
    HAS_OPEN.store(true, Relaxed);
    say(&ring, kind, at, &path);
}

/// Whether this process has told of open files.
pub(crate) fn has_open() -> bool {
    HAS_OPEN.load(Relaxed)
}
