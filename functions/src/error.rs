//! What can go wrong in a function, on what, and what to do about it.

use jiff::Timestamp;
use protocol::{
    BackupId, ExecutionName, FailureKind, TaskId, manifest::InvalidManifest, task::InvalidEnvelope,
};

use crate::hosts::{Call, Host, HostsError, InstanceId, Refusal, Tag};

/// A function failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting is not there.
    #[error("`{name}` is not set")]
    SettingMissing {
        /// The variable.
        name: &'static str,
    },
    /// A setting breaks its rule.
    #[error("`{name}` cannot be used: {problem}")]
    SettingWrong {
        /// The variable.
        name: &'static str,
        /// Why.
        problem: String,
    },
    /// The event is not what the function takes.
    #[error("{what} cannot be used: {problem}")]
    EventWrong {
        /// Which part of it.
        what: &'static str,
        /// Why.
        problem: String,
        /// How it should be.
        shape: &'static str,
    },
    /// What EventBridge delivers was passed on as the input of an execution.
    #[error(
        "the input of the execution is an event of EventBridge (`{detail_type}` of `{source_name}`), not a request"
    )]
    EventOfEventBridge {
        /// Its `detail-type`.
        detail_type: String,
        /// Its `source`.
        source_name: String,
    },
    /// The task cannot be handed over.
    #[error("task {task} cannot be handed over")]
    Envelope {
        /// The task.
        task: TaskId,
        /// Why.
        #[source]
        source: InvalidEnvelope,
    },
    /// The catalogue refused or failed. It says what and on what itself.
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// The indexing job has not marked success.
    #[error("there is no success marker `s3://{bucket}/{key}`")]
    NoMarker {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// The success marker is of an older batch than the one that is backed up.
    #[error(
        "the success marker is of batch `{batch}`, finished {finished}, and backup {backup} has the later batch `{newer}`, finished {newer_finished}"
    )]
    OlderBatch {
        /// The marker's batch.
        batch: String,
        /// When it was finished.
        finished: Timestamp,
        /// The published backup.
        backup: BackupId,
        /// Its batch.
        newer: String,
        /// When that was finished.
        newer_finished: Timestamp,
    },
    /// Another backup has this id.
    #[error("backup {backup} exists with other collections than asked for")]
    IdTaken {
        /// The id.
        backup: BackupId,
    },
    /// The host was busy for too long.
    #[error(
        "execution started {started_at}, {hours} hours ago, and the host is still taken by another backup or restore"
    )]
    WaitedTooLong {
        /// When the execution was started.
        started_at: Timestamp,
        /// How many hours ago that was.
        hours: i64,
    },
    /// A call to Systems Manager failed.
    #[error(transparent)]
    Hosts(#[from] HostsError),
    /// No host can be given the task.
    #[error("no host with the tag `{tag}` is online{}", list("; known are ", known))]
    NoHost {
        /// The tag.
        tag: Tag,
        /// The hosts that carry it.
        known: Vec<Host>,
    },
    /// It is not clear which host to give the task.
    #[error("{} hosts with the tag `{tag}` are online, and one is wanted{}", online.len(), list(": ", online))]
    SeveralHosts {
        /// The tag.
        tag: Tag,
        /// The hosts.
        online: Vec<Host>,
    },
    /// The staging host cannot be given the task.
    #[error(
        "instance {instance} is not online as a host with the tag `{tag}`{}",
        list("; known are ", known)
    )]
    NoStagingHost {
        /// The host that was asked for.
        instance: InstanceId,
        /// The tag that it needs.
        tag: Tag,
        /// The hosts that carry it.
        known: Vec<Host>,
    },
    /// A drill was to be run on a production host.
    #[error("instance {instance} has the tag `{tag}` of production hosts, where no drill is run")]
    ProductionHost {
        /// The host.
        instance: InstanceId,
        /// The tag.
        tag: Tag,
    },
    /// The command did not get to the host, or was ended there.
    #[error("the command for task {task} did not run on {host}: {status}")]
    NotRun {
        /// The task.
        task: TaskId,
        /// The host.
        host: InstanceId,
        /// What Systems Manager says.
        status: String,
    },
    /// The host cannot run the command as it is.
    #[error("host {host} cannot take task {task}: {why}{}", said(stderr))]
    HostUnfit {
        /// The task.
        task: TaskId,
        /// The host.
        host: InstanceId,
        /// Why.
        why: &'static str,
        /// What to do.
        remedy: &'static str,
        /// The last lines of the script's standard error.
        stderr: String,
    },
    /// The worker refuses the task.
    #[error("host {host} refuses task {task}: {message}{}", said(stderr))]
    TaskRefused {
        /// The task.
        task: TaskId,
        /// The host.
        host: InstanceId,
        /// The kind that the worker states.
        kind: FailureKind,
        /// What it says.
        message: String,
        /// What it says to do.
        hint: Option<String>,
        /// The last lines of its standard error.
        stderr: String,
    },
    /// The worker failed without saying why in the way that is agreed.
    #[error("handing task {task} to host {host} fails ({status}){}", said(stderr))]
    TaskFailed {
        /// The task.
        task: TaskId,
        /// The host.
        host: InstanceId,
        /// What Systems Manager says, with the exit code.
        status: String,
        /// The last lines of the script's standard error.
        stderr: String,
    },
    /// The manifest that the host hands over is not there.
    #[error("there is no manifest `s3://{bucket}/{key}`, which the host says that it has stored")]
    HandedOverMissing {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// The manifest that the host hands over is another.
    #[error("the manifest `{key}` has the SHA-256 {found}, and the host stored {expected}")]
    HandedOverDiffers {
        /// The key.
        key: String,
        /// What the host states.
        expected: String,
        /// What the bytes have.
        found: String,
    },
    /// The manifest that the host hands over cannot be used.
    #[error("the manifest `{key}` that the host hands over cannot be used")]
    HandedOverInvalid {
        /// The key.
        key: String,
        /// Why.
        #[source]
        source: InvalidManifest,
    },
    /// What the host stored is not what was asked for.
    #[error(
        "what was stored for backup {backup} is not what was asked for: {what} is {found}, not {expected}"
    )]
    NotAsAsked {
        /// The backup that was asked for.
        backup: BackupId,
        /// What differs.
        what: &'static str,
        /// What was asked for.
        expected: String,
        /// What was stored.
        found: String,
    },
    /// The restored data is not the recorded data.
    #[error("backup {backup} was restored and is not what was recorded: {}", failed.join("; "))]
    NotProved {
        /// The backup.
        backup: BackupId,
        /// The first comparisons that failed, and how many there are.
        failed: Vec<String>,
    },
    /// A drill is said to have ended, and neither how it failed nor that it passed.
    #[error("drill {execution} has neither a verdict nor a failure")]
    NoOutcome {
        /// The execution.
        execution: ExecutionName,
    },
    /// The answer cannot be written as JSON.
    #[error("the answer cannot be written as JSON")]
    Answer(#[source] serde_json::Error),
    /// A fault of this program.
    #[error("function {function} panicked: {message}")]
    Panicked {
        /// The function.
        function: &'static str,
        /// What it said.
        message: String,
    },
}

