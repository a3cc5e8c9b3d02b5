//! Walking: lists a directory as a stream, sees to its subdirectories, and does its files or gives them away.
//!
//! Subdirectories are made (0700) by the walk of their parent, so that a directory can be finished as soon as
//! its own entries are there: nothing that happens deeper changes it any more. That is almost always within
//! the same task, with both sides still open; only a directory whose files were given away needs a join.

use crate::compare::{fs_kind, kind};
use crate::dir::Dir;
use crate::trouble::{On, Res, Trouble, Verdict};
use crate::worker::{Sink, Worker};
use std::ffi::CStr;
use std::time::{Duration, Instant};
use treeferry_core::records::Best;
use treeferry_core::{Fresh, Names, NewTask, Notice, Outcome, RelPath, Resume, Seal, Task, Work};
use treeferry_fs::Kind;
use treeferry_fs::meta::stat;

/// Names in one task when a directory is big. Enough that opening the directory again costs nothing, few
/// enough that the last batches spread over the threads.
const BATCH_NAMES: usize = 512;

/// What a walk has found in its directory so far.
#[derive(Default)]
struct Found {
    files: Names,
    dirs: Names,
    /// Entries of the source that are there at the target too when we are done with them.
    matched: u64,
    /// Whether the source has any entry at all.
    any: bool,
    /// Names listed.
    names: u64,
    /// Their digest; only where the walk may have to be resumed elsewhere.
    digest: u64,
}

/// A tally that no directory reaches: what is extra is then found by asking for each name.
const UNKNOWN_TALLY: u64 = 1 << 48;

/// What takes less is not worth opening the directory again, and is not handed to others. Where many wait, as in the
/// first seconds of a job, a tenth of it is.
const LEAST_WORK: Duration = Duration::from_secs(1);
/// In names, where they take no time to speak of: at most, and at least.
const LEAST_NAMES: (usize, usize) = (16, 2);

/// How many names are [`LEAST_WORK`], for so many who wait.
fn least_names(each: Duration, waiting: usize) -> usize {
    let (most, least) = LEAST_NAMES;
    let work = LEAST_WORK / waiting.clamp(1, 10) as u32;
    (work.as_nanos() / each.as_nanos().max(1)).clamp(least as u128, most as u128) as usize
}

