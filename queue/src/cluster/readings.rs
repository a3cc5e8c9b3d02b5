//! What metrics are made of. Each call is one attempt, with an end: nobody waits for metrics.

use super::node::{Node, lock};
use crate::rabbitmq::Depth;
use crate::redis::{JobReading, LedgerError, Told, prefix};
use redis::AsyncCommands;
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use treeferry_core::wire::{self, MessageKind};
use treeferry_core::{JobId, JobSpec, PassSet};

/// A ledger that does not answer within this does not answer.
const WITHIN: Duration = Duration::from_secs(5);
/// What was seen of the broker's queues holds for so long.
const FRESH: Duration = Duration::from_secs(10);

impl Node {
    /// Whether it is this process that speaks for all: the one that looks after lost tasks. While that changes there may
    /// be two, or none.
    pub fn leads(&self) -> bool {
        self.shared.leads.load(Relaxed)
    }

    /// Every job that this process has seen running, or has worked for, not long ago.
    pub fn known_jobs(&self) -> Vec<JobId> {
        lock(&self.shared.states).ids()
    }

    /// Which passes a job has; `None`: the ledger does not know it.
    pub fn passes(&self, job: JobId) -> Result<Option<PassSet>, LedgerError> {
        let mut c = self.shared.ledger.conn();
        let key = format!("{}job", prefix(job));
        let spec: Option<Vec<u8>> = self.within(async { Ok(c.hget(key, "spec").await?) })?;
        let spec = spec.and_then(|s| wire::decode::<JobSpec>(MessageKind::Spec, &s).ok());
        Ok(spec.map(|s| s.passes))
    }

    /// What a job has counted, on this node or on all of them; `None`: the ledger does not know the job.
    pub fn reading(&self, job: JobId, all: bool) -> Result<Option<JobReading>, LedgerError> {
        let only = [self.name()];
        self.within(self.shared.ledger.reading(job, if all { &[] } else { &only }))
    }

    /// What each node has counted of some counters since that was asked, by whichever process, before the present step
    /// of time; the time is in ms since 1970.
    pub fn told(&self, job: JobId, step: Duration, counters: &[&str]) -> Result<Told, LedgerError> {
        self.within(self.shared.ledger.told(job, step, counters))
    }

    /// Names of nodes on which a process lives.
    pub fn living(&self) -> Result<BTreeSet<String>, LedgerError> {
        let mut c = self.shared.ledger.conn();
        let workers: Vec<String> = self.within(async { Ok(c.smembers("treeferry:workers").await?) })?;
        Ok(workers.iter().filter_map(|w| Some(w.rsplit_once('-')?.0.to_owned())).collect())
    }

    /// The broker's queues, if this process has looked at them lately.
    pub fn depths(&self) -> Vec<Depth> {
        let seen = lock(&self.shared.queues);
        seen.as_ref().filter(|(at, _)| at.elapsed() < FRESH).map(|(_, q)| q.clone()).unwrap_or_default()
    }

    fn within<T>(&self, call: impl Future<Output = Result<T, LedgerError>>) -> Result<T, LedgerError> {
        let silent = || redis::RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
        self.rt.block_on(async {
            tokio::time::timeout(WITHIN, call).await.unwrap_or_else(|_| Err(silent().into()))
        })
    }
}
