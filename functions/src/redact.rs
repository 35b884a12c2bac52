//! Taking a token out of text that others wrote. Whoever has the token can end the task, and logs and histories are read by many.

/// A run of characters of a token that is this long and occurs in it is part of it and no coincidence.
const TELLING: usize = 12;

/// The text without the token, and without longer pieces of it.
pub(crate) fn redact(text: &str, token: &str) -> String {
    if token.is_empty() {
        return text.to_owned();
    }
    let text = text.replace(token, "…");
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let run = rest.find(|c| !in_tokens(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(run);
        clean.push_str(if word.len() >= TELLING && token.contains(word) { "…" } else { word });
        let other = after.find(in_tokens).unwrap_or(after.len());
        let (between, next) = after.split_at(other);
        clean.push_str(between);
        rest = next;
    }
    clean
}

/// The characters that a token is made of, as the document has them.
pub(crate) fn in_tokens(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '/' | '=' | '_' | '.' | '-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whatever_is_around_it_a_token_is_taken_out(
            before in ".{0,40}",
            token in "[A-Za-z0-9+/=_.-]{12,80}",
            after in ".{0,40}",
            cut in 12_usize..=80,
        ) {
            let whole = redact(&format!("{before}{token}{after}{token}"), &token);
            prop_assert!(!whole.contains(&token), "{}", whole);
            let piece = &token[..cut.min(token.len())];
            let part = redact(&format!("{before} {piece}\n{after}"), &token);
            prop_assert!(!part.contains(piece), "{}", part);
        }
    }

    #[test]
    fn no_longer_piece_of_a_token_is_left() {
        let token = "AAAAKgAAAAIAAAAAAAAAAfX+/Qkq==";
        for (text, clean) in [
            ("nothing to hide", "nothing to hide"),
            ("SSM_TaskToken=AAAAKgAAAAIAAAAAAAAAAfX+/Qkq==: bad", "SSM_TaskToken=…: bad"),
            ("cut off: 'AAAAKgAAAAIAAAA'", "cut off: '…'"),
            ("short AAAA is no secret", "short AAAA is no secret"),
            ("ünï AAAAKgAAAAIAAAAAAAAAAfX+/Qkq== ö", "ünï … ö"),
        ] {
            assert_eq!(redact(text, token), clean);
        }
        assert_eq!(redact("as it is", ""), "as it is");
    }
}
