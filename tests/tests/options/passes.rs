//! `--pass` in every combination.

use std::process::Command;
use treeferry_kit::oracle::{self, Class, EntryKind, Options};
use treeferry_kit::run::{DEADLINE, collect};
use treeferry_tests::{Run, Scratch};

const T: i64 = 1_234_567_890;

/// A source whose directories have metadata of every kind; a target with something extra.
fn plant(s: &Scratch) {
    let src = s.src();
    src.file("d/e/f", "1").symlink("d/l", "e/f").file("x", "2").file("ro/f", "3").dir("d/empty");
    src.link("x", "d/y").fifo("d/p");
    for dir in ["d/e", "d/empty", "ro", "d"] {
        src.xattr(dir, "user.k", b"v").owner(dir, 7, 8).mode(dir, 0o2751).time(dir, T);
    }
    src.default_acl("d/e", 5, 6).acl("d/e", 5, 6).mode("ro", 0o500).time("d/e", T).time("ro", T);
    src.mode("", 0o711).owner("", 9, 9).xattr("", "user.r", b"v").time("", T);
}

/// What something else made of the source: content only.
fn copied_by_cp(s: &Scratch) {
    collect(Command::new("cp").arg("-r").args([s.at("src"), s.at("dst")]), DEADLINE).expect_code(0);
}

/// Classes of difference that are left.
fn left(s: &Scratch) -> Vec<Class> {
    oracle::compare(&s.at("src"), &s.at("dst"), &Options::default()).classes()
}

fn of_dirs_only(classes: &[Class]) -> bool {
    let dirs = |c: &Class| match c {
        // the kit tells a directory's mode and times apart; of owner and attributes there are only those planted
        Class::ModeDir | Class::Mtime { of: EntryKind::Dir, .. } | Class::Acl | Class::DefaultAcl => true,
        Class::Uid | Class::Gid | Class::Xattr(_) => true,
        _ => false,
    };
    classes.iter().all(dirs)
}

