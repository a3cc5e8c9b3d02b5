//! `treeferry watch`: keeps DST like SRC with the embedded engine. Detectors tell what may have changed; a desk remembers
//! what is to be looked at; a pool of threads looks. Beside it walks go on, the first of them over everything; and, if that
//! is wanted, an audit of what is on the target.

pub mod audit;
mod desk;
pub mod detect;
pub mod diary;
pub mod far;
mod files;
pub mod rest;
mod walks;

use crate::args::daemon::host;
use crate::events::{self, Teller, Watched};
use crate::job::Request;
use crate::links::linker;
use crate::mailbox::Mailbox;
use crate::metering::{self, Counting, Tasks};
use crate::nearby::{self, Post};
use crate::output::{Console, End, Reading};
use crate::report::journal::Journal;
use desk::{Desk, Listener, Told, now_us};
use detect::{Detectors, How};
use diary::Diary;
use files::{hold, is_elsewhere, keep_index, polling};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use treeferry_core::job::JobState;
use treeferry_core::{Counters, Event, JobId, NewTask, Stop, Work};
use treeferry_mirror::{Batch, Figures, Pending, Sign, Timing};
use treeferry_queue::{Control, Engine, JobRow, NodeReport, Status};
use treeferry_service::metrics::{Meter, Metrics};
use treeferry_worker::{Context, Families, Job, OpenError, Pool, Reporter};

/// How often progress is drawn and the wish to stop is looked at; by eye.
const TICK: Duration = Duration::from_millis(100);
/// Between two times that an index of walks is kept.
const KEEP: Duration = Duration::from_secs(1);
/// Looks that are under way at once, for each thread: more would only wait elsewhere.
const LOOKS: usize = 4;

/// What a mirror is asked for beside the job itself.
#[derive(Clone, Debug)]
pub struct Wish {
    /// How changes are detected; none: by what this process may use.
    pub detect: Vec<How>,
    /// The ring that the shim detector reads; none: the usual one.
    pub ring: Option<PathBuf>,
    /// Paths of a list end with NUL, not with a newline.
    pub zero: bool,
    /// How long signs wait.
    pub timing: Timing,
    /// From the end of one walk of the source to the begin of the next, where it is walked for changes.
    pub poll_every: Duration,
    /// Where the index of these walks is; `None`: with what is known of mirrors.
    pub index: Option<PathBuf>,
    /// All is walked first, whatever is known from before.
    pub rescan: bool,
    /// In a cluster: the agents whose word counts; none: all that are heard.
    pub agents: Vec<String>,
    /// In a cluster: where it is kept how soon changes arrived, below this directory; `None`: nowhere.
    pub diary: Option<PathBuf>,
    /// How entries are drawn and compared meanwhile; `None`: they are not.
    pub audit: Option<audit::Plan>,
}

