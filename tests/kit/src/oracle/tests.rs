//! Two alike trees, one thing spoilt: the oracle must name that thing and no other.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, makedev};
use tempfile::TempDir;

use super::differences::EntryKind::{CharDevice, Dir, Fifo, File, Symlink, Unknown};
use super::{Class, Options, assert_alike, compare};
use crate::caps::{Caps, own_ids};
use crate::mounts::{FsKind, scratch};
use crate::put::{self, AclEntry, Meta};

/// Two trees with one of everything, made alike.
struct Pair {
    place: TempDir,
    caps: Caps,
}

fn meta(mode: u32) -> Meta {
    let (uid, gid) = own_ids();
    Meta { mode, uid, gid, sec: 1_600_000_000, nsec: 123_456_789 }
}

fn acl(perm: u16) -> Vec<u8> {
    let named = AclEntry::User(perm, 7);
    put::acl(&[AclEntry::UserObj(6), named, AclEntry::GroupObj(4), AclEntry::Mask(7), AclEntry::Other(0)])
}

impl Pair {
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let caps = Caps::probe(place.path()).unwrap();
        let pair = Self { place, caps };
        for side in ["a", "b"] {
            pair.make(&pair.at(side));
        }
        assert_alike(&pair.at("a"), &pair.at("b"));
        pair
    }

    fn make(&self, root: &Path) {
        fs::create_dir(root).unwrap();
        let fd = put::open_dir(root).unwrap();
        let fd = fd.as_fd();
        let dir = put::dir(fd, b"dir").unwrap();
        put::file(dir.as_fd(), b"inner", b"inner", &meta(0o644)).unwrap();
        put::file(fd, b"file", b"content", &meta(0o644)).unwrap();
        put::file(fd, b"other", b"content", &meta(0o644)).unwrap();
        put::link(fd, b"file", dir.as_fd(), b"second").unwrap();
        let sparse = put::create(fd, b"sparse").unwrap();
        rustix::fs::ftruncate(&sparse, 8 << 20).unwrap();
        put::write_at(sparse.as_fd(), b"island", 4 << 20).unwrap();
        put::finish(sparse.as_fd(), &meta(0o600)).unwrap();
        put::symlink(fd, b"link", b"target").unwrap();
        put::times(fd, b"link", &meta(0)).unwrap();
        put::node(fd, b"fifo", FileType::Fifo, 0o600, 0).unwrap();
        put::times(fd, b"fifo", &meta(0)).unwrap();
        if self.caps.devices {
            put::node(fd, b"chr", FileType::CharacterDevice, 0o600, makedev(1, 3)).unwrap();
            put::times(fd, b"chr", &meta(0)).unwrap();
        }
        if self.caps.user_xattrs {
            put::xattr(fd, b"file", b"user.key", b"value").unwrap();
        }
        if self.caps.acls {
            put::xattr(fd, b"other", b"system.posix_acl_access", &acl(4)).unwrap();
            let shared = put::dir(fd, b"shared").unwrap();
            put::xattr(fd, b"shared", b"system.posix_acl_default", &acl(4)).unwrap();
            put::finish(shared.as_fd(), &meta(0o755)).unwrap();
        }
        put::finish(dir.as_fd(), &meta(0o755)).unwrap();
        self.settle(root);
    }

    /// Sets the root's times, which every spoiling moves.
    fn settle(&self, root: &Path) {
        put::finish(put::open_dir(root).unwrap().as_fd(), &meta(0o755)).unwrap();
    }

    fn at(&self, path: &str) -> PathBuf {
        self.place.path().join(path)
    }

    /// Spoils the copy and expects exactly these classes.
    #[track_caller]
    fn expect(&self, classes: &[Class], spoil: impl FnOnce(&Path)) {
        let copy = self.at("b");
        spoil(&copy);
        self.settle(&copy);
        let found = compare(&self.at("a"), &copy, &Options::default());
        assert_eq!(found.classes(), classes, "{found}");
        assert!(classes.iter().all(|class| found.count(class) > 0));
    }
}

/// Sets one file's attributes below the root.
fn on(root: &Path, name: &str, change: impl FnOnce(Meta) -> Meta) {
    let fd = put::open_dir(root).unwrap();
    put::times(fd.as_fd(), name.as_bytes(), &change(meta(0))).unwrap();
}

