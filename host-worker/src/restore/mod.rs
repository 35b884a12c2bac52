//! A restore, from top to bottom: choose, plan, bring each collection back, verify, and only then let readers see it.

mod bring_back;
mod earlier;
mod journal;
mod plan;
mod stage;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use protocol::{
    BackupId, CollectionName, Manifest, Verdict,
    drill::{Fidelity, fidelity},
    manifest::{Origin, PhaseTiming},
    verdict::{self, Observation},
};
use serde::Serialize;
use tracing::info;
use transfer::{ArchiveRef, Durability, Leftovers, ReadOptions};

use self::{
    bring_back::BringBack,
    earlier::Earlier,
    journal::{Choice, Journal},
    plan::{Mode, Place, Plan, Present},
};
use crate::{
    backup::{self, rate, require_free, timings_line},
    cli::RestoreArgs,
    config::{ByteSize, SnapshotsDir},
    error::Error,
    limits::{Limits, Wish},
    lock::HostLock,
    observe, origin,
    output::{Render, table},
    progress::{Display, Phases},
    pulse::Phase,
    qdrant,
    select::{self, Chosen},
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
    /// How many of them an earlier run of the same restore had brought here already.
    pub kept_bytes: u64,
    /// Whether an earlier run of the same restore had done a part of it, so that its times are not those of a whole one.
    pub resumed: bool,
    /// The proof.
    pub verdict: Verdict,
    /// The same in numbers, collection by collection.
    pub fidelity: Vec<Fidelity>,
    /// What took how long.
    pub timings: Vec<PhaseTiming>,
}

/// Brings a backup back.
pub async fn restore(
    session: &Session,
    args: &RestoreArgs,
    display: Display,
) -> Result<RestoreResult, Error> {
    let lock = HostLock::acquire(&session.config.work_dir(), "restore")?;
    let mut phases = Phases::new(display);
    let result = restore_under(&lock, session, args, &mut phases).await;
    phases.finish();
    result
}

/// Brings a backup back while the caller holds the host's lock.
pub(crate) async fn restore_under(
    lock: &HostLock,
    session: &Session,
    args: &RestoreArgs,
    phases: &mut Phases,
) -> Result<RestoreResult, Error> {
    phases.enter(Phase::PreFlight);
    let chosen = if args.unproved {
        select::select_unproved(session, &args.selection).await?
    } else {
        select::select(session, &args.selection, args.fallback).await?
    };
    restore_chosen(lock, session, args, chosen, JournalAfterwards::Goes, phases).await
}

/// What becomes of the journal when the restore has come to its end, whatever that is. A failure that was undone leaves none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JournalAfterwards {
    /// It goes: what is in Qdrant belongs to whoever uses it.
    Goes,
    /// It stays: until the caller has noted what came of the restore, the same restore can be asked for again and finds its work done.
    Stays,
}

