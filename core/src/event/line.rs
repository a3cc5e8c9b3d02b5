//! A line: the JSON object that is written of an event, and read back.

use super::{Event, Severity};
use crate::errno;
use crate::failure::Side;
use crate::path::RelPath;
use crate::units::show_size;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// The version of the schema. A field that is added does not change it; one that means something else, or goes, does.
pub const VERSION: u8 = 1;

/// Who tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The machine.
    pub host: String,
    /// The process: NAME-PID, as `status` shows it.
    pub worker: String,
}

macro_rules! fields {
    (always { $($must:ident: $must_ty:ty: $must_doc:literal,)* } if it applies { $($may:ident: $may_ty:ty: $may_doc:literal,)* }) => {
        /// What is written of an event. Fields that do not apply are absent.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub struct Line<'a> {
            $(#[doc = $must_doc] pub $must: $must_ty,)*
            $(#[doc = $may_doc] #[serde(default, skip_serializing_if = "Option::is_none")] pub $may: Option<$may_ty>,)*
        }

        impl Line<'_> {
            /// Names and meanings of the fields.
            pub const TABLE: &'static [(&'static str, &'static str)] =
                &[$((stringify!($must), $must_doc),)* $((stringify!($may), $may_doc),)*];
        }
    };
}

fields! {
    always {
        v: u8: "version of the schema: 1",
        seq: u64: "number of the event in its process, from 0; a gap means that events were lost after they were written",
        time: Cow<'a, str>: "when it happened, in UTC, as `2026-01-31T23:59:59.123456Z`",
        severity: Severity: "`debug`, `info`, `warning` or `error`",
        event: Cow<'a, str>: "what happened; see below",
        host: Cow<'a, str>: "the machine that tells",
        worker: Cow<'a, str>: "the process that tells: NAME-PID, as `treeferry status` shows it",
    }
    if it applies {
        job: Cow<'a, str>: "the job, 16 hexadecimal digits",
        pass: Cow<'a, str>: "`copy`, `delete` or `dirtime`; absent where passes are fused and it cannot be told",
        path: Cow<'a, str>: "the entry, below SRC and DST; `.` is the root. Escaped, see below",
        side: Cow<'a, str>: "where something failed: `source` or `target`",
        op: Cow<'a, str>: "the operation: a system call or, where the finding is ours, what was being done; for tasks the kind of task",
        errno: i32: "error number of the system",
        errno_name: Cow<'a, str>: "its name, as `ENOSPC`",
        item: Cow<'a, str>: "what changed, the 11 columns of rsync's `%i`",
        bytes: u64: "bytes of content",
        duration_us: u64: "how long it took, in microseconds",
        count: u64: "how many",
        text: Cow<'a, str>: "in words",
    }
}

/// Why a line cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum BadLine {
    /// It is no event.
    #[error("not an event: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It was written by a later program.
    #[error("an event of version {0}; this program knows version {VERSION}: upgrade it")]
    Version(u8),
}

impl<'a> Line<'a> {
    /// What is written of an event.
    pub fn of(e: &'a Event, origin: &'a Origin, seq: u64) -> Line<'a> {
        Line {
            v: VERSION,
            seq,
            time: rfc3339(e.time_us).into(),
            severity: e.severity,
            event: e.kind.name().into(),
            host: Cow::Borrowed(&origin.host),
            worker: Cow::Borrowed(&origin.worker),
            job: e.job.map(|j| j.to_string().into()),
            pass: e.pass.map(|p| p.name().into()),
            path: e.path.as_ref().map(shown),
            side: e.side.map(|s| match s {
                Side::Source => "source".into(),
                Side::Target => "target".into(),
            }),
            op: e.op.as_deref().map(Cow::Borrowed),
            errno: (e.errno != 0).then_some(e.errno),
            errno_name: errno::name(e.errno).map(Cow::Borrowed),
            item: e.item.map(|i| String::from_utf8_lossy(&i.columns()).into_owned().into()),
            bytes: e.bytes,
            duration_us: e.took.map(|t| t.as_micros() as u64),
            count: e.count,
            text: e.text.as_deref().map(Cow::Borrowed),
        }
    }

    /// Writes it, with a newline behind it.
    pub fn write(&self, to: &mut Vec<u8>) {
        // into memory, and no map in it has keys that are no text: cannot fail
        let _ = serde_json::to_writer(&mut *to, self);
        to.push(b'\n');
    }

    /// Reads one.
    pub fn read(text: &[u8]) -> Result<Line<'static>, BadLine> {
        let line: Line<'static> = serde_json::from_slice(text)?;
        if line.v > VERSION { Err(BadLine::Version(line.v)) } else { Ok(line) }
    }

    /// The path, unescaped; `None`: it has none, or what stands there is no path.
    pub fn rel_path(&self) -> Option<RelPath> {
        RelPath::from_shown(self.path.as_deref()?).ok()
    }
}

