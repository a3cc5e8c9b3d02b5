//! Mirrors: whatever happens to SRC, by whomever, DST is soon the same; and what is said to be complete is.
//!
//! A failing test names its seed; `TREEFERRY_SEED=N` uses that one, and `TREEFERRY_CHURN_S=N` changes SRC for so many
//! seconds.

mod checks;

use checks::churn::{Churn, now_us, while_churning};
use checks::is_root;
use checks::mirror::Mirror;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};
use treeferry_kit::mounts::FsKind;
use treeferry_kit::run::wait_until;
use treeferry_tests::{Live, PATIENCE, Scratch, command};

/// Detectors of events that this user may use here.
fn of_events() -> Vec<&'static str> {
    match is_root() {
        true => vec!["inotify", "fanotify"],
        false => vec!["inotify"],
    }
}

/// All detectors that this user may use here, with their options.
fn detectors() -> Vec<&'static str> {
    [of_events(), vec!["poll --poll-every 20ms"]].concat()
}

#[test]
fn each_kind_of_change_arrives() {
    for detect in detectors() {
        for s in Scratch::both() {
            s.src().file("old/a", "a").file("old/deep/er/b", "b").dir("empty").symlink("l", "a");
            let m = Mirror::start(&s, &format!("--detect {detect}"));
            m.assert_same();
            let src = s.src();
            let steps: [(&str, &dyn Fn()); 22] = [
                ("a new file", &|| {
                    src.file("new", "new");
                }),
                ("a rewritten one", &|| {
                    src.file("new", "other");
                }),
                ("an appended one", &|| {
                    let mut f = OpenOptions::new().append(true).open(s.at("src/new")).unwrap();
                    f.write_all(b"more").unwrap();
                }),
                ("new directories, and files in them at once", &|| {
                    for d in 0..20 {
                        fs::create_dir_all(s.at(&format!("src/n{d}/x/y"))).unwrap();
                        fs::write(s.at(&format!("src/n{d}/x/y/f")), "f").unwrap();
                    }
                }),
                ("a renamed file", &|| fs::rename(s.at("src/new"), s.at("src/renamed")).unwrap()),
                ("a file renamed over another", &|| {
                    src.file("tmp", "from elsewhere");
                    fs::rename(s.at("src/tmp"), s.at("src/renamed")).unwrap();
                }),
                ("a renamed directory, and changes below it", &|| {
                    fs::rename(s.at("src/old"), s.at("src/young")).unwrap();
                    src.file("young/deep/er/b", "changed").file("young/c", "c");
                }),
                ("directories that change places", &|| {
                    fs::rename(s.at("src/n1"), s.at("src/tmp")).unwrap();
                    fs::rename(s.at("src/young"), s.at("src/n1")).unwrap();
                    fs::rename(s.at("src/tmp"), s.at("src/young")).unwrap();
                }),
                ("something moved in", &|| {
                    fs::create_dir_all(s.at("outside/in/it")).unwrap();
                    fs::write(s.at("outside/in/it/f"), "f").unwrap();
                    fs::rename(s.at("outside"), s.at("src/inside")).unwrap();
                }),
                ("something moved out", &|| fs::rename(s.at("src/n2"), s.at("n2")).unwrap()),
                ("what is changed out there is none of ours", &|| {
                    fs::write(s.at("n2/x/y/f"), "away").unwrap()
                }),
                ("a removed tree", &|| fs::remove_dir_all(s.at("src/n3")).unwrap()),
                ("a symlink", &|| {
                    src.symlink("s", "nowhere");
                }),
                ("another in its place", &|| {
                    fs::remove_file(s.at("src/s")).unwrap();
                    src.symlink("s", "elsewhere");
                }),
                ("hard links", &|| {
                    src.file("h", "h").link("h", "h2").link("h", "young/h3");
                }),
                ("one that is unlinked and made anew", &|| {
                    fs::remove_file(s.at("src/h2")).unwrap();
                    src.file("h2", "h2");
                }),
                ("a file that has several names rewritten", &|| {
                    src.file("young/h3", "both");
                }),
                ("modes", &|| {
                    src.mode("h", 0o640).mode("young", 0o711).mode("empty", 0o1777);
                }),
                ("times", &|| {
                    src.time("h", 1_000_000_000).time("empty", 1);
                }),
                ("extended attributes", &|| {
                    src.xattr("h2", "user.k", b"v").xattr("empty", "user.k", b"w");
                }),
                ("a FIFO and a socket", &|| {
                    src.fifo("fifo").socket("young/sock");
                }),
                ("a directory in the place of a file, and the other way round", &|| {
                    fs::remove_file(s.at("src/renamed")).unwrap();
                    fs::remove_dir_all(s.at("src/n4")).unwrap();
                    src.file("renamed/inside", "x").file("n4", "file");
                }),
            ];
            for (what, step) in steps {
                eprintln!("{detect}: {what}");
                step();
                m.assert_same();
            }
            let r = m.stop().expect(0);
            assert_eq!(r.count("failures"), 0, "{r}");
        }
    }
}

