//! Mirrors whose SRC is moved away, replaced, or led elsewhere: nothing is called complete any more, nothing is deleted, and
//! the mirror ends and says why.

mod checks;

use checks::churn::now_us;
use checks::is_root;
use checks::mirror::{Mirror, watch_command};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use treeferry_kit::run::wait_until;
use treeferry_tests::cluster::Cluster;
use treeferry_tests::{Live, PATIENCE, Run, Scratch, command};

/// All detectors that this user may use here, with their options.
fn detectors() -> Vec<&'static str> {
    let mut all = vec!["inotify", "poll --poll-every 20ms"];
    if is_root() {
        all.push("fanotify");
    }
    all
}

/// What may become of SRC, and what that is called.
type Loss = (&'static str, fn(&Scratch));

/// `other` is another directory, with other entries.
const LOSSES: [Loss; 4] = [
    ("moved away", |s| fs::rename(s.at("src"), s.at("moved")).unwrap()),
    ("replaced", |s| {
        fs::rename(s.at("src"), s.at("moved")).unwrap();
        fs::rename(s.at("other"), s.at("src")).unwrap();
    }),
    ("replaced by a file", |s| {
        fs::rename(s.at("src"), s.at("moved")).unwrap();
        fs::write(s.at("src"), "a file").unwrap();
    }),
    ("its parent moved away", |s| fs::rename(s.at(""), s.at("").with_extension("moved")).unwrap()),
];

fn plant(s: &Scratch) {
    s.src().file("d/f", "f").file("d/g", "g").file("e/f", "f");
    fs::create_dir_all(s.at("other/d")).unwrap();
    fs::write(s.at("other/d/h"), "other").unwrap();
}

/// Lets a mirror go on after SRC was lost, which it must end with, having called nothing complete since.
#[track_caller]
fn assert_ends(m: Mirror<'_>, lost: u64) -> Run {
    m.until("it has ended", || {
        let status = m.status();
        let promised = status.as_ref().and_then(|m| m["complete_up_to_us"].as_u64()).unwrap_or(0);
        assert!(promised < lost, "{promised} was promised, and SRC was lost at {lost}");
        status.is_none()
    });
    let r = m.live.finish().expect(3);
    assert!(r.stderr.contains("src is not the directory any more"), "{r}");
    assert_eq!(r.count("deleted"), 0, "{r}");
    r
}

#[test]
fn a_source_that_is_moved_away_or_replaced_ends_the_mirror_and_nothing_is_deleted() {
    for detect in detectors() {
        for (what, lose) in LOSSES {
            eprintln!("{detect}: {what}");
            let outer = Scratch::disk();
            let s = Scratch::below(&outer.at("src"));
            plant(&s);
            let dst = outer.at("dst");
            let mut c = command(["watch", "--json", "--detect"]);
            fs::create_dir_all(outer.at("run")).unwrap();
            c.env("TREEFERRY_RUNTIME_DIR", outer.at("run")).args(detect.split_whitespace());
            let m = Mirror { s: &outer, live: Live::of(c.arg(s.at("src")).arg(&dst)) };
            m.catch_up();
            assert_eq!(fs::read_dir(dst.join("d")).unwrap().count(), 2);
            // all of it has happened when it is heard of
            m.live.freeze();
            fs::remove_file(s.at("src/d/g")).unwrap();
            lose(&s);
            let lost = now_us();
            m.live.thaw();
            assert_ends(m, lost);
            assert_eq!(fs::read_dir(dst.join("d")).unwrap().count(), 2, "{detect} {what}");
            let _ = fs::remove_dir_all(s.at("").with_extension("moved"));
        }
    }
}

#[test]
fn a_source_that_is_a_symlink_which_leads_elsewhere_ends_the_mirror_and_the_next_one_follows_it() {
    for detect in detectors() {
        let s = Scratch::disk();
        plant(&s);
        fs::rename(s.at("src"), s.at("first")).unwrap();
        symlink("first", s.at("src")).unwrap();
        let m = Mirror::start(&s, &format!("--detect {detect}"));
        m.catch_up();
        symlink("other", s.at("next")).unwrap();
        m.live.freeze();
        fs::rename(s.at("next"), s.at("src")).unwrap();
        let lost = now_us();
        m.live.thaw();
        assert_ends(m, lost);
        assert!(s.dst().has("d/f") && s.dst().has("e/f") && !s.dst().has("d/h"), "{detect}");
        let m = Mirror::start(&s, &format!("--detect {detect}"));
        m.catch_up();
        m.stop().expect(0);
        assert_eq!((s.dst().list(""), s.dst().list("d")), (vec!["d".to_owned()], vec!["h".to_owned()]));
    }
}

#[test]
fn a_source_that_comes_back_is_mirrored_again_by_whoever_is_started_then() {
    let s = Scratch::disk();
    plant(&s);
    let m = Mirror::start(&s, "--detect inotify");
    m.assert_same();
    fs::rename(s.at("src"), s.at("moved")).unwrap();
    let r = m.live.finish().expect(3);
    assert!(r.stderr.contains("src is not the directory any more"), "{r}");
    fs::remove_file(s.at("moved/d/g")).unwrap();
    fs::rename(s.at("moved"), s.at("src")).unwrap();
    let m = Mirror::start(&s, "--detect inotify");
    m.assert_same();
    assert_eq!(m.stop().expect(0).count("failures"), 0);
}

/// It ends with its list, and not as if all of that were done.
#[test]
fn a_list_that_ends_when_its_source_is_lost_is_not_done() {
    let s = Scratch::disk();
    plant(&s);
    let mut c = watch_command(&s, "--detect list");
    let mut child = c.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut list = child.stdin.take().unwrap();
    let dst = s.dst();
    wait_until("the first walk is done", PATIENCE, || dst.has("e/f"));
    fs::rename(s.at("src"), s.at("moved")).unwrap();
    writeln!(list, "e/f").unwrap();
    drop(list);
    assert_eq!(child.wait().unwrap().code(), Some(3));
    assert!(dst.has("e/f"));
}

/// A mirror of a cluster that is kept by a process of this test.
struct Kept<'a> {
    s: &'a Scratch,
    c: &'a Cluster,
    keeper: Live,
}

