//! What is told of jobs to those who watch: it is put into a box, and goes on its way from there.

use crate::args::daemon::host;
use crate::output::Console;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use treeferry_core::event::{EventKind, LONG_TASK, Origin, Outbox, micros};
use treeferry_core::{Change, Event, Failure, JobId, JobSpec, Notice, Pass, Severity, Work, escape};
use treeferry_service::events::{EventLog, Keeping};
use treeferry_worker::Reporter;

/// Where events go.
#[derive(Clone, Debug)]
pub struct Telling {
    /// Without a cluster: files in this directory; `None`: nowhere.
    pub dir: Option<PathBuf>,
    /// How much is kept there.
    pub keep: Keeping,
    /// With a cluster: how many events its stream holds.
    pub stream_length: u64,
}

/// Puts an event of this moment into a box.
pub fn put(outbox: &Outbox, e: Event) {
    outbox.put([Event { time_us: micros(SystemTime::now()), ..e }]);
}

/// That a job has begun.
pub fn job_began(job: JobId, spec: &JobSpec) -> Event {
    let shown = |p: &std::path::Path| escape::bytes(p.as_os_str().as_encoded_bytes()).to_string();
    let dry = if spec.dry_run { ", dry run" } else { "" };
    let text = format!("{} -> {} ({}{dry})", shown(&spec.src), shown(&spec.dst), spec.passes);
    Event::new(EventKind::JobBegan).text(text).of(job)
}

/// Starts writing the events of a job to files, if that is wanted. That it cannot be done is said, and nothing more.
pub fn log(telling: &Telling, job: JobId) -> Option<EventLog> {
    let origin = Origin { host: host(), worker: format!("{}-{}", host(), std::process::id()) };
    let started = EventLog::start(telling.dir.clone()?, job, origin, telling.keep);
    started.inspect_err(|e| tracing::warn!("events are not written: no thread: {e}")).ok()
}

/// Makes events of what the workers of a job tell, those that are wanted.
pub struct Teller {
    outbox: Arc<Outbox>,
    job: JobId,
    level: Severity,
    only_pass: Option<Pass>,
    said: Mutex<BTreeSet<Notice>>,
}

impl Teller {
    /// Of one job.
    pub fn new(outbox: &Arc<Outbox>, job: JobId, spec: &JobSpec) -> Teller {
        let mut passes = Pass::ALL.into_iter().filter(|p| spec.passes.has(*p));
        let only_pass = passes.next().filter(|_| passes.next().is_none());
        let outbox = Arc::clone(outbox);
        Teller { outbox, job, level: spec.log_level, only_pass, said: Mutex::default() }
    }

    fn put(&self, events: impl IntoIterator<Item = Event>) {
        let wanted = events.into_iter().filter(|e| e.severity >= self.level || e.kind.is_always_told());
        let mut now_us = 0;
        self.outbox.put(wanted.map(|mut e| {
            if e.time_us == 0 {
                // once for all of them: they are told together
                now_us = if now_us == 0 { micros(SystemTime::now()) } else { now_us };
                e.time_us = now_us;
            }
            Event { job: Some(self.job), pass: e.pass.or(self.only_pass), ..e }
        }));
    }

    /// What happened to entries.
    pub fn events(&self, events: Vec<Event>) {
        self.put(events);
    }

    /// A named failure.
    pub fn failure(&self, f: &Failure, pass: Option<Pass>) {
        self.put([Event::failure(f, pass)]);
    }

    /// What is said once for each kind.
    pub fn notice(&self, n: Notice) {
        if self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(n) {
            self.put([Event::notice(n)]);
        }
    }

    /// A task has been run.
    pub fn ran(&self, work: &Work, took: Duration) {
        if took >= LONG_TASK && self.level <= Severity::Debug {
            self.put([Event::task(work, took)]);
        }
    }
}

/// The console of a job, and those who watch it.
pub struct Watched {
    /// Where the job speaks.
    pub console: Arc<Console>,
    /// `None`: nobody watches.
    pub teller: Option<Teller>,
}

impl Reporter for Watched {
    fn changes(&self, changes: &[Change]) {
        self.console.changes(changes);
    }
    fn events(&self, events: Vec<Event>) {
        if let Some(t) = &self.teller {
            t.events(events);
        }
    }
    fn failure(&self, f: &Failure, pass: Option<Pass>) {
        self.console.failure(f, pass);
        self.teller.iter().for_each(|t| t.failure(f, pass));
    }
    fn notice(&self, n: Notice) {
        self.console.notice(n);
        self.teller.iter().for_each(|t| t.notice(n));
    }
    fn ran(&self, work: &Work, took: Duration) {
        self.teller.iter().for_each(|t| t.ran(work, took));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use treeferry_core::{Item, Kind, PassSet, RelPath, Side};

    fn told(level: Severity, passes: PassSet) -> Vec<Event> {
        let (outbox, mut spec) = (Arc::new(Outbox::new(100)), JobSpec::new("/a", "/b"));
        (spec.log_level, spec.passes) = (level, passes);
        let t = Teller::new(&outbox, JobId(3), &spec);
        let path = || RelPath::new("x").unwrap();
        t.events(vec![Event::change(Item::Made(Kind::File), path()), Event::vanished(path())]);
        t.events(vec![Event::skipped(path(), "why")]);
        t.failure(&Failure::errno(path(), Side::Source, "read", 5), None);
        t.notice(Notice::OwnerLeftOut);
        t.notice(Notice::OwnerLeftOut);
        let work = Work::Remove { path: path() };
        t.ran(&work, LONG_TASK);
        t.ran(&work, LONG_TASK / 2);
        outbox.take().0
    }

    #[test]
    fn the_level_says_what_is_told_and_a_notice_is_told_once() {
        let names = |level| told(level, PassSet::default()).iter().map(|e| e.kind.name()).collect::<Vec<_>>();
        let warning = ["entry.vanished", "entry.failed", "notice"];
        assert_eq!(names(Severity::Error), ["entry.failed"]);
        assert_eq!(names(Severity::Warning), warning);
        assert_eq!(names(Severity::Info), [&["entry.copied"][..], &warning].concat());
        let debug =
            ["entry.copied", "entry.vanished", "entry.skipped", "entry.failed", "notice", "task.ended"];
        assert_eq!(names(Severity::Debug), debug);
    }

    #[test]
    fn each_event_has_its_job_a_time_and_the_pass_if_there_is_but_one() {
        let all = told(Severity::Debug, PassSet::default());
        assert!(all.iter().all(|e| e.job == Some(JobId(3)) && e.time_us > 1_700_000_000_000_000));
        let pass = |passes: &str| {
            let all = told(Severity::Warning, passes.parse().unwrap());
            all.iter().find(|e| e.kind == EventKind::EntryFailed).unwrap().pass
        };
        assert_eq!((pass("copy,dirtime"), pass("delete")), (None, Some(Pass::Delete)));
    }
}
