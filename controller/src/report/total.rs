//! How much there is to do, where that is known: a percentage of a guess would be worse than none.

use super::data::{Total, TotalSource};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What is known of the roots of jobs, to find one that tells how much another has to do.
pub struct Earlier<'a> {
    /// Its id.
    pub job: String,
    /// Source and target.
    pub roots: (&'a Path, &'a Path),
    /// Whether it was done, and counted so many files and directories.
    pub done: Option<u64>,
}

/// The newest job with the same roots that was done, of those that are given the newest first.
pub fn of_earlier_job(roots: (&Path, &Path), jobs: &[Earlier<'_>]) -> Option<Total> {
    let same = jobs.iter().filter(|j| j.roots == roots);
    let found = same.filter_map(|j| Some((j, j.done.filter(|n| *n > 0)?))).next()?;
    Some(Total { entries: found.1, source: TotalSource::EarlierJob(found.0.job.clone()) })
}

/// The inodes in use of the file system that SRC is the root of. A directory further down is not all of its file
/// system, and of some the number of inodes is not known.
pub fn of_file_system(src: &Path, inode: u64) -> Option<Total> {
    let here = std::fs::metadata(src).ok().filter(|m| m.is_dir() && m.ino() == inode)?;
    let above = std::fs::metadata(src.join("..")).ok()?;
    let is_mount = here.dev() != above.dev() || here.ino() == above.ino();
    let entries = treeferry_fs::root::used_inodes(src).filter(|n| *n > 0 && is_mount)?;
    Some(Total { entries, source: TotalSource::FileSystem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_job_that_was_done_tells() {
        let (a, b, c) = (Path::new("/a"), Path::new("/b"), Path::new("/c"));
        let job = |job: &str, roots, done| Earlier { job: job.to_owned(), roots, done };
        let all = [
            job("1", (a, c), Some(9)),
            job("2", (a, b), None),
            job("3", (a, b), Some(0)),
            job("4", (a, b), Some(7)),
        ];
        let t = of_earlier_job((a, b), &all).unwrap();
        assert_eq!(t, Total { entries: 7, source: TotalSource::EarlierJob("4".to_owned()) });
        assert_eq!(of_earlier_job((b, a), &all), None);
    }

    #[test]
    fn only_the_root_of_a_file_system_tells_how_much_there_is() {
        let inode = |p: &str| std::fs::metadata(p).unwrap().ino();
        assert_eq!(of_file_system(Path::new("/etc"), inode("/etc")), None, "a part of it");
        assert_eq!(of_file_system(Path::new("/"), inode("/") + 1), None, "not what it was");
        assert_eq!(of_file_system(Path::new("/nonexistent"), 1), None);
    }
}
