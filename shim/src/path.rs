//! Absolute paths without symlinks, of open files and of names.

use crate::{parents, sys};
use core::ffi::{CStr, c_int};
use core::fmt::Write;
use core::mem::MaybeUninit;
use treeferry_ring::{MAX_PATH_BYTES, Ring};

/// A path on the stack.
pub(crate) struct Path {
    /// So many bytes of it as `length` says have been written: to clear it would cost more than all else that is done to
    /// a path that is known.
    room: MaybeUninit<[u8; MAX_PATH_BYTES]>,
    length: usize,
    /// It is too long, and this is the nearest ancestor that fits.
    cut: bool,
}

/// What is known of where something is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Where {
    /// It is not mirrored.
    Elsewhere,
    /// It is mirrored, and the path that was handed in is its own.
    Here,
    /// It may be mirrored.
    Unknown,
}

impl Path {
    pub(crate) fn new() -> Path {
        Path { room: MaybeUninit::uninit(), length: 0, cut: false }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: so many have been written, and are not more than there are.
        unsafe { core::slice::from_raw_parts(self.room.as_ptr().cast(), self.length) }
    }

    /// The whole room, for the kernel to write into; what was there is gone.
    fn cleared(&mut self) -> &mut [u8; MAX_PATH_BYTES] {
        (self.length, self.cut) = (0, false);
        self.room.write([0; MAX_PATH_BYTES])
    }

    /// NUL-ended.
    fn as_c(&mut self) -> Option<&CStr> {
        self.put(b"\0").then_some(())?;
        let with_nul = self.length;
        self.length -= 1;
        // SAFETY: so many have been written.
        let bytes = unsafe { core::slice::from_raw_parts(self.room.as_ptr().cast(), with_nul) };
        CStr::from_bytes_with_nul(bytes).ok()
    }

