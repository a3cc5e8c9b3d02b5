use super::*;
use crate::view::Which as Shown;
use treeferry_core::{Counters, JobSpec, RelPath, Side};

/// A job that runs since second 0.
pub fn job(id: u64, files: u64) -> JobRow {
    JobRow {
        id: JobId(id),
        spec: JobSpec::new("/mnt/old/data", "/mnt/new/data"),
        state: JobState::Running,
        paused: false,
        why: String::new(),
        created_ms: 0,
        ended_ms: None,
        outstanding: 7,
        counters: Counters { files, copied_bytes: files << 20, ..Counters::default() },
    }
}

/// A worker.
pub fn node(name: &str, busy: usize, pool: usize, at_ms: u64) -> NodeReport {
    NodeReport {
        worker: name.to_owned(),
        node: name.to_owned(),
        kind: "worker".to_owned(),
        busy,
        pool,
        seen_ms: at_ms,
        ..NodeReport::default()
    }
}

/// A task of a job.
pub fn task(job: u64, path: &str, age_ms: u64) -> RunningTask {
    RunningTask { job: JobId(job).to_string(), work: "walk".to_owned(), path: path.to_owned(), age_ms }
}

/// A model that has seen this, and nothing before.
pub fn model(jobs: Vec<JobRow>, nodes: Vec<NodeReport>, at_ms: u64) -> Model {
    let mut m = Model::new(Source::Cluster, at_ms);
    m.on_news(News::View(View::new(jobs, nodes, at_ms, Shown::Recent(20))));
    m
}

/// What a key does to it.
pub fn press(m: &mut Model, key: KeyCode) -> Option<Wish> {
    m.on_key(KeyEvent::new(key, KeyModifiers::NONE))
}

fn letter(m: &mut Model, c: char) -> Option<Wish> {
    press(m, KeyCode::Char(c))
}

fn look(m: &mut Model, jobs: Vec<JobRow>, nodes: Vec<NodeReport>, at_ms: u64) {
    m.on_time(at_ms);
    m.on_news(News::View(View::new(jobs, nodes, at_ms, Shown::Recent(20))));
}

fn answer(m: &mut Model, wish: Option<Wish>) -> Deed {
    let Some(Wish::Do(deed)) = wish else { panic!("nothing was asked: {wish:?} {:?}", m.line()) };
    m.on_news(News::Done(deed.clone(), Ok(())));
    deed
}

#[test]
fn what_is_chosen_stays_chosen_when_rows_come_and_go() {
    let mut m = model(vec![job(3, 1), job(2, 1), job(1, 1)], vec![], 0);
    let chosen = |m: &Model| m.job().map(|j| j.id.0);
    assert_eq!(chosen(&m), Some(3));
    look(&mut m, vec![job(4, 1), job(3, 1)], vec![], 1);
    assert_eq!(chosen(&m), Some(4), "as long as nobody has chosen, the newest");
    look(&mut m, vec![job(3, 1), job(2, 1), job(1, 1)], vec![], 2);
    press(&mut m, KeyCode::Down);
    assert_eq!(chosen(&m), Some(2));
    look(&mut m, vec![job(5, 1), job(3, 1), job(2, 1), job(1, 1)], vec![], 3);
    assert_eq!((chosen(&m), m.job_place()), (Some(2), Some(2)));
    press(&mut m, KeyCode::End);
    assert_eq!(chosen(&m), Some(1));
    press(&mut m, KeyCode::PageDown);
    assert_eq!(chosen(&m), Some(1));
    press(&mut m, KeyCode::Home);
    press(&mut m, KeyCode::Up);
    assert_eq!(chosen(&m), Some(5));
    look(&mut m, vec![], vec![], 4);
    assert_eq!(chosen(&m), None);
    press(&mut m, KeyCode::Down);
    press(&mut m, KeyCode::End);
    assert_eq!((chosen(&m), letter(&mut m, 'p'), letter(&mut m, 'c')), (None, None, None));
}

