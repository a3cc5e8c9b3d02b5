//! Where a reader of a ring has stopped, so that the next one goes on there as if there had been none between.
//!
//! Programs tell the ring whether it is read or not, as long as SRC is in its table. What a reader knew of open files is gone
//! with it; so before it stops it begins a session, in which whoever closes a file says where that is, reads on until
//! all is told that was under way then, and begins another, for those that were opened and told meanwhile. Files that are
//! open it leaves to be looked at: their processes may be killed while nobody reads.

use super::Shim;
use crate::beneath::path_of;
use crate::error::{Call, Error};
use crate::mounts::{Mounts, relative};
use crate::{Detector, News};
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};
use treeferry_core::path::RelPath;

/// What was under way is waited for so long; only a call that waits for something takes longer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Where a reader has stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rest {
    /// Of the system: no program outlives it.
    boot: String,
    /// Which ring.
    pub(super) generation: u64,
    /// Who has read it: each process that reads a ring has a number of its own.
    pub(super) reader: u64,
    /// Up to where it was read.
    pub(super) at: u64,
    /// The directory, and those above it.
    above: Vec<Place>,
    /// What is mounted below it. What is mounted or unmounted while nobody reads is told by nobody.
    below: Vec<(RelPath, u64)>,
    /// Files that were open, and whether each is an ancestor of what is meant.
    pub(super) open: Vec<(RelPath, bool)>,
}

/// A directory on the way to SRC. Programs say under which path they have changed something; so SRC must have been where
/// it is all the time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    dev: (u32, u32),
    ino: u64,
    /// Of the mount: of one that was unmounted and mounted again it is another (`STATX_MNT_ID_UNIQUE`, Linux 6.8; before, it
    /// may be given again).
    mount: u64,
    /// Changes when the directory is renamed (and with each name in it).
    ctime: (i64, u32),
    /// Changes when a name in it is renamed.
    mtime: (i64, u32),
}

impl Rest {
    fn now(top: &[u8], mounts: &Mounts, generation: u64, reader: u64) -> Result<Rest, Error> {
        let top = Path::new(OsStr::from_bytes(top));
        let at = |point: RelPath| {
            let path = top.join(OsStr::from_bytes(point.as_bytes()));
            Ok((point, place(&path)?.mount))
        };
        let below = mounts.points().into_iter().map(at).collect::<Result<_, Error>>()?;
        Ok(Rest { boot: boot()?, generation, reader, at: 0, above: places(top)?, below, open: Vec::new() })
    }

    /// Whether a directory, a ring and the system are those that were left, and nothing can have happened that the ring
    /// does not tell.
    pub(super) fn is_still_true(&self, top: &[u8], mounts: &Mounts, generation: u64, reader: u64) -> bool {
        let why = match Rest::now(top, mounts, generation, reader) {
            Err(e) => e.to_string(),
            Ok(now) if now.boot != self.boot => "the system was booted since".to_owned(),
            Ok(now) if (now.generation, now.reader) != (self.generation, self.reader) => {
                "the ring is another, or another process has read it since".to_owned()
            }
            Ok(now) if now.below != self.below => {
                "something was mounted or unmounted below the source since".to_owned()
            }
            Ok(now) if !stayed(&self.above, &now.above) => {
                "the source may have been elsewhere since".to_owned()
            }
            Ok(_) => return true,
        };
        tracing::info!("what the last reader of the ring has left is of no use: {why}");
        false
    }
}

/// Whether each directory is the one that it was, and was not renamed to and fro: that would show in its own times or in
/// those of the one above it. The root of all cannot be.
fn stayed(then: &[Place], now: &[Place]) -> bool {
    let of = |p: &Place| (p.dev, p.ino, p.mount);
    let same = |(then, now): (&Place, &Place)| of(then) == of(now);
    let was_renamed = |k: usize| {
        let (a, b, above_a, above_b) = (&then[k], &now[k], &then[k + 1], &now[k + 1]);
        a.ctime != b.ctime && above_a.mtime != above_b.mtime
    };
    then.len() == now.len()
        && then.iter().zip(now).all(same)
        && !(0..then.len().saturating_sub(1)).any(was_renamed)
}

