//! Reading the stream of events, from any node.

use super::events::{COMPRESSED, PLAIN, STREAM};
use super::record::{Site, SiteError};
use crate::redis::{Ledger, LedgerError};
use redis::Value;
use tokio::runtime::Runtime;

type Res<T> = Result<T, LedgerError>;

/// An entry of the stream: some events of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands in the stream; grows.
    pub id: EntryId,
    /// Which process told; no two have the same.
    pub source: String,
    /// Lines of JSON, each with its newline. Empty: it was cut from the stream before it could be read again.
    pub lines: Vec<u8>,
}

/// A place in the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryId(u64, u64);

impl std::fmt::Display for EntryId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl std::str::FromStr for EntryId {
    type Err = ();
    fn from_str(s: &str) -> Result<EntryId, ()> {
        let (ms, n) = s.split_once('-').ok_or(())?;
        Ok(EntryId(ms.parse().map_err(drop)?, n.parse().map_err(drop)?))
    }
}

/// The stream of events of the cluster.
pub struct EventStream {
    rt: Runtime,
    ledger: Ledger,
}

/// One who collects events: what was given to it and not acknowledged is given to it again.
#[derive(Clone, Debug)]
pub struct Collector {
    /// Its name. Each has all events, whatever others read.
    pub name: Vec<u8>,
}

/// An entry has less: five hundred events, of which a path may be long.
const MOST_BYTES: u32 = 1 << 30;
/// All that read for a collector go by one name: there is one at a time.
const CONSUMER: &str = "collector";

impl EventStream {
    /// Connects to the ledger.
    pub fn connect(site: &Site) -> Result<EventStream, SiteError> {
        let rt = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let ledger = rt.block_on(Ledger::connect(&site.ledger))?;
        Ok(EventStream { rt, ledger })
    }

    fn ask(&self, command: &redis::Cmd) -> Res<Value> {
        self.rt.block_on(self.ledger.stubborn(|mut c| {
            let command = command.clone();
            async move { command.query_async::<Value>(&mut c).await }
        }))
    }

