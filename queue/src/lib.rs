//! The engine of a job: broker, ledger and inode registry behind one set of verbs.
//!
//! Outside there are two concrete types, [`Engine`] (one for each process) and [`Seat`] (one for each worker
//! thread); inside, `engine::Backend` and `engine::BackendSeat` are what an engine implements. The file
//! `engine.rs` alone names the engines, and `tests/conformance.rs` holds each of them to the same cases.

mod cluster;
mod engine;
mod groups;
mod memory;
mod rabbitmq;
mod redis;

pub use cluster::bundle::Lane;
pub use cluster::checkup::{self, LedgerFacts, Trouble, TroubleKind, WorkerFacts};
pub use cluster::mirrors;
pub use cluster::{
    Collector, Control, Entry, EntryId, EventStream, JobRecord, JobRow, Node, NodeReport, Offer, QueueRow,
    Refusal, Reporting, RunningTask, Shutdown, Site, SiteError, Wanted, Which,
};
pub use engine::{Engine, Registry, Seat, Status, Take};
pub use groups::{Claim, Leader, Owned};
pub use rabbitmq::survey::{Alarm, BrokerFacts, QueueFacts, QueueState};
pub use redis::{JobReading, LedgerError, NodeReading};
