//! Events: what happens to entries, tasks, workers and jobs, for people and tools that watch.
//!
//! An event is told and forgotten. Nothing is decided by it, and nothing waits for it: the ledger counts, the ledger
//! keeps failures. So events may be dropped where they come faster than they can be written, and that is said.
//!
//! [`Event`] is one in the memory of the process in which it happened; [`Line`] is what is written of it, a JSON object,
//! and read back. `docs/events.md` describes lines; a test holds it to the two tables in here.

mod line;
mod outbox;
mod select;

pub use line::{BadLine, Line, Origin, VERSION};
pub use outbox::Outbox;
pub use select::Selection;

use crate::change::Item;
use crate::counters::Counters;
use crate::failure::{Failure, Notice, Side};
use crate::ids::JobId;
use crate::job::JobState;
use crate::names::Kind;
use crate::pass::Pass;
use crate::path::RelPath;
use crate::task::Work;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A task that took at least so long is told, at level debug. By eye: what a person would call long.
pub const LONG_TASK: Duration = Duration::from_millis(100);

/// How grave an event is; as a level: the least grave that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Helps to find faults.
    Debug,
    /// What was done.
    Info,
    /// Worth a look.
    Warning,
    /// Something that was asked for was not done.
    Error,
}

impl Severity {
    /// All of them, the gravest last.
    pub const ALL: [Severity; 4] = [Severity::Debug, Severity::Info, Severity::Warning, Severity::Error];

    /// The word in lines and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Debug => "debug",
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }

    /// Reads the word back.
    pub fn from_name(name: &str) -> Option<Severity> {
        Severity::ALL.into_iter().find(|s| s.name() == name)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

macro_rules! kinds {
    ($($variant:ident $name:literal $severity:ident $always:literal: $doc:literal,)*) => {
        /// What happened.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum EventKind {
            $(#[doc = $doc] $variant,)*
        }

        impl EventKind {
            /// Name, usual severity, whether it is told at every level, and meaning.
            pub const TABLE: &'static [(&'static str, Severity, bool, &'static str)] =
                &[$(($name, Severity::$severity, $always, $doc),)*];

            /// The name in lines.
            pub const fn name(self) -> &'static str {
                match self { $(EventKind::$variant => $name,)* }
            }

            /// How grave it is, unless the event itself says otherwise.
            pub const fn severity(self) -> Severity {
                match self { $(EventKind::$variant => Severity::$severity,)* }
            }

            /// Whether it is told at every level.
            pub const fn is_always_told(self) -> bool {
                match self { $(EventKind::$variant => $always,)* }
            }
        }
    };
}

kinds! {
    JobBegan "job.began" Info true: "a job was begun, or registered with the cluster; `text` has its roots and passes",
    JobEnded "job.ended" Info true: "a job has ended; `text` says how and why, `bytes` what was copied, `count` how much failed. A warning if something failed or it was interrupted, an error if it was aborted",
    JobRefused "job.refused" Error true: "a worker cannot work for a job; `text` says why",
    WorkerStarted "worker.started" Info true: "a worker or hardlinker of the cluster is ready",
    WorkerEnded "worker.ended" Info true: "it has ended in good order",
    TaskEnded "task.ended" Debug false: "a task that took at least 0.1 s; `op` is its kind, `path` where it was",
    EntryCopied "entry.copied" Info false: "the content of a file was copied",
    EntryMade "entry.made" Info false: "a directory, symlink, FIFO, socket or device was made or replaced",
    EntryLinked "entry.linked" Info false: "a hard link was made",
    EntryFixed "entry.fixed" Info false: "only metadata was repaired; `item` says which",
    EntryDeleted "entry.deleted" Info false: "it was deleted, or moved to the trash",
    EntrySkipped "entry.skipped" Debug false: "it was left alone; `text` says by what",
    EntryVanished "entry.vanished" Warning false: "it was listed in the source and then gone",
    EntryFailed "entry.failed" Error false: "a named failure: `op` on `side` failed with `errno`, or found what `text` says",
    EntryDiffered "entry.differed" Warning false: "an audit beside a mirror found that it was not as in the source though the mirror was complete; `item` says how. The mirror looks at it again",
    Notice "notice" Warning false: "said once for each kind by each process of a job, and counted for each entry: what cannot be kept",
    EventsDropped "events.dropped" Warning true: "so many events of this process (`count`) were dropped before they were written: they came faster, or there was nowhere to write them",
    EventsLost "events.lost" Warning true: "said by `treeferry logs`: so many events of a process (`count`) were written and then removed, by the cap of the stream or the rotation of files, before they were read",
}

