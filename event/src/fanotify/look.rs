//! What events mean for whoever listens.

use super::events::{Entry, Event};
use super::places::Places;
use super::told::Told;
use crate::aside::Aside;
use crate::batch::Batch;
use crate::beneath::{Root, is_name, made};
use crate::{Excluded, What};
use rustix::fd::AsFd;
use rustix::io::Errno;
use treeferry_core::path::RelPath;

/// Looks at the events of one read.
pub(super) struct Look<'a> {
    pub(super) places: Places<'a>,
    pub(super) excluded: &'a Excluded,
    pub(super) root: &'a Root,
    pub(super) batch: &'a mut Batch,
    pub(super) told: &'a mut Told,
    pub(super) aside: &'a mut Aside,
}

impl Look<'_> {
    /// Looks at one event.
    pub(super) fn take(&mut self, event: &Event<'_>) -> Result<(), Errno> {
        let is_dir = event.mask & libc::FAN_ONDIR != 0;
        if event.old.is_some() || event.new.is_some() {
            self.moved(event.old, event.new, is_dir)?;
        }
        let Some(entry) = event.entry else { return Ok(()) };
        for dir in self.places.of(entry.dir)?.iter() {
            if matches!(entry.name.to_bytes(), b"" | b".") {
                self.batch.add(dir.clone(), What::Attributes);
            } else if !is_name(entry.name) {
                self.batch.add(dir.clone(), What::Tree);
            } else if !(self.excluded)(dir, entry.name, is_dir) {
                self.batch.add(dir.child(entry.name), self.what(event.mask, is_dir, dir, entry));
            } else {
                let comes_or_goes =
                    libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO;
                if event.mask & comes_or_goes != 0 {
                    // whose time that changes
                    self.batch.add(dir.clone(), What::Attributes);
                }
                if !is_dir {
                    self.aside(event.mask, dir, entry);
                }
            }
        }
        Ok(())
    }

    /// An excluded name that is no directory: it is told if its file may have others.
    fn aside(&mut self, mask: u64, dir: &RelPath, entry: Entry<'_>) {
        let any = |bits: u64| mask & bits != 0;
        let path = dir.child(entry.name);
        let is_there = any(libc::FAN_CLOSE_WRITE | libc::FAN_MODIFY | libc::FAN_ATTRIB | libc::FAN_MOVED_TO);
        let is_told = if is_there {
            let dir = self.root.place(dir.as_bytes()).ok();
            self.aside.is_told(dir.as_ref().map(AsFd::as_fd), &path, entry.name)
        } else {
            any(libc::FAN_DELETE | libc::FAN_MOVED_FROM) && self.aside.was(&path)
        };
        if is_told {
            let is_open = mask & !libc::FAN_CREATE == libc::FAN_MODIFY;
            self.batch.add(path, if is_open { What::Open } else { What::Changed });
        }
    }

    /// What is to be said of an entry. Several things may have happened to it, which come as one event.
    fn what(&self, mask: u64, is_dir: bool, dir: &RelPath, entry: Entry<'_>) -> What {
        let any = |bits: u64| mask & bits != 0;
        if any(libc::FAN_DELETE | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO)
            || is_dir && any(libc::FAN_CREATE)
        {
            return if is_dir { What::Tree } else { What::Changed };
        }
        if any(libc::FAN_CLOSE_WRITE) {
            return What::Changed;
        }
        if any(libc::FAN_CREATE) {
            let dir = self.root.place(dir.as_bytes());
            return dir.map_or(What::Changed, |fd| made(fd.as_fd(), entry.name));
        }
        if any(libc::FAN_ATTRIB) { What::Attributes } else { What::Open }
    }

    fn moved(&mut self, old: Option<Entry<'_>>, new: Option<Entry<'_>>, is_dir: bool) -> Result<(), Errno> {
        if is_dir {
            self.places.forget();
        }
        for (entry, mask) in [(old, libc::FAN_MOVED_FROM), (new, libc::FAN_MOVED_TO)] {
            let Some(entry) = entry.filter(|e| is_name(e.name)) else { continue };
            for dir in self.places.of(entry.dir)?.iter() {
                if (self.excluded)(dir, entry.name, is_dir) {
                    self.batch.add(dir.clone(), What::Attributes);
                    if !is_dir {
                        self.aside(mask, dir, entry);
                    }
                }
            }
        }
        let old = self.seen(old, is_dir)?;
        let new = self.seen(new, is_dir)?;
        if let ([from], [to]) = (&old[..], &new[..]) {
            // Handles were looked up later than the events before came to pass: what was told for names that only
            // the rename has made true does not move along in whoever follows
            let again = is_dir && self.told.speaks_of(self.batch, to);
            let back = is_dir && self.told.speaks_of(self.batch, from);
            self.batch.add(to.clone(), What::Moved { from: from.clone(), dir: is_dir });
            for path in [again.then_some(to), back.then_some(from)].into_iter().flatten() {
                self.batch.add(path.clone(), What::Tree);
            }
        } else {
            for path in old.into_iter().chain(new) {
                self.batch.add(path, if is_dir { What::Tree } else { What::Changed });
            }
        }
        Ok(())
    }

    /// Under which paths an entry is seen.
    fn seen(&mut self, entry: Option<Entry<'_>>, is_dir: bool) -> Result<Vec<RelPath>, Errno> {
        let Some(entry) = entry.filter(|e| is_name(e.name)) else { return Ok(Vec::new()) };
        let dirs = self.places.of(entry.dir)?;
        let allowed = dirs.iter().filter(|dir| !(self.excluded)(dir, entry.name, is_dir));
        Ok(allowed.map(|dir| dir.child(entry.name)).collect())
    }
}
