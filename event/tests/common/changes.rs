//! Each kind of change, and what is to be told of it by every detector.

use super::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, XattrFlags};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;
use treeferry_kit::mounts::{FsKind, Mount};

fn each(start: Start, prepare: impl Fn(&Path), check: impl Fn(&mut Scene)) {
    for base in BASES {
        check(&mut Scene::new(base, start, everything(), &prepare));
    }
}

fn python(script: &str, path: &Path) {
    let done = Command::new("python3").arg("-c").arg(script).arg(path).status().unwrap();
    assert!(done.success());
}

pub fn files(start: Start) {
    each(
        start,
        |at| fs::write(at.join("old"), "old").unwrap(),
        |s| {
            s.write("new", "new");
            s.after(|s| {
                let mut file = OpenOptions::new().append(true).open(s.at("old")).unwrap();
                file.write_all(b"more").unwrap();
            })
            .expect("old", What::Changed);
            s.after(|s| python("import os, sys; os.truncate(sys.argv[1], 1)", &s.at("old")))
                .expect("old", What::Open);
            s.after(|s| {
                let script = "import mmap, os, sys\nf = open(sys.argv[1], 'r+b')\n\
                              m = mmap.mmap(f.fileno(), 0)\nm[0:1] = b'x'\nm.close()\nf.close()";
                python(script, &s.at("new"));
            })
            .expect("new", What::Changed);
            s.after(|s| fs::remove_file(s.at("new")).unwrap()).expect("new", What::Changed);
            // and an empty one
            s.after(|s| drop(File::create(s.at("empty")).unwrap())).expect("empty", What::Changed);
        },
    );
}

pub fn open_files(start: Start) {
    each(
        start,
        |_| {},
        |s| {
            let mut file = None;
            s.after(|s| file = Some(File::create(s.at("open")).unwrap())).expect("open", What::Open);
            let mut file = file.unwrap();
            for _ in 0..3 {
                let told = s.after(|_| file.write_all(b"more").unwrap());
                assert_eq!(told.of("open"), [&What::Open]);
            }
            s.after(|_| drop(file)).expect("open", What::Changed);
        },
    );
}

