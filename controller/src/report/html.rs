//! The report as a page: one file with everything in it, without script, that can be mailed. What is put in is escaped
//! by `maud`; paths are escaped for people too, and kept apart from the direction in which the text around them runs.

use super::View;
use super::data::{Facts, FailureGroup, FileRow, TaskRow};
use super::moments::utc;
use super::plots::{OverTime, Row, bars, over_time};
use super::text::{amount, brief, class_name, rate, source, words};
use crate::output::{grouped, harmless, took};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use treeferry_core::job::JobState;
use treeferry_core::units::show_size;

/// Spans of the pictures over time.
const SPANS: usize = 180;
/// Nodes, and kinds of failures, in a picture; tables have all of them.
const BARS: usize = 24;
/// Rows of a table that are shown at once; the rest can be unfolded.
const ROWS: usize = 20;
/// Labels of the pictures have so much room.
const LABEL: f64 = 190.0;

/// The whole page.
pub fn page(v: &View<'_>) -> String {
    let f = v.facts;
    let title = format!("{} – {} → {}", f.state_word(v.now_ms), f.src, f.dst);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // nothing is fetched, whatever should find its way into this page
                meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'";
                meta name="generator" content=(concat!("treeferry ", env!("CARGO_PKG_VERSION")));
                title { "treeferry: " (title) }
                style { (PreEscaped(include_str!("style.css"))) }
            }
            body {
                (heading(v))
                (tiles(v))
                (progress(v))
                (rates(f))
                (failures(f))
                (running(v))
                (unfinished(f))
                (sizes(f))
                (nodes(f))
                (largest(f))
                (slowest(f))
                (counts(f))
                footer {
                    "As of " (utc(f.seen_ms)) ". Written by treeferry " (env!("CARGO_PKG_VERSION"))
                    ". Every figure was counted by the job itself."
                }
            }
        }
    };
    page.into_string()
}

fn heading(v: &View<'_>) -> Markup {
    let f = v.facts;
    let word = f.state_word(v.now_ms);
    let class = match (f.state, word) {
        (JobState::Done, _) => "state good",
        (JobState::Running, "running") => "state busy",
        (JobState::Running | JobState::Interrupted, _) => "state warn",
        (JobState::Failed | JobState::Aborted, _) => "state bad",
    };
    html! {
        header {
            div.line { h1 { "Job " (f.job) } span class=(class) { (word) } }
            dl {
                dt { "from" } dd { (path(&f.src)) }
                dt { "to" } dd { (path(&f.dst)) }
                dt { "passes" } dd { (f.passes.join(", ")) @if f.dry_run { " (dry run: nothing was touched)" } }
                dt { "began" } dd { (utc(f.began_ms)) }
                @match f.ended_ms {
                    Some(end) => { dt { "ended" } dd { (utc(end)) } }
                    None => { dt { "as of" } dd { (utc(f.seen_ms)) } }
                }
                @if let Some(host) = &f.host { dt { "on" } dd { (host) } }
            }
            @if f.is_silent(v.now_ms) {
                p.why { "Nothing was heard of it since: it was killed, or its machine is gone. Run it again to finish." }
            }
            @if !f.error.is_empty() { p.why { (harmless(&f.error, "")) } }
        }
    }
}

fn tiles(v: &View<'_>) -> Markup {
    let f = v.facts;
    let each = |n: u64| n as f64 / f.elapsed_s().max(0.001);
    let entries = format!("{}/s on the average", grouped(each(f.entries()) as u64));
    let bytes = format!("copied, {}/s", show_size(each(f.count("copied_bytes")) as u64));
    let tile = |value: String, name: &str, class: &str| html! { div.tile { b class=(class) { (value) } span { (name) } } };
    let failures = f.count("failures");
    html! {
        div.tiles {
            (tile(grouped(f.entries()), &format!("files and directories, {entries}"), ""))
            (tile(show_size(f.count("copied_bytes")), &bytes, ""))
            (tile(grouped(f.count("copied_files")), "files copied", ""))
            (tile(took(f.elapsed_s()), if f.is_running() { "so far" } else { "from begin to end" }, ""))
            (tile(grouped(failures), "failures", if failures > 0 { "bad" } else { "good" }))
            @if let Some(s) = v.progress.eta_s { (tile(took(s as f64), "to go, about", "")) }
        }
    }
}

