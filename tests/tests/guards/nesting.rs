//! Roots that lie in each other, whatever way leads there.

use std::ffi::OsString;
use std::process::Command;
use treeferry_tests::{Plant, Run, Scratch, args, bin, command, sync};

/// A tree with something in it that is not the other root.
fn outer(s: &Scratch) -> Plant {
    let tree = Plant::new(s.at("outer"));
    tree.file("f", "1").file("d/g", "2").file("keep/in/h", "3");
    tree
}

/// Refused with a word that says why, and nothing touched.
#[track_caller]
fn refused(s: &Scratch, words: Vec<OsString>) {
    let before = s.snapshot();
    let r = sync(words).expect(1);
    assert!(!r.stderr.is_empty() && r.json["error"].is_string(), "{r}");
    s.assert_untouched(&before);
}

#[test]
fn a_target_inside_the_source_is_refused() {
    let s = Scratch::disk();
    outer(&s);
    for dst in ["outer/d", "outer/keep/in", "outer/not-there-yet", "outer/keep/new"] {
        refused(&s, args![s.at("outer"), s.at(dst)]);
        refused(&s, args!["--delete", s.at("outer"), s.at(dst)]);
    }
}

#[test]
fn a_source_inside_the_target_is_refused() {
    let s = Scratch::disk();
    outer(&s);
    for src in ["outer/d", "outer/keep/in"] {
        refused(&s, args![s.at(src), s.at("outer")]);
        refused(&s, args!["--delete", s.at(src), s.at("outer")]);
    }
}

#[test]
fn source_and_target_that_are_one_directory_are_refused_whatever_their_names() {
    let s = Scratch::disk();
    outer(&s).symlink("../link", "outer");
    for dst in ["outer", "outer/.", "outer/d/..", "link", "link/"] {
        refused(&s, args!["--delete", s.at("outer"), s.at(dst)]);
    }
}

#[test]
fn a_target_inside_the_source_through_a_symlink_is_refused() {
    let s = Scratch::disk();
    outer(&s).symlink("../link", "outer/keep");
    refused(&s, args!["--delete", s.at("outer"), s.at("link/in")]);
    refused(&s, args!["--delete", s.at("outer"), s.at("link")]);
    refused(&s, args!["--delete", s.at("link"), s.at("outer")]);
    // an exclude of the link's name is none of what it leads to
    refused(&s, args!["--exclude", "/link", s.at("outer"), s.at("link")]);
}

#[test]
fn a_dry_run_is_refused_too() {
    let s = Scratch::disk();
    outer(&s);
    refused(&s, args!["-n", s.at("outer"), s.at("outer/d")]);
    refused(&s, args!["-n", s.at("outer"), s.at("outer/not-there-yet")]);
}

#[test]
fn an_exclude_of_something_else_does_not_help() {
    let s = Scratch::disk();
    outer(&s);
    refused(&s, args!["--exclude", "/f", "--exclude", "/keep/in/h", s.at("outer"), s.at("outer/keep/in")]);
    refused(&s, args!["--exclude", "/keep", "--include", "keep", s.at("outer"), s.at("outer/keep")]);
}

#[test]
fn a_target_inside_the_source_is_allowed_where_it_is_excluded() {
    for (dst, pattern) in [
        ("outer/copy", "/copy"),
        ("outer/keep/copy", "copy/"),
        ("outer/keep/in/copy", "/keep"),
        ("outer/keep", "/keep"),
    ] {
        let s = Scratch::disk();
        let tree = outer(&s);
        for _ in 0..2 {
            sync(args!["--delete", "--exclude", pattern, s.at("outer"), s.at(dst)]).expect(0);
            let copy = Plant::new(s.at(dst));
            assert_eq!((copy.read("f"), copy.read("d/g")), ("1".to_owned(), "2".to_owned()), "{dst}");
            assert!(!copy.has("copy") && !copy.has("keep/copy"), "{dst} in itself");
            assert!(tree.has("f") && tree.has("d/g"));
        }
    }
}

