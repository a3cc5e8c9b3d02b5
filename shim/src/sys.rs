//! System calls that leave `errno` alone, and are no points of cancellation.

use core::arch::asm;
use core::ffi::{CStr, c_char, c_int, c_long};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What a system call has returned: not negative, or an error number.
type Result<T> = core::result::Result<T, c_int>;

#[cfg(target_arch = "x86_64")]
unsafe fn call(number: c_long, a: [usize; 6]) -> Result<usize> {
    let result: isize;
    // SAFETY: the caller vouches for the call; the kernel keeps all registers but these three.
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result,
            in("rdi") a[0], in("rsi") a[1], in("rdx") a[2], in("r10") a[3], in("r8") a[4], in("r9") a[5],
            lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    answer(result)
}

#[cfg(target_arch = "aarch64")]
unsafe fn call(number: c_long, a: [usize; 6]) -> Result<usize> {
    let result: isize;
    // SAFETY: the caller vouches for the call; the kernel keeps all registers but this one.
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a[0] => result,
            in("x1") a[1], in("x2") a[2], in("x3") a[3], in("x4") a[4], in("x5") a[5], options(nostack));
    }
    answer(result)
}

fn answer(result: isize) -> Result<usize> {
    if (-4095..0).contains(&result) { Err(-result as c_int) } else { Ok(result as usize) }
}

fn of(fd: c_int) -> usize {
    fd as isize as usize
}

/// openat(2).
pub(crate) fn open_at(dir: c_int, path: &CStr, flags: c_int) -> Result<c_int> {
    // SAFETY: the path is NUL-ended. A descriptor that nobody knows harms nobody.
    unsafe { call(libc::SYS_openat, [of(dir), path.as_ptr() as usize, of(flags), 0, 0, 0]) }
        .map(|fd| fd as c_int)
}

/// Each descriptor that this process has open, but that by which `/proc/self/fd` is listed; `false`: that cannot be listed.
#[cold]
#[inline(never)]
pub(crate) fn each_descriptor(does: &mut dyn FnMut(c_int)) -> bool {
    // of an entry: its length, and its name
    const LENGTH: usize = 16;
    const NAME: usize = 19;
    let Ok(list) =
        open_at(libc::AT_FDCWD, c"/proc/self/fd", libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC)
    else {
        return false;
    };
    let mut entries = [0_u64; 128];
    loop {
        let at = entries.as_mut_ptr();
        // SAFETY: it is as long as is said, and aligned as entries are.
        let bytes = unsafe {
            call(libc::SYS_getdents64, [of(list), at as usize, size_of_val(&entries), 0, 0, 0])
                .map(|length| core::slice::from_raw_parts(at.cast::<u8>(), length))
        };
        let mut rest = match bytes {
            Ok(bytes) if !bytes.is_empty() => bytes,
            _ => break,
        };
        while let Some([low, high]) = rest.get(LENGTH..NAME - 1) {
            let length = usize::from(u16::from_le_bytes([*low, *high]));
            let name = rest.get(NAME..length).unwrap_or_default();
            let digits = name.iter().take_while(|b| b.is_ascii_digit());
            let number =
                digits.fold(0_i32, |n, b| n.saturating_mul(10).saturating_add(c_int::from(*b - b'0')));
            if number != list && name.first().is_some_and(u8::is_ascii_digit) {
                does(number);
            }
            rest = rest.get(length.max(NAME)..).unwrap_or_default();
        }
    }
    close(list);
    true
}

/// close(2), of one of our own.
pub(crate) fn close(fd: c_int) {
    // SAFETY: only what was opened here is closed here.
    let _ = unsafe { call(libc::SYS_close, [of(fd), 0, 0, 0, 0, 0]) };
}

/// fstat(2).
pub(crate) fn stat_of(fd: c_int) -> Result<libc::stat> {
    let mut out = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: on these processors `stat` of the C library is that of the kernel.
    unsafe {
        call(libc::SYS_fstat, [of(fd), out.as_mut_ptr() as usize, 0, 0, 0, 0])?;
        Ok(out.assume_init())
    }
}

