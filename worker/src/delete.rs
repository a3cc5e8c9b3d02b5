//! The delete pass: removes what the target has and the source has not, or moves it to the trash. What that is in a
//! directory is found in `tidy`.
//!
//! An entry is only deleted if the listing of the corresponding source directory came to its end without an
//! error, the source itself answers ENOENT for this very name, and the source root still is the one that the
//! job began with.

use crate::chunk::split;
use crate::compare::kind;
use crate::dir::{Other, refuse_root};
use crate::roots::numbered;
use crate::trouble::{On, Res, Trouble};
use crate::worker::{Sink, Worker};
use crate::xattrs;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use treeferry_core::task::MAX_ATTEMPTS;
use treeferry_core::{Item, JoinId, Names, NewTask, Outcome, RelPath, Seal, Side, Task, Work};
use treeferry_fs::meta::{fstat, stat};
use treeferry_fs::xattr::At;
use treeferry_fs::{AsFd, BorrowedFd, Kind, OwnedFd, attr, entry};

/// Names in one remove task; up to as many are removed on the spot.
pub(crate) const BATCH_NAMES: usize = 512;

/// Whether an entry that was listed is a directory; a file system that does not say so in a listing is asked.
pub(crate) fn is_dir_there(d: BorrowedFd<'_>, name: &CStr, listed: Kind) -> bool {
    match listed {
        Kind::Unknown => stat(d, name).is_ok_and(|m| m.kind == Kind::Dir),
        k => k == Kind::Dir,
    }
}

impl Worker {
    /// Runs a task that removes a directory with what is in it. A chain of directories that hold nothing but the
    /// next is gone down in one task: a task for each would keep its whole path until the end of the chain.
    pub(crate) fn remove(
        &mut self,
        task: &Task,
        path: &RelPath,
        sink: &mut dyn Sink,
        out: &mut Outcome,
    ) -> Res<()> {
        let (mut path, mut above) = (path.clone(), 0);
        loop {
            match self.empty(&path, sink, out) {
                Ok(Emptied::Gone) if above == 0 => return Ok(()),
                Ok(Emptied::Gone) => {
                    path = split(&path)?.0;
                    return self.remove_dirs(&path, above - 1, out);
                }
                Ok(Emptied::All) => return self.remove_dirs(&path, above, out),
                Ok(Emptied::But(name)) => {
                    path = path.child(&name);
                    above += 1;
                }
                Ok(Emptied::Later(join)) => {
                    let follow_up = NewTask::new(task.join, Work::RemoveDir { path, above });
                    out.seals.push(Seal { join, tally: 0, follow_up });
                    return Ok(());
                }
                Err(t) if above == 0 => return Err(t),
                // nothing of this task is to be done twice: it has counted what it removed further up
                Err(t) => {
                    self.name_or_defer(t, || path, out);
                    return Ok(());
                }
            }
        }
    }

