//! Calls that change points.

use super::collection::Collection;
use super::collections::updated;
use super::filter::Filter;
use super::operation::{Op, Select};
use super::reply::{ApiError, Handled, ok};
use super::request::Ctx;
use super::shard::{Point, PointId};
use super::vectors::Vector;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Points one by one, or in columns.
#[derive(Deserialize)]
struct UpsertBody {
    points: Option<Vec<PointBody>>,
    batch: Option<Batch>,
}

#[derive(Deserialize)]
struct PointBody {
    id: PointId,
    #[serde(default)]
    vector: Option<Vectors>,
    #[serde(default)]
    payload: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Batch {
    ids: Vec<PointId>,
    vectors: BatchVectors,
    #[serde(default)]
    payloads: Option<Vec<Option<Map<String, Value>>>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum BatchVectors {
    Single(Vec<Vector>),
    Named(BTreeMap<String, Vec<Vector>>),
}

/// One unnamed vector, or vectors by name.
#[derive(Deserialize)]
#[serde(untagged)]
enum Vectors {
    Single(Vector),
    Named(BTreeMap<String, Vector>),
}

impl Vectors {
    fn by_name(self) -> BTreeMap<String, Vector> {
        match self {
            Self::Single(vector) => BTreeMap::from([(String::new(), vector)]),
            Self::Named(vectors) => vectors,
        }
    }
}

pub(super) async fn upsert(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let body: UpsertBody = ctx.json().await?;
    run(&ctx, &collection, upsert_op(&collection, body)?)
}

pub(super) fn parse_upsert(collection: &Collection, body: Value) -> Result<Op, ApiError> {
    let body =
        serde_json::from_value(body).map_err(|error| ApiError::format("JSON body", error.to_string()))?;
    upsert_op(collection, body)
}

fn upsert_op(collection: &Collection, body: UpsertBody) -> Result<Op, ApiError> {
    let points = match (body.points, body.batch) {
        (Some(points), _) => points
            .into_iter()
            .map(|point| (point.id, point.vector.map(Vectors::by_name).unwrap_or_default(), point.payload))
            .collect(),
        (None, Some(batch)) => unbatch(batch)?,
        (None, None) => return Err(ApiError::format("JSON body", "Invalid PointInsertOperations format")),
    };
    let inner = collection.read();
    let max = inner.config.strict("upsert_max_batchsize").and_then(Value::as_u64);
    if let Some(max) = max.filter(|max| super::len_u64(points.len()) > *max) {
        return Err(ApiError::bad_request(format!(
            "Limit exceeded {} > {max} for \"upsert limit\". Help: Reduce the \"upsert limit\" parameter to or below {max}.",
            points.len()
        )));
    }
    let points = points
        .into_iter()
        .map(|(id, vectors, payload)| {
            let vectors = inner.prepare(vectors)?;
            Ok((id, Point { payload: payload.unwrap_or_default(), vectors, version: 0 }))
        })
        .collect::<Result<_, ApiError>>()?;
    Ok(Op::Upsert(points))
}

type Parts = (PointId, BTreeMap<String, Vector>, Option<Map<String, Value>>);

fn unbatch(batch: Batch) -> Result<Vec<Parts>, ApiError> {
    let count = batch.ids.len();
    let unequal =
        || ApiError::validation("JSON body", "batch: number of ids, vectors and payloads must be equal");
    let mut vectors: Vec<BTreeMap<String, Vector>> = vec![BTreeMap::new(); count];
    let named = match batch.vectors {
        BatchVectors::Single(all) => BTreeMap::from([(String::new(), all)]),
        BatchVectors::Named(named) => named,
    };
    for (name, all) in named {
        if all.len() != count {
            return Err(unequal());
        }
        for (slot, vector) in vectors.iter_mut().zip(all) {
            slot.insert(name.clone(), vector);
        }
    }
    let payloads = batch.payloads.unwrap_or_else(|| vec![None; count]);
    if payloads.len() != count {
        return Err(unequal());
    }
    Ok(batch
        .ids
        .into_iter()
        .zip(vectors)
        .zip(payloads)
        .map(|((id, vectors), payload)| (id, vectors, payload))
        .collect())
}

/// The two ways to say which points.
#[derive(Deserialize)]
struct Selector {
    #[serde(default)]
    points: Option<Vec<PointId>>,
    #[serde(default)]
    filter: Option<Filter>,
}

impl Selector {
    fn select(self) -> Result<Select, ApiError> {
        match (self.points, self.filter) {
            (Some(ids), _) => Ok(Select::Ids(ids)),
            (None, Some(filter)) => Ok(Select::Filter(filter)),
            (None, None) => Err(ApiError::format(
                "JSON body",
                "data did not match any variant of untagged enum PointsSelector",
            )),
        }
    }
}

pub(super) async fn delete(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let selector: Selector = ctx.json().await?;
    run(&ctx, &collection, Op::Delete(selector.select()?))
}

#[derive(Deserialize)]
struct PayloadBody {
    payload: Map<String, Value>,
    #[serde(default)]
    key: Option<String>,
    #[serde(flatten)]
    selector: Selector,
}

pub(super) async fn set_payload(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let body: PayloadBody = ctx.json().await?;
    let op = Op::SetPayload { select: body.selector.select()?, payload: body.payload, key: body.key };
    run(&ctx, &collection, op)
}

pub(super) async fn overwrite_payload(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let body: PayloadBody = ctx.json().await?;
    let op = Op::OverwritePayload { select: body.selector.select()?, payload: body.payload };
    run(&ctx, &collection, op)
}

#[derive(Deserialize)]
struct KeysBody {
    keys: Vec<String>,
    #[serde(flatten)]
    selector: Selector,
}

pub(super) async fn delete_payload(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let body: KeysBody = ctx.json().await?;
    run(&ctx, &collection, Op::DeletePayload { select: body.selector.select()?, keys: body.keys })
}

pub(super) async fn clear_payload(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let selector: Selector = ctx.json().await?;
    run(&ctx, &collection, Op::ClearPayload(selector.select()?))
}

#[derive(Deserialize)]
struct VectorsBody {
    points: Vec<PointVectors>,
}

#[derive(Deserialize)]
struct PointVectors {
    id: PointId,
    vector: Vectors,
}

pub(super) async fn update_vectors(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let body: VectorsBody = ctx.json().await?;
    let inner = collection.read();
    let points = body
        .points
        .into_iter()
        .map(|point| Ok((point.id, inner.prepare(point.vector.by_name())?)))
        .collect::<Result<_, ApiError>>()?;
    drop(inner);
    run(&ctx, &collection, Op::UpdateVectors(points))
}

#[derive(Deserialize)]
struct VectorNames {
    #[serde(rename = "vector")]
    names: Vec<String>,
    #[serde(flatten)]
    selector: Selector,
}

pub(super) async fn delete_vectors(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let body: VectorNames = ctx.json().await?;
    run(&ctx, &collection, Op::DeleteVectors { select: body.selector.select()?, names: body.names })
}

fn run(ctx: &Ctx, collection: &Arc<Collection>, op: Op) -> Handled {
    let wait = ctx.flag("wait", false)?;
    let (number, done) = ctx.node.update(collection, op, wait)?;
    ok(&updated(number, done))
}