/// FNV-1a over names that end in NUL.
fn fold(digest: u64, name: &CStr) -> u64 {
    name.to_bytes_with_nul().iter().fold(digest, |d, b| (d ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

impl Worker {
    /// Runs a walk task.
    pub(crate) fn walk(
        &mut self,
        task: &Task,
        path: &RelPath,
        fresh: Fresh,
        resume: Option<&Resume>,
        sink: &mut dyn Sink,
        out: &mut Outcome,
    ) -> Res<()> {
        let mut dir = Dir::open(&self.job, path, fresh)?;
        if dir.dst.is_none() && !(self.job.spec.dry_run && self.job.spec.passes.copy) {
            // a delete or dirtime pass alone, and the copy pass has not been here
            return Ok(());
        }
        dir.waited_for.set(task.join.is_some());
        match resume {
            None => {
                self.adopt(&mut dir, task.attempt, false, out)?;
                out.counters.dirs += 1;
            }
            Some(r) => {
                dir.join.set(r.join);
                match r.mode {
                    Some(mode) => dir.keep_mode(&self.job, mode),
                    // made by this job, and lets nobody in so far
                    None => drop(self.adopt(&mut dir, task.attempt, true, out)?),
                }
            }
        }
        self.job.add_live(1, 0);
        self.job.limit.ops(1);
        let mut found = Found::default();
        let mut listed = self.list(&dir, resume, &mut found, sink, out);
        if let (Ok(false), Some(r)) = (&listed, resume) {
            // it does not begin with the same names any more: all of it is seen to once more, so that nothing is
            // missed, though some is counted twice
            found = Found { matched: r.matched + UNKNOWN_TALLY, ..Found::default() };
            listed = self.list(&dir, None, &mut found, sink, out);
        }
        let listed = match listed.map(|_| ()) {
            Ok(()) => {
                self.job.bars.offer(Best::LargestDir, found.names, String::new, || path.clone(), out);
                true
            }
            Err(Trouble::Stopped) => return Err(Trouble::Stopped),
            Err(t) if !found.any && dir.join.get().is_none() && t.verdict(task.attempt) == Verdict::Retry => {
                // nothing was begun: the walk is tried again as a whole
                out.counters.dirs -= u64::from(resume.is_none());
                return Err(t);
            }
            Err(t) => {
                self.at(path);
                self.name_or_defer(t, || path.clone(), out);
                false
            }
        };
        self.give_dirs(&dir, &mut found, sink, out);
        let files = std::mem::take(&mut found.files);
        let waiting = if self.job.shared && !out.children.is_empty() { sink.yields(files.len()) } else { 0 };
        let least = least_names(self.pace.unwrap_or_default(), waiting);
        if waiting > 0 && (files.len() > least || self.pace.is_none()) {
            // they are to have the subdirectories now, and not when these files are done
            self.hand_back(&dir, &files, 0, 0, waiting, least, out);
        } else {
            if !out.children.is_empty() && sink.hungry() {
                sink.flush(out, None);
            }
            found.matched += self.some_files(&dir, &files, 0, sink, out)?;
        }
        if let Some(join) = dir.join.get() {
            let work = Work::FinishDir { path: path.clone(), listed, fresh: dir.fresh, mode: dir.mode() };
            out.seals.push(Seal { join, tally: found.matched, follow_up: NewTask::new(task.join, work) });
            return Ok(());
        }
        self.finish(task, &dir, listed, found.matched, !found.any, sink, out)
    }

    /// Lists a directory, from where it was interrupted. `false`: it was another one then.
    fn list(
        &mut self,
        dir: &Dir,
        resume: Option<&Resume>,
        found: &mut Found,
        sink: &mut dyn Sink,
        out: &mut Outcome,
    ) -> Res<bool> {
        // the lister is taken out for the while: what is listed may be worked on in between
        let mut lister = std::mem::take(&mut self.src_lister);
        let copy = self.job.spec.passes.copy;
        let filtered = !self.job.filter.is_empty();
        let shared = self.job.shared;
        let skip = resume.map_or(0, |r| r.names);
        let mut trouble = None;
        let mut other = skip > 0;
        let r = lister.list(dir.s(), |name, _ino, mut k| {
            found.any = true;
            found.names += 1;
            if shared {
                found.digest = fold(found.digest, name);
                if found.names <= skip {
                    if found.names == skip {
                        other = resume.is_some_and(|r| r.digest != found.digest);
                        found.matched = resume.map_or(0, |r| r.matched);
                    }
                    return !(found.names == skip && other);
                }
            }
            if name.to_bytes().starts_with(treeferry_fs::temp::PREFIX) && self.job.temp.maker(name).is_some()
            {
                out.notice(Notice::SourceTemporaries);
                self.note_skipped("it is named like an unfinished copy", || dir.child(name), out);
                return true;
            }
            if k == Kind::Unknown {
                k = match stat(dir.s(), name) {
                    Ok(m) => m.kind,
                    // the entry's own turn finds out what is wrong with it
                    Err(_) => Kind::File,
                };
            }
            if filtered && self.job.filter.excludes(&dir.path, name, k == Kind::Dir) {
                self.note_skipped("it is excluded", || dir.child(name), out);
                return true;
            }
            if k == Kind::Dir {
                found.dirs.push(name, kind(k));
                if found.dirs.len() >= BATCH_NAMES {
                    self.give_dirs(dir, found, sink, out);
                    if shared && !found.files.is_empty() {
                        // so that every name so far is seen to or given away, and a walk can be resumed behind them
                        if let Err(t) = self.full_batch(dir, found, sink, out) {
                            trouble = Some(t);
                            return false;
                        }
                    } else {
                        sink.flush(out, self.resume(dir, found));
                    }
                }
            } else if copy {
                found.files.push(name, kind(k));
                if found.files.len() >= BATCH_NAMES
                    && let Err(t) = self.full_batch(dir, found, sink, out)
                {
                    trouble = Some(t);
                    return false;
                }
            }
            !self.job.stop.is_set()
        });
        self.src_lister = lister;
        match (trouble, r.src()?) {
            (Some(t), _) => Err(t),
            _ if other => Ok(false),
            (None, true) => Ok(true),
            (None, false) => Err(Trouble::Stopped),
        }
    }

    /// The walk that goes on where this one is, for somebody who has to.
    fn resume(&self, dir: &Dir, found: &Found) -> Option<Work> {
        self.job.shared.then(|| Work::Walk {
            path: dir.path.clone(),
            fresh: Fresh::No,
            resume: Some(Box::new(Resume {
                names: found.names,
                digest: found.digest,
                matched: found.matched,
                join: dir.join.get(),
                mode: dir.mode(),
            })),
        })
    }

    /// Gives a full batch away, or does it here if enough is queued: so memory does not grow with the
    /// directory.
    fn full_batch(
        &mut self,
        dir: &Dir,
        found: &mut Found,
        sink: &mut dyn Sink,
        out: &mut Outcome,
    ) -> Res<()> {
        let names = std::mem::take(&mut found.files);
        if self.job.shared {
            self.give_dirs(dir, found, sink, out);
        }
        let waiting = if self.job.shared { sink.yields(names.len()) } else { 0 };
        if waiting > 0 {
            let least = least_names(self.pace.unwrap_or_default(), waiting);
            self.hand_back(dir, &names, 0, 0, waiting, least, out);
        } else if sink.pressed() {
            found.matched += self.some_files(dir, &names, 0, sink, out)?;
        } else {
            let join = Some(dir.join(&self.job, out));
            let work = Work::Files { dir: dir.path.clone(), fresh: dir.fresh, names };
            out.children.push(NewTask::new(join, work));
        }
        sink.flush(out, self.resume(dir, found));
        Ok(())
    }

    /// Makes subdirectories and gives their walks away.
    fn give_dirs(&mut self, dir: &Dir, found: &mut Found, sink: &mut dyn Sink, out: &mut Outcome) {
        let names = std::mem::take(&mut found.dirs);
        let began = Instant::now();
        for (i, (name, _)) in names.iter().enumerate() {
            if self.go_on().is_err() {
                return;
            }
            if self.job.shared && i > 0 {
                let (waiting, left) = (sink.yields(names.len() - i), names.len() - i);
                let least = least_names(began.elapsed() / i as u32, waiting);
                if waiting > 0 && i >= least && left > least {
                    self.hand_back(dir, &names, i, 0, waiting, least, out);
                    return;
                }
            }
            self.at_child(dir, name);
            match self.subdir(dir, name, out) {
                Ok(there) => found.matched += u64::from(there),
                Err(t) if t.verdict(0) == Verdict::Retry => {
                    out.counters.retried += 1;
                    let again = self.again(dir, name, 1, out);
                    out.later.push(again);
                }
                Err(t) => self.name_or_defer(t, || dir.child(name), out),
            }
        }
    }

    /// Runs a task of names of one directory.
    pub(crate) fn files(
        &mut self,
        task: &Task,
        path: &RelPath,
        fresh: Fresh,
        names: &Names,
        sink: &mut dyn Sink,
        out: &mut Outcome,
    ) -> Res<()> {
        let dir = Dir::open(&self.job, path, fresh)?;
        dir.join.set(task.join);
        dir.waited_for.set(!self.job.privilege.dac_override);
        out.tally = self.some_files(&dir, names, task.attempt, sink, out)?;
        Ok(())
    }

    /// Reconciles names; returns how many of them are there at the target then.
    fn some_files(
        &mut self,
        dir: &Dir,
        names: &Names,
        attempt: u8,
        sink: &mut dyn Sink,
        out: &mut Outcome,
    ) -> Res<u64> {
        let mut matched = 0;
        let alone = names.len() == 1;
        let mut since = 0;
        let began = Instant::now();
        for (i, (name, k)) in names.iter().enumerate() {
            self.go_on()?;
            if self.job.shared && i > 0 {
                let left = names.len() - i;
                let pace = began.elapsed() / i as u32;
                self.pace = Some(pace);
                let waiting = sink.yields(left);
                let least = least_names(pace, waiting);
                if waiting > 0 && left > least {
                    self.hand_back(dir, names, i, attempt, waiting, least, out);
                    break;
                }
            }
            self.at_child(dir, name);
            matched += u64::from(self.reconcile(dir, name, fs_kind(k), attempt, alone, out));
            since += 1;
            if since == 64 {
                since = 0;
                self.job.add_live(64, 0);
                sink.tell(out);
                if !out.children.is_empty() && sink.hungry() {
                    sink.flush(out, None);
                }
            }
        }
        self.job.add_live(since, 0);
        Ok(matched)
    }

    /// Makes tasks of the names from the `i`th on, for some who have nothing to do.
    #[expect(clippy::too_many_arguments, reason = "which names, for how many, and where to put them")]
    fn hand_back(
        &self,
        dir: &Dir,
        names: &Names,
        i: usize,
        attempt: u8,
        waiting: usize,
        least: usize,
        out: &mut Outcome,
    ) {
        let left = names.len() - i;
        if left == 0 {
            return;
        }
        let part = left.div_ceil(waiting + 1).max(least);
        let join = Some(dir.join(&self.job, out));
        let mut rest = names.iter().skip(i).peekable();
        while rest.peek().is_some() {
            let mut some = Names::default();
            rest.by_ref().take(part).for_each(|(name, k)| some.push(name, k));
            let work = Work::Files { dir: dir.path.clone(), fresh: dir.fresh, names: some };
            out.children.push(NewTask { join, attempt, work });
        }
    }

    fn at_child(&self, dir: &Dir, name: &CStr) {
        if treeferry_fs::fault::armed() {
            treeferry_fs::fault::at(dir.child(name).as_bytes());
        }
    }
}
