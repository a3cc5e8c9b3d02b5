//! `--itemize`, with rsync as the judge.

use crate::scene;
use std::path::Path;
use std::process::Command;
use treeferry_kit::run::{DEADLINE, collect};
use treeferry_tests::{Run, Scratch, command};

/// What rsync says that it would do, in `%i %n` form, sorted. (Of an ACL that changes the mode it says `p` in a dry
/// run only: by the time it tells it has set the ACL.)
fn rsync(options: &[&str], src: &Path, dst: &Path) -> Vec<String> {
    let mut c = Command::new("rsync");
    c.args(["-naHAX", "--out-format=%i %n"]).args(options).env("LC_ALL", "C");
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
        assert_eq!(
            scene::without_group(r.items()),
            scene::without_group(want.iter().map(String::as_str)),
            "{options:?}"
        );
    }
}

#[test]
fn lines_of_a_first_clone_are_those_of_rsync() {
    let s = Scratch::disk();
    scene::plant(&s, &[]);
    std::fs::create_dir(s.at("rsync")).unwrap();
    s.dst();
    let want = rsync(&[], &s.at("src"), &s.at("rsync"));
    let r = s.sync("-i").expect(0);
    assert_eq!(scene::without_group(r.items()), scene::without_group(want.iter().map(String::as_str)));
}

#[test]
fn of_a_new_group_one_name_is_copied_and_the_others_are_linked() {
    let s = Scratch::disk();
    s.src().file("a", "1").link("a", "b").link("a", "d/c");
    let r = s.sync("-i").expect(0);
    let mut marks = ["a", "b", "d/c"].map(|n| r.item(n).unwrap());
    marks.sort_unstable();
    assert_eq!(marks, [">f+++++++++", "hf+++++++++", "hf+++++++++"]);
}

#[test]
fn a_new_name_of_a_group_that_is_there_is_linked_and_not_copied() {
    let s = Scratch::disk();
    s.src().file("m", "1");
    s.sync("").expect(0);
    // so many that some of them come before the old name, in whatever order names come
    let new: Vec<String> = (0..20).map(|i| format!("n{i}")).collect();
    for n in &new {
        s.src().link("m", n);
    }
    let r = s.sync("-i").expect(0);
    s.assert_same();
    assert!(new.iter().all(|n| r.item(n) == Some("hf+++++++++")), "{r}");
    assert_eq!((r.item("m"), r.count("copied_files"), r.count("linked")), (None, 0, 20));
}

#[test]
fn a_name_that_joins_a_group_is_linked_and_not_copied() {
    let s = Scratch::disk();
    s.src().file("a", "1").file("b", "1");
    s.sync("").expect(0);
    s.src().remove("b").link("a", "b");
    let r = s.sync("-i").expect(0);
    s.assert_same();
    let marks = [r.item("a"), r.item("b")];
    assert!(marks == [None, Some("hf")] || marks == [Some("hf"), None], "{r}");
    assert_eq!((r.count("copied_files"), r.count("linked")), (0, 1));
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
    s.src().file(" lead", "6").file("-dash", "7");
    s.src().time("", 5);
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
