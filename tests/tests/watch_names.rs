//! Mirrors: SRC and DST written in several ways, and options that make no sense.

mod checks;

use checks::mirror::{Mirror, watch_command};
use std::fs;
use std::process::Command;
use treeferry_tests::{Live, Run, Scratch, command};

#[test]
fn a_mirror_is_the_same_however_its_directories_are_written() {
    let s = Scratch::disk();
    for i in 0..50 {
        s.src().file(&format!("d{}/f{i}", i % 7), "x");
    }
    fs::create_dir_all(s.at("run")).unwrap();
    let at = |name: &str| s.at(name).display().to_string();
    let ways = [
        (at("src"), at("dst")),
        ("src".to_owned(), "dst".to_owned()),
        ("./src/".to_owned(), at("dst/")),
        (at("./src//."), "dst//".to_owned()),
    ];
    let log = |mut c: Command| {
        c.env("TREEFERRY_LOG_DIR", s.at("log")).env("TREEFERRY_RUNTIME_DIR", s.at("run"));
        c.current_dir(s.at(""));
        c
    };
    for (n, (src, dst)) in ways.iter().enumerate() {
        let mut c = log(command(["watch", "--json", "--detect", "poll", "--poll-every", "20ms"]));
        let m = Mirror { s: &s, live: Live::of(c.args([src, dst])) };
        s.src().file("d3/f3", format!("{n}"));
        m.assert_same();
        let mut status = log(command(["status", "--json"]));
        let job = Run::of(&mut status).json["jobs"][0].clone();
        assert_eq!((&job["src"], &job["dst"]), (&at("src").into(), &at("dst").into()), "{src} {dst}");
        Run::of(log(command(["post", "--wait", "src/d3/../d3"])).args([] as [&str; 0])).expect(0);
        let r = m.stop().expect(0);
        // the index of the one before is that of this one
        assert_eq!(r.count("dirs") < 8, n > 0, "{src} {dst}: {r}");
    }
    for (src, dst) in &ways {
        let r = Run::of(log(command(["mirror", "report", "--json"])).args([src, dst])).expect(0);
        let found = r.json["mirrors"].as_array().unwrap();
        assert_eq!(found.len(), 1, "{src} {dst}: {r}");
        assert_eq!(found[0]["src"], at("src"));
    }
    let r = Run::of(&mut log(command(["mirror", "report", "--json"]))).expect(0);
    assert_eq!(r.json["mirrors"].as_array().unwrap().len(), 1, "{r}");
}

#[test]
fn durations_that_nobody_can_wait_for_are_refused() {
    let s = Scratch::disk();
    s.src().file("a", "a");
    for options in [
        "--min-age 18446744073709551615",
        "--min-age 18446744073709551615ms",
        "--poll-every 9223372036854775807",
        "--audit 1/s --audit-settle 9223372036854775807",
        "--min-age 1001000000w",
    ] {
        let r = Run::of(&mut watch_command(&s, options)).expect(1);
        assert!(r.stderr.contains("is too long: at most 1000 years"), "{r}");
    }
    // DST has nothing of it, so that there is something to settle
    fs::create_dir(s.at("dst")).unwrap();
    let mut c = command(["audit", "--settle", "9223372036854775807"]);
    let r = Run::of(c.args([s.at("src"), s.at("dst")])).expect(1);
    assert!(r.stderr.contains("is too long"), "{r}");
    s.sync("--min-age 365250d").expect(0);
    assert!(!s.dst().has("a"));
}
