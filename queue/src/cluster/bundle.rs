//! What a worker holds of a job: tasks, and the joins that nobody else knows of.
//!
//! A message stands for a *bundle*: a few tasks that one worker runs depth first, together with everything that they
//! lead to, until it gives some of it away. Joins that are opened and reach zero within the bundle never leave this
//! process; one that a task which is given away counts out of becomes the ledger's. So the ledger and the broker see
//! the cut between workers and not the tree.
//!
//! Everything here is a pure state machine: an outcome goes in with [`Holding::apply`], a task comes out with
//! [`Holding::next`], and [`Holding::commit`] says in one piece what the ledger is to write. The counting is that of
//! [`treeferry_core::outcome`].

use crate::groups::Leader;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};
use treeferry_core::records::Record;
use treeferry_core::sizes::Sizes;
use treeferry_core::task::tries;
use treeferry_core::{
    Change, Counters, Failure, GroupKey, JoinId, NewTask, Notice, Outcome, RelPath, Side, Task, TaskId, Work,
};

/// How long a task that failed and may not next time is left alone: this, and four times as long after each
/// further failure.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Tasks in one bundle that is given away, at most.
const BUNDLE_TASKS: usize = 256;

/// A join that is known to nobody but the holder of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalJoin {
    /// Its name.
    pub id: JoinId,
    /// Tasks that count into it and are not done, and one more until it is sealed.
    pub count: u64,
    /// The sum of the tallies so far.
    pub tally: u64,
    /// What it releases, once it is sealed.
    pub follow_up: Option<NewTask>,
}

/// What a message stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// What there is to do; the last is to be run first.
    pub tasks: Vec<Task>,
    /// The joins that only these tasks count out of.
    pub joins: Vec<LocalJoin>,
}

impl Bundle {
    /// One task alone.
    pub fn of(t: NewTask) -> Bundle {
        let task = Task { id: TaskId(0), join: t.join, attempt: t.attempt, tally: 0, work: t.work };
        Bundle { tasks: vec![task], joins: Vec::new() }
    }
}

/// Which kind of worker a bundle is for: the queues of the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Lane {
    /// Walking.
    Walk,
    /// Copying and deleting.
    Copy,
    /// Links, for the hardlinker.
    Links,
    /// Finishing directories.
    Dirtime,
}

impl Lane {
    /// All of them, in the order in which an idle worker looks.
    pub const ALL: [Lane; 4] = [Lane::Dirtime, Lane::Copy, Lane::Walk, Lane::Links];

    /// The lane of a task.
    pub fn of(work: &Work) -> Lane {
        match work {
            Work::Walk { .. } => Lane::Walk,
            Work::Link { .. } => Lane::Links,
            Work::FinishDir { .. } => Lane::Dirtime,
            _ => Lane::Copy,
        }
    }

    /// The name of its queue.
    pub fn queue(self) -> &'static str {
        match self {
            Lane::Walk => "treeferry.walk",
            Lane::Copy => "treeferry.copy",
            Lane::Links => "treeferry.links",
            Lane::Dirtime => "treeferry.dirtime",
        }
    }

    /// As a byte of a record.
    pub fn code(self) -> u8 {
        match self {
            Lane::Walk => b'w',
            Lane::Copy => b'c',
            Lane::Links => b'l',
            Lane::Dirtime => b'd',
        }
    }

    /// Read from the byte of a record.
    pub fn from_code(c: u8) -> Option<Lane> {
        Lane::ALL.into_iter().find(|l| l.code() == c)
    }
}

/// What happens to a join of the ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JoinChange {
    /// It was the holder's own so far.
    pub opened: bool,
    /// Added to its count.
    pub count: i64,
    /// Added to its tally.
    pub tally: u64,
    /// What it releases.
    pub follow_up: Option<NewTask>,
}

/// What happens to a hard-link group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupChange {
    /// Its first copy exists.
    Ready(Leader),
    /// Its leader failed for good.
    Abandon,
    /// A name of it is settled, and a link was made for it or not.
    Seen(bool),
}

