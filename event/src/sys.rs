//! The calls that rustix does not have, and the only `unsafe` of this crate.

use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io::Errno;
use std::ffi::CStr;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// Most bytes of a file handle (`MAX_HANDLE_SZ`).
const HANDLE_BYTES: usize = 128;

fn check(result: libc::c_long) -> Result<libc::c_int, Errno> {
    if result >= 0 {
        return libc::c_int::try_from(result).map_err(|_| Errno::OVERFLOW);
    }
    Err(std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error))
}

/// fanotify_init(2).
pub(crate) fn fanotify_init(flags: libc::c_uint, event_flags: libc::c_int) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes two numbers.
    let fd = check(unsafe { libc::syscall(libc::SYS_fanotify_init, flags, event_flags) })?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// fanotify_mark(2) of `path`, seen from `dir`.
#[cfg(target_pointer_width = "64")]
pub(crate) fn fanotify_mark(
    group: BorrowedFd<'_>,
    flags: libc::c_uint,
    mask: u64,
    dir: BorrowedFd<'_>,
    path: &CStr,
) -> Result<(), Errno> {
    // SAFETY: the descriptors are open through the call, and the path is NUL-ended.
    check(unsafe {
        libc::syscall(libc::SYS_fanotify_mark, group.as_raw_fd(), flags, mask, dir.as_raw_fd(), path.as_ptr())
    })
    .map(drop)
}

/// fanotify_mark(2) takes its mask in two halves here, in an order that depends on the processor: not done.
#[cfg(not(target_pointer_width = "64"))]
pub(crate) fn fanotify_mark(
    _: BorrowedFd<'_>,
    _: libc::c_uint,
    _: u64,
    _: BorrowedFd<'_>,
    _: &CStr,
) -> Result<(), Errno> {
    Err(Errno::NOSYS)
}

/// `struct file_handle` with room for every handle.
#[repr(C)]
pub(crate) struct FileHandle {
    bytes: u32,
    kind: i32,
    handle: [u8; HANDLE_BYTES],
}

/// open_by_handle_at(2) with `O_PATH`: a handle of this kind on the file system of `mount`.
pub(crate) fn open_by_handle(mount: BorrowedFd<'_>, kind: i32, handle: &[u8]) -> Result<OwnedFd, Errno> {
    let bytes = u32::try_from(handle.len()).map_err(|_| Errno::INVAL)?;
    let mut whole = FileHandle { bytes, kind, handle: [0; HANDLE_BYTES] };
    whole.handle.get_mut(..handle.len()).ok_or(Errno::INVAL)?.copy_from_slice(handle);
    let flags = libc::O_PATH | libc::O_CLOEXEC;
    // SAFETY: `whole` lives through the call; `bytes` is not more than it has room for.
    let fd = check(unsafe {
        libc::syscall(libc::SYS_open_by_handle_at, mount.as_raw_fd(), &raw mut whole, flags)
    })?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// name_to_handle_at(2) of a relative path, of which the last name is not followed.
pub(crate) fn handle_of(dir: BorrowedFd<'_>, path: &CStr) -> Result<FileHandle, Errno> {
    let mut whole = FileHandle { bytes: HANDLE_BYTES as u32, kind: 0, handle: [0; HANDLE_BYTES] };
    let mut mount: libc::c_int = 0;
    // SAFETY: all live through the call; `bytes` is what there is room for, and the path is NUL-ended.
    check(unsafe {
        let (whole, mount) = (&raw mut whole, &raw mut mount);
        libc::syscall(libc::SYS_name_to_handle_at, dir.as_raw_fd(), path.as_ptr(), whole, mount, 0)
    })?;
    Ok(whole)
}

impl FileHandle {
    /// Its kind, and what it consists of.
    pub(crate) fn parts(&self) -> (i32, &[u8]) {
        let bytes = usize::try_from(self.bytes).ok().and_then(|n| self.handle.get(..n));
        (self.kind, bytes.unwrap_or_default())
    }
}

/// A file that is mapped, to be read and written by all who map it.
pub(crate) struct Mapping {
    at: *mut libc::c_void,
    bytes: usize,
}

// SAFETY: it is memory that belongs to nobody; all access is by atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// mmap(2) of the first bytes of a file, which must be as long at least, and stay so.
    pub(crate) fn new(file: BorrowedFd<'_>, bytes: usize) -> Result<Mapping, Errno> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses a place where nothing is.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(check(-1).err().unwrap_or(Errno::IO));
        }
        Ok(Mapping { at, bytes })
    }

    /// What is mapped.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: so much is mapped while this lives, at the beginning of a page.
        unsafe { std::slice::from_raw_parts(self.at.cast(), self.bytes / size_of::<AtomicU64>()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it was mapped so, and what borrows from it is gone.
        unsafe { libc::munmap(self.at, self.bytes) };
    }
}

fn futex(word: &AtomicU64, operation: libc::c_int, value: u32, timeout: Option<&libc::timespec>) {
    let low = word.as_ptr() as usize + if cfg!(target_endian = "big") { 4 } else { 0 };
    let timeout = timeout.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the word and the time live through the call. What it returns does not matter: the caller looks again.
    unsafe { libc::syscall(libc::SYS_futex, low, operation, value, timeout) };
}

/// Waits while the low half of a shared word has a value, until somebody wakes us, or for no reason.
pub(crate) fn futex_wait(word: &AtomicU64, value: u32, timeout: Duration) {
    let tv_nsec = timeout.subsec_nanos().into();
    let timeout = libc::timespec { tv_sec: timeout.as_secs().try_into().unwrap_or(1), tv_nsec };
    futex(word, libc::FUTEX_WAIT, value, Some(&timeout));
}

/// Wakes who waits for a shared word.
pub(crate) fn futex_wake(word: &AtomicU64) {
    futex(word, libc::FUTEX_WAKE, i32::MAX as u32, None);
}
