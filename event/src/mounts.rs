//! What is mounted below the source directory, and when that changes.

use crate::beneath::{Root, path_of};
use crate::error::{Call, Error};
use crate::wake::is_ready;
use rustix::event::PollFlags;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags};
use std::collections::BTreeSet;
use treeferry_core::path::RelPath;

/// The table of mounts, with those that are below the source.
pub(crate) struct Mounts {
    table: OwnedFd,
    /// A second one to wait for: a descriptor of this table says only once that it has changed.
    alarm: OwnedFd,
    known: BTreeSet<(RelPath, u64)>,
}

impl Mounts {
    /// What poll(2) says when the table has changed.
    pub(crate) const CHANGED: PollFlags = PollFlags::PRI.union(PollFlags::ERR);

    /// Reads the table.
    pub(crate) fn new(root: &Root) -> Result<Mounts, Error> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let open =
            || rustix::fs::openat(CWD, c"/proc/self/mountinfo", flags, Mode::empty()).map_err(Error::Proc);
        Ok(Mounts { table: open()?, alarm: open()?, known: below(root)? })
    }

    /// Becomes ready for [`Mounts::CHANGED`].
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.alarm.as_fd()
    }

    /// Where something is mounted.
    pub(crate) fn points(&self) -> BTreeSet<RelPath> {
        self.known.iter().map(|(point, _)| point.clone()).collect()
    }

    /// Where something was mounted or unmounted since this was asked last.
    pub(crate) fn changes(&mut self, root: &Root) -> Result<BTreeSet<RelPath>, Error> {
        if !is_ready(self.table.as_fd(), Mounts::CHANGED) {
            return Ok(BTreeSet::new());
        }
        let now = below(root)?;
        let points = now.symmetric_difference(&self.known).map(|(point, _)| point.clone()).collect();
        self.known = now;
        Ok(points)
    }
}

fn below(root: &Root) -> Result<BTreeSet<(RelPath, u64)>, Error> {
    let table = std::fs::read("/proc/self/mountinfo").map_err(|e| {
        Error::Proc(e.raw_os_error().map_or(rustix::io::Errno::IO, rustix::io::Errno::from_raw_os_error))
    })?;
    let top = match path_of(root.fd()) {
        Ok(top) => top,
        // a root that lies deeper than PATH_MAX, or is gone: nothing is mounted below it that could be named
        Err(rustix::io::Errno::NAMETOOLONG | rustix::io::Errno::NOENT) => return Ok(BTreeSet::new()),
        Err(errno) => return Err(errno).call("readlink"),
    };
    Ok(table.split(|b| *b == b'\n').filter_map(|line| parse(line, &top)).collect())
}

/// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)): where it is below `top`, and the identity of the mount.
fn parse(line: &[u8], top: &[u8]) -> Option<(RelPath, u64)> {
    let mut fields = line.split(|b| *b == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let point = relative(&unescape(fields.nth(3)?), top)?;
    (!point.is_root()).then_some((point, id))
}

/// An absolute path as one below `top`; `None` if it is not.
pub(crate) fn relative(path: &[u8], top: &[u8]) -> Option<RelPath> {
    let rest = match path.strip_prefix(top)? {
        b"" => b"",
        rest if top == b"/" => rest,
        rest => rest.strip_prefix(b"/")?,
    };
    RelPath::new(rest).ok()
}

/// Blank, tab, newline and backslash are written `\ooo` in the table of mounts.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&b, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| b == b'\\').and_then(|d| std::str::from_utf8(d).ok());
        match octal.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(v) => {
                out.push(v);
                rest = tail.get(3..).unwrap_or_default();
            }
            None => {
                out.push(b);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_below_counts() {
        let line = |point: &str| format!("36 35 98:0 / {point} rw - ext3 /dev/root rw");
        let at = |point: &str, top: &str| parse(line(point).as_bytes(), top.as_bytes()).map(|(p, _)| p);
        let p = |s: &str| Some(RelPath::new(s).unwrap());
        assert_eq!(at("/a/b\\040c", "/a"), p("b c"));
        assert_eq!(at("/a/b", "/"), p("a/b"));
        for (point, top) in [("/a", "/a"), ("/ab", "/a"), ("/", "/"), ("/", "/a")] {
            assert_eq!(at(point, top), None, "{point} {top}");
        }
        assert_eq!(parse(b"", b"/"), None);
    }
}