/// Brings the backup back that the caller, who holds the host's lock, has chosen.
pub(crate) async fn restore_chosen(
    _lock: &HostLock,
    session: &Session,
    args: &RestoreArgs,
    chosen: Chosen,
    afterwards: JournalAfterwards,
    phases: &mut Phases,
) -> Result<RestoreResult, Error> {
    let work_dir = session.config.work_dir();
    phases.enter(Phase::PreFlight);
    let manifest = &chosen.manifest;
    let qdrant = session.qdrant()?.watched(phases.pulse().clone());
    let server = qdrant.version().await?;
    let recorded = select::qdrant_version(manifest)?;
    qdrant::version::can_restore(recorded, server)?;
    server.check_supported()?;
    let mode = mode(args);
    let choice = Choice::new(session.config.qdrant()?.url, args, manifest);
    let journal = Journal::open(&work_dir, choice)?;
    // Something may still be recovered for an earlier run: only afterwards can be said what is there.
    let earlier = session.unless_cancelled(Earlier::look(&qdrant, manifest, &mode, &journal)).await??;
    let plan = plan::plan(manifest, &args.collections, &mode, &present(&qdrant).await?, &earlier)?;
    let dir = session.config.snapshots_dir()?;
    require_room(manifest, &plan, &dir)?;
    phases.tell(&limits(session, args)?.to_string());
    let index = transfer::fetch_index(
        &session.objects,
        &manifest.key.frames(),
        ArchiveRef::of(manifest, &manifest.key.to_string()),
        &options(session, args)?,
    )
    .await?;
    let (golden, unproved) = verify::golden_or_manifest(session, manifest, args.unproved).await?;
    let judge = |observed: &Observation, wanted: &BTreeSet<CollectionName>| {
        verify::with_note(verdict::judge(&golden, observed, wanted), unproved.clone())
    };
    let whole = !matches!(mode, Mode::Beside { .. }) && args.collections.is_empty();
    if whole {
        // Until it is proved, this host's data is nothing that a pointer should follow.
        origin::write(&work_dir, &Origin { backup_id: Some(manifest.backup_id), degraded: true })?;
    }

    // What a backup has captured before is not what this host has from now on.
    backup::give_up_unfinished(session).await;
    let mut bring_back = BringBack::new(session, args, manifest, &index, &qdrant, journal);
    if let Err(error) = bring_back.run(&plan, &dir, phases).await {
        return Err(bring_back.give_up(error).await);
    }
    let kept_bytes = bring_back.kept_bytes;
    let resumed = kept_bytes > 0 || plan.targets.iter().any(|target| target.place == Place::Done);

    phases.enter(Phase::Verify);
    let names: BTreeMap<CollectionName, CollectionName> =
        plan.targets.iter().map(|target| (target.recorded.clone(), target.name.clone())).collect();
    let wanted: BTreeSet<CollectionName> = names.keys().cloned().collect();
    let left: Vec<String> = names.values().map(ToString::to_string).collect();
    let observed =
        session.unless_cancelled(observe::observe(&qdrant, &golden, &names, false, REPLAY_PATIENCE));
    let mut observed = match observed.await {
        Ok(Ok(observed)) => observed,
        // What cannot be looked at is not restored.
        Ok(Err(error)) => return Err(bring_back.give_up(error.into()).await),
        Err(cancelled) => return Err(bring_back.give_up(cancelled).await),
    };
    let fidelity = fidelity::compare(&golden, &observed, &wanted);
    let not_as_recorded = |verdict: Verdict, aliases_set| Error::NotAsRecorded {
        backup: manifest.backup_id,
        verdict: Box::new(verdict),
        fidelity: fidelity.clone(),
        left: left.clone(),
        aliases_set,
    };
    let verdict = judge(&observed, &wanted);
    if !verdict.passed {
        let unconfirmed = bring_back.unconfirmed.pop();
        bring_back.end(afterwards);
        // That Qdrant did not finish says nothing about the backup, and who keeps the journal can ask again.
        if let Some(collection) = unconfirmed.filter(|_| afterwards == JournalAfterwards::Stays) {
            let found = Summary::failures(&verdict).join("; ");
            let remedy = "restore it again".to_owned();
            return Err(Error::HalfInTheWay { collection, found, remedy });
        }
        return Err(not_as_recorded(verdict, false));
    }

    phases.enter(Phase::Aliases);
    // If this fails, the same command finds everything restored and does the rest.
    let aliases = set_aliases(&qdrant, &plan).await.map_err(|source| Error::NotUndone {
        remains: left
            .iter()
            .map(|name| format!("collection `{name}` is restored and verified, its aliases are not set"))
            .collect(),
        source: Box::new(source),
    })?;
    observed.aliases = plan.judges_aliases().then_some(aliases);
    let verdict = judge(&observed, &wanted);
    if !verdict.passed {
        bring_back.end(afterwards);
        return Err(not_as_recorded(verdict, true));
    }

    if whole {
        origin::write(&work_dir, &Origin { backup_id: Some(manifest.backup_id), degraded: chosen.degraded })?;
    }
    bring_back.end(afterwards);
    let timings = phases.timings();
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
        kept_bytes,
        resumed,
        verdict,
        fidelity,
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

fn limits(session: &Session, args: &RestoreArgs) -> Result<Limits, Error> {
    let (concurrency, bandwidth_limit) = (args.concurrency, args.bandwidth_limit);
    Limits::of(&session.config, Wish { concurrency, bandwidth_limit, ..Wish::default() })
}

fn options(session: &Session, args: &RestoreArgs) -> Result<ReadOptions, Error> {
    let limits = limits(session, args)?;
    let mut options = ReadOptions::new(limits.budget);
    options.concurrency = Some(limits.wanted);
    options.cancel = session.cancel.clone();
    options.leftovers = Leftovers::Resume;
    // Qdrant reads a staged snapshot at once and keeps its own copy; what a loss of power takes is judged again by the next restore.
    options.durability = Durability::Cached;
    Ok(options)
}

/// Collections come back one by one, so the disk needs room for all unpacked and for the largest snapshot beside them; less for what an
/// earlier run has brought here.
fn require_room(manifest: &Manifest, plan: &Plan, dir: &SnapshotsDir) -> Result<(), Error> {
    let missing = plan.targets.iter().filter(|target| target.place != Place::Done);
    let sizes = missing.map(|target| manifest.collections[target.record].size_bytes);
    let needed = room(sizes).saturating_sub(stage::taken(dir));
    require_free(&dir.host, needed, ROOM_IS_FOR)
}

/// As [`require_room`], before Qdrant can be asked what is there: everything below these directories is taken for a part of the restore, which judges it later.
pub(crate) fn require_room_for(
    manifest: &Manifest,
    snapshots: &SnapshotsDir,
    data_dir: &Path,
) -> Result<(), Error> {
    let needed = room(manifest.collections.iter().map(|record| record.size_bytes));
    let there = stage::taken(snapshots).saturating_add(stage::bytes_below(data_dir));
    require_free(&snapshots.host, needed.saturating_sub(there), ROOM_IS_FOR)
}

const ROOM_IS_FOR: &str = "the collections and the largest snapshot";

fn room(sizes: impl Iterator<Item = u64>) -> u64 {
    let (sum, largest) =
        sizes.fold((0_u64, 0_u64), |(sum, largest), size| (sum.saturating_add(size), largest.max(size)));
    sum.saturating_add(largest)
}

/// Sets the plan's aliases in one step; answers with all that there are.
async fn set_aliases(
    qdrant: &qdrant::Client,
    plan: &Plan,
) -> Result<BTreeMap<String, CollectionName>, Error> {
    if !plan.aliases.is_empty() {
        qdrant.change_aliases(&plan.aliases).await?;
    }
    let aliases = qdrant.aliases().await?;
    plan.require_aliases(&aliases)?;
    Ok(aliases)
}

impl Render for RestoreResult {
    fn render(&self) -> String {
        let rows: Vec<Vec<String>> =
            self.collections.iter().map(|(from, to)| vec![from.to_string(), to.to_string()]).collect();
        let seconds: f64 = self.timings.iter().filter(|t| t.phase == "download").map(|t| t.seconds).sum();
        let aliases =
            self.aliases.iter().map(|(alias, to)| format!("{alias} → {to}")).collect::<Vec<_>>().join(", ");
        let kept = match self.kept_bytes {
            0 => String::new(),
            kept => format!(" ({} of them by an earlier run)", ByteSize(kept)),
        };
        format!(
            "restored backup {} ({})\n  snapshots  {}{kept}, downloaded and verified at {}/s\n  aliases    {}\n  took       {}\n\n{}\n\n{}",
            self.backup_id,
            self.chosen,
            ByteSize(self.bytes),
            rate(self.bytes - self.kept_bytes, seconds),
            if aliases.is_empty() { "none set" } else { &aliases },
            timings_line(&self.timings),
            table(&["in the backup", "in Qdrant"], &[], &rows),
            Summary::render(&self.verdict)
        )
    }
}
