//! A source that changes while it is copied: no hang, nothing half old and half new, and equal trees once it is
//! at rest.

mod checks;

use checks::{entries, leftovers};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use treeferry_kit::rng::Rng;
use treeferry_kit::run::{collect, wait_until};
use treeferry_tests::{Live, PATIENCE, Run, Scratch, command};

/// Size of the file that is watched.
const BIG: usize = 2 << 20;
/// Copies [`BIG`] bytes in half a second.
const SLOW: &str = "--bwlimit 4M";
/// Between two changes of one thread.
const PAUSE: Duration = Duration::from_millis(2);
/// For any of these runs, with all that is tried again.
const DEADLINE: Duration = Duration::from_secs(120);

/// Stops a thread when it goes out of scope, also if a test fails.
struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

type Change<'a> = Box<dyn FnMut(u64) + Send + 'a>;

/// Repeats changes, each in a thread and told how often it was made, for as long as something is done.
#[track_caller]
fn while_changing<T>(changes: Vec<Change<'_>>, done: impl FnOnce() -> T) -> T {
    let end = AtomicBool::new(false);
    let made: Vec<AtomicU64> = changes.iter().map(|_| AtomicU64::new(0)).collect();
    thread::scope(|scope| {
        let _stopper = Stopper(&end);
        for (mut change, made) in changes.into_iter().zip(&made) {
            let end = &end;
            scope.spawn(move || {
                while !end.load(Relaxed) {
                    change(made.load(Relaxed));
                    made.fetch_add(1, Relaxed);
                    thread::sleep(PAUSE);
                }
            });
        }
        wait_until("all are at work", PATIENCE, || made.iter().all(|n| n.load(Relaxed) > 0));
        done()
    })
}

/// A run with a deadline: none of these may hang.
#[track_caller]
fn sync(s: &Scratch, options: &str) -> Run {
    Run::from(collect(command(["sync", "--json"]).args(s.words(options)), DEADLINE))
}

/// The source is at rest now: one more run makes the trees equal.
#[track_caller]
fn assert_settles(s: &Scratch) {
    sync(s, "--delete").expect(0);
    s.assert_same();
    assert_no_leftovers(s);
}

#[track_caller]
fn assert_no_leftovers(s: &Scratch) {
    assert_eq!(leftovers(&s.at("")), [""; 0].map(PathBuf::from));
}

/// Fails the test unless a run named one file as changing, and nothing else.
#[track_caller]
fn assert_named(run: Run, path: &str) {
    let run = run.expect(23);
    assert_eq!((run.failed(), run.count("failures"), run.count("copied_files")), (vec![path], 1, 0), "{run}");
    let text = run.json["failures"][0]["error"].as_str().unwrap_or_default();
    assert!(text.contains("changed"), "{run}");
    assert!(run.stderr.lines().filter(|l| l.contains(path) && l.contains("changed")).count() == 1, "{run}");
}

/// What the target has of the big file, if it is there.
fn target(s: &Scratch) -> Option<Vec<u8>> {
    fs::read(s.at("dst/big")).ok()
}

/// A scene with a big file, on which the text of an old version depends.
fn scene(old: Option<&str>) -> Scratch {
    let s = Scratch::disk();
    s.src().file("big", vec![b'0'; BIG]);
    if let Some(text) = old {
        s.dst().file("big", text);
    }
    s
}

/// Lets a slow copy of the big file come to its middle, changes the source while it stands still, and lets
/// it go on to its end.
#[track_caller]
fn changed_in_the_middle(s: &Scratch, options: &str, change: impl FnOnce(&Path)) -> Run {
    let mut run = Live::sync(s.words(&format!("{SLOW} {options}")));
    let pid = run.pid();
    run.until("a part is copied", || written(pid, &s.at("dst")) > BIG as u64 / 8);
    run.freeze();
    assert!(written(pid, &s.at("dst")) < BIG as u64, "it is still in the middle");
    change(&s.at("src/big"));
    run.thaw();
    run.finish()
}

/// How many bytes below a directory are in files that a run has open and that have no final name yet.
fn written(process: u32, dir: &Path) -> u64 {
    let open =
        fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten().map(|fd| fd.path());
    let unnamed = open.filter(|fd| fs::read_link(fd).is_ok_and(|to| to.starts_with(dir)));
    let staged = leftovers(dir).into_iter().map(|p| dir.join(p));
    let files = unnamed.chain(staged).filter_map(|p| fs::metadata(p).ok()).filter(fs::Metadata::is_file);
    // one that is both is only counted once
    files.map(|m| (m.ino(), m.blocks() * 512)).collect::<BTreeMap<_, _>>().into_values().sum()
}

