//! What a seat asks of the ledger while it works on a task. Each call is made until it is answered; where the ledger says what
//! this program does not understand, the job is aborted.

use super::bundle::Commit;
use super::node::{Node, lock};
use crate::groups::{Claim, Owned};
use crate::redis::{Begin, Committed, Lease, LedgerError, Receipt, prefix};
use std::time::Instant;
use treeferry_core::job::JobState;
use treeferry_core::{GroupKey, JobId, RelPath, TaskId};

impl Node {
    pub(super) fn begin(&self, job: JobId, task: TaskId, token: u64) -> Result<Begin, LedgerError> {
        self.rt.block_on(self.shared.ledger.begin(job, task, token))
    }

    pub(super) fn commit(&self, lease: Lease, c: &Commit) -> Result<Receipt, LedgerError> {
        let s = &self.shared;
        let r = self.rt.block_on(s.ledger.commit(lease, c, &s.node))?;
        if r.outstanding == 0 && r.what == Committed::Done {
            // over, in whatever way: the next pulse knows no more of it
            lock(&self.shared.states).put(Instant::now(), lease.job, JobState::Done);
        }
        Ok(r)
    }

    pub(super) fn claim(
        &self,
        job: JobId,
        key: GroupKey,
        nlink: u32,
        path: &RelPath,
        wavers: bool,
        abandoned: bool,
    ) -> Claim {
        let claim = self.rt.block_on(self.shared.ledger.claim(job, key, nlink, path, wavers, abandoned));
        claim.unwrap_or_else(|e| {
            self.end(job, JobState::Aborted, &e.to_string());
            Claim::Wait
        })
    }

    /// `None`: another leads the group.
    pub(super) fn own_target(
        &self,
        lease: Lease,
        key: GroupKey,
        target: (u64, u64),
        leader: Option<&RelPath>,
    ) -> Option<Owned> {
        self.rt.block_on(self.shared.ledger.own_target(lease, key, target, leader)).unwrap_or_else(|e| {
            self.end(lease.job, JobState::Aborted, &e.to_string());
            Some(Owned::Lost)
        })
    }

    /// Whether it is the task's last.
    pub(super) fn is_owned(&self, lease: Lease) -> bool {
        self.rt.block_on(self.shared.ledger.is_owned(lease)).unwrap_or_else(|e| {
            self.end(lease.job, JobState::Aborted, &e.to_string());
            false
        })
    }

    /// Whether one more of the job's deletions is left. A call that has to be repeated may take two.
    pub(super) fn may_delete(&self, job: JobId, most: u64, take: bool) -> bool {
        self.rt.block_on(self.shared.ledger.may_delete(job, most, take)).unwrap_or_else(|e| {
            self.end(job, JobState::Aborted, &e.to_string());
            false
        })
    }

    /// Whether a process of that name works for the job, and who asks still owns the task that it is at.
    pub(super) fn is_left(&self, lease: Lease, maker: &str) -> bool {
        let p = prefix(lease.job);
        let answer = self.rt.block_on(self.shared.ledger.stubborn(|mut c| {
            let p = p.clone();
            async move {
                let mut pipe = redis::pipe();
                pipe.atomic().sismember(format!("{p}makers"), maker).hget(format!("{p}begun"), lease.task.0);
                pipe.query_async::<(bool, Option<String>)>(&mut c).await
            }
        }));
        matches!(answer, Ok((true, Some(at))) if at == lease.to_text())
    }
}
