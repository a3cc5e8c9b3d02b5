//! Where jobs without a cluster leave what is to be told of them.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use treeferry_core::config::LogConfig;
use treeferry_service::state_dir;

/// What was given, else the environment, else the configuration, else where such things are by custom. An empty name
/// means nowhere, and so does nothing at all.
pub fn log_dir(given: Option<&OsStr>, config: &LogConfig) -> Option<PathBuf> {
    let given = given.map(OsString::from).or_else(|| std::env::var_os(state_dir::VARIABLE));
    let is_root = || treeferry_fs::Privilege::of_this_process().uid == 0;
    let named = given.map(PathBuf::from).or_else(|| config.dir.clone());
    named.or_else(|| state_dir::default_dir(is_root())).filter(|d| !d.as_os_str().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_wins_and_an_empty_name_means_nowhere() {
        let config = LogConfig { dir: Some("/y".into()) };
        assert_eq!(log_dir(Some(OsStr::new("/x")), &config), Some("/x".into()));
        assert_eq!(log_dir(Some(OsStr::new("")), &config), None);
    }
}
