//! Multipart uploads: every check that AWS makes, and the object that comes out.

use aws_sdk_s3::operation::complete_multipart_upload::builders::CompleteMultipartUploadFluentBuilder;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{
    ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart, ObjectAttributes,
    ServerSideEncryption,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use s3s::crypto::{Checksum as _, Md5};

use super::*;

const KEY: &str = "qdrant/backups/archive.tar.zst";

/// Begins an upload with CRC64NVME over the full object.
pub(crate) async fn create(client: &Client, key: &str) -> String {
    let created = client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key(key)
        .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
        .checksum_type(ChecksumType::FullObject)
        .send()
        .await
        .unwrap();
    created.upload_id().unwrap().to_owned()
}

/// Uploads a part with its CRC64NVME, and answers how a completion names it.
pub(crate) async fn part(
    client: &Client,
    key: &str,
    upload: &str,
    number: i32,
    bytes: &[u8],
) -> CompletedPart {
    let checksum = crc64nvme(bytes);
    let done = client
        .upload_part()
        .bucket(BUCKET)
        .key(key)
        .upload_id(upload)
        .part_number(number)
        .checksum_crc64_nvme(&checksum)
        .body(ByteStream::from(bytes.to_vec()))
        .send()
        .await
        .unwrap();
    assert_eq!(done.checksum_crc64_nvme(), Some(checksum.as_str()));
    CompletedPart::builder()
        .part_number(number)
        .e_tag(done.e_tag().unwrap())
        .checksum_crc64_nvme(checksum)
        .build()
}

pub(crate) fn complete(
    client: &Client,
    key: &str,
    upload: &str,
    parts: &[CompletedPart],
) -> CompleteMultipartUploadFluentBuilder {
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.to_vec())).build();
    client.complete_multipart_upload().bucket(BUCKET).key(key).upload_id(upload).multipart_upload(parts)
}

/// A whole upload of these parts.
pub(crate) async fn uploaded(client: &Client, key: &str, parts: &[Vec<u8>]) -> Option<String> {
    let upload = create(client, key).await;
    let mut named = Vec::new();
    for (number, bytes) in (1..).zip(parts) {
        named.push(part(client, key, &upload, number, bytes).await);
    }
    let done = complete(client, key, &upload, &named).send().await.unwrap();
    done.version_id().map(str::to_owned)
}

fn parts_of(sizes: &[usize]) -> Vec<Vec<u8>> {
    (1..).zip(sizes).map(|(seed, size)| pattern(*size, seed)).collect()
}

#[tokio::test]
async fn the_parts_become_one_object_whose_checksum_is_that_of_the_whole() {
    let server = server().await;
    let client = server.client().await;
    let parts = parts_of(&[70_000, 5000, 17]);
    let upload = create(&client, KEY).await;
    // The order of arrival does not matter.
    let mut named = Vec::new();
    for number in [3_i32, 1, 2] {
        let bytes = &parts[usize::try_from(number - 1).unwrap()];
        named.push(part(&client, KEY, &upload, number, bytes).await);
    }
    named.sort_by_key(CompletedPart::part_number);
    let whole = parts.concat();
    let done = complete(&client, KEY, &upload, &named)
        .checksum_crc64_nvme(crc64nvme(&whole))
        .checksum_type(ChecksumType::FullObject)
        .mpu_object_size(i64::try_from(whole.len()).unwrap())
        .if_none_match("*")
        .send()
        .await
        .unwrap();
    assert_eq!(done.checksum_crc64_nvme(), Some(crc64nvme(&whole).as_str()));
    assert_eq!(done.checksum_type(), Some(&ChecksumType::FullObject));
    assert!(done.version_id().is_some());
    let md5s: Vec<u8> = parts.iter().flat_map(|part| Md5::checksum(part)).collect();
    assert_eq!(done.e_tag().unwrap(), format!("\"{}-3\"", hex::encode(Md5::checksum(&md5s))));

    assert_eq!(get(&client, KEY).await, whole);
    let head = client
        .head_object()
        .bucket(BUCKET)
        .key(KEY)
        .checksum_mode(ChecksumMode::Enabled)
        .send()
        .await
        .unwrap();
    assert_eq!(head.checksum_crc64_nvme(), Some(crc64nvme(&whole).as_str()));
    assert_eq!(head.content_length(), Some(75_017));
    let second = client.get_object().bucket(BUCKET).key(KEY).part_number(2).send().await.unwrap();
    assert_eq!(second.content_range(), Some("bytes 70000-74999/75017"));
    assert_eq!(second.parts_count(), Some(3));
    assert_eq!(second.body.collect().await.unwrap().into_bytes(), parts[1]);
    let described = client
        .get_object_attributes()
        .bucket(BUCKET)
        .key(KEY)
        .object_attributes(ObjectAttributes::ObjectParts)
        .object_attributes(ObjectAttributes::Etag)
        .send()
        .await
        .unwrap();
    let listed = described.object_parts().unwrap();
    assert_eq!(listed.total_parts_count(), Some(3));
    assert_eq!(listed.parts()[1].checksum_crc64_nvme(), Some(crc64nvme(&parts[1]).as_str()));
    assert_eq!(listed.parts()[1].size(), Some(5000));
}

