//! Files by their handles. An event tells the name through which a file was opened, and that may be none of it any more: it was
//! removed since, or never was one (`O_TMPFILE`, a handle that was opened).
//!
//! A name is compared with the handle once, and believed from then on: each end of a name is told with the handle of its file.
//! The kernel adds what is done to a file to an event about it that nobody has read yet, in front of what came between. So of a
//! file that has lost a name all is doubted that was told of it since there was nothing to be read.

use super::events::{Entry, Handle};
use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// Bits that tell of content or metadata.
pub(super) const CONTENT: u64 = libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE | libc::FAN_ATTRIB;
/// Files in each of two generations of those that are remembered.
const MOST: usize = 50_000;
/// Between two times that it is said that a file without a known name was changed, since each means a walk: at first, and at most.
const FIRST_WAIT: Duration = Duration::from_secs(5);
const LONGEST_WAIT: Duration = Duration::from_secs(300);

#[derive(Clone, Copy)]
struct Known {
    /// Stands for a name and its directory. `None`: one of the names is gone, and nobody knows which.
    name: Option<u64>,
    /// What was told of it,
    told: u64,
    /// and between which two times that there was nothing to be read.
    round: u64,
}

/// What is known of files.
#[derive(Default)]
pub(super) struct Objects {
    now: HashMap<Vec<u8>, Known>,
    before: HashMap<Vec<u8>, Known>,
    round: u64,
}

/// Files of which it is not known whether what was told of them was told by a name that they have.
#[derive(Default)]
pub(super) struct Doubts {
    /// What happened to them.
    pub(super) all: HashMap<Vec<u8>, u64>,
    /// The same of those that have got another number of names, it seems: who has done that is about to say to which.
    counted: HashMap<(Vec<u8>, i32), u64>,
    /// Those whose last event was a rename: the next may tell that the file that had the name has one less.
    renamers: HashSet<i32>,
}

/// That name in that directory.
pub(super) fn name_of(entry: Entry<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (entry.dir.whole, entry.name).hash(&mut hasher);
    hasher.finish()
}

impl Objects {
    fn get(&self, object: Handle<'_>) -> Option<Known> {
        self.now.get(object.whole).or_else(|| self.before.get(object.whole)).copied()
    }

    fn put(&mut self, object: Handle<'_>, known: Known) {
        if let Some(old) = self.now.get_mut(object.whole) {
            *old = known;
            return;
        }
        if self.now.len() >= MOST {
            self.before = std::mem::take(&mut self.now);
        }
        self.now.insert(object.whole.to_vec(), known);
    }

    /// What was told of a file since there was nothing to be read.
    fn told(&self, object: Handle<'_>) -> u64 {
        self.get(object).filter(|k| k.round == self.round).map_or(0, |k| k.told)
    }

    /// A file has this name, and something was told of it.
    pub(super) fn named(&mut self, object: Handle<'_>, name: u64, what: u64) {
        let told = self.told(object) | what & CONTENT;
        self.put(object, Known { name: Some(name), told, round: self.round });
    }

    /// Whether a file has this name; `None`: that is not known of any name.
    pub(super) fn has(&self, object: Handle<'_>, name: u64) -> Option<bool> {
        self.get(object).map(|k| k.name == Some(name))
    }

    /// A file has lost a name; `None`: it is not known which. What was told of it since there was nothing to be read.
    pub(super) fn lost(&mut self, object: Handle<'_>, name: Option<u64>) -> u64 {
        let told = self.told(object);
        if let Some(known) = self.get(object).filter(|k| name.is_none() || k.name == name) {
            self.put(object, Known { name: None, ..known });
        }
        told
    }

    /// There is nothing to be read.
    pub(super) fn pause(&mut self) {
        self.round += 1;
    }

    /// Forgets all: events were lost.
    pub(super) fn forget(&mut self) {
        (self.now, self.before) = Default::default();
    }
}

impl Doubts {
    /// Something happened to a file under a name that it may not have.
    pub(super) fn add(&mut self, object: Handle<'_>, what: u64) {
        if what & CONTENT == 0 {
            return;
        }
        match self.all.get_mut(object.whole) {
            Some(known) => *known |= what & CONTENT,
            None => drop(self.all.insert(object.whole.to_vec(), what & CONTENT)),
        }
    }

    /// Something happened to a file under no name: its metadata, or it has got or lost a name.
    pub(super) fn counted(&mut self, object: Handle<'_>, by: i32) {
        if !self.renamers.remove(&by) {
            self.counted.insert((object.whole.to_vec(), by), libc::FAN_ATTRIB);
        }
    }

