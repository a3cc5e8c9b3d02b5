//! What a mirror has to look at once more: what changed while it was looked at, on either side.

use crate::dir::Dir;
use crate::mirror::seen;
use crate::trouble::{Trouble, Verdict};
use crate::worker::Worker;
use std::ffi::CStr;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::time::Instant;
use treeferry_core::{Outcome, RelPath, Side};
use treeferry_fs::meta::{fstat, stat_if_there};
use treeferry_fs::{AsFd, BorrowedFd, Root};

impl Worker {
    /// After an entry was made like that of the source: if that has changed meanwhile it is looked at again. `is_there`: it
    /// is made, and is not just about to be.
    pub(crate) fn check_again(&self, dir: &Dir, name: &CStr, is_there: bool) {
        let Some(m) = self.job.mirror() else { return };
        if is_there {
            m.restless.rests(|| dir.child(name));
        }
        let now = stat_if_there(dir.s(), name).ok().flatten().map(|m| seen(&m));
        if now.is_some() && now == self.looked {
            return;
        }
        // a file with several names may have been brought under another, and before this was begun
        if is_there && self.looked.is_some() && !self.several {
            m.listener.changed(dir.child(name));
        } else {
            self.again_later(dir.child(name), false);
        }
    }

    /// After a walk of a part of a mirror's source has made a name like that of the source, of a file that has several: the
    /// walk knows of those that it comes by, and another may lie elsewhere. Whoever looks at a name knows them all.
    pub(crate) fn check_kin(&self, dir: &Dir, name: &CStr) {
        if self.several && !self.follows && self.job.mirror().is_some_and(|m| m.listener.walks_a_part()) {
            self.again_later(dir.child(name), false);
        }
    }

    /// After something was done about a name of a file that has others, of which each is a file of its own at the target: what
    /// has happened to the file is told under one of them.
    pub(crate) fn check_apart(&self, dir: &Dir, name: &CStr) {
        if let (Some(m), Some(key)) = (self.job.mirror().filter(|_| self.follows), self.apart) {
            let path = dir.child(name);
            for other in m.families.others(key, &path) {
                m.listener.again(other, false, &path);
            }
        }
    }

    /// After an entry was removed: if the source has it again it is looked at again.
    pub(crate) fn check_gone(&self, path: &RelPath) {
        if self.job.is_mirror() && !matches!(self.job.src.find(path.as_bytes()), Err(e) if e.is_gone()) {
            self.again_later(path.clone(), true);
        }
    }

    /// After names were removed from a directory of the target: if it has another name since it was opened, they were
    /// perhaps those of a directory that the source has.
    pub(crate) fn check_moved(&self, path: &RelPath, d: BorrowedFd<'_>) {
        let (Some(mirror), Some(target)) = (self.job.mirror(), &self.job.dst) else { return };
        let id = |d: BorrowedFd<'_>| fstat(d).ok().map(|m| (m.dev, m.ino, m.nlink > 0));
        let now = target.open_dir(path.as_bytes()).ok().and_then(|there| id(there.as_fd()));
        match id(d) {
            None | Some((.., false)) => {}
            was if was == now => {}
            // where that cannot be said everything is walked
            _ => mirror.listener.again(path_in(target, d).unwrap_or_else(RelPath::root), true, path),
        }
    }

    /// A path is to be looked at again, where there is somebody who does that: it changed, or could not be looked at.
    pub(crate) fn again_later(&self, path: RelPath, below: bool) {
        if let Some(m) = self.job.mirror() {
            m.listener.again(path.clone(), below, &path);
        }
    }

    /// All is done that a ticket was for: that is said once the task is committed, after all else that it has to say.
    pub(crate) fn settle(&mut self, ticket: u64) {
        self.settled.extend(Some(ticket).filter(|t| *t != 0));
    }

    /// Whether a trouble only tells that things changed while they were looked at: then a mirror looks again, for as
    /// long as that takes; but a file that is never at rest as it is copied is named in the end.
    pub(crate) fn is_deferred(&self, t: &Trouble, path: impl FnOnce() -> RelPath) -> bool {
        let Some(m) = self.job.mirror() else { return false };
        let passing = match t {
            Trouble::Changed => true,
            Trouble::Call(_, e) => e.is_gone() || e.is_exists() || e.is_other_kind(),
            _ => false,
        };
        if !passing {
            return false;
        }
        let path = path();
        if matches!(t, Trouble::Changed) && m.restless.again(path.clone(), Instant::now()) {
            return false;
        }
        // what the source has no more is found out by looking at the name alone
        self.again_later(path, matches!(t, Trouble::Call(Side::Target, _)));
        true
    }

    /// Names a trouble that is not tried again here, unless it is one that a mirror looks at again.
    pub(crate) fn name_or_defer(&self, t: Trouble, path: impl FnOnce() -> RelPath, out: &mut Outcome) {
        let path = path();
        if t.verdict(u8::MAX - 1) != Verdict::Drop && !self.is_deferred(&t, || path.clone()) {
            t.record(|| path, out);
        }
    }
}

/// The path that a directory below a root has now.
fn path_in(root: &Root, d: BorrowedFd<'_>) -> Option<RelPath> {
    let name = |fd: BorrowedFd<'_>| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok();
    let path = name(d)?.strip_prefix(name(root.fd())?).ok()?.as_os_str().as_bytes().to_vec();
    // it may have yet another name by now
    let path = RelPath::new(path).ok()?;
    let found = root.open_dir(path.as_bytes()).and_then(|fd| fstat(fd.as_fd())).ok()?;
    let is = fstat(d).ok()?;
    ((found.dev, found.ino) == (is.dev, is.ino)).then_some(path)
}
