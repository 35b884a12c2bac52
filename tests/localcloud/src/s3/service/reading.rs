//! Reading objects: `GetObject`, `HeadObject` and `GetObjectAttributes`.

use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use s3s::dto::{self, ETagCondition, StreamingBlob};
use s3s::stream::{ByteStream, RemainingLength};
use s3s::{S3ErrorCode, S3Request, S3Result, StdError, s3_error};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::{Service, count, internal, part_number, report_encryption, signed, timestamp};
use crate::s3::checksum::report;
use crate::s3::store::{Content, Opened, etag, precondition_failed};

/// Bytes that are read from the disk at a time.
const CHUNK: usize = 256 * 1024;

/// The conditions a read can carry.
#[derive(Debug, Default)]
struct ReadCondition {
    if_match: Option<ETagCondition>,
    if_none_match: Option<ETagCondition>,
    modified_since: Option<dto::Timestamp>,
    unmodified_since: Option<dto::Timestamp>,
}

/// What part of the object is asked for, and how it was named.
#[derive(Debug)]
struct Slice {
    range: Range<u64>,
    /// Whether it was asked for as a part of the object: the answer is 206 then, and has no checksum of the whole.
    partial: bool,
}

impl Service {
    pub(super) async fn get(
        &self,
        request: S3Request<dto::GetObjectInput>,
    ) -> S3Result<dto::GetObjectOutput> {
        let input = request.input;
        let opened = self.open(&input.bucket, &input.key, input.version_id.as_deref())?;
        let condition = ReadCondition {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            modified_since: input.if_modified_since,
            unmodified_since: input.if_unmodified_since,
        };
        condition.check(&opened)?;
        let slice = slice(&opened, input.range, input.part_number)?;
        let length = slice.range.end - slice.range.start;
        let attributes = &opened.content.attributes;
        let mut output = dto::GetObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(signed(length)),
            content_range: slice.content_range(opened.size),
            content_type: Some(content_type(&opened.content)),
            content_encoding: attributes.content_encoding.clone(),
            content_disposition: attributes.content_disposition.clone(),
            content_language: attributes.content_language.clone(),
            cache_control: attributes.cache_control.clone(),
            e_tag: Some(etag(&opened.content.etag)),
            last_modified: Some(timestamp(opened.version.modified)),
            metadata: metadata(&opened.content),
            parts_count: parts_count(&opened.content, input.part_number),
            version_id: opened.version_id(),
            ..Default::default()
        };
        report_encryption!(output, attributes);
        if wants_checksum(input.checksum_mode.as_ref()) && !slice.partial {
            let checksum = &opened.content.checksum;
            output.checksum_type = Some(checksum.kind.name().to_owned().into());
            report!(output, checksum.algorithm, checksum.value.clone());
        }
        let mut file = fs_err::tokio::File::from_std(opened.file);
        file.seek(std::io::SeekFrom::Start(slice.range.start)).await.map_err(internal)?;
        output.body = Some(StreamingBlob::new(FileBody {
            stream: ReaderStream::with_capacity(file.take(length), CHUNK),
            remaining: length,
        }));
        Ok(output)
    }

    pub(super) async fn head(
        &self,
        request: S3Request<dto::HeadObjectInput>,
    ) -> S3Result<dto::HeadObjectOutput> {
        let input = request.input;
        let opened = self.open(&input.bucket, &input.key, input.version_id.as_deref())?;
        let condition = ReadCondition {
            if_match: input.if_match,
            if_none_match: input.if_none_match,
            modified_since: input.if_modified_since,
            unmodified_since: input.if_unmodified_since,
        };
        condition.check(&opened)?;
        let slice = slice(&opened, input.range, input.part_number)?;
        let attributes = &opened.content.attributes;
        let mut output = dto::HeadObjectOutput {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(signed(slice.range.end - slice.range.start)),
            content_range: slice.content_range(opened.size),
            content_type: Some(content_type(&opened.content)),
            content_encoding: attributes.content_encoding.clone(),
            content_disposition: attributes.content_disposition.clone(),
            content_language: attributes.content_language.clone(),
            cache_control: attributes.cache_control.clone(),
            e_tag: Some(etag(&opened.content.etag)),
            last_modified: Some(timestamp(opened.version.modified)),
            metadata: metadata(&opened.content),
            parts_count: parts_count(&opened.content, input.part_number),
            version_id: opened.version_id(),
            ..Default::default()
        };
        report_encryption!(output, attributes);
        if wants_checksum(input.checksum_mode.as_ref()) && !slice.partial {
            let checksum = &opened.content.checksum;
            output.checksum_type = Some(checksum.kind.name().to_owned().into());
            report!(output, checksum.algorithm, checksum.value.clone());
        }
        Ok(output)
    }

    /// `GetObjectAttributes`: only what was asked for.
    pub(super) async fn describe(
        &self,
        request: S3Request<dto::GetObjectAttributesInput>,
    ) -> S3Result<dto::GetObjectAttributesOutput> {
        let input = request.input;
        let opened = self.open(&input.bucket, &input.key, input.version_id.as_deref())?;
        let asked = |name: &str| input.object_attributes.iter().any(|attribute| attribute.as_str() == name);
        let content = &opened.content;
        let checksum = asked(dto::ObjectAttributes::CHECKSUM).then(|| {
            let mut checksum = dto::Checksum {
                checksum_type: Some(content.checksum.kind.name().to_owned().into()),
                ..Default::default()
            };
            report!(checksum, content.checksum.algorithm, content.checksum.value.clone());
            checksum
        });
        let object_parts = (asked(dto::ObjectAttributes::OBJECT_PARTS) && !content.parts.is_empty())
            .then(|| object_parts(content, input.part_number_marker, input.max_parts));
        Ok(dto::GetObjectAttributesOutput {
            checksum,
            e_tag: asked(dto::ObjectAttributes::ETAG).then(|| etag(&content.etag)),
            last_modified: Some(timestamp(opened.version.modified)),
            object_parts,
            object_size: asked(dto::ObjectAttributes::OBJECT_SIZE).then(|| signed(opened.size)),
            storage_class: asked(dto::ObjectAttributes::STORAGE_CLASS)
                .then(|| dto::StorageClass::from_static(dto::StorageClass::STANDARD)),
            version_id: opened.version_id(),
            ..Default::default()
        })
    }

    /// Opens a version for reading. Who may not list may not learn that a key is absent, as in AWS.
    fn open(&self, bucket: &str, key: &str, version: Option<&str>) -> S3Result<Opened> {
        self.store.open_object(bucket, key, version).map_err(|error| {
            let absent = matches!(error.code(), S3ErrorCode::NoSuchKey | S3ErrorCode::NoSuchVersion);
            if absent && self.faults.hides_absence(key) {
                return s3_error!(AccessDenied, "Access Denied");
            }
            error
        })
    }
}

