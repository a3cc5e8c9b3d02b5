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
    let keys: Vec<Vec<u8>> =
        buf[..len].split(|byte| *byte == 0).filter(|key| !key.is_empty()).map(<[u8]>::to_vec).collect();
    let mut all = Attributes::new();
    for key in keys {
        let len = rustix::fs::lgetxattr(&path[..], &key[..], &mut buf[..])?;
        all.insert(key, buf[..len].to_vec());
    }
    Ok(all)
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
