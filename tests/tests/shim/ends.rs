//! However a program ends, and while it has not.

use crate::Mirror;
use std::fs;
use std::time::{Duration, Instant};
use treeferry_tests::{PATIENCE, Scratch};

#[test]
fn however_a_program_ends_what_it_wrote_arrives() {
    let s = Scratch::disk();
    let m = Mirror::start(&s);
    let open = "import os, sys, signal\nf = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT); os.write(f, b'written'); ";
    for (n, (end, code)) in [
        ("os._exit(3)", Some(3)),
        ("os.kill(os.getpid(), signal.SIGKILL)", None),
        ("os.abort()", None),
        ("sys.exit(4)", Some(4)),
        ("os.set_inheritable(f, True); os.execl('/bin/sh', 'sh', '-c', f'echo more >&{f}; exit 5')", Some(5)),
        ("os.execv('/bin/true', ['true'])", Some(0)),
        ("os.fork() and os.wait() or os.write(f, b'of the child') and os.kill(os.getpid(), 9)", Some(0)),
        ("os.fork() or (__import__('time').sleep(0.3), os.write(f, b'after the parent'), os.kill(os.getpid(), 9))", Some(0)),
    ]
    .iter()
    .enumerate()
    {
        eprintln!("{end}");
        let name = format!("f{n}");
        let out = m.run("python3", &["-c", &format!("{open}{end}"), &name]);
        assert_eq!(out.status.code(), *code, "{end}: {}", String::from_utf8_lossy(&out.stderr));
        let began = Instant::now();
        // the last one has a child that goes on
        while n == 7 && fs::read(s.at("src/f7")).unwrap() != b"writtenafter the parent" {
            assert!(began.elapsed() < PATIENCE);
            std::thread::sleep(Duration::from_millis(10));
        }
        while n == 7 && fs::read(s.at("dst/f7")).unwrap_or_default() != b"writtenafter the parent" {
            assert!(began.elapsed() < PATIENCE, "{:#?}", m.status());
            std::thread::sleep(Duration::from_millis(10));
        }
        m.assert_same();
    }
    m.stop();
}

#[test]
fn a_file_that_stays_open_and_grows_arrives_meanwhile() {
    let s = Scratch::disk();
    let m = Mirror::start(&s);
    let script = "import os, sys\nf = os.open('log', os.O_WRONLY | os.O_CREAT)\nfor line in sys.stdin: os.write(f, line.encode())";
    let mut child =
        m.program("python3").args(["-c", script]).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for n in 1..=3 {
        use std::io::Write;
        writeln!(input, "line {n}").unwrap();
        input.flush().unwrap();
        let began = Instant::now();
        while fs::read_to_string(s.at("dst/log")).unwrap_or_default().lines().count() < n {
            assert!(began.elapsed() < PATIENCE, "{:#?}", m.status());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    drop(input);
    assert!(child.wait().unwrap().success());
    m.assert_same();
    m.stop();
}

#[test]
fn what_comes_and_goes_across_the_border_arrives() {
    let s = Scratch::disk();
    let m = Mirror::start(&s);
    m.sh("mkdir -p ../out/d/e; echo 1 > ../out/d/e/f; echo 2 > ../out/g; echo 3 > stays");
    m.assert_same();
    m.sh("mv ../out/d in; mv ../out/g .");
    m.assert_same();
    m.sh("echo more >> in/e/f; mv in ../out/back; mv stays ../out; echo none >> ../out/back/e/f");
    m.assert_same();
    m.sh("mkdir -p ../out/x; ln g ../out/hard; ln -s ../out/x way; echo y > way/y; mv way/y .; rm way");
    m.assert_same();
    m.stop();
}

#[test]
fn what_is_written_through_an_excluded_name_arrives_under_the_others() {
    let s = Scratch::disk();
    let m = Mirror::of_ring(&s, s.at("ring"), "--exclude *.log");
    m.sh("mkdir d; echo a > d/a; ln d/a skip.log; echo x > other.log; ln other.log more.log");
    let same = |what: &str| {
        m.catch_up();
        assert_eq!(s.dst().read("d/a"), s.src().read("d/a"), "{what}");
    };
    same("linked");
    m.sh("echo more >> skip.log");
    same("written and closed");
    m.sh("exec 3>> skip.log; echo more >&3; mv skip.log d/moved.log; echo yet more >&3");
    same("renamed while it was open");
    m.sh("echo last >> d/moved.log; rm d/moved.log");
    same("removed after it was written");
    m.sh("echo y > new; ln new new.log; echo z >> new.log; rm new.log; echo x >> more.log");
    m.catch_up();
    assert_eq!((s.dst().read("new"), s.dst().has("other.log")), (s.src().read("new"), false));
    m.stop();
}
