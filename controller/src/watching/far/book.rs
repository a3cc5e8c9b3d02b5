//! What the keeper of a mirror knows beside the paths: agents, errands that are under way, letters that are not done, and
//! what of all this stands in the ledger for whoever keeps the mirror next.

use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use treeferry_core::{Counters, JobId, RelPath, Work};
use treeferry_mirror::{Continuity, Pending, Sign};
use treeferry_queue::mirrors::Heard;
use treeferry_queue::{JobRecord, LedgerError, Node};
use treeferry_worker::Job;

/// Up to which time of day it was complete (µs since 1970; 0: it never was, or it cannot be said). A time and not one of
/// the keeper's moments, which mean nothing to another process.
const COMPLETE: &str = "complete";
/// Changes were missed, and not everything has been looked at since: `1`, or else `0`.
const LOST: &str = "lost";
/// Agents, and how far what each has said is done. What was heard and is not done is heard again: if the broker has lost
/// it, it is missed by its number.
const HEARD: &str = "heard";
/// Paths that were posted and are not done: they have no numbers. `null`: more than [`POSTED_MOST`].
const POSTED: &str = "posted";
/// More paths that were posted are not named: everything is looked at instead.
const POSTED_MOST: usize = 10_000;
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
    lost: bool,
    heard: Continuity,
    /// Paths that failed.
    pub failing: Vec<RelPath>,
    /// Paths that were posted, and were not done. `None`: too many.
    pub posted: Option<Vec<RelPath>>,
}

impl Kept {
    /// Reads it. It is of use to a mirror that asks for the same, `detect` included, of the same directories, which `job` has
    /// open.
    pub fn read(
        node: &Node,
        id: JobId,
        now: &JobRecord,
        detect: &[u8],
        job: &Job,
    ) -> Result<Kept, LedgerError> {
        let fields = node.mirror_fields(id)?;
        let then = node.mirror(id)?;
        let roots = fields.get(ROOTS).is_some_and(|r| *r == job.roots_text().into_bytes());
        // agents that run look at nothing else: who asks for other detectors asks for something else
        let detects = fields.get(super::DETECT).is_some_and(|d| d == detect);
        let is_same = |t: &JobRecord| detects && (&t.spec, t.roots) == (&now.spec, now.roots);
        let json = |k: &str| fields.get(k).and_then(|b| serde_json::from_slice::<Value>(b).ok());
        let number = |k: &str| json(k).and_then(|v| v.as_u64()).unwrap_or(0);
        let heard = fields.get(HEARD).and_then(|b| serde_json::from_slice(b).ok()).unwrap_or_default();
        let path = |p: &Value| RelPath::from_shown(p.as_str()?).ok();
        let paths = |k: &str| match json(k) {
            Some(Value::Array(all)) => Some(all.iter().filter_map(path).collect()),
            Some(_) => None,
            None => Some(Vec::new()),
        };
        Ok(Kept {
            last: then.as_ref().map_or(0, |t| t.created_ms),
            same: then.filter(|t| is_same(t) && roots && !job.made_target()).map(|t| t.created_ms),
            walked: fields.get(super::WALKED).is_some_and(|w| w == b"1"),
            complete_up_to: number(COMPLETE),
            lost: number(LOST) > 0,
            heard,
            failing: paths(FAILING).unwrap_or_default(),
            posted: paths(POSTED),
        })
    }

    /// All of the source was walked, and what has happened since then is known or will be told again.
    pub fn is_whole(&self) -> bool {
        self.same.is_some() && self.walked && self.complete_up_to > 0
    }

    /// Somebody has kept it before, and asked for this or for something else.
    pub fn was_asked_for(&self) -> bool {
        self.last > 0
    }

    /// What the wish is called: as before if it is the same, else by the time of day (ms since 1970), or more than the last
    /// one if the clock is behind that: workers follow the greater one.
    pub fn wish(&self, now_ms: u64) -> u64 {
        self.same.unwrap_or(now_ms.max(self.last.saturating_add(1)))
    }