impl Opened {
    fn version_id(&self) -> Option<String> {
        self.versioned.then(|| self.version.id.clone())
    }
}

impl ReadCondition {
    fn check(&self, opened: &Opened) -> S3Result<()> {
        let etag = &opened.content.etag;
        let matches =
            |condition: &ETagCondition| condition.as_etag().is_none_or(|given| given.value() == etag);
        let modified = timestamp(opened.version.modified);
        if self.if_match.as_ref().is_some_and(|condition| !matches(condition)) {
            return Err(precondition_failed());
        }
        if self.if_match.is_none() && self.unmodified_since.as_ref().is_some_and(|since| modified > *since) {
            return Err(precondition_failed());
        }
        if self.if_none_match.as_ref().is_some_and(matches) {
            return Err(s3_error!(NotModified));
        }
        if self.if_none_match.is_none()
            && self.modified_since.as_ref().is_some_and(|since| modified <= *since)
        {
            return Err(s3_error!(NotModified));
        }
        Ok(())
    }
}

impl Slice {
    fn content_range(&self, size: u64) -> Option<String> {
        let Range { start, end } = self.range;
        (self.partial && end > start).then(|| format!("bytes {start}-{}/{size}", end - 1))
    }
}

fn slice(opened: &Opened, range: Option<dto::Range>, part: Option<i32>) -> S3Result<Slice> {
    match (range, part) {
        (Some(_), Some(_)) => {
            Err(s3_error!(InvalidRequest, "Cannot specify both Range header and partNumber query parameter"))
        }
        (Some(range), None) => Ok(Slice { range: range.check(opened.size)?, partial: true }),
        (None, None) => Ok(Slice { range: 0..opened.size, partial: false }),
        (None, Some(number)) => {
            let number = part_number(number)?;
            let parts = &opened.content.parts;
            if parts.is_empty() && number == 1 {
                return Ok(Slice { range: 0..opened.size, partial: true });
            }
            let start = parts.iter().filter(|part| part.number < number).map(|part| part.size).sum();
            let part = parts.iter().find(|part| part.number == number);
            let size = part
                .ok_or_else(|| s3_error!(InvalidRange, "The requested partnumber is not satisfiable"))?
                .size;
            Ok(Slice { range: start..start + size, partial: true })
        }
    }
}