/// Keeps the mirror until it is told to stop, or until a list is at its end and worked off.
pub fn run(
    id: JobId,
    request: &Request,
    wish: &Wish,
    stop: &Stop,
    console: &Arc<Console>,
) -> Result<End, OpenError> {
    let began = Instant::now();
    let job = Job::open(request.spec.clone(), stop.clone())?;
    let _alone = hold(&job)?;
    let mut diary = Diary::open(request.telling.dir.as_ref(), id, &request.spec);
    // first the detectors, then the walk: so there is no gap
    let place = rest::Place::of(wish, request, &job, &diary);
    let left = place.as_ref().filter(|_| !wish.rescan).and_then(|p| p.read(&job));
    if let Some(ring) = &wish.ring {
        is_elsewhere("ring", ring, request)?;
    }
    let polling = polling(wish, request, &job, &diary)?;
    let opened = detect::open(&wish.detect, &job, wish, polling, left.as_ref().map(|l| &l.reader))?;
    let left = left.filter(|_| opened.goes_on);
    let resumes_from = opened.resumes_from.or(left.as_ref().map(|l| l.complete_up_to));
    let desk = Desk::new(match resumes_from {
        None => Pending::new(wish.timing),
        Some(then) => desk::resumed(wish.timing, then),
    });
    desk.walked_once.store(resumes_from.is_some(), Relaxed);
    left.iter().for_each(|l| l.tell(&mut desk.pending()));
    let families = left.map_or_else(Families::default, |l| Families::knowing(l.names));
    job.mirror_for(Box::new(Listener(Arc::clone(&desk))), Box::new(families));
    let (detectors, index, resumed) = (opened.all, opened.index, resumes_from.is_some());
    let thread = |e: std::io::Error| OpenError::Hindered(format!("cannot start a thread: {e}"));
    let (d, j) = (Arc::clone(&desk), Arc::clone(&job));
    let is_there: Arc<detect::IsThere> = Arc::new(move || d.finds(j.source()));
    let detectors = detect::start(detectors, &desk, &is_there).map_err(thread)?;
    let engine = Engine::memory();
    engine.keep_open();
    let mut journal = Journal::begin(request.telling.dir.clone(), id, &request.spec, job.root_inodes().0);
    let log = events::log(&request.telling, id);
    let teller = log.as_ref().map(|l| Teller::new(l.outbox(), id, &request.spec));
    log.iter().for_each(|l| events::put(l.outbox(), events::job_began(id, &request.spec)));
    let watched: Arc<dyn Reporter> = Arc::new(Watched { console: Arc::clone(console), teller });
    let mut reporter: Arc<dyn Reporter> = Arc::new(Told::new(&desk, watched));
    let tasks = Arc::new(Tasks::default());
    let metrics = request.metrics.clone().map(|s| Arc::new(Metrics::start(s)));
    if metrics.is_some() {
        reporter = Arc::new(Counting::new(&tasks, reporter));
    }
    let (e, j, r) = (engine.clone(), Arc::clone(&job), Arc::clone(&reporter));
    let context = Context { engine: e, links: linker(&job), job: j, reporter: r, follows: true };
    let pool = Pool::of(context, request.pool);
    let walks =
        walks::start(walks::Ground::Here, &desk, &job, &reporter, request.pool, stop).map_err(thread)?;
    let told = log.as_ref().map(|l| Teller::new(l.outbox(), id, &request.spec));
    let audit =
        wish.audit.and_then(|plan| audit::start(plan, diary.audited_before(), &request.spec, &desk, told));
    audit.iter().for_each(|a| diary.keep_audit(a.book()));
    let audited = audit.as_ref().map(|a| Arc::clone(a.book()));
    let meter = metrics.map(|m| {
        let (e, counted, stand) = (engine.clone(), walks.counting(), Arc::clone(&desk));
        let status = move || {
            let (mut now, walked) = (e.status(), counted());
            now.counters.add(&walked);
            let f = stand.pending().figures();
            Status { outstanding: (f.waiting + f.busy) as u64, ..now }
        };
        let desk = Arc::clone(&desk);
        let more = move || {
            let figures = desk.pending().figures();
            metering::of_mirror(id, &figures, audited.as_ref().map(|a| a.figures()), now_us())
        };
        metering::local::start(&m, id, request.spec.passes, status, &tasks, pool.load(), more)
    });
    let post = Post::open(id).unwrap_or_else(|e| {
        tracing::info!("nobody can watch this job: {e}");
        None
    });
    let posted = Arc::clone(&desk);
    let mailbox = Mailbox::open(id, job.source().path(), move |paths| {
        let (mut pending, now) = (posted.pending(), Instant::now());
        paths.into_iter().for_each(|p| pending.sign(now, p, Sign::Tree));
        drop(pending);
        posted.ring();
    });
    let mailbox = mailbox.unwrap_or_else(|e| {
        tracing::info!("nobody can post to this mirror: {e}");
        None
    });
    let watch =
        Watch { id, request, engine, pool, desk, walks, audit, detectors, job, began_ms: Control::now_ms() };
    tracing::info!(detectors = watch.detectors.names().join(","), resumed, "mirror begun");
    let mut next = Instant::now();
    let mut kept = Instant::now();
    while !stop.is_set() && !watch.is_over() && watch.desk.aborted().is_none() {
        watch.dispatch();
        if Instant::now() < next {
            continue;
        }
        next = Instant::now() + TICK;
        if let Some(p) = &post {
            p.answer(|| watch.report());
        }
        journal.tick(|| (&watch.engine, watch.pool.running(id)));
        diary.tick(|| watch.desk.pending());
        if let Some(i) = index.as_ref().filter(|_| kept.elapsed() >= KEEP) {
            kept = Instant::now();
            keep_index(i, &watch.desk);
        }
        console.tick(|| Reading {
            entries: watch.job.live_entries(),
            bytes: watch.job.live_bytes(),
            outstanding: watch.outstanding(),
            failures: watch.counters().failures,
            elapsed: began.elapsed(),
        });
    }
    if let Some(p) = post {
        p.close();
    }
    index.iter().for_each(|i| keep_index(i, &watch.desk));
    mailbox.into_iter().for_each(Mailbox::close);
    meter.into_iter().for_each(Meter::stop);
    diary.end(&watch.desk.pending());
    let end = watch.end(stop, place.as_ref());
    journal.end(&end.1, &end.1.status());
    let end = end.0;
    tracing::info!(state = end.state.name(), "mirror ended");
    if let Some(log) = log {
        let why = end.aborted.as_deref().unwrap_or_default();
        let ended = Event::job_ended(id, end.state, &end.counters, began.elapsed(), why);
        events::put(log.outbox(), ended);
        log.finish();
    }
    Ok(end)
}

