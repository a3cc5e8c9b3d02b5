//! A task: a unit of queued work, complete in itself. It names paths below the roots of its job and never the
//! roots, so that no message can lead anywhere else.

use crate::ids::{GroupKey, JoinId, TaskId};
use crate::names::Names;
use crate::path::RelPath;
use serde::{Deserialize, Serialize};

/// How often an entry is tried at most.
pub const MAX_ATTEMPTS: u8 = 4;

/// Added to the attempts of an entry for which a directory in the way was removed, as far as that could be done:
/// it is not removed twice.
pub const CLEARED: u8 = 16;

/// How often something was tried before, of a number of attempts to which [`CLEARED`] may have been added.
pub fn tries(attempt: u8) -> u8 {
    attempt % CLEARED
}

/// What is known of a directory of the target.
///
/// A hint that saves looking. A task that may have been begun before must be run with `No`: it can find things
/// in the directory, or the directory finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fresh {
    /// It was there before this job, or nothing is known.
    No,
    /// This job has just made it, for nobody else to enter; nothing is in it.
    Made,
    /// And it has inherited nothing from the directory that it is in: its group is ours, it has no set-group-id
    /// bit and no ACL. What is made in it inherits nothing either.
    Plain,
}

impl Fresh {
    /// Whether this job has just made it.
    pub fn is_fresh(self) -> bool {
        self != Fresh::No
    }
}

/// What there is to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Work {
    /// Walk a directory: reconcile its entries, hand out its subdirectories, finish it.
    Walk {
        /// The directory.
        path: RelPath,
        /// What is known of it at the target.
        fresh: Fresh,
        /// How far it came before, if it was interrupted in the middle of a big directory.
        resume: Option<Box<Resume>>,
    },
    /// Reconcile these names of a directory.
    Files {
        /// The directory.
        dir: RelPath,
        /// As in `Walk`.
        fresh: Fresh,
        /// The names.
        names: Names,
    },
    /// Copy a range of a big file into its staged file.
    Chunk {
        /// Which file.
        file: StagedFile,
        /// First byte.
        offset: u64,
        /// Length in bytes.
        len: u64,
    },
    /// All chunks are there: give the staged file its metadata and its name.
    Publish {
        /// Which file.
        file: StagedFile,
        /// How many chunks must have been copied; each that was adds one to the tally.
        chunks: u64,
    },
    /// Make a name a hard link to the first copy of its group.
    Link {
        /// The name.
        path: RelPath,
        /// What it is.
        kind: crate::names::Kind,
        /// The group.
        group: GroupKey,
    },
    /// Nothing in the directory will change any more: delete what is extra, give it its final metadata.
    FinishDir {
        /// The directory.
        path: RelPath,
        /// The source was listed to its end without an error, so what is not in it may be deleted.
        listed: bool,
        /// As in `Walk`.
        fresh: Fresh,
        /// The mode that it is to have at the target; whoever works in it may have to change it to get in. `None`:
        /// nothing is decided yet, since this job has made it.
        mode: Option<u32>,
    },
    /// Remove what is inside a directory of the target, then the directory.
    Remove {
        /// The directory.
        path: RelPath,
    },
    /// Remove names of a directory of the target.
    RemoveNames {
        /// The directory.
        dir: RelPath,
        /// The names; none of them a directory when they were listed.
        names: Names,
    },
    /// Remove a directory of the target that ought to be empty by now.
    RemoveDir {
        /// The directory.
        path: RelPath,
        /// And so many directories above it, each of which holds only the one below.
        above: u32,
    },
    /// For a mirror: make these names of a directory at the target what they are in the source now, also if that is
    /// nothing, and give the directory its metadata. Of a directory that is there on both sides nothing below is looked
    /// at; where a name is marked as a directory, that is asked for. Where it is marked as a file, whatever it is, a rename
    /// has given it this name: the same, and of a file what is in it is compared, whatever its size and time say.
    Look {
        /// The directory.
        dir: RelPath,
        /// The names. None: only the directory itself.
        names: Names,
        /// What is told when all that this leads to is done; 0: nobody waits for it.
        ticket: u64,
    },
    /// For a mirror: an entry of the source has another name now. Give it that name at the target too, if what is there
    /// is the same, and look at both names.
    Move {
        /// Its name before.
        from: RelPath,
        /// Its name now.
        to: RelPath,
        /// As in `Look`.
        ticket: u64,
    },
    /// For a mirror: names of this directory may have come and gone. What the source's has not is looked at; of what is
    /// there nothing is.
    Names {
        /// The directory.
        dir: RelPath,
        /// As in `Look`.
        ticket: u64,
    },
}

