//! Compares entries of two trees as a dry run would: nothing is touched.

use super::sample::Trees;
use crate::links::linker;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use treeferry_core::{
    Change, Event, Failure, Item, Kind, Names, NewTask, Notice, Pass, RelPath, Side, Stop, Work,
};
use treeferry_fs::meta::stat_if_there;
use treeferry_fs::{AsFd, Error, Lister, Time, fault, temp};
use treeferry_queue::Engine;
use treeferry_worker::{Job, Pool, PoolSize, Reporter};

/// How often the wish to stop is looked at.
pub const TICK: Duration = Duration::from_millis(50);

/// Which of these differ, and how.
pub fn differences<'a>(
    job: &Arc<Job>,
    pool: PoolSize,
    paths: impl Iterator<Item = &'a RelPath>,
    failures: &mut Vec<Failure>,
    stop: &Stop,
) -> BTreeMap<RelPath, Change> {
    let (mut found, mut looks) = (BTreeMap::new(), BTreeMap::<RelPath, Names>::new());
    for path in paths {
        let change = match kinds(job, path) {
            Err(f) => {
                failures.push(f);
                continue;
            }
            // gone meanwhile, from both
            Ok((None, None)) => None,
            // so is whatever the target has there, and below it
            Ok((Some(kind), _)) if kind != Kind::Dir && leaves_alone(job, path) => None,
            Ok((None, Some(_))) if path.split().is_some_and(|(dir, _)| leaves_alone(job, &dir)) => None,
            // others may have been left out, since the target cannot hold them: whoever looks knows
            Ok((Some(kind), None)) if matches!(kind, Kind::File | Kind::Dir) || !has_parent(job, path) => {
                Some(Item::Made(kind))
            }
            Ok((None, Some(kind))) => Some(Item::Deleted(kind)),
            Ok((Some(a), Some(b))) if a != b => Some(Item::Made(a)),
            Ok((Some(_), _)) => {
                if let Some((dir, name)) = path.split() {
                    looks.entry(dir).or_default().push(&name, Kind::Unknown);
                }
                continue;
            }
        };
        found.extend(change.map(|item| (path.clone(), Change { item, path: path.clone() })));
    }
    let wanted: BTreeSet<RelPath> =
        looks.iter().flat_map(|(dir, names)| names.iter().map(|(n, _)| dir.child(n))).collect();
    let engine = Engine::memory();
    for (dir, names) in looks {
        engine.begin(NewTask::new(None, Work::Look { dir, names, ticket: 0 }));
    }
    if wanted.is_empty() {
        return found;
    }
    let heard = Arc::new(Heard::default());
    let pool = Pool::start(&engine, job, linker(job), heard.clone(), pool);
    while !engine.wait(TICK) {
        if stop.is_set() {
            engine.cancel();
            break;
        }
    }
    pool.join();
    let heard = std::mem::take(&mut *heard.0.lock().unwrap_or_else(PoisonError::into_inner));
    failures.extend(heard.1);
    if let Some(why) = engine.status().aborted {
        failures.extend(wanted.iter().map(|p| Failure::finding(p.clone(), Side::Source, "compare", &why)));
    }
    found.extend(heard.0.into_iter().filter(|c| wanted.contains(&c.path)).map(|c| (c.path.clone(), c)));
    found
}

/// What an entry is on both sides.
fn kinds(job: &Job, path: &RelPath) -> Result<(Option<Kind>, Option<Kind>), Failure> {
    let of = |side| find(job, side, path).map(|m| m.map(|m| treeferry_worker::kind_of(m.kind)));
    Ok((of(Side::Source)?, of(Side::Target)?))
}

/// Whether the job leaves alone what the source has at a path, or at the nearest one above it at which it has something.
fn leaves_alone(job: &Job, path: &RelPath) -> bool {
    let mut path = path.clone();
    loop {
        match find(job, Side::Source, &path) {
            Ok(Some(m)) => return treeferry_worker::is_left_alone(job, &m),
            Ok(None) => {}
            Err(_) => return false,
        }
        let Some((dir, _)) = path.split() else { return false };
        path = dir;
    }
}

