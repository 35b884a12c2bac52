//! `/metrics` and `/telemetry`.

use super::collection::Collection;
use super::node::Node;
use super::reply::{ApiError, Handled, Outcome, ok, text};
use super::request::Ctx;
use super::service::Counted;
use http::StatusCode;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Routes whose responses `/metrics` counts. Collections, aliases and snapshots are not among them.
const COUNTED_ROUTES: [&str; 14] = [
    "/collections/{collection_name}/index",
    "/collections/{collection_name}/points",
    "/collections/{collection_name}/points/batch",
    "/collections/{collection_name}/points/count",
    "/collections/{collection_name}/points/delete",
    "/collections/{collection_name}/points/payload",
    "/collections/{collection_name}/points/payload/clear",
    "/collections/{collection_name}/points/payload/delete",
    "/collections/{collection_name}/points/query",
    "/collections/{collection_name}/points/query/batch",
    "/collections/{collection_name}/points/scroll",
    "/collections/{collection_name}/points/search",
    "/collections/{collection_name}/points/search/batch",
    "/collections/{collection_name}/points/vectors",
];

struct Exposition(String);

impl Exposition {
    /// A family without a sample does not exist.
    fn family(&mut self, name: &str, help: &str, kind: &str, samples: &[(String, String)]) {
        if samples.is_empty() {
            return;
        }
        let mut out = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
        for (labels, value) in samples {
            let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
            // Writing into a String does not fail.
            writeln!(out, "{name}{labels} {value}").unwrap_or_default();
        }
        self.0.push_str(&out);
    }

    fn single(&mut self, name: &str, help: &str, kind: &str, value: u64) {
        self.family(name, help, kind, &[(String::new(), value.to_string())]);
    }
}

fn label(name: &str, value: &str) -> String {
    let escaped = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    format!("{name}=\"{escaped}\"")
}

pub(super) async fn metrics(ctx: Ctx) -> Handled {
    let node = &ctx.node;
    let mut out = Exposition(String::new());
    let version = &node.settings.version;
    out.family(
        "app_info",
        "information about qdrant server",
        "gauge",
        &[(format!("{},{}", label("name", "qdrant"), label("version", version)), "1".to_owned())],
    );
    let recovery = u64::from(node.faults.recovery_mode().is_some());
    out.single("app_status_recovery_mode", "features enabled in qdrant server", "gauge", recovery);
    collection_metrics(node, &mut out);
    out.single("cluster_enabled", "is cluster support enabled", "gauge", 0);
    let rest: Vec<(String, Counted)> = node
        .counters
        .all_rest()
        .into_iter()
        .filter_map(|((call, status), counted)| {
            let (method, route) = call.split_once(' ')?;
            COUNTED_ROUTES.contains(&route).then(|| {
                let status = status.to_string();
                let labels = [("method", method), ("endpoint", route), ("status", &status)];
                (labels.map(|(name, value)| label(name, value)).join(","), counted)
            })
        })
        .collect();
    durations(&mut out, "rest", &rest);
    let grpc: Vec<(String, Counted)> = node
        .counters
        .all_grpc()
        .into_iter()
        .map(|((endpoint, status), counted)| {
            (format!("{},{}", label("endpoint", &endpoint), label("status", &status.to_string())), counted)
        })
        .collect();
    durations(&mut out, "grpc", &grpc);
    Ok(Outcome::Raw(text(StatusCode::OK, &out.0)))
}

