//! The client against every kind of answer, and against none.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use host_worker::{
    pulse::Pulse,
    qdrant::{AliasChange, ApiKey, Auth, Checksum, Client, Error, Options, Recovery, Search, SnapshotInfo},
};
use protocol::{CollectionName, FailureKind, PointId};
use serde_json::{Value, json};

use crate::server::{KEY, QUICK, Reply, Request, Server, client, fail, ok, text};

fn name(text: &str) -> CollectionName {
    text.parse().unwrap()
}

fn snapshot(number: u32) -> Value {
    json!({
        "name": format!("docs-1-2026-01-01-00-00-0{number}.snapshot"),
        "creation_time": format!("2026-01-01T00:00:0{number}"),
        "size": 1000 + number,
        "checksum": format!("{number:064x}"),
    })
}

fn running(snapshots: u32, recoveries: u32) -> Reply {
    text(
        200,
        &format!(
            "snapshot_creation_running{{id=\"docs\"}} {snapshots}\nsnapshot_recovery_running{{id=\"docs\"}} {recoveries}\n"
        ),
    )
}

/// Answers each path with its own sequence; the last answer of a sequence is repeated.
fn sequences(of: &[(&str, Vec<Reply>)]) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let sequences: BTreeMap<String, (AtomicUsize, Vec<Reply>)> = of
        .iter()
        .map(|(line, replies)| ((*line).to_owned(), (AtomicUsize::new(0), replies.clone())))
        .collect();
    move |request| match sequences.get(&request.line()) {
        Some((next, replies)) => replies[next.fetch_add(1, Ordering::SeqCst).min(replies.len() - 1)].clone(),
        None => fail(404, &format!("Not found: {}", request.line())),
    }
}

const SNAPSHOTS: &str = "/collections/docs/snapshots";
const LIST: &str = "GET /collections/docs/snapshots";
const CREATE: &str = "POST /collections/docs/snapshots";
const RECOVER: &str = "PUT /collections/docs/snapshots/recover";
const METRICS: &str = "GET /metrics";

#[tokio::test]
async fn the_version_is_read_and_other_servers_are_told_apart() {
    let server = Server::start(|_| {
        Reply::Json(
            200,
            json!({"title": "qdrant - vector search engine", "version": "1.18.3", "commit": "x"}),
        )
    })
    .await;
    assert_eq!(server.client().version().await.unwrap().to_string(), "1.18.3");
    for reply in [text(200, "<html>hello</html>"), Reply::Json(200, json!({"version": "seven"}))] {
        let server = Server::start(move |_| reply.clone()).await;
        let error = server.client().version().await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::QdrantUnsupported);
    }
}

#[tokio::test]
async fn a_key_that_works_a_key_that_does_not_and_a_server_without_one() {
    let guarded = Server::start(|request| match request.header("api-key") {
        Some(KEY) => ok(json!({"collections": []})),
        Some(_) | None => text(401, "Invalid API key or JWT"),
    })
    .await;
    assert_eq!(guarded.client().check_auth().await.unwrap(), Auth::Required);

    let open = Server::start(|_| ok(json!({"collections": []}))).await;
    assert_eq!(open.client().check_auth().await.unwrap(), Auth::Open);

    let wrong = Client::new(guarded.url(), Some(ApiKey::new("wrong-key").unwrap()), QUICK).unwrap();
    let none = Client::new(guarded.url(), None, QUICK).unwrap();
    for client in [wrong, none] {
        let error = client.check_auth().await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::QdrantUnauthorized);
        assert!(error.hint().unwrap().contains("read-write key"));
        assert!(format!("{:?}", std::error::Error::source(&error)).contains("Invalid API key"));
    }
    assert_eq!(guarded.calls().len(), 4, "a refused key is not tried again");
}

#[tokio::test]
async fn the_key_is_never_part_of_a_message() {
    let server = Server::start(|request| {
        fail(403, &format!("Forbidden: key {} has no access", request.header("api-key").unwrap_or_default()))
    })
    .await;
    let client = server.client();
    let error = client.collections().await.unwrap_err();
    let everything = format!("{error} {error:?} {client:?}");
    assert!(everything.contains("key *** has no access"), "{everything}");
    assert!(!everything.contains(KEY), "{everything}");
}

