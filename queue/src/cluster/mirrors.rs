//! Mirrors of the cluster: what is kept of each in the ledger, and the lines by which those who detect, those who look and
//! whoever keeps it speak with each other.
//!
//! Of a mirror ID there are in Redis the hash `treeferry:{ID}:mirror` (what was asked for, and how far it is),
//! `treeferry:{ID}:keeper` (who keeps it, for a few seconds at a time), `treeferry:{ID}:kin:DEV:INO` (names of files with
//! several), `treeferry:{ID}:names` (which file each of those names is one of) and `treeferry:{ID}:recent0`, `recent1`
//! (names of files with one that were looked at lately); the set `treeferry:mirrors` has all IDs.

mod names;

use super::control::Control;
use super::node::Node;
use super::record::JobRecord;
use super::report::{NodeReport, readable};
use crate::rabbitmq::lines;
pub use crate::rabbitmq::lines::Taker;
use crate::redis::{LedgerError, prefix};
pub use names::Names;
use redis::aio::ConnectionManager;
use redis::{AsyncCommands, Script};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use treeferry_core::JobId;

/// All mirrors.
const ALL: &str = "treeferry:mirrors";
/// The line of what is to be looked at, for whoever looks.
pub const LOOKS: &str = "treeferry.looks";
/// Whoever keeps a mirror says so anew before this is over (ms).
pub const KEEPER_MS: u64 = 10_000;
/// Whoever waits for the broker looks so often whether that is still wanted.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Within this agents hear that a mirror is gone, and have stopped to send.
const HEARD_WITHIN: Duration = Duration::from_millis(1500);
/// A question that need not be answered waits no longer.
const WITHIN: Duration = Duration::from_secs(2);

type Res<T> = Result<T, LedgerError>;

/// The line of what is told whoever keeps a mirror.
pub fn line(mirror: JobId) -> String {
    format!("treeferry.mirror.{mirror}")
}

/// What has come by a line, and what settles it.
pub struct Letter {
    /// What it says.
    pub body: Vec<u8>,
    /// It has been somewhere before.
    pub redelivered: bool,
    slip: crate::rabbitmq::Slip,
    rt: tokio::runtime::Handle,
}

impl Letter {
    /// The broker forgets it.
    pub fn done(self) {
        self.heard().done();
    }

    /// What settles it later, without what it says.
    pub fn heard(self) -> Heard {
        Heard { slip: self.slip, rt: self.rt }
    }

    /// The broker gives it to somebody again, at once.
    pub fn give_back(self) {
        self.rt.spawn(async move { self.slip.give_back().await });
    }
}

/// What settles a message that was read.
pub struct Heard {
    slip: crate::rabbitmq::Slip,
    rt: tokio::runtime::Handle,
}

impl Heard {
    /// The broker forgets it.
    pub fn done(self) {
        self.rt.spawn(async move { self.slip.ack().await });
    }
}

/// What comes by a line.
pub struct Inbox {
    from: tokio::sync::Mutex<mpsc::UnboundedReceiver<lines::Delivery>>,
    rt: tokio::runtime::Handle,
}

impl Inbox {
    /// The next, if there is one within that time.
    pub fn next(&self, patience: Duration) -> Option<Letter> {
        let next = async { tokio::time::timeout(patience, self.from.lock().await.recv()).await };
        let d = self.rt.block_on(next).ok().flatten()?;
        let (body, redelivered, slip) = (d.body, d.redelivered, d.slip);
        Some(Letter { body, redelivered, slip, rt: self.rt.clone() })
    }
}

/// Says once that the broker has what was sent.
pub struct Sent {
    answer: oneshot::Receiver<()>,
    rt: tokio::runtime::Handle,
}

impl Sent {
    /// Waits until it has, or until time is over.
    pub fn wait(self, patience: Duration) -> bool {
        let r = self.rt.block_on(async { tokio::time::timeout(patience, self.answer).await });
        matches!(r, Ok(Ok(())))
    }

    /// Waits until it has, or until `over` says so, which is asked again and again.
    pub fn wait_unless(mut self, over: impl Fn() -> bool) -> bool {
        loop {
            let answer = async { tokio::time::timeout(ASK_AGAIN, &mut self.answer).await };
            match self.rt.block_on(answer) {
                Ok(answer) => return answer.is_ok(),
                Err(_) if over() => return false,
                Err(_) => {}
            }
        }
    }

