//! Reads the events of all jobs of a directory, from where somebody stopped reading.

use super::list;
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use treeferry_core::JobId;

/// How far somebody has read: of each file, which goes by job and number, bytes.
pub type Marks = BTreeMap<String, u64>;

/// Some lines of one job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Whose.
    pub job: JobId,
    /// Whole lines, each with its newline.
    pub lines: Vec<u8>,
}

/// A directory of events.
#[derive(Clone, Debug)]
pub struct EventDir {
    dir: PathBuf,
}

/// A file of a job.
struct Segment {
    job: JobId,
    number: u64,
    path: PathBuf,
    inode: u64,
    bytes: u64,
    changed: SystemTime,
}

impl EventDir {
    /// The directory need not be there yet.
    pub fn new(dir: PathBuf) -> EventDir {
        EventDir { dir }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Reads on from `marks`, about so many lines, and moves them. Jobs come one after the other, those that were
    /// silent first. Nothing: there is nothing new.
    pub fn read(&self, marks: &mut Marks, lines: usize) -> io::Result<Vec<Piece>> {
        let (mut pieces, mut room) = (Vec::new(), lines);
        let segments = self.segments()?;
        marks.retain(|k, _| segments.iter().any(|s| s.key() == *k));
        for s in segments {
            let at = marks.entry(s.key()).or_insert(0);
            if room == 0 || s.bytes <= *at {
                continue;
            }
            // gone, or the newest no more: then it has another name, and its turn comes with that
            let Some((file, m)) = open(&s.path)?.filter(|(_, m)| m.ino() == s.inode) else { continue };
            let (text, n) = read_lines(file, *at, m.len(), room)?;
            *at += text.len() as u64;
            room -= n;
            if n > 0 {
                pieces.push(Piece { job: s.job, lines: text });
            }
        }
        Ok(pieces)
    }

    /// All files, jobs that were silent for long first, the files of each in their order.
    fn segments(&self) -> io::Result<Vec<Segment>> {
        let found = match list(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            r => r?,
        };
        let mut newest = Vec::new();
        for (job, _, path) in found.into_iter().filter(|f| f.1.is_none()) {
            newest.extend(stat(&path)?.map(|m| (job, path, m)));
        }
        // a newest that still is the newest when the others are listed has the number after theirs; of one that is not
        // another has its name by the time that it is opened
        let mut jobs: BTreeMap<JobId, Vec<Segment>> = BTreeMap::new();
        for (job, number, path) in list(&self.dir)? {
            if let Some(number) = number
                && let Some(m) = stat(&path)?
            {
                jobs.entry(job).or_default().push(Segment::new(job, number, path, &m)?);
            }
        }
        for (job, path, m) in newest {
            let of_job = jobs.entry(job).or_default();
            let number = of_job.iter().map(|s| s.number).max().map_or(1, |n| n + 1);
            of_job.push(Segment::new(job, number, path, &m)?);
        }
        let mut all: Vec<Vec<Segment>> = jobs.into_values().collect();
        all.iter_mut().for_each(|of_job| of_job.sort_by_key(|s| s.number));
        all.sort_by_key(|of_job| of_job.iter().map(|s| s.changed).max());
        Ok(all.into_iter().flatten().collect())
    }
}

impl Segment {
    fn new(job: JobId, number: u64, path: PathBuf, m: &Metadata) -> io::Result<Segment> {
        Ok(Segment { job, number, path, inode: m.ino(), bytes: m.len(), changed: m.modified()? })
    }

    fn key(&self) -> String {
        format!("{}.{}", self.job, self.number)
    }
}

fn stat(path: &Path) -> io::Result<Option<Metadata>> {
    unless_gone(std::fs::metadata(path))
}

fn open(path: &Path) -> io::Result<Option<(File, Metadata)>> {
    let Some(file) = unless_gone(File::open(path))? else { return Ok(None) };
    let m = file.metadata()?;
    Ok(Some((file, m)))
}

fn unless_gone<T>(r: io::Result<T>) -> io::Result<Option<T>> {
    match r {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        r => r.map(Some),
    }
}

/// Whole lines from an offset on, and how many. The last line may not be written to its end yet.
fn read_lines(mut file: File, at: u64, end: u64, most: usize) -> io::Result<(Vec<u8>, usize)> {
    file.seek(SeekFrom::Start(at))?;
    let rest = file.take(end.saturating_sub(at));
    let (mut from, mut text, mut n) = (BufReader::with_capacity(64 << 10, rest), Vec::new(), 0);
    while n < most {
        let before = text.len();
        if from.read_until(b'\n', &mut text)? == 0 || text.last() != Some(&b'\n') {
            text.truncate(before);
            break;
        }
        n += 1;
    }
    Ok((text, n))
}

#[cfg(test)]
mod tests {
    use super::super::newest;
    use super::*;

    #[test]
    fn a_line_is_read_when_it_is_whole_and_a_directory_that_is_not_there_is_empty() {
        let place = std::env::temp_dir().join(format!("treeferry-events-{}-whole", std::process::id()));
        let _ = std::fs::remove_dir_all(&place);
        let (dir, mut marks) = (EventDir::new(place.clone()), Marks::default());
        assert_eq!(dir.read(&mut marks, 9).unwrap(), []);
        std::fs::create_dir(&place).unwrap();
        let file = place.join(newest(JobId(1)));
        let mut seen = Vec::new();
        for text in ["", "one", "one\n", "one\ntw", "one\ntwo\nthree\n"] {
            std::fs::write(&file, text).unwrap();
            seen.extend(
                dir.read(&mut marks, 9).unwrap().into_iter().map(|p| String::from_utf8(p.lines).unwrap()),
            );
        }
        assert_eq!(seen, ["one\n", "two\nthree\n"]);
        std::fs::remove_dir_all(&place).unwrap();
        assert_eq!(dir.read(&mut marks, 9).unwrap(), []);
    }
}
