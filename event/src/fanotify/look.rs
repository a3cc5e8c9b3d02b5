//! What events mean for whoever listens.

use super::events::{Entry, Event, Handle};
use super::objects::{CONTENT, Doubts, Objects, Owed, name_of};
use super::places::{Names, Places};
use super::search::{Search, inode_of};
use super::told::Told;
use crate::aside::Aside;
use crate::batch::Batch;
use crate::beneath::{Root, is_name, made};
use crate::{Excluded, What};
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::time::Duration;
use treeferry_core::path::RelPath;

/// How often a file is asked about whose name is not known.
const ATTEMPTS: usize = 5;

/// Looks at the events of one read.
pub(super) struct Look<'a> {
    pub(super) places: Places<'a>,
    pub(super) excluded: &'a Excluded,
    pub(super) root: &'a Root,
    pub(super) batch: &'a mut Batch,
    pub(super) told: &'a mut Told,
    pub(super) aside: &'a mut Aside,
    pub(super) objects: &'a mut Objects,
    pub(super) doubts: Doubts,
    pub(super) search: &'a mut Search,
    pub(super) owed: &'a mut Owed,
}

impl Look<'_> {
    /// Looks at one event.
    pub(super) fn take(&mut self, event: &Event<'_>) -> Result<(), Errno> {
        let is_dir = event.mask & libc::FAN_ONDIR != 0;
        if event.old.is_some() || event.new.is_some() {
            self.moved(event.old, event.new, is_dir)?;
        }
        if let Some(object) = event.object.filter(|_| !is_dir) {
            self.heed(event, object)?;
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

    /// Finds out whether a file has the name that an event tells, as far as that is to be doubted.
    fn heed(&mut self, event: &Event<'_>, object: Handle<'_>) -> Result<(), Errno> {
        let any = |bits: u64| event.mask & bits != 0;
        let renamed = event.new.filter(|e| is_name(e.name)).or(event.old);
        if let Some(entry) = renamed {
            self.doubts.heard(event.pid, true);
            if self.places.of(entry.dir)?.is_empty() {
                self.objects.lost(object, None);
            } else {
                self.objects.named(object, name_of(entry), 0);
            }
            return Ok(());
        }
        let Some(entry) = event.entry.filter(|e| is_name(e.name)) else {
            let told = self.objects.lost(object, None);
            self.doubts.add(object, told);
            match event.mask & CONTENT {
                libc::FAN_ATTRIB => self.doubts.counted(object, event.pid),
                what => self.doubts.add(object, what),
            }
            return Ok(());
        };
        self.doubts.heard(event.pid, any(libc::FAN_MOVED_TO));
        let name = name_of(entry);
        if any(libc::FAN_CREATE | libc::FAN_DELETE) {
            self.doubts.explained(object, event.pid);
        }
        if any(libc::FAN_DELETE | libc::FAN_MOVED_FROM) {
            let is_known = self.objects.has(object, name).is_some();
            let told = self.objects.lost(object, Some(name));
            if is_known || !self.places.of(entry.dir)?.is_empty() || self.places.is_removed(entry.dir) {
                self.doubts.add(object, told | event.mask);
            }
            return Ok(());
        }
        let dirs = self.places.of(entry.dir)?;
        if any(libc::FAN_CREATE | libc::FAN_MOVED_TO) {
            if !dirs.is_empty() {
                self.objects.named(object, name, event.mask);
            }
            return Ok(());
        }
        match self.objects.has(object, name) {
            Some(true) => self.objects.named(object, name, event.mask),
            _ if dirs.iter().any(|dir| self.places.is_at(dir, entry.name, object)) => {
                self.objects.named(object, name, event.mask);
            }
            // it had another name below the source, or never had one: else it is an ordinary file of somebody else
            None if dirs.is_empty()
                && !self.places.is_removed(entry.dir)
                && !entry.name.to_bytes().starts_with(b"#") => {}
            _ => self.doubts.add(object, event.mask),
        }
        Ok(())
    }

    /// All events of a read were looked at: asks for the names of files under whose names nothing may have been told.
    pub(super) fn end(&mut self) {
        for (whole, what) in std::mem::take(&mut self.doubts).end() {
            let Some(object) = Handle::of(&whole) else { continue };
            let (paths, several) = match self.names_of(object) {
                Names::Known { paths, several } => (paths, several),
                Names::Unknown(Some(file)) if self.search.is_possible() => {
                    match self.search.known(self.root, &file) {
                        Some(paths) => (paths, file.st_nlink > 1),
                        None => {
                            self.search.add(inode_of(&file), what);
                            continue;
                        }
                    }
                }
                Names::Unknown(_) => {
                    self.owed.add();
                    continue;
                }
            };
            for path in paths {
                let Some((dir, name)) = path.split() else { continue };
                if self.places.is_skipped(&dir) || !several && (self.excluded)(&dir, &name, false) {
                    continue;
                }
                self.batch.add(path, content(what));
            }
        }
    }

    /// What a file is called. One that is just being renamed, or gets its first name, is asked about again; not if there are
    /// files of which nobody knows the names already, for there may be many.
    fn names_of(&mut self, object: Handle<'_>) -> Names {
        let mut names = self.places.names_of(object);
        for _ in 1..ATTEMPTS {
            if !matches!(names, Names::Unknown(_)) || self.owed.is() || self.search.is_due() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
            names = self.places.names_of(object);
        }
        names
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
        if any(libc::FAN_CREATE) && !any(libc::FAN_CLOSE_WRITE) {
            let dir = self.root.place(dir.as_bytes());
            return dir.map_or(What::Changed, |fd| made(fd.as_fd(), entry.name));
        }
        content(mask)
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

/// What is to be said of a file whose content or metadata changed.
pub(super) fn content(mask: u64) -> What {
    let any = |bits: u64| mask & bits != 0;
    if any(libc::FAN_CLOSE_WRITE) {
        What::Changed
    } else if any(libc::FAN_ATTRIB) {
        What::Attributes
    } else {
        What::Open
    }
}
