//! The trees S, G, L, D, E and W: ordinary entries, in many or in few directories.
//!
//! The order of the draws is part of the trees: a seed means the same tree only as
//! long as nothing here draws more, less or elsewhere.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};

use super::ordinary;
use crate::put::{self, Meta};
use crate::rng::Rng;

/// The largest file of tree S, in bytes.
const SMALL_FILE_BYTES: usize = 16 * 1024;
/// Deepest directory of tree S.
const SMALL_DEPTH: u32 = 6;
/// Big directories of tree S; each holds one 40th of its files.
const BIG_DIRS: u64 = 8;
/// The files of tree L.
const LARGE_FILES: u64 = 8;
/// Files of tree L are written in pieces of this size.
const PIECE_BYTES: usize = 4 << 20;

const EXTENSIONS: [&str; 10] = ["c", "h", "rs", "txt", "json", "o", "dat", "py", "html", "png"];

/// Makes ordinary trees: the random sequence and the owner of what is made.
pub(super) struct Maker {
    pub rng: Rng,
    pub owner: (u32, u32),
}

impl Maker {
    fn meta(&mut self) -> Meta {
        ordinary(&mut self.rng, self.owner)
    }

    fn dir_meta(&mut self) -> Meta {
        Meta { mode: 0o755, ..self.meta() }
    }

    /// S: directories hang on random parents; the last eight of them are big.
    pub fn small(&mut self, root: BorrowedFd<'_>, files: u64) -> io::Result<()> {
        let per_big = files / 40;
        let rest = files - BIG_DIRS * per_big;
        let dirs = self.small_dirs(root, (rest / 20).max(1) + BIG_DIRS)?;
        let mut buf = vec![0; SMALL_FILE_BYTES];
        let total = dirs.len() as u64;
        let mut made = 0;
        for (i, path) in dirs.iter().enumerate() {
            let before_big = (total - BIG_DIRS).saturating_sub(i as u64);
            let count = match before_big {
                0 => per_big,
                1 => rest - made,
                _ => (1 + self.rng.below(39)).min(rest - made),
            };
            if before_big > 0 {
                made += count;
            }
            let dir = put::open_dir_at(root, path.as_bytes())?;
            for k in 0..count {
                let size = self.rng.log_size(SMALL_FILE_BYTES as u64);
                self.rng.fill(&mut buf[..size]);
                let len = 3 + self.rng.index(14);
                let word = self.rng.word(len);
                let name = format!("{word}{k}.{}", self.rng.pick(&EXTENSIONS));
                let meta = self.meta();
                put::file(dir.as_fd(), name.as_bytes(), &buf[..size], &meta)?;
            }
        }
        // Directories last, deepest first: putting entries into one changes its time.
        for path in dirs.iter().rev() {
            let dir = put::open_dir_at(root, path.as_bytes())?;
            let mut meta = self.meta();
            meta.mode = if self.rng.chance(0.1) { 0o775 } else { 0o755 };
            put::finish(dir.as_fd(), &meta)?;
        }
        Ok(())
    }

    fn small_dirs(&mut self, root: BorrowedFd<'_>, total: u64) -> io::Result<Vec<String>> {
        let mut dirs = vec![(".".to_owned(), 0)];
        while (dirs.len() as u64) < total {
            let i = self.rng.index(dirs.len());
            let (parent, depth) = &dirs[i];
            if *depth >= SMALL_DEPTH {
                continue;
            }
            let len = 4 + self.rng.index(8);
            let path = format!("{parent}/{}-{:x}", self.rng.word(len), dirs.len());
            let depth = depth + 1;
            put::dir(root, path.as_bytes())?;
            dirs.push((path, depth));
        }
        Ok(dirs.into_iter().map(|(path, _)| path).collect())
    }

    /// G: all files in the root.
    pub fn flat(&mut self, root: BorrowedFd<'_>, files: u64) -> io::Result<()> {
        let mut buf = [0; 1024];
        for i in 0..files {
            let size = self.rng.index(1025);
            self.rng.fill(&mut buf[..size]);
            let meta = self.meta();
            let name = format!("{:016x}-{i}.rec", self.rng.draw());
            put::file(root, name.as_bytes(), &buf[..size], &meta)?;
        }
        let meta = self.dir_meta();
        put::finish(root, &meta)
    }

    /// L: a few files of `size` bytes.
    pub fn large(&mut self, root: BorrowedFd<'_>, size: u64) -> io::Result<()> {
        let mut buf = vec![0; PIECE_BYTES];
        for i in 0..LARGE_FILES {
            let fd = put::create(root, format!("large-{i}.bin").as_bytes())?;
            let mut offset = 0;
            while offset < size {
                self.rng.fill(&mut buf);
                let len = (size - offset).min(buf.len() as u64);
                put::write_at(fd.as_fd(), &buf[..len as usize], offset)?;
                offset += len;
            }
            let meta = self.meta();
            put::finish(fd.as_fd(), &meta)?;
        }
        let meta = self.dir_meta();
        put::finish(root, &meta)
    }

    /// D: `levels` directories, one in the other, a file in every fiftieth.
    ///
    /// Two fds are open at a time: down by name, and up again by `..`.
    pub fn deep(&mut self, root: BorrowedFd<'_>, levels: u64) -> io::Result<()> {
        let mut dir = root.try_clone_to_owned()?;
        for i in 0..levels {
            if i % 50 == 0 {
                let meta = self.meta();
                let (name, text) = (format!("at{i}"), format!("depth {i}"));
                put::file(dir.as_fd(), name.as_bytes(), text.as_bytes(), &meta)?;
            }
            let name = format!("d{i:04}-{}", self.rng.word(6));
            dir = put::dir(dir.as_fd(), name.as_bytes())?;
        }
        let meta = self.meta();
        put::file(dir.as_fd(), b"bottom", b"bottom\n", &meta)?;
        for level in (0..=levels).rev() {
            let meta = self.dir_meta();
            put::finish(dir.as_fd(), &meta)?;
            if level > 0 {
                dir = put::open_dir_at(dir.as_fd(), b"..")?;
            }
        }
        Ok(())
    }

    /// E: `files` empty files. They belong to us and have the mode of their creation:
    /// three calls a file, so that two million take well under a minute.
    pub fn empty(&mut self, root: BorrowedFd<'_>, files: u64) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        for i in 0..files {
            let name = format!("{i:07}");
            let meta = self.meta();
            let fd = put::told(
                rustix::fs::openat(root, &name, flags, Mode::from_raw_mode(0o600)),
                "create",
                name.as_bytes(),
            )?;
            put::set_times(fd.as_fd(), &meta)?;
        }
        let meta = self.dir_meta();
        put::finish(root, &meta)
    }

    /// W: `dirs` empty directories.
    pub fn wide(&mut self, root: BorrowedFd<'_>, dirs: u64) -> io::Result<()> {
        for i in 0..dirs {
            let name = format!("dir{i:06}");
            let meta = self.dir_meta();
            let mode = Mode::from_raw_mode(0o700);
            put::told(rustix::fs::mkdirat(root, &name, mode), "mkdir", name.as_bytes())?;
            put::mode(root, name.as_bytes(), meta.mode)?;
            put::owner(root, name.as_bytes(), &meta)?;
            put::times(root, name.as_bytes(), &meta)?;
        }
        let meta = self.dir_meta();
        put::finish(root, &meta)
    }
}
