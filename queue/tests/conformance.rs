//! What every engine must hold to. The cases know engines only by their verbs; a new engine is a new line in
//! `engines`.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use treeferry_core::job::JobState;
use treeferry_core::{
    Counters, Failure, Fresh, GroupKey, JobId, JoinId, Kind, NewTask, Notice, Outcome, RelPath, Seal, Side,
    Task, Work,
};
use treeferry_kit::rng::Rng;
use treeferry_kit::services::Services;
use treeferry_queue::{Claim, Engine, Lane, Leader, Node, Registry, Seat, Site, Take};

/// Every case.
const CASES: &[(&str, fn())] = &[
    ("a_job_ends_with_its_last_task_and_not_before", a_job_ends_with_its_last_task_and_not_before),
    (
        "a_join_releases_its_follow_up_once_with_the_sum_of_the_tallies",
        a_join_releases_its_follow_up_once_with_the_sum_of_the_tallies,
    ),
    (
        "a_follow_up_counts_out_of_the_join_that_it_stands_for",
        a_follow_up_counts_out_of_the_join_that_it_stands_for,
    ),
    (
        "links_wait_for_their_leader_and_a_late_one_does_not_wait_at_all",
        links_wait_for_their_leader_and_a_late_one_does_not_wait_at_all,
    ),
    (
        "names_that_waver_are_woken_when_nothing_else_is_left",
        names_that_waver_are_woken_when_nothing_else_is_left,
    ),
    (
        "what_is_to_be_tried_again_comes_back_with_its_attempt",
        what_is_to_be_tried_again_comes_back_with_its_attempt,
    ),
    ("counters_failures_and_notices_are_exact", counters_failures_and_notices_are_exact),
    (
        "figures_are_sums_and_the_best_of_what_was_committed",
        figures_are_sums_and_the_best_of_what_was_committed,
    ),
    ("a_job_that_was_stopped_says_what_it_has_not_done", a_job_that_was_stopped_says_what_it_has_not_done),
    (
        "a_cancelled_job_hands_out_nothing_and_is_interrupted",
        a_cancelled_job_hands_out_nothing_and_is_interrupted,
    ),
    ("a_seat_that_leaves_loses_nothing", a_seat_that_leaves_loses_nothing),
    (
        "a_join_that_was_never_opened_aborts_the_job_and_does_not_hang_it",
        a_join_that_was_never_opened_aborts_the_job_and_does_not_hang_it,
    ),
    (
        "random_trees_in_random_order_are_finished_once_and_bottom_up",
        random_trees_in_random_order_are_finished_once_and_bottom_up,
    ),
    ("many_threads_with_links_never_wait_for_each_other", many_threads_with_links_never_wait_for_each_other),
];

thread_local! {
    /// The cluster, while this thread tries the cases on it.
    static CLUSTER: RefCell<Option<Arc<Node>>> = const { RefCell::new(None) };
}

/// A fresh engine with no job begun: the embedded one, or on the thread that tries the cluster, that.
fn engines() -> Vec<(&'static str, Engine)> {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    CLUSTER.with_borrow(|node| match node {
        None => vec![("memory", Engine::memory())],
        Some(node) => vec![("cluster", Engine::cluster(node, JobId(NUMBER.fetch_add(1, Relaxed))))],
    })
}

/// Schedules to try: each call of the cluster crosses the loopback.
fn schedules() -> u64 {
    if CLUSTER.with_borrow(Option::is_some) { 60 } else { 2000 }
}

/// The cases below are tests of the embedded engine; this is the test of the other, on real servers.
#[test]
fn the_cluster_engine_holds_to_every_case() {
    let services = Services::start();
    let site = Site::new(services.broker.clone(), services.ledger.clone());
    let node = Node::connect(&site, "conformance").unwrap();
    node.listen(&Lane::ALL, 100);
    CLUSTER.set(Some(node));
    for (name, case) in CASES {
        println!("{name}");
        case();
    }
    CLUSTER.set(None);
}

