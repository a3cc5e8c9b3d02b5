//! What is preloaded into programs (`LD_PRELOAD`) and tells a reader what they change.
//!
//! It stands in for every function of the C library that finishes a write, or changes a name or metadata. Each calls
//! the function that it stands in for, and afterwards, if that has succeeded and the path is below a mirrored
//! directory, puts a record into a ring in shared memory ([`treeferry_ring`]). Which ring is said by `TREEFERRY_SHIM`;
//! without it nothing is done.
//!
//! The program must not feel it. So nothing here takes a lock, waits, writes to a terminal, keeps a descriptor open, loads a
//! library, or changes `errno`, the environment or the state of a generator of random numbers; nothing allocates, but that
//! [`apart`] maps memory once; and all may be called from any thread, from a signal handler, and between `vfork` and `exec`.
//! What it needs to know it asks the kernel by system calls of its own ([`sys`]), which leave `errno` alone. What the program
//! asked for goes to the C library, so that the points at which a thread can be cancelled stay what they are. Such a
//! cancellation unwinds through the frames of this library, which then leaves a mark in the ring: nobody can say whether the
//! call has changed anything. Else it holds nothing that would have to be given back.
//!
//! To touch a page for the first time costs a process more than all else that is done here for most of them. So what every
//! process needs is together (`.data.hot`), and what others need apart.
//!
//! All is `unsafe` here as all of it is the other side of C.

#![no_std]

mod apart;
mod attributes;
mod descriptors;
mod ends;
mod files;
mod life;
mod loaded;
mod names;
mod next;
mod parents;
mod path;
mod process;
mod shared;
mod sys;
mod table;
mod tell;

/// Stands in for a function of the C library. In the body, `real()` calls it with the arguments that were given, but for
/// those that are named behind it: `real(flags)` has them anew.
///
/// Behind `told;` stand those that change something by a name or without one: it is under way until it is told.
macro_rules! stand_in {
    (told; $(fn $name:ident($($arg:ident: $kind:ty),* $(,)?) -> $result:ty, $real:ident => $body:expr)*) => {
        $crate::stand_in! { $(
            fn $name($($arg: $kind),*) -> $result, $real => $crate::tell::under_way(|| $body)
        )* }
    };
    ($(fn $name:ident($($arg:ident: $kind:ty),* $(,)?) -> $result:ty, $real:ident $(($anew:ident))? => $body:expr)*) => {
        $(
            $crate::looked_up! { $name }
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($arg: $kind),*) -> $result {
                // SAFETY: this is the signature that the C library gives the function.
                let next: unsafe extern "C" fn($($kind),*) -> $result = unsafe { $name::NEXT.find($name::NAME) };
                // SAFETY: the caller vouches for the arguments as to the C library.
                let $real = |$($anew)?| unsafe { next($($arg),*) };
                $body
            }
        )*
    };
}
pub(crate) use stand_in;

/// The next function of a name, in a module of that name.
macro_rules! looked_up {
    ($name:ident) => {
        #[allow(non_snake_case)]
        pub(crate) mod $name {
            #[unsafe(link_section = ".data.hot")]
            pub(crate) static NEXT: $crate::next::Next = $crate::next::Next::new();
            pub(crate) const NAME: &core::ffi::CStr =
                match core::ffi::CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                    Ok(name) => name,
                    Err(_) => unreachable!(),
                };
        }
    };
}
pub(crate) use looked_up;

/// There is nothing here that panics; the language wants to know what would happen.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::abort()
}
