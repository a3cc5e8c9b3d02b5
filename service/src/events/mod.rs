//! Events in files: a directory with a file of JSON lines for each job of the embedded engine, and who reads it back.
//!
//! ```text
//!   JOB.000001.jsonl   JOB.000002.jsonl   ...   JOB.jsonl
//!   the oldest                                  the newest, which is written to
//! ```
//!
//! A file that has become large is given the next number and is never written to again; so a place in the events of a
//! job is a number and an offset, whatever is renamed or removed meanwhile.

mod reader;
mod writer;

pub use reader::{EventDir, Marks, Piece};
pub use writer::{EventLog, Keeping};

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use treeferry_core::JobId;

/// Says where events are written. Wins over the configuration; an empty name means nowhere.
pub const VARIABLE: &str = "TREEFERRY_LOG_DIR";

/// Where events are written if nobody says anything else; `None`: there is no home to write to.
pub fn default_dir(is_root: bool) -> Option<PathBuf> {
    if is_root {
        return Some(PathBuf::from("/var/log/treeferry"));
    }
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    // the specification: a path that is not absolute is to be ignored
    let state = set("XDG_STATE_HOME").filter(|p| p.is_absolute());
    Some(state.or_else(|| set("HOME").map(|h| h.join(".local/state")))?.join("treeferry"))
}

/// The file that is written to.
fn newest(job: JobId) -> String {
    format!("{job}.jsonl")
}

/// A file that is written to no more.
fn numbered(job: JobId, number: u64) -> String {
    format!("{job}.{number:06}.jsonl")
}

/// Reads the name of a file of ours: its job, and its number unless it is the newest.
fn parse(name: &OsStr) -> Option<(JobId, Option<u64>)> {
    let stem = std::str::from_utf8(name.as_bytes()).ok()?.strip_suffix(".jsonl")?;
    match stem.split_once('.') {
        None => Some((stem.parse().ok()?, None)),
        Some((job, n)) if n.len() >= 6 && n.bytes().all(|b| b.is_ascii_digit()) => {
            Some((job.parse().ok()?, Some(n.parse().ok()?)))
        }
        Some(_) => None,
    }
}

/// Files of ours in a directory.
fn list(dir: &Path) -> std::io::Result<Vec<(JobId, Option<u64>, PathBuf)>> {
    let mut all = Vec::new();
    for e in std::fs::read_dir(dir)? {
        let e = e?;
        if let Some((job, number)) = parse(&e.file_name()) {
            all.push((job, number, e.path()));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_those_of_others_are_left_alone() {
        let job = JobId(255);
        assert_eq!(parse(OsStr::new(&newest(job))), Some((job, None)));
        for n in [0, 7, 999_999, 1_000_000] {
            assert_eq!(parse(OsStr::new(&numbered(job, n))), Some((job, Some(n))));
        }
        for other in ["x.jsonl", "00000000000000ff", "00000000000000ff.jsonl.1", "00000000000000ff.old.jsonl"]
        {
            assert_eq!(parse(OsStr::new(other)), None, "{other}");
        }
    }
}
