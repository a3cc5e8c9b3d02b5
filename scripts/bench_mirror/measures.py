"""What is measured of a tool that runs. Each takes the tool, the directory of the round, the writer and the options, and puts
figures into a table. A figure is NEVER where something has not arrived within the tool's patience; of treeferry that is a
fault, and ends it all.
"""
import os
import shutil
import subprocess
import sys
import time

from . import seen
from .seen import NEVER, Arrivals, until
from .tools import Treeferry
from .writer import Writer

# Tools that ask again and again may ask less often while nothing happens.
PAUSE_S = 5
# For the old name of a renamed directory to go, after its last file.
GONE_S = 30


def part(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))]


def spread(tool, closed, arrivals, figures, prefix):
    """Waits for what was closed, and says how long it took."""
    missing = arrivals.wait(closed, tool.patience)
    if missing and tool.exact:
        sys.exit(f"{tool.name}: {missing} of {len(closed)} files have not arrived within {tool.patience} s")
    took = [(arrivals.of(n) - at) * 1000 for n, at in closed.items()]
    figures[f"{prefix} p50 (ms)"], figures[f"{prefix} p99 (ms)"] = part(took, 0.5), part(took, 0.99)
    figures[f"{prefix} max (ms)"] = max(took)
    if not tool.exact:
        figures[f"{prefix} not arrived within {tool.patience:g} s (files)"] = missing


class Meter:
    """Processor time of a tool and its servers from now on."""

    def __init__(self, tool):
        self.tool, self.began, self.before = tool, time.monotonic(), tool.used()

    def read(self, figures, prefix):
        seconds = time.monotonic() - self.began
        own, servers = (100 * (b - a) / seconds for a, b in zip(self.before, self.tool.used()))
        figures[f"{prefix} share of a core (%)"] = own
        if self.tool.servers:
            figures[f"{prefix} share of a core, servers (%)"] = servers


def idle(tool, place, writer, options, figures):
    meter = Meter(tool)
    time.sleep(options.seconds)
    meter.read(figures, "idle:")


def single(tool, place, writer, options, figures):
    """One file now and then, of which the first comes after a pause."""
    arrivals = Arrivals(place / "dst")
    time.sleep(PAUSE_S)
    closed, *_ = writer.files(place / "src" / "first-", 1, 1)
    arrivals.wait(closed, tool.patience)
    figures[f"single: after a pause of {PAUSE_S} s (ms)"] = (arrivals.of("first-0") - closed["first-0"]) * 1000
    closed, *_ = writer.files(place / "src" / "single-", options.singles, 0.05)
    spread(tool, closed, arrivals, figures, "single:")


def alone(place, writer, rate, seconds):
    """What writing a file takes while nobody listens, in µs."""
    (place / "alone").mkdir()
    _, took, *_ = writer.files(place / "alone" / "f", int(rate * seconds) or 1, 1 / rate)
    shutil.rmtree(place / "alone")
    return part(took, 0.5) * 1e6


def busy(tool, place, writer, options, figures):
    """So many files a second, evenly; and what their writer feels of it."""
    writer.mkdir(place / "src" / "busy")
    if not until((place / "dst" / "busy").is_dir, tool.patience):
        if tool.exact:
            sys.exit(f"{tool.name}: a directory has not arrived")
        figures["busy: p50 (ms)"] = NEVER
        return
    arrivals, rate = Arrivals(place / "dst" / "busy"), options.rate * tool.share
    meter = Meter(tool)
    closed, took, began, ended = writer.files(place / "src" / "busy" / "f", int(rate * options.seconds) or 1, 1 / rate)
    meter.read(figures, "busy:")
    figures["busy: written (files/s)"] = len(closed) / (ended - began)
    spread(tool, closed, arrivals, figures, "busy:")
    figures["busy: behind at the end (s)"] = max(0.0, max(map(arrivals.of, closed)) - ended)
    figures["busy: writing a file, p50 (us)"] = part(took, 0.5) * 1e6
    figures["busy: writing a file, p99 (us)"] = part(took, 0.99) * 1e6


def rename(tool, place, writer, options, figures):
    """A directory with much below it."""
    arrivals = Arrivals(place / "dst")
    began = writer.rename(place / "src" / "large", place / "src" / "renamed")
    if arrivals.wait(["renamed"], tool.patience) and tool.exact:
        sys.exit(f"{tool.name}: a renamed directory has not arrived")
    figures["rename: of a directory (ms)"] = (arrivals.of("renamed") - began) * 1000
    # peers may bring file by file, and leave what they have taken them from
    old, new, whole, gone = place / "dst" / "large", place / "dst" / "renamed", NEVER, NEVER
    while True:
        asked = time.monotonic()
        there, left = seen.files_below(new), seen.files_below(old)
        if (there, left) == (options.files, 0):
            whole = min(whole, time.monotonic() - began)
        if not old.exists():
            gone = min(gone, time.monotonic() - began)
        if max(whole, gone) < NEVER or asked > began + min(tool.patience, whole + GONE_S):
            break
        # looking must not be what takes long
        time.sleep(max(0.05, 10 * (time.monotonic() - asked)))
    figures["rename: until all files are below the new name (s)"] = whole
    figures["rename: until the old name is gone (s)"] = gone
    if tool.exact:
        tool.wait_complete(tool.patience)
        figures["rename: until all is checked (s)"] = time.monotonic() - began
    else:
        figures[f"rename: not below the new name within {tool.patience:g} s (files)"] = options.files - there
        figures[f"rename: still below the old name after {tool.patience:g} s (files)"] = left


