//! Modes, owners, times and extended attributes.

use crate::stand_in;
use crate::tell::{existing, open};
use core::ffi::{c_char, c_int, c_void};
use libc::{AT_FDCWD, gid_t, mode_t, size_t, timespec, timeval, uid_t, utimbuf};
use treeferry_ring::Kind;

stand_in! {
    told;
    fn chmod(path: *const c_char, mode: mode_t) -> c_int, real => at(real(), AT_FDCWD, path, true)
    fn lchmod(path: *const c_char, mode: mode_t) -> c_int, real => at(real(), AT_FDCWD, path, false)
    fn fchmod(fd: c_int, mode: mode_t) -> c_int, real => of(real(), fd)
    fn fchmodat(dir: c_int, path: *const c_char, mode: mode_t, flags: c_int) -> c_int, real => {
        at(real(), dir, path, follows(flags))
    }
    fn chown(path: *const c_char, user: uid_t, group: gid_t) -> c_int, real => at(real(), AT_FDCWD, path, true)
    fn lchown(path: *const c_char, user: uid_t, group: gid_t) -> c_int, real => at(real(), AT_FDCWD, path, false)
    fn fchown(fd: c_int, user: uid_t, group: gid_t) -> c_int, real => of(real(), fd)
    fn fchownat(dir: c_int, path: *const c_char, user: uid_t, group: gid_t, flags: c_int) -> c_int, real => {
        at(real(), dir, path, follows(flags))
    }
    fn utime(path: *const c_char, times: *const utimbuf) -> c_int, real => at(real(), AT_FDCWD, path, true)
    fn utimes(path: *const c_char, times: *const timeval) -> c_int, real => at(real(), AT_FDCWD, path, true)
    fn lutimes(path: *const c_char, times: *const timeval) -> c_int, real => at(real(), AT_FDCWD, path, false)
    fn futimes(fd: c_int, times: *const timeval) -> c_int, real => of(real(), fd)
    fn futimens(fd: c_int, times: *const timespec) -> c_int, real => of(real(), fd)
    fn futimesat(dir: c_int, path: *const c_char, times: *const timeval) -> c_int, real => at(real(), dir, path, true)
    fn utimensat(dir: c_int, path: *const c_char, times: *const timespec, flags: c_int) -> c_int, real => {
        at(real(), dir, path, follows(flags))
    }
    fn setxattr(
        path: *const c_char, name: *const c_char, value: *const c_void, size: size_t, flags: c_int,
    ) -> c_int, real => at(real(), AT_FDCWD, path, true)
    fn lsetxattr(
        path: *const c_char, name: *const c_char, value: *const c_void, size: size_t, flags: c_int,
    ) -> c_int, real => at(real(), AT_FDCWD, path, false)
    fn fsetxattr(
        fd: c_int, name: *const c_char, value: *const c_void, size: size_t, flags: c_int,
    ) -> c_int, real => of(real(), fd)
    fn removexattr(path: *const c_char, name: *const c_char) -> c_int, real => at(real(), AT_FDCWD, path, true)
    fn lremovexattr(path: *const c_char, name: *const c_char) -> c_int, real => at(real(), AT_FDCWD, path, false)
    fn fremovexattr(fd: c_int, name: *const c_char) -> c_int, real => of(real(), fd)
}

fn follows(flags: c_int) -> bool {
    flags & libc::AT_SYMLINK_NOFOLLOW == 0
}

fn at(result: c_int, dir: c_int, path: *const c_char, follow: bool) -> c_int {
    if result == 0 {
        existing(Kind::Attributes, dir, path, follow);
    }
    result
}

fn of(result: c_int, fd: c_int) -> c_int {
    if result == 0 {
        open(Kind::Attributes, fd);
    }
    result
}
