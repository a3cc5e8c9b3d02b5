//! A big file in chunks: several threads, or nodes, copy ranges into one staged file, and whoever does the
//! last chunk releases the task that names it.
//!
//! A chunk that was copied adds one to the tally of its join. A file is only named if the tally is full and
//! the source is still what it was. The chunk that fails for good removes the staged file; that removal
//! succeeds once, and whoever did it names the failure and says so in the tally. So a tally that is neither
//! full nor says so means that the source changed, or that somebody has taken the staged file away: the file
//! is copied anew.

use crate::attrs::{self, Spot};
use crate::copy::is_unchanged;
use crate::dir::Dir;
use crate::mirror::seen;
use crate::reconcile::Source;
use crate::trouble::{On, Res, Trouble, Verdict};
use crate::worker::{Flow, Worker};
use std::ffi::{CStr, CString};
use treeferry_core::change::Differs;
use treeferry_core::records::Best;
use treeferry_core::task::Stamp;
use treeferry_core::{Fresh, Item, NewTask, Outcome, RelPath, Seal, Side, StagedFile, Task, Work};
use treeferry_fs::copy::{Copied, How, Meter, copy_range, next_data};
use treeferry_fs::meta::{fstat, stat_if_there};
use treeferry_fs::xattr::At;
use treeferry_fs::{AsFd, BorrowedFd, Error, Meta, OwnedFd, entry};
use treeferry_queue::Registry;

/// In a tally: a chunk has failed for good, and has named the failure. More than a file has chunks.
const NAMED: u64 = 1 << 40;
/// ENOENT.
const NO_ENTRY: i32 = 2;

/// A file has at most so many chunks; a larger file has larger ones, so that the ledger does not grow with it.
const MAX_CHUNKS: u64 = 4096;

impl Worker {
    /// Stages an empty file of full size and gives its chunks away. Holes get none.
    pub(crate) fn plan_chunks(
        &mut self,
        dir: &Dir,
        src: &Source<'_>,
        new: bool,
        out: &mut Outcome,
    ) -> Res<bool> {
        let temp = self.job.temp.next();
        let staged = dir.change(|d| entry::create(d, &temp, 0o600))?;
        self.job.note_staged(&dir.child(&temp));
        let planned = self.plan_into(dir, src, &temp, &staged, new, out);
        if planned.is_err() {
            self.job.forget_staged(&dir.child(&temp));
            // if even this fails the next run sweeps it
            let _ = dir.change(|d| entry::remove(d, &temp));
        }
        planned
    }

    fn plan_into(
        &mut self,
        dir: &Dir,
        src: &Source<'_>,
        temp: &CStr,
        staged: &OwnedFd,
        new: bool,
        out: &mut Outcome,
    ) -> Res<bool> {
        let Some(fd) = &src.open else { return Err(Trouble::Changed) };
        let m = &src.meta;
        let inode = fstat(staged.as_fd()).dst()?.ino;
        entry::set_size(staged, m.size).dst()?;
        let holes = self.job.spec.sparse && m.may_have_holes();
        let file = StagedFile {
            path: dir.child(src.name),
            staged: dir.child(temp),
            inode,
            stamp: stamp(m),
            group: src.group,
            new,
            holes,
            attempt: src.attempt,
        };
        let size = self.job.spec.chunk_bytes.max(m.size.div_ceil(MAX_CHUNKS));
        let (mut at, mut ranges) = (0, Vec::new());
        while at < m.size {
            if holes {
                match next_data(fd.as_fd(), at, m.size).src()? {
                    Some((from, _)) => at = from - from % size.min(from + 1),
                    None => break,
                }
            }
            let len = size.min(m.size - at);
            ranges.push((at, len));
            at += len;
        }
        // from here on nothing can fail: a join that is opened is sealed
        let join = self.job.new_join();
        out.opened.push(join);
        let chunks = ranges.len() as u64;
        for (offset, len) in ranges {
            let work = Work::Chunk { file: file.clone(), offset, len };
            out.children.push(NewTask::new(Some(join), work));
        }
        let publish = NewTask::new(Some(dir.join(&self.job, out)), Work::Publish { file, chunks });
        out.seals.push(Seal { join, tally: 0, follow_up: publish });
        Ok(false)
    }

