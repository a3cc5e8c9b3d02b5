//! Reads the configuration file. What may stand in it is said in core; here is only the file.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use treeferry_core::config::Config;
use treeferry_core::escape;

/// Names the file of options that `--config` gives.
pub const VARIABLE: &str = "TREEFERRY_CONFIG";

/// Why there is no configuration. Trying again never helps.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It was named and is not there, or is not for us to read, or is not UTF-8.
    #[error("configuration file {}: {why}", shown(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// It has passwords in it, and everybody can read it.
    #[error("configuration file {} has passwords in it, and others can read it: chmod 600 it", shown(path))]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// It is not TOML, or has a key or a value that is not known.
    #[error("configuration file {}: {why}", shown(path))]
    Parse {
        /// The file.
        path: PathBuf,
        /// Line and key.
        why: String,
    },
}

/// Reads the file; no file means that every key has its default.
pub fn load(path: Option<&Path>) -> Result<Config, ConfigError> {
    let Some(path) = path else { return Ok(Config::default()) };
    let text =
        std::fs::read_to_string(path).map_err(|why| ConfigError::Read { path: path.to_owned(), why })?;
    let config = Config::parse(&text)
        .map_err(|why| ConfigError::Parse { path: path.to_owned(), why: why.trim_end().to_owned() })?;
    let mode =
        std::fs::metadata(path).map_err(|why| ConfigError::Read { path: path.to_owned(), why })?.mode();
    if config.cluster.is_secret() && mode & 0o077 != 0 {
        return Err(ConfigError::Exposed { path: path.to_owned() });
    }
    Ok(config)
}

fn shown(path: &Path) -> String {
    escape::bytes(path.as_os_str().as_encoded_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_named_must_be_there_and_be_understood() {
        assert_eq!(load(None).unwrap(), Config::default());
        let e = load(Some(Path::new("/nonexistent/treeferry.toml"))).unwrap_err();
        assert!(
            e.to_string().starts_with("configuration file /nonexistent/treeferry.toml: No such file"),
            "{e}"
        );
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let e = load(Some(&here)).unwrap_err();
        assert!(e.to_string().contains("unknown field"), "{e}");
    }
}