/// What the target has at first.
const OLD: [Option<&str>; 2] = [None, Some("old")];

/// Each way to copy with each state of the target.
fn cases() -> impl Iterator<Item = (&'static str, Option<&'static str>)> {
    ["", "--chunk-size 64K"].into_iter().flat_map(|o| OLD.map(|old| (o, old)))
}

/// Writes so often to the big file that no copy of it can be whole, onto nothing and onto an old version.
#[track_caller]
fn assert_given_up(options: &str, write: fn(&File, u64) -> io::Result<()>) {
    for old in OLD {
        let s = scene(old);
        let file = OpenOptions::new().write(true).open(s.at("src/big")).unwrap();
        let run = while_changing(vec![Box::new(|n| write(&file, n).unwrap())], || {
            sync(&s, &format!("{SLOW} {options}"))
        });
        assert_named(run, "big");
        assert!(target(&s).as_deref() == old.map(str::as_bytes), "{options} {old:?}");
        assert_no_leftovers(&s);
        assert_settles(&s);
    }
}

fn rewrite(file: &File, n: u64) -> io::Result<()> {
    file.write_all_at(&[b'1' + (n % 9) as u8; 9], n * 40_009 % (BIG as u64 - 9))
}

fn grow(file: &File, n: u64) -> io::Result<()> {
    file.write_all_at(b"more", BIG as u64 + 4 * n)
}

#[test]
fn a_file_rewritten_all_the_time_is_named_once_and_its_target_stays_as_it_was() {
    assert_given_up("", rewrite);
}

#[test]
fn a_file_rewritten_all_the_time_and_copied_in_chunks_is_named_once() {
    assert_given_up("--chunk-size 64K", rewrite);
}

#[test]
fn a_file_that_grows_all_the_time_is_copied_as_it_was_at_one_moment() {
    for old in OLD {
        let s = scene(old);
        let file = OpenOptions::new().write(true).open(s.at("src/big")).unwrap();
        let run = while_changing(vec![Box::new(|n| grow(&file, n).unwrap())], || sync(&s, SLOW)).expect(0);
        let (there, all) = (target(&s).unwrap(), fs::read(s.at("src/big")).unwrap());
        assert!(there.len() >= BIG && all.starts_with(&there) && all.len() > there.len(), "{old:?} {run}");
        assert_eq!((run.count("copied_files"), run.count("retried")), (1, 0), "{run}");
        assert_ne!(
            fs::metadata(s.at("dst/big")).unwrap().mtime_nsec(),
            file.metadata().unwrap().mtime_nsec()
        );
        assert_no_leftovers(&s);
        assert_settles(&s);
    }
}

#[test]
fn a_file_that_grows_all_the_time_and_is_copied_in_chunks_is_named_once() {
    assert_given_up("--chunk-size 64K", grow);
}

#[test]
fn a_file_truncated_in_the_middle_is_copied_as_the_empty_file_that_it_is_now() {
    for (options, old) in cases() {
        let s = scene(old);
        let r = changed_in_the_middle(&s, options, |big| drop(File::create(big).unwrap())).expect(0);
        assert!(target(&s) == Some(Vec::new()), "{options} {old:?}: {r}");
        assert!(r.count("retried") > 0, "{r}");
        assert_no_leftovers(&s);
        assert_settles(&s);
    }
}

#[test]
fn a_file_that_vanishes_in_the_middle_is_counted_and_its_target_is_whole_old_or_absent() {
    for (options, old) in cases() {
        let s = scene(old);
        s.src().file("other", "other");
        let r = changed_in_the_middle(&s, options, |big| fs::remove_file(big).unwrap());
        let there = target(&s);
        match r.status.code() {
            Some(24) => {
                assert_eq!(r.count("vanished"), 1, "{r}");
                assert!(there.as_deref() == old.map(str::as_bytes), "{options} {old:?}: {r}");
            }
            // it was open, and so could be read to its end
            Some(0) => assert!(there == Some(vec![b'0'; BIG]), "{options} {old:?}: {r}"),
            _ => panic!("neither vanished nor copied: {r}"),
        }
        assert_eq!((r.count("failures"), s.dst().read("other").as_str()), (0, "other"), "{r}");
        assert_no_leftovers(&s);
        assert_settles(&s);
    }
}

