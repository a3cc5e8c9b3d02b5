//! Reading a copy back from storage and comparing it with what was read from the source.

use crate::copy::fill;
use crate::error::{Op, Result};
use crate::fault;
use rustix::fd::BorrowedFd;
use rustix::fs::Advice;
use xxhash_rust::xxh3::xxh3_128;

/// Digests of what was read from the source, piece by piece: offset, length, xxh3-128.
///
/// 40 bytes for each piece of up to a copy buffer; a caller that copies very much calls [`check`] in between.
#[derive(Debug, Default)]
pub struct Digests {
    pieces: Vec<(u64, u32, u128)>,
}

impl Digests {
    /// Notes what was read at an offset.
    pub fn add(&mut self, offset: u64, data: &[u8]) {
        self.pieces.push((offset, data.len() as u32, xxh3_128(data)));
    }
}

/// Writes the file out, drops it from the page cache and reads it back. Says whether every piece is what
/// was read from the source. On tmpfs there is no storage behind the cache; there the memory is compared.
pub fn check(fd: BorrowedFd<'_>, digests: &Digests, buf: &mut [u8]) -> Result<bool> {
    fault::gate("fdatasync").and_then(|()| rustix::fs::fdatasync(fd)).op("fdatasync")?;
    rustix::fs::fadvise(fd, 0, None, Advice::DontNeed).op("fadvise")?;
    for &(at, len, digest) in &digests.pieces {
        let part = &mut buf[..len as usize];
        let n = fill(fd, part, at)?;
        if fault::gate("verify").is_err() || n != part.len() || xxh3_128(part) != digest {
            return Ok(false);
        }
    }
    Ok(true)
}
