//! S3 and stores that speak its protocol, over the AWS SDK.
//!
//! The SDK's own retries, time-outs and checksums are switched off call by call: the transfer retries, a request is given up
//! when it moves no byte for a while (and not when it is merely long), and the checksums are there before the call is made.
//! Over TLS payloads are not hashed a second time for the signature: the CRC-64/NVME that is part of the signed headers finds
//! accidents, and TLS keeps out everything else. Over plain HTTP nothing would, so there the signature covers the payload, too
//! ([`S3::with_signed_payloads`]).

mod answer;
mod body;
mod sign;

use std::{
    future::Future,
    ops::Range,
    time::{Duration, SystemTime},
};

use aws_sdk_s3::{
    Client,
    config::{
        Builder, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
        retry::RetryConfig, timeout::TimeoutConfig,
    },
    error::{ProvideErrorMetadata, SdkError},
    operation::{get_object::GetObjectOutput, head_object::HeadObjectError},
    primitives::{ByteStream, SdkBody},
    types::{ChecksumAlgorithm, ChecksumMode, ChecksumType, CompletedMultipartUpload, CompletedPart},
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use bytes::Bytes;

use self::{
    answer::{answer, checksum, classify, length},
    body::Paced,
    sign::Payload,
};
use crate::{
    rate::Rate,
    store::{
        Crc64, MultipartStore, ObjectInfo, PendingUpload, StoreError, StoreErrorKind, StoredPart, UploadRef,
        Whole,
    },
};

/// How long a request may go without moving a byte, unless set otherwise.
const STALL: Duration = Duration::from_secs(60);
/// How long the store may take to make an object out of its parts: minutes for thousands of them.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// A bucket.
#[derive(Clone, Debug)]
pub struct S3 {
    client: Client,
    bucket: String,
    stall: Duration,
    rate: Rate,
    signed_payloads: bool,
}

impl S3 {
    /// The bucket `bucket` as `client` reaches it.
    pub fn new(client: Client, bucket: impl Into<String>) -> Self {
        Self { client, bucket: bucket.into(), stall: STALL, rate: Rate::default(), signed_payloads: false }
    }

    /// The same with another limit for how long a request may go without moving a byte (60 seconds by default).
    pub fn with_stall_timeout(self, stall: Duration) -> Self {
        Self { stall, ..self }
    }

    /// The same under a limit on the bytes of parts and ranges, which all its requests share.
    pub fn with_rate(self, rate: Rate) -> Self {
        Self { rate, ..self }
    }

    /// The same, with each part's SHA-256 in its signature: for endpoints without TLS. It costs about as much CPU as everything else that sending does.
    pub fn with_signed_payloads(self, signed_payloads: bool) -> Self {
        Self { signed_payloads, ..self }
    }

    /// Waits for a call that moves next to nothing.
    async fn short<T, E>(
        &self,
        call: &'static str,
        sent: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, StoreError>
    where
        E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
    {
        within(call, self.stall, sent).await
    }
}

impl MultipartStore for S3 {
    async fn create(&self, key: &str, metadata: &[(String, String)]) -> Result<UploadRef, StoreError> {
        const CALL: &str = "CreateMultipartUpload";
        let request = self.client.create_multipart_upload().bucket(&self.bucket).key(key);
        let request = request
            .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
            .checksum_type(ChecksumType::FullObject)
            .content_type("application/zstd")
            .set_metadata(Some(metadata.iter().cloned().collect()));
        let created = self.short(CALL, request.customize().config_override(plain()).send()).await?;
        let upload_id = created.upload_id.ok_or_else(|| answer(CALL, "no upload id"))?;
        Ok(UploadRef { key: key.to_owned(), upload_id })
    }

    async fn upload_part(
        &self,
        upload: &UploadRef,
        number: u32,
        body: Bytes,
        crc64nvme: Crc64,
    ) -> Result<StoredPart, StoreError> {
        const CALL: &str = "UploadPart";
        let size = body.len() as u64;
        let payload = if self.signed_payloads { Payload::hashed(&body).await } else { Payload::Unsigned };
        let _running = self.rate.enter().await;
        let (body, watch) = Paced::new(body, self.rate.clone());
        let stream = ByteStream::new(SdkBody::from_body_1_x(body));
        let request =
            self.client.upload_part().bucket(&self.bucket).key(&upload.key).upload_id(&upload.upload_id);
        let request = request
            .part_number(i32_of(number.into()))
            .content_length(i64_of(size))
            .checksum_crc64_nvme(crc64nvme.to_string())
            .body(stream);
        let sent = request.customize().config_override(plain()).interceptor(payload).send();
        let stored = tokio::select! {
            sent = sent => sent.map_err(|error| classify(CALL, error))?,
            () = watch.stalled(self.stall) => return Err(stall_error(CALL, self.stall)),
        };
        let etag = stored.e_tag.ok_or_else(|| answer(CALL, "no ETag"))?;
        let crc64nvme = checksum(CALL, stored.checksum_crc64_nvme.as_deref())?;
        Ok(StoredPart { number, size, etag, crc64nvme })
    }

    async fn list_parts(&self, upload: &UploadRef) -> Result<Vec<StoredPart>, StoreError> {
        const CALL: &str = "ListParts";
        let mut parts = Vec::new();
        let mut marker: Option<String> = None;
        loop {
            let request = self.client.list_parts().bucket(&self.bucket).key(&upload.key);
            let request = request.upload_id(&upload.upload_id).set_part_number_marker(marker.take());
            let page = self.short(CALL, request.customize().config_override(plain()).send()).await?;
            for part in page.parts.unwrap_or_default() {
                let number = part.part_number.and_then(|number| u32::try_from(number).ok());
                let size = part.size.and_then(|size| u64::try_from(size).ok());
                let ((number, size), etag) = number
                    .zip(size)
                    .zip(part.e_tag)
                    .ok_or_else(|| answer(CALL, "a part without number, size or ETag"))?;
                let crc64nvme = checksum(CALL, part.checksum_crc64_nvme.as_deref())?;
                parts.push(StoredPart { number, size, etag, crc64nvme });
            }
            match page.next_part_number_marker.filter(|_| page.is_truncated == Some(true)) {
                Some(next) => marker = Some(next),
                None => break,
            }
        }
        parts.sort_unstable_by_key(|part| part.number);
        Ok(parts)
    }

    async fn complete(
        &self,
        upload: &UploadRef,
        parts: &[StoredPart],
        whole: Whole,
    ) -> Result<(), StoreError> {
        const CALL: &str = "CompleteMultipartUpload";
        let parts = parts.iter().map(|part| {
            CompletedPart::builder()
                .part_number(i32_of(part.number.into()))
                .e_tag(&part.etag)
                .set_checksum_crc64_nvme(part.crc64nvme.map(|crc| crc.to_string()))
                .build()
        });
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts.collect())).build();
        let request = self.client.complete_multipart_upload().bucket(&self.bucket).key(&upload.key);
        let mut request = request.upload_id(&upload.upload_id).multipart_upload(parts).if_none_match("*");
        if whole.checked_by_store {
            request = request
                .checksum_type(ChecksumType::FullObject)
                .checksum_crc64_nvme(whole.crc64nvme.to_string())
                .mpu_object_size(i64_of(whole.size));
        }
        let sent = request.customize().config_override(plain()).send();
        within(CALL, COMPLETE_TIMEOUT, sent).await.map(drop)
    }

    async fn abort(&self, upload: &UploadRef) -> Result<(), StoreError> {
        let request = self.client.abort_multipart_upload().bucket(&self.bucket).key(&upload.key);
        let request = request.upload_id(&upload.upload_id).customize().config_override(plain());
        self.short("AbortMultipartUpload", request.send()).await.map(drop)
    }

    async fn list_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>, StoreError> {
        const CALL: &str = "ListMultipartUploads";
        let mut pending = Vec::new();
        let (mut key_marker, mut id_marker): (Option<String>, Option<String>) = (None, None);
        loop {
            let request = self.client.list_multipart_uploads().bucket(&self.bucket).prefix(prefix);
            let request =
                request.set_key_marker(key_marker.take()).set_upload_id_marker(id_marker.take()).customize();
            let page = self.short(CALL, request.config_override(plain()).send()).await?;
            for upload in page.uploads.unwrap_or_default() {
                let initiated = upload.initiated.and_then(|time| SystemTime::try_from(time).ok());
                if let Some((key, upload_id)) = upload.key.zip(upload.upload_id) {
                    pending.push(PendingUpload { upload: UploadRef { key, upload_id }, initiated });
                }
            }
            match page.next_key_marker.filter(|_| page.is_truncated == Some(true)) {
                Some(next) => (key_marker, id_marker) = (Some(next), page.next_upload_id_marker),
                None => return Ok(pending),
            }
        }
    }

    async fn head(&self, key: &str, version_id: Option<&str>) -> Result<Option<ObjectInfo>, StoreError> {
        const CALL: &str = "HeadObject";
        let request = self.client.head_object().bucket(&self.bucket).key(key);
        let request = request
            .set_version_id(version_id.map(str::to_owned))
            .checksum_mode(ChecksumMode::Enabled)
            .customize();
        let sent = request.config_override(plain()).send();
        let Ok(found) = tokio::time::timeout(self.stall, sent).await else {
            return Err(stall_error(CALL, self.stall));
        };
        let found = match found {
            Ok(found) => found,
            Err(SdkError::ServiceError(error)) if matches!(error.err(), HeadObjectError::NotFound(_)) => {
                return Ok(None);
            }
            Err(error) => return Err(classify(CALL, error)),
        };
        // A checksum of another type or algorithm is no checksum of the whole by the one that is compared.
        let composite = found.checksum_type == Some(ChecksumType::Composite);
        let crc64nvme = found.checksum_crc64_nvme.as_deref().filter(|_| !composite);
        Ok(Some(ObjectInfo {
            size: length(CALL, found.content_length)?,
            crc64nvme: checksum(CALL, crc64nvme)?,
            etag: found.e_tag,
            // A bucket without versions answers "null" or nothing.
            version_id: found.version_id.filter(|version| version != "null"),
            metadata: found.metadata.unwrap_or_default().into_iter().collect(),
        }))
    }

    async fn get_range(
        &self,
        key: &str,
        version_id: Option<&str>,
        etag: Option<&str>,
        range: Range<u64>,
        into: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        const CALL: &str = "GetObject";
        into.clear();
        let Some(last) = range.end.checked_sub(1).filter(|last| *last >= range.start) else { return Ok(()) };
        let _running = self.rate.enter().await;
        let request = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .range(format!("bytes={}-{last}", range.start));
        let request =
            request.set_version_id(version_id.map(str::to_owned)).set_if_match(etag.map(str::to_owned));
        let sent = request.customize().config_override(plain()).send();
        let GetObjectOutput { mut body, content_range, .. } = self.short(CALL, sent).await?;
        let given = format!("bytes {}-{last}/", range.start);
        if content_range.as_deref().is_none_or(|text| !text.starts_with(&given)) {
            let what = format!("the range `{}` for `{given}*`", content_range.unwrap_or_default());
            return Err(StoreError::new(StoreErrorKind::OutOfRange, CALL, what));
        }
        let wanted = usize::try_from(range.end - range.start).unwrap_or(usize::MAX);
        loop {
            let Ok(chunk) = tokio::time::timeout(self.stall, body.next()).await else {
                return Err(stall_error(CALL, self.stall));
            };
            let Some(chunk) = chunk else { break };
            let chunk = chunk.map_err(|source| StoreError {
                source: Some(Box::new(source)),
                ..StoreError::new(StoreErrorKind::Transient, CALL, "the body breaks off")
            })?;
            if into.len() + chunk.len() > wanted {
                return Err(StoreError::new(
                    StoreErrorKind::Transient,
                    CALL,
                    "the body is longer than its range",
                ));
            }
            into.extend_from_slice(&chunk);
            // Bytes that have arrived are paid for before more are read; the connection's own window holds the sender back.
            self.rate.take(chunk.len()).await;
        }
        if into.len() < wanted {
            let what = format!("the body ends after {} of {wanted} bytes", into.len());
            return Err(StoreError::new(StoreErrorKind::Transient, CALL, what));
        }
        Ok(())
    }
}

/// Per call: no retries, no time-outs, no checksums but those that are given.
fn plain() -> Builder {
    Builder::new()
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
}

async fn within<T, E>(
    call: &'static str,
    limit: Duration,
    sent: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
) -> Result<T, StoreError>
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    match tokio::time::timeout(limit, sent).await {
        Ok(sent) => sent.map_err(|error| classify(call, error)),
        Err(_) => Err(stall_error(call, limit)),
    }
}

fn stall_error(call: &'static str, limit: Duration) -> StoreError {
    StoreError::new(StoreErrorKind::Transient, call, format!("nothing moved for {} s", limit.as_secs_f32()))
}

fn i64_of(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn i32_of(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