fn collection_metrics(node: &Node, out: &mut Exposition) {
    let collections = node.collections();
    out.single("collections_total", "number of collections", "gauge", super::len_u64(collections.len()));
    let per_collection = |value: &dyn Fn(&Collection) -> u64| -> Vec<(String, String)> {
        collections.iter().map(|one| (label("id", &one.name), value(one).to_string())).collect()
    };
    let points = |one: &Collection| {
        one.read()
            .shard("count")
            .map_or(0, |shard| super::len_u64(shard.points.len()).saturating_add(shard.double_counted()))
    };
    out.single(
        "collections_vector_total",
        "total number of vectors in all collections",
        "gauge",
        collections.iter().map(|one| vectors_by_name(one).values().sum::<u64>()).sum(),
    );
    let by_name: Vec<(String, String)> = collections
        .iter()
        .flat_map(|one| {
            vectors_by_name(one).into_iter().map(|(name, count)| {
                (format!("{},{}", label("collection", &one.name), label("vector", &name)), count.to_string())
            })
        })
        .collect();
    out.family("collection_vectors", "amount of vectors grouped by vector name", "gauge", &by_name);
    let active = u64::from(collections.iter().any(|one| one.read().shard("").is_ok()));
    out.single(
        "collection_active_replicas_min",
        "minimum number of active replicas across all shards",
        "gauge",
        active,
    );
    out.single(
        "collection_active_replicas_max",
        "maximum number of active replicas across all shards",
        "gauge",
        active,
    );
    out.family(
        "collection_running_optimizations",
        "number of currently running optimization tasks per collection",
        "gauge",
        &per_collection(&|_| 0),
    );
    out.family(
        "collection_points",
        "approximate amount of points per collection",
        "gauge",
        &per_collection(&points),
    );
    let dead = collections.iter().filter(|one| one.read().shard("").is_err()).count();
    out.single(
        "collection_dead_replicas",
        "total amount of shard replicas in non-active state",
        "gauge",
        super::len_u64(dead),
    );
    let snapshots = node.snapshot_counters();
    let per_snapshot = |value: &dyn Fn(&super::service::SnapshotCounters) -> u64| -> Vec<(String, String)> {
        snapshots.iter().map(|(id, counters)| (label("id", id), value(counters).to_string())).collect()
    };
    out.family(
        "snapshot_creation_running",
        "amount of snapshot creations that are currently running",
        "gauge",
        &per_snapshot(&|counters| counters.creating),
    );
    out.family(
        "snapshot_recovery_running",
        "amount of snapshot recovery operations currently running",
        "gauge",
        &per_snapshot(&|counters| counters.recovering),
    );
    out.family(
        "snapshot_created_total",
        "total amount of snapshots created",
        "counter",
        &per_snapshot(&|counters| counters.created),
    );
    out.family(
        "collection_update_queue_length",
        "number of pending operations in update queues per collection",
        "gauge",
        &per_collection(&|one| one.queue_length(&node.faults)),
    );
    out.family(
        "collection_update_queue_deferred_points",
        "number of points currently hidden during read operations as they're not yet optimized",
        "gauge",
        &per_collection(&|_| 0),
    );
}

fn durations(out: &mut Exposition, prefix: &str, series: &[(String, Counted)]) {
    let of = |value: &dyn Fn(&Counted) -> String| -> Vec<(String, String)> {
        series.iter().map(|(labels, counted)| (labels.clone(), value(counted))).collect()
    };
    let name = |suffix: &str| format!("{prefix}_responses_{suffix}");
    out.family(
        &name("total"),
        "total number of responses",
        "counter",
        &of(&|counted| counted.count.to_string()),
    );
    out.family(
        &name("avg_duration_seconds"),
        "average response duration",
        "gauge",
        &of(&|counted| {
            let count = u32::try_from(counted.count).unwrap_or(u32::MAX).max(1);
            (counted.total / count).as_secs_f64().to_string()
        }),
    );
    out.family(
        &name("min_duration_seconds"),
        "minimum response duration",
        "gauge",
        &of(&|counted| counted.min.as_secs_f64().to_string()),
    );
    out.family(
        &name("max_duration_seconds"),
        "maximum response duration",
        "gauge",
        &of(&|counted| counted.max.as_secs_f64().to_string()),
    );
}

fn vectors_by_name(collection: &Collection) -> BTreeMap<String, u64> {
    let inner = collection.read();
    let Ok(shard) = inner.shard("count") else {
        return BTreeMap::new();
    };
    inner
        .specs
        .keys()
        .map(|name| {
            let count = shard.points.values().filter(|point| point.vectors.contains_key(name)).count();
            (name.clone(), super::len_u64(count))
        })
        .collect()
}

