//! What can go wrong in a transfer: one variant per operation, with the thing it failed on.

use std::{any::Any, io, path::PathBuf};

use protocol::FailureKind;
use tokio::task::JoinError;

use crate::{
    index::IndexError,
    layout::LayoutError,
    store::{StoreError, StoreErrorKind},
};

/// A transfer failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The entries to be packed do not make an archive.
    #[error("lay out the archive `{key}`")]
    Plan {
        /// The archive.
        key: String,
        /// The rule that is broken.
        #[source]
        source: LayoutError,
    },
    /// There is no such compression level.
    #[error("compression level {level}, but only 1 to 19 can be fixed")]
    Level {
        /// The level.
        level: i32,
    },
    /// The object could become larger than any store takes.
    #[error("the archive could have {bound} bytes, but an object has at most {limit}")]
    TooLarge {
        /// The size that it could have, in bytes.
        bound: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The memory budget does not hold what has to be in memory at once.
    #[error(
        "memory budget of {budget} bytes, but {needed} bytes are needed: one part or range of {part} bytes, \
         and {frame} bytes to work on one frame"
    )]
    BudgetTooSmall {
        /// The budget in bytes.
        budget: u64,
        /// The least budget in bytes.
        needed: u64,
        /// One part (or range) in bytes.
        part: u64,
        /// What working on one frame takes, in bytes.
        frame: u64,
    },
    /// A source cannot be opened.
    #[error("open the source `{}`", path.display())]
    SourceOpen {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A source cannot be read.
    #[error("read the source `{}` at byte {offset}", path.display())]
    SourceRead {
        /// The file.
        path: PathBuf,
        /// Where, in bytes.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A source is not what it was when the archive was planned.
    #[error("the source `{}` changed: {what}", path.display())]
    SourceChanged {
        /// The file.
        path: PathBuf,
        /// In what.
        what: String,
    },
    /// A source's bytes are not those that were announced.
    #[error("the source of `{entry}` has SHA-256 {found}, not {expected}")]
    SourceChecksum {
        /// The entry's name.
        entry: String,
        /// What was announced, in hexadecimal.
        expected: String,
        /// What was read, in hexadecimal.
        found: String,
    },
    /// zstd refused to compress a frame.
    #[error("compress frame {frame}: {reason}")]
    Compress {
        /// The frame.
        frame: u64,
        /// What zstd says.
        reason: String,
    },
    /// The multipart upload cannot be started.
    #[error("start the upload of `{key}`")]
    Create {
        /// The archive.
        key: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// A part cannot be stored.
    #[error("upload part {part} of `{key}` ({attempts} attempts)")]
    UploadPart {
        /// The archive.
        key: String,
        /// The part.
        part: u32,
        /// How often it was tried.
        attempts: u32,
        /// Why the last attempt failed.
        #[source]
        source: StoreError,
    },
    /// The store has other bytes than were sent.
    #[error("part {part} of `{key}` is stored wrong: {what}")]
    PartDiffers {
        /// The archive.
        key: String,
        /// The part.
        part: u32,
        /// In what.
        what: String,
    },
    /// The store's parts cannot be listed.
    #[error("list the parts of `{key}`")]
    ListParts {
        /// The archive.
        key: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The object cannot be made out of its parts.
    #[error("complete the upload of `{key}`")]
    Complete {
        /// The archive.
        key: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// The upload that the journal tells of cannot be gone on with. It is aborted, and the journal removed.
    #[error("the interrupted upload of `{key}` cannot be resumed: {what}")]
    NotResumable {
        /// The archive.
        key: String,
        /// Why not.
        what: String,
    },
    /// Another object has the key.
    #[error("`{key}` exists already and is not this archive: {what}")]
    KeyTaken {
        /// The archive.
        key: String,
        /// How the two differ.
        what: String,
    },
    /// The finished object is not what was sent.
    #[error("the stored `{key}` is not what was sent: {what}")]
    ObjectDiffers {
        /// The archive.
        key: String,
        /// In what.
        what: String,
    },
    /// The object cannot be asked about.
    #[error("look at `{key}`")]
    Head {
        /// The object.
        key: String,
        /// Why.
        #[source]
        source: StoreError,
    },
    /// There is no such object.
    #[error("`{key}` does not exist")]
    ObjectMissing {
        /// The object.
        key: String,
    },
    /// The object does not have the size that is recorded.
    #[error("`{key}` has {found} bytes, not {expected}")]
    ObjectSize {
        /// The object.
        key: String,
        /// The recorded size in bytes.
        expected: u64,
        /// The size that it has in bytes.
        found: u64,
    },
    /// A range cannot be read.
    #[error("read bytes {start}..{end} of `{key}` ({attempts} attempts)")]
    GetRange {
        /// The object.
        key: String,
        /// The first byte.
        start: u64,
        /// The byte after the last.
        end: u64,
        /// How often it was tried.
        attempts: u32,
        /// Why the last attempt failed.
        #[source]
        source: StoreError,
    },
    /// The frame index cannot be used.
    #[error("read the frame index `{key}`")]
    Index {
        /// The index's key.
        key: String,
        /// Why.
        #[source]
        source: IndexError,
    },
    /// What a manifest says about an archive breaks the format, or does not fit the frame index.
    #[error("the archive `{key}` is not described consistently: {what}")]
    Inconsistent {
        /// The archive.
        key: String,
        /// What does not fit.
        what: String,
    },
    /// A frame's bytes are not those in the index. Nothing of it was let out.
    #[error("frame {frame} of `{key}` is damaged ({place}): {what}")]
    FrameDamaged {
        /// The archive.
        key: String,
        /// The frame.
        frame: u64,
        /// Where it belongs.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// The caller wants something that is not in the archive, or wants it twice.
    #[error("restore from `{key}`: {what}")]
    Wanted {
        /// The archive.
        key: String,
        /// What is wrong.
        what: String,
    },
    /// A target cannot be written.
    #[error("write `{}`", path.display())]
    TargetWrite {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What an earlier restore left cannot be read.
    #[error("read `{}`, which an earlier restore left, at byte {offset}", path.display())]
    LeftoverRead {
        /// The file.
        path: PathBuf,
        /// Where, in bytes.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A target is already there.
    #[error("`{}` exists already", path.display())]
    TargetExists {
        /// The file.
        path: PathBuf,
    },
    /// A thread cannot be started.
    #[error("start a thread")]
    Thread {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A thread or task of the transfer panicked.
    #[error("`{thread}` panicked: {message}")]
    Panicked {
        /// The thread or task.
        thread: String,
        /// What it said.
        message: String,
    },
    /// A step found what the steps before it rule out: a mistake in this program.
    #[error("a mistake in this program: {what}")]
    Internal {
        /// What it found.
        what: &'static str,
    },
    /// The caller asked to stop.
    #[error("stopped on request")]
    Cancelled,
}

impl Error {
    /// What catching a panic of `thread` gave.
    pub(crate) fn panicked(thread: impl Into<String>, panic: Box<dyn Any + Send>) -> Self {
        let message = match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(panic) => panic.downcast_ref::<&str>().unwrap_or(&"no message").to_string(),
        };
        Self::Panicked { thread: thread.into(), message }
    }

    /// What waiting for the task `task` gave.
    pub(crate) fn joined(task: &str, error: JoinError) -> Self {
        match error.try_into_panic() {
            Ok(panic) => Self::panicked(task, panic),
            Err(_cancelled) => Self::Internal { what: "a task was cancelled that nobody cancels" },
        }
    }

    /// What kind of failure it is, for programs.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Plan { source, .. } => match source {
                LayoutError::TooManyFrames { .. }
                | LayoutError::TooLarge
                | LayoutError::TooManyEntries { .. } => FailureKind::CollectionUnsupported,
                LayoutError::Name { .. } | LayoutError::Duplicate { .. } | LayoutError::Empty => {
                    FailureKind::Internal
                }
            },
            Self::BudgetTooSmall { .. } | Self::Level { .. } => FailureKind::ConfigInvalid,
            Self::TooLarge { .. } => FailureKind::CollectionUnsupported,
            Self::SourceOpen { source, .. } if is_denied(source) => FailureKind::ConfigInvalid,
            Self::SourceOpen { .. } | Self::SourceRead { .. } | Self::SourceChanged { .. } => {
                FailureKind::SnapshotFailed
            }
            Self::SourceChecksum { .. } | Self::PartDiffers { .. } | Self::ObjectDiffers { .. } => {
                FailureKind::ChecksumMismatch
            }
            Self::Compress { .. }
            | Self::Thread { .. }
            | Self::Panicked { .. }
            | Self::Internal { .. }
            | Self::Wanted { .. } => FailureKind::Internal,
            Self::Create { source, .. }
            | Self::UploadPart { source, .. }
            | Self::ListParts { source, .. }
            | Self::Complete { source, .. } => of_store(source, FailureKind::UploadFailed),
            Self::KeyTaken { .. } | Self::NotResumable { .. } => FailureKind::UploadFailed,
            Self::Head { source, .. } | Self::GetRange { source, .. } => {
                of_store(source, FailureKind::DownloadFailed)
            }
            Self::ObjectMissing { .. } => FailureKind::ManifestMissing,
            Self::ObjectSize { .. } | Self::Index { .. } | Self::Inconsistent { .. } => {
                FailureKind::ArchiveCorrupt
            }
            Self::FrameDamaged { .. } => FailureKind::ArchiveCorrupt,
            Self::TargetWrite { source, .. } if is_full(source) => FailureKind::LowDisk,
            Self::TargetWrite { .. } | Self::LeftoverRead { .. } | Self::TargetExists { .. } => {
                FailureKind::RestoreFailed
            }
            Self::Cancelled => FailureKind::Cancelled,
        }
    }

    /// Whether another run can go on with the upload that failed so, from its journal.
    ///
    /// Not so where the sources are not what they were or the store has something else than was sent: then nothing can come of it.
    pub fn is_resumable(&self) -> bool {
        match self {
            Self::Cancelled | Self::BudgetTooSmall { .. } | Self::Thread { .. } => true,
            // A mistake in this program would be made again by whoever goes on from the same place.
            Self::Panicked { .. } | Self::Internal { .. } => false,
            // The whole is summed up from what the journal says: another run would come to the same.
            Self::Complete { source, .. } if source.kind == StoreErrorKind::BadDigest => false,
            Self::Create { source, .. }
            | Self::UploadPart { source, .. }
            | Self::ListParts { source, .. }
            | Self::Complete { source, .. }
            | Self::Head { source, .. }
            | Self::GetRange { source, .. } => match source.kind {
                // Settings, policies, clocks and networks are put right, and the bytes are still there.
                StoreErrorKind::AccessDenied
                | StoreErrorKind::ClockSkewed
                | StoreErrorKind::Unsent
                | StoreErrorKind::NoSuchBucket
                | StoreErrorKind::Throttled
                | StoreErrorKind::Transient
                | StoreErrorKind::BadDigest => true,
                StoreErrorKind::NoSuchKey
                | StoreErrorKind::NoSuchUpload
                | StoreErrorKind::PreconditionFailed
                | StoreErrorKind::OutOfRange
                | StoreErrorKind::Refused => false,
            },
            Self::Plan { .. }
            | Self::Level { .. }
            | Self::TooLarge { .. }
            | Self::SourceOpen { .. }
            | Self::SourceRead { .. }
            | Self::SourceChanged { .. }
            | Self::SourceChecksum { .. }
            | Self::Compress { .. }
            | Self::PartDiffers { .. }
            | Self::NotResumable { .. }
            | Self::KeyTaken { .. }
            | Self::ObjectDiffers { .. }
            | Self::ObjectMissing { .. }
            | Self::ObjectSize { .. }
            | Self::Index { .. }
            | Self::Inconsistent { .. }
            | Self::FrameDamaged { .. }
            | Self::Wanted { .. }
            | Self::TargetWrite { .. }
            | Self::LeftoverRead { .. }
            | Self::TargetExists { .. } => false,
        }
    }

    /// What a person can do about it, where there is something specific to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::TooLarge { .. } => Some("back up fewer collections at once with `--collection`".into()),
            Self::BudgetTooSmall { needed, .. } => Some(format!("set the memory budget to {needed} bytes or more")),
            Self::SourceOpen { source, .. } if is_denied(source) => Some(
                "Qdrant writes snapshots with mode 0600 for its own user: run this program as root or as that user".into(),
            ),
            Self::SourceOpen { .. } | Self::SourceRead { .. } | Self::SourceChanged { .. } => Some(
                "a snapshot must stay as it is until it is uploaded; is another backup or a clean-up running?".into(),
            ),
            Self::SourceChecksum { .. } => {
                Some("the snapshot's file is not what Qdrant wrote; take a new snapshot and check the disk".into())
            }
            Self::Create { source, .. }
            | Self::UploadPart { source, .. }
            | Self::ListParts { source, .. }
            | Self::Complete { source, .. }
            | Self::Head { source, .. }
            | Self::GetRange { source, .. } => hint_of_store(source),
            Self::PartDiffers { .. } | Self::ObjectDiffers { .. } => {
                Some("the store does not keep what it is given; nothing was published".into())
            }
            Self::KeyTaken { .. } | Self::NotResumable { .. } => {
                Some("a new attempt gets a key of its own".into())
            }
            Self::ObjectMissing { .. } | Self::ObjectSize { .. } | Self::FrameDamaged { .. } | Self::Index { .. } => {
                Some("`verify --archive` lists every damage; restore an older backup with `--backup`".into())
            }
            Self::TargetWrite { source, .. } if is_full(source) => {
                Some("free space on the target's file system, then start again".into())
            }
            Self::LeftoverRead { .. } => Some("it was removed: check the disk, then start again from nothing".into()),
            Self::TargetExists { .. } => Some("a restore never overwrites; remove the file or choose another target".into()),
            Self::TargetWrite { .. }
            | Self::Plan { .. }
            | Self::Level { .. }
            | Self::Inconsistent { .. }
            | Self::Compress { .. }
            | Self::Wanted { .. }
            | Self::Thread { .. }
            | Self::Panicked { .. }
            | Self::Internal { .. }
            | Self::Cancelled => None,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn is_denied(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied
}

fn of_store(error: &StoreError, otherwise: FailureKind) -> FailureKind {
    match error.kind {
        StoreErrorKind::AccessDenied
        | StoreErrorKind::ClockSkewed
        | StoreErrorKind::Unsent
        | StoreErrorKind::NoSuchBucket
        | StoreErrorKind::Throttled
        | StoreErrorKind::Transient => FailureKind::StoreUnavailable,
        StoreErrorKind::BadDigest => FailureKind::ChecksumMismatch,
        StoreErrorKind::NoSuchKey
        | StoreErrorKind::NoSuchUpload
        | StoreErrorKind::PreconditionFailed
        | StoreErrorKind::OutOfRange
        | StoreErrorKind::Refused => otherwise,
    }
}

fn hint_of_store(error: &StoreError) -> Option<String> {
    let hint = match error.kind {
        StoreErrorKind::AccessDenied => {
            "check the credentials and that their policy allows this call on this key and the use of the KMS key"
        }
        StoreErrorKind::ClockSkewed => "set this machine's clock: it differs too much from the store's",
        StoreErrorKind::Unsent => {
            "check that credentials are configured and can be fetched, and the endpoint"
        }
        StoreErrorKind::NoSuchBucket => "check the bucket's name, the region and the endpoint",
        StoreErrorKind::Throttled => "the store asks to slow down; use fewer parts in flight",
        StoreErrorKind::Transient => "the store or the network fails; the same call may succeed later",
        StoreErrorKind::NoSuchUpload => "the upload was aborted or expired; a new attempt starts over",
        StoreErrorKind::NoSuchKey
        | StoreErrorKind::PreconditionFailed
        | StoreErrorKind::OutOfRange
        | StoreErrorKind::BadDigest
        | StoreErrorKind::Refused => return None,
    };
    Some(hint.to_owned())
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    #[tokio::test]
    async fn a_panic_keeps_its_thread_and_message() {
        let literal = catch_unwind(|| panic!("a literal")).unwrap_err();
        assert_eq!(Error::panicked("check-1", literal).to_string(), "`check-1` panicked: a literal");
        let formatted = catch_unwind(|| panic!("number {}", 7)).unwrap_err();
        assert_eq!(Error::panicked("check-1", formatted).to_string(), "`check-1` panicked: number 7");
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async { panic!("a task") });
        let joined = tasks.join_next().await.unwrap().unwrap_err();
        let error = Error::joined("fetch", joined);
        assert_eq!(
            (error.to_string().as_str(), error.kind()),
            ("`fetch` panicked: a task", FailureKind::Internal)
        );
    }
}
