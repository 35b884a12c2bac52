//! Every backup of a bucket, for people to choose from.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use protocol::{BackupId, Manifest, Proof, ProofLevel, key};

use crate::{
    Catalog, Error,
    catalog::CONCURRENCY,
    error::chain,
    store::{ObjectStore, StoreError},
};

/// Every backup of a bucket.
#[derive(Debug)]
pub struct Listing {
    /// What the pointer says.
    pub pointer: PointerState,
    /// One entry per immutable manifest, newest first.
    pub entries: Vec<Entry>,
    /// Whether every proof was read. Where not, an entry without one may be proved all the same.
    pub proofs_known: bool,
}

/// What the pointer says, for a reader who wants to see the rest in any case.
#[derive(Debug)]
pub enum PointerState {
    /// There is none.
    Absent,
    /// It names this backup.
    Names(BackupId),
    /// It cannot be read.
    Unreadable(Error),
}

/// One immutable manifest.
#[derive(Debug)]
pub struct Entry {
    /// The backup, from the manifest's key.
    pub backup_id: BackupId,
    /// The manifest's key.
    pub key: String,
    /// When the manifest was stored, by the store's clock.
    pub stored_at: Timestamp,
    /// The manifest, or why it cannot be used.
    pub manifest: Result<Box<Manifest>, Error>,
    /// Whether the pointer names this backup.
    pub is_pointer: bool,
    /// The highest level proved, and when that was last.
    pub proved: Option<Proved>,
}

/// How far a backup has been proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    /// The highest level.
    pub level: ProofLevel,
    /// When it was last reached.
    pub at: Timestamp,
}

impl Proved {
    fn highest(proofs: &[Proof]) -> Option<Self> {
        let best = proofs.iter().max_by_key(|proof| (proof.level, proof.proved_at))?;
        Some(Self { level: best.level, at: best.proved_at })
    }
}

impl<S: ObjectStore> Catalog<S> {
    /// Every backup, newest first. A manifest or pointer that cannot be read is an entry with its reason, never an error;
    /// an error means that the listing itself is not known.
    pub async fn list(&self) -> Result<Listing, Error> {
        let pointer = match self.pointer().await {
            Ok(Some(pointer)) => PointerState::Names(pointer.manifest.backup_id),
            Ok(None) => PointerState::Absent,
            Err(error) => PointerState::Unreadable(error),
        };
        let named = match &pointer {
            PointerState::Names(backup) => Some(*backup),
            PointerState::Absent | PointerState::Unreadable(_) => None,
        };
        let stored = self.stored_manifests().await?;
        let (mut proofs, proofs_known) = self.proofs_of_all().await?;
        let read = |(backup_id, stored_at): (BackupId, Timestamp)| async move {
            (backup_id, stored_at, self.manifest(backup_id).await)
        };
        let entries = stream::iter(stored)
            .map(read)
            .buffered(CONCURRENCY)
            .map(|(backup_id, stored_at, manifest)| Entry {
                backup_id,
                key: key::manifest(backup_id),
                stored_at,
                manifest: manifest.map(Box::new),
                is_pointer: named == Some(backup_id),
                proved: proofs.remove(&backup_id).and_then(|proofs| Proved::highest(&proofs)),
            })
            .collect()
            .await;
        Ok(Listing { pointer, entries, proofs_known })
    }

    /// The backups that have an immutable manifest, newest first, and when each was stored.
    pub(crate) async fn stored_manifests(&self) -> Result<Vec<(BackupId, Timestamp)>, Error> {
        let mut stored: Vec<_> = self
            .store
            .list(key::MANIFESTS)
            .await?
            .into_iter()
            .filter_map(|object| Some((key::parse_manifest(&object.key)?, object.last_modified)))
            .collect();
        stored.sort_unstable_by_key(|(backup, _)| std::cmp::Reverse(*backup));
        Ok(stored)
    }

    /// What can be read of the proofs, and whether that is all.
    async fn proofs_of_all(&self) -> Result<(BTreeMap<BackupId, Vec<Proof>>, bool), Error> {
        let mut by_backup: BTreeMap<BackupId, Vec<Proof>> = BTreeMap::new();
        let (proofs, all) = self.readable_proofs().await?;
        for proof in proofs {
            by_backup.entry(proof.backup_id).or_default().push(proof);
        }
        Ok((by_backup, all))
    }

    /// Every proof; none where these credentials may not read proofs, which is no reason to hide the backups.
    async fn readable_proofs(&self) -> Result<(Vec<Proof>, bool), Error> {
        let read = async {
            let listed = self.store.list(key::PROOFS).await?;
            let keys = listed.into_iter().map(|object| object.key);
            let keys: Vec<String> = keys.filter(|key| key::parse_proof(key).is_some()).collect();
            let stored = keys.len();
            let proofs = self.read_proofs(keys).await?;
            let all = proofs.len() == stored;
            Ok((proofs, all))
        };
        match read.await {
            Err(Error::Store(error @ StoreError::Denied { .. })) => {
                tracing::warn!(
                    error = chain(&error),
                    "the proofs cannot be read; backups are listed without them"
                );
                Ok((Vec::new(), false))
            }
            read => read,
        }
    }
}
