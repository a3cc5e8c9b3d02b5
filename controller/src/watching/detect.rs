//! Detectors, each in a thread of its own, and how what they tell gets to the desk.

use super::Wish;
use super::desk::Desk;
use std::ffi::CStr;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use treeferry_core::RelPath;
use treeferry_event::{Detector, Index, News, Polling, Rest, Separator, What};
use treeferry_mirror::Sign;
use treeferry_worker::{Job, OpenError};

/// How changes are detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum How {
    /// fanotify(7) on whole file systems: needs root
    Fanotify,
    /// inotify(7) on every directory: changes made on this node, by any user
    Inotify,
    /// walks of the source, again and again, with an index on disk: changes made on any node
    Poll,
    /// paths from standard input; not in a cluster
    List,
    /// what programs tell into which libtreeferry_shim.so is loaded
    Shim,
}

/// What detectors are opened with.
pub struct Means<'a> {
    /// The source.
    pub root: &'a Path,
    /// What is not watched.
    pub excluded: &'a dyn Fn() -> treeferry_event::Excluded,
    /// How the source is walked, if it is.
    pub polling: Polling,
    /// The ring that the shim detector reads; none: the usual one.
    pub ring: Option<&'a Path>,
    /// Paths of a list end with NUL, not with a newline.
    pub zero: bool,
    /// Where the reader of the ring before this one stopped.
    pub rest: Option<&'a Rest>,
}

/// Detectors that hear what happens from now on.
#[derive(Default)]
pub struct Opened {
    /// All of them.
    pub all: Vec<Box<dyn Detector>>,
    /// What is kept of walks for the next process.
    pub index: Option<Index>,
    /// What has changed since then (µs since 1970) is told: an index of an earlier process was there.
    pub resumes_from: Option<u64>,
    /// What has changed since [`Means::rest`] is told.
    pub goes_on: bool,
}

impl How {
    /// What it is called on the command line.
    pub fn name(self) -> String {
        use clap::ValueEnum;
        self.to_possible_value().map_or_else(String::new, |v| v.get_name().to_owned())
    }
}

/// How long a detector waits for something before it says that there is nothing: so old is the promise of a mirror at rest. By
/// eye: shorter costs a share of a core that can be seen.
const PATIENCE: Duration = Duration::from_millis(100);
/// While so many paths wait to be looked at, who can wait is not asked for more: some 20 MB.
const MOST_WAITING: usize = 32_768;

/// Running detectors.
pub struct Detectors {
    threads: Vec<JoinHandle<Option<Rest>>>,
    over: Arc<AtomicBool>,
    /// How many have not come to an end by themselves.
    left: Arc<AtomicU64>,
    names: Vec<&'static str>,
}

/// Opens detectors for what a job is about. None asked for: what this process may use.
pub fn open(
    asked: &[How],
    job: &Arc<Job>,
    wish: &Wish,
    polling: Polling,
    rest: Option<&Rest>,
) -> Result<Opened, OpenError> {
    let excluded = || {
        let job = Arc::clone(job);
        Box::new(move |dir: &RelPath, name: &CStr, is_dir: bool| job.excludes(&dir.child(name), is_dir))
            as treeferry_event::Excluded
    };
    let ring = wish.ring.as_deref();
    let means =
        Means { root: job.source().path(), excluded: &excluded, polling, ring, zero: wish.zero, rest };
    open_at(asked, means, || Box::new(std::io::stdin()))
}

/// The same for a directory.
pub fn open_at(
    asked: &[How],
    means: Means<'_>,
    input: impl FnOnce() -> Box<dyn Read + Send>,
) -> Result<Opened, OpenError> {
    let Means { root, excluded, polling, ring, zero, rest } = means;
    use treeferry_event::Error;
    let fail = |e: Error| match e {
        Error::Root { .. } | Error::Gone(_) => OpenError::Unusable(e.to_string()),
        _ => OpenError::Hindered(e.to_string()),
    };
    let mut opened = Opened::default();
    let all = &mut opened.all;
    let (mut input, mut polling) = (Some(input), Some(polling));
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
            How::Poll => {
                if let Some(polling) = polling.take() {
                    let poll = treeferry_event::poll(root, excluded(), polling).map_err(fail)?;
                    opened.index = poll.index();
                    opened.resumes_from = poll.resumes_from();
                    all.push(Box::new(poll));
                }
            }
            How::Shim => {
                let Some(ring) = ring.map(Path::to_owned).or_else(treeferry_event::default_ring) else {
                    return Err(OpenError::Hindered(
                        "XDG_RUNTIME_DIR is not set: name a ring with --ring".to_owned(),
                    ));
                };
                let shim = treeferry_event::shim(&ring, root, excluded(), rest).map_err(fail)?;
                opened.goes_on = shim.goes_on();
                all.push(Box::new(shim));
            }
            How::List => {
                let separator = if zero { Separator::Nul } else { Separator::Newline };
                if let Some(input) = input.take() {
                    all.push(Box::new(treeferry_event::list(input(), root, separator).map_err(fail)?));
                }
            }
        }
    }
    Ok(opened)
}

