//! Names are bytes, terminals and logs are text: how the one is shown in the other.
//!
//! rsync's form: a byte that is a control character (but a tab), or that is not part of valid UTF-8, is written `\#ooo`
//! in octal, and so is a backslash that stands before a `#` (else the text could not be read back).

use std::fmt;

/// Shows bytes as text; see the module.
pub fn bytes(b: &[u8]) -> Escaped<'_> {
    Escaped(b)
}

/// What [`bytes`] returns.
pub struct Escaped<'a>(&'a [u8]);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            let mut chars = chunk.valid().chars().peekable();
            while let Some(c) = chars.next() {
                if (c.is_control() && c != '\t') || (c == '\\' && chars.peek() == Some(&'#')) {
                    let mut buf = [0; 4];
                    for b in c.encode_utf8(&mut buf).bytes() {
                        write!(f, "\\#{b:03o}")?;
                    }
                } else {
                    write!(f, "{c}")?;
                }
            }
            for b in chunk.invalid() {
                write!(f, "\\#{b:03o}")?;
            }
        }
        Ok(())
    }
}

/// Reads an escaped text back into the bytes that it shows.
pub fn unescape(s: &str) -> Vec<u8> {
    let b = s.as_bytes();
    let (mut out, mut i) = (Vec::with_capacity(b.len()), 0);
    while i < b.len() {
        let octal =
            b.get(i + 2..i + 5).filter(|d| b[i..].starts_with(b"\\#") && d.iter().all(u8::is_ascii_digit));
        match octal.and_then(|d| std::str::from_utf8(d).ok()).and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(v) => {
                out.push(v);
                i += 5;
            }
            None => {
                out.push(b[i]);
                i += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn shows_odd_names_as_rsync_does() {
        let show = |b: &[u8]| bytes(b).to_string();
        assert_eq!(show(b"plain name.txt"), "plain name.txt");
        assert_eq!(show(b"new\nline"), "new\\#012line");
        assert_eq!(show(b"\xff\xfeok"), "\\#377\\#376ok");
        assert_eq!(show("é".as_bytes()), "é");
        assert_eq!(show(b"a\\#012"), "a\\#134#012");
        assert_eq!(show(b"\x1b[31m"), "\\#033[31m");
    }

    proptest! {
        #[test]
        fn every_name_can_be_read_back(b in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(unescape(&bytes(&b).to_string()), b);
        }
    }
}