const SOON: Duration = Duration::from_secs(60);

fn path(s: &str) -> RelPath {
    RelPath::new(s).unwrap()
}
fn walk(s: &str) -> Work {
    Work::Walk { path: path(s), fresh: Fresh::No, resume: None }
}
fn finish(s: &str) -> Work {
    Work::FinishDir { path: path(s), listed: true, fresh: Fresh::No, mode: None }
}
fn next(seat: &mut Seat) -> Task {
    loop {
        match seat.take(SOON) {
            Take::Task(t) => return t,
            Take::Idle => {}
            Take::Over => panic!("the job is over"),
        }
    }
}
fn is_over(seat: &mut Seat) -> bool {
    matches!(seat.take(Duration::ZERO), Take::Over)
}

#[test]
fn a_job_ends_with_its_last_task_and_not_before() {
    for (name, e) in engines() {
        e.begin(NewTask::new(None, walk("")));
        let mut seat = e.seat();
        let root = next(&mut seat);
        assert_eq!(e.status().outstanding, 1, "{name}: a running task is outstanding");
        let children = vec![NewTask::new(None, walk("a")), NewTask::new(None, walk("b"))];
        seat.commit(&root, Outcome { children, ..Outcome::default() });
        for _ in 0..2 {
            // how much is left is counted in tasks here and in bundles there
            assert!(e.status().outstanding > 0 && e.status().state == JobState::Running, "{name}");
            assert!(!e.wait(Duration::ZERO), "{name}");
            let t = next(&mut seat);
            seat.commit(&t, Outcome::default());
        }
        assert!(is_over(&mut seat) && e.wait(Duration::ZERO), "{name}");
        assert_eq!(e.status().state, JobState::Done, "{name}");
    }
}

#[test]
fn a_join_releases_its_follow_up_once_with_the_sum_of_the_tallies() {
    for (name, e) in engines() {
        e.begin(NewTask::new(None, walk("")));
        let mut seat = e.seat();
        let root = next(&mut seat);
        let j = JoinId(7);
        // opened and filled by an early commit, sealed by the last
        let mut early = Outcome {
            opened: vec![j],
            children: vec![NewTask::new(Some(j), walk("a"))],
            ..Outcome::default()
        };
        seat.flush(&root, &mut early, None);
        assert!(early.is_empty(), "{name}: what was given away is not given away again");
        let a = next(&mut seat);
        assert_eq!(a.work, walk("a"));
        seat.commit(&a, Outcome { tally: 5, ..Outcome::default() });
        assert!(matches!(seat.take(Duration::ZERO), Take::Idle), "{name}: held by its opener");
        let seal = Seal { join: j, tally: 2, follow_up: NewTask::new(None, finish("")) };
        let b = NewTask::new(Some(j), walk("b"));
        seat.commit(&root, Outcome { seals: vec![seal], children: vec![b], ..Outcome::default() });
        let b = next(&mut seat);
        assert!(matches!(seat.take(Duration::ZERO), Take::Idle), "{name}: b is not done");
        seat.commit(&b, Outcome { tally: 1, ..Outcome::default() });
        let f = next(&mut seat);
        assert_eq!((&f.work, f.tally), (&finish(""), 8), "{name}");
        seat.commit(&f, Outcome::default());
        assert!(is_over(&mut seat) && e.wait(Duration::ZERO), "{name}");
    }
}