    /// Makes a collector known, if it is not; it is given what comes after `from`. Says whether it was new.
    pub fn join(&self, c: &Collector, from: EntryId) -> Res<bool> {
        let mut cmd = redis::cmd("XGROUP");
        cmd.arg("CREATE").arg(STREAM).arg(&c.name).arg(from.to_string()).arg("MKSTREAM");
        match self.ask(&cmd) {
            Ok(_) => Ok(true),
            Err(LedgerError::Redis(e)) if e.code() == Some("BUSYGROUP") => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Entries for a collector. `again`: those after this that it was given before and has not acknowledged; else new
    /// ones. `None`: Redis does not know it any more.
    pub fn take(&self, c: &Collector, again: Option<EntryId>, most: usize) -> Res<Option<Vec<Entry>>> {
        let mut cmd = redis::cmd("XREADGROUP");
        cmd.arg("GROUP").arg(&c.name).arg(CONSUMER).arg("COUNT").arg(most).arg("STREAMS").arg(STREAM);
        cmd.arg(again.map_or(">".to_owned(), |id| id.to_string()));
        match self.ask(&cmd) {
            Ok(v) => entries(&v).map(Some),
            Err(LedgerError::Redis(e)) if e.code() == Some("NOGROUP") => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A collector has these for good.
    pub fn acknowledge(&self, c: &Collector, ids: &[EntryId]) -> Res<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut cmd = redis::cmd("XACK");
        cmd.arg(STREAM).arg(&c.name).arg(ids.iter().map(EntryId::to_string).collect::<Vec<_>>());
        self.ask(&cmd).map(drop)
    }

    /// Entries after `id`, for somebody who only looks.
    pub fn look(&self, after: EntryId, most: usize) -> Res<Vec<Entry>> {
        let mut cmd = redis::cmd("XREAD");
        cmd.arg("COUNT").arg(most).arg("STREAMS").arg(STREAM).arg(after.to_string());
        entries(&self.ask(&cmd)?)
    }
}

const STRANGE: LedgerError = LedgerError::Strange("an entry of the stream of events that is none");

fn bytes(v: &Value) -> Res<&[u8]> {
    match v {
        Value::BulkString(b) => Ok(b),
        Value::SimpleString(s) => Ok(s.as_bytes()),
        _ => Err(STRANGE),
    }
}

/// Reads what XREAD and XREADGROUP answer: of each stream, which is ours alone, its entries.
fn entries(answer: &Value) -> Res<Vec<Entry>> {
    let all = match answer {
        Value::Nil => return Ok(Vec::new()),
        // RESP 2, and 3
        Value::Array(streams) => match &streams[..] {
            [] => return Ok(Vec::new()),
            [Value::Array(pair)] if pair.len() == 2 => &pair[1],
            _ => return Err(STRANGE),
        },
        Value::Map(streams) => match &streams[..] {
            [] => return Ok(Vec::new()),
            [(_, all)] => all,
            _ => return Err(STRANGE),
        },
        _ => return Err(STRANGE),
    };
    let Value::Array(all) = all else { return Err(STRANGE) };
    all.iter().map(entry).collect()
}

fn entry(v: &Value) -> Res<Entry> {
    let Value::Array(pair) = v else { return Err(STRANGE) };
    let [id, fields] = &pair[..] else { return Err(STRANGE) };
    let id = std::str::from_utf8(bytes(id)?).ok().and_then(|t| t.parse().ok()).ok_or(STRANGE)?;
    let mut e = Entry { id, source: String::new(), lines: Vec::new() };
    match fields {
        // given before, and cut from the stream since
        Value::Nil => {}
        Value::Array(fields) => {
            for pair in fields.chunks_exact(2) {
                match bytes(&pair[0])? {
                    b"source" => e.source = String::from_utf8_lossy(bytes(&pair[1])?).into_owned(),
                    name if name == PLAIN.as_bytes() => e.lines = bytes(&pair[1])?.to_vec(),
                    name if name == COMPRESSED.as_bytes() => e.lines = unpack(bytes(&pair[1])?)?,
                    _ => {}
                }
            }
        }
        _ => return Err(STRANGE),
    }
    Ok(e)
}

fn unpack(packed: &[u8]) -> Res<Vec<u8>> {
    let length = packed.first_chunk().map(|n| u32::from_le_bytes(*n));
    // the room is taken before anything is unpacked
    if length.is_none_or(|n| n > MOST_BYTES) {
        return Err(STRANGE);
    }
    lz4_flex::decompress_size_prepended(packed).map_err(|_| STRANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back_and_rubbish_is_an_error() {
        let lines = b"{\"event\":\"entry.copied\"}\n".repeat(1000);
        let packed = lz4_flex::compress_prepend_size(&lines);
        assert!(packed.len() * 10 < lines.len());
        assert_eq!(unpack(&packed).unwrap(), lines);
        for bad in [&b""[..], b"123", b"\xff\xff\xff\xff", &packed[..packed.len() / 2], &[9; 40]] {
            assert!(unpack(bad).is_err());
        }
    }

    fn text(s: &str) -> Value {
        Value::BulkString(s.as_bytes().to_vec())
    }

    #[test]
    fn answers_are_understood_and_strange_ones_are_errors() {
        let fields = Value::Array(["source", "a-1.5", "first", "0", "lines", "{}\n"].map(text).to_vec());
        let one = Value::Array(vec![text("7-1"), fields]);
        let cut = Value::Array(vec![text("8-0"), Value::Nil]);
        let all = Value::Array(vec![one, cut]);
        let got = entries(&Value::Array(vec![Value::Array(vec![text(STREAM), all.clone()])])).unwrap();
        assert_eq!(got.len(), 2);
        assert_eq!(
            (got[0].id.to_string(), got[0].source.as_str(), &got[0].lines[..]),
            ("7-1".into(), "a-1.5", &b"{}\n"[..])
        );
        assert!(got[1].lines.is_empty() && got[0].id < got[1].id);
        assert_eq!(entries(&Value::Map(vec![(text(STREAM), all)])).unwrap(), got);
        assert_eq!(entries(&Value::Nil).unwrap(), []);
        for bad in
            [Value::Int(1), Value::Array(vec![Value::Int(1)]), Value::Map(vec![(Value::Nil, Value::Nil)])]
        {
            assert!(entries(&bad).is_err());
        }
        assert!(entry(&Value::Array(vec![text("x"), Value::Nil])).is_err());
    }

    #[test]
    fn places_are_read_back_and_have_an_order() {
        let id: EntryId = "1700000000000-12".parse().unwrap();
        assert_eq!(id.to_string(), "1700000000000-12");
        assert!(EntryId::default() < id && "9-0".parse::<EntryId>() < "10-0".parse::<EntryId>());
        assert!("1".parse::<EntryId>().is_err() && "a-1".parse::<EntryId>().is_err());
    }
}
