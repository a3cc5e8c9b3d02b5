"""What is measured: treeferry in one process and in a cluster, and the peers.

Each is started for a round and stopped after it. Whatever it writes, passwords and logs included, is below the directory of
the round.
"""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from .seen import processor_time, until

ROOT = Path(__file__).resolve().parent.parent.parent


class Unable(Exception):
    """A peer does not come up: it is left out, and why."""


def end(process, seconds=60):
    """Stops a process in good order; whether it did."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


class Services:
    """A RabbitMQ and a Redis of its own, by scripts/services."""

    def __init__(self, place):
        self.dir, self.script = place / "services", ROOT / "scripts/services"
        told = subprocess.run([self.script, "start", "--dir", self.dir], capture_output=True, text=True)
        if told.returncode:
            raise Unable(f"scripts/services: {told.stdout}{told.stderr}")
        self.config = self.dir / "treeferry.toml"
        self.broker = re.search(r'broker = "amqp://(\w+):(\w+)@([\d.:]+)/', self.config.read_text()).groups()

    def pids(self, *names):
        return {int((self.dir / f"{name}.pid").read_text().split()[0]) for name in names}

    def clean(self):
        subprocess.run([self.script, "clean", "--dir", self.dir], capture_output=True)


class Tool:
    # of the rate that is asked for
    share = 1
    # what its writers have in their environment
    writing = {}
    # which of the servers it uses
    servers = ()
    services = None

    def __init__(self):
        self.processes = []

    def used(self):
        """Processor time up to now, of itself and of its servers, in seconds."""
        own = processor_time({p.pid for p in self.processes})
        return own, processor_time(self.services.pids(*self.servers)) if self.services else 0.0

    def stop(self):
        slow = [p for p in self.processes if not end(p)]
        self.processes = []
        if self.services:
            self.services.clean()
            self.services = None
        if slow:
            sys.exit(f"{self.name} does not stop")


class Treeferry(Tool):
    """In one process."""

    patience, exact = 300, True

    def __init__(self, binary, detect, shim=None, options=()):
        super().__init__()
        self.binary, self.shim, self.options = binary, shim, list(options)
        self.detect, self.name = detect, f"treeferry --detect {detect}"

    def start(self, place, wait=True):
        self.src = place / "src"
        self.env = dict(os.environ, TREEFERRY_RUNTIME_DIR=str(place / "run"), TREEFERRY_LOG_DIR=str(place / "log"))
        # the configuration of the user may name a cluster
        self.env["TREEFERRY_CONFIG"] = str(place / "treeferry.toml")
        Path(self.env["TREEFERRY_CONFIG"]).touch()
        (place / "run").mkdir(exist_ok=True)
        self.ring = []
        if self.detect == "shim":
            self.ring = ["--ring", str(place / "ring")]
            self.writing = {"LD_PRELOAD": str(self.shim), "TREEFERRY_SHIM": str(place / "ring")}
        began = time.time()
        self.launch(place)
        if wait:
            self.wait_complete(300, began)

    def launch(self, place):
        detect = ["--detect", self.detect, *self.ring]
        self.spawn(["watch", "-q", *detect, *self.options, place / "src", place / "dst"])

    def spawn(self, words, log=None):
        self.processes.append(subprocess.Popen([self.binary, *words], env=self.env, stdout=log, stderr=log))

    def status(self):
        r = subprocess.run([self.binary, "status", "--json"], env=self.env, capture_output=True, text=True)
        try:
            mirrors = [j.get("mirror") for j in json.loads(r.stdout)["jobs"] if j["src"] == str(self.src)]
            return {k: v for k, v in next(m for m in mirrors if m).items() if v is not None}
        except (ValueError, LookupError, StopIteration):
            return {}

    def wait_complete(self, patience, moment=None):
        """Waits until all that has happened up to a moment, or up to now, is on the target."""
        now = moment or time.time()

        def complete():
            for process in self.processes:
                if process.poll() is not None:
                    sys.exit(f"{self.name}: {process.args[1]} has ended: {process.returncode}")
            return self.status().get("complete_up_to_us", 0) / 1e6 >= now

        if not until(complete, patience):
            sys.exit(f"{self.name}: not complete within {patience} s: {self.status()}")


class Clustered(Treeferry):
    """With an agent, workers, a hardlinker, the keeper of the mirror, a RabbitMQ and a Redis, all on this machine."""

    servers = ("rabbitmq", "redis")

    def __init__(self, binary, detect, shim, workers):
        super().__init__(binary, detect, shim)
        self.workers, self.name = workers, f"treeferry, cluster, --detect {detect}"

    def launch(self, place):
        self.services = Services(place)
        self.env["TREEFERRY_CONFIG"] = str(self.services.config)
        daemons = [("agent", "--name", "a0", "--detect", self.detect, *self.ring)]
        daemons += [("worker", "--name", f"w{n}") for n in range(self.workers)]
        daemons += [("hardlinker", "--name", "h0"), ("watch", "-q", "--agents", "a0", place / "src", place / "dst")]
        (place / "log").mkdir(exist_ok=True)
        with open(place / "log/daemons", "ab") as log:
            for words in daemons:
                self.spawn(words, log)

    def stop(self):
        # the keeper first, while there is a cluster
        self.processes.reverse()
        super().stop()


class Lsyncd(Tool):
    """With rsync, without a delay."""

    name = "lsyncd"
    # it could not do more than a part of the rate at all
    share = 1 / 20
    exact = False

    @staticmethod
    def missing(options):
        return None if shutil.which("lsyncd") else "lsyncd is not installed"

    def __init__(self, options):
        super().__init__()
        self.patience = options.patience

    def start(self, place):
        config = place / "lsyncd.conf"
        # as quick as it can be told to be, and with what `rsync -aHAX` keeps
        config.write_text(f"""settings {{ nodaemon = true, maxDelays = 1 }}
