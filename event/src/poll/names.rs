//! The names of a directory in order, however many there are: what is too much for memory is sorted in runs on disk.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

/// So much of names is sorted in memory, in bytes.
pub const RUN_BYTES: usize = 16 << 20;
/// What a name takes besides itself, in bytes.
const OVERHEAD: usize = 32;

/// Takes names in any order.
pub struct Sorter<'a> {
    names: Vec<Vec<u8>>,
    bytes: usize,
    most: usize,
    runs: Vec<File>,
    make: &'a dyn Fn() -> io::Result<File>,
}

impl<'a> Sorter<'a> {
    /// `most`: bytes of a run; `make`: makes an empty file without a name.
    pub fn new(most: usize, make: &'a dyn Fn() -> io::Result<File>) -> Sorter<'a> {
        Sorter { names: Vec::new(), bytes: 0, most, runs: Vec::new(), make }
    }

    /// Takes one.
    pub fn add(&mut self, name: &[u8]) -> io::Result<()> {
        self.bytes += name.len() + OVERHEAD;
        self.names.push(name.to_vec());
        if self.bytes >= self.most {
            self.spill()?;
        }
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        self.names.sort_unstable();
        let mut out = BufWriter::new((self.make)()?);
        for n in self.names.drain(..) {
            // no name is longer than 255 bytes on Linux; two bytes say how long it is
            let length = u16::try_from(n.len()).map_err(io::Error::other)?;
            out.write_all(&length.to_le_bytes())?;
            out.write_all(&n)?;
        }
        let mut file = out.into_inner().map_err(|e| e.into_error())?;
        file.rewind()?;
        self.runs.push(file);
        self.bytes = 0;
        Ok(())
    }

    /// All of them in order, each once.
    pub fn sorted(mut self) -> io::Result<Sorted> {
        self.names.sort_unstable();
        let mut runs: Vec<Run> = vec![Run::Memory(std::mem::take(&mut self.names).into_iter())];
        runs.extend(self.runs.drain(..).map(|f| Run::Disk(BufReader::new(f))));
        let mut heads = BinaryHeap::new();
        for (i, run) in runs.iter_mut().enumerate() {
            heads.extend(run.next()?.map(|n| Reverse((n, i))));
        }
        Ok(Sorted { runs, heads, last: None })
    }
}

enum Run {
    Memory(std::vec::IntoIter<Vec<u8>>),
    Disk(BufReader<File>),
}

impl Run {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self {
            Run::Memory(names) => Ok(names.next()),
            Run::Disk(file) => {
                let mut length = [0; 2];
                match file.read_exact(&mut length) {
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                    r => r?,
                }
                let mut name = vec![0; usize::from(u16::from_le_bytes(length))];
                file.read_exact(&mut name)?;
                Ok(Some(name))
            }
        }
    }
}

/// Names in order.
pub struct Sorted {
    runs: Vec<Run>,
    heads: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
    last: Option<Vec<u8>>,
}

impl Sorted {
    /// The next, if there is one.
    pub fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        while let Some(Reverse((name, i))) = self.heads.pop() {
            if let Some(run) = self.runs.get_mut(i) {
                self.heads.extend(run.next()?.map(|n| Reverse((n, i))));
            }
            // a directory that changes while it is listed may tell a name twice
            if self.last.as_ref() != Some(&name) {
                self.last = Some(name.clone());
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_order_and_once_however_small_the_memory() {
        let mut names: Vec<Vec<u8>> =
            (0..5000u32).map(|i| (i * 7919 % 4999).to_string().into_bytes()).collect();
        for most in [1, 1000, 1 << 20] {
            let make = || tempfile::tempfile();
            let mut s = Sorter::new(most, &make);
            if most == 1 {
                names.truncate(50);
            }
            names.iter().for_each(|n| s.add(n).unwrap());
            let mut sorted = s.sorted().unwrap();
            let mut found = Vec::new();
            while let Some(n) = sorted.next().unwrap() {
                found.push(n);
            }
            let mut right = names.clone();
            right.sort();
            right.dedup();
            assert_eq!(found, right);
            names = (0..5000u32).map(|i| (i * 7919 % 4999).to_string().into_bytes()).collect();
        }
    }
}
