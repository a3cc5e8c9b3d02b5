//! What the end-to-end tests share: where the binary is, scratch directories, short ways to plant entries, to
//! run a sync and to compare trees.
//!
//! ```no_run
//! use treeferry_tests::{Plant, Scratch};
//!
//! let s = Scratch::disk();
//! s.src().file("a/b", "text").symlink("l", "a/b");
//! s.sync("--delete").expect(0);
//! s.assert_same();
//! ```

mod binary;
pub mod cluster;
pub mod graphite;
mod plant;
mod run;
mod scratch;
pub mod terminal;

pub use binary::{bin, command, install, library, neutral};
pub use plant::Plant;
pub use run::{Live, Run, sync};
pub use scratch::{Scratch, assert_same};

/// Makes a command line of words and paths: `args!["--trash", &dir, "-i"]`.
#[macro_export]
macro_rules! args {
    ($($word:expr),* $(,)?) => { vec![$(::std::ffi::OsString::from($word)),*] };
}

/// How long a test waits for a condition that must come; far more than it needs.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(180);
