//! The bytes of a snapshot over HTTP: with a length, and by range.

use super::reply::{ApiError, Handled, Outcome, plain};
use super::request::Ctx;
use super::snapshots::locate;
use axum::body::Body;
use fs_err as fs;
use http::{HeaderMap, Response, StatusCode, header};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Its errors come as plain text.
pub(super) async fn download(ctx: Ctx) -> Handled {
    stream(&ctx).or_else(|error| Ok(Outcome::Raw(plain(&error))))
}

fn stream(ctx: &Ctx) -> Handled {
    let path = locate(ctx)?;
    let mut file = fs::File::open(&path)?;
    let size = file.metadata()?.size();
    let (start, end, status) = match requested_range(&ctx.headers, size) {
        Ok(None) => (0, size, StatusCode::OK),
        Ok(Some((start, end))) => (start, end, StatusCode::PARTIAL_CONTENT),
        Err(()) => (0, 0, StatusCode::RANGE_NOT_SATISFIABLE),
    };
    file.seek(SeekFrom::Start(start))?;
    let reader =
        tokio::io::AsyncReadExt::take(tokio::fs::File::from_std(file.into_file()), end.saturating_sub(start));
    let modified = jiff::Timestamp::from_second(fs::metadata(&path)?.mtime())
        .map_err(|error| ApiError::service(error.to_string()))?
        .to_zoned(jiff::tz::TimeZone::UTC);
    let mut response = Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header(header::CONTENT_DISPOSITION, disposition(&path))
        .header(header::LAST_MODIFIED, modified.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string())
        .header(header::ACCEPT_RANGES, "bytes")
        .header(header::CONTENT_LENGTH, end.saturating_sub(start))
        .header(header::ETAG, format!("\"{:x}:{size:x}\"", fs::metadata(&path)?.mtime()));
    if status == StatusCode::PARTIAL_CONTENT {
        response = response
            .header(header::CONTENT_RANGE, format!("bytes {start}-{}/{size}", end.saturating_sub(1)))
            .header(header::CONTENT_ENCODING, "identity");
    } else if status == StatusCode::RANGE_NOT_SATISFIABLE {
        response = response.header(header::CONTENT_RANGE, format!("bytes */{size}"));
    }
    let body = Body::from_stream(tokio_util::io::ReaderStream::new(reader));
    response.body(body).map(Outcome::Raw).map_err(|error| ApiError::service(error.to_string()))
}

/// Names that a header cannot carry are sent percent-encoded.
fn disposition(path: &Path) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' || byte == b' ') {
        return format!("attachment; filename=\"{name}\"");
    }
    let encoded: String = name
        .bytes()
        .map(|byte| {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect();
    format!("attachment; filename*=UTF-8''{encoded}")
}

/// One range, as start and end (exclusive); none when there is no header that asks for one.
fn requested_range(headers: &HeaderMap, size: u64) -> Result<Option<(u64, u64)>, ()> {
    let Some(spec) = headers
        .get(header::RANGE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("bytes="))
    else {
        return Ok(None);
    };
    let (first, last) = spec.split_once('-').ok_or(())?;
    let (start, end) = match (first.parse::<u64>(), last.parse::<u64>()) {
        (Ok(first), Ok(last)) => (first, last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) => (first, size),
        (Err(_), Ok(suffix)) => (size.saturating_sub(suffix), size),
        (Err(_), Err(_)) => return Err(()),
    };
    if start < end { Ok(Some((start, end))) } else { Err(()) }
}
