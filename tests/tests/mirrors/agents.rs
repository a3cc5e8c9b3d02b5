//! Agents: which of them there are, what they hear and miss, and what a mirror asks of them.

use super::*;

#[test]
fn an_agent_that_is_stopped_and_started_again_goes_on_with_the_ring_and_nothing_is_walked() {
    let all = [Scratch::disk(), Scratch::disk()];
    let ring = all[0].at("ring");
    // one ring for both mirrors
    let c = cluster(&[("a0", &["--detect", "shim", "--ring", ring.to_str().unwrap()])]);
    let sh = |script: &str| {
        for s in &all {
            let mut bash = std::process::Command::new("bash");
            bash.env("LD_PRELOAD", library()).env("TREEFERRY_SHIM", &ring).current_dir(s.at("src"));
            assert!(bash.args(["-ec", script]).status().unwrap().success(), "{script}");
        }
    };
    for s in &all {
        s.src().file("d/f", "f").file("g", "g").link("g", "h");
    }
    let mirrors = all.each_ref().map(|s| Mirror::start(s, &c, "--agents a0"));
    let same = || mirrors.iter().for_each(Mirror::assert_same);
    same();
    sh("echo 1 > a; mkdir -p e/f; echo 2 > e/f/g");
    same();
    for i in 0..3 {
        c.borrow_mut().stop("a0");
        sh(&format!("echo {i} > a; mv e e{i}; mv e{i} e; echo {i} > e/new{i}; rm h; ln g h; echo {i} >> h"));
        if i == 1 {
            // nor if nobody keeps the mirror
            mirrors[0].stop().expect(0);
            mirrors[0].keep();
        }
        c.borrow_mut().start_again("a0");
        sh("echo more >> a");
        same();
        for m in &mirrors {
            assert_eq!(m.number("resyncs"), 0, "nothing was walked");
        }
    }
    // what it may have missed is known to be missed
    c.borrow_mut().kill("a0");
    sh("echo untold > e/untold");
    fs::remove_file(&ring).unwrap();
    c.borrow_mut().start_again("a0");
    same();
    for m in &mirrors {
        assert!(m.number("resyncs") > 0, "the test has proven nothing");
        m.stop().expect(0);
    }
}

#[test]
fn what_is_not_heard_is_known_to_be_missed() {
    let c = cluster(&[("a0", &["--detect", "inotify", "--spool-size", "64K"])]);
    let s = Scratch::memory();
    s.src().file("a/b/c", "c");
    let m = Mirror::start(&s, &c, "--agents a0");
    m.assert_same();

    // an agent that was away
    c.borrow_mut().kill("a0");
    s.src().file("a/unheard", "x");
    let then = now_us();
    m.until("it is said who is silent", || {
        let all = m.status().map(|m| m["agents"].clone()).unwrap_or_default();
        all[0]["heard_ms_ago"].as_u64().is_some_and(|ms| ms > 1000)
    });
    assert!(m.complete_up_to() <= then, "nobody was there to hear that");
    c.borrow_mut().start_again("a0");
    m.assert_same();
    assert!(m.number("resyncs") > 0);

    // messages that the broker has lost, while nobody took them
    m.kill_keeper();
    s.src().file("a/lost", "x");
    thread::sleep(Duration::from_millis(300));
    lose_queues(&c);
    m.keep();
    m.assert_same();

    // messages that somebody had heard, and that the broker has lost before what they say was done
    ["w0", "w1"].iter().for_each(|w| c.borrow_mut().kill(w));
    s.src().file("a/undone", "x");
    m.until("it is heard", || m.number("waiting") + m.number("busy") > 0);
    m.kill_keeper();
    lose_queues(&c);
    ["w0", "w1"].iter().for_each(|w| c.borrow_mut().start_again(w));
    m.keep();
    s.src().file("a/later", "x");
    m.assert_same();

    // an agent that was away while nobody kept the mirror, and has said something since
    m.stop().expect(0);
    c.borrow_mut().kill("a0");
    s.src().file("a/missed", "x").file("dd/missed", "x");
    c.borrow_mut().start_again("a0");
    // what it says before it listens to SRC is nothing, and so is what comes after the keeper: most of this waits for that
    for n in 0..40 {
        s.src().file("a/said", n.to_string());
        thread::sleep(Duration::from_millis(50));
    }
    m.keep();
    m.assert_same();

    // a broker that is away for longer than the spool lasts, and writers who do not notice
    let before = m.number("resyncs");
    c.borrow().kill_server("rabbitmq");
    let began = Instant::now();
    for i in 0..20_000 {
        fs::write(s.at(&format!("src/a/file-with-a-long-name-{i:060}")), "x").unwrap();
    }
    assert!(began.elapsed() < Duration::from_secs(30), "they waited");
    thread::sleep(Duration::from_millis(500));
    c.borrow().services.call("start");
    m.assert_same();
    let after = m.number("resyncs");
    eprintln!("walks since something was missed: {before}, then {after}");
    m.stop().expect(0);
}

