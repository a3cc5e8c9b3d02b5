//! What a walk has seen, in a file: directories in the order of a walk depth first in the order of the bytes of names, each
//! with its entries in the same order. So a walk and the index of the one before are compared as two streams, and
//! nothing is kept in memory.
//!
//! The file: `TFPOLL01`, five numbers (inode number of the source, a word of its owner, begin of the walk in µs since
//! 1970, digest of the source directory, since when that is fresh), then for each directory `1`, its path, its entries and `0`; then `0`, and the
//! xxh3 of all before. Numbers are little-endian; paths and names are given by how many bytes they share with the one
//! before, how many follow, and these. An entry is a byte of flags, its name and two digests: of what makes it what it
//! is, and of its other attributes; and if it is fresh since when.

use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, BufWriter, Error, ErrorKind, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use xxhash_rust::xxh3::Xxh3Default;

const MAGIC: &[u8; 8] = b"TFPOLL01";
/// Longest path or name that is believed.
const MOST_BYTES: u64 = 1 << 20;
/// A directory follows.
const DIR: u8 = 1;
/// Flags of an entry: there is one.
const THERE: u8 = 1;
/// It is a directory.
const IS_DIR: u8 = 2;
/// It had changed so shortly before that a further change may have left no trace.
const FRESH: u8 = 4;

/// What is said of the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Inode number of the source.
    pub root: u64,
    /// A word of whoever keeps the index: with another the index is of no use.
    pub tag: u64,
    /// When the walk began (µs since 1970).
    pub began: u64,
    /// Digest of the source directory's own attributes.
    pub attributes: u64,
    /// As of an entry.
    pub fresh: u64,
}

/// An entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Vec<u8>,
    /// It is a directory.
    pub dir: bool,
    /// It had changed so shortly before that a further change may have left no trace: when it was first seen so (µs since
    /// 1970); 0: it had not.
    pub fresh: u64,
    /// Digest of what makes it what it is: kind, inode number, size, times.
    pub content: u64,
    /// Digest of the rest.
    pub attributes: u64,
}

fn bad(why: &str) -> Error {
    Error::new(ErrorKind::InvalidData, why)
}

/// Orders paths as a walk comes by them.
pub fn order(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    let key = |p: &&u8| if **p == b'/' { 0 } else { **p };
    a.iter().map(|p| key(&p)).cmp(b.iter().map(|p| key(&p)))
}

