//! What a job says: lines as it happens, progress, and a summary in two voices, text and JSON.
//!
//! A stream that is closed, or full, ends what is said on it and nothing else: no panic, no other exit code.

mod console;
mod progress;
mod report;
mod summary;

pub use console::Console;
pub use progress::Reading;
pub use report::{Report, grouped, share, took};
pub use summary::{End, Summary};

use std::fmt::Write as _;
use std::io::Write;

/// Puts bytes on standard output, for commands that have nothing else to say.
pub fn put(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let result = out.write_all(bytes).and_then(|()| out.flush());
    if let Err(e) = result {
        lament(&e);
    }
}

/// Says on standard error, in the name of the program, what is wrong.
pub fn complain(text: &str) {
    // in one write, so that lines of several threads do not mix
    let _ = std::io::stderr().write_all(format!("treeferry: {}\n", harmless(text, "\n\t")).as_bytes());
}

/// Takes the power over the terminal from words that may hold a name as it is: control characters are
/// written as in [`treeferry_core::escape`]. All other text stays, names that are escaped already among it.
pub fn harmless(text: &str, allowed: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !allowed.contains(c) {
            let mut buffer = [0; 4];
            for b in c.encode_utf8(&mut buffer).bytes() {
                // into memory: cannot fail
                let _ = write!(out, "\\#{b:03o}");
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// What becomes of a failed write to standard output: a reader that went away (`| head`) wanted no more; all
/// else is worth a word.
fn lament(e: &std::io::Error) {
    if e.kind() != std::io::ErrorKind::BrokenPipe {
        complain(&format!("standard output: {e}"));
    }
}

#[cfg(test)]
mod tests {
    use super::harmless;

    #[test]
    fn words_have_no_power_over_the_terminal() {
        assert_eq!(harmless("a\x1b[31m\n\u{9b}é\\#012", "\n"), "a\\#033[31m\n\\#302\\#233é\\#012");
        assert_eq!(harmless("two\nlines", ""), "two\\#012lines");
    }
}
