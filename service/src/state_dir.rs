//! The directory in which this program keeps what outlives a run and is nobody else's business: what there is to be told
//! of jobs without a cluster. Nothing depends on it: a job does not fail because it cannot be written.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use treeferry_core::JobId;

/// Documents of so many jobs are kept.
const KEPT: usize = 200;

/// A document for each job, JSON, the newest 200 of them.
#[derive(Clone, Debug)]
pub struct Documents {
    dir: PathBuf,
}

impl Documents {
    /// Those in a directory, which need not be there yet.
    pub fn new(dir: PathBuf) -> Documents {
        Documents { dir }
    }

    /// Where they are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes the document of a job, or replaces it in one step. Names have paths of users in them, so nobody else may
    /// read it.
    pub fn write(&self, job: JobId, text: &[u8]) -> io::Result<()> {
        replace(&self.path(job), text)
    }

    /// Reads the document of a job; `None`: there is none.
    pub fn read(&self, job: JobId) -> io::Result<Option<String>> {
        match std::fs::read_to_string(self.path(job)) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Jobs that have a document, the one that was written last first.
    pub fn jobs(&self) -> io::Result<Vec<JobId>> {
        let mut all = Vec::new();
        for (job, when, path) in self.list()? {
            if path.extension().is_some_and(|e| e == "json") {
                all.push((when, job));
            }
        }
        all.sort_unstable_by(|a, b| b.cmp(a));
        Ok(all.into_iter().map(|(_, job)| job).collect())
    }

    /// Removes the oldest, if there are too many. What cannot be removed stays.
    pub fn prune(&self) {
        let Ok(mut all) = self.list() else { return };
        all.sort_unstable_by_key(|(_, when, _)| std::cmp::Reverse(*when));
        for (_, _, path) in all.into_iter().skip(KEPT) {
            let _ = std::fs::remove_file(path);
        }
    }

    fn path(&self, job: JobId) -> PathBuf {
        self.dir.join(format!("{job}.json"))
    }

    /// Documents, and what is left of those that were never written to their end.
    fn list(&self) -> io::Result<Vec<(JobId, SystemTime, PathBuf)>> {
        let dir = match std::fs::read_dir(&self.dir) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            r => r?,
        };
        let mut all = Vec::new();
        for e in dir {
            let e = e?;
            let name = e.file_name();
            let Some(name) = name.to_str() else { continue };
            let stem = name.strip_suffix(".json").or_else(|| name.strip_suffix(".json.new"));
            // one that is gone meanwhile is none
            let when = e.metadata().and_then(|m| m.modified());
            if let (Some(Ok(job)), Ok(when)) = (stem.map(str::parse), when) {
                all.push((job, when, e.path()));
            }
        }
        Ok(all)
    }
}

/// Writes a file that nobody else may read, or replaces it in one step; its directory is made if it is not there.
pub fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let written = file.write_all(text).and_then(|()| std::fs::rename(&new, path));
    written.inspect_err(|_| drop(std::fs::remove_file(&new)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    struct Dir(PathBuf);
    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
    fn documents(name: &str) -> (Dir, Documents) {
        let dir = std::env::temp_dir().join(format!("treeferry-documents-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        (Dir(dir.clone()), Documents::new(dir))
    }

    #[test]
    fn the_newest_are_kept_and_files_of_others_are_left_alone() {
        let (_dir, d) = documents("kept");
        assert_eq!((d.jobs().unwrap(), d.read(JobId(1)).unwrap()), (vec![], None));
        for n in 0..KEPT as u64 + 5 {
            d.write(JobId(n), b"{}").unwrap();
            let file = std::fs::File::options().write(true).open(d.path(JobId(n))).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n)).unwrap();
        }
        std::fs::write(d.dir().join("notes.json"), "x").unwrap();
        d.prune();
        let all = d.jobs().unwrap();
        assert_eq!((all.len(), all[0], all[KEPT - 1]), (KEPT, JobId(KEPT as u64 + 4), JobId(5)));
        assert!(d.dir().join("notes.json").exists());
    }

    #[test]
    fn a_document_is_replaced_whole_and_for_nobody_else_to_read() {
        let (_dir, d) = documents("whole");
        d.write(JobId(7), b"long text").unwrap();
        d.write(JobId(7), b"short").unwrap();
        assert_eq!(d.read(JobId(7)).unwrap().as_deref(), Some("short"));
        let mode = |p: &Path| std::fs::metadata(p).unwrap().mode() & 0o777;
        assert_eq!((mode(d.dir()), mode(&d.path(JobId(7)))), (0o700, 0o600));
        assert_eq!(std::fs::read_dir(d.dir()).unwrap().count(), 1, "nothing is left over");
        assert!(Documents::new("/proc/nowhere".into()).write(JobId(1), b"").is_err());
    }
}