pub fn other_entries(start: Start) {
    each(
        start,
        |at| fs::write(at.join("file"), "").unwrap(),
        |s| {
            s.after(|s| symlink("nowhere", s.at("link")).unwrap()).expect("link", What::Changed);
            s.after(|s| symlink("/", s.at("link to a directory")).unwrap())
                .expect("link to a directory", What::Changed);
            s.after(|s| fs::hard_link(s.at("file"), s.at("hard")).unwrap()).expect("hard", What::Changed);
            s.after(|s| {
                rustix::fs::mknodat(CWD, s.at("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
            })
            .expect("fifo", What::Changed);
            s.after(|s| fs::remove_file(s.at("link")).unwrap()).expect("link", What::Changed);
        },
    );
}

pub fn directories(start: Start) {
    each(
        start,
        |at| fs::create_dir_all(at.join("a/b/c")).unwrap(),
        |s| {
            s.after(|s| fs::create_dir(s.at("new")).unwrap()).expect("new", What::Tree);
            s.write("new/file", "");
            s.write("a/b/c/file", "");
            s.after(|s| fs::create_dir_all(s.at("p/q/r/s")).unwrap()).expect_look("p/q/r/s");
            s.write("p/q/r/s/file", "");
            s.after(|s| {
                fs::remove_file(s.at("new/file")).unwrap();
                fs::remove_dir(s.at("new")).unwrap();
            })
            .expect("new", What::Tree);
            s.after(|s| fs::remove_dir_all(s.at("a")).unwrap())
                .expect("a", What::Tree)
                .expect_look("a/b/c/file");
            // the same name again
            s.after(|s| fs::create_dir(s.at("a")).unwrap()).expect("a", What::Tree);
            s.write("a/file", "");
        },
    );
}

pub fn renames(start: Start) {
    each(
        start,
        |at| {
            fs::create_dir_all(at.join("a/b/c")).unwrap();
            fs::create_dir_all(at.join("empty")).unwrap();
            fs::write(at.join("file"), "1").unwrap();
            fs::write(at.join("over"), "2").unwrap();
        },
        |s| {
            let mv = |from: &str, to: &str| {
                let (from, to) = (from.to_owned(), to.to_owned());
                move |s: &Scene| fs::rename(s.at(&from), s.at(&to)).unwrap()
            };
            s.after(mv("file", "a/file")).expect_moved("file", "a/file", false);
            s.after(mv("a/file", "over")).expect_moved("a/file", "over", false);
            s.after(mv("a/b", "d")).expect_moved("a/b", "d", true);
            s.write("d/c/file", "");
            // over an empty directory, and back into one that was just made
            s.after(mv("d", "empty")).expect_moved("d", "empty", true);
            s.write("empty/c/file", "");
            let told = s.after(|s| {
                fs::create_dir(s.at("made")).unwrap();
                mv("empty", "made/inner")(s);
                mv("made", "moved")(s);
                fs::write(s.at("moved/inner/c/two"), "").unwrap();
            });
            told.expect_look("moved");
            let told = s.after(|s| fs::write(s.at("moved/inner/c/three"), "").unwrap());
            told.expect("moved/inner/c/three", What::Changed);
        },
    );
}

pub fn chains_of_renames(start: Start) {
    each(
        start,
        |at| {
            for dir in ["a/1", "b/2", "c/3"] {
                fs::create_dir_all(at.join(dir)).unwrap();
            }
        },
        |s| {
            // nobody reads between these
            s.after(|s| {
                fs::rename(s.at("a"), s.at("t")).unwrap();
                fs::rename(s.at("b"), s.at("a")).unwrap();
                fs::rename(s.at("c"), s.at("b")).unwrap();
                fs::rename(s.at("t"), s.at("c")).unwrap();
                fs::create_dir(s.at("t")).unwrap();
                fs::rename(s.at("t"), s.at("u")).unwrap();
                fs::create_dir(s.at("t")).unwrap();
            });
            for file in ["a/2/file", "b/3/file", "c/1/file", "t/file", "u/file"] {
                s.after(|s| fs::write(s.at(file), "").unwrap()).expect(file, What::Changed);
            }
            s.after(|s| {
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(CWD, s.at("a"), CWD, s.at("b"), flags).unwrap();
            })
            .expect_moved("a", "b", true)
            .expect_moved("b", "a", true);
            for file in ["a/3/new", "b/2/new"] {
                s.after(|s| fs::write(s.at(file), "").unwrap()).expect(file, What::Changed);
            }
            // what is below what
            s.after(|s| {
                fs::rename(s.at("a/3"), s.at("in")).unwrap();
                fs::rename(s.at("a"), s.at("in/out")).unwrap();
            });
            s.write("in/out/new", "");
            s.write("in/new2", "");
        },
    );
}

pub fn borders(start: Start) {
    each(
        start,
        |at| fs::create_dir_all(at.join("a/b")).unwrap(),
        |s| {
            fs::create_dir_all(s.outside.join("x/y")).unwrap();
            fs::write(s.outside.join("file"), "").unwrap();
            let told = s.after(|s| fs::write(s.outside.join("unseen"), "").unwrap());
            assert_eq!(told.hints().count(), 0, "{told:?}");
            s.after(|s| fs::rename(s.outside.join("x"), s.at("x")).unwrap()).expect("x", What::Tree);
            s.write("x/y/file", "");
            s.after(|s| fs::rename(s.outside.join("file"), s.at("file")).unwrap())
                .expect("file", What::Changed);
            s.after(|s| fs::rename(s.at("file"), s.outside.join("file")).unwrap())
                .expect("file", What::Changed);
            s.after(|s| fs::rename(s.at("a"), s.outside.join("a")).unwrap()).expect("a", What::Tree);
            let told = s.after(|s| fs::write(s.outside.join("a/b/file"), "").unwrap());
            assert_eq!(told.hints().count(), 0, "{told:?}");
            s.after(|s| fs::rename(s.outside.join("a"), s.at("a again")).unwrap())
                .expect("a again", What::Tree);
            s.write("a again/b/file", "");
        },
    );
}

pub fn metadata(start: Start) {
    each(
        start,
        |at| {
            fs::create_dir(at.join("dir")).unwrap();
            fs::write(at.join("file"), "").unwrap();
            symlink("x", at.join("link")).unwrap();
        },
        |s| {
            let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
            let times = Timestamps { last_access: now, last_modification: now };
            for name in ["file", "dir", ""] {
                let mode = fs::Permissions::from_mode(0o700);
                s.after(|s| fs::set_permissions(s.at(name), mode).unwrap()).expect(name, What::Attributes);
                s.after(|s| {
                    let own = treeferry_kit::caps::own_ids();
                    std::os::unix::fs::lchown(s.at(name), Some(own.0), Some(own.1)).unwrap();
                })
                .expect(name, What::Attributes);
                s.after(|s| {
                    rustix::fs::setxattr(s.at(name), "user.x", b"1", XattrFlags::empty()).unwrap();
                })
                .expect(name, What::Attributes);
            }
            for name in ["file", "dir", "link", ""] {
                s.after(|s| {
                    rustix::fs::utimensat(CWD, s.at(name), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
                })
                .expect(name, What::Attributes);
            }
        },
    );
}

pub fn odd_names(start: Start) {
    let names: Vec<Vec<u8>> = (1..=255_u8).filter(|b| *b != b'/' && *b != b'.').map(|b| vec![b]).collect();
    let long = vec![0xff; 255];
    let more = [long, b" (deleted)".to_vec(), b"a (deleted)".to_vec(), b"\\040\n\t ".to_vec()];
    each(
        start,
        |_| {},
        |s| {
            let names: Vec<PathBuf> =
                names.iter().chain(&more).map(|n| PathBuf::from(OsStr::from_bytes(n))).collect();
            let write = |s: &Scene, all: &[PathBuf]| {
                all.iter().for_each(|n| fs::write(s.source.join(n), "").unwrap())
            };
            s.after_each(|s| write(s, &names), &names, &What::Changed);
            for name in &names {
                fs::remove_file(s.source.join(name)).unwrap();
                fs::create_dir(s.source.join(name)).unwrap();
            }
            let files: Vec<PathBuf> = names.iter().map(|n| n.join("file")).collect();
            let now = Instant::now();
            s.up_to(now);
            s.after_each(|s| write(s, &files), &files, &What::Changed);
        },
    );
}

/// Files are made in new directories faster than these can be watched.
pub fn no_gap(start: Start) {
    each(
        start,
        |_| {},
        |s| {
            let source = s.source.clone();
            let writer = std::thread::spawn(move || {
                for i in 0..60 {
                    let deep = source.join(format!("{i}/a/b/c/d"));
                    fs::create_dir_all(&deep).unwrap();
                    for (j, up) in deep.ancestors().take(5).enumerate() {
                        fs::write(up.join(format!("file {j}")), "").unwrap();
                    }
                    fs::create_dir(deep.join("late")).unwrap();
                    fs::write(deep.join("late/file"), "").unwrap();
                }
            });
            let mut told = Told(Vec::new());
            while !writer.is_finished() {
                s.detector.read(Duration::from_millis(1), &mut |news| told.0.push(news)).unwrap();
            }
            writer.join().unwrap();
            told.0.extend(s.up_to(Instant::now()).0);
            assert!(!told.is_lost());
            for i in 0..60 {
                for file in ["a/b/c/d/file 0", "a/b/c/file 1", "file 4", "a/b/c/d/late/file"] {
                    told.expect_look(format!("{i}/{file}"));
                }
            }
            // and all of them are watched
            let told = s.after(|s| {
                (0..60).for_each(|i| fs::write(s.at(&format!("{i}/a/b/c/d/late/two")), "").unwrap());
            });
            (0..60).for_each(|i| _ = told.expect(format!("{i}/a/b/c/d/late/two"), What::Changed));
        },
    );
}

pub fn exclusion(start: Start) {
    for base in BASES {
        let s = &mut Scene::new(base, start, without(c"skip"), |at| {
            fs::create_dir_all(at.join("skip/deep")).unwrap();
            fs::create_dir_all(at.join("keep/deep")).unwrap();
            fs::create_dir_all(at.join("dir/skip/deep")).unwrap();
        });
        s.after(|s| {
            fs::write(s.at("skip/file"), "").unwrap();
            fs::write(s.at("skip/deep/file"), "").unwrap();
            fs::write(s.at("keep/skip"), "").unwrap();
            fs::write(s.at("dir/skip/deep/file"), "").unwrap();
        })
        .expect_silence_on("skip")
        .expect_silence_on("keep/skip")
        .expect_silence_on("dir/skip");
        let told = s.after(|s| fs::create_dir_all(s.at("new/skip/x")).unwrap());
        told.expect("new", What::Tree).expect_silence_on("new/skip");
        // across the border, both ways
        s.after(|s| fs::rename(s.at("keep"), s.at("new/skip/keep")).unwrap())
            .expect("keep", What::Tree)
            .expect_silence_on("new/skip");
        s.after(|s| fs::write(s.at("new/skip/keep/deep/file"), "").unwrap()).expect_silence_on("new");
        s.after(|s| fs::rename(s.at("skip"), s.at("kept")).unwrap())
            .expect("kept", What::Tree)
            .expect_silence_on("skip");
        s.write("kept/deep/two", "");
        s.after(|s| fs::rename(s.at("kept/deep/two"), s.at("kept/skip")).unwrap())
            .expect("kept/deep/two", What::Changed)
            .expect_silence_on("kept/skip");
        s.after(|s| fs::rename(s.at("kept/skip"), s.at("three")).unwrap()).expect("three", What::Changed);
        s.after(|s| fs::rename(s.at("kept"), s.at("skip")).unwrap()).expect("kept", What::Tree);
        s.after(|s| fs::write(s.at("skip/deep/four"), "").unwrap()).expect_silence_on("skip");
    }
}

/// The waker ends the waiting, and there is an `UpTo` although nothing happens.
pub fn waking(start: Start) {
    let mut s = Scene::new(BASES[0], start, everything(), |_| {});
    let waker = s.detector.waker();
    let began = Instant::now();
    let other = std::thread::spawn(move || waker.wake());
    let mut news = Vec::new();
    s.detector.read(DEADLINE * 2, &mut |n| news.push(n)).unwrap();
    assert!(began.elapsed() < DEADLINE);
    other.join().unwrap();
    assert!(matches!(news[..], [News::UpTo(_)]), "{news:?}");
}

/// The source directory itself is removed.
pub fn removal_of_the_source(start: Start) {
    let mut s = Scene::new(BASES[0], start, everything(), |_| {});
    fs::remove_dir(&s.source).unwrap();
    let mut lost = false;
    treeferry_kit::run::wait_until("the loss is told", DEADLINE, || {
        let read = s.detector.read(Duration::from_millis(10), &mut |n| lost |= matches!(n, News::Lost(_)));
        lost || read.is_err()
    });
    assert!(lost);
    let again = s.detector.read(Duration::from_millis(10), &mut |_| {});
    assert!(matches!(again, Err(Error::Gone(_))), "{again:?}");
}

/// A path longer than any system call takes.
pub fn deep(start: Start) {
    let name = "d".repeat(200);
    let mut s = Scene::new(BASES[1], start, everything(), |at| {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut dir = rustix::fs::open(at, flags, Mode::empty()).unwrap();
        for _ in 0..30 {
            rustix::fs::mkdirat(&dir, &name, Mode::RWXU).unwrap();
            dir = rustix::fs::openat(&dir, &name, flags, Mode::empty()).unwrap();
        }
    });
    let deep = vec![name.as_str(); 30].join("/");
    let at_the_end = |s: &Scene, work: &dyn Fn(&rustix::fd::OwnedFd)| {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let mut dir = rustix::fs::open(&s.source, flags, Mode::empty()).unwrap();
        for _ in 0..30 {
            dir = rustix::fs::openat(&dir, &name, flags, Mode::empty()).unwrap();
        }
        work(&dir);
    };
    let file = |name: &'static str| {
        move |dir: &rustix::fd::OwnedFd| {
            let flags = OFlags::CREATE | OFlags::WRONLY;
            drop(rustix::fs::openat(dir, name, flags, Mode::RWXU).unwrap());
        }
    };
    s.after(|s| at_the_end(s, &file("file"))).expect(format!("{deep}/file"), What::Changed);
    s.after(|s| at_the_end(s, &|dir| rustix::fs::mkdirat(dir, "new", Mode::RWXU).unwrap()))
        .expect(format!("{deep}/new"), What::Tree);
    s.after(|s| at_the_end(s, &file("new/file"))).expect(format!("{deep}/new/file"), What::Changed);
    // a rename above moves all of it
    s.after(|s| fs::rename(s.at(&name), s.at("short")).unwrap()).expect_moved(&name, "short", true);
    s.after(|s| fs::rename(s.at("short"), s.at(&name)).unwrap());
    s.after(|s| at_the_end(s, &file("new/two"))).expect(format!("{deep}/new/two"), What::Changed);
}

/// Unmounts, should a test fail before it does that itself.
struct Unmount<'a>(&'a Path);

impl Drop for Unmount<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = Command::new("umount").arg("--lazy").arg(self.0).status();
        }
    }
}

