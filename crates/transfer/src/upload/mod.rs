//! Packing and storing an archive in one pass: planned from sizes, parallel, hashed on the way, nothing staged on disk.

mod assemble;
mod begin;
mod checkpoint;
mod crew;
mod drive;
mod finish;
mod journal;
mod ledger;
mod pack;
mod plan;
mod put_away;
mod source;

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use protocol::manifest::{Archive, ArchiveEntry};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::plan::{archive_costs, thread_count};
pub use self::put_away::abandon;
use self::{
    assemble::Assembled,
    begin::{Beginning, Begun, Found, begin, identity},
    drive::{Moved, transfer},
    finish::{Unfinished, finish},
    journal::{Record, Sealed, millis},
    pack::{Work, settle_empty},
    plan::Plan,
    put_away::abort,
    source::Sources,
};
use crate::{
    download::{ArchiveRef, Durability, Leftovers, ReadOptions, check_object},
    error::Error,
    frame::Level,
    index::FrameIndex,
    layout::{EntrySpec, FRAME_RAW_MAX, Layout},
    progress::{Phase, Progress},
    retry::RetryPolicy,
    store::{MultipartStore, ObjectInfo, Whole},
};

/// An entry and where its bytes come from.
#[derive(Clone, Debug)]
pub struct Source {
    /// The entry.
    pub entry: EntrySpec,
    /// Its bytes.
    pub content: Content,
    /// SHA-256 that the bytes must have. Compared before the upload is completed.
    pub expected_sha256: Option<[u8; 32]>,
}

/// Where the bytes of an entry come from.
#[derive(Clone, Debug)]
pub enum Content {
    /// A regular file of the entry's size that nobody changes meanwhile.
    File(PathBuf),
    /// Bytes in memory. They are not counted against the budget.
    Bytes(Bytes),
}

/// How an upload is done.
#[derive(Clone, Debug)]
pub struct UploadOptions {
    /// The most bytes that buffers may take.
    pub memory_budget_bytes: u64,
    /// Parts in flight at most; [`DEFAULT_CONCURRENCY`] where not given. Fewer if the budget does not hold as many.
    pub concurrency: Option<usize>,
    /// Who compresses.
    pub threads: Threads,
    /// How hard to compress.
    pub level: Level,
    /// The object's metadata, such as the backup's id. It also tells this upload's object from another's.
    pub metadata: Vec<(String, String)>,
    /// How failed calls are tried again.
    pub retry: RetryPolicy,
    /// A file on the disk of the sources that lets another process go on with the upload when this one is killed, stopped or cut off
    /// from the store. An upload that it tells of and that is of another key is aborted. Whoever gets the upload's result removes it, once
    /// that cannot be lost any more. Without one, an upload that does not succeed is aborted.
    pub journal: Option<PathBuf>,
    /// Sizes that only tests change.
    pub geometry: Geometry,
    /// Counters for whoever watches.
    pub progress: Arc<Progress>,
    /// Stops the upload.
    pub cancel: CancellationToken,
}

impl UploadOptions {
    /// The options that an upload of production data has, with a memory budget.
    pub fn new(memory_budget_bytes: u64) -> Self {
        Self {
            memory_budget_bytes,
            concurrency: None,
            threads: Threads::PerCore,
            level: Level::Auto,
            metadata: Vec::new(),
            retry: RetryPolicy::STANDARD,
            journal: None,
            geometry: Geometry::default(),
            progress: Arc::default(),
            cancel: CancellationToken::new(),
        }
    }
}

/// Requests in flight where the caller does not say: enough for 1.4 GB/s at the 90 MB/s that one request moves.
pub const DEFAULT_CONCURRENCY: usize = 16;

/// Who does the work on frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threads {
    /// One thread per available core.
    PerCore,
    /// This many threads, at least one.
    Count(usize),
    /// The task that calls, in between its requests. For simulations on a paused clock, with tiny archives.
    Inline,
}

/// Sizes that are part of the format or follow from the store's limits. Only tests change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// The most bytes of the tar stream in one frame.
    pub frame_raw_max: u32,
    /// The size of a part in bytes, instead of 16 MiB or what 9,000 parts need.
    pub part_size: Option<u64>,
    /// About how many bytes one request reads.
    pub range_size: u64,
}