/// More at every level: collections from 1, their configuration from 2, shards with their queues from 3.
pub(super) async fn telemetry(ctx: Ctx) -> Handled {
    let level: u64 = match ctx.query.get("details_level") {
        None => 0,
        Some(text) => text.parse().map_err(|_untold: std::num::ParseIntError| {
            ApiError::deserialize("query parameters", "details_level: invalid digit found in string")
        })?,
    };
    let node = &ctx.node;
    let collections = node.collections();
    let mut about = json!({ "number_of_collections": collections.len() });
    if let (1.., Some(about)) = (level, about.as_object_mut()) {
        let described: Vec<Value> = collections
            .iter()
            .map(|one| if level == 1 { aggregated(node, one) } else { full(node, one, level) })
            .collect();
        about.insert("collections".to_owned(), json!(described));
        let snapshots: Vec<Value> = node
            .snapshot_counters()
            .iter()
            .map(|(id, counters)| {
                json!({ "id": id, "running_snapshots": counters.creating,
                        "running_snapshot_recovery": counters.recovering,
                        "total_snapshot_creations": counters.created })
            })
            .collect();
        about.insert("snapshots".to_owned(), if level == 1 { json!([]) } else { json!(snapshots) });
    }
    let mut app = json!({
        "name": "qdrant",
        "version": node.settings.version,
        "startup": node.started_at.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string(),
    });
    if let (1.., Some(app)) = (level, app.as_object_mut()) {
        app.insert(
            "features".to_owned(),
            json!({ "debug": false, "service_debug_feature": false,
                    "recovery_mode": node.faults.recovery_mode().is_some(),
                    "gpu": false, "rocksdb": false, "staging": false }),
        );
    }
    ok(&json!({
        "id": node.process_id,
        "app": app,
        "collections": about,
        "cluster": { "enabled": false, "resharding_enabled": false },
        "requests": {
            "rest": { "responses": by_call(node.counters.all_rest()) },
            "grpc": { "responses": by_call(node.counters.all_grpc()) },
        },
    }))
}

fn aggregated(node: &Node, collection: &Collection) -> Value {
    json!({
        "vectors": vectors_by_name(collection).values().sum::<u64>(),
        "optimizers_status": collection.optimizer_status(&node.faults),
        "params": collection.read().config.params,
    })
}

fn full(node: &Node, collection: &Collection, level: u64) -> Value {
    let mut config = collection.read().config.shown();
    if let Some(config) = config.as_object_mut() {
        config.insert("uuid".to_owned(), Value::Null);
    }
    let mut described = json!({ "id": collection.name, "init_time_ms": 0, "config": config });
    if let (3.., Some(described)) = (level, described.as_object_mut()) {
        let count = collection.read().config.shards();
        let shards: Vec<Value> = (0..count).map(|id| shard(node, collection, id)).collect();
        described.insert("shards".to_owned(), json!(shards));
        described.insert("transfers".to_owned(), json!([]));
        described.insert("resharding".to_owned(), json!([]));
    }
    described
}

/// All points are in the first shard.
fn shard(node: &Node, collection: &Collection, id: u64) -> Value {
    let queue = if id == 0 { collection.queue_length(&node.faults) } else { 0 };
    let vectors = if id == 0 { vectors_by_name(collection) } else { BTreeMap::new() };
    let inner = collection.read();
    let local = match inner.shard("count") {
        Ok(shard) => json!({
            "variant_name": "local shard",
            "status": collection.status(&node.faults),
            "total_optimized_points": 0,
            "num_points": if id == 0 {
                super::len_u64(shard.points.len()).saturating_add(shard.double_counted())
            } else {
                0
            },
            "num_vectors": vectors.values().sum::<u64>(),
            "num_vectors_by_name": vectors,
            "optimizations": {
                "status": collection.optimizer_status(&node.faults),
                "optimizations": { "count": 0, "total_duration_micros": 0 },
            },
            "async_scorer": false,
            "update_queue": { "length": queue, "op_num": shard.op_num },
        }),
        Err(_) => json!({
            "variant_name": "dummy shard",
            "status": "green",
            "total_optimized_points": 0,
            "optimizations": { "status": "ok", "optimizations": { "count": 0 } },
        }),
    };
    let states = Map::from_iter([(node.peer_id.to_string(), json!("Active"))]);
    json!({
        "id": id, "key": null, "local": local, "remote": [], "replicate_states": states,
        "partial_snapshot": {
            "ongoing_create_snapshot_requests": 0, "is_recovering": false, "recovery_timestamp": 0,
        },
    })
}

fn by_call<S: ToString>(counters: BTreeMap<(String, S), Counted>) -> Value {
    let mut calls: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for ((call, status), counted) in counters {
        let micros = u64::try_from(counted.total.as_micros()).unwrap_or(u64::MAX);
        calls.entry(call).or_default().insert(
            status.to_string(),
            json!({ "count": counted.count, "avg_duration_micros": micros / counted.count.max(1),
                    "total_duration_micros": micros }),
        );
    }
    json!(calls)
}
