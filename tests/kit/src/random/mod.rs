//! Random small trees and random changes to them, for property tests.
//!
//! Everything follows from the seed: the same seed makes the same tree in any place,
//! and the same changes of equal trees leave equal trees. So every entry that is made
//! or changed gets its times set, and so do the directories around it. A failing
//! test has to print nothing but its seed.

mod changes;
mod entries;
mod scene;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::caps::Caps;
use crate::rng::Rng;

pub use changes::{hidden_change, random_changes};
pub use scene::Change;

use entries::{Maker, Sort};

/// Deepest directory that is made.
const DEPTH: usize = 7;

/// Makes a random tree of about `size` entries at `root`: every type of entry that
/// `caps` allows, hard links across directories, odd names, modes, owners and times.
/// `root` is made if it is missing, and must be empty otherwise.
pub fn random_tree(root: &Path, seed: u64, size: usize, caps: &Caps) -> io::Result<()> {
    if !root.is_dir() {
        fs::create_dir(root)?;
    }
    let mut maker = Maker::new(Rng::new(seed), caps);
    let mut dirs = vec![(root.to_path_buf(), 0)];
    let mut linkable: Vec<PathBuf> = Vec::new();
    for _ in 0..size {
        let index = maker.rng.index(dirs.len());
        let (parent, depth) = &dirs[index];
        let depth = *depth;
        let path = maker.free_name(parent);
        if !linkable.is_empty() && maker.rng.chance(0.12) {
            let from = maker.rng.index(linkable.len());
            fs::hard_link(&linkable[from], &path)?;
            linkable.push(path);
            continue;
        }
        match maker.sort(depth < DEPTH) {
            Sort::Dir => {
                maker.dir(&path)?;
                dirs.push((path, depth + 1));
            }
            sort => {
                maker.entry(&path, sort)?;
                linkable.push(path);
            }
        }
    }
    // Deepest first, or a later child would move the time of its parent.
    dirs.sort_by(|a, b| b.cmp(a));
    for (dir, _) in &dirs {
        maker.finish_dir(dir)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::mounts::{FsKind, scratch};
    use crate::oracle::{Class, Options, assert_alike, compare};

    #[test]
    fn same_seed_gives_the_same_tree_and_the_same_changes() {
        let place = tempfile::tempdir().unwrap();
        let caps = Caps::probe(place.path()).unwrap();
        for seed in 0..12 {
            let [a, b, old] = ["a", "b", "old"].map(|s| place.path().join(format!("{s}{seed}")));
            for root in [&a, &b, &old] {
                random_tree(root, seed, 120, &caps).unwrap();
            }
            assert_alike(&a, &b);
            let one = random_changes(&a, seed + 100, 40, &caps).unwrap();
            let two = random_changes(&b, seed + 100, 40, &caps).unwrap();
            assert_eq!(one, two, "seed {seed}");
            assert_alike(&a, &b);
            assert!(!compare(&a, &old, &Options::default()).is_empty(), "seed {seed}");
        }
    }

    #[test]
    fn trees_differ_between_seeds() {
        let place = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|s| place.path().join(s));
        random_tree(&a, 1, 30, &Caps::default()).unwrap();
        random_tree(&b, 2, 30, &Caps::default()).unwrap();
        assert!(!compare(&a, &b, &Options::default()).is_empty());
    }

    #[test]
    fn every_change_happens_sooner_or_later() {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("tree");
        let caps = Caps::probe(place.path()).unwrap();
        random_tree(&root, 3, 400, &caps).unwrap();
        let done: HashSet<Change> = random_changes(&root, 4, 800, &caps).unwrap().into_iter().collect();
        for change in Change::ALL {
            let possible = match change {
                Change::Owner => caps.owners,
                Change::Acl => caps.acls,
                Change::Xattr => caps.user_xattrs,
                _ => true,
            };
            assert!(!possible || done.contains(&change), "{change:?} never happened");
        }
    }

    #[test]
    fn hidden_changes_show_in_nothing_but_content() {
        let place = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|s| place.path().join(s));
        for root in [&a, &b] {
            random_tree(root, 5, 200, &Caps::default()).unwrap();
        }
        hidden_change(&b, 6).unwrap();
        let found = compare(&a, &b, &Options::default());
        assert_eq!(found.classes(), [Class::Content], "{found}");
    }

    #[test]
    fn trees_and_changes_fit_every_file_system() {
        if crate::caps::own_ids().0 != 0 {
            return;
        }
        for kind in FsKind::ALL {
            let place = scratch(kind, "random");
            let caps = Caps::probe(&place).unwrap();
            let root = place.join("tree");
            random_tree(&root, 8, 200, &caps).unwrap();
            random_changes(&root, 9, 100, &caps).unwrap();
        }
    }
}
