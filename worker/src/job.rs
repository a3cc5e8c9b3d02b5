//! A job that is open on this node: its roots, what the target can hold, what we may do, and the guards that
//! were checked before anything was touched.

use crate::bars::Bars;
use crate::devices::Devices;
use crate::limit::Limit;
use crate::mirror::{KeptNames, Mirror, Mirrored, NameBook};
use crate::restless::Restless;
use crate::roots::{
    Trash, check_missing_target, check_nesting, check_roots, join_target, open_target, open_trash, unusable,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use treeferry_core::filter::Filter;
use treeferry_core::{Fresh, GroupKey, JobSpec, JoinId, Names, NewTask, RelPath, Stop, Work};
use treeferry_fs::copy::Rungs;
use treeferry_fs::meta::fstat;
use treeferry_fs::{Limits, Meta, Privilege, Root, RootError, TempNames, Time, entry};

/// How often a mirror tries to remove a directory that is not empty before that is a failure.
const TRIES_TO_REMOVE: u32 = 5;
/// Of so many directories it is remembered how often that was tried.
const MOST_NOT_EMPTY: usize = 10_000;

/// Why a job cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// SRC or DST is unusable.
    #[error("{0}")]
    Unusable(String),
    /// Something else that it takes is unusable, and the text says what helps.
    #[error("{0}")]
    Hindered(String),
    /// The request itself is wrong.
    #[error("{0}")]
    Usage(String),
    /// Broker or ledger cannot be reached.
    #[error("{0}")]
    Unreachable(String),
}

/// What a node that joins a job must know of it.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// DST was made by this job.
    pub made_target: bool,
    /// Inode numbers of the roots, where the job began.
    pub roots: (u64, u64),
    /// What the target can hold, as it was found then: trying it again would touch a root that may be finished.
    pub limits: Limits,
    /// When the job began, by the clock of whoever began it: ages count from there on every node. Since 1970.
    pub began: std::time::Duration,
}

/// A job that is open on this node.
#[derive(Debug)]
pub struct Job {
    pub(crate) spec: JobSpec,
    pub(crate) src: Root,
    /// `None` only in a dry run whose DST does not exist.
    pub(crate) dst: Option<Root>,
    /// DST was made by this job.
    pub(crate) made_target: bool,
    /// When this process began with it.
    pub(crate) opened_at: SystemTime,
    target_changed: Option<Time>,
    /// Other processes work on it too.
    pub(crate) shared: bool,
    pub(crate) trash: Option<Trash>,
    /// Devices of the source, and of the target.
    devices: (Devices, Devices),
    pub(crate) filter: Filter,
    pub(crate) limits: Limits,
    pub(crate) privilege: Privilege,
    pub(crate) temp: TempNames,
    pub(crate) rungs: Rungs,
    pub(crate) limit: Limit,
    pub(crate) bars: Bars,
    pub(crate) stop: Stop,
    /// Mode bits that new entries do not get where modes are not kept.
    pub(crate) umask: u32,
    /// Entries that changed after this are left alone (`--min-age`).
    pub(crate) young_after: Option<Time>,
    /// Files that were not accessed since are left out (`--max-age`).
    pub(crate) old_before: Option<Time>,
    /// The source root turned out not to be what it was: nothing is deleted any more. (Not of a mirror.)
    pub(crate) source_lost: AtomicBool,
    /// Of a mirror: how often directories that are to be removed were found not empty.
    not_empty: Mutex<HashMap<RelPath, u32>>,
    /// Staged files of this process that are being copied in chunks, and have no task that would remove them
    /// should the job be interrupted; and since when.
    staged: Mutex<BTreeMap<RelPath, Instant>>,
    mirror: std::sync::OnceLock<Mirror>,
    next_join: AtomicU64,
    live_bytes: AtomicU64,
    live_entries: AtomicU64,
}

impl Job {
    /// Opens the roots and checks every guard. Makes DST if it is missing (its parent must exist), unless the
    /// job is a dry run.
    pub fn open(spec: JobSpec, stop: Stop) -> Result<Arc<Job>, OpenError> {
        Job::open_as(spec, stop, None)
    }

    /// Opens the roots of a job that was begun by another process, elsewhere perhaps: they must be there, and be what
    /// they were there.
    pub fn join(spec: JobSpec, stop: Stop, member: &Member) -> Result<Arc<Job>, OpenError> {
        Job::open_as(spec, stop, Some(member))
    }

