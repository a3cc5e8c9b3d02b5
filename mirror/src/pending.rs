//! Paths that are to be looked at.
//!
//! A sign says that something happened to a path, and nothing else. What is to be done is decided by whoever looks, so
//! signs of one path are merged while they wait, and while the path is being looked at.
//!
//! Up to which moment the target is complete is said by what waits and is under way ([`Births`]).

mod kinds;
mod once_more;
mod tickets;

use crate::births::Births;
use crate::failing::Failing;
use crate::{Arrivals, Latency};
pub use kinds::{Batch, Below, Figures, Sign, Timing};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};
use tickets::{Path, Ticket};
use treeferry_core::RelPath;

/// Names in one batch.
const BATCH_NAMES: usize = 64;

struct Waiting {
    birth: u64,
    /// When it was first said that it is to be looked at now; else when it was first heard of.
    since: Instant,
    ripe: bool,
    due: Instant,
    below: bool,
    names: bool,
    from: Option<RelPath>,
    /// Something else may have this name now.
    moved: bool,
    /// Whoever has it now has not brought it, and says that it is to be looked at once more.
    owed: bool,
}

/// A walk that is under way: where, with which birth, since when.
struct Walking {
    path: RelPath,
    birth: u64,
    /// Up to when changes had been told as it began.
    begun: u64,
    since: Instant,
}

/// The memory of a mirror.
pub struct Pending {
    timing: Timing,
    waiting: BTreeMap<RelPath, Waiting>,
    due: BTreeSet<(Instant, RelPath)>,
    busy: BTreeMap<RelPath, u64>,
    tickets: HashMap<u64, Ticket>,
    next_ticket: u64,
    /// When a look at a path was last begun, of those that were lately.
    begun: HashMap<RelPath, Instant>,
    forget: VecDeque<(Instant, RelPath)>,
    below: BTreeMap<RelPath, u64>,
    walking: HashMap<u64, Walking>,
    /// A path of these that is being tried is in `waiting` or in `busy`.
    failing: Failing,
    births: Births,
    signs: u64,
    looks: u64,
    resyncs: u64,
    latency: Latency,
    arrivals: Arrivals,
}

impl Pending {
    /// Everything is to be walked first: until that is done the target is complete up to no moment.
    pub fn new(timing: Timing) -> Pending {
        let mut p = Pending {
            timing,
            waiting: BTreeMap::new(),
            due: BTreeSet::new(),
            busy: BTreeMap::new(),
            tickets: HashMap::new(),
            next_ticket: 1,
            begun: HashMap::new(),
            forget: VecDeque::new(),
            below: BTreeMap::new(),
            walking: HashMap::new(),
            failing: Failing::default(),
            births: Births::default(),
            signs: 0,
            looks: 0,
            resyncs: 0,
            latency: Latency::default(),
            arrivals: Arrivals::default(),
        };
        p.add_below(RelPath::root(), 0);
        p
    }

    /// Everything has been walked before, and the target was complete up to a moment: what was not done then is told again.
    /// 0: it is not known up to which.
    pub fn resumed(timing: Timing, complete_up_to: u64) -> Pending {
        let mut p = Pending::new(timing);
        p.below.clear();
        p.births = Births::resumed(complete_up_to);
        p
    }

    /// The clock of the wall showed `shown` (µs since 1970), between two moments. Whoever asks for [`Pending::figures`] has
    /// looked at it just before.
    pub fn clock(&mut self, before: u64, shown: u64, after: u64) {
        self.births.clock(before, shown, after);
    }

    /// The time of day (µs since 1970) of a moment: whoever has read less did so before it. `None`: it is 0, which is none.
    pub fn time_of(&self, moment: u64) -> Option<u64> {
        self.births.time(moment)
    }

    /// Everything that was said when less than this was told is done, but for paths that fail.
    pub fn done_before(&self) -> u64 {
        self.births.earliest()
    }

    /// Changes have been told up to this moment.
    pub fn told_up_to(&self) -> u64 {
        self.births.told_up_to()
    }

