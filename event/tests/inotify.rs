//! inotify: what every detector tells, and what only concerns this one.

mod common;

use common::{BASES, DEADLINE, Scene, Start, changes, everything, rel, storm};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};
use treeferry_event::{News, What, inotify};

const START: Start = |root, excluded| Ok(Box::new(inotify(root, excluded)?));

macro_rules! conformance {
    ($($name:ident)*) => { $( #[test] fn $name() { changes::$name(START); } )* };
}
conformance! {
    files open_files other_entries directories renames chains_of_renames borders metadata odd_names no_gap exclusion
    waking removal_of_the_source deep mounts two_places
    first_of_two_places
}

#[test]
fn in_the_end_all_is_known() {
    storm::in_the_end_all_is_known(START, 0..5);
}

#[test]
fn up_to_keeps_its_word() {
    storm::up_to_keeps_its_word(START);
}

fn limit() -> usize {
    fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap()
}

#[test]
fn a_full_queue_is_told_and_all_is_watched_again() {
    let mut s = Scene::new(BASES[1], START, everything(), |at| fs::create_dir(at.join("a")).unwrap());
    let told = s.after(|s| {
        // two events each, of which none is like the one before
        for i in 0..limit() / 2 + 100 {
            let path = s.at(&format!("a/{}", i % 100));
            let _ = fs::remove_file(&path);
            std::os::unix::fs::symlink("x", &path).unwrap();
        }
        fs::create_dir_all(s.at("b/c")).unwrap();
    });
    assert!(told.is_lost());
    let told = s.after(|s| {
        for file in ["a/file", "b/file", "b/c/file"] {
            fs::write(s.at(file), "").unwrap();
        }
    });
    assert!(!told.is_lost());
    for file in ["a/file", "b/file", "b/c/file"] {
        // as in the storm: shortly after its watch went and came again the kernel may tell of a directory what comes and
        // goes in it, and not yet what is done to that; who hears that a file is open looks at it later
        let told_of = told.of(file);
        assert!(told_of.iter().any(|w| matches!(w, What::Open | What::Changed)), "{file}: {told:?}");
    }
}

/// What could not be read is watched once it may be; root may read everything.
#[test]
fn permissions_that_come_later() {
    if treeferry_kit::caps::own_ids().0 == 0 {
        eprintln!("left out: root may read everything");
        return;
    }
    let mode = |m| fs::Permissions::from_mode(m);
    let mut s = Scene::new(BASES[0], START, everything(), |at| {
        fs::create_dir_all(at.join("a/b")).unwrap();
        fs::set_permissions(at.join("a"), mode(0)).unwrap();
    });
    s.after(|s| fs::set_permissions(s.at("a"), mode(0o700)).unwrap()).expect("a", What::Tree);
    s.write("a/b/file", "");
}

/// Exclusion by path: a rename changes what it means.
#[test]
fn what_a_rename_frees_from_exclusion_is_watched() {
    let only = rel("a");
    let excluded = Box::new(move |dir: &treeferry_core::path::RelPath, name: &std::ffi::CStr, _| {
        *dir == only && name == c"skip"
    });
    let mut s = Scene::new(BASES[0], START, excluded, |at| fs::create_dir_all(at.join("a/skip/x")).unwrap());
    s.after(|s| fs::write(s.at("a/skip/x/file"), "").unwrap()).expect_silence_on("a");
    s.after(|s| fs::rename(s.at("a"), s.at("b")).unwrap()).expect_moved("a", "b", true).expect_look("b/skip");
    s.write("b/skip/x/file", "");
}

#[test]
fn no_watch_is_left_behind() {
    let mut s = Scene::new(BASES[0], START, everything(), |at| fs::create_dir_all(at.join("a/b/c")).unwrap());
    s.after(|s| {
        for i in 0..50 {
            fs::create_dir_all(s.at(&format!("{i}/x"))).unwrap();
        }
    });
    s.after(|s| {
        for i in 0..25 {
            fs::remove_dir_all(s.at(&format!("{i}"))).unwrap();
        }
        for i in 25..50 {
            fs::rename(s.at(&format!("{i}")), s.outside.join(format!("{i}"))).unwrap();
        }
    });
    // root, a, b, c
    let mut watches = Vec::new();
    treeferry_kit::run::wait_until("only four directories are watched", DEADLINE, || {
        watches.clear();
        for fd in fs::read_dir("/proc/self/fdinfo").unwrap().flatten() {
            let text = fs::read_to_string(fd.path()).unwrap_or_default();
            let inodes: Vec<&str> = text.lines().filter(|l| l.starts_with("inotify")).collect();
            let ino = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&s.source).unwrap());
            if inodes.iter().any(|l| l.contains(&format!("ino:{ino:x} "))) {
                watches = inodes.iter().map(|l| (*l).to_owned()).collect();
            }
        }
        watches.len() == 4
    });
    let now = Instant::now();
    let mut news = Vec::new();
    s.detector.read(Duration::ZERO, &mut |n| news.push(n)).unwrap();
    assert!(matches!(news[..], [News::UpTo(t)] if t >= now), "{news:?}");
}
