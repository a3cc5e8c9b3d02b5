//! Control from any node: what is asked of jobs and workers, kept in the ledger so that a worker that joins later obeys
//! too, and what they say of themselves.

use super::bundle::{Bundle, LocalJoin};
use super::node::SHELVED_MS;
use super::record::{JobRecord, Site, SiteError};
use super::report::{CONTROL, NodeReport, QUEUES, field, readable};
use crate::rabbitmq;
use crate::redis::{Ledger, LedgerError, now_ms, prefix};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;
use tokio::runtime::Runtime;
use treeferry_core::job::JobState;
use treeferry_core::wire::{self, MessageKind};
use treeferry_core::{Counters, Failure, JobId, JobSpec, JoinId, NewTask, Task, TaskId, Work};

/// The broker is asked for its queues for so long at most.
const BROKER_WITHIN: Duration = Duration::from_secs(3);
/// Tasks in one bundle of a retry.
const RETRY_TASKS: usize = 256;

type Res<T> = Result<T, LedgerError>;

/// A hand on the cluster that does no work itself.
pub struct Control {
    pub(super) rt: Runtime,
    pub(super) ledger: Ledger,
    site: Site,
}

/// What is to be paused or resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// Every worker.
    All,
    /// One job.
    Job(JobId),
    /// Workers by their own or their node's name.
    Workers(Vec<String>),
}

/// A job as the ledger knows it.
#[derive(Clone, Debug)]
pub struct JobRow {
    /// Its identity.
    pub id: JobId,
    /// What was asked for.
    pub spec: JobSpec,
    /// Its state.
    pub state: JobState,
    /// Nobody works for it until it is resumed.
    pub paused: bool,
    /// Why it was aborted; empty if it was not.
    pub why: String,
    /// When it began, in ms since 1970.
    pub created_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
    /// Bundles of tasks that are queued, running or parked.
    pub outstanding: u64,
    /// What it has counted.
    pub counters: Counters,
}

/// A queue of the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueRow {
    /// Its name.
    pub name: String,
    /// Messages that wait.
    pub ready: u64,
    /// Messages that workers have and have not settled, as they say.
    pub unacked: u64,
    /// Workers that listen.
    pub consumers: u64,
}

impl Control {
    /// Connects to the ledger; the broker is asked when it is needed.
    pub fn connect(site: &Site) -> Result<Control, SiteError> {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ledger = rt.block_on(Ledger::connect(&site.ledger))?;
        Ok(Control { rt, ledger, site: site.clone() })
    }

    fn ask<T>(&self, pipe: &redis::Pipeline) -> Res<T>
    where
        T: redis::FromRedisValue,
    {
        self.rt.block_on(self.ledger.stubborn(|mut c| {
            let pipe = pipe.clone();
            async move { pipe.query_async::<T>(&mut c).await }
        }))
    }

    /// Every job that the ledger remembers, the newest first.
    pub fn jobs(&self) -> Res<Vec<JobRow>> {
        self.jobs_anew(Vec::new())
    }

    /// The same for whoever asks again and again: what is `known` of a job that has ended stays, and is not asked for.
    pub fn jobs_anew(&self, known: Vec<JobRow>) -> Res<Vec<JobRow>> {
        let mut pipe = redis::pipe();
        pipe.zrevrange("treeferry:jobs", 0, -1);
        let (ids,) = self.ask::<(Vec<String>,)>(&pipe)?;
        let ended = known.into_iter().filter(|j| j.state != JobState::Running);
        let mut ended: HashMap<String, JobRow> = ended.map(|j| (j.id.to_string(), j)).collect();
        let mut rows = Vec::new();
        for id in ids {
            if let Some(row) = ended.remove(&id) {
                rows.push(row);
                continue;
            }
            match id.parse::<JobId>().ok().map(|id| self.job(id)).transpose()?.flatten() {
                Some(row) => rows.push(row),
                None => {
                    let mut pipe = redis::pipe();
                    pipe.zrem("treeferry:jobs", &id).ignore();
                    self.ask::<()>(&pipe)?;
                }
            }
        }
        Ok(rows)
    }

