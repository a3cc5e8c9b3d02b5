//! What is extra in a directory of the target: found, and removed or given to tasks; and own temporary files of dead runs are
//! swept, whether the job deletes or not.

use crate::compare::kind;
use crate::delete::{BATCH_NAMES, source_lost};
use crate::dir::Dir;
use crate::trouble::{On, Res, Trouble};
use crate::worker::{Sink, Worker};
use std::ffi::{CStr, CString};
use std::time::{Duration, UNIX_EPOCH};
use treeferry_core::{Names, NewTask, Outcome, Side, Work};
use treeferry_fs::meta::{fstat, stat, stat_if_there};
use treeferry_fs::temp::{self, Maker, PREFIX};
use treeferry_fs::{AsFd, BorrowedFd, Kind, OwnedFd, entry};

/// No walk takes longer, in a cluster.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// Clocks of file systems differ by less from ours.
const CLOCKS: Duration = Duration::from_secs(600);

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
        let all_known = self.job.spec.passes.copy
            && !self.job.spec.dry_run
            && count == matched
            && !self.may_have_lost_names(dir)?;
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

    /// Whether a mirror may have removed something from a directory after it was counted there, so that something extra passes
    /// for it: then the source's directory has changed since the walk began. Where several nodes work on it that is not known,
    /// but it takes less than a week.
    fn may_have_lost_names(&self, dir: &Dir) -> Res<bool> {
        if !self.job.is_mirror() {
            return Ok(false);
        }
        let slack = if self.job.shared { WEEK } else { CLOCKS };
        let since = self.job.opened_at.checked_sub(slack).unwrap_or(UNIX_EPOCH);
        let since = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(fstat(dir.s()).src()?.ctime.sec >= since as i64)
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
                    Err(t) => self.name_or_defer(t, || dir.child(&name), out),
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
    pub(crate) fn is_of_live_run(&self, d: BorrowedFd<'_>, name: &CStr) -> bool {
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
    pub(crate) fn give(&self, dir: &Dir, work: Work, out: &mut Outcome) {
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
}
