//! Walks the source again and again, and tells what differs from the walk before: for file systems that tell nobody what
//! other nodes do. What a walk has seen is kept in a file, so memory does not grow with the tree.

mod index;
mod names;
mod walk;

use crate::beneath::Root;
use crate::error::Error;
use crate::{Detector, Excluded, Hint, News, Waker, What};
use index::{Reader, Writer};
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::*};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use treeferry_core::path::RelPath;
use walk::{Ended, Walk, Walker};

/// Hints that wait for the reader; more make the walk wait.
const WAITING: usize = 1 << 14;
/// After so many hints the caller has its turn, even if there are more.
const HINTS: usize = 1 << 16;

/// How the source is walked.
#[derive(Clone, Debug)]
pub struct Polling {
    /// From the end of one walk to the begin of the next.
    pub every: Duration,
    /// Where the index is kept for whoever walks next; `None`: nowhere.
    pub index: Option<PathBuf>,
    /// What tells one use of the index from another: with another tag it is of no use.
    pub tag: u64,
    /// Nobody else has files where it is: what is there and is none is replaced.
    pub is_ours: bool,
    /// The index of an earlier process is removed first.
    pub anew: bool,
    /// So much of the names of one directory is sorted in memory, in bytes.
    pub run_bytes: usize,
}

impl Polling {
    /// With an index that is of no use to anybody else.
    pub fn every(every: Duration) -> Polling {
        Polling { every, index: None, tag: 0, is_ours: false, anew: false, run_bytes: names::RUN_BYTES }
    }
}

/// The index that is kept.
#[derive(Clone)]
pub struct Index(Arc<Kept>);

struct Kept {
    path: PathBuf,
    /// When the walk began of which there is an index that is not kept yet.
    finished: Mutex<Option<Instant>>,
}

impl Index {
    /// If there is an index that is not kept yet, and all that was told up to its walk's begin is done with, as `is_done`
    /// says, it is what the next process begins with. Whether it is.
    pub fn keep(&self, is_done: impl Fn(Instant) -> bool) -> io::Result<bool> {
        let mut finished = lock(&self.0.finished);
        if !finished.is_some_and(is_done) {
            return Ok(false);
        }
        std::fs::rename(beside(&self.0.path, "new"), &self.0.path)?;
        *finished = None;
        Ok(true)
    }
}

/// Detects changes by walking.
///
/// The first walk, if there is no index, takes down what there is and tells nothing: whoever looks at everything must begin
/// with that after the first [`News::UpTo`], see [`Detector::needs_head_start`]. With an index from an earlier process the
/// first walk tells what has changed since.
///
/// Limits: what changed twice between two walks is told once. A directory that cannot be read is told each time. A file
/// that changes without its status-change time changing is not told; the clock that gives that time may differ from
/// ours by an hour.
pub struct Poll {
    news: Option<Receiver<Result<News, Error>>>,
    waker: Waker,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    index: Option<Index>,
    from: Option<u64>,
}

