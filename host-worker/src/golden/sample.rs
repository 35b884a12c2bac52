//! The sampled points and their digests.

use std::collections::{BTreeMap, BTreeSet};

use protocol::{
    CollectionName, PointId, digest,
    golden::{PointDigest, SAMPLE_POINTS},
};
use serde_json::Value;

use crate::qdrant::{Client, CollectionInfo, Error, Point};

/// Points read at once: large payloads and many vectors must fit into one answer.
const BATCH: usize = 16;
/// Random samples taken at most, where strict mode allows only small ones.
const SAMPLING_ROUNDS: usize = 32;

/// Points of a collection as they were before its snapshot was taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    collection: CollectionName,
    digests: BTreeMap<PointId, PointDigest>,
    indexed_vectors: Option<u64>,
}

impl Sample {
    /// Draws random points and reads them. To be called before the first snapshot.
    pub async fn take(client: &Client, collection: &CollectionName) -> Result<Self, Error> {
        let info = client.collection(collection).await?;
        let ids = draw(client, collection, &info).await?;
        let points = read(client, collection, &ids).await?;
        let digests = points.iter().filter_map(|point| Some((point.id, digest_of(point)?))).collect();
        Ok(Self { collection: collection.clone(), digests, indexed_vectors: info.indexed_vectors_count })
    }

    /// The collection.
    pub fn collection(&self) -> &CollectionName {
        &self.collection
    }

    /// The sampled ids, sorted.
    pub fn ids(&self) -> Vec<PointId> {
        self.digests.keys().copied().collect()
    }

    /// Those of `ids` that are still as they were when the sample was taken, sorted by id.
    pub(super) async fn unchanged(&self, client: &Client, ids: &[PointId]) -> Result<Vec<Point>, Error> {
        let mut points = read(client, &self.collection, ids).await?;
        points.retain(|point| digest_of(point).is_some_and(|now| self.digests.get(&point.id) == Some(&now)));
        points.sort_by_key(|point| point.id);
        Ok(points)
    }

    /// How many vectors were in an index when the sample was taken.
    pub(super) fn indexed_vectors(&self) -> Option<u64> {
        self.indexed_vectors
    }

    /// The digest that was recorded of a sampled point.
    pub(super) fn digest(&self, id: PointId) -> Option<&PointDigest> {
        self.digests.get(&id)
    }
}

/// Random ids; where random ones are refused, the first ones.
async fn draw(
    client: &Client,
    collection: &CollectionName,
    info: &CollectionInfo,
) -> Result<Vec<PointId>, Error> {
    let limit = info.max_query_limit().unwrap_or(SAMPLE_POINTS).clamp(1, SAMPLE_POINTS);
    let mut ids = BTreeSet::new();
    for _ in 0..SAMPLE_POINTS.div_ceil(limit).min(SAMPLING_ROUNDS) {
        match client.sample(collection, limit).await {
            Ok(drawn) => {
                let all = drawn.len() < limit;
                ids.extend(drawn);
                if all {
                    break;
                }
            }
            Err(error) if error.refusal().is_some() => {
                tracing::debug!(%collection, %error, "random points are refused; taking the first ones");
                first(client, collection, limit, &mut ids).await?;
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(ids.into_iter().take(SAMPLE_POINTS).collect())
}

async fn first(
    client: &Client,
    collection: &CollectionName,
    limit: usize,
    ids: &mut BTreeSet<PointId>,
) -> Result<(), Error> {
    let mut offset = None;
    for _ in 0..SAMPLE_POINTS.div_ceil(limit).min(SAMPLING_ROUNDS) {
        match client.scroll(collection, offset, limit).await {
            Ok((page, next)) => {
                ids.extend(page);
                offset = next;
            }
            Err(error) if error.refusal().is_some() => {
                tracing::warn!(%collection, %error, "listing points is refused; fewer are sampled");
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        if offset.is_none() {
            break;
        }
    }
    Ok(())
}

/// The points of these ids that are there.
pub(crate) async fn read(
    client: &Client,
    collection: &CollectionName,
    ids: &[PointId],
) -> Result<Vec<Point>, Error> {
    let mut points = Vec::with_capacity(ids.len());
    for batch in ids.chunks(BATCH) {
        points.extend(client.retrieve(collection, batch).await?);
    }
    Ok(points)
}

/// The digests of a point, or `None` when it has a vector of an unknown shape.
pub(crate) fn digest_of(point: &Point) -> Option<PointDigest> {
    let Some(vectors) = digest::vectors(&point.vector) else {
        tracing::warn!(point = %point.id, "a vector has a shape that this program does not know; left out");
        return None;
    };
    let sketches = digest::sketches(&point.vector);
    Some(PointDigest { id: point.id, payload: digest::payload(&point.payload), vectors, sketches })
}

/// The vectors of a point by name; the default vector's name is empty.
pub(super) fn vectors(point: &Point) -> Vec<(&str, &Value)> {
    match &point.vector {
        Value::Array(_) => vec![("", &point.vector)],
        Value::Object(named) => named.iter().map(|(name, vector)| (name.as_str(), vector)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}
