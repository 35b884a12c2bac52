//! The embedded S3 behaves as AWS's, and fails as it is told to. Driven through the SDK, as its users do.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as the tests do")]

mod access;
mod conditions;
mod conformance;
mod damage;
mod faults;
mod listing;
mod multipart;
mod notices;
mod objects;
mod storage;
mod versions;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::primitives::ByteStream;
use base64::Engine as _;
use localcloud::s3::{S3Options, S3Server};

/// The bucket of every test.
pub(crate) const BUCKET: &str = "backups";

/// A server with one versioned bucket; parts of 1 KiB are large enough.
pub(crate) async fn server() -> S3Server {
    started(S3Options { minimum_part_size: 1024, ..options() }).await
}

pub(crate) fn options() -> S3Options {
    S3Options { buckets: vec![BUCKET.to_owned()], ..S3Options::default() }
}

pub(crate) async fn started(options: S3Options) -> S3Server {
    S3Server::start(options).await.unwrap()
}

/// A client that never retries, so that a test sees each answer.
pub(crate) fn once(server: &S3Server) -> Client {
    Client::from_conf(server.client_config().retry_config(RetryConfig::disabled()).build())
}

/// Puts an object and answers its version.
pub(crate) async fn put(client: &Client, key: &str, bytes: impl Into<Vec<u8>>) -> Option<String> {
    let body = ByteStream::from(bytes.into());
    let done = client.put_object().bucket(BUCKET).key(key).body(body).send().await.unwrap();
    done.version_id().map(str::to_owned)
}

/// Reads the current version.
pub(crate) async fn get(client: &Client, key: &str) -> Vec<u8> {
    let reply = client.get_object().bucket(BUCKET).key(key).send().await.unwrap();
    reply.body.collect().await.unwrap().into_bytes().to_vec()
}

/// HTTP status and S3's code of a refusal. A reply to `HEAD` has no body and so no code of its own.
pub(crate) fn refusal<T, E: ProvideErrorMetadata>(result: Result<T, SdkError<E>>) -> (u16, String) {
    let Err(error) = result else { panic!("the call succeeded") };
    let status = error.raw_response().map_or(0, |raw| raw.status().as_u16());
    (status, error.code().unwrap_or_default().to_owned())
}

pub(crate) fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// CRC64NVME in the form of S3's headers.
pub(crate) fn crc64nvme(bytes: &[u8]) -> String {
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes);
    base64::engine::general_purpose::STANDARD.encode(sum.to_be_bytes())
}

/// MD5 in hexadecimal, in quotes as an `ETag`.
pub(crate) fn md5_etag(bytes: &[u8]) -> String {
    use s3s::crypto::{Checksum as _, Md5};
    format!("\"{}\"", hex::encode(Md5::checksum(bytes)))
}

/// Bytes that differ everywhere.
pub(crate) fn pattern(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(length)
    .collect()
}
