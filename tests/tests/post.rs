//! `treeferry post`: which mirrors are told of a path, and what whoever waits is told.

mod checks;

use checks::is_root;
use checks::mirror::{Mirror, watch_command};
use std::fs;
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
