//! Taking, listing and deleting snapshots, and recovering from them.

use std::{fmt, str::FromStr};

use jiff::civil::DateTime;
use protocol::CollectionName;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::{
    client::{Client, result},
    error::{Cause, Error},
    operation::Operation,
};

/// A job that no longer runs is seen so this many times in a row before its end is believed: a request whose answer was lost may be about
/// to start.
const QUIET_POLLS: u32 = 3;

/// A finished snapshot, as Qdrant lists it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct SnapshotInfo {
    /// Its file name.
    pub name: String,
    /// When it was made: UTC, though Qdrant does not say so.
    #[serde(default)]
    pub creation_time: Option<DateTime>,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its bytes. Absent for snapshots that were uploaded or lie on S3.
    #[serde(default)]
    pub checksum: Option<Checksum>,
}

/// A SHA-256: 64 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Checksum(String);

/// The text is not a SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 has 64 hexadecimal digits")]
pub struct InvalidChecksum;

impl Checksum {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Checksum {
    type Err = InvalidChecksum;

    fn from_str(text: &str) -> Result<Self, InvalidChecksum> {
        if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(InvalidChecksum)
        }
    }
}

impl TryFrom<String> for Checksum {
    type Error = InvalidChecksum;

    fn try_from(text: String) -> Result<Self, InvalidChecksum> {
        text.parse()
    }
}

/// A snapshot that is there now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatedSnapshot {
    /// Its file name.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// SHA-256 of its bytes.
    pub checksum: Checksum,
    /// Whether it was already being taken when it was asked for. What was written before it was asked for may then be missing from it, if
    /// the collection has several shards.
    pub adopted: bool,
}

/// How a recovery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Qdrant says that it is done.
    Confirmed,
    /// The answer was lost and no recovery runs any more. Whether the data is there must be seen from the data.
    Unconfirmed,
}

impl Client {
    /// The finished snapshots of a collection, in no order.
    pub async fn snapshots(&self, name: &CollectionName) -> Result<Vec<SnapshotInfo>, Error> {
        let operation = Operation::Snapshots(name.clone());
        self.read_result(&operation, Method::GET, self.collection_url(name, &["snapshots"])?, None).await
    }

    /// Takes a snapshot and waits until it is finished, however long that takes.
    ///
    /// One that is already being taken (by a worker that was killed) is waited for and its result returned. When the answer is lost, the
    /// outcome is looked up; the request is never repeated blindly, for the server goes on without its client.
    pub async fn create_snapshot(&self, name: &CollectionName) -> Result<CreatedSnapshot, Error> {
        let before = self.snapshots(name).await?;
        if self.metrics().await?.snapshots_running.contains_key(name.as_str()) {
            tracing::info!(collection = %name, "a snapshot is already being taken; waiting for it");
            match self.wait_for_snapshot(name, &before).await {
                Ok(snapshot) => return created(name, snapshot, true),
                Err(Error::SnapshotVanished { .. }) => {
                    tracing::warn!(collection = %name, "it ended without a result; taking another");
                }
                Err(error) => return Err(error),
            }
        }
        let operation = Operation::CreateSnapshot(name.clone());
        let mut url = self.collection_url(name, &["snapshots"])?;
        url.query_pairs_mut().append_pair("wait", "true");
        let snapshot = match self.long_change(Method::POST, url, None).await {
            Ok(body) => result(&operation, &body)?,
            Err(cause) if is_lost(&cause) => {
                tracing::warn!(collection = %name, error = %cause, "the answer was lost; looking for the snapshot");
                self.wait_for_snapshot(name, &before).await?
            }
            Err(source) => return Err(Error::Call { operation, source }),
        };
        created(name, snapshot, false)
    }

    /// Waits until no snapshot of the collection is being taken, and returns the newest that is not in `before`. None is
    /// [`Error::SnapshotVanished`]; a server that stays away is [`Error::AnswerLost`].
    pub async fn wait_for_snapshot(
        &self,
        name: &CollectionName,
        before: &[SnapshotInfo],
    ) -> Result<SnapshotInfo, Error> {
        let mut patience = Patience::new(Operation::CreateSnapshot(name.clone()));
        let mut quiet = 0;
        loop {
            // First what runs, then the list: a snapshot is listed before it stops running.
            let Some(metrics) = patience.with(self, self.metrics().await).await? else { continue };
            let running = metrics.snapshots_running.contains_key(name.as_str());
            let Some(listed) = patience.with(self, self.snapshots(name).await).await? else { continue };
            let new = listed
                .into_iter()
                .filter(|snapshot| !before.contains(snapshot))
                .max_by(|a, b| (a.creation_time, &a.name).cmp(&(b.creation_time, &b.name)));
            if !running && let Some(snapshot) = new {
                return Ok(snapshot);
            }
            quiet = if running { 0 } else { quiet + 1 };
            if quiet >= QUIET_POLLS {
                return Err(Error::SnapshotVanished { collection: name.clone() });
            }
            tokio::time::sleep(self.options().poll_interval).await;
        }
    }

