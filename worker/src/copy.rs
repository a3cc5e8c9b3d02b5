//! Copying one entry: staged under a temporary name, dressed, looked at once more, and only then named.

use crate::attrs::{self, AtBirth, Spot};
use crate::compare::{Want, kind};
use crate::dir::Dir;
use crate::reconcile::Source;
use crate::trouble::{On, Res, Trouble};
use crate::worker::{Flow, Worker};
use std::ffi::{CStr, CString};
use std::time::Instant;
use treeferry_core::records::Best;
use treeferry_core::{Item, Notice, Outcome};
use treeferry_fs::copy::{Copied, How, copy_file, same_content};
use treeferry_fs::meta::{fstat, stat};
use treeferry_fs::verify::{self, Digests};
use treeferry_fs::xattr::At;
use treeferry_fs::{AsFd, BorrowedFd, Kind, Meta, OwnedFd, entry};

/// A file that is being staged. Dropped without [`Staged::publish`] it is removed again.
pub(crate) struct Staged<'a> {
    dir: &'a Dir,
    pub fd: OwnedFd,
    /// `None`: it has no name yet at all.
    temp: Option<CString>,
}

impl<'a> Staged<'a> {
    /// Makes an empty file for an entry. One that replaces nothing may stay without a name for the while.
    pub fn new(worker: &Worker, dir: &'a Dir, mode: u32, replaces: bool) -> Res<Staged<'a>> {
        let job = &worker.job;
        if !replaces && job.limits.unnamed_files {
            match dir.change(|d| entry::create_unnamed(d, mode)) {
                // a file system mounted below DST may have no such files
                Err(Trouble::Call(_, e)) if e.is_unsupported() || e.is_other_kind() => {}
                r => return Ok(Staged { dir, fd: r?, temp: None }),
            }
        }
        let temp = job.temp.next();
        let fd = dir.change(|d| entry::create(d, &temp, mode))?;
        Ok(Staged { dir, fd, temp: Some(temp) })
    }

    /// Gives it its final name, in one step.
    pub fn publish(mut self, name: &CStr) -> Res<()> {
        match self.temp.take() {
            None => self.dir.change(|d| entry::name_file(self.fd.as_fd(), d, name)),
            Some(temp) => {
                let named = self.dir.change(|d| entry::rename(d, &temp, name));
                named.inspect_err(|_| self.temp = Some(temp))
            }
        }
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if let Some(temp) = &self.temp {
            // if even this fails the next run sweeps it
            let _ = self.dir.change(|d| entry::remove(d, temp));
        }
    }
}

impl Worker {
    /// Copies a regular file. Returns whether it is there now; `false`: it was given to chunk tasks.
    pub(crate) fn copy_file(
        &mut self,
        dir: &Dir,
        src: Source<'_>,
        dst: Option<&Meta>,
        out: &mut Outcome,
    ) -> Res<bool> {
        let name = src.name;
        let path = || dir.child(name);
        if self.job.spec.dry_run {
            let m = &src.meta;
            let _ = self.birth(dir, m, dst, &path, out);
            self.note_copied(&src.meta, dst, None, path, out);
            out.counters.copied_files += 1;
            out.counters.copied_bytes += m.size;
            self.lead_done(dir, &src, None, 0, out);
            return Ok(true);
        }
        let (fd, meta) = match &src.open {
            Some(fd) => (fd.as_fd(), src.meta),
            None => return self.copy_opened(dir, src, dst, out),
        };
        if meta.kind != Kind::File {
            return Err(Trouble::Changed);
        }
        let began = Instant::now();
        if meta.size > self.job.spec.chunk_bytes && !self.job.spec.verify {
            return self.plan_chunks(dir, &src, dst.is_none(), out);
        }
        let (want, birth) = self.birth(dir, &meta, dst, &path, out);
        let staged = Staged::new(self, dir, birth.mode, dst.is_some())?;
        let (want, birth) = self.born(Spot::Fd(staged.fd.as_fd()), dir, &meta, want, birth)?;
        self.copy_content(fd, &staged.fd, &meta)?;
        let (spot, at) = (Spot::Fd(staged.fd.as_fd()), At::Fd(fd));
        let job = &self.job;
        attrs::dress_new(job, spot, at, &meta, &want, birth, &mut self.bufs, &path, out)?;
        // of an empty file nothing was read that could be half old and half new
        if meta.size > 0
            && !is_unchanged(&meta, &fstat(fd).src()?)
            && !self.is_of_one_moment(fd, &staged, &meta)?
        {
            return Err(Trouble::Changed);
        }
        let target = match src.group {
            Some(_) => Some(fstat(staged.fd.as_fd()).dst().map(|m| self.job.target_id(&m))?),
            None => None,
        };
        self.may_appear(path, src.group.zip(target))?;
        staged.publish(name)?;
        out.counters.copied_files += 1;
        out.counters.copied_bytes += meta.size;
        out.counters.verified_files += u64::from(self.job.spec.verify);
        self.note_copied(&meta, dst, Some(began), path, out);
        let size = || meta.size.to_string();
        self.job.bars.offer_time(Best::SlowestFile, began.elapsed(), size, path, out);
        self.lead_done(dir, &src, target, 1, out);
        Ok(true)
    }

