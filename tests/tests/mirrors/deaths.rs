//! All that runs, and what the servers know, may be gone at any moment.

use super::*;

/// How often something is killed in a round.
const KILLS: usize = 8;

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

#[test]
fn what_was_posted_to_a_mirror_that_nobody_keeps_is_found_when_the_broker_loses_it() {
    let s = Scratch::disk();
    let ring = s.at("ring");
    // no program tells it anything
    let c = cluster(&[("a0", &["--detect", "shim", "--ring", ring.to_str().unwrap()])]);
    s.src().file("d/f", "f");
    let m = Mirror::start(&s, &c, "");
    m.assert_same();
    m.stop().expect(0);
    // nothing is lost: nothing is walked
    m.keep();
    m.assert_same();
    assert_eq!(m.number("resyncs"), 0);
    m.stop().expect(0);
    s.src().file("d/new", "new");
    c.borrow().call(&format!("post {}", s.at("src/d/new").display()));
    lose_queues(&c);
    m.keep();
    m.until("it is found", || s.dst().has("d/new"));
    m.stop();
}

#[test]
fn daemons_end_when_they_are_told_to_though_the_ledger_is_away() {
    let c = cluster(&[("a0", &["--detect", "inotify"])]);
    let s = Scratch::memory();
    s.src().file("f", "f");
    let m = Mirror::start(&s, &c, "");
    m.assert_same();
    c.borrow().kill_server("redis");
    // it was asked for something meanwhile
    thread::sleep(Duration::from_secs(3));
    let began = Instant::now();
    for name in ["a0", "w0"] {
        c.borrow_mut().stop(name);
        assert!(began.elapsed() < Duration::from_secs(25), "{name} took {:?}", began.elapsed());
    }
    m.kill_keeper();
}
