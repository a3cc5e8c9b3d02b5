//! Runs that are killed or told to stop at random moments: what has its final name is whole, and the next run
//! finishes the job.
//!
//! A failing test names its seed; `TREEFERRY_SEED=N` uses that one.

mod checks;

use checks::{entries, leftovers};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use treeferry_kit::caps::Caps;
use treeferry_kit::random::{random_changes, random_tree};
use treeferry_kit::rng::Rng;
use treeferry_kit::run::wait_until;
use treeferry_kit::tree::{Kind, Spec};
use treeferry_tests::{Live, PATIENCE, Plant, Run, Scratch, args, command};

/// Random trees on which a run has to be caught.
const ROUNDS: usize = 16;
/// Runs of the other tests that have to be caught.
const CATCHES: usize = 4;

/// The seed of a test, from the environment or its own. It is printed, and so shown if the test fails.
fn seed(own: u64) -> u64 {
    let seed = match env::var("TREEFERRY_SEED") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("TREEFERRY_SEED={text} is no number")),
        Err(_) => own,
    };
    eprintln!("to run this again: TREEFERRY_SEED={seed}");
    seed
}

/// Makes rounds with a seed each until so many of them have caught a run; a run may end before it is caught.
fn catch(wanted: usize, own: u64, mut round: impl FnMut(u64, &mut Rng) -> bool) {
    let mut rng = Rng::new(seed(own));
    let mut caught = 0;
    for n in 0..3 * wanted {
        let seed = rng.draw();
        eprintln!("round {n}");
        caught += usize::from(round(seed, &mut Rng::new(!seed)));
        if caught == wanted {
            return;
        }
    }
    panic!("only {caught} runs were caught, of {wanted}");
}

/// Runs a sync until something holds, and kills it. `false`: it ended before.
fn kill_when(s: &Scratch, options: &str, mut condition: impl FnMut() -> bool) -> bool {
    let run = Live::sync(s.words(options));
    let stat = format!("/proc/{}/stat", run.pid());
    let has_ended = || fs::read_to_string(&stat).is_ok_and(|s| s.contains(") Z "));
    wait_until("the run has come so far, or ended", PATIENCE, || condition() || has_ended());
    run.signal(Signal::KILL);
    let run = run.finish();
    let killed = run.status.signal() == Some(9);
    assert!(killed || run.status.code() == Some(0), "{run}");
    killed
}

/// How many entries of a tree are new, gone or replaced.
fn moved(before: &BTreeMap<PathBuf, fs::Metadata>, root: &Path) -> usize {
    let now = entries(root);
    let gone = before.keys().filter(|p| !now.contains_key(*p)).count();
    gone + now.iter().filter(|(p, m)| before.get(*p).is_none_or(|b| b.ino() != m.ino())).count()
}

/// Fails the test if a regular file of the target is neither the source's nor what was there before.
#[track_caller]
fn assert_whole(s: &Scratch, old: &Path) {
    let (src, dst) = (s.at("src"), s.at("dst"));
    let (in_src, in_old, temporary) = (entries(&src), entries(old), leftovers(&dst));
    for path in entries(&dst).into_iter().filter(|(_, m)| m.is_file()).map(|(p, _)| p) {
        if temporary.contains(&path) {
            continue;
        }
        let content = fs::read(dst.join(&path)).unwrap();
        let is_in = |root: &Path, all: &BTreeMap<PathBuf, fs::Metadata>| {
            let there = all.get(&path).filter(|m| m.is_file() && m.len() == content.len() as u64);
            there.is_some() && fs::read(root.join(&path)).unwrap() == content
        };
        assert!(is_in(&src, &in_src) || is_in(old, &in_old), "{} is neither old nor new", path.display());
    }
}

/// One plain run must put everything right.
#[track_caller]
fn assert_finished_by_the_next_run(s: &Scratch) -> Run {
    let run = s.sync("--delete").expect(0);
    s.assert_same();
    assert_eq!(leftovers(&s.at("")), [""; 0].map(PathBuf::from));
    run
}

/// Whether a run has this file open.
fn has_open(process: u32, path: &Path) -> bool {
    let open = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
    open.map(|fd| fs::read_link(fd.path())).any(|to| to.is_ok_and(|to| to == path))
}

fn place(rng: &mut Rng) -> Scratch {
    if rng.chance(0.5) { Scratch::disk() } else { Scratch::memory() }
}

