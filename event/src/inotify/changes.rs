//! What events mean: for the tree of watches, and for whoever listens.

use super::events::Event;
use super::nodes::{Placed, Watch};
use super::watches::Watches;
use super::whole;
use crate::What;
use crate::aside::Aside;
use crate::batch::Batch;
use crate::beneath::{is_name, made};
use crate::error::Error;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::inotify::ReadFlags;
use std::ffi::{CStr, CString};
use treeferry_core::path::RelPath;

/// The first half of a rename.
struct Leaving {
    cookie: u32,
    parent: Watch,
    name: CString,
    /// Where it was when this half was read.
    path: RelPath,
    is_dir: bool,
    watch: Option<Watch>,
}

/// Follows events.
pub(super) struct Changes {
    pub(super) watches: Watches,
    leaving: Vec<Leaving>,
    aside: Aside,
    /// The directory in which an entry was looked at last.
    open: Option<(Watch, OwnedFd)>,
    /// The queue overflowed: all watches are to be made anew.
    pub(super) overflowed: bool,
    /// Why changes may be missed.
    pub(super) lost: Option<&'static str>,
    /// The source directory is not there any more.
    pub(super) gone: bool,
}

impl Changes {
    pub(super) fn new(watches: Watches) -> Changes {
        let (leaving, aside) = (Vec::new(), Aside::default());
        Changes { watches, leaving, aside, open: None, overflowed: false, lost: None, gone: false }
    }

