//! Mirrors: files that have names of which the mirror is not told, and directories at several places.

mod checks;

use checks::is_root;
use checks::mirror::Mirror;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use treeferry_kit::run::wait_until;
use treeferry_tests::{PATIENCE, Scratch};

/// Detectors of events that this user may use here.
fn of_events() -> Vec<&'static str> {
    if is_root() { vec!["inotify", "fanotify"] } else { vec!["inotify"] }
}

#[test]
fn what_is_written_through_an_excluded_name_arrives_under_the_others() {
    for detect in of_events() {
        let s = Scratch::disk();
        s.src().file("d/a", "a").link("d/a", "skip.log").file("single", "single").file("other.log", "x");
        s.src().file("moved", "moved").link("moved", "d/moved.log");
        let m = Mirror::start(&s, &format!("--detect {detect} --exclude *.log"));
        m.catch_up();
        let append = |name: &str| {
            let mut f = OpenOptions::new().append(true).open(s.at("src").join(name)).unwrap();
            f.write_all(b" and more").unwrap();
            f
        };
        let same = |what: &str, name: &str| {
            m.catch_up();
            assert_eq!(s.dst().read(name), s.src().read(name), "{detect}: {what}");
        };
        drop(append("skip.log"));
        same("written and closed", "d/a");
        let open = append("skip.log");
        same("written and open", "d/a");
        fs::remove_file(s.at("src/skip.log")).unwrap();
        drop(open);
        same("removed", "d/a");
        s.src().link("d/a", "again.log");
        s.src().mode("again.log", 0o640);
        m.catch_up();
        let mode = |name: &str| {
            std::os::unix::fs::PermissionsExt::mode(&s.at(name).metadata().unwrap().permissions())
        };
        assert_eq!(mode("dst/d/a"), mode("src/d/a"));
        // a file of which only the walk has known gets another name
        s.src().link("single", "single.log");
        drop(append("single.log"));
        same("of a file that had no other name", "single");
        // the name has another name by now
        drop(append("d/moved.log"));
        fs::rename(s.at("src/d/moved.log"), s.at("src/moved2.log")).unwrap();
        same("renamed", "moved");
        drop(append("moved2.log"));
        fs::remove_file(s.at("src/moved2.log")).unwrap();
        same("written, renamed, written and removed", "moved");
        drop(append("other.log"));
        m.catch_up();
        assert!(!s.dst().has("other.log") && !s.dst().has("again.log"));
        m.stop().expect(0);
    }
}

/// Unmounts, should a test fail before it does that itself.
struct Bound(PathBuf);

impl Bound {
    fn new(from: &Path, to: &Path) -> Bound {
        rustix::mount::mount_bind(from, to).unwrap();
        Bound(to.to_owned())
    }

    fn unmount(self) {
        // somebody may just be looking at it
        wait_until("it is unmounted", PATIENCE, || {
            rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::empty()).is_ok()
        });
        std::mem::forget(self);
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH);
    }
}

#[test]
fn a_directory_that_is_mounted_at_a_second_place_is_mirrored_at_both() {
    if !is_root() {
        return;
    }
    for detect in of_events() {
        let s = Scratch::disk();
        s.src().file("a/d/f", "f").dir("b");
        let m = Mirror::start(&s, &format!("--detect {detect}"));
        m.catch_up();
        let bound = Bound::new(&s.at("src/a"), &s.at("src/b"));
        m.until("what is mounted arrives", || s.dst().has("b/d/f"));
        for (n, place) in ["a/d/f", "b/d/f"].into_iter().enumerate() {
            s.src().file(place, format!("changed {n}"));
            m.catch_up();
            assert_eq!(s.dst().read("a/d/f"), format!("changed {n}"), "{detect}");
            assert_eq!(s.dst().read("b/d/f"), format!("changed {n}"), "{detect}");
        }
        bound.unmount();
        m.until("it is gone from there", || !s.dst().has("b/d"));
        s.src().file("a/d/f", "and again").file("b/own", "own");
        m.assert_same();
        m.stop().expect(0);
    }
}
