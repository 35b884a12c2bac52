//! The closed set of names by which parts of the system tell each other what failed.
//!
//! The same spelling is used in `SendTaskFailure.error`, the Lambdas' `errorType`, `ErrorEquals` of the state machines,
//! the `--json` output of the CLI and the headings of the runbook.

use std::{any::Any, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What kind of thing failed. A program branches on this; a person reads the message that comes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum FailureKind {
    /// The indexing job has not marked success, or its marker is older than what is wanted.
    IndexingIncomplete,
    /// Writes were still in flight when the deadline came.
    NotQuiesced,
    /// Another backup, restore or snapshot is already running on this host.
    Busy,
    /// A setting is missing, contradictory or not understood.
    ConfigInvalid,
    /// Qdrant refuses connections, answers 5xx, or went away.
    QdrantUnavailable,
    /// Qdrant refuses the API key, or serves without one.
    QdrantUnauthorized,
    /// The server's version cannot be backed up or restored into.
    QdrantUnsupported,
    /// A collection uses something that a snapshot cannot bring back (custom sharding).
    CollectionUnsupported,
    /// Qdrant could not make a snapshot, or the snapshot changed or vanished while it was read.
    SnapshotFailed,
    /// A disk is full or too small for what is asked.
    LowDisk,
    /// The archive could not be stored.
    UploadFailed,
    /// The archive could not be fetched.
    DownloadFailed,
    /// The object store does not answer, throttles, or refuses access.
    StoreUnavailable,
    /// Bytes are not those whose checksum was recorded.
    ChecksumMismatch,
    /// An archive breaks the rules of its format.
    ArchiveCorrupt,
    /// There is no manifest where one is needed, or it names an object that is not there.
    ManifestMissing,
    /// A manifest cannot be read: not JSON, not valid, or of a newer format version.
    ManifestInvalid,
    /// Somebody else changed the pointer, or published other content under the same id.
    ManifestConflict,
    /// The backup looks like damage rather than a state worth keeping; a person has to confirm it.
    Suspicious,
    /// Qdrant could not be brought to the backed-up state.
    RestoreFailed,
    /// The restored data is not the recorded data.
    VerificationFailed,
    /// No host, or more than one, can be given the task.
    HostUnreachable,
    /// A drill's staging host could not be terminated, or it is not known whether one is left.
    StagingLeft,
    /// The task token is no longer accepted.
    TokenExpired,
    /// The work made no progress for longer than its phase may take.
    Stalled,
    /// A person or the system asked the work to stop.
    Cancelled,
    /// A fault of this program.
    Internal,
}

impl FailureKind {
    /// Every kind, in the order of declaration.
    pub const ALL: [Self; 27] = [
        Self::IndexingIncomplete,
        Self::NotQuiesced,
        Self::Busy,
        Self::ConfigInvalid,
        Self::QdrantUnavailable,
        Self::QdrantUnauthorized,
        Self::QdrantUnsupported,
        Self::CollectionUnsupported,
        Self::SnapshotFailed,
        Self::LowDisk,
        Self::UploadFailed,
        Self::DownloadFailed,
        Self::StoreUnavailable,
        Self::ChecksumMismatch,
        Self::ArchiveCorrupt,
        Self::ManifestMissing,
        Self::ManifestInvalid,
        Self::ManifestConflict,
        Self::Suspicious,
        Self::RestoreFailed,
        Self::VerificationFailed,
        Self::HostUnreachable,
        Self::StagingLeft,
        Self::TokenExpired,
        Self::Stalled,
        Self::Cancelled,
        Self::Internal,
    ];

    /// The name on the wire, equal to the variant's.
    pub fn name(self) -> &'static str {
        match self {
            Self::IndexingIncomplete => "IndexingIncomplete",
            Self::NotQuiesced => "NotQuiesced",
            Self::Busy => "Busy",
            Self::ConfigInvalid => "ConfigInvalid",
            Self::QdrantUnavailable => "QdrantUnavailable",
            Self::QdrantUnauthorized => "QdrantUnauthorized",
            Self::QdrantUnsupported => "QdrantUnsupported",
            Self::CollectionUnsupported => "CollectionUnsupported",
            Self::SnapshotFailed => "SnapshotFailed",
            Self::LowDisk => "LowDisk",
            Self::UploadFailed => "UploadFailed",
            Self::DownloadFailed => "DownloadFailed",
            Self::StoreUnavailable => "StoreUnavailable",
            Self::ChecksumMismatch => "ChecksumMismatch",
            Self::ArchiveCorrupt => "ArchiveCorrupt",
            Self::ManifestMissing => "ManifestMissing",
            Self::ManifestInvalid => "ManifestInvalid",
            Self::ManifestConflict => "ManifestConflict",
            Self::Suspicious => "Suspicious",
            Self::RestoreFailed => "RestoreFailed",
            Self::VerificationFailed => "VerificationFailed",
            Self::HostUnreachable => "HostUnreachable",
            Self::StagingLeft => "StagingLeft",
            Self::TokenExpired => "TokenExpired",
            Self::Stalled => "Stalled",
            Self::Cancelled => "Cancelled",
            Self::Internal => "Internal",
        }
    }

    /// Whether the same call, made again later without anybody changing anything, may well succeed.
    pub fn is_transient(self) -> bool {
        match self {
            Self::NotQuiesced
            | Self::Busy
            | Self::QdrantUnavailable
            | Self::SnapshotFailed
            | Self::UploadFailed
            | Self::DownloadFailed
            | Self::StoreUnavailable
            | Self::HostUnreachable
            | Self::Stalled => true,
            Self::IndexingIncomplete
            | Self::ConfigInvalid
            | Self::QdrantUnauthorized
            | Self::QdrantUnsupported
            | Self::CollectionUnsupported
            | Self::LowDisk
            | Self::ChecksumMismatch
            | Self::ArchiveCorrupt
            | Self::ManifestMissing
            | Self::ManifestInvalid
            | Self::ManifestConflict
            | Self::Suspicious
            | Self::RestoreFailed
            | Self::VerificationFailed
            | Self::StagingLeft
            | Self::TokenExpired
            | Self::Cancelled
            | Self::Internal => false,
        }
    }

    /// The exit code of a command that failed so: 2 usage, 3 verification, 1 everything else. Never 194, which the SSM
    /// agent takes as a request to reboot the host.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::ConfigInvalid => 2,
            Self::VerificationFailed => 3,
            Self::IndexingIncomplete
            | Self::NotQuiesced
            | Self::Busy
            | Self::QdrantUnavailable
            | Self::QdrantUnauthorized
            | Self::QdrantUnsupported
            | Self::CollectionUnsupported
            | Self::SnapshotFailed
            | Self::LowDisk
            | Self::UploadFailed
            | Self::DownloadFailed
            | Self::StoreUnavailable
            | Self::ChecksumMismatch
            | Self::ArchiveCorrupt
            | Self::ManifestMissing
            | Self::ManifestInvalid
            | Self::ManifestConflict
            | Self::Suspicious
            | Self::RestoreFailed
            | Self::HostUnreachable
            | Self::StagingLeft
            | Self::TokenExpired
            | Self::Stalled
            | Self::Cancelled
            | Self::Internal => 1,
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An error and its sources, from the outside in, with colons between them. A source may have line breaks of its own.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// What a panic was raised with, if that is a text.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// The text is not the name of a failure kind.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a failure kind")]
pub struct UnknownFailureKind(String);

impl FromStr for FailureKind {
    type Err = UnknownFailureKind;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| UnknownFailureKind(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_spelling_everywhere() {
        for kind in FailureKind::ALL {
            assert_eq!(kind.name(), format!("{kind:?}"));
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
        }
        assert!("States.ALL".parse::<FailureKind>().is_err());
    }

    #[test]
    fn no_exit_code_reboots_the_host() {
        for kind in FailureKind::ALL {
            assert!((1..=3).contains(&kind.exit_code()), "{kind}");
        }
    }
}
