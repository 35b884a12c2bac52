//! The calls: multipart uploads, objects, ranges.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_RANGE, ETAG, HeaderName, HeaderValue, RANGE},
};

use super::{KEEP, RECEIVED, SLOW};

const CRC: HeaderName = HeaderName::from_static("x-amz-checksum-crc64nvme");
const CHECKSUM_TYPE: HeaderName = HeaderName::from_static("x-amz-checksum-type");
const METADATA: &str = "x-amz-meta-";
/// How long the slow bucket waits before it takes a part.
const PAUSE: Duration = Duration::from_secs(2);

/// Everything that the store knows.
#[derive(Debug, Default)]
pub(super) struct State {
    tables: Mutex<Tables>,
}

#[derive(Debug, Default)]
struct Tables {
    uploads: HashMap<String, Upload>,
    objects: HashMap<String, Object>,
    received: HashMap<String, u64>,
    started: u64,
}

#[derive(Debug, Default)]
struct Upload {
    path: String,
    headers: HeaderMap,
    parts: BTreeMap<u32, Part>,
}

#[derive(Debug, Default)]
struct Part {
    size: u64,
    crc: Option<HeaderValue>,
    bytes: Vec<u8>,
}

#[derive(Debug, Default)]
struct Object {
    size: u64,
    headers: HeaderMap,
    bytes: Bytes,
}

type Answer = Response<Full<Bytes>>;

/// Answers one request. What it does not understand is the bench's own mistake and is answered with status 500.
pub(super) async fn answer(state: Arc<State>, request: Request<Incoming>) -> anyhow::Result<Answer> {
    let described = format!("{} {}", request.method(), request.uri());
    match dispatch(&state, request).await {
        Ok(answer) => Ok(answer),
        Err(error) => {
            let text =
                format!("<Error><Code>InternalError</Code><Message>{described}: {error:#}</Message></Error>");
            Ok(with_status(StatusCode::INTERNAL_SERVER_ERROR, text))
        }
    }
}

async fn dispatch(state: &State, request: Request<Incoming>) -> anyhow::Result<Answer> {
    let path = request.uri().path().to_owned();
    let bucket = path.split('/').nth(1);
    let keeps = bucket == Some(KEEP);
    if bucket == Some(SLOW) && request.method() == Method::PUT {
        tokio::time::sleep(PAUSE).await;
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let query = Query::of(&query);
    let method = request.method().clone();
    let headers = request.headers().clone();
    let upload = query.get("uploadId");
    match (method, upload) {
        (Method::POST, None) if query.has("uploads") => create(state, path, headers),
        (Method::PUT, Some(id)) => {
            let number = query.get("partNumber").context("no part number")?.parse()?;
            let part = receive(state, &path, request, keeps).await?;
            let crc = part.crc.clone();
            state.tables().uploads.get_mut(id).context("no such upload")?.parts.insert(number, part);
            Ok(stored(crc))
        }
        (Method::PUT, None) => {
            let Part { size, crc, bytes } = receive(state, &path, request, keeps).await?;
            let object =
                Object { size, headers: whole_headers(crc.as_ref(), &headers)?, bytes: bytes.into() };
            state.tables().objects.insert(path, object);
            Ok(stored(crc))
        }
        (Method::GET, Some(id)) => list_parts(state, id),
        (Method::GET, None) if query.has("uploads") => list_uploads(state),
        (Method::POST, Some(id)) => {
            request.into_body().collect().await?;
            complete(state, id, &headers)
        }
        (Method::DELETE, Some(id)) => {
            state.tables().uploads.remove(id);
            Ok(with_status(StatusCode::NO_CONTENT, String::new()))
        }
        (Method::DELETE, None) => {
            state.tables().objects.remove(&path);
            Ok(with_status(StatusCode::NO_CONTENT, String::new()))
        }
        (Method::HEAD | Method::GET, None) => read(state, &path, &request),
        (method, _) => bail!("a {method} that the store of the benchmarks does not know"),
    }
}

/// Reads a body, counts it, and keeps it only if that is wanted.
async fn receive(state: &State, path: &str, request: Request<Incoming>, keeps: bool) -> anyhow::Result<Part> {
    let encoded = request.headers().get("content-encoding").is_some_and(|value| value == "aws-chunked");
    ensure!(!(keeps && encoded), "a chunked body is not decoded, only dropped");
    let crc = request.headers().get(CRC).cloned();
    let length = request.headers().get("content-length").and_then(|text| text.to_str().ok()?.parse().ok());
    let mut part = Part { size: 0, crc, bytes: Vec::with_capacity(length.filter(|_| keeps).unwrap_or(0)) };
    let whole = read_into(&mut part, request.into_body(), keeps).await;
    *state.tables().received.entry(path.to_owned()).or_default() += part.size;
    whole.map(|()| part)
}

async fn read_into(part: &mut Part, mut body: Incoming, keeps: bool) -> anyhow::Result<()> {
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        part.size += data.len() as u64;
        if keeps {
            part.bytes.extend_from_slice(&data);
        }
    }
    Ok(())
}

fn create(state: &State, path: String, headers: HeaderMap) -> anyhow::Result<Answer> {
    let mut tables = state.tables();
    tables.started += 1;
    let id = format!("upload-{}", tables.started);
    let (bucket, key) = path.trim_start_matches('/').split_once('/').context("no key")?;
    let text = format!(
        "<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{key}</Key><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
    );
    tables.uploads.insert(id, Upload { path, headers, parts: BTreeMap::new() });
    Ok(with_status(StatusCode::OK, text))
}

