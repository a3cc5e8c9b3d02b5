//! What was told lately.

use crate::Hint;
use crate::batch::Batch;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use treeferry_core::path::RelPath;

/// How long what was told is remembered, at least.
const MEMORY: Duration = Duration::from_millis(100);

/// Paths of which something was told since all events were read, and shortly before.
pub(super) struct Told {
    now: BTreeSet<RelPath>,
    before: BTreeSet<RelPath>,
    since: Instant,
}

impl Default for Told {
    fn default() -> Told {
        Told { now: BTreeSet::new(), before: BTreeSet::new(), since: Instant::now() }
    }
}

impl Told {
    /// Remembers a hint.
    pub(super) fn add(&mut self, hint: &Hint) {
        self.now.insert(hint.path.clone());
    }

    /// All events were read.
    pub(super) fn pause(&mut self) {
        if self.since.elapsed() >= MEMORY {
            self.before = std::mem::take(&mut self.now);
            self.since = Instant::now();
        }
    }

    /// Whether something was told of a path or of what lies below it, or is about to be told.
    pub(super) fn speaks_of(&self, batch: &Batch, path: &RelPath) -> bool {
        let below = |set: &BTreeSet<RelPath>| {
            // what is below sorts after "path/", and before everything that sorts after it and is not below
            let slash = RelPath::new([path.as_bytes(), b"/\x01"].concat()).unwrap_or_default();
            set.contains(path) || set.range(slash..).next().is_some_and(|p| path.covers(p))
        };
        below(&self.now) || below(&self.before) || batch.speaks_of(path)
    }
}
