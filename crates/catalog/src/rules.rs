//! What may follow what: the pure rules of publication.

use std::{fmt, time::Duration};

use jiff::{SignedDuration, Timestamp};
use protocol::{BackupId, CollectionName, Manifest};
use serde::Serialize;

use crate::{Error, Pointer, publish::PublishPolicy};

/// How far ahead of the store's clock a backup may be dated.
pub const MAX_CLOCK_AHEAD: Duration = Duration::from_secs(5 * 60);

/// A reason to think that a backup is damage rather than a state worth keeping.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "suspicion", rename_all = "kebab-case")]
pub enum Suspicion {
    /// It was taken on a host that was itself restored from something other than the pointer's backup, or started empty.
    DegradedOrigin {
        /// What that host was restored from, if anything.
        restored_from: Option<BackupId>,
    },
    /// A collection of the pointer's backup is not in it.
    Vanished {
        /// The collection.
        collection: CollectionName,
        /// How many points it had.
        points: u64,
    },
    /// A collection has far fewer points than in the pointer's backup.
    Fell {
        /// The collection.
        collection: CollectionName,
        /// Points in the pointer's backup.
        from: u64,
        /// Points in the new one.
        to: u64,
    },
}

impl fmt::Display for Suspicion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DegradedOrigin { restored_from: Some(backup) } => {
                write!(f, "the host was restored from {backup} after a fallback (degraded)")
            }
            Self::DegradedOrigin { restored_from: None } => {
                write!(f, "the host was started empty (degraded)")
            }
            Self::Vanished { collection, points } => {
                write!(f, "collection `{}` with {points} points is gone", collection.as_str())
            }
            Self::Fell { collection, from, to } => {
                write!(f, "collection `{}` fell from {from} to {to} points", collection.as_str())
            }
        }
    }
}

/// What to do with the pointer for a complete backup whose immutable manifest is stored.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The pointer moves. What would have stopped it without `force` comes along.
    Move {
        /// The reasons that were overruled.
        forced: Vec<Suspicion>,
    },
    /// The pointer names this backup already.
    AlreadyPublished,
    /// The pointer names a backup that this one must not replace by itself.
    Superseded {
        /// That backup.
        by: BackupId,
    },
    /// A person has to confirm it.
    Suspicious(Vec<Suspicion>),
    /// The pointer names this backup, with another archive.
    Contradicted,
}

/// Decides about the pointer.
///
/// Forward only: an older backup is superseded. Where a person rolled the pointer back, a backup started before that moment
/// is superseded too, whatever its date: it holds the data that was rolled back from.
pub fn decide(current: Option<&Pointer>, new: &Manifest, policy: &PublishPolicy) -> Decision {
    let mut reasons = Vec::new();
    if let Some(current) = current {
        let manifest = &current.manifest;
        if manifest.backup_id == new.backup_id {
            let same = manifest.key == new.key && manifest.sha256 == new.sha256;
            return if same { Decision::AlreadyPublished } else { Decision::Contradicted };
        }
        if !policy.rollback {
            let older = new.backup_id < manifest.backup_id;
            if older || (was_rolled_back(manifest) && new.created_at <= current.last_modified) {
                return Decision::Superseded { by: manifest.backup_id };
            }
            reasons = losses(manifest, new, policy.max_fall);
        }
    }
    if let Some(origin) = new.origin.as_ref().filter(|origin| origin.degraded) {
        reasons.insert(0, Suspicion::DegradedOrigin { restored_from: origin.backup_id });
    }
    if reasons.is_empty() || policy.force {
        Decision::Move { forced: reasons }
    } else {
        Decision::Suspicious(reasons)
    }
}

/// Whether this pointer was put in the place of a later backup, which only a person does.
pub fn was_rolled_back(pointer: &Manifest) -> bool {
    pointer.previous.as_ref().is_some_and(|previous| previous.backup_id > pointer.backup_id)
}

/// What `new` has lost against `old`: collections that are gone, and counts that fell by more than the share `max_fall` (0 to 1).
pub fn losses(old: &Manifest, new: &Manifest, max_fall: f64) -> Vec<Suspicion> {
    let mut losses = Vec::new();
    for before in &old.collections {
        let collection = before.name.clone();
        let from = before.points_after;
        match new.collections.iter().find(|after| after.name == before.name) {
            None => losses.push(Suspicion::Vanished { collection, points: from }),
            Some(after) if fell(from, after.points_after, max_fall) => {
                losses.push(Suspicion::Fell { collection, from, to: after.points_after });
            }
            Some(_) => {}
        }
    }
    losses
}

#[expect(clippy::cast_precision_loss, reason = "a share of a count needs no more than 53 bits of it")]
fn fell(from: u64, to: u64, max_fall: f64) -> bool {
    to < from && (from - to) as f64 > from as f64 * max_fall
}

/// Refuses a backup that is dated later than the store's clock allows: it would block every true one after it.
pub fn check_clock(manifest: &Manifest, store_now: Timestamp) -> Result<(), Error> {
    let dated = manifest.created_at.max(manifest.backup_id.time());
    let ahead = dated.duration_since(store_now);
    if ahead > SignedDuration::try_from(MAX_CLOCK_AHEAD).unwrap_or(SignedDuration::MAX) {
        return Err(Error::ClockAhead { backup: manifest.backup_id, dated, store_now });
    }
    Ok(())
}