#[tokio::test]
async fn every_failure_has_its_kind() {
    type Call = fn(Client) -> Pin<Box<dyn Future<Output = Error>>>;
    let info: Call = |client| Box::pin(async move { client.collection(&name("docs")).await.unwrap_err() });
    let create: Call =
        |client| Box::pin(async move { client.create_snapshot(&name("docs")).await.unwrap_err() });
    let recover: Call = |client| {
        Box::pin(async move {
            let checksum = "0".repeat(64).parse().unwrap();
            client.recover(&name("docs"), "file:///s/x", &checksum).await.unwrap_err()
        })
    };
    for (call, status, message, kind) in [
        (info, 404, "Not found: Collection `docs` doesn't exist!", FailureKind::ConfigInvalid),
        (info, 401, "Invalid API key", FailureKind::QdrantUnauthorized),
        (info, 403, "Forbidden: access denied", FailureKind::QdrantUnauthorized),
        (info, 500, "Service internal error: Failed to load shard", FailureKind::QdrantUnavailable),
        (info, 503, "busy", FailureKind::QdrantUnavailable),
        (info, 400, "Bad request", FailureKind::QdrantUnsupported),
        (create, 500, "Service internal error: tar failed", FailureKind::SnapshotFailed),
        (create, 404, "Not found", FailureKind::SnapshotFailed),
        (create, 403, "Forbidden: Write access is required", FailureKind::QdrantUnauthorized),
        (create, 500, "Service internal error: No space left on device (os error 28)", FailureKind::LowDisk),
        (create, 507, "Insufficient storage", FailureKind::LowDisk),
        (
            recover,
            400,
            "Wrong input: Snapshot checksum mismatch: expected 00, got 22",
            FailureKind::ChecksumMismatch,
        ),
        (recover, 400, "Bad request: Snapshot file \"/s/x\" does not exist", FailureKind::RestoreFailed),
        (recover, 500, "Service internal error: Failed to load", FailureKind::RestoreFailed),
        (
            recover,
            403,
            "Forbidden: Snapshot file path must be inside the snapshots directory \"/q\"",
            FailureKind::RestoreFailed,
        ),
        (recover, 403, "Forbidden: Global manage access is required", FailureKind::QdrantUnauthorized),
        (recover, 500, "No space left on device", FailureKind::LowDisk),
    ] {
        let failure = fail(status, message);
        let server = Server::start(move |request| match request.line().as_str() {
            METRICS => running(0, 0),
            LIST => ok(json!([])),
            "GET /aliases" => ok(json!({"aliases": []})),
            _ => failure.clone(),
        })
        .await;
        let error = call(server.client()).await;
        assert_eq!(error.kind(), kind, "{error}: {status} {message}");
        assert!(error.hint().is_some(), "{error}");
        assert_eq!(error.is_not_found(), status == 404);
        // Changes are sent once.
        assert!(server.count(CREATE) <= 1 && server.count(RECOVER) <= 1);
    }
}

#[tokio::test]
async fn nobody_there_a_broken_connection_and_silence() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = client(&format!("http://{address}")).collections().await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::QdrantUnavailable);

    for reply in [Reply::Hangup, Reply::Torn] {
        let server = Server::start(move |_| reply.clone()).await;
        let error = server.client().collections().await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::QdrantUnavailable);
        assert_eq!(server.calls().len(), 3, "a read is tried again");
    }

    let server = Server::start(|_| Reply::Stall).await;
    let options = Options { request_timeout: Duration::from_millis(50), ..QUICK };
    let client = Client::new(server.url(), None, options).unwrap();
    let error = client.collections().await.unwrap_err();
    assert!(error.is_timeout() && error.kind() == FailureKind::QdrantUnavailable);
    assert_eq!(server.calls().len(), 3);
    let query = json!([1.0]);
    let search = Search { using: "", query: &query, limit: 1, exact: true, among: None };
    assert!(client.search(&name("docs"), &search).await.unwrap_err().is_timeout());
    assert_eq!(server.calls().len(), 4, "a search that took too long is not made again");
}

