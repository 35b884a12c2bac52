//! Proving a stored archive, or the data of a running Qdrant, against what was recorded.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use jiff::Timestamp;
use protocol::{
    BackupId, CollectionName, FailureKind, GoldenSet, Manifest, Proof, ProofLevel, Verdict,
    golden::{self, CollectionGolden},
    verdict::{self, Aspect, Outcome},
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use tracing::warn;
use transfer::{ArchiveRef, Check, ReadOptions};

use crate::{
    backup::{rate, tool},
    bandwidth::BandwidthLimit,
    cli::VerifyArgs,
    config::ByteSize,
    error::Error,
    limits::{Limits, Wish},
    observe,
    output::{Render, on_one_line, table},
    progress::{Display, Phases},
    pulse::Phase,
    restore::REPLAY_PATIENCE,
    select,
    session::Session,
};

/// The most bytes of a stored golden set, which is some hundred kilobytes per collection: what the catalogue reads at once.
pub(crate) const GOLDEN_MAX_BYTES: u64 = catalog::store::MAX_OBJECT_BYTES;
/// The most bytes of an unpacked golden set. Digests and vectors hardly compress, so that more is an attack.
const GOLDEN_MAX_UNPACKED: u64 = 16 * GOLDEN_MAX_BYTES;

/// What was proved, or not.
#[derive(Debug, Serialize)]
#[serde(tag = "verified", rename_all = "kebab-case")]
pub enum VerifyResult {
    /// The stored archive.
    Archive(ArchiveVerified),
    /// The data of a running Qdrant.
    Data(DataVerified),
}

impl VerifyResult {
    /// Whether everything is as recorded.
    pub fn passed(&self) -> bool {
        match self {
            Self::Archive(archive) => archive.passed,
            Self::Data(data) => data.verdict.passed,
        }
    }
}

/// What re-reading an archive came to.
#[derive(Debug, Serialize)]
pub struct ArchiveVerified {
    /// The backup.
    pub backup_id: BackupId,
    /// The archive's key.
    pub key: String,
    /// Whether every byte is as recorded.
    pub passed: bool,
    /// Bytes that were read.
    pub bytes: u64,
    /// Frames whose hash is right.
    pub frames_good: u64,
    /// Frames that the manifest states.
    pub frames: u64,
    /// What is wrong, a line each.
    pub findings: Vec<String>,
    /// Seconds it took.
    pub seconds: f64,
    /// Whether the proof was stored beside the backup.
    pub proof_stored: bool,
}

/// What comparing a running Qdrant came to.
#[derive(Debug, Serialize)]
pub struct DataVerified {
    /// The backup.
    pub backup_id: BackupId,
    /// Every comparison.
    pub verdict: Verdict,
}

/// Proves what `args` ask for.
pub async fn verify(
    session: &Session,
    args: &VerifyArgs,
    display: Display,
    now: Timestamp,
) -> Result<VerifyResult, Error> {
    if args.archive {
        // Whatever is wrong with the archive is to be listed, so it is no reason not to choose the backup.
        let manifest = select::manifest_alone(session, &args.selection).await?;
        verify_archive(session, &manifest, args.bandwidth_limit, display, now)
            .await
            .map(VerifyResult::Archive)
    } else {
        let manifest = select::select(session, &args.selection, false).await?.manifest;
        verify_data(session, &manifest, args).await.map(VerifyResult::Data)
    }
}

async fn verify_archive(
    session: &Session,
    manifest: &Manifest,
    bandwidth_limit: Option<BandwidthLimit>,
    display: Display,
    now: Timestamp,
) -> Result<ArchiveVerified, Error> {
    let mut phases = Phases::new(display);
    phases.enter(Phase::ReRead);
    let started = Instant::now();
    let key = manifest.key.to_string();
    let mut findings = Vec::new();
    let check = match re_read(session, manifest, &key, bandwidth_limit, &mut phases).await {
        Ok(check) => {
            findings.extend(check.findings.iter().map(ToString::to_string));
            if check.more > 0 {
                findings.push(format!("and {} more", check.more));
            }
            Some(check)
        }
        Err(error) => {
            findings.push(damage(error)?);
            None
        }
    };
    if let Err(error) = golden(session, manifest).await {
        findings.push(damage(error)?);
    }
    phases.finish();
    let passed = findings.is_empty() && check.as_ref().is_some_and(Check::is_whole);
    Ok(ArchiveVerified {
        backup_id: manifest.backup_id,
        key,
        passed,
        bytes: check.as_ref().map_or(0, |check| check.object_bytes),
        frames_good: check.as_ref().map_or(0, |check| check.frames_good),
        frames: manifest.archive.frame_count,
        findings,
        seconds: started.elapsed().as_secs_f64(),
        proof_stored: passed && store_proof(session, manifest.backup_id, ProofLevel::ReRead, now).await,
    })
}

async fn re_read(
    session: &Session,
    manifest: &Manifest,
    key: &str,
    bandwidth_limit: Option<BandwidthLimit>,
    phases: &mut Phases,
) -> Result<Check, Error> {
    let limits = Limits::of(&session.config, Wish { bandwidth_limit, ..Wish::default() })?;
    phases.tell(&limits.to_string());
    let (objects, _rate) = session.limited(bandwidth_limit);
    let mut options = ReadOptions::new(limits.budget);
    options.concurrency = Some(limits.wanted);
    options.cancel = session.cancel.clone();
    let progress = options.progress.clone();
    let archive = ArchiveRef::of(manifest, key);
    let index = transfer::fetch_index(&objects, &manifest.key.frames(), archive, &options).await?;
    let check = transfer::check_object(&objects, archive, &index, options);
    Ok(phases.follow(&progress, check).await?)
}

/// What an error says about the backup, on one line; the error itself when it says nothing about it (no answer, no access).
fn damage(error: Error) -> Result<String, Error> {
    let kind = error.kind();
    if !matches!(
        kind,
        FailureKind::ArchiveCorrupt | FailureKind::ChecksumMismatch | FailureKind::ManifestMissing
    ) {
        return Err(error);
    }
    Ok(on_one_line(&error))
}

/// A proof that cannot be stored is still a proof to the person who asked: most roles may read archives and not write proofs.
pub(crate) async fn store_proof(
    session: &Session,
    backup_id: BackupId,
    level: ProofLevel,
    now: Timestamp,
) -> bool {
    let tool = tool();
    let proof = Proof { backup_id, level, proved_at: now, tool: format!("{} {}", tool.name, tool.version) };
    match session.catalog.put_proof(&proof).await {
        Ok(()) => true,
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "the proof is not stored beside the backup");
            false
        }
    }
}

