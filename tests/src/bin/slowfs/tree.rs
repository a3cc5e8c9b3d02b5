//! The real tree: what each call does to it.

use fuser::{FileAttr, FileHandle, INodeNo, OpenFlags, RenameFlags, ReplyDirectory, TimeOrNow};
use rustix::fs::{self as sys, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Uid};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An extended attribute, or a list of their names, is at most so long.
const XATTR_BYTES: usize = 1 << 16;

pub type Res<T> = Result<T, Errno>;

pub fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The real tree, which all mounts share.
pub struct Tree {
    pub delay: Duration,
    /// Nothing is remembered by default. Then every call that a worker makes is one that waits, on whichever node and
    /// however often it was made before: the rate of one worker is that of its calls, and not that of a cache which
    /// is warm for one worker and cold for each of a hundred.
    pub ttl: Duration,
    pub dev: u64,
    /// By the number that the kernel knows them by, which is their own; only the root goes by 1. All that it knows is
    /// kept open, so no number is used anew while it is known.
    nodes: Mutex<HashMap<u64, Node>>,
    files: Mutex<HashMap<u64, Open>>,
    next_file: AtomicU64,
    /// Calls that were delayed, by kind.
    pub calls: Mutex<BTreeMap<&'static str, u64>>,
}

/// An inode that some kernel mount knows.
pub struct Node {
    /// `O_PATH`: good for entries of every kind.
    fd: Arc<OwnedFd>,
    /// How often it was told to the kernel, over all mounts.
    lookups: u64,
}

/// What a file handle names.
pub enum Open {
    File(Arc<OwnedFd>),
    Dir { fd: Arc<OwnedFd>, listing: Arc<Vec<Entry>> },
}

/// An entry of a directory.
pub struct Entry {
    pub ino: u64,
    pub kind: FileType,
    pub name: CString,
}

