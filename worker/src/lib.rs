//! The work itself: walking, comparing, copying, deleting, finishing directories, and the pool of threads
//! that does it.
//!
//! A pass is a function: task in, [`Outcome`](treeferry_core::Outcome) out. It never sees a broker, a ledger
//! or a clock; what it needs of the engine is one question, "who leads this hard-link group?".

mod again;
mod attrs;
mod bars;
mod chunk;
mod compare;
mod copy;
mod delete;
mod devices;
mod dir;
mod dirtime;
mod job;
mod kin;
mod limit;
mod look;
mod mirror;
mod node_pool;
mod pool;
mod reconcile;
mod restless;
mod roots;
mod tidy;
mod trouble;
mod walk;
mod worker;
mod xattrs;

pub use compare::{is_left_alone, kind as kind_of};
pub use job::{Job, Member, OpenError};
pub use mirror::{Families, KeptNames, Mirrored, NameBook, Search};
pub use node_pool::{Jobs, NodePool};
pub use pool::{Context, Pool, PoolSize, Reporter, RunLinks};
