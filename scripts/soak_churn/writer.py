"""A writer: a process of its own that changes SRC at random, so that libtreeferry_shim.so can be loaded into it.

`scripts/soak-churn write ...`, which is not among the options, is one. It logs facts on standard output and what it has
done on standard error, and may be killed at any moment; who comes in its place has its number and the next life.
"""
import argparse
import os
import random
import time

from .facts import now_us
from .own import Own
from .shared import Shared


class Writer(Own, Shared):
    def __init__(self, o):
        self.o, self.number, self.life = o, o.number, o.life
        self.rng = random.Random(f"{o.seed}/{o.number}/{o.life}")
        self.src, self.outside = os.fsencode(o.src), os.fsencode(o.outside)
        # of the names that it makes, in SRC and outside
        self.serial = 0
        Own.__init__(self)
        Shared.__init__(self)
        mine, shared = [], []
        for name in dir(self):
            part = name.partition("_")
            if part[0] in ("own", "do"):
                f = getattr(self, name)
                times = int(f.__doc__.partition(":")[0])
                (mine if part[0] == "own" else shared).extend([f] * times)
        self.mine, self.shared = mine, shared

    def run(self):
        done, until = 0, self.o.began + self.o.seconds
        while time.time() < until:
            # bursts, and on the average as many as there are to be
            for _ in range(self.rng.choice([1, 1, 1, 2, 4, 16])):
                self.step(self.rng.choice(self.mine if self.rng.random() < 0.2 or self.is_calm() else self.shared))
                done += 1
            rest = self.started + done / self.o.rate - time.time()
            if rest > 0:
                time.sleep(rest)
            elif rest < -1:
                # what the machine could not do is not made up for
                self.started -= rest
        for fd, _ in self.held:
            os.close(fd)

    def is_calm(self):
        o = self.o
        return o.calm > 0 and (time.time() - o.began) % o.calm_every > o.calm_every - o.calm

    def step(self, operation):
        began, what = now_us(), operation.__name__
        try:
            told = operation()
            result = "ok" if told is not None else "none"
        except OSError as e:
            # that many fail is in the nature of the thing
            told, result = [e.filename, e.filename2], e.strerror
        line = f"{began} {now_us()} {what} {result} {told if told is not None else ''}\n"
        os.write(2, line.encode(errors="backslashreplace"))


def write(words):
    parser = argparse.ArgumentParser()
    for name in ("src", "outside", "seed"):
        parser.add_argument(name)
    for name in ("number", "life"):
        parser.add_argument(name, type=int)
    for name in ("began", "seconds", "rate", "calm", "calm_every", "deaths"):
        parser.add_argument(name, type=float)
    w = Writer(parser.parse_args(words))
    w.started = time.time()
    w.run()
