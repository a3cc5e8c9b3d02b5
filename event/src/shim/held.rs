//! Files that processes have open for writing, and under which names. A process may go without closing them: it is
//! killed, or ends by a system call of its own. Then they are what they will be. And it closes them by their numbers
//! alone: that costs it nothing, and renames made meanwhile are known here.

use crate::error::{Call, Error};
use crate::wake::is_ready;
use rustix::event::{PollFlags, epoll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::{HashMap, HashSet, VecDeque};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};
use treeferry_ring::id_of;

/// So many processes are waited for by a descriptor; others are asked after, each time.
const DESCRIPTORS: usize = 256;
/// Files that are looked at in one go, to see whether they grow.
const LOOKS: usize = 1000;

/// The number of processes that have none here: those in containers with numbers of their own.
const ANY: u32 = 0;
/// After so long without a change their files are not looked at any more.
const FORGET: Duration = Duration::from_secs(600);
/// So many files are remembered after they were closed, or renamed, and so many processes after they are gone. What is told
/// just then may come a moment later, and speak of what was before.
const RECENT: usize = 256;
/// For so long a rename is remembered: what comes late speaks of what was before, and one may be told before another that was
/// made earlier.
const LATE: Duration = Duration::from_secs(2);
/// Names of one open file.
const MOST_NAMES: usize = 8;

/// How it is seen that a process is gone.
enum Life {
    /// Nobody has looked yet.
    New,
    /// Its descriptor, which epoll(7) watches.
    Watched { _fd: OwnedFd },
    /// By asking.
    Asked,
}

/// A name that an open file may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    /// An absolute path.
    pub(crate) path: Vec<u8>,
    /// It is an ancestor of what is meant.
    pub(crate) cut: bool,
}

struct Process {
    life: Life,
    /// By their numbers ([`treeferry_ring::id_of`]).
    files: HashMap<u64, Open>,
}

struct Open {
    /// Those by which it was opened, or was renamed since. Where it is not sure which it has all are here: who looks in vain does no
    /// harm.
    names: Vec<Name>,
    /// Size and time of the last change when it was last looked at.
    seen: Option<(u64, i64, i64)>,
    /// When it was opened, or last seen to have changed.
    since: Instant,
}

/// Something was renamed, perhaps with open files below it.
#[derive(Debug)]
pub(crate) struct Rename {
    /// Its path before,
    pub(crate) from: Vec<u8>,
    /// and after.
    pub(crate) to: Vec<u8>,
    /// These are ancestors of what is meant.
    pub(crate) cut: bool,
    /// It is a directory.
    pub(crate) is_dir: bool,
    /// Which file it is; 0: not known.
    pub(crate) id: u64,
}

impl Rename {
    /// Whether it can have been that of a file.
    fn is_of(&self, id: u64) -> bool {
        self.is_dir || self.id == 0 || self.id == id
    }

    /// What a file is called by it, that had this name.
    fn after(&self, name: &Name) -> Option<Name> {
        let rest = name.path.strip_prefix(&self.from[..])?;
        let is_it = rest.is_empty();
        if !is_it && (rest.first() != Some(&b'/') || !(self.is_dir || self.cut)) {
            return None;
        }
        Some(match self.cut {
            true => Name { path: self.to.clone(), cut: true },
            false => Name { path: [&self.to[..], rest].concat(), cut: name.cut },
        })
    }

    /// Adds what a file may be called by it.
    fn apply(&self, names: &mut Vec<Name>) {
        let new: Vec<Name> = names.iter().filter_map(|n| self.after(n)).collect();
        new.into_iter().for_each(|n| add(names, n));
    }

    /// The names before, of which no file has one any more.
    fn end(&self, names: &mut Vec<Name>) {
        names.retain(|n| self.after(n).is_none());
    }

    /// Whether this, and one before, are the two halves of an exchange, or there and back again.
    fn reverses(&self, before: &Rename) -> bool {
        (&self.from, &self.to) == (&before.to, &before.from)
    }
}