fn any_options(rng: &mut Rng) -> String {
    let pool = ["", "--pool 1", "--pool 4"][rng.index(3)];
    let chunks = ["", "--chunk-size 64K"][rng.index(2)];
    format!("--delete {pool} {chunks} --iops {}", 100 + rng.below(400))
}

#[test]
fn a_run_killed_on_a_random_tree_leaves_whole_files_and_the_next_one_finishes() {
    catch(ROUNDS, 1, |seed, rng| {
        let s = place(rng);
        let caps = Caps::probe(&s.at("src")).unwrap();
        random_tree(&s.at("src"), seed, 150, &caps).unwrap();
        let mut wanted = 1 + rng.index(140);
        if rng.chance(0.5) {
            for old in ["old", "dst"] {
                random_tree(&s.at(old), seed, 150, &caps).unwrap();
            }
            random_changes(&s.at("src"), !seed, 60, &caps).unwrap();
            wanted = 1 + rng.index(30);
        }
        let before = entries(&s.at("dst"));
        let killed = kill_when(&s, &any_options(rng), || moved(&before, &s.at("dst")) >= wanted);
        assert_whole(&s, &s.at("old"));
        assert_finished_by_the_next_run(&s);
        killed
    });
}

#[test]
fn a_run_killed_among_many_small_files_leaves_whole_files_and_the_next_one_finishes() {
    let trees = Scratch::disk();
    let src = trees.at("src");
    fs::remove_dir(&src).unwrap();
    Spec::new(Kind::Small).count(1000).make(&src).unwrap();
    let files = |root: &Path| entries(root).into_values().filter(fs::Metadata::is_file).count() as u64;
    catch(CATCHES, 2, |_, rng| {
        let wanted = 1 + rng.index(900);
        let options = format!("--iops {}", 1000 + rng.below(1000));
        let killed = kill_when(&trees, &options, || entries(&trees.at("dst")).len() >= wanted);
        assert_whole(&trees, &trees.at("old"));
        let there = files(&trees.at("dst"));
        let r = assert_finished_by_the_next_run(&trees);
        assert_eq!(r.count("copied_files"), files(&src) - there, "{r}");
        trees.dst().remove("");
        killed
    });
}

#[test]
fn a_run_killed_while_chunks_are_copied_leaves_the_old_file_or_none() {
    catch(CATCHES, 3, |seed, rng| {
        let s = place(rng);
        let mut content = vec![0; 3 << 20];
        Rng::new(seed).fill(&mut content);
        s.src().file("big", content);
        let old = rng.chance(0.5).then_some("old");
        if let Some(text) = old {
            s.dst().file("big", text);
        }
        let blocks = 1 + rng.below(2000);
        let options = format!("--chunk-size 64K --bwlimit 2M --pool {}", 1 + rng.below(6));
        let written =
            || entries(&s.at("dst")).values().filter(|m| m.is_file()).map(MetadataExt::blocks).sum();
        let has_come_so_far = || !leftovers(&s.at("dst")).is_empty() && u64::ge(&written(), &blocks);
        let killed = kill_when(&s, &options, has_come_so_far);
        if killed {
            assert_eq!(s.dst().has("big").then(|| s.dst().read("big")).as_deref(), old);
            assert_eq!(leftovers(&s.at("dst")).len(), 1);
        }
        assert_finished_by_the_next_run(&s);
        killed
    });
}

#[test]
fn a_run_killed_while_it_deletes_has_only_deleted_what_is_extra() {
    catch(CATCHES, 4, |_, rng| {
        let s = Scratch::memory();
        for n in 0..1000 {
            s.dst().file(&format!("extra/{}/{}/{n}", n % 7, n % 5), "extra");
        }
        for kept in [s.src(), s.dst()] {
            kept.file("kept/a", "kept").time("kept/a", 5).file("b", "kept").time("b", 5);
        }
        let before = entries(&s.at("dst"));
        let wanted = 1 + rng.index(700);
        let options = format!("--delete --iops {}", 500 + rng.below(500));
        let killed = kill_when(&s, &options, || moved(&before, &s.at("dst")) >= wanted);
        assert_eq!((s.dst().read("kept/a"), s.dst().read("b")), ("kept".into(), "kept".into()));
        let extra = entries(&s.at("dst")).into_keys().filter(|p| p.starts_with("extra")).count();
        let r = assert_finished_by_the_next_run(&s);
        assert_eq!(r.count("deleted"), extra as u64, "{r}");
        killed
    });
}

