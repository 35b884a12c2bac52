//! Finishing the record after the last snapshot.

use protocol::{CollectionName, PointId, golden::CollectionGolden};

use super::{sample::Sample, search};
use crate::{
    qdrant::{Client, Error, Point, WriteCounters},
    state::{Change, CollectionState, State},
};

/// How often searches are made over when points change meanwhile.
const ROUNDS: usize = 3;

/// What is known of a collection before the first and after the last snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    before: &'a CollectionState,
    after: &'a CollectionState,
    writes_after: &'a WriteCounters,
    started: Option<&'a str>,
    written: bool,
}

impl<'a> Reference<'a> {
    /// The reference for one collection; `None` when it is not in both states. `change` is their comparison.
    pub fn of(name: &CollectionName, before: &'a State, after: &'a State, change: &Change) -> Option<Self> {
        Some(Self {
            before: before.collections.get(name)?,
            after: after.collections.get(name)?,
            writes_after: &after.writes,
            started: after.started.as_deref(),
            written: change.written.contains(name),
        })
    }

    /// Whether nothing was written to the collection since the state after the snapshots was read.
    async fn still_holds(&self, client: &Client, name: &CollectionName) -> Result<bool, Error> {
        let telemetry = client.telemetry().await?;
        if telemetry.started.as_deref() != self.started {
            return Ok(false);
        }
        let number = telemetry.operation_numbers.get(name.as_str()).copied();
        if number.is_none() && client.metrics().await?.writes != *self.writes_after {
            return Ok(false);
        }
        Ok(number == self.after.op_num)
    }
}

/// Completes the record of a collection. To be called after the last snapshot.
///
/// Sampled points that changed or went away since [`Sample::take`] are listed as changed. When the collection is being written to, searches
/// are confined to the points that stood still, and dropped when even those do not stand still long enough.
pub async fn finish(
    client: &Client,
    sample: Sample,
    reference: Reference<'_>,
) -> Result<CollectionGolden, Error> {
    let name = sample.collection().clone();
    let info = client.collection(&name).await?;
    let mut points = sample.unchanged(client, &sample.ids()).await?;
    let mut written = reference.written || points.len() < sample.ids().len();
    let mut recorded = search::Recorded::default();
    for round in 1..=ROUNDS {
        if points.is_empty() {
            let reason =
                if sample.ids().is_empty() { "there are no points" } else { "every sampled point changed" };
            recorded = search::Recorded { searches: Vec::new(), not_searched: Some(reason.to_owned()) };
            break;
        }
        recorded = search::record(client, &name, &info, &points, reference.after.count, !written).await?;
        if !written && reference.still_holds(client, &name).await? {
            break;
        }
        written = true;
        let again = sample.unchanged(client, &ids(&points)).await?;
        let stood_still = again.len() == points.len();
        if stood_still && recorded.searches.iter().all(|search| search.confined) {
            break;
        }
        points = again;
        if round == ROUNDS {
            let reason = format!("points kept changing while searches were recorded, {ROUNDS} times");
            recorded = search::Recorded { searches: Vec::new(), not_searched: Some(reason) };
        }
    }
    // Points that are written leave the indexed segments for a while: what the snapshot holds is then anybody's guess.
    let indexed_vectors =
        if written { None } else { sample.indexed_vectors().min(info.indexed_vectors_count) };
    let kept = ids(&points);
    let (count_before, count_after) = (reference.before.count, reference.after.count);
    Ok(CollectionGolden {
        points_min: count_before.min(count_after),
        points_max: count_before.max(count_after),
        config: reference.after.config.clone(),
        payload_schema: reference.after.payload_schema.clone(),
        points: kept.iter().filter_map(|id| sample.digest(*id).cloned()).collect(),
        changed: sample.ids().into_iter().filter(|id| kept.binary_search(id).is_err()).collect(),
        searches: recorded.searches,
        not_searched: recorded.not_searched,
        indexed_vectors,
        name,
    })
}

fn ids(points: &[Point]) -> Vec<PointId> {
    points.iter().map(|point| point.id).collect()
}
