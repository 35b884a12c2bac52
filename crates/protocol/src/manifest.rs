//! The manifest: what a backup is, where it is, and how to know that it is whole. Format version 1.
//!
//! The schema is published as `docs/manifest.schema.json`. A reader ignores fields it does not know and refuses a newer format version.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    id::{BackupId, CollectionName},
    key::ArchiveKey,
    marker::SuccessMarker,
};

/// The format version that this code writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// A manifest. The immutable one of a backup has no `previous`; the pointer is the same document with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Manifest {
    /// Where the data lives on the host, and where a restore brings it back.
    pub backup_and_restore_path: String,
    /// The archive's file name.
    pub latest_snapshot: String,
    /// Where the snapshots were read on the host.
    pub latest_snapshot_from_path: String,
    /// `s3://bucket/key` of the archive when it was written. Readers use `key` and the bucket they read.
    pub latest_snapshot_to_path: String,
    /// The archive's size in units of 10^6 bytes, rounded to three decimals.
    pub latest_snapshot_size_in_mb: f64,
    /// Parts in flight during the upload.
    pub multipart_upload_concurrency: u32,
    /// How long packing and uploading took, in seconds.
    pub latest_snapshot_upload_duration_in_seconds: f64,

    /// The version of this format.
    pub format_version: u32,
    /// The backup.
    pub backup_id: BackupId,
    /// When the backup was started.
    pub created_at: Timestamp,
    /// The archive's key, relative to the bucket that the manifest was read from.
    pub key: ArchiveKey,
    /// The archive's size in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the whole archive, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// CRC-64/NVME of the whole archive, base64 of its eight bytes as S3 writes it.
    pub crc64nvme: String,
    /// The object version that the store gave the archive; absent where the bucket has no versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_id: Option<String>,
    /// What is in the archive.
    pub archive: Archive,
    /// The server that was backed up.
    pub qdrant: QdrantServer,
    /// The collections, in the order of the archive.
    pub collections: Vec<CollectionRecord>,
    /// Alias to collection.
    pub aliases: BTreeMap<String, CollectionName>,
    /// Whether nothing was written from the first count to the last.
    pub quiesced: bool,
    /// The indexing batch that this backup covers, where a success marker was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indexing: Option<SuccessMarker>,
    /// What the host itself was restored from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Whether only chosen collections are in it. A partial backup never becomes the pointer.
    pub partial: bool,
    /// What took how long, in order.
    pub timings: Vec<PhaseTiming>,
    /// The program that wrote it.
    pub tool: Tool,
    /// In the pointer only: the backup that it named before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
}

/// What the last entry of every archive, `backup.json`, says: the archive describes itself, even when every manifest is lost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BackupDescription {
    /// The version of the manifest's format.
    pub format_version: u32,
    /// The backup.
    pub backup_id: BackupId,
    /// When the backup was started.
    pub created_at: Timestamp,
    /// The server that was backed up.
    pub qdrant: QdrantServer,
    /// The collections, in the order of the archive.
    pub collections: Vec<CollectionRecord>,
    /// Alias to collection.
    pub aliases: BTreeMap<String, CollectionName>,
    /// Whether nothing was written from the first count to the last.
    pub quiesced: bool,
    /// The indexing batch that this backup covers, where a success marker was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub indexing: Option<SuccessMarker>,
    /// What the host itself was restored from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Whether only chosen collections are in it.
    pub partial: bool,
    /// The program that wrote it.
    pub tool: Tool,
}

impl BackupDescription {
    /// The document's bytes, the same for equal descriptions.
    pub fn to_json(&self) -> Vec<u8> {
        document(self)
    }
}

/// What is in an archive and how to check it (`docs/format.md`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Archive {
    /// Bytes of the tar stream.
    pub raw_bytes: u64,
    /// Number of zstd frames that hold data.
    pub frame_count: u64,
    /// BLAKE3 of the canonical frame index, 64 lower-case hexadecimal digits.
    pub frames_root: String,
    /// SHA-256 of the stored golden set, 64 lower-case hexadecimal digits.
    pub golden_sha256: String,
    /// The entries, in order; `backup.json` is the last.
    pub entries: Vec<ArchiveEntry>,
}

/// One entry of an archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArchiveEntry {
    /// Its name in the tar stream.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its bytes, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// The number of the frame that its data starts in, from 0. Data always starts a frame.
    pub first_frame: u64,
    /// Where its data starts in the tar stream, in bytes.
    pub raw_offset: u64,
}

