//! The copy ladder: how content gets from one open file into another.
//!
//! Small files go by one read and one write into a reused buffer, which is fastest there. Larger ones climb
//! down: a reflink of the whole file where both ends share storage; `copy_file_range`, which lets the kernel
//! or the server move the data; read and write. Holes are found with `SEEK_DATA` and kept. A rung that the
//! pair of file systems does not have is remembered as such by the caller's [`Rungs`].

use crate::error::{Error, Op, Result};
use crate::fault;
use crate::verify::Digests;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{FallocateFlags, SeekFrom, seek};
use rustix::io::Errno;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Size of the buffer for reading and writing.
pub const BUFFER_BYTES: usize = 256 << 10;

/// Most that is asked of `copy_file_range` at once: often enough to show progress, to obey limits and to stop,
/// seldom enough to cost nothing.
const STEP_BYTES: u64 = 8 << 20;

/// Files from this size on get their space reserved first: they come to lie in one piece, and a full file
/// system is found out at once. Up to 30 % faster where it was measured (tmpfs, ext4); nothing for small ones.
const RESERVE_FROM_BYTES: u64 = 4 << 20;

/// Files smaller than this are not reflinked: a read and a write of what is in the page cache are cheaper
/// than the journal transaction of a clone.
const REFLINK_FROM_BYTES: u64 = 256 << 10;

/// What the pair of file systems can do, learnt by trying; shared by all threads of a job.
#[derive(Debug, Default)]
pub struct Rungs {
    no_reflink: AtomicBool,
    no_copy_range: AtomicBool,
}

/// How a copy went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// All of it.
    Whole,
    /// The source ended before its size: it is being changed.
    Shrunk,
    /// The meter said to stop.
    Stopped,
}

/// Told of each step of a copy. May wait (to keep to a limit); answers whether to go on.
pub trait Meter {
    /// So many bytes are about to be copied.
    fn step(&mut self, bytes: u64) -> bool;

    /// The most that one step may be, so that a limit is kept evenly.
    fn largest_step(&self) -> u64 {
        STEP_BYTES
    }
}

/// How to copy.
pub struct How<'a> {
    /// What was learnt of the pair of file systems.
    pub rungs: &'a Rungs,
    /// The source may have holes, and they are to be kept.
    pub holes: bool,
    /// The digests to keep of what was read, for reading back. Keeps data in user space.
    pub digests: Option<&'a mut Digests>,
    /// A buffer of [`BUFFER_BYTES`].
    pub buf: &'a mut [u8],
}

/// Copies a whole file of the given size into an empty one.
pub fn copy_file(
    src: BorrowedFd<'_>,
    dst: BorrowedFd<'_>,
    size: u64,
    how: How<'_>,
    meter: &mut impl Meter,
) -> Result<Copied> {
    if size == 0 {
        return Ok(Copied::Whole);
    }
    if size <= how.buf.len() as u64 && !how.holes && how.digests.is_none() {
        return copy_small(src, dst, size as usize, how.buf, meter);
    }
    if size >= REFLINK_FROM_BYTES && how.digests.is_none() && !how.rungs.no_reflink.load(Relaxed) {
        match fault::gate("ficlone").and_then(|()| rustix::fs::ioctl_ficlone(dst, src)) {
            Ok(()) => {
                // a source that was shortened meanwhile is found out by looking at it again, as always
                return Ok(if meter.step(size) { Copied::Whole } else { Copied::Stopped });
            }
            Err(Errno::XDEV | Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS) => {
                how.rungs.no_reflink.store(true, Relaxed);
            }
            // this file cannot be cloned (its attributes differ, it is in use as swap, ...): copy it
            Err(Errno::INVAL | Errno::TXTBSY | Errno::PERM) => {}
            Err(e) => return Err(e).op("ficlone"),
        }
    }
    if how.holes {
        // first: XFS allocates ahead of a write that extends the file, and would fill the holes
        fault::gate("ftruncate").and_then(|()| rustix::fs::ftruncate(dst, size)).op("ftruncate")?;
    } else if size >= RESERVE_FROM_BYTES {
        reserve(&dst, size)?;
    }
    copy_range(src, dst, 0, size, how, meter)
}

fn copy_small(
    src: BorrowedFd<'_>,
    dst: BorrowedFd<'_>,
    size: usize,
    buf: &mut [u8],
    meter: &mut impl Meter,
) -> Result<Copied> {
    if !meter.step(size as u64) {
        return Ok(Copied::Stopped);
    }
    let mut have = 0;
    while have < size {
        match read(src, &mut buf[have..size])? {
            0 => return Ok(Copied::Shrunk),
            n => have += n,
        }
    }
    let mut done = 0;
    while done < size {
        done += write(dst, &buf[done..size])?;
    }
    Ok(Copied::Whole)
}

/// Copies a range between files at the same offset. Where the source may have holes the target must have its
/// size already, and be empty.
pub fn copy_range(
    src: BorrowedFd<'_>,
    dst: BorrowedFd<'_>,
    offset: u64,
    len: u64,
    mut how: How<'_>,
    meter: &mut impl Meter,
) -> Result<Copied> {
    let (mut at, end) = (offset, offset + len);
    while at < end {
        let stop = if how.holes {
            match next_data(src, at, end)? {
                None => return Ok(Copied::Whole),
                Some((from, to)) => {
                    at = from;
                    to
                }
            }
        } else {
            end
        };
        while at < stop {
            let step = (stop - at).min(STEP_BYTES).min(meter.largest_step());
            if !meter.step(step) {
                return Ok(Copied::Stopped);
            }
            let n = copy_step(src, dst, at, step, &mut how)?;
            if n == 0 {
                return Ok(Copied::Shrunk);
            }
            at += n;
        }
    }
    Ok(Copied::Whole)
}

