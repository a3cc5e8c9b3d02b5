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

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, OsStr};
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BsdFileFlags, Config, FileAttr, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, Session, TimeOrNow, WriteFlags,
};
use rustix::fs::{self as sys, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Uid};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const USAGE: &str = "\
usage: slowfs [--delay DUR] [--ttl DUR] [--threads N] [--log FILE] REAL MOUNTPOINT...

--delay DUR    how long each metadata call waits before it is done (20ms)
--ttl DUR      how long the kernel may remember names and attributes (0ms: not at all)
--threads N    calls of one mount that can be under way at once (200)
--log FILE     how many calls of each kind there were: a line with the time (s, monotonic) ten times a second";

/// An extended attribute, or a list of their names, is at most so long.
const XATTR_BYTES: usize = 1 << 16;
/// Inodes that the kernel knows are kept open: as many as a system usually lets root have.
const MOST_FILES: u64 = 1 << 20;

type Res<T> = Result<T, Errno>;

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The real tree, which all mounts share.
struct Tree {
    delay: Duration,
    /// Nothing is remembered by default. Then every call that a worker makes is one that waits, on whichever node and
    /// however often it was made before: the rate of one worker is that of its calls, and not that of a cache which
    /// is warm for one worker and cold for each of a hundred.
    ttl: Duration,
    dev: u64,
    /// By the number that the kernel knows them by, which is their own; only the root goes by 1. All that it knows is
    /// kept open, so no number is used anew while it is known.
    nodes: Mutex<HashMap<u64, Node>>,
    files: Mutex<HashMap<u64, Open>>,
    next_file: AtomicU64,
    /// Calls that were delayed, by kind.
    calls: Mutex<BTreeMap<&'static str, u64>>,
}

/// An inode that some kernel mount knows.
struct Node {
    /// `O_PATH`: good for entries of every kind.
    fd: Arc<OwnedFd>,
    /// How often it was told to the kernel, over all mounts.
    lookups: u64,
}

/// What a file handle names.
enum Open {
    File(Arc<OwnedFd>),
    Dir { fd: Arc<OwnedFd>, listing: Arc<Vec<Entry>> },
}

/// An entry of a directory.
struct Entry {
    ino: u64,
    kind: FileType,
    name: CString,
}

