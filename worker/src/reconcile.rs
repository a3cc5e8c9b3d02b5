//! `reconcile`: make `DST/path` what `SRC/path` is now. The one function behind copying, and later behind
//! mirroring.

use crate::attrs::{self, Spot};
use crate::compare::{Want, comes_of_age_in, is_out_of_age, kind, looks_unchanged};
use crate::dir::Dir;
use crate::look::Kin;
use crate::mirror::seen;
use crate::trouble::{On, Res, Trouble, Verdict};
use crate::worker::{Flow, Worker};
use std::ffi::CStr;
use std::time::SystemTime;
use treeferry_core::change::Differs;
use treeferry_core::records::Best;
use treeferry_core::task::CLEARED;
use treeferry_core::{Fresh, GroupKey, Item, NewTask, Outcome, RelPath, Seal, Side, Work};
use treeferry_fs::meta::{fstat, stat, stat_if_there};
use treeferry_fs::xattr::At;
use treeferry_fs::{AsFd, Error, Kind, Meta, OwnedFd, copy, entry};
use treeferry_queue::{Claim, Leader, Owned};

/// Files larger than this get a task of their own, so that a batch does not wait behind them.
const ALONE_FROM_BYTES: u64 = 4 << 20;

/// What changed within so many seconds, and is no larger than that, is compared by content where events are followed.
const RECENT_S: i64 = 2;
const RECENT_BYTES: u64 = 16 << 20;

/// ENOTEMPTY.
const NOT_EMPTY: i32 = 39;

/// The source side of an entry.
pub(crate) struct Source<'a> {
    pub name: &'a CStr,
    pub meta: Meta,
    /// Open, if it had to be opened to look at it.
    pub open: Option<OwnedFd>,
    /// The hard-link group that it copies for.
    pub group: Option<GroupKey>,
    /// How often it was tried before.
    pub attempt: u8,
}

