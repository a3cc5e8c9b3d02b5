//! What programs seldom do, from C: each is followed all the same, and the program does not notice.

use crate::Mirror;
use rustix::process::Signal;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use treeferry_tests::Scratch;

/// `argv[1]` says what it does.
const C: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef LIBRARY
/* the thread that loads it holds a lock of the loader, and waits */
static void *changes(void *x) { chmod("changed", 0711); return 0; }
__attribute__((constructor)) static void begins(void) { pthread_t t; pthread_create(&t, 0, changes, 0); pthread_join(t, 0); }
#else
extern char **environ;
#define MUST(x) do { if (!(x)) { printf("line %d: %s (%s)\n", __LINE__, #x, strerror(errno)); exit(1); } } while (0)

static void write_all(int fd, const char *text) { MUST(write(fd, text, strlen(text)) == strlen(text)); }
/* waits for what the test says when the mirror has caught up */
static void wait_for_word(void) { char c; printf("ready\n"); fflush(stdout); MUST(read(0, &c, 1) == 1); }

static pthread_barrier_t both;
static int first_fd, delay;
static void *closes(void *x) {
    pthread_barrier_wait(&both);
    for (volatile int i = 0; i < delay; i++);
    close(first_fd);
    return 0;
}
/* the other threads of the process see it as a zombie */
static void *changes_alone(void *first) {
    pthread_join((pthread_t)first, 0);
    wait_for_word();
    MUST(fchmodat(first_fd, "f", 0600, 0) == 0); MUST(mkdirat(first_fd, "in/made", 0755) == 0);
    return 0;
}
static char from[2048], to[2048];
static int renamed = -2;
static void renames(int n) { renamed = rename(from, to); }

