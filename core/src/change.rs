//! A line of `--itemize`, in rsync's `%i %n` form (see "--itemize-changes" in rsync(1)).

use crate::names::Kind;
use crate::path::RelPath;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which attributes differ. The letters are rsync's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Differs {
    /// `c`: content (with `--checksum`), or the value of a symlink or device.
    pub content: bool,
    /// `s`: size.
    pub size: bool,
    /// `t`: modification time.
    pub time: bool,
    /// `p`: permissions.
    pub perms: bool,
    /// `o`: owner.
    pub owner: bool,
    /// `g`: group.
    pub group: bool,
    /// `a`: ACL.
    pub acl: bool,
    /// `x`: extended attributes.
    pub xattr: bool,
    /// Not of the attributes but of the name: it should share its inode with other names and does not, or
    /// the other way round. Shown as `h` in the first column.
    pub links: bool,
}

impl Differs {
    /// Whether anything differs.
    pub fn any(self) -> bool {
        self != Differs::default()
    }
}

/// What happened, or with `--dry-run` would happen, to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Item {
    /// It was not there and is made.
    Made(Kind),
    /// It was there, and its content is replaced.
    Replaced(Kind, Differs),
    /// Only its metadata is repaired.
    Fixed(Kind, Differs),
    /// A hard link is made; true if the name was not there before.
    Linked(Kind, bool),
    /// It is deleted, or moved to the trash.
    Deleted(Kind),
}

/// One line: an item and its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What happens.
    pub item: Item,
    /// To what.
    pub path: RelPath,
}

impl Item {
    /// What the entry is.
    pub fn kind(self) -> Kind {
        match self {
            Item::Made(k)
            | Item::Replaced(k, _)
            | Item::Fixed(k, _)
            | Item::Linked(k, _)
            | Item::Deleted(k) => k,
        }
    }
}

impl Item {
    /// The eleven columns of rsync's `%i`. ASCII.
    pub fn columns(self) -> [u8; 11] {
        let kind = match self.kind() {
            Kind::File | Kind::Unknown => b'f',
            Kind::Dir => b'd',
            Kind::Symlink => b'L',
            Kind::CharDevice | Kind::BlockDevice => b'D',
            Kind::Fifo | Kind::Socket => b'S',
        };
        // files are "transferred", all else is changed locally
        let moved = if kind == b'f' { b'>' } else { b'c' };
        let two = |rest: &[u8; 9], first| {
            let mut all = [first, kind, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            all[2..].copy_from_slice(rest);
            all
        };
        match self {
            Item::Deleted(_) => *b"*deleting  ",
            Item::Made(_) => two(b"+++++++++", moved),
            Item::Linked(_, true) => two(b"+++++++++", b'h'),
            Item::Linked(_, false) => two(b"         ", b'h'),
            Item::Replaced(_, d) | Item::Fixed(_, d) => {
                let first = match self {
                    Item::Replaced(..) => moved,
                    _ if d.links => b'h',
                    _ => b'.',
                };
                let on = |yes: bool, c: u8| if yes { c } else { b'.' };
                let rest = [
                    on(d.content, b'c'),
                    on(d.size, b's'),
                    on(d.time, b't'),
                    on(d.perms, b'p'),
                    on(d.owner, b'o'),
                    on(d.group, b'g'),
                    b'.',
                    on(d.acl, b'a'),
                    on(d.xattr, b'x'),
                ];
                two(&rest, first)
            }
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.columns()).unwrap_or_default())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slash = match (self.path.is_root(), self.item.kind()) {
            (true, _) => "/",
            (_, Kind::Dir) => "/",
            _ => "",
        };
        write!(f, "{} {}{slash}", self.item, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_rsync() {
        let line = |item, path: &str| Change { item, path: RelPath::new(path).unwrap() }.to_string();
        let d = Differs { size: true, time: true, ..Differs::default() };
        assert_eq!(line(Item::Made(Kind::File), "a b"), ">f+++++++++ a b");
        assert_eq!(line(Item::Made(Kind::Dir), "d"), "cd+++++++++ d/");
        assert_eq!(line(Item::Made(Kind::Symlink), "l"), "cL+++++++++ l");
        assert_eq!(line(Item::Made(Kind::Fifo), "p"), "cS+++++++++ p");
        assert_eq!(line(Item::Replaced(Kind::File, d), "f"), ">f.st...... f");
        assert_eq!(
            line(Item::Fixed(Kind::File, Differs { perms: true, ..Differs::default() }), "f"),
            ".f...p..... f"
        );
        assert_eq!(
            line(Item::Fixed(Kind::Dir, Differs { time: true, ..Differs::default() }), ""),
            ".d..t...... ./"
        );
        assert_eq!(
            line(Item::Fixed(Kind::File, Differs { acl: true, xattr: true, ..Differs::default() }), "f"),
            ".f.......ax f"
        );
        assert_eq!(line(Item::Linked(Kind::File, true), "h"), "hf+++++++++ h");
        assert_eq!(line(Item::Deleted(Kind::File), "x"), "*deleting   x");
        assert_eq!(line(Item::Deleted(Kind::Dir), "x"), "*deleting   x/");
    }
}