fn passes(r: &Run) -> Vec<&str> {
    r.json["passes"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect()
}

#[test]
fn without_the_option_copy_and_dirtime_run() {
    let s = Scratch::disk();
    plant(&s);
    s.dst().file("extra", "1");
    let r = s.sync("").expect(0);
    assert_eq!(passes(&r), ["copy", "dirtime"]);
    assert_eq!(left(&s), [Class::Extra]);
}

#[test]
fn copy_alone_brings_everything_but_the_metadata_of_directories() {
    for s in Scratch::both() {
        plant(&s);
        s.dst().file("extra", "1");
        let r = s.sync("--pass copy").expect(0);
        assert_eq!(passes(&r), ["copy"]);
        assert!(s.dst().has("extra"));
        std::fs::remove_file(s.at("dst/extra")).unwrap();
        let left = left(&s);
        assert!(!left.is_empty() && of_dirs_only(&left), "{left:?}");
        // the metadata of directories is for another day, and it fits
        s.sync("--pass dirtime").expect(0);
        s.assert_same();
    }
}

#[test]
fn dirtime_alone_finishes_the_directories_of_a_tree_that_something_else_copied() {
    for s in Scratch::both() {
        plant(&s);
        copied_by_cp(&s);
        s.dst().file("x", "older").file("only-here/f", "1").time("only-here", T);
        let before = s.dst().meta("d/e/f").modified().unwrap();
        let r = s.sync("--pass dirtime").expect(0);
        for dir in ["", "d", "d/e", "d/empty", "ro"] {
            assert_eq!(s.dst().time_of(dir), (T, 5), "{dir}");
            assert_eq!(s.dst().mode_of(dir), s.src().mode_of(dir), "{dir}");
        }
        assert!(s.dst().has_xattr("d", "user.k") && s.dst().has_xattr("d/e", "system.posix_acl_default"));
        assert_eq!(s.dst().read("x"), "older", "files are none of its business");
        assert_eq!(s.dst().meta("d/e/f").modified().unwrap(), before);
        assert_eq!(s.dst().time_of("only-here"), (T, 5));
        assert_eq!(r.count("copied_files") + r.count("deleted") + r.count("made_dirs"), 0);
    }
}

#[test]
fn dirtime_alone_makes_no_directory_that_is_missing() {
    let s = Scratch::disk();
    plant(&s);
    copied_by_cp(&s);
    s.dst().remove("d/e");
    s.sync("--pass dirtime").expect(0);
    assert!(!s.dst().has("d/e"));
    assert_eq!(s.dst().time_of("d"), (T, 5));
}

#[test]
fn delete_alone_removes_what_is_extra_and_nothing_else() {
    for s in Scratch::both() {
        plant(&s);
        copied_by_cp(&s);
        s.dst().file("x", "older").file("extra", "1").file("d/extra/deep", "2").remove("ro");
        let before = s.dst().meta("d/e").modified().unwrap();
        let r = s.sync("--pass delete").expect(0);
        assert!(!s.dst().has("extra") && !s.dst().has("d/extra"));
        assert_eq!(s.dst().read("x"), "older");
        assert!(!s.dst().has("ro"), "nothing is copied");
        assert_eq!(s.dst().meta("d/e").modified().unwrap(), before, "no directory gets another's time");
        assert_eq!((r.count("deleted"), r.count("copied_files"), r.count("made_dirs")), (3, 0, 0));
    }
}

#[test]
fn delete_alone_never_removes_what_the_source_has_in_another_type() {
    let s = Scratch::disk();
    s.src().file("d", "a file here").dir("f");
    s.dst().file("d/in", "1").file("f", "2");
    s.sync("--pass delete");
    assert!(s.dst().has("d/in") && s.dst().has("f"));
}

#[test]
fn passes_that_make_nothing_need_a_target() {
    for pass in ["delete", "dirtime", "delete,dirtime"] {
        let s = Scratch::disk();
        s.src().file("x", "1");
        s.sync(&format!("--pass {pass}")).expect(3);
        assert!(!s.at("dst").exists());
    }
}

#[test]
fn two_passes_together_do_both_and_not_the_third() {
    for (pass, copied, deleted, dated) in [
        ("copy,delete", true, true, false),
        ("dirtime,delete", false, true, true),
        ("dirtime,copy", true, false, true),
    ] {
        let s = Scratch::disk();
        s.src().file("d/new", "1").dir("e").time("d", T).time("e", T);
        s.dst().dir("d").file("e/extra", "1").dir("d/more");
        s.sync(&format!("--pass {pass}")).expect(0);
        assert_eq!(s.dst().has("d/new"), copied, "{pass}");
        assert_eq!(!s.dst().has("e/extra"), deleted, "{pass}");
        assert_eq!(s.dst().time_of("d") == (T, 5) && s.dst().time_of("e") == (T, 5), dated, "{pass}");
    }
}

#[test]
fn all_passes_fused_make_the_trees_alike_in_whatever_order_they_are_named() {
    for options in ["--pass copy,delete,dirtime", "--pass dirtime,copy,delete", "--delete"] {
        let s = Scratch::disk();
        plant(&s);
        s.dst().file("extra", "1").file("d/e/extra/deep", "2").file("x", "older");
        let r = s.sync(options).expect(0);
        assert_eq!(passes(&r), ["copy", "delete", "dirtime"]);
        s.assert_same();
    }
}

#[test]
fn passes_days_apart_end_where_one_walk_ends() {
    let s = Scratch::disk();
    plant(&s);
    s.dst().file("extra", "1").file("d/e/extra/deep", "2").file("x", "older");
    for pass in ["copy", "delete", "dirtime"] {
        s.sync(&format!("--pass {pass}")).expect(0);
    }
    s.assert_same();
}

#[test]
fn passes_of_the_same_tree_again_change_nothing() {
    let s = Scratch::disk();
    plant(&s);
    s.sync("").expect(0);
    let before = s.snapshot();
    for pass in ["copy", "delete", "dirtime", "copy,delete,dirtime"] {
        let r = s.sync(&format!("--pass {pass} -i")).expect(0);
        assert_eq!(r.items(), [""; 0], "{pass}");
        s.assert_untouched(&before);
    }
}
