//! The task `drill`: restores a backup on a staging host, compares it with what was recorded, and writes a report that is worth reading.
//!
//! That the data is not what was recorded is a result and not a failure of the drill: it has a report like any other, and its verdict says so. A drill that does not come to a
//! comparison fails, and leaves a report of how far it came. A report that cannot be stored does not change what was found.

pub mod html;
mod qdrant;

use jiff::Timestamp;
use protocol::{
    DrillReport, Envelope, Manifest, ProofLevel, Verdict,
    drill::{DrillOutcome, Earlier, FORMAT_VERSION, Fidelity, Measured, Restored, trend},
    manifest::PhaseTiming,
    task::Drilled,
};
use tracing::warn;

use crate::{
    backup::tool,
    boot::warm_up::WarmUp,
    cli::RestoreArgs,
    config::HostRole,
    error::Error,
    lock::HostLock,
    output::on_one_line,
    progress::Phases,
    restore::{self, JournalAfterwards},
    select,
    session::Session,
    verify,
};

/// How many earlier drills a report looks back on: two years of monthly ones.
const LOOKS_BACK_ON: usize = 24;

/// What a drill came to, before it is told.
#[derive(Debug, Default)]
struct Findings {
    manifest: Option<Manifest>,
    published: Option<protocol::BackupId>,
    verdict: Option<Verdict>,
    fidelity: Vec<Fidelity>,
    qdrant: Option<String>,
    warm_up: Option<WarmUp>,
    resumed: bool,
    timeline: Vec<PhaseTiming>,
}

/// Drills the envelope's backup while the caller holds the host's lock.
pub(crate) async fn drill(
    lock: &HostLock,
    session: &Session,
    envelope: &Envelope,
    mut phases: Phases,
    started_at: Timestamp,
) -> Result<Drilled, Error> {
    if session.config.host_role() != HostRole::Staging {
        return Err(Error::NotForDrills);
    }
    let mut findings = Findings::default();
    let ended = restored(lock, session, envelope, &mut phases, &mut findings).await;
    findings.timeline = phases.finish();
    let report = report(session, envelope, started_at, &findings, ended.as_ref().err()).await;
    let stored = store(session, &report).await;
    ended?;
    if report.passed() {
        verify::store_proof(session, envelope.task.backup, proved(&report), Timestamp::now()).await;
    }
    let verdict = findings.verdict.unwrap_or(Verdict { passed: false, checks: Vec::new() });
    Ok(Drilled {
        backup_id: envelope.task.backup,
        passed: verdict.passed,
        checks: verdict.checks.len() as u64,
        failed: verdict.failures().take(Drilled::MAX_FAILED).cloned().collect(),
        report: stored,
        timings: findings.timeline,
    })
}

/// Restores and compares. Whatever is known goes into `findings`, also where it ends in an error.
async fn restored(
    lock: &HostLock,
    session: &Session,
    envelope: &Envelope,
    phases: &mut Phases,
    findings: &mut Findings,
) -> Result<(), Error> {
    let pointer = session.unless_cancelled(session.catalog.pointer()).await??;
    findings.published = pointer.map(|pointer| pointer.manifest.backup_id);
    let why = "the drill is of it".to_owned();
    let chosen = session.unless_cancelled(select::by_id(session, envelope.task.backup, why)).await??;
    let manifest = chosen.manifest.clone();
    findings.manifest = Some(manifest.clone());
    let staged = qdrant::started(session, &manifest, phases).await?;
    let session = staged.as_ref().unwrap_or(session);
    findings.qdrant = Some(session.qdrant()?.version().await?.to_string());
    let args = RestoreArgs {
        collections: envelope.collections.clone(),
        // What is in the way on a host of its own, and is not what an earlier attempt made whole, is what it made in half.
        replace: staged.is_some(),
        ..RestoreArgs::of(envelope.task.backup)
    };
    // The journal stays: until the state machine has the answer, an attempt after this one may have to find the work done.
    let restore = async |chosen, phases: &mut Phases| {
        restore::restore_chosen(lock, session, &args, chosen, JournalAfterwards::Stays, phases).await
    };
    let restored = match restore(chosen.clone(), phases).await {
        // That Qdrant did not finish says nothing about the backup.
        Err(Error::HalfInTheWay { .. }) if staged.is_some() => restore(chosen, phases).await,
        restored => restored,
    };
    let (verdict, fidelity) = match restored {
        Ok(done) => {
            findings.resumed = done.resumed;
            (done.verdict, done.fidelity)
        }
        Err(Error::NotAsRecorded { verdict, fidelity, .. }) => (*verdict, fidelity),
        Err(error) => return Err(error),
    };
    let passed = verdict.passed;
    (findings.verdict, findings.fidelity) = (Some(verdict), fidelity);
    if passed && staged.is_some() {
        findings.warm_up = qdrant::warmed(session, &manifest, phases).await;
    }
    Ok(())
}

