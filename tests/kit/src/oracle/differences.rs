//! The findings: classes of difference, how often each was met, and examples.

use std::collections::BTreeMap;
use std::fmt;

use rustix::fs::FileType;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum EntryKind {
    File,
    Dir,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
    Unknown,
}

impl From<FileType> for EntryKind {
    fn from(kind: FileType) -> Self {
        match kind {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Dir,
            FileType::Symlink => Self::Symlink,
            FileType::Fifo => Self::Fifo,
            FileType::Socket => Self::Socket,
            FileType::CharacterDevice => Self::CharDevice,
            FileType::BlockDevice => Self::BlockDevice,
            FileType::Unknown => Self::Unknown,
        }
    }
}

impl fmt::Display for EntryKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "file",
            Self::Dir => "dir",
            Self::Symlink => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::CharDevice => "chr",
            Self::BlockDevice => "blk",
            Self::Unknown => "?",
        })
    }
}

/// One way in which an entry of the copy differs from its original.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The copy lacks it.
    Missing(EntryKind),
    /// Only the copy has it.
    Extra,
    /// It became something else.
    Type(EntryKind, EntryKind),
    /// Permission bits of anything but a directory.
    Mode,
    /// Permission bits of a directory.
    ModeDir,
    /// Owner of anything but a symlink.
    Uid,
    /// Owner of a symlink.
    UidSymlink,
    /// Group of anything but a symlink.
    Gid,
    /// Group of a symlink.
    GidSymlink,
    /// Modification time; `close` if less than a second off, as when nanoseconds are lost.
    Mtime {
        /// Of what: file, dir, symlink, or (shown as "special") anything else.
        of: EntryKind,
        /// Less than a second off.
        close: bool,
    },
    /// Access time of a file.
    Atime,
    /// Size of a file.
    Size,
    /// Content of a file of the right size.
    Content,
    /// The copy takes notably more space than the original.
    SparseLost,
    /// Text of a symlink, or number of a device.
    TargetOrRdev,
    /// Access ACL.
    Acl,
    /// Default ACL of a directory.
    DefaultAcl,
    /// File capabilities.
    Capability,
    /// Any other extended attribute, by name space.
    Xattr(String),
    /// The names that share its inode are not the same names.
    HardlinkGroup,
    /// It could not be looked at.
    Unreadable,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(kind) => write!(f, "missing-{kind}"),
            Self::Extra => f.write_str("extra"),
            Self::Type(from, to) => write!(f, "type({from}->{to})"),
            Self::Mode => f.write_str("mode"),
            Self::ModeDir => f.write_str("mode-dir"),
            Self::Uid => f.write_str("uid"),
            Self::UidSymlink => f.write_str("uid-symlink"),
            Self::Gid => f.write_str("gid"),
            Self::GidSymlink => f.write_str("gid-symlink"),
            Self::Mtime { of, close } => {
                let suffix = if *close { "(sub-second)" } else { "" };
                match of {
                    EntryKind::File | EntryKind::Dir | EntryKind::Symlink => {
                        write!(f, "mtime-{of}{suffix}")
                    }
                    _ => write!(f, "mtime-special{suffix}"),
                }
            }
            Self::Atime => f.write_str("atime"),
            Self::Size => f.write_str("size"),
            Self::Content => f.write_str("content"),
            Self::SparseLost => f.write_str("sparse-lost"),
            Self::TargetOrRdev => f.write_str("target/rdev"),
            Self::Acl => f.write_str("acl"),
            Self::DefaultAcl => f.write_str("default-acl"),
            Self::Capability => f.write_str("capability"),
            Self::Xattr(space) => write!(f, "xattr-{space}"),
            Self::HardlinkGroup => f.write_str("hardlink-group"),
            Self::Unreadable => f.write_str("unreadable"),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Found {
    count: u64,
    examples: Vec<(Vec<u8>, String)>,
}

/// Everything in which two trees differ; empty when they are alike.
#[derive(Clone, Debug, Default)]
pub struct Differences {
    keep: usize,
    entries: (u64, u64),
    found: BTreeMap<Class, Found>,
}

impl Differences {
    pub(super) fn new(keep: usize) -> Self {
        Self { keep, ..Self::default() }
    }

    pub(super) fn count_entry(&mut self, in_src: bool, in_dst: bool) {
        self.entries.0 += u64::from(in_src);
        self.entries.1 += u64::from(in_dst);
    }

    /// Notes one difference; `detail` is asked for only if the example is kept.
    pub(super) fn add(&mut self, class: Class, path: &[u8], detail: impl FnOnce() -> String) {
        let keep = self.keep;
        let found = self.found.entry(class).or_default();
        found.count += 1;
        if found.examples.len() < keep {
            found.examples.push((path.to_vec(), detail()));
        }
    }

    /// True when the trees are alike.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// How many entries the two trees have, their roots included.
    pub fn entries(&self) -> (u64, u64) {
        self.entries
    }

    /// The classes that were met, in order.
    pub fn classes(&self) -> Vec<Class> {
        self.found.keys().cloned().collect()
    }

    /// How many entries differ in this way.
    pub fn count(&self, class: &Class) -> u64 {
        self.found.get(class).map_or(0, |found| found.count)
    }

    /// Paths (relative to the roots) that differ in this way, as many as were kept.
    pub fn paths(&self, class: &Class) -> Vec<&[u8]> {
        self.found
            .get(class)
            .map_or_else(Vec::new, |found| found.examples.iter().map(|(path, _)| &path[..]).collect())
    }
}

/// Longest path shown in full, in bytes; of longer ones the end is shown.
const SHOWN_PATH_BYTES: usize = 120;

impl fmt::Display for Differences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (src, dst) = self.entries;
        if self.is_empty() {
            return write!(f, "IDENTICAL ({src} entries)");
        }
        write!(f, "{src} entries, {dst} in the copy:")?;
        for (i, (class, found)) in self.found.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma} {class} {}", found.count)?;
        }
        for (class, found) in &self.found {
            for (path, detail) in &found.examples {
                let (dots, end) = match path.len().checked_sub(SHOWN_PATH_BYTES) {
                    Some(cut @ 1..) => ("...", &path[cut..]),
                    _ => ("", &path[..]),
                };
                write!(f, "\n   {class}: \"{dots}{}\"", end.escape_ascii())?;
                if !detail.is_empty() {
                    write!(f, " ({detail})")?;
                }
            }
        }
        Ok(())
    }
}
