//! Walks two trees in step and compares each pair of entries.
//!
//! A stack of frames, one for each directory on the way down. Only the deepest
//! frames keep their fds; on the way up an older one is opened again as `..` of the
//! deeper one and checked to be the same directory.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::Options;
use super::attributes::{self, Attributes};
use super::content::{self, Comparer};
use super::differences::{Class, Differences, EntryKind};
use super::links::{Inode, Links};
use super::names::Names;

/// How many of the deepest frames keep their fds (two each).
const OPEN_FRAMES: usize = 16;
/// Blocks of 512 bytes that a copy may take beyond a tenth more than its original.
const SPARSE_SLACK_BLOCKS: f64 = 64.0;

/// One directory, on one side.
struct Side {
    fd: Option<OwnedFd>,
    inode: Inode,
    names: Names,
    next: usize,
}

/// One directory, on the sides that have it.
struct Frame {
    sides: [Option<Side>; 2],
    /// Length of its path, with the slash that ends it.
    path_len: usize,
}

/// What is looked at, on one side.
struct Entry<'a> {
    dir: BorrowedFd<'a>,
    stat: Stat,
    kind: EntryKind,
}

pub(super) struct Walk<'o> {
    options: &'o Options,
    found: Differences,
    links: Links,
    link_on_both: Vec<bool>,
    compared: HashSet<[Inode; 2]>,
    comparer: Comparer,
    buf: Vec<u8>,
    path: Vec<u8>,
    frames: Vec<Frame>,
}

impl<'o> Walk<'o> {
    pub fn new(options: &'o Options) -> Self {
        Self {
            options,
            found: Differences::new(options.keep),
            links: Links::default(),
            link_on_both: Vec::new(),
            compared: HashSet::new(),
            comparer: Comparer::new(),
            buf: Vec::new(),
            path: Vec::new(),
            frames: Vec::new(),
        }
    }

    pub fn run(mut self, src: &Path, dst: &Path) -> Differences {
        let roots = [src, dst].map(|root| {
            let root = open_dir(CWD, root.as_os_str().as_bytes(), OFlags::empty());
            self.seen(root)
        });
        let [Some(a), Some(b)] = roots else {
            return self.found;
        };
        self.pair([Some(a.as_fd()), Some(b.as_fd())], b".");
        while let Some(frame) = self.frames.last_mut() {
            match next_name(&mut frame.sides) {
                Some((name, [in_a, in_b])) => {
                    self.path.truncate(frame.path_len);
                    self.path.extend_from_slice(&name);
                    // Taken out while it is worked on, for the borrow's sake.
                    let fds =
                        frame.sides.each_mut().map(|side| side.as_mut().and_then(|side| side.fd.take()));
                    let at = self.frames.len() - 1;
                    let dir =
                        |side: usize, there: bool| fds[side].as_ref().filter(|_| there).map(AsFd::as_fd);
                    self.pair([dir(0, in_a), dir(1, in_b)], &name);
                    let sides = self.frames[at].sides.iter_mut();
                    for (side, fd) in sides.zip(fds) {
                        if let Some(side) = side {
                            side.fd = fd;
                        }
                    }
                    self.close_far_frames();
                }
                None => self.leave(),
            }
        }
        self.links.report(&self.link_on_both, &mut self.found);
        self.found
    }

