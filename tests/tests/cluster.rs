//! Jobs on a cluster: the real servers, workers and hardlinkers that are processes of their own, and everything that
//! can die. What the job leaves must be the same as with the embedded engine, and its counters too.
//!
//! A failing test names its seed; `TREEFERRY_SEED=N` uses that one.

mod checks;

use checks::{assert_idle, is_root, leftovers};
use rustix::process::Signal;
use serde_json::Value;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use treeferry_kit::caps::Caps;
use treeferry_kit::random::random_tree;
use treeferry_kit::rng::Rng;
use treeferry_kit::run::wait_until;
use treeferry_kit::tree::{Kind, Spec};
use treeferry_tests::cluster::Cluster;
use treeferry_tests::{Live, PATIENCE, Run, Scratch};

/// Rounds in which something is killed.
const ROUNDS: usize = 52;
/// Rounds in which Redis forgets.
const FORGETFUL_ROUNDS: usize = 8;
/// Rounds in which RabbitMQ is, which takes its time to come back.
const BROKER_ROUNDS: usize = 3;

fn seed(own: u64) -> u64 {
    let seed = std::env::var("TREEFERRY_SEED").map_or(own, |s| s.parse().expect("a number"));
    eprintln!("to run this again: TREEFERRY_SEED={seed}");
    seed
}

/// A tree with everything: random entries, many small files, hard links across directories, and a file of chunks.
fn plant(s: &Scratch, seed: u64, size: usize) {
    let caps = Caps::probe(&s.at("src")).unwrap();
    random_tree(&s.at("src"), seed, size, &caps).unwrap();
    Spec::new(Kind::Small).count(size as u64).seed(seed).make(&s.at("src/small")).unwrap();
    for i in 0..size / 8 {
        s.src().file(&format!("links/{}/first{i}", i % 7), format!("content {i}"));
        for j in 0..2 {
            s.src().dir(&format!("more/{}", (i + j) % 5));
            s.src().link(&format!("links/{}/first{i}", i % 7), &format!("more/{}/name{i}-{j}", (i + j) % 5));
        }
    }
    let mut content = vec![0; 3 << 20];
    Rng::new(seed).fill(&mut content);
    s.src().file("big", content);
}

/// What tells of each entry once, whether it was made in this run or found right.
fn looked_at(r: &Value) -> [u64; 4] {
    let n = |name: &str| r["counters"][name].as_u64().unwrap_or_else(|| panic!("no counter {name} in {r}"));
    let settled = ["copied_files", "unchanged_files", "linked"].into_iter().map(n).sum::<u64>();
    [n("dirs"), n("files"), n("bytes"), settled]
}

/// What was looked at is what it is in a run in which nobody dies or sleeps. Of symlinks and special files only those that
/// were linked are counted as settled, not those that were found right: who had made them died, or slept, before it said so.
#[track_caller]
fn assert_looked_at(r: &Value, expected: [u64; 4]) {
    let [dirs, files, bytes, settled] = looked_at(r);
    assert_eq!([dirs, files, bytes], expected[..3], "{r}");
    assert!((files..=expected[3]).contains(&settled), "{settled} of {files} to {}: {r}", expected[3]);
}

fn now_ms() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64
}

#[track_caller]
fn assert_clean(s: &Scratch) {
    s.assert_same();
    assert_eq!(leftovers(&s.at("dst")), [""; 0].map(PathBuf::from));
}

#[test]
fn a_job_of_the_cluster_does_what_one_of_the_embedded_engine_does() {
    let c = Cluster::start(2, 1);
    for (s, seed) in [(Scratch::disk(), 1), (Scratch::memory(), 2)] {
        plant(&s, seed, 400);
        let options = "--delete --chunk-size 64K";
        let embedded = s.sync(options).expect(0);
        s.dst().remove("");
        let clustered = c.sync(&s, options).expect(0);
        assert_clean(&s);
        for name in [
            "dirs",
            "files",
            "bytes",
            "copied_files",
            "copied_bytes",
            "linked",
            "symlinks",
            "specials",
            "made_dirs",
        ] {
            assert_eq!(clustered.count(name), embedded.count(name), "{name}: {clustered}");
        }
        let before = s.snapshot();
        assert_idle(&c.sync(&s, options).expect(0));
        s.assert_untouched(&before);
    }
}

