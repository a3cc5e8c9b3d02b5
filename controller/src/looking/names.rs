//! The names of files of a mirror, as all workers of the cluster have seen them.

use treeferry_core::{GroupKey, RelPath};
use treeferry_queue::mirrors::Names;
use treeferry_worker::{NameBook, Search};

/// The names of files of a mirror, in the ledger.
pub struct Book(pub Names);

impl NameBook for Book {
    fn note(&self, key: GroupKey, path: RelPath) {
        self.0.note(key, path, false);
    }

    fn note_single(&self, key: GroupKey, path: RelPath) {
        self.0.note(key, path, true);
    }

    fn search(&self, key: GroupKey, nlink: u32, say: &mut dyn FnMut(Search) -> bool) {
        let last = |word: &str| {
            let (n, what) = word.split_once(':')?;
            let what = match what {
                "soon" => Search::Soon,
                "everywhere" => Search::Everywhere,
                _ => Search::No,
            };
            Some((n.parse().ok()?, what))
        };
        let next = Search::next(self.0.mark(key).as_deref().and_then(last), nlink);
        let what = match next {
            Search::Soon => "soon",
            Search::Everywhere => "everywhere",
            Search::No => "no",
        };
        if say(next) {
            self.0.put_mark(key, &format!("{nlink}:{what}"));
        }
    }

    fn others(&self, key: GroupKey, but: &RelPath) -> Vec<RelPath> {
        let mut names = self.0.of(key);
        names.sort();
        names.dedup();
        names.retain(|p| p != but);
        names
    }

    fn forget(&self, key: GroupKey, path: &RelPath) {
        self.0.forget(key, path);
    }

    fn noted_for(&self, path: &RelPath, likely: bool) -> Option<GroupKey> {
        // each question takes a while
        likely.then(|| self.0.file_of(path)).flatten()
    }

    fn noted_below(&self, _: &RelPath) -> Vec<RelPath> {
        Vec::new()
    }

    fn renamed(&self, _: &RelPath, _: &RelPath) {}

    fn in_turn(&self, key: GroupKey, f: &mut dyn FnMut()) {
        self.0.in_turn(key, f);
    }
}
