//! Tree H: everything that a faithful clone keeps and a careless one loses.
//!
//! Hard links across directories (one group of a thousand), symlinks of every sort,
//! holes, FIFOs, sockets, devices, extended attributes, ACLs, capabilities, odd
//! names, odd times, set-id bits, foreign owners, directories without any right.
//! Wants root. As in the plain trees, the order of the draws is part of the tree.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, ftruncate, makedev};

use super::{FIRST_SEC, SPAN_SEC};
use crate::put::AclEntry::{Group, GroupObj, Mask, Other, User, UserObj};
use crate::put::{self, Meta};
use crate::rng::Rng;

const OWNERS: [u32; 8] = [0, 0, 1000, 1000, 1001, 65534, 70_000, 4_000_000_000];
const DEPTH: u32 = 6;
/// The big hard-link group has this many extra names, or a tenth of all links if fewer.
const BIG_GROUP: u64 = 1000;
const SPARSE_FILES: u64 = 200;
const FIFOS: u64 = 50;

/// Names that shells, protocols and careless code trip over; 255 bytes is the longest.
pub(crate) fn odd_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        &b"new\nline"[..],
        b"\n",
        b"tab\there",
        b"cr\r",
        b" ",
        b" lead",
        b"trail ",
        b"trail.",
        b"-rf",
        b"--delete",
        b"-",
        b"*",
        b"?[a]",
        b"back\\slash",
        b"\\#012",
        b"quote'\"`$(x)",
        b"...",
        b".hidden",
        b"._apple",
        b".a.XXXXXX",
        b"~",
        b"a:b",
        b"host::mod",
        b"\xff\xfe\x80",
        b"latin\xe9",
        b"\x01\x1b[31m",
        "e\u{301}".as_bytes(),
        "\u{e9}".as_bytes(),
        "\u{1F980}".as_bytes(),
        b"%s%n",
        b"#c;d&e|f",
        b"x.rclonelink",
        b"CON",
        b"a ",
        b"A",
        b"a",
    ]
    .iter()
    .map(|name| name.to_vec())
    .collect();
    names.push(vec![b'x'; 255]);
    names.push(vec![0xe9; 255]);
    names.push([&b"."[..], &[b'y'; 254]].concat());
    names.sort();
    names
}

/// A name in one of the tree's directories.
type Place = (usize, Vec<u8>);

struct Awkward<'a> {
    root: BorrowedFd<'a>,
    rng: Rng,
    /// Paths below the root, short enough to open in one go.
    dirs: Vec<String>,
    /// The directories after this many stay empty.
    usable: usize,
}

/// Makes the tree in `root`: about `total` entries and a few fixed ones.
pub(super) fn make(root: BorrowedFd<'_>, total: u64, rng: Rng) -> io::Result<()> {
    let mut tree = Awkward { root, rng, dirs: vec![".".to_owned()], usable: 0 };
    let links = total * 30 / 100;
    let symlinks = total * 5 / 100;
    let files = (total - links - symlinks).max(4);
    tree.make_dirs(((total / 33).max(20)) as usize)?;
    tree.odd_names()?;
    let files = tree.files(files)?;
    tree.hard_links(&files, links)?;
    let symlinks = tree.symlinks(&files, symlinks)?;
    for (i, (dir, name)) in symlinks.iter().take(20).enumerate() {
        let new = format!("hardlinked-symlink-{i}");
        put::link(tree.open(*dir)?.as_fd(), name, root, new.as_bytes())?;
    }
    tree.sparse()?;
    tree.special()?;
    tree.finish_dirs()
}

