//! One thread: takes tasks, walks directories, works on their files.

use std::collections::HashSet;
use std::ffi::{CStr, CString};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{AtFlags, FallocateFlags, FileType, Gid, Mode, OFlags, RawDir, Uid};
use rustix::io::Errno;

use crate::config::{Command, Config, Publish, Times, When};
use crate::copy::{BLOCK_BYTES, copy_range, copy_small, finish_meta, publish, times_of};
use crate::handles::{Big, Dir};
use crate::queue::{Names, Queue, Task};
use crate::sys::{self, CWD, die, must};

/// Room for directory entries, in bytes.
const ENTRIES_BYTES: usize = 128 << 10;
/// Larger files are tasks of their own, so that the threads share them out.
const OWN_TASK_BYTES: u64 = 1 << 20;

const READ: i32 = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
const READ_DIR: i32 = READ | libc::O_DIRECTORY;
const WRITE: i32 = libc::O_WRONLY | libc::O_CLOEXEC;
const WRITE_NEW: i32 = WRITE | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;

/// What was done.
#[derive(Clone, Copy, Default)]
pub struct Totals {
    pub files: u64,
    pub bytes: u64,
    pub differ: u64,
    pub dirs: u64,
}

pub struct Worker<'q> {
    config: &'static Config,
    queue: &'q Queue,
    id: usize,
    /// Whole blocks are at `buf[aligned..]`.
    buf: Vec<u8>,
    aligned: usize,
    entries: Vec<MaybeUninit<u8>>,
    totals: Totals,
    temporary: u64,
}

impl<'q> Worker<'q> {
    pub fn new(config: &'static Config, queue: &'q Queue, id: usize) -> Self {
        let buf = vec![0; config.buf_bytes + BLOCK_BYTES];
        let aligned = buf.as_ptr().align_offset(BLOCK_BYTES);
        Self {
            config,
            queue,
            id,
            buf,
            aligned,
            entries: vec![MaybeUninit::uninit(); ENTRIES_BYTES],
            totals: Totals::default(),
            temporary: 0,
        }
    }

    /// Works until nothing is left, and adds what was done to `totals`.
    pub fn run(mut self, totals: &Mutex<Totals>) {
        while let Some(task) = self.queue.pop() {
            match task {
                Task::Dir { parent, name, target } => self.scan(parent, name, target),
                Task::Files(dir, names) => self.files(&dir, names),
                Task::Chunk(big, from, to) => {
                    let (source, target) = (big.source.as_fd(), big.target.as_fd());
                    copy_range(self.config, self.buf(), source, target, from, to);
                }
            }
            self.queue.done();
        }
        let mut sum = totals.lock().unwrap_or_else(PoisonError::into_inner);
        sum.files += self.totals.files;
        sum.bytes += self.totals.bytes;
        sum.differ += self.totals.differ;
        sum.dirs += self.totals.dirs;
    }

    fn buf(&mut self) -> &mut [u8] {
        &mut self.buf[self.aligned..][..self.config.buf_bytes]
    }

