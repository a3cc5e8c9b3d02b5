//! Compares the bytes of two files of the same size, holes at the speed of holes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;

/// Bytes read at a time; a smaller file is read without asking for its holes.
const CHUNK_BYTES: usize = 256 * 1024;

/// The two buffers, kept between files.
pub(super) struct Comparer {
    buf: [Vec<u8>; 2],
}

impl Comparer {
    pub fn new() -> Self {
        Self { buf: [vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]] }
    }

    /// The offset of the first chunk that differs.
    pub fn first_difference(
        &mut self,
        a: BorrowedFd<'_>,
        b: BorrowedFd<'_>,
        size: u64,
    ) -> Result<Option<u64>, Errno> {
        let mut offset = 0;
        while offset < size {
            if size > CHUNK_BYTES as u64 {
                // Before the first data of both sides both are zeros.
                let data = next_data(a, offset, size)?.min(next_data(b, offset, size)?);
                if data >= size {
                    break;
                }
                offset = data;
            }
            let want = (size - offset).min(CHUNK_BYTES as u64) as usize;
            let [x, y] = &mut self.buf;
            let n = read_full(a, &mut x[..want], offset)?;
            let m = read_full(b, &mut y[..want], offset)?;
            if x[..n] != y[..m] {
                return Ok(Some(offset));
            }
            if n == 0 {
                break;
            }
            offset += n as u64;
        }
        Ok(None)
    }
}

/// Opens a file for reading; without touching its access time where that is allowed.
pub(super) fn open(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |flags| rustix::fs::openat(dir, name, flags, Mode::empty());
    match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        other => other,
    }
}

/// The next offset that is no hole, or `size`.
fn next_data(fd: BorrowedFd<'_>, offset: u64, size: u64) -> Result<u64, Errno> {
    match rustix::fs::seek(fd.as_fd(), SeekFrom::Data(offset)) {
        Ok(at) => Ok(at),
        Err(Errno::NXIO) => Ok(size),
        // No holes known to this file system: all is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(offset),
        Err(other) => Err(other),
    }
}

fn read_full(fd: BorrowedFd<'_>, buf: &mut [u8], offset: u64) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buf.len() {
        match rustix::io::pread(fd, &mut buf[done..], offset + done as u64)? {
            0 => break,
            n => done += n,
        }
    }
    Ok(done)
}
