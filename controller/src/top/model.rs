//! What `top` knows, and what news and keys make of it. Pure: no clock, no terminal, no cluster.

use crate::view::{Past, View};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use treeferry_core::job::JobState;
use treeferry_core::{Failure, JobId};
use treeferry_queue::{JobRow, NodeReport, QueueRow, RunningTask, Which};

/// Samples of a job that are kept; with one a second, enough for the widest chart.
const SAMPLES: usize = 900;
/// A rate is that of this span: what is counted arrives by the task, not by the entry.
const RATE_OVER_MS: u64 = 10_000;
/// Data older than this are called old, and nothing is asked of a cluster that does not answer.
const OLD_MS: u64 = 5_000;
/// What a key has led to is shown for so long.
const NOTE_MS: u64 = 10_000;
/// A worker has heard of its new size, and says so, within this.
const HEARD_MS: u64 = 5_000;
/// The largest pool that can be asked for, as with `treeferry pool`.
const MOST_THREADS: usize = u16::MAX as usize;
/// So many rows a page key goes.
const PAGE: isize = 10;

/// What there is about the keys.
pub const HELP: [&str; 20] = [
    "q  Ctrl-C    leave; jobs go on",
    "Tab          go to the other list",
    "Up Down      choose (also k j)",
    "PgUp PgDn    ten at a time",
    "Home End     the first, the last",
    "p  r         pause, resume the chosen",
    "             job or worker",
    "P  R         pause, resume all workers",
    "+  -         a thread more, less for",
    "             the chosen worker",
    ">  <         the same for all workers",
    "c            cancel the chosen job;",
    "             it asks first",
    "Ctrl-L       draw the screen anew",
    "",
    "Tasks: of the chosen job, or of the",
    "worker while its list has the keys.",
    "Rates: of the last 10 seconds; a",
    "column of a chart is 2 seconds.",
    "Queues: held = begun, not yet settled.",
];

/// Where what is shown comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A cluster, which can be steered.
    Cluster,
    /// Processes on this machine, which can be watched.
    Local,
}

/// What threads have found out.
#[derive(Debug)]
pub enum News {
    /// Jobs and workers.
    View(View),
    /// The latest failures of a job, the newest first.
    Failures(JobId, Vec<Failure>),
    /// The queues, or why the broker does not tell.
    Queues(Result<Vec<QueueRow>, String>),
    /// What became of what was asked.
    Done(Deed, Result<(), String>),
    /// Why there is no newer view.
    Trouble(String),
}

/// What is asked of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Pause something, or resume it.
    Pause(Which, bool),
    /// Give workers so many threads.
    Pool(Vec<(String, usize)>),
    /// End a job before its time.
    Cancel(JobId),
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Deed::Pause(which, pause) => {
                f.write_str(if *pause { "pause " } else { "resume " })?;
                match which {
                    Which::All => f.write_str("every worker"),
                    Which::Job(id) => write!(f, "job {id}"),
                    Which::Workers(names) => f.write_str(&names.join(", ")),
                }
            }
            Deed::Pool(sizes) => match &sizes[..] {
                [(worker, n)] => write!(f, "{n} threads for {worker}"),
                all => {
                    let sizes: Vec<String> = all.iter().map(|(_, n)| n.to_string()).collect();
                    write!(f, "{} threads for {} workers", sizes.join(", "), all.len())
                }
            },
            Deed::Cancel(id) => write!(f, "cancel job {id}"),
        }
    }
}

/// What a key asks of the program around the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Leave.
    Quit,
    /// Draw everything anew.
    Redraw,
    /// Ask the cluster.
    Do(Deed),
}

/// Which list the keys move in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// Jobs.
    Jobs,
    /// Workers and hardlinkers.
    Workers,
}

/// What lies above everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Overlay {
    /// The keys, from this line on.
    Help(u16),
    /// Whether this job is to be cancelled.
    Cancel(JobId),
}

/// What the line at the bottom says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// In words.
    pub text: String,
    /// It is bad.
    pub is_bad: bool,
}

