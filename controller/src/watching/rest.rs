//! What a mirror of one machine leaves when it is stopped, so that the next process can go on without a walk: where the
//! detector stopped, and what is not done. Only of use if that detector misses nothing while nobody reads; the ring of the
//! shim does not, as long as only what programs with the library do counts.

use super::Wish;
use super::detect::How;
use super::diary::Diary;
use super::files::tag_of;
use crate::job::Request;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;
use treeferry_core::wire::{self, MessageKind};
use treeferry_core::{RelPath, escape};
use treeferry_event::Rest;
use treeferry_fs::meta::fstat;
use treeferry_mirror::{Pending, Sign};
use treeferry_service::state_dir::replace;
use treeferry_worker::{Job, KeptNames};

/// Of what is left by this program: another one may write something else. Changes with any of the types in it.
const FORMAT: u64 = 2;

/// What was left.
#[derive(Serialize, Deserialize)]
pub struct Left {
    /// What was asked for, and of which directories.
    tag: u64,
    /// When something was last changed in DST itself: by others since, if this is another time.
    target_changed: (i64, u32),
    /// Where the detector stopped.
    pub reader: Rest,
    /// Up to when the mirror was complete (µs since 1970).
    pub complete_up_to: u64,
    /// What was not done.
    signs: Vec<(RelPath, Sign)>,
    /// Names of files that have several.
    pub names: KeptNames,
}

/// Where it is left.
pub struct Place {
    path: PathBuf,
    tag: u64,
}

impl Place {
    /// That of a mirror; `None`: it detects changes by something that hears nothing while nobody reads, or nothing is kept
    /// of it.
    pub fn of(wish: &Wish, request: &Request, job: &Job, diary: &Diary) -> Option<Place> {
        let path = diary.beside("left").filter(|_| wish.detect == [How::Shim])?;
        Some(Place { path, tag: tag_of(request, job) })
    }

    /// What an earlier process has left, if it is of use to this one.
    pub fn read(&self, job: &Job) -> Option<Left> {
        let left = read_left::<Left>(&self.path)?;
        let why = if left.tag != self.tag || job.made_target() {
            "it is of other directories, or of another wish"
        } else if job.target_changed().map(|t| (t.sec, t.nsec)) != Some(left.target_changed) {
            "something came to DST itself, or went, since"
        } else {
            return Some(left);
        };
        useless(&self.path, why);
        None
    }

    /// Leaves it for the next. `reader`: where the detector stopped; `None`: nothing can be left.
    pub fn leave(&self, reader: Option<Rest>, pending: &Pending, job: &Job) {
        let target_changed =
            job.target().and_then(|d| fstat(d.fd()).ok()).map(|m| (m.ctime.sec, m.ctime.nsec));
        let left = reader.zip(target_changed).zip(pending.figures().complete_up_to).zip(job.names_kept());
        let written = match left {
            None => std::fs::remove_file(&self.path),
            Some((((reader, target_changed), complete_up_to), names)) => {
                let (tag, signs) = (self.tag, pending.left());
                leave(&self.path, &Left { tag, target_changed, reader, complete_up_to, signs, names })
            }
        };
        match written {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                let path = escape::bytes(self.path.as_os_str().as_encoded_bytes());
                tracing::warn!("the next process has to walk, for {path} cannot be written: {e}");
            }
            _ => {}
        }
    }
}

impl Left {
    /// Tells what was not done once more.
    pub fn tell(&self, pending: &mut Pending) {
        let now = Instant::now();
        self.signs.iter().for_each(|(path, sign)| pending.sign(now, path.clone(), *sign));
    }
}

/// Writes what is left into a file, so that it is known when it is read whether it is whole.
pub fn leave<T: Serialize>(path: &Path, left: &T) -> io::Result<()> {
    let body = wire::encode(MessageKind::MirrorLeft, left);
    replace(path, &[&sum(&body).to_le_bytes()[..], &body].concat())
}

/// Reads it. `None`: there is none, or it is of no use.
pub fn read_left<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
        Err(e) => {
            useless(path, &e.to_string());
            return None;
        }
    };
    let whole = text.split_first_chunk().filter(|(head, body)| u64::from_le_bytes(**head) == sum(body));
    let left = whole.map(|(_, body)| wire::decode(MessageKind::MirrorLeft, body));
    match left {
        Some(Ok(left)) => Some(left),
        Some(Err(e)) => {
            useless(path, &e.to_string());
            None
        }
        None => {
            useless(path, "it is damaged, or of another version of this program");
            None
        }
    }
}

fn sum(body: &[u8]) -> u64 {
    let mut sum = DefaultHasher::new();
    sum.write_u64(FORMAT);
    sum.write(env!("CARGO_PKG_VERSION").as_bytes());
    sum.write(body);
    sum.finish()
}

fn useless(path: &Path, why: &str) {
    let path = escape::bytes(path.as_os_str().as_encoded_bytes());
    tracing::info!("what the last process has left in {path} is of no use, so all is walked: {why}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_whole_is_of_no_use() {
        let path = std::env::temp_dir().join(format!("treeferry-left-{}", std::process::id()));
        assert_eq!(read_left::<Vec<u32>>(&path), None, "there is none");
        leave(&path, &vec![1_u32, 2, 3]).unwrap();
        assert_eq!(read_left(&path), Some(vec![1_u32, 2, 3]));
        let text = std::fs::read(&path).unwrap();
        for at in 0..text.len() {
            let mut other = text.clone();
            other[at] ^= 1;
            std::fs::write(&path, &other).unwrap();
            assert_eq!(read_left::<Vec<u32>>(&path), None, "{at}");
            std::fs::write(&path, &text[..at]).unwrap();
            assert_eq!(read_left::<Vec<u32>>(&path), None, "{at}");
        }
        std::fs::remove_file(&path).unwrap();
    }
}
