//! Mirrors: what they are asked for, how they end, and what the next one of the same directories knows.

mod checks;

use checks::mirror::{Mirror, watch_command};
use checks::{Immutable, entries, is_root};
use rustix::process::Signal;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::time::{Duration, SystemTime};
use treeferry_kit::run::wait_until;
use treeferry_tests::{Live, PATIENCE, Plant, Run, Scratch, command};

#[test]
fn paths_of_a_list_are_looked_at_and_nothing_else() {
    let s = Scratch::disk();
    s.src().file("a", "a").file("d/b", "b");
    let mut c = watch_command(&s, "--detect list");
    let mut child = c.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut list = child.stdin.take().unwrap();
    wait_until("the first walk is done", PATIENCE, || entries(&s.at("dst")).len() == 3);
    let dst = s.dst();
    wait_until("and DST is finished", PATIENCE, || {
        dst.meta("").permissions().mode() == s.src().meta("").permissions().mode()
    });
    s.src().file("a", "changed").file("d/b", "changed too").file("d/new", "new").file("e/f", "f");
    fs::remove_file(s.at("src/a")).unwrap();
    writeln!(list, "{}\nd//b\n../outside", s.at("src/a").display()).unwrap();
    wait_until("what is in the list arrives", PATIENCE, || !dst.has("a") && dst.read("d/b") == "changed too");
    assert!(!dst.has("d/new") && !dst.has("e"));
    write!(list, "./e\nd/new").unwrap();
    drop(list);
    assert!(child.wait().unwrap().success(), "it ends with its list");
    s.assert_same();
}

#[test]
fn what_is_posted_is_looked_at_and_can_be_waited_for() {
    let s = Scratch::disk();
    s.src().file("a", "a").file("d/b", "b");
    // a list that says nothing: nobody else tells what changes
    let mut c = watch_command(&s, "--detect list");
    let mut child = c.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let list = child.stdin.take().unwrap();
    let dst = s.dst();
    wait_until("the first walk is done", PATIENCE, || dst.has("a") && dst.has("d/b"));
    let post = |dir: &str, words: &[&str]| {
        let mut c = command(["post"]);
        Run::of(c.env("TREEFERRY_RUNTIME_DIR", s.at("run")).current_dir(s.at(dir)).args(words))
    };
    s.src().file("a", "changed").file("d/b", "too").file("d/new", "new").file("e/f", "f").file("not", "x");
    s.src().symlink("way", "e");
    fs::remove_file(s.at("src/d/b")).unwrap();
    post("src", &["a", "d"]).expect(0);
    post("src/e", &["../way/f", "."]).expect(0);
    post("src", &["d/b"]).expect(0);
    wait_until("it arrives", PATIENCE, || {
        dst.read("a") == "changed" && dst.has("d/new") && dst.has("e/f") && !dst.has("d/b")
    });
    assert!(!dst.has("not"));
    let r = post("src", &["not", "../elsewhere", "/nonexistent"]).expect(23);
    assert!(r.stderr.contains("/elsewhere is below the SRC of no mirror"), "{r}");
    wait_until("and the one that is below", PATIENCE, || dst.has("not"));
    fs::write(s.at("names"), "g\nh\0g2\0").unwrap();
    s.src().file("g\nh", "x").file("g2", "x");
    post("src", &["-0", "--from", "../names"]).expect(0);
    wait_until("names of every kind", PATIENCE, || dst.has("g\nh") && dst.has("g2"));
    drop(list);
    assert!(child.wait().unwrap().success());

    // whoever waits finds it there
    let s = Scratch::disk();
    let m = Mirror::start(&s, "--detect inotify");
    m.catch_up();
    for i in 0..10 {
        s.src().file(&format!("w{i}"), "x");
        let mut c = command(["post", "--wait"]);
        Run::of(c.env("TREEFERRY_RUNTIME_DIR", s.at("run")).arg(s.at(&format!("src/w{i}")))).expect(0);
        assert!(s.dst().has(&format!("w{i}")));
    }
    m.stop().expect(0);
}

