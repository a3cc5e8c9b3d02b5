//! Workers: what they can look after, and what is left of what they did.

use super::*;

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
