//! Reading an archive back: only what the frame index proves reaches a file, and only files that the caller named.

mod check;
mod consistency;
mod fetch;
mod judge;
mod restore;
mod target;

use std::{fmt, sync::Arc, time::Duration};

use protocol::{FailureKind, Manifest, manifest::Archive};
use tokio_util::sync::CancellationToken;

pub use self::{check::check_object, fetch::fetch_index, restore::restore_entries, target::partial_path};
use crate::{
    error::Error,
    progress::Progress,
    retry::RetryPolicy,
    upload::{Geometry, Threads},
};

const NO_BUFFER: Error = Error::Internal { what: "fewer buffers than threads" };
const NOBODY_LEFT: Error = Error::Internal { what: "every thread ended before its work did" };

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
    /// What becomes of files that are not finished; only [`restore_entries`] writes any.
    pub leftovers: Leftovers,
    /// When a file may have its name; only [`restore_entries`] writes any.
    pub durability: Durability,
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
            leftovers: Leftovers::Discard,
            durability: Durability::Synced,
            geometry: Geometry::default(),
            progress: Arc::default(),
            cancel: CancellationToken::new(),
        }
    }
}

/// What becomes of the files of a restore that did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leftovers {
    /// Nothing is left: a restore that fails, or whose future is dropped, removes what it has written, and what a killed one has
    /// left is removed by the next.
    Discard,
    /// The next restore goes on from them: it reads them again and fetches only the frames whose bytes do not have the indexed
    /// hash, so that nothing about them has to be believed. What a restore has written stays when its future is dropped, and when
    /// it fails in a way that another attempt may not ([`FailureKind::StoreUnavailable`], [`FailureKind::DownloadFailed`],
    /// [`FailureKind::Cancelled`]). Any other failure still removes it.
    Resume,
}

impl Leftovers {
    /// Whether what is written stays after a failure of this kind.
    fn stay_after(self, kind: FailureKind) -> bool {
        let again = [FailureKind::StoreUnavailable, FailureKind::DownloadFailed, FailureKind::Cancelled]
            .contains(&kind);
        self == Self::Resume && again
    }
}

/// When a file that is whole may have its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Durability {
    /// When it outlives a loss of power.
    Synced,
    /// When it is written: it goes to whoever reads it next straight out of the page cache, while the disk catches up. After a loss of
    /// power its name may be there and its bytes not, so that it must be judged again before it is used.
    Cached,
}

/// What was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// Bytes of entries that are in files now.
    pub raw_bytes: u64,
    /// How many of them an earlier restore had left, so that they were not fetched.
    pub kept_bytes: u64,
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

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { expected, found } => write!(f, "the object has {found} bytes, not {expected}"),
            Self::Frame { frame, object_offset, entry: Some(entry), offset, what } => {
                write!(f, "frame {frame} at byte {object_offset} (`{entry}` at byte {offset}): {what}")
            }
            Self::Frame { frame, object_offset, entry: None, offset, what } => {
                write!(f, "frame {frame} at byte {object_offset} (tar headers at byte {offset}): {what}")
            }
            Self::SeekTable { what } => write!(f, "seek table: {what}"),
            Self::Sha256 { found } => write!(f, "the object has SHA-256 {found}"),
            Self::Crc64Nvme { found } => write!(f, "the object has CRC-64/NVME {found}"),
        }
    }
}
