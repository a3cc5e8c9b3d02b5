//! Everything that the kit knows to be awkward, from each file system to each other, judged by three
//! witnesses: the oracle, `treeferry verify -c`, and rsync.

use crate::checks::{assert_idle, entries, is_root, leftovers};
use std::fs;
use std::path::{Path, PathBuf};
use treeferry_kit::mounts::{FsKind, scratch};
use treeferry_kit::oracle::{Options, compare};
use treeferry_kit::run::run;
use treeferry_kit::tree::{Kind, Spec};
use treeferry_tests::{Run, args, command, sync};

/// The longest text of a symlink on XFS, in bytes.
const XFS_SYMLINK_BYTES: u64 = 1023;

#[test]
fn awkward_trees_on_ext4_are_cloned_to_every_file_system() {
    clone_from(FsKind::Ext4);
}

#[test]
fn awkward_trees_on_xfs_are_cloned_to_every_file_system() {
    clone_from(FsKind::Xfs);
}

#[test]
fn awkward_trees_on_btrfs_are_cloned_to_every_file_system() {
    clone_from(FsKind::Btrfs);
}

#[test]
fn awkward_trees_on_tmpfs_are_cloned_to_every_file_system() {
    clone_from(FsKind::Tmpfs);
}

fn clone_from(from: FsKind) {
    if !is_root() {
        return;
    }
    let home = scratch(from, "from");
    let src = home.join("src");
    make(&src);
    for to in FsKind::ALL {
        let there = scratch(to, "to");
        let dst = there.join("dst");
        println!("{from} to {to}");
        let first = sync([&src, &dst]).expect(0);
        assert_eq!(first.count("failures") + first.count("unsupported_times"), 0, "{first}");
        let options = Options { atime: true, ..Options::default() };
        let found = compare(&src, &dst, &options);
        assert!(found.is_empty(), "{from} to {to}: {found}");
        assert_idle(&sync([&src, &dst]).expect(0));
        assert_idle(&sync(args!["--delete", &src, &dst]).expect(0));
        let verified = Run::of(&mut command(args!["verify", "--json", "-c", &src, &dst])).expect(0);
        assert_eq!(verified.json["differences"], 0);
        assert_rsync_is_content(&src, &dst);
        assert_eq!(leftovers(&dst.join("awkward")), [""; 0].map(PathBuf::from));
    }
}

/// The trees H, S and D side by side, without what not even the file systems agree on.
fn make(src: &Path) {
    fs::create_dir(src).unwrap();
    Spec::new(Kind::Awkward).scale(0.06).make(&src.join("awkward")).unwrap();
    Spec::new(Kind::Small).scale(0.01).make(&src.join("small")).unwrap();
    Spec::new(Kind::Deep).make(&src.join("deep")).unwrap();
    for (path, meta) in entries(&src.join("awkward")) {
        if meta.is_symlink() && meta.len() > XFS_SYMLINK_BYTES {
            fs::remove_file(src.join("awkward").join(path)).unwrap();
        }
    }
}

/// Fails the test if rsync would change anything. It cannot work below `PATH_MAX`.
#[track_caller]
fn assert_rsync_is_content(src: &Path, dst: &Path) {
    let [mut src, mut dst] = [src, dst].map(|p| p.as_os_str().to_owned());
    src.push("/");
    dst.push("/");
    // the second form in which XFS shows an ACL to root, and in which rsync would carry it elsewhere
    let not_twice = "--filter=-x trusted.SGI_ACL_*";
    let words = args!["-aHAXSni", "--delete", "--exclude=/deep", not_twice, src, dst];
    let would = run("rsync", words).expect_code(0);
    assert_eq!(would.stdout_text(), "", "{would}");
}
