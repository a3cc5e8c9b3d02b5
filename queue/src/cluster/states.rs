//! How the jobs stand that a process has seen, as of the last pulse.

use std::collections::HashMap;
use std::time::{Duration, Instant};
use treeferry_core::JobId;
use treeferry_core::job::JobState;

/// For so long a job is remembered of which the ledger says nothing any more, as it has ended: far longer than anybody works on
/// for one. (Of an end not every process hears.) A mirror makes a job of each directory that is renamed.
const KEEP: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub(super) struct States(HashMap<JobId, Known>);

struct Known {
    state: JobState,
    /// When that was last heard.
    at: Instant,
}

impl States {
    /// How a job stands; `None`: not known here.
    pub fn of(&self, id: JobId) -> Option<JobState> {
        self.0.get(&id).map(|k| k.state)
    }

    /// All that are known.
    pub fn ids(&self) -> Vec<JobId> {
        self.0.keys().copied().collect()
    }

    /// It is so: this process has made it so, or has seen it.
    pub fn put(&mut self, now: Instant, id: JobId, state: JobState) {
        self.0.insert(id, Known { state, at: now });
    }

    /// It was so when the ledger was asked: an end is never left, whatever was on its way when it came.
    pub fn heard(&mut self, now: Instant, id: JobId, state: JobState) {
        let known = self.0.entry(id).or_insert(Known { state, at: now });
        if known.state == JobState::Running {
            known.state = state;
        }
        known.at = now;
    }

    /// Forgets those of which nothing was heard for long. To be called when all that run have just been heard of.
    pub fn forget_old(&mut self, now: Instant) {
        self.0.retain(|_, k| now.saturating_duration_since(k.at) < KEEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_not_left_and_is_forgotten_when_nobody_speaks_of_it_for_long() {
        let (mut s, now) = (States::default(), Instant::now());
        let (one, two, three) = (JobId(1), JobId(2), JobId(3));
        s.heard(now, one, JobState::Running);
        s.heard(now, one, JobState::Failed);
        s.heard(now, one, JobState::Running);
        assert_eq!(s.of(one), Some(JobState::Failed));
        s.put(now, two, JobState::Done);
        s.put(now, three, JobState::Running);
        s.forget_old(now + KEEP / 2);
        assert_eq!(s.ids().len(), 3);
        s.heard(now + KEEP / 2, three, JobState::Running);
        s.forget_old(now + KEEP);
        assert_eq!(s.ids(), [three], "the ledger still lists it");
        s.forget_old(now + KEEP * 2);
        assert_eq!(s.of(three), None);
    }
}