impl Default for Geometry {
    fn default() -> Self {
        Self { frame_raw_max: FRAME_RAW_MAX, part_size: None, range_size: 16 << 20 }
    }
}

/// A stored archive, and all that a manifest says about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Uploaded {
    /// The object's size in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the object, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// CRC-64/NVME of the object, as S3 writes it.
    pub crc64nvme: String,
    /// The object's version, where the bucket has versions.
    pub version_id: Option<String>,
    /// The object's tag.
    pub etag: Option<String>,
    /// The frames.
    pub index: FrameIndex,
    /// The entries, as the manifest lists them.
    pub entries: Vec<ArchiveEntry>,
    /// Bytes of the tar stream.
    pub raw_bytes: u64,
    /// The size of each part but the last, in bytes.
    pub part_size: u64,
    /// How many parts there are.
    pub parts: u32,
    /// How many of them an earlier run had stored.
    pub resumed_parts: u32,
    /// How many parts were in flight at most.
    pub concurrency: u32,
    /// Whether the object was read back because the store has no checksum of it.
    pub read_back: bool,
    /// How long it took, all runs together, without the time between them.
    pub duration: Duration,
}

/// Packs `sources` in their order and stores the archive as `key`.
///
/// The object exists only if everything was compared: each source with its checksum, each part and the whole with what
/// the store computed. When it fails for good, the multipart upload is aborted as far as the store lets it be; when another
/// run can go on with it ([`Error::is_resumable`]) and there is a journal, it stays.
pub async fn upload<S: MultipartStore>(
    store: &S,
    key: &str,
    sources: Vec<Source>,
    options: UploadOptions,
) -> Result<Uploaded, Error> {
    let started = Instant::now();
    let specs: Vec<EntrySpec> = sources.iter().map(|source| source.entry.clone()).collect();
    let layout = Layout::with_frame_max(&specs, options.geometry.frame_raw_max)
        .map_err(|source| Error::Plan { key: key.to_owned(), source })?;
    let plan = Plan::new(&layout, &options)?;
    let work = Work {
        key: key.into(),
        sources: Arc::new(Sources::prepare(sources)?),
        layout: Arc::new(layout),
        progress: Arc::clone(&options.progress),
    };
    let layout = &work.layout;
    options.progress.begin(layout.raw_len());
    tracing::debug!(key, ?plan, frames = layout.frame_count(), "the upload is planned");

    let identity = identity(key, layout, &work.sources, &plan, &options);
    let stored = match begin(store, identity, &options).await? {
        Beginning::Object(mut found) => {
            settle_empty(&work, &mut found.digests)?;
            Stored::from(*found)
        }
        Beginning::Upload(begun) => store_all(store, *begun, &work, &plan, &options, started).await?,
    };
    let Stored { info, object, digests, parts, resumed, spent } = stored;
    let mut uploaded = Uploaded {
        size_bytes: object.size,
        sha256: hex::encode(object.sha256),
        crc64nvme: object.crc64nvme.to_string(),
        version_id: info.version_id,
        etag: info.etag,
        index: object.index,
        entries: entries(layout, &digests)?,
        raw_bytes: layout.raw_len(),
        part_size: plan.part_size,
        parts,
        resumed_parts: resumed,
        concurrency: u32::try_from(plan.concurrency).unwrap_or(u32::MAX),
        read_back: false,
        duration: Duration::ZERO,
    };
    if info.crc64nvme.is_none() {
        read_back(store, key, &uploaded, &options).await?;
        uploaded.read_back = true;
    }
    options.progress.enter(Phase::Done);
    uploaded.duration = spent + started.elapsed();
    Ok(uploaded)
}

/// The object, as the store has it.
struct Stored {
    info: ObjectInfo,
    object: Assembled,
    digests: Vec<Option<[u8; 32]>>,
    parts: u32,
    resumed: u32,
    spent: Duration,
}

impl From<Found> for Stored {
    fn from(found: Found) -> Self {
        let Found { info, object, digests, parts, spent } = found;
        Self { info, object, digests, parts, resumed: parts, spent }
    }
}

