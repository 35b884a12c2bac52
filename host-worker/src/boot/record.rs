//! What is remembered of a boot: `boot.json` in the work directory, on the disks whose data it speaks of, so that it goes when they go.
//!
//! It is replaced as a whole, and on the disk before anything happens that it announces. Who wants to know how the host is doing reads it: `doctor`, an
//! alarm, a person.

use std::{io, path::Path};

use jiff::Timestamp;
use protocol::{BackupId, CollectionName, FailureKind};
use serde::{Deserialize, Serialize};

use super::{Refused, warm_up::WarmUp};
use crate::{backup::write_durably, error::Error, output::Failure, qdrant::Version};

/// Its name in the work directory.
pub const FILE: &str = "boot.json";
/// The version of its format that this code writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// A boot: how far it is, and what it is about.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this format.
    pub format_version: u32,
    /// This boot, which may take several runs of the program.
    pub boot_id: String,
    /// When its first run started: recovery time counts from here.
    pub started_at: Timestamp,
    /// How often the program was run for it.
    pub runs: u32,
    /// What it is at.
    pub step: Step,
    /// What it has been at, and for how long.
    pub steps: Vec<StepTime>,
    /// The completion marker. Once it is there, somebody may have written to Qdrant, and nothing is restored ever again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marker: Option<Marker>,
    /// Where the data comes from; absent until it is chosen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// How far the data is.
    pub stage: Stage,
    /// The image that last ran with the data. It is noted before it runs: what a newer one has touched is not for an older one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Whether what is on the disk has to go before anything is put there: a failed attempt of this boot's own, or what `--replace` is about.
    #[serde(default)]
    pub clear: bool,
    /// How often the source has failed in a way that may pass.
    #[serde(default)]
    pub failures: u32,
    /// Sources that turned out not to be usable, in the order in which they were tried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<Rejected>,
    /// How Qdrant was warmed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<WarmUp>,
    /// Why the host is not serving, and what would change that; absent while the boot moves on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Held>,
    /// When Qdrant answered at its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving_at: Option<Timestamp>,
    /// Seconds from the start of the first run until then: the recovery time (RTO).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serving_after_seconds: Option<f64>,
    /// What a person should know of a boot that went on all the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What a boot can be at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Preparing the disks.
    Disks,
    /// Choosing what to restore.
    Choose,
    /// Removing what is on the disk.
    Clear,
    /// Seeing whether there is room.
    Room,
    /// Starting Qdrant for this machine alone, and waiting until it answers.
    Start,
    /// Restoring and verifying.
    Restore,
    /// Starting the configured version of Qdrant on what was restored, and verifying again.
    Move,
    /// Warming up.
    WarmUp,
    /// Setting the completion marker.
    Mark,
    /// Waiting for the machine to have its address.
    Address,
    /// Starting Qdrant at its address, and waiting until it answers, as long as it loads.
    Serve,
    /// Telling the Auto Scaling group.
    Lifecycle,
    /// Nothing any more.
    Done,
}

impl Step {
    /// The name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disks => "disks",
            Self::Choose => "choose",
            Self::Clear => "clear",
            Self::Room => "room",
            Self::Start => "start",
            Self::Restore => "restore",
            Self::Move => "move",
            Self::WarmUp => "warm-up",
            Self::Mark => "mark",
            Self::Address => "address",
            Self::Serve => "serve",
            Self::Lifecycle => "lifecycle",
            Self::Done => "done",
        }
    }
}

/// How long a step took, what it waited for included.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepTime {
    /// The step.
    pub step: Step,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took.
    pub seconds: f64,
}

/// The completion marker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Marker {
    /// When the data was ready to be served.
    pub completed_at: Timestamp,
    /// The boot that had it ready.
    pub boot_id: String,
}

/// Where a host's data comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "from", rename_all = "kebab-case")]
pub enum Source {
    /// A backup in the bucket.
    Backup {
        /// Which one.
        backup_id: BackupId,
        /// The version of Qdrant that it was taken from.
        qdrant: Version,
        /// Why it is this one.
        why: String,
        /// Whether it is another than the published one.
        degraded: bool,
    },
    /// Snapshots on this host's own disk, one per collection.
    LocalSnapshots {
        /// The files.
        files: Vec<LocalSnapshot>,
        /// Why nothing better is there.
        why: String,
    },
    /// Nothing was ever backed up: the host starts empty.
    Nothing,
    /// A person said that the data on the disk is right.
    Adopted,
}