fn list_parts(state: &State, id: &str) -> anyhow::Result<Answer> {
    let tables = state.tables();
    let upload = tables.uploads.get(id).context("no such upload")?;
    let mut text = "<ListPartsResult><IsTruncated>false</IsTruncated>".to_owned();
    for (number, part) in &upload.parts {
        write!(text, "<Part><PartNumber>{number}</PartNumber><ETag>{TAG}</ETag><Size>{}</Size>", part.size)?;
        if let Some(crc) = &part.crc {
            write!(text, "<ChecksumCRC64NVME>{}</ChecksumCRC64NVME>", crc.to_str()?)?;
        }
        text.push_str("</Part>");
    }
    text.push_str("</ListPartsResult>");
    Ok(with_status(StatusCode::OK, text))
}

fn list_uploads(state: &State) -> anyhow::Result<Answer> {
    let tables = state.tables();
    let mut text = "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>".to_owned();
    for (id, upload) in &tables.uploads {
        let (_, key) = upload.path.trim_start_matches('/').split_once('/').context("no key")?;
        write!(text, "<Upload><Key>{key}</Key><UploadId>{id}</UploadId></Upload>")?;
    }
    text.push_str("</ListMultipartUploadsResult>");
    Ok(with_status(StatusCode::OK, text))
}

fn complete(state: &State, id: &str, headers: &HeaderMap) -> anyhow::Result<Answer> {
    let mut tables = state.tables();
    let upload = tables.uploads.remove(id).context("no such upload")?;
    let mut bytes = Vec::new();
    let mut size = 0;
    for part in upload.parts.into_values() {
        size += part.size;
        bytes.extend(part.bytes);
    }
    let mut headers = whole_headers(headers.get(CRC), &upload.headers)?;
    let received = tables.received.remove(&upload.path).unwrap_or_default();
    headers.insert(HeaderName::try_from(format!("{METADATA}{RECEIVED}"))?, received.into());
    tables.objects.insert(upload.path, Object { size, headers, bytes: bytes.into() });
    let text = format!("<CompleteMultipartUploadResult><ETag>{TAG}</ETag></CompleteMultipartUploadResult>");
    Ok(with_status(StatusCode::OK, text))
}

/// HEAD, and GET with or without a range.
fn read(state: &State, path: &str, request: &Request<Incoming>) -> anyhow::Result<Answer> {
    let tables = state.tables();
    let Some(object) = tables.objects.get(path) else {
        return Ok(with_status(StatusCode::NOT_FOUND, "<Error><Code>NoSuchKey</Code></Error>".to_owned()));
    };
    let wanted = request.headers().get(RANGE).map(|range| parse_range(range, object.size)).transpose()?;
    let mut answer = Response::new(Full::default());
    answer.headers_mut().extend(object.headers.clone());
    if request.method() == Method::HEAD {
        answer.headers_mut().insert("content-length", object.size.into());
        return Ok(answer);
    }
    let range = wanted.clone().unwrap_or(0..object.bytes.len());
    if wanted.is_some() {
        let text = format!("bytes {}-{}/{}", range.start, range.end.saturating_sub(1), object.size);
        answer.headers_mut().insert(CONTENT_RANGE, text.parse()?);
        *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    ensure!(range.end <= object.bytes.len(), "the object is not kept");
    *answer.body_mut() = Full::new(object.bytes.slice(range));
    Ok(answer)
}

/// Only the form that is sent here: `bytes=first-last`.
fn parse_range(range: &HeaderValue, size: u64) -> anyhow::Result<Range<usize>> {
    let (first, last) = range
        .to_str()?
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'))
        .context("a range that is not `bytes=first-last`")?;
    let (first, last): (usize, usize) = (first.parse()?, last.parse()?);
    Ok(first..usize::try_from(size)?.min(last + 1))
}

/// What a HEAD tells of an object: its checksum, and the metadata that it was started with.
fn whole_headers(crc: Option<&HeaderValue>, started: &HeaderMap) -> anyhow::Result<HeaderMap> {
    let mut headers: HeaderMap = started
        .iter()
        .filter(|(name, _)| name.as_str().starts_with(METADATA))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    headers.insert(ETAG, TAG.parse()?);
    if let Some(crc) = crc {
        headers.insert(CRC, crc.clone());
        headers.insert(CHECKSUM_TYPE, "FULL_OBJECT".parse()?);
    }
    Ok(headers)
}

/// Every tag: nobody compares content with it.
const TAG: &str = "\"0123456789abcdef0123456789abcdef\"";

fn stored(crc: Option<HeaderValue>) -> Answer {
    let mut answer = Response::new(Full::default());
    answer.headers_mut().insert(ETAG, HeaderValue::from_static(TAG));
    if let Some(crc) = crc {
        answer.headers_mut().insert(CRC, crc);
    }
    answer
}

fn with_status(status: StatusCode, text: String) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    answer
}

impl State {
    fn tables(&self) -> std::sync::MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parameters of a request. Upload ids and part numbers need no decoding.
struct Query<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Query<'a> {
    fn of(text: &'a str) -> Self {
        Self(text.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, ""))).collect())
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|pair| pair.0 == name)
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|pair| pair.0 == name).map(|pair| pair.1)
    }
}
