//! Mirrors of a cluster: agents, workers, whoever keeps the mirror, and the servers may die at any time; in the end DST is
//! the same, and what is said to be complete always is.
//!
//! A failing test names its seed; `TREEFERRY_SEED=N` uses that one, and `TREEFERRY_CHURN_S=N` changes SRC for so many
//! seconds.

mod agents;
#[path = "../checks/mod.rs"]
mod checks;
mod deaths;
mod workers;

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
use treeferry_tests::{Live, PATIENCE, Plant, Run, Scratch, library};

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
    assert_eq!(r.json["job"], c.borrow().services.redis_cli(["smembers", "treeferry:mirrors"]), "{r}");
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
fn two_mirrors_of_a_cluster_that_delete_do_not_share_a_target() {
    let c = cluster(&[("a0", &["--detect", "inotify"])]);
    let s = Scratch::disk();
    s.src().file("one", "1");
    Plant::new(s.at("src2")).file("two", "2");
    let second = |options: &str, dst: &str| {
        let mut command = c.borrow().command(["watch", "--json"]);
        command.args(options.split_whitespace()).args([s.at("src2"), s.at(dst)]);
        command
    };
    let m = Mirror::start(&s, &c, "");
    m.assert_same();
    std::os::unix::fs::symlink(s.at("dst"), s.at("other")).unwrap();
    for (options, dst) in [("", "dst"), ("--no-delete", "other")] {
        let r = Run::of(&mut second(options, dst)).expect(3);
        let src = s.at("src").display().to_string();
        assert!(r.stderr.contains("is kept there") && r.stderr.contains(&src), "{r}");
    }
    m.assert_same();
    m.stop().expect(0);
    let m = Mirror::start(&s, &c, "--no-delete");
    m.catch_up();
    let other = Live::of(&mut second("--no-delete", "dst"));
    m.until("both have brought theirs", || s.dst().has("one") && s.dst().has("two"));
    other.signal(Signal::TERM);
    other.finish();
    m.stop().expect(0);
}
