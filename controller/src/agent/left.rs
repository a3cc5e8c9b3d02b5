//! What an agent leaves of a mirror when it is stopped, so that the next one on this node goes on where it ended and nothing
//! need be walked: where its detector stopped, and the number of the last message. Of use if that detector misses nothing
//! while nobody reads, as with the ring of the shim, and if the broker has confirmed all messages.

use crate::watching::detect::How;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use treeferry_core::wire::{self, MessageKind};
use treeferry_core::{JobId, escape};
use treeferry_event::Rest;
use treeferry_service::state_dir::replace;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Of the program: another one may write something else.
    version: String,
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
    /// Of an agent that ends.
    pub fn new(wish: u64, life: u64, number: u64, rest: Rest) -> Left {
        Left { version: VERSION.to_owned(), wish, life, number, rest }
    }

    /// Reads what was left for this wish; `None`: nothing that is of use.
    pub fn read(path: &Path, wish: u64, detect: &[How]) -> Option<Left> {
        if detect != [How::Shim] {
            return None;
        }
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => {
                tracing::info!("{} cannot be read: {e}", shown(path));
                return None;
            }
        };
        match wire::decode::<Left>(MessageKind::MirrorLeft, &text) {
            Ok(left) => Some(left).filter(|l| l.version == VERSION && l.wish == wish),
            Err(e) => {
                tracing::info!("{} is of no use: {e}", shown(path));
                None
            }
        }
    }

    /// Leaves it.
    pub fn write(&self, path: &Path) {
        if let Err(e) = replace(path, &wire::encode(MessageKind::MirrorLeft, self)) {
            tracing::warn!("all has to be walked when this agent is started again: {}: {e}", shown(path));
        }
    }
}

/// The file of an agent for a mirror, below the directory of events.
pub fn path(dir: &Path, agent: &str, mirror: JobId) -> PathBuf {
    dir.join("mirrors").join(format!("{mirror}.{agent}.left"))
}

fn shown(path: &Path) -> String {
    escape::bytes(path.as_os_str().as_encoded_bytes()).to_string()
}
