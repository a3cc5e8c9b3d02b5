//! What those who detect, those who look and whoever keeps a mirror tell each other in a cluster.

use crate::Sign;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use treeferry_core::{Counters, Failure, JobId, RelPath, Work};

/// What is told whoever keeps a mirror.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum News {
    /// An agent has heard of changes.
    Signs {
        /// Its name.
        agent: String,
        /// What it was asked for, as in [`Errand`].
        wish: u64,
        /// Drawn by each of its lives.
        life: u64,
        /// Of the last message in which something was said, this one included; from 1.
        number: u64,
        /// In the order in which it happened.
        said: Vec<Said>,
        /// All changes that were complete when the keeper's clock showed this, seen by this agent's node, have been told.
        told: Option<Tick>,
    },
    /// Somebody who knows says that these are to be looked at, with all that is below.
    Posted {
        /// Who.
        by: String,
        /// What.
        paths: Vec<RelPath>,
    },
    /// Somebody who looks has found something.
    Found {
        /// The worker's name.
        worker: String,
        /// In order.
        found: Vec<Finding>,
    },
}

/// What a keeper's clock shows. Another keeper's is another clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// Of the keeper.
    pub life: u64,
    /// One of its moments (µs).
    pub moment: u64,
}

impl fmt::Display for Tick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:x}", self.moment, self.life)
    }
}

impl FromStr for Tick {
    type Err = ();

    fn from_str(text: &str) -> Result<Tick, ()> {
        let (moment, life) = text.split_once(' ').ok_or(())?;
        let life = u64::from_str_radix(life, 16).map_err(|_| ())?;
        Ok(Tick { life, moment: moment.parse().map_err(|_| ())? })
    }
}

/// What an agent says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Said {
    /// Something happened to a path.
    Path(RelPath, Sign),
    /// A path has another name now: old, new, whether it is a directory.
    Moved(RelPath, RelPath, bool),
    /// Changes were missed, and why.
    Lost(String),
}

/// What somebody who looks says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Finding {
    /// A path is to be looked at again; with all that is below; what was said of the last one is not done before.
    Again(RelPath, bool, RelPath),
    /// A path was brought as it was since the errand began, and has changed since.
    Changed(RelPath),
    /// A path alone is to be looked at again after so long.
    Later(RelPath, Duration, RelPath),
    /// An entry was renamed at the target.
    Moved,
    /// A path failed.
    Failed(Failure),
    /// All that a ticket of a keeper's life led to is done.
    Settled {
        /// The keeper's life.
        life: u64,
        /// The ticket.
        ticket: u64,
    },
    /// Tickets of a keeper's life that are being worked on.
    Busy {
        /// The keeper's life.
        life: u64,
        /// The tickets.
        tickets: Vec<u64>,
    },
    /// What this worker has counted since it began.
    Counted(Box<Counters>),
    /// An errand that cannot be done here.
    Refused {
        /// The keeper's life.
        life: u64,
        /// The errand's ticket.
        ticket: u64,
    },
}

/// What somebody is to look at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Errand {
    /// For which mirror.
    pub mirror: JobId,
    /// What tells what is asked for from what was asked for before (ms since 1970).
    pub wish: u64,
    /// Of the keeper.
    pub life: u64,
    /// To be given back.
    pub ticket: u64,
    /// Everything has been walked once, so that all names of files with several are known.
    pub names_are_known: bool,
    /// What there is to do; its own ticket means nothing.
    pub work: Work,
}

/// Finds out whether messages of agents were lost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Continuity(BTreeMap<String, (u64, u64)>);

impl Continuity {
    /// A message has come. `said`: something is said in it. Whether all before it have come.
    pub fn heard(&mut self, agent: &str, life: u64, number: u64, said: bool) -> bool {
        let Some((known, last)) = self.0.get_mut(agent) else {
            self.0.insert(agent.to_owned(), (life, number));
            return false;
        };
        let next = last.saturating_add(u64::from(said));
        let whole = *known == life && number <= next;
        *last = if *known == life { number.max(*last) } else { number };
        *known = life;
        whole
    }

    /// How far an agent was heard: its life, and the number of what it said last.
    pub fn last(&self, agent: &str) -> Option<(u64, u64)> {
        self.0.get(agent).copied()
    }

    /// An agent was heard so far, whatever was known of it.
    pub fn put(&mut self, agent: &str, last: (u64, u64)) {
        self.0.insert(agent.to_owned(), last);
    }

    /// Whether an agent was ever heard of.
    pub fn knows(&self, agent: &str) -> bool {
        self.0.contains_key(agent)
    }

    /// Agents that were heard of.
    pub fn agents(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Only these count from now on.
    pub fn keep(&mut self, agents: &[String]) {
        self.0.retain(|name, _| agents.contains(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_read_as_it_was_written() {
        let tick = Tick { life: u64::MAX, moment: 1_700_000_000_000_000 };
        assert_eq!(tick.to_string().parse(), Ok(tick));
        for wrong in ["", "1", "1 x", "x 1", "-1 1", "1 1 1"] {
            assert_eq!(wrong.parse::<Tick>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn a_gap_a_new_life_and_a_stranger_are_noticed() {
        let mut c = Continuity::default();
        assert!(!c.heard("a", 1, 5, true), "what it said before was not heard");
        assert!(c.heard("a", 1, 5, false));
        assert!(c.heard("a", 1, 6, true));
        assert!(c.heard("a", 1, 6, true), "again");
        assert!(c.heard("a", 1, 4, true), "old ones again, in order");
        assert!(c.heard("a", 1, 7, true));
        assert!(!c.heard("a", 1, 8, false), "8 has said something");
        assert!(c.heard("a", 1, 9, true));
        assert!(!c.heard("a", 1, 11, true));
        assert!(!c.heard("a", 2, 1, true), "another life");
        assert!(c.heard("a", 2, 2, true));
        assert!(!c.heard("b", 2, 1, true));
        assert!(c.knows("b") && !c.knows("c"));
        let saved: Continuity = serde_json::from_str(&serde_json::to_string(&c).unwrap()).unwrap();
        assert_eq!(saved, c);
        c.keep(&["b".to_owned()]);
        assert_eq!(c.agents().collect::<Vec<_>>(), ["b"]);
    }
}
