//! How safe data is, as the numbers that alarms look at: the state machine `watch` publishes them as they are answered here.
//!
//! Batches are compared by their ids, as `decide` does; clocks only say for how long something has been so. What is not known is not said: a number that stays
//! away is an alarm, and one that is made up is none.

use catalog::{Catalog, ObjectStore};
use jiff::{SignedDuration, Timestamp};
use protocol::{FailureKind, SuccessMarker};

use crate::{
    error::Error,
    event::{DrillSchedule, Execution, Fresh, Freshness, MetricDatum},
};

/// How long the event of a marker may be under way before it counts as lost: EventBridge delivers within seconds, and tries again for longer than this only where
/// Step Functions does not answer.
const DELIVERY: SignedDuration = SignedDuration::from_mins(15);

/// How far ahead the clock of an indexing job may be before its times are worth nothing.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// The kinds of failures that alarms add up. A sum with a number that was never published may be none, so that each is there from the beginning, as 0.
pub const ADDED_UP: [FailureKind; 4] = [
    FailureKind::ArchiveCorrupt,
    FailureKind::ChecksumMismatch,
    FailureKind::StoreUnavailable,
    FailureKind::UploadFailed,
];

/// How many executions are listed (`watch.asl.json`).
const LISTED: usize = 100;

/// How long an execution may run before it is stuck: longer than any backup and any drill, their retries included.
pub const STUCK_AFTER: SignedDuration = SignedDuration::from_hours(24);

pub(crate) async fn freshness<S: ObjectStore>(
    catalog: &Catalog<S>,
    marker_key: &str,
    event: Freshness,
    now: Timestamp,
) -> Result<Fresh, Error> {
    // The pointer first: a batch that is marked between the two reads has then been waiting for a moment, and one that is backed up meanwhile is not missed.
    let pointer = catalog.pointer().await?.map(|pointer| pointer.manifest);
    let marker = catalog.success_marker(marker_key).await?;
    let published =
        pointer.map(|manifest| Published { created_at: manifest.created_at, batch: manifest.indexing });
    let fresh = measured(published.as_ref(), marker.as_ref(), &event, now);
    tracing::info!(execution = %event.execution, reason = fresh.reason, "measured");
    Ok(fresh)
}

/// The backup that the pointer names.
struct Published {
    created_at: Timestamp,
    batch: Option<SuccessMarker>,
}

fn measured(
    published: Option<&Published>,
    marker: Option<&SuccessMarker>,
    event: &Freshness,
    now: Timestamp,
) -> Fresh {
    let age = |since: Timestamp| u64::try_from(now.duration_since(since).as_secs()).unwrap_or(0);
    let mut metric_data = Vec::new();
    if let Some(published) = published {
        metric_data.push(MetricDatum::seconds("PointerAgeSeconds", age(published.created_at)));
    }
    let (unprotected, reason) = match (published, marker) {
        // Nothing was ever published.
        (None, _) => (None, "nothing is published"),
        (Some(published), None) => {
            (Some(published.created_at), "there is no success marker: the published backup's age counts")
        }
        (Some(Published { batch: Some(batch), .. }), Some(marker)) if batch.batch_id == marker.batch_id => {
            (Some(now), "the newest batch is in the published backup")
        }
        (Some(published), Some(marker)) => {
            let (since, reason) = waiting_since(published, marker, &event.backups.recent, now);
            (Some(since), reason)
        }
    };
    metric_data.extend(unprotected.map(|since| MetricDatum::seconds("UnprotectedSeconds", age(since))));
    let stuck_after = event.stuck_after.unwrap_or(STUCK_AFTER);
    let running = event.backups.running.iter().chain(&event.drills.running);
    let stuck = running.filter(|one| now.duration_since(one.started_at) > stuck_after).count();
    metric_data.push(MetricDatum::count("StuckExecutions", stuck as u64));
    if event.drills.schedule != DrillSchedule::None {
        let passed = event.drills.passed.iter().map(Execution::ended_at).max();
        // Before the first one drills have been possible since their machine was made.
        metric_data
            .push(MetricDatum::seconds("DrillAgeSeconds", age(passed.unwrap_or(event.drills.created_at))));
    }
    metric_data.extend(ADDED_UP.map(MetricDatum::no_failure));
    Fresh { metric_data, reason: reason.to_owned() }
}

/// Since when data may have been without a backup, where the newest batch is not in the published one. The marker tells only of the newest batch: a job that marks one
/// each hour makes it always young, however long no backup was made. So what was asked for since counts, and where nothing was, or not all of it is known, the worst.
///
/// An execution that succeeds is no end of it. One that published has made the published backup itself younger; a partial one, or one that had nothing to do, has not.
fn waiting_since(
    published: &Published,
    marker: &SuccessMarker,
    newest_first: &[Execution],
    now: Timestamp,
) -> (Timestamp, &'static str) {
    if marker.finished_at > now + CLOCK_TOLERANCE {
        return (published.created_at, "the marker is of the future: the published backup's age counts");
    }
    let later = |execution: &&Execution| execution.started_at > published.created_at;
    if newest_first.len() >= LISTED && newest_first.iter().all(|execution| later(&execution)) {
        return (
            published.created_at,
            "backups were asked for more often than is listed: the published backup's age counts",
        );
    }
    let in_vain = newest_first.iter().filter(later).filter(|execution| !execution.has_succeeded());
    let since = match in_vain.map(|execution| execution.started_at).min() {
        Some(asked) => asked,
        None if now.duration_since(marker.finished_at) <= DELIVERY => marker.finished_at,
        None => {
            let since = marker.finished_at.min(published.created_at);
            return (since, "nothing was started for the newest batch: the published backup's age counts");
        }
    };
    (since.min(marker.finished_at), "the newest batch waits for its backup")
}

#[cfg(test)]
mod tests;
