//! How many files there are of which size: a histogram whose classes are powers of four.
//!
//! Class 0 has the empty files, class `n` those from 4^(n-1) bytes up to, and without, 4^n. So 1 KiB, 1 MiB, 1 GiB and
//! 1 TiB are bounds, and 33 classes hold every file that there can be.

/// Files and bytes of each class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sizes(Vec<Class>);

/// What there is of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Names of files.
    pub files: u64,
    /// The sum of their sizes.
    pub bytes: u64,
}

impl Sizes {
    /// How many classes there are.
    pub const CLASSES: usize = 33;

    /// The class of a file.
    pub fn class_of(bytes: u64) -> usize {
        (u64::BITS - bytes.leading_zeros()).div_ceil(2) as usize
    }

    /// The least size of a class, and the least of the next; the last has no end.
    pub fn bounds(class: usize) -> (u64, Option<u64>) {
        let power = |n: usize| 1u64.checked_shl(2 * n as u32);
        match class {
            0 => (0, Some(1)),
            n => (power(n - 1).unwrap_or(u64::MAX), power(n)),
        }
    }

    /// Counts a file.
    pub fn count(&mut self, bytes: u64) {
        self.add_class(Sizes::class_of(bytes), Class { files: 1, bytes });
    }

    /// Adds to a class; one that does not exist is left out.
    pub fn add_class(&mut self, class: usize, more: Class) {
        if class >= Sizes::CLASSES {
            return;
        }
        if self.0.len() <= class {
            // all of them at once: a task that has one file mostly has more
            self.0.resize(Sizes::CLASSES, Class::default());
        }
        let c = &mut self.0[class];
        c.files = c.files.saturating_add(more.files);
        c.bytes = c.bytes.saturating_add(more.bytes);
    }

    /// Adds another histogram to this one.
    pub fn add(&mut self, other: &Sizes) {
        for (class, c) in other.iter() {
            self.add_class(class, c);
        }
    }

    /// The classes in which there is something.
    pub fn iter(&self) -> impl Iterator<Item = (usize, Class)> + '_ {
        self.0.iter().copied().enumerate().filter(|(_, c)| c.files > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_size_lies_within_the_bounds_of_its_class() {
        for bytes in [0, 1, 3, 4, 5, 1023, 1024, 4095, 4096, (1 << 20) - 1, 1 << 20, 1 << 62, u64::MAX] {
            let class = Sizes::class_of(bytes);
            let (from, below) = Sizes::bounds(class);
            assert!(class < Sizes::CLASSES && from <= bytes, "{bytes}");
            assert!(below.is_none_or(|b| bytes < b), "{bytes}");
        }
        for class in 1..Sizes::CLASSES {
            assert_eq!(Sizes::bounds(class - 1).1, Some(Sizes::bounds(class).0), "no gap before {class}");
        }
        assert_eq!(Sizes::bounds(Sizes::CLASSES - 1).1, None);
    }

    #[test]
    fn sums_are_those_of_what_was_counted() {
        let (mut a, mut b) = (Sizes::default(), Sizes::default());
        [0, 0, 5, 7].into_iter().for_each(|n| a.count(n));
        [6, u64::MAX].into_iter().for_each(|n| b.count(n));
        a.add(&b);
        let all: Vec<_> = a.iter().map(|(class, c)| (class, c.files, c.bytes)).collect();
        assert_eq!(all, [(0, 2, 0), (2, 3, 18), (32, 1, u64::MAX)]);
        a.add_class(99, Class { files: 1, bytes: 1 });
        assert_eq!(a.iter().count(), 3);
    }
}
