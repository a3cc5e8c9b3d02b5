//! Reading events: where they come from, which of them are new, and where they are put.

mod files;
mod seen;
mod source;

pub use files::Files;
pub use seen::Seen;
pub use source::{Place, Source};

use crate::output::harmless;
use treeferry_core::escape;
use treeferry_core::event::{BadLine, Line, Selection};
use treeferry_queue::LedgerError;

/// Why events cannot be collected.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The stream cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A file or a directory.
    #[error("{}: {why}", escape::bytes(path.as_os_str().as_encoded_bytes()))]
    File {
        /// Which.
        path: std::path::PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
    /// Somebody else collects into the same files.
    #[error("another collector is at work on {0}")]
    Busy(String),
    /// What was collected last cannot be read.
    #[error("{0} does not say how far events were collected: {1}")]
    State(String, String),
    /// Events of a later program; nothing of them was taken.
    #[error("{0}")]
    Newer(BadLine),
}

/// Events that were told together by one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Which process; no two have the same.
    pub source: String,
    /// Lines of JSON.
    pub lines: Vec<u8>,
}

/// In which voice events are put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voice {
    /// A line for people.
    Text,
    /// The line as it is.
    Json,
}

impl Voice {
    /// Writes an event.
    pub fn write(self, line: &Line<'_>, raw: &[u8], to: &mut Vec<u8>) {
        match self {
            Voice::Text => {
                to.extend_from_slice(harmless(&line.to_string(), "\t").as_bytes());
                to.push(b'\n');
            }
            Voice::Json => to.extend_from_slice(raw),
        }
    }
}

/// What has been found out about events that could not be shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// Events that were removed before they were read.
    pub lost: u64,
    /// Lines that are no events.
    pub malformed: u64,
}

/// Gives each event that is new and wanted to `put`. Returns what went wrong, and, by source, how many were lost.
pub fn sift(
    batches: &[Batch],
    selection: &Selection,
    seen: &mut Seen,
    mut put: impl FnMut(&Line<'_>, &[u8]),
) -> Result<(Trouble, Vec<(String, u64)>), LogsError> {
    let (mut trouble, mut lost) = (Trouble::default(), Vec::new());
    for b in batches {
        for raw in b.lines.split_inclusive(|c| *c == b'\n') {
            let line = match Line::read(raw) {
                Ok(l) => l,
                Err(BadLine::Malformed(_)) => {
                    trouble.malformed += 1;
                    continue;
                }
                Err(e @ BadLine::Version(_)) => return Err(LogsError::Newer(e)),
            };
            let Some(gap) = seen.take(&b.source, line.seq) else { continue };
            if gap > 0 {
                trouble.lost += gap;
                lost.push((line.worker.clone().into_owned(), gap));
            }
            if selection.takes(&line) {
                put(&line, raw);
            }
        }
    }
    Ok((trouble, lost))
}

#[cfg(test)]
mod tests {
    use super::*;
    use treeferry_core::event::{EventKind, Origin};
    use treeferry_core::{Event, JobId};

    fn batch(source: &str, numbers: std::ops::Range<u64>) -> Batch {
        let (origin, mut lines) = (Origin { host: "h".into(), worker: source.into() }, Vec::new());
        for n in numbers {
            Line::of(&Event::new(EventKind::EntryCopied).of(JobId(n % 2)), &origin, n).write(&mut lines);
        }
        Batch { source: source.to_owned(), lines }
    }

    #[test]
    fn each_event_is_taken_once_and_what_is_missing_is_counted() {
        let (mut seen, mut got) = (Seen::default(), Vec::new());
        let all = [batch("a", 0..3), batch("b", 5..7), batch("a", 1..5), batch("a", 7..8)];
        let r = sift(&all, &Selection::default(), &mut seen, |l, _| {
            got.push((l.worker.clone().into_owned(), l.seq))
        });
        let (trouble, lost) = r.unwrap();
        let want = [("a", 0), ("a", 1), ("a", 2), ("b", 5), ("b", 6), ("a", 3), ("a", 4), ("a", 7)];
        assert_eq!(got, want.map(|(w, n)| (w.to_owned(), n)));
        assert_eq!(trouble, Trouble { lost: 7, malformed: 0 });
        assert_eq!(lost, [("b".to_owned(), 5), ("a".to_owned(), 2)]);
    }

    #[test]
    fn what_is_not_wanted_is_seen_too_and_what_is_no_event_is_counted() {
        let (mut seen, mut n) = (Seen::default(), 0);
        let only = Selection { jobs: vec![JobId(1)], ..Selection::default() };
        let mut b = batch("a", 0..4);
        b.lines.extend_from_slice(b"{}\nrubbish\n");
        let (trouble, _) = sift(&[b, batch("a", 4..5)], &only, &mut seen, |_, _| n += 1).unwrap();
        assert_eq!((n, trouble), (2, Trouble { lost: 0, malformed: 2 }));
        let newer = Batch {
            source: "a".into(),
            lines: String::from_utf8(batch("a", 5..6).lines)
                .unwrap()
                .replace("\"v\":1", "\"v\":9")
                .into_bytes(),
        };
        assert!(matches!(sift(&[newer], &only, &mut seen, |_, _| {}), Err(LogsError::Newer(_))));
    }

    #[test]
    fn text_has_no_power_over_the_terminal() {
        let (e, origin) = (Event::new(EventKind::JobBegan).text("a\x1b[31m\nb"), Origin::default());
        let mut out = Vec::new();
        Voice::Text.write(&Line::of(&e, &origin, 0), b"", &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("a\\#033[31m\\#012b\n") && text.matches('\n').count() == 1, "{text}");
    }
}
