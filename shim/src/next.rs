//! The functions that this library stands in for: the next of their name in the order in which libraries are searched.

use crate::loaded;
use core::ffi::{CStr, c_int, c_void};
use core::mem::transmute_copy;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering::*};

#[link(name = "c")]
unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const core::ffi::c_char) -> *mut c_void;
    fn __errno_location() -> *mut c_int;
}

/// Does something that may change `errno`, and leaves it as it was.
pub(crate) fn keeping_errno<T>(what: impl FnOnce() -> T) -> T {
    // SAFETY: it is this thread's own number, as long as the thread lives.
    unsafe {
        let at = __errno_location();
        let was = *at;
        let result = what();
        *at = was;
        result
    }
}

/// Error number of this thread.
pub(crate) fn errno() -> c_int {
    // SAFETY: as above.
    unsafe { *__errno_location() }
}

/// Sets it.
pub(crate) fn set_errno(number: c_int) {
    // SAFETY: as above.
    unsafe { *__errno_location() = number };
}

/// Stands for what this C library does not have.
extern "C" fn missing() -> isize {
    set_errno(libc::ENOSYS);
    -1
}

/// A function that is looked up when it is called first.
pub(crate) struct Next(AtomicPtr<c_void>);

impl Next {
    pub(crate) const fn new() -> Next {
        Next(AtomicPtr::new(null_mut()))
    }

    /// The function.
    ///
    /// # Safety
    /// `F` is the type of a pointer to the function of this name.
    pub(crate) unsafe fn find<F: Copy>(&self, name: &CStr) -> F {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        let mut at = self.0.load(Relaxed);
        if at.is_null() {
            at = self.look_up(name);
        }
        // SAFETY: both are pointers, and the caller vouches for what it points to. What is missing takes any arguments.
        unsafe { transmute_copy(&at) }
    }

    /// Looks it up.
    #[cold]
    pub(crate) fn look_up(&self, name: &CStr) -> *mut c_void {
        let asked = || {
            // SAFETY: the name is NUL-ended.
            keeping_errno(|| unsafe { dlsym(libc::RTLD_NEXT, name.as_ptr()) })
        };
        let mut at = loaded::next(name).unwrap_or_else(asked);
        if at.is_null() {
            at = missing as *mut c_void;
        }
        self.0.store(at, Relaxed);
        at
    }
}
