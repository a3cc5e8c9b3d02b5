//! Mirrors of what programs do into which the library is loaded: whatever they do and however they end, DST is soon like
//! SRC; and they do not notice.
//!
//! Nothing in SRC is changed by the test itself, which has no such library.

mod again;
mod descriptors;
mod ends;
mod programs;
mod rare;
mod ring;
mod unnoticed;

use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime};
use treeferry_tests::{Live, PATIENCE, Run, Scratch, command, library};

fn now_us() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64
}

/// A program with the library, in SRC.
fn program(s: &Scratch, name: &str) -> Command {
    let mut c = Command::new(name);
    c.current_dir(s.at("src")).env("LD_PRELOAD", library()).env("TREEFERRY_SHIM", s.at("ring"));
    c
}

struct Mirror<'a> {
    s: &'a Scratch,
    live: Live,
}

impl<'a> Mirror<'a> {
    fn start(s: &'a Scratch) -> Mirror<'a> {
        Mirror::of_ring(s, s.at("ring"), "")
    }

    fn of_ring(s: &'a Scratch, ring: PathBuf, options: &str) -> Mirror<'a> {
        fs::create_dir_all(s.at("run")).unwrap();
        fs::create_dir_all(s.at("src")).unwrap();
        let mut c = command(["watch", "--json", "--detect", "shim", "--ring"]);
        c.arg(ring).env("TREEFERRY_RUNTIME_DIR", s.at("run")).args(s.words(options));
        let m = Mirror { s, live: Live::of(&mut c) };
        m.catch_up();
        m
    }

    fn status(&self) -> Option<Value> {
        let mut c = command(["status", "--json"]);
        let r = Run::of(c.env("TREEFERRY_RUNTIME_DIR", self.s.at("run")));
        Some(r.json["jobs"][0]["mirror"].clone()).filter(Value::is_object)
    }

    fn figure(&self, key: &str) -> u64 {
        self.status().and_then(|m| m[key].as_u64()).unwrap_or(0)
    }

    #[track_caller]
    fn catch_up(&self) {
        let (now, began) = (now_us(), Instant::now());
        while self.figure("complete_up_to_us") <= now || self.figure("failing") > 0 {
            assert!(began.elapsed() < PATIENCE, "the mirror does not catch up: {:#?}", self.status());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn assert_same(&self) {
        self.catch_up();
        self.s.assert_same();
    }

    /// A program with the library, in SRC.
    fn program(&self, name: &str) -> Command {
        program(self.s, name)
    }

    #[track_caller]
    fn run(&self, name: &str, words: &[&str]) -> Output {
        self.program(name).args(words).output().unwrap()
    }

    #[track_caller]
    fn sh(&self, script: &str) {
        let out = self.run("bash", &["-ec", script]);
        assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(String::from_utf8_lossy(&out.stderr), "", "{script}");
    }

    #[track_caller]
    fn stop(self) -> Run {
        assert_eq!(self.figure("resyncs"), 0, "something was missed, and all was walked again");
        // open files are looked at each second: who stops it then interrupts that
        let began = Instant::now();
        while self.status().is_none_or(|m| m["waiting"] != 0 || m["busy"] != 0) {
            assert!(began.elapsed() < PATIENCE, "there is always something to do: {:#?}", self.status());
            std::thread::sleep(Duration::from_millis(20));
        }
        self.live.signal(Signal::TERM);
        self.live.finish().expect(0)
    }
}

/// Runs scripts one after the other, each in a mirror that is the same before and after it.
fn each(program: &str, option: &str, steps: &[(&str, &str)]) {
    let s = Scratch::disk();
    let m = Mirror::start(&s);
    for (what, script) in steps {
        eprintln!("{what}");
        let out = m.run(program, &[option, script]);
        assert_eq!(String::from_utf8_lossy(&out.stderr), "", "{what}");
        assert!(out.status.success(), "{what}: {}", out.status);
        m.assert_same();
    }
    m.stop();
}
