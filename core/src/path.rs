//! A path below SRC or DST. Checked once, here, and trusted everywhere else.

use crate::escape;
use serde::{Deserialize, Serialize};
use std::ffi::{CStr, CString};
use std::fmt;

/// A path relative to a root, as bytes, of any length.
///
/// Rule: either empty (the root itself) or components joined by single `/`, none of them empty, `.` or `..`,
/// and no NUL. A message from outside that breaks the rule does not decode.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct RelPath(Vec<u8>);

/// Says what is wrong with bytes that were meant to be a relative path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPath {
    /// It starts or ends with a slash, or has two in a row.
    #[error("empty component in a relative path")]
    EmptyComponent,
    /// A component is `.` or `..`.
    #[error("'.' or '..' in a relative path")]
    Dots,
    /// It has a NUL byte.
    #[error("NUL byte in a path")]
    Nul,
}

impl RelPath {
    /// The root itself.
    pub const fn root() -> Self {
        RelPath(Vec::new())
    }

    /// Checks the rule of the type.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, BadPath> {
        let bytes = bytes.into();
        if bytes.contains(&0) {
            return Err(BadPath::Nul);
        }
        if !bytes.is_empty() {
            for c in bytes.split(|b| *b == b'/') {
                match c {
                    b"" => return Err(BadPath::EmptyComponent),
                    b"." | b".." => return Err(BadPath::Dots),
                    _ => {}
                }
            }
        }
        Ok(RelPath(bytes))
    }

    /// Reads what [`Display`](fmt::Display) has written: escaped, and `.` for the root.
    pub fn from_shown(text: &str) -> Result<RelPath, BadPath> {
        match text {
            "." => Ok(RelPath::root()),
            text => RelPath::new(escape::unescape(text)),
        }
    }

    /// The path of an entry of this directory. The name comes from a directory listing, so the kernel
    /// has seen to it that it has no slash; debug builds check.
    pub fn child(&self, name: &CStr) -> RelPath {
        let name = name.to_bytes();
        debug_assert!(!name.is_empty() && !name.contains(&b'/') && name != b"." && name != b"..");
        let mut v = Vec::with_capacity(self.0.len() + 1 + name.len());
        if !self.0.is_empty() {
            v.extend_from_slice(&self.0);
            v.push(b'/');
        }
        v.extend_from_slice(name);
        RelPath(v)
    }

    /// The directory that holds it and its name there; `None` for the root.
    pub fn split(&self) -> Option<(RelPath, CString)> {
        if self.0.is_empty() {
            return None;
        }
        let (dir, name) = match self.0.iter().rposition(|b| *b == b'/') {
            Some(i) => (&self.0[..i], &self.0[i + 1..]),
            None => (&[][..], &self.0[..]),
        };
        let name = CString::new(name).unwrap_or_default();
        Some((RelPath(dir.to_vec()), name))
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether `other` is this path or lies below it.
    pub fn covers(&self, other: &RelPath) -> bool {
        self.0.is_empty()
            || other.0.strip_prefix(&self.0[..]).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

impl TryFrom<Vec<u8>> for RelPath {
    type Error = BadPath;
    fn try_from(v: Vec<u8>) -> Result<Self, BadPath> {
        RelPath::new(v)
    }
}
impl From<RelPath> for Vec<u8> {
    fn from(p: RelPath) -> Vec<u8> {
        p.0
    }
}
impl fmt::Display for RelPath {
    /// Writes it fit for a terminal and a log: see [`escape`]. The root is `.`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str(".") } else { escape::bytes(&self.0).fmt(f) }
    }
}
impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_names_of_any_bytes_and_refuses_what_could_lead_outside() {
        for ok in [&b""[..], b"a", b"a/b", b"-rf/\n/\xff\xfe", b"...", b"a/..b"] {
            assert!(RelPath::new(ok).is_ok(), "{ok:?}");
        }
        for bad in [&b"/"[..], b"/a", b"a/", b"a//b", b".", b"..", b"a/../b", b"a/.", b"a\0"] {
            assert!(RelPath::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read() {
        for p in [&b""[..], b"a/b", b"\xff\n\\\\#012", b"..."] {
            let p = RelPath::new(p).unwrap();
            assert_eq!(RelPath::from_shown(&p.to_string()), Ok(p));
        }
        assert!(RelPath::from_shown("a/..").is_err());
    }

    #[test]
    fn child_and_split_are_inverse() {
        for p in [&b"a"[..], b"a/b", b"x/y/z\n"] {
            let p = RelPath::new(p).unwrap();
            let (dir, name) = p.split().unwrap();
            assert_eq!(dir.child(&name), p);
        }
        assert!(RelPath::root().split().is_none());
    }

    #[test]
    fn covers_whole_components_only() {
        let p = |s: &str| RelPath::new(s).unwrap();
        assert!(p("a").covers(&p("a/b")) && p("a").covers(&p("a")) && p("").covers(&p("z")));
        assert!(!p("a").covers(&p("ab")) && !p("a/b").covers(&p("a")));
    }
}
