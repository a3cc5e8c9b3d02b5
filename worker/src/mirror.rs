//! What a mirror adds to a job: somebody who is told what has to be looked at again, and the names of every file that
//! has several.
//!
//! A mirror's tasks may run at the same time for the same path, and late. What makes it converge is that whoever has
//! made an entry of the target like that of the source looks at the source once more *after* that: if it is not what it
//! was, the path is to be looked at again. So the last who changes an entry of the target has seen a source that did
//! not change until then, and a later change is a later event.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use treeferry_core::{GroupKey, RelPath};
use treeferry_fs::{Meta, Time};

/// Hears what those who work for a mirror find. Called from worker threads; must be quick.
pub trait Mirrored: Send + Sync {
    /// A path is to be looked at again. `below`: and everything below it. `owed`: what has happened to this path,
    /// which is being worked on, is not on the target before that is done.
    fn again(&self, path: RelPath, below: bool, owed: &RelPath);
    /// The same for a path alone, and after so long: it is too young.
    fn later(&self, path: RelPath, wait: Duration, owed: &RelPath);
    /// All that a task with this ticket has led to is done.
    fn settled(&self, ticket: u64);
    /// An entry was given its new name at the target.
    fn moved(&self, path: &RelPath);
    /// Whether the whole source has been walked once, so that all names of files with several are known.
    fn names_are_known(&self) -> bool;
}

/// Knows the names of files of the source that have several, as far as they were seen. Names that are wrong by now do no
/// harm: each is looked at before it is believed. Called from worker threads.
pub trait NameBook: Send + Sync {
    /// Notes a name.
    fn note(&self, key: GroupKey, path: RelPath);
    /// Notes the name of a file that has no other.
    fn note_single(&self, key: GroupKey, path: RelPath);
    /// What is to be done about a file that has more names than are known. They are not searched for twice: what a walk
    /// over everything has not found is not below SRC.
    fn search(&self, key: GroupKey, nlink: u32) -> Search;
    /// The names of a file but for one.
    fn others(&self, key: GroupKey, but: &RelPath) -> Vec<RelPath>;
    /// A name is not one of that file any more.
    fn forget(&self, key: GroupKey, path: &RelPath);
    /// Runs something for a file while nobody else does: two names of one file would else chase each other.
    fn in_turn(&self, key: GroupKey, f: &mut dyn FnMut());
}

/// A mirror's part of a job.
pub(crate) struct Mirror {
    pub listener: Box<dyn Mirrored>,
    pub families: Box<dyn NameBook>,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mirror")
    }
}

/// A [`NameBook`] of one process, in memory.
#[derive(Default)]
pub struct Families {
    names: Mutex<HashMap<GroupKey, Family>>,
    /// Names of files that had one when they were last looked at, in two generations: of a file that was made lately the
    /// first name is known when it gets a second.
    recent: Mutex<[HashMap<GroupKey, RelPath>; 2]>,
    turn: Mutex<()>,
}

#[derive(Default)]
struct Family {
    names: Vec<RelPath>,
    /// How more names than these were last searched for, and how many there were to be.
    searched: Option<(u32, Search)>,
}

/// Where further names of a file are searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// Among those that are told in a moment.
    Soon,
    /// By a walk over everything.
    Everywhere,
    /// Nowhere any more.
    No,
}

/// Files in a generation of those that were looked at lately.
const RECENT: usize = 100_000;

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Search {
    /// What comes after `last`, which is what was done when there were so many names: `None`, nothing yet.
    pub fn next(last: Option<(u32, Search)>, nlink: u32) -> Search {
        match last {
            Some((n, _)) if n != nlink => Search::Soon,
            None => Search::Soon,
            Some((_, Search::Soon)) => Search::Everywhere,
            Some(_) => Search::No,
        }
    }
}

impl NameBook for Families {
    fn note(&self, key: GroupKey, path: RelPath) {
        let mut all = lock(&self.names);
        let names = &mut all.entry(key).or_default().names;
        if !names.contains(&path) {
            names.push(path);
        }
    }

    fn note_single(&self, key: GroupKey, path: RelPath) {
        let mut recent = lock(&self.recent);
        recent[0].insert(key, path);
        if recent[0].len() >= RECENT {
            recent[1] = std::mem::take(&mut recent[0]);
        }
    }

    fn search(&self, key: GroupKey, nlink: u32) -> Search {
        let mut all = lock(&self.names);
        let family = all.entry(key).or_default();
        let next = Search::next(family.searched, nlink);
        family.searched = Some((nlink, next));
        next
    }

    fn others(&self, key: GroupKey, but: &RelPath) -> Vec<RelPath> {
        let mut names = lock(&self.names).get(&key).map_or_else(Vec::new, |f| f.names.clone());
        let recent = lock(&self.recent);
        names.extend(recent.iter().filter_map(|r| r.get(&key).cloned()));
        names.sort();
        names.dedup();
        names.retain(|p| p != but);
        names
    }

    fn forget(&self, key: GroupKey, path: &RelPath) {
        let mut all = lock(&self.names);
        if let Some(family) = all.get_mut(&key) {
            family.names.retain(|p| p != path);
            // it was renamed, perhaps; or the number is another file's by now
            family.searched = None;
            if family.names.is_empty() {
                all.remove(&key);
            }
        }
        for recent in lock(&self.recent).iter_mut() {
            if recent.get(&key) == Some(path) {
                recent.remove(&key);
            }
        }
    }

    fn in_turn(&self, _: GroupKey, f: &mut dyn FnMut()) {
        let _turn = lock(&self.turn);
        f();
    }
}

/// What tells that an entry of the source is still what it was when it was looked at: inode number and status-change
/// time.
pub(crate) type Seen = (u64, Time);

/// Of an entry.
pub(crate) fn seen(m: &Meta) -> Seen {
    (m.ino, m.ctime)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nobody_knows_are_searched_for_once() {
        let (f, key) = (Families::default(), GroupKey { dev: 1, ino: 2 });
        let searched: Vec<Search> = (0..4).map(|_| f.search(key, 3)).collect();
        assert_eq!(searched, [Search::Soon, Search::Everywhere, Search::No, Search::No]);
        assert_eq!(f.search(key, 4), Search::Soon, "there is one more");
        // the only name of a file that was made lately
        let path = |s: &str| RelPath::new(s).unwrap();
        f.note_single(key, path("a"));
        assert_eq!(f.others(key, &path("b")), [path("a")]);
        f.note(key, path("a"));
        assert_eq!(f.others(key, &path("b")), [path("a")], "once");
        f.forget(key, &path("a"));
        assert!(f.others(key, &path("b")).is_empty());
    }

    #[test]
    fn a_family_is_the_names_that_were_noted_and_not_forgotten() {
        let (f, key) = (Families::default(), GroupKey { dev: 1, ino: 2 });
        let path = |s: &str| RelPath::new(s).unwrap();
        for name in ["a", "b", "a", "c"] {
            f.note(key, path(name));
        }
        assert_eq!(f.others(key, &path("b")), [path("a"), path("c")]);
        f.forget(key, &path("a"));
        f.forget(key, &path("c"));
        assert!(f.others(key, &path("b")).is_empty());
        f.forget(key, &path("b"));
        assert!(lock(&f.names).is_empty());
        f.forget(key, &path("b"));
    }
}
