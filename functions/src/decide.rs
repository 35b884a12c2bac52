//! Whether a backup is to be made, and under which id.
//!
//! The id is the second in which the execution was started, so that asking again gives the same one. Batches are compared by their ids, never by a clock; the times
//! of two batches only tell whether the marker has gone back.

use catalog::{Catalog, ObjectStore, Pointer};
use jiff::{SignedDuration, Timestamp};
use protocol::{BackupId, CollectionName, FailureKind, Manifest, SuccessMarker};

use crate::{
    diagnostic::{chain, truncate},
    error::Error,
    event::{Decide, Decided, Decision, Input, Trigger},
};

/// How long an execution may come back because the host is taken. Its backup would bear the time at which it was started, and a later one is as good by then.
pub const MAX_WAIT: SignedDuration = SignedDuration::from_hours(6);

/// How much of a batch's id is shown or passed on, in bytes. It is the job's own text, of any length.
const MAX_BATCH: usize = 256;

pub(crate) async fn decide<S: ObjectStore>(
    catalog: &Catalog<S>,
    marker_key: &str,
    event: Decide,
    now: Timestamp,
) -> Result<Decided, Error> {
    let Decide { input, execution, started_at } = event;
    let backup = BackupId::from_time(started_at).map_err(|error| Error::EventWrong {
        what: "the event's `started_at`",
        problem: error.to_string(),
        shape: "\"2026-11-23T05:14:00Z\"",
    })?;
    tracing::Span::current().record("backup", backup.to_string());
    let verdict = match existing(catalog, backup, &input).await? {
        Some(verdict) => verdict,
        None if input.trigger == Trigger::Marker => by_marker(catalog, marker_key).await?,
        None => Verdict {
            decision: Decision::Proceed,
            reason: format!("asked for by {}", input.trigger.name()),
            batch: None,
        },
    };
    // First what has been done meanwhile: then there is nothing to wait for.
    let waited = now.duration_since(started_at);
    if verdict.decision == Decision::Proceed && waited > MAX_WAIT {
        return Err(Error::WaitedTooLong { started_at, hours: waited.as_hours() });
    }
    tracing::info!(%execution, %backup, decision = ?verdict.decision, reason = verdict.reason, "decided");
    let Input { trigger, force, collections } = input;
    let Verdict { decision, reason, batch: batch_id } = verdict;
    Ok(Decided { decision, backup_id: backup, trigger, force, collections, reason, batch_id })
}

/// What is decided, and why.
struct Verdict {
    decision: Decision,
    reason: String,
    batch: Option<String>,
}

/// Whether a backup with this id was published by another execution of the same second, or by this one before it was started again.
async fn existing<S: ObjectStore>(
    catalog: &Catalog<S>,
    backup: BackupId,
    input: &Input,
) -> Result<Option<Verdict>, Error> {
    let manifest = match catalog.manifest(backup).await {
        Ok(manifest) => manifest,
        Err(catalog::Error::NoSuchBackup { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if !covers(&manifest, input) {
        return Err(Error::IdTaken { backup });
    }
    let reason = format!("backup {backup} exists: another execution was started in the same second");
    let batch = manifest.indexing.map(|marker| shown(&marker.batch_id));
    Ok(Some(Verdict { decision: Decision::AlreadyBackedUp, reason, batch }))
}

/// Whether a backup holds what is asked for.
fn covers(manifest: &Manifest, input: &Input) -> bool {
    let has =
        |wanted: &CollectionName| manifest.collections.iter().any(|collection| collection.name == *wanted);
    !manifest.partial || (!input.collections.is_empty() && input.collections.iter().all(has))
}

async fn by_marker<S: ObjectStore>(catalog: &Catalog<S>, key: &str) -> Result<Verdict, Error> {
    let Some(marker) = catalog.success_marker(key).await? else {
        return Err(Error::NoMarker { bucket: catalog.bucket().to_owned(), key: key.to_owned() });
    };
    let pointer = match catalog.pointer().await {
        Ok(pointer) => pointer,
        // The data is worth a backup all the more. Publication will not replace the pointer by itself, and says what to do.
        Err(error)
            if matches!(error.kind(), FailureKind::ManifestInvalid | FailureKind::ChecksumMismatch) =>
        {
            tracing::warn!(
                error = chain(&error),
                "the pointer cannot be used, so that nobody knows which batch it has"
            );
            return Ok(proceed(&marker, "the pointer cannot be used"));
        }
        Err(error) => return Err(error.into()),
    };
    let Some(Pointer { manifest: published, .. }) = pointer else {
        return Ok(proceed(&marker, "no backup is published yet"));
    };
    let backup = published.backup_id;
    let Some(before) = published.indexing else {
        return Ok(proceed(&marker, &format!("no batch is recorded in backup {backup}")));
    };
    if before.batch_id == marker.batch_id {
        let batch = shown(&marker.batch_id);
        let reason = format!("batch `{batch}` is in backup {backup}");
        return Ok(Verdict { decision: Decision::AlreadyBackedUp, reason, batch: Some(batch) });
    }
    let newer = shown(&before.batch_id);
    if marker.finished_at < before.finished_at {
        return Err(Error::OlderBatch {
            batch: shown(&marker.batch_id),
            finished: marker.finished_at,
            backup,
            newer,
            newer_finished: before.finished_at,
        });
    }
    Ok(proceed(&marker, &format!("backup {backup} has batch `{newer}`")))
}

fn proceed(marker: &SuccessMarker, why: &str) -> Verdict {
    let batch = shown(&marker.batch_id);
    let reason = format!("batch `{batch}` is not backed up: {why}");
    Verdict { decision: Decision::Proceed, reason, batch: Some(batch) }
}

fn shown(batch: &str) -> String {
    let mut shown = batch.to_owned();
    truncate(&mut shown, MAX_BATCH);
    shown
}

#[cfg(test)]
mod tests;
