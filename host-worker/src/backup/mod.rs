//! A backup, from top to bottom: quiesce, snapshot, pack, upload, publish, clean up.

mod capture;
mod local;
mod order;
mod pack;
mod preflight;
mod run;
mod source;
mod unfinished;
mod waiting;
pub mod workflow;

use catalog::{Outcome, PublishPolicy, Published};
use jiff::Timestamp;
use protocol::{Manifest, manifest::PhaseTiming};
use serde::Serialize;
use tracing::info;

use self::{order::Order, pack::Packed, run::Run, unfinished::Unfinished, waiting::Waiting};
use crate::{
    cli::BackupArgs,
    config::ByteSize,
    error::Error,
    lock::HostLock,
    output::{Render, table},
    progress::{Display, Phases},
    session::Session,
};

pub(crate) use local::{begun_at, free_bytes, local, require_free, write_durably};
pub use pack::Moved;
pub(crate) use pack::tool;
pub(crate) use waiting::{remove_manifest, waiting_manifest};

/// What a backup came to.
#[derive(Debug, Serialize)]
pub struct BackupResult {
    /// What was stored.
    pub manifest: Manifest,
    /// Whether the pointer now names it; absent when publication was left to somebody else.
    pub publication: Option<Published>,
    /// Whether it is an interrupted backup that was gone on with, and so of the data of then.
    pub resumed: bool,
    /// How the archive was moved; absent when an earlier run had done that and this one only published it.
    #[serde(flatten)]
    pub moved: Option<Moved>,
    /// What took how long, publication included.
    pub timings: Vec<PhaseTiming>,
    /// Where the manifest waits when it was not published.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unpublished_manifest: Option<std::path::PathBuf>,
}

/// Backs up the Qdrant of this host, as a person asks for it.
pub async fn backup(
    session: &Session,
    args: &BackupArgs,
    display: Display,
    now: Timestamp,
) -> Result<BackupResult, Error> {
    let work_dir = session.config.work_dir();
    let _lock = HostLock::acquire(&work_dir, "backup")?;
    let order = Order::from(args);
    let mut run = Run::begin(session, &order, Phases::new(display), now).await?;
    let Packed { manifest, read_back, moved } = run.stored().await?;

    // The upload is verified: once its manifest is on the disk, local snapshots may go, whatever becomes of the publication.
    let waiting = Waiting::of(manifest);
    let mut unpublished_manifest = Some(waiting.keep(&work_dir)?);
    run.cleaned_up().await;
    let mut publication = None;
    if args.no_publish {
        run.handed_over(&waiting).await?;
    } else {
        let policy = PublishPolicy { force: args.force, read_back, ..PublishPolicy::default() };
        publication = Some(run.published(&waiting.manifest, &policy).await?);
    }
    // Before its manifest goes: a backup that is gone on with without one would be published with another.
    run.unfinished.forget();
    if publication.is_some() {
        unpublished_manifest = None;
        remove_manifest(&work_dir, waiting.manifest.backup_id);
    }

    let (timings, resumed, manifest) = (run.phases.finish(), run.resumed, waiting.manifest);
    info!(backup = %manifest.backup_id, bytes = manifest.size_bytes, "backup done");
    Ok(BackupResult { manifest, publication, resumed, moved, timings, unpublished_manifest })
}

/// Gives up the backup that an earlier run has left unfinished, if there is one.
pub(crate) async fn give_up_unfinished(session: &Session) {
    Unfinished::of(&session.config.work_dir()).put_away(session).await;
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
        let moved = self.moved.as_ref().map(Moved::render).unwrap_or_default();
        let seconds = manifest.latest_snapshot_upload_duration_in_seconds.max(1e-3);
        format!(
            "backup {}\n  archive    {} ({} raw) in {} frames\n  stored as  {}\n  sha256     {}\n  uploaded   in {:.1} s, {}/s raw, {} parts in flight{moved}\n  published  {}\n  took       {}\n\n{}",
            manifest.backup_id,
            ByteSize(manifest.size_bytes),
            ByteSize(manifest.archive.raw_bytes),
            manifest.archive.frame_count,
            manifest.latest_snapshot_to_path,
            manifest.sha256,
            manifest.latest_snapshot_upload_duration_in_seconds,
            rate(manifest.archive.raw_bytes, seconds),
            manifest.multipart_upload_concurrency,
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