int main(int argc, char **argv) {
    const char *what = argv[1];
    int f;
    if (!strcmp(what, "creat")) {
        char path[4096];
        for (int i = 0; i < 5; i++) { sprintf(path, "%s/warm%d", argv[2], i); MUST((f = creat(path, 0644)) >= 0); close(f); }
        sprintf(path, "%s/link", argv[2]);
        MUST((f = creat(path, 0644)) >= 0); write_all(f, argv[2]); MUST(close(f) == 0);
    } else if (!strcmp(what, "deep")) {
        char name[201], deep[2048] = "", path[4096], here[2000]; int top;
        memset(name, 'l', 200); name[200] = 0;
        mkdir("target", 0755); close(creat("target/f", 0644)); close(creat("target/g", 0644));
        MUST(getcwd(here, sizeof here)); strcat(here, "/target"); MUST((top = open(".", O_RDONLY | O_DIRECTORY)) >= 0);
        for (int i = 0; i < 6; i++) { mkdir(name, 0755); MUST(chdir(name) == 0); strcat(deep, name); strcat(deep, "/"); }
        MUST(symlink(here, "way") == 0); MUST(fchdir(top) == 0); close(top);
        wait_for_word();
        sprintf(path, "%sway/f", deep); MUST(chmod(path, 0711) == 0);
        sprintf(path, "%sway/made", deep); MUST(mkdir(path, 0755) == 0);
        sprintf(path, "%sway/g", deep); MUST(unlink(path) == 0);
    } else if (!strcmp(what, "two threads")) {
        enum { FILES = 400 };
        char name[64]; int fds[FILES];
        pthread_barrier_init(&both, 0, 2);
        for (int i = 0; i < FILES; i++) {
            sprintf(name, "same%d", i); MUST((first_fd = open(name, O_CREAT | O_WRONLY, 0644)) >= 0); delay = i % 60 * 10;
            pthread_t t; pthread_create(&t, 0, closes, 0);
            pthread_barrier_wait(&both);
            MUST((fds[i] = open(name, O_WRONLY)) >= 0);
            pthread_join(t, 0);
        }
        wait_for_word();
        for (int i = 0; i < FILES; i++) write_all(fds[i], "late");
        kill(getpid(), SIGKILL);
    } else if (!strcmp(what, "asked")) {
        MUST((f = open("asked", O_CREAT | O_WRONLY | O_NOFOLLOW, 0644)) >= 0);
        MUST(dup2(999, f) == -1); MUST(fcntl(f, F_GETFL) & O_NOFOLLOW);
        wait_for_word(); /* there is another reader */
        MUST(ftruncate(f, 1) == 0); MUST(fcntl(f, F_GETFL) & O_NOFOLLOW);
        MUST(close(f) == 0); MUST(open("asked", O_WRONLY) == f); MUST(!(fcntl(f, F_GETFL) & O_NOFOLLOW));
    } else if (!strcmp(what, "close_range")) {
        MUST((f = open("range", O_CREAT | O_WRONLY, 0644)) >= 0);
        MUST(close_range(f, f, 0x80) == -1 && errno == EINVAL); MUST(close_range(f, f - 1, 0) == -1 && errno == EINVAL);
        wait_for_word();
        write_all(f, "late"); kill(getpid(), SIGKILL);
    } else if (!strcmp(what, "dup2")) {
        int n = atoi(argv[2]);
        struct rlimit r = {n + 1, n + 1}; MUST(setrlimit(RLIMIT_NOFILE, &r) == 0);
        MUST((f = open("high", O_CREAT | O_WRONLY, 0644)) >= 0); MUST(dup2(f, n) == n); close(f);
        wait_for_word();
        write_all(n, "late"); if (argc > 3) kill(getpid(), SIGKILL);
    } else if (!strcmp(what, "inherits")) {
        f = atoi(argv[2]);
        wait_for_word();
        write_all(f, "late"); if (argv[3][0] == 'k') kill(getpid(), SIGKILL);
    } else if (!strcmp(what, "spawns")) { /* which number, k(illed) or e(nds), whether the file is opened for it */
        int n = atoi(argv[2]); pid_t p; posix_spawn_file_actions_t does; char name[64];
        sprintf(name, "spawn%d%s%s", n, argv[3], argv[4]);
        char *words[] = {argv[0], "inherits", argv[2], argv[3], 0};
        posix_spawn_file_actions_init(&does);
        if (argv[4][0] == 'o') posix_spawn_file_actions_addopen(&does, n, name, O_CREAT | O_WRONLY, 0644);
        else { MUST((f = creat(name, 0644)) >= 0); if (f != n) { MUST(dup2(f, n) == n); close(f); } }
        MUST(posix_spawn(&p, argv[0], &does, 0, words, environ) == 0);
        close(n); waitpid(p, 0, 0);
    } else if (!strcmp(what, "gets a name")) {
        char path[64]; MUST((f = open(argc > 3 ? argv[3] : ".", O_TMPFILE | O_WRONLY, 0600)) >= 0);
        sprintf(path, "/proc/self/fd/%d", f); write_all(f, "1");
        if (strstr(argv[2], "empty")) MUST(linkat(f, "", AT_FDCWD, argv[2], AT_EMPTY_PATH) == 0);
        else MUST(linkat(AT_FDCWD, path, AT_FDCWD, argv[2], AT_SYMLINK_FOLLOW) == 0);
        wait_for_word();
        write_all(f, "late"); kill(getpid(), SIGKILL);
    } else if (!strcmp(what, "moves in")) {
        char path[4096]; sprintf(path, "%s/f", argv[2]);
        MUST((f = creat(path, 0644)) >= 0); write_all(f, "1"); MUST(rename(path, "moved in") == 0);
        wait_for_word();
        write_all(f, "late"); kill(getpid(), SIGKILL);
    } else if (!strcmp(what, "first thread ends")) {
        mkdir("dir", 0755); mkdir("dir/in", 0755); close(creat("dir/f", 0644));
        MUST((first_fd = open("dir", O_RDONLY | O_DIRECTORY)) >= 0);
        pthread_t t; pthread_create(&t, 0, changes_alone, (void *)pthread_self());
        pthread_exit(0);
    } else if (!strcmp(what, "direct")) {
        /* it is made all the same */
        MUST(open("direct", O_CREAT | O_WRONLY | O_DIRECT, 0644) == -1 && errno == EINVAL);
        MUST(open("direct2", O_CREAT | O_RDONLY | O_DIRECT, 0644) == -1 && errno == EINVAL);
        MUST(access("direct", F_OK) == 0 && access("direct2", F_OK) == 0);
    } else if (!strcmp(what, "bad addresses")) {
        char *bad = (char *)8;
        MUST(unlink(bad) == -1 && errno == EFAULT); MUST(rmdir(bad) == -1 && errno == EFAULT);
        MUST(rename(bad, "x") == -1 && errno == EFAULT); MUST(rename("x", bad) == -1);
        close(creat("is there", 0644)); MUST(rename("is there", bad) == -1 && errno == EFAULT);
        MUST(unlinkat(AT_FDCWD, bad, 0) == -1 && errno == EFAULT);
        MUST(open(bad, O_CREAT | O_WRONLY, 0644) == -1 && errno == EFAULT);
        MUST(open(bad, O_CREAT | O_WRONLY | O_DIRECTORY | O_DIRECT, 0644) == -1);
    } else if (!strcmp(what, "small stack")) {
        char d[201]; memset(d, 'p', 200); d[200] = 0;
        mkdir("real", 0755); MUST(symlink("real", "way") == 0);
        sprintf(from, "real/%s", d); mkdir(from, 0755); sprintf(from, "real/%s/%s", d, d); mkdir(from, 0755);
        sprintf(from, "way/%s/%s/f", d, d); sprintf(to, "way/%s/%s/g", d, d); close(creat(from, 0644));
        /* below it is nothing */
        char *m = mmap(0, 8192 + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); MUST(m != MAP_FAILED);
        mprotect(m, 4096, PROT_NONE);
        stack_t small = {0}; small.ss_sp = m + 4096; small.ss_size = 8192; MUST(sigaltstack(&small, 0) == 0);
        struct sigaction act = {0}; act.sa_handler = renames; act.sa_flags = SA_ONSTACK; sigaction(SIGUSR1, &act, 0);
        raise(SIGUSR1); MUST(renamed == 0);
    } else if (!strcmp(what, "load error")) {
        MUST(dlopen("/no/such/library.so", RTLD_NOW) == 0);
        MUST((f = open("made", O_CREAT | O_WRONLY, 0644)) >= 0); MUST(close(f) == 0); MUST(mkdir("dir", 0755) == 0);
        MUST(dlerror() != 0);
    } else if (!strcmp(what, "loads")) {
        alarm(20);
        MUST(dlopen(argv[2], RTLD_NOW) != 0);
    } else if (!strcmp(what, "two rings")) {
        close(creat("first", 0644)); close(creat("second", 0644));
        wait_for_word();
        for (int i = 0; i < 3; i++) {
            char name[64]; sprintf(name, "later%d", i); f = creat(name, 0644); write_all(f, "x"); close(f); mkdir("dir", 0755);
        }
    } else if (!strcmp(what, "little memory")) {
        FILE *s = fopen("/proc/self/statm", "r"); long pages; MUST(fscanf(s, "%ld", &pages) == 1); fclose(s);
        struct rlimit r = {(pages << 12) + (4 << 20), (pages << 12) + (4 << 20)}; MUST(setrlimit(RLIMIT_AS, &r) == 0);
        MUST(rename("was", "is") == 0);
        MUST((f = open("little", O_CREAT | O_WRONLY, 0644)) >= 0); write_all(f, "x"); MUST(close(f) == 0);
    }
    return 0;
}
#endif
"#;