#[test]
fn keys_pause_and_resume_what_is_chosen_or_all() {
    let mut m = model(vec![job(2, 1), job(1, 1)], vec![node("a-1", 1, 2, 0), node("b-1", 1, 2, 0)], 0);
    press(&mut m, KeyCode::Down);
    let wish = letter(&mut m, 'p');
    assert_eq!(answer(&mut m, wish), Deed::Pause(Which::Job(JobId(1)), true));
    let wish = letter(&mut m, 'r');
    assert_eq!(answer(&mut m, wish), Deed::Pause(Which::Job(JobId(1)), false));
    press(&mut m, KeyCode::Tab);
    press(&mut m, KeyCode::Down);
    let wish = letter(&mut m, 'p');
    assert_eq!(answer(&mut m, wish), Deed::Pause(Which::Workers(vec!["b-1".into()]), true));
    let wish = letter(&mut m, 'P');
    assert_eq!(answer(&mut m, wish), Deed::Pause(Which::All, true));
    let wish = letter(&mut m, 'R');
    assert_eq!(answer(&mut m, wish), Deed::Pause(Which::All, false));
    assert_eq!(m.line().unwrap().text, "done: resume every worker");
}

#[test]
fn a_job_that_has_ended_is_left_alone() {
    let ended = JobRow { state: JobState::Done, ended_ms: Some(5), ..job(1, 1) };
    let mut m = model(vec![ended], vec![], 10);
    for key in ['p', 'r', 'c'] {
        assert_eq!(letter(&mut m, key), None);
        assert_eq!(m.line().unwrap().text, "job 0000000000000001 has ended: done");
        assert_eq!(m.overlay(), None);
    }
}

#[test]
fn a_job_is_cancelled_only_after_a_yes() {
    let mut m = model(vec![job(1, 1)], vec![], 0);
    for no in [KeyCode::Char('n'), KeyCode::Esc, KeyCode::Enter, KeyCode::Char('c'), KeyCode::Char('q')] {
        assert_eq!(letter(&mut m, 'c'), None);
        assert_eq!(m.overlay(), Some(&Overlay::Cancel(JobId(1))));
        assert_eq!(press(&mut m, no), None, "{no:?}");
        assert_eq!(m.overlay(), None);
    }
    letter(&mut m, 'c');
    // whoever is first by now: it is the job that was asked about which ends
    look(&mut m, vec![job(2, 1), job(1, 1)], vec![], 1);
    let wish = letter(&mut m, 'y');
    assert_eq!(answer(&mut m, wish), Deed::Cancel(JobId(1)));
    assert_eq!(letter(&mut m, 'y'), None);
}

#[test]
fn pools_grow_and_shrink_from_what_was_last_asked_for() {
    let mut m = model(vec![], vec![node("a-1", 1, 2, 0), node("b-1", 0, 1, 0)], 0);
    let link = NodeReport { kind: "hardlinker".into(), ..node("h-1", 0, 1, 0) };
    look(&mut m, vec![], vec![node("a-1", 1, 2, 0), node("b-1", 0, 1, 0), link.clone()], 1);
    assert_eq!(letter(&mut m, '+'), None, "no worker has the keys");
    let wish = letter(&mut m, '>');
    assert_eq!(answer(&mut m, wish), Deed::Pool(vec![("a-1".into(), 3), ("b-1".into(), 2)]));
    // reported is still the old size
    press(&mut m, KeyCode::Tab);
    let wish = letter(&mut m, '+');
    assert_eq!(answer(&mut m, wish), Deed::Pool(vec![("a-1".into(), 4)]));
    let wish = letter(&mut m, '<');
    assert_eq!(answer(&mut m, wish), Deed::Pool(vec![("a-1".into(), 3), ("b-1".into(), 1)]));
    let wish = letter(&mut m, '<');
    assert_eq!(answer(&mut m, wish), Deed::Pool(vec![("a-1".into(), 2), ("b-1".into(), 1)]), "at least one");
    // somebody else has set it meanwhile
    look(&mut m, vec![], vec![node("a-1", 1, 8, 0), link], HEARD_MS + 2);
    let wish = letter(&mut m, '-');
    assert_eq!(answer(&mut m, wish), Deed::Pool(vec![("a-1".into(), 7)]));
    press(&mut m, KeyCode::End);
    assert_eq!(letter(&mut m, '+'), None, "links are made one by one");
    assert!(m.line().unwrap().is_bad);
}

