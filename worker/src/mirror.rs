//! What a mirror adds to a job: somebody who is told what has to be looked at again, and the names of every file that
//! has several.
//!
//! A mirror's tasks may run at the same time for the same path, and late. What makes it converge is that whoever has
//! made an entry of the target like that of the source looks at the source once more *after* that: if it is not what it
//! was, the path is to be looked at again. So the last who changes an entry of the target has seen a source that did
//! not change until then, and a later change is a later event.

use crate::restless::Restless;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use treeferry_core::{GroupKey, RelPath};
use treeferry_fs::{Meta, Time};

/// Hears what those who work for a mirror find. Called from worker threads; must be quick.
pub trait Mirrored: Send + Sync {
    /// A path is to be looked at again. `below`: and everything below it. `owed`: what has happened to this path,
    /// which is being worked on, is not on the target before that is done.
    fn again(&self, path: RelPath, below: bool, owed: &RelPath);
    /// The same; comes back when it is not lost any more if this process is killed. `false`: it may be.
    fn again_surely(&self, path: RelPath, below: bool, owed: &RelPath) -> bool {
        self.again(path, below, owed);
        true
    }
    /// A path was brought as it was since the task began, and has changed since: it is to be looked at again.
    fn changed(&self, path: RelPath);
    /// A path alone is to be looked at again, after so long: it is too young. `owed` as with [`Mirrored::again`].
    fn later(&self, path: RelPath, wait: Duration, owed: &RelPath);
    /// All that a task with this ticket has led to is done.
    fn settled(&self, ticket: u64);
    /// An entry was given its new name at the target.
    fn moved(&self, path: &RelPath);
    /// Whether the whole source has been walked once, so that all names of files with several are known.
    fn names_are_known(&self) -> bool;
    /// Whether whoever walks, if somebody does, walks a part of the source: then a file may have names that the walk does not
    /// come by.
    fn walks_a_part(&self) -> bool {
        false
    }
}

/// Knows the names of files of the source that have several, as far as they were seen. Names that are wrong by now do no
/// harm: each is looked at before it is believed. Called from worker threads.
pub trait NameBook: Send + Sync {
    /// Notes a name.
    fn note(&self, key: GroupKey, path: RelPath);
    /// Notes the name of a file that has no other.
    fn note_single(&self, key: GroupKey, path: RelPath);
    /// Notes a name that is excluded, of a file with several: what is told of it when it is gone concerns the others. It is no
    /// other name of theirs.
    fn note_excluded(&self, _key: GroupKey, _path: RelPath) {}
    /// What is to be done about a file that has more names than are known. They are not searched for twice: what a walk
    /// over everything has not found is not below SRC. `say` says it to somebody, before it is noted as said; `false`: that
    /// may be lost, and is to be said again.
    fn search(&self, key: GroupKey, nlink: u32, say: &mut dyn FnMut(Search) -> bool);
    /// The names of a file with several but for one.
    fn others(&self, key: GroupKey, but: &RelPath) -> Vec<RelPath>;
    /// A name is not one of that file any more.
    fn forget(&self, key: GroupKey, path: &RelPath);
    /// The file with several names that a name was last known to be one of. `likely`: it is worth asking somebody else.
    fn noted_for(&self, path: &RelPath, likely: bool) -> Option<GroupKey>;
    /// Names below a directory of files with several names, as far as that is known here.
    fn noted_below(&self, dir: &RelPath) -> Vec<RelPath>;
    /// A directory has another name, and so have all that are below it.
    fn renamed(&self, from: &RelPath, to: &RelPath);
    /// Runs something for a file while nobody else does: two names of one file would else chase each other.
    fn in_turn(&self, key: GroupKey, f: &mut dyn FnMut());
    /// All that is known, for whoever goes on with the mirror; `None`: they find it elsewhere.
    fn kept(&self) -> Option<KeptNames> {
        None
    }
}

/// What a [`NameBook`] knows.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct KeptNames {
    families: Vec<(GroupKey, Family)>,
    recent: [Vec<(GroupKey, RelPath)>; 2],
    now: Vec<(RelPath, GroupKey)>,
    former: [Vec<(RelPath, GroupKey)>; 2],
    renamed: Vec<(RelPath, RelPath)>,
}

