//! Somebody who follows hints by the rules of the crate, and by nothing else: what they know of a tree must be the
//! tree in the end.

use super::rel;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;
use treeferry_core::path::RelPath;
use treeferry_event::{Hint, News, What};

/// What is known of an entry: whether it is a directory, its inode number, its size if it is none.
type Entry = (bool, u64, u64);

/// A tree as it is known from hints.
pub struct Model {
    source: PathBuf,
    pub entries: BTreeMap<RelPath, Entry>,
    /// What was looked at, how deep, and when: until it is dealt with.
    recent: HashMap<(RelPath, bool), Instant>,
    pub lost: Vec<String>,
}

fn entry(path: &Path) -> Option<Entry> {
    let m = fs::symlink_metadata(path).ok()?;
    Some((m.is_dir(), m.ino(), if m.is_dir() { 0 } else { m.size() }))
}

/// All that is at a path and below it now.
pub fn scan(source: &Path, path: &RelPath, all: &mut BTreeMap<RelPath, Entry>) {
    let at = join(source, path);
    let Some(found) = entry(&at) else { return };
    all.insert(path.clone(), found);
    if !found.0 {
        return;
    }
    for e in fs::read_dir(at).into_iter().flatten().flatten() {
        let name = rel(e.file_name());
        let below = if path.is_root() { name } else { rel(join(path_of(path), &name)) };
        scan(source, &below, all);
    }
}

fn path_of(path: &RelPath) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()))
}

fn join(source: &Path, path: &RelPath) -> PathBuf {
    if path.is_root() { source.to_owned() } else { source.join(path_of(path)) }
}

impl Model {
    pub fn new(source: &Path) -> Model {
        let mut model = Model {
            source: source.to_owned(),
            entries: BTreeMap::new(),
            recent: HashMap::new(),
            lost: Vec::new(),
        };
        model.look(RelPath::root(), true);
        model
    }

    pub fn take(&mut self, news: News) {
        match news {
            News::Lost(why) => {
                self.lost.push(why);
                self.look(RelPath::root(), true);
            }
            News::UpTo(moment) => self.recent.retain(|_, looked| *looked >= moment),
            News::Hint(Hint { path, what: What::Moved { from, dir } }) => self.moved(from, path, dir),
            News::Hint(Hint { path, what }) => {
                if what == What::Names {
                    self.forget_gone(&path);
                }
                self.look(path, what == What::Tree);
            }
        }
    }

    fn look(&mut self, path: RelPath, deep: bool) {
        let now = entry(&join(&self.source, &path));
        self.recent.insert((path.clone(), deep), Instant::now());
        match now {
            // another directory than the one that is known, and nobody said that it is one: not to be believed in
            Some(found) if !deep && found.0 && self.entries.contains_key(&path) => {
                if self.entries.get(&path) != Some(&found) {
                    self.remove(&path);
                }
            }
            // who has nothing there makes it, with all that is below
            Some(found) if found.0 => {
                self.remove(&path);
                scan(&self.source, &path, &mut self.entries);
            }
            Some(found) if !deep => {
                self.remove(&path);
                self.entries.insert(path, found);
            }
            Some(_) => {
                self.remove(&path);
                scan(&self.source, &path, &mut self.entries);
            }
            None => self.remove(&path),
        }
    }

    /// Forgets what is known of a directory and is not there.
    fn forget_gone(&mut self, dir: &RelPath) {
        let known: Vec<RelPath> = self
            .entries
            .keys()
            .filter(|p| p.split().is_some_and(|(above, _)| above == *dir))
            .filter(|p| entry(&join(&self.source, p)).is_none())
            .cloned()
            .collect();
        known.iter().for_each(|p| self.remove(p));
    }

    fn moved(&mut self, from: RelPath, to: RelPath, dir: bool) {
        let here = entry(&join(&self.source, &to));
        let known = self.entries.get(&from).copied();
        let again: Vec<_> = self
            .recent
            .keys()
            .filter(|(p, deep)| dir && (from.covers(p) || *deep && p.covers(&from)))
            .cloned()
            .collect();
        if dir {
            match (here, known) {
                // it is known there already, from a look that was later than that at the old name
                (Some(here), _) if self.entries.get(&to).is_some_and(|e| e.1 == here.1) => {}
                (Some(here), Some(known)) if here.1 == known.1 => {
                    self.remove(&to);
                    for (path, entry) in self.below(&from) {
                        self.entries.remove(&path);
                        self.entries.insert(renamed(&path, &from, &to), entry);
                    }
                }
                _ => self.look(to.clone(), true),
            }
            self.recent.insert((from.clone(), false), Instant::now());
        }
        for (path, deep) in again {
            let path = if from.covers(&path) { renamed(&path, &from, &to) } else { to.clone() };
            self.look(path, deep);
        }
        for name in [from, to] {
            let is_new = entry(&join(&self.source, &name))
                .is_some_and(|e| e.0 && self.entries.get(&name).is_none_or(|k| k.1 != e.1));
            self.look(name, is_new);
        }
    }

    fn below(&self, path: &RelPath) -> Vec<(RelPath, Entry)> {
        self.entries.iter().filter(|(p, _)| path.covers(p)).map(|(p, e)| (p.clone(), *e)).collect()
    }

    fn remove(&mut self, path: &RelPath) {
        self.entries.retain(|p, _| !path.covers(p));
    }

    /// In what the model is wrong.
    pub fn errors(&self) -> Vec<String> {
        let mut real = BTreeMap::new();
        scan(&self.source, &RelPath::root(), &mut real);
        let missing = real.iter().filter(|(p, e)| self.entries.get(p) != Some(e));
        let wrong = self.entries.iter().filter(|(p, e)| real.get(p) != Some(e));
        missing
            .map(|(p, e)| format!("is {p} {e:?}"))
            .chain(wrong.map(|(p, e)| format!("is not {p} {e:?}")))
            .collect()
    }
}

fn renamed(path: &RelPath, from: &RelPath, to: &RelPath) -> RelPath {
    let rest = &path.as_bytes()[from.as_bytes().len()..];
    RelPath::new([to.as_bytes(), rest].concat()).unwrap()
}
