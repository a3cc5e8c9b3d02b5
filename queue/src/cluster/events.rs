//! Events on their way from a process of the cluster to the stream of all of them.
//!
//! The worker threads put them into a bounded box and go on; a task of its own, with a connection of its own, takes what
//! is there some times a second and has Redis write it, some hundred at a time. While Redis is away or slow the box fills,
//! and what finds no room is dropped and counted: copying never waits for it.

use super::node::Shared;
use redis::Script;
use redis::aio::ConnectionManager;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};
use treeferry_core::Event;
use treeferry_core::event::{EventKind, Line, Origin, Outbox, micros};

/// The stream.
pub(super) const STREAM: &str = "treeferry:events";
/// What a process has room for that nobody has told how much.
const FIRST_ROOM: usize = 10_000;
/// How often the box is emptied.
const INTERVAL: Duration = Duration::from_millis(100);
/// Events in one entry of the stream, at most: so many that an entry of its own costs each next to nothing.
const AT_ONCE: usize = 512;
/// Lines of more bytes are compressed: they are alike, and become a tenth. Redis is one for all processes, and what it
/// has to move costs it more than the command does. Fewer are left as they are, for whoever looks with redis-cli.
const PLAIN_BYTES: usize = 2 << 10;
/// Fields of an entry that have its lines: as they are, and compressed, with their length (4 bytes, the lowest first)
/// before.
pub(super) const PLAIN: &str = "lines";
pub(super) const COMPRESSED: &str = "lz4";
/// What was written is kept for so long, and up to so many bytes of it: Redis answers up to two seconds before it has
/// written to its append-only file when the disk is slow, and if it is killed then it has forgotten.
const KEEP: Duration = Duration::from_secs(10);
const KEEP_BYTES: usize = 8 << 20;
/// Between two attempts to reach Redis: from this, doubled, to [`MOST_PATIENCE`].
const FIRST_PATIENCE: Duration = Duration::from_millis(100);
const MOST_PATIENCE: Duration = Duration::from_secs(2);

/// What a process has to tell.
pub(super) struct Telling {
    pub outbox: Arc<Outbox>,
    /// Events that are still to be put into the box.
    pub promised: AtomicU64,
    /// Events that were taken out of the box and are not written yet.
    pub underway: AtomicU64,
    /// The last attempt to write failed.
    pub away: AtomicBool,
}

impl Telling {
    pub fn new() -> Telling {
        Telling {
            outbox: Arc::new(Outbox::new(FIRST_ROOM)),
            promised: AtomicU64::new(0),
            underway: AtomicU64::new(0),
            away: AtomicBool::new(false),
        }
    }

    /// Whether all is written.
    pub fn is_done(&self) -> bool {
        // in this order: `underway` is raised before the box is emptied
        self.promised.load(Relaxed) == 0 && self.outbox.is_empty() && self.underway.load(Relaxed) == 0
    }
}

/// Writes events as long as the process lives.
pub(super) async fn write(s: Arc<Shared>, host: String, most: u64) {
    let conn = match s.ledger.second() {
        Ok(c) => c,
        Err(e) => return tracing::error!("events cannot be written: {e}"),
    };
    let mut w = Writer {
        script: Script::new(include_str!("../redis/events.lua")),
        conn,
        origin: Origin { host, worker: s.name.clone() },
        // the number of a process may come round again
        source: format!("{}.{}", s.name, micros(SystemTime::now())),
        most,
        seq: 0,
        kept: VecDeque::new(),
        kept_bytes: 0,
    };
    while !s.gone.load(Relaxed) {
        s.telling.underway.store(1, Relaxed);
        let (mut events, dropped) = s.telling.outbox.take();
        if dropped > 0 {
            let (word, time_us) = (Event::new(EventKind::EventsDropped), micros(SystemTime::now()));
            events.push(Event { time_us, count: Some(dropped), ..word });
        }
        s.telling.underway.store(events.len() as u64, Relaxed);
        for some in events.chunks(AT_ONCE) {
            w.write(some, &s.telling.away).await;
            s.telling.underway.fetch_sub(some.len() as u64, Relaxed);
        }
        if events.len() < AT_ONCE {
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

/// Some events as they are written.
struct Entry {
    at: Instant,
    first: u64,
    count: usize,
    form: &'static str,
    lines: Vec<u8>,
}

struct Writer {
    script: Script,
    conn: ConnectionManager,
    origin: Origin,
    source: String,
    most: u64,
    seq: u64,
    /// The latest, which Redis may yet forget; the last of them is the one that is being written.
    kept: VecDeque<Entry>,
    kept_bytes: usize,
}

impl Writer {
    /// Has them written, however long that takes: those that come meanwhile wait in the box.
    async fn write(&mut self, events: &[Event], away: &AtomicBool) {
        let mut lines = Vec::with_capacity(events.len() * 320);
        for (n, e) in (self.seq..).zip(events) {
            Line::of(e, &self.origin, n).write(&mut lines);
        }
        let (form, lines) = match lines.len() > PLAIN_BYTES {
            true => (COMPRESSED, lz4_flex::compress_prepend_size(&lines)),
            false => (PLAIN, lines),
        };
        self.keep(Entry { at: Instant::now(), first: self.seq, count: events.len(), form, lines });
        self.seq += events.len() as u64;
        self.send(away).await;
        if away.swap(false, Relaxed) {
            tracing::warn!("events are written again");
        }
    }

    fn keep(&mut self, entry: Entry) {
        let now = entry.at;
        self.kept_bytes += entry.lines.len();
        self.kept.push_back(entry);
        while self.kept.len() > 1 {
            let Some(old) = self.kept.front() else { return };
            if self.kept_bytes <= KEEP_BYTES && now.duration_since(old.at) < KEEP {
                return;
            }
            self.kept_bytes -= old.lines.len();
            self.kept.pop_front();
        }
    }

    /// Writes the last entry, and before it what Redis has forgotten of those that were written.
    async fn send(&mut self, away: &AtomicBool) {
        let mut patience = FIRST_PATIENCE;
        let (mut next, mut whatever_is_missing) = (self.kept.len() - 1, false);
        while let Some(e) = self.kept.get(next) {
            let mut call = self.script.key(STREAM);
            call.arg(self.most).arg(&self.source).arg(e.first).arg(e.count).arg(e.form).arg(&e.lines);
            call.arg(u8::from(whatever_is_missing));
            match call.invoke_async::<i64>(&mut self.conn).await {
                Ok(missing) if missing < 0 => {
                    let wanted = missing.unsigned_abs() - 1;
                    next = self.kept.iter().position(|k| k.first >= wanted).unwrap_or(next).min(next);
                    // what is kept no longer is lost, and whoever reads sees that by the numbers
                    whatever_is_missing = self.kept.get(next).is_some_and(|k| k.first != wanted);
                }
                Ok(_) => {
                    next += 1;
                    whatever_is_missing = false;
                }
                Err(e) => {
                    if !away.swap(true, Relaxed) {
                        tracing::warn!(
                            "events cannot be written ({e}): the latest wait, what is too much is dropped"
                        );
                    }
                    tokio::time::sleep(patience).await;
                    patience = (patience * 2).min(MOST_PATIENCE);
                }
            }
        }
    }
}
