//! The recorded searches: made when the backup is recorded, and made again when a restore is proved.

use std::{collections::BTreeMap, time::Duration};

use protocol::{
    CollectionName, PointId,
    golden::{self, EXACT_SEARCH_MAX_BYTES, GoldenSearch, Hit, SEARCH_LIMIT, SEARCHES_PER_VECTOR},
    verdict::{SCORE_TOLERANCE, SearchObservation},
};
use serde_json::Value;
use tokio::time::Instant;

use super::sample::vectors;
use crate::qdrant::{Client, CollectionInfo, Error, Point, Search};

/// Recording the searches of one collection takes no new search after this long: a backup does not wait for a slow disk.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// What was recorded.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    pub(super) searches: Vec<GoldenSearch>,
    /// Why nothing was searched, when nothing was.
    pub(super) not_searched: Option<String>,
}

/// Searches by the vectors of some of the points. Each is confined to `points` unless `whole` is true and few enough bytes are to be read.
pub(super) async fn record(
    client: &Client,
    collection: &CollectionName,
    info: &CollectionInfo,
    points: &[Point],
    total: u64,
    whole: bool,
) -> Result<Recorded, Error> {
    let started = Instant::now();
    let ids: Vec<PointId> = points.iter().map(|point| point.id).collect();
    let limit = info.max_query_limit().unwrap_or(SEARCH_LIMIT).clamp(1, SEARCH_LIMIT);
    let mut searches = Vec::new();
    let mut reasons = Vec::new();
    let by_vector = by_vector(points);
    if by_vector.is_empty() {
        reasons.push("no sampled point has a vector".to_owned());
    }
    'vectors: for (using, queries) in &by_vector {
        if info.weighs_by_frequency(using) {
            // Deleted points count until segments are rebuilt, so that equal data may score differently.
            reasons.push(format!(
                "the scores of vector `{using}` depend on term frequencies, which optimizing changes"
            ));
            continue;
        }
        let usable: Vec<&(PointId, &Value)> = queries.iter().filter(|(_, query)| !is_zero(query)).collect();
        if usable.is_empty() {
            reasons.push(format!("every sampled vector `{using}` is zero"));
        }
        let mut confined = !whole || bytes_of_all(queries, points.len(), total) > EXACT_SEARCH_MAX_BYTES;
        for &&(point, query) in evenly(&usable, SEARCHES_PER_VECTOR) {
            if started.elapsed() > TIME_LIMIT {
                reasons.push(format!("searching took more than {} s", TIME_LIMIT.as_secs()));
                break 'vectors;
            }
            let hits = loop {
                let among = confined.then_some(ids.as_slice());
                match client.search(collection, &Search { using, query, limit, exact: true, among }).await {
                    Ok(hits) => break hits,
                    Err(error) if error.is_timeout() && !confined => confined = true,
                    Err(error) => {
                        reasons.push(excuse(error)?);
                        continue 'vectors;
                    }
                }
            };
            let mut search = GoldenSearch {
                using: (*using).to_owned(),
                point,
                query: query.clone(),
                limit,
                confined,
                hits,
                recall: None,
            };
            search.recall = normal(client, collection, &search, &search.hits).await?;
            searches.push(search);
        }
    }
    if !searches.is_empty() && !reasons.is_empty() {
        tracing::info!(%collection, ?reasons, "not every vector was searched");
    }
    let not_searched = searches.is_empty().then(|| reasons.join("; "));
    Ok(Recorded { searches, not_searched })
}

/// Makes a recorded search again. `ids` are the recorded points, to which a confined search is confined.
pub(crate) async fn again(
    client: &Client,
    collection: &CollectionName,
    search: &GoldenSearch,
    ids: &[PointId],
) -> Result<SearchObservation, Error> {
    let exact = Search {
        using: &search.using,
        query: &search.query,
        limit: search.limit,
        exact: true,
        among: search.confined.then_some(ids),
    };
    let hits = match client.search(collection, &exact).await {
        Ok(hits) => hits,
        // A search that takes too long is not excused here: it would prove nothing and look as if it did.
        Err(error) => match error.refusal() {
            Some(reason) => return Ok(SearchObservation::NotSearched { reason: reason.to_owned() }),
            None => return Err(error),
        },
    };
    let recall = match search.recall {
        Some(_) => normal(client, collection, search, &hits).await?,
        None => None,
    };
    Ok(SearchObservation::Answered { hits, recall })
}

