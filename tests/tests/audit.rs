//! `treeferry audit`: what a sample tells of two trees. That it finds every kind of difference is tested with `verify`.

mod checks;

use std::ffi::OsString;
use treeferry_kit::tree::{Kind, Spec};
use treeferry_tests::{Run, Scratch, command};

const T: i64 = 1_234_567_890;

fn audit(s: &Scratch, options: &str) -> Run {
    Run::of(command(["audit", "--json"]).args(s.words(options)))
}

fn number(r: &Run, key: &str) -> f64 {
    r.json[key].as_f64().unwrap_or_else(|| panic!("no {key} in {r}"))
}

/// Two trees of 3000 files in directories of very different sizes, of which 300 differ.
fn a_tenth_differs(s: &Scratch) {
    let place = |i: u64| match i % 3 {
        0 => format!("large/f{i}"),
        1 => format!("many/d{}/f{i}", i % 191),
        _ => format!("a/b/c/d/e{}/f{i}", i % 7),
    };
    for i in 0..3000 {
        s.src().file(&place(i), "x");
    }
    treeferry_tests::sync([s.at("src"), s.at("dst")]).expect(0);
    for i in (0..3000).step_by(10) {
        s.dst().mode(&place(i), 0o600);
    }
}

#[test]
fn the_share_of_all_is_estimated_and_bounded() {
    let s = Scratch::memory();
    a_tenth_differs(&s);
    let before = s.snapshot();
    let entries = checks::entries(&s.at("src")).len() as f64;
    let share = 300.0 / entries;
    let (mut held, mut sum) = (0, 0.0);
    for seed in 0..20 {
        let r = audit(&s, &format!("--sample 300 --seed {seed}")).expect(23);
        assert_eq!(r.items().len() as f64, number(&r, "differing"), "{r}");
        assert!(r.items().iter().all(|l| l.starts_with(".f...p..... ")), "{r}");
        assert!(number(&r, "effective_draws") >= 300.0 && number(&r, "compared") < entries / 2.0, "{r}");
        assert!(r.json["whole"] == false && number(&r, "share") <= number(&r, "share_at_most"), "{r}");
        held += u32::from(number(&r, "share_at_most") >= share);
        sum += number(&r, "share");
    }
    // of twenty bounds that hold in 95 % of all cases
    assert!(held >= 16, "{held} of 20 bounds hold");
    assert!((sum / 20.0 - share).abs() < share / 4.0, "{} and not {share}", sum / 20.0);
    // no more than are wanted: all of them, also those of a large directory
    let r = audit(&s, "--sample 5000").expect(23);
    assert_eq!((&r.json["whole"], &r.json["differing"]), (&true.into(), &300.into()), "{r}");
    assert!((number(&r, "share_at_most") * number(&r, "entries") - 300.0).abs() < 1e-6, "{r}");
    // one that nobody chose is another each time, and is said
    let [a, b] = [audit(&s, "--sample 50"), audit(&s, "--sample 50")];
    assert_ne!(a.json["seed"], b.json["seed"]);
    let again = audit(&s, &format!("--sample 50 --seed {}", a.json["seed"]));
    assert_eq!(a.items(), again.items(), "what a seed draws can be drawn again");
    // a greater confidence takes a greater bound
    let sure = audit(&s, "--sample 300 --seed 1 --confidence 99.9");
    assert!(number(&sure, "share_at_most") > number(&audit(&s, "--sample 300 --seed 1"), "share_at_most"));
    s.assert_untouched(&before);
}

#[test]
fn of_trees_that_are_alike_a_bound_is_told_or_that_all_is_the_same() {
    let s = Scratch::memory();
    Spec::new(Kind::Awkward).count(2000).make(&s.at("tree")).unwrap();
    treeferry_tests::sync([s.at("tree"), s.at("dst")]).expect(0);
    let run = |options: &str| {
        let words = ["audit", "--json"].into_iter().chain(options.split_whitespace()).map(OsString::from);
        Run::of(&mut command(words.chain([s.at("tree"), s.at("dst")].map(OsString::from)))).expect(0)
    };
    let r = run("--sample 100 -c");
    assert_eq!((number(&r, "share"), &r.json["whole"]), (0.0, &false.into()));
    // the rule of three: 3 of n
    assert!((0.02..0.04).contains(&number(&r, "share_at_most")), "{r}");
    let r = run("--sample 100000 -c");
    assert_eq!((number(&r, "share_at_most"), &r.json["whole"]), (0.0, &true.into()));
}