fn object_parts(content: &Content, marker: Option<i32>, limit: Option<i32>) -> dto::GetObjectAttributesParts {
    let after = marker.and_then(|marker| u32::try_from(marker).ok()).unwrap_or(0);
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(1000).min(1000);
    let rest: Vec<_> = content.parts.iter().filter(|part| part.number > after).collect();
    let shown = rest.iter().take(limit).map(|part| {
        let mut shown = dto::ObjectPart {
            part_number: i32::try_from(part.number).ok(),
            size: Some(signed(part.size)),
            ..Default::default()
        };
        if let Some(checksum) = &part.checksum {
            report!(shown, checksum.algorithm, checksum.value.clone());
        }
        shown
    });
    let shown: Vec<_> = shown.collect();
    // Without an algorithm named at the creation of the upload AWS tells only the number of parts.
    let told = content.parts.iter().all(|part| part.checksum.is_some());
    dto::GetObjectAttributesParts {
        is_truncated: Some(rest.len() > limit),
        max_parts: Some(count(limit)),
        next_part_number_marker: shown.last().and_then(|part| part.part_number),
        part_number_marker: marker,
        parts: told.then_some(shown),
        total_parts_count: Some(count(content.parts.len())),
    }
}

fn wants_checksum(mode: Option<&dto::ChecksumMode>) -> bool {
    mode.is_some_and(|mode| mode.as_str() == dto::ChecksumMode::ENABLED)
}

fn content_type(content: &Content) -> String {
    content.attributes.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned())
}

fn metadata(content: &Content) -> Option<dto::Metadata> {
    let metadata = &content.attributes.metadata;
    (!metadata.is_empty()).then(|| metadata.clone().into_iter().collect())
}

fn parts_count(content: &Content, part: Option<i32>) -> Option<i32> {
    (part.is_some() && !content.parts.is_empty()).then(|| count(content.parts.len()))
}

/// A range of a file as the body of an answer, with its length known beforehand.
struct FileBody {
    stream: ReaderStream<tokio::io::Take<fs_err::tokio::File>>,
    remaining: u64,
}

impl Stream for FileBody {
    type Item = Result<Bytes, StdError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let body = self.get_mut();
        Pin::new(&mut body.stream).poll_next(context).map(|item| {
            item.map(|chunk| {
                let chunk = chunk?;
                body.remaining = body.remaining.saturating_sub(u64::try_from(chunk.len())?);
                Ok(chunk)
            })
        })
    }
}

impl ByteStream for FileBody {
    fn remaining_length(&self) -> RemainingLength {
        RemainingLength::new_exact(usize::try_from(self.remaining).unwrap_or(usize::MAX))
    }
}