#[test]
fn options_mean_the_same_with_the_cluster() {
    let c = Cluster::start(2, 1);
    let s = Scratch::disk();
    plant(&s, 3, 100);
    for i in 0..30 {
        s.dst().file(&format!("extra/{}/x{i}", i % 3), "x");
    }
    let before = s.snapshot();
    let planned = c.sync(&s, "--delete -n -i").expect(0);
    s.assert_untouched(&before);
    let few = c.sync(&s, "--delete --max-delete 7 -i").expect(25);
    assert_eq!(few.count("deleted"), 7, "{few}");
    assert_eq!(few.items().iter().filter(|l| l.starts_with("*deleting")).count(), 7, "{few}");
    let all = c.sync(&s, "--delete -i").expect(0);
    assert_eq!(few.count("deleted") + all.count("deleted"), planned.count("deleted"), "{all}");
    assert_clean(&s);
    s.dst().file("extra/new", "x").file("big", "other");
    let r = c.sync(&s, "--delete --checksum --verify --chunk-size 64K --exclude /extra").expect(0);
    assert!(s.dst().has("extra/new"), "{r}");
    assert!(r.count("verified_files") > 0, "{r}");
}

#[test]
fn every_kind_of_control_works_and_is_persistent() {
    let mut c = Cluster::start(2, 1);
    let s = Scratch::disk();
    Spec::new(Kind::Small).count(20_000).make(&s.at("src/small")).unwrap();
    let entries = |c: &Cluster, id: &str| c.job(id)["counters"]["files"].as_u64().unwrap();

    // so slow that it has not ended by the time that it is cancelled, on however busy a machine
    let id = c.detach(&s, "--iops 50");
    wait_until("it has begun", PATIENCE, || entries(&c, &id) > 0);
    let jobs = c.call("jobs --json").json;
    assert_eq!(
        (&jobs["jobs"][0]["job"], &jobs["jobs"][0]["state"]),
        (&Value::from(id.clone()), &"running".into())
    );
    assert!(c.call("jobs").stdout.contains(&id));
    let text = c.call(&format!("status {id}")).stdout;
    assert!(text.contains("treeferry.walk") && text.contains("w0-"), "{text}");

    // one job: nothing more is counted once nobody works for it
    c.call(&format!("pause {id}"));
    let idle = |c: &Cluster| c.reports().iter().all(|w| w["busy"] == 0);
    // reports come once a second: those that were written well after the pause
    let settled = |c: &Cluster, since: u64| {
        let quiet = |w: &Value| w["busy"] == 0 && w["seen_ms"].as_u64() > Some(since + 1500);
        c.reports().iter().all(quiet)
    };
    let since = now_ms();
    wait_until("nobody works", PATIENCE, || settled(&c, since));
    let then = entries(&c, &id);
    assert_eq!(c.job(&id)["paused"], true);
    c.worker("w2", 2);
    wait_until("a third worker is there", PATIENCE, || c.reports().len() == 4);
    let since = now_ms();
    wait_until("nobody works", PATIENCE, || settled(&c, since));
    assert_eq!(entries(&c, &id), then, "paused for those too that come later");
    c.call(&format!("resume {id}"));
    wait_until("it goes on", PATIENCE, || entries(&c, &id) > then);

    // workers, by name, and all
    let report =
        |c: &Cluster, node: &str| c.reports().into_iter().find(|w| w["node"] == node).unwrap_or(Value::Null);
    c.call("pause --worker w1");
    wait_until("w1 is paused", PATIENCE, || {
        report(&c, "w1")["paused"] == true && report(&c, "w1")["busy"] == 0
    });
    assert_eq!(report(&c, "w0")["paused"], false);
    c.kill("w1");
    c.start_again("w1");
    wait_until("the next w1 is paused too", PATIENCE, || {
        c.reports().iter().any(|w| w["worker"] == format!("w1-{}", c.pid("w1")) && w["paused"] == true)
    });
    c.call("pause");
    wait_until("all are", PATIENCE, || c.reports().iter().all(|w| w["paused"] == true) && idle(&c));
    c.call("resume");
    wait_until("none is", PATIENCE, || c.reports().iter().all(|w| w["paused"] == false));

    // pools
    c.call("pool set 3");
    let pools =
        |c: &Cluster, n: u64| c.reports().iter().filter(|w| w["kind"] == "worker").all(|w| w["pool"] == n);
    wait_until("each has three threads", PATIENCE, || pools(&c, 3));
    c.call("pool grow 2 w0");
    wait_until("one has five", PATIENCE, || report(&c, "w0")["pool"] == 5);
    c.call("pool shrink 4");
    wait_until("one has one", PATIENCE, || report(&c, "w0")["pool"] == 1 && report(&c, "w2")["pool"] == 1);
    c.call("pool set 2");
    wait_until("each has two again", PATIENCE, || pools(&c, 2));

    // the end of a job, and of workers
    c.call(&format!("cancel {id}"));
    assert_eq!(c.await_end(&id)["state"], "interrupted");
    let again = Run::of(&mut c.command(["cancel", &id])).expect(1);
    assert!(again.stderr.contains("has ended"), "{again}");
    c.call("shutdown w2");
    wait_until("it has left", PATIENCE, || c.exit_code("w2").is_some());
    assert_eq!(c.exit_code("w2"), Some(0));
    c.call("shutdown --now w1");
    wait_until("it has left", PATIENCE, || c.exit_code("w1").is_some());
    let unknown = Run::of(&mut c.command(["shutdown", "nobody"])).expect(1);
    assert!(unknown.stderr.contains("no worker goes by nobody"), "{unknown}");

    // the next command finishes it
    c.call("shutdown w0");
    wait_until("it has left", PATIENCE, || c.exit_code("w0").is_some());
    c.start_again("w0");
    c.sync(&s, "").expect(0);
    assert_clean(&s);
}

