//! A worker's part in the mirrors of the cluster: it takes what is to be looked at from a line, looks, with threads and an
//! embedded engine for each mirror, and tells whoever keeps the mirror what it has found.
//!
//! An errand is acknowledged when it is done, so one that is being worked on by a process that dies is somebody else's
//! next. If its end gets lost, whoever keeps the mirror misses it, and sends the errand again. Nothing is lost by that:
//! whoever looks makes the target what the source is then.

mod names;
mod voice;

use crate::events::{self, Teller};
use crate::links::linker;
pub use names::Book;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use treeferry_core::event::EventKind;
use treeferry_core::wire::{self, MessageKind};
use treeferry_core::{Counters, Event, JobId, NewTask, Stop, Work};
use treeferry_fs::Limits;
use treeferry_mirror::{Errand, Finding};
use treeferry_queue::mirrors::{self, Letter, Outgoing, Taker};
use treeferry_queue::{Engine, Node, NodeReport, Refusal, RunningTask};
use treeferry_worker::{Context, Job, Member, Pool, PoolSize};
use voice::{Doing, Ear, Hands, Held, Told};
pub use voice::{Voice, Walker};

/// How long an errand is waited for before it is looked around.
const PATIENCE: Duration = Duration::from_millis(100);
/// Between two times that what takes long is told, and what was counted.
const TELL: Duration = Duration::from_secs(1);
/// A mirror that could not be opened here is tried again after this.
const OPEN_AGAIN: Duration = Duration::from_secs(5);
/// Errands that are here at once, for each thread: until the broker has heard of the end of one, there are others.
const AHEAD: usize = 4;
/// Whether a mirror is still one, and of the same wish, is asked so often.
const ASK: Duration = Duration::from_secs(10);

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A mirror that is open on this node.
struct Open {
    engine: Engine,
    pool: Option<Pool>,
    hands: Arc<Hands>,
    job: Arc<Job>,
    told: Counters,
    /// As in [`Errand`].
    wish: u64,
}

impl Open {
    fn end(mut self) {
        self.job.stop();
        self.engine.cancel();
        self.pool.take().into_iter().for_each(Pool::join);
    }

    /// The same where this process goes on. (Errands that were kept here would count among those that it has at a time, for as
    /// long as it lives.) If `wish` is still wanted, those that were cut short go back to the broker, also those of a keeper
    /// that is gone, for what was begun has left its mark on the times of directories; else whoever wants something else walks
    /// everything after this.
    fn end_of(self, wish_is_wanted: bool, outgoing: &Outgoing) {
        let hands = Arc::clone(&self.hands);
        self.end();
        for (_, d) in std::mem::take(&mut *lock(&hands.doing)) {
            match d.errand {
                errand if !wish_is_wanted => errand.done(),
                Held::Letter(letter) => letter.give_back(),
                Held::Acknowledged(body) => drop(outgoing.send(mirrors::LOOKS, body, false)),
            }
        }
    }
}

/// The thread that takes errands.
pub struct Looks {
    thread: JoinHandle<()>,
    over: Arc<AtomicBool>,
    asked: Arc<Asked>,
    seen: Arc<Mutex<Seen>>,
}

/// What others may see.
#[derive(Default)]
struct Seen {
    /// Mirrors that are not looked after here, and why.
    refused: BTreeMap<JobId, String>,
    /// Those that are open here, each with its wish; see [`NodeReport::mirrors`].
    wishes: BTreeMap<JobId, u64>,
    /// What is being done for them, as of the last second.
    tasks: Vec<RunningTask>,
}

/// What is asked of the thread.
struct Asked {
    paused: AtomicBool,
    /// Threads of each mirror.
    threads: AtomicUsize,
}