impl Error {
    /// The name by which other programs know this failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::SettingMissing { .. }
            | Self::SettingWrong { .. }
            | Self::EventWrong { .. }
            | Self::EventOfEventBridge { .. }
            | Self::Envelope { .. }
            | Self::ProductionHost { .. } => FailureKind::ConfigInvalid,
            Self::Catalog(error) => error.kind(),
            Self::NoMarker { .. } | Self::OlderBatch { .. } => FailureKind::IndexingIncomplete,
            Self::IdTaken { .. } => FailureKind::ManifestConflict,
            Self::WaitedTooLong { .. } => FailureKind::Busy,
            Self::Hosts(error) => match error.refusal {
                Refusal::Host | Refusal::Transient => FailureKind::HostUnreachable,
                Refusal::Access | Refusal::Document | Refusal::Parameters => FailureKind::ConfigInvalid,
                Refusal::Other => FailureKind::Internal,
            },
            Self::NoHost { .. }
            | Self::SeveralHosts { .. }
            | Self::NoStagingHost { .. }
            | Self::NotRun { .. }
            | Self::HostUnfit { .. } => FailureKind::HostUnreachable,
            Self::TaskRefused { kind, .. } => *kind,
            // Whatever kept the script from its own answer is on the host, and may have passed by the next attempt.
            Self::TaskFailed { .. } => FailureKind::HostUnreachable,
            Self::NoOutcome { .. } | Self::Answer(_) | Self::Panicked { .. } => FailureKind::Internal,
            Self::HandedOverMissing { .. } => FailureKind::ManifestMissing,
            Self::HandedOverDiffers { .. } => FailureKind::ChecksumMismatch,
            Self::HandedOverInvalid { .. } | Self::NotAsAsked { .. } => FailureKind::ManifestInvalid,
            Self::NotProved { .. } => FailureKind::VerificationFailed,
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::SettingMissing { name } => {
                return Some(format!("set `{name}` in the environment of the function"));
            }
            Self::SettingWrong { .. } | Self::Answer(_) | Self::Panicked { .. } => return None,
            Self::EventWrong { shape, .. } => return Some(format!("it has the form {shape}")),
            Self::EventOfEventBridge { .. } => {
                "give the rule's target an input of its own instead of the matched event: {\"trigger\":\"marker\"} or {\"trigger\":\"schedule\"} for a backup, {} for a drill"
            }
            Self::Envelope { source: InvalidEnvelope::TooManyCollections { .. }, .. } => {
                "back up fewer collections at a time, or all of them by naming none"
            }
            Self::Envelope {
                source: InvalidEnvelope::Missing { .. } | InvalidEnvelope::Wrong { .. },
                ..
            } => {
                return None;
            }
            Self::Catalog(error) => return error.hint(),
            Self::NoMarker { .. } => {
                "the indexing job writes it when a batch is done (docs/clients.md); `\"trigger\":\"console\"` backs up without it"
            }
            Self::OlderBatch { .. } => {
                "the indexing job may have been run again with old data, or the marker was put back; `\"trigger\":\"console\"` backs up what is there now"
            }
            Self::IdTaken { .. } => {
                "two executions were started in the same second; start this one again, and it gets an id of its own"
            }
            Self::WaitedTooLong { .. } => {
                "see on the host what runs there (`host-worker task`), then start a new execution: this one's backup would be dated back"
            }
            Self::Hosts(error) => return hosts_hint(error),
            Self::NoHost { known, .. } if known.is_empty() => {
                "check the tag of the host, that it runs, and that its SSM agent is registered (instance profile, network to the SSM endpoints)"
            }
            Self::NoHost { .. } | Self::NoStagingHost { .. } => {
                "check that the instance runs, and `systemctl status amazon-ssm-agent` on it"
            }
            Self::SeveralHosts { .. } => {
                "a backup is of one host: take the tag from the other, or stop it if it is left from a replacement"
            }
            Self::ProductionHost { .. } => "drills run on hosts that restore-drill.asl.json starts for them",
            Self::NotRun { .. } => {
                "the agent did not take it in time or was stopped: `systemctl status amazon-ssm-agent` on the host"
            }
            Self::HostUnfit { remedy, .. } => remedy,
            Self::TaskRefused { hint, .. } => return hint.clone(),
            Self::TaskFailed { .. } => {
                "the command's output in Systems Manager, and /var/log/amazon/ssm/amazon-ssm-agent.log on the host, may have more"
            }
            Self::HandedOverMissing { .. } | Self::HandedOverDiffers { .. } => {
                "see who else may write under the archives' prefix, then start a new execution"
            }
            Self::HandedOverInvalid { source: InvalidManifest::NewerFormat { .. }, .. } => {
                "the host runs a later release than the functions: deploy it here too"
            }
            Self::HandedOverInvalid {
                source: InvalidManifest::Json { .. } | InvalidManifest::Contradiction { .. },
                ..
            }
            | Self::NotAsAsked { .. } => {
                "the host and the functions should be of the same release and have the same settings"
            }
            Self::NoOutcome { .. } => {
                "state-machines/restore-drill.asl.json and the functions must be of the same release: deploy both"
            }
            Self::NotProved { .. } => {
                "the drill's report in the bucket has every comparison; until it is explained, do not rely on this backup"
            }
        };
        Some(hint.to_owned())
    }
}

