//! Collecting events into files, each of them once, whenever the collector dies.
//!
//! ```text
//!   PREFIX.DEBUG .INFO .WARNING .ERROR   what was collected, appended
//!   PREFIX.state                         how far: place in the source, numbers seen, length of each file
//!   PREFIX.lock                          one collector at a time
//! ```
//!
//! The order is: append, fsync, replace the state, acknowledge. A collector that starts cuts each file to the length that
//! the state knows, and goes on from the place that it knows; so of what was under way when the last one died nothing is
//! there twice and nothing is missing. A file that was renamed or replaced meanwhile (logrotate) is begun anew.

use super::source::Place;
use super::{LogsError, Seen, Voice};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use treeferry_core::event::Line;
use treeferry_core::{Severity, escape};

const VERSION: u8 = 1;

/// What is remembered from one collector to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    version: u8,
    /// By the name of the source.
    places: BTreeMap<String, Remembered>,
    /// By severity.
    files: BTreeMap<String, Extent>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    place: Option<Place>,
    seen: Seen,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Extent {
    inode: u64,
    bytes: u64,
}

/// The files of a prefix.
pub struct Files {
    prefix: PathBuf,
    voice: Voice,
    state: State,
    open: BTreeMap<Severity, Target>,
    _lock: File,
}

struct Target {
    file: File,
    inode: u64,
    bytes: u64,
    gathered: Vec<u8>,
    written: bool,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LogsError + use<> {
    let path = path.to_owned();
    move |why| LogsError::File { path, why }
}

fn shown(path: &Path) -> String {
    escape::bytes(path.as_os_str().as_encoded_bytes()).to_string()
}

impl Files {
    /// Opens the files of a prefix, and puts right what a collector that died has left.
    pub fn open(prefix: &Path, voice: Voice) -> Result<Files, LogsError> {
        let prefix = std::path::absolute(prefix).map_err(at(prefix))?;
        let lock_path = beside(&prefix, "lock");
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(&lock_path);
        let lock = lock.map_err(at(&lock_path))?;
        lock.try_lock().map_err(|e| match e {
            std::fs::TryLockError::WouldBlock => LogsError::Busy(shown(&prefix)),
            std::fs::TryLockError::Error(why) => LogsError::File { path: lock_path, why },
        })?;
        let state_path = beside(&prefix, "state");
        let state = match std::fs::read(&state_path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => State { version: VERSION, ..State::default() },
            Err(e) => return Err(at(&state_path)(e)),
            Ok(text) => {
                let bad = |why: String| LogsError::State(shown(&state_path), why);
                let state: State = serde_json::from_slice(&text).map_err(|e| bad(e.to_string()))?;
                if state.version != VERSION {
                    return Err(bad(format!(
                        "it is of version {}, and this program knows {VERSION}",
                        state.version
                    )));
                }
                state
            }
        };
        let mut files = Files { prefix, voice, state, open: BTreeMap::new(), _lock: lock };
        for severity in Severity::ALL {
            files.cut(severity)?;
        }
        // an empty one says that there is nothing of its kind
        for severity in [Severity::Info, Severity::Warning, Severity::Error] {
            files.target(severity)?;
        }
        files.save()?;
        Ok(files)
    }

    /// The prefix, as an absolute path.
    pub fn prefix(&self) -> &Path {
        &self.prefix
    }

    /// How far a source was collected, and what was seen of it; `None`: it never was.
    pub fn remembered(&self, source: &str) -> Option<(Option<Place>, Seen)> {
        self.state.places.get(source).map(|r| (r.place.clone(), r.seen.clone()))
    }

    /// Adds an event; it is written by the next [`Files::commit`].
    pub fn put(&mut self, line: &Line<'_>, raw: &[u8]) -> Result<(), LogsError> {
        let voice = self.voice;
        voice.write(line, raw, &mut self.target(line.severity)?.gathered);
        Ok(())
    }

    /// Writes what was put, and how far the source was collected with that. Afterwards it is safe.
    pub fn commit(&mut self, source: &str, place: Place, seen: &Seen) -> Result<(), LogsError> {
        for (severity, t) in &mut self.open {
            let path = beside(&self.prefix, &severity.name().to_ascii_uppercase());
            t.file.write_all(&t.gathered).map_err(at(&path))?;
            t.bytes += t.gathered.len() as u64;
            t.written |= !t.gathered.is_empty();
            t.gathered.clear();
        }
        for (severity, t) in self.open.iter_mut().filter(|(_, t)| t.written) {
            let path = beside(&self.prefix, &severity.name().to_ascii_uppercase());
            t.file.sync_data().map_err(at(&path))?;
            t.written = false;
        }
        let seen = seen.clone();
        self.state.places.insert(source.to_owned(), Remembered { place: Some(place), seen });
        self.save()
    }

    /// Takes away what was appended after the state was last saved.
    fn cut(&mut self, severity: Severity) -> Result<(), LogsError> {
        let path = self.path(severity);
        let Some(known) = self.state.files.get(severity.name()) else { return Ok(()) };
        match OpenOptions::new().write(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(e) => Err(at(&path)(e)),
            Ok(f) => {
                let m = f.metadata().map_err(at(&path))?;
                // another file has no such tail
                if m.ino() == known.inode && m.len() > known.bytes {
                    f.set_len(known.bytes).map_err(at(&path))?;
                }
                Ok(())
            }
        }
    }

