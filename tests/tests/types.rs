//! What stands at the target in the way of something else: every type of entry against every other.

mod checks;

use checks::Immutable;
use treeferry_kit::oracle::{self, Class, Options, snapshot};
use treeferry_tests::{Plant, Run, Scratch, args, sync};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    File,
    EmptyDir,
    FullDir,
    LinkToFile,
    LinkToDir,
    Dangling,
    Fifo,
    Socket,
    Device,
}

use Entry::*;

const ALL: [Entry; 9] = [File, EmptyDir, FullDir, LinkToFile, LinkToDir, Dangling, Fifo, Socket, Device];

impl Entry {
    fn is_dir(self) -> bool {
        matches!(self, EmptyDir | FullDir)
    }

    /// Plants it; its links lead into `outside`, which nobody is to touch. `text` tells source from target.
    fn plant(self, tree: &Plant, name: &str, outside: &str, text: &str) {
        match self {
            File => tree.file(name, text),
            EmptyDir => tree.dir(name),
            FullDir => tree.file(&format!("{name}/in"), text),
            LinkToFile => tree.symlink(name, format!("{outside}/{text}-file")),
            LinkToDir => tree.symlink(name, format!("{outside}/{text}-dir")),
            Dangling => tree.symlink(name, format!("{outside}/{text}-nothing")),
            Fifo => tree.fifo(name),
            Socket => tree.socket(name),
            Device => tree.device(name, 1, text.len() as u32),
        };
    }
}

/// Every ordered pair, each under a name of its own, as `SOURCE-over-TARGET`.
fn plant_pairs(s: &Scratch) {
    let outside = s.at("outside");
    for text in ["source", "old"] {
        Plant::new(&outside).file(&format!("{text}-file"), "1").file(&format!("{text}-dir/in"), "1");
    }
    let outside = outside.to_str().unwrap();
    for (from, to) in ALL.iter().flat_map(|a| ALL.iter().map(move |b| (*a, *b))) {
        let name = format!("{from:?}-over-{to:?}");
        from.plant(&s.src(), &name, outside, "source");
        to.plant(&s.dst(), &name, outside, "old");
    }
}

/// Runs it and sees to it that nothing behind the links was touched.
fn run(s: &Scratch, options: &str) -> Run {
    let before = snapshot(&s.at("outside")).unwrap();
    let source = snapshot(&s.at("src")).unwrap();
    let r = s.sync(options);
    assert_eq!(before.touched(&snapshot(&s.at("outside")).unwrap()), [""; 0]);
    assert_eq!(source.touched(&snapshot(&s.at("src")).unwrap()), [""; 0]);
    r
}

#[test]
fn everything_but_a_full_directory_gives_way() {
    for s in Scratch::both() {
        plant_pairs(&s);
        let r = run(&s, "").expect(23);
        let mut refused: Vec<String> =
            ALL.iter().filter(|e| !e.is_dir()).map(|e| format!("{e:?}-over-FullDir")).collect();
        refused.sort_unstable();
        assert_eq!(r.failed(), refused);
        for name in &refused {
            assert_eq!(s.dst().read(&format!("{name}/in")), "old", "{name}");
            s.src().remove(name);
            s.dst().remove(name);
        }
        // what is extra in a directory is not in the way of anything
        s.dst().remove("EmptyDir-over-FullDir/in");
        s.sync("").expect(0);
        s.assert_same();
    }
}

#[test]
fn with_delete_everything_gives_way() {
    for s in Scratch::both() {
        plant_pairs(&s);
        run(&s, "--delete").expect(0);
        s.assert_same();
    }
}

#[test]
fn with_force_everything_gives_way_and_nothing_extra_goes() {
    for s in Scratch::both() {
        plant_pairs(&s);
        s.dst().file("extra", "1");
        run(&s, "--force").expect(0);
        let found = oracle::compare(&s.at("src"), &s.at("dst"), &Options::default());
        assert_eq!(found.classes(), [Class::Extra], "{found}");
        assert_eq!(found.paths(&Class::Extra), [&b"EmptyDir-over-FullDir/in"[..], b"extra"]);
    }
}

