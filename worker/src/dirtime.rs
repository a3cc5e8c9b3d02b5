//! The metadata of directories, and their end: what is extra goes, and they get their final mode and times.
//!
//! A directory that was there before this job gets its owner, ACLs, extended attributes and mode when the walk
//! begins, so that new content is never open to more people than at the source; its times, and its mode if we
//! had to change that to get in, when nothing in it changes any more. One that this job has made lets nobody
//! in, and gets everything then.

use crate::attrs::{self, Spot};
use crate::compare::{Want, times_of};
use crate::dir::Dir;
use crate::trouble::{On, Res, Verdict};
use crate::worker::{Sink, Worker};
use treeferry_core::change::Differs;
use treeferry_core::{Fresh, Item, NewTask, Outcome, RelPath, Seal, Task, Work};
use treeferry_fs::meta::{Meta, fstat};
use treeferry_fs::xattr::At;
use treeferry_fs::{AsFd, attr};

impl Worker {
    /// Gives a directory that was there before this job all metadata but its times. Where a mode would keep us
    /// out, that waits too. An error means that nothing was begun, and that the walk may be tried again.
    /// `known`: that it is new has been said already, so there is nothing to say of it. Returns whether anything but
    /// times was changed.
    pub(crate) fn adopt(&mut self, dir: &mut Dir, attempt: u8, known: bool, out: &mut Outcome) -> Res<bool> {
        if dir.fresh.is_fresh() || !self.job.spec.passes.dirtime {
            return Ok(false);
        }
        let Some((_, before)) = dir.dst.as_ref().map(|(fd, m)| (fd.as_fd(), *m)) else { return Ok(false) };
        let adopted = self.once(attempt, out, |w, out| w.put_early(dir, &before, out));
        match adopted {
            Err(t) if t.verdict(attempt) == Verdict::Retry => Err(t),
            Err(t) => {
                self.name_or_defer(t, || dir.path.clone(), out);
                Ok(true)
            }
            Ok(d) => {
                if d.any() && !known {
                    out.counters.meta_fixed += 1;
                    self.note(Item::Fixed(treeferry_core::Kind::Dir, d), || dir.path.clone(), out);
                }
                Ok(Differs { time: false, ..d }.any())
            }
        }
    }