/// Puts the times of `dir` back after an entry came or went.
fn settle_dir(root: &Path) {
    on(root, "dir", |meta| meta);
}

fn mtime(of: super::EntryKind, close: bool) -> Class {
    Class::Mtime { of, close }
}

#[test]
fn alike_trees_are_alike() {
    Pair::new().expect(&[], |_| {});
}

#[test]
fn missing_and_extra_entries_are_found() {
    Pair::new().expect(&[Class::Missing(File)], |b| fs::remove_file(b.join("other")).unwrap());
    Pair::new().expect(&[Class::Missing(Fifo)], |b| fs::remove_file(b.join("fifo")).unwrap());
    Pair::new().expect(&[Class::Extra], |b| fs::write(b.join("new"), "").unwrap());
    // What lies below a directory counts, too; the group loses a name.
    Pair::new().expect(&[Class::Missing(File), Class::Missing(Dir), Class::HardlinkGroup], |b| {
        fs::remove_dir_all(b.join("dir")).unwrap();
    });
    let pair = Pair::new();
    fs::create_dir_all(pair.at("b/new/deeper")).unwrap();
    pair.settle(&pair.at("b"));
    let found = compare(&pair.at("a"), &pair.at("b"), &Options::default());
    assert_eq!(found.paths(&Class::Extra), [&b"new"[..], b"new/deeper"]);
}

#[test]
fn changed_types_are_found() {
    Pair::new().expect(&[Class::Type(File, Symlink)], |b| {
        fs::remove_file(b.join("other")).unwrap();
        std::os::unix::fs::symlink("x", b.join("other")).unwrap();
    });
    Pair::new().expect(&[Class::Missing(File), Class::Type(Dir, File), Class::HardlinkGroup], |b| {
        fs::remove_dir_all(b.join("dir")).unwrap();
        fs::write(b.join("dir"), "").unwrap();
    });
}

#[test]
fn modes_are_found() {
    let chmod = |path: PathBuf| {
        let fd = put::open_dir(path.parent().unwrap()).unwrap();
        let name = path.file_name().unwrap().as_encoded_bytes().to_vec();
        put::mode(fd.as_fd(), &name, 0o4711).unwrap();
    };
    Pair::new().expect(&[Class::Mode], |b| chmod(b.join("sparse")));
    Pair::new().expect(&[Class::ModeDir], |b| chmod(b.join("dir")));
}

#[test]
fn owners_are_found() {
    let pair = Pair::new();
    if !pair.caps.owners {
        return;
    }
    let chown = |b: &Path, name: &str, uid, gid| {
        let fd = put::open_dir(b).unwrap();
        let whose = Meta { uid, gid, ..meta(0) };
        put::owner(fd.as_fd(), name.as_bytes(), &whose).unwrap();
    };
    let (uid, gid) = own_ids();
    pair.expect(&[Class::Uid], |b| chown(b, "sparse", uid + 1, gid));
    Pair::new().expect(&[Class::Gid], |b| chown(b, "sparse", uid, gid + 1));
    Pair::new().expect(&[Class::UidSymlink], |b| chown(b, "link", uid + 1, gid));
    Pair::new().expect(&[Class::GidSymlink], |b| chown(b, "link", uid, gid + 1));
}

#[test]
fn times_are_found_by_kind_and_distance() {
    let later = |meta: Meta| Meta { sec: meta.sec + 5, ..meta };
    let coarse = |meta: Meta| Meta { nsec: 0, ..meta };
    Pair::new().expect(&[mtime(File, false)], |b| on(b, "other", later));
    Pair::new().expect(&[mtime(File, true)], |b| on(b, "other", coarse));
    Pair::new().expect(&[mtime(Dir, false)], |b| on(b, "dir", later));
    Pair::new().expect(&[mtime(Symlink, true)], |b| on(b, "link", coarse));
    Pair::new().expect(&[mtime(Unknown, false)], |b| on(b, "fifo", later));
}

#[test]
fn access_times_are_found_when_asked_for() {
    let pair = Pair::new();
    let file = fs::File::open(pair.at("b/other")).unwrap();
    let times = fs::FileTimes::new().set_accessed(std::time::SystemTime::UNIX_EPOCH);
    file.set_times(times).unwrap();
    pair.expect(&[], |_| {});
    let options = Options { atime: true, ..Options::default() };
    let found = compare(&pair.at("a"), &pair.at("b"), &options);
    assert_eq!(found.classes(), [Class::Atime], "{found}");
}

