//! The hardlinker: makes a name a hard link to the first copy of its group.
//!
//! It is the only thing that makes links. The first copy is a matter of the workers; a link task comes here
//! when that copy exists, or has failed, in which case the name is handed back to be copied itself. A new
//! link appears under its final name at once, or takes another entry's place by a rename; nothing is left
//! behind.

use std::ffi::CStr;
use std::sync::Arc;
use std::time::SystemTime;
use treeferry_core::event;
use treeferry_core::task::{CLEARED, MAX_ATTEMPTS, tries};
use treeferry_core::{
    Change, Event, Failure, Fresh, GroupKey, Item, Kind, Names, NewTask, Outcome, RelPath, Seal, Side, Task,
    Work,
};
use treeferry_fs::meta::{fstat, stat_if_there};
use treeferry_fs::{AsFd, Error, Meta, Root, TempNames, attr, entry, fault};
use treeferry_queue::{Claim, Leader, Registry};

// error numbers of errno(3)
const EPERM: i32 = 1;
const EXDEV: i32 = 18;
const EMLINK: i32 = 31;
const EOPNOTSUPP: i32 = 95;

/// What the hardlinker needs of a job.
pub trait LinkJob: Send + Sync {
    /// The target root; `None` in a dry run whose DST does not exist.
    fn target(&self) -> Option<&Root>;
    /// Where temporary names come from.
    fn temp_names(&self) -> &TempNames;
    /// Touch nothing.
    fn dry_run(&self) -> bool;
    /// Report changes.
    fn itemize(&self) -> bool;
    /// Report them to those who watch.
    fn tells_entries(&self) -> bool;
    /// A directory in the way that is not empty may be removed.
    fn may_clear(&self) -> bool;
    /// An excluded entry of the target, which is not to be removed.
    fn is_protected(&self, dir: &RelPath, name: &CStr, is_dir: bool) -> bool;
    /// A name was made a link.
    fn was_linked(&self, _path: &RelPath) {}
    /// Also an empty directory is removed by the delete pass alone, which counts it or moves it to the trash.
    fn counts_deletions(&self) -> bool;
    /// What tells a file of the target from every other.
    fn target_id(&self, m: &Meta) -> (u64, u64);
    /// A new number for a join.
    fn new_join(&self) -> treeferry_core::JoinId;
}

/// Makes links for one job.
pub struct Hardlinker {
    job: Arc<dyn LinkJob>,
}

/// How a link task ended.
enum End {
    /// The name was the right inode already.
    Right,
    /// It is now. True: it was not there before.
    Linked(bool),
    /// It is now, in the place of an empty directory.
    LinkedForDir,
    /// The first copy is not there, or not what it was: the name must be copied itself.
    NoLeader,
    /// The first copy could not be made for want of privilege or support: nor can this.
    NotKept,
    /// A directory that is not empty is where the name is to be.
    Blocked,
    /// An excluded entry is where the name is to be.
    Protected,
}

impl Hardlinker {
    /// A hardlinker for a job.
    pub fn new(job: Arc<dyn LinkJob>) -> Hardlinker {
        Hardlinker { job }
    }

    /// Runs a link task.
    pub fn run(&self, task: &Task, registry: &Registry) -> Outcome {
        let mut out = Outcome::default();
        let Work::Link { path, kind, group } = &task.work else { return out };
        if fault::armed() {
            fault::at(path.as_bytes());
        }
        let Some((dir, name)) = path.split() else { return out };
        let again = |work| NewTask { join: task.join, attempt: 0, work };
        let leader = match registry.claim(*group, 0, path, false) {
            Claim::Follow(l) => l,
            Claim::Wait => {
                out.parked.push((*group, again(task.work.clone())));
                return out;
            }
            // it leads now: to be copied like any file. Its walk has counted it, so this is no first attempt
            Claim::Lead => {
                out.children.push(copy_it(task, &dir, &name));
                return out;
            }
        };
        if !registry.is_mine() {
            // another's by now, who may have made the link, and what came after it
            return out;
        }
        let mut end = self.link(&dir, &name, &leader);
        if matches!(&end, Err(e) if e.is_refused()) && self.unlock(&dir) {
            end = self.link(&dir, &name, &leader);
        }
        let more = tries(task.attempt) + 1 < MAX_ATTEMPTS;
        match end {
            Ok(End::Right) => {
                out.counters.unchanged_files += u64::from(*kind == Kind::File);
                settled(registry, *group, false, &mut out);
            }
            Ok(end @ (End::Linked(_) | End::LinkedForDir)) => {
                let new = !matches!(end, End::Linked(false));
                if matches!(end, End::LinkedForDir) {
                    out.counters.deleted += 1;
                    self.note(Item::Deleted(Kind::Dir), path, &mut out);
                }
                out.counters.linked += 1;
                self.note(Item::Linked(*kind, new), path, &mut out);
                self.job.was_linked(path);
                settled(registry, *group, true, &mut out);
            }
            Ok(End::NotKept) => {
                out.counters.skipped += 1;
                registry.seen(*group, false);
            }
            Ok(End::NoLeader) => {
                registry.abandon(*group);
                out.children.push(copy_it(task, &dir, &name));
            }
            Ok(End::Blocked) if self.job.may_clear() && task.attempt < CLEARED => {
                let gone = self.job.new_join();
                out.opened.push(gone);
                out.children.push(NewTask::new(Some(gone), Work::Remove { path: path.clone() }));
                let follow_up = NewTask { attempt: task.attempt + CLEARED, ..again(task.work.clone()) };
                out.seals.push(Seal { join: gone, tally: 0, follow_up });
            }
            Ok(End::Blocked) => {
                let text = match task.attempt >= CLEARED {
                    true => "the directory in the way could not be removed with all that is in it",
                    false => {
                        "a directory that is not empty is in the way: --delete or --force would remove it"
                    }
                };
                out.fail(Failure::finding(path.clone(), Side::Target, "rmdir", text));
                registry.seen(*group, false);
            }
            Ok(End::Protected) => {
                let text = "an excluded entry of another kind is in the way";
                out.fail(Failure::finding(path.clone(), Side::Target, "replace", text));
                registry.seen(*group, false);
            }
            Err(e) if (e.retryable() || e.is_gone() || e.is_exists()) && more => {
                out.counters.retried += 1;
                out.later.push(NewTask { attempt: task.attempt + 1, ..again(task.work.clone()) });
            }
            Err(e) => {
                let mut f = Failure::errno(path.clone(), Side::Target, e.op, e.raw());
                if matches!(e.raw(), EPERM | EXDEV | EMLINK | EOPNOTSUPP) {
                    f.error.push_str(": the target holds no such link; --no-hardlinks copies each name");
                }
                out.fail(f);
                registry.seen(*group, false);
            }
        }
        out
    }

