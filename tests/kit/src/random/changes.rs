//! Random changes to a tree: what users do to one between two runs.
//!
//! Each change sets the times it would move, and at the end every directory that a
//! change reached into gets new times, so that equal trees stay equal.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::DEPTH;
use super::entries::{Maker, Sort, place};
use super::scene::{Change, Scene, meta_of, one};
use crate::caps::Caps;
use crate::oracle::attributes;
use crate::put::{self, Meta};
use crate::rng::Rng;

/// Applies `count` random changes to the tree at `root`; says which they were. A draw
/// that finds nothing to work on is repeated, so an empty tree only grows.
pub fn random_changes(root: &Path, seed: u64, count: usize, caps: &Caps) -> io::Result<Vec<Change>> {
    let mut changer = Changer {
        root: root.to_path_buf(),
        maker: Maker::new(Rng::new(seed), caps),
        reached: BTreeSet::new(),
    };
    let mut done = Vec::new();
    while done.len() < count {
        let change = changer.maker.rng.pick(&Change::ALL);
        // Whole trees go rarely, or little would be left.
        if change == Change::RemoveTree && changer.maker.rng.chance(0.7) {
            continue;
        }
        let scene = Scene::of(root)?;
        if changer.apply(change, &scene)? {
            done.push(change);
        }
    }
    changer.settle()?;
    Ok(done)
}

/// Changes one byte of one file, and puts the file's times back: only a comparison by
/// content can see it. `None` when the tree has no file with content.
pub fn hidden_change(root: &Path, seed: u64) -> io::Result<Option<PathBuf>> {
    let mut rng = Rng::new(seed);
    let mut scene = Scene::of(root)?;
    scene.files.retain(|path| fs::metadata(path).is_ok_and(|meta| meta.len() > 0));
    let Some(path) = one(&mut rng, &scene.files) else {
        return Ok(None);
    };
    let was = fs::metadata(path)?;
    let (dir, name) = place(path)?;
    let mut data = fs::read(path)?;
    let at = rng.index(data.len());
    data[at] ^= 0x55;
    let file = fs::OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path)?;
    put::write_at(file.as_fd(), &data[at..=at], at as u64)?;
    put::times(dir.as_fd(), name, &meta_of(&was))?;
    Ok(Some(path.clone()))
}

struct Changer {
    root: PathBuf,
    maker: Maker,
    /// Directories whose own times have to be set at the end.
    reached: BTreeSet<PathBuf>,
}

impl Changer {
    /// Applies one change, unless there is nothing to apply it to.
    fn apply(&mut self, change: Change, scene: &Scene) -> io::Result<bool> {
        let rng = &mut self.maker.rng;
        let from: &[PathBuf] = match change {
            Change::Create => std::slice::from_ref(&self.root),
            Change::Remove => match rng.below(3) {
                0 => &scene.links,
                1 => &scene.others,
                _ => &scene.files,
            },
            Change::RemoveTree => &scene.dirs,
            Change::Rename | Change::Touch | Change::Type | Change::Owner => &scene.all,
            Change::Mode | Change::Xattr | Change::Acl if rng.chance(0.3) => &scene.dirs,
            Change::Mode if rng.chance(0.2) => &scene.others,
            Change::Mode | Change::Xattr | Change::Acl => &scene.files,
            Change::Rewrite | Change::Append | Change::Truncate | Change::LinkJoin => &scene.files,
            Change::LinkSplit | Change::LinkShrink => &scene.grouped,
            Change::Retarget => &scene.links,
        };
        let Some(path) = one(rng, from).cloned() else {
            return Ok(false);
        };
        match change {
            Change::Create => self.create(scene)?,
            Change::Remove | Change::LinkShrink => self.remove(&path)?,
            Change::RemoveTree => self.remove(&path)?,
            Change::Rename => return self.rename(&path, scene),
            Change::Rewrite | Change::Append | Change::Truncate => return self.write(&path, change),
            Change::Mode => {
                let is_dir = path.is_dir();
                let mode = self.maker.meta(is_dir).mode;
                let (dir, name) = place(&path)?;
                put::mode(dir.as_fd(), name, mode)?;
            }
            Change::Owner => {
                if !self.maker.caps.owners {
                    return Ok(false);
                }
                let meta = self.maker.meta(false);
                let (dir, name) = place(&path)?;
                put::owner(dir.as_fd(), name, &meta)?;
            }
            Change::Touch => self.touch(&path)?,
            Change::Type => self.change_type(&path)?,
            Change::LinkSplit => self.split(&path)?,
            Change::LinkJoin => return self.join(&path, scene),
            Change::Xattr => return self.xattr(&path),
            Change::Acl => return self.acl(&path),
            Change::Retarget => {
                self.remove(&path)?;
                self.maker.entry(&path, Sort::Symlink)?;
            }
        }
        Ok(true)
    }

    /// The directory of `path` changes with it.
    fn reach(&mut self, path: &Path) {
        self.reached.extend(path.parent().map(Path::to_path_buf));
    }

    fn create(&mut self, scene: &Scene) -> io::Result<()> {
        let root = self.root.clone();
        let index = self.maker.rng.index(scene.dirs.len() + 1);
        let parent = scene.dirs.get(index).unwrap_or(&root);
        let path = self.maker.free_name(parent);
        self.fill(&path)
    }

    /// Makes something at a path that is free.
    fn fill(&mut self, path: &Path) -> io::Result<()> {
        self.reach(path);
        let depth = path.components().count() - self.root.components().count();
        match self.maker.sort(depth <= DEPTH) {
            Sort::Dir => {
                self.maker.dir(path)?;
                for _ in 0..self.maker.rng.below(4) {
                    let inner = self.maker.free_name(path);
                    self.maker.entry(&inner, Sort::File)?;
                }
                self.maker.finish_dir(path)
            }
            sort => self.maker.entry(path, sort),
        }
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.reach(path);
        if fs::symlink_metadata(path)?.is_dir() {
            fs::remove_dir_all(path)?;
            self.reached.retain(|dir| !dir.starts_with(path));
        } else {
            fs::remove_file(path)?;
        }
        Ok(())
    }

