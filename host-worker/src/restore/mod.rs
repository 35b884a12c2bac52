//! A restore, from top to bottom: choose, plan, bring each collection back, verify, and only then let readers see it.

mod plan;
mod stage;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protocol::{
    BackupId, CollectionName, Manifest, Verdict,
    manifest::{Origin, PhaseTiming},
    verdict,
};
use serde::Serialize;
use tracing::{info, warn};
use transfer::{ArchiveRef, FrameIndex, ReadOptions};

use self::{
    plan::{Mode, Plan, Present, Target},
    stage::Stage,
};
use crate::{
    backup::{rate, require_free, timings_line},
    cli::RestoreArgs,
    config::{ByteSize, SnapshotsDir},
    error::Error,
    limits,
    lock::HostLock,
    observe, origin,
    output::{Render, table},
    progress::{Display, Phases},
    qdrant::{self, Checksum},
    select,
    session::Session,
    verify::{self, Summary},
};

/// How long Qdrant may replay restored writes in the background (1.17.0 to 1.18.3 do) before the data is looked at.
pub(crate) const REPLAY_PATIENCE: Duration = Duration::from_secs(600);

/// What a restore came to.
#[derive(Debug, Serialize)]
pub struct RestoreResult {
    /// The backup.
    pub backup_id: BackupId,
    /// Why it is this one.
    pub chosen: String,
    /// The collections that are there now: name in the backup, name in Qdrant.
    pub collections: Vec<(CollectionName, CollectionName)>,
    /// The aliases that were set.
    pub aliases: BTreeMap<String, CollectionName>,
    /// Bytes of snapshots that were restored.
    pub bytes: u64,
    /// The proof.
    pub verdict: Verdict,
    /// What took how long.
    pub timings: Vec<PhaseTiming>,
}

/// Brings a backup back.
pub async fn restore(
    session: &Session,
    args: &RestoreArgs,
    display: Display,
) -> Result<RestoreResult, Error> {
    let work_dir = session.config.work_dir();
    let _lock = HostLock::acquire(&work_dir, "restore")?;
    let mut phases = Phases::new(display);

    phases.enter("pre-flight");
    let chosen = select::select(session, &args.selection, args.fallback).await?;
    let manifest = &chosen.manifest;
    let qdrant = session.qdrant()?;
    let server = qdrant.version().await?;
    let recorded = manifest
        .qdrant
        .version
        .parse()
        .map_err(|source| Error::Setting { name: "the backup's Qdrant version", source: Box::new(source) })?;
    qdrant::version::can_restore(recorded, server)?;
    let mode = mode(args);
    let plan = plan::plan(manifest, &args.collections, &mode, &present(&qdrant).await?)?;
    let dir = session.config.snapshots_dir()?;
    require_room(manifest, &plan, &dir)?;
    let index = transfer::fetch_index(
        &session.objects,
        &manifest.key.frames(),
        ArchiveRef::of(manifest, &manifest.key.to_string()),
        &options(session, args)?,
    )
    .await?;
    let golden = verify::golden(session, manifest).await?;

    let mut made = Vec::new();
    if let Err(error) =
        bring_back(session, args, manifest, &index, &plan, &dir, &qdrant, &mut made, &mut phases).await
    {
        return Err(undo(&qdrant, &made, error).await);
    }

    phases.enter("verify");
    let names: BTreeMap<CollectionName, CollectionName> =
        plan.targets.iter().map(|target| (target.recorded.clone(), target.name.clone())).collect();
    let wanted: BTreeSet<CollectionName> = names.keys().cloned().collect();
    let mut observed = match observe::observe(&qdrant, &golden, &names, false, REPLAY_PATIENCE).await {
        Ok(observed) => observed,
        // What cannot be looked at is not restored.
        Err(error) => return Err(undo(&qdrant, &made, error.into()).await),
    };
    let verdict = verdict::judge(&golden, &observed, &wanted);
    if !verdict.passed {
        return Err(Error::NotAsRecorded {
            backup: manifest.backup_id,
            failed: Summary::failures(&verdict),
            left: plan.targets.iter().map(|target| target.name.to_string()).collect(),
        });
    }

    phases.enter("aliases");
    if !plan.aliases.is_empty() {
        qdrant.change_aliases(&plan.aliases).await?;
    }
    let aliases = qdrant.aliases().await?;
    plan.require_aliases(&aliases)?;
    observed.aliases = plan.judges_aliases().then_some(aliases);
    let verdict = verdict::judge(&golden, &observed, &wanted);
    if !verdict.passed {
        let left = plan.targets.iter().map(|target| target.name.to_string()).collect();
        return Err(Error::NotAsRecorded {
            backup: manifest.backup_id,
            failed: Summary::failures(&verdict),
            left,
        });
    }

    if !matches!(mode, Mode::Beside { .. }) && args.collections.is_empty() {
        let degraded = chosen.fallback;
        origin::write(&work_dir, &Origin { backup_id: Some(manifest.backup_id), degraded })?;
    }
    let timings = phases.finish();
    info!(backup = %manifest.backup_id, collections = plan.targets.len(), "restore done");
    Ok(RestoreResult {
        backup_id: manifest.backup_id,
        chosen: chosen.why,
        collections: plan
            .targets
            .iter()
            .map(|target| (target.recorded.clone(), target.name.clone()))
            .collect(),
        aliases: plan.alias_targets(),
        bytes: plan.targets.iter().map(|target| manifest.collections[target.record].size_bytes).sum(),
        verdict,
        timings,
    })
}

