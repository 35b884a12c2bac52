//! The published JSON Schema is the one that the code has.

#![expect(
    clippy::disallowed_methods,
    reason = "the one switch of this test is an environment variable, and its file is named in its assertion"
)]

use protocol::Manifest;

#[test]
fn the_published_schema_is_the_codes_own() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/manifest.schema.json");
    let mut schema = serde_json::to_string_pretty(&schemars::schema_for!(Manifest)).unwrap();
    schema.push('\n');
    if std::env::var("UPDATE_SCHEMA").is_ok() {
        std::fs::write(path, &schema).unwrap();
    }
    let published = std::fs::read_to_string(path).unwrap_or_default();
    assert_eq!(
        published, schema,
        "run `UPDATE_SCHEMA=1 cargo test -p protocol --test schema` and review docs/manifest.schema.json"
    );
}
