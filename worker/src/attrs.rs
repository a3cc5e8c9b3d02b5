//! Putting metadata on a target entry, in the one right order: owner (which clears set-id bits and
//! capabilities), extended attributes and ACLs, mode, times last.

use crate::compare::Want;
use crate::job::Job;
use crate::trouble::{On, Res};
use crate::xattrs;
use std::ffi::CStr;
use treeferry_core::change::Differs;
use treeferry_core::{Failure, Outcome, RelPath, Side};
use treeferry_fs::xattr::{ACL_ACCESS, ACL_DEFAULT, At};
use treeferry_fs::{BorrowedFd, Kind, Meta, attr, xattr};

/// A target entry to put metadata on.
#[derive(Clone, Copy)]
pub(crate) enum Spot<'a> {
    /// An open file or directory.
    Fd(BorrowedFd<'a>),
    /// A name that is not followed.
    Name(BorrowedFd<'a>, &'a CStr),
}

impl<'a> Spot<'a> {
    fn at(self) -> At<'a> {
        match self {
            Spot::Fd(fd) => At::Fd(fd),
            Spot::Name(d, n) => At::Name(d, n),
        }
    }
}

/// What a new entry got when it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtBirth {
    pub mode: u32,
    /// Its directory may have given it an ACL.
    pub inherits: bool,
}

/// Puts metadata on a new entry. What is refused is named, and the rest is put all the same: the content is
/// there, and somebody will want it.
#[expect(clippy::too_many_arguments, reason = "the pieces of one act; a struct would be built only for it")]
pub(crate) fn dress_new(
    job: &Job,
    spot: Spot<'_>,
    src_at: At<'_>,
    src: &Meta,
    want: &Want,
    birth: AtBirth,
    bufs: &mut xattrs::Buffers,
    path: &dyn Fn() -> RelPath,
    out: &mut Outcome,
) -> Res<()> {
    let mut mode = want.mode;
    let chown = want.uid.is_some() || want.gid.is_some();
    if chown {
        let r = match spot {
            Spot::Fd(fd) => attr::set_owner(fd, want.uid, want.gid),
            Spot::Name(d, n) => attr::set_owner_at(d, n, want.uid, want.gid),
        };
        if let Err(e) = r {
            if e.retryable() {
                return Err(e).dst();
            }
            out.fail(Failure::errno(path(), Side::Target, e.op, e.raw()));
            // never a set-id program that belongs to somebody else
            mode = mode.map(|m| m & !0o6000);
        }
    }
    if birth.inherits && job.spec.acls && src.kind != Kind::Symlink {
        xattr::remove(spot.at(), ACL_ACCESS).dst()?;
        if src.kind == Kind::Dir {
            xattr::remove(spot.at(), ACL_DEFAULT).dst()?;
        }
    }
    let mut acl = false;
    if xattrs::wanted(job) {
        acl = xattrs::carry(job, src_at, spot.at(), true, true, bufs, path, out)?.acl;
    }
    if let Some(m) = mode {
        // an ACL sets the mode too, and a chown takes the set-id bits away
        if m != birth.mode || birth.inherits || acl || (chown && m & 0o6000 != 0) {
            set_mode(spot, m).dst()?;
        }
    }
    if let Some((a, m)) = want.times {
        match spot {
            Spot::Fd(fd) => attr::set_times(fd, a, m),
            Spot::Name(d, n) => attr::set_times_at(d, n, a, m),
        }
        .dst()?;
    }
    Ok(())
}

/// Repairs the metadata of an existing entry where it differs; without `touch` only finds out. Returns in what it
/// differed. `bare`: it is known to have no extended attributes.
#[expect(clippy::too_many_arguments, reason = "as above")]
pub(crate) fn repair(
    job: &Job,
    spot: Spot<'_>,
    src_at: At<'_>,
    src: &Meta,
    dst: &Meta,
    bare: bool,
    touch: bool,
    want: &Want,
    bufs: &mut xattrs::Buffers,
    path: &dyn Fn() -> RelPath,
    out: &mut Outcome,
) -> Res<Differs> {
    let mut d = want.differs(dst);
    if (d.owner || d.group) && touch {
        match spot {
            Spot::Fd(fd) => attr::set_owner(fd, want.uid, want.gid),
            Spot::Name(dir, n) => attr::set_owner_at(dir, n, want.uid, want.gid),
        }
        .dst()?;
    }
    if xattrs::wanted(job) {
        let c = xattrs::carry(job, src_at, spot.at(), bare, touch, bufs, path, out)?;
        (d.acl, d.xattr) = (c.acl, c.xattr);
    }
    if let Some(m) = want.mode.filter(|_| touch)
        && (d.perms || d.acl || ((d.owner || d.group) && m & 0o6000 != 0))
    {
        set_mode(spot, m).dst()?;
    }
    if let Some((a, m)) = want.times.filter(|_| d.time && touch) {
        match spot {
            Spot::Fd(fd) => attr::set_times(fd, a, m),
            Spot::Name(dir, n) => attr::set_times_at(dir, n, a, m),
        }
        .dst()?;
    }
    // a chown clears capabilities, which the attributes above then found missing; nothing else is lost
    debug_assert!(src.kind != Kind::Unknown);
    Ok(d)
}

/// Whether an entry has an ACL.
pub(crate) fn has_acl(spot: Spot<'_>, bufs: &mut xattrs::Buffers) -> treeferry_fs::Result<bool> {
    Ok(xattr::get(spot.at(), ACL_ACCESS, bufs.value())?.is_some())
}

fn set_mode(spot: Spot<'_>, mode: u32) -> treeferry_fs::Result<()> {
    match spot {
        Spot::Fd(fd) => attr::set_mode(fd, mode),
        Spot::Name(d, n) => attr::set_mode_at(d, n, mode),
    }
}
