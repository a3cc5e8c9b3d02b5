//! fanotify: files that are changed through a descriptor whose name is gone, or that never had one. Needs root.

mod common;

use common::{BASES, Scene, Start, Told, everything, without};
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use treeferry_event::{News, What, fanotify};
use treeferry_kit::caps::own_ids;

const START: Start = |root, excluded| Ok(Box::new(fanotify(root, excluded)?.with_own()));

/// Runs something on all kinds of file systems that there are, if we are root.
fn everywhere(test: impl Fn(&str)) {
    match own_ids().0 {
        0 => BASES.iter().for_each(|base| test(base)),
        _ => eprintln!("left out: only root may use fanotify"),
    }
}

fn open(path: impl AsRef<Path>) -> File {
    OpenOptions::new().append(true).open(path).unwrap()
}

/// What is told when something is written, and when it is closed.
fn written(s: &mut Scene, mut file: File) -> [Told; 2] {
    let open = s.after(|_| file.write_all(b"new content").unwrap());
    [open, s.after(|_| drop(file))]
}

#[test]
fn a_name_that_is_gone() {
    everywhere(|base| {
        for is_replaced in [false, true] {
            let mut s = Scene::new(base, START, everything(), |at| {
                fs::create_dir(at.join("d")).unwrap();
                ["k", "other"].iter().for_each(|f| fs::write(at.join(f), "old").unwrap());
            });
            let mut file = open(s.at("k"));
            s.after(|s| {
                file.write_all(b"x").unwrap();
                fs::hard_link(s.at("k"), s.at("d/k2")).unwrap();
                match is_replaced {
                    true => fs::rename(s.at("other"), s.at("k")).unwrap(),
                    false => fs::remove_file(s.at("k")).unwrap(),
                }
            });
            s.after(|_| file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap())
                .expect("d/k2", What::Attributes);
            let [open, closed] = written(&mut s, file);
            open.expect("d/k2", What::Open);
            closed.expect("d/k2", What::Changed);
            assert!(!open.is_lost() && !closed.is_lost());
        }
    });
}

/// What comes after the end of a name is told with what came before, if nobody has read that yet.
#[test]
fn what_is_told_in_front_of_the_end_of_a_name() {
    everywhere(|base| {
        let mut s = Scene::new(base, START, everything(), |at| fs::write(at.join("k"), "old").unwrap());
        let mut file = open(s.at("k"));
        s.after(|s| fs::hard_link(s.at("k"), s.at("k2")).unwrap());
        s.after(|_| file.write_all(b"a").unwrap());
        s.after(|s| {
            file.write_all(b"b").unwrap();
            let rm = std::process::Command::new("rm").arg(s.at("k")).status();
            assert!(rm.unwrap().success());
            file.write_all(b"c").unwrap();
        })
        .expect("k2", What::Open);
    });
}

/// The name was gone before anybody listened.
#[test]
fn a_name_that_was_gone_before() {
    everywhere(|base| {
        let file = std::cell::Cell::new(None);
        let mut s = Scene::new(base, START, everything(), |at| {
            ["d", "e"].iter().for_each(|d| fs::create_dir(at.join(d)).unwrap());
            fs::write(at.join("e/k"), "old").unwrap();
            file.set(Some(open(at.join("e/k"))));
            fs::hard_link(at.join("e/k"), at.join("d/k2")).unwrap();
            fs::remove_dir_all(at.join("e")).unwrap();
        });
        let [open, closed] = written(&mut s, file.take().unwrap());
        open.expect("d/k2", What::Open);
        closed.expect("d/k2", What::Changed);
    });
}

#[test]
fn a_file_that_was_made_without_a_name() {
    everywhere(|base| {
        let mut s = Scene::new(base, START, everything(), |_| {});
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        for place in ["source", "outside"] {
            let place = s.source.with_file_name(place);
            let file: OwnedFd = rustix::fs::openat(CWD, &place, flags, Mode::RUSR | Mode::WUSR).unwrap();
            let mut file = File::from(file);
            let told = s.after(|_| file.write_all(b"one").unwrap());
            assert!(!told.is_lost(), "{told:?}");
            let by = format!("/proc/self/fd/{}", file.as_raw_fd());
            s.after(|s| rustix::fs::linkat(CWD, by, CWD, s.at("named"), AtFlags::SYMLINK_FOLLOW).unwrap())
                .expect("named", What::Open);
            s.after(|_| file.set_permissions(fs::Permissions::from_mode(0o640)).unwrap())
                .expect("named", What::Attributes);
            s.after(|s| fs::rename(s.at("named"), s.at("renamed")).unwrap());
            let [open, closed] = written(&mut s, file);
            open.expect("renamed", What::Open);
            closed.expect("renamed", What::Changed);
        }
    });
}

