//! A daemon of the cluster: connects, listens, and works for whatever job comes, until it is told to stop.

use crate::args::Daemon;
use crate::args::daemon::host;
use crate::cluster::connect;
use crate::events::{self, Teller, Telling};
use crate::links::linker;
use crate::looking::{Book, Looks, Voice, Walker};
use crate::metering::cluster::AllTasks;
use crate::metering::{self, Counting};
use crate::output::complain;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use treeferry_core::event::EventKind;
use treeferry_core::{Change, Event, Failure, JobId, Notice, Pass, Stop, Work};
use treeferry_fs::Limits;
use treeferry_queue::mirrors::Outgoing;
use treeferry_queue::{Control, Engine, Lane, Node, NodeReport, Reporting, Shutdown, Site};
use treeferry_service::metrics::{Meter, Metrics, Settings};
use treeferry_service::{Exit, logging, signals};
use treeferry_worker::{Context, Job, Jobs, Member, NodePool, Reporter};

/// How often a daemon looks what it is told.
const TICK: Duration = Duration::from_millis(50);
/// How often what is over is closed.
const TIDY: Duration = Duration::from_secs(1);
/// How long a task may take to its end when a daemon is to stop; then it is cut short, and done by others.
const BUDGET: Duration = Duration::from_secs(30);

/// What a daemon is to be.
pub struct Plan {
    /// Its cluster.
    pub site: Site,
    /// Its threads.
    pub threads: usize,
    /// Where its events go.
    pub telling: Telling,
    /// Where its metrics go, if anywhere.
    pub metrics: Option<Settings>,
}

/// What every daemon begins with: the log goes to stderr, and signals set what is returned.
pub(crate) fn begin(args: &Daemon) -> Result<Stop, Exit> {
    let sink = |line: &[u8]| {
        use std::io::Write;
        let _ = std::io::stderr().write_all(line);
    };
    if let Err(e) = logging::start(logging::level(false, args.verbose), sink) {
        complain(&e.to_string());
        return Err(Exit::Usage);
    }
    let stop = Stop::default();
    if let Err(e) = signals::watch(&stop, || complain(signals::STOPPING)) {
        tracing::warn!("signals end this process at once: {e}");
    }
    Ok(stop)
}

/// Runs until a signal, or until it is told to end.
pub fn run(what: &'static str, plan: &Plan, lanes: &[Lane], args: &Daemon) -> Exit {
    let (site, threads) = (&plan.site, plan.threads);
    let stop = match begin(args) {
        Ok(stop) => stop,
        Err(exit) => return exit,
    };
    let node = match connect(site, &args.name()) {
        Ok(n) => n,
        Err(e) => {
            complain(&e.to_string());
            return Exit::Unreachable;
        }
    };
    node.tell(&host(), plan.telling.keep.buffer, plan.telling.stream_length);
    let tasks = plan.metrics.is_some().then(Arc::<AllTasks>::default);
    let outgoing = Arc::new(node.outgoing());
    let here = Here { node: Arc::clone(&node), outgoing, refused: Mutex::default(), tasks: tasks.clone() };
    let pool = match NodePool::start(&node, Box::new(here), threads) {
        Ok(p) => Arc::new(p),
        Err(e) => {
            complain(&format!("cannot start a thread: {e}"));
            return Exit::Unusable;
        }
    };
    // links are made for walks alone: those who look link by themselves
    let links = lanes.contains(&Lane::Links);
    let looks = match (!links).then(|| Looks::start(&node, threads)).transpose() {
        Ok(l) => l,
        Err(e) => {
            complain(&format!("cannot start a thread: {e}"));
            return Exit::Unusable;
        }
    };
    let stopping = Arc::new(AtomicBool::new(false));
    let of_mirrors = looks.as_ref().map(Looks::report);
    node.report(reporting(what, &node, &pool, &stopping, of_mirrors));
    let meter = plan.metrics.clone().zip(tasks).map(|(settings, tasks)| {
        let (metrics, pool) = (Arc::new(Metrics::start(settings)), Arc::downgrade(&pool));
        let load = move || pool.upgrade().map(|p| (p.size(), p.busy()));
        metering::cluster::start(&metrics, &node, what, &tasks, Box::new(load))
    });
    let (mut heard, mut tidied) = (threads, Instant::now());
    node.listen(lanes, prefetch(heard));
    complain(&format!("{what} is ready, with {threads} threads"));
    let ready = format!("{what} of version {}, {threads} threads", env!("CARGO_PKG_VERSION"));
    events::put(node.outbox(), Event::new(EventKind::WorkerStarted).text(ready));
    let exit = loop {
        let wanted = node.wanted();
        if wanted.shutdown == Some(Shutdown::Now) {
            // others do again what was begun: nothing is lost by leaving like this
            complain("told to end at once");
            node.forget_orders();
            return Exit::Done;
        }
        if stop.is_set() || wanted.shutdown.is_some() {
            break Exit::Done;
        }
        pool.pause(wanted.paused);
        // links are made one by one, whatever the size of other pools
        let size = wanted.pool.filter(|_| !links).unwrap_or(threads);
        if size != pool.size()
            && let Err(e) = pool.resize(size)
        {
            tracing::error!("cannot start a thread: {e}");
        }
        if let Some(l) = &looks {
            l.pause(wanted.paused);
            l.resize(size);
        }
        if size > heard {
            node.listen(lanes, prefetch(size - heard));
            heard = size;
        }
        if tidied.elapsed() >= TIDY {
            tidied = Instant::now();
            pool.tidy();
        }
        std::thread::sleep(TICK);
    };
    stopping.store(true, Relaxed);
    looks.into_iter().for_each(Looks::stop);
    pool.stop(BUDGET);
    events::put(node.outbox(), Event::new(EventKind::WorkerEnded).text(what));
    meter.into_iter().for_each(Meter::stop);
    node.close();
    node.forget_orders();
    exit
}

