//! `treeferry verify`: every difference of two trees, and no change to them.

use std::ffi::OsString;
use treeferry_tests::{Plant, Run, Scratch, command};

const T: i64 = 1_234_567_890;

fn verify(s: &Scratch, options: &str) -> Run {
    Run::of(command(["verify", "--json"]).args(s.words(options)))
}

fn audit(s: &Scratch, options: &str) -> Run {
    Run::of(command(["audit", "--json"]).args(s.words(options)))
}

/// Two like trees with an entry of each type.
fn alike(s: &Scratch) {
    for t in [s.src(), s.dst()] {
        t.file("f", "1")
            .file("d/g", "1")
            .dir("d/e")
            .symlink("l", "f")
            .fifo("p")
            .socket("s")
            .device("n", 1, 3);
        t.file("one", "1").link("one", "two").file("three", "1").link("three", "four");
        for name in ["f", "d/g", "d/e", "l", "p", "s", "n", "one", "three", "d", ""] {
            t.time(name, T);
        }
    }
}

/// Verifies that after `change` at the target exactly these lines are told, and nothing is touched.
#[track_caller]
fn told(options: &str, change: impl FnOnce(&Plant), want: &[&str]) {
    let s = Scratch::disk();
    alike(&s);
    verify(&s, options).expect(0);
    change(&s.dst());
    let before = s.snapshot();
    let r = verify(&s, options).expect(if want.is_empty() { 0 } else { 23 });
    assert_eq!(r.items(), want);
    assert_eq!(r.json["differences"], want.len(), "{r}");
    // an audit of all entries finds the same, but for DST itself and for who shares an inode with whom
    let drawn: Vec<&str> =
        want.iter().copied().filter(|l| !l.ends_with(" ./") && !l.starts_with('h')).collect();
    let r = audit(&s, options).expect(if drawn.is_empty() { 0 } else { 23 });
    assert_eq!(r.items(), drawn, "audit: {r}");
    assert_eq!((&r.json["whole"], &r.json["differing"]), (&true.into(), &drawn.len().into()));
    s.assert_untouched(&before);
}

#[test]
fn like_trees_are_0_and_nothing_is_told() {
    for s in Scratch::both() {
        alike(&s);
        for options in ["", "-c"] {
            let r = verify(&s, options).expect(0);
            assert_eq!((r.items(), &r.json["differences"]), (vec![], &0.into()));
            assert_eq!(r.json["state"], "done");
        }
    }
}

#[test]
fn what_sync_has_made_is_verified() {
    let s = Scratch::disk();
    treeferry_kit::tree::Spec::new(treeferry_kit::tree::Kind::Awkward)
        .count(300)
        .make(&s.at("tree"))
        .unwrap();
    treeferry_tests::sync([s.at("tree"), s.at("dst")]).expect(0);
    let words = ["verify", "-c", "--json"].map(OsString::from).into_iter();
    let r = Run::of(&mut command(words.chain([s.at("tree"), s.at("dst")].map(OsString::from)))).expect(0);
    assert_eq!(r.items(), [""; 0]);
}

#[test]
fn size() {
    told("", |t| _ = t.file("f", "22").time("f", T), &[">f.s....... f"]);
}

#[test]
fn time_of_a_file_a_directory_a_symlink_and_a_node() {
    told("", |t| _ = t.time("f", T + 1), &[">f..t...... f"]);
    told("-c", |t| _ = t.time("f", T + 1), &[".f..t...... f"]);
    told("", |t| _ = t.time("d/e", T + 1), &[".d..t...... d/e/"]);
    told("", |t| _ = t.time("", T + 1), &[".d..t...... ./"]);
    told("", |t| _ = t.time("l", T + 1), &[".L..t...... l"]);
    told("", |t| _ = t.time("p", T + 1), &[".S..t...... p"]);
}

#[test]
fn content_is_told_with_checksum_only() {
    let change = |t: &Plant| _ = t.file("f", "x").time("f", T);
    told("", change, &[]);
    told("-c", change, &[">fc........ f"]);
}

