//! The ring: full, removed, broken, another's; and readers that come and go.

use crate::{Mirror, program};
use rustix::process::Signal;
use std::fs;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use treeferry_ring::{Ring, bytes_for};
use treeferry_tests::{PATIENCE, Scratch, command};

/// A ring of few slots, as nobody would want one.
fn small_ring(s: &Scratch) {
    let words: Vec<AtomicU64> = (0..bytes_for(64) / 8).map(|_| AtomicU64::new(0)).collect();
    let numbers = rustix::fs::stat("/proc/self/ns/pid").unwrap().st_ino;
    Ring::format(&words, 1, numbers).unwrap();
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.load(Relaxed).to_le_bytes()).collect();
    fs::write(s.at("ring"), bytes).unwrap();
}

#[test]
fn what_has_no_room_is_known_to_be_missed_and_looked_for() {
    let s = Scratch::disk();
    small_ring(&s);
    let m = Mirror::start(&s);
    m.sh("echo 1 > before");
    m.assert_same();
    m.live.freeze();
    m.sh("for i in {1..100}; do echo $i > f$i; done; mkdir -p d/e; echo x > d/e/f");
    m.live.thaw();
    m.assert_same();
    assert!(m.figure("resyncs") > 0, "nothing was missed: the test has proven nothing");
    m.sh("echo 2 > d/after");
    m.assert_same();
    m.live.signal(Signal::TERM);
    m.live.finish().expect(0);
}

#[test]
fn a_watch_that_is_killed_finds_what_was_told_meanwhile_in_the_ring() {
    let s = Scratch::disk();
    let m = Mirror::start(&s);
    m.sh("echo 1 > a");
    m.assert_same();
    let mut writer = m.program("bash");
    m.live.signal(Signal::KILL);
    m.live.finish();
    let out = writer.args(["-c", "echo 2 > a; echo 3 > b; mkdir d; echo 4 > d/f"]).output().unwrap();
    assert!(out.status.success());
    let m = Mirror::start(&s);
    m.assert_same();
    assert!(m.figure("signs") >= 4, "what is in the ring was not read: {:?}", m.status());
    m.sh("echo 5 > a");
    m.assert_same();
    m.stop();
}

/// One of them maps the ring, and the others need it before it has.
#[test]
fn all_threads_of_a_program_tell_from_their_first_file_on() {
    const PROGRAMS: usize = 100;
    let s = Scratch::disk();
    let m = Mirror::start(&s);
    let script = "import sys, threading\nb = threading.Barrier(4)\ndef w(t):\n  b.wait()\n  \
                  for i in range(3): open(f'{sys.argv[1]}-{t}-{i}', 'w').close()\n\
                  ts = [threading.Thread(target=w, args=(t,)) for t in range(4)]\n[t.start() for t in ts]; [t.join() for t in ts]";
    // what is called python3 may be a script that starts it
    let python = m.run("python3", &["-c", "import sys; print(sys.executable)"]).stdout;
    let python = String::from_utf8(python).unwrap();
    for n in 0..PROGRAMS {
        assert!(m.run(python.trim(), &["-ISc", script, &n.to_string()]).status.success());
    }
    m.assert_same();
    assert_eq!(fs::read_dir(s.at("dst")).unwrap().count(), PROGRAMS * 12);
    m.stop();
}

/// It has looked for a ring, and there was none.
#[test]
fn a_program_that_runs_before_there_is_a_ring_tells_from_the_first_promise_on() {
    let s = Scratch::disk();
    fs::create_dir_all(s.at("src")).unwrap();
    let piped = std::process::Stdio::piped;
    let script =
        "echo 1 > early; echo; read x; echo 2 > late; echo 3 > early; mkdir d; read x; echo 4 > last";
    let mut shell = program(&s, "bash").args(["-c", script]).stdin(piped()).stdout(piped()).spawn().unwrap();
    let mut input = shell.stdin.take().unwrap();
    let mut line = [0; 1];
    shell.stdout.take().unwrap().read_exact(&mut line).unwrap();
    assert!(!s.at("ring").exists());
    let m = Mirror::start(&s);
    input.write_all(b"\n").unwrap();
    let began = Instant::now();
    while !s.at("src/d").exists() {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
    m.assert_same();
    input.write_all(b"\n").unwrap();
    assert!(shell.wait().unwrap().success());
    m.assert_same();
    m.stop();
}

#[test]
fn a_ring_that_is_removed_or_broken_is_made_anew() {
    let s = Scratch::disk();
    // it ends like a ring of ours, and is none
    let mark = u64::from_le_bytes(*b"TFshring").to_ne_bytes();
    fs::write(s.at("ring"), [&[b'x'; 1000][..], &mark].concat()).unwrap();
    let m = Mirror::start(&s);
    // a shell that has the old one mapped, and goes on
    let script = "echo 1 > a; read x; echo 2 > a; read x; echo 3 > b";
    let piped = std::process::Stdio::piped;
    let mut shell = m.program("bash").args(["-c", script]).stdin(piped()).spawn().unwrap();
    let mut input = shell.stdin.take().unwrap();
    let began = Instant::now();
    while !s.at("dst/a").exists() {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    let before = m.figure("resyncs");
    fs::remove_file(s.at("ring")).unwrap();
    while !s.at("ring").exists() || m.figure("resyncs") == before {
        assert!(began.elapsed() < PATIENCE, "{:?}", m.status());
        std::thread::sleep(Duration::from_millis(10));
    }
    input.write_all(b"\n\n").unwrap();
    assert!(shell.wait().unwrap().success());
    m.assert_same();
    m.live.signal(Signal::TERM);
    m.live.finish().expect(0);
}

#[test]
fn only_a_ring_of_ours_is_read_and_by_one_process() {
    let s = Scratch::disk();
    fs::create_dir_all(s.at("src")).unwrap();
    let m = Mirror::start(&s);
    let refused = |ring: PathBuf, why: &str| {
        let mut c = command(["watch", "--detect", "shim", "--ring"]);
        c.arg(ring).arg(s.at("src")).arg(s.at("other")).env("TREEFERRY_RUNTIME_DIR", s.at("run"));
        let out = c.output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains(why), "{why}: {said}");
    };
    refused(s.at("ring"), "another process reads it");
    std::os::unix::fs::symlink(s.at("nowhere"), s.at("link")).unwrap();
    refused(s.at("link"), "it is a symlink");
    assert!(!s.at("nowhere").exists());
    refused(s.at("src"), "");
    m.stop();
}
