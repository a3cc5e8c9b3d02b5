//! What a program could notice, and does not.

use crate::{Mirror, library};
use rustix::process::Signal;
use std::fs;
use std::process::Command;
use treeferry_tests::Scratch;

const C: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
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

static void *chooses(void *over) {
    long bad = 0;
    int free = 900;
    while (!__atomic_load_n((int *)over, __ATOMIC_SEQ_CST)) {
        if (dup2(0, free) != free || fcntl(free, F_GETFD) < 0 || close(free) != 0) bad++;
        int next = dup(0); if (next < 0 || dup2(0, next) != next || close(next) != 0) bad++;
    }
    return (void *)bad;
}
static void renames(int n) { rename("flags", "by-handler"); }

int main(int argc, char **argv) {
    if (argc > 1) {
        int flags = fcntl(1, F_GETFL);
        if (flags & O_NOFOLLOW) return 1;
        return open("/proc/self/fd/1", flags) < 0 ? 2 : 0;
    }
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
    /* what was added is not seen, also by who gets the descriptor by exec, and opens it anew as it is */
    a = open("flags", O_WRONLY | O_CREAT, 0600); MUST(!(fcntl(a, F_GETFL) & O_NOFOLLOW)); close(a);
    a = open("flags", O_WRONLY | O_NOFOLLOW); MUST(fcntl(a, F_GETFL) & O_NOFOLLOW); close(a);
    p = fork();
    if (p == 0) { dup2(open("inherited", O_WRONLY | O_CREAT, 0600), 1); execl(argv[0], argv[0], "flags", (char *)0); _exit(9); }
    waitpid(p, &st, 0); MUST(st == 0);
    /* no descriptor of the library gets in the way of another thread that chooses its own */
    { pthread_t u; int over = 0; pthread_create(&u, 0, chooses, &over);
      for (int i = 0; i < 20000; i++) { chmod("flags", 0600); rename("flags", "flags2"); rename("flags2", "flags"); }
      __atomic_store_n(&over, 1, __ATOMIC_SEQ_CST); void *bad; pthread_join(u, &bad); MUST(bad == 0); }
    /* a handler on a small stack */
    { stack_t small = {0}; small.ss_sp = malloc(8192); small.ss_size = 8192; MUST(sigaltstack(&small, 0) == 0);
      struct sigaction act = {0}; act.sa_handler = renames; act.sa_flags = SA_ONSTACK; sigaction(SIGUSR1, &act, 0);
      raise(SIGUSR1); MUST(access("by-handler", F_OK) == 0); }
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
    // of the thread that was cancelled in open(2) nobody can say whether it has made anything
    assert!(m.figure("resyncs") <= 1, "{:?}", m.status());
    m.live.signal(Signal::TERM);
    m.live.finish().expect(0);
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

/// Every function of the C library that finishes a write, or changes a name or metadata.
const FUNCTIONS: &str = "open open64 openat openat64 __open_2 __open64_2 __openat_2 __openat64_2 creat creat64 \
    mkstemp mkstemp64 mkostemp mkostemp64 mkstemps mkstemps64 mkostemps mkostemps64 mkdtemp \
    fopen fopen64 freopen freopen64 fclose fcloseall close closedir dup dup2 dup3 fcntl fcntl64 close_range closefrom \
    rename renameat renameat2 link linkat symlink symlinkat unlink unlinkat remove rmdir mkdir mkdirat \
    mknod mknodat __xmknod __xmknodat mkfifo mkfifoat bind chroot chdir fchdir mount umount umount2 \
    truncate truncate64 ftruncate ftruncate64 fallocate fallocate64 posix_fallocate posix_fallocate64 \
    sendfile sendfile64 copy_file_range \
    chmod fchmod fchmodat lchmod chown lchown fchown fchownat \
    utime utimes lutimes futimes futimesat utimensat futimens \
    setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr \
    fork _Fork vfork forkpty daemon unshare setns _exit _Exit quick_exit execve execveat fexecve execv execvp execvpe execl execlp execle";

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
