//! Asks the cluster, in threads of its own: ledger and broker may take as long as they like, and keys are heard all the
//! same. What is to be done of a cluster is asked by the thread that looks at the ledger.

use super::model::{Deed, News};
use crate::commands::control::must_run;
use crate::nearby;
use crate::view::{View, Which};
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;
use treeferry_core::JobId;
use treeferry_queue::{Control, JobRow, LedgerError, Site, Which as Whom};

/// Between two looks at the ledger: workers speak once a second.
const LEDGER_EVERY: Duration = Duration::from_secs(1);
/// Between two looks at the broker; each is a connection, and a line in its log.
const BROKER_EVERY: Duration = Duration::from_secs(5);
/// Jobs that have ended, and are shown all the same.
const RECENT: usize = 20;
/// So many failures of the chosen job are asked for: what the tallest screen shows.
const FAILURES: usize = 50;

/// What is wanted of the thread.
#[derive(Debug)]
pub enum Order {
    /// The failures of this job, from now on.
    Choose(Option<JobId>),
    /// Steer the cluster.
    Do(Deed),
}

/// Starts the threads. They end with their channels, or with the process.
pub fn start(site: &Site, news: &Sender<News>) -> std::io::Result<Sender<Order>> {
    let (orders, taken) = channel();
    let (to, at) = (news.clone(), site.clone());
    std::thread::Builder::new().name("ledger".into()).spawn(move || ask_ledger(&at, &taken, &to))?;
    let (to, at) = (news.clone(), site.clone());
    std::thread::Builder::new().name("broker".into()).spawn(move || ask_broker(&at, &to))?;
    Ok(orders)
}

/// Starts a thread that looks for jobs of this machine.
pub fn start_here(news: &Sender<News>) -> std::io::Result<Sender<Order>> {
    let (orders, taken) = channel();
    let to = news.clone();
    std::thread::Builder::new().name("nearby".into()).spawn(move || ask_neighbours(&taken, &to))?;
    Ok(orders)
}

fn ask_neighbours(orders: &Receiver<Order>, news: &Sender<News>) {
    let mut chosen = None;
    loop {
        match nearby::look() {
            Ok(all) => {
                let _ = news.send(News::View(all.view(Control::now_ms(), Which::Recent(0))));
                if let Some(f) = all.found.into_iter().find(|f| Some(f.job.id) == chosen) {
                    let _ = news.send(News::Failures(f.job.id, f.failures));
                }
                for t in all.trouble {
                    let _ = news.send(News::Trouble(t));
                }
            }
            Err(e) => drop(news.send(News::Trouble(e.to_string()))),
        }
        match orders.recv_timeout(LEDGER_EVERY) {
            Ok(Order::Choose(job)) => chosen = job,
            Ok(Order::Do(deed)) => {
                let _ = news.send(News::Done(deed, Err("there is no cluster".to_owned())));
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn ask_ledger(site: &Site, orders: &Receiver<Order>, news: &Sender<News>) {
    let (mut control, mut known, mut chosen) = (None, Vec::new(), None);
    loop {
        if control.is_none() {
            match Control::connect(site) {
                Ok(c) => control = Some(c),
                Err(e) => drop(news.send(News::Trouble(e.to_string()))),
            }
        }
        if let Some(c) = &control
            && let Err(e) = look(c, &mut known, chosen, news)
        {
            let _ = news.send(News::Trouble(e.to_string()));
        }
        let mut order = match orders.recv_timeout(LEDGER_EVERY) {
            Ok(order) => Some(order),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // one look answers all that was asked meanwhile
        while let Some(o) = order {
            match o {
                Order::Choose(job) => chosen = job,
                Order::Do(deed) => {
                    let done = match &control {
                        Some(c) => carry_out(c, &deed),
                        None => Err("the ledger cannot be reached".to_owned()),
                    };
                    let _ = news.send(News::Done(deed, done));
                }
            }
            order = orders.try_recv().ok();
        }
    }
}

fn look(
    c: &Control,
    known: &mut Vec<JobRow>,
    chosen: Option<JobId>,
    news: &Sender<News>,
) -> Result<(), LedgerError> {
    *known = c.jobs_anew(std::mem::take(known))?;
    let (mut all, mut mirrors, mut failing) = (Vec::new(), HashMap::new(), HashMap::new());
    for found in nearby::mirrors(c)? {
        let id = found.job.id;
        all.push(found.job);
        mirrors.extend(found.mirror.map(|m| (id, m)));
        failing.insert(id, found.failures);
    }
    all.extend_from_slice(known);
    let view = View::new(all, c.nodes()?, Control::now_ms(), Which::Recent(RECENT)).with(mirrors);
    let _ = news.send(News::View(view));
    if let Some(id) = chosen {
        let latest = match failing.remove(&id) {
            Some(of_mirror) => of_mirror,
            None => c.latest_failures(id, FAILURES)?,
        };
        let _ = news.send(News::Failures(id, latest));
    }
    Ok(())
}

fn carry_out(c: &Control, deed: &Deed) -> Result<(), String> {
    let said = |e: LedgerError| e.to_string();
    match deed {
        Deed::Pause(whom, pause) => {
            if let Whom::Job(id) = whom {
                must_run(c, *id).map_err(|e| e.to_string())?;
            }
            c.pause(whom, *pause).map_err(said)
        }
        Deed::Pool(sizes) => {
            sizes.iter().try_for_each(|(w, n)| c.set_pool(std::slice::from_ref(w), *n)).map_err(said)
        }
        Deed::Cancel(id) => {
            must_run(c, *id).map_err(|e| e.to_string())?;
            match c.cancel(*id) {
                Ok(true) => Ok(()),
                Ok(false) => Err("it has ended".to_owned()),
                Err(e) => Err(said(e)),
            }
        }
    }
}

fn ask_broker(site: &Site, news: &Sender<News>) {
    let mut control = None;
    loop {
        if control.is_none() {
            // that the ledger cannot be reached the other thread says
            control = Control::connect(site).ok();
        }
        if let Some(c) = &control
            && news.send(News::Queues(c.queues())).is_err()
        {
            return;
        }
        std::thread::sleep(BROKER_EVERY);
    }
}