    /// What whoever goes on with it has to do, and to leave to the next if that is not done.
    pub fn take_up(&self, book: &Book, pending: &mut Pending) {
        let now = Instant::now();
        let told = pending.told_up_to();
        for path in &self.failing {
            pending.failed(now, path.clone(), "it failed when another process kept this mirror".to_owned());
            // at once, and named again if it still does
            pending.sign(now, path.clone(), Sign::Tree);
        }
        let posted = self.posted.iter().flatten();
        posted.clone().for_each(|path| pending.sign(now, path.clone(), Sign::Tree));
        book.keep(told, Undone::Posted(posted.cloned().collect()));
        if self.lost() {
            book.lost(told);
            pending.lost();
        }
    }

    /// Changes had been missed, and not everything was walked since.
    pub fn lost(&self) -> bool {
        self.lost || self.posted.is_none()
    }
}

/// What a ledger that has lost all else must not do without: all is to be walked, and names of files are not known.
pub fn not_walked() -> Vec<(String, Vec<u8>)> {
    vec![(super::WALKED.to_owned(), b"0".to_vec()), (LOST.to_owned(), b"1".to_vec())]
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
    /// What of that is done.
    done: Continuity,
    agents: BTreeMap<String, Agent>,
    errands: HashMap<u64, Sent>,
    /// Each with what had been told when it came.
    undone: VecDeque<(u64, Undone)>,
    /// What had been told when changes were last missed. A moment.
    lost_at: Option<u64>,
    counted: HashMap<String, Counters>,
    walked: Option<Box<dyn Fn() -> Counters + Send>>,
}

/// An errand that is under way.
struct Sent {
    work: Work,
    /// When it was sent, or last heard of.
    at: Instant,
    /// Somebody had it who cannot do it: it is with nobody.
    refused: bool,
    /// How often it was sent again and nothing was heard of it.
    times: u32,
}

