//! Watches on all directories, and how they are added without a gap.
//!
//! A directory is watched first and listed then, so that what appears in between is told or listed. Events tell of
//! names as they were; when an event is read the tree may have changed again. So a directory that is reached by its
//! path is believed to be the one that is meant only if adding a watch to it yields the watch that it has.

use super::kernel::{add, begin, failed, is_fatal, is_gone};
use super::nodes::{Nodes, Placed, Watch};
use crate::Excluded;
use crate::beneath::{Root, directories, place_in};
use crate::error::Error;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::inotify;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString};
use treeferry_core::path::RelPath;

/// All watches of a source directory.
pub(super) struct Watches {
    pub(super) root: Root,
    pub(super) queue: OwnedFd,
    pub(super) nodes: Nodes,
    pub(super) excluded: Excluded,
    /// Directories of which some subdirectories are excluded, and thus not watched.
    spared: HashSet<Watch>,
    /// Directories that could not be listed, or of which some subdirectories could not be watched.
    denied: HashSet<Watch>,
    /// Directories that were not where they were looked for, and whether they have been looked for again since the
    /// last event.
    astray: HashMap<Watch, bool>,
    /// Directories that are mounted at a second place. The kernel has one watch for both, which is that of the first.
    twins: Vec<Twin>,
}

/// The second place of a directory.
struct Twin {
    dir: Watch,
    parent: Watch,
    name: CString,
}

/// What came of looking for a directory.
enum Reach {
    At(OwnedFd),
    /// It is not where it should be, or not any more.
    Astray,
    /// We may not.
    Denied,
}

impl Watches {
    /// Watches all directories.
    pub(super) fn new(root: Root, excluded: Excluded) -> Result<Watches, Error> {
        let (queue, nodes) = begin(&root)?;
        let mut watches = Watches {
            root,
            queue,
            nodes,
            excluded,
            spared: HashSet::new(),
            denied: HashSet::new(),
            astray: HashMap::new(),
            twins: Vec::new(),
        };
        watches.descend(vec![watches.nodes.root()])?;
        Ok(watches)
    }

    /// Forgets everything, and watches all directories anew.
    pub(super) fn begin_again(&mut self) -> Result<(), Error> {
        (self.queue, self.nodes) = begin(&self.root)?;
        self.spared.clear();
        self.denied.clear();
        self.astray.clear();
        self.twins.clear();
        self.descend(vec![self.nodes.root()])
    }

    /// Watches the directory of this name in a directory, and all below it. `None`: there is none (any more), it is
    /// excluded, or it cannot be watched.
    pub(super) fn look(&mut self, parent: Watch, name: &CStr) -> Result<Option<(Watch, Placed)>, Error> {
        let Some(path) = self.nodes.path(parent) else { return Ok(None) };
        if (self.excluded)(&path, name, true) {
            self.spared.insert(parent);
            return Ok(None);
        }
        match self.reach(parent)? {
            Reach::At(dir) => {
                let seen = self.look_in(dir.as_fd(), parent, name)?;
                match seen {
                    Some((watch, Placed::New)) => self.descend(vec![watch])?,
                    Some((_, Placed::Refused)) => self.is_astray(parent),
                    _ => {}
                }
                Ok(seen)
            }
            Reach::Astray => {
                self.is_astray(parent);
                Ok(None)
            }
            Reach::Denied => {
                self.denied.insert(parent);
                Ok(None)
            }
        }
    }

    /// Watches a directory in an open one, not what is below it.
    fn look_in(
        &mut self,
        dir: BorrowedFd<'_>,
        parent: Watch,
        name: &CStr,
    ) -> Result<Option<(Watch, Placed)>, Error> {
        let added = place_in(dir, name).and_then(|fd| add(&self.queue, fd.as_fd()));
        match added {
            Ok(watch) => {
                if self.is_twin(watch, parent, name)? {
                    return Ok(Some((watch, Placed::Here)));
                }
                let placed = self.place(watch, parent, name);
                if placed == Placed::Refused && !self.nodes.has(watch) {
                    let _ = inotify::remove_watch(&self.queue, watch);
                }
                Ok(Some((watch, placed)))
            }
            Err(errno) if is_gone(errno) => Ok(None),
            Err(errno) if is_fatal(errno) => Err(failed(errno)),
            Err(errno) => {
                if self.denied.insert(parent) {
                    let path = self.nodes.path(parent).unwrap_or_default().child(name);
                    tracing::warn!("{path} cannot be watched: {errno}");
                }
                Ok(None)
            }
        }
    }

