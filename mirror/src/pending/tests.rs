use super::*;
use std::ffi::CStr;
use treeferry_core::Kind;

pub fn path(s: &str) -> RelPath {
    RelPath::new(s).unwrap()
}

pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// One whose first walk is done.
pub fn walked(timing: Timing) -> (Pending, Instant) {
    let mut p = Pending::new(timing);
    assert_eq!(p.figures().complete_up_to, None);
    let first = p.take_below(Instant::now()).unwrap();
    assert!(first.path.is_root());
    p.told(100);
    assert_eq!(p.figures().complete_up_to, None, "nothing is on the target yet");
    p.walked(99, first.ticket, true);
    p.told(100);
    assert_eq!(p.figures().complete_up_to, Some(100));
    (p, Instant::now())
}

pub fn ticket(b: &Batch) -> u64 {
    match b {
        Batch::Look { ticket, .. } | Batch::Move { ticket, .. } | Batch::Names { ticket, .. } => *ticket,
    }
}

fn looks(all: &[Batch]) -> Vec<(String, Vec<String>)> {
    let name =
        |n: (&CStr, Kind)| n.0.to_str().unwrap().to_owned() + if n.1 != Kind::Unknown { "/" } else { "" };
    all.iter()
        .map(|b| match b {
            Batch::Look { dir, names, .. } => (dir.to_string(), names.iter().map(name).collect()),
            Batch::Move { from, to, .. } => (from.to_string(), vec![format!("-> {to}")]),
            Batch::Names { dir, .. } => (dir.to_string(), vec!["names".to_owned()]),
        })
        .collect()
}

fn look(dir: &str, names: &[&str]) -> (String, Vec<String>) {
    (dir.to_owned(), names.iter().map(|n| (*n).to_owned()).collect())
}

#[test]
fn names_that_may_be_gone_are_compared_unless_all_is_walked() {
    let (mut p, mut now) = walked(Timing::default());
    for (s, sign) in
        [("d", Sign::Names), ("d", Sign::Now), ("e", Sign::Names), ("e", Sign::Tree), ("f", Sign::Now)]
    {
        p.sign(now, path(s), sign);
    }
    p.sign(now, RelPath::root(), Sign::Names);
    now += Timing::default().damp;
    let root = RelPath::root().to_string();
    let all = p.take(now, 10);
    assert_eq!(looks(&all), [look("d", &["names"]), look(&root, &["names"]), look(&root, &["e/", "f"])]);
    // once
    all.iter().for_each(|b| p.settled(now, 200, ticket(b)));
    p.told(300);
    p.sign(now + Timing::default().damp, path("d"), Sign::Now);
    let later = p.take(now + 2 * Timing::default().damp, 10);
    assert_eq!(looks(&later), [look(&root, &["d"])]);
    // it has another name by the time that it is looked at
    p.sign(now, path("g"), Sign::Names);
    p.moved(now, path("g"), path("h"), true);
    let now = now + 3 * Timing::default().damp;
    assert!(looks(&p.take(now, 10)).contains(&look("g", &["-> h"])));
}

#[test]
fn signs_are_merged_and_names_of_a_directory_go_together() {
    let (mut p, now) = walked(Timing::default());
    for (s, sign) in [("d/a", Sign::Now), ("d/b", Sign::Tree), ("d/a", Sign::Now), ("x", Sign::Now)] {
        p.sign(now, path(s), sign);
    }
    p.sign(now, RelPath::root(), Sign::Now);
    let all = p.take(now, 10);
    let root = RelPath::root().to_string();
    assert_eq!(looks(&all), [look(&root, &[]), look(&root, &["x"]), look("d", &["a", "b/"])]);
    assert!(p.take(now, 10).is_empty());
    assert_eq!((p.figures().busy, p.figures().looks, p.figures().signs), (4, 4, 5));
}

#[test]
fn what_is_being_written_waits_until_it_is_closed_or_for_a_while() {
    let (mut p, now) = walked(Timing::default());
    p.sign(now, path("log"), Sign::Open);
    p.sign(now, path("new"), Sign::Open);
    p.sign(now, path("mode"), Sign::Attributes);
    assert!(p.take(now, 10).is_empty());
    p.sign(now + ms(5), path("new"), Sign::Now);
    assert_eq!(looks(&p.take(now + ms(5), 10)), [look(&RelPath::root().to_string(), &["new"])]);
    assert_eq!(looks(&p.take(now + ms(10), 10)), [look(&RelPath::root().to_string(), &["mode"])]);
    // what is written again and again is looked at all the same
    p.sign(now + ms(900), path("log"), Sign::Open);
    assert!(p.take(now + ms(999), 10).is_empty());
    assert_eq!(p.next_due(), Some(now + ms(1000)));
    assert_eq!(p.take(now + ms(1000), 10).len(), 1);
}

