//! (being written) The worker.
use std::sync::Arc;
use treeferry_core::{Change, Failure, JobSpec, NewTask, Notice, Stop, Work};
use treeferry_queue::Engine;

/// Why a job cannot begin.
#[derive(Debug)]
pub enum OpenError {
    /// exit 3: SRC or DST unusable
    Unusable(String),
    /// exit 1: the request itself is wrong
    Usage(String),
}
impl std::fmt::Display for OpenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (OpenError::Unusable(s) | OpenError::Usage(s)) = self;
        f.write_str(s)
    }
}
/// A job that is open on this node.
pub struct Job;
impl Job {
    /// Opens the roots, checks the guards.
    pub fn open(_spec: JobSpec, _stop: Stop) -> Result<Arc<Job>, OpenError> {
        Ok(Arc::new(Job))
    }
    /// the first task: walk the root
    pub fn first_task(&self) -> NewTask {
        NewTask::new(None, Work::Walk { path: treeferry_core::RelPath::root(), fresh: false })
    }
    /// bytes of content copied so far, those of unfinished files included (for progress)
    pub fn live_bytes(&self) -> u64 {
        0
    }
    /// entries looked at so far, those of uncommitted tasks included (for progress)
    pub fn live_entries(&self) -> u64 {
        0
    }
}
/// What workers tell as it happens. Called from worker threads, must be quick.
pub trait Reporter: Send + Sync {
    /// `--itemize`
    fn changes(&self, changes: &[Change]);
    /// a named failure
    fn failure(&self, f: &Failure);
    /// said once for each kind (the pool sees to that)
    fn notice(&self, n: Notice);
}
/// Number of threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolSize {
    /// follow the load
    Auto,
    /// so many
    Fixed(usize),
}
/// Threads that run tasks.
pub struct Pool;
impl Pool {
    /// Starts the threads.
    pub fn start(_e: &Engine, _job: &Arc<Job>, _r: Arc<dyn Reporter>, _n: PoolSize) -> Pool {
        Pool
    }
    /// resizes
    pub fn resize(&self, _n: PoolSize) {}
    /// Waits for the threads; call after the engine has ended or was cancelled.
    pub fn join(self) {}
}