fn put_number(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn get_number(input: &mut impl Read) -> io::Result<u64> {
    let mut n = 0u64;
    for shift in (0..64).step_by(7) {
        let mut b = [0];
        input.read_exact(&mut b)?;
        n |= u64::from(b[0] & 0x7f) << shift;
        if b[0] < 0x80 {
            return Ok(n);
        }
    }
    Err(bad("a number without end"))
}

fn get_u64(input: &mut impl Read) -> io::Result<u64> {
    let mut b = [0; 8];
    input.read_exact(&mut b)?;
    Ok(u64::from_le_bytes(b))
}

fn put_text(out: &mut Vec<u8>, before: &[u8], text: &[u8]) {
    let shared = before.iter().zip(text).take_while(|(a, b)| a == b).count();
    put_number(out, shared as u64);
    let rest = text.get(shared..).unwrap_or_default();
    put_number(out, rest.len() as u64);
    out.extend_from_slice(rest);
}

fn get_text(input: &mut impl Read, text: &mut Vec<u8>) -> io::Result<()> {
    let (shared, more) = (get_number(input)?, get_number(input)?);
    if shared > text.len() as u64 || more > MOST_BYTES || shared + more > MOST_BYTES {
        return Err(bad("a name that is too long"));
    }
    text.resize((shared + more) as usize, 0);
    input.read_exact(text.get_mut(shared as usize..).unwrap_or_default())
}

fn get_entry(input: &mut impl Read, name: &mut Vec<u8>) -> io::Result<Option<Entry>> {
    let mut flags = [0];
    input.read_exact(&mut flags)?;
    if flags[0] & THERE == 0 {
        return Ok(None);
    }
    get_text(input, name)?;
    let (content, attributes) = (get_u64(input)?, get_u64(input)?);
    let fresh = if flags[0] & FRESH != 0 { get_u64(input)? } else { 0 };
    let dir = flags[0] & IS_DIR != 0;
    Ok(Some(Entry { name: name.clone(), dir, fresh, content, attributes }))
}

/// Writes an index.
pub struct Writer {
    file: BufWriter<File>,
    digest: Xxh3Default,
    at: u64,
    path: Vec<u8>,
    name: Vec<u8>,
    buffer: Vec<u8>,
}

impl Writer {
    /// Into an empty file.
    pub fn new(file: File, head: Head) -> io::Result<Writer> {
        let mut w = Writer {
            file: BufWriter::with_capacity(256 << 10, file),
            digest: Xxh3Default::new(),
            at: 0,
            path: Vec::new(),
            name: Vec::new(),
            buffer: Vec::new(),
        };
        w.buffer.extend_from_slice(MAGIC);
        for n in [head.root, head.tag, head.began, head.attributes, head.fresh] {
            w.buffer.extend_from_slice(&n.to_le_bytes());
        }
        w.write()?;
        Ok(w)
    }

    fn write(&mut self) -> io::Result<()> {
        self.digest.update(&self.buffer);
        self.at += self.buffer.len() as u64;
        self.file.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }

    /// Begins a directory. Returns where its entries begin.
    pub fn dir(&mut self, path: &[u8]) -> io::Result<u64> {
        self.buffer.push(DIR);
        put_text(&mut self.buffer, &self.path, path);
        path.clone_into(&mut self.path);
        self.name.clear();
        self.write()?;
        Ok(self.at)
    }

    /// Adds an entry.
    pub fn entry(&mut self, e: &Entry) -> io::Result<()> {
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        self.buffer.push(THERE | flag(e.dir, IS_DIR) | flag(e.fresh > 0, FRESH));
        put_text(&mut self.buffer, &self.name, &e.name);
        e.name.clone_into(&mut self.name);
        self.buffer.extend_from_slice(&e.content.to_le_bytes());
        self.buffer.extend_from_slice(&e.attributes.to_le_bytes());
        if e.fresh > 0 {
            self.buffer.extend_from_slice(&e.fresh.to_le_bytes());
        }
        self.write()
    }

    /// Ends a directory.
    pub fn end_dir(&mut self) -> io::Result<()> {
        self.buffer.push(0);
        self.write()
    }

    /// What was written can be read with [`next_dir`].
    pub fn settle(&mut self) -> io::Result<()> {
        self.file.flush()
    }

    /// The file.
    pub fn file(&self) -> &File {
        self.file.get_ref()
    }

    /// Ends the index.
    pub fn end(mut self) -> io::Result<File> {
        self.buffer.push(0);
        self.write()?;
        let digest = self.digest.digest();
        self.file.write_all(&digest.to_le_bytes())?;
        self.file.into_inner().map_err(|e| e.into_error())
    }
}

/// Where one is in the entries of a directory that has been written.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// From the beginning of the file.
    pub at: u64,
    /// The name before.
    pub name: Vec<u8>,
}

/// The next subdirectory of a directory that has been written and settled.
pub fn next_dir(file: &File, place: &mut Place) -> io::Result<Option<Entry>> {
    let mut from = BufReader::with_capacity(4 << 10, Tail { file, at: place.at });
    loop {
        let Some(e) = get_entry(&mut from, &mut place.name)? else { return Ok(None) };
        if e.dir {
            place.at = from.get_ref().at - from.buffer().len() as u64;
            return Ok(Some(e));
        }
    }
}

struct Tail<'a> {
    file: &'a File,
    at: u64,
}