    /// Adds bytes, if there is room for all of them.
    fn put(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > MAX_PATH_BYTES - self.length {
            return false;
        }
        // SAFETY: there is room for so many behind those that have been written; what is added is not in there.
        unsafe {
            let end = self.room.as_mut_ptr().cast::<u8>().add(self.length);
            end.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        self.length += bytes.len();
        true
    }

    /// Takes bytes as words.
    pub(crate) fn set_words(&mut self, words: impl Iterator<Item = u64>, length: usize) {
        (self.length, self.cut) = (0, false);
        for word in words.take(length.div_ceil(8)) {
            self.put(&word.to_le_bytes());
        }
        self.length = self.length.min(length);
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }

    /// Takes what the kernel has written into the cleared room. What fills the buffer may have been cut in the middle of a name.
    fn set(&mut self, length: usize) {
        self.length = length;
        if length >= MAX_PATH_BYTES {
            self.cut = true;
            self.length = MAX_PATH_BYTES;
            self.length = self.as_bytes().iter().rposition(|b| *b == b'/').unwrap_or(0).max(1);
        }
    }

    /// Makes it the absolute path of what is named, by text alone: right only if no symlink is on the way. `false`: that
    /// is not known, or too long.
    fn set_text(&mut self, dir: c_int, text: &[u8]) -> bool {
        (self.length, self.cut) = (0, false);
        if text.first() != Some(&b'/') {
            if dir != libc::AT_FDCWD {
                return false;
            }
            match sys::working_directory(self.cleared()) {
                Ok(length) => self.set(length),
                Err(_) => return false,
            }
            // it is not where it could be reached
            if self.cut || self.as_bytes().first() != Some(&b'/') {
                return false;
            }
        }
        for name in text.split(|b| *b == b'/') {
            match name {
                b"" | b"." => {}
                b".." => self.length = self.as_bytes().iter().rposition(|b| *b == b'/').unwrap_or(0),
                name => self.push(name),
            }
        }
        if self.length == 0 {
            self.push(b"");
        }
        !self.cut
    }

    pub(crate) fn push(&mut self, name: &[u8]) {
        if self.cut {
            return;
        }
        let before = self.length;
        let slash = self.as_bytes() == b"/" || self.put(b"/");
        if !slash || !self.put(name) {
            self.length = before;
            self.cut = true;
        }
    }

    fn checked(&self, ring: &Ring<'_>) -> Where {
        if self.as_bytes().first() == Some(&b'/') && ring.holds(self.as_bytes()) {
            Where::Here
        } else {
            Where::Elsewhere
        }
    }
}

/// Where a file is that was just opened by a name, and has this status. `is_plain`: the name was no symlink.
pub(crate) fn of_opened(
    ring: &Ring<'_>,
    fd: c_int,
    s: &libc::stat,
    name: (c_int, &CStr, bool),
    path: &mut Path,
) -> Where {
    let (dir, given, is_plain) = name;
    let changes = ring.settled_changes();
    let used = parents::split(given.to_bytes()).filter(|_| is_plain);
    let proven = path.set_text(dir, given.to_bytes()) && leads_to(dir, given, s);
    let at = if proven { path.checked(ring) } else { of_known(ring, fd, s, path) };
    if let (Some((parent, name)), Some((real, end))) = (used, parents::split(path.as_bytes()))
        && name == end
        && !path.is_cut()
    {
        match at {
            Where::Elsewhere => parents::remember(changes, parent, b""),
            Where::Here => parents::remember(changes, parent, real),
            Where::Unknown => {}
        }
    }
    at
}

/// Whether a path leads to a file, without a symlink. To ask for the name of a descriptor costs twice as much, and twenty
/// times as much when a process asks first.
fn leads_to(dir: c_int, path: &CStr, s: &libc::stat) -> bool {
    let Ok(place) = sys::place_at(dir, path, libc::O_NOFOLLOW) else { return false };
    let there = sys::stat_of(place);
    sys::close(place);
    there.is_ok_and(|t| (t.st_dev, t.st_ino) == (s.st_dev, s.st_ino))
}

/// Where an open file or directory is.
pub(crate) fn of_open(ring: &Ring<'_>, fd: c_int, path: &mut Path) -> Where {
    let Ok(s) = sys::stat_of(fd) else { return Where::Elsewhere };
    of_known(ring, fd, &s, path)
}

/// The same if its status is known.
pub(crate) fn of_known(ring: &Ring<'_>, fd: c_int, s: &libc::stat, path: &mut Path) -> Where {
    // what has no name any more is nothing to mirror
    if s.st_nlink == 0 || !ring.may_hold(s.st_dev) {
        return Where::Elsewhere;
    }
    match link_of(fd, path) {
        Ok(()) => {}
        // deeper than a path can be, or there is no /proc
        Err(_) => return Where::Unknown,
    }
    if path.as_bytes().ends_with(b" (deleted)") && !is_at(path, s) {
        // it has another name than that by which it was opened, most likely beside it
        path.length = path.as_bytes().iter().rposition(|b| *b == b'/').unwrap_or(0).max(1);
        path.cut = true;
    }
    path.checked(ring)
}

/// Whether this is the file of that path.
fn is_at(path: &mut Path, s: &libc::stat) -> bool {
    let Some(path) = path.as_c() else { return false };
    let there = sys::stat_at(libc::AT_FDCWD, path, libc::AT_SYMLINK_NOFOLLOW);
    there.is_ok_and(|t| (t.st_dev, t.st_ino) == (s.st_dev, s.st_ino))
}

fn link_of(fd: c_int, path: &mut Path) -> Result<(), c_int> {
    let mut name = Text::new();
    let _ = write!(name, "/proc/self/fd/{fd}");
    let length = sys::read_link(name.as_c(), path.cleared())?;
    path.set(length);
    Ok(())
}

/// Where something is that has this name now. `follow`: that to which a symlink of this name leads.
pub(crate) fn of_existing(ring: &Ring<'_>, dir: c_int, name: &CStr, follow: bool, path: &mut Path) -> Where {
    let how = if follow { 0 } else { libc::O_NOFOLLOW };
    if path.set_text(dir, name.to_bytes())
        && let Ok(place) = sys::place_at(dir, name, how)
    {
        sys::close(place);
        return path.checked(ring);
    }
    match sys::open_at(dir, name, libc::O_PATH | libc::O_CLOEXEC | how) {
        Ok(fd) => {
            let at = of_open(ring, fd, path);
            sys::close(fd);
            at
        }
        // whoever has removed it tells that
        Err(libc::ENOENT | libc::ENOTDIR) => Where::Elsewhere,
        Err(_) => Where::Unknown,
    }
}

/// Where a name is, whether there is something or not: its directory without symlinks, and the name itself.
pub(crate) fn of_name(ring: &Ring<'_>, dir: c_int, given: &CStr, path: &mut Path) -> Where {
    let mut bytes = given.to_bytes();
    while let Some(less) = bytes.strip_suffix(b"/") {
        bytes = less;
    }
    let (parent, name) = match bytes.iter().rposition(|b| *b == b'/') {
        Some(at) => (bytes.get(..=at).unwrap_or_default(), bytes.get(at + 1..).unwrap_or_default()),
        None => (&b""[..], bytes),
    };
    if matches!(name, b"" | b"." | b"..") {
        return of_existing(ring, dir, given, true, path);
    }
    let found = match parent {
        b"" if dir == libc::AT_FDCWD => of_working_directory(ring, path),
        b"" => of_open(ring, dir, path),
        parent if parent.len() < SHORT_BYTES => of_parent::<SHORT_BYTES>(ring, dir, parent, path),
        parent => of_long_parent(ring, dir, parent, path),
    };
    // the mirrored directory itself is a name in a directory that is not mirrored: who takes it away ends the mirror
    if found == Where::Here {
        path.push(name);
    }
    found
}

const SHORT_BYTES: usize = 512;

fn of_working_directory(ring: &Ring<'_>, path: &mut Path) -> Where {
    match sys::working_directory(path.cleared()) {
        Ok(length) => path.set(length),
        Err(libc::ENOENT) => return Where::Elsewhere,
        // longer than the buffer, which is not filled then
        Err(_) => return of_existing(ring, libc::AT_FDCWD, c".", true, path),
    }
    path.checked(ring)
}

#[inline(never)]
fn of_parent<const N: usize>(ring: &Ring<'_>, dir: c_int, parent: &[u8], path: &mut Path) -> Where {
    let mut copy = [0_u8; N];
    match copy.get_mut(..parent.len()) {
        Some(place) => place.copy_from_slice(parent),
        None => return Where::Unknown,
    }
    match CStr::from_bytes_until_nul(&copy) {
        Ok(name) => of_existing(ring, dir, name, true, path),
        Err(_) => Where::Unknown,
    }
}

#[cold]
fn of_long_parent(ring: &Ring<'_>, dir: c_int, parent: &[u8], path: &mut Path) -> Where {
    of_parent::<4096>(ring, dir, parent, path)
}

/// A short text, NUL-ended.
struct Text {
    bytes: [u8; 32],
    length: usize,
}

impl Text {
    fn new() -> Text {
        Text { bytes: [0; 32], length: 0 }
    }

    fn as_c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or_default()
    }
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> core::fmt::Result {
        // the last byte stays NUL
        let end = self.length + text.len();
        let place = self.bytes.get_mut(..31).and_then(|b| b.get_mut(self.length..end));
        place.ok_or(core::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
