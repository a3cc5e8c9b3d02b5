//! The report in the voice of text: for a terminal 100 columns wide, and without colours or control characters.

use super::View;
use super::data::{Facts, FailureGroup, FailureRow, Progress, SizeClass, TaskRow, TotalSource};
use super::moments::utc;
use crate::output::{grouped, harmless, took};
use std::fmt::Write as _;
use treeferry_core::units::show_size;

/// Bars of the picture of rates.
const BARS: usize = 60;
/// Rows of each table; the HTML page and JSON have more.
const ROWS: usize = 10;
/// What a share of the largest is drawn as.
const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The whole report.
pub fn show(v: &View<'_>) -> String {
    let (f, mut t) = (v.facts, String::new());
    heading(v, &mut t);
    progress(f, &v.progress, &mut t);
    counts(f, &mut t);
    rates(f, &mut t);
    failures(f, &mut t);
    let running = if f.is_silent(v.now_ms) { "At work when it was last heard" } else { "At work now" };
    tasks(running, &f.running, &mut t);
    unfinished(f, &mut t);
    tasks("Longest tasks", &f.longest_tasks, &mut t);
    let dirs = f.largest_dirs.iter().map(|d| [grouped(d.entries), d.path.clone()]);
    table("Largest directories, by entries", f.largest_dirs.len(), dirs, &mut t);
    let files = f.largest_files.iter().map(|r| [show_size(r.bytes), r.path.clone()]);
    table("Largest files", f.largest_files.len(), files, &mut t);
    let slow = f.slowest_files.iter().map(|r| {
        let seconds = r.seconds.unwrap_or(0.0);
        [brief(seconds), show_size(r.bytes), rate(r.bytes, seconds), r.path.clone()]
    });
    table("Slowest files, by the time of their copy", f.slowest_files.len(), slow, &mut t);
    sizes(f, &mut t);
    nodes(f, &mut t);
    t
}

fn heading(v: &View<'_>, t: &mut String) {
    let f = v.facts;
    let dry = if f.dry_run { ", dry run" } else { "" };
    let _ = writeln!(t, "Job {}: {}", f.job, f.state_word(v.now_ms));
    let _ = writeln!(t, "  {} -> {} ({}{dry})", f.src, f.dst, f.passes.join(","));
    let _ = writeln!(t, "  began {}", utc(f.began_ms));
    match f.ended_ms {
        Some(end) => drop(writeln!(t, "  ended {}, after {}", utc(end), took(f.elapsed_s()))),
        None => drop(writeln!(t, "  as of {}, after {}", utc(f.seen_ms), took(f.elapsed_s()))),
    }
    if f.is_silent(v.now_ms) {
        let host = f.host.as_deref().unwrap_or("its machine");
        let _ = writeln!(
            t,
            "  Nothing was heard of it since: it was killed, or {host} is gone. Run it again to finish."
        );
    }
    if !f.error.is_empty() {
        let _ = writeln!(t, "  {}", harmless(&f.error, ""));
    }
}

fn progress(f: &Facts, p: &Progress, t: &mut String) {
    if !f.is_running() {
        return;
    }
    let _ = writeln!(t, "\nProgress");
    let _ = write!(t, "  {} files and directories", grouped(p.entries));
    if let (Some(total), Some(percent)) = (&p.total, p.percent) {
        let _ = write!(t, " of {}: {percent:.1} %", grouped(total.entries));
        let _ = write!(t, "\n  The total is {}.", source(&total.source));
        if p.entries > total.entries {
            let _ = write!(t, " There is more than that.");
        }
    } else {
        let _ = write!(t, "; how many there are is not known (--inodes N tells)");
    }
    match p.eta_s {
        Some(s) => drop(writeln!(
            t,
            "\n  At {}/s as of late, about {} to go.",
            grouped(p.entries_per_s as u64),
            took(s as f64)
        )),
        None => drop(writeln!(t, "\n  {}/s as of late.", grouped(p.entries_per_s as u64))),
    }
    let _ = writeln!(t, "  {} tasks outstanding", grouped(f.outstanding));
}

/// Who says how much there is.
pub fn source(s: &TotalSource) -> String {
    match s {
        TotalSource::Given => "what --inodes says".to_owned(),
        TotalSource::EarlierJob(job) => {
            format!("what job {job} found, which was done with the same SRC and DST")
        }
        TotalSource::FileSystem => "the number of inodes in use on the file system of SRC".to_owned(),
    }
}

fn counts(f: &Facts, t: &mut String) {
    let rows: Vec<[String; 3]> = f
        .counted()
        .into_iter()
        .map(|(name, n, meaning)| [words(name), amount(name, n), meaning.to_owned()])
        .collect();
    let _ = writeln!(t, "\nCounts");
    let wide = |i: usize| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let (a, b) = (wide(0), wide(1));
    for [name, n, meaning] in &rows {
        let _ = writeln!(t, "  {name:a$}  {n:>b$}  {meaning}");
    }
}

