//! Removes the backups that nobody wants kept, and shows beforehand what that would be.

use std::collections::BTreeSet;

use catalog::{Entry, Listing, PointerState, Removed};
use jiff::Timestamp;
use protocol::{
    BackupId, ProofLevel,
    retention::{self, Candidate, Content, Reason},
};
use serde::Serialize;
use tracing::warn;

use crate::{
    catalogue::age,
    cli::PruneArgs,
    config::ByteSize,
    error::Error,
    origin,
    output::{Render, on_one_line, table},
    session::Session,
};

/// What became of everything that is in the bucket.
#[derive(Debug, Serialize)]
pub struct Pruned {
    /// When it was looked at, by the store's clock.
    pub at: Timestamp,
    /// Whether anything was to be removed, or only shown.
    pub applied: bool,
    /// A backup each, newest first.
    pub backups: Vec<PrunedBackup>,
    /// Archives that no manifest names.
    pub orphans: Vec<PrunedOrphan>,
    /// Objects that were removed.
    pub removed_objects: u64,
    /// Bytes that they had.
    pub removed_bytes: u64,
}

/// A backup, and what becomes of it.
#[derive(Debug, Serialize)]
pub struct PrunedBackup {
    /// The backup.
    pub backup_id: BackupId,
    /// The size of its archive in bytes; absent when its manifest cannot be read.
    pub size_bytes: Option<u64>,
    /// The highest level proved.
    pub proved: Option<ProofLevel>,
    /// Why it stays; nothing keeps one that goes.
    pub kept: BTreeSet<Reason>,
    /// Why it could not be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What is left of an upload, and what becomes of it.
#[derive(Debug, Serialize)]
pub struct PrunedOrphan {
    /// The archive's key.
    pub key: String,
    /// Bytes, of what lies beside it too.
    pub size_bytes: u64,
    /// When the youngest part of it was written.
    pub written_at: Timestamp,
    /// Why it could not be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

impl Pruned {
    /// Whether everything that was to go is gone.
    pub fn complete(&self) -> bool {
        self.backups.iter().all(|backup| backup.problem.is_none())
            && self.orphans.iter().all(|orphan| orphan.problem.is_none())
    }
}

/// Removes what no rule and no reason of safety keeps; without `--apply` it only says what that is.
pub async fn prune(session: &Session, args: &PruneArgs) -> Result<Pruned, Error> {
    let rules = args.rules();
    if rules.is_empty() {
        return Err(Error::Request {
            problem: "no rule says what is to be kept".to_owned(),
            hint: "give one or more of --keep-last, --keep-within, --keep-daily, --keep-weekly and --keep-monthly".to_owned(),
        });
    }
    let origin = origin::read(&session.config.work_dir())?;
    if origin.as_ref().is_some_and(|origin| origin.degraded) {
        return Err(Error::NotPruned {
            why: "this host's data did not come from the published backup".to_owned(),
        });
    }
    let listing = session.unless_cancelled(session.catalog.list()).await??;
    let published = match &listing.pointer {
        PointerState::Names(backup) => *backup,
        PointerState::Absent => return Err(Error::NotPruned { why: "nothing is published".to_owned() }),
        PointerState::Unreadable(error) => {
            return Err(Error::NotPruned {
                why: format!("the pointer cannot be read: {}", on_one_line(error)),
            });
        }
    };
    if !listing.proofs_known {
        let why = "not all proofs can be read, and the newest proved backup must stay".to_owned();
        return Err(Error::NotPruned { why });
    }
    // Retention is about days: the store's clock is nobody's laptop.
    let now = session.unless_cancelled(session.catalog.now()).await??;
    let candidates: Vec<Candidate> = listing.entries.iter().map(candidate).collect();
    let host = origin.and_then(|origin| origin.backup_id);
    let mut kept = retention::decide(&rules, &candidates, published, host, now);
    let mut removed = Removed::default();
    let mut backups = Vec::new();
    for entry in &listing.entries {
        let kept = kept.remove(&entry.backup_id).unwrap_or_default();
        let mut backup = PrunedBackup {
            backup_id: entry.backup_id,
            size_bytes: entry.manifest.as_ref().ok().map(|manifest| manifest.size_bytes),
            proved: entry.proved.as_ref().map(|proved| proved.level),
            kept,
            problem: None,
        };
        if let Ok(manifest) = &entry.manifest
            && args.apply
            && backup.kept.is_empty()
        {
            let outcome = session.unless_cancelled(session.catalog.remove(manifest)).await?;
            backup.problem = count(&mut removed, outcome);
        }
        backups.push(backup);
    }
    let orphans = orphans(session, args, &listing, &mut removed).await?;
    let Removed { objects, bytes } = removed;
    Ok(Pruned {
        at: now,
        applied: args.apply,
        backups,
        orphans,
        removed_objects: objects,
        removed_bytes: bytes,
    })
}

/// What the listing before any removal does not name, so that what was just removed is none of it.
async fn orphans(
    session: &Session,
    args: &PruneArgs,
    listing: &Listing,
    removed: &mut Removed,
) -> Result<Vec<PrunedOrphan>, Error> {
    let mut all = Vec::new();
    for orphan in session.unless_cancelled(session.catalog.orphans(listing, args.orphans_after)).await?? {
        let mut pruned = PrunedOrphan {
            key: orphan.archive.to_string(),
            size_bytes: orphan.bytes,
            written_at: orphan.written_at,
            problem: None,
        };
        if args.apply {
            let outcome = session.unless_cancelled(session.catalog.remove_orphan(&orphan)).await?;
            pruned.problem = count(removed, outcome);
        }
        all.push(pruned);
    }
    Ok(all)
}

/// Adds up what was removed; one that cannot be is no reason to keep the others.
fn count(removed: &mut Removed, outcome: Result<Removed, catalog::Error>) -> Option<String> {
    match outcome {
        Ok(Removed { objects, bytes }) => {
            removed.objects += objects;
            removed.bytes += bytes;
            None
        }
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "not removed");
            Some(on_one_line(&error))
        }
    }
}

