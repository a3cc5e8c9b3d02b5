//! Events as inotify(7) writes them.

use rustix::fs::inotify::ReadFlags;
use std::ffi::CStr;

const HEAD: usize = 16;

/// One event.
pub(super) struct Event<'a> {
    pub(super) watch: i32,
    pub(super) mask: ReadFlags,
    pub(super) cookie: u32,
    pub(super) name: Option<&'a CStr>,
}

/// Takes the first event off `bytes`; `None` at their end, or if they are none.
pub(super) fn next<'a>(bytes: &mut &'a [u8]) -> Option<Event<'a>> {
    let word = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let (watch, mask, cookie) = (word(0)?, word(4)?, word(8)?);
    let end = HEAD.checked_add(usize::try_from(word(12)?).ok()?)?;
    let name = bytes.get(HEAD..end)?;
    *bytes = bytes.get(end..)?;
    Some(Event {
        watch: watch.cast_signed(),
        mask: ReadFlags::from_bits_retain(mask),
        cookie,
        name: CStr::from_bytes_until_nul(name).ok().filter(|n| !n.is_empty()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_to_the_end_and_broken_ones_are_not() {
        let mut bytes = Vec::new();
        for word in [7_u32, 0x100, 0, 0, 8, 0x40, 5, 4] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(b"ab\0\0");
        let mut rest = &bytes[..];
        let first = next(&mut rest).unwrap();
        assert_eq!((first.watch, first.mask, first.name), (7, ReadFlags::CREATE, None));
        let second = next(&mut rest).unwrap();
        assert_eq!((second.watch, second.cookie, second.name), (8, 5, Some(c"ab")));
        assert!(next(&mut rest).is_none());
        for cut in 0..bytes.len() - 16 {
            let mut rest = &bytes[16..][..cut];
            assert!(next(&mut rest).is_none(), "{cut}");
        }
    }
}
