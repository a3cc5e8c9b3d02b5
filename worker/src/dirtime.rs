//! Finishing a directory: what is extra goes, and it gets its final owner, mode, ACLs, extended attributes
//! and times. By then nothing in it changes any more.

use crate::attrs::{self, Spot};
use crate::compare::Want;
use crate::dir::Dir;
use crate::trouble::{On, Res, Verdict};
use crate::worker::{Sink, Worker};
use treeferry_core::{Fresh, Item, NewTask, Outcome, RelPath, Seal, Task, Work};
use treeferry_fs::xattr::At;
use treeferry_fs::{AsFd, attr};

impl Worker {
    #[expect(clippy::too_many_arguments, reason = "the fields of the task, and where to tell")]
    /// Runs the task that finishes a directory when all that was given away of it is done.
    pub(crate) fn finish_dir(
        &mut self,
        task: &Task,
        path: &RelPath,
        listed: bool,
        fresh: Fresh,
        was: Option<u32>,
        sink: &mut dyn Sink,
        out: &mut Outcome,
    ) -> Res<()> {
        let mut dir = Dir::open(&self.job, path, fresh)?;
        if let (Some(mode), Some((_, before))) = (was, &mut dir.dst) {
            before.mode = mode;
            dir.opened.set(true);
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
        self.at(&dir.path);
        if let Err(t) = self.tidy(dir, listed, matched, src_empty, sink, out) {
            t.record(|| dir.path.clone(), out);
        }
        if let Some(join) = dir.join.get() {
            // extra directories are being removed: once more when they are gone, and then only this part
            let work =
                Work::FinishDir { path: dir.path.clone(), listed: false, fresh: dir.fresh, was: dir.was() };
            out.seals.push(Seal { join, tally: 0, follow_up: NewTask::new(task.join, work) });
            return Ok(());
        }
        if self.job.spec.passes.dirtime {
            self.at(&dir.path);
            let attempt = if matches!(task.work, Work::FinishDir { .. }) { task.attempt } else { 0 };
            match self.dirtime(dir, out) {
                Err(t) if t.verdict(attempt) == Verdict::Retry => {
                    out.counters.retried += 1;
                    let (path, fresh) = (dir.path.clone(), dir.fresh);
                    let work = Work::FinishDir { path, listed: false, fresh, was: dir.was() };
                    out.later.push(NewTask { join: task.join, attempt: attempt + 1, work });
                }
                Err(t) => t.record(|| dir.path.clone(), out),
                Ok(()) => {}
            }
        } else if let (Some(mode), Ok(d)) = (dir.was(), dir.d()) {
            // its metadata is another pass's; what we changed to get in is put back
            attr::set_mode(d, mode).dst()?;
        }
        Ok(())
    }

    fn dirtime(&mut self, dir: &Dir, out: &mut Outcome) -> Res<()> {
        let Some((fd, before)) = &dir.dst else { return Ok(()) };
        let path = || dir.path.clone();
        let want =
            Want::of(&self.job, &dir.src_meta, before.uid, before.gid, dir.fresh.is_fresh(), &path, out);
        let (spot, at) = (Spot::Fd(fd.as_fd()), At::Fd(dir.s()));
        let job = &self.job;
        let touch = !self.job.spec.dry_run;
        let bare = dir.fresh == Fresh::Plain;
        let d = attrs::repair(
            job,
            spot,
            at,
            &dir.src_meta,
            before,
            bare,
            touch,
            &want,
            &mut self.bufs,
            &path,
            out,
        )?;
        if !self.job.spec.dry_run {
            // what we ourselves have changed since `before`
            if dir.opened.get() && !d.perms {
                attr::set_mode(fd.as_fd(), want.mode.unwrap_or(before.mode)).dst()?;
            }
            if let Some((a, m)) = want.times.filter(|_| dir.dirty.get() && !d.time) {
                attr::set_times(fd.as_fd(), a, m).dst()?;
            }
        }
        if d.any() && !dir.fresh.is_fresh() {
            out.counters.meta_fixed += 1;
            self.note(Item::Fixed(treeferry_core::Kind::Dir, d), path, out);
        }
        Ok(())
    }
}