#[test]
fn a_follow_up_counts_out_of_the_join_that_it_stands_for() {
    for (name, e) in engines() {
        e.begin(NewTask::new(None, walk("")));
        let mut seat = e.seat();
        let root = next(&mut seat);
        let (outer, inner) = (JoinId(1), JoinId(2));
        let seal =
            |join, w: Work, out: Option<JoinId>| Seal { join, tally: 0, follow_up: NewTask::new(out, w) };
        seat.commit(
            &root,
            Outcome {
                opened: vec![outer],
                children: vec![NewTask::new(Some(outer), walk("d"))],
                seals: vec![seal(outer, finish(""), None)],
                ..Outcome::default()
            },
        );
        let d = next(&mut seat);
        seat.commit(
            &d,
            Outcome {
                opened: vec![inner],
                children: vec![NewTask::new(Some(inner), walk("d/e"))],
                seals: vec![seal(inner, finish("d"), d.join)],
                ..Outcome::default()
            },
        );
        for expected in [walk("d/e"), finish("d"), finish("")] {
            let t = next(&mut seat);
            assert_eq!(t.work, expected, "{name}");
            seat.commit(&t, Outcome::default());
        }
        assert!(is_over(&mut seat) && e.wait(Duration::ZERO), "{name}");
    }
}

#[test]
fn links_wait_for_their_leader_and_a_late_one_does_not_wait_at_all() {
    for (name, e) in engines() {
        let key = GroupKey { dev: 1, ino: 2 };
        let link = |p: &str| NewTask::new(None, Work::Link { path: path(p), kind: Kind::File, group: key });
        e.begin(NewTask::new(None, walk("")));
        let mut seat = e.seat();
        let root = next(&mut seat);
        assert_eq!(seat.registry().claim(key, 3, &path("a"), false), Claim::Lead);
        assert_eq!(seat.registry().claim(key, 3, &path("b"), false), Claim::Wait);
        let mut early = Outcome { parked: vec![(key, link("b"))], ..Outcome::default() };
        seat.flush(&root, &mut early, None);
        assert!(matches!(seat.take(Duration::ZERO), Take::Idle), "{name}");
        assert!(e.status().outstanding > 0, "{name}: what waits is outstanding");
        let leader = Leader { path: path("a"), target: Some((8, 9)), links: 1 };
        seat.registry().ready(key, leader.clone());
        assert_eq!(seat.registry().claim(key, 3, &path("c"), false), Claim::Follow(leader), "{name}");
        let out = Outcome { released: vec![key], parked: vec![(key, link("c"))], ..Outcome::default() };
        seat.commit(&root, out);
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..2 {
            let t = next(&mut seat);
            names.insert(t.work.path().to_string());
            seat.commit(&t, Outcome::default());
        }
        assert_eq!(names.len(), 2, "{name}");
        assert!(is_over(&mut seat) && e.wait(Duration::ZERO), "{name}");
    }
}

#[test]
fn names_that_waver_are_woken_when_nothing_else_is_left() {
    for (name, e) in engines() {
        let key = GroupKey { dev: 1, ino: 2 };
        e.begin(NewTask::new(None, walk("")));
        let mut seat = e.seat();
        let root = next(&mut seat);
        assert_eq!(seat.registry().claim(key, 5, &path("a"), true), Claim::Wait, "{name}");
        let link = NewTask::new(None, Work::Link { path: path("a"), kind: Kind::File, group: key });
        seat.flush(&root, &mut Outcome { parked: vec![(key, link)], ..Outcome::default() }, None);
        assert!(matches!(seat.take(Duration::ZERO), Take::Idle), "{name}: the root may find a better one");
        seat.commit(&root, Outcome::default());
        let t = next(&mut seat);
        assert_eq!(seat.registry().claim(key, 0, t.work.path(), false), Claim::Lead, "{name}");
        seat.commit(&t, Outcome::default());
        assert!(is_over(&mut seat) && e.wait(Duration::ZERO), "{name}");
    }
}

#[test]
fn what_is_to_be_tried_again_comes_back_with_its_attempt() {
    for (name, e) in engines() {
        e.begin(NewTask::new(None, walk("")));
        let mut seat = e.seat();
        let root = next(&mut seat);
        let again = NewTask { join: None, attempt: 3, work: walk("a") };
        seat.commit(&root, Outcome { later: vec![again], ..Outcome::default() });
        let t = next(&mut seat);
        assert_eq!((t.attempt, &t.work), (3, &walk("a")), "{name}");
        seat.commit(&t, Outcome::default());
        assert!(is_over(&mut seat) && e.wait(Duration::ZERO), "{name}");
    }
}

