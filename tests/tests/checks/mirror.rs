//! A mirror of a test, kept by a process of its own.

use super::churn::now_us;
use super::leftovers;
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use treeferry_tests::{Live, PATIENCE, Run, Scratch, command};

/// A mirror that is being kept.
pub struct Mirror<'a> {
    pub s: &'a Scratch,
    pub live: Live,
}

/// `treeferry watch` of its source and target.
pub fn watch_command(s: &Scratch, options: &str) -> Command {
    fs::create_dir_all(s.at("run")).unwrap();
    let mut c = command(["watch", "--json"]);
    c.env("TREEFERRY_RUNTIME_DIR", s.at("run")).args(s.words(options));
    c
}

impl<'a> Mirror<'a> {
    pub fn start(s: &'a Scratch, options: &str) -> Mirror<'a> {
        Mirror { s, live: Live::of(&mut watch_command(s, options)) }
    }

    /// What `status` says of it; `None`: it cannot be asked yet.
    pub fn status(&self) -> Option<Value> {
        let mut c = command(["status", "--json"]);
        let r = Run::of(c.env("TREEFERRY_RUNTIME_DIR", self.s.at("run")));
        Some(r.json["jobs"][0]["mirror"].clone()).filter(Value::is_object)
    }

    pub fn complete_up_to(&self) -> u64 {
        self.status().and_then(|m| m["complete_up_to_us"].as_u64()).unwrap_or(0)
    }

    /// Waits for something, and says how the mirror stands if that does not come.
    #[track_caller]
    pub fn until(&self, what: &str, is: impl Fn() -> bool) {
        let began = Instant::now();
        while !is() {
            assert!(began.elapsed() < PATIENCE, "waited in vain until {what}: {:#?}", self.status());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until everything that has happened by now is on the target.
    #[track_caller]
    pub fn catch_up(&self) {
        let now = now_us();
        self.until("the mirror has caught up", || self.complete_up_to() > now);
    }

    #[track_caller]
    pub fn assert_same(&self) {
        self.catch_up();
        // what failed for a moment is tried again a second later
        self.until("nothing fails any more", || self.status().is_some_and(|m| m["failing"] == 0));
        self.catch_up();
        self.s.assert_same();
        assert_eq!(leftovers(&self.s.at("dst")), [""; 0].map(PathBuf::from));
    }

    /// Waits until a mirror that walks has nothing more to look at: what changed within the last two seconds before a walk is
    /// told by it once more, and a walk of a busy machine takes its time.
    #[track_caller]
    pub fn until_quiet(&self) {
        const QUIET: Duration = Duration::from_millis(2500);
        let signs = || self.status().map_or(0, |m| m["signs"].as_u64().unwrap_or(0));
        let last = std::cell::Cell::new((signs(), Instant::now()));
        self.until("nothing is told any more", || {
            let now = signs();
            if now != last.get().0 {
                last.set((now, Instant::now()));
            }
            last.get().1.elapsed() > QUIET
        });
    }

    #[track_caller]
    pub fn stop(self) -> Run {
        if self.status().is_some_and(|m| m["detect"][0] == "poll") {
            // what has changed lately is looked at again, walk after walk, and who is stopped meanwhile says so
            self.until_quiet();
        }
        self.live.signal(Signal::TERM);
        self.live.finish()
    }
}
