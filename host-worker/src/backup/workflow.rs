//! A backup as tasks of a workflow: waiting for quiescence, and storing. Publication is somebody else's.
//!
//! Both may be asked for again, at any time, with the same id. Once the manifest of a backup is on this host's disk, that backup is what is
//! answered: whichever step a worker was killed at, no second archive is made of it.

use std::{path::Path, time::Duration};

use catalog::Checksum;
use jiff::Timestamp;
use protocol::{
    BackupId, CollectionName, Manifest,
    manifest::CollectionRecord,
    task::{Quiesced, Stored},
};
use tokio::time::Instant;
use tracing::info;

use super::{
    order::Order,
    preflight::preflight,
    run::{Run, hand_over},
    source::Source,
    unfinished::Unfinished,
    waiting::Waiting,
};
use crate::{
    cli::BackupArgs, error::Error, lock::HostLock, progress::Phases, pulse::Phase, session::Session,
};

/// Looks at everything that a backup needs, then waits until nothing is being written, at most as long as `args` say.
///
/// Whoever calls holds the host's lock.
pub async fn quiesced(
    session: &Session,
    _lock: &HostLock,
    id: BackupId,
    args: &BackupArgs,
    mut phases: Phases,
) -> Result<Quiesced, Error> {
    phases.enter(Phase::PreFlight);
    let source = Source::open(session, &phases)?;
    session.unless_cancelled(preflight(session, &source)).await??;
    let begin = Instant::now();
    source.at_rest(Duration::from_secs(args.quiesce_timeout), &mut phases).await?;
    phases.finish();
    Ok(Quiesced { backup_id: id, waited_seconds: begin.elapsed().as_secs_f64() })
}

/// Stores the backup with this id as `args` say, and puts its manifest beside it for whoever may publish.
///
/// Whoever calls holds the host's lock. `now` is the time at this call.
pub async fn stored(
    session: &Session,
    _lock: &HostLock,
    id: BackupId,
    args: &BackupArgs,
    mut phases: Phases,
    now: Timestamp,
) -> Result<Stored, Error> {
    let work_dir = session.config.work_dir();
    let order = Order::of_workflow(id, args);
    phases.enter(Phase::PreFlight);
    if let Some(earlier) = earlier(session, &work_dir, &order, id).await? {
        info!(backup = %id, key = %earlier.manifest.key, "an earlier run has stored this backup");
        phases.enter(Phase::HandOver);
        hand_over(session, &earlier).await?;
        let answer = answer(session, &earlier).await?;
        let unfinished = Unfinished::of(&work_dir);
        // Otherwise the earlier run came to its end, and what lies on the disk belongs to another backup.
        if unfinished.id() == Some(id) {
            phases.enter(Phase::CleanUp);
            Source::open(session, &phases)?.tidy(order.keep_local).await;
            unfinished.forget();
        }
        phases.finish();
        return Ok(answer);
    }

    let mut run = Run::begin(session, &order, phases, now).await?;
    let waiting = Waiting::of(run.stored().await?.manifest);
    waiting.keep(&work_dir)?;
    run.cleaned_up().await;
    run.handed_over(&waiting).await?;
    let answer = answer(session, &waiting).await?;
    // Last: until here the next run goes on with it.
    run.unfinished.forget();
    run.phases.finish();
    info!(backup = %id, bytes = answer.size_bytes, "backup stored and handed over");
    Ok(answer)
}

/// The backup with this id, if it is stored already: its manifest waits on this disk, or is in the catalogue, where a person who went on with
/// an interrupted backup has put it.
async fn earlier(
    session: &Session,
    work_dir: &Path,
    order: &Order,
    id: BackupId,
) -> Result<Option<Waiting>, Error> {
    let earlier = match Waiting::read(work_dir, id)? {
        Some(waiting) => Some(waiting),
        None => match session.unless_cancelled(session.catalog.manifest(id)).await? {
            Ok(manifest) => Some(Waiting::of(manifest)),
            Err(catalog::Error::NoSuchBackup { .. }) => None,
            Err(error) => return Err(error.into()),
        },
    };
    match earlier {
        Some(Waiting { manifest, .. }) if !is_of(&manifest, order) => Err(Error::Request {
            problem: format!("backup {id} is already stored, of other collections"),
            hint: "start another execution: its backup gets another id".to_owned(),
        }),
        earlier => Ok(earlier),
    }
}

/// Whether a backup is of what was ordered.
fn is_of(manifest: &Manifest, order: &Order) -> bool {
    let names = |record: &CollectionRecord| record.name.clone();
    manifest.partial == order.is_partial()
        && (!manifest.partial || {
            let mut found: Vec<CollectionName> = manifest.collections.iter().map(names).collect();
            found.sort();
            found == order.collections
        })
}

/// The answer for a stored backup. It follows from the manifest and from what the store says of the archive, so that every run answers the same.
async fn answer(session: &Session, waiting: &Waiting) -> Result<Stored, Error> {
    let Waiting { manifest, bytes } = waiting;
    let checked = session.catalog.check_object(manifest, None).await?;
    Ok(Stored {
        backup_id: manifest.backup_id,
        key: manifest.key.clone(),
        manifest_sha256: Manifest::digest(bytes),
        size_bytes: manifest.size_bytes,
        collections: manifest.collections.len() as u64,
        points: manifest.collections.iter().map(|record| record.points_after).sum(),
        // No manifest is written before such an archive was read back: see `transfer`.
        read_back: checked.checksum == Checksum::Absent,
        // Whoever stored what an earlier run had captured took no snapshots.
        resumed: manifest.timings.iter().all(|timing| timing.phase != Phase::Snapshot.name()),
        timings: manifest.timings.clone(),
    })
}
