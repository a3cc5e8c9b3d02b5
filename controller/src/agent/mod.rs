//! `treeferry agent`: detects, on one node, what changes in the sources of all mirrors of the cluster, and tells those who
//! keep them. It reads no content and touches no target.
//!
//! Each mirror has a *basket*, into which its detectors put what they hear, and a thread that sends it, in numbered
//! messages. While the broker takes nothing, messages go to a file with a cap, and nobody who changes the source waits for
//! anything.

mod left;
mod namesakes;
mod spool;
mod ticks;

use crate::args::Daemon;
use crate::args::daemon::host;
use crate::cluster::connect;
use crate::daemon;
use crate::output::complain;
use crate::watching::detect::{self, How, Means};
use crate::watching::far::{DETECT, TICK};
use left::Left;
use namesakes::Namesakes;
use spool::Spool;
use std::collections::BTreeMap;
use std::ffi::CStr;
use std::hash::{BuildHasher, RandomState};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use ticks::{Read, Ticks};
use treeferry_core::filter::Filter;
use treeferry_core::wire::{self, MessageKind};
use treeferry_core::{JobId, RelPath};
use treeferry_event::{Detector, Hint, News as Heard, Polling, Rest, Waker, What};
use treeferry_mirror::{News, Said, Sign, Tick};
use treeferry_queue::mirrors::{self, Outgoing};
use treeferry_queue::{Control, JobRecord, Node, NodeReport, Refusal, Site};
use treeferry_service::Exit;

/// How often it is looked which mirrors there are.
const LOOK: Duration = Duration::from_millis(500);
/// How long a detector waits for something.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often the keeper's clock is read while something is heard, and after [`CALM`] without.
const TICKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(150));
const CALM: Duration = Duration::from_secs(2);
/// Of one message.
const MOST_SAID: usize = 4096;
/// With so much unsent, further messages go to the spool.
const MOST_UNSENT: usize = 1 << 20;
/// With more than this unsent nothing is sent that says nothing but a moment.
const SOME_UNSENT: usize = 64 << 10;
/// How long the broker has for the last messages of an agent that is stopped.
const LAST: Duration = Duration::from_secs(5);
/// A mirror that cannot be looked after is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);

