//! The port to an object store: exactly the calls that publication makes.
//!
//! An implementation tells three things apart that are easily confused: an object that is not there (`None`), an answer
//! that refuses access ([`StoreError::Denied`]) and no usable answer at all ([`StoreError::Failed`]). Only the first may
//! ever be taken for an absence. Module `conformance` (feature `test-support`) is the suite that every implementation passes.

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use jiff::Timestamp;
use protocol::FailureKind;
use serde::{Deserialize, Serialize};

#[cfg(feature = "test-support")]
pub mod conformance;
#[cfg(feature = "test-support")]
mod memory;
mod s3;

#[cfg(feature = "test-support")]
pub use memory::{Attributes, Call, Fault, Memory};
pub use s3::S3;

/// The largest object that [`ObjectStore::get`] reads, in bytes. Manifests and side files are far below; archives are not read here.
pub const MAX_OBJECT_BYTES: u64 = 64 << 20;

/// An object store, seen from publication. All keys are whole keys of one bucket.
pub trait ObjectStore: Send + Sync {
    /// Reads an object, or one version of it. `None` only when the store says that it does not exist.
    fn get(
        &self,
        key: &str,
        version: Option<&str>,
    ) -> impl Future<Output = Result<Option<Object>, StoreError>> + Send;

    /// Writes an object in one request, under a condition that the store itself checks.
    ///
    /// [`PutError::PreconditionFailed`] is also what a retry inside the client can get for a write whose first reply was
    /// lost: a caller that cares reads back and compares.
    fn put(
        &self,
        key: &str,
        bytes: Bytes,
        condition: Condition,
    ) -> impl Future<Output = Result<Put, PutError>> + Send;

    /// What the store knows about an object, or one version of it, without its bytes.
    fn head(
        &self,
        key: &str,
        version: Option<&str>,
    ) -> impl Future<Output = Result<Option<Head>, StoreError>> + Send;

    /// Every object whose key starts with `prefix`, in the order of the keys.
    fn list(&self, prefix: &str) -> impl Future<Output = Result<Vec<Listed>, StoreError>> + Send;

    /// The time by the store's own clock, to the second.
    fn now(&self) -> impl Future<Output = Result<Timestamp, StoreError>> + Send;
}

/// An object store from which whoever prunes may delete. A port of its own, so that nothing else can.
pub trait Deletion: ObjectStore {
    /// Deletes an object; one that is not there is deleted already. Where the bucket has versions they stay, under a delete marker.
    fn delete(&self, key: &str) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// An object and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// The whole object.
    pub bytes: Bytes,
    /// The opaque tag by which [`Condition::IfMatch`] names this state of the key.
    pub etag: String,
    /// The version, where the bucket has versions.
    pub version_id: Option<String>,
    /// When it was written, by the store's clock.
    pub last_modified: Timestamp,
}

/// When a write is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Always.
    None,
    /// Only where nothing is.
    IfAbsent,
    /// Only over the state with this tag.
    IfMatch(String),
}

/// A write that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The tag of the new state.
    pub etag: String,
    /// The new version, where the bucket has versions.
    pub version_id: Option<String>,
}

/// What a store knows about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its size in bytes.
    pub size: u64,
    /// CRC-64/NVME of the whole object, base64 of its eight bytes; absent where the store keeps none.
    pub crc64nvme: Option<String>,
    /// The version, where the bucket has versions.
    pub version_id: Option<String>,
    /// The opaque tag of this state.
    pub etag: String,
    /// The KMS key that it is encrypted with, as an ARN; absent without SSE-KMS.
    pub sse_kms_key_id: Option<String>,
    /// What the writer attached.
    pub metadata: BTreeMap<String, String>,
}

/// One line of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The whole key.
    pub key: String,
    /// The size in bytes.
    pub size: u64,
    /// When it was written, by the store's clock.
    pub last_modified: Timestamp,
}

