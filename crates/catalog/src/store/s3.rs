//! Amazon S3 and stores that speak its protocol.

use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_s3::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    primitives::ByteStream,
    types::{ChecksumAlgorithm, ChecksumMode},
};
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{Intercept, context::BeforeDeserializationInterceptorContextRef},
        orchestrator::HttpResponse,
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::{DateTime, config_bag::ConfigBag, date_time::Format};
use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use protocol::key;

use super::{
    Condition, Deletion, Head, Listed, MAX_OBJECT_BYTES, Object, ObjectStore, Operation, Put, PutError,
    StoreError,
};

/// How often a body is read that breaks off or does not have its checksum.
const BODY_ATTEMPTS: u32 = 3;

/// One bucket of S3. Retries and time-outs are those of the client that it is given.
#[derive(Clone, Debug)]
pub struct S3 {
    client: Client,
    bucket: String,
}

impl S3 {
    /// The bucket called `bucket`, as `client` reaches it.
    pub fn new(client: Client, bucket: impl Into<String>) -> Self {
        Self { client, bucket: bucket.into() }
    }

    /// One reading; the SDK tries the call again, but not the body.
    async fn read(&self, key: &str, version: Option<&str>) -> Result<Option<Object>, Unread> {
        let call = self.call(Operation::Get, key);
        let sent = self
            .client
            .get_object()
            .bucket(&self.bucket)
            .key(key)
            .set_version_id(version.map(str::to_owned))
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await;
        let mut answer = match sent {
            Ok(answer) => answer,
            // Only these two codes are an absence: a 404 of something in between is not.
            Err(error) if matches!(error.code(), Some("NoSuchKey" | "NoSuchVersion")) => return Ok(None),
            Err(error) => return Err(Unread::Refused(call.failure(error))),
        };
        let stated = answer.content_length().and_then(|length| u64::try_from(length).ok());
        if stated.is_some_and(|length| length > MAX_OBJECT_BYTES) {
            return Err(Unread::Refused(call.too_large()));
        }
        let mut bytes = BytesMut::new();
        while let Some(chunk) = answer.body.next().await {
            let chunk = chunk.map_err(|error| call.broken_body(error))?;
            bytes.extend_from_slice(&chunk);
            if bytes.len() as u64 > MAX_OBJECT_BYTES {
                return Err(Unread::Refused(call.too_large()));
            }
        }
        if stated.is_some_and(|length| length != bytes.len() as u64) {
            let error = call.broken("the body is shorter than stated", "content-length differs");
            return Err(Unread::Broken(error));
        }
        Ok(Some(Object {
            bytes: bytes.freeze(),
            etag: call.required(answer.e_tag, "ETag").map_err(Unread::Refused)?,
            version_id: version_id(answer.version_id),
            last_modified: call.timestamp(answer.last_modified.as_ref()).map_err(Unread::Refused)?,
        }))
    }
}

/// Why an object was not read.
enum Unread {
    /// Its body broke off or was damaged: another reading may do better.
    Broken(StoreError),
    /// Anything else.
    Refused(StoreError),
}

impl ObjectStore for S3 {
    async fn get(&self, key: &str, version: Option<&str>) -> Result<Option<Object>, StoreError> {
        let mut attempt = 1;
        loop {
            match self.read(key, version).await {
                Ok(object) => return Ok(object),
                Err(Unread::Broken(error)) if attempt < BODY_ATTEMPTS => {
                    tracing::warn!(key, error = crate::error::chain(&error), "reading it again");
                    attempt += 1;
                }
                Err(Unread::Broken(error) | Unread::Refused(error)) => return Err(error),
            }
        }
    }

