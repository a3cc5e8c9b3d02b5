//! The summary in the voice of text: a heading, aligned rows, and what to do next.

use super::{Summary, harmless};
use std::fmt;
use treeferry_core::job::JobState;
use treeferry_core::units::show_size;
use treeferry_service::Exit;

/// Rows that are shown even if nothing was counted.
const ALWAYS: [&str; 6] = ["dirs", "files", "bytes", "copied_files", "copied_bytes", "failures"];
/// Rows with a rate beside them.
const RATED: [&str; 5] = ["files", "bytes", "copied_files", "copied_bytes", "deleted"];
/// What a sync does; in a verification, what it would do, which is said as differences.
const DEEDS: [&str; 8] =
    ["copied_files", "copied_bytes", "meta_fixed", "made_dirs", "linked", "symlinks", "specials", "deleted"];

/// Shows a summary.
pub struct Report<'a>(pub &'a Summary);

/// A line of the table: name, value, rate.
struct Row {
    name: String,
    value: String,
    rate: String,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = self.0;
        writeln!(f, "{}", heading(s))?;
        let rows = rows(s);
        let wide = |of: fn(&Row) -> &str| rows.iter().map(|r| of(r).len()).max().unwrap_or(0);
        let (name, value, rate) = (wide(|r| &r.name), wide(|r| &r.value), wide(|r| &r.rate));
        for r in &rows {
            let line = format!("  {:name$}  {:>value$}  {:>rate$}", r.name, r.value, r.rate);
            writeln!(f, "{}", line.trim_end())?;
        }
        match hint(s) {
            Some(hint) => writeln!(f, "{hint}"),
            None => Ok(()),
        }
    }
}

fn heading(s: &Summary) -> String {
    let took = took(s.elapsed_s);
    match s.differences {
        Some(n) => {
            let found = match (s.state, n) {
                (JobState::Done | JobState::Failed, 0) => "no differences".to_owned(),
                (JobState::Done | JobState::Failed, n) => counted(n, "difference"),
                (other, n) => format!("{}; {} so far", other.name(), counted(n, "difference")),
            };
            format!("{} and {}: {found}, {took} (job {})", s.src, s.dst, s.id())
        }
        None => {
            let dry = if s.dry_run { "dry run, nothing was touched, " } else { "" };
            let passes = s.passes.join(",");
            format!("{} -> {}: {}, {dry}{took} ({passes}; job {})", s.src, s.dst, s.state.name(), s.id())
        }
    }
}

fn rows(s: &Summary) -> Vec<Row> {
    let rate_of = |n: u64, is_bytes| {
        let each = n as f64 / s.elapsed_s.max(0.001);
        if is_bytes { format!("{}/s", show_size(each as u64)) } else { format!("{}/s", grouped(each as u64)) }
    };
    let shown = |name: &str, n: u64| match s.differences {
        Some(_) if DEEDS.contains(&name) => false,
        _ => n > 0 || ALWAYS.contains(&name),
    };
    let row = |(name, n): (&str, u64)| {
        // the last word of a counter's name is its unit
        let is_bytes = name.rsplit('_').next() == Some("bytes");
        let rated = RATED.contains(&name) && n > 0 && !(s.dry_run && DEEDS.contains(&name));
        Row {
            name: name.replace('_', " "),
            value: if is_bytes { show_size(n) } else { grouped(n) },
            rate: if rated { rate_of(n, is_bytes) } else { String::new() },
        }
    };
    s.counters.iter().filter(|(name, n)| shown(name, *n)).map(row).collect()
}

