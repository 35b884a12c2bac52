//! How safe data is, as the numbers that alarms look at: the state machine `watch` publishes them as they are answered here.
//!
//! Batches are compared by their ids, as `decide` does; clocks only say for how long something has been so. What is not known is not said: a number that stays
//! away is an alarm, and one that is made up is none.

use catalog::{Catalog, ObjectStore};
use jiff::{SignedDuration, Timestamp};
use protocol::SuccessMarker;

use crate::{
    error::Error,
    event::{DrillSchedule, Execution, Fresh, Freshness, MetricDatum},
};

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
            let since = asked_in_vain(published, &event.backups.recent);
            let since = since.map_or(marker.finished_at, |since| since.min(marker.finished_at));
            (Some(since), "the newest batch waits for its backup")
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
    Fresh { metric_data, reason: reason.to_owned() }
}

/// Since when a backup has been asked for and none has succeeded, after the published one. Without it a job that marks a batch each hour would make the newest marker
/// always young, however long no backup succeeds.
fn asked_in_vain(published: &Published, newest_first: &[Execution]) -> Option<Timestamp> {
    let since_the_last_success = newest_first.iter().take_while(|execution| !execution.has_succeeded());
    since_the_last_success
        .map(|execution| execution.started_at)
        .filter(|started_at| *started_at > published.created_at)
        .min()
}

#[cfg(test)]
mod tests;