#[test]
fn named_failures_are_tried_again_by_retry() {
    let c = Cluster::start(1, 1);
    let s = Scratch::disk();
    s.src().file("a/b", "new").file("c/d", "new").file("e", "e");
    s.dst().file("a/b/in the way", "old").file("c/d/in the way", "old");
    let first = c.sync(&s, "").expect(23);
    assert_eq!(first.failed(), ["a/b", "c/d"], "{first}");
    let id = first.json["job"].as_str().unwrap();
    s.dst().remove("a/b");
    let second = Run::of(&mut c.command(["retry", "--json", id])).expect(23);
    assert_eq!(second.failed(), ["c/d"], "{second}");
    assert_eq!((second.count("copied_files"), second.count("files")), (1, 2), "only these: {second}");
    s.dst().remove("c/d");
    let id = second.json["job"].as_str().unwrap();
    let detached = c.call(&format!("retry --detach --json {id}"));
    let third = c.await_end(detached.json["job"].as_str().unwrap());
    assert_eq!(third["state"], "done", "{third}");
    assert_clean(&s);
    let none = Run::of(&mut c.command(["retry", detached.json["job"].as_str().unwrap()])).expect(1);
    assert!(none.stderr.contains("no failures"), "{none}");
}

/// Kills and starts again what a number names. The controller is the run itself.
fn strike(c: &mut Cluster, rng: &mut Rng, run: &Live) -> &'static str {
    match rng.below(10) {
        0..5 => {
            let workers = c.names("worker");
            let name = rng.pick(&workers.iter().map(String::as_str).collect::<Vec<_>>()).to_owned();
            c.kill(&name);
            c.start_again(&name);
            "worker"
        }
        5..7 => {
            let linkers = c.names("hardlinker");
            let name = rng.pick(&linkers.iter().map(String::as_str).collect::<Vec<_>>()).to_owned();
            c.kill(&name);
            c.start_again(&name);
            "hardlinker"
        }
        7..9 => {
            c.kill_server("redis");
            c.services.call("start");
            "redis"
        }
        _ => {
            run.signal(Signal::KILL);
            "controller"
        }
    }
}