/// The server that was backed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QdrantServer {
    /// Its version, as `1.18.3`.
    pub version: String,
    /// The container image, where configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// One collection of a backup.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CollectionRecord {
    /// Its name.
    pub name: CollectionName,
    /// The file name that Qdrant gave the snapshot.
    pub snapshot: String,
    /// The name of the entry in the archive.
    pub entry: String,
    /// The snapshot's size in bytes.
    pub size_bytes: u64,
    /// SHA-256 of the snapshot as Qdrant stated it and as it was read, 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Exact number of points before the snapshot was taken.
    pub points_before: u64,
    /// Exact number of points after the last snapshot was taken.
    pub points_after: u64,
    /// Whether anything was written to it in between.
    pub written_during_backup: bool,
    /// The collection's configuration as `GET /collections/{name}` gives it.
    pub config: Value,
    /// The payload indexes: field to type and parameters.
    pub payload_schema: BTreeMap<String, Value>,
    /// What was recorded to prove a restore by.
    pub golden: GoldenSummary,
}

impl CollectionRecord {
    /// The least and the greatest number of points that a restore may come to.
    pub fn expected_points(&self) -> (u64, u64) {
        (self.points_before.min(self.points_after), self.points_before.max(self.points_after))
    }
}

/// The size of a collection's golden set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GoldenSummary {
    /// Points whose digests are recorded.
    pub points: u64,
    /// Points left out because they changed while the backup ran.
    pub changed: u64,
    /// Searches recorded.
    pub searches: u64,
    /// Mean recall of the normal searches, 0 to 1; absent when nothing was searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recall: Option<f64>,
}

/// What a host was itself restored from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Origin {
    /// The backup; absent when the host was started empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_id: Option<BackupId>,
    /// Whether that was anything but the pointer's own backup and no person has acknowledged it since.
    pub degraded: bool,
}

/// How long one phase took.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PhaseTiming {
    /// The phase, as `snapshot` or `upload`.
    pub phase: String,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// The program that wrote something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// A link of the pointer's chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Previous {
    /// The backup that the pointer named before.
    pub backup_id: BackupId,
    /// SHA-256 of the pointer's bytes before, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// A manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidManifest {
    /// It is not the JSON that the schema describes.
    #[error("the manifest is not the JSON that docs/manifest.schema.json describes")]
    Json {
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A later version of this program wrote it.
    #[error(
        "the manifest has format version {found}, this program reads up to {FORMAT_VERSION}: use a newer release"
    )]
    NewerFormat {
        /// The version found.
        found: u32,
    },
    /// Two of its statements contradict each other.
    #[error("the manifest contradicts itself: {what}")]
    Contradiction {
        /// Which statements.
        what: String,
    },
}

impl Manifest {
    /// The document's bytes: indented JSON with a newline at the end, the same for equal manifests.
    pub fn to_json(&self) -> Vec<u8> {
        document(self)
    }

    /// Reads and checks a manifest.
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidManifest> {
        // The version comes first: a newer format may have other fields, and its reader deserves the true reason.
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let json = |source| InvalidManifest::Json { source };
        let Version { format_version: found } = serde_json::from_slice(bytes).map_err(json)?;
        if found > FORMAT_VERSION {
            return Err(InvalidManifest::NewerFormat { found });
        }
        let manifest: Self = serde_json::from_slice(bytes).map_err(json)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// SHA-256 of the document's bytes, as [`Previous`] records it.
    pub fn digest(bytes: &[u8]) -> String {
        hex::encode(Sha256::digest(bytes))
    }

    fn check(&self) -> Result<(), InvalidManifest> {
        let contradiction = |what: String| Err(InvalidManifest::Contradiction { what });
        if self.key.backup() != self.backup_id {
            return contradiction(format!("backup {} with the archive `{}`", self.backup_id, self.key));
        }
        let digests = [
            ("sha256", &self.sha256),
            ("frames_root", &self.archive.frames_root),
            ("golden_sha256", &self.archive.golden_sha256),
        ];
        for (field, digest) in digests {
            if !is_hex256(digest) {
                return contradiction(format!(
                    "`{field}` is `{digest}`, not 64 lower-case hexadecimal digits"
                ));
            }
        }
        for collection in &self.collections {
            let Some(entry) = self.archive.entries.iter().find(|entry| entry.name == collection.entry) else {
                return contradiction(format!(
                    "collection `{}` without its entry `{}`",
                    collection.name, collection.entry
                ));
            };
            let named: Option<CollectionName> =
                entry.name.parse::<crate::key::SnapshotEntry>().ok().map(|e| e.collection);
            if named.as_ref() != Some(&collection.name)
                || entry.size != collection.size_bytes
                || entry.sha256 != collection.sha256
            {
                return contradiction(format!(
                    "collection `{}` and its entry `{}` differ",
                    collection.name, entry.name
                ));
            }
        }
        Ok(())
    }
}

/// Indented JSON with a newline at the end.
fn document(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .unwrap_or_else(|error| unreachable!("a document has only string keys: {error}"));
    bytes.push(b'\n');
    bytes
}

/// Whether `text` is 64 lower-case hexadecimal digits.
fn is_hex256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests;
