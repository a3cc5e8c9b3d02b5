//! Whoever looks after tasks that nobody has.

use super::bundle::Lane;
use super::node::{Shared, lock, post_all};
use super::record::SiteError;
use super::report::{CONTROL, field};
use crate::rabbitmq::{DEAD, Slip};
use crate::redis::{now_ms, prefix};
use redis::AsyncCommands;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};
use treeferry_core::{JobId, TaskId};

/// How often somebody looks for tasks that the broker has lost.
const REAP: Duration = Duration::from_secs(2);
/// A task that is neither queued nor held nor in the outbox at so many looks in a row is published again.
const LOOKS: u32 = 3;
/// What the outbox holds for so long (ms) is published again.
const STALE_MS: u64 = 3000;
/// For so long (ms) a task whose message was acknowledged before its end is left alone; it is said again at each look.
const LEASE_MS: u64 = 30_000;

/// Looks after tasks that nobody has: those that were never confirmed, and those that a broker has lost. One process
/// at a time does.
pub(super) async fn reap(s: Arc<Shared>) {
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
        s.leads.store(false, Relaxed);
        return Ok(());
    }
    s.leads.store(true, Relaxed);
    let _: () = c.pexpire("treeferry:reaper", REAP.as_millis() as i64 * 2).await.map_err(err)?;
    let running: Vec<String> = c.smembers("treeferry:running").await.map_err(err)?;
    let running: Vec<JobId> = running.iter().filter_map(|j| j.parse().ok()).collect();
    for job in &running {
        s.ledger.sample(*job).await?;
    }
    if s.broker.is_blocked() {
        return Ok(());
    }
    let queues = s.broker.look(&Lane::ALL).await?;
    let queued: u32 = queues.iter().filter(|(name, ..)| *name != DEAD).map(|(_, ready, _)| ready).sum();
    *lock(&s.queues) = Some((Instant::now(), queues));
    let mut everybody: BTreeSet<String> = BTreeSet::new();
    for w in c.smembers::<_, Vec<String>>("treeferry:workers").await.map_err(err)? {
        let held: Vec<String> = c.smembers(format!("treeferry:held:{w}")).await.map_err(err)?;
        if held.is_empty() {
            bury(&mut c, &w).await.map_err(err)?;
        }
        everybody.extend(held);
    }
    let mut still: HashMap<(JobId, u64), u32> = HashMap::new();
    for job in running {
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
    pipe.hdel(CONTROL, field::all_of(worker)).ignore();
    pipe.query_async(c).await
}

/// Acknowledges messages of tasks that take long, so that the broker does not take us for dead. From then on the
/// outbox has the task, with a time to come that we put off as long as we live.
async fn let_go_of_long_ones(s: &Arc<Shared>) -> Result<(), redis::RedisError> {
    let long: Vec<(JobId, TaskId, Option<Slip>)> = lock(&s.held)
        .iter_mut()
        .filter(|(_, h)| h.since.elapsed() > s.acknowledge_after)
        .map(|((j, t), h)| (*j, *t, (!std::mem::replace(&mut h.let_go, true)).then(|| h.slip.clone())))
        .collect();
    for (job, task, slip) in long {
        let key = format!("{}outbox", prefix(job));
        let until = now_ms() + LEASE_MS;
        let Some(slip) = slip else {
            // what is no longer there is done
            let options = redis::SortedSetAddOptions::update_only(None);
            s.ledger.conn().zadd_options::<_, _, _, ()>(key, task.0, until, &options).await?;
            continue;
        };
        s.ledger.conn().zadd::<_, _, _, ()>(key, task.0, until).await?;
        slip.ack().await;
    }
    Ok(())
}
