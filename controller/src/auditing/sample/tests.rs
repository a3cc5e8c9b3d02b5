use super::*;
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Directories with their entries, which are directories or not.
type Tree = BTreeMap<Vec<u8>, BTreeMap<Vec<u8>, bool>>;

/// The trees of both sides.
#[derive(Clone, Default)]
struct Plan([Tree; 2]);

impl Plan {
    fn new() -> Plan {
        let mut p = Plan::default();
        p.0.iter_mut().for_each(|side| drop(side.insert(Vec::new(), BTreeMap::new())));
        p
    }

    fn add(&mut self, sides: &[usize], path: &str, is_dir: bool) {
        let (up, name) = path.rsplit_once('/').unwrap_or(("", path));
        for n in sides {
            self.0[*n].get_mut(up.as_bytes()).expect(path).insert(name.into(), is_dir);
            if is_dir {
                self.0[*n].entry(path.into()).or_default();
            }
        }
    }

    fn files(&mut self, sides: &[usize], dir: &str, n: usize) {
        (0..n).for_each(|i| self.add(sides, &format!("{dir}/f{i}"), false));
    }
}

impl Trees for &Plan {
    fn list(
        &mut self,
        side: Side,
        dir: &RelPath,
        each: &mut dyn FnMut(&CStr, bool),
    ) -> Result<bool, Failure> {
        let n = usize::from(side == Side::Target);
        let Some(all) = self.0[n].get(dir.as_bytes()) else { return Ok(false) };
        all.iter().for_each(|(name, is_dir)| each(&CString::new(name.clone()).unwrap(), *is_dir));
        Ok(true)
    }

    fn find(&mut self, side: Side, path: &RelPath) -> Result<Option<bool>, Failure> {
        let n = usize::from(side == Side::Target);
        let (up, name) = path.split().unwrap();
        Ok(self.0[n].get(up.as_bytes()).and_then(|all| all.get(name.to_bytes()).copied()))
    }
}

/// Trees that change.
struct Changing<'a>(&'a RefCell<Plan>);

impl Trees for Changing<'_> {
    fn list(
        &mut self,
        side: Side,
        dir: &RelPath,
        each: &mut dyn FnMut(&CStr, bool),
    ) -> Result<bool, Failure> {
        (&*self.0.borrow()).list(side, dir, each)
    }

    fn find(&mut self, side: Side, path: &RelPath) -> Result<Option<bool>, Failure> {
        (&*self.0.borrow()).find(side, path)
    }
}

/// A tree as uneven as can be: a directory with most files, many small ones, a chain.
fn uneven() -> (Plan, f64) {
    let (mut p, both) = (Plan::new(), [0, 1]);
    p.add(&both, "big", true);
    p.files(&both, "big", 6000);
    p.add(&both, "many", true);
    for d in 0..300 {
        p.add(&both, &format!("many/d{d}"), true);
        p.files(&both, &format!("many/d{d}"), d % 7);
    }
    let mut chain = String::from("chain");
    for _ in 0..40 {
        p.add(&both, &chain, true);
        p.files(&both, &chain, 3);
        chain += "/c";
    }
    let all = p.0[0].values().map(BTreeMap::len).sum::<usize>() as f64;
    (p, all)
}

fn within(what: &str, got: f64, want: f64, part: f64) {
    assert!((got - want).abs() <= want * part, "{what}: {got}, not {want}");
}

#[test]
fn sums_are_estimated_without_bias_however_uneven_the_tree() {
    let (p, all) = uneven();
    let (mut sums, mut chain, mut first) = (0.0, 0.0, 0.0);
    const SEEDS: u64 = 300;
    for seed in 0..SEEDS {
        let mut s = Sampler::new(&p, seed, 100).unwrap();
        assert!(s.all(100).is_none());
        (0..100).for_each(|_| s.explore());
        let drawn: Vec<Drawn> = (0..200).filter_map(|_| s.draw()).collect();
        sums += drawn.iter().map(|d| d.weight).sum::<f64>() / 200.0;
        let of_chain = drawn.iter().filter(|d| d.path.as_bytes().starts_with(b"chain/"));
        chain += of_chain.map(|d| d.weight).sum::<f64>() / 200.0;
        // of a directory with more names than are kept
        let f = RelPath::new("big/f77").unwrap();
        first += drawn.iter().filter(|d| d.path == f).map(|d| d.weight).sum::<f64>() / 200.0;
    }
    let n = SEEDS as f64;
    within("all entries", sums / n, all, 0.05);
    within("those of the chain", chain / n, 159.0, 0.25);
    within("one entry", first / n, 1.0, 0.6);
}

/// Also where only the target has what differs, and none of it was seen.
#[test]
fn a_bound_holds_as_often_as_it_says() {
    let mut p = Plan::new();
    (0..2000).for_each(|n| p.add(&[0, 1], &format!("f{n}"), false));
    (0..20).for_each(|n| p.add(&[1], &format!("extra{n}"), false));
    const SEEDS: u64 = 100;
    let misses = (0..SEEDS).filter(|seed| {
        let mut s = Sampler::new(&p, *seed, 0).unwrap();
        let drawn: Vec<Drawn> = std::iter::from_fn(|| Some(s.draw())).flatten().take(300).collect();
        let sum = |all: &mut dyn Iterator<Item = &Drawn>| all.map(|d| d.weight).sum::<f64>();
        let wrong = sum(&mut drawn.iter().filter(|d| d.path.as_bytes().starts_with(b"extra")));
        let share = wrong / sum(&mut drawn.iter());
        let worth = effective(drawn.iter().map(|d| d.weight));
        crate::auditing::bound::at_most(share, worth, 0.95) < 20.0 / 2020.0
    });
    let misses = misses.count();
    assert!(misses <= 10, "{misses} of {SEEDS}");
}

