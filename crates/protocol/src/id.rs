//! Identifiers with a rule: each is made by a checked constructor and prints as it is parsed.

use std::{borrow::Cow, fmt, str::FromStr};

use jiff::{Timestamp, tz::TimeZone};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The text does not follow the rule of the identifier it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}: {rule}")]
pub struct InvalidId {
    what: &'static str,
    rule: &'static str,
    text: String,
}

impl InvalidId {
    pub(crate) fn new(what: &'static str, rule: &'static str, text: impl Into<String>) -> Self {
        Self { what, rule, text: text.into() }
    }
}

/// Which backup: the UTC second in which it was started, as `20261123T051400Z`. Its text sorts as time does.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(Timestamp);

impl BackupId {
    /// The id of a backup started at `time`; parts of a second are dropped.
    pub fn from_time(time: Timestamp) -> Result<Self, InvalidId> {
        Timestamp::from_second(time.as_second())
            .map(Self)
            .map_err(|_e| InvalidId::new("a backup id", "the time is out of range", time.to_string()))
    }

    /// The second in which the backup was started.
    pub fn time(self) -> Timestamp {
        self.0
    }
}

const BACKUP_ID_FORMAT: &str = "%Y%m%dT%H%M%SZ";
const BACKUP_ID_RULE: &str = "it is a UTC time as 20261123T051400Z";

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.to_zoned(TimeZone::UTC).strftime(BACKUP_ID_FORMAT))
    }
}

impl fmt::Debug for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BackupId({self})")
    }
}

impl FromStr for BackupId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let invalid = || InvalidId::new("a backup id", BACKUP_ID_RULE, text);
        let time = jiff::civil::DateTime::strptime(BACKUP_ID_FORMAT, text).map_err(|_e| invalid())?;
        let id = Self(time.to_zoned(TimeZone::UTC).map_err(|_e| invalid())?.timestamp());
        // One spelling only: `strptime` is lenient about padding.
        if id.to_string() == text { Ok(id) } else { Err(invalid()) }
    }
}

/// Which upload of a backup: eight lower-case hexadecimal digits, drawn at random on the host for each new upload.
///
/// It makes the archive's key belong to one upload: a stale worker, or a host that was replaced, can never write over what another attempt stored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AttemptId(String);

impl AttemptId {
    /// The attempt for 32 random bits.
    pub fn from_bits(bits: u32) -> Self {
        Self(format!("{bits:08x}"))
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AttemptId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let hex = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if hex {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId::new("an attempt id", "it is eight lower-case hexadecimal digits", text))
        }
    }
}

/// The name of a Qdrant collection: 1 to 255 bytes, none of `<>:"/\|?*` and no control character (Qdrant's own rule).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CollectionName(String);

impl CollectionName {
    /// The name as Qdrant spells it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as one path component of an archive or a URL: every byte outside `[A-Za-z0-9_-]` as `%XX`.
    ///
    /// A dot is encoded too, so that no name can be `.` or `..`.
    pub fn percent_encoded(&self) -> String {
        percent_encode(&self.0, |byte| matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
    }

    /// The name that [`percent_encoded`](Self::percent_encoded) gave; anything else is refused, also other encodings of the same name.
    pub fn from_percent_encoded(text: &str) -> Result<Self, InvalidId> {
        let invalid =
            || InvalidId::new("an encoded collection name", "it is not what encoding a name gives", text);
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            if byte == b'%' {
                let digits = [rest.next().ok_or_else(invalid)?, rest.next().ok_or_else(invalid)?];
                let mut decoded = [0_u8];
                hex::decode_to_slice(digits, &mut decoded).map_err(|_e| invalid())?;
                bytes.push(decoded[0]);
            } else {
                bytes.push(byte);
            }
        }
        let name: Self = String::from_utf8(bytes).map_err(|_e| invalid())?.parse()?;
        if name.percent_encoded() == text { Ok(name) } else { Err(invalid()) }
    }
}