/// Whether what is watched is what it was at the beginning.
pub type IsThere = dyn Fn() -> bool + Send + Sync;

/// Starts them. From now on what they tell gets to the desk. They have told up to some moment only if `is_there` says so after
/// that.
pub fn start(
    all: Vec<Box<dyn Detector>>,
    desk: &Arc<Desk>,
    is_there: &Arc<IsThere>,
) -> std::io::Result<Detectors> {
    let over = Arc::new(AtomicBool::new(false));
    let left = Arc::new(AtomicU64::new(all.len() as u64));
    let names = all.iter().map(|d| d.name()).collect();
    let behind = all.iter().filter(|d| d.needs_head_start()).count();
    desk.awaits(behind);
    // up to when each has told all changes; what is complete is so for all that can say so, and if none can it is when they end
    let any_vouches = all.iter().any(|d| d.vouches());
    let told = all.iter().map(|d| if any_vouches && !d.vouches() { u64::MAX } else { 0 });
    let told: Arc<Mutex<Vec<u64>>> = Arc::new(Mutex::new(told.collect()));
    let mut threads = Vec::new();
    for (n, detector) in all.into_iter().enumerate() {
        let (desk, over, left, told) =
            (Arc::clone(desk), Arc::clone(&over), Arc::clone(&left), Arc::clone(&told));
        let is_there = Arc::clone(is_there);
        let name = format!("tf-{}", detector.name());
        threads.push(std::thread::Builder::new().name(name).spawn(move || {
            let rest = follow(detector, n, &desk, &over, &told, &*is_there);
            left.fetch_sub(1, AcqRel);
            desk.ring();
            rest
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

    /// Ends them. If there is one, and another can go on from there, it says where it stopped.
    pub fn stop(self) -> Option<Rest> {
        self.over.store(true, Release);
        join(self.threads)
    }
}

/// Waits for the threads of detectors. Where the detector stopped, if there is one and no other.
pub fn join(threads: Vec<JoinHandle<Option<Rest>>>) -> Option<Rest> {
    let alone = threads.len() == 1;
    let rests: Vec<Option<Rest>> = threads.into_iter().filter_map(|t| t.join().ok()).collect();
    rests.into_iter().flatten().next().filter(|_| alone)
}

fn follow(
    mut detector: Box<dyn Detector>,
    n: usize,
    desk: &Desk,
    over: &AtomicBool,
    told: &Mutex<Vec<u64>>,
    is_there: &IsThere,
) -> Option<Rest> {
    let mut news = Vec::new();
    let mut behind = detector.needs_head_start();
    while !over.load(Acquire) {
        if detector.can_wait() && desk.pending().figures().waiting > MOST_WAITING {
            std::thread::sleep(PATIENCE);
            continue;
        }
        let r = detector.read(PATIENCE, &mut |n| news.push(n));
        if behind && news.iter().any(|n| matches!(n, News::UpTo(_))) {
            behind = false;
            desk.awaits_one_less();
        }
        pass_on(&mut news, n, desk, told, is_there);
        match r {
            Ok(()) if detector.is_over() => return None,
            Ok(()) => {}
            // it hears nothing any more, and a mirror that is deaf must not pretend to be one
            Err(e) => {
                desk.abort(&format!("changes are not detected any more: {}: {e}", detector.name()));
                return None;
            }
        }
    }
    let rest = detector.rest(&mut |n| news.push(n));
    pass_on(&mut news, n, desk, told, is_there);
    rest.unwrap_or_else(|e| {
        tracing::info!("the next process has to walk: {}: {e}", detector.name());
        None
    })
}

fn pass_on(news: &mut Vec<News>, n: usize, desk: &Desk, told: &Mutex<Vec<u64>>, is_there: &IsThere) {
    // this may take its time, so nobody is to wait for us meanwhile
    let is_there = news.iter().any(|n| matches!(n, News::UpTo(_))) && is_there();
    let now = Instant::now();
    let mut pending = desk.pending();
    let mut heard = false;
    for news in news.drain(..) {
        match news {
            News::UpTo(_) if !is_there => {}
            News::Hint(hint) => {
                heard = true;
                desk.heard.fetch_add(u64::from(hint.what != What::Open), Relaxed);
                match hint.what {
                    What::Changed => pending.sign(now, hint.path, Sign::Now),
                    What::Open => pending.sign(now, hint.path, Sign::Open),
                    What::Attributes => pending.sign(now, hint.path, Sign::Attributes),
                    What::Names => pending.sign(now, hint.path, Sign::Names),
                    What::Tree => pending.sign(now, hint.path, Sign::Tree),
                    What::Moved { from, dir } => pending.moved(now, from, hint.path, dir),
                }
            }
            News::Lost(why) => {
                heard = true;
                desk.heard.fetch_add(1, Relaxed);
                tracing::warn!("changes were missed ({why}): everything is looked at");
                pending.lost();
            }
            News::UpTo(at) => {
                let mut all = told.lock().unwrap_or_else(PoisonError::into_inner);
                all[n] = all[n].max(desk.moment_of(at));
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use treeferry_event::{Error, Waker};
    use treeferry_mirror::{Pending, Timing};

    struct Counted {
        waits: bool,
        reads: Arc<AtomicUsize>,
        waker: Waker,
    }

    impl Detector for Counted {
        fn name(&self) -> &'static str {
            "counted"
        }

        fn read(&mut self, _: Duration, _: &mut dyn FnMut(News)) -> Result<(), Error> {
            self.reads.fetch_add(1, SeqCst);
            std::thread::sleep(Duration::from_millis(1));
            Ok(())
        }

        fn can_wait(&self) -> bool {
            self.waits
        }

        fn waker(&self) -> Waker {
            self.waker.clone()
        }
    }

    /// Says at once that all is told up to now, if it can.
    struct Prompt {
        vouches: bool,
        reads: Arc<AtomicUsize>,
        waker: Waker,
    }

    impl Detector for Prompt {
        fn name(&self) -> &'static str {
            "prompt"
        }

        fn read(&mut self, _: Duration, tell: &mut dyn FnMut(News)) -> Result<(), Error> {
            std::thread::sleep(Duration::from_millis(1));
            if self.vouches {
                tell(News::UpTo(Instant::now()));
            }
            self.reads.fetch_add(1, SeqCst);
            Ok(())
        }

        fn vouches(&self) -> bool {
            self.vouches
        }

        fn waker(&self) -> Waker {
            self.waker.clone()
        }
    }

    #[test]
    fn who_cannot_say_up_to_when_all_is_told_holds_up_nobody() {
        for (kinds, is_told) in
            [(&[false, true][..], true), (&[true, false], true), (&[true], true), (&[false], false)]
        {
            let desk = Desk::new(Pending::new(Timing::default()));
            let began = desk.moment();
            let reads: Vec<Arc<AtomicUsize>> = kinds.iter().map(|_| Arc::default()).collect();
            let of = |(vouches, reads): (&bool, &Arc<AtomicUsize>)| {
                let (vouches, reads) = (*vouches, Arc::clone(reads));
                Box::new(Prompt { vouches, reads, waker: Waker::new().unwrap() }) as Box<dyn Detector>
            };
            let is_there: Arc<IsThere> = Arc::new(|| true);
            let detectors = start(kinds.iter().zip(&reads).map(of).collect(), &desk, &is_there).unwrap();
            // what a read has told is passed on before the next
            while reads.iter().any(|r| r.load(SeqCst) < 3) {
                std::thread::yield_now();
            }
            let told = desk.pending().told_up_to();
            assert_eq!(told > began, is_told, "{kinds:?}: {told}");
            assert!(told <= desk.moment(), "{kinds:?}: {told}");
            detectors.stop();
        }
    }

    #[test]
    fn who_can_wait_is_not_read_while_much_is_waiting_already() {
        let desk = Desk::new(Pending::new(Timing::default()));
        let fill = |count: usize| {
            let mut pending = desk.pending();
            for n in 0..count {
                pending.sign(Instant::now(), RelPath::new(format!("f{n}")).unwrap(), Sign::Open);
            }
        };
        fill(MOST_WAITING + 1);
        let counts: [Arc<AtomicUsize>; 2] = Default::default();
        let of = |waits: bool| {
            let reads = Arc::clone(&counts[usize::from(waits)]);
            Box::new(Counted { waits, reads, waker: Waker::new().unwrap() }) as Box<dyn Detector>
        };
        let is_there: Arc<IsThere> = Arc::new(|| true);
        let detectors = start(vec![of(true), of(false)], &desk, &is_there).unwrap();
        let read = |n: usize, times: usize| {
            let before = counts[n].load(SeqCst);
            while counts[n].load(SeqCst) < before + times {
                std::thread::yield_now();
            }
        };
        read(0, 20);
        assert_eq!(counts[1].load(SeqCst), 0);
        // what waits is taken for looks as it comes of age
        while desk.pending().figures().waiting > MOST_WAITING {
            desk.pending().take(Instant::now(), 100);
        }
        read(1, 3);
        detectors.stop();
    }
}
