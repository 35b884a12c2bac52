//! Removing a backup that nobody needs, and what no manifest speaks of any more.
//!
//! Which backups go is decided elsewhere (`protocol::retention`). Here is the order, which makes an interruption harmless: the manifest goes first, so that no reader
//! finds a backup whose data is half gone; what is then left is an orphan, which the next call finds by itself. The pointer is read again right before
//! anything is deleted, for somebody may have rolled it back meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use protocol::{BackupId, Manifest, key, key::ArchiveKey};

use crate::{
    Catalog, Error, Listing,
    store::{Deletion, Listed, ObjectStore},
};

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// How many objects.
    pub objects: u64,
    /// How many bytes they had.
    pub bytes: u64,
}

/// An archive, or what is left of one, that no manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orphan {
    /// The archive's key; it may itself be gone already.
    pub archive: ArchiveKey,
    /// The keys that are there, the archive's among them.
    pub keys: Vec<String>,
    /// Bytes of them all.
    pub bytes: u64,
    /// When the youngest of them was written.
    pub written_at: Timestamp,
}

impl<S: ObjectStore> Catalog<S> {
    /// What lies under the archives' prefix, belongs to no backup that `listing` shows, and has not been touched for `age`.
    ///
    /// What is younger may belong to a backup that is still being made. Where a manifest cannot be read, everything of that backup is taken for its own.
    pub async fn orphans(&self, listing: &Listing, age: SignedDuration) -> Result<Vec<Orphan>, Error> {
        let now = self.store.now().await?;
        let mut named = BTreeSet::new();
        let mut unknown = BTreeSet::new();
        for entry in &listing.entries {
            match &entry.manifest {
                Ok(manifest) => drop(named.insert(manifest.key.clone())),
                Err(_) => drop(unknown.insert(entry.backup_id)),
            }
        }
        if let Some(pointer) = self.pointer().await? {
            named.insert(pointer.manifest.key);
        }
        let mut found: BTreeMap<ArchiveKey, Vec<Listed>> = BTreeMap::new();
        for object in self.store.list(&self.layout.prefix().with_slash()).await? {
            if let Some(archive) = ArchiveKey::owning(&object.key)
                && !named.contains(&archive)
                && !unknown.contains(&archive.backup())
            {
                found.entry(archive).or_default().push(object);
            }
        }
        let orphans = found.into_iter().filter_map(|(archive, objects)| {
            let written_at = objects.iter().map(|object| object.last_modified).max()?;
            let bytes = objects.iter().map(|object| object.size).sum();
            let keys = objects.into_iter().map(|object| object.key).collect();
            Some(Orphan { archive, keys, bytes, written_at })
        });
        Ok(orphans.filter(|orphan| now.duration_since(orphan.written_at) >= age).collect())
    }
}

impl<S: Deletion> Catalog<S> {
    /// Removes a backup: its manifest, its proofs, then its archive and what lies beside that. Reports of its drills stay, for they tell how restores went.
    ///
    /// May be repeated, by anybody, after any interruption.
    pub async fn remove(&self, manifest: &Manifest) -> Result<Removed, Error> {
        let backup = manifest.backup_id;
        self.require_unnamed(backup).await?;
        let own = key::manifest(backup);
        let bytes = self.store.get(&own, None).await?.map(|object| object.bytes);
        self.store.delete(&own).await?;
        let mut removed = Removed { objects: 1, bytes: 0 };
        if let Err(error) = self.require_unnamed(backup).await {
            // Named between the two looks, or out of sight: what was taken is put back, and the data was not touched.
            if let Some(bytes) = bytes {
                self.put_once(&own, bytes, |_| false).await?;
            }
            return Err(error);
        }
        let proofs = self.store.list(&key::proofs(backup)).await?;
        let mine = self.store.list(&manifest.key.beginning()).await?;
        let mine =
            mine.into_iter().filter(|object| ArchiveKey::owning(&object.key).as_ref() == Some(&manifest.key));
        for object in proofs.into_iter().chain(mine) {
            self.store.delete(&object.key).await?;
            removed.add(&object);
        }
        Ok(removed)
    }

    /// Removes what [`orphans`](Self::orphans) found, unless a manifest names it by now.
    pub async fn remove_orphan(&self, orphan: &Orphan) -> Result<Removed, Error> {
        let backup = orphan.archive.backup();
        match self.manifest(backup).await {
            Ok(manifest) if manifest.key == orphan.archive => return Ok(Removed::default()),
            Ok(_) | Err(Error::NoSuchBackup { .. }) => {}
            Err(error) => return Err(error),
        }
        if self.pointer().await?.is_some_and(|pointer| pointer.manifest.key == orphan.archive) {
            return Err(Error::NamedMeanwhile { backup });
        }
        for key in &orphan.keys {
            self.store.delete(key).await?;
        }
        Ok(Removed { objects: orphan.keys.len() as u64, bytes: orphan.bytes })
    }

    async fn require_unnamed(&self, backup: BackupId) -> Result<(), Error> {
        match self.pointer().await? {
            Some(pointer) if pointer.manifest.backup_id == backup => Err(Error::NamedMeanwhile { backup }),
            Some(_) | None => Ok(()),
        }
    }
}

impl Removed {
    fn add(&mut self, object: &Listed) {
        self.objects += 1;
        self.bytes += object.size;
    }
}
