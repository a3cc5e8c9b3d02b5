//! A mirror that an agent follows: its detectors, each with a thread, who reads the keeper's clock, and who sends.

use super::basket::Basket;
use super::left::{self, Left};
use super::sending::Sending;
use super::spool::Spool;
use super::{Agent, Plan, lock};
use crate::watching::detect::{self, How, Means};
use crate::watching::far::TICK;
use std::ffi::CStr;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use treeferry_core::filter::Filter;
use treeferry_core::{JobId, RelPath};
use treeferry_event::{Detector, News as Heard, Polling, Rest, Waker};
use treeferry_mirror::Said;
use treeferry_queue::mirrors;
use treeferry_queue::{JobRecord, Node};

/// How long a detector waits for something.
pub const PATIENCE: Duration = Duration::from_millis(100);
/// How often the keeper's clock is read while something is heard, and after [`CALM`] without.
pub const TICKS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(150));
const CALM: Duration = Duration::from_secs(2);

/// Between those who hear, who reads the clock and who sends.
pub struct Shared {
    pub basket: Mutex<Basket>,
    pub news: Condvar,
    pub over: AtomicBool,
    /// Another process will go on where this one ends.
    pub rests: AtomicBool,
    /// Nothing more is said.
    pub all_said: AtomicBool,
    /// A detector hears nothing any more.
    pub deaf: AtomicBool,
}

/// A mirror whose source is being watched.
pub struct Following {
    shared: Arc<Shared>,
    listening: Vec<JoinHandle<Option<Rest>>>,
    reading: Option<JoinHandle<()>>,
    /// Says its life and the number of its last message, if that went to the broker.
    sending: Option<JoinHandle<Option<(u64, u64)>>>,
    wakers: Vec<Waker>,
    /// What was asked for, as [`JobRecord::created_ms`].
    pub wish: u64,
}

impl Following {
    pub fn start(
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

    pub fn is_over(&self) -> bool {
        self.shared.deaf.load(Acquire)
    }

    /// Ends it soon, with what the next agent needs to go on.
    pub fn rest_soon(&self) {
        self.shared.rests.store(true, Release);
        self.end();
    }

    fn end(&self) {
        self.shared.over.store(true, Release);
        self.wakers.iter().for_each(Waker::wake);
    }

    /// Ends it. What is left for the next agent, if it is to rest and that can go on.
    pub fn stop(self) -> Option<Left> {
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
