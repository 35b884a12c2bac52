//! What can go wrong with Qdrant, what kind of failure that is, and what to do.

use std::time::Duration;

use protocol::{CollectionName, FailureKind};

use super::{
    operation::Operation,
    version::{MINIMUM, Version},
};

/// A call to Qdrant failed, or what it says cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is none.
    #[error("the address `{url}` of Qdrant is not an http or https URL")]
    InvalidUrl {
        /// The address.
        url: String,
    },
    /// The HTTP client cannot be set up.
    #[error("set up the HTTP client for Qdrant")]
    Setup {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A call failed.
    #[error("{operation}")]
    Call {
        /// What was asked for.
        operation: Operation,
        /// Why it failed.
        #[source]
        source: Cause,
    },
    /// The connection broke after a call that changes something was sent, and Qdrant could not be asked what became of it.
    #[error("{operation}: the answer was lost, and Qdrant did not come back within {} s", waited.as_secs())]
    AnswerLost {
        /// What was asked for.
        operation: Operation,
        /// How long Qdrant was asked.
        waited: Duration,
        /// Why the last question failed.
        #[source]
        source: Cause,
    },
    /// Qdrant no longer writes a snapshot, and there is none.
    #[error("Qdrant ended the snapshot of collection `{collection}` without a result")]
    SnapshotVanished {
        /// The collection.
        collection: CollectionName,
    },
    /// A snapshot has no checksum to compare its bytes with.
    #[error("the snapshot `{snapshot}` of collection `{collection}` has no SHA-256")]
    NoChecksum {
        /// The collection.
        collection: CollectionName,
        /// The snapshot.
        snapshot: String,
    },
    /// A recovery of the same collection is already running.
    #[error("collection `{collection}` is already being recovered")]
    RecoveryRunning {
        /// The collection.
        collection: CollectionName,
    },
    /// The collection to recover is an alias: recovering would overwrite what it points to.
    #[error("`{alias}` is an alias of collection `{target}`: recovering it would overwrite that collection")]
    TargetIsAlias {
        /// The name given.
        alias: String,
        /// The collection behind it.
        target: String,
    },
    /// The server is too old, or of an unknown kind.
    #[error("Qdrant {found} is not supported: at least {MINIMUM} and below {}.0.0 is", MINIMUM.major + 1)]
    UnsupportedVersion {
        /// The server's version.
        found: Version,
    },
    /// The backup cannot go into this server.
    #[error("a backup of Qdrant {backup} cannot be restored into Qdrant {server}")]
    CannotRestore {
        /// The version that was backed up.
        backup: Version,
        /// The version of the server.
        server: Version,
    },
    /// The collection has user-defined shard keys, which a recovery into a new collection silently drops with all points.
    #[error("collection `{collection}` uses custom sharding: restoring its snapshot would give no points")]
    CustomSharding {
        /// The collection.
        collection: CollectionName,
    },
    /// The name cannot be part of a URL.
    #[error("the name `{name}` cannot be part of a URL")]
    Unaddressable {
        /// The name.
        name: String,
    },
    /// The update queue did not drain.
    #[error("collection `{collection}` still has {length} updates queued after {} s", waited.as_secs())]
    QueueNotEmpty {
        /// The collection.
        collection: CollectionName,
        /// Updates waiting.
        length: u64,
        /// How long it was waited.
        waited: Duration,
    },
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// Nobody answers at the address; the call was not sent.
    #[error("no connection")]
    Connect {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Qdrant took too long.
    #[error("no answer within {} s", after.as_secs_f64())]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The connection broke before the whole answer was there.
    #[error("the connection broke")]
    Broken {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// Qdrant answered with a status other than success.
    #[error("status {status}: {message}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// What Qdrant said, shortened.
        message: String,
        /// When it wants to be asked again, in seconds.
        retry_after: Option<u64>,
    },
    /// The answer is larger than this program is willing to hold.
    #[error("an answer of more than {limit} bytes")]
    TooLarge {
        /// The bound in bytes.
        limit: usize,
    },
    /// The answer is not what this call gives.
    #[error("an answer that is not the JSON expected")]
    Json {
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// The answer contradicts what was asked.
    #[error("an answer that makes no sense: {what}")]
    Unexpected {
        /// In what way.
        what: String,
    },
}

impl Cause {
    /// Whether the same read, made again at once, may well succeed.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::TimedOut { .. } | Self::Broken { .. } => true,
            Self::Status { status, .. } => *status == 429 || *status == 408 || *status >= 500,
            Self::TooLarge { .. } | Self::Json { .. } | Self::Unexpected { .. } => false,
        }
    }

    fn says_disk_full(&self) -> bool {
        match self {
            Self::Status { status, message, .. } => {
                let message = message.to_ascii_lowercase();
                *status == 507
                    || ["no space left", "disk is full", "not enough disk", "available disk space"]
                        .iter()
                        .any(|text| message.contains(text))
            }
            Self::Connect { .. }
            | Self::TimedOut { .. }
            | Self::Broken { .. }
            | Self::TooLarge { .. }
            | Self::Json { .. }
            | Self::Unexpected { .. } => false,
        }
    }

    fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            Self::Connect { .. }
            | Self::TimedOut { .. }
            | Self::Broken { .. }
            | Self::TooLarge { .. }
            | Self::Json { .. }
            | Self::Unexpected { .. } => None,
        }
    }
}

