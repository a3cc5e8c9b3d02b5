//! Opening, closing, and changing by way of a descriptor.

use crate::descriptors::{
    Flushes, Plain, closing, closing_all, copied, held, is_for_writing, opened, opening,
};
use crate::life::flushed;
use crate::next::keeping_errno;
use crate::stand_in;
use crate::table;
use crate::tell::{Name, existing, under_way};
use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use libc::{AT_FDCWD, DIR, FILE, mode_t, off_t, size_t, ssize_t};
use treeferry_ring::Kind;

// A function with variable arguments that takes one more, if at all, gets it where a fixed one would be on these
// processors; what is there if there was none is handed on and not looked at.
const CREATES: c_int = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;

stand_in! {
    fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int, real(flags) => opening(flags, Name(AT_FDCWD, path), &real)
    fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int, real(flags) => opening(flags, Name(AT_FDCWD, path), &real)
    fn openat(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int, real(flags) => {
        opening(flags, Name(dir, path), &real)
    }
    fn openat64(dir: c_int, path: *const c_char, flags: c_int, mode: mode_t) -> c_int, real(flags) => {
        opening(flags, Name(dir, path), &real)
    }
    // what the compiler makes of them when it checks their arguments
    fn __open_2(path: *const c_char, flags: c_int) -> c_int, real(flags) => opening(flags, Name(AT_FDCWD, path), &real)
    fn __open64_2(path: *const c_char, flags: c_int) -> c_int, real(flags) => opening(flags, Name(AT_FDCWD, path), &real)
    fn __openat_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int, real(flags) => {
        opening(flags, Name(dir, path), &real)
    }
    fn __openat64_2(dir: c_int, path: *const c_char, flags: c_int) -> c_int, real(flags) => {
        opening(flags, Name(dir, path), &real)
    }
    fn mkstemp(template: *mut c_char) -> c_int, real => under_way(|| made(real(), template))
    fn mkstemp64(template: *mut c_char) -> c_int, real => under_way(|| made(real(), template))
    fn mkostemp(template: *mut c_char, flags: c_int) -> c_int, real => under_way(|| made(real(), template))
    fn mkostemp64(template: *mut c_char, flags: c_int) -> c_int, real => under_way(|| made(real(), template))
    fn mkstemps(template: *mut c_char, suffix: c_int) -> c_int, real => under_way(|| made(real(), template))
    fn mkstemps64(template: *mut c_char, suffix: c_int) -> c_int, real => under_way(|| made(real(), template))
    fn mkostemps(template: *mut c_char, suffix: c_int, flags: c_int) -> c_int, real => under_way(|| made(real(), template))
    fn mkostemps64(template: *mut c_char, suffix: c_int, flags: c_int) -> c_int, real => under_way(|| made(real(), template))

    fn fopen(path: *const c_char, mode: *const c_char) -> *mut FILE, real => stream(mode, path, real)
    fn fopen64(path: *const c_char, mode: *const c_char) -> *mut FILE, real => stream(mode, path, real)
    fn freopen(path: *const c_char, mode: *const c_char, file: *mut FILE) -> *mut FILE, real => {
        stream(mode, path, || closing(descriptor(file), Flushes::Yes, real, |_| true))
    }
    fn freopen64(path: *const c_char, mode: *const c_char, file: *mut FILE) -> *mut FILE, real => {
        stream(mode, path, || closing(descriptor(file), Flushes::Yes, real, |_| true))
    }
    fn fclose(file: *mut FILE) -> c_int, real => closing(descriptor(file), Flushes::Yes, real, |_| true)
    fn fcloseall() -> c_int, real => { let result = real(); flushed(); result }

    // also if it fails: the descriptor is closed even then
    fn close(fd: c_int) -> c_int, real => closing(fd, Flushes::No, real, |_| true)
    fn closedir(stream: *mut DIR) -> c_int, real => { forgotten(stream); real() }
    fn dup(fd: c_int) -> c_int, real => copied(fd, real())
    fn dup2(old: c_int, new: c_int) -> c_int, real => over(old, new, real)
    fn dup3(old: c_int, new: c_int, flags: c_int) -> c_int, real => over(old, new, real)
    fn fcntl(fd: c_int, command: c_int, word: *mut c_void) -> c_int, real => controlled(fd, command, real())
    fn fcntl64(fd: c_int, command: c_int, word: *mut c_void) -> c_int, real => controlled(fd, command, real())
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int, real => {
        // what else there may be is refused, or closes nothing
        const UNSHARE: c_int = libc::CLOSE_RANGE_UNSHARE as c_int;
        if matches!(flags, 0 | UNSHARE) { closing_all(first, last, real) } else { real() }
    }
    fn closefrom(first: c_int) -> (), real => { closing_all(first.max(0) as c_uint, c_uint::MAX, || { real(); 0 }); }

    fn truncate(path: *const c_char, length: off_t) -> c_int, real => under_way(|| changed(real(), path))
    fn truncate64(path: *const c_char, length: off_t) -> c_int, real => under_way(|| changed(real(), path))
    fn ftruncate(fd: c_int, length: off_t) -> c_int, real => { let r = real(); still(r == 0, fd); r }
    fn ftruncate64(fd: c_int, length: off_t) -> c_int, real => { let r = real(); still(r == 0, fd); r }
    fn fallocate(fd: c_int, mode: c_int, from: off_t, length: off_t) -> c_int, real => {
        let r = real(); still(r == 0, fd); r
    }
    fn fallocate64(fd: c_int, mode: c_int, from: off_t, length: off_t) -> c_int, real => {
        let r = real(); still(r == 0, fd); r
    }
    fn posix_fallocate(fd: c_int, from: off_t, length: off_t) -> c_int, real => { let r = real(); still(r == 0, fd); r }
    fn posix_fallocate64(fd: c_int, from: off_t, length: off_t) -> c_int, real => {
        let r = real(); still(r == 0, fd); r
    }
    fn sendfile(to: c_int, from: c_int, at: *mut off_t, count: size_t) -> ssize_t, real => {
        let r = real(); still(r > 0, to); r
    }
    fn sendfile64(to: c_int, from: c_int, at: *mut off_t, count: size_t) -> ssize_t, real => {
        let r = real(); still(r > 0, to); r
    }
    fn copy_file_range(
        from: c_int, from_at: *mut off_t, to: c_int, to_at: *mut off_t, count: size_t, flags: c_uint,
    ) -> ssize_t, real => { let r = real(); still(r > 0, to); r }
}

/// It has no flags to which one could be added that says not to follow a symlink; but it is a call of open(2).
#[unsafe(no_mangle)]
unsafe extern "C" fn creat(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: the caller vouches for the path as to the C library.
    unsafe { open(path, CREATES, mode) }
}

/// The same.
#[unsafe(no_mangle)]
unsafe extern "C" fn creat64(path: *const c_char, mode: mode_t) -> c_int {
    // SAFETY: as above.
    unsafe { open64(path, CREATES, mode) }
}

/// An open file was written, and stays open.
fn still(succeeded: bool, fd: c_int) {
    if succeeded {
        held(fd);
    }
}

/// One descriptor becomes a copy of another, and what it was is closed.
fn over(old: c_int, new: c_int, real: impl Fn() -> c_int) -> c_int {
    if old == new {
        return real();
    }
    let was_asked = table::is_asked_for(new);
    let result = closing(new, Flushes::No, real, |r| *r >= 0);
    if result < 0 && was_asked {
        table::ask_for(new);
    }
    copied(old, result)
}

fn controlled(fd: c_int, command: c_int, result: c_int) -> c_int {
    match command {
        libc::F_DUPFD | libc::F_DUPFD_CLOEXEC => copied(fd, result),
        // what was added when it was opened, perhaps by another process, and the program has not asked for
        libc::F_GETFL if result >= 0 && is_for_writing(result) && !table::is_asked_for(fd) => {
            result & !libc::O_NOFOLLOW
        }
        _ => result,
    }
}

/// A temporary file was made, and its name written into the template.
fn made(fd: c_int, template: *const c_char) -> c_int {
    opened(fd, CREATES, Name(AT_FDCWD, template), Plain::Yes)
}

fn changed(result: c_int, path: *const c_char) -> c_int {
    if result == 0 {
        existing(Kind::Changed, AT_FDCWD, path, true);
    }
    result
}

#[link(name = "c")]
unsafe extern "C" {
    fn fileno(file: *mut FILE) -> c_int;
}

/// The descriptor of a stream, or -1.
fn descriptor(file: *mut FILE) -> c_int {
    if file.is_null() || !crate::shared::is_named() {
        return -1;
    }
    // SAFETY: the program hands it to a call that takes it for an open stream too.
    keeping_errno(|| unsafe { fileno(file) })
}

/// A directory will be closed.
fn forgotten(stream: *mut DIR) {
    if !stream.is_null() && crate::shared::is_named() {
        // SAFETY: the program hands it to a call that takes it for an open stream too.
        table::take(keeping_errno(|| unsafe { libc::dirfd(stream) }));
    }
}

fn stream(mode: *const c_char, path: *const c_char, real: impl FnOnce() -> *mut FILE) -> *mut FILE {
    if mode.is_null() || !crate::shared::is_named() {
        return real();
    }
    // SAFETY: the program hands it to a call that reads it too.
    let text = unsafe { CStr::from_ptr(mode) }.to_bytes();
    // what comes after a comma names a character set
    let text = text.split(|b| *b == b',').next().unwrap_or_default();
    let writes = text.iter().any(|b| matches!(b, b'w' | b'a' | b'+'));
    let flags = if writes { CREATES } else { libc::O_RDONLY };
    let opens = || {
        let file = real();
        opened(descriptor(file), flags, Name(AT_FDCWD, path), Plain::Unknown);
        file
    };
    if writes { under_way(opens) } else { opens() }
}
