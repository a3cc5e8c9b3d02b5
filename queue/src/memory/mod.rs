//! The embedded engine: one process, no server, nothing to lose.
//!
//! Tasks lie in one deque for each seat: its owner takes the newest (depth first, so that the frontier stays
//! small), an idle seat steals the oldest of another (the largest piece of work there is). The ledger is a
//! number of outstanding tasks and a table of joins; the counting is that of [`treeferry_core::outcome`].

mod joins;

use crate::engine::{Backend, BackendSeat, Groups, Status, Take};
use crate::groups::{Claim, Leader, Owned, Table};
use crossbeam_deque::{Injector, Steal, Stealer, Worker};
use joins::Joins;
use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::*, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use treeferry_core::job::JobState;
use treeferry_core::task::tries;
use treeferry_core::{Counters, Failure, Figures, GroupKey, NewTask, Notice, Outcome, RelPath, Task, TaskId};

/// How long a task that failed and may not next time is left alone: this, and four times as long after each
/// further failure.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// A lock that a panicking thread has left is taken all the same: every change under these locks is complete
/// in itself, and the pool ends the job after a panic.
fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The engine; see the module.
#[derive(Default)]
pub(crate) struct Memory {
    outstanding: AtomicU64,
    next_task: AtomicU64,
    joins: Joins,
    groups: Mutex<Table>,
    common: Injector<Task>,
    stealers: RwLock<Vec<Stealer<Task>>>,
    later: Mutex<VecDeque<(Instant, Task)>>,
    totals: Mutex<Totals>,
    /// Seats that wait for work, or are about to.
    idle: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    ended: Condvar,
    cancelled: AtomicBool,
    deleted: AtomicU64,
    /// Tasks that were cut short.
    left: Mutex<Vec<Task>>,
}

#[derive(Default)]
struct Totals {
    counters: Counters,
    figures: Figures,
    failures: Vec<Failure>,
    said: BTreeSet<Notice>,
    aborted: Option<String>,
}

impl Memory {
    fn task(&self, n: NewTask, tally: u64) -> Task {
        let id = TaskId(self.next_task.fetch_add(1, Relaxed));
        Task { id, join: n.join, attempt: n.attempt, tally, work: n.work }
    }

    /// Writes an outcome into the ledger. What can be run now is handed to `push`. The order of the steps is
    /// such that neither a join nor the job can seem to be at its end while something is being added.
    fn apply(&self, task: &Task, out: Outcome, last: bool, push: &mut dyn FnMut(Task)) -> Vec<Notice> {
        let mut bad_join = None;
        for j in out.opened {
            self.joins.open(j);
        }
        let new = out.children.len() + out.later.len() + out.parked.len();
        self.outstanding.fetch_add(new as u64, AcqRel);
        let parked = out.parked.iter().map(|(_, t)| t);
        for t in out.children.iter().chain(&out.later).chain(parked) {
            if let Some(j) = t.join.filter(|j| !self.joins.count_in(*j)) {
                bad_join = Some(j);
            }
        }
        for t in out.children {
            push(self.task(t, 0));
        }
        for t in out.later {
            let wait = RETRY_AFTER * 4u32.saturating_pow(u32::from(tries(t.attempt).saturating_sub(1)));
            lock(&self.later).push_back((Instant::now() + wait, self.task(t, 0)));
            self.wake_one();
        }
        for (key, t) in out.parked {
            let t = self.task(t, 0);
            // the lock must be gone before `push` wakes somebody: who goes to sleep holds that lock and asks for
            // this one
            let not_parked = lock(&self.groups).park(key, t);
            not_parked.into_iter().for_each(&mut *push);
        }
        for key in out.released {
            let free = lock(&self.groups).release(key);
            free.into_iter().for_each(&mut *push);
        }
        let mut release = |j, tally, follow_up| match self.joins.count_out(j, tally, follow_up) {
            Ok(None) => {}
            Ok(Some((follow_up, tally))) => {
                self.outstanding.fetch_add(1, AcqRel);
                push(self.task(follow_up, tally));
            }
            Err(()) => bad_join = Some(j),
        };
        for s in out.seals {
            if let Some(p) = s.follow_up.join {
                self.joins.count_in(p);
            }
            release(s.join, s.tally, Some(s.follow_up));
        }
        if let Some(j) = task.join.filter(|_| last) {
            release(j, out.tally, None);
        }
        let mut totals = lock(&self.totals);
        totals.counters.add(&out.counters);
        totals.figures.add(&out.sizes, out.records, &out.failures);
        let room = Status::MAX_FAILURES.saturating_sub(totals.failures.len());
        totals.failures.extend(out.failures.into_iter().take(room));
        let first_said = out.notices.into_iter().filter(|n| totals.said.insert(*n)).collect();
        drop(totals);
        if let Some(j) = bad_join {
            self.abort(&format!("the ledger has no join {}: please report this as a bug", j.0));
        }
        if last && self.outstanding.fetch_sub(1, AcqRel) == 1 {
            self.wake_all();
        }
        first_said
    }

