//! A RabbitMQ and a Redis of a test's own, on loopback: the real servers, started by `scripts/services`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Both servers; stopped and removed when dropped.
#[derive(Debug)]
pub struct Services {
    script: PathBuf,
    dir: tempfile::TempDir,
    /// URL of the broker.
    pub broker: String,
    /// URL of the ledger.
    pub ledger: String,
}

impl Services {
    /// Starts them; takes some seconds.
    ///
    /// # Panics
    /// When they do not start: a test without its servers would prove nothing. What is missing is said.
    pub fn start() -> Services {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/services");
        let dir = tempfile::Builder::new().prefix("kit-services-").tempdir().expect("a temporary directory");
        let mut s = Services { script, dir, broker: String::new(), ledger: String::new() };
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

    /// Calls `scripts/services WHAT`.
    ///
    /// # Panics
    /// When it fails.
    pub fn call(&self, what: &str) {
        let out = Command::new(&self.script)
            .arg(what)
            .arg("--dir")
            .arg(self.home())
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
