//! This process's place in the cluster: its connections, what runs beside the worker threads, and the synchronous
//! face of it all. Threads that do file work wait for the kernel; what waits for peers is asynchronous, in here.

use super::bundle::{Bundle, Commit, Lane};
use super::report::{JobNow, NodeReport, Wanted, field, has_too_much};
use crate::engine::Status;
use crate::groups::Claim;
use crate::rabbitmq::{Arrival, Broker, Errand};
use crate::redis::{Begin, Committed, Ledger, LedgerError, Receipt, now_ms, prefix};
use lapin::Acker;
use redis::AsyncCommands;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use treeferry_core::job::JobState;
use treeferry_core::wire::{self, MessageKind};
use treeferry_core::{Change, Counters, Failure, GroupKey, JobId, JobSpec, NewTask, Notice, RelPath, TaskId};

/// How often a process says how many idle threads it has, and asks how many there are.
const PULSE: Duration = Duration::from_millis(50);
/// How often somebody looks for tasks that the broker has lost.
const REAP: Duration = Duration::from_secs(2);
/// A task that is neither queued nor held nor in the outbox at so many looks in a row is published again.
const LOOKS: u32 = 3;
/// What the outbox holds for so long (ms) is published again.
const STALE_MS: u64 = 3000;
/// How often a daemon says what it is doing.
const REPORT: Duration = Duration::from_secs(1);
/// A message that is worked on for so long is acknowledged before its end: the broker takes a consumer for dead that has
/// not acknowledged one within 30 minutes. The ledger's outbox remembers the task instead.
const LONG: Duration = Duration::from_secs(600);
/// For so long (ms) such a task is left alone; it is said again at each look.
const LONG_LEASE_MS: u64 = 60_000;
/// A task that no worker so far could run is offered again after this (ms).
const DECLINED_MS: u64 = 3000;
/// In the outbox, a time that never comes: the task waits until its job is resumed.
pub(super) const SHELVED_MS: u64 = 1_000_000_000_000_000;

/// Says what a daemon is doing.
pub type Reporting = Box<dyn Fn() -> NodeReport + Send + Sync>;

/// Where broker and ledger are.
#[derive(Clone)]
pub struct Site {
    /// `amqp://` or `amqps://`.
    pub broker: String,
    /// `redis://` or `rediss://`.
    pub ledger: String,
}