/// Whether the target has the directory in which an entry would be.
fn has_parent(job: &Job, path: &RelPath) -> bool {
    let dir = path.split().map_or_else(RelPath::root, |(dir, _)| dir);
    job.target().is_some_and(|root| root.open_dir(dir.as_bytes()).is_ok())
}

/// What an entry was on both sides at a moment: inode number and status-change time of each, where it is there. As long as
/// it stays the same nobody has changed the entry.
pub type Stamp = [Option<(u64, Time)>; 2];

/// Of an entry, now.
pub fn stamp(job: &Job, path: &RelPath) -> Result<Stamp, Failure> {
    let of = |side| find(job, side, path).map(|m| m.map(|m| (m.ino, m.ctime)));
    Ok([of(Side::Source)?, of(Side::Target)?])
}

/// Hears what would have to be changed.
#[derive(Default)]
struct Heard(Mutex<(Vec<Change>, Vec<Failure>)>);

impl Reporter for Heard {
    fn changes(&self, changes: &[Change]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.extend_from_slice(changes);
    }

    fn failure(&self, f: &Failure, _: Option<Pass>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.push(f.clone());
    }

    fn events(&self, _: Vec<Event>) {}

    fn notice(&self, _: Notice) {}

    fn ran(&self, _: &Work, _: Duration) {}
}

/// The two trees of a job, without what is excluded; of the target only if what it alone has is to be deleted.
pub struct Roots {
    job: Arc<Job>,
    lister: Lister,
}

impl Roots {
    /// Those of this job.
    pub fn new(job: &Arc<Job>) -> Roots {
        Roots { job: Arc::clone(job), lister: Lister::default() }
    }
}

fn gone(e: Error) -> bool {
    e.is_gone() || e.is_other_kind()
}

fn failure(path: &RelPath, side: Side, e: Error) -> Failure {
    Failure::errno(path.clone(), side, e.op, e.raw())
}

/// The metadata of an entry; `None`: it is not there.
fn find(job: &Job, side: Side, path: &RelPath) -> Result<Option<treeferry_fs::Meta>, Failure> {
    let root = match side {
        Side::Source => job.source(),
        Side::Target => match job.target() {
            Some(root) => root,
            None => return Ok(None),
        },
    };
    let Some((dir, name)) = path.split() else { return Ok(None) };
    let dir = match root.open_dir(dir.as_bytes()) {
        Err(e) if gone(e) => return Ok(None),
        r => r.map_err(|e| failure(path, side, e))?,
    };
    stat_if_there(dir.as_fd(), &name).map_err(|e| failure(path, side, e))
}

impl Trees for Roots {
    fn list(
        &mut self,
        side: Side,
        dir: &RelPath,
        each: &mut dyn FnMut(&CStr, bool),
    ) -> Result<bool, Failure> {
        let root = match side {
            Side::Source => Some(self.job.source()),
            Side::Target => self.job.target().filter(|_| self.job.spec().passes.delete),
        };
        let Some(root) = root else { return Ok(false) };
        if fault::armed() {
            fault::at(dir.as_bytes());
        }
        let fd = match root.open_dir(dir.as_bytes()) {
            Err(e) if gone(e) => return Ok(false),
            r => r.map_err(|e| failure(dir, side, e))?,
        };
        let job = &self.job;
        let listed = self.lister.list(fd.as_fd(), |name, _, kind| {
            let is_dir = match kind {
                treeferry_fs::Kind::Unknown => stat_if_there(fd.as_fd(), name)
                    .ok()
                    .flatten()
                    .is_some_and(|m| m.kind == treeferry_fs::Kind::Dir),
                kind => kind == treeferry_fs::Kind::Dir,
            };
            // what a copy that is under way has not named yet is none of the target's entries
            let unnamed = side == Side::Target && name.to_bytes().starts_with(temp::PREFIX);
            if !unnamed && !job.excludes(&dir.child(name), is_dir) {
                each(name, is_dir);
            }
            true
        });
        listed.map_err(|e| failure(dir, side, e))
    }

    fn find(&mut self, side: Side, path: &RelPath) -> Result<Option<bool>, Failure> {
        Ok(find(&self.job, side, path)?.map(|m| m.kind == treeferry_fs::Kind::Dir))
    }
}
