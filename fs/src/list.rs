//! Listing a directory as a stream, through one reused buffer.

use crate::error::{Op, Result};
use crate::fault;
use crate::meta::Kind;
use rustix::fd::BorrowedFd;
use rustix::fs::RawDir;
use rustix::io::Errno;
use std::ffi::CStr;
use std::mem::MaybeUninit;

/// Bytes asked from getdents64(2) at once. 64 KiB hold about 1500 names; more gains nothing measurable.
const BUFFER_BYTES: usize = 64 << 10;

/// A reusable listing buffer; one for each thread and side.
#[derive(Debug)]
pub struct Lister {
    buf: Vec<MaybeUninit<u8>>,
}

impl Default for Lister {
    fn default() -> Self {
        Lister { buf: vec![MaybeUninit::uninit(); BUFFER_BYTES] }
    }
}

impl Lister {
    /// Calls `each` for every entry but `.` and `..`, with name, inode number and kind as far as the file
    /// system tells. Only a listing that returns `Ok(true)` was complete; `Ok(false)`: `each` ended it.
    pub fn list(
        &mut self,
        dir: BorrowedFd<'_>,
        mut each: impl FnMut(&CStr, u64, Kind) -> bool,
    ) -> Result<bool> {
        let mut entries = RawDir::new(dir, &mut self.buf);
        loop {
            if entries.is_buffer_empty() {
                match fault::gate("getdents64") {
                    Err(Errno::INTR) => continue,
                    r => r.op("getdents64")?,
                }
            }
            match entries.next() {
                None => return Ok(true),
                Some(Err(Errno::INTR)) => {}
                Some(Err(e)) => return Err(e).op("getdents64"),
                Some(Ok(e)) => {
                    let name = e.file_name();
                    if name == c"." || name == c".." {
                        continue;
                    }
                    if !each(name, e.ino(), Kind::of(e.file_type())) {
                        return Ok(false);
                    }
                }
            }
        }
    }
}
