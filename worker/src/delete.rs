//! The delete pass: finds what the target has and the source has not, and removes it or moves it to the trash.
//!
//! An entry is only deleted if the listing of the corresponding source directory came to its end without an
//! error, the source itself answers ENOENT for this very name, and the source root still is the one that the
//! job began with. Own temporary files of dead runs are swept on the way, whether the job deletes or not.

use crate::chunk::split;
use crate::compare::kind;
use crate::dir::{Dir, Other, refuse_root};
use crate::trouble::{On, Res, Trouble};
use crate::worker::{Sink, Worker};
use crate::xattrs;
use std::ffi::{CStr, CString};
use std::sync::Arc;
use treeferry_core::task::MAX_ATTEMPTS;
use treeferry_core::{Failure, Item, JoinId, Names, NewTask, Outcome, RelPath, Seal, Side, Task, Work};
use treeferry_fs::meta::{fstat, stat, stat_if_there};
use treeferry_fs::temp::{self, Maker, PREFIX};
use treeferry_fs::xattr::At;
use treeferry_fs::{AsFd, BorrowedFd, Kind, OwnedFd, attr, entry};

/// Names in one remove task; up to as many are removed on the spot.
const BATCH_NAMES: usize = 512;

impl Worker {
    /// Sweeps and, if the job deletes, removes what is extra in a directory. `matched`: how many entries are
    /// known to be in both; if the target has just as many there is nothing extra, and nothing need be asked.
    /// `given_away`: not all of it was done by the task that has walked it.
    #[expect(clippy::too_many_arguments, reason = "what a walk knows of a directory, and where to tell")]
    pub(crate) fn tidy(
        &mut self,
        dir: &Dir,
        listed: bool,
        matched: u64,
        src_empty: bool,
        given_away: bool,
        sink: &mut dyn Sink,
        out: &mut Outcome,
    ) -> Res<()> {
        let Some((fd, _)) = &dir.dst else { return Ok(()) };
        if dir.fresh.is_fresh() {
            // there is nothing in it that we have not made; but one of us may have been killed at it
            if given_away && self.job.shared && !self.job.spec.dry_run {
                self.count_and_sweep(dir, fd.as_fd(), out)?;
            }
            return Ok(());
        }
        // a descriptor of btrfs lists what was there when it was opened (Linux 6.5), not what was made since
        let anew = if dir.dirty.get() { self.job.dst.as_ref() } else { None };
        let anew = anew.map(|r| r.open_dir(dir.path.as_bytes()).dst()).transpose()?;
        let d = anew.as_ref().unwrap_or(fd).as_fd();
        let count = self.count_and_sweep(dir, d, out)?;
        let delete = self.job.spec.passes.delete && listed;
        let all_known = self.job.spec.passes.copy && !self.job.spec.dry_run && count == matched;
        if !delete || all_known || count == 0 {
            return Ok(());
        }
        if !self.job.source_is_there() {
            return Err(source_lost());
        }
        // the names are asked of this very directory: it must still be the one that has the path
        let now = self.job.src.open_dir(dir.path.as_bytes()).and_then(|fd| fstat(fd.as_fd())).src()?;
        if (now.dev, now.ino) != (dir.src_meta.dev, dir.src_meta.ino) {
            let text = "the source directory was replaced meanwhile: nothing is deleted in it";
            return Err(Trouble::Finding(Side::Source, "delete", text.to_owned()));
        }
        let again = self.job.dst.as_ref().map(|r| r.open_dir(dir.path.as_bytes()).dst()).transpose()?;
        match again {
            Some(list_fd) => self.delete_extra(dir, list_fd, src_empty, sink, out),
            None => Ok(()),
        }
    }