/// A mirror that is being kept.
struct Watch<'a> {
    id: JobId,
    request: &'a Request,
    /// Of the looks.
    engine: Engine,
    pool: Pool,
    desk: Arc<Desk>,
    walks: walks::Walks,
    audit: Option<audit::Audit>,
    detectors: Detectors,
    job: Arc<Job>,
    began_ms: u64,
}

impl Watch<'_> {
    /// Gives what is due to the pool; waits a little if that is nothing.
    fn dispatch(&self) {
        let mut pending = self.desk.pending();
        let batches = pending.take(Instant::now(), LOOKS * self.pool.active().max(1));
        if batches.is_empty() {
            let due = pending.next_due().map(|at| at.saturating_duration_since(Instant::now()));
            // what is due already waits for a look that is under way, whose end is heard of
            let patience = due.filter(|d| !d.is_zero()).unwrap_or(TICK).min(TICK);
            self.desk.wait(pending, patience);
            return;
        }
        drop(pending);
        for batch in batches {
            let work = match batch {
                Batch::Look { ticket, dir, names } => Work::Look { dir, names, ticket },
                Batch::Move { ticket, from, to } => Work::Move { from, to, ticket },
                Batch::Names { ticket, dir } => Work::Names { dir, ticket },
            };
            self.engine.begin(NewTask::new(None, work));
        }
    }

    /// Whether there is nothing to do, and never will be.
    fn is_over(&self) -> bool {
        let is_over = self.detectors.are_over() && self.desk.pending().is_idle();
        is_over && self.desk.finds(self.job.source())
    }

    fn counters(&self) -> Counters {
        let mut all = self.engine.status().counters;
        all.add(&self.walks.counters());
        all
    }

    fn outstanding(&self) -> u64 {
        let f = self.desk.pending().figures();
        (f.waiting + f.busy) as u64 + self.walks.outstanding()
    }

    /// Ends all threads, leaves what is not done at a place, and says how it stands.
    fn end(self, stop: &Stop, place: Option<&rest::Place>) -> (End, Engine) {
        let heard = self.desk.heard.load(Relaxed);
        let mut interrupted = !self.desk.pending().is_idle() || self.desk.aborted().is_some();
        let reader = self.detectors.stop();
        // what was heard since; files that are open are not finished in any case
        interrupted |= self.desk.heard.load(Relaxed) != heard && !self.desk.pending().is_idle();
        self.audit.into_iter().for_each(audit::Audit::end);
        if interrupted {
            stop.set();
        }
        self.engine.cancel();
        self.pool.join();
        let mut counters = self.engine.status().counters;
        let (walked, aborted) = self.walks.end();
        let aborted = aborted.or(self.desk.aborted());
        let walked_once = self.desk.walked_once.load(Relaxed) && aborted.is_none();
        if let Some(place) = place {
            place.leave(reader.filter(|_| walked_once), &self.desk.pending(), &self.job);
        }
        counters.add(&walked);
        let failures = self.desk.failures();
        let failing = self.desk.pending().figures().failing;
        counters.failures = failing as u64;
        // what vanished while it was looked at was looked at again
        counters.vanished = 0;
        let state = match (&aborted, interrupted, failing) {
            (Some(_), ..) => JobState::Aborted,
            (None, true, _) => JobState::Interrupted,
            (None, false, 0) => JobState::Done,
            _ => JobState::Failed,
        };
        (End { state, counters, failures, aborted }, self.engine)
    }

    /// What others may see of it.
    fn report(&self) -> Value {
        let job = JobRow {
            id: self.id,
            spec: self.request.spec.clone(),
            state: JobState::Running,
            paused: false,
            why: String::new(),
            created_ms: self.began_ms,
            ended_ms: None,
            outstanding: self.outstanding(),
            counters: self.counters(),
        };
        let name = host();
        let process = NodeReport {
            worker: format!("{name}-{}", std::process::id()),
            node: name,
            kind: "watch".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pool: self.pool.active(),
            busy: self.pool.busy(),
            started_ms: self.began_ms,
            seen_ms: Control::now_ms(),
            tasks: self.pool.running(self.id),
            ..NodeReport::default()
        };
        let failures = self.desk.failures();
        let mut v = nearby::report(&job, &process, &failures);
        v["jobs"][0]["mirror"] = self.mirror_json();
        v
    }

    fn mirror_json(&self) -> Value {
        let mut v = of_pending(&self.desk.pending(), self.desk.moved.load(Relaxed));
        v["detect"] = json!(self.detectors.names());
        v["audit"] = self.audit.as_ref().map_or(Value::Null, |a| a.book().to_json());
        v
    }
}

/// How a mirror stands, for `status`.
fn of_pending(pending: &Pending, moved: u64) -> Value {
    let (f, l) = (pending.figures(), pending.latency());
    let failing = pending.failing(20);
    let ms = |share| l.quantile(share).as_secs_f64() * 1000.0;
    let Figures { complete_up_to, told_up_to, waiting, busy, walks, failing: fails, signs, looks, resyncs } =
        f;
    json!({
        "complete_up_to_us": complete_up_to,
        "told_up_to_us": told_up_to,
        "waiting": waiting,
        "busy": busy,
        "walks": walks,
        "failing": fails,
        "failing_paths": failing.iter().map(|(p, why)| json!({"path": p.to_string(), "error": why})).collect::<Vec<_>>(),
        "signs": signs,
        "looks": looks,
        "moved": moved,
        "resyncs": resyncs,
        "arrivals": {
            "count": l.total(),
            "p50_ms": ms(0.5), "p90_ms": ms(0.9), "p99_ms": ms(0.99),
            "max_ms": l.most().as_secs_f64() * 1000.0,
            "over_300_s": l.above(Duration::from_secs(300)),
            "over_600_s": l.above(Duration::from_secs(600)),
        },
    })
}