/// newfstatat(2).
pub(crate) fn stat_at(dir: c_int, path: &CStr, flags: c_int) -> Result<libc::stat> {
    stat_at_address(dir, path.as_ptr(), flags)
}

/// Whether the kernel can read a path of the program's at that address.
#[inline(never)]
pub(crate) fn is_path(dir: c_int, path: *const c_char) -> bool {
    !path.is_null() && !matches!(stat_at_address(dir, path, libc::AT_SYMLINK_NOFOLLOW), Err(libc::EFAULT))
}

fn stat_at_address(dir: c_int, path: *const c_char, flags: c_int) -> Result<libc::stat> {
    let mut out = MaybeUninit::<libc::stat>::uninit();
    // SAFETY: as above; what is no path the kernel refuses.
    unsafe {
        let at = [of(dir), path as usize, out.as_mut_ptr() as usize, of(flags), 0, 0];
        call(libc::SYS_newfstatat, at)?;
        Ok(out.assume_init())
    }
}

/// fcntl(2) with `F_GETFL` or `F_GETFD`.
pub(crate) fn flags_of(fd: c_int, which: c_int) -> Result<c_int> {
    // SAFETY: both only ask.
    unsafe { call(libc::SYS_fcntl, [of(fd), of(which), 0, 0, 0, 0]) }.map(|f| f as c_int)
}

/// readlink(2).
pub(crate) fn read_link(path: &CStr, out: &mut [u8]) -> Result<usize> {
    let at = [of(libc::AT_FDCWD), path.as_ptr() as usize, out.as_mut_ptr() as usize, out.len(), 0, 0];
    // SAFETY: the path is NUL-ended, and `out` is as long as is said.
    unsafe { call(libc::SYS_readlinkat, at) }
}

/// getcwd(2): its length, without the NUL.
pub(crate) fn working_directory(out: &mut [u8]) -> Result<usize> {
    // SAFETY: `out` is as long as is said.
    let length = unsafe { call(libc::SYS_getcwd, [out.as_mut_ptr() as usize, out.len(), 0, 0, 0, 0]) }?;
    Ok(length.saturating_sub(1))
}

/// getpid(2).
pub(crate) fn process() -> u32 {
    // SAFETY: it only asks.
    unsafe { call(libc::SYS_getpid, [0; 6]) }.map_or(0, |pid| pid as u32)
}

/// Which namespace of process numbers this process is in: the inode of `/proc/self/ns/pid`. 0: that cannot be found out.
/// A process that has not used /proc yet pays 20 µs for its first look there, so it is asked of a descriptor of the
/// process, which answers since Linux 6.11.
pub(crate) fn namespace() -> u64 {
    const PIDFD_GET_PID_NAMESPACE: usize = 0xff05;
    // valgrind 3.19 does not know pidfd_open and says so on the program's standard error, which is then not what it was
    if under_valgrind() {
        return stat_at(libc::AT_FDCWD, c"/proc/self/ns/pid", 0).map_or(0, |s| s.st_ino);
    }
    // SAFETY: it returns a descriptor that nobody else knows.
    let asked =
        unsafe { call(libc::SYS_pidfd_open, [process() as usize, 0, 0, 0, 0, 0]) }.and_then(|pidfd| {
            // SAFETY: as above; what is asked takes no argument.
            let namespace = unsafe { call(libc::SYS_ioctl, [pidfd, PIDFD_GET_PID_NAMESPACE, 0, 0, 0, 0]) };
            close(pidfd as c_int);
            namespace
        });
    let inode = asked.and_then(|fd| {
        let s = stat_of(fd as c_int);
        close(fd as c_int);
        s
    });
    inode.or_else(|_| stat_at(libc::AT_FDCWD, c"/proc/self/ns/pid", 0)).map_or(0, |s| s.st_ino)
}

/// Whether valgrind runs this process: its request `RUNNING_ON_VALGRIND` (valgrind.h), which does nothing elsewhere.
#[cfg(target_arch = "x86_64")]
fn under_valgrind() -> bool {
    let request = [0x1001_u64, 0, 0, 0, 0, 0];
    let mut answer = 0_u64;
    // SAFETY: the rotations, 128 bits in all, leave rdi as it was, and the exchange does nothing.
    unsafe {
        core::arch::asm!("rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") request.as_ptr(), inout("rdx") answer, options(nostack));
    }
    answer != 0
}