/// An event in the process in which it happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When it happened, in microseconds since 1970; 0: when it is told.
    pub time_us: u64,
    /// What happened.
    pub kind: EventKind,
    /// How grave it is.
    pub severity: Severity,
    /// Of which job.
    pub job: Option<JobId>,
    /// In which pass.
    pub pass: Option<Pass>,
    /// To which entry.
    pub path: Option<RelPath>,
    /// On which side something failed.
    pub side: Option<Side>,
    /// The operation: a system call, or what was being done.
    pub op: Option<Cow<'static, str>>,
    /// The error number; 0: none.
    pub errno: i32,
    /// What changed, as `--itemize` has it.
    pub item: Option<Item>,
    /// Bytes of content.
    pub bytes: Option<u64>,
    /// How long it took.
    pub took: Option<Duration>,
    /// How many.
    pub count: Option<u64>,
    /// In words.
    pub text: Option<Cow<'static, str>>,
}

/// Microseconds since 1970.
pub fn micros(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

impl Event {
    /// An event of which nothing is known but what happened.
    pub fn new(kind: EventKind) -> Event {
        Event {
            time_us: 0,
            kind,
            severity: kind.severity(),
            job: None,
            pass: None,
            path: None,
            side: None,
            op: None,
            errno: 0,
            item: None,
            bytes: None,
            took: None,
            count: None,
            text: None,
        }
    }

    /// The same with words.
    pub fn text(mut self, text: impl Into<Cow<'static, str>>) -> Event {
        self.text = Some(text.into());
        self
    }

    /// The same of a job.
    pub fn of(mut self, job: JobId) -> Event {
        self.job = Some(job);
        self
    }

    /// A change of an entry.
    pub fn change(item: Item, path: RelPath) -> Event {
        let kind = match item {
            Item::Made(Kind::File | Kind::Unknown) | Item::Replaced(Kind::File | Kind::Unknown, _) => {
                EventKind::EntryCopied
            }
            Item::Made(_) | Item::Replaced(..) => EventKind::EntryMade,
            Item::Fixed(..) => EventKind::EntryFixed,
            Item::Linked(..) => EventKind::EntryLinked,
            Item::Deleted(_) => EventKind::EntryDeleted,
        };
        let pass = match item {
            Item::Deleted(_) => Pass::Delete,
            Item::Fixed(Kind::Dir, _) => Pass::Dirtime,
            _ => Pass::Copy,
        };
        Event { path: Some(path), item: Some(item), pass: Some(pass), ..Event::new(kind) }
    }

    /// A source entry that was listed and is gone.
    pub fn vanished(path: RelPath) -> Event {
        Event { path: Some(path), ..Event::new(EventKind::EntryVanished) }
    }

    /// An entry that was left alone.
    pub fn skipped(path: RelPath, why: &'static str) -> Event {
        Event { path: Some(path), ..Event::new(EventKind::EntrySkipped).text(why) }
    }

    /// A named failure.
    pub fn failure(f: &Failure, pass: Option<Pass>) -> Event {
        Event {
            path: Some(f.path.clone()),
            side: Some(f.side),
            op: Some(f.op.clone().into()),
            errno: f.errno,
            pass,
            ..Event::new(EventKind::EntryFailed).text(f.error.clone())
        }
    }

    /// What is said once for each kind.
    pub fn notice(n: Notice) -> Event {
        Event::new(EventKind::Notice).text(n.text())
    }

    /// A task that has been run.
    pub fn task(work: &Work, took: Duration) -> Event {
        Event {
            path: Some(work.path().clone()),
            op: Some(work.name().into()),
            took: Some(took),
            ..Event::new(EventKind::TaskEnded)
        }
    }

    /// The end of a job.
    pub fn job_ended(job: JobId, state: JobState, counters: &Counters, took: Duration, why: &str) -> Event {
        let severity = match state {
            JobState::Running | JobState::Done => Severity::Info,
            JobState::Failed | JobState::Interrupted => Severity::Warning,
            JobState::Aborted => Severity::Error,
        };
        let text = match why {
            "" => state.name().to_owned(),
            why => format!("{}: {why}", state.name()),
        };
        Event {
            severity,
            bytes: Some(counters.copied_bytes),
            count: Some(counters.failures),
            took: Some(took),
            ..Event::new(EventKind::JobEnded).text(text).of(job)
        }
    }
}

/// The pass of which a piece of work is; `None`: of several at once.
pub fn pass_of(work: &Work) -> Option<Pass> {
    match work {
        Work::Walk { .. }
        | Work::FinishDir { .. }
        | Work::Look { .. }
        | Work::Move { .. }
        | Work::Names { .. } => None,
        Work::Files { .. } | Work::Chunk { .. } | Work::Publish { .. } | Work::Link { .. } => {
            Some(Pass::Copy)
        }
        Work::Remove { .. } | Work::RemoveNames { .. } | Work::RemoveDir { .. } => Some(Pass::Delete),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of the tables of `docs/events.md`, by the cells of each.
    fn documented(first: &str) -> Vec<Vec<String>> {
        let text = include_str!("../../../docs/events.md");
        let mut lines = text.lines().skip_while(|l| !l.starts_with(&format!("| {first} |")));
        lines.next().unwrap_or_else(|| panic!("no table of which the first column is '{first}'"));
        let rows = lines.skip(1).take_while(|l| l.starts_with('|'));
        rows.map(|l| l.trim_matches('|').split(" | ").map(|c| c.trim().to_owned()).collect()).collect()
    }

    #[test]
    fn the_document_has_each_kind_of_event_as_it_is() {
        let code: Vec<Vec<String>> = EventKind::TABLE
            .iter()
            .map(|(name, severity, always, doc)| {
                let level = if *always { "always".to_owned() } else { format!("`{severity}`") };
                vec![format!("`{name}`"), severity.to_string(), level, (*doc).to_owned()]
            })
            .collect();
        assert_eq!(documented("event"), code);
    }

    #[test]
    fn the_document_has_each_field_as_it_is() {
        let code: Vec<Vec<String>> =
            Line::TABLE.iter().map(|(n, doc)| vec![format!("`{n}`"), (*doc).to_owned()]).collect();
        assert_eq!(documented("field"), code);
    }

    #[test]
    fn what_is_done_to_an_entry_has_a_name_and_a_pass() {
        use crate::change::Differs;
        let path = || RelPath::new("a").unwrap();
        let d = Differs { time: true, ..Differs::default() };
        for (item, name, pass) in [
            (Item::Made(Kind::File), "entry.copied", Pass::Copy),
            (Item::Replaced(Kind::File, d), "entry.copied", Pass::Copy),
            (Item::Made(Kind::Dir), "entry.made", Pass::Copy),
            (Item::Replaced(Kind::Symlink, d), "entry.made", Pass::Copy),
            (Item::Fixed(Kind::File, d), "entry.fixed", Pass::Copy),
            (Item::Fixed(Kind::Dir, d), "entry.fixed", Pass::Dirtime),
            (Item::Linked(Kind::File, true), "entry.linked", Pass::Copy),
            (Item::Deleted(Kind::Dir), "entry.deleted", Pass::Delete),
        ] {
            let e = Event::change(item, path());
            assert_eq!((e.kind.name(), e.pass), (name, Some(pass)), "{item:?}");
        }
    }

    #[test]
    fn an_end_that_is_not_good_is_graver() {
        let end = |s| Event::job_ended(JobId(1), s, &Counters::default(), Duration::ZERO, "").severity;
        assert_eq!(
            [JobState::Done, JobState::Failed, JobState::Interrupted, JobState::Aborted].map(end),
            [Severity::Info, Severity::Warning, Severity::Warning, Severity::Error]
        );
    }
}
