//! A watch that is stopped and started again, while programs go on.

use crate::{Mirror, program};
use rustix::process::Signal;
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};
use treeferry_kit::caps::own_ids;
use treeferry_kit::run::wait_until;
use treeferry_tests::{PATIENCE, Run, Scratch};

#[test]
fn a_watch_that_is_stopped_and_started_again_goes_on_with_the_ring_and_walks_nothing() {
    let s = Scratch::disk();
    let start = || Mirror::start(&s);
    let dirs = |r: &Run| r.count("dirs");
    let m = start();
    m.sh("for i in {1..30}; do mkdir -p d$i/e; echo x > d$i/e/f; done; echo 1 > open; echo 1 > killed; ln open link");
    m.assert_same();
    // open for writing when nobody reads any more; one is closed then, and of the other the process is killed
    let script = "exec 3>>open 4>>killed; echo 2 >&3; touch ../ready; read; echo 3 >&3; exec 3>&-; echo 2 >&4; kill -9 $$";
    let mut writer = m.program("bash").args(["-c", script]).stdin(Stdio::piped()).spawn().unwrap();
    wait_until("it has them open", PATIENCE, || s.at("ready").exists());
    m.catch_up();
    m.live.signal(Signal::TERM);
    assert!(dirs(&m.live.finish()) > 60);
    writer.stdin.take().unwrap().write_all(b"\n").unwrap();
    writer.wait().unwrap();
    let run = |script: &str| assert!(program(&s, "bash").args(["-ec", script]).status().unwrap().success());
    run(
        "echo new > d1/new; rm -r d2; mv d3 d4/d3; chmod 700 d5; ln -s x s; mkdir made; echo y > made/f; rm link",
    );
    let m = start();
    m.assert_same();
    let r = m.stop();
    assert!(dirs(&r) < 20, "only what has changed was walked: {r}");
    // stopped in the midst, again and again
    for i in 0..4 {
        let m = start();
        m.sh(&format!(
            "for j in {{1..300}}; do echo {i} > e$j; mkdir -p n{i}/$j; done; mv d1{i} n{i}/moved; echo x > n{i}/moved/f"
        ));
        m.live.signal(Signal::TERM);
        m.live.finish();
        run(&format!("echo {i} > between; for j in {{1..50}}; do echo between > e$j; done"));
    }
    let m = start();
    m.assert_same();
    let r = m.stop();
    assert!(dirs(&r) < 800, "only what was left, and has changed, was walked: {r}");
    // what was changed by nobody who tells is not known; but all is walked when it cannot be known what happened
    let walks_after = |why: &str, what: &dyn Fn()| {
        let m = start();
        m.assert_same();
        m.stop();
        what();
        let m = start();
        m.assert_same();
        let r = m.stop();
        assert!(dirs(&r) > 60, "{why}: {r}");
    };
    walks_after("DST was changed", &|| fs::write(s.at("dst/extra"), "x").unwrap());
    walks_after("DST is another", &|| fs::remove_dir_all(s.at("dst")).unwrap());
    walks_after("SRC was elsewhere meanwhile", &|| {
        fs::rename(s.at("src"), s.at("other")).unwrap();
        fs::write(s.at("other/untold"), "x").unwrap();
        fs::rename(s.at("other"), s.at("src")).unwrap();
    });
    if own_ids().0 == 0 {
        let sh = |script: &str| {
            let r = Command::new("bash").args(["-ec", script]).current_dir(s.at("")).status().unwrap();
            assert!(r.success(), "{script}");
        };
        run("mkdir below");
        walks_after("something was mounted below SRC", &|| {
            sh("mount -t tmpfs none src/below; echo untold > src/below/f");
        });
        walks_after("and unmounted", &|| sh("umount src/below"));
    }
    walks_after("somebody else has read the ring", &|| {
        let elsewhere = Scratch::disk();
        let other = Mirror::of_ring(&elsewhere, s.at("ring"), "");
        run("echo untold > d6/untold");
        other.stop();
    });
    walks_after("it was killed", &|| {
        let m = start();
        m.catch_up();
        m.live.signal(Signal::KILL);
        m.live.finish();
    });
    walks_after("the ring is another", &|| fs::remove_file(s.at("ring")).unwrap());
}
