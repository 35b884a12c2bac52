//! Which backup to restore.

use std::fmt;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use protocol::{BackupId, Manifest, key};

use crate::{
    Catalog, CheckedObject, Checksum, Error, Pointer,
    catalog::CONCURRENCY,
    error::chain,
    publish::PublishPolicy,
    rules::{Decision, Suspicion, decide},
    store::ObjectStore,
};

/// A person's choice of backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selector {
    /// The one that the pointer names.
    Newest,
    /// This one.
    Id(BackupId),
    /// The newest that was started before a time.
    Before {
        /// That time.
        time: Timestamp,
        /// Whether a backup of chosen collections will do.
        partial: bool,
    },
}

/// What a host without data restores.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolved {
    /// Nothing was ever stored: no pointer, no manifest, no archive. A host may start empty.
    Empty,
    /// This backup.
    Found {
        /// Its manifest.
        manifest: Box<Manifest>,
        /// Why this one.
        how: How,
        /// What the store knows of its archive.
        object: CheckedObject,
    },
}

impl Resolved {
    /// Whether a host that goes on from here is degraded: it came by anything but the pointer's own backup.
    pub fn degraded(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Found { how: How::Pointer, .. } => false,
            Self::Found { how: How::NewestManifest { .. }, .. } => true,
        }
    }
}

/// Why a backup was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// The pointer names it.
    Pointer,
    /// The pointer cannot be used, and its immutable manifest is the newest that can.
    NewestManifest {
        /// What is wrong with the pointer.
        why: String,
        /// The newer manifests that were passed over.
        skipped: Vec<Skipped>,
    },
}

/// A manifest that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The backup, from the manifest's key.
    pub backup_id: BackupId,
    /// Why.
    pub why: String,
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pointer => f.write_str("the pointer names it"),
            Self::NewestManifest { why, skipped } => {
                write!(f, "the newest usable manifest, because {why}")?;
                for Skipped { backup_id, why } in skipped {
                    write!(f, "; {backup_id} was passed over: {why}")?;
                }
                Ok(())
            }
        }
    }
}

impl<S: ObjectStore> Catalog<S> {
    /// The manifest of the backup that a person chose, after a look at its archive.
    pub async fn find(&self, selector: Selector) -> Result<Manifest, Error> {
        match selector {
            Selector::Newest => match self.resolve(false).await? {
                Resolved::Found { manifest, .. } => Ok(*manifest),
                Resolved::Empty => Err(Error::NoBackup { bucket: self.bucket.clone() }),
            },
            Selector::Id(backup) => {
                let manifest = self.manifest(backup).await?;
                self.check_object(&manifest, None).await?;
                Ok(manifest)
            }
            Selector::Before { time, partial } => {
                let manifest = self.newest_before(time, partial).await?;
                self.check_object(&manifest, None).await?;
                Ok(manifest)
            }
        }
    }

    /// The backup that a host without data restores.
    ///
    /// That is the pointer's. With `fallback`, a pointer that is missing, damaged, or names an archive that is gone or
    /// different gives way to the newest immutable manifest that is whole, not partial, and that could have become the
    /// pointer by itself; one from a degraded host only where there is no other. Whatever leaves it open what is stored
    /// (no access, no answer, a format from the future) is an error: the caller holds.
    pub async fn resolve(&self, fallback: bool) -> Result<Resolved, Error> {
        let (pointer, unusable) = match self.pointer().await {
            Ok(Some(pointer)) => match self.check_object(&pointer.manifest, None).await {
                Ok(object) => {
                    let manifest = Box::new(pointer.manifest);
                    return Ok(Resolved::Found { manifest, how: How::Pointer, object });
                }
                Err(error) => (Some(pointer), error),
            },
            Ok(None) => match self.count_objects().await? {
                0 => return Ok(Resolved::Empty),
                objects => (None, Error::PointerMissing { bucket: self.bucket.clone(), objects }),
            },
            Err(error) => (None, error),
        };
        if !fallback || !unusable.is_definite() {
            return Err(unusable);
        }
        self.newest_usable(pointer.as_ref(), unusable).await
    }

