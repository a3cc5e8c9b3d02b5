//! Mirrors of a cluster: agents, workers, whoever keeps the mirror, and the servers may die at any time; in the end DST is
//! the same, and what is said to be complete always is.
//!
//! A failing test names its seed; `TREEFERRY_SEED=N` uses that one, and `TREEFERRY_CHURN_S=N` changes SRC for so many
//! seconds.

mod checks;

use checks::churn::{Churn, now_us, while_churning};
use checks::leftovers;
use rustix::process::Signal;
use serde_json::Value;
use std::cell::RefCell;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};
use treeferry_kit::rng::Rng;
use treeferry_kit::run::wait_until;
use treeferry_tests::cluster::Cluster;
use treeferry_tests::{Live, PATIENCE, Run, Scratch, library};

/// How often something is killed in a round.
const KILLS: usize = 8;

/// A mirror of a cluster, and who keeps it.
struct Mirror<'a> {
    s: &'a Scratch,
    c: &'a RefCell<Cluster>,
    options: String,
    keeper: RefCell<Option<Live>>,
}

impl<'a> Mirror<'a> {
    fn start(s: &'a Scratch, c: &'a RefCell<Cluster>, options: &str) -> Mirror<'a> {
        let m = Mirror { s, c, options: options.to_owned(), keeper: RefCell::default() };
        m.keep();
        m
    }

    /// Starts somebody who keeps it.
    fn keep(&self) {
        let mut command = self.c.borrow().command(["watch", "--json"]);
        *self.keeper.borrow_mut() = Some(Live::of(command.args(self.s.words(&self.options))));
    }

    fn kill_keeper(&self) {
        // killed when it is dropped
        drop(self.keeper.borrow_mut().take());
    }

    /// What `status` says of it; `None`: nothing yet.
    fn status(&self) -> Option<Value> {
        let r = Run::of(&mut self.c.borrow().command(["status", "--json"]));
        let jobs = r.json["jobs"].as_array()?.clone();
        let src = self.s.at("src").display().to_string();
        let mut mine = jobs.into_iter().filter(|j| j["src"] == src && j["mirror"].is_object());
        mine.next().map(|j| j["mirror"].clone())
    }

    fn number(&self, name: &str) -> u64 {
        self.status().and_then(|m| m[name].as_u64()).unwrap_or(0)
    }

    fn complete_up_to(&self) -> u64 {
        self.number("complete_up_to_us")
    }

    #[track_caller]
    fn until(&self, what: &str, is: impl Fn() -> bool) {
        let began = Instant::now();
        while !is() {
            assert!(began.elapsed() < PATIENCE, "waited in vain until {what}: {:#?}", self.status());
            thread::sleep(Duration::from_millis(50));
        }
    }

    #[track_caller]
    fn catch_up(&self) {
        let now = now_us();
        self.until("the mirror has caught up", || self.complete_up_to() > now);
    }

    #[track_caller]
    fn assert_same(&self) {
        self.catch_up();
        self.until("nothing fails any more", || self.status().is_some_and(|m| m["failing"] == 0));
        self.catch_up();
        self.s.assert_same();
    }

    #[track_caller]
    fn stop(&self) -> Run {
        let keeper = self.keeper.borrow_mut().take().expect("somebody keeps it");
        keeper.signal(Signal::TERM);
        keeper.finish()
    }
}

/// The broker comes back without anything that it had.
fn lose_queues(c: &RefCell<Cluster>) {
    let c = c.borrow();
    c.kill_server("rabbitmq");
    c.services.lose_queues();
    c.services.call("start");
}

fn cluster(agents: &[(&str, &[&str])]) -> RefCell<Cluster> {
    let mut c = Cluster::start(2, 1);
    agents.iter().for_each(|(name, words)| c.agent(name, words));
    RefCell::new(c)
}

