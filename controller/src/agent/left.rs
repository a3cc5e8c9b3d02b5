//! What an agent leaves of a mirror when it is stopped, so that the next one on this node goes on where it ended and nothing
//! need be walked: where its detector stopped, and the number of the last message. Of use if that detector misses nothing
//! while nobody reads, as with the ring of the shim, and if the broker has confirmed all messages.

use crate::watching::detect::How;
use crate::watching::rest::{leave, read_left};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use treeferry_core::{JobId, escape};
use treeferry_event::Rest;

/// What was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// What was asked for.
    pub wish: u64,
    /// Of the agent.
    pub life: u64,
    /// Of the last message in which something was said.
    pub number: u64,
    /// Where the detector stopped.
    pub rest: Rest,
}

impl Left {
    /// Reads what was left for this wish; `None`: nothing that is of use.
    pub fn read(path: &Path, wish: u64, detect: &[How]) -> Option<Left> {
        if detect != [How::Shim] {
            return None;
        }
        read_left::<Left>(path).filter(|l| l.wish == wish)
    }

    /// Takes away what was left; whether nobody will read it again.
    pub fn use_up(path: &Path) -> bool {
        match std::fs::remove_file(path) {
            Ok(()) => true,
            Err(e) if e.kind() == ErrorKind::NotFound => true,
            Err(e) => {
                let path = escape::bytes(path.as_os_str().as_encoded_bytes());
                tracing::warn!("all has to be walked: {path} cannot be removed: {e}");
                false
            }
        }
    }

    /// Leaves it.
    pub fn write(&self, path: &Path) {
        if let Err(e) = leave(path, self) {
            let path = escape::bytes(path.as_os_str().as_encoded_bytes());
            tracing::warn!("all has to be walked when this agent is started again: {path}: {e}");
        }
    }
}

/// The file of an agent for a mirror, below the directory of events.
pub fn path(dir: &Path, agent: &str, mirror: JobId) -> PathBuf {
    dir.join("mirrors").join(format!("{mirror}.{agent}.left"))
}
