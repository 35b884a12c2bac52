//! A backup, from top to bottom: quiesce, snapshot, pack, upload, publish, clean up.

mod capture;
mod local;
mod pack;
mod unfinished;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use catalog::{Outcome, PublishPolicy, Published, Standing};
use jiff::Timestamp;
use protocol::{
    BackupId, CollectionName, FailureKind, Manifest, SuccessMarker,
    manifest::PhaseTiming,
    task::{Quiesced, Stored},
};
use serde::Serialize;
use tracing::{info, warn};

use self::{
    local::LocalSnapshots,
    pack::Packed,
    unfinished::{Prepared, Today, Unfinished},
};
use crate::{
    cli::BackupArgs,
    config::ByteSize,
    error::Error,
    lock::HostLock,
    output::{Render, table},
    progress::{Display, Phases},
    pulse::Phase,
    qdrant, quiesce,
    session::Session,
};

pub(crate) use local::{free_bytes, local, require_free, write_durably};
pub use pack::Moved;
pub(crate) use pack::{manifest_path, remove_manifest, tool};

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

/// Backs up the Qdrant of this host.
pub async fn backup(
    session: &Session,
    args: &BackupArgs,
    display: Display,
    now: Timestamp,
) -> Result<BackupResult, Error> {
    let work_dir = session.config.work_dir();
    let _lock = HostLock::acquire(&work_dir, "backup")?;
    let mut run = Run::begin(session, args, None, now, Phases::new(display)).await?;
    let Packed { manifest, read_back, moved } = run.stored().await?;

    // The upload is verified: once its manifest is on the disk, local snapshots may go, whatever becomes of the publication.
    let mut unpublished_manifest = Some(pack::write_manifest(&work_dir, &manifest)?);
    run.phases.enter(Phase::CleanUp);
    tidy(&mut run.local, &run.qdrant, args.keep_local).await;
    let mut publication = None;
    if !args.no_publish {
        run.phases.enter(Phase::Publish);
        publication = Some(run.published(&manifest, read_back).await?);
    }
    // Before its manifest goes: a backup that is gone on with without one would be published with another.
    run.unfinished.forget();
    if publication.is_some() {
        pack::remove_manifest(unpublished_manifest.take());
    }

    let (timings, resumed) = (run.phases.finish(), run.resumed);
    info!(backup = %manifest.backup_id, bytes = manifest.size_bytes, "backup done");
    Ok(BackupResult { manifest, publication, resumed, moved, timings, unpublished_manifest })
}

/// Looks at everything that the backup `id` needs, and waits until nothing is written. The caller holds the host's lock.
pub(crate) async fn quiesced(
    _lock: &HostLock,
    session: &Session,
    args: &BackupArgs,
    id: BackupId,
    mut phases: Phases,
) -> Result<Quiesced, Error> {
    let begun = Instant::now();
    phases.enter(Phase::PreFlight);
    let qdrant = session.qdrant()?;
    preflight(session, &qdrant).await?;
    phases.enter(Phase::Quiesce);
    quiesce(session, &qdrant, args, &phases).await?;
    let waited_seconds = (begun.elapsed().as_secs_f64() * 1e3).round() / 1e3;
    Ok(Quiesced { backup_id: id, waited_seconds })
}

/// Stores the backup `id` and hands its manifest over to whoever may publish it. The caller holds the host's lock.
///
/// May be repeated: what an earlier run of the same backup has stored is gone on with, and once its manifest is written there is never another archive.
pub(crate) async fn handed_over(
    _lock: &HostLock,
    session: &Session,
    args: &BackupArgs,
    id: BackupId,
    now: Timestamp,
    phases: Phases,
) -> Result<Stored, Error> {
    let work_dir = session.config.work_dir();
    let mut run = Run::begin(session, args, Some(id), now, phases).await?;
    let packed = match pack::read_manifest(&work_dir, id) {
        Some(manifest) => {
            run.resumed = true;
            Packed { manifest, read_back: false, moved: None }
        }
        None => run.stored().await?,
    };
    let Packed { manifest, read_back, .. } = packed;
    pack::write_manifest(&work_dir, &manifest)?;
    run.phases.enter(Phase::SideFiles);
    let bytes = manifest.to_json();
    let manifest_sha256 = Manifest::digest(&bytes);
    session.catalog.put_side_file(&manifest.key.manifest(), bytes).await?;
    run.phases.enter(Phase::CleanUp);
    tidy(&mut run.local, &run.qdrant, args.keep_local).await;
    // From here on the manifest on the disk is what a repetition finds.
    run.unfinished.forget();
    info!(backup = %id, bytes = manifest.size_bytes, "backup handed over");
    Ok(Stored {
        backup_id: id,
        manifest_sha256,
        size_bytes: manifest.size_bytes,
        collections: manifest.collections.len() as u64,
        points: manifest.collections.iter().map(|collection| collection.points_after).sum(),
        key: manifest.key,
        read_back,
        resumed: run.resumed,
        timings: run.phases.finish(),
    })
}

/// Gives up the backup that an earlier run has left unfinished, if there is one.
pub(crate) async fn give_up_unfinished(session: &Session) {
    Unfinished::of(&session.config.work_dir()).put_away(session).await;
}

/// A backup that is under way.
struct Run<'a> {
    session: &'a Session,
    args: &'a BackupArgs,
    qdrant: qdrant::Client,
    version: String,
    today: Today,
    local: LocalSnapshots,
    unfinished: Unfinished,
    phases: Phases,
    /// Whether an earlier run has captured what is stored.
    resumed: bool,
}

