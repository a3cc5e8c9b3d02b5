//! Who asks for something else than the last keeper did walks everything, and must not begin while a worker is still at what
//! was asked before: what that writes after the walk has passed nobody would look at again.
//!
//! Workers turn by themselves, within seconds, and say what they are at once a second.

use crate::cluster::whole;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use treeferry_core::{JobId, JobSpec};
use treeferry_queue::{Node, NodeReport};

/// How often it is asked.
const ASK: Duration = Duration::from_millis(250);
/// The first word of a worker may be older than the new wish, and the second may have been thought of before it.
const WORDS: u32 = 2;

/// Waits for workers.
pub struct Turning {
    mirror: JobId,
    wish: u64,
    dirs: (Vec<u8>, Vec<u8>),
    asked: Option<Instant>,
    words: Words,
    /// Whether a job that is over is of our directories.
    ours: HashMap<JobId, bool>,
    is_over: bool,
}

fn dirs(spec: &JobSpec) -> (Vec<u8>, Vec<u8>) {
    let bytes = |p: &std::path::Path| {
        use std::os::unix::ffi::OsStringExt;
        whole(p).into_os_string().into_vec()
    };
    (bytes(&spec.src), bytes(&spec.dst))
}

impl Turning {
    /// `is_needed`: somebody may be at something else.
    pub fn new(mirror: JobId, wish: u64, spec: &JobSpec, is_needed: bool) -> Turning {
        let (words, ours) = Default::default();
        Turning { mirror, wish, dirs: dirs(spec), asked: None, words, ours, is_over: !is_needed }
    }

    /// Whether all workers that are alive have turned.
    pub fn is_over(&mut self, node: &Node) -> bool {
        if self.is_over || self.asked.is_some_and(|at| at.elapsed() < ASK) {
            return self.is_over;
        }
        self.asked = Some(Instant::now());
        let reports = match node.reports() {
            Ok(reports) => reports,
            Err(e) => {
                tracing::warn!("it cannot be said what workers are at: {e}");
                return false;
            }
        };
        let workers = reports.iter().filter(|r| r.kind == "worker");
        let heard: Vec<(String, u64, bool)> =
            workers.map(|r| (r.worker.clone(), r.seen_ms, self.is_at_something_else(node, r))).collect();
        self.is_over = self.words.all_have_turned(heard);
        self.is_over
    }

    fn is_at_something_else(&mut self, node: &Node, r: &NodeReport) -> bool {
        if r.mirrors.get(&self.mirror.to_string()).is_some_and(|wish| *wish < self.wish) {
            return true;
        }
        // a walk for an earlier keeper that was cancelled, of which some task is not at its end
        r.tasks.iter().filter_map(|t| t.job.parse::<JobId>().ok()).any(|job| {
            let dirs_of = || node.record(job).ok().flatten().is_some_and(|r| dirs(&r.spec) == self.dirs);
            !node.is_running(job) && *self.ours.entry(job).or_insert_with(dirs_of)
        })
    }
}

/// By worker: when it last said something (ms since 1970, by its clock), and how many words came since the first, or since it
/// was last at something else.
#[derive(Default)]
struct Words(HashMap<String, (u64, u32)>);

impl Words {
    /// `heard`: of each worker that is alive, when it said what it is at, and whether that is something else.
    fn all_have_turned(&mut self, heard: Vec<(String, u64, bool)>) -> bool {
        let before = std::mem::take(&mut self.0);
        self.0 = heard
            .into_iter()
            .map(|(worker, at, is_at_something_else)| {
                let words = match before.get(&worker) {
                    _ if is_at_something_else => 0,
                    Some((last, words)) if *last != at => words + 1,
                    Some((_, words)) => *words,
                    None => 0,
                };
                (worker, (at, words))
            })
            .collect();
        self.0.values().all(|(_, words)| *words >= WORDS)
    }
}

/// For so long one is waited for that is alive and says nothing.
const EXPECTED: Duration = Duration::from_secs(5);

/// Agents that run and have not refused the mirror: each is to be heard before the first walk begins. Who is heard first when it
/// has begun may have missed something, for all that is known, and everything would be walked once more.
pub struct Expected {
    began: Instant,
    asked: Option<Instant>,
}

impl Expected {
    pub fn new() -> Expected {
        Expected { began: Instant::now(), asked: None }
    }

    /// Whether all have been heard, or are waited for no longer.
    pub fn are_heard(&mut self, node: &Node, mirror: JobId, is_heard: impl Fn(&str) -> bool) -> bool {
        if self.began.elapsed() > EXPECTED {
            return true;
        }
        if self.asked.is_some_and(|at| at.elapsed() < ASK) {
            return false;
        }
        self.asked = Some(Instant::now());
        let Ok(reports) = node.reports() else { return false };
        let mirror = mirror.to_string();
        let agents = reports.iter().filter(|r| r.kind == "agent");
        let mut willing = agents.filter(|r| r.refused.iter().all(|f| f.job != mirror));
        willing.all(|r| is_heard(&r.node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_has_turned_when_it_has_said_so_in_words_that_are_surely_new() {
        let mut words = Words::default();
        let mut says = |a: (u64, bool), b: Option<(u64, bool)>| {
            let of = |name: &str, (at, old): (u64, bool)| (name.to_owned(), at, old);
            words.all_have_turned(std::iter::once(of("a", a)).chain(b.map(|b| of("b", b))).collect())
        };
        assert!(!says((1, false), Some((1, true))));
        assert!(!says((1, false), Some((2, true))), "the same word");
        assert!(!says((2, false), Some((2, true))));
        assert!(!says((3, false), Some((3, true))), "the other is at something else");
        assert!(!says((4, false), Some((4, false))));
        assert!(!says((5, true), Some((5, false))), "it is again");
        assert!(!says((6, false), Some((6, false))));
        assert!(says((7, false), Some((7, false))));
        assert!(says((7, false), None), "one that is gone is waited for no more");
        assert!(!says((8, false), Some((1, false))), "one that comes is");
    }

    #[test]
    fn without_workers_there_is_nobody_to_wait_for() {
        assert!(Words::default().all_have_turned(Vec::new()));
    }
}
