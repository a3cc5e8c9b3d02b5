//! The screen: a model in, characters out. Pure, so that tests can read what it would show.

use super::look::Look;
use super::model::{Focus, HELP, Model, Overlay, Source};
use crate::output::{grouped, took};
use crate::view::{Past, entries, eta_s, mirror_figures, shown, state_of, state_of_node};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Clear, RenderDirection, Sparkline, Widget};
use treeferry_core::JobId;
use treeferry_core::job::JobState;
use treeferry_core::units::show_size;
use treeferry_queue::{JobRow, NodeReport, QueueRow};

/// From this size on everything has its place.
pub const FULL: (u16, u16) = (80, 24);
/// Columns of the queues.
const QUEUES: u16 = 41;
/// One column of a chart is so much time: tasks report every second or so, and a bar is to have some of them.
const STEP_MS: u64 = 2_000;
/// Queues are asked for every 5 s; older ones are called old.
const QUEUES_OLD_MS: u64 = 15_000;
/// A worker speaks once a second; one that is silent for so long is called silent.
const SILENT_MS: u64 = 5_000;

/// Draws everything.
pub fn draw(m: &Model, look: Look, area: Rect, buf: &mut Buffer) {
    let mut page = Page { m, look, buf, area };
    if area.width >= FULL.0 && area.height >= FULL.1 {
        page.full();
    } else {
        page.small();
    }
    match m.overlay() {
        Some(Overlay::Help(from)) => page.help(*from),
        Some(Overlay::Cancel(id)) => page.confirm(*id),
        None => {}
    }
}

struct Page<'a> {
    m: &'a Model,
    look: Look,
    buf: &'a mut Buffer,
    area: Rect,
}

