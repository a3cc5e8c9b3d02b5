//! The file of a ring: opened or made, and ours alone to read.

use crate::error::Error;
use crate::sys::Mapping;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FallocateFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags, Stat};
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use treeferry_ring::{Bad, MARK, Ring, bytes_for, slots_in};

/// Slots of a ring that is made: 16 MiB, about a second of all that eight busy cores can tell.
const SLOTS: usize = 1 << 16;
/// How often it is tried again when somebody else makes or removes the file meanwhile.
const ATTEMPTS: usize = 10;

/// The ring that is read if none is named: `/run/treeferry/shim.ring` for root, else one in `$XDG_RUNTIME_DIR`. `None`:
/// there is no such directory.
pub fn default_ring() -> Option<PathBuf> {
    if rustix::process::geteuid().is_root() {
        return Some(PathBuf::from("/run/treeferry/shim.ring"));
    }
    let dir = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").filter(|d| !d.is_empty())?);
    Some(dir.join("treeferry-shim.ring"))
}

/// A ring that is open, and locked: nobody else reads it.
pub(crate) struct File {
    path: PathBuf,
    map: Mapping,
    identity: (u64, u64),
    /// Holds the lock.
    _fd: OwnedFd,
}

/// How a ring came to be.
#[derive(PartialEq, Eq)]
pub(crate) enum Came {
    /// It was there.
    Found,
    /// There was none.
    Made,
    /// What was there was no ring.
    Replaced(Bad),
}

/// Whether a file is empty, or has the mark of a ring of some version, at its end or (before version 3) at its beginning.
fn was_ring(fd: &OwnedFd, stat: &Stat) -> bool {
    let Some(last) = u64::try_from(stat.st_size).ok().filter(|n| *n > 0) else { return true };
    [0, last.saturating_sub(8)].into_iter().any(|at| {
        let mut mark = [0; 8];
        matches!(rustix::io::pread(fd, &mut mark, at), Ok(8)) && u64::from_ne_bytes(mark) == MARK
    })
}