#[test]
fn a_path_that_is_written_over_and_over_is_looked_at_a_few_times_and_last_of_all() {
    let (mut p, start) = walked(Timing::default());
    let (mut begun, mut open) = (0, None);
    for i in 0..2000u64 {
        let now = start + Duration::from_micros(500 * i);
        p.sign(now, path("f"), Sign::Now);
        if let Some(b) = p.take(now, 10).first() {
            begun += 1;
            open = Some(ticket(b));
        }
        // each look takes 3 ms
        if i % 7 == 6
            && let Some(t) = open.take()
        {
            p.settled(now, 0, t);
        }
    }
    assert!((3..=6).contains(&begun), "{begun}");
    let late = start + ms(2000);
    if let Some(t) = open {
        p.settled(late, 0, t);
    }
    assert_eq!(p.take(late, 10).len(), 1, "the last state is looked at");
}

#[test]
fn a_path_is_not_looked_at_twice_at_once() {
    let (mut p, now) = walked(Timing { damp: Duration::ZERO, ..Timing::default() });
    p.sign(now, path("a"), Sign::Now);
    let first = p.take(now, 10);
    p.told(200);
    p.sign(now, path("a"), Sign::Now);
    assert!(p.take(now, 10).is_empty(), "it waits for the first");
    assert_eq!(p.figures().complete_up_to, Some(100));
    p.settled(now, 0, ticket(&first[0]));
    assert_eq!(
        p.figures().complete_up_to,
        Some(100),
        "it may have found what a rename left that is not told yet"
    );
    p.told(200);
    assert_eq!(p.figures().complete_up_to, Some(200));
    let second = p.take(now, 10);
    assert_eq!(second.len(), 1);
    p.settled(now, 0, ticket(&second[0]));
    p.told(300);
    assert_eq!(p.figures().complete_up_to, Some(300));
    assert!(p.is_idle());
    // an answer that comes twice changes nothing
    p.settled(now, 0, ticket(&second[0]));
    assert_eq!(p.latency().total(), 2);
}

#[test]
fn a_rename_takes_with_it_what_waits() {
    let (mut p, now) = walked(Timing::default());
    p.sign(now, path("old/x/y"), Sign::Now);
    p.sign(now, path("old.txt"), Sign::Now);
    p.sign(now, path("old"), Sign::Now);
    p.told(150);
    p.moved(now, path("old"), path("new"), true);
    p.moved(now, path("new"), path("last"), true);
    let all = looks(&p.take(now, 10));
    assert!(all.contains(&look("old", &["-> last"])), "{all:?}");
    assert!(all.contains(&look("last/x", &["y"])), "{all:?}");
    assert!(all.contains(&look(&RelPath::root().to_string(), &["new/", "old.txt"])), "{all:?}");
    assert_eq!(p.figures().complete_up_to, Some(100), "that of what waited before");
    // two to one name: both old names are looked at
    p.moved(now, path("one"), path("both"), false);
    p.moved(now, path("two"), path("both"), false);
    let all = looks(&p.take(now, 10));
    assert_eq!(all, [look("two", &["-> both"]), look(&RelPath::root().to_string(), &["one/"])]);
    // there and back again
    p.moved(now, path("a"), path("b"), false);
    p.moved(now, path("b"), path("a"), false);
    let all = looks(&p.take(now + ms(1000), 10));
    assert_eq!(all, [look(&RelPath::root().to_string(), &["a/", "b/"])]);
}

/// It is looked at and fails, and all is told up to 200.
fn bad_fails(p: &mut Pending, now: Instant) {
    p.sign(now, path("bad"), Sign::Now);
    let b = p.take(now, 10);
    p.failed(now, path("bad"), "openat: EACCES".to_owned());
    p.settled(now, 0, ticket(&b[0]));
    p.told(200);
}

