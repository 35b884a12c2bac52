//! The points of a collection, and the queue in front of them.

use super::operation::Op;
use super::reply::ApiError;
use super::vectors::Vector;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use uuid::Uuid;

/// Numbers sort before UUIDs, as in the real server's scroll order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum PointId {
    Num(u64),
    Uuid(Uuid),
}

impl PointId {
    pub(super) fn parse(value: &Value) -> Option<Self> {
        if let Some(number) = value.as_u64() {
            return Some(Self::Num(number));
        }
        value.as_str().and_then(|text| Uuid::parse_str(text).ok()).map(Self::Uuid)
    }

    /// From a path segment, where a number is a number too.
    pub(super) fn from_path(text: &str) -> Option<Self> {
        text.parse().map(Self::Num).ok().or_else(|| Uuid::parse_str(text).ok().map(Self::Uuid))
    }

    /// A stable number for choices that must be the same after a restore.
    pub(super) fn seed(self) -> u64 {
        match self {
            Self::Num(number) => super::mix(number),
            Self::Uuid(uuid) => {
                let (high, low) = uuid.as_u64_pair();
                super::mix(high ^ super::mix(low))
            }
        }
    }
}

impl fmt::Display for PointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Num(number) => number.fmt(f),
            Self::Uuid(uuid) => uuid.fmt(f),
        }
    }
}

impl Serialize for PointId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Num(number) => serializer.serialize_u64(*number),
            Self::Uuid(uuid) => serializer.collect_str(uuid),
        }
    }
}

impl<'de> Deserialize<'de> for PointId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::parse(&value).ok_or_else(|| {
            de::Error::custom(format!(
                "value {} is not a valid point ID, valid values are either an unsigned integer or a UUID",
                value.as_str().map_or_else(|| value.to_string(), str::to_owned)
            ))
        })
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Point {
    pub(super) payload: Map<String, Value>,
    pub(super) vectors: BTreeMap<String, Vector>,
    /// The number of the operation that wrote it last.
    pub(super) version: u64,
}

/// One shard: the single-node server has one, whatever `shard_number` says.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) points: BTreeMap<PointId, Point>,
    /// How many operations were accepted so far.
    pub(super) op_num: u64,
    /// Accepted, not yet applied.
    pub(super) pending: VecDeque<Op>,
    captures: BTreeMap<u64, BTreeSet<PointId>>,
    next_capture: u64,
}

impl Shard {
    /// With these points, `op_num` operations ago empty.
    pub(super) fn new(points: BTreeMap<PointId, Point>, op_num: u64) -> Self {
        Self { points, op_num, ..Self::default() }
    }

    /// Applies an operation after everything that was accepted before it; returns its number.
    pub(super) fn apply(&mut self, op: Op) -> Result<u64, ApiError> {
        self.drain();
        self.apply_one(op)?;
        Ok(self.op_num)
    }

    /// Accepts an operation without applying it; returns its number.
    pub(super) fn enqueue(&mut self, op: Op) -> u64 {
        self.pending.push_back(op);
        self.op_num.saturating_add(super::len_u64(self.pending.len()))
    }

    /// Applies the oldest accepted operation; false when there was none.
    pub(super) fn step(&mut self) -> bool {
        match self.pending.pop_front() {
            Some(op) => {
                // What the queue accepted is applied as far as it can be; nobody waits for its result.
                self.apply_one(op).unwrap_or_default();
                true
            }
            None => false,
        }
    }

    pub(super) fn drain(&mut self) {
        while self.step() {}
    }

    fn apply_one(&mut self, op: Op) -> Result<(), ApiError> {
        self.op_num = self.op_num.saturating_add(1);
        let touched = op.apply(&mut self.points, self.op_num)?;
        for capture in self.captures.values_mut() {
            capture.extend(touched.iter().copied());
        }
        Ok(())
    }

    /// Starts to note which points change.
    pub(super) fn start_capture(&mut self) -> u64 {
        let id = self.next_capture;
        self.next_capture = id.saturating_add(1);
        self.captures.insert(id, BTreeSet::new());
        id
    }

    pub(super) fn end_capture(&mut self, id: u64) -> BTreeSet<PointId> {
        self.captures.remove(&id).unwrap_or_default()
    }

    /// Points that exist twice while a snapshot holds their old segment: why `points_count` is approximate.
    pub(super) fn double_counted(&self) -> u64 {
        self.captures.values().map(|ids| super::len_u64(ids.len())).sum()
    }
}
