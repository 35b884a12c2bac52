//! The timestamps of the language: RFC 3339 with a capital `T` and an offset or a capital `Z`.

/// Reads a timestamp; `None` when it is not one in this form.
pub(in crate::stepfunctions) fn parse(text: &str) -> Option<jiff::Timestamp> {
    let strict = text.as_bytes().get(10) == Some(&b'T')
        && (text.ends_with('Z') || text.get(11..).is_some_and(|time| time.contains(['+', '-'])));
    if !strict || text.contains(['[', ' ', 'z', 't']) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_form_of_the_language_is_a_timestamp() {
        for (text, seconds) in [
            ("2016-03-14T01:59:00Z", Some(1_457_920_740)),
            ("2016-03-14T01:59:00.123Z", Some(1_457_920_740)),
            ("2016-03-14T02:59:00+01:00", Some(1_457_920_740)),
            ("2016-03-14T01:59:00", None),
            ("2016-03-14 01:59:00Z", None),
            ("2016-03-14t01:59:00z", None),
            ("2016-03-14", None),
            ("yesterday", None),
        ] {
            assert_eq!(parse(text).map(jiff::Timestamp::as_second), seconds, "{text}");
        }
    }
}
