//! Which kinds of things a directory's file system can hold for us: found out by trying each, once, on entries with
//! temporary names. Nothing of it is left, and the directory's times are what they were.

use crate::attr;
use crate::entry;
use crate::error::{Error, Result};
use crate::meta::{Kind, fstat, stat};
use crate::privilege::Privilege;
use crate::probe::Limits;
use crate::temp::TempNames;
use crate::xattr::{self, ACL_ACCESS, At};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::ffi::{CStr, CString};

/// What there is, and what not. `None`: this process may not try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Abilities {
    /// Times, and files without a name.
    pub limits: Limits,
    /// Extended attributes `user.*`.
    pub user_xattrs: Option<bool>,
    /// Extended attributes `trusted.*`.
    pub trusted_xattrs: Option<bool>,
    /// POSIX ACLs.
    pub acls: Option<bool>,
    /// Hard links.
    pub hard_links: Option<bool>,
    /// Symbolic links.
    pub symlinks: Option<bool>,
    /// FIFOs.
    pub fifos: Option<bool>,
    /// Device files.
    pub devices: Option<bool>,
    /// Entries that belong to others.
    pub owners: Option<bool>,
    /// Names that are not UTF-8.
    pub any_bytes: Option<bool>,
    /// Names that differ in nothing but case.
    pub case: Option<bool>,
}

impl Abilities {
    /// Tries all of it in an open directory. An error: not even a file can be made there.
    pub fn probe(dir: BorrowedFd<'_>, temp: &TempNames, privilege: &Privilege) -> Result<Abilities> {
        let before = fstat(dir)?;
        let name = temp.next();
        let file = entry::create(dir, &name, 0o600)?;
        let found = Trial { dir, temp, privilege }.all(&file, &name);
        entry::remove(dir, &name)?;
        let limits = Limits::probe(dir, temp, privilege.gid);
        attr::set_times(dir, before.atime, before.mtime)?;
        Ok(Abilities { limits: limits?, ..found })
    }
}

struct Trial<'a> {
    dir: BorrowedFd<'a>,
    temp: &'a TempNames,
    privilege: &'a Privilege,
}

impl Trial<'_> {
    fn all(&self, file: &OwnedFd, name: &CStr) -> Abilities {
        let p = self.privilege;
        let at = At::Fd(file.as_fd());
        let set = |key: &CStr, value: &[u8]| held(xattr::set(at, key, value), |e| xattr::is_beyond(e, key));
        let of_root = |may: bool, r: &dyn Fn() -> Option<bool>| if may { r() } else { None };
        Abilities {
            limits: Limits::default(),
            user_xattrs: set(c"user.treeferry", b"1"),
            trusted_xattrs: of_root(p.sys_admin, &|| set(c"trusted.treeferry", b"1")),
            acls: set(ACL_ACCESS, &acl_of(p.uid)),
            hard_links: self.made(|n| entry::name_file(file.as_fd(), self.dir, n)),
            symlinks: self.made(|n| entry::make_symlink(self.dir, n, c"nowhere")),
            fifos: self.made(|n| entry::make_special(self.dir, n, Kind::Fifo, 0o600, (0, 0))),
            devices: of_root(p.mknod, &|| {
                self.made(|n| entry::make_special(self.dir, n, Kind::CharDevice, 0o600, (1, 3)))
            }),
            owners: of_root(p.chown, &|| Some(self.takes_owner(file))),
            any_bytes: self.any_bytes(),
            case: other_case(name).map(|n| matches!(stat(self.dir, &n), Err(e) if e.is_gone())),
        }
    }

    /// Whether an entry can be made under a temporary name; it is removed at once.
    fn made(&self, make: impl Fn(&CStr) -> Result<()>) -> Option<bool> {
        let name = self.temp.next();
        let r = make(&name);
        if r.is_ok() {
            // what cannot be removed is swept by the next run
            let _ = entry::remove(self.dir, &name);
        }
        // making these takes no privilege where they can be held at all: FAT says EPERM for what it does not have
        held(r, |e| e.is_unsupported() || e.is_not_permitted() || e.errno == Errno::INVAL)
    }

    /// A server may say yes and do otherwise (`all_squash`), so what has become of it is looked at.
    fn takes_owner(&self, file: &OwnedFd) -> bool {
        let other = u32::from(self.privilege.uid != 1);
        attr::set_owner(file.as_fd(), Some(other), Some(other)).is_ok()
            && fstat(file.as_fd()).is_ok_and(|m| (m.uid, m.gid) == (other, other))
    }

    fn any_bytes(&self) -> Option<bool> {
        let mut name = self.temp.next().into_bytes();
        name.extend_from_slice(b"\xff");
        let name = CString::new(name).ok()?;
        let r = entry::create(self.dir, &name, 0o600).map(drop);
        if r.is_ok() {
            let _ = entry::remove(self.dir, &name);
        }
        held(r, |e| matches!(e.errno, Errno::ILSEQ | Errno::INVAL))
    }
}

/// Whether something was taken; what neither was nor is beyond the file system was refused to us.
fn held(r: Result<()>, is_beyond: impl Fn(Error) -> bool) -> Option<bool> {
    match r {
        Ok(()) => Some(true),
        Err(e) if is_beyond(e) => Some(false),
        Err(_) => None,
    }
}

fn other_case(name: &CStr) -> Option<CString> {
    CString::new(name.to_bytes().to_ascii_uppercase()).ok()
}

/// An access ACL with an entry for a user beside those that a mode could say (linux/posix_acl_xattr.h).
fn acl_of(user: u32) -> Vec<u8> {
    let mut out = 2u32.to_le_bytes().to_vec();
    for (tag, perm, id) in
        [(1u16, 6u16, u32::MAX), (2, 4, user), (4, 0, u32::MAX), (0x10, 4, u32::MAX), (0x20, 0, u32::MAX)]
    {
        out.extend(tag.to_le_bytes());
        out.extend(perm.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Root;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn nothing_is_left_of_it() {
        let place = std::env::temp_dir().join(format!("treeferry-abilities-{}", std::process::id()));
        std::fs::create_dir_all(&place).unwrap();
        let before = std::fs::metadata(&place).unwrap();
        let dir = Root::open(&place).unwrap();
        let (temp, privilege) = (TempNames::of_this_process(), Privilege::of_this_process());
        let a = Abilities::probe(dir.fd(), &temp, &privilege).unwrap();
        // what every file system that temporary files lie on has
        assert_eq!(
            (a.hard_links, a.symlinks, a.fifos, a.case),
            (Some(true), Some(true), Some(true), Some(true))
        );
        assert_eq!((a.devices.is_some(), a.owners.is_some()), (privilege.mknod, privilege.chown));
        assert_eq!(a.trusted_xattrs.is_some(), privilege.sys_admin);
        let after = std::fs::metadata(&place).unwrap();
        assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
        assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
        std::fs::remove_dir(&place).unwrap();
    }

    #[test]
    fn without_a_word_of_the_kernel_nothing_is_claimed() {
        let e = |errno| Err(Error { op: "x", errno });
        let beyond = |e: Error| e.is_unsupported();
        assert_eq!(held(Ok(()), beyond), Some(true));
        assert_eq!(held(e(Errno::OPNOTSUPP), beyond), Some(false));
        assert_eq!(held(e(Errno::ACCESS), beyond), None);
    }
}
