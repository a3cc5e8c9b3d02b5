//! The ledger in Redis: one atomic script for each verb, one prefix for each job.
//!
//! Redis may be away or restart at any time: a call that fails for that reason is made again until it succeeds, since
//! every script may be repeated without harm; it is said once.

use crate::cluster::bundle::{Bundle, Commit, GroupChange, Lane};
use crate::groups::{Claim, Leader, Owned};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, Client, RedisError, Script, Value};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use treeferry_core::job::JobState;
use treeferry_core::wire::{self, WireError};
use treeferry_core::{Counters, GroupKey, JobId, NewTask, RelPath, Task, TaskId, errno};

/// Between two attempts to reach Redis: from this, doubled, to [`MOST_PATIENCE`].
const FIRST_PATIENCE: Duration = Duration::from_millis(50);
const MOST_PATIENCE: Duration = Duration::from_secs(2);
/// Redis puts off writing its log for two seconds at most.
const WRITTEN_WITHIN: Duration = Duration::from_secs(3);
/// Samples of a job are so far apart at first, in ms.
const SAMPLE_EVERY_MS: u64 = 2000;

/// Why the ledger cannot do what it is asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It cannot be reached, or refuses us.
    #[error("the ledger: {0}")]
    Redis(#[from] RedisError),
    /// It says what this program does not understand.
    #[error("the ledger holds what is not ours: {0}")]
    Wire(#[from] WireError),
    /// The same, in its own words.
    #[error("the ledger holds what is not ours: {0}")]
    Strange(&'static str),
}

type Res<T> = Result<T, LedgerError>;

/// A task that was begun.
#[derive(Debug)]
pub struct Begun {
    /// What there is to do.
    pub bundle: Bundle,
    /// It was begun before, and may be done in part.
    pub again: bool,
    /// How often it was begun since something of it was last done.
    pub tries: u64,
}

/// What became of the wish to begin a task.
#[derive(Debug)]
pub enum Begin {
    /// It is the asker's now.
    Yours(Begun),
    /// It was done before.
    Gone,
    /// Its job is not running (any more).
    Over,
}

/// What became of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// It is written.
    Done,
    /// The task was done, or was begun by another since, or the ledger has lost what came before: nothing was written.
    Gone,
    /// Another leads a group that this bundle has led: nothing was written, and it is to be run again.
    Fenced,
    /// The ledger has lost a join: the job is aborted.
    Aborted,
}

/// What a commit gave.
#[derive(Debug)]
pub struct Receipt {
    /// What became of it.
    pub what: Committed,
    /// Tasks outstanding in the job, as bundles and parked names.
    pub outstanding: u64,
    /// New tasks, which the broker is to be told.
    pub made: Vec<(Lane, TaskId)>,
}

/// A job at one instant, as the ledger knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobReading {
    /// Which.
    pub id: JobId,
    /// When, by the clock of the ledger, in ms since 1970.
    pub at_ms: u64,
    /// Its state.
    pub state: JobState,
    /// Bundles of tasks that are queued, running or parked.
    pub outstanding: u64,
    /// What nodes have counted.
    pub nodes: Vec<NodeReading>,
}

/// What the commits of a node have counted for a job. The sum over all nodes is what the job has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReading {
    /// Which.
    pub node: String,
    /// What its commits have counted.
    pub counters: Counters,
    /// Its failures by class, see [`errno::class`].
    pub failures_by_errno: BTreeMap<String, u64>,
}

/// A connection to the ledger. Cheap to clone.
#[derive(Clone)]
pub struct Ledger {
    client: Client,
    conn: ConnectionManager,
    scripts: Arc<Scripts>,
    away: Arc<AtomicBool>,
}

/// When it was asked, in ms since 1970, and of each node what it has counted since it was asked before.
pub type Told = (u64, Vec<(String, Vec<u64>)>);

