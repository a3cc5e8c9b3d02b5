//! What stands in the ledger, and what its scripts take and answer.

use super::{LedgerError, Res};
use crate::cluster::bundle::{Bundle, Commit, GroupChange, Lane};
use redis::Value;
use std::collections::BTreeMap;
use treeferry_core::wire;
use treeferry_core::{GroupKey, NewTask, Task, TaskId, errno};

/// New tasks, as scripts name them.
pub(super) fn read_made(answer: &[Value]) -> Res<Vec<(Lane, TaskId)>> {
    let mut made = Vec::new();
    for pair in answer.chunks(2) {
        let id = word(pair.first()).parse::<u64>().ok();
        let lane = word(pair.get(1)).bytes().next().and_then(Lane::from_code);
        let (Some(id), Some(lane)) = (id, lane) else {
            return Err(LedgerError::Strange("a task that cannot be named"));
        };
        made.push((lane, TaskId(id)));
    }
    Ok(made)
}

/// Device and inode of the target; nothing for none.
pub(super) fn inode_text(target: Option<(u64, u64)>) -> String {
    target.map(|(d, i)| format!("{d}:{i}")).unwrap_or_default()
}

pub(super) fn group(key: GroupKey) -> String {
    format!("{}:{}", key.dev, key.ino)
}

pub(super) fn inode(s: &str) -> Option<(u64, u64)> {
    let (dev, ino) = s.split_once(':')?;
    Some((dev.parse().ok()?, ino.parse().ok()?))
}

pub(super) fn word(v: Option<&Value>) -> &str {
    match v {
        Some(Value::BulkString(b)) => std::str::from_utf8(b).unwrap_or_default(),
        Some(Value::SimpleString(s)) => s,
        _ => "",
    }
}

fn as_task(n: NewTask, tally: u64) -> Task {
    Task { id: TaskId(0), join: n.join, attempt: n.attempt, tally, work: n.work }
}

/// What stands in `open`: the lane, what it is, and that.
pub(super) fn body(lane: Lane, bundle: &Bundle) -> Vec<u8> {
    let mut b = vec![lane.code(), b'B'];
    b.extend(wire::encode(wire::MessageKind::Bundle, bundle));
    b
}

pub fn read_body(b: &[u8]) -> Res<Bundle> {
    let strange = LedgerError::Strange("a task that begins like none");
    let Some((&[_, kind], rest)) = b.split_first_chunk::<2>() else { return Err(strange) };
    match kind {
        b'B' => Ok(wire::decode(wire::MessageKind::Bundle, rest)?),
        b'F' => {
            let (tally, task) = until_colon(rest).ok_or(strange)?;
            let task = wire::decode::<NewTask>(wire::MessageKind::NewTask, task)?;
            Ok(Bundle { tasks: vec![as_task(task, tally)], joins: Vec::new() })
        }
        b'P' => {
            let (mut tasks, mut rest) = (Vec::new(), rest);
            while !rest.is_empty() {
                let (len, more) = until_colon(rest).ok_or(LedgerError::Strange("a length that is none"))?;
                let (one, more) = more
                    .split_at_checked(len as usize)
                    .ok_or(LedgerError::Strange("a task that is cut off"))?;
                tasks.push(as_task(wire::decode::<NewTask>(wire::MessageKind::NewTask, one)?, 0));
                rest = more;
            }
            Ok(Bundle { tasks, joins: Vec::new() })
        }
        _ => Err(strange),
    }
}

fn until_colon(b: &[u8]) -> Option<(u64, &[u8])> {
    let i = b.iter().position(|c| *c == b':')?;
    Some((std::str::from_utf8(&b[..i]).ok()?.parse().ok()?, &b[i + 1..]))
}

fn new_task(t: &NewTask) -> Vec<u8> {
    wire::encode(wire::MessageKind::NewTask, t)
}

/// Writes msgpack as Redis's cmsgpack reads it, which knows no bytes: they are texts that need not be UTF-8.
#[derive(Default)]
struct Pack(Vec<u8>);