    /// Runs a chunk task.
    pub(crate) fn chunk(
        &mut self,
        task: &Task,
        file: &StagedFile,
        offset: u64,
        len: u64,
        out: &mut Outcome,
    ) -> Res<()> {
        match self.copy_chunk(file, offset, len) {
            Ok(whole) => {
                out.tally = u64::from(whole);
                Ok(())
            }
            Err(t) if matches!(t.verdict(task.attempt), Verdict::Retry | Verdict::Drop) => Err(t),
            // whoever names the file will find that out, and count it once
            Err(t) if t.verdict(task.attempt) == Verdict::Vanished => Ok(()),
            Err(t) => {
                // where another chunk was faster, or it cannot be removed, naming the file will find that out
                if self.remove_staged(file).is_ok() {
                    t.record(|| file.path.clone(), out);
                    out.tally = NAMED;
                }
                Ok(())
            }
        }
    }

    /// `false`: the file is being given up already, by another chunk or because its source changed.
    fn copy_chunk(&mut self, file: &StagedFile, offset: u64, len: u64) -> Res<bool> {
        let (dir, name) = split(&file.path)?;
        let (_, temp) = split(&file.staged)?;
        let s = self.job.src.open_dir(dir.as_bytes()).src()?;
        let src = entry::open_file(s.as_fd(), &name, true).src()?;
        if stamp(&fstat(src.as_fd()).src()?) != file.stamp {
            return Ok(false);
        }
        let d = self.target_dir(&dir)?;
        let dst = match open_staged(d.as_fd(), &temp, file) {
            Err(e) if e.is_gone() => return Ok(false),
            r => r.dst()?,
        };
        let how = How { rungs: &self.job.rungs, holes: file.holes, digests: None, buf: &mut self.buf };
        let mut flow = OwnFlow { flow: Flow(&self.job), registry: &self.registry };
        match copy_range(src.as_fd(), dst.as_fd(), offset, len, how, &mut flow).either()? {
            Copied::Whole => Ok(true),
            Copied::Shrunk => Ok(false),
            Copied::Stopped => Err(Trouble::Stopped),
        }
    }

    /// Runs the task that follows the last chunk.
    pub(crate) fn publish(
        &mut self,
        task: &Task,
        file: &StagedFile,
        chunks: u64,
        out: &mut Outcome,
    ) -> Res<()> {
        let (parent, name) = split(&file.path)?;
        if task.tally >= NAMED {
            self.give_up(file, out);
            return Ok(());
        }
        let dir = match Dir::open(&self.job, &parent, Fresh::No) {
            Err(t) if matches!(t.verdict(task.attempt), Verdict::Vanished | Verdict::Fail) => {
                // the directory of the target may be there still
                let _ = self.remove_staged(file);
                self.give_up(file, out);
                return Err(t);
            }
            r => r?,
        };
        dir.join.set(task.join);
        let full = task.tally == chunks;
        let r = self.once(file.attempt, out, |w, out| w.publish_in(&dir, &name, file, full, out));
        let Err(t) = r else {
            self.check_again(&dir, &name, true);
            return Ok(());
        };
        if !matches!(t, Trouble::Stopped) {
            let _ = self.remove_staged(file);
        }
        if t.verdict(file.attempt) == Verdict::Retry {
            out.counters.retried += 1;
            let again = self.again(&dir, &name, file.attempt.max(1) + 1, out);
            out.later.push(again);
            return Ok(());
        }
        self.give_up(file, out);
        t.record(|| file.path.clone(), out);
        Ok(())
    }

