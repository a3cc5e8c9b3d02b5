"""One run: a mirror, its writers, and who holds the mirror to its word while they write and when they have ended."""
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .facts import Log, bad, now_us

# run as `soak-churn write`, a writer
ENTRY = Path(__file__).resolve().parent.parent / "soak-churn"
# how long a mirror may take after the last write
BEHIND_S = 180
ROW = "{:9} {:>4} {:>4} {:>10} {:>6} {:>6} {:>8} {:>8} {:>8}  {}"


class Failed(Exception):
    pass


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
    def __init__(self, options, detect, pool, seed):
        self.o, self.detect, self.pool, self.seed = options, detect, pool, seed
        self.place = Path(tempfile.mkdtemp(prefix=f"soak-churn-{detect}-{pool}-{seed}-", dir=options.dir))
        # links may lead one directory up
        self.src, self.dst, self.outside = self.place / "in/src", self.place / "dst", self.place / "in/outside"
        for p in (self.src, self.dst, self.outside, self.place / "run", self.place / "writers"):
            p.mkdir(parents=True)
        self.env = dict(os.environ, TREEFERRY_RUNTIME_DIR=str(self.place / "run"), TREEFERRY_LOG_DIR=str(self.place / "log"))
        self.rng = random.Random(f"{seed}/{detect}/{pool}")
        self.logs, self.held, self.moments, self.violations, self.kills = [], 0, set(), [], 0
        self.resyncs, self.took, self.mirror = 0, None, {}
        self.watch = None

    def status(self):
        r = subprocess.run([self.o.binary, "status", "--json"], env=self.env, capture_output=True, text=True)
        try:
            m = json.loads(r.stdout)["jobs"][0]["mirror"]
        except (ValueError, LookupError):
            m = None
        if m is None and self.watch.poll() is not None:
            raise Failed(f"the mirror has ended with {self.watch.returncode}")
        if m:
            self.mirror, self.resyncs = m, m["resyncs"]
        return (m or {}).get("complete_up_to_us") or 0

    def until_complete(self, moment, why):
        began = time.time()
        while self.status() <= moment or self.mirror["failing"]:
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
        words = ["watch", "-q", "--detect", self.detect, "--pool", self.pool]
        words += {"poll": ["--poll-every", self.o.poll_every], "shim": ["--ring", self.place / "ring"]}.get(self.detect, [])
        with open(self.place / "watch.log", "ab") as log:
            command = [self.o.binary, *map(str, words), self.src, self.dst]
            self.watch = start(command, env=self.env, stdout=log, stderr=log)
        try:
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
            self.watch.terminate()
            code = self.watch.wait(60)
            # a walk that is under way may be left undone
            if code not in (0, 20) or (code and self.detect != "poll"):
                raise Failed(f"the mirror has ended with {code}")
            if "panicked" in (self.place / "watch.log").read_text(errors="replace"):
                raise Failed("a thread of the mirror has panicked")
            if self.violations:
                raise Failed("promises were broken")
            if len(self.moments) < max(2, self.o.seconds / 10):
                raise Failed(f"only {len(self.moments)} promises were made: the run has proven little")
            # one that is killed while it tells something may leave half of it
            if self.detect == "shim" and self.resyncs > self.kills:
                raise Failed("something was missed, and everything was walked again")
        finally:
            self.watch.kill()
            self.watch.wait()
            processes.discard(self.watch)

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
        figures = [self.detect, self.pool, self.seed, done, self.kills, self.held, len(self.moments), took, self.resyncs]
        print(ROW.format(*map(str, figures), result), flush=True)
        return result == "ok"