/// The recall of the normal search over the whole collection; `None` when that search is not possible.
async fn normal(
    client: &Client,
    collection: &CollectionName,
    search: &GoldenSearch,
    exact: &[Hit],
) -> Result<Option<f64>, Error> {
    let normal =
        Search { using: &search.using, query: &search.query, limit: search.limit, exact: false, among: None };
    let found = match client.search(collection, &normal).await {
        Ok(found) => found,
        Err(error) => {
            excuse(error)?;
            return Ok(None);
        }
    };
    if !search.confined {
        return Ok(golden::recall(exact, &found));
    }
    // Other points with the very same vector are as good an answer as the query's own point.
    let own = exact.iter().find(|hit| hit.id == search.point).map(|hit| hit.score);
    let is_own = |hit: &Hit| {
        hit.id == search.point
            || own.is_some_and(|own| (hit.score - own).abs() <= SCORE_TOLERANCE * own.abs())
    };
    Ok(Some(if found.iter().any(is_own) { 1.0 } else { 0.0 }))
}

/// Why a search may go unmade; any other failure is one.
fn excuse(error: Error) -> Result<String, Error> {
    if error.is_timeout() {
        return Ok("a search took too long".to_owned());
    }
    match error.refusal() {
        Some(reason) => Ok(reason.to_owned()),
        None => Err(error),
    }
}

/// The vectors of the points by name, in the order of the points.
fn by_vector(points: &[Point]) -> BTreeMap<&str, Vec<(PointId, &Value)>> {
    let mut all: BTreeMap<&str, Vec<(PointId, &Value)>> = BTreeMap::new();
    for point in points {
        for (name, vector) in vectors(point) {
            all.entry(name).or_default().push((point.id, vector));
        }
    }
    all
}

/// Up to `count` items, spread evenly.
fn evenly<T>(items: &[T], count: usize) -> impl Iterator<Item = &T> {
    let taken = items.len().min(count);
    (0..taken).filter_map(move |number| items.get(number * items.len() / taken))
}

/// About how many bytes a search of every vector reads: as the sampled points have, per point, times all points.
fn bytes_of_all(sampled: &[(PointId, &Value)], points: usize, total: u64) -> u64 {
    let bytes: u64 = sampled.iter().map(|(_, vector)| numbers(vector) * 4).sum();
    // Rounded up: a collection that is too large by a little is searched confined, which is safe.
    bytes.saturating_mul(total).div_ceil(u64::try_from(points).unwrap_or(u64::MAX).max(1))
}

/// The numbers in a vector of any shape.
fn numbers(vector: &Value) -> u64 {
    match vector {
        Value::Number(_) => 1,
        Value::Array(values) => values.iter().map(numbers).sum(),
        Value::Object(fields) => fields.values().map(numbers).sum(),
        Value::Null | Value::Bool(_) | Value::String(_) => 0,
    }
}

/// Whether a vector points nowhere: a search by it has no order.
fn is_zero(vector: &Value) -> bool {
    match vector {
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Array(values) => values.iter().all(is_zero),
        Value::Object(fields) => fields.get("values").is_none_or(is_zero),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn zero_vectors_of_every_shape_are_seen() {
        for zero in [
            json!([]),
            json!([0.0, -0.0]),
            json!([[0.0], [0]]),
            json!({"indices": [], "values": []}),
            json!({"indices": [7], "values": [0.0]}),
        ] {
            assert!(is_zero(&zero), "{zero}");
        }
        for vector in [json!([0.0, 0.1]), json!([[0.0], [1.0]]), json!({"indices": [0], "values": [0.5]})] {
            assert!(!is_zero(&vector), "{vector}");
        }
    }

    #[test]
    fn the_bytes_of_a_collection_are_estimated_from_the_sample() {
        let dense = json!([1.0, 2.0, 3.0]);
        let sparse = json!({"indices": [1, 2], "values": [0.5, 0.5]});
        let of = |vectors: &[&Value], points, total| {
            let sampled: Vec<(PointId, &Value)> = vectors.iter().map(|v| (PointId::Number(1), *v)).collect();
            bytes_of_all(&sampled, points, total)
        };
        assert_eq!(of(&[&dense, &dense], 2, 1000), 12_000);
        assert_eq!(of(&[&dense], 2, 1000), 6_000, "every other point has it");
        assert_eq!(of(&[&sparse], 1, 10), 160);
        assert_eq!(of(&[], 0, u64::MAX), 0);
        assert_eq!(of(&[&dense], 1, u64::MAX), u64::MAX, "no overflow");
    }

    #[test]
    fn queries_are_spread_over_the_sample() {
        let items: Vec<usize> = (0..20).collect();
        assert_eq!(evenly(&items, 4).copied().collect::<Vec<_>>(), [0, 5, 10, 15]);
        assert_eq!(evenly(&items[..3], 8).copied().collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(evenly(&items[..0], 8).count(), 0);
    }
}
