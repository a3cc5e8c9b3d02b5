//! What running a task gave: everything that its commit writes into the ledger in one step.
//!
//! Counting is uniform. Every task that enters the ledger, as a child now or as the follow-up of a join
//! later, counts *into* its join at that moment; every task that is committed counts *out of* its join. A
//! join is born held by the task that opened it, so that it cannot reach zero before it is sealed. (The
//! recipe is the model of `docs/completion.md`; the ledger's own tests hold it against random schedules.)

use crate::change::Change;
use crate::counters::Counters;
use crate::event::Event;
use crate::failure::{Failure, Notice};
use crate::ids::{GroupKey, JoinId};
use crate::records::Record;
use crate::sizes::Sizes;
use crate::task::NewTask;
use serde::{Deserialize, Serialize};

/// Gives a join its follow-up and takes the opener's hold from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Which join.
    pub join: JoinId,
    /// What its opener itself adds to its tally.
    pub tally: u64,
    /// The task that is released when all that counts into the join is done.
    pub follow_up: NewTask,
}

/// What running a task gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Joins that this outcome opens; each must be sealed by this or a later outcome of the same task.
    pub opened: Vec<JoinId>,
    /// New tasks. Their joins are open already or among `opened`.
    pub children: Vec<NewTask>,
    /// New tasks that had better wait until there is nothing else to do: they failed, and may not next time.
    pub later: Vec<NewTask>,
    /// New tasks that wait until the first copy of a hard-link group exists.
    pub parked: Vec<(GroupKey, NewTask)>,
    /// Groups whose first copy now exists, or has failed for good: what is parked for them may go on.
    pub released: Vec<GroupKey>,
    /// Joins that get their follow-up.
    pub seals: Vec<Seal>,
    /// Added to the tally of the task's own join.
    pub tally: u64,
    /// What was counted.
    pub counters: Counters,
    /// What failed. `counters.failures` is its length.
    pub failures: Vec<Failure>,
    /// What is to be said once.
    pub notices: Vec<Notice>,
    /// What `--itemize` shows; empty unless asked for.
    pub changes: Vec<Change>,
    /// What is to be told of entries to those who watch, beside failures and notices. It goes straight from the process
    /// in which it happened to where events are written, never by way of the ledger.
    #[serde(skip)]
    pub events: Vec<Event>,
    /// Sizes of the files that `counters` has. Not in messages: ledgers have a form of their own for it.
    #[serde(skip)]
    pub sizes: Sizes,
    /// What may be among the largest and slowest of the job. As `sizes`.
    #[serde(skip)]
    pub records: Vec<Record>,
}

impl Outcome {
    /// Names a failure and counts it.
    pub fn fail(&mut self, f: Failure) {
        self.counters.failures += 1;
        self.failures.push(f);
    }

    /// Something to be said once in the job.
    pub fn notice(&mut self, n: Notice) {
        if !self.notices.contains(&n) {
            self.notices.push(n);
        }
    }

    /// Takes over everything that another one holds.
    pub fn absorb(&mut self, mut other: Outcome) {
        self.opened.append(&mut other.opened);
        self.children.append(&mut other.children);
        self.later.append(&mut other.later);
        self.parked.append(&mut other.parked);
        self.released.append(&mut other.released);
        self.seals.append(&mut other.seals);
        self.tally += other.tally;
        self.counters.add(&other.counters);
        self.failures.append(&mut other.failures);
        other.notices.into_iter().for_each(|n| self.notice(n));
        self.changes.append(&mut other.changes);
        self.events.append(&mut other.events);
        self.sizes.add(&other.sizes);
        self.records.append(&mut other.records);
    }

    /// Whether it holds nothing at all, so that an early commit would be for nothing.
    pub fn is_empty(&self) -> bool {
        *self == Outcome::default()
    }
}
