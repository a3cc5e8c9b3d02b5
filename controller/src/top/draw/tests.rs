use super::super::model::News;
use super::super::model::tests::{job, model, node, press, task};
use super::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::KeyCode;
use ratatui::style::{Color, Modifier};
use treeferry_core::{Counters, Failure, JobSpec, RelPath, Side};
use treeferry_queue::{Refusal, RunningTask};

fn buffer(m: &Model, look: Look, width: u16, height: u16) -> Buffer {
    let mut t = Terminal::new(TestBackend::new(width, height)).unwrap();
    t.draw(|f| draw(m, look, f.area(), f.buffer_mut())).unwrap();
    t.backend().buffer().clone()
}

/// The lines of a screen; each has its width, whatever is in it.
fn lines(m: &Model, look: Look, width: u16, height: u16) -> Vec<String> {
    let b = buffer(m, look, width, height);
    let line = |y| (0..width).map(|x| b[(x, y)].symbol()).collect::<String>();
    (0..height).map(line).collect()
}

fn text(m: &Model, look: Look, width: u16, height: u16) -> String {
    lines(m, look, width, height).iter().map(|l| format!("{}\n", l.trim_end())).collect()
}

fn queue(name: &str, ready: u64, unacked: u64, consumers: u64) -> QueueRow {
    QueueRow { name: format!("treeferry.{name}"), ready, unacked, consumers }
}

/// A cluster at work, as it is at second 60.
fn at_work() -> Model {
    let at = 60_000;
    let mut a = node("n1-4711", 3, 4, at);
    a.tasks = vec![task(2, "projects/alpha/run-17", 3_200), task(2, "home/u1", 900), task(2, "x", 10)];
    let b = NodeReport { paused: true, ..node("n2-99", 0, 4, at) };
    let h = NodeReport { kind: "hardlinker".into(), ..node("h1-12", 0, 1, at) };
    let before = JobRow { state: JobState::Done, ended_ms: Some(10), ..job(1, 24_000) };
    let running = |files| {
        let mut j = job(2, files);
        (j.counters.failures, j.counters.dirs) = (2, 0);
        j
    };
    let nodes = vec![a, b, h];
    let mut m = model(vec![running(5_000), before.clone()], nodes.clone(), 50_000);
    m.on_time(at);
    let view = crate::view::View::new(vec![running(6_000), before], nodes, at, crate::view::Which::Recent(9));
    m.on_news(News::View(view));
    m.on_news(News::Queues(Ok(vec![
        queue("walk", 12, 3, 2),
        queue("copy", 123_456, 0, 2),
        queue("links", 0, 1, 1),
        queue("dirtime", 0, 0, 2),
        queue("dead", 0, 0, 0),
    ])));
    let fail =
        |path: &[u8], errno| Failure::errno(RelPath::new(path).unwrap(), Side::Target, "rename", errno);
    m.on_news(News::Failures(treeferry_core::JobId(2), vec![fail(b"home/u2/last", 28), fail(b"first", 13)]));
    m.on_time(at + 2_000);
    m
}

#[test]
fn a_screen_of_80x24_shows_all() {
    let want = " treeferry top: 1 job running, 3 workers, 3/9 threads busy           data 2 s old
Jobs -------------------------------------------------------------------------
>0000000000000002 running     /mnt/old/data -> /mnt/new/data
 0000000000000001 done        /mnt/old/data -> /mnt/new/data
  6,000 entries, 5.86 GiB copied, 2 failures
";
    let got = text(&at_work(), Look::PLAIN, 80, 24);
    let rows: Vec<&str> = got.lines().collect();
    assert_eq!(rows.len(), 24, "{got}");
    for (n, l) in want.lines().enumerate() {
        let head: String = l.trim_end_matches('-').chars().take(60).collect();
        assert!(rows[n].starts_with(head.trim_end()), "line {n}\n{got}");
    }
    for part in [
        "about 25 % done, 3 min 00 s to go",
        "100 entries/s",
        "100.0 MiB/s copied",
        "Queues     walk  copy links dirtime  dead",
        "ready        12  123k     0       0     0",
        "held          3     0     1       0     0",
        "consumers     2     2     1       2     0",
        "*n1-4711",
        "busy           3/4 [",
        "paused         0/4 [....",
        "hardlinker idle           0/1",
        "Running tasks of the chosen job, longest first",
        "        3.2 s walk       n1-4711          projects/alpha/run-17",
        "Failures of the chosen job, the latest of 2",
        "rename: No space left on device  home/u2/last",
        "q quit  ? help",
    ] {
        assert!(got.contains(part), "{part}\n{got}");
    }
    assert!(rows[0].ends_with("data 2 s old"), "{got}");
}

