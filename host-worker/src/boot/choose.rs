//! What to restore: the published backup, else the newest usable one, else an older one that was proved, else snapshots on this host's own disk, and nothing at
//! all only where the bucket says that nothing was ever stored.

use std::cmp::Reverse;

use catalog::{Catalog, Entry, How, ObjectStore, Resolved};
use protocol::{BackupId, Manifest, ProofLevel};
use tracing::warn;

use super::record::{LocalSnapshot, Rejected, Source};
use crate::{error::Error, output::on_one_line, select};

/// The best source but for those that were rejected. `None` when nothing is left; an error when the bucket does not say what it holds.
pub(super) async fn choose<S: ObjectStore>(
    catalog: &Catalog<S>,
    rejected: &[Rejected],
    local: Vec<LocalSnapshot>,
) -> Result<Option<Source>, Error> {
    let tried = |backup| rejected.iter().any(|rejected| rejected.source.backup() == Some(backup));
    let local = |why: String| {
        let tried = rejected.iter().any(|rejected| matches!(rejected.source, Source::LocalSnapshots { .. }));
        (!tried && !local.is_empty()).then(|| Source::LocalSnapshots { files: local.clone(), why })
    };
    match catalog.resolve(true).await {
        Ok(Resolved::Found { manifest, how, .. }) if !tried(manifest.backup_id) => {
            let degraded = how != How::Pointer;
            source(&manifest, how.to_string(), degraded).map(Some)
        }
        Ok(Resolved::Found { .. }) => match older_and_proved(catalog, rejected).await? {
            Some(source) => Ok(Some(source)),
            None => Ok(local("no backup in the bucket can be used".to_owned())),
        },
        Ok(Resolved::Empty) => {
            let nothing = rejected.is_empty().then_some(Source::Nothing);
            Ok(local("the bucket has never had a backup".to_owned()).or(nothing))
        }
        Err(error @ catalog::Error::NothingUsable { .. }) => match local(on_one_line(&error)) {
            Some(source) => Ok(Some(source)),
            None => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// The newest backup that is older than what was rejected and that somebody has read back, or better restored. One of a degraded host comes last.
async fn older_and_proved<S: ObjectStore>(
    catalog: &Catalog<S>,
    rejected: &[Rejected],
) -> Result<Option<Source>, Error> {
    // What is newer was passed over for a reason.
    let Some(oldest) = rejected.iter().filter_map(|rejected| rejected.source.backup()).min() else {
        return Ok(None);
    };
    let listing = catalog.list().await?;
    let mut candidates: Vec<Candidate> =
        listing.entries.into_iter().filter_map(|entry| Candidate::of(entry, oldest)).collect();
    candidates.sort_by_key(Candidate::order);
    for Candidate { manifest, level } in candidates {
        match catalog.check_object(&manifest, None).await {
            Ok(_) => {
                let why = format!("the newest before {oldest} that was proved ({})", level.name());
                return source(&manifest, why, true).map(Some);
            }
            // Out of reach is not gone.
            Err(error) if error.kind().is_transient() => return Err(error.into()),
            Err(error) => warn!(backup = %manifest.backup_id, error = on_one_line(&error), "passed over"),
        }
    }
    Ok(None)
}

struct Candidate {
    manifest: Box<Manifest>,
    level: ProofLevel,
}

impl Candidate {
    fn of(entry: Entry, oldest: BackupId) -> Option<Self> {
        let (manifest, proved) = (entry.manifest.ok()?, entry.proved?);
        let fits = entry.backup_id < oldest && !manifest.partial && proved.level >= ProofLevel::ReRead;
        fits.then_some(Self { manifest, level: proved.level })
    }

    /// Least is best.
    fn order(&self) -> (bool, bool, Reverse<BackupId>) {
        let degraded = self.manifest.origin.as_ref().is_some_and(|origin| origin.degraded);
        (degraded, self.level < ProofLevel::Searched, Reverse(self.manifest.backup_id))
    }
}

fn source(manifest: &Manifest, why: String, degraded: bool) -> Result<Source, Error> {
    let qdrant = select::qdrant_version(manifest)?;
    Ok(Source::Backup { backup_id: manifest.backup_id, qdrant, why, degraded })
}