/// The name by which an inode can be opened, whatever became of its path.
fn by_fd(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl Tree {
    fn new(real: &Path, delay: Duration, ttl: Duration) -> Res<Tree> {
        let fd = sys::open(real, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let dev = sys::fstat(&fd)?.st_dev;
        let root = Node { fd: Arc::new(fd), lookups: 1 };
        let nodes = Mutex::new(HashMap::from([(INodeNo::ROOT.0, root)]));
        let next_file = AtomicU64::new(1);
        Ok(Tree { delay, ttl, dev, nodes, files: Mutex::default(), next_file, calls: Mutex::default() })
    }

    fn node(&self, ino: INodeNo) -> Res<Arc<OwnedFd>> {
        lock(&self.nodes).get(&ino.0).map(|n| Arc::clone(&n.fd)).ok_or(Errno::STALE)
    }

    /// Finds an entry, for the kernel to know.
    fn look_up(&self, dir: &OwnedFd, name: &OsStr) -> Res<FileAttr> {
        let fd = sys::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = sys::fstat(&fd)?;
        if stat.st_dev != self.dev {
            return Err(Errno::XDEV);
        }
        let mut nodes = lock(&self.nodes);
        nodes.entry(stat.st_ino).or_insert_with(|| Node { fd: Arc::new(fd), lookups: 0 }).lookups += 1;
        Ok(attr(&stat))
    }

    fn forget(&self, ino: INodeNo, times: u64) {
        let mut nodes = lock(&self.nodes);
        if ino != INodeNo::ROOT
            && let Some(n) = nodes.get_mut(&ino.0)
        {
            n.lookups = n.lookups.saturating_sub(times);
            if n.lookups == 0 {
                nodes.remove(&ino.0);
            }
        }
    }

    fn keep(&self, open: Open) -> FileHandle {
        let number = self.next_file.fetch_add(1, Relaxed);
        lock(&self.files).insert(number, open);
        FileHandle(number)
    }

    fn file(&self, fh: FileHandle) -> Res<Arc<OwnedFd>> {
        match lock(&self.files).get(&fh.0) {
            Some(Open::File(fd) | Open::Dir { fd, .. }) => Ok(Arc::clone(fd)),
            None => Err(Errno::BADF),
        }
    }

    fn listing(&self, fh: FileHandle) -> Res<Arc<Vec<Entry>>> {
        match lock(&self.files).get(&fh.0) {
            Some(Open::Dir { listing, .. }) => Ok(Arc::clone(listing)),
            _ => Err(Errno::BADF),
        }
    }

    fn open(&self, ino: INodeNo, flags: OpenFlags) -> Res<FileHandle> {
        Ok(self.keep(Open::File(Arc::new(reopen(&*self.node(ino)?, flags.0)?))))
    }

    fn open_dir(&self, ino: INodeNo) -> Res<FileHandle> {
        let fd = Arc::new(reopen(&*self.node(ino)?, OFlags::DIRECTORY.bits() as i32)?);
        let listing = Arc::new(list(&fd)?);
        Ok(self.keep(Open::Dir { fd, listing }))
    }

    /// Fills an answer from the `offset`th entry on.
    fn read_dir(&self, fh: FileHandle, offset: u64, reply: &mut ReplyDirectory) -> Res<()> {
        if offset == 0 {
            // begun anew: that sees what has changed
            let fresh = Arc::new(list(&*self.file(fh)?)?);
            if let Some(Open::Dir { listing, .. }) = lock(&self.files).get_mut(&fh.0) {
                *listing = fresh;
            }
        }
        for (e, next) in self.listing(fh)?.iter().skip(offset as usize).zip(offset + 1..) {
            if reply.add(INodeNo(e.ino), next, kind(e.kind), OsStr::from_bytes(e.name.to_bytes())) {
                break;
            }
        }
        Ok(())
    }

    fn set_attr(&self, ino: INodeNo, new: &NewAttr, fh: Option<FileHandle>) -> Res<FileAttr> {
        let fd = self.node(ino)?;
        if let Some(size) = new.size {
            match fh {
                Some(fh) => sys::ftruncate(&*self.file(fh)?, size)?,
                None => sys::ftruncate(reopen(&fd, OFlags::WRONLY.bits() as i32)?, size)?,
            }
        }
        if new.uid.is_some() || new.gid.is_some() {
            let (uid, gid) = (new.uid.map(Uid::from_raw), new.gid.map(Gid::from_raw));
            sys::chownat(&*fd, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = new.mode {
            sys::chmod(by_fd(&fd), Mode::from_raw_mode(mode & 0o7777))?;
        }
        if new.atime.is_some() || new.mtime.is_some() {
            let times =
                sys::Timestamps { last_access: timespec(new.atime), last_modification: timespec(new.mtime) };
            sys::utimensat(CWD, by_fd(&fd), &times, AtFlags::empty())?;
        }
        Ok(attr(&sys::fstat(&*fd)?))
    }

    fn create(&self, parent: INodeNo, name: &OsStr, mode: u32, flags: i32) -> Res<(FileAttr, FileHandle)> {
        let dir = self.node(parent)?;
        let flags = usable(flags) | OFlags::CREATE | (OFlags::from_bits_retain(flags as u32) & OFlags::EXCL);
        let fd = sys::openat(&*dir, name, flags, Mode::from_raw_mode(mode & 0o7777))?;
        let attr = self.look_up(&dir, name)?;
        Ok((attr, self.keep(Open::File(Arc::new(fd)))))
    }

    fn mknod(&self, parent: INodeNo, name: &OsStr, mode: u32, rdev: u32) -> Res<FileAttr> {
        let dir = self.node(parent)?;
        // the lower half of a device number is the kernel's short form of it
        let (kind, mode) = (FileType::from_raw_mode(mode), Mode::from_raw_mode(mode & 0o7777));
        sys::mknodat(&*dir, name, kind, mode, u64::from(rdev))?;
        self.look_up(&dir, name)
    }

    fn mkdir(&self, parent: INodeNo, name: &OsStr, mode: u32) -> Res<FileAttr> {
        let dir = self.node(parent)?;
        sys::mkdirat(&*dir, name, Mode::from_raw_mode(mode & 0o7777))?;
        self.look_up(&dir, name)
    }

    fn symlink(&self, parent: INodeNo, name: &OsStr, text: &Path) -> Res<FileAttr> {
        let dir = self.node(parent)?;
        sys::symlinkat(text, &*dir, name)?;
        self.look_up(&dir, name)
    }

    fn link(&self, ino: INodeNo, parent: INodeNo, name: &OsStr) -> Res<FileAttr> {
        let (fd, dir) = (self.node(ino)?, self.node(parent)?);
        sys::linkat(CWD, by_fd(&fd), &*dir, name, AtFlags::SYMLINK_FOLLOW)?;
        self.look_up(&dir, name)
    }

    fn rename(&self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr), flags: RenameFlags) -> Res<()> {
        let (a, b) = (self.node(from.0)?, self.node(to.0)?);
        sys::renameat_with(&*a, from.1, &*b, to.1, sys::RenameFlags::from_bits_retain(flags.bits()))
    }

    fn get_xattr(&self, ino: INodeNo, name: &OsStr) -> Res<Vec<u8>> {
        let fd = self.node(ino)?;
        let mut value = vec![0; XATTR_BYTES];
        let n = sys::getxattr(by_fd(&fd), name, &mut value[..])?;
        value.truncate(n);
        Ok(value)
    }

    fn list_xattrs(&self, ino: INodeNo) -> Res<Vec<u8>> {
        let fd = self.node(ino)?;
        let mut names = vec![0; XATTR_BYTES];
        let n = sys::listxattr(by_fd(&fd), &mut names[..])?;
        names.truncate(n);
        Ok(names)
    }
}

/// What a `setattr` changes.
struct NewAttr {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
}

/// Flags of a caller that mean something here: the kernel has seen to the others.
fn usable(flags: i32) -> OFlags {
    let kept = OFlags::RDWR | OFlags::WRONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::SYNC;
    (OFlags::from_bits_retain(flags as u32) & kept) | OFlags::CLOEXEC
}

fn reopen(fd: &OwnedFd, flags: i32) -> Res<OwnedFd> {
    sys::open(by_fd(fd), usable(flags), Mode::empty())
}

fn list(fd: &OwnedFd) -> Res<Vec<Entry>> {
    let entry = |e: Res<sys::DirEntry>| {
        e.map(|e| Entry { ino: e.ino(), kind: e.file_type(), name: CStr::to_owned(e.file_name()) })
    };
    let mut dir = Dir::read_from(fd)?;
    dir.rewind();
    dir.map(entry).collect()
}

fn kind(t: FileType) -> fuser::FileType {
    match t {
        FileType::Directory => fuser::FileType::Directory,
        FileType::Symlink => fuser::FileType::Symlink,
        FileType::Fifo => fuser::FileType::NamedPipe,
        FileType::Socket => fuser::FileType::Socket,
        FileType::CharacterDevice => fuser::FileType::CharDevice,
        FileType::BlockDevice => fuser::FileType::BlockDevice,
        _ => fuser::FileType::RegularFile,
    }
}

fn attr(s: &Stat) -> FileAttr {
    FileAttr {
        ino: INodeNo(s.st_ino),
        size: s.st_size as u64,
        blocks: s.st_blocks as u64,
        atime: time(s.st_atime, s.st_atime_nsec),
        mtime: time(s.st_mtime, s.st_mtime_nsec),
        ctime: time(s.st_ctime, s.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind: kind(FileType::from_raw_mode(s.st_mode)),
        perm: (s.st_mode & 0o7777) as u16,
        nlink: s.st_nlink as u32,
        uid: s.st_uid,
        gid: s.st_gid,
        rdev: s.st_rdev as u32,
        blksize: s.st_blksize as u32,
        flags: 0,
    }
}

fn time(sec: i64, nsec: u64) -> SystemTime {
    let whole = Duration::from_secs(sec.unsigned_abs());
    let base = if sec < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
    base + Duration::from_nanos(nsec)
}

fn timespec(t: Option<TimeOrNow>) -> Timespec {
    let (tv_sec, tv_nsec) = match t {
        None => (0, sys::UTIME_OMIT),
        Some(TimeOrNow::Now) => (0, sys::UTIME_NOW),
        Some(TimeOrNow::SpecificTime(t)) => match t.duration_since(UNIX_EPOCH) {
            Ok(d) => (d.as_secs() as i64, i64::from(d.subsec_nanos())),
            // fuser 0.18 takes the fraction of a time before 1970 for a part of how long before; so it was whole
            // seconds back from 1970, and then that fraction on
            Err(e) => (-(e.duration().as_secs() as i64), i64::from(e.duration().subsec_nanos())),
        },
    };
    Timespec { tv_sec, tv_nsec: tv_nsec as _ }
}

fn code(e: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(e.raw_os_error())
}

/// One mount of the tree.
struct Slow(Arc<Tree>);

impl Slow {
    /// The tree, after the delay of a call.
    fn wait(&self, call: &'static str) -> &Tree {
        std::thread::sleep(self.0.delay);
        *lock(&self.0.calls).entry(call).or_default() += 1;
        &self.0
    }

    fn entry(&self, found: Res<FileAttr>, reply: ReplyEntry) {
        match found {
            Ok(a) => reply.entry(&self.0.ttl, &a, Generation(0)),
            Err(e) => reply.error(code(e)),
        }
    }

    fn attr(&self, found: Res<FileAttr>, reply: ReplyAttr) {
        match found {
            Ok(a) => reply.attr(&self.0.ttl, &a),
            Err(e) => reply.error(code(e)),
        }
    }
}

fn done(result: Res<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(code(e)),
    }
}

fn opened(result: Res<FileHandle>, reply: ReplyOpen) {
    match result {
        Ok(fh) => reply.opened(fh, FopenFlags::empty()),
        Err(e) => reply.error(code(e)),
    }
}

fn bytes(result: Res<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match result {
        Ok(v) if size == 0 => reply.size(v.len() as u32),
        Ok(v) if v.len() > size as usize => reply.error(fuser::Errno::ERANGE),
        Ok(v) => reply.data(&v),
        Err(e) => reply.error(code(e)),
    }
}

impl Filesystem for Slow {
    fn init(&mut self, _: &Request, kernel: &mut KernelConfig) -> std::io::Result<()> {
        // Lookups and listings of one directory side by side; and only one question for file capabilities when a
        // file is written, not one before each write: the real file system drops them itself. A kernel without these
        // only waits more.
        for wish in [InitFlags::FUSE_PARALLEL_DIROPS, InitFlags::FUSE_HANDLE_KILLPRIV_V2] {
            let _ = kernel.add_capabilities(wish);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let tree = self.wait("lookup");
        self.entry(tree.node(parent).and_then(|dir| tree.look_up(&dir, name)), reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, times: u64) {
        self.0.forget(ino, times);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let tree = self.wait("getattr");
        self.attr(tree.node(ino).and_then(|fd| sys::fstat(&*fd)).map(|s| attr(&s)), reply);
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        fh: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let new = NewAttr { mode, uid, gid, size, atime, mtime };
        self.attr(self.wait("setattr").set_attr(ino, &new, fh), reply);
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let tree = self.wait("readlink");
        match tree.node(ino).and_then(|fd| sys::readlinkat(&*fd, c"", Vec::new())) {
            Ok(text) => reply.data(text.as_bytes()),
            Err(e) => reply.error(code(e)),
        }
    }

    fn mknod(
        &self,
        _: &Request,
        dir: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        self.entry(self.wait("mknod").mknod(dir, name, mode, rdev), reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        self.entry(self.wait("mkdir").mkdir(parent, name, mode), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let dir = self.wait("unlink").node(parent);
        done(dir.and_then(|dir| sys::unlinkat(&*dir, name, AtFlags::empty())), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let dir = self.wait("rmdir").node(parent);
        done(dir.and_then(|dir| sys::unlinkat(&*dir, name, AtFlags::REMOVEDIR)), reply);
    }

    fn symlink(&self, _: &Request, parent: INodeNo, name: &OsStr, text: &Path, reply: ReplyEntry) {
        self.entry(self.wait("symlink").symlink(parent, name, text), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        done(self.wait("rename").rename((parent, name), (new_parent, new_name), flags), reply);
    }

    fn link(&self, _: &Request, ino: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(self.wait("link").link(ino, parent, name), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        opened(self.wait("open").open(ino, flags), reply);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut buf = vec![0; size as usize];
        let mut len = 0;
        let whole = self.0.file(fh).and_then(|fd| {
            // less than was asked for means the end
            while len < buf.len() {
                match rustix::io::pread(&*fd, &mut buf[len..], offset + len as u64)? {
                    0 => break,
                    n => len += n,
                }
            }
            Ok(())
        });
        match whole {
            Ok(()) => reply.data(&buf[..len]),
            Err(e) => reply.error(code(e)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.0.file(fh).and_then(|fd| rustix::io::pwrite(&*fd, data, offset)) {
            Ok(n) => reply.written(n as u32),
            Err(e) => reply.error(code(e)),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        lock(&self.0.files).remove(&fh.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, fh: FileHandle, data: bool, reply: ReplyEmpty) {
        let fd = self.0.file(fh);
        done(fd.and_then(|fd| if data { sys::fdatasync(&*fd) } else { sys::fsync(&*fd) }), reply);
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        opened(self.wait("opendir").open_dir(ino), reply);
    }

    fn readdir(&self, _: &Request, _: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.wait("readdir").read_dir(fh, offset, &mut reply) {
            Ok(()) => reply.ok(),
            Err(e) => reply.error(code(e)),
        }
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        lock(&self.0.files).remove(&fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, request: &Request, ino: INodeNo, fh: FileHandle, data: bool, reply: ReplyEmpty) {
        self.fsync(request, ino, fh, data, reply);
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        match self.wait("statfs").node(ino).and_then(|fd| sys::fstatvfs(&*fd)) {
            Ok(s) => {
                let (bsize, frsize) = (s.f_bsize as u32, s.f_frsize as u32);
                let name = s.f_namemax as u32;
                reply.statfs(s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree, bsize, name, frsize);
            }
            Err(e) => reply.error(code(e)),
        }
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let flags = sys::XattrFlags::from_bits_retain(flags as u32);
        done(
            self.wait("setxattr").node(ino).and_then(|fd| sys::setxattr(by_fd(&fd), name, value, flags)),
            reply,
        );
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        bytes(self.wait("getxattr").get_xattr(ino, name), size, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        bytes(self.wait("listxattr").list_xattrs(ino), size, reply);
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        done(self.wait("removexattr").node(ino).and_then(|fd| sys::removexattr(by_fd(&fd), name)), reply);
    }

    fn lseek(&self, _: &Request, _: INodeNo, fh: FileHandle, from: i64, whence: i32, reply: ReplyLseek) {
        // the kernel asks for these two only
        let to = match whence {
            libc::SEEK_DATA => sys::SeekFrom::Data(from as u64),
            _ => sys::SeekFrom::Hole(from as u64),
        };
        match self.0.file(fh).and_then(|fd| sys::seek(&*fd, to)) {
            Ok(at) => reply.offset(at as i64),
            Err(e) => reply.error(code(e)),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match self.wait("create").create(parent, name, mode, flags) {
            Ok((a, fh)) => reply.created(&self.0.ttl, &a, Generation(0), fh, FopenFlags::empty()),
            Err(e) => reply.error(code(e)),
        }
    }
}

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