    /// Compares the entries called `name` in the directories that have one.
    fn pair(&mut self, dirs: [Option<BorrowedFd<'_>>; 2], name: &[u8]) {
        self.found.count_entry(dirs[0].is_some(), dirs[1].is_some());
        let sides = dirs.map(|dir| dir.and_then(|dir| self.look(dir, name)));
        self.note_links(&sides);
        match &sides {
            [Some(a), Some(b)] => {
                if a.kind == b.kind {
                    self.compare(a, b, name);
                } else {
                    let class = Class::Type(a.kind, b.kind);
                    self.found.add(class, &self.path, String::new);
                }
            }
            [Some(a), None] if dirs[1].is_none() => {
                self.found.add(Class::Missing(a.kind), &self.path, String::new);
            }
            [None, Some(_)] if dirs[0].is_none() => {
                self.found.add(Class::Extra, &self.path, String::new);
            }
            // One side could not be looked at: that is reported already.
            _ => {}
        }
        self.enter(sides, name);
    }

    fn look<'a>(&mut self, dir: BorrowedFd<'a>, name: &[u8]) -> Option<Entry<'a>> {
        let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = self.seen(stat)?;
        let kind = FileType::from_raw_mode(stat.st_mode).into();
        Some(Entry { dir, stat, kind })
    }

    fn note_links(&mut self, sides: &[Option<Entry<'_>>; 2]) {
        let inodes = sides.each_ref().map(|side| {
            let entry = side.as_ref()?;
            let linked = entry.kind != EntryKind::Dir && entry.stat.st_nlink > 1;
            linked.then(|| inode(&entry.stat))
        });
        if inodes.iter().any(Option::is_some) {
            self.links.note(&self.path, inodes);
            self.link_on_both.push(sides.iter().all(Option::is_some));
        }
    }

    /// Pushes a frame if the entry is a directory on any side.
    fn enter(&mut self, sides: [Option<Entry<'_>>; 2], name: &[u8]) {
        let sides = sides.map(|side| {
            let entry = side.filter(|entry| entry.kind == EntryKind::Dir)?;
            let fd = self.seen(open_dir(entry.dir, name, OFlags::NOFOLLOW))?;
            let names = self.seen(Names::list(fd.as_fd()))?;
            Some(Side { fd: Some(fd), inode: inode(&entry.stat), names, next: 0 })
        });
        if sides.iter().any(Option::is_some) {
            if !self.frames.is_empty() {
                self.path.push(b'/');
            }
            let path_len = self.path.len();
            self.frames.push(Frame { sides, path_len });
        }
    }

    fn close_far_frames(&mut self) {
        let Some(far) = self.frames.len().checked_sub(OPEN_FRAMES + 1) else {
            return;
        };
        // Without a directory below it there would be no way back.
        let below = self.frames[far + 1].sides.each_ref().map(Option::is_some);
        for (side, below) in self.frames[far].sides.iter_mut().zip(below) {
            if let (Some(side), true) = (side, below) {
                side.fd = None;
            }
        }
    }

    /// Drops the deepest frame and opens its parent again if that was closed.
    fn leave(&mut self) {
        let Some(done) = self.frames.pop() else {
            return;
        };
        let Some(mut parent) = self.frames.pop() else {
            return;
        };
        for (up, down) in parent.sides.iter_mut().zip(&done.sides) {
            let Some(up) = up else { continue };
            if up.fd.is_some() {
                continue;
            }
            let opened = match down.as_ref().and_then(|side| side.fd.as_ref()) {
                Some(fd) => open_dir(fd.as_fd(), b"..", OFlags::NOFOLLOW),
                None => Err(Errno::STALE),
            };
            let same = opened.and_then(|fd| match rustix::fs::fstat(&fd) {
                Ok(stat) if inode(&stat) == up.inode => Ok(fd),
                Ok(_) => Err(Errno::STALE),
                Err(errno) => Err(errno),
            });
            up.fd = self.seen(same);
        }
        self.frames.push(parent);
    }

    /// Compares two entries of the same kind in everything but their children.
    fn compare(&mut self, a: &Entry<'_>, b: &Entry<'_>, name: &[u8]) {
        let kind = a.kind;
        let is_link = kind == EntryKind::Symlink;
        let (s, t) = (&a.stat, &b.stat);
        if s.st_mode != t.st_mode {
            let class = match kind {
                EntryKind::Dir => Class::ModeDir,
                _ => Class::Mode,
            };
            self.differ(class, || format!("{:o} -> {:o}", s.st_mode, t.st_mode));
        }
        if s.st_uid != t.st_uid {
            let class = if is_link { Class::UidSymlink } else { Class::Uid };
            self.differ(class, || format!("{} -> {}", s.st_uid, t.st_uid));
        }
        if s.st_gid != t.st_gid {
            let class = if is_link { Class::GidSymlink } else { Class::Gid };
            self.differ(class, || format!("{} -> {}", s.st_gid, t.st_gid));
        }
        let (x, y) = (mtime_ns(s), mtime_ns(t));
        if x != y {
            let of = match kind {
                EntryKind::File | EntryKind::Dir | EntryKind::Symlink => kind,
                _ => EntryKind::Unknown,
            };
            let close = (x - y).abs() < 1_000_000_000;
            self.differ(Class::Mtime { of, close }, || format!("{x} -> {y} ns"));
        }
        match kind {
            EntryKind::File => self.compare_files(a, b, name),
            EntryKind::Symlink => {
                let texts = [a, b].map(|side| {
                    let text = rustix::fs::readlinkat(side.dir, name, Vec::new());
                    self.seen(text)
                });
                if let [Some(x), Some(y)] = &texts
                    && x != y
                {
                    self.differ(Class::TargetOrRdev, || format!("{x:?} -> {y:?}"));
                }
            }
            EntryKind::CharDevice | EntryKind::BlockDevice if s.st_rdev != t.st_rdev => {
                self.differ(Class::TargetOrRdev, || format!("{:#x} -> {:#x}", s.st_rdev, t.st_rdev));
            }
            _ => {}
        }
        self.compare_attributes(a, b, name);
    }

    fn compare_files(&mut self, a: &Entry<'_>, b: &Entry<'_>, name: &[u8]) {
        let (s, t) = (&a.stat, &b.stat);
        if self.options.atime && (s.st_atime, s.st_atime_nsec) != (t.st_atime, t.st_atime_nsec) {
            self.differ(Class::Atime, || format!("{} -> {}", s.st_atime, t.st_atime));
        }
        if s.st_size != t.st_size {
            self.differ(Class::Size, || format!("{} -> {}", s.st_size, t.st_size));
        } else if let Some(offset) = self.content_differs(a, b, name) {
            self.differ(Class::Content, || format!("near byte {offset}"));
        } else if t.st_blocks as f64 > s.st_blocks as f64 * 1.1 + SPARSE_SLACK_BLOCKS {
            self.differ(Class::SparseLost, || format!("{} -> {} blocks", s.st_blocks, t.st_blocks));
        }
    }

    /// Where the contents begin to differ; hard-linked pairs are read once.
    fn content_differs(&mut self, a: &Entry<'_>, b: &Entry<'_>, name: &[u8]) -> Option<u64> {
        let key = [inode(&a.stat), inode(&b.stat)];
        let linked = a.stat.st_nlink > 1 && b.stat.st_nlink > 1;
        if a.stat.st_size == 0 || linked && self.compared.contains(&key) {
            return None;
        }
        let x = self.seen(content::open(a.dir, name))?;
        let y = self.seen(content::open(b.dir, name))?;
        let size = a.stat.st_size as u64;
        let result = self.comparer.first_difference(x.as_fd(), y.as_fd(), size);
        let differs = self.seen(result)?;
        if linked && differs.is_none() {
            self.compared.insert(key);
        }
        differs
    }

    fn compare_attributes(&mut self, a: &Entry<'_>, b: &Entry<'_>, name: &[u8]) {
        let read = [a, b].map(|side| attributes::read(side.dir, name, &mut self.buf));
        let [x, y] = read.map(|all: Result<Attributes, _>| self.seen(all));
        if let [Some(x), Some(y)] = [x, y] {
            for (class, key) in attributes::differing(&x, &y) {
                self.differ(class, || String::from_utf8_lossy(key).into_owned());
            }
        }
    }

    fn differ(&mut self, class: Class, detail: impl FnOnce() -> String) {
        self.found.add(class, &self.path, detail);
    }

    /// The value, or nothing and a difference that says why.
    fn seen<T>(&mut self, result: Result<T, Errno>) -> Option<T> {
        result.map_err(|errno| self.differ(Class::Unreadable, || errno.to_string())).ok()
    }
}

fn open_dir(dir: BorrowedFd<'_>, name: &[u8], also: OFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | also;
    rustix::fs::openat(dir, name, flags, Mode::empty())
}

/// The next name in order, and which sides have it.
fn next_name(sides: &mut [Option<Side>; 2]) -> Option<(Vec<u8>, [bool; 2])> {
    let [a, b] = sides.each_ref().map(|side| {
        let side = side.as_ref()?;
        side.names.get(side.next)
    });
    let (name, there) = match (a, b) {
        (None, None) => return None,
        (Some(a), None) => (a, [true, false]),
        (None, Some(b)) => (b, [false, true]),
        (Some(a), Some(b)) => match a.cmp(b) {
            Ordering::Less => (a, [true, false]),
            Ordering::Greater => (b, [false, true]),
            Ordering::Equal => (a, [true, true]),
        },
    };
    let name = name.to_vec();
    for (side, there) in sides.iter_mut().zip(there) {
        if let (Some(side), true) = (side, there) {
            side.next += 1;
        }
    }
    Some((name, there))
}

fn inode(stat: &Stat) -> Inode {
    (stat.st_dev as _, stat.st_ino as _)
}

fn mtime_ns(stat: &Stat) -> i128 {
    i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec)
}