/// A snapshot on this host's own disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalSnapshot {
    /// The collection.
    pub collection: CollectionName,
    /// The file below the snapshots directory.
    pub file: String,
    /// When it was taken, as its name or else its file says.
    pub taken_at: Timestamp,
}

impl Source {
    /// Whether a host with this data is degraded until a person acknowledges it.
    pub fn degraded(&self) -> bool {
        match self {
            Self::Backup { degraded, .. } => *degraded,
            Self::LocalSnapshots { .. } | Self::Nothing => true,
            Self::Adopted => false,
        }
    }

    /// The backup, where it is one.
    pub fn backup(&self) -> Option<BackupId> {
        match self {
            Self::Backup { backup_id, .. } => Some(*backup_id),
            Self::LocalSnapshots { .. } | Self::Nothing | Self::Adopted => None,
        }
    }
}

/// How far a host's data is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Nothing is there, or half of it.
    #[default]
    Missing,
    /// It is there, and verified in the version of Qdrant that it was taken from.
    Restored,
    /// It is there, and verified in the version that is to serve it.
    Ready,
}

/// A source that turned out not to be usable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejected {
    /// The source.
    pub source: Source,
    /// What kind of failure it was.
    pub kind: FailureKind,
    /// What was wrong, on one line.
    pub why: String,
}

/// Why a host is not serving.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Held {
    /// Since when, without anything that moved meanwhile.
    pub since: Timestamp,
    /// The step that failed.
    pub step: Step,
    /// What kind of failure it was.
    pub kind: FailureKind,
    /// What failed, and why, on one line.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// When the boot looks again by itself; absent where only a person can help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looks_again_at: Option<Timestamp>,
}

impl Held {
    pub(super) fn new(step: Step, failure: Failure, since: Timestamp, again: Option<Timestamp>) -> Self {
        let Failure { error: kind, message, causes, hint, transient: _ } = failure;
        let message = std::iter::once(message).chain(causes).collect::<Vec<_>>().join(": ");
        Self { since, step, kind, message: message.replace('\n', " "), hint, looks_again_at: again }
    }

    /// Whether only a person can help.
    pub fn for_a_person(&self) -> bool {
        self.looks_again_at.is_none()
    }
}

impl Record {
    /// A boot that begins.
    pub fn new(boot_id: String, started_at: Timestamp) -> Self {
        Self {
            format_version: FORMAT_VERSION,
            boot_id,
            started_at,
            runs: 1,
            step: Step::Disks,
            steps: Vec::new(),
            marker: None,
            source: None,
            stage: Stage::Missing,
            image: None,
            clear: false,
            failures: 0,
            rejected: Vec::new(),
            warm_up: None,
            held: None,
            serving_at: None,
            serving_after_seconds: None,
            notes: Vec::new(),
        }
    }
}

/// The record in a work directory; `None` where no boot has begun.
pub fn read(work_dir: &Path) -> Result<Option<Record>, Error> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let path = work_dir.join(FILE);
    let bytes = match fs_err::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Local { what: format!("read `{}`", path.display()), source }),
    };
    let unreadable = |source| Refused::RecordUnreadable { path: path.clone(), source };
    let Version { format_version: found } = serde_json::from_slice(&bytes).map_err(unreadable)?;
    if found > FORMAT_VERSION {
        return Err(Refused::RecordNewer { path, found }.into());
    }
    Ok(Some(serde_json::from_slice(&bytes).map_err(unreadable)?))
}

/// Puts the record on the disk, as a whole or not at all.
pub(super) fn write(work_dir: &Path, record: &Record) -> Result<(), Error> {
    let path = work_dir.join(FILE);
    let bytes = serde_json::to_vec_pretty(record).map_err(|source| Error::Local {
        what: format!("write `{}`", path.display()),
        source: source.into(),
    })?;
    write_durably(&path, &bytes)
}