impl Pack {
    fn list<T>(&mut self, items: impl ExactSizeIterator<Item = T>, mut each: impl FnMut(&mut Pack, T)) {
        // writing into memory cannot fail
        let _ = rmp::encode::write_array_len(&mut self.0, items.len() as u32);
        items.for_each(|t| each(self, t));
    }
    fn tuple(&mut self, n: u32) -> &mut Pack {
        let _ = rmp::encode::write_array_len(&mut self.0, n);
        self
    }
    fn text(&mut self, b: impl AsRef<[u8]>) -> &mut Pack {
        let b = b.as_ref();
        let _ = rmp::encode::write_str_len(&mut self.0, b.len() as u32);
        self.0.extend_from_slice(b);
        self
    }
    fn number(&mut self, n: i64) -> &mut Pack {
        let _ = rmp::encode::write_sint(&mut self.0, n);
        self
    }
    fn flag(&mut self, f: bool) -> &mut Pack {
        let _ = rmp::encode::write_bool(&mut self.0, f);
        self
    }
}

/// A commit as `commit.lua` takes it.
pub(super) fn pack(c: &Commit) -> Vec<u8> {
    let mut p = Pack::default();
    let _ = rmp::encode::write_map_len(&mut p.0, 16);
    p.text("rest").text(c.rest.as_ref().map(|b| body(lane_of(b), b)).unwrap_or_default());
    p.text("children").list(c.children.iter(), |p, (lane, b)| {
        p.text(body(*lane, b));
    });
    p.text("joins").list(c.joins.iter(), |p, (j, x)| {
        let follow_up = x.follow_up.as_ref().map(|f| {
            let mut b = vec![Lane::of(&f.work).code()];
            b.extend(new_task(f));
            b
        });
        p.tuple(5).text(format!("{:x}", j.0)).flag(x.opened).number(x.count).number(x.tally as i64);
        p.text(follow_up.unwrap_or_default());
    });
    p.text("parked").list(c.parked.iter(), |p, (k, t)| {
        p.tuple(2).text(group(*k)).text(new_task(t));
    });
    p.text("groups").list(c.groups.iter(), |p, (k, change)| match change {
        GroupChange::Ready(l) => {
            let target = inode_text(l.target);
            p.tuple(5).text(group(*k)).text("R").text(l.path.as_bytes()).text(target).number(l.links.into());
        }
        GroupChange::Abandon => {
            p.tuple(2).text(group(*k)).text("A");
        }
        GroupChange::Seen(linked) => {
            p.tuple(4).text(group(*k)).text("S").number(1).number((*linked).into());
        }
    });
    p.text("released").list(c.released.iter(), |p, k| {
        p.text(group(*k));
    });
    p.text("led").list(c.led.iter(), |p, (k, path)| {
        p.tuple(2).text(group(*k)).text(path.as_bytes());
    });
    p.text("followed").list(c.followed.iter(), |p, (k, l)| {
        p.tuple(3).text(group(*k)).text(l.path.as_bytes()).text(inode_text(l.target));
    });
    p.text("owned").list(c.owned.iter(), |p, (k, t)| {
        p.tuple(2).text(group(*k)).text(inode_text(Some(*t)));
    });
    let counted: Vec<_> = c.counters.iter().filter(|(_, n)| *n > 0).collect();
    p.text("counters").list(counted.iter(), |p, (name, n)| {
        p.tuple(2).text(name).number(*n as i64);
    });
    let mut classes: BTreeMap<_, i64> = BTreeMap::new();
    c.failures.iter().for_each(|f| *classes.entry(errno::class(f.errno)).or_default() += 1);
    p.text("classes").list(classes.iter(), |p, (class, n)| {
        p.tuple(2).text(class.as_bytes()).number(*n);
    });
    let sizes: Vec<_> = c.sizes.iter().collect();
    p.text("sizes").list(sizes.iter(), |p, (class, c)| {
        p.tuple(3).number(*class as i64).number(c.files as i64).number(c.bytes as i64);
    });
    p.text("records").list(c.records.iter(), |p, r| {
        let mut member = format!("{}:", r.note).into_bytes();
        member.extend_from_slice(r.path.as_bytes());
        p.tuple(3).text(r.best.name()).number(r.value as i64).text(member);
    });
    p.text("failures").list(c.failures.iter(), |p, f| {
        p.text(wire::encode(wire::MessageKind::Failure, f));
    });
    p.text("notices").list(c.notices.iter(), |p, n| {
        p.text(format!("{n:?}"));
    });
    p.text("changes").list(c.changes.iter(), |p, x| {
        p.text(wire::encode(wire::MessageKind::Change, x));
    });
    p.0
}

/// The lane of what a holder keeps, for the case that somebody else must go on.
pub(super) fn lane_of(b: &Bundle) -> Lane {
    b.tasks.last().map_or(Lane::Walk, |t| Lane::of(&t.work))
}
