//! Detection of changes below a source directory, as they happen.
//!
//! What a [`Detector`] tells are hints, "look at this path", never the truth: whoever reads them compares states. A
//! hint may come twice, several may be merged into one, and there may be hints of nothing. But no change goes
//! untold without the detector saying so ([`News::Lost`]).
//!
//! Rules for whoever reads hints:
//!
//! - Hints come in the order of the changes, but what is found at a path may already be the result of later ones.
//! - A hint is dealt with once [`News::UpTo`] is told with a moment later than that at which its path was looked at.
//!   Until then what was found there, or was not, may be the result of a rename that is not told yet.
//! - After [`What::Moved`] of a directory, all hints that are not dealt with and speak of paths below `from`, or are
//!   [`What::Tree`] of a directory that holds `from`, count for the new name too. `from` is to be looked at as well:
//!   there may be something again. An exchange of two names is told as two moves, and chains of moves are told as
//!   they were, so what is moved in a copy must be checked to be what is at the new name now (by its inode number).
//! - A file that is [`What::Open`] need never become [`What::Changed`]: `truncate(2)` and `mknod(2)` open nothing.
//!   So it is to be looked at after a while anyway.
//! - Only the name through which a file was changed is told. That its other names (hard links) have changed with it
//!   has to be known from elsewhere. That name may be an excluded one, if the file has others.
//! - What is written through a mapping is told when file and mapping are closed.
//! - After an error of [`Detector::read`] nothing is known since the last [`News::UpTo`]; a new detector is needed.

mod aside;
mod batch;
mod beneath;
mod error;
mod fanotify;
mod inotify;
mod list;
mod mounts;
mod poll;
mod shim;
mod sys;
mod wake;

pub use error::Error;
pub use fanotify::{Fanotify, fanotify};
pub use inotify::{Inotify, inotify};
pub use list::{List, Separator, list};
pub use poll::{Index, Poll, Polling, poll};
pub use shim::{Rest, Shim, default_ring, shim};
pub use wake::Waker;

use std::ffi::CStr;
use std::time::{Duration, Instant};
use treeferry_core::path::RelPath;

/// What is said of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Look now: written and closed, removed, made (symlink, special file, hard link; whatever is complete when it
    /// appears), renamed.
    Changed,
    /// A regular file that was just created, or that is being written and still open: it may soon be `Changed`.
    Open,
    /// Metadata of something changed (mode, owner, times, extended attributes); often followed by `Changed`.
    Attributes,
    /// Metadata of a directory changed, and names in it may have come and gone without a word: what the target has and the
    /// source has not is to be looked at.
    Names,
    /// A directory entry that may be another directory than before (made, moved in, removed): look at it and at all
    /// below it.
    Tree,
    /// It was renamed. Both names are to be looked at.
    Moved {
        /// The name before, also below the source.
        from: RelPath,
        /// It is a directory.
        dir: bool,
    },
}

/// Something to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The entry, relative to the source; [`RelPath::root`] is the source directory itself.
    pub path: RelPath,
    /// What is said of it.
    pub what: What,
}

/// What a detector tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Something to look at.
    Hint(Hint),
    /// Changes were missed: everything below the source may have changed since the last `UpTo`. The text says why.
    Lost(String),
    /// Every change that was complete (its system call had returned) before this moment has been told.
    UpTo(Instant),
}

/// Detects changes below one source directory.
pub trait Detector: Send {
    /// What it is called in messages.
    fn name(&self) -> &'static str;

    /// Waits up to `timeout` for something and tells all that there is; returns early if a [`Waker`] is used.
    ///
    /// Once there is nothing more to tell, it tells [`News::UpTo`]. While changes come faster than they are told
    /// there is no `UpTo`.
    fn read(&mut self, timeout: Duration, tell: &mut dyn FnMut(News)) -> Result<(), Error>;

    /// Whether it will tell nothing any more. Only what reads from something with an end comes to one.
    fn is_over(&self) -> bool {
        false
    }

    /// Whether everything is to be looked at only after the first [`News::UpTo`]: it takes down what there is first.
    fn needs_head_start(&self) -> bool {
        false
    }

    /// Whether it hears of every change, of its kind at least, and so can say up to when all are told. What only passes on
    /// what others say cannot: beside another detector its [`News::UpTo`] is not waited for.
    fn vouches(&self) -> bool {
        true
    }

    /// Whether what it has to tell waits without harm until it is read. What the kernel or programs tell does not.
    fn can_wait(&self) -> bool {
        false
    }

    /// Tells all that there is, for nothing will be read after this, and where whoever reads next is to go on. `None`: it
    /// cannot, and everything may have changed.
    fn rest(&mut self, _tell: &mut dyn FnMut(News)) -> Result<Option<Rest>, Error> {
        Ok(None)
    }

    /// What ends the waiting of [`Detector::read`] from another thread.
    fn waker(&self) -> Waker;
}

/// Which entries are not watched: directory, name in it, whether the entry is a directory. What lies below an
/// excluded directory is not asked about.
pub type Excluded = Box<dyn Fn(&RelPath, &CStr, bool) -> bool + Send>;
