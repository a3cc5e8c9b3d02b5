//! Sizes, rates and durations as people write them: `4G`, `100M`, `90s`, `12h`.

use std::num::{IntErrorKind, ParseIntError};
use std::time::Duration;

/// Says why a text is not a quantity.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadQuantity {
    /// Not a number with a known unit.
    #[error("'{0}' is not a size: write a number with K, M, G, T or P (powers of 1024), e.g. 64M")]
    Size(String),
    /// Not a number with a known unit.
    #[error("'{0}' is not a duration: write seconds, or a number with ms, s, m, h, d or w, e.g. 12h")]
    Duration(String),
    /// Longer than anything lasts; moments that far away cannot be reckoned with.
    #[error("'{0}' is too long: at most 1000 years (365250d)")]
    TooLong(String),
    /// Nothing, where that would be without end.
    #[error("'{0}' is too short: at least 1ms")]
    TooShort(String),
}

/// The longest duration: a thousand years.
const LONGEST: Duration = Duration::from_secs(365_250 * 86_400);

/// Reads a number of bytes: digits, an optional fraction, an optional K, M, G, T or P (1024-based, either
/// case, an optional `iB` or `B` behind).
pub fn parse_size(s: &str) -> Result<u64, BadQuantity> {
    let bad = || BadQuantity::Size(s.to_owned());
    let t = s.trim();
    let split = t.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(t.len());
    let (number, unit) = t.split_at(split);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(bad()),
    };
    if let Ok(n) = number.parse::<u64>() {
        return n.checked_mul(1 << shift).ok_or_else(bad);
    }
    let n: f64 = number.parse().map_err(|_| bad())?;
    let v = n * (1u64 << shift) as f64;
    if v.is_finite() && v < u64::MAX as f64 { Ok(v as u64) } else { Err(bad()) }
}

/// The same, of something that takes its time.
pub fn parse_pause(s: &str) -> Result<Duration, BadQuantity> {
    match parse_duration(s)? {
        Duration::ZERO => Err(BadQuantity::TooShort(s.to_owned())),
        d => Ok(d),
    }
}

/// Reads a duration: a number of seconds, or a number with ms, s, m, h, d or w; a thousand years at most.
pub fn parse_duration(s: &str) -> Result<Duration, BadQuantity> {
    let bad = || BadQuantity::Duration(s.to_owned());
    let t = s.trim();
    let split = t.find(|c: char| !c.is_ascii_digit()).unwrap_or(t.len());
    let (number, unit) = t.split_at(split);
    let each_ms = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        "w" => 7 * 86_400_000,
        _ => return Err(bad()),
    };
    let too_long = || BadQuantity::TooLong(s.to_owned());
    let number: u64 = number.parse().map_err(|e: ParseIntError| match e.kind() {
        IntErrorKind::PosOverflow => too_long(),
        _ => bad(),
    })?;
    let duration = number.checked_mul(each_ms).map(Duration::from_millis);
    duration.filter(|d| *d <= LONGEST).ok_or_else(too_long)
}

/// Shows a number of bytes with three digits and a binary unit.
pub fn show_size(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut v, mut i) = (bytes as f64, 0);
    while v >= 1024.0 && i < UNITS.len() - 1 {
        v /= 1024.0;
        i += 1;
    }
    if i == 0 { format!("{bytes} B") } else { format!("{v:.*} {}", if v < 10.0 { 2 } else { 1 }, UNITS[i]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (s, v) in [
            ("0", 0),
            ("17", 17),
            ("1K", 1024),
            ("4k", 4096),
            ("2M", 2 << 20),
            ("1.5G", 3 << 29),
            ("1TiB", 1 << 40),
            ("3b", 3),
        ] {
            assert_eq!(parse_size(s), Ok(v), "{s}");
        }
        for s in ["", "K", "1X", "-1", "1.2.3", "99999999P", "1 000", "inf", "nan"] {
            assert!(parse_size(s).is_err(), "{s}");
        }
    }

    #[test]
    fn durations() {
        for (s, v) in [
            ("0", 0),
            ("90", 90),
            ("90s", 90),
            ("2m", 120),
            ("12h", 43_200),
            ("90000ms", 90),
            ("1d", 86_400),
            ("2w", 1_209_600),
        ] {
            assert_eq!(parse_duration(s), Ok(Duration::from_secs(v)), "{s}");
        }
        for s in ["", "h", "1y", "-1s", "1.5h"] {
            assert_eq!(parse_duration(s), Err(BadQuantity::Duration(s.to_owned())), "{s}");
        }
        assert_eq!(parse_duration("365250d"), Ok(LONGEST));
        for s in [
            "99999999999999999999w",
            "18446744073709551615",
            "18446744073709551615ms",
            "9223372036854775807",
            "365251d",
            "31557600001s",
        ] {
            assert_eq!(parse_duration(s), Err(BadQuantity::TooLong(s.to_owned())), "{s}");
        }
    }

    #[test]
    fn shown() {
        assert_eq!(
            (show_size(0).as_str(), show_size(1023).as_str(), show_size(1536).as_str()),
            ("0 B", "1023 B", "1.50 KiB")
        );
        assert_eq!(show_size(u64::MAX), "16.0 EiB");
    }
}
