//! Mirrors: files that have names of which the mirror is not told, and directories at several places.

mod checks;

use checks::is_root;
use checks::mirror::Mirror;
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
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

/// What is done to a file whose name is gone, or that never had one, is told by a name that it has.
#[test]
fn what_is_written_through_a_name_that_is_gone_arrives() {
    if !is_root() {
        return;
    }
    let s = Scratch::disk();
    s.src().file("k", "old").file("l", "old").file("other", "other").dir("d").dir("e").file("e/m", "old");
    let open = |name: &str| OpenOptions::new().append(true).open(s.at("src").join(name)).unwrap();
    let before = open("e/m");
    s.src().link("e/m", "d/m2");
    fs::remove_dir_all(s.at("src/e")).unwrap();
    let m = Mirror::start(&s, "--detect fanotify");
    m.catch_up();
    let removed = open("k");
    s.src().link("k", "d/k2");
    fs::remove_file(s.at("src/k")).unwrap();
    let replaced = open("l");
    s.src().link("l", "d/l2");
    fs::rename(s.at("src/other"), s.at("src/l")).unwrap();
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let made = rustix::fs::openat(CWD, s.at("src"), flags, Mode::RUSR | Mode::WUSR).unwrap();
    let path = format!("/proc/self/fd/{}", made.as_raw_fd());
    rustix::fs::linkat(CWD, path, CWD, s.at("src/d/made"), AtFlags::SYMLINK_FOLLOW).unwrap();
    let made = fs::File::from(made);
    let gone = open("d/k2");
    m.catch_up();
    let files = [("d/m2", before), ("d/k2", removed), ("d/l2", replaced), ("d/made", made)];
    for (name, mut file) in files {
        for what in [" and open", " and closed"] {
            file.write_all(what.as_bytes()).unwrap();
            if what.ends_with("closed") {
                file.set_permissions(PermissionsExt::from_mode(0o640)).unwrap();
                drop(file);
                m.assert_same();
                break;
            }
            m.catch_up();
            assert_eq!(s.dst().read(name), s.src().read(name), "{name}{what}");
        }
    }
    // a file that has no name any more is nobody's
    fs::remove_file(s.at("src/d/k2")).unwrap();
    let mut gone = gone;
    for _ in 0..10 {
        gone.write_all(b"x").unwrap();
        m.catch_up();
    }
    m.assert_same();
    // others work on this file system too, and the kernel may forget names
    let walks = m.status().unwrap()["resyncs"].as_u64().unwrap();
    assert!(walks <= 3, "{walks}");
    m.stop().expect(0);
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
