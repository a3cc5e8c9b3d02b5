//! Makes single random entries: names, content, metadata, attributes.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, makedev};

use crate::caps::{Caps, own_ids};
use crate::put::{self, AclEntry, Meta};
use crate::rng::Rng;

/// Largest ordinary file, in bytes; sizes are log-uniform.
const FILE_BYTES: u64 = 64 * 1024;
/// One file in a hundred is up to this large, in bytes.
const BIG_FILE_BYTES: u64 = 3 << 20;
/// Largest sparse file, in bytes.
const SPARSE_BYTES: u64 = 8 << 20;

const OWNERS: [u32; 6] = [0, 1000, 1001, 65534, 70_000, 4_000_000_000];
const FILE_MODES: [u32; 12] =
    [0o644, 0o600, 0o755, 0o664, 0o000, 0o444, 0o400, 0o777, 0o111, 0o4755, 0o2755, 0o1644];
const DIR_MODES: [u32; 8] = [0o755, 0o755, 0o700, 0o555, 0o2775, 0o1777, 0o000, 0o711];

/// What to make next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sort {
    Dir,
    File,
    Sparse,
    Symlink,
    Fifo,
    Socket,
    Device,
}

/// Makes entries; knows what is allowed.
pub(super) struct Maker {
    pub rng: Rng,
    pub caps: Caps,
    own: (u32, u32),
}

/// The directory that holds `path`, open, and the name in it.
pub(super) fn place(path: &Path) -> io::Result<(OwnedFd, &[u8])> {
    let parent = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().map_or(&b"."[..], OsStrExt::as_bytes);
    Ok((put::open_dir(parent)?, name))
}

impl Maker {
    pub fn new(rng: Rng, caps: &Caps) -> Self {
        Self { rng, caps: *caps, own: own_ids() }
    }

    /// A sort of entry that is allowed here.
    pub fn sort(&mut self, dirs_too: bool) -> Sort {
        loop {
            return match self.rng.below(100) {
                0..22 if dirs_too => Sort::Dir,
                22..75 => Sort::File,
                75..81 => Sort::Sparse,
                81..93 => Sort::Symlink,
                93..96 => Sort::Fifo,
                96..98 => Sort::Socket,
                98.. if self.caps.devices => Sort::Device,
                _ => continue,
            };
        }
    }

    /// A path in `parent` that nothing has yet: now and then an odd one.
    pub fn free_name(&mut self, parent: &Path) -> PathBuf {
        loop {
            let path = parent.join(OsStr::from_bytes(&self.name()));
            if fs::symlink_metadata(&path).is_err() {
                return path;
            }
        }
    }

    fn name(&mut self) -> Vec<u8> {
        let len = 1 + self.rng.index(12);
        let word = self.rng.word(len).into_bytes();
        match self.rng.below(40) {
            0 => [b"-", &word[..]].concat(),
            1 => [&word[..], b"\n", &word[..]].concat(),
            2 => [&word[..], b"\xff\xfe\xe9"].concat(),
            3 => [&word[..], &[b'x'; 255]].concat()[..255].to_vec(),
            4 => [&word[..], &[0xe9; 255]].concat()[..255].to_vec(),
            5 => [b" ", &word[..], b" "].concat(),
            6 => [b".", &word[..]].concat(),
            7 => [&word[..], "\u{1F980}".as_bytes()].concat(),
            8 => [&word[..], b"*?[a]\\\"'`$(x)"].concat(),
            9 => [b"\x01\x1b[31m", &word[..]].concat(),
            10 => [b"...", &word[..]].concat(),
            _ => word,
        }
    }

    /// Random metadata; without root, nothing that would shut ourselves out.
    pub fn meta(&mut self, is_dir: bool) -> Meta {
        let mut mode = if is_dir { self.rng.pick(&DIR_MODES) } else { self.rng.pick(&FILE_MODES) };
        // Ordinary modes should prevail.
        if self.rng.chance(0.6) {
            mode = if is_dir { 0o755 } else { 0o644 };
        }
        let (mut uid, mut gid) = self.own;
        if self.caps.owners {
            (uid, gid) = (self.rng.pick(&OWNERS), self.rng.pick(&OWNERS));
        } else {
            mode |= if is_dir { 0o700 } else { 0o600 };
            mode &= !0o6000;
        }
        let (sec, nsec) = self.time();
        Meta { mode, uid, gid, sec, nsec }
    }

    /// Seconds and nanoseconds: ordinary, at the edges, before 1970, after 2038.
    pub fn time(&mut self) -> (i64, i64) {
        let wide = self.caps.wide_times;
        let sec = match self.rng.below(20) {
            0 if wide => -1 - self.rng.below(1_000_000_000) as i64,
            1 if wide => 4_200_000_000 + self.rng.below(1_000_000_000) as i64,
            2 => 0,
            _ => 1_500_000_000 + self.rng.below(200_000_000) as i64,
        };
        let nsec = match self.rng.below(10) {
            0 => 0,
            1 => 999_999_999,
            2 => 1,
            _ => self.rng.below(1_000_000_000) as i64,
        };
        (sec, nsec)
    }

    /// A target, dangling or not.
    pub fn target(&mut self) -> Vec<u8> {
        let len = 1 + self.rng.index(20);
        let word = self.rng.word(len).into_bytes();
        match self.rng.below(8) {
            0 => b"/nonexistent/absolute".to_vec(),
            1 => b"..".to_vec(),
            2 => [b"\xff\n", &word[..]].concat(),
            3 if self.caps.long_symlinks => b"y/".repeat(100 + self.rng.index(1900)),
            4 => [b"../../", &word[..]].concat(),
            _ => word,
        }
    }