    /// Something happened to a path.
    pub fn sign(&mut self, now: Instant, path: RelPath, sign: Sign) {
        self.signs += 1;
        let birth = self.births.told_up_to();
        if sign == Sign::Tree && path.is_root() {
            // it is no name of a directory that is looked at
            self.add_below(path.clone(), birth);
        }
        self.add(now, path, sign, birth, None);
    }

    /// A path has another name now.
    pub fn moved(&mut self, now: Instant, from: RelPath, to: RelPath, is_dir: bool) {
        self.signs += 1;
        let mut birth = self.births.told_up_to();
        let mut origin = from.clone();
        // it goes together with what is to be done about its old name, and about the name before that
        if let Some(old) = self.take_out(&from) {
            birth = birth.min(old.birth);
            match old.from {
                Some(first) => {
                    self.add(now, from.clone(), Sign::Tree, old.birth, None);
                    self.waiting.entry(from.clone()).and_modify(|w| w.moved = true);
                    origin = first;
                }
                None => self.let_go(now, &from),
            }
        }
        if is_dir {
            self.rename_below(now, &from, &to);
        }
        self.add(now, to.clone(), Sign::Tree, birth, Some(origin).filter(|o| *o != to));
    }

    /// Changes were missed: everything may have changed since the last moment up to which they were told.
    pub fn lost(&mut self) {
        self.resyncs += 1;
        let birth = self.births.told_up_to();
        self.add_below(RelPath::root(), birth);
    }

    /// All changes before this moment have been told.
    pub fn told(&mut self, moment: u64) {
        self.births.told(moment);
        let done = if self.is_idle() { u64::MAX } else { self.births.earliest() };
        self.failing.done_before(done);
    }

    /// A path failed; it is tried again later.
    pub fn failed(&mut self, now: Instant, path: RelPath, why: String) {
        self.failing.add(now, self.next_ticket, path, why);
    }

    /// All that a batch led to is done, at this moment.
    pub fn settled(&mut self, now: Instant, moment: u64, ticket: u64) {
        let Some(t) = self.tickets.remove(&ticket) else { return };
        for Path { path, since, .. } in t.paths {
            self.busy.remove(&path);
            self.failing.tried(&path, ticket, t.birth);
            if !self.waiting.contains_key(&path) {
                // it failed, and what was heard of it since then has another name now
                self.let_go(now, &path);
            }
            if self.failing.contains(&path) {
                self.failing.was_for(&path, since);
            } else if !self.waiting.get(&path).is_some_and(|w| w.owed) {
                let took = now.saturating_duration_since(since);
                self.latency.count(took);
                self.arrivals.count(self.births.shown_at(moment), took);
            }
            // what was said meanwhile has its turn now
            if let Some(w) = self.waiting.get(&path) {
                self.due.insert((w.due, path));
            }
        }
        self.births.end(moment, t.birth);
    }

    /// What is to be looked at now, in at most so many batches that are under way at a time.
    pub fn take(&mut self, now: Instant, most: usize) -> Vec<Batch> {
        self.retry(now);
        self.forget_old(now);
        let mut looks: BTreeMap<RelPath, Vec<(RelPath, Waiting)>> = BTreeMap::new();
        let mut out = Vec::new();
        while self.tickets.len() + looks.len() < most {
            let Some((at, _)) = self.due.first() else { break };
            if *at > now {
                break;
            }
            let Some((_, path)) = self.due.pop_first() else { break };
            if self.busy.contains_key(&path) {
                continue;
            }
            let Some(w) = self.waiting.remove(&path) else { continue };
            self.begin(now, &path);
            match (&w.from, path.split()) {
                // what is walked is compared in any case
                (None, _) if w.names && !w.below => out.push(self.begin_names(path, w)),
                (Some(from), Some(_)) => out.push(self.begin_move(from.clone(), path, &w)),
                (_, None) => out.push(self.begin_look(RelPath::root(), vec![(path, w)])),
                (None, Some((dir, _))) => {
                    let names = looks.entry(dir.clone()).or_default();
                    names.push((path, w));
                    if names.len() == BATCH_NAMES {
                        let names = looks.remove(&dir).unwrap_or_default();
                        out.push(self.begin_look(dir, names));
                    }
                }
            }
        }
        for (dir, names) in looks {
            out.push(self.begin_look(dir, names));
        }
        out
    }

