//! What the library remembers of descriptors and directories is true whatever happens to them meanwhile.

use crate::{Mirror, each};
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};
use treeferry_tests::{PATIENCE, Scratch};

/// A program that does what it is told, a line of Python at a time.
struct Told {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Told {
    fn start(mut program: Command) -> Told {
        let script =
            "import os, sys, ctypes, subprocess\nfor line in sys.stdin:\n  exec(line); print(flush=True)";
        let mut child =
            program.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Told { child, input, output }
    }

    #[track_caller]
    fn tell(&mut self, line: &str) -> String {
        writeln!(self.input, "{line}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        assert!(answer.ends_with('\n'), "{line}: it has ended");
        answer.trim().to_owned()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// A mirror, a directory beside SRC on the same file system, and a program in it.
struct Two<'a> {
    m: Mirror<'a>,
    python: Told,
}

impl<'a> Two<'a> {
    fn start(s: &'a Scratch) -> Two<'a> {
        fs::create_dir_all(s.at("out")).unwrap();
        let m = Mirror::start(s);
        let python = Told::start(m.program("python3"));
        Two { m, python }
    }

    /// Lines of Python, then a shell, and so on in turn.
    #[track_caller]
    fn steps(&mut self, steps: &[&str]) {
        for (n, step) in steps.iter().enumerate() {
            if n % 2 == 0 {
                self.python.tell(step);
            } else {
                self.m.sh(step);
            }
        }
        self.m.assert_same();
    }
}

#[test]
fn a_file_that_comes_from_elsewhere_while_it_is_open_is_followed() {
    let s = Scratch::disk();
    let mut t = Two::start(&s);
    // opened so often that the directory is known by heart
    let open = "f = [open(f'../out/f{i}', 'wb', buffering=0) for i in range(5)]";
    let write = "[f[i].write(b'late%d' % i) for i in range(5)]; [g.close() for g in f]";
    t.steps(&[open, "mv ../out/f* .", write]);
    assert_eq!(fs::read_to_string(s.at("dst/f3")).unwrap(), "late3");
    // with the directory that it is in, and by a stream that is flushed as it is closed
    t.steps(&[
        "os.mkdir('../out/d'); c = ctypes.CDLL(None); c.fopen.restype = ctypes.c_void_p; \
         g = ctypes.c_void_p(c.fopen(b'../out/d/g', b'w')); c.fputs(b'buffered', g)",
        "mv ../out/d .",
        "c.fclose(g)",
    ]);
    assert_eq!(fs::read_to_string(s.at("dst/d/g")).unwrap(), "buffered");
    // out and in again
    t.steps(&["f = open('goes', 'wb', buffering=0)", "mv goes ../out/went", "f.write(b'1')"]);
    t.steps(&["f.write(b'2')", "mv ../out/went back", "f.write(b'3'); f.close()"]);
    assert_eq!(fs::read_to_string(s.at("dst/back")).unwrap(), "123");
    t.python.kill();
    t.m.stop();
}

#[test]
fn a_file_that_is_renamed_while_it_is_open_is_followed() {
    let s = Scratch::disk();
    let mut t = Two::start(&s);
    t.steps(&["f = open('a', 'wb', buffering=0)", "mv a b; echo other > a", "f.write(b'1'); f.close()"]);
    t.steps(&[
        "os.makedirs('d/e'); f = open('d/e/a', 'wb', buffering=0)",
        "mv d c; mkdir -p d/e; echo other > d/e/a; mv c/e c/f",
        "f.write(b'2'); f.close()",
    ]);
    t.steps(&["f = open('x', 'wb', buffering=0)", "ln x y; mv x z; mv y x", "f.write(b'3'); f.close()"]);
    t.python.kill();
    t.m.stop();
}

#[test]
fn where_a_path_leads_is_found_out_again_when_that_changes() {
    let s = Scratch::disk();
    let base = s.at("src").to_str().unwrap().to_owned();
    where_paths_lead(&s, &base);
}

#[test]
fn where_a_relative_path_leads_is_found_out_again_when_that_changes() {
    where_paths_lead(&Scratch::disk(), ".");
}

/// `base`: SRC, as the program names it that works there.
fn where_paths_lead(s: &Scratch, base: &str) {
    let mut t = Two::start(s);
    let write = |name: &str| format!("f = open('{name}', 'wb', buffering=0); f.write(b'{name}'); f.close()");
    let all = |dir: &str, n: u32| {
        (0..3).map(|i| write(&format!("{base}/{dir}/f{n}{i}"))).collect::<Vec<_>>().join("; ")
    };
    // a symlink that is turned round, a directory in its place, names that are exchanged
    t.steps(&["pass", "mkdir one two ../out/three; ln -s one way", &all("way", 0)]);
    t.steps(&[&all("way", 1), "ln -sfn two way", &all("way", 2)]);
    t.steps(&[&all("way", 3), "rm way; ln -s ../out/three way", &all("way", 4)]);
    t.steps(&[&all("way", 5), "rm way; mkdir way", &all("way", 6)]);
    t.steps(&[&all("way", 7), "mv way away; mv one way", &all("way", 8)]);
    t.steps(&[
        &all("../out/three", 0),
        "mv ../out/three back; ln -s ../src/back ../out/three",
        &all("../out/three", 1),
    ]);
    t.steps(&[
        &all("way", 9),
        "python3 -c 'import ctypes; ctypes.CDLL(None).renameat2(-100, b\"way\", -100, b\"two\", 2)'",
        &all("way", 10),
    ]);
    // a file by a symlink, from where nothing is mirrored, and to where it is not
    t.steps(&[
        &all("../out", 11),
        "echo a > target; ln -s ../src/target ../out/link; ln -s ../out/none out; ln -s ../src/new ../out/dangling",
        &[write(&format!("{base}/../out/link")), write(&format!("{base}/out")), write(&format!("{base}/../out/dangling"))].join("; "),
    ]);
    assert!(fs::read_to_string(s.at("dst/target")).unwrap().ends_with("out/link"));
    assert!(fs::read_to_string(s.at("dst/new")).unwrap().ends_with("out/dangling"));
    // what nobody has told is noticed after a while
    t.python.tell(&all("back", 20));
    fs::rename(s.at("src/back"), s.at("src/quiet")).unwrap();
    std::os::unix::fs::symlink("quiet", s.at("src/back")).unwrap();
    let began = Instant::now();
    let mut n = 100;
    while !s.at(&format!("dst/quiet/f{n}0")).exists() {
        assert!(began.elapsed() < PATIENCE, "{:?}", t.m.status());
        n += 1;
        t.python.tell(&all("back", n));
        std::thread::sleep(Duration::from_millis(50));
    }
    t.python.kill();
    t.m.live.signal(Signal::TERM);
    t.m.live.finish();
}

#[test]
fn relative_names_are_where_the_working_directory_is() {
    let write = |names: &str| format!("[open(n + str(i), 'w').write(n) for n in {names} for i in range(3)]");
    let steps = [
        ("mkdir", "import os\nos.makedirs('one/two'); os.mkdir('../elsewhere')".to_owned()),
        (
            "chdir and fchdir, and out of what is mirrored and back",
            format!(
                "import os\nw = lambda: {}\nw(); os.chdir('one'); w(); d = os.open('two', os.O_RDONLY); os.fchdir(d); w()\n\
                 os.chdir('../../../elsewhere'); w(); os.chdir('../src'); w()",
                write("('a', 'one/../b', './c')").replace("'one/../b'", "'.//b'")
            ),
        ),
        (
            "a directory that is renamed while it is that",
            format!("import os\nw = lambda: {}\nos.chdir('one/two'); w(); os.rename('../two', '../../three'); w()", write("('d',)")),
        ),
        (
            "one that is removed",
            "import os\nos.mkdir('gone'); os.chdir('gone'); open('f', 'w').close(); os.unlink('f'); os.rmdir('../gone')\n\
             os.chdir('/'); os.chdir(os.environ['PWD']); open('e', 'w').write('1')"
                .to_owned(),
        ),
        (
            "a thread that goes to and fro",
            "import os, threading\nos.mkdir('x'); os.mkdir('y'); here = os.getcwd(); over = False\ndef go():\n  \
             while not over:\n    for d in ('x', 'y', '../elsewhere', ''): os.chdir(os.path.join(here, d))\n\
             t = threading.Thread(target=go); t.start()\n\
             for i in range(3000): open(f'f{i}', 'w').close()\nover = True; t.join()"
                .to_owned(),
        ),
    ];
    each("python3", "-c", &steps.each_ref().map(|(what, script)| (*what, script.as_str())));
}

#[test]
fn copies_of_a_descriptor_and_children_are_followed() {
    each(
        "python3",
        "-c",
        &[
            (
                "the copy is written after the descriptor is closed, and the process is killed",
                "import os\nf = os.open('dup', os.O_WRONLY | os.O_CREAT); g = os.dup(f); os.close(f); os.write(g, b'1'); os.kill(os.getpid(), 9) if os.fork() == 0 else os.wait()",
            ),
            (
                "so it is with dup2 and F_DUPFD",
                "import os, fcntl\nf = os.open('dup2', os.O_WRONLY | os.O_CREAT); os.dup2(f, 40); g = fcntl.fcntl(f, fcntl.F_DUPFD, 60); os.close(f); os.close(40); os.write(g, b'1')\n\
                 if os.fork() == 0: os.write(g, b'2'); os.kill(os.getpid(), 9)\nos.wait()",
            ),
            (
                "a file without a name gets one, and is written by a copy of its descriptor, and the process ends",
                "import os, fcntl, time\nt = os.open('.', os.O_TMPFILE | os.O_WRONLY); g = fcntl.fcntl(t, fcntl.F_DUPFD, 100); os.close(t)\n\
                 d = os.open('.', os.O_RDONLY); os.link(f'/proc/self/fd/{g}', 'named', src_dir_fd=d)\nend = time.monotonic() + 60\n\
                 while not os.path.exists('../dst/named'): assert time.monotonic() < end; time.sleep(0.01)\nos.write(g, b'1'); os._exit(0)",
            ),
            (
                "a child that shares memory with its parent does not confuse it",
                "import os, subprocess\nf = os.open('kept', os.O_WRONLY | os.O_CREAT); g = open('given', 'w')\n\
                 for i in range(3): subprocess.run(['echo', 'x'], stdout=g, close_fds=True)\n\
                 os.write(f, b'after'); os.close(f); g.close()\nh = os.open('next', os.O_WRONLY | os.O_CREAT); os.write(h, b'1'); os.close(h)",
            ),
            (
                "spawned with a file that is opened for it",
                "import os\nfor i in range(2): os.waitpid(os.posix_spawn('/bin/echo', ['echo', 'y'], os.environ, \
                 file_actions=[(os.POSIX_SPAWN_OPEN, 1, f'spawned{i}', os.O_WRONLY | os.O_CREAT, 0o644)]), 0)",
            ),
            (
                "what is not followed because it was not asked for is not seen",
                "import os, fcntl\nf = os.open('flags', os.O_WRONLY | os.O_CREAT); g = os.dup(f)\n\
                 assert not (fcntl.fcntl(f, fcntl.F_GETFL) | fcntl.fcntl(g, fcntl.F_GETFL)) & os.O_NOFOLLOW\n\
                 os.symlink('flags', 'link'); h = os.open('link', os.O_WRONLY | os.O_NOFOLLOW | os.O_CREAT) if 0 else os.open('link', os.O_WRONLY)\n\
                 os.write(h, b'by the link')\ne = 0\ntry: os.open('link', os.O_WRONLY | os.O_NOFOLLOW)\nexcept OSError as x: e = x.errno\nassert e == 40",
            ),
            (
                "thousands of descriptors",
                "import os, resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (6000, 6000)) if os.getuid() == 0 else None\n\
                 n = 5000 if os.getuid() == 0 else 500\nf = [os.open(f'many{i}', os.O_WRONLY | os.O_CREAT) for i in range(n)]\n\
                 [os.write(g, b'x') for g in f]; [os.close(g) for g in f[::2]]; [os.write(g, b'y') for g in f[1::2]]",
            ),
        ],
    );
}

#[test]
fn a_copy_of_a_descriptor_keeps_the_file_open() {
    let s = Scratch::disk();
    let mut t = Two::start(&s);
    for (n, copies) in
        ["g = os.dup(f)", "g = 50; os.dup2(f, g)", "g = fcntl.fcntl(f, fcntl.F_DUPFD, 60)"].iter().enumerate()
    {
        t.python.tell(&format!(
            "import fcntl; f = os.open('c{n}', os.O_WRONLY | os.O_CREAT); {copies}; os.close(f)"
        ));
        t.m.catch_up();
        // its end tells
        t.python
            .tell("p = os.fork(); p or (os.write(g, b'later'), os.kill(os.getpid(), 9)); os.waitpid(p, 0)");
        t.m.assert_same();
        t.python.tell("os.write(g, b' than that'); os.close(g)");
        t.m.assert_same();
    }
    t.python.kill();
    t.m.stop();
}

#[test]
fn a_child_that_uses_the_memory_of_its_parent_changes_nothing_that_is_remembered() {
    let s = Scratch::disk();
    let mut t = Two::start(&s);
    for n in 0..3 {
        t.python.tell(&format!("f = os.open('e{n}', os.O_WRONLY | os.O_CREAT); os.dup2(f, 2); os.close(f)"));
        t.python.tell("subprocess.run(['true'], stderr=subprocess.DEVNULL)");
        t.m.catch_up();
        t.python.tell("os.write(2, b'of the parent'); os.dup2(0, 2)");
        t.m.assert_same();
    }
    t.python.kill();
    t.m.stop();
}

#[test]
fn a_child_writes_what_its_parent_has_closed() {
    let script = |end: &str| {
        format!(
            "import os, signal, time
for i in range(3):
    f = os.open(f'f{{i}}', os.O_CREAT | os.O_WRONLY)
    os.write(f, b'parent')
    if os.fork() == 0:
        time.sleep(0.3)
        os.write(f, b' and child')
        {end}
    os.close(f)
for i in range(3): os.wait()
"
        )
    };
    each(
        "python3",
        "-c",
        &[
            ("the child ends", &script("os._exit(0)")),
            ("it is killed", &script("os.kill(os.getpid(), signal.SIGKILL)")),
        ],
    );
}

#[test]
fn a_child_outlives_its_parent_with_what_that_has_opened() {
    let s = Scratch::disk();
    let m = Mirror::start(&s);
    // the parent is gone before the child has said anything; and a daemon
    for (name, script) in [
        (
            "forked",
            "import os, time\nf = os.open('forked', os.O_WRONLY | os.O_CREAT); os.write(f, b'1')\n\
                    if os.fork(): os._exit(0)\ntime.sleep(0.2); os.write(f, b'2'); os.kill(os.getpid(), 9)",
        ),
        (
            "daemon",
            "import os, ctypes, time\nf = os.open('daemon', os.O_WRONLY | os.O_CREAT); os.write(f, b'1')\n\
                    ctypes.CDLL(None).daemon(1, 1); time.sleep(0.2); os.write(f, b'2'); os.kill(os.getpid(), 9)",
        ),
    ] {
        assert!(m.run("python3", &["-c", script]).status.success());
        let began = Instant::now();
        while fs::read(s.at("dst").join(name)).unwrap_or_default() != b"12" {
            assert!(began.elapsed() < PATIENCE, "{name}: {:?}", m.status());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    m.assert_same();
    m.stop();
}

#[test]
fn what_is_open_while_readers_change_is_not_forgotten() {
    let s = Scratch::disk();
    let m = Mirror::start(&s);
    let mut python = Told::start(m.program("python3"));
    python.tell("f = open('long', 'wb', buffering=0); g = open('killed', 'wb', buffering=0); f.write(b'1'); g.write(b'1')");
    m.assert_same();
    m.live.signal(Signal::KILL);
    m.live.finish();
    python.tell("h = open('meanwhile', 'wb', buffering=0)");
    let m = Mirror::start(&s);
    m.assert_same();
    python.tell("f.write(b'2'); f.close()");
    m.catch_up();
    assert_eq!(fs::read_to_string(s.at("dst/long")).unwrap(), "12");
    // a file that was opened under a reader that is gone, by a process that does not close it
    python.tell("g.write(b'4'); h.write(b'3')");
    python.kill();
    m.assert_same();
    assert_eq!(fs::read_to_string(s.at("dst/killed")).unwrap(), "14");
    assert_eq!(fs::read_to_string(s.at("dst/meanwhile")).unwrap(), "3");
    m.stop();
}

#[test]
fn other_numbers_of_processes_do_no_harm() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: it needs root for a namespace of processes");
        return;
    }
    let s = Scratch::disk();
    let m = Mirror::start(&s);
    let script = "import os, sys\nf = os.open('ns' + sys.argv[1], os.O_WRONLY | os.O_CREAT); os.write(f, b'1')\n\
                  if os.fork() == 0:\n  os.write(f, b'2'); os.close(f); os._exit(0)\nos.wait(); os.write(f, b'3'); os.close(f)\n\
                  g = os.open('left' + sys.argv[1], os.O_WRONLY | os.O_CREAT); os.write(g, b'4')";
    fs::write(s.at("script.py"), script).unwrap();
    let script = s.at("script.py");
    let script = script.to_str().unwrap();
    m.sh(&format!("python3 {script} 0; unshare --pid --fork --mount-proc python3 {script} 1; unshare --pid --fork sh -c 'python3 {script} 2 > inside'"));
    m.assert_same();
    m.stop();
}