    /// Whether a directory that was found somewhere is at another place too, which only a mount can bring about; if so that
    /// is noted.
    fn is_twin(&mut self, dir: Watch, parent: Watch, name: &CStr) -> Result<bool, Error> {
        let nodes = &self.nodes;
        if !nodes.has(dir) || nodes.is_detached(dir) || nodes.child(parent, name) == Some(dir) {
            return Ok(false);
        }
        if !matches!(self.reach(dir)?, Reach::At(_)) {
            // it was renamed
            return Ok(false);
        }
        if !self.twins.iter().any(|t| (t.dir, t.parent, &*t.name) == (dir, parent, name)) {
            self.twins.push(Twin { dir, parent, name: name.to_owned() });
        }
        Ok(true)
    }

    /// Whether directories that have a second place are at or below this one.
    pub(super) fn has_twins_below(&self, point: &RelPath) -> bool {
        self.twins.iter().any(|t| self.nodes.path(t.dir).is_some_and(|dir| point.covers(&dir)))
    }

    /// Something was mounted or unmounted there: it is the second place of nothing any more.
    pub(super) fn forget_twin(&mut self, point: &RelPath) {
        let nodes = &self.nodes;
        self.twins.retain(|t| nodes.path(t.parent).is_some_and(|dir| dir.child(&t.name) != *point));
    }

    /// Under which other paths the entry at this one is seen.
    pub(super) fn seen_also(&self, path: &RelPath) -> Vec<RelPath> {
        if self.twins.is_empty() {
            return Vec::new();
        }
        let places = self
            .twins
            .iter()
            .filter_map(|t| Some((self.nodes.path(t.dir)?, self.nodes.path(t.parent)?.child(&t.name))));
        let places: Vec<(RelPath, RelPath)> = places.collect();
        let mut all = vec![path.clone()];
        // a second place may lie in a directory that has one itself; nothing is twice in itself
        for _ in 0..places.len() {
            let before = all.len();
            for (first, second) in &places {
                let there = |p: &RelPath| carried(p, first, second);
                let more: Vec<RelPath> = all.iter().filter(|p| !second.covers(p)).filter_map(there).collect();
                all.extend(more.into_iter().filter(|p| !all.contains(p)).collect::<Vec<_>>());
            }
            if all.len() == before {
                break;
            }
        }
        all.remove(0);
        all
    }

    /// Puts a directory in its place; what was there before is not watched any more.
    pub(super) fn place(&mut self, watch: Watch, parent: Watch, name: &CStr) -> Placed {
        let mut removed = Vec::new();
        let placed = self.nodes.place(watch, parent, name, &mut removed);
        self.forget(removed);
        placed
    }

    /// Ends the watch of a directory and of all below it.
    pub(super) fn remove(&mut self, watch: Watch) {
        let mut removed = Vec::new();
        self.nodes.remove(watch, &mut removed);
        self.forget(removed);
    }

    fn forget(&mut self, removed: Vec<Watch>) {
        if !self.twins.is_empty() {
            self.twins.retain(|t| !removed.contains(&t.dir) && !removed.contains(&t.parent));
        }
        for watch in removed {
            self.spared.remove(&watch);
            self.denied.remove(&watch);
            self.astray.remove(&watch);
            // fails if the directory is gone, and the watch with it
            let _ = inotify::remove_watch(&self.queue, watch);
        }
    }

    /// Opens a directory of the tree, and makes sure that it is the one.
    fn reach(&mut self, watch: Watch) -> Result<Reach, Error> {
        let Some(path) = self.nodes.path(watch) else { return Ok(Reach::Astray) };
        let found = self.root.place(path.as_bytes()).and_then(|fd| Ok((add(&self.queue, fd.as_fd())?, fd)));
        match found {
            Ok((found, fd)) if found == watch => Ok(Reach::At(fd)),
            Ok((found, _)) => {
                if !self.nodes.has(found) {
                    let _ = inotify::remove_watch(&self.queue, found);
                }
                Ok(Reach::Astray)
            }
            Err(errno) if is_gone(errno) => Ok(Reach::Astray),
            Err(errno) if is_fatal(errno) => Err(failed(errno)),
            Err(errno) => {
                tracing::warn!("{path} cannot be watched: {errno}");
                Ok(Reach::Denied)
            }
        }
    }

    /// Opens a directory of the tree as what its path leads to now.
    pub(super) fn open(&self, path: &RelPath) -> Option<OwnedFd> {
        self.root.place(path.as_bytes()).ok()
    }

    /// Watches all below the directories, which are watched.
    fn descend(&mut self, mut todo: Vec<Watch>) -> Result<(), Error> {
        while let Some(watch) = todo.pop() {
            match self.reach(watch)? {
                Reach::At(dir) => self.list(dir.as_fd(), watch, true, &mut todo)?,
                Reach::Astray => self.is_astray(watch),
                Reach::Denied => {
                    self.denied.insert(watch);
                }
            }
        }
        Ok(())
    }