impl Error {
    /// Whether the collection (or snapshot) asked for is not there.
    pub fn is_not_found(&self) -> bool {
        self.cause().and_then(Cause::status) == Some(404)
    }

    /// Whether there were too many calls for now, which says nothing about later ones.
    pub fn is_rate_limited(&self) -> bool {
        self.cause().and_then(Cause::status) == Some(429)
    }

    /// Whether Qdrant answered, and refused.
    pub fn is_answer(&self) -> bool {
        self.cause().and_then(Cause::status).is_some()
    }

    /// Why a read was refused by a rule of the collection (strict mode, rate limits), which says nothing about the data.
    pub fn refusal(&self) -> Option<&str> {
        match self.cause()? {
            Cause::Status { status: 429, message, .. } => Some(message),
            Cause::Status { .. }
            | Cause::Connect { .. }
            | Cause::TimedOut { .. }
            | Cause::Broken { .. }
            | Cause::TooLarge { .. }
            | Cause::Json { .. }
            | Cause::Unexpected { .. } => self.strict_mode(),
        }
    }

    /// Why a call was refused by strict mode.
    pub(super) fn strict_mode(&self) -> Option<&str> {
        match self.cause()? {
            // Its refusals end with `. Help: what to do`; as 400 today, as 403 in other versions.
            Cause::Status { status: 400 | 403, message, .. } if message.contains("Help: ") => Some(message),
            Cause::Status { .. }
            | Cause::Connect { .. }
            | Cause::TimedOut { .. }
            | Cause::Broken { .. }
            | Cause::TooLarge { .. }
            | Cause::Json { .. }
            | Cause::Unexpected { .. } => None,
        }
    }

    /// Whether Qdrant took longer than it was given.
    pub fn is_timeout(&self) -> bool {
        matches!(self.cause(), Some(Cause::TimedOut { .. } | Cause::Status { status: 408, .. }))
    }

    fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Call { source, .. } => Some(source),
            Self::AnswerLost { .. }
            | Self::InvalidUrl { .. }
            | Self::Setup { .. }
            | Self::SnapshotVanished { .. }
            | Self::NoChecksum { .. }
            | Self::RecoveryRunning { .. }
            | Self::TargetIsAlias { .. }
            | Self::UnsupportedVersion { .. }
            | Self::CannotRestore { .. }
            | Self::CustomSharding { .. }
            | Self::Unaddressable { .. }
            | Self::QueueNotEmpty { .. } => None,
        }
    }

    /// The kind of failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Call { operation, source } => call_kind(operation, source),
            Self::AnswerLost { .. } => FailureKind::QdrantUnavailable,
            Self::InvalidUrl { .. } | Self::Setup { .. } => FailureKind::ConfigInvalid,
            Self::SnapshotVanished { .. } | Self::NoChecksum { .. } => FailureKind::SnapshotFailed,
            Self::RecoveryRunning { .. } => FailureKind::Busy,
            Self::TargetIsAlias { .. } | Self::QueueNotEmpty { .. } => FailureKind::RestoreFailed,
            Self::UnsupportedVersion { .. } | Self::CannotRestore { .. } => FailureKind::QdrantUnsupported,
            Self::CustomSharding { .. } | Self::Unaddressable { .. } => FailureKind::CollectionUnsupported,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Call { operation, source } => call_hint(operation, source),
            Self::AnswerLost { .. } => {
                Some("look at the container's log; the call is safe to repeat once Qdrant answers again")
            }
            Self::InvalidUrl { .. } => Some("give the address as http://127.0.0.1:6333"),
            Self::Setup { .. } => Some("an https address needs the system's CA certificates to be installed"),
            Self::SnapshotVanished { .. } => Some(
                "Qdrant's log says why; a full disk and a restart of the container are the usual reasons",
            ),
            Self::NoChecksum { .. } => Some(
                "snapshots on S3 (`snapshots_config`) have no checksum: keep Qdrant's snapshots on the local disk",
            ),
            Self::RecoveryRunning { .. } => {
                Some("wait until the metric `snapshot_recovery_running` of the collection is 0")
            }
            Self::TargetIsAlias { .. } => {
                Some("restore under a name that is no alias, then switch the alias")
            }
            Self::UnsupportedVersion { .. } => Some("upgrade Qdrant, one minor version at a time"),
            Self::CannotRestore { .. } => {
                Some("run the server in the version that was backed up, or the next minor version")
            }
            Self::CustomSharding { .. } => {
                Some("leave the collection out; it needs a backup of its own, by the application")
            }
            Self::Unaddressable { .. } => Some("leave the collection out"),
            Self::QueueNotEmpty { .. } => {
                Some("something still writes, or the replay after loading takes longer: allow more time")
            }
        }
    }
}

