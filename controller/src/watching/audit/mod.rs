//! `treeferry watch --audit`: entries are drawn as by `treeferry audit`, at a low and even rate for as long as the mirror is
//! kept, and compared with what they should be. It runs in one thread that only reads; the mirror does not wait for it, and
//! nothing that happens to it is the mirror's concern. What is wrong though the mirror was complete is named, counted, and
//! given to the mirror as a hint. Why it is done like this: `docs/decisions/0023-audits-beside-a-mirror.md`.
//!
//! It goes on in *rounds*. Each begins with an open job and a sampler of its own, learns how entries are spread over the
//! tree by some hundred descents, one a second, and then draws until its time is over or much is remembered. The first take seconds, since the tree
//! may be about to be filled; each takes twice as long as the one before, up to a day.

mod book;
mod rate;
mod suspects;
mod tally;

pub use book::{Book, Counted, Kept};
pub use rate::Rate;
pub use tally::Window;

use super::desk::{Desk, now_us};
use crate::auditing::compare::{Roots, Stamp, differences, stamp};
use crate::auditing::sample::Sampler;
use crate::events::Teller;
use rate::Pace;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use suspects::{Suspect, Suspects, Verdict};
use treeferry_core::event::EventKind;
use treeferry_core::{Change, Event, Item, JobSpec, Kind, RelPath, Stop};
use treeferry_mirror::Sign;
use treeferry_worker::{Job, PoolSize};

/// How often it is looked whether suspects can be compared again.
const TICK: Duration = Duration::from_millis(100);
/// How long the first round learns at most, and how long it draws; and the same of the longest. What is made meanwhile below a
/// new directory cannot be drawn in a round.
const ROUND: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(24 * 3600));
/// Descents that a round begins with, at most: as many as `treeferry audit` makes by default.
const LEARN: usize = 1000;
/// One of them takes so long at least, if entries are not compared faster than that.
const LEARN_EVERY: Duration = Duration::from_secs(1);
/// Directories, names and subdirectories that a round remembers: by then it ends. About 100 bytes each.
const HELD: usize = 1 << 18;
/// Of a draw so many may be void, one after the other; by far most are not.
const VOID: usize = 20;
/// After a round that could not go on.
const REST: Duration = Duration::from_secs(10);
/// Two changes within this may have the same time: the clock of Linux's file systems ticks so slowly (100 Hz).
const CLOCK_TICK_US: u64 = 10_000;

/// What an audit is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// How many entries are compared.
    pub rate: Rate,
    /// What differs is compared again after so long at least.
    pub settle: Duration,
    /// A list alone tells what has changed, and nobody says up to when all has been told.
    pub by_list: bool,
}

/// An audit that goes on.
pub struct Audit {
    thread: JoinHandle<()>,
    over: Stop,
    book: Arc<Book>,
}

/// Begins, and goes on from what was kept. If it cannot, that is said, and the mirror goes on without.
pub fn start(
    plan: Plan,
    kept: Kept,
    spec: &JobSpec,
    desk: &Arc<Desk>,
    teller: Option<Teller>,
) -> Option<Audit> {
    let (book, over) = (Arc::new(Book::new(plan.rate, kept)), Stop::default());
    let mut auditor = Auditor {
        plan,
        teller,
        spec: spec_of(spec),
        desk: Arc::clone(desk),
        book: Arc::clone(&book),
        over: over.clone(),
        suspects: Suspects::default(),
        length: ROUND.0,
        pace: Pace::new(plan.rate.every(), Instant::now()),
    };
    let thread = std::thread::Builder::new().name("tf-audit".to_owned()).spawn(move || {
        if catch_unwind(AssertUnwindSafe(|| auditor.run())).is_err() {
            auditor.trouble("internal error: the audit has ended; please report the message above as a bug");
        }
    });
    match thread {
        Ok(thread) => Some(Audit { thread, over, book }),
        Err(e) => {
            tracing::warn!("the mirror is not audited: cannot start a thread: {e}");
            None
        }
    }
}

impl Audit {
    /// What it has found so far.
    pub fn book(&self) -> &Arc<Book> {
        &self.book
    }

    /// Ends it, at once.
    pub fn end(self) {
        self.over.set();
        self.thread.thread().unpark();
        // a panic in there has been told, and is not the mirror's
        let _ = self.thread.join();
    }
}

