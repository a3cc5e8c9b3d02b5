//! The cluster engine: RabbitMQ moves tasks, Redis is the ledger, and any number of processes work.
//!
//! A message names a task of the ledger, which is a *bundle* (see `bundle`). A seat begins it, runs its tasks and what
//! they lead to depth first, and commits now and then: what it gives away, what it keeps, what it has counted. One
//! commit is one script of Redis. What is given away is then published, and when nothing is left the message is
//! acknowledged; in this order, so that at every instant either the broker or the ledger's outbox knows of every task.
//! Whoever begins a task owns it, and all who have begun it before own it no more: their commits change nothing.

mod asks;
pub mod bundle;
pub mod checkup;
mod control;
mod events;
mod figures;
pub mod mirrors;
#[cfg(test)]
mod model;
mod node;
mod pulse;
mod readings;
mod reaper;
mod record;
mod report;
mod states;
mod stream;

use crate::engine::{Backend, BackendSeat, Groups, Status, Take};
use crate::groups::{Claim, Leader, Owned};
use crate::rabbitmq::{Arrival, Errand};
use crate::redis::{Begin, Committed, Lease};
use bundle::{GroupChange, Holding};
pub use control::{Control, JobRow, QueueRow, Which};
pub use node::{Node, Offer, Reporting};
pub use record::{JobRecord, Site, SiteError};
pub use report::{NodeReport, Refusal, RunningTask, Shutdown, Wanted};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
pub use stream::{Collector, Entry, EntryId, EventStream};
use treeferry_core::job::JobState;
use treeferry_core::{Figures, GroupKey, JobId, NewTask, Notice, Outcome, RelPath, Task};

/// What a worker has done is written into the ledger at least so often: this much is done again after a crash.
const CHECKPOINT: Duration = Duration::from_secs(2);
/// News for others (links, released groups) wait at most so long.
const NEWS: Duration = Duration::from_millis(100);
/// For so long a bundle is taken for ours after the ledger said so: for it may be another's when we were cut off or asleep.
const ASSURED: Duration = Duration::from_secs(1);
/// The same when the broker is known to have given its message to others.
const DOUBTFUL: Duration = Duration::from_millis(20);
/// Between two times that a seat gives work away.
const GIVE: Duration = Duration::from_millis(20);
/// After this a message is handed back, so that jobs take turns, and long before the broker's consumer timeout.
const SLICE: Duration = Duration::from_secs(120);
/// After this, when another job has fewer threads than its share.
const TURN: Duration = Duration::from_secs(1);
/// A task that was begun so often, and of which nothing was ever done, is given up: it may be what kills the workers.
const MOST_TRIES: u64 = 20;
/// What a task weighs, of which nobody knows how much work it is: so many names.
const TASK_WEIGHT: u64 = 32;
/// Bundles that one seat gives away at once, at most.
const MOST_GIVEN: usize = 32;
/// A holder of so many tasks gives some away also when nobody asks: this bounds what a process keeps.
const FULL_TASKS: usize = 20_000;

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One job of the cluster, seen from this process.
pub(crate) struct Cluster {
    node: Arc<Node>,
    job: JobId,
}

impl Cluster {
    pub fn new(node: Arc<Node>, job: JobId) -> Cluster {
        Cluster { node, job }
    }
}

impl Backend for Cluster {
    fn begin(&self, first: NewTask) {
        self.node.create(self.job, &[], vec![bundle::Bundle::of(first)]);
    }

    fn keep_open(&self) {
        // a job of the cluster ends when its ledger says so; looks for its mirrors are not jobs
    }

    fn seat(self: Arc<Self>) -> Box<dyn BackendSeat> {
        Box::new(ClusterSeat::new(Arc::clone(&self.node), self.job, true))
    }

