//! Waiting for a Qdrant that moves, or does not.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use host_worker::{
    pulse::Pulse,
    quiesce::{Error, Requirements, wait},
};
use protocol::FailureKind;
use serde_json::json;

use crate::{
    model::{Collection, Qdrant},
    server::Server,
};

const SOON: Duration = Duration::from_millis(2);

fn counter(value: u32) -> String {
    format!(
        "rest_responses_total{{method=\"PUT\",endpoint=\"/collections/{{name}}/points\",status=\"200\"}} {value}\n"
    )
}

#[tokio::test]
async fn a_server_at_rest_is_quiesced_after_three_polls_with_counts() {
    let qdrant = Qdrant::start([
        ("docs", Collection::dense(3)),
        ("grey", {
            let mut collection = Collection::dense(1);
            collection.status = "grey";
            collection
        }),
    ])
    .await;
    wait(&qdrant.client(), Requirements::STANDARD, Duration::from_secs(5), SOON, &Pulse::default())
        .await
        .unwrap();
    // The first poll has nothing to compare with and does not count points.
    assert_eq!(qdrant.server.count("GET /metrics"), 4);
    assert_eq!(qdrant.server.count("POST /collections/docs/points/count"), 3);
}

#[tokio::test]
async fn a_writer_that_stops_is_waited_for() {
    let polls = AtomicU32::new(0);
    let qdrant = Qdrant::with_hook(
        [("docs", Collection::dense(3))],
        Box::new(move |request, model| {
            if request.line() == "GET /metrics" {
                let poll = polls.fetch_add(1, Ordering::SeqCst);
                model.metrics = counter(poll.min(5));
                model.collection("docs").queue = u64::from(poll < 7);
            }
        }),
    )
    .await;
    wait(&qdrant.client(), Requirements::STANDARD, Duration::from_secs(5), SOON, &Pulse::default())
        .await
        .unwrap();
    // Poll 8 is the first at rest that equals its predecessor; 7 still had nothing to be equal to.
    assert_eq!(qdrant.server.count("GET /metrics"), 10);
}

#[tokio::test]
async fn a_writer_that_does_not_stop_is_named() {
    let polls = AtomicU32::new(0);
    let qdrant = Qdrant::with_hook(
        [("docs", Collection::dense(3))],
        Box::new(move |request, model| {
            if request.line() == "GET /metrics" {
                model.metrics = counter(polls.fetch_add(1, Ordering::SeqCst));
            }
            model.collection("docs").op_num += 1;
        }),
    )
    .await;
    let error =
        wait(&qdrant.client(), Requirements::STANDARD, Duration::from_millis(60), SOON, &Pulse::default())
            .await
            .unwrap_err();
    assert_eq!(error.kind(), FailureKind::NotQuiesced);
    let message = error.to_string();
    assert!(message.contains("PUT /points") && message.contains("collection `docs`"), "{message}");
    assert!(error.hint().unwrap().contains("--no-quiesce"));
    assert_eq!(qdrant.server.count("POST /collections/docs/points/count"), 0, "counting waits for the rest");
}

#[tokio::test]
async fn what_waiting_does_not_mend_fails_at_once() {
    let mut red = Collection::dense(1);
    red.status = "red";
    let mut failed = Collection::dense(1);
    failed.optimizer = json!({"error": "no space"});
    for (collection, metrics, text) in [
        (red, "", "`docs` is red"),
        (failed, "", "no space"),
        (Collection::dense(1), "app_status_recovery_mode 1\n", "recovery mode"),
    ] {
        let qdrant = Qdrant::start([("docs", collection)]).await;
        qdrant.model().metrics = metrics.to_owned();
        let error =
            wait(&qdrant.client(), Requirements::STANDARD, Duration::from_secs(60), SOON, &Pulse::default())
                .await
                .unwrap_err();
        assert!(matches!(error, Error::Unfit { .. }) && error.to_string().contains(text), "{error}");
        assert_eq!(qdrant.server.count("GET /metrics"), 1);
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_watched_is_not_at_rest() {
    let server = Server::start(|_| crate::server::fail(403, "Forbidden")).await;
    let error =
        wait(&server.client(), Requirements::STANDARD, Duration::from_secs(5), SOON, &Pulse::default())
            .await
            .unwrap_err();
    assert_eq!(error.kind(), FailureKind::QdrantUnauthorized);
}