/// What a mirror's job is compared by: all that it keeps, but for which names share an inode.
fn spec_of(mirror: &JobSpec) -> JobSpec {
    JobSpec {
        dry_run: true,
        itemize: true,
        // that takes all names of a file, and only a walk knows them
        hardlinks: false,
        // what is too young holds back the moment up to which the mirror is complete, and so is waited for
        min_age: None,
        ..mirror.clone()
    }
}

struct Auditor {
    plan: Plan,
    teller: Option<Teller>,
    spec: JobSpec,
    desk: Arc<Desk>,
    book: Arc<Book>,
    over: Stop,
    suspects: Suspects,
    /// Of the next round.
    length: Duration,
    /// Of the draws of all rounds.
    pace: Pace,
}

impl Auditor {
    fn run(&mut self) {
        while !self.over.is_set() {
            // before that the target is not what it is to be
            if self.complete_up_to().is_none() {
                std::thread::park_timeout(TICK);
                continue;
            }
            if let Err(why) = self.round() {
                self.trouble(&why);
                self.sleep(REST);
            }
        }
    }

    /// By a list alone: up to now, if all is done that was listed. What was not is then said to differ.
    fn complete_up_to(&self) -> Option<u64> {
        let pending = self.desk.pending();
        if self.plan.by_list {
            return (self.desk.walked_once.load(Relaxed) && pending.is_idle()).then(now_us);
        }
        pending.figures().complete_up_to
    }

    /// Draws for a while. An error says what hinders it.
    fn round(&mut self) -> Result<(), String> {
        let job = Job::open(self.spec.clone(), self.over.clone()).map_err(|e| e.to_string())?;
        let seed = fastrand::u64(..);
        let mut sampler = Sampler::lasting(Roots::new(&job), seed).map_err(|f| f.to_string())?;
        let length = self.length;
        self.length = (2 * length).min(ROUND.1);
        let began = Instant::now();
        let mut pace = Pace::new(self.plan.rate.every().min(LEARN_EVERY), began);
        for _ in 0..LEARN {
            let is_enough = began.elapsed() > length || sampler.held() > HELD / 2;
            if self.over.is_set() || sampler.is_explored() || is_enough {
                break;
            }
            self.wait(&job, &mut pace);
            sampler.explore();
            self.hear(&mut sampler);
        }
        tracing::info!(seed, rate = %self.plan.rate, "a round of the audit begins to draw");
        let began = Instant::now();
        let mut pace = self.pace;
        while began.elapsed() < length && sampler.held() < HELD {
            self.wait(&job, &mut pace);
            if self.over.is_set() {
                break;
            }
            if self.suspects.len() < suspects::MOST {
                self.draw(&job, &mut sampler);
            }
            self.pace = pace;
        }
        Ok(())
    }

    /// Waits for the next turn; meanwhile suspects have theirs.
    fn wait(&mut self, job: &Arc<Job>, pace: &mut Pace) {
        loop {
            self.settle(job);
            let left = pace.left(Instant::now());
            if self.over.is_set() || left.is_zero() {
                break;
            }
            // who ends it wakes this thread
            std::thread::park_timeout(if self.suspects.len() > 0 { TICK.min(left) } else { left });
        }
        pace.done(Instant::now());
    }

    fn sleep(&self, how_long: Duration) {
        let until = Instant::now() + how_long;
        while !self.over.is_set() && Instant::now() < until {
            std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
        }
    }

    fn draw(&mut self, job: &Arc<Job>, sampler: &mut Sampler<Roots>) {
        let drawn = (0..VOID).find_map(|_| sampler.draw());
        self.hear(sampler);
        // what waits to be compared again is not drawn meanwhile
        let Some(drawn) = drawn.filter(|d| !self.suspects.has(&d.path)) else { return };
        let Some((change, stamp)) = self.compare(job, &drawn.path) else { return };
        match change {
            None => self.book.compared(drawn.weight, false),
            Some(_) => {
                let (path, weight) = (drawn.path, drawn.weight);
                let not_before = Instant::now() + self.plan.settle;
                let named = false;
                let seen_us = now_us() + CLOCK_TICK_US;
                self.suspects.add(Suspect { path, weight, named, seen_us, not_before, stamp, tries: 1 });
                self.book.settling(self.suspects.len());
            }
        }
    }

