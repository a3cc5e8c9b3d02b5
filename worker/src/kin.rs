//! The other names of a file, in a mirror: what happens to it under one of them is told under that name alone.

use crate::compare::looks_unchanged;
use crate::mirror::{Mirror, Search};
use crate::worker::Worker;
use treeferry_core::RelPath;
use treeferry_fs::meta::fstat;
use treeferry_fs::{AsFd, Kind, Meta, Root};

impl Worker {
    /// The other names of a file of the source that are that now.
    pub(crate) fn relatives(&self, mirror: &Mirror, path: &RelPath, meta: &Meta) -> Vec<RelPath> {
        if meta.nlink <= 1 {
            return Vec::new();
        }
        let key = self.job.group_of(meta);
        let is_one = |p: &RelPath| {
            let now = self.job.src.find(p.as_bytes()).and_then(|fd| fstat(fd.as_fd()));
            now.is_ok_and(|m| (m.dev, m.ino) == (meta.dev, meta.ino))
        };
        let (real, wrong): (Vec<_>, Vec<_>) = mirror.families.others(key, path).into_iter().partition(is_one);
        wrong.iter().for_each(|p| mirror.families.forget(key, p));
        real
    }

    /// A name is looked at: if it was one of a file with several names and is not any more, whatever happened to that
    /// file under this name was not seen under the others. So one of them is looked at, which brings the rest along.
    /// `likely`: as in [`crate::NameBook::noted_for`].
    pub(crate) fn leave_kin(&self, path: &RelPath, now: Option<&Meta>, likely: bool) {
        let Some(mirror) = self.job.mirror().filter(|_| self.job.spec.hardlinks) else { return };
        let Some(key) = mirror.families.noted_for(path, likely) else { return };
        let is_it = |m: &Meta| m.kind != Kind::Dir && self.job.group_of(m) == key;
        if now.is_some_and(is_it) {
            return;
        }
        for p in mirror.families.others(key, path) {
            if self.job.src.find(p.as_bytes()).and_then(|fd| fstat(fd.as_fd())).is_ok_and(|m| is_it(&m)) {
                // before the name is forgotten: who is killed in between, and does this again, says it again
                if !mirror.listener.again_surely(p, false, path) {
                    return;
                }
                break;
            }
            mirror.families.forget(key, &p);
        }
        mirror.families.forget(key, path);
    }

    /// The same for all names below a directory that is gone: of what happened there shortly before, nothing may have been
    /// told. There may be very many, of which hardly any has changed: so only what differs at the target is looked at.
    pub(crate) fn leave_kin_below(&self, gone: &RelPath) {
        let (Some(mirror), Some(target)) = (self.job.mirror(), &self.job.dst) else { return };
        if !self.job.spec.hardlinks {
            return;
        }
        for path in mirror.families.noted_below(gone) {
            let Some(key) = mirror.families.noted_for(&path, false) else { continue };
            mirror.families.forget(key, &path);
            let stat =
                |root: &Root, p: &RelPath| root.find(p.as_bytes()).and_then(|fd| fstat(fd.as_fd())).ok();
            let mut others = mirror.families.others(key, &path).into_iter();
            let other = others.find_map(|p| {
                stat(&self.job.src, &p).filter(|m| self.job.group_of(m) == key).map(|m| (p, m))
            });
            let Some((other, now)) = other else { continue };
            let same = |old: Meta| {
                let kept = |m: &Meta| (m.kind, m.mode, m.uid, m.gid);
                looks_unchanged(&self.job, &now, &old) && kept(&now) == kept(&old)
            };
            if !stat(target, &other).is_some_and(same) {
                mirror.listener.again(other, false, gone);
            }
        }
    }

    /// Not all names of a file are known: sees to it that they are searched for.
    pub(crate) fn search_for_kin(&self, mirror: &Mirror, path: &RelPath, meta: &Meta) {
        let mut say = |what| match what {
            // they may be about to be told
            Search::Soon => mirror.listener.again_surely(path.clone(), false, path),
            // they were there before: only a walk finds them
            Search::Everywhere => mirror.listener.again_surely(RelPath::root(), true, path),
            Search::No => true,
        };
        mirror.families.search(self.job.group_of(meta), meta.nlink, &mut say);
    }

    /// A name that is excluded is looked at: what happened to its file under this name was not seen under those that are not.
    pub(crate) fn look_aside(&self, path: &RelPath, now: Option<&Meta>) {
        let Some(mirror) = self.job.mirror().filter(|_| self.job.spec.hardlinks) else { return };
        self.leave_kin(path, now, false);
        let Some(meta) = now.filter(|m| m.kind != Kind::Dir && m.nlink > 1) else { return };
        if !mirror.listener.names_are_known() {
            mirror.listener.again(path.clone(), false, path);
            return;
        }
        let key = self.job.group_of(meta);
        mirror.families.note_excluded(key, path.clone());
        let others = self.relatives(mirror, path, meta);
        if others.is_empty() {
            // it may have got this name from one that nobody has looked at since
            self.search_for_kin(mirror, path, meta);
        }
        for p in others {
            mirror.listener.again(p, false, path);
        }
    }

    /// A file with several names was made anew: the others are to become links to it.
    pub(crate) fn gather_kin(&self, path: &RelPath, meta: &Meta) {
        let Some(mirror) = self.job.mirror() else { return };
        for p in self.relatives(mirror, path, meta) {
            mirror.listener.again(p, false, path);
        }
    }
}
