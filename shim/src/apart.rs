//! Memory that few processes need, in a mapping of its own: what is part of the library is mapped into every program that
//! begins, and copied and given back with it.

use crate::parents::Cache;
use crate::sys;
use crate::table::Others;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering::*};

/// The largest page there is.
pub(crate) const PAGE_BYTES: usize = if cfg!(target_arch = "x86_64") { 4096 } else { 65_536 };

/// All zeros is a value of each of these.
#[repr(C)]
pub(crate) struct Apart {
    /// A page that the kernel may be asked to clear in whatever is forked.
    pub(crate) page: [AtomicU64; PAGE_BYTES / 8],
    pub(crate) others: Others,
    pub(crate) cache: Cache,
}

#[unsafe(link_section = ".data.hot")]
static AT: AtomicPtr<Apart> = AtomicPtr::new(null_mut());

/// If somebody has needed it.
#[inline]
pub(crate) fn get() -> Option<&'static Apart> {
    // SAFETY: it was mapped with this length, zeroed and aligned to a page, and is never unmapped.
    unsafe { AT.load(Acquire).as_ref() }
}

/// Sees to it that it is there. `None`: there is no memory.
pub(crate) fn made() -> Option<&'static Apart> {
    get().or_else(make)
}

#[cold]
fn make() -> Option<&'static Apart> {
    let at = sys::memory(size_of::<Apart>()).ok()?;
    if AT.compare_exchange(null_mut(), at as *mut Apart, AcqRel, Acquire).is_err() {
        sys::unmap(at, size_of::<Apart>());
    }
    get()
}