#[test]
fn what_was_changed_behind_the_mirrors_back_is_found_and_repaired_by_workers() {
    let c = cluster(&[("a0", &["--detect", "inotify"])]);
    let s = Scratch::disk();
    s.src().file("d/f", "f").file("g", "g").mode("g", 0o640);
    let m = Mirror::start(&s, &c, "--audit 100/s --audit-settle 0");
    m.assert_same();
    let audit = |key: &str| m.status().and_then(|m| m["audit"][key].as_u64()).unwrap_or(0);
    m.until("entries are compared", || audit("compared") > 5);
    assert_eq!(audit("differing"), 0);
    s.dst().mode("g", 0o666);
    m.until("it is repaired", || audit("repaired") > 0);
    assert_eq!(m.status().unwrap()["audit"]["differing_paths"][0]["path"], "g");
    m.assert_same();
    m.stop().expect(0);
}

#[test]
fn what_changes_arrives_and_the_next_keeper_goes_on_where_the_last_one_ended() {
    let c = cluster(&[("a0", &["--detect", "inotify"])]);
    let s = Scratch::disk();
    s.src().file("d/e/f", "f").file("g", "g").link("g", "h");
    let m = Mirror::start(&s, &c, "");
    m.assert_same();
    let src = s.src();
    src.file("new", "new").file("d/e/f", "changed").link("g", "d/i").symlink("l", "g").mode("d", 0o711);
    fs::rename(s.at("src/d/e"), s.at("src/e")).unwrap();
    m.assert_same();
    fs::remove_dir_all(s.at("src/d")).unwrap();
    src.file("h", "through another name").xattr("e", "user.k", b"v");
    m.assert_same();
    // nobody keeps it, and it is known what changes
    m.kill_keeper();
    src.file("while/nobody/listens", "x").file("new", "newer");
    fs::remove_file(s.at("src/l")).unwrap();
    m.keep();
    m.assert_same();
    assert_eq!(m.number("resyncs"), 0, "nothing was walked");
    let r = m.stop().expect(0);
    assert_eq!(r.count("failures"), 0, "{r}");
    src.file("while/nobody/listens", "y");
    m.keep();
    m.assert_same();
    assert_eq!(m.number("resyncs"), 0, "nothing was walked");
    // DST is another: what is known of the one that was there is of no use
    m.stop().expect(0);
    fs::remove_dir_all(s.at("dst")).unwrap();
    m.keep();
    m.assert_same();
    // what somebody says who knows
    src.file("posted", "x");
    let post = |path: &str| Run::of(m.c.borrow().command(["post", "--wait"]).arg(s.at(path)));
    post("src/posted").expect(0);
    assert!(s.dst().has("posted"));
    post("elsewhere").expect(23);
    // another wish: all is looked at
    m.stop().expect(0);
    let m = Mirror::start(&s, &c, "--exclude /e");
    src.file("new", "newest").file("e/not", "x");
    m.catch_up();
    assert_eq!(s.dst().read("new"), "newest");
    assert!(!s.dst().has("e/not"));
    // that is the end of it
    let forget = || Run::of(m.c.borrow().command(["mirror", "forget"]).arg(s.at("src")).arg(s.at("dst")));
    let r = forget().expect(1);
    assert!(r.stderr.contains("stop it first"), "{r}");
    m.stop().expect(0);
    m.until("nobody keeps it", || m.status().is_some_and(|m| m["kept_by"].is_null()));
    forget().expect(0);
    assert!(m.status().is_none());
    let left = c.borrow().services.redis_cli(["--scan", "--pattern", "*mirror*"]);
    assert!(!left.contains(":mirror") && !left.contains("treeferry:mirrors"), "{left}");
    forget().expect(1);
}