#[test]
fn counters_failures_and_notices_are_exact() {
    for (name, e) in engines() {
        e.begin(NewTask::new(None, walk("")));
        let mut seat = e.seat();
        let t = next(&mut seat);
        let mut out =
            Outcome { counters: Counters { files: 3, ..Counters::default() }, ..Outcome::default() };
        out.fail(Failure::errno(path("x"), Side::Target, "write", 28));
        out.notice(Notice::OwnerLeftOut);
        seat.flush(&t, &mut out, None);
        out.counters.files += 1;
        assert_eq!(seat.commit(&t, out), [Notice::OwnerLeftOut], "{name}: said when the task ends");
        assert!(is_over(&mut seat), "{name}");
        let s = e.status();
        assert_eq!((s.counters.files, s.counters.failures, s.failures.len()), (4, 1, 1), "{name}");
        assert_eq!(s.state, JobState::Failed, "{name}");
    }
}

#[test]
fn figures_are_sums_and_the_best_of_what_was_committed() {
    use treeferry_core::records::{Best, Record, Records};
    for (name, e) in engines() {
        e.begin(NewTask::new(None, walk("")));
        let mut seat = e.seat();
        let root = next(&mut seat);
        let mut out = Outcome::default();
        let mut want = treeferry_core::Figures::default();
        for i in 0..40u64 {
            // one that is there twice, with the lesser value last
            let odd =
                RelPath::new([b"o:d\n\xff".as_slice(), i.min(38).to_string().as_bytes()].concat()).unwrap();
            let value = if i == 39 { 5 } else { 1000 + i * 7 % 40 };
            for best in Best::ALL {
                out.records.push(Record {
                    best,
                    value,
                    note: format!("note{}", i.min(38)),
                    path: odd.clone(),
                });
            }
            out.sizes.count(i * i * 1000);
            out.fail(Failure::errno(path(&format!("f{i}")), Side::Source, "openat", 13 - (i % 2) as i32));
        }
        // told in two parts, of which the second says some of the first again
        let again = Outcome { records: out.records.clone(), ..Outcome::default() };
        for part in [&out, &again] {
            want.add(&part.sizes, part.records.clone(), &part.failures);
        }
        seat.flush(&root, &mut out, None);
        seat.commit(&root, again);
        assert!(is_over(&mut seat), "{name}");
        let got = e.figures();
        for best in Best::ALL {
            let values =
                |f: &treeferry_core::Figures| f.records.of(best).iter().map(|r| r.value).collect::<Vec<_>>();
            assert_eq!(values(&got), values(&want), "{name}");
            let sorted = |f: &treeferry_core::Figures| {
                let mut all = f.records.of(best).to_vec();
                all.sort_by(|a, b| a.path.cmp(&b.path));
                all
            };
            assert_eq!(sorted(&got), sorted(&want), "{name}");
            assert_eq!(got.records.of(best).len(), Records::KEPT, "{name}");
        }
        assert_eq!((got.sizes, got.failures), (want.sizes, want.failures), "{name}");
    }
}

#[test]
fn a_job_that_was_stopped_says_what_it_has_not_done() {
    for (name, e) in engines() {
        e.begin(NewTask::new(None, walk("")));
        let mut seat = e.seat();
        let root = next(&mut seat);
        let dirs = ["a", "b/c", "b/d"];
        let children = dirs.iter().map(|d| NewTask::new(None, walk(d))).collect();
        seat.commit(&root, Outcome { children, ..Outcome::default() });
        let one = next(&mut seat);
        e.cancel();
        seat.leave(one);
        drop(seat);
        let mut left: Vec<String> = e.unfinished().iter().map(|p| p.to_string()).collect();
        left.sort();
        left.dedup();
        // the ledger of a cluster has what was committed: the root, where nothing was since
        let whole = name == "cluster" && left == ["."];
        assert!(whole || left == dirs, "{name}: {left:?}");
    }
}