    /// Waits until it has, however long that takes.
    pub fn wait_for_ever(self) {
        let _ = self.rt.block_on(self.answer);
    }
}

/// Sends by lines, in order.
pub struct Outgoing {
    sender: lines::Sender,
    rt: tokio::runtime::Handle,
}

impl Outgoing {
    /// Sends. `lasts`: it is to survive a restart of the broker.
    pub fn send(&self, line: &str, body: Vec<u8>, lasts: bool) -> Sent {
        Sent { answer: self.sender.send(line, body, lasts), rt: self.rt.clone() }
    }

    /// Bytes that the broker has not confirmed.
    pub fn unsent(&self) -> usize {
        self.sender.unsent()
    }
}

/// For so long (s) it is known of a walk of a part of a source how it ended.
const PART_S: u64 = 600;
/// What is noted of a walk of a part of a source, after the mirror.
const PART: &str = "part";

/// What was noted of a walk: the mirror, and whether it is of a part.
fn walked_for(text: &str) -> Option<(JobId, bool)> {
    let (mirror, rest) = text.split_once(' ').unwrap_or((text, ""));
    Some((mirror.parse().ok()?, rest == PART))
}

impl Node {
    /// A way to send by lines.
    pub fn outgoing(&self) -> Outgoing {
        let _in = self.rt.enter();
        Outgoing { sender: lines::Sender::new(&self.shared.url), rt: self.rt.handle().clone() }
    }

    /// Takes what comes by a line.
    pub fn inbox(&self, line: &str, taker: Taker) -> Inbox {
        let _in = self.rt.enter();
        let from = tokio::sync::Mutex::new(lines::listen(&self.shared.url, line, taker));
        Inbox { from, rt: self.rt.handle().clone() }
    }

    /// Messages of a line that nobody has yet. `None`: that cannot be said now.
    pub fn waiting_in(&self, line: &str) -> Option<u32> {
        let asked = async { tokio::time::timeout(WITHIN, lines::depth(&self.shared.url, line)).await };
        Some(self.rt.block_on(asked).ok()?.ok()?.map_or(0, |(n, _)| n))
    }

    /// Whether the broker has a line.
    pub fn has_line(&self, line: &str) -> Result<bool, String> {
        self.rt.block_on(lines::exists(&self.shared.url, line)).map_err(|e| e.to_string())
    }