    /// Opens a directory on both sides, and makes tasks of what is in it.
    fn scan(&mut self, parent: Option<Arc<Dir>>, name: CString, target_name: CString) {
        let command = self.config.command;
        let (up, up_target) = match parent.as_ref() {
            None => (CWD, CWD),
            Some(dir) => (dir.source.as_fd(), dir.target.as_ref().map_or(CWD, AsFd::as_fd)),
        };
        let open = |dir, name: &CStr| must(sys::openat(dir, name, READ_DIR, 0), "open directory", name);
        let source = open(up, &name);
        let stat = (command != Command::Rm).then(|| must(sys::fstat(source.as_fd()), "fstat", &name));
        let target = match command {
            Command::Clone => {
                let made = rustix::fs::mkdirat(up_target, &target_name, Mode::RWXU);
                must(made, "mkdir", &target_name);
                Some(open(up_target, &target_name))
            }
            Command::Noop => Some(open(up_target, &target_name)),
            Command::Walk | Command::Read | Command::Rm => None,
        };
        self.totals.dirs += 1;
        // A clone needs the parent no more: its metadata may be set early.
        let parent = parent.filter(|_| command == Command::Rm);
        let dir = Arc::new(Dir { config: self.config, source, target, stat, parent, name });

        let mut files = Names::default();
        let mut links = Names::default();
        let mut subdirs: Vec<CString> = Vec::new();
        let mut listing = RawDir::new(&dir.source, &mut self.entries);
        while let Some(entry) = listing.next() {
            let entry = must(entry, "getdents64", &dir.name);
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            match entry.file_type() {
                FileType::Directory => subdirs.push(name.to_owned()),
                FileType::Symlink if command == Command::Clone => links.push(entry.ino(), name),
                FileType::RegularFile => files.push(entry.ino(), name),
                _ if command == Command::Read => {}
                _ if command == Command::Clone => eprintln!("kit-limit: left out {name:?}"),
                _ => files.push(entry.ino(), name),
            }
            if files.len() >= self.config.batch {
                self.queue.push(Task::Files(Arc::clone(&dir), mem::take(&mut files)));
            }
        }
        if let (Command::Noop, Some(target)) = (command, &dir.target) {
            self.list_target(target, &subdirs);
        }
        for name in subdirs {
            self.queue.push(Task::Dir { parent: Some(Arc::clone(&dir)), target: name.clone(), name });
        }
        for name in links.iter() {
            self.clone_symlink(&dir, name);
        }
        self.files(&dir, files);
    }

    /// Lists the target too, as a tool that may delete must do.
    fn list_target(&mut self, target: &OwnedFd, subdirs: &[CString]) {
        let mut seen: HashSet<Vec<u8>> = HashSet::new();
        let mut listing = RawDir::new(target, &mut self.entries);
        while let Some(Ok(entry)) = listing.next() {
            seen.insert(entry.file_name().to_bytes().to_vec());
        }
        let missing = subdirs.iter().filter(|name| !seen.contains(name.as_bytes()));
        self.totals.differ += missing.count() as u64;
    }

    fn files(&mut self, dir: &Arc<Dir>, mut names: Names) {
        if self.config.sort {
            names.sort_by_inode();
        }
        for name in names.iter() {
            self.totals.files += 1;
            match self.config.command {
                Command::Clone => self.clone_file(dir, name),
                Command::Noop | Command::Walk => self.compare_file(dir, name),
                Command::Read => self.read_file(dir, name),
                Command::Rm => {
                    must(sys::unlinkat(dir.source.as_fd(), name, 0), "unlink", name);
                }
            }
        }
    }

    fn read_file(&mut self, dir: &Dir, name: &CStr) {
        let file = must(sys::openat(dir.source.as_fd(), name, READ, 0), "open", name);
        while let Ok(n @ 1..) = sys::read(file.as_fd(), self.buf()) {
            self.totals.bytes += n as u64;
        }
    }

    fn compare_file(&mut self, dir: &Dir, name: &CStr) {
        let stat = |fd: &OwnedFd| sys::statat(fd.as_fd(), name);
        let a = must(stat(&dir.source), "stat", name);
        let Some(target) = &dir.target else {
            self.totals.bytes += a.st_size as u64;
            return;
        };
        let same = stat(target).is_ok_and(|b| {
            a.st_size == b.st_size
                && a.st_mode == b.st_mode
                && a.st_uid == b.st_uid
                && a.st_gid == b.st_gid
                && a.st_mtime == b.st_mtime
                && a.st_mtime_nsec == b.st_mtime_nsec
        });
        self.totals.differ += u64::from(!same);
        if self.config.xattr {
            let mut list = [0; 4096];
            for fd in [&dir.source, target] {
                match sys::listxattrat(fd.as_fd(), name, &mut list) {
                    Ok(_) | Err(Errno::NOTSUP) => {}
                    Err(errno) => die("listxattrat", name, errno),
                }
            }
        }
    }

