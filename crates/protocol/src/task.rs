//! What a Lambda asks the worker on the host to do, and what the worker answers.
//!
//! The request travels as the parameters of the SSM document `infra/ssm/host-task.json`, which hands them to
//! `host-worker dispatch` as environment variables; the answer is the output of `SendTaskSuccess`. Whatever is large goes to the bucket: an
//! answer names it and has its hash, and stays far below the 256 KiB that Step Functions allows.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{
    id::{BackupId, CollectionName, InvalidId, textual_id},
    key::ArchiveKey,
    manifest::PhaseTiming,
    verdict::Check,
};

/// What the worker can be asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TaskKind {
    /// Pre-flight, then wait until no write is in flight. Answers with [`Quiesced`].
    Quiesce,
    /// Snapshot, pack and upload. Answers with [`Stored`].
    Backup,
    /// Restore a backup on a staging host and compare it with what was recorded. Answers with [`Drilled`].
    Drill,
}

impl TaskKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Quiesce, Self::Backup, Self::Drill];

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Quiesce => "quiesce",
            Self::Backup => "backup",
            Self::Drill => "drill",
        }
    }
}

impl fmt::Display for TaskKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Which piece of work: retries of one state ask for the same one. Prints as `backup-20261123T051400Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TaskId {
    /// What is to be done.
    pub kind: TaskKind,
    /// The backup that it belongs to.
    pub backup: BackupId,
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.kind, self.backup)
    }
}

/// The name of an execution: 1 to 80 of `[A-Za-z0-9._-]`, the first no dot. Step Functions allows more; names are made by EventBridge or typed, and this much is safe in
/// parameters, logs, metrics and as the name of a directory, which `..` would not be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExecutionName(String);

impl fmt::Display for ExecutionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ExecutionName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if (1..=80).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('.') {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId::new(
                "the name of an execution",
                "it has 1 to 80 of [A-Za-z0-9._-] and does not begin with a dot",
                text,
            ))
        }
    }
}

textual_id!(
    ExecutionName,
    r"^[A-Za-z0-9_-][A-Za-z0-9._-]{0,79}$",
    "the name of an execution of a state machine"
);

/// By which the worker answers Step Functions. Whoever has it can end the task, so it is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskToken(String);

impl TaskToken {
    /// The token itself, for the call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for TaskToken {
    fn from(token: String) -> Self {
        Self(token)
    }
}

impl fmt::Debug for TaskToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TaskToken(…)")
    }
}

/// The order of the tokens that one execution gives out for a task: by when the state was entered, then by how often it was retried. SSM may deliver a
/// command twice, or an old one late; the greater order wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TokenOrder {
    /// When the execution entered the state. A redrive enters it anew.
    pub entered_at: Timestamp,
    /// How often the state was retried since.
    pub retry_count: u32,
}

impl fmt::Display for TokenOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "retry {} of {}", self.retry_count, self.entered_at)
    }
}

/// A task as it is handed to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// What is to be done.
    pub task: TaskId,
    /// Only these collections; all of them when it is empty.
    pub collections: Vec<CollectionName>,
    /// Who asks.
    pub execution: ExecutionName,
    /// Where the token stands among those of the same execution and task.
    pub order: TokenOrder,
    /// By which to answer.
    pub token: TaskToken,
}

/// The names of the SSM document's parameters.
pub mod parameter {
    /// [`TaskKind`](super::TaskKind).
    pub const TASK: &str = "Task";
    /// [`BackupId`](super::BackupId).
    pub const BACKUP_ID: &str = "BackupId";
    /// Names, percent-encoded, with commas between them.
    pub const COLLECTIONS: &str = "Collections";
    /// [`ExecutionName`](super::ExecutionName).
    pub const EXECUTION: &str = "Execution";
    /// [`TokenOrder::entered_at`](super::TokenOrder::entered_at).
    pub const ENTERED_AT: &str = "EnteredAt";
    /// [`TokenOrder::retry_count`](super::TokenOrder::retry_count).
    pub const RETRY_COUNT: &str = "RetryCount";
    /// [`TaskToken`](super::TaskToken).
    pub const TASK_TOKEN: &str = "TaskToken";
    /// All of them.
    pub const ALL: [&str; 7] = [TASK, BACKUP_ID, COLLECTIONS, EXECUTION, ENTERED_AT, RETRY_COUNT, TASK_TOKEN];
    /// The environment variable in which the SSM agent hands over a parameter with `interpolationType: ENV_VAR`.
    pub fn variable(parameter: &str) -> String {
        format!("SSM_{parameter}")
    }
}

/// The most characters that the names of collections may have as one parameter.
const MAX_COLLECTIONS: usize = 4096;
/// The most characters of a token, by the model of Step Functions' API. The document cannot state these two: the agent's patterns repeat at most a thousand times.
const MAX_TOKEN: usize = 2048;
/// All collections. No parameter is ever empty: whether an agent hands an empty one over is nowhere promised, and no encoded name has an asterisk.
const EVERY: &str = "*";

impl Envelope {
    /// The parameters of the SSM document.
    pub fn parameters(&self) -> Result<BTreeMap<&'static str, String>, InvalidEnvelope> {
        let names: Vec<String> = self.collections.iter().map(CollectionName::percent_encoded).collect();
        let collections = if names.is_empty() { EVERY.to_owned() } else { names.join(",") };
        if collections.len() > MAX_COLLECTIONS {
            return Err(InvalidEnvelope::TooManyCollections { length: collections.len() });
        }
        Ok(BTreeMap::from([
            (parameter::TASK, self.task.kind.name().to_owned()),
            (parameter::BACKUP_ID, self.task.backup.to_string()),
            (parameter::COLLECTIONS, collections),
            (parameter::EXECUTION, self.execution.to_string()),
            (parameter::ENTERED_AT, self.order.entered_at.to_string()),
            (parameter::RETRY_COUNT, self.order.retry_count.to_string()),
            (parameter::TASK_TOKEN, self.token.0.clone()),
        ]))
    }

    /// Reads the parameters again; `lookup` gives the value of one.
    pub fn from_parameters(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidEnvelope> {
        let value = |name: &'static str| lookup(name).ok_or(InvalidEnvelope::Missing { name });
        let wrong = |name: &'static str| move |_e| InvalidEnvelope::Wrong { name };
        let kind = value(parameter::TASK)?;
        let kind = TaskKind::ALL
            .into_iter()
            .find(|known| known.name() == kind)
            .ok_or(InvalidEnvelope::Wrong { name: parameter::TASK })?;
        let backup: BackupId = value(parameter::BACKUP_ID)?.parse().map_err(wrong(parameter::BACKUP_ID))?;
        let collections = value(parameter::COLLECTIONS)?;
        if collections.len() > MAX_COLLECTIONS {
            return Err(InvalidEnvelope::TooManyCollections { length: collections.len() });
        }
        let names = collections.split(',').filter(|_| collections != EVERY);
        let collections: Result<_, InvalidId> = names.map(CollectionName::from_percent_encoded).collect();
        let entered_at = value(parameter::ENTERED_AT)?
            .parse()
            .map_err(|_e: jiff::Error| InvalidEnvelope::Wrong { name: parameter::ENTERED_AT })?;
        let retry_count = value(parameter::RETRY_COUNT)?
            .parse()
            .map_err(|_e: std::num::ParseIntError| InvalidEnvelope::Wrong { name: parameter::RETRY_COUNT })?;
        let token = value(parameter::TASK_TOKEN)?;
        if token.is_empty() {
            return Err(InvalidEnvelope::Missing { name: parameter::TASK_TOKEN });
        }
        if token.len() > MAX_TOKEN {
            return Err(InvalidEnvelope::Wrong { name: parameter::TASK_TOKEN });
        }
        Ok(Self {
            task: TaskId { kind, backup },
            collections: collections.map_err(wrong(parameter::COLLECTIONS))?,
            execution: value(parameter::EXECUTION)?.parse().map_err(wrong(parameter::EXECUTION))?,
            order: TokenOrder { entered_at, retry_count },
            token: TaskToken(token),
        })
    }
}

/// A task cannot be handed over. Values are not repeated: one of them is a token.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEnvelope {
    /// A parameter is not there.
    #[error("the task's parameter `{name}` is missing")]
    Missing {
        /// The parameter.
        name: &'static str,
    },
    /// A parameter breaks its rule.
    #[error("the task's parameter `{name}` is not what infra/ssm/host-task.json allows")]
    Wrong {
        /// The parameter.
        name: &'static str,
    },
    /// The names do not fit into a parameter.
    #[error(
        "the names of the collections have {length} characters when encoded, and at most {MAX_COLLECTIONS} can be handed over"
    )]
    TooManyCollections {
        /// Their length.
        length: usize,
    },
}

/// Answer to [`TaskKind::Quiesce`]: nothing was being written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Quiesced {
    /// The backup that may begin.
    pub backup_id: BackupId,
    /// How long writes took to end, in seconds.
    pub waited_seconds: f64,
}

/// Answer to [`TaskKind::Backup`]: the archive is stored and verified, and nobody knows of it yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// The backup.
    pub backup_id: BackupId,
    /// The archive. Its manifest, as it is to be published, is at [`ArchiveKey::manifest`].
    pub key: ArchiveKey,
    /// SHA-256 of that manifest's bytes, 64 lower-case hexadecimal digits.
    pub manifest_sha256: String,
    /// The archive's size in bytes.
    pub size_bytes: u64,
    /// Collections in it.
    pub collections: u64,
    /// Points in it.
    pub points: u64,
    /// Whether the store keeps no checksum of it, and every byte was read back instead.
    pub read_back: bool,
    /// Whether an interrupted upload was gone on with.
    pub resumed: bool,
    /// What took how long.
    pub timings: Vec<PhaseTiming>,
}

/// Answer to [`TaskKind::Drill`]: a restore was done and compared, with whatever result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Drilled {
    /// The backup that was restored.
    pub backup_id: BackupId,
    /// Whether it is what was recorded.
    pub passed: bool,
    /// Comparisons made.
    pub checks: u64,
    /// Those that came out wrong: the first [`Self::MAX_FAILED`].
    pub failed: Vec<Check>,
    /// The key of the report for people; absent where it could not be stored, and from workers that wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub report: Option<String>,
    /// What took how long.
    pub timings: Vec<PhaseTiming>,
}

impl Drilled {
    /// How many failed comparisons are named.
    pub const MAX_FAILED: usize = 100;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            task: TaskId { kind: TaskKind::Backup, backup: "20261123T051400Z".parse().unwrap() },
            collections: ["docs", "prix, été"].iter().map(|name| name.parse().unwrap()).collect(),
            execution: "nightly-1".parse().unwrap(),
            order: TokenOrder { entered_at: "2026-11-23T05:14:01.250Z".parse().unwrap(), retry_count: 2 },
            token: TaskToken::from("AAAA+/=".to_owned()),
        }
    }

    #[test]
    fn an_envelope_survives_its_parameters() {
        let envelope = envelope();
        let parameters = envelope.parameters().unwrap();
        assert_eq!(parameters.keys().copied().collect::<Vec<_>>(), {
            let mut all = parameter::ALL;
            all.sort_unstable();
            all
        });
        assert_eq!(Envelope::from_parameters(|name| parameters.get(name).cloned()), Ok(envelope));
        assert_eq!(parameter::variable(parameter::TASK_TOKEN), "SSM_TaskToken");
    }

    #[test]
    fn every_parameter_is_needed_and_checked() {
        let parameters = envelope().parameters().unwrap();
        for missing in parameter::ALL {
            let lookup = |name: &str| parameters.get(name).filter(|_| name != missing).cloned();
            assert_eq!(Envelope::from_parameters(lookup), Err(InvalidEnvelope::Missing { name: missing }));
        }
        for (name, wrong) in [
            (parameter::TASK, "reboot"),
            (parameter::BACKUP_ID, "today"),
            (parameter::COLLECTIONS, "a/b"),
            (parameter::EXECUTION, "a b"),
            (parameter::EXECUTION, ".."),
            (parameter::ENTERED_AT, "now"),
            (parameter::RETRY_COUNT, "-1"),
        ] {
            let lookup = |asked: &str| {
                if asked == name { Some(wrong.to_owned()) } else { parameters.get(asked).cloned() }
            };
            assert_eq!(Envelope::from_parameters(lookup), Err(InvalidEnvelope::Wrong { name }), "{wrong}");
        }
    }

    #[test]
    fn too_many_names_are_refused_before_aws_does() {
        let name: CollectionName = "n".repeat(250).parse().unwrap();
        let envelope = Envelope { collections: vec![name; 20], ..envelope() };
        assert_eq!(envelope.parameters(), Err(InvalidEnvelope::TooManyCollections { length: 20 * 251 - 1 }));
    }

    #[test]
    fn a_later_entry_wins_over_more_retries() {
        let order = |second: i64, retry_count| TokenOrder {
            entered_at: Timestamp::from_second(second).unwrap(),
            retry_count,
        };
        assert!(order(1, 0) < order(1, 1) && order(1, 7) < order(2, 0));
    }

    #[test]
    fn a_token_is_not_printed() {
        let shown = format!("{:?}", envelope());
        assert!(!shown.contains("AAAA"), "{shown}");
    }
}