    fn path(&self, severity: Severity) -> PathBuf {
        beside(&self.prefix, &severity.name().to_ascii_uppercase())
    }

    /// The file of a severity, made if it is not there (any more).
    fn target(&mut self, severity: Severity) -> Result<&mut Target, LogsError> {
        let path = self.path(severity);
        let open = match self.open.remove(&severity) {
            // what is gathered goes where the file is when that begins
            Some(t)
                if !t.gathered.is_empty() || std::fs::metadata(&path).is_ok_and(|m| m.ino() == t.inode) =>
            {
                t
            }
            _ => {
                let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path);
                let file = file.map_err(at(&path))?;
                let m = file.metadata().map_err(at(&path))?;
                Target { file, inode: m.ino(), bytes: m.len(), gathered: Vec::new(), written: false }
            }
        };
        Ok(self.open.entry(severity).or_insert(open))
    }

    /// Replaces the state in one step.
    fn save(&mut self) -> Result<(), LogsError> {
        for (severity, t) in &self.open {
            let extent = Extent { inode: t.inode, bytes: t.bytes };
            self.state.files.insert(severity.name().to_owned(), extent);
        }
        let (path, new) = (beside(&self.prefix, "state"), beside(&self.prefix, "state.new"));
        let text = serde_json::to_vec(&self.state).unwrap_or_default();
        let write = || {
            let mut f = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
            f.write_all(&text)?;
            f.sync_data()?;
            std::fs::rename(&new, &path)?;
            // the names too: that of the state, and those of files that are new
            File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
        };
        write().map_err(at(&path))
    }
}

/// PREFIX.WORD
fn beside(prefix: &Path, word: &str) -> PathBuf {
    let mut name = OsString::from(prefix);
    name.push(".");
    name.push(word);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use treeferry_core::Event;
    use treeferry_core::event::{EventKind, Origin};

    struct Dir(PathBuf);
    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("treeferry-logs-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            std::fs::create_dir(&dir).unwrap();
            Dir(dir)
        }
        fn open(&self) -> Files {
            Files::open(&self.0.join("p"), Voice::Json).unwrap()
        }
        fn text(&self, name: &str) -> String {
            std::fs::read_to_string(self.0.join(name)).unwrap()
        }
    }
    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn put(f: &mut Files, kind: EventKind, raw: &str) {
        f.put(&Line::of(&Event::new(kind), &Origin::default(), 0), raw.as_bytes()).unwrap();
    }
    fn place(n: u64) -> Place {
        Place::Entry(format!("{n}-0"))
    }

    #[test]
    fn events_are_split_by_severity_and_what_was_not_committed_is_taken_away() {
        let d = Dir::new("split");
        let mut f = d.open();
        put(&mut f, EventKind::EntryCopied, "copied\n");
        put(&mut f, EventKind::EntryVanished, "vanished\n");
        put(&mut f, EventKind::EntryFailed, "failed\n");
        f.commit("s", place(1), &Seen::default()).unwrap();
        assert!(!d.0.join("p.DEBUG").exists());
        put(&mut f, EventKind::EntrySkipped, "skipped\n");
        f.commit("s", place(2), &Seen::default()).unwrap();
        drop(f);
        for name in ["p.INFO", "p.ERROR"] {
            let mut f = OpenOptions::new().append(true).open(d.0.join(name)).unwrap();
            f.write_all(b"half a li").unwrap();
        }
        let f = d.open();
        assert_eq!(f.remembered("s").unwrap().0, Some(place(2)));
        assert_eq!(f.remembered("other"), None);
        let all = ["p.DEBUG", "p.INFO", "p.WARNING", "p.ERROR"].map(|n| d.text(n));
        assert_eq!(all, ["skipped\n", "copied\n", "vanished\n", "failed\n"]);
    }

    #[test]
    fn a_file_that_was_renamed_is_left_alone_and_begun_anew() {
        let d = Dir::new("rotated");
        let mut f = d.open();
        put(&mut f, EventKind::EntryCopied, "one\n");
        f.commit("s", place(1), &Seen::default()).unwrap();
        std::fs::rename(d.0.join("p.INFO"), d.0.join("old")).unwrap();
        put(&mut f, EventKind::EntryCopied, "two\n");
        f.commit("s", place(2), &Seen::default()).unwrap();
        drop(f);
        std::fs::write(d.0.join("other"), "somebody's").unwrap();
        std::fs::rename(d.0.join("other"), d.0.join("p.INFO")).unwrap();
        let mut f = d.open();
        put(&mut f, EventKind::EntryCopied, " three\n");
        f.commit("s", place(3), &Seen::default()).unwrap();
        assert_eq!((d.text("old"), d.text("p.INFO")), ("one\n".into(), "somebody's three\n".into()));
    }

    #[test]
    fn there_is_one_collector_at_a_time_and_a_strange_state_is_refused() {
        let d = Dir::new("lock");
        let f = d.open();
        assert!(matches!(Files::open(&d.0.join("p"), Voice::Json), Err(LogsError::Busy(_))));
        drop(f);
        for bad in ["", "{}", r#"{"version":2,"places":{},"files":{}}"#] {
            std::fs::write(d.0.join("p.state"), bad).unwrap();
            assert!(matches!(Files::open(&d.0.join("p"), Voice::Json), Err(LogsError::State(..))), "{bad}");
        }
    }
}