/// Copies at most `len` bytes at `at`; 0: the source has ended.
fn copy_step(src: BorrowedFd<'_>, dst: BorrowedFd<'_>, at: u64, len: u64, how: &mut How<'_>) -> Result<u64> {
    if how.digests.is_none() && !how.rungs.no_copy_range.load(Relaxed) {
        let (mut from, mut to) = (at, at);
        let r = fault::gate_len("copy_file_range", len as usize)
            .and_then(|n| rustix::fs::copy_file_range(src, Some(&mut from), dst, Some(&mut to), n));
        match r {
            Err(Errno::INTR) => return copy_step(src, dst, at, len, how),
            // some file systems answer 0 for files that they make up as they are read: read them
            Ok(0) => {}
            Ok(n) => return Ok(n as u64),
            Err(Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF) => {
                how.rungs.no_copy_range.store(true, Relaxed);
            }
            Err(e) => return Err(e).op("copy_file_range"),
        }
    }
    let mut done = 0;
    while done < len {
        let want = (len - done).min(how.buf.len() as u64) as usize;
        let n = pread(src, &mut how.buf[..want], at + done)?;
        if n == 0 {
            break;
        }
        if let Some(d) = &mut how.digests {
            d.add(at + done, &how.buf[..n]);
        }
        let mut w = 0;
        while w < n {
            w += pwrite(dst, &how.buf[w..n], at + done + w as u64)?;
        }
        done += n as u64;
    }
    Ok(done)
}

/// The next range of data at or after `at` and before `end`; `None` if there is only hole.
pub fn next_data(fd: BorrowedFd<'_>, at: u64, end: u64) -> Result<Option<(u64, u64)>> {
    let from = match fault::gate("lseek").and_then(|()| seek(fd, SeekFrom::Data(at))) {
        Ok(n) => n,
        Err(Errno::NXIO) => return Ok(None),
        // a file system that cannot tell has data everywhere
        Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((at, end))),
        Err(e) => return Err(Error { op: "lseek", errno: e }),
    };
    if from >= end {
        return Ok(None);
    }
    let to = seek(fd, SeekFrom::Hole(from)).op("lseek")?;
    Ok(Some((from, to.clamp(from + 1, end))))
}

pub(crate) fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize> {
    loop {
        let r = fault::gate_len("read", buf.len()).and_then(|n| rustix::io::read(fd, &mut buf[..n]));
        match r {
            Err(Errno::INTR) => {}
            r => return r.op("read"),
        }
    }
}

pub(crate) fn pread(fd: BorrowedFd<'_>, buf: &mut [u8], at: u64) -> Result<usize> {
    loop {
        let r = fault::gate_len("read", buf.len()).and_then(|n| rustix::io::pread(fd, &mut buf[..n], at));
        match r {
            Err(Errno::INTR) => {}
            r => return r.op("read"),
        }
    }
}

fn write(fd: BorrowedFd<'_>, buf: &[u8]) -> Result<usize> {
    wrote(|| fault::gate_len("write", buf.len()).and_then(|n| rustix::io::write(fd, &buf[..n])))
}

fn pwrite(fd: BorrowedFd<'_>, buf: &[u8], at: u64) -> Result<usize> {
    wrote(|| fault::gate_len("write", buf.len()).and_then(|n| rustix::io::pwrite(fd, &buf[..n], at)))
}

fn wrote(mut call: impl FnMut() -> std::result::Result<usize, Errno>) -> Result<usize> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            // write(2) never returns 0 for a regular file; if one does, going on would never end
            Ok(0) => return Err(Error { op: "write", errno: Errno::IO }),
            r => return r.op("write"),
        }
    }
}

/// Reserves space for a file that will be written in full, which keeps it in one piece and finds a full file
/// system out at once. The size stays 0 and grows with the content: after a power failure a file must not
/// have its full size before its content. Where there is no such operation nothing is done.
pub fn reserve(fd: &impl AsFd, size: u64) -> Result<()> {
    let r =
        fault::gate("fallocate").and_then(|()| rustix::fs::fallocate(fd, FallocateFlags::KEEP_SIZE, 0, size));
    match r {
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(e) => Err(e).op("fallocate"),
    }
}

/// Whether two open files of the same size have the same content. `holes`: one of them may have some; where
/// both have a hole there is nothing to compare. `None`: the meter said to stop.
pub fn same_content(
    a: BorrowedFd<'_>,
    b: BorrowedFd<'_>,
    size: u64,
    holes: bool,
    buf: &mut [u8],
    meter: &mut impl Meter,
) -> Result<Option<bool>> {
    let half = buf.len() / 2;
    let (x, y) = buf.split_at_mut(half);
    let (mut at, mut until) = (0, if holes { 0 } else { size });
    while at < size {
        if at == until {
            let next = [next_data(a, at, size)?, next_data(b, at, size)?];
            match next.into_iter().flatten().min() {
                None => break,
                Some((from, to)) => (at, until) = (from, to),
            }
        }
        let want = (until - at).min(half as u64) as usize;
        if !meter.step(0) {
            return Ok(None);
        }
        let n = fill(a, &mut x[..want], at)?;
        let m = fill(b, &mut y[..want], at)?;
        if n != m || x[..n] != y[..m] {
            return Ok(Some(false));
        }
        if n == 0 {
            break;
        }
        at += n as u64;
    }
    Ok(Some(true))
}

pub(crate) fn fill(fd: BorrowedFd<'_>, buf: &mut [u8], at: u64) -> Result<usize> {
    let mut have = 0;
    while have < buf.len() {
        match pread(fd, &mut buf[have..], at + have as u64)? {
            0 => break,
            n => have += n,
        }
    }
    Ok(have)
}
