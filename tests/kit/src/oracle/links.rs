//! Hard-link groups: which names share an inode, in the one tree and in the other.
//!
//! A group is the set of names *within the tree*; names outside are nobody's
//! business, so an inode with a single name in the tree is in no group.

use std::collections::HashMap;

use super::differences::{Class, Differences};

/// Device and inode number.
pub(super) type Inode = (u64, u64);

#[derive(Default)]
pub(super) struct Links {
    paths: Vec<Vec<u8>>,
    /// Of each path the inode on both sides, if it has more names than one there.
    sides: Vec<[Option<Inode>; 2]>,
}

impl Links {
    /// Notes a path that has several names on one side at least.
    pub fn note(&mut self, path: &[u8], inodes: [Option<Inode>; 2]) {
        self.paths.push(path.to_vec());
        self.sides.push(inodes);
    }

    /// Reports each path present on both sides whose groups are not the same names.
    /// `both` says of each noted path whether it is present on both sides.
    pub fn report(self, both: &[bool], found: &mut Differences) {
        let [a, b] = [0, 1].map(|side| self.groups(side));
        // All members of a group meet the same few groups of the other side.
        let mut same: HashMap<[Inode; 2], bool> = HashMap::new();
        for (i, path) in self.paths.iter().enumerate() {
            if !both[i] {
                continue;
            }
            let [x, y] = self.sides[i];
            let group_a = x.and_then(|inode| a.get(&inode)).filter(|g| g.len() > 1);
            let group_b = y.and_then(|inode| b.get(&inode)).filter(|g| g.len() > 1);
            let alike = match (x, y, group_a, group_b) {
                (Some(x), Some(y), Some(ga), Some(gb)) => *same.entry([x, y]).or_insert_with(|| ga == gb),
                (_, _, ga, gb) => ga.is_none() && gb.is_none(),
            };
            if !alike {
                let size = |group: Option<&Vec<u32>>| group.map_or(1, Vec::len);
                found.add(Class::HardlinkGroup, path, || {
                    format!("{} names -> {}", size(group_a), size(group_b))
                });
            }
        }
    }

    /// Inode -> indices of its paths, ascending.
    fn groups(&self, side: usize) -> HashMap<Inode, Vec<u32>> {
        let mut groups: HashMap<Inode, Vec<u32>> = HashMap::new();
        for (i, inodes) in self.sides.iter().enumerate() {
            if let Some(inode) = inodes[side] {
                groups.entry(inode).or_default().push(i as u32);
            }
        }
        groups
    }
}
