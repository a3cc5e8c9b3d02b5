//! What a ledger keeps of a job beside its counters, for reports: bounded, whatever the size of the tree.

use crate::failure::{Failure, Side};
use crate::records::{Record, Records};
use crate::sizes::Sizes;
use std::collections::BTreeMap;

/// Sizes, records, and failures by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Files by size.
    pub sizes: Sizes,
    /// The largest and slowest.
    pub records: Records,
    /// Failures by kind.
    pub failures: Kinds,
}

impl Figures {
    /// Adds what a task has found.
    pub fn add<'a>(
        &mut self,
        sizes: &Sizes,
        records: impl IntoIterator<Item = Record>,
        failures: impl IntoIterator<Item = &'a Failure>,
    ) {
        self.sizes.add(sizes);
        records.into_iter().for_each(|r| self.records.add(r));
        failures.into_iter().for_each(|f| self.failures.add(f));
    }
}

/// What failures have in common: the operation, the error number, the tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// As in [`Failure`].
    pub op: String,
    /// As in [`Failure`].
    pub errno: i32,
    /// In which tree.
    pub side: Side,
}

/// Failures of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Same {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<Failure>,
}

/// Failures by kind: there are as many kinds as operations and error numbers, however many failures there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kinds(BTreeMap<Kind, Same>);

impl Kinds {
    /// So many failures of each kind are kept as examples.
    pub const EXAMPLES: usize = 5;

    /// Counts a failure.
    pub fn add(&mut self, f: &Failure) {
        let kind = Kind { op: f.op.clone(), errno: f.errno, side: f.side };
        let same = self.0.entry(kind).or_default();
        same.count += 1;
        if same.examples.len() < Kinds::EXAMPLES {
            same.examples.push(f.clone());
        }
    }

    /// Kinds, the most frequent first.
    pub fn by_count(&self) -> Vec<(&Kind, &Same)> {
        let mut all: Vec<_> = self.0.iter().collect();
        all.sort_by_key(|(_, same)| std::cmp::Reverse(same.count));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::RelPath;

    #[test]
    fn failures_are_counted_by_kind_and_some_are_kept() {
        let mut k = Kinds::default();
        let path = |n: u32| RelPath::new(format!("f{n}")).unwrap();
        for n in 0..100 {
            k.add(&Failure::errno(path(n), Side::Source, "openat", if n % 10 == 0 { 5 } else { 13 }));
        }
        k.add(&Failure::errno(path(0), Side::Target, "openat", 13));
        let all = k.by_count();
        let counts: Vec<_> = all.iter().map(|(k, s)| (k.errno, k.side, s.count)).collect();
        assert_eq!(counts, [(13, Side::Source, 90), (5, Side::Source, 10), (13, Side::Target, 1)]);
        assert_eq!(all[0].1.examples.len(), Kinds::EXAMPLES);
        assert_eq!(all[0].1.examples[0].path, path(1));
    }
}
