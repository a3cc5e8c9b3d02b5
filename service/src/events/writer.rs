//! Writes the events of one job, in a thread of its own: whoever has an event never waits for a disk.

use super::{list, newest, numbered};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime};
use treeferry_core::event::{EventKind, Line, Origin, Outbox, micros};
use treeferry_core::{Event, JobId, escape};

/// Events are written so often; a process that is killed loses what it had since.
const INTERVAL: Duration = Duration::from_millis(100);
/// Bytes that are written at once, about.
const BLOCK_BYTES: usize = 256 << 10;
/// After a failed write the next is tried after this.
const AGAIN: Duration = Duration::from_secs(1);
/// At its end a job waits so long for its last events to be written.
const LAST: Duration = Duration::from_secs(2);

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Keeping {
    /// Events that wait to be written.
    pub buffer: usize,
    /// A file is followed by the next when it has so many bytes.
    pub file_bytes: u64,
    /// Files of one job.
    pub files: u64,
    /// Files that nothing was written to for so long are removed.
    pub age: Duration,
}

/// The events of a job on their way to its files.
pub struct EventLog {
    outbox: Arc<Outbox>,
    ended: Receiver<()>,
}

impl EventLog {
    /// Starts the thread. What is wrong with the directory is said by the log, once, and the job goes on without.
    pub fn start(dir: PathBuf, job: JobId, origin: Origin, keep: Keeping) -> io::Result<EventLog> {
        let outbox = Arc::new(Outbox::new(keep.buffer));
        let (end, ended) = channel();
        let mut w = Writer { dir, job, origin, keep, file: None, len: 0, seq: 0, said: false };
        let from = Arc::clone(&outbox);
        std::thread::Builder::new().name("tf-events".to_owned()).spawn(move || {
            w.run(&from);
            // whoever waited may have given up
            let _ = end.send(());
        })?;
        Ok(EventLog { outbox, ended })
    }

    /// Where events are put.
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Writes what is left. A directory that hangs is not waited for longer than some seconds.
    pub fn finish(self) {
        self.outbox.close();
        if self.ended.recv_timeout(LAST) == Err(RecvTimeoutError::Timeout) {
            tracing::warn!("events: the last were not written within {} s", LAST.as_secs());
        }
    }
}

struct Writer {
    dir: PathBuf,
    job: JobId,
    origin: Origin,
    keep: Keeping,
    file: Option<File>,
    len: u64,
    seq: u64,
    said: bool,
}

impl Writer {
    fn run(&mut self, from: &Outbox) {
        let mut failed: Option<Instant> = None;
        loop {
            // in this order: what was put in before it was closed is still taken
            let last = from.is_closed();
            if last || failed.is_none_or(|t| t.elapsed() >= AGAIN) {
                failed = self.work_off(from).is_err().then(Instant::now);
            }
            if last {
                return;
            }
            from.rest(INTERVAL);
        }
    }

    /// Writes what waits. What could not be written counts as dropped.
    fn work_off(&mut self, from: &Outbox) -> Result<(), ()> {
        let (mut events, dropped) = from.take();
        if dropped > 0 {
            let word = Event::new(EventKind::EventsDropped).of(self.job);
            let time_us = micros(SystemTime::now());
            events.push(Event { time_us, count: Some(dropped), ..word });
        }
        let mut left = events.len() as u64;
        for some in events.chunks(BLOCK_BYTES / 512) {
            if let Err(e) = self.write(some) {
                if !self.said {
                    self.said = true;
                    let dir = escape::bytes(self.dir.as_os_str().as_encoded_bytes());
                    tracing::warn!(
                        "events are not written to {dir}: {e}; the job goes on without (see --log-dir)"
                    );
                }
                // the word that some were dropped is not counted when it is dropped itself
                from.give_up(left - u64::from(dropped > 0), dropped);
                return Err(());
            }
            left -= some.len() as u64;
        }
        Ok(())
    }

    fn write(&mut self, events: &[Event]) -> io::Result<()> {
        let mut block = Vec::with_capacity(events.len() * 320);
        for (n, e) in (self.seq..).zip(events) {
            Line::of(e, &self.origin, n).write(&mut block);
        }
        let (mut file, len) = match self.file.take() {
            Some(f) if self.len < self.keep.file_bytes => (f, self.len),
            Some(_) => (self.follow()?, 0),
            None => (self.open()?, 0),
        };
        if let Err(e) = file.write_all(&block) {
            // a line that is cut off would spoil the next
            file.set_len(len)?;
            (self.file, self.len) = (Some(file), len);
            return Err(e);
        }
        self.seq += events.len() as u64;
        (self.file, self.len) = (Some(file), len + block.len() as u64);
        Ok(())
    }

    /// The first file.
    fn open(&self) -> io::Result<File> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        remove_old(&self.dir, self.keep.age);
        match create(&self.dir.join(newest(self.job))) {
            // an earlier attempt could not go on with it
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => self.follow(),
            r => r,
        }
    }

    /// The next file. Names have paths of users in them: they are nobody else's business.
    fn follow(&self) -> io::Result<File> {
        let mut numbers: Vec<u64> =
            list(&self.dir)?.into_iter().filter(|f| f.0 == self.job).filter_map(|f| f.1).collect();
        numbers.sort_unstable();
        let next = numbers.last().map_or(1, |n| n + 1);
        std::fs::rename(self.dir.join(newest(self.job)), self.dir.join(numbered(self.job, next)))?;
        numbers.push(next);
        let surplus = (numbers.len() as u64 + 1).saturating_sub(self.keep.files.max(1));
        for n in numbers.into_iter().take(surplus as usize) {
            // one that is not ours to remove, or gone already, is no reason not to go on
            let _ = std::fs::remove_file(self.dir.join(numbered(self.job, n)));
        }
        create(&self.dir.join(newest(self.job)))
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)
}

