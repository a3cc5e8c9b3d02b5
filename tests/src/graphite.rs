//! A Graphite of a test's own, on loopback: the real carbon-cache and graphite-web of Debian's packages.

use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use treeferry_kit::run::wait_until;

/// Debian's Python, whatever else there is: the packages are for that one.
const PYTHON: &str = "/usr/bin/python3";

/// Serves graphite-web without a web server of the system.
const SERVE: &str = "
import os, sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
os.environ['DJANGO_SETTINGS_MODULE'] = 'graphite.settings'
from graphite.wsgi import application
class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass
make_server('127.0.0.1', int(sys.argv[1]), application, Server, Quiet).serve_forever()
";

/// Both, with one value a second.
#[derive(Debug)]
pub struct Graphite {
    dir: tempfile::TempDir,
    servers: Vec<Child>,
    /// HOST:PORT of the plaintext listener.
    pub address: String,
    web: u16,
}

impl Graphite {
    /// Starts both; takes some seconds. `aggregation`: a storage-aggregation.conf.
    ///
    /// # Panics
    /// When they do not start: `scripts/setup` installs them.
    pub fn start(aggregation: &Path) -> Graphite {
        let dir = tempfile::Builder::new().prefix("e2e-graphite-").tempdir().expect("a temporary directory");
        let [line, pickle, query, web] = free_ports();
        let home = dir.path().display();
        let put = |name: &str, text: String| {
            std::fs::write(dir.path().join(name), text).expect("writing into our own directory");
        };
        let make = |name: &str| std::fs::create_dir(dir.path().join(name)).expect("our own directory");
        ["whisper", "log", "run"].into_iter().for_each(make);
        put(
            "carbon.conf",
            format!(
                "[cache]\nSTORAGE_DIR = {home}\nLOCAL_DATA_DIR = {home}/whisper/\nCONF_DIR = {home}\n\
                 LOG_DIR = {home}/log/\nPID_DIR = {home}/run/\nUSER =\nCARBON_METRIC_INTERVAL = 0\n\
                 MAX_CREATES_PER_MINUTE = inf\nMAX_UPDATES_PER_SECOND = inf\nWHISPER_SPARSE_CREATE = True\n\
                 LINE_RECEIVER_INTERFACE = 127.0.0.1\nLINE_RECEIVER_PORT = {line}\n\
                 PICKLE_RECEIVER_INTERFACE = 127.0.0.1\nPICKLE_RECEIVER_PORT = {pickle}\n\
                 CACHE_QUERY_INTERFACE = 127.0.0.1\nCACHE_QUERY_PORT = {query}\n"
            ),
        );
        put("storage-schemas.conf", "[all]\npattern = .*\nretentions = 1s:1h\n".to_owned());
        std::fs::copy(aggregation, dir.path().join("storage-aggregation.conf")).expect("a file to copy");
        put(
            "settings_of_this_test.py",
            format!(
                "STORAGE_DIR = CONF_DIR = '{home}'\nWHISPER_DIR = '{home}/whisper'\nLOG_DIR = '{home}/log'\n\
                 INDEX_FILE = '{home}/index'\nGRAPHITE_ROOT = '/usr/share/graphite-web'\n\
                 STATIC_ROOT = '/usr/share/graphite-web/static'\nSECRET_KEY = 'of a test'\nTIME_ZONE = 'UTC'\n\
                 LOG_ROTATION = False\nALLOWED_HOSTS = ['*']\nCARBONLINK_HOSTS = ['127.0.0.1:{query}:a']\n\
                 DATABASES = {{'default': {{'ENGINE': 'django.db.backends.sqlite3', 'NAME': '{home}/db'}}}}\n"
            ),
        );
        put("serve.py", SERVE.to_owned());
        let address = format!("127.0.0.1:{line}");
        let mut g = Graphite { dir, servers: Vec::new(), address, web };
        let config = format!("--config={}/carbon.conf", g.dir.path().display());
        g.spawn(Command::new("carbon-cache").args([&config, "--nodaemon", "start"]), "carbon");
        g.run(g.python("graphite-manage").args(["migrate", "--run-syncdb"]));
        let mut serve = g.python(&format!("{}/serve.py", g.dir.path().display()));
        g.spawn(serve.arg(web.to_string()), "web");
        wait_until("carbon-cache listens", crate::PATIENCE, || TcpStream::connect(&g.address).is_ok());
        wait_until("graphite-web listens", crate::PATIENCE, || {
            TcpStream::connect(("127.0.0.1", web)).is_ok()
        });
        g
    }

