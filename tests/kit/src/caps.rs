//! What a file system, and this process on it, allow a tree to hold.
//!
//! Random trees ask this first, so that the same test runs as root on ext4 and as
//! anybody on a file system without ACLs.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType};

use crate::put::{self, AclEntry, Meta};

/// The awkward things that may be put into a tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Extended attributes `user.*` of files and directories.
    pub user_xattrs: bool,
    /// Extended attributes `trusted.*` of any entry (root only).
    pub trusted_xattrs: bool,
    /// POSIX ACLs.
    pub acls: bool,
    /// Device nodes (root only).
    pub devices: bool,
    /// Owners other than ourselves (root only).
    pub owners: bool,
    /// Symlinks longer than the 1024 bytes of XFS.
    pub long_symlinks: bool,
    /// Times long before 1970 and after 2038.
    pub wide_times: bool,
}

impl Caps {
    /// Tries each of them out in `dir`, and cleans up.
    pub fn probe(dir: &Path) -> io::Result<Self> {
        let place = tempfile::Builder::new().prefix(".kit-probe").tempdir_in(dir)?;
        let fd = put::open_dir(place.path())?;
        let fd = fd.as_fd();
        let (uid, gid) = own_ids();
        let meta = Meta { mode: 0o600, uid, gid, sec: 0, nsec: 0 };
        put::file(fd, b"file", b"", &meta)?;
        put::symlink(fd, b"link", b"file")?;
        let rights = [
            AclEntry::UserObj(6),
            AclEntry::User(4, 1),
            AclEntry::GroupObj(4),
            AclEntry::Mask(4),
            AclEntry::Other(0),
        ];
        let null = rustix::fs::makedev(1, 3);
        Ok(Self {
            user_xattrs: put::xattr(fd, b"file", b"user.probe", b"1").is_ok(),
            trusted_xattrs: [&b"file"[..], b"link"]
                .iter()
                .all(|name| put::xattr(fd, name, b"trusted.probe", b"1").is_ok()),
            acls: put::xattr(fd, b"file", b"system.posix_acl_access", &put::acl(&rights)).is_ok(),
            devices: put::node(fd, b"null", FileType::CharacterDevice, 0o600, null).is_ok(),
            owners: put::owner(fd, b"file", &Meta { uid: 4_000_000_000, gid: 70_000, ..meta }).is_ok(),
            long_symlinks: put::symlink(fd, b"long", &[b'y'; 4000]).is_ok(),
            wide_times: [-1_000_000_000, 5_200_000_000]
                .into_iter()
                .all(|sec| keeps_time(fd, Meta { sec, ..meta })),
        })
    }

    /// What both sides can hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            user_xattrs: self.user_xattrs && other.user_xattrs,
            trusted_xattrs: self.trusted_xattrs && other.trusted_xattrs,
            acls: self.acls && other.acls,
            devices: self.devices && other.devices,
            owners: self.owners && other.owners,
            long_symlinks: self.long_symlinks && other.long_symlinks,
            wide_times: self.wide_times && other.wide_times,
        }
    }
}

/// Our own effective user and group.
pub fn own_ids() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn keeps_time(dir: BorrowedFd<'_>, meta: Meta) -> bool {
    put::times(dir, b"link", &meta).is_ok()
        && rustix::fs::statat(dir, "link", AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| stat.st_mtime == meta.sec)
}
