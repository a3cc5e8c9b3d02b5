//! What can go wrong with an entry, and what is then done about it: count, try again, or name.

use treeferry_core::task::{MAX_ATTEMPTS, tries};
use treeferry_core::{Event, Failure, Outcome, RelPath, Side};
use treeferry_fs::Error;

/// Why an entry could not be brought to its end.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// A system call failed.
    Call(Side, Error),
    /// The source changed while it was copied.
    Changed,
    /// What was copied is not what was read back.
    Mismatch,
    /// A finding of our own that trying again does not help.
    Finding(Side, &'static str, String),
    /// We were told to stop: nothing is wrong, and nothing is done.
    Stopped,
}

pub(crate) type Res<T> = Result<T, Trouble>;

/// Says on which side a call failed.
pub(crate) trait On<T> {
    fn src(self) -> Res<T>;
    fn dst(self) -> Res<T>;
    /// For a call that works on both: reading is the source's fault, all else the target's.
    fn either(self) -> Res<T>;
}

impl<T> On<T> for treeferry_fs::Result<T> {
    #[inline]
    fn src(self) -> Res<T> {
        self.map_err(|e| Trouble::Call(Side::Source, e))
    }
    #[inline]
    fn dst(self) -> Res<T> {
        self.map_err(|e| Trouble::Call(Side::Target, e))
    }
    #[inline]
    fn either(self) -> Res<T> {
        self.map_err(|e| {
            let side = if matches!(e.op, "read" | "lseek") { Side::Source } else { Side::Target };
            Trouble::Call(side, e)
        })
    }
}

/// What is to be done about a trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The source entry is gone: counted as vanished.
    Vanished,
    /// Try again later.
    Retry,
    /// Name it.
    Fail,
    /// Nothing.
    Drop,
}

impl Trouble {
    /// What is to be done about it, after so many attempts before this one.
    pub fn verdict(&self, attempt: u8) -> Verdict {
        let more = tries(attempt) + 1 < MAX_ATTEMPTS;
        match self {
            Trouble::Stopped => Verdict::Drop,
            Trouble::Call(Side::Source, e) if e.is_gone() => Verdict::Vanished,
            // somebody takes things away or puts things there while we work: look again
            Trouble::Call(Side::Target, e) if more && (e.is_gone() || e.is_exists()) => Verdict::Retry,
            // it became a symlink, or a file became a directory, between our looks: look again
            Trouble::Call(_, e) if more && (e.is_other_kind() || e.retryable()) => Verdict::Retry,
            Trouble::Changed | Trouble::Mismatch if more => Verdict::Retry,
            Trouble::Call(..) | Trouble::Changed | Trouble::Mismatch | Trouble::Finding(..) => Verdict::Fail,
        }
    }

    /// Gives it its name.
    pub fn failure(self, path: RelPath) -> Option<Failure> {
        Some(match self {
            Trouble::Stopped => return None,
            Trouble::Call(side, e) => Failure::errno(path, side, e.op, e.raw()),
            Trouble::Changed => Failure::finding(
                path,
                Side::Source,
                "copy",
                format!("changed each of the {MAX_ATTEMPTS} times it was copied: it can be when it is quiet"),
            ),
            Trouble::Mismatch => Failure::finding(
                path,
                Side::Target,
                "verify",
                "what was read back from storage is not what was read from the source",
            ),
            Trouble::Finding(side, op, text) => Failure::finding(path, side, op, text),
        })
    }

    /// Names it or counts it as vanished; for trouble that is not tried again.
    pub fn record(self, path: impl FnOnce() -> RelPath, out: &mut Outcome) {
        match self.verdict(u8::MAX - 1) {
            Verdict::Vanished => {
                out.counters.vanished += 1;
                out.events.push(Event::vanished(path()));
            }
            _ => {
                if let Some(f) = self.failure(path()) {
                    out.fail(f);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(side: Side, errno: i32) -> Trouble {
        Trouble::Call(side, Error::new("x", errno))
    }

    #[test]
    fn each_trouble_is_counted_tried_again_or_named() {
        use Verdict::*;
        for (t, attempt, v) in [
            (call(Side::Source, 2), 0, Vanished),
            (call(Side::Target, 2), 0, Retry),
            (call(Side::Target, 2), MAX_ATTEMPTS - 1, Fail),
            (call(Side::Source, 5), 0, Retry),
            (call(Side::Source, 5), MAX_ATTEMPTS - 1, Fail),
            (call(Side::Target, 28), 0, Fail),
            (call(Side::Target, 1), 0, Fail),
            (Trouble::Changed, 0, Retry),
            (Trouble::Changed, MAX_ATTEMPTS - 1, Fail),
            (Trouble::Stopped, 0, Drop),
        ] {
            assert_eq!(t.verdict(attempt), v, "{t:?} {attempt}");
        }
    }
}