impl Read for Tail<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.read_at(buf, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// Reads an index.
pub struct Reader {
    file: BufReader<File>,
    head: Head,
    /// The directory whose entries are next; `None`: there is none any more.
    path: Option<Vec<u8>>,
    name: Vec<u8>,
}

impl Reader {
    /// Of a file that was written to its end, and has not changed since: its digest is looked at first.
    pub fn open(file: File) -> io::Result<Reader> {
        check(&file)?;
        let mut file = BufReader::with_capacity(256 << 10, file);
        io::Seek::rewind(&mut file)?;
        let mut magic = [0; 8];
        file.read_exact(&mut magic)?;
        let (root, tag) = (get_u64(&mut file)?, get_u64(&mut file)?);
        let (began, attributes, fresh) = (get_u64(&mut file)?, get_u64(&mut file)?, get_u64(&mut file)?);
        let head = Head { root, tag, began, attributes, fresh };
        let mut r = Reader { file, head, path: Some(Vec::new()), name: Vec::new() };
        r.next_path()?;
        Ok(r)
    }

    /// What is said of the whole.
    pub fn head(&self) -> Head {
        self.head
    }

    fn next_path(&mut self) -> io::Result<()> {
        let mut tag = [0];
        self.file.read_exact(&mut tag)?;
        self.name.clear();
        match (tag[0], &mut self.path) {
            (DIR, Some(path)) => get_text(&mut self.file, path),
            (0, path) => {
                *path = None;
                Ok(())
            }
            _ => Err(bad("neither a directory nor the end")),
        }
    }

    /// Goes to a directory; what comes before it is left out. Whether it is there.
    pub fn seek(&mut self, path: &[u8]) -> io::Result<bool> {
        loop {
            let Some(now) = &self.path else { return Ok(false) };
            match order(now, path) {
                std::cmp::Ordering::Less => while self.entry()?.is_some() {},
                o => return Ok(o.is_eq()),
            }
        }
    }

    /// The next entry of the directory; `None`: that was the last, and the next directory is next.
    pub fn entry(&mut self) -> io::Result<Option<Entry>> {
        let e = get_entry(&mut self.file, &mut self.name)?;
        if e.is_none() {
            self.next_path()?;
        }
        Ok(e)
    }
}

/// Opens a file to read it, also if it is a FIFO to which nobody writes.
pub fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(path)
}

/// Whether something is there that is neither an index of any version nor the beginning of one: a process that was killed,
/// or found no room, leaves its file empty or torn.
pub fn is_somebody_elses(path: &Path) -> io::Result<bool> {
    let is_file = |m: io::Result<Metadata>| match m {
        Ok(m) => Ok(Some(m.is_file())),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    };
    // looked at first: to open a device may do something
    match is_file(std::fs::metadata(path))? {
        // a symlink that leads nowhere is none of ours either
        None => return Ok(std::fs::symlink_metadata(path).is_ok()),
        Some(is_file) if !is_file => return Ok(true),
        Some(_) => {}
    }
    let file = open(path)?;
    if is_file(file.metadata())? != Some(true) {
        return Ok(true);
    }
    let mut magic = Vec::new();
    file.take(MAGIC.len() as u64).read_to_end(&mut magic)?;
    let family = &MAGIC[..MAGIC.len() - 2];
    Ok(!magic.starts_with(family) && !family.starts_with(&magic))
}