/// Waits until a job that nobody waits for has ended, and returns what is known of it.
fn await_only_job(c: &Cluster, s: &Scratch) -> Value {
    let dst = s.at("dst");
    let mine = |c: &Cluster| {
        let all = c.call("jobs --json").json["jobs"].as_array().cloned().unwrap_or_default();
        all.into_iter().find(|j| j["dst"] == dst.to_str().unwrap())
    };
    wait_until("the job has ended", PATIENCE, || mine(c).is_some_and(|j| j["state"] != "running"));
    mine(c).expect("it is remembered")
}

#[test]
fn whatever_is_killed_the_job_ends_by_itself_and_right() {
    let mut rng = Rng::new(seed(5));
    let mut c = Cluster::start(3, 2);
    let (mut killed, mut broker_rounds) = (0, 0);
    let mut tally = std::collections::BTreeMap::<&str, usize>::new();
    while killed < ROUNDS || broker_rounds < BROKER_ROUNDS {
        let s = Scratch::memory();
        let tree = rng.draw();
        plant(&s, tree, 250);
        let expected = looked_at(&s.sync("--chunk-size 64K").expect(0).json);
        s.dst().remove("");
        let mut run = Live::of(&mut c.sync_command(&s, "--delete --chunk-size 64K --iops 700"));
        let wanted = rng.below(200) as usize;
        run.until("it has come so far", || count(&s.at("dst")) >= wanted);
        let strikes = 1 + rng.below(3);
        let mut what = Vec::new();
        if broker_rounds < BROKER_ROUNDS && rng.chance(0.2) {
            c.kill_server("rabbitmq");
            c.services.call("start");
            broker_rounds += 1;
            what.push("rabbitmq");
        }
        for _ in 0..strikes {
            let w = strike(&mut c, &mut rng, &run);
            what.push(w);
            if w == "controller" {
                break;
            }
        }
        let end = if what.contains(&"controller") {
            let _ = run.finish();
            await_only_job(&c, &s)
        } else {
            run.finish().expect(0).json
        };
        assert_eq!(end["state"], "done", "tree {tree} {what:?}: {end}");
        assert_clean(&s);
        eprintln!("tree {tree}: {what:?}");
        assert_looked_at(&end, expected);
        killed += what.len();
        what.into_iter().for_each(|w| *tally.entry(w).or_default() += 1);
    }
    eprintln!("killed: {tally:?}");
}

/// Redis answers before its disk has what it was told, and a machine may lose power: what it has said, and then knows
/// nothing of, must be found out and done again, whoever goes on believing it.
#[test]
fn what_redis_has_forgotten_is_done_again() {
    let mut rng = Rng::new(seed(8));
    let c = Cluster::start(2, 1);
    let mut forgotten = 0;
    while forgotten < FORGETFUL_ROUNDS {
        let s = Scratch::memory();
        let dirs = rng.pick(&[2, 5, 40]).to_owned();
        for i in 0..300 {
            let name = |j: usize| format!("d{}/{i}-{j}", (i * 7 + j * 5) % dirs);
            s.src().file(&name(0), format!("content {i}"));
            for j in 1..1 + i % 4 {
                s.src().dir(&format!("d{}", (i * 7 + j * 5) % dirs)).link(&name(0), &name(j));
            }
        }
        let all = count(&s.at("src"));
        // some of it is there already, split as a run leaves it that knows no hard links
        let old = rng.chance(0.3);
        if old {
            s.sync("--no-hardlinks").expect(0);
        }
        let mut run = Live::of(&mut c.sync_command(&s, "--delete --iops 700"));
        let linked =
            |root: &Path| checks::entries(root).values().filter(|m| m.is_file() && m.nlink() > 1).count();
        let done = || if old { linked(&s.at("dst")) } else { count(&s.at("dst")) };
        let wanted = rng.below(all as u64 / 2) as usize;
        run.until("it has come so far", || done() >= wanted);
        let (then, at) = (c.services.remember(), done());
        let more = 1 + rng.below(250) as usize;
        let ended = || {
            c.call("jobs --json").json["jobs"]
                .as_array()
                .is_none_or(|all| all.iter().all(|j| j["state"] != "running"))
        };
        run.until("it has come farther", || done() >= at + more || ended());
        c.kill_server("redis");
        c.services.forget_since(&then);
        c.services.call("start");
        let end = run.finish().expect(0).json;
        assert_eq!(end["state"], "done", "{end}");
        // it may have been told that all is done before that was forgotten
        wait_until("it is done", PATIENCE, ended);
        eprintln!(
            "of {all} entries in {dirs} (old: {old}) what was done after {at}, {more} or more, was forgotten"
        );
        assert_clean(&s);
        forgotten += 1;
    }
}

