//! `--checksum` and `--verify`.

use treeferry_kit::oracle::assert_alike;
use treeferry_tests::{Run, Scratch, command};

const T: i64 = 1_500_000_000;

/// A file of the same size and time at both sides, with another content.
fn silently_different(s: &Scratch) {
    s.src().file("f", "right").time("f", T).file("same", "1").time("same", T);
    s.dst().file("f", "wrong").time("f", T).file("same", "1").time("same", T);
}

#[test]
fn without_checksum_size_and_time_decide() {
    let s = Scratch::disk();
    silently_different(&s);
    let r = s.sync("").expect(0);
    assert_eq!(s.dst().read("f"), "wrong");
    assert_eq!((r.count("unchanged_files"), r.count("copied_files")), (2, 0));
}

#[test]
fn checksum_finds_what_only_content_tells() {
    for s in Scratch::both() {
        silently_different(&s);
        let r = s.sync("-c -i").expect(0);
        assert_eq!(s.dst().read("f"), "right");
        assert_eq!((r.count("unchanged_files"), r.count("copied_files")), (1, 1));
        assert_eq!(r.item("f"), Some(">fc........"));
        s.assert_same();
    }
}

#[test]
fn checksum_does_not_copy_what_only_time_tells_apart() {
    let s = Scratch::disk();
    s.src().file("f", "same").time("f", T).time("", T);
    s.dst().file("f", "same").time("f", T + 1).time("", T);
    let inode = std::os::unix::fs::MetadataExt::ino(&s.dst().meta("f"));
    let r = s.sync("--checksum -i").expect(0);
    assert_eq!((r.count("copied_files"), r.count("meta_fixed"), r.count("copied_bytes")), (0, 1, 0));
    assert_eq!(r.item("f"), Some(".f..t......"));
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&s.dst().meta("f")), inode);
    s.assert_same();
}

#[test]
fn checksum_sees_a_difference_in_the_last_byte_of_a_large_file() {
    let s = Scratch::disk();
    let mut content = vec![7u8; (5 << 20) + 3];
    s.src().file("f", &content).time("f", T);
    *content.last_mut().unwrap() = 8;
    s.dst().file("f", &content).time("f", T);
    assert_eq!(s.sync("-c").expect(0).count("copied_files"), 1);
    assert_alike(&s.at("src"), &s.at("dst"));
    assert_eq!(s.sync("-c").expect(0).count("copied_files"), 0);
}

#[test]
fn verify_reads_back_what_was_copied_and_only_that() {
    for s in Scratch::both() {
        s.src().file("a", "1").file("d/b", vec![3u8; 300_000]).file("empty", "").symlink("l", "a");
        let r = s.sync("--verify").expect(0);
        assert_eq!((r.count("verified_files"), r.count("copied_files")), (3, 3));
        s.assert_same();
        assert_eq!(s.sync("--verify").expect(0).count("verified_files"), 0);
    }
}

/// A sync whose reading back finds another content than was written to this path.
fn sync_with_bad_storage(s: &Scratch, path: &str, options: &str) -> Run {
    let fault = format!("call=verify,errno=EIO,path={path}");
    let mut c = command(["sync", "--json"]);
    Run::of(c.args(s.words(options)).env("TREEFERRY_FAULTS", fault))
}

#[test]
fn a_copy_that_reads_back_differently_is_a_failure_and_never_gets_its_name() {
    for options in ["--verify", "--verify --chunk-size 64K"] {
        let s = Scratch::disk();
        s.src().file("bad", vec![1u8; 200_000]).file("good", "2");
        let r = sync_with_bad_storage(&s, "bad", options).expect(23);
        assert_eq!(r.failed(), ["bad"]);
        assert_eq!(r.json["failures"][0]["op"], "verify");
        assert_eq!(s.dst().list(""), ["good"], "{options}");
        assert_eq!((r.count("failures"), r.count("verified_files")), (1, 1));
    }
}

#[test]
fn the_old_content_stays_where_the_new_one_reads_back_differently() {
    let s = Scratch::disk();
    s.src().file("bad", "new content");
    s.dst().file("bad", "old");
    sync_with_bad_storage(&s, "bad", "--verify").expect(23);
    assert_eq!((s.dst().read("bad"), s.dst().list("")), ("old".to_owned(), vec!["bad".to_owned()]));
}

#[test]
fn the_next_name_of_a_group_leads_where_the_first_reads_back_differently() {
    let names = ["a", "b", "c"];
    let mut failed = 0;
    // which of them is met first is the file system's choice
    for bad in names {
        let s = Scratch::disk();
        s.src().file("a", "1").link("a", "b").link("a", "c");
        let r = sync_with_bad_storage(&s, bad, "--verify");
        let rest: Vec<&str> = names.into_iter().filter(|n| !r.failed().contains(n)).collect();
        assert_eq!(s.dst().list(""), rest, "{r}");
        assert!(rest.iter().all(|n| s.dst().is_linked(rest[0], n)));
        failed += r.failed().len();
    }
    assert_eq!(failed, 1);
}

#[test]
fn without_verify_nothing_is_read_back() {
    let s = Scratch::disk();
    s.src().file("bad", "1");
    assert_eq!(sync_with_bad_storage(&s, "bad", "").expect(0).count("verified_files"), 0);
}
