"""Operations on names that all writers share (`do_*`).

The number before the colon of an operation's docstring says how often it is drawn. One that cannot be done now returns None.
"""
import ctypes
import os
import shutil
import signal
import socket
import struct
import time

from .facts import now_us

DIRS = [b"d0", b"d1", b"d2", b"d3", b"d\n\xff"]
FILES = [b"f0", b"f1", b"f2", b"f3", b"f4", b"f\xfe\xff", b"f\n5", b" -f*", "ä\\x".encode()]
OWNERS = [0, 12, 65534, 70000]


class Shared:
    """Part of a Writer, which has o, number, life, rng, src, outside and serial."""

    def __init__(self):
        self.libc = ctypes.CDLL(None, use_errno=True)
        self.held, self.out_there = [], []

    def dir(self):
        """A directory that was there a moment ago."""
        p = self.src
        for _ in range(self.rng.randrange(4)):
            below = os.path.join(p, self.rng.choice(DIRS))
            if not os.path.isdir(below):
                break
            p = below
        return p

    def file(self):
        return os.path.join(self.dir(), self.rng.choice(FILES))

    def any(self):
        p = self.dir()
        return p if p != self.src and self.rng.random() < 0.3 else os.path.join(p, self.rng.choice(FILES))

    def write(self, path, flags, text):
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | flags, 0o644)
        os.write(fd, text)
        os.close(fd)
        return path

    def bytes(self, most):
        return self.rng.randbytes(self.rng.randrange(most))

    def do_mkdir(self):
        "8"
        p = os.path.join(self.dir(), self.rng.choice(DIRS))
        os.mkdir(p)
        if self.rng.random() < 0.5:
            self.write(os.path.join(p, self.rng.choice(FILES)), os.O_CREAT, self.bytes(3000))
        return p

    def do_mkdirs(self):
        "3"
        p = os.path.join(self.dir(), *[self.rng.choice(DIRS) for _ in range(3)])
        if p.count(b"/") - self.src.count(b"/") > 6:
            return None
        os.makedirs(p, exist_ok=True)
        return self.write(os.path.join(p, self.rng.choice(FILES)), os.O_CREAT, self.bytes(3000))

    def do_rmdir(self):
        "3"
        p = os.path.join(self.dir(), self.rng.choice(DIRS))
        os.rmdir(p)
        return p

    def do_rmtree(self):
        "1"
        p = self.dir()
        if p == self.src or os.path.islink(p):
            return None
        shutil.rmtree(p, ignore_errors=True)
        return p

    def do_create(self):
        "12: or rewrite"
        return self.write(self.file(), os.O_CREAT | os.O_TRUNC, self.bytes(9000))

    def do_overwrite(self):
        "4: in place, the same size often"
        fd = os.open(p := self.file(), os.O_WRONLY | os.O_NONBLOCK)
        os.pwrite(fd, self.bytes(100), self.rng.randrange(100))
        os.close(fd)
        return p

    def do_append(self):
        "6"
        return self.write(self.file(), os.O_CREAT | os.O_APPEND, self.bytes(1000))

    def do_truncate(self):
        "4"
        p, size = self.file(), self.rng.randrange(9000)
        if self.rng.random() < 0.5:
            os.truncate(p, size)
        else:
            fd = os.open(p, os.O_WRONLY | os.O_NONBLOCK)
            os.ftruncate(fd, size)
            os.close(fd)
        return p

    def do_sparse(self):
        "2"
        fd = os.open(p := self.file(), os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o644)
        os.pwrite(fd, b"end", self.rng.randrange(1 << 20))
        os.close(fd)
        return p

    def do_rename(self):
        "10: often over another"
        a, b = self.file(), self.file()
        os.rename(a, b)
        return a, b

    def do_rename_dir(self):
        "4: also over an empty one"
        a, b = self.dir(), os.path.join(self.dir(), self.rng.choice(DIRS))
        if a == self.src:
            return None
        os.rename(a, b)
        if self.rng.random() < 0.3:
            self.write(os.path.join(b, self.rng.choice(FILES)), os.O_CREAT | os.O_TRUNC, self.bytes(500))
        return a, b

    def do_exchange(self):
        "2"
        a, b = self.any(), self.any()
        if self.src in (a, b):
            return None
        if self.libc.renameat2(-100, a, -100, b, 2) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), a, None, b)
        return a, b

    def do_replace(self):
        "8: a whole file by way of a temporary one, as editors do"
        p = self.file()
        t = os.path.join(os.path.dirname(p), b".%d.tmp" % self.number)
        self.write(t, os.O_CREAT | os.O_TRUNC, self.bytes(5000))
        os.rename(t, p)
        return p

    def do_link(self):
        "8"
        a, b = self.file(), self.file()
        os.link(a, b, follow_symlinks=False)
        return a, b

    def do_symlink(self):
        "5"
        p = self.file()
        to = self.rng.choice([b"", b"../"]) + self.rng.choice(FILES + DIRS)
        os.symlink(to, p)
        return p

    def do_symlink_dir(self):
        "1: paths go through it"
        p = os.path.join(self.dir(), self.rng.choice(DIRS))
        os.symlink(self.rng.choice([b"", b"../"]) + self.rng.choice(DIRS), p)
        return p

    def do_relink(self):
        "2: a symlink is replaced"
        p = self.file()
        t = os.path.join(os.path.dirname(p), b".%d.link" % self.number)
        os.symlink(self.rng.choice(FILES), t)
        os.rename(t, p)
        return p

    def do_chmod(self):
        "5"
        p = self.any()
        mode = 0o4755 if self.rng.random() < 0.1 else 0o600 + self.rng.randrange(64)
        os.chmod(p, mode if not os.path.isdir(p) else 0o700 + self.rng.randrange(64))
        return p

    def do_chown(self):
        "3"
        if os.geteuid() != 0:
            return None
        os.chown(p := self.any(), self.rng.choice(OWNERS), self.rng.choice(OWNERS), follow_symlinks=False)
        return p

    def do_times(self):
        "4"
        ns = self.rng.randrange(10**9, 10**18)
        os.utime(p := self.any(), ns=(ns, ns), follow_symlinks=False)
        return p

    def do_xattr(self):
        "4"
        p, name = self.any(), self.rng.choice(["user.k", "user.l"])
        if self.rng.random() < 0.3:
            os.removexattr(p, name)
        else:
            os.setxattr(p, name, b"%d" % self.rng.randrange(99))
        return p

    def do_acl(self):
        "1"
        p = self.any()
        kind = "default" if os.path.isdir(p) and self.rng.random() < 0.5 else "access"
        none, user, perm = 0xFFFFFFFF, self.rng.choice(OWNERS), self.rng.randrange(8)
        entries = [(1, 6, none), (2, perm, user), (4, 4, none), (16, perm, none), (32, 0, none)]
        os.setxattr(p, f"system.posix_acl_{kind}", struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries))
        return p

    def do_unlink(self):
        "10"
        os.unlink(p := self.file())
        return p

    def do_again(self):
        "3: removed and made anew at once"
        os.unlink(p := self.file())
        return self.write(p, os.O_CREAT | os.O_EXCL, self.bytes(500))

    def do_kind(self):
        "2: a directory where a file was, or the other way round"
        p = self.any()
        if p == self.src:
            return None
        if os.path.isdir(p) and not os.path.islink(p):
            shutil.rmtree(p, ignore_errors=True)
            return self.write(p, os.O_CREAT, self.bytes(300))
        os.unlink(p)
        os.mkdir(p)
        return p

    def do_fifo(self):
        "2"
        os.mkfifo(p := self.file(), 0o600)
        return p

    def do_socket(self):
        "1"
        p = self.file()
        with socket.socket(socket.AF_UNIX) as s:
            try:
                s.bind(p)
            except OSError as e:
                e.filename = p
                raise
        return p

    def do_nameless(self):
        "1: a file without a name gets one"
        p = self.file()
        fd = os.open(os.path.dirname(p), os.O_TMPFILE | os.O_WRONLY, 0o644)
        try:
            os.write(fd, self.bytes(500))
            os.link(b"/proc/self/fd/%d" % fd, p, src_dir_fd=0, follow_symlinks=True)
        finally:
            os.close(fd)
        return p

    def do_copy(self):
        "2: by the kernel"
        a, b = self.file(), self.file()
        r = os.open(a, os.O_RDONLY | os.O_NONBLOCK)
        try:
            w = os.open(b, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, 0o644)
            try:
                os.copy_file_range(r, w, 100_000)
            finally:
                os.close(w)
        finally:
            os.close(r)
        return a, b

    def do_hold(self):
        "10: a file stays open, and is written to now and then, whatever becomes of its names"
        if len(self.held) < 4:
            p = self.file()
            fd = os.open(p, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o644)
            self.held.append((fd, p))
        else:
            fd, p = self.rng.choice(self.held)
        if self.rng.random() < 0.3:
            self.held.remove((fd, p))
            os.close(fd)
            return "closed", p
        if self.rng.random() < 0.2:
            os.fchmod(fd, 0o600 + self.rng.randrange(64))
        elif self.rng.random() < 0.2:
            os.ftruncate(fd, self.rng.randrange(5000))
        else:
            os.write(fd, self.bytes(2000))
        return "written", p

    def do_slow(self):
        "2: a large file, piece by piece; sometimes it is the last thing that this process does"
        p = self.file()
        fd = os.open(p, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK, 0o644)
        pieces = self.rng.randrange(2, 12)
        dies = self.rng.randrange(pieces) if self.rng.random() < self.o.deaths else -1
        try:
            for n in range(pieces):
                os.write(fd, self.rng.randbytes(20_000))
                if n == dies:
                    os.write(2, f"{now_us()} {now_us()} do_slow dies {p}\n".encode())
                    os.kill(os.getpid(), signal.SIGKILL)
                time.sleep(self.rng.random() * 0.02)
        finally:
            os.close(fd)
        return p

    def do_out(self):
        "2: out of SRC"
        p = self.any()
        if p == self.src or len(self.out_there) > 4:
            return None
        self.serial += 1
        to = os.path.join(self.outside, b"%d-%d-%d" % (self.number, self.life, self.serial))
        os.rename(p, to)
        self.out_there.append(to)
        return p, to

    def do_in(self):
        "3: into SRC"
        if not self.out_there:
            return None
        a = self.out_there[0]
        is_dir = os.path.isdir(a) and not os.path.islink(a)
        b = os.path.join(self.dir(), self.rng.choice(DIRS)) if is_dir else self.file()
        os.rename(a, b)
        self.out_there.pop(0)
        return a, b
