//! Names of files with several, and which file a name was one of, as all who work for a mirror have seen them.

use super::within;
use crate::cluster::node::{Node, lock};
use crate::redis::{Ledger, prefix};
use redis::{AsyncCommands, Script};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use treeferry_core::{GroupKey, JobId, RelPath};

/// Files in a generation of those that were looked at lately.
const RECENT: usize = 100_000;
/// A turn that its owner does not end is over after this (ms).
const TURN_MS: u64 = 10_000;

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
    /// Of a mirror.
    pub(super) fn new(node: Arc<Node>, id: JobId) -> Names {
        Names { node, id, notes: Arc::default() }
    }

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
        let script = Script::new(include_str!("../../redis/forget_name.lua"));
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
    let script = Script::new(include_str!("../../redis/recent.lua"));
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
