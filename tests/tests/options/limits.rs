//! `--pool`, `--bwlimit`, `--iops`, `--config` and `TREEFERRY_CONFIG`.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;
use treeferry_tests::{Live, Run, Scratch, args, command, sync};

/// A source of so many files.
fn files(s: &Scratch, n: usize) {
    for i in 0..n {
        s.src().file(&format!("{i}"), "1");
    }
}

/// Threads of a run that has begun to copy.
fn threads(s: &Scratch, pool: &str) -> usize {
    let dst = s.at(pool);
    let mut run = Live::sync(args!["--pool", pool, "--iops", "50", s.at("src"), &dst]);
    run.until("files arrive", || fs::read_dir(&dst).is_ok_and(|d| d.count() > 2));
    run.threads()
}

#[test]
fn pool_is_the_number_of_threads_that_work() {
    let s = Scratch::disk();
    files(&s, 400);
    assert_eq!(threads(&s, "7") - threads(&s, "2"), 5);
}

#[test]
fn more_threads_than_a_process_may_have_are_refused() {
    let s = Scratch::memory();
    let r = s.sync("--pool 65535").expect(1);
    assert!(r.stderr.contains("4096"), "{r}");
    fs::write(s.at("config"), "[sync]\npool = 5000\n").unwrap();
    let r = s.sync(&format!("--config {}", s.at("config").display())).expect(1);
    assert!(r.stderr.contains("sync.pool = 5000") && r.stderr.contains("4096"), "{r}");
}

#[test]
fn a_run_takes_as_long_as_bwlimit_says() {
    let s = Scratch::memory();
    s.src().file("a", vec![1; 1 << 20]).file("d/b", vec![2; 1 << 20]).file("d/c", vec![3; 1 << 20]);
    let r = s.sync("--bwlimit 3M").expect(0);
    assert!(r.elapsed > Duration::from_millis(700), "{:?}", r.elapsed);
    s.assert_same();
}

#[test]
fn a_run_takes_as_long_as_iops_says() {
    let s = Scratch::memory();
    files(&s, 300);
    let r = s.sync("--iops 300 --pool 4").expect(0);
    assert!(r.elapsed > Duration::from_millis(700), "{:?}", r.elapsed);
    s.assert_same();
}

#[test]
fn iops_holds_for_entries_that_are_only_looked_at() {
    let s = Scratch::memory();
    files(&s, 300);
    s.sync("").expect(0);
    let r = s.sync("--iops 300").expect(0);
    assert!(r.elapsed > Duration::from_millis(700), "{:?}", r.elapsed);
}

#[test]
fn iops_holds_for_deletions() {
    let s = Scratch::memory();
    files(&s, 300);
    fs::rename(s.at("src"), s.at("dst")).unwrap();
    let r = sync(args!["--iops", "300", "--delete", &s.src().path(""), &s.at("dst")]).expect(0);
    assert!(r.elapsed > Duration::from_millis(700), "{:?}", r.elapsed);
    assert_eq!(r.count("deleted"), 300);
}

fn config(s: &Scratch, text: &str) -> PathBuf {
    let path = s.at("site.toml");
    fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_configuration_gives_defaults() {
    let s = Scratch::disk();
    s.src().file("x.bak", "1").file("y", "2");
    let file = config(&s, "[sync]\nexclude = [\"*.bak\"]\npool = 3\n");
    sync(args!["--config", &file, s.at("src"), s.at("dst")]).expect(0);
    assert_eq!(s.dst().list(""), ["y"]);
}

#[test]
fn the_environment_names_a_configuration_and_the_option_wins_over_it() {
    let s = Scratch::disk();
    s.src().file("x.bak", "1").file("y", "2");
    let file = config(&s, "[sync]\nexclude = [\"*.bak\"]\n");
    let run = |more: &[&str]| {
        let mut c = command(["sync", "--json"]);
        Run::of(c.args(more).args(s.words("")).env("TREEFERRY_CONFIG", &file)).expect(0)
    };
    run(&[]);
    assert_eq!(s.dst().list(""), ["y"]);
    run(&["--config", ""]);
    assert_eq!(s.dst().list(""), ["x.bak", "y"]);
}

#[test]
fn limits_of_the_configuration_hold() {
    let s = Scratch::memory();
    files(&s, 200);
    let file = config(&s, "[sync]\niops = 200\n");
    let r = sync(args!["--config", &file, s.at("src"), s.at("dst")]).expect(0);
    assert!(r.elapsed > Duration::from_millis(700), "{:?}", r.elapsed);
}

#[test]
fn options_win_over_the_configuration() {
    let s = Scratch::memory();
    files(&s, 200);
    let file = config(&s, "[sync]\niops = 1000000\n");
    let r = sync(args!["--config", &file, "--iops", "200", s.at("src"), s.at("dst")]).expect(0);
    assert!(r.elapsed > Duration::from_millis(700), "{:?}", r.elapsed);
}

#[test]
fn the_shipped_configuration_is_taken() {
    let s = Scratch::disk();
    s.src().file("y", "2");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/treeferry.toml");
    sync(args!["--config", shipped, s.at("src"), s.at("dst")]).expect(0);
    s.assert_same();
}
