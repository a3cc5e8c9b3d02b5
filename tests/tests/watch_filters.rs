//! Mirrors that leave something out: what is removed or renamed in SRC goes at the target too, and what is left out stays.

mod checks;

use checks::mirror::Mirror;
use checks::{Immutable, is_root};
use std::fs;
use std::os::unix::fs::MetadataExt;
use treeferry_tests::Scratch;

/// All detectors that this user may use here, with their options.
fn detectors() -> Vec<&'static str> {
    let mut all = vec!["inotify", "poll --poll-every 20ms"];
    if is_root() {
        all.push("fanotify");
    }
    all
}

#[test]
fn a_directory_that_is_removed_goes_whatever_the_filter_says_of_a_file_of_that_name() {
    for detect in detectors() {
        for options in [r"--accept \.ok$", "--exclude * --include */ --include *.ok"] {
            let s = Scratch::disk();
            s.src().file("d/a.ok", "a").file("d/e/b.ok", "b").file("d/e/c.no", "c").dir("empty/f");
            // what is left out, and only at the target
            s.dst().file("left.no", "left").file("kept/left.no", "left");
            s.src().file("kept/here.ok", "k").file("left.no", "in both");
            let m = Mirror::start(&s, &format!("--detect {detect} {options}"));
            m.catch_up();
            let dst = s.dst();
            assert!(dst.has("d/e/b.ok") && !dst.has("d/e/c.no") && dst.has("empty/f"), "{detect} {options}");
            fs::remove_dir_all(s.at("src/d")).unwrap();
            fs::remove_dir_all(s.at("src/empty")).unwrap();
            fs::remove_file(s.at("src/left.no")).unwrap();
            fs::remove_file(s.at("src/kept/here.ok")).unwrap();
            m.catch_up();
            for gone in ["d", "empty", "kept/here.ok"] {
                assert!(!dst.has(gone), "{detect} {options}: {gone}");
            }
            assert_eq!((dst.read("left.no"), dst.read("kept/left.no")), ("left".into(), "left".into()));
            assert_eq!(m.stop().expect(0).count("failures"), 0);
        }
    }
}

/// The other way round: what the target has is left out, whatever stood at its name in SRC.
#[test]
fn a_directory_that_is_left_out_stays_though_the_name_is_gone() {
    for detect in detectors() {
        let s = Scratch::disk();
        s.src().file("name", "a file").file("a", "a");
        let m = Mirror::start(&s, &format!("--detect {detect} --exclude name/"));
        m.catch_up();
        let dst = s.dst();
        fs::remove_file(s.at("dst/name")).unwrap();
        dst.file("name/f", "left out");
        fs::remove_file(s.at("src/name")).unwrap();
        fs::remove_file(s.at("src/a")).unwrap();
        m.catch_up();
        assert!(dst.has("name/f") && !dst.has("a"), "{detect}");
        assert_eq!(m.stop().expect(0).count("failures"), 0);
    }
}

#[test]
fn a_removed_directory_that_holds_what_is_left_out_stays_with_it_and_is_done_with() {
    for detect in detectors() {
        for options in ["--exclude *.no", r"--reject \.no$", "--exclude /d/e/f.no"] {
            let s = Scratch::disk();
            s.src().file("d/a", "a").file("d/e/b", "b").file("d/e/g/c", "c").file("h/i/j", "j");
            s.dst().file("d/e/f.no", "left out");
            let m = Mirror::start(&s, &format!("--detect {detect} {options}"));
            m.catch_up();
            fs::remove_dir_all(s.at("src/d")).unwrap();
            fs::remove_dir_all(s.at("src/h")).unwrap();
            m.catch_up();
            let dst = s.dst();
            assert_eq!(
                (dst.list(""), dst.list("d"), dst.list("d/e")),
                (vec!["d".to_owned()], vec!["e".to_owned()], vec!["f.no".to_owned()]),
                "{detect} {options}"
            );
            assert_eq!(dst.read("d/e/f.no"), "left out");
            // and it may come again
            s.src().file("d/e/new", "new");
            m.catch_up();
            assert_eq!((dst.read("d/e/f.no"), dst.read("d/e/new")), ("left out".into(), "new".into()));
            let r = m.stop().expect(0);
            assert_eq!(r.count("failures"), 0, "{r}");
        }
    }
}

