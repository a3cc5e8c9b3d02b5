//! Opening and closing: what is remembered of a descriptor, and what is told when it is closed.

use crate::life::each;
use crate::parents::{self, Parent, Stay};
use crate::path::{self, Opened, Path, Where};
use crate::table::{self, Known};
use crate::tell::{
    Name, existing, given, id_in, is_regular, open, put_known, remember, say, under_way, unnamed,
};
use crate::{next, shared, sys};
use core::ffi::c_int;
use treeferry_ring::{Epoch, Kind, Ring};

/// The status of a descriptor if it is that of a file, open for writing.
pub(crate) fn written(fd: c_int) -> Option<libc::stat> {
    written_by(fd, sys::flags_of(fd, libc::F_GETFL).ok()?)
}

/// The same if its flags are known.
pub(crate) fn written_by(fd: c_int, flags: c_int) -> Option<libc::stat> {
    if !is_for_writing(flags) {
        return None;
    }
    sys::stat_of(fd).ok().filter(is_regular)
}

/// Whether the name by which a file was opened is known to be that of the file itself, and not of a symlink.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plain {
    Yes,
    Unknown,
}

/// Whether closing writes what is left in a buffer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushes {
    Yes,
    No,
}

const MAKES: c_int = libc::O_CREAT | libc::O_TRUNC;

pub(crate) fn is_for_writing(flags: c_int) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY && flags & libc::O_PATH == 0
}

/// Opens a file with these flags, or others: who opens to write is asked not to follow a symlink at the end of the name,
/// since then the file is where its directory is. If there is one, it is opened once more, as the program wants it.
#[inline(never)]
pub(crate) fn opening(flags: c_int, name: Name, real: &dyn Fn(c_int) -> c_int) -> c_int {
    if !shared::is_named() {
        return real(flags);
    }
    if !is_for_writing(flags) {
        if flags & MAKES != 0 {
            return under_way(|| {
                let fd = opened(real(flags), flags, name, Plain::Unknown);
                made_by_failing(fd, flags, name);
                fd
            });
        }
        return opened(real(flags), flags, name, Plain::Unknown);
    }
    under_way(|| {
        let fd = opening_for_writing(flags, name, real);
        made_by_failing(fd, flags, name);
        fd
    })
}

/// An `open` that fails because the file system does not know one of the flags, as `O_DIRECT`, may have made the file before
/// that.
#[inline]
fn made_by_failing(fd: c_int, flags: c_int, name: Name) {
    if fd < 0 && flags & libc::O_CREAT != 0 && next::errno() == libc::EINVAL && sys::is_path(name.0, name.1) {
        existing(Kind::Changed, name.0, name.1, true);
    }
}

fn opening_for_writing(flags: c_int, name: Name, real: &dyn Fn(c_int) -> c_int) -> c_int {
    // before it is open: what comes from elsewhere after that makes it another one
    let before =
        shared::mapped_for_writing().map(|ring| Before { epoch: ring.epoch(), stay: parents::stay() });
    let never_follows =
        flags & libc::O_NOFOLLOW != 0 || flags & MAKES & !libc::O_TRUNC != 0 && flags & libc::O_EXCL != 0;
    let is_nameless = flags & libc::O_DIRECTORY != 0;
    if never_follows || is_nameless {
        let fd = real(flags);
        opened_for_writing(fd, name, if is_nameless { Plain::Unknown } else { Plain::Yes }, before);
        if flags & libc::O_NOFOLLOW != 0 {
            table::ask_for(fd);
        }
        return fd;
    }
    let errno = next::errno();
    let fd = real(flags | libc::O_NOFOLLOW);
    if fd < 0 && next::errno() == libc::ELOOP {
        next::set_errno(errno);
        let fd = real(flags);
        opened_for_writing(fd, name, Plain::Unknown, before);
        return fd;
    }
    opened_for_writing(fd, name, Plain::Yes, before);
    fd
}

/// A file was opened with these flags, by a name, seen from an open directory.
pub(crate) fn opened(fd: c_int, flags: c_int, name: Name, plain: Plain) -> c_int {
    if fd < 0 || !shared::is_named() {
        return fd;
    }
    if is_for_writing(flags) {
        opened_for_writing(fd, name, plain, None);
    } else {
        table::set(fd, Known::Harmless);
        if flags & MAKES != 0 && flags & libc::O_PATH == 0 {
            made_by_opening(fd);
        }
    }
    fd
}

/// How things were before a file was opened.
#[derive(Clone, Copy)]
struct Before {
    epoch: Epoch,
    stay: Option<Stay>,
}

/// `before`: if the ring was there.
fn opened_for_writing(fd: c_int, name: Name, plain: Plain, before: Option<Before>) {
    if fd < 0 {
        return;
    }
    table::begin(fd);
    let Some(ring) = shared::ring() else { return };
    if ring.is_full() {
        return untold(&ring);
    }
    // SAFETY: a call has just succeeded with it.
    let given = unsafe { given(name.1) };
    let mut path = Path::new();
    let epoch = before.map_or_else(|| ring.epoch(), |b| b.epoch);
    let since = before.and_then(|b| b.stay);
    let how = Opened { dir: name.0, given, is_plain: plain == Plain::Yes, since };
    let believed = before.filter(|_| how.is_plain).and_then(|_| path::believed(&ring, how, &mut path));
    if believed == Some(Parent::Elsewhere) {
        return table::set(fd, Known::Elsewhere(epoch, 0));
    }
    let Ok(s) = sys::stat_of(fd) else { return };
    // writing to a FIFO changes its time
    if !is_regular(&s) && s.st_mode & libc::S_IFMT != libc::S_IFIFO {
        return table::set(fd, Known::Harmless);
    }
    if s.st_nlink == 0 {
        // it may get a name (O_TMPFILE)
        return;
    }
    let id = id_in(&s);
    if !ring.may_hold(s.st_dev) {
        return table::set(fd, Known::Elsewhere(epoch, id));
    }
    let at = match believed {
        Some(_) => Where::Here,
        None => path::of_opened(&ring, fd, &s, how, &mut path),
    };
    remember(&ring, fd, epoch, id, at, &path);
}

