//! Waiting for one of several descriptors, which another thread can end.

use crate::error::{Call, Error};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Ends the waiting of [`crate::Detector::read`], or the next one if nobody waits now.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Makes one, for a detector. It fails where no descriptor can be had.
    pub fn new() -> Result<Waker, Error> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).call("eventfd")?;
        Ok(Waker(Arc::new(fd)))
    }

    /// Ends the waiting.
    pub fn wake(&self) {
        // it fails only if it was woken 2^64 times before
        let _ = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    /// Forgets that it was used.
    pub(crate) fn clear(&self) {
        let _ = rustix::io::read(&*self.0, &mut [0; 8]);
    }

    /// Waits until one of the descriptors has something to say, the waker is used or time is up.
    pub(crate) fn wait(&self, fds: &[(BorrowedFd<'_>, PollFlags)], timeout: Duration) -> Result<(), Error> {
        let deadline = Instant::now().checked_add(timeout);
        let mut all: Vec<PollFd<'_>> = fds.iter().map(|(fd, f)| PollFd::from_borrowed_fd(*fd, *f)).collect();
        all.push(PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN));
        loop {
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            let left = left.and_then(|d| Timespec::try_from(d).ok());
            match poll(&mut all, left.as_ref()) {
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(Error::Call { call: "poll", errno }),
                Ok(_) => break,
            }
        }
        if all.last().is_some_and(|w| w.revents().contains(PollFlags::IN)) {
            self.clear();
        }
        Ok(())
    }
}

/// Whether a descriptor has something to say now.
pub(crate) fn is_ready(fd: BorrowedFd<'_>, flags: PollFlags) -> bool {
    let mut one = [PollFd::from_borrowed_fd(fd, flags)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut one, Some(&now)).is_ok_and(|n| n > 0)
}
