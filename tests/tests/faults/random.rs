//! Random trees, random changes, random failures: the run comes to an end, nothing is lost or half there, and
//! the next run without failures puts everything right.
//!
//! A failing test names its seed; `TREEFERRY_SEED=N` runs that one alone, `TREEFERRY_ROUNDS=N` so many.

use crate::checks::{assert_idle, entries, is_root, leftovers};
use crate::scene::faulty;
use std::env;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use treeferry_kit::caps::Caps;
use treeferry_kit::random::{random_changes, random_tree};
use treeferry_kit::rng::Rng;
use treeferry_tests::Scratch;

/// Seeds that are tried unless the environment says otherwise.
const ROUNDS: u64 = 60;

const CALLS: &[&str] = &[
    "openat",
    "openat2",
    "statx",
    "getdents64",
    "create",
    "read",
    "write",
    "copy_file_range",
    "ficlone",
    "ftruncate",
    "lseek",
    "fchown",
    "fchownat",
    "fchmod",
    "fchmodat",
    "futimens",
    "utimensat",
    "listxattr",
    "getxattr",
    "setxattr",
    "removexattr",
    "linkat",
    "renameat",
    "mkdirat",
    "symlinkat",
    "readlinkat",
    "mknodat",
    "unlinkat",
    "rmdir",
    "statx-root",
];

const ERRORS: &[&str] =
    &["EIO", "EIO", "ENOSPC", "EACCES", "EPERM", "EDQUOT", "EINTR", "ESTALE", "ENOMEM", "EBUSY", "EROFS"];

fn rules(rng: &mut Rng) -> String {
    let rule = |rng: &mut Rng| {
        let (call, errno) = (rng.pick(CALLS), rng.pick(ERRORS));
        // the first calls are those that look at the roots
        let skip = 4 + rng.below(30);
        // EINTR for ever would rightly be tried for ever
        let times = if errno != "EINTR" && rng.chance(0.4) { 1_000_000 } else { 1 + rng.below(6) };
        format!("call={call},errno={errno},skip={skip},times={times}")
    };
    let count = 1 + rng.index(4);
    (0..count).map(|_| rule(rng)).collect::<Vec<_>>().join(";")
}

fn options(rng: &mut Rng) -> String {
    let delete = ["", "--delete", "--delete"][rng.index(3)];
    let pool = ["", "--pool 1", "--pool 5"][rng.index(3)];
    let rest = ["", "--chunk-size 64K", "--verify", "--checksum"][rng.index(4)];
    format!("{delete} {pool} {rest}")
}

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[test]
fn whatever_fails_is_named_and_the_next_run_makes_it_good() {
    if !is_root() {
        return;
    }
    let seeds = match number("TREEFERRY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TREEFERRY_ROUNDS").unwrap_or(ROUNDS),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| round(seed))) {
            eprintln!("to run this again: TREEFERRY_SEED={seed}");
            resume_unwind(panic);
        }
    }
}

fn round(seed: u64) {
    let mut rng = Rng::new(seed ^ 0xfa17);
    let s = if rng.chance(0.5) { Scratch::disk() } else { Scratch::memory() };
    let caps = Caps::probe(&s.at("src")).unwrap();
    random_tree(&s.at("src"), seed, 120, &caps).unwrap();
    if rng.chance(0.7) {
        s.sync("").expect(0);
        random_changes(&s.at("src"), !seed, 40, &caps).unwrap();
    }
    let before: Vec<(PathBuf, fs::Metadata)> =
        if s.at("dst").exists() { entries(&s.at("dst")).into_iter().collect() } else { Vec::new() };
    let old: Vec<Option<Vec<u8>>> =
        before.iter().map(|(p, m)| m.is_file().then(|| fs::read(s.at("dst").join(p)).unwrap())).collect();

    let (rules, options) = (rules(&mut rng), options(&mut rng));
    let run = faulty(&s, &rules, &options);
    println!(
        "seed {seed}: {}, {} failures, {} retried",
        run.status, run.json["counters"]["failures"], run.json["counters"]["retried"]
    );
    assert!(matches!(run.status.code(), Some(0 | 3 | 23)), "{run}");
    if run.status.code() != Some(3) {
        assert_eq!(run.status.code() == Some(23), run.count("failures") > 0, "{run}");
    }
    if s.at("dst").exists() {
        assert_eq!(leftovers(&s.at("dst")), [""; 0].map(PathBuf::from), "{run}");
    }
    // what was there and still is in the source is there: old or new, and whole
    for ((path, was), content) in before.iter().zip(old) {
        let Ok(now) = fs::symlink_metadata(s.at("src").join(path)) else { continue };
        if now.file_type() != was.file_type() {
            continue;
        }
        let at = s.at("dst").join(path);
        assert!(at.symlink_metadata().is_ok(), "{} is gone: {run}", path.display());
        if let Some(content) = content {
            let there = fs::read(&at).unwrap();
            let new = fs::read(s.at("src").join(path)).unwrap();
            assert!(there == content || there == new, "{} is neither old nor new: {run}", path.display());
        }
    }
    s.sync("--delete").expect(0);
    s.assert_same();
    assert_idle(&s.sync("--delete --checksum").expect(0));
}