#[test]
fn what_is_to_be_looked_at_once_more_has_not_arrived_yet() {
    for fails in [false, true] {
        let (mut p, now) = walked(Timing::default());
        p.sign(now, path("f"), Sign::Now);
        for round in 0..3 {
            let at = now + ms(round * 5000);
            let b = p.take(at, 10);
            match round {
                2 => {}
                _ if fails => p.failed(at, path("f"), "openat: EACCES".to_owned()),
                0 => p.again(at, path("f"), false, &path("f")),
                _ => p.later(at, path("f"), ms(5000), &path("f")),
            }
            p.settled(at, 0, ticket(&b[0]));
            assert_eq!(p.latency().total(), u64::from(round == 2), "round {round}, fails: {fails}");
        }
        assert_eq!(p.latency().most(), ms(10_000), "from when it was first said");
        // what is changed while it is looked at has arrived as it was
        p.sign(now + ms(19_000), path("f"), Sign::Now);
        let b = p.take(now + ms(19_000), 10);
        p.sign(now + ms(19_001), path("f"), Sign::Now);
        p.settled(now + ms(19_002), 0, ticket(&b[0]));
        assert_eq!(p.latency().total(), 2);
    }
}

#[test]
fn what_fails_is_named_and_tried_again_and_does_not_hold_up_the_rest() {
    let (mut p, now) = walked(Timing::default());
    bad_fails(&mut p, now);
    assert_eq!((p.figures().complete_up_to, p.figures().failing), (Some(200), 1));
    assert_eq!(p.failing(9), [(path("bad"), "openat: EACCES".to_owned())]);
    assert_eq!(p.latency().total(), 0, "it has not arrived");
    assert!(p.take(now + ms(999), 10).is_empty());
    assert_eq!(p.next_due(), Some(now + ms(1000)));
    let b = p.take(now + ms(1000), 10);
    p.failed(now + ms(1000), path("bad"), "openat: EACCES".to_owned());
    p.settled(now + ms(1000), 0, ticket(&b[0]));
    assert!(p.take(now + ms(2999), 10).is_empty(), "twice as long");
    let b = p.take(now + ms(3000), 10);
    p.settled(now + ms(3000), 0, ticket(&b[0]));
    assert_eq!(p.figures().failing, 0);
    // what is heard of it before is tried at once
    p.failed(now + ms(4000), path("bad"), "x".to_owned());
    p.sign(now + ms(4001), path("bad"), Sign::Now);
    let b = p.take(now + ms(4001), 10);
    p.settled(now + ms(4001), 0, ticket(&b[0]));
    assert_eq!(p.figures().failing, 0);
}

#[test]
fn what_fails_and_is_heard_of_again_at_once_fails_until_that_is_done() {
    let (mut p, now) = walked(Timing { damp: Duration::ZERO, ..Timing::default() });
    p.sign(now, path("bad"), Sign::Now);
    let b = p.take(now, 10);
    p.failed(now, path("bad"), "x".to_owned());
    p.sign(now, path("bad"), Sign::Now);
    p.settled(now, 0, ticket(&b[0]));
    assert_eq!((p.figures().failing, p.latency().total()), (1, 0));
    let b = p.take(now, 10);
    p.settled(now, 0, ticket(&b[0]));
    assert_eq!((p.figures().failing, p.latency().total(), p.next_due()), (0, 1, None));
}

#[test]
fn what_a_walk_has_put_right_fails_no_more() {
    let (mut p, now) = walked(Timing::default());
    for bad in ["d/a", "d/b", "e"] {
        p.failed(now, path(bad), "EROFS".to_owned());
    }
    p.sign(now, path("d"), Sign::Tree);
    p.again(now, path("d"), true, &path("d"));
    let walk = p.take_below(now + ms(10)).unwrap();
    p.failed(now + ms(20), path("d/b"), "EPERM".to_owned());
    p.walked(5, walk.ticket, true);
    let failing: Vec<_> = p.failing(9).into_iter().map(|(p, _)| p.to_string()).collect();
    assert_eq!(failing, ["d/b", "e"]);
    // one that did not come to its end says nothing
    p.again(now, RelPath::root(), true, &path("d"));
    let walk = p.take_below(now + ms(30)).unwrap();
    p.walked(6, walk.ticket, false);
    assert_eq!(p.figures().failing, 2);
    assert!(p.next_due().is_some());
}

