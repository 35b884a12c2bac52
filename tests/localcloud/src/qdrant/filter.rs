//! Filters: a sensible subset, where what is not understood is an error and never ignored.

use super::shard::{Point, PointId};
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    #[serde(default, deserialize_with = "one_or_many")]
    must: Vec<Condition>,
    #[serde(default, deserialize_with = "one_or_many")]
    should: Vec<Condition>,
    #[serde(default, deserialize_with = "one_or_many")]
    must_not: Vec<Condition>,
    #[serde(default)]
    min_should: Option<MinShould>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MinShould {
    conditions: Vec<Condition>,
    min_count: usize,
}

#[derive(Clone, Debug)]
enum Condition {
    HasId(BTreeSet<PointId>),
    HasVector(String),
    IsEmpty(String),
    IsNull(String),
    Field(Box<Field>),
    Nested(Filter),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Field {
    key: String,
    #[serde(default, rename = "match")]
    matching: Option<Match>,
    #[serde(default)]
    range: Option<Range>,
    #[serde(default)]
    values_count: Option<Range>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Match {
    Value(Value),
    Any(Vec<Value>),
    Except(Vec<Value>),
    Text(String),
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    #[serde(default)]
    gt: Option<Value>,
    #[serde(default)]
    gte: Option<Value>,
    #[serde(default)]
    lt: Option<Value>,
    #[serde(default)]
    lte: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    key: String,
}

impl<'de> Deserialize<'de> for Condition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::parse(&value).map_err(|error| {
            de::Error::custom(format!("data did not match any variant of untagged enum Condition ({error})"))
        })
    }
}

impl Condition {
    fn parse(value: &Value) -> Result<Self, serde_json::Error> {
        let from = |name: &str| value.get(name).cloned();
        Ok(if let Some(ids) = from("has_id") {
            Self::HasId(serde_json::from_value(ids)?)
        } else if let Some(name) = from("has_vector") {
            Self::HasVector(serde_json::from_value(name)?)
        } else if let Some(key) = from("is_empty") {
            Self::IsEmpty(serde_json::from_value::<Key>(key)?.key)
        } else if let Some(key) = from("is_null") {
            Self::IsNull(serde_json::from_value::<Key>(key)?.key)
        } else if value.get("key").is_some() {
            Self::Field(serde_json::from_value(value.clone())?)
        } else {
            Self::Nested(serde_json::from_value(value.clone())?)
        })
    }

    fn matches(&self, id: PointId, point: &Point) -> bool {
        match self {
            Self::HasId(ids) => ids.contains(&id),
            Self::HasVector(name) => point.vectors.contains_key(name),
            Self::IsEmpty(key) => !values_at(point, key).iter().any(|value| !value.is_null()),
            Self::IsNull(key) => values_at(point, key).iter().any(|value| value.is_null()),
            Self::Field(field) => field.matches(point),
            Self::Nested(filter) => filter.matches(id, point),
        }
    }
}

impl Filter {
    pub(super) fn matches(&self, id: PointId, point: &Point) -> bool {
        let holds = |condition: &Condition| condition.matches(id, point);
        self.must.iter().all(holds)
            && (self.should.is_empty() || self.should.iter().any(holds))
            && !self.must_not.iter().any(holds)
            && self
                .min_should
                .as_ref()
                .is_none_or(|min| min.conditions.iter().filter(|one| holds(one)).count() >= min.min_count)
    }

    /// The ids that a point must have, when the filter says so outright: a shortcut past all others.
    pub(super) fn required_ids(&self) -> Option<&BTreeSet<PointId>> {
        self.must.iter().find_map(|condition| match condition {
            Condition::HasId(ids) => Some(ids),
            Condition::HasVector(_)
            | Condition::IsEmpty(_)
            | Condition::IsNull(_)
            | Condition::Field(_)
            | Condition::Nested(_) => None,
        })
    }
}

impl Field {
    fn matches(&self, point: &Point) -> bool {
        let values = values_at(point, &self.key);
        let matching =
            self.matching.as_ref().is_none_or(|matching| values.iter().any(|one| matching.matches(one)));
        let range = self.range.as_ref().is_none_or(|range| values.iter().any(|one| range.contains(one)));
        let count = self.values_count.as_ref().is_none_or(|range| range.contains(&Value::from(values.len())));
        matching && range && count
    }
}

impl Match {
    fn matches(&self, value: &Value) -> bool {
        match self {
            Self::Value(wanted) => value == wanted,
            Self::Any(wanted) => wanted.contains(value),
            Self::Except(unwanted) => !unwanted.contains(value),
            Self::Text(text) => value.as_str().is_some_and(|value| value.contains(text.as_str())),
        }
    }
}