impl<'a> Kept<'a> {
    fn start(s: &'a Scratch, c: &'a Cluster) -> Kept<'a> {
        let keeper = Live::of(c.command(["watch", "--json", "--agents", "a0"]).args(s.words("")));
        Kept { s, c, keeper }
    }

    fn mirror(&self) -> Option<Value> {
        let all = self.c.status();
        all["jobs"].as_array()?.iter().map(|j| &j["mirror"]).find(|m| m.is_object()).cloned()
    }

    fn number(&self, name: &str) -> u64 {
        self.mirror().and_then(|m| m[name].as_u64()).unwrap_or(0)
    }

    fn is_kept(&self) -> bool {
        self.mirror().is_some_and(|m| m["kept_by"].is_string())
    }

    #[track_caller]
    fn catch_up(&self) {
        let now = now_us();
        wait_until("the mirror has caught up", PATIENCE, || self.number("complete_up_to_us") > now);
    }

    #[track_caller]
    fn assert_same(&self) {
        self.catch_up();
        wait_until("nothing fails", PATIENCE, || self.number("failing") == 0);
        self.catch_up();
        self.s.assert_same();
    }

    fn stop(self) -> Run {
        self.keeper.signal(Signal::TERM);
        self.keeper.finish()
    }
}

fn words(s: &str) -> Vec<String> {
    s.split(' ').map(str::to_owned).collect()
}

fn cluster(workers: usize) -> Cluster {
    let mut c = Cluster::start(workers, 1);
    c.agent("a0", &["--detect", "inotify"]);
    c
}

#[test]
fn a_source_that_is_lost_ends_a_mirror_of_a_cluster_and_no_worker_deletes_anything() {
    let c = cluster(2);
    for replaced in [false, true] {
        let s = Scratch::disk();
        plant(&s);
        let m = Kept::start(&s, &c);
        m.assert_same();
        // all of it has happened when it is heard of
        let agent = Pid::from_raw(c.pid("a0") as i32).unwrap();
        m.keeper.freeze();
        kill_process(agent, Signal::STOP).unwrap();
        fs::remove_file(s.at("src/d/g")).unwrap();
        fs::rename(s.at("src"), s.at("moved")).unwrap();
        if replaced {
            fs::rename(s.at("other"), s.at("src")).unwrap();
        }
        let lost = now_us();
        kill_process(agent, Signal::CONT).unwrap();
        m.keeper.thaw();
        wait_until("nobody keeps it", PATIENCE, || {
            assert!(m.number("complete_up_to_us") < lost, "it was called complete");
            !m.is_kept()
        });
        let r = m.keeper.finish().expect(3);
        assert!(r.stderr.contains("src is not the directory any more"), "{r}");
        assert_eq!((s.dst().list(""), s.dst().list("d")), (words("d e"), words("f g")), "{r}");
        if replaced {
            fs::rename(s.at("src"), s.at("other")).unwrap();
        }
        fs::rename(s.at("moved"), s.at("src")).unwrap();
        let m = Kept::start(&s, &c);
        m.assert_same();
        m.stop().expect(0);
        Run::of(c.command(["mirror", "forget"]).arg(s.at("src")).arg(s.at("dst"))).expect(0);
    }
}

/// A directory that is mounted at another path, until this is dropped.
struct Bound(PathBuf);

impl Bound {
    fn new(from: &Path, to: &Path) -> Bound {
        assert!(Command::new("mount").arg("--bind").args([from, to]).status().unwrap().success());
        Bound(to.to_owned())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// It is the same directory, seen through another mount than the one that workers have open.
#[test]
fn workers_go_on_with_a_source_that_was_unmounted_and_is_mounted_again() {
    if !is_root() {
        return;
    }
    // nobody else can do what this one cannot
    let c = cluster(1);
    let s = Scratch::disk();
    fs::create_dir_all(s.at("real")).unwrap();
    let mount = || Bound::new(&s.at("real"), &s.at("src"));
    let bound = mount();
    plant(&s);
    let m = Kept::start(&s, &c);
    m.assert_same();
    fs::remove_file(s.at("src/d/g")).unwrap();
    m.assert_same();
    drop(bound);
    let r = m.keeper.finish().expect(3);
    assert!(r.stderr.contains("src is not the directory any more"), "{r}");
    let _bound = mount();
    let m = Kept::start(&s, &c);
    m.catch_up();
    fs::remove_dir_all(s.at("src/d")).unwrap();
    m.assert_same();
    assert_eq!(m.stop().expect(0).count("failures"), 0);
}
