//! Every kind of collection through the whole cycle.

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::Fixture;

/// A value between -1 and 1 that follows from its arguments.
fn component(point: u64, position: u64) -> f64 {
    let mixed = (point * 7_919 + position * 104_729 + 13) % 20_011;
    f64::from(u32::try_from(mixed).unwrap()) / 10_005.5 - 1.0
}

fn dense(point: u64, size: u64) -> Vec<f64> {
    (0..size).map(|position| component(point, position)).collect()
}

fn sparse(point: u64) -> Value {
    let indices: Vec<u64> = (0..5).map(|n| n * 97 + point % 89).collect();
    let values: Vec<f64> = indices.iter().map(|index| component(point, *index).abs() + 0.01).collect();
    json!({ "indices": indices, "values": values })
}

fn multi(point: u64) -> Value {
    json!([dense(point, 8), dense(point + 1_000, 8), dense(point + 2_000, 8)])
}

fn payload(point: u64) -> Value {
    json!({
        "kind": if point.is_multiple_of(3) { "guide" } else { "setting" },
        "rank": point,
        "weight": component(point, 1),
        "nested": { "tags": [point, "ü", null], "empty": {} },
    })
}

async fn create(fixture: &Fixture, name: &str, config: Value) {
    fixture.client().call(Method::PUT, &format!("/collections/{name}"), Some(&config)).await.unwrap();
}

async fn fill(fixture: &Fixture, name: &str, count: u64, vector: impl Fn(u64) -> Value) {
    let points: Vec<Value> =
        (0..count).map(|id| json!({ "id": id, "vector": vector(id), "payload": payload(id) })).collect();
    for batch in points.chunks(100) {
        let body = json!({ "points": batch });
        fixture
            .client()
            .call(Method::PUT, &format!("/collections/{name}/points?wait=true"), Some(&body))
            .await
            .unwrap();
    }
}

/// Every point of a collection, by id.
async fn everything(fixture: &Fixture, name: &str) -> Value {
    let body = json!({ "limit": 10_000, "with_payload": true, "with_vector": true });
    fixture
        .client()
        .call(Method::POST, &format!("/collections/{name}/points/scroll"), Some(&body))
        .await
        .unwrap()["points"]
        .take()
}

