//! Mirrors of what programs do into which the library is loaded: whatever they do and however they end, DST is soon like
//! SRC; and they do not notice.
//!
//! Nothing in SRC is changed by the test itself, which has no such library.

use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};
use treeferry_ring::{Ring, bytes_for};
use treeferry_tests::{Live, PATIENCE, Run, Scratch, command};

/// The library, built as it is for use.
fn library() -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/build-shim");
        let out = Command::new(script).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        PathBuf::from(String::from_utf8(out.stdout).unwrap().trim())
    })
}

fn now_us() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64
}

struct Mirror<'a> {
    s: &'a Scratch,
    live: Live,
}

impl<'a> Mirror<'a> {
    fn start(s: &'a Scratch) -> Mirror<'a> {
        fs::create_dir_all(s.at("run")).unwrap();
        fs::create_dir_all(s.at("src")).unwrap();
        let mut c = command(["watch", "--json", "--detect", "shim", "--ring"]);
        c.arg(s.at("ring")).env("TREEFERRY_RUNTIME_DIR", s.at("run")).args(s.words(""));
        let m = Mirror { s, live: Live::of(&mut c) };
        m.catch_up();
        m
    }

    fn status(&self) -> Option<Value> {
        let mut c = command(["status", "--json"]);
        let r = Run::of(c.env("TREEFERRY_RUNTIME_DIR", self.s.at("run")));
        Some(r.json["jobs"][0]["mirror"].clone()).filter(Value::is_object)
    }

    fn figure(&self, key: &str) -> u64 {
        self.status().and_then(|m| m[key].as_u64()).unwrap_or(0)
    }

    #[track_caller]
    fn catch_up(&self) {
        let (now, began) = (now_us(), Instant::now());
        while self.figure("complete_up_to_us") <= now || self.figure("failing") > 0 {
            assert!(began.elapsed() < PATIENCE, "the mirror does not catch up: {:#?}", self.status());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[track_caller]
    fn assert_same(&self) {
        self.catch_up();
        self.s.assert_same();
    }

    /// A program with the library, in SRC.
    fn program(&self, name: &str) -> Command {
        let mut c = Command::new(name);
        c.current_dir(self.s.at("src")).env("LD_PRELOAD", library()).env("TREEFERRY_SHIM", self.s.at("ring"));
        c
    }

    #[track_caller]
    fn run(&self, name: &str, words: &[&str]) -> Output {
        self.program(name).args(words).output().unwrap()
    }

    #[track_caller]
    fn sh(&self, script: &str) {
        let out = self.run("bash", &["-ec", script]);
        assert!(out.status.success(), "{script}: {}", String::from_utf8_lossy(&out.stderr));
        assert_eq!(String::from_utf8_lossy(&out.stderr), "", "{script}");
    }

    #[track_caller]
    fn stop(self) {
        assert_eq!(self.figure("resyncs"), 0, "something was missed, and all was walked again");
        self.live.signal(Signal::TERM);
        self.live.finish().expect(0);
    }
}

/// Runs scripts one after the other, each in a mirror that is the same before and after it.
fn each(program: &str, option: &str, steps: &[(&str, &str)]) {
    let s = Scratch::disk();
    let m = Mirror::start(&s);
    for (what, script) in steps {
        eprintln!("{what}");
        let out = m.run(program, &[option, script]);
        assert_eq!(String::from_utf8_lossy(&out.stderr), "", "{what}");
        assert!(out.status.success(), "{what}: {}", out.status);
        m.assert_same();
    }
    m.stop();
}

#[test]
fn what_shells_and_their_programs_do_arrives() {
    each(
        "bash",
        "-ec",
        &[
            ("a builtin that is redirected, standard output a pipe", "echo a > a; echo b >> a"),
            ("to null", "exec > /dev/null; echo a > a2; { echo b; echo c; } > b"),
            ("to a file", "exec > ../log; echo a > a3; for i in 1 2 3; do echo $i >> c; done"),
            ("to a file that is mirrored", "exec > log; echo one; /bin/echo two; echo three > a4"),
            ("a descriptor that stays open", "exec 3> d; echo x >&3; /bin/echo y >&3; exec 3>&-"),
            ("and one until the shell ends", "exec 7> d7; echo x >&7; /bin/echo y >&7"),
            ("programs, one after the other", "for i in {1..50}; do /bin/echo $i >> F; done"),
            ("a pipe", "seq 1000 | sort -R | tee t1 > t2"),
            ("cp", "mkdir -p dir/sub; cp a dir; cp -a dir dir2; cp --reflink=never c dir/sub/c"),
            ("mv", "mv a2 a3 dir; mv dir2 dir/sub; mv b b2; mkdir n; mv -T n n2"),
            (
                "install",
                "install -m 640 c installed; install -d -m 750 newdir; install -D -m 600 c deep/er/c",
            ),
            ("ln", "ln a hard; ln -s a soft; ln -sf c soft; ln -sf b2 soft; ln -f c hard"),
            (
                "modes and times",
                "chmod 600 a; chmod 711 dir; touch -d 2001-02-03 a dir; touch -h -d 2002-02-02 soft",
            ),
            ("owners", "if [ $(id -u) = 0 ]; then chown 12:34 a; chown -h 56:78 soft; chgrp 9 dir; fi"),
            ("special files", "mkfifo fifo; if [ $(id -u) = 0 ]; then mknod dev c 1 3; fi"),
            ("sizes", "truncate -s 5000 a; truncate -s 3 F; fallocate -l 10000 room"),
            (
                "a link in the way",
                "ln -s dir way; echo x > way/through; mkdir way/made; mv way/through way/sub/x; \
              chmod 600 way/sub/x; rm way/a2; rmdir way/made; touch way/../up",
            ),
            ("removal", "rm -rf deep; rm hard soft; rmdir n2; rm -r dir/sub"),
            ("sed in place", "sed -i s/1/one/ c; sed -i.bak s/2/two/ c"),
            ("tar", "tar cf t.tar dir c; mkdir x; tar xpf t.tar -C x; rm t.tar"),
            (
                "a directory that is renamed and written at once",
                "mkdir r; echo 1 > r/f; mv r r2; echo 2 > r2/f; mv r2 r; \
              echo 3 > r/g",
            ),
        ],
    );
}

#[test]
fn programs_that_are_often_there_are_followed() {
    let s = Scratch::disk();
    let m = Mirror::start(&s);
    let has = |name: &str| Command::new(name).arg("--version").output().is_ok();
    m.sh("mkdir from; for i in {1..30}; do echo $i > from/$i; done; chmod 640 from/7");
    if has("rsync") {
        m.sh("rsync -a from/ to/; echo more >> from/3; rm from/4; rsync -a --delete from/ to/");
        m.assert_same();
    }
    if has("git") {
        m.sh("git init -q g; cd g; git config user.email a@b; git config user.name n; cp ../from/* .; git add .; \
              git commit -qm one; git checkout -q -b other; rm 5; echo x > 6; git commit -qam two; git checkout -q -; \
              git merge -q other; git gc -q");
        m.assert_same();
    }
    if has("setfacl") {
        m.sh("setfacl -m u:12:rw from/8");
        m.assert_same();
    }
    if has("cc") {
        m.sh("mkdir c; cd c; for i in a b c; do echo \"int $i(void) { return 1; }\" > $i.c; cc -c $i.c; done; \
              ar rc lib.a *.o; echo 'int a(void); int main(void) { return a() - 1; }' > m.c; cc -o m m.c lib.a; ./m");
        m.assert_same();
    }
    m.stop();
}

#[test]
fn what_a_python_program_does_arrives() {
    each(
        "python3",
        "-c",
        &[
            ("write and append", "open('a', 'w').write('x' * 100)\nwith open('a', 'a') as f: f.write('y')"),
            (
                "truncate",
                "import os\nos.truncate('a', 10)\nf = os.open('a', os.O_RDWR); os.ftruncate(f, 5); os.close(f)",
            ),
            ("left open, buffered, at the end", "f = open('left', 'w'); f.write('z')"),
            (
                "by a directory's descriptor",
                "import os\nos.mkdir('d'); d = os.open('d', os.O_RDONLY)\n\
              f = os.open('in', os.O_WRONLY | os.O_CREAT, dir_fd=d); os.write(f, b'1'); os.close(f)\n\
              os.rename('in', 'in2', src_dir_fd=d, dst_dir_fd=d); os.mkdir('e', dir_fd=d)\n\
              os.symlink('t', 's', dir_fd=d); os.link('in2', 'in3', src_dir_fd=d, dst_dir_fd=d)\n\
              os.chmod('in2', 0o600, dir_fd=d); os.utime('in2', (5, 6), dir_fd=d); os.mkfifo('p', dir_fd=d)\n\
              os.unlink('in3', dir_fd=d); os.rmdir('e', dir_fd=d)",
            ),
            (
                "metadata",
                "import os\nos.setxattr('a', 'user.k', b'v'); os.setxattr('d', 'user.k', b'w')\n\
              f = os.open('a', os.O_RDONLY); os.fchmod(f, 0o604); os.utime(f, (7, 8)); os.setxattr(f, 'user.l', b'x')\n\
              os.removexattr('a', 'user.k')",
            ),
            (
                "dup2 over an open file",
                "import os\na = os.open('x1', os.O_WRONLY | os.O_CREAT); b = os.open('x2', os.O_WRONLY | os.O_CREAT)\n\
              os.write(a, b'1'); os.dup2(b, a); os.write(a, b'2'); os.closerange(0, 100)",
            ),
            (
                "a temporary file that is renamed",
                "import os, tempfile\nf, n = tempfile.mkstemp(dir='.'); os.write(f, b't'); os.close(f); os.rename(n, 'final')\n\
              d = tempfile.mkdtemp(dir='.'); os.rename(d, 'finaldir')",
            ),
            (
                "copies by the kernel",
                "import os, shutil\nopen('big', 'wb').write(os.urandom(300000)); shutil.copyfile('big', 'big2')\n\
              a = os.open('big', os.O_RDONLY); b = os.open('big3', os.O_WRONLY | os.O_CREAT); os.copy_file_range(a, b, 200000); os.close(b)",
            ),
            (
                "names of every byte",
                "import os\nfor b in range(1, 256):\n  if b != 47:\n    n = b'n' + bytes([b]) + b'.'; os.mkdir(b'd' + n)\n    \
              f = os.open(b'd' + n + b'/' + n, os.O_WRONLY | os.O_CREAT); os.write(f, n); os.close(f)",
            ),
            (
                "a name that looks as if it was deleted",
                "open('x (deleted)', 'w').write('1'); f = open('gone', 'w'); import os; os.unlink('gone'); f.write('2'); f.close()",
            ),
            (
                "long paths",
                "import os\np = '/'.join(['l' * 200] * 15)\nos.makedirs(p); open(p + '/f', 'w').write('deep'); os.rename(p + '/f', p + '/g')",
            ),
            (
                "sqlite",
                "import sqlite3\nc = sqlite3.connect('db'); c.execute('create table t (a)')\n\
              for i in range(50): c.execute('insert into t values (?)', (i,))\nc.commit(); c.execute('pragma journal_mode=wal'); c.execute('delete from t where a < 9'); c.commit(); c.close()",
            ),
        ],
    );
}

#[test]
fn threads_and_processes_arrive() {
    let s = Scratch::disk();
    let m = Mirror::start(&s);
    for n in [1, 2, 8] {
        let script = format!(
            "import threading\ndef w(t):\n  for i in range(100):\n    open(f't{n}-{{t}}-{{i}}', 'w').write(str(i))\n\
             ts = [threading.Thread(target=w, args=(t,)) for t in range({n})]\n[t.start() for t in ts]; [t.join() for t in ts]"
        );
        assert!(m.run("python3", &["-c", &script]).status.success());
        m.assert_same();
        assert_eq!(
            fs::read_dir(s.at("dst")).unwrap().count(),
            [100, 300, 1100][[1, 2, 8].iter().position(|k| *k == n).unwrap()]
        );
    }
    let forks = "import os\nopen('first', 'w').write('1')\nh = open('both', 'w')\nfor c in range(6):\n  if os.fork() == 0:\n    \
                 for i in range(20): open(f'c{c}-{i}', 'w').write('x')\n    h.write(str(c)); h.flush()\n    os._exit(0)\n\
                 for c in range(6): os.wait()";
    assert!(m.run("python3", &["-c", forks]).status.success());
    m.assert_same();
    m.stop();
}

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

const C: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int cleaned;
static void clean(void *x) { cleaned = 1; }
static void *blocks(void *x) {
    pthread_cleanup_push(clean, 0);
    int fd = open("blocks", O_WRONLY); /* a FIFO that nobody reads */
    if (fd >= 0) close(fd);
    pthread_cleanup_pop(0);
    return 0;
}
#define MUST(x) do { if (!(x)) { printf("line %d: %s (%s)\n", __LINE__, #x, strerror(errno)); exit(1); } } while (0)

int main(int argc, char **argv) {
    FILE *f = fopen("fclose", "w"); fputs("x", f); MUST(fclose(f) == 0);
    f = fopen("freopen1", "w"); fputs("1", f); f = freopen("freopen2", "w", f); fputs("2", f); MUST(fclose(f) == 0);
    int a = open("range1", O_WRONLY | O_CREAT, 0640), b = open("range2", O_WRONLY | O_CREAT, 0604);
    write(a, "1", 1); write(b, "2", 1);
    MUST(syscall(SYS_close_range, 1000, 1001, 0) == 0 || errno == ENOSYS);
    MUST(close_range(a, b, 0) == 0);
    MUST(fcntl(a, F_GETFD) < 0);
    struct stat s;
    MUST(stat("range1", &s) == 0 && (s.st_mode & 07777) == 0640);
    /* errno is what it was, or what the call says */
    errno = 77; a = open("errno", O_WRONLY | O_CREAT, 0600); MUST(errno == 77);
    errno = 77; MUST(close(a) == 0 && errno == 77);
    MUST(close(a) == -1 && errno == EBADF);
    MUST(rename("nowhere", "there") == -1 && errno == ENOENT);
    MUST(open("no/such/dir", O_WRONLY | O_CREAT, 0600) == -1 && errno == ENOENT);
    errno = 77; MUST(rename("errno", "errno2") == 0 && errno == 77);
    /* names that are exchanged */
    mkdir("ex1", 0755); f = fopen("ex1/f", "w"); fputs("1", f); fclose(f);
    f = fopen("ex2", "w"); fputs("2", f); fclose(f);
    MUST(renameat2(AT_FDCWD, "ex1", AT_FDCWD, "ex2", RENAME_EXCHANGE) == 0);
    /* a file without a name that gets one */
    a = open(".", O_TMPFILE | O_WRONLY, 0600);
    if (a >= 0) {
        char p[64]; sprintf(p, "/proc/self/fd/%d", a);
        write(a, "t", 1); MUST(linkat(AT_FDCWD, p, AT_FDCWD, "named", AT_SYMLINK_FOLLOW) == 0);
        write(a, "u", 1); close(a);
    }
    /* many descriptors, of which a high one is left open */
    a = open("high", O_WRONLY | O_CREAT, 0600); MUST(dup2(a, 300) == 300); write(300, "h", 1); close(a); write(300, "i", 1);
    /* vfork, and exec that fails and one that does not, in both ways */
    pid_t p = vfork();
    if (p == 0) { execl("/no/such", "x", (char *)0); execlp("sh", "sh", "-c", "echo $1$2$3$4$5$6$7$8 > execl", "sh",
        "1", "2", "3", "4", "5", "6", "7", "8", (char *)0); _exit(9); }
    int st; waitpid(p, &st, 0); MUST(st == 0);
    p = fork();
    if (p == 0) { char *e[] = {getenv("LD_PRELOAD") - 11, getenv("TREEFERRY_SHIM") - 15, 0};
        execle("/bin/sh", "sh", "-c", "echo $0 $# > execle", "a", "b", (char *)0, e); _exit(9); }
    waitpid(p, &st, 0); MUST(st == 0);
    /* a thread is cancelled where it waits for open */
    MUST(mkfifo("blocks", 0600) == 0);
    pthread_t t; pthread_create(&t, 0, blocks, 0);
    struct timespec ms = {0, 50000000}; nanosleep(&ms, 0);
    pthread_cancel(t); void *r; pthread_join(t, &r);
    MUST(r == PTHREAD_CANCELED && cleaned);
    printf("done"); /* flushed by exit */
    return 42;
}
"#;

#[test]
fn a_c_program_is_followed_and_does_not_notice() {
    let s = Scratch::disk();
    let m = Mirror::start(&s);
    fs::write(s.at("t.c"), C).unwrap();
    let built = Command::new("cc")
        .args(["-O2", "-w", "-pthread", "-o"])
        .arg(s.at("t"))
        .arg(s.at("t.c"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let out = m.program(s.at("t").to_str().unwrap()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "done");
    assert_eq!(out.status.code(), Some(42));
    assert!(out.stderr.is_empty());
    m.assert_same();
    for (name, content) in
        [("execl", "12345678\n"), ("execle", "a 1\n"), ("high", "hi"), ("freopen1", "1"), ("ex1", "2")]
    {
        assert_eq!(fs::read_to_string(s.at("dst").join(name)).unwrap(), content, "{name}");
    }
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
fn with_and_without_the_library_programs_do_the_same() {
    let s = Scratch::disk();
    fs::create_dir(s.at("still")).unwrap();
    fs::write(s.at("still/file"), "x").unwrap();
    std::os::unix::fs::symlink("nowhere", s.at("still/link")).unwrap();
    let m = Mirror::start(&s);
    for (name, words) in [
        // nothing here may change by itself, as times of /tmp do while other tests run
        ("bash", &["-c", "ls -la ../still; cat /no/such/file; echo $RANDOM > /dev/null; exit 7"][..]),
        ("bash", &["-c", "kill -TERM $$"]),
        (
            "python3",
            &[
                "-c",
                "import random, os, sys; random.seed(1); print(random.random(), sorted(os.listdir('/proc/self/fd')), file=sys.stderr)",
            ],
        ),
        ("sh", &["-c", "exec 3>&1; ls /proc/self/fd; ulimit -n 8; echo x | cat"]),
    ] {
        let with = m.run(name, words);
        let without = Command::new(name).args(words).current_dir(s.at("src")).output().unwrap();
        assert_eq!(with.status, without.status, "{words:?}");
        assert_eq!(
            String::from_utf8_lossy(&with.stderr),
            String::from_utf8_lossy(&without.stderr),
            "{words:?}"
        );
        assert_eq!(
            String::from_utf8_lossy(&with.stdout),
            String::from_utf8_lossy(&without.stdout),
            "{words:?}"
        );
    }
    // nor where there is no ring, or nonsense in its place
    fs::write(s.at("nonsense"), vec![7; 300_000]).unwrap();
    for ring in ["/no/such/ring", "/dev/null", "/", "relative", s.at("nonsense").to_str().unwrap()] {
        let mut c = m.program("sh");
        let out = c
            .env("TREEFERRY_SHIM", ring)
            .args(["-c", "echo x > ../elsewhere; rm ../elsewhere; echo y"])
            .output()
            .unwrap();
        assert_eq!((out.stdout.as_slice(), out.stderr.as_slice()), (&b"y\n"[..], &b""[..]), "{ring}");
        assert!(out.status.success(), "{ring}");
    }
    m.assert_same();
    m.stop();
}

/// A ring of few slots, as nobody would want one.
fn small_ring(s: &Scratch) {
    let words: Vec<AtomicU64> = (0..bytes_for(64) / 8).map(|_| AtomicU64::new(0)).collect();
    let numbers = rustix::fs::stat("/proc/self/ns/pid").unwrap().st_ino;
    Ring::format(&words, 1, numbers).unwrap();
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.load(Relaxed).to_le_bytes()).collect();
    fs::write(s.at("ring"), bytes).unwrap();
}

#[test]
fn what_has_no_room_is_known_to_be_missed_and_looked_for() {
    let s = Scratch::disk();
    small_ring(&s);
    let m = Mirror::start(&s);
    m.sh("echo 1 > before");
    m.assert_same();
    m.live.freeze();
    m.sh("for i in {1..100}; do echo $i > f$i; done; mkdir -p d/e; echo x > d/e/f");
    m.live.thaw();
    m.assert_same();
    assert!(m.figure("resyncs") > 0, "nothing was missed: the test has proven nothing");
    m.sh("echo 2 > d/after");
    m.assert_same();
    m.live.signal(Signal::TERM);
    m.live.finish().expect(0);
}

#[test]
fn a_watch_that_is_killed_finds_what_was_told_meanwhile_in_the_ring() {
    let s = Scratch::disk();
    let m = Mirror::start(&s);
    m.sh("echo 1 > a");
    m.assert_same();
    let mut writer = m.program("bash");
    m.live.signal(Signal::KILL);
    m.live.finish();
    let out = writer.args(["-c", "echo 2 > a; echo 3 > b; mkdir d; echo 4 > d/f"]).output().unwrap();
    assert!(out.status.success());
    let m = Mirror::start(&s);
    m.assert_same();
    assert!(m.figure("signs") >= 4, "what is in the ring was not read: {:?}", m.status());
    m.sh("echo 5 > a");
    m.assert_same();
    m.stop();
}

#[test]
fn a_ring_that_is_removed_or_broken_is_made_anew() {
    let s = Scratch::disk();
    fs::write(s.at("ring"), "no ring").unwrap();
    let m = Mirror::start(&s);
    // a shell that has the old one mapped, and goes on
    let script = "echo 1 > a; read x; echo 2 > a; read x; echo 3 > b";
    let piped = std::process::Stdio::piped;
    let mut shell = m.program("bash").args(["-c", script]).stdin(piped()).spawn().unwrap();
    let mut input = shell.stdin.take().unwrap();
    let began = Instant::now();
    while !s.at("dst/a").exists() {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(10));
    }
    let before = m.figure("resyncs");
    fs::remove_file(s.at("ring")).unwrap();
    while !s.at("ring").exists() || m.figure("resyncs") == before {
        assert!(began.elapsed() < PATIENCE, "{:?}", m.status());
        std::thread::sleep(Duration::from_millis(10));
    }
    use std::io::Write;
    input.write_all(b"\n\n").unwrap();
    assert!(shell.wait().unwrap().success());
    m.assert_same();
    m.live.signal(Signal::TERM);
    m.live.finish().expect(0);
}

#[test]
fn only_a_ring_of_ours_is_read_and_by_one_process() {
    let s = Scratch::disk();
    fs::create_dir_all(s.at("src")).unwrap();
    let m = Mirror::start(&s);
    let refused = |ring: PathBuf, why: &str| {
        let mut c = command(["watch", "--detect", "shim", "--ring"]);
        c.arg(ring).arg(s.at("src")).arg(s.at("other")).env("TREEFERRY_RUNTIME_DIR", s.at("run"));
        let out = c.output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && said.contains(why), "{why}: {said}");
    };
    refused(s.at("ring"), "another process reads it");
    std::os::unix::fs::symlink(s.at("nowhere"), s.at("link")).unwrap();
    refused(s.at("link"), "it is a symlink");
    assert!(!s.at("nowhere").exists());
    refused(s.at("src"), "");
    m.stop();
}

/// Every function of the C library that finishes a write, or changes a name or metadata.
const FUNCTIONS: &str = "open open64 openat openat64 __open_2 __open64_2 __openat_2 __openat64_2 creat creat64 \
    mkstemp mkstemp64 mkostemp mkostemp64 mkstemps mkstemps64 mkostemps mkostemps64 mkdtemp \
    fopen fopen64 freopen freopen64 fclose fcloseall close dup2 dup3 close_range closefrom \
    rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat remove rmdir mkdir mkdirat \
    mknod mknodat __xmknod __xmknodat mkfifo mkfifoat bind \
    truncate truncate64 ftruncate ftruncate64 fallocate fallocate64 posix_fallocate posix_fallocate64 \
    sendfile sendfile64 copy_file_range \
    chmod fchmod fchmodat lchmod chown lchown fchown fchownat \
    utime utimes lutimes futimes futimesat utimensat futimens \
    setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr \
    fork _exit _Exit quick_exit execve execveat fexecve execv execvp execvpe execl execlp execle";

#[test]
fn the_library_stands_in_for_all_that_it_should_and_for_nothing_else() {
    let out = Command::new("readelf").args(["-W", "--dyn-syms"]).arg(library()).output().unwrap();
    assert!(out.status.success());
    let text = String::from_utf8(out.stdout).unwrap();
    // number, value, size, type, binding, visibility, section, name
    let mut has: Vec<&str> = text
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>())
        .filter(|w| w.len() == 8 && w[3] == "FUNC" && w[6] != "UND")
        .map(|w| w[7])
        .collect();
    let mut wants: Vec<&str> = FUNCTIONS.split_whitespace().collect();
    has.sort_unstable();
    wants.sort_unstable();
    assert_eq!(has, wants);
    let out = Command::new("readelf").arg("-d").arg(library()).output().unwrap();
    let needed = String::from_utf8(out.stdout).unwrap();
    let needed: Vec<_> = needed.lines().filter(|l| l.contains("(NEEDED)")).collect();
    assert!(needed.len() == 1 && needed[0].contains("[libc.so.6]"), "{needed:?}");
}