#[test]
fn nothing_is_asked_of_a_cluster_that_does_not_answer() {
    let mut m = Model::new(Source::Cluster, 0);
    assert_eq!(letter(&mut m, 'P'), None, "nothing is known yet");
    look(&mut m, vec![job(1, 1)], vec![], 10);
    let Some(Wish::Do(deed)) = letter(&mut m, 'P') else { panic!() };
    assert_eq!(letter(&mut m, 'R'), None, "the first was not answered");
    assert_eq!(m.line().unwrap().text, "not asked: there is no answer yet to: pause every worker");
    m.on_news(News::Done(deed, Err("no".into())));
    assert_eq!(m.line().unwrap(), Line { text: "not done: pause every worker: no".into(), is_bad: true });
    m.on_time(10 + OLD_MS + 1);
    assert_eq!((letter(&mut m, 'R'), letter(&mut m, 'c')), (None, None));
    assert_eq!(m.overlay(), None);
    assert_eq!(m.line().unwrap().text, "not asked: the cluster does not answer");
    // what only the screen has to do with works all the same
    assert_eq!(letter(&mut m, '?'), None);
    assert_eq!(m.overlay(), Some(&Overlay::Help(0)));
    press(&mut m, KeyCode::Down);
    assert_eq!(m.overlay(), Some(&Overlay::Help(1)));
    assert_eq!((letter(&mut m, 'x'), m.overlay()), (None, None));
    assert_eq!(letter(&mut m, 'q'), Some(Wish::Quit));
}

#[test]
fn trouble_is_shown_until_the_next_view() {
    let mut m = Model::new(Source::Cluster, 0);
    assert!(!m.line().unwrap().is_bad);
    m.on_news(News::Trouble("the ledger: refused".into()));
    assert_eq!(
        (m.line().unwrap().text.as_str(), m.never()),
        ("the ledger: refused", Some("the ledger: refused"))
    );
    look(&mut m, vec![], vec![], 10);
    assert_eq!((m.line(), m.never()), (None, None));
    assert!(!m.is_old());
    m.on_time(10 + OLD_MS + 1);
    assert!(m.is_old());
    assert_eq!(m.line().unwrap().text, "the cluster does not answer");
    m.on_news(News::Trouble("the ledger is away".into()));
    assert_eq!((m.line().unwrap().text.as_str(), m.never()), ("the ledger is away", None));
}

#[test]
fn control_c_leaves_and_other_chords_do_nothing() {
    let mut m = model(vec![job(1, 1)], vec![], 0);
    let mut chord = |c, with| m.on_key(KeyEvent::new(KeyCode::Char(c), with));
    assert_eq!(chord('p', KeyModifiers::CONTROL), None);
    assert_eq!(chord('q', KeyModifiers::ALT), None);
    assert_eq!(chord('l', KeyModifiers::CONTROL), Some(Wish::Redraw));
    assert_eq!(chord('c', KeyModifiers::CONTROL), Some(Wish::Quit));
}

#[test]
fn local_jobs_are_watched_and_not_steered() {
    let mut m = Model::new(Source::Local, 0);
    look(&mut m, vec![job(1, 1)], vec![node("host-9", 1, 2, 0)], 10);
    for key in ['p', 'P', 'r', 'R', '>', 'c'] {
        assert_eq!(letter(&mut m, key), None);
        assert!(m.line().unwrap().text.contains("kill -INT"), "{key}");
        assert_eq!(m.overlay(), None);
    }
}

