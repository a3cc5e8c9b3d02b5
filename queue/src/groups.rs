//! Hard-link groups: who leads, who waits, what is known of the first copy. A plain state machine; an engine
//! puts a lock or a server around it.
//!
//! ```text
//!   (unknown) ──claim──► Copying ──ready──► Ready ──all links seen──► (forgotten)
//!       │                   ▲  ▲              │
//!       │ claim, wavering   │  └── abandon ◄──┘   the next claim leads
//!       └────► Waiting ─────┘
//!              until a claim that does not waver, or that of the last name, or there is nothing else to do
//! ```
//!
//! A name wavers if it is not at the target yet and another of its group may be: that one had better lead, or
//! content would be copied that is there already.

use std::collections::HashMap;
use treeferry_core::{GroupKey, RelPath, Task};

/// The first copy of a group at the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Its path.
    pub path: RelPath,
    /// Its device and inode at the target; `None` in a dry run that would make it anew.
    pub target: Option<(u64, u64)>,
    /// How many links that inode had when it was looked at.
    pub links: u32,
}

/// Whether an inode of the target is a group's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owned {
    /// It is.
    Ours,
    /// Another has taken it.
    Others,
    /// Who asks has lost its task, or leads the group no more: it must not touch the target. Of this task nothing will
    /// be committed.
    Lost,
}

/// What a name of a group is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Be the first copy.
    Lead,
    /// Wait until the first copy exists.
    Wait,
    /// Be a link to the first copy.
    Follow(Leader),
}

#[derive(Debug)]
enum State {
    Waiting,
    Copying(RelPath),
    Ready(Leader),
    Abandoned,
}

#[derive(Debug)]
struct Group {
    state: State,
    nlink: u32,
    seen: u32,
    /// Links of the inode at the target: those it had, and those made since.
    links: u32,
    /// Inodes of the target that the group has taken, for forgetting them with it.
    targets: Vec<(u64, u64)>,
    parked: Vec<Task>,
}

/// All groups of a job of which not every link was seen yet.
#[derive(Debug, Default)]
pub(crate) struct Table {
    groups: HashMap<GroupKey, Group>,
    targets: HashMap<(u64, u64), GroupKey>,
    /// Tasks that are parked, over all groups.
    parked: usize,
}

/// With so many tasks parked nobody wavers any more: what waits takes memory.
const MAX_WAVERING: usize = 100_000;

impl Table {
    pub fn claim(&mut self, key: GroupKey, nlink: u32, path: &RelPath, wavers: bool) -> Claim {
        let wavers = wavers && self.parked < MAX_WAVERING;
        let g = self.groups.entry(key).or_insert_with(|| Group {
            state: State::Abandoned,
            nlink,
            seen: 0,
            links: 0,
            targets: Vec::new(),
            parked: Vec::new(),
        });
        // links may be made while the job runs
        g.nlink = g.nlink.max(nlink);
        match &g.state {
            State::Ready(leader) if leader.path != *path => Claim::Follow(leader.clone()),
            State::Copying(p) if p != path => Claim::Wait,
            State::Abandoned | State::Waiting if wavers && g.parked.len() as u32 + g.seen + 1 < g.nlink => {
                g.state = State::Waiting;
                Claim::Wait
            }
            _ => {
                g.state = State::Copying(path.clone());
                Claim::Lead
            }
        }
    }

    pub fn own_target(&mut self, key: GroupKey, target: (u64, u64)) -> bool {
        let owner = *self.targets.entry(target).or_insert(key);
        if let Some(g) = self.groups.get_mut(&key).filter(|_| owner == key) {
            g.targets.push(target);
        }
        owner == key
    }

    pub fn ready(&mut self, key: GroupKey, leader: Leader) {
        if let Some(g) = self.groups.get_mut(&key) {
            g.links = leader.links;
            g.state = State::Ready(leader);
        }
    }

    pub fn abandon(&mut self, key: GroupKey) {
        if let Some(g) = self.groups.get_mut(&key) {
            g.state = State::Abandoned;
        }
    }

    /// Forgets a group of which every name is settled. Its inodes at the target are forgotten with it only if
    /// they have no more links than the group has names: another link is a name of something else, whose turn
    /// may still come and must then find that the inode is taken.
    pub fn seen(&mut self, key: GroupKey, linked: bool) {
        let Some(g) = self.groups.get_mut(&key) else { return };
        g.seen += 1;
        g.links += u32::from(linked);
        if g.seen < g.nlink || !g.parked.is_empty() {
            return;
        }
        if let Some(g) = self.groups.remove(&key).filter(|g| g.links <= g.nlink) {
            for t in g.targets {
                self.targets.remove(&t);
            }
        }
    }

    /// Keeps a task until the group's leader is done; gives it back if there is nothing to wait for.
    pub fn park(&mut self, key: GroupKey, task: Task) -> Option<Task> {
        match self.groups.get_mut(&key) {
            Some(g) if matches!(g.state, State::Copying(_) | State::Waiting) => {
                g.parked.push(task);
                self.parked += 1;
                None
            }
            _ => Some(task),
        }
    }

    /// Gives back all tasks that wait for a group's leader.
    pub fn release(&mut self, key: GroupKey) -> Vec<Task> {
        let tasks = self.groups.get_mut(&key).map(|g| std::mem::take(&mut g.parked)).unwrap_or_default();
        self.parked -= tasks.len();
        tasks
    }

