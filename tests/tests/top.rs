//! `treeferry top` in a terminal of its own: what it shows of a real cluster, what its keys do, and that the terminal is
//! as it was before, however it ends.

use rustix::process::Signal;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use treeferry_kit::run::wait_until;
use treeferry_kit::tree::{Kind, Spec};
use treeferry_tests::cluster::Cluster;
use treeferry_tests::terminal::Terminal;
use treeferry_tests::{Live, PATIENCE, Run, Scratch, command};

/// A cluster at which nobody listens.
const NOBODY: [&str; 5] = ["top", "--broker", "amqp://127.0.0.1:1", "--ledger", "redis://127.0.0.1:1"];

/// Keys are heard within this, whatever servers do.
const AT_ONCE: Duration = Duration::from_secs(20);

fn in_terminal(mut c: Command, columns: u16, rows: u16) -> Terminal {
    Terminal::start(c.env("TERM", "xterm-256color").env_remove("NO_COLOR"), columns, rows)
}

#[test]
fn the_view_shows_a_cluster_and_its_keys_steer_it() {
    let c = Cluster::start(2, 1);
    let s = Scratch::disk();
    Spec::new(Kind::Small).count(20_000).make(&s.at("src/small")).unwrap();
    s.src().file("in the way", "new");
    s.dst().file("in the way/x", "old");
    let id = c.detach(&s, "--iops 40");
    let mut t = in_terminal(c.command(["top"]), 80, 24);

    t.until("the job and who works for it", |text| {
        [&*id, " running ", "-> ", "w0-", "w1-", "h0-", "hardlinker", "consumers", "data 0 s old"]
            .iter()
            .all(|part| text.contains(part))
    });
    assert!(t.is_taken());
    t.until("what runs", |text| text.contains("small"));
    t.until("a chart", |text| text.contains(", peak "));
    t.until("the failure", |text| text.contains("in the way") && text.contains("the latest of 1"));

    t.type_in("p");
    t.until("that it was done", |text| text.contains(&format!("done: pause job {id}")));
    assert_eq!(c.job(&id)["paused"], true);
    t.until("the job as paused", |text| text.contains(&format!("{id} paused")));
    t.type_in("r");
    t.until("the job as running", |text| text.contains(&format!("{id} running")));
    assert_eq!(c.job(&id)["paused"], false);

    // the second list, its second row
    t.type_in("\t\x1b[Bp");
    let w1 = |what: &str| c.reports().into_iter().find(|w| w["node"] == "w1").map(|w| w[what].clone());
    let w0 = |what: &str| c.reports().into_iter().find(|w| w["node"] == "w0").map(|w| w[what].clone());
    // hardlinkers come first, by name
    wait_until("one worker is paused", PATIENCE, || w0("paused") == Some(true.into()));
    assert_eq!(w1("paused"), Some(false.into()));
    t.until("which", |text| text.lines().any(|l| l.starts_with(">w0-") && l.contains(" paused ")));
    t.type_in("r");
    wait_until("it goes on", PATIENCE, || w0("paused") == Some(false.into()));
    t.until("that it was done", |text| text.contains("done: resume w0-"));
    t.type_in("+");
    wait_until("it has a thread more", PATIENCE, || w0("pool") == Some(3.into()));
    t.until("that it was done", |text| text.contains("done: 3 threads for w0-"));
    t.type_in("<");
    wait_until("each has one less", PATIENCE, || {
        w0("pool") == Some(2.into()) && w1("pool") == Some(1.into())
    });

    // the ledger goes away, and comes back
    c.kill_server("redis");
    t.until("that the data are old", |text| text.contains("NO NEW DATA FOR"));
    let began = Instant::now();
    t.type_in("?");
    t.until("the keys", |text| text.contains("pause, resume the chosen"));
    t.type_in(" P");
    t.until("that nothing is asked", |text| text.contains("not asked: the cluster does not answer"));
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    c.services.call("start");
    t.until("new data", |text| text.contains("data 0 s old") || text.contains("data 1 s old"));

    // a job ends after a yes only
    t.type_in("\tc");
    t.until("the question", |text| text.contains(&format!("Cancel job {id}?")));
    t.type_in("n");
    t.until("that it goes on", |text| text.contains(&format!("job {id} is not cancelled")));
    assert_eq!(c.job(&id)["state"], "running");
    t.type_in("cy");
    t.until("its end", |text| text.contains(&format!("{id} interrupted")));
    assert_eq!(c.job(&id)["state"], "interrupted");

    t.type_in("q");
    let (status, said) = t.end();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
    t.assert_restored();
}