fn progress(v: &View<'_>) -> Markup {
    let (f, p) = (v.facts, &v.progress);
    if !f.is_running() {
        return html! {};
    }
    html! {
        section {
            h2 { "Progress" }
            @match (&p.total, p.percent) {
                (Some(total), Some(percent)) => {
                    div.track { i style=(format!("width:{percent:.2}%")) {} }
                    p {
                        b { (format!("{percent:.1} %")) } ": " (grouped(p.entries)) " of " (grouped(total.entries))
                        " files and directories, " (grouped(p.entries_per_s as u64)) "/s as of late"
                        @if let Some(s) = p.eta_s { ", about " (took(s as f64)) " to go" } "."
                    }
                    p.note { "The total is " (source(&total.source)) "." @if p.entries > total.entries { " There is more than that." } }
                }
                _ => {
                    p { (grouped(p.entries)) " files and directories, " (grouped(p.entries_per_s as u64)) "/s as of late." }
                    p.note { "How many there are is not known; --inodes N tells." }
                }
            }
            p.note { (grouped(f.outstanding)) @if f.outstanding == 1 { " task is outstanding." } @else { " tasks are outstanding." } }
        }
    }
}

fn rates(f: &Facts) -> Markup {
    let r = f.rates();
    let spans = r.in_spans(r.spans(SPANS));
    if spans.is_empty() {
        return html! {};
    }
    let number = |n: f64| {
        if n < 10.0 {
            format!("{}/s", (n * 100.0).round() / 100.0)
        } else {
            format!("{}/s", grouped(n.round() as u64))
        }
    };
    let bytes = |n: f64| format!("{}/s", show_size(n as u64));
    let seconds = r.seconds();
    let plot = |title: &str, colour: &str, values: Vec<f64>, show: fn(f64) -> String, binary: bool| {
        let most = values.iter().copied().fold(0.0, f64::max);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let p = OverTime { title, colour, seconds, values: &values, show, binary };
        html! {
            @if most > 0.0 {
                section {
                    h2 { (title) }
                    p.note { "mean " (show(mean)) " (dashed), most " (show(most)) " over " (took(seconds / values.len() as f64)) }
                    (over_time(&p))
                }
            }
        }
    };
    html! {
        (plot("Files and directories looked at", "a", spans.iter().map(|r| r.entries_per_s).collect(), number, false))
        (plot("Content copied", "b", spans.iter().map(|r| r.bytes_per_s).collect(), bytes, true))
        (plot("Entries deleted", "c", spans.iter().map(|r| r.deleted_per_s).collect(), number, false))
    }
}

fn failures(f: &Facts) -> Markup {
    if f.failure_groups.is_empty() {
        return html! {};
    }
    let row = |g: &FailureGroup| Row { label: g.name(), bars: vec![(g.count as f64, grouped(g.count))] };
    let rows: Vec<Row> = f.failure_groups.iter().take(BARS).map(row).collect();
    html! {
        section {
            h2 { "Failures" }
            p.note {
                (grouped(f.count("failures"))) " of them, by operation and error. "
                code { "treeferry report " (f.job) " --failures OP:ERRNO" } " lists all of a kind; "
                code { "treeferry sync" } " once more tries them again."
            }
            (bars("Failures by operation and error", LABEL, &["c"], &rows))
            (table(&[("count", true), ("what", false), ("examples", false)], f.failure_groups.iter().map(|g| html! {
                tr {
                    td.n { (grouped(g.count)) }
                    td { code { (g.name()) } " (" (g.side) ")" br; (harmless(&g.error, "")) }
                    td.path { ul { @for e in &g.examples { li { (path(e)) } } } }
                }
            }).collect()))
        }
    }
}

fn running(v: &View<'_>) -> Markup {
    let f = v.facts;
    if f.running.is_empty() {
        return html! {};
    }
    let title = if f.is_silent(v.now_ms) { "At work when it was last heard" } else { "At work now" };
    html! { section { h2 { (title) } p.note { "The longest first." } (tasks(&f.running)) } }
}

fn tasks(all: &[TaskRow]) -> Markup {
    let anywhere = all.iter().any(|t| t.worker.is_some());
    let mut head = vec![("time", true), ("work", false), ("where", false)];
    if anywhere {
        head.push(("worker", false));
    }
    table(
        &head,
        all.iter()
            .map(|t| {
                html! {
                    tr {
                        td.n { (brief(t.seconds)) }
                        td { (t.work) }
                        td.path { (path(&t.path)) }
                        @if anywhere { td { (t.worker.as_deref().unwrap_or("")) } }
                    }
                }
            })
            .collect(),
    )
}

