//! Progress on standard error: a bar on a terminal, plain lines where it was asked for without one, else
//! nothing at all.
//!
//! There is no share of the whole in it: a walk does not know how much is still to come, and a number that is made
//! up is worse than none.

use super::complain;
use crate::args::output::When;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use treeferry_core::units::show_size;

/// How often the bar is drawn at most, a second.
const BAR_HZ: u8 = 10;
/// Plain lines are so far apart.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// Rates forget the past with this time constant: steady enough to read, quick enough to see a stall.
const MEMORY: Duration = Duration::from_secs(3);

/// Where the job stands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// Entries looked at.
    pub entries: u64,
    /// Bytes of content copied.
    pub bytes: u64,
    /// Tasks outstanding.
    pub outstanding: u64,
    /// Failures.
    pub failures: u64,
    /// Since the job began.
    pub elapsed: Duration,
}

/// The display.
pub struct Progress {
    bar: Option<ProgressBar>,
    meter: Mutex<Meter>,
    lines: bool,
}

impl Progress {
    /// Chooses the kind of display.
    pub fn new(when: When, quiet: bool, is_terminal: bool) -> Progress {
        let wanted = match when {
            When::Auto => is_terminal && !quiet,
            When::Always => true,
            When::Never => false,
        };
        let bar = (wanted && is_terminal).then(|| {
            let style = ProgressStyle::with_template("{wide_msg}");
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(BAR_HZ));
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        Progress { bar, meter: Mutex::default(), lines: wanted && !is_terminal }
    }

    /// Runs something that writes to the terminal, with the bar out of the way.
    pub fn aside<T>(&self, f: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) => bar.suspend(f),
            None => f(),
        }
    }

    /// Shows a reading, which is only taken where it is shown.
    pub fn draw(&self, reading: impl FnOnce() -> Reading) {
        if self.bar.is_none() && !self.lines {
            return;
        }
        let now = &reading();
        let mut meter = self.meter.lock().unwrap_or_else(PoisonError::into_inner);
        meter.take(now);
        match &self.bar {
            Some(bar) => bar.set_message(meter.line(now)),
            None if now.elapsed >= meter.next_line => {
                meter.next_line = now.elapsed + LINE_EVERY;
                complain(&meter.line(now));
            }
            None => {}
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Makes rates out of readings.
#[derive(Debug, Default)]
struct Meter {
    last: Reading,
    entries_a_second: f64,
    bytes_a_second: f64,
    next_line: Duration,
}

impl Meter {
    fn take(&mut self, now: &Reading) {
        let dt = now.elapsed.saturating_sub(self.last.elapsed).as_secs_f64();
        if dt <= 0.0 {
            return;
        }
        // the first reading has no past to be weighed against
        let fresh = if self.last.elapsed.is_zero() { 1.0 } else { 1.0 - (-dt / MEMORY.as_secs_f64()).exp() };
        let blend = |old: f64, from: u64, to: u64| old + fresh * (to.saturating_sub(from) as f64 / dt - old);
        self.entries_a_second = blend(self.entries_a_second, self.last.entries, now.entries);
        self.bytes_a_second = blend(self.bytes_a_second, self.last.bytes, now.bytes);
        self.last = *now;
    }

    fn line(&self, now: &Reading) -> String {
        format!(
            "{}  {} entries, {:.0}/s  {}, {}/s  {} outstanding  {} failures",
            clock(now.elapsed),
            now.entries,
            self.entries_a_second,
            show_size(now.bytes),
            show_size(self.bytes_a_second as u64),
            now.outstanding,
            now.failures,
        )
    }
}

fn clock(t: Duration) -> String {
    let s = t.as_secs();
    if s >= 3600 {
        format!("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
    } else {
        format!("{}:{:02}", s / 60, s % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64, entries: u64, bytes: u64) -> Reading {
        Reading { entries, bytes, elapsed: Duration::from_secs(secs), ..Reading::default() }
    }

    #[test]
    fn rates_follow_a_change_and_forget_the_past() {
        let mut m = Meter::default();
        m.take(&at(1, 1000, 0));
        assert_eq!(m.entries_a_second.round(), 1000.0);
        for s in 2..30 {
            m.take(&at(s, 1000, (s - 1) * (3 << 19)));
        }
        assert_eq!(m.entries_a_second.round(), 0.0);
        assert_eq!(
            m.line(&at(3700, 1000, 42 << 20)),
            "1:01:40  1000 entries, 0/s  42.0 MiB, 1.50 MiB/s  0 outstanding  0 failures"
        );
    }

    #[test]
    fn readings_that_stand_still_or_run_backwards_do_no_harm() {
        let mut m = Meter::default();
        m.take(&at(0, 5, 5));
        m.take(&at(2, 10, 10));
        m.take(&at(1, 3, 3));
        m.take(&at(3, 3, 3));
        assert!(m.entries_a_second >= 0.0 && m.entries_a_second.is_finite());
    }

    #[test]
    fn nothing_is_shown_where_nobody_looks_unless_asked_for() {
        let kind = |when, quiet, terminal| {
            let p = Progress::new(when, quiet, terminal);
            (p.bar.is_some(), p.lines)
        };
        assert_eq!(kind(When::Auto, false, false), (false, false));
        assert_eq!(kind(When::Auto, true, true), (false, false));
        assert_eq!(kind(When::Auto, false, true), (true, false));
        assert_eq!(kind(When::Always, true, false), (false, true));
        assert_eq!(kind(When::Never, false, true), (false, false));
    }
}
