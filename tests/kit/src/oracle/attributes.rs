//! Extended attributes of one entry, ACLs and capabilities among them.

use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::differences::Class;
use crate::put::through_proc;

/// Largest list of names and largest value that the kernel has.
const MOST_BYTES: usize = 64 * 1024;

/// Name -> value; empty where the file system has none.
pub(crate) type Attributes = BTreeMap<Vec<u8>, Vec<u8>>;

/// Reads all attributes of `name` itself. `buf` is scratch space, kept between calls.
pub(crate) fn read(dir: BorrowedFd<'_>, name: &[u8], buf: &mut Vec<u8>) -> Result<Attributes, Errno> {
    let path = through_proc(dir, name);
    buf.resize(MOST_BYTES, 0);
    let len = match rustix::fs::llistxattr(&path[..], &mut buf[..]) {
        Ok(0) | Err(Errno::NOTSUP) => return Ok(Attributes::new()),
        other => other?,
    };
    let mut keys: Vec<Vec<u8>> =
        buf[..len].split(|byte| *byte == 0).filter(|key| !key.is_empty()).map(<[u8]>::to_vec).collect();
    if keys.iter().any(|key| is_xfs_acl(key)) && on_xfs(dir)? {
        keys.retain(|key| !is_xfs_acl(key));
    }
    let mut all = Attributes::new();
    for key in keys {
        let len = rustix::fs::lgetxattr(&path[..], &key[..], &mut buf[..])?;
        all.insert(key, buf[..len].to_vec());
    }
    Ok(all)
}

/// XFS shows an ACL to root a second time, under the name it is stored by. Elsewhere
/// an attribute of this name is a real one, most likely left by a careless copy.
fn is_xfs_acl(key: &[u8]) -> bool {
    key == b"trusted.SGI_ACL_FILE" || key == b"trusted.SGI_ACL_DEFAULT"
}

fn on_xfs(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    const XFS_SUPER_MAGIC: u64 = 0x5846_5342;
    Ok(rustix::fs::fstatfs(dir)?.f_type as u64 == XFS_SUPER_MAGIC)
}

/// The attributes whose values differ, with the class of each.
pub(super) fn differing<'a>(a: &'a Attributes, b: &'a Attributes) -> impl Iterator<Item = (Class, &'a [u8])> {
    let only_b = b.keys().filter(|key| !a.contains_key(*key));
    a.keys().filter(|key| a.get(*key) != b.get(*key)).chain(only_b).map(|key| (class(key), &key[..]))
}

fn class(key: &[u8]) -> Class {
    match key {
        b"system.posix_acl_access" => Class::Acl,
        b"system.posix_acl_default" => Class::DefaultAcl,
        b"security.capability" => Class::Capability,
        _ => {
            let space = key.split(|byte| *byte == b'.').next().unwrap_or(key);
            Class::Xattr(String::from_utf8_lossy(space).into_owned())
        }
    }
}
