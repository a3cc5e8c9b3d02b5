//! `--json`, `-q`, `-v`, `--progress`.

use serde_json::Value;
use std::process::Command;
use treeferry_kit::run::{DEADLINE, collect};
use treeferry_tests::{Run, Scratch, bin, command};

fn files(s: &Scratch, n: usize) {
    for i in 0..n {
        s.src().file(&format!("{i}"), "1");
    }
}

fn plain(s: &Scratch, options: &str) -> Run {
    Run::of(command(["sync"]).args(s.words(options)))
}

#[test]
fn json_is_one_object_with_every_key_of_the_contract() {
    let s = Scratch::disk();
    s.src().file("d/f", "12345").link("d/f", "g").symlink("l", "x").fifo("p").file("o.bak", "1");
    s.dst().file("extra", "1");
    let r = s.sync("--delete --exclude *.bak").expect(0);
    assert_eq!(r.stdout.lines().count(), 1);
    let object = r.json.as_object().unwrap();
    let text = |k: &str| object[k].as_str().unwrap_or_else(|| panic!("{k}: {r}"));
    assert!(!text("job").is_empty());
    assert_eq!(text("state"), "done");
    assert_eq!(text("src"), s.at("src").to_str().unwrap());
    assert_eq!(text("dst"), s.at("dst").to_str().unwrap());
    assert_eq!(object["passes"], serde_json::json!(["copy", "delete", "dirtime"]));
    assert!(object["elapsed_s"].as_f64().unwrap() > 0.0);
    assert_eq!(object["failures"], Value::Array(vec![]));
    let want = [("dirs", 2), ("files", 2), ("bytes", 10), ("copied_files", 1), ("copied_bytes", 5)];
    let more = [("unchanged_files", 0), ("linked", 1), ("symlinks", 1), ("specials", 1), ("deleted", 1)];
    for (name, value) in want.into_iter().chain(more).chain([("skipped", 1), ("failures", 0)]) {
        assert_eq!(r.count(name), value, "{name}");
    }
    assert!(object["counters"]["meta_fixed"].is_u64());
}

#[test]
fn json_names_each_failure_with_path_operation_and_error() {
    let s = Scratch::disk();
    s.src().file("d", "1");
    s.dst().file("d/in", "1");
    let r = s.sync("").expect(23);
    let f = &r.json["failures"][0];
    assert_eq!(f["path"], "d");
    assert!(f["op"].as_str().is_some_and(|t| !t.is_empty()), "{f}");
    assert!(f["error"].as_str().is_some_and(|t| !t.is_empty()), "{f}");
    assert_eq!((r.count("failures"), &r.json["state"]), (1, &Value::from("failed")));
}

#[test]
fn json_lists_the_first_hundred_failures_and_counts_all() {
    let s = Scratch::disk();
    for i in 0..130 {
        s.src().file(&format!("{i}"), "1");
        s.dst().file(&format!("{i}/in"), "1");
    }
    let r = s.sync("-q").expect(23);
    assert_eq!((r.failed().len(), r.count("failures")), (100, 130));
    assert_eq!(r.stderr.lines().count(), 130, "every failure is printed");
}

#[test]
fn the_summary_is_text_on_standard_output() {
    let s = Scratch::disk();
    s.src().file("f", "1");
    let r = plain(&s, "").expect(0);
    assert!(r.stdout.contains("done") || r.stdout.contains("copied"), "{r}");
    assert_eq!(r.stderr, "");
}

#[test]
fn quiet_says_nothing_of_success_and_everything_of_failure() {
    let s = Scratch::disk();
    s.src().file("f", "1").file("d", "1");
    s.dst().file("d/in", "1");
    let r = plain(&s, "-q").expect(23);
    assert_eq!(r.stdout, "");
    assert!(r.stderr.lines().count() == 1 && r.stderr.contains('d'), "{r}");
    let r = plain(&s, "-q --delete").expect(0);
    assert_eq!((r.stdout.as_str(), r.stderr.as_str()), ("", ""));
}

#[test]
fn quiet_itemises_where_that_is_asked_for_too() {
    let s = Scratch::disk();
    s.src().file("f", "1");
    s.dst();
    let r = plain(&s, "-q -i").expect(0);
    assert!(r.stdout.lines().any(|l| l == ">f+++++++++ f"), "{r}");
    assert!(r.stdout.lines().all(|l| r.items().contains(&l)), "{r}");
}

#[test]
fn verbose_logs_to_standard_error() {
    let s = Scratch::disk();
    s.src().file("f", "1");
    let r = plain(&s, "-v").expect(0);
    assert!(!r.stderr.is_empty());
    assert_eq!(plain(&s, "").expect(0).stderr, "");
}

#[test]
fn progress_is_not_shown_where_nobody_looks() {
    let s = Scratch::memory();
    files(&s, 150);
    assert_eq!(plain(&s, "--iops 100").expect(0).stderr, "");
}

#[test]
fn progress_always_is_shown_in_a_pipe_too() {
    let s = Scratch::memory();
    files(&s, 150);
    let r = plain(&s, "--iops 100 --progress always").expect(0);
    assert!(!r.stderr.is_empty());
    assert!(r.stdout.lines().count() > 0);
}

#[test]
fn progress_is_shown_on_a_terminal() {
    let s = Scratch::memory();
    files(&s, 60);
    let on_terminal = |options: &str| {
        let line = format!("exec {} sync --iops 100 {options} src dst >out", bin().display());
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).current_dir(s.at("")).env("TERM", "xterm");
        collect(treeferry_tests::neutral(&mut script), DEADLINE).expect_code(0).stdout_text()
    };
    assert!(on_terminal("").contains("entries"));
    assert_eq!(on_terminal("--progress never"), "");
    assert_eq!(on_terminal("-q"), "");
}
