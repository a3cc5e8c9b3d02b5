//! Paths from a stream: what another program has found to have changed.

use crate::batch::Batch;
use crate::error::Error;
use crate::{Detector, News, Waker, What};
use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};
use treeferry_core::path::RelPath;

/// After so many paths the caller has its turn, even if there are more.
const LINES: usize = 1 << 16;

/// What stands between two paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Separator {
    /// A newline; paths with a newline in them cannot be told.
    Newline,
    /// A NUL byte, as of `find -print0`.
    Nul,
}

/// Why a path of the list is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Bad {
    Outside,
    Dots,
    Nul,
    Changelog,
}

/// Tells the paths of a list: each as [`What::Tree`], for it is not known what happened there.
///
/// A list says nothing of what is not in it, so there is no [`News::UpTo`] before its end.
pub struct List {
    lines: Receiver<std::io::Result<Vec<u8>>>,
    waker: Waker,
    roots: Vec<Vec<u8>>,
    separator: Separator,
    ended: bool,
    bad: u64,
    warned: HashSet<Bad>,
    warned_of_return: bool,
}

/// Reads paths from a stream, in a thread of its own: absolute ones below `root`, or such as are relative to it, or records of a
/// list of GPFS with such paths.
/// Others are logged, once for each kind, and left out.
pub fn list(input: impl Read + Send + 'static, root: &Path, separator: Separator) -> Result<List, Error> {
    let absolute = std::path::absolute(root).map_err(Error::Input)?;
    let mut roots = vec![bytes_of(&absolute)];
    if let Ok(real) = root.canonicalize().map(|p| bytes_of(&p))
        && !roots.contains(&real)
    {
        roots.push(real);
    }
    let waker = Waker::new()?;
    let (sender, lines) = sync_channel(4096);
    let alarm = waker.clone();
    std::thread::Builder::new()
        .name("list of paths".to_owned())
        .spawn(move || pass_on(BufReader::new(input), separator, &sender, &alarm))
        .map_err(Error::Input)?;
    Ok(List {
        lines,
        waker,
        roots,
        separator,
        ended: false,
        bad: 0,
        warned: HashSet::new(),
        warned_of_return: false,
    })
}

/// Longest path that is believed, and what is held of a list at once, in bytes.
const MOST_BYTES: u64 = 1 << 20;

fn bytes_of(path: &Path) -> Vec<u8> {
    path.as_os_str().as_encoded_bytes().to_vec()
}

fn pass_on(
    mut input: impl BufRead,
    separator: Separator,
    lines: &SyncSender<std::io::Result<Vec<u8>>>,
    alarm: &Waker,
) {
    let end = match separator {
        Separator::Newline => b'\n',
        Separator::Nul => 0,
    };
    loop {
        let mut line = Vec::new();
        let line = match input.by_ref().take(MOST_BYTES).read_until(end, &mut line) {
            Ok(0) => break,
            Ok(n) if n as u64 == MOST_BYTES && line.last() != Some(&end) => {
                let hint = match separator {
                    Separator::Newline => "newline: are its paths separated by NUL (-0)?",
                    Separator::Nul => "NUL: are its paths separated by newlines (without -0)?",
                };
                let why = format!("{MOST_BYTES} bytes without a {hint}");
                Err(std::io::Error::new(std::io::ErrorKind::InvalidData, why))
            }
            Ok(_) => {
                line.pop_if(|b| *b == end);
                Ok(line)
            }
            Err(error) => Err(error),
        };
        let stop = line.is_err();
        if lines.send(line).is_err() || stop {
            break;
        }
        alarm.wake();
    }
    alarm.wake();
}

impl List {
    /// Whether the stream has ended, and everything in it was told.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// How many paths were of no use.
    pub fn bad(&self) -> u64 {
        self.bad
    }

    fn take(&mut self, line: &[u8], batch: &mut Batch) {
        if line.is_empty() {
            return;
        }
        if line.ends_with(b"\r") && !std::mem::replace(&mut self.warned_of_return, true) {
            let path = treeferry_core::escape::bytes(line);
            tracing::warn!(
                "{path} in the list ends with a carriage return, which is taken for a part of the name"
            );
        }
        match self.clean(line) {
            Ok(path) => batch.add(path, What::Tree),
            Err(bad) => {
                self.bad += 1;
                if self.warned.insert(bad) {
                    let why = match bad {
                        Bad::Outside => "it is not below the source",
                        Bad::Dots => "it has '..' in it",
                        Bad::Nul => "it has a NUL byte in it (is the list separated by NUL?)",
                        Bad::Changelog => {
                            "it is a record of a Lustre changelog, not a path (make paths of them with 'lfs fid2path', \
                             as sample/changelog-paths does)"
                        }
                    };
                    let path = treeferry_core::escape::bytes(line);
                    tracing::warn!("{path} in the list is left out, as all others like it: {why}");
                }
            }
        }
    }

