//! Searches. An exact one reads every vector in `f32`; any other one overlooks a few points, always the same ones.

use super::collection::Inner;
use super::faults::Faults;
use super::filter::Filter;
use super::mix;
use super::read::{ShownVectors, WithPayload, WithVector};
use super::reply::{ApiError, Handled, ok};
use super::request::Ctx;
use super::shard::{Point, PointId};
use super::vectors::{Vector, VectorSpec, similarity};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Below this many points an HNSW search has nothing to gain: the server scans all, and finds all.
const FULL_SCAN_POINTS: usize = 1_000;
/// Of 1,000 points an HNSW search with the default `ef` does not reach this many.
const OVERLOOKED_PER_MILLE: u64 = 12;
/// `hnsw_ef` from which on nothing is overlooked.
const EF_FINDS_ALL: u64 = 512;

/// The score of points that are not ranked; their version is not told either.
const UNRANKED: f32 = 1.0;

#[derive(Clone, Debug, Default, Deserialize)]
struct Params {
    exact: Option<bool>,
    hnsw_ef: Option<u64>,
}

#[derive(Clone, Debug, Deserialize)]
struct QueryBody {
    query: Option<Value>,
    prefetch: Option<Value>,
    using: Option<String>,
    filter: Option<Filter>,
    params: Option<Params>,
    score_threshold: Option<f32>,
    limit: Option<usize>,
    offset: Option<usize>,
    with_payload: Option<WithPayload>,
    #[serde(alias = "with_vectors")]
    with_vector: Option<WithVector>,
}

/// The former search call: the vector is in `vector`, perhaps with its name.
#[derive(Clone, Debug, Deserialize)]
struct SearchBody {
    vector: SearchVector,
    #[serde(flatten)]
    rest: QueryBody,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum SearchVector {
    Named { name: String, vector: Value },
    Bare(Value),
}

#[derive(Serialize)]
struct Scored<'a> {
    id: PointId,
    version: u64,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<ShownVectors<'a>>,
}

pub(super) async fn query(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let body: QueryBody = ctx.json().await?;
    if matches!(Query::parse(body.query.as_ref())?, Query::Nearest(_)) {
        suffer(&ctx.node.faults).await?;
    }
    let inner = collection.read();
    let found = run(&inner, &body)?;
    ok(&json_points(found))
}

/// What is scripted for searches.
async fn suffer(faults: &Faults) -> Result<(), ApiError> {
    if faults.search_forbidden() {
        return Err(ApiError::bad_request("Search is not allowed!. Help: Ask whoever runs this server."));
    }
    if let Some(takes) = faults.search_slow() {
        tokio::time::sleep(takes).await;
    }
    Ok(())
}

#[derive(Serialize)]
struct Found<'a> {
    points: Vec<Scored<'a>>,
}

fn json_points(points: Vec<Scored<'_>>) -> Found<'_> {
    Found { points }
}

#[derive(Deserialize)]
struct Batch<T> {
    searches: Vec<T>,
}

pub(super) async fn query_batch(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let body: Batch<QueryBody> = ctx.json().await?;
    let inner = collection.read();
    let found: Vec<Found<'_>> =
        body.searches.iter().map(|one| run(&inner, one).map(json_points)).collect::<Result<_, _>>()?;
    ok(&found)
}

pub(super) async fn search(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let body: SearchBody = ctx.json().await?;
    let inner = collection.read();
    ok(&run(&inner, &as_query(body))?)
}

pub(super) async fn search_batch(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let body: Batch<SearchBody> = ctx.json().await?;
    let inner = collection.read();
    let queries: Vec<QueryBody> = body.searches.into_iter().map(as_query).collect();
    let found: Vec<Vec<Scored<'_>>> = queries.iter().map(|one| run(&inner, one)).collect::<Result<_, _>>()?;
    ok(&found)
}

fn as_query(body: SearchBody) -> QueryBody {
    let mut query = body.rest;
    match body.vector {
        SearchVector::Named { name, vector } => {
            query.using = Some(name);
            query.query = Some(vector);
        }
        SearchVector::Bare(vector) => query.query = Some(vector),
    }
    query
}

fn run<'a>(inner: &'a Inner, body: &QueryBody) -> Result<Vec<Scored<'a>>, ApiError> {
    let params = body.params.clone().unwrap_or_default();
    let exact = params.exact.unwrap_or(false);
    if exact && inner.config.strict("search_allow_exact") == Some(&Value::Bool(false)) {
        return Err(ApiError::bad_request("Exact search disabled!. Help: Set exact=false."));
    }
    if body.prefetch.as_ref().is_some_and(|prefetch| !prefetch.is_null()) {
        return Err(ApiError::bad_request("prefetch is not supported by this stand-in"));
    }
    let limit = body.limit.unwrap_or(10);
    if limit == 0 {
        return Err(ApiError::validation("JSON body", "limit: value 0 invalid, must be 1 or larger"));
    }
    inner.check_limit(limit)?;
    let points = &inner.shard("query")?.points;
    let filter = body.filter.clone().unwrap_or_default();
    let using = body.using.clone().unwrap_or_default();
    let query = Query::parse(body.query.as_ref())?;
    let ranks = matches!(query, Query::Nearest(_));
    let mut ranked = match query {
        Query::All => candidates(points, &filter).map(|(id, point)| (id, point, UNRANKED)).collect(),
        Query::Random => random(points, &filter),
        Query::Nearest(Near::Vector(vector)) => {
            let vector = inner.spec(&using)?.prepare(vector)?;
            let sees = Sight::new(exact, params.hnsw_ef, points.len());
            nearest(inner, &using, &vector, candidates(points, &filter), sees, body.score_threshold)?
        }
        Query::Nearest(Near::Point(id)) => {
            let vector = points
                .get(&id)
                .and_then(|point| point.vectors.get(&using))
                .ok_or_else(|| ApiError::not_found(format!("No point with id {id} found")))?;
            let sees = Sight::new(exact, params.hnsw_ef, points.len());
            let others = candidates(points, &filter).filter(|(other, _)| *other != id);
            nearest(inner, &using, vector, others, sees, body.score_threshold)?
        }
    };
    let offset = body.offset.unwrap_or(0);
    ranked.truncate(offset.saturating_add(limit));
    Ok(ranked
        .into_iter()
        .skip(offset)
        .map(|(id, point, score)| Scored {
            id,
            version: if ranks { point.version } else { 0 },
            score,
            payload: body.with_payload.as_ref().and_then(|with| with.of(point)),
            vector: body.with_vector.as_ref().and_then(|with| with.of(point)),
        })
        .collect())
}