    /// All mirrors of the cluster.
    pub fn mirrors(&self) -> Res<Vec<JobId>> {
        let all = self.rt.block_on(self.shared.ledger.stubborn(|mut c| async move {
            let all: Vec<String> = c.smembers(ALL).await?;
            Ok(all)
        }))?;
        Ok(all.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// The same, unless the ledger does not answer at once.
    pub fn mirrors_now(&self) -> Res<Vec<JobId>> {
        let mut c = self.shared.ledger.conn();
        let all = self.rt.block_on(within(async { c.smembers::<_, Vec<String>>(ALL).await }))?;
        Ok(all.iter().filter_map(|id| id.parse().ok()).collect())
    }

    /// What was asked for; `None`: there is no such mirror.
    pub fn mirror(&self, id: JobId) -> Res<Option<JobRecord>> {
        Ok(JobRecord::read(&self.mirror_fields(id)?))
    }

    /// All that is kept of a mirror.
    pub fn mirror_fields(&self, id: JobId) -> Res<HashMap<String, Vec<u8>>> {
        let key = format!("{}mirror", prefix(id));
        self.rt.block_on(self.shared.ledger.stubborn(|mut c| {
            let key = key.clone();
            async move { c.hgetall(key).await }
        }))
    }

    /// Registers a mirror, or changes what was asked for, with more that is kept of it, all at once.
    pub fn put_mirror(&self, id: JobId, record: &JobRecord, more: Vec<(String, Vec<u8>)>) -> Res<()> {
        let record = record.fields();
        let fields: Vec<(String, Vec<u8>)> =
            record.into_iter().map(|(k, v)| (k.to_owned(), v)).chain(more).collect();
        self.rt.block_on(self.shared.ledger.stubborn(|mut c| {
            let fields = fields.clone();
            async move {
                let mut pipe = redis::pipe();
                pipe.atomic().sadd(ALL, id.to_string()).ignore();
                pipe.hset_multiple(format!("{}mirror", prefix(id)), &fields).ignore();
                pipe.query_async::<()>(&mut c).await
            }
        }))
    }

    /// Keeps more of a mirror. Fails when the ledger does not answer at once.
    pub fn note_mirror(&self, id: JobId, fields: &[(String, Vec<u8>)]) -> Res<()> {
        let (mut c, key) = (self.shared.ledger.conn(), format!("{}mirror", prefix(id)));
        let set = async { c.hset_multiple::<_, _, _, ()>(key, fields).await };
        self.rt.block_on(within(set))
    }

    /// One field of a mirror. Fails when the ledger does not answer at once.
    pub fn mirror_field(&self, id: JobId, field: &str) -> Res<Option<Vec<u8>>> {
        let (mut c, key) = (self.shared.ledger.conn(), format!("{}mirror", prefix(id)));
        let get = async { c.hget::<_, _, Option<Vec<u8>>>(key, field).await };
        self.rt.block_on(within(get))
    }

    /// What tells one wish for a mirror from an earlier one, [`JobRecord::created_ms`]. Fails when the ledger does not
    /// answer at once.
    pub fn mirror_wish(&self, id: JobId) -> Res<Option<u64>> {
        let created = self.mirror_field(id, "created")?;
        Ok(created.and_then(|b| std::str::from_utf8(&b).ok()?.parse().ok()))
    }

    /// Says that `who` keeps a mirror, for [`KEEPER_MS`]. Somebody else may: then that is returned.
    pub fn keep_mirror(&self, id: JobId, who: &str) -> Res<Option<String>> {
        let script = Script::new(include_str!("../redis/keep.lua"));
        let mut c = self.shared.ledger.conn();
        let key = format!("{}keeper", prefix(id));
        let asked =
            async { script.key(key).arg(who).arg(KEEPER_MS).invoke_async::<Option<String>>(&mut c).await };
        self.rt.block_on(within(asked))
    }

    /// Who keeps a mirror now, if anybody does. Fails when the ledger does not answer at once.
    pub fn keeper_of(&self, id: JobId) -> Res<Option<String>> {
        let (mut c, key) = (self.shared.ledger.conn(), format!("{}keeper", prefix(id)));
        self.rt.block_on(within(async { c.get::<_, Option<String>>(key).await }))
    }

    /// `who` keeps it no more.
    pub fn release_mirror(&self, id: JobId, who: &str) {
        let script =
            Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end");
        let mut c = self.shared.ledger.conn();
        let key = format!("{}keeper", prefix(id));
        let asked = async { script.key(key).arg(who).invoke_async::<()>(&mut c).await };
        // it is over by itself in a moment
        let _ = self.rt.block_on(within(asked));
    }

    /// Notes that a walk is one of a mirror, and whether it is of a part of the source.
    pub fn note_walk(&self, walk: JobId, mirror: JobId, part: bool) -> Res<()> {
        self.rt.block_on(self.shared.ledger.stubborn(|mut c| async move {
            let text = if part { format!("{mirror} {PART}") } else { mirror.to_string() };
            c.hset::<_, _, _, ()>("treeferry:mirror-walks", walk.to_string(), text).await
        }))
    }

    /// A walk is over, and its keeper has heard all of it. One of a part, of which each rename of a directory makes one, is
    /// forgotten in a while; others are jobs like any.
    pub fn walk_is_over(&self, walk: JobId) -> Res<()> {
        if self.mirror_of_walk(walk)?.is_some_and(|(_, part)| part) {
            self.rt.block_on(self.shared.ledger.fade(walk, PART_S))?;
        }
        self.rt.block_on(self.shared.ledger.stubborn(|mut c| async move {
            c.hdel::<_, _, ()>("treeferry:mirror-walks", walk.to_string()).await
        }))
    }

    /// Jobs that walk for a mirror.
    pub fn walks_of_mirror(&self, mirror: JobId) -> Res<Vec<JobId>> {
        let all = self.rt.block_on(self.shared.ledger.stubborn(|mut c| async move {
            c.hgetall::<_, HashMap<String, String>>("treeferry:mirror-walks").await
        }))?;
        let ours = all.iter().filter(|(_, m)| walked_for(m).is_some_and(|(m, _)| m == mirror));
        Ok(ours.filter_map(|(walk, _)| walk.parse().ok()).collect())
    }

    /// The mirror that a job walks for, if it does, and whether it walks a part of its source.
    pub fn mirror_of_walk(&self, walk: JobId) -> Res<Option<(JobId, bool)>> {
        let m = self.rt.block_on(self.shared.ledger.stubborn(|mut c| async move {
            c.hget::<_, _, Option<String>>("treeferry:mirror-walks", walk.to_string()).await
        }))?;
        Ok(m.and_then(|m| walked_for(&m)))
    }

    /// The names of files of a mirror, as all who work for it have seen them.
    pub fn names_of_mirror(self: &Arc<Node>, id: JobId) -> Names {
        Names::new(Arc::clone(self), id)
    }

    /// What daemons that are alive say of themselves.
    pub fn reports(&self) -> Res<Vec<NodeReport>> {
        let raw = self.rt.block_on(self.shared.ledger.stubborn(said_by_daemons))?;
        Ok(readable(raw).collect())
    }

    /// The same, unless the ledger does not answer at once.
    pub fn reports_now(&self) -> Res<Vec<NodeReport>> {
        let raw = self.rt.block_on(within(said_by_daemons(self.shared.ledger.conn())))?;
        Ok(readable(raw).collect())
    }

    /// Removes all that is kept of a mirror.
    pub fn forget_mirror(&self, id: JobId) -> Res<()> {
        let p = prefix(id);
        self.rt.block_on(self.shared.ledger.stubborn(|mut c| {
            let p = p.clone();
            async move {
                c.srem::<_, _, ()>(ALL, id.to_string()).await?;
                let mut keys: Vec<String> = Vec::new();
                let mut all = c.scan_match::<_, String>(format!("{p}*")).await?;
                while let Some(key) = all.next_item().await {
                    keys.push(key?);
                }
                drop(all);
                for some in keys.chunks(1000) {
                    c.del::<_, ()>(some).await?;
                }
                Ok(())
            }
        }))?;
        let remove = || {
            if let Err(e) = self.rt.block_on(lines::remove(&self.shared.url, &line(id))) {
                tracing::warn!("the broker still has {}: {e}", line(id));
            }
        };
        remove();
        // who has not heard yet that the mirror is gone has sent meanwhile, which makes the queue anew
        std::thread::sleep(HEARD_WITHIN);
        if !self.mirrors_now()?.contains(&id) {
            remove();
        }
        Ok(())
    }
}

/// How a mirror of the cluster stands.
pub struct MirrorRow {
    /// Which.
    pub id: JobId,
    /// What was asked for.
    pub record: JobRecord,
    /// Who keeps it now, if anybody does.
    pub kept_by: Option<String>,
    /// What whoever keeps it, or kept it last, has written of it.
    pub report: Vec<u8>,
}

impl Control {
    /// All mirrors of the cluster.
    pub fn mirrors(&self) -> Res<Vec<MirrorRow>> {
        self.rt.block_on(self.ledger.stubborn(|mut c| async move {
            let mut rows = Vec::new();
            for id in c.smembers::<_, Vec<String>>(ALL).await? {
                let Ok(id) = id.parse::<JobId>() else { continue };
                let p = prefix(id);
                let mut pipe = redis::pipe();
                pipe.hgetall(format!("{p}mirror")).get(format!("{p}keeper"));
                let (mut fields, kept_by): (HashMap<String, Vec<u8>>, Option<String>) =
                    pipe.query_async(&mut c).await?;
                let Some(record) = JobRecord::read(&fields) else { continue };
                rows.push(MirrorRow {
                    id,
                    record,
                    kept_by,
                    report: fields.remove("report").unwrap_or_default(),
                });
            }
            Ok(rows)
        }))
    }
}

async fn said_by_daemons(mut c: ConnectionManager) -> Result<Vec<Option<String>>, redis::RedisError> {
    let names: Vec<String> = c.smembers("treeferry:workers").await?;
    let keys: Vec<String> = names.iter().map(|n| format!("treeferry:node:{n}")).collect();
    match keys.is_empty() {
        true => Ok(Vec::new()),
        false => c.mget(keys).await,
    }
}

async fn within<T>(asked: impl Future<Output = Result<T, redis::RedisError>>) -> Res<T> {
    match tokio::time::timeout(WITHIN, asked).await {
        Ok(r) => Ok(r?),
        Err(_) => Err(LedgerError::Redis(std::io::Error::from(std::io::ErrorKind::TimedOut).into())),
    }
}
