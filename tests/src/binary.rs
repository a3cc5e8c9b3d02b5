//! The binary under test, in an environment that is the same for everybody.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Which binary to test; unset: the first of [`BUILT`] that is there.
const VARIABLE: &str = "TREEFERRY_BIN";

/// Where the workspace's own builds are, the one meant for tests first.
const BUILT: [&str; 2] = ["../target/quick/treeferry", "../target/release/treeferry"];

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
            .find(|b| b.is_file())
            .unwrap_or_else(|| {
                panic!("no binary to test: run `cargo build --profile quick -p treeferry`, or set {VARIABLE}")
            }),
    })
}

/// A call of the binary with these words, nothing on standard input, and none of the variables that it reads.
pub fn command<I>(words: I) -> Command
where
    I: IntoIterator,
    I::Item: AsRef<OsStr>,
{
    let mut c = Command::new(bin());
    c.args(words).stdin(Stdio::null()).env("LC_ALL", "C");
    for (name, _) in env::vars_os().filter(|(n, _)| n.as_encoded_bytes().starts_with(b"TREEFERRY_")) {
        c.env_remove(name);
    }
    keep_apart(&mut c);
    c
}

/// Has what jobs leave behind go to a place of the tests' own, where the newest alone are kept.
pub fn keep_apart(c: &mut Command) -> &mut Command {
    c.env("TREEFERRY_LOG_DIR", env::temp_dir().join("ferry-e2e-log"))
}
