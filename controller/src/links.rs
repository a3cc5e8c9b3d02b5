//! Puts the hardlinker into the pool of this process. Worker and hardlinker do not know each other; who hosts
//! both introduces them here.

use std::ffi::CStr;
use std::sync::Arc;
use treeferry_core::{JoinId, Outcome, RelPath, Task};
use treeferry_fs::{Meta, Root, TempNames};
use treeferry_hardlinker::{Hardlinker, LinkJob};
use treeferry_queue::Registry;
use treeferry_worker::{Job, RunLinks};

/// A hardlinker for an open job.
pub fn linker(job: &Arc<Job>) -> Box<dyn RunLinks> {
    Box::new(Links(Hardlinker::new(Arc::new(Open(Arc::clone(job))))))
}

struct Links(Hardlinker);

impl RunLinks for Links {
    fn run(&self, task: &Task, registry: &Registry) -> Outcome {
        self.0.run(task, registry)
    }
}

/// What the hardlinker may know of a job.
struct Open(Arc<Job>);

impl LinkJob for Open {
    fn target(&self) -> Option<&Root> {
        self.0.target()
    }
    fn temp_names(&self) -> &TempNames {
        self.0.temp_names()
    }
    fn dry_run(&self) -> bool {
        self.0.spec().dry_run
    }
    fn itemize(&self) -> bool {
        self.0.spec().itemize
    }
    fn tells_entries(&self) -> bool {
        self.0.spec().tells_entries()
    }
    fn may_clear(&self) -> bool {
        self.0.spec().passes.delete || self.0.spec().force
    }
    fn is_protected(&self, dir: &RelPath, name: &CStr, is_dir: bool) -> bool {
        self.0.is_protected(dir, name, is_dir)
    }
    fn was_linked(&self, path: &RelPath) {
        self.0.was_linked(path);
    }
    fn counts_deletions(&self) -> bool {
        self.0.counts_deletions()
    }
    fn target_id(&self, m: &Meta) -> (u64, u64) {
        self.0.target_id(m)
    }
    fn new_join(&self) -> JoinId {
        self.0.new_join()
    }
}