/// As [`RelPath`] shows itself, without a copy where nothing has to be escaped.
fn shown(p: &RelPath) -> Cow<'_, str> {
    match std::str::from_utf8(p.as_bytes()) {
        Ok(s) if !s.is_empty() && !s.contains(|c: char| c.is_control() || c == '\\') => Cow::Borrowed(s),
        _ => p.to_string().into(),
    }
}

impl fmt::Display for Line<'_> {
    /// One line for people: `TIME SEVERITY HOST JOB EVENT: WHAT`. Words that came from elsewhere may have control
    /// characters in them; whoever shows this sees to that.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = self.severity.name().to_ascii_uppercase();
        write!(f, "{} {severity:<7} {}", self.time, self.host)?;
        if let Some(j) = &self.job {
            write!(f, " {j}")?;
        }
        write!(f, " {}:", self.event)?;
        if let Some(i) = &self.item {
            // with its columns filled up, so that paths stand below each other
            write!(f, " {i:<11}")?;
        }
        if let Some(p) = &self.path {
            write!(f, " {p}")?;
        }
        let mut before = if self.path.is_some() { ": " } else { " " };
        let mut part = |f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            let r = write!(f, "{before}{text}");
            before = ", ";
            r
        };
        match (&self.op, &self.side, &self.text) {
            (Some(op), Some(side), Some(text)) => part(f, format_args!("{op} ({side}): {text}"))?,
            (Some(op), Some(side), None) => part(f, format_args!("{op} ({side})"))?,
            (Some(op), None, Some(text)) => part(f, format_args!("{op}: {text}"))?,
            (Some(op), None, None) => part(f, format_args!("{op}"))?,
            (None, _, Some(text)) => part(f, format_args!("{text}"))?,
            (None, _, None) => {}
        }
        match (&self.errno_name, self.errno) {
            (Some(name), _) => write!(f, " [{name}]")?,
            (None, Some(n)) => write!(f, " [errno {n}]")?,
            (None, None) => {}
        }
        if let Some(n) = self.bytes {
            part(f, format_args!("{}", show_size(n)))?;
        }
        if let Some(us) = self.duration_us {
            part(f, format_args!("{:.6} s", us as f64 / 1e6))?;
        }
        match self.count {
            Some(n) if self.event == "job.ended" => part(f, format_args!("{n} failures"))?,
            Some(n) => part(f, format_args!("{n} events"))?,
            None => {}
        }
        Ok(())
    }
}

