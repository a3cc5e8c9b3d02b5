//! A cluster of a test's own: real servers, and daemons that can be killed and started again.

use crate::{PATIENCE, Run, Scratch, command};
use serde_json::Value;
use std::process::{Child, Command, Stdio};
use treeferry_kit::run::wait_until;
use treeferry_kit::services::Services;

/// Servers and daemons.
#[derive(Debug)]
pub struct Cluster {
    /// RabbitMQ and Redis.
    pub services: Services,
    daemons: Vec<Daemon>,
    /// What daemons find in their environment.
    env: Vec<(String, String)>,
}

/// A worker, a hardlinker or an agent.
#[derive(Debug)]
struct Daemon {
    kind: &'static str,
    name: String,
    /// What else it is called with.
    words: Vec<String>,
    child: Child,
}

impl Cluster {
    /// Starts the servers, so many workers of two threads, `w0`, `w1` …, and so many hardlinkers, `h0`, `h1` …
    pub fn start(workers: usize, hardlinkers: usize) -> Cluster {
        Cluster::configured("", &[], workers, hardlinkers)
    }

    /// The same, with more in the configuration file, and variables for the daemons.
    ///
    /// # Panics
    /// When the servers do not start.
    pub fn configured(config: &str, env: &[(&str, &str)], workers: usize, hardlinkers: usize) -> Cluster {
        let services = Services::start();
        let file = services.config();
        let text = std::fs::read_to_string(&file).expect("scripts/services has written it");
        std::fs::write(&file, text + config).expect("our own file");
        let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut c = Cluster { services, daemons: Vec::new(), env };
        (0..workers).for_each(|n| c.worker(&format!("w{n}"), 2));
        (0..hardlinkers).for_each(|n| c.hardlinker(&format!("h{n}")));
        let all = workers + hardlinkers;
        wait_until("all daemons say that they are there", PATIENCE, || c.reports().len() == all);
        c
    }

    /// Starts a worker.
    pub fn worker(&mut self, name: &str, pool: usize) {
        self.daemon("worker", name, &["--pool", &pool.to_string()]);
    }

    /// Starts a hardlinker.
    pub fn hardlinker(&mut self, name: &str) {
        self.daemon("hardlinker", name, &[]);
    }

    /// Starts an agent.
    pub fn agent(&mut self, name: &str, words: &[&str]) {
        self.daemon("agent", name, words);
    }

    fn daemon(&mut self, kind: &'static str, name: &str, words: &[&str]) {
        let mut command = self.command([kind, "--name", name]);
        let child = spawn(command.args(words).envs(self.env.iter().cloned()));
        let words = words.iter().map(|w| (*w).to_owned()).collect();
        self.daemons.push(Daemon { kind, name: name.to_owned(), words, child });
    }

