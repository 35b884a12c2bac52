//! What is remembered beside the bytes: versions, uploads and buckets, as they stand in memory and in the JSON side files.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::s3::checksum::{Algorithm, Checksum, Kind};

/// The id of a version in a bucket that keeps no versions.
pub(crate) const NULL_VERSION: &str = "null";

/// Whether a bucket keeps versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Versioning {
    /// Versioning was never switched on.
    Off,
    Enabled,
    Suspended,
}

/// A bucket's own record, `bucket.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BucketRecord {
    pub(crate) created: jiff::Timestamp,
    pub(crate) versioning: Versioning,
}

/// All versions of one key, oldest first, `versions.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct History {
    pub(crate) key: String,
    pub(crate) versions: Vec<Version>,
}

/// One version of an object, or a delete marker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Version {
    pub(crate) id: String,
    /// The place among all writes. For a multipart object it is that of `CreateMultipartUpload`, as in AWS.
    pub(crate) sequence: u64,
    pub(crate) modified: jiff::Timestamp,
    /// Whether the bytes lie at the object's plain path, where a person finds them, or aside.
    pub(crate) in_place: bool,
    /// `None` for a delete marker.
    pub(crate) content: Option<Content>,
}

/// What an object is, besides its bytes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Content {
    pub(crate) size: u64,
    /// Without quotes.
    pub(crate) etag: String,
    pub(crate) checksum: Checksum,
    /// The parts of a multipart object, in order; empty for an object that was put in one piece.
    pub(crate) parts: Vec<ObjectPart>,
    pub(crate) attributes: Attributes,
}

/// What remains of a part once its object is complete.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ObjectPart {
    pub(crate) number: u32,
    pub(crate) size: u64,
    /// The part's own checksum, when the upload was created with an algorithm.
    pub(crate) checksum: Option<Checksum>,
}

/// What the writer said about the object.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attributes {
    pub(crate) content_type: Option<String>,
    pub(crate) content_encoding: Option<String>,
    pub(crate) content_disposition: Option<String>,
    pub(crate) content_language: Option<String>,
    pub(crate) cache_control: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) encryption: Encryption,
}

/// How the object is said to be encrypted. (The bytes on the disk are plain.)
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Encryption {
    /// `AES256` or `aws:kms`.
    pub(crate) algorithm: String,
    pub(crate) key_id: Option<String>,
    pub(crate) bucket_key: Option<bool>,
}

impl Default for Encryption {
    fn default() -> Self {
        Self { algorithm: "AES256".to_owned(), key_id: None, bucket_key: None }
    }
}

/// A multipart upload under way, `upload.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Upload {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) sequence: u64,
    pub(crate) initiated: jiff::Timestamp,
    /// What `CreateMultipartUpload` asked for, if it asked.
    pub(crate) checksum: Option<(Algorithm, Kind)>,
    pub(crate) attributes: Attributes,
    #[serde(skip)]
    pub(crate) parts: BTreeMap<u32, Part>,
    /// Held while the upload is being completed.
    #[serde(skip)]
    pub(crate) completion: Arc<tokio::sync::Mutex<()>>,
}

/// An uploaded part, `<number>.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) number: u32,
    pub(crate) size: u64,
    pub(crate) modified: jiff::Timestamp,
    /// Without quotes.
    pub(crate) etag: String,
    /// In hexadecimal.
    pub(crate) md5: String,
    /// In Base64; every part has it, because an object without another checksum gets this one.
    pub(crate) crc64nvme: String,
    /// In Base64, by the upload's algorithm.
    pub(crate) digest: Option<String>,
    /// Name of the file with the bytes, in the upload's folder.
    pub(crate) file: String,
}
