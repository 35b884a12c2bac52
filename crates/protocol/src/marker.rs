//! The indexing job's success marker (`docs/clients.md`): written when a batch is done and nothing is in flight.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::CollectionName;

/// What the indexing job states when a batch is done: every write of it was acknowledged with `wait=true`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SuccessMarker {
    /// The batch, in the job's own terms. Backups compare batches by this and never by clock.
    pub batch_id: String,
    /// When the last write of the batch was acknowledged.
    pub finished_at: Timestamp,
    /// The exact number of points that each collection must now hold, where the job knows it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, u64>")]
    pub expected_counts: BTreeMap<CollectionName, u64>,
    /// How point ids were made; [`crate::point_id::SCHEME`] for the helper of this crate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id_scheme: Option<String>,
}

impl SuccessMarker {
    /// Reads a marker. The error says what is wrong with it.
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidMarker> {
        let marker: Self = serde_json::from_slice(bytes).map_err(|source| InvalidMarker::Json { source })?;
        if marker.batch_id.trim().is_empty() {
            return Err(InvalidMarker::NoBatch);
        }
        Ok(marker)
    }
}

/// The success marker cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum InvalidMarker {
    /// It is not the JSON that `docs/clients.md` describes.
    #[error("the success marker is not the JSON that docs/clients.md describes")]
    Json {
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// Its batch id is empty, so that no two batches could be told apart.
    #[error("the success marker's `batch_id` is empty")]
    NoBatch,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_needs_a_batch_and_a_time() {
        let marker =
            SuccessMarker::from_json(br#"{"batch_id":"b7","finished_at":"2026-11-23T05:14:00Z","later":1}"#)
                .unwrap();
        assert_eq!(marker.batch_id, "b7");
        assert!(marker.expected_counts.is_empty());
        for bad in
            ["", "{}", r#"{"batch_id":"b7"}"#, r#"{"batch_id":" ","finished_at":"2026-11-23T05:14:00Z"}"#]
        {
            assert!(SuccessMarker::from_json(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
