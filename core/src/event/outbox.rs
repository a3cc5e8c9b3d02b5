//! Events on their way from the threads in which they happen to the one that writes them.
//!
//! Whoever has an event never waits: there is room for so many, and what finds none is dropped and counted. The last
//! half of the room is for warnings and errors, so that a flood of what was done does not wash away what was not.

use super::{Event, Severity};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Events between two threads; see the module.
#[derive(Debug)]
pub struct Outbox {
    room: AtomicUsize,
    waiting: Mutex<Waiting>,
    closing: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    events: Vec<Event>,
    /// Dropped since somebody took what there was.
    dropped: u64,
    closed: bool,
}

impl Outbox {
    /// With room for so many.
    pub fn new(room: usize) -> Outbox {
        let waiting = Mutex::default();
        Outbox { room: room.into(), waiting, closing: Condvar::new(), dropped: AtomicU64::new(0) }
    }

    /// Has room for so many from now on.
    pub fn set_room(&self, room: usize) {
        self.room.store(room, Relaxed);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts events in, as far as there is room.
    pub fn put(&self, events: impl IntoIterator<Item = Event>) {
        let all = self.room.load(Relaxed);
        let mut w = self.lock();
        for e in events {
            let room = if e.severity >= Severity::Warning { all } else { all / 2 };
            if w.events.len() < room {
                w.events.push(e);
            } else {
                w.dropped += 1;
                self.dropped.fetch_add(1, Relaxed);
            }
        }
    }

    /// So many events had been taken and could not be written after all; nor could it be said that so many had been
    /// dropped before.
    pub fn give_up(&self, events: u64, untold: u64) {
        self.lock().dropped += events + untold;
        self.dropped.fetch_add(events, Relaxed);
    }

    /// Takes all there are, and how many were dropped since the last time.
    pub fn take(&self) -> (Vec<Event>, u64) {
        let mut w = self.lock();
        (std::mem::take(&mut w.events), std::mem::take(&mut w.dropped))
    }

    /// How many were dropped since the beginning.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Whether nothing waits, neither an event nor the word that some were dropped.
    pub fn is_empty(&self) -> bool {
        let w = self.lock();
        w.events.is_empty() && w.dropped == 0
    }

    /// Nothing more will come; wakes whoever rests.
    pub fn close(&self) {
        self.lock().closed = true;
        self.closing.notify_all();
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Waits for that time, or until it is closed. Whoever puts something in wakes nobody: that would be a system call
    /// for each, and they are better written many at a time.
    pub fn rest(&self, at_most: Duration) {
        let w = self.lock();
        drop(self.closing.wait_timeout_while(w, at_most, |w| !w.closed));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_and_warnings_have_more_room() {
        let o = Outbox::new(10);
        o.put((0..8).map(|_| Event::new(EventKind::EntryCopied)));
        assert_eq!(o.dropped(), 3);
        o.put((0..8).map(|_| Event::new(EventKind::EntryFailed)));
        assert_eq!(o.dropped(), 6);
        assert!(!o.is_empty());
        let (events, dropped) = o.take();
        assert_eq!((events.len(), dropped), (10, 6));
        assert!(o.is_empty());
        o.put([Event::new(EventKind::EntryCopied)]);
        assert_eq!((o.take().1, o.dropped()), (0, 6));
        o.give_up(2, 3);
        assert_eq!((o.is_empty(), o.take().1, o.dropped()), (false, 5, 8));
    }

    #[test]
    fn closing_wakes_whoever_rests() {
        let o = std::sync::Arc::new(Outbox::new(1));
        let other = std::sync::Arc::clone(&o);
        let t = std::thread::spawn(move || other.rest(Duration::from_secs(600)));
        o.close();
        t.join().unwrap();
        assert!(o.is_closed());
    }
}
