//! Where events come from: the stream of a cluster, or the directory of the embedded engine.

use super::{Batch, LogsError};
use std::path::Path;
use treeferry_queue::{Collector, EntryId, EventStream};
use treeferry_service::events::{EventDir, Marks};

/// Entries of the stream that are read at once; each has up to some hundred events.
const ENTRIES: usize = 64;
/// Lines of files that are read at once.
const LINES: usize = 10_000;

/// Events, from where somebody stopped reading.
pub enum Source {
    /// Of a cluster.
    Stream(Box<Stream>),
    /// Of jobs without one.
    Dir {
        /// The directory.
        dir: EventDir,
        /// How far it was read.
        marks: Marks,
    },
}

/// The stream, and how far it was read.
pub struct Stream {
    stream: EventStream,
    /// For whom events are kept until they are acknowledged; `None`: for somebody who only looks.
    collector: Option<Collector>,
    /// The last entry that was read.
    last: EntryId,
    /// Of what was given before and never acknowledged: the last that was looked at. `None`: all of it was.
    again: Option<EntryId>,
    unacknowledged: Vec<EntryId>,
}

impl Source {
    /// The stream, for somebody who only looks.
    pub fn look(stream: EventStream) -> Source {
        Source::of(stream, None, EntryId::default())
    }

    /// The stream, for a collector whose last word was `last`. Says whether it is a new one.
    pub fn collect(
        stream: EventStream,
        collector: Collector,
        last: Option<EntryId>,
    ) -> Result<(Source, bool), LogsError> {
        let new = stream.join(&collector, last.unwrap_or_default())?;
        Ok((Source::of(stream, Some(collector), last.unwrap_or_default()), new))
    }

    fn of(stream: EventStream, collector: Option<Collector>, last: EntryId) -> Source {
        let again = collector.as_ref().map(|_| EntryId::default());
        Source::Stream(Box::new(Stream { stream, collector, last, again, unacknowledged: Vec::new() }))
    }

    /// A directory, from these marks on.
    pub fn dir(path: &Path, marks: Marks) -> Source {
        Source::Dir { dir: EventDir::new(path.to_owned()), marks }
    }

    /// Reads on; nothing: there is nothing new.
    pub fn read(&mut self) -> Result<Vec<Batch>, LogsError> {
        match self {
            Source::Stream(s) => s.read(),
            Source::Dir { dir, marks } => {
                let pieces = dir.read(marks, LINES);
                let pieces = pieces.map_err(|why| LogsError::File { path: dir.path().to_owned(), why })?;
                let batch =
                    |p: treeferry_service::events::Piece| Batch { source: p.job.to_string(), lines: p.lines };
                Ok(pieces.into_iter().map(batch).collect())
            }
        }
    }

    /// How far it was read.
    pub fn place(&self) -> Place {
        match self {
            Source::Stream(s) => Place::Entry(s.last.to_string()),
            Source::Dir { marks, .. } => Place::Marks(marks.clone()),
        }
    }

    /// What was read is safe.
    pub fn acknowledge(&mut self) -> Result<(), LogsError> {
        match self {
            Source::Stream(s) => s.acknowledge(),
            Source::Dir { .. } => Ok(()),
        }
    }
}

/// How far a source was read.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// The last entry of a stream.
    Entry(String),
    /// Of each file, so many bytes.
    Marks(Marks),
}

impl Stream {
    fn read(&mut self) -> Result<Vec<Batch>, LogsError> {
        let Some(collector) = self.collector.clone() else {
            let entries = self.stream.look(self.last, ENTRIES)?;
            return Ok(self.take(entries));
        };
        loop {
            let Some(entries) = self.stream.take(&collector, self.again, ENTRIES)? else {
                // Redis has lost it, with all its data perhaps: from our own last word on
                self.stream.join(&collector, self.last)?;
                continue;
            };
            if let Some(again) = &mut self.again {
                match entries.last() {
                    Some(e) => *again = e.id,
                    None => {
                        self.again = None;
                        continue;
                    }
                }
            } else if entries.is_empty() {
                return Ok(Vec::new());
            }
            self.unacknowledged.extend(entries.iter().map(|e| e.id));
            let batches = self.take(entries);
            if !batches.is_empty() {
                return Ok(batches);
            }
            // all of it had been written, and only the acknowledgement was missing; or had been cut from the stream
            self.acknowledge()?;
        }
    }

    fn take(&mut self, entries: Vec<treeferry_queue::Entry>) -> Vec<Batch> {
        let last = self.last;
        self.last = entries.last().map_or(last, |e| e.id.max(last));
        let new = entries.into_iter().filter(|e| e.id > last && !e.lines.is_empty());
        new.map(|e| Batch { source: e.source, lines: e.lines }).collect()
    }

    fn acknowledge(&mut self) -> Result<(), LogsError> {
        if let Some(c) = &self.collector {
            self.stream.acknowledge(c, &self.unacknowledged)?;
            self.unacknowledged.clear();
        }
        Ok(())
    }
}
