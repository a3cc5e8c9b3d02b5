//! Many changes at once, at random, while the detector reads.

use super::model::Model;
use super::*;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use treeferry_kit::rng::Rng;

/// Whatever happens, in the end everything is known.
pub fn in_the_end_all_is_known(start: Start, seeds: std::ops::Range<u64>) {
    for seed in seeds {
        for base in BASES {
            let mut s = Scene::new(base, start, everything(), |at| {
                for dir in ["a/b", "c/d/e", "f"] {
                    fs::create_dir_all(at.join(dir)).unwrap();
                }
            });
            let mut model = Model::new(&s.source);
            let writers: Vec<_> = (0..3_u64)
                .map(|n| {
                    let (source, outside) = (s.source.clone(), s.outside.clone());
                    std::thread::spawn(move || storm(&mut Rng::new(seed * 10 + n), &source, &outside, 250))
                })
                .collect();
            while !writers.iter().all(|w| w.is_finished()) {
                s.detector.read(Duration::from_millis(1), &mut |news| model.take(news)).unwrap();
            }
            writers.into_iter().for_each(|w| w.join().unwrap());
            let mut all = s.up_to(Instant::now()).0;
            all.drain(..).for_each(|news| model.take(news));
            assert_eq!(model.errors(), [""; 0], "seed {seed} in {base}");
            // and everything is still watched
            let mut dirs: Vec<_> =
                model.entries.iter().filter(|(_, e)| e.0).map(|(p, _)| p.clone()).collect();
            dirs.retain(|d| !d.is_root());
            let files: Vec<String> = dirs.iter().map(|d| format!("{d}/probe")).collect();
            let told = s.after(|s| files.iter().for_each(|f| fs::write(s.at(f), "x").unwrap()));
            // that it was made is enough: shortly after watches of a directory went and came again the kernel may keep from
            // us what is done to its entries, though not that they come and go; who hears that one is open looks at it later
            let is_told = |f: &&String| told.of(f).iter().any(|w| matches!(w, What::Open | What::Changed));
            let unseen: Vec<_> = files.iter().filter(|f| !is_told(f)).collect();
            assert!(unseen.is_empty(), "seed {seed} in {base}: nothing of {unseen:?} in {told:?}");
            assert_eq!(model.lost, [""; 0], "seed {seed}");
        }
    }
}

/// A few names, so that changes meet; whatever fails, fails.
fn storm(rng: &mut Rng, source: &Path, outside: &Path, steps: u32) {
    const NAMES: [&str; 4] = ["a", "b", "c", "d"];
    let path = |rng: &mut Rng| {
        let depth = 1 + rng.below(3);
        let top = if rng.one_in(12) { outside } else { source };
        (0..depth).fold(top.to_owned(), |p, _| p.join(rng.pick(&NAMES)))
    };
    for _ in 0..steps {
        let one = path(rng);
        let two = path(rng);
        let _ = match rng.below(8) {
            0 | 1 => fs::create_dir(&one),
            2 => fs::create_dir_all(&one),
            3 => fs::write(&one, rng.word(5)),
            4 => fs::write(one.join(rng.pick(&["x", "y"])), rng.word(3)),
            5 | 6 => fs::rename(&one, &two),
            _ if rng.one_in(2) => fs::remove_dir_all(&one),
            _ => rustix::fs::renameat_with(
                rustix::fs::CWD,
                &one,
                rustix::fs::CWD,
                &two,
                rustix::fs::RenameFlags::EXCHANGE,
            )
            .map_err(Into::into),
        };
    }
}