impl Looks {
    /// Starts it; each mirror gets so many threads.
    pub fn start(node: &Arc<Node>, threads: usize) -> std::io::Result<Looks> {
        let (over, seen): (Arc<AtomicBool>, Arc<Mutex<Seen>>) = Default::default();
        let asked = Arc::new(Asked { paused: AtomicBool::new(false), threads: AtomicUsize::new(threads) });
        let mut service = Service {
            node: Arc::clone(node),
            outgoing: Arc::new(node.outgoing()),
            threads,
            acknowledge_after: node.acknowledge_after(),
            mirrors: HashMap::new(),
            next: AtomicU64::new(1),
            over: Arc::clone(&over),
            asked: Arc::clone(&asked),
            seen: Arc::clone(&seen),
        };
        let thread = std::thread::Builder::new().name("tf-looks".to_owned()).spawn(move || service.run())?;
        Ok(Looks { thread, over, asked, seen })
    }

    /// Takes no more errands while this is set; what is begun is finished, and what only waits here is for others.
    pub fn pause(&self, paused: bool) {
        self.asked.paused.store(paused, Relaxed);
    }

    /// Changes the number of threads that each mirror has.
    pub fn resize(&self, threads: usize) {
        self.asked.threads.store(threads.max(1), Relaxed);
    }

    /// Adds what is done for mirrors to what a daemon says of itself.
    pub fn report(&self) -> impl Fn(&mut NodeReport) + Send + Sync + use<> {
        let seen = Arc::clone(&self.seen);
        move |r| {
            let seen = lock(&seen);
            let refusal = |(id, why): (&JobId, &String)| Refusal { job: id.to_string(), why: why.clone() };
            r.refused.extend(seen.refused.iter().map(refusal));
            r.mirrors = seen.wishes.iter().map(|(id, wish)| (id.to_string(), *wish)).collect();
            // each mirror has as many threads as the pool, and they seldom all run
            r.busy = (r.busy + seen.tasks.len()).min(r.pool);
            r.tasks.extend(seen.tasks.iter().cloned());
        }
    }

    /// Ends it: what is under way is cut short, and done by others.
    pub fn stop(self) {
        self.over.store(true, Relaxed);
        let _ = self.thread.join();
    }
}

struct Service {
    node: Arc<Node>,
    outgoing: Arc<Outgoing>,
    threads: usize,
    /// What takes longer is acknowledged before its end.
    acknowledge_after: Duration,
    mirrors: HashMap<JobId, (Instant, Result<Open, String>)>,
    next: AtomicU64,
    over: Arc<AtomicBool>,
    asked: Arc<Asked>,
    seen: Arc<Mutex<Seen>>,
}

impl Service {
    fn run(&mut self) {
        let mut inbox = None;
        let (mut told, mut asked) = (Instant::now(), Instant::now());
        while !self.over.load(Relaxed) {
            if self.resize() {
                // for more at a time; what is being done is given to somebody again, who finds it done
                inbox = None;
            }
            if self.asked.paused.load(Relaxed) {
                // without it the broker gives to others what waits here, and again what is being done
                if !self.is_busy() {
                    inbox = None;
                }
                std::thread::sleep(PATIENCE);
            } else {
                let prefetch = u16::try_from(AHEAD * self.threads).unwrap_or(u16::MAX);
                let inbox =
                    inbox.get_or_insert_with(|| self.node.inbox(mirrors::LOOKS, Taker::OneOf(prefetch)));
                if let Some(letter) = inbox.next(PATIENCE) {
                    self.take(letter);
                }
            }
            if told.elapsed() >= TELL {
                told = Instant::now();
                self.tell();
            }
            if asked.elapsed() >= ASK {
                asked = Instant::now();
                self.forget();
            }
        }
        drop(inbox);
        self.mirrors.drain().filter_map(|(_, (_, m))| m.ok()).for_each(Open::end);
    }

