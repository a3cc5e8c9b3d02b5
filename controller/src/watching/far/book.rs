//! What the keeper of a mirror knows beside the paths: agents, errands that are under way, letters that are not done, and
//! what of all this stands in the ledger for whoever keeps the mirror next.

use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use treeferry_core::{Counters, JobId, RelPath, Work, escape};
use treeferry_mirror::Continuity;
use treeferry_queue::mirrors::Letter;
use treeferry_queue::{JobRecord, LedgerError, Node};
use treeferry_worker::Job;

/// Up to when it was complete (µs since 1970).
const COMPLETE: &str = "complete";
/// What was told when changes were last missed (µs since 1970).
const LOST: &str = "lost";
/// Agents, and how far each was heard.
const HEARD: &str = "heard";
/// Paths that fail.
const FAILING: &str = "failing";
/// What tells the directories from others that have their paths later.
pub const ROOTS: &str = "roots";

/// What an earlier keeper has left.
pub struct Kept {
    /// It asked for the same, and so it is called.
    same: Option<u64>,
    /// What the last wish was called, whatever it was.
    last: u64,
    walked: bool,
    /// Up to when it was complete (µs since 1970).
    pub complete_up_to: u64,
    lost_at: u64,
    heard: Continuity,
    /// Paths that failed.
    pub failing: Vec<RelPath>,
}

impl Kept {
    /// Reads it. It is of use to a mirror that asks for the same of the same directories, which `job` has open.
    pub fn read(node: &Node, id: JobId, now: &JobRecord, job: &Job) -> Result<Kept, LedgerError> {
        let fields = node.mirror_fields(id)?;
        let then = node.mirror(id)?;
        let roots = fields.get(ROOTS).is_some_and(|r| *r == job.roots_text().into_bytes());
        let is_same = |t: &JobRecord| (&t.spec, t.roots) == (&now.spec, now.roots);
        let json = |k: &str| fields.get(k).and_then(|b| serde_json::from_slice::<Value>(b).ok());
        let number = |k: &str| json(k).and_then(|v| v.as_u64()).unwrap_or(0);
        let heard = fields.get(HEARD).and_then(|b| serde_json::from_slice(b).ok()).unwrap_or_default();
        let failing = json(FAILING).unwrap_or_default();
        let failing = failing.as_array().into_iter().flatten();
        Ok(Kept {
            last: then.as_ref().map_or(0, |t| t.created_ms),
            same: then.filter(|t| is_same(t) && roots && !job.made_target()).map(|t| t.created_ms),
            walked: fields.get(super::WALKED).is_some_and(|w| w == b"1"),
            complete_up_to: number(COMPLETE),
            lost_at: number(LOST),
            heard,
            failing: failing.filter_map(|p| RelPath::new(escape::unescape(p.as_str()?)).ok()).collect(),
        })
    }

    /// All of the source was walked, and what has happened since then is known or will be told again.
    pub fn is_whole(&self) -> bool {
        self.same.is_some() && self.walked && self.complete_up_to > 0
    }

    /// What the wish is called: as before if it is the same, else by the time of day (ms since 1970), or more than the last
    /// one if the clock is behind that: workers follow the greater one.
    pub fn wish(&self, now_ms: u64) -> u64 {
        self.same.unwrap_or(now_ms.max(self.last.saturating_add(1)))
    }

    /// Changes had been missed, and not everything was walked since.
    pub fn lost(&self) -> bool {
        self.lost_at > 0 && self.complete_up_to <= self.lost_at
    }
}

/// The book.
pub struct Book {
    /// Drawn by each keeper.
    pub life: u64,
    /// Agents that count, if they are given.
    wanted: Vec<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    heard: Continuity,
    agents: BTreeMap<String, Agent>,
    errands: HashMap<u64, (Work, Instant)>,
    letters: VecDeque<(u64, Letter)>,
    lost_at: u64,
    counted: HashMap<String, Counters>,
    walked: Option<Box<dyn Fn() -> Counters + Send>>,
}

struct Agent {
    told: u64,
    at: Instant,
}