#[test]
fn mirrors_of_a_cluster_are_shown_and_are_not_cancelled_like_jobs() {
    let mut c = Cluster::start(1, 0);
    c.agent("a0", &["--detect", "inotify"]);
    let s = Scratch::disk();
    s.src().file("in the way", "new");
    s.dst().file("in the way/x", "old");
    let mut watch = c.command(["watch", "--no-delete"]);
    let _keeper = Live::of(watch.arg(s.at("src")).arg(s.at("dst")));
    let mut t = in_terminal(c.command(["top"]), 120, 30);
    t.until("the mirror, and how it stands", |text| {
        [
            " 1 job running",
            "-> ",
            "complete up to ",
            "ago, but for 1 that fail",
            "0 wait",
            "the latest of 1",
            "in the way",
        ]
        .iter()
        .all(|part| text.contains(part))
    });
    let id = c.status()["jobs"][0]["job"].clone();
    let id = id.as_str().unwrap();
    t.type_in("cy");
    t.until("that it cannot be", |text| text.contains(&format!("cancel job {id}: {id} is a mirror")));
    for words in ["cancel", "pause"] {
        let r = Run::of(&mut c.command([words, id])).expect(1);
        assert!(r.stderr.contains("is a mirror") && r.stderr.contains("SIGTERM"), "{r}");
    }
    t.type_in("q");
    t.end();
    assert_eq!(c.status()["jobs"][0]["state"], "running");
}

#[test]
fn keys_are_heard_and_the_terminal_is_restored_without_a_cluster() {
    let mut t = in_terminal(command(NOBODY), 80, 24);
    t.until("why there is nothing", |text| text.contains("! the ledger:") && text.contains("no data yet"));
    assert!(t.is_taken());
    let began = Instant::now();
    t.type_in("?");
    t.until("the keys", |text| text.contains("leave; jobs go on"));
    t.type_in("xq");
    let (status, said) = t.end();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(status.code(), Some(69));
    assert!(said.contains("treeferry: the ledger:") && said.contains("Is Redis running"), "{said}");
    t.assert_restored();
}

#[test]
fn signals_end_it_and_restore_the_terminal() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut t = in_terminal(command(NOBODY), 80, 24);
        t.until("the screen", |text| text.contains("treeferry top"));
        t.signal(signal);
        let (status, said) = t.end();
        assert_eq!((status.code(), said.as_str()), (Some(20), ""), "{signal:?}");
        t.assert_restored();
    }
}

#[test]
fn control_c_is_a_key_that_leaves() {
    let mut t = in_terminal(command(NOBODY), 80, 24);
    t.until("the screen", |text| text.contains("treeferry top"));
    t.type_in("\x03");
    t.end();
    t.assert_restored();
}

#[test]
fn a_small_terminal_is_told_and_a_grown_one_is_filled() {
    let mut t = in_terminal(command(NOBODY), 40, 10);
    t.until("the screen", |text| text.contains("treeferry top") && text.contains('!'));
    assert!(!t.text().contains("Workers ---"), "{}", t.text());
    t.resize(100, 30);
    t.until("all of it", |text| text.contains("Workers ---") && text.contains("q quit"));
    t.resize(20, 3);
    t.until("little of it", |text| !text.contains("Workers") && text.contains("no data yet"));
    t.type_in("q");
    t.end();
    t.assert_restored();
}

#[test]
fn what_is_pasted_is_no_key() {
    let mut t = in_terminal(command(NOBODY), 80, 24);
    t.until("the screen", |text| text.contains("treeferry top"));
    t.type_in("\x1b[200~q?\x1b[201~");
    t.type_in("?");
    t.until("the keys", |text| text.contains("leave; jobs go on"));
    t.signal(Signal::TERM);
    t.end();
    t.assert_restored();
}

#[test]
fn without_colour_there_is_none() {
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "xterm-mono")] {
        let mut c = command(NOBODY);
        c.env("TERM", "xterm-256color").env(name, value);
        let mut t = Terminal::start(&mut c, 80, 24);
        t.until("the screen", |text| text.contains("treeferry top") && text.contains("! "));
        assert!(!t.has_colour(), "{name}={value}");
        t.type_in("q");
        t.end();
        t.assert_restored();
    }
    let t = in_terminal(command(NOBODY), 80, 24);
    t.until("the screen", |text| text.contains("treeferry top") && text.contains("! "));
    assert!(t.has_colour(), "with colour there is some: the test can see it");
}

#[test]
fn what_is_no_terminal_is_refused_with_a_hint() {
    let r = Run::of(&mut command(NOBODY)).expect(1);
    assert!(
        r.stderr.contains("top needs a terminal") && r.stderr.contains("treeferry status --watch"),
        "{r}"
    );
    assert_eq!(r.stdout, "");
    // only the output is one
    let mut c = command(NOBODY);
    let mut t = Terminal::start_with(&mut c, Stdio::null(), 80, 24);
    let (status, said) = t.end();
    assert!(status.code() == Some(1) && said.contains("treeferry status --watch"), "{status} {said}");
    t.assert_restored();
}
