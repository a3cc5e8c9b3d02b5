//! Detectors, each in a thread of its own, and how what they tell gets to the desk.

use super::desk::Desk;
use std::ffi::CStr;
use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use treeferry_core::RelPath;
use treeferry_event::{Detector, News, Separator, What};
use treeferry_mirror::Sign;
use treeferry_worker::{Job, OpenError};

/// How changes are detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum How {
    /// fanotify(7) on whole file systems: needs root
    Fanotify,
    /// inotify(7) on every directory: changes made on this node, by any user
    Inotify,
    /// paths from standard input
    List,
}

/// How long a detector waits for something before it says that there is nothing.
const PATIENCE: Duration = Duration::from_millis(50);
/// Running detectors.
pub struct Detectors {
    threads: Vec<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    /// How many have not come to an end by themselves.
    left: Arc<AtomicU64>,
    names: Vec<&'static str>,
}

/// Opens detectors for what a job is about. None asked for: what this process may use.
pub fn open(
    asked: &[How],
    job: &Arc<Job>,
    zero: bool,
    input: impl FnOnce() -> Box<dyn Read + Send>,
) -> Result<Vec<Box<dyn Detector>>, OpenError> {
    let root = job.source().path();
    let excluded = || {
        let job = Arc::clone(job);
        Box::new(move |dir: &RelPath, name: &CStr, is_dir: bool| job.excludes(&dir.child(name), is_dir))
            as treeferry_event::Excluded
    };
    let fail = |e: treeferry_event::Error| OpenError::Unusable(e.to_string());
    let mut all: Vec<Box<dyn Detector>> = Vec::new();
    let mut input = Some(input);
    if asked.is_empty() {
        match treeferry_event::fanotify(root, excluded()) {
            Ok(d) => all.push(Box::new(d)),
            Err(e) => {
                tracing::info!("not with fanotify: {e}");
                all.push(Box::new(treeferry_event::inotify(root, excluded()).map_err(fail)?));
            }
        }
    }
    for how in asked {
        match how {
            How::Fanotify => all.push(Box::new(treeferry_event::fanotify(root, excluded()).map_err(fail)?)),
            How::Inotify => all.push(Box::new(treeferry_event::inotify(root, excluded()).map_err(fail)?)),
            How::List => {
                let separator = if zero { Separator::Nul } else { Separator::Newline };
                if let Some(input) = input.take() {
                    all.push(Box::new(treeferry_event::list(input(), root, separator).map_err(fail)?));
                }
            }
        }
    }
    Ok(all)
}

/// Starts them. From now on what they tell gets to the desk.
pub fn start(all: Vec<Box<dyn Detector>>, desk: &Arc<Desk>) -> std::io::Result<Detectors> {
    let over = Arc::new(AtomicBool::new(false));
    let left = Arc::new(AtomicU64::new(all.len() as u64));
    let names = all.iter().map(|d| d.name()).collect();
    // up to when each has told all changes; what is complete is so for all
    let told: Arc<Mutex<Vec<u64>>> = Arc::new(Mutex::new(vec![0; all.len()]));
    let mut threads = Vec::new();
    for (n, detector) in all.into_iter().enumerate() {
        let (desk, over, left, told) =
            (Arc::clone(desk), Arc::clone(&over), Arc::clone(&left), Arc::clone(&told));
        let name = format!("tf-{}", detector.name());
        threads.push(std::thread::Builder::new().name(name).spawn(move || {
            follow(detector, n, &desk, &over, &told);
            left.fetch_sub(1, AcqRel);
            desk.ring();
        })?);
    }
    Ok(Detectors { threads, over, left, names })
}

impl Detectors {
    /// Whether all have come to an end: lists do, and nothing else.
    pub fn are_over(&self) -> bool {
        self.left.load(Acquire) == 0
    }

    /// Their names.
    pub fn names(&self) -> &[&'static str] {
        &self.names
    }

    /// Ends them.
    pub fn stop(self) {
        self.over.store(true, Release);
        self.threads.into_iter().for_each(|t| drop(t.join()));
    }
}

fn follow(mut detector: Box<dyn Detector>, n: usize, desk: &Desk, over: &AtomicBool, told: &Mutex<Vec<u64>>) {
    let mut news = Vec::new();
    while !over.load(Acquire) {
        let r = detector.read(PATIENCE, &mut |n| news.push(n));
        pass_on(news.drain(..), n, desk, told);
        match r {
            Ok(()) if detector.is_over() => return,
            Ok(()) => {}
            // it hears nothing any more, and a mirror that is deaf must not pretend to be one
            Err(e) => {
                desk.abort(&format!("changes are not detected any more: {}: {e}", detector.name()));
                return;
            }
        }
    }
}

fn pass_on(news: impl Iterator<Item = News>, n: usize, desk: &Desk, told: &Mutex<Vec<u64>>) {
    let now = Instant::now();
    let mut pending = desk.pending();
    let mut heard = false;
    for news in news {
        match news {
            News::Hint(hint) => {
                heard = true;
                match hint.what {
                    What::Changed => pending.sign(now, hint.path, Sign::Now),
                    What::Open => pending.sign(now, hint.path, Sign::Open),
                    What::Attributes => pending.sign(now, hint.path, Sign::Attributes),
                    What::Tree => pending.sign(now, hint.path, Sign::Tree),
                    What::Moved { from, dir } => pending.moved(now, from, hint.path, dir),
                }
            }
            News::Lost(why) => {
                heard = true;
                tracing::warn!("changes were missed ({why}): everything is looked at");
                pending.lost();
            }
            News::UpTo(time) => {
                let us = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
                let mut all = told.lock().unwrap_or_else(PoisonError::into_inner);
                all[n] = all[n].max(us);
                if let Some(least) = all.iter().min().filter(|t| **t > 0) {
                    pending.told(*least);
                }
            }
        }
    }
    drop(pending);
    if heard {
        desk.ring();
    }
}
