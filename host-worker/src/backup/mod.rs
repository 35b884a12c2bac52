//! A backup, from top to bottom: quiesce, snapshot, pack, upload, publish, clean up.

mod capture;
mod local;
mod pack;

use std::{collections::BTreeSet, time::Duration};

use catalog::{Outcome, PublishPolicy, Published, Standing};
use jiff::Timestamp;
use protocol::{BackupId, CollectionName, FailureKind, Manifest, SuccessMarker, manifest::PhaseTiming};
use serde::Serialize;
use tracing::{info, warn};

use self::{local::LocalSnapshots, pack::Packed};
use crate::{
    cli::BackupArgs,
    config::ByteSize,
    error::Error,
    governor::LatencyReport,
    limits::Limits,
    lock::HostLock,
    output::{Render, table},
    progress::{Display, Phases},
    qdrant, quiesce,
    session::Session,
};

pub(crate) use local::{free_bytes, require_free, write_durably};
pub(crate) use pack::{manifest_path, remove_manifest, tool};

/// What a backup came to.
#[derive(Debug, Serialize)]
pub struct BackupResult {
    /// What was stored.
    pub manifest: Manifest,
    /// Whether the pointer now names it; absent when publication was left to somebody else.
    pub publication: Option<Published>,
    /// How much was done at once, and what kept it from being faster.
    pub limits: Limits,
    /// What became of searches during the upload, if they were to be protected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencyReport>,
    /// What took how long, publication included.
    pub timings: Vec<PhaseTiming>,
    /// Where the manifest waits when it was not published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpublished_manifest: Option<std::path::PathBuf>,
}

/// Backs up the Qdrant of this host.
pub async fn backup(
    session: &Session,
    args: &BackupArgs,
    display: Display,
    now: Timestamp,
) -> Result<BackupResult, Error> {
    let work_dir = session.config.work_dir();
    let _lock = HostLock::acquire(&work_dir, "backup")?;
    let mut phases = Phases::new(display);

    phases.enter("pre-flight");
    let started = Started { id: backup_id(now)?, at: now };
    let qdrant = session.qdrant()?;
    let version = preflight(session, &qdrant).await?;
    let marker = success_marker(session).await?;
    let mut local = LocalSnapshots::open(&work_dir)?;
    tidy(&mut local, &qdrant, args.keep_local).await;

    if !args.no_quiesce {
        phases.enter("quiesce");
        let timeout = Duration::from_secs(args.quiesce_timeout);
        let wait = quiesce::wait(&qdrant, quiesce::Requirements::STANDARD, timeout, quiesce::POLL_INTERVAL);
        session.unless_cancelled(wait).await??;
    }

    let wanted: Option<BTreeSet<CollectionName>> =
        (!args.collections.is_empty()).then(|| args.collections.iter().cloned().collect());
    let dir = session.config.snapshots_dir()?;
    let capture = capture::capture(&qdrant, wanted.as_ref(), &dir, &mut local, &mut phases);
    let captured = session.unless_cancelled(capture).await.flatten();
    let packed = match captured {
        Ok(captured) => {
            warn_of_marker(marker.as_ref(), &captured);
            pack::pack(session, args, &started, version.to_string(), captured, marker, &mut phases).await
        }
        Err(error) => Err(error),
    };
    let Packed { manifest, read_back, limits, latency } = match packed {
        Ok(packed) => packed,
        Err(error) => {
            // Nothing was stored, so the snapshots serve nobody; the failure that is told is the first one.
            if let Err(cleanup) = local.discard_run(&qdrant).await {
                warn!(
                    error = &cleanup as &dyn std::error::Error,
                    "snapshots of the failed backup stay on the disk"
                );
            }
            return Err(error);
        }
    };

    // The upload is verified: local snapshots may go, whatever becomes of the publication.
    phases.enter("clean-up");
    tidy(&mut local, &qdrant, args.keep_local).await;

    let mut unpublished_manifest = Some(pack::write_manifest(&work_dir, &manifest)?);
    let mut publication = None;
    if !args.no_publish {
        phases.enter("publish");
        let policy = PublishPolicy { force: args.force, read_back, ..PublishPolicy::default() };
        publication = Some(session.catalog.publish(&manifest, &policy).await?);
        pack::remove_manifest(unpublished_manifest.take());
    }

    let timings = phases.finish();
    info!(backup = %manifest.backup_id, bytes = manifest.size_bytes, "backup done");
    Ok(BackupResult { manifest, publication, limits, latency, timings, unpublished_manifest })
}

/// Removes local snapshots that nobody needs. What cannot be removed now is tried again by the next backup, and is no reason to go without this one.
async fn tidy(local: &mut LocalSnapshots, qdrant: &qdrant::Client, keep: usize) {
    if let Err(error) = local.rotate(qdrant, keep).await {
        warn!(error = &error as &dyn std::error::Error, "local snapshots stay on the disk");
    }
}

/// Which backup this is.
pub(crate) struct Started {
    pub(crate) id: BackupId,
    pub(crate) at: Timestamp,
}

fn backup_id(now: Timestamp) -> Result<BackupId, Error> {
    BackupId::from_time(now).map_err(|source| Error::Setting { name: "the clock", source: Box::new(source) })
}