    /// Removes what is in a directory, or gives it away.
    fn empty(&mut self, path: &RelPath, sink: &mut dyn Sink, out: &mut Outcome) -> Res<Emptied> {
        self.ours()?;
        if !self.job.source_is_there() {
            return Err(source_lost());
        }
        let Some(fd) = unless_gone(self.open_for_removal(path))? else { return Ok(Emptied::Gone) };
        refuse_root(&self.job, &fstat(fd.as_fd()).dst()?, Other::Source)?;
        if unless_gone(self.refuse_mount(path, fd.as_fd()))?.is_none() {
            return Ok(Emptied::Gone);
        }
        let mut lister = std::mem::take(&mut self.dst_lister);
        let (mut names, mut join, mut only) = (Names::default(), None, None);
        let job = Arc::clone(&self.job);
        let give = |work, join: &mut Option<JoinId>, out: &mut Outcome| {
            let j = *join.get_or_insert_with(|| {
                let j = job.new_join();
                out.opened.push(j);
                j
            });
            out.children.push(NewTask::new(Some(j), work));
        };
        let r = lister.list(fd.as_fd(), |name, _, k| {
            let is_dir = is_dir_there(fd.as_fd(), name, k);
            if self.job.is_protected(path, name, is_dir) || self.is_of_live_run(fd.as_fd(), name) {
                return true;
            }
            if is_dir && join.is_none() && only.is_none() {
                only = Some(name.to_owned());
            } else if is_dir {
                if let Some(first) = only.take() {
                    give(Work::Remove { path: path.child(&first) }, &mut join, out);
                }
                give(Work::Remove { path: path.child(name) }, &mut join, out);
            } else {
                names.push(name, kind(k));
                if names.len() >= BATCH_NAMES && sink.pressed() {
                    self.remove_in(path, fd.as_fd(), &std::mem::take(&mut names), out);
                } else if names.len() >= BATCH_NAMES {
                    let names = std::mem::take(&mut names);
                    give(Work::RemoveNames { dir: path.clone(), names }, &mut join, out);
                }
            }
            if out.children.len() >= BATCH_NAMES {
                sink.flush(out, None);
            }
            sink.tell(out);
            !self.job.stop.is_set()
        });
        self.dst_lister = lister;
        // a directory that somebody else has removed since it was opened cannot be listed
        let complete = unless_gone(r.dst());
        if let (Some(_), Some(first)) = (join, only.take_if(|_| join.is_some())) {
            give(Work::Remove { path: path.child(&first) }, &mut join, out);
        }
        if !out.children.is_empty() && sink.hungry() {
            sink.flush(out, None);
        }
        self.remove_in(path, fd.as_fd(), &names, out);
        match (join, only) {
            (Some(join), _) => {
                if let Err(t) = complete {
                    self.name_or_defer(t, || path.clone(), out);
                }
                Ok(Emptied::Later(join))
            }
            (None, only) => Ok(match complete? {
                Some(_) => only.map_or(Emptied::All, Emptied::But),
                None => Emptied::Gone,
            }),
        }
    }

    /// Refuses to empty a directory on which something is mounted: what is in it may be anybody's.
    fn refuse_mount(&self, path: &RelPath, fd: BorrowedFd<'_>) -> Res<()> {
        let mount = treeferry_fs::root::mount_of(fd);
        if self.job.dst.as_ref().is_some_and(|r| mount.is_none_or(|m| m == r.identity().mount)) {
            return Ok(());
        }
        let above = self.target_dir(&split(path)?.0)?;
        if treeferry_fs::root::mount_of(above.as_fd()) == mount {
            return Ok(());
        }
        let text = "something is mounted here: what a mount shows is never deleted";
        Err(Trouble::Finding(Side::Target, "delete", text.to_owned()))
    }

    /// Opens a directory that is to be emptied; where its mode keeps us out, that is changed.
    fn open_for_removal(&self, path: &RelPath) -> Res<OwnedFd> {
        match self.target_dir(path) {
            Err(Trouble::Call(_, e)) if e.is_refused() && !self.job.spec.dry_run => {
                let (up, name) = split(path)?;
                let d = self.target_dir(&up)?;
                attr::set_mode_at(d.as_fd(), &name, 0o700).dst()?;
                self.target_dir(path)
            }
            r => r,
        }
    }

    /// Runs a task that removes names of a directory.
    pub(crate) fn remove_names(&mut self, dir: &RelPath, names: &Names, out: &mut Outcome) -> Res<()> {
        if !self.job.source_is_there() {
            return Err(source_lost());
        }
        if let Some(fd) = unless_gone(self.target_dir(dir))? {
            self.remove_in(dir, fd.as_fd(), names, out);
        }
        Ok(())
    }

    /// Removes names, or moves them to the trash. Each that cannot be is a named failure.
    /// Returns whether the directory had to be unlocked for it.
    pub(crate) fn remove_in(
        &mut self,
        dir: &RelPath,
        d: BorrowedFd<'_>,
        names: &Names,
        out: &mut Outcome,
    ) -> bool {
        let mut unlocked = false;
        for (name, k) in names.iter() {
            self.job.limit.ops(1);
            if self.go_on().is_err() {
                break;
            }
            if treeferry_fs::fault::armed() {
                treeferry_fs::fault::at(dir.child(name).as_bytes());
            }
            if !self.may_delete(out) {
                continue;
            }
            let mut r = self.dispose(dir, d, name);
            if !unlocked && matches!(&r, Err(e) if e.is_refused()) && unlock(d) {
                unlocked = true;
                r = self.dispose(dir, d, name);
            }
            for _ in 1..MAX_ATTEMPTS {
                if matches!(&r, Err(e) if e.retryable()) {
                    out.counters.retried += 1;
                    r = self.dispose(dir, d, name);
                }
            }
            match r {
                Ok(()) => {
                    out.counters.deleted += 1;
                    self.note(Item::Deleted(k), || dir.child(name), out);
                    self.check_gone(&dir.child(name));
                }
                Err(e) if e.is_gone() => {}
                Err(e) => self.name_or_defer(Trouble::Call(Side::Target, e), || dir.child(name), out),
            }
        }
        self.check_moved(dir, d);
        unlocked
    }