/// Which call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// [`ObjectStore::get`].
    Get,
    /// [`ObjectStore::put`].
    Put,
    /// [`ObjectStore::head`].
    Head,
    /// [`ObjectStore::list`].
    List,
    /// [`ObjectStore::now`].
    Now,
    /// [`Deletion::delete`].
    Delete,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Head => "head",
            Self::List => "list",
            Self::Now => "read the store's clock by",
            Self::Delete => "delete",
        })
    }
}

/// The cause of a [`StoreError`], as the implementation knows it.
pub type Source = Box<dyn std::error::Error + Send + Sync>;

/// A call to the store gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store refuses access. Without permission to list, S3 answers this for an absent key too.
    #[error("{operation} `s3://{bucket}/{key}`: access is refused ({code})")]
    Denied {
        /// The call.
        operation: Operation,
        /// The bucket.
        bucket: String,
        /// The key or prefix.
        key: String,
        /// The store's code, or the HTTP status.
        code: String,
        /// What the store said.
        #[source]
        source: Source,
    },
    /// There is no such bucket.
    #[error("{operation} `s3://{bucket}/{key}`: the bucket does not exist")]
    NoSuchBucket {
        /// The call.
        operation: Operation,
        /// The bucket.
        bucket: String,
        /// The key or prefix.
        key: String,
    },
    /// The object is larger than anything that is read whole.
    #[error(
        "{operation} `s3://{bucket}/{key}`: more than the {MAX_OBJECT_BYTES} bytes that a manifest or side file may have"
    )]
    TooLarge {
        /// The call.
        operation: Operation,
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// The bytes are not those whose checksum the store states, however often they are read.
    #[error("{operation} `s3://{bucket}/{key}`: the bytes do not have the checksum that the store states")]
    Damaged {
        /// The call.
        operation: Operation,
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// What was compared.
        #[source]
        source: Source,
    },
    /// No answer, a server fault, or an answer that makes no sense.
    #[error("{operation} `s3://{bucket}/{key}` fails ({code})")]
    Failed {
        /// The call.
        operation: Operation,
        /// The bucket.
        bucket: String,
        /// The key or prefix.
        key: String,
        /// The store's code, the HTTP status, or what is wrong with the answer.
        code: String,
        /// What the store or the client said.
        #[source]
        source: Source,
    },
}

impl StoreError {
    /// The name by which other programs know this failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Denied { .. } | Self::Failed { .. } => FailureKind::StoreUnavailable,
            Self::NoSuchBucket { .. } => FailureKind::ConfigInvalid,
            Self::TooLarge { .. } => FailureKind::ManifestInvalid,
            Self::Damaged { .. } => FailureKind::ChecksumMismatch,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Denied { operation, bucket, .. } => {
                let action = match operation {
                    Operation::Get | Operation::Head | Operation::Now => {
                        "s3:GetObject and s3:GetObjectVersion on the key, s3:ListBucket on the bucket (else an absent key is refused instead of absent) and kms:Decrypt"
                    }
                    Operation::Put => "s3:PutObject on the key and kms:GenerateDataKey",
                    Operation::Delete => {
                        "s3:DeleteObject on the key, which only whoever prunes should have (is it kept by Object Lock?)"
                    }
                    Operation::List => "s3:ListBucket on the bucket for this prefix",
                };
                Some(format!("these credentials need {action}; check also the policy of bucket `{bucket}`"))
            }
            Self::NoSuchBucket { bucket, .. } => {
                Some(format!("check the name `{bucket}`, the region and the endpoint URL"))
            }
            Self::TooLarge { key, .. } => {
                Some(format!("`{key}` was not written by this program; move it away"))
            }
            Self::Damaged { key, .. } => Some(format!(
                "an earlier version of `{key}` may be whole (`aws s3api list-object-versions`); other backups are in `host-worker list`"
            )),
            Self::Failed { .. } => None,
        }
    }
}

/// A write did not happen, or nobody knows whether it did.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// The key is not in the state that the condition asked for, or another write to it is under way.
    #[error("the condition on `{key}` does not hold")]
    PreconditionFailed {
        /// The key.
        key: String,
    },
    /// No usable answer: the write may have happened.
    #[error(transparent)]
    Other(#[from] StoreError),
}