    async fn put(&self, key: &str, bytes: Bytes, condition: Condition) -> Result<Put, PutError> {
        let call = self.call(Operation::Put, key);
        let request = self
            .client
            .put_object()
            .bucket(&self.bucket)
            .key(key)
            .checksum_algorithm(ChecksumAlgorithm::Crc64Nvme)
            .set_content_type(content_type(key).map(str::to_owned))
            .body(ByteStream::from(bytes));
        let over_something = matches!(condition, Condition::IfMatch(_));
        let request = match condition {
            Condition::None => request,
            Condition::IfAbsent => request.if_none_match("*"),
            Condition::IfMatch(etag) => request.if_match(etag),
        };
        match request.send().await {
            Ok(answer) => Ok(Put {
                etag: call.required(answer.e_tag, "ETag")?,
                version_id: version_id(answer.version_id),
            }),
            Err(error) => {
                let refused = match (status(&error), error.code()) {
                    (Some(412), _) | (Some(409), Some("ConditionalRequestConflict")) => true,
                    (Some(404), Some("NoSuchKey")) => over_something,
                    _ => false,
                };
                if refused {
                    Err(PutError::PreconditionFailed { key: key.to_owned() })
                } else {
                    Err(call.failure(error).into())
                }
            }
        }
    }

    async fn head(&self, key: &str, version: Option<&str>) -> Result<Option<Head>, StoreError> {
        let call = self.call(Operation::Head, key);
        let sent = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(key)
            .set_version_id(version.map(str::to_owned))
            .checksum_mode(ChecksumMode::Enabled)
            .send()
            .await;
        let answer = match sent {
            Ok(answer) => answer,
            // The answer to HEAD has no body and so no code: the status is all there is.
            Err(error) if status(&error) == Some(404) => return Ok(None),
            Err(error) => return Err(call.failure(error)),
        };
        let size = answer.content_length.and_then(|length| u64::try_from(length).ok());
        Ok(Some(Head {
            size: call.required(size, "Content-Length")?,
            crc64nvme: answer.checksum_crc64_nvme,
            version_id: version_id(answer.version_id),
            etag: call.required(answer.e_tag, "ETag")?,
            sse_kms_key_id: answer.ssekms_key_id,
            metadata: answer.metadata.unwrap_or_default().into_iter().collect(),
        }))
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let call = self.call(Operation::List, prefix);
        let mut pages =
            self.client.list_objects_v2().bucket(&self.bucket).prefix(prefix).into_paginator().send();
        let mut all = Vec::new();
        while let Some(page) = pages.next().await {
            for object in page.map_err(|error| call.failure(error))?.contents.unwrap_or_default() {
                let size = object.size.and_then(|size| u64::try_from(size).ok());
                all.push(Listed {
                    key: call.required(object.key, "Key")?,
                    size: call.required(size, "Size")?,
                    last_modified: call.timestamp(object.last_modified.as_ref())?,
                });
            }
        }
        // Not every store lists in order.
        all.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        Ok(all)
    }

    /// Any answer has a `Date`, also a refusal: the request itself need not succeed.
    async fn now(&self) -> Result<Timestamp, StoreError> {
        let call = self.call(Operation::Now, key::POINTER);
        let date = DateHeader::default();
        let sent = self
            .client
            .head_object()
            .bucket(&self.bucket)
            .key(key::POINTER)
            .customize()
            .interceptor(date.clone())
            .send()
            .await;
        match (date.take(), sent) {
            (Some(text), _) => {
                let time = DateTime::from_str(&text, Format::HttpDate)
                    .map_err(|error| call.broken("the Date header is not a date", error))?;
                call.timestamp(Some(&time))
            }
            (None, Err(error)) => Err(call.failure(error)),
            (None, Ok(_)) => Err(call.broken("the answer is incomplete", "no Date header")),
        }
    }
}

impl Deletion for S3 {
    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let call = self.call(Operation::Delete, key);
        let sent = self.client.delete_object().bucket(&self.bucket).key(key).send().await;
        sent.map(drop).map_err(|error| call.failure(error))
    }
}

impl S3 {
    fn call<'a>(&'a self, operation: Operation, key: &'a str) -> CallSite<'a> {
        CallSite { operation, bucket: &self.bucket, key }
    }
}

