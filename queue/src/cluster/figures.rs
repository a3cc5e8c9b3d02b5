//! What the ledger keeps of a job for reports: read here, written by `redis/commit.lua` and `redis/sample.lua`.

use super::{Control, Node};
use crate::redis::{Ledger, LedgerError, prefix, read_body};
use redis::AsyncCommands;
use redis::aio::ConnectionManager;
use std::collections::BTreeMap;
use treeferry_core::records::{Best, Record};
use treeferry_core::sizes::{Class, Sizes};
use treeferry_core::wire::{self, MessageKind};
use treeferry_core::{Failure, Figures, JobId, RelPath, Sample};

/// Failures that are read at once.
const FAILURES: isize = 10_000;
/// Bundles that are read at once, about.
const BUNDLES: usize = 200;

type Res<T> = Result<T, LedgerError>;

/// Sizes, records, and failures by kind.
pub(super) async fn figures(ledger: &Ledger, job: JobId) -> Res<Figures> {
    let p = prefix(job);
    let mut pipe = redis::pipe();
    pipe.hgetall(format!("{p}sizes"));
    for best in Best::ALL {
        pipe.zrevrange_withscores(format!("{p}{}", best.name()), 0, -1);
    }
    type Best4 = Vec<(Vec<u8>, f64)>;
    type Answer = (BTreeMap<String, u64>, Best4, Best4, Best4, Best4);
    let answer = ledger.stubborn(|mut c| {
        let pipe = pipe.clone();
        async move { pipe.query_async::<Answer>(&mut c).await }
    });
    let (sizes, a, b, c, d) = answer.await?;
    let mut out = Figures { sizes: read_sizes(&sizes), ..Figures::default() };
    for (best, members) in Best::ALL.into_iter().zip([a, b, c, d]) {
        let records = members.iter().filter_map(|(member, value)| read_record(best, member, *value as u64));
        records.for_each(|r| out.records.add(r));
    }
    let mut from = 0;
    loop {
        let some = failures(ledger, job, from, FAILURES).await?;
        some.iter().flatten().for_each(|f| out.failures.add(f));
        from += some.len() as isize;
        if (some.len() as isize) < FAILURES {
            return Ok(out);
        }
    }
}

/// Some failures; `None`: one that is not ours.
pub(super) async fn failures(
    ledger: &Ledger,
    job: JobId,
    from: isize,
    most: isize,
) -> Res<Vec<Option<Failure>>> {
    let key = format!("{}failures", prefix(job));
    let raw = ledger.stubborn(|mut c| {
        let key = key.clone();
        async move { c.lrange::<_, Vec<Vec<u8>>>(key, from, from + most - 1).await }
    });
    Ok(raw.await?.iter().map(|b| wire::decode(MessageKind::Failure, b).ok()).collect())
}

/// How the job came along.
pub(super) async fn history(ledger: &Ledger, job: JobId) -> Res<Vec<Sample>> {
    let key = format!("{}history", prefix(job));
    let raw = ledger.stubborn(|mut c| {
        let key = key.clone();
        async move { c.lrange::<_, Vec<String>>(key, 0, -1).await }
    });
    Ok(raw.await?.iter().filter_map(|s| Sample::read(s)).collect())
}

/// What each node has committed: counters by name of the node.
pub(super) async fn shares(ledger: &Ledger, job: JobId) -> Res<BTreeMap<String, BTreeMap<String, u64>>> {
    let p = prefix(job);
    ledger
        .stubborn(|mut c| {
            let p = p.clone();
            async move {
                let names: Vec<String> = c.smembers(format!("{p}nodes")).await?;
                let mut all = BTreeMap::new();
                for name in names {
                    let counters = c.hgetall(format!("{p}node:{name}")).await?;
                    all.insert(name, counters);
                }
                Ok(all)
            }
        })
        .await
}

/// Where there is something left to do: a path for each task of the bundles that are open, or were when the job was
/// stopped.
pub(super) async fn unfinished(ledger: &Ledger, job: JobId) -> Res<Vec<RelPath>> {
    let p = prefix(job);
    let bodies = ledger.stubborn(|mut c| {
        let p = p.clone();
        async move {
            let mut all = BTreeMap::new();
            for key in ["open", "left"] {
                scan(&mut c, &format!("{p}{key}"), &mut all).await?;
            }
            Ok(all)
        }
    });
    let mut out = Vec::new();
    for body in bodies.await?.values() {
        out.extend(read_body(body)?.tasks.into_iter().map(|t| t.work.path().clone()));
    }
    Ok(out)
}

/// Reads a hash in pieces: others have their turn in between. What comes twice is taken once.
async fn scan(
    c: &mut ConnectionManager,
    key: &str,
    all: &mut BTreeMap<u64, Vec<u8>>,
) -> Result<(), redis::RedisError> {
    let mut cursor = 0u64;
    loop {
        let mut call = redis::cmd("HSCAN");
        call.arg(key).arg(cursor).arg("COUNT").arg(BUNDLES);
        let (next, some): (u64, Vec<(u64, Vec<u8>)>) = call.query_async(c).await?;
        all.extend(some);
        cursor = next;
        if cursor == 0 {
            return Ok(());
        }
    }
}

fn read_sizes(fields: &BTreeMap<String, u64>) -> Sizes {
    let mut sizes = Sizes::default();
    for (name, n) in fields {
        let Some((class, what)) = name.split_once(':') else { continue };
        let Ok(class) = class.parse() else { continue };
        match what {
            "files" => sizes.add_class(class, Class { files: *n, bytes: 0 }),
            "bytes" => sizes.add_class(class, Class { files: 0, bytes: *n }),
            _ => {}
        }
    }
    sizes
}

/// A member of a list of records is its note, a colon, and the path.
fn read_record(best: Best, member: &[u8], value: u64) -> Option<Record> {
    let colon = member.iter().position(|b| *b == b':')?;
    let note = String::from_utf8(member[..colon].to_vec()).ok()?;
    Some(Record { best, value, note, path: RelPath::new(&member[colon + 1..]).ok()? })
}

impl Control {
    /// Sizes, records, and failures by kind of a job.
    pub fn figures(&self, id: JobId) -> Res<Figures> {
        self.rt.block_on(figures(&self.ledger, id))
    }

    /// How a job came along.
    pub fn history(&self, id: JobId) -> Res<Vec<Sample>> {
        self.rt.block_on(history(&self.ledger, id))
    }

    /// What each node has counted for a job.
    pub fn shares(&self, id: JobId) -> Res<BTreeMap<String, BTreeMap<String, u64>>> {
        self.rt.block_on(shares(&self.ledger, id))
    }

    /// Where a job has something left to do: a path for each task.
    pub fn unfinished(&self, id: JobId) -> Res<Vec<RelPath>> {
        self.rt.block_on(unfinished(&self.ledger, id))
    }
}

impl Node {
    /// As [`Control::figures`].
    pub(super) fn figures(&self, id: JobId) -> Res<Figures> {
        self.rt.block_on(figures(&self.shared.ledger, id))
    }

    /// As [`Control::unfinished`].
    pub(super) fn unfinished(&self, id: JobId) -> Res<Vec<RelPath>> {
        self.rt.block_on(unfinished(&self.shared.ledger, id))
    }
}
