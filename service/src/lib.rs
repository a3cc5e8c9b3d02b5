//! Start and end of a program: its configuration file, its log, its events in files, its signals and its exit code.
//!
//! Nothing in here writes to the terminal by itself: whoever calls hands in where words are to go.

pub mod configuration;
pub mod events;
pub mod exit;
pub mod logging;
pub mod metrics;
pub mod signals;
pub mod state_dir;

pub use exit::Exit;
