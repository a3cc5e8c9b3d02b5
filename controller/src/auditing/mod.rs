//! `treeferry audit`: compares entries that were drawn at random, and says what that tells of all.

mod bound;
mod sample;

use crate::links::linker;
use sample::{Drawn, Sampler, Trees, effective};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use treeferry_core::{
    Change, Event, Failure, Item, Kind, Names, NewTask, Notice, Pass, RelPath, Side, Stop, Work,
};
use treeferry_fs::meta::stat_if_there;
use treeferry_fs::{AsFd, Error, Lister, fault, temp};
use treeferry_queue::Engine;
use treeferry_worker::{Job, Pool, PoolSize, Reporter};

/// How often the wish to stop is looked at.
const TICK: Duration = Duration::from_millis(50);
/// Draws are ended at so many for each that is wanted, however uneven they are.
const MOST: u64 = 20;

/// What an audit is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// Draws, or as many uneven ones as are worth that.
    pub sample: u64,
    /// From 0 to 1.
    pub confidence: f64,
    /// Of the random numbers.
    pub seed: u64,
    /// What differs is looked at again after so long, and only counts if it still does.
    pub settle: Duration,
    /// Threads.
    pub pool: PoolSize,
}

/// What an audit found.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Entries that were compared; some were drawn more than once.
    pub compared: u64,
    /// Draws.
    pub draws: u64,
    /// As many equal draws as those are worth.
    pub effective: f64,
    /// All entries there are were compared.
    pub whole: bool,
    /// Entries there are, as far as the draws tell.
    pub entries: f64,
    /// The share of all entries that differs, as far as the draws tell.
    pub share: f64,
    /// It is no larger than this, with the confidence that was asked for.
    pub share_at_most: f64,
    /// Entries that differ.
    pub differing: Vec<Change>,
    /// What could not be looked at.
    pub failures: Vec<Failure>,
}

impl Finding {
    /// As JSON.
    pub fn to_json(&self, wish: &Wish) -> Value {
        json!({
            "compared": self.compared,
            "draws": self.draws,
            "effective_draws": self.effective,
            "whole": self.whole,
            "entries": self.entries,
            "differing": self.differing.len(),
            "share": self.share,
            "share_at_most": self.share_at_most,
            "confidence": wish.confidence,
            "seed": wish.seed,
            "failures": self.failures.len(),
        })
    }
}

/// Draws, compares, and says what that tells. `None`: it was stopped.
pub fn run(job: &Arc<Job>, wish: &Wish, stop: &Stop) -> Result<Option<Finding>, Failure> {
    let roots = Roots { job: Arc::clone(job), lister: Lister::default() };
    let mut sampler = Sampler::new(roots, wish.seed, wish.sample)?;
    let whole = sampler.all(wish.sample);
    let is_whole = whole.is_some();
    let (drawn, draws) = match whole {
        Some(all) => {
            let n = all.len() as u64;
            (all, n)
        }
        None => draw(&mut sampler, wish, stop),
    };
    let mut failures = sampler.failures;
    tracing::info!(draws, worth = drawn.len(), "drawn");
    let paths: BTreeSet<&RelPath> = drawn.iter().map(|d| &d.path).collect();
    let mut differing = differences(job, wish, paths.iter().copied(), &mut failures, stop);
    if !differing.is_empty() {
        let until = Instant::now() + wish.settle;
        while !stop.is_set() && Instant::now() < until {
            std::thread::sleep(TICK.min(wish.settle));
        }
        if !wish.settle.is_zero() && !stop.is_set() {
            differing = differences(job, wish, differing.keys(), &mut failures, stop);
        }
    }
    if stop.is_set() {
        return Ok(None);
    }
    let unknown: BTreeSet<&RelPath> = failures.iter().map(|f| &f.path).collect();
    let known = || drawn.iter().filter(|d| !unknown.contains(&d.path));
    let sum: f64 = known().map(|d| d.weight).sum();
    let wrong: f64 = known().filter(|d| differing.contains_key(&d.path)).map(|d| d.weight).sum();
    // a sum of nothing is -0
    let share = if sum > 0.0 { wrong / sum + 0.0 } else { 0.0 };
    let worth = effective(known().map(|d| d.weight));
    Ok(Some(Finding {
        compared: known().map(|d| &d.path).collect::<BTreeSet<_>>().len() as u64,
        draws,
        effective: worth,
        whole: is_whole,
        entries: if is_whole { drawn.len() as f64 } else { sum / draws.max(1) as f64 },
        share,
        share_at_most: match is_whole && failures.is_empty() {
            true => share,
            false => bound::at_most(share, worth, wish.confidence),
        },
        differing: differing.into_values().collect(),
        failures,
    }))
}

fn draw<T: Trees>(sampler: &mut Sampler<T>, wish: &Wish, stop: &Stop) -> (Vec<Drawn>, u64) {
    for _ in 0..wish.sample {
        if stop.is_set() || sampler.is_explored() {
            break;
        }
        sampler.explore();
    }
    let (mut drawn, mut draws) = (Vec::new(), 0);
    while !stop.is_set() && draws < MOST * wish.sample {
        draws += 1;
        drawn.extend(sampler.draw());
        // what they are worth takes a while to add up
        let enough = draws >= wish.sample && draws % (wish.sample / 20).max(1) == 0;
        if enough && effective(drawn.iter().map(|d: &Drawn| d.weight)) >= wish.sample as f64 {
            break;
        }
    }
    (drawn, draws)
}

