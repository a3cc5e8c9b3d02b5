//! What those who look find is to be looked at once more, and what is promised until then.

use super::tickets::Ticket;
use super::{Pending, Sign, Walking};
use std::time::{Duration, Instant};
use treeferry_core::RelPath;

impl Pending {
    /// Whoever looked at a path found that it, or another one, has to be looked at again; `below`: with all that is below.
    /// `owed`: what was said of this path, which is being worked on, is not done before that.
    pub fn again(&mut self, now: Instant, path: RelPath, below: bool, owed: &RelPath) {
        let birth = self.birth_of(owed);
        if below {
            self.add_below(path.clone(), birth);
        }
        // not at once: if it was renamed, that is about to be heard of
        self.add(now, path.clone(), Sign::Attributes, birth, None);
        self.owe(&path);
    }

    /// Whoever looked at a path found that it is to be looked at after so long, and not before. `owed` as with
    /// [`Pending::again`].
    pub fn later(&mut self, now: Instant, path: RelPath, wait: Duration, owed: &RelPath) {
        let birth = self.birth_of(owed);
        self.put(now, path.clone(), wait, false, birth, None);
        self.owe(&path);
    }

    /// Whoever looked at a path has brought it as it was since that began, and found that it has changed since: what was said
    /// of it before is done with that.
    pub fn changed(&mut self, now: Instant, path: RelPath) {
        let birth = self.earliest_of(&path, |t| t.begun, |w| w.begun);
        self.add(now, path, Sign::Attributes, birth, None);
    }

    /// What is under way for a path does not bring what was said of it: whoever has it next does.
    fn owe(&mut self, path: &RelPath) {
        let ticket = self.busy.get(path).and_then(|t| self.tickets.get(t));
        let since = ticket.and_then(|t| t.paths.iter().find(|p| p.path == *path)).map(|p| p.since);
        if let (Some(since), Some(w)) = (since, self.waiting.get_mut(path)) {
            (w.since, w.ripe, w.owed) = (w.since.min(since), true, true);
        }
    }

    /// The earliest birth of what is under way for a path, for one above it, or for one below, under the name that it has
    /// or, if it is being renamed, that before.
    fn birth_of(&self, path: &RelPath) -> u64 {
        self.earliest_of(path, |t| t.birth, |w| w.birth)
    }

    /// The earliest moment that these have of what is under way for a path, and so on.
    fn earliest_of(
        &self,
        path: &RelPath,
        of_ticket: impl Fn(&Ticket) -> u64,
        of_walk: impl Fn(&Walking) -> u64,
    ) -> u64 {
        let ticket = |t: &u64| self.tickets.get(t).map(&of_ticket);
        let mut birth = self.births.told_up_to();
        let mut above = Some(path.clone());
        while let Some(p) = above {
            birth = birth.min(self.busy.get(&p).and_then(ticket).unwrap_or(birth));
            above = p.split().map(|(dir, _)| dir);
        }
        let below =
            self.busy.range(path.clone()..).take_while(|(p, _)| p.as_bytes().starts_with(path.as_bytes()));
        let below = below.filter(|(p, _)| path.covers(p)).filter_map(|(_, t)| ticket(t));
        let is_met = |p: &RelPath| p.covers(path) || path.covers(p);
        let walks = self.walking.values().filter(|w| is_met(&w.path)).map(&of_walk);
        let moves = self.tickets.values().filter(|t| t.from.as_ref().is_some_and(is_met)).map(&of_ticket);
        below.chain(walks).chain(moves).fold(birth, u64::min)
    }
}
