//! What stands out in a job: the largest and the slowest. Some of each kind are kept, whatever the size of the tree.

use crate::path::RelPath;

/// In what something stands out. Each has a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Best {
    /// Files by size, in bytes.
    LargestFile,
    /// Files by the time that their copy took, in microseconds; the note is their size in bytes.
    SlowestFile,
    /// Directories of the source by entries.
    LargestDir,
    /// Tasks by the time that they took, in microseconds; the note is the kind of work.
    LongestTask,
}

impl Best {
    /// All of them.
    pub const ALL: [Best; 4] = [Best::LargestFile, Best::SlowestFile, Best::LargestDir, Best::LongestTask];

    /// The name under which a ledger keeps them.
    pub fn name(self) -> &'static str {
        match self {
            Best::LargestFile => "largest_files",
            Best::SlowestFile => "slowest_files",
            Best::LargestDir => "largest_dirs",
            Best::LongestTask => "longest_tasks",
        }
    }
}

/// Something that stands out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// In what.
    pub best: Best,
    /// How much, in the unit of the kind.
    pub value: u64,
    /// See the kind; without a colon.
    pub note: String,
    /// Which entry.
    pub path: RelPath,
}

/// The best of each kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records([Vec<Record>; Best::ALL.len()]);

impl Records {
    /// How many of each kind are kept.
    pub const KEPT: usize = 20;

    /// Keeps it if it is good enough. The same thing once more is kept once, with its best.
    pub fn add(&mut self, r: Record) {
        let list = &mut self.0[r.best as usize];
        if let Some(i) = list.iter().position(|o| (&o.path, &o.note) == (&r.path, &r.note)) {
            if list[i].value >= r.value {
                return;
            }
            list.remove(i);
        }
        let at = list.partition_point(|o| o.value >= r.value);
        list.insert(at, r);
        list.truncate(Records::KEPT);
    }

    /// The best of a kind, the very best first.
    pub fn of(&self, best: Best) -> &[Record] {
        &self.0[best as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(value: u64, path: &str) -> Record {
        Record { best: Best::LargestDir, value, note: String::new(), path: RelPath::new(path).unwrap() }
    }

    #[test]
    fn the_best_are_kept_in_their_order_and_each_thing_once() {
        let mut r = Records::default();
        for i in 0..100u64 {
            // in no order
            r.add(record((i * 37) % 100, &format!("d{}", (i * 37) % 100)));
        }
        let values = |r: &Records| r.of(Best::LargestDir).iter().map(|x| x.value).collect::<Vec<_>>();
        assert_eq!(values(&r), (80..100).rev().collect::<Vec<_>>());
        r.add(record(85, "d99"));
        assert_eq!(values(&r)[0], 99, "less than before");
        r.add(record(500, "d80"));
        assert_eq!((values(&r)[0], values(&r).len()), (500, Records::KEPT));
        assert!(r.of(Best::LargestFile).is_empty());
    }

    #[test]
    fn every_kind_has_its_place_and_its_name() {
        for (i, b) in Best::ALL.into_iter().enumerate() {
            assert_eq!(b as usize, i);
            assert_eq!(Best::ALL.iter().filter(|o| o.name() == b.name()).count(), 1);
        }
    }
}