enum Query {
    /// No query: points in the order of their ids.
    All,
    Random,
    Nearest(Near),
}

enum Near {
    Vector(Vector),
    Point(PointId),
}

impl Query {
    fn parse(query: Option<&Value>) -> Result<Self, ApiError> {
        let Some(query) = query.filter(|query| !query.is_null()) else {
            return Ok(Self::All);
        };
        if let Some(near) = query.get("nearest") {
            return Near::parse(near).map(Self::Nearest);
        }
        match query.get("sample") {
            Some(sample) if sample == "random" => Ok(Self::Random),
            Some(_) => Err(no_query()),
            None => Near::parse(query).map(Self::Nearest),
        }
    }
}

impl Near {
    fn parse(value: &Value) -> Result<Self, ApiError> {
        if let Some(id) = PointId::parse(value) {
            return Ok(Self::Point(id));
        }
        serde_json::from_value(value.clone())
            .map(Self::Vector)
            .map_err(|_untold: serde_json::Error| no_query())
    }
}

fn no_query() -> ApiError {
    ApiError::format("JSON body", "Expected some form of vector, id, or a type of query")
}

/// Which points a search can reach.
#[derive(Clone, Copy)]
struct Sight {
    overlooked_per_mille: u64,
}

impl Sight {
    fn new(exact: bool, ef: Option<u64>, points: usize) -> Self {
        let finds_all = exact || points <= FULL_SCAN_POINTS || ef.is_some_and(|ef| ef >= EF_FINDS_ALL);
        Self { overlooked_per_mille: if finds_all { 0 } else { OVERLOOKED_PER_MILLE } }
    }

    /// Depends on the point's id alone: a restored collection overlooks the same ones.
    fn reaches(self, id: PointId) -> bool {
        id.seed() % 1_000 >= self.overlooked_per_mille
    }
}

type Ranked<'a> = Vec<(PointId, &'a Point, f32)>;

fn candidates<'a: 'f, 'f>(
    points: &'a BTreeMap<PointId, Point>,
    filter: &'f Filter,
) -> Box<dyn Iterator<Item = (PointId, &'a Point)> + 'f> {
    match filter.required_ids() {
        Some(ids) => Box::new(
            ids.iter()
                .filter_map(|id| points.get(id).map(|point| (*id, point)))
                .filter(|(id, point)| filter.matches(*id, point)),
        ),
        None => Box::new(
            points.iter().map(|(id, point)| (*id, point)).filter(|(id, point)| filter.matches(*id, point)),
        ),
    }
}

fn random<'a>(points: &'a BTreeMap<PointId, Point>, filter: &Filter) -> Ranked<'a> {
    let salt = sample_salt();
    let mut all: Ranked<'a> = points
        .iter()
        .filter(|(id, point)| filter.matches(**id, point))
        .map(|(id, point)| (*id, point, UNRANKED))
        .collect();
    all.sort_by_key(|(id, _, _)| mix(id.seed() ^ salt));
    all
}