/// Percent-encodes every byte of `text` that is not `plain`.
pub(crate) fn percent_encode(text: &str, plain: impl Fn(u8) -> bool) -> String {
    use fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _infallible = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

impl fmt::Display for CollectionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for CollectionName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let forbidden =
            |c: char| matches!(c, '<' | '>' | ':' | '"' | '/' | '\\' | '|' | '?' | '*') || c.is_control();
        if text.is_empty() || text.len() > 255 || text.contains(forbidden) {
            let rule = "it has 1 to 255 bytes, none of <>:\"/\\|?* and no control character";
            return Err(InvalidId::new("a collection name", rule, text));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The id of a point, as Qdrant knows them: an unsigned 64-bit number or a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PointId {
    /// A number.
    Number(u64),
    /// A UUID.
    Uuid(#[schemars(with = "String")] Uuid),
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Uuid(uuid) => write!(f, "{uuid}"),
        }
    }
}

/// The string conversions that serde needs, and the JSON Schema, of an identifier that is text on the wire.
macro_rules! textual_id {
    ($type:ident, $pattern:literal, $description:literal) => {
        impl TryFrom<String> for $type {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> Self {
                id.to_string()
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "description": $description })
            }
        }
    };
}

pub(crate) use textual_id;

textual_id!(
    BackupId,
    r"^\d{8}T\d{6}Z$",
    "the UTC second in which the backup was started, as 20261123T051400Z"
);
textual_id!(
    AttemptId,
    r"^[0-9a-f]{8}$",
    "eight random hexadecimal digits that make an upload's keys its own"
);
textual_id!(CollectionName, r#"^[^<>:"/\\|?*]+$"#, "the name of a Qdrant collection, 1 to 255 bytes");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_backup_id_prints_as_it_is_parsed_and_sorts_as_time() {
        let early: BackupId = "20261123T051400Z".parse().unwrap();
        let late: BackupId = "20261123T051401Z".parse().unwrap();
        assert_eq!(early.to_string(), "20261123T051400Z");
        assert!(early < late && early.to_string() < late.to_string());
        assert_eq!(early.time().to_string(), "2026-11-23T05:14:00Z");
        assert_eq!(BackupId::from_time("2026-11-23T05:14:00.9Z".parse().unwrap()).unwrap(), early);
    }

    #[test]
    fn other_spellings_of_ids_are_refused() {
        for text in [
            "",
            "2026-11-23T05:14:00Z",
            "20261123T051400",
            "20261323T051400Z",
            " 20261123T051400Z",
            "2026113T051400Z",
        ] {
            assert!(text.parse::<BackupId>().is_err(), "{text}");
        }
        for text in ["", "0123456", "0123456G", "ABCDEF01", "012345678"] {
            assert!(text.parse::<AttemptId>().is_err(), "{text}");
        }
        for text in ["", "a/b", "a\\b", "a:b", "a\0b", "a?b"] {
            assert!(text.parse::<CollectionName>().is_err(), "{text}");
        }
        assert!("x".repeat(256).parse::<CollectionName>().is_err());
    }

    #[test]
    fn a_collection_name_becomes_one_harmless_path_component() {
        let encoded = |name: &str| name.parse::<CollectionName>().unwrap().percent_encoded();
        assert_eq!(encoded("docs_v2-a"), "docs_v2-a");
        assert_eq!(encoded(".."), "%2E%2E");
        assert_eq!(encoded("zażółć 100%"), "za%C5%BC%C3%B3%C5%82%C4%87%20100%25");
        assert!(
            CollectionName::from_percent_encoded("%2e%2e").is_err(),
            "lower-case digits are another spelling"
        );
        assert!(CollectionName::from_percent_encoded("..").is_err());
        assert!(CollectionName::from_percent_encoded("a%2Fb").is_err(), "a slash is in no name");
    }

    proptest! {
        #[test]
        fn encoding_a_name_loses_nothing(text in "[^<>:\"/\\\\|?*\\p{Cc}]{1,60}") {
            let name: CollectionName = text.parse().unwrap();
            prop_assert_eq!(CollectionName::from_percent_encoded(&name.percent_encoded()).unwrap(), name);
        }
    }
}