    /// A directory that is to be walked, if there is one.
    pub fn take_below(&mut self, now: Instant) -> Option<Below> {
        // the oldest first: no order of names lets one wait for ever
        let path = self.below.iter().min_by_key(|(_, birth)| **birth).map(|(path, _)| path.clone())?;
        let birth = self.below.remove(&path)?;
        let ticket = self.draw();
        let begun = self.births.told_up_to();
        self.walking.insert(ticket, Walking { path: path.clone(), birth, begun, since: now });
        Some(Below { ticket, path })
    }

    /// A walk has ended, at this moment. If it did not come to its end it is to be done again.
    pub fn walked(&mut self, moment: u64, ticket: u64, complete: bool) {
        let Some(Walking { path, birth, since, .. }) = self.walking.remove(&ticket) else { return };
        if complete {
            self.failing.walked(&path, since, birth);
        } else {
            self.add_below(path, birth);
        }
        self.births.end(moment, birth);
    }

    /// When there is something to do next, if there is.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at).into_iter().chain(self.failing.next_due()).min()
    }

    /// Whether nothing waits and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.tickets.is_empty() && self.below.is_empty() && self.walking.is_empty()
    }

    /// How it stands.
    pub fn figures(&self) -> Figures {
        Figures {
            complete_up_to: self.births.time(self.births.earliest()),
            told_up_to: self.births.time(self.births.told_up_to()).unwrap_or(0),
            waiting: self.waiting.len(),
            busy: self.busy.len(),
            walks: self.below.len() + self.walking.len(),
            failing: self.failing.len(),
            signs: self.signs,
            looks: self.looks,
            resyncs: self.resyncs,
        }
    }

    /// Whether a path fails.
    pub fn is_failing(&self, path: &RelPath) -> bool {
        self.failing.contains(path)
    }

    /// Paths that fail, with the reason, at most so many.
    pub fn failing(&self, most: usize) -> Vec<(RelPath, String)> {
        self.failing.iter().take(most).map(|(p, why)| (p.clone(), why.to_owned())).collect()
    }

    /// Paths that fail, and those that came right by an attempt that led to what is not done yet: what is lost of that with us,
    /// nobody tells again.
    pub fn to_be_tried(&self) -> Vec<RelPath> {
        self.failing.to_be_tried().cloned().collect()
    }

    /// How long changes took from the moment that they were heard of.
    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    /// The same by the hour.
    pub fn arrivals(&self) -> &Arrivals {
        &self.arrivals
    }

    fn draw(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket - 1
    }

    fn add(&mut self, now: Instant, path: RelPath, sign: Sign, birth: u64, from: Option<RelPath>) {
        let delay = match sign {
            Sign::Now | Sign::Tree => Duration::ZERO,
            Sign::Attributes | Sign::Names => self.timing.attributes,
            Sign::Open => self.timing.open,
        };
        self.put(now, path.clone(), delay, sign == Sign::Tree, birth, from);
        if let Some(w) = self.waiting.get_mut(&path).filter(|_| sign == Sign::Names) {
            w.names = true;
        }
    }

    fn put(
        &mut self,
        now: Instant,
        path: RelPath,
        delay: Duration,
        below: bool,
        birth: u64,
        from: Option<RelPath>,
    ) {
        self.failing.trying(&path);
        let ripe = delay.is_zero();
        let mut due = now + delay;
        if let Some(begun) = self.begun.get(&path) {
            due = due.max(*begun + self.timing.damp);
        }
        let (mut since, mut below, mut from, mut birth) = (now, below, from, birth);
        let (mut names, mut moved, mut owed) = (false, from.is_some(), false);
        let (mut was_ripe, mut free) = (ripe, None);
        if let Some(old) = self.take_out(&path) {
            due = due.min(old.due);
            if old.ripe || !ripe {
                since = old.since;
            }
            was_ripe |= old.ripe;
            below |= old.below;
            names |= old.names;
            moved |= old.moved;
            owed |= old.owed;
            birth = birth.min(old.birth);
            match (&from, old.from) {
                // two were renamed to this name, one after the other: the name of the first is free too
                (Some(new), Some(first)) if *new != first => free = Some(first),
                (None, first) => from = first,
                _ => {}
            }
        }
        from = from.filter(|f| *f != path);
        since = self.failing.since(&path).map_or(since, |first| since.min(first));
        self.births.add(birth);
        if !self.busy.contains_key(&path) {
            self.due.insert((due, path.clone()));
        }
        let is_free = free.filter(|f| *f != path);
        self.waiting
            .insert(path, Waiting { birth, since, ripe: was_ripe, due, below, names, from, moved, owed });
        if let Some(first) = is_free {
            self.add(now, first.clone(), Sign::Tree, birth, None);
            self.waiting.entry(first).and_modify(|w| w.moved = true);
        }
        if self.waiting.len() > self.timing.most {
            self.give_up(now);
        }
    }

    /// More waits than can be kept: everything is looked at instead.
    fn give_up(&mut self, now: Instant) {
        let birth = self.births.earliest();
        self.resyncs += 1;
        self.due.clear();
        for (path, w) in std::mem::take(&mut self.waiting) {
            self.births.drop(w.birth);
            self.let_go(now, &path);
        }
        self.add_below(RelPath::root(), birth);
    }

    fn take_out(&mut self, path: &RelPath) -> Option<Waiting> {
        let w = self.waiting.remove(path)?;
        self.due.remove(&(w.due, path.clone()));
        self.births.drop(w.birth);
        Some(w)
    }

    /// A path that waited does so no more.
    fn let_go(&mut self, now: Instant, path: &RelPath) {
        if !self.busy.contains_key(path) {
            self.failing.dropped(now, path);
        }
    }

    /// What waits below a directory that has another name now waits there.
    fn rename_below(&mut self, now: Instant, from: &RelPath, to: &RelPath) {
        let inside = |p: &RelPath| p != from && from.covers(p);
        let paths: Vec<RelPath> = self
            .waiting
            .range(from.clone()..)
            .map(|(p, _)| p)
            .take_while(|p| p.as_bytes().starts_with(from.as_bytes()))
            .filter(|p| inside(p))
            .cloned()
            .collect();
        for old in paths {
            let Some(w) = self.take_out(&old) else { continue };
            let mut bytes = to.as_bytes().to_vec();
            bytes.extend_from_slice(&old.as_bytes()[from.as_bytes().len()..]);
            let Ok(new) = RelPath::new(bytes) else { continue };
            let (due, from) = (w.due, w.from);
            self.let_go(now, &old);
            // of names that may be gone all are looked at
            let all = w.below || w.names;
            self.add(due, new, if all { Sign::Tree } else { Sign::Now }, w.birth, from);
        }
    }

    fn add_below(&mut self, path: RelPath, birth: u64) {
        let mut birth = birth;
        // what lies below it, or above it, goes together with it
        let covered: Vec<RelPath> = self.below.keys().filter(|p| path.covers(p)).cloned().collect();
        for p in covered {
            if let Some(b) = self.below.remove(&p) {
                birth = birth.min(b);
                self.births.drop(b);
            }
        }
        let above = self.below.keys().find(|p| p.covers(&path)).cloned();
        let path = above.unwrap_or(path);
        if let Some(b) = self.below.remove(&path) {
            birth = birth.min(b);
            self.births.drop(b);
        }
        self.births.add(birth);
        self.below.insert(path, birth);
    }

    fn begin(&mut self, now: Instant, path: &RelPath) {
        self.looks += 1;
        self.begun.insert(path.clone(), now);
        self.forget.push_back((now + self.timing.damp, path.clone()));
    }

    /// Paths that failed and are to be tried again.
    fn retry(&mut self, now: Instant) {
        while let Some(path) = self.failing.due(now) {
            self.add(now, path, Sign::Tree, self.births.told_up_to(), None);
        }
    }

    fn forget_old(&mut self, now: Instant) {
        while self.forget.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, path)) = self.forget.pop_front() else { return };
            if self.begun.get(&path).is_some_and(|b| *b + self.timing.damp <= now) {
                self.begun.remove(&path);
            }
        }
    }
}

#[cfg(test)]
mod left_tests;
#[cfg(test)]
mod random_tests;
#[cfg(test)]
mod tests;
