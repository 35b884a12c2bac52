//! One difference at a time in a Qdrant that was restored, of every kind of vector, and what `verify --data` says of it.
//!
//! What is found in a collection of plain vectors is in `restore`; what an honest restore may look like is in the worker's own tests (`verdicts`).

use localcloud::qdrant::Condition;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Fixture, id, next_second};

const DOCS: u64 = 80;
const ALIAS: &str = "live";

/// A point of generation `of`, with a vector of every kind.
fn point(id: u64, of: u64) -> Value {
    let angle = (id * 7 + of) as f64 / 50.0;
    json!({
        "id": id,
        "payload": { "n": id, "of": of },
        "vector": {
            "title": [angle.cos(), angle.sin(), 0.25],
            "body": [id + of, 1000 - id],
            "rows": [[angle.sin(), 1.0], [0.5, angle.cos()]],
            "words": { "indices": [id % 5, 5 + id % 7], "values": [0.5, 1.0 + angle] },
        },
    })
}

fn config(distance: &str) -> Value {
    json!({
        "vectors": {
            "title": { "size": 3, "distance": distance },
            "body": { "size": 2, "distance": "Euclid" },
            "rows": { "size": 2, "distance": "Dot", "multivector_config": { "comparator": "max_sim" } },
        },
        "sparse_vectors": { "words": {} },
        // Anything is worth an index here.
        "optimizers_config": { "indexing_threshold": 1 },
    })
}

async fn upsert(fixture: &Fixture, points: impl Iterator<Item = Value>) {
    let points: Vec<Value> = points.collect();
    fixture.call(Method::PUT, "/collections/docs/points?wait=true", json!({ "points": points })).await;
}

async fn make(fixture: &Fixture, distance: &str, of: u64) {
    fixture.call(Method::PUT, "/collections/docs", config(distance)).await;
    let index = json!({ "field_name": "n", "field_schema": "integer" });
    fixture.call(Method::PUT, "/collections/docs/index?wait=true", index).await;
    upsert(fixture, (0..DOCS).map(|id| point(id, of))).await;
}

/// A host that restored the second of two backups, which has as many points as the first; and the first one's id.
async fn restored() -> (Fixture, String) {
    let mut fixture = Fixture::empty().await;
    make(&fixture, "Cosine", 0).await;
    fixture.client().create_alias(ALIAS, "docs").await.unwrap();
    let older = fixture.backup().await;
    upsert(&fixture, (0..DOCS).map(|id| point(id, 1))).await;
    next_second().await;
    fixture.backup().await;
    fixture.restores().await;
    (fixture, id(&older).to_owned())
}

/// What `verify --data` says: whether the data is as recorded, and each comparison that has this outcome, with its aspect.
async fn said(fixture: &Fixture, outcome: &str) -> (Option<i32>, Vec<String>) {
    let finished = fixture.run("verify --data").await;
    let verdict = finished.json().unwrap()["verdict"].take();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let checks = verdict["checks"].as_array().unwrap().iter().filter(|check| check["outcome"] == outcome);
    let checks = checks.map(|check| {
        format!("{} {}: {}", text(&check["collection"]), text(&check["aspect"]), text(&check["detail"]))
    });
    (finished.code(), checks.collect())
}

