//! The Qdrant stand-in, driven over HTTP: each habit of the real server that the product relies on is asserted here.

#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it must be")]

use localcloud::qdrant::{
    Change, Condition, Damage, Fault, QdrantOptions, QdrantStandIn, Server, ServerOptions, Trickle, Via, When,
};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const KEY: &str = "rw-key";
const READ_ONLY: &str = "ro-key";

/// A client with a key, and short words for what tests do all the time.
struct Client {
    http: reqwest::Client,
    url: String,
    key: Option<&'static str>,
}

impl Client {
    fn new(url: String, key: Option<&'static str>) -> Self {
        Self { http: reqwest::Client::builder().no_proxy().build().unwrap(), url, key }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> reqwest::Result<reqwest::Response> {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(key) = self.key {
            request = request.header("api-key", key);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let response = self.send(method, path, body).await.unwrap();
        let status = response.status();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    async fn ok(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.call(method, path, body).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        assert_eq!(answer["status"], "ok");
        assert!(answer["time"].is_number());
        answer["result"].clone()
    }

    async fn get(&self, path: &str) -> Value {
        self.ok(Method::GET, path, None).await
    }

    async fn put(&self, path: &str, body: Value) -> Value {
        self.ok(Method::PUT, path, Some(body)).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.ok(Method::POST, path, Some(body)).await
    }

    async fn fails(&self, method: Method, path: &str, body: Option<Value>) -> (u16, String) {
        let (status, answer) = self.call(method, path, body).await;
        let message =
            answer["status"]["error"].as_str().unwrap_or_else(|| panic!("{path}: {status} {answer}"));
        (status.as_u16(), message.to_owned())
    }

    async fn count(&self, collection: &str) -> u64 {
        let path = format!("/collections/{collection}/points/count");
        self.post(&path, json!({ "exact": true })).await["count"].as_u64().unwrap()
    }

    /// A cosine collection with points 0..n of four dimensions.
    async fn fill(&self, collection: &str, n: u64) {
        let vectors = json!({ "vectors": { "size": 4, "distance": "Cosine" } });
        self.put(&format!("/collections/{collection}"), vectors).await;
        self.upsert(collection, 0, n).await;
    }

    async fn upsert(&self, collection: &str, from: u64, to: u64) {
        let points: Vec<Value> = (from..to).map(point).collect();
        let done = self
            .put(&format!("/collections/{collection}/points?wait=true"), json!({ "points": points }))
            .await;
        assert_eq!(done["status"], "completed");
    }

    async fn snapshot(&self, collection: &str) -> Value {
        self.post(&format!("/collections/{collection}/snapshots"), json!({})).await
    }

    async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.send(Method::GET, "/metrics", None).await.unwrap().text().await.unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }
}

fn point(id: u64) -> Value {
    json!({ "id": id, "vector": vector(id), "payload": { "text": format!("chunk {id}"), "group": id % 3 } })
}

fn vector(id: u64) -> Vec<f64> {
    (1..=4_u32).map(|at| (f64::from(u32::try_from(id).unwrap()) * 1.7 + f64::from(at) * 0.9).sin()).collect()
}

fn options() -> QdrantOptions {
    QdrantOptions {
        api_key: Some(KEY.to_owned()),
        read_only_key: Some(READ_ONLY.to_owned()),
        ..QdrantOptions::default()
    }
}

async fn start() -> (QdrantStandIn, Client) {
    start_with(options()).await
}

async fn start_with(options: QdrantOptions) -> (QdrantStandIn, Client) {
    let server = QdrantStandIn::start(options).await.unwrap();
    let client = Client::new(server.url(), Some(KEY));
    (server, client)
}

fn file_of(server: &QdrantStandIn, collection: &str, snapshot: &Value) -> PathBuf {
    server.snapshots_dir().join(collection).join(snapshot["name"].as_str().unwrap())
}

fn recover_body(path: &Path, snapshot: &Value) -> Value {
    json!({ "location": format!("file://{}", path.display()), "priority": "snapshot", "checksum": snapshot["checksum"] })
}

/// Copies a snapshot into another server's directory, as a restore does.
fn bring(from: &Path, to: &QdrantStandIn) -> PathBuf {
    let dir = to.snapshots_dir().join("brought");
    fs_err::create_dir_all(&dir).unwrap();
    let target = dir.join(from.file_name().unwrap());
    fs_err::copy(from, &target).unwrap();
    target
}

async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn names_in(dir: &Path) -> Vec<String> {
    fs_err::read_dir(dir)
        .map(|entries| entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default()
}

// Health, keys, envelopes.

#[tokio::test]
async fn health_needs_no_key_and_has_no_health() {
    let (server, client) = start().await;
    let anonymous = Client::new(server.url(), None);
    for (path, expected) in [
        ("/healthz", "healthz check passed"),
        ("/livez", "healthz check passed"),
        ("/readyz", "all shards are ready"),
    ] {
        let response = anonymous.send(Method::GET, path, None).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.text().await.unwrap(), expected);
    }
    let (status, root) = anonymous.call(Method::GET, "/", None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(root["title"], "qdrant - vector search engine");
    assert_eq!(root["version"], "1.18.3");
    assert_eq!(root["commit"].as_str().unwrap().len(), 40);
    assert_eq!(anonymous.call(Method::GET, "/health", None).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(client.call(Method::GET, "/health", None).await.0, StatusCode::NOT_FOUND);
    // The write lock is gone since 1.16.
    assert_eq!(client.call(Method::GET, "/locks", None).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn keys_are_checked_before_anything_else() {
    let (server, client) = start().await;
    client.fill("docs", 3).await;
    let without = server.url();
    let response = Client::new(without.clone(), None).send(Method::GET, "/collections", None).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert!(response.headers().get("content-type").is_none(), "plain text, and not even that is said");
    assert_eq!(response.text().await.unwrap(), "Must provide an API key or an Authorization bearer token");
    let response =
        Client::new(without.clone(), Some("wrong")).send(Method::GET, "/metrics", None).await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(response.text().await.unwrap(), "Invalid API key or JWT");
    let bearer = client.http.get(format!("{without}/collections")).bearer_auth(KEY).send().await.unwrap();
    assert_eq!(bearer.status(), StatusCode::OK);

    let reader = Client::new(without, Some(READ_ONLY));
    assert_eq!(reader.count("docs").await, 3);
    reader.get("/telemetry").await;
    reader.get("/collections/docs/snapshots").await;
    for (method, path) in [
        (Method::PUT, "/collections/new"),
        (Method::DELETE, "/collections/docs"),
        (Method::PUT, "/collections/docs/points"),
        (Method::POST, "/collections/aliases"),
        (Method::POST, "/collections/docs/snapshots"),
        (Method::PUT, "/collections/docs/snapshots/recover"),
    ] {
        let (status, message) = reader.fails(method, path, Some(json!({}))).await;
        assert_eq!(
            (status, message.as_str()),
            (403, "Forbidden: Global manage access is required"),
            "{path}"
        );
    }
    let upload = reader.send(Method::POST, "/collections/docs/snapshots/upload", None).await.unwrap();
    assert_eq!(upload.status(), StatusCode::FORBIDDEN);
    assert_eq!(
        upload.text().await.unwrap(),
        "Forbidden: Global manage access is required",
        "outside the envelope"
    );
    // With `wait=false` the refusal is only logged, and nothing happens.
    let (status, _) = reader.call(Method::POST, "/collections/docs/snapshots?wait=false", None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(client.get("/collections/docs/snapshots").await, json!([]));
    assert_eq!(client.count("docs").await, 3);
}

#[tokio::test]
async fn a_server_without_keys_is_open() {
    let (server, _) = start_with(QdrantOptions::default()).await;
    let anonymous = Client::new(server.url(), None);
    anonymous.fill("docs", 1).await;
    assert_eq!(anonymous.count("docs").await, 1);
}

// Collections.

#[tokio::test]
async fn a_collection_is_shown_with_what_was_said_and_what_was_filled_in() {
    let (_server, client) = start().await;
    let body = json!({
        "vectors": {
            "title": { "size": 4, "distance": "Cosine", "on_disk": true },
            "tokens": { "size": 2, "distance": "Dot", "multivector_config": { "comparator": "max_sim" } },
        },
        "sparse_vectors": { "words": { "modifier": "idf" } },
        "hnsw_config": { "m": 32 },
        "quantization_config": { "scalar": { "type": "int8", "always_ram": true } },
        "strict_mode_config": { "enabled": true, "search_allow_exact": false },
        "optimizers_config": { "indexing_threshold": 100 },
        "metadata": { "owner": "search" },
    });
    client.put("/collections/docs", body).await;
    client
        .put("/collections/docs/index?wait=true", json!({ "field_name": "text", "field_schema": "keyword" }))
        .await;
    let point = json!({ "id": 1, "payload": { "text": "a" }, "vector": {
        "title": [1, 0, 0, 0], "tokens": [[1, 2], [3, 4]], "words": { "indices": [7, 3], "values": [0.5, 1] },
    } });
    client.put("/collections/docs/points?wait=true", json!({ "points": [point] })).await;
    let info = client.get("/collections/docs").await;
    assert_eq!(info["status"], "green");
    assert_eq!(info["optimizer_status"], "ok");
    assert_eq!(info["points_count"], 1);
    assert_eq!(info["update_queue"], json!({ "length": 0 }));
    assert_eq!(info["payload_schema"], json!({ "text": { "data_type": "keyword", "points": 1 } }));
    let config = &info["config"];
    assert_eq!(
        config["params"]["vectors"]["title"],
        json!({ "size": 4, "distance": "Cosine", "on_disk": true })
    );
    assert_eq!(config["params"]["sparse_vectors"], json!({ "words": { "modifier": "idf" } }));
    assert_eq!(config["params"]["shard_number"], 1);
    assert_eq!(config["params"]["on_disk_payload"], true);
    assert_eq!(config["hnsw_config"]["m"], 32);
    assert_eq!(config["hnsw_config"]["ef_construct"], 100);
    assert_eq!(config["optimizer_config"]["flush_interval_sec"], 5);
    assert_eq!(config["wal_config"]["wal_capacity_mb"], 32);
    assert_eq!(config["quantization_config"]["scalar"]["type"], "int8");
    assert_eq!(config["strict_mode_config"]["search_allow_exact"], false);
    assert_eq!(config["metadata"], json!({ "owner": "search" }));
    assert!(config.get("uuid").is_none());

    let found = client
        .post("/collections/docs/points", json!({ "ids": [1, 2], "with_vector": true, "with_payload": true }))
        .await;
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(found[0]["payload"], json!({ "text": "a" }));
    assert_eq!(found[0]["vector"]["tokens"], json!([[1.0, 2.0], [3.0, 4.0]]));
    assert_eq!(found[0]["vector"]["words"], json!({ "indices": [3, 7], "values": [1.0, 0.5] }));

    let exact = json!({ "query": [1, 0, 0, 0], "using": "title", "params": { "exact": true } });
    let (status, message) = client.fails(Method::POST, "/collections/docs/points/query", Some(exact)).await;
    assert_eq!(
        (status, message.as_str()),
        (400, "Bad request: Exact search disabled!. Help: Set exact=false.")
    );

    let patch = json!({ "optimizers_config": { "indexing_threshold": 0 }, "quantization_config": "Disabled",
                        "strict_mode_config": { "search_allow_exact": true } });
    client.ok(Method::PATCH, "/collections/docs", Some(patch)).await;
    let config = client.get("/collections/docs").await["config"].clone();
    assert_eq!(config["optimizer_config"]["indexing_threshold"], 0);
    assert_eq!(config["quantization_config"], Value::Null);
    for (using, query, score) in [
        ("title", json!([2, 0, 0, 0]), 1.0),
        ("tokens", json!([[1, 1]]), 7.0),
        ("words", json!({ "indices": [3], "values": [2] }), 2.0 * (0.5_f64 / 1.5 + 1.0).ln()),
    ] {
        let query = json!({ "query": query, "using": using, "params": { "exact": true } });
        let found = client.post("/collections/docs/points/query", query).await;
        let got = found["points"][0]["score"].as_f64().unwrap();
        assert!((got - score).abs() < 1e-6, "{using}: {got}");
    }
}

#[tokio::test]
async fn names_are_checked_and_odd_ones_work() {
    let (_server, client) = start().await;
    for name in ["a%2Fb", "a%3Ab", "x%3Cy", "q%3F", "st%2Ar"] {
        let (status, _) =
            client.fails(Method::PUT, &format!("/collections/{name}"), Some(json!({ "vectors": {} }))).await;
        assert_eq!(status, 422, "{name}");
    }
    assert_eq!(
        client.fails(Method::PUT, "/collections/a%3Ab", Some(json!({}))).await.1,
        "Validation error in path parameters: [collection_name: collection name cannot contain \":\" char]"
    );
    let odd = "f%C3%BCr%20100%25%20%E6%97%A5%E6%9C%AC%20%23%26%2B";
    client.fill(odd, 2).await;
    assert_eq!(client.count(odd).await, 2);
    let listed = client.get("/collections").await;
    assert_eq!(listed, json!({ "collections": [{ "name": "für 100% 日本 #&+" }] }));
    let snapshot = client.snapshot(odd).await;
    assert!(snapshot["name"].as_str().unwrap().starts_with("für 100% 日本 #&+-"));
    assert_eq!(client.get(&format!("/collections/{odd}/snapshots")).await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn collections_are_made_once_and_their_errors_are_the_real_ones() {
    let (_server, client) = start().await;
    client.fill("docs", 1).await;
    let body = Some(json!({ "vectors": { "size": 4, "distance": "Dot" } }));
    let cases = [
        (Method::PUT, "/collections/docs", body, 409, "Wrong input: Collection `docs` already exists!"),
        (Method::GET, "/collections/nix", None, 404, "Not found: Collection `nix` doesn't exist!"),
        (
            Method::PUT,
            "/collections/docs/points",
            Some(json!({ "points": [{ "id": 1, "vector": [1, 2] }] })),
            400,
            "Wrong input: Vector dimension error: expected dim: 4, got 2",
        ),
        (
            Method::PUT,
            "/collections/docs/points",
            Some(json!({ "points": [{ "id": 1, "vector": { "other": [1, 2] } }] })),
            400,
            "Wrong input: Not existing vector name error: other",
        ),
    ];
    for (method, path, body, status, message) in cases {
        assert_eq!(client.fails(method, path, body).await, (status, message.to_owned()));
    }
    let (status, _) = client
        .fails(Method::PUT, "/collections/docs/points", Some(json!({ "points": [{ "id": "12" }] })))
        .await;
    assert_eq!(status, 400, "a number in quotes is no id");
    assert_eq!(client.get("/collections/docs/exists").await, json!({ "exists": true }));
    assert_eq!(client.get("/collections/nix/exists").await, json!({ "exists": false }));
    assert_eq!(client.ok(Method::DELETE, "/collections/docs", None).await, json!(true));
    assert_eq!(client.ok(Method::DELETE, "/collections/docs", None).await, json!(false));
}

// Points.

#[tokio::test]
async fn cosine_vectors_come_back_normalised_and_stay_so() {
    let (_server, client) = start().await;
    client.put("/collections/docs", json!({ "vectors": { "size": 2, "distance": "Cosine" } })).await;
    client
        .put("/collections/docs/points?wait=true", json!({ "points": [{ "id": 1, "vector": [3, 4] }] }))
        .await;
    let read = || client.get("/collections/docs/points/1");
    let first = read().await["vector"].clone();
    assert_eq!(first, json!([0.6, 0.8]));
    client
        .put("/collections/docs/points?wait=true", json!({ "points": [{ "id": 1, "vector": first }] }))
        .await;
    assert_eq!(read().await["vector"], first);
}

#[tokio::test]
async fn half_precision_is_lost_when_a_vector_comes_in() {
    let (_server, client) = start().await;
    let vectors = json!({ "vectors": { "size": 2, "distance": "Dot", "datatype": "float16" } });
    client.put("/collections/docs", vectors).await;
    let points = json!({ "points": [{ "id": 1, "vector": [-0.3199, 0.5] }] });
    client.put("/collections/docs/points?wait=true", points).await;
    assert_eq!(client.get("/collections/docs/points/1").await["vector"], json!([-0.31982422, 0.5]));
}

#[tokio::test]
async fn points_are_scrolled_filtered_counted_and_deleted() {
    let (_server, client) = start().await;
    client.fill("docs", 25).await;
    let uuid = "0198f3a0-1111-4222-8333-444455556666";
    let extra =
        json!({ "batch": { "ids": [uuid], "vectors": [[1, 1, 1, 1]], "payloads": [{ "group": 9 }] } });
    client.put("/collections/docs/points?wait=true", extra).await;

    let scroll = "/collections/docs/points/scroll";
    let mut seen = Vec::new();
    let mut offset = Value::Null;
    loop {
        let page = client.post(scroll, json!({ "limit": 10, "offset": offset, "with_payload": false })).await;
        seen.extend(page["points"].as_array().unwrap().iter().map(|point| point["id"].clone()));
        assert!(page["points"][0].get("payload").is_none());
        offset = page["next_page_offset"].clone();
        if offset.is_null() {
            break;
        }
    }
    let expected: Vec<Value> = (0..25).map(Value::from).chain([json!(uuid)]).collect();
    assert_eq!(seen, expected);

    let filter =
        json!({ "must": [{ "key": "group", "match": { "value": 1 } }], "must_not": [{ "has_id": [1, 4] }] });
    let count = client.post("/collections/docs/points/count", json!({ "filter": filter })).await;
    assert_eq!(count, json!({ "count": 6 }));
    let keys = json!({ "ids": [uuid, 3], "with_payload": ["group"] });
    let found = client.post("/collections/docs/points", keys).await;
    assert_eq!(found[0], json!({ "id": uuid, "payload": { "group": 9 } }));

    client.post("/collections/docs/points/delete?wait=true", json!({ "points": [0, 1, 777] })).await;
    client.post("/collections/docs/points/delete?wait=true", json!({ "filter": filter })).await;
    assert_eq!(client.count("docs").await, 18);

    client
        .post("/collections/docs/points/payload?wait=true", json!({ "payload": { "a": 1 }, "points": [2] }))
        .await;
    client
        .put("/collections/docs/points/payload?wait=true", json!({ "payload": { "b": 2 }, "points": [3] }))
        .await;
    client
        .post("/collections/docs/points/payload/delete?wait=true", json!({ "keys": ["text"], "points": [2] }))
        .await;
    let (status, message) = client
        .fails(
            Method::POST,
            "/collections/docs/points/payload?wait=true",
            Some(json!({ "payload": {}, "points": [999] })),
        )
        .await;
    assert_eq!((status, message.as_str()), (404, "Not found: No point with id 999 found"));
    let found = client.post("/collections/docs/points", json!({ "ids": [2] })).await;
    assert_eq!(found, json!([{ "id": 2 }]), "no payload unless asked for");
    let found = client.post("/collections/docs/points", json!({ "ids": [2, 3], "with_payload": true })).await;
    assert_eq!(found[0]["payload"], json!({ "group": 2, "a": 1 }));
    assert_eq!(found[1]["payload"], json!({ "b": 2 }));
}

#[tokio::test]
async fn searches_rank_exactly_and_approximately() {
    let (_server, client) = start().await;
    client.fill("docs", 3_000).await;
    let query = "/collections/docs/points/query";
    let ids = |found: &Value| -> Vec<u64> {
        found["points"].as_array().unwrap().iter().map(|point| point["id"].as_u64().unwrap()).collect()
    };
    let exact = client
        .post(
            query,
            json!({ "query": vector(17), "limit": 100, "params": { "exact": true }, "with_payload": true }),
        )
        .await;
    assert_eq!(ids(&exact).len(), 100);
    assert_eq!(exact["points"][0]["payload"]["text"].as_str().unwrap().split(' ').next(), Some("chunk"));
    let scores: Vec<f64> =
        exact["points"].as_array().unwrap().iter().map(|point| point["score"].as_f64().unwrap()).collect();
    assert!(scores.is_sorted_by(|a, b| a >= b));
    assert!((scores[0] - 1.0).abs() < 1e-5);

    let mut hits = 0;
    for id in [1, 99, 500, 1234, 2718] {
        let query_of = |params: Value| json!({ "query": vector(id), "limit": 100, "params": params });
        let exact = ids(&client.post(query, query_of(json!({ "exact": true }))).await);
        let normal = ids(&client.post(query, query_of(json!({ "hnsw_ef": 64 }))).await);
        assert_eq!(normal, ids(&client.post(query, query_of(json!({}))).await), "always the same");
        assert_eq!(exact, ids(&client.post(query, query_of(json!({ "hnsw_ef": 1024 }))).await));
        hits += normal.iter().filter(|id| exact.contains(id)).count();
    }
    assert!((450..500).contains(&hits), "recall {hits} of 500");

    let confined = json!({ "query": { "nearest": vector(3) }, "params": { "exact": true },
                           "filter": { "must": [{ "has_id": [5, 6, 7] }] }, "limit": 2 });
    let found = client.post(query, confined).await;
    assert_eq!(ids(&found).len(), 2);
    assert!(ids(&found).iter().all(|id| (5..=7).contains(id)));
    let near = client.post(query, json!({ "query": 17, "limit": 5, "params": { "exact": true } })).await;
    assert!(!ids(&near).contains(&17), "a point is not its own neighbour");
    let sample = || client.post(query, json!({ "query": { "sample": "random" }, "limit": 50 }));
    assert_ne!(ids(&sample().await), ids(&sample().await));
    let threshold = json!({ "query": vector(17), "score_threshold": 0.99, "limit": 3000 });
    assert!(client.post(query, threshold).await["points"][0]["score"].as_f64().unwrap() >= 0.99);
    let batch =
        json!({ "searches": [{ "query": vector(1), "limit": 1 }, { "query": vector(2), "limit": 2 }] });
    let batch = client.post("/collections/docs/points/query/batch", batch).await;
    assert_eq!(batch[1]["points"].as_array().unwrap().len(), 2);
    let old =
        client.post("/collections/docs/points/search", json!({ "vector": vector(1), "limit": 3 })).await;
    assert_eq!(old.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn distances_are_reported_as_distances() {
    let (_server, client) = start().await;
    for (distance, score) in [("Euclid", 5.0), ("Manhattan", 7.0), ("Dot", 16.0)] {
        let path = format!("/collections/{distance}");
        client.put(&path, json!({ "vectors": { "size": 2, "distance": distance } })).await;
        client
            .put(&format!("{path}/points?wait=true"), json!({ "points": [{ "id": 1, "vector": [4, 6] }] }))
            .await;
        let found = client.post(&format!("{path}/points/query"), json!({ "query": [1, 2] })).await;
        assert_eq!(found["points"][0]["score"], score, "{distance}");
    }
}

// Aliases.

#[tokio::test]
async fn aliases_switch_together_and_never_clash_with_collections() {
    let (_server, client) = start().await;
    client.fill("one", 1).await;
    client.fill("two", 2).await;
    let create = |alias: &str, collection: &str| json!({ "create_alias": { "alias_name": alias, "collection_name": collection } });
    let delete = |alias: &str| json!({ "delete_alias": { "alias_name": alias } });
    client.post("/collections/aliases", json!({ "actions": [create("live", "one")] })).await;
    assert_eq!(client.count("live").await, 1);
    client.post("/collections/aliases", json!({ "actions": [delete("live"), create("live", "two")] })).await;
    assert_eq!(client.count("live").await, 2);
    assert_eq!(
        client.get("/aliases").await,
        json!({ "aliases": [{ "alias_name": "live", "collection_name": "two" }] })
    );
    assert_eq!(client.get("/collections/one/aliases").await, json!({ "aliases": [] }));
    assert_eq!(client.get("/collections/two/aliases").await["aliases"][0]["alias_name"], "live");
    let rename = json!({ "rename_alias": { "old_alias_name": "live", "new_alias_name": "prod" } });
    client.post("/collections/aliases", json!({ "actions": [rename.clone()] })).await;

    let refused = [
        (json!([create("one", "two")]), 409, "Wrong input: Collection `one` already exists!"),
        (json!([create("x", "nix")]), 404, "Not found: Collection `nix` doesn't exist!"),
        (json!([rename]), 404, "Not found: Alias live does not exists!"),
    ];
    for (actions, status, message) in refused {
        let body = Some(json!({ "actions": actions }));
        assert_eq!(
            client.fails(Method::POST, "/collections/aliases", body).await,
            (status, message.to_owned())
        );
    }
    let (status, message) = client
        .fails(Method::PUT, "/collections/prod", Some(json!({ "vectors": { "size": 1, "distance": "Dot" } })))
        .await;
    assert_eq!(status, 400);
    assert!(message.contains("Alias with the same name already exists"), "{message}");
    // A deleted collection takes its aliases along.
    client.ok(Method::DELETE, "/collections/two", None).await;
    assert_eq!(client.get("/aliases").await, json!({ "aliases": [] }));
}

// Metrics and telemetry.

#[tokio::test]
async fn writes_are_counted_where_quiescence_looks() {
    let (server, client) = start().await;
    let series =
        r#"rest_responses_total{method="PUT",endpoint="/collections/{collection_name}/points",status="200"}"#;
    assert_eq!(client.metric(series).await, None, "no series before the first hit");
    client.fill("docs", 5).await;
    assert_eq!(client.metric(series).await, Some(1.0));
    assert_eq!(client.metric("app_status_recovery_mode").await, Some(0.0));
    assert_eq!(client.metric(r#"app_info{name="qdrant",version="1.18.3"}"#).await, Some(1.0));
    assert_eq!(client.metric(r#"collection_points{id="docs"}"#).await, Some(5.0));
    assert_eq!(client.metric(r#"collection_update_queue_length{id="docs"}"#).await, Some(0.0));
    let op_num = || async {
        let telemetry = client.get("/telemetry?details_level=3").await;
        assert_eq!(telemetry["app"]["version"], "1.18.3");
        let queue = &telemetry["collections"]["collections"][0]["shards"][0]["local"]["update_queue"];
        assert_eq!(queue["length"], 0);
        queue["op_num"].as_u64().unwrap()
    };
    let before = op_num().await;
    let writer = server.start_writer(Trickle {
        collection: "docs".to_owned(),
        every: Duration::from_millis(1),
        batch: 2,
        first_id: 1_000,
        via: Via::Grpc,
    });
    until("the writer writes", || async { client.count("docs").await > 9 }).await;
    let written = writer.stop().await;
    assert_eq!(client.count("docs").await, 5 + written);
    assert!(op_num().await > before);
    let grpc = r#"grpc_responses_total{endpoint="/qdrant.Points/Upsert",status="0"}"#;
    assert_eq!(client.metric(grpc).await, Some(f64::from(u32::try_from(written / 2).unwrap())));
    assert_eq!(client.metric(series).await, Some(1.0));
    let aliases = &client.get("/telemetry").await["requests"]["rest"]["responses"];
    assert_eq!(aliases["PUT /collections/{collection_name}"]["200"]["count"], 1);
    assert!(client.get("/telemetry?details_level=0").await["collections"].get("collections").is_none());
}

#[tokio::test]
async fn a_slow_queue_is_seen_and_drains() {
    let (server, client) = start().await;
    client.fill("docs", 1).await;
    let slow = Condition::QueueSlow { collection: "docs".to_owned(), each: Duration::from_millis(30) };
    server.faults().set(slow.clone());
    for id in 1..=5 {
        let done = client.put("/collections/docs/points", json!({ "points": [point(id)] })).await;
        assert_eq!(done["status"], "acknowledged");
    }
    assert!(client.get("/collections/docs").await["update_queue"]["length"].as_u64().unwrap() > 0);
    assert!(client.count("docs").await < 6);
    until("the queue drains", || async {
        client.get("/collections/docs").await["update_queue"]["length"] == 0
    })
    .await;
    assert_eq!(client.count("docs").await, 6);

    server.faults().end(&slow);
    server.faults().set(Condition::QueueStuck { collection: "docs".to_owned(), length: 7 });
    client.upsert("docs", 6, 7).await;
    assert_eq!(client.get("/collections/docs").await["update_queue"]["length"], 7);
    assert_eq!(client.metric(r#"collection_update_queue_length{id="docs"}"#).await, Some(7.0));
}

#[tokio::test]
async fn conditions_show_where_a_pre_flight_looks() {
    let (mut server, client) = start().await;
    client.fill("docs", 1).await;
    server.faults().set(Condition::Red("docs".to_owned()));
    assert_eq!(client.get("/collections/docs").await["status"], "red");
    server.faults().clear();
    let error = Condition::OptimizerError { collection: "docs".to_owned(), message: "no space".to_owned() };
    server.faults().set(error);
    assert_eq!(client.get("/collections/docs").await["optimizer_status"], json!({ "error": "no space" }));
    server.faults().clear();
    server.faults().set(Condition::DiskFull);
    let upsert = Some(json!({ "points": [point(9)] }));
    let (status, message) = client.fails(Method::PUT, "/collections/docs/points", upsert).await;
    assert_eq!(status, 500);
    assert!(message.contains("No space left on device"), "{message}");
    let (status, message) = client.fails(Method::POST, "/collections/docs/snapshots", None).await;
    assert_eq!(status, 500);
    assert!(message.contains("No space left on device"), "{message}");
    server.faults().clear();

    server.faults().set(Condition::RecoveryMode("out of memory".to_owned()));
    server.restart().await.unwrap();
    assert_eq!(client.metric("app_status_recovery_mode").await, Some(1.0));
    assert_eq!(client.fails(Method::GET, "/collections/docs", None).await.0, 500);
    assert_eq!(client.call(Method::GET, "/readyz", None).await.0, StatusCode::OK);
    server.faults().clear();
    server.restart().await.unwrap();
    assert_eq!(client.count("docs").await, 1);
}

// Snapshots.

#[tokio::test]
async fn a_snapshot_is_a_private_file_with_its_checksum() {
    let (server, client) = start().await;
    client.fill("docs", 50).await;
    let snapshot = client.snapshot("docs").await;
    let name = snapshot["name"].as_str().unwrap();
    let (rest, stamp) = name.strip_prefix("docs-").unwrap().split_once('-').unwrap();
    assert!(rest.parse::<u64>().is_ok(), "{name}");
    assert_eq!(stamp.len(), "2026-01-31-23-59-59.snapshot".len());
    let time = snapshot["creation_time"].as_str().unwrap();
    assert!(time.parse::<jiff::civil::DateTime>().is_ok() && !time.ends_with('Z'), "{time}");

    let path = file_of(&server, "docs", &snapshot);
    let bytes = fs_err::read(&path).unwrap();
    assert_eq!(snapshot["checksum"], hex::encode(Sha256::digest(&bytes)));
    assert_eq!(snapshot["size"].as_u64().unwrap(), u64::try_from(bytes.len()).unwrap());
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut entries = tar::Archive::new(bytes.as_slice());
    let entries: Vec<String> = entries
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
        .collect();
    for expected in ["version.info", "config.json", "payload_index.json", "0/wal/open-1"] {
        assert!(entries.iter().any(|entry| entry == expected), "{expected} in {entries:?}");
    }
    let mut files = names_in(path.parent().unwrap());
    files.sort();
    assert_eq!(files, [name.to_owned(), format!("{name}.checksum")]);
    assert_eq!(client.get("/collections/docs/snapshots").await, json!([snapshot]));

    let url = format!("/collections/docs/snapshots/{name}");
    let whole = client.send(Method::GET, &url, None).await.unwrap();
    assert_eq!(whole.content_length(), Some(u64::try_from(bytes.len()).unwrap()));
    assert_eq!(whole.bytes().await.unwrap(), bytes);
    let part = client.http.get(format!("{}{url}", client.url)).header("api-key", READ_ONLY);
    let part = part.header("range", "bytes=100-199").send().await.unwrap();
    assert_eq!(part.status(), StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.headers()["content-range"], format!("bytes 100-199/{}", bytes.len()));
    assert_eq!(part.bytes().await.unwrap(), bytes[100..200]);

    for missing in ["..%2f..%2fx", "none.snapshot"] {
        let missing = format!("/collections/docs/snapshots/{missing}");
        let response = client.send(Method::GET, &missing, None).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
        assert!(response.text().await.unwrap().starts_with("Not found: Snapshot "), "plain text");
    }
    assert_eq!(client.call(Method::HEAD, &url, None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(client.ok(Method::DELETE, &url, None).await, json!(true));
    assert_eq!(client.fails(Method::DELETE, &url, None).await.0, 404);
    assert!(names_in(path.parent().unwrap()).is_empty());
}

#[tokio::test]
async fn the_same_data_gives_the_same_snapshot() {
    let (_server, client) = start().await;
    client.fill("docs", 20).await;
    let first = client.snapshot("docs").await;
    let second = client.snapshot("docs").await;
    assert_ne!(first["name"], second["name"]);
    assert_eq!(first["checksum"], second["checksum"]);
    assert!(first["size"].as_u64().unwrap() < 100_000);

    let (_server, client) = start_with(QdrantOptions { wal_bytes: 1 << 20, ..options() }).await;
    client.fill("docs", 20).await;
    assert!(client.snapshot("docs").await["size"].as_u64().unwrap() > 1 << 20, "a preallocated log");
}

#[tokio::test]
async fn a_running_snapshot_shows_in_three_places_and_outlives_its_client() {
    let (server, client) =
        start_with(QdrantOptions { snapshot_bytes_per_second: Some(100_000), ..options() }).await;
    client.fill("docs", 300).await;
    let gone = client
        .http
        .post(format!("{}/collections/docs/snapshots", client.url))
        .header("api-key", KEY)
        .timeout(Duration::from_millis(60))
        .send()
        .await;
    assert!(gone.unwrap_err().is_timeout());
    let running = r#"snapshot_creation_running{id="docs"}"#;
    assert_eq!(client.metric(running).await, Some(1.0));
    assert_eq!(
        client.metric(r#"snapshot_created_total{id="docs"}"#).await,
        Some(1.0),
        "counted at the start"
    );
    assert_eq!(client.get("/collections/docs").await["status"], "yellow");
    let temp = names_in(&server.storage_dir().join("tmp"));
    assert!(temp.len() == 1 && temp[0].contains(".snapshot-arc-"), "{temp:?}");
    assert_eq!(client.get("/collections/docs/snapshots").await, json!([]), "listed only when complete");
    client.upsert("docs", 300, 310).await;
    until("the job ends", || async { client.metric(running).await == Some(0.0) }).await;
    let listed = client.get("/collections/docs/snapshots").await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert!(names_in(&server.storage_dir().join("tmp")).is_empty());

    // What was written meanwhile is in the log of the archive, and so in the restored collection.
    let path = file_of(&server, "docs", &listed[0]);
    client.put("/collections/copy/snapshots/recover", recover_body(&path, &listed[0])).await;
    assert_eq!(client.count("copy").await, 310);
}

#[tokio::test]
async fn without_waiting_nobody_hears_of_anything() {
    let (server, client) = start().await;
    client.fill("docs", 5).await;
    let (status, answer) = client.call(Method::POST, "/collections/docs/snapshots?wait=false", None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(answer["status"], "accepted");
    assert!(answer.get("result").is_none());
    until("it appears", || async {
        !client.get("/collections/docs/snapshots").await.as_array().unwrap().is_empty()
    })
    .await;
    assert_eq!(
        client.call(Method::POST, "/collections/nix/snapshots?wait=false", None).await.0,
        StatusCode::ACCEPTED
    );
    server.faults().inject(When::next_of("docs"), Fault::SnapshotFails { after_bytes: 100 });
    client.call(Method::POST, "/collections/docs/snapshots?wait=false", None).await;
    let created = r#"snapshot_created_total{id="docs"}"#;
    until("it has run", || async { client.metric(created).await == Some(2.0) }).await;
    assert_eq!(client.get("/collections/docs/snapshots").await.as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn snapshots_of_a_deleted_collection_stay_as_files_only() {
    let (server, client) = start().await;
    client.fill("docs", 5).await;
    let snapshot = client.snapshot("docs").await;
    let path = file_of(&server, "docs", &snapshot);
    client.ok(Method::DELETE, "/collections/docs", None).await;
    assert!(path.is_file());
    assert_eq!(client.fails(Method::GET, "/collections/docs/snapshots", None).await.0, 404);
    client.put("/collections/docs/snapshots/recover", recover_body(&path, &snapshot)).await;
    assert_eq!(client.count("docs").await, 5);
}

// Recovery.

#[tokio::test]
async fn a_recovered_collection_answers_the_same() {
    let (source, client) = start().await;
    client.fill("docs", 2_000).await;
    client
        .put("/collections/docs/index?wait=true", json!({ "field_name": "group", "field_schema": "integer" }))
        .await;
    client
        .post(
            "/collections/aliases",
            json!({ "actions": [{ "create_alias": { "alias_name": "live", "collection_name": "docs" } }] }),
        )
        .await;
    let snapshot = client.snapshot("docs").await;
    let (target, restored) = start().await;
    let path = bring(&file_of(&source, "docs", &snapshot), &target);
    restored.put("/collections/docs/snapshots/recover", recover_body(&path, &snapshot)).await;
    assert_eq!(restored.count("docs").await, 2_000);
    let (before, after) = (client.get("/collections/docs").await, restored.get("/collections/docs").await);
    assert_eq!(before["config"], after["config"]);
    assert_eq!(before["payload_schema"], after["payload_schema"]);
    for params in [json!({ "exact": true }), json!({})] {
        let query = json!({ "query": vector(99), "limit": 50, "params": params, "with_vector": true });
        let strip = |found: Value| found["points"].clone();
        assert_eq!(
            strip(client.post("/collections/docs/points/query", query.clone()).await),
            strip(restored.post("/collections/docs/points/query", query).await)
        );
    }
    assert_eq!(restored.get("/aliases").await, json!({ "aliases": [] }), "aliases are in no snapshot");
}

#[tokio::test]
async fn a_location_is_checked_before_anything_is_touched() {
    let (server, client) = start().await;
    client.fill("docs", 5).await;
    let snapshot = client.snapshot("docs").await;
    let path = file_of(&server, "docs", &snapshot);
    let outside = tempfile::NamedTempFile::new().unwrap();
    fs_err::copy(&path, outside.path()).unwrap();
    let link = server.snapshots_dir().join("link.snapshot");
    std::os::unix::fs::symlink(outside.path(), &link).unwrap();
    let recover = "/collections/new/snapshots/recover";
    let of = |location: String, checksum: Value| json!({ "location": location, "checksum": checksum });
    let file = |path: &Path| format!("file://{}", path.display());
    let wrong = json!(hex::encode([7; 32]));
    let cases = [
        (of(file(outside.path()), Value::Null), 403, "must be inside the snapshots directory"),
        (of(file(&link), Value::Null), 403, "must be inside the snapshots directory"),
        (of(file(Path::new("/no/such")), Value::Null), 400, "does not exist"),
        (of("s3://bucket/key".to_owned(), Value::Null), 400, "with scheme s3 is not supported"),
        (of(file(&path), wrong), 400, "Snapshot checksum mismatch: expected 0707"),
        (of(file(&path), json!("abc")), 422, "Validation error in JSON body"),
    ];
    for (body, status, message) in cases {
        let (got, said) = client.fails(Method::PUT, recover, Some(body.clone())).await;
        assert_eq!(got, status, "{body}: {said}");
        assert!(said.contains(message), "{said}");
    }
    assert_eq!(client.get("/collections/new/exists").await, json!({ "exists": false }));
    // Without a checksum nothing looks at the bytes.
    client.put(recover, of(file(&path), Value::Null)).await;
    assert_eq!(client.count("new").await, 5);
}

#[tokio::test]
async fn a_recovery_is_destructive() {
    let (server, client) = start().await;
    client.fill("docs", 10).await;
    let snapshot = client.snapshot("docs").await;
    let path = file_of(&server, "docs", &snapshot);
    client.upsert("docs", 10, 20).await;
    client.put("/collections/docs/snapshots/recover", recover_body(&path, &snapshot)).await;
    assert_eq!(client.count("docs").await, 10, "newer data is gone");

    server.faults().inject(When::next_of("docs"), Fault::RecoverFailsAtLoad);
    let (status, message) = client
        .fails(Method::PUT, "/collections/docs/snapshots/recover", Some(recover_body(&path, &snapshot)))
        .await;
    assert_eq!(status, 500, "{message}");
    assert_eq!(client.fails(Method::GET, "/collections/docs", None).await.0, 500, "a dummy is left");
    assert_eq!(client.fails(Method::POST, "/collections/docs/points/count", Some(json!({}))).await.0, 500);
    assert_eq!(client.call(Method::GET, "/readyz", None).await.0, StatusCode::OK);
    client.put("/collections/docs/snapshots/recover", recover_body(&path, &snapshot)).await;
    assert_eq!(client.count("docs").await, 10, "recovering again heals it");

    // A new collection is left behind when a later step fails.
    server.faults().inject(When::next(), Fault::RecoverFailsAtLoad);
    client
        .fails(Method::PUT, "/collections/new/snapshots/recover", Some(recover_body(&path, &snapshot)))
        .await;
    assert_eq!(client.get("/collections/new/exists").await, json!({ "exists": true }));
    assert_eq!(client.fails(Method::GET, "/collections/new", None).await.0, 500);
}

#[tokio::test]
async fn a_recovery_through_an_alias_overwrites_the_collection_behind_it() {
    let (server, client) = start().await;
    client.fill("live", 10).await;
    client.fill("other", 3).await;
    let alias = json!({ "create_alias": { "alias_name": "name", "collection_name": "live" } });
    client.post("/collections/aliases", json!({ "actions": [alias] })).await;
    let snapshot = client.snapshot("other").await;
    let path = file_of(&server, "other", &snapshot);
    client.put("/collections/name/snapshots/recover", recover_body(&path, &snapshot)).await;
    assert_eq!(client.count("live").await, 3);
}

#[tokio::test]
async fn incompatible_and_custom_sharded_snapshots() {
    let (server, client) = start().await;
    client.fill("docs", 4).await;
    let snapshot = client.snapshot("docs").await;
    let path = file_of(&server, "docs", &snapshot);
    client.put("/collections/wide", json!({ "vectors": { "size": 8, "distance": "Dot" } })).await;
    let (status, message) = client
        .fails(Method::PUT, "/collections/wide/snapshots/recover", Some(recover_body(&path, &snapshot)))
        .await;
    assert_eq!(status, 400);
    assert!(message.contains("Snapshot is not compatible with existing collection"), "{message}");

    let custom = json!({ "vectors": { "size": 4, "distance": "Dot" }, "sharding_method": "custom" });
    client.put("/collections/custom", custom).await;
    client.upsert("custom", 0, 4).await;
    assert_eq!(client.get("/collections/custom").await["config"]["params"]["sharding_method"], "custom");
    let snapshot = client.snapshot("custom").await;
    let path = file_of(&server, "custom", &snapshot);
    client.put("/collections/again/snapshots/recover", recover_body(&path, &snapshot)).await;
    assert_eq!(client.count("again").await, 0, "a success without points");
}

#[tokio::test]
async fn an_upload_is_recovered_and_stays() {
    let (source, client) = start().await;
    client.fill("docs", 7).await;
    let snapshot = client.snapshot("docs").await;
    let bytes = client
        .send(
            Method::GET,
            &format!("/collections/docs/snapshots/{}", snapshot["name"].as_str().unwrap()),
            None,
        )
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let upload = |checksum: String| {
        let mut body =
            b"--XX\r\nContent-Disposition: form-data; name=\"snapshot\"; filename=\"mine.snapshot\"\r\n\
                         Content-Type: application/octet-stream\r\n\r\n"
                .to_vec();
        body.extend_from_slice(&bytes);
        body.extend_from_slice(b"\r\n--XX--\r\n");
        let url =
            format!("{}/collections/up/snapshots/upload?priority=snapshot&checksum={checksum}", source.url());
        client
            .http
            .post(url)
            .header("api-key", KEY)
            .header("content-type", "multipart/form-data; boundary=XX")
            .body(body)
            .send()
    };
    let wrong = upload(hex::encode([1; 32])).await.unwrap();
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    let right = upload(snapshot["checksum"].as_str().unwrap().to_owned()).await.unwrap();
    assert_eq!(right.status(), StatusCode::OK);
    assert_eq!(client.count("up").await, 7);
    assert_eq!(names_in(&source.snapshots_dir().join("up")), ["mine.snapshot"]);
    let listed = client.get("/collections/up/snapshots").await;
    assert!(listed[0].get("checksum").is_none(), "nobody wrote one: {listed}");

    // Over HTTP, with the key of the other side.
    let (_target, other) = start().await;
    let location =
        format!("{}/collections/docs/snapshots/{}", source.url(), snapshot["name"].as_str().unwrap());
    let body = json!({ "location": location, "checksum": snapshot["checksum"], "api_key": READ_ONLY });
    other.put("/collections/docs/snapshots/recover", body).await;
    assert_eq!(other.count("docs").await, 7);
    let (status, _) = other
        .fails(Method::PUT, "/collections/x/snapshots/recover", Some(json!({ "location": location })))
        .await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn a_background_replay_makes_early_counts_short() {
    let (server, client) = start_with(QdrantOptions { background_replay: true, ..options() }).await;
    client.fill("docs", 400).await;
    let snapshot = client.snapshot("docs").await;
    let path = file_of(&server, "docs", &snapshot);
    client.put("/collections/new/snapshots/recover", recover_body(&path, &snapshot)).await;
    assert!(client.count("new").await < 400);
    assert!(client.get("/collections/new").await["update_queue"]["length"].as_u64().unwrap() > 0);
    until("the replay ends", || async {
        client.get("/collections/new").await["update_queue"]["length"] == 0
    })
    .await;
    assert_eq!(client.count("new").await, 400);
}

#[tokio::test]
async fn a_cut_archive_is_noticed_late_or_never() {
    let (server, client) = start().await;
    client.fill("docs", 10).await;
    let snapshot = client.snapshot("docs").await;
    let path = file_of(&server, "docs", &snapshot);
    server.damage_snapshot("docs", snapshot["name"].as_str().unwrap(), Damage::ShrinksTo(1_024)).unwrap();
    let body = json!({ "location": format!("file://{}", path.display()) });
    let (status, _) = client.fails(Method::PUT, "/collections/docs/snapshots/recover", Some(body)).await;
    assert_eq!(status, 500);
    assert_eq!(client.count("docs").await, 10, "it was noticed while unpacking: nothing was touched");
}

// Kills and restarts.

#[tokio::test]
async fn everything_is_back_after_a_kill() {
    let (mut server, client) = start().await;
    client.fill("docs", 12).await;
    client
        .put("/collections/docs/index?wait=true", json!({ "field_name": "text", "field_schema": "keyword" }))
        .await;
    let alias = json!({ "create_alias": { "alias_name": "live", "collection_name": "docs" } });
    client.post("/collections/aliases", json!({ "actions": [alias] })).await;
    let before =
        client.post("/collections/docs/points/scroll", json!({ "limit": 100, "with_vector": true })).await;
    let snapshot = client.snapshot("docs").await;
    server
        .faults()
        .set(Condition::QueueSlow { collection: "docs".to_owned(), each: Duration::from_secs(60) });
    client.put("/collections/docs/points", json!({ "points": [point(100)] })).await;
    server.kill().await;
    assert!(!server.is_running());
    assert!(client.send(Method::GET, "/readyz", None).await.unwrap_err().is_connect());
    server.faults().clear();
    server.restart().await.unwrap();
    assert_eq!(client.count("live").await, 13, "what was acknowledged is in the log");
    client.post("/collections/docs/points/delete?wait=true", json!({ "points": [100] })).await;
    let after =
        client.post("/collections/docs/points/scroll", json!({ "limit": 100, "with_vector": true })).await;
    assert_eq!(before, after);
    assert_eq!(client.get("/collections/docs").await["payload_schema"]["text"]["points"], 12);
    assert_eq!(client.get("/collections/docs/snapshots").await, json!([snapshot]));
    let series =
        r#"rest_responses_total{method="PUT",endpoint="/collections/{collection_name}/points",status="200"}"#;
    assert_eq!(client.metric(series).await, None, "counters start anew");
}

#[tokio::test]
async fn a_restarted_collection_is_grey_until_something_is_written() {
    let (mut server, client) = start_with(QdrantOptions { grey_after_restart: true, ..options() }).await;
    client.fill("docs", 5).await;
    server.restart().await.unwrap();
    assert_eq!(client.get("/collections/docs").await["status"], "grey");
    client.ok(Method::PATCH, "/collections/docs", Some(json!({ "optimizers_config": {} }))).await;
    assert_eq!(client.get("/collections/docs").await["status"], "green");
}

#[tokio::test]
async fn a_start_refuses_connections_until_all_is_loaded() {
    let (mut server, client) = start().await;
    client.fill("docs", 5).await;
    let slow = QdrantOptions {
        startup_delay: Duration::from_millis(300),
        storage_dir: Some(server.storage_dir().to_owned()),
        snapshots_dir: Some(server.snapshots_dir().to_owned()),
        ..options()
    };
    server.kill().await;
    let (_slow, client) = start_with(slow).await;
    assert!(client.send(Method::GET, "/readyz", None).await.unwrap_err().is_connect());
    until("it listens", || async { client.send(Method::GET, "/readyz", None).await.is_ok() }).await;
    assert_eq!(client.count("docs").await, 5);
}

#[tokio::test]
async fn a_server_that_dies_in_a_snapshot_leaves_its_temporary_file_until_the_next_start() {
    let (mut server, client) = start().await;
    client.fill("docs", 100).await;
    server.faults().inject(When::next(), Fault::DieInSnapshot { after_bytes: 2_000 });
    assert!(client.send(Method::POST, "/collections/docs/snapshots", None).await.is_err());
    server.died().await;
    let temp = server.storage_dir().join("tmp");
    let left = names_in(&temp);
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(temp.join(&left[0]).metadata().unwrap().len(), 2_000);
    assert!(names_in(&server.snapshots_dir().join("docs")).is_empty());
    server.restart().await.unwrap();
    assert!(names_in(&temp).is_empty());
    assert_eq!(client.count("docs").await, 100);
    assert_eq!(client.metric(r#"snapshot_creation_running{id="docs"}"#).await, Some(0.0));
    client.snapshot("docs").await;
}

#[tokio::test]
async fn a_server_that_dies_in_a_recovery_comes_back_with_a_dummy() {
    let (mut server, client) = start().await;
    client.fill("docs", 9).await;
    let snapshot = client.snapshot("docs").await;
    let path = file_of(&server, "docs", &snapshot);
    server.faults().inject(When::next(), Fault::DieInRecover);
    let recover = "/collections/docs/snapshots/recover";
    assert!(client.send(Method::PUT, recover, Some(recover_body(&path, &snapshot))).await.is_err());
    server.died().await;
    server.restart().await.unwrap();
    assert_eq!(client.fails(Method::GET, "/collections/docs", None).await.0, 500);
    client.put(recover, recover_body(&path, &snapshot)).await;
    server.restart().await.unwrap();
    assert_eq!(client.count("docs").await, 9);
}

// Faults of snapshots.

#[tokio::test]
async fn snapshots_fail_as_scripted() {
    let (server, client) = start().await;
    client.fill("docs", 100).await;
    let create = "/collections/docs/snapshots";
    server.faults().inject(When::next(), Fault::SnapshotFails { after_bytes: 1_000 });
    assert_eq!(client.fails(Method::POST, create, None).await.0, 500);
    server.faults().inject(When::next(), Fault::SnapshotFillsDisk { after_bytes: u64::MAX });
    assert!(client.fails(Method::POST, create, None).await.1.contains("No space left on device"));
    assert!(names_in(&server.storage_dir().join("tmp")).is_empty(), "failures clean up");
    assert_eq!(client.get(create).await, json!([]));

    server.faults().inject(When::next(), Fault::SnapshotReplyLost(Duration::ZERO));
    assert!(client.send(Method::POST, create, None).await.is_err());
    until("the job goes on", || async { client.get(create).await.as_array().unwrap().len() == 1 }).await;
    assert!(
        server
            .calls()
            .iter()
            .any(|call| call.method == "POST" && call.path == create && call.status.is_none())
    );

    server.faults().inject(When::next(), Fault::WrongChecksum);
    let told = client.snapshot("docs").await;
    let listed = client.get(create).await;
    let real = listed.as_array().unwrap().iter().find(|one| one["name"] == told["name"]).unwrap();
    assert_ne!(told["checksum"], real["checksum"]);

    let began = Instant::now();
    server.faults().inject(When::next(), Fault::SnapshotReplyDelayed(Duration::from_millis(200)));
    client.snapshot("docs").await;
    assert!(began.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn finished_snapshots_are_damaged_as_scripted() {
    let (server, client) = start().await;
    for (name, damage) in [
        ("vanishes", Damage::Vanishes),
        ("shrinks", Damage::ShrinksTo(100)),
        ("flips", Damage::BitFlip),
        ("grows", Damage::Grows(17)),
    ] {
        client.fill(name, 10).await;
        server
            .faults()
            .inject(When::next_of(name), Fault::SnapshotFile { damage, after: Duration::from_millis(20) });
        let snapshot = client.snapshot(name).await;
        let path = file_of(&server, name, &snapshot);
        let digest =
            || fs_err::read(&path).map_or(Value::Null, |bytes| json!(hex::encode(Sha256::digest(&bytes))));
        until(name, || async { digest() != snapshot["checksum"] }).await;
        assert_eq!(path.exists(), name != "vanishes");
    }
}

#[tokio::test]
async fn collections_and_aliases_change_while_snapshots_are_taken() {
    let (server, client) = start().await;
    for name in ["a", "b", "c"] {
        client.fill(name, 3).await;
    }
    let vectors = json!({ "vectors": { "size": 4, "distance": "Dot" } });
    let alias = json!({ "actions": [{ "create_alias": { "alias_name": "late", "collection_name": "a" } }] });
    server.faults().inject(When::nth(1), Fault::Change(Change::Create("new".to_owned(), vectors)));
    server.faults().inject(When::nth(2), Fault::Change(Change::Aliases(alias)));
    server.faults().inject(When::nth(2), Fault::Change(Change::Drop("c".to_owned())));
    let upsert = json!({ "points": [point(50)] });
    server.faults().inject(When::nth_of("b", 1), Fault::Change(Change::Upsert("b".to_owned(), upsert)));
    client.snapshot("a").await;
    assert_eq!(client.get("/collections/new/exists").await["exists"], true);
    let snapshot = client.snapshot("b").await;
    assert_eq!(client.get("/collections/c/exists").await["exists"], false);
    assert_eq!(client.count("late").await, 3);
    let path = file_of(&server, "b", &snapshot);
    client.put("/collections/restored/snapshots/recover", recover_body(&path, &snapshot)).await;
    assert_eq!(client.count("restored").await, 4, "a write in the middle is in the log");
}

// Concurrency of a restart with clients around.

#[tokio::test]
async fn calls_are_logged_across_restarts() {
    let (mut server, client) = start().await;
    client.fill("docs", 1).await;
    server.restart().await.unwrap();
    client.count("docs").await;
    let calls = server.calls();
    let routes: Vec<(&str, &str, Option<u16>)> =
        calls.iter().map(|call| (call.method.as_str(), call.route.as_str(), call.status)).collect();
    assert_eq!(
        routes,
        [
            ("PUT", "/collections/{collection_name}", Some(200)),
            ("PUT", "/collections/{collection_name}/points", Some(200)),
            ("POST", "/collections/{collection_name}/points/count", Some(200)),
        ]
    );
    assert_eq!(calls[1].query, "wait=true");
    server.clear_calls();
    assert!(server.calls().is_empty());
}

// The handle for either server.

#[tokio::test]
async fn the_handle_says_what_it_uses() {
    let options = ServerOptions { stand_in: options(), only_stand_in: true, ..ServerOptions::default() };
    let mut server = Server::choose(options).await.unwrap();
    assert_eq!(server.describe(), "Qdrant stand-in (in-memory, part of localcloud)");
    assert!(!server.is_real());
    let client = Client::new(server.url(), Some(KEY));
    client.fill("docs", 2).await;
    server.restart().await.unwrap();
    assert_eq!(client.count("docs").await, 2);
    assert_eq!(server.api_key(), Some(KEY));
    assert_eq!(server.server_snapshots_dir(), server.snapshots_dir());

    let existing = localcloud::qdrant::Existing {
        url: format!("{}/", server.url()),
        snapshots_dir: server.snapshots_dir().to_owned(),
        server_snapshots_dir: Some(PathBuf::from("/qdrant/data/snapshots")),
        api_key: Some(KEY.to_owned()),
        read_only_key: None,
    };
    let mut other =
        Server::choose(ServerOptions { existing: Some(existing), ..ServerOptions::default() }).await.unwrap();
    assert_eq!(other.describe(), format!("real Qdrant 1.18.3 at {}/", server.url()));
    assert_eq!(other.server_snapshots_dir(), Path::new("/qdrant/data/snapshots"));
    assert!(other.kill().await.is_err(), "not ours");
    assert!(!format!("{other:?}").contains(KEY), "no key in what is printed");
}

#[tokio::test]
async fn a_program_is_run_watched_and_killed() {
    let dir = tempfile::tempdir().unwrap();
    let script = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs_err::write(&path, text).unwrap();
        fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let broken = script("broken", "#!/bin/sh\necho \"no space on $QDRANT__SERVICE__HOST\"\nexit 3\n");
    let options = ServerOptions { binary: Some(broken), ..ServerOptions::default() };
    let error = format!("{:#}", Server::choose(options).await.unwrap_err());
    assert!(error.contains("no space on 127.0.0.1") && error.contains("exit status: 3"), "{error}");
    let missing = ServerOptions { binary: Some(dir.path().join("none")), ..ServerOptions::default() };
    assert!(Server::choose(missing).await.is_err());
}