/// What an error has to name.
struct CallSite<'a> {
    operation: Operation,
    bucket: &'a str,
    key: &'a str,
}

impl CallSite<'_> {
    fn failure<E>(&self, error: SdkError<E, HttpResponse>) -> StoreError
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let (operation, bucket, key) = (self.operation, self.bucket.to_owned(), self.key.to_owned());
        let status = status(&error);
        let code = match (error.code(), status) {
            (Some(code), Some(status)) if code != "NotFound" => format!("{code}, HTTP {status}"),
            (_, Some(status)) => format!("HTTP {status}"),
            (Some(code), None) => code.to_owned(),
            (None, None) => no_answer(&error).to_owned(),
        };
        if error.code() == Some("NoSuchBucket") {
            return StoreError::NoSuchBucket { operation, bucket, key };
        }
        let source = Box::new(error);
        match status {
            Some(401 | 403) => StoreError::Denied { operation, bucket, key, code, source },
            _ => StoreError::Failed { operation, bucket, key, code, source },
        }
    }

    fn too_large(&self) -> StoreError {
        StoreError::TooLarge {
            operation: self.operation,
            bucket: self.bucket.to_owned(),
            key: self.key.to_owned(),
        }
    }

    fn broken(&self, code: &str, source: impl Into<super::Source>) -> StoreError {
        StoreError::Failed {
            operation: self.operation,
            bucket: self.bucket.to_owned(),
            key: self.key.to_owned(),
            code: code.to_owned(),
            source: source.into(),
        }
    }

    /// What the SDK says of a body: its checksums are compared as it is read.
    fn broken_body(&self, error: aws_sdk_s3::primitives::ByteStreamError) -> Unread {
        if !crate::error::chain(&error).contains("checksum mismatch") {
            return Unread::Broken(self.broken("the body breaks off", error));
        }
        Unread::Broken(StoreError::Damaged {
            operation: self.operation,
            bucket: self.bucket.to_owned(),
            key: self.key.to_owned(),
            source: Box::new(error),
        })
    }

    fn required<T>(&self, value: Option<T>, name: &str) -> Result<T, StoreError> {
        value.ok_or_else(|| self.broken("the answer is incomplete", format!("no usable {name}")))
    }

    fn timestamp(&self, time: Option<&DateTime>) -> Result<Timestamp, StoreError> {
        let time = self.required(time, "Last-Modified")?;
        Timestamp::from_second(time.secs())
            .map_err(|error| self.broken("the answer has a time that is out of range", error))
    }
}

/// What a browser takes an object for.
fn content_type(key: &str) -> Option<&'static str> {
    match key.rsplit_once('.')?.1 {
        "json" => Some("application/json"),
        "html" => Some("text/html; charset=utf-8"),
        _ => None,
    }
}

fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

fn no_answer<E>(error: &SdkError<E, HttpResponse>) -> &'static str {
    match error {
        SdkError::TimeoutError(_) => "no answer in time",
        SdkError::DispatchFailure(failure) if failure.is_user() => {
            "the request could not be sent as configured"
        }
        SdkError::DispatchFailure(_) => "no connection",
        SdkError::ConstructionFailure(_) => "the request could not be made",
        SdkError::ResponseError(_) | SdkError::ServiceError(_) | _ => "no usable answer",
    }
}

/// A bucket without versions, or with suspended ones, says `null` or nothing.
fn version_id(text: Option<String>) -> Option<String> {
    text.filter(|version| version != "null")
}

/// Keeps the `Date` of an answer.
#[derive(Clone, Debug, Default)]
struct DateHeader(Arc<Mutex<Option<String>>>);

impl DateHeader {
    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Intercept for DateHeader {
    fn name(&self) -> &'static str {
        "DateHeader"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _runtime_components: &RuntimeComponents,
        _cfg: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(date) = context.response().headers().get("date") {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(date.to_owned());
        }
        Ok(())
    }
}
