//! What there is to be said of a job in detail: `treeferry report`.
//!
//! ```text
//!   ledger ──► cluster.rs ──┐                 ┌──► text.rs
//!                           ├──► data.rs ─────┼──► serde
//!   embedded ► journal.rs ──┘   moments.rs    └──► html.rs + plots.rs
//! ```
//!
//! Everything that is shown was counted; nothing is read out of logs.

pub mod cluster;
pub mod data;
pub mod html;
pub mod journal;
pub mod moments;
mod plots;
#[cfg(test)]
pub mod samples;
pub mod text;
pub mod total;

pub use data::{Facts, Progress};

/// A job with what depends on who asks and when.
pub struct View<'a> {
    /// What is known.
    pub facts: &'a Facts,
    /// How far it has come.
    pub progress: Progress,
    /// When it is asked, in ms since 1970.
    pub now_ms: u64,
}
