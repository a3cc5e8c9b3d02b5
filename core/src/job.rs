//! The states of a job.
//!
//! ```text
//!   Running ──► Done          every task of every pass was done, nothing failed
//!      │  ├───► Failed        every task was done; what failed is named
//!      │  └───► Interrupted   a signal or `cancel`; run it again to finish
//!      └──────► Aborted       the job itself became impossible (a root is gone, the ledger is lost)
//! ```

use serde::{Deserialize, Serialize};

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Tasks are outstanding.
    Running,
    /// Every task of every pass has been done.
    Done,
    /// Every task has been done, and something failed: it is named.
    Failed,
    /// Stopped by a signal or by request before its end.
    Interrupted,
    /// Became impossible.
    Aborted,
}

impl JobState {
    /// Whether a job may go from this state to `next`. A state that is an end is never left.
    pub fn may_become(self, next: JobState) -> bool {
        match self {
            JobState::Running => next != JobState::Running,
            JobState::Done | JobState::Failed | JobState::Interrupted | JobState::Aborted => false,
        }
    }

    /// Reads the word back.
    pub fn from_name(name: &str) -> Option<JobState> {
        use JobState::*;
        [Running, Done, Failed, Interrupted, Aborted].into_iter().find(|s| s.name() == name)
    }

    /// The word in summaries.
    pub fn name(self) -> &'static str {
        match self {
            JobState::Running => "running",
            JobState::Done => "done",
            JobState::Failed => "failed",
            JobState::Interrupted => "interrupted",
            JobState::Aborted => "aborted",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::JobState::*;

    #[test]
    fn an_end_is_never_left() {
        for end in [Done, Failed, Interrupted, Aborted] {
            assert!(Running.may_become(end));
            for next in [Running, Done, Failed, Interrupted, Aborted] {
                assert!(!end.may_become(next));
            }
        }
    }
}
