//! This process's place in the cluster: its connections, what runs beside the worker threads, and the synchronous
//! face of it all. Threads that do file work wait for the kernel; what waits for peers is asynchronous, in here.

use super::bundle::{Bundle, Lane};
use super::events::{self, Telling};
use super::pulse::pulse;
use super::reaper::reap;
use super::record::{JobRecord, Site, SiteError};
use super::report::{CONTROL, JobNow, NodeReport, Wanted, field, has_too_much};
use super::states::States;
use crate::engine::Status;
use crate::rabbitmq::{Arrival, Broker, Depth, Door, Errand, Slip};
use crate::redis::{Ledger, LedgerError, now_ms, prefix};
use redis::AsyncCommands;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use treeferry_core::event::Outbox;
use treeferry_core::job::JobState;
use treeferry_core::wire::{self, MessageKind};
use treeferry_core::{Change, Counters, Failure, JobId, NewTask, Notice, TaskId};

/// A task that no worker so far could run is offered again after this (ms).
const DECLINED_MS: u64 = 3000;
/// In the outbox, a time that never comes: the task waits until its job is resumed.
pub(super) const SHELVED_MS: u64 = 1_000_000_000_000_000;

/// Whoever ends waits no longer for the ledger to forget what it was told.
const FORGET_WITHIN: Duration = Duration::from_secs(2);

/// Says what a daemon is doing.
pub type Reporting = Box<dyn Fn() -> NodeReport + Send + Sync>;

/// This process in the cluster.
pub struct Node {
    pub(super) rt: Runtime,
    pub(super) shared: Arc<Shared>,
    arrivals: tokio::sync::Mutex<mpsc::UnboundedReceiver<Arrival>>,
    door: Door,
    /// Those that it listens to.
    lanes: Mutex<Vec<Lane>>,
}

/// A message that nobody has begun to work on.
pub struct Offer {
    node: Arc<Node>,
    arrival: Arrival,
}

impl Offer {
    /// Of which job it is.
    pub fn job(&self) -> JobId {
        self.arrival.errand.job
    }

    /// Begins it: a seat that works it off and is then over.
    pub fn begin(self) -> crate::Seat {
        crate::Seat::of_message(self.node, self.arrival)
    }

    /// Leaves it to others.
    pub fn decline(self) {
        self.node.clone().decline(self.arrival);
    }
}

pub(super) struct Shared {
    /// NAME-PID.
    pub name: String,
    /// NAME.
    pub node: String,
    pub ledger: Ledger,
    pub broker: Broker,
    /// Of the broker.
    pub url: String,
    /// From a place drawn at random, so that no two processes meet.
    pub next_token: AtomicU64,
    pub idle: AtomicUsize,
    /// It takes messages of the lanes in which there is work for any idle thread.
    pub shares: AtomicBool,
    /// What could be given away, as the seats see it: see [`Node::weigh`].
    pub weight: AtomicU64,
    /// Bundles that this process was last asked to give away.
    pub asked: AtomicUsize,
    /// Something for the next pulse, which is not to wait: a thread has become idle, a job is new here.
    pub news: tokio::sync::Notify,
    pub states: Mutex<States>,
    /// Failures that were read, of jobs that somebody here waits for.
    pub failures: Mutex<HashMap<JobId, Vec<Failure>>>,
    pub jobs: Mutex<Vec<JobNow>>,
    pub wanted: Mutex<Wanted>,
    pub report: Mutex<Option<Reporting>>,
    pub held: Mutex<BTreeMap<(JobId, TaskId), HeldMessage>>,
    pub gone: AtomicBool,
    pub posting: AtomicUsize,
    pub telling: Telling,
    pub acknowledge_after: Duration,
    /// It is this process that looks after lost tasks.
    pub leads: AtomicBool,
    /// The queues, as whoever leads last saw them.
    pub queues: Mutex<Option<(Instant, Vec<Depth>)>>,
}

/// A message that a thread works on.
pub(super) struct HeldMessage {
    pub since: Instant,
    pub slip: Slip,
    /// It was acknowledged before its time.
    pub let_go: bool,
}

pub(super) fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Fields of control that name this process and no other.
    pub fn own_orders(&self) -> Vec<String> {
        field::all_of(&self.name)
    }
}

