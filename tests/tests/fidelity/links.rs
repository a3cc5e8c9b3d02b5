//! Hard-link groups: what shares an inode in the source shares one in the target, and nothing else does,
//! whatever was there before.

use crate::checks::settle;
use std::fs;
use std::os::unix::fs::MetadataExt;
use treeferry_tests::{Plant, Scratch};

/// Files that are alike in all but their inode, so that only the links between them can differ.
fn alike(tree: &Plant, names: &[&str]) {
    for name in names {
        tree.file(name, "the same in each").time(name, 1_600_000_000);
    }
}

/// Makes the first name's file the file of all names.
fn join(tree: &Plant, names: &[&str]) {
    for name in &names[1..] {
        if tree.has(name) {
            tree.remove(name);
        }
        tree.link(names[0], name);
    }
}

#[test]
fn a_group_is_copied_once_and_linked() {
    let s = Scratch::disk();
    alike(&s.src(), &["a"]);
    join(&s.src(), &["a", "b", "c"]);
    let run = settle(&s, "");
    assert_eq!((run.count("copied_files"), run.count("linked"), run.count("files")), (1, 2, 3));
}

#[test]
fn a_group_that_somebody_else_has_made_already_is_left_alone() {
    let s = Scratch::disk();
    alike(&s.src(), &["a"]);
    join(&s.src(), &["a", "d/b", "d/e/c"]);
    let cp = std::process::Command::new("cp").arg("-aT").args([s.at("src"), s.at("dst")]).status().unwrap();
    assert!(cp.success());
    let before = s.snapshot();
    let run = s.sync("--delete").expect(0);
    assert_eq!(run.count("unchanged_files"), 3, "{run}");
    s.assert_untouched(&before);
}

#[test]
fn a_name_that_left_its_group_is_a_file_of_its_own() {
    for options in ["", "--delete"] {
        let s = Scratch::disk();
        alike(&s.src(), &["a"]);
        join(&s.src(), &["a", "b", "c"]);
        settle(&s, "");
        s.src().remove("b");
        alike(&s.src(), &["b"]);
        settle(&s, options);
        assert!(!s.dst().is_linked("a", "b") && s.dst().is_linked("a", "c"));
    }
}

#[test]
fn a_group_that_fell_apart_is_taken_apart() {
    let s = Scratch::disk();
    alike(&s.src(), &["a"]);
    join(&s.src(), &["a", "b", "c", "d"]);
    settle(&s, "");
    for name in ["a", "b", "c", "d"] {
        s.src().remove(name);
        alike(&s.src(), &[name]);
    }
    settle(&s, "");
}

#[test]
fn files_that_became_one_are_linked() {
    for options in ["", "--delete"] {
        let s = Scratch::disk();
        alike(&s.src(), &["a", "d/b", "c"]);
        settle(&s, "");
        join(&s.src(), &["a", "d/b", "c"]);
        let run = settle(&s, options);
        assert_eq!((run.count("copied_files"), run.count("linked")), (0, 2), "{run}");
    }
}

#[test]
fn a_group_that_shrank_is_left_as_it_is_but_for_the_name_that_went() {
    let s = Scratch::disk();
    alike(&s.src(), &["a"]);
    join(&s.src(), &["a", "b", "c"]);
    settle(&s, "");
    let inode = s.dst().meta("a").ino();
    s.src().remove("b");
    let run = s.sync("--delete").expect(0);
    assert_eq!(run.count("deleted"), 1, "{run}");
    s.assert_same();
    assert_eq!(s.dst().meta("c").nlink(), 2);
    // it may have been copied anew, as its target still had a name too many, but only once
    let now = s.dst().meta("a").ino();
    assert_eq!(run.count("copied_files"), u64::from(now != inode), "{run}");
    settle(&s, "--delete");
    assert_eq!(s.dst().meta("a").ino(), now);
}

#[test]
fn a_group_that_grew_gets_a_link_more() {
    let s = Scratch::disk();
    alike(&s.src(), &["b"]);
    join(&s.src(), &["b", "c"]);
    settle(&s, "");
    // one that comes before, one that comes after, one in a new directory
    join(&s.src(), &["b", "a", "z", "new/x"]);
    let run = settle(&s, "");
    assert_eq!((run.count("copied_files"), run.count("linked")), (0, 3), "{run}");
}

#[test]
fn a_name_that_moved_to_another_group_moves_there() {
    for options in ["", "--delete"] {
        let s = Scratch::disk();
        alike(&s.src(), &["a", "c"]);
        join(&s.src(), &["a", "b", "b2"]);
        join(&s.src(), &["c", "d"]);
        settle(&s, "");
        join(&s.src(), &["c", "b"]);
        settle(&s, options);
        assert!(s.dst().is_linked("b", "d") && s.dst().is_linked("a", "b2") && !s.dst().is_linked("a", "b"));
    }
}

#[test]
fn groups_that_are_crosswise_at_the_target_are_put_right() {
    let s = Scratch::disk();
    alike(&s.src(), &["a", "c"]);
    join(&s.src(), &["a", "b"]);
    join(&s.src(), &["c", "d"]);
    alike(&s.dst(), &["a", "b"]);
    join(&s.dst(), &["a", "c"]);
    join(&s.dst(), &["b", "d"]);
    settle(&s, "");
}

#[test]
fn two_groups_that_are_one_at_the_target_are_told_apart() {
    let s = Scratch::disk();
    alike(&s.src(), &["a", "c"]);
    join(&s.src(), &["a", "b"]);
    join(&s.src(), &["c", "d"]);
    alike(&s.dst(), &["a"]);
    join(&s.dst(), &["a", "b", "c", "d"]);
    settle(&s, "");
}