fn unfinished(f: &Facts) -> Markup {
    if f.unfinished.is_empty() {
        return html! {};
    }
    html! {
        section {
            h2 { "Unfinished subtrees" }
            p.note { "Where something is left to do, by the tasks that are known of it; each may lead to more." }
            (table(&[("tasks", true), ("below", false)], f.unfinished.iter().map(|s| html! {
                tr { td.n { (grouped(s.tasks)) } td.path { (path(&s.path)) } }
            }).collect()))
        }
    }
}

fn sizes(f: &Facts) -> Markup {
    if f.sizes.is_empty() {
        return html! {};
    }
    let row = |c: &super::data::SizeClass| Row {
        label: class_name(c),
        bars: vec![
            (c.files as f64, format!("{} files", grouped(c.files))),
            (c.bytes as f64, show_size(c.bytes)),
        ],
    };
    let rows: Vec<Row> = f.sizes.iter().map(row).collect();
    html! {
        section {
            h2 { "Sizes of files" }
            p.keys { span { i.key.a {} "names of files" } span { i.key.b {} "bytes in them" } }
            (bars("Files by size", LABEL, &["a", "b"], &rows))
        }
    }
}

fn nodes(f: &Facts) -> Markup {
    if f.nodes.is_empty() {
        return html! {};
    }
    let row = |n: &super::data::NodeShare| {
        let count = |name: &str| n.counters.get(name).copied().unwrap_or(0);
        let entries = count("files").saturating_add(count("dirs"));
        let bytes = count("copied_bytes");
        Row {
            label: n.node.clone(),
            bars: vec![
                (entries as f64, format!("{} entries", grouped(entries))),
                (bytes as f64, show_size(bytes)),
            ],
        }
    };
    let mut rows: Vec<Row> = f.nodes.iter().map(row).collect();
    rows.sort_by(|a, b| b.bars[0].0.total_cmp(&a.bars[0].0));
    let left = rows.len().saturating_sub(BARS);
    rows.truncate(BARS);
    html! {
        section {
            h2 { "Nodes" }
            p.keys { span { i.key.a {} "files and directories looked at" } span { i.key.b {} "content copied" } }
            (bars("What each node has done", LABEL, &["a", "b"], &rows))
            @if left > 0 { p.note { "and " (grouped(left as u64)) " more, that did less" } }
        }
    }
}

fn largest(f: &Facts) -> Markup {
    html! {
        @if !f.largest_dirs.is_empty() {
            section {
                h2 { "Largest directories" }
                (table(&[("entries", true), ("directory", false)], f.largest_dirs.iter().map(|d| html! {
                    tr { td.n { (grouped(d.entries)) } td.path { (path(&d.path)) } }
                }).collect()))
            }
        }
        @if !f.largest_files.is_empty() {
            section {
                h2 { "Largest files" }
                (table(&[("size", true), ("file", false)], f.largest_files.iter().map(|r| html! {
                    tr { td.n { (show_size(r.bytes)) } td.path { (path(&r.path)) } }
                }).collect()))
            }
        }
    }
}

fn slowest(f: &Facts) -> Markup {
    let row = |r: &FileRow| {
        let seconds = r.seconds.unwrap_or(0.0);
        html! {
            tr {
                td.n { (brief(seconds)) }
                td.n { (show_size(r.bytes)) }
                td.n { (rate(r.bytes, seconds)) }
                td.path { (path(&r.path)) }
            }
        }
    };
    html! {
        @if !f.slowest_files.is_empty() {
            section {
                h2 { "Slowest files" }
                p.note { "By the time that their copy took, from the first byte to the name." }
                (table(&[("time", true), ("size", true), ("rate", true), ("file", false)], f.slowest_files.iter().map(row).collect()))
            }
        }
        @if !f.longest_tasks.is_empty() {
            section {
                h2 { "Longest tasks" }
                p.note { "Pieces of work as they were handed out: a directory, a batch of names, a part of a file." }
                (tasks(&f.longest_tasks))
            }
        }
    }
}