    fn rename(&mut self, path: &Path, scene: &Scene) -> io::Result<bool> {
        let index = self.maker.rng.index(scene.dirs.len() + 1);
        let parent = scene.dirs.get(index).unwrap_or(&self.root).clone();
        let deepest = parent.components().count() - self.root.components().count();
        let is_dir = fs::symlink_metadata(path)?.is_dir();
        if parent.starts_with(path) || (is_dir && deepest >= DEPTH) {
            return Ok(false);
        }
        let new = self.maker.free_name(&parent);
        self.reach(path);
        self.reach(&new);
        fs::rename(path, &new)?;
        // What was reached below it has moved along.
        let moved: Vec<PathBuf> = self.reached.iter().filter(|dir| dir.starts_with(path)).cloned().collect();
        for old in moved {
            self.reached.remove(&old);
            let rest = old.strip_prefix(path).unwrap_or(Path::new(""));
            self.reached.insert(new.join(rest).components().collect());
        }
        Ok(true)
    }

    /// Changes content; the file's other metadata stays, its time does not.
    fn write(&mut self, path: &Path, change: Change) -> io::Result<bool> {
        let was = fs::metadata(path)?;
        let file = fs::OpenOptions::new().write(true).open(path)?;
        let size = was.len();
        let mut data = self.maker.bytes(40_000);
        match change {
            Change::Append if !data.is_empty() => put::write_at(file.as_fd(), &data, size)?,
            Change::Truncate if size > 0 => {
                // Shorter, or a little longer, but never the same.
                let mut new = self.maker.rng.below(size + size / 4 + 1);
                new += u64::from(new == size);
                rustix::fs::ftruncate(&file, new)?;
            }
            Change::Rewrite if size > 0 => {
                let offset = self.maker.rng.below(size);
                data.truncate((size - offset).min(data.len() as u64) as usize);
                if data.is_empty() {
                    return Ok(false);
                }
                put::write_at(file.as_fd(), &data, offset)?;
            }
            _ => return Ok(false),
        }
        // A write may have cleared set-id bits: that is what the mode is now.
        self.touch(path)?;
        Ok(true)
    }

    /// Gives the entry itself other times than it has.
    fn touch(&mut self, path: &Path) -> io::Result<()> {
        let was = meta_of(&fs::symlink_metadata(path)?);
        let (sec, nsec) = loop {
            let time = self.maker.time();
            if time != (was.sec, was.nsec) {
                break time;
            }
        };
        let (dir, name) = place(path)?;
        put::times(dir.as_fd(), name, &Meta { sec, nsec, ..was })?;
        self.reached.remove(path);
        Ok(())
    }

    fn change_type(&mut self, path: &Path) -> io::Result<()> {
        let was = fs::symlink_metadata(path)?.file_type();
        self.remove(path)?;
        loop {
            self.fill(path)?;
            if fs::symlink_metadata(path)?.file_type() != was {
                return Ok(());
            }
            self.remove(path)?;
        }
    }

    /// A copy that is equal in all but its inode takes the name's place.
    fn split(&mut self, path: &Path) -> io::Result<()> {
        let meta = meta_of(&fs::metadata(path)?);
        let data = fs::read(path)?;
        let (dir, name) = place(path)?;
        let dir = dir.as_fd();
        let mut scratch = Vec::new();
        let attributes = attributes::read(dir, name, &mut scratch)?;
        self.remove(path)?;
        put::file(dir, name, &data, &meta)?;
        for key in attributes::read(dir, name, &mut scratch)?.into_keys() {
            // Inherited from the directory's default ACL.
            rustix::fs::lremovexattr(path, &key[..])?;
        }
        put::mode(dir, name, meta.mode)?;
        for (key, value) in attributes {
            put::xattr(dir, name, &key, &value)?;
        }
        put::times(dir, name, &meta)
    }

    fn join(&mut self, path: &Path, scene: &Scene) -> io::Result<bool> {
        let Some(other) = one(&mut self.maker.rng, &scene.files) else {
            return Ok(false);
        };
        if fs::metadata(other)?.ino() == fs::metadata(path)?.ino() {
            return Ok(false);
        }
        self.remove(path)?;
        fs::hard_link(other, path)?;
        Ok(true)
    }

    fn xattr(&mut self, path: &Path) -> io::Result<bool> {
        if !self.maker.caps.user_xattrs {
            return Ok(false);
        }
        if self.maker.rng.chance(0.3) {
            return Ok(rustix::fs::lremovexattr(path, "user.a").is_ok());
        }
        let (dir, name) = place(path)?;
        self.maker.set_xattrs(dir.as_fd(), name, true)?;
        Ok(true)
    }

    fn acl(&mut self, path: &Path) -> io::Result<bool> {
        if !self.maker.caps.acls {
            return Ok(false);
        }
        if self.maker.rng.chance(0.3) {
            return Ok(rustix::fs::lremovexattr(path, "system.posix_acl_access").is_ok());
        }
        let (dir, name) = place(path)?;
        self.maker.set_acl(dir.as_fd(), name, path.is_dir())?;
        Ok(true)
    }

    /// Sets the times of the directories that were reached into, deepest first.
    fn settle(&mut self) -> io::Result<()> {
        for dir in std::mem::take(&mut self.reached).into_iter().rev() {
            self.touch(&dir)?;
        }
        Ok(())
    }
}
