//! What is heard, what is to be done about it, and how it stands.

use std::time::Duration;
use treeferry_core::{Names, RelPath};

/// What is known of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub enum Sign {
    /// It is being written: to be looked at if nothing more is heard of it for a while.
    Open,
    /// Its metadata changed, and its content may be about to.
    Attributes,
    /// The same of a directory, and names in it may have come and gone.
    Names,
    /// To be looked at now.
    Now,
    /// The same, and what is below it may be something else too.
    Tree,
}

/// How long signs wait.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// From the beginning of one look at a path to that of the next.
    pub damp: Duration,
    /// A file that is being written.
    pub open: Duration,
    /// Metadata.
    pub attributes: Duration,
    /// So many paths may wait; if there are more, everything is looked at instead.
    pub most: usize,
}

impl Default for Timing {
    fn default() -> Self {
        Timing {
            damp: Duration::from_millis(250),
            open: Duration::from_secs(1),
            attributes: Duration::from_millis(10),
            most: 1_000_000,
        }
    }
}

/// Something to be looked at by one task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Batch {
    /// Names of a directory; none: the directory itself. Those marked as directories are to be looked at with all that
    /// is below; those marked as files too, and closely, for a rename has given them that name.
    Look {
        /// To be given back when it is done.
        ticket: u64,
        /// The directory.
        dir: RelPath,
        /// The names.
        names: Names,
    },
    /// A rename.
    Move {
        /// As in `Look`.
        ticket: u64,
        /// The old name.
        from: RelPath,
        /// The new one.
        to: RelPath,
    },
    /// A directory in which names may have come and gone.
    Names {
        /// As in `Look`.
        ticket: u64,
        /// The directory.
        dir: RelPath,
    },
}

/// A directory to be walked with all that is below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Below {
    /// To be given back when it is done.
    pub ticket: u64,
    /// The directory.
    pub path: RelPath,
}

/// How a mirror stands.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Every change before this time of day (µs since 1970) is on the target, but for paths that fail. `None`: not even the
    /// first walk is done.
    pub complete_up_to: Option<u64>,
    /// Changes have been told up to this time of day (µs since 1970).
    pub told_up_to: u64,
    /// Paths that wait.
    pub waiting: usize,
    /// Paths that are being looked at.
    pub busy: usize,
    /// Directories that wait to be walked, or are.
    pub walks: usize,
    /// Paths that fail.
    pub failing: usize,
    /// Signs that were heard.
    pub signs: u64,
    /// Looks that were begun; fewer than signs, for these are merged.
    pub looks: u64,
    /// How often so much was waiting, or was missed, that everything was looked at.
    pub resyncs: u64,
}
