//! What a mirror has to remember: which paths are to be looked at, since when, and so up to what moment the target is
//! complete. Pure: no I/O, no clock, no thread; whoever hosts a mirror tells it the time.

mod arrivals;
mod births;
mod failing;
mod latency;
mod news;
mod pending;
mod wall;

pub use arrivals::Arrivals;
pub use latency::Latency;
pub use news::{Continuity, Errand, Finding, News, Said, Tick};
pub use pending::{Batch, Below, Figures, Pending, Sign, Timing};