#[tokio::test]
async fn transient_failures_of_reads_are_tried_again_and_patience_has_an_end() {
    let server = Server::start(sequences(&[(
        "GET /collections",
        vec![
            fail(503, "later"),
            fail(429, "slow down"),
            ok(json!({"collections": [{"name": "b"}, {"name": "a"}]})),
        ],
    )]))
    .await;
    assert_eq!(server.client().collections().await.unwrap(), [name("a"), name("b")]);
    assert_eq!(server.calls().len(), 3);

    let limited = Reply::Text(429, String::new(), vec![("retry-after", "3600".to_owned())]);
    let server = Server::start(move |_| limited.clone()).await;
    let error = server.client().collections().await.unwrap_err();
    assert!(error.refusal().is_some());
    assert_eq!(server.calls().len(), 1, "nobody waits for an hour");
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let server = Server::start(|_| Reply::Endless).await;
    let options = Options { request_timeout: Duration::from_secs(60), ..QUICK };
    let client = Client::new(server.url(), None, options).unwrap();
    let error = client.collections().await.unwrap_err();
    assert!(format!("{error:?}").contains("TooLarge"), "{error:?}");
}

#[tokio::test]
async fn odd_names_reach_the_server_as_they_are() {
    for odd in
        ["a b", "100%", "za\u{17c}\u{f3}\u{142}\u{107}", "a+b&c=d#e;f", "%2F", "a.b", "...", "~'()!@$,[]{}^`"]
    {
        let server = Server::start(|_| ok(json!([]))).await;
        server.client().snapshots(&name(odd)).await.unwrap();
        let calls = server.calls();
        let segments: Vec<&str> = calls[0].target.split('/').collect();
        assert_eq!(segments.len(), 4, "{}", calls[0].target);
        assert_eq!(decode(segments[2]), odd);
    }
    let server = Server::start(|_| ok(json!([]))).await;
    for impossible in [".", ".."] {
        let error = server.client().snapshots(&name(impossible)).await.unwrap_err();
        assert_eq!(error.kind(), FailureKind::CollectionUnsupported);
    }
    assert!(server.calls().is_empty());
}

fn decode(segment: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), segment.bytes());
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next().unwrap(), rest.next().unwrap()];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn a_path_before_the_api_is_kept_and_bad_addresses_are_refused() {
    let server = Server::start(|_| ok(json!({"collections": []}))).await;
    for suffix in ["/qdrant", "/qdrant/"] {
        client(&format!("{}{suffix}", server.url())).collections().await.unwrap();
    }
    assert!(server.calls().iter().all(|call| call.target == "/qdrant/collections"));
    assert!(server.calls().iter().all(|call| call.header("accept-encoding").is_none()));
    for bad in ["", "127.0.0.1:6333", "ftp://x", "http://user:secret@host:6333", "mailto:x@y"] {
        let error = Client::new(bad, None, QUICK).unwrap_err();
        assert_eq!(error.kind(), FailureKind::ConfigInvalid, "{bad}");
    }
}

#[tokio::test]
async fn counts_searches_and_points_are_asked_for_as_documented() {
    let server = Server::start(|request| match request.line().as_str() {
        "POST /collections/docs/points/count" => ok(json!({"count": 7})),
        "POST /collections/docs/points/query" => ok(json!({"points": [
            {"id": 7, "version": 3, "score": 0.5},
            {"id": "5bc5bd60-c4d9-d098-e181-c880b6f07e07", "version": 3, "score": 0.25},
        ]})),
        "POST /collections/docs/points/scroll" => {
            ok(json!({"points": [{"id": 1}, {"id": 2}], "next_page_offset": 3}))
        }
        "POST /collections/docs/points" => {
            ok(json!([{"id": 1, "payload": {"a": 1}, "vector": [0.5]}, {"id": 2}]))
        }
        _ => fail(404, "no"),
    })
    .await;
    let (client, docs) = (server.client(), name("docs"));
    let ids =
        [PointId::Number(7), "5bc5bd60-c4d9-d098-e181-c880b6f07e07".parse().map(PointId::Uuid).unwrap()];
    assert_eq!(client.count_exact(&docs, Some(&ids)).await.unwrap(), 7);
    let query = json!({"indices": [1], "values": [0.5]});
    let search = Search { using: "sparse", query: &query, limit: 3, exact: true, among: Some(&ids) };
    let hits = client.search(&docs, &search).await.unwrap();
    assert_eq!(hits.iter().map(|hit| hit.id).collect::<Vec<_>>(), ids);
    assert_eq!(client.sample(&docs, 256).await.unwrap(), ids);
    let page = client.scroll(&docs, Some(PointId::Number(1)), 2).await.unwrap();
    assert_eq!(page, (vec![PointId::Number(1), PointId::Number(2)], Some(PointId::Number(3))));
    let points = client.retrieve(&docs, &ids).await.unwrap();
    assert_eq!((&points[0].payload, &points[1].vector), (&json!({"a": 1}), &Value::Null));

    let has_id = json!({"must": [{"has_id": [7, "5bc5bd60-c4d9-d098-e181-c880b6f07e07"]}]});
    let bodies: Vec<Value> = server.calls().into_iter().map(|call| call.body).collect();
    assert_eq!(bodies[0], json!({"exact": true, "filter": has_id}));
    assert_eq!(
        bodies[1],
        json!({"query": query, "using": "sparse", "limit": 3, "params": {"exact": true}, "filter": has_id,
            "with_payload": false, "with_vector": false})
    );
    assert_eq!(bodies[2]["query"], json!({"sample": "random"}));
    assert_eq!(bodies[3]["offset"], json!(1));
}