impl Book {
    /// A new one, that goes on with another's.
    pub fn new(life: u64, wanted: Vec<String>, kept: &Kept, again: bool) -> Book {
        let mut state = State::default();
        if again {
            state.heard = kept.heard.clone();
            state.lost_at = kept.lost_at;
        }
        if !wanted.is_empty() {
            state.heard.keep(&wanted);
        }
        Book { life, wanted, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what this agent says counts.
    pub fn counts(&self, agent: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|w| w == agent)
    }

    /// An agent was heard; see [`Continuity::heard`].
    pub fn heard(&self, agent: &str, life: u64, number: u64, said: bool) -> bool {
        let mut s = self.state();
        let a = s.agents.entry(agent.to_owned()).or_insert(Agent { told: 0, at: Instant::now() });
        a.at = Instant::now();
        s.heard.heard(agent, life, number, said)
    }

    /// An agent has told all up to a moment. Up to when all have, if that can be said.
    pub fn told(&self, agent: &str, up_to: u64) -> Option<u64> {
        let mut s = self.state();
        if let Some(a) = s.agents.get_mut(agent) {
            a.told = a.told.max(up_to);
        }
        let names: Vec<&str> = match self.wanted.is_empty() {
            true => s.heard.agents().collect(),
            false => self.wanted.iter().map(String::as_str).collect(),
        };
        names.into_iter().map(|n| s.agents.get(n).map(|a| a.told)).min().flatten().filter(|t| *t > 0)
    }

    /// Every agent that counts has been heard, and one at least.
    pub fn is_ready(&self) -> bool {
        let s = self.state();
        !s.agents.is_empty() && self.wanted.iter().all(|w| s.agents.contains_key(w))
    }

    /// Who has not been heard.
    pub fn awaited(&self) -> String {
        let s = self.state();
        let missing: Vec<&str> =
            self.wanted.iter().map(String::as_str).filter(|w| !s.agents.contains_key(*w)).collect();
        match missing.is_empty() {
            true => "an agent: start 'treeferry agent' on each node where SRC is changed".to_owned(),
            false => format!("the agents {}: start 'treeferry agent' there", missing.join(", ")),
        }
    }

    /// Changes were missed when all had been told up to this.
    pub fn lost(&self, birth: u64) {
        let mut s = self.state();
        s.lost_at = s.lost_at.max(birth);
    }

    /// An errand was sent.
    pub fn sent(&self, ticket: u64, work: &Work) {
        self.state().errands.insert(ticket, (work.clone(), Instant::now()));
    }

    /// How many are under way.
    pub fn in_flight(&self) -> usize {
        self.state().errands.len()
    }

    /// An errand is done.
    pub fn settled(&self, ticket: u64) {
        self.state().errands.remove(&ticket);
    }

    /// Errands are being worked on.
    pub fn busy(&self, tickets: &[u64]) {
        let mut s = self.state();
        for t in tickets {
            if let Some((_, at)) = s.errands.get_mut(t) {
                *at = Instant::now();
            }
        }
    }

    /// Errands of which nothing was heard for so long; they count as sent anew.
    pub fn silent(&self, patience: Duration) -> Vec<(u64, Work)> {
        let mut s = self.state();
        let silent = s.errands.iter_mut().filter(|(_, (_, at))| at.elapsed() > patience);
        silent
            .map(|(ticket, (work, at))| {
                *at = Instant::now();
                (*ticket, work.clone())
            })
            .collect()
    }

    /// What a letter says is not done before everything that was told by then is.
    pub fn keep(&self, birth: u64, letter: Letter) {
        self.state().letters.push_back((birth, letter));
    }

    /// All is done that was said when less than this was told, and the ledger knows it.
    pub fn done(&self, before: u64) {
        let mut s = self.state();
        while s.letters.front().is_some_and(|(birth, _)| *birth < before) {
            if let Some((_, letter)) = s.letters.pop_front() {
                letter.done();
            }
        }
    }

    /// What a worker has counted since it began.
    pub fn counted(&self, worker: &str, c: Counters) {
        self.state().counted.insert(worker.to_owned(), c);
    }

    /// What those who look have counted.
    pub fn counters(&self) -> Counters {
        let mut all = Counters::default();
        self.state().counted.values().for_each(|c| all.add(c));
        all
    }

    /// Where to ask what walks have counted.
    pub fn report_walks(&self, f: impl Fn() -> Counters + Send + 'static) {
        self.state().walked = Some(Box::new(f));
    }

    /// What walks have counted.
    pub fn walked(&self) -> Counters {
        self.state().walked.as_ref().map(|f| f()).unwrap_or_default()
    }

    /// What agents use to detect changes, as far as it is known.
    pub fn detectors(&self) -> Vec<String> {
        vec!["agents".to_owned()]
    }

    /// Agents, for those who watch. `time_of` says the time of day of a moment (µs since 1970), if it is one.
    pub fn agents_json(&self, time_of: impl Fn(u64) -> Option<u64>) -> Value {
        let s = self.state();
        let one = |(name, a): (&String, &Agent)| json!({"name": name, "told_up_to_us": time_of(a.told), "heard_ms_ago": a.at.elapsed().as_millis() as u64});
        let mut all: Vec<Value> = s.agents.iter().map(one).collect();
        let missing = self.wanted.iter().map(String::as_str).chain(s.heard.agents());
        for name in missing.filter(|n| !s.agents.contains_key(*n)).collect::<std::collections::BTreeSet<_>>()
        {
            all.push(json!({"name": name, "told_up_to_us": null, "heard_ms_ago": null}));
        }
        Value::Array(all)
    }

    /// What is kept for whoever keeps the mirror next.
    pub fn fields(
        &self,
        complete: u64,
        walked: bool,
        failing: impl Iterator<Item = RelPath>,
    ) -> Vec<(String, Vec<u8>)> {
        let s = self.state();
        let failing: Vec<String> = failing.map(|p| p.to_string()).collect();
        // texts and numbers: cannot fail
        let json = |v: Value| serde_json::to_vec(&v).unwrap_or_default();
        vec![
            (COMPLETE.to_owned(), json(json!(complete))),
            (LOST.to_owned(), json(json!(s.lost_at))),
            (HEARD.to_owned(), serde_json::to_vec(&s.heard).unwrap_or_default()),
            (FAILING.to_owned(), json(json!(failing))),
            (super::WALKED.to_owned(), if walked { b"1".to_vec() } else { b"0".to_vec() }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_wish_is_greater_than_the_last_one_whatever_the_clock_says() {
        let kept = |same| Kept {
            same,
            last: 1000,
            walked: true,
            complete_up_to: 1,
            lost_at: 0,
            heard: Continuity::default(),
            failing: Vec::new(),
        };
        assert_eq!(kept(Some(1000)).wish(2000), 1000);
        assert_eq!(kept(None).wish(2000), 2000);
        assert_eq!(kept(None).wish(400), 1001);
    }
}