/// A mirror, and that program.
struct Rare<'a> {
    m: Mirror<'a>,
    program: PathBuf,
}

impl<'a> Rare<'a> {
    fn start(s: &'a Scratch) -> Rare<'a> {
        Rare::of(s, Mirror::start(s))
    }

    fn of(s: &'a Scratch, m: Mirror<'a>) -> Rare<'a> {
        fs::write(s.at("t.c"), C).unwrap();
        let program = s.at("t");
        let t = Rare { m, program };
        t.build(&[], "t");
        t
    }

    fn build(&self, options: &[&str], name: &str) {
        let mut cc = Command::new("cc");
        cc.args(["-O2", "-w", "-pthread", "-o"]).arg(self.m.s.at(name)).args(options);
        let built = cc.arg(self.m.s.at("t.c")).arg("-ldl").output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut c = self.m.program(self.program.to_str().unwrap());
        c.args(words);
        c
    }

    /// Does something, and then all is the same.
    #[track_caller]
    fn does(&self, words: &[&str]) {
        let out = self.command(words).output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(out.status.success(), "{words:?}: {} {said}", out.status);
        assert_eq!(String::from_utf8_lossy(&out.stderr), "", "{words:?}");
        self.m.assert_same();
    }

    /// Does something, waits until the mirror has caught up, goes on, and then all is the same.
    #[track_caller]
    fn goes_on(&self, words: &[&str]) {
        eprintln!("{words:?}");
        let said = waits(&mut self.command(words), || self.m.assert_same());
        assert_eq!(said, "", "{words:?}");
        self.m.assert_same();
    }
}

