//! The ledger in Redis: one atomic script for each verb, one prefix for each job.
//!
//! Redis may be away or restart at any time: a call that fails for that reason is made again until it succeeds, since
//! every script may be repeated without harm; it is said once.

mod forms;

use crate::cluster::bundle::{Bundle, Commit, Lane};
use crate::groups::{Claim, Leader, Owned};
pub use forms::read_body;
use forms::{body, group, inode, inode_text, lane_of, pack, read_made, word};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{AsyncCommands, Client, RedisError, Script, Value};
use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use treeferry_core::job::JobState;
use treeferry_core::wire::WireError;
use treeferry_core::{Counters, GroupKey, JobId, RelPath, TaskId};

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
    /// It does not take our name or password.
    #[error(
        "the ledger refuses us: {0}: the password belongs in its address, as in redis://:PASSWORD@HOST:6379 or \
         redis://USER:PASSWORD@HOST:6379"
    )]
    Refused(RedisError),
    /// It says what this program does not understand.
    #[error("the ledger holds what is not ours: {0}")]
    Wire(#[from] WireError),
    /// The same, in its own words.
    #[error("the ledger holds what is not ours: {0}")]
    Strange(&'static str),
}

type Res<T> = Result<T, LedgerError>;

/// What tells the owner of a task from all who have begun it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its job.
    pub job: JobId,
    /// The task.
    pub task: TaskId,
    /// Drawn by whoever has begun it, never twice.
    pub token: u64,
    /// Commits since.
    pub commits: u64,
}

impl Lease {
    /// As the ledger has it (`begun`).
    pub fn to_text(self) -> String {
        format!("{}:{}", self.token, self.commits)
    }
}

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
    stay: Script,
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
        let mut conn = ConnectionManager::new_with_config(client.clone(), config).await.map_err(refused)?;
        // Redis lets anybody connect, and says at the first command who may not
        let answer = redis::cmd("PING").query_async::<()>(&mut conn).await;
        // it answers later, or we may not ask for this, but are known
        let is_known = |e: &RedisError| e.code().is_some_and(|c| c == "NOPERM" || PASSING.contains(&c));
        answer.or_else(|e| if is_known(&e) { Ok(()) } else { Err(refused(e)) })?;
        let scripts = Scripts {
            create: script!("create.lua"),
            begin: script!("begin.lua"),
            commit: script!("commit.lua"),
            claim: script!("claim.lua"),
            own: script!("own.lua"),
            may_delete: script!("may_delete.lua"),
            end: script!("end.lua"),
            stay: script!("stay.lua"),
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

    /// Writes the commit that comes after those of the lease, all of it or nothing, and once however often it is asked. What
    /// it counts is counted for the job and for the node.
    pub async fn commit(&self, lease: Lease, commit: &Commit, node: &str) -> Res<Receipt> {
        let (p, packed) = (prefix(lease.job), pack(commit));
        let answer: Vec<Value> = self
            .stubborn(|mut c| {
                let (p, packed) = (p.clone(), packed.clone());
                async move {
                    let mut call = self.scripts.commit.key(p);
                    call.arg(lease.task.0).arg(lease.token).arg(lease.commits + 1);
                    call.arg(now_ms()).arg(packed).arg(node).invoke_async(&mut c).await
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

    /// What tells of a job that is over stays for so long (s), and it is not listed any more.
    pub async fn fade(&self, job: JobId, seconds: u64) -> Res<()> {
        let p = prefix(job);
        self.stubborn(|mut c| {
            let p = p.clone();
            async move {
                self.scripts.stay.key(p).arg(seconds).invoke_async::<()>(&mut c).await?;
                c.zrem("treeferry:jobs", job.to_string()).await
            }
        })
        .await
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

    /// See [`crate::Registry::own_target`]. `None`: another leads the group.
    pub async fn own_target(
        &self,
        lease: Lease,
        key: GroupKey,
        target: (u64, u64),
        leader: Option<&RelPath>,
    ) -> Res<Option<Owned>> {
        let p = prefix(lease.job);
        let n: i64 = self
            .stubborn(|mut c| {
                let p = p.clone();
                async move {
                    let mut call = self.scripts.own.key(p);
                    call.arg(group(key)).arg(inode_text(Some(target)));
                    call.arg(leader.map_or(&b""[..], RelPath::as_bytes));
                    call.arg(lease.task.0).arg(lease.to_text()).invoke_async(&mut c).await
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

    /// Whether it is the task's last.
    pub async fn is_owned(&self, lease: Lease) -> Res<bool> {
        let key = format!("{}begun", prefix(lease.job));
        let at = self
            .stubborn(|mut c| {
                let key = key.clone();
                async move { c.hget::<_, _, Option<String>>(key, lease.task.0).await }
            })
            .await?;
        Ok(at.is_some_and(|at| at == lease.to_text()))
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

/// What a failed attempt to connect means.
fn refused(e: RedisError) -> LedgerError {
    let is_password = e.kind() == redis::ErrorKind::AuthenticationFailed
        || e.code().is_some_and(|c| ["NOAUTH", "WRONGPASS"].contains(&c));
    if is_password { LedgerError::Refused(e) } else { LedgerError::Redis(e) }
}

/// What a job's keys begin with.
pub fn prefix(job: JobId) -> String {
    format!("treeferry:{{{job}}}:")
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
