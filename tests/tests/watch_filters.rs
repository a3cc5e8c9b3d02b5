//! Mirrors that leave something out: what is removed or renamed in SRC goes at the target too, and what is left out stays.

mod checks;

use checks::is_root;
use checks::mirror::Mirror;
use std::fs;
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
