//! What is under way, and what is not done yet.

use super::{Batch, Pending, Sign, Waiting};
use std::time::Instant;
use treeferry_core::{Names, RelPath};

/// A batch that is under way.
pub(super) struct Ticket {
    pub paths: Vec<Path>,
    /// The name before, which is looked at too.
    pub from: Option<RelPath>,
    pub birth: u64,
    /// Up to when changes had been told as it began.
    pub begun: u64,
}

/// One of its paths.
pub(super) struct Path {
    pub path: RelPath,
    /// When it was first said that it is to be looked at.
    pub since: Instant,
    /// What it would have to be told again, if it were not done.
    sign: Sign,
}

impl Waiting {
    /// What makes it wait again.
    fn sign(&self) -> Sign {
        match (self.below || self.from.is_some(), self.names) {
            (true, _) => Sign::Tree,
            (false, true) => Sign::Names,
            (false, false) => Sign::Now,
        }
    }
}

impl Pending {
    /// What is not done, in signs that make whoever goes on with this do it: what waits, is under way, or fails.
    pub fn left(&self) -> Vec<(RelPath, Sign)> {
        let tree = |path: &RelPath| (path.clone(), Sign::Tree);
        let mut all: Vec<(RelPath, Sign)> = self.waiting.iter().map(|(p, w)| (p.clone(), w.sign())).collect();
        all.extend(self.waiting.values().filter_map(|w| w.from.as_ref()).map(tree));
        for ticket in self.tickets.values() {
            all.extend(ticket.paths.iter().map(|p| (p.path.clone(), p.sign)));
            all.extend(ticket.from.iter().map(tree));
        }
        all.extend(self.below.keys().chain(self.walking.values().map(|w| &w.path)).map(tree));
        all.extend(self.failing.iter().map(|(p, _)| tree(p)));
        all
    }

    pub(super) fn begin_look(&mut self, dir: RelPath, all: Vec<(RelPath, Waiting)>) -> Batch {
        let ticket = self.draw();
        let mut names = Names::default();
        for (path, w) in &all {
            if let Some((_, name)) = path.split() {
                use treeferry_core::Kind::{Dir, File, Unknown};
                let hint = if w.moved { File } else { Unknown };
                names.push(&name, if w.below && !w.moved { Dir } else { hint });
            }
        }
        self.issue(ticket, all, None);
        Batch::Look { ticket, dir, names }
    }

    pub(super) fn begin_move(&mut self, from: RelPath, to: RelPath, w: &Waiting) -> Batch {
        let ticket = self.draw();
        let w = Waiting { from: None, ..*w };
        self.issue(ticket, vec![(to.clone(), w)], Some(from.clone()));
        Batch::Move { ticket, from, to }
    }

    pub(super) fn begin_names(&mut self, dir: RelPath, w: Waiting) -> Batch {
        let ticket = self.draw();
        self.issue(ticket, vec![(dir.clone(), w)], None);
        Batch::Names { ticket, dir }
    }

    fn issue(&mut self, ticket: u64, all: Vec<(RelPath, Waiting)>, from: Option<RelPath>) {
        let birth = all.iter().map(|(_, w)| w.birth).min().unwrap_or(self.births.told_up_to());
        self.births.add(birth);
        let mut paths = Vec::with_capacity(all.len());
        for (path, w) in all {
            self.births.drop(w.birth);
            self.busy.insert(path.clone(), ticket);
            let sign = w.sign();
            paths.push(Path { path, since: w.since, sign });
        }
        let begun = self.births.told_up_to();
        self.tickets.insert(ticket, Ticket { paths, from, birth, begun });
    }
}
