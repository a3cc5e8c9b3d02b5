//! One thread's tools, and the way from a task to the function that runs it.

use crate::dir::Dir;
use crate::job::Job;
use crate::mirror::Seen;
use crate::trouble::{Res, Trouble, Verdict};
use crate::xattrs::Buffers;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use treeferry_core::event;
use treeferry_core::{Change, Event, Fresh, Item, NewTask, Outcome, RelPath, Severity, Task, Work};
use treeferry_fs::copy::{BUFFER_BYTES, Meter};
use treeferry_fs::{Lister, fault};
use treeferry_queue::Registry;

/// What a pass function may ask of whoever runs it.
pub(crate) trait Sink {
    /// Gives away what was found so far, so that others can begin with it. `instead`: what is to be run in the place
    /// of this task, should it not come to its end. Only where that can be said does a crash repeat nothing, and may
    /// others on other nodes begin at once.
    fn flush(&mut self, out: &mut Outcome, instead: Option<Work>);
    /// Tells those who watch what was done so far, where that has become much. The ledger hears nothing of it.
    fn tell(&mut self, out: &mut Outcome);
    /// For how many threads that have nothing to do the task should hand the rest of its work back, `left` names.
    fn yields(&self, left: usize) -> usize;
    /// Whether so much is queued that a walker should rather go on by itself.
    fn pressed(&self) -> bool;
    /// Whether somebody has nothing to do.
    fn hungry(&self) -> bool;
}

/// One thread's tools: buffers that are used again and again.
pub(crate) struct Worker {
    pub job: Arc<Job>,
    pub registry: Registry,
    pub src_lister: Lister,
    pub dst_lister: Lister,
    pub buf: Vec<u8>,
    pub bufs: Buffers,
    /// How long a file takes, as of late.
    pub pace: Option<Duration>,
    /// It does what events ask for, and not a walk of everything.
    pub follows: bool,
    /// What was last looked at in the source.
    pub looked: Option<Seen>,
    /// It has several names.
    pub several: bool,
    /// It has several names, each of which is a file of its own at the target.
    pub apart: Option<treeferry_core::GroupKey>,
    /// A file that is looked at may be another than it was: what it has in it is compared.
    pub closely: bool,
    /// Tickets of a mirror for which all is done.
    pub settled: Vec<u64>,
}

impl Worker {
    pub fn new(job: &Arc<Job>, registry: &Registry, follows: bool) -> Worker {
        Worker {
            job: Arc::clone(job),
            registry: registry.clone(),
            src_lister: Lister::default(),
            dst_lister: Lister::default(),
            buf: vec![0; BUFFER_BYTES],
            bufs: Buffers::default(),
            pace: None,
            follows,
            looked: None,
            several: false,
            apart: None,
            closely: false,
            settled: Vec::new(),
        }
    }

    /// Runs a task. Links are the hardlinker's.
    pub fn run(&mut self, task: &Task, sink: &mut dyn Sink) -> Outcome {
        let mut out = Outcome::default();
        self.at(task.work.path());
        let r = self.ours().and_then(|()| self.run_work(task, sink, &mut out));
        if let Err(t) = r {
            self.task_trouble(task, t, &mut out);
        }
        out
    }

    fn run_work(&mut self, task: &Task, sink: &mut dyn Sink, out: &mut Outcome) -> Res<()> {
        match &task.work {
            Work::Walk { path, fresh, resume } => self.walk(task, path, *fresh, resume.as_deref(), sink, out),
            Work::Files { dir, fresh, names } => self.files(task, dir, *fresh, names, sink, out),
            Work::FinishDir { path, listed, fresh, mode } => {
                self.finish_dir(task, path, *listed, *fresh, *mode, sink, out)
            }
            Work::Chunk { file, offset, len } => self.chunk(task, file, *offset, *len, out),
            Work::Publish { file, chunks } => self.publish(task, file, *chunks, out),
            Work::Remove { path } => self.remove(task, path, sink, out),
            Work::RemoveNames { dir, names } => self.remove_names(dir, names, out),
            Work::RemoveDir { path, above } => self.remove_dirs(path, *above, out),
            Work::Look { dir, names, ticket } => self.look(task, dir, names, *ticket, out),
            Work::Move { from, to, ticket } => self.move_entry(from, to, *ticket, out),
            Work::Names { dir, ticket } => self.compare_names(task, dir, *ticket, out),
            Work::Link { .. } => Ok(()),
        }
    }

    /// Does something that is tried again as a whole if it fails in a way that may pass: what such an attempt has
    /// counted and named is forgotten with it, so that everything is counted and named once.
    pub fn once<T>(
        &mut self,
        attempt: u8,
        out: &mut Outcome,
        f: impl FnOnce(&mut Worker, &mut Outcome) -> Res<T>,
    ) -> Res<T> {
        let mut tried = Outcome::default();
        let r = f(self, &mut tried);
        if !matches!(&r, Err(t) if t.verdict(attempt) == Verdict::Retry) {
            out.absorb(tried);
        }
        r
    }