/// Looks at the digest at the end.
fn check(file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    let body = length.checked_sub(8).ok_or_else(|| bad("it is too short"))?;
    let mut from = BufReader::with_capacity(1 << 20, Tail { file, at: 0 }).take(body);
    let mut digest = Xxh3Default::new();
    let mut first = true;
    loop {
        let some = from.fill_buf()?;
        if some.is_empty() {
            break;
        }
        if std::mem::take(&mut first) && !some.starts_with(MAGIC) {
            return Err(bad("it is none, or of another version"));
        }
        digest.update(some);
        let n = some.len();
        from.consume(n);
    }
    let mut last = [0; 8];
    file.read_exact_at(&mut last, body)?;
    match u64::from_le_bytes(last) == digest.digest() && !first {
        true => Ok(()),
        false => Err(bad("it was not written to its end, or is damaged")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Seek;

    fn head() -> Head {
        Head { root: 1, tag: 2, began: 3, attributes: 4, fresh: 5 }
    }

    fn entry(name: &str, dir: bool) -> Entry {
        let content = name.len() as u64;
        Entry {
            name: name.as_bytes().to_vec(),
            dir,
            fresh: u64::from(!dir) * 77,
            content,
            attributes: u64::MAX,
        }
    }

    fn made(dirs: &[(&str, &[&str])]) -> File {
        let mut w = Writer::new(tempfile::tempfile().unwrap(), head()).unwrap();
        for (path, names) in dirs {
            w.dir(path.as_bytes()).unwrap();
            names.iter().for_each(|n| w.entry(&entry(n, n.starts_with('d'))).unwrap());
            w.end_dir().unwrap();
        }
        w.end().unwrap()
    }

    const DIRS: &[(&str, &[&str])] =
        &[("", &["a", "d", "d.x", "e"]), ("d", &["d1", "f"]), ("d/d1", &[]), ("d.x", &["abc", "abd"])];

    #[test]
    fn what_is_written_is_read() {
        let mut r = Reader::open(made(DIRS)).unwrap();
        assert_eq!(r.head(), head());
        for (path, names) in DIRS {
            assert!(r.seek(path.as_bytes()).unwrap(), "{path}");
            for n in *names {
                assert_eq!(r.entry().unwrap(), Some(entry(n, n.starts_with('d'))));
            }
            assert_eq!(r.entry().unwrap(), None);
        }
        assert!(!r.seek(b"z").unwrap());
        // some are left out, others are not there
        let mut r = Reader::open(made(DIRS)).unwrap();
        assert!(!r.seek(b"c").unwrap() && !r.seek(b"d/a").unwrap() && r.seek(b"d/d1").unwrap());
        assert_eq!(r.entry().unwrap(), None);
        assert!(!r.seek(b"d/e").unwrap() && r.seek(b"d.x").unwrap());
    }

    #[test]
    fn subdirectories_are_found_while_it_is_written() {
        let mut w = Writer::new(tempfile::tempfile().unwrap(), head()).unwrap();
        let at = w.dir(b"").unwrap();
        let names: Vec<String> =
            (0..2000).map(|i| format!("{}{i:05}", if i % 3 == 0 { "d" } else { "f" })).collect();
        names.iter().for_each(|n| w.entry(&entry(n, n.starts_with('d'))).unwrap());
        w.end_dir().unwrap();
        w.settle().unwrap();
        let mut place = Place { at, ..Place::default() };
        let mut found = Vec::new();
        while let Some(e) = next_dir(w.file(), &mut place).unwrap() {
            found.push(String::from_utf8(e.name).unwrap());
            // and it is written on
            w.dir(found.last().unwrap().as_bytes()).unwrap();
            w.end_dir().unwrap();
        }
        let dirs: Vec<&String> = names.iter().filter(|n| n.starts_with('d')).collect();
        assert_eq!(found.iter().collect::<Vec<_>>(), dirs);
        w.end().unwrap();
    }

    #[test]
    fn what_is_torn_or_damaged_is_refused() {
        let mut whole = Vec::new();
        let mut f = made(DIRS);
        f.rewind().unwrap();
        f.read_to_end(&mut whole).unwrap();
        let open = |bytes: &[u8]| {
            let mut f = tempfile::tempfile().unwrap();
            f.write_all(bytes).unwrap();
            Reader::open(f)
        };
        assert!(open(&whole).is_ok());
        for n in 0..whole.len() {
            assert!(open(&whole[..n]).is_err(), "{n} bytes");
            let mut damaged = whole.clone();
            damaged[n] ^= 1 << (n % 8);
            assert!(open(&damaged).is_err(), "byte {n}");
        }
        assert!(open(&[&whole[..], b"x"].concat()).is_err());
    }

    #[test]
    fn paths_are_in_the_order_of_a_walk() {
        let mut all: Vec<&[u8]> =
            vec![b"", b"a", b"a/b", b"a/b/c", b"a/c", b"a.b", b"a.b/c", b"ab", b"b\x01", b"b\xff"];
        let sorted = all.clone();
        all.reverse();
        all.sort_by(|a, b| order(a, b));
        assert_eq!(all, sorted);
    }

    #[test]
    fn a_file_is_ours_if_it_is_an_index_or_was_to_become_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        let is = || is_somebody_elses(&path).unwrap();
        assert!(!is(), "nothing is there");
        for (text, is_theirs) in [
            ("", false),
            ("TF", false),
            ("TFPOLL01 and more", false),
            ("TFPOLL99", false),
            ("notes", true),
            ("TFP, notes", true),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(is(), is_theirs, "{text}");
        }
        let instead = |make: &dyn Fn()| {
            std::fs::remove_file(&path).unwrap();
            make();
        };
        instead(&|| std::os::unix::fs::symlink("nowhere", &path).unwrap());
        assert!(is(), "a symlink");
        // it would be waited for a writer
        let (mode, fifo) = (rustix::fs::Mode::from_raw_mode(0o600), rustix::fs::FileType::Fifo);
        instead(&|| rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap());
        assert!(is(), "a FIFO");
        drop(open(&path).unwrap());
        instead(&|| std::fs::create_dir(&path).unwrap());
        assert!(is(), "a directory");
    }
}
