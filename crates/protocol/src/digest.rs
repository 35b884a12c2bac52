//! Digests of a point's payload and vectors that do not depend on how JSON was spelled.
//!
//! * **Payload**: SHA-256 of the JSON with object keys sorted and no white space. Numbers are written as `serde_json` writes them.
//! * **Vector**: SHA-256 over a tag for the shape, lengths as 64-bit little-endian numbers, and each component as the four
//!   little-endian bytes of its `f32` (negative zero as zero); the indices of a sparse vector as 32-bit numbers, sorted.
//!
//! A snapshot brings vectors back bit for bit, so equality is exact.
//!
//! * **Sketch** of a vector of unit length (of one with several rows: each of unit length): four sums of its components, the rows one after the
//!   other, each component counted as positive or negative, rounded to whole 1e-7. Component `i` is negative in sum `j` where bit `j` of
//!   SplitMix64's `i`-th output after the seed 0 is set. A component that changes by d changes each sum by d.

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

/// Units of a sketch in 1.0.
pub const SKETCH_SCALE: f64 = 1e7;
/// Sums in a sketch. Two vectors a distance D apart agree within t in all of them with a probability of about (0.8 t/D)⁴.
const SKETCH_SUMS: usize = 4;
/// How far from 1 the length of a vector may be that Qdrant has normalised; those of 16-bit components are the least exact.
const UNIT_TOLERANCE: f64 = 1e-2;

/// The sketch of every dense vector of unit length, by name as in [`vectors`].
pub fn sketches(vectors: &Value) -> BTreeMap<String, Vec<i64>> {
    let mut sketches = BTreeMap::new();
    match vectors {
        Value::Array(_) => sketches.extend(sketch(vectors).map(|sketch| (String::new(), sketch))),
        Value::Object(named) => {
            sketches.extend(named.iter().filter_map(|(name, vector)| Some((name.clone(), sketch(vector)?))))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    sketches
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "a sum over vectors of unit length is at most the number of components, and saturates where it is not"
)]
fn sketch(vector: &Value) -> Option<Vec<i64>> {
    let rows = match vector {
        Value::Array(rows) if rows.iter().any(Value::is_array) => rows.as_slice(),
        Value::Array(_) => std::slice::from_ref(vector),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => return None,
    };
    let mut sums = [0.0; SKETCH_SUMS];
    let mut number = 0_u64;
    for row in rows {
        let mut square = 0.0;
        for component in row.as_array()? {
            let component = component.as_f64()?;
            square += component * component;
            let signs = split_mix(number);
            number += 1;
            for (bit, sum) in sums.iter_mut().enumerate() {
                *sum += if signs >> bit & 1 == 1 { -component } else { component };
            }
        }
        if (square.sqrt() - 1.0).abs() > UNIT_TOLERANCE {
            return None;
        }
    }
    Some(sums.iter().map(|sum| (sum * SKETCH_SCALE).round() as i64).collect())
}

/// The `number`-th output of SplitMix64 after the seed 0.
fn split_mix(number: u64) -> u64 {
    let word = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
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

    #[test]
    fn a_sketch_bears_the_noise_of_normalising_and_no_change() {
        assert_eq!(split_mix(0), 0xE220_A839_7B1D_CDAF, "the first output of the reference implementation");
        let unit = |scale: f64, change: f64| {
            let mut components = vec![scale * 0.125; 64];
            components[17] += change;
            json!({ "title": components, "rows": [components.clone(), components], "far": [1.0, 1.0],
                "sparse": {"indices": [1], "values": [1.0]} })
        };
        let recorded = sketches(&unit(1.0, 0.0));
        assert_eq!(
            recorded.keys().collect::<Vec<_>>(),
            ["rows", "title"],
            "only what may be normalised again"
        );
        let far = |other: &BTreeMap<String, Vec<i64>>| {
            let pairs = recorded["title"].iter().zip(&other["title"]);
            pairs.map(|(a, b)| a.abs_diff(*b)).min()
        };
        assert!(far(&sketches(&unit(1.000_000_1, 0.0))) < Some(10));
        assert!(far(&sketches(&unit(1.0, 0.000_1))) >= Some(999), "each sum moves by the change");
        assert_eq!(sketches(&json!([1.0])).keys().collect::<Vec<_>>(), [""]);
        assert!(sketches(&json!([0.0, 0.0])).is_empty());
    }
}