#[test]
fn sizes_contents_and_holes_are_found() {
    let write = |b: &Path, name: &str, data: &[u8], offset: u64| {
        let file = fs::OpenOptions::new().write(true).open(b.join(name)).unwrap();
        file.write_all_at(data, offset).unwrap();
        on(b, name, |meta| meta);
    };
    Pair::new().expect(&[Class::Size], |b| write(b, "other", b"longer than that", 0));
    Pair::new().expect(&[Class::Content], |b| write(b, "other", b"Content", 0));
    // One byte in what is a hole in the original.
    Pair::new().expect(&[Class::Content], |b| write(b, "sparse", b"x", 7 << 20));
    Pair::new().expect(&[Class::SparseLost], |b| write(b, "sparse", &[0; 2 << 20], 0));
}

#[test]
fn a_single_wrong_byte_late_in_a_large_file_is_found() {
    let place = tempfile::tempdir().unwrap();
    for (side, last) in [("a", 1), ("b", 2)] {
        fs::create_dir(place.path().join(side)).unwrap();
        let fd = put::open_dir(&place.path().join(side)).unwrap();
        let mut data = vec![7; 3_000_001];
        data[2_999_999] = last;
        put::file(fd.as_fd(), b"large", &data, &meta(0o644)).unwrap();
        put::finish(fd.as_fd(), &meta(0o755)).unwrap();
    }
    let [a, b] = ["a", "b"].map(|side| place.path().join(side));
    let found = compare(&a, &b, &Options::default());
    assert_eq!(found.classes(), [Class::Content], "{found}");
}

#[test]
fn symlink_texts_and_device_numbers_are_found() {
    Pair::new().expect(&[Class::TargetOrRdev], |b| {
        fs::remove_file(b.join("link")).unwrap();
        std::os::unix::fs::symlink("Target", b.join("link")).unwrap();
        on(b, "link", |meta| meta);
    });
    let pair = Pair::new();
    if pair.caps.devices {
        pair.expect(&[Class::TargetOrRdev], |b| {
            fs::remove_file(b.join("chr")).unwrap();
            let fd = put::open_dir(b).unwrap();
            let zero = makedev(1, 5);
            put::node(fd.as_fd(), b"chr", FileType::CharacterDevice, 0o600, zero).unwrap();
            on(b, "chr", |meta| meta);
        });
        Pair::new().expect(&[Class::Type(CharDevice, Fifo)], |b| {
            fs::remove_file(b.join("chr")).unwrap();
            let fd = put::open_dir(b).unwrap();
            put::node(fd.as_fd(), b"chr", FileType::Fifo, 0o600, 0).unwrap();
        });
    }
}

#[test]
fn attributes_are_found_by_class() {
    let set = |b: &Path, name: &str, key: &str, value: &[u8]| {
        let fd = put::open_dir(b).unwrap();
        put::xattr(fd.as_fd(), name.as_bytes(), key.as_bytes(), value).unwrap();
    };
    let caps = Pair::new().caps;
    if caps.user_xattrs {
        let user = || Class::Xattr("user".into());
        Pair::new().expect(&[user()], |b| set(b, "file", "user.key", b"Value"));
        Pair::new().expect(&[user()], |b| set(b, "other", "user.new", b""));
        Pair::new().expect(&[user()], |b| {
            rustix::fs::removexattr(b.join("file"), "user.key").unwrap();
        });
    }
    if caps.trusted_xattrs {
        let trusted = Class::Xattr("trusted".into());
        Pair::new().expect(&[trusted], |b| set(b, "link", "trusted.new", b"x"));
        let net_bind: [u32; 5] = [0x0200_0001, 0x400, 0, 0, 0];
        let bytes: Vec<u8> = net_bind.iter().flat_map(|word| word.to_le_bytes()).collect();
        Pair::new().expect(&[Class::Capability], |b| set(b, "other", "security.capability", &bytes));
    }
    if caps.acls {
        Pair::new().expect(&[Class::Acl], |b| set(b, "other", "system.posix_acl_access", &acl(5)));
        Pair::new().expect(&[Class::DefaultAcl], |b| set(b, "shared", "system.posix_acl_default", &acl(5)));
    }
}