    /// Opens a source that was only looked at so far.
    fn copy_opened(
        &mut self,
        dir: &Dir,
        mut src: Source<'_>,
        dst: Option<&Meta>,
        out: &mut Outcome,
    ) -> Res<bool> {
        let fd = entry::open_file(dir.s(), src.name, true).src()?;
        let now = fstat(fd.as_fd()).src()?;
        // of a group we lead for this inode, not for whatever has its name by now
        if src.group.is_some() && (now.dev, now.ino) != (src.meta.dev, src.meta.ino) {
            return Err(Trouble::Changed);
        }
        src.meta = now;
        src.open = Some(fd);
        self.copy_file(dir, src, dst, out)
    }

    /// Whether what was copied from a file that has changed meanwhile is what it was at one moment after all: it is, if all
    /// of it is there still as it was read, as in a log that only grows. (What is read twice and is the same was all there
    /// between the two: Afek et al., Atomic Snapshots of Shared Memory, 1993. Who writes something and takes it back
    /// meanwhile is not noticed.)
    ///
    /// Its time tells it from the file as that is now.
    fn is_of_one_moment(&mut self, src: BorrowedFd<'_>, staged: &Staged<'_>, was: &Meta) -> Res<bool> {
        let now = fstat(src).src()?;
        let is_like = (now.uid, now.gid, now.mode) == (was.uid, was.gid, was.mode) && now.size >= was.size;
        if !is_like || now.mtime == was.mtime {
            return Ok(false);
        }
        let (holes, flow) = (now.may_have_holes(), &mut Flow(&self.job));
        let same = same_content(src, staged.fd.as_fd(), was.size, holes, &mut self.buf, flow).either()?;
        same.ok_or(Trouble::Stopped)
    }

    fn copy_content(&mut self, src: BorrowedFd<'_>, dst: &OwnedFd, meta: &Meta) -> Res<()> {
        let mut digests = self.job.spec.verify.then(Digests::default);
        let how = How {
            rungs: &self.job.rungs,
            holes: self.job.spec.sparse && meta.may_have_holes(),
            digests: digests.as_mut(),
            buf: &mut self.buf,
        };
        match copy_file(src, dst.as_fd(), meta.size, how, &mut Flow(&self.job)).either()? {
            Copied::Whole => {}
            Copied::Shrunk => return Err(Trouble::Changed),
            Copied::Stopped => return Err(Trouble::Stopped),
        }
        if let Some(d) = digests
            && !verify::check(dst.as_fd(), &d, &mut self.buf).dst()?
        {
            return Err(Trouble::Mismatch);
        }
        Ok(())
    }

    /// What a new entry is to be like, and with which mode it may be made.
    ///
    /// In a directory that nobody else can enter it is made with its final mode. Elsewhere nobody may get in
    /// by a group that is not yet the final one; and set-id bits always wait for their owner.
    pub(crate) fn birth(
        &self,
        dir: &Dir,
        meta: &Meta,
        dst: Option<&Meta>,
        path: &dyn Fn() -> treeferry_core::RelPath,
        out: &mut Outcome,
    ) -> (Want, AtBirth) {
        let gid = dir.gid_of_new(&self.job);
        let mut want = Want::of(&self.job, meta, self.job.privilege.uid, gid, true, path, out);
        if let Some(d) = dst.filter(|d| !self.job.spec.perms.wanted() && d.kind == meta.kind) {
            // modes are not kept: what is replaced keeps its own, though it is a new inode
            want.mode = Some(d.mode & 0o1777);
        }
        let mut mode = want.mode.unwrap_or(meta.mode) & 0o1777;
        if !dir.fresh.is_fresh() {
            if want.gid.is_some() {
                mode &= !0o070;
            }
            if want.uid.is_some() {
                mode &= 0o700;
            }
        }
        let inherits = dir.inherits_acl();
        if inherits {
            // the group bits would be the mask of an ACL that is not the file's
            mode &= 0o700;
        }
        (want, AtBirth { mode, inherits })
    }