async fn verify_data(
    session: &Session,
    manifest: &Manifest,
    args: &VerifyArgs,
) -> Result<DataVerified, Error> {
    let golden = golden(session, manifest).await?;
    let mut wanted: BTreeSet<CollectionName> =
        manifest.collections.iter().map(|record| record.name.clone()).collect();
    if !args.collections.is_empty() {
        if let Some(stranger) = args.collections.iter().find(|name| !wanted.contains(name)) {
            return Err(Error::NotInBackup { backup: manifest.backup_id, collection: (*stranger).clone() });
        }
        wanted.retain(|name| args.collections.contains(name));
    }
    let suffix = args.suffix.as_deref().unwrap_or_default();
    let mut names = BTreeMap::new();
    for name in &wanted {
        let actual = format!("{name}{suffix}")
            .parse()
            .map_err(|source| Error::Setting { name: "as", source: Box::new(source) })?;
        names.insert(name.clone(), actual);
    }
    let observed =
        observe::observe(&session.qdrant()?, &golden, &names, args.suffix.is_none(), REPLAY_PATIENCE).await?;
    Ok(DataVerified { backup_id: manifest.backup_id, verdict: verdict::judge(&golden, &observed, &wanted) })
}

/// Compares a running Qdrant with the whole of a backup, aliases included.
pub(crate) async fn compare_whole(
    session: &Session,
    manifest: &Manifest,
    golden: &GoldenSet,
) -> Result<Verdict, Error> {
    let names: BTreeMap<CollectionName, CollectionName> =
        manifest.collections.iter().map(|record| (record.name.clone(), record.name.clone())).collect();
    let observed = observe::observe(&session.qdrant()?, golden, &names, true, REPLAY_PATIENCE).await?;
    Ok(verdict::judge(golden, &observed, &names.into_keys().collect()))
}

/// The golden set that the manifest names, proved to be it.
pub(crate) async fn golden(session: &Session, manifest: &Manifest) -> Result<GoldenSet, Error> {
    let key = manifest.key.golden();
    let Some(bytes) = session.catalog.get_side_file(&key, GOLDEN_MAX_BYTES).await? else {
        return Err(Error::GoldenMissing { key });
    };
    if hex::encode(Sha256::digest(&bytes)) != manifest.archive.golden_sha256 {
        return Err(Error::GoldenMismatch { key });
    }
    unpack_golden(&bytes).map_err(|source| Error::GoldenUnreadable { key, source })
}