#[tokio::test]
async fn where_exact_counts_are_forbidden_segments_are_added_up() {
    let server = Server::start(|request| match request.body["exact"].as_bool() {
        Some(true) => fail(400, "Bad request: Exact search disabled!. Help: Set exact=false."),
        Some(false) | None => ok(json!({"count": 40})),
    })
    .await;
    assert_eq!(server.client().count_exact(&name("docs"), None).await.unwrap(), 40);
    let among = [PointId::Number(1)];
    assert!(
        server.client().count_exact(&name("docs"), Some(&among)).await.is_err(),
        "an estimate is no count"
    );
}

#[tokio::test]
async fn aliases_change_in_one_request() {
    let server = Server::start(|request| match request.line().as_str() {
        "GET /aliases" => ok(json!({"aliases": [{"alias_name": "now", "collection_name": "docs"}]})),
        "POST /collections/aliases" => ok(json!(true)),
        _ => fail(404, "no"),
    })
    .await;
    let client = server.client();
    assert_eq!(client.aliases().await.unwrap(), BTreeMap::from([("now".to_owned(), name("docs"))]));
    client
        .change_aliases(&[
            AliasChange::Delete { alias: "now".to_owned() },
            AliasChange::Create { alias: "now".to_owned(), collection: name("docs-2") },
        ])
        .await
        .unwrap();
    client.change_aliases(&[]).await.unwrap();
    assert_eq!(server.count("POST /collections/aliases"), 1);
    assert_eq!(
        server.calls()[1].body,
        json!({"actions": [
            {"delete_alias": {"alias_name": "now"}},
            {"create_alias": {"alias_name": "now", "collection_name": "docs-2"}},
        ]})
    );
}

#[tokio::test]
async fn deleting_what_is_not_there_is_done() {
    let server = Server::start(|_| fail(404, "Not found")).await;
    server.client().delete_collection(&name("docs")).await.unwrap();
    server.client().delete_snapshot(&name("docs"), "a b.snapshot").await.unwrap();
    assert_eq!(server.calls()[1].line(), format!("DELETE {SNAPSHOTS}/a%20b.snapshot"));
    let server = Server::start(|_| ok(json!(false))).await;
    server.client().delete_collection(&name("docs")).await.unwrap();
    let server = Server::start(|_| fail(500, "no")).await;
    assert!(server.client().delete_snapshot(&name("docs"), "x").await.is_err());
    assert_eq!(server.calls().len(), 1);
}

#[tokio::test]
async fn a_snapshot_takes_as_long_as_it_takes() {
    let late = Reply::Late(Duration::from_millis(400), json!({"result": snapshot(1)}));
    let server = Server::start(sequences(&[
        (LIST, vec![ok(json!([]))]),
        (METRICS, vec![running(0, 0)]),
        (CREATE, vec![late]),
    ]))
    .await;
    let options = Options { request_timeout: Duration::from_millis(100), ..QUICK };
    let client = Client::new(server.url(), None, options).unwrap();
    let created = client.create_snapshot(&name("docs")).await.unwrap();
    assert_eq!((created.size, created.adopted), (1001, false));
    assert_eq!(created.checksum.as_str(), format!("{:064x}", 1));
    assert!(server.calls().last().unwrap().target.ends_with("?wait=true"));
}

