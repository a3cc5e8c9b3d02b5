//! What a terminal can show: colours, attributes, characters. Nothing is told by any of them alone.

use ratatui::style::{Color, Modifier, Style};
use ratatui::symbols::bar::{NINE_LEVELS, Set};
use std::ffi::OsString;
use unicode_width::UnicodeWidthChar;

/// Levels of a chart, for terminals that know ASCII only.
const ASCII_LEVELS: Set<'_> = Set {
    full: "#",
    seven_eighths: "#",
    three_quarters: "+",
    five_eighths: "+",
    half: "=",
    three_eighths: "-",
    one_quarter: "-",
    one_eighth: ".",
    empty: " ",
};

/// How things are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    colour: bool,
    /// Bold and reverse.
    attributes: bool,
    /// Characters outside of ASCII.
    unicode: bool,
}

impl Look {
    /// Everything there is.
    #[cfg(test)]
    pub const FULL: Look = Look { colour: true, attributes: true, unicode: true };
    /// As on the plainest terminal.
    #[cfg(test)]
    pub const PLAIN: Look = Look { colour: false, attributes: false, unicode: false };

    /// What the environment says of the terminal: `NO_COLOR`, `TERM`, and the locale.
    pub fn of(variable: impl Fn(&str) -> Option<OsString>) -> Look {
        let get = |name: &str| variable(name).map(|v| v.to_string_lossy().into_owned()).unwrap_or_default();
        let term = get("TERM");
        let dumb = term.is_empty() || term == "dumb";
        let mono = dumb || term.starts_with("vt") || term.contains("mono") || term.ends_with("-m");
        // the first that is set counts, as in setlocale(3)
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(get).into_iter().find(|l| !l.is_empty());
        let locale = locale.unwrap_or_default().to_lowercase();
        Look {
            colour: !mono && get("NO_COLOR").is_empty(),
            attributes: !dumb,
            // the kernel's console shows hardly any of the characters of a chart
            unicode: !dumb && term != "linux" && (locale.contains("utf-8") || locale.contains("utf8")),
        }
    }

    fn style(self, colour: Option<Color>, modifier: Modifier) -> Style {
        let mut s = Style::new();
        if let Some(c) = colour.filter(|_| self.colour) {
            s = s.fg(c);
        }
        if self.attributes {
            s = s.add_modifier(modifier);
        }
        s
    }

    /// Of headings.
    pub fn heading(self) -> Style {
        self.style(Some(Color::Cyan), Modifier::BOLD)
    }

    /// Of the bars at top and bottom, and of the chosen row where the keys move.
    pub fn reverse(self) -> Style {
        self.style(None, Modifier::REVERSED)
    }

    /// Of what stands out.
    pub fn bold(self) -> Style {
        self.style(None, Modifier::BOLD)
    }

    /// Of what is bad.
    pub fn bad(self) -> Style {
        self.style(Some(Color::Red), Modifier::BOLD)
    }

    /// Of what waits for somebody.
    pub fn waiting(self) -> Style {
        self.style(Some(Color::Yellow), Modifier::empty())
    }

    /// Of charts and bars.
    pub fn chart(self) -> Style {
        self.style(Some(Color::Green), Modifier::empty())
    }

    /// Levels of a chart.
    pub fn levels(self) -> Set<'static> {
        if self.unicode { NINE_LEVELS } else { ASCII_LEVELS }
    }

    /// A bar of so many columns, its frame included: `part` of `whole`.
    pub fn bar(self, part: usize, whole: usize, columns: usize) -> String {
        let inner = columns.saturating_sub(2);
        let least = inner.min(1);
        let filled = match part {
            0 => 0,
            p if p >= whole => inner,
            p => (p * inner / whole).clamp(least, inner.saturating_sub(1).max(least)),
        };
        let (full, empty) = if self.unicode { ("█", "░") } else { ("#", ".") };
        format!("[{}{}]", full.repeat(filled), empty.repeat(inner - filled))
    }

    /// The line after a heading.
    pub fn rule(self) -> &'static str {
        if self.unicode { "─" } else { "-" }
    }

    /// Keys that move.
    pub fn arrows(self) -> &'static str {
        if self.unicode { "↑↓" } else { "Up/Down" }
    }

    /// A text without anything that has power over the terminal, and with characters only that it shows.
    pub fn plain(self, text: &str) -> String {
        let safe = crate::output::harmless(text, "");
        if self.unicode {
            // what turns the direction of the line would show a name as another
            safe.chars().map(|c| if is_steering(c) { '\u{fffd}' } else { c }).collect()
        } else {
            safe.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
        }
    }

    /// The text in so many columns; what is too long loses its end.
    pub fn head(self, text: &str, columns: usize) -> String {
        self.cut(&self.plain(text), columns, false)
    }

    /// The text in so many columns; what is too long loses its beginning. For paths: their end tells more.
    pub fn tail(self, text: &str, columns: usize) -> String {
        self.cut(&self.plain(text), columns, true)
    }

    fn cut(self, text: &str, columns: usize, from_front: bool) -> String {
        let width = |c: char| c.width().unwrap_or(0);
        if text.chars().map(width).sum::<usize>() <= columns {
            return text.to_owned();
        }
        let mark = if self.unicode { "…" } else { "~" };
        let mut left = columns.saturating_sub(1);
        let fits = |c: &char| {
            let fits = width(*c) <= left;
            left = if fits { left - width(*c) } else { 0 };
            fits
        };
        let mark = if columns == 0 { "" } else { mark };
        if from_front {
            let kept: Vec<char> = text.chars().rev().take_while(fits).collect();
            mark.chars().chain(kept.into_iter().rev()).collect()
        } else {
            text.chars().take_while(fits).chain(mark.chars()).collect()
        }
    }

    /// A text and blanks, so many columns in all.
    pub fn column(self, text: &str, columns: usize) -> String {
        let mut text = self.head(text, columns);
        let used: usize = text.chars().map(|c| c.width().unwrap_or(0)).sum();
        text.extend(std::iter::repeat_n(' ', columns.saturating_sub(used)));
        text
    }
}

