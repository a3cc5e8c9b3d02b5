//! `-t -p -o -g` and `--no-acls --no-xattrs --no-hardlinks --no-sparse --no-specials`.

use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use treeferry_tests::{Plant, Run, Scratch, command, neutral};

const T: i64 = 1_234_567_890;

/// A file and a directory that differ in all four from what they would get by themselves.
fn plant(s: &Scratch) {
    for name in ["f", "d/g"] {
        s.src().file(name, "1").owner(name, 41, 42).mode(name, 0o4707).time(name, T);
    }
    s.src().symlink("l", "f").owner("l", 41, 42).time("l", T);
    s.src().owner("d", 41, 42).mode("d", 0o2707).time("d", T);
}

/// Which of the four an entry has from the source. Set-id bits of a file are kept only with the owner they
/// speak of: they would give somebody else's rights away.
fn kept(t: &Plant, name: &str) -> String {
    let m = t.meta(name);
    let mode = match (name, m.uid()) {
        ("d", _) => 0o2707,
        (_, 41) => 0o4707,
        _ => 0o707,
    };
    let had = [
        ('t', t.time_of(name) == (T, 5)),
        ('p', t.mode_of(name) == mode),
        ('o', m.uid() == 41),
        ('g', m.gid() == 42),
    ];
    had.into_iter().filter_map(|(letter, yes)| yes.then_some(letter)).collect()
}

#[test]
fn each_of_the_four_alone_is_kept_alone() {
    for s in Scratch::both() {
        plant(&s);
        for letters in ["t", "p", "o", "g", "tp", "og", "tpog"] {
            let _ = std::fs::remove_dir_all(s.at("dst"));
            s.sync(&format!("-{letters}")).expect(0);
            for name in ["f", "d/g", "d"] {
                assert_eq!(kept(&s.dst(), name), letters, "-{letters}: {name}");
            }
            let of_links: String = letters.chars().filter(|c| *c != 'p').collect();
            assert_eq!(kept(&s.dst(), "l"), of_links, "-{letters}: l");
        }
    }
}

#[test]
fn all_four_are_kept_where_none_is_named() {
    let s = Scratch::disk();
    plant(&s);
    s.sync("").expect(0);
    s.assert_same();
}

#[test]
fn long_names_of_the_four_are_the_same() {
    let s = Scratch::disk();
    plant(&s);
    for (long, letter) in [("--times", "t"), ("--perms", "p"), ("--owner", "o"), ("--group", "g")] {
        let _ = std::fs::remove_dir_all(s.at("dst"));
        s.sync(long).expect(0);
        assert_eq!(kept(&s.dst(), "f"), letter);
    }
}

#[test]
fn a_mode_that_is_not_kept_is_what_the_umask_leaves_and_never_set_id() {
    let s = Scratch::disk();
    s.src().file("f", "1").mode("f", 0o6777).dir("d").mode("d", 0o1777);
    let mut c = std::process::Command::new("sh");
    let line = "umask 027; exec \"$0\" sync -t --json src dst";
    Run::of(neutral(c.args(["-c", line]).arg(treeferry_tests::bin()).current_dir(s.at("")))).expect(0);
    assert_eq!((s.dst().mode_of("f"), s.dst().mode_of("d")), (0o750, 0o750));
}

#[test]
fn what_is_not_kept_is_not_touched_where_the_entry_is_there_already() {
    let s = Scratch::disk();
    s.src().file("f", "same").time("f", T).mode("f", 0o600).owner("f", 1, 2);
    s.dst().file("f", "same").time("f", T).mode("f", 0o644).owner("f", 3, 4);
    s.sync("-t").expect(0);
    let m = s.dst().meta("f");
    assert_eq!((s.dst().mode_of("f"), m.uid(), m.gid()), (0o644, 3, 4));
}

#[test]
fn a_file_that_is_replaced_keeps_of_its_own_what_is_not_kept_of_the_source() {
    let s = Scratch::disk();
    s.src().file("f", "new content").mode("f", 0o600).owner("f", 1, 2).time("f", T);
    s.dst().file("f", "old").mode("f", 0o640);
    s.sync("-t").expect(0);
    assert_eq!((s.dst().read("f"), s.dst().mode_of("f")), ("new content".to_owned(), 0o640));
}

