//! The shipped state machines, with their substitutions.

use std::collections::BTreeMap;

use anyhow::Context as _;
use functions::Function;

use super::{ACCOUNT, REGION, STAGING_TAG, TEMPLATE, repository, topic};
use crate::stepfunctions::asl::substitute;

/// The namespace of the metrics that machines publish.
pub const NAMESPACE: &str = "QdrantBackup/local";

/// A state machine that is deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Machine {
    /// `backup.asl.json`.
    Backup,
    /// `restore-drill.asl.json`.
    RestoreDrill,
    /// `terminate-staging.asl.json`.
    TerminateStaging,
    /// `before-termination.asl.json`.
    BeforeTermination,
    /// `watch.asl.json`.
    Watch,
}

impl Machine {
    /// Every machine.
    pub const ALL: [Self; 5] =
        [Self::Backup, Self::RestoreDrill, Self::TerminateStaging, Self::BeforeTermination, Self::Watch];

    /// The name that it is deployed under.
    pub fn name(self) -> &'static str {
        match self {
            Self::Backup => "qdrant-backup",
            Self::RestoreDrill => "qdrant-backup-drill",
            Self::TerminateStaging => "qdrant-backup-terminate-staging",
            Self::BeforeTermination => "qdrant-backup-before-termination",
            Self::Watch => "qdrant-backup-watch",
        }
    }

    /// Its file, below `state-machines/`.
    pub fn file(self) -> &'static str {
        match self {
            Self::Backup => "backup.asl.json",
            Self::RestoreDrill => "restore-drill.asl.json",
            Self::TerminateStaging => "terminate-staging.asl.json",
            Self::BeforeTermination => "before-termination.asl.json",
            Self::Watch => "watch.asl.json",
        }
    }
}

/// A shipped definition with its substitutions, as `DefinitionSubstitutions` makes them; `name_of` says how a function is called.
pub fn definition(machine: Machine, name_of: impl Fn(Function) -> String) -> anyhow::Result<String> {
    let text = fs_err::read_to_string(repository("state-machines").join(machine.file()))?;
    let (staging_key, staging_value) =
        STAGING_TAG.split_once('=').context("the tag has a key and a value")?;
    let staging = [("StagingTagKey", staging_key.to_owned()), ("StagingTagValue", staging_value.to_owned())];
    let mut values = BTreeMap::new();
    if machine != Machine::Watch {
        values.insert("AlarmTopic", topic());
    }
    if matches!(machine, Machine::Backup | Machine::RestoreDrill | Machine::Watch) {
        values.insert("MetricsNamespace", NAMESPACE.to_owned());
    }
    match machine {
        Machine::Backup => values.extend([
            ("QuiesceCheckFunction", name_of(Function::QuiesceCheck)),
            ("TriggerSnapshotFunction", name_of(Function::TriggerSnapshot)),
            ("PublishManifestFunction", name_of(Function::PublishManifest)),
        ]),
        Machine::RestoreDrill => {
            values.extend([
                ("VerifyRestoreFunction", name_of(Function::VerifyRestore)),
                ("StagingTemplate", TEMPLATE.0.to_owned()),
                ("StagingTemplateVersion", TEMPLATE.1.to_owned()),
            ]);
            values.extend(staging);
        }
        Machine::TerminateStaging => values.extend(staging),
        Machine::BeforeTermination => values.extend([("BackupMachine", arn(Machine::Backup))]),
        Machine::Watch => values.extend([
            ("QuiesceCheckFunction", name_of(Function::QuiesceCheck)),
            ("BackupMachine", arn(Machine::Backup)),
            ("DrillMachine", arn(Machine::RestoreDrill)),
            ("DrillSchedule", "monthly".to_owned()),
        ]),
    }
    let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    substitute(&text, &values).with_context(|| format!("fill in the substitutions of {}", machine.file()))
}

fn arn(machine: Machine) -> String {
    format!("arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{}", machine.name())
}
