//! Collection snapshots: written slowly through temporary files, listed, deleted.

use super::archive;
use super::collection::Collection;
use super::faults::{Fault, Stage};
use super::node::Node;
use super::reply::{ApiError, Handled, Outcome, ok};
use super::request::Ctx;
use super::service::Gauge;
use super::{len_u64, tamper};
use fs_err as fs;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// `POST /collections/{c}/snapshots`: the job goes on whatever becomes of the client.
pub(super) async fn create(ctx: Ctx) -> Handled {
    let wait = ctx.flag("wait", true)?;
    let found = ctx.node.collection(&ctx.collection()?);
    if !wait && found.is_err() {
        return Ok(Outcome::Accepted);
    }
    let collection = found?;
    let faults = ctx.node.faults.take(Stage::Snapshot, &collection.name);
    let lost = faults
        .iter()
        .find_map(|fault| if let Fault::SnapshotReplyLost(after) = fault { Some(*after) } else { None });
    let (send, finished) = oneshot::channel();
    let node = Arc::clone(&ctx.node);
    ctx.node.spawn(async move {
        let result = run(&node, &collection, faults).await;
        // With `wait=false`, or when the client is gone, nobody is there to hear.
        send.send(result).unwrap_or_default();
    });
    if !wait {
        return Ok(Outcome::Accepted);
    }
    if let Some(after) = lost {
        tokio::time::sleep(after).await;
        return Ok(Outcome::Dropped);
    }
    match finished.await {
        Ok(result) => ok(&result?),
        // The job was killed, and the server with it.
        Err(_) => Ok(Outcome::Dropped),
    }
}

/// Makes the collection yellow while it lives.
struct Yellow(Arc<Collection>);

impl Yellow {
    fn new(collection: &Arc<Collection>) -> Self {
        collection.snapshots_running.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(collection))
    }
}