    /// One job; `None`: the ledger does not know it.
    pub fn job(&self, id: JobId) -> Res<Option<JobRow>> {
        let p = prefix(id);
        let mut pipe = redis::pipe();
        pipe.atomic().hgetall(format!("{p}job")).hgetall(format!("{p}counters"));
        pipe.hlen(format!("{p}open")).get(format!("{p}parked"));
        type Answer = (HashMap<String, Vec<u8>>, HashMap<String, u64>, u64, Option<u64>);
        let (job, counted, open, parked) = self.ask::<Answer>(&pipe)?;
        let Some(record) = JobRecord::read(&job) else { return Ok(None) };
        let word = |k: &str| job.get(k).map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default();
        let Some(state) = JobState::from_name(&word("state")) else { return Ok(None) };
        let mut counters = Counters::default();
        counted.iter().for_each(|(name, n)| counters.set(name, *n));
        Ok(Some(JobRow {
            id,
            spec: record.spec,
            state,
            paused: word("wanted") == "pause",
            why: word("why"),
            created_ms: record.created_ms,
            ended_ms: word("ended").parse().ok(),
            outstanding: open + parked.unwrap_or(0),
            counters,
        }))
    }

    /// The failures of a job, from the `from`th on, at most `most`.
    pub fn failures(&self, id: JobId, from: usize, most: usize) -> Res<Vec<Failure>> {
        let mut pipe = redis::pipe();
        pipe.lrange(format!("{}failures", prefix(id)), from as isize, (from + most) as isize - 1);
        let (raw,) = self.ask::<(Vec<Vec<u8>>,)>(&pipe)?;
        Ok(raw.iter().filter_map(|b| wire::decode(MessageKind::Failure, b).ok()).collect())
    }

    /// The failures of a job that came last, at most `most`, the newest first.
    pub fn latest_failures(&self, id: JobId, most: usize) -> Res<Vec<Failure>> {
        let mut pipe = redis::pipe();
        pipe.lrange(format!("{}failures", prefix(id)), -(most as isize), -1);
        let (raw,) = self.ask::<(Vec<Vec<u8>>,)>(&pipe)?;
        Ok(raw.iter().rev().filter_map(|b| wire::decode(MessageKind::Failure, b).ok()).collect())
    }

    /// Workers and hardlinkers that are alive, by name.
    pub fn nodes(&self) -> Res<Vec<NodeReport>> {
        let mut pipe = redis::pipe();
        pipe.smembers("treeferry:workers");
        let (mut names,) = self.ask::<(Vec<String>,)>(&pipe)?;
        names.sort();
        let mut out = Vec::new();
        for chunk in names.chunks(100) {
            let mut pipe = redis::pipe();
            for n in chunk {
                pipe.get(format!("treeferry:node:{n}"));
            }
            let raw = self.ask::<Vec<Option<String>>>(&pipe)?;
            out.extend(readable(raw));
        }
        Ok(out)
    }

    /// The queues, or why the broker does not tell.
    pub fn queues(&self) -> Result<Vec<QueueRow>, String> {
        let ask =
            async { tokio::time::timeout(BROKER_WITHIN, rabbitmq::look(&self.site.broker, &QUEUES)).await };
        let found = match self.rt.block_on(ask) {
            Ok(Ok(found)) => found,
            Ok(Err(e)) => return Err(e.to_string()),
            Err(_) => return Err(format!("no answer within {} s", BROKER_WITHIN.as_secs())),
        };
        let mut unacked: BTreeMap<String, u64> = BTreeMap::new();
        for n in self.nodes().map_err(|e| e.to_string())? {
            n.unacked.into_iter().for_each(|(q, n)| *unacked.entry(q).or_default() += n);
        }
        let row = |(name, ready, consumers): (&str, u32, u32)| QueueRow {
            name: name.to_owned(),
            ready: ready.into(),
            unacked: unacked.get(name).copied().unwrap_or(0),
            consumers: consumers.into(),
        };
        Ok(found.into_iter().map(row).collect())
    }