/// Which of these differ, and how.
fn differences<'a>(
    job: &Arc<Job>,
    wish: &Wish,
    paths: impl Iterator<Item = &'a RelPath>,
    failures: &mut Vec<Failure>,
    stop: &Stop,
) -> BTreeMap<RelPath, Change> {
    let (mut found, mut looks) = (BTreeMap::new(), BTreeMap::<RelPath, Names>::new());
    for path in paths {
        let change = match kinds(job, path) {
            Err(f) => {
                failures.push(f);
                continue;
            }
            // gone meanwhile, from both
            Ok((None, None)) => None,
            Ok((Some(kind), None)) => Some(Item::Made(kind)),
            Ok((None, Some(kind))) => Some(Item::Deleted(kind)),
            Ok((Some(a), Some(b))) if a != b => Some(Item::Made(a)),
            Ok((Some(_), Some(_))) => {
                if let Some((dir, name)) = path.split() {
                    looks.entry(dir).or_default().push(&name, Kind::Unknown);
                }
                continue;
            }
        };
        found.extend(change.map(|item| (path.clone(), Change { item, path: path.clone() })));
    }
    let wanted: BTreeSet<RelPath> =
        looks.iter().flat_map(|(dir, names)| names.iter().map(|(n, _)| dir.child(n))).collect();
    let engine = Engine::memory();
    for (dir, names) in looks {
        engine.begin(NewTask::new(None, Work::Look { dir, names, ticket: 0 }));
    }
    if wanted.is_empty() {
        return found;
    }
    let heard = Arc::new(Heard::default());
    let pool = Pool::start(&engine, job, linker(job), heard.clone(), wish.pool);
    while !engine.wait(TICK) {
        if stop.is_set() {
            engine.cancel();
            break;
        }
    }
    pool.join();
    let heard = std::mem::take(&mut *heard.0.lock().unwrap_or_else(PoisonError::into_inner));
    failures.extend(heard.1);
    found.extend(heard.0.into_iter().filter(|c| wanted.contains(&c.path)).map(|c| (c.path.clone(), c)));
    found
}

/// What an entry is on both sides.
fn kinds(job: &Job, path: &RelPath) -> Result<(Option<Kind>, Option<Kind>), Failure> {
    let of = |side| find(job, side, path).map(|m| m.map(|m| treeferry_worker::kind_of(m.kind)));
    Ok((of(Side::Source)?, of(Side::Target)?))
}

/// Hears what would have to be changed.
#[derive(Default)]
struct Heard(Mutex<(Vec<Change>, Vec<Failure>)>);

impl Reporter for Heard {
    fn changes(&self, changes: &[Change]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.extend_from_slice(changes);
    }

    fn failure(&self, f: &Failure, _: Option<Pass>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.push(f.clone());
    }

    fn events(&self, _: Vec<Event>) {}

    fn notice(&self, _: Notice) {}

    fn ran(&self, _: &Work, _: Duration) {}
}

/// The two trees of a job, without what is excluded.
struct Roots {
    job: Arc<Job>,
    lister: Lister,
}

fn gone(e: Error) -> bool {
    e.is_gone() || e.is_other_kind()
}

fn failure(path: &RelPath, side: Side, e: Error) -> Failure {
    Failure::errno(path.clone(), side, e.op, e.raw())
}

/// The metadata of an entry; `None`: it is not there.
fn find(job: &Job, side: Side, path: &RelPath) -> Result<Option<treeferry_fs::Meta>, Failure> {
    let root = match side {
        Side::Source => job.source(),
        Side::Target => match job.target() {
            Some(root) => root,
            None => return Ok(None),
        },
    };
    let Some((dir, name)) = path.split() else { return Ok(None) };
    let dir = match root.open_dir(dir.as_bytes()) {
        Err(e) if gone(e) => return Ok(None),
        r => r.map_err(|e| failure(path, side, e))?,
    };
    stat_if_there(dir.as_fd(), &name).map_err(|e| failure(path, side, e))
}

impl Trees for Roots {
    fn list(
        &mut self,
        side: Side,
        dir: &RelPath,
        each: &mut dyn FnMut(&CStr, bool),
    ) -> Result<bool, Failure> {
        let root = match side {
            Side::Source => Some(self.job.source()),
            Side::Target => self.job.target(),
        };
        let Some(root) = root else { return Ok(false) };
        if fault::armed() {
            fault::at(dir.as_bytes());
        }
        let fd = match root.open_dir(dir.as_bytes()) {
            Err(e) if gone(e) => return Ok(false),
            r => r.map_err(|e| failure(dir, side, e))?,
        };
        let job = &self.job;
        let listed = self.lister.list(fd.as_fd(), |name, _, kind| {
            let is_dir = match kind {
                treeferry_fs::Kind::Unknown => stat_if_there(fd.as_fd(), name)
                    .ok()
                    .flatten()
                    .is_some_and(|m| m.kind == treeferry_fs::Kind::Dir),
                kind => kind == treeferry_fs::Kind::Dir,
            };
            // what a copy that is under way has not named yet is none of the target's entries
            let unnamed = side == Side::Target && name.to_bytes().starts_with(temp::PREFIX);
            if !unnamed && !job.excludes(&dir.child(name), is_dir) {
                each(name, is_dir);
            }
            true
        });
        listed.map_err(|e| failure(dir, side, e))
    }

    fn find(&mut self, side: Side, path: &RelPath) -> Result<Option<bool>, Failure> {
        Ok(find(&self.job, side, path)?.map(|m| m.kind == treeferry_fs::Kind::Dir))
    }
}