/// What the user can do about it.
fn hint(s: &Summary) -> Option<String> {
    let c = &s.counters;
    let text = match s.exit {
        Exit::Failures if c.failures > 0 => {
            let failures = counted(c.failures, "failure");
            format!("{failures}, named above; run the same command again to try these once more.")
        }
        Exit::Interrupted => "Stopped before the end; run the same command again to finish.".to_owned(),
        Exit::Vanished => {
            let entries =
                if c.vanished == 1 { "1 entry" } else { &format!("{} entries", grouped(c.vanished)) };
            format!("{entries} of the source vanished while the job ran; it is in use.")
        }
        Exit::MaxDelete => "--max-delete was reached: look at what is extra before you raise it.".to_owned(),
        Exit::Unusable => {
            let why = s.error.as_deref().unwrap_or("SRC or DST was lost while the job ran");
            format!("{}; what was done so far is right, the rest was not done.", harmless(why, ""))
        }
        Exit::Done | Exit::Usage | Exit::Failures | Exit::Unreachable => return None,
    };
    Some(text)
}

fn counted(n: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// A number with its thousands apart.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

/// A share as people write it, of which the first two digits count.
pub fn share(share: f64) -> String {
    let percent = share * 100.0;
    let digits = if percent > 0.0 { (1.0 - percent.log10().floor()).clamp(0.0, 9.0) as usize } else { 0 };
    format!("{percent:.digits$} %")
}

/// A time span in words.
pub fn took(seconds: f64) -> String {
    let whole = seconds as u64;
    match whole {
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole / 60 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{End, Summary};
    use super::*;
    use std::time::Duration;
    use treeferry_core::{Counters, JobId, JobSpec};

    fn summary(state: JobState, counters: Counters) -> Summary {
        let end = End { state, counters, failures: vec![], aborted: None };
        Summary::new(JobId(255), &JobSpec::new("/a", "/b"), Duration::from_secs(2), end)
    }

    #[test]
    fn rows_are_aligned_and_rows_of_nothing_are_left_out() {
        let c = Counters {
            dirs: 12,
            files: 1_234_567,
            bytes: 3 << 30,
            copied_files: 10,
            copied_bytes: 1 << 20,
            failures: 1,
            ..Counters::default()
        };
        let want = "\
/a -> /b: failed, 2.0 s (copy,dirtime; job 00000000000000ff)
  dirs                 12
  files         1,234,567    617,283/s
  bytes          3.00 GiB   1.50 GiB/s
  copied files         10          5/s
  copied bytes   1.00 MiB  512.0 KiB/s
  failures              1
1 failure, named above; run the same command again to try these once more.
";
        assert_eq!(Report(&summary(JobState::Failed, c)).to_string(), want);
    }

    #[test]
    fn a_verification_speaks_of_differences() {
        let c = Counters { dirs: 1, files: 2, copied_files: 2, unchanged_files: 0, ..Counters::default() };
        let text = |n| Report(&summary(JobState::Done, c.clone()).with_differences(n)).to_string();
        assert!(text(0).starts_with("/a and /b: no differences, 2.0 s"), "{}", text(0));
        assert!(text(1).starts_with("/a and /b: 1 difference,"), "{}", text(1));
        assert!(!text(2).contains("copied"), "{}", text(2));
    }

    #[test]
    fn every_end_but_the_good_one_has_a_hint() {
        for (c, word) in [
            (Counters { failures: 2, ..Counters::default() }, "2 failures"),
            (Counters { vanished: 1, ..Counters::default() }, "1 entry of the source vanished"),
            (Counters { not_deleted: 1, ..Counters::default() }, "--max-delete"),
        ] {
            assert!(Report(&summary(JobState::Done, c)).to_string().contains(word), "{word}");
        }
        let interrupted = Report(&summary(JobState::Interrupted, Counters::default())).to_string();
        assert!(interrupted.contains("run the same command again"));
        assert!(hint(&summary(JobState::Done, Counters::default())).is_none());
    }

    #[test]
    fn numbers_and_durations_are_readable() {
        assert_eq!(
            [0, 999, 1000, 12_345, 1_234_567].map(grouped),
            ["0", "999", "1,000", "12,345", "1,234,567"]
        );
        assert_eq!([0.04, 59.96, 61.5, 7322.0].map(took), ["0.0 s", "60.0 s", "1 min 01 s", "2 h 02 min"]);
    }
}
