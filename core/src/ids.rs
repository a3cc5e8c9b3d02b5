//! Identities: jobs, tasks, joins and hard-link groups. Newtypes, so that none is taken for another.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Names a job: sixteen lower-case hexadecimal digits, fit for a file name, a queue key and a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JobId(pub u64);

/// Names a task within its job; the ledger gives it out, never twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId(pub u64);

/// Names a join within its job; whoever opens the join draws it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct JoinId(pub u64);

/// A hard-link group: the inode of the source that its names share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupKey {
    /// Device of the source inode, as `st_dev`.
    pub dev: u64,
    /// Number of the source inode.
    pub ino: u64,
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Says why a text is not a job id.
#[derive(Debug, thiserror::Error)]
#[error("'{0}' is not a job id (sixteen hexadecimal digits)")]
pub struct BadJobId(String);

impl std::str::FromStr for JobId {
    type Err = BadJobId;

    fn from_str(s: &str) -> Result<Self, BadJobId> {
        let ok = s.len() == 16 && s.bytes().all(|b| b.is_ascii_hexdigit());
        u64::from_str_radix(s, 16).ok().filter(|_| ok).map(JobId).ok_or_else(|| BadJobId(s.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn job_id_survives_its_own_text() {
        for id in [JobId(0), JobId(1), JobId(u64::MAX)] {
            assert_eq!(id.to_string().parse::<JobId>().unwrap(), id);
        }
        assert!("12".parse::<JobId>().is_err());
        assert!("+00000000000000f".parse::<JobId>().is_err());
    }
}
