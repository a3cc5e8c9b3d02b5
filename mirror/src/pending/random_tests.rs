//! Whatever happens in whatever order, nothing is promised too early, and all is done in the end.

use super::tests::{ms, path, ticket, walked};
use super::*;
use std::collections::VecDeque;
use treeferry_kit::rng::Rng;

/// A path was brought as it was, and has changed since: that is said, or only that it is to be looked at again.
fn changed(p: &mut Pending, rng: &mut Rng, now: Instant, path: RelPath) {
    if rng.below(2) == 0 {
        p.changed(now, path);
    } else {
        p.again(now, path.clone(), false, &path);
    }
}

/// A source that changes, a detector that tells of it late, and workers that take their time: at no moment is something
/// promised that is not on the target, and in the end everything is.
#[test]
fn nothing_is_promised_too_early_in_random_schedules() {
    for seed in 0..400 {
        let mut rng = Rng::new(seed);
        let mut p =
            Pending::new(Timing { most: 6 + (seed as usize % 30), damp: ms(seed % 50), ..Timing::default() });
        let start = Instant::now();
        let name = |n: u64| path(&format!("{}/{}", n % 3, n));
        // version and time of each path's latest change; what the target has
        let mut source: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        let mut history: Vec<(u64, u64, u64)> = Vec::new();
        let mut target: BTreeMap<u64, u64> = BTreeMap::new();
        let mut untold: VecDeque<(u64, u64)> = VecDeque::new();
        let mut running: Vec<(u64, Vec<(u64, u64)>)> = Vec::new();
        let mut walks: Vec<(u64, BTreeMap<u64, u64>)> = Vec::new();
        let (mut us, mut version) = (1u64, 0u64);
        let numbers = |b: &Batch| -> Vec<u64> {
            match b {
                Batch::Look { names, .. } => {
                    names.iter().map(|n| n.0.to_str().unwrap().parse().unwrap()).collect()
                }
                Batch::Move { .. } | Batch::Names { .. } => unreachable!(),
            }
        };
        for step in 0..1500 {
            us += 1 + rng.below(20_000);
            let now = start + Duration::from_micros(us);
            let quiet = step > 900;
            match rng.below(10) {
                0..=3 if !quiet => {
                    version += 1;
                    let n = rng.below(12);
                    source.insert(n, (version, us));
                    history.push((us, n, version));
                    untold.push_back((us, n));
                }
                4 | 5 => {
                    // the detector tells some, and if that is all, up to when
                    for _ in 0..=rng.below(4) {
                        let Some((_, n)) = untold.pop_front() else { break };
                        let sign =
                            [Sign::Now, Sign::Open, Sign::Attributes, Sign::Tree][rng.below(4) as usize];
                        p.sign(now, name(n), sign);
                    }
                    if untold.is_empty() {
                        p.told(us);
                    }
                }
                6 if rng.below(30) == 0 => {
                    untold.clear();
                    p.lost();
                    p.told(us);
                }
                6 | 7 => {
                    for b in p.take(now, 3) {
                        let seen = numbers(&b).into_iter().map(|n| (n, source.get(&n).map_or(0, |v| v.0)));
                        running.push((ticket(&b), seen.collect()));
                    }
                    if walks.is_empty()
                        && let Some(b) = p.take_below(Instant::now())
                    {
                        walks.push((b.ticket, source.iter().map(|(n, v)| (*n, v.0)).collect()));
                    }
                }
                8 if !running.is_empty() => {
                    let (t, seen) = running.swap_remove(rng.below(running.len() as u64) as usize);
                    for (n, v) in seen {
                        target.insert(n, v);
                        // whoever changes the target looks at the source once more
                        if source.get(&n).map_or(0, |s| s.0) != v {
                            changed(&mut p, &mut rng, now, name(n));
                        }
                    }
                    p.settled(now, us, t);
                }
                _ => {
                    if let Some((t, seen)) = walks.pop() {
                        let whole = rng.below(4) > 0;
                        for (n, v) in seen.into_iter().filter(|_| whole) {
                            target.insert(n, v);
                            if source.get(&n).map_or(0, |s| s.0) != v {
                                changed(&mut p, &mut rng, now, name(n));
                            }
                        }
                        p.walked(us, t, whole);
                    }
                }
            }
            if let Some(up_to) = p.figures().complete_up_to {
                let mut latest = BTreeMap::new();
                for (at, n, v) in history.iter().filter(|h| h.0 < up_to) {
                    let _ = at;
                    latest.insert(*n, *v);
                }
                for (n, v) in latest {
                    assert!(
                        target.get(&n).copied().unwrap_or(0) >= v,
                        "seed {seed}, step {step}: {n} is not there, and all is up to {up_to}"
                    );
                }
            }
        }
        // time goes by, and nothing changes any more
        for _ in 0..200 {
            us += 100_000;
            let now = start + Duration::from_micros(us);
            untold.drain(..).for_each(|(_, n)| p.sign(now, name(n), Sign::Now));
            p.told(us);
            let mut all = std::mem::take(&mut running);
            for b in p.take(now, 100) {
                let seen = numbers(&b).into_iter().map(|n| (n, source.get(&n).map_or(0, |v| v.0)));
                all.push((ticket(&b), seen.collect()));
            }
            for (t, seen) in all {
                for (n, v) in seen {
                    target.insert(n, v);
                    if source.get(&n).map_or(0, |s| s.0) != v {
                        changed(&mut p, &mut rng, now, name(n));
                    }
                }
                p.settled(now, us, t);
            }
            let walk = walks.pop().or_else(|| {
                p.take_below(Instant::now())
                    .map(|b| (b.ticket, source.iter().map(|(n, v)| (*n, v.0)).collect()))
            });
            if let Some((t, seen)) = walk {
                for (n, v) in seen {
                    target.insert(n, v);
                    if source.get(&n).map_or(0, |s| s.0) != v {
                        changed(&mut p, &mut rng, now, name(n));
                    }
                }
                p.walked(us, t, true);
            }
        }
        assert!(p.is_idle(), "seed {seed}");
        assert_eq!(p.figures().complete_up_to, Some(us), "seed {seed}");
        for (n, (v, _)) in source {
            assert_eq!(target.get(&n), Some(&v), "seed {seed}: {n}");
        }
    }
}

