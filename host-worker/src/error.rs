//! Everything that a command can fail with.
//!
//! `Display` says what failed and on what, never the source's text: [`crate::output`] prints the chain.

use std::{error::Error as StdError, io, path::PathBuf};

use protocol::{BackupId, CollectionName, FailureKind, Verdict, drill::Fidelity};

use crate::{boot, config::ByteSize, machine, qdrant, quiesce, verify::Summary};

/// A command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    // Settings.
    /// A setting that this command needs has no value.
    #[error("`{name}` is not set")]
    MissingSetting {
        /// The setting, as in the config file.
        name: &'static str,
    },
    /// A setting's value cannot be used.
    #[error("`{name}` cannot be used: {problem}")]
    BadSetting {
        /// The setting.
        name: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A setting's value breaks a rule that another part states.
    #[error("`{name}` cannot be used")]
    Setting {
        /// The setting.
        name: &'static str,
        /// The rule.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The config file is not what it should be.
    #[error("the config file cannot be used")]
    ConfigFile {
        /// What is wrong with it.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The config file says something that no setting is.
    #[error("the config file cannot be used: {problem}")]
    BadConfigFile {
        /// What is wrong, without the text of the file.
        problem: String,
    },
    /// The API key's file cannot be read.
    #[error("read Qdrant's API key")]
    ApiKeyFile {
        /// Why; names the file.
        #[source]
        source: io::Error,
    },
    /// The request makes no sense with the state that was found.
    #[error("{problem}")]
    Request {
        /// What does not go together.
        problem: String,
        /// What to do instead.
        hint: String,
    },

    /// It is not certain enough what is published to remove anything.
    #[error("nothing is removed: {why}")]
    NotPruned {
        /// What is not certain.
        why: String,
    },

    /// A task was handed over that cannot be read.
    #[error(transparent)]
    Envelope(#[from] protocol::task::InvalidEnvelope),

    /// A drill was sent to a host whose data is not to be touched.
    #[error("this host is not for drills: its `host-role` is not `staging`")]
    NotForDrills,

    // Other parts.
    /// The boot does not go on by itself.
    #[error(transparent)]
    Boot(#[from] boot::Refused),
    /// The machine below Qdrant.
    #[error(transparent)]
    Machine(#[from] machine::Error),
    /// Qdrant.
    #[error(transparent)]
    Qdrant(#[from] qdrant::Error),
    /// Writes did not end.
    #[error(transparent)]
    Quiesce(#[from] quiesce::Error),
    /// The archive could not be moved.
    #[error(transparent)]
    Transfer(Box<transfer::Error>),
    /// The catalogue.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),

    /// The store cannot do what publication stands on.
    #[error("the bucket cannot be published to: {problem}")]
    StoreUnfit {
        /// What it does.
        problem: String,
        /// The kind of failure that it would end in.
        kind: FailureKind,
        /// What to do.
        hint: Option<String>,
    },

    // This host.
    /// Another backup or restore runs on this host.
    #[error("`{}` is held by: {holder}", path.display())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// Who says to hold it.
        holder: String,
    },
    /// The lock cannot be taken.
    #[error("take the host's lock")]
    LockFile {
        /// Why; names the file.
        #[source]
        source: io::Error,
    },
    /// A file of this program cannot be read or written.
    #[error("{what}")]
    Local {
        /// Which file, and what was done with it.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A disk has too little room.
    #[error("`{}` has {} free, {} are needed for {purpose}", path.display(), ByteSize(*free), ByteSize(*needed))]
    LowDisk {
        /// A directory on the disk.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// Needed bytes.
        needed: u64,
        /// For what.
        purpose: &'static str,
    },

    // Backup.
    /// The snapshot that Qdrant made cannot be seen on this host.
    #[error("Qdrant made the snapshot `{snapshot}` of collection `{collection}`, but `{}` is not there", path.display())]
    SnapshotNotVisible {
        /// The collection.
        collection: CollectionName,
        /// The snapshot.
        snapshot: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// A snapshot's file is not as large as Qdrant said.
    #[error("the snapshot `{}` has {found} bytes, but Qdrant made it with {expected}", path.display())]
    SnapshotSize {
        /// The file.
        path: PathBuf,
        /// The size that Qdrant named, in bytes.
        expected: u64,
        /// The size that it has, in bytes.
        found: u64,
    },
    /// Collections or aliases changed each time the snapshots were taken.
    #[error("collections or aliases were changed while snapshots were taken, {rounds} times in a row")]
    KeepsChanging {
        /// How often the snapshots were taken.
        rounds: u32,
    },
    /// There is nothing to back up.
    #[error("collection `{collection}` is not there")]
    NoSuchCollection {
        /// The collection.
        collection: CollectionName,
    },

    // Restore and verification.
    /// There is no backup at all.
    #[error("there is no backup in the bucket")]
    NoBackup,
    /// The backup does not hold a collection that was asked for.
    #[error("backup {backup} does not hold collection `{collection}`")]
    NotInBackup {
        /// The backup.
        backup: BackupId,
        /// The collection.
        collection: CollectionName,
    },
    /// Something is in the way of a restore.
    #[error("the restore would touch live data: {what}")]
    InTheWay {
        /// What.
        what: String,
    },
    /// A collection that an earlier run of the same restore asked for is there, and not as recorded.
    #[error(
        "the restore would touch live data: collection `{collection}`, which an earlier run asked Qdrant to recover, is not as recorded: {found}"
    )]
    HalfInTheWay {
        /// The collection, by its name in Qdrant.
        collection: CollectionName,
        /// How it differs.
        found: String,
        /// What to type.
        remedy: String,
    },
    /// Qdrant accepted a change of aliases and does not show it.
    #[error(
        "alias `{alias}` does not point at collection `{collection}` although Qdrant accepted the change"
    )]
    AliasNotSet {
        /// The alias.
        alias: String,
        /// Where it should point.
        collection: CollectionName,
    },
    /// The golden set beside the archive is not the one that the manifest names.
    #[error("the golden set `{key}` is not the one that the manifest names")]
    GoldenMismatch {
        /// Its key.
        key: String,
    },
    /// The golden set beside the archive is gone.
    #[error("the golden set `{key}` is not in the bucket")]
    GoldenMissing {
        /// Its key.
        key: String,
    },
    /// The golden set beside the archive cannot be read.
    #[error("the golden set `{key}` cannot be read")]
    GoldenUnreadable {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A restore ended, but what it left is not what was recorded.
    #[error("backup {backup} was restored, but the data is not what was recorded: {}", Summary::failures(verdict).join("; "))]
    NotAsRecorded {
        /// The backup.
        backup: BackupId,
        /// The comparison.
        verdict: Box<Verdict>,
        /// The same in numbers, where they were taken.
        fidelity: Vec<Fidelity>,
        /// The collections that were left in place.
        left: Vec<String>,
        /// Whether readers see them by their aliases.
        aliases_set: bool,
    },
    /// A restore failed, and could not undo all that it had done.
    #[error("the restore failed, and not everything could be undone: {}", remains.join("; "))]
    NotUndone {
        /// What is otherwise than before, a line each.
        remains: Vec<String>,
        /// Why the restore failed.
        #[source]
        source: Box<Error>,
    },
    /// A restore was asked to stop, and left everything for the next run of it.
    #[error("stopped by a signal{}{}", if kept.is_empty() { "" } else { "; " }, kept.join("; "))]
    Stopped {
        /// What it has done to Qdrant, a line each.
        kept: Vec<String>,
    },
    /// The process was asked to stop.
    #[error("stopped by a signal")]
    Cancelled,
}

impl From<transfer::Error> for Error {
    fn from(error: transfer::Error) -> Self {
        Self::Transfer(Box::new(error))
    }
}

impl Error {
    /// What kind of failure it is, for programs.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::MissingSetting { .. }
            | Self::BadSetting { .. }
            | Self::Setting { .. }
            | Self::ConfigFile { .. }
            | Self::BadConfigFile { .. }
            | Self::ApiKeyFile { .. }
            | Self::NotForDrills
            | Self::Request { .. }
            | Self::SnapshotNotVisible { .. } => FailureKind::ConfigInvalid,
            // What AWS lets through the document's patterns and this program does not take: one of the two is of another version.
            Self::Envelope(_) => FailureKind::ConfigInvalid,
            Self::NotPruned { .. } => FailureKind::Suspicious,
            Self::Boot(refused) => refused.kind(),
            Self::Machine(error) => error.kind(),
            Self::Qdrant(error) => error.kind(),
            Self::Quiesce(error) => error.kind(),
            Self::Transfer(error) => error.kind(),
            Self::Catalog(error) => error.kind(),
            Self::StoreUnfit { kind, .. } => *kind,
            Self::Locked { .. } => FailureKind::Busy,
            Self::LockFile { source } | Self::Local { source, .. } => of_io(source.kind()),
            Self::LowDisk { .. } => FailureKind::LowDisk,
            Self::KeepsChanging { .. } | Self::SnapshotSize { .. } => FailureKind::SnapshotFailed,
            Self::NoSuchCollection { .. } | Self::NotInBackup { .. } => FailureKind::ConfigInvalid,
            Self::NoBackup => FailureKind::ManifestMissing,
            Self::InTheWay { .. } | Self::HalfInTheWay { .. } | Self::AliasNotSet { .. } => {
                FailureKind::RestoreFailed
            }
            Self::GoldenMismatch { .. } => FailureKind::ChecksumMismatch,
            Self::GoldenMissing { .. } => FailureKind::ManifestMissing,
            Self::GoldenUnreadable { .. } => FailureKind::ArchiveCorrupt,
            Self::NotAsRecorded { .. } => FailureKind::VerificationFailed,
            Self::NotUndone { source, .. } => source.kind(),
            Self::Cancelled | Self::Stopped { .. } => FailureKind::Cancelled,
        }
    }

    /// What to do about it, where there is something to say that the message does not.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::MissingSetting { name } => {
                let variable = name.to_uppercase().replace('-', "_");
                Some(format!("give --{name}, set QDRANT_BACKUP_{variable}, or write `{name}` into the config file"))
            }
            Self::Request { hint, .. } => Some(hint.clone()),
            Self::NotForDrills => Some(
                "a drill restores into a host that is thrown away afterwards; that one's settings say `host-role = \"staging\"`".to_owned(),
            ),
            Self::Envelope(_) => Some(
                "the document, the Lambdas and host-worker must be of one version; `dispatch` is for the SSM document, a person types `host-worker backup`".to_owned(),
            ),
            Self::NotPruned { .. } => Some("look at `host-worker list`; publish what is right, and `host-worker acknowledge` where this host is degraded".to_owned()),
            Self::Boot(refused) => refused.hint(),
            Self::Machine(error) => error.hint(),
            Self::Qdrant(error) => error.hint().map(str::to_owned),
            Self::Quiesce(error) => error.hint().map(str::to_owned),
            Self::Transfer(error) => error.hint(),
            Self::Catalog(error) => error.hint(),
            Self::StoreUnfit { hint, .. } => hint.clone(),
            Self::Locked { .. } => Some("wait until it has ended; the lock goes with its process".to_owned()),
            Self::LowDisk { .. } => {
                Some("delete old snapshots (`GET /collections/{name}/snapshots` lists them) or use a larger disk".to_owned())
            }
            Self::SnapshotNotVisible { .. } => Some(
                "--snapshots-dir must be the directory that Qdrant calls its snapshots path, and --qdrant-snapshots-path its name inside the container"
                    .to_owned(),
            ),
            Self::SnapshotSize { .. } => Some(
                "a snapshot must stay as it is until it is uploaded; is a clean-up running, or the disk failing?".to_owned(),
            ),
            Self::KeepsChanging { .. } => Some("stop creating, deleting and re-aliasing collections until the backup is done".to_owned()),
            Self::NoBackup => Some("`host-worker list` shows what is there; check --bucket and --prefix".to_owned()),
            Self::NotInBackup { backup, .. } => Some(format!("`host-worker show --backup {backup}` lists its collections")),
            Self::InTheWay { .. } => Some(
                "restore beside it with --as SUFFIX, or type --replace to delete what is in the way".to_owned(),
            ),
            Self::HalfInTheWay { remedy, .. } => Some(format!("if nobody else made it, {remedy}")),
            Self::Stopped { .. } => Some("the same command goes on from there, with what is downloaded already".to_owned()),
            Self::GoldenMissing { .. } | Self::GoldenMismatch { .. } | Self::GoldenUnreadable { .. } => {
                Some(
                    "`host-worker verify --archive` tells whether the archive itself is whole; `host-worker restore --unproved` compares only counts, configuration and aliases"
                        .to_owned(),
                )
            }
            Self::NotAsRecorded { left, .. } if left.is_empty() => None,
            Self::NotAsRecorded { left, aliases_set, .. } => Some(format!(
                "{}; the restored collections were left for inspection: {}",
                if *aliases_set { "aliases point at them" } else { "aliases were not touched" },
                left.join(", ")
            )),
            Self::NotUndone { .. } => Some(
                "the archive is untouched: type the same command again to go on from what is there; only what was deleted and is not back needs `host-worker restore --replace --collection NAME`".to_owned(),
            ),
            Self::Local { source, .. } | Self::LockFile { source } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("Qdrant writes snapshots for its own user only: run as root or as that user".to_owned())
            }
            Self::BadSetting { .. }
            | Self::Setting { .. }
            | Self::ConfigFile { .. }
            | Self::BadConfigFile { .. }
            | Self::ApiKeyFile { .. }
            | Self::LockFile { .. }
            | Self::Local { .. }
            | Self::NoSuchCollection { .. }
            | Self::AliasNotSet { .. }
            | Self::Cancelled => None,
        }
    }
}

/// What an error on a file of this host means: a full disk, a setting that names the wrong place, or a fault.
fn of_io(kind: io::ErrorKind) -> FailureKind {
    if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        FailureKind::LowDisk
    } else if matches!(
        kind,
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::NotFound
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::ReadOnlyFilesystem
    ) {
        FailureKind::ConfigInvalid
    } else {
        FailureKind::Internal
    }
}
