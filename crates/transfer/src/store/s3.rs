//! S3 and stores that speak its protocol, over the AWS SDK.

use std::{ops::Range, time::Duration};

use bytes::Bytes;

use crate::store::{Crc64, MultipartStore, ObjectInfo, PendingUpload, StoreError, StoredPart, UploadRef, Whole};

/// A bucket.
#[derive(Clone, Debug)]
pub struct S3 {
    client: aws_sdk_s3::Client,
    bucket: String,
    stall: Duration,
}

impl S3 {
    /// The bucket `bucket` as `client` reaches it.
    pub fn new(client: aws_sdk_s3::Client, bucket: impl Into<String>) -> Self {
        Self { client, bucket: bucket.into(), stall: Duration::from_secs(60) }
    }

    /// The same with another limit for how long a request may go without moving a byte (60 seconds by default).
    pub fn with_stall_timeout(self, stall: Duration) -> Self {
        Self { stall, ..self }
    }
}

impl MultipartStore for S3 {
    async fn create(&self, _key: &str, _metadata: &[(String, String)]) -> Result<UploadRef, StoreError> {
        let _all = (&self.client, &self.bucket, self.stall);
        unimplemented!()
    }
    async fn upload_part(&self, _upload: &UploadRef, _number: u32, _body: Bytes, _crc: Crc64) -> Result<StoredPart, StoreError> {
        unimplemented!()
    }
    async fn list_parts(&self, _upload: &UploadRef) -> Result<Vec<StoredPart>, StoreError> {
        unimplemented!()
    }
    async fn complete(&self, _upload: &UploadRef, _parts: &[StoredPart], _whole: Whole) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn abort(&self, _upload: &UploadRef) -> Result<(), StoreError> {
        unimplemented!()
    }
    async fn list_uploads(&self, _prefix: &str) -> Result<Vec<PendingUpload>, StoreError> {
        unimplemented!()
    }
    async fn head(&self, _key: &str, _version_id: Option<&str>) -> Result<Option<ObjectInfo>, StoreError> {
        unimplemented!()
    }
    async fn get_range(&self, _key: &str, _version_id: Option<&str>, _etag: Option<&str>, _range: Range<u64>, _into: &mut Vec<u8>) -> Result<(), StoreError> {
        unimplemented!()
    }
}