    /// Notes a change, if anybody wants to know.
    fn note(&self, item: Item, path: &RelPath, out: &mut Outcome) {
        if self.job.itemize() {
            out.changes.push(Change { item, path: path.clone() });
        }
        if self.job.tells_entries() {
            let time_us = event::micros(SystemTime::now());
            out.events.push(Event { time_us, ..Event::change(item, path.clone()) });
        }
    }

    fn link(&self, dir: &RelPath, name: &CStr, leader: &Leader) -> Result<End, Error> {
        let Some(root) = self.job.target() else { return Ok(End::Linked(true)) };
        let open = |p: &RelPath| root.open_dir(p.as_bytes());
        let to = match open(dir) {
            Err(e) if e.is_gone() && self.job.dry_run() => return Ok(End::Linked(true)),
            r => r?,
        };
        let there = stat_if_there(to.as_fd(), name)?;
        let Some(want) = leader.target else {
            // the first copy is not there: a dry run would make it, a real run has left it out
            return Ok(if self.job.dry_run() { End::Linked(there.is_none()) } else { End::NotKept });
        };
        if there.is_some_and(|m| self.job.target_id(&m) == want) {
            return Ok(End::Right);
        }
        if there.is_some_and(|m| m.kind == treeferry_fs::Kind::Dir && self.job.is_protected(dir, name, true))
        {
            return Ok(End::Protected);
        }
        if self.job.dry_run() {
            return Ok(End::Linked(there.is_none()));
        }
        // what is linked is what was looked at, whoever renames things meanwhile
        let from = match root.find(leader.path.as_bytes()) {
            Err(e) if e.is_gone() || e.is_other_kind() => return Ok(End::NoLeader),
            r => r?,
        };
        let m = fstat(from.as_fd())?;
        if self.job.target_id(&m) != want {
            return Ok(End::NoLeader);
        }
        match there {
            None => {
                entry::name_file(from.as_fd(), to.as_fd(), name)?;
                Ok(End::Linked(true))
            }
            Some(m) if m.kind == treeferry_fs::Kind::Dir => {
                if self.job.may_clear() && self.job.counts_deletions() {
                    return Ok(End::Blocked);
                }
                match entry::remove_dir(to.as_fd(), name) {
                    Ok(()) => {
                        entry::name_file(from.as_fd(), to.as_fd(), name)?;
                        Ok(End::LinkedForDir)
                    }
                    Err(e) if e.is_not_empty() => Ok(End::Blocked),
                    Err(e) => Err(e),
                }
            }
            Some(_) => {
                let temp = self.job.temp_names().next();
                entry::name_file(from.as_fd(), to.as_fd(), &temp)?;
                let r = entry::rename(to.as_fd(), &temp, name);
                // if both became the same inode meanwhile the rename has done nothing (rename(2))
                match entry::remove(to.as_fd(), &temp) {
                    Err(e) if !e.is_gone() => return Err(e),
                    _ => r?,
                }
                Ok(End::Linked(false))
            }
        }
    }

    /// Makes a directory of ours writable for us; its final mode it gets when it is finished.
    fn unlock(&self, dir: &RelPath) -> bool {
        let fd = self.job.target().filter(|_| !self.job.dry_run()).map(|r| r.open_dir(dir.as_bytes()));
        let Some(Ok(fd)) = fd else { return false };
        fstat(fd.as_fd())
            .is_ok_and(|m| m.mode & 0o700 != 0o700 && attr::set_mode(fd.as_fd(), m.mode | 0o700).is_ok())
    }
}

/// The name is there, for the count of its directory, and for its group.
fn settled(registry: &Registry, group: GroupKey, linked: bool, out: &mut Outcome) {
    out.tally = 1;
    registry.seen(group, linked);
}

/// The task that copies a name itself.
fn copy_it(task: &Task, dir: &RelPath, name: &CStr) -> NewTask {
    let names = Names::one(name, Kind::Unknown);
    NewTask { join: task.join, attempt: 1, work: Work::Files { dir: dir.clone(), fresh: Fresh::No, names } }
}
