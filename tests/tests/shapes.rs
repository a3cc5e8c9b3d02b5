//! Trees of odd shapes, with few open files and in bounded memory: neither grows with depth, width or number.
//!
//! The environment variable `TREEFERRY_BIG=1` takes ten times as many files and five times as many directories.
//! Each tree is on a tmpfs of its own, so the tests need root.

use rustix::process::{Pid, Signal, kill_process, set_child_subreaper};
use serde_json::Value;
use std::env;
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};
use treeferry_kit::mounts::{FsKind, Mount};
use treeferry_kit::put::{self, Meta};
use treeferry_kit::run::DEADLINE;
use treeferry_kit::tree::{Kind, Spec};
use treeferry_tests::{assert_same, bin};

/// The most files that a run may have open.
const OPEN_FILES: u32 = 256;

/// The most memory that a run may take, in MiB.
fn most_memory() -> u64 {
    if is_big() { 96 } else { 64 }
}

/// Whether the large trees were asked for.
fn is_big() -> bool {
    env::var_os("TREEFERRY_BIG").is_some_and(|v| v == "1")
}

/// A run that has ended.
#[derive(Debug)]
struct Run {
    counters: Value,
    said: String,
}

impl Run {
    #[track_caller]
    fn count(&self, name: &str) -> u64 {
        self.counters[name].as_u64().unwrap_or_else(|| panic!("no counter {name} in {self:?}"))
    }
}

/// A tmpfs with source and target; gone with all that is on it when dropped.
struct Scene(Mount);

impl Scene {
    /// With room for this many entries, source and target together.
    #[track_caller]
    fn new(entries: u64) -> Scene {
        let mount = Mount::sized(FsKind::Tmpfs, 8 << 30, Some(entries + 1000));
        Scene(mount.unwrap_or_else(|e| panic!("no tmpfs to test on: {e}")))
    }