#[test]
fn what_failed_is_owed_to_the_next_keeper_until_all_is_done_that_its_last_attempt_led_to() {
    let (mut p, now) = walked(Timing::default());
    bad_fails(&mut p, now);
    assert_eq!(p.to_be_tried(), [path("bad")]);
    let now = now + ms(1000);
    let b = p.take(now, 10);
    p.again(now, path("bad/x"), false, &path("bad"));
    p.settled(now, 250, ticket(&b[0]));
    p.told(300);
    assert_eq!((p.figures().failing, p.to_be_tried()), (0, vec![path("bad")]));
    let now = now + ms(1000);
    let b = p.take(now, 10);
    assert_eq!(p.to_be_tried(), [path("bad")]);
    p.settled(now, 350, ticket(&b[0]));
    p.told(400);
    assert_eq!(p.to_be_tried(), []);
    // also while others keep it busy without end
    p.sign(now, path("other"), Sign::Now);
    p.told(500);
    p.sign(now, path("bad"), Sign::Now);
    let b = p.take(now, 10);
    p.failed(now, path("bad"), "x".to_owned());
    b.iter().for_each(|b| p.settled(now, 550, ticket(b)));
    p.told(600);
    let now = now + ms(1000);
    let b = p.take(now, 10);
    p.told(700);
    p.sign(now, path("other"), Sign::Now);
    p.settled(now, 750, ticket(&b[0]));
    p.told(800);
    assert_eq!((p.is_idle(), p.to_be_tried()), (false, vec![]));
}

#[test]
fn what_was_missed_is_walked_and_until_then_nothing_later_is_promised() {
    let (mut p, now) = walked(Timing::default());
    p.lost();
    p.told(500);
    assert_eq!(p.figures().complete_up_to, Some(100));
    let b = p.take_below(Instant::now()).unwrap();
    p.lost();
    p.walked(0, b.ticket, false);
    assert_eq!(p.figures().complete_up_to, Some(100), "it did not come to its end");
    let b = p.take_below(Instant::now()).unwrap();
    assert_eq!((p.take_below(Instant::now()), p.figures().walks), (None, 1), "both are one walk");
    p.walked(0, b.ticket, true);
    p.told(0);
    assert_eq!(p.figures().complete_up_to, Some(500));
    // directories in each other are walked once
    for s in ["a/b", "a/b/c", "a", "z", "a/q"] {
        p.again(now, path(s), true, &path(s));
    }
    let dirs: Vec<_> =
        std::iter::from_fn(|| p.take_below(Instant::now())).map(|b| b.path.to_string()).collect();
    assert_eq!(dirs, ["a", "z"]);
}

#[test]
fn what_is_owed_is_not_promised_before_it_is_done() {
    let (mut p, now) =
        walked(Timing { damp: Duration::ZERO, attributes: Duration::ZERO, ..Timing::default() });
    p.sign(now, path("d/f"), Sign::Now);
    let first = p.take(now, 10);
    p.told(200);
    // the directory is gone, so it is its turn
    p.again(now, path("d"), false, &path("d"));
    p.settled(now, 0, ticket(&first[0]));
    p.told(300);
    assert_eq!(p.figures().complete_up_to, Some(100));
    let second = p.take(now, 10);
    p.again(now, path("other"), false, &path("d/x/y"));
    p.again(now, path("elsewhere"), false, &path("dd"));
    p.settled(now, 0, ticket(&second[0]));
    p.told(400);
    assert_eq!(p.figures().complete_up_to, Some(100));
    let third = p.take(now, 10);
    p.settled(now, 0, ticket(&third[0]));
    p.told(500);
    assert_eq!(p.figures().complete_up_to, Some(500));
}

#[test]
fn all_is_walked_if_it_is_told_of_the_directory_itself() {
    let (mut p, now) = walked(Timing::default());
    p.sign(now, RelPath::root(), Sign::Now);
    assert_eq!(p.take_below(Instant::now()), None);
    p.sign(now, RelPath::root(), Sign::Tree);
    p.told(200);
    let walk = p.take_below(Instant::now()).unwrap();
    assert!(walk.path.is_root());
    let look = p.take(now, 10);
    p.settled(now, 0, ticket(&look[0]));
    p.told(300);
    assert_eq!(p.figures().complete_up_to, Some(100));
    p.walked(0, walk.ticket, true);
    p.told(400);
    assert_eq!((p.figures().complete_up_to, p.figures().resyncs), (Some(400), 0));
}

#[test]
fn what_is_owed_under_the_name_before_is_not_promised_either() {
    let (mut p, now) =
        walked(Timing { damp: Duration::ZERO, attributes: Duration::ZERO, ..Timing::default() });
    // written under one of its names, which is renamed and goes away
    p.sign(now, path("d/a"), Sign::Now);
    p.moved(now, path("d/a"), path("d/away"), false);
    p.sign(now, path("d/away"), Sign::Now);
    p.told(200);
    let first = p.take(now, 10);
    assert_eq!(looks(&first), [look("d/a", &["-> d/away"])]);
    // the name is gone: what was written is looked for under the other one
    p.again(now, path("d/b"), false, &path("d/a"));
    p.settled(now, 0, ticket(&first[0]));
    p.told(300);
    assert_eq!(p.figures().complete_up_to, Some(100));
    let second = p.take(now, 10);
    assert_eq!(looks(&second), [look("d", &["b"])]);
    p.settled(now, 0, ticket(&second[0]));
    p.told(400);
    assert_eq!(p.figures().complete_up_to, Some(400));
}