#[tokio::test]
async fn a_lost_answer_is_found_in_the_list() {
    let old = snapshot(0);
    for lost in [Reply::Hangup, Reply::Torn, fail(504, "gateway timeout")] {
        let server = Server::start(sequences(&[
            (LIST, vec![ok(json!([old])), ok(json!([old])), ok(json!([snapshot(1), old]))]),
            (METRICS, vec![running(0, 0), running(1, 0), running(1, 0), running(0, 0)]),
            (CREATE, vec![lost]),
        ]))
        .await;
        let created = server.client().create_snapshot(&name("docs")).await.unwrap();
        assert_eq!((created.size, created.adopted), (1001, false));
        assert_eq!(server.count(CREATE), 1, "never asked for twice");
    }
}

#[tokio::test]
async fn a_snapshot_that_ends_without_a_result_has_failed() {
    let server = Server::start(sequences(&[
        (LIST, vec![ok(json!([snapshot(0)]))]),
        (METRICS, vec![running(0, 0), running(1, 0), running(0, 0)]),
        (CREATE, vec![Reply::Hangup]),
    ]))
    .await;
    let error = server.client().create_snapshot(&name("docs")).await.unwrap_err();
    assert!(matches!(error, Error::SnapshotVanished { .. }), "{error}");
    assert_eq!((error.kind(), error.kind().is_transient()), (FailureKind::SnapshotFailed, true));
    assert_eq!(server.count(CREATE), 1);
}

#[tokio::test]
async fn a_server_that_stays_away_after_a_lost_answer_leaves_the_outcome_unknown() {
    let server = Server::start(sequences(&[
        (LIST, vec![ok(json!([]))]),
        (METRICS, vec![running(0, 0), Reply::Hangup]),
        (CREATE, vec![Reply::Hangup]),
    ]))
    .await;
    let error = server.client().create_snapshot(&name("docs")).await.unwrap_err();
    assert!(matches!(error, Error::AnswerLost { .. }), "{error}");
    assert_eq!(error.kind(), FailureKind::QdrantUnavailable);
    assert_eq!(server.count(CREATE), 1);
}

#[tokio::test]
async fn a_restart_after_a_lost_answer_is_waited_out() {
    let server = Server::start(sequences(&[
        (LIST, vec![ok(json!([])), ok(json!([snapshot(1)]))]),
        (
            METRICS,
            vec![running(0, 0), Reply::Hangup, Reply::Hangup, Reply::Hangup, Reply::Hangup, running(0, 0)],
        ),
        (CREATE, vec![Reply::Hangup]),
    ]))
    .await;
    assert_eq!(server.client().create_snapshot(&name("docs")).await.unwrap().size, 1001);
}

#[tokio::test]
async fn a_snapshot_that_already_runs_is_adopted() {
    let server = Server::start(sequences(&[
        (
            LIST,
            vec![ok(json!([snapshot(0)])), ok(json!([snapshot(0)])), ok(json!([snapshot(0), snapshot(2)]))],
        ),
        (METRICS, vec![running(1, 0), running(1, 0), running(0, 0)]),
    ]))
    .await;
    let created = server.client().create_snapshot(&name("docs")).await.unwrap();
    assert_eq!((created.size, created.adopted), (1002, true));
    assert_eq!(server.count(CREATE), 0);
}

#[tokio::test]
async fn answers_are_marks_but_looking_whether_something_runs_is_none() {
    let server = Server::start(sequences(&[
        (LIST, vec![ok(json!([])), ok(json!([])), ok(json!([])), ok(json!([snapshot(1)]))]),
        (METRICS, vec![running(1, 0), running(1, 0), running(1, 0), running(0, 0)]),
        ("GET /collections", vec![ok(json!({ "collections": [{ "name": "docs" }] }))]),
    ]))
    .await;
    let pulse = Pulse::default();
    let client = server.client().watched(pulse.clone());
    assert!(client.create_snapshot(&name("docs")).await.unwrap().adopted);
    assert!(server.count(METRICS) > 3, "it was waited for");
    assert_eq!(pulse.seen().marks, 0);
    assert_eq!(client.collections().await.unwrap(), [name("docs")]);
    assert_eq!(pulse.seen().marks, 1);
}

#[tokio::test]
async fn when_the_one_that_ran_failed_another_is_taken() {
    let server = Server::start(sequences(&[
        (LIST, vec![ok(json!([]))]),
        (METRICS, vec![running(1, 0), running(0, 0)]),
        (CREATE, vec![ok(snapshot(3))]),
    ]))
    .await;
    let created = server.client().create_snapshot(&name("docs")).await.unwrap();
    assert_eq!((created.size, created.adopted), (1003, false));
    assert_eq!(server.count(CREATE), 1);
}

