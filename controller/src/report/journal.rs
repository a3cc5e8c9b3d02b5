//! What a job without a cluster leaves behind: its ledger is gone when it ends, and this is written instead, now and then
//! while it runs and once at its end. Nothing depends on it.

use super::data::{Engine, FORMAT, Facts, FailureRow, TaskRow, Total, subtrees};
use super::total::{Earlier, of_earlier_job, of_file_system};
use crate::args::daemon::host;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use treeferry_core::job::JobState;
use treeferry_core::{History, JobId, JobSpec, Sample, escape};
use treeferry_queue::{Engine as Ledger, RunningTask, Status};
use treeferry_service::state_dir::Documents;

/// The document is first written when the job is so old, for who asks soon, ...
const FIRST: Duration = Duration::from_secs(2);
/// ... and so often from then on.
const EVERY: Duration = Duration::from_secs(10);

/// The journal of a job.
pub struct Journal {
    documents: Option<Documents>,
    job: JobId,
    blank: Facts,
    history: History,
    next: Instant,
}

/// The job as it is.
pub struct Now<'a> {
    /// Its engine.
    pub engine: &'a Ledger,
    /// Where it stands.
    pub status: &'a Status,
    /// What its threads are at.
    pub running: Vec<RunningTask>,
    /// It has ended, and no thread is left.
    pub is_over: bool,
}

impl Journal {
    /// Begins it. `dir`: `None` means nowhere.
    pub fn begin(dir: Option<PathBuf>, job: JobId, spec: &JobSpec, src_inode: u64) -> Journal {
        let shown = |p: &Path| escape::bytes(p.as_os_str().as_encoded_bytes()).to_string();
        let whole = |p: &Path| shown(&std::path::absolute(p).unwrap_or_else(|_| p.to_owned()));
        let began_ms = now_ms();
        let blank = Facts {
            format: FORMAT,
            job: job.to_string(),
            engine: Engine::Embedded,
            host: Some(host()),
            state: JobState::Running,
            paused: false,
            error: String::new(),
            src: whole(&spec.src),
            src_inode,
            dst: whole(&spec.dst),
            passes: spec.passes.names().into_iter().map(str::to_owned).collect(),
            dry_run: spec.dry_run,
            began_ms,
            ended_ms: None,
            seen_ms: began_ms,
            outstanding: 0,
            counters: BTreeMap::new(),
            sizes: Vec::new(),
            largest_files: Vec::new(),
            slowest_files: Vec::new(),
            largest_dirs: Vec::new(),
            longest_tasks: Vec::new(),
            running: Vec::new(),
            unfinished: Vec::new(),
            failure_groups: Vec::new(),
            failures: Vec::new(),
            history: Vec::new(),
            nodes: Vec::new(),
        };
        let documents = dir.map(Documents::new);
        Journal { documents, job, blank, history: History::new(), next: Instant::now() + FIRST }
    }

