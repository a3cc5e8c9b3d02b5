"""Changes files as it is told, and says when: a process of its own, so that libtreeferry_shim.so can be loaded into it.

It is the same for all tools. An order is a line of JSON on standard input, its answer one on standard output. Times are of
CLOCK_MONOTONIC, which all processes of a machine share.
"""
import json
import os
import subprocess
import sys
import time


class Writer:
    """The side of who gives the orders."""

    def __init__(self, env=None):
        command = [sys.executable, os.path.realpath(__file__)]
        self.process = subprocess.Popen(command, env=dict(os.environ, **(env or {})), stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait()

    def order(self, **what):
        what = {k: str(v) if isinstance(v, os.PathLike) else v for k, v in what.items()}
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            sys.exit("the writer has ended")
        return json.loads(answer)

    def files(self, prefix, count, gap):
        """Writes so many files of 4 KiB, one each `gap` seconds; returns when each was closed, how many seconds each took to
        open, write and close, and when the first was begun and the last was closed."""
        prefix = str(prefix)
        told = self.order(do="files", prefix=prefix, count=count, gap=gap)
        name = os.path.basename(prefix)
        closed = {f"{name}{n}": at for n, at in enumerate(told["closed"])}
        took = [end - begin for begin, end in zip(told["opened"], told["closed"])]
        return closed, took, told["began"], told["closed"][-1]

    def mkdir(self, path):
        return self.order(do="mkdir", path=path)["at"]

    def rename(self, path, to):
        """When it was begun."""
        return self.order(do="rename", path=path, to=to)["at"]


def files(prefix, count, gap):
    content, opened, closed = os.urandom(4096), [], []
    began = time.monotonic()
    for n in range(count):
        ahead = began + n * gap - time.monotonic()
        if ahead > 0.001:
            time.sleep(ahead)
        path = f"{prefix}{n}"
        opened.append(time.monotonic())
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(fd, content)
        os.close(fd)
        closed.append(time.monotonic())
    return {"began": began, "opened": opened, "closed": closed}


def obey(order):
    what = order.pop("do")
    if what == "files":
        return files(**order)
    at = time.monotonic()
    if what == "mkdir":
        os.mkdir(order["path"])
    else:
        os.rename(order["path"], order["to"])
    return {"at": at}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(obey(json.loads(line))), flush=True)