impl Range {
    fn contains(&self, value: &Value) -> bool {
        use std::cmp::Ordering::{Equal, Greater, Less};
        let holds = |bound: &Option<Value>, allowed: &[std::cmp::Ordering]| {
            bound
                .as_ref()
                .is_none_or(|bound| compare(value, bound).is_some_and(|order| allowed.contains(&order)))
        };
        holds(&self.gt, &[Greater])
            && holds(&self.gte, &[Greater, Equal])
            && holds(&self.lt, &[Less])
            && holds(&self.lte, &[Less, Equal])
    }
}

/// Numbers with numbers, points in time with points in time.
fn compare(value: &Value, bound: &Value) -> Option<std::cmp::Ordering> {
    if let (Some(value), Some(bound)) = (value.as_f64(), bound.as_f64()) {
        return value.partial_cmp(&bound);
    }
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    Some(time(value)?.cmp(&time(bound)?))
}

/// The values at `a.b` or `a[].b`, arrays opened as the server does.
fn values_at<'a>(point: &'a Point, path: &str) -> Vec<&'a Value> {
    let mut keys = path.split('.');
    let first = keys.next().unwrap_or_default().trim_end_matches("[]");
    let mut found: Vec<&Value> = point.payload.get(first).into_iter().flat_map(opened).collect();
    for key in keys {
        let key = key.trim_end_matches("[]");
        found = found.into_iter().filter_map(|value| value.get(key)).flat_map(opened).collect();
    }
    found
}

fn opened(value: &Value) -> Vec<&Value> {
    value.as_array().map_or_else(|| vec![value], |items| items.iter().collect())
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Condition>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let items = match value {
        Value::Null => Vec::new(),
        Value::Array(items) => items,
        one @ (Value::Object(_) | Value::Bool(_) | Value::Number(_) | Value::String(_)) => vec![one],
    };
    items.into_iter().map(|item| serde_json::from_value(item).map_err(de::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn filters_select_what_they_say() {
        let point = Point {
            payload: json!({ "city": "Oslo", "year": 1998, "tags": ["a", "b"], "at": "2024-05-01T00:00:00Z",
                             "deep": { "list": [{ "x": 1 }, { "x": 2 }] }, "nothing": null })
            .as_object()
            .cloned()
            .unwrap(),
            ..Point::default()
        };
        let cases = [
            (json!({ "must": [{ "key": "city", "match": { "value": "Oslo" } }] }), true),
            (json!({ "must": [{ "key": "city", "match": { "any": ["Rome", "Oslo"] } }] }), true),
            (json!({ "must": { "key": "tags", "match": { "value": "b" } } }), true),
            (json!({ "must_not": [{ "key": "city", "match": { "value": "Oslo" } }] }), false),
            (json!({ "should": [{ "key": "year", "range": { "lt": 1990 } }] }), false),
            (json!({ "must": [{ "key": "year", "range": { "gte": 1998, "lt": 1999 } }] }), true),
            (json!({ "must": [{ "key": "at", "range": { "gt": "2024-04-30T00:00:00Z" } }] }), true),
            (json!({ "must": [{ "key": "deep.list[].x", "match": { "value": 2 } }] }), true),
            (json!({ "must": [{ "is_empty": { "key": "missing" } }] }), true),
            (json!({ "must": [{ "is_null": { "key": "nothing" } }] }), true),
            (json!({ "must": [{ "has_id": [7] }] }), true),
            (json!({ "must": [{ "has_id": [8, "c37c2d4e-0000-4000-8000-000000000000"] }] }), false),
            (json!({ "must": [{ "should": [{ "has_id": [7] }] }] }), true),
            (
                json!({ "min_should": { "conditions": [{ "has_id": [7] }, { "has_id": [8] }], "min_count": 2 } }),
                false,
            ),
            (json!({}), true),
        ];
        for (filter, expected) in cases {
            let parsed: Filter = serde_json::from_value(filter.clone()).unwrap();
            assert_eq!(parsed.matches(PointId::Num(7), &point), expected, "{filter}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for filter in [
            json!({ "must": [{ "key": "at", "geo_radius": {} }] }),
            json!({ "shoold": [] }),
            json!({ "must": [{ "has_id": ["not-a-uuid"] }] }),
        ] {
            assert!(serde_json::from_value::<Filter>(filter.clone()).is_err(), "{filter}");
        }
    }
}