    fn dispose(&self, dir: &RelPath, d: BorrowedFd<'_>, name: &CStr) -> treeferry_fs::Result<()> {
        if self.job.spec.dry_run {
            return Ok(());
        }
        let Some(trash) = &self.job.trash else { return entry::remove(d, name) };
        let to = trash.dir(dir)?;
        // what is in the trash already, from an earlier run, keeps its name
        let mut n = 0;
        loop {
            match entry::move_to(d, name, to.as_fd(), &numbered(name, n)) {
                Err(e) if e.is_exists() => n += 1,
                r => return r,
            }
        }
    }

    /// Whether `--max-delete` allows one more; if not, that is counted.
    fn may_delete(&self, out: &mut Outcome) -> bool {
        let may = self.job.spec.max_delete.is_none_or(|most| self.registry.may_delete(most, true));
        out.counters.not_deleted += u64::from(!may);
        may
    }

    /// Runs a task that removes a directory whose content is gone, and so many above it.
    pub(crate) fn remove_dirs(&mut self, path: &RelPath, above: u32, out: &mut Outcome) -> Res<()> {
        let mut path = path.clone();
        for level in 0..=above {
            self.go_on()?;
            if level > 0 {
                path = split(&path)?.0;
            }
            self.at(&path);
            match self.remove_dir(&path, out) {
                Ok(()) => {}
                Err(t) if level == 0 => return Err(t),
                // what holds it is not empty either, and that needs no saying
                Err(t) => {
                    self.name_or_defer(t, || path, out);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn remove_dir(&mut self, path: &RelPath, out: &mut Outcome) -> Res<()> {
        let (up, name) = split(path)?;
        let Some(d) = unless_gone(self.target_dir(&up))? else { return Ok(()) };
        if self.job.spec.dry_run {
            if !self.holds_protected(path)? && self.may_delete(out) {
                out.counters.deleted += 1;
                self.note(Item::Deleted(treeferry_core::Kind::Dir), || path.clone(), out);
            }
            return Ok(());
        }
        if let Some(most) = self.job.spec.max_delete
            && self.has_entries(path)
        {
            // with what is in it, it was spared; or what is in it is protected
            out.counters.not_deleted += u64::from(!self.registry.may_delete(most, false));
            return Ok(());
        }
        if !self.may_delete(out) {
            return Ok(());
        }
        if self.job.trash.is_some() && !self.has_entries(path) {
            self.keep_dir(path, out)?;
        }
        let mut r = entry::remove_dir(d.as_fd(), &name);
        if matches!(&r, Err(e) if e.is_refused()) && unlock(d.as_fd()) {
            r = entry::remove_dir(d.as_fd(), &name);
        }
        match r {
            Ok(()) => {
                out.counters.deleted += 1;
                self.note(Item::Deleted(treeferry_core::Kind::Dir), || path.clone(), out);
                self.job.was_emptied(path);
                self.check_gone(path);
                Ok(())
            }
            Err(e) if e.is_gone() => Ok(()),
            // what is left in it is left out, and nobody else will ever take that away
            Err(e)
                if e.is_not_empty() && self.job.is_mirror() && self.holds_nothing_but_protected(path)? =>
            {
                Ok(())
            }
            // somebody has made something in it meanwhile; or what is in it cannot be removed, then neither can this
            Err(e) if e.is_not_empty() && self.job.is_mirror() && self.job.may_become_empty(path) => {
                self.again_later(path.clone(), true);
                Ok(())
            }
            // protected entries, or those that could not be removed and have said so
            Err(e) if e.is_not_empty() && !self.job.filter.is_empty() && !self.job.is_mirror() => Ok(()),
            Err(e) => Err(Trouble::Call(Side::Target, e)),
        }
    }

    /// Whether something below a directory would stay if everything else were removed, so that the directory would
    /// stay too. Asked in dry runs, in which it is not simply found not empty.
    fn holds_protected(&mut self, path: &RelPath) -> Res<bool> {
        if self.job.filter.is_empty() {
            return Ok(false);
        }
        let mut dirs = vec![path.clone()];
        while let Some(dir) = dirs.pop() {
            let fd = self.target_dir(&dir)?;
            let mut held = false;
            let job = Arc::clone(&self.job);
            let listed = self.dst_lister.list(fd.as_fd(), |name, _, k| {
                let is_dir = is_dir_there(fd.as_fd(), name, k);
                held = job.is_protected(&dir, name, is_dir);
                if is_dir && !held {
                    dirs.push(dir.child(name));
                }
                !held
            });
            listed.dst()?;
            if held {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether all that is left in a directory is to stay, or is a directory of which the same is true.
    fn holds_nothing_but_protected(&mut self, path: &RelPath) -> Res<bool> {
        if self.job.filter.is_empty() {
            return Ok(false);
        }
        let mut dirs = vec![path.clone()];
        while let Some(dir) = dirs.pop() {
            let Some(fd) = unless_gone(self.target_dir(&dir))? else { return Ok(false) };
            let (mut empty, mut more) = (true, false);
            let job = Arc::clone(&self.job);
            let listed = self.dst_lister.list(fd.as_fd(), |name, _, k| {
                let is_dir = is_dir_there(fd.as_fd(), name, k);
                empty = false;
                match job.is_protected(&dir, name, is_dir) {
                    true => {}
                    false if is_dir => dirs.push(dir.child(name)),
                    false => more = true,
                }
                !more
            });
            if unless_gone(listed.dst())?.is_none() || empty || more {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Gives the trash a directory like the one that is about to be removed.
    fn keep_dir(&mut self, path: &RelPath, out: &mut Outcome) -> Res<()> {
        let Some(trash) = &self.job.trash else { return Ok(()) };
        let Some(old) = unless_gone(self.target_dir(path))? else { return Ok(()) };
        let meta = fstat(old.as_fd()).dst()?;
        let new = trash.dir(path).dst()?;
        let (from, to) = (At::Fd(old.as_fd()), At::Fd(new.as_fd()));
        xattrs::carry(&self.job, from, to, false, true, &mut self.bufs, &|| path.clone(), out)?;
        if self.job.privilege.chown {
            attr::set_owner(new.as_fd(), Some(meta.uid), Some(meta.gid)).dst()?;
        }
        attr::set_mode(new.as_fd(), meta.mode).dst()?;
        attr::set_times(new.as_fd(), meta.atime, meta.mtime).dst()
    }

    fn has_entries(&mut self, path: &RelPath) -> bool {
        let Ok(fd) = self.target_dir(path) else { return false };
        matches!(self.dst_lister.list(fd.as_fd(), |_, _, _| false), Ok(false))
    }
}

/// Makes a directory of ours writable for us. Its final mode it gets when it is finished, if it stays.
fn unlock(d: BorrowedFd<'_>) -> bool {
    fstat(d).is_ok_and(|m| m.mode & 0o700 != 0o700 && attr::set_mode(d, m.mode | 0o700).is_ok())
}

/// `None`: what is to be removed is not there any more, since another task or somebody else was faster. That is no failure.
fn unless_gone<T>(r: Res<T>) -> Res<Option<T>> {
    match r {
        Err(Trouble::Call(Side::Target, e)) if e.is_gone() => Ok(None),
        r => r.map(Some),
    }
}

/// How far a directory of the target was emptied.
enum Emptied {
    /// It is not there any more.
    Gone,
    /// Nothing is in it.
    All,
    /// One directory is in it, and nothing else.
    But(CString),
    /// What is in it was given to tasks of this join.
    Later(JoinId),
}

/// The source root is not what it was. Said for each directory that would have been cleaned.
pub(crate) fn source_lost() -> Trouble {
    let text = "SRC is not the directory any more that it was when the run began: nothing is deleted";
    Trouble::Finding(Side::Source, "delete", text.to_owned())
}
