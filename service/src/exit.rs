//! The exit codes, once: help text, manual and tests are made from this table.
//!
//! They follow rsync's, since people's scripts know them. When several could be said, the gravest is: an
//! interruption before failures, failures before entries that vanished, those before `--max-delete`.

use treeferry_core::Counters;
use treeferry_core::job::JobState;

/// How a run ended, in the word that the calling script hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// All done.
    Done = 0,
    /// The request or the configuration was wrong; nothing was begun.
    Usage = 1,
    /// SRC or DST cannot be used, or was lost on the way.
    Unusable = 3,
    /// Stopped by a signal or by request.
    Interrupted = 20,
    /// Finished; what failed is named.
    Failures = 23,
    /// Finished; some source entries vanished meanwhile.
    Vanished = 24,
    /// Finished; `--max-delete` spared some.
    MaxDelete = 25,
    /// Broker or ledger cannot be reached.
    Unreachable = 69,
}

impl Exit {
    /// All of them, in the order of their codes.
    pub const ALL: [Exit; 8] = [
        Exit::Done,
        Exit::Usage,
        Exit::Unusable,
        Exit::Interrupted,
        Exit::Failures,
        Exit::Vanished,
        Exit::MaxDelete,
        Exit::Unreachable,
    ];

    /// The number that the process ends with.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What the number means, for help and manual.
    pub const fn meaning(self) -> &'static str {
        match self {
            Exit::Done => "all done",
            Exit::Usage => "usage or configuration error; nothing was touched",
            Exit::Unusable => "SRC or DST is unusable",
            Exit::Interrupted => "interrupted; run it again to finish",
            Exit::Failures => {
                "finished with failures, all named (verify: the trees differ; doctor: problems)"
            }
            Exit::Vanished => "finished; some source entries vanished meanwhile",
            Exit::MaxDelete => "finished; --max-delete was reached, the rest was not deleted",
            Exit::Unreachable => "broker or ledger unreachable",
        }
    }

    /// What the end of a job says.
    pub fn of(state: JobState, counters: &Counters) -> Exit {
        match state {
            JobState::Interrupted => Exit::Interrupted,
            // an end that is none, or a root that is gone: never to be taken for a success
            JobState::Aborted | JobState::Running => Exit::Unusable,
            JobState::Done | JobState::Failed => {
                if counters.failures > 0 {
                    Exit::Failures
                } else if counters.vanished > 0 {
                    Exit::Vanished
                } else if counters.not_deleted > 0 {
                    Exit::MaxDelete
                } else if state == JobState::Failed {
                    Exit::Failures
                } else {
                    Exit::Done
                }
            }
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(e: Exit) -> Self {
        e.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use JobState::{Aborted, Done, Failed, Interrupted, Running};

    fn counted(failures: u64, vanished: u64, not_deleted: u64) -> Counters {
        Counters { failures, vanished, not_deleted, ..Counters::default() }
    }

    #[test]
    fn codes_are_the_contract_and_each_is_explained_once() {
        assert_eq!(Exit::ALL.map(Exit::code), [0, 1, 3, 20, 23, 24, 25, 69]);
        let mut meanings = Exit::ALL.map(Exit::meaning).to_vec();
        meanings.sort_unstable();
        meanings.dedup();
        assert_eq!(meanings.len(), Exit::ALL.len());
    }

    #[test]
    fn the_gravest_thing_is_said() {
        for (state, counters, exit) in [
            (Done, counted(0, 0, 0), Exit::Done),
            (Failed, counted(1, 1, 1), Exit::Failures),
            (Done, counted(1, 0, 0), Exit::Failures),
            (Failed, counted(0, 0, 0), Exit::Failures),
            (Done, counted(0, 1, 1), Exit::Vanished),
            (Done, counted(0, 0, 1), Exit::MaxDelete),
            (Interrupted, counted(1, 1, 1), Exit::Interrupted),
            (Interrupted, counted(0, 0, 0), Exit::Interrupted),
            (Aborted, counted(0, 0, 0), Exit::Unusable),
            (Running, counted(0, 0, 0), Exit::Unusable),
        ] {
            assert_eq!(Exit::of(state, &counters), exit, "{state:?} {counters:?}");
        }
    }
}