#[test]
fn split_and_joined_hard_links_are_found() {
    // Split: the second name becomes a file of its own.
    Pair::new().expect(&[Class::HardlinkGroup], |b| {
        fs::remove_file(b.join("dir/second")).unwrap();
        let dir = put::open_dir(&b.join("dir")).unwrap();
        put::file(dir.as_fd(), b"second", b"content", &meta(0o644)).unwrap();
        if Caps::probe(b).unwrap().user_xattrs {
            put::xattr(dir.as_fd(), b"second", b"user.key", b"value").unwrap();
        }
        settle_dir(b);
    });
    // Joined: two files of the same content become one.
    let place = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|side| place.path().join(side));
    for root in [&a, &b] {
        fs::create_dir(root).unwrap();
        let fd = put::open_dir(root).unwrap();
        put::file(fd.as_fd(), b"one", b"same", &meta(0o644)).unwrap();
        if root == &a {
            put::file(fd.as_fd(), b"two", b"same", &meta(0o644)).unwrap();
        } else {
            put::link(fd.as_fd(), b"one", fd.as_fd(), b"two").unwrap();
        }
        put::finish(fd.as_fd(), &meta(0o755)).unwrap();
    }
    let found = compare(&a, &b, &Options::default());
    assert_eq!(found.classes(), [Class::HardlinkGroup], "{found}");
    assert_eq!(found.count(&Class::HardlinkGroup), 2);
}

#[test]
fn names_outside_the_tree_make_no_group() {
    let pair = Pair::new();
    fs::hard_link(pair.at("a/other"), pair.at("outside")).unwrap();
    pair.expect(&[], |_| {});
}

#[test]
fn what_cannot_be_seen_is_a_difference() {
    let place = tempfile::tempdir().unwrap();
    let absent = place.path().join("absent");
    let found = compare(place.path(), &absent, &Options::default());
    assert_eq!(found.classes(), [Class::Unreadable]);
    // A root that is a file is no tree.
    let file = fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&absent);
    drop(file.unwrap());
    let found = compare(place.path(), &absent, &Options::default());
    assert_eq!(found.classes(), [Class::Unreadable]);
}

#[test]
fn subtrees_on_one_side_below_the_window_of_open_fds_are_walked_back_from() {
    let place = tempfile::tempdir().unwrap();
    let [a, b] = ["a", "b"].map(|side| place.path().join(side));
    let deep = "d/".repeat(40);
    for root in [&a, &b] {
        fs::create_dir_all(root.join(&deep)).unwrap();
        fs::write(root.join("z"), root.as_os_str().as_encoded_bytes().last_chunk::<1>().unwrap()).unwrap();
    }
    fs::create_dir_all(a.join("d/d").join("e/".repeat(40))).unwrap();
    let found = compare(&a, &b, &Options::default());
    assert_eq!(found.count(&Class::Unreadable), 0, "{found}");
    assert_eq!(found.count(&Class::Missing(Dir)), 40, "{found}");
    assert_eq!(found.paths(&Class::Content), [b"z"]);
}

#[test]
fn an_acl_on_xfs_is_alike_to_one_on_ext4_and_its_copied_shadow_is_not() {
    if own_ids().0 != 0 {
        return;
    }
    let [x, e] = [FsKind::Xfs, FsKind::Ext4].map(|kind| scratch(kind, "acl"));
    for root in [&x, &e] {
        let fd = put::open_dir(root).unwrap();
        put::file(fd.as_fd(), b"file", b"", &meta(0o640)).unwrap();
        put::xattr(fd.as_fd(), b"file", b"system.posix_acl_access", &acl(4)).unwrap();
        put::finish(fd.as_fd(), &meta(0o755)).unwrap();
    }
    assert_alike(&x, &e);
    let fd = put::open_dir(&e).unwrap();
    put::xattr(fd.as_fd(), b"file", b"trusted.SGI_ACL_FILE", b"x").unwrap();
    let found = compare(&x, &e, &Options::default());
    assert_eq!(found.classes(), [Class::Xattr("trusted".into())], "{found}");
}
