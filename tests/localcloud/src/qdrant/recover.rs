//! Recovery of a collection from a snapshot, in the real server's destructive order.

use super::archive::{self, Contents};
use super::collection::Collection;
use super::faults::{Fault, Stage};
use super::node::{Node, drain_slowly};
use super::operation::Op;
use super::persistence::set_initializing;
use super::reply::{ApiError, Handled, Outcome, ok};
use super::request::Ctx;
use super::service::Gauge;
use super::shard::Shard;
use bytes::Bytes;
use fs_err as fs;
use http::header;
use reqwest::Url;
use serde::{Deserialize, Deserializer, de};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;

/// One point in so many is replayed in the background, at least one.
const REPLAYED_ONE_IN: usize = 20;
/// How long one operation of the replay takes.
const REPLAY_EACH: Duration = Duration::from_millis(5);

#[derive(Deserialize)]
struct Body {
    #[serde(deserialize_with = "parse_url")]
    location: Url,
    priority: Option<Priority>,
    checksum: Option<String>,
    api_key: Option<String>,
}

/// On one node they are all the same.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Priority {
    NoSync,
    Snapshot,
    Replica,
}

fn parse_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    let text = String::deserialize(deserializer)?;
    Url::parse(&text).map_err(|error| de::Error::custom(format!("{error}: {text:?}")))
}

enum Source {
    Url {
        url: Url,
        api_key: Option<String>,
    },
    /// A file that the server itself has put into its snapshots directory.
    Own(PathBuf),
}

/// `PUT /collections/{c}/snapshots/recover`.
pub(super) async fn recover(mut ctx: Ctx) -> Handled {
    let name = ctx.collection()?;
    let wait = ctx.flag("wait", true)?;
    let body: Body = ctx.json().await?;
    check_checksum(body.checksum.as_deref(), "JSON body")?;
    match body.priority {
        None | Some(Priority::NoSync | Priority::Snapshot | Priority::Replica) => {}
    }
    let source = Source::Url { url: body.location, api_key: body.api_key };
    start(ctx.node, name, source, body.checksum, wait).await
}

/// `POST /collections/{c}/snapshots/upload`: the file stays behind under the name that the client gave.
pub(super) async fn upload(mut ctx: Ctx) -> Handled {
    let name = ctx.collection()?;
    super::collections::check_new_name(&name)?;
    let wait = ctx.flag("wait", true)?;
    let checksum = ctx.query.get("checksum").cloned();
    check_checksum(checksum.as_deref(), "query parameters")?;
    let boundary = ctx
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split("boundary=").nth(1))
        .map(|boundary| boundary.trim_matches('"').to_owned())
        .ok_or_else(|| ApiError::bad_request("No Content-Type header found"))?;
    let body = ctx.bytes().await?;
    let part = snapshot_part(&body, &boundary)
        .ok_or_else(|| ApiError::bad_request("Field `snapshot` is required in the multipart form"))?;
    if let Some(expected) = checksum {
        let actual = hex::encode(Sha256::digest(&part.data));
        if !actual.eq_ignore_ascii_case(&expected) {
            return Err(ApiError::checksum_mismatch(&actual, &expected));
        }
    }
    let dir = ctx.node.collection_snapshots(&name);
    fs::create_dir_all(&dir)?;
    let path = dir.join(&part.file_name);
    fs::write(&path, &part.data)?;
    start(ctx.node, name, Source::Own(path), None, wait).await
}

struct Part {
    file_name: String,
    data: Bytes,
}

/// The part called `snapshot` of a multipart form.
fn snapshot_part(body: &Bytes, boundary: &str) -> Option<Part> {
    let delimiter = format!("--{boundary}");
    let mut at = find(body, delimiter.as_bytes(), 0)?;
    loop {
        let head = at + delimiter.len();
        let data = find(body, b"\r\n\r\n", head)? + 4;
        let headers = String::from_utf8_lossy(body.get(head..data)?).into_owned();
        let end = find(body, format!("\r\n{delimiter}").as_bytes(), data.saturating_sub(2))?;
        if attribute(&headers, "name").as_deref() == Some("snapshot") {
            let given = attribute(&headers, "filename").unwrap_or_else(|| "upload.snapshot".to_owned());
            let file_name = Path::new(&given).file_name()?.to_str()?.to_owned();
            return Some(Part { file_name, data: body.slice(data..end.max(data)) });
        }
        at = end + 2;
    }
}