/// Before it is said that everything up to a moment was told, everything that was complete then was told.
pub fn up_to_keeps_its_word(start: Start) {
    for base in BASES {
        let mut s = Scene::new(base, start, everything(), |_| {});
        let stop = Arc::new(AtomicBool::new(false));
        let read = Arc::new(AtomicUsize::new(0));
        let log = Arc::new(Mutex::new(Vec::new()));
        let writers: Vec<_> = (0..2_u64)
            .map(|n| {
                let (source, stop, log) = (s.source.clone(), Arc::clone(&stop), Arc::clone(&log));
                let read = Arc::clone(&read);
                std::thread::spawn(move || busy(n, &source, &stop, &read, &log))
            })
            .collect();
        // in the order of telling: when a path was told first, and each UpTo
        let mut told: HashMap<RelPath, usize> = HashMap::new();
        let mut trees: Vec<(RelPath, usize)> = Vec::new();
        let mut moments: Vec<(Instant, usize)> = Vec::new();
        let mut count = 0;
        let began = Instant::now();
        loop {
            let done = log.lock().unwrap().len() >= 3000 && moments.len() >= 20;
            if done || began.elapsed() > DEADLINE {
                stop.store(true, Relaxed);
            }
            let written = log.lock().unwrap().len();
            let mut emptied = false;
            let is_over = writers.iter().all(|w| w.is_finished());
            let mut take = |news| {
                count += 1;
                match news {
                    News::UpTo(t) => moments.push((t, count)),
                    News::Hint(Hint { path, what }) => {
                        if what == What::Tree {
                            trees.push((path.clone(), count));
                        }
                        if let What::Moved { from, .. } = what {
                            told.entry(from).or_insert(count);
                        }
                        told.entry(path).or_insert(count);
                    }
                    News::Lost(why) => panic!("{why}"),
                }
            };
            let mut heed = |news| {
                emptied |= matches!(news, News::UpTo(_));
                take(news);
            };
            s.detector.read(Duration::from_millis(1), &mut heed).unwrap();
            if emptied {
                read.store(written, Relaxed);
            }
            if is_over {
                s.up_to(Instant::now()).0.into_iter().for_each(take);
                break;
            }
        }
        writers.into_iter().for_each(|w| w.join().unwrap());
        assert!(moments.is_sorted());
        for (path, time) in log.lock().unwrap().iter() {
            // who walks sees nothing of what came and went between two walks
            let brief =
                || fs::symlink_metadata(s.source.join(std::ffi::OsStr::from_bytes(path.as_bytes()))).is_err();
            if s.detector.name() == "poll" && !path.is_root() && brief() {
                continue;
            }
            let first = trees.iter().filter(|(p, _)| p.covers(path)).map(|(_, at)| *at).min();
            let first = first.into_iter().chain(told.get(path).copied()).min().unwrap_or(usize::MAX);
            let passed = moments.iter().find(|(t, _)| t >= time).unwrap();
            assert!(first < passed.1, "{path} of {time:?}: told at {first}, but {passed:?}");
        }
    }
}

/// Makes changes, each to a path of its own, and notes when they were complete.
fn busy(n: u64, source: &Path, stop: &AtomicBool, read: &AtomicUsize, log: &Mutex<Vec<(RelPath, Instant)>>) {
    let mut rng = Rng::new(n);
    let mut dir = source.to_owned();
    let mut i = 0;
    while !stop.load(Relaxed) {
        i += 1;
        // or the queue would overflow, or never be empty
        if log.lock().unwrap().len() > read.load(Relaxed) + 150 {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        }
        let note = |path: &Path| {
            let now = Instant::now();
            log.lock().unwrap().push((rel(path.strip_prefix(source).unwrap()), now));
        };
        let path = dir.join(format!("{n} {i}"));
        match rng.below(6) {
            0 => {
                fs::create_dir(&path).unwrap();
                note(&path);
                dir = if rng.one_in(4) { source.to_owned() } else { path };
            }
            1 => {
                std::os::unix::fs::symlink("x", &path).unwrap();
                note(&path);
            }
            2 => {
                fs::write(&path, "x").unwrap();
                let to = source.join(format!("moved {n} {i}"));
                fs::rename(&path, &to).unwrap();
                note(&path);
                note(&to);
            }
            _ => {
                fs::write(&path, "x").unwrap();
                note(&path);
            }
        }
    }
}
