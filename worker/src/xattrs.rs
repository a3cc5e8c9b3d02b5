//! Carrying extended attributes and ACLs from one entry to another, or finding in what they differ.

use crate::job::Job;
use crate::trouble::{On, Res};
use std::ffi::{CStr, CString};
use treeferry_core::{Failure, Notice, Outcome, RelPath, Side};
use treeferry_fs::xattr::{self, ACL_ACCESS, ACL_DEFAULT, At, Buffer};

/// Buffers for lists and values of both sides.
#[derive(Debug, Default)]
pub(crate) struct Buffers {
    list: Buffer,
    value: Buffer,
    other: Buffer,
}

impl Buffers {
    /// Room for one value.
    pub fn value(&mut self) -> &mut Buffer {
        &mut self.value
    }
}

/// What was changed, or in a dry run would be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changed {
    pub acl: bool,
    pub xattr: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Acl,
    Xattr,
    NotKept,
}

/// Names that are listed and say something of the inode or its place rather than of the file, so that a copy
/// of them would be untrue: Lustre's layout and links, the keyed digest of an inode (evm(7)), and the second
/// form in which XFS lists its ACLs.
const NOT_ATTRIBUTES: [&[u8]; 10] = [
    b"lustre.",
    b"trusted.lov",
    b"trusted.lma",
    b"trusted.lmv",
    b"trusted.link",
    b"trusted.dmv",
    b"trusted.som",
    b"trusted.hsm",
    b"security.evm",
    b"trusted.SGI_ACL_",
];

fn class(job: &Job, key: &CStr) -> Class {
    if key == ACL_ACCESS || key == ACL_DEFAULT {
        return if job.spec.acls && job.spec.perms.wanted() { Class::Acl } else { Class::NotKept };
    }
    if job.spec.xattrs && !NOT_ATTRIBUTES.iter().any(|p| key.to_bytes().starts_with(p)) {
        Class::Xattr
    } else {
        Class::NotKept
    }
}

/// Whether any of it is to be kept at all, so that listing is not for nothing.
pub(crate) fn wanted(job: &Job) -> bool {
    job.spec.xattrs || (job.spec.acls && job.spec.perms.wanted())
}

/// Makes the target's attributes like the source's, or without `touch` only finds in what they differ. `bare`:
/// the target is new and has none.
///
/// An attribute that the target cannot hold, or that we may not set, is counted and said; one that is refused
/// is a named failure. Neither keeps the others from being carried.
#[expect(clippy::too_many_arguments, reason = "two sides, how to go about it, and where to tell")]
pub(crate) fn carry(
    job: &Job,
    src: At<'_>,
    dst: At<'_>,
    bare: bool,
    touch: bool,
    bufs: &mut Buffers,
    path: &dyn Fn() -> RelPath,
    out: &mut Outcome,
) -> Res<Changed> {
    let mut changed = Changed::default();
    let theirs = xattr::list(src, &mut bufs.list).src()?;
    let has_any = !theirs.is_empty();
    let keys: Vec<CString> =
        if has_any { xattr::names(theirs).map(CStr::to_owned).collect() } else { Vec::new() };
    let extra: Vec<CString> = if bare {
        Vec::new()
    } else {
        let ours = xattr::list(dst, &mut bufs.list).dst()?;
        if ours.is_empty() {
            Vec::new()
        } else {
            xattr::names(ours)
                .filter(|k| !keys.iter().any(|x| x.as_c_str() == *k))
                .map(CStr::to_owned)
                .collect()
        }
    };
    let mut unsupported = Vec::new();
    for key in &keys {
        match put(job, src, dst, key, bare, touch, bufs, path, out)? {
            Put::Done => note(class(job, key), &mut changed),
            Put::Beyond => unsupported.push(key),
            Put::Nothing => {}
        }
    }
    for key in &extra {
        let class = class(job, key);
        // a label is given by the target's own policy, and cannot be taken away
        if class == Class::NotKept || key.as_c_str() == c"security.selinux" {
            continue;
        }
        if touch && let Err(e) = xattr::remove(dst, key) {
            if e.retryable() {
                return Err(e).dst();
            }
            if !e.is_not_permitted() || may_set(job, key) {
                out.fail(refused(path(), "removexattr", key, e.raw()));
            }
            continue;
        }
        note(class, &mut changed);
    }
    // there may be room now
    let more = !unsupported.is_empty() && (changed.acl || changed.xattr);
    let mut unsupported_acl = false;
    for key in unsupported {
        let class = class(job, key);
        match more && put(job, src, dst, key, bare, touch, bufs, path, out)? != Put::Beyond {
            true => note(class, &mut changed),
            false if class == Class::Acl => unsupported_acl = true,
            false => {
                out.notice(Notice::XattrsUnsupported);
                out.counters.unsupported_xattrs += 1;
            }
        }
    }
    if unsupported_acl {
        out.notice(Notice::AclsUnsupported);
        out.counters.unsupported_acls += 1;
    }
    Ok(changed)
}

/// What became of an attribute.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Put {
    /// It is there now, or without `touch` it would be.
    Done,
    /// The target cannot hold it.
    Beyond,
    /// It was right, is not kept, or is refused, which has been said.
    Nothing,
}

/// Carries one attribute.
#[expect(clippy::too_many_arguments, reason = "as above")]
fn put(
    job: &Job,
    src: At<'_>,
    dst: At<'_>,
    key: &CStr,
    bare: bool,
    touch: bool,
    bufs: &mut Buffers,
    path: &dyn Fn() -> RelPath,
    out: &mut Outcome,
) -> Res<Put> {
    if class(job, key) == Class::NotKept {
        return Ok(Put::Nothing);
    }
    // gone between the listing and now: the source changed, which its ctime tells
    let Some(value) = xattr::get(src, key, &mut bufs.value).src()? else { return Ok(Put::Nothing) };
    if !bare && xattr::get(dst, key, &mut bufs.other).dst()? == Some(value) {
        return Ok(Put::Nothing);
    }
    let Err(e) = (if touch { xattr::set(dst, key, value) } else { Ok(()) }) else { return Ok(Put::Done) };
    if xattr::is_beyond(e, key) {
        return Ok(Put::Beyond);
    }
    if e.is_not_permitted() && !may_set(job, key) {
        out.notice(Notice::XattrsLeftOut);
        out.counters.left_out_xattrs += 1;
    } else if e.retryable() {
        return Err(e).dst();
    } else {
        out.fail(refused(path(), "setxattr", key, e.raw()));
    }
    Ok(Put::Nothing)
}

fn note(class: Class, changed: &mut Changed) {
    match class {
        Class::Acl => changed.acl = true,
        _ => changed.xattr = true,
    }
}

/// Whether our privileges should suffice for an attribute, so that a refusal is a failure.
fn may_set(job: &Job, key: &CStr) -> bool {
    let k = key.to_bytes();
    let p = &job.privilege;
    if key == xattr::CAPABILITY {
        p.setfcap
    } else if k.starts_with(b"trusted.") || k.starts_with(b"security.") {
        p.sys_admin
    } else {
        true
    }
}

fn refused(path: RelPath, op: &str, key: &CStr, errno: i32) -> Failure {
    let mut f = Failure::errno(path, Side::Target, op, errno);
    f.error = format!("{}: {}", treeferry_core::escape::bytes(key.to_bytes()), f.error);
    f
}
