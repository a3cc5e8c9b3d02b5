//! What a mirror of one machine leaves when it is stopped, so that the next process can go on without a walk: where the
//! detector stopped, and what is not done. Only of use if that detector misses nothing while nobody reads; the ring of the
//! shim does not, as long as only what programs with the library do counts.

use super::detect::How;
use super::diary::Diary;
use super::{Wish, tag_of};
use crate::job::Request;
use rustix::fs::fstat;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;
use std::time::Instant;
use treeferry_core::wire::{self, MessageKind};
use treeferry_core::{RelPath, escape};
use treeferry_event::Rest;
use treeferry_mirror::{Pending, Sign};
use treeferry_service::state_dir::replace;
use treeferry_worker::{Job, KeptNames};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What was left.
#[derive(Serialize, Deserialize)]
pub struct Left {
    /// Of the program: another one may write something else.
    version: String,
    /// What was asked for, and of which directories.
    tag: u64,
    /// When something was last changed in DST itself: by others since, if this is another time.
    target_ctime: (i64, i64),
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
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return None,
            Err(e) => return self.useless(&e.to_string()),
        };
        let left = match wire::decode::<Left>(MessageKind::MirrorLeft, &text) {
            Ok(left) => left,
            Err(e) => return self.useless(&e.to_string()),
        };
        let same = left.version == VERSION && left.tag == self.tag && !job.made_target();
        match same && target_ctime(job) == Some(left.target_ctime) {
            true => Some(left),
            false => self.useless("it is of other directories, or of another wish, or DST was changed since"),
        }
    }

    fn useless(&self, why: &str) -> Option<Left> {
        let path = escape::bytes(self.path.as_os_str().as_encoded_bytes());
        tracing::info!("what the last process has left in {path} is of no use, so all is walked: {why}");
        None
    }

    /// Leaves it for the next. `reader`: where the detector stopped; `None`: nothing can be left.
    pub fn leave(&self, reader: Option<Rest>, pending: &Pending, job: &Job) {
        let left = reader.zip(target_ctime(job)).zip(pending.figures().complete_up_to).zip(job.names_kept());
        let written = match left {
            None => std::fs::remove_file(&self.path),
            Some((((reader, target_ctime), complete_up_to), names)) => {
                let (version, tag, signs) = (VERSION.to_owned(), self.tag, pending.left());
                let left = Left { version, tag, target_ctime, reader, complete_up_to, signs, names };
                replace(&self.path, &wire::encode(MessageKind::MirrorLeft, &left))
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

fn target_ctime(job: &Job) -> Option<(i64, i64)> {
    let stat = fstat(job.target()?.fd()).ok()?;
    Some((stat.st_ctime as i64, stat.st_ctime_nsec as i64))
}
