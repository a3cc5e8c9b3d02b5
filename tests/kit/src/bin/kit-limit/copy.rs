//! Moves data and metadata from one open file to another.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, Timespec, Timestamps, XattrFlags};

use crate::config::{Config, CopyBy, Publish, Times, When};
use crate::sys::{self, Stat, must};

/// O_DIRECT wants offsets, lengths and memory in whole blocks.
pub const BLOCK_BYTES: usize = 4096;

pub fn times_of(stat: &Stat) -> Timestamps {
    let time = |sec, nsec| Timespec { tv_sec: sec, tv_nsec: nsec };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as _),
    }
}

/// Sets owner, mode, extended attributes, times. `chmod`: creation did not set the mode.
pub fn finish_meta(
    config: &Config,
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    stat: &Stat,
    chmod: bool,
) {
    let name = c"(meta)";
    let own = match config.chown {
        When::Needed => stat.st_uid != config.uid || stat.st_gid != config.gid,
        When::Always => true,
        When::Never => false,
    };
    if own {
        must(sys::fchown(target, stat.st_uid, stat.st_gid), "fchown", name);
    }
    let chmod = match config.chmod {
        // A change of owner clears the set-id bits.
        When::Needed => chmod || (own && stat.st_mode & 0o6000 != 0),
        When::Always => true,
        When::Never => false,
    };
    if chmod {
        must(sys::fchmod(target, stat.st_mode & 0o7777), "fchmod", name);
    }
    if config.xattr {
        copy_xattrs(source, target);
    }
    if config.times == Times::ByFd {
        must(sys::futimens(target, stat), "futimens", name);
    }
}

fn copy_xattrs(source: BorrowedFd<'_>, target: BorrowedFd<'_>) {
    let mut list = [0_u8; 4096];
    let Ok(n @ 1..) = sys::flistxattr(source, &mut list) else {
        return;
    };
    let mut value = vec![0_u8; 65536];
    for key in list[..n].split_inclusive(|byte| *byte == 0) {
        let key = CStr::from_bytes_until_nul(key).unwrap_or_default();
        if let Ok(len) = rustix::fs::fgetxattr(source, key, &mut value[..]) {
            // What the target refuses is left out: there is no such tree to measure.
            let _ = rustix::fs::fsetxattr(target, key, &value[..len], XattrFlags::empty());
        }
    }
}

/// Copies a small file at the files' own positions; says how many bytes it had.
pub fn copy_small(
    config: &Config,
    buf: &mut [u8],
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    size: u64,
    name: &CStr,
) -> u64 {
    if size == 0 && !config.eof {
        return 0;
    }
    if config.copy != CopyBy::ReadWrite {
        copy_range(config, buf, source, target, 0, size);
        return size;
    }
    let mut sum = 0;
    loop {
        let n = must(sys::read(source, buf), "read", name);
        if n == 0 {
            return sum;
        }
        let mut done = 0;
        while done < n {
            done += must(sys::write(target, &buf[done..n]), "write", name);
        }
        sum += n as u64;
        // A short read of a regular file is its end.
        if !config.eof && (sum >= size || n < buf.len()) {
            return sum;
        }
    }
}

/// Copies the bytes from `offset` to `end`.
pub fn copy_range(
    config: &Config,
    buf: &mut [u8],
    source: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    mut offset: u64,
    end: u64,
) {
    let name = c"(data)";
    let whole_blocks = |n: usize| if config.direct { n.next_multiple_of(BLOCK_BYTES) } else { n };
    while offset < end {
        let left = usize::try_from(end - offset).unwrap_or(usize::MAX);
        let n = match config.copy {
            CopyBy::ReadWrite => {
                let want = whole_blocks(left.min(buf.len()));
                let n = must(rustix::io::pread(source, &mut buf[..want], offset), "pread", name);
                let len = if n == 0 { 0 } else { whole_blocks(n) };
                let mut done = 0;
                while done < len {
                    let at = offset + done as u64;
                    done += must(rustix::io::pwrite(target, &buf[done..len], at), "pwrite", name);
                }
                n
            }
            CopyBy::CopyFileRange => {
                let (mut from, mut to) = (offset, offset);
                let result =
                    rustix::fs::copy_file_range(source, Some(&mut from), target, Some(&mut to), left);
                must(result, "copy_file_range", name)
            }
        };
        if n == 0 {
            return;
        }
        offset += n as u64;
    }
}

/// Gives a whole file its final name, if it does not have it yet.
pub fn publish(
    config: &Config,
    dir: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    temporary: Option<&CStr>,
    name: &CStr,
) {
    match (config.publish, temporary) {
        (Publish::Rename, Some(temporary)) => {
            must(sys::renameat(dir, temporary, name), "rename", name);
        }
        (Publish::Tmpfile, _) => {
            // An empty path needs CAP_DAC_READ_SEARCH, which root has.
            let linked = rustix::fs::linkat(file, c"", dir, name, AtFlags::EMPTY_PATH);
            must(linked, "linkat", name);
        }
        _ => {}
    }
}