/// A mirror's part of a job.
pub(crate) struct Mirror {
    pub listener: Box<dyn Mirrored>,
    pub families: Box<dyn NameBook>,
    pub restless: Restless,
    /// Held by whoever renames at the target: what two renames take for one and the same may not be it any more after the
    /// first.
    pub moves: Mutex<()>,
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
    index: Mutex<Index>,
    turn: Mutex<()>,
}

/// Which file a name belongs to, of those that have several.
#[derive(Default)]
struct Index {
    now: BTreeMap<RelPath, GroupKey>,
    /// Names that were forgotten, in two generations: what is done through a descriptor that is still open is told under
    /// a name that the file had.
    former: [HashMap<RelPath, GroupKey>; 2],
    /// Directories that were renamed lately: old and new name, the latest last.
    renamed: VecDeque<(RelPath, RelPath)>,
}

impl Index {
    fn of(&self, path: &RelPath) -> Option<GroupKey> {
        let known =
            |p: &RelPath| self.now.get(p).or_else(|| self.former.iter().find_map(|f| f.get(p))).copied();
        let mut path = path.clone();
        let mut found = known(&path);
        for (from, to) in self.renamed.iter().rev() {
            if found.is_none()
                && let Some(old) = renamed(&path, to, from)
            {
                path = old;
                found = known(&path);
            }
        }
        found
    }

    fn forget(&mut self, key: GroupKey, path: &RelPath) {
        if self.now.get(path) == Some(&key) {
            self.now.remove(path);
            self.note_former(key, path.clone());
        }
    }