/// How many entries there are, unfinished copies among them.
fn count(root: &Path) -> usize {
    checks::entries(root).len()
}

#[test]
fn a_second_hardlinker_takes_over() {
    let mut c = Cluster::start(1, 0);
    for n in 0..3 {
        c.hardlinker(&format!("h{n}"));
        wait_until("it listens", PATIENCE, || {
            let queues = c.status()["queues"].clone();
            let links = queues.as_array().and_then(|all| all.iter().find(|q| q["name"] == "treeferry.links"));
            links.is_some_and(|q| q["consumers"] == n + 1)
        });
    }
    let s = Scratch::memory();
    for i in 0..3000 {
        s.src().file(&format!("a/{}/f{i}", i % 20), "x");
        s.src()
            .dir(&format!("b/{}", i % 30))
            .link(&format!("a/{}/f{i}", i % 20), &format!("b/{}/l{i}", i % 30));
    }
    let mut run = Live::of(&mut c.sync_command(&s, "--iops 3000"));
    // the broker has chosen the first who came
    let made = |s: &Scratch| {
        checks::entries(&s.at("dst")).values().filter(|m| m.is_file() && m.nlink() == 2).count() / 2
    };
    run.until("links are made", || made(&s) > 100);
    c.kill("h0");
    let (at, before) = (Instant::now(), made(&s));
    assert!(before < 2000, "too late to prove anything: {before} links");
    run.until("another has taken over", || made(&s) > before);
    eprintln!("taken over after {:?}", at.elapsed());
    let r = run.finish().expect(0);
    assert_clean(&s);
    // what the first had made and not told is found right by the second
    assert_eq!(looked_at(&r.json), [53, 6000, 6000, 6000], "{r}");
}

#[test]
fn a_worker_that_sleeps_through_its_task_does_no_harm() {
    let mut c = Cluster::start(1, 1);
    let s = Scratch::memory();
    plant(&s, 9, 300);
    let expected = looked_at(&s.sync("").expect(0).json);
    s.dst().remove("");
    let mut run = Live::of(&mut c.sync_command(&s, "--iops 300"));
    run.until("it has come so far", || count(&s.at("dst")) > 50);
    let frozen = rustix::process::Pid::from_raw(c.pid("w0") as i32).unwrap();
    rustix::process::kill_process(frozen, Signal::STOP).unwrap();
    c.worker("w1", 2);
    // the broker takes the sleeper for dead when its connection is closed: here by force, else after two minutes
    c.services.close_connections_of(c.pid("w0"));
    let end = run.finish().expect(0);
    assert_clean(&s);
    let before = s.snapshot();
    rustix::process::kill_process(frozen, Signal::CONT).unwrap();
    c.await_awake("w0", &end);
    s.assert_untouched(&before);
    assert_looked_at(&end.json, expected);
}