/// How far the walk of a big directory has come: so many of its names were seen to, or given away, and are not to be
/// counted again. The listing is begun anew; the digest tells whether it begins with the same names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    /// How many names.
    pub names: u64,
    /// Digest of these names in their order (xxh3 of each, folded).
    pub digest: u64,
    /// How many of them are there at the target too.
    pub matched: u64,
    /// The join of what was given away.
    pub join: Option<JoinId>,
    /// The mode that the directory is to have at the target, as in `FinishDir`.
    pub mode: Option<u32>,
}

/// A file that is being copied in chunks into one staged file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedFile {
    /// Its final path.
    pub path: RelPath,
    /// Where it is staged, in the same directory.
    pub staged: RelPath,
    /// The inode number of the staged file: whatever else has its name is not ours.
    pub inode: u64,
    /// What the source looked like when its copy began.
    pub stamp: Stamp,
    /// Its hard-link group, if it is the one that copies for it.
    pub group: Option<GroupKey>,
    /// Whether the target had no such entry.
    pub new: bool,
    /// Whether the source has holes that are to be kept.
    pub holes: bool,
    /// As in [`Task`], of the entry.
    pub attempt: u8,
}

/// What tells that a source file is still the one whose copy began: if any of these has changed, it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Inode number.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Modification time, seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Status-change time, seconds and nanoseconds.
    pub ctime: (i64, u32),
}

/// A task that has been given to the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Its identity within the job.
    pub id: TaskId,
    /// The join that it counts out of when it is done.
    pub join: Option<JoinId>,
    /// How often it was tried before, by itself or as part of a batch; see [`tries`].
    pub attempt: u8,
    /// For the follow-up of a join: the sum of what the joined tasks added to its tally.
    pub tally: u64,
    /// What there is to do.
    pub work: Work,
}

/// A task that is about to be given to the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTask {
    /// As in [`Task`].
    pub join: Option<JoinId>,
    /// As in [`Task`].
    pub attempt: u8,
    /// What there is to do.
    pub work: Work,
}

impl NewTask {
    /// A first attempt.
    pub fn new(join: Option<JoinId>, work: Work) -> NewTask {
        NewTask { join, attempt: 0, work }
    }
}

impl Work {
    /// Names the kind of work, for logs and statistics.
    pub fn name(&self) -> &'static str {
        match self {
            Work::Walk { .. } => "walk",
            Work::Files { .. } => "files",
            Work::Chunk { .. } => "chunk",
            Work::Publish { .. } => "publish",
            Work::Link { .. } => "link",
            Work::FinishDir { .. } => "finish-dir",
            Work::Remove { .. } => "remove",
            Work::RemoveNames { .. } => "remove-names",
            Work::RemoveDir { .. } => "remove-dir",
            Work::Look { .. } => "look",
            Work::Move { .. } => "move",
            Work::Names { .. } => "names",
        }
    }

    /// It may have been begun before: nothing of what was known of its directory at the target holds any more.
    pub fn forget_fresh(&mut self) {
        match self {
            Work::Walk { fresh, .. } | Work::Files { fresh, .. } => *fresh = Fresh::No,
            // that it was made by this job, and has no final metadata yet, still holds
            _ => {}
        }
    }

    /// The path that best names it in a log.
    pub fn path(&self) -> &RelPath {
        match self {
            Work::Walk { path, .. }
            | Work::Link { path, .. }
            | Work::FinishDir { path, .. }
            | Work::Remove { path }
            | Work::RemoveDir { path, .. }
            | Work::Move { to: path, .. } => path,
            Work::Files { dir, .. } | Work::RemoveNames { dir, .. } | Work::Look { dir, .. } => dir,
            Work::Names { dir, .. } => dir,
            Work::Chunk { file, .. } | Work::Publish { file, .. } => &file.path,
        }
    }
}
