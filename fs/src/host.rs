//! What this machine gives to a process: kernel, limits, memory, the user name space.

use crate::sys;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// What there is to know of this machine before any tree is looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The name of the node.
    pub name: String,
    /// Release of the kernel.
    pub kernel: String,
    /// Has openat2(2) (Linux 5.6), and lets us call it.
    pub openat2: bool,
    /// statx(2) tells mounts from each other (Linux 5.8).
    pub mount_ids: bool,
    /// Has listxattrat(2) and its kin (Linux 6.13).
    pub xattrat: bool,
    /// `/proc` is there.
    pub proc: bool,
    /// Most files that we may have open; `None`: no limit. (The soft limit is raised to it.)
    pub open_files: Option<u64>,
    /// Most processes and threads of our user; `None`: no limit.
    pub processes: Option<u64>,
    /// Files open on the whole machine, and how many may be.
    pub all_files: Option<(u64, u64)>,
    /// Threads on the whole machine, and how many may be.
    pub all_threads: Option<(u64, u64)>,
    /// Bytes of memory in all.
    pub memory: u64,
    /// Bytes of memory that a new process can have without swapping, its control groups considered.
    pub free_memory: u64,
    /// User ids that our user name space knows; `None`: it is the machine's own, and knows all.
    pub mapped_ids: Option<u64>,
    /// Cores that we may use.
    pub cores: usize,
}

impl Host {
    /// Asks kernel and `/proc`.
    pub fn look() -> Host {
        let uname = rustix::system::uname();
        let name = uname.nodename().to_string_lossy().into_owned();
        let kernel = uname.release().to_string_lossy().into_owned();
        let read = |p: &str| std::fs::read_to_string(p).unwrap_or_default();
        let number = |p: &str| read(p).trim().parse::<u64>().ok();
        let open = read("/proc/sys/fs/file-nr");
        let open = open.split_whitespace().next().and_then(|n| n.parse().ok());
        let files = open.zip(number("/proc/sys/fs/file-max"));
        let threads = threads(&read("/proc/loadavg")).zip(number("/proc/sys/kernel/threads-max"));
        let meminfo = read("/proc/meminfo");
        let free = kib(&meminfo, "MemAvailable:").unwrap_or(0);
        Host {
            name,
            kernel,
            openat2: openat2(),
            mount_ids: mount_ids(),
            xattrat: xattrat(),
            proc: std::fs::exists("/proc/self/fd").unwrap_or(false),
            open_files: getrlimit(Resource::Nofile).maximum,
            processes: getrlimit(Resource::Nproc).current,
            all_files: files,
            all_threads: threads,
            memory: kib(&meminfo, "MemTotal:").unwrap_or(0),
            free_memory: left_in_group(&read("/proc/self/cgroup")).map_or(free, |left| left.min(free)),
            mapped_ids: mapped_ids(&read("/proc/self/uid_map")),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
        }
    }
}

fn openat2() -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, c"/", flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).is_ok()
}

fn mount_ids() -> bool {
    let root = rustix::fs::openat(CWD, c"/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    root.is_ok_and(|fd| crate::root::mount_of(rustix::fd::AsFd::as_fd(&fd)).is_some())
}

fn xattrat() -> bool {
    !matches!(sys::listxattrat(CWD, c"/", &mut []), Err(Errno::NOSYS | Errno::PERM))
}

/// The second number of the fourth field of `/proc/loadavg` (proc_loadavg(5)): threads that exist.
fn threads(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// A line of `/proc/meminfo`, in bytes.
fn kib(meminfo: &str, key: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|l| l.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// What the control groups (version 2) of this process leave it: the least of all that it lies in.
fn left_in_group(cgroup: &str) -> Option<u64> {
    let mut path = cgroup.lines().find_map(|l| l.strip_prefix("0::"))?.trim_end().trim_end_matches('/');
    let number = |file: &str, path: &str| {
        let text = std::fs::read_to_string(format!("/sys/fs/cgroup{path}/{file}")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let mut least: Option<u64> = None;
    loop {
        if let (Some(most), Some(used)) = (number("memory.max", path), number("memory.current", path)) {
            let left = most.saturating_sub(used);
            least = Some(least.map_or(left, |l| l.min(left)));
        }
        match path.rsplit_once('/') {
            Some((up, _)) => path = up,
            None => return least,
        }
    }
}

/// How many ids a user name space knows (user_namespaces(7)); `None`: all of them, as only the first one does.
fn mapped_ids(uid_map: &str) -> Option<u64> {
    const ALL: u64 = u32::MAX as u64;
    let length = |l: &str| l.split_whitespace().nth(2).and_then(|n| n.parse::<u64>().ok());
    let sum = uid_map.lines().filter_map(length).sum();
    (!uid_map.is_empty() && sum < ALL).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_proc_are_understood() {
        assert_eq!(threads("0.20 0.18 0.12 1/80 11206\n"), Some(80));
        assert_eq!(threads("nonsense"), None);
        let meminfo = "MemTotal:  1000 kB\nMemFree: 5 kB\nMemAvailable:   7 kB\n";
        assert_eq!((kib(meminfo, "MemTotal:"), kib(meminfo, "MemAvailable:")), (Some(1_024_000), Some(7168)));
        assert_eq!(kib(meminfo, "SwapTotal:"), None);
        assert_eq!(mapped_ids("         0          0 4294967295\n"), None);
        assert_eq!(mapped_ids("0 1000 1\n"), Some(1));
        assert_eq!(mapped_ids("0 1000 1\n1 100000 65536\n"), Some(65537));
        assert_eq!(mapped_ids(""), None);
        assert_eq!(left_in_group("12:cpu:/x\n"), None);
    }

    #[test]
    fn this_machine_has_what_every_machine_has() {
        let h = Host::look();
        assert!(!h.name.is_empty() && !h.kernel.is_empty() && h.proc && h.cores > 0, "{h:?}");
        assert!(h.memory > 0 && h.free_memory > 0 && h.free_memory <= h.memory, "{h:?}");
        assert!(h.all_files.is_some_and(|(n, most)| n <= most), "{h:?}");
        assert!(h.all_threads.is_some_and(|(n, most)| n > 0 && n <= most), "{h:?}");
    }
}