    /// Called some times a second while the job runs.
    pub fn tick<'a>(&mut self, now: impl FnOnce() -> (&'a Ledger, Vec<RunningTask>)) {
        let ms = now_ms();
        let (sample, write) = (self.history.is_due(ms), Instant::now() >= self.next);
        if self.documents.is_none() || !(sample || write) {
            return;
        }
        let (engine, running) = now();
        let status = engine.status();
        if sample {
            self.history.push(Sample::new(ms, status.outstanding, &status.counters));
        }
        if write {
            self.next = Instant::now() + EVERY;
            self.write(Now { engine, status: &status, running, is_over: false });
        }
    }

    /// Writes the last of it.
    pub fn end(mut self, engine: &Ledger, status: &Status) {
        self.write(Now { engine, status, running: Vec::new(), is_over: true });
        self.documents.iter().for_each(Documents::prune);
    }

    fn write(&mut self, now: Now<'_>) {
        let Some(documents) = &self.documents else { return };
        let f = self.facts(now);
        // texts and numbers: cannot fail
        let text = serde_json::to_vec(&f).unwrap_or_default();
        if let Err(e) = documents.write(self.job, &text) {
            let dir = escape::bytes(documents.dir().as_os_str().as_encoded_bytes());
            tracing::debug!("what 'treeferry report' would tell cannot be written to {dir}: {e}");
            // once is enough
            self.documents = None;
        }
    }

    fn facts(&self, now: Now<'_>) -> Facts {
        let s = now.status;
        let ms = now_ms();
        let mut f = Facts {
            state: s.state,
            error: s.aborted.clone().unwrap_or_default(),
            seen_ms: ms,
            ended_ms: now.is_over.then_some(ms),
            outstanding: s.outstanding,
            counters: s.counters.iter().map(|(name, n)| (name.to_owned(), n)).collect(),
            failures: s.failures.iter().map(FailureRow::from).collect(),
            history: self.history.samples().to_vec(),
            ..self.blank.clone()
        };
        f.take_figures(&now.engine.figures());
        f.running = now
            .running
            .into_iter()
            .map(|t| TaskRow { work: t.work, path: t.path, seconds: t.age_ms as f64 / 1000.0, worker: None })
            .collect();
        if now.is_over {
            f.unfinished = subtrees(&now.engine.unfinished());
        }
        f
    }
}

/// Why the document of a job is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// The system says so.
    #[error("{}: {why}", escape::bytes(dir.as_os_str().as_encoded_bytes()))]
    Io {
        /// Where.
        dir: PathBuf,
        /// What it says.
        why: std::io::Error,
    },
    /// It is not what we write.
    #[error("the document of job {job} in {} is not one of this version: {why}", escape::bytes(dir.as_os_str().as_encoded_bytes()))]
    Foreign {
        /// Which.
        job: JobId,
        /// Where.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// Reads the document of a job; `None`: there is none.
pub fn read(documents: &Documents, job: JobId) -> Result<Option<Facts>, Unreadable> {
    let dir = documents.dir().to_owned();
    let text = match documents.read(job) {
        Ok(Some(text)) => text,
        Ok(None) => return Ok(None),
        Err(why) => return Err(Unreadable::Io { dir, why }),
    };
    let foreign = |why: String| Unreadable::Foreign { job, dir: dir.clone(), why };
    let f: Facts = serde_json::from_str(&text).map_err(|e| foreign(e.to_string()))?;
    match f.format {
        FORMAT => Ok(Some(f)),
        n => Err(foreign(format!("it has form {n}, this program knows {FORMAT}"))),
    }
}

/// Every document that can be read, the one that was written last first; and why others cannot be.
pub fn all(documents: &Documents) -> (Vec<Facts>, Vec<Unreadable>) {
    let jobs = match documents.jobs() {
        Ok(jobs) => jobs,
        Err(why) => return (Vec::new(), vec![Unreadable::Io { dir: documents.dir().to_owned(), why }]),
    };
    let (mut found, mut unreadable) = (Vec::new(), Vec::new());
    for job in jobs {
        match read(documents, job) {
            Ok(f) => found.extend(f),
            Err(e) => unreadable.push(e),
        }
    }
    (found, unreadable)
}

/// How much a job has to do, if that is known.
pub fn total(documents: &Documents, f: &Facts) -> Option<Total> {
    let (others, _) = all(documents);
    let earlier: Vec<Earlier<'_>> = others
        .iter()
        .filter(|o| o.job != f.job)
        .map(|o| Earlier {
            job: o.job.clone(),
            roots: (Path::new(&o.src), Path::new(&o.dst)),
            done: (o.state == JobState::Done).then(|| o.entries()),
        })
        .collect();
    let found = of_earlier_job((Path::new(&f.src), Path::new(&f.dst)), &earlier);
    let is_here = f.host.as_deref() == Some(&host());
    let src = escape::unescape(&f.src);
    let src = Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&src));
    found.or_else(|| of_file_system(src, f.src_inode).filter(|_| is_here))
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}