#[tokio::test]
async fn a_part_is_refused_unless_it_is_what_was_said() {
    let server = server().await;
    let client = once(&server);
    let upload = create(&client, KEY).await;
    let request = || {
        let body = ByteStream::from(pattern(2000, 9));
        client.upload_part().bucket(BUCKET).key(KEY).upload_id(&upload).part_number(1).body(body)
    };
    let wrong = request().checksum_crc64_nvme(crc64nvme(b"other")).send().await;
    assert_eq!(refusal(wrong), refused(400, "BadDigest"));
    let wrong =
        request().checksum_crc64_nvme(crc64nvme(&pattern(2000, 9))).content_md5(BASE64.encode([7; 16]));
    assert_eq!(refusal(wrong.send().await), refused(400, "BadDigest"));
    let other = request().checksum_sha256(BASE64.encode([0; 32])).send().await;
    assert_eq!(refusal(other), refused(400, "InvalidRequest"), "not the upload's algorithm");
    // What the SDK does when a call names no checksum: a CRC32 of its own.
    assert_eq!(refusal(request().send().await), refused(400, "InvalidRequest"));
    let zero = client.upload_part().bucket(BUCKET).key(KEY).upload_id(&upload).part_number(0);
    assert_eq!(
        refusal(zero.body(ByteStream::from_static(b"x")).send().await),
        refused(400, "InvalidArgument")
    );
    let unknown = client.upload_part().bucket(BUCKET).key(KEY).upload_id("no-such-upload").part_number(1);
    assert_eq!(
        refusal(unknown.body(ByteStream::from_static(b"x")).send().await),
        refused(404, "NoSuchUpload")
    );
    let listed = client.list_parts().bucket(BUCKET).key(KEY).upload_id(&upload).send().await.unwrap();
    assert!(listed.parts().is_empty(), "nothing refused was kept");
}

#[tokio::test]
async fn checksum_types_are_limited_by_the_algorithm() {
    let server = server().await;
    let client = once(&server);
    for (algorithm, kind) in [
        (ChecksumAlgorithm::Sha256, ChecksumType::FullObject),
        (ChecksumAlgorithm::Crc64Nvme, ChecksumType::Composite),
    ] {
        let create = client.create_multipart_upload().bucket(BUCKET).key(KEY);
        let created = create.checksum_algorithm(algorithm).checksum_type(kind).send().await;
        assert_eq!(refusal(created), refused(400, "InvalidRequest"));
    }
    let created = client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key(KEY)
        .checksum_algorithm(ChecksumAlgorithm::Crc32C);
    assert_eq!(created.send().await.unwrap().checksum_type(), Some(&ChecksumType::Composite));
}

#[tokio::test]
async fn a_composite_checksum_needs_that_of_every_part() {
    let server = server().await;
    let client = once(&server);
    let created = client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key(KEY)
        .checksum_algorithm(ChecksumAlgorithm::Sha256);
    let upload = created.send().await.unwrap().upload_id().unwrap().to_owned();
    let request = |bytes: &[u8]| {
        let body = ByteStream::from(bytes.to_vec());
        client.upload_part().bucket(BUCKET).key(KEY).upload_id(&upload).part_number(1).body(body)
    };
    let done = request(b"part").checksum_algorithm(ChecksumAlgorithm::Sha256).send().await.unwrap();
    let named = CompletedPart::builder().part_number(1).e_tag(done.e_tag().unwrap());
    let without = complete(&client, KEY, &upload, &[named.clone().build()]).send().await;
    assert_eq!(refusal(without), refused(400, "InvalidRequest"));
    let with = named.checksum_sha256(done.checksum_sha256().unwrap()).build();
    let done = complete(&client, KEY, &upload, &[with]).send().await.unwrap();
    assert!(done.checksum_sha256().unwrap().ends_with("-1"));
    assert_eq!(done.checksum_type(), Some(&ChecksumType::Composite));
    assert_eq!(get(&client, KEY).await, b"part");
}