struct Shared {
    stop: AtomicBool,
    /// The reader waits for its waker.
    waits: AtomicBool,
    gate: Mutex<()>,
    bell: Condvar,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// Walks `root` from now on.
pub fn poll(root: &Path, excluded: Excluded, how: Polling) -> Result<Poll, Error> {
    let root = Root::open(root)?;
    if let Some(path) = &how.index {
        let refused = |why: String| Error::Index { path: path.clone(), why };
        // what is written first, and what is not kept yet, may be left of an earlier process
        for file in [path.clone(), beside(path, "tmp"), beside(path, "new")] {
            let what = if file == *path { "it".to_owned() } else { file.display().to_string() };
            match index::is_somebody_elses(&file) {
                Ok(true) if !how.is_ours => {
                    return Err(refused(format!(
                        "{what} is none, and would be replaced: remove it, or name another with --index"
                    )));
                }
                Ok(_) => {}
                Err(e) => return Err(refused(format!("{what} cannot be read: {e}"))),
            }
        }
        create(&beside(path, "tmp")).map_err(|e| refused(e.to_string()))?;
        if how.anew
            && let Err(e) = std::fs::remove_file(path)
            && e.kind() != io::ErrorKind::NotFound
        {
            return Err(refused(e.to_string()));
        }
    }
    let old = how.index.as_deref().and_then(|path| load(path, &root, how.tag));
    let from = old.as_ref().map(|(_, began)| *began);
    let index = how.index.clone().map(|path| Index(Arc::new(Kept { path, finished: Mutex::default() })));
    let waker = Waker::new()?;
    let shared = Arc::new(Shared {
        stop: AtomicBool::new(false),
        waits: AtomicBool::new(false),
        gate: Mutex::default(),
        bell: Condvar::new(),
    });
    let (sender, news) = sync_channel(WAITING);
    let named = HashSet::new();
    let walker = Walker { root, excluded, run_bytes: how.run_bytes, named, pace: Duration::ZERO };
    let poller = Poller {
        walker,
        tag: how.tag,
        every: how.every,
        index: index.clone(),
        old: old.map(|(file, _)| file),
        out: Out { news: sender, waker: waker.clone(), shared: Arc::clone(&shared) },
    };
    let spawned = std::thread::Builder::new().name("tf-walk-source".to_owned()).spawn(move || poller.run());
    let thread = Some(spawned.map_err(Error::Input)?);
    Ok(Poll { news: Some(news), waker, shared, thread, index, from })
}

/// An index that an earlier process has kept, and when its walk began.
fn load(path: &Path, root: &Root, tag: u64) -> Option<(File, u64)> {
    let file = match index::open(path) {
        Ok(f) => f,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(e) => {
            tracing::warn!("the index {} cannot be read, and is left out: {e}", path.display());
            return None;
        }
    };
    let read = file.try_clone().and_then(Reader::open);
    let head = match read {
        Ok(r) => r.head(),
        Err(e) => {
            tracing::warn!("the index {} is left out: {e}", path.display());
            return None;
        }
    };
    let now = walk::head(root, tag)?;
    if (head.root, head.tag) != (now.root, now.tag) {
        tracing::info!("the index {} is of another source, or was made for something else", path.display());
        return None;
    }
    Some((file, head.began))
}

impl Poll {
    /// What can be kept of it for the next process.
    pub fn index(&self) -> Option<Index> {
        self.index.clone()
    }

    /// The moment from which on changes are told, if an index was there (µs since 1970).
    pub fn resumes_from(&self) -> Option<u64> {
        self.from
    }
}

struct Out {
    news: SyncSender<Result<News, Error>>,
    waker: Waker,
    shared: Arc<Shared>,
}

impl Out {
    fn tell(&self, news: Result<News, Error>) -> bool {
        let sent = !self.shared.stop.load(Acquire) && self.news.send(news).is_ok();
        if self.shared.waits.swap(false, AcqRel) {
            self.waker.wake();
        }
        sent
    }
}

struct Poller {
    walker: Walker,
    tag: u64,
    every: Duration,
    index: Option<Index>,
    /// Of the walk before.
    old: Option<File>,
    out: Out,
}

impl Poller {
    fn run(mut self) {
        let mut lost = None;
        loop {
            let began = Instant::now();
            match self.walk(began, lost.is_some()) {
                Ok(()) => {
                    let why = lost.take();
                    let told = why.is_none_or(|w| self.out.tell(Ok(News::Lost(w))));
                    if !told || !self.out.tell(Ok(News::UpTo(began))) {
                        return;
                    }
                }
                Err(Ended::Stopped) => return,
                Err(Ended::Gone) => {
                    self.out.tell(Err(Error::Gone(self.walker.root.path().to_owned())));
                    return;
                }
                Err(Ended::Index(e)) => {
                    let at = self.index.as_ref().map_or_else(std::env::temp_dir, |i| i.0.path.clone());
                    let at = at.display();
                    tracing::error!(
                        "a walk of the source cannot go on, as its index ({at}) cannot be written or read: {e}"
                    );
                    if matches!(e.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) {
                        self.old = None;
                    }
                    if self.old.is_none() {
                        lost = Some(format!("the index of the walk before is of no use: {e}"));
                    }
                }
            }
            let gate = lock(&self.out.shared.gate);
            let stop = || self.out.shared.stop.load(Acquire);
            let wait = self.out.shared.bell.wait_timeout_while(gate, self.every, |()| !stop());
            drop(wait);
            if stop() {
                return;
            }
        }
    }