    fn put_early(&mut self, dir: &mut Dir, before: &Meta, out: &mut Outcome) -> Res<Differs> {
        let path = dir.path.clone();
        let path = || path.clone();
        let want = Want::of(&self.job, &dir.src_meta, before.uid, before.gid, false, &path, out);
        let differs = want.differs(before);
        let touch = !self.job.spec.dry_run;
        let ours = if self.job.privilege.dac_override { 0 } else { 0o700 };
        let keep = if differs.perms || dir.opened.get() { ours } else { 0 };
        let now = Want { times: None, mode: want.mode.map(|m| m | keep), ..want };
        let Some((fd, meta)) = &mut dir.dst else { return Ok(Differs::default()) };
        let (spot, at) = (Spot::Fd(fd.as_fd()), At::Fd(dir.src.as_fd()));
        let (job, bufs) = (&self.job, &mut self.bufs);
        let done = attrs::repair(job, spot, at, &dir.src_meta, before, false, touch, &now, bufs, &path, out)?;
        if touch {
            *meta = Meta {
                mode: want.mode.unwrap_or(meta.mode),
                uid: want.uid.unwrap_or(meta.uid),
                gid: want.gid.unwrap_or(meta.gid),
                ..*meta
            };
            dir.opened.set(dir.opened.get() || now.mode != want.mode);
        }
        if differs.time {
            dir.dirty.set(true);
        }
        Ok(Differs { time: differs.time, perms: differs.perms, ..done })
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of the task, and where to tell")]
    /// Runs the task that finishes a directory when all that was given away of it is done.
    pub(crate) fn finish_dir(
        &mut self,
        task: &Task,
        path: &RelPath,
        listed: bool,
        fresh: Fresh,
        mode: Option<u32>,
        sink: &mut dyn Sink,
        out: &mut Outcome,
    ) -> Res<()> {
        let mut dir = Dir::open(&self.job, path, fresh)?;
        if let (Some(mode), Some((_, now))) = (mode, &dir.dst) {
            dir.dirty.set(times_of(&self.job, &dir.src_meta).is_some_and(|(_, m)| m != now.mtime));
            dir.keep_mode(&self.job, mode);
        } else if mode.is_none() && !dir.fresh.is_fresh() {
            // made by this job, and finished in part by an attempt before this one
            self.adopt(&mut dir, task.attempt, fresh.is_fresh(), out)?;
        }
        self.finish(task, &dir, listed, task.tally, false, sink, out)
    }

    /// Finishes a directory in which everything was reconciled.
    #[expect(clippy::too_many_arguments, reason = "what a walk knows of a directory, and where to tell")]
    pub(crate) fn finish(
        &mut self,
        task: &Task,
        dir: &Dir,
        listed: bool,
        matched: u64,
        src_empty: bool,
        sink: &mut dyn Sink,
        out: &mut Outcome,
    ) -> Res<()> {
        self.ours()?;
        self.at(&dir.path);
        let given_away = matches!(task.work, Work::FinishDir { .. });
        if let Err(t) = self.tidy(dir, listed, matched, src_empty, given_away, sink, out) {
            self.name_or_defer(t, || dir.path.clone(), out);
        }
        let again =
            || Work::FinishDir { path: dir.path.clone(), listed: false, fresh: dir.fresh, mode: dir.mode() };
        if let Some(join) = dir.join.get() {
            // extra directories are being removed: once more when they are gone, and then only this part
            out.seals.push(Seal { join, tally: 0, follow_up: NewTask::new(task.join, again()) });
            return Ok(());
        }
        self.ours()?;
        self.at(&dir.path);
        let attempt = if matches!(task.work, Work::FinishDir { .. }) { task.attempt } else { 0 };
        match self.once(attempt, out, |w, out| w.dirtime(dir, out)) {
            Err(t) if t.verdict(attempt) == Verdict::Retry => {
                out.counters.retried += 1;
                out.later.push(NewTask { join: task.join, attempt: attempt + 1, work: again() });
            }
            Err(t) => self.name_or_defer(t, || dir.path.clone(), out),
            Ok(()) if self.job.is_mirror() => {
                if fstat(dir.s()).src()?.ctime != dir.src_meta.ctime {
                    self.again_later(dir.path.clone(), false);
                }
            }
            Ok(()) => {}
        }
        Ok(())
    }

    /// Gives a directory in which nothing changes any more what it does not have yet.
    fn dirtime(&mut self, dir: &Dir, out: &mut Outcome) -> Res<()> {
        let Some((fd, before)) = &dir.dst else { return Ok(()) };
        if self.job.spec.dry_run {
            return Ok(());
        }
        if !dir.fresh.is_fresh() {
            if dir.opened.get() {
                attr::set_mode(fd.as_fd(), before.mode).dst()?;
            }
            let times = times_of(&self.job, &dir.src_meta).filter(|_| self.job.spec.passes.dirtime);
            if let Some((a, m)) = times.filter(|_| dir.dirty.get()) {
                attr::set_times(fd.as_fd(), a, m).dst()?;
            }
            return Ok(());
        }
        if !self.job.spec.passes.dirtime {
            return Ok(());
        }
        let path = || dir.path.clone();
        let want = Want::of(&self.job, &dir.src_meta, before.uid, before.gid, true, &path, out);
        let (spot, at) = (Spot::Fd(fd.as_fd()), At::Fd(dir.s()));
        let (job, bare) = (&self.job, dir.fresh == Fresh::Plain);
        let bufs = &mut self.bufs;
        let d = attrs::repair(job, spot, at, &dir.src_meta, before, bare, true, &want, bufs, &path, out)?;
        // it was made today: `before` cannot tell whether its times are right
        if let Some((a, m)) = want.times.filter(|_| dir.dirty.get() && !d.time) {
            attr::set_times(fd.as_fd(), a, m).dst()?;
        }
        Ok(())
    }
}