/// A directory is renamed to where other names in it are left out, and back.
#[test]
fn a_directory_that_is_renamed_across_the_border_has_what_is_taken_in_there_and_nothing_else() {
    for detect in detectors() {
        for options in [
            "--exclude /a/x/*.no",
            "--exclude **/x/*.no",
            "--exclude *.no --include /a/z/*.no",
            r"--reject ^/a/x/[^/]*\.no$",
            r"--accept ^/a/z/ --accept \.ok$",
        ] {
            let s = Scratch::disk();
            s.src().file("a/x/f.ok", "f").file("a/x/g.no", "g").file("a/x/e/h.ok", "h");
            s.dst().file("a/x/left.no", "left out");
            let m = Mirror::start(&s, &format!("--detect {detect} {options}"));
            m.catch_up();
            let dst = s.dst();
            assert_eq!(dst.list("a/x"), ["e", "f.ok", "left.no"], "{detect} {options}");
            fs::rename(s.at("src/a/x"), s.at("src/a/z")).unwrap();
            m.catch_up();
            assert_eq!((dst.list("a/x"), dst.list("a/z")), (vec!["left.no".to_owned()], s.src().list("a/z")));
            assert_eq!((dst.read("a/x/left.no"), dst.read("a/z/g.no")), ("left out".into(), "g".into()));
            fs::rename(s.at("src/a/z"), s.at("src/a/x")).unwrap();
            m.catch_up();
            assert_eq!(dst.list("a"), ["x"], "{detect} {options}");
            assert_eq!(dst.list("a/x"), ["e", "f.ok", "left.no"], "{detect} {options}");
            assert_eq!((dst.read("a/x/left.no"), dst.read("a/x/e/h.ok")), ("left out".into(), "h".into()));
            assert_eq!(m.stop().expect(0).count("failures"), 0);
        }
    }
}

#[test]
fn a_directory_below_which_the_filter_says_the_same_is_renamed_and_not_copied() {
    for detect in detectors().into_iter().filter(|d| !d.starts_with("poll")) {
        for options in [
            "--exclude *.no",
            "--exclude /scratch --exclude cache/",
            "--exclude /elsewhere/*.ok",
            "--exclude **/x/*.ok",
            r"--accept \.ok$",
        ] {
            let s = Scratch::disk();
            for i in 0..200 {
                s.src().file(&format!("d/{}/f{i}.ok", i % 5), "x").file(&format!("d/{}/f{i}.no", i % 5), "x");
            }
            let m = Mirror::start(&s, &format!("--detect {detect} {options}"));
            m.catch_up();
            let number = |dir: &str| fs::metadata(s.at(dir)).map(|m| m.ino()).ok();
            let before = number("dst/d");
            fs::rename(s.at("src/d"), s.at("src/e")).unwrap();
            m.catch_up();
            assert_eq!(number("dst/e"), before, "{detect} {options}");
            assert!(s.dst().has("e/4/f4.ok") && !s.dst().has("d"));
            assert_eq!(m.status().unwrap()["moved"], 1, "{detect} {options}");
            let r = m.stop().expect(0);
            assert!(r.count("copied_files") <= 400, "{r}");
        }
    }
}

#[test]
fn a_removed_directory_in_which_something_cannot_be_removed_fails_and_holds_nothing_up() {
    if !is_root() {
        return;
    }
    let s = Scratch::disk();
    s.src().file("d/e/f", "f").file("d/g", "g").file("h", "h");
    let m = Mirror::start(&s, "--detect inotify");
    m.catch_up();
    let stuck = Immutable::new(s.at("dst/d/e/f"));
    fs::remove_dir_all(s.at("src/d")).unwrap();
    s.src().file("h", "changed");
    m.until("what cannot be removed is named", || {
        m.status().is_some_and(|m| m["failing"].as_u64() >= Some(1))
    });
    m.catch_up();
    m.catch_up();
    assert_eq!((s.dst().read("h"), s.dst().has("d/g")), ("changed".into(), false));
    drop(stuck);
    m.assert_same();
    m.stop().expect(0);
}

/// A name that is left out changes the time of its directory, which is not.
#[test]
fn times_of_directories_are_right_though_what_came_and_went_is_left_out() {
    for detect in detectors() {
        let s = Scratch::disk();
        s.src().file("d/f", "f").file("e/g.tmp", "g").dir("skip/x");
        let m = Mirror::start(&s, &format!("--detect {detect} --exclude *.tmp --exclude skip/"));
        m.catch_up();
        let src = |path: &str| s.at("src").join(path);
        let changes: [(&str, &dyn Fn()); 7] = [
            ("d", &|| fs::write(src("d/x.tmp"), "x").unwrap()),
            ("d", &|| fs::rename(src("d/x.tmp"), src("d/y.tmp")).unwrap()),
            ("", &|| fs::rename(src("d/y.tmp"), src("z.tmp")).unwrap()),
            ("e", &|| fs::remove_file(src("e/g.tmp")).unwrap()),
            ("e", &|| fs::create_dir(src("e/skip")).unwrap()),
            ("d", &|| fs::rename(src("e/skip"), src("d/skip")).unwrap()),
            ("d", &|| fs::remove_dir(src("d/skip")).unwrap()),
        ];
        for (n, (dir, change)) in changes.into_iter().enumerate() {
            change();
            m.catch_up();
            let time = |side: &str| fs::metadata(s.at(side).join(dir)).unwrap().modified().unwrap();
            assert_eq!(time("dst"), time("src"), "{detect}: {n} in {dir}");
        }
        assert_eq!(m.stop().expect(0).count("failures"), 0);
    }
}
