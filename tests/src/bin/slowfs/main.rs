//! `slowfs [OPTIONS] REAL MOUNTPOINT...`: a pass-through file system on which every
//! metadata call takes its time, as it does on a remote one.
//!
//! It stands for a file system with a latency and no other limit: calls wait side by side, and nothing waits for
//! anything but the delay. `scripts/bench-scaling` measures with it how the clone gets faster with more workers.
//! Content is neither delayed nor counted: reads, writes and closing go straight through.
//!
//! Several MOUNTPOINTs stand for several nodes. Each is a mount of its own, with inodes, caches and locks of its own
//! in the kernel. This matters: the kernel locks a directory for as long as a change of it takes, so that nodes which
//! shared one mount would wait for each other where nodes with a mount each do not.
//!
//! Runs until all of them are unmounted, or until SIGTERM or SIGINT, and unmounts them then. Wants root, as only it
//! may mount without help and give files away; only root gets in. Not passed on are locks, `O_TMPFILE`, `fallocate`
//! and what is mounted below REAL.

mod calls;
mod tree;

use calls::Slow;
use fuser::{Config, MountOption, Session};
use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tree::{Tree, lock};

const USAGE: &str = "\
usage: slowfs [--delay DUR] [--ttl DUR] [--threads N] [--log FILE] REAL MOUNTPOINT...

--delay DUR    how long each metadata call waits before it is done (20ms)
--ttl DUR      how long the kernel may remember names and attributes (0ms: not at all)
--threads N    calls of one mount that can be under way at once (200)
--log FILE     how many calls of each kind there were: a line with the time (s, monotonic) ten times a second";

/// Inodes that the kernel knows are kept open: as many as a system usually lets root have.
const MOST_FILES: u64 = 1 << 20;

fn main() -> ExitCode {
    match serve(std::env::args_os().skip(1).collect()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("slowfs: {error}");
            ExitCode::from(2)
        }
    }
}

fn serve(args: Vec<std::ffi::OsString>) -> Result<(), String> {
    let (mut delay, mut ttl, mut threads) = (Duration::from_millis(20), Duration::ZERO, 200);
    let mut log = None;
    let mut places: Vec<PathBuf> = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let mut value = || {
            let v = args.next().and_then(|v| v.into_string().ok());
            v.ok_or(format!("{} wants a value\n{USAGE}", arg.display()))
        };
        match arg.to_str() {
            Some("--delay") => delay = duration(&value()?)?,
            Some("--ttl") => ttl = duration(&value()?)?,
            Some("--threads") => {
                threads = value()?.parse().map_err(|_| format!("--threads wants a number\n{USAGE}"))?;
            }
            Some("--log") => log = Some(value()?),
            Some("-h" | "--help") => {
                println!("{USAGE}");
                return Ok(());
            }
            _ => places.push(arg.into()),
        }
    }
    let [real, mounts @ ..] = &places[..] else { return Err(format!("REAL is wanted\n{USAGE}")) };
    if mounts.is_empty() || threads == 0 {
        return Err(format!("a MOUNTPOINT is wanted, and a thread\n{USAGE}"));
    }
    let most = Rlimit { current: Some(MOST_FILES), maximum: Some(MOST_FILES) };
    if setrlimit(Resource::Nofile, most).is_err() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let _ = setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard });
    }
    // callers' masks have been applied by the kernel
    rustix::process::umask(Mode::empty());
    let tree = Tree::new(real, delay, ttl).map_err(|e| format!("{}: {e}", real.display()))?;
    let tree = Arc::new(tree);
    if let Some(log) = log {
        let file = std::fs::File::create(&log).map_err(|e| format!("{log}: {e}"))?;
        let tree = Arc::clone(&tree);
        std::thread::spawn(move || keep_log(&tree, file));
    }
    run(&tree, mounts, threads)
}

/// Writes the numbers of calls, until the process ends.
fn keep_log(tree: &Tree, mut file: std::fs::File) {
    loop {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let mut line = format!("{}.{:03}", now.tv_sec, now.tv_nsec / 1_000_000);
        for (call, n) in lock(&tree.calls).iter() {
            line += &format!(" {call} {n}");
        }
        line.push('\n');
        if file.write_all(line.as_bytes()).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Mounts, serves, and returns when nothing is mounted any more.
fn run(tree: &Arc<Tree>, mounts: &[PathBuf], threads: usize) -> Result<(), String> {
    let mut signals = signal_hook::iterator::Signals::new([
        signal_hook::consts::SIGTERM,
        signal_hook::consts::SIGINT,
        signal_hook::consts::SIGHUP,
    ])
    .map_err(|e| e.to_string())?;
    let mut config = Config::default();
    config.mount_options =
        vec![MountOption::FSName("slowfs".to_owned()), MountOption::Dev, MountOption::Suid];
    config.n_threads = Some(threads);
    let mut sessions = Vec::new();
    for m in mounts {
        // dropped sessions unmount, so an error leaves nothing behind
        let session = Session::new(Slow(Arc::clone(tree)), m, &config);
        sessions.push(session.map_err(|e| format!("cannot mount at {}: {e}", m.display()))?);
    }
    let places = mounts.to_vec();
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            for p in &places {
                // also while somebody is in there, who will be told that it is gone
                let _ = rustix::mount::unmount(p, rustix::mount::UnmountFlags::DETACH);
            }
            std::process::exit(0);
        }
    });
    let served: Vec<_> = sessions.into_iter().map(|s| std::thread::spawn(|| s.run())).collect();
    for s in served {
        s.join().map_err(|_| "a thread panicked")?.map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// `20ms`, `1.5s`; a bare number is milliseconds.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(n) => (n, 1e-3),
        None => text.strip_suffix('s').map_or((text, 1e-3), |n| (n, 1.0)),
    };
    let n: f64 = number.parse().map_err(|_| format!("{text:?} is no duration"))?;
    Duration::try_from_secs_f64(n * unit).map_err(|_| format!("{text:?} is no duration"))
}