    /// Watches the directories in an open directory; those that were not known are added to `new`.
    fn list(
        &mut self,
        dir: BorrowedFd<'_>,
        watch: Watch,
        astray: bool,
        new: &mut Vec<Watch>,
    ) -> Result<(), Error> {
        let Some(path) = self.nodes.path(watch) else { return Ok(()) };
        let names = match directories(dir) {
            Ok(names) => names,
            Err(errno) if is_gone(errno) => return Ok(()),
            Err(errno) if is_fatal(errno) => return Err(failed(errno)),
            Err(errno) => {
                tracing::warn!("{path} cannot be listed, so what is below it is not watched: {errno}");
                self.denied.insert(watch);
                return Ok(());
            }
        };
        for name in names {
            if (self.excluded)(&path, &name, true) {
                self.spared.insert(watch);
                continue;
            }
            match self.look_in(dir, watch, &name)? {
                Some((child, Placed::New)) => new.push(child),
                Some((_, Placed::Refused)) if astray => self.is_astray(watch),
                Some((_, Placed::Refused)) => {
                    tracing::warn!(
                        "{} is watched at another place too, under which its changes are told",
                        path.child(&name)
                    );
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Lists a directory again. `false`: it was not where it should be.
    fn list_again(&mut self, watch: Watch) -> Result<bool, Error> {
        match self.reach(watch)? {
            Reach::At(dir) => {
                let mut new = Vec::new();
                self.list(dir.as_fd(), watch, false, &mut new)?;
                self.descend(new)?;
            }
            Reach::Astray => return Ok(false),
            Reach::Denied => {
                self.denied.insert(watch);
            }
        }
        Ok(true)
    }

    /// A directory of the tree was renamed: exclusion may mean other names than before.
    pub(super) fn renamed(&mut self, top: Watch) -> Result<Vec<RelPath>, Error> {
        let below: Vec<Watch> =
            self.spared.iter().copied().filter(|w| self.nodes.is_below(*w, top)).collect();
        let mut paths = self.allowed(top)?;
        for watch in below {
            self.spared.remove(&watch);
            if !self.list_again(watch)? {
                self.is_astray(watch);
            }
            paths.extend(self.nodes.path(watch));
        }
        Ok(paths)
    }

    /// Permissions of a directory have changed: tries again what was denied there and below it. Returns which
    /// directories were listed.
    pub(super) fn allowed(&mut self, top: Watch) -> Result<Vec<RelPath>, Error> {
        let below: Vec<Watch> =
            self.denied.iter().copied().filter(|w| self.nodes.is_below(*w, top)).collect();
        let mut paths = Vec::new();
        for watch in below {
            self.denied.remove(&watch);
            if !self.list_again(watch)? {
                self.is_astray(watch);
            }
            paths.extend(self.nodes.path(watch));
        }
        Ok(paths)
    }

    /// Whether subdirectories of this one could not be watched.
    pub(super) fn is_denied(&self, watch: Watch) -> bool {
        self.denied.contains(&watch)
    }

    /// A directory is not where it is thought to be: to be looked for again once more is known.
    pub(super) fn is_astray(&mut self, watch: Watch) {
        self.astray.insert(watch, false);
    }

    /// Whether no directory is astray.
    pub(super) fn is_settled(&self) -> bool {
        self.astray.is_empty()
    }

    /// There was an event, which may have told where directories are that are astray.
    pub(super) fn heard(&mut self) {
        self.astray.values_mut().for_each(|again| *again = false);
    }

    /// Looks again for what is astray, now that there are no more events. Returns the directories that were found,
    /// all below which is to be looked at. What was not found twice, without an event between, is gone.
    pub(super) fn settle(&mut self) -> Result<Vec<RelPath>, Error> {
        let mut paths = Vec::new();
        let astray: Vec<(Watch, bool)> = self.astray.drain().collect();
        for (watch, again) in astray {
            if !self.nodes.has(watch) {
                continue;
            }
            let found = self.list_again(watch)?;
            if !found && !again {
                self.astray.insert(watch, true);
                continue;
            }
            paths.extend(self.nodes.path(watch));
            if !found && watch != self.nodes.root() {
                self.remove(watch);
            }
        }
        Ok(paths)
    }
}

/// A path at or below one directory as one below another.
fn carried(path: &RelPath, from: &RelPath, to: &RelPath) -> Option<RelPath> {
    let rest = path.as_bytes().get(from.as_bytes().len()..).filter(|_| from.covers(path))?;
    let rest = rest.strip_prefix(b"/").unwrap_or(rest);
    let parts = [to.as_bytes(), rest];
    RelPath::new(parts.iter().filter(|p| !p.is_empty()).copied().collect::<Vec<_>>().join(&b'/')).ok()
}
