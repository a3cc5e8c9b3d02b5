//! SIGINT, SIGTERM and SIGHUP: the first asks the job to stop, the second ends the process at once.
//!
//! Who asks once may be heard twice: when a terminal is closed the shell sends SIGHUP as the kernel does, and timeout(1)
//! tells the process and then its group. So what comes within [`SAME`] is no second signal.
//!
//! The flag is set in the signal handler itself, and the end at once is an `_exit` there, so that neither
//! depends on a thread that might hang (in a write to a terminal that nobody reads, on a dead mount). The
//! words for the user come from a thread of their own. Ending at once is safe at any instant: that is promise 2.

use crate::exit::Exit;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, iterator::Signals};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use treeferry_core::Stop;

/// Signals within that time are one.
const SAME: Duration = Duration::from_millis(500);

/// What to say on the first signal.
pub const STOPPING: &str = "stopping; what is under way is cleaned up (a second signal stops at once)";

/// Sets `stop` on the first signal, ends the process on the second; calls `say` once, from a thread of its own.
pub fn watch(stop: &Stop, say: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let ends = Arc::new(AtomicBool::new(false));
    let signals = watched();
    for &signal in &signals {
        flag::register_conditional_shutdown(signal, Exit::Interrupted.code().into(), Arc::clone(&ends))?;
        flag::register(signal, stop.flag())?;
    }
    let mut arrivals = Signals::new(&signals)?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        if arrivals.forever().next().is_some() {
            // without the words if there is no thread for them
            let _ = std::thread::Builder::new().name("words".into()).spawn(say);
            std::thread::sleep(SAME);
            ends.store(true, Relaxed);
        }
    })?;
    Ok(())
}

/// The signals that mean "stop". A SIGHUP that was ignored when we started stays ignored: whoever used
/// nohup(1) wants the job to outlive the terminal.
fn watched() -> Vec<i32> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&s| s != SIGHUP || !is_ignored(s, &status)).collect()
}

/// Reads the mask of ignored signals out of the text of proc(5)'s `status`.
fn is_ignored(signal: i32, status: &str) -> bool {
    let mask = status.lines().find_map(|l| l.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|m| u64::from_str_radix(m.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn mask_of_ignored_signals_is_understood() {
        let status = "Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000002\n";
        assert!(is_ignored(SIGHUP, status) && !is_ignored(SIGINT, status) && !is_ignored(SIGTERM, status));
        assert!(!is_ignored(SIGHUP, "") && !is_ignored(SIGHUP, "SigIgn:\twhat\n"));
    }

    #[test]
    fn the_first_signal_sets_the_flag_and_says_so() {
        let (stop, (said, heard)) = (Stop::default(), std::sync::mpsc::channel());
        watch(&stop, move || said.send(()).unwrap()).unwrap();
        assert!(!stop.is_set());
        signal_hook::low_level::raise(SIGTERM).unwrap();
        // as when a terminal is closed
        signal_hook::low_level::raise(SIGHUP).unwrap();
        heard.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(stop.is_set());
    }
}
