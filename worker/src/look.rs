//! Looking at single paths, for a mirror: whatever an event said, what counts is what is there now.

use crate::compare::looks_unchanged;
use crate::delete::{is_dir_there, source_lost};
use crate::dir::Dir;
use crate::mirror::Mirror;
use crate::reconcile::Source;
use crate::trouble::{On, Res, Trouble};
use crate::worker::Worker;
use std::ffi::CStr;
use std::sync::PoisonError;
use treeferry_core::{Item, Names, NewTask, Outcome, RelPath, Seal, Side, Task, Work};
use treeferry_fs::meta::{fstat, stat_if_there};
use treeferry_fs::{AsFd, Kind, Meta, OwnedFd, Root, attr, entry};

/// How often the times of a directory are set before somebody else is to look at it again.
const MOST_ROUNDS: usize = 8;

/// Names that are gone in one task.
const GONE_NAMES: usize = 256;

/// How an entry of the target stands to the other names of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kin {
    /// It shares its inode with them and with nobody else.
    Right,
    /// It must be made anew.
    Wrong,
    /// It is a link to them now.
    Linked,
    /// That cannot be said yet.
    Later,
}

impl Worker {
    /// Runs a task that looks at names of a directory.
    pub(crate) fn look(
        &mut self,
        task: &Task,
        path: &RelPath,
        names: &Names,
        ticket: u64,
        out: &mut Outcome,
    ) -> Res<()> {
        let mut dir = match Dir::open(&self.job, path, treeferry_core::Fresh::No) {
            // it is not there, on one side or the other: what is to be done about it is its parent's to find out
            Err(Trouble::Call(_, e)) if !path.is_root() && (e.is_gone() || e.is_other_kind()) => {
                self.again_later(self.missing_above(path), false);
                for (name, _) in names.iter() {
                    let child = path.child(name);
                    let there = self.job.src.find(child.as_bytes()).and_then(|fd| fstat(fd.as_fd())).ok();
                    self.leave_kin(&child, there.as_ref(), true);
                }
                self.settle(ticket);
                return Ok(());
            }
            r => r?,
        };
        // walks that this leads to are part of it
        dir.waited_for.set(true);
        self.job.add_live(names.len() as u64, 0);
        let adopted = names.is_empty() && self.adopt(&mut dir, task.attempt, false, out)?;
        for (name, kind) in names.iter() {
            self.go_on()?;
            self.at(&dir.child(name));
            // what has been given this name by a rename may be another file, or another directory with all that is in it
            self.closely = kind == treeferry_core::Kind::File;
            if let Err(t) = self.look_at(&dir, name, kind != treeferry_core::Kind::Unknown, out) {
                self.name_or_defer(t, || dir.child(name), out);
            }
        }
        self.closely = false;
        match dir.join.get() {
            Some(join) => {
                let work = Work::Look { dir: path.clone(), names: Names::default(), ticket };
                out.seals.push(Seal { join, tally: 0, follow_up: NewTask::new(task.join, work) });
            }
            None => {
                self.end_look(&dir, adopted)?;
                self.settle(ticket);
            }
        }
        Ok(())
    }