    fn clean(&self, line: &[u8]) -> Result<RelPath, Bad> {
        if self.separator == Separator::Newline && line.contains(&0) {
            return Err(Bad::Nul);
        }
        if is_changelog(line) {
            return Err(Bad::Changelog);
        }
        let line = path_of_policy(line).unwrap_or(line);
        let path = normal(line)?;
        if line.first() != Some(&b'/') {
            return Ok(path);
        }
        for root in &self.roots {
            let Ok(root) = normal(root) else { continue };
            if root.covers(&path) {
                let rest = path.as_bytes().get(root.as_bytes().len()..).unwrap_or_default();
                return RelPath::new(rest.strip_prefix(b"/").unwrap_or(rest)).map_err(|_| Bad::Outside);
            }
        }
        Err(Bad::Outside)
    }
}

/// Whether a line is a record as `lfs changelog` writes them: a number, a type as `02MKDIR`, time, day and flags, and the
/// identity of what has changed as `t=[0x200000402:0x1:0x0]`.
fn is_changelog(line: &[u8]) -> bool {
    let is_number = |w: &[u8]| !w.is_empty() && w.iter().all(u8::is_ascii_digit);
    let is_type = |w: &[u8]| {
        w.split_at_checked(2).is_some_and(|(number, name)| {
            let is_name = name.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
            is_number(number) && (3..=6).contains(&name.len()) && is_name
        })
    };
    let mut words = line.split(|b| *b == b' ');
    words.next().is_some_and(is_number)
        && words.next().is_some_and(is_type)
        && words.any(|w| w.starts_with(b"t=[0") && w.ends_with(b"]"))
}

/// The path of a record of a list that a policy of GPFS makes: inode, generation and snapshot, what the rule shows, and after
/// two dashes the full path (IBM Storage Scale, "File list format").
fn path_of_policy(line: &[u8]) -> Option<&[u8]> {
    let is_number = |w: &[u8]| !w.is_empty() && w.iter().all(u8::is_ascii_digit);
    let mut words = line.split(|b| *b == b' ').filter(|w| !w.is_empty());
    if !(0..3).all(|_| words.next().is_some_and(is_number)) {
        return None;
    }
    let at = line.windows(5).position(|w| w == b" -- /")?;
    line.get(at + 4..)
}

/// A path without `.` and empty components, from where it begins.
fn normal(path: &[u8]) -> Result<RelPath, Bad> {
    let mut out = Vec::with_capacity(path.len());
    for part in path.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".") {
        if part == b".." {
            return Err(Bad::Dots);
        }
        if !out.is_empty() {
            out.push(b'/');
        }
        out.extend_from_slice(part);
    }
    RelPath::new(out).map_err(|_| Bad::Nul)
}

impl Detector for List {
    fn name(&self) -> &'static str {
        "list"
    }

    fn is_over(&self) -> bool {
        self.ended
    }

    fn vouches(&self) -> bool {
        false
    }

    fn read(&mut self, timeout: Duration, tell: &mut dyn FnMut(News)) -> Result<(), Error> {
        let mut waited = self.ended;
        let mut batch = Batch::default();
        for _ in 0..LINES {
            let now = Instant::now();
            match self.lines.try_recv() {
                Ok(Ok(line)) => {
                    waited = true;
                    self.take(&line, &mut batch);
                }
                Ok(Err(error)) => {
                    batch.tell(tell);
                    return Err(Error::Input(error));
                }
                Err(TryRecvError::Empty) if !waited => {
                    waited = true;
                    self.waker.wait(&[], timeout)?;
                }
                Err(TryRecvError::Empty) => {
                    batch.tell(tell);
                    return Ok(());
                }
                Err(TryRecvError::Disconnected) => {
                    batch.tell(tell);
                    if std::mem::replace(&mut self.ended, true) {
                        self.waker.wait(&[], timeout)?;
                    }
                    tell(News::UpTo(now));
                    return Ok(());
                }
            }
        }
        batch.tell(tell);
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}