#[test]
fn what_was_brought_is_done_also_if_it_has_changed_since() {
    let (mut p, now) = walked(Timing { damp: Duration::ZERO, ..Timing::default() });
    p.sign(now, path("log"), Sign::Now);
    p.told(200);
    let mut at = now;
    for round in 0..3 {
        let look = p.take(at, 10);
        p.changed(at, path("log"));
        p.settled(at, 0, ticket(&look[0]));
        p.told(300 + 100 * round);
        // as it was when the look began
        assert_eq!(p.figures().complete_up_to, Some(200 + 100 * round), "{round}");
        assert_eq!(p.latency().total(), 1 + round);
        at += ms(1000);
    }
    // a walk has seen it later than it began
    p.sign(at, RelPath::root(), Sign::Tree);
    p.told(1000);
    let walk = p.take_below(at).unwrap();
    p.told(1100);
    let looks = p.take(at, 10);
    p.changed(at, path("d/f"));
    looks.iter().for_each(|l| p.settled(at, 0, ticket(l)));
    p.walked(0, walk.ticket, true);
    p.told(1200);
    assert_eq!(p.figures().complete_up_to, Some(1000));
}

#[test]
fn what_is_too_young_waits_and_is_owed() {
    let (mut p, now) = walked(Timing { damp: Duration::ZERO, ..Timing::default() });
    p.sign(now, path("f"), Sign::Now);
    let first = p.take(now, 10);
    p.later(now, path("f"), ms(5000), &path("f"));
    p.settled(now, 0, ticket(&first[0]));
    p.told(300);
    assert!(p.take(now + ms(4999), 10).is_empty());
    assert_eq!((p.next_due(), p.figures().complete_up_to), (Some(now + ms(5000)), Some(100)));
    let second = p.take(now + ms(5000), 10);
    p.settled(now + ms(5000), 0, ticket(&second[0]));
    p.told(400);
    assert_eq!(p.figures().complete_up_to, Some(400));
}

#[test]
fn so_much_may_wait_and_no_more() {
    let (mut p, now) = walked(Timing { most: 100, ..Timing::default() });
    for i in 0..101 {
        p.sign(now, path(&format!("f{i}")), Sign::Open);
    }
    assert_eq!((p.figures().waiting, p.figures().walks, p.figures().resyncs), (0, 1, 1));
    p.told(900);
    assert_eq!(p.figures().complete_up_to, Some(100));
    let b = p.take_below(Instant::now()).unwrap();
    p.walked(0, b.ticket, true);
    p.told(0);
    assert_eq!(p.figures().complete_up_to, Some(900));
}

#[test]
fn a_clock_that_is_set_takes_back_what_was_promised_and_nothing_is_promised_too_early() {
    const S: u64 = 1_000_000;
    let (mut p, now) = walked(Timing::default());
    let reads = |p: &mut Pending, moment: u64, shown: u64| p.clock(moment * S, shown * S, moment * S);
    let complete = |p: &Pending| p.figures().complete_up_to.map(|us| us / S);
    reads(&mut p, 1000, 1000);
    p.told(1000 * S);
    assert_eq!(complete(&p), Some(1000));
    // somebody sets it back by two minutes, changes something, and reads the clock: 881
    reads(&mut p, 1001, 881);
    assert_eq!(complete(&p), Some(880));
    p.sign(now, path("a"), Sign::Now);
    reads(&mut p, 1002, 882);
    p.told(1002 * S);
    assert_eq!(complete(&p), Some(880));
    let all = p.take(now, 10);
    p.settled(now, 1002 * S, ticket(&all[0]));
    p.told(1003 * S);
    reads(&mut p, 1003, 883);
    assert_eq!(complete(&p), Some(883));
    // and forward by an hour: what was read before that is not yet told
    reads(&mut p, 1004, 4484);
    assert_eq!(complete(&p), Some(883));
    p.told(1005 * S);
    reads(&mut p, 1005, 4485);
    assert_eq!(complete(&p), Some(4485));
    // the hour in which something arrives is that of the wall
    p.sign(now, path("b"), Sign::Now);
    let all = p.take(now, 10);
    p.settled(now, 1005 * S, ticket(&all[0]));
    assert_eq!(p.arrivals().hourly().map(|(at, l)| (at, l.total())).collect::<Vec<_>>(), [(0, 1), (3600, 1)]);
}