struct Scripts {
    create: Script,
    begin: Script,
    commit: Script,
    claim: Script,
    own: Script,
    may_delete: Script,
    end: Script,
    reading: Script,
    told: Script,
    sample: Script,
}

macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(include_str!("common.lua"), include_str!($file)))
    };
}

impl Ledger {
    /// Connects; the first time must succeed.
    pub async fn connect(url: &str) -> Res<Ledger> {
        let config = ConnectionManagerConfig::new()
            // an fsync or a rewrite of the append-only file takes seconds on a busy disk
            .set_response_timeout(Some(Duration::from_secs(30)))
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_number_of_retries(1);
        let client = Client::open(url)?;
        let conn = ConnectionManager::new_with_config(client.clone(), config).await?;
        let scripts = Scripts {
            create: script!("create.lua"),
            begin: script!("begin.lua"),
            commit: script!("commit.lua"),
            claim: script!("claim.lua"),
            own: script!("own.lua"),
            may_delete: script!("may_delete.lua"),
            end: script!("end.lua"),
            reading: script!("reading.lua"),
            told: script!("told.lua"),
            sample: script!("sample.lua"),
        };
        Ok(Ledger { client, conn, scripts: Arc::new(scripts), away: Arc::default() })
    }

    /// The connection, for what is no verb of a job.
    pub fn conn(&self) -> ConnectionManager {
        self.conn.clone()
    }

    /// A connection of its own, made when it is first used: for what is large and can wait, so that nothing of the
    /// ledger's waits behind it.
    pub fn second(&self) -> Res<ConnectionManager> {
        let config = ConnectionManagerConfig::new()
            .set_response_timeout(Some(Duration::from_secs(10)))
            .set_connection_timeout(Some(Duration::from_secs(5)))
            .set_number_of_retries(1);
        Ok(ConnectionManager::new_lazy_with_config(self.client.clone(), config)?)
    }

