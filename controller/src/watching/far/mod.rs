//! `treeferry watch` in a cluster: this process, the *keeper* of the mirror, detects nothing and copies nothing. Agents on
//! the nodes where SRC is changed tell it what may have changed, by a line of the broker; workers look; walks are jobs of
//! the cluster. It remembers what is to be looked at, and so up to what moment the target is complete.
//!
//! What an agent has said is acknowledged when it is done, so whoever keeps the mirror next is told it again, and begins
//! where this one ended. Agents number what they say; a gap is a loss, and everything is walked then.
//!
//! Nobody's clock matters but the keeper's: it writes its moments into the ledger, *ticks*; an agent that has told all that
//! had happened when it read a tick says so. What it says of another keeper's tick means nothing.

mod book;
mod clerk;
mod errands;
mod rivals;
mod turning;

use super::desk::{Desk, Told, now_us, resumed};
use super::diary::Diary;
use super::walks::{self, Ground};
use super::{Wish, audit};
use crate::args::daemon::host;
use crate::cluster::{absolute, connect, whole};
use crate::events::{self, Teller, Watched};
use crate::job::Request;
use crate::metering;
use crate::output::{Console, End, Reading};
use book::{Book, Kept, Undone};
use clerk::{Clerk, Entry};
use errands::Errands;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use treeferry_core::job::JobState;
use treeferry_core::wire::{self, MessageKind};
use treeferry_core::{Event, JobId, JobSpec, Stop, Work};
use treeferry_mirror::{Batch, Finding, News, Pending, Said};
use treeferry_queue::mirrors::{self, Inbox, Letter, Taker};
use treeferry_queue::{Control, JobRecord, LedgerError, Node, Site, Status};
use treeferry_service::metrics::{Meter, Metrics};
use treeferry_worker::{Job, OpenError, Reporter};
use turning::{Expected, Turning};
use xxhash_rust::xxh3::Xxh3;

/// The field of a mirror that says whether all of the source has been walked once.
pub const WALKED: &str = "walked";
/// The field with the keeper's clock.
pub const TICK: &str = "tick";
/// The field with the detectors that agents are to use.
pub const DETECT: &str = "detect";
/// The field with what `status` shows.
pub const REPORT: &str = "report";

/// How often progress is drawn and the wish to stop is looked at; by eye.
const ROUND: Duration = Duration::from_millis(100);
/// Errands that are under way at once.
const FLIGHT: usize = 64;
/// Letters that are read before others have their turn.
const LETTERS: usize = 1000;
/// After this it is said what is being waited for.
const SAY: Duration = Duration::from_secs(5);

fn unreachable(e: &LedgerError) -> OpenError {
    OpenError::Unreachable(e.to_string())
}