#[test]
fn a_cancelled_job_hands_out_nothing_and_is_interrupted() {
    for (name, e) in engines() {
        e.begin(NewTask::new(None, walk("")));
        let mut seat = e.seat();
        e.cancel();
        assert!(is_over(&mut seat) && e.wait(Duration::ZERO), "{name}");
        assert_eq!(e.status().state, JobState::Interrupted, "{name}");
    }
}

#[test]
fn a_seat_that_leaves_loses_nothing() {
    for (name, e) in engines() {
        e.begin(NewTask::new(None, walk("")));
        let mut seat = e.seat();
        let t = next(&mut seat);
        seat.commit(&t, Outcome { children: vec![NewTask::new(None, walk("a"))], ..Outcome::default() });
        drop(seat);
        let mut other = e.seat();
        assert_eq!(next(&mut other).work, walk("a"), "{name}");
    }
}

#[test]
fn a_join_that_was_never_opened_aborts_the_job_and_does_not_hang_it() {
    for (name, e) in engines() {
        e.begin(NewTask::new(None, walk("")));
        let mut seat = e.seat();
        let t = next(&mut seat);
        let lost = NewTask::new(Some(JoinId(99)), walk("a"));
        seat.commit(&t, Outcome { children: vec![lost], ..Outcome::default() });
        while let Take::Task(t) = seat.take(Duration::ZERO) {
            seat.commit(&t, Outcome::default());
        }
        assert!(e.wait(Duration::ZERO), "{name}");
        assert_eq!(e.status().state, JobState::Aborted, "{name}");
    }
}

/// The recipe for directories on random trees, with several seats in random order: every directory is walked
/// and finished exactly once, finished after all that is below it, and the job ends exactly then.
#[test]
fn random_trees_in_random_order_are_finished_once_and_bottom_up() {
    for seed in 0..schedules() {
        for (name, e) in engines() {
            random_schedule(name, &e, seed);
        }
    }
}

fn random_schedule(name: &str, e: &Engine, seed: u64) {
    let mut rng = Rng::new(seed);
    let kids = random_tree(&mut rng);
    let mut seats: Vec<Seat> = (0..3).map(|_| e.seat()).collect();
    let mut holding: Vec<Option<(Task, Outcome, Vec<String>)>> = vec![None, None, None];
    let (mut order, mut next_join) = (Vec::new(), 0);
    e.begin(NewTask::new(None, walk("")));
    for _ in 0..100_000 {
        let i = rng.index(3);
        if let Some((task, mut out, mut rest)) = holding[i].take() {
            if let (Some(d), true) = (rest.pop(), task.work.name() == "walk") {
                // a walk opens its join at the first child, gives children away in steps, may commit early
                let j = match task.work.path() {
                    p if out.opened.is_empty() && out.tally == 0 => {
                        next_join += 1;
                        out.opened.push(JoinId(next_join));
                        out.tally = next_join;
                        let _ = p;
                        JoinId(next_join)
                    }
                    _ => JoinId(out.tally),
                };
                out.children.push(NewTask::new(Some(j), walk(&d)));
                if rng.index(3) == 0 {
                    let keep = out.tally;
                    out.tally = 0;
                    seats[i].flush(&task, &mut out, None);
                    out.tally = keep;
                }
                holding[i] = Some((task, out, rest));
                continue;
            }
            let p = task.work.path().to_string();
            match task.work {
                Work::Walk { .. } if out.tally > 0 => {
                    let follow_up = NewTask::new(task.join, finish(if p == "." { "" } else { &p }));
                    out.seals.push(Seal { join: JoinId(out.tally), tally: 0, follow_up });
                    order.push(("walk", p));
                }
                Work::Walk { .. } => order.extend([("walk", p.clone()), ("finish", p)]),
                _ => order.push(("finish", p)),
            }
            out.tally = 1;
            seats[i].commit(&task, out);
        } else {
            match seats[i].take(Duration::ZERO) {
                Take::Task(t) => {
                    let below = kids.get(&t.work.path().to_string()).cloned().unwrap_or_default();
                    holding[i] = Some((t, Outcome::default(), below));
                }
                Take::Idle => {}
                Take::Over => break,
            }
        }
    }
    assert!(e.wait(Duration::ZERO) && holding.iter().all(Option::is_none), "{name} seed {seed}: ended");
    let at = |what: &str, d: &str| {
        let places: Vec<_> = (0..order.len()).filter(|k| order[*k] == (what, d.to_owned())).collect();
        assert_eq!(places.len(), 1, "{name} seed {seed}: {what} {d}");
        places[0]
    };
    for (d, below) in &kids {
        let mine = at("finish", d);
        assert!(at("walk", d) < mine);
        assert!(below.iter().all(|b| at("finish", b) < mine), "{name} seed {seed}: bottom up");
    }
}