#[test]
fn a_file_replaced_in_the_middle_is_the_old_one_or_the_new_one_in_whole() {
    for (options, old) in cases() {
        let s = scene(old);
        fs::write(s.at("new"), vec![b'n'; BIG]).unwrap();
        let r = changed_in_the_middle(&s, options, |big| fs::rename(s.at("new"), big).unwrap()).expect(0);
        let there = target(&s).unwrap();
        let is_all = |byte| there.len() == BIG && there.iter().all(|b| *b == byte);
        assert!(is_all(b'0') || is_all(b'n'), "{options} {old:?}: {r}");
        assert_no_leftovers(&s);
        assert_settles(&s);
    }
}

#[test]
fn a_file_replaced_by_a_directory_in_the_middle_is_no_failure_for_its_neighbours() {
    for (options, old) in cases() {
        let s = scene(old);
        s.src().file("other", "other");
        let r = changed_in_the_middle(&s, options, |big| {
            fs::remove_file(big).unwrap();
            s.src().file("big/inside", "inside");
        });
        assert!(matches!(r.status.code(), Some(0 | 23 | 24)), "{r}");
        assert_eq!(s.dst().read("other"), "other");
        assert_no_leftovers(&s);
        assert_settles(&s);
    }
}

/// Threads that change a tree, each of them a directory of its own with so many names.
const THREADS: u64 = 3;
const NAMES: u64 = 16;

/// One random change to an entry that may be there or not, a file or a directory.
fn storm(dir: &Path, rng: &mut Rng, n: u64) -> io::Result<()> {
    // one after the other: no file is changed twice within one tick of the clock
    let path = dir.join((n % NAMES).to_string());
    let mut text = vec![0; 1 + rng.index(4000)];
    rng.fill(&mut text);
    if path.is_dir() {
        return match rng.below(3) {
            0 => fs::write(path.join("inside"), text),
            _ => fs::remove_dir_all(&path).and_then(|()| fs::write(&path, text)),
        };
    }
    match rng.below(7) {
        0 => OpenOptions::new().append(true).create(true).open(&path)?.write_all(&text),
        1 => File::create(&path).map(drop),
        2 => OpenOptions::new().write(true).create(true).truncate(false).open(&path)?.write_all(&text),
        3 => {
            let new = dir.join("new");
            fs::write(&new, text)?;
            fs::rename(new, &path)
        }
        4 => {
            let _ = fs::remove_file(&path);
            fs::write(&path, text)
        }
        5 => {
            let _ = fs::remove_file(&path);
            fs::create_dir(&path)?;
            fs::write(path.join("inside"), text)
        }
        _ => {
            let _ = fs::remove_file(&path);
            Ok(())
        }
    }
}

/// Syncs again and again during a storm, then once more.
fn weather(s: &Scratch, options: &[&str]) {
    let src = s.at("src");
    let mut changes: Vec<Change<'_>> = Vec::new();
    for t in 0..THREADS {
        let dir = src.join(format!("stirred-{t}"));
        fs::create_dir(&dir).unwrap();
        let mut rng = Rng::new(t);
        changes.push(Box::new(move |n| storm(&dir, &mut rng, n).unwrap()));
    }
    for n in 0..200 {
        s.src().file(&format!("still/{n}"), n.to_string());
    }
    let still = entries(&s.at("src/still")).len();
    while_changing(changes, || {
        for options in options {
            let r = sync(s, options);
            assert!(matches!(r.status.code(), Some(0 | 23 | 24)), "{r}");
            assert_eq!(r.status.code() == Some(23), r.count("failures") > 0, "{r}");
            assert!(r.failed().iter().all(|p| p.starts_with("stirred-")), "{r}");
            assert_no_leftovers(s);
            assert_eq!(entries(&s.at("dst/still")).len(), still, "{r}");
        }
    });
    assert_settles(s);
}

#[test]
fn a_tree_that_changes_all_the_time_is_synced_again_and_again_and_is_equal_once_at_rest() {
    for s in Scratch::both() {
        let mut options = ["--iops 800", "--delete --pool 4 --iops 800"].to_vec();
        options.extend(["--delete", "", "--delete --pool 1", "--delete --pool 4"].repeat(3));
        weather(&s, &options);
    }
}

#[test]
fn a_tree_that_changes_all_the_time_is_synced_by_content_or_in_separate_passes_too() {
    let options =
        ["--checksum --delete --iops 800", "--verify", "--pass delete", "--pass dirtime", "--pass copy"];
    weather(&Scratch::memory(), &options.repeat(3));
}