#[test]
fn what_was_written_by_a_name_that_is_gone_arrives_at_the_others() {
    for detect in detectors() {
        let s = Scratch::disk();
        let names =
            ["unlinked", "replaced", "linked", "dir", "moved", "d/below", "gone/below", "open", "out/below"];
        for name in names {
            s.src().file(name, name).link(name, &format!("other/{}", name.replace('/', "-")));
        }
        s.src().file("two", "two").link("two", "two2");
        let m = Mirror::start(&s, &format!("--detect {detect}"));
        m.assert_same();
        let at = |name: &str| s.at("src").join(name);
        let append = |name: &str| {
            let mut f = OpenOptions::new().append(true).open(at(name)).unwrap();
            f.write_all(b" and more").unwrap();
            f
        };
        for name in names {
            append(name);
            match name {
                "unlinked" => fs::remove_file(at(name)).unwrap(),
                "replaced" => {
                    s.src().file("tmp", "something else");
                    fs::rename(at("tmp"), at(name)).unwrap();
                }
                "linked" => {
                    fs::rename(at("two"), at(name)).unwrap();
                }
                "dir" => {
                    fs::remove_file(at(name)).unwrap();
                    fs::create_dir(at(name)).unwrap();
                }
                "moved" => {
                    fs::rename(at(name), at("moved2")).unwrap();
                    fs::remove_file(at("moved2")).unwrap();
                }
                "d/below" => {
                    fs::rename(at("d"), at("e")).unwrap();
                    fs::remove_file(at("e/below")).unwrap();
                }
                "gone/below" => fs::remove_dir_all(at("gone")).unwrap(),
                "out/below" => fs::rename(at("out"), s.at("outside")).unwrap(),
                _ => {
                    let mut f = append(name);
                    fs::remove_file(at(name)).unwrap();
                    m.catch_up();
                    f.write_all(b" and still more").unwrap();
                }
            }
            eprintln!("{detect}: {name}");
            m.assert_same();
        }
        m.stop().expect(0);
    }
}

/// A directory that is made anew is walked, which comes by one of the two names; of the other nothing is told.
#[test]
fn a_name_in_a_directory_that_was_made_anew_is_linked_to_the_one_elsewhere() {
    for detect in of_events() {
        let s = Scratch::disk();
        s.src().file("a", "a").file("d/e/old", "old").file("c", "c");
        let m = Mirror::start(&s, &format!("--detect {detect}"));
        m.assert_same();
        // all of it has happened when it is heard of
        m.live.freeze();
        fs::remove_dir_all(s.at("src/d")).unwrap();
        s.src().dir("d/e").link("a", "d/e/b").link("c", "d/c");
        OpenOptions::new().append(true).open(s.at("src/d/c")).unwrap().write_all(b"more").unwrap();
        m.live.thaw();
        m.assert_same();
        m.stop().expect(0);
    }
}

