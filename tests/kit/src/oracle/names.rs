//! The names in one directory, sorted, in one block of memory: directories may hold
//! millions.

use std::os::fd::BorrowedFd;

use rustix::fs::Dir;
use rustix::io::Errno;

#[derive(Default)]
pub(super) struct Names {
    bytes: Vec<u8>,
    /// Offset and length of each name, in the order of the names.
    at: Vec<(u32, u16)>,
}

impl Names {
    /// Lists a directory without `.` and `..`.
    pub fn list(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        let mut names = Self::default();
        // A descriptor of its own: reading moves the position.
        for entry in Dir::read_from(fd)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let offset = u32::try_from(names.bytes.len()).map_err(|_| Errno::OVERFLOW)?;
                names.at.push((offset, name.len() as u16));
                names.bytes.extend_from_slice(name);
            }
        }
        let Self { bytes, at } = &mut names;
        at.sort_unstable_by_key(|&span| slice(bytes, span));
        Ok(names)
    }

    pub fn get(&self, i: usize) -> Option<&[u8]> {
        self.at.get(i).map(|&span| slice(&self.bytes, span))
    }
}

fn slice(bytes: &[u8], (offset, len): (u32, u16)) -> &[u8] {
    &bytes[offset as usize..][..len as usize]
}
