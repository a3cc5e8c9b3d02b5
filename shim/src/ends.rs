//! Beginning and end of a program, and its becoming two, or another.
//!
//! A file that is open when a program ends is told as open: the reader sees the process go, and knows then that
//! nothing more is written. So what the C library writes at the very end of `exit` is written by then.

use crate::life::{becoming_another, begun, ending, forking};
use crate::stand_in;
use crate::tell::changing;
use crate::{shared, table};
use core::arch::naked_asm;
use core::ffi::{c_char, c_int, c_void};
use libc::pid_t;

type Words = *const *const c_char;

#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: unsafe extern "C" fn(c_int, Words, Words) = begin;
#[used]
#[unsafe(link_section = ".fini_array")]
static END: extern "C" fn() = end;

unsafe extern "C" fn begin(_: c_int, _: Words, environment: Words) {
    // SAFETY: glibc hands the environment to what is called at the beginning; so does no other, which hands nothing on.
    #[cfg(target_env = "gnu")]
    unsafe {
        crate::shared::name_from(environment)
    };
    #[cfg(not(target_env = "gnu"))]
    let _ = environment;
    if crate::shared::is_named() {
        begun();
    }
}

extern "C" fn end() {
    ending();
}

stand_in! {
    fn fork() -> pid_t, real => forking(real, |r| r == 0)
    fn _Fork() -> pid_t, real => forking(real, |r| r == 0)
    fn forkpty(
        fd: *mut c_int, name: *mut c_char, terminal: *const c_void, size: *const c_void,
    ) -> pid_t, real => forking(real, |r| r == 0)
    // the child goes on, and its parent is gone
    fn daemon(nochdir: c_int, noclose: c_int) -> c_int, real => forking(real, |r| r == 0)
    fn _exit(status: c_int) -> (), real => { ending(); real(); crate::sys::abort() }
    fn _Exit(status: c_int) -> (), real => { ending(); real(); crate::sys::abort() }
    fn quick_exit(status: c_int) -> (), real => { ending(); real(); crate::sys::abort() }

    // whose children may have other process numbers, and whose paths may lead to elsewhere
    fn unshare(flags: c_int) -> c_int, real => { shared::renumbered(); changing(real) }
    fn setns(fd: c_int, kind: c_int) -> c_int, real => { shared::renumbered(); changing(real) }

    fn execve(path: *const c_char, words: Words, environment: Words) -> c_int, real => { becoming_another(); real() }
    fn execveat(
        dir: c_int, path: *const c_char, words: Words, environment: Words, flags: c_int,
    ) -> c_int, real => { becoming_another(); real() }
    fn fexecve(fd: c_int, words: Words, environment: Words) -> c_int, real => { becoming_another(); real() }
    fn execv(path: *const c_char, words: Words) -> c_int, real => { becoming_another(); real() }
    fn execvp(path: *const c_char, words: Words) -> c_int, real => { becoming_another(); real() }
    fn execvpe(path: *const c_char, words: Words, environment: Words) -> c_int, real => { becoming_another(); real() }
}

/// Stands in for a function with any number of arguments, or one that returns twice: all registers that may hold an
/// argument are as they were when the function itself begins, and so is the stack.
macro_rules! stand_in_by_jumping {
    ($(fn $name:ident, $before:ident, $does:expr)*) => {$(
        $crate::looked_up! { $name }
        extern "C" fn $before() -> *const c_void {
            $does;
            // SAFETY: a pointer to a function is one.
            unsafe { $name::NEXT.find($name::NAME) }
        }

        #[cfg(target_arch = "x86_64")]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name() -> c_int {
            naked_asm!(
                "push rdi", "push rsi", "push rdx", "push rcx", "push r8", "push r9", "push rax",
                "call {before}",
                "mov r11, rax",
                "pop rax", "pop r9", "pop r8", "pop rcx", "pop rdx", "pop rsi", "pop rdi",
                "jmp r11",
                before = sym $before,
            )
        }

        #[cfg(target_arch = "aarch64")]
        #[unsafe(naked)]
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name() -> c_int {
            naked_asm!(
                "stp x29, x30, [sp, #-80]!",
                "stp x0, x1, [sp, #16]", "stp x2, x3, [sp, #32]", "stp x4, x5, [sp, #48]", "stp x6, x7, [sp, #64]",
                "bl {before}",
                "mov x16, x0",
                "ldp x0, x1, [sp, #16]", "ldp x2, x3, [sp, #32]", "ldp x4, x5, [sp, #48]", "ldp x6, x7, [sp, #64]",
                "ldp x29, x30, [sp], #80",
                "br x16",
                before = sym $before,
            )
        }
    )*};
}

stand_in_by_jumping! {
    fn execl, before_execl, becoming_another()
    fn execlp, before_execlp, becoming_another()
    fn execle, before_execle, becoming_another()
    fn vfork, before_vfork, table::share()
}