impl Page<'_> {
    // ---- small pieces

    /// Writes into columns `x..x + width` of line `y`, as far as they are there.
    fn put(&mut self, x: u16, y: u16, width: u16, text: &str, style: Style) {
        let (x, y) = (self.area.x + x, self.area.y + y);
        if x < self.area.right() && y < self.area.bottom() {
            self.buf.set_stringn(x, y, text, usize::from(width.min(self.area.right() - x)), style);
        }
    }

    fn line(&mut self, y: u16, text: &str, style: Style) {
        self.put(0, y, self.area.width, text, style);
    }

    /// A line over the whole width, blanks included.
    fn band(&mut self, y: u16, left: &str, right: &str, style: Style) {
        let width = usize::from(self.area.width);
        let right = self.look.head(right, width);
        let left = self.look.column(left, width.saturating_sub(right.chars().count()));
        self.line(y, &format!("{left}{right}"), style);
    }

    fn heading(&mut self, y: u16, text: &str) {
        let text = self.look.head(text, self.area.width.into());
        let rest = usize::from(self.area.width).saturating_sub(text.chars().count() + 1);
        self.line(y, &format!("{text} {}", self.look.rule().repeat(rest)), self.look.heading());
    }

    /// The row of a list: marked if it is the chosen one, and more so where the keys move.
    fn row(&mut self, y: u16, text: &str, is_chosen: bool, has_keys: bool, style: Style) {
        let mark = match (is_chosen, has_keys) {
            (true, true) => ">",
            (true, false) => "*",
            _ => " ",
        };
        let style = if is_chosen && has_keys { self.look.reverse() } else { style };
        let text = self.look.column(text, usize::from(self.area.width.saturating_sub(1)));
        self.line(y, &format!("{mark}{text}"), style);
    }

    // ---- the whole

    fn full(&mut self) {
        let m = self.m;
        let chart = match self.area.height {
            ..30 => 1,
            30..40 => 2,
            _ => 3,
        };
        let fixed = 10 + 2 * chart;
        let refusals = m.worker().filter(|_| m.focus() == Focus::Workers).map_or(0, |n| n.refused.len());
        let wants = [m.jobs().len(), m.nodes().len(), m.tasks().len() + refusals, m.failures().len()];
        let [jobs, workers, tasks, failures] = share(self.area.height - fixed, wants);
        self.title();
        let mut y = 1;
        self.jobs(y, jobs);
        y += 1 + jobs;
        self.detail(y);
        self.charts(y + 1, chart);
        self.queues(y + 1);
        y += 3 + 2 * chart;
        self.workers(y, workers);
        y += 1 + workers;
        self.tasks(y, tasks);
        y += 1 + tasks;
        self.failures(y, failures);
        self.status(self.area.height - 2);
        let keys = format!(
            " q quit  ? help  Tab list  {} choose  p pause  r resume  +/- pool  c cancel",
            self.look.arrows()
        );
        self.band(self.area.height - 1, &keys, "", self.look.reverse());
    }

    fn title(&mut self) {
        let m = self.m;
        let running = m.jobs().iter().filter(|j| j.state == JobState::Running).count();
        let (busy, pool) = threads(m.nodes());
        let narrow = self.area.width < FULL.0;
        let what = match (m.view(), m.source(), narrow) {
            (None, ..) => " treeferry top".to_owned(),
            (_, Source::Local, _) => format!(" treeferry top: {} on this machine", counted(running, "job")),
            (.., true) => format!(" {}, {busy}/{pool} threads", counted(running, "job")),
            _ => format!(
                " treeferry top: {} running, {}, {busy}/{pool} threads busy",
                counted(running, "job"),
                counted(m.nodes().len(), "worker")
            ),
        };
        let age = match m.age_ms() {
            None => "no data yet ".to_owned(),
            Some(ms) if m.is_old() => format!("NO NEW DATA FOR {} ", span(ms)),
            Some(ms) => format!("data {} old ", span(ms)),
        };
        self.band(0, &what, &age, self.look.reverse());
    }

    /// What a list shows if it is empty.
    fn nothing(&mut self, y: u16, why: &str) {
        let text = if self.m.view().is_none() { "  not yet known" } else { why };
        self.line(y, text, Style::new());
    }

    fn jobs(&mut self, y: u16, rows: u16) {
        let m = self.m;
        let (first, heading) = window("Jobs", m.job_place(), rows, m.jobs().len());
        self.heading(y, &heading);
        if m.jobs().is_empty() {
            self.nothing(y + 1, "  none");
        }
        for (n, j) in m.jobs().iter().enumerate().skip(first).take(rows.into()) {
            let head = format!("{} {:<11} ", j.id, state_of(j));
            let left = usize::from(self.area.width).saturating_sub(head.len() + 1 + " -> ".len());
            let (src, dst) = (shown(&j.spec.src), shown(&j.spec.dst));
            let dst = self.look.tail(&dst, left / 2);
            let src = self.look.tail(&src, left - left / 2);
            let style = match j.state {
                JobState::Running if j.paused => self.look.waiting(),
                JobState::Failed | JobState::Aborted => self.look.bad(),
                _ => Style::new(),
            };
            let text = format!("{head}{src} -> {dst}");
            let is_chosen = Some(n) == m.job_place();
            self.row(y + 1 + (n - first) as u16, &text, is_chosen, m.focus() == Focus::Jobs, style);
        }
    }

    /// Figures of the chosen job, as many as fit; the first matter most.
    fn detail(&mut self, y: u16) {
        let Some(j) = self.m.job() else { return };
        if !j.why.is_empty() {
            let text = self.look.head(&format!("  {}", j.why), self.area.width.into());
            return self.line(y, &text, self.look.bad());
        }
        let mut text = String::from("  ");
        let mirror = self.m.view().and_then(|v| Some(mirror_figures(v.mirrors.get(&j.id)?, v.at_ms)));
        for part in mirror.into_iter().flatten().chain(figures(self.m, j)) {
            let comma = if text.trim().is_empty() { "" } else { ", " };
            if text.len() + comma.len() + part.len() <= self.area.width.into() {
                text += comma;
                text += &part;
            }
        }
        self.line(y, &text, self.look.bold());
    }

    fn charts(&mut self, y: u16, rows: u16) {
        let Some(j) = self.m.job() else { return };
        let width = self.area.width - QUEUES - 1;
        let (entries, bytes) = self.m.rates(j);
        let columns = usize::from(width - 2);
        let of_entries = self.m.chart(j.id, columns, STEP_MS, |p: &Past| p.entries);
        let of_bytes = self.m.chart(j.id, columns, STEP_MS, |p: &Past| p.bytes);
        let peak = |v: &[u64]| v.iter().max().copied().filter(|p| *p > 0);
        let peak_of_entries = peak(&of_entries).map(|p| format!(", peak {}", grouped(p)));
        let peak_of_bytes = peak(&of_bytes).map(|p| format!(", peak {}/s", show_size(p)));
        let head = format!("  {} entries/s{}", grouped(entries as u64), peak_of_entries.unwrap_or_default());
        self.chart(y, width, rows, &head, &of_entries);
        let head = format!("  {}/s copied{}", show_size(bytes as u64), peak_of_bytes.unwrap_or_default());
        self.chart(y + 1 + rows, width, rows, &head, &of_bytes);
    }

    fn chart(&mut self, y: u16, width: u16, rows: u16, head: &str, values: &[u64]) {
        let head = self.look.head(head, width.into());
        self.put(0, y, width, &head, Style::new());
        let area = Rect::new(self.area.x + 2, self.area.y + y + 1, width - 2, rows).intersection(self.area);
        // the newest at the right edge
        let newest_first: Vec<u64> = values.iter().rev().copied().collect();
        Sparkline::default()
            .data(&newest_first)
            .direction(RenderDirection::RightToLeft)
            .bar_set(self.look.levels())
            .style(self.look.chart())
            .render(area, self.buf);
    }

    fn queues(&mut self, y: u16) {
        let x = self.area.width - QUEUES;
        if self.m.source() == Source::Local {
            return;
        }
        let (head, queues) = match self.m.queues() {
            None => return self.put(x, y, QUEUES, "Queues: not yet known", self.look.heading()),
            Some((age, q)) if age > QUEUES_OLD_MS => (format!("{} ago", span(age)), q),
            Some((_, q)) => ("Queues".to_owned(), q),
        };
        let queues = match queues {
            Ok(queues) => queues,
            Err(why) => {
                self.put(x, y, QUEUES, "Queues: the broker does not tell", self.look.bad());
                let why: Vec<char> = self.look.plain(why).chars().collect();
                for (n, part) in why.chunks(QUEUES.into()).take(3).enumerate() {
                    self.put(x, y + 1 + n as u16, QUEUES, &part.iter().collect::<String>(), Style::new());
                }
                return;
            }
        };
        let names: Vec<String> = queues.iter().map(|q| self.look.plain(&short_name(q))).collect();
        let row = |head: &str, cell: &dyn Fn(usize) -> String| {
            let cells =
                names.iter().enumerate().map(|(i, n)| format!("{:>1$}", cell(i), (n.len() + 1).max(6)));
            format!("{head:<9}{}", cells.collect::<String>())
        };
        self.put(x, y, QUEUES, &row(&head, &|i| names[i].clone()), self.look.heading());
        for (n, what) in ["ready", "held", "consumers"].into_iter().enumerate() {
            let figures = |q: &QueueRow| [q.ready, q.unacked, q.consumers];
            let text = row(what, &|i| short_number(figures(&queues[i])[n]));
            self.put(x, y + 1 + n as u16, QUEUES, &text, Style::new());
        }
    }

    fn workers(&mut self, y: u16, rows: u16) {
        let m = self.m;
        let what = if m.source() == Source::Local { "Processes" } else { "Workers" };
        let (first, heading) = window(what, m.worker_place(), rows, m.nodes().len());
        self.heading(y, &heading);
        if m.nodes().is_empty() {
            let why = match m.source() {
                Source::Cluster => "  none: start some with 'treeferry worker' and 'treeferry hardlinker'",
                Source::Local => "  no cluster is configured, and no process of yours runs a job here",
            };
            self.nothing(y + 1, why);
        }
        for (n, node) in m.nodes().iter().enumerate().skip(first).take(rows.into()) {
            let text = self.worker(node);
            let style = match state_of_node(node) {
                "paused" | "stopping" => self.look.waiting(),
                _ if !node.refused.is_empty() => self.look.bad(),
                _ => Style::new(),
            };
            let is_chosen = Some(n) == m.worker_place();
            self.row(y + 1 + (n - first) as u16, &text, is_chosen, m.focus() == Focus::Workers, style);
        }
    }

    fn worker(&self, n: &NodeReport) -> String {
        let silent = self.m.view().map_or(0, |v| v.at_ms.saturating_sub(n.seen_ms));
        let note = match (n.refused.len(), silent) {
            (0, ..SILENT_MS) => String::new(),
            (0, ms) => format!(" silent for {}", span(ms)),
            (1, _) => " refuses a job".to_owned(),
            (jobs, _) => format!(" refuses {jobs} jobs"),
        };
        let head = format!(
            "{} {} {} {:>9} ",
            self.look.column(&n.worker, 24),
            self.look.column(&n.kind, 10),
            self.look.column(state_of_node(n), 8),
            format!("{}/{}", n.busy, n.pool)
        );
        let left =
            usize::from(self.area.width).saturating_sub(1 + 24 + 1 + 10 + 1 + 8 + 1 + 9 + 1 + note.len());
        head + &self.look.bar(n.busy, n.pool, left.min(42)) + &note
    }

    fn tasks(&mut self, y: u16, rows: u16) {
        let m = self.m;
        let tasks = m.tasks();
        let whose = match m.focus() {
            Focus::Jobs => "of the chosen job",
            Focus::Workers => "of the chosen worker",
        };
        let heading = match tasks.len() {
            n if n > usize::from(rows) => format!("Running tasks {whose}, the longest {rows} of {n}"),
            _ => format!("Running tasks {whose}, longest first"),
        };
        self.heading(y, &heading);
        let mut at = y + 1;
        if let (Focus::Workers, Some(n)) = (m.focus(), m.worker()) {
            for r in n.refused.iter().take(rows.into()) {
                let text = format!("  refuses job {}: {}", r.job, r.why);
                self.line(at, &self.look.head(&text, self.area.width.into()), self.look.bad());
                at += 1;
            }
        }
        if tasks.is_empty() && at == y + 1 {
            self.nothing(at, "  none");
        }
        for (n, t) in tasks.iter().take(usize::from(y + 1 + rows - at)) {
            let age = took(t.age_ms as f64 / 1000.0);
            let (work, worker) = (self.look.column(&t.work, 10), self.look.column(&n.worker, 16));
            let path = self.look.tail(&t.path, usize::from(self.area.width).saturating_sub(42));
            self.line(at, &format!("  {age:>11} {work} {worker} {path}"), Style::new());
            at += 1;
        }
    }

    fn failures(&mut self, y: u16, rows: u16) {
        let m = self.m;
        let all = m.job().map_or(0, |j| j.counters.failures);
        let heading = match all {
            0 => "Failures of the chosen job".to_owned(),
            n => format!("Failures of the chosen job, the latest of {}", grouped(n)),
        };
        self.heading(y, &heading);
        if m.failures().is_empty() {
            self.nothing(y + 1, if all == 0 { "  none" } else { "  not yet known" });
        }
        let width = usize::from(self.area.width);
        for (n, f) in m.failures().iter().take(rows.into()).enumerate() {
            let what = self.look.head(&format!("  {}: {}", f.op, f.error), width / 2);
            let left = width.saturating_sub(unicode_width::UnicodeWidthStr::width(&*what) + 2);
            let path = self.look.tail(&f.path.to_string(), left);
            self.line(y + 1 + n as u16, &format!("{what}  {path}"), Style::new());
        }
    }

    fn status(&mut self, y: u16) {
        if let Some(line) = self.m.line() {
            let mark = if line.is_bad { "! " } else { "  " };
            let text = self.look.head(&format!("{mark}{}", line.text), self.area.width.into());
            self.line(y, &text, if line.is_bad { self.look.bad() } else { self.look.bold() });
        }
    }

    // ---- where there is little room

    /// The chosen job and sums of the rest, as far as they fit, and that a larger terminal shows more.
    fn small(&mut self) {
        let (m, width) = (self.m, usize::from(self.area.width));
        if self.area.is_empty() {
            return;
        }
        self.title();
        let mut lines = Vec::new();
        for j in chosen_first(m).take(usize::from(self.area.height.saturating_sub(8)).max(1)) {
            let mark = if Some(j.id) == m.job().map(|c| c.id) { '>' } else { ' ' };
            let head = format!("{mark}{:<7.7} {} ", state_of(j), j.id);
            lines.push(format!(
                "{head}{}",
                self.look.tail(&shown(&j.spec.dst), width.saturating_sub(head.len()))
            ));
        }
        match m.job() {
            None if m.view().is_some() => lines.push(" no jobs".to_owned()),
            None => {}
            Some(j) => {
                let (e, b) = m.rates(j);
                let n = &j.counters;
                lines.push(format!(" {} entries, {}/s", grouped(entries(j)), grouped(e as u64)));
                lines.push(format!(" {} copied, {}/s", show_size(n.copied_bytes), show_size(b as u64)));
                let figures = figures(m, j);
                lines.push(format!(" {}", figures[2..figures.len().min(4)].join(", ")));
            }
        }
        if let (Focus::Workers, Some(n)) = (m.focus(), m.worker()) {
            lines.push(format!(">{:<8} {}/{} {}", state_of_node(n), n.busy, n.pool, n.worker));
        }
        if let (Source::Cluster, Some((_, Ok(queues)))) = (m.source(), m.queues()) {
            let sum = |of: fn(&QueueRow) -> u64| grouped(queues.iter().map(of).sum());
            lines.push(format!(" queues: {} ready, {} held", sum(|q| q.ready), sum(|q| q.unacked)));
        }
        let last = self.area.height - 1;
        for (y, text) in (1..last).zip(lines) {
            let text = self.look.head(&text, width);
            self.line(y, &text, Style::new());
        }
        match m.line() {
            Some(_) => self.status(last),
            None => {
                let text = format!("80x24 shows all; here {}x{}. ? help", self.area.width, self.area.height);
                self.band(last, &text, "", self.look.reverse());
            }
        }
    }

    // ---- what lies above

    fn help(&mut self, from: u16) {
        let inside = self.window(40, HELP.len() as u16, "Keys");
        // the last line stays within reach, and nothing lies behind it
        let from = from.min((HELP.len() as u16).saturating_sub(inside.height));
        for (n, text) in HELP.iter().skip(from.into()).take(inside.height.into()).enumerate() {
            self.put(inside.x, inside.y + n as u16, inside.width, text, Style::new());
        }
    }

    fn confirm(&mut self, id: JobId) {
        let job = self.m.jobs().iter().find(|j| j.id == id);
        let (src, dst) = job.map_or_else(Default::default, |j| (shown(&j.spec.src), shown(&j.spec.dst)));
        let inside = self.window(60, 5, "Cancel a job");
        let columns = usize::from(inside.width);
        let lines = [
            format!("Cancel job {id}?"),
            "y: cancel it   any other key: no".to_owned(),
            self.look.tail(&src, columns),
            format!("-> {}", self.look.tail(&dst, columns.saturating_sub(3))),
            "What was done so far stays.".to_owned(),
        ];
        for (n, text) in lines.iter().enumerate().take(inside.height.into()) {
            self.put(inside.x, inside.y + n as u16, inside.width, text, self.look.bold());
        }
    }

    /// Clears a place in the middle for so much, with a frame if there is room for it; returns the inside.
    fn window(&mut self, width: u16, height: u16, title: &str) -> Rect {
        let outer = (width + 4, height + 2);
        let framed = self.area.width >= outer.0 && self.area.height >= outer.1;
        let (w, h) = if framed { outer } else { (self.area.width, self.area.height) };
        let (x, y) = ((self.area.width - w) / 2, (self.area.height - h) / 2);
        Clear.render(Rect::new(self.area.x + x, self.area.y + y, w, h), self.buf);
        if !framed {
            return Rect::new(0, 0, w, h);
        }
        let edge = format!("+-- {title} ");
        let top = format!("{edge}{}+", "-".repeat(usize::from(w) - edge.len() - 1));
        let bottom = format!("+{}+", "-".repeat(usize::from(w) - 2));
        self.put(x, y, w, &top, self.look.heading());
        for row in y + 1..y + h - 1 {
            self.put(x, row, 1, "|", self.look.heading());
            self.put(x + w - 1, row, 1, "|", self.look.heading());
        }
        self.put(x, y + h - 1, w, &bottom, self.look.heading());
        Rect::new(x + 2, y + 1, width, height)
    }
}

