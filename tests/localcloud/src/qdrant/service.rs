//! What the server counts about itself: responses for the metrics, calls for assertions.

use super::lock;
use super::node::Node;
use super::reply::{Handled, Outcome, text};
use super::request::Ctx;
use http::StatusCode;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// One request that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// `GET`, `PUT`, …
    pub method: String,
    /// The path as it was sent, percent-encoding included.
    pub path: String,
    /// The query string as it was sent, without `?`.
    pub query: String,
    /// The route, such as `/collections/{collection_name}/points`; empty when there is none.
    pub route: String,
    /// The status that was answered; `None` while it is in flight, or when the connection was dropped without an answer.
    pub status: Option<u16>,
}

/// Every call since the start, kills and restarts included.
#[derive(Clone, Debug, Default)]
pub(super) struct CallLog {
    calls: Arc<Mutex<Calls>>,
}

#[derive(Debug, Default)]
struct Calls {
    /// How many calls were forgotten: numbers go on after a clear.
    forgotten: usize,
    calls: Vec<Call>,
}

impl CallLog {
    /// Notes a call in flight; returns its number.
    pub(super) fn begin(&self, call: Call) -> usize {
        let mut log = lock(&self.calls);
        log.calls.push(call);
        log.forgotten + log.calls.len() - 1
    }

    pub(super) fn end(&self, number: usize, status: u16) {
        let mut log = lock(&self.calls);
        let index = number.checked_sub(log.forgotten);
        if let Some(call) = index.and_then(|index| log.calls.get_mut(index)) {
            call.status = Some(status);
        }
    }

    pub(super) fn all(&self) -> Vec<Call> {
        lock(&self.calls).calls.clone()
    }

    pub(super) fn clear(&self) {
        let mut log = lock(&self.calls);
        log.forgotten += log.calls.len();
        log.calls.clear();
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counted {
    pub(super) count: u64,
    pub(super) total: Duration,
    pub(super) min: Duration,
    pub(super) max: Duration,
}

/// Responses by what was asked and what was answered. A series does not exist before its first hit; all are lost at a restart.
#[derive(Debug, Default)]
pub(super) struct Counters {
    /// `"PUT /collections/{collection_name}/points"` and status.
    rest: Mutex<BTreeMap<(String, u16), Counted>>,
    /// `"/qdrant.Points/Upsert"` and gRPC status.
    grpc: Mutex<BTreeMap<(String, i32), Counted>>,
}

impl Counters {
    pub(super) fn rest(&self, method: &str, route: &str, status: u16, took: Duration) {
        add(&mut lock(&self.rest), (format!("{method} {route}"), status), took);
    }

    pub(super) fn grpc(&self, endpoint: &str, took: Duration) {
        add(&mut lock(&self.grpc), (endpoint.to_owned(), 0), took);
    }

    pub(super) fn all_rest(&self) -> BTreeMap<(String, u16), Counted> {
        lock(&self.rest).clone()
    }

    pub(super) fn all_grpc(&self) -> BTreeMap<(String, i32), Counted> {
        lock(&self.grpc).clone()
    }
}

fn add<S: Ord>(counters: &mut BTreeMap<(String, S), Counted>, key: (String, S), took: Duration) {
    let counted = counters.entry(key).or_insert(Counted { min: took, ..Counted::default() });
    counted.count = counted.count.saturating_add(1);
    counted.total = counted.total.saturating_add(took);
    counted.min = counted.min.min(took);
    counted.max = counted.max.max(took);
}

/// Snapshots of one collection, for `snapshot_*` metrics. It exists from the first snapshot or recovery on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SnapshotCounters {
    pub(super) creating: u64,
    pub(super) recovering: u64,
    /// Counted at the start of a snapshot, failures included.
    pub(super) created: u64,
}

/// Holds a gauge up while it lives, however the job ends.
pub(super) struct Gauge {
    node: Arc<Node>,
    collection: String,
    creating: bool,
}

impl Gauge {
    pub(super) fn creating(node: &Arc<Node>, collection: &str) -> Self {
        let mut all = lock(&node.snapshot_counters);
        let counters = all.entry(collection.to_owned()).or_default();
        counters.creating = counters.creating.saturating_add(1);
        counters.created = counters.created.saturating_add(1);
        drop(all);
        Self { node: Arc::clone(node), collection: collection.to_owned(), creating: true }
    }

    pub(super) fn recovering(node: &Arc<Node>, collection: &str) -> Self {
        let mut all = lock(&node.snapshot_counters);
        let counters = all.entry(collection.to_owned()).or_default();
        counters.recovering = counters.recovering.saturating_add(1);
        drop(all);
        Self { node: Arc::clone(node), collection: collection.to_owned(), creating: false }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        let mut all = lock(&self.node.snapshot_counters);
        let counters = all.entry(self.collection.clone()).or_default();
        let gauge = if self.creating { &mut counters.creating } else { &mut counters.recovering };
        *gauge = gauge.saturating_sub(1);
    }
}

pub(super) async fn root(ctx: Ctx) -> Handled {
    let body = json!({
        "title": "qdrant - vector search engine",
        "version": ctx.node.settings.version,
        "commit": ctx.node.settings.commit,
    });
    let mut response = text(StatusCode::OK, &body.to_string());
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::header::HeaderValue::from_static("application/json"));
    Ok(Outcome::Raw(response))
}

pub(super) async fn healthz(_: Ctx) -> Handled {
    Ok(Outcome::Raw(text(StatusCode::OK, "healthz check passed")))
}

/// Always ready on a single node, dummies or not.
pub(super) async fn readyz(_: Ctx) -> Handled {
    Ok(Outcome::Raw(text(StatusCode::OK, "all shards are ready")))
}

pub(super) async fn cluster(_: Ctx) -> Handled {
    super::reply::ok(&json!({ "status": "disabled" }))
}
