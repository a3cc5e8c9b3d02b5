//! Whoever goes on with what is left does all that was not done, and promises nothing before.

use super::tests::ticket;
use super::*;
use std::collections::BTreeSet;
use treeferry_core::Kind;
use treeferry_kit::rng::Rng;

/// What looking at a batch looks at: paths, and whether at all below each.
fn seen(batch: &Batch) -> Vec<(RelPath, bool)> {
    match batch {
        Batch::Look { dir, names, .. } if names.is_empty() => vec![(dir.clone(), false)],
        Batch::Look { dir, names, .. } => {
            names.iter().map(|(n, k)| (dir.child(n), k != Kind::Unknown)).collect()
        }
        Batch::Move { from, to, .. } => vec![(from.clone(), true), (to.clone(), true)],
        Batch::Names { dir, .. } => vec![(dir.clone(), false)],
    }
}

/// Does all that there is to do, and says what was looked at.
fn work_off(p: &mut Pending, now: &mut Instant) -> BTreeSet<(RelPath, bool)> {
    let mut all = BTreeSet::new();
    while !p.is_idle() {
        *now += Duration::from_secs(2);
        while let Some(b) = p.take_below(Instant::now()) {
            all.insert((b.path, true));
            p.walked(1, b.ticket, true);
        }
        for b in p.take(*now, 100) {
            all.extend(seen(&b));
            p.settled(*now, 1, ticket(&b));
        }
    }
    all
}

#[test]
fn whoever_goes_on_with_what_is_left_does_it_all() {
    for seed in 0..200 {
        let mut rng = Rng::new(seed);
        let mut now = Instant::now();
        let mut p = Pending::resumed(Timing::default(), 100);
        let path = |rng: &mut Rng| {
            let depth = 1 + rng.index(3);
            let parts: Vec<String> = (0..depth).map(|_| format!("{}", rng.index(3))).collect();
            RelPath::new(parts.join("/")).unwrap()
        };
        // what was said of each path that was not looked at since: with all below?
        let mut owed: BTreeSet<(RelPath, bool)> = BTreeSet::new();
        for _ in 0..40 {
            match rng.index(8) {
                0 => {
                    let (from, to) = (path(&mut rng), path(&mut rng));
                    if from != to && !from.covers(&to) && !to.covers(&from) {
                        // what waits below it has another name, which is checked elsewhere
                        owed.retain(|(p, _)| !from.covers(p));
                        p.moved(now, from.clone(), to.clone(), true);
                        owed.extend([(from, true), (to, true)]);
                    }
                }
                1 => {
                    now += Duration::from_millis(300);
                    for b in p.take(now, 2) {
                        if rng.index(2) == 0 {
                            seen(&b).into_iter().for_each(|(path, below)| {
                                owed.remove(&(path.clone(), false));
                                if below {
                                    owed.remove(&(path, true));
                                }
                            });
                            p.settled(now, 1, ticket(&b));
                        }
                    }
                }
                2 => p.failed(now, path(&mut rng), "why".to_owned()),
                3 => {
                    let path = path(&mut rng);
                    p.again(now, path.clone(), true, &path);
                    owed.insert((path, true));
                }
                4 => {
                    // under way when it ends, or over and done
                    if let Some(b) = p.take_below(Instant::now())
                        && rng.index(2) == 0
                    {
                        let complete = rng.index(2) == 0;
                        p.walked(1, b.ticket, complete);
                        if complete {
                            owed.retain(|(path, below)| !(*below && b.path.covers(path)));
                        }
                    }
                }
                n => {
                    let sign = [Sign::Now, Sign::Tree, Sign::Open][n - 5];
                    let path = path(&mut rng);
                    p.sign(now, path.clone(), sign);
                    owed.insert((path, sign == Sign::Tree));
                }
            }
        }
        let mut next = Pending::resumed(Timing::default(), 100);
        p.left().into_iter().for_each(|(path, sign)| next.sign(now, path, sign));
        next.told(200);
        assert!(next.is_idle() || next.figures().complete_up_to == Some(100), "{seed}");
        let done = work_off(&mut next, &mut now);
        for (path, below) in owed {
            let is_done = done.iter().any(|(d, b)| (*d == path && (*b || !below)) || (*b && d.covers(&path)));
            assert!(is_done, "{seed}: {path} {below} in {done:?}");
        }
        next.told(300);
        assert_eq!(next.figures().complete_up_to, Some(300), "{seed}");
    }
}
