//! Which events somebody wants to see.

use super::{Line, Severity};
use crate::ids::JobId;
use crate::path::RelPath;

/// What is asked of an event. Each list that is empty asks nothing; of one that is not, one has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Of these jobs.
    pub jobs: Vec<JobId>,
    /// Told by these machines.
    pub hosts: Vec<String>,
    /// At least so grave.
    pub severity: Option<Severity>,
    /// These entries, and what is below them.
    pub paths: Vec<RelPath>,
    /// These operations.
    pub ops: Vec<String>,
    /// These error numbers; 0: a finding of our own.
    pub errnos: Vec<i32>,
    /// Of these kinds: `entry.failed`, or `entry` for all that begin so.
    pub events: Vec<String>,
}

impl Selection {
    /// Whether an event is wanted.
    pub fn takes(&self, l: &Line<'_>) -> bool {
        let job = || l.job.as_deref().and_then(|j| j.parse().ok());
        fits(&self.jobs, |j| job() == Some(*j))
            && fits(&self.hosts, |h| l.host == *h)
            && self.severity.is_none_or(|s| l.severity >= s)
            && fits(&self.ops, |op| l.op.as_deref() == Some(op.as_str()))
            && fits(&self.errnos, |n| {
                l.errno == Some(*n) || (*n == 0 && l.errno.is_none() && l.event == "entry.failed")
            })
            && fits(&self.events, |e| {
                l.event.strip_prefix(e.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
            })
            && (self.paths.is_empty()
                || l.rel_path().is_some_and(|p| self.paths.iter().any(|above| above.covers(&p))))
    }
}

fn fits<T>(wanted: &[T], one: impl FnMut(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(one)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, EventKind, Origin};
    use crate::failure::{Failure, Side};

    fn takes(s: &Selection, e: &Event) -> bool {
        let origin = Origin { host: "n1".into(), worker: "n1-7".into() };
        s.takes(&Line::of(e, &origin, 0))
    }

    #[test]
    fn each_question_leaves_out_what_does_not_answer_it() {
        let path = RelPath::new(&b"a/b\n/c"[..]).unwrap();
        let failed = Event::failure(&Failure::errno(path, Side::Target, "write", 28), None).of(JobId(1));
        let found = Event::failure(&Failure::finding(RelPath::root(), Side::Source, "delete", "why"), None)
            .of(JobId(2));
        let began = Event::new(EventKind::JobBegan).of(JobId(1));
        let all = [&failed, &found, &began];
        type Change = fn(&mut Selection);
        let asked: &[(Change, [bool; 3])] = &[
            (|_| {}, [true, true, true]),
            (|s| s.jobs = vec![JobId(1)], [true, false, true]),
            (|s| s.jobs = vec![JobId(3), JobId(2)], [false, true, false]),
            (|s| s.hosts = vec!["n1".into()], [true, true, true]),
            (|s| s.hosts = vec!["n".into()], [false, false, false]),
            (|s| s.severity = Some(Severity::Warning), [true, true, false]),
            (|s| s.severity = Some(Severity::Debug), [true, true, true]),
            (|s| s.paths = vec![RelPath::new(&b"a/b\n"[..]).unwrap()], [true, false, false]),
            (|s| s.paths = vec![RelPath::new("a/b").unwrap()], [false, false, false]),
            (|s| s.paths = vec![RelPath::root()], [true, true, false]),
            (|s| s.ops = vec!["write".into(), "delete".into()], [true, true, false]),
            (|s| s.ops = vec!["writ".into()], [false, false, false]),
            (|s| s.errnos = vec![28], [true, false, false]),
            (|s| s.errnos = vec![0], [false, true, false]),
            (|s| s.events = vec!["entry".into()], [true, true, false]),
            (|s| s.events = vec!["job.began".into()], [false, false, true]),
            (|s| s.events = vec!["entry.fail".into()], [false, false, false]),
        ];
        for (n, (change, want)) in asked.iter().enumerate() {
            let mut s = Selection::default();
            change(&mut s);
            assert_eq!(all.map(|e| takes(&s, e)), *want, "question {n}");
        }
        let both = Selection { jobs: vec![JobId(1)], errnos: vec![5], ..Selection::default() };
        assert!(!takes(&both, &failed), "all questions have to be answered");
    }
}