#[test]
fn a_chunked_file_takes_the_place_of_anything_too() {
    for to in ALL {
        let s = Scratch::disk();
        Plant::new(s.at("outside")).file("old-file", "1").file("old-dir/in", "1");
        s.src().file("f", vec![5; 300_000]);
        to.plant(&s.dst(), "f", s.at("outside").to_str().unwrap(), "old");
        run(&s, "--delete --chunk-size 64K").expect(0);
        s.assert_same();
    }
}

#[test]
fn names_of_a_group_take_the_place_of_anything_too() {
    let s = Scratch::disk();
    Plant::new(s.at("outside")).file("old-file", "1").file("old-dir/in", "1");
    s.src().file("first", "1");
    for to in ALL {
        let name = format!("{to:?}");
        s.src().link("first", &name);
        to.plant(&s.dst(), &name, s.at("outside").to_str().unwrap(), "old");
    }
    let r = run(&s, "").expect(23);
    assert_eq!(r.failed(), ["FullDir"]);
    assert_eq!(s.dst().read("FullDir/in"), "old");
    run(&s, "--delete").expect(0);
    s.assert_same();
}

#[test]
fn an_immutable_target_is_a_named_failure_and_the_rest_is_done() {
    let s = Scratch::disk();
    s.src().file("content", "newer").file("mode", "1").time("mode", 5).mode("mode", 0o600).file("x", "1");
    s.dst().file("content", "old").file("mode", "1").time("mode", 5).file("extra", "1").file("extra2", "1");
    let _kept: Vec<Immutable> =
        ["content", "mode", "extra"].iter().map(|n| Immutable::new(s.dst().path(n))).collect();
    let r = s.sync("--delete").expect(23);
    assert_eq!(r.failed(), ["content", "extra", "mode"]);
    assert_eq!((s.dst().read("content"), s.dst().mode_of("mode")), ("old".to_owned(), 0o644));
    assert_eq!(s.dst().list(""), ["content", "extra", "mode", "x"], "and no temporary file is left");
}

#[test]
fn an_immutable_directory_is_a_named_failure_for_each_entry_that_it_refuses() {
    let s = Scratch::disk();
    s.src().file("d/new", "1").file("d/same", "1").time("d/same", 5).file("x", "1").symlink("d/l", "x");
    s.dst().file("d/same", "1").time("d/same", 5).time("d", 7);
    let _kept = Immutable::new(s.dst().path("d"));
    let r = s.sync("").expect(23);
    assert_eq!(r.failed(), ["d", "d/l", "d/new"]);
    assert_eq!(
        (s.dst().list("d"), s.dst().list("")),
        (vec!["same".to_owned()], ["d", "x"].map(str::to_owned).to_vec())
    );
}

#[test]
fn links_as_roots_are_followed_and_stay() {
    let s = Scratch::disk();
    s.src().file("d/f", "1");
    s.dst();
    Plant::new(s.at("links")).symlink("src", s.at("src")).symlink("dst", s.at("dst"));
    sync(args!["--delete", s.at("links/src"), s.at("links/dst")]).expect(0);
    s.assert_same();
    assert!(Plant::new(s.at("links")).meta("dst").is_symlink());
}

#[test]
fn slashes_at_the_end_make_no_difference_and_relative_roots_do() {
    let s = Scratch::disk();
    s.src().file("d/f", "1");
    for (src, dst) in [("src/", "dst/"), ("./src", "dst//"), ("src/d/..", "./dst/.")] {
        let mut c = treeferry_tests::command(["sync", "--json", src, dst]);
        Run::of(c.current_dir(s.at(""))).expect(0);
        s.assert_same();
    }
}

#[test]
fn the_roots_themselves_are_kept_alike() {
    for s in Scratch::both() {
        s.src().owner("", 7, 8).mode("", 0o1751).xattr("", "user.k", b"v").acl("", 5, 6).time("", 5);
        s.dst().mode("", 0o700).xattr("", "user.gone", b"v");
        s.sync("").expect(0);
        s.assert_same();
        assert_eq!(s.sync("-i").expect(0).items(), [""; 0]);
    }
}

#[test]
fn an_empty_source_makes_an_empty_target_and_empties_a_full_one() {
    let s = Scratch::disk();
    s.sync("").expect(0);
    s.assert_same();
    s.dst().file("d/f", "1").symlink("l", "d");
    s.sync("--delete").expect(0);
    s.assert_same();
}