/// Runs a program that waits for a word, which it gets when `meanwhile` is over; returns what it says then, however it ends.
fn waits(program: &mut Command, meanwhile: impl FnOnce()) -> String {
    let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut said = String::new();
    output.read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n");
    meanwhile();
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    said.clear();
    output.read_to_string(&mut said).unwrap();
    child.wait().unwrap();
    said
}

/// A file system that is mounted for a test.
struct Mounted(PathBuf);

impl Mounted {
    /// `None`: that takes root.
    fn on(s: &Scratch, kind: &str, place: &str) -> Option<Mounted> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not run: it needs root to mount");
            return None;
        }
        let at = s.at(place);
        fs::create_dir_all(&at).unwrap();
        let mounted = Command::new("mount").args(["-t", kind, "none"]).arg(&at).status().unwrap();
        assert!(mounted.success());
        Some(Mounted(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_file_is_made_by_a_symlink_with_creat() {
    let s = Scratch::disk();
    for dir in ["src/a", "src/b", "out"] {
        fs::create_dir_all(s.at(dir)).unwrap();
    }
    for (link, text) in [("src/a/link", "../b/target"), ("out/link", "../src/by-out")] {
        std::os::unix::fs::symlink(text, s.at(link)).unwrap();
    }
    let t = Rare::start(&s);
    t.does(&["creat", "a"]);
    t.does(&["creat", "../out"]);
    assert_eq!(fs::read_to_string(s.at("dst/by-out")).unwrap(), "../out");
    t.m.stop();
}

#[test]
fn a_symlink_below_a_path_that_is_too_long_for_a_record_is_followed() {
    let s = Scratch::disk();
    let t = Rare::start(&s);
    t.goes_on(&["deep"]);
    t.m.stop();
}

#[test]
fn a_file_that_one_thread_closes_while_another_opens_it_is_known_to_be_open() {
    let s = Scratch::disk();
    let t = Rare::start(&s);
    t.goes_on(&["two threads"]);
    t.m.stop();
}

#[test]
fn a_flag_that_was_asked_for_stays() {
    let s = Scratch::disk();
    let t = Rare::start(&s);
    let mut asked = t.command(&["asked"]);
    let mut second = None;
    let said = waits(&mut asked, || {
        t.m.live.signal(Signal::KILL);
        t.m.live.finish();
        second = Some(Mirror::start(&s));
    });
    assert_eq!(said, "");
    second.unwrap().assert_same();
}

#[test]
fn what_is_not_closed_is_not_told_as_closed() {
    let s = Scratch::disk();
    let t = Rare::start(&s);
    t.goes_on(&["close_range"]);
    t.m.stop();
}

#[test]
fn a_descriptor_of_a_high_number_is_told_when_the_program_ends() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: it needs root for more descriptors");
        return;
    }
    let s = Scratch::disk();
    let t = Rare::start(&s);
    t.goes_on(&["dup2", "5000"]);
    t.goes_on(&["dup2", "5000", "killed"]);
    t.m.stop();
}