#[test]
fn a_run_killed_while_it_replaces_leaves_each_file_old_until_it_is_new() {
    const FILES: usize = 40;
    catch(CATCHES, 5, |_, rng| {
        let s = place(rng);
        let old = Plant::new(s.at("old"));
        for n in 0..FILES {
            let name = format!("d/{n}");
            s.src().file(&name, vec![b'n'; 60_000 + n]).time(&name, 9);
            for there in [&old, &s.dst()] {
                there.file(&name, vec![b'o'; 60_000 + n]).time(&name, 5);
            }
        }
        let before = entries(&s.at("dst"));
        let replaced = || {
            let now = entries(&s.at("dst"));
            before.iter().filter(|(p, m)| now.get(*p).is_none_or(|n| n.ino() != m.ino())).count()
        };
        let wanted = 1 + rng.index(FILES / 2);
        let killed = kill_when(&s, "--bwlimit 2M", || replaced() >= wanted);
        assert_eq!(s.dst().list("d").iter().filter(|n| !n.starts_with('.')).count(), FILES);
        assert_whole(&s, &s.at("old"));
        let done = replaced();
        let r = assert_finished_by_the_next_run(&s);
        // what was replaced but had not been counted is right all the same
        assert_eq!(r.count("copied_files"), (FILES - done) as u64, "{r}");
        killed
    });
}

#[test]
fn a_run_told_to_stop_says_so_and_the_next_one_copies_nothing_twice() {
    const FILES: u64 = 300;
    let mut rng = Rng::new(seed(6));
    for (signal, options) in
        [(Signal::INT, ""), (Signal::TERM, ""), (Signal::INT, "--pool 4"), (Signal::TERM, "--chunk-size 64K")]
    {
        let s = place(&mut rng);
        for n in 1..FILES {
            s.src().file(&format!("{}/{n}", n % 9), vec![1; n as usize * 10]);
        }
        s.src().file("0/big", vec![2; 1 << 20]);
        let wanted = 1 + rng.index(150);
        let mut run = Live::sync(s.words(&format!("--iops 200 --bwlimit 1M {options}")));
        run.until("so many entries are there", || entries(&s.at("dst")).len() >= wanted);
        run.signal(signal);
        let first = run.finish().expect(20);
        assert_eq!((&first.json["state"], &first.json["exit_code"]), (&"interrupted".into(), &20.into()));
        assert_eq!((leftovers(&s.at("dst")), first.count("failures")), (vec![], 0), "{first}");
        assert_whole(&s, &s.at("old"));
        let second = s.sync(options).expect(0);
        assert!(second.count("copied_files") > 0, "nothing was left to do: {first}");
        assert_eq!(first.count("copied_files") + second.count("copied_files"), FILES, "{first}\n{second}");
        s.assert_same();
    }
}

#[test]
fn the_summary_in_words_says_interrupted() {
    for signal in [Signal::INT, Signal::TERM] {
        let s = Scratch::memory();
        s.src().file("big", vec![1; 8 << 20]);
        let mut run = Live::of(command(["sync", "--bwlimit", "1M"]).args(args![s.at("src"), s.at("dst")]));
        let pid = run.pid();
        run.until("it is being copied", || has_open(pid, &s.at("src/big")));
        run.signal(signal);
        let run = run.finish().expect(20);
        assert!(run.stdout.contains("interrupted"), "{run}");
        assert_eq!(s.dst().list(""), [""; 0]);
    }
}

#[test]
fn a_second_signal_ends_at_once_what_would_take_hours() {
    for (options, old) in [("", None), ("--chunk-size 64K --pool 4", None), ("", Some("old"))] {
        let s = Scratch::memory();
        s.src().file("big", vec![1; 64 << 20]);
        if let Some(text) = old {
            s.dst().file("big", text);
        }
        let mut run = Live::sync(s.words(&format!("--bwlimit 16K {options}")));
        let pid = run.pid();
        run.until("it is being copied", || has_open(pid, &s.at("src/big")));
        run.signal(Signal::TERM);
        let told = Instant::now();
        // what comes together with the first is that once more
        wait_until("it has ended", PATIENCE, || {
            let goes_on = run.is_running();
            if goes_on {
                run.signal(Signal::INT);
            }
            !goes_on
        });
        run.finish().expect(20);
        assert!(told.elapsed() < Duration::from_secs(60), "it took {:?}", told.elapsed());
        assert_eq!(s.dst().has("big").then(|| s.dst().read("big")).as_deref(), old);
        assert_finished_by_the_next_run(&s);
    }
}
