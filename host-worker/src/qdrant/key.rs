//! The API key, which cannot be printed.

use std::fmt;

use reqwest::header::HeaderValue;

/// A Qdrant API key. `Debug` and `Display` show `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// The text cannot be an API key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an API key is not empty and has only visible ASCII characters")]
pub struct InvalidApiKey;

impl ApiKey {
    /// The key in `text`. White space around it, as files end with, is no part of it.
    pub fn new(text: &str) -> Result<Self, InvalidApiKey> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidApiKey);
        }
        Ok(Self(text.to_owned()))
    }

    /// The key as a header that no log shows.
    pub(super) fn header(&self) -> HeaderValue {
        let mut value = HeaderValue::from_str(&self.0)
            .unwrap_or_else(|error| unreachable!("visible ASCII is a header value: {error}"));
        value.set_sensitive(true);
        value
    }

    /// `text` without this key, should a server have repeated it.
    pub(super) fn redact(&self, text: &str) -> String {
        text.replace(&self.0, "***")
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(***)")
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_shown() {
        let key = ApiKey::new(" s3cret\n").unwrap();
        assert_eq!(format!("{key} {key:?} {:?}", key.header()), "*** ApiKey(***) Sensitive");
        assert_eq!(key.redact("wrong key `s3cret`"), "wrong key `***`");
        for bad in ["", " \n", "a b", "zażółć", "a\0b"] {
            assert_eq!(ApiKey::new(bad), Err(InvalidApiKey), "{bad:?}");
        }
    }
}