    fn wait(&self, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        loop {
            if self.node.state_now(self.job) != Some(JobState::Running) {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }

    fn cancel(&self) {
        self.node.end(self.job, JobState::Interrupted, "");
    }

    fn abort(&self, why: &str) {
        self.node.end(self.job, JobState::Aborted, why);
    }

    fn figures(&self) -> Figures {
        self.node.figures(self.job).unwrap_or_else(|e| {
            tracing::error!("job {}: {e}", self.job);
            Figures::default()
        })
    }

    fn unfinished(&self) -> Vec<RelPath> {
        self.node.unfinished(self.job).unwrap_or_else(|e| {
            tracing::error!("job {}: {e}", self.job);
            Vec::new()
        })
    }

    fn status(&self) -> Status {
        self.node.status(self.job).unwrap_or_else(|| Status::lost("the ledger has no such job"))
    }
}

/// A bundle in the hands of a seat.
struct Held {
    holding: Holding,
    lease: Lease,
    arrival: Arrival,
    since: Instant,
    committed: Instant,
    /// When the ledger last said that it is ours.
    assured: Instant,
    /// It is ours no more: nothing of it may be committed.
    lost: Option<Lost>,
}

/// Why a bundle is ours no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// Another has begun it, or the ledger has forgotten a commit.
    Begun,
    /// It has led a group that another leads now: it is to be run again.
    Fenced,
}

/// What a seat and the registry of its thread share.
pub(crate) struct Hand {
    node: Arc<Node>,
    job: JobId,
    held: Mutex<Option<Held>>,
    /// What the node has been told of what could be given away.
    weight: AtomicU64,
    /// Names that the running task has not come to, and could hand back.
    left: AtomicUsize,
}

pub(crate) struct ClusterSeat {
    hand: Arc<Hand>,
    /// It asks the node for messages itself. Otherwise it is given one and ends with it.
    asks: bool,
    idle: bool,
}

impl ClusterSeat {
    fn new(node: Arc<Node>, job: JobId, asks: bool) -> ClusterSeat {
        let hand =
            Hand { node, job, held: Mutex::new(None), weight: AtomicU64::new(0), left: AtomicUsize::new(0) };
        ClusterSeat { hand: Arc::new(hand), asks, idle: false }
    }

    /// A seat that works off one message.
    pub fn with(node: Arc<Node>, arrival: Arrival) -> ClusterSeat {
        let seat = ClusterSeat::new(node, arrival.errand.job, false);
        seat.hand.take_up(arrival);
        seat
    }

    fn set_idle(&mut self, idle: bool) {
        if self.idle != idle {
            self.idle = idle;
            self.hand.node.idle(idle);
        }
    }
}

impl Hand {
    /// Begins what a message names, if there is anything to begin.
    fn take_up(&self, arrival: Arrival) {
        let Errand { job, task } = arrival.errand;
        if job != self.job {
            self.node.refuse(arrival);
            return;
        }
        if self.node.is_paused(job) {
            self.node.shelve(arrival);
            return;
        }
        let token = self.node.draw_token();
        match self.node.begin(job, task, token) {
            Ok(Begin::Yours(b)) => {
                let links = arrival.lane == bundle::Lane::Links;
                let mut holding = Holding::new(b.bundle, links, b.again);
                if b.tries > MOST_TRIES {
                    tracing::error!(
                        "job {job}: task {} was begun {MOST_TRIES} times and never ended",
                        task.0
                    );
                    holding.poison(MOST_TRIES);
                }
                let now = Instant::now();
                self.node.hold(job, task, &arrival.slip);
                if self.node.state(job).is_none() {
                    self.node.ask_soon();
                }
                *lock(&self.held) = Some(Held {
                    holding,
                    lease: Lease { job, task, token, commits: 0 },
                    arrival,
                    since: now,
                    committed: now,
                    assured: now,
                    lost: None,
                });
            }
            Ok(Begin::Gone | Begin::Over) => self.node.ack(arrival, job, Vec::new()),
            Err(e) => {
                self.node.end(job, JobState::Aborted, &e.to_string());
                self.node.ack(arrival, job, Vec::new());
            }
        }
    }

    /// Commits; `all`: nothing is kept. Returns whether the bundle is still ours.
    fn commit(&self, held: &mut Held, give: usize, all: bool) -> bool {
        if held.lost.is_some() {
            self.let_go(held);
            return false;
        }
        if let Some(j) = held.holding.lost() {
            let why = format!("the ledger has no join {}: please report this as a bug", j.0);
            self.node.end(self.job, JobState::Aborted, &why);
            return false;
        }
        let c = held.holding.commit(give, all);
        held.committed = Instant::now();
        match self.node.commit(held.lease, &c) {
            Ok(r) if r.what == Committed::Done => {
                held.lease.commits += 1;
                held.assured = held.committed;
                let made = r.made;
                if c.rest.is_some() {
                    self.node.publish(self.job, made);
                    return true;
                }
                self.node.post_and_ack(self.job, made, held.arrival.slip.clone());
                false
            }
            Ok(r) => {
                held.lost = Some(if r.what == Committed::Fenced { Lost::Fenced } else { Lost::Begun });
                self.let_go(held);
                false
            }
            Err(e) => {
                self.node.end(self.job, JobState::Aborted, &e.to_string());
                false
            }
        }
    }

    /// Settles the message of a bundle that is ours no more; while a task of it runs, not yet: that is about to find out,
    /// and nobody else is to begin before it has.
    fn let_go(&self, held: &Held) {
        let Some(lost) = held.lost.filter(|_| !held.holding.is_running()) else { return };
        // somebody else leads a group that we have led: all of it is run again, and finds that out
        let again = matches!(lost, Lost::Fenced).then_some((held.arrival.lane, held.lease.task));
        self.node.post_and_ack(self.job, again.into_iter().collect(), held.arrival.slip.clone());
    }

