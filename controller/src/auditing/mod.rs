//! Entries that were drawn at random are compared, which tells something of all: once, by `treeferry audit`, which is
//! here; or on and on beside a mirror, which is in [`crate::watching::audit`]. Both draw and compare with what is below.

pub mod bound;
pub mod compare;
pub mod sample;

use compare::{Roots, TICK, differences};
use sample::{Drawn, Sampler, Trees, effective};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};
use treeferry_core::{Change, Failure, RelPath, Stop};
use treeferry_worker::{Job, PoolSize};

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
    let roots = Roots::new(job);
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
    let mut differing = differences(job, wish.pool, paths.iter().copied(), &mut failures, stop);
    if !differing.is_empty() {
        let until = Instant::now() + wish.settle;
        while !stop.is_set() && Instant::now() < until {
            std::thread::sleep(TICK.min(wish.settle));
        }
        if !wish.settle.is_zero() && !stop.is_set() {
            differing = differences(job, wish.pool, differing.keys(), &mut failures, stop);
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