#[test]
fn files_that_have_no_name_here_are_nobodys() {
    everywhere(|base| {
        let mut s = Scene::new(base, START, without(c"left out"), |at| {
            ["a", "b", "c"].iter().for_each(|f| fs::write(at.join(f), "old").unwrap());
        });
        for (name, new) in [("a", None), ("b", Some("outside")), ("c", Some("source"))] {
            let file = open(s.at(name));
            s.after(|s| {
                if let Some(place) = new {
                    fs::hard_link(s.at(name), s.source.with_file_name(place).join("left out")).unwrap();
                }
                fs::remove_file(s.at(name)).unwrap();
            });
            for told in written(&mut s, file) {
                assert!(told.hints().all(|h| h.path == common::rel(name)), "{told:?}");
                assert!(!told.is_lost(), "{told:?}");
            }
        }
    });
}

/// Names come, go and are replaced by others, and nothing is missed.
#[test]
fn ordinary_work_means_no_walk() {
    everywhere(|base| {
        let mut s = Scene::new(base, START, everything(), |_| {});
        let told = s.after(|s| {
            for n in 0..200 {
                let at = |kind: &str| s.at(&format!("{kind}{n}"));
                fs::write(at("tmp"), "x").unwrap();
                fs::hard_link(at("tmp"), at("new")).unwrap();
                fs::remove_file(at("tmp")).unwrap();
                fs::hard_link(at("new"), at("other")).unwrap();
                fs::write(at("tmp"), "y").unwrap();
                fs::rename(at("tmp"), at("new")).unwrap();
                if n % 2 == 0 {
                    fs::remove_file(at("other")).unwrap();
                }
            }
        });
        assert!(!told.is_lost(), "{told:?}");
    });
}

/// The kernel takes the last name that it was asked for the name of a file, even if that is gone. So the others are looked for.
#[test]
fn a_name_that_nobody_knows() {
    everywhere(|base| {
        let mut s = Scene::new(base, START, without(c"left out"), |at| {
            fs::write(at.join("first"), "old").unwrap();
            (0..50).for_each(|n| fs::create_dir_all(at.join(format!("d/{n}/e"))).unwrap());
            fs::hard_link(at.join("first"), at.join("d/7/e/third")).unwrap();
            fs::hard_link(at.join("first"), at.join("left out")).unwrap();
        });
        s.after(|s| fs::hard_link(s.at("first"), s.at("d/second")).unwrap());
        let mut file = open(s.at("d/second"));
        s.after(|s| fs::remove_file(s.at("d/second")).unwrap());
        // one of its names, whether the kernel knows it again or it was found, also an excluded one: whoever hears of it knows the
        // others
        let is_told = |told: &Told, names: &[&str], what: What| {
            assert!(!told.is_lost(), "{told:?}");
            let of = |name: &&str| told.0.iter().position(|n| *n == common::news(name, what.clone()));
            let up_to = told.0.iter().position(|n| matches!(n, News::UpTo(_)));
            names.iter().filter_map(of).min().is_some_and(|at| up_to.is_none_or(|up_to| at < up_to))
        };
        let names = ["first", "d/7/e/third", "left out"];
        for _ in 0..3 {
            let told = s.after(|_| file.write_all(b"a").unwrap());
            assert!(is_told(&told, &names, What::Open), "{told:?}");
        }
        fs::rename(s.at("first"), s.at("d/9/fourth")).unwrap();
        file.write_all(b"c").unwrap();
        let names = ["d/9/fourth", "d/7/e/third", "left out"];
        let told = s.up_to(std::time::Instant::now());
        assert!(is_told(&told, &names, What::Open), "{told:?}");
    });
}

/// Nor is there one below the source.
#[test]
fn a_name_that_nobody_knows_elsewhere() {
    everywhere(|base| {
        let mut s = Scene::new(base, START, everything(), |_| {});
        let outside = s.source.with_file_name("outside");
        s.after(|s| {
            fs::write(outside.join("first"), "old").unwrap();
            fs::hard_link(outside.join("first"), s.at("second")).unwrap();
        });
        let file = open(s.at("second"));
        s.after(|s| fs::remove_file(s.at("second")).unwrap());
        for told in written(&mut s, file) {
            assert!(told.hints().all(|h| h.path == common::rel("second")) && !told.is_lost(), "{told:?}");
        }
    });
}
