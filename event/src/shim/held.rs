//! Files that processes have open for writing. A process may go without closing them: it is killed, or ends by a system
//! call of its own. Then they are what they will be.

use crate::error::{Call, Error};
use rustix::event::epoll;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// So many processes are waited for by a descriptor; others are asked after, each time.
const DESCRIPTORS: usize = 256;
/// Files that are looked at in one go, to see whether they grow.
const LOOKS: usize = 1000;

/// The number of processes that have none here: those in containers with numbers of their own.
const ANY: u32 = 0;
/// After so long without a change their files are not looked at any more.
const FORGET: Duration = Duration::from_secs(600);

/// How it is seen that a process is gone.
enum Life {
    /// Nobody has looked yet.
    New,
    /// Its descriptor, which epoll(7) watches.
    Watched { _fd: OwnedFd },
    /// By asking.
    Asked,
}

struct Process {
    life: Life,
    /// Absolute paths, and whether each is an ancestor of what is meant.
    files: HashMap<Vec<u8>, Open>,
}

struct Open {
    cut: bool,
    /// Size and time of the last change when it was last looked at.
    seen: Option<(u64, i64, i64)>,
    /// When it was opened, or last seen to have changed.
    since: Instant,
}

/// Files that are open for writing, by process.
pub(crate) struct Held {
    processes: HashMap<u32, Process>,
    /// Processes that nobody has looked after yet.
    new: HashSet<u32>,
    asked: usize,
    watched: usize,
    files: usize,
    epoll: OwnedFd,
    /// Where the last looks ended.
    turn: usize,
}

