//! Device numbers that mean the same on every node.
//!
//! A node numbers its file systems as it mounts them, so `st_dev` of one NFS or Lustre file system differs from node
//! to node. What is alike is where it is mounted: the device of a root is 0, and that of a file system mounted
//! somewhere below it is a digest of that place.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use treeferry_fs::meta::{device_name, fstat};
use treeferry_fs::{AsFd, Root};

/// The devices of a tree.
#[derive(Debug)]
pub(crate) struct Devices {
    /// `None`: all work is done on this node, whose numbers serve.
    tree: Option<Tree>,
}

#[derive(Debug)]
struct Tree {
    path: PathBuf,
    root: u64,
    known: Mutex<HashMap<u64, u64>>,
}

impl Devices {
    /// For a job of this node alone.
    pub fn of_one_node() -> Devices {
        Devices { tree: None }
    }

    /// For a job of several nodes.
    pub fn shared(root: &Root) -> Devices {
        let path = root.path().canonicalize().unwrap_or_else(|_| root.path().to_owned());
        let dev = fstat(root.fd().as_fd()).map_or(0, |m| m.dev);
        Devices { tree: Some(Tree { path, root: dev, known: Mutex::default() }) }
    }

    /// The number by which a device goes on every node.
    pub fn number(&self, dev: u64) -> u64 {
        let Some(t) = &self.tree else { return dev };
        if dev == t.root {
            return 0;
        }
        let mut known = t.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known.entry(dev).or_insert_with(|| {
            let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
            // a subvolume is mounted nowhere: nodes that number it differently will make copies in place of links
            // across tasks, never a wrong link, since inode numbers are compared too
            place(&mounts, dev, t.path.as_os_str().as_bytes()).map_or(dev, digest)
        })
    }
}

/// Where below a root a device is mounted: of several places the one that comes first in the alphabet, so that every
/// node names the same.
fn place<'a>(mountinfo: &'a [u8], dev: u64, root: &[u8]) -> Option<&'a [u8]> {
    let id = device_name(dev);
    let below = |line: &'a [u8]| {
        // proc_pid_mountinfo(5): mount, parent, major:minor, root, mount point
        let mut fields = line.split(|b| *b == b' ').skip(2);
        let (number, _, point) = (fields.next()?, fields.next()?, fields.next()?);
        let inside = point.strip_prefix(root)?.strip_prefix(b"/")?;
        (number == id.as_bytes()).then_some(inside)
    };
    mountinfo.split(|b| *b == b'\n').filter_map(below).min()
}

/// FNV-1a, and never 0.
fn digest(place: &[u8]) -> u64 {
    let fold = |d: u64, b: &u8| (d ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
    place.iter().fold(0xcbf2_9ce4_8422_2325, fold).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &[u8] = b"22 1 8:1 / / rw - ext4 /dev/a rw\n30 22 0:41 / /src rw - nfs x rw\n\
        31 30 0:52 / /src/home rw - nfs y rw\n32 30 0:52 / /src/alias rw - nfs y rw\n33 22 0:53 / /srcb rw - nfs z rw\n";

    #[test]
    fn a_device_goes_by_the_place_where_it_is_mounted() {
        // makedev(3): a minor below 256 and major 0
        assert_eq!(place(MOUNTS, 52, b"/src"), Some(&b"alias"[..]));
        assert_eq!(place(MOUNTS, 53, b"/src"), None, "beside the root, not below it");
        assert_eq!(place(MOUNTS, 41, b"/src"), None, "the root itself");
        assert_ne!(digest(b"alias"), digest(b"home"));
    }

    #[test]
    fn the_root_is_0_everywhere_and_one_node_keeps_its_numbers() {
        let root = Root::open(std::path::Path::new("/")).unwrap();
        let dev = fstat(root.fd().as_fd()).unwrap().dev;
        assert_eq!(Devices::shared(&root).number(dev), 0);
        assert_eq!(Devices::of_one_node().number(dev), dev);
    }
}
