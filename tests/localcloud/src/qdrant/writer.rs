//! A writer in the background: points trickle in while a backup runs.

use super::node::Node;
use super::operation::Op;
use super::shard::{Point, PointId};
use super::vectors::{Sparse, Vector, VectorSpec};
use super::{lock, mix};
use serde_json::json;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// As which kind of client it writes: the counter that moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// `rest_responses_total`.
    Rest,
    /// `grpc_responses_total`.
    Grpc,
}

/// What trickles in.
#[derive(Clone, Debug)]
pub struct Trickle {
    /// The collection, or an alias of it.
    pub collection: String,
    /// Time between two batches.
    pub every: Duration,
    /// Points in a batch.
    pub batch: u64,
    /// Numeric id of the first point; the others follow.
    pub first_id: u64,
    /// As which client.
    pub via: Via,
}

/// Writes until it is stopped or dropped.
#[derive(Debug)]
pub struct Writer {
    written: Arc<AtomicU64>,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Writer {
    pub(super) fn start(current: Arc<Mutex<Option<Arc<Node>>>>, trickle: Trickle) -> Self {
        let written = Arc::new(AtomicU64::new(0));
        let stop = CancellationToken::new();
        let mut task = JoinSet::new();
        task.spawn(run(current, trickle, Arc::clone(&written), stop.clone()));
        Self { written, stop, task }
    }

    /// How many points it has written so far.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }

    /// Stops after the batch under way; returns how many points it has written.
    pub async fn stop(mut self) -> u64 {
        self.stop.cancel();
        while self.task.join_next().await.is_some() {}
        self.written()
    }
}

async fn run(
    current: Arc<Mutex<Option<Arc<Node>>>>,
    trickle: Trickle,
    written: Arc<AtomicU64>,
    stop: CancellationToken,
) {
    let mut next = trickle.first_id;
    loop {
        let node = lock(&current).clone();
        if let Some(node) = node.filter(|node| !node.death.is_cancelled())
            && write_batch(&node, &trickle, next)
        {
            next = next.saturating_add(trickle.batch);
            written.fetch_add(trickle.batch, Ordering::SeqCst);
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(trickle.every) => {}
        }
    }
}

/// False when the collection is not there or not writable now.
fn write_batch(node: &Arc<Node>, trickle: &Trickle, first: u64) -> bool {
    let started = Instant::now();
    let Ok(collection) = node.collection(&trickle.collection) else {
        return false;
    };
    let points = {
        let inner = collection.read();
        let make = |id: u64| -> Option<(PointId, Point)> {
            let raw = inner.specs.iter().map(|(name, spec)| (name.clone(), sample(*spec, id))).collect();
            let vectors = inner.prepare(raw).ok()?;
            let payload = json!({ "trickle": id }).as_object().cloned()?;
            Some((PointId::Num(id), Point { payload, vectors, version: 0 }))
        };
        (first..first.saturating_add(trickle.batch)).map(make).collect::<Option<Vec<_>>>()
    };
    let done = points.is_some_and(|points| node.update(&collection, Op::Upsert(points), true).is_ok());
    if done {
        match trickle.via {
            Via::Rest => {
                node.counters.rest("PUT", "/collections/{collection_name}/points", 200, started.elapsed());
            }
            Via::Grpc => node.counters.grpc("/qdrant.Points/Upsert", started.elapsed()),
        }
    }
    done
}

/// Some vector that fits, the same for the same id.
fn sample(spec: VectorSpec, id: u64) -> Vector {
    let row = |salt: u64, size: usize| -> Vec<f32> {
        (0_u64..).take(size).map(|at| unit(mix(id ^ mix(salt ^ mix(at))))).collect()
    };
    match spec {
        VectorSpec::Dense { size, multi: false, .. } => Vector::Dense(row(0, size)),
        VectorSpec::Dense { size, multi: true, .. } => Vector::Multi(vec![row(1, size), row(2, size)]),
        VectorSpec::Sparse { .. } => {
            let index = u32::from(u16::try_from(id % 30_000).unwrap_or_default());
            Vector::Sparse(Sparse { indices: vec![index, index + 1], values: row(3, 2) })
        }
    }
}

/// A number from -1 to 1.
fn unit(seed: u64) -> f32 {
    let high = u16::try_from(seed >> 48).unwrap_or_default();
    f32::from(high) / 32_767.5 - 1.0
}