/// What an agent is to be.
pub struct Plan {
    /// Its cluster.
    pub site: Site,
    /// What it detects changes with, whatever whoever keeps a mirror has asked for.
    pub detect: Vec<How>,
    /// From the end of one walk of a source to the begin of the next, where it is walked for changes.
    pub poll_every: Duration,
    /// The ring that the shim detector reads; none: the usual one.
    pub ring: Option<PathBuf>,
    /// Where messages go that the broker does not take.
    pub spool: PathBuf,
    /// How much of them, in bytes.
    pub spool_bytes: u64,
    /// The directory of events: what it leaves for the next agent is below it; `None`: nowhere.
    pub dir: Option<PathBuf>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs until a signal.
pub fn run(plan: &Plan, args: &Daemon) -> Exit {
    let stop = match daemon::begin(args) {
        Ok(stop) => stop,
        Err(exit) => return exit,
    };
    if let Err(e) = Spool::try_in(&plan.spool) {
        complain(&format!(
            "{}: what the broker does not take cannot be kept there: {e}; name another directory with --spool-dir",
            plan.spool.display()
        ));
        return Exit::Unusable;
    }
    let node = match connect(&plan.site, &args.name()) {
        Ok(n) => n,
        Err(e) => {
            complain(&e.to_string());
            return Exit::Unreachable;
        }
    };
    node.tell(&host(), 1000, 1);
    let agent = Arc::new(Agent {
        outgoing: Arc::new(node.outgoing()),
        name: args.name(),
        started_ms: Control::now_ms(),
        refused: Mutex::default(),
        node,
    });
    agent.report();
    let mut namesakes = Namesakes::of(&agent.name, agent.started_ms);
    let is_refused = |other: &str| {
        complain(&format!(
            "{other} runs already: each agent of a cluster has a name of its own, by default that of its host (--name)"
        ));
        Exit::Unusable
    };
    if let Some(other) = namesakes.at_the_start(&agent.node, &stop) {
        agent.node.close();
        return is_refused(&other);
    }
    let mut exit = Exit::Done;
    let mut followed: BTreeMap<JobId, Result<Following, Instant>> = BTreeMap::new();
    complain("agent is ready");
    while !stop.is_set() {
        if let Some(other) = namesakes.later(&agent.node) {
            exit = is_refused(&other);
            break;
        }
        agent.look(plan, &mut followed);
        let until = Instant::now() + LOOK;
        while Instant::now() < until && !stop.is_set() {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let followed: Vec<_> = followed.into_iter().filter_map(|(id, f)| Some((id, f.ok()?))).collect();
    followed.iter().for_each(|(_, f)| f.rest_soon());
    let left: Vec<(JobId, Left)> = followed.into_iter().filter_map(|(id, f)| Some((id, f.stop()?))).collect();
    // what the broker has not confirmed may be lost; then whoever goes on would not know
    let since = Instant::now();
    while !left.is_empty() && agent.outgoing.unsent() > 0 && since.elapsed() < LAST {
        std::thread::sleep(Duration::from_millis(5));
    }
    // not beside an agent of our name, whose place that is
    let leaves = exit == Exit::Done && agent.outgoing.unsent() == 0;
    if let Some(dir) = plan.dir.as_ref().filter(|_| leaves) {
        left.iter().for_each(|(id, l)| l.write(&left::path(dir, &agent.name, *id)));
    }
    agent.node.close();
    exit
}

struct Agent {
    node: Arc<Node>,
    outgoing: Arc<Outgoing>,
    name: String,
    started_ms: u64,
    refused: Mutex<BTreeMap<JobId, String>>,
}

impl Agent {
    /// Follows the mirrors that there are.
    fn look(self: &Arc<Agent>, plan: &Plan, followed: &mut BTreeMap<JobId, Result<Following, Instant>>) {
        // while the ledger is away what is followed is followed on
        let Ok(all) = self.node.mirrors_now() else { return };
        for id in &all {
            let again = match followed.get(id) {
                None => true,
                Some(Err(at)) => at.elapsed() > AGAIN,
                // also when something else is asked for now
                Some(Ok(f)) => {
                    let wish = self.node.mirror_wish(*id);
                    f.is_over() || wish.is_ok_and(|w| w.is_some_and(|w| w != f.wish))
                }
            };
            if !again {
                continue;
            }
            if let Some(Ok(f)) = followed.remove(id) {
                // what comes next is another life, or another wish
                drop(f.stop());
            }
            let begun = self.follow(*id, plan);
            let mut refused = lock(&self.refused);
            match &begun {
                Ok(_) => drop(refused.remove(id)),
                Err(why) => {
                    if refused.insert(*id, why.clone()).as_ref() != Some(why) {
                        tracing::warn!("mirror {id} is not followed on this node: {why}");
                    }
                }
            }
            drop(refused);
            followed.insert(*id, begun.map_err(|_| Instant::now()));
        }
        let gone: Vec<JobId> = followed.keys().filter(|id| !all.contains(id)).copied().collect();
        for id in gone {
            lock(&self.refused).remove(&id);
            if let Some(Ok(f)) = followed.remove(&id) {
                drop(f.stop());
                tracing::info!("mirror {id} is no more");
            }
        }
    }

    fn follow(self: &Arc<Agent>, id: JobId, plan: &Plan) -> Result<Following, String> {
        let record =
            self.node.mirror(id).map_err(|e| e.to_string())?.ok_or("the ledger has no such mirror")?;
        let there = std::fs::metadata(&record.spec.src).map_err(|e| format!("SRC: {e}"))?;
        if there.ino() != record.roots.0 {
            return Err("SRC is another directory on this node: is its file system mounted?".to_owned());
        }
        let asked = self.node.mirror_field(id, DETECT).map_err(|e| e.to_string())?.unwrap_or_default();
        let asked: Vec<String> = serde_json::from_slice(&asked).unwrap_or_default();
        let asked = asked.iter().filter_map(|n| <How as clap::ValueEnum>::from_str(n, false).ok());
        let detect = if plan.detect.is_empty() { asked.collect() } else { plan.detect.clone() };
        Following::start(self, id, &record, &detect, plan)
    }

    /// What others may see of this process.
    fn report(self: &Arc<Agent>) {
        let agent = Arc::downgrade(self);
        self.node.report(Box::new(move || {
            let Some(a) = agent.upgrade() else { return NodeReport::default() };
            let refusal = |(id, why): (&JobId, &String)| Refusal { job: id.to_string(), why: why.clone() };
            let refused = lock(&a.refused).iter().map(refusal).collect();
            NodeReport {
                worker: a.node.worker().to_owned(),
                node: a.node.name().to_owned(),
                kind: "agent".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                started_ms: a.started_ms,
                seen_ms: Control::now_ms(),
                refused,
                ..NodeReport::default()
            }
        }));
    }
}

/// What detectors of one mirror have heard and nobody has sent.
#[derive(Default)]
struct Basket {
    said: Vec<Said>,
    /// When something was last heard.
    heard: Option<Instant>,
    /// The keeper's clock.
    ticks: Ticks,
    /// For each detector, the latest tick up to which it has told all.
    told: Vec<Option<Read>>,
    /// Detectors that take down what there is before anything may be walked.
    behind: usize,
}

struct Shared {
    basket: Mutex<Basket>,
    news: Condvar,
    over: AtomicBool,
    /// Another process will go on where this one ends.
    rests: AtomicBool,
    /// Nothing more is said.
    all_said: AtomicBool,
    /// A detector hears nothing any more.
    deaf: AtomicBool,
}

/// A mirror whose source is being watched.
struct Following {
    shared: Arc<Shared>,
    listening: Vec<JoinHandle<Option<Rest>>>,
    reading: Option<JoinHandle<()>>,
    /// Says its life and the number of its last message, if that went to the broker.
    sending: Option<JoinHandle<Option<(u64, u64)>>>,
    wakers: Vec<Waker>,
    /// What was asked for, as [`JobRecord::created_ms`].
    wish: u64,
}

impl Basket {
    /// What a detector has told.
    fn put(&mut self, n: usize, news: impl Iterator<Item = Heard>) {
        for heard in news {
            if !matches!(heard, Heard::UpTo(_)) {
                self.heard = Some(Instant::now());
            }
            match heard {
                Heard::Hint(Hint { path, what }) => self.said.push(match what {
                    What::Changed => Said::Path(path, Sign::Now),
                    What::Open => Said::Path(path, Sign::Open),
                    What::Attributes => Said::Path(path, Sign::Attributes),
                    What::Names => Said::Path(path, Sign::Names),
                    What::Tree => Said::Path(path, Sign::Tree),
                    What::Moved { from, dir } => Said::Moved(from, path, dir),
                }),
                Heard::Lost(why) => self.said.push(Said::Lost(why)),
                Heard::UpTo(moment) => {
                    // all that had happened when that was read
                    let tick = self.ticks.at(moment);
                    if let Some(t) = self.told.get_mut(n).filter(|_| tick.is_some()) {
                        *t = tick;
                    }
                    if let Some(least) = self.told_by_all() {
                        self.ticks.forget_before(least);
                    }
                }
            }
        }
    }

    /// The latest tick up to which all of them have.
    fn told_by_all(&self) -> Option<Read> {
        self.told.iter().copied().min_by_key(|r| r.map(|r| r.number)).flatten()
    }
}

impl Following {
    fn start(
        agent: &Arc<Agent>,
        id: JobId,
        r: &JobRecord,
        detect: &[How],
        plan: &Plan,
    ) -> Result<Following, String> {
        let filter = Arc::new(Filter::new(&r.spec.rules).map_err(|e| e.to_string())?);
        let excluded = || {
            let filter = Arc::clone(&filter);
            Box::new(move |dir: &RelPath, name: &CStr, is_dir: bool| {
                !filter.is_empty() && filter.excludes_deep(&dir.child(name), is_dir)
            }) as treeferry_event::Excluded
        };
        let polling = Polling::every(plan.poll_every);
        let ring = plan.ring.as_deref();
        let place = plan.dir.as_ref().map(|dir| left::path(dir, &agent.name, id));
        let left = place.as_deref().and_then(|path| Left::read(path, r.created_ms, detect));
        let rest = left.as_ref().map(|l| &l.rest);
        let means = Means { root: &r.spec.src, excluded: &excluded, polling, ring, zero: false, rest };
        let opened = detect::open_at(detect, means, || Box::new(std::io::empty()));
        let opened = opened.map_err(|e| e.to_string())?;
        // once: what is said from now on has numbers of its own
        let is_used_up = place.as_deref().is_some_and(Left::use_up);
        let (detectors, left) = (opened.all, left.filter(|_| opened.goes_on && is_used_up));
        let spool = Spool::new(&plan.spool, id, plan.spool_bytes);
        let behind = detectors.iter().filter(|d| d.needs_head_start()).count();
        let basket = Basket { told: vec![None; detectors.len()], behind, ..Basket::default() };
        let shared = Arc::new(Shared {
            basket: Mutex::new(basket),
            news: Condvar::new(),
            over: AtomicBool::new(false),
            rests: AtomicBool::new(false),
            all_said: AtomicBool::new(false),
            deaf: AtomicBool::new(false),
        });
        let wakers = detectors.iter().map(|d| d.waker()).collect();
        let names: Vec<_> = detectors.iter().map(|d| d.name()).collect();
        tracing::info!(mirror = %id, detectors = names.join(","), resumed = left.is_some(), "mirror followed");
        let mut f = Following {
            shared: Arc::clone(&shared),
            listening: Vec::new(),
            reading: None,
            sending: None,
            wakers,
            wish: r.created_ms,
        };
        let thread = |name: &str| std::thread::Builder::new().name(format!("tf-{name}"));
        let failed = |e: std::io::Error| e.to_string();
        for (n, d) in detectors.into_iter().enumerate() {
            let (name, shared) = (d.name(), Arc::clone(&shared));
            f.listening.push(thread(name).spawn(move || listen(d, n, &shared)).map_err(failed)?);
        }
        let (a, s) = (Arc::clone(agent), Arc::clone(&shared));
        f.reading = Some(thread("ticks").spawn(move || read_ticks(&a.node, id, &s)).map_err(failed)?);
        let post = Sending {
            agent: Arc::clone(agent),
            wish: r.created_ms,
            // where it is not known what happened before, a life begins
            life: left.as_ref().map_or_else(|| RandomState::new().hash_one(id), |l| l.life),
            line: mirrors::line(id),
            shared,
            spool,
            number: left.map_or(0, |l| l.number),
            told: 0,
            missed: None,
        };
        f.sending = Some(thread("sending").spawn(move || post.run()).map_err(failed)?);
        Ok(f)
    }

    fn is_over(&self) -> bool {
        self.shared.deaf.load(Acquire)
    }

    /// Ends it soon, with what the next agent needs to go on.
    fn rest_soon(&self) {
        self.shared.rests.store(true, Release);
        self.end();
    }

    fn end(&self) {
        self.shared.over.store(true, Release);
        self.wakers.iter().for_each(Waker::wake);
    }

    /// Ends it. What is left for the next agent, if it is to rest and that can go on.
    fn stop(self) -> Option<Left> {
        self.end();
        let rest = detect::join(self.listening);
        self.reading.into_iter().for_each(|t| drop(t.join()));
        self.shared.all_said.store(true, Release);
        self.shared.news.notify_all();
        let last = self.sending.and_then(|t| t.join().ok()).flatten();
        let (life, number) = last?;
        Some(Left { wish: self.wish, life, number, rest: rest? })
    }
}

/// Puts what a detector tells into the basket. Where it stops, if another can go on there.
fn listen(mut detector: Box<dyn Detector>, n: usize, s: &Shared) -> Option<Rest> {
    let mut news = Vec::new();
    let mut behind = detector.needs_head_start();
    while !s.over.load(Acquire) {
        let r = detector.read(PATIENCE, &mut |n| news.push(n));
        let mut basket = lock(&s.basket);
        let told = news.iter().any(|n| matches!(n, Heard::UpTo(_)));
        if told && std::mem::take(&mut behind) {
            basket.behind -= 1;
        }
        basket.put(n, news.drain(..));
        if let Err(e) = r {
            tracing::error!("changes are not detected any more: {}: {e}", detector.name());
            basket.said.push(Said::Lost(e.to_string()));
            s.deaf.store(true, Release);
            s.news.notify_all();
            return None;
        }
        drop(basket);
        s.news.notify_all();
    }
    if !s.rests.load(Acquire) {
        return None;
    }
    let rest = detector.rest(&mut |n| news.push(n));
    lock(&s.basket).put(n, news.drain(..));
    rest.unwrap_or_else(|e| {
        tracing::info!("all has to be walked when this agent is started again: {}: {e}", detector.name());
        None
    })
}

/// Reads the keeper's clock.
fn read_ticks(node: &Node, id: JobId, s: &Shared) {
    while !s.over.load(Acquire) {
        if let Ok(Some(tick)) = node.mirror_field(id, TICK) {
            // what cannot be read is written anew in a moment
            if let Some(tick) = std::str::from_utf8(&tick).ok().and_then(|t| t.parse().ok()) {
                lock(&s.basket).ticks.put(Instant::now(), tick);
            }
        }
        let calm = lock(&s.basket).heard.is_none_or(|at| at.elapsed() > CALM);
        std::thread::sleep(if calm { TICKS.1 } else { TICKS.0 });
    }
}

/// Sends what is in the basket of a mirror.
struct Sending {
    agent: Arc<Agent>,
    wish: u64,
    life: u64,
    line: String,
    shared: Arc<Shared>,
    spool: Spool,
    number: u64,
    /// The number of the last tick that was told.
    told: u64,
    /// Why nothing can be kept for the broker: until it takes something again all is missed, and that is said once.
    missed: Option<String>,
}

impl Sending {
    /// Its life and the number of its last message; `None`: not all went to the broker.
    fn run(mut self) -> Option<(u64, u64)> {
        loop {
            let over = self.shared.all_said.load(Acquire);
            let mut basket = lock(&self.shared.basket);
            let news = basket.told_by_all().is_some_and(|r| r.number > self.told);
            if basket.said.is_empty() && !news && !over {
                basket =
                    self.shared.news.wait_timeout(basket, PATIENCE).unwrap_or_else(PoisonError::into_inner).0;
            }
            if basket.behind > 0 && !over {
                // once it is heard of, whoever keeps the mirror may walk
                drop(basket);
                std::thread::sleep(TICKS.0);
                continue;
            }
            let said = std::mem::take(&mut basket.said);
            let told = basket.told_by_all();
            drop(basket);
            self.send(said, told);
            self.unspool();
            if over {
                // what is on its way to the broker has a moment; what is not is missed by its number
                let is_all = self.spool.is_empty() && self.missed.is_none();
                return is_all.then_some((self.life, self.number));
            }
        }
    }

    fn send(&mut self, mut said: Vec<Said>, told: Option<Read>) {
        while said.len() > MOST_SAID {
            let rest = said.split_off(MOST_SAID);
            self.send_one(said, None);
            said = rest;
        }
        let busy =
            self.missed.is_some() || !self.spool.is_empty() || self.agent.outgoing.unsent() > SOME_UNSENT;
        let new = told.is_some_and(|r| r.number > self.told) && !busy;
        if !said.is_empty() || new {
            self.told = told.map_or(self.told, |r| r.number);
            self.send_one(said, told.map(|r| r.tick));
        }
    }

    fn send_one(&mut self, said: Vec<Said>, told: Option<Tick>) {
        if self.missed.is_some() {
            return;
        }
        let lasts = !said.is_empty();
        self.number += u64::from(lasts);
        let (agent, life) = (self.agent.name.clone(), self.life);
        let (wish, number) = (self.wish, self.number);
        let news = News::Signs { agent, wish, life, number, said, told };
        let body = wire::encode(MessageKind::MirrorNews, &news);
        if self.spool.is_empty() && self.agent.outgoing.unsent() < MOST_UNSENT {
            drop(self.agent.outgoing.send(&self.line, body, lasts));
            return;
        }
        // in order: once something is in the spool all goes there
        if let Err(e) = self.spool.put(&body) {
            tracing::warn!(
                "the broker is away, and what changes cannot be kept for it: {e}; when it is back, all is looked at"
            );
            self.spool.clear();
            self.missed = Some(e.to_string());
        }
    }

    fn unspool(&mut self) {
        if self.agent.outgoing.unsent() < MOST_UNSENT / 2
            && let Some(why) = self.missed.take()
        {
            self.send_one(vec![Said::Lost(format!("the broker was away: {why}"))], None);
        }
        while !self.spool.is_empty() && self.agent.outgoing.unsent() < MOST_UNSENT / 2 {
            match self.spool.take() {
                Ok(Some(body)) => drop(self.agent.outgoing.send(&self.line, body, true)),
                Ok(None) => {}
                // it is missed by its number
                Err(e) => {
                    tracing::error!("what was kept for the broker cannot be read: {e}");
                    self.spool.clear();
                }
            }
        }
    }
}