impl<'a> Run<'a> {
    /// Looks at what a backup needs. `id` is given for a task of the workflow; a person's backup is named after its begin.
    async fn begin(
        session: &'a Session,
        args: &'a BackupArgs,
        id: Option<BackupId>,
        now: Timestamp,
        mut phases: Phases,
    ) -> Result<Self, Error> {
        let work_dir = session.config.work_dir();
        phases.enter(Phase::PreFlight);
        let qdrant = session.qdrant()?;
        let version = preflight(session, &qdrant).await?;
        let marker = success_marker(session).await?;
        let unfinished = Unfinished::of(&work_dir);
        // One that is in the catalogue and that the pointer did not get to is still to be gone on with.
        pack::forget_published(session, id.or_else(|| unfinished.id())).await;
        Ok(Self {
            session,
            args,
            qdrant,
            version: version.to_string(),
            today: Today::new(session, args, id, marker, now)?,
            local: LocalSnapshots::open(&work_dir)?,
            unfinished,
            phases,
            resumed: false,
        })
    }

    /// Stores an archive: the one that an earlier run has left unfinished, or one of today's data.
    async fn stored(&mut self) -> Result<Packed, Error> {
        let left = self.unfinished.take_up(self.session, self.args.fresh, &self.today).await;
        let prepared = match left {
            Some(left) => {
                let Prepared { description, .. } = &left;
                self.phases.tell(&format!(
                    "going on with backup {} of {}, which was interrupted; --fresh begins anew",
                    description.backup_id, description.created_at
                ));
                self.resumed = true;
                left
            }
            None => self.prepared().await?,
        };
        match self.store(&prepared).await {
            Err(Error::Transfer(error)) if prepared.resumed && is_lost(&error) => {
                warn!(
                    error = &*error as &dyn std::error::Error,
                    "an interrupted backup is given up: beginning anew"
                );
                self.resumed = false;
                let prepared = self.prepared().await?;
                self.store(&prepared).await
            }
            result => result,
        }
    }

    /// Captures today's data and keeps on this host what is needed to store it.
    async fn prepared(&mut self) -> Result<Prepared, Error> {
        let (session, args) = (self.session, self.args);
        tidy(&mut self.local, &self.qdrant, args.keep_local).await;
        if !args.no_quiesce {
            self.phases.enter(Phase::Quiesce);
            quiesce(session, &self.qdrant, args, &self.phases).await?;
        }
        let prepared = self.captured().await;
        if prepared.is_err() {
            // Nothing is stored, so the snapshots serve nobody.
            self.discard_snapshots().await;
        }
        prepared
    }

    async fn captured(&mut self) -> Result<Prepared, Error> {
        let Self { session, args, qdrant, today, local, phases, .. } = self;
        let started = Started { id: today.id.map_or_else(|| backup_id(today.now), Ok)?, at: today.now };
        let wanted: Option<BTreeSet<CollectionName>> =
            (!args.collections.is_empty()).then(|| args.collections.iter().cloned().collect());
        let dir = session.config.snapshots_dir()?;
        let capture = capture::capture(qdrant, wanted.as_ref(), &dir, local, phases);
        let captured = session.unless_cancelled(capture).await??;
        warn_of_marker(today.marker.as_ref(), &captured);
        let (request, marker) = (today.request.clone(), today.marker.clone());
        let prepared = pack::prepare(session, request, &started, self.version.clone(), &captured, marker)?;
        self.unfinished.keep(&prepared)?;
        Ok(prepared)
    }

    /// Stores the archive. Unless another run can go on with it, nothing of it stays when that fails.
    async fn store(&mut self, prepared: &Prepared) -> Result<Packed, Error> {
        let journal = self.unfinished.journal();
        let stored = pack::store(self.session, self.args, prepared, journal, &mut self.phases).await;
        match &stored {
            Err(error) if can_go_on(error) => {
                info!(backup = %prepared.id(), "the next backup goes on with what is stored of this one");
            }
            Err(_) => {
                self.unfinished.put_away(self.session).await;
                self.discard_snapshots().await;
            }
            Ok(_) => {}
        }
        stored
    }

    async fn published(&mut self, manifest: &Manifest, read_back: bool) -> Result<Published, Error> {
        let policy = PublishPolicy { force: self.args.force, read_back, ..PublishPolicy::default() };
        let published = self.session.catalog.publish(manifest, &policy).await.map_err(Error::from);
        if published.as_ref().is_err_and(|error| !can_go_on(error)) {
            // The manifest waits on this host for a person's `publish`; nothing is left for another run to do.
            self.unfinished.forget();
        }
        published
    }

    /// Removes this run's snapshots. What cannot be removed is not what the backup failed for.
    async fn discard_snapshots(&mut self) {
        if let Err(error) = self.local.discard_run(&self.qdrant).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "snapshots of the failed backup stay on the disk"
            );
        }
    }
}

/// Whether an interrupted upload cannot be gone on with, though the snapshots may be as good as ever.
fn is_lost(error: &transfer::Error) -> bool {
    matches!(error, transfer::Error::NotResumable { .. })
}

/// Whether another run can go on where this one failed.
fn can_go_on(error: &Error) -> bool {
    if let Error::Transfer(error) = error {
        return error.is_resumable();
    }
    matches!(error, Error::Cancelled) || error.kind().is_transient()
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

async fn quiesce(
    session: &Session,
    qdrant: &qdrant::Client,
    args: &BackupArgs,
    phases: &Phases,
) -> Result<(), Error> {
    let timeout = Duration::from_secs(args.quiesce_timeout);
    let standard = quiesce::Requirements::STANDARD;
    let interval = quiesce::POLL_INTERVAL / session.config.time_divisor();
    let wait = quiesce::wait(qdrant, standard, timeout, interval, phases.pulse());
    Ok(session.unless_cancelled(wait).await??)
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