/// What there is to say of a job, the most important first.
fn figures(m: &Model, j: &JobRow) -> Vec<String> {
    let (now, total) = m.view().map_or((0, None), |v| (v.at_ms, v.totals.get(&j.id).copied()));
    let elapsed = took(j.ended_ms.unwrap_or(now).saturating_sub(j.created_ms) as f64 / 1000.0);
    let mut out = vec![
        format!("{} entries", grouped(entries(j))),
        format!("{} copied", show_size(j.counters.copied_bytes)),
        match j.counters.failures {
            1 => "1 failure".to_owned(),
            n => format!("{} failures", grouped(n)),
        },
        match j.state {
            JobState::Running => format!("{elapsed} so far"),
            _ => format!("took {elapsed}"),
        },
    ];
    if let Some(s) = eta_s(j, total, now) {
        let share = entries(j) * 100 / total.unwrap_or(0).max(1);
        out.insert(3, format!("about {share} % done, {} to go", took(s as f64)));
    }
    if j.state == JobState::Running {
        out.push(format!("{} tasks outstanding", grouped(j.outstanding)));
    }
    out
}

fn chosen_first(m: &Model) -> impl Iterator<Item = &JobRow> {
    let chosen = m.job_place();
    let others = m.jobs().iter().enumerate().filter(move |(n, _)| Some(*n) != chosen).map(|(_, j)| j);
    m.job().into_iter().chain(others)
}

