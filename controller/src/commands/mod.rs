//! One file a command.

pub mod completions;
pub mod man;
pub mod sync;
pub mod verify;
pub mod worker;