/// Keeps the mirror until it is told to stop. Which it is, and how it ended.
pub fn run(
    site: &Site,
    request: &Request,
    wish: &Wish,
    stop: &Stop,
    console: &Arc<Console>,
) -> Result<(JobId, End), OpenError> {
    let began = Instant::now();
    let node = connect(site, &format!("watch-{}", host()))?;
    node.tell(&host(), request.telling.keep.buffer, request.telling.stream_length);
    let spec = absolute(&request.spec);
    let job = Job::open(spec.clone(), stop.clone())?;
    let id = find(&node, &spec).map_err(|e| unreachable(&e))?;
    let life = RandomState::new().hash_one(id);
    let who = node.worker().to_owned();
    if !take_over(&node, id, &who, stop, console) {
        let (counters, failures, aborted) = Default::default();
        return Ok((id, End { state: JobState::Interrupted, counters, failures, aborted }));
    }
    if let Err(e) = rivals::none(&node, id, &job, stop) {
        node.release_mirror(id, &who);
        return Err(e);
    }
    let mut record = JobRecord {
        spec: spec.clone(),
        made_target: false,
        roots: job.root_inodes(),
        limits: job.limits().to_text(),
        created_ms: Control::now_ms(),
    };
    let detect: Vec<String> = wish.detect.iter().map(|h| h.name()).collect();
    let detect = serde_json::to_vec(&detect).unwrap_or_default();
    let kept = Kept::read(&node, id, &record, &detect, &job).map_err(|e| unreachable(&e))?;
    // the same wish: those who work for it go on
    record.created_ms = kept.wish(record.created_ms);
    // what a keeper before us has begun and cannot hear the end of
    for walk in node.walks_of_mirror(id).map_err(|e| unreachable(&e))? {
        treeferry_queue::Engine::cluster(&node, walk).cancel();
        node.walk_is_over(walk).map_err(|e| unreachable(&e))?;
    }
    let again = kept.is_whole() && !wish.rescan;
    let entry = Entry {
        record: record.clone(),
        fields: vec![(DETECT.to_owned(), detect), (book::ROOTS.to_owned(), job.roots_text().into_bytes())],
    };
    let walked = (WALKED.to_owned(), if again { b"1".to_vec() } else { b"0".to_vec() });
    entry.enter(&node, id, vec![walked]).map_err(|e| unreachable(&e))?;

    let pending = match again {
        true => resumed(wish.timing, kept.complete_up_to),
        false => Pending::new(wish.timing),
    };
    let desk = Desk::new(pending);
    desk.walked_once.store(again, Relaxed);
    let book = Arc::new(Book::new(life, wish.agents.clone(), &kept, again));
    // agents number what they say; of what others have posted nobody would know
    let missed = match node.has_line(&mirrors::line(id)) {
        Ok(true) => None,
        Ok(false) => Some(format!("the broker has lost {}", mirrors::line(id))),
        Err(e) => Some(format!("the broker does not say whether it has {}: {e}", mirrors::line(id))),
    };
    let inbox = node.inbox(&mirrors::line(id), Taker::Alone);
    let errands = Arc::new(Errands {
        mirror: id,
        wish: record.created_ms,
        life,
        desk: Arc::clone(&desk),
        outgoing: node.outgoing(),
    });
    let teller = Some(Teller::new(node.outbox(), id, &spec));
    let watched: Arc<dyn Reporter> = Arc::new(Watched { console: Arc::clone(console), teller });
    let reporter: Arc<dyn Reporter> = Arc::new(Told::new(&desk, watched));
    events::put(node.outbox(), events::job_began(id, &spec));
    if again {
        let mut pending = desk.pending();
        kept.take_up(&book, &mut pending);
        if let Some(why) = &missed {
            tracing::warn!("changes may have been missed ({why}): everything is looked at");
            book.lost(pending.told_up_to());
            pending.lost();
        }
    }
    tracing::info!(mirror = %id, resumed = again, "mirror begun");
    let mut diary = Diary::open(wish.diary.as_ref(), id, &spec);
    let told = Some(Teller::new(node.outbox(), id, &spec));
    let audit = wish.audit.and_then(|plan| audit::start(plan, diary.audited_before(), &spec, &desk, told));
    audit.iter().for_each(|a| diary.keep_audit(a.book()));
    let mut keeper = Keeper {
        id,
        who,
        spec,
        node: Arc::clone(&node),
        desk,
        book,
        errands,
        reporter,
        job,
        began_ms: Control::now_ms(),
        walks: None,
        again,
        record,
        stop: stop.clone(),
        request,
        entry,
        audited: audit.as_ref().map(|a| Arc::clone(a.book())),
    };
    let mut turning =
        Turning::new(id, keeper.record.created_ms, &keeper.spec, !again && kept.was_asked_for());
    let mut expected = Expected::new();
    let clerk = keeper.clerk()?;
    let meter = request.metrics.clone().map(|settings| {
        let metrics = Arc::new(Metrics::start(settings));
        let (book, desk, stand) =
            (Arc::clone(&keeper.book), Arc::clone(&keeper.desk), Arc::clone(&keeper.desk));
        let status = move || {
            let f = desk.pending().figures();
            let outstanding = (f.waiting + f.busy) as u64;
            let (state, counters) = (JobState::Running, book.counters());
            Status { state, outstanding, counters, failures: Vec::new(), aborted: None }
        };
        // walks are jobs of their own, and workers tell of their tasks
        let audited = keeper.audited.clone();
        let more = move || {
            let figures = stand.pending().figures();
            metering::of_mirror(id, &figures, audited.as_ref().map(|a| a.figures()), now_us())
        };
        metering::local::start(&metrics, id, request.spec.passes, status, &Arc::default(), || (0, 0), more)
    });
    let (mut next, mut said) = (Instant::now(), false);
    while !stop.is_set() && keeper.desk.aborted().is_none() {
        keeper.round(&inbox);
        if Instant::now() < next {
            continue;
        }
        next = Instant::now() + ROUND;
        let is_ready = |expected: &mut Expected| {
            let is_heard = |agent: &str| keeper.book.has_heard(agent);
            keeper.book.is_ready() && (!wish.agents.is_empty() || expected.are_heard(&node, id, is_heard))
        };
        if keeper.walks.is_none() && (again || is_ready(&mut expected)) && turning.is_over(&node) {
            keeper.begin_walks()?;
        }
        if keeper.walks.is_none() {
            // later it is whoever walks that looks at it
            keeper.desk.finds(keeper.job.source());
        }
        if keeper.walks.is_none() && !said && began.elapsed() > SAY {
            said = true;
            let who = match keeper.book.is_ready() {
                true => "workers to end what they were asked for before".to_owned(),
                false => keeper.book.awaited(),
            };
            console.say(&format!("waiting for {who}"));
        }
        diary.tick(|| keeper.desk.pending());
        let c = keeper.counters();
        console.tick(|| Reading {
            entries: c.files + c.dirs,
            bytes: c.copied_bytes,
            outstanding: keeper.outstanding(),
            failures: keeper.desk.pending().figures().failing as u64,
            elapsed: began.elapsed(),
        });
    }
    meter.into_iter().for_each(Meter::stop);
    diary.end(&keeper.desk.pending());
    audit.into_iter().for_each(audit::Audit::end);
    let end = keeper.end(clerk, inbox);
    let why = end.aborted.as_deref().unwrap_or_default();
    events::put(node.outbox(), Event::job_ended(id, end.state, &end.counters, began.elapsed(), why));
    node.close();
    Ok((id, end))
}

