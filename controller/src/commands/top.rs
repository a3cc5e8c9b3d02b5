//! `treeferry top`: what the cluster is doing, on a whole screen.

use super::status::explain;
use crate::args::control::{AskError, Reach};
use crate::cli;
use crate::output::complain;
use crate::top::{self, End, Wires};
use std::io::{self, IsTerminal};
use treeferry_core::Stop;
use treeferry_service::{Exit, logging, signals};

/// Shows on a whole screen what the cluster is doing, and steers it by keys
///
/// Without a cluster: the jobs that processes of the same user run on this machine, which can be watched only.
///
/// Jobs, and of the chosen one its rates with charts, what runs for how long, and the latest failures; workers, with the
/// threads that are busy; queues. The key `?` shows all keys: they pause and resume, resize pools and cancel. A screen of
/// 80x24 shows all of it, a smaller one the chosen job.
///
/// Nothing is told by colour alone. NO_COLOR, TERM (dumb, vt100, ...-mono) and a locale without UTF-8 are heeded.
///
/// For scripts, and without a terminal: `treeferry status --json`, `treeferry status --watch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    reach: Reach,
}

/// Runs the command.
pub fn run(args: &Args) -> Exit {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        complain(
            "top needs a terminal, for standard input and output; without one, try 'treeferry status --watch'",
        );
        return Exit::Usage;
    }
    let site = match args.reach.site() {
        Ok(site) => site,
        Err(e) => return cli::refuse("top", &e),
    };
    let wires = Wires::new();
    let trouble = wires.trouble();
    // what is worth a line of the log would spoil the screen: its last line says it
    let log = move |line: &[u8]| {
        if let Some(words) = warning(line) {
            trouble(words);
        }
    };
    if let Err(e) = logging::start(logging::level(false, 0), log) {
        complain(&e.to_string());
        return Exit::Usage;
    }
    let stop = Stop::default();
    let watched = signals::watch(&stop, || {});
    match watched.and_then(|()| top::watch(site.as_ref(), wires, &stop)) {
        Ok(End::Left { never: Some(why), .. }) => explain("top", &AskError::Unreachable(why)),
        Ok(End::Left { unanswered: Some(deed), .. }) => {
            complain(&format!("no answer came to: {deed}; 'treeferry status' says whether it was done"));
            Exit::Unreachable
        }
        Ok(End::Left { .. }) => Exit::Done,
        Ok(End::Stopped) => Exit::Interrupted,
        Err(e) => {
            complain(&format!("the terminal: {e}"));
            Exit::Usage
        }
    }
}

/// The words of a line of the log, if it is a warning or worse: TIME LEVEL WORDS.
fn warning(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    let (_, rest) = text.trim().split_once(' ')?;
    let (level, words) = rest.trim_start().split_once(' ')?;
    ["WARN", "ERROR"].contains(&level).then(|| words.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::warning;

    #[test]
    fn only_warnings_reach_the_screen() {
        let at = "2026-11-23T06:30:00.123456Z";
        let said = |line: String| warning(line.as_bytes());
        assert_eq!(said(format!("{at}  WARN the ledger is away\n")).as_deref(), Some("the ledger is away"));
        assert_eq!(said(format!("{at} ERROR a b\n")).as_deref(), Some("a b"));
        assert_eq!(said(format!("{at}  INFO a b\n")), None);
        assert_eq!(said(String::new()), None);
    }
}