/// As in `watch.rs`: the walk of a part is a job of the cluster here.
#[test]
fn a_name_in_a_directory_that_was_made_anew_is_linked_to_the_one_elsewhere() {
    let c = cluster(&[("a0", &["--detect", "inotify"])]);
    let s = Scratch::disk();
    s.src().file("a", "a").file("d/e/old", "old").file("c", "c");
    let m = Mirror::start(&s, &c, "--agents a0");
    m.assert_same();
    let agent = rustix::process::Pid::from_raw(c.borrow().pid("a0") as i32).unwrap();
    rustix::process::kill_process(agent, Signal::STOP).unwrap();
    fs::remove_dir_all(s.at("src/d")).unwrap();
    s.src().dir("d/e").link("a", "d/e/b").link("c", "d/c");
    fs::OpenOptions::new().append(true).open(s.at("src/d/c")).unwrap().write_all(b"more").unwrap();
    rustix::process::kill_process(agent, Signal::CONT).unwrap();
    m.assert_same();
    m.stop().expect(0);
}

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
fn a_source_that_is_walked_for_changes_is_complete_up_to_the_begin_of_a_walk() {
    let c = cluster(&[("a0", &["--detect", "poll", "--poll-every", "300ms"])]);
    let s = Scratch::memory();
    // so many that a walk takes longer than an agent waits for news
    s.src().file("d/e/f", "f").file("g", "g").link("g", "h");
    for dir in 0..20 {
        let d = s.at(&format!("src/many/{dir}"));
        fs::create_dir_all(&d).unwrap();
        (0..500).for_each(|n| fs::write(d.join(n.to_string()), "").unwrap());
    }
    let m = Mirror::start(&s, &c, "");
    m.assert_same();
    s.src().file("new", "new").file("d/e/f", "changed").link("g", "i").mode("d", 0o711);
    fs::rename(s.at("src/many/7"), s.at("src/seven")).unwrap();
    // what changed lately is looked at once more after the next walk, so it may be stopped in the midst of that
    m.assert_same();
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
fn a_mirror_that_no_worker_can_look_after_is_in_nobodys_way() {
    let c = cluster(&[("a0", &["--detect", "inotify"])]);
    let (good, bad) = (Scratch::memory(), Scratch::memory());
    good.src().file("f", "f");
    for n in 0..100 {
        bad.src().file(&format!("d{n}/f"), "f");
    }
    let first = Mirror::start(&good, &c, "");
    let second = Mirror::start(&bad, &c, "");
    first.assert_same();
    second.assert_same();
    let redis = |words: &[&str]| c.borrow().services.redis_cli(words.iter().copied());
    let src = bad.at("src").display().to_string();
    let all = redis(&["smembers", "treeferry:mirrors"]);
    let key = all.lines().map(|id| format!("treeferry:{{{id}}}:mirror"));
    let key = key.into_iter().find(|k| redis(&["hgetall", k]).contains(&src)).expect("it is in the ledger");
    let limits = redis(&["hget", &key, "limits"]);

    ["w0", "w1"].iter().for_each(|w| c.borrow_mut().kill(w));
    redis(&["hset", &key, "limits", "of another kind"]);
    for n in 0..100 {
        bad.src().file(&format!("d{n}/g"), "g");
    }
    second.until("it is heard", || second.number("waiting") + second.number("busy") >= 100);
    ["w0", "w1"].iter().for_each(|w| c.borrow_mut().start_again(w));
    for n in 0..3 {
        good.src().file("f", n.to_string());
        first.assert_same();
    }
    assert!(!bad.dst().has("d1/g"));
    redis(&["hset", &key, "limits", &limits]);
    second.assert_same();

    // what is left of one that is forgotten
    ["w0", "w1"].iter().for_each(|w| c.borrow_mut().kill(w));
    bad.src().file("d1/h", "h");
    second.until("it is heard", || second.number("waiting") + second.number("busy") > 0);
    second.stop().expect(20);
    redis(&["del", &key]);
    ["w0", "w1"].iter().for_each(|w| c.borrow_mut().start_again(w));
    let waiting = || c.borrow().services.rabbitmqctl(&["-q", "list_queues", "name", "messages"]);
    first.until("nobody has an errand", || {
        waiting().lines().any(|l| l.split_whitespace().eq(["treeferry.looks", "0"]))
    });
    first.stop().expect(0);
}

#[test]
fn a_worker_that_is_full_of_what_was_asked_for_before_turns_to_what_is_asked_for_now() {
    let mut c = Cluster::start(0, 1);
    // of one thread, which has four errands at a time
    c.worker("w0", 1);
    c.agent("a0", &["--detect", "inotify"]);
    let c = RefCell::new(c);
    let s = Scratch::disk();
    for n in 0..4 {
        s.src().file(&format!("d{n}/f"), "f");
    }
    let slow = Mirror::start(&s, &c, "--bwlimit 64K");
    slow.catch_up();
    for n in 0..4 {
        // it would take almost an hour
        s.src().file(&format!("d{n}/f"), vec![b'x'; 50 << 20]);
    }
    slow.until("it has begun", || slow.number("busy") >= 4);
    slow.until("others see that the worker is at it", || {
        let at =
            |r: &Value| r["busy"] == 1 && r["tasks"][0]["path"].as_str().is_some_and(|p| p.starts_with('d'));
        c.borrow().reports().iter().any(at)
    });
    slow.stop().expect(20);
    let fast = Mirror::start(&s, &c, "");
    // what was begun before was given up, and has left no mark, before anything was called complete
    fast.catch_up();
    assert_eq!(leftovers(&s.at("dst")), Vec::<PathBuf>::new());
    s.assert_same();
    // and has no fewer at a time than before
    for n in 0..8 {
        s.src().file(&format!("d{n}/g"), "g");
    }
    fast.assert_same();
    fast.stop().expect(0);
}

#[test]
fn workers_that_are_paused_look_at_nothing_until_they_are_resumed() {
    let c = cluster(&[("a0", &["--detect", "inotify"])]);
    let s = Scratch::disk();
    s.src().file("d/f", "f");
    let m = Mirror::start(&s, &c, "");
    m.catch_up();
    let c = c.borrow();
    c.call("pause --worker w0");
    let paused = || c.reports().iter().filter(|r| r["paused"] == true).count();
    m.until("one is paused", || paused() == 1);
    s.src().file("d/f", "by the other");
    m.assert_same();
    c.call("pause");
    m.until("all are paused", || paused() == 3);
    s.src().file("d/f", "by nobody");
    let waiting = || c.services.rabbitmqctl(&["-q", "list_queues", "name", "messages_ready"]);
    m.until("an errand waits for whoever comes", || {
        waiting().lines().any(|l| l.strip_prefix("treeferry.looks").is_some_and(|n| n.trim() != "0"))
    });
    assert_eq!(s.dst().read("d/f"), "by the other");
    c.call("resume");
    m.assert_same();
    // a pool has its size also for mirrors
    let named = |worker: &str, name: &str| {
        let threads = fs::read_dir(format!("/proc/{}/task", c.pid(worker))).unwrap().flatten();
        threads
            .filter(|t| fs::read(t.path().join("comm")).is_ok_and(|c| c.trim_ascii() == name.as_bytes()))
            .count()
    };
    assert_eq!(named("w0", "tf-worker-6"), 0);
    c.call("pool set 7");
    m.until("one that works for the mirror has grown", || {
        ["w0", "w1"].iter().any(|w| named(w, "tf-worker-6") == 2)
    });
    s.src().file("d/f", "by one of many");
    m.assert_same();
    m.stop().expect(0);
}

/// Each rename of a directory is followed by a walk of what is below: a job of the cluster, of which nothing is to be left.
#[test]
fn walks_of_parts_leave_nothing_open_and_nothing_in_the_ledger() {
    let c = cluster(&[("a0", &["--detect", "inotify"])]);
    let s = Scratch::disk();
    for n in 0..4 {
        s.src().file(&format!("d{n}.0/f"), "f").link(&format!("d{n}.0/f"), &format!("d{n}.0/g"));
    }
    let m = Mirror::start(&s, &c, "");
    m.assert_same();
    let jobs = || Run::of(&mut c.borrow().command(["jobs", "--json"])).json["jobs"].as_array().unwrap().len();
    let open = |name: &str| {
        let roots = [s.at("src"), s.at("dst")];
        let fds = fs::read_dir(format!("/proc/{}/fd", c.borrow().pid(name))).unwrap().flatten();
        fds.filter_map(|fd| fs::read_link(fd.path()).ok()).filter(|at| roots.contains(at)).count()
    };
    // at rest a process has what it needs for the mirror itself
    let few = |name: &str| open(name) <= 4;
    let before = jobs();
    for round in 0..10 {
        for n in 0..4 {
            let at = |round: usize| s.at(&format!("src/d{n}.{round}"));
            fs::rename(at(round), at(round + 1)).unwrap();
        }
        m.catch_up();
    }
    m.assert_same();
    m.until("walks that are over are no jobs any more", || jobs() == before);
    m.until("nothing of them is open", || ["w0", "w1", "h0"].iter().all(|name| few(name)));
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
fn a_ledger_that_has_lost_everything_is_told_of_the_mirror_again() {
    let c = cluster(&[("a0", &["--detect", "inotify"])]);
    let nothing = c.borrow().services.remember();
    let s = Scratch::disk();
    s.src().file("d/f", "f").link("d/f", "g").file("e/h", "h");
    let m = Mirror::start(&s, &c, "");
    m.assert_same();
    for round in 0..2 {
        if round == 1 {
            // while a walk is under way
            for n in 0..500 {
                s.src().file(&format!("many/{}/{n}", n % 10), "x");
            }
            c.borrow().call(&format!("post {}", s.at("src").display())).expect(0);
        }
        c.borrow().kill_server("redis");
        c.borrow().services.forget_since(&nothing);
        c.borrow().services.call("start");
        // under one of its names
        s.src().file("g", format!("through another name {round}")).file("e/new", round.to_string());
        m.until("it is known again", || m.status().is_some());
        m.assert_same();
        s.src().link("d/f", &format!("e/i{round}"));
        m.assert_same();
    }
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

#[test]
fn whatever_dies_while_files_change_the_mirror_is_the_same_in_the_end() {
    for (seed, how) in [(1u64, Churn::Plain), (2, Churn::Wild)] {
        let seed = std::env::var("TREEFERRY_SEED").map_or(seed, |s| s.parse().expect("a number"));
        eprintln!("to run this again: TREEFERRY_SEED={seed}");
        let detect: &[&str] = match checks::is_root() && seed.is_multiple_of(2) {
            true => &["--detect", "fanotify"],
            false => &["--detect", "inotify"],
        };
        let c = cluster(&[("a0", detect), ("a1", &["--detect", "inotify"])]);
        let s = Scratch::memory();
        let m = Mirror::start(&s, &c, "");
        m.catch_up();
        let (rng, killed) = (RefCell::new(Rng::new(seed)), RefCell::new(Vec::new()));
        let promises = while_churning(&s, how, seed, || {
            if killed.borrow().len() >= KILLS {
                return m.complete_up_to();
            }
            let all = ["w0", "w1", "h0", "a0", "keeper", "redis", "rabbitmq"];
            // a broker takes its time to come back
            let most = if killed.borrow().contains(&"rabbitmq") { 6 } else { 7 };
            let whom = all[rng.borrow_mut().below(most) as usize];
            killed.borrow_mut().push(whom);
            match whom {
                "keeper" => {
                    m.kill_keeper();
                    m.keep();
                }
                "redis" | "rabbitmq" => {
                    c.borrow().kill_server(whom);
                    c.borrow().services.call("start");
                }
                daemon => {
                    c.borrow_mut().kill(daemon);
                    c.borrow_mut().start_again(daemon);
                }
            }
            m.complete_up_to()
        });
        eprintln!("{how:?}: killed {:?}; {promises} promises kept meanwhile", killed.borrow());
        m.assert_same();
        m.stop().expect(0);
        assert_eq!(leftovers(&s.at("dst")), [""; 0].map(PathBuf::from));
    }
}