    fn wake_one(&self) {
        // the other half of this pair is in `take`: a seat first says that it is idle, then looks again
        fence(SeqCst);
        if self.idle.load(Relaxed) > 0 {
            drop(lock(&self.sleep));
            self.wake.notify_one();
        }
    }

    fn wake_all(&self) {
        drop(lock(&self.sleep));
        self.wake.notify_all();
        self.ended.notify_all();
    }

    /// Where all that is outstanding waits for a better leader of its group, none will come.
    fn wake_waiting(&self) -> Option<Task> {
        let mut groups = lock(&self.groups);
        let parked = groups.parked() as u64;
        if parked == 0 || self.outstanding.load(Acquire) != parked {
            return None;
        }
        let mut tasks = groups.settle_waiting();
        drop(groups);
        let first = tasks.pop();
        tasks.into_iter().for_each(|t| self.common.push(t));
        first
    }

    fn is_over(&self) -> bool {
        self.cancelled.load(Acquire) || self.outstanding.load(Acquire) == 0
    }

    /// A task that is due to be tried again, or how long until there is one.
    fn due(&self) -> Result<Task, Option<Duration>> {
        let mut later = lock(&self.later);
        let now = Instant::now();
        match later.iter().position(|(at, _)| *at <= now) {
            Some(i) => later.remove(i).map(|x| x.1).ok_or(None),
            None => Err(later.iter().map(|(at, _)| *at - now).min()),
        }
    }
}

impl Backend for Memory {
    fn begin(&self, first: NewTask) {
        self.outstanding.fetch_add(1, AcqRel);
        self.common.push(self.task(first, 0));
        self.wake_one();
    }

    fn keep_open(&self) {
        // as if there were a task that nobody can take
        self.outstanding.fetch_add(1, AcqRel);
    }

    fn seat(self: Arc<Self>) -> Box<dyn BackendSeat> {
        let own = Worker::new_lifo();
        let mut stealers = self.stealers.write().unwrap_or_else(PoisonError::into_inner);
        let me = stealers.len();
        stealers.push(own.stealer());
        drop(stealers);
        Box::new(MemorySeat { engine: self, own, me })
    }

    fn wait(&self, timeout: Duration) -> bool {
        let g = lock(&self.sleep);
        let over = self.ended.wait_timeout_while(g, timeout, |()| !self.is_over());
        drop(over);
        self.is_over()
    }

    fn cancel(&self) {
        self.cancelled.store(true, Release);
        self.wake_all();
    }

    fn abort(&self, why: &str) {
        lock(&self.totals).aborted.get_or_insert_with(|| why.to_owned());
        self.cancel();
    }

    fn figures(&self) -> Figures {
        lock(&self.totals).figures.clone()
    }

    fn unfinished(&self) -> Vec<RelPath> {
        if !self.is_over() {
            return Vec::new();
        }
        let mut tasks = std::mem::take(&mut *lock(&self.left));
        loop {
            match self.common.steal() {
                Steal::Success(t) => tasks.push(t),
                Steal::Retry => {}
                Steal::Empty => break,
            }
        }
        tasks.extend(std::mem::take(&mut *lock(&self.later)).into_iter().map(|(_, t)| t));
        tasks.extend(lock(&self.groups).take_parked());
        tasks.into_iter().map(|t| t.work.path().clone()).collect()
    }

    fn status(&self) -> Status {
        let outstanding = self.outstanding.load(Acquire);
        let t = lock(&self.totals);
        let state = match (&t.aborted, outstanding) {
            (Some(_), _) => JobState::Aborted,
            (None, 0) if t.counters.failures == 0 => JobState::Done,
            (None, 0) => JobState::Failed,
            (None, _) if self.cancelled.load(Acquire) => JobState::Interrupted,
            (None, _) => JobState::Running,
        };
        Status {
            state,
            outstanding,
            counters: t.counters.clone(),
            failures: t.failures.clone(),
            aborted: t.aborted.clone(),
        }
    }
}