/// The name of a counter for people.
pub fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// A counter in its unit, which is the last word of its name.
pub fn amount(name: &str, n: u64) -> String {
    if name.rsplit('_').next() == Some("bytes") { show_size(n) } else { grouped(n) }
}

fn rates(f: &Facts, t: &mut String) {
    let r = f.rates();
    let spans = r.in_spans(r.spans(BARS));
    if spans.is_empty() {
        return;
    }
    let each = took(r.seconds() / spans.len() as f64);
    let _ = writeln!(
        t,
        "\nRates, from its beginning to its {}; a column is {each}",
        if f.is_running() { "present" } else { "end" }
    );
    let line = |name: &str, values: Vec<f64>, show: fn(f64) -> String, t: &mut String| {
        let most = values.iter().copied().fold(0.0, f64::max);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        if most > 0.0 {
            let _ = writeln!(t, "  {name:<12} {}", spark(&values));
            let _ = writeln!(
                t,
                "  {:<12} mean {}, most {}, last {}",
                "",
                show(mean),
                show(most),
                show(values[values.len() - 1])
            );
        }
    };
    let number = |n: f64| format!("{}/s", grouped(n as u64));
    let bytes = |n: f64| format!("{}/s", show_size(n as u64));
    line("entries", spans.iter().map(|r| r.entries_per_s).collect(), number, t);
    line("bytes copied", spans.iter().map(|r| r.bytes_per_s).collect(), bytes, t);
    line("deleted", spans.iter().map(|r| r.deleted_per_s).collect(), number, t);
}

/// A picture of numbers: nothing is a blank, the most is a full block.
fn spark(values: &[f64]) -> String {
    let most = values.iter().copied().fold(0.0, f64::max);
    let step = |v: &f64| match *v {
        v if v <= 0.0 || most <= 0.0 => ' ',
        v => STEPS[((v / most * 8.0) as usize).min(7)],
    };
    values.iter().map(step).collect()
}

fn failures(f: &Facts, t: &mut String) {
    if f.failure_groups.is_empty() {
        return;
    }
    let _ = writeln!(t, "\nFailures, {} of them", grouped(f.count("failures")));
    for g in f.failure_groups.iter().take(ROWS) {
        let _ =
            writeln!(t, "  {:>9}  {} ({}): {}", grouped(g.count), g.name(), g.side, harmless(&g.error, ""));
        for path in &g.examples {
            let _ = writeln!(t, "             {path}");
        }
        if g.count > g.examples.len() as u64 {
            let _ = writeln!(t, "             and {} more", grouped(g.count - g.examples.len() as u64));
        }
    }
    more(f.failure_groups.len(), t);
    let name = f.failure_groups.first().map(FailureGroup::name).unwrap_or_default();
    let _ = writeln!(
        t,
        "  'treeferry report {} --failures {name}' lists all of a kind, '--failures' all.",
        f.job
    );
}

/// Failures one by one.
pub fn failure_lines(rows: &[FailureRow]) -> String {
    let mut t = String::new();
    for r in rows {
        let _ = writeln!(t, "{}: {} ({}): {}", r.path, r.op, r.side, harmless(&r.error, ""));
    }
    t
}

fn tasks(title: &str, all: &[TaskRow], t: &mut String) {
    let rows = all.iter().map(|r| {
        let at = r.worker.as_ref().map(|w| format!("  on {w}")).unwrap_or_default();
        [brief(r.seconds), r.work.clone(), format!("{}{at}", r.path)]
    });
    table(title, all.len(), rows, t);
}

fn unfinished(f: &Facts, t: &mut String) {
    if f.unfinished.is_empty() {
        return;
    }
    let rows = f.unfinished.iter().map(|s| [grouped(s.tasks), s.path.clone()]);
    table("Unfinished subtrees, by tasks that are left", f.unfinished.len(), rows, t);
}

fn sizes(f: &Facts, t: &mut String) {
    if f.sizes.is_empty() {
        return;
    }
    let most = f.sizes.iter().map(|c| c.files).max().unwrap_or(0);
    let _ = writeln!(t, "\nSizes of files");
    for c in &f.sizes {
        let bar = "█".repeat((c.files as f64 / most.max(1) as f64 * 30.0).round() as usize);
        let line = format!(
            "  {:>22}  {:>13} files  {:>10}  {bar}",
            class_name(c),
            grouped(c.files),
            show_size(c.bytes)
        );
        let _ = writeln!(t, "{}", line.trim_end());
    }
}

/// The bounds of a class of sizes.
pub fn class_name(c: &SizeClass) -> String {
    // a power of two needs no digits behind the point
    let short = |n: u64| show_size(n).replace(".00 ", " ").replace(".0 ", " ");
    match c.below_bytes {
        Some(1) => "empty".to_owned(),
        Some(below) => format!("{} to {}", short(c.from_bytes), short(below)),
        None => format!("{} and more", short(c.from_bytes)),
    }
}

