//! A batch of names of one directory: the payload of a copy or delete task.
//!
//! Packed end to end with a NUL after each, so that a name can be handed to the kernel as it lies and a
//! batch of a thousand is two allocations.

use serde::{Deserialize, Serialize};
use std::ffi::CStr;

/// What an entry is. `Unknown` only as a hint from a file system whose listing does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// Not told by the listing; ask the kernel.
    Unknown,
    /// Regular file.
    File,
    /// Directory.
    Dir,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix-domain socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

/// Names of one directory with what each is thought to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Packed", into = "Packed")]
pub struct Names {
    bytes: Vec<u8>,
    at: Vec<(u32, Kind)>,
}

/// The form on the wire: the NUL-ended names and the kinds, in step.
#[derive(Clone, Serialize, Deserialize)]
struct Packed {
    bytes: Vec<u8>,
    kinds: Vec<Kind>,
}

/// Says that a batch from outside is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed batch of names")]
pub struct BadNames;

impl Names {
    /// Adds a name. Names come from listings: not empty, no slash, not `.` or `..`.
    pub fn push(&mut self, name: &CStr, kind: Kind) {
        self.at.push((self.bytes.len() as u32, kind));
        self.bytes.extend_from_slice(name.to_bytes_with_nul());
    }

    /// A batch of one.
    pub fn one(name: &CStr, kind: Kind) -> Names {
        let mut n = Names::default();
        n.push(name, kind);
        n
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.at.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.at.is_empty()
    }

    /// The names in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (&CStr, Kind)> {
        self.at.iter().map(|&(at, kind)| {
            let name = CStr::from_bytes_until_nul(&self.bytes[at as usize..]).unwrap_or_default();
            (name, kind)
        })
    }
}

impl From<Names> for Packed {
    fn from(n: Names) -> Packed {
        Packed { kinds: n.at.iter().map(|x| x.1).collect(), bytes: n.bytes }
    }
}
impl TryFrom<Packed> for Names {
    type Error = BadNames;
    fn try_from(p: Packed) -> Result<Names, BadNames> {
        let mut out = Names::default();
        let mut rest = &p.bytes[..];
        for kind in p.kinds {
            let name = CStr::from_bytes_until_nul(rest).map_err(|_| BadNames)?;
            let b = name.to_bytes();
            if b.is_empty() || b.contains(&b'/') || b == b"." || b == b".." {
                return Err(BadNames);
            }
            out.push(name, kind);
            rest = &rest[b.len() + 1..];
        }
        if rest.is_empty() { Ok(out) } else { Err(BadNames) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_names_and_kinds_in_order() {
        let mut n = Names::default();
        n.push(c"a", Kind::File);
        n.push(c"b\n\xff", Kind::Dir);
        let got: Vec<_> = n.iter().map(|(a, k)| (a.to_owned(), k)).collect();
        assert_eq!(got, [(c"a".to_owned(), Kind::File), (c"b\n\xff".to_owned(), Kind::Dir)]);
    }

    #[test]
    fn refuses_a_batch_that_could_lead_outside() {
        for (bytes, kinds) in [
            (&b"..\0"[..], 1),
            (b"a/b\0", 1),
            (b"\0", 1),
            (b"a", 1),
            (b"a\0b\0", 1),
            (b"a\0", 2),
            (b".\0", 1),
        ] {
            let p = Packed { bytes: bytes.to_vec(), kinds: vec![Kind::File; kinds] };
            assert_eq!(Names::try_from(p), Err(BadNames), "{bytes:?}");
        }
    }
}