    /// A task that could not even begin, its directory not being openable: tried again as a whole, or named.
    /// Only tasks that have opened no join and counted nothing end here.
    fn task_trouble(&mut self, task: &Task, t: Trouble, out: &mut Outcome) {
        match t.verdict(task.attempt) {
            Verdict::Retry => {
                out.counters.retried += 1;
                self.count_files(task, out);
                out.later.push(NewTask {
                    join: task.join,
                    attempt: task.attempt + 1,
                    work: task.work.clone(),
                });
            }
            Verdict::Vanished if task.work.path().is_root() => {
                let e = treeferry_core::Failure::finding(
                    RelPath::root(),
                    treeferry_core::Side::Source,
                    "openat2",
                    "SRC is gone",
                );
                out.fail(e);
            }
            Verdict::Drop => {}
            _ if self.is_deferred(&t, || task.work.path().clone()) => self.settle(ticket_of(&task.work)),
            _ => match &task.work {
                Work::Files { dir, names, .. } => {
                    self.count_files(task, out);
                    for (name, _) in names.iter() {
                        t.clone().record(|| dir.child(name), out);
                    }
                }
                work => {
                    t.record(|| work.path().clone(), out);
                    self.settle(ticket_of(work));
                }
            },
        }
    }

    /// Counts the files of a batch that could not be begun: each counts once, however often it is tried.
    fn count_files(&self, task: &Task, out: &mut Outcome) {
        if let (Work::Files { names, .. }, 0) = (&task.work, task.attempt) {
            out.counters.files += names.iter().filter(|n| n.1 == treeferry_core::Kind::File).count() as u64;
        }
    }

    /// Asked before each step that touches the target. An error: the task is another's by now, who may have ended it, and
    /// what came after it.
    #[inline]
    pub fn ours(&self) -> Res<()> {
        if self.registry.is_mine() { Ok(()) } else { Err(Trouble::Stopped) }
    }

    /// The same between two names of a task, where the job may stop, too.
    #[inline]
    pub fn go_on(&self) -> Res<()> {
        if self.job.stop.is_set() { Err(Trouble::Stopped) } else { self.ours() }
    }

    /// Tells the failure injection where we are.
    #[inline]
    pub fn at(&self, path: &RelPath) {
        if fault::armed() {
            fault::at(path.as_bytes());
        }
    }

    /// Notes a change, if anybody wants to know.
    #[inline]
    pub fn note(&self, item: Item, path: impl FnOnce() -> RelPath, out: &mut Outcome) {
        if self.notes() {
            self.note_copy(item, path(), None, None, out);
        }
    }

    /// Whether anybody wants to know of changes.
    #[inline]
    pub fn notes(&self) -> bool {
        self.job.spec.itemize || self.job.spec.tells_entries()
    }
    /// Notes a change with what it took: bytes of content, and the time since it was begun.
    pub fn note_copy(
        &self,
        item: Item,
        path: RelPath,
        bytes: Option<u64>,
        began: Option<Instant>,
        out: &mut Outcome,
    ) {
        let spec = &self.job.spec;
        if spec.itemize {
            out.changes.push(Change { item, path: path.clone() });
        }
        if spec.tells_entries() {
            let time_us = event::micros(SystemTime::now());
            let took = began.map(|b| b.elapsed());
            out.events.push(Event { time_us, bytes, took, ..Event::change(item, path) });
        }
    }

    /// Notes that an entry is left alone, if anybody wants to know.
    #[inline]
    pub fn note_skipped(&self, why: &'static str, path: impl FnOnce() -> RelPath, out: &mut Outcome) {
        out.counters.skipped += 1;
        if self.job.spec.log_level <= Severity::Debug {
            out.events.push(Event::skipped(path(), why));
        }
    }

    /// The child task for names of a directory that have to be tried again.
    pub fn again(&self, dir: &Dir, name: &std::ffi::CStr, attempt: u8, out: &mut Outcome) -> NewTask {
        let names = treeferry_core::Names::one(name, treeferry_core::Kind::Unknown);
        let join = Some(dir.join(&self.job, out));
        NewTask { join, attempt, work: Work::Files { dir: dir.path.clone(), fresh: Fresh::No, names } }
    }
}

/// What is told when a task of a mirror and all that it leads to is done.
fn ticket_of(work: &Work) -> u64 {
    match work {
        Work::Look { ticket, .. } | Work::Move { ticket, .. } | Work::Names { ticket, .. } => *ticket,
        _ => 0,
    }
}

/// Obeys limits and stops, and keeps the live count of bytes.
pub(crate) struct Flow<'a>(pub &'a Job);

impl Meter for Flow<'_> {
    fn step(&mut self, bytes: u64) -> bool {
        self.0.limit.ops(1);
        self.0.limit.bytes(bytes);
        self.0.add_live(0, bytes);
        !self.0.stop.is_set()
    }

    fn largest_step(&self) -> u64 {
        self.0.limit.step_bytes()
    }
}