/// The verdict must fail and say all of these.
async fn found(fixture: &Fixture, what: &str, expected: &[&str]) {
    let (code, failures) = said(fixture, "failed").await;
    assert_eq!(code, Some(3), "{what}: {failures:#?}");
    for text in expected {
        assert!(failures.iter().any(|failure| failure.contains(text)), "{what}: {text}: {failures:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_difference_at_a_time_is_found_and_named() {
    let (fixture, _) = restored().await;
    assert_eq!(said(&fixture, "failed").await, (Some(0), vec![]));

    // Points: one that is no longer there, one that has another id, two that have each other's payload.
    let delete = "/collections/docs/points/delete?wait=true";
    fixture.call(Method::POST, delete, json!({ "points": [11] })).await;
    found(&fixture, "a point", &["docs count: 79 points, expected 80", "docs points: point 11 is missing"])
        .await;
    let mut renamed = point(11, 1);
    renamed["id"] = json!(4711);
    upsert(&fixture, [renamed].into_iter()).await;
    let (_, failures) = said(&fixture, "failed").await;
    assert!(failures.contains(&"docs points: point 11 is missing".to_owned()), "{failures:?}");
    assert!(
        !failures.iter().any(|failure| failure.contains("count")),
        "as many points as were: {failures:?}"
    );
    fixture.call(Method::POST, delete, json!({ "points": [4711] })).await;
    let (mut one, mut other) = (point(3, 1), point(30, 1));
    std::mem::swap(&mut one["payload"], &mut other["payload"]);
    upsert(&fixture, [one, other, point(11, 1)].into_iter()).await;
    found(&fixture, "payloads", &["docs points: point 3 has another payload; point 30 has another payload"])
        .await;
    upsert(&fixture, [point(3, 1), point(30, 1)].into_iter()).await;

    // Vectors: one component, by little, of each kind.
    let value = |path: &str| point(17, 1).pointer(path).unwrap().as_f64().unwrap();
    for (name, path, other) in [
        ("title", "/vector/title/2", json!(value("/vector/title/2") + 0.001)),
        ("body", "/vector/body/1", json!(value("/vector/body/1") + 0.001)),
        ("rows", "/vector/rows/1/0", json!(value("/vector/rows/1/0") + 0.001)),
        ("words", "/vector/words/values/1", json!(value("/vector/words/values/1") + 0.001)),
        ("words", "/vector/words/indices/0", json!(20)),
    ] {
        let mut changed = point(17, 1);
        *changed.pointer_mut(path).unwrap() = other;
        upsert(&fixture, [changed].into_iter()).await;
        found(&fixture, path, &[&format!("docs points: point 17: vector `{name}` is ")]).await;
    }
    upsert(&fixture, [point(17, 1)].into_iter()).await;
    assert_eq!(said(&fixture, "failed").await, (Some(0), vec![]), "everything is as it was again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_point_shows_is_found_too() {
    let (fixture, older) = restored().await;

    // An index that is gone: every search finds what it found, only that it reads everything.
    let not_indexed = Condition::NotIndexed("docs".to_owned());
    fixture.stand_in().faults().set(not_indexed.clone());
    let detail = format!("docs vector-index: 0 vectors indexed, expected {}", DOCS * 4);
    found(&fixture, "index", &[&detail]).await;
    fixture.stand_in().faults().end(&not_indexed);

    // A collection that is not in the backup is named and does no harm; an alias that leads to it does.
    fixture.load("stranger", 5).await;
    let (code, skipped) = said(&fixture, "skipped").await;
    assert_eq!(code, Some(0));
    assert!(
        skipped.contains(&"- presence: not in the backup, not compared: `stranger`".to_owned()),
        "{skipped:?}"
    );
    let actions = json!({ "actions": [
        { "delete_alias": { "alias_name": ALIAS } },
        { "create_alias": { "alias_name": ALIAS, "collection_name": "stranger" } },
    ]});
    fixture.call(Method::POST, "/collections/aliases", actions).await;
    found(&fixture, "alias", &["- aliases: `live` is stranger, expected docs"]).await;
    fixture.client().call(Method::DELETE, "/collections/stranger", None).await.unwrap();
    fixture.client().create_alias(ALIAS, "docs").await.unwrap();

    // The same points under another distance.
    fixture.client().call(Method::DELETE, "/collections/docs", None).await.unwrap();
    make(&fixture, "Dot", 1).await;
    fixture.client().create_alias(ALIAS, "docs").await.unwrap();
    let distance = "docs config: `params.vectors.title.distance` is \"Dot\", expected \"Cosine\"";
    found(&fixture, "distance", &[distance]).await;

    // The backup before: nothing but the points tells them apart.
    fixture.ok(&format!("restore --replace --backup {older}")).await;
    let finished = fixture.run("verify --data").await;
    assert_eq!(finished.code(), Some(3));
    let (_, failures) = said(&fixture, "failed").await;
    assert!(
        failures.iter().any(|failure| failure.contains("docs points: point 0 has another payload")),
        "{failures:?}"
    );
    assert!(!failures.iter().any(|failure| failure.contains("count")), "{failures:?}");
    let verified = fixture.ok(&format!("verify --data --backup {older}")).await;
    assert_eq!(verified["verdict"]["passed"], true, "it is what it says that it is");
}