/// Elsewhere nobody asks.
#[cfg(not(target_arch = "x86_64"))]
fn under_valgrind() -> bool {
    false
}

/// After so many questions the clock is read by way of the C library: that costs a process two pages when it does so first,
/// and next to nothing afterwards.
const QUESTIONS: u32 = 16;
#[unsafe(link_section = ".data.hot")]
static ASKED: AtomicU32 = AtomicU32::new(0);

/// clock_gettime(2) of a clock that the C library reads without a system call: milliseconds, but it goes in steps of
/// some of them.
pub(crate) fn ticks() -> u64 {
    let mut at = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    let clock = libc::CLOCK_MONOTONIC_COARSE;
    let is_early = ASKED.load(Relaxed) < QUESTIONS;
    if is_early {
        ASKED.fetch_add(1, Relaxed);
    }
    // SAFETY: `at` is one, and on these processors that of the C library is that of the kernel.
    let mut ask = || unsafe { call(libc::SYS_clock_gettime, [of(clock), &raw mut at as usize, 0, 0, 0, 0]) };
    if !is_early || ask().is_err() {
        // SAFETY: `at` is one. It cannot fail with this clock, so `errno` stays.
        unsafe { libc::clock_gettime(clock, &raw mut at) };
    }
    at.tv_sec as u64 * 1000 + at.tv_nsec as u64 / 1_000_000
}

/// This process has been forked: those pages are none of its own yet.
pub(crate) fn forked() {
    ASKED.store(0, Relaxed);
}

/// geteuid(2).
pub(crate) fn user() -> u32 {
    // SAFETY: it only asks.
    unsafe { call(libc::SYS_geteuid, [0; 6]) }.map_or(u32::MAX, |uid| uid as u32)
}

/// mmap(2) of a file from an offset, which is that of a page, for all who map it.
pub(crate) fn map(fd: c_int, from: usize, bytes: usize) -> Result<usize> {
    let protection = of(libc::PROT_READ | libc::PROT_WRITE);
    // SAFETY: the kernel chooses a place where nothing is.
    unsafe { call(libc::SYS_mmap, [0, bytes, protection, of(libc::MAP_SHARED), of(fd), from]) }
}

/// mmap(2) of memory, zeroed, of this process alone.
pub(crate) fn memory(bytes: usize) -> Result<usize> {
    let protection = of(libc::PROT_READ | libc::PROT_WRITE);
    let how = of(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: the kernel chooses a place where nothing is.
    unsafe { call(libc::SYS_mmap, [0, bytes, protection, how, of(-1), 0]) }
}

/// madvise(2) with `MADV_WIPEONFORK`, of memory of our own: whether the kernel does so.
pub(crate) fn wipe_on_fork(at: usize, bytes: usize) -> bool {
    // SAFETY: it changes nothing of this process.
    unsafe { call(libc::SYS_madvise, [at, bytes, of(libc::MADV_WIPEONFORK), 0, 0, 0]) }.is_ok()
}

/// munmap(2), of one of our own.
pub(crate) fn unmap(at: usize, bytes: usize) {
    // SAFETY: the caller has just mapped it, and told nobody.
    let _ = unsafe { call(libc::SYS_munmap, [at, bytes, 0, 0, 0, 0]) };
}

/// futex(2): wakes one who waits for the word, in whatever process.
pub(crate) fn wake(word: &core::sync::atomic::AtomicU64) {
    let low = word.as_ptr() as usize + if cfg!(target_endian = "big") { 4 } else { 0 };
    // SAFETY: the kernel only takes the address as a name.
    let _ = unsafe { call(libc::SYS_futex, [low, of(libc::FUTEX_WAKE), 1, 0, 0, 0]) };
}

/// Ends this process.
pub(crate) fn abort() -> ! {
    loop {
        // SAFETY: nothing comes after it.
        let _ = unsafe { call(libc::SYS_exit_group, [134, 0, 0, 0, 0, 0]) };
    }
}