#[test]
fn mode_owner_and_group() {
    told("", |t| _ = t.mode("f", 0o4755), &[".f...p..... f"]);
    told("", |t| _ = t.mode("d", 0o700), &[".d...p..... d/"]);
    told("", |t| _ = t.owner("f", 7, 0), &[".f....o.... f"]);
    told("", |t| _ = t.owner("d", 0, 7), &[".d.....g... d/"]);
    told("", |t| _ = t.owner("l", 7, 8), &[".L....og... l"]);
    told("", |t| _ = t.owner("n", 7, 8).time("n", T), &[".D....og... n"]);
}

#[test]
fn extended_attributes_and_acls() {
    told("", |t| _ = t.xattr("f", "user.k", b"v"), &[".f........x f"]);
    told("", |t| _ = t.xattr("d", "trusted.k", b"v"), &[".d........x d/"]);
    told("", |t| _ = t.xattr("l", "trusted.k", b"v"), &[".L........x l"]);
    told("", |t| _ = t.default_acl("d", 5, 6), &[".d.......a. d/"]);
    // an ACL that leaves the mode what it was
    told("", |t| _ = t.acl("f", 5, 4).mode("f", 0o644), &[".f.......a. f"]);
}

#[test]
fn an_attribute_that_has_another_value_or_is_not_there() {
    for change in [|t: &Plant| _ = t.xattr("f", "user.k", b"w"), |t: &Plant| _ = t.file("other", "1")] {
        let s = Scratch::disk();
        for t in [s.src(), s.dst()] {
            t.file("f", "1").xattr("f", "user.k", b"v").time("f", T).time("", T);
        }
        change(&s.dst());
        s.dst().time("", T);
        let r = verify(&s, "").expect(23);
        assert_eq!(r.items().len(), 1, "{r}");
    }
    let s = Scratch::disk();
    s.src().file("f", "1").xattr("f", "user.k", b"v").time("f", T).time("", T);
    s.dst().file("f", "1").time("f", T).time("", T);
    assert_eq!(verify(&s, "").expect(23).items(), [".f........x f"]);
}

#[test]
fn the_text_of_a_symlink_and_the_number_of_a_device() {
    told("", |t| _ = t.remove("l").symlink("l", "g").time("l", T).time("", T), &["cLc........ l"]);
    told("", |t| _ = t.remove("n").device("n", 1, 5).time("n", T).time("", T), &["cDc........ n"]);
}

#[test]
fn what_is_missing_and_what_is_extra() {
    told("", |t| _ = t.remove("f").time("", T), &[">f+++++++++ f"]);
    told("", |t| _ = t.remove("d").time("", T), &[">f+++++++++ d/g", "cd+++++++++ d/", "cd+++++++++ d/e/"]);
    told("", |t| _ = t.remove("l").time("", T), &["cL+++++++++ l"]);
    told(
        "",
        |t| _ = t.remove("p").remove("s").remove("n").time("", T),
        &["cD+++++++++ n", "cS+++++++++ p", "cS+++++++++ s"],
    );
    told("", |t| _ = t.file("x", "1").time("", T), &["*deleting   x"]);
    let tree = |t: &Plant| _ = t.file("x/y/z", "1").time("", T);
    told("", tree, &["*deleting   x/", "*deleting   x/y/", "*deleting   x/y/z"]);
}

#[test]
fn another_type() {
    let s = Scratch::disk();
    alike(&s);
    s.dst().remove("f").dir("f").remove("l").file("l", "1").remove("d").symlink("d", "f");
    let before = s.snapshot();
    let r = verify(&s, "").expect(23);
    for name in ["f", "l", "d/"] {
        assert!(r.item(name).is_some(), "{name} is not told: {r}");
    }
    assert!(r.item("d/g").is_some(), "what a directory would have: {r}");
    s.assert_untouched(&before);
}

#[test]
fn a_hard_link_group_that_is_split() {
    let s = Scratch::disk();
    alike(&s);
    s.dst().remove("two").file("two", "1").time("two", T).time("", T);
    let before = s.snapshot();
    let r = verify(&s, "").expect(23);
    assert!(r.items() == ["hf          two"] || r.items() == ["hf          one"], "{r}");
    s.assert_untouched(&before);
}