#[test]
fn what_arrived_is_told_by_the_hour_also_of_earlier_mirrors_of_the_same_directories() {
    let s = Scratch::disk();
    let mut arrived = Vec::new();
    for n in 0..3 {
        let mut c = watch_command(&s, "--detect inotify");
        let m = Mirror { s: &s, live: Live::of(c.env("TREEFERRY_LOG_DIR", s.at("log"))) };
        m.catch_up();
        s.src().file(&format!("f{n}"), "x");
        m.assert_same();
        m.stop().expect(0);
        let mut c = command(["mirror", "report", "--json"]);
        let r = Run::of(c.env("TREEFERRY_LOG_DIR", s.at("log"))).expect(0);
        assert_eq!(r.json["mirrors"].as_array().unwrap().len(), 1, "{r}");
        let page = &r.json["mirrors"][0];
        let sum =
            |of: &str| page[of].as_array().unwrap().iter().map(|h| h["count"].as_u64().unwrap()).sum::<u64>();
        assert_eq!((sum("hours"), page["failing"].as_u64()), (sum("days"), Some(0)), "{r}");
        assert!(page["hours"][0]["max_ms"].as_f64().unwrap() > 0.0 && page["hours"][0]["over_300_s"] == 0);
        arrived.push(sum("hours"));
    }
    assert!(arrived[0] > 0 && arrived.is_sorted_by(|a, b| a < b), "{arrived:?}");
    let mut c = command(["mirror", "report", "--log-dir"]);
    let r = Run::of(c.arg(s.at("log")).arg(s.at("src")).arg(s.at("dst"))).expect(0);
    assert!(
        r.stdout.contains(&format!("{} -> ", s.at("src").display())) && r.stdout.contains("> 300 s"),
        "{r}"
    );
    let r = Run::of(command(["mirror", "report", "--log-dir"]).arg(s.at("log")).arg("/elsewhere")).expect(1);
    assert_eq!(r.stdout, "");
}