impl Drop for Yellow {
    fn drop(&mut self) {
        self.0.snapshots_running.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn run(node: &Arc<Node>, collection: &Arc<Collection>, faults: Vec<Fault>) -> Result<Value, ApiError> {
    let gauge = Gauge::creating(node, &collection.name);
    let yellow = Yellow::new(collection);
    let stored = write_archive(node, collection, &faults).await;
    drop((gauge, yellow));
    let path = stored?;
    let mut described = describe(&path)?;
    for fault in faults {
        match fault {
            Fault::SnapshotReplyDelayed(delay) => tokio::time::sleep(delay).await,
            Fault::WrongChecksum => {
                if let Some(described) = described.as_object_mut() {
                    described
                        .insert("checksum".to_owned(), json!(hex::encode(Sha256::digest(b"another file"))));
                }
            }
            Fault::SnapshotFile { damage, after } => {
                let path = path.clone();
                node.spawn(async move {
                    tokio::time::sleep(after).await;
                    if let Err(error) = tamper::damage(&path, damage) {
                        tracing::warn!(%error, "a scripted damage could not be done");
                    }
                });
            }
            Fault::SnapshotFails { .. }
            | Fault::SnapshotFillsDisk { .. }
            | Fault::DieInSnapshot { .. }
            | Fault::SnapshotReplyLost(_)
            | Fault::Change(_)
            | Fault::RecoverFailsAtLoad
            | Fault::RecoverPauses(_)
            | Fault::DieInRecover => {}
        }
    }
    Ok(described)
}

/// Writes the archive beside the data, moves it into the snapshots directory under a temporary name, and renames it there.
async fn write_archive(
    node: &Arc<Node>,
    collection: &Arc<Collection>,
    faults: &[Fault],
) -> Result<PathBuf, ApiError> {
    if node.faults.disk_full() {
        return Err(ApiError::no_space());
    }
    let dir = node.collection_snapshots(&collection.name);
    let mut name = file_name(node, collection);
    while dir.join(&name).exists() {
        // Names have whole seconds, and a real server is never done with a snapshot in the second it is asked again.
        // Two that run at the same time still collide, as they do there.
        tokio::time::sleep(Duration::from_millis(20)).await;
        name = file_name(node, collection);
    }
    let (file, temp) = tempfile::Builder::new()
        .prefix(&format!("{name}-arc-"))
        .tempfile_in(node.temp_dir())
        .map_err(|error| {
            ApiError::service(format!(
                "failed to create temporary snapshot directory {}/{name}-arc-XXXX: {error}",
                node.temp_dir().display()
            ))
        })?
        // Deleted on failure by hand: a killed server leaves it behind.
        .keep()
        .map_err(|error| ApiError::service(error.to_string()))?;
    let output = Output {
        node: Arc::clone(node),
        file,
        hash: Sha256::new(),
        written: 0,
        began: Instant::now(),
        stop: Stop::find(faults),
    };
    match fill(node, collection, faults, output).await {
        Ok(checksum) => store(&temp, &dir, &name, &checksum),
        Err(error) => {
            fs::remove_file(&temp)?;
            Err(error)
        }
    }
}

fn file_name(node: &Node, collection: &Collection) -> String {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    format!("{}-{}-{}.snapshot", collection.name, node.peer_id, now.strftime("%Y-%m-%d-%H-%M-%S"))
}

/// The points of now go first; what changes until the end goes last. Returns the SHA-256 of the archive.
async fn fill(
    node: &Arc<Node>,
    collection: &Arc<Collection>,
    faults: &[Fault],
    mut output: Output,
) -> Result<String, ApiError> {
    let (capture, points) = {
        let mut inner = collection.write();
        let capture = inner.shard_mut("create snapshot")?.start_capture();
        (capture, archive::points_entry(&inner.config, &inner.shard("create snapshot")?.points))
    };
    let begun = async {
        let points = points?;
        let (first, second) = points.split_at(points.len() / 2);
        output.write(first).await?;
        for fault in faults {
            if let Fault::Change(change) = fault {
                node.apply_change(change)?;
            }
        }
        output.write(second).await
    }
    .await;
    let closing = {
        let mut inner = collection.write();
        let changed = inner.shard_mut("create snapshot")?.end_capture(capture);
        begun?;
        let points = &inner.shard("create snapshot")?.points;
        archive::closing_entries(&inner.config, &inner.schema, &changed, points, node.settings.wal_bytes)?
    };
    output.write(&closing).await?;
    output.finish().await
}

/// An archive being written, at the pace of the disk that is simulated.
struct Output {
    node: Arc<Node>,
    file: std::fs::File,
    hash: Sha256,
    written: u64,
    began: Instant,
    stop: Option<(u64, Stop)>,
}

/// How a snapshot ends early.
#[derive(Clone, Copy)]
enum Stop {
    Fails,
    FillsDisk,
    Dies,
}

impl Stop {
    fn find(faults: &[Fault]) -> Option<(u64, Self)> {
        faults.iter().find_map(|fault| match fault {
            Fault::SnapshotFails { after_bytes } => Some((*after_bytes, Self::Fails)),
            Fault::SnapshotFillsDisk { after_bytes } => Some((*after_bytes, Self::FillsDisk)),
            Fault::DieInSnapshot { after_bytes } => Some((*after_bytes, Self::Dies)),
            Fault::SnapshotReplyDelayed(_)
            | Fault::SnapshotReplyLost(_)
            | Fault::SnapshotFile { .. }
            | Fault::WrongChecksum
            | Fault::Change(_)
            | Fault::RecoverFailsAtLoad
            | Fault::RecoverPauses(_)
            | Fault::DieInRecover => None,
        })
    }
}

impl Output {
    async fn write(&mut self, bytes: &[u8]) -> Result<(), ApiError> {
        for chunk in bytes.chunks(self.chunk_bytes()) {
            let room = self.stop.map(|(after, _)| after.saturating_sub(self.written));
            let chunk = match room.and_then(|room| usize::try_from(room).ok()) {
                Some(room) if room < chunk.len() => chunk.get(..room).unwrap_or(chunk),
                Some(_) | None => chunk,
            };
            self.file.write_all(chunk)?;
            self.hash.update(chunk);
            self.written = self.written.saturating_add(len_u64(chunk.len()));
            self.pace().await;
            if self.stop.is_some_and(|(after, _)| self.written >= after) {
                self.stop().await?;
            }
        }
        Ok(())
    }

    /// Twenty chunks a second when paced, so that a fault or a poll can fall between them.
    fn chunk_bytes(&self) -> usize {
        self.node
            .settings
            .snapshot_bytes_per_second
            .and_then(|rate| usize::try_from(rate / 20).ok())
            .unwrap_or(1 << 20)
            .clamp(512, 1 << 20)
    }

    async fn pace(&self) {
        match self.node.settings.snapshot_bytes_per_second {
            Some(rate) => {
                let micros = self.written.saturating_mul(1_000_000) / rate.max(1);
                let due = Duration::from_micros(micros);
                tokio::time::sleep(due.saturating_sub(self.began.elapsed())).await;
            }
            None => tokio::task::yield_now().await,
        }
    }

    async fn stop(&mut self) -> Result<(), ApiError> {
        match self.stop.take() {
            None => Ok(()),
            Some((_, Stop::Fails)) => Err(ApiError::service("failed to create snapshot: scripted failure")),
            Some((_, Stop::FillsDisk)) => Err(ApiError::no_space()),
            Some((_, Stop::Dies)) => {
                self.node.die().await;
                Ok(())
            }
        }
    }

    async fn finish(mut self) -> Result<String, ApiError> {
        // An archive that is smaller than the fault's place ends in it all the same.
        self.stop().await?;
        self.file.flush()?;
        Ok(hex::encode(self.hash.finalize()))
    }
}

fn store(temp: &Path, dir: &Path, name: &str, checksum: &str) -> Result<PathBuf, ApiError> {
    fs::create_dir_all(dir)?;
    let target = dir.join(name);
    let unfinished = target.with_extension("tmp");
    let checksum_path = checksum_path(&target);
    let checksum_unfinished = checksum_path.with_extension("tmp");
    fs::write(&checksum_unfinished, checksum)?;
    if fs::rename(temp, &unfinished).is_err() {
        // Another file system: copied, then removed, as there.
        fs::copy(temp, &unfinished)?;
        fs::remove_file(temp)?;
    }
    fs::rename(&unfinished, &target)?;
    fs::rename(&checksum_unfinished, &checksum_path)?;
    Ok(target)
}

fn checksum_path(snapshot: &Path) -> PathBuf {
    let mut name = snapshot.as_os_str().to_owned();
    name.push(".checksum");
    PathBuf::from(name)
}

/// What a create call and a listing say of a file. The time is UTC and does not say so.
fn describe(path: &Path) -> Result<Value, ApiError> {
    let metadata = fs::metadata(path)?;
    let created = jiff::Timestamp::from_second(metadata.mtime())
        .map(|time| time.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%S").to_string())
        .ok();
    let mut described = json!({
        "name": path.file_name().map(|name| name.to_string_lossy()),
        "creation_time": created,
        "size": metadata.size(),
    });
    if let (Ok(checksum), Some(described)) =
        (fs::read_to_string(checksum_path(path)), described.as_object_mut())
    {
        described.insert("checksum".to_owned(), json!(checksum.trim()));
    }
    Ok(described)
}

pub(super) async fn list(ctx: Ctx) -> Handled {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    ok(&listed(&ctx.node.collection_snapshots(&collection.name))?)
}

/// Full-storage snapshots are never made here: the list is of what lies in the directory.
pub(super) async fn list_full(ctx: Ctx) -> Handled {
    ok(&listed(&ctx.node.settings.snapshots_dir)?)
}

fn listed(dir: &Path) -> Result<Vec<Value>, ApiError> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "snapshot") && path.is_file() {
            found.push(describe(&path)?);
        }
    }
    Ok(found)
}

/// The file behind a name, inside the collection's directory and nowhere else.
pub(super) fn locate(ctx: &Ctx) -> Result<PathBuf, ApiError> {
    let collection = ctx.node.collection(&ctx.collection()?)?;
    let name = ctx.param("snapshot_name")?;
    let missing = || ApiError::not_found(format!("Snapshot {name} not found"));
    let dir =
        fs::canonicalize(ctx.node.collection_snapshots(&collection.name)).map_err(|_untold| missing())?;
    let path = fs::canonicalize(dir.join(&name)).map_err(|_untold| missing())?;
    if path.starts_with(&dir) && path.is_file() { Ok(path) } else { Err(missing()) }
}

pub(super) async fn delete(ctx: Ctx) -> Handled {
    let wait = ctx.flag("wait", true)?;
    let deleted = locate(&ctx).and_then(|path| {
        fs::remove_file(&path)?;
        let checksum = checksum_path(&path);
        if checksum.exists() {
            fs::remove_file(checksum)?;
        }
        Ok(true)
    });
    if wait { ok(&deleted?) } else { Ok(Outcome::Accepted) }
}
