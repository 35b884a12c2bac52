//! The literal replies of a Qdrant 1.18.3, shortened, are understood.

use std::collections::BTreeMap;

use host_worker::{
    golden::Sample,
    qdrant::{CollectionStatus, Error, OptimizerStatus, Search, WriteCounters, check_config},
};
use protocol::{CollectionName, FailureKind, PointId};
use serde_json::{Value, json};

use crate::server::{Reply, Server};

/// Serves each recorded reply at its path, below which a collection is only a name.
async fn server() -> Server {
    let replies: BTreeMap<String, String> =
        serde_json::from_str(include_str!("replies-1.18.3.json")).unwrap();
    Server::start(move |request| {
        let line = request.line();
        let (status, reply) = match line.as_str() {
            "GET /" => (200, "root"),
            "GET /collections" if request.header("api-key").is_none() => (401, "unauthorized_401"),
            "GET /collections" => (200, "collections"),
            "GET /collections/full" => (200, "info"),
            "GET /collections/strict" => (200, "info_strict"),
            "GET /collections/custom" => (200, "info_custom"),
            "GET /collections/nope" => (404, "not_found_404"),
            "GET /aliases" => (200, "aliases"),
            "GET /telemetry" => (200, "telemetry"),
            "GET /metrics" => (200, "metrics"),
            "GET /collections/plain/snapshots" => (200, "snapshots"),
            "POST /collections/full/snapshots" => (200, "snapshot"),
            "GET /collections/full/snapshots" => return Reply::Json(200, json!({"result": []})),
            "POST /collections/full/points/count" => (200, "count"),
            "POST /collections/full/points/query" if request.body["query"]["sample"] == "random" => {
                (200, "sample")
            }
            "POST /collections/full/points/query" => (200, "search"),
            "POST /collections/strict/points/query" => (400, "strict_400"),
            "POST /collections/full/points/scroll" => (200, "scroll"),
            "POST /collections/full/points" => {
                // A listing of points is in the same form, one level deeper.
                let listed: Value = serde_json::from_str(&replies["points"]).unwrap();
                return Reply::Json(200, json!({"result": listed["result"]["points"], "status": "ok"}));
            }
            other => panic!("{other}"),
        };
        Reply::Text(status, replies[reply].clone(), Vec::new())
    })
    .await
}

fn name(text: &str) -> CollectionName {
    text.parse().unwrap()
}

#[tokio::test]
async fn collections_and_their_configurations() {
    let server = server().await;
    let client = server.client();
    assert_eq!(client.version().await.unwrap().to_string(), "1.18.3");
    client.check_auth().await.unwrap();
    assert_eq!(client.collections().await.unwrap().len(), 10);
    let full = client.collection(&name("full")).await.unwrap();
    assert_eq!((full.status, &full.optimizer_status), (CollectionStatus::Green, &OptimizerStatus::Ok));
    assert_eq!((full.queue_length(), full.points_count, full.segments_count), (0, Some(60), 4));
    assert_eq!(full.payload_schema.len(), 9);
    assert_eq!(
        full.payload_schema["ten"],
        json!({"data_type": "keyword", "params": {"type": "keyword", "is_tenant": true, "on_disk": true}})
    );
    assert!(full.weighs_by_frequency("idf") && !full.weighs_by_frequency("sp"));
    assert!(check_config(&name("full"), &full.config).is_ok());
    assert_eq!(client.collection(&name("strict")).await.unwrap().max_query_limit(), Some(5));
    let custom = check_config(&name("custom"), &client.collection(&name("custom")).await.unwrap().config);
    assert_eq!(custom.unwrap_err().kind(), FailureKind::CollectionUnsupported);
    assert!(client.collection(&name("nope")).await.unwrap_err().is_not_found());
    let aliases = client.aliases().await.unwrap();
    assert_eq!(aliases, BTreeMap::from([("al".to_owned(), name("plain")), ("al2".to_owned(), name("full"))]));
}

#[tokio::test]
async fn what_moves() {
    let server = server().await;
    let client = server.client();
    let telemetry = client.telemetry().await.unwrap();
    assert_eq!(telemetry.started.as_deref(), Some("2026-11-23T06:26:57.610Z"));
    assert_eq!(
        telemetry.operation_numbers,
        BTreeMap::from([("full".to_owned(), 38), ("strict".to_owned(), 0)])
    );
    let metrics = client.metrics().await.unwrap();
    assert!(metrics.snapshots_running.is_empty() && metrics.recoveries_running.is_empty());
    assert!(!metrics.recovery_mode);
    assert_eq!(metrics.queue_lengths.len(), 10);
    assert_eq!(
        metrics.writes.differences(&WriteCounters::default()).collect::<Vec<_>>(),
        [
            ("POST /points/delete", 1, 0),
            ("POST /points/payload", 1, 0),
            ("PUT /index", 9, 0),
            ("PUT /points", 9, 0)
        ]
    );
}

#[tokio::test]
async fn points_and_searches() {
    let server = server().await;
    let (client, full) = (server.client(), name("full"));
    assert_eq!(client.count_exact(&full, None).await.unwrap(), 60);
    let sampled = client.sample(&full, 3).await.unwrap();
    assert_eq!(sampled, [23, 26, 13].map(PointId::Number));
    let (page, next) = client.scroll(&full, None, 3).await.unwrap();
    assert_eq!((page, next), ([1, 2, 3].map(PointId::Number).to_vec(), Some(PointId::Number(4))));
    let query = json!([0.1, 0.2, 0.3, 0.4]);
    let search = Search { using: "dense", query: &query, limit: 3, exact: true, among: None };
    let hits = client.search(&full, &search).await.unwrap();
    assert_eq!((hits[0].id, hits[0].score), (PointId::Number(3), 0.937_680_5));
    let refused = client.search(&name("strict"), &search).await.unwrap_err();
    assert!(refused.refusal().unwrap().contains("Limit exceeded"));

    // Integers above 2^53, empty payloads, no vectors, and every kind of vector.
    let points = client.retrieve(&full, &sampled).await.unwrap();
    assert_eq!(points[0].payload["big"], json!(9_007_199_254_740_994_u64));
    assert_eq!(Sample::take(&client, &full).await.unwrap().ids().len(), 4);
}

#[tokio::test]
async fn snapshots() {
    let server = server().await;
    let client = server.client();
    let listed = client.snapshots(&name("plain")).await.unwrap();
    assert_eq!(listed.len(), 3);
    assert!(listed.iter().all(|snapshot| snapshot.creation_time.is_some() && snapshot.checksum.is_some()));
    let created = client.create_snapshot(&name("full")).await.unwrap();
    assert_eq!((created.size, created.adopted), (1_115_136, false));
    let wrong = host_worker::qdrant::Client::new(server.url(), None, crate::server::QUICK).unwrap();
    let error: Error = wrong.check_auth().await.unwrap_err();
    assert!(std::error::Error::source(&error).unwrap().to_string().contains("Invalid API key or JWT"));
}
