//! Mirrors that are told by a list what has changed, alone and beside others.

mod checks;

use checks::mirror::{Mirror, watch_command};
use std::fs;
use std::io::{PipeWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use treeferry_tests::{Live, Run, Scratch, command};

/// A mirror, and its list.
fn start<'a>(s: &'a Scratch, options: &str) -> (Mirror<'a>, PipeWriter) {
    let (input, list) = std::io::pipe().unwrap();
    let mut c = watch_command(s, options);
    (Mirror { s, live: Live::of(c.stdin(input)) }, list)
}

#[test]
fn a_list_holds_up_nobody_beside_it() {
    for detect in ["list,inotify", "inotify,list", "list,poll --poll-every 20ms"] {
        let s = Scratch::disk();
        s.src().file("a", "a").file("d/b", "b");
        let (m, mut list) = start(&s, &format!("--detect {detect}"));
        m.assert_same();
        // while it says nothing, when it says something, and when it is over
        s.src().file("a", "changed");
        m.assert_same();
        s.src().file("d/c", "c");
        writeln!(list, "d/c\nd/none").unwrap();
        m.assert_same();
        drop(list);
        s.src().file("d/e", "e");
        m.assert_same();
        m.stop().expect(0);
    }
}

#[test]
fn a_list_alone_does_not_say_up_to_when_all_is_there() {
    let s = Scratch::disk();
    s.src().file("a", "a");
    let (m, list) = start(&s, "--detect list");
    m.until("the first walk is done", || s.dst().has("a") && m.status().is_some_and(|m| m["walks"] == 0));
    assert!(m.status().unwrap()["complete_up_to_us"].is_null());
    let r = Run::of(command(["status"]).env("TREEFERRY_RUNTIME_DIR", s.at("run"))).expect(0);
    assert!(r.stdout.contains("a list tells what is in it") && !r.stdout.contains("first walk"), "{r}");
    drop(list);
    m.live.finish().expect(0);
}

#[test]
fn a_list_without_an_end_of_a_path_is_no_list() {
    let s = Scratch::disk();
    let mut c = watch_command(&s, "--detect list");
    let r = Run::of(c.stdin(fs::File::open("/dev/zero").unwrap())).expect(3);
    assert!(r.stderr.contains("separated by NUL (-0)?"), "{r}");
}

/// Records as `lfs changelog` writes them.
const RECORDS: &str = "\
1 02MKDIR 02:52:19.7 2026.03.16 0x0 t=[0x200000401:0x2:0x0] ef=0xf u=0:0 nid=10.0.0.1@tcp p=[0x200000007:0x1:0x0] data
2 01CREAT 02:52:19.8 2026.03.16 0x0 t=[0x200000401:0x3:0x0] j=cp.0 ef=0xf u=0:0 nid=10.0.0.1@tcp p=[0x200000401:0x2:0x0] a b ] c
3 10OPEN 02:52:19.8 2026.03.16 0x2 t=[0x200000401:0x3:0x0] ef=0xf u=0:0 nid=10.0.0.1@tcp m=-w- p=[0x200000401:0x2:0x0]
4 11CLOSE 02:52:19.8 2026.03.16 0x42 t=[0x200000401:0x3:0x0] ef=0xf u=0:0 nid=10.0.0.1@tcp
5 08RENME 02:52:19.9 2026.03.16 0x0 t=[0:0x0:0x0] ef=0xf u=0:0 p=[0x200000007:0x1:0x0] new name s=[0x200000401:0x4:0x0] sp=[0x200000401:0x2:0x0] old  name
6 06UNLNK 02:52:20.0 2026.03.16 0x1 t=[0x200000401:0x5:0x0] ef=0xf u=0:0 p=[0x200000401:0x9:0x0] in what is gone
7 14SATTR 02:52:20.1 2026.03.16 0x44 t=[0x200000401:0x6:0x0] ef=0xf u=0:0 nid=10.0.0.1@tcp
8 00MARK  02:52:20.1 2026.03.16 0x0
";

/// A program that knows the paths of some identities, as Lustre would.
const LFS: &str = r#"#!/bin/sh
[ "$1 $2" = "fid2path $MOUNT" ] || exit 2
case $3 in
    "[0x200000007:0x1:0x0]") echo "$MOUNT/" ;;
    "[0x200000401:0x2:0x0]") echo "$MOUNT/data" ;;
    "[0x200000401:0x3:0x0]") printf '%s\n' "$MOUNT/data/a b ] c" data/other ;;
    "[0x200000401:0x6:0x0]") echo "$MOUNT/data/attr" ;;
    *) echo "no such file" >&2; exit 1 ;;
esac
"#;

#[test]
fn paths_are_made_of_the_records_of_a_changelog() {
    let s = Scratch::disk();
    fs::create_dir(s.at("bin")).unwrap();
    fs::write(s.at("bin/lfs"), LFS).unwrap();
    fs::set_permissions(s.at("bin/lfs"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", s.at("bin").display(), std::env::var("PATH").unwrap());
    let mount = s.at("src").display().to_string();
    let mut c = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../sample/changelog-paths"));
    c.arg(&mount).env("PATH", path).env("MOUNT", &mount).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = c.spawn().unwrap();
    child.stdin.take().unwrap().write_all(RECORDS.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let paths: Vec<&str> = text.lines().map(|l| l.strip_prefix(&mount).unwrap()).collect();
    assert_eq!(
        paths,
        [
            "//data",
            "/data/a b ] c",
            "/data/a b ] c",
            "/data/other",
            "/data/a b ] c",
            "/data/other",
            "/data/old  name",
            "//new name",
            "/data/attr",
        ]
    );

    // a mirror takes these, and no records
    s.src().file("data/a b ] c", "x");
    let (m, mut list) = start(&s, "--detect list");
    m.until("the first walk is done", || {
        s.dst().has("data/a b ] c") && m.status().is_some_and(|m| m["walks"] == 0)
    });
    s.src().file("data/a b ] c", "changed").file("new name", "new");
    list.write_all(RECORDS.as_bytes()).unwrap();
    list.write_all(text.as_bytes()).unwrap();
    m.until("it arrives", || s.dst().read("data/a b ] c") == "changed" && s.dst().has("new name"));
    drop(list);
    let r = m.live.finish().expect(0);
    assert_eq!(r.stderr.matches("record of a Lustre changelog").count(), 1, "{r}");
    assert!(r.stderr.contains("02MKDIR"), "{r}");
}
