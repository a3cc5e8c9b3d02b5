//! The thread beside the keeper of a mirror that writes ticks, and how the mirror stands, into the ledger; that acknowledges what
//! is done, and sends again what nobody has answered.

use super::book::{self, Book};
use super::errands::Errands;
use super::{REPORT, TICK};
use crate::nearby;
use crate::watching::desk::Desk;
use crate::watching::{audit, of_pending};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use treeferry_core::job::JobState;
use treeferry_core::{JobId, JobSpec, Stop};
use treeferry_mirror::Tick;
use treeferry_queue::mirrors;
use treeferry_queue::{Control, JobRecord, JobRow, LedgerError, Node, NodeReport};

/// Between two ticks while something happens, and while nothing does.
const TICKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));
/// Between two times that all is written.
const WRITE: Duration = Duration::from_millis(500);
/// An errand of which nothing was heard for so long is sent again, if it is not waiting at the broker: it, or its end, was
/// lost with a worker or with the broker, which keeps neither on disk. Who works on one says so each second.
const SILENCE: Duration = Duration::from_secs(5);
/// It is sent again also where others wait at the broker, after so long, and twice as long each time, so often.
const LONG_SILENCE: Duration = Duration::from_secs(60);
const MOST_DOUBLED: u32 = 10;
/// One that was refused is sent to somebody else after this.
const REFUSED: Duration = Duration::from_secs(1);

/// What the ledger must have of a mirror for others to work for it.
#[derive(Clone)]
pub struct Entry {
    /// What is asked for.
    pub record: JobRecord,
    /// What stays as it is while the mirror is kept.
    pub fields: Vec<(String, Vec<u8>)>,
}

impl Entry {
    /// Writes it, with more. All at once: who works for the mirror, or keeps it next, goes by all of it.
    pub fn enter(&self, node: &Node, id: JobId, more: Vec<(String, Vec<u8>)>) -> Result<(), LedgerError> {
        node.put_mirror(id, &self.record, self.fields.iter().cloned().chain(more).collect())
    }
}

/// What the thread works with.
pub struct Clerk {
    pub(super) id: JobId,
    pub(super) who: String,
    pub(super) spec: JobSpec,
    pub(super) node: Arc<Node>,
    pub(super) desk: Arc<Desk>,
    pub(super) book: Arc<Book>,
    pub(super) errands: Arc<Errands>,
    pub(super) began_ms: u64,
    pub(super) stop: Stop,
    pub(super) entry: Entry,
    pub(super) audited: Option<Arc<audit::Book>>,
}

impl Clerk {
    /// Until the mirror is told to stop.
    pub fn run(&self) {
        let (mut wrote, mut away, mut displaced) = (None::<Instant>, false, false);
        loop {
            let last = self.stop.is_set();
            let idle = self.desk.pending().is_idle();
            let tick = Tick { life: self.book.life, moment: self.desk.moment() };
            let mut fields = vec![(TICK.to_owned(), tick.to_string().into_bytes())];
            let all = last || wrote.is_none_or(|at| at.elapsed() >= WRITE);
            if all && let Ok(Some(other)) = self.node.keep_mirror(self.id, &self.who) {
                self.desk.abort(&format!("{other} keeps this mirror now"));
                displaced = true;
            }
            if displaced {
                // what is in the ledger is another's by now
                if last {
                    return;
                }
                std::thread::sleep(TICKS.1);
                continue;
            }
            let mut done_before = 0;
            if all {
                let pending = self.desk.pending();
                done_before = pending.done_before();
                let complete = pending.time_of(done_before);
                let failing = pending.to_be_tried();
                drop(pending);
                let walked = self.desk.walked_once.load(Relaxed);
                fields.extend(self.book.fields(done_before, complete, walked, failing.into_iter()));
                fields.push((REPORT.to_owned(), self.report().to_string().into_bytes()));
            }
            match self.node.note_mirror(self.id, &fields) {
                Ok(()) => {
                    if std::mem::take(&mut away) {
                        tracing::warn!("the ledger is back");
                    }
                    if all {
                        wrote = Some(Instant::now());
                        self.book.done(done_before);
                    }
                }
                Err(e) if !away => {
                    away = true;
                    tracing::warn!("how this mirror stands cannot be written: {e}");
                }
                Err(_) => {}
            }
            if last {
                return;
            }
            if all {
                self.enter_again();
                self.send_again();
            }
            std::thread::sleep(if idle { TICKS.1 } else { TICKS.0 });
        }
    }

    /// A ledger that has lost what it had knows of no mirror, and of no name of a file with several.
    fn enter_again(&self) {
        if !matches!(self.node.mirror_wish(self.id), Ok(None)) || self.desk.aborted().is_some() {
            return;
        }
        tracing::warn!("the ledger has lost this mirror: it is entered again, and everything looked at");
        let mut pending = self.desk.pending();
        // the next walk notes all names, as the first one did
        self.desk.walked_once.store(false, Relaxed);
        self.book.lost(pending.told_up_to());
        pending.lost();
        drop(pending);
        if let Err(e) = self.entry.enter(&self.node, self.id, book::not_walked()) {
            tracing::warn!("this mirror cannot be entered into the ledger: {e}");
        }
        self.desk.ring();
    }

    /// Sends errands again that nobody does.
    fn send_again(&self) {
        let waiting = match self.book.is_silent(SILENCE) {
            true => self.node.waiting_in(mirrors::LOOKS),
            false => None,
        };
        let unanswered = self.book.unanswered(REFUSED, |times| match waiting {
            Some(0) => SILENCE,
            // they may simply wait for somebody, and all that was sent would wait too
            Some(_) => LONG_SILENCE * 2u32.pow(times.min(MOST_DOUBLED)),
            None => Duration::MAX,
        });
        if unanswered.is_empty() {
            return;
        }
        tracing::info!(errands = unanswered.len(), "errands that nobody does are sent again");
        for (ticket, work) in unanswered {
            self.errands.send(ticket, work);
        }
    }

    /// What others may see of it.
    fn report(&self) -> serde_json::Value {
        let pending = self.desk.pending();
        let f = pending.figures();
        let mut mirror = of_pending(&pending, self.desk.moved.load(Relaxed));
        mirror["agents"] = self.book.agents_json(|moment| pending.time_of(moment));
        drop(pending);
        mirror["kept_by"] = json!(self.who);
        mirror["detect"] = json!(self.book.detectors());
        mirror["audit"] = json!(self.audited.as_ref().map(|a| a.to_json()));
        let mut counters = self.book.counters();
        counters.add(&self.book.walked());
        counters.failures = f.failing as u64;
        let job = JobRow {
            id: self.id,
            spec: self.spec.clone(),
            state: JobState::Running,
            paused: false,
            why: String::new(),
            created_ms: self.began_ms,
            ended_ms: None,
            outstanding: (f.waiting + f.busy + f.walks) as u64,
            counters,
        };
        let process = NodeReport {
            worker: self.who.clone(),
            node: self.node.name().to_owned(),
            kind: "watch".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_ms: self.began_ms,
            seen_ms: Control::now_ms(),
            ..NodeReport::default()
        };
        let mut v = nearby::report(&job, &process, &self.desk.failures());
        v["jobs"][0]["mirror"] = mirror;
        v
    }
}