    async fn newest_usable(&self, pointer: Option<&Pointer>, unusable: Error) -> Result<Resolved, Error> {
        let mut skipped = Vec::new();
        let mut from_degraded_hosts = Vec::new();
        for (backup_id, _) in self.stored_manifests().await? {
            let manifest = match self.manifest(backup_id).await {
                Ok(manifest) => manifest,
                Err(error) if error.is_definite() => {
                    skipped.push(Skipped { backup_id, why: chain(&error) });
                    continue;
                }
                Err(error) => return Err(error),
            };
            if let Some(why) = passed_over(pointer, &manifest) {
                skipped.push(Skipped { backup_id, why });
            } else if manifest.origin.as_ref().is_some_and(|origin| origin.degraded) {
                from_degraded_hosts.push(manifest);
            } else if let Some(object) = self.usable(&manifest, &mut skipped).await? {
                skipped.extend(from_degraded_hosts.iter().map(|manifest| Skipped {
                    backup_id: manifest.backup_id,
                    why: "it was taken on a degraded host".to_owned(),
                }));
                skipped.sort_by_key(|skipped| std::cmp::Reverse(skipped.backup_id));
                return Ok(found(manifest, &unusable, skipped, object));
            }
        }
        for manifest in from_degraded_hosts {
            if let Some(object) = self.usable(&manifest, &mut skipped).await? {
                return Ok(found(manifest, &unusable, skipped, object));
            }
        }
        Err(Error::NothingUsable { skipped, pointer: Box::new(unusable) })
    }

    async fn usable(
        &self,
        manifest: &Manifest,
        skipped: &mut Vec<Skipped>,
    ) -> Result<Option<CheckedObject>, Error> {
        match self.check_object(manifest, None).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_definite() => {
                skipped.push(Skipped { backup_id: manifest.backup_id, why: chain(&error) });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    async fn newest_before(&self, time: Timestamp, partial: bool) -> Result<Manifest, Error> {
        let stored = self.stored_manifests().await?;
        let candidates = stored.into_iter().map(|(backup, _)| backup).filter(|backup| backup.time() < time);
        let read = |backup: BackupId| async move { (backup, self.manifest(backup).await) };
        let mut manifests = std::pin::pin!(stream::iter(candidates).map(read).buffered(CONCURRENCY));
        while let Some((backup, manifest)) = manifests.next().await {
            match manifest {
                Ok(manifest) if manifest.created_at < time && (partial || !manifest.partial) => {
                    return Ok(manifest);
                }
                Ok(_) => {}
                Err(error) if error.is_definite() => {
                    tracing::warn!(%backup, error = chain(&error), "the manifest cannot be used; passed over");
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::NoneBefore { time, bucket: self.bucket.clone() })
    }

    /// How many objects say that something was once stored here. The probe's own object does not.
    async fn count_objects(&self) -> Result<usize, Error> {
        let manifests = self.store.list(key::MANIFESTS).await?;
        let archives = self.store.list(&self.layout.prefix().with_slash()).await?;
        let probe = self.layout.probe();
        Ok(manifests.iter().chain(&archives).filter(|object| object.key != probe).count())
    }
}

/// Why a manifest may not stand in for the pointer, apart from its archive and from where its host came from.
fn passed_over(pointer: Option<&Pointer>, candidate: &Manifest) -> Option<String> {
    if candidate.partial {
        return Some("it is partial".to_owned());
    }
    // Newer than what the pointer names means that publication stopped before the pointer, perhaps for a reason.
    let pointer = pointer.filter(|pointer| candidate.backup_id > pointer.manifest.backup_id)?;
    match decide(Some(pointer), candidate, &PublishPolicy::default()) {
        Decision::Move { .. } | Decision::AlreadyPublished | Decision::Contradicted => None,
        Decision::Superseded { by } => {
            Some(format!("the pointer was rolled back to {by} after it was taken"))
        }
        Decision::Suspicious(reasons) => reasons
            .iter()
            .find(|reason| !matches!(reason, Suspicion::DegradedOrigin { .. }))
            .map(ToString::to_string),
    }
}

fn found(manifest: Manifest, unusable: &Error, skipped: Vec<Skipped>, object: CheckedObject) -> Resolved {
    let how = How::NewestManifest { why: chain(unusable), skipped };
    tracing::warn!(backup = %manifest.backup_id, %how, "falling back");
    if object.checksum == Checksum::Absent {
        tracing::warn!(key = %manifest.key, "the store keeps no CRC-64/NVME: only the size was compared");
    }
    Resolved::Found { manifest: Box::new(manifest), how, object }
}
