//! Absolute paths without symlinks, of open files and of names.

use crate::parents::{self, Parent, Stay};
use crate::sys;
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

    /// The status of what has this path: of a symlink its own.
    fn status(&mut self) -> Result<libc::stat, c_int> {
        if self.length == 0 {
            return sys::stat_at(libc::AT_FDCWD, c"/", libc::AT_SYMLINK_NOFOLLOW);
        }
        sys::stat_at(libc::AT_FDCWD, self.as_c().ok_or(libc::ENAMETOOLONG)?, libc::AT_SYMLINK_NOFOLLOW)
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

    /// Takes the working directory. What is longer than the room is an error.
    fn take_working_directory(&mut self) -> Result<(), c_int> {
        let length = sys::working_directory(self.cleared())?;
        self.set(length);
        Ok(())
    }

    /// The same, for names to be added to it; whether it is where it could be reached.
    pub(crate) fn begin_at_working_directory(&mut self) -> bool {
        let is_there = self.take_working_directory().is_ok() && self.as_bytes().first() == Some(&b'/');
        self.begin_names();
        is_there
    }

    /// Names are about to be added to a directory.
    fn begin_names(&mut self) {
        if self.as_bytes() == b"/" {
            self.length = 0;
        }
    }

    /// Takes away the last name.
    fn pop(&mut self) {
        self.length = self.as_bytes().iter().rposition(|b| *b == b'/').unwrap_or(0);
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

/// How a file was opened that is open now.
#[derive(Clone, Copy)]
pub(crate) struct Opened<'a> {
    pub(crate) dir: c_int,
    pub(crate) given: &'a CStr,
    /// The name was no symlink.
    pub(crate) is_plain: bool,
    /// What [`parents::stay`] said before.
    pub(crate) since: Option<Stay>,
}

/// Where a file is that was just opened, and has this status.
pub(crate) fn of_opened(
    ring: &Ring<'_>,
    fd: c_int,
    s: &libc::stat,
    how: Opened<'_>,
    path: &mut Path,
) -> Where {
    let Opened { dir, given, is_plain, .. } = how;
    let changes = ring.settled_changes();
    let at = match resolve(dir, given.to_bytes(), true, path) {
        Ok(Some(t)) if (t.st_dev, t.st_ino) == (s.st_dev, s.st_ino) => path.checked(ring),
        _ => of_known(ring, fd, s, path),
    };
    if is_plain && at != Where::Unknown && !path.is_cut() {
        remember(changes, how, at, path);
    }
    at
}

/// Remembers where the directory is through which a file was opened. Apart, for its path on the stack.
#[inline(never)]
fn remember(changes: Option<u64>, how: Opened<'_>, at: Where, path: &Path) {
    let mut room = Path::new();
    let used = parents::used(how.dir, how.given.to_bytes(), how.since, &mut room);
    if let (Some((parent, name)), Some((real, end))) = (used, parents::split(path.as_bytes()))
        && name == end
    {
        parents::remember(changes, parent, if at == Where::Here { real } else { b"" });
    }
}

/// What is believed of where a file is that was just opened; if it is mirrored, `path` is its path.
#[inline(never)]
pub(crate) fn believed(ring: &Ring<'_>, how: Opened<'_>, path: &mut Path) -> Option<Parent> {
    let mut room = Path::new();
    let (parent, name) = parents::used(how.dir, how.given.to_bytes(), how.since, &mut room)?;
    let is = parents::look(ring, parent, path)?;
    if is == Parent::Here {
        path.push(name);
    }
    Some(is)
}

/// How many symlinks may be on the way (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// The path of what a name leads to, without symlinks, and its status: what is too long for a path has none.
///
/// Each name on the way is asked for by its path. To open it would be one question, and take a number for a moment that
/// another thread may be about to give to a descriptor of its own (dup2(2)).
#[inline(never)]
fn resolve(dir: c_int, given: &[u8], follow: bool, path: &mut Path) -> Result<Option<libc::stat>, c_int> {
    begin(dir, given, path)?;
    match walk(given, follow, path)? {
        Walked::There(s) => Ok(Some(s)),
        Walked::TooLong => Ok(None),
        Walked::Link(more) => resolve_links(more, follow, path),
    }
}

/// How far a walk has come.
enum Walked<'a> {
    /// To its end.
    There(libc::stat),
    /// The path is too long.
    TooLong,
    /// To a symlink, which is the path, and behind it comes this.
    Link(&'a [u8]),
}

/// Walks from a directory by names.
fn walk<'a>(mut given: &'a [u8], follow: bool, path: &mut Path) -> Result<Walked<'a>, c_int> {
    loop {
        let end = given.iter().position(|b| *b == b'/');
        let name = given.get(..end.unwrap_or(given.len())).unwrap_or_default();
        let more = end.map_or(&b""[..], |end| given.get(end + 1..).unwrap_or_default());
        let is_last = more.iter().all(|b| *b == b'/');
        let is_name = !matches!(name, b"" | b"." | b"..");
        match name {
            b"" | b"." => {}
            b".." => path.pop(),
            name => path.push(name),
        }
        if path.cut {
            return Ok(Walked::TooLong);
        }
        if is_last || is_name {
            let s = path.status()?;
            if s.st_mode & libc::S_IFMT == libc::S_IFLNK && (follow || end.is_some()) {
                return Ok(Walked::Link(more));
            }
            if is_last {
                if path.length == 0 {
                    path.push(b"");
                }
                return Ok(Walked::There(s));
            }
        }
        given = more;
    }
}