fn mode(args: &RestoreArgs) -> Mode {
    match (&args.suffix, args.replace) {
        (Some(suffix), _) => Mode::Beside { suffix: suffix.clone(), switch_alias: args.switch_alias },
        (None, true) => Mode::Replace,
        (None, false) => Mode::Empty,
    }
}

async fn present(qdrant: &qdrant::Client) -> Result<Present, Error> {
    Ok(Present {
        collections: qdrant.collections().await?.into_iter().collect(),
        aliases: qdrant.aliases().await?,
    })
}

fn options(session: &Session, args: &RestoreArgs) -> Result<ReadOptions, Error> {
    let mut options = ReadOptions::new(limits::memory_budget(session.config.memory_budget())?);
    options.concurrency = args.concurrency.map(|ranges| ranges as usize);
    options.cancel = session.cancel.clone();
    Ok(options)
}

/// Collections come back one by one, so the disk needs room for all unpacked and for the largest snapshot beside them.
fn require_room(manifest: &Manifest, plan: &Plan, dir: &SnapshotsDir) -> Result<(), Error> {
    let sizes = plan.targets.iter().map(|target| manifest.collections[target.record].size_bytes);
    let (sum, largest) =
        sizes.fold((0_u64, 0_u64), |(sum, largest), size| (sum.saturating_add(size), largest.max(size)));
    require_free(&dir.host, sum.saturating_add(largest), "the collections and the largest snapshot")
}

/// Downloads, verifies and recovers one collection after the other. `made` lists what would have to be undone.
#[expect(
    clippy::too_many_arguments,
    reason = "the one step between a plan and its undoing; a struct would be made for this call alone"
)]
async fn bring_back(
    session: &Session,
    args: &RestoreArgs,
    manifest: &Manifest,
    index: &FrameIndex,
    plan: &Plan,
    dir: &SnapshotsDir,
    qdrant: &qdrant::Client,
    made: &mut Vec<CollectionName>,
    phases: &mut Phases,
) -> Result<(), Error> {
    let stage = Stage::create(dir)?;
    let result = async {
        for target in &plan.targets {
            if session.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            bring_back_one(session, args, manifest, index, target, &stage, qdrant, made, phases).await?;
        }
        Ok(())
    }
    .await;
    // The first failure is the one to tell; a stage that cannot be removed is told only if nothing else failed.
    match (result, stage.release()) {
        (Err(error), released) => {
            if let Err(leftover) = released {
                warn!(error = &leftover as &dyn std::error::Error, "the restore's staging directory stays");
            }
            Err(error)
        }
        (Ok(()), released) => released,
    }
}

#[expect(clippy::too_many_arguments, reason = "as above")]
async fn bring_back_one(
    session: &Session,
    args: &RestoreArgs,
    manifest: &Manifest,
    index: &FrameIndex,
    target: &Target,
    stage: &Stage,
    qdrant: &qdrant::Client,
    made: &mut Vec<CollectionName>,
    phases: &mut Phases,
) -> Result<(), Error> {
    let record = &manifest.collections[target.record];
    phases.enter("download");
    phases.detail(target.name.as_str());
    let staged = stage.file(target.record)?;
    let options = options(session, args)?;
    let progress = options.progress.clone();
    let key = manifest.key.to_string();
    let wanted = [(target.entry, staged.host.clone())];
    let download =
        transfer::restore_entries(&session.objects, ArchiveRef::of(manifest, &key), index, &wanted, options);
    phases.follow(&progress, download).await?;
    stage.hand_over(&staged)?;

    phases.enter("recover");
    phases.detail(target.name.as_str());
    if target.replaces {
        // Typed by a person (`--replace`), and not before the verified snapshot is on the disk.
        qdrant.delete_collection(&target.name).await?;
    }
    made.push(target.name.clone());
    let checksum: Checksum = record
        .sha256
        .parse()
        .map_err(|source| Error::Setting { name: "the snapshot's checksum", source: Box::new(source) })?;
    qdrant.recover(&target.name, &staged.location, &checksum).await?;
    stage.discard(&staged)
}

/// Deletes the collections that a failed restore made; answers with the failure to tell.
async fn undo(qdrant: &qdrant::Client, made: &[CollectionName], failure: Error) -> Error {
    for name in made {
        let deleted = qdrant.delete_collection(name).await;
        // A recovery that was refused has made nothing.
        let absent = async || qdrant.collections().await.is_ok_and(|there| !there.contains(name));
        if let Err(error) = deleted
            && !absent().await
        {
            warn!(collection = %name, error = &error as &dyn std::error::Error, "a half-restored collection stays");
            return Error::Leftover { what: format!("collection {name}"), source: Box::new(failure) };
        }
        info!(collection = %name, "half-restored collection removed");
    }
    failure
}

impl Render for RestoreResult {
    fn render(&self) -> String {
        let rows: Vec<Vec<String>> =
            self.collections.iter().map(|(from, to)| vec![from.to_string(), to.to_string()]).collect();
        let seconds: f64 = self.timings.iter().filter(|t| t.phase == "download").map(|t| t.seconds).sum();
        let aliases =
            self.aliases.iter().map(|(alias, to)| format!("{alias} → {to}")).collect::<Vec<_>>().join(", ");
        format!(
            "restored backup {} ({})\n  snapshots  {}, downloaded and verified at {}/s\n  aliases    {}\n  took       {}\n\n{}\n\n{}",
            self.backup_id,
            self.chosen,
            ByteSize(self.bytes),
            rate(self.bytes, seconds),
            if aliases.is_empty() { "none set" } else { &aliases },
            timings_line(&self.timings),
            table(&["in the backup", "in Qdrant"], &[], &rows),
            Summary::render(&self.verdict)
        )
    }
}
