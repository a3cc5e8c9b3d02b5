//! Failure injection: makes chosen calls on chosen paths fail, to test a site's procedures and ourselves.
//!
//! Armed by the environment variable `TREEFERRY_FAULTS`, read once at start: rules separated by `;`, each of
//! `key=value` pairs separated by `,`:
//!
//! | key | meaning |
//! |---|---|
//! | `call` | name of a call as failures name it (`openat`, `read`, `write`, `renameat`, ...) |
//! | `errno` | a name (`EIO`, `ENOSPC`, ...) or number; or `SHORT`: a read, write or copy does one byte only |
//! | `path` | the path below SRC or DST ends with this; absent: any |
//! | `skip` | let so many matching calls pass first (0) |
//! | `times` | fail so many, then no more; absent: for ever |
//!
//! A rule that cannot be read ends the program: an injection that silently does nothing would prove nothing.
//! Not armed, each call costs one relaxed load.

use rustix::io::Errno;
use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::sync::{OnceLock, RwLock};

/// What a rule does to a call that it hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Fail(Errno),
    Short,
}

#[derive(Debug)]
struct Rule {
    call: String,
    path: Vec<u8>,
    effect: Effect,
    skip: AtomicI64,
    times: AtomicI64,
}

static ARMED: AtomicBool = AtomicBool::new(false);
static RULES: OnceLock<RwLock<Vec<Rule>>> = OnceLock::new();

thread_local! {
    static PATH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reads the rules; see the module for their form.
pub fn arm(text: &str) -> std::result::Result<(), String> {
    let rules = text.split(';').filter(|r| !r.trim().is_empty()).map(parse).collect::<Result<Vec<_>, _>>()?;
    let any = !rules.is_empty();
    *RULES.get_or_init(Default::default).write().map_err(|e| e.to_string())? = rules;
    ARMED.store(any, Relaxed);
    Ok(())
}

/// Whether there are rules, so that a caller need not build paths for [`at`] otherwise.
#[inline]
pub fn armed() -> bool {
    ARMED.load(Relaxed)
}

/// Says which path this thread is working on now.
pub fn at(path: &[u8]) {
    PATH.with_borrow_mut(|p| {
        p.clear();
        p.extend_from_slice(path);
    });
}

/// Asked before each call.
#[inline]
pub(crate) fn gate(call: &'static str) -> std::result::Result<(), Errno> {
    if armed() { slow(call).map(|_| ()) } else { Ok(()) }
}

/// Asked before a read, write or copy: how much of `len` may be done.
#[inline]
pub(crate) fn gate_len(call: &'static str, len: usize) -> std::result::Result<usize, Errno> {
    if armed() { Ok(if slow(call)? { len.min(1) } else { len }) } else { Ok(len) }
}

/// `Ok(true)`: do less than was asked.
#[cold]
fn slow(call: &'static str) -> std::result::Result<bool, Errno> {
    let Some(rules) = RULES.get().and_then(|r| r.read().ok()) else { return Ok(false) };
    for r in rules.iter().filter(|r| r.call == call) {
        if !PATH.with_borrow(|p| p.ends_with(&r.path)) || r.skip.fetch_sub(1, Relaxed) > 0 {
            continue;
        }
        if r.times.fetch_sub(1, Relaxed) > 0 {
            return match r.effect {
                Effect::Fail(e) => Err(e),
                Effect::Short => Ok(true),
            };
        }
    }
    Ok(false)
}

fn parse(rule: &str) -> std::result::Result<Rule, String> {
    let (mut call, mut path, mut effect, mut skip, mut times) = (None, Vec::new(), None, 0, i64::MAX);
    for pair in rule.split(',') {
        let (key, value) = pair.trim().split_once('=').ok_or_else(|| format!("'{pair}' is not key=value"))?;
        let number = || value.parse::<i64>().map_err(|_| format!("'{value}' is not a number"));
        match key {
            "call" => call = Some(value.to_owned()),
            "path" => path = value.as_bytes().to_vec(),
            "errno" => effect = Some(effect_of(value).ok_or_else(|| format!("unknown errno '{value}'"))?),
            "skip" => skip = number()?,
            "times" => times = number()?,
            _ => return Err(format!("unknown key '{key}'")),
        }
    }
    match (call, effect) {
        (Some(call), Some(effect)) => {
            Ok(Rule { call, path, effect, skip: AtomicI64::new(skip), times: AtomicI64::new(times) })
        }
        _ => Err(format!("'{rule}' needs call= and errno=")),
    }
}

fn effect_of(name: &str) -> Option<Effect> {
    let e = match name {
        "SHORT" => return Some(Effect::Short),
        "EPERM" => Errno::PERM,
        "ENOENT" => Errno::NOENT,
        "EINTR" => Errno::INTR,
        "EIO" => Errno::IO,
        "EAGAIN" => Errno::AGAIN,
        "ENOMEM" => Errno::NOMEM,
        "EACCES" => Errno::ACCESS,
        "EBUSY" => Errno::BUSY,
        "EEXIST" => Errno::EXIST,
        "EXDEV" => Errno::XDEV,
        "ENOTDIR" => Errno::NOTDIR,
        "EINVAL" => Errno::INVAL,
        "EFBIG" => Errno::FBIG,
        "ENOSPC" => Errno::NOSPC,
        "EROFS" => Errno::ROFS,
        "EMLINK" => Errno::MLINK,
        "ENOSYS" => Errno::NOSYS,
        "EOPNOTSUPP" => Errno::OPNOTSUPP,
        "ESTALE" => Errno::STALE,
        "EDQUOT" => Errno::DQUOT,
        n => Errno::from_raw_os_error(n.parse().ok().filter(|n| (1..4096).contains(n))?),
    };
    Some(Effect::Fail(e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_wrong_ones_refused_by_name() {
        let r = parse("call=write,errno=ENOSPC,path=/a,skip=2,times=1").unwrap();
        assert_eq!((r.call.as_str(), r.effect), ("write", Effect::Fail(Errno::NOSPC)));
        for (bad, word) in [
            ("call=write", "errno="),
            ("errno=EIO", "call="),
            ("call=a,errno=EWHAT", "EWHAT"),
            ("x=1", "'x'"),
            ("call", "key=value"),
        ] {
            assert!(parse(bad).unwrap_err().contains(word), "{bad}");
        }
    }
}