/// Marks of bidirectional text, line and paragraph separators, and the like.
fn is_steering(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(vars: &[(&str, &str)]) -> Look {
        Look::of(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)))
    }

    #[test]
    fn the_environment_says_what_the_terminal_can() {
        let utf8 = ("LANG", "C.UTF-8");
        assert_eq!(look(&[("TERM", "xterm-256color"), utf8]), Look::FULL);
        assert!(!look(&[("TERM", "xterm"), utf8, ("NO_COLOR", "1")]).colour);
        assert!(look(&[("TERM", "xterm"), utf8, ("NO_COLOR", "")]).colour, "an empty NO_COLOR is none");
        assert!(!look(&[("TERM", "xterm-mono"), utf8]).colour);
        assert!(!look(&[("TERM", "vt100"), utf8]).colour);
        assert!(look(&[("TERM", "vt100"), utf8]).attributes);
        assert_eq!(look(&[("TERM", "dumb"), utf8]), Look::PLAIN);
        assert_eq!(look(&[utf8]), Look::PLAIN, "nothing is known of it");
        assert!(!look(&[("TERM", "xterm"), utf8, ("LC_ALL", "C")]).unicode, "LC_ALL comes first");
        assert!(look(&[("TERM", "xterm"), ("LC_ALL", ""), ("LC_CTYPE", "de_DE.utf8")]).unicode);
    }

    #[test]
    fn what_is_too_long_loses_its_end_or_its_beginning() {
        let (f, p) = (Look::FULL, Look::PLAIN);
        assert_eq!((f.head("abcdef", 6), f.head("abcdef", 5)), ("abcdef".into(), "abcd…".into()));
        assert_eq!((f.tail("abcdef", 4), p.tail("abcdef", 4)), ("…def".into(), "~def".into()));
        assert_eq!((f.head("ab", 0), f.head("ab", 1), f.tail("ab", 1)), ("".into(), "…".into(), "…".into()));
        // two columns each: none is cut in half
        assert_eq!((f.head("漢字漢字", 6), f.tail("漢字漢字", 6)), ("漢字…".into(), "…漢字".into()));
        assert_eq!(f.column("漢字", 6), "漢字  ");
        assert_eq!(f.column("漢字漢字", 6), "漢字… ");
    }

    #[test]
    fn names_have_no_power_over_the_terminal() {
        assert_eq!(Look::FULL.plain("a\x1b[2J\tb\u{202e}c"), "a\\#033[2J\\#011b\u{fffd}c");
        assert_eq!(Look::PLAIN.plain("é\n漢"), "?\\#012?");
    }

    #[test]
    fn a_bar_is_full_only_when_it_is_and_empty_only_when_it_is() {
        let bar = |part, whole| Look::PLAIN.bar(part, whole, 6);
        assert_eq!([bar(0, 8), bar(1, 8), bar(4, 8), bar(8, 8)], ["[....]", "[#...]", "[##..]", "[####]"]);
        assert_eq!([bar(1, 99), bar(98, 99)], ["[#...]", "[###.]"]);
        assert_eq!([bar(9, 8), bar(0, 0)], ["[####]", "[....]"]);
        assert_eq!(Look::FULL.bar(1, 2, 6), "[██░░]");
        assert_eq!(Look::FULL.bar(1, 2, 0), "[]");
    }
}
