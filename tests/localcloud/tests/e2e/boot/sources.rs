//! What a boot restores when it is not the published backup: the next best, and the host is degraded until somebody says otherwise.

use localcloud::cloud::BUCKET;
use serde_json::Value;

use super::harness::Replaced;
use crate::harness::{Fixture, archive, id, next_second, says};

/// Two backups: of 60 points and 20, and of 50 and 20.
async fn two_backups() -> (Fixture, Value, Value) {
    let fixture = Fixture::small().await;
    let older = fixture.backup().await;
    fixture.delete_points("docs", 10).await;
    next_second().await;
    let newer = fixture.backup().await;
    (fixture, older, newer)
}

/// Damages a byte in the middle of a stored archive, in every copy of it.
fn damage(fixture: &Fixture, manifest: &Value) {
    let path = fixture.cloud.object_path(&archive(manifest));
    let mut bytes = fs_err::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    fs_err::write(&path, bytes).unwrap();
}

async fn assert_degraded(host: &Replaced, result: &Value, backup: &Value) {
    assert_eq!(result["record"]["source"]["backup_id"].as_str(), Some(id(backup)), "{result:#}");
    assert_eq!(result["record"]["source"]["degraded"], true, "{result:#}");
    // Its backups are kept, and the pointer stays where it is.
    let pointer = host.fixture.pointer().await;
    next_second().await;
    let said = host.fails(&["backup", "--no-quiesce"], "Suspicious", 1).await;
    says(&said, &["degraded"]);
    assert_eq!(host.fixture.pointer().await, pointer);
    host.ok(&["acknowledge"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_pointer_gives_way_to_the_newest_manifest() {
    let (fixture, _older, newer) = two_backups().await;
    fs_err::write(fixture.cloud.object_path(protocol::key::POINTER), "{").unwrap();
    let host = Replaced::with_lost_pointer(fixture).await;
    let result = host.boots().await;
    assert_eq!(result["record"]["source"]["backup_id"].as_str(), Some(id(&newer)), "{result:#}");
    assert_eq!(result["record"]["source"]["degraded"], true);
    assert_eq!(host.instance.client().count("docs").await.unwrap(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_archive_gives_way_to_an_older_proven_one() {
    let (fixture, older, newer) = two_backups().await;
    fixture.ok(&format!("verify --archive --backup {}", id(&older))).await;
    damage(&fixture, &newer);
    let host = Replaced::with(fixture, |_| {}).await;
    let result = host.boots().await;
    assert_eq!(host.instance.client().count("docs").await.unwrap(), 60);
    let rejected = &result["record"]["rejected"];
    assert_eq!(rejected[0]["source"]["backup_id"].as_str(), Some(id(&newer)), "{result:#}");
    assert_degraded(&host, &result, &older).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_from_the_future_holds() {
    let (fixture, _, newer) = two_backups().await;
    let mut pointer = newer.clone();
    pointer["format_version"] = 2.into();
    let body = pointer.to_string().into_bytes().into();
    let s3 = fixture.cloud.s3.client().await;
    s3.put_object().bucket(BUCKET).key(protocol::key::POINTER).body(body).send().await.unwrap();
    let host = Replaced::with_lost_pointer(fixture).await;
    let said = host.fails(&["boot", "--once"], "ManifestInvalid", 1).await;
    says(&said, &["version 2"]);
    assert!(!host.serves().await);
    assert_eq!(host.instance.docker.started(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_was_ever_stored_and_the_host_starts_empty() {
    let fixture = Fixture::empty().await;
    let host = Replaced::with(fixture, |_| {}).await;
    let result = host.boots().await;
    assert_eq!(result["record"]["source"]["from"], "nothing", "{result:#}");
    let collections = host.instance.client().call(reqwest::Method::GET, "/collections", None).await.unwrap();
    assert_eq!(collections["collections"], serde_json::json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_holds_anything_is_no_reason_to_start_empty() {
    let fixture = Fixture::small().await;
    let manifest = fixture.backup().await;
    for key in [protocol::key::POINTER.to_owned(), format!("qdrant/manifests/{}.json", id(&manifest))] {
        fs_err::remove_file(fixture.cloud.object_path(&key)).unwrap();
    }
    let host = Replaced::with_lost_pointer(fixture).await;
    let said = host.fails(&["boot", "--once"], "ManifestMissing", 1).await;
    says(&said, &["objects"]);
    assert!(!host.serves().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshots_on_the_disk_are_the_last_resort() {
    let (fixture, older, newer) = two_backups().await;
    damage(&fixture, &older);
    damage(&fixture, &newer);
    // What Qdrant had made for itself, on the disk that the host still has.
    let kept = fixture.cloud.dir().join("kept-snapshots");
    for name in ["docs", "notes"] {
        fixture
            .call(reqwest::Method::POST, &format!("/collections/{name}/snapshots?wait=true"), Value::Null)
            .await;
    }
    copy(fixture.cloud.qdrant.snapshots_dir(), &kept);
    let host = Replaced::with(fixture, |_| {}).await;
    copy(&kept, &host.instance.workspace().join("snapshots"));
    let result = host.boots().await;
    assert_eq!(result["record"]["source"]["from"], "local-snapshots", "{result:#}");
    let client = host.instance.client();
    assert_eq!((client.count("docs").await.unwrap(), client.count("notes").await.unwrap()), (50, 20));
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    for file in crate::harness::files_below(from) {
        let there = to.join(file.strip_prefix(from).unwrap());
        fs_err::create_dir_all(there.parent().unwrap()).unwrap();
        fs_err::copy(&file, there).unwrap();
    }
}
