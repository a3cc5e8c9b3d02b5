//! What can be changed, and in which ways: the kinds of change, and the entries of a
//! tree sorted by what can happen to them.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::put::Meta;
use crate::rng::Rng;

/// A kind of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A new entry of any type.
    Create,
    /// An entry that is no directory goes.
    Remove,
    /// A directory goes with all that is in it.
    RemoveTree,
    /// An entry gets another name, maybe in another directory.
    Rename,
    /// Other bytes, as many as before, another time.
    Rewrite,
    /// More bytes at the end.
    Append,
    /// Shorter, or longer by a hole.
    Truncate,
    /// Another mode.
    Mode,
    /// Another owner and group.
    Owner,
    /// Another time, nothing else.
    Touch,
    /// File becomes directory, becomes symlink, becomes FIFO…
    Type,
    /// One name of a hard-link group becomes a file of its own, equal in all else.
    LinkSplit,
    /// A file becomes another name of another one.
    LinkJoin,
    /// One name of a hard-link group goes.
    LinkShrink,
    /// An extended attribute comes, changes or goes.
    Xattr,
    /// An ACL comes, changes or goes.
    Acl,
    /// A symlink points elsewhere.
    Retarget,
}

impl Change {
    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::Create,
        Self::Remove,
        Self::RemoveTree,
        Self::Rename,
        Self::Rewrite,
        Self::Append,
        Self::Truncate,
        Self::Mode,
        Self::Owner,
        Self::Touch,
        Self::Type,
        Self::LinkSplit,
        Self::LinkJoin,
        Self::LinkShrink,
        Self::Xattr,
        Self::Acl,
        Self::Retarget,
    ];
}

/// What there is to change, by kind.
pub(super) struct Scene {
    pub all: Vec<PathBuf>,
    pub dirs: Vec<PathBuf>,
    pub files: Vec<PathBuf>,
    pub links: Vec<PathBuf>,
    pub others: Vec<PathBuf>,
    pub grouped: Vec<PathBuf>,
}

impl Scene {
    pub fn of(root: &Path) -> io::Result<Self> {
        let all = listing(root)?;
        let mut scene = Self {
            all: Vec::new(),
            dirs: vec![],
            files: vec![],
            links: vec![],
            others: vec![],
            grouped: vec![],
        };
        for path in &all {
            let meta = fs::symlink_metadata(path)?;
            let list = match meta.file_type() {
                kind if kind.is_dir() => &mut scene.dirs,
                kind if kind.is_file() => &mut scene.files,
                kind if kind.is_symlink() => &mut scene.links,
                _ => &mut scene.others,
            };
            list.push(path.clone());
            if meta.is_file() && meta.nlink() > 1 {
                scene.grouped.push(path.clone());
            }
        }
        scene.all = all;
        Ok(scene)
    }
}

pub(super) fn one<'a>(rng: &mut Rng, paths: &'a [PathBuf]) -> Option<&'a PathBuf> {
    paths.get(rng.index(paths.len()))
}

pub(super) fn meta_of(meta: &fs::Metadata) -> Meta {
    Meta {
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        sec: meta.mtime(),
        nsec: meta.mtime_nsec(),
    }
}

/// Every path below `root`, parents before children, in the order of their names.
fn listing(root: &Path) -> io::Result<Vec<PathBuf>> {
    let mut all = Vec::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(dir) = left.pop() {
        let entries: BTreeSet<PathBuf> =
            fs::read_dir(&dir)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?;
        for path in entries {
            if fs::symlink_metadata(&path)?.is_dir() {
                left.push(path.clone());
            }
            all.push(path);
        }
    }
    Ok(all)
}