    fn note_former(&mut self, key: GroupKey, path: RelPath) {
        self.former[0].insert(path, key);
        if self.former[0].len() >= RECENT {
            self.former[1] = std::mem::take(&mut self.former[0]);
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Family {
    names: Vec<RelPath>,
    /// How more names than these were last searched for, and how many there were to be.
    searched: Option<(u32, Search)>,
}

/// Where further names of a file are searched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
/// Renames of directories that are remembered.
const RENAMED: usize = 256;

/// What a path is called when a directory above it has another name; `None`: it is not below that one.
fn renamed(path: &RelPath, from: &RelPath, to: &RelPath) -> Option<RelPath> {
    let rest = path.as_bytes().get(from.as_bytes().len()..).filter(|_| from.covers(path))?;
    RelPath::new([to.as_bytes(), rest].concat()).ok()
}

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

impl Families {
    /// One that knows what another knew. What is wrong by now does no harm.
    pub fn knowing(names: KeptNames) -> Families {
        let KeptNames { families, recent, now, former, renamed } = names;
        Families {
            names: Mutex::new(families.into_iter().collect()),
            recent: Mutex::new(recent.map(|r| r.into_iter().collect())),
            index: Mutex::new(Index {
                now: now.into_iter().collect(),
                former: former.map(|f| f.into_iter().collect()),
                renamed: renamed.into(),
            }),
            turn: Mutex::default(),
        }
    }
}

impl NameBook for Families {
    fn note(&self, key: GroupKey, path: RelPath) {
        lock(&self.index).now.insert(path.clone(), key);
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

    fn note_excluded(&self, key: GroupKey, path: RelPath) {
        lock(&self.index).note_former(key, path);
    }

    fn search(&self, key: GroupKey, nlink: u32, say: &mut dyn FnMut(Search) -> bool) {
        let next = Search::next(lock(&self.names).get(&key).and_then(|f| f.searched), nlink);
        if say(next) {
            lock(&self.names).entry(key).or_default().searched = Some((nlink, next));
        }
    }

    fn others(&self, key: GroupKey, but: &RelPath) -> Vec<RelPath> {
        let mut names = lock(&self.names).get(&key).map_or_else(Vec::new, |f| f.names.clone());
        let first: Vec<RelPath> = lock(&self.recent).iter().filter_map(|r| r.get(&key).cloned()).collect();
        for path in &first {
            lock(&self.index).now.entry(path.clone()).or_insert(key);
        }
        names.extend(first);
        names.sort();
        names.dedup();
        names.retain(|p| p != but);
        names
    }

    fn forget(&self, key: GroupKey, path: &RelPath) {
        lock(&self.index).forget(key, path);
        let mut known = false;
        for recent in lock(&self.recent).iter_mut() {
            if recent.get(&key) == Some(path) {
                recent.remove(&key);
                known = true;
            }
        }
        let mut all = lock(&self.names);
        if let Some(family) = all.get_mut(&key) {
            let before = family.names.len();
            family.names.retain(|p| p != path);
            if known || family.names.len() < before {
                // it was renamed, perhaps; or the number is another file's by now
                family.searched = None;
                if family.names.is_empty() {
                    all.remove(&key);
                }
            }
        }
    }

    fn noted_for(&self, path: &RelPath, _: bool) -> Option<GroupKey> {
        lock(&self.index).of(path)
    }

    fn noted_below(&self, dir: &RelPath) -> Vec<RelPath> {
        let index = lock(&self.index);
        let from = index.now.range(dir.clone()..).map(|(p, _)| p);
        let near = from.take_while(|p| p.as_bytes().starts_with(dir.as_bytes()));
        near.filter(|p| *p != dir && dir.covers(p)).cloned().collect()
    }

    fn renamed(&self, from: &RelPath, to: &RelPath) {
        let renamed = &mut lock(&self.index).renamed;
        if renamed.len() >= RENAMED {
            renamed.pop_front();
        }
        renamed.push_back((from.clone(), to.clone()));
    }

    fn in_turn(&self, _: GroupKey, f: &mut dyn FnMut()) {
        let _turn = lock(&self.turn);
        f();
    }

    fn kept(&self) -> Option<KeptNames> {
        fn pairs<'a, K: Clone + 'a, V: Clone + 'a>(
            all: impl IntoIterator<Item = (&'a K, &'a V)>,
        ) -> Vec<(K, V)> {
            all.into_iter().map(|(k, v)| (k.clone(), v.clone())).collect()
        }
        let index = lock(&self.index);
        Some(KeptNames {
            families: pairs(lock(&self.names).iter()),
            recent: lock(&self.recent).each_ref().map(pairs),
            now: pairs(&index.now),
            former: index.former.each_ref().map(pairs),
            renamed: index.renamed.iter().cloned().collect(),
        })
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
        let path = |s: &str| RelPath::new(s).unwrap();
        let search = |nlink, heard: bool| {
            let mut said = Search::No;
            f.search(key, nlink, &mut |what| {
                said = what;
                heard
            });
            said
        };
        assert_eq!(search(3, false), Search::Soon);
        let searched: Vec<Search> = (0..2).map(|_| search(3, true)).collect();
        assert_eq!(searched, [Search::Soon, Search::Everywhere], "nobody has heard it the first time");
        assert_eq!(search(3, true), Search::No);
        assert_eq!(search(4, true), Search::Soon, "there is one more");
        search(4, true);
        f.forget(key, &path("elsewhere"));
        assert_eq!(search(4, true), Search::No, "that was none of its names");
        // the only name of a file that was made lately
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

    #[test]
    fn it_is_known_which_file_a_name_was_one_of_also_when_its_directory_has_another_name() {
        let (f, key, other) = (Families::default(), GroupKey { dev: 1, ino: 2 }, GroupKey { dev: 1, ino: 3 });
        let path = |s: &str| RelPath::new(s).unwrap();
        f.note(key, path("d/a"));
        f.note_single(other, path("d/single"));
        assert_eq!(f.noted_for(&path("d/a"), true), Some(key));
        assert_eq!(f.noted_for(&path("d/single"), true), None);
        f.others(other, &path("d/second"));
        assert_eq!(f.noted_for(&path("d/single"), true), Some(other), "it has another name by now");
        f.note(key, path("d2/a"));
        assert_eq!(f.noted_below(&path("d")), [path("d/a"), path("d/single")]);
        assert!(f.noted_below(&path("d/a")).is_empty());
        f.renamed(&path("d"), &path("e"));
        f.renamed(&path("e"), &path("g/h"));
        for name in ["d/a", "e/a", "g/h/a"] {
            assert_eq!(f.noted_for(&path(name), true), Some(key), "{name}");
        }
        assert_eq!(f.noted_for(&path("g/h/b"), true), None);
        // whoever goes on with what is kept knows the same
        let kept = f.kept().unwrap();
        let text = format!("{kept:?}");
        let g = Families::knowing(kept);
        assert_eq!(g.noted_for(&path("g/h/a"), true), Some(key));
        assert_eq!(g.others(key, &path("d/a")), f.others(key, &path("d/a")));
        assert_eq!(text.len(), format!("{:?}", g.kept().unwrap()).len());
        // what is written to a file that is still open is told under a name that it had
        f.forget(key, &path("d/a"));
        assert_eq!(f.noted_for(&path("d/a"), true), Some(key));
        f.note(other, path("d/a"));
        assert_eq!(f.noted_for(&path("g/h/a"), true), Some(other));
    }
}
