//! What a restore leaves when it cannot do all that was asked, and what a host may do with data that is not the published one.

use localcloud::{
    cloud::BUCKET,
    qdrant::{Fault, When},
};

use crate::harness::{Fixture, next_second};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_replaced_stays_when_the_next_one_fails() {
    let fixture = Fixture::loaded().await;
    fixture.backup().await;
    fixture.delete_points("docs", 100).await;
    fixture.stand_in().faults().inject(When::next_of("notes"), Fault::RecoverFailsAtLoad);
    let said = fixture.fails("restore --replace", "RestoreFailed", 1).await;
    let message = said["message"].as_str().unwrap();
    assert!(message.contains("collection `docs` was replaced by the backup's"), "{message}");
    assert!(message.contains("collection `notes` was deleted and is not back"), "{message}");
    assert_eq!(fixture.collections().await, ["docs"], "no half of a collection stays");
    assert_eq!(fixture.client().count("docs").await.unwrap(), 300, "what came back whole stays");

    fixture.ok("restore --collection notes").await;
    assert_eq!(fixture.client().count("notes").await.unwrap(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_that_readers_use_for_newer_data_is_not_moved_unasked() {
    let fixture = Fixture::loaded().await;
    fixture.backup().await;
    // The next generation takes over, as a re-indexing job does it.
    fixture.load("docs-2", 20).await;
    let client = fixture.client();
    client.call(reqwest::Method::DELETE, "/collections/docs", None).await.unwrap();
    client.create_alias("docs-live", "docs-2").await.unwrap();

    let said = fixture.fails("restore --collection docs", "RestoreFailed", 1).await;
    assert!(said["message"].as_str().unwrap().contains("`docs-live`"), "{said:#}");
    assert_eq!(fixture.aliases().await["docs-live"], "docs-2");
    fixture.ok("restore --collection docs --as -old").await;
    assert_eq!(fixture.aliases().await["docs-live"], "docs-2");
    assert_eq!(client.count("docs-old").await.unwrap(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_golden_set_needs_a_word_and_the_data_still_comes_back() {
    let mut fixture = Fixture::loaded().await;
    let manifest = fixture.backup().await;
    let key = manifest["key"].as_str().unwrap().replace(".tar.zst", ".golden.json.zst");
    fixture.cloud.s3.remove(BUCKET, &key).unwrap();
    fixture.replace_host().await;
    let said = fixture.fails("restore", "ManifestMissing", 1).await;
    assert!(said["hint"].as_str().unwrap().contains("--unproved"), "{said:#}");
    assert!(fixture.collections().await.is_empty());

    let restored = fixture.ok("restore --unproved").await;
    let checks = restored["verdict"]["checks"].as_array().unwrap();
    let skipped = checks.iter().find(|check| check["detail"].as_str().unwrap().contains(&key)).unwrap();
    assert_eq!(skipped["outcome"], "skipped");
    assert_eq!(fixture.client().count("docs-live").await.unwrap(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_with_an_older_backup_does_not_move_the_pointer_until_a_person_says_so() {
    let mut fixture = Fixture::loaded().await;
    let older = fixture.backup().await;
    next_second().await;
    let newer = fixture.backup().await;
    fixture.replace_host().await;
    fixture.ok(&format!("restore --backup {}", older["backup_id"].as_str().unwrap())).await;

    next_second().await;
    let said = fixture.fails("backup --no-quiesce", "Suspicious", 1).await;
    assert!(said["message"].as_str().unwrap().contains("degraded"), "{said:#}");
    assert_eq!(fixture.pointer().await.unwrap(), newer["backup_id"].as_str().unwrap());
    let acknowledged = fixture.ok("acknowledge").await;
    assert_eq!(acknowledged["was_degraded"], true);
    next_second().await;
    let next = fixture.backup().await;
    assert_eq!(fixture.pointer().await.unwrap(), next["backup_id"].as_str().unwrap());
}
