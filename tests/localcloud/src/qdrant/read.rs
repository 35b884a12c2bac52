//! Calls that read points by id or in order: retrieve, scroll, count.

use super::filter::Filter;
use super::reply::{ApiError, Handled, ok};
use super::request::Ctx;
use super::shard::{Point, PointId};
use super::vectors::Vector;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// `true`, a list of names, or for payloads `{"include": […]}` and `{"exclude": […]}`.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum WithPayload {
    All(bool),
    Keys(Vec<String>),
    Include { include: Vec<String> },
    Exclude { exclude: Vec<String> },
}

impl WithPayload {
    pub(super) fn of(&self, point: &Point) -> Option<Map<String, Value>> {
        let only = |keep: &dyn Fn(&String) -> bool| {
            Some(
                point
                    .payload
                    .iter()
                    .filter(|(key, _)| keep(key))
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect(),
            )
        };
        match self {
            Self::All(false) => None,
            Self::All(true) => Some(point.payload.clone()),
            Self::Keys(keys) | Self::Include { include: keys } => only(&|key| keys.contains(key)),
            Self::Exclude { exclude } => only(&|key| !exclude.contains(key)),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum WithVector {
    All(bool),
    Names(Vec<String>),
}

impl WithVector {
    pub(super) fn of<'a>(&self, point: &'a Point) -> Option<ShownVectors<'a>> {
        let shown: BTreeMap<&str, &Vector> = match self {
            Self::All(false) => return None,
            Self::All(true) => point.vectors.iter().map(|(name, vector)| (name.as_str(), vector)).collect(),
            Self::Names(names) => point
                .vectors
                .iter()
                .filter(|(name, _)| names.contains(name))
                .map(|(name, vector)| (name.as_str(), vector))
                .collect(),
        };
        Some(match (shown.len(), shown.get("")) {
            (1, Some(single)) => ShownVectors::Single(single),
            (_, Some(_) | None) => ShownVectors::Named(shown),
        })
    }
}

/// A lone unnamed vector is shown bare, all others by name.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum ShownVectors<'a> {
    Single(&'a Vector),
    Named(BTreeMap<&'a str, &'a Vector>),
}

#[derive(Debug, Serialize)]
struct Record<'a> {
    id: PointId,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vector: Option<ShownVectors<'a>>,
}

const ALL_PAYLOAD: WithPayload = WithPayload::All(true);
const NO_PAYLOAD: WithPayload = WithPayload::All(false);
const NO_VECTOR: WithVector = WithVector::All(false);

fn record<'a>(
    id: PointId,
    point: &'a Point,
    payload: &WithPayload,
    vector: Option<&WithVector>,
) -> Record<'a> {
    Record { id, payload: payload.of(point), vector: vector.unwrap_or(&NO_VECTOR).of(point) }
}

#[derive(Deserialize)]
struct RetrieveBody {
    ids: Vec<PointId>,
    with_payload: Option<WithPayload>,
    #[serde(alias = "with_vectors")]
    with_vector: Option<WithVector>,
}

/// `POST /points`: what exists of what was asked. Without a word about payloads there are none, unlike in a scroll.
pub(super) async fn retrieve(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let body: RetrieveBody = ctx.json().await?;
    let inner = collection.read();
    let points = &inner.shard("retrieve")?.points;
    let found: Vec<Record<'_>> = body
        .ids
        .iter()
        .filter_map(|id| points.get(id).map(|point| (id, point)))
        .map(|(id, point)| {
            let payload = body.with_payload.as_ref().unwrap_or(&NO_PAYLOAD);
            record(*id, point, payload, body.with_vector.as_ref())
        })
        .collect();
    ok(&found)
}

pub(super) async fn get(ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let text = ctx.param("id")?;
    let id = PointId::from_path(&text)
        .ok_or_else(|| ApiError::bad_input(format!("Can not recognize \"{text}\" as point id")))?;
    let inner = collection.read();
    let point = inner
        .shard("retrieve")?
        .points
        .get(&id)
        .ok_or_else(|| ApiError::not_found(format!("Point with id {id} does not exists!")))?;
    ok(&record(id, point, &ALL_PAYLOAD, Some(&WithVector::All(true))))
}

#[derive(Deserialize)]
struct ScrollBody {
    offset: Option<PointId>,
    limit: Option<usize>,
    filter: Option<Filter>,
    with_payload: Option<WithPayload>,
    #[serde(alias = "with_vectors")]
    with_vector: Option<WithVector>,
    order_by: Option<Value>,
}

pub(super) async fn scroll(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let body: ScrollBody = ctx.json().await?;
    if body.order_by.is_some() {
        return Err(ApiError::bad_request("order_by is not supported by this stand-in"));
    }
    let limit = body.limit.unwrap_or(10);
    if limit == 0 {
        return Err(ApiError::validation(
            "JSON body",
            "scroll_request.limit: value 0 invalid, must be 1 or larger",
        ));
    }
    let inner = collection.read();
    inner.check_limit(limit)?;
    let points = &inner.shard("Scroll")?.points;
    let from = body.offset.unwrap_or(PointId::Num(0));
    let matching =
        |id: PointId, point: &Point| body.filter.as_ref().is_none_or(|filter| filter.matches(id, point));
    let mut found: Vec<(PointId, &Point)> = points
        .range(from..)
        .map(|(id, point)| (*id, point))
        .filter(|(id, point)| matching(*id, point))
        .take(limit.saturating_add(1))
        .collect();
    let next = if found.len() > limit { found.pop().map(|(id, _)| id) } else { None };
    let page = Page {
        points: found
            .into_iter()
            .map(|(id, point)| {
                let payload = body.with_payload.as_ref().unwrap_or(&ALL_PAYLOAD);
                record(id, point, payload, body.with_vector.as_ref())
            })
            .collect(),
        next_page_offset: next,
    };
    ok(&page)
}

#[derive(Serialize)]
struct Page<'a> {
    points: Vec<Record<'a>>,
    next_page_offset: Option<PointId>,
}

#[derive(Deserialize)]
struct CountBody {
    filter: Option<Filter>,
    exact: Option<bool>,
}

/// Exact unless the caller says otherwise; an estimate counts twice what exists twice during a snapshot.
pub(super) async fn count(mut ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let body: CountBody = ctx.json().await?;
    let inner = collection.read();
    let shard = inner.shard("count")?;
    let exact = match &body.filter {
        None => shard.points.len(),
        Some(filter) => shard.points.iter().filter(|(id, point)| filter.matches(**id, point)).count(),
    };
    let estimate = if body.exact.unwrap_or(true) { 0 } else { shard.double_counted() };
    ok(&json!({ "count": super::len_u64(exact).saturating_add(estimate) }))
}
