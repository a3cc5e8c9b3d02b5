//! The terminal of a running job. Lines come from many threads; they neither mix with each other nor tear
//! the progress bar.
//!
//! Itemised lines are many, so they are gathered and written in blocks; what is wrong is written at once.

use super::progress::{Progress, Reading};
use super::{complain, lament, put};
use crate::args::Output;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use treeferry_core::{Change, Failure, Notice, Work};
use treeferry_worker::Reporter;

/// A block of itemised lines is written when it is so large, in bytes ...
const BLOCK_BYTES: usize = 64 << 10;
/// ... or so old.
const BLOCK_AGE: Duration = Duration::from_secs(1);

/// Where a job speaks.
pub struct Console {
    quiet: bool,
    progress: Progress,
    lines: Mutex<Lines>,
    changes: AtomicU64,
}

/// Itemised lines on their way.
struct Lines {
    /// They go to standard error: standard output is kept for the JSON object.
    to_stderr: bool,
    /// Somebody is looking: lines are not held back.
    watched: bool,
    gathered: Vec<u8>,
    written: Instant,
    /// A write failed; there is no use in more of them.
    broken: bool,
}

impl Console {
    /// Opens it as the options say.
    pub fn new(output: &Output) -> Console {
        let watched = if output.json { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        Console {
            quiet: output.quiet,
            progress: Progress::new(output.progress, output.quiet, io::stderr().is_terminal()),
            lines: Mutex::new(Lines {
                to_stderr: output.json,
                watched,
                gathered: Vec::new(),
                written: Instant::now(),
                broken: false,
            }),
            changes: AtomicU64::new(0),
        }
    }

    /// Says something on standard error, now.
    pub fn say(&self, text: &str) {
        self.progress.aside(|| complain(text));
    }

    /// Writes a line of the log as it is.
    pub fn log(&self, line: &[u8]) {
        self.progress.aside(|| {
            let _ = io::stderr().write_all(line);
        });
    }

    /// Called some times a second by whoever waits for the job.
    pub fn tick(&self, reading: impl FnOnce() -> Reading) {
        let mut lines = self.lines();
        if lines.watched || lines.written.elapsed() >= BLOCK_AGE {
            lines.write(&self.progress);
        }
        drop(lines);
        self.progress.draw(reading);
    }

    /// How many changes were reported.
    pub fn changes_seen(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }

    /// Writes what is gathered and takes the progress away. Nothing itemised comes after it.
    pub fn close(&self) {
        self.lines().write(&self.progress);
        self.progress.clear();
    }

    /// Puts the summary on standard output; after [`Console::close`].
    pub fn print(&self, text: &str) {
        let lines = self.lines();
        if lines.to_stderr || !lines.broken {
            put(text.as_bytes());
        }
    }

    /// A thread that panicked while it wrote has left at worst an unfinished line.
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn write(&mut self, progress: &Progress) {
        self.written = Instant::now();
        let block = std::mem::take(&mut self.gathered);
        if self.broken || block.is_empty() {
            return;
        }
        let result = match (self.to_stderr, self.watched) {
            (true, _) => progress.aside(|| io::stderr().write_all(&block)),
            (false, true) => progress.aside(|| write_out(&block)),
            // not on the terminal where the bar is
            (false, false) => write_out(&block),
        };
        if let Err(e) = result {
            self.broken = true;
            if !self.to_stderr {
                progress.aside(|| lament(&e));
            }
        }
    }
}

fn write_out(block: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(block)?;
    out.flush()
}

impl Reporter for Console {
    fn changes(&self, changes: &[Change]) {
        self.changes.fetch_add(changes.len() as u64, Ordering::Relaxed);
        let mut text = String::new();
        for c in changes {
            // into memory: cannot fail
            let _ = writeln!(text, "{c}");
        }
        let mut lines = self.lines();
        lines.gathered.extend_from_slice(text.as_bytes());
        if lines.gathered.len() >= BLOCK_BYTES {
            lines.write(&self.progress);
        }
    }

    fn failure(&self, f: &Failure) {
        self.say(&f.to_string());
    }

    fn notice(&self, n: Notice) {
        if !self.quiet {
            self.say(&format!("note: {}", n.text()));
        }
    }

    fn ran(&self, _: &Work, _: Duration) {}
}
