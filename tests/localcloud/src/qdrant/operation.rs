//! The operations that change points.

use super::filter::Filter;
use super::reply::ApiError;
use super::shard::{Point, PointId};
use super::vectors::Vector;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub(super) type Points = BTreeMap<PointId, Point>;

/// Which points an operation is about.
#[derive(Clone, Debug)]
pub(super) enum Select {
    Ids(Vec<PointId>),
    Filter(Filter),
}

impl Select {
    pub(super) fn resolve(&self, points: &Points) -> Vec<PointId> {
        match self {
            Self::Ids(ids) => ids.iter().copied().filter(|id| points.contains_key(id)).collect(),
            Self::Filter(filter) => {
                points.iter().filter(|(id, point)| filter.matches(**id, point)).map(|(id, _)| *id).collect()
            }
        }
    }

    /// Like `resolve`, but an id that does not exist is an error.
    fn require(&self, points: &Points) -> Result<Vec<PointId>, ApiError> {
        if let Self::Ids(ids) = self
            && let Some(missing) = ids.iter().find(|id| !points.contains_key(id))
        {
            return Err(no_point(*missing));
        }
        Ok(self.resolve(points))
    }
}

fn no_point(id: PointId) -> ApiError {
    ApiError::not_found(format!("No point with id {id} found"))
}

#[derive(Clone, Debug)]
pub(super) enum Op {
    Upsert(Vec<(PointId, Point)>),
    Delete(Select),
    /// Adds keys to the payload, or below `key` of it.
    SetPayload {
        select: Select,
        payload: Map<String, Value>,
        key: Option<String>,
    },
    OverwritePayload {
        select: Select,
        payload: Map<String, Value>,
    },
    DeletePayload {
        select: Select,
        keys: Vec<String>,
    },
    ClearPayload(Select),
    UpdateVectors(Vec<(PointId, BTreeMap<String, Vector>)>),
    DeleteVectors {
        select: Select,
        names: Vec<String>,
    },
}

impl Op {
    /// Applies itself; returns the points that it touched.
    pub(super) fn apply(self, points: &mut Points, number: u64) -> Result<Vec<PointId>, ApiError> {
        match self {
            Self::Upsert(new) => {
                let mut touched = Vec::with_capacity(new.len());
                for (id, mut point) in new {
                    point.version = number;
                    points.insert(id, point);
                    touched.push(id);
                }
                Ok(touched)
            }
            Self::Delete(select) => {
                let touched = select.resolve(points);
                for id in &touched {
                    points.remove(id);
                }
                Ok(touched)
            }
            Self::SetPayload { select, payload, key } => {
                edit(points, select.require(points)?, number, |point| match &key {
                    None => point.payload.extend(payload.clone()),
                    Some(key) => set_below(&mut point.payload, key, &payload),
                })
            }
            Self::OverwritePayload { select, payload } => {
                edit(points, select.require(points)?, number, |point| point.payload = payload.clone())
            }
            Self::DeletePayload { select, keys } => edit(points, select.require(points)?, number, |point| {
                for key in &keys {
                    remove_below(&mut point.payload, key);
                }
            }),
            Self::ClearPayload(select) => {
                edit(points, select.resolve(points), number, |point| point.payload.clear())
            }
            Self::UpdateVectors(new) => {
                let mut touched = Vec::with_capacity(new.len());
                for (id, vectors) in new {
                    let point = points.get_mut(&id).ok_or_else(|| no_point(id))?;
                    point.vectors.extend(vectors);
                    point.version = number;
                    touched.push(id);
                }
                Ok(touched)
            }
            Self::DeleteVectors { select, names } => edit(points, select.resolve(points), number, |point| {
                point.vectors.retain(|name, _| !names.contains(name));
            }),
        }
    }
}

fn edit(
    points: &mut Points,
    ids: Vec<PointId>,
    number: u64,
    mut change: impl FnMut(&mut Point),
) -> Result<Vec<PointId>, ApiError> {
    for id in &ids {
        if let Some(point) = points.get_mut(id) {
            change(point);
            point.version = number;
        }
    }
    Ok(ids)
}

/// `a.b` names the object `b` in the object `a`; what is missing on the way is made.
fn set_below(payload: &mut Map<String, Value>, path: &str, new: &Map<String, Value>) {
    let mut at = payload;
    for key in path.split('.') {
        let slot = at.entry(key).or_insert_with(|| Value::Object(Map::new()));
        if !slot.is_object() {
            *slot = Value::Object(Map::new());
        }
        let Some(next) = slot.as_object_mut() else {
            return;
        };
        at = next;
    }
    at.extend(new.clone());
}

fn remove_below(payload: &mut Map<String, Value>, path: &str) {
    match path.split_once('.') {
        None => {
            payload.remove(path);
        }
        Some((key, rest)) => {
            if let Some(Value::Object(next)) = payload.get_mut(key) {
                remove_below(next, rest);
            }
        }
    }
}
