//! Walks of the source: what every detector tells in the end, and what only concerns this one.

mod common;

use common::{BASES, Scene, Start, everything, rel, storm, without};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};
use treeferry_event::{Detector, Error, Excluded, News, Poll, Polling, What, poll};

fn polling() -> Polling {
    Polling::every(Duration::from_millis(2))
}

/// Walks until it has taken down what there is.
fn begun(root: &Path, excluded: Excluded, how: Polling) -> Result<Poll, Error> {
    let mut p = poll(root, excluded, how)?;
    let began = Instant::now();
    let mut ready = !p.needs_head_start();
    while !ready {
        p.read(Duration::from_millis(10), &mut |n| {
            // what follows is of the next walk
            assert!(ready || matches!(n, News::UpTo(_)), "{n:?}");
            ready = true;
        })?;
        assert!(began.elapsed() < common::DEADLINE);
    }
    Ok(p)
}

const START: Start = |root, excluded| Ok(Box::new(begun(root, excluded, polling())?));
/// With so little memory that names of a directory are sorted on disk, four or so at a time.
const POOR: Start =
    |root, excluded| Ok(Box::new(begun(root, excluded, Polling { run_bytes: 150, ..polling() })?));

#[test]
fn in_the_end_all_is_known() {
    storm::in_the_end_all_is_known(START, 0..3);
    storm::in_the_end_all_is_known(POOR, 3..5);
}

#[test]
fn up_to_keeps_its_word() {
    storm::up_to_keeps_its_word(START);
}

#[test]
fn each_kind_of_change_is_told() {
    for (base, start) in BASES.into_iter().flat_map(|b| [(b, START), (b, POOR)]) {
        let mut s = Scene::new(base, start, everything(), |at| {
            for name in ["a", "b", "d", "d/e", "d/f", "x", "xx"] {
                fs::create_dir(at.join(name)).unwrap();
                for f in 0..7 {
                    fs::write(at.join(name).join(format!("f{f}")), "old").unwrap();
                }
            }
        });
        s.after(|s| fs::write(s.at("d/e/new"), "x").unwrap()).expect("d/e/new", What::Changed);
        s.after(|s| {
            OpenOptions::new().append(true).open(s.at("x/f3")).unwrap().write_all(b"more").unwrap();
        })
        .expect("x/f3", What::Changed);
        s.after(|s| fs::remove_file(s.at("x/f3")).unwrap()).expect("x/f3", What::Changed);
        s.after(|s| fs::set_permissions(s.at("a/f1"), fs::Permissions::from_mode(0o600)).unwrap())
            .expect_look("a/f1");
        s.after(|s| fs::set_permissions(s.at("a"), fs::Permissions::from_mode(0o700)).unwrap())
            .expect("a", What::Names);
        s.after(|s| fs::set_permissions(&s.source, fs::Permissions::from_mode(0o700)).unwrap())
            .expect("", What::Names);
        let told = s.after(|s| fs::rename(s.at("d/e"), s.at("d/z")).unwrap());
        told.expect("d/z", What::Tree).expect("d/e", What::Tree);
        s.after(|s| fs::remove_dir_all(s.at("d")).unwrap()).expect("d", What::Tree);
        s.after(|s| {
            fs::remove_dir_all(s.at("x")).unwrap();
            fs::write(s.at("x"), "a file").unwrap();
        })
        .expect_look("x");
        s.after(|s| {
            fs::remove_file(s.at("x")).unwrap();
            fs::create_dir_all(s.at("x/y/z")).unwrap();
            fs::write(s.at("x/y/z/f"), "f").unwrap();
        })
        .expect("x", What::Tree);
        s.after(|s| {
            fs::hard_link(s.at("a/f2"), s.at("link")).unwrap();
            symlink("nowhere", s.at("symlink")).unwrap();
        })
        .expect("link", What::Changed)
        .expect_look("a/f2")
        .expect("symlink", What::Changed);
        // what is the same is not told, once it has been so for some time
        let began = Instant::now();
        while s.after(|_| {}).hints().next().is_some() {
            assert!(began.elapsed() < common::DEADLINE);
        }
    }
}

