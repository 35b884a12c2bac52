//! Words and numbers as a person reads them.

use std::fmt;

use jiff::{Timestamp, tz::Offset};

/// Text from outside, which may hold anything.
pub(super) struct Text<'a>(pub(super) &'a str);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // Neither shown nor allowed in XML, or able to turn the line around.
                '\u{0}'..='\u{8}'
                | '\u{b}'
                | '\u{c}'
                | '\u{e}'..='\u{1f}'
                | '\u{7f}'
                | '\u{202a}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}' => {
                    f.write_str("\u{fffd}")?;
                }
                other => write!(f, "{other}")?,
            }
        }
        Ok(())
    }
}

/// `2 h 5 min`, `12 min 4 s`, `3.2 s`, `85 ms`.
pub(super) fn duration(seconds: f64) -> String {
    let whole = rounded(seconds);
    match whole {
        _ if seconds < 0.9995 => format!("{:.0} ms", seconds * 1e3),
        _ if seconds < 59.95 => format!("{seconds:.1} s"),
        60..3_600 => joined(whole / 60, "min", whole % 60, "s"),
        3_600..172_800 => joined(whole / 3_600, "h", whole % 3_600 / 60, "min"),
        _ => joined(whole / 86_400, "d", whole % 86_400 / 3_600, "h"),
    }
}

fn joined(large: u64, unit: &str, small: u64, small_unit: &str) -> String {
    match small {
        0 => format!("{large} {unit}"),
        small => format!("{large} {unit} {small} {small_unit}"),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and times are not negative"
)]
fn rounded(seconds: f64) -> u64 {
    seconds.max(0.0).round() as u64
}

/// `412,034`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `23 November 2026, 05:14 UTC`.
pub(super) fn moment(time: Timestamp) -> String {
    Offset::UTC.to_datetime(time).strftime("%-d %B %Y, %H:%M UTC").to_string()
}

/// `23 November 2026`.
pub(super) fn day(time: Timestamp) -> String {
    Offset::UTC.to_datetime(time).strftime("%-d %B %Y").to_string()
}

/// `23 Nov`.
pub(super) fn short_day(time: Timestamp) -> String {
    Offset::UTC.to_datetime(time).strftime("%-d %b %y").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_is_markup() {
        let escaped = Text("<script>alert('x') & \"y\"</script>\u{202e}\u{0}é").to_string();
        assert_eq!(
            escaped,
            "&lt;script&gt;alert(&#39;x&#39;) &amp; &quot;y&quot;&lt;/script&gt;\u{fffd}\u{fffd}é"
        );
    }

    #[test]
    fn times_and_numbers_are_short() {
        for (seconds, text) in [
            (0.0, "0 ms"),
            (0.085, "85 ms"),
            (1.0, "1.0 s"),
            (59.9, "59.9 s"),
            (59.97, "1 min"),
            (724.2, "12 min 4 s"),
            (7_200.0, "2 h"),
            (7_500.0, "2 h 5 min"),
            (183_600.0, "2 d 3 h"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        assert_eq!(moment("2026-11-03T05:04:00Z".parse().unwrap()), "3 November 2026, 05:04 UTC");
    }
}