    /// What is due between two tasks. Returns whether the bundle is still ours.
    fn between(&self, held: &mut Held) -> bool {
        if held.holding.is_done() || held.lost.is_some() {
            return self.commit(held, 0, true);
        }
        if !held.holding.is_committable() {
            return true;
        }
        let since = held.committed.elapsed();
        if !held.holding.is_running() && self.gives_way(held) {
            return self.commit(held, 1, true);
        }
        let give = self.wanted(held);
        if give > 0 || since > CHECKPOINT || (held.holding.has_news() && since > NEWS) {
            return self.commit(held, give, false);
        }
        true
    }

    /// Whether all that is left is to go back to the broker: others are to have their turn, or the job is paused.
    fn gives_way(&self, held: &Held) -> bool {
        let since = held.since.elapsed();
        since > SLICE || self.node.is_paused(self.job) || (since > TURN && self.node.has_too_much(self.job))
    }

    /// Into how many bundles to divide what is given away now.
    fn wanted(&self, held: &Held) -> usize {
        let own = usize::from(!held.holding.is_running());
        if self.node.is_blocked() || held.holding.backlog() <= own {
            return 0;
        }
        if held.holding.backlog() > FULL_TASKS {
            return MOST_GIVEN;
        }
        match held.committed.elapsed() > GIVE {
            true => self.node.asked(true).min(MOST_GIVEN),
            false => 0,
        }
    }

    /// Tells the node how much of this could be given away.
    fn weigh(&self, held: Option<&Held>) {
        let weight = held.map_or(0, |h| {
            let left = self.left.load(Relaxed) as u64;
            match (h.holding.backlog() as u64, left) {
                (1, 0) if !h.holding.is_running() => 0,
                (tasks, left) => tasks * TASK_WEIGHT + left,
            }
        });
        let before = self.weight.swap(weight, Relaxed);
        if before != weight {
            self.node.weigh(before, weight);
        }
    }
}

impl BackendSeat for ClusterSeat {
    fn take(&mut self, patience: Duration) -> Take {
        let until = Instant::now() + patience;
        loop {
            let hand = Arc::clone(&self.hand);
            let state = hand.node.state(hand.job);
            let mut held = lock(&hand.held);
            if state.is_some_and(|s| s != JobState::Running) {
                if let Some(h) = held.take() {
                    hand.weigh(None);
                    hand.node.unhold(hand.job, h.lease.task);
                    hand.node.ack(h.arrival, hand.job, Vec::new());
                }
                drop(held);
                self.set_idle(false);
                return Take::Over;
            }
            if let Some(h) = held.as_mut() {
                if !hand.between(h) {
                    hand.node.unhold(hand.job, h.lease.task);
                    *held = None;
                    hand.weigh(None);
                    if !self.asks {
                        return Take::Over;
                    }
                    continue;
                }
                if let Some(t) = h.holding.next() {
                    hand.weigh(Some(h));
                    drop(held);
                    self.set_idle(false);
                    return Take::Task(t);
                }
                let wait = h.holding.until_due().unwrap_or(Duration::from_millis(1));
                drop(held);
                let left = until.saturating_duration_since(Instant::now());
                std::thread::sleep(wait.min(left));
                if left.is_zero() {
                    return Take::Idle;
                }
                continue;
            }
            drop(held);
            if !self.asks {
                return Take::Over;
            }
            let left = until.saturating_duration_since(Instant::now());
            match hand.node.next(left.min(Duration::from_millis(100))) {
                Some(arrival) => hand.take_up(arrival),
                None => {
                    self.set_idle(true);
                    if left.is_zero() {
                        return Take::Idle;
                    }
                }
            }
        }
    }

    fn take_own(&mut self) -> Option<Task> {
        lock(&self.hand.held).as_mut().and_then(|h| h.holding.next())
    }

    fn backlog(&self) -> usize {
        lock(&self.hand.held).as_ref().map_or(0, |h| h.holding.backlog())
    }

    fn hungry(&self) -> bool {
        !self.hand.node.is_blocked() && self.hand.node.asked(false) > 0
    }

    fn yields(&self, left: usize) -> usize {
        let hand = &self.hand;
        let mut held = lock(&hand.held);
        hand.left.store(left, Relaxed);
        hand.weigh(held.as_ref());
        let Some(h) = held.as_mut().filter(|h| h.committed.elapsed() > GIVE) else { return 0 };
        if hand.node.is_blocked() || hand.node.asked(false) == 0 {
            return 0;
        }
        if h.holding.backlog() > 0 && h.holding.is_untold() {
            // others get whole tasks, and the running one goes on
            let give = hand.node.asked(true).min(MOST_GIVEN);
            let _ = hand.commit(h, give, false);
            hand.weigh(Some(h));
            return 0;
        }
        hand.node.asked(false)
    }

