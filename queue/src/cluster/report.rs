//! What a process of the cluster says of itself, and what it is told: the two halves of control.

use super::bundle::Lane;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use treeferry_core::JobId;

/// A task that is being run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningTask {
    /// Of which job, as text.
    pub job: String,
    /// What kind of work.
    pub work: String,
    /// Where, escaped for a terminal.
    pub path: String,
    /// For how long, in milliseconds.
    pub age_ms: u64,
}

/// A job that a process cannot work for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which.
    pub job: String,
    /// Why.
    pub why: String,
}

/// What a daemon says of itself, about once a second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// NAME-PID: no other running process has it.
    pub worker: String,
    /// The name of its node.
    pub node: String,
    /// `worker` or `hardlinker`.
    pub kind: String,
    /// Its version of the program.
    pub version: String,
    /// Threads.
    pub pool: usize,
    /// Threads that run a task.
    pub busy: usize,
    /// It was told to pause.
    pub paused: bool,
    /// It ends as soon as what is under way is done.
    pub stopping: bool,
    /// When it started, in ms since 1970.
    pub started_ms: u64,
    /// When it said this, in ms since 1970.
    pub seen_ms: u64,
    /// Messages it has and has not settled, by queue.
    pub unacked: BTreeMap<String, u64>,
    /// What it runs.
    pub tasks: Vec<RunningTask>,
    /// What it cannot do.
    pub refused: Vec<Refusal>,
    /// Mirrors that it looks after, as text, each with the wish by which it has it open (ms since 1970; 0: it is opening it).
    #[serde(default)]
    pub mirrors: BTreeMap<String, u64>,
    /// Events that were dropped, since it started.
    #[serde(default)]
    pub events_dropped: u64,
}

/// Those that can be read of what the ledger has of daemons.
pub(super) fn readable(raw: Vec<Option<String>>) -> impl Iterator<Item = NodeReport> {
    raw.into_iter().flatten().filter_map(|t| serde_json::from_str(&t).ok())
}

/// How a daemon is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// What is under way is finished or handed back.
    Graceful,
    /// At once; others do again what it was at.
    Now,
}

/// What one process is told, out of the control fields of the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// It takes no work.
    pub paused: bool,
    /// Threads, if anybody has said.
    pub pool: Option<usize>,
    /// It ends.
    pub shutdown: Option<Shutdown>,
}

/// The hash with what is asked of workers.
pub(super) const CONTROL: &str = "treeferry:control";

/// Names of control fields.
pub(super) mod field {
    pub const PAUSE: &str = "pause";
    pub const POOL: &str = "pool";
    pub const STOP: &str = "stop";
    /// Those that name one process alone.
    pub fn all_of(worker: &str) -> Vec<String> {
        [PAUSE, POOL, STOP].iter().map(|what| of(what, worker)).collect()
    }
    /// That of one worker or node.
    pub fn of(what: &str, name: &str) -> String {
        format!("{what}:{name}")
    }
}

impl Wanted {
    /// What the fields say to a process; the more exact name wins.
    pub(super) fn read(fields: &BTreeMap<String, String>, worker: &str, node: &str) -> Wanted {
        let get = |what: &str| {
            let exact = fields.get(&field::of(what, worker)).or_else(|| fields.get(&field::of(what, node)));
            exact.or_else(|| fields.get(what)).map(String::as_str)
        };
        Wanted {
            paused: get(field::PAUSE) == Some("1"),
            pool: get(field::POOL).and_then(|n| n.parse().ok()).filter(|n| *n > 0),
            shutdown: match fields.get(&field::of(field::STOP, worker)).map(String::as_str) {
                Some("now") => Some(Shutdown::Now),
                Some(_) => Some(Shutdown::Graceful),
                None => None,
            },
        }
    }
}

/// A running job as of the last pulse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JobNow {
    pub id: JobId,
    pub paused: bool,
    /// Bundles that nobody has begun, those of the hardlinker left out.
    pub queued: u64,
    /// Bundles that somebody works on.
    pub running: u64,
}

/// Whether a job holds more threads than its share while another waits.
pub(super) fn has_too_much(job: JobId, jobs: &[JobNow]) -> bool {
    let active = || jobs.iter().filter(|j| !j.paused && j.queued + j.running > 0);
    let (count, total) = (active().count() as u64, active().map(|j| j.running).sum::<u64>());
    let Some(mine) = active().find(|j| j.id == job).filter(|_| count > 1) else { return false };
    let share = total.div_ceil(count);
    mine.running >= share && active().any(|j| j.id != job && j.queued > 0 && j.running < total / count)
        || mine.running > 0 && active().any(|j| j.id != job && j.queued > 0 && j.running == 0)
}

/// The queues in the order of the life of a task.
pub(super) const QUEUES: [Lane; 4] = [Lane::Walk, Lane::Copy, Lane::Links, Lane::Dirtime];

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(all: &[(&str, &str)]) -> BTreeMap<String, String> {
        all.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_more_exact_name_wins() {
        let f = fields(&[
            ("pause", "1"),
            ("pause:b", "0"),
            ("pool", "3"),
            ("pool:a-1", "5"),
            ("stop:a-1", "now"),
        ]);
        let a = Wanted::read(&f, "a-1", "a");
        assert_eq!(a, Wanted { paused: true, pool: Some(5), shutdown: Some(Shutdown::Now) });
        let b = Wanted::read(&f, "b-7", "b");
        assert_eq!(b, Wanted { paused: false, pool: Some(3), shutdown: None });
        assert_eq!(Wanted::read(&fields(&[("pool", "none")]), "a-1", "a"), Wanted::default());
    }

    #[test]
    fn a_job_gives_way_while_another_has_less_than_its_share() {
        let job = |id, paused, queued, running| JobNow { id: JobId(id), paused, queued, running };
        let too_much = |jobs: &[JobNow]| has_too_much(JobId(1), jobs);
        assert!(!too_much(&[job(1, false, 9, 4)]), "alone");
        assert!(too_much(&[job(1, false, 0, 4), job(2, false, 1, 0)]));
        assert!(!too_much(&[job(1, false, 5, 2), job(2, false, 1, 2)]), "each has its half");
        assert!(!too_much(&[job(1, false, 0, 4), job(2, false, 0, 0)]), "the other has nothing to do");
        assert!(!too_much(&[job(1, false, 0, 4), job(2, true, 7, 0)]), "the other is paused");
    }
}
