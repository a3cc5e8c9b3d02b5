//! What a job is to do: the request as it was validated, stored with the job.

use crate::event::Severity;
use crate::filter::Rule;
use crate::pass::PassSet;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Files larger than this are copied in chunks unless the job says otherwise.
///
/// Within one machine a whole file a thread is faster (the inode's lock: one file split over two threads took
/// 1.4 times as long on tmpfs), so the default splits only where one thread would hold up the end.
pub const DEFAULT_CHUNK_BYTES: u64 = 4 << 30;

/// The smallest chunk that may be asked for; smaller ones cost more to account for than to copy.
pub const MIN_CHUNK_BYTES: u64 = 64 << 10;

/// One of owner, group, mode, times: kept or not, and whether it was asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Keep {
    /// Not kept.
    No,
    /// Kept where we may; what only root may do is left out and counted.
    WhereAllowed,
    /// Asked for by name: what we may not do is a named failure.
    Strictly,
}

impl Keep {
    /// Whether it is kept at all.
    pub fn wanted(self) -> bool {
        self != Keep::No
    }
}

/// The options of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// The source directory.
    pub src: PathBuf,
    /// The target directory.
    pub dst: PathBuf,
    /// Which passes run.
    pub passes: PassSet,
    /// Modification and access times.
    pub times: Keep,
    /// Mode bits.
    pub perms: Keep,
    /// Owner.
    pub owner: Keep,
    /// Group.
    pub group: Keep,
    /// POSIX ACLs.
    pub acls: bool,
    /// Extended attributes.
    pub xattrs: bool,
    /// Hard-link groups.
    pub hardlinks: bool,
    /// Holes.
    pub sparse: bool,
    /// FIFOs, sockets and devices.
    pub specials: bool,
    /// Leave alone what changed (mtime or ctime) more recently.
    pub min_age: Option<Duration>,
    /// Leave out files that were not accessed (atime) for longer.
    pub max_age: Option<Duration>,
    /// Include and exclude patterns.
    pub rules: Vec<Rule>,
    /// Excluded entries of the target may be deleted.
    pub delete_excluded: bool,
    /// Decide "unchanged" by content.
    pub checksum: bool,
    /// Read every copy back and compare.
    pub verify: bool,
    /// Touch nothing.
    pub dry_run: bool,
    /// Report each change.
    pub itemize: bool,
    /// A non-empty directory in the way of something else may be removed.
    pub force: bool,
    /// Stop deleting after so many.
    pub max_delete: Option<u64>,
    /// Move what would be deleted to this directory.
    pub trash: Option<PathBuf>,
    /// Files larger than this are copied in chunks of it, in bytes.
    pub chunk_bytes: u64,
    /// Limit of bytes copied a second.
    pub bwlimit: Option<u64>,
    /// Limit of operations a second: entries looked at, reads and writes.
    pub iops: Option<u32>,
    /// The least grave events that are told.
    pub log_level: Severity,
}

impl JobSpec {
    /// A job with the defaults of the command line.
    pub fn new(src: impl Into<PathBuf>, dst: impl Into<PathBuf>) -> JobSpec {
        JobSpec {
            src: src.into(),
            dst: dst.into(),
            passes: PassSet::default(),
            times: Keep::WhereAllowed,
            perms: Keep::WhereAllowed,
            owner: Keep::WhereAllowed,
            group: Keep::WhereAllowed,
            acls: true,
            xattrs: true,
            hardlinks: true,
            sparse: true,
            specials: true,
            min_age: None,
            max_age: None,
            rules: Vec::new(),
            delete_excluded: false,
            checksum: false,
            verify: false,
            dry_run: false,
            itemize: false,
            force: false,
            max_delete: None,
            trash: None,
            chunk_bytes: DEFAULT_CHUNK_BYTES,
            bwlimit: None,
            iops: None,
            log_level: Severity::Warning,
        }
    }

    /// Whether each thing that is done to an entry is told. In a dry run nothing is done.
    pub fn tells_entries(&self) -> bool {
        self.log_level <= Severity::Info && !self.dry_run
    }
}