    /// Has as many threads as are asked for, and returns whether there are more than before.
    fn resize(&mut self) -> bool {
        let threads = self.asked.threads.load(Relaxed);
        let before = std::mem::replace(&mut self.threads, threads);
        if threads != before {
            let open = self.mirrors.values().filter_map(|(_, m)| m.as_ref().ok());
            let pools = open.filter_map(|open| open.pool.as_ref());
            pools.for_each(|p| p.resize(PoolSize::Fixed(threads)));
        }
        threads > before
    }

    fn is_busy(&self) -> bool {
        self.mirrors.values().any(|(_, m)| m.as_ref().is_ok_and(|open| !lock(&open.hands.doing).is_empty()))
    }

    fn take(&mut self, letter: Letter) {
        let errand = match wire::decode::<Errand>(MessageKind::MirrorErrand, &letter.body) {
            Ok(e) => e,
            Err(e) => {
                // whoever keeps the mirror asks again
                tracing::warn!("an errand of a mirror that cannot be read is left out: {e}");
                return letter.done();
            }
        };
        let stale = |(at, m): &(Instant, Result<Open, String>)| match m {
            // what was unmounted and is mounted again is another mount, and on one that is gone nothing is deleted
            Ok(open) => open.wish < errand.wish || open.job.lost_a_root(),
            Err(_) => at.elapsed() > OPEN_AGAIN,
        };
        if self.mirrors.get(&errand.mirror).is_none_or(stale) {
            if let Some((_, Ok(old))) = self.mirrors.remove(&errand.mirror) {
                let is_wanted = old.wish >= errand.wish;
                old.end_of(is_wanted, &self.outgoing);
            }
            // while it is being opened nobody can say by which wish
            lock(&self.seen).wishes.insert(errand.mirror, 0);
            let opened = self.open(errand.mirror);
            match &opened {
                Ok(open) => drop(lock(&self.seen).wishes.insert(errand.mirror, open.wish)),
                Err(_) => drop(lock(&self.seen).wishes.remove(&errand.mirror)),
            }
            let mut seen = lock(&self.seen);
            match &opened {
                Ok(_) => drop(seen.refused.remove(&errand.mirror)),
                Err(why) => {
                    if seen.refused.insert(errand.mirror, why.clone()).as_ref() != Some(why) {
                        tracing::error!("mirror {} is refused on this node: {why}", errand.mirror);
                        let refused = Event::new(EventKind::JobRefused).text(why.clone()).of(errand.mirror);
                        events::put(self.node.outbox(), refused);
                    }
                }
            }
            drop(seen);
            self.mirrors.insert(errand.mirror, (Instant::now(), opened));
        }
        let Some((_, Ok(open))) = self.mirrors.get(&errand.mirror) else {
            return self.cannot(&errand, letter);
        };
        if errand.wish < open.wish {
            // who wants something else now walks everything
            return letter.done();
        }
        let ours = self.next.fetch_add(1, Relaxed);
        let Errand { life, ticket, names_are_known, work, .. } = errand;
        let work = match work {
            Work::Look { dir, names, .. } => Work::Look { dir, names, ticket: ours },
            Work::Move { from, to, .. } => Work::Move { from, to, ticket: ours },
            Work::Names { dir, .. } => Work::Names { dir, ticket: ours },
            _ => return letter.done(),
        };
        open.hands.known.store(names_are_known, Relaxed);
        let doing = Doing { life, ticket, errand: Held::Letter(letter), since: Instant::now() };
        lock(&open.hands.doing).insert(ours, doing);
        open.engine.begin(NewTask::new(None, work));
    }

    /// An errand that nobody here can do is whoever keeps the mirror's again, who sends it to somebody else. At the broker
    /// it would be in the way of all that come after it.
    fn cannot(&self, errand: &Errand, letter: Letter) {
        let Errand { life, ticket, .. } = *errand;
        // who keeps a mirror that the ledger does not have, if anybody does, will send it again by himself
        if !matches!(self.node.mirror_wish(errand.mirror), Ok(None)) {
            let voice = Voice::new(&self.node, &self.outgoing, errand.mirror);
            drop(voice.say(vec![Finding::Refused { life, ticket }], false));
        }
        letter.done();
    }

