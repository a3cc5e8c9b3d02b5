//! Random trees, random changes, random options: after each `sync --delete` the trees are equal, a further run
//! does nothing, and what was counted and itemised is what was there.
//!
//! A failing test names its seed; `TREEFERRY_SEED=N` runs that one alone, `TREEFERRY_ROUNDS=N` so many.

mod checks;

use checks::{assert_idle, entries, is_root, leftovers};
use std::collections::HashSet;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use treeferry_kit::caps::Caps;
use treeferry_kit::mounts::{FsKind, Scratch as Place, scratch};
use treeferry_kit::oracle::{Class, Options, compare, snapshot};
use treeferry_kit::random::{hidden_change, random_changes, random_tree};
use treeferry_kit::rng::Rng;
use treeferry_tests::{Run, args, command, sync};

/// Seeds that are tried unless the environment says otherwise.
const ROUNDS: u64 = 24;
/// Runs with changes between them, for each seed.
const STEPS: u64 = 4;

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

/// Runs a test for each seed, and names the seed that fails.
fn for_each_seed(test: impl Fn(u64)) {
    let seeds = match number("TREEFERRY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TREEFERRY_ROUNDS").unwrap_or(ROUNDS),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| test(seed))) {
            eprintln!("to run this again: TREEFERRY_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

/// A source and a target, maybe on different file systems, and what both can hold.
struct Pair {
    src: PathBuf,
    dst: PathBuf,
    trash: PathBuf,
    caps: Caps,
    rng: Rng,
    /// Somebody else than us has written to the target.
    holes_may_go: bool,
    _places: [Place; 2],
}

impl Pair {
    fn new(seed: u64) -> Pair {
        let kind = |n: u64| FsKind::ALL[(n % 4) as usize];
        let places = [scratch(kind(seed), "src"), scratch(kind(seed / 4), "dst")];
        let caps = Caps::probe(&places[0]).unwrap().and(Caps::probe(&places[1]).unwrap());
        let src = places[0].join("src");
        let (dst, trash) = (places[1].join("dst"), places[1].join("trash"));
        random_tree(&src, seed, 150, &caps).unwrap();
        Pair { src, dst, trash, caps, rng: Rng::new(!seed), holes_may_go: false, _places: places }
    }

    /// Options that change how a job is done, but not what comes out of it.
    fn options(&mut self, by_content: bool) -> Vec<String> {
        let rng = &mut self.rng;
        let mut words: Vec<String> = vec!["--delete".into(), "-i".into()];
        if rng.chance(0.5) {
            words.extend(["--pool".into(), (1 + rng.below(8)).to_string()]);
        }
        if rng.chance(0.4) {
            words.extend(["--chunk-size".into(), ["64K", "100000", "1M"][rng.index(3)].into()]);
        }
        if rng.chance(0.3) {
            words.push("--verify".into());
        }
        if by_content || rng.chance(0.2) {
            words.push("--checksum".into());
        }
        if rng.chance(0.2) {
            words.extend(["--trash".into(), self.trash.to_str().unwrap().into()]);
        }
        words
    }

    fn run(&self, options: &[String]) -> Run {
        let mut words = args![&self.src, &self.dst];
        words.splice(0..0, options.iter().map(Into::into));
        sync(words)
    }

    /// One run that must make the trees equal, and one that must find nothing to do.
    fn settle(&mut self, by_content: bool) -> Run {
        let options = self.options(by_content);
        let run = self.run(&options).expect(0);
        let found = compare(&self.src, &self.dst, &Options::default());
        // a target that lost its holes but has the right size and time is taken for right, as by rsync
        let differs = found.classes().into_iter().any(|c| !(self.holes_may_go && c == Class::SparseLost));
        assert!(!differs, "{found}\n{run}");
        assert_eq!(leftovers(&self.dst), [""; 0].map(PathBuf::from));
        assert_counted(&run, &self.src);
        let options = self.options(by_content);
        let second = self.run(&options).expect(0);
        assert_idle(&second);
        assert_eq!(second.count("unchanged_files"), second.count("files"), "{second}");
        assert_counted(&second, &self.src);
        run
    }
}

/// Fails the test if the counters do not say what is in the source, or not what the itemised lines say.
#[track_caller]
fn assert_counted(run: &Run, src: &Path) {
    let all = entries(src);
    let files: Vec<_> = all.values().filter(|m| m.is_file()).collect();
    assert_eq!(run.count("files"), files.len() as u64, "{run}");
    assert_eq!(run.count("bytes"), files.iter().map(|m| m.len()).sum::<u64>(), "{run}");
    assert_eq!(run.count("dirs"), 1 + all.values().filter(|m| m.is_dir()).count() as u64, "{run}");

    let items = run.items();
    let lines = |starts: &[&str]| {
        items.iter().filter(|line| starts.iter().any(|start| line.starts_with(start))).count() as u64
    };
    for (counter, starts) in [
        ("copied_files", &[">f"][..]),
        ("linked", &["h"]),
        ("meta_fixed", &["."]),
        ("made_dirs", &["cd"]),
        ("symlinks", &["cL"]),
        ("specials", &["cD", "cS"]),
        ("deleted", &["*deleting"]),
    ] {
        assert_eq!(run.count(counter), lines(starts), "{counter} of {run}");
    }
    // each name of a regular file ends in exactly one way
    let ended = run.count("unchanged_files") + lines(&[">f", "hf", ".f"]);
    assert_eq!(run.count("files"), ended, "{run}");
    for none in ["skipped", "vanished", "failures", "not_deleted", "left_out_owner"] {
        assert_eq!(run.count(none), 0, "{none} of {run}");
    }
}

#[test]
fn a_first_clone_copies_each_inode_once_and_a_further_run_nothing() {
    if !is_root() {
        return;
    }
    for_each_seed(|seed| {
        let mut pair = Pair::new(seed);
        let run = pair.settle(false);
        let all = entries(&pair.src);
        let inodes: HashSet<u64> = all.values().filter(|m| m.is_file()).map(MetadataExt::ino).collect();
        assert_eq!(run.count("copied_files"), inodes.len() as u64, "{run}");
        assert_eq!(run.count("retried"), 0, "{run}");
        assert_eq!(run.count("made_dirs"), run.count("dirs") - 1, "{run}");
    });
}

#[test]
fn whatever_changes_at_the_source_is_followed() {
    if !is_root() {
        return;
    }
    for_each_seed(|seed| {
        let mut pair = Pair::new(seed);
        pair.settle(false);
        for step in 0..STEPS {
            let count = 1 + pair.rng.index(40);
            let changes = random_changes(&pair.src, 1000 * seed + step, count, &pair.caps).unwrap();
            println!("seed {seed}, step {step}: {changes:?}");
            pair.settle(false);
        }
    });
}

#[test]
fn whatever_changes_at_the_target_is_put_right() {
    if !is_root() {
        return;
    }
    for_each_seed(|seed| {
        let mut pair = Pair::new(seed);
        pair.settle(false);
        for step in 0..STEPS {
            let count = 1 + pair.rng.index(40);
            pair.holes_may_go = true;
            let changes = random_changes(&pair.dst, 1000 * seed + step, count, &pair.caps).unwrap();
            println!("seed {seed}, step {step}: {changes:?}");
            pair.settle(false);
        }
    });
}

#[test]
fn what_size_and_time_hide_is_found_by_content() {
    if !is_root() {
        return;
    }
    for_each_seed(|seed| {
        let mut pair = Pair::new(seed);
        pair.settle(false);
        for (step, side) in [&pair.src, &pair.dst].map(PathBuf::clone).into_iter().enumerate() {
            let Some(path) = hidden_change(&side, 1000 * seed + step as u64).unwrap() else { continue };
            let linked = fs::symlink_metadata(&path).unwrap().nlink() - 1;
            let run = pair.settle(true);
            assert_eq!((run.count("copied_files"), run.count("linked")), (1, linked), "{run}");
        }
    });
}

#[test]
fn two_unrelated_trees_become_one() {
    if !is_root() {
        return;
    }
    for_each_seed(|seed| {
        let mut pair = Pair::new(seed);
        random_tree(&pair.dst, !seed, 150, &pair.caps).unwrap();
        // some names in common, of all kinds
        for (i, path) in entries(&pair.src).into_keys().enumerate().filter(|(i, _)| i % 3 == 0) {
            let at = pair.dst.join(&path);
            if at.symlink_metadata().is_err() && at.parent().is_some_and(Path::is_dir) {
                match i % 9 {
                    0 => fs::create_dir(&at).unwrap(),
                    3 => fs::write(&at, "in the way").unwrap(),
                    _ => random_tree(&at, seed + i as u64, 8, &pair.caps).unwrap(),
                }
            }
        }
        pair.settle(false);
    });
}

#[test]
fn passes_asked_one_after_the_other_do_what_they_do_together() {
    if !is_root() {
        return;
    }
    for_each_seed(|seed| {
        let mut pair = Pair::new(seed);
        pair.settle(false);
        random_changes(&pair.src, 1000 * seed, 40, &pair.caps).unwrap();
        for pass in ["copy", "delete", "dirtime"] {
            pair.run(&["--pass".into(), pass.into(), "--force".into()]).expect(0);
        }
        let found = compare(&pair.src, &pair.dst, &Options::default());
        assert!(found.is_empty(), "{found}");
        assert_idle(&pair.run(&["--delete".into()]).expect(0));
    });
}

/// Removes names until no two share an inode: which name of a group is copied and which are linked is chance.
fn without_groups(root: &Path) {
    for path in entries(root).into_iter().filter(|(_, m)| !m.is_dir() && m.nlink() > 1).map(|(path, _)| path)
    {
        let path = root.join(path);
        if fs::symlink_metadata(&path).unwrap().nlink() > 1 {
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn a_dry_run_says_what_the_run_then_does_and_touches_nothing() {
    if !is_root() {
        return;
    }
    for_each_seed(|seed| {
        let mut pair = Pair::new(seed);
        without_groups(&pair.src);
        pair.settle(false);
        for (step, side) in [&pair.src, &pair.dst].map(PathBuf::clone).into_iter().enumerate() {
            random_changes(&side, 1000 * seed + step as u64, 25, &pair.caps).unwrap();
            without_groups(&pair.src);
            without_groups(&pair.dst);
            let words = |word: &str| [word, "-i", "--delete"].map(String::from).to_vec();
            let before = [&pair.src, &pair.dst].map(|tree| snapshot(tree).unwrap());
            let dry = pair.run(&words("--dry-run")).expect(0);
            let after = [&pair.src, &pair.dst].map(|tree| snapshot(tree).unwrap());
            for (before, after) in before.iter().zip(&after) {
                assert_eq!(before.touched(after), [""; 0], "{dry}");
            }
            let real = pair.run(&words("--pool=3")).expect(0);
            let only = |a: &Run, b: &Run| -> Vec<String> {
                let (a, b) = (a.items(), b.items());
                a.into_iter().filter(|line| !b.contains(line)).map(str::to_owned).collect()
            };
            assert_eq!(
                (only(&dry, &real), only(&real, &dry)),
                (vec![], vec![]),
                "only said, only done: {dry}\n{real}"
            );
            for counter in
                ["copied_files", "linked", "deleted", "meta_fixed", "symlinks", "specials", "made_dirs"]
            {
                assert_eq!(dry.count(counter), real.count(counter), "{counter}: {dry}\n{real}");
            }
        }
    });
}

#[test]
fn verify_finds_a_difference_exactly_if_there_is_one() {
    if !is_root() {
        return;
    }
    for_each_seed(|seed| {
        let mut pair = Pair::new(seed);
        let verify = |pair: &Pair, code| {
            let words = args!["verify", "--json", "-c", &pair.src, &pair.dst];
            Run::of(&mut command(words)).expect(code)
        };
        pair.settle(false);
        assert_eq!(verify(&pair, 0).json["differences"], 0);
        // one kind of change at a time
        for step in 0..8 {
            let side = if step % 2 == 0 { pair.src.clone() } else { pair.dst.clone() };
            let changes = random_changes(&side, 1000 * seed + step, 1, &pair.caps).unwrap();
            let differ = !compare(&pair.src, &pair.dst, &Options::default()).is_empty();
            let run = verify(&pair, if differ { 23 } else { 0 });
            assert_eq!(run.json["differences"].as_u64() > Some(0), differ, "{changes:?}: {run}");
            pair.holes_may_go |= step % 2 == 1;
            pair.settle(false);
        }
    });
}