    /// With a tree of the kit as its source.
    #[track_caller]
    fn of(kind: Kind, count: u64) -> Scene {
        let s = Scene::new(2 * count + count / 10);
        Spec::new(kind).count(count).make(&s.at("src")).unwrap();
        s
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs `treeferry sync --json OPTIONS src dst` with few open files, and fails the test if it does not end
    /// well or takes too much memory.
    #[track_caller]
    fn sync(&self, options: &[&str]) -> Run {
        // The peak that the kernel tells of a process counts what it was before execve(2), a copy of this
        // process with all that the oracle holds. So a shell starts it, ends, and leaves it to us.
        const SCRIPT: &str =
            r#"ulimit -n "$1" || exit; out=$2; shift 2; "$@" >"$out/stdout" 2>"$out/stderr" & echo $!"#;
        set_child_subreaper(Pid::from_raw(1)).unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", SCRIPT, "sh", &OPEN_FILES.to_string()]).arg(self.0.path());
        shell.arg(bin()).args(["sync", "--json"]).args(options).args([self.at("src"), self.at("dst")]);
        let started = treeferry_tests::neutral(&mut shell).output().unwrap();
        let pid = String::from_utf8_lossy(&started.stdout).trim().parse();
        let (status, peak) = wait(pid.unwrap_or_else(|_| panic!("not started: {started:?}"))).unwrap();

        let [stdout, stderr] = ["stdout", "stderr"]
            .map(|n| String::from_utf8_lossy(&fs::read(self.at(n)).unwrap()).into_owned());
        let said: String = [stdout.as_str(), &stderr].concat().chars().take(4000).collect();
        assert_eq!(status.code(), Some(0), "{options:?} {status}: {said}");
        assert!(peak <= most_memory() << 20, "{options:?} took {} MiB: {said}", peak >> 20);
        let json: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {said}"));
        Run { counters: json["counters"].clone(), said }
    }

    /// Clones the source, twice; then deletes all of the clone, which is this many entries. Returns the first run.
    #[track_caller]
    fn clone_and_clear(&self, entries: u64) -> Run {
        let first = self.sync(&[]);
        assert_same(&self.at("src"), &self.at("dst"));
        let again = self.sync(&["--delete"]);
        for counter in ["copied_files", "meta_fixed", "made_dirs", "linked", "deleted"] {
            assert_eq!(again.count(counter), 0, "{counter} of the second run: {}", again.said);
        }
        fs::rename(self.at("src"), self.at("old")).unwrap();
        fs::create_dir(self.at("src")).unwrap();
        let last = self.sync(&["--delete"]);
        assert_eq!(last.count("deleted"), entries, "{}", last.said);
        assert_same(&self.at("src"), &self.at("dst"));
        first
    }
}

/// Waits for a process that was left to us, and tells how it ended and how many bytes of memory it had at most.
fn wait(pid: i32) -> io::Result<(ExitStatus, u64)> {
    let began = Instant::now();
    loop {
        let mut status = 0;
        let mut usage = MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: both pointers are to places of our own, large enough for what wait4 writes.
        let ended = unsafe { libc::wait4(pid, &raw mut status, libc::WNOHANG, usage.as_mut_ptr()) };
        if ended == pid {
            // SAFETY: zeros are a valid rusage, and wait4 wrote one over them.
            let usage = unsafe { usage.assume_init() };
            return Ok((ExitStatus::from_raw(status), usage.ru_maxrss as u64 * 1024));
        }
        let error = io::Error::last_os_error();
        // for a moment it is still the shell's
        if ended < 0 && error.raw_os_error() != Some(libc::ECHILD) {
            return Err(error);
        }
        if began.elapsed() > DEADLINE {
            kill_process(Pid::from_raw(pid).expect("no process has the number 0"), Signal::KILL)?;
            return Err(io::Error::other(format!("killed after {DEADLINE:?}")));
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_chain_of_1000_directories() {
    let r = Scene::of(Kind::Deep, 1000).clone_and_clear(1000 + 21);
    assert_eq!((r.count("dirs"), r.count("copied_files")), (1001, 21));
}

#[test]
fn a_chain_of_3000_directories() {
    let r = Scene::of(Kind::Deep, 3000).clone_and_clear(3000 + 61);
    assert_eq!((r.count("dirs"), r.count("copied_files")), (3001, 61));
}

#[test]
fn one_directory_of_very_many_directories() {
    let n = if is_big() { 100_000 } else { 20_000 };
    assert_eq!(Scene::of(Kind::Wide, n).clone_and_clear(n).count("dirs"), n + 1);
}

#[test]
fn one_directory_of_very_many_files() {
    let n = if is_big() { 2_000_000 } else { 200_000 };
    assert_eq!(Scene::of(Kind::Empty, n).clone_and_clear(n).count("copied_files"), n);
}

#[test]
fn very_many_hard_links_across_directories() {
    let (dirs, inodes, each) = (50, 10_000, 5);
    let s = Scene::new(2 * dirs + 3 * inodes * each);
    for d in 0..dirs {
        fs::create_dir_all(s.at(&format!("src/{d}"))).unwrap();
    }
    for i in 0..inodes {
        let name = |n: u64| s.at(&format!("src/{}/{i}-{n}", (i + 11 * n) % dirs));
        fs::write(name(0), i.to_string()).unwrap();
        for n in 1..each {
            fs::hard_link(name(0), name(n)).unwrap();
        }
    }
    let r = s.clone_and_clear(dirs + inodes * each);
    assert_eq!((r.count("copied_files"), r.count("linked")), (inodes, inodes * (each - 1)), "{}", r.said);
}

#[test]
fn names_of_255_bytes_in_each_level() {
    let (levels, files) = (300u64, 5u64);
    let s = Scene::new(2 * (levels * (files + 1)));
    fs::create_dir(s.at("src")).unwrap();
    let meta = Meta { mode: 0o640, uid: 1000, gid: 1001, sec: 1_500_000_000, nsec: 7 };
    let mut dir = put::open_dir(&s.at("src")).unwrap();
    for level in 0..levels {
        // ends in what would be lost if it was cut short, and begins alike
        for i in 0..files {
            let name = format!("{:x<250}f{level:03}{i}", "");
            put::file(dir.as_fd(), name.as_bytes(), name.as_bytes(), &meta).unwrap();
        }
        let name = format!("{:x<251}d{level:03}", "");
        dir = put::dir(dir.as_fd(), name.as_bytes()).unwrap();
    }
    let r = s.clone_and_clear(levels * (files + 1));
    assert_eq!((r.count("dirs"), r.count("copied_files")), (levels + 1, levels * files));
}
