//! The binary under test, in an environment that is the same for everybody.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Which binary to test; unset: the newest of [`BUILT`].
const VARIABLE: &str = "TREEFERRY_BIN";

/// Where the workspace's own builds are.
const BUILT: [&str; 3] =
    ["../target/debug/treeferry", "../target/quick/treeferry", "../target/release/treeferry"];

/// Path of the binary under test.
///
/// # Panics
/// When there is none: a test of nothing would prove nothing.
pub fn bin() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| match env::var_os(VARIABLE) {
        Some(given) => {
            let path = PathBuf::from(given);
            assert!(path.is_file(), "{VARIABLE} is {}, which is no file", path.display());
            path
        }
        None => BUILT
            .iter()
            .map(|b| Path::new(env!("CARGO_MANIFEST_DIR")).join(b))
            .filter_map(|b| Some((b.metadata().ok()?.modified().ok()?, b)))
            .max()
            .map(|(_, b)| b)
            .unwrap_or_else(|| panic!("no binary to test: run `cargo build`, or set {VARIABLE}")),
    })
}

/// Says where events are written.
const LOG_DIR: &str = "TREEFERRY_LOG_DIR";

/// A copy of the binary at this path, for a user who may not enter where it was built.
///
/// Another process writes it: if one of ours had it open for writing, a child that another test forks at that moment
/// would have it open too, and to execute it would fail with ETXTBSY.
///
/// # Panics
/// When it cannot be made.
#[track_caller]
pub fn install(path: &Path) {
    let status =
        Command::new("install").args(["-m", "755"]).arg(bin()).arg(path).status().expect("install runs");
    assert!(status.success(), "cannot install {} as {}: {status}", bin().display(), path.display());
}

/// A call of the binary with these words, nothing on standard input, and none of the variables that it reads.
pub fn command<I>(words: I) -> Command
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let mut c = Command::new(bin());
    c.args(words);
    neutral(&mut c);
    c
}

/// Gives a command that calls the binary nothing on standard input, and none of the variables that it reads; events go
/// where they are in nobody's way.
pub fn neutral(c: &mut Command) -> &mut Command {
    c.stdin(Stdio::null()).env("LC_ALL", "C");
    for (name, _) in env::vars_os().filter(|(n, _)| n.as_encoded_bytes().starts_with(b"TREEFERRY_")) {
        c.env_remove(name);
    }
    // jobs of tests that run beside this one are none of its business
    c.env(LOG_DIR, log_dir()).env("TREEFERRY_RUNTIME_DIR", "")
}

/// Where events of jobs go that no test asks for, so that they do not go where those of this machine are. Everybody may
/// write there, since some tests run as others.
fn log_dir() -> &'static Path {
    const NAME: &str = "ferry-e2e-events-";
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let place = env::temp_dir();
        // nobody removes that of a process at its end, so those of dead ones are removed now
        for old in std::fs::read_dir(&place).into_iter().flatten().flatten() {
            let pid = old.file_name().to_str().and_then(|n| n.strip_prefix(NAME)?.parse::<u32>().ok());
            if pid.is_some_and(|p| !Path::new(&format!("/proc/{p}")).exists()) {
                let _ = std::fs::remove_dir_all(old.path());
            }
        }
        let dir = place.join(format!("{NAME}{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
        std::fs::set_permissions(&dir, all).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        dir
    })
}

/// The library that programs are started with so that they tell what they change, built as it is for use.
///
/// # Panics
/// When it cannot be built.
pub fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/build-shim");
        let out = std::process::Command::new(script).output().expect("scripts/build-shim runs");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        PathBuf::from(String::from_utf8_lossy(&out.stdout).trim())
    })
}