#[test]
fn what_differs_after_a_while_still_does() {
    let s = Scratch::disk();
    s.src().file("f", "x").time("f", T);
    s.dst().file("f", "xx").time("f", T);
    let r = audit(&s, "--settle 1s").expect(23);
    assert_eq!(r.items(), [">f.s....... f"]);
}

#[test]
fn what_is_excluded_is_not_drawn() {
    let s = Scratch::disk();
    s.src().file("f", "x").file("skip/f", "x");
    s.dst().file("f", "x").file("other.o", "x");
    s.src().time("f", T);
    s.dst().time("f", T);
    let r = audit(&s, "--exclude /skip --exclude *.o").expect(0);
    assert_eq!((number(&r, "compared"), number(&r, "entries")), (1.0, 1.0));
}

#[test]
fn what_a_copy_leaves_out_is_not_missed() {
    let s = Scratch::disk();
    s.src().file("d/f", "x").fifo("d/p").time("d/f", T).time("d", T);
    s.dst().file("d/f", "x").time("d/f", T).time("d", T);
    audit(&s, "--no-specials").expect(0);
    assert_eq!(audit(&s, "").expect(23).items().len(), 1);
}

#[test]
fn what_cannot_be_looked_at_is_named_and_no_success() {
    let s = Scratch::disk();
    for t in [s.src(), s.dst()] {
        t.file("d/f", "x").file("g", "x").time("d/f", T).time("g", T).time("d", T);
    }
    for (fault, path) in [("call=getdents64,errno=EIO,path=d", "d"), ("call=openat,errno=EACCES,path=g", "g")]
    {
        let mut c = command(["audit", "--json"]);
        let r = Run::of(c.args(s.words("-c")).env("TREEFERRY_FAULTS", fault)).expect(23);
        assert!(r.stderr.contains(&format!("treeferry: {path}: ")), "{r}");
        assert!(number(&r, "failures") >= 1.0 && number(&r, "share_at_most") > 0.0, "{r}");
    }
}

#[test]
fn what_makes_no_sense_is_refused() {
    let s = Scratch::disk();
    s.src().file("f", "x");
    for (words, code) in [
        ("--sample 0 src dst", 1),
        ("--sample x src dst", 1),
        ("--confidence 100 src dst", 1),
        ("--confidence nan src dst", 1),
        ("src", 1),
        ("src src", 1),
        ("src missing", 3),
        ("missing dst", 3),
        ("src/f dst", 3),
    ] {
        let mut c = command(["audit"]);
        let r = Run::of(c.current_dir(s.at("")).args(words.split_whitespace()));
        r.expect(code);
    }
    assert!(!s.at("missing").exists());
}

#[test]
fn what_a_job_leaves_alone_is_no_difference() {
    let s = Scratch::disk();
    s.src().file("same", "x").file("missing", "x").file("other", "long").file("kind", "x").fifo("fifo");
    s.src().symlink("way", "same");
    s.dst().file("same", "x").file("other", "short").dir("kind").file("kind/below", "x").file("fifo", "x");
    for (options, names) in [
        ("--min-age 1h", vec!["kind", "kind/below", "other", "missing", "way", "fifo", "same"]),
        ("--no-specials", vec!["fifo"]),
    ] {
        let r = audit(&s, options);
        let lines = r.items().join("\n") + "\n";
        assert!(names.iter().all(|n| !lines.contains(&format!(" {n}\n"))), "{r}");
    }
    audit(&s, "--min-age 1h").expect(0);
    audit(&s, "").expect(23);
    // by access time
    for name in ["missing", "other", "kind"] {
        let f = std::fs::File::open(s.at("src").join(name)).unwrap();
        f.set_times(std::fs::FileTimes::new().set_accessed(std::time::SystemTime::UNIX_EPOCH)).unwrap();
    }
    let r = audit(&s, "--max-age 1d").expect(23);
    let lines = r.items().join("\n") + "\n";
    assert!(
        ["kind", "kind/below", "other", "missing"].iter().all(|n| !lines.contains(&format!(" {n}\n"))),
        "{r}"
    );
    assert!(lines.contains(" way"), "{r}");
}

#[test]
fn a_seed_is_a_number_that_every_reader_of_json_can_hold() {
    let s = Scratch::memory();
    s.src().file("f", "x");
    s.dst().file("f", "x");
    for _ in 0..8 {
        let seed = audit(&s, "").json["seed"].as_u64().unwrap();
        assert!(seed < 1 << 53, "{seed}");
    }
}