    fn open_as(spec: JobSpec, stop: Stop, member: Option<&Member>) -> Result<Arc<Job>, OpenError> {
        if let Ok(rules) = std::env::var("TREEFERRY_FAULTS") {
            treeferry_fs::fault::arm(&rules)
                .map_err(|e| OpenError::Usage(format!("TREEFERRY_FAULTS: {e}")))?;
        }
        let umask = treeferry_fs::privilege::clear_umask();
        treeferry_fs::privilege::raise_open_files();
        let mut filter = Filter::new(&spec.rules).map_err(|e| OpenError::Usage(e.to_string()))?;
        let src = Root::open(&spec.src).map_err(|e| unusable("SRC", &e))?.quietly();
        check_missing_target(&spec, &src, &mut filter)?;
        let (dst, made) = match member {
            None => open_target(&spec)?,
            Some(m) => (join_target(&spec)?, m.made_target),
        };
        if let Some(m) = member {
            check_roots(&src, dst.as_ref(), m)?;
        }
        if let Some(dst) = &dst {
            check_nesting(&spec, &src, dst, &mut filter)?;
        }
        // before it is tried what it can hold, which may change it
        let target_changed = dst.as_ref().and_then(|d| fstat(d.fd()).ok()).map(|m| m.ctime);
        let temp = TempNames::of_this_process();
        let privilege = Privilege::of_this_process();
        let limits = match &dst {
            Some(_) if member.is_some() => member.map(|m| m.limits).unwrap_or_default(),
            Some(d) if spec.passes.copy || spec.passes.dirtime => {
                if spec.dry_run {
                    Limits::probe_unseen(d.fd(), privilege.gid)
                } else {
                    match Limits::probe(d.fd(), &temp, privilege.gid) {
                        Ok(l) => l,
                        // a root of ours whose mode keeps us out: it is unlocked when there is something to do
                        Err(e) if e.is_refused() => Limits::default(),
                        Err(e) => {
                            let text = format!("DST {}: cannot write there: {e}", spec.dst.display());
                            return Err(OpenError::Unusable(text));
                        }
                    }
                }
            }
            _ => Limits::default(),
        };
        let trash = match (&spec.trash, &dst) {
            (Some(t), Some(d)) => open_trash(t, &src, d, &mut filter, spec.dry_run)?,
            _ => None,
        };
        let now = match member {
            None => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            Some(m) => m.began,
        };
        let shared = member.is_some();
        let devices = |root: Option<&Root>| match root {
            Some(r) if shared => Devices::shared(r),
            _ => Devices::of_one_node(),
        };
        let ago = |d: std::time::Duration| {
            let t = now.saturating_sub(d);
            Time { sec: t.as_secs() as i64, nsec: t.subsec_nanos() }
        };
        Ok(Arc::new(Job {
            limit: Limit::new(spec.bwlimit, spec.iops, stop.clone()),
            young_after: spec.min_age.map(ago),
            old_before: spec.max_age.map(ago),
            source_lost: AtomicBool::new(false),
            not_empty: Mutex::default(),
            // drawn far apart by different processes, counted up within one
            staged: Mutex::default(),
            mirror: std::sync::OnceLock::new(),
            next_join: AtomicU64::new(random()),
            live_bytes: AtomicU64::new(0),
            live_entries: AtomicU64::new(0),
            rungs: Rungs::default(),
            bars: Bars::default(),
            made_target: made,
            opened_at: SystemTime::now(),
            target_changed,
            shared,
            devices: (devices(Some(&src)), devices(dst.as_ref())),
            spec,
            src,
            dst,
            trash,
            filter,
            limits,
            privilege,
            temp,
            stop,
            umask,
        }))
    }

    /// From now on this job is a mirror's: what has to be looked at again is told this listener. Once only.
    pub fn mirror_for(&self, listener: Box<dyn Mirrored>, families: Box<dyn NameBook>) {
        let _ = self.mirror.set(Mirror {
            listener,
            families,
            restless: Restless::default(),
            moves: Mutex::default(),
        });
    }

    /// For a mirror: what is known of names, for whoever goes on with it.
    pub fn names_kept(&self) -> Option<KeptNames> {
        self.mirror.get().and_then(|m| m.families.kept())
    }

    /// What it has of a mirror, if it is one's.
    pub(crate) fn mirror(&self) -> Option<&Mirror> {
        self.mirror.get()
    }

    /// For a mirror: a name was made a link, of a file that may have changed meanwhile.
    pub fn was_linked(&self, path: &RelPath) {
        if let Some(m) = self.mirror.get().filter(|m| m.listener.names_are_known()) {
            m.listener.again(path.clone(), false, path);
        }
    }

    /// For a mirror: all is done that a ticket was for.
    pub(crate) fn settled(&self, ticket: u64) {
        if let Some(m) = self.mirror.get() {
            m.listener.settled(ticket);
        }
    }

    /// Whether it is a mirror's.
    pub fn is_mirror(&self) -> bool {
        self.mirror.get().is_some()
    }

    /// The first task: walk the root.
    pub fn first_task(&self) -> NewTask {
        let fresh = if self.made_target { Fresh::Made } else { Fresh::No };
        NewTask::new(None, Work::Walk { path: RelPath::root(), fresh, resume: None })
    }