MEASURES = {f.__name__: f for f in (idle, single, busy, rename)}


def make_tree(top, count):
    for n in range(count):
        if n % 1000 == 0:
            d = top / f"d{n // 1000}"
            d.mkdir(parents=True)
        os.close(os.open(d / f"f{n}", os.O_WRONLY | os.O_CREAT, 0o644))


def round_of(tool, what, place, options):
    """A round of a tool; returns its figures."""
    (place / "src").mkdir()
    (place / "dst").mkdir()
    if "rename" in what:
        make_tree(place / "src" / "large", options.files)
    figures = {}
    if "busy" in what:
        with Writer() as writer:
            rate = options.rate * tool.share
            figures["busy: writing a file, nobody listens, p50 (us)"] = alone(place, writer, rate, min(3, options.seconds))
    try:
        tool.start(place)
        with Writer(tool.writing) as writer:
            for name, measure in MEASURES.items():
                if name in what:
                    measure(tool, place, writer, options, figures)
    finally:
        tool.stop()
    if tool.exact:
        diff = subprocess.run(["rsync", "-aHAXSni", "--delete", f"{place}/src/", f"{place}/dst/"],
                              capture_output=True, text=True)
        if diff.returncode or [l for l in diff.stdout.splitlines() if not l.endswith("/")]:
            sys.exit(f"{tool.name}: SRC and DST differ:\n{diff.stdout[:2000]}{diff.stderr}")
    return figures


# ---- walks

EVERY_S = 1
WALKS = 5


def told(tool):
    m = tool.status()
    return m.get("told_up_to_us", 0) / 1e6, m.get("signs", 0)


def next_walk(tool):
    """Waits until a walk has ended; returns when it began, and how many hints there have been."""
    before, _ = told(tool)
    while True:
        now, signs = told(tool)
        if now > before:
            return now, signs
        time.sleep(0.1)


def poll_round(binary, place, options):
    """How long `--detect poll` takes to walk a tree in which nothing changes; returns figures of it and of find.

    A mirror says up to when changes have been told to it; of walks that is when the last one began. The next begins
    `--poll-every` after its end, so what lies between two of them beyond that is a walk, with the index written to disk.
    """
    (place / "src").mkdir()
    (place / "dst").mkdir()
    make_tree(place / "src", options.poll_files)
    index = place / "index"
    figures, tool = {}, Treeferry(binary, "poll")

    def start(every, wait=True):
        tool.options = ["--poll-every", every, "--index", str(index)]
        began = time.monotonic()
        tool.start(place, wait)
        return tool.processes[0].pid, time.monotonic() - began

    def copied():
        m = tool.status()
        return m.get("told_up_to_us", 0) > 0 and m["walks"] + m["waiting"] + m["busy"] == 0

    try:
        # it is complete only when a second walk has ended, which is not to be in this figure
        pid, _ = start("1h", wait=False)
        if not until(copied, 600):
            sys.exit(f"{tool.name}: the first walk has not ended within 600 s")
        figures["poll: peak memory, first walk and copy (MiB)"] = seen.peak_memory(pid)
        tool.stop()
        # a tree as new as this is told once more by the second walk
        pid, _ = start(f"{EVERY_S}s")
        _, signs = told(tool)
        quiet = 0
        while quiet < 2:
            began, now = next_walk(tool)
            quiet, signs = quiet + 1 if now == signs else 0, now
        figures["poll: peak memory, all is new and looked at again (MiB)"] = seen.peak_memory(pid)
        spent, walks = seen.thread_time(pid, "tf-walk-source"), []
        while len(walks) < WALKS:
            at, now = next_walk(tool)
            if now != signs:
                sys.exit("poll: something has changed")
            walks.append(at - began - EVERY_S)
            began = at
        spent = seen.thread_time(pid, "tf-walk-source") - spent
        figures["poll: a walk (s)"] = part(walks, 0.5)
        figures["poll: processor time of a walk (s)"] = spent / WALKS
        figures["poll: index (bytes/file)"] = index.stat().st_size / options.poll_files
        tool.stop()
        pid, figures["poll: started again, until complete (s)"] = start(f"{EVERY_S}s")
        next_walk(tool)
        figures["poll: peak memory, started again, nothing new (MiB)"] = seen.peak_memory(pid)
    finally:
        tool.stop()
    by_find = []
    for _ in range(WALKS):
        began = time.monotonic()
        # asks for the times of every entry, and prints none
        subprocess.run(["find", place / "src", "-newermt", "2100-01-01"], check=True, stdout=subprocess.DEVNULL)
        by_find.append(time.monotonic() - began)
    return figures, {"poll: a walk (s)": part(by_find, 0.5)}