impl Groups for Memory {
    fn claim(&self, key: GroupKey, nlink: u32, path: &RelPath, wavers: bool) -> Claim {
        lock(&self.groups).claim(key, nlink, path, wavers)
    }
    fn own_target(&self, key: GroupKey, target: (u64, u64), _leader: Option<&RelPath>) -> Owned {
        match lock(&self.groups).own_target(key, target) {
            true => Owned::Ours,
            false => Owned::Others,
        }
    }
    fn is_mine(&self) -> bool {
        true
    }
    fn ready(&self, key: GroupKey, leader: Leader) {
        lock(&self.groups).ready(key, leader);
    }
    fn abandon(&self, key: GroupKey) {
        lock(&self.groups).abandon(key);
    }
    fn seen(&self, key: GroupKey, linked: bool) {
        lock(&self.groups).seen(key, linked);
    }
    fn may_delete(&self, most: u64, take: bool) -> bool {
        let next = |n| (n < most).then_some(n + u64::from(take));
        self.deleted.fetch_update(Relaxed, Relaxed, next).is_ok()
    }
    fn is_left(&self, _maker: &str) -> bool {
        false
    }
}

struct MemorySeat {
    engine: Arc<Memory>,
    own: Worker<Task>,
    me: usize,
}

impl MemorySeat {
    fn find(&self) -> Option<Task> {
        if let Some(t) = self.own.pop() {
            return Some(t);
        }
        loop {
            let mut again = false;
            match self.engine.common.steal() {
                Steal::Success(t) => return Some(t),
                Steal::Retry => again = true,
                Steal::Empty => {}
            }
            let stealers = self.engine.stealers.read().unwrap_or_else(PoisonError::into_inner);
            let n = stealers.len();
            for i in 1..n {
                match stealers[(self.me + i) % n].steal() {
                    Steal::Success(t) => return Some(t),
                    Steal::Retry => again = true,
                    Steal::Empty => {}
                }
            }
            if !again {
                return None;
            }
        }
    }
}

impl BackendSeat for MemorySeat {
    fn take(&mut self, patience: Duration) -> Take {
        let e = &self.engine;
        if e.is_over() {
            return Take::Over;
        }
        if let Some(t) = self.find() {
            return Take::Task(t);
        }
        e.idle.fetch_add(1, Relaxed);
        fence(SeqCst);
        let guard = lock(&e.sleep);
        let found = if e.is_over() {
            None
        } else {
            self.find().or_else(|| e.wake_waiting()).or_else(|| match e.due() {
                Ok(t) => Some(t),
                Err(until) => {
                    let wait = until.map_or(patience, |u| u.min(patience));
                    // spurious or not: the caller asks again
                    drop(e.wake.wait_timeout(guard, wait));
                    None
                }
            })
        };
        e.idle.fetch_sub(1, Relaxed);
        match found {
            Some(t) => Take::Task(t),
            None if e.is_over() => Take::Over,
            None => Take::Idle,
        }
    }

    fn take_own(&mut self) -> Option<Task> {
        if self.engine.cancelled.load(Acquire) { None } else { self.own.pop() }
    }

    fn backlog(&self) -> usize {
        self.own.len()
    }

    fn hungry(&self) -> bool {
        self.engine.idle.load(Relaxed) > 0
    }

    fn yields(&self, _left: usize) -> usize {
        // what is found can be taken by others at once
        0
    }

    fn leave(&mut self, task: Task) {
        lock(&self.engine.left).push(task);
    }

    fn registry(&self) -> Arc<dyn Groups> {
        Arc::clone(&self.engine) as Arc<dyn Groups>
    }

    fn flush(&mut self, task: &Task, outcome: &mut Outcome, _instead: Option<Task>) {
        let out = std::mem::take(outcome);
        // what is to be said stays with the task: its commit says it
        let notices = out.notices.clone();
        let e = Arc::clone(&self.engine);
        e.apply(task, Outcome { notices: Vec::new(), ..out }, false, &mut |t| {
            self.own.push(t);
            e.wake_one();
        });
        outcome.notices = notices;
    }

    fn commit(&mut self, task: &Task, outcome: Outcome) -> Vec<Notice> {
        let e = Arc::clone(&self.engine);
        e.apply(task, outcome, true, &mut |t| {
            self.own.push(t);
            e.wake_one();
        })
    }
}

impl Drop for MemorySeat {
    /// A thread that leaves hands its tasks to everybody.
    fn drop(&mut self) {
        while let Some(t) = self.own.pop() {
            self.engine.common.push(t);
            self.engine.wake_one();
        }
    }
}