/// Another file system is mounted below the source, and unmounted.
pub fn mounts(start: Start) {
    if treeferry_kit::caps::own_ids().0 != 0 {
        eprintln!("left out: only root can prepare this");
        return;
    }
    let other = Mount::sized(FsKind::Tmpfs, 1 << 20, None).unwrap();
    fs::create_dir(other.path().join("dir")).unwrap();
    let mut s = Scene::new(BASES[0], start, everything(), |at| fs::create_dir_all(at.join("a/b")).unwrap());
    let run = |program: &str, args: &[&Path]| {
        assert!(Command::new(program).args(args).status().unwrap().success());
    };
    let point = s.at("a");
    let _unmounted = Unmount(&point);
    s.after(|s| run("mount", &[Path::new("--bind"), other.path(), &s.at("a")])).expect("a", What::Tree);
    s.write("a/dir/file", "");
    s.write("file", "");
    s.after(|s| run("umount", &[&s.at("a")])).expect("a", What::Tree);
    s.write("a/b/file", "");
}

/// A directory of the source is mounted at a second place in it, and unmounted; at either.
pub fn two_places(start: Start) {
    if treeferry_kit::caps::own_ids().0 != 0 {
        eprintln!("left out: only root can prepare this");
        return;
    }
    let run = |program: &str, args: &[&Path]| {
        assert!(Command::new(program).args(args).status().unwrap().success());
    };
    let bind = |s: &Scene, from: &str, to: &str| run("mount", &[Path::new("--bind"), &s.at(from), &s.at(to)]);
    let make = |at: &Path| {
        for dir in ["a/sub", "b", "c", "d"] {
            fs::create_dir_all(at.join(dir)).unwrap();
        }
    };
    let write = |s: &Scene, path: &str| fs::write(s.at(path), "").unwrap();
    // while changes are followed, and before
    for early in [false, true] {
        let mut s = if early {
            let make = move |at: &Path| {
                make(at);
                run("mount", &[Path::new("--bind"), &at.join("a"), &at.join("b")]);
            };
            Scene::new(BASES[0], start, everything(), make)
        } else {
            Scene::new(BASES[0], start, everything(), make)
        };
        let (b, inner, c) = (s.at("b"), s.at("a/sub/inner"), s.at("c"));
        let _unmounted = (Unmount(&c), Unmount(&inner), Unmount(&b));
        if !early {
            s.after(|s| bind(s, "a", "b")).expect("b", What::Tree);
        }
        // both places see what is done at either
        for (n, place) in ["a", "b"].into_iter().enumerate() {
            let name = |at: &str, sub: &str| format!("{at}/{sub}file{n}");
            for sub in ["", "sub/"] {
                s.after(|s| write(s, &name(place, sub)))
                    .expect(name("a", sub), What::Changed)
                    .expect(name("b", sub), What::Changed);
            }
            let (old, new) = (name(place, ""), name(place, "sub/new-"));
            s.after(|s| fs::rename(s.at(&old), s.at(&new)).unwrap())
                .expect_look(name("a", "sub/new-"))
                .expect_look(name("b", "sub/new-"));
        }
        s.after(|s| fs::create_dir(s.at("a/new")).unwrap())
            .expect("a/new", What::Tree)
            .expect("b/new", What::Tree);
        s.after(|s| write(s, "b/new/file"))
            .expect("a/new/file", What::Changed)
            .expect("b/new/file", What::Changed);
        // what lies below what is bound
        s.after(|s| fs::rename(s.at("d"), s.at("e")).unwrap());
        let told = s.after(|s| run("umount", &[&s.at("b")]));
        // early, it may have been come by before the other place
        if !early || !told.is_lost() {
            told.expect_look("b");
        }
        for path in ["a/after", "a/sub/after", "a/new/after", "b/after", "e/after"] {
            s.after(|s| write(s, path)).expect(path, What::Changed);
        }
        // in itself
        s.after(|s| fs::create_dir(s.at("a/sub/inner")).unwrap());
        s.after(|s| bind(s, "a", "a/sub/inner")).expect("a/sub/inner", What::Tree);
        s.after(|s| write(s, "a/sub/x"))
            .expect("a/sub/x", What::Changed)
            .expect("a/sub/inner/sub/x", What::Changed);
        s.after(|s| run("umount", &[&s.at("a/sub/inner")]));
        s.after(|s| write(s, "a/sub/y")).expect("a/sub/y", What::Changed);
    }
}

