//! What the target entry should be like, and in what it differs. No system call is made here.

use crate::job::Job;
use std::time::{Duration, SystemTime};
use treeferry_core::change::Differs;
use treeferry_core::spec::Keep;
use treeferry_core::{Failure, Notice, Outcome, RelPath, Side};
use treeferry_fs::{Kind, Meta, Time};

/// EPERM, for a finding that the kernel need not be asked for.
const EPERM: i32 = 1;

/// The metadata that a target entry is to have. `None`: is left as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Want {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: Option<u32>,
    /// Access and modification time.
    pub times: Option<(Time, Time)>,
}

impl Want {
    /// What an entry like `src` should be like at the target, where it now belongs to `uid` and `gid`. What
    /// only root may do is left out and counted, or named if it was asked for by name.
    ///
    /// Set-id bits are only kept together with the owner they speak of: a copy that belongs to somebody else
    /// would give that somebody's rights to whoever wrote the content (as cp(1) does).
    pub fn of(
        job: &Job,
        src: &Meta,
        uid: u32,
        gid: u32,
        new: bool,
        path: &dyn Fn() -> RelPath,
        out: &mut Outcome,
    ) -> Want {
        let p = &job.privilege;
        let mut w = Want { uid: None, gid: None, mode: None, times: None };
        let mut left_out = false;
        let mut refuse = |keep: Keep, notice, out: &mut Outcome| {
            if keep == Keep::Strictly {
                out.fail(Failure::errno(path(), Side::Target, "fchown", EPERM));
            } else {
                out.notice(notice);
                left_out = true;
            }
        };
        if job.spec.owner.wanted() && src.uid != uid {
            if p.chown { w.uid = Some(src.uid) } else { refuse(job.spec.owner, Notice::OwnerLeftOut, out) }
        }
        if job.spec.group.wanted() && src.gid != gid {
            let ours = p.chown || uid == p.uid;
            if ours && p.may_give_group(src.gid) {
                w.gid = Some(src.gid);
            } else {
                refuse(job.spec.group, Notice::GroupLeftOut, out);
            }
        }
        out.counters.left_out_owner += u64::from(left_out);
        let (final_uid, final_gid) = (w.uid.unwrap_or(uid), w.gid.unwrap_or(gid));
        if src.kind != Kind::Symlink {
            let mut mode = src.mode;
            if src.kind != Kind::Dir {
                if final_uid != src.uid {
                    mode &= !0o4000;
                }
                if final_gid != src.gid {
                    mode &= !0o2000;
                }
            }
            // the kernel takes the bit away without a word (chmod(2))
            if !p.chown && !p.may_give_group(final_gid) {
                mode &= !0o2000;
            }
            w.mode = match (job.spec.perms.wanted(), new) {
                (true, _) => Some(mode),
                (false, true) => Some(mode & 0o777 & !job.umask),
                (false, false) => None,
            };
        }
        w.times = times_of(job, src);
        if w.times.is_some_and(|(_, m)| m != src.mtime) {
            out.notice(Notice::TimesUnsupported);
            out.counters.unsupported_times += 1;
        }
        w
    }

    /// In what an entry differs from this.
    pub fn differs(&self, dst: &Meta) -> Differs {
        Differs {
            time: self.times.is_some_and(|(_, m)| m != dst.mtime),
            perms: self.mode.is_some_and(|m| m != dst.mode),
            owner: self.uid.is_some_and(|u| u != dst.uid),
            group: self.gid.is_some_and(|g| g != dst.gid),
            ..Differs::default()
        }
    }
}

/// The access and modification time that the target is to have, as far as it can hold them.
pub(crate) fn times_of(job: &Job, src: &Meta) -> Option<(Time, Time)> {
    job.spec.times.wanted().then(|| (job.limits.held(src.atime), job.limits.held(src.mtime)))
}

/// Whether size and modification time say that the content is the same. Where times are not kept the target
/// must not be older than the source. The target's ctime says nothing: it is our own doing.
pub(crate) fn looks_unchanged(job: &Job, src: &Meta, dst: &Meta) -> bool {
    src.size == dst.size
        && if job.spec.times.wanted() {
            job.limits.held(src.mtime) == dst.mtime
        } else {
            dst.mtime >= job.limits.held(src.mtime)
        }
}

/// Whether an age limit says to leave the entry alone.
pub(crate) fn is_out_of_age(job: &Job, src: &Meta) -> bool {
    (job.young_after.is_some_and(|t| src.mtime > t || src.ctime > t) && !job.is_mirror())
        || (src.kind == Kind::File && job.old_before.is_some_and(|t| src.atime < t))
}

/// Whether a job leaves an entry of the source alone, whatever the target has in its place: for its age, or for what it is.
pub fn is_left_alone(job: &Job, src: &Meta) -> bool {
    let special = !matches!(src.kind, Kind::File | Kind::Symlink);
    src.kind != Kind::Dir
        && (comes_of_age_in(job, src).is_some()
            || is_out_of_age(job, src)
            || (special && !job.spec().specials))
}

/// How long until an entry of a mirror is old enough; `None`: it is, or need not be.
pub(crate) fn comes_of_age_in(job: &Job, src: &Meta) -> Option<Duration> {
    let least = job.spec.min_age.filter(|_| job.is_mirror())?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let since_1970 = |t: Time| Duration::new(u64::try_from(t.sec).unwrap_or(0), t.nsec);
    // a modification time may be set to anything, also to what is still to come
    let set = Some(since_1970(src.mtime)).filter(|t| *t <= now).unwrap_or_default();
    let of_age = since_1970(src.ctime).max(set) + least;
    // clocks may be put right
    of_age.checked_sub(now).filter(|d| !d.is_zero()).map(|d| d.min(least))
}

/// The word of the vocabulary for what the file system found.
pub fn kind(k: Kind) -> treeferry_core::Kind {
    use treeferry_core::Kind as C;
    match k {
        Kind::Unknown => C::Unknown,
        Kind::File => C::File,
        Kind::Dir => C::Dir,
        Kind::Symlink => C::Symlink,
        Kind::Fifo => C::Fifo,
        Kind::Socket => C::Socket,
        Kind::CharDevice => C::CharDevice,
        Kind::BlockDevice => C::BlockDevice,
    }
}

/// The other way round.
pub(crate) fn fs_kind(k: treeferry_core::Kind) -> Kind {
    use treeferry_core::Kind as C;
    match k {
        C::Unknown => Kind::Unknown,
        C::File => Kind::File,
        C::Dir => Kind::Dir,
        C::Symlink => Kind::Symlink,
        C::Fifo => Kind::Fifo,
        C::Socket => Kind::Socket,
        C::CharDevice => Kind::CharDevice,
        C::BlockDevice => Kind::BlockDevice,
    }
}