/// There is no room for what would be told. Everything is looked at for that, when there is a reader again.
fn untold(ring: &Ring<'_>) {
    if ring.add_untold() {
        sys::wake(ring.sleeper());
    }
}

/// A file was made or emptied by opening it, and cannot be written by way of this descriptor.
#[cold]
fn made_by_opening(fd: c_int) {
    open(Kind::Changed, fd);
}

/// A descriptor is, or may still be, open for writing.
pub(crate) fn held(fd: c_int) {
    let Some(ring) = shared::ring() else { return shared::changed() };
    let epoch = ring.epoch();
    match table::get(fd) {
        Known::Harmless => return,
        // the reader looks at it from time to time, and when it is closed
        Known::Told(known, _) if known.session() == epoch.session() => return,
        Known::Elsewhere(known, _) if known == epoch => return,
        _ => {}
    }
    if let Some(s) = written(fd) {
        find(&ring, fd, epoch, &s);
    }
}

/// Finds out where a file is that is open for writing, and tells that it is.
pub(crate) fn find(ring: &Ring<'_>, fd: c_int, epoch: Epoch, s: &libc::stat) {
    if s.st_nlink == 0 {
        return;
    }
    let mut path = Path::new();
    let at = path::of_known(ring, fd, s, &mut path);
    remember(ring, fd, epoch, id_in(s), at, &path);
}

/// A descriptor has become a copy of another.
pub(crate) fn copied(old: c_int, new: c_int) -> c_int {
    if new >= 0 && shared::is_named() {
        table::copy(old, new);
    }
    new
}

/// Closes a descriptor. `is_closed` says of the result whether it is.
#[inline]
pub(crate) fn closing<R>(
    fd: c_int,
    flushes: Flushes,
    real: impl Fn() -> R,
    is_closed: impl Fn(&R) -> bool,
) -> R {
    if !shared::is_named() {
        return real();
    }
    match (table::take(fd), shared::mapped()) {
        (Known::Harmless, _) => real(),
        (Known::Told(epoch, id), Some(ring)) if epoch.session() == ring.epoch().session() => {
            let result = real();
            if is_closed(&result) {
                tell_closed(&ring, id, |kind| put_known(&ring, kind, id));
            } else {
                table::set(fd, Known::Told(epoch, id));
            }
            result
        }
        (Known::Elsewhere(epoch, id), Some(ring)) if epoch == ring.epoch() => {
            let result = real();
            if !is_closed(&result) {
                table::set(fd, Known::Elsewhere(epoch, id));
            } else if flushes == Flushes::Yes && ring.epoch() != epoch {
                // it was written as it was closed, and somebody has brought it here meanwhile: he tells where
                if id == 0 { unnamed(&ring) } else { put_known(&ring, Kind::Changed, id) }
            }
            result
        }
        _ => {
            let mut result = None;
            closing_unknown(fd, &mut || {
                let returned = result.insert(real());
                is_closed(returned)
            });
            // it was called
            result.unwrap_or_else(real)
        }
    }
}

/// Closes it by `real`, which says whether it is closed.
#[inline(never)]
fn closing_unknown(fd: c_int, real: &mut dyn FnMut() -> bool) {
    match written(fd) {
        None => {
            real();
        }
        Some(s) => under_way(|| closing_written(fd, &s, real)),
    }
}

fn closing_written(fd: c_int, s: &libc::stat, real: &mut dyn FnMut() -> bool) {
    let Some(ring) = shared::ring() else {
        real();
        return;
    };
    if ring.is_full() {
        real();
        return untold(&ring);
    }
    let mut path = Path::new();
    let at = path::of_known(&ring, fd, s, &mut path);
    if real() {
        let id = id_in(s);
        tell_closed(&ring, id, |kind| {
            say(&ring, kind, id, at, &path);
        });
    }
}

/// Tells that a file was closed by one descriptor. What is open by another too is not finished.
#[inline]
fn tell_closed(ring: &Ring<'_>, id: u64, tell: impl FnOnce(Kind)) {
    let told = table::told();
    let is_open = table::another(id).is_some() || table::has_forgotten();
    tell(if is_open { Kind::Changed } else { Kind::Closed });
    if table::told() != told {
        reopened(ring, id);
    }
}

/// Another thread has told meanwhile that it has opened a file: if it is this one, the reader has heard that before it heard
/// that it was closed.
#[cold]
#[inline(never)]
fn reopened(ring: &Ring<'_>, id: u64) {
    if let Some(fd) = table::another(id)
        && let Some(s) = written(fd).filter(|s| id_in(s) == id)
    {
        find(ring, fd, ring.epoch(), &s);
    }
}

/// Closes some descriptors, whatever they are. What was written is there before they are closed; how many there are has no
/// bound, so it is said before, and taken back if nothing was closed.
pub(crate) fn closing_all(first: u32, last: u32, real: impl FnOnce() -> c_int) -> c_int {
    if !shared::is_named() || first > last {
        return real();
    }
    let number = |n| c_int::try_from(n).unwrap_or(c_int::MAX);
    each(number(first), number(last), &mut |fd| closing(fd, Flushes::No, || (), |()| true));
    let result = real();
    if result < 0 {
        each(number(first), number(last), &mut held);
    }
    result
}