#[test]
fn names_of_every_byte_arrive() {
    use std::os::unix::ffi::OsStrExt;
    for detect in detectors() {
        let s = Scratch::disk();
        let m = Mirror::start(&s, &format!("--detect {detect}"));
        m.catch_up();
        for b in (1..=255u8).filter(|b| *b != b'/') {
            let name = |prefix: &str| [prefix.as_bytes(), &[b], b"."].concat();
            let dir = s.at("src").join(std::ffi::OsStr::from_bytes(&name("d")));
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join(std::ffi::OsStr::from_bytes(&name("f"))), [b]).unwrap();
        }
        m.assert_same();
        m.stop().expect(0);
    }
}

#[test]
fn a_file_that_is_rewritten_all_the_time_is_copied_a_handful_of_times() {
    let s = Scratch::disk();
    let m = Mirror::start(&s, "");
    m.catch_up();
    let began = Instant::now();
    for i in 0..2000 {
        fs::write(s.at("src/f"), format!("version {i}")).unwrap();
    }
    let took = began.elapsed();
    m.assert_same();
    let r = m.stop().expect(0);
    // four times a second, the first and the last
    let most = 4 * took.as_secs() + 6;
    assert!((1..=most).contains(&r.count("copied_files")), "{most}: {r}");
}

/// Changes a file of some size until a mirror has said something of it, and then no more.
#[track_caller]
fn while_it_changes(m: &Mirror<'_>, change: impl Fn(&fs::File, u64) + Sync, seen: impl Fn() -> bool) {
    let (path, over) = (m.s.at("src/large"), AtomicBool::new(false));
    fs::write(&path, vec![b'0'; 32 << 20]).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    thread::scope(|scope| {
        let (over, change, file) = (&over, &change, &file);
        scope.spawn(move || (0..).take_while(|_| !over.load(Relaxed)).for_each(|n| change(file, n)));
        let all = std::panic::catch_unwind(AssertUnwindSafe(|| {
            m.until("it is known", &seen);
            // something else arrives, and that is known
            fs::write(m.s.at("src/beside"), "beside").unwrap();
            m.catch_up();
            assert_eq!(fs::read_to_string(m.s.at("dst/beside")).unwrap(), "beside");
        }));
        over.store(true, Relaxed);
        all.unwrap_or_else(|e| std::panic::resume_unwind(e));
    });
    drop(file);
    m.assert_same();
}

#[test]
fn a_file_that_grows_all_the_time_arrives_as_it_was() {
    let s = Scratch::memory();
    let m = Mirror::start(&s, "");
    m.catch_up();
    let lengths = RefCell::new(BTreeSet::new());
    let grow = |mut file: &fs::File, _| {
        file.seek(SeekFrom::End(0)).unwrap();
        file.write_all(b"more\n").unwrap();
    };
    while_it_changes(&m, grow, || {
        lengths.borrow_mut().extend(fs::metadata(s.at("dst/large")).ok().map(|m| m.len()));
        lengths.borrow().len() > 3
    });
    assert_eq!(m.stop().expect(0).count("failures"), 0);
}

#[test]
fn a_file_that_is_never_the_same_is_named_and_does_not_hold_up_the_rest() {
    let s = Scratch::memory();
    let m = Mirror::start(&s, "");
    m.catch_up();
    let write = |file: &fs::File, n: u64| {
        file.write_all_at(&n.to_le_bytes(), n * 40_009 % (32 << 20)).unwrap();
    };
    while_it_changes(&m, write, || m.status().is_some_and(|m| m["failing_paths"][0]["path"] == "large"));
    m.stop().expect(0);
}

#[test]
fn a_renamed_directory_is_renamed_and_not_copied() {
    for detect in of_events() {
        let s = Scratch::disk();
        for i in 0..2000 {
            s.src().file(&format!("d/{}/f{i}", i % 20), "x");
        }
        let m = Mirror::start(&s, &format!("--detect {detect}"));
        m.assert_same();
        fs::rename(s.at("src/d"), s.at("src/e")).unwrap();
        m.assert_same();
        // once more, over an empty one
        s.src().dir("g");
        m.catch_up();
        fs::rename(s.at("src/e"), s.at("src/g")).unwrap();
        m.assert_same();
        fs::rename(s.at("src/g"), s.at("src/h")).unwrap();
        m.assert_same();
        let moved = m.status().unwrap()["moved"].as_u64().unwrap();
        let r = m.stop().expect(0);
        assert!(moved >= 2, "{moved} were renamed at the target");
        assert!(r.count("copied_files") <= 4000, "{r}");
    }
}

