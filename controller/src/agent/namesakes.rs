//! Another agent that goes by our name.
//!
//! Messages are numbered by the name of an agent: of two of one name each would be missed again and again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use treeferry_core::Stop;
use treeferry_queue::{Node, NodeReport};

/// An agent that is alive says something within this.
const ALIVE: Duration = Duration::from_millis(2500);
/// How often it is looked for one.
const OFTEN: Duration = Duration::from_secs(2);

/// Looks for it.
pub struct Namesakes {
    name: String,
    started_ms: u64,
    /// When each was heard last, by its clock.
    seen: BTreeMap<String, u64>,
    asked: Instant,
}

impl Namesakes {
    /// For an agent that began then (ms since 1970), as it says of itself.
    pub fn of(name: &str, started_ms: u64) -> Namesakes {
        Namesakes { name: name.to_owned(), started_ms, seen: BTreeMap::new(), asked: Instant::now() }
    }

    /// One that was there before us and is alive. What one that was killed has said last stays for a while: it is waited for
    /// something new.
    pub fn at_the_start(&mut self, node: &Node, stop: &Stop) -> Option<String> {
        let began = Instant::now();
        loop {
            if let Some(other) = self.look(node) {
                return Some(other);
            }
            if self.seen.is_empty() || began.elapsed() > ALIVE || stop.is_set() {
                return None;
            }
            std::thread::sleep(ALIVE / 10);
        }
    }

    /// The same now and then: two that are started at once do not see each other at first.
    pub fn later(&mut self, node: &Node) -> Option<String> {
        if self.asked.elapsed() < OFTEN {
            return None;
        }
        self.look(node)
    }

    fn look(&mut self, node: &Node) -> Option<String> {
        self.asked = Instant::now();
        // while the ledger cannot be asked nobody can be followed either
        let all = node.reports_now().unwrap_or_default();
        let ours = (self.started_ms, node.worker());
        let is_older = |r: &&NodeReport| (r.started_ms, r.worker.as_str()) < ours;
        let namesakes = all.iter().filter(|r| r.kind == "agent" && r.node == self.name);
        for r in namesakes.filter(is_older) {
            let before = self.seen.insert(r.worker.clone(), r.seen_ms);
            if before.is_some_and(|at| at != r.seen_ms) {
                return Some(r.worker.clone());
            }
        }
        None
    }
}
