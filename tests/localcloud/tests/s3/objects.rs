//! Objects in one piece: bytes, metadata, checksums, ranges, encryption headers, deletion.

use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, Delete, ObjectAttributes, ObjectIdentifier,
    ServerSideEncryption,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::*;

#[tokio::test]
async fn an_object_comes_back_with_what_was_said_about_it() {
    let server = server().await;
    let client = server.client().await;
    let bytes = pattern(100_000, 1);
    let done = client
        .put_object()
        .bucket(BUCKET)
        .key("a folder/ü+%&.bin")
        .content_type("application/zstd")
        .cache_control("no-store")
        .metadata("backup-id", "b1")
        .body(ByteStream::from(bytes.clone()))
        .send()
        .await
        .unwrap();
    assert_eq!(done.e_tag(), Some(md5_etag(&bytes).as_str()));

    let reply = client.get_object().bucket(BUCKET).key("a folder/ü+%&.bin").send().await.unwrap();
    assert_eq!(reply.content_type(), Some("application/zstd"));
    assert_eq!(reply.cache_control(), Some("no-store"));
    assert_eq!(reply.metadata().unwrap().get("backup-id").map(String::as_str), Some("b1"));
    assert_eq!(reply.content_length(), Some(100_000));
    assert_eq!(reply.version_id(), done.version_id());
    assert_eq!(reply.server_side_encryption(), Some(&ServerSideEncryption::Aes256));
    assert_eq!(reply.body.collect().await.unwrap().into_bytes(), bytes);
}

#[tokio::test]
async fn an_empty_object_is_an_object() {
    let server = server().await;
    let client = server.client().await;
    put(&client, "empty", "").await;
    assert_eq!(get(&client, "empty").await, b"");
}

#[tokio::test]
async fn a_checksum_is_verified_stored_and_returned_when_asked_for() {
    let server = server().await;
    let client = once(&server);
    let bytes = pattern(5000, 2);
    let request = || client.put_object().bucket(BUCKET).key("k").body(ByteStream::from(bytes.clone()));

    let wrong = request().checksum_crc64_nvme(crc64nvme(b"other")).send().await;
    assert_eq!(refusal(wrong), refused(400, "BadDigest"));
    let malformed = request().checksum_crc64_nvme("!").send().await;
    assert_eq!(refusal(malformed), refused(400, "InvalidRequest"));
    let wrong = request().checksum_sha256(BASE64.encode([0; 32])).send().await;
    assert_eq!(refusal(wrong), refused(400, "BadDigest"));
    let wrong = request().content_md5(BASE64.encode([0; 16])).send().await;
    assert_eq!(refusal(wrong), refused(400, "BadDigest"));
    let malformed = request().content_md5("no base64").send().await;
    assert_eq!(refusal(malformed), refused(400, "InvalidDigest"));
    assert_eq!(refusal(client.get_object().bucket(BUCKET).key("k").send().await), refused(404, "NoSuchKey"));

    let expected = crc64nvme(&bytes);
    let done = request().checksum_crc64_nvme(&expected).send().await.unwrap();
    assert_eq!(done.checksum_crc64_nvme(), Some(expected.as_str()));
    let head = client
        .head_object()
        .bucket(BUCKET)
        .key("k")
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .unwrap();
    assert_eq!(head.checksum_crc64_nvme(), Some(expected.as_str()));
    assert_eq!(head.checksum_type(), Some(&ChecksumType::FullObject));
    let plain = client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(plain.checksum_crc64_nvme(), None, "only when asked for");
}