#[test]
fn rates_and_charts_follow_time_and_not_the_number_of_views() {
    let mut m = model(vec![job(1, 0)], vec![], 0);
    for s in 1..=20 {
        // 100 a second up to the tenth, then 300
        let files = if s <= 10 { s * 100 } else { 1000 + (s - 10) * 300 };
        // some views come late
        if s % 3 != 0 {
            look(&mut m, vec![job(1, files)], vec![], s * 1000);
        }
    }
    let (entries, bytes) = m.rates(m.job().unwrap());
    assert_eq!((entries, bytes), (300.0, 300.0 * f64::from(1 << 20)));
    let chart = m.chart(JobId(1), 100, 2000, |p| p.entries);
    assert_eq!((chart.len(), chart[0], chart[9]), (10, 100, 300));
    assert_eq!(chart.iter().sum::<u64>() * 2, 4000, "nothing is lost by late views");
    assert_eq!(m.chart(JobId(1), 3, 2000, |p| p.entries), [300, 300, 300]);
    assert_eq!(m.chart(JobId(9), 3, 2000, |p| p.entries), [0; 0]);
}

#[test]
fn clocks_that_jump_and_counters_that_fall_do_no_harm() {
    let mut m = model(vec![job(1, 1000)], vec![], 100_000);
    look(&mut m, vec![job(1, 900)], vec![], 101_000);
    look(&mut m, vec![job(1, 950)], vec![], 50_000);
    look(&mut m, vec![job(1, 990)], vec![], 51_000);
    look(&mut m, vec![job(1, 991)], vec![], 51_000);
    let (entries, _) = m.rates(m.job().unwrap());
    assert!(entries.is_finite() && entries >= 0.0, "{entries}");
    assert!(m.chart(JobId(1), 10, 2000, |p| p.entries).iter().all(|r| *r < 1000));
    assert_eq!(m.age_ms(), Some(0));
}

#[test]
fn history_is_bounded_and_goes_with_its_job() {
    let mut m = model(vec![job(1, 0)], vec![], 0);
    for s in 1..3000 {
        look(&mut m, vec![job(1, s)], vec![], s * 1000);
    }
    assert_eq!(m.history[&JobId(1)].len(), SAMPLES);
    look(&mut m, vec![job(2, 0)], vec![], 3_000_000);
    assert_eq!(m.history.keys().collect::<Vec<_>>(), [&JobId(2)]);
}

#[test]
fn tasks_are_those_of_what_is_chosen_and_the_longest_comes_first() {
    let mut a = node("a-1", 2, 2, 0);
    a.tasks = vec![task(1, "short", 10), task(2, "other", 99)];
    let mut b = node("b-1", 1, 2, 0);
    b.tasks = vec![task(1, "long", 500)];
    let mut m = model(vec![job(1, 0), job(2, 0)], vec![a, b], 0);
    let paths = |m: &Model| m.tasks().iter().map(|(_, t)| t.path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(&m), ["long", "short"]);
    press(&mut m, KeyCode::Down);
    assert_eq!(paths(&m), ["other"]);
    press(&mut m, KeyCode::Tab);
    assert_eq!(paths(&m), ["other", "short"]);
}

#[test]
fn failures_are_shown_with_their_own_job_only() {
    let mut m = model(vec![job(1, 0), job(2, 0)], vec![], 0);
    let f = Failure::errno(RelPath::new(&b"a"[..]).unwrap(), Side::Target, "rename", 28);
    m.on_news(News::Failures(JobId(1), vec![f]));
    assert_eq!(m.failures().len(), 1);
    press(&mut m, KeyCode::Down);
    assert_eq!(m.failures().len(), 0);
}