/// Reads a golden set as it is stored.
pub(crate) fn unpack_golden(bytes: &[u8]) -> Result<GoldenSet, Box<dyn std::error::Error + Send + Sync>> {
    let size = zstd::zstd_safe::get_frame_content_size(bytes)
        .ok()
        .flatten()
        .filter(|size| *size <= GOLDEN_MAX_UNPACKED)
        .and_then(|size| usize::try_from(size).ok())
        .ok_or("it states no acceptable size")?;
    Ok(GoldenSet::from_json(&zstd::bulk::decompress(bytes, size)?)?)
}

/// The golden set. Where it is lost or damaged and a person says that this will do (`--unproved`): what the manifest itself says of counts,
/// configuration and aliases, and why no more is compared.
pub(crate) async fn golden_or_manifest(
    session: &Session,
    manifest: &Manifest,
    unproved: bool,
) -> Result<(GoldenSet, Option<String>), Error> {
    match golden(session, manifest).await {
        Ok(golden) => Ok((golden, None)),
        Err(
            error @ (Error::GoldenMissing { .. }
            | Error::GoldenMismatch { .. }
            | Error::GoldenUnreadable { .. }),
        ) if unproved => {
            warn!(error = &error as &dyn std::error::Error, "points and searches cannot be compared");
            Ok((of_manifest(manifest), Some(error.to_string())))
        }
        Err(error) => Err(error),
    }
}

/// What the manifest says of counts, configuration and aliases, as a golden set of no points.
pub(crate) fn of_manifest(manifest: &Manifest) -> GoldenSet {
    let collections = manifest.collections.iter().map(|record| {
        let (points_min, points_max) = record.expected_points();
        CollectionGolden {
            name: record.name.clone(),
            points_min,
            points_max,
            config: record.config.clone(),
            payload_schema: record.payload_schema.clone(),
            points: Vec::new(),
            changed: Vec::new(),
            searches: Vec::new(),
            not_searched: Some("the golden set is lost".to_owned()),
            indexed_vectors: None,
        }
    });
    GoldenSet {
        format_version: golden::FORMAT_VERSION,
        backup_id: manifest.backup_id,
        aliases: manifest.aliases.clone(),
        collections: collections.collect(),
    }
}

/// The verdict, with what could not be compared at all.
pub(crate) fn with_note(mut verdict: Verdict, note: Option<String>) -> Verdict {
    if let Some(detail) = note {
        verdict.checks.push(verdict::Check {
            collection: None,
            aspect: Aspect::Points,
            outcome: Outcome::Skipped,
            detail,
        });
    }
    verdict
}

/// A verdict for people.
pub(crate) struct Summary;

impl Summary {
    /// What failed, a line each.
    pub(crate) fn failures(verdict: &Verdict) -> Vec<String> {
        verdict
            .failures()
            .map(|check| format!("{}: {}: {}", subject(check), check.aspect.name(), check.detail))
            .collect()
    }

    /// Every comparison as a table, the verdict last.
    pub(crate) fn render(verdict: &Verdict) -> String {
        let mark = |outcome| match outcome {
            Outcome::Passed => "ok",
            Outcome::Failed => "FAILED",
            Outcome::Skipped => "-",
        };
        let rows: Vec<Vec<String>> = verdict
            .checks
            .iter()
            .map(|check| {
                vec![
                    mark(check.outcome).to_owned(),
                    subject(check),
                    check.aspect.name().to_owned(),
                    check.detail.clone(),
                ]
            })
            .collect();
        let last = if verdict.passed { "verified: the data is what was recorded" } else { "NOT verified" };
        format!("{}\n\n{last}", table(&["", "collection", "compared", "result"], &[], &rows))
    }
}

fn subject(check: &verdict::Check) -> String {
    let whole = || if check.aspect == Aspect::Aliases { "(aliases)" } else { "(backup)" }.to_owned();
    check.collection.as_ref().map_or_else(whole, ToString::to_string)
}

impl Render for VerifyResult {
    fn render(&self) -> String {
        match self {
            Self::Data(data) => format!("backup {}\n\n{}", data.backup_id, Summary::render(&data.verdict)),
            Self::Archive(archive) => {
                let head = format!(
                    "backup {}\n  {}\n  {} read at {}/s, {} of {} frames good",
                    archive.backup_id,
                    archive.key,
                    ByteSize(archive.bytes),
                    rate(archive.bytes, archive.seconds),
                    archive.frames_good,
                    archive.frames
                );
                if archive.passed {
                    format!("{head}\nverified: every byte is as recorded")
                } else {
                    format!("{head}\n  {}\nNOT verified", archive.findings.join("\n  "))
                }
            }
        }
    }
}
