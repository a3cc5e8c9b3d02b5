//! Messages that the broker does not take, in a file: first in, first out. The file has no name, so nothing of it is left
//! when the process ends; what was in it then is missed by its numbers.

use std::fs::File;
use std::io::{self, Error, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use treeferry_core::JobId;

/// The file.
pub struct Spool {
    dir: PathBuf,
    mirror: JobId,
    most: u64,
    file: Option<File>,
    begin: u64,
    end: u64,
}

impl Spool {
    /// Whether there can be one in a directory.
    pub fn try_in(dir: &Path) -> io::Result<()> {
        unnamed(dir).map(drop)
    }

    /// In a directory, for a mirror; at most so many bytes.
    pub fn new(dir: &Path, mirror: JobId, most: u64) -> Spool {
        Spool { dir: dir.to_owned(), mirror, most, file: None, begin: 0, end: 0 }
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.begin == self.end
    }

    /// Forgets all that is in it.
    pub fn clear(&mut self) {
        (self.file, self.begin, self.end) = (None, 0, 0);
    }

    /// Puts a message into it.
    pub fn put(&mut self, body: &[u8]) -> io::Result<()> {
        let len = body.len() as u64;
        if self.end + 8 + len > self.most {
            return Err(Error::new(
                ErrorKind::StorageFull,
                format!("the spool is full ({} bytes)", self.most),
            ));
        }
        let file = match &self.file {
            Some(f) => f,
            None => {
                let file = unnamed(&self.dir)?;
                tracing::warn!(mirror = %self.mirror, "the broker takes nothing: what changes goes to {}", self.dir.display());
                self.file.insert(file)
            }
        };
        file.write_all_at(&len.to_le_bytes(), self.end)?;
        file.write_all_at(body, self.end + 8)?;
        self.end += 8 + len;
        Ok(())
    }

    /// Takes the oldest message out of it.
    pub fn take(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = self.file.as_ref().filter(|_| !self.is_empty()) else { return Ok(None) };
        let mut len = [0; 8];
        file.read_exact_at(&mut len, self.begin)?;
        let len = u64::from_le_bytes(len);
        if len > self.end - self.begin {
            return Err(ErrorKind::InvalidData.into());
        }
        let mut body = vec![0; len as usize];
        file.read_exact_at(&mut body, self.begin + 8)?;
        self.begin += 8 + len;
        if self.is_empty() {
            self.clear();
        }
        Ok(Some(body))
    }
}

/// A file without a name; where the file system has none, one whose name is removed at once.
fn unnamed(dir: &Path) -> io::Result<File> {
    let mut open = File::options();
    open.read(true).write(true).mode(0o600);
    let flags = |f: rustix::fs::OFlags| i32::try_from(f.bits()).unwrap_or(0);
    if let Ok(f) = open.clone().custom_flags(flags(rustix::fs::OFlags::TMPFILE)).open(dir) {
        return Ok(f);
    }
    let path = dir.join(format!(".treeferry-spool-{}", std::process::id()));
    let f = open.create_new(true).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_taken_in_order_and_no_more_than_fits() {
        let dir = std::env::temp_dir();
        let mut s = Spool::new(&dir, JobId(1), 1000);
        assert!(s.is_empty() && s.take().unwrap().is_none());
        for n in 0..3u8 {
            s.put(&vec![n; 100 * usize::from(n)]).unwrap();
        }
        assert!(s.put(&[0; 700]).is_err(), "it is full");
        assert_eq!(s.take().unwrap().unwrap(), [0; 0]);
        assert_eq!(s.take().unwrap().unwrap(), [1; 100]);
        s.put(b"x").unwrap();
        assert_eq!(s.take().unwrap().unwrap(), [2; 200]);
        assert_eq!(s.take().unwrap().unwrap(), b"x");
        assert!(s.is_empty() && s.file.is_none());
        s.put(&[9; 900]).unwrap();
        s.clear();
        assert!(s.take().unwrap().is_none());
        assert!(Spool::new(Path::new("/nonexistent"), JobId(1), 9).put(b"").is_err());
    }
}
