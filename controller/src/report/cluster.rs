//! What the ledger of a cluster knows of a job.

use super::data::{Engine, FORMAT, Facts, FailureRow, NodeShare, TaskRow, Total, subtrees};
use super::total::{Earlier, of_earlier_job, of_file_system};
use treeferry_core::job::JobState;
use treeferry_core::{Failure, JobId, escape};
use treeferry_queue::{Control, JobRow, LedgerError};

/// Failures that are read at once.
const AT_ONCE: usize = 10_000;

/// All that is known of a job; `None`: the ledger does not know it.
pub fn facts(control: &Control, id: JobId) -> Result<Option<Facts>, LedgerError> {
    let Some(row) = control.job(id)? else { return Ok(None) };
    let record = control.record(id)?;
    let mut f = Facts::of_row(&row, record.map_or(0, |r| r.roots.0));
    f.take_figures(&control.figures(id)?);
    f.history = control.history(id)?;
    f.unfinished = subtrees(&control.unfinished(id)?);
    let shares = control.shares(id)?;
    f.nodes = shares.into_iter().map(|(node, counters)| NodeShare { node, counters }).collect();
    if row.state == JobState::Running {
        let (mut running, job) = (Vec::new(), id.to_string());
        for n in control.nodes()? {
            let mine = n.tasks.into_iter().filter(|t| t.job == job);
            running.extend(mine.map(|t| TaskRow {
                work: t.work,
                path: t.path,
                seconds: t.age_ms as f64 / 1000.0,
                worker: Some(n.worker.clone()),
            }));
        }
        running.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        f.running = running;
    }
    Ok(Some(f))
}

/// How much a job has to do, if that is known.
pub fn total(control: &Control, id: JobId, src_inode: u64) -> Result<Option<Total>, LedgerError> {
    let all = control.jobs()?;
    let Some(me) = all.iter().find(|j| j.id == id) else { return Ok(None) };
    let earlier: Vec<Earlier<'_>> = all
        .iter()
        .filter(|j| j.id != id)
        .map(|j| Earlier {
            job: j.id.to_string(),
            roots: (&j.spec.src, &j.spec.dst),
            done: (j.state == JobState::Done).then_some(j.counters.files + j.counters.dirs),
        })
        .collect();
    let found = of_earlier_job((&me.spec.src, &me.spec.dst), &earlier);
    Ok(found.or_else(|| of_file_system(&me.spec.src, src_inode)))
}

/// Hands over every failure of a job, in pieces, in the order in which they happened.
pub fn each_failure(
    control: &Control,
    id: JobId,
    mut some: impl FnMut(Vec<FailureRow>),
) -> Result<(), LedgerError> {
    let mut from = 0;
    loop {
        let part: Vec<Failure> = control.failures(id, from, AT_ONCE)?;
        let n = part.len();
        some(part.iter().map(FailureRow::from).collect());
        from += n;
        if n < AT_ONCE {
            return Ok(());
        }
    }
}

impl Facts {
    /// What the list of jobs says of one.
    pub fn of_row(row: &JobRow, src_inode: u64) -> Facts {
        let shown = |p: &std::path::Path| escape::bytes(p.as_os_str().as_encoded_bytes()).to_string();
        Facts {
            format: FORMAT,
            job: row.id.to_string(),
            engine: Engine::Cluster,
            host: None,
            state: row.state,
            paused: row.paused,
            error: row.why.clone(),
            src: shown(&row.spec.src),
            src_inode,
            dst: shown(&row.spec.dst),
            passes: row.spec.passes.names().into_iter().map(str::to_owned).collect(),
            dry_run: row.spec.dry_run,
            began_ms: row.created_ms,
            ended_ms: row.ended_ms,
            seen_ms: Control::now_ms(),
            outstanding: row.outstanding,
            counters: row.counters.iter().map(|(name, n)| (name.to_owned(), n)).collect(),
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
        }
    }
}