    /// Pauses or resumes.
    pub fn pause(&self, which: &Which, pause: bool) -> Res<()> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        match which {
            Which::All => {
                // what was said of some is overruled by what is said of all
                let fields = self.fields()?;
                for f in fields.keys().filter(|f| f.starts_with(&field::of(field::PAUSE, ""))) {
                    pipe.hdel(CONTROL, f).ignore();
                }
                match pause {
                    true => pipe.hset(CONTROL, field::PAUSE, "1").ignore(),
                    false => pipe.hdel(CONTROL, field::PAUSE).ignore(),
                };
            }
            Which::Workers(names) => {
                for n in names {
                    let value = if pause { "1" } else { "0" };
                    pipe.hset(CONTROL, field::of(field::PAUSE, n), value).ignore();
                }
            }
            Which::Job(id) => {
                let p = prefix(*id);
                pipe.hset(format!("{p}job"), "wanted", if pause { "pause" } else { "run" }).ignore();
            }
        }
        self.ask::<()>(&pipe)?;
        match which {
            Which::Job(id) if !pause => self.unshelve(*id),
            _ => Ok(()),
        }
    }

    /// Has the broker told again of tasks that waited for their job to be resumed: whoever looks after the outbox will.
    fn unshelve(&self, id: JobId) -> Res<()> {
        let key = format!("{}outbox", prefix(id));
        let mut pipe = redis::pipe();
        pipe.zrangebyscore(&key, SHELVED_MS, "+inf");
        let (tasks,) = self.ask::<(Vec<u64>,)>(&pipe)?;
        let mut pipe = redis::pipe();
        pipe.atomic();
        let there = redis::SortedSetAddOptions::update_only(None);
        for t in &tasks {
            pipe.zadd_options(&key, t, 0, &there).ignore();
        }
        if !tasks.is_empty() {
            self.ask::<()>(&pipe)?;
        }
        Ok(())
    }

    fn fields(&self) -> Res<BTreeMap<String, String>> {
        let mut pipe = redis::pipe();
        pipe.hgetall(CONTROL);
        Ok(self.ask::<(BTreeMap<String, String>,)>(&pipe)?.0)
    }

    /// Ends a job; `false`: it was not running.
    pub fn cancel(&self, id: JobId) -> Res<bool> {
        self.rt.block_on(self.ledger.end(id, JobState::Interrupted.name(), ""))
    }

    /// Sets the number of threads of workers by name, or of all; those that come later obey too.
    pub fn set_pool(&self, names: &[String], threads: usize) -> Res<()> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        if names.is_empty() {
            for f in self.fields()?.keys().filter(|f| f.starts_with(&field::of(field::POOL, ""))) {
                pipe.hdel(CONTROL, f).ignore();
            }
            pipe.hset(CONTROL, field::POOL, threads).ignore();
        }
        for n in names {
            pipe.hset(CONTROL, field::of(field::POOL, n), threads).ignore();
        }
        self.ask(&pipe)
    }

    /// Ends workers, by their full names.
    pub fn shutdown(&self, workers: &[String], now: bool) -> Res<()> {
        let mut pipe = redis::pipe();
        pipe.atomic();
        for w in workers {
            let how = if now { "now" } else { "graceful" };
            pipe.hset(CONTROL, field::of(field::STOP, w), how).ignore();
        }
        self.ask(&pipe)
    }

    /// Registers a job whose first tasks are these; each is a piece of work with what is to follow it.
    pub fn begin(&self, id: JobId, record: &JobRecord, first: Vec<(Work, Option<(Work, u64)>)>) -> Res<()> {
        let mut bundles = Vec::new();
        for (n, some) in first.chunks(RETRY_TASKS).enumerate() {
            let mut b = Bundle::default();
            for (i, (work, then)) in some.iter().enumerate() {
                let join = then.as_ref().map(|(follow_up, tally)| {
                    let id = JoinId(((n * RETRY_TASKS + i) as u64) << 1 | 1 << 63);
                    let follow_up = Some(NewTask::new(None, follow_up.clone()));
                    b.joins.push(LocalJoin { id, count: 1, tally: *tally, follow_up });
                    id
                });
                b.tasks.push(Task { id: TaskId(0), join, attempt: 0, tally: 0, work: work.clone() });
            }
            bundles.push(b);
        }
        let made = self.rt.block_on(self.ledger.create(id, &record.fields(), &bundles))?;
        // the outbox is looked after by the workers; this only spares them the wait
        let tasks: BTreeSet<u64> = made.iter().map(|(_, t)| t.0).collect();
        let mut pipe = redis::pipe();
        let there = redis::SortedSetAddOptions::update_only(None);
        let key = format!("{}outbox", prefix(id));
        for t in &tasks {
            pipe.zadd_options(&key, t, 0, &there).ignore();
        }
        self.ask(&pipe)
    }

    /// What everybody who works for a job has to know of it.
    pub fn record(&self, id: JobId) -> Res<Option<JobRecord>> {
        let mut pipe = redis::pipe();
        pipe.hgetall(format!("{}job", prefix(id)));
        let (fields,) = self.ask::<(HashMap<String, Vec<u8>>,)>(&pipe)?;
        Ok(JobRecord::read(&fields))
    }

    /// Milliseconds since 1970.
    pub fn now_ms() -> u64 {
        now_ms()
    }
}