impl Awkward<'_> {
    fn meta(&mut self, mode: u32) -> Meta {
        let rng = &mut self.rng;
        Meta {
            mode,
            uid: rng.pick(&OWNERS),
            gid: rng.pick(&OWNERS),
            sec: match rng.below(50) {
                0 => -(rng.below(1_000_000_000) as i64),
                1 => 4_200_000_000 + rng.below(1_000_000_000) as i64,
                2 => 0,
                _ => FIRST_SEC + rng.below(SPAN_SEC) as i64,
            },
            nsec: match rng.below(20) {
                0 => 0,
                1 => 999_999_999,
                2 => 1,
                _ => rng.below(1_000_000_000) as i64,
            },
        }
    }

    fn open(&self, dir: usize) -> io::Result<OwnedFd> {
        put::open_dir_at(self.root, self.dirs[dir].as_bytes())
    }

    fn make_dirs(&mut self, count: usize) -> io::Result<()> {
        let mut depths = vec![0];
        while self.dirs.len() < count {
            let i = self.rng.index(self.dirs.len());
            if depths[i] >= DEPTH {
                continue;
            }
            let word = self.rng.word(5);
            let path = format!("{}/{word}{:x}", self.dirs[i], self.dirs.len());
            put::dir(self.root, path.as_bytes())?;
            self.dirs.push(path);
            depths.push(depths[i] + 1);
        }
        self.usable = self.dirs.len() - self.dirs.len() / 15;
        Ok(())
    }

    fn odd_names(&mut self) -> io::Result<()> {
        let odd = put::dir(self.root, b"odd names")?;
        for name in odd_names() {
            let meta = self.meta(0o644);
            put::file(odd.as_fd(), &name, &name, &meta)?;
        }
        for name in [&b"dir\nnl"[..], b"-dir", b"\xff\xffdir", b"dir ", &[b'd'; 255]] {
            let dir = put::dir(odd.as_fd(), name)?;
            let meta = self.meta(0o644);
            put::file(dir.as_fd(), b"in", b"in", &meta)?;
            let meta = self.meta(0o755);
            put::finish(dir.as_fd(), &meta)?;
        }
        Ok(())
    }

    fn files(&mut self, count: u64) -> io::Result<Vec<Place>> {
        let mut buf = vec![0; 8192];
        let mut made = Vec::new();
        for i in 0..count {
            let dir = self.rng.index(self.usable);
            let mode = match self.rng.below(200) {
                0 => 0o4755,
                1 => 0o2755,
                2 => 0o6711,
                3 => 0o000,
                4 => 0o444,
                5 => 0o1644,
                6 => 0o400,
                7 => 0o777,
                8 => 0o111,
                _ => self.rng.pick(&[0o644, 0o600, 0o755, 0o664]),
            };
            let size = self.rng.log_size(4096);
            self.rng.fill(&mut buf[..size]);
            let name = format!("f{}_{i}", self.rng.word(4)).into_bytes();
            let meta = self.meta(mode);
            let fd = self.open(dir)?;
            put::file(fd.as_fd(), &name, &buf[..size], &meta)?;
            self.attributes(fd.as_fd(), &name, i, mode, &mut buf)?;
            // Attributes change no time but the ctime; said again all the same.
            put::times(fd.as_fd(), &name, &meta)?;
            made.push((dir, name));
        }
        Ok(made)
    }

    /// Extended attributes, ACLs and capabilities, after owner and mode.
    fn attributes(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        i: u64,
        mode: u32,
        buf: &mut [u8],
    ) -> io::Result<()> {
        if i.is_multiple_of(12) {
            let len = self.rng.index(100);
            self.rng.fill(&mut buf[..len]);
            put::xattr(dir, name, b"user.bin", &buf[..len])?;
            if i.is_multiple_of(24) {
                put::xattr(dir, name, b"user.empty", b"")?;
            }
            if i.is_multiple_of(240) {
                self.rng.fill(&mut buf[..2500]);
                put::xattr(dir, name, b"user.big", &buf[..2500])?;
            }
            if i.is_multiple_of(480) {
                put::xattr(dir, name, b"trusted.probe", b"t\0t")?;
            }
        }
        if i % 30 == 7 && mode & 0o6000 == 0 {
            let acl = put::acl(&[
                UserObj(6),
                User(5, 1000),
                User(7, 4_000_000_000),
                GroupObj(4),
                Group(6, 1001),
                Mask(7),
                Other((i / 30 % 8) as u16),
            ]);
            put::xattr(dir, name, b"system.posix_acl_access", &acl)?;
        }
        if i % 1000 == 3 {
            // cap_net_bind_service+ep in VFS_CAP_REVISION_2
            let words: [u32; 5] = [0x0200_0001, 0x400, 0, 0, 0];
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            put::xattr(dir, name, b"security.capability", &bytes)?;
        }
        Ok(())
    }

    fn hard_links(&mut self, files: &[Place], count: u64) -> io::Result<()> {
        let in_big_group = BIG_GROUP.min(count / 10);
        for i in 0..count {
            let from = if i < in_big_group { 0 } else { self.rng.index(files.len() / 4) };
            let (dir, name) = &files[from];
            let to = self.rng.index(self.usable);
            let (dir, to) = (self.open(*dir)?, self.open(to)?);
            put::link(dir.as_fd(), name, to.as_fd(), format!("h{i}").as_bytes())?;
        }
        Ok(())
    }

    fn symlinks(&mut self, files: &[Place], count: u64) -> io::Result<Vec<Place>> {
        let mut made = Vec::new();
        for i in 0..count {
            let dir = self.rng.index(self.usable);
            let file = self.rng.index(files.len());
            let target = match i % 10 {
                0 => b"/nonexistent/absolute".to_vec(),
                1 => b"dangling".to_vec(),
                2 => b"..".to_vec(),
                3 => format!("s{i}").into_bytes(), // points at itself
                4 => [&b"../"[..], &vec![b'z'; 40 + self.rng.index(200)]].concat(),
                5 if i % 50 == 5 => "y/".repeat(1900).into_bytes(),
                6 => b"\xff\n\xfe".to_vec(),
                7 => b"/etc/hostname".to_vec(),
                _ => files[file].1.clone(),
            };
            let name = format!("s{i}").into_bytes();
            let fd = self.open(dir)?;
            match put::symlink(fd.as_fd(), &name, &target) {
                // XFS ends at 1024 bytes.
                Err(e) if e.kind() == io::ErrorKind::InvalidFilename => {
                    put::symlink(fd.as_fd(), &name, &target[..1000])?;
                }
                other => other?,
            }
            let meta = self.meta(0);
            put::owner(fd.as_fd(), &name, &meta)?;
            put::times(fd.as_fd(), &name, &meta)?;
            made.push((dir, name));
        }
        Ok(made)
    }

    /// Two holes of 1 GiB, files with a few islands of data, and a file of real zeros.
    fn sparse(&mut self) -> io::Result<()> {
        let dir = put::dir(self.root, b"sparse")?;
        let mut block = [0; 4096];
        for i in 0..SPARSE_FILES {
            let size = match i {
                0 => 1 << 30,
                1 => (1 << 30) + 1,
                _ => (1 + self.rng.below(8)) << 20,
            };
            let fd = put::create(dir.as_fd(), format!("sparse{i}").as_bytes())?;
            ftruncate(&fd, size)?;
            if i > 1 {
                for _ in 0..self.rng.below(6) {
                    self.rng.fill(&mut block);
                    let offset = self.rng.below(size) & !4095;
                    let len = (size - offset).min(4096) as usize;
                    put::write_at(fd.as_fd(), &block[..len], offset)?;
                }
                if i.is_multiple_of(4) {
                    put::write_at(fd.as_fd(), &block[..1], size - 1)?;
                }
            }
            let meta = self.meta(0o644);
            put::finish(fd.as_fd(), &meta)?;
        }
        let meta = self.meta(0o644);
        put::file(dir.as_fd(), b"zeros", &vec![0; 1 << 20], &meta)
    }

    /// FIFOs (some with two names), sockets, devices.
    fn special(&mut self) -> io::Result<()> {
        let special = put::dir(self.root, b"special")?;
        let dir = special.as_fd();
        for i in 0..FIFOS {
            let name = format!("fifo{i}").into_bytes();
            let meta = self.meta(0o640);
            put::node(dir, &name, FileType::Fifo, 0o600, 0)?;
            put::owner(dir, &name, &meta)?;
            put::mode(dir, &name, meta.mode)?;
            put::times(dir, &name, &meta)?;
            if i < 3 {
                put::link(dir, &name, self.root, format!("fifo-link{i}").as_bytes())?;
            }
        }
        for i in 0..5 {
            for (word, kind) in [
                ("sock", FileType::Socket),
                ("chr", FileType::CharacterDevice),
                ("blk", FileType::BlockDevice),
            ] {
                let name = format!("{word}{i}").into_bytes();
                let dev = match kind {
                    FileType::Socket => 0,
                    _ => makedev(1, 3 + i * 300),
                };
                match put::node(dir, &name, kind, 0o660, dev) {
                    // In a container devices may be refused; the tree does without.
                    Err(e) if e.kind() == io::ErrorKind::PermissionDenied => continue,
                    other => other?,
                }
                let meta = self.meta(0);
                put::times(dir, &name, &meta)?;
            }
        }
        Ok(())
    }

    /// Metadata of the directories, deepest first; children change a directory's time.
    fn finish_dirs(&mut self) -> io::Result<()> {
        for i in (0..self.dirs.len()).rev() {
            let mode = match i % 30 {
                1 => 0o555,
                2 => 0o2775,
                3 => 0o1777,
                4 => 0o700,
                5 => 0o000,
                6 => 0o4755,
                _ => 0o755,
            };
            let fd = self.open(i)?;
            let acl = put::acl(&[UserObj(7), User(5, 1000), GroupObj(5), Mask(7), Other(0)]);
            if i % 15 == 7 {
                put::xattr(fd.as_fd(), b".", b"system.posix_acl_default", &acl)?;
            }
            if i % 20 == 9 {
                put::xattr(fd.as_fd(), b".", b"user.dir", b"dirattr")?;
            }
            let meta = self.meta(mode);
            put::finish(fd.as_fd(), &meta)?;
            if i % 30 == 7 {
                put::xattr(fd.as_fd(), b".", b"system.posix_acl_access", &acl)?;
                put::times(fd.as_fd(), b".", &meta)?;
            }
        }
        for name in [&b"odd names"[..], b"sparse", b"special", b"."] {
            let meta = self.meta(0o755);
            put::times(self.root, name, &meta)?;
        }
        Ok(())
    }
}
