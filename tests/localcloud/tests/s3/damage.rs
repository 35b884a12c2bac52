//! Damage done to stored objects behind S3's back.

use super::*;
use aws_sdk_s3::types::ChecksumMode;

#[tokio::test]
async fn a_corrupt_object_is_served_with_its_old_checksum() {
    let server = server().await;
    let client = once(&server);
    let bytes = pattern(5000, 1);
    put(&client, "k", bytes.clone()).await;
    server.corrupt(BUCKET, "k", 4999, 0x80).unwrap();
    let range = client.get_object().bucket(BUCKET).key("k").range("bytes=4999-").send().await.unwrap();
    assert_eq!(range.body.collect().await.unwrap().into_bytes(), [bytes[4999] ^ 0x80][..]);
    let whole = client.get_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert!(whole.body.collect().await.is_err(), "the SDK compares the checksum");
    assert!(server.corrupt(BUCKET, "k", 5000, 1).is_err(), "beyond the end");
    assert!(server.corrupt(BUCKET, "absent", 0, 1).is_err());
}

#[tokio::test]
async fn a_truncated_object_is_short_and_keeps_its_checksum() {
    let server = server().await;
    let client = once(&server);
    let before = put(&client, "k", pattern(5000, 1)).await;
    let head = || client.head_object().bucket(BUCKET).key("k").checksum_mode(ChecksumMode::Enabled).send();
    let checksum = head().await.unwrap().checksum_crc32().map(str::to_owned);
    server.truncate(BUCKET, "k", 1234).unwrap();
    let after = head().await.unwrap();
    assert_eq!(after.content_length(), Some(1234));
    assert_eq!(after.checksum_crc32().map(str::to_owned), checksum);
    assert_eq!(after.version_id().map(str::to_owned), before);
    let listed = client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert_eq!(listed.contents()[0].size(), Some(1234));
}

#[tokio::test]
async fn a_removed_object_was_never_there() {
    let server = server().await;
    let client = once(&server);
    let version = put(&client, "a/b/k", "x").await.unwrap();
    put(&client, "a/b/k", "y").await;
    server.remove(BUCKET, "a/b/k").unwrap();
    assert_eq!(
        refusal(client.get_object().bucket(BUCKET).key("a/b/k").send().await),
        refused(404, "NoSuchKey")
    );
    let old = client.get_object().bucket(BUCKET).key("a/b/k").version_id(version).send().await;
    assert_eq!(refusal(old), refused(404, "NoSuchVersion"));
    let versions = client.list_object_versions().bucket(BUCKET).send().await.unwrap();
    assert!(versions.versions().is_empty());
    assert!(server.remove(BUCKET, "a/b/k").is_err());
}

#[tokio::test]
async fn a_person_may_damage_the_files_too() {
    let server = server().await;
    let client = once(&server);
    put(&client, "k", "12345").await;
    let path = server.root().join(BUCKET).join("k");
    fs_err::write(&path, "123").unwrap();
    assert_eq!(client.head_object().bucket(BUCKET).key("k").send().await.unwrap().content_length(), Some(3));
    fs_err::remove_file(&path).unwrap();
    assert_eq!(refusal(client.get_object().bucket(BUCKET).key("k").send().await), refused(404, "NoSuchKey"));
}