/// The name by which an inode can be opened, whatever became of its path.
pub fn by_fd(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

impl Tree {
    pub fn new(real: &Path, delay: Duration, ttl: Duration) -> Res<Tree> {
        let fd = sys::open(real, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let dev = sys::fstat(&fd)?.st_dev;
        let root = Node { fd: Arc::new(fd), lookups: 1 };
        let nodes = Mutex::new(HashMap::from([(INodeNo::ROOT.0, root)]));
        let next_file = AtomicU64::new(1);
        Ok(Tree { delay, ttl, dev, nodes, files: Mutex::default(), next_file, calls: Mutex::default() })
    }

    pub fn node(&self, ino: INodeNo) -> Res<Arc<OwnedFd>> {
        lock(&self.nodes).get(&ino.0).map(|n| Arc::clone(&n.fd)).ok_or(Errno::STALE)
    }

    /// Finds an entry, for the kernel to know.
    pub fn look_up(&self, dir: &OwnedFd, name: &OsStr) -> Res<FileAttr> {
        let fd = sys::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let stat = sys::fstat(&fd)?;
        if stat.st_dev != self.dev {
            return Err(Errno::XDEV);
        }
        let mut nodes = lock(&self.nodes);
        nodes.entry(stat.st_ino).or_insert_with(|| Node { fd: Arc::new(fd), lookups: 0 }).lookups += 1;
        Ok(attr(&stat))
    }

    pub fn forget(&self, ino: INodeNo, times: u64) {
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

    pub fn keep(&self, open: Open) -> FileHandle {
        let number = self.next_file.fetch_add(1, Relaxed);
        lock(&self.files).insert(number, open);
        FileHandle(number)
    }

    pub fn close(&self, fh: FileHandle) {
        lock(&self.files).remove(&fh.0);
    }

    pub fn file(&self, fh: FileHandle) -> Res<Arc<OwnedFd>> {
        match lock(&self.files).get(&fh.0) {
            Some(Open::File(fd) | Open::Dir { fd, .. }) => Ok(Arc::clone(fd)),
            None => Err(Errno::BADF),
        }
    }

    pub fn listing(&self, fh: FileHandle) -> Res<Arc<Vec<Entry>>> {
        match lock(&self.files).get(&fh.0) {
            Some(Open::Dir { listing, .. }) => Ok(Arc::clone(listing)),
            _ => Err(Errno::BADF),
        }
    }

    pub fn open(&self, ino: INodeNo, flags: OpenFlags) -> Res<FileHandle> {
        Ok(self.keep(Open::File(Arc::new(reopen(&*self.node(ino)?, flags.0)?))))
    }

    pub fn open_dir(&self, ino: INodeNo) -> Res<FileHandle> {
        let fd = Arc::new(reopen(&*self.node(ino)?, OFlags::DIRECTORY.bits() as i32)?);
        let listing = Arc::new(list(&fd)?);
        Ok(self.keep(Open::Dir { fd, listing }))
    }

    /// Fills an answer from the `offset`th entry on.
    pub fn read_dir(&self, fh: FileHandle, offset: u64, reply: &mut ReplyDirectory) -> Res<()> {
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

    pub fn set_attr(&self, ino: INodeNo, new: &NewAttr, fh: Option<FileHandle>) -> Res<FileAttr> {
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

    pub fn create(
        &self,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        flags: i32,
    ) -> Res<(FileAttr, FileHandle)> {
        let dir = self.node(parent)?;
        let flags = usable(flags) | OFlags::CREATE | (OFlags::from_bits_retain(flags as u32) & OFlags::EXCL);
        let fd = sys::openat(&*dir, name, flags, Mode::from_raw_mode(mode & 0o7777))?;
        let attr = self.look_up(&dir, name)?;
        Ok((attr, self.keep(Open::File(Arc::new(fd)))))
    }

    pub fn mknod(&self, parent: INodeNo, name: &OsStr, mode: u32, rdev: u32) -> Res<FileAttr> {
        let dir = self.node(parent)?;
        // the lower half of a device number is the kernel's short form of it
        let (kind, mode) = (FileType::from_raw_mode(mode), Mode::from_raw_mode(mode & 0o7777));
        sys::mknodat(&*dir, name, kind, mode, u64::from(rdev))?;
        self.look_up(&dir, name)
    }

    pub fn mkdir(&self, parent: INodeNo, name: &OsStr, mode: u32) -> Res<FileAttr> {
        let dir = self.node(parent)?;
        sys::mkdirat(&*dir, name, Mode::from_raw_mode(mode & 0o7777))?;
        self.look_up(&dir, name)
    }

    pub fn symlink(&self, parent: INodeNo, name: &OsStr, text: &Path) -> Res<FileAttr> {
        let dir = self.node(parent)?;
        sys::symlinkat(text, &*dir, name)?;
        self.look_up(&dir, name)
    }

    pub fn link(&self, ino: INodeNo, parent: INodeNo, name: &OsStr) -> Res<FileAttr> {
        let (fd, dir) = (self.node(ino)?, self.node(parent)?);
        sys::linkat(CWD, by_fd(&fd), &*dir, name, AtFlags::SYMLINK_FOLLOW)?;
        self.look_up(&dir, name)
    }

    pub fn rename(&self, from: (INodeNo, &OsStr), to: (INodeNo, &OsStr), flags: RenameFlags) -> Res<()> {
        let (a, b) = (self.node(from.0)?, self.node(to.0)?);
        sys::renameat_with(&*a, from.1, &*b, to.1, sys::RenameFlags::from_bits_retain(flags.bits()))
    }

    pub fn get_xattr(&self, ino: INodeNo, name: &OsStr) -> Res<Vec<u8>> {
        let fd = self.node(ino)?;
        let mut value = vec![0; XATTR_BYTES];
        let n = sys::getxattr(by_fd(&fd), name, &mut value[..])?;
        value.truncate(n);
        Ok(value)
    }

    pub fn list_xattrs(&self, ino: INodeNo) -> Res<Vec<u8>> {
        let fd = self.node(ino)?;
        let mut names = vec![0; XATTR_BYTES];
        let n = sys::listxattr(by_fd(&fd), &mut names[..])?;
        names.truncate(n);
        Ok(names)
    }
}

/// What a `setattr` changes.
pub struct NewAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<TimeOrNow>,
    pub mtime: Option<TimeOrNow>,
}

/// Flags of a caller that mean something here: the kernel has seen to the others.
pub fn usable(flags: i32) -> OFlags {
    let kept = OFlags::RDWR | OFlags::WRONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::SYNC;
    (OFlags::from_bits_retain(flags as u32) & kept) | OFlags::CLOEXEC
}

pub fn reopen(fd: &OwnedFd, flags: i32) -> Res<OwnedFd> {
    sys::open(by_fd(fd), usable(flags), Mode::empty())
}

pub fn list(fd: &OwnedFd) -> Res<Vec<Entry>> {
    let entry = |e: Res<sys::DirEntry>| {
        e.map(|e| Entry { ino: e.ino(), kind: e.file_type(), name: CStr::to_owned(e.file_name()) })
    };
    let mut dir = Dir::read_from(fd)?;
    dir.rewind();
    dir.map(entry).collect()
}

pub fn kind(t: FileType) -> fuser::FileType {
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

pub fn attr(s: &Stat) -> FileAttr {
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

pub fn time(sec: i64, nsec: u64) -> SystemTime {
    let whole = Duration::from_secs(sec.unsigned_abs());
    let base = if sec < 0 { UNIX_EPOCH - whole } else { UNIX_EPOCH + whole };
    base + Duration::from_nanos(nsec)
}

pub fn timespec(t: Option<TimeOrNow>) -> Timespec {
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

pub fn code(e: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(e.raw_os_error())
}