/// What the ledger is to write in one step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Joins that change.
    pub joins: BTreeMap<JoinId, JoinChange>,
    /// What is given away.
    pub children: Vec<(Lane, Bundle)>,
    /// What the holder keeps; `None`: nothing, and its own record goes.
    pub rest: Option<Bundle>,
    /// Tasks that wait for the first copy of their group.
    pub parked: Vec<(GroupKey, NewTask)>,
    /// What happens to groups, in this order.
    pub groups: Vec<(GroupKey, GroupChange)>,
    /// Groups whose parked tasks may go on.
    pub released: Vec<GroupKey>,
    /// Groups that the holder has led since its last commit: it must still be the one who does.
    pub led: BTreeMap<GroupKey, RelPath>,
    /// Leaders that names were settled by since the last commit: they must still lead.
    pub followed: BTreeMap<GroupKey, Leader>,
    /// Inodes of the target that groups have taken since the last commit: they must still have them.
    pub owned: Vec<(GroupKey, (u64, u64))>,
    /// Counted since the last commit.
    pub counters: Counters,
    /// Sizes of files counted since the last commit.
    pub sizes: Sizes,
    /// What may stand out, since the last commit.
    pub records: Vec<Record>,
    /// Failed since the last commit.
    pub failures: Vec<Failure>,
    /// To be said once in the job.
    pub notices: Vec<Notice>,
    /// What `--itemize` shows.
    pub changes: Vec<Change>,
}

/// A task that was handed out and is not done.
#[derive(Debug)]
struct Running {
    /// What is to be run should this process not live to end it. `None`: it has told a part of what it has found, and
    /// cannot say how it is to be gone on with; until its end nothing can be committed.
    instead: Option<Task>,
    id: TaskId,
}

/// A bundle that is being worked on.
#[derive(Debug)]
pub struct Holding {
    /// Tasks whose lane is kept here are run here; others are given away with the next commit.
    links_here: bool,
    tasks: VecDeque<Task>,
    later: Vec<(Instant, Task)>,
    running: Vec<Running>,
    /// Of the other kind: links where files are copied, and files where links are made.
    foreign: Vec<Task>,
    joins: HashMap<JoinId, LocalJoin>,
    pending: Commit,
    next_id: u64,
    /// Joins that nobody has ever opened: a bug, or a broken ledger.
    lost: Option<JoinId>,
}

impl Holding {
    /// Takes a bundle up. `again`: it may have been begun before, so that nothing in it is fresh.
    pub fn new(bundle: Bundle, links_here: bool, again: bool) -> Holding {
        let mut h = Holding {
            links_here,
            tasks: VecDeque::new(),
            later: Vec::new(),
            running: Vec::new(),
            foreign: Vec::new(),
            joins: bundle.joins.into_iter().map(|j| (j.id, j)).collect(),
            pending: Commit::default(),
            next_id: 0,
            lost: None,
        };
        for mut t in bundle.tasks {
            if again {
                t.work.forget_fresh();
            }
            h.push(t);
        }
        h
    }

    /// Gives up the task that would be run next: it becomes a named failure, and is done.
    pub fn poison(&mut self, tries: u64) {
        let Some(t) = self.next() else { return };
        let text = format!("given up: it was begun {tries} times, and never ended");
        let mut out = Outcome::default();
        out.fail(Failure::finding(t.work.path().clone(), Side::Target, t.work.name(), text));
        self.end(&t, out);
    }

    fn push(&mut self, mut t: Task) {
        self.next_id += 1;
        t.id = TaskId(self.next_id);
        match matches!(t.work, Work::Link { .. }) == self.links_here {
            true => self.tasks.push_back(t),
            false => self.foreign.push(t),
        }
    }

    fn push_new(&mut self, n: NewTask, tally: u64) {
        self.push(Task { id: TaskId(0), join: n.join, attempt: n.attempt, tally, work: n.work });
    }

    /// The newest task.
    pub fn next(&mut self) -> Option<Task> {
        let now = Instant::now();
        let due = self.later.iter().position(|(at, _)| *at <= now).map(|i| self.later.swap_remove(i).1);
        let task = due.or_else(|| self.tasks.pop_back())?;
        self.running.push(Running { instead: Some(task.clone()), id: task.id });
        Some(task)
    }

    /// Whether a commit can be made now: of every task that runs it is known how it would be gone on with.
    pub fn is_committable(&self) -> bool {
        self.running.iter().all(|r| r.instead.is_some())
    }

    /// Whether a commit can be made in the middle of a task that has told nothing so far: neither here nor, by what it
    /// has changed of groups, to others. Were it run again after a crash, all would be as if it had never begun.
    pub fn is_untold(&self) -> bool {
        self.is_committable() && self.pending.groups.is_empty() && self.pending.led.is_empty()
    }