    /// Cuts short what is under way.
    pub fn stop(&self) {
        self.stop.set();
    }

    /// Whether what is under way is to be cut short.
    pub fn is_stopped(&self) -> bool {
        self.stop.is_set()
    }

    /// What is to be done to try failed paths again: pieces of work, each with what is to follow it and the tally that
    /// this begins with.
    pub fn again(&self, failed: impl IntoIterator<Item = RelPath>) -> Vec<(Work, Option<(Work, u64)>)> {
        let (mut names, mut walks) = (BTreeMap::<RelPath, Names>::new(), BTreeSet::new());
        for path in failed.into_iter().collect::<BTreeSet<_>>() {
            match path.split() {
                None => {
                    walks.insert(path);
                }
                Some((dir, _)) if matches!(self.src.find(path.as_bytes()), Err(e) if e.is_gone()) => {
                    // it failed to be deleted, or is gone since: only a walk says what is extra
                    if self.spec.passes.delete {
                        walks.insert(dir);
                    }
                }
                Some((dir, name)) => names.entry(dir).or_default().push(&name, treeferry_core::Kind::Unknown),
            }
        }
        let mut out = Vec::new();
        for path in walks {
            names.remove(&path);
            out.push((Work::Walk { path, fresh: Fresh::No, resume: None }, None));
        }
        for (dir, names) in names {
            let finish = Work::FinishDir { path: dir.clone(), listed: false, fresh: Fresh::No, mode: None };
            out.push((Work::Files { dir, fresh: Fresh::No, names }, Some((finish, 0))));
        }
        out
    }

    /// The request.
    pub fn spec(&self) -> &JobSpec {
        &self.spec
    }

    /// The source root.
    pub fn source(&self) -> &Root {
        &self.src
    }

    /// The target root; `None` only in a dry run whose DST does not exist.
    pub fn target(&self) -> Option<&Root> {
        self.dst.as_ref()
    }

    /// Whether DST was made by this job.
    pub fn made_target(&self) -> bool {
        self.made_target
    }

    /// When DST itself was last changed (`st_ctime`) before this job opened it.
    pub fn target_changed(&self) -> Option<Time> {
        self.target_changed
    }

    /// Inode numbers of SRC and DST; 0 for what is not there. (Device numbers differ from node to node.)
    pub fn root_inodes(&self) -> (u64, u64) {
        (self.src.identity().ino, self.dst.as_ref().map_or(0, |d| d.identity().ino))
    }

    /// What tells SRC and DST from directories that get their paths later, and perhaps their inode numbers: those and when
    /// they were made. Alike on every node.
    pub fn roots_text(&self) -> String {
        let of = |root: &Root| {
            let born = root.born().map_or_else(String::new, |t| format!("{}.{:09}", t.sec, t.nsec));
            format!("{}@{born}", root.identity().ino)
        };
        format!("{} {}", of(&self.src), self.dst.as_ref().map_or_else(String::new, of))
    }

    /// Whether two of [`Job::roots_text`] are of the same target.
    pub fn same_target(one: &str, other: &str) -> bool {
        let target =
            |text: &str| text.split_once(' ').map(|(_, dst)| dst.to_owned()).filter(|d| !d.is_empty());
        target(one).is_some_and(|t| Some(t) == target(other))
    }

    /// The hard-link group of a file of the source. Alike on every node.
    pub(crate) fn group_of(&self, m: &Meta) -> GroupKey {
        GroupKey { dev: self.devices.0.number(m.dev), ino: m.ino }
    }

    /// Whether an entry below SRC is left out by the filter, or because something above it is.
    pub fn excludes(&self, path: &RelPath, is_dir: bool) -> bool {
        !self.filter.is_empty() && self.filter.excludes_deep(path, is_dir)
    }

    /// What tells a file of the target from every other, (device, inode). Alike on every node.
    pub fn target_id(&self, m: &Meta) -> (u64, u64) {
        (self.devices.1.number(m.dev), m.ino)
    }

    /// What the target can hold.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The temporary names of this process.
    pub fn temp_names(&self) -> &TempNames {
        &self.temp
    }

    /// Bytes of content copied so far, those of unfinished files included.
    pub fn live_bytes(&self) -> u64 {
        self.live_bytes.load(Relaxed)
    }

    /// Entries looked at so far, those of uncommitted tasks included.
    pub fn live_entries(&self) -> u64 {
        self.live_entries.load(Relaxed)
    }

    pub(crate) fn add_live(&self, entries: u64, bytes: u64) {
        if entries > 0 {
            self.live_entries.fetch_add(entries, Relaxed);
        }
        if bytes > 0 {
            self.live_bytes.fetch_add(bytes, Relaxed);
        }
    }

