//! `--chunk-size`: files of several chunks, copied by several threads into one staged file.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use treeferry_kit::rng::Rng;
use treeferry_tests::{Live, Scratch};

const CHUNK: usize = 64 << 10;

/// Content without a pattern, so that no chunk can stand for another.
fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::new(len as u64).fill(&mut bytes);
    bytes
}

#[test]
fn files_around_the_size_of_chunks_arrive_whole() {
    for s in Scratch::both() {
        for len in [CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 7 * CHUNK + 17, (5 << 20) + 1] {
            s.src().file(&format!("d/{len}"), noise(len)).time(&format!("d/{len}"), 1_000_000_000);
        }
        s.src().file("small", "1");
        let r = s.sync("--chunk-size 64K --pool 4").expect(0);
        s.assert_same();
        assert_eq!((r.count("copied_files"), r.count("copied_bytes")), (7, r.count("bytes")));
        assert_eq!(s.sync("--chunk-size 64K").expect(0).count("unchanged_files"), 7);
    }
}

#[test]
fn a_chunked_file_replaces_what_was_there() {
    let s = Scratch::disk();
    s.src().file("f", noise(3 * CHUNK)).owner("f", 5, 6).mode("f", 0o4711).xattr("f", "user.k", b"v");
    s.dst().file("f", noise(9 * CHUNK));
    let old = s.dst().meta("f").ino();
    s.sync("--chunk-size 64K --pool 4 -c").expect(0);
    s.assert_same();
    assert_ne!(s.dst().meta("f").ino(), old);
    assert_eq!(s.dst().mode_of("f"), 0o4711);
}

#[test]
fn several_threads_write_one_file_at_once() {
    let s = Scratch::memory();
    s.src().file("f", noise(20 * CHUNK));
    let mut run = Live::sync(s.words("--chunk-size 64K --pool 4 --bwlimit 640K"));
    let fds = format!("/proc/{}/fd", run.pid());
    run.until("three threads have the staged file open", || {
        let Ok(fds) = std::fs::read_dir(&fds) else { return false };
        let open = fds.filter_map(|e| std::fs::read_link(e.ok()?.path()).ok());
        open.filter(|to| to.parent() == Some(&s.at("dst"))).count() >= 3
    });
    run.finish().expect(0);
    s.assert_same();
}

/// A file of 12 chunks with holes at its beginning, in its middle, over a border of chunks, and at its end.
fn with_holes(path: &std::path::Path) {
    let f = File::create(path).unwrap();
    for (chunk, bytes) in [(2, 3 * CHUNK / 2), (5, 1), (8, CHUNK)] {
        f.write_all_at(&noise(bytes), (chunk * CHUNK) as u64).unwrap();
    }
    f.set_len((12 * CHUNK) as u64).unwrap();
}

#[test]
fn holes_of_a_chunked_file_stay_holes() {
    for s in Scratch::both() {
        with_holes(&s.at("src/f"));
        s.sync("--chunk-size 64K --pool 4").expect(0);
        // the oracle looks at the space taken, too
        s.assert_same();
        assert!(s.dst().meta("f").blocks() * 512 < 12 * CHUNK as u64);
    }
}

#[test]
fn a_file_that_is_all_hole_arrives_as_one() {
    let s = Scratch::disk();
    File::create(s.at("src/f")).unwrap().set_len(1 << 40).unwrap();
    s.sync("--chunk-size 1G").expect(0);
    s.assert_same();
    assert_eq!((s.dst().meta("f").len(), s.dst().meta("f").blocks()), (1 << 40, 0));
}

#[test]
fn no_sparse_fills_the_holes_of_a_chunked_file() {
    let s = Scratch::disk();
    with_holes(&s.at("src/f"));
    s.sync("--chunk-size 64K --no-sparse").expect(0);
    assert!(s.dst().meta("f").blocks() * 512 >= 12 * CHUNK as u64);
    assert!(std::fs::read(s.at("src/f")).unwrap() == std::fs::read(s.at("dst/f")).unwrap());
}

#[test]
fn the_other_names_of_a_chunked_file_are_linked_to_it() {
    for s in Scratch::both() {
        s.src().file("a", noise(5 * CHUNK)).link("a", "d/b").link("a", "e/c").file("z/x", noise(4 * CHUNK));
        s.src().link("z/x", "a-too");
        let r = s.sync("--chunk-size 64K --pool 4").expect(0);
        s.assert_same();
        assert_eq!((r.count("copied_files"), r.count("linked")), (2, 3));
    }
}

#[test]
fn chunks_are_verified_and_limited_too() {
    let s = Scratch::disk();
    s.src().file("f", noise(20 * CHUNK));
    let r = s.sync("--chunk-size 64K --verify --bwlimit 1M").expect(0);
    s.assert_same();
    assert_eq!(r.count("verified_files"), 1);
    assert!(r.elapsed.as_secs_f64() > 1.25 * 0.7, "{:?}", r.elapsed);
}

#[test]
fn no_temporary_file_is_left() {
    let s = Scratch::disk();
    s.src().file("d/f", noise(9 * CHUNK));
    s.sync("--chunk-size 64K").expect(0);
    assert_eq!((s.dst().list(""), s.dst().list("d")), (vec!["d".to_owned()], vec!["f".to_owned()]));
}