/// Moves all that is not stored yet and has the object made. Leaves an upload that can be gone on with, or none.
async fn store_all<S: MultipartStore>(
    store: &S,
    mut begun: Begun,
    work: &Work,
    plan: &Plan,
    options: &UploadOptions,
    started: Instant,
) -> Result<Stored, Error> {
    let stored = match transfer(store, &mut begun, work, plan, options).await {
        Ok(moved) => complete(store, &mut begun, moved, options, started).await,
        Err(error) => Err(Unfinished { error, abort: true }),
    };
    let Begun { upload, journal, .. } = begun;
    match stored {
        Ok(stored) => Ok(stored),
        Err(Unfinished { error, abort: false }) => {
            tracing::warn!(
                key = upload.key,
                "the upload is not aborted, since the store may still complete it"
            );
            Err(error)
        }
        Err(Unfinished { error, .. }) if journal.is_some() && error.is_resumable() => {
            tracing::info!(key = upload.key, "the upload is interrupted and can be resumed");
            Err(error)
        }
        Err(Unfinished { error, .. }) => {
            let gone = abort(store, &upload, options).await;
            if let Some(journal) = journal.filter(|_| gone) {
                journal.remove();
            }
            Err(error)
        }
    }
}

async fn complete<S: MultipartStore>(
    store: &S,
    begun: &mut Begun,
    moved: Moved,
    options: &UploadOptions,
    started: Instant,
) -> Result<Stored, Unfinished> {
    let Moved { parts, object, digests, resumed } = moved;
    options.progress.enter(Phase::Completing);
    if let Some(journal) = &mut begun.journal {
        journal.append_durably(&Record::Sealed(Sealed {
            size: object.size,
            sha256: hex::encode(object.sha256),
            crc64nvme: object.crc64nvme.to_string(),
            elapsed_ms: millis(begun.spent + started.elapsed()),
        }));
    }
    let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    let whole = Whole { size: object.size, crc64nvme: object.crc64nvme, checked_by_store: true };
    let info = finish(store, &begun.upload, parts, whole, begun.asked, options).await?;
    Ok(Stored { info, object, digests, parts: count, resumed, spent: begun.spent })
}

/// Reads the object back and compares it byte for byte with what was sent.
async fn read_back<S: MultipartStore>(
    store: &S,
    key: &str,
    uploaded: &Uploaded,
    options: &UploadOptions,
) -> Result<(), Error> {
    options.progress.enter(Phase::ReadingBack);
    let archive = Archive {
        raw_bytes: uploaded.raw_bytes,
        frame_count: uploaded.index.frames.len() as u64,
        frames_root: uploaded.index.root_hex(),
        golden_sha256: String::new(),
        entries: uploaded.entries.clone(),
    };
    let archive = ArchiveRef {
        key,
        version_id: uploaded.version_id.as_deref(),
        size_bytes: uploaded.size_bytes,
        sha256: &uploaded.sha256,
        crc64nvme: &uploaded.crc64nvme,
        archive: &archive,
    };
    let options = ReadOptions {
        memory_budget_bytes: options.memory_budget_bytes,
        concurrency: options.concurrency,
        threads: options.threads,
        retry: options.retry,
        leftovers: Leftovers::Discard,
        durability: Durability::Synced,
        geometry: options.geometry,
        // The counters are those of the upload, which has moved everything already.
        progress: Arc::default(),
        cancel: options.cancel.clone(),
    };
    let check = check_object(store, archive, &uploaded.index, options).await?;
    match check.findings.first() {
        Some(finding) => Err(Error::ObjectDiffers { key: key.to_owned(), what: finding.to_string() }),
        None => Ok(()),
    }
}

/// The entries as a manifest lists them.
fn entries(layout: &Layout, digests: &[Option<[u8; 32]>]) -> Result<Vec<ArchiveEntry>, Error> {
    let entry = |(number, digest): (usize, &Option<[u8; 32]>)| {
        let location = layout.entry_location(number);
        Ok(ArchiveEntry {
            name: layout.name(number).to_owned(),
            size: location.size,
            sha256: hex::encode(
                digest.ok_or(Error::Internal { what: "an entry was stored, but not hashed" })?,
            ),
            first_frame: location.first_frame,
            raw_offset: location.raw_offset,
        })
    };
    digests.iter().enumerate().map(entry).collect()
}
