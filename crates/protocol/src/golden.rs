//! The golden set: what is recorded with a backup so that a restore can be proved by it.
//!
//! Stored beside the archive as `….golden.json.zst`. Sizes are chosen so that recording costs seconds on a collection of ten million points.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    id::{BackupId, CollectionName, PointId},
    manifest::GoldenSummary,
};

/// The format version that this code writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Points sampled per collection. A digest costs about 200 bytes of JSON and reading a point some 10 kB, so a sample is a few MB at most.
pub const SAMPLE_POINTS: usize = 256;
/// Searches recorded per vector of a collection.
pub const SEARCHES_PER_VECTOR: usize = 8;
/// Results recorded per search (k).
pub const SEARCH_LIMIT: usize = 10;
/// An exact search reads every vector. Above this many bytes of vectors it is confined to the sampled points by an id filter:
/// eight searches over 256 MiB stay within seconds on one core.
pub const EXACT_SEARCH_MAX_BYTES: u64 = 256 << 20;
/// How far two scores of one server may be apart and still be equal: some sixteen times the last bit of an `f32`.
const TIE_TOLERANCE: f64 = 1e-6;

/// What a restore is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoldenSet {
    /// The version of this format.
    pub format_version: u32,
    /// The backup that it was recorded with.
    pub backup_id: BackupId,
    /// Alias to collection.
    pub aliases: BTreeMap<String, CollectionName>,
    /// One record per collection, in the manifest's order.
    pub collections: Vec<CollectionGolden>,
}

/// The golden set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidGoldenSet {
    /// It is not the JSON expected.
    #[error("the golden set is not the JSON expected")]
    Json {
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A later version of this program wrote it.
    #[error(
        "the golden set has format version {found}, this program reads up to {FORMAT_VERSION}: use a newer release"
    )]
    NewerFormat {
        /// The version found.
        found: u32,
    },
}

impl GoldenSet {
    /// The document's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self)
            .unwrap_or_else(|error| unreachable!("a golden set has only string keys: {error}"))
    }

    /// Reads a golden set.
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidGoldenSet> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let json = |source| InvalidGoldenSet::Json { source };
        let Version { format_version: found } = serde_json::from_slice(bytes).map_err(json)?;
        if found > FORMAT_VERSION {
            return Err(InvalidGoldenSet::NewerFormat { found });
        }
        serde_json::from_slice(bytes).map_err(json)
    }
}

/// What is recorded of one collection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CollectionGolden {
    /// The collection.
    pub name: CollectionName,
    /// The least exact number of points that a restore may show.
    pub points_min: u64,
    /// The greatest. Differs from the least only when the collection was written to while the backup ran.
    pub points_max: u64,
    /// The configuration, as `GET /collections/{name}` gives it.
    pub config: Value,
    /// The payload indexes: field to type and parameters, without counts.
    pub payload_schema: BTreeMap<String, Value>,
    /// The sampled points.
    pub points: Vec<PointDigest>,
    /// Sampled points that changed while the backup ran, and are therefore not compared.
    pub changed: Vec<PointId>,
    /// The recorded searches.
    pub searches: Vec<GoldenSearch>,
    /// Why nothing was searched, when nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_searched: Option<String>,
    /// How many vectors were in an index, before the first snapshot or after the last, whichever is less. Absent where Qdrant did not say, where
    /// the collection was written to meanwhile, and in golden sets of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indexed_vectors: Option<u64>,
}

impl CollectionGolden {
    /// The sizes, for the manifest.
    pub fn summary(&self) -> GoldenSummary {
        GoldenSummary {
            points: self.points.len() as u64,
            changed: self.changed.len() as u64,
            searches: self.searches.len() as u64,
            recall: mean(self.searches.iter().filter_map(|search| search.recall)),
        }
    }
}

/// The digests of one point (`protocol::digest`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PointDigest {
    /// The point.
    pub id: PointId,
    /// SHA-256 of its payload.
    pub payload: String,
    /// SHA-256 of each of its vectors, by name; the default vector's name is empty.
    pub vectors: BTreeMap<String, String>,
    /// Sketches of those that have unit length (`protocol::digest`), which tell a vector that was normalised again from another one. Absent in
    /// golden sets of earlier releases.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sketches: BTreeMap<String, Vec<i64>>,
}

/// One recorded search.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoldenSearch {
    /// The vector that was searched; empty for the default one.
    pub using: String,
    /// The point whose vector was the query.
    pub point: PointId,
    /// The query, as Qdrant's `query` takes it: a list of numbers, a list of such lists, or `{indices, values}`.
    pub query: Value,
    /// How many results were asked for (k).
    pub limit: usize,
    /// Whether the search was confined to the sampled points by an id filter.
    pub confined: bool,
    /// The result of the exact search, best first.
    pub hits: Vec<Hit>,
    /// The share of those results that the normal search found too, 0 to 1. For a confined search: whether the normal search over the
    /// whole collection found the query's own point, 0 or 1. Absent when the normal search was not possible.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
}

/// One result of a search.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Hit {
    /// The point.
    pub id: PointId,
    /// Its score.
    pub score: f64,
}

/// The mean, or `None` of nothing.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_u32);
    for value in values {
        sum += value;
        count += 1;
    }
    (count > 0).then(|| sum / f64::from(count))
}

/// The share of the exact results that a normal search found: those whose id is there, or whose score equals the last one's, since
/// equal scores have no order. The two searches may add in another order, so that scores are equal within a few last bits.
pub fn recall(exact: &[Hit], normal: &[Hit]) -> Option<f64> {
    let last = exact.last()?.score;
    let is_last = |score: f64| (score - last).abs() <= TIE_TOLERANCE * last.abs().max(1.0);
    let found = exact.iter().filter(|hit| {
        normal.iter().any(|other| other.id == hit.id || (is_last(other.score) && is_last(hit.score)))
    });
    mean(std::iter::once(found.count() as f64 / exact.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(of: &[(u64, f64)]) -> Vec<Hit> {
        of.iter().map(|&(id, score)| Hit { id: PointId::Number(id), score }).collect()
    }

    #[test]
    fn recall_counts_what_was_found_and_forgives_ties_at_the_end() {
        let exact = hits(&[(1, 0.9), (2, 0.8), (3, 0.5), (4, 0.5)]);
        assert_eq!(recall(&exact, &exact), Some(1.0));
        assert_eq!(recall(&exact, &hits(&[(1, 0.9), (2, 0.8), (3, 0.5), (9, 0.5)])), Some(1.0));
        assert_eq!(recall(&exact, &hits(&[(1, 0.9), (2, 0.8), (3, 0.5), (9, 0.500_000_1)])), Some(1.0));
        assert_eq!(recall(&exact, &hits(&[(1, 0.9), (3, 0.5), (4, 0.5), (7, 0.4)])), Some(0.75));
        assert_eq!(recall(&exact, &[]), Some(0.0));
        assert_eq!(recall(&[], &exact), None);
    }

    #[test]
    fn a_newer_format_is_named_as_such() {
        let error = GoldenSet::from_json(br#"{"format_version": 2, "new": true}"#).unwrap_err();
        assert!(matches!(error, InvalidGoldenSet::NewerFormat { found: 2 }));
    }
}