#[test]
fn a_second_agent_of_the_same_name_is_refused() {
    let c = cluster(&[("a0", &["--detect", "inotify"])]);
    let again = || {
        Run::of(
            c.borrow()
                .command(["agent", "--name", "a0", "--detect", "inotify"])
                .arg("--spool-dir")
                .arg("/tmp"),
        )
    };
    // of two that are started at once one is refused, whichever
    wait_until("it is there", PATIENCE, || c.borrow().reports().iter().any(|r| r["kind"] == "agent"));
    let r = again().expect(3);
    assert!(r.stderr.contains("runs already") && r.stderr.contains("--name"), "{r}");
    let nowhere =
        || Run::of(&mut c.borrow().command(["agent", "--name", "a1", "--spool-dir", "/nonexistent"]));
    assert!(nowhere().expect(3).stderr.contains("--spool-dir"));
    for words in ["shutdown a0", "pause --worker a0", "pool set 3 a0"] {
        let r = Run::of(&mut c.borrow().command(words.split(' '))).expect(1);
        assert!(r.stderr.contains("a0 is an agent"), "{r}");
    }
    // one that was killed does not keep its name
    c.borrow_mut().kill("a0");
    c.borrow_mut().start_again("a0");
    let s = Scratch::disk();
    s.src().file("f", "f");
    let m = Mirror::start(&s, &c, "");
    m.assert_same();
    m.stop().expect(0);
}

#[test]
fn who_asks_for_other_detectors_gets_them_from_agents_that_run() {
    let c = cluster(&[("a0", &["--poll-every", "200ms"])]);
    let s = Scratch::memory();
    s.src().file("f", "f");
    let m = Mirror::start(&s, &c, "--detect inotify");
    m.assert_same();
    let redis = |words: &[&str]| c.borrow().services.redis_cli(words.iter().copied());
    let key = format!("treeferry:{{{}}}:mirror", redis(&["smembers", "treeferry:mirrors"]));
    let wish = || redis(&["hget", &key, "created"]);
    let first = wish();
    m.stop().expect(0);
    m.keep();
    m.assert_same();
    assert_eq!(wish(), first, "it asks for the same");
    m.stop().expect(0);
    let m = Mirror::start(&s, &c, "--detect poll");
    s.src().file("g", "g");
    m.assert_same();
    assert_ne!(wish(), first);
}

#[test]
fn it_is_complete_only_as_far_as_every_agent_says_and_one_keeper_at_a_time_keeps_it() {
    let c = cluster(&[("a0", &["--detect", "inotify"])]);
    let s = Scratch::disk();
    s.src().file("f", "x");
    let m = Mirror::start(&s, &c, "--agents a0,a1");
    m.until("a keeper says how it stands", || m.status().is_some());
    thread::sleep(Duration::from_millis(1000));
    assert!(!s.dst().has("f"), "nothing is walked before everybody listens");
    c.borrow_mut().agent("a1", &["--detect", "inotify"]);
    m.assert_same();
    let second = Mirror::start(&s, &c, "--agents a0,a1");
    s.src().file("g", "x");
    m.assert_same();
    let kept_by = m.status().unwrap()["kept_by"].clone();
    m.kill_keeper();
    m.until("the other one keeps it", || {
        m.status().is_some_and(|m| m["kept_by"].is_string() && m["kept_by"] != kept_by)
    });
    s.src().file("h", "x");
    second.assert_same();
    assert_eq!(second.number("resyncs"), 0);
    // one that was frozen for so long that another has taken over ends when it wakes, and the other goes on
    let frozen = second.keeper.take().expect("it is kept");
    frozen.freeze();
    second.keep();
    let kept_by = second.status().unwrap()["kept_by"].clone();
    second.until("another one keeps it", || {
        second.status().is_some_and(|m| m["kept_by"].is_string() && m["kept_by"] != kept_by)
    });
    let kept_by = second.status().unwrap()["kept_by"].clone();
    s.src().file("i", "x");
    second.assert_same();
    frozen.signal(Signal::CONT);
    let r = frozen.finish().expect(3);
    assert!(r.stderr.contains("keeps this mirror now"), "{r}");
    assert_eq!(second.status().unwrap()["kept_by"], kept_by);
    s.src().file("j", "x");
    second.assert_same();
    assert_eq!(second.number("resyncs"), 0);
    second.stop().expect(0);
}

/// What a process has used of a core so far, in hundredths of a second.
fn used(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields = stat.rsplit_once(')').expect("a name").1.split_whitespace();
    fields.skip(11).take(2).map(|n| n.parse::<u64>().expect("a number")).sum()
}

#[test]
fn an_agent_waits_while_the_broker_takes_nothing() {
    let c = cluster(&[("a0", &["--detect", "inotify"])]);
    let s = Scratch::memory();
    s.src().file("f", "f");
    let m = Mirror::start(&s, &c, "");
    m.assert_same();
    let call = |level: &str| c.borrow().services.rabbitmqctl(&["set_vm_memory_high_watermark", level]);
    call("0.00001");
    // so much that it sends nothing any more that says only that nothing happens
    for i in 0..3000 {
        fs::write(s.at(&format!("src/file-with-a-long-name-{i:060}")), "x").unwrap();
    }
    thread::sleep(Duration::from_secs(1));
    let pid = c.borrow().pid("a0");
    let before = used(pid);
    thread::sleep(Duration::from_secs(3));
    let used = used(pid) - before;
    call("0.6");
    assert!(used < 40, "{used} hundredths of a second in three seconds in which nothing happens");
    m.assert_same();
    m.stop().expect(0);
}

#[test]
fn of_two_keepers_that_are_started_at_once_one_waits() {
    let c = cluster(&[("a0", &["--detect", "inotify"])]);
    let s = Scratch::memory();
    s.src().file("f", "f");
    let (first, second) = (Mirror::start(&s, &c, ""), Mirror::start(&s, &c, ""));
    first.assert_same();
    let all = c.borrow().services.redis_cli(["smembers", "treeferry:mirrors"]);
    assert_eq!(all.lines().count(), 1, "{all}");
    let r = Run::of(c.borrow().command(["watch", "--agents", ""]).args(s.words(""))).expect(1);
    assert!(r.stderr.contains("--agents") && r.stderr.contains("a name has"), "{r}");
    [&first, &second].iter().for_each(|m| m.kill_keeper());
}