    /// Counts the entries of a target directory that are not ours, and removes ours whose makers are dead.
    fn count_and_sweep(&mut self, dir: &Dir, d: BorrowedFd<'_>, out: &mut Outcome) -> Res<u64> {
        let (mut count, mut dead): (u64, Vec<CString>) = (0, Vec::new());
        let mut lister = std::mem::take(&mut self.dst_lister);
        let listed = lister.list(d, |name, _, _| {
            match self.leftover(d, name) {
                None => count += 1,
                Some(true) => dead.push(name.to_owned()),
                Some(false) => {}
            }
            true
        });
        self.dst_lister = lister;
        listed.dst()?;
        if !self.job.spec.dry_run {
            for name in dead {
                match dir.change(|d| entry::remove(d, &name)) {
                    Ok(()) => out.counters.swept += 1,
                    Err(Trouble::Call(_, e)) if e.is_gone() => {}
                    Err(t) => t.record(|| dir.child(&name), out),
                }
            }
        }
        Ok(count)
    }

    /// Whether an entry of the target is a temporary one of Treeferry's, and if so, whether nobody works on it any
    /// more.
    fn leftover(&self, d: BorrowedFd<'_>, name: &CStr) -> Option<bool> {
        if !name.to_bytes().starts_with(PREFIX) {
            return None;
        }
        self.job.temp.maker(name).map(|maker| match maker {
            Maker::Alive => false,
            Maker::Dead => true,
            Maker::Foreign => {
                let left = || temp::maker_part(name).is_some_and(|m| self.registry.is_left(m));
                (self.job.shared && left()) || stat(d, name).is_ok_and(|m| temp::is_abandoned(m.ctime.sec))
            }
        })
    }

    /// Whether somebody is at work on an entry at this moment.
    fn is_of_live_run(&self, d: BorrowedFd<'_>, name: &CStr) -> bool {
        self.leftover(d, name) == Some(false)
    }

    fn delete_extra(
        &mut self,
        dir: &Dir,
        list_fd: OwnedFd,
        src_empty: bool,
        sink: &mut dyn Sink,
        out: &mut Outcome,
    ) -> Res<()> {
        let mut lister = std::mem::take(&mut self.dst_lister);
        let mut names = Names::default();
        let mut doubt = None;
        let r = lister.list(list_fd.as_fd(), |name, _, k| {
            match self.is_extra(dir, name, k, src_empty) {
                Ok(None) => {}
                Ok(Some(Kind::Dir)) => {
                    let work = Work::Remove { path: dir.child(name) };
                    self.give(dir, work, out);
                }
                Ok(Some(k)) => names.push(name, kind(k)),
                Err(t) => doubt = Some((t, dir.child(name))),
            }
            if names.len() >= BATCH_NAMES && sink.pressed() {
                dir.dirty.set(true);
                if let Ok(d) = dir.d()
                    && self.remove_in(&dir.path, d, &std::mem::take(&mut names), out)
                {
                    dir.opened.set(true);
                }
            } else if names.len() >= BATCH_NAMES {
                let work = Work::RemoveNames { dir: dir.path.clone(), names: std::mem::take(&mut names) };
                self.give(dir, work, out);
            }
            if out.children.len() >= BATCH_NAMES {
                sink.flush(out, None);
            }
            sink.tell(out);
            doubt.is_none() && !self.job.stop.is_set()
        });
        self.dst_lister = lister;
        r.dst()?;
        if let Some((t, path)) = doubt {
            // the source cannot say whether it has a name: nothing more is deleted here
            let error = "cannot tell whether the source has it, so nothing is deleted in its directory";
            let mut f = t.failure(path.clone());
            if let Some(f) = &mut f {
                f.error = format!("{}: {error}", f.error);
            }
            f.into_iter().for_each(|f| out.fail(f));
            return Ok(());
        }
        if dir.join.get().is_some() && !names.is_empty() {
            let work = Work::RemoveNames { dir: dir.path.clone(), names };
            self.give(dir, work, out);
        } else if !names.is_empty() {
            dir.dirty.set(true);
            if self.remove_in(&dir.path, dir.d()?, &names, out) {
                dir.opened.set(true);
            }
        }
        Ok(())
    }