    /// It is told that a file has got or lost a name.
    pub(super) fn explained(&mut self, object: Handle<'_>, by: i32) {
        if !self.counted.is_empty() {
            self.counted.remove(&(object.whole.to_vec(), by));
        }
    }

    /// An event of somebody, and whether it told of a rename.
    pub(super) fn heard(&mut self, by: i32, renamed: bool) {
        if renamed {
            self.renamers.insert(by);
        } else if !self.renamers.is_empty() {
            self.renamers.remove(&by);
        }
    }

    /// All of them, once the events of a read were looked at.
    pub(super) fn end(self) -> HashMap<Vec<u8>, u64> {
        let mut all = self.all;
        for ((object, _), what) in self.counted {
            *all.entry(object).or_default() |= what;
        }
        all
    }
}

/// Whether it is to be said that changes were missed, of files whose names nobody knows. Programs may go on changing such a file,
/// and it may have no name below the source at all: so it is said ever more rarely while they do, and until it is said, nothing is
/// called told.
pub(super) struct Owed {
    is: bool,
    next: Instant,
    wait: Duration,
}

impl Default for Owed {
    fn default() -> Owed {
        Owed { is: false, next: Instant::now(), wait: FIRST_WAIT }
    }
}

impl Owed {
    /// Such a file was changed.
    pub(super) fn add(&mut self) {
        self.is = true;
    }

    /// Whether it is.
    pub(super) fn is(&self) -> bool {
        self.is
    }

    /// Changes are said to be missed anyway.
    pub(super) fn paid(&mut self) {
        self.is = false;
    }

    /// Whether it is to be said now.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        if !self.is || now < self.next {
            return false;
        }
        // after a while of silence it is as at first
        let is_again = now < self.next + 2 * self.wait;
        self.wait = if is_again { (2 * self.wait).min(LONGEST_WAIT) } else { FIRST_WAIT };
        self.next = now + self.wait;
        self.is = false;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(n: u8) -> Vec<u8> {
        [&b"filesys!"[..], &1_u32.to_ne_bytes(), &1_i32.to_ne_bytes(), &[n]].concat()
    }

    #[test]
    fn a_name_is_believed_until_it_is_gone() {
        let (mut objects, bytes) = (Objects::default(), whole(1));
        let object = Handle::of(&bytes).unwrap();
        assert_eq!(objects.has(object, 1), None);
        objects.named(object, 1, libc::FAN_CREATE | libc::FAN_MODIFY);
        assert_eq!((objects.has(object, 1), objects.has(object, 2)), (Some(true), Some(false)));
        assert_eq!(objects.lost(object, Some(2)), libc::FAN_MODIFY);
        assert_eq!(objects.has(object, 1), Some(true), "it was another name");
        assert_eq!(objects.lost(object, None), libc::FAN_MODIFY, "what was told may have come later");
        assert_eq!(objects.has(object, 1), Some(false));
        objects.named(object, 1, 0);
        objects.pause();
        assert_eq!((objects.lost(object, Some(1)), objects.has(object, 1)), (0, Some(false)));
        objects.forget();
        assert_eq!(objects.has(object, 1), None);
    }

    #[test]
    fn who_has_made_or_removed_a_name_is_believed_to_have_done_no_more() {
        let (a, b, c) = (whole(1), whole(2), whole(3));
        let of = |bytes| Handle::of(bytes).unwrap();
        let mut doubts = Doubts::default();
        doubts.counted(of(&a), 7);
        doubts.explained(of(&a), 8);
        assert_eq!(doubts.counted.len(), 1, "somebody else has");
        doubts.explained(of(&a), 7);
        doubts.heard(7, true);
        doubts.counted(of(&b), 7);
        doubts.counted(of(&c), 7);
        doubts.add(of(&b), libc::FAN_CREATE);
        assert_eq!(doubts.end(), HashMap::from([(c, libc::FAN_ATTRIB)]));
    }

    #[test]
    fn what_is_owed_is_said_at_once_and_then_ever_more_rarely() {
        let mut owed = Owed::default();
        let mut now = Instant::now();
        assert!(!owed.is_due(now));
        let mut said = Vec::new();
        for second in 0..4000 {
            owed.add();
            if owed.is_due(now) {
                said.push(second);
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(said[..4], [0, 10, 30, 70]);
        assert!(said.len() < 20 && said.is_sorted_by_key(|s| *s), "{said:?}");
        now += Duration::from_secs(10_000);
        owed.add();
        assert!(owed.is_due(now) && !owed.is());
        assert_eq!(owed.wait, FIRST_WAIT);
    }
}
