//! The exit code tells how a job ended, in rsync's numbers.

use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use treeferry_tests::{Live, Plant, Run, Scratch, args, bin, command, sync};

/// A scratch directory with one file to copy.
fn one_file() -> Scratch {
    let s = Scratch::disk();
    s.src().file("f", "1");
    s
}

fn with_fault(s: &Scratch, fault: &str) -> Run {
    let mut c = command(["sync", "--json"]);
    Run::of(c.args(s.words("")).env("TREEFERRY_FAULTS", fault))
}

#[test]
fn all_done_is_0() {
    let s = one_file();
    let r = s.sync("").expect(0);
    assert_eq!((r.json["exit_code"].as_u64(), r.json["state"].as_str()), (Some(0), Some("done")));
}

#[test]
fn help_and_version_are_0_and_go_to_standard_output() {
    for words in [&["--help"][..], &["--version"], &["-h"], &["help"], &["sync", "--help"], &["verify", "-h"]]
    {
        let r = Run::of(&mut command(words)).expect(0);
        assert!(!r.stdout.is_empty() && r.stderr.is_empty(), "{r}");
    }
}

#[test]
fn a_usage_error_is_1_and_nothing_is_touched() {
    let s = one_file();
    let config = s.at("bad.toml");
    fs::write(&config, "[sync]\npoool = 3\n").unwrap();
    let bad_config = format!("--config {}", config.display());
    let patterns = s.at("patterns");
    fs::write(&patterns, "fine\n[z-a]\n").unwrap();
    let bad_patterns = format!("--exclude-from {}", patterns.display());
    for options in [
        "--frobnicate",
        "--exclude [z-a]",
        "--include [z-a]",
        "--exclude-from /nonexistent/x",
        "--chunk-size 12X",
        "--chunk-size 1",
        "--bwlimit fast",
        "--iops 0",
        "--pool 0",
        "--min-age soon",
        "--max-age 1y",
        "--pass copy,move",
        "--max-delete 3",
        "--trash /tmp",
        "--delete-excluded",
        "--delete --max-delete -1",
        "--progress often",
        "--config /nonexistent/x",
        "-q -v",
        "one-more-argument",
        &bad_config,
        &bad_patterns,
    ] {
        let r = s.sync(options).expect(1);
        assert!(!r.stderr.is_empty(), "{options}: no word");
        assert!(!s.at("dst").exists(), "{options}");
    }
}

#[test]
fn a_usage_error_names_what_is_wrong() {
    let s = one_file();
    let config = s.at("bad.toml");
    fs::write(&config, "[sync]\npoool = 3\n").unwrap();
    for (options, word) in [
        ("--frobnicate".to_owned(), "--frobnicate"),
        ("--exclude [z-a]".to_owned(), "[z-a]"),
        ("--chunk-size 12X".to_owned(), "12X"),
        (format!("--config {}", config.display()), "poool"),
        ("--trash /tmp".to_owned(), "--trash"),
    ] {
        let r = s.sync(&options).expect(1);
        assert!(r.stderr.contains(word), "{r}");
    }
}

#[test]
fn no_command_no_source_and_no_target_are_1() {
    for words in [&[][..], &["sync"], &["sync", "/tmp"], &["verify", "/tmp"], &["frobnicate", "/a", "/b"]] {
        Run::of(&mut command(words)).expect(1);
    }
}

#[test]
fn faults_that_cannot_be_read_are_1() {
    let s = one_file();
    with_fault(&s, "call=openat").expect(1);
    assert!(!s.at("dst").exists());
}

#[test]
fn a_source_that_is_missing_or_no_directory_is_3_and_makes_no_target() {
    let s = one_file();
    for src in ["missing", "src/f", "src/f/"] {
        let r = sync(args!["--delete", s.at(src), s.at("dst")]).expect(3);
        assert!(!r.stderr.is_empty() && !s.at("dst").exists(), "{src}");
    }
}

#[test]
fn a_target_whose_parent_is_missing_or_that_is_no_directory_is_3() {
    let s = one_file();
    let there = Plant::new(s.at("there"));
    there.file("f", "1").symlink("dangling", "nowhere").symlink("to-file", "f");
    for dst in ["no/such/dst", "there/f", "there/f/x", "there/dangling", "there/to-file"] {
        sync(args![s.at("src"), s.at(dst)]).expect(3);
    }
    assert!(!s.at("no").exists());
    assert_eq!(
        (there.read("f"), there.list("")),
        ("1".to_owned(), ["dangling", "f", "to-file"].map(str::to_owned).to_vec())
    );
}

