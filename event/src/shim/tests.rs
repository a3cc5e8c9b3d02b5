//! The detector, told by the test itself what programs would tell.

use super::*;
use crate::Hint;
use crate::sys::Mapping;
use std::fs;
use std::os::fd::AsFd;
use treeferry_ring::Ring;

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a", "b"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        Place { dir }
    }

    fn shim(&self, root: &str) -> Shim {
        self.goes_on(root, None)
    }

    fn goes_on(&self, root: &str, rest: Option<&Rest>) -> Shim {
        let excluded: Excluded = Box::new(|_, name, is_dir| {
            name.to_bytes().ends_with(b".tmp") && !is_dir || name == c"hidden" && is_dir
        });
        shim(&self.dir.path().join("ring"), &self.dir.path().join(root), excluded, rest).unwrap()
    }

    fn path(&self, name: &str) -> Vec<u8> {
        self.dir.path().canonicalize().unwrap().join(name).into_os_string().into_encoded_bytes()
    }

    fn tell(&self, shim: &Shim, kind: Kind, pid: u32, path: &str, other: &str) {
        let other = if other.is_empty() { Vec::new() } else { self.path(other) };
        let record = Record { kind, cut: false, pid, id: 0, path: &self.path(path), other: &other };
        ring(shim).push(&record);
    }

    /// By the number of a file.
    fn tell_of(&self, shim: &Shim, kind: Kind, pid: u32, id: u64, path: &str) {
        let path = if path.is_empty() { Vec::new() } else { self.path(path) };
        ring(shim).push(&Record { kind, cut: false, pid, id, path: &path, other: b"" });
    }
}

fn ring(shim: &Shim) -> Ring<'_> {
    shim.current.file.ring().unwrap()
}

/// What is told up to the first `UpTo`, without that.
fn news(shim: &mut Shim) -> Vec<News> {
    let mut all = Vec::new();
    while !matches!(all.last(), Some(News::UpTo(_))) {
        shim.read(Duration::from_millis(50), &mut |n| all.push(n)).unwrap();
    }
    all.pop();
    all
}

fn p(path: &str) -> RelPath {
    RelPath::new(path).unwrap()
}

fn hint(path: &str, what: What) -> News {
    News::Hint(Hint { path: p(path), what })
}

#[test]
fn each_detector_of_a_ring_tells_what_is_its_own_and_nobody_loses_what_another_has_read() {
    let place = Place::new();
    let mut a = place.shim("a");
    let session = ring(&a).epoch().session();
    let mut b = place.shim("b");
    assert_ne!(ring(&a).epoch().session(), session, "what writers remember is not known to the new one");
    assert!(news(&mut a).is_empty() && news(&mut b).is_empty());
    place.tell(&a, Kind::Closed, 1, "a/x", "");
    place.tell(&a, Kind::Closed, 1, "b/y", "");
    place.tell(&a, Kind::Closed, 1, "ab/z", "");
    place.tell(&a, Kind::Moved, 1, "b/to", "a/from");
    assert_eq!(news(&mut a), [hint("x", What::Changed), hint("from", What::Tree)]);
    assert_ne!(ring(&a).tail(), ring(&a).head(), "the other has not read it");
    assert_eq!(news(&mut b), [hint("y", What::Changed), hint("to", What::Tree)]);
    assert_eq!(ring(&a).tail(), ring(&a).head());
    assert!(ring(&a).holds(&place.path("a/x")) && ring(&a).holds(&place.path("b/y")));
    drop(b);
    assert!(!ring(&a).holds(&place.path("b/y")));
    assert!(
        shim(&place.dir.path().join("ring"), &place.dir.path().join("none"), Box::new(|_, _, _| false), None)
            .is_err()
    );
}

#[test]
fn what_is_excluded_is_not_told_and_renames_across_that_border_are() {
    let place = Place::new();
    let mut a = place.shim("a");
    for (kind, path, other) in [
        (Kind::Closed, "a/x.tmp", ""),
        (Kind::Tree, "a/d.tmp", ""),
        (Kind::Changed, "a/hidden/deep/x", ""),
        (Kind::Moved, "a/x", "a/x.tmp"),
        (Kind::Moved, "a/y.tmp", "a/y"),
        (Kind::Moved, "a/2.tmp", "a/1.tmp"),
        (Kind::Moved, "a/n", "a/o"),
    ] {
        place.tell(&a, kind, 1, path, other);
    }
    let moved = What::Moved { from: p("o"), dir: false };
    assert_eq!(
        news(&mut a),
        [
            // whose time changes with what comes and goes
            News::Hint(Hint { path: RelPath::root(), what: What::Attributes }),
            hint("d.tmp", What::Tree),
            hint("x", What::Tree),
            hint("y", What::Tree),
            hint("n", moved)
        ]
    );
}