fn boot() -> Result<String, Error> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .map_err(Error::Input)
}

/// A directory by its absolute path, and those above it.
fn places(top: &Path) -> Result<Vec<Place>, Error> {
    top.ancestors().map(place).collect()
}

fn place(path: &Path) -> Result<Place, Error> {
    /// Linux 6.8; not in the crate yet.
    const MNT_ID_UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID | MNT_ID_UNIQUE;
    let s = statx(CWD, path, flags, wanted).call("statx")?;
    let time = |t: rustix::fs::StatxTimestamp| (t.tv_sec, t.tv_nsec);
    let dev = (s.stx_dev_major, s.stx_dev_minor);
    let (ctime, mtime) = (time(s.stx_ctime), time(s.stx_mtime));
    Ok(Place { dev, ino: s.stx_ino, mount: s.stx_mnt_id, ctime, mtime })
}

impl Shim {
    /// See [`Detector::rest`].
    pub(super) fn stop_here(&mut self, tell: &mut dyn FnMut(News)) -> Result<Option<Rest>, Error> {
        let file = std::sync::Arc::clone(&self.current.file);
        let Some(ring) = file.ring() else { return Ok(None) };
        ring.begin_session();
        let (began, mut lost) = (Instant::now(), false);
        loop {
            let mut told = None;
            self.read(Duration::from_millis(1), &mut |news| {
                match &news {
                    News::UpTo(at) => told = Some(*at),
                    News::Lost(_) => lost = true,
                    News::Hint(_) => {}
                }
                tell(news);
            })?;
            if lost || began.elapsed() > PATIENCE {
                tracing::info!(lost, "the next reader of the ring cannot go on where this one stops");
                return Ok(None);
            }
            // asked for after the session had begun
            if told.is_some_and(|at| at > began) {
                break;
            }
        }
        let (top, mut open) = (self.top.clone(), Vec::new());
        self.held.all(&mut |path, cut| open.extend(relative(path, &top).map(|p| (p, cut))));
        open.sort();
        open.dedup();
        // who has opened a file in this session, and told us, will close it when nobody knows that: this is the next one
        ring.begin_session();
        let now = Rest::now(&self.top, &self.mounts, ring.generation(), ring.reader())?;
        let rest = Rest { open, at: self.cursor.at(), ..now };
        // it is there still, now that it is known what would show that it was not
        let stayed = path_of(self.root.fd()).is_ok_and(|top| top == self.top);
        // another ring may have taken its place meanwhile
        Ok((stayed && self.hub.rests(self.id, self.current.number)).then_some(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_directory_that_was_renamed_to_and_fro_has_not_stayed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let now = || places(&at("a/b/top")).unwrap();
        fs::create_dir_all(at("a/b/top")).unwrap();
        let (first, elsewhere) = (now(), tempfile::NamedTempFile::new().unwrap());
        // the clock of file systems goes in steps
        let settle = || {
            let touched = || {
                fs::write(elsewhere.path(), "x").unwrap();
                fs::metadata(elsewhere.path()).unwrap().modified().unwrap()
            };
            let before = touched();
            while touched() == before {}
        };
        assert_eq!(first.len(), at("a/b/top").ancestors().count());
        settle();
        fs::write(at("a/b/top/file"), "x").unwrap();
        fs::write(at("a/file"), "x").unwrap();
        assert!(stayed(&first, &now()), "names in them do not matter");
        for (dir, other) in [("a/b", "a/other"), ("a/b/top", "a/b/other"), ("a", "other")] {
            let before = now();
            settle();
            fs::rename(at(dir), at(other)).unwrap();
            fs::rename(at(other), at(dir)).unwrap();
            assert!(!stayed(&before, &now()), "{dir}");
        }
        let before = now();
        fs::rename(at("a/b"), at("a/c")).unwrap();
        fs::create_dir_all(at("a/b/top")).unwrap();
        assert!(!stayed(&before, &now()), "it is another");
    }
}
