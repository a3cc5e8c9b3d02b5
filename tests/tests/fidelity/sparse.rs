//! Holes stay holes, and cost nothing.

use crate::checks::{is_root, settle};
use rustix::fs::{FallocateFlags, fallocate, ftruncate};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use treeferry_kit::mounts::{FsKind, scratch};
use treeferry_kit::put::write_at;
use treeferry_tests::Scratch;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const TIB: u64 = 1 << 40;

/// A file of this size with data of one block at each of these offsets.
fn sparse(path: &Path, size: u64, data: &[u64]) {
    let f = File::create(path).unwrap();
    ftruncate(&f, size).unwrap();
    for (i, at) in data.iter().enumerate() {
        let len = (size - at).min(4 * KIB) as usize;
        write_at(f.as_fd(), &vec![i as u8 + 1; len], *at).unwrap();
    }
}

fn shapes(dir: &Path) {
    sparse(&dir.join("nothing"), MIB, &[]);
    sparse(&dir.join("hole first"), MIB, &[MIB - 4 * KIB]);
    sparse(&dir.join("hole last"), MIB, &[0]);
    sparse(&dir.join("odd end"), MIB + 1, &[4 * KIB, MIB]);
    sparse(&dir.join("one byte"), 1, &[]);
    sparse(&dir.join("small"), 100 * KIB, &[64 * KIB]);
    sparse(&dir.join("alternating"), 4 * MIB, &(0..64).map(|i| i * 64 * KIB).collect::<Vec<_>>());
    sparse(&dir.join("gigabyte"), 1 << 30, &[512 * MIB]);
}

#[test]
fn holes_are_kept_on_every_file_system() {
    if !is_root() {
        return;
    }
    for kind in FsKind::ALL {
        for options in ["", "--chunk-size 64K", "--verify", "--checksum"] {
            let place = scratch(kind, "holes");
            let s = Scratch::below(&place);
            shapes(&s.at("src"));
            let run = settle(&s, options);
            assert_eq!(run.count("copied_files"), 8, "{kind} {options}");
            let blocks = s.dst().meta("gigabyte").blocks();
            assert!(blocks * 512 <= 64 * KIB, "{kind} {options}: {blocks} blocks for one of data");
        }
    }
}

#[test]
fn a_tebibyte_with_a_few_islands_takes_the_space_of_its_islands() {
    if !is_root() {
        return;
    }
    for kind in FsKind::ALL {
        for options in ["", "--chunk-size 1M"] {
            let place = scratch(kind, "tebibyte");
            let s = Scratch::below(&place);
            sparse(&s.at("src/f"), TIB, &[0, 17 * MIB + 4 * KIB, TIB / 2, TIB - MIB]);
            sparse(&s.at("src/empty"), TIB, &[]);
            settle(&s, options);
            for name in ["f", "empty"] {
                let [a, b] = [s.src(), s.dst()].map(|tree| tree.meta(name).blocks());
                assert!(b <= a + 128, "{kind} {options}: {name} takes {b} blocks, its source {a}");
            }
        }
    }
}

#[test]
fn content_of_a_tebibyte_of_holes_is_compared_at_once() {
    let s = Scratch::memory();
    sparse(&s.at("src/f"), TIB, &[0, TIB / 2]);
    sparse(&s.at("src/g"), TIB, &[MIB]);
    s.sync("").expect(0);
    // the same size and time: only its content tells
    let time = s.src().time_of("g");
    let f = File::options().write(true).open(s.at("dst/g")).unwrap();
    write_at(f.as_fd(), b"x", TIB / 4).unwrap();
    s.src().time("g", time.0);
    s.dst().time("g", time.0);
    let run = settle(&s, "--checksum");
    assert_eq!(run.count("copied_files"), 1, "{run}");
}

#[test]
fn data_that_became_a_hole_becomes_one_at_the_target() {
    for s in Scratch::both() {
        s.src().file("f", vec![7; 1 << 20]);
        settle(&s, "");
        let f = File::options().write(true).open(s.at("src/f")).unwrap();
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&f, flags, 64 * KIB, 512 * KIB).unwrap();
        settle(&s, "");
        let [a, b] = [s.src(), s.dst()].map(|tree| tree.meta("f").blocks());
        assert!(b <= a + 16 && a < 2048, "{a} blocks, the copy {b}");
    }
}

#[test]
fn zeros_that_are_no_hole_and_space_that_is_only_reserved_are_copied_right() {
    for s in Scratch::both() {
        s.src().file("zeros", vec![0; 1 << 20]).file("reserved", "x").file("beyond", vec![1; 5000]);
        let open = |name| File::options().write(true).open(s.src().path(name)).unwrap();
        fallocate(open("reserved"), FallocateFlags::empty(), 0, MIB).unwrap();
        fallocate(open("beyond"), FallocateFlags::KEEP_SIZE, 0, MIB).unwrap();
        settle(&s, "");
    }
}

#[test]
fn a_copy_within_a_file_system_with_reflinks_takes_no_space() {
    if !is_root() {
        return;
    }
    const SIZE: usize = 64 << 20;
    for kind in [FsKind::Xfs, FsKind::Btrfs] {
        let place = scratch(kind, "reflink");
        let s = Scratch::below(&place);
        s.src().file("f", vec![7; SIZE]);
        let free = || {
            // what was written is allocated by then, and what is freed is free
            rustix::fs::syncfs(File::open(place.path()).unwrap()).unwrap();
            let v = rustix::fs::statvfs(place.path()).unwrap();
            v.f_bfree * v.f_frsize
        };
        let before = free();
        s.sync("").expect(0);
        s.assert_same();
        let taken = before.saturating_sub(free());
        assert!(taken < SIZE as u64 / 2, "{kind}: {taken} bytes for a clone of {SIZE}");
    }
}
