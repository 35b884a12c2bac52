//! Waiting until nothing is written: Qdrant cannot be told to stop, so it is watched.
//!
//! "Quiesced" is: over several polls every update queue is empty, write counters (REST and gRPC), operation numbers and exact counts stand
//! still, no snapshot or recovery runs. A failed optimizer, a red collection and recovery mode end the wait at once.

mod decide;

use std::{collections::BTreeMap, time::Duration};

use protocol::FailureKind;
use tokio::time::Instant;

use crate::{
    pulse::Pulse,
    qdrant::{self, Client, Telemetry},
};
pub use decide::{CollectionObservation, Decision, Observation, Requirements, decide};

/// Between two polls. Write counters move when a request is answered, so this should be longer than a usual batch takes.
pub const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Qdrant did not come to rest, or is in no state to be backed up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something still moved at the deadline.
    #[error("Qdrant is still busy after {} s: {}", waited.as_secs(), reasons.join("; "))]
    NotQuiesced {
        /// How long was waited.
        waited: Duration,
        /// What still moved.
        reasons: Vec<String>,
    },
    /// Waiting does not help.
    #[error("Qdrant is in no state to be backed up: {}", reasons.join("; "))]
    Unfit {
        /// Why.
        reasons: Vec<String>,
    },
    /// Qdrant could not be watched.
    #[error("watch Qdrant come to rest")]
    Watch {
        /// Why.
        #[source]
        source: qdrant::Error,
    },
}

impl Error {
    /// The kind of failure.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::NotQuiesced { .. } => FailureKind::NotQuiesced,
            Self::Unfit { .. } => FailureKind::Suspicious,
            Self::Watch { source } => source.kind(),
        }
    }

    /// What a person can do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotQuiesced { .. } => Some(
                "stop the writers, wait longer (--quiesce-timeout), or accept a backup of moving data (--no-quiesce)",
            ),
            Self::Unfit { .. } => Some(
                "Qdrant's log says what failed; restart it and wait until it has loaded, then back up again",
            ),
            Self::Watch { source } => source.hint(),
        }
    }
}

/// Waits until Qdrant is quiesced, at most `timeout`. Polls every `interval`, and marks each poll that was answered.
pub async fn wait(
    client: &Client,
    requirements: Requirements,
    timeout: Duration,
    interval: Duration,
    pulse: &Pulse,
) -> Result<(), Error> {
    let started = Instant::now();
    let keep = requirements.polls.max(2);
    let mut history: Vec<Observation> = Vec::new();
    loop {
        let seen = observe(client, history.last()).await.map_err(|source| Error::Watch { source })?;
        pulse.mark();
        if history.len() == keep {
            history.remove(0);
        }
        history.push(seen);
        let reasons = match decide(&history, requirements) {
            Decision::Quiesced => return Ok(()),
            Decision::Unfit { reasons } => return Err(Error::Unfit { reasons }),
            Decision::Waiting { reasons } => reasons,
        };
        let waited = started.elapsed();
        if waited + interval > timeout {
            let reasons = if reasons.is_empty() {
                vec![format!("it was not seen at rest {keep} times in a row")]
            } else {
                reasons
            };
            return Err(Error::NotQuiesced { waited, reasons });
        }
        tracing::debug!(?reasons, "not quiesced yet");
        tokio::time::sleep(interval).await;
    }
}

/// Looks once. Points are counted only when nothing that is cheaper to see has moved since `previous`.
pub async fn observe(client: &Client, previous: Option<&Observation>) -> Result<Observation, qdrant::Error> {
    let metrics = client.metrics().await?;
    if metrics.recovery_mode {
        // Nothing can be asked about its collections, and nothing need be.
        return Ok(Observation { metrics, started: None, collections: BTreeMap::new() });
    }
    let Telemetry { started, operation_numbers: numbers } = client.telemetry().await?;
    let mut collections = BTreeMap::new();
    for name in client.collections().await? {
        let info = match client.collection(&name).await {
            Ok(info) => info,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error),
        };
        let op_num = numbers.get(name.as_str()).copied();
        let collection = CollectionObservation {
            queue_length: info.queue_length(),
            status: info.status,
            optimizer_status: info.optimizer_status,
            op_num,
            count: None,
        };
        collections.insert(name, collection);
    }
    let mut seen = Observation { metrics, started, collections };
    if !decide::is_restless(previous, &seen) {
        for (name, collection) in &mut seen.collections {
            collection.count = match client.count_exact(name, None).await {
                Ok(count) => Some(count),
                Err(error) if error.is_not_found() => None,
                Err(error) => return Err(error),
            };
        }
    }
    Ok(seen)
}