    /// Takes all parked tasks out, of all groups.
    pub fn take_parked(&mut self) -> Vec<Task> {
        self.parked = 0;
        self.groups.values_mut().flat_map(|g| std::mem::take(&mut g.parked)).collect()
    }

    /// How many tasks are parked.
    pub fn parked(&self) -> usize {
        self.parked
    }

    /// There is nothing else to do: one of each group that still waits is to lead. No better leader will come;
    /// and one that was thought to be copying cannot be, for nothing runs any more (its source vanished while it
    /// was to be tried again, say).
    pub fn settle_waiting(&mut self) -> Vec<Task> {
        let mut out = Vec::new();
        for g in self.groups.values_mut().filter(|g| !g.parked.is_empty()) {
            g.state = State::Abandoned;
            // it is told so when it asks: nobody wavers a second time
            out.extend(g.parked.pop());
        }
        self.parked -= out.len();
        out
    }

    #[cfg(test)]
    fn len(&self) -> (usize, usize) {
        (self.groups.len(), self.targets.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const K: GroupKey = GroupKey { dev: 1, ino: 2 };
    const OTHER: GroupKey = GroupKey { dev: 1, ino: 3 };
    fn p(s: &str) -> RelPath {
        RelPath::new(s).unwrap()
    }
    fn leader(s: &str) -> Leader {
        Leader { path: p(s), target: Some((9, 9)), links: 1 }
    }

    #[test]
    fn the_first_leads_the_others_wait_and_then_follow() {
        let mut g = Table::default();
        assert_eq!(g.claim(K, 2, &p("a"), false), Claim::Lead);
        assert_eq!(g.claim(K, 2, &p("b"), false), Claim::Wait);
        assert_eq!(
            g.claim(K, 2, &p("a"), false),
            Claim::Lead,
            "the leader asks again after a crash or a retry"
        );
        g.ready(K, leader("a"));
        assert_eq!(g.claim(K, 2, &p("b"), false), Claim::Follow(leader("a")));
    }

    #[test]
    fn a_group_whose_links_were_all_seen_is_forgotten_with_its_targets() {
        let mut g = Table::default();
        g.claim(K, 2, &p("a"), false);
        assert!(g.own_target(K, (9, 9)));
        assert!(!g.own_target(OTHER, (9, 9)));
        g.ready(K, leader("a"));
        g.seen(K, false);
        assert_eq!(g.len(), (1, 1));
        g.seen(K, true);
        assert_eq!(g.len(), (0, 0));
    }

    #[test]
    fn an_inode_with_a_foreign_name_stays_taken_after_its_group_is_forgotten() {
        let mut g = Table::default();
        g.claim(K, 2, &p("a"), false);
        assert!(g.own_target(K, (9, 9)));
        // two links at the target already, one of which is not b's, for b has to be linked
        g.ready(K, Leader { links: 2, ..leader("a") });
        g.seen(K, false);
        g.seen(K, true);
        assert_eq!(g.len(), (0, 1));
        assert!(!g.own_target(OTHER, (9, 9)));
    }

    #[test]
    fn one_that_wavers_waits_for_a_better_leader_or_for_the_end() {
        let task = |id| Task {
            id: treeferry_core::TaskId(id),
            join: None,
            attempt: 0,
            tally: 0,
            work: treeferry_core::Work::RemoveDir { path: p("x"), above: 0 },
        };
        let mut g = Table::default();
        assert_eq!(g.claim(K, 3, &p("a"), true), Claim::Wait);
        assert!(g.park(K, task(1)).is_none());
        assert_eq!(g.claim(K, 3, &p("b"), false), Claim::Lead, "it is at the target already");

        assert_eq!(g.claim(OTHER, 2, &p("c"), true), Claim::Wait);
        assert!(g.park(OTHER, task(2)).is_none());
        assert_eq!(g.claim(OTHER, 2, &p("d"), true), Claim::Lead, "it is the last of its group");

        let third = GroupKey { dev: 1, ino: 4 };
        assert_eq!(g.claim(third, 9, &p("e"), true), Claim::Wait, "its other names are outside");
        assert!(g.park(third, task(3)).is_none());
        assert_eq!((g.parked(), g.settle_waiting().len(), g.parked()), (3, 3, 0));
        assert_eq!(g.claim(third, 9, &p("e"), false), Claim::Lead);
    }

    #[test]
    fn a_leader_that_never_came_back_does_not_keep_its_group_waiting() {
        let task = Task {
            id: treeferry_core::TaskId(1),
            join: None,
            attempt: 0,
            tally: 0,
            work: treeferry_core::Work::RemoveDir { path: p("x"), above: 0 },
        };
        let mut g = Table::default();
        assert_eq!(g.claim(K, 2, &p("a"), false), Claim::Lead);
        assert_eq!(g.claim(K, 2, &p("b"), false), Claim::Wait);
        assert!(g.park(K, task.clone()).is_none());
        assert_eq!(g.settle_waiting(), [task]);
        assert_eq!(g.claim(K, 2, &p("b"), false), Claim::Lead);
    }

    #[test]
    fn after_a_leader_failed_the_next_one_leads() {
        let mut g = Table::default();
        g.claim(K, 3, &p("a"), false);
        g.abandon(K);
        assert_eq!(g.claim(K, 3, &p("b"), false), Claim::Lead);
    }
}
