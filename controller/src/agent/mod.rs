//! `treeferry agent`: detects, on one node, what changes in the sources of all mirrors of the cluster, and tells those who
//! keep them. It reads no content and touches no target.
//!
//! Each mirror has a *basket*, into which its detectors put what they hear, and a thread that sends it, in numbered
//! messages. While the broker takes nothing, messages go to a file with a cap, and nobody who changes the source waits for
//! anything.

mod basket;
mod following;
mod left;
mod namesakes;
mod sending;
mod spool;
mod ticks;

use crate::args::Daemon;
use crate::args::daemon::host;
use crate::cluster::connect;
use crate::daemon;
use crate::output::complain;
use crate::watching::detect::How;
use crate::watching::far::DETECT;
use following::Following;
use left::Left;
use namesakes::Namesakes;
use spool::Spool;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use treeferry_core::JobId;
use treeferry_queue::mirrors::Outgoing;
use treeferry_queue::{Control, Node, NodeReport, Refusal, Site};
use treeferry_service::Exit;

/// How often it is looked which mirrors there are.
const LOOK: Duration = Duration::from_millis(500);
/// How long the broker has for the last messages of an agent that is stopped.
const LAST: Duration = Duration::from_secs(5);
/// A mirror that cannot be looked after is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// What an agent is to be.
pub struct Plan {
    /// Its cluster.
    pub site: Site,
    /// What it detects changes with, whatever whoever keeps a mirror has asked for.
    pub detect: Vec<How>,
    /// From the end of one walk of a source to the begin of the next, where it is walked for changes.
    pub poll_every: Duration,
    /// The ring that the shim detector reads; none: the usual one.
    pub ring: Option<PathBuf>,
    /// Where messages go that the broker does not take.
    pub spool: PathBuf,
    /// How much of them, in bytes.
    pub spool_bytes: u64,
    /// The directory of events: what it leaves for the next agent is below it; `None`: nowhere.
    pub dir: Option<PathBuf>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs until a signal.
pub fn run(plan: &Plan, args: &Daemon) -> Exit {
    let stop = match daemon::begin(args) {
        Ok(stop) => stop,
        Err(exit) => return exit,
    };
    if let Err(e) = Spool::try_in(&plan.spool) {
        complain(&format!(
            "{}: what the broker does not take cannot be kept there: {e}; name another directory with --spool-dir",
            plan.spool.display()
        ));
        return Exit::Unusable;
    }
    let node = match connect(&plan.site, &args.name()) {
        Ok(n) => n,
        Err(e) => {
            complain(&e.to_string());
            return Exit::Unreachable;
        }
    };
    node.tell(&host(), 1000, 1);
    let agent = Arc::new(Agent {
        outgoing: Arc::new(node.outgoing()),
        name: args.name(),
        started_ms: Control::now_ms(),
        refused: Mutex::default(),
        node,
    });
    agent.report();
    let mut namesakes = Namesakes::of(&agent.name, agent.started_ms);
    let is_refused = |other: &str| {
        complain(&format!(
            "{other} runs already: each agent of a cluster has a name of its own, by default that of its host (--name)"
        ));
        Exit::Unusable
    };
    if let Some(other) = namesakes.at_the_start(&agent.node, &stop) {
        agent.node.close();
        return is_refused(&other);
    }
    let mut exit = Exit::Done;
    let mut followed: BTreeMap<JobId, Result<Following, Instant>> = BTreeMap::new();
    complain("agent is ready");
    while !stop.is_set() {
        if let Some(other) = namesakes.later(&agent.node) {
            exit = is_refused(&other);
            break;
        }
        agent.look(plan, &mut followed);
        let until = Instant::now() + LOOK;
        while Instant::now() < until && !stop.is_set() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let followed: Vec<_> = followed.into_iter().filter_map(|(id, f)| Some((id, f.ok()?))).collect();
    followed.iter().for_each(|(_, f)| f.rest_soon());
    let left: Vec<(JobId, Left)> = followed.into_iter().filter_map(|(id, f)| Some((id, f.stop()?))).collect();
    // what the broker has not confirmed may be lost; then whoever goes on would not know
    let since = Instant::now();
    while !left.is_empty() && agent.outgoing.unsent() > 0 && since.elapsed() < LAST {
        std::thread::sleep(Duration::from_millis(5));
    }
    // not beside an agent of our name, whose place that is
    let leaves = exit == Exit::Done && agent.outgoing.unsent() == 0;
    if let Some(dir) = plan.dir.as_ref().filter(|_| leaves) {
        left.iter().for_each(|(id, l)| l.write(&left::path(dir, &agent.name, *id)));
    }
    agent.node.close();
    exit
}

struct Agent {
    node: Arc<Node>,
    outgoing: Arc<Outgoing>,
    name: String,
    started_ms: u64,
    refused: Mutex<BTreeMap<JobId, String>>,
}

impl Agent {
    /// Follows the mirrors that there are.
    fn look(self: &Arc<Agent>, plan: &Plan, followed: &mut BTreeMap<JobId, Result<Following, Instant>>) {
        // while the ledger is away what is followed is followed on
        let Ok(all) = self.node.mirrors_now() else { return };
        for id in &all {
            let again = match followed.get(id) {
                None => true,
                Some(Err(at)) => at.elapsed() > AGAIN,
                // also when something else is asked for now
                Some(Ok(f)) => {
                    let wish = self.node.mirror_wish(*id);
                    f.is_over() || wish.is_ok_and(|w| w.is_some_and(|w| w != f.wish))
                }
            };
            if !again {
                continue;
            }
            if let Some(Ok(f)) = followed.remove(id) {
                // what comes next is another life, or another wish
                drop(f.stop());
            }
            let begun = self.follow(*id, plan);
            let mut refused = lock(&self.refused);
            match &begun {
                Ok(_) => drop(refused.remove(id)),
                Err(why) => {
                    if refused.insert(*id, why.clone()).as_ref() != Some(why) {
                        tracing::warn!("mirror {id} is not followed on this node: {why}");
                    }
                }
            }
            drop(refused);
            followed.insert(*id, begun.map_err(|_| Instant::now()));
        }
        let gone: Vec<JobId> = followed.keys().filter(|id| !all.contains(id)).copied().collect();
        for id in gone {
            lock(&self.refused).remove(&id);
            if let Some(Ok(f)) = followed.remove(&id) {
                drop(f.stop());
                tracing::info!("mirror {id} is no more");
            }
        }
    }

    fn follow(self: &Arc<Agent>, id: JobId, plan: &Plan) -> Result<Following, String> {
        let record =
            self.node.mirror(id).map_err(|e| e.to_string())?.ok_or("the ledger has no such mirror")?;
        let there = std::fs::metadata(&record.spec.src).map_err(|e| format!("SRC: {e}"))?;
        if there.ino() != record.roots.0 {
            return Err("SRC is another directory on this node: is its file system mounted?".to_owned());
        }
        let asked = self.node.mirror_field(id, DETECT).map_err(|e| e.to_string())?.unwrap_or_default();
        let asked: Vec<String> = serde_json::from_slice(&asked).unwrap_or_default();
        let asked = asked.iter().filter_map(|n| <How as clap::ValueEnum>::from_str(n, false).ok());
        let detect = if plan.detect.is_empty() { asked.collect() } else { plan.detect.clone() };
        Following::start(self, id, &record, &detect, plan)
    }

    /// What others may see of this process.
    fn report(self: &Arc<Agent>) {
        let agent = Arc::downgrade(self);
        self.node.report(Box::new(move || {
            let Some(a) = agent.upgrade() else { return NodeReport::default() };
            let refusal = |(id, why): (&JobId, &String)| Refusal { job: id.to_string(), why: why.clone() };
            let refused = lock(&a.refused).iter().map(refusal).collect();
            NodeReport {
                worker: a.node.worker().to_owned(),
                node: a.node.name().to_owned(),
                kind: "agent".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                started_ms: a.started_ms,
                seen_ms: Control::now_ms(),
                refused,
                ..NodeReport::default()
            }
        }));
    }
}
