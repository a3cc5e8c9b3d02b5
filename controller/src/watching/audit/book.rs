//! What an audit of a mirror has found so far, for all who ask: `status`, metrics.

use super::rate::Rate;
use super::tally::{CONFIDENCE, Tally, WINDOW_HOURS, Window};
use crate::watching::desk::now_us;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use treeferry_core::{Change, RelPath};

/// So many of the entries that differed are shown.
const SHOWN: usize = 20;
/// Of so many it is remembered that they were named, so that it is said once.
const NAMED: usize = 1000;

/// The book.
pub struct Book {
    rate: Rate,
    state: Mutex<State>,
}

/// What is kept beyond the life of the process that keeps the mirror.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    counted: Counted,
    tally: Tally,
}

/// Counted since the mirror was first audited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counted {
    /// Entries that were compared; one that was drawn twice counts twice.
    pub compared: u64,
    /// Those that differed though the mirror was complete.
    pub differing: u64,
    /// Those of them that are right by now.
    pub repaired: u64,
    /// Entries that never held still.
    pub restless: u64,
    /// What could not be looked at.
    pub failures: u64,
}

#[derive(Default)]
struct State {
    counted: Counted,
    settling: usize,
    tally: Tally,
    /// The latest last.
    named: VecDeque<Named>,
    trouble: Option<String>,
}

struct Named {
    change: Change,
    found_us: u64,
    /// `None`: that is not known yet.
    repaired: Option<bool>,
}

impl Book {
    /// One that goes on from what was kept.
    pub fn new(rate: Rate, kept: Kept) -> Book {
        let Kept { counted, tally } = kept;
        Book { rate, state: Mutex::new(State { counted, tally, ..State::default() }) }
    }

    /// What is to be kept.
    pub fn kept(&self) -> Kept {
        let s = self.state();
        Kept { counted: s.counted, tally: s.tally.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An entry was compared, and that is settled.
    pub fn compared(&self, weight: f64, differs: bool) {
        let mut s = self.state();
        s.counted.compared += 1;
        s.counted.differing += u64::from(differs);
        s.tally.count(now_us() / 1_000_000, weight, differs);
    }

    /// An entry differs. Whether that is to be said: it was not, or was repaired since.
    pub fn name(&self, change: Change) -> bool {
        let mut s = self.state();
        let known = s.named.iter().rposition(|n| n.change.path == change.path);
        let is_news = known.and_then(|at| s.named.remove(at)).is_none_or(|n| n.repaired == Some(true));
        if s.named.len() >= NAMED {
            s.named.pop_front();
        }
        s.named.push_back(Named { change, found_us: now_us(), repaired: None });
        is_news
    }

    /// Whether one that was named is right now.
    pub fn repaired(&self, path: &RelPath, is: bool) {
        let mut s = self.state();
        s.counted.repaired += u64::from(is);
        if let Some(n) = s.named.iter_mut().rfind(|n| n.change.path == *path) {
            n.repaired = Some(is);
        }
    }

    /// An entry never held still.
    pub fn restless(&self) {
        self.state().counted.restless += 1;
    }

    /// So many were seen to differ and wait for the mirror.
    pub fn settling(&self, n: usize) {
        self.state().settling = n;
    }

    /// Something could not be looked at. Whether that is the first time.
    pub fn trouble(&self, why: &str) -> bool {
        let mut s = self.state();
        s.counted.failures += 1;
        s.trouble.replace(why.to_owned()).is_none()
    }

    /// What it comes to.
    pub fn figures(&self) -> (Counted, Window) {
        let s = self.state();
        (s.counted, s.tally.window(now_us() / 1_000_000))
    }

    /// The same for `status`.
    pub fn to_json(&self) -> Value {
        let s = self.state();
        let Counted { compared, differing, repaired, restless, failures } = s.counted;
        let w = s.tally.window(now_us() / 1_000_000);
        let one = |n: &Named| {
            json!({
                "path": n.change.path.to_string(),
                "change": n.change.item.to_string(),
                "found_us": n.found_us,
                "repaired": n.repaired,
            })
        };
        json!({
            "rate_per_hour": self.rate.per_hour(),
            "compared": compared,
            "differing": differing,
            "repaired": repaired,
            "settling": s.settling,
            "restless": restless,
            "failures": failures,
            "trouble": s.trouble,
            "window_hours": WINDOW_HOURS,
            "window_compared": w.compared,
            "effective_draws": w.effective,
            "share": w.share,
            "share_at_most": w.share_at_most,
            "confidence": CONFIDENCE,
            "differing_paths": s.named.iter().rev().take(SHOWN).map(one).collect::<Vec<_>>(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use treeferry_core::{Item, Kind};

    fn change(path: &str) -> Change {
        Change { item: Item::Made(Kind::File), path: RelPath::new(path).unwrap() }
    }

    #[test]
    fn an_entry_is_named_once_until_it_was_repaired() {
        let b = Book::new(Rate::parse("10").unwrap(), Kept::default());
        assert!(b.name(change("a")) && b.name(change("b")) && !b.name(change("a")));
        b.repaired(&change("a").path, false);
        assert!(!b.name(change("a")), "it was never right");
        b.repaired(&change("a").path, true);
        let v = b.to_json();
        assert_eq!(
            (&v["differing_paths"][0]["path"], &v["differing_paths"][0]["repaired"]),
            (&"a".into(), &true.into())
        );
        assert!(v["differing_paths"][1]["repaired"].is_null());
        assert!(b.name(change("a")), "it is wrong again");
        for i in 0..2 * NAMED {
            b.name(change(&format!("f{i}")));
        }
        assert_eq!(b.state().named.len(), NAMED);
        assert_eq!(b.to_json()["differing_paths"].as_array().unwrap().len(), SHOWN);
    }

    #[test]
    fn what_is_compared_is_counted() {
        let b = Book::new(Rate::parse("10").unwrap(), Kept::default());
        b.compared(1.0, false);
        b.compared(3.0, true);
        assert!(b.trouble("first") && !b.trouble("second"));
        let (c, w) = b.figures();
        assert_eq!((c.compared, c.differing, c.failures, w.share), (2, 1, 2, 0.75));
        let v = b.to_json();
        assert_eq!((&v["trouble"], &v["rate_per_hour"]), (&"second".into(), &10.0.into()));
        let text = serde_json::to_string(&b.kept()).unwrap();
        let again = Book::new(Rate::parse("5").unwrap(), serde_json::from_str(&text).unwrap());
        assert_eq!(again.figures(), b.figures(), "whoever audits it next goes on from there");
    }
}