/// The mirror of these two directories, if there is one; else a new name for it.
fn find(node: &Node, spec: &JobSpec) -> Result<JobId, LedgerError> {
    let is = |r: &JobSpec| (whole(&r.src), whole(&r.dst)) == (whole(&spec.src), whole(&spec.dst));
    for id in node.mirrors()? {
        if node.mirror(id)?.is_some_and(|r| is(&r.spec)) {
            return Ok(id);
        }
    }
    let mut attempt = 0;
    loop {
        let id = name_of(spec, attempt);
        // another's by chance: the next
        match node.mirror(id)? {
            Some(r) if !is(&r.spec) => attempt += 1,
            _ => return Ok(id),
        }
    }
}

/// What a new mirror of these two directories is called: the same by whoever begins it, so that of two who begin at once one
/// waits for the other. It must stay as it is, for versions work together.
fn name_of(spec: &JobSpec, attempt: u64) -> JobId {
    let mut hash = Xxh3::with_seed(attempt);
    for path in [&spec.src, &spec.dst] {
        hash.update(whole(path).as_os_str().as_encoded_bytes());
        hash.update(&[0]);
    }
    JobId(hash.digest())
}

/// Waits until nobody else keeps the mirror. `false`: we are to stop.
fn take_over(node: &Node, id: JobId, who: &str, stop: &Stop, console: &Console) -> bool {
    let (mut said, mut away) = (false, false);
    while !stop.is_set() {
        match node.keep_mirror(id, who) {
            Ok(None) => return true,
            Ok(Some(other)) if !said => {
                said = true;
                console.say(&format!("{other} keeps this mirror: waiting until it does not"));
            }
            Ok(Some(_)) => {}
            Err(e) if !away => {
                away = true;
                tracing::warn!("{e}");
            }
            Err(_) => {}
        }
        std::thread::sleep(ROUND);
    }
    false
}

struct Keeper<'a> {
    id: JobId,
    who: String,
    spec: JobSpec,
    node: Arc<Node>,
    desk: Arc<Desk>,
    book: Arc<Book>,
    errands: Arc<Errands>,
    reporter: Arc<dyn Reporter>,
    job: Arc<Job>,
    began_ms: u64,
    walks: Option<walks::Walks>,
    /// It goes on with what another keeper has left, and walks nothing at first.
    again: bool,
    record: JobRecord,
    stop: Stop,
    request: &'a Request,
    entry: Entry,
    audited: Option<Arc<audit::Book>>,
}