    fn publish_in(
        &mut self,
        dir: &Dir,
        name: &CString,
        file: &StagedFile,
        full: bool,
        out: &mut Outcome,
    ) -> Res<()> {
        let path = || file.path.clone();
        let (_, temp) = split(&file.staged)?;
        let src = entry::open_file(dir.s(), name, true).src()?;
        let meta = fstat(src.as_fd()).src()?;
        if !full || stamp(&meta) != file.stamp {
            return Err(Trouble::Changed);
        }
        let staged = open_staged(dir.d()?, &temp, file).dst()?;
        let old = stat_if_there(dir.d()?, name).dst()?;
        let (want, mut birth) = self.birth(dir, &meta, old.as_ref(), &path, out);
        birth.mode = 0o600;
        let (spot, at) = (Spot::Fd(staged.as_fd()), At::Fd(src.as_fd()));
        let (want, birth) = self.born(spot, dir, &meta, want, birth)?;
        self.ours()?;
        attrs::dress_new(&self.job, spot, at, &meta, &want, birth, &mut self.bufs, &path, out)?;
        if !is_unchanged(&meta, &fstat(src.as_fd()).src()?) {
            return Err(Trouble::Changed);
        }
        let made = fstat(staged.as_fd()).dst()?;
        self.may_appear(|| file.path.clone(), file.group.map(|g| (g, self.job.target_id(&made))))?;
        dir.change(|d| entry::rename(d, &temp, name))?;
        (self.looked, self.several) = (Some(seen(&meta)), meta.nlink > 1);
        if meta.nlink > 1 {
            self.gather_kin(&file.path, &meta);
        }
        if let Some(took) = self.job.forget_staged(&file.staged) {
            let size = || meta.size.to_string();
            self.job.bars.offer_time(Best::SlowestFile, took, size, path, out);
        }
        out.counters.copied_files += 1;
        out.counters.copied_bytes += meta.size;
        out.tally = 1;
        let kind = treeferry_core::Kind::File;
        let item = match &old {
            Some(o) => Item::Replaced(kind, self.shown(&meta, o)),
            None => Item::Made(kind),
        };
        debug_assert!(old.is_some() || item != Item::Replaced(kind, Differs::default()));
        if self.notes() {
            // how long that took, from the first chunk on another node perhaps, nobody knows
            self.note_copy(item, path(), Some(meta.size), None, out);
        }
        let source = Source { name, meta, open: None, group: file.group, attempt: file.attempt };
        self.lead_done(dir, &source, Some(self.job.target_id(&made)), 1, out);
        Ok(())
    }

    /// The file will not be copied: if others wait for it, one of them leads now.
    fn give_up(&mut self, file: &StagedFile, out: &mut Outcome) {
        if let Some(g) = file.group {
            self.registry.abandon(g);
            self.registry.seen(g, false);
            out.released.push(g);
        }
    }

    fn remove_staged(&self, file: &StagedFile) -> Res<()> {
        let (dir, temp) = split(&file.staged)?;
        let d = self.target_dir(&dir)?;
        entry::remove(d.as_fd(), &temp).dst()?;
        self.job.forget_staged(&file.staged);
        Ok(())
    }

    /// Opens a directory of the target alone.
    pub(crate) fn target_dir(&self, rel: &RelPath) -> Res<treeferry_fs::OwnedFd> {
        match &self.job.dst {
            Some(root) => root.open_dir(rel.as_bytes()).dst(),
            None => Err(Trouble::Call(Side::Target, Error::new("openat2", 2))),
        }
    }
}

/// Writes on only while the task is ours: what is written to may have got its name since, and be the file itself.
struct OwnFlow<'a> {
    flow: Flow<'a>,
    registry: &'a Registry,
}

impl Meter for OwnFlow<'_> {
    fn step(&mut self, bytes: u64) -> bool {
        // asked last, for the limits make it wait
        self.flow.step(bytes) && self.registry.is_mine()
    }

    fn largest_step(&self) -> u64 {
        self.flow.largest_step()
    }
}

/// Opens a staged file to continue it. What has its name and is another file, or has other names too, is none of
/// ours: somebody has put it there.
fn open_staged(d: BorrowedFd<'_>, name: &CStr, file: &StagedFile) -> treeferry_fs::Result<OwnedFd> {
    let fd = entry::open_for_writing(d, name)?;
    let m = fstat(fd.as_fd())?;
    match (m.ino, m.nlink) == (file.inode, 1) {
        true => Ok(fd),
        false => Err(Error::new("openat", NO_ENTRY)),
    }
}

fn stamp(m: &Meta) -> Stamp {
    Stamp { ino: m.ino, size: m.size, mtime: (m.mtime.sec, m.mtime.nsec), ctime: (m.ctime.sec, m.ctime.nsec) }
}

/// Directory and name of a path that is not a root.
pub(crate) fn split(path: &RelPath) -> Res<(RelPath, CString)> {
    path.split().ok_or_else(|| Trouble::Finding(Side::Target, "open", "the root is not a file".to_owned()))
}
