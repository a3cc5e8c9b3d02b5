//! Hints of one read, merged where they speak of the same path.

use crate::{Hint, News, What};
use std::collections::HashMap;
use treeferry_core::path::RelPath;

/// Hints of one read. A later hint for a path joins the earlier one, and the stronger of both stays; but never across
/// a move, which gives paths another meaning.
#[derive(Default)]
pub(crate) struct Batch {
    hints: Vec<Hint>,
    places: HashMap<RelPath, usize>,
}

impl Batch {
    /// Adds a hint.
    pub(crate) fn add(&mut self, path: RelPath, what: What) {
        if matches!(what, What::Moved { .. }) {
            self.places.clear();
        } else if let Some(known) = self.places.get(&path).and_then(|i| self.hints.get_mut(*i)) {
            if strength(&what) > strength(&known.what) {
                known.what = what;
            }
            return;
        } else {
            self.places.insert(path.clone(), self.hints.len());
        }
        self.hints.push(Hint { path, what });
    }

    /// Tells all hints and is empty again.
    pub(crate) fn tell(&mut self, tell: &mut dyn FnMut(News)) {
        self.places.clear();
        for hint in self.hints.drain(..) {
            tell(News::Hint(hint));
        }
    }

    /// Whether there is a hint for a path, or for one below it.
    pub(crate) fn speaks_of(&self, path: &RelPath) -> bool {
        self.hints.iter().any(|hint| path.covers(&hint.path))
    }

    /// Forgets all hints.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.hints.clear();
    }
}

fn strength(what: &What) -> u8 {
    match what {
        What::Open => 0,
        What::Attributes => 1,
        What::Names => 2,
        What::Changed => 3,
        What::Tree => 4,
        What::Moved { .. } => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stronger_hint_stays_and_a_move_parts_them() {
        let p = |s: &str| RelPath::new(s).unwrap();
        let mut batch = Batch::default();
        batch.add(p("a"), What::Open);
        batch.add(p("b"), What::Changed);
        batch.add(p("a"), What::Changed);
        batch.add(p("a"), What::Attributes);
        batch.add(p("c"), What::Moved { from: p("a"), dir: false });
        batch.add(p("a"), What::Open);
        let mut told = Vec::new();
        batch.tell(&mut |news| told.push(news));
        let hint = |path: &str, what| News::Hint(Hint { path: p(path), what });
        let moved = What::Moved { from: p("a"), dir: false };
        assert_eq!(
            told,
            [hint("a", What::Changed), hint("b", What::Changed), hint("c", moved), hint("a", What::Open)]
        );
    }
}