#[test]
fn what_changes_within_a_tick_of_the_clock_is_told() {
    let mut s = Scene::new(BASES[1], START, everything(), |at| fs::write(at.join("f"), "a").unwrap());
    let mut last = 0;
    for i in 0..300 {
        // the size stays, and often the times do
        let told = s.after(|s| fs::write(s.at("f"), if i % 2 == 0 { "b" } else { "a" }).unwrap());
        told.expect_look("f");
        last = fs::metadata(s.at("f")).unwrap().ctime_nsec();
    }
    // a writer who puts the modification time back
    let before = fs::metadata(s.at("f")).unwrap();
    s.after(|s| {
        fs::write(s.at("f"), "c").unwrap();
        let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let then = Timespec { tv_sec: before.mtime(), tv_nsec: before.mtime_nsec() };
        let times = Timestamps { last_access: omit, last_modification: then };
        rustix::fs::utimensat(CWD, s.at("f"), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    })
    .expect_look("f");
    assert!(last >= 0);
}

#[test]
fn what_is_excluded_is_not_told() {
    let mut s =
        Scene::new(BASES[0], START, without(c"skip"), |at| fs::create_dir_all(at.join("a/skip")).unwrap());
    let told = s.after(|s| {
        fs::write(s.at("a/skip/x"), "x").unwrap();
        fs::write(s.at("skip"), "x").unwrap();
        fs::write(s.at("a/seen"), "x").unwrap();
    });
    told.expect("a/seen", What::Changed).expect_silence_on("a/skip").expect_silence_on("skip");
}

#[test]
fn deep_trees_and_large_directories() {
    let mut s = Scene::new(BASES[1], POOR, everything(), |at| {
        for i in 0..3000 {
            fs::write(at.join(format!("{:x}", i * 7919)), "").unwrap();
        }
    });
    // deeper than a path may be long
    let script = "import os, sys\nos.chdir(sys.argv[1])\nfor i in range(60):\n  os.mkdir('d' * 200)\n  os.chdir('d' * 200)\n\
                  open('f', 'w')";
    let python = |s: &Scene, script: &str| {
        let done =
            std::process::Command::new("python3").arg("-c").arg(script).arg(&s.source).status().unwrap();
        assert!(done.success());
    };
    s.after(|s| python(s, script)).expect("d".repeat(200), What::Tree);
    let deep = vec!["d".repeat(200); 60].join("/");
    let script =
        "import os, sys\nos.chdir(sys.argv[1])\nfor i in range(60): os.chdir('d' * 200)\nopen('g', 'w')";
    s.after(|s| python(s, script)).expect(format!("{deep}/g"), What::Changed);
    s.after(|s| fs::write(s.at("1"), "x").unwrap()).expect("1", What::Changed);
    let script = "import shutil, sys, os\nos.chdir(sys.argv[1])\nos.system('rm -rf ddd*')";
    s.after(|s| python(s, script)).expect("d".repeat(200), What::Tree);
}

#[test]
fn another_process_goes_on_with_the_index_that_was_kept() {
    let place = tempfile::tempdir().unwrap();
    let (source, index) = (place.path().join("source"), place.path().join("index"));
    fs::create_dir_all(source.join("a/b")).unwrap();
    for i in 0..100 {
        fs::write(source.join(format!("a/f{i}")), "old").unwrap();
    }
    let how = |tag| Polling { index: Some(index.clone()), tag, ..polling() };
    let told_by = |p: &mut Poll| {
        let (now, mut all) = (Instant::now(), Vec::new());
        let mut reached = false;
        while !reached {
            p.read(Duration::from_millis(10), &mut |n| {
                reached |= matches!(n, News::UpTo(t) if t >= now);
                all.push(n);
            })
            .unwrap();
        }
        common::Told(all)
    };
    let us = |t: SystemTime| t.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64;

    let mut p = begun(&source, everything(), how(1)).unwrap();
    assert_eq!(p.resumes_from(), None);
    told_by(&mut p);
    // not before it is said that all is done up to there
    assert!(!p.index().unwrap().keep(|_| false).unwrap() && !index.exists());
    assert!(p.index().unwrap().keep(|began| began < Instant::now()).unwrap() && index.exists());
    let kept = us(SystemTime::now());
    fs::write(source.join("a/seen"), "told, but not said to be done").unwrap();
    told_by(&mut p).expect("a/seen", What::Changed);
    drop(p);

    fs::write(source.join("a/b/unseen"), "x").unwrap();
    fs::remove_file(source.join("a/f7")).unwrap();
    let mut p = poll(&source, everything(), how(1)).unwrap();
    assert!(p.resumes_from().is_some_and(|t| t < kept) && !p.needs_head_start());
    let told = told_by(&mut p);
    told.expect("a/seen", What::Changed).expect("a/b/unseen", What::Changed).expect("a/f7", What::Changed);
    assert!(!told.is_lost());
    p.index().unwrap().keep(|began| began < Instant::now()).unwrap();
    drop(p);

    // of no use: made for something else, of another directory, damaged
    assert_eq!(poll(&source, everything(), how(2)).unwrap().resumes_from(), None);
    let other = place.path().join("other");
    fs::create_dir(&other).unwrap();
    assert_eq!(poll(&other, everything(), how(1)).unwrap().resumes_from(), None);
    let whole = fs::read(&index).unwrap();
    for damage in [&whole[..whole.len() - 1], &whole[..100], b""] {
        fs::write(&index, damage).unwrap();
        let p = begun(&source, everything(), how(1)).unwrap();
        assert_eq!(p.resumes_from(), None);
    }
    assert_eq!(
        fs::read_dir(place.path()).unwrap().flatten().count(),
        4,
        "source, other, index, the newest of them"
    );
}

#[test]
fn what_cannot_be_read_is_told_each_time_and_the_rest_goes_on() {
    if treeferry_kit::caps::own_ids().0 == 0 {
        eprintln!("left out: root may read everything");
        return;
    }
    let mode = |m| fs::Permissions::from_mode(m);
    let mut s = Scene::new(BASES[0], START, everything(), |at| {
        fs::create_dir_all(at.join("a/b")).unwrap();
        fs::set_permissions(at.join("a"), mode(0)).unwrap();
    });
    s.after(|s| fs::write(s.at("x"), "").unwrap()).expect("a", What::Tree).expect("x", What::Changed);
    s.after(|s| fs::set_permissions(s.at("a"), mode(0o700)).unwrap()).expect("a", What::Tree);
    s.after(|s| fs::write(s.at("a/b/file"), "").unwrap()).expect("a/b/file", What::Changed);
}

#[test]
fn a_source_that_is_gone_is_an_error_and_waiting_ends_at_once() {
    let mut s = Scene::new(BASES[0], START, everything(), |_| {});
    fs::remove_dir(&s.source).unwrap();
    let began = Instant::now();
    loop {
        match s.detector.read(Duration::from_millis(20), &mut |_| {}) {
            Err(Error::Gone(_)) => break,
            r => r.unwrap(),
        }
        assert!(began.elapsed() < common::DEADLINE);
    }
    // an hour's rest is no reason not to end
    let s = Scene::new(
        BASES[0],
        |root, e| Ok(Box::new(begun(root, e, Polling::every(common::DEADLINE * 60))?)),
        everything(),
        |_| {},
    );
    let waker = s.detector.waker();
    waker.wake();
    drop(s);
    assert!(began.elapsed() < common::DEADLINE * 2);
    let _ = rel("a");
}