#[test]
fn draws_become_even() {
    let (p, all) = uneven();
    let mut s = Sampler::new(&p, 7, 0).unwrap();
    while !s.is_explored() {
        s.explore();
    }
    let drawn: Vec<Drawn> = (0..2000).filter_map(|_| s.draw()).collect();
    let even = effective(drawn.iter().map(|d| d.weight)) / drawn.len() as f64;
    assert!(even > 0.95, "{even}");
    within("all entries", drawn.iter().map(|d| d.weight).sum::<f64>() / 2000.0, all, 0.1);
    // as often as there are such
    let small = drawn.iter().filter(|d| d.path.as_bytes().starts_with(b"many/")).count() as f64;
    let there = (300 + (0..300).map(|d| d % 7).sum::<usize>()) as f64;
    within("entries of small directories", small / drawn.len() as f64, there / all, 0.25);
}

#[test]
fn what_only_one_side_has_is_drawn_as_such() {
    let (mut p, _) = uneven();
    p.add(&[0], "missing", true);
    p.files(&[0], "missing", 500);
    p.add(&[1], "extra", true);
    p.files(&[1], "extra", 900);
    p.add(&[0], "kind", true);
    p.add(&[1], "kind", false);
    let (mut missing, mut extra, mut both) = (0.0, 0.0, 0.0);
    for seed in 0..200 {
        let mut s = Sampler::new(&p, seed, 0).unwrap();
        (0..100).for_each(|_| s.explore());
        for d in (0..300).filter_map(|_| s.draw()) {
            let under = |dir: &[u8]| d.path.as_bytes().starts_with(dir);
            let sum = match (under(b"missing"), under(b"extra")) {
                (true, _) => &mut missing,
                (_, true) => &mut extra,
                _ => &mut both,
            };
            *sum += d.weight / 300.0 / 200.0;
        }
    }
    within("missing", missing, 501.0, 0.1);
    within("extra", extra, 901.0, 0.1);
    // the file of a name that is a directory of the source goes together with that
    within("the others", both, uneven().1 + 1.0, 0.1);
}

#[test]
fn draws_that_last_are_of_what_is_there_then() {
    let (p, all) = uneven();
    let (mut sums, mut new, mut first, mut old) = (0.0, 0.0, 0.0, 0.0);
    const SEEDS: u64 = 100;
    for seed in 0..SEEDS {
        let plan = RefCell::new(p.clone());
        let mut s = Sampler::lasting(Changing(&plan), seed).unwrap();
        while !s.is_explored() {
            s.explore();
        }
        // known: 341 directories, each but the root one of the kept subdirectories; and no names
        assert!(s.held() <= 2 * 2 * 345, "{}", s.held());
        let drawn = |s: &mut Sampler<Changing<'_>>| (0..300).filter_map(|_| s.draw()).collect::<Vec<_>>();
        sums += drawn(&mut s).iter().map(|d| d.weight).sum::<f64>() / 300.0;
        // one directory becomes twenty times as large, an empty one does too, and another becomes empty
        plan.borrow_mut().files(&[0, 1], "chain", 100);
        plan.borrow_mut().files(&[0, 1], "many/d7", 500);
        plan.borrow_mut().0.iter_mut().for_each(|side| side.get_mut(&b"many/d13"[..]).unwrap().clear());
        for d in drawn(&mut s) {
            let under = |dir: &[u8]| d.path.as_bytes().starts_with(dir);
            new += if under(b"chain/f") { d.weight / 300.0 } else { 0.0 };
            first += if under(b"many/d7/") { d.weight / 300.0 } else { 0.0 };
            old += if under(b"many/d13/") { d.weight } else { 0.0 };
        }
        // of the only large directory some names are kept
        assert!(s.held() <= 2 * 2 * 345 + 2 * NAMES, "{}", s.held());
    }
    let n = SEEDS as f64;
    within("all entries", sums / n, all, 0.05);
    within("those of the directory that grew", new / n, 100.0, 0.25);
    assert!(first > 0.0, "what is made in an empty directory is drawn");
    assert_eq!(old, 0.0, "what is gone is not drawn");
}

#[test]
fn a_small_tree_is_taken_whole() {
    let mut p = Plan::new();
    p.add(&[0, 1], "d", true);
    p.files(&[0, 1], "d", 10);
    p.add(&[1], "d/extra", true);
    p.files(&[1], "d/extra", 2);
    let mut s = Sampler::new(&p, 1, 100).unwrap();
    let all = s.all(100).unwrap();
    assert_eq!(all.len(), 14);
    assert_eq!(all.iter().filter(|d| d.path.as_bytes().starts_with(b"d/extra")).count(), 3);
    assert!(all.iter().all(|d| d.weight == 1.0));
    assert!(Sampler::new(&p, 1, 5).unwrap().all(5).is_none());
    // a directory with more names than are kept of others
    let (p, all) = uneven();
    let mut s = Sampler::new(&p, 1, 10_000).unwrap();
    assert_eq!(s.all(10_000).unwrap().len() as f64, all);
    // nothing at all
    let empty = Plan::new();
    let mut s = Sampler::new(&empty, 1, 5).unwrap();
    assert_eq!((s.draw(), s.all(5)), (None, Some(Vec::new())));
}

#[test]
fn a_weight_is_worth_what_it_is_worth() {
    assert_eq!(effective([2.0, 2.0, 2.0].into_iter()), 3.0);
    assert_eq!(effective([9.0].into_iter()), 1.0);
    assert_eq!(effective(std::iter::empty()), 0.0);
}
