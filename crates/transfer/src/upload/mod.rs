//! Packing and storing an archive in one pass: planned from sizes, parallel, hashed on the way, nothing staged on disk.

mod assemble;
mod crew;
mod drive;
mod finish;
mod pack;
mod plan;
mod source;

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use protocol::manifest::{Archive, ArchiveEntry};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use self::plan::{archive_costs, thread_count};
use self::{
    drive::{Moved, transfer},
    finish::{Unfinished, finish},
    plan::Plan,
    source::Sources,
};
use crate::{
    download::{ArchiveRef, ReadOptions, check_object},
    error::Error,
    frame::Level,
    index::FrameIndex,
    layout::{EntrySpec, FRAME_RAW_MAX, Layout},
    progress::{Phase, Progress},
    retry::{Attempts, RetryPolicy},
    store::{MultipartStore, StoreErrorKind, UploadRef, Whole},
};

/// How long a failed upload may take to be aborted before that is left to the bucket's lifecycle.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);

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
    /// How many parts were in flight at most.
    pub concurrency: u32,
    /// Whether the object was read back because the store has no checksum of it.
    pub read_back: bool,
    /// How long it took.
    pub duration: Duration,
}

/// Packs `sources` in their order and stores the archive as `key`.
///
/// The object exists only if everything was compared: each source with its checksum, each part and the whole with what
/// the store computed. When it fails, the multipart upload is aborted as far as the store lets it be.
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
    let layout = Arc::new(layout);
    let sources = Arc::new(Sources::prepare(sources)?);
    options.progress.begin(layout.raw_len());
    tracing::debug!(key, ?plan, frames = layout.frame_count(), "the upload is planned");

    let upload = start(store, key, &options).await?;
    let moved = transfer(store, &upload, &layout, &sources, &plan, &options).await;
    let Moved { parts, object, digests } = match moved {
        Ok(moved) => moved,
        Err(error) => {
            abort(store, &upload, &options).await;
            return Err(error);
        }
    };
    options.progress.enter(Phase::Completing);
    let part_count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    let whole = Whole { size: object.size, crc64nvme: object.crc64nvme, checked_by_store: true };
    let info = match finish(store, &upload, parts, whole, &options).await {
        Ok(info) => info,
        Err(Unfinished { error, abort: doomed }) => {
            if doomed {
                abort(store, &upload, &options).await;
            } else {
                tracing::warn!(key, "the upload is not aborted, since the store may still complete it");
            }
            return Err(error);
        }
    };
    let mut uploaded = Uploaded {
        size_bytes: object.size,
        sha256: hex::encode(object.sha256),
        crc64nvme: object.crc64nvme.to_string(),
        version_id: info.version_id,
        etag: info.etag,
        index: object.index,
        entries: entries(&layout, &digests),
        raw_bytes: layout.raw_len(),
        part_size: plan.part_size,
        parts: part_count,
        concurrency: u32::try_from(plan.concurrency).unwrap_or(u32::MAX),
        read_back: false,
        duration: Duration::ZERO,
    };
    if info.crc64nvme.is_none() {
        read_back(store, key, &uploaded, &options).await?;
        uploaded.read_back = true;
    }
    options.progress.enter(Phase::Done);
    uploaded.duration = started.elapsed();
    Ok(uploaded)
}

/// Starts the upload. Whatever comes of it, no other upload of the key is left, also where the store's answer was lost.
async fn start<S: MultipartStore>(store: &S, key: &str, options: &UploadOptions) -> Result<UploadRef, Error> {
    let mut attempts = Attempts::new(options.retry, &options.progress, format!("start the upload of {key}"));
    let creating = async {
        loop {
            match store.create(key, &options.metadata).await {
                Ok(upload) => return Ok(upload),
                Err(error) if attempts.again(&error).await => {}
                Err(source) => return Err(source),
            }
        }
    };
    let created = options.cancel.run_until_cancelled(creating).await;
    let (upload, unanswered) = match created {
        Some(Ok(upload)) => (Ok(upload), attempts.failed() > 0),
        Some(Err(source)) => {
            let unanswered = attempts.failed() > 1 || source.kind.is_transient();
            (Err(Error::Create { key: key.to_owned(), source }), unanswered)
        }
        None => (Err(Error::Cancelled), true),
    };
    if unanswered {
        abort_strays(store, key, upload.as_ref().ok(), options).await;
    }
    upload
}

/// Aborts the uploads of `key` but `ours`: those whose start was not answered. They would be kept, and paid for, until the
/// bucket's lifecycle drops them.
async fn abort_strays<S: MultipartStore>(
    store: &S,
    key: &str,
    ours: Option<&UploadRef>,
    options: &UploadOptions,
) {
    let mut attempts = Attempts::new(options.retry, &options.progress, format!("list the uploads of {key}"));
    let listing = async {
        loop {
            match store.list_uploads(key).await {
                Ok(pending) => return Ok(pending),
                Err(error) if attempts.again(&error).await => {}
                Err(error) => return Err(error),
            }
        }
    };
    let pending = match tokio::time::timeout(ABORT_TIMEOUT, listing).await {
        Ok(Ok(pending)) => pending,
        Ok(Err(error)) => {
            tracing::warn!(key, %error, "cannot look for uploads whose start was not answered");
            return;
        }
        Err(_) => {
            tracing::warn!(key, "looking for uploads whose start was not answered takes too long");
            return;
        }
    };
    for stray in pending.into_iter().map(|pending| pending.upload) {
        if stray.key == key && Some(&stray) != ours {
            abort(store, &stray, options).await;
        }
    }
}

/// Aborts an upload, more than once if need be, within a time limit.
async fn abort<S: MultipartStore>(store: &S, upload: &UploadRef, options: &UploadOptions) {
    let mut attempts = Attempts::new(options.retry, &options.progress, format!("abort {}", upload.key));
    let aborting = async {
        loop {
            match store.abort(upload).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind == StoreErrorKind::NoSuchUpload => return Ok(()),
                Err(error) if attempts.again(&error).await => {}
                Err(error) => return Err(error),
            }
        }
    };
    match tokio::time::timeout(ABORT_TIMEOUT, aborting).await {
        Ok(Ok(())) => tracing::info!(key = upload.key, "the upload is aborted"),
        Ok(Err(error)) => {
            tracing::warn!(key = upload.key, %error, "the upload cannot be aborted and keeps its parts")
        }
        Err(_) => tracing::warn!(key = upload.key, "aborting the upload takes too long; it keeps its parts"),
    }
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

fn entries(layout: &Layout, digests: &[[u8; 32]]) -> Vec<ArchiveEntry> {
    let entry = |(number, digest): (usize, &[u8; 32])| {
        let location = layout.entry_location(number);
        ArchiveEntry {
            name: layout.name(number).to_owned(),
            size: location.size,
            sha256: hex::encode(digest),
            first_frame: location.first_frame,
            raw_offset: location.raw_offset,
        }
    };
    digests.iter().enumerate().map(entry).collect()
}
