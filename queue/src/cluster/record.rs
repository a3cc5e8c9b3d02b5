//! Where a cluster is, and what everybody who works for a job has to know of it.

use crate::redis::LedgerError;
use std::collections::HashMap;
use std::time::Duration;
use treeferry_core::JobSpec;
use treeferry_core::wire::{self, MessageKind};

/// Where broker and ledger are.
#[derive(Clone)]
pub struct Site {
    /// `amqp://` or `amqps://`.
    pub broker: String,
    /// `redis://` or `rediss://`.
    pub ledger: String,
    /// A message that is worked on for so long is acknowledged before its end, and the ledger's outbox remembers its
    /// task instead: the broker takes a consumer for dead that has not acknowledged one within its `consumer_timeout`.
    pub acknowledge_after: Duration,
}

impl Site {
    /// A site with defaults: RabbitMQ's `consumer_timeout` is 30 minutes if nobody has changed it.
    pub fn new(broker: String, ledger: String) -> Site {
        Site { broker, ledger, acknowledge_after: Duration::from_secs(600) }
    }
}

/// Why the cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The broker does not answer, or refuses us.
    #[error("the broker: {0}")]
    Broker(#[from] lapin::Error),
    /// The ledger does not answer, or refuses us.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// No runtime.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What everybody who works for a job has to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// What was asked for.
    pub spec: JobSpec,
    /// DST was made by this job.
    pub made_target: bool,
    /// Inode numbers of the roots.
    pub roots: (u64, u64),
    /// What the target can hold, in the words of whoever tried.
    pub limits: String,
    /// When it was registered, in ms since 1970 by the clock of who did.
    pub created_ms: u64,
}

impl JobRecord {
    pub(super) fn fields(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("spec", wire::encode(MessageKind::Spec, &self.spec)),
            ("made_target", u8::from(self.made_target).to_string().into_bytes()),
            ("src_ino", self.roots.0.to_string().into_bytes()),
            ("dst_ino", self.roots.1.to_string().into_bytes()),
            ("limits", self.limits.clone().into_bytes()),
            ("created", self.created_ms.to_string().into_bytes()),
        ]
    }

    pub(super) fn read(fields: &HashMap<String, Vec<u8>>) -> Option<JobRecord> {
        let number = |k: &str| std::str::from_utf8(fields.get(k)?).ok()?.parse::<u64>().ok();
        Some(JobRecord {
            spec: wire::decode(MessageKind::Spec, fields.get("spec")?).ok()?,
            made_target: number("made_target")? == 1,
            roots: (number("src_ino")?, number("dst_ino")?),
            limits: String::from_utf8(fields.get("limits")?.clone()).ok()?,
            created_ms: number("created")?,
        })
    }
}
