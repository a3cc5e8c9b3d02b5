//! Pictures as inline SVG. Colours come from the page's style, so that they follow its light and dark; what a picture
//! shows is also said by titles of its parts, which a browser shows without any script.

use maud::{Markup, html};

/// Width of each picture in its own units; a page scales it.
const WIDTH: f64 = 1080.0;
/// Room for labels at the left of a picture over time.
const LEFT: f64 = 84.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;

/// A value over time.
pub struct OverTime<'a> {
    /// For those who hear it: what it shows.
    pub title: &'a str,
    /// Which of the page's colours: `a`, `b` or `c`.
    pub colour: &'a str,
    /// How long all of it lasted, in seconds.
    pub seconds: f64,
    /// One for each of so many equal spans.
    pub values: &'a [f64],
    /// Shows a value.
    pub show: fn(f64) -> String,
    /// Units grow by 1024 and not by 1000.
    pub binary: bool,
}

/// Draws a value over time: an area in steps, since each value is one of a span and not of a moment.
pub fn over_time(p: &OverTime<'_>) -> Markup {
    let height = 190.0;
    let most = p.values.iter().copied().fold(0.0, f64::max);
    let mean = p.values.iter().sum::<f64>() / p.values.len().max(1) as f64;
    let ticks = nice_ticks(most, p.binary);
    let top = ticks.last().copied().unwrap_or(1.0).max(f64::MIN_POSITIVE);
    let (width, tall) = (WIDTH - LEFT - RIGHT, height - TOP - BOTTOM);
    let span = width / p.values.len().max(1) as f64;
    let x = |i: usize| LEFT + span * i as f64;
    let y = |v: f64| TOP + tall * (1.0 - (v / top).clamp(0.0, 1.0));
    let mut line = String::new();
    for (i, v) in p.values.iter().enumerate() {
        let start = if i == 0 { 'M' } else { 'L' };
        line += &format!("{start}{:.1} {:.1}L{:.1} {:.1}", x(i), y(*v), x(i + 1), y(*v));
    }
    let area = format!("{line}L{:.1} {:.1}L{LEFT} {:.1}Z", x(p.values.len()), y(0.0), y(0.0));
    let each = p.seconds / p.values.len().max(1) as f64;
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-label=(p.title) {
            title { (p.title) }
            @for t in &ticks {
                line class="grid" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(format!("{:.1}", y(*t))) y2=(format!("{:.1}", y(*t))) {}
                text x=(LEFT - 8.0) y=(format!("{:.1}", y(*t) + 4.0)) text-anchor="end" { ((p.show)(*t)) }
            }
            path class=(format!("area-{}", p.colour)) d=(area) {}
            path class=(format!("line-{}", p.colour)) d=(line) {}
            line class="mean" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(format!("{:.1}", y(mean))) y2=(format!("{:.1}", y(mean))) {}
            line class="axis" x1=(LEFT) x2=(WIDTH - RIGHT) y1=(format!("{:.1}", y(0.0))) y2=(format!("{:.1}", y(0.0))) {}
            @for (at, name) in time_ticks(p.seconds) {
                @let at = LEFT + width * at / p.seconds;
                line class="axis" x1=(format!("{at:.1}")) x2=(format!("{at:.1}")) y1=(y(0.0)) y2=(y(0.0) + 4.0) {}
                text x=(format!("{at:.1}")) y=(height - 6.0) text-anchor=(if at > WIDTH - 60.0 { "end" } else { "middle" }) { (name) }
            }
            @for (i, v) in p.values.iter().enumerate() {
                rect class="hit" x=(format!("{:.1}", x(i))) y=(TOP) width=(format!("{span:.1}")) height=(format!("{tall:.1}")) {
                    title { (elapsed(each * i as f64)) " – " (elapsed(each * (i + 1) as f64)) ": " ((p.show)(*v)) }
                }
            }
        }
    }
}

/// A row of bars.
pub struct Row {
    /// At its left.
    pub label: String,
    /// Its bars, from top to bottom: the value, and how it is written.
    pub bars: Vec<(f64, String)>,
}

/// Draws rows of bars. The bars of a place share a colour, of `colours`, and a scale.
pub fn bars(title: &str, label_width: f64, colours: &[&str], rows: &[Row]) -> Markup {
    let (thick, gap) = (if colours.len() > 1 { 10.0 } else { 16.0 }, 9.0);
    let row_height = thick * colours.len() as f64 + gap;
    let height = row_height * rows.len() as f64 + gap;
    let (left, room) = (label_width + 12.0, 150.0);
    let width = WIDTH - left - room;
    let most = |i: usize| rows.iter().filter_map(|r| r.bars.get(i)).map(|b| b.0).fold(0.0, f64::max);
    let scales: Vec<f64> = (0..colours.len()).map(most).collect();
    html! {
        svg viewBox=(format!("0 0 {WIDTH} {height:.0}")) role="img" aria-label=(title) {
            title { (title) }
            line class="axis" x1=(left) x2=(left) y1="4" y2=(format!("{:.1}", height - 4.0)) {}
            @for (n, r) in rows.iter().enumerate() {
                @let top = gap + row_height * n as f64;
                text class="ink" x=(label_width) y=(format!("{:.1}", top + (row_height - gap) / 2.0 + 4.0)) text-anchor="end" {
                    (shortened(&r.label, (label_width / 6.6) as usize))
                    title { (r.label) }
                }
                @for (i, ((value, said), colour)) in r.bars.iter().zip(colours).enumerate() {
                    @let share = if scales[i] > 0.0 { value / scales[i] } else { 0.0 };
                    // what is there at all can be seen
                    @let long = if *value > 0.0 { (width * share).max(2.0) } else { 0.0 };
                    @let y = top + thick * i as f64;
                    rect class=(format!("bar-{colour}")) x=(left + 1.0) y=(format!("{y:.1}")) width=(format!("{long:.1}")) height=(thick - 2.0) rx="2" {
                        title { (r.label) ": " (said) }
                    }
                    text x=(format!("{:.1}", left + long + 8.0)) y=(format!("{:.1}", y + thick / 2.0 + 3.0)) { (said) }
                }
            }
        }
    }
}

