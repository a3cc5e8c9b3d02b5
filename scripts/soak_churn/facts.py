"""Facts: what a writer logs as true of SRC, as JSON, a line each; read again, and looked for in DST. Also the clock of it all.

A fact has a number `n`, a kind `k`, a path `p` (latin-1), a value `v` and the time `t` from which on it is true; a line
`{"e": n}` says that it is true no more. Facts of the kind "least" (a number that only grows) are not taken back.
"""
import json
import os
import time
from pathlib import Path


def now_us():
    return time.time_ns() // 1000


def last_number(path):
    """The last whole line that is a number; 0 if there is none."""
    try:
        lines = Path(os.fsdecode(path)).read_bytes().split(b"\n")[:-1]
    except OSError:
        return 0
    return next((int(line) for line in reversed(lines) if line), 0)


class Log:
    """What one life of a writer has logged."""

    def __init__(self, path, number):
        self.path, self.file, self.rest, self.number = path, open(path, "rb"), b"", number
        self.facts, self.proof = {}, (0, 0)
        self.proofs = []

    def read(self):
        *lines, self.rest = (self.rest + self.file.read()).split(b"\n")
        for line in lines:
            r = json.loads(line)
            if "e" in r:
                self.facts.pop(r["e"], None)
            elif r["k"] == "least":
                self.proofs.append(r)
            else:
                self.facts[r["n"]] = r

    def due(self, moment):
        """What was true before this moment and still is."""
        while len(self.proofs) > 1 and self.proofs[1]["t"] < moment:
            self.proofs.pop(0)
        return [r for r in [*self.proofs[:1], *self.facts.values()] if r["t"] < moment]

    def still(self, r):
        self.read()
        return r["k"] == "least" or r["n"] in self.facts


def bad(dst, r):
    """Why something that is true of SRC is not so in DST; None if it is."""
    path = os.path.join(os.fsencode(dst), r["p"].encode("latin-1"))
    kind, value = r["k"], r["v"]
    try:
        if kind == "gone":
            return "is there" if os.path.lexists(path) else None
        if kind == "least":
            n = last_number(path)
            return None if n >= value else f"is {n}"
        if kind == "dir":
            return None if os.path.isdir(path) else "is no directory"
        if kind == "link":
            found = os.readlink(path).decode(errors="replace")
        elif kind == "mode":
            found = os.lstat(path).st_mode & 0o7777
        elif kind == "mark":
            found = os.getxattr(path, "user.mark").decode()
        elif kind == "same":
            found = value
            a, b = os.lstat(path), os.lstat(os.path.join(os.fsencode(dst), value.encode("latin-1")))
            if (a.st_dev, a.st_ino) != (b.st_dev, b.st_ino):
                found = "another file"
        else:
            found = Path(os.fsdecode(path)).read_text(errors="replace")
    except OSError as e:
        return e.strerror
    return None if found == value else f"is {found!r}"
