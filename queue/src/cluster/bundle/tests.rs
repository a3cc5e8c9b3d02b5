use super::*;
use treeferry_core::{Fresh, Kind, Seal};

fn path(s: &str) -> RelPath {
    RelPath::new(s).unwrap()
}
fn walk(s: &str) -> Work {
    Work::Walk { path: path(s), fresh: Fresh::Made, resume: None }
}
fn finish(s: &str) -> Work {
    Work::FinishDir { path: path(s), listed: true, fresh: Fresh::No, mode: None }
}
fn bundle(paths: &[&str]) -> Bundle {
    let mut b = Bundle::default();
    b.tasks.extend(paths.iter().flat_map(|p| Bundle::of(NewTask::new(None, walk(p))).tasks));
    b
}
fn paths(tasks: &[Task]) -> Vec<String> {
    tasks.iter().map(|t| t.work.path().to_string()).collect()
}

#[test]
fn a_join_that_begins_and_ends_here_is_never_told() {
    let mut h = Holding::new(bundle(&["a"]), false, false);
    let a = h.next().unwrap();
    let seal = Seal { join: JoinId(1), tally: 2, follow_up: NewTask::new(None, finish("a")) };
    let child = NewTask::new(Some(JoinId(1)), walk("a/b"));
    let out =
        Outcome { opened: vec![JoinId(1)], children: vec![child], seals: vec![seal], ..Outcome::default() };
    h.end(&a, out);
    let b = h.next().unwrap();
    h.end(&b, Outcome { tally: 3, ..Outcome::default() });
    let f = h.next().unwrap();
    assert_eq!((&f.work, f.tally), (&finish("a"), 5));
    h.end(&f, Outcome::default());
    assert!(h.is_done());
    assert_eq!(h.commit(0, true), Commit::default(), "nothing is left to be told");
}

#[test]
fn a_join_goes_to_the_ledger_with_a_task_that_is_given_away_and_takes_those_above_along() {
    let mut h = Holding::new(bundle(&[""]), false, false);
    let root = h.next().unwrap();
    let open = |id: u64, to: &str, out_of: Option<JoinId>, dir: &str| Outcome {
        opened: vec![JoinId(id)],
        children: vec![NewTask::new(Some(JoinId(id)), walk(to))],
        seals: vec![Seal { join: JoinId(id), tally: 0, follow_up: NewTask::new(out_of, finish(dir)) }],
        ..Outcome::default()
    };
    h.end(&root, open(1, "d", None, ""));
    let d = h.next().unwrap();
    h.end(&d, open(2, "d/e", d.join, "d"));
    let c = h.commit(0, true);
    assert_eq!(c.children.len(), 1);
    assert_eq!(c.rest, None);
    let (outer, inner) = (&c.joins[&JoinId(1)], &c.joins[&JoinId(2)]);
    assert!(outer.opened && inner.opened);
    assert_eq!((outer.count, inner.count), (1, 1), "the finishing of d, and d/e");
    assert_eq!(inner.follow_up.as_ref().and_then(|f| f.join), Some(JoinId(1)));
}

#[test]
fn the_oldest_are_given_away_in_as_many_bundles_as_are_wanted() {
    let mut h = Holding::new(bundle(&["a", "b", "c", "d", "e", "f"]), false, false);
    let c = h.commit(2, false);
    let given: Vec<_> = c.children.iter().map(|(lane, b)| (*lane, paths(&b.tasks))).collect();
    let named = |p: &[&str]| (Lane::Walk, p.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
    assert_eq!(given, [named(&["a", "c"]), named(&["b", "d"])]);
    assert_eq!(paths(&c.rest.unwrap().tasks), ["e", "f"]);
    assert_eq!(h.next().unwrap().work.path(), &path("f"), "the newest is run first");
}

#[test]
fn what_is_begun_again_is_not_fresh_any_more() {
    let mut h = Holding::new(bundle(&["a"]), false, true);
    assert_eq!(h.next().unwrap().work, Work::Walk { path: path("a"), fresh: Fresh::No, resume: None });
}

#[test]
fn work_of_the_other_kind_is_given_away_at_the_next_commit() {
    let key = GroupKey { dev: 0, ino: 1 };
    let mut h = Holding::new(bundle(&["a"]), false, false);
    let a = h.next().unwrap();
    let link = Work::Link { path: path("a/l"), kind: Kind::File, group: key };
    h.end(&a, Outcome { children: vec![NewTask::new(None, link)], ..Outcome::default() });
    assert!(h.has_news() && h.next().is_none());
    let c = h.commit(0, false);
    assert_eq!(c.children.iter().map(|(l, _)| *l).collect::<Vec<_>>(), [Lane::Links]);
}

#[test]
fn between_a_flush_and_the_end_a_commit_needs_to_know_how_to_go_on() {
    let mut h = Holding::new(bundle(&["a"]), false, false);
    let a = h.next().unwrap();
    let child = || Outcome { children: vec![NewTask::new(None, walk("a/b"))], ..Outcome::default() };
    h.flush(&a, child(), None);
    assert!(!h.is_committable());
    let rest = Task { work: walk("a/rest"), ..a.clone() };
    h.flush(&a, child(), Some(rest));
    assert!(h.is_committable());
    let c = h.commit(0, false);
    assert_eq!(paths(&c.rest.unwrap().tasks), ["a/b", "a/b", "a/rest"]);
}

#[test]
fn a_task_that_is_given_up_is_named_and_done() {
    let mut h = Holding::new(bundle(&["a"]), false, true);
    h.poison(20);
    let c = h.commit(0, true);
    assert!(c.rest.is_none() && c.children.is_empty());
    assert_eq!((c.failures.len(), c.counters.failures), (1, 1));
    assert_eq!(c.failures[0].path, path("a"));
}

#[test]
fn a_large_batch_is_divided_whatever_is_wanted() {
    let names: Vec<String> = (0..600).map(|i| format!("d{i}")).collect();
    let mut h = Holding::new(bundle(&names.iter().map(String::as_str).collect::<Vec<_>>()), false, false);
    let c = h.commit(1, true);
    assert!(c.children.iter().all(|(_, b)| b.tasks.len() <= BUNDLE_TASKS));
    assert_eq!(c.children.iter().map(|(_, b)| b.tasks.len()).sum::<usize>(), 600);
}
