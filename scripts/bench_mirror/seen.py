"""What is seen from outside: arrivals in DST, and what processes take."""
import ctypes
import os
import struct
import sys
import threading
import time
from pathlib import Path

CREATED, MOVED_TO, OVERFLOW = 0x100, 0x80, 0x4000
NEVER = float("inf")
libc = ctypes.CDLL(None, use_errno=True)


class Arrivals:
    """When names turned up in a directory: a thread of its own notes it as inotify tells."""

    def __init__(self, directory):
        self.fd = libc.inotify_init1(os.O_CLOEXEC)
        if self.fd < 0 or libc.inotify_add_watch(self.fd, os.fsencode(directory), CREATED | MOVED_TO) < 0:
            sys.exit(f"inotify: {os.strerror(ctypes.get_errno())}")
        self.at, self.lock, self.overflow = {}, threading.Lock(), False
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        while True:
            data = os.read(self.fd, 1 << 16)
            now, at = time.monotonic(), 0
            with self.lock:
                while at < len(data):
                    _, mask, _, length = struct.unpack_from("iIII", data, at)
                    self.overflow |= bool(mask & OVERFLOW)
                    self.at.setdefault(os.fsdecode(data[at + 16:at + 16 + length].rstrip(b"\0")), now)
                    at += 16 + length

    def of(self, name):
        """When it arrived; NEVER: it has not."""
        with self.lock:
            return self.at.get(name, NEVER)

    def wait(self, names, patience):
        """Waits for all of them, but no longer than `patience` seconds; returns how many have not arrived."""
        until, missing = time.monotonic() + patience, set(names)
        while True:
            with self.lock:
                missing = {n for n in missing if n not in self.at}
                if self.overflow:
                    sys.exit("more arrived at once than inotify can tell: fs.inotify.max_queued_events")
            if not missing or time.monotonic() > until:
                return len(missing)
            time.sleep(0.005 if len(missing) < 1000 else 0.1)


def until(what, patience):
    """Waits until `what()`; False: it was not so within `patience` seconds."""
    end = time.monotonic() + patience
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def files_below(directory):
    """How many there are."""
    count, todo = 0, [directory]
    while todo:
        try:
            with os.scandir(todo.pop()) as entries:
                for e in entries:
                    if e.is_dir(follow_symlinks=False):
                        todo.append(e.path)
                    else:
                        count += 1
        except OSError:
            continue
    return count


def processor_time(pids):
    """Of processes and all that are below them, in seconds."""
    used, parents = {}, {}
    for task in Path("/proc").glob("[0-9]*/stat"):
        try:
            rest = task.read_text().rsplit(")", 1)[1].split()
        except (OSError, IndexError):
            continue
        pid = int(task.parent.name)
        # with that of children that have been waited for
        used[pid], parents[pid] = sum(map(int, rest[11:15])), int(rest[1])

    def counts(pid):
        while pid in parents:
            if pid in pids:
                return True
            pid = parents[pid]
        return False

    return sum(ticks for pid, ticks in used.items() if counts(pid)) / os.sysconf("SC_CLK_TCK")


def thread_time(pid, name):
    """Of the threads of a process that are called so, in seconds."""
    ticks = 0
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            if (task / "comm").read_text().strip() == name:
                ticks += sum(map(int, (task / "stat").read_text().rsplit(")", 1)[1].split()[11:13]))
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_memory(pid):
    """Of a process, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return NEVER