/// All that the screen is made of.
#[derive(Debug)]
pub struct Model {
    source: Source,
    /// In ms since 1970, as of the last [`Model::on_time`].
    now_ms: u64,
    began_ms: u64,
    view: Option<View>,
    queues: Option<(u64, Result<Vec<QueueRow>, String>)>,
    failures: Option<(JobId, Vec<Failure>)>,
    history: HashMap<JobId, VecDeque<Past>>,
    focus: Focus,
    /// `None`: whichever is first. A name and not a place: rows come and go.
    job: Option<JobId>,
    worker: Option<String>,
    overlay: Option<Overlay>,
    /// Asked, and not yet answered.
    asked: Option<Deed>,
    note: Option<(u64, Line)>,
    trouble: Option<String>,
    /// Sizes that were asked for and are perhaps not yet reported, and when.
    sizes: HashMap<String, (u64, usize)>,
}

impl Model {
    /// That knows nothing yet.
    pub fn new(source: Source, now_ms: u64) -> Model {
        Model {
            source,
            now_ms,
            began_ms: now_ms,
            view: None,
            queues: None,
            failures: None,
            history: HashMap::new(),
            focus: Focus::Jobs,
            job: None,
            worker: None,
            overlay: None,
            asked: None,
            note: None,
            trouble: None,
            sizes: HashMap::new(),
        }
    }

    // ---- what happens