#[test]
fn a_larger_screen_has_room_for_more_rows() {
    let mut m = model(
        (1..30).rev().map(|n| job(n, n)).collect(),
        (0..30).map(|n| node(&format!("w{n}-1"), n, 30, 0)).collect(),
        0,
    );
    let shown = |m: &Model, w, h| {
        let t = text(m, Look::PLAIN, w, h);
        (t.matches(" -> /mnt/new/data").count(), t.matches("-1  ").count(), t)
    };
    let (jobs, workers, _) = shown(&m, 80, 24);
    assert_eq!((jobs, workers), (5, 5), "what tasks and failures do not need");
    let (jobs, workers, t) = shown(&m, 120, 40);
    assert!(jobs >= 9 && workers >= 9, "{t}");
    assert!(t.contains(&format!("Jobs (1-{jobs} of 29)")), "{t}");
    // the chosen one is in sight wherever it is
    for key in [KeyCode::End, KeyCode::Up, KeyCode::Home, KeyCode::PageDown] {
        press(&mut m, key);
        let id = m.job().unwrap().id.to_string();
        assert!(shown(&m, 80, 24).2.contains(&format!(">{id}")), "{key:?}");
    }
}

#[test]
fn a_small_screen_shows_the_chosen_job_and_says_what_it_lacks() {
    let mut m = at_work();
    let t = text(&m, Look::PLAIN, 40, 10);
    for part in [
        " 1 job, 3/9 threads",
        "data 2 s old",
        ">running 0000000000000002",
        " 6,000 entries, 100/s",
        "100.0 MiB/s",
        " 2 failures, about 25 % done",
        " queues: 123,468 ready, 4 held",
        "80x24 shows all; here 40x10. ? help",
    ] {
        assert!(t.contains(part), "{part}\n{t}");
    }
    press(&mut m, KeyCode::Tab);
    assert!(text(&m, Look::PLAIN, 40, 10).contains(">busy     3/4 n1-4711"));
    press(&mut m, KeyCode::Char('+'));
    let t = text(&m, Look::PLAIN, 40, 10);
    assert!(t.contains("asked, not yet answered: 5 threads"), "{t}");
}

#[test]
fn any_size_can_be_drawn() {
    let mut m = at_work();
    for key in
        [None, Some(KeyCode::Char('?')), Some(KeyCode::Esc), Some(KeyCode::Char('c')), Some(KeyCode::Esc)]
    {
        if let Some(key) = key {
            press(&mut m, key);
        }
        for (w, h) in
            [(1, 1), (2, 1), (1, 5), (7, 3), (20, 2), (39, 9), (79, 24), (80, 23), (200, 60), (300, 100)]
        {
            for look in [Look::FULL, Look::PLAIN] {
                assert_eq!(lines(&m, look, w, h).len(), usize::from(h));
            }
        }
    }
    draw(&m, Look::FULL, Rect::new(0, 0, 0, 0), &mut Buffer::empty(Rect::new(0, 0, 0, 0)));
}

