//! One collection: its configuration, its payload index schema, its shard, and how it describes itself.

use super::config::Config;
use super::faults::Faults;
use super::reply::ApiError;
use super::shard::{Point, Shard};
use super::vectors::{Vector, VectorSpec};
use super::{len_u64, read, write};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

#[derive(Debug)]
pub(super) struct Collection {
    pub(super) name: String,
    inner: RwLock<Inner>,
    /// Snapshots that run now: they make the collection yellow.
    pub(super) snapshots_running: AtomicU64,
    /// After a restart optimizations are pending and nobody triggers them: grey, until a write.
    grey: AtomicBool,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) specs: BTreeMap<String, VectorSpec>,
    /// Field name to what the index call said: a type name, or an object with parameters.
    pub(super) schema: BTreeMap<String, Value>,
    shard: ShardState,
}

#[derive(Debug)]
enum ShardState {
    Live(Shard),
    /// What is left when loading failed, or what recovery mode shows; it answers everything with this message.
    Dummy {
        message: String,
        lasting: bool,
    },
}

impl Inner {
    pub(super) fn shard(&self, action: &str) -> Result<&Shard, ApiError> {
        match &self.shard {
            ShardState::Live(shard) => Ok(shard),
            ShardState::Dummy { message, .. } => Err(dummy_error(action, message)),
        }
    }

    pub(super) fn shard_mut(&mut self, action: &str) -> Result<&mut Shard, ApiError> {
        match &mut self.shard {
            ShardState::Live(shard) => Ok(shard),
            ShardState::Dummy { message, .. } => Err(dummy_error(action, message)),
        }
    }

    pub(super) fn replace_shard(&mut self, shard: Shard) {
        self.shard = ShardState::Live(shard);
    }

    pub(super) fn make_dummy(&mut self, message: &str) {
        self.shard = ShardState::Dummy { message: message.to_owned(), lasting: true };
    }

    /// Hides the shard until the next start; its data stays on disk.
    pub(super) fn hide(&mut self, message: &str) {
        self.shard = ShardState::Dummy { message: message.to_owned(), lasting: false };
    }

    /// Why the shard is a dummy, if it is one for good.
    pub(super) fn dummy(&self) -> Option<&str> {
        match &self.shard {
            ShardState::Dummy { message, lasting: true } => Some(message),
            ShardState::Live(_) | ShardState::Dummy { lasting: false, .. } => None,
        }
    }

    /// Checks a point's vectors against the collection and brings them into the stored form.
    pub(super) fn prepare(
        &self,
        vectors: BTreeMap<String, Vector>,
    ) -> Result<BTreeMap<String, Vector>, ApiError> {
        vectors
            .into_iter()
            .map(|(name, vector)| {
                let spec = self.spec(&name)?;
                Ok((name, spec.prepare(vector)?))
            })
            .collect()
    }

    /// Strict mode may forbid large answers.
    pub(super) fn check_limit(&self, limit: usize) -> Result<(), ApiError> {
        match self.config.strict("max_query_limit").and_then(Value::as_u64) {
            Some(max) if len_u64(limit) > max => Err(ApiError::bad_request(format!(
                "Limit exceeded {limit} > {max} for \"limit\". Help: Reduce the \"limit\" parameter to or below {max}."
            ))),
            Some(_) | None => Ok(()),
        }
    }

    pub(super) fn spec(&self, name: &str) -> Result<VectorSpec, ApiError> {
        self.specs
            .get(name)
            .copied()
            .ok_or_else(|| ApiError::bad_input(format!("Not existing vector name error: {name}")))
    }
}

fn dummy_error(action: &str, message: &str) -> ApiError {
    ApiError::service(format!("Failed to {action},  {message}"))
}

impl Collection {
    pub(super) fn new(name: &str, config: Config) -> Result<Arc<Self>, ApiError> {
        let specs = config.specs()?;
        let shard = ShardState::Live(Shard::default());
        Ok(Arc::new(Self {
            name: name.to_owned(),
            inner: RwLock::new(Inner { config, specs, schema: BTreeMap::new(), shard }),
            snapshots_running: AtomicU64::new(0),
            grey: AtomicBool::new(false),
        }))
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Inner> {
        read(&self.inner)
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        write(&self.inner)
    }

    pub(super) fn set_grey(&self, grey: bool) {
        self.grey.store(grey, Ordering::Relaxed);
    }

    /// Occupied slots of the update queue.
    pub(super) fn queue_length(&self, faults: &Faults) -> u64 {
        let inner = self.read();
        let pending = match &inner.shard {
            ShardState::Live(shard) => len_u64(shard.pending.len()),
            ShardState::Dummy { .. } => 0,
        };
        faults.queue_stuck(&self.name).unwrap_or(pending)
    }

    pub(super) fn status(&self, faults: &Faults) -> &'static str {
        if faults.red(&self.name) || faults.optimizer_error(&self.name).is_some() {
            "red"
        } else if self.snapshots_running.load(Ordering::Relaxed) > 0 {
            "yellow"
        } else if self.grey.load(Ordering::Relaxed) {
            "grey"
        } else {
            "green"
        }
    }

    pub(super) fn optimizer_status(&self, faults: &Faults) -> Value {
        faults.optimizer_error(&self.name).map_or_else(|| json!("ok"), |message| json!({ "error": message }))
    }

    /// The `result` of `GET /collections/{c}`.
    pub(super) fn info(&self, faults: &Faults) -> Result<Value, ApiError> {
        let queue = self.queue_length(faults);
        let inner = self.read();
        let shard = inner.shard("Get Info")?;
        let points = len_u64(shard.points.len()).saturating_add(shard.double_counted());
        let indexed = if faults.not_indexed(&self.name) { 0 } else { indexed_vectors(&inner, shard) };
        let mut schema = Map::new();
        for (field, declared) in &inner.schema {
            schema.insert(field.clone(), index_info(field, declared, shard.points.values()));
        }
        Ok(json!({
            "status": self.status(faults),
            "optimizer_status": self.optimizer_status(faults),
            "indexed_vectors_count": indexed,
            "points_count": points,
            "segments_count": 2 * inner.config.shards(),
            "config": inner.config.shown(),
            "payload_schema": schema,
            "update_queue": { "length": queue },
        }))
    }
}

fn index_info<'a>(field: &str, declared: &Value, points: impl Iterator<Item = &'a Point>) -> Value {
    let first = field.split(['.', '[']).next().unwrap_or_default();
    let count = points.filter(|point| point.payload.get(first).is_some_and(|value| !value.is_null())).count();
    match declared.as_object() {
        None => json!({ "data_type": declared, "points": count }),
        Some(params) => json!({ "data_type": params.get("type"), "params": params, "points": count }),
    }
}

/// Segments above the indexing threshold count as indexed; the stand-in has one.
fn indexed_vectors(inner: &Inner, shard: &Shard) -> u64 {
    let floats: usize = inner
        .specs
        .values()
        .map(|spec| match spec {
            VectorSpec::Dense { size, .. } => *size,
            VectorSpec::Sparse { .. } => 0,
        })
        .sum();
    let kilobytes = len_u64(shard.points.len().saturating_mul(floats).saturating_mul(4)) / 1024;
    let threshold = inner.config.indexing_threshold_kb();
    let dense_are = threshold > 0 && kilobytes > threshold;
    // Sparse vectors are indexed from the first one on.
    let counts = |vector: &Vector| dense_are || matches!(vector, Vector::Sparse(_));
    shard.points.values().map(|point| len_u64(point.vectors.values().filter(|one| counts(one)).count())).sum()
}