async fn report(
    session: &Session,
    envelope: &Envelope,
    started_at: Timestamp,
    findings: &Findings,
    error: Option<&Error>,
) -> DrillReport {
    let Findings { manifest, published, verdict, fidelity, qdrant, warm_up, resumed, timeline } = findings;
    let targets = session.config.targets();
    let backup_id = envelope.task.backup;
    let outcome = match (error, verdict) {
        (Some(error), _) => {
            DrillOutcome::Failed { kind: error.kind(), message: on_one_line(error), hint: error.hint() }
        }
        (None, Some(verdict)) if verdict.passed => DrillOutcome::Passed,
        (None, _) => DrillOutcome::Different,
    };
    let age = |backup: protocol::BackupId| started_at.duration_since(backup.time()).as_secs_f64().max(0.0);
    let mut report = DrillReport {
        format_version: FORMAT_VERSION,
        backup_id,
        execution: envelope.execution.clone(),
        started_at,
        outcome,
        backup: manifest
            .as_ref()
            .map(|manifest| Restored::of(manifest, session.catalog.bucket(), *published == Some(backup_id))),
        timeline: timeline.clone(),
        resumed: *resumed,
        verdict: verdict.clone(),
        collections: fidelity.clone(),
        warm_up: warm_up.as_ref().map(ToString::to_string),
        recovery_time: Measured {
            seconds: timeline.iter().map(|timing| timing.seconds).sum(),
            target_seconds: targets.rto_seconds as f64,
        },
        recovery_point: published.map(|published| Measured {
            seconds: age(published),
            target_seconds: targets.rpo_seconds as f64,
        }),
        earlier: earlier(session).await,
        forecast: trend::Forecast::TooEarly { drills: 0 },
        tool: tool(),
        qdrant: qdrant.clone(),
    };
    let all: Vec<Earlier> = report.earlier.iter().cloned().chain(report.as_earlier()).collect();
    report.forecast = trend::forecast(&all, targets.rto_seconds as f64);
    report
}

/// What earlier drills found, as far as it can be read.
async fn earlier(session: &Session) -> Vec<Earlier> {
    match session.catalog.drills(LOOKS_BACK_ON).await {
        Ok(reports) => reports.iter().filter_map(DrillReport::as_earlier).collect(),
        Err(error) => {
            warn!(
                error = &error as &dyn std::error::Error,
                "earlier drills cannot be read; the report is without them"
            );
            Vec::new()
        }
    }
}

/// Stores the report; answers with the key of the page.
async fn store(session: &Session, report: &DrillReport) -> Option<String> {
    match session.catalog.put_drill(report, html::render(report)).await {
        Ok(key) => Some(key),
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "the drill's report is not stored");
            None
        }
    }
}

/// How far a drill that passed proves its backup.
fn proved(report: &DrillReport) -> ProofLevel {
    // What could not be looked at, as searches that strict mode forbids, is not proved. An empty collection has nothing to look at.
    let looked_at = |collection: &Fidelity| {
        collection.points_expected == (0, 0)
            || (collection.sampled.of > 0 && collection.searches.of > 0 && collection.not_searched == 0)
    };
    match (report.collections.iter().all(looked_at), report.recovery_time.kept() && !report.resumed) {
        (false, _) => ProofLevel::Counted,
        (true, false) => ProofLevel::Searched,
        (true, true) => ProofLevel::FastEnough,
    }
}