impl File {
    /// Opens the ring at a path, or makes it. What is there and was never a ring is left alone.
    pub(crate) fn open(path: &Path) -> Result<(File, Came), Error> {
        make_directory(path);
        for _ in 0..ATTEMPTS {
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let fd = match rustix::fs::openat(CWD, path, flags, Mode::empty()) {
                Ok(fd) => fd,
                Err(Errno::NOENT) => match File::make(path, RenameFlags::NOREPLACE) {
                    Ok(file) => return Ok((file, Came::Made)),
                    Err(Errno::EXIST) => continue,
                    Err(errno) => return Err(bad(path, errno)),
                },
                Err(Errno::LOOP) => return Err(refuse(path, "it is a symlink")),
                Err(errno) => return Err(bad(path, errno)),
            };
            let stat = rustix::fs::fstat(&fd).map_err(|e| bad(path, e))?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                return Err(refuse(path, "it is no regular file"));
            }
            if stat.st_uid != 0 && stat.st_uid != rustix::process::geteuid().as_raw() {
                return Err(refuse(
                    path,
                    "it belongs to another user: remove it, or name another with --ring",
                ));
            }
            lock(path, &fd)?;
            if !is_at(path, identity(&stat)) {
                continue;
            }
            let was_ring = was_ring(&fd, &stat);
            return match File::take(path, fd, &stat) {
                Ok(file) => Ok((file, Came::Found)),
                Err(Taken::Failed(errno)) => Err(bad(path, errno)),
                // somebody else's file, named by mistake
                Err(Taken::Bad(why)) if !was_ring && default_ring().is_none_or(|d| d != path) => {
                    Err(refuse(path, &format!("{why}: remove it, or name another with --ring")))
                }
                Err(Taken::Bad(why)) => match File::make(path, RenameFlags::empty()) {
                    Ok(file) => Ok((file, Came::Replaced(why))),
                    Err(errno) => Err(bad(path, errno)),
                },
            };
        }
        Err(refuse(path, "somebody else makes and removes it again and again"))
    }

    fn take(path: &Path, fd: OwnedFd, stat: &Stat) -> Result<File, Taken> {
        let length = usize::try_from(stat.st_size).unwrap_or(0);
        slots_in(length).ok_or(Taken::Bad(Bad::Size))?;
        let map = Mapping::new(fd.as_fd(), length).map_err(Taken::Failed)?;
        let checked = Ring::open(map.words()).and_then(|ring| {
            // whoever has it mapped finds the new one by this
            ring.check_positions().inspect_err(|_| ring.replace())
        });
        checked.map_err(Taken::Bad)?;
        Ok(File { path: path.to_owned(), map, identity: identity(stat), _fd: fd })
    }

    /// Makes a ring under another name first, so that nobody sees half of one.
    fn make(path: &Path, how: RenameFlags) -> Result<File, Errno> {
        let name = path.file_name().ok_or(Errno::ISDIR)?.to_string_lossy();
        let unfinished = path.with_file_name(format!(".{name}.{}", std::process::id()));
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(CWD, &unfinished, flags, Mode::RUSR | Mode::WUSR) {
            // of a process that had our number and was killed
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(CWD, &unfinished, AtFlags::empty())?;
                rustix::fs::openat(CWD, &unfinished, flags, Mode::RUSR | Mode::WUSR)?
            }
            other => other?,
        };
        let made = File::format(path, fd).and_then(|file| {
            rustix::fs::renameat_with(CWD, &unfinished, CWD, path, how)?;
            Ok(file)
        });
        if made.is_err() {
            // there is nothing in it; the error is that which is told
            let _ = rustix::fs::unlinkat(CWD, &unfinished, AtFlags::empty());
        }
        made
    }

    fn format(path: &Path, fd: OwnedFd) -> Result<File, Errno> {
        let bytes = bytes_for(SLOTS);
        rustix::fs::ftruncate(&fd, bytes as u64)?;
        // a writer must never find that there is no room in the file system
        rustix::fs::fallocate(&fd, FallocateFlags::empty(), 0, bytes as u64)?;
        if rustix::process::geteuid().is_root() {
            rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o666))?;
        }
        rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
        let map = Mapping::new(fd.as_fd(), bytes)?;
        Ring::format(map.words(), now(), namespace()).map_err(|_| Errno::INVAL)?;
        let identity = identity(&rustix::fs::fstat(&fd)?);
        Ok(File { path: path.to_owned(), map, identity, _fd: fd })
    }

    /// The ring.
    pub(crate) fn ring(&self) -> Option<Ring<'_>> {
        Ring::again(self.map.words())
    }

    /// How long ago it was made. The clock may have been set since; if it says that this will be, it was just now.
    pub(crate) fn age(&self) -> Duration {
        let made = self.ring().map_or(0, |r| r.generation());
        Duration::from_nanos(now().saturating_sub(made))
    }

    /// Whether it still has its name.
    pub(crate) fn is_there(&self) -> bool {
        is_at(&self.path, self.identity)
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Nanoseconds since 1970: what tells a ring from others at its path.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos() as u64
}

enum Taken {
    Bad(Bad),
    Failed(Errno),
}

/// The directory of the default ring is made by whoever comes first; of others it is not known what they are to be.
fn make_directory(path: &Path) {
    if let Some(dir) = path.parent().filter(|d| *d == Path::new("/run/treeferry")) {
        // if it fails, so does what comes next, and says why
        let _ = rustix::fs::mkdirat(CWD, dir, Mode::from_raw_mode(0o755));
    }
}

fn lock(path: &Path, fd: &OwnedFd) -> Result<(), Error> {
    match rustix::fs::flock(fd, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(refuse(
            path,
            "another process reads it: name another with --ring, here and in TREEFERRY_SHIM",
        )),
        Err(errno) => Err(bad(path, errno)),
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn is_at(path: &Path, known: (u64, u64)) -> bool {
    rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|s| identity(&s) == known)
}

/// In which namespace this process knows others by number; 0: that cannot be found out.
pub(crate) fn namespace() -> u64 {
    rustix::fs::statat(CWD, "/proc/self/ns/pid", AtFlags::empty()).map_or(0, |s| s.st_ino)
}

fn refuse(path: &Path, why: &str) -> Error {
    Error::Ring { path: path.to_owned(), why: why.to_owned() }
}

fn bad(path: &Path, errno: Errno) -> Error {
    refuse(path, &errno.to_string())
}