/// Goes on behind a symlink, which is the path. Apart from the walk, for the room on the stack: few paths have one.
#[inline(never)]
fn resolve_links(more: &[u8], follow: bool, path: &mut Path) -> Result<Option<libc::stat>, c_int> {
    let mut rest = Rest { room: [0; MAX_PATH_BYTES], begins: MAX_PATH_BYTES };
    rest.put_before(more)?;
    for _ in 0..MOST_LINKS {
        rest.begin_anew(path)?;
        let left = match walk(rest.text(), follow, path)? {
            Walked::There(s) => return Ok(Some(s)),
            Walked::TooLong => return Ok(None),
            Walked::Link(more) => more.len(),
        };
        rest.begins = MAX_PATH_BYTES - left;
    }
    Err(libc::ELOOP)
}

/// What is left of a path after a symlink: it ends where the room ends.
struct Rest {
    room: [u8; MAX_PATH_BYTES],
    begins: usize,
}

impl Rest {
    fn text(&self) -> &[u8] {
        self.room.get(self.begins..).unwrap_or_default()
    }

    /// The path is that of a symlink: goes on with its text, and then with what is left.
    fn begin_anew(&mut self, path: &mut Path) -> Result<(), c_int> {
        self.put_before(b"/")?;
        // into the room before what is left, for that is the only one: a handler of a signal may have a small stack
        let room = self.room.get_mut(..self.begins).unwrap_or_default();
        let length = sys::read_link(path.as_c().ok_or(libc::ENAMETOOLONG)?, room)?;
        // what fills it may have been cut
        let begins = self.begins.checked_sub(length).filter(|b| *b > 0).ok_or(libc::ENAMETOOLONG)?;
        self.room.copy_within(..length, begins);
        self.begins = begins;
        path.pop();
        if self.text().first() == Some(&b'/') {
            path.length = 0;
        }
        Ok(())
    }

    fn put_before(&mut self, bytes: &[u8]) -> Result<(), c_int> {
        let begins = self.begins.checked_sub(bytes.len()).ok_or(libc::ENAMETOOLONG)?;
        self.room.get_mut(begins..self.begins).ok_or(libc::ENAMETOOLONG)?.copy_from_slice(bytes);
        self.begins = begins;
        Ok(())
    }
}

/// Where a path begins.
fn begin(dir: c_int, given: &[u8], path: &mut Path) -> Result<(), c_int> {
    (path.length, path.cut) = (0, false);
    if given.first() == Some(&b'/') {
        return Ok(());
    }
    let found = if dir == libc::AT_FDCWD { path.take_working_directory() } else { link_of(dir, path) };
    // that says nothing of the name
    found.map_err(|_| libc::ESTALE)?;
    // it has lost its name, or is not where it could be reached
    if path.as_bytes().first() != Some(&b'/') || path.as_bytes().ends_with(b" (deleted)") {
        return Err(libc::ESTALE);
    }
    path.begin_names();
    Ok(())
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
    let read = |of: &str, path: &mut Path| {
        let mut name = Text::new();
        let _ = write!(name, "/proc/{of}/fd/{fd}");
        sys::read_link(name.as_c(), path.cleared())
    };
    let length = match read("self", path) {
        // the first thread has ended, and others go on: a process of which that is so has none there
        Err(libc::ENOENT) => read("thread-self", path)?,
        length => length?,
    };
    path.set(length);
    Ok(())
}