    fn clone_symlink(&mut self, dir: &Dir, name: &CStr) {
        let Some(target) = &dir.target else { return };
        let text = must(rustix::fs::readlinkat(&dir.source, name, Vec::new()), "readlink", name);
        let stat = must(sys::statat(dir.source.as_fd(), name), "stat", name);
        must(rustix::fs::symlinkat(&text, target, name), "symlink", name);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if self.config.chown != When::Never {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            must(rustix::fs::chownat(target, name, Some(uid), Some(gid), flags), "chown", name);
        }
        if self.config.times != Times::Never {
            must(rustix::fs::utimensat(target, name, &times_of(&stat), flags), "utimensat", name);
        }
        self.totals.files += 1;
    }

    fn clone_file(&mut self, dir: &Arc<Dir>, name: &CStr) {
        let config = self.config;
        let Some(target_dir) = &dir.target else { return };
        let stat_before = config.stat_by_path.then(|| {
            let stat = sys::statat(dir.source.as_fd(), name);
            must(stat, "stat", name)
        });
        let source = must(sys::openat(dir.source.as_fd(), name, READ, 0), "open", name);
        let stat = stat_before.unwrap_or_else(|| must(sys::fstat(source.as_fd()), "fstat", name));
        let temporary = self.temporary_name();
        let target_name = temporary.as_deref().unwrap_or(name);
        let mode = match config.chmod {
            When::Needed => stat.st_mode & 0o7777,
            When::Always | When::Never => 0o600,
        };
        let create =
            |name: &CStr, flags| must(sys::openat(target_dir.as_fd(), name, flags, mode), "create", name);
        let target = match config.publish {
            Publish::Tmpfile => create(c".", WRITE | libc::O_TMPFILE),
            Publish::Mknod => {
                let made = rustix::fs::mknodat(
                    target_dir,
                    target_name,
                    FileType::RegularFile,
                    Mode::from_raw_mode(mode),
                    0,
                );
                must(made, "mknod", name);
                create(target_name, WRITE | libc::O_NOFOLLOW)
            }
            Publish::Direct | Publish::Rename => create(target_name, WRITE_NEW),
        };
        let size = stat.st_size as u64;
        if size > config.chunk_bytes || size > OWN_TASK_BYTES {
            self.totals.bytes += size;
            let (dir, name) = (Arc::clone(dir), name.to_owned());
            return self.clone_big(Big { dir, source, target, stat, temporary, name });
        }
        let (from, to) = (source.as_fd(), target.as_fd());
        self.totals.bytes += copy_small(config, self.buf(), from, to, size, name);
        finish_meta(config, from, to, &stat, false);
        publish(config, target_dir.as_fd(), to, temporary.as_deref(), name);
        if config.times == Times::ByPath {
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            must(rustix::fs::utimensat(target_dir, name, &times_of(&stat), flags), "utimensat", name);
        }
    }

    fn temporary_name(&mut self) -> Option<CString> {
        if self.config.publish != Publish::Rename {
            return None;
        }
        self.temporary += 1;
        CString::new(format!(".t{}.{}", self.id, self.temporary)).ok()
    }

    /// Cuts a big file into tasks.
    fn clone_big(&mut self, big: Big) {
        let (size, chunk) = (big.stat.st_size as u64, self.config.chunk_bytes);
        if self.config.direct {
            for fd in [&big.source, &big.target] {
                must(rustix::fs::fcntl_setfl(fd, OFlags::DIRECT), "O_DIRECT", c"(data)");
            }
        }
        if self.config.falloc {
            // Where it is not supported the copy goes without.
            let _ = rustix::fs::fallocate(&big.target, FallocateFlags::empty(), 0, size);
        }
        let big = Arc::new(big);
        for i in (0..size.div_ceil(chunk)).rev() {
            let end = (i + 1).saturating_mul(chunk).min(size);
            self.queue.push(Task::Chunk(Arc::clone(&big), i * chunk, end));
        }
    }
}