    /// One walk, which begins at this moment.
    fn walk(&mut self, began: Instant, anew: bool) -> Result<(), Ended> {
        let mut head = walk::head(&self.walker.root, self.tag).ok_or(Ended::Gone)?;
        let old =
            self.old.as_ref().filter(|_| !anew).map(|f| f.try_clone().and_then(Reader::open)).transpose()?;
        let before = old.as_ref().map(Reader::head);
        if let Some(b) = before.filter(|b| b.attributes == head.attributes) {
            head.fresh = walk::still_fresh(b.fresh, head.began);
        }
        let path = self.index.as_ref().map(|i| i.0.path.clone());
        let make = || match &path {
            Some(p) => unnamed(&beside(p, "sort")),
            None => unnamed(&std::env::temp_dir().join(".treeferry-index")),
        };
        let file = match &path {
            Some(p) => create(&beside(p, "tmp"))?,
            None => make()?,
        };
        let out = &self.out;
        let mut tell = |news| out.tell(Ok(news));
        let walk = Walk {
            by: &mut self.walker,
            first: old.is_none(),
            old,
            new: Writer::new(file, head)?,
            make: &make,
            tell: &mut tell,
            stop: &out.shared.stop,
        };
        let file = walk.run()?;
        if before.is_some_and(|b| b.attributes != head.attributes || b.fresh > 0) {
            let hint = Hint { path: RelPath::root(), what: What::Names };
            if !out.tell(Ok(News::Hint(hint))) {
                return Err(Ended::Stopped);
            }
        }
        if let (Some(p), Some(i)) = (&path, &self.index) {
            file.sync_all()?;
            let mut finished = lock(&i.0.finished);
            std::fs::rename(beside(p, "tmp"), beside(p, "new"))?;
            *finished = Some(began);
        }
        self.old = Some(file);
        Ok(())
    }
}

/// A new file, instead of what may be there. That is not written to: it may be a link, or have other names.
fn create(path: &Path) -> io::Result<File> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    // O_EXCL follows no symlink
    File::options().read(true).write(true).create_new(true).mode(0o600).open(path)
}

fn unnamed(path: &Path) -> io::Result<File> {
    static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let path = beside(path, &format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed)));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

impl Detector for Poll {
    fn name(&self) -> &'static str {
        "poll"
    }

    fn read(&mut self, timeout: Duration, tell: &mut dyn FnMut(News)) -> Result<(), Error> {
        let Some(news) = &self.news else { return Ok(()) };
        let mut waited = false;
        for _ in 0..HINTS {
            match news.try_recv() {
                Ok(Ok(n)) => {
                    waited = true;
                    tell(n);
                }
                Ok(Err(e)) => return Err(e),
                Err(TryRecvError::Empty) if !waited => {
                    waited = true;
                    self.shared.waits.store(true, Release);
                    // what was told just before that
                    if let Ok(n) = news.try_recv() {
                        tell(n?);
                        continue;
                    }
                    self.waker.wait(&[], timeout)?;
                }
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn needs_head_start(&self) -> bool {
        self.from.is_none()
    }

    /// The walk stands still meanwhile.
    fn can_wait(&self) -> bool {
        true
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        self.shared.stop.store(true, Release);
        // a walk that waits for its reader is told that there is none
        self.news = None;
        drop(lock(&self.shared.gate));
        self.shared.bell.notify_all();
        self.thread.take().into_iter().for_each(|t| drop(t.join()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn what_has_the_name_of_a_new_file_is_not_written_to() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("precious"), "x").unwrap();
        symlink(at("precious"), at("tmp")).unwrap();
        create(&at("tmp")).unwrap();
        std::fs::remove_file(at("tmp")).unwrap();
        std::fs::hard_link(at("precious"), at("tmp")).unwrap();
        create(&at("tmp")).unwrap();
        assert_eq!(std::fs::read(at("precious")).unwrap(), b"x");
        let m = std::fs::symlink_metadata(at("tmp")).unwrap();
        assert!(m.is_file() && m.len() == 0 && m.mode() & 0o077 == 0);
    }
}
