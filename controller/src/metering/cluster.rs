//! A process of the cluster: what the ledger has counted for its node, its own threads, and, if it is the one that
//! speaks for all, what belongs to no node or to a dead one.

use super::{
    CMOVER_COUNTERS, Increments, Tasks, cmover_queues, counted, gauge, now_s, of_process, outstanding,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;
use treeferry_core::job::JobState;
use treeferry_core::{JobId, PassSet};
use treeferry_queue::{JobReading, LedgerError, Node};
use treeferry_service::metrics::{Meter, Metrics, Sample, table};

/// For so many intervals a job is told of after its end: whoever speaks for all may have died with it.
const AFTER_END: u32 = 6;

/// What this process tells of the tasks of its jobs.
#[derive(Default)]
pub struct AllTasks(Mutex<BTreeMap<JobId, Arc<Tasks>>>);

impl AllTasks {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<JobId, Arc<Tasks>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those of a job.
    pub fn of(&self, id: JobId) -> Arc<Tasks> {
        Arc::clone(self.lock().entry(id).or_default())
    }
}

/// A process that only waits for a job.
pub const CONTROLLER: &str = "controller";

/// Threads, and those at work.
pub type Load = Box<dyn Fn() -> Option<(usize, usize)> + Send>;

/// Tells from now on. `process`: worker, hardlinker or [`CONTROLLER`].
pub fn start(
    metrics: &Arc<Metrics>,
    node: &Arc<Node>,
    process: &'static str,
    tasks: &Arc<AllTasks>,
    load: Load,
) -> Meter {
    let mut teller = Teller {
        // weak: a node ends when nobody works with it any more
        node: Arc::downgrade(node),
        metrics: Arc::clone(metrics),
        process,
        tasks: Arc::clone(tasks),
        works: process != CONTROLLER,
        load,
        jobs: HashMap::new(),
        over: BTreeSet::new(),
        said: false,
    };
    Meter::start(metrics, move || teller.reading())
}

struct Teller {
    node: Weak<Node>,
    metrics: Arc<Metrics>,
    process: &'static str,
    tasks: Arc<AllTasks>,
    /// It has threads that work for jobs.
    works: bool,
    load: Load,
    /// Jobs that are told of: their passes, and when they were first seen to have ended.
    jobs: HashMap<JobId, (PassSet, Option<Instant>)>,
    /// Jobs that are told of no more.
    over: BTreeSet<JobId>,
    /// That the ledger does not answer was said.
    said: bool,
}

impl Teller {
    fn reading(&mut self) -> Vec<Sample> {
        let Some(node) = self.node.upgrade() else { return Vec::new() };
        let mut all = self.of_this_process(&node);
        match self.of_jobs(&node) {
            Ok(more) => {
                self.said = false;
                all.extend(more);
            }
            Err(e) if !self.said => {
                self.said = true;
                tracing::warn!("metrics of jobs pause: {e}");
            }
            Err(_) => {}
        }
        all
    }

    fn of_this_process(&self, node: &Node) -> Vec<Sample> {
        let (at, host) = (now_s(), node.name());
        let mut all = Vec::new();
        if let Some(load) = (self.load)() {
            all = of_process(host, self.process, load, self.metrics.dropped(), at);
            let labels = vec![("host", host.to_owned()), ("process", self.process.to_owned())];
            all.push(gauge(&table::UNACKED, labels, node.unacked().values().sum(), at));
        }
        for (id, tasks) in self.tasks.lock().iter() {
            all.extend(tasks.take(*id, host, at));
        }
        all
    }

    fn of_jobs(&mut self, node: &Node) -> Result<Vec<Sample>, LedgerError> {
        let leads = node.leads();
        self.take_up_new_jobs(node)?;
        let living = if leads { node.living()? } else { BTreeSet::new() };
        let mut all = Vec::new();
        let (mut running, mut by_host) = (Vec::new(), BTreeMap::<String, Increments>::new());
        let cmover_names = self.metrics.settings().cmover_queues.clone();
        let interval = self.metrics.settings().interval;
        let ids: Vec<JobId> = self.jobs.keys().copied().collect();
        for id in ids {
            // who does no work has counted nothing
            if !leads && !self.works {
                continue;
            }
            let Some(now) = node.reading(id, leads)? else {
                self.end(id);
                continue;
            };
            let Some((passes, ended)) = self.jobs.get_mut(&id) else { continue };
            let passes = *passes;
            let is_over = now.state != JobState::Running;
            all.extend(of_job(&now, |name| {
                !leads || is_over || name == node.name() || !living.contains(name)
            }));
            if leads {
                all.push(outstanding(id, now.at_ms / 1000, if is_over { 0 } else { now.outstanding }));
            }
            if leads && cmover_names.is_some() {
                let (at_ms, nodes) = node.told(id, interval, &CMOVER_COUNTERS)?;
                for (host, numbers) in nodes {
                    let news = by_host.entry(host).or_default();
                    news.at = at_ms / 1000;
                    news.add(passes, &numbers);
                }
            }
            match (is_over, *ended) {
                (false, _) => running.push(passes),
                (true, None) => *ended = Some(Instant::now()),
                (true, Some(at)) if at.elapsed() > interval * AFTER_END => self.end(id),
                (true, Some(_)) => {}
            }
        }
        all.extend(by_host.iter().flat_map(|(host, news)| news.samples(host)));
        if leads {
            all.extend(of_queues(node, &running, cmover_names.as_deref()));
        }
        Ok(all)
    }

    fn take_up_new_jobs(&mut self, node: &Node) -> Result<(), LedgerError> {
        let known = node.known_jobs();
        self.over.retain(|id| known.contains(id));
        for id in known {
            if !self.jobs.contains_key(&id) && !self.over.contains(&id) {
                match node.passes(id)? {
                    Some(passes) => drop(self.jobs.insert(id, (passes, None))),
                    None => self.end(id),
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, id: JobId) {
        self.jobs.remove(&id);
        self.over.insert(id);
        self.tasks.lock().remove(&id);
    }
}

fn of_job(now: &JobReading, tells: impl Fn(&str) -> bool) -> Vec<Sample> {
    let nodes = now.nodes.iter().filter(|n| tells(&n.node));
    nodes
        .flat_map(|n| {
            let by_errno = n.failures_by_errno.iter().map(|(class, n)| (class.as_str(), *n));
            counted(now.id, &n.node, now.at_ms / 1000, &n.counters, by_errno)
        })
        .collect()
}

fn of_queues(node: &Node, running: &[PassSet], cmover_names: Option<&str>) -> Vec<Sample> {
    let (depths, at) = (node.depths(), now_s());
    let mut all = Vec::new();
    for (name, ready, consumers) in &depths {
        let queue = name.rsplit('.').next().unwrap_or(name);
        let labels = || vec![("queue", queue.to_owned())];
        all.push(gauge(&table::READY, labels(), (*ready).into(), at));
        all.push(gauge(&table::CONSUMERS, labels(), (*consumers).into(), at));
    }
    if let Some(queues) = cmover_names.filter(|_| !depths.is_empty()) {
        let ready =
            |queue: &str| depths.iter().find(|(n, ..)| *n == queue).map_or(0, |(_, n, _)| (*n).into());
        all.extend(cmover_queues(queues, at, running, ready("treeferry.walk"), ready("treeferry.copy")));
    }
    all
}
