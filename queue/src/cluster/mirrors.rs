//! Mirrors of the cluster: what is kept of each in the ledger, and the lines by which those who detect, those who look and
//! whoever keeps it speak with each other.
//!
//! Of a mirror ID there are in Redis the hash `treeferry:{ID}:mirror` (what was asked for, and how far it is),
//! `treeferry:{ID}:keeper` (who keeps it, for a few seconds at a time), `treeferry:{ID}:kin:DEV:INO` (names of files with
//! several), `treeferry:{ID}:names` (which file each of those names is one of) and `treeferry:{ID}:recent0`, `recent1`
//! (names of files with one that were looked at lately); the set `treeferry:mirrors` has all IDs.

use super::control::Control;
use super::node::{Node, lock};
use super::record::JobRecord;
use super::report::{NodeReport, readable};
use crate::rabbitmq::lines;
use crate::redis::{Ledger, LedgerError, prefix};
use redis::{AsyncCommands, Script};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use treeferry_core::{GroupKey, JobId, RelPath};

/// All mirrors.
const ALL: &str = "treeferry:mirrors";
/// The line of what is to be looked at, for whoever looks.
pub const LOOKS: &str = "treeferry.looks";
/// Whoever keeps a mirror says so anew before this is over (ms).
pub const KEEPER_MS: u64 = 10_000;
/// A turn that its owner does not end is over after this (ms).
const TURN_MS: u64 = 10_000;
/// Files in a generation of those that were looked at lately.
const RECENT: usize = 100_000;
/// Whoever waits for the broker looks so often whether that is still wanted.
const ASK_AGAIN: Duration = Duration::from_millis(100);
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
        self.rt.spawn(async move { self.slip.ack().await });
    }

    /// The broker gives it to somebody again, at once.
    pub fn give_back(self) {
        self.rt.spawn(async move { self.slip.give_back().await });
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

    /// Takes what comes by a line, at most `prefetch` unsettled ones at a time; 0: all.
    pub fn inbox(&self, line: &str, prefetch: u16) -> Inbox {
        let _in = self.rt.enter();
        let from = tokio::sync::Mutex::new(lines::listen(&self.shared.url, line, prefetch));
        Inbox { from, rt: self.rt.handle().clone() }
    }

    /// Messages of a line that nobody has yet. `None`: that cannot be said now.
    pub fn waiting_in(&self, line: &str) -> Option<u32> {
        let asked = async { tokio::time::timeout(WITHIN, lines::depth(&self.shared.url, line)).await };
        Some(self.rt.block_on(asked).ok()?.ok()?.map_or(0, |(n, _)| n))
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

    /// Notes that a walk is one of a mirror, and whether it is of a part of the source; `None`: it is over.
    pub fn note_walk(&self, walk: JobId, mirror: Option<(JobId, bool)>) -> Res<()> {
        self.rt.block_on(self.shared.ledger.stubborn(|mut c| async move {
            match mirror {
                Some((m, part)) => {
                    let text = if part { format!("{m} {PART}") } else { m.to_string() };
                    c.hset::<_, _, _, ()>("treeferry:mirror-walks", walk.to_string(), text).await
                }
                None => c.hdel::<_, _, ()>("treeferry:mirror-walks", walk.to_string()).await,
            }
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
        Names { node: Arc::clone(self), id, notes: Arc::default() }
    }

    /// What daemons that are alive say of themselves.
    pub fn reports(&self) -> Res<Vec<NodeReport>> {
        let raw = self.rt.block_on(self.shared.ledger.stubborn(|mut c| async move {
            let names: Vec<String> = c.smembers("treeferry:workers").await?;
            let keys: Vec<String> = names.iter().map(|n| format!("treeferry:node:{n}")).collect();
            match keys.is_empty() {
                true => Ok(Vec::new()),
                false => c.mget::<_, Vec<Option<String>>>(keys).await,
            }
        }))?;
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
        let removed = self.rt.block_on(lines::remove(&self.shared.url, &line(id)));
        if let Err(e) = removed {
            tracing::warn!("the broker still has {}: {e}", line(id));
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

async fn within<T>(asked: impl Future<Output = Result<T, redis::RedisError>>) -> Res<T> {
    match tokio::time::timeout(WITHIN, asked).await {
        Ok(r) => Ok(r?),
        Err(_) => Err(LedgerError::Redis(std::io::Error::from(std::io::ErrorKind::TimedOut).into())),
    }
}

/// A name that is to be noted.
enum Note {
    One(GroupKey, RelPath),
    Several(GroupKey, RelPath),
    /// Of a file that had one and has several by now.
    First(GroupKey, RelPath),
}

/// Names of files of a mirror.
pub struct Names {
    node: Arc<Node>,
    id: JobId,
    notes: Arc<Mutex<Vec<Note>>>,
}

impl Names {
    fn key(&self, what: &str) -> String {
        format!("{}{what}", prefix(self.id))
    }

    fn kin(&self, key: GroupKey) -> String {
        self.key(&format!("kin:{}:{}", key.dev, key.ino))
    }

    /// Notes a name of a file; `single`: it has no other. Written with others in a moment.
    pub fn note(&self, key: GroupKey, path: RelPath, single: bool) {
        self.put(if single { Note::One(key, path) } else { Note::Several(key, path) });
    }

    fn put(&self, note: Note) {
        let mut notes = lock(&self.notes);
        notes.push(note);
        let first = notes.len() == 1;
        drop(notes);
        if first {
            let (notes, p) = (Arc::clone(&self.notes), prefix(self.id));
            let ledger = self.node.shared.ledger.clone();
            self.node.rt.spawn(async move {
                tokio::time::sleep(Duration::from_millis(5)).await;
                let some = std::mem::take(&mut *lock(&notes));
                write(&ledger, &p, some).await;
            });
        }
    }

    /// Writes what is to be noted.
    fn flush(&self) {
        let some = std::mem::take(&mut *lock(&self.notes));
        if !some.is_empty() {
            self.node.rt.block_on(write(&self.node.shared.ledger, &prefix(self.id), some));
        }
    }

    /// All names that are known of a file.
    pub fn of(&self, key: GroupKey) -> Vec<RelPath> {
        self.flush();
        let (kin, field) = (self.kin(key), format!("{}:{}", key.dev, key.ino));
        let recent = [self.key("recent0"), self.key("recent1")];
        type Answer = (Vec<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>);
        let answer = self.node.rt.block_on(self.node.shared.ledger.stubborn(|mut c| {
            let (kin, field, recent) = (kin.clone(), field.clone(), recent.clone());
            async move {
                let mut pipe = redis::pipe();
                pipe.smembers(kin).hget(&recent[0], &field).hget(&recent[1], &field);
                pipe.query_async::<Answer>(&mut c).await
            }
        }));
        let (names, a, b) = answer.unwrap_or_default();
        let firsts = [&a, &b].into_iter().flatten().filter_map(|n| RelPath::new(n.clone()).ok());
        let firsts: Vec<Note> = firsts.map(|first| Note::First(key, first)).collect();
        if !firsts.is_empty() {
            // at once: whoever looks at that name next, and finds it gone, is to know whose it was
            self.node.rt.block_on(write(&self.node.shared.ledger, &prefix(self.id), firsts));
        }
        names.into_iter().chain(a).chain(b).filter_map(|n| RelPath::new(n).ok()).collect()
    }

    /// The file with several names that a name was last noted for.
    pub fn file_of(&self, path: &RelPath) -> Option<GroupKey> {
        self.flush();
        let names = self.key("names");
        let asked = self.node.rt.block_on(self.node.shared.ledger.stubborn(|mut c| {
            let (names, path) = (names.clone(), path.as_bytes().to_vec());
            async move { c.hget::<_, _, Option<String>>(names, path).await }
        }));
        let file = asked.ok().flatten()?;
        let (dev, ino) = file.split_once(':')?;
        Some(GroupKey { dev: dev.parse().ok()?, ino: ino.parse().ok()? })
    }

    /// The word that is kept on a file.
    pub fn mark(&self, key: GroupKey) -> Option<String> {
        let (marks, field) = (self.key("searched"), format!("{}:{}", key.dev, key.ino));
        let asked = self.node.rt.block_on(self.node.shared.ledger.stubborn(|mut c| {
            let (marks, field) = (marks.clone(), field.clone());
            async move { c.hget::<_, _, Option<String>>(marks, field).await }
        }));
        asked.unwrap_or_default()
    }

    /// Keeps a word on a file.
    pub fn put_mark(&self, key: GroupKey, word: &str) {
        let (marks, field) = (self.key("searched"), format!("{}:{}", key.dev, key.ino));
        let _ = self.node.rt.block_on(self.node.shared.ledger.stubborn(|mut c| {
            let (marks, field, word) = (marks.clone(), field.clone(), word.to_owned());
            async move { c.hset::<_, _, _, ()>(marks, field, word).await }
        }));
    }

    /// A name is not one of that file any more.
    pub fn forget(&self, key: GroupKey, path: &RelPath) {
        self.flush();
        let (kin, field) = (self.kin(key), format!("{}:{}", key.dev, key.ino));
        let keys = [self.key("recent0"), self.key("recent1"), self.key("searched"), self.key("names")];
        let script = Script::new(include_str!("../redis/forget_name.lua"));
        let _ = self.node.rt.block_on(self.node.shared.ledger.stubborn(|mut c| {
            let (kin, field, keys, script) = (kin.clone(), field.clone(), keys.clone(), script.clone());
            async move {
                let mut call = script.key(kin);
                for k in &keys {
                    call.key(k);
                }
                call.arg(field).arg(path.as_bytes()).invoke_async::<()>(&mut c).await
            }
        }));
    }

    /// Runs something for a file while nobody else does that, in whatever process.
    pub fn in_turn(&self, key: GroupKey, f: &mut dyn FnMut()) {
        let turn = self.key(&format!("turn:{}:{}", key.dev, key.ino));
        let token = self.node.draw_token();
        loop {
            let mine = self.node.rt.block_on(self.node.shared.ledger.stubborn(|mut c| {
                let turn = turn.clone();
                let set = redis::SetOptions::default()
                    .conditional_set(redis::ExistenceCheck::NX)
                    .with_expiration(redis::SetExpiry::PX(TURN_MS));
                async move { c.set_options::<_, _, Option<String>>(turn, token, set).await }
            }));
            if !matches!(mine, Ok(None)) {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        f();
        let script =
            Script::new("if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end");
        let _ = self.node.rt.block_on(self.node.shared.ledger.stubborn(|mut c| {
            let (turn, script) = (turn.clone(), script.clone());
            async move { script.key(turn).arg(token).invoke_async::<()>(&mut c).await }
        }));
    }
}

/// Writes names. What the ledger does not take is missed later, and searched for then.
async fn write(ledger: &Ledger, p: &str, notes: Vec<Note>) {
    let script = Script::new(include_str!("../redis/recent.lua"));
    let mut call = script.key(format!("{p}recent0"));
    call.key(format!("{p}recent1")).arg(RECENT);
    let (mut pipe, mut singles, names) = (redis::pipe(), false, format!("{p}names"));
    for n in &notes {
        let file = |k: &GroupKey| format!("{}:{}", k.dev, k.ino);
        match n {
            Note::One(k, path) => {
                singles = true;
                call.arg(file(k)).arg(path.as_bytes());
            }
            Note::Several(k, path) => {
                pipe.sadd(format!("{p}kin:{}:{}", k.dev, k.ino), path.as_bytes()).ignore();
                pipe.hset(&names, path.as_bytes(), file(k)).ignore();
            }
            Note::First(k, path) => {
                pipe.hset_nx(&names, path.as_bytes(), file(k)).ignore();
            }
        }
    }
    let mut c = ledger.conn();
    let all = async {
        if singles {
            call.invoke_async::<()>(&mut c).await?;
        }
        match pipe.cmd_iter().next() {
            Some(_) => pipe.query_async::<()>(&mut c).await,
            None => Ok(()),
        }
    };
    if let Err(e) = within(all).await {
        tracing::info!("names of files are not noted: {e}");
    }
}