fn add(names: &mut Vec<Name>, name: Name) {
    if names.contains(&name) {
        return;
    }
    if names.len() >= MOST_NAMES {
        names.remove(0);
    }
    names.push(name);
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
    /// What was closed last.
    recent: VecDeque<(u64, Vec<Name>)>,
    /// What was renamed last, and when that was heard.
    renamed: VecDeque<(Instant, Rename)>,
    /// Processes that were gone last, with what they had open: one that was forked from them may not have said so yet.
    departed: VecDeque<(u32, HashMap<u64, Open>)>,
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
            recent: VecDeque::new(),
            renamed: VecDeque::new(),
            departed: VecDeque::new(),
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

    fn process(&mut self, pid: u32) -> &mut Process {
        self.processes.entry(pid).or_insert_with(|| {
            self.new.insert(pid);
            Process { life: Life::New, files: HashMap::new() }
        })
    }

    /// A process has a file open.
    pub(crate) fn open(&mut self, pid: u32, id: u64, path: &[u8], cut: bool) {
        let mut names = vec![Name { path: path.to_owned(), cut }];
        // it was found out before a rename where it is, and told after that
        self.follow_names(id, &mut names);
        let mut added = 0;
        let open = self.process(pid).files.entry(id).or_insert_with(|| {
            added = 1;
            Open { names: Vec::with_capacity(1), seen: None, since: Instant::now() }
        });
        names.into_iter().for_each(|name| add(&mut open.names, name));
        self.files += added;
    }

    fn forget_late(&mut self) {
        while self.renamed.front().is_some_and(|(at, _)| at.elapsed() > LATE) {
            self.renamed.pop_front();
        }
    }

    /// Adds what the names of a file have become lately.
    fn follow_names(&mut self, id: u64, names: &mut Vec<Name>) {
        self.forget_late();
        for (_, rename) in self.renamed.iter().filter(|(_, r)| r.is_of(id)) {
            rename.apply(names);
        }
    }

    /// A process has open what another had open when it was forked from that.
    pub(crate) fn forked(&mut self, child: u32, parent: u32) {
        let departed = || self.departed.iter().rev().find(|(pid, _)| *pid == parent).map(|(_, files)| files);
        let Some(files) = self.processes.get(&parent).map(|p| &p.files).or_else(departed) else { return };
        let files: Vec<(u64, Vec<Name>)> = files.iter().map(|(id, f)| (*id, f.names.clone())).collect();
        for (id, names) in files {
            names.iter().for_each(|n| self.open(child, id, &n.path, n.cut));
        }
    }

    /// Whether a process has a file open.
    pub(crate) fn has(&self, pid: u32, id: u64) -> bool {
        self.processes.get(&pid).is_some_and(|p| p.files.contains_key(&id))
    }

    /// The names of a file that a process has open; or if that is not known, those by which it is open elsewhere, or was
    /// until a moment ago.
    pub(crate) fn names(&self, pid: u32, id: u64) -> Option<&[Name]> {
        let own = self.processes.get(&pid).and_then(|p| p.files.get(&id));
        let other = || self.processes.values().find_map(|p| p.files.get(&id));
        let departed = || self.departed.iter().rev().find_map(|(_, files)| files.get(&id));
        let recent = || self.recent.iter().rev().find(|(of, _)| *of == id).map(|(_, names)| names.as_slice());
        own.or_else(other).or_else(departed).map(|f| f.names.as_slice()).or_else(recent)
    }

    /// A process has closed a file.
    pub(crate) fn closed(&mut self, pid: u32, id: u64) {
        let Some(process) = self.processes.get_mut(&pid) else { return };
        if let Some(open) = process.files.remove(&id) {
            self.files -= 1;
            keep(&mut self.recent, (id, open.names));
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

    /// Something was renamed.
    pub(crate) fn moved(&mut self, rename: Rename) {
        self.forget_late();
        let Held { processes, files, recent, departed, renamed, .. } = self;
        // those that were told before: this one may have been made before them
        let before = || renamed.iter().map(|(_, r)| r);
        let is_sure = !rename.cut && !before().any(|r| rename.reverses(r));
        let follow = |id: u64, names: &mut Vec<Name>| {
            let mut new: Vec<Name> = names.iter().filter_map(|n| rename.after(n)).collect();
            if !rename.is_of(id) || new.is_empty() {
                return;
            }
            before().filter(|r| r.is_of(id)).for_each(|r| r.apply(&mut new));
            if is_sure {
                rename.end(names);
            }
            new.into_iter().for_each(|n| add(names, n));
        };
        for (id, names) in recent {
            follow(*id, names);
        }
        let departed = departed.iter_mut().flat_map(|(_, files)| files.iter_mut());
        departed.for_each(|(id, open)| follow(*id, &mut open.names));
        let is_known = !rename.is_dir && rename.id != 0;
        for process in processes.values_mut().filter(|_| *files > 0) {
            match process.files.get_mut(&rename.id).filter(|_| is_known) {
                Some(open) => follow(rename.id, &mut open.names),
                None if is_known => {}
                None => process.files.iter_mut().for_each(|(id, open)| follow(*id, &mut open.names)),
            }
        }
        keep(&mut self.renamed, (Instant::now(), rename));
    }

    /// Names all files, also those that processes had open which are gone: one that was forked from them may have them.
    /// Paths, and whether each is an ancestor of what is meant.
    pub(crate) fn all(&self, name: &mut dyn FnMut(&[u8], bool)) {
        let departed = self.departed.iter().flat_map(|(_, files)| files.values());
        let open = self.processes.values().flat_map(|p| p.files.values()).chain(departed);
        open.flat_map(|f| &f.names).for_each(|n| name(&n.path, n.cut));
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
            let Some(process) = self.forget(pid).filter(|p| !p.files.is_empty()) else { continue };
            for name in process.files.values().flat_map(|f| &f.names) {
                gone(&name.path, name.cut);
            }
            keep(&mut self.departed, (pid, process.files));
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
        for (id, open) in all.skip(from).take(LOOKS) {
            let found = |n: &Name| {
                let path = Path::new(std::ffi::OsStr::from_bytes(&n.path));
                std::fs::symlink_metadata(path).ok().filter(|m| id_of(m.dev(), m.ino()) == *id)
            };
            let mut now = None;
            let mut has = Vec::with_capacity(open.names.len());
            for n in &open.names {
                let there = if n.cut { None } else { found(n) };
                has.push(n.cut || there.is_some());
                now = now.or(there.map(|m| (m.len(), m.ctime(), m.ctime_nsec())));
            }
            if now.is_some() {
                // the others are names of something else, or of nothing
                let mut has = has.into_iter();
                open.names.retain(|_| has.next().unwrap_or(true));
            }
            if now.is_some() && now != open.seen {
                open.names.iter().filter(|n| !n.cut).for_each(|n| changed(&n.path));
                (open.seen, open.since) = (now, Instant::now());
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

/// Keeps the last ones.
fn keep<T>(all: &mut VecDeque<T>, last: T) {
    if all.len() >= RECENT {
        all.pop_front();
    }
    all.push_back(last);
}

/// Whether a process is known to be gone, or waits for nothing but its parent to ask how it ended.
pub(crate) fn is_gone(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(fd) => is_ready(fd.as_fd(), PollFlags::IN),
        Err(Errno::SRCH) => true,
        // before Linux 5.3, or too many descriptors are open
        Err(_) => rustix::process::test_kill_process(pid) == Err(Errno::SRCH),
    }
}
