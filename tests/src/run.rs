//! Runs of the binary: to the end, or held at some point of their life.

use crate::{PATIENCE, command};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::ffi::OsStr;
use std::fmt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use treeferry_kit::run::{DEADLINE, Outcome, collect, finish, wait_until};

/// A run that has ended.
#[derive(Debug)]
pub struct Run {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output, with replacement characters where it is no UTF-8.
    pub stdout: String,
    /// Standard error, likewise.
    pub stderr: String,
    /// The object on standard output; null if that is no JSON.
    pub json: Value,
    /// How long it took.
    pub elapsed: Duration,
    command: String,
}

/// Runs `treeferry sync --json` with these words to its end.
pub fn sync<I>(words: I) -> Run
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    Run::of(command(["sync", "--json"]).args(words))
}

impl Run {
    /// Runs a prepared command to its end.
    #[track_caller]
    pub fn of(command: &mut Command) -> Run {
        Run::from(collect(command, DEADLINE))
    }

    /// The same run, if it ended with this exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Run {
        assert_eq!(self.status.code(), Some(code), "unexpected exit of {self}");
        self
    }

    /// A counter of the summary.
    #[track_caller]
    pub fn count(&self, name: &str) -> u64 {
        self.json["counters"][name].as_u64().unwrap_or_else(|| panic!("no counter {name} from {self}"))
    }

    /// Paths of the failures that the summary names, sorted.
    pub fn failed(&self) -> Vec<&str> {
        let all = self.json["failures"].as_array().map_or(&[][..], |v| v);
        let mut paths: Vec<&str> = all.iter().filter_map(|f| f["path"].as_str()).collect();
        paths.sort_unstable();
        paths
    }

    /// The itemised lines, sorted, from whichever stream they came on.
    pub fn items(&self) -> Vec<&str> {
        let all = self.stdout.lines().chain(self.stderr.lines());
        let mut lines: Vec<&str> = all.filter(|l| is_item(l)).collect();
        lines.sort_unstable();
        lines
    }

    /// The itemised line of one path, without the path; `None` if there is none.
    pub fn item(&self, path: &str) -> Option<&str> {
        self.items().into_iter().find_map(|l| l.strip_suffix(path)?.strip_suffix(' ')).map(str::trim_end)
    }
}

/// Whether a line is one of `%i %n`: eleven columns, a space, a name.
fn is_item(line: &str) -> bool {
    let b = line.as_bytes();
    b.len() > 12
        && b[11] == b' '
        && (line.starts_with("*deleting") || (b"<>ch.".contains(&b[0]) && b"fdLDS".contains(&b[1])))
}

impl From<Outcome> for Run {
    fn from(o: Outcome) -> Run {
        Run {
            status: o.status,
            stdout: o.stdout_text(),
            stderr: o.stderr_text(),
            json: serde_json::from_slice(&o.stdout).unwrap_or(Value::Null),
            elapsed: o.elapsed,
            command: o.command,
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Run { command, status, stdout, stderr, .. } = self;
        write!(f, "{command}\n  {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// A run that goes on; killed if it is dropped before it was waited for.
#[derive(Debug)]
pub struct Live {
    child: Option<Child>,
    command: String,
    began: Instant,
}

impl Live {
    /// Starts `treeferry sync --json` with these words.
    pub fn sync<I>(words: I) -> Live
    where
        I: IntoIterator,
        I::Item: AsRef<OsStr>,
    {
        Live::of(command(["sync", "--json"]).args(words))
    }

    /// Starts a prepared command.
    #[track_caller]
    pub fn of(command: &mut Command) -> Live {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let child = child.unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        Live { child: Some(child), command: format!("{command:?}"), began: Instant::now() }
    }

    /// Waits until something holds, which must come before the run ends.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut condition: impl FnMut() -> bool) {
        let mut ended = false;
        wait_until(what, PATIENCE, || {
            // the order matters: what holds after the end may have held before
            ended = !self.is_running();
            condition() || ended
        });
        if ended && let Some(child) = self.child.take() {
            panic!(
                "ended before {what}: {}",
                Run::from(finish(child, self.command.clone(), self.began, DEADLINE))
            );
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid() as i32).expect("a child has a pid");
        kill_process(pid, signal).expect("our own child takes signals");
    }

    /// Stops it with SIGSTOP, and waits until it stands still.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let stat = format!("/proc/{}/stat", self.pid());
        wait_until("it stands still", PATIENCE, || {
            std::fs::read_to_string(&stat).is_ok_and(|s| s.rsplit(") ").next().unwrap_or("").starts_with('T'))
        });
    }

    /// Lets a frozen run go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("not waited for").id()
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.pid())).map_or(0, Iterator::count)
    }

    /// Lets it end, and collects what it said.
    #[track_caller]
    pub fn finish(mut self) -> Run {
        let child = self.child.take().expect("waited for once");
        Run::from(finish(child, self.command.clone(), self.began, DEADLINE))
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.as_mut().map(Child::try_wait), Some(Ok(None)))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