fn attribute(headers: &str, name: &str) -> Option<String> {
    headers.split([';', '\r', '\n']).find_map(|part| {
        let value = part.trim().strip_prefix(name)?.strip_prefix('=')?;
        Some(value.trim_matches('"').to_owned())
    })
}

fn find(haystack: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    haystack.get(from..)?.windows(needle.len()).position(|window| window == needle).map(|at| at + from)
}

fn check_checksum(checksum: Option<&str>, part: &str) -> Result<(), ApiError> {
    match checksum {
        Some(text) if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
            Err(ApiError::validation(
                part,
                format!(
                    "checksum: Validation error: invalid_sha256_hash [{{\"length\": Number({}), \"expected_length\": Number(64), \"value\": String({text:?})}}]",
                    text.len()
                ),
            ))
        }
        Some(_) | None => Ok(()),
    }
}

async fn start(
    node: Arc<Node>,
    name: String,
    source: Source,
    checksum: Option<String>,
    wait: bool,
) -> Handled {
    let (send, finished) = oneshot::channel();
    let job = Arc::clone(&node);
    node.spawn(async move {
        let result = run(&job, &name, source, checksum).await;
        // With `wait=false`, or when the client is gone, nobody is there to hear.
        send.send(result).unwrap_or_default();
    });
    if !wait {
        return Ok(Outcome::Accepted);
    }
    match finished.await {
        Ok(result) => ok(&result.map(|()| true)?),
        // The job was killed, and the server with it.
        Err(_) => Ok(Outcome::Dropped),
    }
}

async fn run(node: &Arc<Node>, name: &str, source: Source, checksum: Option<String>) -> Result<(), ApiError> {
    let _gauge = Gauge::recovering(node, name);
    let faults = node.faults.take(Stage::Recover, name);
    // Nothing of the collection is touched before the archive is read.
    let archive = fetch(node, source).await?;
    if let Some(expected) = checksum {
        let actual = hex::encode(Sha256::digest(&archive));
        if !actual.eq_ignore_ascii_case(&expected) {
            return Err(ApiError::bad_input(format!(
                "Snapshot checksum mismatch: expected {expected}, got {actual}"
            )));
        }
    }
    if node.faults.disk_full() {
        return Err(ApiError::no_space());
    }
    let contents = archive::read_archive(archive.as_ref())?;
    drop(archive);
    let collection = match node.collection(name) {
        Ok(existing) => existing,
        Err(_) => create(node, name, &contents)?,
    };
    collection.read().config.check_recoverable_from(&contents.config)?;
    if contents.config.custom_sharding() {
        // No shard key is made with the collection, so there is no shard to recover, and that is called a success.
        return Ok(());
    }
    replace(node, &collection, &contents, &faults).await
}

fn create(node: &Arc<Node>, name: &str, contents: &Contents) -> Result<Arc<Collection>, ApiError> {
    super::collections::check_new_name(name)?;
    node.insert(name, contents.config.clone())?;
    let created = node.collection(name)?;
    created.write().schema = contents.schema.clone();
    Ok(created)
}

/// Clears the old shard, then loads the new one. What fails in between leaves a dummy.
async fn replace(
    node: &Arc<Node>,
    collection: &Arc<Collection>,
    contents: &Contents,
    faults: &[Fault],
) -> Result<(), ApiError> {
    let storage = &node.settings.storage_dir;
    set_initializing(storage, &collection.name, true)?;
    let mut fails = false;
    for fault in faults {
        match fault {
            Fault::RecoverFailsAtLoad => fails = true,
            Fault::RecoverPauses(pause) => {
                collection.write().make_dummy("Shard is being recovered");
                tokio::time::sleep(*pause).await;
            }
            Fault::DieInRecover => node.die().await,
            Fault::SnapshotFails { .. }
            | Fault::SnapshotFillsDisk { .. }
            | Fault::DieInSnapshot { .. }
            | Fault::SnapshotReplyDelayed(_)
            | Fault::SnapshotReplyLost(_)
            | Fault::SnapshotFile { .. }
            | Fault::WrongChecksum
            | Fault::Change(_) => {}
        }
    }
    let loaded =
        if fails { Err(std::io::Error::other("failed to read first-index file")) } else { contents.load() };
    let result = match loaded {
        Ok(points) => {
            let op_num = points.values().map(|point| point.version).max().unwrap_or_default();
            let mut shard = Shard::new(points, op_num);
            let replaying = node.settings.background_replay && hold_back(&mut shard);
            collection.write().replace_shard(shard);
            if replaying {
                node.spawn(drain_slowly(Arc::clone(collection), REPLAY_EACH));
            }
            Ok(())
        }
        Err(error) => {
            let message = format!("Failed to load local shard 0: {error}");
            collection.write().make_dummy(&message);
            Err(ApiError::service(message))
        }
    };
    set_initializing(storage, &collection.name, false)?;
    node.change_catalog(|_| Ok(()))?;
    result
}