    /// Whether a task that was handed out is not done.
    pub fn is_running(&self) -> bool {
        !self.running.is_empty()
    }

    /// How long until a task is due that has to wait; `None`: there is none.
    pub fn until_due(&self) -> Option<Duration> {
        self.later.iter().map(|(at, _)| at.saturating_duration_since(Instant::now())).min()
    }

    /// How many tasks could be run now.
    pub fn backlog(&self) -> usize {
        self.tasks.len()
    }

    /// Whether nothing is left to be run here.
    pub fn is_done(&self) -> bool {
        self.tasks.is_empty() && self.later.is_empty() && self.running.is_empty()
    }

    /// A join of which there is no trace.
    pub fn lost(&self) -> Option<JoinId> {
        self.lost
    }

    fn count_in(&mut self, j: JoinId) {
        match self.joins.get_mut(&j) {
            Some(l) => l.count += 1,
            None => self.pending.joins.entry(j).or_default().count += 1,
        }
    }

    fn count_out(&mut self, j: JoinId, tally: u64, follow_up: Option<NewTask>) {
        let Some(l) = self.joins.get_mut(&j) else {
            let c = self.pending.joins.entry(j).or_default();
            c.count -= 1;
            c.tally += tally;
            if follow_up.is_some() {
                c.follow_up = follow_up;
            }
            return;
        };
        l.count = l.count.saturating_sub(1);
        l.tally += tally;
        if follow_up.is_some() {
            l.follow_up = follow_up;
        }
        if l.count == 0
            && let Some(l) = self.joins.remove(&j)
        {
            match l.follow_up {
                Some(f) => self.push_new(f, l.tally),
                None => self.lost = Some(j),
            }
        }
    }

    /// Takes in what a task has found so far. `instead`: how it is to be gone on with.
    pub fn flush(&mut self, task: &Task, out: Outcome, instead: Option<Task>) {
        self.apply(task, out, false);
        if let Some(r) = self.running.iter_mut().find(|r| r.id == task.id) {
            r.instead = instead;
        }
    }

    /// Takes in what a task has found; it is done.
    pub fn end(&mut self, task: &Task, out: Outcome) {
        self.apply(task, out, true);
        self.running.retain(|r| r.id != task.id);
    }

    fn apply(&mut self, task: &Task, out: Outcome, last: bool) {
        for id in out.opened {
            self.joins.insert(id, LocalJoin { id, count: 1, tally: 0, follow_up: None });
        }
        let parked = out.parked.iter().map(|(_, t)| t);
        for j in
            out.children.iter().chain(&out.later).chain(parked).filter_map(|t| t.join).collect::<Vec<_>>()
        {
            self.count_in(j);
        }
        for t in out.children {
            self.push_new(t, 0);
        }
        for t in out.later {
            let wait = RETRY_AFTER * 4u32.saturating_pow(u32::from(tries(t.attempt).saturating_sub(1)));
            self.next_id += 1;
            let id = TaskId(self.next_id);
            let task = Task { id, join: t.join, attempt: t.attempt, tally: 0, work: t.work };
            self.later.push((Instant::now() + wait, task));
        }
        self.pending.parked.extend(out.parked);
        self.pending.released.extend(out.released);
        for s in out.seals {
            if let Some(p) = s.follow_up.join {
                self.count_in(p);
            }
            self.count_out(s.join, s.tally, Some(s.follow_up));
        }
        if let Some(j) = task.join.filter(|_| last) {
            self.count_out(j, out.tally, None);
        }
        self.pending.counters.add(&out.counters);
        self.pending.sizes.add(&out.sizes);
        self.pending.records.extend(out.records);
        self.pending.failures.extend(out.failures);
        self.pending.changes.extend(out.changes);
        for n in out.notices {
            if !self.pending.notices.contains(&n) {
                self.pending.notices.push(n);
            }
        }
    }

    /// Notes what happens to a group.
    pub fn group(&mut self, key: GroupKey, change: GroupChange) {
        self.pending.groups.push((key, change));
    }

    /// Notes that this bundle leads a group.
    pub fn leads(&mut self, key: GroupKey, path: RelPath) {
        self.pending.led.insert(key, path);
    }

    /// Notes that a name of a group was told to follow this leader.
    pub fn follows(&mut self, key: GroupKey, leader: Leader) {
        self.pending.followed.insert(key, leader);
    }