/// Messages of each lane that the broker may send ahead: one for each thread, and none that would wait here while others
/// have nothing to do.
fn prefetch(threads: usize) -> u16 {
    u16::try_from(threads).unwrap_or(u16::MAX)
}

/// What the daemon says of itself, whenever it is asked.
fn reporting(
    what: &'static str,
    node: &Arc<Node>,
    pool: &Arc<NodePool>,
    stopping: &Arc<AtomicBool>,
    of_mirrors: Option<impl Fn(&mut NodeReport) + Send + Sync + 'static>,
) -> Reporting {
    // weak: the node keeps this, and the pool keeps the node
    let (node, pool) = (Arc::downgrade(node), Arc::downgrade(pool));
    let stopping = Arc::clone(stopping);
    let started_ms = Control::now_ms();
    Box::new(move || {
        let (Some(node), Some(pool)) = (node.upgrade(), pool.upgrade()) else { return NodeReport::default() };
        let mut report = NodeReport {
            worker: node.worker().to_owned(),
            node: node.name().to_owned(),
            kind: what.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pool: pool.size(),
            busy: pool.busy(),
            paused: pool.is_paused(),
            stopping: stopping.load(Relaxed),
            started_ms,
            seen_ms: Control::now_ms(),
            unacked: node.unacked(),
            tasks: pool.running(),
            refused: pool.refused(),
            mirrors: BTreeMap::new(),
            events_dropped: node.outbox().dropped(),
        };
        of_mirrors.iter().for_each(|add| add(&mut report));
        report
    })
}

/// Opens jobs on this node.
struct Here {
    node: Arc<Node>,
    /// To those who keep mirrors.
    outgoing: Arc<Outgoing>,
    /// Why jobs were last refused, as was told: each is tried again every few seconds.
    refused: Mutex<HashMap<JobId, String>>,
    /// Told how long tasks take, if anybody wants to know.
    tasks: Option<Arc<AllTasks>>,
}

impl Jobs for Here {
    fn open(&self, id: JobId) -> Result<Context, String> {
        let opened = self.open_here(id);
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match &opened {
            Ok(_) => drop(refused.remove(&id)),
            Err(why) if refused.get(&id) == Some(why) => {}
            Err(why) => {
                events::put(self.node.outbox(), Event::new(EventKind::JobRefused).text(why.clone()).of(id));
                refused.insert(id, why.clone());
            }
        }
        opened
    }
}

impl Here {
    fn open_here(&self, id: JobId) -> Result<Context, String> {
        let record = self.node.record(id).map_err(|e| e.to_string())?.ok_or("the ledger has no such job")?;
        let began = Duration::from_millis(record.created_ms);
        let limits = Limits::from_text(&record.limits).ok_or("the ledger has a strange word on DST")?;
        let member = Member { made_target: record.made_target, roots: record.roots, limits, began };
        let job = Job::join(record.spec, Stop::default(), &member).map_err(|e| e.to_string())?;
        self.node.enroll(id, &job.temp_names().own_maker()).map_err(|e| e.to_string())?;
        if let Some((mirror, part)) = self.node.mirror_of_walk(id).map_err(|e| e.to_string())? {
            let fields = self.node.mirror_fields(mirror).map_err(|e| e.to_string())?;
            let known = fields.get(crate::watching::far::WALKED).is_some_and(|w| w == b"1");
            let walker = Walker::new(Voice::new(&self.node, &self.outgoing, mirror), known, part);
            job.mirror_for(Box::new(walker), Box::new(Book(self.node.names_of_mirror(mirror))));
        }
        let teller = Teller::new(self.node.outbox(), id, job.spec());
        let mut reporter: Arc<dyn Reporter> = Arc::new(Log { job: id, teller });
        if let Some(all) = &self.tasks {
            reporter = Arc::new(Counting::new(&all.of(id), reporter));
        }
        Ok(Context {
            engine: Engine::cluster(&self.node, id),
            links: linker(&job),
            job,
            reporter,
            follows: false,
        })
    }
}

/// Tells the log and those who watch; what the user of the job is to hear, the ledger knows.
struct Log {
    job: JobId,
    teller: Teller,
}

impl Reporter for Log {
    fn changes(&self, _: &[Change]) {}
    fn events(&self, events: Vec<Event>) {
        self.teller.events(events);
    }
    fn failure(&self, f: &Failure, pass: Option<Pass>) {
        tracing::warn!("job {}: {f}", self.job);
        self.teller.failure(f, pass);
    }
    fn notice(&self, n: Notice) {
        tracing::info!("job {}: {}", self.job, n.text());
        self.teller.notice(n);
    }
    fn ran(&self, work: &Work, took: Duration) {
        self.teller.ran(work, took);
    }
}