/// Puts the tail of the points back into the queue, as 1.17.0 to 1.18.3 do with the tail of the log.
fn hold_back(shard: &mut Shard) -> bool {
    let tail = (shard.points.len() / REPLAYED_ONE_IN).max(1);
    for _ in 0..tail {
        if let Some((id, point)) = shard.points.pop_last() {
            shard.pending.push_front(Op::Upsert(vec![(id, point)]));
        }
    }
    !shard.pending.is_empty()
}

async fn fetch(node: &Arc<Node>, source: Source) -> Result<Bytes, ApiError> {
    match source {
        Source::Own(path) => read(path).await,
        Source::Url { url, .. } if url.scheme() == "file" => {
            let path = allowed_path(&url, &node.settings.snapshots_dir)?;
            read(path).await
        }
        Source::Url { url, api_key } if matches!(url.scheme(), "http" | "https") => {
            download(url, api_key).await
        }
        Source::Url { url, .. } => {
            Err(ApiError::bad_request(format!("URL {url} with scheme {} is not supported", url.scheme())))
        }
    }
}

async fn read(path: PathBuf) -> Result<Bytes, ApiError> {
    Ok(Bytes::from(fs_err::tokio::read(path).await?))
}

/// Only files inside the snapshots directory, once symbolic links are followed.
fn allowed_path(url: &Url, snapshots_dir: &Path) -> Result<PathBuf, ApiError> {
    let path = url.to_file_path().map_err(|()| {
        ApiError::bad_request("Invalid snapshot URI, file path must be absolute or on localhost")
    })?;
    if !path.exists() {
        return Err(ApiError::bad_request(format!("Snapshot file {path:?} does not exist")));
    }
    let path = fs::canonicalize(&path).map_err(|error| {
        ApiError::bad_request(format!("Failed to resolve snapshot path {path:?}: {error}"))
    })?;
    let allowed = fs::canonicalize(snapshots_dir)?;
    if path.starts_with(&allowed) {
        Ok(path)
    } else {
        Err(ApiError::forbidden(format!(
            "Snapshot file path must be inside the snapshots directory {allowed:?}"
        )))
    }
}

async fn download(url: Url, api_key: Option<String>) -> Result<Bytes, ApiError> {
    let failed =
        |error: reqwest::Error| ApiError::bad_input(format!("Failed to download tar from {url}: {error}"));
    let client = reqwest::Client::builder().no_proxy().build().map_err(failed)?;
    let mut request = client.get(url.clone());
    if let Some(key) = api_key {
        request = request.header("api-key", key);
    }
    let response = request.send().await.map_err(failed)?;
    if !response.status().is_success() {
        return Err(ApiError::bad_input(format!(
            "Failed to download tar from {url}: status - {}",
            response.status()
        )));
    }
    response.bytes().await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_snapshot_part_is_found_between_others() {
        let body = Bytes::from_static(
            b"--B\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\nx\r\n--B\r\n\
              Content-Disposition: form-data; name=\"snapshot\"; filename=\"../a.snapshot\"\r\n\
              Content-Type: application/octet-stream\r\n\r\nDATA\r\n\r\n--B--\r\n",
        );
        let part = snapshot_part(&body, "B").unwrap();
        assert_eq!(part.file_name, "a.snapshot");
        assert_eq!(part.data.as_ref(), b"DATA\r\n");
        assert!(snapshot_part(&body, "C").is_none());
    }
}
