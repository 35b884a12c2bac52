//! What has been proved of a backup, and when.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::BackupId;

/// How far a backup has been proved. Each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProofLevel {
    /// The store confirmed the upload.
    Uploaded,
    /// The store's own checksum of the whole object equals ours: true of everything that is published.
    Checksummed,
    /// Every byte was read back and every frame's hash compared.
    ReRead,
    /// A Qdrant was brought up from it.
    Restored,
    /// Every exact count was right.
    Counted,
    /// Every sampled point and every recorded search was right.
    Searched,
    /// All that within the recovery time that was asked for.
    FastEnough,
}

impl ProofLevel {
    /// The name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Uploaded => "uploaded",
            Self::Checksummed => "checksummed",
            Self::ReRead => "re-read",
            Self::Restored => "restored",
            Self::Counted => "counted",
            Self::Searched => "searched",
            Self::FastEnough => "fast-enough",
        }
    }
}

/// One proof, stored next to the backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Proof {
    /// The backup that was proved.
    pub backup_id: BackupId,
    /// How far.
    pub level: ProofLevel,
    /// When the proof was complete.
    pub proved_at: Timestamp,
    /// The program and version that proved it.
    pub tool: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_ordered_and_spelled_alike() {
        let levels = [
            ProofLevel::Uploaded,
            ProofLevel::Checksummed,
            ProofLevel::ReRead,
            ProofLevel::Restored,
            ProofLevel::Counted,
            ProofLevel::Searched,
            ProofLevel::FastEnough,
        ];
        assert!(levels.is_sorted());
        for level in levels {
            assert_eq!(serde_json::to_value(level).unwrap(), level.name());
        }
    }
}