fn candidate(entry: &Entry) -> Candidate {
    let content = entry.manifest.as_ref().ok().map(|manifest| Content {
        partial: manifest.partial,
        degraded: manifest.origin.as_ref().is_some_and(|origin| origin.degraded),
    });
    Candidate { backup: entry.backup_id, content, proved: entry.proved.as_ref().map(|proved| proved.level) }
}

impl Render for Pruned {
    fn render(&self) -> String {
        let fate = |kept: bool, problem: &Option<String>| match (kept, problem, self.applied) {
            (true, _, _) => "keep",
            (false, Some(_), _) => "NOT REMOVED",
            (false, None, true) => "removed",
            (false, None, false) => "remove",
        };
        let rows: Vec<Vec<String>> = self
            .backups
            .iter()
            .map(|backup| {
                let why: Vec<String> = backup.kept.iter().map(described).collect();
                vec![
                    fate(!backup.kept.is_empty(), &backup.problem).to_owned(),
                    backup.backup_id.to_string(),
                    age(backup.backup_id, self.at),
                    backup.size_bytes.map_or_else(|| "?".to_owned(), |size| ByteSize(size).to_string()),
                    backup.proved.map_or("-", ProofLevel::name).to_owned(),
                    backup.problem.clone().unwrap_or_else(|| why.join(", ")),
                ]
            })
            .collect();
        let mut text = table(&["", "backup", "age", "size", "proof", "why"], &[2, 3], &rows);
        if !self.orphans.is_empty() {
            let rows: Vec<Vec<String>> = self
                .orphans
                .iter()
                .map(|orphan| {
                    vec![
                        fate(false, &orphan.problem).to_owned(),
                        orphan.key.clone(),
                        ByteSize(orphan.size_bytes).to_string(),
                        orphan.written_at.to_string(),
                        orphan.problem.clone().unwrap_or_default(),
                    ]
                })
                .collect();
            text += "\n\nnamed by no manifest:\n";
            text += &table(&["", "archive", "size", "written", ""], &[2], &rows);
        }
        let going = self.backups.iter().filter(|backup| backup.kept.is_empty());
        let bytes: u64 = going.clone().filter_map(|backup| backup.size_bytes).sum();
        let (going, bytes) = (
            going.count() + self.orphans.len(),
            bytes + self.orphans.iter().map(|orphan| orphan.size_bytes).sum::<u64>(),
        );
        let last = match (self.applied, going) {
            (_, 0) => "nothing is to be removed".to_owned(),
            (false, _) => format!("{going} would be removed, {}; --apply does it", ByteSize(bytes)),
            (true, _) => {
                format!("removed {} objects, {}", self.removed_objects, ByteSize(self.removed_bytes))
            }
        };
        format!("{text}\n\n{last}")
    }
}

/// A reason, for a person.
fn described(reason: &Reason) -> String {
    match reason {
        Reason::Published => "published".to_owned(),
        Reason::NewerThanPublished => "newer than the published one".to_owned(),
        Reason::NewestProved(level) => format!("the newest that is proved ({})", level.name()),
        Reason::HostCameFromIt => "this host came from it".to_owned(),
        Reason::Unreadable => "its manifest cannot be read".to_owned(),
        Reason::Partial => "partial: goes by --keep-within only".to_owned(),
        Reason::Last => "among the newest".to_owned(),
        Reason::Within => "young".to_owned(),
        Reason::Daily(day) => day.clone(),
        Reason::Weekly(week) => week.clone(),
        Reason::Monthly(month) => month.clone(),
    }
}
