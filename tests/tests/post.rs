//! `treeferry post`: which mirrors are told of a path, and what whoever waits is told.

mod checks;

use checks::is_root;
use checks::mirror::{Mirror, watch_command};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use treeferry_kit::mounts::{FsKind, Mount};
use treeferry_tests::{Live, Run, Scratch, command};

fn post<P: AsRef<Path>>(s: &Scratch, options: &str, paths: &[P]) -> Run {
    let mut c = command(["post"]);
    c.env("TREEFERRY_RUNTIME_DIR", s.at("run")).args(options.split_whitespace());
    Run::of(c.args(paths.iter().map(AsRef::as_ref)))
}

#[test]
fn whoever_waits_is_told_what_cannot_be_mirrored() {
    if !is_root() {
        return;
    }
    let s = Scratch::disk();
    let small = Mount::sized(FsKind::Tmpfs, 4 << 20, None).unwrap();
    fs::create_dir_all(s.at("run")).unwrap();
    let mut c = command(["watch", "--json"]);
    c.env("TREEFERRY_RUNTIME_DIR", s.at("run")).arg(s.at("src")).arg(small.path().join("dst"));
    let m = Mirror { s: &s, live: Live::of(&mut c) };
    m.catch_up();
    let large = vec![1; 8 << 20];
    s.src().file("small", "x").dir("d");
    fs::write(s.at("src/d/large"), &large).unwrap();
    for path in ["src/d/large", "src/d", "src"] {
        let r = post(&s, "--wait", &[s.at(path)]).expect(23);
        assert!(r.stderr.contains("d/large: ") && r.stderr.contains("No space left on device"), "{r}");
    }
    post(&s, "--wait", &[s.at("src/small")]).expect(0);
    assert!(small.path().join("dst/small").exists());
    // so many fail that not all are named
    for i in 0..21 {
        fs::write(s.at(&format!("src/a{i}")), &large).unwrap();
    }
    let r = post(&s, "--wait", &[s.at("src/d/large")]).expect(23);
    assert!(r.stderr.contains("paths of mirror ") && r.stderr.contains("may be among them"), "{r}");
    for i in 0..21 {
        fs::remove_file(s.at(&format!("src/a{i}"))).unwrap();
    }
    fs::write(s.at("src/d/large"), "less").unwrap();
    m.until("nothing fails any more", || m.status().is_some_and(|m| m["failing"] == 0));
    post(&s, "--wait", &[s.at("src/d/large")]).expect(0);
    let rests = |m: Value| ["waiting", "busy", "walks"].iter().all(|k| m[*k] == 0);
    m.until("nothing is tried again", || m.status().is_some_and(rests));
    m.live.signal(rustix::process::Signal::TERM);
    m.live.finish().expect(0);
}

#[test]
fn whoever_would_wait_for_ever_is_told_so() {
    let s = Scratch::disk();
    let (input, list) = std::io::pipe().unwrap();
    let mut c = watch_command(&s, "--detect list");
    let m = Mirror { s: &s, live: Live::of(c.stdin(input)) };
    m.until("it is there", || m.status().is_some());
    s.src().file("a", "a");
    let r = post(&s, "--wait", &[s.at("src/a")]).expect(1);
    assert!(r.stderr.contains("nothing but a list"), "{r}");
    m.until("it is looked at all the same", || s.dst().has("a"));
    drop(list);
    m.live.finish().expect(0);
}

#[test]
fn a_path_is_found_whatever_way_leads_to_it() {
    let s = Scratch::disk();
    s.src().file("d/f", "f").symlink("d/l", "f");
    let m = Mirror::start(&s, "--detect inotify");
    m.catch_up();
    for (name, to) in [("way", "src"), ("to-file", "src/d/f"), ("to-elsewhere", "run")] {
        symlink(to, s.at(name)).unwrap();
    }
    for path in
        ["way", "way/d", "to-file", "src/d/../d/f", "src/d/..", "src/gone/../d", "way/gone", "src/d/l"]
    {
        post(&s, "--wait", &[s.at(path)]).expect(0);
    }
    // names of what is somewhere else are below no SRC
    for path in ["src/..", "src/d/../../elsewhere", "to-elsewhere"] {
        let r = post(&s, "", &[s.at(path)]).expect(23);
        assert!(r.stderr.contains("is below the SRC of no mirror\n"), "{r}");
    }
    m.stop().expect(0);
}

#[test]
fn a_mirror_that_stands_still_holds_up_no_other() {
    let (s, other) = (Scratch::disk(), Scratch::disk());
    s.src().file("a", "a");
    other.src().file("b", "b");
    let m = Mirror::start(&s, "--detect inotify");
    let mut c = watch_command(&other, "--detect inotify");
    let frozen = Mirror { s: &s, live: Live::of(c.env("TREEFERRY_RUNTIME_DIR", s.at("run"))) };
    let asked = || {
        let r = Run::of(command(["status", "--json"]).env("TREEFERRY_RUNTIME_DIR", s.at("run")));
        r.json["jobs"].as_array().map_or(0, Vec::len)
    };
    m.until("both are there", || asked() == 2 && other.dst().has("b"));
    frozen.live.freeze();
    s.src().file("a", "changed");
    // more than a socket holds
    let names: String = (0..20_000).map(|i| format!("{}/none-{i:050}\n", s.at("src").display())).collect();
    fs::write(s.at("names"), names).unwrap();
    let list = format!("--wait --from {}", s.at("names").display());
    let r = post(&s, &list, &[s.at("src/a")]).expect(23);
    assert!(r.stderr.contains(" does not answer: nothing within"), "{r}");
    assert_eq!(s.dst().read("a"), "changed");
    // what only that one could take
    let r = post(&s, "", &[other.at("src/b")]).expect(23);
    assert!(r.stderr.contains("src/b is below the SRC of no mirror that answers"), "{r}");
    frozen.live.thaw();
    post(&s, "--wait", &[s.at("src/a"), other.at("src/b")]).expect(0);
    frozen.live.signal(rustix::process::Signal::TERM);
    frozen.live.finish().expect(0);
    m.stop().expect(0);
}