#[test]
fn a_mirror_that_walks_its_source_goes_on_with_what_the_last_walk_has_seen() {
    let s = Scratch::disk();
    for i in 0..500 {
        s.src().file(&format!("d{}/f{i}", i % 7), "x");
    }
    let start = |options: &str| {
        let mut c = watch_command(&s, &format!("--detect poll --poll-every 20ms {options}"));
        Mirror { s: &s, live: Live::of(c.env("TREEFERRY_LOG_DIR", s.at("log"))) }
    };
    let m = start("");
    m.assert_same();
    let index =
        || entries(&s.at("log/mirrors")).into_keys().find(|p| p.to_string_lossy().ends_with(".index"));
    m.until_quiet();
    let quiet = SystemTime::now();
    let kept = || fs::metadata(s.at("log/mirrors").join(index()?)).ok()?.modified().ok();
    m.until("an index is kept", || kept().is_some_and(|t| t > quiet));
    // killed, whatever it was at
    drop(m);
    s.src().file("d3/new", "new").file("d4/f4", "changed");
    fs::remove_file(s.at("src/d5/f5")).unwrap();
    fs::rename(s.at("src/d6"), s.at("src/e6")).unwrap();
    let m = start("");
    m.assert_same();
    let r = m.stop().expect(0);
    assert!(r.count("dirs") <= 2 && r.count("copied_files") >= 2, "only what has changed was walked: {r}");
    // another wish is no reason to trust it, nor is a damaged one
    s.src().file("d3/newer", "x");
    let m = start("--no-xattrs");
    m.catch_up();
    assert!(m.stop().expect(0).count("dirs") >= 8);
    let m = start("");
    m.assert_same();
    m.stop().expect(0);
    fs::write(s.at("log/mirrors").join(index().unwrap()), "not an index").unwrap();
    s.src().file("d3/newest", "x");
    let m = start("");
    m.assert_same();
    let r = m.stop().expect(0);
    assert!(r.count("dirs") >= 8 && r.stderr.contains("is left out"), "{r}");
    // nor when that is not wanted
    let m = start("--rescan");
    m.assert_same();
    assert!(m.stop().expect(0).count("dirs") >= 8);
    // nor when DST is another than it was
    for again in [false, true] {
        fs::remove_dir_all(s.at("dst")).unwrap();
        if again {
            fs::create_dir(s.at("dst")).unwrap();
        }
        let m = start("");
        m.assert_same();
        m.stop().expect(0);
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let s = Scratch::disk();
    for (options, word) in [
        ("--max-age 1h", "--max-age"),
        ("--reject (", "'('"),
        ("--detect smoke", "possible values"),
        ("-0", "--detect list"),
        ("--poll-every 1s", "--detect poll"),
        ("--detect poll --poll-every 0", "too short"),
        ("--agents a", "without a cluster"),
        ("--audit 0", "out of range"),
        ("--audit often", "not a rate"),
        ("--audit-settle 1s", "--audit <RATE>"),
    ] {
        let r = Run::of(&mut watch_command(&s, options)).expect(1);
        assert!(r.stderr.contains(word), "{r}");
    }
    let mut c = command(["watch", "/nonexistent/src"]);
    Run::of(c.arg(s.at("dst"))).expect(3);
    assert!(!s.at("dst/x").exists());
}

#[test]
fn a_target_that_is_removed_or_replaced_is_said_and_ends_the_mirror() {
    for replaced in [false, true] {
        let s = Scratch::disk();
        s.src().file("d/f", "f");
        let m = Mirror::start(&s, "");
        m.assert_same();
        fs::rename(s.at("dst"), s.at("gone")).unwrap();
        if replaced {
            fs::create_dir(s.at("dst")).unwrap();
        } else {
            fs::remove_dir_all(s.at("gone")).unwrap();
        }
        let r = m.live.finish().expect(3);
        assert!(r.stderr.contains("is not the directory any more"), "{r}");
        let m = Mirror::start(&s, "");
        m.assert_same();
        m.stop().expect(0);
    }
}

#[test]
fn a_file_that_is_none_of_ours_is_left_alone_and_its_name_is_refused() {
    for (detect, option, word) in [("poll", "--index", "it is none"), ("shim", "--ring", "length of a ring")]
    {
        let s = Scratch::disk();
        s.src().file("f", "f");
        fs::write(s.at("precious"), "x".repeat(20_000)).unwrap();
        for more in ["", " --rescan"] {
            let options = format!("--detect {detect} {option} {}{more}", s.at("precious").display());
            let r = Run::of(&mut watch_command(&s, &options)).expect(3);
            assert!(r.stderr.contains("precious") && r.stderr.contains(word), "{r}");
            assert!(!r.stderr.contains("SRC must be"), "a hint that does not help: {r}");
        }
        assert_eq!(fs::read_to_string(s.at("precious")).unwrap(), "x".repeat(20_000));
        // one that would be mirrored
        let inside = format!("--detect {detect} {option} {}", s.at("src/own").display());
        let r = Run::of(&mut watch_command(&s, &inside)).expect(1);
        assert!(r.stderr.contains("neither in SRC nor in DST") && !s.src().has("own"), "{r}");
        // what is written beside it
        for ending in ["tmp", "new"].iter().filter(|_| detect == "poll") {
            let beside = s.at(&format!("other.{ending}"));
            fs::write(&beside, "x").unwrap();
            let options = format!("--detect poll --index {}", s.at("other").display());
            let r = Run::of(&mut watch_command(&s, &options)).expect(3);
            assert!(r.stderr.contains(&format!("other.{ending} is none")), "{r}");
            assert_eq!(fs::read_to_string(&beside).unwrap(), "x");
            // as a process leaves it that was killed
            fs::write(&beside, if *ending == "tmp" { "TFP" } else { "" }).unwrap();
        }
        // an empty file, and one in which there is nothing to lose
        let good = format!("--detect {detect} {option} {}", s.at("empty").display());
        fs::write(s.at("empty"), "").unwrap();
        if detect == "poll" {
            let after_kill = format!("--detect poll --index {}", s.at("other").display());
            let m = Mirror::start(&s, &after_kill);
            m.until("the first walk is done", || s.dst().has("f"));
            m.stop().expect(0);
        }
        let m = Mirror::start(&s, &good);
        m.until("the first walk is done", || s.dst().has("f"));
        m.stop();
        let m = Mirror::start(&s, &good);
        m.until("it answers", || m.status().is_some());
        m.stop();
    }
}

#[test]
fn nobody_else_can_reach_what_a_mirror_keeps_for_itself() {
    let s = Scratch::disk();
    s.src().file("f", "f");
    let mut c = watch_command(&s, "--detect poll --poll-every 20ms");
    let m = Mirror { s: &s, live: Live::of(c.env("TREEFERRY_LOG_DIR", s.at("a/b/log"))) };
    m.catch_up();
    for dir in ["a", "a/b", "a/b/log", "a/b/log/mirrors"] {
        let mode = fs::metadata(s.at(dir)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode & 0o022, 0, "{dir} is {mode:o}");
    }
    let mode = |p: std::path::PathBuf| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(s.at("a/b/log/mirrors")), 0o700);
    m.stop().expect(0);
}