fn random_tree(rng: &mut Rng) -> HashMap<String, Vec<String>> {
    let mut kids = HashMap::from([(".".to_owned(), Vec::new())]);
    let mut all = vec![".".to_owned()];
    for n in 0..rng.index(25) {
        let parent = all[rng.index(all.len())].clone();
        let d = if parent == "." { format!("d{n}") } else { format!("{parent}/d{n}") };
        kids.entry(parent).or_default().push(d.clone());
        kids.insert(d.clone(), Vec::new());
        all.push(d);
    }
    kids
}

/// Threads that take, park, release and go to sleep at once: no order of locks may let two wait for each other.
#[test]
fn many_threads_with_links_never_wait_for_each_other() {
    for (name, e) in engines() {
        let done = std::sync::atomic::AtomicUsize::new(0);
        e.begin(NewTask::new(None, walk("")));
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    let mut seat = e.seat();
                    loop {
                        match seat.take(Duration::from_micros(1)) {
                            Take::Over => return,
                            Take::Idle => {}
                            Take::Task(t) => {
                                done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                                let out = stress(&seat.registry(), &t);
                                seat.commit(&t, out);
                            }
                        }
                    }
                });
            }
            assert!(e.wait(Duration::from_secs(60)), "{name}: stuck");
            // were it stuck, the threads would never end and neither would the test
            e.cancel();
        });
        assert_eq!(done.into_inner(), 1 + 3000 * 3, "{name}");
    }
}

/// The root has 3000 directories; each leads a group and parks a link for it, or one for that of a neighbour.
fn stress(e: &Registry, t: &Task) -> Outcome {
    let mut out = Outcome::default();
    let group = |i: u64| GroupKey { dev: 1, ino: i };
    match &t.work {
        Work::Walk { path: p, .. } if p.is_root() => {
            out.children = (0..3000).map(|i| NewTask::new(None, walk(&format!("d{i}")))).collect();
        }
        Work::Walk { path: p, .. } => {
            let i: u64 = p.to_string()[1..].parse().unwrap();
            let leader = p.child(c"a");
            if e.claim(group(i), 3, &leader, false) == Claim::Lead {
                e.ready(group(i), Leader { path: leader, target: Some((1, i)), links: 1 });
                out.released.push(group(i));
            }
            e.seen(group(i), false);
            for (j, name) in [(i, c"b"), ((i + 1) % 3000, c"c")] {
                let path = p.child(name);
                let link = NewTask::new(None, Work::Link { path, kind: Kind::File, group: group(j) });
                match e.claim(group(j), 3, &p.child(name), j != i) {
                    Claim::Follow(_) => out.children.push(link),
                    _ => out.parked.push((group(j), link)),
                }
            }
        }
        Work::Link { path, group, .. } => {
            if e.claim(*group, 3, path, false) == Claim::Lead {
                e.ready(*group, Leader { path: path.clone(), target: None, links: 1 });
            }
            e.seen(*group, true);
            out.released.push(*group);
        }
        _ => {}
    }
    out
}
