//! The port to the object store: exactly the calls that a transfer makes.
//!
//! [`S3`] is the real one. With the feature `test-support` there is also an in-memory store whose faults are scripted
//! and whose calls are recorded, and a conformance suite that every implementation has to pass.

use std::{
    error::Error as StdError,
    fmt,
    future::Future,
    ops::Range,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;

#[cfg(feature = "test-support")]
pub mod conformance;
#[cfg(feature = "test-support")]
mod memory;
mod s3;

#[cfg(feature = "test-support")]
pub use memory::{Call, Effect, Fault, Memory};
pub use s3::S3;

/// What an upload or a download asks of an object store.
///
/// Implementations are cheap handles: clones share the store. They do not retry; the transfer does, and counts.
/// A call that makes no progress for a while must end in [`StoreErrorKind::Transient`] by itself.
pub trait MultipartStore: Clone + fmt::Debug + Send + Sync + 'static {
    /// Starts a multipart upload whose parts and whole are checked by CRC-64/NVME.
    fn create(
        &self,
        key: &str,
        metadata: &[(String, String)],
    ) -> impl Future<Output = Result<UploadRef, StoreError>> + Send;

    /// Stores one part. Calling it again with the same number replaces the part.
    fn upload_part(
        &self,
        upload: &UploadRef,
        number: u32,
        body: Bytes,
        crc64nvme: Crc64,
    ) -> impl Future<Output = Result<StoredPart, StoreError>> + Send;

    /// All parts that the store has of an upload, ascending by number, over as many pages as it takes.
    fn list_parts(
        &self,
        upload: &UploadRef,
    ) -> impl Future<Output = Result<Vec<StoredPart>, StoreError>> + Send;

    /// Makes the object out of its parts, unless the key exists already ([`StoreErrorKind::PreconditionFailed`]).
    fn complete(
        &self,
        upload: &UploadRef,
        parts: &[StoredPart],
        whole: Whole,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Drops an upload and its parts.
    fn abort(&self, upload: &UploadRef) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The unfinished uploads of keys that start with `prefix`.
    fn list_uploads(
        &self,
        prefix: &str,
    ) -> impl Future<Output = Result<Vec<PendingUpload>, StoreError>> + Send;

    /// What the store knows of an object; `None` if there is none.
    fn head(
        &self,
        key: &str,
        version_id: Option<&str>,
    ) -> impl Future<Output = Result<Option<ObjectInfo>, StoreError>> + Send;

    /// Reads the bytes `range` of an object into `into`, which is cleared first and holds exactly the range afterwards.
    ///
    /// `etag` pins the object where there is no version id. A body that is shorter or longer than asked for is
    /// [`StoreErrorKind::Transient`]; a range that the object does not have is [`StoreErrorKind::OutOfRange`].
    fn get_range(
        &self,
        key: &str,
        version_id: Option<&str>,
        etag: Option<&str>,
        range: Range<u64>,
        into: &mut Vec<u8>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A CRC-64/NVME value. Its text is the base64 of the eight big-endian bytes, as S3 writes it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Crc64(pub u64);

impl Crc64 {
    /// The value of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, bytes))
    }

    /// The value of what `self` is of, followed by `other_len` bytes whose value is `other`. It costs about 170 µs.
    pub fn followed_by(self, other: Self, other_len: u64) -> Self {
        Self(crc_fast::checksum_combine(crc_fast::CrcAlgorithm::Crc64Nvme, self.0, other.0, other_len))
    }

    /// Reads the text form; `None` if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 8] = STANDARD.decode(text).ok()?.try_into().ok()?;
        Some(Self(u64::from_be_bytes(bytes)))
    }
}

impl fmt::Display for Crc64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0.to_be_bytes()))
    }
}

impl fmt::Debug for Crc64 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Crc64({self})")
    }
}

/// A multipart upload: the key that it will make, and the store's name for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UploadRef {
    /// The key of the object to be.
    pub key: String,
    /// The store's id of the upload.
    pub upload_id: String,
}

/// A part as the store has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    /// Its number, from 1.
    pub number: u32,
    /// Its size in bytes.
    pub size: u64,
    /// The store's tag of it, opaque.
    pub etag: String,
    /// What the store computed over what it received; `None` from a store without CRC-64/NVME.
    pub crc64nvme: Option<Crc64>,
}

/// What the finished object has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its size in bytes.
    pub size: u64,
    /// CRC-64/NVME of the whole object.
    pub crc64nvme: Crc64,
    /// Whether the store gave checksums for the parts, so that it is asked to check the whole by its own.
    pub checked_by_store: bool,
}

/// An upload that was started and neither completed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingUpload {
    /// The upload.
    pub upload: UploadRef,
    /// When it was started, by the store's clock.
    pub initiated: Option<SystemTime>,
}

/// What the store says about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Its size in bytes.
    pub size: u64,
    /// The store's tag of it, opaque.
    pub etag: Option<String>,
    /// Its version, where the bucket has versions.
    pub version_id: Option<String>,
    /// CRC-64/NVME of the whole object, where the store has it.
    pub crc64nvme: Option<Crc64>,
    /// The metadata it was created with.
    pub metadata: Vec<(String, String)>,
}

/// What kind of answer a failed call got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreErrorKind {
    /// There is no such object.
    NoSuchKey,
    /// There is no such bucket.
    NoSuchBucket,
    /// There is no such multipart upload: completed, aborted or expired.
    NoSuchUpload,
    /// The credentials are missing, expired or not allowed to do this.
    AccessDenied,
    /// The store refuses the request because of its time: the clocks differ.
    ClockSkewed,
    /// The client did not get to send the request: no credentials can be had, or a setting is wrong.
    Unsent,
    /// A condition does not hold: the key exists, or the object is not the pinned one any more.
    PreconditionFailed,
    /// The object does not have the range.
    OutOfRange,
    /// The bytes that arrived do not have the checksum that was sent with them.
    BadDigest,
    /// The store asks to slow down.
    Throttled,
    /// A fault of the store or of the way to it: 5xx, time-out, reset, no progress.
    Transient,
    /// Any other refusal.
    Refused,
}

impl StoreErrorKind {
    /// Whether the same call may well succeed a little later.
    pub fn is_transient(self) -> bool {
        match self {
            Self::Throttled | Self::Transient | Self::BadDigest | Self::Unsent => true,
            Self::ClockSkewed
            | Self::NoSuchKey
            | Self::NoSuchBucket
            | Self::NoSuchUpload
            | Self::AccessDenied
            | Self::PreconditionFailed
            | Self::OutOfRange
            | Self::Refused => false,
        }
    }
}

/// A call to the store failed.
#[derive(Debug, thiserror::Error)]
#[error("{call}: {detail}")]
pub struct StoreError {
    /// What kind of answer it was.
    pub kind: StoreErrorKind,
    /// The name of the call, as S3 spells it.
    pub call: &'static str,
    /// What the store or the connection said.
    pub detail: String,
    /// How long the store asks to wait, if it does.
    pub retry_after: Option<Duration>,
    /// The error below.
    #[source]
    pub source: Option<Box<dyn StdError + Send + Sync>>,
}

impl StoreError {
    /// A failure without an error below it.
    pub fn new(kind: StoreErrorKind, call: &'static str, detail: impl Into<String>) -> Self {
        Self { kind, call, detail: detail.into(), retry_after: None, source: None }
    }
}