impl Held {
    pub(crate) fn new() -> Result<Held, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).call("epoll_create")?;
        Ok(Held {
            processes: HashMap::new(),
            new: HashSet::new(),
            asked: 0,
            watched: 0,
            files: 0,
            epoll,
            turn: 0,
        })
    }

    /// Becomes readable when a process is gone.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// How many files are open.
    pub(crate) fn len(&self) -> usize {
        self.files
    }

    /// A process has a file open.
    pub(crate) fn open(&mut self, pid: u32, path: &[u8], cut: bool) {
        let process = self.processes.entry(pid).or_insert_with(|| {
            self.new.insert(pid);
            Process { life: Life::New, files: HashMap::new() }
        });
        if !process.files.contains_key(path) {
            process.files.insert(path.to_owned(), Open { cut, seen: None, since: Instant::now() });
            self.files += 1;
        }
    }

    /// Whether a process has a file open.
    pub(crate) fn has(&self, pid: u32, path: &[u8]) -> bool {
        self.processes.get(&pid).is_some_and(|p| p.files.contains_key(path))
    }

    /// A process has closed a file.
    pub(crate) fn closed(&mut self, pid: u32, path: &[u8]) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if process.files.remove(path).is_some() {
            self.files -= 1;
        }
        // one that is watched will likely open another
        if process.files.is_empty() && matches!(process.life, Life::New | Life::Asked) {
            self.forget(pid);
        }
    }

    fn forget(&mut self, pid: u32) -> Option<Process> {
        self.new.remove(&pid);
        let process = self.processes.remove(&pid)?;
        match process.life {
            Life::New => {}
            Life::Asked => self.asked -= 1,
            Life::Watched { .. } => self.watched -= 1,
        }
        self.files -= process.files.len();
        Some(process)
    }

    /// Something was renamed, perhaps with open files below it.
    pub(crate) fn moved(&mut self, from: &[u8], to: &[u8], is_dir: bool) {
        if self.files == 0 {
            return;
        }
        for process in self.processes.values_mut() {
            if let Some(open) = process.files.remove(from) {
                self.files -= usize::from(process.files.insert(to.to_owned(), open).is_some());
            }
            if !is_dir {
                continue;
            }
            let below = |path: &[u8]| path.strip_prefix(from).is_some_and(|rest| rest.first() == Some(&b'/'));
            let names: Vec<Vec<u8>> = process.files.keys().filter(|p| below(p)).cloned().collect();
            for name in names {
                let Some(open) = process.files.remove(&name) else { continue };
                let new = [to, name.get(from.len()..).unwrap_or_default()].concat();
                self.files -= usize::from(process.files.insert(new, open).is_some());
            }
        }
    }

    /// Looks after processes of which that is not done yet, and names the files of those that are gone: paths, and
    /// whether each is an ancestor of what is meant.
    pub(crate) fn settle(&mut self, gone: &mut dyn FnMut(&[u8], bool)) -> Result<(), Error> {
        let mut dead = Vec::new();
        for pid in std::mem::take(&mut self.new) {
            match self.follow(pid) {
                Ok(Some(life)) => {
                    match life {
                        Life::Asked => self.asked += 1,
                        Life::Watched { .. } => self.watched += 1,
                        Life::New => {}
                    }
                    if let Some(process) = self.processes.get_mut(&pid) {
                        process.life = life;
                    }
                }
                Ok(None) => dead.push(pid),
                Err(error) => return Err(error),
            }
        }
        if self.asked > 0 {
            let asked = self.processes.iter().filter(|(_, p)| matches!(p.life, Life::Asked));
            dead.extend(asked.map(|(pid, _)| *pid).filter(|pid| is_gone(*pid)));
        }
        if self.watched > 0 {
            let mut events = Vec::with_capacity(DESCRIPTORS);
            let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
            let room = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, room, Some(&now)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).call("epoll_wait"),
            }
            dead.extend(events.iter().map(|e| e.data.u64() as u32));
        }
        for pid in dead {
            for (path, open) in self.forget(pid).into_iter().flat_map(|p| p.files) {
                gone(&path, open.cut);
            }
        }
        Ok(())
    }

    /// `None`: it is gone.
    fn follow(&self, pid: u32) -> Result<Option<Life>, Error> {
        if pid == ANY {
            return Ok(Some(Life::Asked));
        }
        let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
        if self.watched >= DESCRIPTORS {
            return Ok((!is_gone(pid)).then_some(Life::Asked));
        }
        match pidfd_open(process, PidfdFlags::empty()) {
            Ok(fd) => {
                let data = epoll::EventData::new_u64(u64::from(pid));
                epoll::add(&self.epoll, &fd, data, epoll::EventFlags::IN).call("epoll_ctl")?;
                Ok(Some(Life::Watched { _fd: fd }))
            }
            Err(Errno::SRCH) => Ok(None),
            // before Linux 5.3, or too many descriptors are open
            Err(_) => Ok((!is_gone(pid)).then_some(Life::Asked)),
        }
    }

    /// Looks at open files, and names those that have changed since they were last looked at.
    pub(crate) fn look(&mut self, changed: &mut dyn FnMut(&[u8])) {
        let from = if self.turn < self.files { self.turn } else { 0 };
        self.turn = from + LOOKS;
        let all = self.processes.values_mut().flat_map(|p| p.files.iter_mut());
        for (path, open) in all.skip(from).take(LOOKS).filter(|(_, open)| !open.cut) {
            let Ok(m) = std::fs::symlink_metadata(Path::new(std::ffi::OsStr::from_bytes(path))) else {
                continue;
            };
            let now = Some((m.len(), m.ctime(), m.ctime_nsec()));
            if std::mem::replace(&mut open.seen, now) != now {
                open.since = Instant::now();
                changed(path);
            }
        }
        // it is not heard when these are closed by the end of their process
        if let Some(process) = self.processes.get_mut(&ANY) {
            let before = process.files.len();
            process.files.retain(|_, open| open.since.elapsed() < FORGET);
            self.files -= before - process.files.len();
        }
    }
}

/// Whether a process is known to be gone.
pub(crate) fn is_gone(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(Errno::SRCH))
}
