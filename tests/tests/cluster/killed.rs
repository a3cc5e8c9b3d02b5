//! Daemons that are killed or frozen, and servers that forget: the job ends by itself, and right.

use super::*;

/// Rounds in which something is killed.
const ROUNDS: usize = 52;
/// Rounds in which Redis forgets.
const FORGETFUL_ROUNDS: usize = 8;
/// Rounds in which RabbitMQ is, which takes its time to come back.
const BROKER_ROUNDS: usize = 3;

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
fn a_worker_that_sleeps_in_a_chunk_does_not_write_into_the_file_that_is_whole_by_then() {
    let c = Cluster::start(2, 1);
    let s = Scratch::memory();
    let mut content = vec![0; 24 << 20];
    Rng::new(15).fill(&mut content);
    s.src().file("big", content);
    let mut run = Live::of(&mut c.sync_command(&s, "--chunk-size 6M --bwlimit 2M"));
    run.until("both work at it", || {
        let busy =
            c.reports().iter().filter(|w| w["kind"] == "worker" && w["busy"].as_u64() > Some(0)).count();
        busy == 2 && count(&s.at("dst")) > 0
    });
    let sleeper = rustix::process::Pid::from_raw(c.pid("w0") as i32).unwrap();
    rustix::process::kill_process(sleeper, Signal::STOP).unwrap();
    c.services.close_connections_of(c.pid("w0"));
    let end = run.finish().expect(0);
    assert_clean(&s);
    let before = s.snapshot();
    rustix::process::kill_process(sleeper, Signal::CONT).unwrap();
    c.await_awake("w0", &end);
    s.assert_untouched(&before);
}