/// Why the cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// The broker does not answer, or refuses us.
    #[error("the broker: {0}")]
    Broker(#[from] lapin::Error),
    /// The ledger does not answer, or refuses us.
    #[error("{0}")]
    Ledger(#[from] LedgerError),
    /// No runtime.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// What everybody who works for a job has to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// What was asked for.
    pub spec: JobSpec,
    /// DST was made by this job.
    pub made_target: bool,
    /// Inode numbers of the roots.
    pub roots: (u64, u64),
    /// What the target can hold, in the words of whoever tried.
    pub limits: String,
    /// When it was registered, in ms since 1970 by the clock of who did.
    pub created_ms: u64,
}

impl JobRecord {
    pub(super) fn fields(&self) -> Vec<(&'static str, Vec<u8>)> {
        vec![
            ("spec", wire::encode(MessageKind::Spec, &self.spec)),
            ("made_target", u8::from(self.made_target).to_string().into_bytes()),
            ("src_ino", self.roots.0.to_string().into_bytes()),
            ("dst_ino", self.roots.1.to_string().into_bytes()),
            ("limits", self.limits.clone().into_bytes()),
            ("created", self.created_ms.to_string().into_bytes()),
        ]
    }

    pub(super) fn read(fields: &HashMap<String, Vec<u8>>) -> Option<JobRecord> {
        let number = |k: &str| std::str::from_utf8(fields.get(k)?).ok()?.parse::<u64>().ok();
        Some(JobRecord {
            spec: wire::decode(MessageKind::Spec, fields.get("spec")?).ok()?,
            made_target: number("made_target")? == 1,
            roots: (number("src_ino")?, number("dst_ino")?),
            limits: String::from_utf8(fields.get("limits")?.clone()).ok()?,
            created_ms: number("created")?,
        })
    }
}

/// This process in the cluster.
pub struct Node {
    rt: Runtime,
    shared: Arc<Shared>,
    arrivals: Mutex<mpsc::Receiver<Arrival>>,
    sender: mpsc::Sender<Arrival>,
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

struct Shared {
    /// NAME-PID.
    name: String,
    /// NAME.
    node: String,
    ledger: Ledger,
    broker: Broker,
    /// From a place drawn at random, so that no two processes meet.
    next_token: AtomicU64,
    idle: AtomicUsize,
    /// It takes messages of the lanes in which there is work for any idle thread.
    shares: AtomicBool,
    hungry: AtomicUsize,
    states: Mutex<HashMap<JobId, JobState>>,
    /// Failures that were read, of jobs that somebody here waits for.
    failures: Mutex<HashMap<JobId, Vec<Failure>>>,
    jobs: Mutex<Vec<JobNow>>,
    wanted: Mutex<Wanted>,
    report: Mutex<Option<Reporting>>,
    held: Mutex<BTreeMap<(JobId, TaskId), HeldMessage>>,
    gone: AtomicBool,
    posting: AtomicUsize,
}

/// A message that a thread works on.
struct HeldMessage {
    since: Instant,
    acker: Acker,
    /// It was acknowledged before its time.
    let_go: bool,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
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
            next_token: AtomicU64::new(RandomState::new().build_hasher().finish()),
            idle: AtomicUsize::new(0),
            shares: AtomicBool::new(false),
            hungry: AtomicUsize::new(0),
            states: Mutex::default(),
            failures: Mutex::default(),
            jobs: Mutex::default(),
            wanted: Mutex::default(),
            report: Mutex::default(),
            held: Mutex::default(),
            gone: AtomicBool::new(false),
            posting: AtomicUsize::new(0),
        });
        rt.spawn(pulse(Arc::clone(&shared)));
        rt.spawn(reap(Arc::clone(&shared)));
        let (sender, arrivals) = mpsc::channel(1);
        Ok(Arc::new(Node { rt, shared, arrivals: Mutex::new(arrivals), sender }))
    }

    /// Begins to take messages of these lanes, at most `prefetch` of each at once; again: so many more.
    pub fn listen(&self, lanes: &[Lane], prefetch: u16) {
        self.shared.shares.store(lanes.contains(&Lane::Walk), Relaxed);
        let _in = self.rt.enter();
        for lane in lanes {
            self.shared.broker.listen(*lane, prefetch, self.sender.clone());
        }
    }

    /// The next message, if one comes within that time.
    pub fn next(&self, patience: Duration) -> Option<Arrival> {
        let mut arrivals = lock(&self.arrivals);
        let next = async { tokio::time::timeout(patience, arrivals.recv()).await };
        self.rt.block_on(next).ok().flatten()
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

    /// Registers a job and gives it its first task.
    pub fn create_job(&self, job: JobId, record: &JobRecord, first: NewTask) {
        self.create(job, &record.fields(), vec![Bundle::of(first)]);
    }

    /// A number that nobody has drawn or will draw.
    pub(super) fn draw_token(&self) -> u64 {
        self.shared.next_token.fetch_add(1, Relaxed)
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
                        let _ = arrival.acker.ack(Default::default()).await;
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

    /// Waits a little for what is still on its way to the broker.
    pub fn close(&self) {
        self.rt.block_on(async {
            let sent = async {
                while self.shared.posting.load(Relaxed) > 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(5), sent).await;
        });
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
        lock(&self.shared.states).insert(job, JobState::Running);
        if let Ok(made) = made {
            self.publish(job, made);
        }
    }

    pub(super) fn begin(&self, job: JobId, task: TaskId, token: u64) -> Result<Begin, LedgerError> {
        self.rt.block_on(self.shared.ledger.begin(job, task, token))
    }

    pub(super) fn commit(
        &self,
        job: JobId,
        task: TaskId,
        lease: (u64, u64),
        c: &Commit,
    ) -> Result<Receipt, LedgerError> {
        let r = self.rt.block_on(self.shared.ledger.commit(job, task, lease, c))?;
        if r.outstanding == 0 && r.what == Committed::Done {
            // over, in whatever way: the next pulse knows no more of it
            lock(&self.shared.states).insert(job, JobState::Done);
        }
        Ok(r)
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
    pub(super) fn post_and_ack(&self, job: JobId, made: Vec<(Lane, TaskId)>, acker: Acker) {
        let shared = Arc::clone(&self.shared);
        shared.posting.fetch_add(1, Relaxed);
        self.rt.spawn(async move {
            // a false answer, or an error: the message will come again, and be found done
            if post_all(Arc::clone(&shared), job, made).await {
                let _ = acker.ack(Default::default()).await;
            } else {
                // what was not published is in the outbox; the message must not stay with us, who have no use for it
                let _ = acker.reject(lapin::options::BasicRejectOptions { requeue: true }).await;
            }
            shared.posting.fetch_sub(1, Relaxed);
        });
    }

    pub(super) fn ack(&self, arrival: Arrival, job: JobId, made: Vec<(Lane, TaskId)>) {
        self.post_and_ack(job, made, arrival.acker);
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
            let requeue = lapin::options::BasicRejectOptions { requeue: true };
            let _ = arrival.acker.reject(requeue).await;
        });
    }

    pub(super) fn hold(&self, job: JobId, task: TaskId, acker: &Acker) {
        let held = HeldMessage { since: Instant::now(), acker: acker.clone(), let_go: false };
        lock(&self.shared.held).insert((job, task), held);
    }

    pub(super) fn unhold(&self, job: JobId, task: TaskId) {
        lock(&self.shared.held).remove(&(job, task));
    }

    pub(super) fn idle(&self, idle: bool) {
        if idle {
            self.shared.idle.fetch_add(1, Relaxed);
        } else {
            self.shared.idle.fetch_sub(1, Relaxed);
        }
    }

    pub(super) fn hungry(&self) -> usize {
        self.shared.hungry.load(Relaxed)
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.shared.broker.blocked.load(Relaxed)
    }

    /// The state of a job as of the last pulse; `None`: not known here.
    pub(super) fn state(&self, job: JobId) -> Option<JobState> {
        lock(&self.shared.states).get(&job).copied()
    }

    pub(super) fn claim(
        &self,
        job: JobId,
        key: GroupKey,
        nlink: u32,
        path: &RelPath,
        wavers: bool,
        abandoned: bool,
    ) -> Claim {
        let claim = self.rt.block_on(self.shared.ledger.claim(job, key, nlink, path, wavers, abandoned));
        claim.unwrap_or_else(|e| {
            self.end(job, JobState::Aborted, &e.to_string());
            Claim::Wait
        })
    }

    pub(super) fn own_target(&self, job: JobId, key: GroupKey, target: (u64, u64)) -> bool {
        let own = self.rt.block_on(self.shared.ledger.own_target(job, key, target));
        own.unwrap_or_else(|e| {
            self.end(job, JobState::Aborted, &e.to_string());
            false
        })
    }

    /// Whether one more of the job's deletions is left. A call that has to be repeated may take two.
    pub(super) fn may_delete(&self, job: JobId, most: u64, take: bool) -> bool {
        self.rt.block_on(self.shared.ledger.may_delete(job, most, take)).unwrap_or_else(|e| {
            self.end(job, JobState::Aborted, &e.to_string());
            false
        })
    }

    /// Whether a process of that name works for the job, and who asks still owns the task that it is at.
    pub(super) fn is_left(&self, job: JobId, maker: &str, task: TaskId, lease: (u64, u64)) -> bool {
        let p = prefix(job);
        let answer = self.rt.block_on(self.shared.ledger.stubborn(|mut c| {
            let p = p.clone();
            async move {
                let mut pipe = redis::pipe();
                pipe.atomic().sismember(format!("{p}makers"), maker).hget(format!("{p}begun"), task.0);
                pipe.query_async::<(bool, Option<String>)>(&mut c).await
            }
        }));
        matches!(answer, Ok((true, Some(at))) if at == format!("{}:{}", lease.0, lease.1))
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
        lock(&self.shared.states).insert(job, state);
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
async fn post_all(s: Arc<Shared>, job: JobId, made: Vec<(Lane, TaskId)>) -> bool {
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

/// Says how many idle threads there are here, and hears how many there are everywhere, how jobs stand and what is
/// wanted of us; and now and then, what we are doing.
async fn pulse(s: Arc<Shared>) {
    let script = redis::Script::new(include_str!("../redis/pulse.lua"));
    let mut reported: Option<Instant> = None;
    while !s.gone.load(Relaxed) {
        let idle = match s.shares.load(Relaxed) && !lock(&s.wanted).paused {
            true => s.idle.load(Relaxed).to_string(),
            false => "-".to_owned(),
        };
        let answer = s
            .ledger
            .stubborn(|mut c| {
                let (script, name, idle) = (&script, &s.name, &idle);
                async move {
                    let mut call = script.key("treeferry:");
                    call.arg(name).arg(idle).arg(now_ms()).invoke_async::<Heard>(&mut c).await
                }
            })
            .await;
        let mut nodes = 0;
        match answer {
            Ok(heard) => {
                nodes = heard.2;
                hear(&s, heard);
            }
            Err(e) => tracing::error!("{e}"),
        }
        if reported.is_none_or(|t| t.elapsed() > REPORT) {
            reported = Some(Instant::now());
            let said = lock(&s.report).as_ref().and_then(|f| serde_json::to_string(&f()).ok());
            if let Some(said) = said {
                let key = format!("treeferry:node:{}", s.name);
                let _: Result<(), _> = s.ledger.conn().set_ex(key, said, 15).await;
            }
        }
        // a thousand processes must not keep the ledger busy with this alone
        tokio::time::sleep(PULSE.max(Duration::from_millis(nodes))).await;
    }
}

/// Idle threads without work, idle threads, processes, control fields, five values for each job.
type Heard = (usize, usize, u64, Vec<String>, Vec<redis::Value>);

fn hear(s: &Shared, heard: Heard) {
    let (hungry, idle, _, control, jobs) = heard;
    s.hungry.store(hungry, Relaxed);
    s.broker.elsewhere.store(idle.saturating_sub(s.idle.load(Relaxed)), Relaxed);
    let fields = control.chunks_exact(2).map(|p| (p[0].clone(), p[1].clone())).collect();
    *lock(&s.wanted) = Wanted::read(&fields, &s.name, &s.node);
    let text = |v: &redis::Value| redis::from_redis_value_ref::<String>(v).unwrap_or_default();
    let mut now = Vec::new();
    let mut states = lock(&s.states);
    for five in jobs.chunks_exact(5) {
        let number = |v: &redis::Value| text(v).parse().unwrap_or(0);
        if let (Ok(id), Some(state)) = (text(&five[0]).parse(), JobState::from_name(&text(&five[1]))) {
            // an end is never left, whatever was on its way when it came
            let known = states.entry(id).or_insert(state);
            if *known == JobState::Running {
                *known = state;
            }
            let paused = text(&five[2]) == "pause";
            now.push(JobNow { id, paused, queued: number(&five[3]), running: number(&five[4]) });
        }
    }
    *lock(&s.jobs) = now;
}

/// Looks after tasks that nobody has: those that were never confirmed, and those that a broker has lost. One process
/// at a time does.
async fn reap(s: Arc<Shared>) {
    let mut missing: HashMap<(JobId, u64), u32> = HashMap::new();
    while !s.gone.load(Relaxed) {
        tokio::time::sleep(REAP).await;
        if let Err(e) = reap_once(&s, &mut missing).await {
            tracing::debug!("looking for lost tasks: {e}");
        }
    }
}

async fn reap_once(s: &Arc<Shared>, missing: &mut HashMap<(JobId, u64), u32>) -> Result<(), SiteError> {
    let mut c = s.ledger.conn();
    let err = |e: redis::RedisError| SiteError::Ledger(e.into());
    // never empty: that it is there says that we live
    let mut held: Vec<String> = lock(&s.held).keys().map(|(j, t)| format!("{j}:{}", t.0)).collect();
    held.push("-".to_owned());
    let mut pipe = redis::pipe();
    let key = format!("treeferry:held:{}", s.name);
    pipe.atomic().del(&key).ignore().sadd(&key, &held).ignore().expire(&key, 15).ignore();
    pipe.sadd("treeferry:workers", &s.name).ignore();
    pipe.query_async::<()>(&mut c).await.map_err(err)?;
    let_go_of_long_ones(s).await.map_err(err)?;
    let lease = redis::SetOptions::default()
        .conditional_set(redis::ExistenceCheck::NX)
        .with_expiration(redis::SetExpiry::PX(REAP.as_millis() as u64 * 2));
    let mine: Option<String> = c.set_options("treeferry:reaper", &s.name, lease).await.map_err(err)?;
    let owner: Option<String> = c.get("treeferry:reaper").await.map_err(err)?;
    if mine.is_none() && owner.as_deref() != Some(&s.name) {
        missing.clear();
        return Ok(());
    }
    let _: () = c.pexpire("treeferry:reaper", REAP.as_millis() as i64 * 2).await.map_err(err)?;
    if s.broker.blocked.load(Relaxed) {
        return Ok(());
    }
    let queued: u32 = s.broker.ready(&Lane::ALL).await?;
    let mut everybody: BTreeSet<String> = BTreeSet::new();
    for w in c.smembers::<_, Vec<String>>("treeferry:workers").await.map_err(err)? {
        let held: Vec<String> = c.smembers(format!("treeferry:held:{w}")).await.map_err(err)?;
        if held.is_empty() {
            bury(&mut c, &w).await.map_err(err)?;
        }
        everybody.extend(held);
    }
    let running: Vec<String> = c.smembers("treeferry:running").await.map_err(err)?;
    let mut still: HashMap<(JobId, u64), u32> = HashMap::new();
    for job in running.iter().filter_map(|j| j.parse::<JobId>().ok()) {
        let p = prefix(job);
        let before = now_ms().saturating_sub(STALE_MS);
        let outbox: Vec<u64> = c.zrangebyscore(format!("{p}outbox"), 0, before).await.map_err(err)?;
        let mut again: BTreeSet<u64> = outbox.into_iter().collect();
        if queued == 0 {
            let open: Vec<u64> = c.hkeys(format!("{p}open")).await.map_err(err)?;
            let waiting: BTreeSet<u64> = c
                .zrange::<_, Vec<u64>>(format!("{p}outbox"), 0, -1)
                .await
                .map_err(err)?
                .into_iter()
                .collect();
            for t in open {
                if waiting.contains(&t) || everybody.contains(&format!("{job}:{t}")) {
                    continue;
                }
                let looks = missing.get(&(job, t)).copied().unwrap_or(0) + 1;
                if looks >= LOOKS {
                    again.insert(t);
                } else {
                    still.insert((job, t), looks);
                }
            }
        }
        let mut made = Vec::new();
        for t in again {
            let body: Option<Vec<u8>> = c.hget(format!("{p}open"), t).await.map_err(err)?;
            match body.as_deref().and_then(|b| b.first()).and_then(|b| Lane::from_code(*b)) {
                Some(lane) => made.push((lane, TaskId(t))),
                None => {
                    let _: () = c.zrem(format!("{p}outbox"), t).await.map_err(err)?;
                }
            }
        }
        if !made.is_empty() {
            tracing::info!("publishing {} tasks of job {job} again", made.len());
            post_all(Arc::clone(s), job, made).await;
        }
    }
    *missing = still;
    Ok(())
}

/// Forgets a process that is gone, and what it alone was told.
async fn bury(c: &mut redis::aio::ConnectionManager, worker: &str) -> Result<(), redis::RedisError> {
    let mut pipe = redis::pipe();
    pipe.srem("treeferry:workers", worker).ignore();
    for what in [field::PAUSE, field::POOL, field::STOP] {
        pipe.hdel("treeferry:control", field::of(what, worker)).ignore();
    }
    pipe.query_async(c).await
}

/// Acknowledges messages of tasks that take long, so that the broker does not take us for dead. From then on the
/// outbox has the task, with a time to come that we put off as long as we live.
async fn let_go_of_long_ones(s: &Arc<Shared>) -> Result<(), redis::RedisError> {
    let long: Vec<(JobId, TaskId, Option<Acker>)> = lock(&s.held)
        .iter_mut()
        .filter(|(_, h)| h.since.elapsed() > LONG)
        .map(|((j, t), h)| (*j, *t, (!std::mem::replace(&mut h.let_go, true)).then(|| h.acker.clone())))
        .collect();
    for (job, task, acker) in long {
        let key = format!("{}outbox", prefix(job));
        let until = now_ms() + LONG_LEASE_MS;
        let Some(acker) = acker else {
            // what is no longer there is done
            let options = redis::SortedSetAddOptions::update_only(None);
            s.ledger.conn().zadd_options::<_, _, _, ()>(key, task.0, until, &options).await?;
            continue;
        };
        s.ledger.conn().zadd::<_, _, _, ()>(key, task.0, until).await?;
        let _ = acker.ack(Default::default()).await;
    }
    Ok(())
}
