//! `--itemize`, with rsync as the judge.

use crate::scene;
use std::path::Path;
use std::process::Command;
use treeferry_kit::run::{DEADLINE, collect};
use treeferry_tests::{Run, Scratch, command};

/// What rsync says that it does, in `%i %n` form, sorted.
fn rsync(options: &[&str], src: &Path, dst: &Path) -> Vec<String> {
    let mut c = Command::new("rsync");
    c.args(["-aHAX", "--out-format=%i %n"]).args(options).env("LC_ALL", "C");
    let done = collect(c.arg(src.join("")).arg(dst.join("")), DEADLINE).expect_code(0);
    let mut lines: Vec<String> = done.stdout_text().lines().map(str::to_owned).collect();
    lines.retain(|l| !l.starts_with("created directory"));
    lines.sort_unstable();
    lines
}

#[test]
fn lines_are_those_of_rsync() {
    for options in [&["--delete"][..], &[], &["--delete", "-c"]] {
        let s = Scratch::disk();
        let theirs = treeferry_tests::Plant::new(s.at("rsync"));
        scene::plant(&s, &[&s.dst(), &theirs]);
        let want = rsync(options, &s.at("src"), &s.at("rsync"));
        let r = s.sync(&format!("-i {}", options.join(" "))).expect(0);
        assert_eq!(r.items(), want, "{options:?}");
    }
}

#[test]
fn lines_of_a_first_clone_are_those_of_rsync() {
    let s = Scratch::disk();
    scene::plant(&s, &[]);
    std::fs::create_dir(s.at("rsync")).unwrap();
    s.dst();
    let want = rsync(&[], &s.at("src"), &s.at("rsync"));
    assert_eq!(s.sync("-i").expect(0).items(), want);
}

#[test]
fn odd_names_are_escaped_as_rsync_does_it() {
    let s = Scratch::disk();
    s.src()
        .file("new\nline", "1")
        .file("back\\slash", "2")
        .file("tab\t", "3")
        .file("ü", "4")
        .file("\\#012", "5");
    s.src().file(" lead", "6").file("-dash", "7").file("del\u{7f}", "8");
    std::fs::create_dir(s.at("rsync")).unwrap();
    s.dst();
    let want = rsync(&["-8"], &s.at("src"), &s.at("rsync"));
    assert_eq!(s.sync("-i").expect(0).items(), want);
}

#[test]
fn nothing_is_said_of_what_is_right_already() {
    let s = Scratch::disk();
    scene::plant(&s, &[]);
    s.sync("").expect(0);
    assert_eq!(s.sync("-i --delete").expect(0).items(), [""; 0]);
}

#[test]
fn lines_come_on_standard_output_unless_that_is_for_json() {
    let s = Scratch::disk();
    s.src().file("f", "1");
    let line = ">f+++++++++ f";
    let plain = Run::of(command(["sync"]).args(s.words("-i -n"))).expect(0);
    assert!(plain.stdout.lines().any(|l| l == line), "{plain}");
    let json = s.sync("-i").expect(0);
    assert!(json.stderr.lines().any(|l| l == line), "{json}");
    assert_eq!(json.stdout.lines().count(), 1);
}

#[test]
fn without_itemize_no_line_is_printed() {
    let s = Scratch::disk();
    s.src().file("f", "1");
    let r = Run::of(command(["sync"]).args(s.words(""))).expect(0);
    assert_eq!(r.items(), [""; 0]);
}
