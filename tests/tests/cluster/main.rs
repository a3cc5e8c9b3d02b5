//! Jobs on a cluster: the real servers, workers and hardlinkers that are processes of their own, and everything that
//! can die. What the job leaves must be the same as with the embedded engine, and its counters too.
//!
//! A failing test names its seed; `TREEFERRY_SEED=N` uses that one.

#[path = "../checks/mod.rs"]
mod checks;
mod killed;
mod servers;

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

/// How many entries there are, unfinished copies among them.
fn count(root: &Path) -> usize {
    checks::entries(root).len()
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