#[test]
fn a_renamed_link_leaves_nothing_for_a_second_run_even_without_delete() {
    // one that is met before the others, and one that is met after them
    for new in ["c", "d/c"] {
        let s = Scratch::memory();
        alike(&s.src(), &["a"]);
        join(&s.src(), &["a", "b"]);
        s.src().dir("d");
        settle(&s, "");
        fs::rename(s.at("src/b"), s.src().path(new)).unwrap();
        s.sync("").expect(0);
        assert!(s.dst().is_linked("a", new));
        let before = s.snapshot();
        s.sync("").expect(0);
        s.assert_untouched(&before);
    }
}

#[test]
fn new_content_of_a_group_is_copied_once() {
    let s = Scratch::disk();
    alike(&s.src(), &["a"]);
    join(&s.src(), &["a", "d/b", "d/c"]);
    settle(&s, "");
    s.src().file("d/b", "other words");
    let run = settle(&s, "");
    assert_eq!((run.count("copied_files"), run.count("linked")), (1, 2), "{run}");
}

#[test]
fn new_metadata_of_a_group_makes_one_new_copy_and_leaves_the_old_inode_alone() {
    let s = Scratch::disk();
    alike(&s.src(), &["a"]);
    join(&s.src(), &["a", "d/b", "d/c"]);
    settle(&s, "");
    s.src().mode("d/b", 0o4711);
    let run = settle(&s, "");
    assert_eq!((run.count("copied_files"), run.count("linked")), (1, 2), "{run}");
}

#[test]
fn a_group_of_hundreds_over_many_directories_is_one_file_again() {
    let s = Scratch::memory();
    s.src().file("first", "x");
    for i in 0..600 {
        s.src().link("first", &format!("d{}/e{}/n{i}", i % 7, i % 60));
    }
    let run = settle(&s, "--pool 8");
    assert_eq!((run.count("copied_files"), run.count("linked")), (1, 600), "{run}");
}

#[test]
fn symlinks_fifos_sockets_and_devices_are_linked_too() {
    let s = Scratch::disk();
    s.src().symlink("l1", "anywhere").fifo("p1").socket("s1");
    let mut kinds = vec!["l", "p", "s"];
    if crate::checks::is_root() {
        s.src().device("c1", 1, 3);
        kinds.push("c");
    }
    for kind in &kinds {
        s.src()
            .link(&format!("{kind}1"), &format!("d/{kind}2"))
            .link(&format!("{kind}1"), &format!("{kind}3"));
    }
    let run = settle(&s, "");
    assert_eq!(run.count("linked"), 2 * kinds.len() as u64, "{run}");
    // and apart again
    for kind in kinds {
        s.src().remove(&format!("{kind}3"));
    }
    s.src().symlink("l3", "anywhere").fifo("p3");
    settle(&s, "--delete");
    assert!(!s.dst().is_linked("l1", "l3") && !s.dst().is_linked("p1", "p3"));
}

#[test]
fn a_file_whose_other_name_is_outside_of_the_source_is_copied() {
    let s = Scratch::disk();
    s.src().file("a", "x").file("d/b", "y");
    fs::hard_link(s.at("src/a"), s.at("outside-a")).unwrap();
    join(&s.src(), &["d/b", "c"]);
    fs::hard_link(s.at("src/c"), s.at("outside-b")).unwrap();
    let run = s.sync("").expect(0);
    assert_eq!((run.count("copied_files"), run.count("linked")), (2, 1), "{run}");
    assert_eq!(s.dst().meta("a").nlink(), 1);
    assert!(s.dst().is_linked("c", "d/b"));
    let before = s.snapshot();
    s.sync("--delete").expect(0);
    s.assert_untouched(&before);
}

#[test]
fn what_shares_an_inode_with_the_target_from_outside_is_never_touched() {
    // links of the source outside of SRC: none, or as many as the target has outside of DST
    for outside_links in [0, 1] {
        for change in ["content", "mode", "time", "xattr"] {
            let s = Scratch::disk();
            s.src().file("a", "first").mode("a", 0o644).time("a", 1_500_000_000);
            if outside_links == 1 {
                fs::hard_link(s.at("src/a"), s.at("beside-src")).unwrap();
            }
            s.sync("").expect(0);
            let keep = Plant::new(s.at("snapshot"));
            fs::hard_link(s.at("dst/a"), s.at("snapshot/a")).unwrap();
            match change {
                "content" => s.src().file("a", "second"),
                "mode" => s.src().mode("a", 0o600),
                "time" => s.src().time("a", 1_500_000_007),
                _ => s.src().xattr("a", "user.new", b"1"),
            };
            s.sync("").expect(0);
            let what = format!("{change}, {outside_links} links beside SRC");
            assert_eq!(keep.read("a"), "first", "{what}");
            assert_eq!(keep.mode_of("a"), 0o644, "{what}");
            assert_eq!(keep.time_of("a").0, 1_500_000_000, "{what}");
            assert!(!keep.has_xattr("a", "user.new"), "{what}");
        }
    }
}

#[test]
fn a_directory_in_the_way_of_a_link_gives_way_with_delete() {
    let s = Scratch::disk();
    alike(&s.src(), &["a"]);
    join(&s.src(), &["a", "m", "z"]);
    s.dst().file("a/deep/er", "x").file("m/x", "x").dir("z");
    let run = s.sync("").expect(23);
    assert_eq!(run.failed(), ["a", "m"]);
    settle(&s, "--delete");
}
