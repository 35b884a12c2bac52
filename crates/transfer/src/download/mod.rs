//! Reading an archive back: only what the frame index proves reaches a file, and only files that the caller named.

use std::{path::PathBuf, sync::Arc, time::Duration};

use protocol::{Manifest, manifest::Archive};
use tokio_util::sync::CancellationToken;

use crate::{
    error::Error,
    index::FrameIndex,
    progress::Progress,
    retry::RetryPolicy,
    store::MultipartStore,
    upload::{Geometry, Threads},
};

/// What a manifest says about the archive to read.
#[derive(Clone, Copy, Debug)]
pub struct ArchiveRef<'a> {
    /// Its key.
    pub key: &'a str,
    /// Its version; the current one where not given.
    pub version_id: Option<&'a str>,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the object, 64 lower-case hexadecimal digits.
    pub sha256: &'a str,
    /// CRC-64/NVME of the object, as S3 writes it.
    pub crc64nvme: &'a str,
    /// Its frames and entries.
    pub archive: &'a Archive,
}

impl<'a> ArchiveRef<'a> {
    /// The archive of `manifest`, whose key as text is `key`.
    pub fn of(manifest: &'a Manifest, key: &'a str) -> Self {
        Self {
            key,
            version_id: manifest.version_id.as_deref(),
            size_bytes: manifest.size_bytes,
            sha256: &manifest.sha256,
            crc64nvme: &manifest.crc64nvme,
            archive: &manifest.archive,
        }
    }
}

/// How an archive is read.
#[derive(Clone, Debug)]
pub struct ReadOptions {
    /// The most bytes that buffers may take.
    pub memory_budget_bytes: u64,
    /// Requests in flight at most; [`crate::upload::DEFAULT_CONCURRENCY`] where not given.
    pub concurrency: Option<usize>,
    /// Who decodes and writes.
    pub threads: Threads,
    /// How failed calls are tried again.
    pub retry: RetryPolicy,
    /// Sizes that only tests change.
    pub geometry: Geometry,
    /// Counters for whoever watches.
    pub progress: Arc<Progress>,
    /// Stops it.
    pub cancel: CancellationToken,
}

impl ReadOptions {
    /// The options that reading production data has, with a memory budget.
    pub fn new(memory_budget_bytes: u64) -> Self {
        Self {
            memory_budget_bytes,
            concurrency: None,
            threads: Threads::PerCore,
            retry: RetryPolicy::STANDARD,
            geometry: Geometry::default(),
            progress: Arc::default(),
            cancel: CancellationToken::new(),
        }
    }
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Bytes of entries that are in files now.
    pub raw_bytes: u64,
    /// Bytes of the object that were read.
    pub object_bytes: u64,
    /// How long it took.
    pub duration: Duration,
}

/// What reading a whole object found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Frames that were decoded and have the indexed hash.
    pub frames_good: u64,
    /// Frames that should be there.
    pub frames_total: u64,
    /// Bytes of the object that were read.
    pub object_bytes: u64,
    /// What is wrong, in the order of the object; at most [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// How many findings are left out.
    pub more: u64,
    /// How long it took.
    pub duration: Duration,
}

/// The most findings that [`check_object`] lists.
pub const MAX_FINDINGS: usize = 100;

impl Check {
    /// Whether nothing is wrong.
    pub fn is_whole(&self) -> bool {
        self.findings.is_empty() && self.more == 0
    }
}

/// Something that is wrong with a stored archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The object is shorter or longer than recorded.
    Size {
        /// The recorded size in bytes.
        expected: u64,
        /// The size that it has in bytes.
        found: u64,
    },
    /// A frame is not what the index says.
    Frame {
        /// Its number, from 0.
        frame: u64,
        /// Where it starts in the object, in bytes.
        object_offset: u64,
        /// The name of the entry whose data it holds; `None` for tar headers.
        entry: Option<String>,
        /// Where it starts in the entry's data (in the tar stream, for headers), in bytes.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The seek table is not that of the frames.
    SeekTable {
        /// What is wrong.
        what: String,
    },
    /// The whole object does not have the recorded SHA-256.
    Sha256 {
        /// What it has, in hexadecimal.
        found: String,
    },
    /// The whole object does not have the recorded CRC-64/NVME.
    Crc64Nvme {
        /// What it has, as S3 writes it.
        found: String,
    },
}

/// Reads the frame index stored as `key`, and compares it with the root in `archive`.
pub async fn fetch_index<S: MultipartStore>(
    store: &S,
    key: &str,
    archive: &Archive,
    options: &ReadOptions,
) -> Result<FrameIndex, Error> {
    let _all = (store, key, archive, options);
    unimplemented!()
}

/// Writes entries of an archive to files that are not there yet.
///
/// `wanted` gives the place of an entry in `archive.archive.entries` and the file for it; paths never come from the archive.
/// Each file appears under its name when it is whole and synced; until then it is `<file>.partial`, and on any error
/// neither is left.
pub async fn restore_entries<S: MultipartStore>(
    store: &S,
    archive: ArchiveRef<'_>,
    index: &FrameIndex,
    wanted: &[(usize, PathBuf)],
    options: ReadOptions,
) -> Result<Restored, Error> {
    let _all = (store, archive, index, wanted, options);
    unimplemented!()
}

/// Reads a whole object and compares everything that is known of it: every frame, the seek table, SHA-256, CRC-64/NVME.
pub async fn check_object<S: MultipartStore>(
    store: &S,
    archive: ArchiveRef<'_>,
    index: &FrameIndex,
    options: ReadOptions,
) -> Result<Check, Error> {
    let _all = (store, archive, index, options);
    unimplemented!()
}