fn threads(nodes: &[NodeReport]) -> (usize, usize) {
    nodes.iter().fold((0, 0), |(busy, pool), n| (busy + n.busy, pool + n.pool))
}

/// Divides rows among jobs, workers, tasks and failures: first what each has at 80x24, then to whoever wants more.
fn share(rows: u16, wants: [usize; 4]) -> [u16; 4] {
    const FIRST: [u16; 4] = [3, 4, 3, 2];
    let want = |i: usize| u16::try_from(wants[i].max(1)).unwrap_or(u16::MAX);
    let mut have = [0, 1, 2, 3].map(|i| FIRST[i].min(want(i)));
    let mut left = rows.saturating_sub(have.iter().sum());
    while left > 0 && (0..4).any(|i| have[i] < want(i)) {
        for (_, rows) in have.iter_mut().enumerate().filter(|(i, rows)| **rows < want(*i)) {
            let more = u16::from(left > 0);
            *rows += more;
            left -= more;
        }
    }
    have
}

/// The first row of a list that is shown, so that the chosen one is seen; and the heading, which says what is not.
fn window(what: &str, chosen: Option<usize>, rows: u16, len: usize) -> (usize, String) {
    let rows = usize::from(rows);
    let first = chosen.unwrap_or(0).saturating_sub(rows / 2).min(len.saturating_sub(rows));
    match len > rows {
        true => (first, format!("{what} ({}-{} of {len})", first + 1, first + rows)),
        false => (first, what.to_owned()),
    }
}

/// The name of a queue without what all of them have.
fn short_name(q: &QueueRow) -> String {
    q.name.strip_prefix("treeferry.").unwrap_or(&q.name).to_owned()
}

fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// A number in five characters.
fn short_number(n: u64) -> String {
    match n {
        0..100_000 => n.to_string(),
        100_000..10_000_000 => format!("{}k", n / 1000),
        10_000_000..10_000_000_000 => format!("{}M", n / 1_000_000),
        _ => format!("{}G", n / 1_000_000_000),
    }
}

/// A span of time in whole seconds, or more.
fn span(ms: u64) -> String {
    match ms / 1000 {
        s @ 0..100 => format!("{s} s"),
        s @ 100..6000 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

#[cfg(test)]
mod tests;