impl Node {
    /// Connects to both; either may go away and come back later.
    /// `name`: what the node goes by; with the number of the process it becomes the name of this worker.
    pub fn connect(site: &Site, name: &str) -> Result<Arc<Node>, SiteError> {
        let rt = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("tf-cluster")
            .enable_all()
            .build()?;
        let (ledger, broker) = rt.block_on(async {
            let ledger = Ledger::connect(&site.ledger).await?;
            let broker = Broker::connect(&site.broker).await?;
            Ok::<_, SiteError>((ledger, broker))
        })?;
        let shared = Arc::new(Shared {
            name: format!("{name}-{}", std::process::id()),
            node: name.to_owned(),
            ledger,
            broker,
            url: site.broker.clone(),
            next_token: AtomicU64::new(RandomState::new().build_hasher().finish()),
            idle: AtomicUsize::new(0),
            shares: AtomicBool::new(false),
            weight: AtomicU64::new(0),
            asked: AtomicUsize::new(0),
            news: tokio::sync::Notify::new(),
            acknowledge_after: site.acknowledge_after,
            states: Mutex::default(),
            failures: Mutex::default(),
            jobs: Mutex::default(),
            wanted: Mutex::default(),
            report: Mutex::default(),
            held: Mutex::default(),
            gone: AtomicBool::new(false),
            posting: AtomicUsize::new(0),
            telling: Telling::new(),
            leads: AtomicBool::new(false),
            queues: Mutex::default(),
        });
        rt.spawn(pulse(Arc::clone(&shared)));
        rt.spawn(reap(Arc::clone(&shared)));
        let (door, arrivals) = Door::new();
        Ok(Arc::new(Node {
            rt,
            shared,
            arrivals: tokio::sync::Mutex::new(arrivals),
            door,
            lanes: Mutex::default(),
        }))
    }

    /// Begins to take messages of these lanes, at most `prefetch` of each at once; again: so many more.
    pub fn listen(&self, lanes: &[Lane], prefetch: u16) {
        self.shared.shares.store(lanes.contains(&Lane::Walk), Relaxed);
        *lock(&self.lanes) = lanes.to_vec();
        let _in = self.rt.enter();
        for lane in lanes {
            self.shared.broker.listen(*lane, prefetch, self.door.clone());
        }
    }

    /// The next message, if one comes within that time.
    pub fn next(&self, patience: Duration) -> Option<Arrival> {
        self.door.ask();
        let next = async { self.arrivals.lock().await.recv().await };
        self.rt.block_on(async {
            match tokio::time::timeout(patience, next).await {
                Ok(arrival) => arrival,
                Err(_) if self.door.withdraw() => self.take_back(),
                // it has been answered just now
                Err(_) => self.arrivals.lock().await.recv().await,
            }
        })
    }

    /// While the broker takes nothing, what was given to it and is still here is worked on by whoever has nothing else
    /// to do.
    fn take_back(&self) -> Option<Arrival> {
        match self.is_blocked() {
            true => self.shared.broker.take_back(&lock(&self.lanes)),
            false => None,
        }
    }

    /// The next message, unbegun. `None`: none came in that time.
    pub fn next_offer(self: &Arc<Node>, patience: Duration) -> Option<Offer> {
        self.idle(true);
        let arrival = self.next(patience);
        self.idle(false);
        arrival.map(|arrival| Offer { node: Arc::clone(self), arrival })
    }

    /// Whether a job is running, as of the last pulse.
    pub fn is_running(&self, job: JobId) -> bool {
        self.state(job) == Some(JobState::Running)
    }

    /// Whether the ledger had a job among those that run, as of the last pulse. Of one that has ended others may hear.
    pub fn is_listed(&self, job: JobId) -> bool {
        lock(&self.shared.jobs).iter().any(|j| j.id == job)
    }

    /// Registers a job and gives it its first task.
    pub fn create_job(&self, job: JobId, record: &JobRecord, first: NewTask) {
        self.create(job, &record.fields(), vec![Bundle::of(first)]);
    }

    /// A number that nobody has drawn or will draw.
    pub(super) fn draw_token(&self) -> u64 {
        self.shared.next_token.fetch_add(1, Relaxed)
    }

    /// After so long a message is acknowledged before what it asks for is done; see [`Site`].
    pub fn acknowledge_after(&self) -> Duration {
        self.shared.acknowledge_after
    }

    /// NAME-PID, which no other process has.
    pub fn worker(&self) -> &str {
        &self.shared.name
    }

    /// The name of the node.
    #[expect(clippy::misnamed_getters, reason = "the name of a worker and that of its node are two things")]
    pub fn name(&self) -> &str {
        &self.shared.node
    }

