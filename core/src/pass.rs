//! The three passes of a job and sets of them.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// One pass over the trees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Pass {
    /// Creates what is missing at the target, replaces what differs, repairs metadata where only it differs.
    Copy,
    /// Removes from the target what the source does not have.
    Delete,
    /// Gives directories their final owner, mode, ACLs, extended attributes and times.
    Dirtime,
}

impl Pass {
    /// All passes in the order in which a fused walk does them for a directory.
    pub const ALL: [Pass; 3] = [Pass::Copy, Pass::Delete, Pass::Dirtime];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Pass::Copy => "copy",
            Pass::Delete => "delete",
            Pass::Dirtime => "dirtime",
        }
    }
}

/// A set of passes, never empty when it comes from the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PassSet {
    /// Has the copy pass.
    pub copy: bool,
    /// Has the delete pass.
    pub delete: bool,
    /// Has the dirtime pass.
    pub dirtime: bool,
}

impl Default for PassSet {
    /// `copy,dirtime`.
    fn default() -> Self {
        PassSet { copy: true, delete: false, dirtime: true }
    }
}

impl PassSet {
    /// Whether the set has the pass.
    pub fn has(self, p: Pass) -> bool {
        match p {
            Pass::Copy => self.copy,
            Pass::Delete => self.delete,
            Pass::Dirtime => self.dirtime,
        }
    }

    /// The names of its passes in order.
    pub fn names(self) -> Vec<&'static str> {
        Pass::ALL.into_iter().filter(|p| self.has(*p)).map(Pass::name).collect()
    }
}

impl fmt::Display for PassSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(","))
    }
}

/// Says why a text is not a list of passes.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a pass; there are copy, delete and dirtime, separated by commas")]
pub struct BadPass(String);

impl FromStr for PassSet {
    type Err = BadPass;
    fn from_str(s: &str) -> Result<Self, BadPass> {
        let mut set = PassSet { copy: false, delete: false, dirtime: false };
        for w in s.split(',') {
            match w.trim() {
                "copy" => set.copy = true,
                "delete" => set.delete = true,
                "dirtime" => set.dirtime = true,
                _ => return Err(BadPass(w.to_owned())),
            }
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lists_and_refuses_the_rest() {
        assert_eq!("copy,dirtime".parse(), Ok(PassSet::default()));
        assert_eq!("delete".parse::<PassSet>().unwrap().names(), ["delete"]);
        assert_eq!("dirtime,copy,delete".parse::<PassSet>().unwrap().to_string(), "copy,delete,dirtime");
        assert!("".parse::<PassSet>().is_err() && "copy,,delete".parse::<PassSet>().is_err());
        assert_eq!("copy,move".parse::<PassSet>(), Err(BadPass("move".into())));
    }
}