#[tokio::test]
async fn an_upload_without_an_algorithm_gets_a_crc64nvme_and_knows_no_part_checksums() {
    let server = server().await;
    let client = once(&server);
    let created = client.create_multipart_upload().bucket(BUCKET).key(KEY).send().await.unwrap();
    let upload = created.upload_id().unwrap();
    let body = ByteStream::from_static(b"part");
    let done = client.upload_part().bucket(BUCKET).key(KEY).upload_id(upload).part_number(1).body(body);
    let done = done.send().await.unwrap();
    let crc32 = done.checksum_crc32().expect("the SDK sent its own, and it is echoed").to_owned();
    let named = CompletedPart::builder().part_number(1).e_tag(done.e_tag().unwrap());
    let echoed = complete(&client, KEY, upload, &[named.clone().checksum_crc32(crc32).build()]).send().await;
    assert_eq!(refusal(echoed), refused(400, "InvalidPart"));
    let listed = client.list_parts().bucket(BUCKET).key(KEY).upload_id(upload).send().await.unwrap();
    assert_eq!(listed.parts()[0].checksum_crc32(), None);
    let done = complete(&client, KEY, upload, &[named.build()]).send().await.unwrap();
    assert_eq!(done.checksum_crc64_nvme(), Some(crc64nvme(b"part").as_str()));
}

#[tokio::test]
async fn a_completion_is_refused_unless_everything_in_it_is_true() {
    let server = server().await;
    let client = once(&server);
    let upload = create(&client, KEY).await;
    let first = part(&client, KEY, &upload, 1, &pattern(2000, 1)).await;
    let second = part(&client, KEY, &upload, 2, &pattern(2000, 2)).await;
    let third = part(&client, KEY, &upload, 3, &pattern(10, 3)).await;
    let fourth = part(&client, KEY, &upload, 4, &pattern(2000, 4)).await;
    let renamed = |part: &CompletedPart, etag: &str| {
        CompletedPart::builder().part_number(part.part_number().unwrap()).e_tag(etag).build()
    };
    let missing = CompletedPart::builder().part_number(7).e_tag(first.e_tag().unwrap()).build();
    let unsummed = |part: &CompletedPart| {
        CompletedPart::builder()
            .part_number(part.part_number().unwrap())
            .e_tag(part.e_tag().unwrap())
            .checksum_crc64_nvme(crc64nvme(b"other"))
            .build()
    };
    let cases: [(&str, Vec<CompletedPart>, (u16, String)); 8] = [
        ("no part", vec![], refused(400, "MalformedXML")),
        ("not ascending", vec![second.clone(), first.clone()], refused(400, "InvalidPartOrder")),
        ("twice", vec![first.clone(), first.clone()], refused(400, "InvalidPartOrder")),
        ("missing", vec![first.clone(), missing], refused(400, "InvalidPart")),
        (
            "wrong etag",
            vec![renamed(&first, "\"00000000000000000000000000000000\"")],
            refused(400, "InvalidPart"),
        ),
        ("wrong checksum", vec![unsummed(&first)], refused(400, "InvalidPart")),
        (
            "small",
            vec![first.clone(), second.clone(), third.clone(), fourth.clone()],
            refused(400, "EntityTooSmall"),
        ),
        ("not consecutive", vec![first.clone(), fourth.clone()], refused(500, "InternalError")),
    ];
    for (name, parts, expected) in cases {
        assert_eq!(refusal(complete(&client, KEY, &upload, &parts).send().await), expected, "{name}");
    }
    let parts = [first, second, third];
    let request = || complete(&client, KEY, &upload, &parts);
    assert_eq!(
        refusal(request().checksum_crc64_nvme(crc64nvme(b"other")).send().await),
        refused(400, "BadDigest")
    );
    assert_eq!(refusal(request().mpu_object_size(4009).send().await), refused(400, "InvalidRequest"));
    assert_eq!(
        refusal(request().checksum_type(ChecksumType::Composite).send().await),
        refused(400, "InvalidRequest")
    );
    assert_eq!(refusal(client.head_object().bucket(BUCKET).key(KEY).send().await).0, 404);

    // The upload has survived all that.
    request().mpu_object_size(4010).send().await.unwrap();
    assert_eq!(refusal(request().send().await), refused(404, "NoSuchUpload"), "a second time");
}