impl Keeper<'_> {
    /// Reads what has come, and sends what is due.
    fn round(&self, inbox: &Inbox) {
        let due = self.desk.pending().next_due().map(|at| at.saturating_duration_since(Instant::now()));
        let free = self.book.in_flight() < FLIGHT;
        let patience = due.filter(|_| free).unwrap_or(ROUND).min(ROUND);
        let mut next = inbox.next(patience);
        for _ in 0..LETTERS {
            let Some(letter) = next else { break };
            self.hear(letter);
            next = inbox.next(Duration::ZERO);
        }
        if let Some(letter) = next {
            self.hear(letter);
        }
        let batches = self.desk.pending().take(Instant::now(), FLIGHT);
        for batch in batches {
            let (ticket, work) = match batch {
                Batch::Look { ticket, dir, names } => (ticket, Work::Look { dir, names, ticket: 0 }),
                Batch::Move { ticket, from, to } => (ticket, Work::Move { from, to, ticket: 0 }),
                Batch::Names { ticket, dir } => (ticket, Work::Names { dir, ticket: 0 }),
            };
            self.book.sent(ticket, &work);
            self.errands.send(ticket, work);
        }
    }

    fn hear(&self, letter: Letter) {
        let news = match wire::decode::<News>(MessageKind::MirrorNews, &letter.body) {
            Ok(n) => n,
            Err(e) => {
                // an agent's would be missed by its number
                tracing::warn!("a message to this mirror that cannot be read is left out: {e}");
                return letter.done();
            }
        };
        // what agents tell of a directory that has gone elsewhere says nothing of SRC
        let is_there =
            matches!(&news, News::Signs { told: Some(_), .. }) && self.desk.finds(self.job.source());
        let now = Instant::now();
        let birth = self.desk.pending().told_up_to();
        let lasts = match news {
            News::Signs { agent, wish, life, number, said, told } => {
                // who was asked for something else hears of other paths, and asks anew in a moment
                if !self.book.counts(&agent) || wish != self.record.created_ms {
                    return letter.done();
                }
                let mut pending = self.desk.pending();
                let something = !said.is_empty();
                let mut lost = None;
                if !self.book.heard(birth, &agent, life, number, something) {
                    lost = Some(format!("not all that {agent} has said has come"));
                }
                for s in said {
                    match s {
                        Said::Path(path, sign) => pending.sign(now, path, sign),
                        Said::Moved(from, to, dir) => pending.moved(now, from, to, dir),
                        Said::Lost(why) => lost = Some(why),
                    }
                }
                // before the first walk has begun it is the walk that finds it, unless there is none
                if let Some(why) = lost.filter(|_| self.again || self.walks.is_some()) {
                    tracing::warn!("changes were missed ({agent}: {why}): everything is looked at");
                    self.book.lost(birth);
                    pending.lost();
                }
                let ours = told.filter(|t| t.life == self.book.life && is_there);
                if let Some(least) = ours.and_then(|t| self.book.told(&agent, t.moment)) {
                    pending.told(least);
                }
                something
            }
            News::Posted { by, paths } => {
                tracing::debug!(by, paths = paths.len(), "posted");
                let mut pending = self.desk.pending();
                for path in &paths {
                    pending.sign(now, path.clone(), treeferry_mirror::Sign::Tree);
                }
                self.book.keep(birth, Undone::Posted(paths));
                true
            }
            News::Found { worker, found } => {
                let mut lasts = false;
                for f in found {
                    lasts |= self.found(&worker, now, f);
                }
                lasts
            }
        };
        match lasts {
            true => self.book.keep(birth, Undone::Letter(letter.heard())),
            false => letter.done(),
        }
    }

    /// Whether it is to be heard again by the next keeper, should it not be done by then.
    fn found(&self, worker: &str, now: Instant, f: Finding) -> bool {
        match f {
            Finding::Again(path, below, owed) => self.desk.pending().again(now, path, below, &owed),
            Finding::Changed(path) => self.desk.pending().changed(now, path),
            Finding::Later(path, wait, owed) => self.desk.pending().later(now, path, wait, &owed),
            Finding::Failed(f) => self.reporter.failure(&f, None),
            Finding::Moved => {
                self.desk.moved.fetch_add(1, Relaxed);
                return false;
            }
            Finding::Settled { life, ticket } => {
                if life == self.book.life {
                    self.book.settled(ticket);
                    self.desk.pending().settled(now, self.desk.moment(), ticket);
                }
                return false;
            }
            Finding::Refused { life, ticket } => {
                if life == self.book.life {
                    self.book.refused(ticket);
                }
                return false;
            }
            Finding::Busy { life, tickets } => {
                if life == self.book.life {
                    self.book.busy(&tickets);
                }
                return false;
            }
            Finding::Counted(c) => {
                self.book.counted(worker, *c);
                return false;
            }
        }
        true
    }

    /// From now on walks are made, the first of them over everything if that was never done.
    fn begin_walks(&mut self) -> Result<(), OpenError> {
        let ground = Ground::Cluster {
            node: Arc::clone(&self.node),
            mirror: self.id,
            record: Box::new(self.record.clone()),
        };
        let pool = self.request.pool;
        let started = walks::start(ground, &self.desk, &self.job, &self.reporter, pool, &self.stop);
        let walks = started.map_err(|e| OpenError::Unusable(format!("cannot start a thread: {e}")))?;
        self.book.report_walks(walks.counting());
        self.walks = Some(walks);
        Ok(())
    }

    fn counters(&self) -> treeferry_core::Counters {
        let mut all = self.book.counters();
        self.walks.iter().for_each(|w| all.add(&w.counters()));
        all
    }

    fn outstanding(&self) -> u64 {
        let f = self.desk.pending().figures();
        (f.waiting + f.busy) as u64 + self.walks.as_ref().map_or(0, walks::Walks::outstanding)
    }

    /// The thread that writes into the ledger.
    fn clerk(&self) -> Result<JoinHandle<()>, OpenError> {
        let clerk = Clerk {
            id: self.id,
            who: self.who.clone(),
            spec: self.spec.clone(),
            node: Arc::clone(&self.node),
            desk: Arc::clone(&self.desk),
            book: Arc::clone(&self.book),
            errands: Arc::clone(&self.errands),
            began_ms: self.began_ms,
            stop: self.stop.clone(),
            entry: self.entry.clone(),
            audited: self.audited.clone(),
        };
        std::thread::Builder::new()
            .name("tf-clerk".to_owned())
            .spawn(move || clerk.run())
            .map_err(|e| OpenError::Unusable(format!("cannot start a thread: {e}")))
    }

    fn end(self, clerk: JoinHandle<()>, inbox: Inbox) -> End {
        let aborted = self.desk.aborted();
        let interrupted = !self.desk.pending().is_idle() || aborted.is_some();
        self.stop.set();
        let mut counters = self.book.counters();
        let mut walk_aborted = None;
        if let Some(w) = self.walks {
            let (walked, why) = w.end();
            counters.add(&walked);
            walk_aborted = why;
        }
        // the last page is written, and what is done acknowledged
        let _ = clerk.join();
        drop(inbox);
        self.node.release_mirror(self.id, &self.who);
        let failures = self.desk.failures();
        let failing = self.desk.pending().figures().failing;
        counters.failures = failing as u64;
        counters.vanished = 0;
        let aborted = aborted.or(walk_aborted);
        let state = match (&aborted, interrupted, failing) {
            (Some(_), ..) => JobState::Aborted,
            (None, true, _) => JobState::Interrupted,
            (None, false, 0) => JobState::Done,
            _ => JobState::Failed,
        };
        End { state, counters, failures, aborted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_has_one_name_whoever_begins_it() {
        let name = |src: &str, dst: &str, attempt| name_of(&JobSpec::new(src, dst), attempt).to_string();
        assert_eq!(name("/a/b", "/c", 0), "37fb32f732882598", "the same in every version");
        assert_eq!(name("/a//b/", "/c/.", 0), name("/a/b", "/c", 0));
        let others =
            [name("/a/b", "/c", 1), name("/c", "/a/b", 0), name("/a", "/b/c", 0), name("/a/b/c", "", 0)];
        others.iter().for_each(|o| assert_ne!(*o, name("/a/b", "/c", 0)));
    }
}
