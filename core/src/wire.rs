//! The versioned wire format of tasks and outcomes.
//!
//! A message is an envelope of four bytes, `b"TF"`, the kind and the version, and then the body in postcard.
//! Rules: the golden files under `core/tests/golden/` are what released versions wrote, and are never edited;
//! a change of any type in here is a new version and a new set of files.
//!
//! Version 1: the first.

use crate::outcome::Outcome;
use crate::task::Task;
use serde::{Serialize, de::DeserializeOwned};

const MAGIC: [u8; 2] = *b"TF";
/// The version that is written.
pub const VERSION: u8 = 1;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// A [`Task`].
    Task = 1,
    /// An [`Outcome`].
    Outcome = 2,
    /// Tasks that one worker runs, with the joins that only they know of.
    Bundle = 3,
    /// A [`NewTask`](crate::NewTask).
    NewTask = 4,
    /// A [`Failure`](crate::Failure).
    Failure = 5,
    /// What a message of the broker says: job and task.
    Errand = 6,
    /// A [`JobSpec`](crate::JobSpec).
    Spec = 7,
    /// A [`Change`](crate::Change).
    Change = 8,
    /// What those who detect and those who look tell whoever keeps a mirror.
    MirrorNews = 9,
    /// What is to be looked at for a mirror.
    MirrorErrand = 10,
    /// What a mirror of one machine leaves for the process that goes on with it. Read by the same program only.
    MirrorLeft = 11,
}

/// Why bytes are not a message of ours. Trying again never helps.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// No envelope.
    #[error("not a treeferry message")]
    NotOurs,
    /// Another kind than was expected.
    #[error("message of kind {0} where another was expected")]
    Kind(u8),
    /// Written by a version that this program does not know.
    #[error("message of version {0}; this program knows version {VERSION}: upgrade it")]
    Version(u8),
    /// The body does not decode: cut short, or a value that the types refuse.
    #[error("malformed body: {0}")]
    Body(postcard::Error),
}

/// Writes a task.
pub fn encode_task(t: &Task) -> Vec<u8> {
    encode(MessageKind::Task, t)
}
/// Reads a task.
pub fn decode_task(b: &[u8]) -> Result<Task, WireError> {
    decode(MessageKind::Task, b)
}
/// Writes an outcome.
pub fn encode_outcome(o: &Outcome) -> Vec<u8> {
    encode(MessageKind::Outcome, o)
}
/// Reads an outcome.
pub fn decode_outcome(b: &[u8]) -> Result<Outcome, WireError> {
    decode(MessageKind::Outcome, b)
}

/// Writes a message of a kind.
pub fn encode<T: Serialize>(kind: MessageKind, body: &T) -> Vec<u8> {
    let head = vec![MAGIC[0], MAGIC[1], kind as u8, VERSION];
    // writing into memory cannot fail: no type in here refuses to be written
    postcard::to_extend(body, head).unwrap_or_default()
}

/// Reads a message of a kind.
pub fn decode<T: DeserializeOwned>(kind: MessageKind, b: &[u8]) -> Result<T, WireError> {
    let Some((&[m0, m1, k, v], body)) = b.split_first_chunk::<4>() else { return Err(WireError::NotOurs) };
    if [m0, m1] != MAGIC {
        return Err(WireError::NotOurs);
    }
    if k != kind as u8 {
        return Err(WireError::Kind(k));
    }
    if v != VERSION {
        return Err(WireError::Version(v));
    }
    match postcard::take_from_bytes(body) {
        Ok((t, [])) => Ok(t),
        Ok(_) => Err(WireError::Body(postcard::Error::DeserializeBadEncoding)),
        Err(e) => Err(WireError::Body(e)),
    }
}