impl Worker {
    /// Brings an entry that is not a directory to its end, whatever that is: done, counted, named, or given to
    /// a task. `alone`: it has a task of its own. Returns whether it is there at the target now.
    pub(crate) fn reconcile(
        &mut self,
        dir: &Dir,
        name: &CStr,
        hint: Kind,
        attempt: u8,
        alone: bool,
        out: &mut Outcome,
    ) -> bool {
        let mut group = None;
        (self.looked, self.several, self.apart) = (None, false, None);
        let made = |out: &Outcome| out.counters.copied_files + out.counters.meta_fixed;
        let before = made(out);
        match self.entry(dir, name, hint, attempt, alone, &mut group, out) {
            Ok(there) => {
                if made(out) > before {
                    self.check_apart(dir, name);
                }
                self.check_again(dir, name, there);
                self.check_kin(dir, name);
                there
            }
            Err(t) => {
                let verdict = t.verdict(attempt);
                if verdict == Verdict::Retry {
                    out.counters.retried += 1;
                    let again = self.again(dir, name, attempt + 1, out);
                    out.later.push(again);
                    return false;
                }
                if let Some(g) = group.filter(|_| verdict != Verdict::Drop) {
                    // the next of the group leads
                    self.registry.abandon(g);
                    self.registry.seen(g, false);
                    out.released.push(g);
                }
                if !self.is_deferred(&t, || dir.child(name)) {
                    t.record(|| dir.child(name), out);
                }
                false
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "the body of `reconcile`, apart for its error handling")]
    fn entry(
        &mut self,
        dir: &Dir,
        name: &CStr,
        hint: Kind,
        attempt: u8,
        alone: bool,
        group: &mut Option<GroupKey>,
        out: &mut Outcome,
    ) -> Res<bool> {
        self.job.limit.ops(1);
        self.ours()?;
        let first = attempt == 0;
        // counted before anything can fail, so that files = the sum of what became of them
        let told = hint == Kind::File;
        out.counters.files += u64::from(first && told);
        let new = dir.fresh.is_fresh() || dir.dst.is_none();
        let mut open = None;
        // a new file will be read anyway, so it is opened first and looked at then
        let meta = if new && told && self.job.old_before.is_none() && !self.job.spec.dry_run {
            let fd = entry::open_file(dir.s(), name, true).src()?;
            let m = fstat(fd.as_fd()).src()?;
            open = Some(fd);
            m
        } else {
            stat(dir.s(), name).src()?
        };
        self.looked = Some(seen(&meta));
        if first {
            match (told, meta.kind == Kind::File) {
                (true, false) => out.counters.files -= 1,
                (false, true) => out.counters.files += 1,
                _ => {}
            }
            if meta.kind == Kind::File {
                out.counters.bytes += meta.size;
                out.sizes.count(meta.size);
                self.job.bars.offer(Best::LargestFile, meta.size, String::new, || dir.child(name), out);
            }
        }
        if meta.kind == Kind::Dir {
            // it became one since it was listed
            self.leave_kin(&dir.child(name), Some(&meta), self.follows);
            return self.subdir(dir, name, out);
        }
        let special = !matches!(meta.kind, Kind::File | Kind::Symlink);
        if let (Some(wait), Some(m)) = (comes_of_age_in(&self.job, &meta), self.job.mirror()) {
            // nothing is heard of that
            let path = dir.child(name);
            m.listener.later(path.clone(), wait, &path);
            return Ok(false);
        }
        if is_out_of_age(&self.job, &meta) {
            self.note_skipped("its age: --min-age or --max-age", || dir.child(name), out);
            return Ok(false);
        }
        if special && !self.job.spec.specials {
            self.note_skipped("--no-specials", || dir.child(name), out);
            return Ok(false);
        }
        let mut dst = if new { None } else { stat_if_there(dir.d()?, name).dst()? };
        let mut src = Source { name, meta, open, group: None, attempt };
        let mut kin = None;
        let several = meta.nlink > 1 && self.job.spec.hardlinks;
        self.several = several;
        if let Some(m) = self.job.mirror().filter(|_| meta.nlink > 1 && !several) {
            self.apart = Some(self.job.group_of(&meta));
            m.families.note(self.job.group_of(&meta), dir.child(name));
        }
        let linked = dst.is_some_and(|d| d.kind != Kind::Dir && d.nlink > 1);
        let stays = || dst.is_some_and(|d| d.kind == meta.kind && looks_unchanged(&self.job, &meta, &d));
        // who walks asks only of what is about to be replaced
        if self.job.is_mirror() && (self.follows || (linked && !stays())) {
            self.leave_kin(&dir.child(name), Some(&meta), linked);
        }
        if let Some(m) = self.job.mirror().filter(|_| several) {
            m.families.note(self.job.group_of(&meta), dir.child(name));
        }
        if let Some(m) = self.job.mirror().filter(|_| self.follows && !several && meta.nlink == 1) {
            m.families.note_single(self.job.group_of(&meta), dir.child(name));
        }
        if self.follows && self.job.spec.hardlinks && (several || dst.is_some_and(|d| d.nlink > 1)) {
            let (how, now) = self.kin(dir, &src, out)?;
            match how {
                Kin::Later => return Ok(false),
                Kin::Linked => {
                    // counted as that; the metadata of the file may have changed since its other names were looked at
                    let before = out.counters.unchanged_files;
                    let d = stat(dir.d()?, name).dst()?;
                    self.fix(dir, &src, &d, Some(Kin::Right), out)?;
                    out.counters.unchanged_files = before;
                    return Ok(true);
                }
                Kin::Right | Kin::Wrong => dst = now,
            }
            kin = Some(how);
        } else if several {
            let key = self.job.group_of(&meta);
            if let Some(there) = self.follow(dir, &src, key, dst.as_ref(), first, out) {
                return Ok(there);
            }
            *group = Some(key);
            src.group = Some(key);
        }
        if dst.is_some_and(|d| d.kind == Kind::Dir) {
            match self.clear_way(dir, name, attempt, out)? {
                true => dst = None,
                false => return Ok(false),
            }
        }
        let same_kind = dst.filter(|d| d.kind == meta.kind);
        if let Some(d) = same_kind
            && self.is_same(dir, &src, &d)?
            && kin.map_or_else(|| self.links_right(dir, &src, &d), |k| Ok(k == Kin::Right))?
            // both may have been read meanwhile, for hours
            && self.ours().map(|()| true)?
            && self.fix(dir, &src, &d, kin, out)?
        {
            self.lead_done(dir, &src, Some(self.job.target_id(&d)), d.nlink, out);
            return Ok(true);
        }
        if meta.kind == Kind::File && !alone && meta.size > ALONE_FROM_BYTES && !self.job.spec.dry_run {
            // counted here, done there: as a second attempt of the same entry
            let mut task = self.again(dir, name, attempt.max(1), out);
            if let Work::Files { fresh, .. } = &mut task.work {
                *fresh = dir.fresh;
            }
            out.children.push(task);
            return Ok(false);
        }
        let made = self.once(attempt, out, |w, out| match meta.kind {
            Kind::File => w.copy_file(dir, src, dst.as_ref(), out),
            _ => w.make_other(dir, &src, dst.as_ref(), out),
        })?;
        if made && kin.is_some() {
            self.gather_kin(&dir.child(name), &meta);
        }
        Ok(made)
    }

    /// What a name of a hard-link group is to do, if it is not to lead: `Some` says whether it is there.
    fn follow(
        &mut self,
        dir: &Dir,
        src: &Source<'_>,
        key: GroupKey,
        dst: Option<&Meta>,
        first: bool,
        out: &mut Outcome,
    ) -> Option<bool> {
        let path = dir.child(src.name);
        // not there yet, in a target that was there before us: a name that is there had better lead
        let right = dst.is_some_and(|d| d.kind == src.meta.kind && looks_unchanged(&self.job, &src.meta, d));
        let wavers = first && !right && !self.job.made_target;
        let claim = self.registry.claim(key, src.meta.nlink, &path, wavers);
        if let (Claim::Follow(Leader { target: Some(t), .. }), Some(d)) = (&claim, dst)
            && self.job.target_id(d) == *t
        {
            out.counters.unchanged_files += u64::from(src.meta.kind == Kind::File);
            self.registry.seen(key, false);
            return Some(true);
        }
        let wait = match claim {
            Claim::Lead => return None,
            Claim::Wait => true,
            Claim::Follow(_) => false,
        };
        let join = Some(dir.join(&self.job, out));
        let task = NewTask::new(join, Work::Link { path, kind: kind(src.meta.kind), group: key });
        if wait {
            out.parked.push((key, task));
        } else {
            out.children.push(task);
        }
        Some(false)
    }

    /// The first copy of a group is there: what waits for it may go on.
    pub(crate) fn lead_done(
        &mut self,
        dir: &Dir,
        src: &Source<'_>,
        target: Option<(u64, u64)>,
        links: u32,
        out: &mut Outcome,
    ) {
        if let Some(g) = src.group {
            self.registry.ready(g, Leader { path: dir.child(src.name), target, links });
            self.registry.seen(g, false);
            out.released.push(g);
        }
    }

    /// Whether the inode at the target is shared with no name of the source that it should not be shared with:
    /// an inode with several links belongs to the first source inode that takes it. Names that are not in the
    /// source (extra ones, or a snapshot beside DST) do no harm, since such an inode is never written to.
    fn links_right(&self, dir: &Dir, src: &Source<'_>, dst: &Meta) -> Res<bool> {
        if !self.job.spec.hardlinks || (dst.nlink <= 1 && src.group.is_none()) {
            return Ok(true);
        }
        let path = src.group.map(|_| dir.child(src.name));
        let key = self.job.group_of(&src.meta);
        match self.registry.own_target(key, self.job.target_id(dst), path.as_ref()) {
            Owned::Ours => Ok(true),
            Owned::Others => Ok(false),
            Owned::Lost => Err(Trouble::Stopped),
        }
    }

    /// Asked right before an entry appears under its name. `leads`: the group that it leads, and its inode. An error:
    /// the task is another's by now, who may have ended it, and what came after it.
    pub(crate) fn may_appear(
        &self,
        path: impl FnOnce() -> RelPath,
        leads: Option<(GroupKey, (u64, u64))>,
    ) -> Res<()> {
        let mine = match leads {
            // a new inode is nobody's, whatever is still said of one that had its number
            Some((g, target)) => self.registry.own_target(g, target, Some(&path())) != Owned::Lost,
            None => return self.ours(),
        };
        if mine { Ok(()) } else { Err(Trouble::Stopped) }
    }

    /// Whether content, link text or device number is the same.
    fn is_same(&mut self, dir: &Dir, src: &Source<'_>, dst: &Meta) -> Res<bool> {
        let m = &src.meta;
        match m.kind {
            Kind::File if self.job.spec.checksum => {
                if m.size != dst.size {
                    return Ok(false);
                }
                self.has_same_content(dir, src.name, m, dst)
            }
            Kind::File if !looks_unchanged(&self.job, m, dst) => Ok(false),
            // written twice within one tick of the clock, perhaps
            Kind::File if self.follows && (self.closely || is_recent(m)) => {
                self.has_same_content(dir, src.name, m, dst)
            }
            Kind::File => Ok(true),
            Kind::Symlink => Ok(m.size == dst.size
                && entry::read_symlink(dir.s(), src.name).src()?
                    == entry::read_symlink(dir.d()?, src.name).dst()?),
            Kind::CharDevice | Kind::BlockDevice => Ok(m.rdev == dst.rdev),
            _ => Ok(true),
        }
    }

    /// Reads both.
    fn has_same_content(&mut self, dir: &Dir, name: &CStr, m: &Meta, dst: &Meta) -> Res<bool> {
        let a = entry::open_file(dir.s(), name, true).src()?;
        let b = entry::open_file(dir.d()?, name, true).dst()?;
        let holes = m.may_have_holes() || dst.may_have_holes();
        let flow = &mut Flow(&self.job);
        let same = copy::same_content(a.as_fd(), b.as_fd(), m.size, holes, &mut self.buf, flow).src()?;
        same.ok_or(Trouble::Stopped)
    }

    /// Repairs the metadata of an entry whose content is right. `false`: it must be made anew, since its inode
    /// has other names. They may lie anywhere (a snapshot beside DST, say), and are not ours to change.
    /// `kin`: that of a mirror, which knows whose names they are.
    fn fix(
        &mut self,
        dir: &Dir,
        src: &Source<'_>,
        dst: &Meta,
        kin: Option<Kin>,
        out: &mut Outcome,
    ) -> Res<bool> {
        let name = src.name;
        let path = || dir.child(name);
        let mut found = Outcome::default();
        let want = Want::of(&self.job, &src.meta, dst.uid, dst.gid, false, &path, &mut found);
        let d = dir.d()?;
        let (spot, at) = (Spot::Name(d, name), At::Name(dir.s(), name));
        let shared = dst.nlink > 1 && kin != Some(Kin::Right);
        let touch = !shared && !self.job.spec.dry_run;
        let (job, bufs) = (&self.job, &mut self.bufs);
        let differs =
            attrs::repair(job, spot, at, &src.meta, dst, false, touch, &want, bufs, &path, &mut found);
        let differs = match differs {
            Ok(d) if shared && d.any() => return Ok(false),
            r => r,
        };
        let named = !found.failures.is_empty();
        if !matches!(&differs, Err(t) if t.verdict(src.attempt) == Verdict::Retry) {
            out.absorb(found);
        }
        let differs = differs?;
        if differs.any() {
            out.counters.meta_fixed += 1;
            self.note(Item::Fixed(kind(src.meta.kind), differs), path, out);
        } else if src.meta.kind == Kind::File && !named {
            out.counters.unchanged_files += 1;
        }
        Ok(true)
    }

    /// A directory of the target is where something else is to be. An empty one is removed; a full one only
    /// if the job deletes or was forced, by tasks of its own, after which the entry is tried again. So is an empty
    /// one if deletions are limited or go to the trash. Returns whether the way is free now.
    fn clear_way(&mut self, dir: &Dir, name: &CStr, attempt: u8, out: &mut Outcome) -> Res<bool> {
        let allowed = self.job.spec.passes.delete || self.job.spec.force;
        let path = dir.child(name);
        if self.job.is_protected(&dir.path, name, true) {
            return Err(protected());
        }
        if self.job.spec.dry_run {
            if !allowed && !self.is_empty_dir(dir, name)? {
                return Err(in_the_way(self.job.is_mirror()));
            }
            let join = dir.join(&self.job, out);
            out.children.push(NewTask::new(Some(join), Work::Remove { path }));
            return Ok(true);
        }
        let removed = match self.job.counts_deletions() && allowed {
            true => Err(Trouble::Call(Side::Target, Error::new("rmdir", NOT_EMPTY))),
            false => dir.change(|d| entry::remove_dir(d, name)),
        };
        match removed {
            Ok(()) => {
                out.counters.deleted += 1;
                self.note(Item::Deleted(treeferry_core::Kind::Dir), || path, out);
                Ok(true)
            }
            Err(Trouble::Call(_, e)) if e.is_not_empty() => {
                if !allowed {
                    return Err(in_the_way(self.job.is_mirror()));
                }
                if attempt >= CLEARED {
                    return Err(not_cleared());
                }
                let gone = self.job.new_join();
                out.opened.push(gone);
                out.children.push(NewTask::new(Some(gone), Work::Remove { path }));
                let again = self.again(dir, name, (attempt + CLEARED).max(1), out);
                out.seals.push(Seal { join: gone, tally: 0, follow_up: again });
                Ok(false)
            }
            Err(t) => Err(t),
        }
    }

    fn is_empty_dir(&mut self, dir: &Dir, name: &CStr) -> Res<bool> {
        let fd = entry::open_subdir(dir.d()?, name).dst()?;
        self.dst_lister.list(fd.as_fd(), |_, _, _| false).dst()
    }

    /// Sees to it that a subdirectory exists at the target, and gives its walk away. Returns whether it is
    /// there.
    pub(crate) fn subdir(&mut self, dir: &Dir, name: &CStr, out: &mut Outcome) -> Res<bool> {
        let mut made = dir.fresh.is_fresh() || dir.dst.is_none();
        if self.job.spec.passes.copy {
            if !dir.fresh.is_fresh() && dir.dst.is_some() {
                match stat_if_there(dir.d()?, name).dst()? {
                    Some(m) if m.kind == Kind::Dir => {}
                    Some(_) if self.job.is_protected(&dir.path, name, false) => return Err(protected()),
                    Some(_) => {
                        made = true;
                        if !self.job.spec.dry_run {
                            dir.change(|d| entry::remove(d, name))?;
                        }
                    }
                    None => made = true,
                }
            }
            if made {
                if !self.job.spec.dry_run {
                    match dir.change(|d| entry::make_dir(d, name, 0o700)) {
                        Err(Trouble::Call(Side::Target, e)) if dir.fresh.is_fresh() && e.is_exists() => {
                            made = false
                        }
                        r => r?,
                    }
                }
                out.counters.made_dirs += u64::from(made);
                self.note(Item::Made(treeferry_core::Kind::Dir), || dir.child(name), out);
            }
        }
        // where a mode would lock us out of what is below, the directory gets it last of all
        let locks_us_out = !self.job.privilege.dac_override && dir.src_meta.mode & 0o700 != 0o700;
        let wait = locks_us_out || dir.waited_for.get();
        let join = wait.then(|| dir.join(&self.job, out));
        let fresh = match made && self.job.spec.passes.copy {
            false => Fresh::No,
            true if dir.gives_nothing(&self.job) => Fresh::Plain,
            true => Fresh::Made,
        };
        out.children.push(NewTask::new(join, Work::Walk { path: dir.child(name), fresh, resume: None }));
        Ok(true)
    }

    /// What a replaced entry is shown to differ in.
    pub(crate) fn shown(&self, src: &Meta, dst: &Meta) -> Differs {
        // what is left out was counted when the entry itself was made
        let mut counted = Outcome::default();
        let want = Want::of(&self.job, src, dst.uid, dst.gid, false, &RelPath::root, &mut counted);
        Differs {
            size: src.kind == Kind::File && src.size != dst.size,
            content: self.job.spec.checksum || src.kind != Kind::File,
            ..want.differs(dst)
        }
    }
}

/// Whether a small file changed so lately that its times may not tell one version from the next: those of older kernels
/// go by ticks of 1 to 10 ms.
fn is_recent(m: &Meta) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let since = now.as_secs() as i64 - m.ctime.sec;
    (1..=RECENT_BYTES).contains(&m.size) && (-RECENT_S..=RECENT_S).contains(&since)
}

fn protected() -> Trouble {
    let text = "an excluded entry of another kind is in the way";
    Trouble::Finding(Side::Target, "replace", text.to_owned())
}

fn not_cleared() -> Trouble {
    let text = "the directory in the way could not be removed with all that is in it";
    Trouble::Finding(Side::Target, "rmdir", text.to_owned())
}

fn in_the_way(is_mirror: bool) -> Trouble {
    let text = match is_mirror {
        true => "a directory that is not empty is in the way, and stays there by --no-delete",
        false => "a directory that is not empty is in the way: --delete or --force would remove it",
    };
    Trouble::Finding(Side::Target, "rmdir", text.to_owned())
}