    /// A call of Python with graphite-web's settings; `script` is a path, or the name of a program of the system.
    fn python(&self, script: &str) -> Command {
        let script = if script.contains('/') { script.to_owned() } else { format!("/usr/bin/{script}") };
        let mut c = Command::new(PYTHON);
        c.arg(script).env("PYTHONPATH", self.dir.path()).env("PYTHONDONTWRITEBYTECODE", "1");
        c.env("GRAPHITE_SETTINGS_MODULE", "settings_of_this_test").env("PYTHONWARNINGS", "ignore");
        c
    }

    fn log(&self, name: &str) -> Stdio {
        let file = std::fs::File::create(self.dir.path().join(name)).expect("our own directory");
        file.into()
    }

    fn spawn(&mut self, c: &mut Command, name: &str) {
        c.stdin(Stdio::null())
            .stdout(self.log(&format!("{name}.out")))
            .stderr(self.log(&format!("{name}.err")));
        let child = c.spawn().unwrap_or_else(|e| panic!("{c:?}: {e}: scripts/setup installs it"));
        self.servers.push(child);
    }

    fn run(&self, c: &mut Command) {
        let out = c.stdin(Stdio::null()).output();
        let out = out.unwrap_or_else(|e| panic!("{c:?}: {e}: scripts/setup installs it"));
        assert!(out.status.success(), "{c:?}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// What graphite-web answers to a GET, or to a POST if there is a body.
    ///
    /// # Panics
    /// When that is an error.
    pub fn web(&self, path: &str, body: Option<&str>) -> Vec<u8> {
        let (head, body) = http(self.web, path, body);
        let ok = head.starts_with("HTTP/1.0 200") || head.starts_with("HTTP/1.1 200");
        assert!(ok, "{path}: {head}\n{}", String::from_utf8_lossy(&body));
        body
    }

    /// The series that a target names, of the last minutes: name and values that are there.
    pub fn render(&self, target: &str) -> Vec<(String, Vec<f64>)> {
        let path = format!("/render?format=json&from=-10min&target={}", encoded(target));
        let body = self.web(&path, None);
        let all: Value = serde_json::from_slice(&body)
            .unwrap_or_else(|e| panic!("{target}: {e}: {}", String::from_utf8_lossy(&body)));
        let series = all.as_array().expect("a list of series").iter();
        let values = |s: &Value| {
            let points = s["datapoints"].as_array().expect("points").iter();
            points.filter_map(|p| p[0].as_f64()).collect()
        };
        series.map(|s| (s["target"].as_str().unwrap_or_default().to_owned(), values(s))).collect()
    }
}

impl Drop for Graphite {
    fn drop(&mut self) {
        for s in &mut self.servers {
            let _ = s.kill();
            let _ = s.wait();
        }
    }
}

/// Head and body of what is answered at a port of this machine.
///
/// # Panics
/// When nothing is.
pub fn http(port: u16, path: &str, body: Option<&str>) -> (String, Vec<u8>) {
    let mut s = TcpStream::connect(("127.0.0.1", port)).unwrap_or_else(|e| panic!("port {port}: {e}"));
    s.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
    let request = match body {
        None => format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n"),
        Some(b) => format!(
            "POST {path} HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{b}",
            b.len()
        ),
    };
    s.write_all(request.as_bytes()).expect("a request");
    let mut all = Vec::new();
    s.read_to_end(&mut all).unwrap_or_else(|e| panic!("{path}: {e}"));
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("{path}: no head"));
    (String::from_utf8_lossy(&all[..end]).into_owned(), all[end + 4..].to_vec())
}

/// As it stands in a URL.
pub fn encoded(text: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-_.~".contains(b);
    text.bytes().map(|b| if plain(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

/// Ports that nobody has at this moment.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let all: Vec<TcpListener> = (0..N).filter_map(|_| TcpListener::bind("127.0.0.1:0").ok()).collect();
    let ports: Vec<u16> = all.iter().filter_map(|l| Some(l.local_addr().ok()?.port())).collect();
    ports.try_into().expect("ports of loopback")
}