    /// A call of the binary with the configuration of this cluster.
    pub fn command<'a>(&self, words: impl IntoIterator<Item = &'a str>) -> Command {
        let mut c = command(words);
        c.env("TREEFERRY_CONFIG", self.services.config());
        c
    }

    /// Calls the binary, which must succeed.
    #[track_caller]
    pub fn call(&self, words: &str) -> Run {
        Run::of(&mut self.command(words.split_whitespace())).expect(0)
    }

    /// A call of `sync --json OPTIONS src dst`.
    pub fn sync_command(&self, s: &Scratch, options: &str) -> Command {
        let mut c = self.command(["sync", "--json"]);
        c.args(s.words(options));
        c
    }

    /// Runs `sync --json OPTIONS src dst` to its end.
    #[track_caller]
    pub fn sync(&self, s: &Scratch, options: &str) -> Run {
        Run::of(&mut self.sync_command(s, options))
    }

    /// Registers a job and returns its id.
    #[track_caller]
    pub fn detach(&self, s: &Scratch, options: &str) -> String {
        let r = self.sync(s, &format!("--detach {options}")).expect(0);
        r.json["job"].as_str().unwrap_or_else(|| panic!("no id from {r}")).to_owned()
    }

    /// What `status` says.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.call("status --json").json
    }

    /// What `status` says of a job.
    #[track_caller]
    pub fn job(&self, id: &str) -> Value {
        let all = self.call(&format!("status --json {id}")).json;
        all["jobs"][0].clone()
    }

    /// What daemons say of themselves.
    #[track_caller]
    pub fn reports(&self) -> Vec<Value> {
        self.status()["workers"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until a job has ended, and returns what is known of it.
    #[track_caller]
    pub fn await_end(&self, id: &str) -> Value {
        wait_until("the job has ended", PATIENCE, || self.job(id)["state"] != "running");
        self.job(id)
    }

    /// Names of the daemons.
    pub fn names(&self, kind: &str) -> Vec<String> {
        self.daemons.iter().filter(|d| d.kind == kind).map(|d| d.name.clone()).collect()
    }

    /// The process number of a daemon.
    #[track_caller]
    pub fn pid(&self, name: &str) -> u32 {
        self.daemons.iter().find(|d| d.name == name).expect("a daemon of this test").child.id()
    }

    /// Waits until a worker that was asleep when a run ended is awake, and has found that there is nothing to do.
    #[track_caller]
    pub fn await_awake(&self, name: &str, end: &Run) {
        let awake = format!("{name}-{}", self.pid(name));
        wait_until("the sleeper is awake and idle", PATIENCE, || {
            self.reports().iter().any(|w| {
                w["worker"] == awake
                    && w["busy"] == 0
                    && w["seen_ms"].as_u64() > end.json["ended_ms"].as_u64()
            })
        });
    }

    /// Kills a daemon with SIGKILL.
    #[track_caller]
    pub fn kill(&mut self, name: &str) {
        let d = self.daemons.iter_mut().find(|d| d.name == name).expect("a daemon of this test");
        let _ = d.child.kill();
        let _ = d.child.wait();
    }

    /// Stops a daemon with SIGTERM, which must end it in good order.
    #[track_caller]
    pub fn stop(&mut self, name: &str) {
        let pid = rustix::process::Pid::from_raw(self.pid(name) as i32).expect("a process");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our own child");
        let mut code = None;
        wait_until("it has ended", PATIENCE, || {
            code = self.exit_code(name);
            code.is_some()
        });
        assert_eq!(code, Some(0), "{name}");
    }

    /// Starts a daemon again that has ended.
    #[track_caller]
    pub fn start_again(&mut self, name: &str) {
        let i = self.daemons.iter().position(|d| d.name == name).expect("a daemon of this test");
        let d = self.daemons.swap_remove(i);
        let words: Vec<&str> = d.words.iter().map(String::as_str).collect();
        self.daemon(d.kind, name, &words);
    }

    /// Whether a daemon still runs, or how it ended.
    #[track_caller]
    pub fn exit_code(&mut self, name: &str) -> Option<i32> {
        let d = self.daemons.iter_mut().find(|d| d.name == name).expect("a daemon of this test");
        d.child.try_wait().expect("our own child").map(|s| s.code().unwrap_or(-1))
    }

    /// Kills a server with SIGKILL, `rabbitmq` or `redis`.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill_server(&self, name: &str) {
        let file = self.services.home().join(format!("{name}.pid"));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let pid = text.split_whitespace().next().and_then(|p| p.parse().ok()).expect("a process number");
        let pid = rustix::process::Pid::from_raw(pid).expect("a process number");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("our own server");
        wait_until("the server is gone", PATIENCE, || {
            rustix::process::test_kill_process(pid).is_err() || is_zombie(pid.as_raw_pid())
        });
    }
}

fn is_zombie(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| s.contains(") Z "))
}

fn spawn(c: &mut Command) -> Child {
    // to the test's own standard error: what daemons say is shown if the test fails
    c.stdout(Stdio::null()).spawn().unwrap_or_else(|e| panic!("cannot start {c:?}: {e}"))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for d in &mut self.daemons {
            let _ = d.child.kill();
            let _ = d.child.wait();
        }
    }
}
