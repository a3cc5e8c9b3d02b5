"""One run: a mirror, its writers, and who holds the mirror to its word while they write and when they have ended."""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from bench_mirror.tools import Services, end

from .facts import Log, bad, now_us

# run as `soak-churn write`, a writer
ENTRY = Path(__file__).resolve().parent.parent / "soak-churn"
# how long a mirror may take after the last write
BEHIND_S = 180
ROW = "{:8} {:9} {:>4} {:>4} {:>10} {:>6} {:>6} {:>8} {:>8} {:>8}  {}"


class Failed(Exception):
    pass


starting = threading.Lock()
# what is to end with us
processes = set()


def start(command, **options):
    child = subprocess.Popen(command, **options)
    processes.add(child)
    return child


def stopped(*_):
    for child in list(processes):
        child.kill()
    os._exit(1)


class Run:
    def __init__(self, options, engine, detect, pool, seed):
        self.o, self.engine, self.detect, self.pool, self.seed = options, engine, detect, pool, seed
        self.place = Path(tempfile.mkdtemp(prefix=f"soak-churn-{engine}-{detect}-{pool}-{seed}-", dir=options.dir))
        # links may lead one directory up
        self.src, self.dst, self.outside = self.place / "in/src", self.place / "dst", self.place / "in/outside"
        for p in (self.src, self.dst, self.outside, self.place / "run", self.place / "writers"):
            p.mkdir(parents=True)
        self.env = dict(os.environ, TREEFERRY_RUNTIME_DIR=str(self.place / "run"), TREEFERRY_LOG_DIR=str(self.place / "log"))
        self.rng = random.Random(f"{seed}/{detect}/{pool}")
        self.logs, self.held, self.moments, self.violations, self.kills = [], 0, set(), [], 0
        self.resyncs, self.took, self.mirror, self.struck = 0, None, {}, 0
        self.resyncs_before, self.stops = 0, 0
        # by name: words, process. The last of them keeps the mirror
        self.daemons, self.services = {}, None

    def daemon(self, name, words):
        with open(self.place / "daemons.log", "ab") as log:
            child = start([self.o.binary, *map(str, words)], env=self.env, stdout=log, stderr=log)
        self.daemons[name] = (words, child)

    def launch(self):
        detect = ["--detect", self.detect]
        detect += {"poll": ["--poll-every", self.o.poll_every], "shim": ["--ring", self.place / "ring"]}.get(self.detect, [])
        # the configuration of the user may name a cluster
        self.env["TREEFERRY_CONFIG"] = str(self.place / "treeferry.toml")
        Path(self.env["TREEFERRY_CONFIG"]).touch()
        if self.engine == "memory":
            self.daemon("keeper", ["watch", "-q", *detect, "--pool", self.pool, self.src, self.dst])
            return
        # one after the other: each takes ports that are free
        with starting:
            self.services = Services(self.place)
        self.env["TREEFERRY_CONFIG"] = str(self.services.config)
        self.daemon("agent", ["agent", "--name", "a0", *detect])
        for n in range(self.pool):
            self.daemon(f"w{n}", ["worker", "--name", f"w{n}", "--pool", 1])
        self.daemon("hardlinker", ["hardlinker", "--name", "h0"])
        self.daemon("keeper", ["watch", "-q", "--agents", "a0", self.src, self.dst])

    def strike(self):
        """Kills one of the processes of the cluster, and starts it again."""
        name = self.rng.choice(list(self.daemons))
        words, child = self.daemons[name]
        child.kill()
        child.wait()
        processes.discard(child)
        self.struck += 1
        self.daemon(name, words)

    def pause(self):
        """Stops the process that keeps the mirror, or an agent, and starts it again a moment later."""
        name = self.rng.choice([n for n in self.daemons if n in ("keeper", "agent")])
        words, child = self.daemons.pop(name)
        if not end(child):
            raise Failed(f"{name} does not end")
        processes.discard(child)
        if child.returncode not in (0, 20, 23):
            raise Failed(f"{name} has ended with {child.returncode}")
        if name == "keeper":
            self.resyncs_before = self.resyncs
        self.stops += 1
        time.sleep(self.rng.uniform(0, 1))
        self.daemon(name, words)

    def status(self):
        r = subprocess.run([self.o.binary, "status", "--json"], env=self.env, capture_output=True, text=True)
        try:
            m = next(j["mirror"] for j in json.loads(r.stdout)["jobs"] if j["src"] == str(self.src) and j.get("mirror"))
        except (ValueError, LookupError, StopIteration):
            m = None
        for name, (_, child) in self.daemons.items():
            if child.poll() is not None:
                raise Failed(f"{name} has ended with {child.returncode}")
        if m:
            self.mirror, self.resyncs = m, self.resyncs_before + m["resyncs"]
        return (m or {}).get("complete_up_to_us") or 0

    def until_complete(self, moment, why):
        began = time.time()
        while self.status() <= moment or self.mirror.get("failing"):
            if time.time() > began + BEHIND_S:
                raise Failed(f"{why}: not complete after {BEHIND_S} s")
            time.sleep(0.02)

    def spawn(self, number, life):
        o = self.o
        words = [self.src, self.outside, self.seed, number, life, self.began, o.seconds, o.rate, o.calm, o.calm_every, o.deaths]
        name = self.place / "writers" / f"{number}-{life}"
        env = dict(os.environ)
        if self.detect == "shim":
            env.update(LD_PRELOAD=str(o.shim), TREEFERRY_SHIM=str(self.place / "ring"))
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        facts, told = os.open(f"{name}.facts", flags), os.open(f"{name}.operations", flags)
        try:
            child = start([sys.executable, ENTRY, "write", *map(str, words)], env=env, stdout=facts, stderr=told)
        finally:
            os.close(facts)
            os.close(told)
        self.logs.append(Log(f"{name}.facts", number))
        return child

    def excused(self, r):
        """Paths that fail are not promised."""
        path = r["p"].encode("latin-1").decode(errors="replace")
        fails = [f["path"] for f in self.mirror.get("failing_paths", [])]
        return self.mirror.get("failing", 0) > 20 or any(path == f or path.startswith(f + "/") or f == "" for f in fails)

    def hold(self, everything=False):
        """Holds the mirror to what it says now."""
        moment = self.status()
        if moment <= self.began * 1e6:
            return
        looked, here = now_us(), 0
        for log in list(self.logs):
            log.read()
            for r in log.due(moment):
                if r.get("broken") or (r.get("held") and not everything and self.rng.random() > 0.1):
                    continue
                why = bad(self.dst, r)
                if why and log.still(r) and not self.excused(r):
                    self.violation(log, r, why, moment, looked)
                if not r.get("held"):
                    here += 1
                    r["held"] = True
        self.held += here
        if here:
            self.moments.add(moment)

    def violation(self, log, r, why, moment, looked):
        v = {"fact": r, "writer": os.path.basename(log.path), "dst": why, "complete_up_to_us": moment, "looked": looked, "now": now_us()}
        v["mirror"] = self.mirror
        v["right_after_ms"] = None
        for _ in range(40):
            time.sleep(0.05)
            if not log.still(r):
                v["right_after_ms"] = "changed since"
            elif bad(self.dst, r):
                continue
            else:
                v["right_after_ms"] = (now_us() - looked) / 1000
            break
        r["broken"] = True
        self.violations.append(v)
        with open(self.place / "violations", "a") as f:
            f.write(json.dumps(v) + "\n")
        if len(self.violations) >= 10:
            raise Failed("too many promises were broken to go on")

    def churn(self):
        """Runs the writers; returns when the last of them has ended."""
        o, lives = self.o, [0] * self.o.writers
        self.began = time.time()
        writers = [self.spawn(n, 0) for n in range(o.writers)]
        kill_at = self.began + self.rng.uniform(0.5, 1.5) * o.kill_every
        strike_at = self.began + self.rng.uniform(0.5, 1.5) * o.kill_daemons_every
        stop_at = self.began + self.rng.uniform(0.5, 1.5) * o.stop_every
        try:
            while any(w.poll() is None for w in writers) or time.time() < self.began + o.seconds - 0.5:
                now = time.time()
                if now > self.began + o.seconds + 60:
                    raise Failed("a writer does not end")
                if now > kill_at:
                    kill_at = now + self.rng.uniform(0.5, 1.5) * o.kill_every
                    self.rng.choice(writers).kill()
                for n, w in enumerate(writers):
                    if w.poll() not in (None, 0, -signal.SIGKILL):
                        raise Failed(f"writer {n} has ended with {w.returncode}")
                    if w.poll() == -signal.SIGKILL and now < self.began + o.seconds - 0.5:
                        self.kills += 1
                        lives[n] += 1
                        writers[n] = self.spawn(n, lives[n])
                if o.kill_daemons_every and self.services and now > strike_at:
                    strike_at = now + self.rng.uniform(0.5, 1.5) * o.kill_daemons_every
                    self.strike()
                if o.stop_every and now > stop_at:
                    stop_at = now + self.rng.uniform(0.5, 1.5) * o.stop_every
                    self.pause()
                self.hold()
                time.sleep(max(0.0, now + 0.1 - time.time()))
        finally:
            for w in writers:
                w.kill()
                w.wait()
            processes.difference_update(writers)

    def compare(self):
        r = subprocess.run(["rsync", "-aHAXSni", "--delete", f"{self.src}/", f"{self.dst}/"], capture_output=True, text=True, errors="replace")
        v = subprocess.run([self.o.binary, "verify", "-c", self.src, self.dst], env=self.env, capture_output=True, text=True, errors="replace")
        (self.place / "differences").write_text(f"{r.stdout}{r.stderr}\n{v.stdout}{v.stderr}")
        if r.stdout or r.returncode:
            raise Failed(f"rsync: {len(r.stdout.splitlines())} lines, exit code {r.returncode}: {r.stdout.splitlines()[:3]}")
        if v.returncode:
            raise Failed(f"verify: exit code {v.returncode}: {(v.stdout + v.stderr).splitlines()[:3]}")

    def mirrored(self):
        try:
            self.launch()
            self.began = 0
            self.until_complete(now_us(), "first walk")
            walked = self.resyncs
            self.churn()
            last = now_us()
            self.until_complete(last, "after the last write")
            self.took = (now_us() - last) / 1e6
            self.resyncs -= walked
            # names of which a look said something while others failed, too
            self.hold(everything=True)
            self.compare()
            for name, (_, child) in reversed(self.daemons.items()):
                if not end(child):
                    raise Failed(f"{name} does not end")
                # a walk that is under way may be left undone
                if child.returncode not in (0, 20) or (child.returncode and self.detect != "poll"):
                    raise Failed(f"{name} has ended with {child.returncode}")
            if "panicked" in (self.place / "daemons.log").read_text(errors="replace"):
                raise Failed("a thread has panicked")
            if self.violations:
                raise Failed("promises were broken")
            if len(self.moments) < max(2, self.o.seconds / 10):
                raise Failed(f"only {len(self.moments)} promises were made: the run has proven little")
            # one that is killed while it tells something may leave half of it
            if self.detect == "shim" and self.resyncs > self.kills + self.struck + self.stops:
                raise Failed("something was missed, and everything was walked again")
        finally:
            for _, child in self.daemons.values():
                child.kill()
                child.wait()
                processes.discard(child)
            if self.services:
                self.services.clean()

    def run(self):
        try:
            self.mirrored()
            result = "ok"
        except Failed as e:
            result = f"FAILED: {e}"
        except Exception as e:
            result = f"FAILED: {e!r}"
        finally:
            for log in self.logs:
                log.file.close()
        done = 0
        for p in (self.place / "writers").glob("*.operations"):
            done += sum(1 for line in p.read_bytes().split(b"\n") if line.split(b" ")[3:4] == [b"ok"])
        if result != "ok":
            (self.place / "status").write_text(json.dumps(self.mirror, indent=1))
            result += f" ({len(self.violations)} violations; {self.place})"
        elif not self.o.keep:
            shutil.rmtree(self.place)
        took = "-" if self.took is None else f"{self.took:.2f}"
        figures = [self.engine, self.detect, self.pool, self.seed, done, self.kills, self.held, len(self.moments), took, self.resyncs]
        print(ROW.format(*map(str, figures), result), flush=True)
        return result == "ok"
