//! File systems to test on: ext4, XFS and btrfs in a sparse image on a loop device,
//! and tmpfs. Root only.
//!
//! Each mount has a janitor: a shell that waits for the end of a pipe we hold, then
//! unmounts and removes the image. It does its work when the mount is dropped, and
//! also when the test process is killed or leaves a shared mount behind, which no
//! destructor would see. Loop devices are detached by the unmount itself (autoclear).

use std::fmt;
use std::fs;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use crate::caps::own_ids;

/// Which file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FsKind {
    /// With a journal and ACLs, 256-byte inodes.
    Ext4,
    /// With reflinks and times after 2038.
    Xfs,
    /// With its defaults.
    Btrfs,
    /// Memory only.
    Tmpfs,
}

impl FsKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Ext4, Self::Xfs, Self::Btrfs, Self::Tmpfs];

    /// What `mount -t` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Tmpfs => "tmpfs",
        }
    }

    /// The program that makes it, its options, and the Debian package that brings it.
    fn mkfs(self) -> Option<(&'static str, &'static [&'static str], &'static str)> {
        Some(match self {
            // An inode for each 4 KiB: trees of tests are small files.
            Self::Ext4 => {
                ("mkfs.ext4", &["-q", "-F", "-O", "has_journal", "-I", "256", "-i", "4096"], "e2fsprogs")
            }
            Self::Xfs => ("mkfs.xfs", &["-q", "-f", "-m", "reflink=1,bigtime=1"], "xfsprogs"),
            Self::Btrfs => ("mkfs.btrfs", &["-q", "-f"], "btrfs-progs"),
            Self::Tmpfs => return None,
        })
    }
}

impl fmt::Display for FsKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Size of a mount when nobody says otherwise; images are sparse.
pub const DEFAULT_BYTES: u64 = 1 << 30;

/// A mounted file system of its own; unmounted and removed when dropped.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    janitor: Child,
    leash: Option<ChildStdin>,
}

impl Mount {
    /// Mounts a new file system of this kind, [`DEFAULT_BYTES`] large.
    pub fn new(kind: FsKind) -> io::Result<Self> {
        Self::sized(kind, DEFAULT_BYTES, None)
    }

    /// Mounts one of this size; XFS wants 300 MiB at least. `inodes` is the most
    /// entries it shall hold, for ext4 and tmpfs, which fix that beforehand.
    pub fn sized(kind: FsKind, bytes: u64, inodes: Option<u64>) -> io::Result<Self> {
        if own_ids().0 != 0 {
            return Err(io::Error::other(format!("mounting {kind} for a test needs root")));
        }
        let place = tempfile::Builder::new().prefix(&format!("kit-{kind}-")).tempdir()?;
        let image = place.path().join("image");
        let path = place.path().join("mnt");
        fs::create_dir(&path)?;
        let mut mount = Command::new("mount");
        mount.args(["-t", kind.name()]);
        if let Some((program, options, package)) = kind.mkfs() {
            fs::File::create(&image)?.set_len(bytes)?;
            let mut mkfs = Command::new(program);
            mkfs.args(options);
            if let (FsKind::Ext4, Some(inodes)) = (kind, inodes) {
                mkfs.args(["-N", &inodes.to_string()]);
            }
            told(mkfs.arg(&image), package)?;
            mount.args(["-o", "loop"]).arg(&image);
        } else {
            let inodes = inodes.map_or(String::new(), |n| format!(",nr_inodes={n}"));
            mount.args(["-o", &format!("size={bytes}{inodes}"), "tmpfs"]);
        }
        told(mount.arg(&path), "mount")?;
        let mut janitor = janitor(place)?;
        let leash = janitor.stdin.take();
        Ok(Self { path, janitor, leash })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        drop(self.leash.take());
        let _ = self.janitor.wait();
    }
}

/// Starts the shell that cleans `place` up once our end of its standard input closes.
fn janitor(place: TempDir) -> io::Result<Child> {
    // A process that is still dying may hold the mount for a moment; after a while it
    // is taken out of the tree of files whoever holds it.
    const SCRIPT: &str = r#"
        trap '' HUP INT QUIT TERM PIPE
        cat >/dev/null
        for try in 1 2 3 4 5 6 7 8 9 10; do
            umount "$1/mnt" 2>/dev/null && break
            sleep 0.1
        done
        mountpoint -q "$1/mnt" && umount -l "$1/mnt"
        mountpoint -q "$1/mnt" || rm -rf --one-file-system "$1"
    "#;
    let child = Command::new("sh")
        .args(["-c", SCRIPT, "kit-janitor"])
        .arg(place.path())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    // From here on the janitor owns the place.
    let _ = place.keep();
    Ok(child)
}

/// Runs a command; an error names the command, what it said, and the package it is in.
fn told(command: &mut Command, package: &str) -> io::Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| match error.kind() {
        // Refused, when PATH names a directory that we may not search.
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => io::Error::new(
            error.kind(),
            format!("{program} is not installed; it is in the Debian package {package}"),
        ),
        _ => io::Error::new(error.kind(), format!("cannot start {program}: {error}")),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("{program}: {}: {}", output.status, said.trim())))
}

/// A fresh directory on a mount that this process shares; removed when dropped.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// The directory.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Deref for Scratch {
    type Target = Path;

    fn deref(&self) -> &Path {
        self.path()
    }
}

/// Hands out a fresh directory on a file system of this kind, which is mounted at the
/// first call and shared by all tests of this process. `label` is part of its name.
///
/// # Panics
/// When the file system cannot be mounted: without root, or without its mkfs.
#[track_caller]
pub fn scratch(kind: FsKind, label: &str) -> Scratch {
    static MOUNTS: [OnceLock<Result<Mount, String>>; 4] = [const { OnceLock::new() }; 4];
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    /// Room for many tests side by side; an image is sparse, a tmpfs takes what it holds.
    const SHARED_BYTES: u64 = 8 << 30;

    let mount = MOUNTS[kind as usize]
        .get_or_init(|| Mount::sized(kind, SHARED_BYTES, Some(1_000_000)).map_err(|error| error.to_string()));
    let mount = match mount {
        Ok(mount) => mount,
        Err(error) => panic!("no {kind} to test on: {error}"),
    };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dir = tempfile::Builder::new().prefix(&format!("{label}-{number}-")).tempdir_in(mount.path());
    match dir {
        Ok(dir) => Scratch(dir),
        Err(error) => panic!("no directory on {kind}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_mounts_and_leaves_nothing_behind() {
        if own_ids().0 != 0 {
            return;
        }
        for kind in FsKind::ALL {
            let mount = Mount::sized(kind, 400 << 20, Some(10_000)).unwrap();
            let path = mount.path().to_path_buf();
            fs::write(path.join("file"), "x").unwrap();
            let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
            let line = format!("{} {kind} ", path.display());
            assert!(mounts.contains(&line), "{kind} is not mounted");
            drop(mount);
            assert!(!path.parent().unwrap().exists(), "{kind} left its place");
        }
    }

    #[test]
    fn scratch_directories_share_a_mount() {
        if own_ids().0 != 0 {
            return;
        }
        let (a, b) = (scratch(FsKind::Tmpfs, "x"), scratch(FsKind::Tmpfs, "x"));
        assert_ne!(a.path(), b.path());
        assert_eq!(a.parent(), b.parent());
    }

    #[test]
    fn a_missing_mkfs_is_told_with_its_package() {
        let error = told(&mut Command::new("mkfs.no-such"), "some-package").unwrap_err();
        assert!(error.to_string().contains("some-package"), "{error}");
    }
}
