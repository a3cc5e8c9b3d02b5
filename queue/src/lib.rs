//! (being written) The engine.
use std::time::Duration;
use treeferry_core::job::JobState;
use treeferry_core::{Counters, Failure, NewTask};

/// A broker, a ledger and a registry. Cheap to clone.
#[derive(Clone)]
pub struct Engine;
/// Where the job stands.
pub struct Status {
    /// State; Done/Failed/Interrupted only when nothing is outstanding or the engine was cancelled
    pub state: JobState,
    /// tasks outstanding
    pub outstanding: u64,
    /// committed counters
    pub counters: Counters,
    /// first failures (bounded)
    pub failures: Vec<Failure>,
}
impl Engine {
    /// embedded engine
    pub fn memory() -> Engine {
        Engine
    }
    /// Gives the ledger the first task of the job.
    pub fn begin(&self, _first: NewTask) {}
    /// Waits until the job ended or the time is over; says whether it ended.
    pub fn wait(&self, _timeout: Duration) -> bool {
        true
    }
    /// Hands out no more tasks; the job ends as Interrupted.
    pub fn cancel(&self) {}
    /// status
    pub fn status(&self) -> Status {
        Status { state: JobState::Done, outstanding: 0, counters: Counters::default(), failures: vec![] }
    }
}
