//! Making, removing and renaming.

use crate::parents::going;
use crate::stand_in;
use crate::tell::{Name, changing, linked, name, removing, renaming};
use core::ffi::{c_char, c_int, c_uint, c_ulong, c_void};
use libc::{AT_FDCWD, dev_t, mode_t};
use treeferry_ring::Kind;

stand_in! {
    fn chdir(path: *const c_char) -> c_int, real => going(real)
    fn fchdir(dir: c_int) -> c_int, real => going(real)
}

stand_in! {
    told;
    fn rename(old: *const c_char, new: *const c_char) -> c_int, real => {
        renaming(Name(AT_FDCWD, old), Name(AT_FDCWD, new), false, &real)
    }
    fn renameat(old_dir: c_int, old: *const c_char, new_dir: c_int, new: *const c_char) -> c_int, real => {
        renaming(Name(old_dir, old), Name(new_dir, new), false, &real)
    }
    fn renameat2(
        old_dir: c_int, old: *const c_char, new_dir: c_int, new: *const c_char, flags: c_uint,
    ) -> c_int, real => {
        renaming(Name(old_dir, old), Name(new_dir, new), flags & libc::RENAME_EXCHANGE != 0, &real)
    }
    fn link(old: *const c_char, new: *const c_char) -> c_int, real => {
        // it may be a symlink that gets another name
        let r = changing(real);
        if r == 0 { linked(Name(AT_FDCWD, old), Name(AT_FDCWD, new), false); }
        r
    }
    fn linkat(old_dir: c_int, old: *const c_char, new_dir: c_int, new: *const c_char, flags: c_int) -> c_int, real => {
        // it may be a symlink that gets another name
        let r = changing(real);
        if r == 0 { linked(Name(old_dir, old), Name(new_dir, new), flags & libc::AT_SYMLINK_FOLLOW != 0); }
        r
    }
    fn symlink(text: *const c_char, path: *const c_char) -> c_int, real => made(changing(real), Kind::Changed, AT_FDCWD, path)
    fn symlinkat(text: *const c_char, dir: c_int, path: *const c_char) -> c_int, real => {
        made(changing(real), Kind::Changed, dir, path)
    }
    fn mkdir(path: *const c_char, mode: mode_t) -> c_int, real => made(changing(real), Kind::Tree, AT_FDCWD, path)
    fn mkdirat(dir: c_int, path: *const c_char, mode: mode_t) -> c_int, real => made(changing(real), Kind::Tree, dir, path)
    fn mkdtemp(template: *mut c_char) -> *mut c_char, real => {
        let made = changing(real);
        if !made.is_null() { name(Kind::Tree, AT_FDCWD, made); }
        made
    }
    fn mknod(path: *const c_char, mode: mode_t, device: dev_t) -> c_int, real => {
        made(real(), Kind::Changed, AT_FDCWD, path)
    }
    fn mknodat(dir: c_int, path: *const c_char, mode: mode_t, device: dev_t) -> c_int, real => {
        made(real(), Kind::Changed, dir, path)
    }
    // what mknod was before glibc 2.33
    fn __xmknod(version: c_int, path: *const c_char, mode: mode_t, device: *mut dev_t) -> c_int, real => {
        made(real(), Kind::Changed, AT_FDCWD, path)
    }
    fn __xmknodat(
        version: c_int, dir: c_int, path: *const c_char, mode: mode_t, device: *mut dev_t,
    ) -> c_int, real => made(real(), Kind::Changed, dir, path)
    fn mkfifo(path: *const c_char, mode: mode_t) -> c_int, real => made(real(), Kind::Changed, AT_FDCWD, path)
    fn mkfifoat(dir: c_int, path: *const c_char, mode: mode_t) -> c_int, real => {
        made(real(), Kind::Changed, dir, path)
    }

    fn unlink(path: *const c_char) -> c_int, real => removing(Kind::Changed, AT_FDCWD, path, &real)
    fn unlinkat(dir: c_int, path: *const c_char, flags: c_int) -> c_int, real => {
        let kind = if flags & libc::AT_REMOVEDIR == 0 { Kind::Changed } else { Kind::Tree };
        removing(kind, dir, path, &real)
    }
    fn rmdir(path: *const c_char) -> c_int, real => removing(Kind::Tree, AT_FDCWD, path, &real)
    fn remove(path: *const c_char) -> c_int, real => removing(Kind::Tree, AT_FDCWD, path, &real)
    // what changes where all paths lead
    fn chroot(path: *const c_char) -> c_int, real => changing(real)
    fn mount(
        what: *const c_char, path: *const c_char, kind: *const c_char, flags: c_ulong, data: *const c_void,
    ) -> c_int, real => changing(real)
    fn umount(path: *const c_char) -> c_int, real => changing(real)
    fn umount2(path: *const c_char, flags: c_int) -> c_int, real => changing(real)
    // a socket gets its name so
    fn bind(socket: c_int, address: *const libc::sockaddr, length: libc::socklen_t) -> c_int, real => {
        let r = real();
        if r == 0 { bound(address, length); }
        r
    }
}

fn made(result: c_int, kind: Kind, dir: c_int, path: *const c_char) -> c_int {
    if result == 0 {
        name(kind, dir, path);
    }
    result
}

fn bound(address: *const libc::sockaddr, length: libc::socklen_t) {
    const FAMILY_BYTES: usize = size_of::<libc::sa_family_t>();
    let Some(room) = (length as usize).checked_sub(FAMILY_BYTES).filter(|_| !address.is_null()) else {
        return;
    };
    // SAFETY: the call that has succeeded with it has read so many bytes of it; none needs to lie on an even address.
    let (family, text) = unsafe {
        let path = address.cast::<u8>().add(FAMILY_BYTES);
        (address.cast::<libc::sa_family_t>().read_unaligned(), core::slice::from_raw_parts(path, room))
    };
    if c_int::from(family) != libc::AF_UNIX || text.first().is_none_or(|b| *b == 0) {
        return;
    }
    // it may fill its place, and have no NUL then
    let mut path = [0_u8; size_of::<libc::sockaddr_un>() + 1];
    path.iter_mut().zip(text.iter().take_while(|b| **b != 0)).for_each(|(to, b)| *to = *b);
    name(Kind::Changed, AT_FDCWD, path.as_ptr().cast());
}