#[test]
fn what_was_missed_is_known_to_be_missed_and_looked_for() {
    // fanotify's queue has no bound
    let s = Scratch::memory();
    s.src().file("a/b/c", "c");
    let m = Mirror::start(&s, "--detect inotify");
    m.assert_same();
    let bound = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let bound: usize = bound.trim().parse().unwrap();
    assert!(bound <= 1 << 20, "fs.inotify.max_queued_events is too large for this test: {bound}");
    m.live.freeze();
    for i in 0..bound / 2 {
        // each is three events or more
        fs::write(s.at(&format!("src/f{i}")), "x").unwrap();
    }
    fs::create_dir_all(s.at("src/made/meanwhile")).unwrap();
    m.live.thaw();
    m.assert_same();
    assert!(
        m.status().unwrap()["resyncs"].as_u64().unwrap() > 0,
        "nothing was missed: the test has proven nothing"
    );
    // and directories that were made while nobody looked are watched
    fs::write(s.at("src/made/meanwhile/f"), "f").unwrap();
    m.assert_same();
    m.stop().expect(0);
}

#[test]
fn what_fails_is_named_tried_again_and_arrives_in_the_end() {
    let s = Scratch::disk();
    s.src().file("a", "a");
    s.dst().file("x", "");
    let m = Mirror::start(&s, "--no-delete --exclude /kept");
    m.catch_up();
    // an excluded entry is where another is to be
    s.dst().file("kept/f", "f");
    s.src().file("moved", "x");
    fs::remove_file(s.at("dst/x")).unwrap();
    m.catch_up();
    assert_eq!(m.stop().expect(0).count("failures"), 0);

    if !is_root() {
        return;
    }
    // a target that is full
    let s = Scratch::disk();
    let small = treeferry_kit::mounts::Mount::sized(FsKind::Tmpfs, 4 << 20, None).unwrap();
    let mut c = command(["watch", "--json"]);
    fs::create_dir_all(s.at("run")).unwrap();
    fs::write(s.at("src/first"), "x").unwrap();
    c.env("TREEFERRY_RUNTIME_DIR", s.at("run")).arg(s.at("src")).arg(small.path().join("dst"));
    let m = Mirror { s: &s, live: Live::of(&mut c) };
    m.catch_up();
    fs::write(s.at("src/large"), vec![1; 8 << 20]).unwrap();
    fs::write(s.at("src/small"), "small").unwrap();
    wait_until("it is said what fails", PATIENCE, || {
        m.status().is_some_and(|m| m["failing_paths"][0]["path"] == "large" && m["failing"] == 1)
    });
    m.catch_up();
    assert_eq!(fs::read_to_string(small.path().join("dst/small")).unwrap(), "small", "the rest goes on");
    fs::write(s.at("src/large"), vec![2; 1 << 20]).unwrap();
    wait_until("it fails no more", PATIENCE, || m.status().is_some_and(|m| m["failing"] == 0));
    m.catch_up();
    treeferry_tests::assert_same(&s.at("src"), &small.path().join("dst"));
    m.stop().expect(0);
}

