//! Functions of the libraries that come after this one, found without dlsym(3): that takes a lock of the loader, which a thread may
//! hold that waits for this one (in a constructor of what it loads), and takes away the error that dlerror(3) would say.
//!
//! The loader keeps a list of what is loaded for debuggers (`_r_debug`, <link.h>). What was loaded as the program began is at its
//! front, in the order in which it is searched, and is never unloaded; so the list is followed up to the C library, which is
//! there, and no further.

use core::arch::asm;
use core::ffi::{CStr, c_char, c_int, c_void};

/// `struct r_debug`, as far as it is needed.
#[repr(C)]
struct Debug {
    _version: c_int,
    first: *const Loaded,
}

/// `struct link_map`, as far as it is needed.
#[repr(C)]
struct Loaded {
    base: usize,
    _name: *const c_char,
    dynamic: *const Entry,
    next: *const Loaded,
}

/// `Elf64_Dyn`.
#[repr(C)]
struct Entry {
    tag: isize,
    value: usize,
}

/// `Elf64_Sym`.
#[repr(C)]
struct Symbol {
    name: u32,
    info: u8,
    _other: u8,
    section: u16,
    value: usize,
    _size: usize,
}

const STRINGS: isize = 5;
const SYMBOLS: isize = 6;
const GNU_HASH: isize = 0x6fff_fef5;
const VERSIONS: isize = 0x6fff_fff0;
/// Of the kinds of symbols: functions, and those for which the loader asks a function.
const FUNCTION: u8 = 2;
const CHOSEN_FUNCTION: u8 = 10;
/// Of the version of a symbol: it is not the one that is found without a version.
const HIDDEN: u16 = 0x8000;
/// In the C library, and in no other.
const IN_C_LIBRARY: &CStr = c"__errno_location";

/// The next function of this name. `None`: it is to be asked for.
pub(crate) fn next(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the list is that of the loader, and up to the C library nothing of it is ever changed or taken away, once this
    // library is loaded.
    unsafe {
        let own = dynamic();
        let mut at = debug().as_ref()?.first.as_ref()?;
        while at.dynamic != own {
            at = at.next.as_ref()?;
        }
        loop {
            at = at.next.as_ref()?;
            let table = Table::of(at)?;
            if let Some(symbol) = table.find(name) {
                let is_function = symbol.info & 15 == FUNCTION;
                return is_function.then_some((at.base + symbol.value) as *mut c_void);
            }
            if table.find(IN_C_LIBRARY).is_some() {
                return None;
            }
        }
    }
}

/// What the loader tells debuggers; null: nothing.
fn debug() -> *const Debug {
    let at: *const Debug;
    // SAFETY: it loads an address that the loader has put there.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!(".weak _r_debug", "mov {}, qword ptr [rip + _r_debug@GOTPCREL]", out(reg) at, options(nostack, preserves_flags));
        #[cfg(target_arch = "aarch64")]
        asm!(".weak _r_debug", "adrp {0}, :got:_r_debug", "ldr {0}, [{0}, :got_lo12:_r_debug]", out(reg) at,
            options(nostack, preserves_flags));
    }
    at
}

/// The dynamic section of this library.
fn dynamic() -> *const Entry {
    let at: *const Entry;
    // SAFETY: it makes an address of one that is known.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        asm!(".hidden _DYNAMIC", "lea {}, [rip + _DYNAMIC]", out(reg) at, options(nostack, preserves_flags));
        #[cfg(target_arch = "aarch64")]
        asm!(".hidden _DYNAMIC", "adrp {0}, _DYNAMIC", "add {0}, {0}, :lo12:_DYNAMIC", out(reg) at,
            options(nostack, preserves_flags));
    }
    at
}

/// The symbols of a library.
struct Table {
    hash: *const u32,
    symbols: *const Symbol,
    strings: *const c_char,
    versions: *const u16,
}

impl Table {
    /// `None`: it has no table as all have that were made in the last fifteen years.
    unsafe fn of(loaded: &Loaded) -> Option<Table> {
        let mut found = [0; 4];
        // SAFETY: a dynamic section ends with an entry whose tag is 0.
        unsafe {
            let mut entry = loaded.dynamic;
            while let Some(at) = entry.as_ref().filter(|at| at.tag != 0) {
                let place = [GNU_HASH, SYMBOLS, STRINGS, VERSIONS].iter().position(|tag| *tag == at.tag);
                if let Some(place) = place.and_then(|n| found.get_mut(n)) {
                    // the loader adds the base, but not to those of what the kernel has mapped
                    *place = if at.value < loaded.base { at.value + loaded.base } else { at.value };
                }
                entry = entry.add(1);
            }
        }
        let [hash, symbols, strings, versions] = found;
        let is_whole = hash != 0 && symbols != 0 && strings != 0;
        is_whole.then_some(Table {
            hash: hash as *const u32,
            symbols: symbols as *const Symbol,
            strings: strings as *const c_char,
            versions: versions as *const u16,
        })
    }

    /// The symbol of this name that the library has, and not only uses.
    unsafe fn find(&self, name: &CStr) -> Option<&Symbol> {
        let sum =
            name.to_bytes().iter().fold(5381_u32, |sum, b| sum.wrapping_mul(33).wrapping_add(u32::from(*b)));
        // SAFETY: the table is made so: four words, a filter, where the symbols of a remainder begin, and their sums, of which
        // the last of a remainder is odd.
        unsafe {
            let [remainders, first, words, shift] = *self.hash.cast::<[u32; 4]>();
            if remainders == 0 || words == 0 {
                return None;
            }
            let filter = self.hash.add(4).cast::<u64>();
            let word = *filter.add((sum / 64 % words) as usize);
            if word >> (sum % 64) & word >> ((sum >> shift) % 64) & 1 == 0 {
                return None;
            }
            let begins = filter.add(words as usize).cast::<u32>();
            let sums = begins.add(remainders as usize);
            let mut at = *begins.add((sum % remainders) as usize);
            if at < first {
                return None;
            }
            loop {
                let there = *sums.add((at - first) as usize);
                let symbol = &*self.symbols.add(at as usize);
                if there | 1 == sum | 1 && self.is_default(at) && symbol.is_here() {
                    let other = CStr::from_ptr(self.strings.add(symbol.name as usize));
                    if other == name {
                        return Some(symbol);
                    }
                }
                if there & 1 != 0 {
                    return None;
                }
                at += 1;
            }
        }
    }

    /// Whether a symbol is the one that is found without a version.
    unsafe fn is_default(&self, at: u32) -> bool {
        // SAFETY: there is a version for each symbol, if there are any.
        self.versions.is_null() || unsafe { *self.versions.add(at as usize) } & HIDDEN == 0
    }
}

impl Symbol {
    fn is_here(&self) -> bool {
        self.section != 0 && self.value != 0 && matches!(self.info & 15, FUNCTION | CHOSEN_FUNCTION)
    }
}