    /// Notes that a group has taken an inode of the target.
    pub fn owns(&mut self, key: GroupKey, target: (u64, u64)) {
        self.pending.owned.push((key, target));
    }

    /// The last word of this bundle on a group that the ledger does not know yet: its leader, if it has one.
    pub fn group_now(&self, key: GroupKey) -> Option<Option<&Leader>> {
        self.pending.groups.iter().rev().find_map(|(k, c)| match c {
            GroupChange::Ready(l) if *k == key => Some(Some(l)),
            GroupChange::Abandon if *k == key => Some(None),
            _ => None,
        })
    }

    /// Whether there is anything that the ledger should know soon, since others wait for it.
    pub fn has_news(&self) -> bool {
        !self.foreign.is_empty() || !self.pending.released.is_empty()
    }

    /// What the ledger is to write now. `give`: into how many bundles what is given away is divided at most, 0 for
    /// nothing; `all`: nothing is kept. Only when [`Holding::is_committable`].
    pub fn commit(&mut self, give: usize, all: bool) -> Commit {
        let mut away: Vec<Task> = Vec::new();
        if all {
            away.extend(self.tasks.drain(..));
            away.extend(self.later.drain(..).map(|(_, t)| t));
        } else if give > 0 {
            // the oldest lie nearest to the root, and lead to most; half of them, and all but one of a few
            let keep = match self.is_running() {
                true => self.tasks.len() / (give + 1),
                false => (self.tasks.len() / (give + 1)).max(1),
            };
            let n = self.tasks.len().saturating_sub(keep);
            away.extend(self.tasks.drain(..n));
        }
        let mut c = std::mem::take(&mut self.pending);
        // a name that becomes a link asks again when that is made
        let settled = c.groups.iter().filter(|(_, change)| matches!(change, GroupChange::Seen(_)));
        let settled: BTreeSet<GroupKey> = settled.map(|(k, _)| *k).collect();
        c.followed.retain(|k, _| settled.contains(k));
        let mut children = split(away, give.max(1));
        children.extend(split(std::mem::take(&mut self.foreign), 1));
        for j in children.iter().flat_map(|(_, b)| &b.tasks).filter_map(|t| t.join).collect::<Vec<_>>() {
            self.hand_over(j, &mut c);
        }
        for j in c.parked.iter().filter_map(|(_, t)| t.join).collect::<Vec<_>>() {
            self.hand_over(j, &mut c);
        }
        let parents: Vec<JoinId> =
            c.joins.values().filter_map(|x| x.follow_up.as_ref().and_then(|f| f.join)).collect();
        for j in parents {
            self.hand_over(j, &mut c);
        }
        c.children = children;
        let kept: Vec<Task> = self
            .later
            .iter()
            .map(|(_, t)| t.clone())
            .chain(self.tasks.iter().cloned())
            .chain(self.running.iter().filter_map(|r| r.instead.clone()))
            .collect();
        if !kept.is_empty() {
            c.rest = Some(Bundle { tasks: kept, joins: self.joins.values().cloned().collect() });
        }
        c
    }

    /// Makes a join the ledger's, and those that its follow-up counts out of.
    fn hand_over(&mut self, j: JoinId, c: &mut Commit) {
        let mut next = Some(j);
        while let Some(l) = next.and_then(|j| self.joins.remove(&j)) {
            next = l.follow_up.as_ref().and_then(|f| f.join);
            let x = c.joins.entry(l.id).or_default();
            x.opened = true;
            x.count += l.count as i64;
            x.tally += l.tally;
            x.follow_up = l.follow_up;
        }
    }
}

/// Divides tasks into bundles of one lane each.
fn split(tasks: Vec<Task>, parts: usize) -> Vec<(Lane, Bundle)> {
    let mut lanes: BTreeMap<Lane, Vec<Task>> = BTreeMap::new();
    for t in tasks {
        lanes.entry(Lane::of(&t.work)).or_default().push(t);
    }
    let mut out = Vec::new();
    for (lane, tasks) in lanes {
        let n = parts.max(tasks.len().div_ceil(BUNDLE_TASKS)).min(tasks.len());
        // dealt out like cards: neighbours, of which one may be as large as the other, go to different hands
        let mut hands: Vec<Bundle> = vec![Bundle::default(); n];
        for (i, t) in tasks.into_iter().enumerate() {
            hands[i % n].tasks.push(t);
        }
        out.extend(hands.into_iter().map(|b| (lane, b)));
    }
    out
}

#[cfg(test)]
mod tests;
