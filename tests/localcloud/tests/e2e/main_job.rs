//! Back up, lose everything, restore, prove it.

use localcloud::{cloud::BUCKET, corpus::Corpus, indexer};
use serde_json::json;

use crate::harness::{ALIAS, Fixture};

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_qdrant_comes_back_as_it_was() {
    let mut fixture = Fixture::loaded().await;
    let corpus = Corpus::load().unwrap();
    let question = &corpus.questions[0].embedding;
    let before = fixture.client().answer(ALIAS, question).await.unwrap();
    let counts = [("docs".to_owned(), 300)].into();
    let s3 = fixture.cloud.s3.client().await;
    indexer::mark_success(&s3, BUCKET, "batch-7", jiff::Timestamp::now(), &counts).await.unwrap();

    let backup = fixture.ok("backup").await;
    let manifest = &backup["manifest"];
    assert_eq!(backup["publication"]["outcome"]["outcome"], "published", "{backup:#}");
    assert_eq!(manifest["quiesced"], true);
    assert_eq!(manifest["indexing"]["batch_id"], "batch-7");
    assert_eq!(manifest["aliases"], json!({ ALIAS: "docs" }));
    assert_eq!(manifest["collections"][0]["points_after"], 300);
    assert_eq!(manifest["collections"][0]["golden"]["points"], 256);
    assert_eq!(manifest["collections"][0]["golden"]["searches"], 8);
    assert!(
        fixture.snapshot_files().is_empty(),
        "no snapshot stays unless asked for: {:?}",
        fixture.snapshot_files()
    );

    fixture.replace_host().await;
    assert!(fixture.collections().await.is_empty());
    let restored = fixture.ok("restore").await;
    assert_eq!(restored["verdict"]["passed"], true, "{restored:#}");
    assert_eq!(fixture.collections().await, ["docs", "notes"]);
    assert_eq!(fixture.aliases().await, json!({ ALIAS: "docs" }));
    assert_eq!(fixture.client().answer(ALIAS, question).await.unwrap(), before);
    assert!(fixture.snapshot_files().is_empty(), "nothing staged stays: {:?}", fixture.snapshot_files());

    let archive = fixture.ok("verify --archive").await;
    assert_eq!(archive["passed"], true, "{archive:#}");
    assert_eq!(archive["frames"], archive["frames_good"]);
    let data = fixture.ok("verify --data").await;
    assert_eq!(data["verdict"]["passed"], true, "{data:#}");
    let list = fixture.ok("list").await;
    assert_eq!(list["backups"][0]["published"], true);
    assert_eq!(list["backups"][0]["proof"][0], "re-read", "{list:#}");
    let doctor = fixture.ok("doctor").await;
    assert_eq!(doctor["healthy"], true, "{doctor:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_qdrant_is_backed_up_as_one() {
    let mut fixture = Fixture::empty().await;
    let manifest = fixture.backup().await;
    assert_eq!(manifest["collections"], json!([]));
    fixture.replace_host().await;
    assert_eq!(fixture.ok("restore").await["verdict"]["passed"], true);
}