#[test]
fn a_damaged_page_is_named_and_takes_no_other_mirror_with_it() {
    let s = Scratch::disk();
    s.src().file("f", "f");
    let start = || {
        let mut c = watch_command(&s, "--detect inotify");
        Mirror { s: &s, live: Live::of(c.env("TREEFERRY_LOG_DIR", s.at("log"))) }
    };
    let report = || {
        let mut c = command(["mirror", "report", "--json"]);
        Run::of(c.env("TREEFERRY_LOG_DIR", s.at("log"))).expect(0)
    };
    let m = start();
    m.catch_up();
    m.stop().expect(0);
    let began = report().json["mirrors"][0]["began_ms"].clone();
    let damaged = s.at("log/mirrors/00000000000000aa.json");
    for bytes in [&b"\xff\xfe"[..], b"{\"format\": 1, \"src\":", b"[]"] {
        fs::write(&damaged, bytes).unwrap();
        let r = report();
        assert!(r.stderr.contains("00000000000000aa.json"), "{r}");
        assert_eq!(r.json["mirrors"].as_array().unwrap().len(), 1, "{r}");
        let m = start();
        m.catch_up();
        m.stop().expect(0);
        assert_eq!(report().json["mirrors"][0]["began_ms"], began, "it goes on with its page");
    }
    // of a version to come
    fs::write(&damaged, "{\"format\": 2}").unwrap();
    assert_eq!(report().stderr, "");
}

#[test]
fn a_mirror_whose_terminal_is_closed_ends_in_good_order() {
    let s = Scratch::disk();
    let m = Mirror::start(&s, "--detect inotify");
    m.catch_up();
    s.src().file("f", "f");
    m.catch_up();
    // the shell tells it too: both are waiting when it goes on
    m.live.freeze();
    m.live.signal(Signal::TERM);
    m.live.signal(Signal::HUP);
    m.live.thaw();
    m.live.finish().expect(0);
}

