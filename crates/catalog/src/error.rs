//! What can go wrong with the catalogue, on what, and what to do about it.

use jiff::Timestamp;
pub(crate) use protocol::failure::chain;
use protocol::{BackupId, FailureKind, manifest::InvalidManifest, marker::InvalidMarker};

use crate::{
    resolve::Skipped,
    rules::{MAX_CLOCK_AHEAD, Suspicion},
    store::StoreError,
};

/// An operation on the catalogue failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store refused, failed or did not answer; nothing is known about the object. It names its call and key itself.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A manifest cannot be used.
    #[error("the manifest `{key}` cannot be used")]
    ManifestInvalid {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: InvalidManifest,
    },
    /// An immutable manifest is another backup's.
    #[error("the manifest `{key}` is that of backup {found}")]
    ManifestMisplaced {
        /// Its key.
        key: String,
        /// Whose it is.
        found: BackupId,
    },
    /// There is no backup with this id.
    #[error("there is no manifest `{key}` in bucket `{bucket}`")]
    NoSuchBackup {
        /// The key of the manifest that is not there.
        key: String,
        /// The bucket.
        bucket: String,
    },
    /// Nothing was ever stored.
    #[error("there is no backup in bucket `{bucket}`")]
    NoBackup {
        /// The bucket.
        bucket: String,
    },
    /// No whole backup is from before the time asked for.
    #[error("there is no backup from before {time} in bucket `{bucket}`")]
    NoneBefore {
        /// The time asked for.
        time: Timestamp,
        /// The bucket.
        bucket: String,
    },
    /// There is no pointer although something is stored.
    #[error("there is no pointer in bucket `{bucket}`, which holds {objects} objects of backups")]
    PointerMissing {
        /// The bucket.
        bucket: String,
        /// How many objects were found under the manifests and the archives.
        objects: usize,
    },
    /// The pointer cannot be used and no immutable manifest can take its place.
    #[error("no manifest can take the place of the pointer{}", list(skipped))]
    NothingUsable {
        /// The manifests that were looked at, and why each was passed over.
        skipped: Vec<Skipped>,
        /// Why the pointer cannot be used.
        #[source]
        pointer: Box<Error>,
    },
    /// The archive that a manifest names is not there.
    #[error("the archive `s3://{bucket}/{key}`{} of backup {backup} does not exist", version_text(version_id.as_ref()))]
    ObjectMissing {
        /// The backup.
        backup: BackupId,
        /// The bucket.
        bucket: String,
        /// The archive's key.
        key: String,
        /// The version that the manifest names.
        version_id: Option<String>,
    },
    /// The frame index or the golden set of a backup is not there.
    #[error("`s3://{bucket}/{key}`, without which backup {backup} cannot be restored, does not exist")]
    SideFileMissing {
        /// The backup.
        backup: BackupId,
        /// The bucket.
        bucket: String,
        /// The key of what is missing.
        key: String,
    },
    /// The archive is not the one that the manifest describes.
    #[error("the archive `{key}` has {what} {found}, its manifest says {expected}")]
    ObjectDiffers {
        /// The archive's key.
        key: String,
        /// The property that differs.
        what: &'static str,
        /// The manifest's value.
        expected: String,
        /// The store's value.
        found: String,
    },
    /// The store keeps no checksum of the archive, and nobody has read it back.
    #[error("the store keeps no CRC-64/NVME of the archive `{key}`, and no proof says that it was read back")]
    ObjectUnchecked {
        /// The archive's key.
        key: String,
        /// The backup.
        backup: BackupId,
    },
    /// The archive is encrypted with another key than configured.
    #[error("the archive `{key}` is encrypted with {}, not with `{expected}`", key_text(found.as_ref()))]
    WrongKmsKey {
        /// The archive's key.
        key: String,
        /// The KMS key that is configured.
        expected: String,
        /// The KMS key that was used.
        found: Option<String>,
    },
    /// The pointer has moved to what was to be removed.
    #[error("backup {backup} is not removed: the pointer names it by now")]
    NamedMeanwhile {
        /// The backup.
        backup: BackupId,
    },
    /// The backup is dated in the future.
    #[error(
        "backup {backup} is dated {dated}, more than {} s after the store's clock, which says {store_now}",
        MAX_CLOCK_AHEAD.as_secs()
    )]
    ClockAhead {
        /// The backup.
        backup: BackupId,
        /// Its date.
        dated: Timestamp,
        /// The store's time.
        store_now: Timestamp,
    },
    /// Another content is stored where an immutable object belongs.
    #[error("`{key}` exists with another content (SHA-256 {found}, not {expected})")]
    Conflict {
        /// The key.
        key: String,
        /// SHA-256 of what was to be stored, hexadecimal.
        expected: String,
        /// SHA-256 of what is stored, hexadecimal.
        found: String,
    },
    /// The pointer names this backup with another archive.
    #[error("the pointer names backup {backup} with the archive `{found}`, not `{expected}`")]
    PointerContradicts {
        /// The backup.
        backup: BackupId,
        /// The archive to be published.
        expected: String,
        /// The archive that the pointer names.
        found: String,
    },
    /// A conditional write was refused each time although the state allowed it.
    #[error("the write of `{key}` was refused {attempts} times while its condition held at each look")]
    Contended {
        /// The key.
        key: String,
        /// How often it was tried.
        attempts: u32,
    },
    /// The backup looks like damage.
    #[error("backup {backup} does not become the newest by itself: {}", join(reasons))]
    Suspicious {
        /// The backup.
        backup: BackupId,
        /// Why.
        reasons: Vec<Suspicion>,
    },
    /// A side file is larger than its reader allows.
    #[error("`{key}` has {size} bytes, more than the {max} that are read")]
    SideFileTooLarge {
        /// The key.
        key: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        max: u64,
    },
    /// The success marker cannot be read.
    #[error("the success marker `{key}` cannot be used")]
    MarkerInvalid {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: InvalidMarker,
    },
    /// A proof cannot be written as JSON.
    #[error("the proof `{key}` cannot be written")]
    ProofUnwritable {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// The name by which other programs know this failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Store(error) => error.kind(),
            Self::ManifestInvalid { .. } | Self::ManifestMisplaced { .. } => FailureKind::ManifestInvalid,
            Self::NoSuchBackup { .. }
            | Self::NoBackup { .. }
            | Self::NoneBefore { .. }
            | Self::PointerMissing { .. }
            | Self::ObjectMissing { .. }
            | Self::SideFileMissing { .. } => FailureKind::ManifestMissing,
            Self::NothingUsable { pointer, .. } => pointer.kind(),
            Self::ObjectDiffers { .. } | Self::ObjectUnchecked { .. } => FailureKind::ChecksumMismatch,
            Self::WrongKmsKey { .. } | Self::ClockAhead { .. } => FailureKind::ConfigInvalid,
            Self::Conflict { .. } | Self::PointerContradicts { .. } | Self::Contended { .. } => {
                FailureKind::ManifestConflict
            }
            Self::Suspicious { .. } | Self::NamedMeanwhile { .. } => FailureKind::Suspicious,
            Self::SideFileTooLarge { .. } => FailureKind::ManifestInvalid,
            Self::MarkerInvalid { .. } => FailureKind::IndexingIncomplete,
            Self::ProofUnwritable { .. } => FailureKind::Internal,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::ManifestInvalid { source: InvalidManifest::NewerFormat { .. }, .. } => {
                Some("install the release that wrote it, or a later one".to_owned())
            }
            Self::ManifestInvalid { key, .. } if key == protocol::key::POINTER => Some(
                "an earlier version of the pointer may be whole (`aws s3api list-object-versions`); `host-worker publish --backup ID --force` replaces it by a backup of `host-worker list`"
                    .to_owned(),
            ),
            Self::ManifestInvalid { .. } | Self::ManifestMisplaced { .. } => Some(
                "an earlier version of the object may be whole (`aws s3api list-object-versions`); other backups are in `host-worker list`"
                    .to_owned(),
            ),
            Self::NoSuchBackup { .. } | Self::NoneBefore { .. } => {
                Some("`host-worker list` shows the backups that there are".to_owned())
            }
            Self::NoBackup { .. } => Some("check the bucket's name and the prefix".to_owned()),
            Self::PointerMissing { .. } => Some(
                "choose a backup in `host-worker list`, then `host-worker publish --backup ID` makes it the newest".to_owned(),
            ),
            Self::NothingUsable { .. } => Some(
                "choose a backup in `host-worker list` and restore it with `--backup ID`, or repair the pointer with `host-worker publish --backup ID --rollback`"
                    .to_owned(),
            ),
            Self::SideFileMissing { .. } => Some(
                "look for its version with `aws s3api list-object-versions`, or use an older backup; without the golden set alone, `host-worker restore --unproved` compares only counts, configuration and aliases"
                    .to_owned(),
            ),
            Self::ObjectMissing { .. } => Some(
                "in a replica the object may still be on its way; otherwise look for the version with `aws s3api list-object-versions`, or use an older backup"
                    .to_owned(),
            ),
            Self::ObjectDiffers { .. } => Some("do not restore from it; take a new backup".to_owned()),
            Self::ObjectUnchecked { backup, .. } => Some(format!(
                "`host-worker verify --archive --backup {backup}` reads it back; on S3, check that the uploader has kms:Decrypt, without which S3 stores no checksum"
            )),
            Self::WrongKmsKey { .. } => {
                Some("set the same KMS key for the bucket, the uploader and the publisher".to_owned())
            }
            Self::ClockAhead { .. } => Some(
                "set the clock of the host that made the backup (chrony, Amazon Time Sync), then take a new backup".to_owned(),
            ),
            Self::Conflict { .. } | Self::PointerContradicts { .. } => Some(
                "two uploads have the same id: keep what is stored and take a new backup".to_owned(),
            ),
            Self::Contended { .. } => Some("another publisher is at work; publish again".to_owned()),
            Self::Suspicious { .. } => Some(
                "its own manifest is stored and the pointer has not moved; if this is what you want: `host-worker publish --backup ID --force`, and `host-worker acknowledge` on a degraded host"
                    .to_owned(),
            ),
            Self::NamedMeanwhile { .. } => Some("nothing of it was removed; look at `host-worker list` before pruning again".to_owned()),
            Self::SideFileTooLarge { .. } | Self::ProofUnwritable { .. } => None,
            Self::MarkerInvalid { .. } => Some("docs/clients.md says how the indexing job writes it".to_owned()),
        }
    }

    /// Whether the thing that was looked at is definitely absent or unusable, as opposed to out of reach. A manifest of a
    /// newer format is out of reach: another release can use it, and falling back would lose what it describes.
    pub(crate) fn is_definite(&self) -> bool {
        match self {
            Self::ManifestInvalid { source: InvalidManifest::NewerFormat { .. }, .. } => false,
            Self::Store(StoreError::TooLarge { .. } | StoreError::Damaged { .. })
            | Self::ManifestInvalid { .. }
            | Self::ManifestMisplaced { .. }
            | Self::NoSuchBackup { .. }
            | Self::PointerMissing { .. }
            | Self::ObjectMissing { .. }
            | Self::SideFileMissing { .. }
            | Self::ObjectDiffers { .. } => true,
            Self::Store(
                StoreError::Denied { .. } | StoreError::NoSuchBucket { .. } | StoreError::Failed { .. },
            )
            | Self::NoBackup { .. }
            | Self::NoneBefore { .. }
            | Self::NothingUsable { .. }
            | Self::ObjectUnchecked { .. }
            | Self::WrongKmsKey { .. }
            | Self::ClockAhead { .. }
            | Self::Conflict { .. }
            | Self::PointerContradicts { .. }
            | Self::Contended { .. }
            | Self::Suspicious { .. }
            | Self::NamedMeanwhile { .. }
            | Self::SideFileTooLarge { .. }
            | Self::MarkerInvalid { .. }
            | Self::ProofUnwritable { .. } => false,
        }
    }
}

fn join(reasons: &[Suspicion]) -> String {
    reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn list(skipped: &[Skipped]) -> String {
    skipped
        .iter()
        .map(|skipped| format!("; {} was passed over: {}", skipped.backup_id, skipped.why))
        .collect()
}

fn version_text(version: Option<&String>) -> String {
    version.map(|version| format!(" (version `{version}`)")).unwrap_or_default()
}

fn key_text(key: Option<&String>) -> String {
    key.map_or_else(|| "no KMS key".to_owned(), |key| format!("`{key}`"))
}
