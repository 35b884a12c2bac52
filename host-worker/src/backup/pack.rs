//! From snapshots on the disk to an archive in the bucket, its side files, and the manifest that names them.

use std::path::PathBuf;

use jiff::Timestamp;
use protocol::{
    CollectionName, GoldenSet, Manifest, ProofLevel, SuccessMarker, golden,
    id::AttemptId,
    key::{ArchiveKey, BACKUP_JSON, SnapshotEntry},
    manifest::{self, Archive, BackupDescription, CollectionRecord, QdrantServer, Tool},
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tracing::{info, warn};
use transfer::{Content, EntrySpec, Level, Source, Threads, UploadOptions, Uploaded};
use uuid::Uuid;

use super::{
    capture::Captured,
    order::Order,
    run::Started,
    unfinished::{Prepared, Request, SnapshotFile},
    waiting::Waiting,
};
use crate::{
    bandwidth::BandwidthLimit,
    error::Error,
    governor::{Bounds, Governor, LatencyReport, Probe},
    limits::{Limits, Wish},
    origin,
    progress::Phases,
    pulse::Phase,
    session::Session,
    verify::{self, GOLDEN_MAX_BYTES, store_proof},
};

/// The object metadata that says whose archive it is.
const BACKUP_ID_METADATA: &str = "backup-id";

/// A stored backup that nobody knows of yet.
pub(super) struct Packed {
    pub(super) manifest: Manifest,
    /// Whether the store keeps no checksum of it, and every byte was read back instead.
    pub(super) read_back: bool,
    /// How the archive was moved; absent when an earlier run had done that.
    pub(super) moved: Option<Moved>,
}

/// How an archive was moved.
#[derive(Debug, Serialize)]
pub struct Moved {
    /// How much was done at once, and what kept it from being faster.
    pub limits: Limits,
    /// What became of searches meanwhile, if they were to be protected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyReport>,
    /// Parts that an interrupted backup had stored before.
    pub resumed_parts: u32,
}

impl Moved {
    /// Lines for people, each with a line break before it.
    pub(super) fn render(&self) -> String {
        let mut lines = format!("\n  limits     {}", self.limits);
        if let Some(latency) = &self.latency {
            lines += &format!("\n  latency    {latency}");
        }
        if self.resumed_parts > 0 {
            lines +=
                &format!("\n  resumed    {} parts were stored by an interrupted backup", self.resumed_parts);
        }
        lines
    }
}

/// All that is needed to store what was captured.
pub(super) fn prepare(
    session: &Session,
    request: Request,
    started: &Started,
    version: String,
    captured: &Captured,
    marker: Option<SuccessMarker>,
) -> Result<Prepared, Error> {
    let attempt = AttemptId::from_bits(Uuid::new_v4().as_fields().0);
    let key = session.config.layout().archive(started.id, attempt);
    let golden = compressed_golden(started, captured)?;
    let description = describe(session, &request, started, version, captured, marker)?;
    let snapshots = captured
        .snapshots
        .iter()
        .map(|snapshot| SnapshotFile::new(snapshot.path.clone(), snapshot.size, &snapshot.sha256))
        .collect();
    Ok(Prepared::new(request, key, description, snapshots, golden))
}

/// Stores the archive and what goes beside it, or what is missing of that.
pub(super) async fn store(
    session: &Session,
    order: &Order,
    prepared: &Prepared,
    journal: PathBuf,
    phases: &mut Phases,
) -> Result<Packed, Error> {
    if let Some(manifest) = stored_before(session, prepared) {
        // That it was read back, where it had to be, the proof beside it says.
        return Ok(Packed { manifest, read_back: false, moved: None });
    }
    let Prepared { key, description, golden, .. } = prepared;
    phases.enter(Phase::Upload);
    let limits = limits(session, order, prepared)?;
    phases.tell(&limits.to_string());
    let (objects, rate) = session.limited(order.bandwidth_limit);
    let governor = governor(session, order, &limits, prepared, phases).await?;
    let mut options = UploadOptions::new(limits.budget);
    options.concurrency = Some(limits.wanted);
    options.threads = Threads::Count(limits.packers);
    options.level = order.level.map_or(Level::Auto, Level::Fixed);
    options.metadata = vec![(BACKUP_ID_METADATA.to_owned(), prepared.id().to_string())];
    options.journal = Some(journal);
    options.cancel = session.cancel.clone();
    let progress = options.progress.clone();
    let object = key.to_string();
    let upload = phases.follow(&progress, transfer::upload(&objects, &object, sources(prepared)?, options));
    let (uploaded, latency) = match governor {
        Some(governor) => governor.during(&rate, upload).await,
        None => (upload.await, None),
    };
    let uploaded = uploaded?;
    info!(
        key = object,
        bytes = uploaded.size_bytes,
        parts = uploaded.parts,
        resumed = uploaded.resumed_parts,
        retries = progress.retries(),
        "archive stored"
    );

    phases.enter(Phase::SideFiles);
    let catalog = &session.catalog;
    let sha256_line = format!("{}  {}\n", uploaded.sha256, key.file_name());
    catalog.put_side_file(&key.sha256(), sha256_line.into_bytes()).await?;
    catalog.put_side_file(&key.frames(), uploaded.index.to_json_zst()).await?;
    catalog.put_side_file(&key.golden(), golden.clone()).await?;

    let read_back = uploaded.read_back;
    if read_back {
        // For whoever publishes it later: the store has no checksum to compare, and this stands in for it.
        store_proof(session, prepared.id(), ProofLevel::ReRead, Timestamp::now()).await;
    }
    let manifest = manifest(session, key.clone(), description.clone(), &uploaded, golden, phases);
    let moved = Some(Moved { limits, latency, resumed_parts: uploaded.resumed_parts });
    Ok(Packed { manifest, read_back, moved })
}

/// The manifest of a backup that an earlier run has stored and could not publish.
fn stored_before(session: &Session, prepared: &Prepared) -> Option<Manifest> {
    let Waiting { manifest, .. } = Waiting::read(&session.config.work_dir(), prepared.id()).ok()??;
    (manifest.key == prepared.key).then_some(manifest)
}

fn limits(session: &Session, order: &Order, prepared: &Prepared) -> Result<Limits, Error> {
    let wish = Wish {
        raw_bytes: prepared.snapshots.iter().map(|snapshot| snapshot.size).sum(),
        concurrency: order.concurrency,
        bandwidth_limit: order.bandwidth_limit,
    };
    Limits::of(&session.config, wish)
}

/// Looks at searches before anything moves, if they are to be protected.
async fn governor(
    session: &Session,
    order: &Order,
    limits: &Limits,
    prepared: &Prepared,
    phases: &Phases,
) -> Result<Option<Governor>, Error> {
    let Some(target) = order.protect_latency else { return Ok(None) };
    let golden = verify::unpack_golden(&prepared.golden)
        .map_err(|source| Error::GoldenUnreadable { key: prepared.key.golden(), source })?;
    let points = |name: &CollectionName| {
        prepared.description.collections.iter().find(|record| record.name == *name).map(|it| it.points_after)
    };
    let collections = golden.collections.iter().filter_map(|golden| Some((golden, points(&golden.name)?)));
    let Some(probe) = Probe::of(&session.config, collections)? else {
        warn!("--protect-latency: there is no point to search by, so that the upload is not slowed down");
        return Ok(None);
    };
    phases.detail("measuring searches");
    let bounds = Bounds {
        limit: order.bandwidth_limit.map(BandwidthLimit::bytes_per_second),
        allowed: limits.allowed,
    };
    session.unless_cancelled(Governor::measure(target, probe, bounds)).await.map(Some)
}

/// The snapshots verbatim, in the manifest's order, then the description.
fn sources(prepared: &Prepared) -> Result<Vec<Source>, Error> {
    let Prepared { description, snapshots, .. } = prepared;
    let mut sources = Vec::with_capacity(snapshots.len() + 1);
    for (snapshot, record) in snapshots.iter().zip(&description.collections) {
        sources.push(Source {
            entry: EntrySpec { name: record.entry.clone(), size: snapshot.size },
            content: Content::File(snapshot.path.clone()),
            expected_sha256: Some(digest(&snapshot.sha256)?),
        });
    }
    let bytes = description.to_json();
    sources.push(Source {
        entry: EntrySpec { name: BACKUP_JSON.to_owned(), size: bytes.len() as u64 },
        content: Content::Bytes(bytes.into()),
        expected_sha256: None,
    });
    Ok(sources)
}

fn digest(checksum: &str) -> Result<[u8; 32], Error> {
    let mut bytes = [0; 32];
    hex::decode_to_slice(checksum, &mut bytes)
        .map_err(|source| Error::Setting { name: "the snapshot's checksum", source: Box::new(source) })?;
    Ok(bytes)
}

fn describe(
    session: &Session,
    request: &Request,
    started: &Started,
    version: String,
    captured: &Captured,
    indexing: Option<SuccessMarker>,
) -> Result<BackupDescription, Error> {
    let mut collections = Vec::with_capacity(captured.snapshots.len());
    for snapshot in &captured.snapshots {
        let name = &snapshot.collection;
        let entry = SnapshotEntry::new(name.clone(), &snapshot.name)
            .map_err(|source| Error::Setting { name: "the snapshot's name", source: Box::new(source) })?;
        let (before, after) = (&captured.before.collections[name], &captured.after.collections[name]);
        collections.push(CollectionRecord {
            name: name.clone(),
            snapshot: snapshot.name.clone(),
            entry: entry.to_string(),
            size_bytes: snapshot.size,
            sha256: snapshot.sha256.to_string(),
            points_before: before.count,
            points_after: after.count,
            written_during_backup: captured.written.contains(name),
            config: before.config.clone(),
            payload_schema: before.payload_schema.clone(),
            golden: captured.golden[name].summary(),
        });
    }
    Ok(BackupDescription {
        format_version: manifest::FORMAT_VERSION,
        backup_id: started.id,
        created_at: started.at,
        qdrant: QdrantServer { version, image: session.config.qdrant_image().map(str::to_owned) },
        collections,
        aliases: captured.after.aliases.clone(),
        quiesced: captured.written.is_empty(),
        indexing,
        origin: origin::read(&session.config.work_dir())?,
        partial: request.is_partial(),
        tool: tool(),
    })
}

fn compressed_golden(started: &Started, captured: &Captured) -> Result<Vec<u8>, Error> {
    let set = GoldenSet {
        format_version: golden::FORMAT_VERSION,
        backup_id: started.id,
        aliases: captured.after.aliases.clone(),
        collections: captured.golden.values().cloned().collect(),
    };
    let bytes = zstd::bulk::compress(&set.to_json(), 3)
        .map_err(|source| Error::Local { what: "compress the golden set".to_owned(), source })?;
    let (size, limit) = (bytes.len() as u64, GOLDEN_MAX_BYTES);
    if size > limit {
        return Err(Error::Request {
            problem: format!("the golden set has {size} bytes, and at most {limit} are read back"),
            hint: "back up fewer collections at once with --collection".to_owned(),
        });
    }
    Ok(bytes)
}

fn manifest(
    session: &Session,
    key: ArchiveKey,
    description: BackupDescription,
    uploaded: &Uploaded,
    golden: &[u8],
    phases: &Phases,
) -> Manifest {
    let snapshots_dir =
        session.config.snapshots_dir().map(|dir| dir.host.display().to_string()).unwrap_or_default();
    Manifest {
        backup_and_restore_path: session.config.data_dir().display().to_string(),
        latest_snapshot: key.file_name(),
        latest_snapshot_from_path: snapshots_dir,
        latest_snapshot_to_path: format!("s3://{}/{key}", session.catalog.bucket()),
        latest_snapshot_size_in_mb: (uploaded.size_bytes as f64 / 1e3).round() / 1e3,
        multipart_upload_concurrency: uploaded.concurrency,
        latest_snapshot_upload_duration_in_seconds: (uploaded.duration.as_secs_f64() * 1e3).round() / 1e3,
        format_version: description.format_version,
        backup_id: description.backup_id,
        created_at: description.created_at,
        key,
        size_bytes: uploaded.size_bytes,
        sha256: uploaded.sha256.clone(),
        crc64nvme: uploaded.crc64nvme.clone(),
        version_id: uploaded.version_id.clone(),
        archive: Archive {
            raw_bytes: uploaded.raw_bytes,
            frame_count: uploaded.index.frames.len() as u64,
            frames_root: uploaded.index.root_hex(),
            golden_sha256: hex::encode(Sha256::digest(golden)),
            entries: uploaded.entries.clone(),
        },
        qdrant: description.qdrant,
        collections: description.collections,
        aliases: description.aliases,
        quiesced: description.quiesced,
        indexing: description.indexing,
        origin: description.origin,
        partial: description.partial,
        timings: phases.timings(),
        tool: description.tool,
        previous: None,
    }
}

/// This program, as it signs what it writes.
pub(crate) fn tool() -> Tool {
    Tool { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}