    /// A task that the directory waits for.
    fn give(&self, dir: &Dir, work: Work, out: &mut Outcome) {
        let join = dir.join(&self.job, out);
        out.children.push(NewTask::new(Some(join), work));
    }

    /// Whether the source has no such entry, and what it is then.
    fn is_extra(&self, dir: &Dir, name: &CStr, k: Kind, src_empty: bool) -> Res<Option<Kind>> {
        if name.to_bytes().starts_with(PREFIX) && self.job.temp.maker(name).is_some() {
            return Ok(None);
        }
        let k = if k == Kind::Unknown { stat(dir.d()?, name).dst()?.kind } else { k };
        let f = &self.job.filter;
        if !f.is_empty() && f.excludes(&dir.path, name, k == Kind::Dir) {
            let delete = self.job.spec.delete_excluded && !f.protects(&dir.child(name));
            return Ok(delete.then_some(k));
        }
        if !src_empty && stat_if_there(dir.s(), name).src()?.is_some() {
            return Ok(None);
        }
        Ok(Some(k))
    }

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
                    t.record(|| path, out);
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
        let fd = match self.open_for_removal(path) {
            Err(Trouble::Call(_, e)) if e.is_gone() => return Ok(Emptied::Gone),
            r => r?,
        };
        refuse_root(&self.job, &fstat(fd.as_fd()).dst()?, Other::Source)?;
        self.refuse_mount(path, fd.as_fd())?;
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
            let is_dir = match k {
                Kind::Unknown => stat(fd.as_fd(), name).is_ok_and(|m| m.kind == Kind::Dir),
                k => k == Kind::Dir,
            };
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
        let complete = r.dst();
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
                    t.record(|| path.clone(), out);
                }
                Ok(Emptied::Later(join))
            }
            (None, only) => {
                complete?;
                Ok(only.map_or(Emptied::All, Emptied::But))
            }
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
        let fd = self.target_dir(dir)?;
        self.remove_in(dir, fd.as_fd(), names, out);
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
                Err(e) => out.fail(Failure::errno(dir.child(name), Side::Target, e.op, e.raw())),
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
        // a name that is in the trash already, from an earlier run, keeps its place: rsync's `~` and a number
        let mut n = 0u32;
        let mut new = name.to_owned();
        loop {
            match entry::move_to(d, name, to.as_fd(), &new) {
                Err(e) if e.is_exists() => {
                    n += 1;
                    let tail = format!(".~{n}~");
                    let keep = name.to_bytes().len().min(255 - tail.len());
                    let mut v = name.to_bytes()[..keep].to_vec();
                    v.extend_from_slice(tail.as_bytes());
                    new = CString::new(v).unwrap_or_default();
                }
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
                    t.record(|| path, out);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn remove_dir(&mut self, path: &RelPath, out: &mut Outcome) -> Res<()> {
        let (up, name) = split(path)?;
        let d = self.target_dir(&up)?;
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
                self.check_gone(path);
                Ok(())
            }
            Err(e) if e.is_gone() => Ok(()),
            // somebody has made something in it meanwhile
            Err(e) if e.is_not_empty() && self.job.is_mirror() => {
                self.again_later(path.clone(), true);
                Ok(())
            }
            // protected entries, or those that could not be removed and have said so
            Err(e) if e.is_not_empty() && !self.job.filter.is_empty() => Ok(()),
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
                let is_dir = match k {
                    Kind::Unknown => stat(fd.as_fd(), name).is_ok_and(|m| m.kind == Kind::Dir),
                    k => k == Kind::Dir,
                };
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

    /// Gives the trash a directory like the one that is about to be removed.
    fn keep_dir(&mut self, path: &RelPath, out: &mut Outcome) -> Res<()> {
        let Some(trash) = &self.job.trash else { return Ok(()) };
        let old = self.target_dir(path)?;
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