const ALL: [&str; 9] =
    ["byte", "deleted", "dense", "empty", "euclid", "multi", "named", "quantised", "sparse"];

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_collection_comes_back_point_for_point() {
    let mut fixture = Fixture::empty().await;
    let cosine = json!({ "size": 16, "distance": "Cosine" });
    create(&fixture, "dense", json!({ "vectors": cosine, "on_disk_payload": true })).await;
    fill(&fixture, "dense", 400, |id| json!(dense(id, 16))).await;
    for (field, schema) in
        [("kind", json!("keyword")), ("rank", json!("integer")), ("weight", json!("float"))]
    {
        let index = json!({ "field_name": field, "field_schema": schema });
        fixture.client().call(Method::PUT, "/collections/dense/index?wait=true", Some(&index)).await.unwrap();
    }

    let named = json!({ "title": { "size": 8, "distance": "Dot" }, "body": { "size": 12, "distance": "Cosine", "on_disk": true } });
    create(&fixture, "named", json!({ "vectors": named, "sparse_vectors": { "words": {} } })).await;
    // Some points lack one of the vectors.
    fill(&fixture, "named", 150, |id| match id % 3 {
        0 => json!({ "title": dense(id, 8), "body": dense(id + 1, 12), "words": sparse(id) }),
        1 => json!({ "title": dense(id, 8), "words": sparse(id) }),
        _ => json!({ "body": dense(id, 12) }),
    })
    .await;

    create(&fixture, "sparse", json!({ "sparse_vectors": { "words": { "index": { "on_disk": false } } } }))
        .await;
    fill(&fixture, "sparse", 120, |id| json!({ "words": sparse(id) })).await;

    create(&fixture, "multi", json!({ "vectors": { "size": 8, "distance": "Cosine", "multivector_config": { "comparator": "max_sim" } } })).await;
    fill(&fixture, "multi", 90, multi).await;

    let scalar = json!({ "scalar": { "type": "int8", "quantile": 0.99, "always_ram": true } });
    create(&fixture, "quantised", json!({ "vectors": { "size": 16, "distance": "Cosine" }, "quantization_config": scalar, "hnsw_config": { "m": 8 } })).await;
    fill(&fixture, "quantised", 400, |id| json!(dense(id, 16))).await;

    create(&fixture, "euclid", json!({ "vectors": { "size": 4, "distance": "Euclid" } })).await;
    fill(&fixture, "euclid", 60, |id| json!(dense(id, 4))).await;

    create(
        &fixture,
        "byte",
        json!({ "vectors": { "size": 8, "distance": "Manhattan", "datatype": "uint8" } }),
    )
    .await;
    fill(&fixture, "byte", 80, |id| json!((0..8).map(|n| (id * 31 + n * 17) % 256).collect::<Vec<_>>()))
        .await;

    create(&fixture, "deleted", json!({ "vectors": { "size": 4, "distance": "Dot" } })).await;
    fill(&fixture, "deleted", 200, |id| json!(dense(id, 4))).await;
    let every_other: Vec<u64> = (0..200).step_by(2).collect();
    let body = json!({ "points": every_other });
    fixture
        .client()
        .call(Method::POST, "/collections/deleted/points/delete?wait=true", Some(&body))
        .await
        .unwrap();

    create(&fixture, "empty", json!({ "vectors": { "size": 4, "distance": "Cosine" } })).await;
    for (alias, collection) in [("live", "dense"), ("also-live", "dense"), ("names", "named")] {
        fixture.client().create_alias(alias, collection).await.unwrap();
    }

    let mut before = Vec::new();
    for name in ALL {
        before.push(everything(&fixture, name).await);
    }
    let manifest = fixture.backup().await;
    for collection in manifest["collections"].as_array().unwrap() {
        let searched = collection["golden"]["searches"].as_u64().unwrap();
        assert_eq!(
            searched == 0,
            collection["name"] == "empty",
            "{}: {}",
            collection["name"],
            collection["golden"]
        );
    }

    fixture.replace_host().await;
    let restored = fixture.ok("restore").await;
    assert_eq!(restored["verdict"]["passed"], true, "{restored:#}");
    assert_eq!(fixture.collections().await, ALL);
    assert_eq!(fixture.aliases().await, json!({ "live": "dense", "also-live": "dense", "names": "named" }));
    for (name, before) in ALL.iter().zip(&before) {
        assert_eq!(everything(&fixture, name).await, *before, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_beside_live_data_becomes_visible_by_its_alias() {
    let fixture = Fixture::loaded().await;
    fixture.backup().await;
    fixture.delete_points("docs", 100).await;

    let restored = fixture.ok("restore --as -copy --switch-alias --collection docs").await;
    assert_eq!(restored["collections"], json!([["docs", "docs-copy"]]));
    assert_eq!(fixture.collections().await, ["docs", "docs-copy", "notes"]);
    assert_eq!(fixture.aliases().await, json!({ "docs-live": "docs-copy" }));
    let counts =
        [fixture.client().count("docs").await.unwrap(), fixture.client().count("docs-live").await.unwrap()];
    assert_eq!(counts, [200, 300], "live data is as it was, readers see the copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn replacing_brings_the_backup_back_over_what_is_there() {
    let fixture = Fixture::loaded().await;
    fixture.backup().await;
    fixture.delete_points("docs", 100).await;
    fixture.fails("restore", "RestoreFailed", 1).await;
    assert_eq!(fixture.client().count("docs").await.unwrap(), 200, "without --replace nothing is touched");
    fixture.ok("restore --replace").await;
    assert_eq!(fixture.client().count("docs").await.unwrap(), 300);
    assert_eq!(fixture.aliases().await, json!({ "docs-live": "docs" }));
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_data_is_found() {
    let fixture = Fixture::loaded().await;
    fixture.backup().await;
    fixture.delete_points("docs", 1).await;
    let finished = fixture.run("verify --data").await;
    assert_eq!(finished.code(), Some(3), "{}", finished.stdout);
    let verdict = finished.json().unwrap()["verdict"].take();
    let failed: Vec<&Value> =
        verdict["checks"].as_array().unwrap().iter().filter(|check| check["outcome"] == "failed").collect();
    assert!(failed.iter().any(|check| check["detail"] == "299 points, expected 300"), "{failed:#?}");
}