fn counts(f: &Facts) -> Markup {
    html! {
        section {
            h2 { "Counts" }
            (table(&[("what", false), ("count", true), ("meaning", false)], f.counted().into_iter().map(|(name, n, meaning)| html! {
                tr { td { (words(name)) } td.n { (amount(name, n)) } td { (meaning) } }
            }).collect()))
        }
    }
}

/// A table whose first rows are shown, and the rest if somebody wants to see it. A column of numbers is set to the right.
fn table(head: &[(&str, bool)], mut rows: Vec<Markup>) -> Markup {
    let rest = rows.split_off(rows.len().min(ROWS));
    let head = html! { thead { tr { @for (name, is_number) in head { th.n[*is_number] { (name) } } } } };
    html! {
        div.scroll { table { (head) tbody { @for r in &rows { (r) } } } }
        @if !rest.is_empty() {
            details {
                summary { (rest.len()) " more" }
                div.scroll { table { (head) tbody { @for r in &rest { (r) } } } }
            }
        }
    }
}

/// A path: as it is written in every voice of the program, and isolated from what is around it.
fn path(p: &str) -> Markup {
    html! { bdi.path { (p) } }
}

#[cfg(test)]
mod tests {
    use super::super::data::{Total, TotalSource};
    use super::super::samples;
    use super::*;

    fn shown(f: &Facts) -> String {
        let total = Some(Total { entries: f.entries().saturating_mul(2), source: TotalSource::Given });
        page(&View { facts: f, progress: f.progress(total), now_ms: f.seen_ms })
    }

    #[test]
    fn what_is_put_in_stays_text() {
        let page = shown(&samples::odd());
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("<b>root"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(page.contains("lost \\#033[31m"), "no control characters");
        assert!(page.chars().all(|c| c == '\n' || !c.is_control()));
    }

    #[test]
    fn a_page_needs_nothing_from_elsewhere_and_runs_no_script() {
        for f in [samples::empty(), samples::running(), samples::odd(), samples::huge()] {
            let page = shown(&f);
            for word in ["http://", "https://", "src=\"", "href=", "url(", "@import", "javascript:", "onload"]
            {
                assert!(!page.contains(word), "{word}");
            }
            assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>"));
            assert!(!page.contains("NaN") && !page.contains("inf\""), "a number that is none");
        }
    }

    #[test]
    fn every_part_is_there_if_there_is_something_in_it() {
        let (running, odd, empty) =
            (shown(&samples::running()), shown(&samples::odd()), shown(&samples::empty()));
        for (word, in_running, in_odd) in [
            ("<h2>Progress</h2>", true, false),
            ("<h2>Files and directories looked at</h2>", true, true),
            ("<h2>Content copied</h2>", true, true),
            ("<h2>Entries deleted</h2>", false, false),
            ("<h2>Failures</h2>", false, true),
            ("<h2>At work now</h2>", true, false),
            ("<h2>Unfinished subtrees</h2>", true, false),
            ("<h2>Sizes of files</h2>", true, true),
            ("<h2>Nodes</h2>", true, true),
            ("<h2>Largest directories</h2>", true, true),
            ("<h2>Slowest files</h2>", true, true),
            ("<h2>Longest tasks</h2>", true, true),
            ("<h2>Counts</h2>", true, true),
        ] {
            assert_eq!((running.contains(word), odd.contains(word)), (in_running, in_odd), "{word}");
        }
        assert_eq!(empty.matches("<h2>").count(), 2, "progress and counts: {empty}");
        assert!(running.contains("50.0 %") && running.contains("class=\"state busy\""));
    }

    #[test]
    fn a_page_stays_small_enough_to_be_mailed() {
        assert!(shown(&samples::huge()).len() < 1 << 20);
    }

    #[test]
    #[ignore = "for the eye: TREEFERRY_PAGES=DIR cargo test -p treeferry pages -- --ignored"]
    fn pages_of_all_samples_can_be_written() {
        let dir = std::env::var_os("TREEFERRY_PAGES").expect("where to");
        for (name, f) in [
            ("empty", samples::empty()),
            ("running", samples::running()),
            ("done", samples::done()),
            ("odd", samples::odd()),
            ("huge", samples::huge()),
        ] {
            std::fs::write(std::path::Path::new(&dir).join(format!("{name}.html")), shown(&f)).unwrap();
        }
    }
}
