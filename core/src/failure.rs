//! A failure has a name: which path, which operation, which errno. A notice is said once for each kind.

use crate::path::RelPath;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Which of the two trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Side {
    /// Below SRC.
    Source,
    /// Below DST.
    Target,
}

/// Something that was asked for and could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Path relative to SRC and DST.
    pub path: RelPath,
    /// In which tree the operation failed.
    pub side: Side,
    /// The operation: a system call or, where the finding is ours, what was being done.
    pub op: String,
    /// The error number, 0 where the finding is ours.
    pub errno: i32,
    /// In words: the system's text for `errno`, or our own with a hint.
    pub error: String,
}

impl Side {
    /// The word in messages and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Side::Source => "source",
            Side::Target => "target",
        }
    }
}

impl Failure {
    /// A failed system call.
    pub fn errno(path: RelPath, side: Side, op: &str, errno: i32) -> Failure {
        Failure { path, side, op: op.to_owned(), errno, error: errno_text(errno) }
    }

    /// A finding of our own.
    pub fn finding(path: RelPath, side: Side, op: &str, error: impl Into<String>) -> Failure {
        Failure { path, side, op: op.to_owned(), errno: 0, error: error.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}): {}", self.path, self.op, self.side.name(), self.error)
    }
}

/// The system's words for an error number, without Rust's "(os error n)".
pub fn errno_text(errno: i32) -> String {
    let s = std::io::Error::from_raw_os_error(errno).to_string();
    match s.rfind(" (os error") {
        Some(i) => s[..i].to_owned(),
        None => s,
    }
}

/// What is said once for each kind in a job, and counted for each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Notice {
    /// Owners are not kept, for want of privilege.
    OwnerLeftOut,
    /// Groups that we are not in are not kept, for want of privilege.
    GroupLeftOut,
    /// Devices are not made, for want of privilege.
    DevicesLeftOut,
    /// Extended attributes of a namespace are not kept, for want of privilege.
    XattrsLeftOut,
    /// The target cannot hold ACLs.
    AclsUnsupported,
    /// The target cannot hold some extended attributes.
    XattrsUnsupported,
    /// The target rounds or clamps times.
    TimesUnsupported,
    /// The target cannot hold a kind of special file.
    SpecialsUnsupported,
    /// Entries in SRC that look like our own unfinished copies were left out.
    SourceTemporaries,
}

impl Notice {
    /// All of them.
    const ALL: [Notice; 9] = [
        Notice::OwnerLeftOut,
        Notice::GroupLeftOut,
        Notice::DevicesLeftOut,
        Notice::XattrsLeftOut,
        Notice::AclsUnsupported,
        Notice::XattrsUnsupported,
        Notice::TimesUnsupported,
        Notice::SpecialsUnsupported,
        Notice::SourceTemporaries,
    ];

    /// Reads back the name under which a ledger keeps it, that of its variant.
    pub fn from_name(name: &str) -> Option<Notice> {
        Notice::ALL.into_iter().find(|n| format!("{n:?}") == name)
    }

    /// What to tell the user.
    pub fn text(self) -> &'static str {
        match self {
            Notice::OwnerLeftOut => {
                "owners are left out: only root may give files away (counted as left_out_owner)"
            }
            Notice::GroupLeftOut => {
                "groups that you are not a member of are left out: only root may set them (counted as left_out_owner)"
            }
            Notice::DevicesLeftOut => {
                "devices are left out: only root may make them (counted as left_out_devices)"
            }
            Notice::XattrsLeftOut => {
                "extended attributes that only root may set are left out (counted as left_out_xattrs)"
            }
            Notice::AclsUnsupported => {
                "the target file system cannot hold ACLs (counted as unsupported_acls)"
            }
            Notice::XattrsUnsupported => {
                "the target file system cannot hold some extended attributes (counted as unsupported_xattrs)"
            }
            Notice::TimesUnsupported => {
                "the target file system rounds or clamps some times (counted as unsupported_times)"
            }
            Notice::SpecialsUnsupported => {
                "the target file system cannot hold some special files (counted as unsupported_specials)"
            }
            Notice::SourceTemporaries => {
                "entries of the source that are named like unfinished copies of treeferry were left out (counted as skipped)"
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_where_and_why() {
        let f = Failure::errno(RelPath::new("a/b\n").unwrap(), Side::Target, "rename", 28);
        assert_eq!(f.to_string(), "a/b\\#012: rename (target): No space left on device");
    }
}
