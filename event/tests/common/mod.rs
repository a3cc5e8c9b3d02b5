//! What the tests of all detectors share.

#![allow(dead_code)]

pub mod changes;
pub mod model;
pub mod storm;

use std::ffi::CStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use treeferry_core::path::RelPath;
use treeferry_event::{Detector, Error, Excluded, Hint, News, What};

/// How long anything may take before a test fails; far more than it needs.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Starts a detector.
pub type Start = fn(&Path, Excluded) -> Result<Box<dyn Detector>, Error>;

/// Where trees are made: on a disk and in memory.
pub const BASES: [&str; 2] = ["/tmp", "/dev/shm"];

/// Nothing is excluded.
pub fn everything() -> Excluded {
    Box::new(|_, _, _| false)
}

/// Everything of one name is excluded.
pub fn without(name: &'static CStr) -> Excluded {
    Box::new(move |_, n, _| n == name)
}

/// What is said of a path.
pub fn news(path: impl AsRef<Path>, what: What) -> News {
    News::Hint(Hint { path: rel(path), what })
}

pub fn rel(path: impl AsRef<Path>) -> RelPath {
    RelPath::new(path.as_ref().as_os_str().as_bytes()).unwrap()
}

/// A source directory that is watched, and a place beside it that is not.
pub struct Scene {
    place: tempfile::TempDir,
    pub source: PathBuf,
    pub outside: PathBuf,
    pub detector: Box<dyn Detector>,
}

impl Scene {
    /// Prepares a tree, then watches it.
    pub fn new(base: &str, start: Start, excluded: Excluded, prepare: impl FnOnce(&Path)) -> Scene {
        let place = tempfile::Builder::new().prefix("event-").tempdir_in(base).unwrap();
        let (source, outside) = (place.path().join("source"), place.path().join("outside"));
        fs::create_dir(&source).unwrap();
        fs::create_dir(&outside).unwrap();
        prepare(&source);
        let detector = start(&source, excluded).unwrap();
        Scene { place, source, outside, detector }
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.source.join(path)
    }

    /// All that is told of a change until it is said that it was told.
    pub fn after(&mut self, change: impl FnOnce(&Scene)) -> Told {
        change(self);
        self.up_to(Instant::now())
    }

    /// All that is told after something was done to some paths, until this is said of each. A file is closed when nobody has
    /// it open any more, and a process that another test starts at that moment has, until it has become its program.
    pub fn after_each(&mut self, change: impl FnOnce(&Scene), paths: &[PathBuf], what: &What) -> Told {
        let began = Instant::now();
        let mut told = self.after(change);
        while let Some(missing) = paths.iter().find(|p| !told.of(p).contains(&what)) {
            assert!(began.elapsed() < DEADLINE, "{missing:?}: no {what:?} in {told:?}");
            told.0.extend(self.up_to(Instant::now()).0);
        }
        told
    }

    /// A file is written and closed, and that is told.
    pub fn write(&mut self, path: &str, content: &str) -> Told {
        self.after_each(|s| fs::write(s.at(path), content).unwrap(), &[path.into()], &What::Changed)
    }

    /// All that is told until it is said that everything up to a moment was told.
    pub fn up_to(&mut self, moment: Instant) -> Told {
        let began = Instant::now();
        let mut told = Told(Vec::new());
        loop {
            let mut reached = false;
            self.detector
                .read(Duration::from_millis(50), &mut |news| {
                    reached |= matches!(news, News::UpTo(t) if t >= moment);
                    told.0.push(news);
                })
                .unwrap();
            if reached {
                return told;
            }
            assert!(began.elapsed() < DEADLINE, "no UpTo: {told:?}");
        }
    }
}

/// What was told.
#[derive(Debug)]
pub struct Told(pub Vec<News>);

impl Told {
    pub fn hints(&self) -> impl Iterator<Item = &Hint> {
        self.0.iter().filter_map(|news| if let News::Hint(hint) = news { Some(hint) } else { None })
    }

    /// What is said of a path.
    pub fn of(&self, path: impl AsRef<Path>) -> Vec<&What> {
        let path = rel(path);
        self.hints().filter(|h| h.path == path).map(|h| &h.what).collect()
    }

    /// Whether this, and perhaps more, is said of a path.
    #[track_caller]
    pub fn expect(&self, path: impl AsRef<Path>, what: What) -> &Told {
        let path = path.as_ref();
        assert!(self.of(path).contains(&&what), "{path:?}: no {what:?} in {self:?}");
        self
    }

    /// Whether a path is to be looked at now, for itself or with its parents.
    #[track_caller]
    pub fn expect_look(&self, path: impl AsRef<Path>) -> &Told {
        let wanted = rel(&path);
        let found = self.hints().any(|h| match &h.what {
            What::Tree => h.path.covers(&wanted),
            What::Changed | What::Attributes | What::Names => h.path == wanted,
            What::Moved { from, .. } => h.path == wanted || *from == wanted,
            What::Open => false,
        });
        assert!(found, "{wanted} is not to be looked at in {self:?}");
        self
    }

    #[track_caller]
    pub fn expect_moved(&self, from: impl AsRef<Path>, to: impl AsRef<Path>, dir: bool) -> &Told {
        self.expect(to, What::Moved { from: rel(from), dir })
    }

    #[track_caller]
    pub fn expect_silence_on(&self, path: impl AsRef<Path>) -> &Told {
        let path = rel(path);
        assert!(!self.hints().any(|h| path.covers(&h.path)), "something of {path} in {self:?}");
        self
    }

    pub fn is_lost(&self) -> bool {
        self.0.iter().any(|news| matches!(news, News::Lost(_)))
    }
}
