//! The verbs of an engine, and the only place that names the engines.

use crate::cluster::{Cluster, ClusterSeat, Node};
use crate::groups::{Claim, Leader, Owned};
use crate::memory::Memory;
use crate::rabbitmq::Arrival;
use std::sync::Arc;
use std::time::Duration;
use treeferry_core::job::JobState;
use treeferry_core::{Counters, Failure, Figures, GroupKey, JobId, NewTask, Notice, Outcome, RelPath, Task};

/// A broker, a ledger and an inode registry for one job. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<dyn Backend>);

/// A worker thread's place at the engine.
pub struct Seat(Box<dyn BackendSeat>);

/// Where a job stands.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its state; an end only when nothing is outstanding, or when the job was stopped.
    pub state: JobState,
    /// Tasks outstanding: queued, running, parked, or waiting to be tried again.
    pub outstanding: u64,
    /// What committed tasks have counted.
    pub counters: Counters,
    /// The first failures, at most [`Status::MAX_FAILURES`]; `counters.failures` is the exact number.
    pub failures: Vec<Failure>,
    /// Why the job was aborted, if it was.
    pub aborted: Option<String>,
}

impl Status {
    /// How many failures are kept in memory; each one is also told as it happens.
    pub const MAX_FAILURES: usize = 10_000;

    /// Of a job that nobody knows any more.
    pub(crate) fn lost(why: &str) -> Status {
        Status {
            state: JobState::Aborted,
            outstanding: 0,
            counters: Counters::default(),
            failures: Vec::new(),
            aborted: Some(why.to_owned()),
        }
    }
}

/// What a seat gets when it asks for work.
#[derive(Debug)]
pub enum Take {
    /// A task to run and commit.
    Task(Task),
    /// Nothing to do at the moment; ask again.
    Idle,
    /// The job has ended or was stopped.
    Over,
}

/// What an engine implements for a process.
pub(crate) trait Backend: Send + Sync {
    fn begin(&self, first: NewTask);
    fn keep_open(&self);
    fn seat(self: Arc<Self>) -> Box<dyn BackendSeat>;
    fn wait(&self, timeout: Duration) -> bool;
    fn cancel(&self);
    fn abort(&self, why: &str);
    fn status(&self) -> Status;
    fn figures(&self) -> Figures;
    fn unfinished(&self) -> Vec<RelPath>;
}

/// What an engine implements for a thread.
pub(crate) trait BackendSeat: Send {
    fn take(&mut self, patience: Duration) -> Take;
    fn take_own(&mut self) -> Option<Task>;
    fn backlog(&self) -> usize;
    fn hungry(&self) -> bool;
    fn yields(&self, left: usize) -> usize;
    fn flush(&mut self, task: &Task, outcome: &mut Outcome, instead: Option<Task>);
    fn commit(&mut self, task: &Task, outcome: Outcome) -> Vec<Notice>;
    fn leave(&mut self, task: Task);
    fn registry(&self) -> Arc<dyn Groups>;
}

/// What an engine implements of the inode registry.
pub(crate) trait Groups: Send + Sync {
    fn claim(&self, key: GroupKey, nlink: u32, path: &RelPath, wavers: bool) -> Claim;
    fn own_target(&self, key: GroupKey, target: (u64, u64), leader: Option<&RelPath>) -> Owned;
    fn is_mine(&self) -> bool;
    fn ready(&self, key: GroupKey, leader: Leader);
    fn abandon(&self, key: GroupKey);
    fn seen(&self, key: GroupKey, linked: bool);
    fn may_delete(&self, most: u64, take: bool) -> bool;
    fn is_left(&self, maker: &str) -> bool;
}

/// The inode registry, as a thread sees it: what it says here is told the ledger with the commit of the task that the
/// thread's seat runs. Cheap to clone; not for another thread.
#[derive(Clone)]
pub struct Registry(Arc<dyn Groups>);

impl Engine {
    /// The embedded engine: everything in this process, no server.
    pub fn memory() -> Engine {
        Engine(Arc::new(Memory::default()))
    }

    /// A job of the cluster.
    pub fn cluster(node: &Arc<Node>, job: JobId) -> Engine {
        Engine(Arc::new(Cluster::new(Arc::clone(node), job)))
    }

    /// Gives the ledger the first task of the job; or a further one, if it is kept open.
    pub fn begin(&self, first: NewTask) {
        self.0.begin(first);
    }

    /// The job does not end by itself when nothing is outstanding: tasks are given to it as they come, with
    /// [`Engine::begin`], until it is cancelled.
    pub fn keep_open(&self) {
        self.0.keep_open();
    }

    /// A place for one more worker thread.
    pub fn seat(&self) -> Seat {
        Seat(Arc::clone(&self.0).seat())
    }

