//! Digests of a point's payload and vectors that do not depend on how JSON was spelled.
//!
//! * **Payload**: SHA-256 of the JSON with object keys sorted and no white space. Numbers are written as `serde_json` writes them.
//! * **Vector**: SHA-256 over a tag for the shape, lengths as 64-bit little-endian numbers, and each component as the four
//!   little-endian bytes of its `f32` (negative zero as zero); the indices of a sparse vector as 32-bit numbers, sorted.
//!
//! A snapshot brings vectors back bit for bit, so equality is exact.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// SHA-256 of a payload, 64 lower-case hexadecimal digits. A missing payload is the empty one.
pub fn payload(payload: &Value) -> String {
    let canonical = if payload.is_null() { Value::Object(serde_json::Map::new()) } else { sorted(payload) };
    hex::encode(Sha256::digest(canonical.to_string()))
}

/// SHA-256 of every vector of a point by its name; the default vector's name is empty. `None` when the shape is none that Qdrant has.
pub fn vectors(vectors: &Value) -> Option<BTreeMap<String, String>> {
    let mut digests = BTreeMap::new();
    match vectors {
        Value::Null => {}
        Value::Array(_) => {
            digests.insert(String::new(), vector(vectors)?);
        }
        Value::Object(named) => {
            for (name, value) in named {
                digests.insert(name.clone(), vector(value)?);
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    }
    Some(digests)
}

fn vector(value: &Value) -> Option<String> {
    let mut hash = Sha256::new();
    match value {
        Value::Array(rows) if rows.iter().any(Value::is_array) => {
            hash.update(b"multi");
            hash.update(length(rows.len()));
            for row in rows {
                dense(&mut hash, row.as_array()?)?;
            }
        }
        Value::Array(components) => {
            hash.update(b"dense");
            dense(&mut hash, components)?;
        }
        Value::Object(sparse) => {
            let indices = sparse.get("indices")?.as_array()?;
            let values = sparse.get("values")?.as_array()?;
            if indices.len() != values.len() {
                return None;
            }
            let mut pairs: Vec<(u32, [u8; 4])> = Vec::with_capacity(indices.len());
            for (index, value) in indices.iter().zip(values) {
                pairs.push((u32::try_from(index.as_u64()?).ok()?, component(value)?));
            }
            pairs.sort_unstable();
            hash.update(b"sparse");
            hash.update(length(pairs.len()));
            for (index, bytes) in pairs {
                hash.update(index.to_le_bytes());
                hash.update(bytes);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    }
    Some(hex::encode(hash.finalize()))
}

fn dense(hash: &mut Sha256, components: &[Value]) -> Option<()> {
    hash.update(length(components.len()));
    for value in components {
        hash.update(component(value)?);
    }
    Some(())
}

fn length(len: usize) -> [u8; 8] {
    (len as u64).to_le_bytes()
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a component is an f32 that was printed as decimal: the nearest f32 is the one meant"
)]
fn component(value: &Value) -> Option<[u8; 4]> {
    let component = value.as_f64()? as f32;
    Some((component + 0.0).to_le_bytes())
}

/// The value with the keys of every object sorted.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let ordered: BTreeMap<&String, Value> =
                map.iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(ordered.into_iter().map(|(key, value)| (key.clone(), value)).collect())
        }
        Value::Array(values) => Value::Array(values.iter().map(sorted).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spelling_does_not_matter_and_content_does() {
        assert_eq!(
            payload(&json!({"a": 1, "b": {"d": [1], "c": null}})),
            payload(&json!({"b": {"c": null, "d": [1]}, "a": 1}))
        );
        assert_eq!(payload(&Value::Null), payload(&json!({})));
        for other in [
            json!({"a": 1}),
            json!({"a": "1"}),
            json!({"a": 1.5}),
            json!({"a": null}),
            json!({"a": [1]}),
            json!({"b": 1}),
        ] {
            assert_eq!(payload(&other) == payload(&json!({"a": 1})), other == json!({"a": 1}), "{other}");
        }
    }

    #[test]
    fn vectors_are_compared_as_f32() {
        let one = |value: Value| vectors(&value).unwrap().remove("").unwrap();
        assert_eq!(one(json!([0.1, -0.0])), one(json!([0.100_000_001_490_116_12, 0])));
        assert_ne!(one(json!([0.1, 0.2])), one(json!([0.2, 0.1])));
        assert_ne!(one(json!([0.1])), one(json!([0.100_000_01])));
    }

    #[test]
    fn shapes_are_told_apart() {
        let all = vectors(&json!({
            "dense": [1.0, 2.0],
            "multi": [[1.0], [2.0]],
            "other multi": [[1.0, 2.0]],
            "sparse": {"indices": [7, 3], "values": [0.5, 0.25]},
        }))
        .unwrap();
        let distinct: std::collections::BTreeSet<_> = all.values().collect();
        assert_eq!(distinct.len(), 4);
        let reordered = vectors(&json!({"sparse": {"values": [0.25, 0.5], "indices": [3, 7]}})).unwrap();
        assert_eq!(reordered["sparse"], all["sparse"]);
        assert_eq!(vectors(&json!({})), Some(BTreeMap::new()));
        for bad in [
            json!("x"),
            json!([["a"]]),
            json!({"s": {"indices": [1], "values": []}}),
            json!({"s": {"indices": [-1], "values": [1]}}),
        ] {
            assert_eq!(vectors(&bad), None, "{bad}");
        }
    }
}
