//! What lies on the disk, what a second server finds there, and what it takes in memory.

use std::path::Path;

use aws_sdk_s3::primitives::ByteStream;

use super::multipart::{complete, create, part, uploaded};
use super::*;

#[tokio::test]
async fn current_versions_are_plain_files() {
    let server = server().await;
    let client = once(&server);
    let plain = |key: &str| server.root().join(BUCKET).join(key);
    put(&client, "a/b.txt", "one").await;
    put(&client, "a/b.txt", "two").await;
    assert_eq!(fs_err::read_to_string(plain("a/b.txt")).unwrap(), "two");
    uploaded(&client, "a/c.bin", &[pattern(2000, 1), pattern(20, 2)]).await;
    assert_eq!(fs_err::metadata(plain("a/c.bin")).unwrap().len(), 2020);
    client.delete_object().bucket(BUCKET).key("a/b.txt").send().await.unwrap();
    client.delete_object().bucket(BUCKET).key("a/c.bin").send().await.unwrap();
    assert!(!plain("a").exists(), "no file, no folder");
}

#[tokio::test]
async fn keys_that_a_file_system_cannot_hold_together_are_held() {
    let server = server().await;
    let client = once(&server);
    let long = "x".repeat(1000);
    let keys = ["a", "a/b", "a/", "/a", "a//b", "./a", long.as_str()];
    for key in keys {
        put(&client, key, key).await;
        put(&client, key, format!("{key}!")).await;
    }
    for key in keys {
        assert_eq!(get(&client, key).await, format!("{key}!").into_bytes());
    }
    let listed = client.list_objects_v2().bucket(BUCKET).send().await.unwrap();
    assert_eq!(listed.contents().len(), keys.len());
    assert_eq!(
        fs_err::read_dir(server.root()).unwrap().count(),
        2,
        "the bucket and what is beside it, nothing else"
    );
}

#[tokio::test]
async fn a_second_server_on_the_folder_finds_everything() {
    let folder = tempfile::tempdir().unwrap();
    let options = S3Options { root: Some(folder.path().to_path_buf()), minimum_part_size: 1024, ..options() };
    let first = started(options.clone()).await;
    let client = once(&first);
    let version = put(&client, "k", "one").await.unwrap();
    put(&client, "k", "two").await;
    let upload = create(&client, "archive").await;
    let named = part(&client, "archive", &upload, 1, &pattern(2000, 1)).await;
    drop(first);

    let second = started(options).await;
    let client = once(&second);
    assert_eq!(get(&client, "k").await, b"two");
    let old = client.get_object().bucket(BUCKET).key("k").version_id(&version).send().await.unwrap();
    assert_eq!(old.body.collect().await.unwrap().into_bytes(), &b"one"[..]);
    let parts = client.list_parts().bucket(BUCKET).key("archive").upload_id(&upload).send().await.unwrap();
    assert_eq!(parts.parts()[0].checksum_crc64_nvme(), named.checksum_crc64_nvme());
    let end = part(&client, "archive", &upload, 2, b"end").await;
    complete(&client, "archive", &upload, &[named, end]).send().await.unwrap();
    assert_eq!(get(&client, "archive").await.len(), 2003);
    let third = put(&client, "k", "three").await.unwrap();
    assert_ne!(third, version);
    assert_eq!(get(&client, "k").await, b"three", "newer than what the first server wrote");
}

#[tokio::test]
async fn a_temporary_folder_goes_with_the_server() {
    let server = server().await;
    put(&server.client().await, "k", "x").await;
    let (root, address) = (server.root().to_path_buf(), server.endpoint().replace("http://", ""));
    drop(server);
    assert!(!root.exists());
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn a_large_object_passes_without_being_held_in_memory() {
    // Far more than what the other tests of this process hold meanwhile.
    const SIZE: u64 = 512 << 20;
    let server = server().await;
    let client = server.client().await;
    let sparse = tempfile::NamedTempFile::new().unwrap();
    sparse.as_file().set_len(SIZE).unwrap();
    let body = ByteStream::from_path(sparse.path()).await.unwrap();
    client.put_object().bucket(BUCKET).key("large").body(body).send().await.unwrap();
    let mut reply = client.get_object().bucket(BUCKET).key("large").send().await.unwrap();
    let mut received = 0;
    while let Some(chunk) = reply.body.next().await {
        received += u64::try_from(chunk.unwrap().len()).unwrap();
    }
    assert_eq!(received, SIZE);
    assert!(peak_memory() < SIZE * 3 / 4, "the process peaked at {} MiB", peak_memory() >> 20);
}

/// The largest resident size that this process has had, in bytes.
fn peak_memory() -> u64 {
    let status = fs_err::read_to_string(Path::new("/proc/self/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