#[test]
fn a_worker_that_sleeps_while_it_deletes_removes_nothing_that_came_after_its_task() {
    let mut c = Cluster::start(1, 1);
    let s = Scratch::memory();
    for i in 0..200 {
        s.dst().file(&format!("d/{i}"), "extra");
        s.dst().file(&format!("e/{}/{i}", i % 10), "extra");
    }
    s.src().file("kept", "x");
    s.src().dir("d");
    let left = || count(&s.at("dst"));
    let all = left();
    let mut run = Live::of(&mut c.sync_command(&s, "--delete --iops 100"));
    run.until("it has come so far", || left() < all - 50);
    let sleeper = rustix::process::Pid::from_raw(c.pid("w0") as i32).unwrap();
    rustix::process::kill_process(sleeper, Signal::STOP).unwrap();
    let spared = checks::entries(&s.at("dst"));
    assert!(spared.len() > 100, "too fast for this test");
    c.worker("w1", 2);
    c.services.close_connections_of(c.pid("w0"));
    let end = run.finish().expect(0);
    assert_clean(&s);
    // they are there again, on both sides
    for i in 0..200 {
        for tree in [s.src(), s.dst()] {
            tree.file(&format!("d/{i}"), "new");
            tree.file(&format!("e/{}/{i}", i % 10), "new");
        }
    }
    let before = s.snapshot();
    rustix::process::kill_process(sleeper, Signal::CONT).unwrap();
    c.await_awake("w0", &end);
    s.assert_untouched(&before);
}

#[test]
fn a_worker_without_the_file_systems_refuses_the_job_and_says_so() {
    if !is_root() {
        return;
    }
    let c = Cluster::start(0, 1);
    let s = Scratch::disk();
    plant(&s, 11, 60);
    // in a mount name space of its own it sees another file system where SRC is
    let script = format!(
        "mount -t tmpfs none '{}' && exec \"$0\" worker --name blind --pool 1",
        s.at("src").display()
    );
    let mut blind = std::process::Command::new("unshare");
    blind.args(["--mount", "sh", "-c", &script]).arg(treeferry_tests::bin());
    blind.env("TREEFERRY_CONFIG", c.services.config());
    let blind = Live::of(&mut blind);
    wait_until("it is there", PATIENCE, || c.reports().len() == 2);
    let id = c.detach(&s, "");
    let refusal = || {
        let all = c.reports();
        let blind = all.iter().find(|w| w["node"] == "blind")?.clone();
        blind["refused"][0]["why"].as_str().map(str::to_owned)
    };
    wait_until("it has refused the job", PATIENCE, || refusal().is_some());
    let why = refusal().unwrap_or_default();
    assert!(why.contains("is it mounted?"), "{why}");
    assert!(c.call("status").stdout.contains("refuses job"));
    assert_eq!(checks::entries(&s.at("dst")).len(), 0, "nothing was done");
    let mut c = c;
    c.worker("w0", 2);
    assert_eq!(c.await_end(&id)["state"], "done");
    assert_clean(&s);
    drop(blind);
}

#[test]
fn lost_queues_are_filled_again_from_the_ledger() {
    let c = Cluster::start(2, 1);
    let s = Scratch::memory();
    plant(&s, 12, 300);
    let expected = looked_at(&s.sync("").expect(0).json);
    s.dst().remove("");
    let mut run = Live::of(&mut c.sync_command(&s, "--iops 300"));
    run.until("it has come so far", || count(&s.at("dst")) > 50);
    c.kill_server("rabbitmq");
    c.services.lose_queues();
    c.services.call("start");
    let end = run.finish().expect(0);
    assert_clean(&s);
    assert_eq!(looked_at(&end.json), expected, "{end}");
}

#[test]
fn a_broker_without_memory_blocks_publishing_and_not_the_work() {
    let c = Cluster::start(2, 1);
    let s = Scratch::memory();
    plant(&s, 13, 600);
    // nobody works until the broker has its alarm, so that only the root's message is out by then
    c.call("pause");
    let id = c.detach(&s, "");
    wait_until("the root waits in the queue", PATIENCE, || {
        c.status()["queues"].as_array().unwrap().iter().any(|q| q["ready"] == 1)
    });
    c.services.rabbitmqctl(&["set_vm_memory_high_watermark", "0.00001"]);
    c.call("resume");
    let files = |side| {
        let names = checks::entries(&s.at(side)).into_keys();
        names.filter(|p| p.starts_with("small")).collect::<Vec<_>>()
    };
    let all = files("src");
    wait_until("all is copied that is to be copied", PATIENCE, || files("dst") == all);
    // links are the hardlinker's, who cannot be told
    assert_eq!(c.job(&id)["state"], "running");
    c.services.rabbitmqctl(&["set_vm_memory_high_watermark", "0.6"]);
    assert_eq!(c.await_end(&id)["state"], "done");
    assert_clean(&s);
}