    /// Deletes a finished snapshot. One that is not there is no error.
    pub async fn delete_snapshot(&self, name: &CollectionName, snapshot: &str) -> Result<(), Error> {
        let operation = Operation::DeleteSnapshot(name.clone(), snapshot.to_owned());
        let url = self.collection_url(name, &["snapshots", snapshot])?;
        match self.change(&operation, Method::DELETE, url, None).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Recovers collection `name` from `location`, a `file://` URL inside the snapshots directory as Qdrant sees it, and waits until it is
    /// done, however long that takes.
    ///
    /// **A collection of that name is overwritten**, even if this fails. A name that is an alias is refused, and so is a collection that is
    /// being recovered. On a failure the collection may be there, empty.
    pub async fn recover(
        &self,
        name: &CollectionName,
        location: &str,
        checksum: &Checksum,
    ) -> Result<Recovery, Error> {
        if let Some(target) = self.aliases().await?.remove(name.as_str()) {
            return Err(Error::TargetIsAlias { alias: name.to_string(), target: target.to_string() });
        }
        if self.metrics().await?.recoveries_running.contains_key(name.as_str()) {
            return Err(Error::RecoveryRunning { collection: name.clone() });
        }
        let operation = Operation::Recover(name.clone());
        let mut url = self.collection_url(name, &["snapshots", "recover"])?;
        url.query_pairs_mut().append_pair("wait", "true");
        let body = json!({ "location": location, "priority": "snapshot", "checksum": checksum.as_str() });
        match self.long_change(Method::PUT, url, Some(&body)).await {
            Ok(body) => match result::<bool>(&operation, &body)? {
                true => Ok(Recovery::Confirmed),
                false => {
                    let what = "it was not done, and no reason is given".to_owned();
                    Err(Error::Call { operation, source: Cause::Unexpected { what } })
                }
            },
            Err(cause) if is_lost(&cause) => {
                tracing::warn!(collection = %name, error = %cause, "the answer was lost; waiting for the recovery to end");
                self.wait_for_recovery(name).await?;
                Ok(Recovery::Unconfirmed)
            }
            Err(source) => Err(Error::Call { operation, source }),
        }
    }

    /// Waits until no recovery of the collection runs. A server that stays away is [`Error::AnswerLost`].
    pub async fn wait_for_recovery(&self, name: &CollectionName) -> Result<(), Error> {
        let mut patience = Patience::new(Operation::Recover(name.clone()));
        let mut quiet = 0;
        while quiet < QUIET_POLLS {
            let Some(metrics) = patience.with(self, self.metrics().await).await? else { continue };
            let running = metrics.recoveries_running.contains_key(name.as_str());
            quiet = if running { 0 } else { quiet + 1 };
            tokio::time::sleep(self.options().poll_interval).await;
        }
        Ok(())
    }
}

/// Patience with a server that is away, for it may be restarting.
struct Patience {
    operation: Operation,
    away_since: Option<Instant>,
}

impl Patience {
    fn new(operation: Operation) -> Self {
        Self { operation, away_since: None }
    }

    /// The result of a read, or `None` after a pause when it is to be made again.
    async fn with<T>(&mut self, client: &Client, read: Result<T, Error>) -> Result<Option<T>, Error> {
        match read {
            Ok(value) => {
                self.away_since = None;
                Ok(Some(value))
            }
            Err(Error::Call { source, .. }) if source.is_transient() => {
                let waited = self.away_since.get_or_insert_with(Instant::now).elapsed();
                if waited >= client.options().lost_answer_patience {
                    return Err(Error::AnswerLost { operation: self.operation.clone(), waited, source });
                }
                tokio::time::sleep(client.options().poll_interval).await;
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether the call may have been received, and its answer not.
fn is_lost(cause: &Cause) -> bool {
    match cause {
        Cause::Broken { .. } | Cause::TimedOut { .. } => true,
        // A gateway between us and Qdrant gave up; Qdrant may not have.
        Cause::Status { status, .. } => matches!(status, 502 | 504),
        Cause::Connect { .. } | Cause::TooLarge { .. } | Cause::Json { .. } | Cause::Unexpected { .. } => {
            false
        }
    }
}

fn created(
    collection: &CollectionName,
    snapshot: SnapshotInfo,
    adopted: bool,
) -> Result<CreatedSnapshot, Error> {
    let SnapshotInfo { name, size, checksum, creation_time: _ } = snapshot;
    match checksum {
        Some(checksum) => Ok(CreatedSnapshot { name, size, checksum, adopted }),
        None => Err(Error::NoChecksum { collection: collection.clone(), snapshot: name }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_is_read_as_old_and_new_servers_list_it() {
        let full: SnapshotInfo = serde_json::from_str(
            r#"{"name":"docs-1-2025-11-26-15-44-57.snapshot","creation_time":"2025-11-26T15:44:57","size":4718592,
                "checksum":"2CF24DBA5FB0A30E26E83B2AC5B9E29E1B161E5C1FA7425E73043362938B9824","later":true}"#,
        )
        .unwrap();
        assert_eq!(full.creation_time, Some(jiff::civil::date(2025, 11, 26).at(15, 44, 57, 0)));
        assert!(full.checksum.unwrap().as_str().starts_with("2cf24d"));
        let bare: SnapshotInfo =
            serde_json::from_str(r#"{"name":"up.snapshot","creation_time":null,"size":1}"#).unwrap();
        assert_eq!((bare.creation_time, bare.checksum), (None, None));
    }

    #[test]
    fn a_checksum_is_64_digits() {
        assert!("ab".repeat(32).parse::<Checksum>().is_ok());
        for bad in ["", "xyz", &"g".repeat(64), &"a".repeat(63)] {
            assert_eq!(bad.parse::<Checksum>(), Err(InvalidChecksum), "{bad}");
        }
    }
}