#[tokio::test]
async fn a_part_sent_again_replaces_the_first() {
    let server = server().await;
    let client = once(&server);
    let upload = create(&client, KEY).await;
    let old = part(&client, KEY, &upload, 1, b"old").await;
    let new = part(&client, KEY, &upload, 1, b"newer").await;
    assert_eq!(refusal(complete(&client, KEY, &upload, &[old]).send().await), refused(400, "InvalidPart"));
    complete(&client, KEY, &upload, &[new]).send().await.unwrap();
    assert_eq!(get(&client, KEY).await, b"newer");
}

#[tokio::test]
async fn parts_are_listed_in_pages_with_their_checksums() {
    let server = server().await;
    let client = once(&server);
    let upload = create(&client, KEY).await;
    for number in [5, 1, 3, 2, 4] {
        part(&client, KEY, &upload, number, &[u8::try_from(number).unwrap(); 10]).await;
    }
    let mut pages =
        client.list_parts().bucket(BUCKET).key(KEY).upload_id(&upload).max_parts(2).into_paginator().send();
    let mut seen = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.unwrap();
        assert_eq!(page.checksum_type(), Some(&ChecksumType::FullObject));
        for part in page.parts() {
            let bytes = [u8::try_from(part.part_number().unwrap()).unwrap(); 10];
            assert_eq!(part.checksum_crc64_nvme(), Some(crc64nvme(&bytes).as_str()));
            assert_eq!(part.e_tag(), Some(md5_etag(&bytes).as_str()));
            assert_eq!(part.size(), Some(10));
            seen.push(part.part_number().unwrap());
        }
    }
    assert_eq!(seen, [1, 2, 3, 4, 5]);
    assert_eq!(server.count(localcloud::s3::Operation::ListParts), 3);
}

#[tokio::test]
async fn uploads_are_listed_by_prefix_in_pages_and_gone_when_aborted() {
    let server = server().await;
    let client = once(&server);
    let mut ids = Vec::new();
    for key in ["a/1", "a/2", "a/2", "b/1"] {
        ids.push(create(&client, key).await);
    }
    let first =
        client.list_multipart_uploads().bucket(BUCKET).prefix("a/").max_uploads(2).send().await.unwrap();
    assert_eq!(first.is_truncated(), Some(true));
    let rest = client
        .list_multipart_uploads()
        .bucket(BUCKET)
        .prefix("a/")
        .key_marker(first.next_key_marker().unwrap())
        .upload_id_marker(first.next_upload_id_marker().unwrap())
        .send()
        .await
        .unwrap();
    let seen: Vec<_> =
        first.uploads().iter().chain(rest.uploads()).filter_map(|upload| upload.upload_id()).collect();
    assert_eq!(seen, ids[..3]);

    let abort = |id: &str| client.abort_multipart_upload().bucket(BUCKET).key("a/1").upload_id(id).send();
    abort(&ids[0]).await.unwrap();
    assert_eq!(refusal(abort(&ids[0]).await), refused(404, "NoSuchUpload"));
    let left = client.list_multipart_uploads().bucket(BUCKET).send().await.unwrap();
    assert_eq!(left.uploads().len(), 3);
}

#[tokio::test]
async fn what_creation_says_about_the_object_holds_for_the_object() {
    let server = server().await;
    let client = once(&server);
    let key_id = "arn:aws:kms:us-east-1:111122223333:key/abc";
    let created = client
        .create_multipart_upload()
        .bucket(BUCKET)
        .key(KEY)
        .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
        .metadata("backup-id", "b7")
        .server_side_encryption(ServerSideEncryption::AwsKms)
        .ssekms_key_id(key_id)
        .send()
        .await
        .unwrap();
    assert_eq!(created.ssekms_key_id(), Some(key_id));
    let upload = created.upload_id().unwrap();
    let named = part(&client, KEY, upload, 1, b"x").await;
    let done = complete(&client, KEY, upload, &[named]).send().await.unwrap();
    assert_eq!(done.ssekms_key_id(), Some(key_id));
    let head = client.head_object().bucket(BUCKET).key(KEY).send().await.unwrap();
    assert_eq!(head.metadata().unwrap().get("backup-id").map(String::as_str), Some("b7"));
    assert_eq!(head.ssekms_key_id(), Some(key_id));
}

#[tokio::test]
async fn the_minimum_part_size_is_that_of_aws_by_default() {
    let server = started(options()).await;
    let client = once(&server);
    let upload = create(&client, KEY).await;
    let first = part(&client, KEY, &upload, 1, &pattern(100_000, 1)).await;
    let last = part(&client, KEY, &upload, 2, b"end").await;
    assert_eq!(
        refusal(complete(&client, KEY, &upload, &[first, last]).send().await),
        refused(400, "EntityTooSmall")
    );
}
