//! What an answer means: sorts what the SDK says into kinds, and makes sure that what belongs to a success is there.

use std::time::Duration;

use aws_sdk_s3::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use crate::store::{Crc64, StoreError, StoreErrorKind};

/// The store answered with success, but not with what belongs to it.
pub(super) fn answer(call: &'static str, what: &str) -> StoreError {
    StoreError::new(StoreErrorKind::Transient, call, format!("the answer has {what}"))
}

pub(super) fn checksum(call: &'static str, text: Option<&str>) -> Result<Option<Crc64>, StoreError> {
    match text {
        None => Ok(None),
        Some(text) => match Crc64::parse(text) {
            Some(crc) => Ok(Some(crc)),
            None => Err(answer(call, &format!("`{text}` for a CRC-64/NVME"))),
        },
    }
}

pub(super) fn length(call: &'static str, length: Option<i64>) -> Result<u64, StoreError> {
    length.and_then(|length| u64::try_from(length).ok()).ok_or_else(|| answer(call, "no length"))
}

/// Sorts what the SDK says into kinds.
pub(super) fn classify<E>(call: &'static str, error: SdkError<E, HttpResponse>) -> StoreError
where
    E: std::error::Error + ProvideErrorMetadata + Send + Sync + 'static,
{
    let status = error.raw_response().map(|response| response.status().as_u16());
    let retry_after = error.raw_response().and_then(|response| response.headers().get("retry-after"));
    let retry_after = retry_after.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
    let code = error.code().map(str::to_owned);
    let (kind, detail) = match &error {
        SdkError::ServiceError(_) | SdkError::ResponseError(_) => {
            let code = code.as_deref().unwrap_or("no error code");
            let message = error.message().unwrap_or("no message");
            let status = status.unwrap_or_default();
            (kind_of_answer(call, code, status), format!("{code}: {message} (HTTP status {status})"))
        }
        SdkError::TimeoutError(_) => (StoreErrorKind::Transient, "timed out".to_owned()),
        SdkError::DispatchFailure(failure) if failure.is_io() || failure.is_timeout() => {
            (StoreErrorKind::Transient, "the connection fails".to_owned())
        }
        // A connection that the store closes before it answers: the HTTP client says that this may pass.
        SdkError::DispatchFailure(failure) if failure.as_other().is_some() => {
            (StoreErrorKind::Transient, "the connection breaks off".to_owned())
        }
        SdkError::DispatchFailure(failure) if failure.is_user() => {
            (StoreErrorKind::Refused, format!("the request cannot be made: {}", DisplayErrorContext(&error)))
        }
        // What the SDK cannot send at all has to do with credentials or settings, not with this call.
        SdkError::DispatchFailure(_) => {
            (StoreErrorKind::Unsent, format!("the request cannot be sent: {}", DisplayErrorContext(&error)))
        }
        SdkError::ConstructionFailure(_) | _ => {
            (StoreErrorKind::Refused, format!("the request cannot be made: {}", DisplayErrorContext(&error)))
        }
    };
    StoreError { kind, call, detail, retry_after, source: Some(Box::new(error)) }
}

fn kind_of_answer(call: &str, code: &str, status: u16) -> StoreErrorKind {
    match (code, status) {
        ("NoSuchBucket", _) => StoreErrorKind::NoSuchBucket,
        ("NoSuchUpload", _) => StoreErrorKind::NoSuchUpload,
        ("NoSuchKey" | "NoSuchVersion" | "NotFound", _) => StoreErrorKind::NoSuchKey,
        ("PreconditionFailed", _) | (_, 412) => StoreErrorKind::PreconditionFailed,
        ("InvalidRange", _) | (_, 416) => StoreErrorKind::OutOfRange,
        ("BadDigest" | "InvalidDigest" | "XAmzContentChecksumMismatch" | "XAmzContentSHA256Mismatch", _) => {
            StoreErrorKind::BadDigest
        }
        (
            "SlowDown" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "TooManyRequests",
            _,
        )
        | (_, 429 | 503) => StoreErrorKind::Throttled,
        // A conflict (409) is with another call on the same key that has not ended, as a first one whose answer was lost.
        ("RequestTimeout" | "OperationAborted", _) | (_, 408 | 409 | 500..=599) => StoreErrorKind::Transient,
        ("RequestTimeTooSkewed", _) => StoreErrorKind::ClockSkewed,
        (
            "AccessDenied" | "ExpiredToken" | "InvalidToken" | "InvalidAccessKeyId" | "SignatureDoesNotMatch",
            _,
        )
        | (_, 401 | 403) => StoreErrorKind::AccessDenied,
        (_, 404) if matches!(call, "GetObject" | "HeadObject") => StoreErrorKind::NoSuchKey,
        // An answer that cannot be read: cut off on the way.
        (_, 200..=299) => StoreErrorKind::Transient,
        (_, _) => StoreErrorKind::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_sorted_by_code_then_by_status() {
        for (call, code, status, kind) in [
            ("UploadPart", "SlowDown", 503, StoreErrorKind::Throttled),
            ("UploadPart", "InternalError", 500, StoreErrorKind::Transient),
            ("UploadPart", "RequestTimeout", 400, StoreErrorKind::Transient),
            ("UploadPart", "BadDigest", 400, StoreErrorKind::BadDigest),
            ("UploadPart", "NoSuchUpload", 404, StoreErrorKind::NoSuchUpload),
            ("UploadPart", "NoSuchBucket", 404, StoreErrorKind::NoSuchBucket),
            ("UploadPart", "AccessDenied", 403, StoreErrorKind::AccessDenied),
            ("UploadPart", "ExpiredToken", 400, StoreErrorKind::AccessDenied),
            ("UploadPart", "EntityTooSmall", 400, StoreErrorKind::Refused),
            ("CompleteMultipartUpload", "PreconditionFailed", 412, StoreErrorKind::PreconditionFailed),
            ("CompleteMultipartUpload", "ConditionalRequestConflict", 409, StoreErrorKind::Transient),
            ("UploadPart", "RequestTimeTooSkewed", 403, StoreErrorKind::ClockSkewed),
            ("GetObject", "no error code", 404, StoreErrorKind::NoSuchKey),
            ("GetObject", "InvalidRange", 416, StoreErrorKind::OutOfRange),
            ("HeadObject", "no error code", 403, StoreErrorKind::AccessDenied),
        ] {
            assert_eq!(kind_of_answer(call, code, status), kind, "{call} {code} {status}");
        }
    }
}
