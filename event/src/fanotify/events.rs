//! Events as fanotify(7) writes them, with names.

use std::ffi::CStr;

const HEAD: usize = 24;
const VERSION: u8 = 3;
const FID: u8 = 1;
const DFID_NAME: u8 = 2;
const DFID: u8 = 3;
const OLD_DFID_NAME: u8 = 10;
const NEW_DFID_NAME: u8 = 12;

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event<'a> {
    pub(super) mask: u64,
    pub(super) pid: i32,
    /// The entry of which it tells.
    pub(super) entry: Option<Entry<'a>>,
    /// The entry as it was called before, and is called now.
    pub(super) old: Option<Entry<'a>>,
    pub(super) new: Option<Entry<'a>>,
    /// The file or directory to which it happened, where the kernel tells that.
    pub(super) object: Option<Handle<'a>>,
}

/// A directory, by its handle, and a name in it; `.` or none is the directory itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub(super) dir: Handle<'a>,
    pub(super) name: &'a CStr,
}

/// What a file or directory is known by, as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handle<'a> {
    /// All of it, with the identity of the file system.
    pub(super) whole: &'a [u8],
    pub(super) fsid: &'a [u8],
    pub(super) kind: i32,
    pub(super) bytes: &'a [u8],
}

impl<'a> Handle<'a> {
    /// One that was kept as a [`Handle::whole`].
    pub(super) fn of(whole: &'a [u8]) -> Option<Handle<'a>> {
        let kind = i32::from_ne_bytes(word(whole, 12)?);
        Some(Handle { whole, fsid: whole.get(..8)?, kind, bytes: whole.get(16..)? })
    }
}

/// What is wrong with what was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Takes the first event off `bytes`; `None` at their end.
pub(super) fn next<'a>(bytes: &mut &'a [u8]) -> Result<Option<Event<'a>>, Malformed> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let event = take(bytes).ok_or(Malformed)?;
    Ok(Some(event))
}

fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn length(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_ne_bytes(word(bytes, at)?)).ok()
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<Event<'a>> {
    let (all, rest) = bytes.split_at_checked(length(bytes, 0)?.max(HEAD))?;
    if *all.get(4)? != VERSION {
        return None;
    }
    let mut event = Event {
        mask: u64::from_ne_bytes(word(all, 8)?),
        pid: i32::from_ne_bytes(word(all, 20)?),
        entry: None,
        old: None,
        new: None,
        object: None,
    };
    let mut records = all.get(usize::from(u16::from_ne_bytes(word(all, 6)?)).max(HEAD)..)?;
    while !records.is_empty() {
        let length = usize::from(u16::from_ne_bytes(word(records, 2)?));
        let (record, more) = records.split_at_checked(length.max(4))?;
        match *record.first()? {
            FID => event.object = Some(entry(record)?.dir).filter(|h| !h.bytes.is_empty()),
            DFID_NAME | DFID => event.entry = Some(entry(record)?),
            OLD_DFID_NAME => event.old = Some(entry(record)?),
            NEW_DFID_NAME => event.new = Some(entry(record)?),
            _ => {}
        }
        records = more;
    }
    *bytes = rest;
    Some(event)
}

/// `struct fanotify_event_info_fid`: a head of 4 bytes, the identity of the file system, `struct file_handle`, a name.
fn entry(record: &[u8]) -> Option<Entry<'_>> {
    let end = length(record, 12)?.checked_add(20)?;
    let dir = Handle::of(record.get(4..end)?)?;
    let name = CStr::from_bytes_until_nul(record.get(end..)?).unwrap_or(c"");
    Some(Entry { dir, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, name: &[u8]) -> Vec<u8> {
        let mut body = b"filesys!".to_vec();
        body.extend(6_u32.to_ne_bytes());
        body.extend(1_i32.to_ne_bytes());
        body.extend(b"handle");
        body.extend(name);
        let length = u16::try_from(body.len() + 4).unwrap().to_ne_bytes();
        [&[kind, 0, length[0], length[1]], &body[..]].concat()
    }

    fn event(mask: u64, records: &[Vec<u8>]) -> Vec<u8> {
        let records = records.concat();
        let mut out = u32::try_from(HEAD + records.len()).unwrap().to_ne_bytes().to_vec();
        out.extend([VERSION, 0]);
        out.extend(24_u16.to_ne_bytes());
        out.extend(mask.to_ne_bytes());
        out.extend((-1_i32).to_ne_bytes());
        out.extend(77_i32.to_ne_bytes());
        out.extend(records);
        out
    }

    #[test]
    fn all_records_are_read() {
        let first = event(0x100, &[record(DFID_NAME, b"name\0\0\0")]);
        let records =
            [record(OLD_DFID_NAME, b"old\0"), record(99, b""), record(12, b"new\0"), record(FID, b"")];
        let second = event(0x1000_0000, &records);
        let bytes = [first, second, event(0x4000, &[])].concat();
        let mut rest = &bytes[..];
        let one = next(&mut rest).unwrap().unwrap();
        let entry = one.entry.unwrap();
        assert_eq!((one.mask, one.pid, entry.name), (0x100, 77, c"name"));
        assert_eq!((entry.dir.fsid, entry.dir.kind, entry.dir.bytes), (&b"filesys!"[..], 1, &b"handle"[..]));
        let two = next(&mut rest).unwrap().unwrap();
        assert_eq!((two.old.unwrap().name, two.new.unwrap().name, two.entry), (c"old", c"new", None));
        let object = two.object.unwrap();
        assert_eq!((object.kind, object.bytes, one.object), (1, &b"handle"[..], None));
        assert_eq!(Handle::of(object.whole), Some(object));
        assert_eq!(next(&mut rest).unwrap().unwrap().mask, 0x4000);
        assert_eq!(next(&mut rest), Ok(None));
    }

    #[test]
    fn what_is_cut_short_is_noticed() {
        let bytes = event(0x100, &[record(DFID_NAME, b"name\0")]);
        for cut in 1..bytes.len() {
            assert_eq!(next(&mut &bytes[..cut]), Err(Malformed), "{cut}");
        }
        // lengths that lie
        for at in [0, 6, 26, 36] {
            for lie in [0, 1, 255] {
                let mut bytes = bytes.clone();
                bytes[at] = lie;
                let _ = next(&mut &bytes[..]);
            }
        }
    }
}