fn hosts_hint(error: &HostsError) -> Option<String> {
    match error.refusal {
        Refusal::Access => {
            let on = match error.call {
                Call::Send => " on the document and on instances with the host's tag",
                Call::Describe | Call::Look => " on `*`, for it knows no resource",
            };
            Some(format!("the function's role needs {}{on}", error.call.action()))
        }
        Refusal::Document => Some(
            "`QDRANT_BACKUP_DOCUMENT` must name the document that was made from infra/ssm/host-task.json"
                .to_owned(),
        ),
        Refusal::Parameters => Some(
            "the document in the account is of another release: deploy infra/ssm/host-task.json again"
                .to_owned(),
        ),
        Refusal::Host => {
            Some("the instance may have just gone away; its SSM agent must be online".to_owned())
        }
        Refusal::Transient | Refusal::Other => None,
    }
}

fn list(before: &str, hosts: &[Host]) -> String {
    if hosts.is_empty() {
        return String::new();
    }
    let mut hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    hosts.sort();
    format!("{before}{}", hosts.join(", "))
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!("; it says: {stderr}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systems_manager_refuses_has_a_kind_and_a_remedy() {
        let kind = |refusal| {
            let error = HostsError { call: Call::Send, refusal, detail: "x".to_owned() };
            let error = Error::Hosts(error);
            (error.kind(), error.hint().is_some())
        };
        assert_eq!(kind(Refusal::Host), (FailureKind::HostUnreachable, true));
        assert_eq!(kind(Refusal::Transient), (FailureKind::HostUnreachable, false));
        assert_eq!(kind(Refusal::Access), (FailureKind::ConfigInvalid, true));
        assert_eq!(kind(Refusal::Document), (FailureKind::ConfigInvalid, true));
        assert_eq!(kind(Refusal::Parameters), (FailureKind::ConfigInvalid, true));
        assert_eq!(kind(Refusal::Other), (FailureKind::Internal, false));
        let error =
            Error::Hosts(HostsError { call: Call::Send, refusal: Refusal::Access, detail: "x".to_owned() });
        assert!(error.hint().unwrap().contains("ssm:SendCommand"));
    }
}