#[test]
fn nothing_is_told_by_colour_or_attribute_alone() {
    let m = at_work();
    let plain = buffer(&m, Look::PLAIN, 80, 24);
    for cell in plain.content() {
        assert_eq!((cell.fg, cell.bg, cell.modifier), (Color::Reset, Color::Reset, Modifier::empty()));
        assert!(cell.symbol().is_ascii(), "{}", cell.symbol());
    }
    // the same words in both, but for the characters of charts and rules
    let words = |look| {
        let t = text(&m, look, 80, 24);
        t.split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|w| !w.is_empty())
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let keys = |w: Vec<String>| w.into_iter().filter(|w| w != "Up" && w != "Down").collect::<Vec<_>>();
    assert_eq!(keys(words(Look::FULL)), keys(words(Look::PLAIN)));
    let full = buffer(&m, Look::FULL, 80, 24);
    assert!(full.content().iter().any(|c| c.fg == Color::Green), "there is colour where it is wanted");
}

#[test]
fn a_cluster_without_jobs_and_workers_says_what_to_do() {
    let mut m = Model::new(Source::Cluster, 0);
    let t = text(&m, Look::PLAIN, 80, 24);
    assert!(t.contains("no data yet") && t.contains("asking the cluster ..."), "{t}");
    assert!(t.contains("not yet known") && !t.contains("none"), "{t}");
    m.on_news(News::View(crate::view::View::default()));
    m.on_news(News::Queues(Err("connection refused\u{1b}[2J: ".repeat(9))));
    let t = text(&m, Look::PLAIN, 80, 24);
    assert!(t.contains("none: start some with 'treeferry worker'"), "{t}");
    assert!(
        t.contains("Queues: the broker does not tell") && t.contains("connection refused\\#033[2J"),
        "{t}"
    );
    assert!(text(&m, Look::PLAIN, 40, 10).contains("no jobs"));
}

#[test]
fn odd_names_keep_the_screen_whole() {
    let at = 1000;
    let names: [&[u8]; 5] = [
        b"/esc\x1b[31m\x07\n\ttab",
        "/漢字/かな/한글-wide".as_bytes(),
        b"/not\xff\xfeutf8",
        "/e\u{301}\u{202e}gnp\u{200b}.exe".as_bytes(),
        &[b'x'; 4000],
    ];
    use std::os::unix::ffi::OsStrExt;
    for name in names {
        let path = std::ffi::OsStr::from_bytes(name);
        let mut j = job(1, 3);
        j.spec = JobSpec::new(path, path);
        (j.counters.failures, j.why) = (1, String::from_utf8_lossy(name).into_owned());
        let odd = String::from_utf8_lossy(name).into_owned();
        let mut n = node(&odd, 1, 2, at);
        n.tasks = vec![RunningTask { path: odd.clone(), work: odd.clone(), ..task(1, "", 5) }];
        n.refused = vec![Refusal { job: odd.clone(), why: odd.clone() }];
        let mut m = model(vec![j], vec![n], at);
        m.on_news(News::Failures(
            treeferry_core::JobId(1),
            vec![Failure::finding(RelPath::new(&name[1..]).unwrap(), Side::Source, &odd, odd.clone())],
        ));
        m.on_news(News::Queues(Ok(vec![QueueRow { name: odd.clone(), ..queue("", 1, 1, 1) }])));
        m.on_news(News::Trouble(odd));
        for keys in 0..3 {
            match keys {
                1 => drop(press(&mut m, KeyCode::Tab)),
                2 => drop(press(&mut m, KeyCode::Char('c'))),
                _ => {}
            }
            for (look, (w, h)) in [(Look::FULL, (80, 24)), (Look::PLAIN, (120, 40)), (Look::FULL, (40, 10))] {
                let b = buffer(&m, look, w, h);
                let control = b.content().iter().find(|c| c.symbol().chars().any(char::is_control));
                assert!(control.is_none(), "{control:?}");
                assert!(!b.content().iter().any(|c| c.symbol().contains('\u{202e}')));
                // the frame stands where it should: no name has moved what is beside it
                if h >= 24 {
                    let rows = lines(&m, look, w, h);
                    assert!(rows[0].trim_end().ends_with("data 0 s old"), "{rows:#?}");
                    assert!(rows[usize::from(h) - 1].starts_with(" q quit"), "{rows:#?}");
                    // the question lies above the workers
                    let sees_workers = keys == 2 || rows.iter().any(|r| r.contains("1/2 ["));
                    assert!(sees_workers, "{rows:#?}");
                }
            }
        }
    }
}