#[test]
fn an_excluded_name_is_told_if_its_file_has_others() {
    let place = Place::new();
    let mut a = place.shim("a");
    let at = |name: &str| place.dir.path().join("a").join(name);
    fs::create_dir(at("hidden")).unwrap();
    for name in ["one", "single.tmp"] {
        fs::write(at(name), "x").unwrap();
    }
    for name in ["one.tmp", "hidden/one"] {
        fs::hard_link(at("one"), at(name)).unwrap();
    }
    for name in ["one.tmp", "single.tmp", "hidden/one", "none.tmp"] {
        place.tell(&a, Kind::Closed, 1, &format!("a/{name}"), "");
    }
    let own = News::Hint(Hint { path: RelPath::root(), what: What::Attributes });
    assert_eq!(news(&mut a), [own, hint("one.tmp", What::Changed)]);
    // also when it is another name, and the one before is gone
    fs::rename(at("one.tmp"), at("two.tmp")).unwrap();
    place.tell(&a, Kind::Moved, 1, "a/two.tmp", "a/one.tmp");
    let both = [hint("one.tmp", What::Changed), hint("two.tmp", What::Changed)];
    assert_eq!(news(&mut a)[1..], both);
}

#[test]
fn what_comes_late_after_a_rename_is_told_under_both_names() {
    let place = Place::new();
    let mut a = place.shim("a");
    place.tell(&a, Kind::MovedDir, 1, "a/e", "a/d");
    place.tell(&a, Kind::MovedDir, 1, "a/g/h", "a/e");
    place.tell(&a, Kind::Changed, 1, "a/d/f", "");
    let moved = |from| What::Moved { from: p(from), dir: true };
    assert_eq!(
        news(&mut a),
        [
            hint("e", moved("d")),
            hint("g/h", moved("e")),
            hint("d/f", What::Changed),
            hint("e/f", What::Changed),
            hint("g/h/f", What::Changed)
        ]
    );
}

#[test]
fn files_of_a_process_that_is_gone_are_finished() {
    let place = Place::new();
    let mut a = place.shim("a");
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = child.id();
    place.tell(&a, Kind::Open, pid, "a/d/f", "");
    place.tell(&a, Kind::Open, pid, "a/g", "");
    place.tell(&a, Kind::Closed, pid, "a/g", "");
    assert_eq!(news(&mut a), [hint("d/f", What::Open), hint("g", What::Changed)]);
    place.tell(&a, Kind::Left, pid, "a/d/f", "");
    place.tell(&a, Kind::Left, pid, "a/other", "");
    assert_eq!(news(&mut a), [hint("d/f", What::Changed), hint("other", What::Open)]);
    // a rename above it while it is open
    place.tell(&a, Kind::MovedDir, 1, "a/e", "a/d");
    assert_eq!(news(&mut a), [hint("e", What::Moved { from: p("d"), dir: true })]);
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(news(&mut a), [hint("e/f", What::Changed)]);
    assert_eq!(a.held.len(), 0);
    // one that was gone before anybody looked
    place.tell(&a, Kind::Open, pid, "a/late", "");
    assert_eq!(news(&mut a), [hint("late", What::Changed)]);
}

