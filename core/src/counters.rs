//! What a job counts. One table: summary, JSON, metrics and documents are made from it.

use serde::{Deserialize, Serialize};

macro_rules! counters {
    ($($name:ident: $doc:literal,)*) => {
        /// The counters of a task, a job or a run. All of them only grow.
        ///
        /// Each regular file name that the copy pass looks at ends in exactly one of `copied_files`,
        /// `unchanged_files`, `meta_fixed`, `linked`, `skipped`, `vanished` or `failures`.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Counters {
            $(#[doc = $doc] pub $name: u64,)*
        }

        impl Counters {
            /// Names and meanings, in the order of the summary.
            pub const TABLE: &'static [(&'static str, &'static str)] = &[$((stringify!($name), $doc),)*];

            /// Adds another set to this one.
            pub fn add(&mut self, other: &Counters) {
                $(self.$name += other.$name;)*
            }

            /// Names and values, in the order of [`Counters::TABLE`].
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }

            /// Sets a counter by its name; one that is not known is left out.
            pub fn set(&mut self, name: &str, value: u64) {
                match name {
                    $(stringify!($name) => self.$name = value,)*
                    _ => {}
                }
            }

            /// What it has more than an earlier reading of the same counters.
            pub fn since(&self, earlier: &Counters) -> Counters {
                Counters { $($name: self.$name - earlier.$name,)* }
            }
        }
    };
}

counters! {
    dirs: "directories walked, the root included",
    files: "names of regular files walked",
    bytes: "bytes of the regular files walked, once for each name",
    copied_files: "regular files whose content was copied",
    copied_bytes: "bytes of content copied, holes included",
    unchanged_files: "regular files that were right already",
    meta_fixed: "entries (directories too) of which only metadata was repaired",
    made_dirs: "directories made",
    linked: "hard links made",
    symlinks: "symbolic links made or replaced",
    specials: "FIFOs, sockets and devices made or replaced",
    deleted: "entries deleted, or moved to the trash",
    not_deleted: "extra entries that --max-delete spared",
    skipped: "entries left alone because of a filter, an age limit or a --no-… option",
    vanished: "source entries that were listed and then gone",
    retried: "entries tried again after a failure that might pass",
    verified_files: "files read back and found equal to what was read from the source",
    swept: "temporary files of dead runs removed",
    left_out_owner: "entries whose owner or group was not kept, for want of privilege",
    left_out_devices: "devices not made, for want of privilege",
    left_out_xattrs: "extended attributes not kept, for want of privilege",
    unsupported_acls: "entries whose ACLs the target file system cannot hold",
    unsupported_xattrs: "extended attributes that the target file system cannot hold",
    unsupported_times: "entries whose times the target file system cannot hold",
    unsupported_specials: "special files that the target file system cannot hold",
    failures: "failures, each of them named",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_and_taking_apart_are_inverse() {
        let a = Counters { files: 3, bytes: 10, ..Counters::default() };
        let mut b = Counters { files: 1, deleted: 2, ..Counters::default() };
        let before = b.clone();
        b.add(&a);
        assert_eq!((b.files, b.bytes, b.deleted), (4, 10, 2));
        assert_eq!(b.since(&before), a);
    }

    #[test]
    fn table_has_a_row_for_each_counter_and_each_meaning_is_said_once() {
        let c = Counters::default();
        let names: Vec<_> = c.iter().map(|x| x.0).collect();
        assert_eq!(names, Counters::TABLE.iter().map(|x| x.0).collect::<Vec<_>>());
        let mut meanings: Vec<_> = Counters::TABLE.iter().map(|x| x.1).collect();
        meanings.sort_unstable();
        meanings.dedup();
        assert_eq!(meanings.len(), names.len());
    }
}
