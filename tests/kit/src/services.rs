//! A RabbitMQ and a Redis of a test's own, on loopback: the real servers, started by `scripts/services`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Both servers; stopped and removed when dropped.
#[derive(Debug)]
pub struct Services {
    script: PathBuf,
    dir: tempfile::TempDir,
    first_port: u16,
    /// Locked as long as these servers live: they may be down for a while, and nobody is to take their ports then.
    _ports: std::fs::File,
    /// URL of the broker.
    pub broker: String,
    /// URL of the ledger.
    pub ledger: String,
}

/// The log of Redis as it was at some moment.
#[derive(Debug)]
pub struct Remembered(Vec<(PathBuf, Vec<u8>)>);

impl Services {
    /// Starts them; takes some seconds.
    ///
    /// # Panics
    /// When they do not start: a test without its servers would prove nothing. What is missing is said.
    pub fn start() -> Services {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/services");
        let dir = tempfile::Builder::new().prefix("kit-services-").tempdir().expect("a temporary directory");
        let (ports, first_port) = take_ports();
        let mut s =
            Services { script, dir, first_port, _ports: ports, broker: String::new(), ledger: String::new() };
        s.call("start");
        let config =
            std::fs::read_to_string(s.config()).expect("scripts/services has written its configuration");
        let value = |key: &str| {
            let line = config.lines().find(|l| l.starts_with(key)).expect("both keys are there");
            line.split('"').nth(1).expect("a text in quotes").to_owned()
        };
        s.broker = value("broker");
        s.ledger = value("ledger");
        s
    }

    /// The configuration file that names them.
    pub fn config(&self) -> PathBuf {
        self.home().join("treeferry.toml")
    }

    /// Where they keep what is theirs.
    pub fn home(&self) -> PathBuf {
        self.dir.path().join("services")
    }

    /// Calls RabbitMQ's own tool, and returns what it says.
    ///
    /// # Panics
    /// When it fails.
    pub fn rabbitmqctl(&self, words: &[&str]) -> String {
        let out = Command::new(self.home().join("rabbitmqctl")).args(words).stdin(Stdio::null()).output();
        let out = out.expect("scripts/services has made it");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(
            out.status.success(),
            "rabbitmqctl {words:?}: {said}{}",
            String::from_utf8_lossy(&out.stderr)
        );
        said
    }

    /// Calls Redis's own tool, and returns what it says, without the newline at its end.
    ///
    /// # Panics
    /// When it fails, or Redis answers with an error.
    pub fn redis_cli<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> String {
        // redis://:PASSWORD@HOST:PORT; redis-cli would take that for a user without a name
        let (password, place) = self.ledger.rsplit_once('@').expect("it has a password");
        let password = password.rsplit(':').next().expect("a text");
        let port = place.rsplit(':').next().expect("a text").trim_end_matches('/');
        // -e: an error is told by the exit code
        let mut c = Command::new("redis-cli");
        c.args(["-e", "-p", port]).args(words).env("REDISCLI_AUTH", password).stdin(Stdio::null());
        let out = c.output().expect("redis-cli is there with redis-server");
        let said = String::from_utf8_lossy(&out.stdout).trim_end().to_owned();
        assert!(out.status.success(), "{c:?}: {said}{}", String::from_utf8_lossy(&out.stderr));
        said
    }

    /// Closes the connections of a process, as the broker does when it takes it for dead.
    ///
    /// # Panics
    /// When it has none.
    pub fn close_connections_of(&self, pid: u32) {
        let ports = ports_of(pid);
        let said = self.rabbitmqctl(&["-q", "list_connections", "--no-table-headers", "pid", "peer_port"]);
        let mut closed = 0;
        for line in said.lines() {
            let Some((id, port)) = line.split_once(char::is_whitespace) else { continue };
            if ports.contains(&port.trim().parse().unwrap_or(0)) {
                self.rabbitmqctl(&["close_connection", id, "taken for dead"]);
                closed += 1;
            }
        }
        assert!(closed > 0, "process {pid} has no connection to the broker: {said}");
    }

    /// Makes RabbitMQ, which must not run, forget all that it had.
    ///
    /// # Panics
    /// When its data cannot be removed.
    pub fn lose_queues(&self) {
        let data = self.home().join("rabbitmq/data");
        std::fs::remove_dir_all(&data).unwrap_or_else(|e| panic!("{}: {e}", data.display()));
    }

    /// What Redis has written to its log so far, for [`Services::forget_since`].
    ///
    /// # Panics
    /// When it keeps none.
    pub fn remember(&self) -> Remembered {
        let read = |path: PathBuf| (path.clone(), std::fs::read(&path).expect("a file of Redis"));
        let files = std::fs::read_dir(self.log_of_redis()).expect("the log of Redis");
        Remembered(files.map(|f| read(f.expect("an entry").path())).collect())
    }

    /// Makes Redis, which must not run, forget what it has written since: as if it had been killed before it wrote that,
    /// having answered already.
    ///
    /// # Panics
    /// When its files cannot be written.
    pub fn forget_since(&self, then: &Remembered) {
        for f in std::fs::read_dir(self.log_of_redis()).expect("the log of Redis") {
            std::fs::remove_file(f.expect("an entry").path()).expect("a file of Redis");
        }
        for (path, content) in &then.0 {
            std::fs::write(path, content).expect("a file of Redis");
        }
    }

    fn log_of_redis(&self) -> PathBuf {
        self.home().join("redis/appendonlydir")
    }

    /// Calls `scripts/services WHAT`.
    ///
    /// # Panics
    /// When it fails.
    pub fn call(&self, what: &str) {
        let out = Command::new(&self.script)
            .arg(what)
            .arg("--dir")
            .arg(self.home())
            .args(if what == "start" {
                vec!["--port".to_owned(), self.first_port.to_string()]
            } else {
                vec![]
            })
            .stdin(Stdio::null())
            .output()
            .unwrap_or_else(|e| panic!("{}: {e}", self.script.display()));
        assert!(
            out.status.success(),
            "scripts/services {what}: {}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        );
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        let _ = Command::new(&self.script)
            .arg("clean")
            .arg("--dir")
            .arg(self.home())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

/// Local ports of the TCP connections (IPv4) of a process: `/proc/PID/fd` has their inodes, `/proc/net/tcp` the rest
/// (proc(5)).
fn ports_of(pid: u32) -> Vec<u16> {
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let sockets: Vec<String> = fds
        .filter_map(|fd| std::fs::read_link(fd.path()).ok()?.to_str().map(str::to_owned))
        .filter_map(|to| Some(to.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let port = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours = sockets.iter().any(|s| fields.get(9) == Some(&s.as_str()));
        ours.then(|| u16::from_str_radix(fields.get(1)?.split_once(':')?.1, 16).ok()).flatten()
    };
    table.lines().skip(1).filter_map(port).collect()
}

/// Four ports in a row that nobody has, as far as servers of tests go and at this moment; the lock says so to others.
fn take_ports() -> (std::fs::File, u16) {
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    for first in (22000..24000).step_by(4) {
        let place = std::env::temp_dir().join(format!("treeferry-kit-ports-{first}.lock"));
        let Ok(file) = std::fs::File::create(&place) else { continue };
        let alone = rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok();
        if alone && (first..first + 4).all(is_free) {
            return (file, first);
        }
    }
    panic!("no four ports in a row are free between 22000 and 24000");
}
