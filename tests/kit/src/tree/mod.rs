//! Deterministic trees, each made for one question about a tool that clones trees.
//!
//! | kind | what it is | full size |
//! |---|---|---|
//! | S | small files (0 to 16 KiB, log-uniform) in a realistic fan-out, and 8 directories of 5 000 | 200 000 files |
//! | G | one flat directory of files up to 1 KiB | 200 000 files |
//! | L | large files of random bytes | 8 of 1 GiB |
//! | H | awkward entries: links, holes, nodes, attributes, odd names | 50 000 entries |
//! | D | a chain of directories, its path longer than `PATH_MAX` | 1 000 levels |
//! | E | one flat directory of empty files | 2 000 000 files |
//! | W | one directory of empty directories | 100 000 directories |

mod awkward;
mod plain;

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::str::FromStr;

use crate::caps::own_ids;
use crate::put::{self, Meta};
use crate::rng::Rng;

/// The largest file of tree L, in bytes.
const LARGE_FILE_BYTES: u64 = 1 << 30;

/// Which tree; the letter is its name on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// S: small files.
    Small,
    /// G: one flat directory.
    Flat,
    /// L: large files; the scale shrinks the files, not their number.
    Large,
    /// H: awkward entries; wants root.
    Awkward,
    /// D: a chain of directories.
    Deep,
    /// E: a flat directory of empty files.
    Empty,
    /// W: a directory of many directories.
    Wide,
}

impl Kind {
    /// Every kind, in the order of the table above.
    pub const ALL: [Self; 7] =
        [Self::Small, Self::Flat, Self::Large, Self::Awkward, Self::Deep, Self::Empty, Self::Wide];

    /// The letter that stands for it.
    pub const fn letter(self) -> char {
        match self {
            Self::Small => 'S',
            Self::Flat => 'G',
            Self::Large => 'L',
            Self::Awkward => 'H',
            Self::Deep => 'D',
            Self::Empty => 'E',
            Self::Wide => 'W',
        }
    }

    /// How many entries (of L: bytes a file) a tree of scale 1 has.
    const fn full_size(self) -> u64 {
        match self {
            Self::Small | Self::Flat => 200_000,
            Self::Large => LARGE_FILE_BYTES,
            Self::Awkward => 50_000,
            Self::Deep => 1_000,
            Self::Empty => 2_000_000,
            Self::Wide => 100_000,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.letter())
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| text == kind.letter().to_string())
            .ok_or_else(|| format!("no kind of tree is called {text:?}"))
    }
}

/// A tree to be made: its kind, its size and the seed of everything in it.
#[derive(Clone, Debug)]
pub struct Spec {
    kind: Kind,
    count: u64,
    seed: u64,
    owner: (u32, u32),
}

impl Spec {
    /// The full-size tree of this kind, seed 1. Entries belong to 1000:1000 when we
    /// are root (so that a clone has owners to keep), else to ourselves.
    pub fn new(kind: Kind) -> Self {
        let owner = match own_ids() {
            (0, _) => (1000, 1000),
            own => own,
        };
        Self { kind, count: kind.full_size(), seed: 1, owner }
    }

    /// Multiplies the full size; at least one entry stays.
    #[must_use]
    pub fn scale(self, factor: f64) -> Self {
        let count = (self.kind.full_size() as f64 * factor) as u64;
        self.count(count)
    }

    /// Sets the number of entries (of L: the bytes of each file).
    #[must_use]
    pub fn count(mut self, count: u64) -> Self {
        self.count = count.max(1);
        self
    }

    /// Sets the seed.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets user and group of the entries; H, which varies them, does not look.
    #[must_use]
    pub fn owner(mut self, uid: u32, gid: u32) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// Makes the tree at `dir`, which must not exist.
    pub fn make(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir).map_err(|e| io::Error::new(e.kind(), format!("mkdir {}: {e}", dir.display())))?;
        let root = put::open_dir(dir)?;
        let root = root.as_fd();
        let mut maker = plain::Maker { rng: Rng::new(self.seed), owner: self.owner };
        put::mode(root, b".", 0o755)?;
        match self.kind {
            Kind::Small => maker.small(root, self.count),
            Kind::Flat => maker.flat(root, self.count),
            Kind::Large => maker.large(root, self.count),
            Kind::Awkward => awkward::make(root, self.count, maker.rng),
            Kind::Deep => maker.deep(root, self.count),
            Kind::Empty => maker.empty(root, self.count),
            Kind::Wide => maker.wide(root, self.count),
        }
    }
}

/// The earliest ordinary time, 2017-07-14, and the span of ordinary times after it.
const FIRST_SEC: i64 = 1_500_000_000;
const SPAN_SEC: u64 = 200_000_000;

/// Metadata as most files have it.
fn ordinary(rng: &mut Rng, owner: (u32, u32)) -> Meta {
    let mode = match rng.below(10) {
        0 => 0o755,
        1 => 0o600,
        2 => 0o664,
        _ => 0o644,
    };
    Meta {
        mode,
        uid: owner.0,
        gid: owner.1,
        sec: FIRST_SEC + rng.below(SPAN_SEC) as i64,
        nsec: rng.below(1_000_000_000) as i64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oracle;

    #[test]
    fn same_seed_gives_the_same_tree_and_another_seed_another() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        for kind in Kind::ALL {
            if kind == Kind::Awkward && own_ids().0 != 0 {
                continue;
            }
            let spec = Spec::new(kind).count(60);
            let names = ["a", "b", "c"].map(|n| at(&format!("{kind}{n}")));
            spec.make(&names[0]).unwrap();
            spec.make(&names[1]).unwrap();
            spec.clone().seed(2).make(&names[2]).unwrap();
            let alike = oracle::compare(&names[0], &names[1], &oracle::Options::default());
            assert!(alike.is_empty(), "{kind}: {alike}");
            let other = oracle::compare(&names[0], &names[2], &oracle::Options::default());
            assert!(!other.is_empty(), "{kind}");
        }
    }

    #[test]
    fn deep_trees_are_deeper_than_path_max() {
        let place = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|n| place.path().join(n));
        for dir in [&a, &b] {
            Spec::new(Kind::Deep).make(dir).unwrap();
        }
        let found = oracle::compare(&a, &b, &oracle::Options::default());
        assert!(found.is_empty(), "{found}");
        assert!(found.entries().0 > 1000);
    }
}
