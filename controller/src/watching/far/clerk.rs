//! The thread beside the keeper of a mirror that writes ticks, and how the mirror stands, into the ledger; that acknowledges what
//! is done, and sends again what nobody has answered.

use super::book::Book;
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
use treeferry_queue::{Control, JobRow, Node, NodeReport};

/// Between two ticks while something happens, and while nothing does.
const TICKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(250));
/// Between two times that all is written.
const WRITE: Duration = Duration::from_millis(500);
/// An errand of which nothing was heard for so long is sent again, if it is not waiting at the broker: it, or its end, was
/// lost with a worker or with the broker, which keeps neither on disk. Who works on one says so each second.
const SILENCE: Duration = Duration::from_secs(5);

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
    pub(super) audited: Option<Arc<audit::Book>>,
}

impl Clerk {
    /// Until the mirror is told to stop.
    pub fn run(&self) {
        let (mut wrote, mut away) = (None::<Instant>, false);
        loop {
            let last = self.stop.is_set();
            let idle = self.desk.pending().is_idle();
            let tick = Tick { life: self.book.life, moment: self.desk.moment() };
            let mut fields = vec![(TICK.to_owned(), tick.to_string().into_bytes())];
            let all = last || wrote.is_none_or(|at| at.elapsed() >= WRITE);
            let mut done_before = 0;
            if all {
                let pending = self.desk.pending();
                done_before = pending.done_before();
                let failing = pending.failing(usize::MAX);
                drop(pending);
                let walked = self.desk.walked_once.load(Relaxed);
                fields.extend(self.book.fields(done_before, walked, failing.into_iter().map(|(p, _)| p)));
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
            if all {
                if let Ok(Some(other)) = self.node.keep_mirror(self.id, &self.who) {
                    self.desk.abort(&format!("{other} keeps this mirror now"));
                }
                self.send_again();
            }
            if last {
                return;
            }
            std::thread::sleep(if idle { TICKS.1 } else { TICKS.0 });
        }
    }

    /// Sends errands again of which nothing was heard for long.
    fn send_again(&self) {
        let silent = self.book.silent(SILENCE);
        // they may simply wait for somebody
        if silent.is_empty() || self.node.waiting_in(mirrors::LOOKS) != Some(0) {
            return;
        }
        tracing::info!(errands = silent.len(), "nothing was heard of errands: they are sent again");
        for (ticket, work) in silent {
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