    /// Notes a staged file that is to be filled by several tasks.
    pub(crate) fn note_staged(&self, path: &RelPath) {
        self.staged.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), Instant::now());
    }

    /// It was named, or removed. Says how long ago it was staged, if that was this process.
    pub(crate) fn forget_staged(&self, path: &RelPath) -> Option<Duration> {
        let since = self.staged.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
        since.map(|s| s.elapsed())
    }

    /// Removes what an interrupted job has staged and will not name. What cannot be removed is swept by the
    /// next run.
    pub(crate) fn remove_staged_files(&self) {
        use treeferry_fs::AsFd;
        let left = std::mem::take(&mut *self.staged.lock().unwrap_or_else(PoisonError::into_inner));
        for (dir, name) in left.keys().filter_map(RelPath::split) {
            if let Some(Ok(d)) = self.dst.as_ref().map(|r| r.open_dir(dir.as_bytes())) {
                let _ = entry::remove(d.as_fd(), &name);
            }
        }
    }

    /// Whether an entry of the target that something else is to replace, or below something that is being removed,
    /// is to stay.
    pub fn is_protected(&self, dir: &RelPath, name: &std::ffi::CStr, is_dir: bool) -> bool {
        let f = &self.filter;
        !f.is_empty()
            && f.excludes(dir, name, is_dir)
            && (!self.spec.delete_excluded || f.protects(&dir.child(name)))
    }

    /// Whether each deletion is one of an allowed number, or goes to the trash: then even an empty directory is
    /// removed by the delete pass alone.
    pub fn counts_deletions(&self) -> bool {
        self.spec.max_delete.is_some() || self.trash.is_some()
    }

    /// A number for a join that was never given out before in this job.
    pub fn new_join(&self) -> JoinId {
        JoinId(self.next_join.fetch_add(1, Relaxed))
    }

    /// Of a mirror: a directory that is to be removed is not empty. Whether it is to be tried again at once: somebody may have
    /// made something in it. If that never ends, it fails, is named and tried later as everything that fails.
    pub(crate) fn may_become_empty(&self, path: &RelPath) -> bool {
        let mut all = self.not_empty.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MOST_NOT_EMPTY {
            all.clear();
        }
        let times = all.entry(path.clone()).or_default();
        *times += 1;
        *times < TRIES_TO_REMOVE
    }

    /// A directory was removed at last.
    pub(crate) fn was_emptied(&self, path: &RelPath) {
        self.not_empty.lock().unwrap_or_else(PoisonError::into_inner).remove(path);
    }

    /// Whether the path of SRC or of DST leads to another directory by now than that which is open here, or to none.
    pub fn lost_a_root(&self) -> bool {
        let is_lost = |root: &Root| matches!(root.check(), Err(RootError::Replaced(_)));
        is_lost(&self.src) || self.dst.as_ref().is_some_and(is_lost)
    }

    /// Whether the source root still is what it was; once it is not, it never is again in this job. A mirror asks each time
    /// anew: what it was not allowed to delete it tries again, or it ends.
    pub(crate) fn source_is_there(&self) -> bool {
        if self.is_mirror() {
            return self.src.check().is_ok();
        }
        if !self.source_lost.load(Relaxed) && self.src.check().is_err() {
            self.source_lost.store(true, Relaxed);
        }
        !self.source_lost.load(Relaxed)
    }
}

/// 64 random bits, from the keys that the standard library draws for its hash maps.
fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::Families;

    struct Deaf;

    impl Mirrored for Deaf {
        fn again(&self, _: RelPath, _: bool, _: &RelPath) {}
        fn changed(&self, _: RelPath) {}
        fn later(&self, _: RelPath, _: Duration, _: &RelPath) {}
        fn settled(&self, _: u64) {}
        fn moved(&self, _: &RelPath) {}
        fn names_are_known(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_source_that_is_back_is_there_for_a_mirror_and_for_no_other_job() {
        let dir = std::env::temp_dir().join(format!("treeferry-job-{}", std::process::id()));
        let (src, moved) = (dir.join("src"), dir.join("moved"));
        std::fs::create_dir_all(&src).unwrap();
        for is_mirror in [false, true] {
            let spec = JobSpec::new(src.clone(), dir.join("dst"));
            let job = Job::open(spec, Stop::default()).unwrap();
            if is_mirror {
                job.mirror_for(Box::new(Deaf), Box::new(Families::default()));
            }
            assert!(job.source_is_there() && !job.lost_a_root());
            std::fs::rename(&src, &moved).unwrap();
            assert!(!job.source_is_there() && job.lost_a_root());
            std::fs::create_dir(&src).unwrap();
            assert!(!job.source_is_there() && job.lost_a_root());
            std::fs::remove_dir(&src).unwrap();
            std::fs::rename(&moved, &src).unwrap();
            assert_eq!((job.source_is_there(), job.lost_a_root()), (is_mirror, false));
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