    fn flush(&mut self, task: &Task, outcome: &mut Outcome, instead: Option<Task>) {
        let notices = outcome.notices.clone();
        let out = Outcome { notices: Vec::new(), ..std::mem::take(outcome) };
        outcome.notices = notices;
        let mut held = lock(&self.hand.held);
        let Some(h) = held.as_mut() else { return };
        h.holding.flush(task, out, instead);
        self.hand.weigh(Some(h));
        if !h.holding.is_committable() {
            return;
        }
        let give = self.hand.wanted(h);
        if give > 0 || h.committed.elapsed() > CHECKPOINT {
            // whether it is still ours shows at the next commit, which is none if it is not
            let _ = self.hand.commit(h, give, false);
        }
    }

    fn commit(&mut self, task: &Task, outcome: Outcome) -> Vec<Notice> {
        let mut held = lock(&self.hand.held);
        let Some(h) = held.as_mut() else { return Vec::new() };
        let said = outcome.notices.clone();
        h.holding.end(task, outcome);
        self.hand.left.store(0, Relaxed);
        self.hand.weigh(Some(h));
        said
    }

    fn leave(&mut self, _task: Task) {
        // its message comes again, and the ledger has it
    }

    fn registry(&self) -> Arc<dyn Groups> {
        Arc::clone(&self.hand) as Arc<dyn Groups>
    }
}

impl Drop for ClusterSeat {
    /// A thread that leaves hands its tasks to everybody.
    fn drop(&mut self) {
        self.set_idle(false);
        if let Some(mut h) = lock(&self.hand.held).take() {
            self.hand.weigh(None);
            // a task that is not done, after a panic or a stop, comes again with its message
            if h.holding.is_running() {
                self.hand.node.refuse(h.arrival);
            } else {
                self.hand.commit(&mut h, 1, true);
            }
            self.hand.node.unhold(self.hand.job, h.lease.task);
        }
    }
}

impl Groups for Hand {
    fn claim(&self, key: GroupKey, nlink: u32, path: &RelPath, wavers: bool) -> Claim {
        let mut held = lock(&self.held);
        let mut abandoned = false;
        if let Some(h) = held.as_ref() {
            match h.holding.group_now(key) {
                Some(Some(l)) if l.path != *path => return Claim::Follow(l.clone()),
                Some(Some(_)) => return Claim::Lead,
                Some(None) => abandoned = true,
                None => {}
            }
        }
        let claim = self.node.claim(self.job, key, nlink, path, wavers, abandoned);
        match (&claim, held.as_mut()) {
            (Claim::Lead, Some(h)) => h.holding.leads(key, path.clone()),
            (Claim::Follow(l), Some(h)) => h.holding.follows(key, l.clone()),
            _ => {}
        }
        claim
    }

    fn own_target(&self, key: GroupKey, target: (u64, u64), leader: Option<&RelPath>) -> Owned {
        let mut held = lock(&self.held);
        let Some(h) = held.as_mut().filter(|h| h.lost.is_none()) else { return Owned::Lost };
        let owned = self.node.own_target(h.lease, key, target, leader);
        match owned {
            Some(Owned::Ours) => h.holding.owns(key, target),
            Some(Owned::Others) => {}
            Some(Owned::Lost) => h.lost = Some(Lost::Begun),
            None => h.lost = Some(Lost::Fenced),
        }
        h.assured = Instant::now();
        owned.unwrap_or(Owned::Lost)
    }

    fn is_mine(&self) -> bool {
        let mut held = lock(&self.held);
        let Some(h) = held.as_mut().filter(|h| h.lost.is_none()) else { return false };
        let within = if h.arrival.slip.is_valid() { ASSURED } else { DOUBTFUL };
        if h.assured.elapsed() > within {
            let now = Instant::now();
            match self.node.is_owned(h.lease) {
                true => h.assured = now,
                false => h.lost = Some(Lost::Begun),
            }
        }
        h.lost.is_none()
    }

    fn ready(&self, key: GroupKey, leader: Leader) {
        self.change(key, GroupChange::Ready(leader));
    }

    fn abandon(&self, key: GroupKey) {
        self.change(key, GroupChange::Abandon);
    }

    fn seen(&self, key: GroupKey, linked: bool) {
        self.change(key, GroupChange::Seen(linked));
    }

    fn may_delete(&self, most: u64, take: bool) -> bool {
        self.node.may_delete(self.job, most, take)
    }

    fn is_left(&self, maker: &str) -> bool {
        let mine = lock(&self.held).as_ref().map(|h| h.lease);
        mine.is_some_and(|lease| self.node.is_left(lease, maker))
    }
}

impl Hand {
    fn change(&self, key: GroupKey, change: GroupChange) {
        if let Some(h) = lock(&self.held).as_mut() {
            h.holding.group(key, change);
        }
    }
}
