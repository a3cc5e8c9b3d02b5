//! A directory that is being worked on: both sides open, and what is known of it.

use crate::compare::Want;
use crate::job::Job;
use crate::trouble::{On, Res, Trouble};
use std::cell::{Cell, OnceCell};
use std::ffi::CStr;
use treeferry_core::{Fresh, JoinId, Outcome, RelPath, Side};
use treeferry_fs::meta::{fstat, stat};
use treeferry_fs::xattr::{self, ACL_DEFAULT, At};
use treeferry_fs::{AsFd, BorrowedFd, Error, Meta, OwnedFd, Root, attr};

/// A directory that others lock again and again is unlocked so often.
const UNLOCKS: u32 = 8;

/// A directory of the source with the one of the target that corresponds to it.
pub(crate) struct Dir {
    pub path: RelPath,
    pub src: OwnedFd,
    pub src_meta: Meta,
    /// `None`: it does not exist, and this is a dry run or a pass that makes nothing. Its mode is the one that it
    /// is to have when all is done, also while another lets us in.
    pub dst: Option<(OwnedFd, Meta)>,
    /// This job made it, so nothing is in it and nobody else can look in.
    pub fresh: Fresh,
    /// We changed something in it or of it, so its times need to be set again.
    pub dirty: Cell<bool>,
    /// We had to change its mode to get in.
    pub opened: Cell<bool>,
    /// The join of everything that still has to happen in it.
    pub join: Cell<Option<JoinId>>,
    /// Somebody above waits until everything below is done: its mode would lock us out.
    pub waited_for: Cell<bool>,
    inherits_acl: OnceCell<bool>,
}

impl Dir {
    /// Opens both sides.
    pub fn open(job: &Job, path: &RelPath, mut fresh: Fresh) -> Res<Dir> {
        let src = job.src.open_dir(path.as_bytes()).src()?;
        let src_meta = fstat(src.as_fd()).src()?;
        refuse_root(job, &src_meta, Other::Target)?;
        let mut locked = None;
        let dst = match &job.dst {
            None => None,
            Some(root) => match open_locked(job, root, path, &mut locked) {
                Ok(fd) => {
                    let meta = fstat(fd.as_fd()).dst()?;
                    if fresh.is_fresh() && (meta.mode & 0o777, meta.uid) != (0o700, job.privilege.uid) {
                        // not the directory that we made: somebody who may write above has put it there
                        fresh = Fresh::No;
                    }
                    refuse_root(job, &meta, Other::Source)?;
                    // as it was before we unlocked it
                    Some((fd, Meta { mode: locked.unwrap_or(meta.mode), ..meta }))
                }
                Err(e) if (job.spec.dry_run || !job.spec.passes.copy) && not_there(e) => None,
                Err(e) => return Err(Trouble::Call(Side::Target, e)),
            },
        };
        Ok(Dir {
            path: path.clone(),
            src,
            src_meta,
            dst,
            fresh,
            dirty: Cell::new(false),
            opened: Cell::new(locked.is_some()),
            join: Cell::new(None),
            waited_for: Cell::new(false),
            inherits_acl: OnceCell::new(),
        })
    }

