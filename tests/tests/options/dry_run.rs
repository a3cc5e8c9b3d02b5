//! `--dry-run`.

use crate::scene;
use treeferry_tests::{Run, Scratch, args, sync};

/// The counters that say what was done to the trees.
fn deeds(r: &Run) -> Vec<(String, u64)> {
    let counters = r.json["counters"].as_object().unwrap_or_else(|| panic!("{r}"));
    counters.iter().map(|(k, v)| (k.clone(), v.as_u64().unwrap())).collect()
}

fn lines(r: &Run) -> Vec<&str> {
    scene::without_group(r.items())
}

#[test]
fn a_dry_run_touches_nothing() {
    for s in Scratch::both() {
        scene::plant(&s, &[&s.dst()]);
        let before = s.snapshot();
        let r = s.sync("-n -i --delete").expect(0);
        s.assert_untouched(&before);
        assert_eq!(r.json["dry_run"], true);
        assert!(!r.items().is_empty());
    }
}

#[test]
fn a_dry_run_does_not_even_change_times_of_access() {
    let s = Scratch::disk();
    s.src().file("d/f", "1").time("d/f", 5).time("d", 5);
    s.dst().file("d/f", "2").time("d/f", 5).time("d", 5);
    s.sync("-n -c").expect(0);
    for t in [s.src(), s.dst()] {
        let atime = std::os::unix::fs::MetadataExt::atime(&t.meta("d/f"));
        assert_eq!(atime, 5);
    }
}

#[test]
fn a_dry_run_says_and_counts_what_the_run_after_it_does() {
    for options in
        ["-i", "-i --delete", "-i -c --delete", "-i --pass copy", "-i --pass delete", "-i --pass dirtime"]
    {
        let s = Scratch::disk();
        scene::plant(&s, &[&s.dst()]);
        let dry = s.sync(&format!("-n {options}")).expect(0);
        let real = s.sync(options).expect(0);
        assert_eq!(lines(&dry), lines(&real), "{options}");
        assert_eq!(deeds(&dry), deeds(&real), "{options}");
    }
}

#[test]
fn a_dry_run_of_a_first_clone_says_and_counts_it_and_makes_no_target() {
    let s = Scratch::disk();
    scene::plant(&s, &[]);
    let dry = s.sync("-n -i --delete").expect(0);
    assert!(!s.at("dst").exists());
    let real = s.sync("-i --delete").expect(0);
    assert_eq!(lines(&dry), lines(&real));
    assert_eq!(deeds(&dry), deeds(&real));
}

#[test]
fn a_dry_run_foresees_the_end_of_max_delete() {
    let s = Scratch::disk();
    scene::plant(&s, &[&s.dst()]);
    let dry = s.sync("-n --delete --max-delete 2").expect(25);
    let real = s.sync("--delete --max-delete 2").expect(25);
    assert_eq!(deeds(&dry), deeds(&real));
}

#[test]
fn a_dry_run_foresees_the_directory_in_the_way() {
    let s = Scratch::disk();
    s.src().file("d", "1").file("x", "2");
    s.dst().file("d/in", "1");
    let before = s.snapshot();
    let dry = s.sync("-n -i").expect(23);
    s.assert_untouched(&before);
    let real = s.sync("-i").expect(23);
    assert_eq!((dry.items(), dry.failed()), (real.items(), real.failed()));
    assert_eq!(deeds(&dry), deeds(&real));
}

#[test]
fn a_dry_run_makes_no_trash() {
    let s = Scratch::disk();
    s.dst().file("extra", "1");
    let trash = s.at("trash");
    let words = args!["-n", "--delete", "--trash", &trash, s.at("src"), s.at("dst")];
    let r = sync(words).expect(0);
    assert_eq!(r.count("deleted"), 1);
    assert!(!trash.exists() && s.dst().has("extra"));
}

#[test]
fn a_dry_run_is_refused_where_the_run_would_be() {
    let s = Scratch::disk();
    let other = treeferry_kit::mounts::scratch(treeferry_kit::mounts::FsKind::Tmpfs, "trash");
    s.src().file("x", "1");
    for n in [&["-n"][..], &[]] {
        let to = |dst: &str, more: Vec<std::ffi::OsString>| {
            let words = n.iter().map(std::ffi::OsString::from).chain(more);
            sync(words.chain(args![s.at("src"), s.at(dst)]))
        };
        to("no/such/dst", vec![]).expect(3);
        to("src/x", vec![]).expect(3);
        s.dst().file("extra", "1");
        to("dst", args!["--delete", "--trash", other.path().join("new")]).expect(1);
        to("dst", args!["--delete", "--trash", s.at("no/such/trash")]).expect(1);
    }
    assert!(s.dst().has("extra"));
}

#[test]
fn a_dry_run_counts_no_directory_that_stays_for_what_is_excluded_in_it() {
    let s = Scratch::disk();
    s.src().file("f", "1");
    s.dst().file("extra/deep/keep", "2").file("extra/x", "3").file("other/y", "4");
    let dry = s.sync("-n --delete --exclude keep").expect(0);
    let run = s.sync("--delete --exclude keep").expect(0);
    assert_eq!((run.count("deleted"), dry.count("deleted")), (3, 3), "{dry}\n{run}");
}