#[test]
fn a_file_that_is_closed_by_its_number_is_found_by_the_name_that_it_has_by_then() {
    let place = Place::new();
    let mut a = place.shim("a");
    let changed = |path| hint(path, What::Changed);
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let pid = child.id();
    place.tell_of(&a, Kind::Open, pid, 5, "a/d/f");
    place.tell_of(&a, Kind::Open, pid, 6, "b/elsewhere");
    assert_eq!(news(&mut a), [hint("d/f", What::Open)]);
    place.tell(&a, Kind::MovedDir, 1, "a/e", "a/d");
    news(&mut a);
    // a copy of the descriptor is closed, then the last; then one that came in while it was open
    place.tell_of(&a, Kind::Changed, pid, 5, "");
    assert_eq!((news(&mut a), a.held.len()), (vec![changed("e/f")], 2));
    place.tell_of(&a, Kind::Closed, pid, 5, "");
    assert_eq!((news(&mut a), a.held.len()), (vec![changed("e/f")], 1));
    let record = Record {
        kind: Kind::Moved,
        cut: false,
        pid: 1,
        id: 6,
        path: &place.path("a/in"),
        other: &place.path("b/elsewhere"),
    };
    ring(&a).push(&record);
    place.tell_of(&a, Kind::Closed, pid, 6, "");
    assert_eq!((news(&mut a), a.held.len()), (vec![hint("in", What::Tree)], 0));
    // what a fork has, also if its parent closes the file before the fork is told
    place.tell_of(&a, Kind::Open, pid, 7, "a/g");
    place.tell_of(&a, Kind::Forked, 4_000_000, u64::from(pid), "");
    place.tell_of(&a, Kind::Closed, pid, 7, "");
    assert_eq!(a.held.len(), 0);
    let told = news(&mut a);
    // it is gone: there is no such process
    assert_eq!((told, a.held.len()), (vec![changed("g")], 0));
    place.tell_of(&a, Kind::Closed, 4_000_001, 7, "");
    assert_eq!(news(&mut a), [changed("g")]);
    // and what nobody ever knew
    place.tell_of(&a, Kind::Closed, pid, 99, "");
    assert!(matches!(news(&mut a).as_slice(), [News::Lost(why)] if why.contains("1 files were closed")));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A child that lives as long as this.
struct Sleeper(std::process::Child);

impl Sleeper {
    fn new() -> Sleeper {
        let mut sleep = std::process::Command::new("sleep");
        Sleeper(sleep.arg("1000").stdout(std::process::Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn an_open_file_is_found_whatever_is_told_of_its_directories() {
    let place = Place::new();
    let mut a = place.shim("a");
    let child = Sleeper::new();
    let pid = child.0.id();
    let moved = |a: &Shim, cut, id, from: &str, to: &str| {
        let kind = if id == 0 { Kind::MovedDir } else { Kind::Moved };
        let record = Record { kind, cut, pid: 1, id, path: &place.path(to), other: &place.path(from) };
        ring(a).push(&record);
    };
    let numbers = [11, 12, 13, 14];
    for (id, path) in numbers.into_iter().zip(["a/d/f", "a/one", "a/u/f", "a/v/f"]) {
        place.tell_of(&a, Kind::Open, pid, id, path);
    }
    // two directories are exchanged
    moved(&a, false, 0, "a/d", "a/e");
    moved(&a, false, 0, "a/e", "a/d");
    // two renames of a file are told in the other order, and of a directory
    moved(&a, false, 12, "a/two", "a/three");
    moved(&a, false, 12, "a/one", "a/two");
    moved(&a, false, 0, "a/w", "a/x");
    moved(&a, false, 0, "a/u", "a/w");
    // paths that are too long to be told
    moved(&a, true, 0, "a/v", "a/long");
    news(&mut a);
    for (id, path, what) in [
        (11, "e/f", What::Changed),
        (11, "d/f", What::Changed),
        (12, "three", What::Changed),
        (13, "x/f", What::Changed),
        (14, "long", What::Tree),
    ] {
        place.tell_of(&a, Kind::Changed, pid, id, "");
        let told = news(&mut a);
        assert!(told.contains(&hint(path, what)), "{path}: {told:?}");
    }
    // it was open before it is told that its directory was renamed, and then that it is open
    moved(&a, false, 0, "a/y", "a/z");
    place.tell_of(&a, Kind::Open, pid, 15, "a/y/f");
    place.tell_of(&a, Kind::Closed, pid, 15, "");
    assert!(news(&mut a).contains(&hint("z/f", What::Changed)));
}

#[test]
fn what_is_missed_may_be_a_rename_so_open_files_are_looked_for() {
    let place = Place::new();
    let mut a = place.shim("a");
    let at = |name: &str| place.dir.path().join("a").join(name);
    fs::create_dir(at("d")).unwrap();
    let mut sleep = std::process::Command::new("sh");
    sleep.args(["-c", "exec 3> d/f; echo; exec sleep 1000"]).current_dir(at("."));
    let mut child = Sleeper(sleep.stdout(std::process::Stdio::piped()).spawn().unwrap());
    std::io::Read::read_exact(child.0.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let file = fs::metadata(at("d/f")).unwrap();
    use std::os::unix::fs::MetadataExt;
    let id = treeferry_ring::id_of(file.dev(), file.ino());
    place.tell_of(&a, Kind::Open, child.0.id(), id, "a/d/f");
    news(&mut a);
    let epoch = ring(&a).epoch().session();
    fs::rename(at("d"), at("e")).unwrap();
    ring(&a).add_unnamed();
    assert!(matches!(news(&mut a).as_slice(), [News::Lost(_)]));
    assert_ne!(ring(&a).epoch().session(), epoch, "programs tell paths anew");
    drop(child);
    assert!(news(&mut a).contains(&hint("e/f", What::Changed)));
}

#[test]
fn a_process_that_nobody_asked_how_it_ended_is_gone() {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let began = Instant::now();
    while !is_gone(child.id()) {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait().unwrap();
}

#[test]
fn what_is_open_when_a_detector_begins_is_known() {
    let place = Place::new();
    fs::create_dir(place.dir.path().join("a/sub")).unwrap();
    let script = "exec 5> sub/f 6> gone 7< sub/f; rm gone; echo; read line";
    let piped = std::process::Stdio::piped;
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", script]).current_dir(place.dir.path().join("a")).stdin(piped()).stdout(piped());
    let mut child = shell.spawn().unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
    let (mut a, mut b) = (place.shim("a"), place.shim("b"));
    assert_eq!((a.held.len(), b.held.len()), (1, 0));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(news(&mut a).contains(&hint("sub/f", What::Changed)));
    assert!(news(&mut b).is_empty());
}

#[test]
fn what_is_under_way_is_waited_for_and_missed_if_its_process_dies() {
    let place = Place::new();
    let mut a = place.shim("a");
    news(&mut a);
    let promised = |a: &mut Shim| {
        let mut told = Vec::new();
        a.read(Duration::ZERO, &mut |n| told.push(n)).unwrap();
        told
    };
    let before = Instant::now();
    let mark = ring(&a).begins(std::process::id(), 2).unwrap();
    for _ in 0..3 {
        assert!(promised(&mut a).is_empty(), "it is not known what it has done");
    }
    place.tell(&a, Kind::Changed, 1, "a/x", "");
    ring(&a).ends(mark);
    let next = ring(&a).begins(std::process::id(), 4).unwrap();
    let told = promised(&mut a);
    assert!(
        matches!(&told[..], [h, News::UpTo(t)] if *h == hint("x", What::Changed) && *t >= before),
        "{told:?}"
    );
    // what waits for something is not waited for
    let began = Instant::now();
    while promised(&mut a).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(!promised(&mut a).is_empty(), "nor from then on");
    ring(&a).ends(next);
    // there is no such process
    ring(&a).begins(4_000_000, 6).unwrap();
    let told = promised(&mut a);
    assert!(
        matches!(&told[..], [News::Lost(why), News::UpTo(_)] if why.contains("did not live")),
        "{told:?}"
    );
    assert!(matches!(promised(&mut a)[..], [News::UpTo(_)]));
}

#[test]
fn what_went_missing_is_said_once_and_also_to_the_next_reader() {
    let place = Place::new();
    let mut a = place.shim("a");
    assert!(news(&mut a).is_empty());
    ring(&a).add_unnamed();
    assert!(
        matches!(news(&mut a).as_slice(), [News::Lost(why)] if why.contains("could not find out the path"))
    );
    assert!(news(&mut a).is_empty());
    for _ in 0..ring(&a).slots() + 3 {
        place.tell(&a, Kind::Changed, 1, "a/x", "");
    }
    // who reads it ends before it has read anything
    drop(a);
    let mut a = place.shim("a");
    let told = news(&mut a);
    assert!(matches!(told.first(), Some(News::Lost(why)) if why.contains("3 changes")), "{:?}", told.first());
    assert!(told.contains(&hint("x", What::Changed)));
    drop(a);
    assert!(news(&mut place.shim("a")).is_empty());
}

/// Stops a detector, and says where.
fn rest(mut shim: Shim) -> Rest {
    shim.rest(&mut |news| assert!(!matches!(news, News::Lost(_)), "{news:?}")).unwrap().unwrap()
}

#[test]
fn all_detectors_of_a_ring_go_on_where_they_stopped_though_they_stop_and_begin_one_after_the_other() {
    let place = Place::new();
    fs::create_dir(place.dir.path().join("c")).unwrap();
    let mut all = ["a", "b", "a", "c"].map(|root| place.shim(root));
    all.iter_mut().for_each(|s| assert!(news(s).is_empty()));
    // what programs have mapped
    let file = fs::OpenOptions::new().read(true).write(true).open(place.dir.path().join("ring")).unwrap();
    let map = Mapping::new(file.as_fd(), file.metadata().unwrap().len() as usize).unwrap();
    let programs = Ring::open(map.words()).unwrap();
    let tell = |kind, pid, id, path: &str| {
        let path = if path.is_empty() { Vec::new() } else { place.path(path) };
        assert!(programs.push(&Record { kind, cut: false, pid, id, path: &path, other: b"" }).told);
    };
    let mine = std::process::id();
    let [a, mut b, other, c] = all;
    let left_of_a = rest(a);
    tell(Kind::Changed, mine, 0, "a/between");
    tell(Kind::Open, mine, 7, "b/open");
    assert_eq!(news(&mut b), [hint("open", What::Open)]);
    let left_of_b = rest(b);
    let left_of_other = rest(other);
    // this one is not to go on, but its directory is heard of as long as nobody reads the ring
    drop(c);
    tell(Kind::Changed, mine, 0, "a/nobody");
    tell(Kind::Changed, mine, 0, "b/nobody");
    tell(Kind::Changed, mine, 0, "c/nobody");
    // one who opens a file while they begin
    let mut a = place.goes_on("a", Some(&left_of_a));
    tell(Kind::Open, mine, 8, "b/early");
    assert_eq!(news(&mut a), [hint("between", What::Changed), hint("nobody", What::Changed)]);
    assert!(programs.holds(&place.path("b/x")), "programs tell of it before it begins");
    tell(Kind::Closed, mine, 8, "");
    assert!(news(&mut a).is_empty());
    let mut b = place.goes_on("b", Some(&left_of_b));
    let mut other = place.goes_on("a", Some(&left_of_other));
    assert!(a.goes_on() && b.goes_on() && other.goes_on());
    // what it was told before it stopped is not told again
    let told = [hint("open", What::Changed), hint("nobody", What::Changed), hint("early", What::Changed)];
    assert_eq!(news(&mut b), told);
    assert_eq!(news(&mut other), [hint("nobody", What::Changed)]);
    let mut c = place.goes_on("c", Some(&left_of_b));
    assert!(!c.goes_on());
    assert_eq!(news(&mut c), [hint("nobody", What::Changed)]);
    let left_of_a = rest(a);
    drop((b, other, c));
    // another has read it since
    drop(place.shim("b"));
    assert!(programs.holds(&place.path("a/x")));
    let (mut a, mut b) = (place.goes_on("a", Some(&left_of_a)), place.goes_on("b", Some(&left_of_b)));
    assert!(!a.goes_on() && !b.goes_on());
    let no_loss = |shim: &mut Shim| assert!(news(shim).iter().all(|n| matches!(n, News::Hint(_))));
    no_loss(&mut a);
    no_loss(&mut b);
}

#[test]
fn directories_that_a_ring_is_found_with_do_not_fill_it() {
    let place = Place::new();
    let (a, b) = (place.shim("a"), place.shim("b"));
    let left = [a, b].map(rest);
    let mut a = place.goes_on("a", Some(&left[0]));
    assert!(a.goes_on());
    let is_heard = |a: &Shim, path: &str| ring(a).holds(&place.path(path));
    let half = ring(&a).slots() / 2;
    for n in 0..half {
        place.tell(&a, Kind::Changed, 1, "a/x", "");
        if n % 1000 == 0 {
            assert_eq!(news(&mut a), [hint("x", What::Changed)]);
            assert!(is_heard(&a, "b/y"));
        }
    }
    assert!(ring(&a).head() - ring(&a).tail() >= half as u64, "kept for the other");
    place.tell(&a, Kind::Changed, 1, "a/x", "");
    assert_eq!(news(&mut a), [hint("x", What::Changed)]);
    assert!(!is_heard(&a, "b/y") && is_heard(&a, "a/y"));
    assert_eq!(ring(&a).tail(), ring(&a).head());
    let b = place.goes_on("b", Some(&left[1]));
    assert!(!b.goes_on());
    assert!(news(&mut a).is_empty(), "nothing was lost");
}
