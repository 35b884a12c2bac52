//! The configuration of a collection: what a create call may say, what the server fills in, what it shows.

use super::reply::ApiError;
use super::vectors::{Distance, VectorSpec};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// As kept, as archived, and (but for the uuid) as shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Config {
    pub(super) params: Map<String, Value>,
    hnsw_config: Map<String, Value>,
    optimizer_config: Map<String, Value>,
    wal_config: Map<String, Value>,
    quantization_config: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strict_mode_config: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    metadata: Option<Map<String, Value>>,
    uuid: String,
}

impl Config {
    /// From the body of `PUT /collections/{c}`.
    pub(super) fn create(body: &Map<String, Value>, uuid: String) -> Result<Self, ApiError> {
        let mut params = object(&json!({
            "shard_number": 1, "replication_factor": 1, "write_consistency_factor": 1, "on_disk_payload": true,
        }));
        params.insert(
            "vectors".to_owned(),
            body.get("vectors").map(without_nulls).unwrap_or_else(|| json!({})),
        );
        for name in [
            "shard_number",
            "sharding_method",
            "replication_factor",
            "write_consistency_factor",
            "on_disk_payload",
            "sparse_vectors",
        ] {
            if let Some(value) = body.get(name).filter(|value| !value.is_null()) {
                params.insert(name.to_owned(), without_nulls(value));
            }
        }
        let config = Self {
            params,
            hnsw_config: merged(
                json!({ "m": 16, "ef_construct": 100, "full_scan_threshold": 10000,
                        "max_indexing_threads": 0, "on_disk": false }),
                body.get("hnsw_config"),
            ),
            optimizer_config: merged(
                json!({ "deleted_threshold": 0.2, "vacuum_min_vector_number": 1000,
                        "default_segment_number": 0, "max_segment_size": null, "memmap_threshold": null,
                        "indexing_threshold": 10000, "flush_interval_sec": 5,
                        "max_optimization_threads": null, "prevent_unoptimized": null }),
                body.get("optimizers_config"),
            ),
            wal_config: merged(
                json!({ "wal_capacity_mb": 32, "wal_segments_ahead": 0, "wal_retain_closed": 1 }),
                body.get("wal_config"),
            ),
            quantization_config: body.get("quantization_config").cloned().unwrap_or(Value::Null),
            strict_mode_config: given_object(body.get("strict_mode_config")),
            metadata: given_object(body.get("metadata")),
            uuid,
        };
        config.check()?;
        Ok(config)
    }

    /// From the body of `PATCH /collections/{c}`.
    pub(super) fn patch(&mut self, body: &Map<String, Value>) -> Result<(), ApiError> {
        let mut patched = self.clone();
        if let Some(params) = body.get("params") {
            merge(&mut patched.params, params);
        }
        if let Some(diff) = body.get("hnsw_config") {
            merge(&mut patched.hnsw_config, diff);
        }
        if let Some(diff) = body.get("optimizers_config") {
            merge(&mut patched.optimizer_config, diff);
        }
        if let Some(quantization) = body.get("quantization_config") {
            patched.quantization_config =
                if quantization == "Disabled" { Value::Null } else { without_nulls(quantization) };
        }
        if let Some(strict) = given_object(body.get("strict_mode_config")) {
            patched.strict_mode_config.get_or_insert_default().extend(strict);
        }
        if let Some(metadata) = given_object(body.get("metadata")) {
            patched.metadata.get_or_insert_default().extend(metadata);
        }
        if let Some(diffs) = body.get("vectors").and_then(Value::as_object) {
            patched.patch_vectors(diffs)?;
        }
        if let Some(diffs) = body.get("sparse_vectors").and_then(Value::as_object) {
            let mut sparse = object(patched.params.get("sparse_vectors").unwrap_or(&Value::Null));
            for (name, diff) in diffs {
                let Some(Value::Object(one)) = sparse.get_mut(name) else {
                    return Err(unknown_vector(name));
                };
                merge(one, diff);
            }
            patched.params.insert("sparse_vectors".to_owned(), Value::Object(sparse));
        }
        patched.check()?;
        *self = patched;
        Ok(())
    }

    fn patch_vectors(&mut self, diffs: &Map<String, Value>) -> Result<(), ApiError> {
        let Some(Value::Object(vectors)) = self.params.get_mut("vectors") else {
            return Ok(());
        };
        for (name, diff) in diffs {
            let target = if name.is_empty() && vectors.contains_key("size") {
                &mut *vectors
            } else {
                match vectors.get_mut(name) {
                    Some(Value::Object(one)) => one,
                    Some(_) | None => return Err(unknown_vector(name)),
                }
            };
            merge(target, diff);
        }
        Ok(())
    }

    fn check(&self) -> Result<(), ApiError> {
        for name in ["shard_number", "replication_factor", "write_consistency_factor"] {
            if self.params.get(name).is_some_and(|number| number.as_u64().is_none_or(|number| number == 0)) {
                return Err(ApiError::format("JSON body", format!("{name}: expected a nonzero u32")));
            }
        }
        self.specs().map(|_| ())
    }

