//! Names of temporary files: unmistakable, unique, and telling whether the run that made them is alive.
//!
//! `.treeferry.MACHINE.BOOT.NS-PID-START.SEQ`, all hexadecimal: digests of the machine's identity, of its boot
//! and of the PID name space, then the process, its start time in clock ticks after boot, and a number. A name
//! from this machine, boot and name space is alive exactly if that process is; from an earlier boot of this
//! machine it is dead. From elsewhere nobody can tell: it is taken for dead once it has not changed for a day.

use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

/// Every temporary name starts with this.
pub const PREFIX: &[u8] = b".treeferry.";

/// How long a temporary file from elsewhere must have been left alone before it is taken for dead.
pub const FOREIGN_AGE: Duration = Duration::from_secs(24 * 3600);

/// Gives out temporary names of this process, and judges those of others.
#[derive(Debug)]
pub struct TempNames {
    machine: u32,
    boot: u32,
    ns: u32,
    pid: u32,
    start: u64,
    next: AtomicU64,
}

/// What a temporary name tells of its maker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// Runs, or may.
    Alive,
    /// Is gone.
    Dead,
    /// Cannot be told from here; judge by age.
    Foreign,
}

impl TempNames {
    /// The names of this process.
    pub fn of_this_process() -> TempNames {
        let read = |p: &str| std::fs::read(p).unwrap_or_default();
        let machine = [read("/etc/machine-id"), read("/proc/sys/kernel/hostname")].concat();
        let ns = std::fs::read_link("/proc/self/ns/pid").map(|p| p.into_os_string().into_encoded_bytes());
        let pid = std::process::id();
        TempNames {
            machine: digest(&machine),
            boot: digest(&read("/proc/sys/kernel/random/boot_id")),
            ns: digest(&ns.unwrap_or_default()),
            pid,
            start: start_of(pid).unwrap_or(0),
            next: AtomicU64::new(0),
        }
    }

    /// A name that was never given out before.
    pub fn next(&self) -> CString {
        let n = self.next.fetch_add(1, Relaxed);
        let TempNames { machine, boot, ns, pid, start, .. } = self;
        let s = format!(".treeferry.{machine:08x}.{boot:08x}.{ns:08x}-{pid:x}-{start:x}.{n:x}");
        CString::new(s).unwrap_or_default()
    }

    /// What the names of this process have in common: see [`maker_part`].
    pub fn own_maker(&self) -> String {
        let name = self.next();
        maker_part(&name).unwrap_or_default().to_owned()
    }

    /// Who made a name, or `None` if it is not a temporary name at all.
    pub fn maker(&self, name: &CStr) -> Option<Maker> {
        let n = name.to_bytes();
        if !n.starts_with(PREFIX) {
            return None;
        }
        let s = std::str::from_utf8(&n[PREFIX.len()..]).ok()?;
        let mut parts = s.split('.');
        let (m, b, p, seq) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let mut process = p.split('-');
        let (ns, pid, start) = (process.next()?, process.next()?, process.next()?);
        if parts.next().is_some() || process.next().is_some() || [m, b, ns].iter().any(|d| d.len() != 8) {
            return None;
        }
        let hex = |s: &str| {
            let ok = !s.is_empty() && s.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
            ok.then(|| u64::from_str_radix(s, 16).ok()).flatten()
        };
        let (m, b, ns, start) = (hex(m)?, hex(b)?, hex(ns)?, hex(start)?);
        let pid = u32::try_from(hex(pid)?).ok()?;
        hex(seq)?;
        let same = |a: u64, b: u32| a == u64::from(b);
        Some(match (same(m, self.machine), same(b, self.boot), same(ns, self.ns)) {
            (false, ..) | (true, true, false) => Maker::Foreign,
            (true, false, _) => Maker::Dead,
            (true, true, true) if start_of(pid) == Some(start) => Maker::Alive,
            (true, true, true) => Maker::Dead,
        })
    }
}

/// The part of a temporary name that says who made it: that process alone, of all machines and times, has it.
pub fn maker_part(name: &CStr) -> Option<&str> {
    let rest = std::str::from_utf8(name.to_bytes().strip_prefix(PREFIX)?).ok()?;
    rest.rsplit_once('.').map(|(maker, _)| maker)
}

/// Start time of a process in clock ticks after boot: field 22 of `/proc/PID/stat` (proc_pid_stat(5)).
/// A zombie has ended.
fn start_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    // the command, field 2, is in parentheses and may hold anything
    let after = &stat[stat.iter().rposition(|b| *b == b')')? + 2..];
    let fields: Vec<&[u8]> = after.split(|b| *b == b' ').collect();
    if matches!(fields.first(), Some(&b"Z" | &b"X")) {
        return None;
    }
    std::str::from_utf8(fields.get(19)?).ok()?.parse().ok()
}

fn digest(b: &[u8]) -> u32 {
    xxhash_rust::xxh3::xxh3_64(b) as u32
}

/// Whether a file from elsewhere that last changed then is old enough to be taken for dead.
pub fn is_abandoned(changed_sec: i64) -> bool {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs() as i64);
    now.saturating_sub(changed_sec) > FOREIGN_AGE.as_secs() as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_ours_is_alive() {
        let t = TempNames::of_this_process();
        let (a, b) = (t.next(), t.next());
        assert_ne!(a, b);
        assert_eq!(t.maker(&a), Some(Maker::Alive));
    }

    #[test]
    fn a_dead_run_is_told_from_a_live_and_from_a_foreign_one() {
        let t = TempNames::of_this_process();
        let name = |m: u32, b: u32, ns: u32, start: u64| {
            CString::new(format!(".treeferry.{m:08x}.{b:08x}.{ns:08x}-{:x}-{start:x}.0", t.pid)).unwrap()
        };
        assert_eq!(t.maker(&name(t.machine, t.boot, t.ns, t.start)), Some(Maker::Alive));
        assert_eq!(t.maker(&name(t.machine, t.boot, t.ns, t.start + 1)), Some(Maker::Dead));
        assert_eq!(t.maker(&name(t.machine, !t.boot, t.ns, t.start)), Some(Maker::Dead));
        assert_eq!(t.maker(&name(!t.machine, t.boot, t.ns, t.start)), Some(Maker::Foreign));
        assert_eq!(t.maker(&name(t.machine, t.boot, !t.ns, t.start)), Some(Maker::Foreign));
    }

    #[test]
    fn what_only_looks_a_little_like_it_is_not_ours() {
        let t = TempNames::of_this_process();
        for n in [
            c".treeferry.",
            c".treeferry.conf",
            c".treeferry.1.2.3-4-5.6",
            c".treeferry.00000000.00000000.00000000-1-1",
            c"x",
        ] {
            assert_eq!(t.maker(n), None, "{n:?}");
        }
        let mut n = t.next().into_bytes();
        n.push(b'x');
        assert_eq!(t.maker(&CString::new(n).unwrap()), None);
    }
}