/// What is not done before everything is that was told by then.
pub enum Undone {
    /// An agent was heard so far, with its life.
    Heard(String, (u64, u64)),
    /// This was posted.
    Posted(Vec<RelPath>),
    /// The broker keeps this. What it says was heard.
    Letter(Heard),
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
        }
        if !wanted.is_empty() {
            state.heard.keep(&wanted);
        }
        state.done = state.heard.clone();
        Book { life, wanted, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether what this agent says counts.
    pub fn counts(&self, agent: &str) -> bool {
        self.wanted.is_empty() || self.wanted.iter().any(|w| w == agent)
    }

    /// An agent was heard when all had been told up to `birth`; see [`Continuity::heard`].
    pub fn heard(&self, birth: u64, agent: &str, life: u64, number: u64, said: bool) -> bool {
        let mut s = self.state();
        let a = s.agents.entry(agent.to_owned()).or_insert(Agent { told: 0, at: Instant::now() });
        a.at = Instant::now();
        let before = s.heard.last(agent);
        let whole = s.heard.heard(agent, life, number, said);
        if let Some(last) = s.heard.last(agent).filter(|l| before != Some(*l)) {
            s.undone.push_back((birth, Undone::Heard(agent.to_owned(), last)));
        }
        whole
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

    /// Whether an agent has been heard.
    pub fn has_heard(&self, agent: &str) -> bool {
        self.state().agents.contains_key(agent)
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
        s.lost_at = s.lost_at.max(Some(birth));
    }

    /// An errand was sent.
    pub fn sent(&self, ticket: u64, work: &Work) {
        let sent = Sent { work: work.clone(), at: Instant::now(), refused: false, times: 0 };
        self.state().errands.insert(ticket, sent);
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
            if let Some(sent) = s.errands.get_mut(t) {
                (sent.at, sent.times) = (Instant::now(), 0);
            }
        }
    }

    /// Somebody cannot do an errand.
    pub fn refused(&self, ticket: u64) {
        if let Some(sent) = self.state().errands.get_mut(&ticket) {
            (sent.at, sent.refused) = (Instant::now(), true);
        }
    }

    /// Whether nothing was heard of an errand for so long.
    pub fn is_silent(&self, patience: Duration) -> bool {
        self.state().errands.values().any(|s| !s.refused && s.at.elapsed() > patience)
    }

    /// Errands that were refused so long ago, or of which nothing was heard for so long, which depends on how often they were
    /// sent again already; they count as sent anew.
    pub fn unanswered(&self, refused: Duration, silent: impl Fn(u32) -> Duration) -> Vec<(u64, Work)> {
        let mut s = self.state();
        let is_due = |s: &Sent| s.at.elapsed() > if s.refused { refused } else { silent(s.times) };
        s.errands
            .iter_mut()
            .filter(|(_, s)| is_due(s))
            .map(|(ticket, s)| {
                s.times += u32::from(!s.refused);
                (s.at, s.refused) = (Instant::now(), false);
                (*ticket, s.work.clone())
            })
            .collect()
    }

    /// This is not done before everything is that was told by then.
    pub fn keep(&self, birth: u64, what: Undone) {
        self.state().undone.push_back((birth, what));
    }

    /// All is done that was said when less than this was told, and the ledger knows it.
    pub fn done(&self, before: u64) {
        let mut s = self.state();
        while s.undone.front().is_some_and(|(birth, _)| *birth < before) {
            match s.undone.pop_front() {
                Some((_, Undone::Letter(letter))) => letter.done(),
                Some((_, Undone::Heard(agent, last))) => s.done.put(&agent, last),
                _ => {}
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

    /// What is kept for whoever keeps the mirror next. `done_before`: all is done that was said when less than this was
    /// told. `complete`: the time of day of that moment.
    pub fn fields(
        &self,
        done_before: u64,
        complete: Option<u64>,
        walked: bool,
        failing: impl Iterator<Item = RelPath>,
    ) -> Vec<(String, Vec<u8>)> {
        let s = self.state();
        let texts = |paths: &mut dyn Iterator<Item = &RelPath>| -> Vec<String> {
            paths.map(RelPath::to_string).collect()
        };
        let failing: Vec<RelPath> = failing.collect();
        let (done, posted) = s.kept(done_before);
        let lost = s.lost_at.is_some_and(|at| done_before <= at);
        // texts and numbers: cannot fail
        let json = |v: Value| serde_json::to_vec(&v).unwrap_or_default();
        let posted = match posted.len() > POSTED_MOST {
            true => Value::Null,
            false => json!(texts(&mut posted.into_iter())),
        };
        vec![
            (COMPLETE.to_owned(), json(json!(complete.unwrap_or(0)))),
            (LOST.to_owned(), json(json!(u8::from(lost)))),
            (HEARD.to_owned(), serde_json::to_vec(&done).unwrap_or_default()),
            (POSTED.to_owned(), json(posted)),
            (FAILING.to_owned(), json(json!(texts(&mut failing.iter())))),
            (super::WALKED.to_owned(), if walked { b"1".to_vec() } else { b"0".to_vec() }),
        ]
    }
}

impl State {
    /// How far each agent's words are done when all is that was said when less than this was told, and what was posted since
    /// then. An agent of which nothing is done is in it with a life that is none: it counts, and all that it says is news.
    fn kept(&self, done_before: u64) -> (Continuity, Vec<&RelPath>) {
        let (mut done, mut posted) = (self.done.clone(), Vec::new());
        for (birth, what) in &self.undone {
            match what {
                Undone::Heard(agent, last) if *birth < done_before => done.put(agent, *last),
                Undone::Heard(agent, _) if !done.knows(agent) => done.put(agent, (0, 0)),
                Undone::Posted(paths) if *birth >= done_before => posted.extend(paths),
                _ => {}
            }
        }
        (done, posted)
    }
}

#[cfg(test)]
mod tests;
