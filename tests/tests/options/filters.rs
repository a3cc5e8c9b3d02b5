//! `--exclude`, `--include`, `--exclude-from`, `--delete-excluded`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use treeferry_tests::{Scratch, args, sync};

#[test]
fn an_excluded_name_is_left_out_at_every_depth_and_counted() {
    let s = Scratch::disk();
    s.src().file("a.o", "1").file("a.c", "2").file("d/e/b.o", "3").file("d/e/b.c", "4");
    let r = s.sync("--exclude *.o").expect(0);
    assert_eq!(s.dst().list("d/e"), ["b.c"]);
    assert_eq!(s.dst().list(""), ["a.c", "d"]);
    assert_eq!(r.count("skipped"), 2);
}

#[test]
fn a_leading_slash_anchors_a_pattern_at_the_source() {
    let s = Scratch::disk();
    s.src().file("build/x", "1").file("d/build/x", "2");
    s.sync("--exclude /build").expect(0);
    assert!(!s.dst().has("build") && s.dst().has("d/build/x"));
}

#[test]
fn a_trailing_slash_means_directories_only() {
    let s = Scratch::disk();
    s.src().file("cache/x", "1").file("d/cache", "a file");
    s.sync("--exclude cache/").expect(0);
    assert!(!s.dst().has("cache") && s.dst().has("d/cache"));
}

#[test]
fn an_excluded_directory_is_not_walked_at_all() {
    let s = Scratch::disk();
    s.src().file("d/e/f", "1").file("x", "2");
    let r = s.sync("--exclude /d --include f").expect(0);
    assert_eq!((r.count("dirs"), r.count("files"), r.count("skipped")), (1, 1, 1));
    assert!(!s.dst().has("d"));
}

#[test]
fn an_include_wins_over_an_exclude_before_and_behind_it() {
    for options in ["--exclude *.log --include keep.log", "--include keep.log --exclude *.log"] {
        let s = Scratch::disk();
        s.src().file("a.log", "1").file("d/keep.log", "2");
        s.sync(options).expect(0);
        assert!(!s.dst().has("a.log") && s.dst().has("d/keep.log"), "{options}");
    }
}

#[test]
fn two_stars_match_any_number_of_directories() {
    let s = Scratch::disk();
    s.src().file("a/z", "1").file("a/b/c/z", "2").file("b/z", "3");
    s.sync("--exclude a/**/z").expect(0);
    assert!(!s.dst().has("a/z") && !s.dst().has("a/b/c/z") && s.dst().has("b/z"));
}

#[test]
fn patterns_match_names_that_are_no_text() {
    let s = Scratch::disk();
    let odd = OsStr::from_bytes(b"\xff\n.tmp");
    std::fs::write(s.at("src").join(odd), "1").unwrap();
    s.src().file("x", "2");
    s.sync("--exclude *.tmp").expect(0);
    assert_eq!(s.dst().list(""), ["x"]);
}

#[test]
fn a_file_of_patterns_may_have_comments_and_take_back() {
    let s = Scratch::disk();
    s.src().file("a.o", "1").file("keep.o", "2").file("# no", "3").file("b", "4");
    let list = s.at("patterns");
    std::fs::write(&list, "# objects\n\n*.o\n!keep.o\n").unwrap();
    sync(args!["--exclude-from", &list, s.at("src"), s.at("dst")]).expect(0);
    assert_eq!(s.dst().list(""), ["# no", "b", "keep.o"]);
}

#[test]
fn what_is_excluded_is_safe_from_deletion() {
    let s = Scratch::disk();
    s.src().file("x", "1").file("both.o", "new");
    s.dst().file("extra.o", "1").file("both.o", "old").file("gone", "2").file("cache/deep", "3");
    s.sync("--delete --exclude *.o --exclude cache/").expect(0);
    assert_eq!(s.dst().list(""), ["both.o", "cache", "extra.o", "x"]);
    assert_eq!(s.dst().read("both.o"), "old");
    assert!(s.dst().has("cache/deep"));
}

#[test]
fn an_extra_directory_stays_for_the_excluded_entry_in_it_and_that_is_no_failure() {
    let s = Scratch::disk();
    s.dst().file("d/e/keep.o", "1").file("d/e/gone", "2").file("d/gone", "3");
    s.sync("--delete --exclude *.o").expect(0);
    assert_eq!(s.dst().list("d"), ["e"]);
    assert_eq!(s.dst().list("d/e"), ["keep.o"]);
}

#[test]
fn a_directory_that_holds_something_excluded_gives_way_to_nothing() {
    let s = Scratch::disk();
    s.src().file("d", "a file now").file("x", "1");
    s.dst().file("d/keep.o", "1");
    let r = s.sync("--delete --exclude *.o").expect(23);
    assert_eq!(r.failed(), ["d"]);
    assert_eq!(s.dst().read("d/keep.o"), "1");
    assert!(s.dst().has("x"));
}

#[test]
fn delete_excluded_deletes_what_is_excluded_here_and_there() {
    let s = Scratch::disk();
    s.src().file("x", "1").file("both.o", "new").file("cache/a", "2");
    s.dst().file("extra.o", "1").file("both.o", "old").file("cache/a", "2").file("cache/b/c", "3");
    s.sync("--delete --delete-excluded --exclude *.o --exclude /cache").expect(0);
    assert_eq!(s.dst().list(""), ["x"]);
}

#[test]
fn patterns_of_every_option_hold_together_in_their_order() {
    let s = Scratch::disk();
    s.src().file("a.o", "1").file("b.o", "2").file("c.o", "3");
    let list = s.at("patterns");
    std::fs::write(&list, "!a.o\n!c.o\n").unwrap();
    let words = args!["--exclude", "*.o", "--exclude-from", &list, "--exclude", "c.o"];
    sync(words.into_iter().chain([s.at("src"), s.at("dst")].map(OsString::from))).expect(0);
    assert_eq!(s.dst().list(""), ["a.o"]);
}

#[test]
fn a_name_of_a_group_takes_the_place_of_nothing_that_is_excluded() {
    let s = Scratch::disk();
    s.src().file("a", "1").link("a", "cache");
    s.dst().file("cache/in", "2");
    let r = s.sync("--delete --exclude cache/").expect(23);
    assert_eq!(r.failed(), ["cache"], "{r}");
    assert_eq!((s.dst().read("a"), s.dst().read("cache/in")), ("1".to_owned(), "2".to_owned()));
}

#[test]
fn regular_expressions_decide_in_their_order_and_protect_from_deletion() {
    let s = Scratch::disk();
    s.src().file("a.grib", "1").file("d/b.grib", "1").file("d/b.tmp", "1").file("d/sub/c", "1").dir("empty");
    s.dst().file("mine.tmp", "1").file("mine.grib", "1");
    s.sync(r"--delete --accept \.grib$ --reject .").expect(0);
    let t = s.dst();
    assert!(
        t.has("a.grib") && t.has("d/b.grib") && t.has("d/sub") && t.has("empty"),
        "directories are taken in"
    );
    assert!(!t.has("d/b.tmp") && !t.has("d/sub/c"));
    assert!(t.has("mine.tmp") && !t.has("mine.grib"), "what is left out is none of ours");
    let r = s.sync("--accept ( -q").expect(1);
    assert!(r.stderr.contains("'('"), "{r}");
}
