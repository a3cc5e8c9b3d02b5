//! What a mirror has for itself beside the two trees: that it alone keeps DST, its ring, and the index of its walks.

use super::Wish;
use super::desk::Desk;
use super::detect::How;
use super::diary::Diary;
use crate::job::Request;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::DirBuilder;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::{Duration, Instant};
use treeferry_core::escape;
use treeferry_core::wire::{self, MessageKind};
use treeferry_event::{Index, Polling};
use treeferry_worker::{Job, OpenError};

/// For so long it is tried again whether another mirror still holds DST.
const HELD: Duration = Duration::from_secs(2);

/// How the source is walked, if it is.
pub fn polling(wish: &Wish, request: &Request, job: &Job, diary: &Diary) -> Result<Polling, OpenError> {
    let mut polling = Polling::every(wish.poll_every);
    polling.index =
        wish.index.clone().or_else(|| diary.beside("index")).filter(|_| wish.detect.contains(&How::Poll));
    polling.tag = tag_of(request, job);
    let Some(index) = &polling.index else { return Ok(polling) };
    let dir = dir_of(index);
    if wish.index.is_none() {
        // names of users are in it, and nothing else limits the mode once the job has cleared the umask
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| unusable(dir, &e))?;
    }
    is_elsewhere("index", index, request)?;
    // what an earlier process knew, of another DST perhaps
    polling.is_ours = wish.index.is_none();
    polling.anew = job.made_target() || wish.rescan;
    Ok(polling)
}

/// Holds DST: two mirrors that remove what their own SRC does not have would take turns in removing each other's copy. With
/// `--no-delete` several may share it. A file system without flock(2) is none of ours to insist on.
pub fn hold(job: &Job) -> Result<Option<OwnedFd>, OpenError> {
    let Some(target) = job.target() else { return Ok(None) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(dir) = rustix::fs::openat(target.fd(), ".", flags, Mode::empty()) else { return Ok(None) };
    let how = match job.spec().passes.delete {
        true => FlockOperation::NonBlockingLockExclusive,
        false => FlockOperation::NonBlockingLockShared,
    };
    let began = Instant::now();
    let mut held = rustix::fs::flock(&dir, how);
    // one that was killed, or told to end, may be about to be gone
    while held == Err(Errno::WOULDBLOCK) && began.elapsed() < HELD {
        std::thread::sleep(HELD / 20);
        held = rustix::fs::flock(&dir, how);
    }
    match held {
        Err(Errno::WOULDBLOCK) => Err(is_held(target.path(), "another mirror")),
        _ => Ok(Some(dir)),
    }
}

/// What is said to whoever may not share DST.
pub fn is_held(dst: &Path, by: &str) -> OpenError {
    OpenError::Hindered(format!(
        "{}: {by} is kept there: see 'treeferry status', and end it first (several may share DST with --no-delete)",
        escape::bytes(dst.as_os_str().as_encoded_bytes())
    ))
}

fn dir_of(file: &Path) -> &Path {
    file.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn unusable(path: &Path, e: &std::io::Error) -> OpenError {
    OpenError::Hindered(format!("{}: {e}", escape::bytes(path.as_os_str().as_encoded_bytes())))
}

/// A file of ours must be in neither tree.
pub fn is_elsewhere(what: &str, file: &Path, request: &Request) -> Result<(), OpenError> {
    let dir = dir_of(file);
    // a ring's directory is made when there is none
    let dir = match dir.canonicalize() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && what == "ring" => return Ok(()),
        dir => dir.map_err(|e| unusable(file, &e))?,
    };
    for tree in [&request.spec.src, &request.spec.dst] {
        if tree.canonicalize().is_ok_and(|t| dir.starts_with(t)) {
            let why =
                format!("the {what} must be neither in SRC nor in DST: name a file elsewhere with --{what}");
            return Err(OpenError::Usage(why));
        }
    }
    Ok(())
}

/// What tells a mirror from another, which needs a walk over everything: what is asked for, and of which directories.
pub fn tag_of(request: &Request, job: &Job) -> u64 {
    let mut tag = DefaultHasher::new();
    tag.write(&wire::encode(MessageKind::Spec, &request.spec));
    (job.roots_text(), job.target().map(|d| d.identity().dev)).hash(&mut tag);
    tag.finish()
}

/// Keeps the index of walks for the next process, if what they have told is on the target.
pub fn keep_index(index: &Index, desk: &Desk) {
    let (done_before, failing) = {
        let pending = desk.pending();
        (pending.done_before(), pending.figures().failing)
    };
    // what fails would have to be told again
    if failing > 0 {
        return;
    }
    if let Err(e) = index.keep(|began| desk.moment_of(began) <= done_before) {
        tracing::warn!("the index of walks cannot be kept: {e}");
    }
}