fn call_kind(operation: &Operation, cause: &Cause) -> FailureKind {
    if cause.says_disk_full() {
        return FailureKind::LowDisk;
    }
    match (cause, operation) {
        (Cause::Connect { .. } | Cause::Broken { .. } | Cause::TimedOut { .. }, _) => {
            FailureKind::QdrantUnavailable
        }
        // A snapshot outside the snapshots directory is refused as 403, too.
        (Cause::Status { status: 403, message, .. }, Operation::Recover(_))
            if message.contains("snapshots directory") =>
        {
            FailureKind::RestoreFailed
        }
        (Cause::Status { status: 400, message, .. }, Operation::Recover(_))
            if message.to_ascii_lowercase().contains("checksum mismatch") =>
        {
            FailureKind::ChecksumMismatch
        }
        (Cause::Status { status: 401 | 403, .. }, _) => FailureKind::QdrantUnauthorized,
        (_, Operation::Recover(_)) => FailureKind::RestoreFailed,
        (_, Operation::CreateSnapshot(_) | Operation::Snapshots(_) | Operation::DeleteSnapshot(..)) => {
            FailureKind::SnapshotFailed
        }
        (Cause::Status { status: 404, .. }, _) => FailureKind::ConfigInvalid,
        (Cause::Status { status: 408 | 429 | 500.., .. }, _) => FailureKind::QdrantUnavailable,
        (
            Cause::Status { .. } | Cause::TooLarge { .. } | Cause::Json { .. } | Cause::Unexpected { .. },
            _,
        ) => FailureKind::QdrantUnsupported,
    }
}

fn call_hint(operation: &Operation, cause: &Cause) -> Option<&'static str> {
    match call_kind(operation, cause) {
        FailureKind::LowDisk => Some("free space on the disk that holds Qdrant's storage and snapshots"),
        FailureKind::QdrantUnavailable => Some(
            "is the address right and the container running? Qdrant answers only after every collection is loaded",
        ),
        FailureKind::QdrantUnauthorized => {
            Some("the worker needs the read-write key, the one in QDRANT__SERVICE__API_KEY")
        }
        FailureKind::RestoreFailed => Some(
            "the file must lie in the snapshots directory as Qdrant sees it, and be readable by Qdrant's user",
        ),
        FailureKind::SnapshotFailed => Some("Qdrant's log has the details"),
        FailureKind::ChecksumMismatch => {
            Some("the file in the snapshots directory is not the one that was backed up: fetch it again")
        }
        FailureKind::ConfigInvalid => Some("`GET /collections` lists the collections that there are"),
        FailureKind::QdrantUnsupported => {
            Some("is the address that of a Qdrant, and of its REST port (6333)?")
        }
        FailureKind::IndexingIncomplete
        | FailureKind::NotQuiesced
        | FailureKind::Busy
        | FailureKind::CollectionUnsupported
        | FailureKind::UploadFailed
        | FailureKind::DownloadFailed
        | FailureKind::StoreUnavailable
        | FailureKind::ArchiveCorrupt
        | FailureKind::ManifestMissing
        | FailureKind::ManifestInvalid
        | FailureKind::ManifestConflict
        | FailureKind::Suspicious
        | FailureKind::VerificationFailed
        | FailureKind::HostUnreachable
        | FailureKind::StagingLeft
        | FailureKind::TokenExpired
        | FailureKind::Stalled
        | FailureKind::Cancelled
        | FailureKind::Internal => None,
    }
}
