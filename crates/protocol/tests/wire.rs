//! Worker and functions are upgraded at different moments: each reads what the release before it wrote, and what the one after it may add.

#![expect(
    clippy::disallowed_methods,
    reason = "this crate does no I/O but in its tests, and their assertions name the file"
)]
#![expect(clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::{collections::BTreeMap, path::Path};

use protocol::task::{Drilled, Envelope, Quiesced, Stored};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// The releases whose words are kept.
const RELEASES: [&str; 1] = ["0.1"];

fn fixture(release: &str, name: &str) -> Value {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/wire").join(release).join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The document with a field more in each of its objects: what a later release may say.
fn later(value: &Value) -> Value {
    if let Some(fields) = value.as_object() {
        let fields = fields.iter().map(|(name, value)| (name.clone(), later(value)));
        Value::Object(fields.chain([("added_later".to_owned(), json!({ "a": [1] }))]).collect())
    } else if let Some(items) = value.as_array() {
        items.iter().map(later).collect()
    } else {
        value.clone()
    }
}

/// Whether `new` says all that `old` says: a reader of the old release finds every field where it was, of the same value.
fn says(new: &Value, old: &Value) -> bool {
    if let Some(old) = old.as_object() {
        old.iter().all(|(name, old)| new.get(name).is_some_and(|new| says(new, old)))
    } else if let (Some(new), Some(old)) = (new.as_array(), old.as_array()) {
        new.len() == old.len() && new.iter().zip(old).all(|(new, old)| says(new, old))
    } else {
        new == old
    }
}

fn assert_understood<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str) {
    for release in RELEASES {
        let old = fixture(release, name);
        let read: T =
            serde_json::from_value(old.clone()).unwrap_or_else(|error| panic!("{release}, {name}: {error}"));
        let written = serde_json::to_value(&read).unwrap();
        assert!(says(&written, &old), "{release} would not find in {written:#} what it reads in {name}");
        let added: T = serde_json::from_value(later(&old))
            .unwrap_or_else(|error| panic!("a field more in {name}: {error}"));
        assert_eq!(added, read, "a field more in {name}");
    }
}

#[test]
fn answers_are_understood_across_a_release() {
    assert_understood::<Quiesced>("quiesced.json");
    assert_understood::<Stored>("stored.json");
    assert_understood::<Drilled>("drilled.json");
}

#[test]
fn tasks_are_understood_across_a_release() {
    assert_understood::<Envelope>("envelope.json");
    for release in RELEASES {
        let envelope: Envelope = serde_json::from_value(fixture(release, "envelope.json")).unwrap();
        let old: BTreeMap<String, String> =
            serde_json::from_value(fixture(release, "parameters.json")).unwrap();
        assert_eq!(
            Envelope::from_parameters(|name| old.get(name).cloned()),
            Ok(envelope.clone()),
            "{release}'s functions"
        );
        let new = envelope.parameters().unwrap();
        for (name, value) in old {
            assert_eq!(new.get(name.as_str()), Some(&value), "{release}'s worker reads {name}");
        }
    }
}
