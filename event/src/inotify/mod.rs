//! inotify(7): a watch on every directory below the source. Needs no privilege.

mod changes;
mod events;
mod kernel;
mod nodes;
mod watches;

use crate::batch::Batch;
use crate::beneath::Root;
use crate::error::Error;
use crate::mounts::Mounts;
use crate::{Detector, Excluded, Hint, News, Waker, What};
use changes::Changes;
use rustix::event::PollFlags;
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::path::Path;
use std::time::{Duration, Instant};
use treeferry_core::path::RelPath;
use watches::Watches;

/// Room for the events of one read.
const BUFFER_BYTES: usize = 256 << 10;
/// After so many reads the caller has its turn, even if there is more.
const READS: usize = 64;
/// How long the other half of a rename may take. The kernel puts both into the queue in one system call.
const OTHER_HALF: Duration = Duration::from_millis(5);

/// Detects changes with inotify(7).
///
/// Limits: of a directory that is mounted at two places below the source, what is excluded at the first is not told for the
/// second, nor is what is mounted within one of them only.
/// Directories that may not be read are not watched, which is logged, until their permissions change. After a
/// directory was renamed, names in it may be told that are excluded only under its new name.
pub struct Inotify {
    changes: Changes,
    mounts: Mounts,
    waker: Waker,
    buffer: Vec<u8>,
    batch: Batch,
}

/// Watches all directories below `root`. When this returns, no change will be missed.
pub fn inotify(root: &Path, excluded: Excluded) -> Result<Inotify, Error> {
    let root = Root::open(root)?;
    let mounts = Mounts::new(&root)?;
    Ok(Inotify {
        mounts,
        changes: Changes::new(Watches::new(root, excluded)?),
        waker: Waker::new()?,
        buffer: vec![0; BUFFER_BYTES],
        batch: Batch::default(),
    })
}

impl Inotify {
    /// Reads once what there is. `None`: there was nothing.
    fn read_once(&mut self, tell: &mut dyn FnMut(News)) -> Result<Option<()>, Error> {
        let mounted = self.mounts.changes(&self.changes.watches.root)?;
        if mounted.iter().any(|point| self.changes.watches.has_twins_below(point)) {
            // the first place of a directory that has two may be gone, and with it the watch of both
            self.tell(tell);
            self.changes.begin_again()?;
            tell(News::Lost(
                "something was mounted or unmounted at or above a directory that is mounted at two places"
                    .to_owned(),
            ));
        } else {
            for point in mounted {
                self.changes.mounted(&point, &mut self.batch)?;
            }
        }
        let length = match rustix::io::read(&self.changes.watches.queue, &mut self.buffer[..]) {
            Ok(length) => length,
            Err(Errno::AGAIN) => {
                self.tell(tell);
                return Ok(None);
            }
            Err(Errno::INTR) => return Ok(Some(())),
            Err(errno) => return Err(Error::Call { call: "read", errno }),
        };
        let mut rest = self.buffer.get(..length).unwrap_or_default();
        let mut result = Ok(());
        while let (Ok(()), Some(event)) = (&result, events::next(&mut rest)) {
            result = self.changes.take(&event, &mut self.batch);
            if self.changes.overflowed {
                break;
            }
        }
        self.changes.forget_open();
        self.tell(tell);
        result?;
        if std::mem::take(&mut self.changes.overflowed) {
            self.changes.begin_again()?;
            tell(News::Lost(
                "the queue of inotify overflowed (fs.inotify.max_queued_events makes it longer)".to_owned(),
            ));
        }
        if let Some(why) = self.changes.lost.take() {
            tell(News::Lost(why.to_owned()));
        }
        Ok(Some(()))
    }

    /// Tells what there is, under each path under which it is seen.
    fn tell(&mut self, tell: &mut dyn FnMut(News)) {
        let watches = &self.changes.watches;
        self.batch.tell(&mut |news| {
            let also = match &news {
                News::Hint(hint) => seen_also(watches, hint),
                _ => Vec::new(),
            };
            tell(news);
            also.into_iter().for_each(|hint| tell(News::Hint(hint)));
        });
    }

    fn wait(&self, timeout: Duration) -> Result<(), Error> {
        let queue = (self.changes.watches.queue.as_fd(), PollFlags::IN);
        self.waker.wait(&[queue, (self.mounts.fd(), Mounts::CHANGED)], timeout)
    }
}

impl Detector for Inotify {
    fn name(&self) -> &'static str {
        "inotify"
    }

    fn read(&mut self, timeout: Duration, tell: &mut dyn FnMut(News)) -> Result<(), Error> {
        if self.changes.gone {
            return Err(Error::Gone(self.changes.watches.root.path().to_owned()));
        }
        let mut patient = true;
        if self.changes.is_settled() {
            self.wait(timeout)?;
        }
        for _ in 0..READS {
            let before = Instant::now();
            if self.read_once(tell)?.is_some() {
                patient = true;
            } else if self.changes.is_gone() {
                tell(News::Lost("the source directory was removed or unmounted".to_owned()));
                break;
            } else if self.changes.is_settled() {
                tell(News::UpTo(before));
                break;
            } else if patient {
                patient = false;
                self.wait(OTHER_HALF)?;
            } else {
                let result = self.changes.settle(&mut self.batch);
                self.tell(tell);
                result?;
            }
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

/// The same as a hint says, of where else that is seen.
fn seen_also(watches: &Watches, hint: &Hint) -> Vec<Hint> {
    let of = |path: &RelPath, what: &What| {
        let all = watches.seen_also(path).into_iter();
        all.map(|path| Hint { path, what: what.clone() }).collect::<Vec<_>>()
    };
    match &hint.what {
        What::Moved { from, dir } => [from, &hint.path].iter().flat_map(|p| of(p, &whole(*dir))).collect(),
        what => of(&hint.path, what),
    }
}

/// What is said of an entry that came or went as a whole.
fn whole(is_dir: bool) -> What {
    if is_dir { What::Tree } else { What::Changed }
}
