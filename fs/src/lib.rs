//! Every system call that Treeferry makes on the two trees, in terms of open directories.
//!
//! Nothing in here takes a path that it would have to trust: a [`Root`] is opened once and remembered, a
//! directory below it is opened with `openat2(RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)`, and an entry is a
//! directory and one name that is never followed. All `unsafe` is in `sys`. This crate does not know what a
//! job is.

pub mod abilities;
pub mod attr;
pub mod copy;
pub mod entry;
mod error;
pub mod fault;
pub mod host;
pub mod list;
pub mod meta;
pub mod mounts;
pub mod privilege;
pub mod probe;
pub mod root;
mod sys;
pub mod temp;
pub mod verify;
pub mod xattr;

pub use abilities::Abilities;
pub use error::{Error, Result};
pub use host::Host;
pub use list::Lister;
pub use meta::{Kind, Meta, Time};
pub use privilege::Privilege;
pub use probe::Limits;
pub use root::{Root, RootError};
pub use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
pub use temp::TempNames;