#[tokio::test]
async fn every_algorithm_of_the_sdk_is_computed_and_kept() {
    type Kept = fn(&HeadObjectOutput) -> Option<&str>;
    let server = server().await;
    let client = server.client().await;
    let kept: [(ChecksumAlgorithm, Kept); 5] = [
        (ChecksumAlgorithm::Crc32, HeadObjectOutput::checksum_crc32),
        (ChecksumAlgorithm::Crc32C, HeadObjectOutput::checksum_crc32_c),
        (ChecksumAlgorithm::Crc64Nvme, HeadObjectOutput::checksum_crc64_nvme),
        (ChecksumAlgorithm::Sha1, HeadObjectOutput::checksum_sha1),
        (ChecksumAlgorithm::Sha256, HeadObjectOutput::checksum_sha256),
    ];
    for (algorithm, kept) in kept {
        let body = ByteStream::from_static(b"some bytes");
        let put =
            client.put_object().bucket(BUCKET).key("k").checksum_algorithm(algorithm.clone()).body(body);
        put.send().await.unwrap();
        let head = client.head_object().bucket(BUCKET).key("k").checksum_mode(ChecksumMode::Enabled);
        let kept = kept(&head.send().await.unwrap()).map(str::to_owned);
        assert!(kept.is_some(), "{algorithm:?}");
    }
}

#[tokio::test]
async fn a_streamed_payload_with_a_trailing_checksum_is_taken() {
    let server = server().await;
    let client = server.client().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let bytes = pattern(300_000, 3);
    fs_err::write(file.path(), &bytes).unwrap();
    let body = ByteStream::from_path(file.path()).await.unwrap();
    let put = client.put_object().bucket(BUCKET).key("k").checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
    let done = put.body(body).send().await.unwrap();
    assert_eq!(done.checksum_crc64_nvme(), Some(crc64nvme(&bytes).as_str()));
    assert_eq!(server.calls()[0].length, 300_000, "the payload without its framing");
    assert_eq!(get(&client, "k").await, bytes);
}

#[tokio::test]
async fn without_a_checksum_the_object_gets_a_crc64nvme() {
    let server = server().await;
    let config = server.client_config();
    let config =
        config.request_checksum_calculation(aws_sdk_s3::config::RequestChecksumCalculation::WhenRequired);
    let client = Client::from_conf(config.build());
    put(&client, "k", "bytes").await;
    let head = client
        .head_object()
        .bucket(BUCKET)
        .key("k")
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .unwrap();
    assert_eq!(head.checksum_crc64_nvme(), Some(crc64nvme(b"bytes").as_str()));
    assert_eq!(head.checksum_crc32(), None);
}

#[tokio::test]
async fn a_range_is_what_was_asked_for() {
    let server = server().await;
    let client = once(&server);
    let bytes = pattern(1000, 4);
    put(&client, "k", bytes.clone()).await;
    for (range, expected, header) in [
        ("bytes=0-9", &bytes[..10], "bytes 0-9/1000"),
        ("bytes=990-", &bytes[990..], "bytes 990-999/1000"),
        ("bytes=-5", &bytes[995..], "bytes 995-999/1000"),
        ("bytes=998-5000", &bytes[998..], "bytes 998-999/1000"),
    ] {
        let reply = client.get_object().bucket(BUCKET).key("k").range(range).send().await.unwrap();
        assert_eq!(reply.content_range(), Some(header));
        assert_eq!(reply.checksum_crc32(), None, "there is no checksum of a range");
        assert_eq!(reply.body.collect().await.unwrap().into_bytes(), expected, "{range}");
    }
    let beyond = client.get_object().bucket(BUCKET).key("k").range("bytes=1000-").send().await;
    assert_eq!(refusal(beyond), refused(416, "InvalidRange"));
    assert_eq!(server.calls()[1].range.as_deref(), Some("bytes=0-9"));
}

#[tokio::test]
async fn encryption_headers_are_kept_and_the_etag_is_no_md5_then() {
    let server = server().await;
    let client = server.client().await;
    let key_id = "arn:aws:kms:us-east-1:111122223333:key/abc";
    let done = client
        .put_object()
        .bucket(BUCKET)
        .key("k")
        .server_side_encryption(ServerSideEncryption::AwsKms)
        .ssekms_key_id(key_id)
        .bucket_key_enabled(true)
        .body(ByteStream::from_static(b"secret"))
        .send()
        .await
        .unwrap();
    assert_eq!(done.ssekms_key_id(), Some(key_id));
    assert_ne!(done.e_tag(), Some(md5_etag(b"secret").as_str()));
    let head = client.head_object().bucket(BUCKET).key("k").send().await.unwrap();
    assert_eq!(head.server_side_encryption(), Some(&ServerSideEncryption::AwsKms));
    assert_eq!(head.ssekms_key_id(), Some(key_id));
    assert_eq!(head.bucket_key_enabled(), Some(true));

    let managed =
        client.put_object().bucket(BUCKET).key("k").server_side_encryption(ServerSideEncryption::AwsKms);
    let managed = managed.body(ByteStream::from_static(b"x")).send().await.unwrap();
    assert_ne!(managed.ssekms_key_id(), Some(key_id), "without a key id it is AWS's own key");
    assert!(managed.ssekms_key_id().is_some());
}

