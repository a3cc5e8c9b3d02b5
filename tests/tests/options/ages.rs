//! `--min-age` and `--max-age`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use treeferry_kit::run::wait_until;
use treeferry_tests::{PATIENCE, Plant, Scratch};

/// 2001-09-09.
const LONG_AGO: i64 = 1_000_000_000;

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Nobody can set the status-change time back, so an old file has to become old.
fn let_it_age(tree: &Plant, name: &str, age: Duration) {
    let changed = tree.meta(name).modified().unwrap();
    assert!(changed.elapsed().unwrap() > Duration::from_secs(3600), "set its mtime back first");
    let planted = std::os::unix::fs::MetadataExt::ctime(&tree.meta(name));
    wait_until("it is old enough", PATIENCE, || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        since > Duration::from_secs(planted as u64 + 1) + age
    });
}

#[test]
fn what_changed_lately_is_left_alone_and_the_rest_is_copied() {
    let s = Scratch::disk();
    s.src().file("d/old", "1").time("d/old", LONG_AGO).file("young", "2").time("young", now() + 3600);
    let_it_age(&s.src(), "d/old", Duration::from_secs(1));
    let r = s.sync("-m 1s").expect(0);
    assert_eq!((s.dst().list(""), s.dst().list("d")), (vec!["d".to_owned()], vec!["old".to_owned()]));
    assert_eq!((r.count("skipped"), r.count("copied_files")), (1, 1));
}

#[test]
fn a_change_of_status_counts_as_a_change() {
    let s = Scratch::disk();
    s.src().file("f", "1").time("f", LONG_AGO);
    s.sync("--min-age 1h").expect(0);
    assert!(!s.dst().has("f"));
    s.sync("--min-age 0").expect(0);
    assert!(s.dst().has("f"));
}

#[test]
fn what_is_left_alone_for_its_youth_is_never_deleted_nor_changed() {
    let s = Scratch::disk();
    s.src().file("f", "new, and longer").symlink("l", "new").file("is-dir", "1").file("d/in", "new one");
    s.dst()
        .file("f", "old")
        .symlink("l", "old")
        .file("is-dir/in", "2")
        .file("d/in", "old")
        .file("extra", "3");
    s.sync("--delete -m 1h").expect(0);
    assert_eq!((s.dst().read("f"), s.dst().read("d/in")), ("old".to_owned(), "old".to_owned()));
    assert_eq!(std::fs::read_link(s.dst().path("l")).unwrap(), std::path::Path::new("old"));
    assert!(s.dst().has("is-dir/in"));
    assert!(!s.dst().has("extra"), "what the source does not have is extra whatever its age");
}

#[test]
fn files_that_nobody_read_for_long_are_left_out_and_their_targets_kept() {
    let s = Scratch::disk();
    s.src().file("unread", "1").time("unread", LONG_AGO).file("read", "2").dir("d").symlink("l", "x");
    s.src().time("d", LONG_AGO).time("l", LONG_AGO);
    s.dst().file("unread", "older");
    let r = s.sync("--delete --max-age 1d").expect(0);
    assert_eq!(s.dst().list(""), ["d", "l", "read", "unread"]);
    assert_eq!(s.dst().read("unread"), "older");
    assert_eq!(r.count("skipped"), 1);
}

#[test]
fn ages_far_beyond_the_clock_exclude_nothing_or_everything() {
    let s = Scratch::disk();
    s.src().file("f", "1").time("f", LONG_AGO);
    s.sync("--max-age 10000w").expect(0);
    assert!(s.dst().has("f"));
    s.src().file("g", "2");
    s.sync("--min-age 10000w").expect(0);
    assert!(!s.dst().has("g"));
}
