use super::*;

fn kept(same: Option<u64>) -> Kept {
    Kept {
        same,
        last: 1000,
        walked: true,
        complete_up_to: 1,
        lost: false,
        heard: Continuity::default(),
        failing: Vec::new(),
        posted: Some(Vec::new()),
    }
}

fn field(book: &Book, done_before: u64, name: &str) -> Value {
    let all = book.fields(done_before, Some(done_before + 7), true, std::iter::empty());
    let field = all.into_iter().find(|(k, _)| k == name).expect("it is kept").1;
    serde_json::from_slice(&field).unwrap()
}

#[test]
fn the_next_keeper_is_told_how_far_what_was_said_is_done_and_not_what_was_heard() {
    let book = Book::new(1, Vec::new(), &kept(None), false);
    assert!(!book.heard(10, "a", 5, 1, true), "of what it had said before nothing is known");
    assert_eq!(field(&book, 10, HEARD), json!({"a": [0, 0]}), "it counts, and all that it says is news");
    assert!(book.heard(20, "a", 5, 2, true));
    assert!(book.heard(20, "a", 5, 2, false), "nothing is said");
    assert!(book.heard(30, "a", 5, 3, true));
    assert_eq!(field(&book, 20, HEARD), json!({"a": [5, 1]}));
    assert_eq!(field(&book, 21, HEARD), json!({"a": [5, 2]}));
    book.done(21);
    assert_eq!(field(&book, 21, HEARD), json!({"a": [5, 2]}));
    assert_eq!(book.state().undone.len(), 1);
    assert_eq!(field(&book, 31, HEARD), json!({"a": [5, 3]}));
    // and goes on from there
    let next = Kept { heard: serde_json::from_value(field(&book, 21, HEARD)).unwrap(), ..kept(None) };
    let next = Book::new(2, Vec::new(), &next, true);
    assert_eq!(field(&next, 1, HEARD), json!({"a": [5, 2]}));
    assert!(!next.heard(40, "a", 5, 4, true), "3 was lost");
}

#[test]
fn what_was_posted_is_kept_until_it_is_done() {
    let book = Book::new(1, Vec::new(), &kept(None), false);
    let path = |s: &str| RelPath::new(s).unwrap();
    book.keep(10, Undone::Posted(vec![path("a"), path("b")]));
    book.keep(20, Undone::Posted(vec![path("c")]));
    assert_eq!(field(&book, 10, POSTED), json!(["a", "b", "c"]));
    assert_eq!(field(&book, 11, POSTED), json!(["c"]));
    book.keep(20, Undone::Posted(vec![path("d"); POSTED_MOST]));
    assert_eq!(field(&book, 11, POSTED), Value::Null);
    assert_eq!(field(&book, 21, POSTED), json!([]));
    assert!(Kept { posted: None, ..kept(None) }.lost(), "everything is looked at instead");
}

#[test]
fn a_keeper_that_ends_early_leaves_the_next_what_it_was_left() {
    let path = |s: &str| RelPath::from_shown(s).unwrap();
    let left = Kept {
        failing: vec![path("f"), path(".")],
        posted: Some(vec![path("p"), path(".")]),
        lost: true,
        ..kept(Some(7))
    };
    let book = Book::new(1, Vec::new(), &left, true);
    let mut pending = Pending::resumed(treeferry_mirror::Timing::default(), 1000);
    left.take_up(&book, &mut pending);
    assert_eq!(pending.done_before(), 1000);
    let failing = pending.failing(9).into_iter().map(|(p, _)| p);
    let fields: HashMap<_, _> = book.fields(1000, Some(1000), true, failing).into_iter().collect();
    let read = |k: &str| serde_json::from_slice::<Value>(&fields[k]).unwrap();
    assert_eq!(read(FAILING), json!([".", "f"]));
    assert_eq!(read(POSTED), json!(["p", "."]));
    assert_eq!(read(LOST), json!(1));
    assert!(
        read(POSTED).as_array().unwrap().iter().all(|p| RelPath::from_shown(p.as_str().unwrap()).is_ok())
    );
}

#[test]
fn what_was_missed_is_until_everything_that_was_told_by_then_is_done() {
    let book = Book::new(1, Vec::new(), &kept(None), false);
    assert_eq!(field(&book, 5, LOST), json!(0));
    book.lost(10);
    assert_eq!(field(&book, 10, LOST), json!(1));
    assert_eq!(field(&book, 11, LOST), json!(0));
    assert_eq!(field(&book, 11, COMPLETE), json!(18), "a time of day");
}

#[test]
fn an_errand_that_was_refused_is_sent_to_somebody_else_before_one_of_which_nothing_was_heard() {
    let book = Book::new(1, Vec::new(), &kept(None), false);
    let work = || Work::Names { dir: RelPath::root(), ticket: 0 };
    let (no_time, long) = (Duration::ZERO, Duration::from_secs(3600));
    book.sent(1, &work());
    book.sent(2, &work());
    assert!(book.unanswered(no_time, |_| long).is_empty());
    book.refused(2);
    let sent = |refused, silent| {
        let mut all: Vec<u64> = book.unanswered(refused, |_| silent).into_iter().map(|(t, _)| t).collect();
        all.sort_unstable();
        all
    };
    assert_eq!(sent(no_time, long), [2]);
    assert_eq!(sent(no_time, long), [0; 0], "it was sent");
    assert!(book.is_silent(no_time) && !book.is_silent(long));
    assert_eq!(sent(long, no_time), [1, 2]);
    book.settled(1);
    assert_eq!(sent(long, no_time), [2]);
    let patient = |times| if times < 2 { no_time } else { long };
    assert!(book.unanswered(long, patient).is_empty(), "it was sent twice");
    book.busy(&[2]);
    assert_eq!(book.unanswered(long, patient).len(), 1);
}

#[test]
fn another_wish_is_greater_than_the_last_one_whatever_the_clock_says() {
    assert_eq!(kept(Some(1000)).wish(2000), 1000);
    assert_eq!(kept(None).wish(2000), 2000);
    assert_eq!(kept(None).wish(400), 1001);
}