/// What can be known to fail before anything is written.
async fn preflight(session: &Session, qdrant: &qdrant::Client) -> Result<qdrant::Version, Error> {
    let version = qdrant.version().await?;
    version.check_supported()?;
    if qdrant.check_auth().await? == qdrant::Auth::Open {
        warn!("Qdrant answers calls without a key: whoever reaches it may read and delete everything");
    }
    qdrant.check_write().await?;
    if qdrant.metrics().await?.recovery_mode {
        let reasons = vec!["Qdrant runs in recovery mode, without its data".to_owned()];
        return Err(quiesce::Error::Unfit { reasons }.into());
    }
    require_conditional_writes(session).await?;
    // A bucket that cannot be read cannot be published to: better known before the snapshots are taken.
    match session.catalog.pointer().await {
        // A damaged pointer is no reason to go without a backup: publication will say what to do about it.
        Err(error) if error.kind() == FailureKind::ManifestInvalid => {
            warn!(error = &error as &dyn std::error::Error, "the pointer cannot be used")
        }
        Ok(_) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(version)
}

/// Publication stands on conditional writes: a store without them is refused before anything is stored.
async fn require_conditional_writes(session: &Session) -> Result<(), Error> {
    let findings = session.catalog.probe_conditions().await;
    match findings.into_iter().find(|finding| finding.standing == Standing::Failed) {
        Some(finding) => Err(Error::StoreUnfit {
            problem: finding.detail,
            kind: finding.kind.unwrap_or(FailureKind::StoreUnavailable),
            hint: finding.hint,
        }),
        None => Ok(()),
    }
}

async fn success_marker(session: &Session) -> Result<Option<SuccessMarker>, Error> {
    let Some(key) = session.config.success_marker() else { return Ok(None) };
    let marker = session.catalog.success_marker(key).await?;
    if marker.is_none() {
        warn!(key, "there is no success marker: the backup records no indexing batch");
    }
    Ok(marker)
}

/// A person may back up at any time; that the counts are not the batch's is worth a line in the log, not a refusal.
fn warn_of_marker(marker: Option<&SuccessMarker>, captured: &capture::Captured) {
    let Some(marker) = marker else { return };
    for (collection, expected) in &marker.expected_counts {
        let found = captured.after.collections.get(collection).map(|state| state.count);
        if found.is_some_and(|found| found != *expected) {
            warn!(batch = marker.batch_id, %collection, expected, found, "the success marker states another count");
        }
    }
}

impl Render for BackupResult {
    fn render(&self) -> String {
        let manifest = &self.manifest;
        let rows: Vec<Vec<String>> = manifest
            .collections
            .iter()
            .map(|collection| {
                let (min, max) = collection.expected_points();
                vec![
                    collection.name.to_string(),
                    if min == max { min.to_string() } else { format!("{min}-{max}") },
                    ByteSize(collection.size_bytes).to_string(),
                    format!("{} points, {} searches", collection.golden.points, collection.golden.searches),
                    if collection.written_during_backup { "written to during the backup" } else { "still" }
                        .to_owned(),
                ]
            })
            .collect();
        let published = match (&self.publication, &self.unpublished_manifest) {
            (Some(published), _) => outcome_line(published.outcome),
            (None, Some(path)) => format!("not published; its manifest is `{}`", path.display()),
            (None, None) => "not published".to_owned(),
        };
        let latency =
            self.latency.as_ref().map(|report| format!("\n  latency    {report}")).unwrap_or_default();
        let seconds = manifest.latest_snapshot_upload_duration_in_seconds.max(1e-3);
        format!(
            "backup {}\n  archive    {} ({} raw) in {} frames\n  stored as  {}\n  sha256     {}\n  uploaded   in {:.1} s, {}/s raw, {} parts in flight\n  limits     {}{latency}\n  published  {}\n  took       {}\n\n{}",
            manifest.backup_id,
            ByteSize(manifest.size_bytes),
            ByteSize(manifest.archive.raw_bytes),
            manifest.archive.frame_count,
            manifest.latest_snapshot_to_path,
            manifest.sha256,
            manifest.latest_snapshot_upload_duration_in_seconds,
            rate(manifest.archive.raw_bytes, seconds),
            manifest.multipart_upload_concurrency,
            self.limits,
            published,
            timings_line(&self.timings),
            table(&["collection", "points", "snapshot", "recorded", "during the backup"], &[1, 2], &rows)
        )
    }
}

/// How publication ended, for people.
pub(crate) fn outcome_line(outcome: Outcome) -> String {
    match outcome {
        Outcome::Published => "the pointer names it".to_owned(),
        Outcome::AlreadyPublished => "the pointer named it before".to_owned(),
        Outcome::Superseded { by } => format!("superseded: the pointer names {by}, which is newer"),
        Outcome::Partial => "as a partial backup: the pointer is untouched".to_owned(),
    }
}

/// `bytes` per second, for people.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate for people; it is positive and far below 2^64"
)]
pub(crate) fn rate(bytes: u64, seconds: f64) -> ByteSize {
    ByteSize((bytes as f64 / seconds.max(1e-3)) as u64)
}

/// The phases on one line, as `snapshot 1.2 s, upload 3.4 s`.
pub(crate) fn timings_line(timings: &[PhaseTiming]) -> String {
    timings
        .iter()
        .map(|timing| format!("{} {:.1} s", timing.phase, timing.seconds))
        .collect::<Vec<_>>()
        .join(", ")
}