sync {{ default.rsync, source = "{place}/src", target = "{place}/dst", delay = 0,
       rsync = {{ archive = true, hard_links = true, acls = true, xattrs = true }} }}
""")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
        self.processes = [subprocess.Popen(["lsyncd", "-log", "Error", config], **quiet)]
        (place / "src" / "mark").write_text("x")
        if not until((place / "dst" / "mark").exists, 300):
            raise Unable("the first file has not arrived within 300 s")

    def stop(self):
        for process in self.processes:
            # with the rsync that it may wait for
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.processes = []


class Sr3(Tool):
    """Sarracenia of MetPX: `sr3 watch`, which posts what inotify tells it, and `sr3 subscribe`, which copies."""

    name = "sr3"
    # it could do a part of the rate
    share = 1 / 20
    exact = False
    servers = ("rabbitmq",)

    @staticmethod
    def program(options):
        return shutil.which("sr3", path=options.sr3)

    @staticmethod
    def missing(options):
        program = Sr3.program(options)
        if not program:
            return "sr3 is not installed (pip install 'metpx-sr3[amqp]'; --sr3 DIR)"
        try:
            asked = subprocess.run([Sr3.python(program), "-c", "import amqp, watchdog, sarracenia"], capture_output=True)
        except OSError:
            return f"the Python of {program} does not run"
        return "sr3 lacks a module (pip install 'metpx-sr3[amqp]')" if asked.returncode else None

    @staticmethod
    def python(program):
        """The interpreter with its modules."""
        with open(program, errors="replace") as script:
            named = re.match(r"#!\s*(\S*python\S*)\s*$", script.readline())
        return named[1] if named else str(Path(program).resolve().parent / "python3")

    def __init__(self, options):
        super().__init__()
        self.patience, self.sleep, self.instances = options.patience, options.sr3_sleep, options.sr3_instances
        self.python = Sr3.python(Sr3.program(options))

    def start(self, place):
        # it mirrors what changes; what is there is brought by something else, as its users do
        subprocess.run(["rsync", "-aHAX", f"{place}/src/", f"{place}/dst/"], check=True)
        self.services = Services(place)
        home = place / "sr3"
        configs = home / "config/sr3"
        user, password, address = self.services.broker
        broker = f"amqp://{user}@{address}/"
        for name, text in {
            "credentials.conf": f"amqp://{user}:{password}@{address}/\n",
            # with `sleep 0` a watch does not listen, but walks once. While nothing happens each sleep is twice the one before,
            # up to 8 s
            "watch/mirror.conf": f"""post_broker {broker}
post_exchange xs_{user}
post_baseUrl file:{place}/src
post_baseDir {place}/src
path {place}/src
sleep 0.001
identity none
nodupe_ttl 0
logLevel error
""",
            "subscribe/mirror.conf": f"""broker {broker}
exchange xs_{user}
instances {self.instances}
batch 100
prefetch 100
sleep {self.sleep}
nodupe_ttl 0
logLevel error
mirror True
directory {place}/dst
subtopic #
accept .*
""",
        }.items():
            (configs / name).parent.mkdir(parents=True, exist_ok=True)
            (configs / name).write_text(text)
        (configs / "credentials.conf").chmod(0o600)
        dirs = {"HOME": home, "XDG_CONFIG_HOME": home / "config", "XDG_CACHE_HOME": home / "cache",
                "XDG_DATA_HOME": home / "data", "XDG_STATE_HOME": home / "state"}
        env = dict(os.environ, **{k: str(v) for k, v in dirs.items()})
        # what `sr3 start` starts; that looks at all processes of the user, and no others are to be touched
        roles = [("subscribe", n + 1) for n in range(self.instances)] + [("watch", 1)]
        with open(home / "log", "ab") as log:
            for role, number in roles:
                command = [self.python, "-m", "sarracenia.instance", "--no", str(number), "start", f"{role}/mirror"]
                self.processes.append(subprocess.Popen(command, env=env, cwd=home, stdout=log, stderr=log))
        number = 0
        for number in range(120):
            (place / "src" / f"mark{number}").write_text("x")
            if until(lambda: any((place / "dst").glob("mark*")), 0.5):
                break
        else:
            logs = [*home.glob("cache/sr3/log/*.log"), home / "log"]
            raise Unable("the first file has not arrived within 60 s: " + "".join(p.read_text()[-500:] for p in logs))
        if not until(lambda: (place / "dst" / f"mark{number}").exists(), 30):
            raise Unable("not all of the first files have arrived")

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            # what waits to be tried again does not matter any more
            end(process, 5)
        super().stop()


PEERS = {"lsyncd": Lsyncd, "sr3": Sr3}
