//! Paths that failed, and when each is to be tried again.
//!
//! A path is at any time either waiting for its next attempt, or being *tried*: then somebody else has it, who says how
//! that went. Whoever drops a path that is being tried must say so, or it would be neither. One that has come right is still
//! *owed*, to whoever keeps the mirror next, until what that attempt led to is done.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use treeferry_core::RelPath;

/// A path that failed is tried again after this, and twice as long after each further failure, up to [`LAST`].
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(crate) struct Failing {
    paths: BTreeMap<RelPath, Path>,
    /// Those that are not being tried.
    next: BTreeSet<(Instant, RelPath)>,
    /// Those that have come right, with the birth of the attempt.
    owed: BTreeMap<RelPath, u64>,
}

struct Path {
    attempts: u32,
    /// When that was heard of which has not arrived since.
    since: Instant,
    /// When it failed last.
    failed: Instant,
    /// Which ticket was drawn next.
    before: u64,
    /// When it is to be tried again; `None`: it is being tried, and has not failed since.
    next: Option<Instant>,
    why: String,
}

impl Failing {
    pub fn contains(&self, path: &RelPath) -> bool {
        self.paths.contains_key(path)
    }

    pub fn len(&self) -> usize {
        self.paths.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, &str)> {
        self.paths.iter().map(|(p, f)| (p, f.why.as_str()))
    }

    /// It failed, once more perhaps.
    /// `before`: the next ticket that is drawn.
    pub fn add(&mut self, now: Instant, before: u64, path: RelPath, why: String) {
        let f = self.paths.entry(path.clone()).or_insert(Path {
            attempts: 0,
            since: now,
            failed: now,
            before,
            next: None,
            why: String::new(),
        });
        if let Some(at) = f.next.take() {
            self.next.remove(&(at, path.clone()));
        }
        let at = now + (FIRST * 2u32.saturating_pow(f.attempts.min(16))).min(LAST);
        f.attempts = f.attempts.saturating_add(1);
        (f.why, f.failed, f.before) = (why, now, before);
        f.next = Some(at);
        self.next.insert((at, path));
    }

    /// An attempt at it was for what was heard of at a moment.
    pub fn was_for(&mut self, path: &RelPath, since: Instant) {
        if let Some(f) = self.paths.get_mut(path) {
            f.since = f.since.min(since);
        }
    }

    /// When that was first heard of which has not arrived since, if it fails.
    pub fn since(&self, path: &RelPath) -> Option<Instant> {
        self.paths.get(path).map(|f| f.since)
    }

    /// Somebody has it now.
    pub fn trying(&mut self, path: &RelPath) {
        if let Some(at) = self.paths.get_mut(path).and_then(|f| f.next.take()) {
            self.next.remove(&(at, path.clone()));
        }
    }

    /// Nobody has it any more, and nobody knows how it went.
    pub fn dropped(&mut self, now: Instant, path: &RelPath) {
        if let Some(f) = self.paths.get_mut(path).filter(|f| f.next.is_none()) {
            f.next = Some(now + FIRST);
            self.next.insert((now + FIRST, path.clone()));
        }
    }

    /// Whoever had it by this ticket is done: it is right now, unless it failed meanwhile. (It may wait again by now.)
    pub fn tried(&mut self, path: &RelPath, ticket: u64, birth: u64) {
        if self.paths.get(path).is_some_and(|f| f.next.is_none() && f.before <= ticket) {
            self.paths.remove(path);
            self.owed.insert(path.clone(), birth);
        }
    }

    /// Everything below a directory was compared since a moment, with that birth: what has not failed since then is right.
    pub fn walked(&mut self, dir: &RelPath, since: Instant, birth: u64) {
        let is_right = |p: &RelPath, f: &Path| dir.covers(p) && f.failed < since;
        let right = self.paths.iter().filter(|(p, f)| is_right(p, f));
        let right: Vec<(RelPath, Option<Instant>)> = right.map(|(p, f)| (p.clone(), f.next)).collect();
        for (path, next) in right {
            self.paths.remove(&path);
            if let Some(at) = next {
                self.next.remove(&(at, path.clone()));
            }
            self.owed.insert(path, birth);
        }
    }

    /// All that was begun with an earlier birth is done.
    pub fn done_before(&mut self, birth: u64) {
        self.owed.retain(|_, b| *b >= birth);
    }

    /// What whoever keeps the mirror next has to try: paths that fail, and those that are owed.
    pub fn to_be_tried(&self) -> impl Iterator<Item = &RelPath> {
        self.paths.keys().chain(self.owed.keys().filter(|p| !self.paths.contains_key(*p)))
    }

    /// When one is to be tried.
    pub fn next_due(&self) -> Option<Instant> {
        self.next.first().map(|(at, _)| *at)
    }

    /// One that is to be tried now.
    pub fn due(&self, now: Instant) -> Option<RelPath> {
        self.next.first().filter(|(at, _)| *at <= now).map(|(_, p)| p.clone())
    }
}
