//! What the detectors of a mirror have heard, until it is sent.

use super::ticks::{Read, Ticks};
use std::time::Instant;
use treeferry_event::{Hint, News as Heard, What};
use treeferry_mirror::{Said, Sign};

/// What detectors of one mirror have heard and nobody has sent.
#[derive(Default)]
pub struct Basket {
    pub said: Vec<Said>,
    /// When something was last heard.
    pub heard: Option<Instant>,
    /// The keeper's clock.
    pub ticks: Ticks,
    /// For each detector, the latest tick up to which it has told all.
    pub told: Vec<Option<Read>>,
    /// Detectors that take down what there is before anything may be walked.
    pub behind: usize,
}

impl Basket {
    /// What a detector has told.
    pub fn put(&mut self, n: usize, news: impl Iterator<Item = Heard>) {
        for heard in news {
            if !matches!(heard, Heard::UpTo(_)) {
                self.heard = Some(Instant::now());
            }
            match heard {
                Heard::Hint(Hint { path, what }) => self.said.push(match what {
                    What::Changed => Said::Path(path, Sign::Now),
                    What::Open => Said::Path(path, Sign::Open),
                    What::Attributes => Said::Path(path, Sign::Attributes),
                    What::Names => Said::Path(path, Sign::Names),
                    What::Tree => Said::Path(path, Sign::Tree),
                    What::Moved { from, dir } => Said::Moved(from, path, dir),
                }),
                Heard::Lost(why) => self.said.push(Said::Lost(why)),
                Heard::UpTo(moment) => {
                    // all that had happened when that was read
                    let tick = self.ticks.at(moment);
                    if let Some(t) = self.told.get_mut(n).filter(|_| tick.is_some()) {
                        *t = tick;
                    }
                    if let Some(least) = self.told_by_all() {
                        self.ticks.forget_before(least);
                    }
                }
            }
        }
    }

    /// The latest tick up to which all of them have.
    pub fn told_by_all(&self) -> Option<Read> {
        self.told.iter().copied().min_by_key(|r| r.map(|r| r.number)).flatten()
    }
}