/// The beginning and the end of a text that is too long for its place.
fn shortened(text: &str, most: usize) -> String {
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= most.max(5) {
        return text.to_owned();
    }
    let half = (most.max(5) - 1) / 2;
    let (start, end) = (&chars[..half], &chars[chars.len() - half..]);
    start.iter().chain(&['…']).chain(end).collect()
}

/// Round numbers from 0 to the first that is not less than a value: three or four of them.
fn nice_ticks(most: f64, binary: bool) -> Vec<f64> {
    if most <= 0.0 || !most.is_finite() {
        return vec![0.0];
    }
    let base: f64 = if binary { 1024.0 } else { 1000.0 };
    let unit = base.powi(most.max(1.0).log(base).floor() as i32);
    let scaled = most / unit;
    let decade = 10f64.powf((scaled / 4.0).log10().floor());
    let step = [1.0, 2.0, 2.5, 5.0, 10.0].into_iter().map(|s| s * decade).find(|s| s * 4.0 >= scaled);
    let step = step.unwrap_or(10.0 * decade) * unit;
    let n = (most / step).ceil().max(1.0) as usize;
    (0..=n).map(|i| step * i as f64).collect()
}

/// Round times after the beginning, and their names.
fn time_ticks(seconds: f64) -> Vec<(f64, String)> {
    const STEPS: [f64; 22] = [
        1.0,
        2.0,
        5.0,
        10.0,
        15.0,
        30.0,
        60.0,
        120.0,
        300.0,
        600.0,
        900.0,
        1800.0,
        3600.0,
        7200.0,
        10_800.0,
        21_600.0,
        43_200.0,
        86_400.0,
        172_800.0,
        432_000.0,
        864_000.0,
        2_592_000.0,
    ];
    if seconds <= 0.0 || !seconds.is_finite() {
        return Vec::new();
    }
    let longest = STEPS[STEPS.len() - 1];
    let step =
        STEPS.into_iter().find(|s| seconds / s <= 9.0).unwrap_or((seconds / 9.0 / longest).ceil() * longest);
    let n = (seconds / step) as usize;
    (0..=n).map(|i| step * i as f64).map(|t| (t, elapsed(t))).collect()
}

/// A time after the beginning, in at most two units.
fn elapsed(seconds: f64) -> String {
    let s = seconds.round() as u64;
    let two = |a: u64, x: &str, b: u64, y: &str| {
        if b == 0 { format!("{a} {x}") } else { format!("{a} {x} {b} {y}") }
    };
    match s {
        _ if seconds < 10.0 && seconds.fract() > 0.05 => format!("{seconds:.1} s"),
        0..60 => format!("{s} s"),
        60..3600 => two(s / 60, "min", s % 60, "s"),
        3600..86_400 => two(s / 3600, "h", s / 60 % 60, "min"),
        _ => two(s / 86_400, "d", s / 3600 % 24, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_few_and_round_and_hold_the_most() {
        for most in [1.0, 3.0, 7.5, 999.0, 1000.0, 1024.0, 123_456.0, 9.9e12, 1e18] {
            for binary in [false, true] {
                let t = nice_ticks(most, binary);
                assert!((2..=6).contains(&t.len()), "{most}: {t:?}");
                assert!(*t.last().unwrap() >= most && t[t.len() - 2] < most, "{most}: {t:?}");
            }
        }
        assert_eq!(nice_ticks(3.0 * 1048576.0, true).last(), Some(&(3.0 * 1048576.0)));
        assert_eq!(nice_ticks(0.0, false), [0.0]);
        assert_eq!(nice_ticks(f64::NAN, false), [0.0]);
    }

    #[test]
    fn times_are_few_and_round() {
        for s in [0.4, 3.0, 61.0, 4000.0, 90_000.0, 604_800.0, 1e9, 1e14] {
            let t = time_ticks(s);
            assert!((1..=11).contains(&t.len()), "{s}: {t:?}");
            assert!(t.iter().all(|(at, _)| *at <= s), "{s}");
        }
        assert!(time_ticks(0.0).is_empty() && time_ticks(f64::INFINITY).is_empty());
        assert_eq!(
            [0.0, 0.4, 90.0, 7200.0, 90_000.0].map(elapsed),
            ["0 s", "0.4 s", "1 min 30 s", "2 h", "1 d 1 h"]
        );
    }

    #[test]
    fn long_labels_keep_their_ends() {
        assert_eq!(shortened("short", 10), "short");
        assert_eq!(shortened("abcdefghijklmnop", 9), "abcd…mnop");
        assert_eq!(shortened("ééééééééééééé", 7), "ééé…ééé");
    }
}
