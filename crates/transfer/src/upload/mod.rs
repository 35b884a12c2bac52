//! Packing and storing an archive in one pass: planned from sizes, parallel, hashed on the way, nothing staged on disk.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use protocol::manifest::ArchiveEntry;
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    frame::Level,
    index::FrameIndex,
    layout::{EntrySpec, FRAME_RAW_MAX},
    progress::Progress,
    retry::RetryPolicy,
    store::MultipartStore,
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
    let _all = (store, key, sources, options);
    unimplemented!()
}