    /// The uppermost directory on the way to one that is not there which is not there either, on one side or the other:
    /// if it appears, so does all that is below it, and whoever makes it walks it.
    fn missing_above(&self, path: &RelPath) -> RelPath {
        let whole = path.as_bytes();
        let slashes = whole.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i);
        let ends: Vec<usize> = slashes.chain([whole.len()]).collect();
        let is_missing = |root: &Root, end: usize| {
            root.open_dir(&whole[..end]).is_err_and(|e| e.is_gone() || e.is_other_kind())
        };
        let is_there = |end: &usize| {
            !is_missing(&self.job.src, *end) && !self.job.dst.as_ref().is_some_and(|d| is_missing(d, *end))
        };
        let end = ends.get(ends.partition_point(is_there));
        end.and_then(|end| RelPath::new(&whole[..*end]).ok()).unwrap_or_else(|| path.clone())
    }

    /// Runs a task that looks at the names of a directory of the target which the source's has not.
    pub(crate) fn compare_names(
        &mut self,
        task: &Task,
        path: &RelPath,
        ticket: u64,
        out: &mut Outcome,
    ) -> Res<()> {
        let opened = |root: &Root| root.open_dir(path.as_bytes());
        let lists = (self.job.dst.as_ref().map(opened).transpose(), opened(&self.job.src));
        let mut gone: Vec<Names> = Vec::new();
        // what is not there, on either side, is found out by looking at it
        if let (Ok(Some(d)), Ok(s)) = lists {
            let mut lister = std::mem::take(&mut self.dst_lister);
            let mut failed = None;
            let listed = lister.list(d.as_fd(), |name, _, _| {
                match stat_if_there(s.as_fd(), name) {
                    Ok(Some(_)) => {}
                    Ok(None) => {
                        if gone.last().is_none_or(|n| n.len() >= GONE_NAMES) {
                            gone.push(Names::default());
                        }
                        if let Some(n) = gone.last_mut() {
                            n.push(name, treeferry_core::Kind::Unknown);
                        }
                    }
                    Err(e) => failed = Some(e),
                }
                failed.is_none()
            });
            self.dst_lister = lister;
            if let Some(e) = failed {
                return Err(Trouble::Call(Side::Source, e));
            }
            listed.dst()?;
        }
        let join = self.job.new_join();
        out.opened.push(join);
        gone.push(Names::default());
        for names in gone {
            let work = Work::Look { dir: path.clone(), names, ticket: 0 };
            out.children.push(NewTask::new(Some(join), work));
        }
        let last = Work::Look { dir: path.clone(), names: Names::default(), ticket };
        out.seals.push(Seal { join, tally: 0, follow_up: NewTask::new(task.join, last) });
        Ok(())
    }

    /// Looks at one name. `below`: what is in it may be something else too, if it is a directory.
    fn look_at(&mut self, dir: &Dir, name: &CStr, below: bool, out: &mut Outcome) -> Res<()> {
        if name.to_bytes().starts_with(treeferry_fs::temp::PREFIX) && self.job.temp.maker(name).is_some() {
            return Ok(());
        }
        let there = stat_if_there(dir.s(), name).src()?;
        let f = &self.job.filter;
        // of a name that is gone the filter is asked by what the target has there: directories may be taken in, and files not
        if there.is_some_and(|m| !f.is_empty() && f.excludes(&dir.path, name, m.kind == Kind::Dir)) {
            self.look_aside(&dir.child(name), there.as_ref());
            return Ok(());
        }
        match there {
            None => self.look_gone(dir, name, out),
            Some(m) if m.kind == Kind::Dir => {
                let old = stat_if_there(dir.d()?, name).dst()?;
                if old.is_none_or(|o| o.kind != Kind::Dir) {
                    self.leave_kin(&dir.child(name), Some(&m), true);
                    return self.subdir(dir, name, out).map(drop);
                }
                let path = dir.child(name);
                if below {
                    self.again_later(path.clone(), true);
                }
                let join = Some(dir.join(&self.job, out));
                let work = Work::Look { dir: path, names: Names::default(), ticket: 0 };
                out.children.push(NewTask::new(join, work));
                Ok(())
            }
            Some(m) => {
                self.reconcile(dir, name, m.kind, 0, false, out);
                Ok(())
            }
        }
    }

    /// A name of the source is gone: so it is at the target, if the source is what it was.
    fn look_gone(&mut self, dir: &Dir, name: &CStr, out: &mut Outcome) -> Res<()> {
        self.leave_kin(&dir.child(name), None, true);
        self.leave_kin_below(&dir.child(name));
        let Some(old) = stat_if_there(dir.d()?, name).dst()? else { return Ok(()) };
        let is_dir = old.kind == Kind::Dir;
        if !self.job.spec.passes.delete || self.job.is_protected(&dir.path, name, is_dir) {
            return Ok(());
        }
        if !self.job.source_is_there() {
            return Err(source_lost());
        }
        // the name was asked of this very directory: it must still be the one that has the path
        let now = self.job.src.open_dir(dir.path.as_bytes()).and_then(|fd| fstat(fd.as_fd())).src()?;
        if (now.dev, now.ino) != (dir.src_meta.dev, dir.src_meta.ino) {
            self.again_later(dir.child(name), true);
            return Ok(());
        }
        dir.dirty.set(true);
        if is_dir {
            let join = Some(dir.join(&self.job, out));
            out.children.push(NewTask::new(join, Work::Remove { path: dir.child(name) }));
        } else {
            let names = Names::one(name, crate::compare::kind(old.kind));
            if self.remove_in(&dir.path, dir.d()?, &names, out) {
                dir.opened.set(true);
            }
        }
        Ok(())
    }

    /// Gives a directory the times that the source's has once nothing changes any more. `adopted`: it was given what else the
    /// source's had; who has that from a later moment may have done so meanwhile.
    fn end_look(&mut self, dir: &Dir, adopted: bool) -> Res<()> {
        let Some((fd, before)) = dir.dst.as_ref().filter(|_| !self.job.spec.dry_run) else { return Ok(()) };
        let mut meta = fstat(dir.s()).src()?;
        if dir.opened.get() {
            // another look may have given it another mode since it was opened here
            let wanted = dir.wanted_mode(&self.job, &meta).unwrap_or(before.mode);
            attr::set_mode(fd.as_fd(), wanted).dst()?;
            if fstat(dir.s()).src()?.mode != meta.mode {
                self.again_later(dir.path.clone(), false);
            }
        }
        if (meta.mode, meta.uid, meta.gid) != (dir.src_meta.mode, dir.src_meta.uid, dir.src_meta.gid) {
            self.again_later(dir.path.clone(), false);
        } else if let Some(m) = self.job.mirror().filter(|_| adopted && meta.ctime != dir.src_meta.ctime) {
            m.listener.changed(dir.path.clone());
        }
        for _ in 0..MOST_ROUNDS {
            let times = crate::compare::times_of(&self.job, &meta).filter(|_| self.job.spec.passes.dirtime);
            if let Some((a, m)) = times
                && fstat(fd.as_fd()).dst()?.mtime != m
            {
                attr::set_times(fd.as_fd(), a, m).dst()?;
            }
            let now = fstat(dir.s()).src()?;
            if now.mtime == meta.mtime {
                return Ok(());
            }
            meta = now;
        }
        self.again_later(dir.path.clone(), false);
        Ok(())
    }

    /// Runs a task that gives an entry of the target its new name, and looks at both.
    pub(crate) fn move_entry(
        &mut self,
        from: &RelPath,
        to: &RelPath,
        ticket: u64,
        out: &mut Outcome,
    ) -> Res<()> {
        use treeferry_core::Kind::{Dir, File, Unknown};
        let kinds = match self.try_move(from, to, out) {
            Err(Trouble::Stopped) => return Err(Trouble::Stopped),
            Ok(true) => [Dir, Unknown],
            // others have these names now, whatever their times say; looking at both finds out
            Ok(false) | Err(_) => [File, if self.is_file(from) { File } else { Unknown }],
        };
        let join = self.job.new_join();
        out.opened.push(join);
        for (path, kind) in [to, from].into_iter().zip(kinds) {
            if let Some((dir, name)) = path.split() {
                let work = Work::Look { dir, names: Names::one(&name, kind), ticket: 0 };
                out.children.push(NewTask::new(Some(join), work));
            }
        }
        let dir = to.split().map_or_else(RelPath::root, |(dir, _)| dir);
        let last = Work::Look { dir, names: Names::default(), ticket };
        out.seals.push(Seal { join, tally: 0, follow_up: NewTask::new(None, last) });
        Ok(())
    }

    fn is_file(&self, path: &RelPath) -> bool {
        let found = self.job.src.find(path.as_bytes()).and_then(|fd| fstat(fd.as_fd()));
        found.is_ok_and(|m| m.kind == Kind::File)
    }

    /// Returns whether it has the new name now, or is left out.
    fn try_move(&mut self, from: &RelPath, to: &RelPath, out: &mut Outcome) -> Res<bool> {
        let job = std::sync::Arc::clone(&self.job);
        let (Some((from_dir, from_name)), Some((to_dir, to_name)), Some(target)) =
            (from.split(), to.split(), &job.dst)
        else {
            return Ok(true);
        };
        let f = &job.filter;
        if self.job.spec.dry_run || from.covers(to) || to.covers(from) {
            return Ok(true);
        }
        let _alone = job.mirror().map(|m| m.moves.lock().unwrap_or_else(PoisonError::into_inner));
        let new = fstat(self.job.src.find(to.as_bytes()).src()?.as_fd()).src()?;
        let is_dir = new.kind == Kind::Dir;
        if let Some(m) = self.job.mirror().filter(|_| is_dir) {
            m.families.renamed(from, to);
        }
        if !f.is_empty() && (f.excludes_deep(to, is_dir) || f.excludes_deep(from, is_dir)) {
            return Ok(true);
        }
        match self.job.src.find(from.as_bytes()) {
            // something else has the name now
            Ok(_) => return Ok(false),
            Err(e) if e.is_gone() || e.is_other_kind() => {}
            Err(e) => return Err(Trouble::Call(Side::Source, e)),
        }
        if !self.job.source_is_there() {
            return Ok(false);
        }
        let old_dir = target.open_dir(from_dir.as_bytes()).dst()?;
        let new_dir = target.open_dir(to_dir.as_bytes()).dst()?;
        let Some(old) = stat_if_there(old_dir.as_fd(), &from_name).dst()? else { return Ok(false) };
        if !self.is_same_object(&new, &old) {
            return Ok(false);
        }
        if is_dir && f.may_part(from, to) && !self.is_left_out_alike(from, to)? {
            // what is left out at the target stays there, and what is left out now is to go: so it is copied, and removed
            return Ok(false);
        }
        let in_the_way = stat_if_there(new_dir.as_fd(), &to_name).dst()?;
        match in_the_way {
            None => entry::move_to(old_dir.as_fd(), &from_name, new_dir.as_fd(), &to_name).dst()?,
            // what was there has another name now, or is gone: it goes with the old name
            Some(m) if m.kind == Kind::Dir && is_dir && f.is_empty() && job.spec.passes.delete => {
                entry::exchange(old_dir.as_fd(), &from_name, new_dir.as_fd(), &to_name).dst()?;
            }
            Some(m) if m.kind == Kind::Dir || is_dir => return Ok(false),
            Some(_) => entry::move_over(old_dir.as_fd(), &from_name, new_dir.as_fd(), &to_name).dst()?,
        }
        if let Some(m) = self.job.mirror() {
            m.listener.moved(to);
        }
        self.note(Item::Made(crate::compare::kind(new.kind)), || to.clone(), out);
        Ok(true)
    }

    /// Whether of all that is below a directory of the target the same would be left out if that had another name.
    fn is_left_out_alike(&mut self, from: &RelPath, to: &RelPath) -> Res<bool> {
        let job = std::sync::Arc::clone(&self.job);
        let Some(target) = &job.dst else { return Ok(true) };
        let mut dirs = vec![(from.clone(), to.clone())];
        while let Some((old, new)) = dirs.pop() {
            self.go_on()?;
            let fd = target.open_dir(old.as_bytes()).dst()?;
            let mut alike = true;
            let listed = self.dst_lister.list(fd.as_fd(), |name, _, k| {
                let is_dir = is_dir_there(fd.as_fd(), name, k);
                let is_out = job.filter.excludes(&old, name, is_dir);
                alike = is_out == job.filter.excludes(&new, name, is_dir);
                if is_dir && !is_out {
                    dirs.push((old.child(name), new.child(name)));
                }
                alike
            });
            listed.dst()?;
            if !alike {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether an entry of the target is what this one of the source was copied to: of a directory the times, the mode
    /// and the owner, in nanoseconds; of a file what is taken for unchanged everywhere. What is below a directory is
    /// looked at afterwards in any case.
    fn is_same_object(&self, new: &Meta, old: &Meta) -> bool {
        if new.kind != old.kind || self.job.spec.checksum {
            return false;
        }
        match new.kind {
            Kind::File => new.nlink == 1 && old.nlink == 1 && looks_unchanged(&self.job, new, old),
            Kind::Dir => {
                let kept = |m: &Meta| (m.mtime, m.mode);
                kept(new) == kept(old)
            }
            _ => false,
        }
    }

    /// Sees to it that an entry shares its inode with all names of its file and with no other. One that is not at the
    /// target, or not right there, becomes a link to one that is.
    pub(crate) fn kin(&mut self, dir: &Dir, src: &Source<'_>, out: &mut Outcome) -> Res<(Kin, Option<Meta>)> {
        let job = std::sync::Arc::clone(&self.job);
        let (Some(mirror), Some(target)) = (job.mirror(), &job.dst) else { return Ok((Kin::Wrong, None)) };
        let path = dir.child(src.name);
        if !mirror.listener.names_are_known() {
            mirror.listener.again(path.clone(), false, &path);
            return Ok((Kin::Later, None));
        }
        let mut r = Ok((Kin::Wrong, None));
        let key = job.group_of(&src.meta);
        mirror.families.in_turn(key, &mut || r = self.kin_in_turn(dir, src, out, mirror, target));
        r
    }

    fn kin_in_turn(
        &mut self,
        dir: &Dir,
        src: &Source<'_>,
        out: &mut Outcome,
        mirror: &Mirror,
        target: &Root,
    ) -> Res<(Kin, Option<Meta>)> {
        let job = std::sync::Arc::clone(&self.job);
        let path = dir.child(src.name);
        let others = self.relatives(mirror, &path, &src.meta);
        if others.len() + 1 < src.meta.nlink as usize {
            self.search_for_kin(mirror, &path, &src.meta);
        }
        let mine = stat_if_there(dir.d()?, src.name).dst()?;
        if mine.is_some_and(|m| m.kind == Kind::Dir) {
            return Ok((Kin::Wrong, mine));
        }
        let mut found: Vec<(OwnedFd, Meta, RelPath)> = Vec::new();
        for p in others {
            let Ok(fd) = target.find(p.as_bytes()) else { continue };
            let m = fstat(fd.as_fd()).dst()?;
            if m.kind == src.meta.kind {
                found.push((fd, m, p));
            }
        }
        let id = |m: &Meta| job.target_id(m);
        let count = |m: &Meta| {
            let others = found.iter().filter(|(_, o, _)| id(o) == id(m)).count();
            others + usize::from(mine.as_ref().is_some_and(|o| id(o) == id(m)))
        };
        let good = |m: &Meta| {
            let same = m.kind == src.meta.kind && m.size == src.meta.size && m.rdev == src.meta.rdev;
            same && looks_unchanged(&job, &src.meta, m) && m.nlink as usize == count(m)
        };
        let rank = |m: &Meta| (count(m), std::cmp::Reverse(m.ino));
        let best = found.iter().filter(|(_, m, _)| good(m)).max_by_key(|(_, m, _)| rank(m));
        let right = mine.as_ref().filter(|m| good(m));
        let gather = |to: &Meta| {
            // whoever has another inode is to have this one
            for (_, _, p) in found.iter().filter(|(_, m, _)| id(m) != id(to)) {
                mirror.listener.again(p.clone(), false, &path);
            }
        };
        let fd = match (right, best) {
            (Some(m), b) if b.is_none_or(|(_, b, _)| rank(m) >= rank(b)) => {
                gather(m);
                return Ok((Kin::Right, mine));
            }
            (_, None) => return Ok((Kin::Wrong, mine)),
            (_, Some((fd, best, _))) => {
                gather(best);
                fd
            }
        };
        match mine {
            None => dir.change(|d| entry::name_file(fd.as_fd(), d, src.name))?,
            Some(_) => {
                let temp = job.temp.next();
                dir.change(|d| entry::name_file(fd.as_fd(), d, &temp))?;
                let r = dir.change(|d| entry::rename(d, &temp, src.name));
                // if both became the same inode meanwhile the rename has done nothing (rename(2))
                match dir.change(|d| entry::remove(d, &temp)) {
                    Err(Trouble::Call(_, e)) if e.is_gone() => {}
                    Err(t) => return Err(t),
                    Ok(()) => {}
                }
                r?;
            }
        }
        out.counters.linked += 1;
        let item = Item::Linked(crate::compare::kind(src.meta.kind), mine.is_none());
        self.note(item, || path.clone(), out);
        Ok((Kin::Linked, mine))
    }
}
