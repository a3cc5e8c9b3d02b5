//! Puts entries into a tree in one line each, and asks what is there. Whatever goes wrong ends the test.

use rustix::fs::FileType;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use treeferry_kit::put::{self, AclEntry, Meta};

/// A tree that entries are planted in: `Plant::new(dir).file("a/b", "text").mode("a/b", 0o600)`.
///
/// Directories on the way are made as needed; a name that ends with `/` or is empty is a directory's.
#[derive(Clone, Debug)]
pub struct Plant(PathBuf);

impl Plant {
    /// At this directory, made if it is missing.
    #[track_caller]
    pub fn new(dir: impl Into<PathBuf>) -> Plant {
        let dir = dir.into();
        ok(&dir, fs::create_dir_all(&dir));
        Plant(dir)
    }

    /// The path of the tree, or of an entry.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A regular file; one that is there is written anew.
    #[track_caller]
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) -> &Plant {
        let path = self.with_parents(name);
        ok(&path, fs::write(&path, content));
        self
    }

    /// A directory.
    #[track_caller]
    pub fn dir(&self, name: &str) -> &Plant {
        let path = self.path(name);
        ok(&path, fs::create_dir_all(&path));
        self
    }

    /// A symbolic link.
    #[track_caller]
    pub fn symlink(&self, name: &str, to: impl AsRef<Path>) -> &Plant {
        let path = self.with_parents(name);
        ok(&path, std::os::unix::fs::symlink(to, &path));
        self
    }

    /// Another name of a file.
    #[track_caller]
    pub fn link(&self, old: &str, new: &str) -> &Plant {
        let path = self.with_parents(new);
        ok(&path, fs::hard_link(self.path(old), &path));
        self
    }

    /// A FIFO.
    #[track_caller]
    pub fn fifo(&self, name: &str) -> &Plant {
        self.node(name, FileType::Fifo, (0, 0))
    }

    /// A socket that nobody listens on.
    #[track_caller]
    pub fn socket(&self, name: &str) -> &Plant {
        self.node(name, FileType::Socket, (0, 0))
    }

    /// A character device.
    #[track_caller]
    pub fn device(&self, name: &str, major: u32, minor: u32) -> &Plant {
        self.node(name, FileType::CharacterDevice, (major, minor))
    }

    /// Permission bits.
    #[track_caller]
    pub fn mode(&self, name: &str, mode: u32) -> &Plant {
        let path = self.path(name);
        ok(&path, fs::set_permissions(&path, fs::Permissions::from_mode(mode)));
        self
    }

    /// Owner and group, of a symlink itself.
    #[track_caller]
    pub fn owner(&self, name: &str, uid: u32, gid: u32) -> &Plant {
        let path = self.path(name);
        ok(&path, std::os::unix::fs::lchown(&path, Some(uid), Some(gid)));
        self
    }

    /// Times of access and modification in seconds after 1970, of a symlink itself.
    #[track_caller]
    pub fn time(&self, name: &str, sec: i64) -> &Plant {
        let meta = Meta { mode: 0, uid: 0, gid: 0, sec, nsec: 5 };
        let (dir, last) = self.parent(name);
        ok(&self.path(name), put::times(dir.as_fd(), &last, &meta));
        self
    }

    /// An extended attribute.
    #[track_caller]
    pub fn xattr(&self, name: &str, key: &str, value: &[u8]) -> &Plant {
        let (dir, last) = self.parent(name);
        ok(&self.path(name), put::xattr(dir.as_fd(), &last, key.as_bytes(), value));
        self
    }

    /// An access ACL that lets this user do `perm` (0 to 7) too.
    #[track_caller]
    pub fn acl(&self, name: &str, user: u32, perm: u16) -> &Plant {
        self.xattr(name, "system.posix_acl_access", &acl(user, perm))
    }

    /// A default ACL of a directory that lets this user do `perm` (0 to 7) too.
    #[track_caller]
    pub fn default_acl(&self, name: &str, user: u32, perm: u16) -> &Plant {
        self.xattr(name, "system.posix_acl_default", &acl(user, perm))
    }

    /// Removes an entry, a directory with all that is in it.
    #[track_caller]
    pub fn remove(&self, name: &str) -> &Plant {
        let path = self.path(name);
        let is_dir = ok(&path, fs::symlink_metadata(&path)).is_dir();
        ok(&path, if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) });
        self
    }

    /// Whether there is an entry of this name, whatever it is.
    pub fn has(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path(name)).is_ok()
    }

    /// What there is to know of an entry itself.
    #[track_caller]
    pub fn meta(&self, name: &str) -> fs::Metadata {
        let path = self.path(name);
        ok(&path, fs::symlink_metadata(&path))
    }

    /// Permission bits of an entry.
    #[track_caller]
    pub fn mode_of(&self, name: &str) -> u32 {
        self.meta(name).mode() & 0o7777
    }

    /// Modification time of an entry, in seconds and nanoseconds.
    #[track_caller]
    pub fn time_of(&self, name: &str) -> (i64, i64) {
        let m = self.meta(name);
        (m.mtime(), m.mtime_nsec())
    }

    /// Whether an entry has an extended attribute of this name.
    pub fn has_xattr(&self, name: &str, key: &str) -> bool {
        rustix::fs::lgetxattr(self.path(name), key, &mut [0u8; 1024][..]).is_ok()
    }

    /// Whether two names are names of one file.
    #[track_caller]
    pub fn is_linked(&self, a: &str, b: &str) -> bool {
        let id = |name| (self.meta(name).dev(), self.meta(name).ino());
        id(a) == id(b)
    }

    /// Content of a file.
    #[track_caller]
    pub fn read(&self, name: &str) -> String {
        let path = self.path(name);
        String::from_utf8_lossy(&ok(&path, fs::read(&path))).into_owned()
    }

    /// Names in a directory of the tree, sorted.
    #[track_caller]
    pub fn list(&self, name: &str) -> Vec<String> {
        let path = self.path(name);
        let entries = ok(&path, fs::read_dir(&path));
        let mut names: Vec<String> =
            entries.map(|e| ok(&path, e).file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }

    #[track_caller]
    fn node(&self, name: &str, kind: FileType, (major, minor): (u32, u32)) -> &Plant {
        let path = self.with_parents(name);
        let (dir, last) = self.parent(name);
        let dev = rustix::fs::makedev(major, minor);
        ok(&path, put::node(dir.as_fd(), &last, kind, 0o640, dev));
        self
    }

    /// The open directory of an entry, and its last name.
    #[track_caller]
    fn parent(&self, name: &str) -> (OwnedFd, Vec<u8>) {
        let path = self.path(name.trim_end_matches('/'));
        match (name, path.parent(), path.file_name()) {
            ("", ..) | (_, None, _) | (_, _, None) => (ok(&path, put::open_dir(&path)), b".".to_vec()),
            (_, Some(dir), Some(last)) => (ok(&path, put::open_dir(dir)), last.as_bytes().to_vec()),
        }
    }

    #[track_caller]
    fn with_parents(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        if let Some(dir) = path.parent() {
            ok(dir, fs::create_dir_all(dir));
        }
        path
    }
}

fn acl(user: u32, perm: u16) -> Vec<u8> {
    put::acl(&[
        AclEntry::UserObj(6),
        AclEntry::User(perm, user),
        AclEntry::GroupObj(4),
        AclEntry::Mask(perm | 4),
        AclEntry::Other(0),
    ])
}

#[track_caller]
fn ok<T>(path: &Path, result: io::Result<T>) -> T {
    result.unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