#[tokio::test]
async fn a_snapshot_without_a_checksum_is_refused() {
    let server = Server::start(sequences(&[
        (LIST, vec![ok(json!([]))]),
        (METRICS, vec![running(0, 0)]),
        (CREATE, vec![ok(json!({"name": "x.snapshot", "size": 1, "creation_time": null}))]),
    ]))
    .await;
    let error = server.client().create_snapshot(&name("docs")).await.unwrap_err();
    assert!(matches!(error, Error::NoChecksum { .. }) && error.kind() == FailureKind::SnapshotFailed);
}

fn checksum() -> Checksum {
    "ab".repeat(32).parse().unwrap()
}

#[tokio::test]
async fn a_recovery_states_checksum_and_priority() {
    let server = Server::start(sequences(&[
        ("GET /aliases", vec![ok(json!({"aliases": []}))]),
        (METRICS, vec![running(0, 0)]),
        (RECOVER, vec![ok(json!(true))]),
    ]))
    .await;
    let recovery = server.client().recover(&name("docs"), "file:///qdrant/snapshots/x", &checksum()).await;
    assert_eq!(recovery.unwrap(), Recovery::Confirmed);
    let sent = server.calls().pop().unwrap();
    assert_eq!(
        sent.body,
        json!({"location": "file:///qdrant/snapshots/x", "priority": "snapshot", "checksum": "ab".repeat(32)})
    );
    assert!(sent.target.ends_with("?wait=true"));
}

#[tokio::test]
async fn a_recovery_never_goes_through_an_alias_nor_beside_another() {
    let server = Server::start(sequences(&[
        ("GET /aliases", vec![ok(json!({"aliases": [{"alias_name": "docs", "collection_name": "live"}]}))]),
        (RECOVER, vec![ok(json!(true))]),
    ]))
    .await;
    let error = server.client().recover(&name("docs"), "file:///x", &checksum()).await.unwrap_err();
    assert!(matches!(&error, Error::TargetIsAlias { target, .. } if target == "live"));
    assert_eq!(server.count(RECOVER), 0);

    let server = Server::start(sequences(&[
        ("GET /aliases", vec![ok(json!({"aliases": []}))]),
        (METRICS, vec![running(0, 1)]),
        (RECOVER, vec![ok(json!(true))]),
    ]))
    .await;
    let error = server.client().recover(&name("docs"), "file:///x", &checksum()).await.unwrap_err();
    assert_eq!(error.kind(), FailureKind::Busy);
    assert_eq!(server.count(RECOVER), 0);
}

#[tokio::test]
async fn a_recovery_whose_answer_is_lost_is_waited_for_and_not_believed() {
    let server = Server::start(sequences(&[
        ("GET /aliases", vec![ok(json!({"aliases": []}))]),
        (METRICS, vec![running(0, 0), running(0, 1), running(0, 1), running(0, 0)]),
        (RECOVER, vec![Reply::Hangup]),
    ]))
    .await;
    let recovery = server.client().recover(&name("docs"), "file:///x", &checksum()).await;
    assert_eq!(recovery.unwrap(), Recovery::Unconfirmed);
    assert_eq!((server.count(RECOVER), server.count(METRICS)), (1, 6));
}

#[tokio::test]
async fn waiting_for_a_snapshot_takes_the_newest_new_one() {
    let server = Server::start(sequences(&[
        (LIST, vec![ok(json!([snapshot(2), snapshot(4), snapshot(3)]))]),
        (METRICS, vec![running(0, 0)]),
    ]))
    .await;
    let before: Vec<SnapshotInfo> = serde_json::from_value(json!([snapshot(4)])).unwrap();
    let found = server.client().wait_for_snapshot(&name("docs"), &before).await.unwrap();
    assert_eq!(found.size, 1003);
}

/// The flows run in a `JoinSet`, so that their futures must be able to move between threads.
#[test]
fn the_futures_can_be_spawned() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    let client = client("http://127.0.0.1:9");
    let (docs, checksum) = (name("docs"), checksum());
    drop(send(client.create_snapshot(&docs)));
    drop(send(client.recover(&docs, "file:///x", &checksum)));
    drop(send(host_worker::state::State::read(&client)));
    drop(send(host_worker::golden::Sample::take(&client, &docs)));
}
