//! Mirrors that are told by a list what has changed, alone and beside others.

mod checks;

use checks::mirror::{Mirror, watch_command};
use std::io::{PipeWriter, Write};
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