/// Something from elsewhere is mounted at two places, and the first of them is unmounted.
pub fn first_of_two_places(start: Start) {
    if treeferry_kit::caps::own_ids().0 != 0 {
        eprintln!("left out: only root can prepare this");
        return;
    }
    let other = Mount::sized(FsKind::Tmpfs, 1 << 20, None).unwrap();
    fs::create_dir(other.path().join("dir")).unwrap();
    let mut s = Scene::new(BASES[0], start, everything(), |at| {
        fs::create_dir(at.join("a")).unwrap();
        fs::create_dir(at.join("b")).unwrap();
    });
    let run = |program: &str, args: &[&Path]| {
        assert!(Command::new(program).args(args).status().unwrap().success());
    };
    let (a, b) = (s.at("a"), s.at("b"));
    let _unmounted = (Unmount(&a), Unmount(&b));
    for at in ["a", "b"] {
        s.after(|s| run("mount", &[Path::new("--bind"), other.path(), &s.at(at)]));
    }
    s.write("a/dir/file", "").expect("b/dir/file", What::Changed);
    s.after(|s| run("umount", &[&s.at("a")]));
    s.write("b/dir/file2", "");
    s.write("a/file", "");
    s.after(|s| run("umount", &[&s.at("b")]));
    s.write("b/file", "");
}