#[test]
fn ownership_asked_for_by_name_fails_by_name_where_only_root_may() {
    let s = Scratch::disk();
    plant(&s);
    let as_nobody = |options: &str| {
        let copy = s.at("treeferry");
        treeferry_tests::install(&copy);
        let _ = std::fs::remove_dir_all(s.at("dst"));
        s.dst().owner("", 65534, 65534);
        let mut c = std::process::Command::new("setpriv");
        c.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(copy).args(["sync", "--json"]);
        Run::of(neutral(c.args(s.words(options))))
    };
    s.src().mode("f", 0o644).mode("d/g", 0o644).mode("d", 0o755);
    let default = as_nobody("").expect(0);
    assert_eq!(default.count("failures"), 0);
    assert!(default.count("left_out_owner") > 0, "{default}");
    let strict = as_nobody("-o").expect(23);
    assert!(strict.failed().contains(&"f"), "{strict}");
}

#[test]
fn no_acls_leaves_acls_out_and_those_of_the_target_alone() {
    let s = Scratch::disk();
    s.src().file("f", "1").acl("f", 5, 6).dir("d").default_acl("d", 5, 6).file("g", "1").time("g", T);
    s.dst().file("g", "1").acl("g", 5, 6).time("g", T);
    s.sync("--no-acls").expect(0);
    let has = |name: &str, key: &str| s.dst().has_xattr(name, key);
    assert!(!has("f", "system.posix_acl_access") && !has("d", "system.posix_acl_default"));
    assert!(has("g", "system.posix_acl_access"));
    s.sync("").expect(0);
    s.assert_same();
    assert!(has("f", "system.posix_acl_access") && !has("g", "system.posix_acl_access"));
}

#[test]
fn no_xattrs_leaves_extended_attributes_out_and_those_of_the_target_alone() {
    for s in Scratch::both() {
        s.src().file("f", "1").xattr("f", "user.k", b"v").dir("d").xattr("d", "trusted.k", b"v");
        s.src().file("g", "1").time("g", T).acl("f", 5, 6);
        s.dst().file("g", "1").time("g", T).xattr("g", "user.k", b"v");
        s.sync("--no-xattrs").expect(0);
        assert!(!s.dst().has_xattr("f", "user.k") && !s.dst().has_xattr("d", "trusted.k"));
        assert!(s.dst().has_xattr("g", "user.k"));
        assert!(s.dst().has_xattr("f", "system.posix_acl_access"), "ACLs have an option of their own");
        s.sync("").expect(0);
        s.assert_same();
    }
}

#[test]
fn no_hardlinks_copies_each_name_by_itself() {
    let s = Scratch::disk();
    s.src().file("a", "1").link("a", "d/b").link("a", "c");
    let r = s.sync("--no-hardlinks").expect(0);
    assert!(!s.dst().is_linked("a", "d/b") && !s.dst().is_linked("a", "c"));
    assert_eq!((r.count("copied_files"), r.count("linked")), (3, 0));
    assert_eq!(s.dst().read("d/b"), "1");
    s.sync("").expect(0);
    s.assert_same();
}

#[test]
fn no_sparse_fills_holes() {
    for s in Scratch::both() {
        let f = std::fs::File::create(s.at("src/f")).unwrap();
        f.write_all_at(b"end", 1 << 20).unwrap();
        s.sync("").expect(0);
        assert!(s.dst().meta("f").blocks() * 512 < 1 << 19);
        std::fs::remove_file(s.at("dst/f")).unwrap();
        s.sync("--no-sparse").expect(0);
        assert!(s.dst().meta("f").blocks() * 512 >= 1 << 20);
    }
}

#[test]
fn no_specials_leaves_nodes_out_and_those_of_the_target_alone() {
    let s = Scratch::disk();
    s.src().fifo("p").socket("s").device("n", 1, 3).file("f", "1").symlink("l", "f");
    s.dst().fifo("p").file("s", "a file there");
    let r = s.sync("--no-specials --delete").expect(0);
    assert_eq!(s.dst().list(""), ["f", "l", "p", "s"]);
    assert!(s.dst().meta("p").file_type().is_fifo() && s.dst().meta("s").is_file());
    assert_eq!((r.count("skipped"), r.count("specials")), (3, 0));
    s.sync("--delete").expect(0);
    s.assert_same();
}

#[test]
fn the_environment_of_these_tests_arms_nothing() {
    let c = command(["sync"]);
    const SET: [&str; 3] = ["LC_ALL", "TREEFERRY_LOG_DIR", "TREEFERRY_RUNTIME_DIR"];
    assert!(c.get_envs().all(|(name, value)| value.is_none() || SET.iter().any(|s| name == *s)));
}
