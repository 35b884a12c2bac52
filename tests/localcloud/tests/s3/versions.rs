//! Versions and delete markers.

use aws_sdk_s3::types::{BucketVersioningStatus, VersioningConfiguration};

use super::multipart::{complete, create, part};
use super::*;

async fn get_version(client: &Client, key: &str, version: &str) -> Vec<u8> {
    let reply = client.get_object().bucket(BUCKET).key(key).version_id(version).send().await.unwrap();
    assert_eq!(reply.version_id(), Some(version));
    reply.body.collect().await.unwrap().into_bytes().to_vec()
}

#[tokio::test]
async fn every_write_makes_a_version_and_all_stay_readable() {
    let server = server().await;
    let client = once(&server);
    let first = put(&client, "k", "one").await.unwrap();
    let second = put(&client, "k", "two").await.unwrap();
    assert_ne!(first, second);
    assert_eq!(get_version(&client, "k", &first).await, b"one");
    assert_eq!(get_version(&client, "k", &second).await, b"two");
    assert_eq!(get(&client, "k").await, b"two");
    let head = client.head_object().bucket(BUCKET).key("k").version_id(&first).send().await.unwrap();
    assert_eq!(head.content_length(), Some(3));
    let unknown = client.get_object().bucket(BUCKET).key("k").version_id("0".repeat(32)).send().await;
    assert_eq!(refusal(unknown), refused(404, "NoSuchVersion"));
    let deleted = client.delete_object().bucket(BUCKET).key("k").version_id(&second).send().await.unwrap();
    assert_eq!(deleted.version_id(), Some(second.as_str()));
    assert_eq!(get(&client, "k").await, b"one", "the older version is the current one again");
}

#[tokio::test]
async fn a_deletion_leaves_a_marker_and_the_older_versions() {
    let server = server().await;
    let client = once(&server);
    let version = put(&client, "k", "one").await.unwrap();
    let deleted = client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(deleted.delete_marker(), Some(true));
    let marker = deleted.version_id().unwrap();
    let gone = client.get_object().bucket(BUCKET).key("k").send().await.unwrap_err();
    let raw = gone.raw_response().unwrap();
    assert_eq!(raw.status().as_u16(), 404);
    assert_eq!(raw.headers().get("x-amz-delete-marker"), Some("true"));
    assert_eq!(raw.headers().get("x-amz-version-id"), Some(marker));
    assert_eq!(get_version(&client, "k", &version).await, b"one");
    let read = client.get_object().bucket(BUCKET).key("k").version_id(marker).send().await;
    assert_eq!(refusal(read), refused(405, "MethodNotAllowed"));
    let listed = client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert!(listed.contents().is_empty());

    let versions = client.list_object_versions().bucket(BUCKET).send().await.unwrap();
    assert_eq!(versions.delete_markers()[0].version_id(), Some(marker));
    assert_eq!(versions.delete_markers()[0].is_latest(), Some(true));
    assert_eq!(versions.versions()[0].version_id(), Some(version.as_str()));
    assert_eq!(versions.versions()[0].is_latest(), Some(false));

    let undone = client.delete_object().bucket(BUCKET).key("k").version_id(marker).send().await.unwrap();
    assert_eq!(undone.delete_marker(), Some(true));
    assert_eq!(get(&client, "k").await, b"one");
}

#[tokio::test]
async fn versions_are_listed_in_pages() {
    let server = server().await;
    let client = once(&server);
    let mut expected = Vec::new();
    for key in ["a", "b"] {
        let mut versions = Vec::new();
        for body in ["1", "2", "3"] {
            versions.push((key.to_owned(), put(&client, key, body).await.unwrap()));
        }
        expected.extend(versions.into_iter().rev());
    }
    let mut seen = Vec::new();
    let (mut key, mut version) = (None, None);
    loop {
        let page = client.list_object_versions().bucket(BUCKET).max_keys(2);
        let page = page.set_key_marker(key).set_version_id_marker(version).send().await.unwrap();
        for version in page.versions() {
            seen.push((version.key().unwrap().to_owned(), version.version_id().unwrap().to_owned()));
        }
        if page.is_truncated() != Some(true) {
            break;
        }
        key = page.next_key_marker().map(str::to_owned);
        version = page.next_version_id_marker().map(str::to_owned);
    }
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn of_uploads_of_one_key_the_one_created_last_is_current() {
    let server = server().await;
    let client = once(&server);
    let early = create(&client, "k").await;
    let late = create(&client, "k").await;
    for (upload, bytes) in [(&late, b"late"), (&early, b"soon")] {
        let named = part(&client, "k", upload, 1, bytes).await;
        complete(&client, "k", upload, &[named]).send().await.unwrap();
    }
    assert_eq!(get(&client, "k").await, b"late", "although the other one was completed after it");
}

#[tokio::test]
async fn a_bucket_without_versioning_keeps_the_last_write_only() {
    let server = started(S3Options { versioning: false, ..options() }).await;
    let client = once(&server);
    assert_eq!(put(&client, "k", "one").await, None);
    assert_eq!(put(&client, "k", "two").await, None);
    assert_eq!(get(&client, "k").await, b"two");
    let deleted = client.delete_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(deleted.delete_marker(), None);
    let versions = client.list_object_versions().bucket(BUCKET).send().await.unwrap();
    assert!(versions.versions().is_empty() && versions.delete_markers().is_empty());
}

#[tokio::test]
async fn versioning_is_switched_by_the_api() {
    let server = started(S3Options { versioning: false, ..options() }).await;
    let client = once(&server);
    let status =
        || async { client.get_bucket_versioning().bucket(BUCKET).send().await.unwrap().status().cloned() };
    assert_eq!(status().await, None);
    put(&client, "k", "null").await;
    let switch = |status: BucketVersioningStatus| {
        let configuration = VersioningConfiguration::builder().status(status).build();
        client.put_bucket_versioning().bucket(BUCKET).versioning_configuration(configuration).send()
    };
    switch(BucketVersioningStatus::Enabled).await.unwrap();
    assert_eq!(status().await, Some(BucketVersioningStatus::Enabled));
    let version = put(&client, "k", "kept").await.unwrap();
    switch(BucketVersioningStatus::Suspended).await.unwrap();
    assert_eq!(put(&client, "k", "null again").await.as_deref(), Some("null"));
    assert_eq!(get_version(&client, "k", "null").await, b"null again");
    assert_eq!(get_version(&client, "k", &version).await, b"kept");
}