/// Signs and renames at random, whatever they lead to: what was born is given up once, and everything comes to its turn.
#[test]
fn no_birth_is_lost_or_kept_in_random_renames() {
    for seed in 0..300 {
        let mut rng = Rng::new(seed);
        let most = if seed % 4 == 0 { 20 } else { 1000 };
        let (mut p, start) = walked(Timing { damp: ms(seed % 20), most, ..Timing::default() });
        let (mut us, mut running) = (200u64, Vec::new());
        let name = |rng: &mut Rng| {
            let parts: Vec<String> = (0..=rng.below(3)).map(|_| format!("{}", rng.below(3))).collect();
            path(&parts.join("/"))
        };
        for step in 0..2000 {
            us += rng.below(5000);
            let now = start + Duration::from_micros(us);
            let (a, b) = (name(&mut rng), name(&mut rng));
            match rng.below(9) {
                0 | 1 if step < 1500 => p.sign(now, a, Sign::Now),
                2 | 3 if step < 1500 && !a.covers(&b) && !b.covers(&a) => {
                    let is_dir = rng.below(2) == 0;
                    p.moved(now, a, b, is_dir);
                }
                4 if step < 1500 => p.again(now, a, rng.below(9) == 0, &b),
                5 => running.extend(p.take(now, 4).iter().map(ticket)),
                7 if step < 1500 && rng.below(3) == 0 => p.failed(now, a, "for a reason".to_owned()),
                6 if !running.is_empty() => {
                    p.settled(now, us, running.swap_remove(rng.below(running.len() as u64) as usize));
                }
                _ => {
                    if let Some(b) = p.take_below(Instant::now()) {
                        p.walked(us, b.ticket, true);
                    }
                    p.told(us);
                }
            }
        }
        for _ in 0..400 {
            us += 500_000;
            let now = start + Duration::from_micros(us);
            running.drain(..).for_each(|t| p.settled(now, us, t));
            running.extend(p.take(now, 1000).iter().map(ticket));
            while let Some(b) = p.take_below(Instant::now()) {
                p.walked(us, b.ticket, true);
            }
            p.told(us);
        }
        assert!(p.is_idle(), "seed {seed}");
        assert_eq!(p.births.held, BTreeMap::new(), "seed {seed}");
        assert_eq!(p.failing(9), [], "seed {seed}: what failed was tried again");
    }
}
