//! The vocabulary of Treeferry: what a job, a task, an outcome, a counter and a failure are.
//!
//! No I/O and no clock live here. Every other crate speaks in these words; the wire format of
//! tasks and outcomes (`wire`) is a promise with golden files.

pub mod change;
pub mod config;
pub mod counters;
pub mod errno;
pub mod escape;
pub mod event;
pub mod failure;
pub mod figures;
pub mod filter;
pub mod history;
pub mod ids;
pub mod job;
pub mod names;
pub mod outcome;
pub mod pass;
pub mod path;
pub mod records;
pub mod sizes;
pub mod spec;
pub mod stop;
pub mod task;
pub mod units;
pub mod wire;

pub use change::{Change, Item};
pub use counters::Counters;
pub use event::{Event, Severity};
pub use failure::{Failure, Notice, Side};
pub use figures::Figures;
pub use history::{History, Sample};
pub use ids::{GroupKey, JobId, JoinId, TaskId};
pub use names::{Kind, Names};
pub use outcome::{Outcome, Seal};
pub use pass::{Pass, PassSet};
pub use path::RelPath;
pub use spec::JobSpec;
pub use stop::Stop;
pub use task::{Fresh, NewTask, Resume, StagedFile, Task, Work};