#[tokio::test]
async fn attributes_are_those_asked_for() {
    let server = server().await;
    let client = server.client().await;
    let bytes = b"0123456789";
    let body = ByteStream::from_static(bytes);
    let put = client.put_object().bucket(BUCKET).key("k").checksum_algorithm(ChecksumAlgorithm::Crc64Nvme);
    put.body(body).send().await.unwrap();
    let got = client
        .get_object_attributes()
        .bucket(BUCKET)
        .key("k")
        .object_attributes(ObjectAttributes::Checksum)
        .object_attributes(ObjectAttributes::ObjectSize)
        .object_attributes(ObjectAttributes::ObjectParts)
        .send()
        .await
        .unwrap();
    assert_eq!(got.checksum().unwrap().checksum_crc64_nvme(), Some(crc64nvme(bytes).as_str()));
    assert_eq!(got.object_size(), Some(10));
    assert!(got.object_parts().is_none(), "it was put in one piece");
    assert_eq!(got.e_tag(), None, "not asked for");
}

#[tokio::test]
async fn what_is_absent_is_absent_in_the_right_words() {
    let server = server().await;
    let client = once(&server);
    assert_eq!(refusal(client.get_object().bucket(BUCKET).key("no").send().await), refused(404, "NoSuchKey"));
    assert_eq!(refusal(client.head_object().bucket(BUCKET).key("no").send().await).0, 404);
    let other = client.get_object().bucket("no-such-bucket").key("k").send().await;
    assert_eq!(refusal(other), refused(404, "NoSuchBucket"));
    let body = ByteStream::from(pattern(2_000_000, 5));
    let put = client.put_object().bucket("no-such-bucket").key("k").body(body).send().await;
    assert_eq!(refusal(put), refused(404, "NoSuchBucket"), "also when a payload came with it");
    assert_eq!(
        refusal(client.list_objects_v2().bucket("no-such-bucket").send().await),
        refused(404, "NoSuchBucket")
    );
    assert_eq!(refusal(client.head_bucket().bucket("no-such-bucket").send().await).0, 404);
    let deleted = client.delete_object().bucket(BUCKET).key("no").send().await;
    assert!(deleted.is_ok(), "deleting nothing succeeds");
}

#[tokio::test]
async fn buckets_are_made_once_and_removed_when_empty() {
    let server = server().await;
    let client = once(&server);
    client.create_bucket().bucket("another").send().await.unwrap();
    client.create_bucket().bucket("another").send().await.unwrap();
    let names = client.list_buckets().send().await.unwrap();
    let names: Vec<_> = names.buckets().iter().filter_map(|bucket| bucket.name()).collect();
    assert_eq!(names, ["another", BUCKET]);
    client.delete_bucket().bucket("another").send().await.unwrap();
    put(&client, "k", "x").await;
    assert_eq!(refusal(client.delete_bucket().bucket(BUCKET).send().await), refused(409, "BucketNotEmpty"));
}

#[tokio::test]
async fn many_objects_are_deleted_in_one_call() {
    let server = server().await;
    let client = server.client().await;
    put(&client, "a", "1").await;
    put(&client, "b", "2").await;
    let objects = ["a", "b"].map(|key| ObjectIdentifier::builder().key(key).build().unwrap());
    let delete = Delete::builder().set_objects(Some(objects.to_vec())).build().unwrap();
    let done = client.delete_objects().bucket(BUCKET).delete(delete).send().await.unwrap();
    assert_eq!(done.deleted().len(), 2);
    let left = client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert!(left.contents().is_empty());
}