    /// Follows one event.
    pub(super) fn take(&mut self, event: &Event<'_>, batch: &mut Batch) -> Result<(), Error> {
        let mask = event.mask;
        // that a watch is gone which is not known, as one that was added on trial, tells nothing
        if !mask.contains(ReadFlags::IGNORED) || self.watches.nodes.has(event.watch) {
            self.watches.heard();
        }
        if mask.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.overflowed = true;
            return Ok(());
        }
        let Some(dir) = self.watches.nodes.path(event.watch) else {
            if mask.contains(ReadFlags::IGNORED) {
                self.watches.remove(event.watch);
            } else if self.watches.nodes.has(event.watch) {
                // on its way from a directory that is not known any more
                self.watches.is_astray(event.watch);
            }
            return Ok(());
        };
        match event.name {
            Some(name) if is_name(name) => self.entry(event, dir, name, batch),
            Some(_) => {
                batch.add(dir, What::Tree);
                Ok(())
            }
            None => self.itself(event, dir, batch),
        }
    }

    /// A watched directory itself.
    fn itself(&mut self, event: &Event<'_>, dir: RelPath, batch: &mut Batch) -> Result<(), Error> {
        let mask = event.mask;
        let is_root = event.watch == self.watches.nodes.root();
        if is_root && mask.intersects(ReadFlags::DELETE_SELF | ReadFlags::UNMOUNT | ReadFlags::IGNORED) {
            self.gone = true;
        } else if mask.contains(ReadFlags::IGNORED) {
            self.watches.remove(event.watch);
        } else if mask.contains(ReadFlags::UNMOUNT) {
            batch.add(dir, What::Tree);
        } else if mask.contains(ReadFlags::MOVE_SELF) {
            if is_root {
                self.lost = Some("the source directory was moved");
            }
        } else if mask.contains(ReadFlags::ATTRIB) {
            batch.add(dir, What::Attributes);
            self.open = None;
            for path in self.watches.allowed(event.watch)? {
                batch.add(path, What::Tree);
            }
        }
        Ok(())
    }

    /// An entry of a watched directory.
    fn entry(
        &mut self,
        event: &Event<'_>,
        dir: RelPath,
        name: &CStr,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        let (parent, mask) = (event.watch, event.mask);
        let is_dir = mask.contains(ReadFlags::ISDIR);
        let path = dir.child(name);
        let excluded = (self.watches.excluded)(&dir, name, is_dir);
        let comes_or_goes =
            ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
        if excluded && mask.intersects(comes_or_goes) {
            // whose time that changes
            batch.add(dir.clone(), What::Attributes);
        }
        if mask.contains(ReadFlags::MOVED_FROM) {
            let watch = if is_dir { self.watches.nodes.detach(parent, name) } else { None };
            let leaving = Leaving { cookie: event.cookie, parent, name: name.into(), path, is_dir, watch };
            self.open = None;
            if !excluded {
                self.leaving.push(leaving);
            } else {
                if !is_dir && self.aside.was(&leaving.path) {
                    batch.add(leaving.path.clone(), What::Changed);
                }
                self.gone_from(&leaving)?;
            }
            return Ok(());
        }
        if mask.contains(ReadFlags::MOVED_TO) {
            let other = self.leaving.iter().position(|l| l.cookie == event.cookie);
            let other = other.map(|i| self.leaving.remove(i));
            self.open = None;
            return match (excluded, other) {
                (true, other) => {
                    if let Some(leaving) = other {
                        self.left(leaving, batch)?;
                    }
                    if is_dir {
                        // to note that one is excluded here
                        self.watches.look(parent, name)?;
                    } else if self.is_told_aside(parent, &dir, &path, name) {
                        batch.add(path, What::Changed);
                    }
                    Ok(())
                }
                (false, None) => self.appeared(parent, name, path, is_dir, batch),
                (false, Some(leaving)) => self.moved(leaving, parent, name, path, batch),
            };
        }
        if mask.contains(ReadFlags::CREATE) && is_dir {
            return self.appeared(parent, name, path, true, batch);
        }
        if excluded {
            let is_told = match mask {
                m if is_dir || m.contains(ReadFlags::CREATE) => false,
                m if m.contains(ReadFlags::DELETE) => self.aside.was(&path),
                _ => self.is_told_aside(parent, &dir, &path, name),
            };
            if is_told {
                let is_open = mask.contains(ReadFlags::MODIFY);
                batch.add(path, if is_open { What::Open } else { What::Changed });
            }
            return Ok(());
        }
        let what = if mask.contains(ReadFlags::CREATE) {
            self.what_was_made(parent, &dir, name)
        } else if mask.contains(ReadFlags::DELETE) {
            // the watch of a directory ends by itself
            whole(is_dir)
        } else if mask.contains(ReadFlags::CLOSE_WRITE) {
            What::Changed
        } else if mask.contains(ReadFlags::MODIFY) {
            What::Open
        } else {
            What::Attributes
        };
        let is_permission = is_dir && what == What::Attributes;
        if is_permission && self.watches.is_denied(parent) {
            return self.appeared(parent, name, path, true, batch);
        }
        batch.add(path, what);
        Ok(())
    }

    /// Something is there that was not known before.
    fn appeared(
        &mut self,
        parent: Watch,
        name: &CStr,
        path: RelPath,
        is_dir: bool,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        if is_dir {
            let excluded = path.split().is_some_and(|(dir, _)| (self.watches.excluded)(&dir, name, true));
            self.watches.look(parent, name)?;
            if excluded {
                return Ok(());
            }
        }
        batch.add(path, whole(is_dir));
        Ok(())
    }

    /// A rename within the source.
    fn moved(
        &mut self,
        leaving: Leaving,
        parent: Watch,
        name: &CStr,
        path: RelPath,
        batch: &mut Batch,
    ) -> Result<(), Error> {
        let Leaving { parent: old_parent, name: old_name, path: old_path, is_dir, watch, .. } = leaving;
        let from = self.watches.nodes.path(old_parent).map(|dir| dir.child(&old_name));
        let known = from.is_some();
        let moved = What::Moved { from: from.unwrap_or(old_path), dir: is_dir };
        batch.add(path.clone(), moved);
        if !is_dir {
            return Ok(());
        }
        let found = self.watches.look(parent, name)?;
        if found.is_none() || found.map(|(w, _)| w) != watch {
            // the tree has changed again since
            if found.is_some() {
                batch.add(path.clone(), What::Tree);
            }
            if let Some((_, Placed::New)) = self.watches.look(old_parent, &old_name)?
                && let Some(dir) = self.watches.nodes.path(old_parent)
            {
                batch.add(dir.child(&old_name), What::Tree);
            }
            if let Some(watch) = watch.filter(|w| self.watches.nodes.is_detached(*w)) {
                if found.is_some() {
                    self.watches.remove(watch);
                } else if self.watches.place(watch, parent, name) == Placed::Refused {
                    // where it is now will be told
                    self.watches.is_astray(parent);
                }
            }
        }
        if !known {
            batch.add(path, What::Tree);
        }
        if let Some(watch) = self.watches.nodes.child(parent, name) {
            for path in self.watches.renamed(watch)? {
                batch.add(path, What::Tree);
            }
        }
        Ok(())
    }

    /// Something was moved out of the source, or under an excluded name.
    fn left(&mut self, leaving: Leaving, batch: &mut Batch) -> Result<(), Error> {
        self.gone_from(&leaving)?;
        let dir = self.watches.nodes.path(leaving.parent);
        let path = dir.map_or(leaving.path, |dir| dir.child(&leaving.name));
        batch.add(path, whole(leaving.is_dir));
        Ok(())
    }

    /// A directory has another name now, or none. Its old one may have been taken by another directory in the same
    /// moment: an exchange with something outside.
    fn gone_from(&mut self, leaving: &Leaving) -> Result<(), Error> {
        if let Some(watch) = leaving.watch {
            self.watches.look(leaving.parent, &leaving.name)?;
            if self.watches.nodes.is_detached(watch) {
                self.watches.remove(watch);
            }
        }
        Ok(())
    }

    /// Something was mounted or unmounted.
    pub(super) fn mounted(&mut self, point: &RelPath, batch: &mut Batch) -> Result<(), Error> {
        self.watches.forget_twin(point);
        if let Some((dir, name)) = point.split()
            && let Some(parent) = self.watches.nodes.find(&dir)
        {
            self.appeared(parent, &name, point.clone(), true, batch)?;
        }
        Ok(())
    }

    fn what_was_made(&mut self, parent: Watch, dir: &RelPath, name: &CStr) -> What {
        self.open(parent, dir);
        self.open.as_ref().map_or(What::Changed, |(_, fd)| made(fd.as_fd(), name))
    }

    /// Something happened to an excluded name that is no directory: whether that is to be told.
    fn is_told_aside(&mut self, parent: Watch, dir: &RelPath, path: &RelPath, name: &CStr) -> bool {
        self.open(parent, dir);
        self.aside.is_told(self.open.as_ref().map(|(_, fd)| fd.as_fd()), path, name)
    }

    /// Opens the directory in which an entry is to be looked at, if it is not open.
    fn open(&mut self, parent: Watch, dir: &RelPath) {
        if self.open.as_ref().is_none_or(|(watch, _)| *watch != parent) {
            self.open = self.watches.open(dir).map(|fd| (parent, fd));
        }
    }

    /// Closes the directory in which an entry was looked at last.
    pub(super) fn forget_open(&mut self) {
        self.open = None;
    }

    /// Whether the source directory is gone. As it is open, the kernel does not tell that it was removed.
    pub(super) fn is_gone(&mut self) -> bool {
        self.gone |= self.watches.root.is_removed();
        self.gone
    }

    /// Whether nothing waits for more events.
    pub(super) fn is_settled(&self) -> bool {
        self.leaving.is_empty() && self.watches.is_settled()
    }

    /// There are no more events: what waits for some is dealt with as it is.
    pub(super) fn settle(&mut self, batch: &mut Batch) -> Result<(), Error> {
        for leaving in std::mem::take(&mut self.leaving) {
            self.left(leaving, batch)?;
        }
        for path in self.watches.settle()? {
            batch.add(path, What::Tree);
        }
        Ok(())
    }

    /// Makes all watches anew.
    pub(super) fn begin_again(&mut self) -> Result<(), Error> {
        self.leaving.clear();
        self.open = None;
        self.watches.begin_again()
    }
}
