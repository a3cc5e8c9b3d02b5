//! Mirrors of directories that change while something is done in them.

mod checks;

use checks::is_root;
use checks::mirror::Mirror;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::Command;
use treeferry_kit::mounts::{FsKind, Mount};
use treeferry_tests::{Live, Run, Scratch, command};

/// Files that a worker takes some seconds to look at, at [`SLOWLY`].
const FILES: u32 = 1000;
const SLOWLY: &str = "--iops 500";

#[test]
fn what_is_made_while_its_directory_changes_has_its_own_group_and_acl() {
    let s = Scratch::disk();
    s.src().dir("group").dir("acl");
    if !is_root() {
        return;
    }
    for early in [false, true] {
        let m = Mirror::start(&s, SLOWLY);
        m.catch_up();
        // with the group of the directory, or not, and the reverse
        let change = |dir: &str| {
            let (path, mode) = (s.at(&format!("src/{dir}")), if early { 0o755 } else { 0o2755 });
            chown(&path, None, Some(34)).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        };
        for n in 0..FILES {
            s.src().file(&format!("group/{early}-{n}"), "").file(&format!("acl/{early}-{n}"), "");
        }
        change("group");
        s.src().default_acl("acl", 77, 7);
        m.assert_same();
        assert_eq!(m.stop().expect(0).count("failures"), 0);
    }
}

#[test]
fn a_mode_that_a_directory_gets_while_it_is_walked_stays() {
    let s = Scratch::disk();
    for n in 0..FILES {
        s.src().file(&format!("d/{n}"), "").file(&format!("d/s{}/{n}", n % 8), "");
    }
    Run::of(command(["sync", "-q"]).arg(s.at("src")).arg(s.at("dst"))).expect(0);
    let m = Mirror::start(&s, SLOWLY);
    m.until("it is at work there", || {
        let r = Run::of(command(["status", "--json"]).env("TREEFERRY_RUNTIME_DIR", s.at("run")));
        r.json["jobs"][0]["counters"]["files"].as_u64() > Some(100)
    });
    assert_eq!(m.complete_up_to(), 0, "it is not over yet");
    fs::set_permissions(s.at("src/d"), Permissions::from_mode(0o700)).unwrap();
    m.assert_same();
    m.stop().expect(0);
}

/// What such a snapshot has in place of a subvolume is another directory each time it is looked for.
#[test]
fn a_directory_that_is_never_the_same_holds_up_nothing() {
    if !is_root() {
        return;
    }
    let s = Scratch::disk();
    let disk = Mount::new(FsKind::Btrfs).unwrap();
    let (src, dst) = (disk.path().join("src"), s.at("dst"));
    fs::create_dir(&src).unwrap();
    let subvolume = |words: &[&str], paths: &[&str]| {
        let mut c = Command::new("btrfs");
        c.args(["-q", "subvolume"]).args(words).args(paths.iter().map(|p| src.join(p)));
        assert!(c.status().unwrap().success());
    };
    subvolume(&["create"], &["sv"]);
    subvolume(&["create"], &["sv/in"]);
    let mut c = command(["watch", "--json", "--detect", "inotify"]);
    fs::create_dir_all(s.at("run")).unwrap();
    c.env("TREEFERRY_RUNTIME_DIR", s.at("run")).arg(&src).arg(&dst);
    let m = Mirror { s: &s, live: Live::of(&mut c) };
    m.catch_up();
    subvolume(&["snapshot"], &["sv", "copy"]);
    for n in 0..3 {
        fs::write(src.join(format!("f{n}")), "").unwrap();
        m.catch_up();
        assert!(dst.join("copy/in").is_dir() && dst.join(format!("f{n}")).is_file());
    }
    m.stop().expect(0);
}