    /// From now on events of this process are written to the stream of the cluster, which holds `most` of them; `room`
    /// may wait here. `host`: the machine.
    pub fn tell(&self, host: &str, room: usize, most: u64) {
        self.shared.telling.outbox.set_room(room);
        self.rt.spawn(events::write(Arc::clone(&self.shared), host.to_owned(), most.max(1)));
    }

    /// Where events are put; see [`Node::tell`].
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.shared.telling.outbox
    }

    /// From now on others can see what this process is doing.
    pub fn report(&self, f: Reporting) {
        *lock(&self.shared.report) = Some(f);
    }

    /// What this process is told, as of the last pulse.
    pub fn wanted(&self) -> Wanted {
        *lock(&self.shared.wanted)
    }

    /// Messages that this process has and has not settled.
    pub fn unacked(&self) -> BTreeMap<String, u64> {
        self.shared.broker.unacked()
    }

    /// This process ends: what it alone was told is not for the next of its name. If the ledger does not answer at once it
    /// is forgotten at the start of that.
    pub fn forget_orders(&self) {
        let (mut c, orders) = (self.shared.ledger.conn(), self.shared.own_orders());
        let forget = async { c.hdel::<_, _, ()>(CONTROL, orders).await };
        let _ = self.rt.block_on(async { tokio::time::timeout(FORGET_WITHIN, forget).await });
    }

    /// Whether a job is paused, as of the last pulse.
    pub fn is_paused(&self, job: JobId) -> bool {
        lock(&self.shared.jobs).iter().any(|j| j.id == job && j.paused)
    }

    /// Whether a job should leave threads to others that have none.
    pub(super) fn has_too_much(&self, job: JobId) -> bool {
        has_too_much(job, &lock(&self.shared.jobs))
    }

    /// Keeps a task of a paused job in the ledger until it is resumed, and has the broker forget it.
    pub(super) fn shelve(&self, arrival: Arrival) {
        self.put_off(arrival, SHELVED_MS);
    }

    fn put_off(&self, arrival: Arrival, until_ms: u64) {
        let Errand { job, task } = arrival.errand;
        let p = prefix(job);
        let kept = self.rt.block_on(self.shared.ledger.stubborn(|mut c| {
            let p = p.clone();
            async move {
                if c.hexists(format!("{p}open"), task.0).await? {
                    c.zadd::<_, _, _, ()>(format!("{p}outbox"), task.0, until_ms).await?;
                }
                c.exists::<_, bool>(format!("{p}job")).await
            }
        }));
        match kept {
            Ok(true) => self.ack(arrival, job, Vec::new()),
            Ok(false) => {
                let shared = Arc::clone(&self.shared);
                self.rt.spawn(async move {
                    let why = "it names a job that the ledger does not have";
                    if shared.broker.bury(arrival.errand, why).await {
                        arrival.slip.ack().await;
                    }
                });
            }
            Err(_) => self.refuse(arrival),
        }
    }

    /// What was asked for; `None`: there is no such job.
    pub fn record(&self, job: JobId) -> Result<Option<JobRecord>, LedgerError> {
        let key = format!("{}job", prefix(job));
        let fields = self.rt.block_on(self.shared.ledger.stubborn(|mut c| {
            let key = key.clone();
            async move { c.hgetall::<_, HashMap<String, Vec<u8>>>(key).await }
        }));
        Ok(JobRecord::read(&fields?))
    }

    /// What is to be said of a job, once for each kind.
    pub fn notices(&self, job: JobId) -> Vec<Notice> {
        let key = format!("{}notices", prefix(job));
        let names = self.rt.block_on(self.shared.ledger.stubborn(|mut c| {
            let key = key.clone();
            async move { c.smembers::<_, Vec<String>>(key).await }
        }));
        names.unwrap_or_default().iter().filter_map(|n| Notice::from_name(n)).collect()
    }

    /// Failures of a job as the ledger has them, from the `from`th on, at most `most`. None: there are no more.
    pub fn failures(&self, job: JobId, from: usize, most: usize) -> Vec<Failure> {
        let key = format!("{}failures", prefix(job));
        let (from, to) = (from as isize, (from + most) as isize - 1);
        let some = self.rt.block_on(self.shared.ledger.stubborn(|mut c| {
            let key = key.clone();
            async move { c.lrange::<_, Vec<Vec<u8>>>(key, from, to).await }
        }));
        some.unwrap_or_default().iter().filter_map(|f| wire::decode(MessageKind::Failure, f).ok()).collect()
    }

    /// Waits a little for what is still on its way to the broker, and for events, if they can be written.
    pub fn close(&self) {
        let s = &self.shared;
        self.rt.block_on(async {
            let sent = async {
                while s.posting.load(Relaxed) > 0 || !(s.telling.is_done() || s.telling.away.load(Relaxed)) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(5), sent).await;
        });
        if !s.telling.is_done() {
            tracing::warn!("the last events of this process were not written");
        }
    }

    /// Takes changes of a job that nobody has read yet, at most `most`.
    pub fn changes(&self, job: JobId, most: usize) -> Vec<Change> {
        let key = format!("{}changes", prefix(job));
        let some = self.rt.block_on(self.shared.ledger.stubborn(|mut c| {
            let key = key.clone();
            async move { c.lpop::<_, Option<Vec<Vec<u8>>>>(key, std::num::NonZeroUsize::new(most)).await }
        }));
        let some = some.ok().flatten().unwrap_or_default();
        some.iter().filter_map(|b| wire::decode(MessageKind::Change, b).ok()).collect()
    }

    pub(super) fn create(&self, job: JobId, fields: &[(&str, Vec<u8>)], first: Vec<Bundle>) {
        let made = self.rt.block_on(self.shared.ledger.create(job, fields, &first));
        lock(&self.shared.states).put(Instant::now(), job, JobState::Running);
        if let Ok(made) = made {
            self.publish(job, made);
        }
    }

    /// Publishes new tasks, and takes them out of the outbox when the broker has them.
    pub(super) fn publish(&self, job: JobId, made: Vec<(Lane, TaskId)>) {
        if !made.is_empty() {
            let shared = Arc::clone(&self.shared);
            shared.posting.fetch_add(1, Relaxed);
            self.rt.spawn(async move {
                post_all(Arc::clone(&shared), job, made).await;
                shared.posting.fetch_sub(1, Relaxed);
            });
        }
    }

    /// Publishes new tasks and then acknowledges the message of the one that they came from.
    pub(super) fn post_and_ack(&self, job: JobId, made: Vec<(Lane, TaskId)>, slip: Slip) {
        let shared = Arc::clone(&self.shared);
        shared.posting.fetch_add(1, Relaxed);
        self.rt.spawn(async move {
            if post_all(Arc::clone(&shared), job, made).await {
                slip.ack().await;
            } else {
                // what was not published is in the outbox; the message must not stay with us, who have no use for it
                slip.give_back().await;
            }
            shared.posting.fetch_sub(1, Relaxed);
        });
    }

    pub(super) fn ack(&self, arrival: Arrival, job: JobId, made: Vec<(Lane, TaskId)>) {
        self.post_and_ack(job, made, arrival.slip);
    }

    /// Gives a message back that cannot be worked on here, unbegun: to somebody else, and when it comes back to the
    /// ledger, which has it published again after a while.
    pub(super) fn decline(&self, arrival: Arrival) {
        if !arrival.redelivered {
            self.refuse(arrival);
            return;
        }
        self.put_off(arrival, now_ms() + DECLINED_MS);
    }

    /// Gives a message back for somebody else.
    pub(super) fn refuse(&self, arrival: Arrival) {
        self.rt.spawn(async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            arrival.slip.give_back().await;
        });
    }

    pub(super) fn hold(&self, job: JobId, task: TaskId, slip: &Slip) {
        let held = HeldMessage { since: Instant::now(), slip: slip.clone(), let_go: false };
        lock(&self.shared.held).insert((job, task), held);
    }

    pub(super) fn unhold(&self, job: JobId, task: TaskId) {
        lock(&self.shared.held).remove(&(job, task));
    }

    /// The next pulse is not to wait.
    pub(super) fn ask_soon(&self) {
        self.shared.news.notify_one();
    }

    pub(super) fn idle(&self, idle: bool) {
        if idle {
            self.shared.idle.fetch_add(1, Relaxed);
            // threads that have nothing to do say so again and again
            if !lock(&self.shared.jobs).is_empty() {
                self.ask_soon();
            }
        } else {
            self.shared.idle.fetch_sub(1, Relaxed);
        }
    }

    /// Into how many bundles this process has been asked to divide what it gives away; `take`: that is done now.
    pub(super) fn asked(&self, take: bool) -> usize {
        match take {
            true => self.shared.asked.swap(0, Relaxed),
            false => self.shared.asked.load(Relaxed),
        }
    }

    /// A seat had so much that could be given away, and now has this much. The unit is a name in a directory: what a
    /// process is asked for is its share of what all have.
    pub(super) fn weigh(&self, before: u64, now: u64) {
        self.shared.weight.fetch_add(now.wrapping_sub(before), Relaxed);
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.shared.broker.is_blocked()
    }

    /// The state of a job as of the last pulse; `None`: not known here.
    pub(super) fn state(&self, job: JobId) -> Option<JobState> {
        lock(&self.shared.states).of(job)
    }

    /// Notes that a process of that name (see `treeferry_fs::temp::maker_part`) works for a job.
    pub fn enroll(&self, job: JobId, maker: &str) -> Result<(), LedgerError> {
        let key = format!("{}makers", prefix(job));
        self.rt.block_on(self.shared.ledger.stubborn(|mut c| {
            let key = key.clone();
            async move { c.sadd(key, maker).await }
        }))
    }

    /// Ends a job before its time.
    pub(super) fn end(&self, job: JobId, state: JobState, why: &str) {
        lock(&self.shared.states).put(Instant::now(), job, state);
        if let Err(e) = self.rt.block_on(self.shared.ledger.end(job, state.name(), why)) {
            tracing::error!("cannot end job {job}: {e}");
        }
    }

    /// The state of a job; `None`: there is no such job.
    pub(super) fn state_now(&self, job: JobId) -> Option<JobState> {
        let key = format!("{}job", prefix(job));
        let state = self.rt.block_on(self.shared.ledger.stubborn(|mut c| {
            let key = key.clone();
            async move { c.hget::<_, _, Option<String>>(key, "state").await }
        }));
        JobState::from_name(&state.ok()??)
    }

    /// Where a job stands; `None`: there is no such job.
    pub(crate) fn status(&self, job: JobId) -> Option<Status> {
        let p = prefix(job);
        // failures only become more: those that were read are not read again
        let known = lock(&self.shared.failures).get(&job).map_or(0, Vec::len);
        type Answer = (HashMap<String, Vec<u8>>, HashMap<String, u64>, Vec<Vec<u8>>, u64, Option<u64>);
        let answer = self.rt.block_on(self.shared.ledger.stubborn(|mut c| {
            let p = p.clone();
            async move {
                let mut pipe = redis::pipe();
                pipe.atomic();
                pipe.hgetall(format!("{p}job")).hgetall(format!("{p}counters"));
                pipe.lrange(format!("{p}failures"), known as isize, Status::MAX_FAILURES as isize - 1);
                pipe.hlen(format!("{p}open")).get(format!("{p}parked"));
                pipe.query_async::<Answer>(&mut c).await
            }
        }));
        let (fields, counted, failures, open, parked) = match answer {
            Ok(a) => a,
            Err(e) => return Some(Status::lost(&e.to_string())),
        };
        let word = |k: &str| fields.get(k).map(|v| String::from_utf8_lossy(v).into_owned());
        let state = JobState::from_name(&word("state")?)?;
        let mut counters = Counters::default();
        for (name, n) in &counted {
            counters.set(name, *n);
        }
        let new = failures.iter().filter_map(|f| wire::decode::<Failure>(MessageKind::Failure, f).ok());
        let mut all = lock(&self.shared.failures);
        let failures = all.entry(job).or_default();
        if failures.len() == known {
            failures.extend(new);
        }
        let failures = failures.clone();
        Some(Status {
            state,
            outstanding: open + parked.unwrap_or(0),
            counters,
            failures,
            aborted: word("why").filter(|w| state == JobState::Aborted && !w.is_empty()),
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.gone.store(true, Relaxed);
    }
}

/// Publishes, waits for the confirms, and takes what was confirmed out of the outbox. What was not stays there, and is
/// published again later by whoever looks after the outbox.
pub(super) async fn post_all(s: Arc<Shared>, job: JobId, made: Vec<(Lane, TaskId)>) -> bool {
    let mut posts = Vec::new();
    for (lane, task) in made {
        let s = Arc::clone(&s);
        posts.push(tokio::spawn(async move { (task, s.broker.post(lane, Errand { job, task }).await) }));
    }
    let (mut sent, mut all) = (Vec::new(), true);
    for p in posts {
        match p.await {
            Ok((task, true)) => sent.push(task),
            _ => all = false,
        }
    }
    if !sent.is_empty() && s.ledger.published(job, &sent).await.is_err() {
        return false;
    }
    all
}