#[test]
fn old_data_are_called_old() {
    let mut m = at_work();
    m.on_time(60_000 + 90_000);
    for (w, h) in [(80, 24), (40, 10)] {
        let t = text(&m, Look::PLAIN, w, h);
        assert!(t.contains("NO NEW DATA FOR 90 s") && t.contains("! the cluster does not answer"), "{t}");
    }
    assert!(text(&m, Look::PLAIN, 80, 24).contains("90 s ago"), "the queues too");
}

#[test]
fn help_and_confirmation_lie_above_everything_at_any_size() {
    let mut m = at_work();
    press(&mut m, KeyCode::Char('?'));
    let t = text(&m, Look::PLAIN, 80, 24);
    for key in HELP {
        assert!(t.contains(key.trim_end()), "{key}\n{t}");
    }
    // at 40x10 what does not fit is reached with the arrows
    assert!(text(&m, Look::PLAIN, 40, 10).contains(HELP[0]));
    for _ in 0..30 {
        press(&mut m, KeyCode::Down);
    }
    assert!(text(&m, Look::PLAIN, 40, 10).contains(HELP[19]));
    press(&mut m, KeyCode::Esc);
    press(&mut m, KeyCode::Char('c'));
    for (w, h) in [(80, 24), (40, 10), (40, 2)] {
        let t = text(&m, Look::PLAIN, w, h);
        assert!(t.contains("Cancel job 0000000000000002?") && t.contains("y: cancel it"), "{t}");
    }
}

#[test]
fn a_refusal_is_told_with_its_reason() {
    let mut n = node("w-1", 0, 2, 0);
    n.refused = vec![Refusal { job: "17".into(), why: "/mnt/old: not mounted".into() }];
    let mut m = model(vec![job(1, 1)], vec![n], 0);
    assert!(text(&m, Look::PLAIN, 80, 24).contains("refuses a job"));
    press(&mut m, KeyCode::Tab);
    assert!(text(&m, Look::PLAIN, 80, 24).contains("refuses job 17: /mnt/old: not mounted"));
}

#[test]
fn why_a_job_was_aborted_stands_with_it() {
    let mut j = job(1, 1);
    (j.state, j.why, j.counters) =
        (JobState::Aborted, "SRC is another directory now".into(), Counters::default());
    let t = text(&model(vec![j], vec![], 0), Look::PLAIN, 80, 24);
    assert!(t.contains("aborted") && t.contains("SRC is another directory now"), "{t}");
}

#[test]
fn rows_go_to_whoever_wants_them() {
    assert_eq!(share(12, [9, 9, 9, 9]), [3, 4, 3, 2]);
    assert_eq!(share(12, [1, 1, 0, 9]), [1, 1, 1, 9]);
    assert_eq!(share(16, [9, 9, 9, 9]), [4, 5, 4, 3]);
    assert_eq!(share(40, [2, 3, 1, 0]), [2, 3, 1, 1]);
}

#[test]
fn spans_and_numbers_are_short() {
    assert_eq!(
        [0, 99_999, 100_000, 5_999_999, 7_200_000].map(span),
        ["0 s", "99 s", "1 min", "99 min", "2 h"]
    );
    assert_eq!(
        [0, 99_999, 100_000, 9_999_999, u64::MAX].map(short_number)[..4],
        ["0", "99999", "100k", "9999k"]
    );
    assert!([0, 99_999, 123_456, 12_345_678, 99_999_999_999].iter().all(|n| short_number(*n).len() <= 5));
}