#[test]
fn a_name_that_crosses_the_border_of_what_is_mirrored_comes_or_goes() {
    for detect in detectors() {
        // by Sarracenia's options, and by rsync's
        for options in [r"--accept \.ok$ --accept ^/all/ --reject .", "--exclude *.no --exclude *.no2"] {
            let s = Scratch::disk();
            s.src().file("a.ok", "a").file("b.no", "b").file("c.ok", "c").file("d.no", "d").dir("all");
            let m = Mirror::start(&s, &format!("--detect {detect} {options}"));
            m.catch_up();
            let dst = s.dst();
            assert!(dst.has("a.ok") && !dst.has("b.no") && dst.has("all"), "{detect} {options}");
            let rename =
                |from: &str, to: &str| fs::rename(s.at("src").join(from), s.at("src").join(to)).unwrap();
            rename("a.ok", "all/a2.ok");
            rename("b.no", "b.ok");
            rename("c.ok", "c.no");
            rename("d.no", "d.no2");
            m.catch_up();
            assert_eq!(
                (dst.read("all/a2.ok"), dst.read("b.ok")),
                ("a".into(), "b".into()),
                "renamed, copied"
            );
            for gone in ["a.ok", "c.ok", "c.no", "b.no", "d.no", "d.no2"] {
                assert!(!dst.has(gone), "{detect} {options}: {gone}");
            }
            // written under another name, as most programs do
            s.src().file("part.no", "whole");
            rename("part.no", "part.ok");
            m.catch_up();
            assert_eq!(dst.read("part.ok"), "whole");
            assert_eq!(m.stop().expect(0).count("failures"), 0);
        }
    }
}

#[test]
fn what_is_too_young_arrives_when_it_is_of_age() {
    let s = Scratch::disk();
    s.src().file("before", "x");
    let m = Mirror::start(&s, "--min-age 2s");
    s.src().file("d/new", "first");
    let written = now_us();
    let dst = s.dst();
    wait_until("it arrives", PATIENCE, || {
        let promised = m.complete_up_to();
        let there = dst.has("d/new");
        assert!(there || promised <= written, "promised, and not there");
        there
    });
    let changed = fs::metadata(s.at("src/d/new")).unwrap().modified().unwrap();
    assert!(changed.elapsed().unwrap() >= Duration::from_secs(2), "it was too young");
    s.src().file("d/new", "second");
    wait_until("its second version arrives", PATIENCE, || dst.read("d/new") == "second");
    m.assert_same();
    m.stop().expect(0);
}

#[test]
fn whatever_happens_to_files_the_mirror_is_the_same_in_the_end_and_never_promises_too_much() {
    rounds(Churn::Plain);
}

#[test]
fn whatever_happens_to_links_and_directories_too_the_mirror_is_the_same_in_the_end() {
    rounds(Churn::Wild);
}

fn rounds(how: Churn) {
    let seeds: Vec<u64> = match std::env::var("TREEFERRY_SEED") {
        Ok(s) => vec![s.parse().expect("a number")],
        Err(_) => vec![1, 2],
    };
    for seed in seeds {
        eprintln!("to run this again: TREEFERRY_SEED={seed}");
        for detect in detectors() {
            let s = if seed % 2 == 0 { Scratch::memory() } else { Scratch::disk() };
            let m = Mirror::start(&s, &format!("--detect {detect} --pool {}", 1 + 3 * (seed % 2)));
            m.catch_up();
            let promises = while_churning(&s, how, seed, || m.complete_up_to());
            m.assert_same();
            eprintln!("{how:?}, {detect}: {promises} promises were kept while it went on");
            assert!(how == Churn::Wild || promises > 0, "nothing was promised while it went on");
            let r = m.stop().expect(0);
            assert_eq!(r.count("failures"), 0, "{r}");
        }
    }
}

/// What is told of directories that are gone by the time they are looked at is settled where the first of them was, and
/// not level by level, each time after the pause between two looks at a path.
#[test]
fn a_deep_tree_that_is_gone_at_once_is_no_work() {
    const DEPTH: u64 = 400;
    for detect in of_events() {
        let s = Scratch::disk();
        s.src().file("kept", "x");
        let m = Mirror::start(&s, &format!("--detect {detect}"));
        m.catch_up();
        let figure = |name: &str| m.status().and_then(|v| v[name].as_u64()).unwrap_or(0);
        let before = figure("looks");
        let mut deep = s.at("src");
        for _ in 0..DEPTH {
            deep.push("k");
            fs::create_dir(&deep).unwrap();
        }
        fs::remove_dir_all(s.at("src/k")).unwrap();
        m.assert_same();
        let looks = figure("looks") - before;
        assert!(looks < 20 * DEPTH, "{detect}: {looks} looks");
        m.stop().expect(0);
    }
}
