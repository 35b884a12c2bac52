//! The Lambdas: `quiesce-check`, `trigger-snapshot`, `publish-manifest` and `verify-restore`, called by the state machines in `state-machines/`.
//!
//! They decide, hand tasks to the worker on the host, and publish what it stored. No archive byte, no Qdrant and no snapshot is seen here. Each may be called twice
//! with the same event, for Step Functions retries what it got no answer to: every call comes to the same, or to what the worker tells apart.
//!
//! [`handle`] is all of a function, over two ports (the object store, the hosts) and with the time given, so that a test or a simulation calls it as it is; only
//! [`run`] knows the Lambda runtime, the clients of AWS, the environment and the clock.

pub mod config;
mod decide;
mod diagnostic;
mod dispatch;
pub mod emf;
mod error;
pub mod event;
mod freshness;
pub mod hosts;
pub mod publish_manifest;
pub mod quiesce_check;
mod redact;
mod run;
mod ssm;
pub mod trigger_snapshot;
pub mod verify_restore;

use std::{fmt, str::FromStr, time::Duration};

use catalog::{Catalog, ObjectStore};
use jiff::Timestamp;
use protocol::{BackupId, ExecutionName};
use serde::Serialize;
use serde_json::Value;
use tracing::{Instrument, field::Empty};

pub use config::Settings;
pub use decide::MAX_WAIT;
pub use diagnostic::MAX_MESSAGE;
pub use dispatch::Dispatched;
pub use error::Error;
pub use freshness::{ADDED_UP, STUCK_AFTER};
pub use hosts::Hosts;
pub use run::run;
pub use ssm::DELIVERY_TIMEOUT;

use diagnostic::chain;
use emf::Metric;

/// The functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Function {
    /// Decides, has the host wait until nothing is being written, and says how fresh the published backup is.
    QuiesceCheck,
    /// Has the host make the backup.
    TriggerSnapshot,
    /// Publishes what the host stored.
    PublishManifest,
    /// Decides for a restore drill: which backup, what its answer is worth, what is counted.
    VerifyRestore,
}

impl Function {
    /// Every function.
    pub const ALL: [Self; 4] =
        [Self::QuiesceCheck, Self::TriggerSnapshot, Self::PublishManifest, Self::VerifyRestore];

    /// The name, which is that of its program too.
    pub fn name(self) -> &'static str {
        match self {
            Self::QuiesceCheck => "quiesce-check",
            Self::TriggerSnapshot => "trigger-snapshot",
            Self::PublishManifest => "publish-manifest",
            Self::VerifyRestore => "verify-restore",
        }
    }
}

impl fmt::Display for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Function {
    type Err = UnknownFunction;

    fn from_str(text: &str) -> Result<Self, UnknownFunction> {
        Self::ALL
            .into_iter()
            .find(|function| function.name() == text)
            .ok_or_else(|| UnknownFunction(text.to_owned()))
    }
}

/// The text is not the name of a function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a function: there are quiesce-check, trigger-snapshot, publish-manifest and verify-restore"
)]
pub struct UnknownFunction(String);

/// What a call came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// The answer.
    pub body: Value,
    /// What is to be counted.
    pub metrics: Vec<Metric>,
    /// What a log query finds beside the numbers.
    pub properties: Vec<(&'static str, String)>,
}

impl Reply {
    fn to(answer: &impl Serialize) -> Result<Self, Error> {
        let body = serde_json::to_value(answer).map_err(Error::Answer)?;
        Ok(Self { body, metrics: Vec::new(), properties: Vec::new() })
    }

    fn count(self, name: &'static str) -> Self {
        self.number(name, 1)
    }

    fn number(self, name: &'static str, value: u64) -> Self {
        self.with(Metric::count(name, value))
    }

    fn bytes(self, name: &'static str, value: u64) -> Self {
        self.with(Metric::bytes(name, value))
    }

    fn seconds(self, name: &'static str, value: Duration) -> Self {
        self.with(Metric::seconds(name, value))
    }

    fn property(mut self, name: &'static str, value: String) -> Self {
        self.properties.push((name, value));
        self
    }

    fn with(mut self, metric: Metric) -> Self {
        self.metrics.push(metric);
        self
    }
}

/// Answers one call of a function at the time `now`.
pub async fn handle<S: ObjectStore, H: Hosts>(
    function: Function,
    settings: &Settings,
    catalog: &Catalog<S>,
    hosts: &H,
    event: Value,
    now: Timestamp,
) -> Result<Reply, Error> {
    let span = span(function, &event);
    async {
        let outcome = match function {
            Function::QuiesceCheck => quiesce_check::handle(settings, catalog, hosts, event, now).await,
            Function::TriggerSnapshot => trigger_snapshot::handle(settings, hosts, event).await,
            Function::PublishManifest => publish_manifest::handle(settings, catalog, event, now).await,
            Function::VerifyRestore => verify_restore::handle(settings, catalog, hosts, event, now).await,
        };
        outcome.inspect_err(|error| report(function, error))
    }
    .instrument(span)
    .await
}

/// Logs a failure, once. The state machine tries again what is transient, and a person need not look at it yet.
fn report(function: Function, error: &Error) {
    let (function, kind, hint, error) = (function.name(), error.kind(), error.hint(), chain(error));
    if kind.is_transient() {
        tracing::warn!(function, %kind, hint, error, "the call fails, and may be tried again");
    } else {
        tracing::error!(function, %kind, hint, error, "the call fails");
    }
}

/// Says in every log line whose call it is. What does not look like a name or an id is left out: it may be anything.
fn span(function: Function, event: &Value) -> tracing::Span {
    // Of the highest level, so that it is there at every level of the lines.
    let span = tracing::error_span!("call", function = function.name(), execution = Empty, backup = Empty);
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    if let Some(execution) = text("/execution").and_then(|text| text.parse::<ExecutionName>().ok()) {
        span.record("execution", execution.to_string());
    }
    let places = ["/backup/backup_id", "/backup_id", "/drilled/backup_id", "/drill/backup_id"];
    if let Some(backup) = places.into_iter().find_map(text).and_then(|text| text.parse::<BackupId>().ok()) {
        span.record("backup", backup.to_string());
    }
    span
}

#[cfg(test)]
mod tests;
