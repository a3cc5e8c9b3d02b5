//! What the target file system can do that nothing but trying tells. Leaves nothing behind.

use crate::attr;
use crate::entry;
use crate::error::Result;
use crate::meta::{Time, fstat};
use crate::temp::TempNames;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};

/// What a target can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Times are multiples of this, in nanoseconds.
    pub time_step_nsec: u32,
    /// Times before this second are clamped to it.
    pub time_min_sec: i64,
    /// Times after this second are clamped to it.
    pub time_max_sec: i64,
    /// Has files without a name (`O_TMPFILE`).
    pub unnamed_files: bool,
    /// New files get the group of their directory even where it has no set-group-id bit (`grpid`).
    pub group_of_dir: bool,
}

impl Default for Limits {
    /// A file system without limits; what is assumed where nothing may be touched.
    fn default() -> Self {
        Limits {
            time_step_nsec: 1,
            time_min_sec: i64::MIN,
            time_max_sec: i64::MAX,
            unnamed_files: false,
            group_of_dir: false,
        }
    }
}

/// 2^40 seconds, 34 000 years: beyond what any file system in use holds that has a limit at all.
const FAR_SEC: i64 = 1 << 40;

impl Limits {
    /// Tries things on a file in a directory of the target. The file has no name where that is possible;
    /// else the directory's times are put back as they were.
    pub fn probe(dir: BorrowedFd<'_>, temp: &TempNames, our_gid: u32) -> Result<Limits> {
        let before = fstat(dir)?;
        if let Ok(f) = entry::create_unnamed(dir, 0o600) {
            return Limits::of(&f, true, our_gid, before.mode, before.gid);
        }
        let name = temp.next();
        let f = entry::create(dir, &name, 0o600)?;
        let limits = Limits::of(&f, false, our_gid, before.mode, before.gid);
        entry::remove(dir, &name)?;
        attr::set_times(dir, before.atime, before.mtime)?;
        limits
    }

    /// In text, for those who work on the same file system later and may not try anything any more.
    pub fn to_text(&self) -> String {
        let Limits { time_step_nsec, time_min_sec, time_max_sec, unnamed_files, group_of_dir } = self;
        format!("{time_step_nsec} {time_min_sec} {time_max_sec} {unnamed_files} {group_of_dir}")
    }

    /// Reads it back.
    pub fn from_text(text: &str) -> Option<Limits> {
        let mut words = text.split(' ');
        let limits = Limits {
            time_step_nsec: words.next()?.parse().ok().filter(|n| *n > 0)?,
            time_min_sec: words.next()?.parse().ok()?,
            time_max_sec: words.next()?.parse().ok()?,
            unnamed_files: words.next()?.parse().ok()?,
            group_of_dir: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(limits)
    }

    /// The same where nothing may be touched: on a file that never has a name, which changes nothing that
    /// anybody could see. Where that cannot be had a target without limits is assumed.
    pub fn probe_unseen(dir: BorrowedFd<'_>, our_gid: u32) -> Limits {
        let (Ok(before), Ok(f)) = (fstat(dir), entry::create_unnamed(dir, 0o600)) else {
            return Limits::default();
        };
        Limits::of(&f, true, our_gid, before.mode, before.gid).unwrap_or_default()
    }

    fn of(f: &OwnedFd, unnamed_files: bool, our_gid: u32, dir_mode: u32, dir_gid: u32) -> Result<Limits> {
        let held = |sec, nsec| {
            let t = Time { sec, nsec };
            attr::set_times(f.as_fd(), t, t)?;
            fstat(f.as_fd()).map(|m| m.mtime)
        };
        let fine = held(1_000_000_001, 123_456_789)?;
        let time_step_nsec = match (fine.sec, fine.nsec) {
            (1_000_000_001, 0) => 1_000_000_000,
            (1_000_000_001, n) => (0..9).map(|i| 10u32.pow(i)).find(|s| n % (s * 10) != 0).unwrap_or(1),
            _ => 2_000_000_000,
        };
        let (min, max) = (held(-FAR_SEC, 0)?.sec, held(FAR_SEC, 0)?.sec);
        let gid = fstat(f.as_fd())?.gid;
        Ok(Limits {
            time_step_nsec,
            time_min_sec: if min == -FAR_SEC { i64::MIN } else { min },
            time_max_sec: if max == FAR_SEC { i64::MAX } else { max },
            unnamed_files,
            group_of_dir: gid != our_gid && gid == dir_gid && dir_mode & 0o2000 == 0,
        })
    }

    /// What a time becomes when the target holds it.
    pub fn held(&self, t: Time) -> Time {
        // the kernel leaves no fraction in the first and the last second either
        if t.sec >= self.time_max_sec {
            return Time { sec: self.time_max_sec, nsec: 0 };
        }
        if t.sec <= self.time_min_sec {
            return Time { sec: self.time_min_sec, nsec: 0 };
        }
        match self.time_step_nsec {
            1 => t,
            s if s <= 1_000_000_000 => Time { sec: t.sec, nsec: t.nsec - t.nsec % s },
            s => Time { sec: t.sec - t.sec.rem_euclid(i64::from(s / 1_000_000_000)), nsec: 0 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_as_the_file_system_does() {
        let t = |sec, nsec| Time { sec, nsec };
        let l = Limits { time_step_nsec: 100, time_max_sec: 10, time_min_sec: -5, ..Limits::default() };
        assert_eq!(l.held(t(3, 123_456_789)), t(3, 123_456_700));
        assert_eq!((l.held(t(11, 5)), l.held(t(-6, 5))), (t(10, 0), t(-5, 0)));
        assert_eq!((l.held(t(10, 500)), l.held(t(-5, 500))), (t(10, 0), t(-5, 0)));
        assert_eq!((l.held(t(9, 500)), l.held(t(-4, 500))), (t(9, 500), t(-4, 500)));
        assert_eq!(Limits::from_text(&l.to_text()), Some(l));
        assert_eq!(Limits::from_text("0 0 0 true true"), None);
        let fat = Limits { time_step_nsec: 2_000_000_000, ..Limits::default() };
        assert_eq!((fat.held(t(7, 1)), fat.held(t(-7, 1))), (t(6, 0), t(-8, 0)));
    }
}
