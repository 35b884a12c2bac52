//! `publish-manifest`: looks at what the host stored and publishes it.
//!
//! The host may not write manifests. It hands its manifest over as a file beside the archive, and this function believes nothing in it without comparing: its bytes
//! with the hash that came by way of Step Functions, its statements with what was asked for, and, in [`Catalog::publish`], the archive with what it states. Running
//! twice, or beside another, comes to the same.

use catalog::{Catalog, ObjectStore, Outcome, PublishPolicy, Published, store::MAX_OBJECT_BYTES};
use jiff::Timestamp;
use protocol::{BackupId, Manifest, task::Stored};
use serde::Serialize;
use serde_json::Value;

use crate::{
    Reply,
    config::Settings,
    error::Error,
    event::{self, Decided, Publish},
};

/// What publication came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Publication {
    /// How it ended: `published`, `already-published`, `superseded` or `partial`, and `by` which backup it was superseded.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The backup.
    pub backup_id: BackupId,
    /// Whether the pointer moved by this call.
    pub pointer_moved: bool,
    /// What would have stopped it without `force`.
    pub forced: Vec<String>,
}

/// Answers one call.
pub async fn handle<S: ObjectStore>(
    settings: &Settings,
    catalog: &Catalog<S>,
    event: Value,
    now: Timestamp,
) -> Result<Reply, Error> {
    let Publish { backup, stored, .. } = event::publish(event)?;
    as_asked(settings, &backup, &stored)?;
    let manifest = handed_over(catalog, &stored).await?;
    agrees(&manifest, &backup, &stored)?;
    let policy = PublishPolicy {
        force: backup.force,
        expected_kms_key: settings.kms_key().map(str::to_owned),
        read_back: stored.read_back,
        ..PublishPolicy::default()
    };
    let Published { pointer_moved, outcome, forced } = catalog.publish(&manifest, &policy).await?;
    tracing::info!(backup = %backup.backup_id, ?outcome, pointer_moved, "published");
    let publication = Publication {
        outcome,
        backup_id: manifest.backup_id,
        pointer_moved,
        forced: forced.iter().map(ToString::to_string).collect(),
    };
    let reply = Reply::to(&publication)?.count(match outcome {
        Outcome::Published => "Published",
        Outcome::AlreadyPublished => "AlreadyPublished",
        Outcome::Superseded { .. } => "Superseded",
        Outcome::Partial => "Partial",
    });
    if !pointer_moved {
        return Ok(reply);
    }
    // What was counted once must not be counted by a second call.
    let points = manifest.collections.iter().map(|collection| collection.points_after).sum();
    Ok(reply
        .bytes("PublishedBytes", manifest.size_bytes)
        .number("PublishedPoints", points)
        .seconds("PublicationAge", since(manifest.backup_id, now)))
}

/// How long ago the backup was started. A clock that is behind makes it none.
fn since(backup: BackupId, now: Timestamp) -> std::time::Duration {
    now.duration_since(backup.time()).try_into().unwrap_or_default()
}

/// Whether the host stored the backup that was asked for, in the folder where it is looked for.
fn as_asked(settings: &Settings, backup: &Decided, stored: &Stored) -> Result<(), Error> {
    let Stored { backup_id, key, .. } = stored;
    let asked = backup.backup_id;
    same(asked, "the answer's `backup_id`", &asked, backup_id)?;
    let expected = settings.layout().archive(asked, key.attempt().clone());
    same(asked, "the answer's `key`", &expected, key)
}

async fn handed_over<S: ObjectStore>(catalog: &Catalog<S>, stored: &Stored) -> Result<Manifest, Error> {
    let key = stored.key.manifest();
    let Some(bytes) = catalog.get_side_file(&key, MAX_OBJECT_BYTES).await? else {
        return Err(Error::HandedOverMissing { bucket: catalog.bucket().to_owned(), key });
    };
    let found = Manifest::digest(&bytes);
    if found != stored.manifest_sha256 {
        return Err(Error::HandedOverDiffers { key, expected: stored.manifest_sha256.clone(), found });
    }
    Manifest::from_json(&bytes).map_err(|source| Error::HandedOverInvalid { key, source })
}

/// Whether the manifest speaks of what was asked for and of what the answer states.
fn agrees(manifest: &Manifest, backup: &Decided, stored: &Stored) -> Result<(), Error> {
    let asked = backup.backup_id;
    same(asked, "the manifest's `backup_id`", &asked, &manifest.backup_id)?;
    same(asked, "the manifest's `key`", &stored.key, &manifest.key)?;
    same(asked, "the manifest's `size_bytes`", &stored.size_bytes, &manifest.size_bytes)?;
    // A backup of chosen collections that called itself whole would take the pointer.
    same(asked, "the manifest's `partial`", &!backup.collections.is_empty(), &manifest.partial)
}

fn same<T: PartialEq + ToString>(
    backup: BackupId,
    what: &'static str,
    expected: &T,
    found: &T,
) -> Result<(), Error> {
    if expected == found {
        return Ok(());
    }
    Err(Error::NotAsAsked { backup, what, expected: expected.to_string(), found: found.to_string() })
}

#[cfg(test)]
mod tests;