#[test]
fn a_source_inside_the_target_is_allowed_where_it_is_excluded_and_survives_a_delete() {
    let s = Scratch::disk();
    let tree = outer(&s);
    for _ in 0..2 {
        sync(args!["--delete", "--exclude", "/keep", s.at("outer/keep"), s.at("outer")]).expect(0);
        assert_eq!(tree.list(""), ["in", "keep"]);
        assert_eq!((tree.read("in/h"), tree.read("keep/in/h")), ("3".to_owned(), "3".to_owned()));
    }
}

#[test]
fn an_exclude_that_may_be_deleted_protects_nothing_so_it_is_refused() {
    let s = Scratch::disk();
    outer(&s);
    let delete = ["--delete", "--delete-excluded", "--exclude", "/keep"].map(OsString::from);
    for roots in [["outer/keep", "outer"], ["outer", "outer/keep"]] {
        refused(&s, delete.iter().cloned().chain(roots.map(|r| s.at(r).into())).collect());
    }
}

#[test]
fn neighbours_whose_names_begin_alike_are_no_nest() {
    let s = Scratch::disk();
    outer(&s);
    sync(args![s.at("outer"), s.at("outer2")]).expect(0);
    sync(args!["--delete", s.at("outer2"), s.at("outer")]).expect(0);
    treeferry_tests::assert_same(&s.at("outer"), &s.at("outer2"));
}

/// Runs `treeferry sync WORDS` in a mount name space of its own, after these commands; all in `s`.
fn with_mounts(s: &Scratch, mounts: &str, words: &str) -> Run {
    let script = format!("set -e; {mounts}; exec timeout -s KILL 20 {} sync --json {words}", bin().display());
    let mut c = Command::new("unshare");
    c.args(["-m", "sh", "-c", &script]).current_dir(s.at(""));
    for (name, value) in command(["sync"]).get_envs() {
        match value {
            Some(v) => c.env(name, v),
            None => c.env_remove(name),
        };
    }
    Run::of(&mut c)
}

#[test]
fn a_bind_mount_of_the_source_is_the_source() {
    let s = Scratch::disk();
    outer(&s);
    Plant::new(s.at("elsewhere"));
    let before = s.snapshot();
    for words in ["outer elsewhere", "elsewhere outer", "elsewhere outer/d", "outer/d elsewhere"] {
        with_mounts(&s, "mount --bind outer elsewhere", &format!("--delete {words}")).expect(1);
    }
    s.assert_untouched(&before);
}

#[test]
fn a_bind_mount_of_a_directory_inside_the_source_is_inside_the_source() {
    let s = Scratch::disk();
    outer(&s);
    Plant::new(s.at("elsewhere"));
    for words in ["outer elsewhere", "elsewhere outer"] {
        let before = s.snapshot();
        let r = with_mounts(&s, "mount --bind outer/keep elsewhere", &format!("--delete {words}"));
        let code = r.status.code();
        assert!(code == Some(1) || code == Some(23), "{r}");
        // found beforehand nothing is touched; found on the way, the root that lies within is left alone
        if code == Some(1) {
            s.assert_untouched(&before);
        }
        let tree = Plant::new(s.at("outer"));
        assert_eq!(tree.read("keep/in/h"), "3", "{words}: {r}");
        assert!(!tree.has("keep/keep") && !tree.has("keep/in/in"), "{words}: a copy in itself");
    }
}

#[test]
fn a_mount_inside_the_source_is_walked_like_any_directory() {
    let s = Scratch::disk();
    outer(&s);
    Plant::new(s.at("other")).file("m", "1");
    with_mounts(&s, "mount --bind other outer/d", "--delete outer dst").expect(0);
    assert_eq!(s.dst().list("d"), ["m"]);
}

#[test]
fn a_mount_inside_the_target_is_a_failure_where_it_would_be_deleted() {
    let s = Scratch::disk();
    outer(&s);
    Plant::new(s.at("other")).file("m", "1");
    s.dst().dir("extra");
    let r = with_mounts(&s, "mount -t tmpfs none dst/extra", "--delete outer dst").expect(23);
    assert_eq!(r.failed(), ["extra"]);
}