/// Removes files of jobs that have been silent for long. Nothing depends on it.
fn remove_old(dir: &Path, age: Duration) {
    for (_, _, path) in list(dir).unwrap_or_default() {
        let silent = std::fs::metadata(&path).and_then(|m| m.modified()).ok().and_then(|t| t.elapsed().ok());
        if silent.is_some_and(|s| s > age) {
            let _ = std::fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{EventDir, Marks};

    const KEEP: Keeping =
        Keeping { buffer: 10_000, file_bytes: 1 << 30, files: 3, age: Duration::from_secs(3600) };

    struct Dir(PathBuf);
    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("treeferry-events-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&dir);
            Dir(dir)
        }
        fn start(&self, job: u64, keep: Keeping) -> EventLog {
            EventLog::start(self.0.clone(), JobId(job), Origin::default(), keep).unwrap()
        }
        fn read(&self, marks: &mut Marks) -> Vec<u64> {
            let (mut all, dir) = (Vec::new(), EventDir::new(self.0.clone()));
            loop {
                let pieces = dir.read(marks, 100).unwrap();
                if pieces.is_empty() {
                    return all;
                }
                let lines = pieces.iter().flat_map(|p| p.lines.split_inclusive(|b| *b == b'\n'));
                all.extend(lines.map(|l| Line::read(l).unwrap().seq));
            }
        }
    }
    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn events(n: usize) -> impl Iterator<Item = Event> {
        (0..n).map(|_| Event::new(EventKind::EntryCopied))
    }

    #[test]
    fn all_events_are_written_in_order_by_the_end() {
        let dir = Dir::new("order");
        let log = dir.start(1, KEEP);
        for _ in 0..10 {
            log.outbox().put(events(300));
        }
        log.finish();
        assert_eq!(dir.read(&mut Marks::default()), (0..3000).collect::<Vec<_>>());
    }

    #[test]
    fn files_follow_each_other_the_oldest_goes_and_a_reader_reads_on() {
        let dir = Dir::new("rotate");
        let log = dir.start(1, Keeping { file_bytes: 1, ..KEEP });
        let mut marks = Marks::default();
        let mut put = |n| {
            log.outbox().put(events(n));
            while !log.outbox().is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        put(10);
        std::thread::sleep(INTERVAL);
        assert_eq!(dir.read(&mut marks), (0..10).collect::<Vec<_>>());
        (0..4).for_each(|_| put(10));
        log.finish();
        let mut names: Vec<_> = list(&dir.0).unwrap().into_iter().map(|f| f.1).collect();
        names.sort_unstable();
        assert_eq!(names, [None, Some(3), Some(4)]);
        assert_eq!(dir.read(&mut marks), (20..50).collect::<Vec<_>>(), "the second file went unread");
        assert_eq!(dir.read(&mut marks), [0u64; 0]);
    }

    #[test]
    fn old_files_go_and_those_of_others_stay() {
        let dir = Dir::new("old");
        dir.start(1, KEEP).finish();
        let log = dir.start(1, KEEP);
        log.outbox().put(events(1));
        log.finish();
        let foreign = dir.0.join("notes.jsonl");
        std::fs::write(&foreign, "x").unwrap();
        let old = SystemTime::now() - Duration::from_secs(7200);
        for p in [foreign.clone(), dir.0.join(newest(JobId(1)))] {
            File::options().write(true).open(p).unwrap().set_modified(old).unwrap();
        }
        let log = dir.start(2, KEEP);
        log.outbox().put(events(1));
        log.finish();
        let left: Vec<_> = list(&dir.0).unwrap().into_iter().map(|f| f.0).collect();
        assert_eq!((left, foreign.exists()), (vec![JobId(2)], true));
    }

    #[test]
    fn what_cannot_be_written_is_dropped_and_counted_and_nobody_waits() {
        let log = EventLog::start("/proc/nowhere".into(), JobId(1), Origin::default(), KEEP).unwrap();
        let outbox = Arc::clone(log.outbox());
        outbox.put(events(5));
        log.finish();
        assert_eq!(outbox.dropped(), 5);
    }

    #[test]
    fn when_there_is_room_again_it_is_said_how_many_were_dropped() {
        let dir = Dir::new("full");
        std::fs::write(&dir.0, "a file where the directory is to be").unwrap();
        let log = dir.start(1, KEEP);
        log.outbox().put(events(7));
        while log.outbox().dropped() == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::remove_file(&dir.0).unwrap();
        log.outbox().put(events(2));
        log.finish();
        let text = std::fs::read_to_string(dir.0.join(newest(JobId(1)))).unwrap();
        let lines: Vec<_> = text.lines().map(|l| Line::read(l.as_bytes()).unwrap()).collect();
        assert_eq!(
            lines.iter().map(|l| l.seq).collect::<Vec<_>>(),
            [0, 1, 2],
            "numbers of lines, not of events"
        );
        assert_eq!((lines[2].event.as_ref(), lines[2].count), ("events.dropped", Some(7)));
    }
}