    fn open(&self, id: JobId) -> Result<Open, String> {
        let record =
            self.node.mirror(id).map_err(|e| e.to_string())?.ok_or("the ledger has no such mirror")?;
        let limits = Limits::from_text(&record.limits).ok_or("the ledger has a strange word on DST")?;
        let wish = record.created_ms;
        let began = Duration::from_millis(wish);
        let member = Member { made_target: record.made_target, roots: record.roots, limits, began };
        let stop = Stop::default();
        let job = Job::join(record.spec, stop.clone(), &member).map_err(|e| e.to_string())?;
        let hands = Arc::new(Hands {
            voice: Voice::new(&self.node, &self.outgoing, id),
            doing: Mutex::default(),
            known: AtomicBool::new(false),
            stop,
        });
        job.mirror_for(Box::new(Ear(Arc::clone(&hands))), Box::new(Book(self.node.names_of_mirror(id))));
        let engine = Engine::memory();
        engine.keep_open();
        let teller = Teller::new(self.node.outbox(), id, job.spec());
        let reporter = Arc::new(Told { hands: Arc::clone(&hands), mirror: id, teller });
        let (e, links, j) = (engine.clone(), linker(&job), Arc::clone(&job));
        let context = Context { engine: e, links, job: j, reporter, follows: true };
        let pool = Pool::of(context, PoolSize::Fixed(self.threads));
        Ok(Open { engine, pool: Some(pool), hands, job, told: Counters::default(), wish })
    }

    /// Tells of errands that take long, so that nobody else is sent, and what was counted.
    fn tell(&mut self) {
        let mut tasks = Vec::new();
        for (id, (_, m)) in &mut self.mirrors {
            let Ok(open) = m else { continue };
            tasks.extend(open.pool.iter().flat_map(|p| p.running(*id)));
            let mut found = Vec::new();
            let mut long: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
            for d in lock(&open.hands.doing).values_mut().filter(|d| d.since.elapsed() > TELL) {
                long.entry(d.life).or_default().push(d.ticket);
                if d.since.elapsed() > self.acknowledge_after {
                    // before the broker takes us for dead: whoever keeps the mirror sends it again if we fall silent
                    d.errand.acknowledge();
                }
            }
            found.extend(long.into_iter().map(|(life, tickets)| Finding::Busy { life, tickets }));
            let counted = open.engine.status().counters;
            if counted != open.told {
                open.told = counted.clone();
                found.push(Finding::Counted(Box::new(counted)));
            }
            if !found.is_empty() {
                drop(open.hands.voice.say(found, false));
            }
        }
        lock(&self.seen).tasks = tasks;
    }

    /// Closes mirrors that are not kept any more, or for which something else is asked now: if all that is here is of the old
    /// wish, no errand comes that would tell of the new one.
    fn forget(&mut self) {
        // while the ledger is away they stay
        let Ok(all) = self.node.mirrors_now() else { return };
        let is_old = |open: &Open, id: JobId| {
            self.node.mirror_wish(id).is_ok_and(|w| w.is_some_and(|w| w > open.wish))
        };
        let gone = self.mirrors.iter().filter_map(|(id, (_, m))| {
            let is_wanted = !m.as_ref().is_ok_and(|open| is_old(open, *id));
            (!is_wanted || !all.contains(id)).then_some((*id, is_wanted))
        });
        let gone: Vec<(JobId, bool)> = gone.collect();
        for (id, is_wanted) in gone {
            lock(&self.seen).refused.remove(&id);
            if let Some((_, Ok(open))) = self.mirrors.remove(&id) {
                open.end_of(is_wanted, &self.outgoing);
            }
            lock(&self.seen).wishes.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