#[test]
fn a_message_that_is_worked_on_for_long_does_not_run_into_the_brokers_timeout() {
    let mut c = Cluster::start(0, 0);
    // the broker closes the channel of whoever has not acknowledged a message for three seconds, and looks each second
    for setting in ["consumer_timeout, 3000", "channel_tick_interval, 1000"] {
        c.services.rabbitmqctl(&["eval", &format!("application:set_env(rabbit, {setting}).")]);
    }
    let mut config = std::fs::read_to_string(c.services.config()).unwrap();
    config.push_str("\nacknowledge-after = 1\n");
    std::fs::write(c.services.config(), config).unwrap();
    c.worker("w0", 1);
    c.hardlinker("h0");
    let s = Scratch::disk();
    for i in 0..100 {
        s.src().file(&format!("f{i}"), "x");
    }
    // more than twice the broker's patience
    let began = Instant::now();
    let id = c.detach(&s, "--iops 10");
    wait_until("the broker has no unacknowledged message while the job goes on", PATIENCE, || {
        let queues = c.services.rabbitmqctl(&["-q", "list_queues", "--no-table-headers", "messages"]);
        queues.lines().all(|l| l.trim() == "0") && c.reports().iter().any(|r| r["busy"] == 1)
    });
    // whoever has it may die, and the ledger remembers
    c.kill("w0");
    c.start_again("w0");
    let r = c.await_end(&id);
    assert!(began.elapsed().as_secs() > 6, "the test has proven nothing: {r}");
    assert_eq!((r["state"].as_str(), looked_at(&r)), (Some("done"), [1, 100, 100, 100]), "{r}");
    assert_clean(&s);
    let said =
        std::fs::read_to_string(c.services.home().join("rabbitmq/log/rabbitmq.log")).unwrap_or_default();
    assert!(!said.contains("timeout"), "{said}");
}

#[test]
fn servers_that_cannot_be_reached_are_named_and_the_code_is_69() {
    let s = Scratch::disk();
    s.src().file("a", "a");
    let words = ["--broker", "amqp://127.0.0.1:1/%2f", "--ledger", "redis://127.0.0.1:1/0"];
    for command in
        [vec!["worker"], vec!["hardlinker"], vec!["status"], vec!["jobs"], vec!["pause"], vec!["shutdown"]]
    {
        let mut call = treeferry_tests::command(command.iter().chain(&words));
        let r = Run::of(&mut call).expect(69);
        assert!(r.stderr.contains("refused"), "{r}");
    }
    let mut call = treeferry_tests::command(["sync", "--json"].iter().chain(&words));
    let r = Run::of(call.args(s.words(""))).expect(69);
    assert!(!s.dst().has("a"), "{r}");
    let none = Run::of(&mut treeferry_tests::command(["status"])).expect(1);
    assert!(none.stderr.contains("no cluster"), "{none}");
    let half =
        Run::of(&mut treeferry_tests::command(["worker", "--broker", "amqp://127.0.0.1:1/%2f"])).expect(1);
    assert!(half.stderr.contains("--ledger"), "{half}");
    let wrong =
        Run::of(&mut treeferry_tests::command(["worker", "--broker", "http://x", "--ledger", "redis://x"]))
            .expect(1);
    assert!(wrong.stderr.contains("amqp://"), "{wrong}");
}

/// The port of a URL, and the URL with TLS at another.
fn with_tls(url: &str, port: &str) -> String {
    let (head, rest) = url.rsplit_once(':').expect("a port");
    let path = rest.split_once('/').expect("a path").1;
    let (scheme, rest) = head.split_once("://").expect("a scheme");
    let user = rest.rsplit_once('@').expect("a password").0;
    format!("{scheme}s://{user}@localhost:{port}/{path}")
}