    /// Every vector of a point by name; the unnamed one is `""`.
    pub(super) fn specs(&self) -> Result<BTreeMap<String, VectorSpec>, ApiError> {
        let mut specs = BTreeMap::new();
        if let Some(Value::Object(vectors)) = self.params.get("vectors") {
            if vectors.contains_key("size") || vectors.contains_key("distance") {
                specs.insert(String::new(), dense(vectors)?);
            } else {
                for (name, one) in vectors {
                    specs.insert(name.clone(), dense(&object(one))?);
                }
            }
        }
        if let Some(Value::Object(sparse)) = self.params.get("sparse_vectors") {
            for (name, one) in sparse {
                let idf = one.get("modifier").and_then(Value::as_str) == Some("idf");
                if specs.insert(name.clone(), VectorSpec::Sparse { idf }).is_some() {
                    return Err(ApiError::bad_input(format!("vector name {name} is used twice")));
                }
            }
        }
        Ok(specs)
    }

    /// As `GET /collections/{c}` shows it.
    pub(super) fn shown(&self) -> Value {
        let mut shown = json!({
            "params": self.params,
            "hnsw_config": self.hnsw_config,
            "optimizer_config": self.optimizer_config,
            "wal_config": self.wal_config,
            "quantization_config": self.quantization_config,
        });
        if let (Some(strict), Some(shown)) = (&self.strict_mode_config, shown.as_object_mut()) {
            shown.insert("strict_mode_config".to_owned(), json!(strict));
        }
        if let (Some(metadata), Some(shown)) = (&self.metadata, shown.as_object_mut()) {
            shown.insert("metadata".to_owned(), json!(metadata));
        }
        shown
    }

    /// Identifies the collection across renames; travels in snapshots.
    pub(super) fn uuid(&self) -> &str {
        &self.uuid
    }

    /// How many shards it would have; with custom sharding none, until shard keys are made.
    pub(super) fn shards(&self) -> u64 {
        if self.custom_sharding() {
            return 0;
        }
        self.params.get("shard_number").and_then(Value::as_u64).unwrap_or(1)
    }

    pub(super) fn custom_sharding(&self) -> bool {
        self.params.get("sharding_method").and_then(Value::as_str) == Some("custom")
    }

    /// A strict mode setting, if strict mode is on and names it.
    pub(super) fn strict(&self, name: &str) -> Option<&Value> {
        let strict = self.strict_mode_config.as_ref()?;
        (strict.get("enabled") == Some(&Value::Bool(true))).then(|| strict.get(name))?
    }

    /// In kilobytes of vectors; 0 disables indexing.
    pub(super) fn indexing_threshold_kb(&self) -> u64 {
        self.optimizer_config.get("indexing_threshold").and_then(Value::as_u64).unwrap_or(10_000)
    }

    fn param(&self, name: &str) -> &Value {
        self.params.get(name).unwrap_or(&Value::Null)
    }

    /// What a recovery into an existing collection compares: dense vectors and the number of shards.
    pub(super) fn check_recoverable_from(&self, snapshot: &Self) -> Result<(), ApiError> {
        for (name, what) in [("vectors", "vectors"), ("shard_number", "shard number")] {
            let (here, there) = (self.param(name), snapshot.param(name));
            if here != there {
                return Err(ApiError::bad_input(format!(
                    "Snapshot is not compatible with existing collection: Collection {what}: {here} Snapshot {what}: {there}"
                )));
            }
        }
        Ok(())
    }
}

fn dense(params: &Map<String, Value>) -> Result<VectorSpec, ApiError> {
    let size =
        params.get("size").and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok()).ok_or_else(
            || ApiError::format("JSON body", "data did not match any variant of untagged enum VectorsConfig"),
        )?;
    if size == 0 || size > 65_536 {
        return Err(ApiError::validation(
            "JSON body",
            format!("vectors.size: value {size} invalid, must be from 1 to 65536"),
        ));
    }
    let distance: Distance = params
        .get("distance")
        .cloned()
        .and_then(|distance| serde_json::from_value(distance).ok())
        .ok_or_else(|| {
            ApiError::format("JSON body", "data did not match any variant of untagged enum VectorsConfig")
        })?;
    let multi = params.get("multivector_config").is_some_and(Value::is_object);
    let half = params.get("datatype").and_then(Value::as_str) == Some("float16");
    Ok(VectorSpec::Dense { size, distance, multi, half })
}

fn unknown_vector(name: &str) -> ApiError {
    ApiError::bad_input(format!("Not existing vector name error: {name}"))
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

fn given_object(value: Option<&Value>) -> Option<Map<String, Value>> {
    value.map(without_nulls).and_then(|value| value.as_object().cloned())
}

fn merged(defaults: Value, diff: Option<&Value>) -> Map<String, Value> {
    let mut all = object(&defaults);
    if let Some(diff) = diff {
        merge(&mut all, diff);
    }
    all
}

fn merge(target: &mut Map<String, Value>, diff: &Value) {
    for (name, value) in object(diff) {
        if !value.is_null() {
            target.insert(name, without_nulls(&value));
        }
    }
}

/// Unset options are not shown.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name.clone(), without_nulls(value)))
                .collect(),
        ),
        Value::Array(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}