    /// Makes an empty directory that we can work in; [`Self::finish_dir`] comes later.
    pub fn dir(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = place(path)?;
        put::dir(dir.as_fd(), name)?;
        Ok(())
    }

    /// Attributes, owner, mode and times of a directory whose children are all made.
    pub fn finish_dir(&mut self, path: &Path) -> io::Result<()> {
        let fd = put::open_dir(path)?;
        let meta = self.meta(true);
        put::finish(fd.as_fd(), &meta)?;
        if self.rng.chance(0.1) {
            self.set_xattrs(fd.as_fd(), b".", true)?;
        }
        if self.rng.chance(0.1) {
            self.set_acl(fd.as_fd(), b".", true)?;
        }
        put::set_times(fd.as_fd(), &meta)
    }

    /// Makes any entry but a directory.
    pub fn entry(&mut self, path: &Path, sort: Sort) -> io::Result<()> {
        let (dir, name) = place(path)?;
        let dir = dir.as_fd();
        match sort {
            Sort::File | Sort::Sparse => {
                let fd = put::create(dir, name)?;
                self.content(fd.as_fd(), sort == Sort::Sparse)?;
            }
            Sort::Symlink => {
                let target = self.target();
                put::symlink(dir, name, &target)?;
            }
            Sort::Fifo => put::node(dir, name, FileType::Fifo, 0o600, 0)?,
            Sort::Socket => put::node(dir, name, FileType::Socket, 0o600, 0)?,
            Sort::Device => {
                let kinds = [FileType::CharacterDevice, FileType::BlockDevice];
                let dev = makedev(1 + self.rng.below(500) as u32, self.rng.below(70_000) as u32);
                put::node(dir, name, self.rng.pick(&kinds), 0o600, dev)?;
            }
            Sort::Dir => return self.dir(path),
        }
        let meta = self.meta(false);
        put::owner(dir, name, &meta)?;
        let is_file = matches!(sort, Sort::File | Sort::Sparse);
        if sort != Sort::Symlink {
            put::mode(dir, name, meta.mode)?;
            if self.rng.chance(0.1) {
                self.set_acl(dir, name, false)?;
            }
        }
        if self.rng.chance(0.15) {
            self.set_xattrs(dir, name, is_file)?;
        }
        put::times(dir, name, &meta)
    }

    fn content(&mut self, fd: BorrowedFd<'_>, sparse: bool) -> io::Result<()> {
        if sparse {
            let size = 1 + self.rng.below(SPARSE_BYTES);
            rustix::fs::ftruncate(fd, size)?;
            let mut island = vec![0; 1 + self.rng.index(8192)];
            for _ in 0..self.rng.below(4) {
                self.rng.fill(&mut island);
                let offset = self.rng.below(size);
                let len = (size - offset).min(island.len() as u64) as usize;
                put::write_at(fd, &island[..len], offset)?;
            }
            return Ok(());
        }
        let most = if self.rng.chance(0.01) { BIG_FILE_BYTES } else { FILE_BYTES };
        let data = self.bytes(most);
        put::write_at(fd, &data, 0)
    }

    /// Random bytes, most likely few; now and then none, now and then zeros.
    pub fn bytes(&mut self, most: u64) -> Vec<u8> {
        let mut data = vec![0; self.rng.log_size(most)];
        if !self.rng.chance(0.05) {
            self.rng.fill(&mut data);
        }
        data
    }

    /// Sets one or two attributes; `user.*` only where the kernel has them.
    pub fn set_xattrs(&mut self, dir: BorrowedFd<'_>, name: &[u8], user: bool) -> io::Result<()> {
        if user && self.caps.user_xattrs {
            let key = self.rng.pick(&[&b"user.a"[..], b"user.b", b"user.with space"]);
            let len = self.rng.pick(&[0, 1, 20, 300, 2000]);
            let mut value = vec![0; len];
            self.rng.fill(&mut value);
            put::xattr(dir, name, key, &value)?;
        }
        if self.caps.trusted_xattrs && self.rng.chance(0.5) {
            let value = self.rng.draw().to_le_bytes();
            put::xattr(dir, name, b"trusted.kit", &value)?;
        }
        Ok(())
    }

    /// Sets an access ACL, or of a directory maybe a default ACL.
    pub fn set_acl(&mut self, dir: BorrowedFd<'_>, name: &[u8], is_dir: bool) -> io::Result<()> {
        if !self.caps.acls {
            return Ok(());
        }
        // Our own rights stay: without root we still have to work there.
        let owner = if is_dir { 7 } else { 6 };
        let mut perm = || self.rng.below(8) as u16;
        let acl = put::acl(&[
            AclEntry::UserObj(owner),
            AclEntry::User(perm(), 1000),
            AclEntry::User(perm(), 70_000),
            AclEntry::GroupObj(perm()),
            AclEntry::Group(perm(), 1001),
            AclEntry::Mask(perm()),
            AclEntry::Other(perm()),
        ]);
        let key = if is_dir && self.rng.chance(0.5) {
            &b"system.posix_acl_default"[..]
        } else {
            b"system.posix_acl_access"
        };
        put::xattr(dir, name, key, &acl)
    }
}