#[test]
fn a_file_that_a_program_has_open_when_it_begins_is_known() {
    let s = Scratch::disk();
    let t = Rare::start(&s);
    for (number, ends, how) in [
        ("3", "killed", "inherited"),
        ("3", "killed", "opened"),
        ("20", "ends", "inherited"),
        ("20", "killed", "opened"),
    ] {
        t.goes_on(&["spawns", number, ends, how]);
    }
    t.m.stop();
}

#[test]
fn a_file_without_a_name_that_gets_one_is_known_to_be_open() {
    let s = Scratch::disk();
    fs::create_dir(s.at("src/else")).unwrap();
    fs::create_dir(s.at("src/made")).unwrap();
    let t = Rare::start(&s);
    t.goes_on(&["gets a name", "by-path"]);
    t.goes_on(&["gets a name", "empty"]);
    t.goes_on(&["gets a name", "else/where", "made"]);
    t.goes_on(&["gets a name", "else/empty", "made"]);
    t.m.stop();
}

#[test]
fn a_file_that_is_moved_in_while_it_is_open_is_known_to_be_open() {
    let s = Scratch::disk();
    fs::create_dir(s.at("outside")).unwrap();
    let t = Rare::start(&s);
    t.goes_on(&["moves in", s.at("outside").to_str().unwrap()]);
    t.m.stop();
}

#[test]
fn a_program_whose_first_thread_has_ended_is_followed() {
    let s = Scratch::disk();
    let t = Rare::start(&s);
    t.goes_on(&["first thread ends"]);
    t.m.stop();
}

#[test]
fn a_file_that_is_made_by_a_call_that_fails_arrives() {
    let s = Scratch::disk();
    let Some(_ramfs) = Mounted::on(&s, "ramfs", "src") else { return };
    let t = Rare::start(&s);
    t.does(&["direct"]);
    t.m.stop();
}

#[test]
fn addresses_that_are_none_are_refused_as_without_the_library() {
    let s = Scratch::disk();
    let t = Rare::start(&s);
    t.does(&["bad addresses"]);
    t.m.stop();
}

#[test]
fn a_handler_on_a_small_stack_renames_by_a_symlink() {
    let s = Scratch::disk();
    let t = Rare::start(&s);
    t.does(&["small stack"]);
    t.m.stop();
}

#[test]
fn a_program_that_has_no_room_to_map_the_ring_is_followed() {
    let s = Scratch::disk();
    fs::write(s.at("src/was"), "x").unwrap();
    let t = Rare::start(&s);
    t.does(&["little memory"]);
    t.m.live.signal(Signal::TERM);
    t.m.live.finish().expect(0);
}

#[test]
fn the_loader_is_not_asked_for_functions() {
    let s = Scratch::disk();
    fs::write(s.at("src/changed"), "x").unwrap();
    let t = Rare::start(&s);
    t.does(&["load error"]);
    t.build(&["-shared", "-fPIC", "-DLIBRARY"], "loaded.so");
    t.does(&["loads", s.at("loaded.so").to_str().unwrap()]);
    t.m.stop();
}

/// Both rings have the same number of an inode.
#[test]
fn a_ring_on_another_file_system_at_the_same_path_is_another() {
    let s = Scratch::disk();
    let ring = s.at("place/ring");
    let Some(first) = Mounted::on(&s, "tmpfs", "place") else { return };
    let t = Rare::of(&s, Mirror::of_ring(&s, ring.clone(), ""));
    let inode = fs::metadata(&ring).unwrap().ino();
    let mut program = t.command(&["two rings"]);
    let (mut second, mut mounted) = (None, None);
    let said = waits(program.env("TREEFERRY_SHIM", &ring), || {
        t.m.live.signal(Signal::KILL);
        t.m.live.finish();
        drop(first);
        mounted = Mounted::on(&s, "tmpfs", "place");
        second = Some(Mirror::of_ring(&s, ring.clone(), ""));
        assert_eq!(fs::metadata(&ring).unwrap().ino(), inode, "the test proves nothing");
    });
    assert_eq!(said, "");
    let second = second.unwrap();
    second.assert_same();
    second.stop();
}