fn nodes(f: &Facts, t: &mut String) {
    let all =
        |name: &str| f.nodes.iter().filter_map(|n| n.counters.get(name)).map(|n| *n as f64).sum::<f64>();
    let sum = |name: &str| all(name).max(1.0);
    let (files, bytes) = (sum("files"), sum("copied_bytes"));
    let rows = f.nodes.iter().map(|n| {
        let count = |name: &str| n.counters.get(name).copied().unwrap_or(0);
        [
            grouped(count("files").saturating_add(count("dirs"))),
            format!("{:.1} % of files", count("files") as f64 * 100.0 / files),
            show_size(count("copied_bytes")),
            format!("{:.1} % of bytes copied", count("copied_bytes") as f64 * 100.0 / bytes),
            n.node.clone(),
        ]
    });
    table("Nodes, by what they have done", f.nodes.len(), rows, t);
}

/// A table: every column but the last is aligned to the right, and the last is a path or a name.
fn table<const N: usize>(title: &str, n: usize, rows: impl Iterator<Item = [String; N]>, t: &mut String) {
    let rows: Vec<[String; N]> = rows.take(ROWS).collect();
    if rows.is_empty() {
        return;
    }
    let _ = writeln!(t, "\n{title}");
    let wide: Vec<usize> =
        (0..N).map(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0)).collect();
    for r in &rows {
        for (cell, wide) in r.iter().zip(&wide).take(N - 1) {
            let _ = write!(t, "  {cell:>wide$}");
        }
        let _ = writeln!(t, "  {}", r[N - 1]);
    }
    more(n, t);
}

fn more(n: usize, t: &mut String) {
    if n > ROWS {
        let _ = writeln!(t, "  and {} more (--json and --html have them)", n - ROWS);
    }
}

/// A span of time that may be very short.
pub fn brief(seconds: f64) -> String {
    match seconds {
        s if s < 1e-3 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => took(s),
    }
}

/// Bytes in a time.
pub fn rate(bytes: u64, seconds: f64) -> String {
    if seconds > 0.0 { format!("{}/s", show_size((bytes as f64 / seconds) as u64)) } else { "-".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn shown(f: &Facts) -> String {
        let total = Some(super::super::data::Total {
            entries: f.entries().saturating_mul(2),
            source: TotalSource::Given,
        });
        show(&View { facts: f, progress: f.progress(total), now_ms: f.seen_ms })
    }

    #[test]
    fn a_job_that_was_done_without_a_failure_says_so_and_leaves_out_what_there_is_not() {
        let text = shown(&samples::done());
        assert!(
            text.starts_with("Job 00000000000000ff: done\n  /data/old -> /data/new (copy,dirtime)\n"),
            "{text}"
        );
        for word in ["Counts", "Rates", "Largest files", "Slowest files", "Sizes of files", "Longest tasks"] {
            assert!(text.contains(word), "{word}: {text}");
        }
        for word in ["Progress", "Failures", "Unfinished", "At work"] {
            assert!(!text.contains(word), "{word}: {text}");
        }
    }

    #[test]
    fn a_running_job_says_how_far_it_is_and_where() {
        let text = shown(&samples::running());
        assert!(
            text.contains("50.0 %") && text.contains("what --inodes says") && text.contains("to go"),
            "{text}"
        );
        assert!(text.contains("At work now") && text.contains("on node1-77"), "{text}");
        assert!(text.contains("Unfinished subtrees"), "{text}");
        assert!(
            text.contains("Nodes, by what they have done") && text.contains("% of bytes copied"),
            "{text}"
        );
    }

    #[test]
    fn failures_are_grouped_with_examples_and_a_way_to_all_of_them() {
        let text = shown(&samples::odd());
        assert!(text.contains("openat:EACCES (source): Permission denied"), "{text}");
        assert!(text.contains("report 00000000000000ff --failures openat:EACCES'"), "{text}");
    }

    #[test]
    fn no_report_has_control_characters_or_grows_with_the_job() {
        for f in [samples::empty(), samples::odd(), samples::huge(), samples::running(), samples::done()] {
            let text = shown(&f);
            assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text}");
            assert!(text.lines().count() < 250, "{}", text.lines().count());
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }

    #[test]
    fn the_picture_of_rates_shows_the_most_and_nothing() {
        assert_eq!(spark(&[0.0, 1.0, 4.0, 8.0]), " ▂▅█");
        assert_eq!(spark(&[0.0, 0.0]), "  ");
        assert_eq!(spark(&[]), "");
    }

    #[test]
    fn times_and_classes_are_readable() {
        assert_eq!([0.0, 2e-6, 0.25, 2.0].map(brief), ["0 µs", "2 µs", "250 ms", "2.0 s"]);
        let class =
            |from_bytes, below_bytes| class_name(&SizeClass { from_bytes, below_bytes, files: 0, bytes: 0 });
        assert_eq!(class(0, Some(1)), "empty");
        assert_eq!(class(1024, Some(4096)), "1 KiB to 4 KiB");
        assert_eq!(class(1 << 18, Some(1 << 20)), "256 KiB to 1 MiB");
        assert_eq!(class(1 << 62, None), "4 EiB and more");
    }
}
