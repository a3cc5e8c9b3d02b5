//! What shells, Python and programs that are often there do.

use crate::{Mirror, each};
use std::fs;
use treeferry_tests::Scratch;

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
            (
                "special files",
                "mkfifo fifo; cat fifo > /dev/null & echo x > fifo; wait; if [ $(id -u) = 0 ]; then mknod dev c 1 3; fi",
            ),
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
fn rsync_git_setfacl_and_a_compiler_are_followed() {
    let s = Scratch::disk();
    let m = Mirror::start(&s);
    m.sh("mkdir from; for i in {1..30}; do echo $i > from/$i; done; chmod 640 from/7");
    m.sh("rsync -a from/ to/; echo more >> from/3; rm from/4; rsync -a --delete from/ to/");
    m.assert_same();
    m.sh("git init -q g; cd g; git config user.email a@b; git config user.name n; cp ../from/* .; git add .; \
          git commit -qm one; git checkout -q -b other; rm 5; echo x > 6; git commit -qam two; git checkout -q -; \
          git merge -q other; git gc -q");
    m.assert_same();
    m.sh("setfacl -m u:12:rw from/8");
    m.assert_same();
    m.sh("mkdir c; cd c; for i in a b c; do echo \"int $i(void) { return 1; }\" > $i.c; cc -c $i.c; done; \
          ar rc lib.a *.o; echo 'int a(void); int main(void) { return a() - 1; }' > m.c; cc -o m m.c lib.a; ./m");
    m.assert_same();
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