/// Microseconds since 1970 as RFC 3339 has them, in UTC. No leap seconds, as with all of POSIX time.
fn rfc3339(us: u64) -> String {
    let (s, us) = (us / 1_000_000, us % 1_000_000);
    let (days, s) = (s / 86_400, s % 86_400);
    // the Gregorian calendar repeats after 400 years (146097 days); years begin in March, so that leap days come last
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let m = (5 * day_of_year + 2) / 153;
    let (day, month) = (day_of_year - (153 * m + 2) / 5 + 1, if m < 10 { m + 3 } else { m - 9 });
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    // by hand: the machinery of `format!` takes longer than all else of an event
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let fields =
        [(4, year), (7, month), (10, day), (13, s / 3600), (16, s / 60 % 60), (19, s % 60), (26, us)];
    for (end, mut n) in fields {
        for c in text[..end].iter_mut().rev() {
            if n == 0 || !c.is_ascii_digit() {
                break;
            }
            *c = b'0' + (n % 10) as u8;
            n /= 10;
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;
    use crate::failure::Failure;
    use crate::ids::JobId;
    use crate::{Item, Kind, Pass};
    use proptest::prelude::*;
    use std::time::Duration;

    fn origin() -> Origin {
        Origin { host: "n1".into(), worker: "n1-7".into() }
    }

    fn written(e: &Event, seq: u64) -> String {
        let (origin, mut out) = (origin(), Vec::new());
        Line::of(e, &origin, seq).write(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// What version 1 is, to the letter. A change in here is a change of what people's tools read.
    #[test]
    fn lines_are_those_of_version_1() {
        let f = Failure::errno(RelPath::new(&b"a/new\nline\xff"[..]).unwrap(), Side::Target, "write", 28);
        let e =
            Event { time_us: 1_700_000_000_123_456, ..Event::failure(&f, Some(Pass::Copy)).of(JobId(255)) };
        assert_eq!(
            written(&e, 3),
            concat!(
                r#"{"v":1,"seq":3,"time":"2023-11-14T22:13:20.123456Z","severity":"error","event":"entry.failed","#,
                r#""host":"n1","worker":"n1-7","job":"00000000000000ff","pass":"copy","#,
                r#""path":"a/new\\#012line\\#377","side":"target","op":"write","errno":28,"#,
                r#""errno_name":"ENOSPC","text":"No space left on device"}"#,
                "\n"
            )
        );
        let e = Event {
            bytes: Some(10),
            took: Some(Duration::from_micros(1500)),
            ..Event::change(Item::Made(Kind::File), RelPath::new("f").unwrap())
        };
        assert_eq!(
            written(&e, 0),
            concat!(
                r#"{"v":1,"seq":0,"time":"1970-01-01T00:00:00.000000Z","severity":"info","event":"entry.copied","#,
                r#""host":"n1","worker":"n1-7","pass":"copy","path":"f","item":">f+++++++++","bytes":10,"#,
                r#""duration_us":1500}"#,
                "\n"
            )
        );
    }

    #[test]
    fn text_is_for_people() {
        let f = Failure::errno(RelPath::new("a b").unwrap(), Side::Target, "write", 28);
        let line = |e: Event| Line::read(written(&e.of(JobId(1)), 0).as_bytes()).unwrap().to_string();
        assert_eq!(
            line(Event::failure(&f, None)),
            "1970-01-01T00:00:00.000000Z ERROR   n1 0000000000000001 entry.failed: a b: write (target): \
             No space left on device [ENOSPC]"
        );
        let copied = Event {
            bytes: Some(2048),
            took: Some(Duration::from_millis(2)),
            ..Event::change(Item::Made(Kind::File), RelPath::new("f").unwrap())
        };
        assert!(line(copied).ends_with("entry.copied: >f+++++++++ f: 2.00 KiB, 0.002000 s"));
        let dropped = Event { count: Some(3), ..Event::new(EventKind::EventsDropped) };
        assert!(line(dropped).ends_with("WARNING n1 0000000000000001 events.dropped: 3 events"));
        assert!(line(Event::new(EventKind::JobBegan).text("x")).ends_with("job.began: x"));
    }

    #[test]
    fn what_a_later_minor_version_adds_is_left_out_and_another_version_is_refused() {
        let new = br#"{"v":1,"seq":0,"time":"t","severity":"info","event":"x.new","host":"h","worker":"w","more":[1]}"#;
        assert_eq!(Line::read(new).unwrap().event, "x.new");
        let other = String::from_utf8_lossy(new).replace("\"v\":1", "\"v\":2");
        assert!(matches!(Line::read(other.as_bytes()), Err(BadLine::Version(2))));
        for bad in [&b""[..], b"{}", b"null", b"\xff", &new[..new.len() - 2]] {
            assert!(matches!(Line::read(bad), Err(BadLine::Malformed(_))));
        }
    }

    #[test]
    fn time_is_that_of_the_calendar() {
        for (s, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
            (253_402_300_799, "9999-12-31T23:59:59.000000Z"),
        ] {
            assert_eq!(rfc3339(s * 1_000_000), text);
        }
    }

    proptest! {
        #[test]
        fn every_path_and_every_text_comes_back(
            parts in proptest::collection::vec(proptest::collection::vec(1u8.., 1..20), 0..4),
            text in ".*",
        ) {
            let Ok(path) = RelPath::new(parts.join(&b'/')) else { return Ok(()) };
            let e = Event::vanished(path.clone()).text(text.clone());
            let line = written(&e, u64::MAX);
            prop_assert_eq!(line.matches('\n').count(), 1);
            let back = Line::read(line.as_bytes()).unwrap();
            prop_assert_eq!(back.rel_path(), Some(path));
            prop_assert_eq!((back.text.as_deref(), back.seq), (Some(text.as_str()), u64::MAX));
        }

        #[test]
        fn no_bytes_make_reading_panic(b in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Line::read(&b);
        }
    }
}