    /// Makes a call until it is answered.
    pub async fn stubborn<T, F, Fut>(&self, call: F) -> Res<T>
    where
        F: Fn(ConnectionManager) -> Fut,
        Fut: Future<Output = Result<T, RedisError>>,
    {
        let mut patience = FIRST_PATIENCE;
        loop {
            match call(self.conn.clone()).await {
                Ok(t) => {
                    if self.away.swap(false, Relaxed) {
                        tracing::warn!("the ledger is back");
                    }
                    return Ok(t);
                }
                Err(e) if may_pass(&e) => {
                    if !self.away.swap(true, Relaxed) {
                        tracing::warn!("the ledger is away ({e}): waiting for it");
                    }
                    tokio::time::sleep(patience).await;
                    patience = (patience * 2).min(MOST_PATIENCE);
                }
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Gives a job its first tasks, and its record if it has none.
    pub async fn create(
        &self,
        job: JobId,
        fields: &[(&str, Vec<u8>)],
        first: &[Bundle],
    ) -> Res<Vec<(Lane, TaskId)>> {
        let p = prefix(job);
        let mut call = self.scripts.create.prepare_invoke();
        call.key(p).arg(now_ms()).arg(fields.len());
        for (name, value) in fields {
            call.arg(*name).arg(value);
        }
        for bundle in first {
            call.arg(body(lane_of(bundle), bundle));
        }
        let answer: Vec<Value> = self
            .stubborn(|mut c| {
                let call = &call;
                async move { call.invoke_async(&mut c).await }
            })
            .await?;
        let made = read_made(&answer)?;
        let mut pipe = redis::pipe();
        pipe.atomic().sadd("treeferry:running", job.to_string()).ignore();
        pipe.zadd("treeferry:jobs", job.to_string(), now_ms()).ignore();
        self.stubborn(|mut c| {
            let pipe = pipe.clone();
            async move { pipe.query_async::<()>(&mut c).await }
        })
        .await?;
        self.written().await?;
        Ok(made)
    }

    /// Waits until Redis has written to its log what it has answered before, so that it knows it still if it is killed:
    /// while its disk is slow it answers as much as two seconds before it writes.
    async fn written(&self) -> Res<()> {
        let until = Instant::now() + WRITTEN_WITHIN;
        loop {
            let info: redis::InfoDict = self
                .stubborn(
                    |mut c| async move { redis::cmd("INFO").arg("persistence").query_async(&mut c).await },
                )
                .await?;
            // no such field: it keeps no log
            if info.get::<u64>("aof_buffer_length").unwrap_or(0) == 0 || Instant::now() > until {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Begins a task: whoever has begun it before owns it no more.
    /// `token`: drawn by the asker, never twice.
    pub async fn begin(&self, job: JobId, task: TaskId, token: u64) -> Res<Begin> {
        let p = prefix(job);
        let answer: Vec<Value> = self
            .stubborn(|mut c| {
                let p = p.clone();
                async move { self.scripts.begin.key(p).arg(task.0).arg(token).invoke_async(&mut c).await }
            })
            .await?;
        match (word(answer.first()), answer.get(1..).unwrap_or_default()) {
            ("gone", _) => Ok(Begin::Gone),
            ("over", _) => Ok(Begin::Over),
            ("yours", [Value::BulkString(body), Value::Int(again), Value::Int(tries)]) => {
                let (again, tries) = (*again == 1, *tries as u64);
                Ok(Begin::Yours(Begun { bundle: read_body(body)?, again, tries }))
            }
            _ => Err(LedgerError::Strange("an answer that no script gives")),
        }
    }

    /// Writes a commit, all of it or nothing, and once however often it is asked. `lease`: token and number. What it
    /// counts is counted for the job and for the node.
    pub async fn commit(
        &self,
        job: JobId,
        task: TaskId,
        lease: (u64, u64),
        commit: &Commit,
        node: &str,
    ) -> Res<Receipt> {
        let (p, packed) = (prefix(job), pack(commit));
        let answer: Vec<Value> = self
            .stubborn(|mut c| {
                let (p, packed) = (p.clone(), packed.clone());
                async move {
                    let mut call = self.scripts.commit.key(p);
                    call.arg(task.0)
                        .arg(lease.0)
                        .arg(lease.1)
                        .arg(now_ms())
                        .arg(packed)
                        .arg(node)
                        .invoke_async(&mut c)
                        .await
                }
            })
            .await?;
        let what = match word(answer.first()) {
            "done" => Committed::Done,
            "gone" => Committed::Gone,
            "fenced" => Committed::Fenced,
            "aborted" => Committed::Aborted,
            _ => return Err(LedgerError::Strange("an answer that no script gives")),
        };
        let Some(Value::Int(outstanding)) = answer.get(1) else {
            return Err(LedgerError::Strange("an answer without a number"));
        };
        let made = read_made(answer.get(2..).unwrap_or_default())?;
        Ok(Receipt { what, outstanding: *outstanding as u64, made })
    }

    /// Tasks that the broker has taken over.
    pub async fn published(&self, job: JobId, tasks: &[TaskId]) -> Res<()> {
        let key = format!("{}outbox", prefix(job));
        let ids: Vec<u64> = tasks.iter().map(|t| t.0).collect();
        self.stubborn(|mut c| {
            let (key, ids) = (key.clone(), ids.clone());
            async move { c.zrem(key, ids).await }
        })
        .await
    }

    /// See [`crate::Registry::claim`]. `abandoned`: the asker knows that the leader has failed.
    pub async fn claim(
        &self,
        job: JobId,
        key: GroupKey,
        nlink: u32,
        path: &RelPath,
        wavers: bool,
        abandoned: bool,
    ) -> Res<Claim> {
        let p = prefix(job);
        let answer: Vec<Value> = self
            .stubborn(|mut c| {
                let p = p.clone();
                async move {
                    let mut call = self.scripts.claim.key(p);
                    call.arg(group(key)).arg(nlink).arg(path.as_bytes()).arg(u8::from(wavers));
                    call.arg(u8::from(abandoned)).invoke_async(&mut c).await
                }
            })
            .await?;
        match (word(answer.first()), &answer[..]) {
            ("lead", _) => Ok(Claim::Lead),
            ("wait", _) => Ok(Claim::Wait),
            ("follow", [_, Value::BulkString(path), Value::BulkString(target), Value::Int(links)]) => {
                let path =
                    RelPath::new(&path[..]).map_err(|_| LedgerError::Strange("a leader without a path"))?;
                let target = inode(std::str::from_utf8(target).unwrap_or_default());
                Ok(Claim::Follow(Leader { path, target, links: *links as u32 }))
            }
            _ => Err(LedgerError::Strange("an answer that no script gives")),
        }
    }

    /// What nodes have counted for a job, all of them if none is named. One attempt: nobody waits for it.
    pub async fn reading(&self, job: JobId, nodes: &[&str]) -> Res<Option<JobReading>> {
        let p = prefix(job);
        let mut call = self.scripts.reading.key(p);
        call.arg(nodes);
        let answer: Vec<Value> = call.invoke_async(&mut self.conn.clone()).await?;
        let at_ms = word(answer.first()).parse().map_err(|_| LedgerError::Strange("a time that is none"))?;
        let Some(state) = JobState::from_name(word(answer.get(1))) else { return Ok(None) };
        let Some(Value::Int(outstanding)) = answer.get(2) else {
            return Err(LedgerError::Strange("an answer without a number"));
        };
        let mut r = JobReading { id: job, at_ms, state, outstanding: *outstanding as u64, nodes: Vec::new() };
        for pair in answer.get(3..).unwrap_or_default().chunks_exact(2) {
            let counted: HashMap<String, u64> =
                redis::from_redis_value_ref(&pair[1]).map_err(RedisError::from)?;
            let mut node = NodeReading { node: word(pair.first()).to_owned(), ..NodeReading::default() };
            for (name, n) in counted {
                match name.strip_prefix("errno:") {
                    Some(class) => drop(node.failures_by_errno.insert(class.to_owned(), n)),
                    None => node.counters.set(&name, n),
                }
            }
            r.nodes.push(node);
        }
        Ok(Some(r))
    }

    /// What nodes have counted of some counters since this was asked before the present step of time began, by anybody.
    /// Returns the time (ms since 1970), and each node with its numbers.
    pub async fn told(&self, job: JobId, step: Duration, counters: &[&str]) -> Res<Told> {
        let mut call = self.scripts.told.key(prefix(job));
        call.arg(step.as_millis().max(1) as u64);
        call.arg(counters);
        let answer: Vec<String> = call.invoke_async(&mut self.conn.clone()).await?;
        let number = |s: &String| s.parse::<u64>().unwrap_or(0);
        let nodes = answer.get(1..).unwrap_or_default().chunks_exact(1 + counters.len());
        let nodes = nodes.map(|n| (n[0].clone(), n[1..].iter().map(number).collect()));
        Ok((answer.first().map_or(0, number), nodes.collect()))
    }

    /// Ends a job before its time; `false`: it was not running.
    pub async fn end(&self, job: JobId, state: &str, why: &str) -> Res<bool> {
        let p = prefix(job);
        let n: i64 = self
            .stubborn(|mut c| {
                let p = p.clone();
                async move {
                    let mut call = self.scripts.end.key(p);
                    call.arg(state).arg(why).arg(now_ms()).invoke_async(&mut c).await
                }
            })
            .await?;
        self.written().await?;
        Ok(n == 1)
    }

    /// Notes how far a job has come, if it is time for it.
    pub async fn sample(&self, job: JobId) -> Res<()> {
        let mut call = self.scripts.sample.prepare_invoke();
        call.key(prefix(job)).arg(now_ms()).arg(SAMPLE_EVERY_MS);
        // not stubbornly: another sample comes soon
        Ok(call.invoke_async::<()>(&mut self.conn()).await?)
    }

    /// See [`crate::Registry::may_delete`].
    pub async fn may_delete(&self, job: JobId, most: u64, take: bool) -> Res<bool> {
        let p = prefix(job);
        let n: i64 = self
            .stubborn(|mut c| {
                let p = p.clone();
                async move {
                    let mut call = self.scripts.may_delete.key(p);
                    call.arg(most).arg(u8::from(take)).invoke_async(&mut c).await
                }
            })
            .await?;
        Ok(n == 1)
    }

    /// See [`crate::Registry::own_target`]. `lease`: token and number of the last commit. `None`: another leads the group.
    pub async fn own_target(
        &self,
        job: JobId,
        key: GroupKey,
        target: (u64, u64),
        leader: Option<&RelPath>,
        task: TaskId,
        lease: (u64, u64),
    ) -> Res<Option<Owned>> {
        let p = prefix(job);
        let n: i64 = self
            .stubborn(|mut c| {
                let p = p.clone();
                async move {
                    let mut call = self.scripts.own.key(p);
                    call.arg(group(key)).arg(inode_text(Some(target)));
                    call.arg(leader.map_or(&b""[..], RelPath::as_bytes));
                    call.arg(task.0).arg(lease_text(lease)).invoke_async(&mut c).await
                }
            })
            .await?;
        match n {
            1 => Ok(Some(Owned::Ours)),
            0 => Ok(Some(Owned::Others)),
            -1 => Ok(Some(Owned::Lost)),
            -2 => Ok(None),
            _ => Err(LedgerError::Strange("an answer that no script gives")),
        }
    }

    /// Whether a task is still owned by who has begun it with this token, and has made so many commits since.
    pub async fn is_owned(&self, job: JobId, task: TaskId, lease: (u64, u64)) -> Res<bool> {
        let key = format!("{}begun", prefix(job));
        let at = self
            .stubborn(|mut c| {
                let key = key.clone();
                async move { c.hget::<_, _, Option<String>>(key, task.0).await }
            })
            .await?;
        Ok(at.is_some_and(|at| at == lease_text(lease)))
    }
}

/// What Redis answers while it loads its data, has no room, cannot write to its disk, or runs a long script. While it
/// loads, a transaction is refused as EXECABORT.
const PASSING: &[&str] = &[
    "LOADING",
    "EXECABORT",
    "OOM",
    "MISCONF",
    "READONLY",
    "BUSY",
    "TRYAGAIN",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "NOREPLICAS",
];

/// Whether it may succeed when Redis is back, has loaded its data, or has room again.
fn may_pass(e: &RedisError) -> bool {
    e.is_io_error()
        || e.is_timeout()
        || e.is_connection_dropped()
        || e.is_connection_refusal()
        || e.code().is_some_and(|c| PASSING.contains(&c))
}

/// New tasks, as scripts name them.
fn read_made(answer: &[Value]) -> Res<Vec<(Lane, TaskId)>> {
    let mut made = Vec::new();
    for pair in answer.chunks(2) {
        let id = word(pair.first()).parse::<u64>().ok();
        let lane = word(pair.get(1)).bytes().next().and_then(Lane::from_code);
        let (Some(id), Some(lane)) = (id, lane) else {
            return Err(LedgerError::Strange("a task that cannot be named"));
        };
        made.push((lane, TaskId(id)));
    }
    Ok(made)
}

/// What a job's keys begin with.
pub fn prefix(job: JobId) -> String {
    format!("treeferry:{{{job}}}:")
}

/// Token and number of the last commit, as `begun` has them.
fn lease_text(lease: (u64, u64)) -> String {
    format!("{}:{}", lease.0, lease.1)
}

/// Device and inode of the target; nothing for none.
fn inode_text(target: Option<(u64, u64)>) -> String {
    target.map(|(d, i)| format!("{d}:{i}")).unwrap_or_default()
}

fn group(key: GroupKey) -> String {
    format!("{}:{}", key.dev, key.ino)
}

fn inode(s: &str) -> Option<(u64, u64)> {
    let (dev, ino) = s.split_once(':')?;
    Some((dev.parse().ok()?, ino.parse().ok()?))
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

fn word(v: Option<&Value>) -> &str {
    match v {
        Some(Value::BulkString(b)) => std::str::from_utf8(b).unwrap_or_default(),
        Some(Value::SimpleString(s)) => s,
        _ => "",
    }
}

fn as_task(n: NewTask, tally: u64) -> Task {
    Task { id: TaskId(0), join: n.join, attempt: n.attempt, tally, work: n.work }
}

/// What stands in `open`: the lane, what it is, and that.
fn body(lane: Lane, bundle: &Bundle) -> Vec<u8> {
    let mut b = vec![lane.code(), b'B'];
    b.extend(wire::encode(wire::MessageKind::Bundle, bundle));
    b
}

pub fn read_body(b: &[u8]) -> Res<Bundle> {
    let strange = LedgerError::Strange("a task that begins like none");
    let Some((&[_, kind], rest)) = b.split_first_chunk::<2>() else { return Err(strange) };
    match kind {
        b'B' => Ok(wire::decode(wire::MessageKind::Bundle, rest)?),
        b'F' => {
            let (tally, task) = until_colon(rest).ok_or(strange)?;
            let task = wire::decode::<NewTask>(wire::MessageKind::NewTask, task)?;
            Ok(Bundle { tasks: vec![as_task(task, tally)], joins: Vec::new() })
        }
        b'P' => {
            let (mut tasks, mut rest) = (Vec::new(), rest);
            while !rest.is_empty() {
                let (len, more) = until_colon(rest).ok_or(LedgerError::Strange("a length that is none"))?;
                let (one, more) = more
                    .split_at_checked(len as usize)
                    .ok_or(LedgerError::Strange("a task that is cut off"))?;
                tasks.push(as_task(wire::decode::<NewTask>(wire::MessageKind::NewTask, one)?, 0));
                rest = more;
            }
            Ok(Bundle { tasks, joins: Vec::new() })
        }
        _ => Err(strange),
    }
}

fn until_colon(b: &[u8]) -> Option<(u64, &[u8])> {
    let i = b.iter().position(|c| *c == b':')?;
    Some((std::str::from_utf8(&b[..i]).ok()?.parse().ok()?, &b[i + 1..]))
}

fn new_task(t: &NewTask) -> Vec<u8> {
    wire::encode(wire::MessageKind::NewTask, t)
}

/// Writes msgpack as Redis's cmsgpack reads it, which knows no bytes: they are texts that need not be UTF-8.
#[derive(Default)]
struct Pack(Vec<u8>);

impl Pack {
    fn list<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut each: impl FnMut(&mut Pack, T)) {
        // writing into memory cannot fail
        let _ = rmp::encode::write_array_len(&mut self.0, items.len() as u32);
        items.for_each(|t| each(self, t));
    }
    fn tuple(&mut self, n: u32) -> &mut Pack {
        let _ = rmp::encode::write_array_len(&mut self.0, n);
        self
    }
    fn text(&mut self, b: impl AsRef<[u8]>) -> &mut Pack {
        let b = b.as_ref();
        let _ = rmp::encode::write_str_len(&mut self.0, b.len() as u32);
        self.0.extend_from_slice(b);
        self
    }
    fn number(&mut self, n: i64) -> &mut Pack {
        let _ = rmp::encode::write_sint(&mut self.0, n);
        self
    }
    fn flag(&mut self, f: bool) -> &mut Pack {
        let _ = rmp::encode::write_bool(&mut self.0, f);
        self
    }
}

/// A commit as `commit.lua` takes it.
fn pack(c: &Commit) -> Vec<u8> {
    let mut p = Pack::default();
    let _ = rmp::encode::write_map_len(&mut p.0, 16);
    p.text("rest").text(c.rest.as_ref().map(|b| body(lane_of(b), b)).unwrap_or_default());
    p.text("children").list(c.children.iter(), |p, (lane, b)| {
        p.text(body(*lane, b));
    });
    p.text("joins").list(c.joins.iter(), |p, (j, x)| {
        let follow_up = x.follow_up.as_ref().map(|f| {
            let mut b = vec![Lane::of(&f.work).code()];
            b.extend(new_task(f));
            b
        });
        p.tuple(5).text(format!("{:x}", j.0)).flag(x.opened).number(x.count).number(x.tally as i64);
        p.text(follow_up.unwrap_or_default());
    });
    p.text("parked").list(c.parked.iter(), |p, (k, t)| {
        p.tuple(2).text(group(*k)).text(new_task(t));
    });
    p.text("groups").list(c.groups.iter(), |p, (k, change)| match change {
        GroupChange::Ready(l) => {
            let target = inode_text(l.target);
            p.tuple(5).text(group(*k)).text("R").text(l.path.as_bytes()).text(target).number(l.links.into());
        }
        GroupChange::Abandon => {
            p.tuple(2).text(group(*k)).text("A");
        }
        GroupChange::Seen(linked) => {
            p.tuple(4).text(group(*k)).text("S").number(1).number((*linked).into());
        }
    });
    p.text("released").list(c.released.iter(), |p, k| {
        p.text(group(*k));
    });
    p.text("led").list(c.led.iter(), |p, (k, path)| {
        p.tuple(2).text(group(*k)).text(path.as_bytes());
    });
    p.text("followed").list(c.followed.iter(), |p, (k, l)| {
        p.tuple(3).text(group(*k)).text(l.path.as_bytes()).text(inode_text(l.target));
    });
    p.text("owned").list(c.owned.iter(), |p, (k, t)| {
        p.tuple(2).text(group(*k)).text(inode_text(Some(*t)));
    });
    let counted: Vec<_> = c.counters.iter().filter(|(_, n)| *n > 0).collect();
    p.text("counters").list(counted.iter(), |p, (name, n)| {
        p.tuple(2).text(name).number(*n as i64);
    });
    let mut classes: BTreeMap<_, i64> = BTreeMap::new();
    c.failures.iter().for_each(|f| *classes.entry(errno::class(f.errno)).or_default() += 1);
    p.text("classes").list(classes.iter(), |p, (class, n)| {
        p.tuple(2).text(class.as_bytes()).number(*n);
    });
    let sizes: Vec<_> = c.sizes.iter().collect();
    p.text("sizes").list(sizes.iter(), |p, (class, c)| {
        p.tuple(3).number(*class as i64).number(c.files as i64).number(c.bytes as i64);
    });
    p.text("records").list(c.records.iter(), |p, r| {
        let mut member = format!("{}:", r.note).into_bytes();
        member.extend_from_slice(r.path.as_bytes());
        p.tuple(3).text(r.best.name()).number(r.value as i64).text(member);
    });
    p.text("failures").list(c.failures.iter(), |p, f| {
        p.text(wire::encode(wire::MessageKind::Failure, f));
    });
    p.text("notices").list(c.notices.iter(), |p, n| {
        p.text(format!("{n:?}"));
    });
    p.text("changes").list(c.changes.iter(), |p, x| {
        p.text(wire::encode(wire::MessageKind::Change, x));
    });
    p.0
}

/// The lane of what a holder keeps, for the case that somebody else must go on.
fn lane_of(b: &Bundle) -> Lane {
    b.tasks.last().map_or(Lane::Walk, |t| Lane::of(&t.work))
}
