//! What boot does with a running Qdrant and files: warming up.

use std::{path::Path, time::Duration};

use host_worker::boot::warm_up::{Goal, WarmUp, Warmth, warm_up};
use protocol::{
    GoldenSet, PointId,
    golden::{CollectionGolden, FORMAT_VERSION, GoldenSearch},
};
use serde_json::json;

use crate::model::{Collection, Qdrant, Refusal};

/// Bytes of vectors in the data directory of these tests.
const BYTES: usize = 3 << 20;

fn golden() -> GoldenSet {
    let search = |x: f64| GoldenSearch {
        using: String::new(),
        point: PointId::Number(1),
        query: json!([x, 1.0]),
        limit: 3,
        confined: false,
        hits: Vec::new(),
        recall: None,
    };
    let docs = CollectionGolden {
        name: "docs".parse().unwrap(),
        points_min: 40,
        points_max: 40,
        config: json!({}),
        payload_schema: Default::default(),
        points: Vec::new(),
        changed: Vec::new(),
        searches: (0..8).map(|n| search(f64::from(n))).collect(),
        not_searched: None,
        indexed_vectors: None,
    };
    let backup_id = "20261123T051400Z".parse().unwrap();
    GoldenSet {
        format_version: FORMAT_VERSION,
        backup_id,
        aliases: Default::default(),
        collections: vec![docs],
    }
}

fn data() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let vectors = dir.path().join("collections/docs/0/segments/a/vector_storage/vectors");
    fs_err::create_dir_all(&vectors).unwrap();
    fs_err::write(vectors.join("chunk_0.mmap"), vec![1; BYTES]).unwrap();
    dir
}

async fn warmed(qdrant: &Qdrant, golden: Option<&GoldenSet>, dir: &Path, p95: Duration) -> WarmUp {
    let goal = Goal { p95, deadline: Duration::from_millis(500) };
    warm_up(&qdrant.client(), golden, dir, goal).await.unwrap()
}

#[tokio::test]
async fn what_is_fast_enough_is_warm_after_one_round() {
    let (qdrant, dir) = (Qdrant::start([("docs", Collection::dense(40))]).await, data());
    let done = warmed(&qdrant, Some(&golden()), dir.path(), Duration::from_secs(30)).await;
    assert_eq!((done.outcome, done.rounds, done.searches, done.bytes_read), (Warmth::Warm, 1, 8, 0));
    assert_eq!(qdrant.server.count("POST /collections/docs/points/query"), 8);
    assert!(done.p95_before_milliseconds.unwrap() > 0.0);
}

#[tokio::test]
async fn what_is_not_is_read_and_searched_until_time_is_up() {
    let (qdrant, dir) = (Qdrant::start([("docs", Collection::dense(40))]).await, data());
    let done = warmed(&qdrant, Some(&golden()), dir.path(), Duration::ZERO).await;
    assert_eq!((done.outcome, done.bytes_read), (Warmth::Deadline, BYTES as u64));
    assert!(done.rounds >= 2 && done.seconds >= 0.5, "{done}");
}

#[tokio::test]
async fn what_cannot_be_searched_is_read_once() {
    let (qdrant, dir) = (Qdrant::start([("docs", Collection::dense(40))]).await, data());
    let refusal = "Search is forbidden. Help: ask somebody";
    qdrant.model().refuse.push((Refusal::NormalSearch, 400, refusal));
    for golden in [Some(golden()), None] {
        let done = warmed(&qdrant, golden.as_ref(), dir.path(), Duration::ZERO).await;
        assert_eq!((done.outcome, done.bytes_read), (Warmth::Unmeasured, BYTES as u64));
        assert_eq!(done.p95_after_milliseconds, None);
    }
}

#[tokio::test]
async fn a_qdrant_that_is_away_is_an_error() {
    let qdrant = Qdrant::start([]).await;
    let goal = Goal { p95: Duration::ZERO, deadline: Duration::from_millis(500) };
    assert!(warm_up(&qdrant.client(), Some(&golden()), data().path(), goal).await.is_err());
}
