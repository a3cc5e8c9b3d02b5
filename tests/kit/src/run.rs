//! Runs a binary under test and collects what it said; waits for conditions.
//!
//! Everything has a deadline: a test that hangs is told which command hung, and the
//! command is killed.

use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::mem;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long [`run`] lets a command take; far more than any small tree needs.
pub const DEADLINE: Duration = Duration::from_secs(300);

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(5);

/// How long after a command's end its pipes may stay open.
const PIPE_GRACE: Duration = Duration::from_secs(2);

/// What a finished command left: its status and both its voices.
#[derive(Debug)]
pub struct Outcome {
    /// The command line, for messages.
    pub command: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it wrote to standard output.
    pub stdout: Vec<u8>,
    /// Everything it wrote to standard error.
    pub stderr: Vec<u8>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Outcome {
    /// The exit code; `None` when a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Standard output as text, with replacement characters where it is none.
    pub fn stdout_text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Standard error as text, with replacement characters where it is none.
    pub fn stderr_text(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// The JSON value that is all of standard output.
    ///
    /// # Panics
    /// When standard output is no JSON, with all that the command said.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON on standard output: {error}\n{self}"))
    }

    /// The same outcome, if it ended with this exit code.
    ///
    /// # Panics
    /// When it ended otherwise, with all that the command said.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "unexpected exit of {self}");
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n  {} after {:?}", self.command, self.status, self.elapsed)?;
        writeln!(f, "--- stdout\n{}", self.stdout_text())?;
        write!(f, "--- stderr\n{}", self.stderr_text())
    }
}

/// Runs `binary` with `args` to its end.
///
/// # Panics
/// When it cannot be started or outlives [`DEADLINE`].
#[track_caller]
pub fn run<I>(binary: impl AsRef<Path>, args: I) -> Outcome
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    collect(Command::new(binary.as_ref()).args(args).stdin(Stdio::null()), DEADLINE)
}

/// Runs a prepared command to its end, which must come within `deadline`.
///
/// # Panics
/// When it cannot be started, or has to be killed because the deadline passed.
#[track_caller]
pub fn collect(command: &mut Command, deadline: Duration) -> Outcome {
    let words = format!("{command:?}");
    let began = Instant::now();
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {words}: {error}"));
    finish(child, words, began, deadline)
}

/// Waits for a child that was spawned with piped output, and collects the rest of it.
///
/// # Panics
/// When it has to be killed because the deadline passed.
#[track_caller]
pub fn finish(mut child: Child, command: String, began: Instant, deadline: Duration) -> Outcome {
    let stdout = Drain::new(child.stdout.take());
    let stderr = Drain::new(child.stderr.take());
    let mut killed = false;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if !killed && began.elapsed() > deadline => {
                killed = true;
                let _ = child.kill();
            }
            Ok(None) => thread::sleep(POLL),
            Err(error) => panic!("cannot wait for {command}: {error}"),
        }
    };
    let outcome =
        Outcome { command, status, elapsed: began.elapsed(), stdout: stdout.take(), stderr: stderr.take() };
    assert!(!killed, "killed after {deadline:?}: {outcome}");
    outcome
}

/// A pipe that is read beside us, so that a full pipe never stops the child.
struct Drain {
    all: Arc<Mutex<Vec<u8>>>,
    reader: thread::JoinHandle<()>,
}

impl Drain {
    fn new(pipe: Option<impl Read + Send + 'static>) -> Self {
        let all = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&all);
        let reader = thread::spawn(move || {
            let mut chunk = [0; 8192];
            let Some(mut pipe) = pipe else { return };
            while let Ok(n @ 1..) = pipe.read(&mut chunk) {
                let mut all = sink.lock().unwrap_or_else(PoisonError::into_inner);
                all.extend_from_slice(&chunk[..n]);
            }
        });
        Self { all, reader }
    }

    /// What came through the pipe. A grandchild that keeps it open does not hold us up.
    fn take(self) -> Vec<u8> {
        let began = Instant::now();
        while !self.reader.is_finished() && began.elapsed() < PIPE_GRACE {
            thread::sleep(POLL);
        }
        mem::take(&mut *self.all.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Waits until `condition` holds.
///
/// # Panics
/// When it does not within `deadline`; `what` says what was waited for.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < deadline, "waited {deadline:?} in vain until {what}");
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collects_both_voices_and_the_code() {
        let outcome = run("/bin/sh", ["-c", "echo out; echo err >&2; exit 3"]).expect_code(3);
        assert_eq!(outcome.stdout_text(), "out\n");
        assert_eq!(outcome.stderr_text(), "err\n");
    }

    #[test]
    fn parses_json() {
        assert_eq!(run("/bin/echo", [r#"{"state":"done"}"#]).json()["state"], "done");
    }

    #[test]
    #[should_panic(expected = "killed after")]
    fn kills_what_outlives_its_deadline() {
        collect(Command::new("/bin/sleep").arg("60"), Duration::from_millis(50));
    }

    #[test]
    #[should_panic(expected = "in vain until pigs fly")]
    fn waiting_has_an_end() {
        wait_until("pigs fly", Duration::from_millis(20), || false);
    }
}