    /// How an entry differs, and what both sides were before and after that was found. `None`: it cannot be said.
    fn compare(&self, job: &Arc<Job>, path: &RelPath) -> Option<(Option<Change>, Option<Stamp>)> {
        let (mut failures, one) = (Vec::new(), PoolSize::Fixed(1));
        let before = stamp(job, path);
        let mut found = differences(job, one, std::iter::once(path), &mut failures, &self.over);
        let after = stamp(job, path);
        if self.over.is_set() {
            return None;
        }
        let stamps = before.and_then(|b| Ok((b, after?)));
        match (failures.first(), stamps) {
            (None, Ok((before, after))) => Some((found.remove(path), Some(before).filter(|b| *b == after))),
            (Some(f), _) => {
                self.trouble(&f.to_string());
                None
            }
            (None, Err(f)) => {
                self.trouble(&f.to_string());
                None
            }
        }
    }

    /// Compares suspects again for which the mirror has had its time.
    fn settle(&mut self, job: &Arc<Job>) {
        while self.suspects.len() > 0 && !self.over.is_set() {
            let complete = self.complete_up_to();
            let Some(s) = self.suspects.take(complete, Instant::now()) else { break };
            self.settle_one(job, s);
        }
        self.book.settling(self.suspects.len());
    }

    fn settle_one(&mut self, job: &Arc<Job>, s: Suspect) {
        let Some((change, stamp)) = self.compare(job, &s.path) else { return };
        let again = |s: Suspect, tries, wait| Suspect {
            seen_us: now_us() + CLOCK_TICK_US,
            not_before: Instant::now() + wait,
            stamp,
            tries,
            ..s
        };
        match (s.judge(change.is_some(), stamp), change) {
            (Verdict::Alike, _) => self.book.compared(s.weight, false),
            (Verdict::Again, _) => {
                let tries = s.tries + 1;
                self.suspects.add(again(s, tries, self.plan.settle));
            }
            (Verdict::Differs, Some(change)) => {
                // the mirror has named it, and tries it again by itself
                if self.fails(&s.path) {
                    return;
                }
                self.book.compared(s.weight, true);
                self.name(change);
                self.suspects.add(again(Suspect { named: true, ..s }, 1, self.plan.settle));
            }
            (Verdict::Repaired, _) => {
                tracing::info!("audit: {} is right now", s.path);
                self.book.repaired(&s.path, true);
            }
            (Verdict::NotRepaired, _) => {
                tracing::info!("audit: {} differs still, though it was looked at", s.path);
                self.book.repaired(&s.path, false);
            }
            (Verdict::Restless | Verdict::Differs, _) => self.book.restless(),
        }
    }

    /// Whether it is known that the mirror cannot bring an entry, or one above it.
    fn fails(&self, path: &RelPath) -> bool {
        let pending = self.desk.pending();
        let mut next = Some(path.clone());
        while let Some(p) = next {
            if pending.is_failing(&p) {
                return true;
            }
            next = p.split().map(|(dir, _)| dir);
        }
        false
    }

    /// Says that an entry is wrong, and has the mirror look at it.
    fn name(&self, change: Change) {
        let (path, item, text) = (change.path.clone(), change.item, change.to_string());
        let sign = match change.item {
            // if it has other times, so has what is in it perhaps other names
            Item::Fixed(Kind::Dir, _) => Sign::Names,
            _ => Sign::Now,
        };
        if self.book.name(change) {
            let when = if self.plan.by_list { "all was done that was listed" } else { "DST was complete" };
            tracing::warn!("audit: {when}, and this was not as in SRC: {text}");
            let event =
                Event { item: Some(item), path: Some(path.clone()), ..Event::new(EventKind::EntryDiffered) };
            self.teller.iter().for_each(|t| t.events(vec![event.clone()]));
        }
        self.desk.pending().sign(Instant::now(), path, sign);
        self.desk.ring();
    }

    /// Hears what could not be listed.
    fn hear(&self, sampler: &mut Sampler<Roots>) {
        std::mem::take(&mut sampler.failures).iter().for_each(|f| self.trouble(&f.to_string()));
    }

    fn trouble(&self, why: &str) {
        match self.book.trouble(why) {
            true => {
                tracing::warn!("audit: {why} (it goes on; later troubles are told by 'treeferry status')")
            }
            false => tracing::info!("audit: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compared_is_what_the_mirror_keeps_and_nothing_is_touched() {
        let mut mirror = JobSpec::new("/a", "/b");
        mirror.checksum = true;
        mirror.xattrs = false;
        mirror.min_age = Some(Duration::from_secs(60));
        let s = spec_of(&mirror);
        assert!(s.dry_run && s.itemize && s.checksum && !s.xattrs && !s.hardlinks);
        assert_eq!((s.min_age, s.src, s.dst), (None, mirror.src, mirror.dst));
    }
}