#[test]
fn a_source_that_we_may_not_read_is_3() {
    let s = one_file();
    let copy = s.at("treeferry");
    fs::copy(bin(), &copy).unwrap();
    fs::set_permissions(s.at("src"), fs::Permissions::from_mode(0o700)).unwrap();
    s.dst().file("extra", "1").owner("", 65534, 65534);
    let mut c = Command::new("setpriv");
    c.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy);
    treeferry_tests::keep_apart(&mut c);
    Run::of(c.args(["sync", "--json", "--delete"]).args(s.words(""))).expect(3);
    assert!(s.dst().has("extra"));
}

#[test]
fn the_error_of_an_unusable_root_is_in_the_summary_too() {
    let s = one_file();
    let r = sync(args![s.at("missing"), s.at("dst")]).expect(3);
    assert!(r.json["error"].as_str().is_some_and(|e| e.contains("missing")), "{r}");
    assert_eq!(r.json["exit_code"], 3);
}

#[test]
fn interrupted_is_20_and_the_same_command_finishes() {
    let s = Scratch::memory();
    (0..300).for_each(|i| _ = s.src().file(&format!("d/{i}"), "1"));
    for signal in [Signal::INT, Signal::TERM] {
        let mut run = Live::sync(s.words("--iops 200"));
        let had = fs::read_dir(s.at("dst/d")).map_or(0, Iterator::count);
        run.until("more files arrive", || fs::read_dir(s.at("dst/d")).is_ok_and(|d| d.count() > had + 5));
        run.signal(signal);
        let r = run.finish().expect(20);
        assert_eq!(r.json["state"], "interrupted");
    }
    s.sync("").expect(0);
    s.assert_same();
}

#[test]
fn named_failures_are_23_and_the_rest_is_done() {
    let s = one_file();
    s.src().file("d/bad", "1").file("d/good", "2");
    let r = with_fault(&s, "call=openat,errno=EACCES,path=d/bad").expect(23);
    assert_eq!(r.failed(), ["d/bad"]);
    assert_eq!((r.json["state"].as_str(), r.count("failures")), (Some("failed"), 1));
    assert!(r.stderr.contains("d/bad"), "{r}");
    assert!(s.dst().has("f") && s.dst().has("d/good") && !s.dst().has("d/bad"));
    s.sync("").expect(0);
    s.assert_same();
}

#[test]
fn a_source_entry_that_vanishes_is_24() {
    let s = one_file();
    s.src().file("d/gone", "1");
    let r = with_fault(&s, "call=openat,errno=ENOENT,path=d/gone").expect(24);
    assert_eq!((r.count("vanished"), r.count("failures"), r.count("copied_files")), (1, 0, 1));
    assert!(!s.dst().has("d/gone"));
}

#[test]
fn source_entries_that_really_vanish_are_24() {
    let s = Scratch::memory();
    (0..300).for_each(|i| _ = s.src().file(&format!("{i}"), "1"));
    let mut run = Live::sync(s.words("--iops 200 --delete"));
    run.until("files arrive", || fs::read_dir(s.at("dst")).is_ok_and(|d| d.count() > 5));
    // all names are listed by now; most of them are not copied yet
    (0..300).for_each(|i| _ = s.src().remove(&format!("{i}")));
    let r = run.finish().expect(24);
    assert!(r.count("vanished") > 0, "{r}");
    s.sync("--delete").expect(0);
    s.assert_same();
}

#[test]
fn a_failure_counts_more_than_what_vanished() {
    let s = one_file();
    s.src().file("gone", "1").file("bad", "1");
    let faults = "call=openat,errno=ENOENT,path=gone;call=openat,errno=EACCES,path=bad";
    let r = with_fault(&s, faults).expect(23);
    assert_eq!((r.count("vanished"), r.count("failures")), (1, 1));
}

#[test]
fn reaching_max_delete_is_25_and_a_failure_counts_more() {
    let s = one_file();
    s.dst().file("x", "1").file("y", "2");
    s.sync("--delete --max-delete 1").expect(25);
    s.dst().file("x", "1").file("y", "2").file("d/in", "3");
    s.src().file("bad", "1");
    let mut c = command(["sync", "--json"]);
    c.args(s.words("--delete --max-delete 1")).env("TREEFERRY_FAULTS", "call=openat,errno=EACCES,path=bad");
    Run::of(&mut c).expect(23);
}

#[test]
fn exactly_max_delete_is_0() {
    let s = one_file();
    s.dst().file("x", "1").file("y", "2");
    s.sync("--delete --max-delete 2").expect(0);
}