    /// What a new entry is to be like, and is by birth, now that it is made: in a mirror somebody else may have changed its
    /// directory since we have opened that.
    pub(crate) fn born(
        &mut self,
        spot: Spot<'_>,
        dir: &Dir,
        src: &Meta,
        want: Want,
        birth: AtBirth,
    ) -> Res<(Want, AtBirth)> {
        if !self.job.is_mirror() {
            return Ok((want, birth));
        }
        let made = match spot {
            Spot::Fd(fd) => fstat(fd),
            Spot::Name(d, name) => stat(d, name),
        };
        let made = made.dst()?;
        let inherits =
            birth.inherits || src.kind != Kind::Symlink && attrs::has_acl(spot, &mut self.bufs).dst()?;
        let birth = AtBirth { mode: made.mode, inherits };
        if made.gid == dir.gid_of_new(&self.job) {
            return Ok((want, birth));
        }
        // what is left out has been counted
        let mut counted = Outcome::default();
        let really =
            Want::of(&self.job, src, made.uid, made.gid, true, &treeferry_core::RelPath::root, &mut counted);
        let keeps_bit = really.mode.is_none_or(|m| m & 0o2000 != 0);
        let mode = want.mode.map(|m| if keeps_bit { m } else { m & !0o2000 });
        Ok((Want { mode, ..really }, birth))
    }

    fn note_copied(
        &self,
        meta: &Meta,
        dst: Option<&Meta>,
        began: Option<Instant>,
        path: impl FnOnce() -> treeferry_core::RelPath,
        out: &mut Outcome,
    ) {
        if !self.notes() {
            return;
        }
        let item = match dst {
            Some(d) if d.kind == meta.kind => Item::Replaced(kind(meta.kind), self.shown(meta, d)),
            _ => Item::Made(kind(meta.kind)),
        };
        let bytes = (meta.kind == Kind::File).then_some(meta.size);
        self.note_copy(item, path(), bytes, began, out);
    }

    /// Makes a symlink, FIFO, socket or device, or replaces what is there by one.
    pub(crate) fn make_other(
        &mut self,
        dir: &Dir,
        src: &Source<'_>,
        dst: Option<&Meta>,
        out: &mut Outcome,
    ) -> Res<bool> {
        let (name, meta) = (src.name, &src.meta);
        let path = || dir.child(name);
        if meta.kind.is_device() && !self.job.privilege.mknod {
            out.notice(Notice::DevicesLeftOut);
            out.counters.left_out_devices += 1;
            self.lead_done(dir, src, None, 0, out);
            return Ok(false);
        }
        let (want, birth) = self.birth(dir, meta, dst, &path, out);
        let mut target = None;
        if !self.job.spec.dry_run {
            let temp = dst.map(|_| self.job.temp.next());
            let at: &CStr = temp.as_deref().unwrap_or(name);
            if meta.kind == Kind::Symlink {
                let text = entry::read_symlink(dir.s(), name).src()?;
                dir.change(|d| entry::make_symlink(d, at, &text))?;
            } else {
                let made = dir.change(|d| entry::make_special(d, at, meta.kind, birth.mode, meta.rdev));
                match made {
                    Err(Trouble::Call(_, e)) if e.is_unsupported() => {
                        out.notice(Notice::SpecialsUnsupported);
                        out.counters.unsupported_specials += 1;
                        self.lead_done(dir, src, None, 0, out);
                        return Ok(false);
                    }
                    r => r?,
                }
            }
            let d = dir.d()?;
            let (spot, from) = (Spot::Name(d, at), At::Name(dir.s(), name));
            let (want, birth) = self.born(spot, dir, meta, want, birth)?;
            let dressed =
                attrs::dress_new(&self.job, spot, from, meta, &want, birth, &mut self.bufs, &path, out);
            let named = dressed.and_then(|()| {
                if src.group.is_some() {
                    target = Some(self.job.target_id(&stat(d, at).dst()?));
                }
                self.may_appear(path, src.group.zip(target))?;
                match &temp {
                    Some(t) => entry::rename(d, t, name).dst(),
                    None => Ok(()),
                }
            });
            if let (Err(_), Some(t)) = (&named, &temp) {
                let _ = entry::remove(d, t);
            }
            named?;
        }
        match meta.kind {
            Kind::Symlink => out.counters.symlinks += 1,
            _ => out.counters.specials += 1,
        }
        self.note_copied(meta, dst, None, path, out);
        self.lead_done(dir, src, target, 1, out);
        Ok(true)
    }
}

/// Whether a source file is still what it was when its copy began.
pub(crate) fn is_unchanged(before: &Meta, now: &Meta) -> bool {
    (before.size, before.mtime, before.ctime) == (now.size, now.mtime, now.ctime)
}