    /// Lets time pass.
    pub fn on_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
    }

    /// Takes what was found out.
    pub fn on_news(&mut self, news: News) {
        match news {
            News::View(v) => self.on_view(v),
            News::Failures(id, found) => self.failures = Some((id, found)),
            News::Queues(q) => self.queues = Some((self.now_ms, q)),
            News::Trouble(why) => self.trouble = Some(why),
            News::Done(deed, result) => {
                self.asked = None;
                match result {
                    Ok(()) => self.say(format!("done: {deed}"), false),
                    Err(why) => self.say(format!("not done: {deed}: {why}"), true),
                }
            }
        }
    }

    fn on_view(&mut self, v: View) {
        self.history.retain(|id, _| v.jobs.iter().any(|j| j.id == *id));
        for j in v.jobs.iter().filter(|j| j.state == JobState::Running) {
            let past = self.history.entry(j.id).or_default();
            // a clock that was set back begins anew
            if past.back().is_some_and(|p| p.at_ms >= v.at_ms) {
                past.clear();
            }
            past.push_back(Past::of(j, v.at_ms));
            if past.len() > SAMPLES {
                past.pop_front();
            }
        }
        if !self.job.is_some_and(|id| v.jobs.iter().any(|j| j.id == id)) {
            self.job = None;
        }
        if !self.worker.as_ref().is_some_and(|w| v.nodes.iter().any(|n| n.worker == *w)) {
            self.worker = None;
        }
        self.trouble = None;
        self.view = Some(v);
    }

    /// Does what a key means.
    pub fn on_key(&mut self, key: KeyEvent) -> Option<Wish> {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Some(Wish::Quit),
            KeyCode::Char('l') if control => return Some(Wish::Redraw),
            _ if control || key.modifiers.contains(KeyModifiers::ALT) => return None,
            _ => {}
        }
        match self.overlay.take() {
            None => self.on_plain_key(key.code),
            Some(Overlay::Help(from)) => self.on_key_of_help(key.code, from),
            Some(Overlay::Cancel(id)) => match key.code {
                KeyCode::Char('y' | 'Y') => self.ask(Deed::Cancel(id)),
                _ => {
                    self.say(format!("job {id} is not cancelled"), false);
                    None
                }
            },
        }
    }

    fn on_key_of_help(&mut self, key: KeyCode, from: u16) -> Option<Wish> {
        match key {
            KeyCode::Down | KeyCode::Char('j') => {
                self.overlay = Some(Overlay::Help((from + 1).min(HELP.len() as u16 - 1)));
            }
            KeyCode::Up | KeyCode::Char('k') => self.overlay = Some(Overlay::Help(from.saturating_sub(1))),
            _ => {}
        }
        None
    }

    fn on_plain_key(&mut self, key: KeyCode) -> Option<Wish> {
        match key {
            KeyCode::Char('q') => return Some(Wish::Quit),
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.overlay = Some(Overlay::Help(0)),
            KeyCode::Tab | KeyCode::BackTab | KeyCode::Left | KeyCode::Right => {
                self.focus = match self.focus {
                    Focus::Jobs => Focus::Workers,
                    Focus::Workers => Focus::Jobs,
                }
            }
            KeyCode::Up | KeyCode::Char('k') => self.go(-1),
            KeyCode::Down | KeyCode::Char('j') => self.go(1),
            KeyCode::PageUp => self.go(-PAGE),
            KeyCode::PageDown => self.go(PAGE),
            KeyCode::Home => self.go(isize::MIN),
            KeyCode::End => self.go(isize::MAX),
            KeyCode::Char('p') => return self.pause_chosen(true),
            KeyCode::Char('r') => return self.pause_chosen(false),
            KeyCode::Char('P') => return self.ask(Deed::Pause(Which::All, true)),
            KeyCode::Char('R') => return self.ask(Deed::Pause(Which::All, false)),
            KeyCode::Char('+' | '=') => return self.resize_chosen(1),
            KeyCode::Char('-') => return self.resize_chosen(-1),
            KeyCode::Char('>') => return self.resize(None, 1),
            KeyCode::Char('<') => return self.resize(None, -1),
            KeyCode::Char('c') => self.ask_whether_to_cancel(),
            _ => {}
        }
        None
    }

    fn go(&mut self, by: isize) {
        let to = |here: Option<usize>, len: usize| {
            here.map_or(0, |h| (h as isize).saturating_add(by)).clamp(0, len.saturating_sub(1) as isize)
                as usize
        };
        match self.focus {
            Focus::Jobs => {
                let to = to(self.job_place(), self.jobs().len());
                self.job = self.jobs().get(to).map(|j| j.id);
            }
            Focus::Workers => {
                let to = to(self.worker_place(), self.nodes().len());
                self.worker = self.nodes().get(to).map(|n| n.worker.clone());
            }
        }
    }

    fn pause_chosen(&mut self, pause: bool) -> Option<Wish> {
        let which = match self.focus {
            Focus::Workers => self.worker().map(|n| Which::Workers(vec![n.worker.clone()])),
            Focus::Jobs => self.running_job().map(Which::Job),
        };
        self.ask(Deed::Pause(which?, pause))
    }

    fn resize_chosen(&mut self, by: isize) -> Option<Wish> {
        match (self.focus, self.worker()) {
            (Focus::Workers, Some(n)) => {
                let name = n.worker.clone();
                self.resize(Some(&name), by)
            }
            _ => {
                self.say("+ and - are for the chosen worker (Tab), > and < for all workers".to_owned(), true);
                None
            }
        }
    }

    /// Changes the pool of one worker, or of all, by so many threads.
    fn resize(&mut self, only: Option<&str>, by: isize) -> Option<Wish> {
        let asked = self.nodes().iter().filter(|n| only.is_none_or(|o| o == n.worker));
        let workers: Vec<&NodeReport> = asked.filter(|n| n.kind == "worker").collect();
        if workers.is_empty() {
            let none = match only {
                Some(_) => "links are made one by one: the pool of a hardlinker stays as it is",
                None => "no worker runs",
            };
            self.say(none.to_owned(), true);
            return None;
        }
        let size = |n: &NodeReport| self.wanted_size(n).saturating_add_signed(by).clamp(1, MOST_THREADS);
        let sizes: Vec<(String, usize)> = workers.iter().map(|n| (n.worker.clone(), size(n))).collect();
        let wish = self.ask(Deed::Pool(sizes.clone()));
        if wish.is_some() {
            self.sizes.extend(sizes.into_iter().map(|(w, n)| (w, (self.now_ms, n))));
        }
        wish
    }

    /// The size that a worker has, or is about to have.
    fn wanted_size(&self, n: &NodeReport) -> usize {
        let lately = |at: u64| self.now_ms.saturating_sub(at) < HEARD_MS;
        self.sizes.get(&n.worker).filter(|(at, _)| lately(*at)).map_or(n.pool, |(_, size)| *size)
    }

    fn ask_whether_to_cancel(&mut self) {
        if let Some(id) = self.running_job()
            && self.may_ask()
        {
            self.overlay = Some(Overlay::Cancel(id));
        }
    }

    /// The chosen job, if it runs; else it is said that it does not.
    fn running_job(&mut self) -> Option<JobId> {
        let (id, state) = self.job().map(|j| (j.id, j.state))?;
        if state != JobState::Running {
            self.say(format!("job {id} has ended: {}", state.name()), true);
            return None;
        }
        Some(id)
    }

    fn ask(&mut self, deed: Deed) -> Option<Wish> {
        if !self.may_ask() {
            return None;
        }
        self.asked = Some(deed.clone());
        Some(Wish::Do(deed))
    }

    /// Nothing is asked that might be done at some time when nobody thinks of it any more.
    fn may_ask(&mut self) -> bool {
        let why = match (&self.asked, self.age_ms()) {
            _ if self.source == Source::Local => {
                "a job of one process is steered by signals: 'kill -INT PID' ends it in good order".to_owned()
            }
            (Some(deed), _) => format!("not asked: there is no answer yet to: {deed}"),
            (None, None) => "not asked: nothing is known yet".to_owned(),
            (None, Some(age)) if age > OLD_MS => "not asked: the cluster does not answer".to_owned(),
            _ => return true,
        };
        self.say(why, true);
        false
    }

    fn say(&mut self, text: String, is_bad: bool) {
        self.note = Some((self.now_ms, Line { text, is_bad }));
    }

    // ---- what is shown

    /// Where it comes from.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Which list the keys move in.
    pub fn focus(&self) -> Focus {
        self.focus
    }

    /// What lies above everything.
    pub fn overlay(&self) -> Option<&Overlay> {
        self.overlay.as_ref()
    }

    /// The last view; `None`: there was none yet.
    pub fn view(&self) -> Option<&View> {
        self.view.as_ref()
    }

    /// All jobs.
    pub fn jobs(&self) -> &[JobRow] {
        self.view.as_ref().map_or(&[], |v| &v.jobs)
    }

    /// All workers and hardlinkers.
    pub fn nodes(&self) -> &[NodeReport] {
        self.view.as_ref().map_or(&[], |v| &v.nodes)
    }

    /// Where in the list the chosen job is.
    pub fn job_place(&self) -> Option<usize> {
        let first = (!self.jobs().is_empty()).then_some(0);
        self.job.and_then(|id| self.jobs().iter().position(|j| j.id == id)).or(first)
    }

    /// Where in the list the chosen worker is.
    pub fn worker_place(&self) -> Option<usize> {
        let first = (!self.nodes().is_empty()).then_some(0);
        let chosen = self.worker.as_ref();
        chosen.and_then(|w| self.nodes().iter().position(|n| n.worker == *w)).or(first)
    }

    /// The chosen job.
    pub fn job(&self) -> Option<&JobRow> {
        self.jobs().get(self.job_place()?)
    }

    /// The chosen worker.
    pub fn worker(&self) -> Option<&NodeReport> {
        self.nodes().get(self.worker_place()?)
    }

    /// What runs, the longest first: of the chosen worker or of the chosen job, whichever list has the keys.
    pub fn tasks(&self) -> Vec<(&NodeReport, &RunningTask)> {
        let job = self.job().map(|j| j.id.to_string());
        let worker = self.worker().map(|n| &n.worker);
        let all = self.nodes().iter().flat_map(|n| n.tasks.iter().map(move |t| (n, t)));
        let mut tasks: Vec<_> = match self.focus {
            Focus::Jobs => all.filter(|(_, t)| Some(&t.job) == job.as_ref()).collect(),
            Focus::Workers => all.filter(|(n, _)| Some(&n.worker) == worker).collect(),
        };
        tasks.sort_by_key(|(_, t)| std::cmp::Reverse(t.age_ms));
        tasks
    }

    /// The latest failures of the chosen job, the newest first.
    pub fn failures(&self) -> &[Failure] {
        let chosen = self.job().map(|j| j.id);
        self.failures.as_ref().filter(|(id, _)| Some(*id) == chosen).map_or(&[], |(_, f)| f)
    }

    /// The queues, and how old that is in ms; `None`: nothing was heard yet.
    pub fn queues(&self) -> Option<(u64, &Result<Vec<QueueRow>, String>)> {
        self.queues.as_ref().map(|(at, q)| (self.now_ms.saturating_sub(*at), q))
    }

    /// Entries and bytes a second of a job: of the last seconds while it runs, else of the whole.
    pub fn rates(&self, j: &JobRow) -> (f64, f64) {
        let at_ms = self.view.as_ref().map_or(self.now_ms, |v| v.at_ms);
        let recent = |p: &&Past| p.at_ms + RATE_OVER_MS >= at_ms;
        let past = self.history.get(&j.id).filter(|_| j.state == JobState::Running);
        let then = past.and_then(|h| h.iter().find(recent)).filter(|p| p.at_ms < at_ms).copied();
        crate::view::rates(j, at_ms, then)
    }

    /// What happened in each of the last `columns` steps of time, the newest last, as a rate a second; fewer where
    /// the past is not known.
    pub fn chart(&self, id: JobId, columns: usize, step_ms: u64, of: fn(&Past) -> u64) -> Vec<u64> {
        let Some(past) = self.history.get(&id) else { return Vec::new() };
        let (Some(first), Some(last)) = (past.front(), past.back()) else { return Vec::new() };
        // steps are counted from 1970, so that a bar moves and does not change its height while it does
        let end = last.at_ms / step_ms;
        let begin = (first.at_ms.div_ceil(step_ms)).max(end.saturating_sub(columns as u64));
        let edges: Vec<f64> = (begin..=end).map(|n| counted(past, n * step_ms, of)).collect();
        let rate = |w: &[f64]| ((w[1] - w[0]).max(0.0) * 1000.0 / step_ms as f64).round() as u64;
        edges.windows(2).map(rate).collect()
    }

    /// How old the view is, in ms.
    pub fn age_ms(&self) -> Option<u64> {
        self.view.as_ref().map(|v| self.now_ms.saturating_sub(v.at_ms))
    }

    /// Whether the view is older than it should be, or not there though it should be.
    pub fn is_old(&self) -> bool {
        self.age_ms().unwrap_or(self.now_ms.saturating_sub(self.began_ms)) > OLD_MS
    }

    /// Why there is no view at all; `None`: there is, or nobody has failed yet.
    pub fn never(&self) -> Option<&str> {
        self.trouble.as_deref().filter(|_| self.view.is_none())
    }

    /// What was asked and not answered.
    pub fn asked(&self) -> Option<&Deed> {
        self.asked.as_ref()
    }

    /// What the line at the bottom says: what a key has led to, else what is wrong.
    pub fn line(&self) -> Option<Line> {
        let bad = |text| Some(Line { text, is_bad: true });
        let fresh = |at: u64| self.now_ms.saturating_sub(at) < NOTE_MS;
        if let Some((_, line)) = self.note.as_ref().filter(|(at, _)| fresh(*at)) {
            return Some(line.clone());
        }
        if let Some(deed) = &self.asked {
            return Some(Line { text: format!("asked, not yet answered: {deed}"), is_bad: self.is_old() });
        }
        if let Some(why) = &self.trouble {
            return bad(why.clone());
        }
        match &self.view {
            Some(_) if self.is_old() => bad(match self.source {
                Source::Cluster => "the cluster does not answer".to_owned(),
                Source::Local => "nothing was heard for a while".to_owned(),
            }),
            None if self.source == Source::Cluster => {
                Some(Line { text: "asking the cluster ...".to_owned(), is_bad: self.is_old() })
            }
            _ => None,
        }
    }
}

/// What was counted at a moment between samples, as if it had grown evenly.
fn counted(past: &VecDeque<Past>, at_ms: u64, of: fn(&Past) -> u64) -> f64 {
    let after = past.partition_point(|p| p.at_ms < at_ms);
    match (after.checked_sub(1).and_then(|i| past.get(i)), past.get(after)) {
        (Some(a), Some(b)) => {
            let share = (at_ms - a.at_ms) as f64 / (b.at_ms - a.at_ms).max(1) as f64;
            of(a) as f64 + (of(b) as f64 - of(a) as f64) * share
        }
        (Some(p), None) | (None, Some(p)) => of(p) as f64,
        (None, None) => 0.0,
    }
}

#[cfg(test)]
pub(super) mod tests;
