//! What is told of a call: the cheapest test comes first, and most calls end there.

use crate::parents::{self, Parent};
use crate::path::{self, Path, Where};
use crate::table::{self, Known};
use crate::{ends, files, next, process, shared, sys};
use core::ffi::{CStr, c_char, c_int};
use treeferry_ring::{Epoch, Handed, Kind, Record, Ring, id_of};

/// A path of the program's, if it gave one.
///
/// # Safety
/// `path` is null, or a NUL-ended string that stays through `'a`.
unsafe fn given<'a>(path: *const c_char) -> &'a CStr {
    // SAFETY: as the caller vouches for; the call that was made with it has looked at it too.
    if path.is_null() { c"" } else { unsafe { CStr::from_ptr(path) } }
}

/// What is told, but who tells it.
struct Saying<'a> {
    kind: Kind,
    id: u64,
    path: Option<&'a Path>,
    other: Option<&'a Path>,
}

/// Tells; whether the reader will hear it, and know this process by its number.
fn put(ring: &Ring<'_>, what: &Saying<'_>) -> bool {
    let cut = [what.path, what.other].into_iter().flatten().any(Path::is_cut);
    let bytes = |path: Option<&'_ Path>| path.map_or(&b""[..], |p| p.as_bytes()).len();
    debug_assert!(bytes(what.path) > 0 || what.id != 0);
    let record = Record {
        kind: what.kind,
        cut,
        pid: shared::process(ring),
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
fn put_known(ring: &Ring<'_>, kind: Kind, id: u64) {
    put(ring, &Saying { kind, id, path: None, other: None });
}

/// Tells something of a path. Whether the reader will hear it, and know this process.
fn say(ring: &Ring<'_>, kind: Kind, id: u64, at: Where, path: &Path) -> bool {
    match at {
        Where::Here => put(ring, &Saying { kind, id, path: Some(path), other: None }),
        Where::Unknown => {
            unnamed(ring);
            false
        }
        Where::Elsewhere => false,
    }
}

fn unnamed(ring: &Ring<'_>) {
    if ring.add_unnamed() {
        sys::wake(ring.sleeper());
    }
}

/// Says that the reader has to hear of a file that is open for writing, and remembers what it knows then.
fn remember(ring: &Ring<'_>, fd: c_int, epoch: Epoch, id: u64, at: Where, path: &Path) {
    let known = match at {
        Where::Here if say(ring, Kind::Open, id, at, path) => Known::Told(epoch, id),
        Where::Here => Known::Unknown,
        Where::Elsewhere => Known::Elsewhere(epoch, id),
        Where::Unknown => {
            unnamed(ring);
            Known::Unknown
        }
    };
    table::set(fd, known);
}

fn is_regular(s: &libc::stat) -> bool {
    s.st_mode & libc::S_IFMT == libc::S_IFREG
}

fn id_in(s: &libc::stat) -> u64 {
    id_of(s.st_dev, s.st_ino)
}

/// The status of a descriptor if it is that of a file, open for writing.
fn written(fd: c_int) -> Option<libc::stat> {
    let flags = sys::flags_of(fd, libc::F_GETFL).ok()?;
    if flags & libc::O_ACCMODE == libc::O_RDONLY || flags & libc::O_PATH != 0 {
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
#[inline]
pub(crate) fn opening(flags: c_int, name: Name, real: impl Fn(c_int) -> c_int) -> c_int {
    if !shared::is_named() {
        return real(flags);
    }
    if !is_for_writing(flags) {
        if flags & MAKES != 0 {
            return under_way(|| opened(real(flags), flags, name, Plain::Unknown));
        }
        return opened(real(flags), flags, name, Plain::Unknown);
    }
    under_way(|| opening_for_writing(flags, name, real))
}

#[inline]
fn opening_for_writing(flags: c_int, name: Name, real: impl Fn(c_int) -> c_int) -> c_int {
    // before it is open: what comes from elsewhere after that makes it another one
    let epoch = shared::mapped_for_writing().map(|ring| ring.epoch());
    let never_follows =
        flags & libc::O_NOFOLLOW != 0 || flags & MAKES & !libc::O_TRUNC != 0 && flags & libc::O_EXCL != 0;
    if never_follows || flags & libc::O_DIRECTORY != 0 {
        let fd = real(flags);
        opened_for_writing(fd, name, if never_follows { Plain::Yes } else { Plain::Unknown }, epoch);
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
        opened_for_writing(fd, name, Plain::Unknown, epoch);
        return fd;
    }
    opened_for_writing(fd, name, Plain::Yes, epoch);
    fd
}

/// A file was opened with these flags, by a name, seen from an open directory.
#[inline]
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

/// `before`: the epoch before it was opened, if the ring was there.
fn opened_for_writing(fd: c_int, name: Name, plain: Plain, before: Option<Epoch>) {
    if fd < 0 {
        return;
    }
    table::set(fd, Known::Unknown);
    let Some(ring) = shared::ring() else { return };
    if ring.is_full() {
        return untold(&ring);
    }
    // SAFETY: a call has just succeeded with it.
    let given = unsafe { given(name.1) };
    let mut path = Path::new();
    let epoch = before.unwrap_or_else(|| ring.epoch());
    let believed = match (before, parents::split(given.to_bytes())) {
        (Some(_), Some((parent, end))) if plain == Plain::Yes => {
            parents::look(&ring, parent, &mut path).map(|is| (is, end))
        }
        _ => None,
    };
    if let Some((Parent::Elsewhere, _)) = believed {
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
        Some((_, end)) => {
            path.push(end);
            Where::Here
        }
        None => path::of_opened(&ring, fd, &s, (name.0, given, plain == Plain::Yes), &mut path),
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
    let Some(ring) = shared::ring() else { return };
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
fn find(ring: &Ring<'_>, fd: c_int, epoch: Epoch, s: &libc::stat) {
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
    real: impl FnOnce() -> R,
    is_closed: impl FnOnce(&R) -> bool,
) -> R {
    if !shared::is_named() {
        return real();
    }
    match (table::take(fd), shared::mapped()) {
        (Known::Harmless, _) => real(),
        (Known::Told(epoch, id), Some(ring)) if epoch.session() == ring.epoch().session() => {
            let result = real();
            if is_closed(&result) {
                put_known(&ring, closed(id), id);
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
        _ => closing_unknown(fd, real, is_closed),
    }
}

#[inline(never)]
fn closing_unknown<R>(fd: c_int, real: impl FnOnce() -> R, is_closed: impl FnOnce(&R) -> bool) -> R {
    match written(fd) {
        None => real(),
        Some(s) => under_way(|| closing_written(fd, &s, real, is_closed)),
    }
}

fn closing_written<R>(
    fd: c_int,
    s: &libc::stat,
    real: impl FnOnce() -> R,
    is_closed: impl FnOnce(&R) -> bool,
) -> R {
    let Some(ring) = shared::ring() else { return real() };
    if ring.is_full() {
        let result = real();
        untold(&ring);
        return result;
    }
    let mut path = Path::new();
    let at = path::of_known(&ring, fd, s, &mut path);
    let result = real();
    if is_closed(&result) {
        say(&ring, closed(id_in(s)), id_in(s), at, &path);
    }
    result
}

/// What is open by another descriptor too is not finished.
fn closed(id: u64) -> Kind {
    if table::has_another(id) { Kind::Changed } else { Kind::Closed }
}

/// Some descriptors are about to be closed, whatever they are.
pub(crate) fn closing_all(first: u32, last: u32) {
    if !shared::is_named() {
        return;
    }
    let first = c_int::try_from(first).unwrap_or(c_int::MAX);
    for fd in first..=c_int::try_from(last).unwrap_or(c_int::MAX).min(table::highest()) {
        closing(fd, Flushes::No, || (), |()| true);
    }
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
        say(&ring, kind, 0, found, &at);
    }
    result
}

/// Does something that is told when it is done: the reader sees meanwhile that it is under way, and what has become of this
/// process if it is never told.
pub(crate) fn under_way<R>(what: impl FnOnce() -> R) -> R {
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
    #[unsafe(link_section = ".data.hot")]
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let Some(ring) = shared::ring() else { return what() };
    let mark = ring.begins(shared::process(&ring), NUMBER.fetch_add(2, Relaxed));
    let result = what();
    if let Some(mark) = mark {
        ring.ends(mark);
    }
    result
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

/// Descriptors 0 to 2 of a program that begins: whoever has started it has opened them, perhaps without this library, or
/// has told of them before it became this program.
pub(crate) fn begun() {
    let mut ring = None;
    for fd in 0..3 {
        let Some(s) = written(fd) else {
            if sys::flags_of(fd, libc::F_GETFD).is_ok() {
                table::set(fd, Known::Harmless);
            }
            continue;
        };
        ring = ring.or_else(shared::ring);
        let Some(ring) = ring else { return };
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
    for fd in 0..=table::highest() {
        held_or_asked(fd);
        let (session, id, what) = match table::get(fd) {
            Known::Told(epoch, id) => (epoch.session(), id, Handed::Told),
            Known::Elsewhere(epoch, id) if fd < 3 => (epoch.session(), id, Handed::Elsewhere),
            _ => continue,
        };
        let Some(ring) = shared::ring().filter(|r| r.epoch().session() == session) else { continue };
        let goes = || sys::flags_of(fd, libc::F_GETFD).is_ok_and(|f| f & libc::FD_CLOEXEC != 0);
        if what == Handed::Told && goes() {
            put_known(&ring, Kind::Left, id);
        } else if fd < 3 {
            ring.hand_over(shared::process(&ring), id, what);
        }
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

/// This process ends: tells of the files that it has open, and that nobody knows of. The reader sees it go.
///
/// Asking for each number whether it is open costs a microsecond or two; to list `/proc/self/fd` costs a process that
/// lives for a millisecond a tenth of its life. So what is above all that was seen, and was not opened under this
/// library, is not found.
#[inline(never)]
pub(crate) fn ending() {
    if shared::is_named() {
        (0..=table::highest()).for_each(held_or_asked);
    }
}

/// Files were written, and stay open.
pub(crate) fn flushed() {
    if !shared::is_named() {
        return;
    }
    for fd in 0..=table::highest() {
        held_or_asked(fd);
        if let (Known::Told(_, id), Some(ring)) = (table::get(fd), shared::ring()) {
            put_known(&ring, Kind::Changed, id);
        }
    }
}

/// Forks. `is_child` says of the result whether this is the child.
pub(crate) fn forking(real: impl FnOnce() -> c_int, is_child: impl FnOnce(c_int) -> bool) -> c_int {
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
    #[unsafe(link_section = ".data.hot")]
    static FORKS: AtomicU32 = AtomicU32::new(0);
    // one that does so again and again finds out once what each of its children would
    if FORKS.fetch_add(1, Relaxed) == 1 {
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