#[test]
fn a_tree_that_several_remove_at_once_has_not_failed() {
    let s = Scratch::disk();
    let chain = "o/".to_owned() + &"d/".repeat(400);
    let m = Mirror::start(&s, "--detect inotify");
    for _ in 0..3 {
        let mut dir = s.at("src");
        for name in chain.split_terminator('/') {
            dir.push(name);
            fs::create_dir(&dir).unwrap();
        }
        m.assert_same();
        fs::remove_dir_all(s.at("src/o")).unwrap();
        let mut c = command(["post", "--wait"]);
        Run::of(c.env("TREEFERRY_RUNTIME_DIR", s.at("run")).arg(s.at("src"))).expect(0);
        m.assert_same();
    }
    let r = m.stop().expect(0);
    assert!(!r.stderr.contains("No such file"), "{r}");
}

#[test]
fn sockets_of_a_mirror_that_was_killed_are_removed() {
    let s = Scratch::disk();
    s.src().file("f", "f");
    let sockets =
        || entries(&s.at("run/treeferry/jobs")).into_keys().filter(|p| p.extension().is_some()).count();
    for by_post in [false, true] {
        let m = Mirror::start(&s, "--detect inotify");
        m.catch_up();
        assert_eq!(sockets(), 2);
        m.live.signal(Signal::KILL);
        drop(m);
        let mut c = if by_post { command(["post", "f"]) } else { command(["status"]) };
        Run::of(c.env("TREEFERRY_RUNTIME_DIR", s.at("run")).current_dir(s.at("src")));
        // who posts has no business with the other
        assert_eq!(sockets(), usize::from(by_post));
    }
}

#[test]
fn two_mirrors_that_delete_do_not_share_a_target() {
    let s = Scratch::disk();
    s.src().file("one", "1");
    Plant::new(s.at("src2")).file("two", "2");
    let second = |options: &str| {
        let mut c = command(["watch", "--json"]);
        c.args(options.split_whitespace()).args([s.at("src2"), s.at("dst")]);
        c.env("TREEFERRY_RUNTIME_DIR", s.at("run"));
        c
    };
    let m = Mirror::start(&s, "");
    m.assert_same();
    for options in ["", "--no-delete"] {
        let r = Run::of(&mut second(options)).expect(3);
        assert!(r.stderr.contains("another mirror is kept there"), "{r}");
    }
    m.assert_same();
    m.stop().expect(0);
    let m = Mirror::start(&s, "--no-delete");
    m.catch_up();
    Run::of(&mut second("")).expect(3);
    let other = Live::of(&mut second("--no-delete"));
    m.until("both have brought theirs", || s.dst().has("one") && s.dst().has("two"));
    other.signal(Signal::TERM);
    other.finish();
    m.stop().expect(0);
}

#[test]
fn a_file_from_the_future_is_brought_when_it_has_been_left_alone_for_long_enough() {
    let s = Scratch::disk();
    s.src().file("future", "x");
    let later = SystemTime::now() + Duration::from_secs(10_000_000);
    fs::File::open(s.at("src/future")).unwrap().set_modified(later).unwrap();
    let m = Mirror::start(&s, "--min-age 1s");
    m.assert_same();
    s.src().file("new", "x");
    m.assert_same();
    m.stop().expect(0);
}

#[test]
fn a_mirror_whose_root_fails_is_shown_and_waited_for_no_longer_than_any() {
    if !is_root() {
        return;
    }
    let s = Scratch::disk();
    s.src().file("d/f", "f");
    let m = Mirror::start(&s, "");
    m.assert_same();
    let holds = Immutable::new(s.at("dst"));
    fs::File::open(s.at("src")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    m.until("it is named", || m.status().is_some_and(|m| m["failing_paths"][0]["path"] == "."));
    let post = || {
        let mut c = command(["post", "--wait"]);
        Run::of(c.arg(s.at("src/d/f")).env("TREEFERRY_RUNTIME_DIR", s.at("run")))
    };
    let r = post().expect(23);
    assert!(r.stderr.contains("cannot be mirrored"), "{r}");
    drop(holds);
    m.assert_same();
    post().expect(0);
    m.stop().expect(0);
}