    /// Waits until the job has ended or the time is over; says whether it has ended.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.0.wait(timeout)
    }

    /// Hands out no more tasks; the job ends as interrupted.
    pub fn cancel(&self) {
        self.0.cancel();
    }

    /// Ends the job because it has become impossible.
    pub fn abort(&self, why: &str) {
        self.0.abort(why);
    }

    /// Where the job stands.
    pub fn status(&self) -> Status {
        self.0.status()
    }

    /// What is kept of the job for reports.
    pub fn figures(&self) -> Figures {
        self.0.figures()
    }

    /// Where there is something left to do: a path for each task. The embedded engine knows that only of a job that was
    /// stopped, when no seat is left.
    pub fn unfinished(&self) -> Vec<RelPath> {
        self.0.unfinished()
    }
}

impl Registry {
    /// Asks what a name of a hard-link group is to do. The first one to ask leads: it is copied like any file,
    /// and whoever leads may ask again and is told so again. One that `wavers` leads only if no other does: it
    /// is not at the target yet, and another of its group may be.
    pub fn claim(&self, key: GroupKey, nlink: u32, path: &RelPath, wavers: bool) -> Claim {
        self.0.claim(key, nlink, path, wavers)
    }

    /// Takes an inode of the target, (device, inode), for a group, which may be a single file. `leader`: the path that
    /// leads it and is about to get this inode.
    pub fn own_target(&self, key: GroupKey, target: (u64, u64), leader: Option<&RelPath>) -> Owned {
        self.0.own_target(key, target, leader)
    }

    /// Whether the task that runs is still this thread's, as far as is known or can be learned at once. If not, it must
    /// not touch the target: another has begun it anew, and may have ended it. Always, for the embedded engine.
    pub fn is_mine(&self) -> bool {
        self.0.is_mine()
    }

    /// The group's first copy exists; what waits for it is released by the leader's commit.
    pub fn ready(&self, key: GroupKey, leader: Leader) {
        self.0.ready(key, leader);
    }

    /// The leader failed for good or turned out wrong: the next name that asks leads.
    pub fn abandon(&self, key: GroupKey) {
        self.0.abandon(key);
    }

    /// A name of the group is settled, and a link was made for it or not. When all its links were seen the group
    /// is forgotten.
    pub fn seen(&self, key: GroupKey, linked: bool) {
        self.0.seen(key, linked);
    }

    /// Whether one more of the job's `most` deletions is left; `take`: it is taken then.
    pub fn may_delete(&self, most: u64, take: bool) -> bool {
        self.0.may_delete(most, take)
    }

    /// Whether a process of that name (see `treeferry_fs::temp::maker_part`) works, or has worked, for this job, and
    /// so cannot be at work in a directory that everything else is done in. Never for the embedded engine.
    pub fn is_left(&self, maker: &str) -> bool {
        self.0.is_left(maker)
    }
}

impl Seat {
    /// A seat that works off one message.
    pub(crate) fn of_message(node: Arc<Node>, arrival: Arrival) -> Seat {
        Seat(Box::new(ClusterSeat::with(node, arrival)))
    }

    /// The next task; waits for at most `patience`.
    pub fn take(&mut self, patience: Duration) -> Take {
        self.0.take(patience)
    }

    /// The newest task that this seat itself put there, if it is still there: for a walker that goes on by
    /// itself because enough is queued.
    pub fn take_own(&mut self) -> Option<Task> {
        self.0.take_own()
    }

    /// How many tasks of this seat are queued.
    pub fn backlog(&self) -> usize {
        self.0.backlog()
    }

    /// Whether some seat has nothing to do.
    pub fn hungry(&self) -> bool {
        self.0.hungry()
    }

    /// For how many others a task had better hand the rest of its work back, which is `left` names: only between two
    /// tasks something can be given to them.
    pub fn yields(&self, left: usize) -> usize {
        self.0.yields(left)
    }

    /// Takes in what a task has found so far, while it goes on. Empties the outcome. `instead`: what is to be run in
    /// the place of the task, should this process die before it ends; where that can be said, its children can be
    /// taken by anybody at once.
    pub fn flush(&mut self, task: &Task, outcome: &mut Outcome, instead: Option<Task>) {
        self.0.flush(task, outcome, instead);
    }

    /// Ends a task: everything in the outcome happens in one step. Returns what is now to be said for the
    /// first time.
    pub fn commit(&mut self, task: &Task, outcome: Outcome) -> Vec<Notice> {
        self.0.commit(task, outcome)
    }

    /// Gives up a task that was cut short, since the job was stopped.
    pub fn leave(&mut self, task: Task) {
        self.0.leave(task);
    }

    /// The inode registry for the tasks of this seat.
    pub fn registry(&self) -> Registry {
        Registry(self.0.registry())
    }
}
