//! The sampled points, by digest.
//!
//! A snapshot brings payloads and vectors back bit for bit. One thing may differ all the same: a vector that is compared by its angle is scaled
//! to unit length when it is written, and an operation that is replayed from the log is written once more, perhaps by a CPU whose sums end in
//! other bits. Then the digests differ and the sketches (`crate::digest`) show that the vectors do not.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{CollectionObservation, Outcome, described, outcome};
use crate::{
    digest::SKETCH_SCALE,
    golden::{CollectionGolden, PointDigest},
    id::PointId,
};

/// How far the sketches of two unit vectors of `f32` may be apart, each projection, and still be the same vector normalised twice. The whole
/// vector is scaled by a factor that is off by some 1e-7; a component that is changed by more than this is always seen.
pub const NORMALISED_TOLERANCE: f64 = 1e-5;
/// The same for 16-bit components, whose last bit may flip: one of 0.5 or more then changes by 5e-4.
pub const NORMALISED_HALF_TOLERANCE: f64 = 1e-3;

pub(super) fn judge_points(
    recorded: &CollectionGolden,
    observed: &CollectionObservation,
) -> (Outcome, String) {
    if recorded.points.is_empty() {
        return (Outcome::Skipped, "no point was sampled".to_owned());
    }
    let by_id: BTreeMap<PointId, &PointDigest> =
        observed.sampled.iter().map(|point| (point.id, point)).collect();
    let (mut differences, mut noisy) = (Vec::new(), 0_usize);
    for expected in &recorded.points {
        let Some(actual) = by_id.get(&expected.id) else {
            differences.push(format!("point {} is missing", expected.id));
            continue;
        };
        if actual.payload != expected.payload {
            differences.push(format!("point {} has another payload", expected.id));
        }
        let vectors = vector_differences(&recorded.config, expected, actual, &mut noisy);
        differences.extend(vectors.into_iter().map(|vector| format!("point {}: {vector}", expected.id)));
    }
    let mut equal = format!("{} sampled points equal", recorded.points.len());
    if noisy > 0 {
        equal.push_str(&format!(", {noisy} vectors of them but for the noise of normalising"));
    }
    (outcome(differences.is_empty()), described(&differences, &equal))
}

/// Whether a point is the recorded one, but for the noise of normalising.
pub(crate) fn is_same_point(config: &Value, expected: &PointDigest, actual: &PointDigest) -> bool {
    let same = actual.id == expected.id && actual.payload == expected.payload;
    same && vector_differences(config, expected, actual, &mut 0).is_empty()
}

/// What is wrong with the vectors of one point. Counts in `noisy` those that are equal but for the noise of normalising.
fn vector_differences(
    config: &Value,
    expected: &PointDigest,
    actual: &PointDigest,
    noisy: &mut usize,
) -> Vec<String> {
    let mut differences = Vec::new();
    for (name, digest) in &expected.vectors {
        match actual.vectors.get(name) {
            None => differences.push(format!("vector `{name}` is missing")),
            Some(other) if other == digest => {}
            Some(_) if equal_but_for_noise(config, name, expected, actual) => *noisy += 1,
            Some(other) => differences.push(format!("vector `{name}` is {other}, expected {digest}")),
        }
    }
    let new = actual.vectors.keys().filter(|name| !expected.vectors.contains_key(*name));
    differences.extend(new.map(|name| format!("vector `{name}` is new")));
    differences
}

fn equal_but_for_noise(config: &Value, name: &str, expected: &PointDigest, actual: &PointDigest) -> bool {
    let Some(tolerance) = tolerance(config, name) else { return false };
    match (expected.sketches.get(name), actual.sketches.get(name)) {
        (Some(a), Some(b)) if a.len() == b.len() => {
            a.iter().zip(b).all(|(a, b)| a.abs_diff(*b) as f64 <= tolerance * SKETCH_SCALE)
        }
        _ => false,
    }
}

/// How far the sketches of a vector may be apart; `None` where Qdrant stores it as it was sent.
fn tolerance(config: &Value, name: &str) -> Option<f64> {
    let vectors = config.pointer("/params/vectors")?;
    let params = if name.is_empty() { vectors } else { vectors.get(name)? };
    if params.get("distance")?.as_str()? != "Cosine" {
        return None;
    }
    match params.get("datatype").and_then(Value::as_str) {
        None | Some("float32") => Some(NORMALISED_TOLERANCE),
        Some("float16") => Some(NORMALISED_HALF_TOLERANCE),
        Some(_) => None,
    }
}