fn port_of(url: &str) -> &str {
    url.rsplit_once(':').and_then(|(_, rest)| rest.split('/').next()).expect("a port")
}

#[test]
fn both_servers_can_be_reached_by_tls_and_a_certificate_that_nobody_vouches_for_is_refused() {
    use std::io::BufRead;
    let c = Cluster::start(1, 1);
    let s = Scratch::disk();
    s.src().file("a", "a");
    let dir = s.at("tls");
    std::fs::create_dir(&dir).unwrap();
    let made = std::process::Command::new("sh")
        .current_dir(&dir)
        .args(["-ec", "openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca
            openssl req -newkey rsa:2048 -nodes -keyout key.pem -out leaf.csr -subj /CN=localhost
            printf 'subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n' > ext
            openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 -extfile ext"])
        .output()
        .expect("sh");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/tls-proxy");
    let mut proxy = std::process::Command::new(script)
        .args([dir.join("cert.pem"), dir.join("key.pem")])
        .args([port_of(&c.services.broker), port_of(&c.services.ledger)])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("python3");
    let mut lines = std::io::BufReader::new(proxy.stdout.take().unwrap()).lines();
    let mut url = |plain: &str| with_tls(plain, lines.next().unwrap().unwrap().trim());
    let (broker, ledger) = (url(&c.services.broker), url(&c.services.ledger));
    let call = || {
        let mut call = treeferry_tests::command(["sync", "--json"]);
        call.args(s.words("")).env("TREEFERRY_BROKER", &broker).env("TREEFERRY_LEDGER", &ledger);
        call
    };
    let refused = Run::of(&mut call()).expect(69);
    assert!(refused.stderr.contains("certificate"), "{refused}");
    let password = ledger.split('@').next().and_then(|u| u.rsplit(':').next()).unwrap();
    assert!(!refused.stderr.contains(password), "a password in a message");
    let done = Run::of(call().env("SSL_CERT_FILE", dir.join("ca.pem")));
    let _ = proxy.kill();
    let _ = proxy.wait();
    done.expect(0);
    s.assert_same();
}

#[test]
fn status_watches_a_job_to_its_end() {
    let c = Cluster::start(1, 1);
    let s = Scratch::memory();
    Spec::new(Kind::Small).count(400).make(&s.at("src/small")).unwrap();
    let id = c.detach(&s, "--iops 200");
    let text = c.call(&format!("status --watch {id}")).stdout;
    assert!(text.matches("Workers").count() > 1, "several views: {text}");
    let last = text.rsplit("Jobs").next().unwrap();
    assert!(last.contains("done") && last.contains(" 0 outstanding"), "{last}");
    // an earlier job with the same roots tells how much there is
    s.dst().remove("");
    let id = c.detach(&s, "--iops 100");
    wait_until("it says how long it will take", PATIENCE, || c.job(&id)["eta_s"].is_u64());
    assert_eq!(c.await_end(&id)["state"], "done");
}

#[test]
fn a_second_job_gets_its_share_while_the_first_goes_on() {
    let c = Cluster::start(2, 1);
    let (large, small) = (Scratch::memory(), Scratch::memory());
    Spec::new(Kind::Small).count(20_000).make(&large.at("src/small")).unwrap();
    Spec::new(Kind::Small).count(400).make(&small.at("src/small")).unwrap();
    let first = c.detach(&large, "--iops 100");
    let files = |id: &str| c.job(id)["counters"]["files"].as_u64().unwrap();
    wait_until("the first has all threads", PATIENCE, || {
        files(&first) > 0 && c.reports().iter().filter(|w| w["kind"] == "worker").all(|w| w["busy"] == 2)
    });
    let second = c.detach(&small, "--iops 300");
    assert_eq!(c.await_end(&second)["state"], "done");
    small.assert_same();
    assert_eq!(c.job(&first)["state"], "running", "it was not finished first");
    let then = files(&first);
    wait_until("the first goes on", PATIENCE, || files(&first) > then);
    c.call(&format!("cancel {first}"));
}