    /// The open source.
    pub fn s(&self) -> BorrowedFd<'_> {
        self.src.as_fd()
    }

    /// The open target; in a dry run of what does not exist there is none.
    pub fn d(&self) -> Res<BorrowedFd<'_>> {
        match &self.dst {
            Some((fd, _)) => Ok(fd.as_fd()),
            None => Err(Trouble::Finding(Side::Target, "openat2", "the directory does not exist".to_owned())),
        }
    }

    /// The mode that it is to have when all is done, if that is known.
    pub fn mode(&self) -> Option<u32> {
        self.dst.as_ref().filter(|_| !self.fresh.is_fresh()).map(|(_, m)| m.mode)
    }

    /// The mode that it is to have when all is done: that of the source as it is now, or where modes are not kept that which
    /// an earlier part of the work has found.
    pub fn keep_mode(&mut self, job: &Job, mode: u32) {
        let mode = self.wanted_mode(job, &self.src_meta).unwrap_or(mode);
        if let Some((_, now)) = &mut self.dst {
            // whoever worked in it may have unlocked it
            self.opened.set(self.opened.get() || now.mode != mode);
            now.mode = mode;
        }
    }

    /// The mode that the target is to have when the source is like this; `None`: modes are not kept, or not by this pass.
    pub fn wanted_mode(&self, job: &Job, src: &Meta) -> Option<u32> {
        let (_, now) = self.dst.as_ref().filter(|_| job.spec.passes.dirtime)?;
        // what is left out was counted when that began
        let mut counted = Outcome::default();
        Want::of(job, src, now.uid, now.gid, false, &RelPath::root, &mut counted).mode
    }

    /// Path of an entry.
    pub fn child(&self, name: &CStr) -> RelPath {
        self.path.child(name)
    }

    /// The join of this directory, opened by the first who needs it.
    pub fn join(&self, job: &Job, out: &mut Outcome) -> JoinId {
        self.join.get().unwrap_or_else(|| {
            let j = job.new_join();
            out.opened.push(j);
            self.join.set(Some(j));
            j
        })
    }

    /// Does something to the target directory that needs write permission there. Where it is refused and the
    /// directory is ours, it is made writable first; its final mode is set when it is finished.
    pub fn change<T>(&self, mut f: impl FnMut(BorrowedFd<'_>) -> treeferry_fs::Result<T>) -> Res<T> {
        let d = self.d()?;
        self.dirty.set(true);
        let mut tries = 0;
        loop {
            match f(d) {
                Err(e) if e.is_refused() => {
                    // another thread may have finished it meanwhile
                    let mode = fstat(d).dst()?.mode;
                    let is_open = mode & 0o700 == 0o700;
                    tries += 1;
                    if tries > UNLOCKS || (is_open && tries > 1 && !self.opened.get()) {
                        return Err(Trouble::Call(Side::Target, e));
                    }
                    if !is_open && attr::set_mode(d, mode | 0o700).is_err() {
                        return Err(Trouble::Call(Side::Target, e));
                    }
                    self.opened.set(self.opened.get() || !is_open);
                }
                r => return r.dst(),
            }
        }
    }

    /// Whether new entries of the target inherit an ACL from it (acl(5), "OBJECT CREATION AND DEFAULT ACLs").
    pub fn inherits_acl(&self) -> bool {
        if self.fresh == Fresh::Plain {
            return false;
        }
        *self.inherits_acl.get_or_init(|| {
            let mut buf = xattr::Buffer::default();
            self.d().is_ok_and(|d| matches!(xattr::get(At::Fd(d), ACL_DEFAULT, &mut buf), Ok(Some(_))))
        })
    }

    /// Whether a directory that we make in it is one of which all is known. (A mirror looks at what happens to it
    /// meanwhile.)
    pub fn gives_nothing(&self, job: &Job) -> bool {
        self.fresh == Fresh::Plain
            || (!job.is_mirror()
                && self.dst.as_ref().is_some_and(|(_, m)| m.mode & 0o2000 == 0)
                && !job.limits.group_of_dir
                && !self.inherits_acl())
    }

    /// The group that a new entry of the target gets.
    pub fn gid_of_new(&self, job: &Job) -> u32 {
        match &self.dst {
            Some((_, m)) if m.mode & 0o2000 != 0 || job.limits.group_of_dir => m.gid,
            _ => job.privilege.gid,
        }
    }
}

/// Opens a directory of the target. One of ours whose mode locks us out is unlocked first; `was` is its mode.
fn open_locked(
    job: &Job,
    root: &Root,
    path: &RelPath,
    was: &mut Option<u32>,
) -> treeferry_fs::Result<OwnedFd> {
    let refused = match root.open_dir(path.as_bytes()) {
        Err(e) if e.is_refused() && !job.spec.dry_run => e,
        r => return r,
    };
    let Some((up, name)) = path.split() else { return Err(refused) };
    let parent = root.open_dir(up.as_bytes())?;
    let mode = stat(parent.as_fd(), &name)?.mode;
    attr::set_mode_at(parent.as_fd(), &name, mode | 0o700).map_err(|_| refused)?;
    *was = Some(mode);
    root.open_dir(path.as_bytes())
}

/// Which root a directory that was opened below one of them must not be.
pub(crate) enum Other {
    /// A directory of the source must not be DST.
    Target,
    /// A directory of the target must not be SRC.
    Source,
}

/// Refuses a directory below one root that is the other root, by way of a bind mount: to go on there would be
/// to copy for ever, or to delete the source. (Roots that lie in each other without such means are refused
/// before the job begins.)
pub(crate) fn refuse_root(job: &Job, m: &Meta, other: Other) -> Res<()> {
    let (is, side, name) = match other {
        Other::Target => (job.dst.as_ref().is_some_and(|d| d.identity().is(m)), Side::Source, "DST"),
        Other::Source => (job.src.identity().is(m), Side::Target, "SRC"),
    };
    if !is {
        return Ok(());
    }
    let text = format!("this directory is {name} itself, by way of a mount: exclude it");
    Err(Trouble::Finding(side, "openat2", text))
}

/// It does not exist, or something else is in its place.
fn not_there(e: Error) -> bool {
    e.is_gone() || e.is_other_kind()
}