/// Where something is that has this name now. `follow`: that to which a symlink of this name leads.
pub(crate) fn of_existing(ring: &Ring<'_>, dir: c_int, name: &CStr, follow: bool, path: &mut Path) -> Where {
    let at = of_resolved(ring, dir, name.to_bytes(), follow, path);
    at.unwrap_or_else(|| of_opened_name(ring, dir, name, follow, path))
}

/// The same, if that can be found out name by name.
fn of_resolved(ring: &Ring<'_>, dir: c_int, name: &[u8], follow: bool, path: &mut Path) -> Option<Where> {
    match resolve(dir, name, follow, path) {
        Ok(Some(_)) => Some(path.checked(ring)),
        // whoever has removed it tells that
        Err(libc::ENOENT | libc::ENOTDIR) => Some(Where::Elsewhere),
        // a path that is too long, behind which there may be a symlink; an ancestor that may not be searched, a text that is
        // too long
        Ok(None) | Err(_) => None,
    }
}

/// The same by opening it.
#[cold]
#[inline(never)]
fn of_opened_name(ring: &Ring<'_>, dir: c_int, name: &CStr, follow: bool, path: &mut Path) -> Where {
    let how = if follow { 0 } else { libc::O_NOFOLLOW };
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
        parent if parent.first() == Some(&b'/') => of_absolute_parent(ring, parent, path),
        b"" if dir == libc::AT_FDCWD => of_working_directory(ring, path),
        b"" => of_open(ring, dir, path),
        parent => of_parent(ring, dir, parent, path),
    };
    // the mirrored directory itself is a name in a directory that is not mirrored: who takes it away ends the mirror
    if found == Where::Here {
        path.push(name);
    }
    found
}

/// A directory by its absolute path: programs use the same ones again and again.
fn of_absolute_parent(ring: &Ring<'_>, parent: &[u8], path: &mut Path) -> Where {
    // it ends with a slash
    let used = parent.strip_suffix(b"/").unwrap_or(parent);
    match parents::look(ring, used, path) {
        Some(Parent::Elsewhere) => return Where::Elsewhere,
        Some(Parent::Here) => return Where::Here,
        None => {}
    }
    let changes = ring.settled_changes();
    let at = of_parent(ring, libc::AT_FDCWD, parent, path);
    match at {
        Where::Elsewhere => parents::remember(changes, used, b""),
        Where::Here if !path.is_cut() => parents::remember(changes, used, path.as_bytes()),
        _ => {}
    }
    at
}

fn of_working_directory(ring: &Ring<'_>, path: &mut Path) -> Where {
    match path.take_working_directory() {
        Ok(()) => {}
        Err(libc::ENOENT) => return Where::Elsewhere,
        // longer than the buffer, which is not filled then
        Err(_) => return of_existing(ring, libc::AT_FDCWD, c".", true, path),
    }
    path.checked(ring)
}

fn of_parent(ring: &Ring<'_>, dir: c_int, parent: &[u8], path: &mut Path) -> Where {
    const SHORT_BYTES: usize = 512;
    match of_resolved(ring, dir, parent, true, path) {
        Some(at) => at,
        None if parent.len() < SHORT_BYTES => of_opened_parent::<SHORT_BYTES>(ring, dir, parent, path),
        None => of_opened_parent::<4096>(ring, dir, parent, path),
    }
}

/// The same by opening it, for which it is to end with NUL.
#[cold]
#[inline(never)]
fn of_opened_parent<const N: usize>(ring: &Ring<'_>, dir: c_int, parent: &[u8], path: &mut Path) -> Where {
    let mut copy = [0_u8; N];
    match copy.get_mut(..parent.len()) {
        Some(place) => place.copy_from_slice(parent),
        None => return Where::Unknown,
    }
    match CStr::from_bytes_until_nul(&copy) {
        Ok(name) => of_opened_name(ring, dir, name, true, path),
        Err(_) => Where::Unknown,
    }
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
