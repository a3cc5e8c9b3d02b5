//! What was seen of a node, of two trees and of a cluster, before anybody judges it.

use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;
use treeferry_fs::mounts::{Mount, Room};
use treeferry_fs::{Abilities, Host};
use treeferry_queue::{BrokerFacts, LedgerFacts, Trouble};

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The machine.
    pub host: Host,
    /// Effective user.
    pub uid: u32,
    /// Capabilities that a full copy needs, and that we do not have.
    pub missing_capabilities: Vec<&'static str>,
    /// The configuration.
    pub config: ConfigFacts,
    /// SRC and DST, if they were given.
    pub trees: Option<Trees>,
    /// Broker and ledger, if there are any.
    pub cluster: Option<ClusterFacts>,
}

/// The configuration file and the options that go with it.
#[derive(Clone, Debug, Default)]
pub struct ConfigFacts {
    /// Which file was named.
    pub file: Option<PathBuf>,
    /// Its permission bits.
    pub mode: Option<u32>,
    /// Why it, or what goes with it on the command line, cannot be used.
    pub error: Option<String>,
    /// No file was named, but there is one at the usual place.
    pub unnamed: Option<PathBuf>,
}

/// Two trees.
#[derive(Clone, Debug)]
pub struct Trees {
    /// SRC.
    pub src: Tree,
    /// DST.
    pub dst: Tree,
    /// DST does not exist; what is known is known of its parent.
    pub dst_is_missing: bool,
    /// Both are directories of one file system.
    pub same_device: bool,
    /// What `sync` would say before it begins.
    pub guards: Result<(), Refused>,
    /// What the file system of DST can hold; `None`: DST could not be opened.
    pub abilities: Option<Result<Abilities, String>>,
}

/// Why `sync` would not begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// In its words.
    pub text: String,
    /// The request is wrong, as opposed to a root that cannot be used.
    pub is_usage: bool,
}

/// A tree.
#[derive(Clone, Debug)]
pub struct Tree {
    /// Its path as it was given.
    pub path: PathBuf,
    /// What could be seen of its root, or why not.
    pub root: Result<RootFacts, String>,
}

/// The root of a tree.
#[derive(Clone, Debug, Default)]
pub struct RootFacts {
    /// The mount that it is seen through.
    pub mount: Option<Mount>,
    /// What its file system has left.
    pub room: Option<Room>,
    /// It is itself where that mount is.
    pub is_mount_point: bool,
    /// What is mounted below it.
    pub mounts_below: Vec<PathBuf>,
    /// There is nothing in it.
    pub is_empty: bool,
}

/// Broker and ledger.
#[derive(Clone, Debug)]
pub struct ClusterFacts {
    /// Host and port of the broker.
    pub broker_at: String,
    /// What it says.
    pub broker: Result<BrokerFacts, Trouble>,
    /// Host and port of the ledger.
    pub ledger_at: String,
    /// What it says.
    pub ledger: Result<LedgerFacts, Trouble>,
    /// When a message that is worked on is acknowledged.
    pub acknowledge_after: Duration,
}

impl Facts {
    /// What has a number, for monitoring.
    pub fn measured(&self) -> Value {
        let ms = |d: Duration| d.as_secs_f64() * 1000.0;
        let cluster = self.cluster.as_ref();
        let broker = cluster.and_then(|c| c.broker.as_ref().ok());
        let ledger = cluster.and_then(|c| c.ledger.as_ref().ok());
        let room = self.trees.as_ref().and_then(|t| t.dst.root.as_ref().ok()).and_then(|r| r.room);
        let daemons = ledger.map(|l| {
            let one = |w: &treeferry_queue::WorkerFacts| {
                json!({
                    "worker": w.report.worker,
                    "kind": w.report.kind,
                    "version": w.report.version,
                    "clock_ms": w.clock_ms,
                })
            };
            l.workers.iter().map(one).collect::<Vec<_>>()
        });
        json!({
            "free_memory_bytes": self.host.free_memory,
            "open_files": self.host.open_files,
            "dst_free_bytes": room.map(|r| r.free_bytes),
            "dst_free_inodes": room.filter(|r| r.inodes > 0).map(|r| r.free_inodes),
            "broker_round_trip_ms": broker.map(|b| ms(b.round_trip)),
            "broker_version": broker.and_then(|b| b.version.clone()),
            "ledger_round_trip_ms": ledger.map(|l| ms(l.round_trip)),
            "ledger_version": ledger.map(|l| l.version.clone()),
            "ledger_clock_ms": ledger.map(|l| l.clock_ms),
            "workers": daemons,
        })
    }
}
