//! What a restore drill has to say: the model of `report.json`, which the HTML page is made from.
//!
//! What is judged here is judged by pure functions: [`fidelity`] compares what was recorded with what was found, in numbers, and [`trend`] looks at earlier drills.

pub mod fidelity;
pub mod trend;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::{
    fidelity::Fidelity,
    trend::{Earlier, Forecast},
};
use crate::{
    BackupId, ExecutionName, FailureKind, Manifest,
    manifest::{PhaseTiming, Tool},
    verdict::Verdict,
};

/// The format version that this code writes, and the newest that it reads.
pub const FORMAT_VERSION: u32 = 1;

/// What a drill has to say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DrillReport {
    /// The version of this format.
    pub format_version: u32,
    /// The backup that was to be restored.
    pub backup_id: BackupId,
    /// The execution of the state machine that asked for it.
    pub execution: ExecutionName,
    /// When the drill began on the staging host.
    pub started_at: Timestamp,
    /// What came of it.
    pub outcome: DrillOutcome,
    /// What was restored, from where; absent where its manifest could not be read.
    pub backup: Option<Restored>,
    /// What took how long, in order.
    pub timeline: Vec<PhaseTiming>,
    /// Whether an earlier attempt of the drill had done a part of it: the times are then not those of a recovery.
    #[serde(default)]
    pub resumed: bool,
    /// Every comparison; absent where it did not come to that.
    pub verdict: Option<Verdict>,
    /// How faithful each collection is, in the manifest's order.
    pub collections: Vec<Fidelity>,
    /// What warming up came to, in words; absent where the host does not warm up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_up: Option<String>,
    /// The recovery time: from the drill's beginning to restored, verified and, where the host warms up, warm.
    pub recovery_time: Measured,
    /// The recovery point: how old the published backup was when the drill began, which is what a loss at that moment would have cost.
    pub recovery_point: Option<Measured>,
    /// Earlier drills, oldest first.
    pub earlier: Vec<Earlier>,
    /// When the recovery time breaks its target at present growth.
    pub forecast: Forecast,
    /// The program that restored.
    pub tool: Tool,
    /// The version of the Qdrant that it was restored into, where one answered.
    pub qdrant: Option<String>,
}

/// What came of a drill.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum DrillOutcome {
    /// The backup restores, and is what was recorded.
    Passed,
    /// It restores, and is something else.
    Different,
    /// It was not restored.
    Failed {
        /// What kind of failure it was.
        kind: FailureKind,
        /// What failed, and why, on one line.
        message: String,
        /// What to do about it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
}

/// A duration, and what it should have been at most; both in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// What was measured.
    pub seconds: f64,
    /// What was asked for.
    pub target_seconds: f64,
}

impl Measured {
    /// Whether the target was kept.
    pub fn kept(self) -> bool {
        self.seconds <= self.target_seconds
    }
}

/// What was restored: the evidence, as its manifest states it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    /// When the backup was made.
    pub created_at: Timestamp,
    /// Whether the pointer named it when the drill began.
    pub published: bool,
    /// Where the archive is: bucket, key and version.
    pub bucket: String,
    /// The archive's key.
    pub key: String,
    /// The version of the object, where the bucket has versions.
    pub version_id: Option<String>,
    /// Bytes of the archive.
    pub size_bytes: u64,
    /// Bytes of the snapshots in it.
    pub raw_bytes: u64,
    /// SHA-256 of the archive.
    pub sha256: String,
    /// CRC-64/NVME of the archive, base64.
    pub crc64nvme: String,
    /// Root hash of its frames.
    pub frames_root: String,
    /// How many frames it has.
    pub frame_count: u64,
    /// SHA-256 of the golden set that the data was compared with.
    pub golden_sha256: String,
    /// The version of the Qdrant that was backed up.
    pub qdrant: String,
    /// The image that it ran from.
    pub image: Option<String>,
    /// The indexing batch that it covers.
    pub batch: Option<String>,
    /// The program that made the backup.
    pub tool: Tool,
}

impl Restored {
    /// What a manifest says.
    pub fn of(manifest: &Manifest, bucket: &str, published: bool) -> Self {
        Self {
            created_at: manifest.created_at,
            published,
            bucket: bucket.to_owned(),
            key: manifest.key.to_string(),
            version_id: manifest.version_id.clone(),
            size_bytes: manifest.size_bytes,
            raw_bytes: manifest.archive.raw_bytes,
            sha256: manifest.sha256.clone(),
            crc64nvme: manifest.crc64nvme.clone(),
            frames_root: manifest.archive.frames_root.clone(),
            frame_count: manifest.archive.frame_count,
            golden_sha256: manifest.archive.golden_sha256.clone(),
            qdrant: manifest.qdrant.version.clone(),
            image: manifest.qdrant.image.clone(),
            batch: manifest.indexing.as_ref().map(|indexing| indexing.batch_id.clone()),
            tool: manifest.tool.clone(),
        }
    }
}

/// A stored report cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidReport {
    /// It is not the JSON expected.
    #[error("the drill's report is not the JSON expected")]
    Json(#[from] serde_json::Error),
    /// A later version of this program wrote it.
    #[error("the drill's report has format version {0}, this program reads up to {FORMAT_VERSION}")]
    NewerFormat(u32),
}

impl DrillReport {
    /// The document's bytes.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a report.
    pub fn from_json(bytes: &[u8]) -> Result<Self, InvalidReport> {
        #[derive(Deserialize)]
        struct Version {
            format_version: u32,
        }
        let Version { format_version } = serde_json::from_slice(bytes)?;
        if format_version > FORMAT_VERSION {
            return Err(InvalidReport::NewerFormat(format_version));
        }
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Whether the backup restores, and is what was recorded.
    pub fn passed(&self) -> bool {
        self.outcome == DrillOutcome::Passed
    }

    /// What a later drill keeps of this one; `None` where nothing was restored, or a part of it by an earlier attempt: neither says how long that takes.
    pub fn as_earlier(&self) -> Option<Earlier> {
        let backup = self.backup.as_ref()?;
        let measured = !self.resumed && !matches!(self.outcome, DrillOutcome::Failed { .. });
        measured.then(|| Earlier {
            started_at: self.started_at,
            backup_id: self.backup_id,
            raw_bytes: backup.raw_bytes,
            seconds: self.recovery_time.seconds,
            passed: self.passed(),
        })
    }
}