#[test]
fn hard_link_groups_that_are_joined() {
    let s = Scratch::disk();
    alike(&s);
    s.dst().remove("three").remove("four").link("one", "three").link("one", "four").time("", T);
    let before = s.snapshot();
    let r = verify(&s, "").expect(23);
    assert!(!r.items().is_empty(), "{r}");
    let of_groups = |l: &&str| ["one", "two", "three", "four"].iter().any(|n| l.ends_with(&format!(" {n}")));
    assert!(r.items().iter().all(of_groups), "{r}");
    s.assert_untouched(&before);
}

#[test]
fn a_file_that_has_a_second_name_here_and_two_inodes_there() {
    let s = Scratch::disk();
    for t in [s.src(), s.dst()] {
        t.file("a", "1").time("a", T);
    }
    s.src().link("a", "b");
    s.dst().file("b", "1").time("b", T);
    [s.src(), s.dst()].iter().for_each(|t| _ = t.time("", T));
    assert_eq!(verify(&s, "").expect(23).items().len(), 1);
    verify(&s, "--no-hardlinks").expect(0);
}

#[test]
fn options_say_what_is_compared() {
    let unlike = |options: &str, change: &dyn Fn(&Plant)| {
        let s = Scratch::disk();
        alike(&s);
        change(&s.dst());
        verify(&s, "").expect(23);
        verify(&s, options).expect(0);
    };
    unlike("--no-xattrs", &|t| _ = t.xattr("f", "user.k", b"v"));
    unlike("--no-acls", &|t| _ = t.default_acl("d", 5, 6));
    unlike("-tpg", &|t| _ = t.owner("f", 7, 0));
    unlike("--no-specials", &|t| _ = t.remove("p").fifo("p").time("", T));
    unlike("--exclude x", &|t| _ = t.file("x", "1").time("", T));
}

#[test]
fn the_text_voice_tells_lines_and_a_summary() {
    let s = Scratch::disk();
    alike(&s);
    let quiet = Run::of(command(["verify", "-q"]).args(s.words(""))).expect(0);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("", ""));
    s.dst().mode("f", 0o600);
    let r = Run::of(command(["verify"]).args(s.words(""))).expect(23);
    assert!(r.stdout.lines().any(|l| l == ".f...p..... f"), "{r}");
    assert!(r.stdout.lines().count() > 1, "{r}");
}

#[test]
fn json_is_one_object() {
    let s = Scratch::disk();
    alike(&s);
    s.dst().file("x", "1").mode("f", 0o600).time("", T);
    let r = verify(&s, "").expect(23);
    assert_eq!(r.stdout.lines().count(), 1);
    assert_eq!((&r.json["differences"], &r.json["exit_code"]), (&2.into(), &23.into()));
    assert_eq!(r.count("failures"), 0, "a difference is no failure");
}

#[test]
fn what_cannot_be_compared_is_no_success() {
    let s = Scratch::disk();
    alike(&s);
    let fault = "call=getdents64,errno=EIO,path=d";
    let r =
        Run::of(command(["verify", "--json"]).args(s.words("")).env("TREEFERRY_FAULTS", fault)).expect(23);
    assert!(r.failed().contains(&"d"), "{r}");
    let fault = "call=openat,errno=EACCES,path=d/g";
    let r =
        Run::of(command(["verify", "--json"]).args(s.words("-c")).env("TREEFERRY_FAULTS", fault)).expect(23);
    assert!(r.failed().contains(&"d/g"), "{r}");
}

#[test]
fn a_tree_that_is_not_there_is_3() {
    let s = Scratch::disk();
    alike(&s);
    for (src, dst) in [("src", "missing"), ("missing", "dst"), ("src/f", "dst"), ("src", "dst/f")] {
        let words = ["verify".into(), OsString::from(s.at(src)), s.at(dst).into()];
        Run::of(&mut command(words)).expect(3);
    }
    assert!(!s.at("missing").exists());
}