/// Another sample every time, as there.
fn sample_salt() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static SAMPLES: AtomicU64 = AtomicU64::new(0);
    mix(SAMPLES.fetch_add(1, Ordering::Relaxed))
}

fn nearest<'a>(
    inner: &Inner,
    using: &str,
    query: &Vector,
    candidates: impl Iterator<Item = (PointId, &'a Point)>,
    sight: Sight,
    threshold: Option<f32>,
) -> Result<Ranked<'a>, ApiError> {
    let spec = inner.spec(using)?;
    let weights = idf_weights(inner, spec, using, query)?;
    let idf = |index: u32| weights.get(&index).copied().unwrap_or(1.0);
    let sparse = matches!(spec, VectorSpec::Sparse { .. });
    let mut scored: Vec<(PointId, &Point, f32)> = candidates
        .filter(|(id, _)| sparse || sight.reaches(*id))
        .filter_map(|(id, point)| {
            let stored = point.vectors.get(using)?;
            similarity(spec, query, stored, &idf).map(|similarity| (id, point, similarity))
        })
        .collect();
    scored.sort_by(|(a_id, _, a), (b_id, _, b)| {
        b.partial_cmp(a).unwrap_or(Ordering::Equal).then_with(|| a_id.cmp(b_id))
    });
    let distance = spec.distance();
    Ok(scored
        .into_iter()
        .map(|(id, point, similarity)| (id, point, distance.score(similarity)))
        .filter(|(_, _, score)| threshold.is_none_or(|threshold| distance.passes(*score, threshold)))
        .collect())
}

/// `ln((N - n + 0.5) / (n + 0.5) + 1)` for the indices of the query, when the vector has the `idf` modifier.
fn idf_weights(
    inner: &Inner,
    spec: VectorSpec,
    using: &str,
    query: &Vector,
) -> Result<BTreeMap<u32, f32>, ApiError> {
    let (VectorSpec::Sparse { idf: true }, Vector::Sparse(query)) = (spec, query) else {
        return Ok(BTreeMap::new());
    };
    let points = &inner.shard("query")?.points;
    let stored: Vec<&Vec<u32>> = points
        .values()
        .filter_map(|point| match point.vectors.get(using) {
            Some(Vector::Sparse(sparse)) => Some(&sparse.indices),
            Some(Vector::Dense(_) | Vector::Multi(_)) | None => None,
        })
        .collect();
    let total = to_f32(stored.len());
    Ok(query
        .indices
        .iter()
        .map(|index| {
            let with = to_f32(stored.iter().filter(|indices| indices.binary_search(index).is_ok()).count());
            (*index, ((total - with + 0.5) / (with + 0.5) + 1.0).ln())
        })
        .collect())
}

/// Counts of documents are small: 16 million are still exact.
fn to_f32(count: usize) -> f32 {
    u16::try_from(count).map_or_else(
        |_| {
            let high = u16::try_from(count / 65_536).unwrap_or(u16::MAX);
            let low = u16::try_from(count % 65_536).unwrap_or(u16::MAX);
            f32::from(high) * 65_536.0 + f32::from(low)
        },
        f32::from,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn queries_come_in_many_forms() {
        let cases = [
            (json!(null), "all"),
            (json!({ "sample": "random" }), "random"),
            (json!([0.5, 1]), "vector"),
            (json!([[0.5], [1]]), "vector"),
            (json!({ "indices": [1], "values": [2.0] }), "vector"),
            (json!({ "nearest": [1.0] }), "vector"),
            (json!({ "nearest": { "indices": [1], "values": [2.0] } }), "vector"),
            (json!(17), "point"),
            (json!("c37c2d4e-0000-4000-8000-000000000000"), "point"),
        ];
        for (query, expected) in cases {
            let kind = match Query::parse(Some(&query)).unwrap() {
                Query::All => "all",
                Query::Random => "random",
                Query::Nearest(Near::Vector(_)) => "vector",
                Query::Nearest(Near::Point(_)) => "point",
            };
            assert_eq!(kind, expected, "{query}");
        }
        assert!(Query::parse(Some(&json!({ "fusion": "rrf" }))).is_err());
    }

    #[test]
    fn an_approximate_search_overlooks_a_few_points_and_always_the_same() {
        let sight = Sight::new(false, None, 10_000);
        let missed: Vec<u64> = (0..10_000).filter(|id| !sight.reaches(PointId::Num(*id))).collect();
        assert!((50..250).contains(&missed.len()), "{}", missed.len());
        assert!(Sight::new(true, None, 10_000).reaches(PointId::Num(missed[0])));
        assert!(Sight::new(false, Some(512), 10_000).reaches(PointId::Num(missed[0])));
    }
}
