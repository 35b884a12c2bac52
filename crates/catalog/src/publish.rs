//! Publication: the immutable manifest, then the pointer.

use bytes::Bytes;
use protocol::{
    BackupId, Manifest, key,
    manifest::{InvalidManifest, Previous},
};
use serde::Serialize;

use crate::{
    Catalog, Checksum, Error, Pointer, Suspicion,
    catalog::{ATTEMPTS, read_manifest, read_pointer},
    error::chain,
    rules::{Decision, check_clock, decide},
    store::{Condition, Object, ObjectStore, PutError},
};

/// What publication may do, and what it asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct PublishPolicy {
    /// Publish although something looks like damage. A person says so.
    pub force: bool,
    /// The share of its points, 0 to 1, that a collection may lose against the pointer's backup.
    pub max_fall: f64,
    /// Move the pointer back to an older backup. A person says so.
    pub rollback: bool,
    /// The KMS key that the archive must be encrypted with: an ARN or a key id, not an alias.
    pub expected_kms_key: Option<String>,
    /// The caller has read the whole archive back and compared it, which stands in for a store without CRC-64/NVME.
    pub read_back: bool,
}

impl Default for PublishPolicy {
    fn default() -> Self {
        Self { force: false, max_fall: 0.5, rollback: false, expected_kms_key: None, read_back: false }
    }
}

/// What publication came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Published {
    /// Whether the pointer moved to this backup by this call.
    pub pointer_moved: bool,
    /// How it ended.
    pub outcome: Outcome,
    /// What would have stopped it without `force`.
    pub forced: Vec<Suspicion>,
}

/// How a publication ended. All of these are successes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The pointer names this backup now.
    Published,
    /// The pointer named this backup before.
    AlreadyPublished,
    /// The pointer names another backup, which this one must not replace. Its own manifest is stored.
    Superseded {
        /// That backup.
        by: BackupId,
    },
    /// A backup of chosen collections: its own manifest is stored, and the pointer is never touched.
    Partial,
}

impl Outcome {
    fn with(self, pointer_moved: bool) -> Published {
        Published { pointer_moved, outcome: self, forced: Vec::new() }
    }
}

impl<S: ObjectStore> Catalog<S> {
    /// Publishes a backup whose archive and side files are stored. May be repeated, by anybody, at any time.
    ///
    /// `previous` of the manifest is not looked at: the chain is made here.
    pub async fn publish(&self, manifest: &Manifest, policy: &PublishPolicy) -> Result<Published, Error> {
        let manifest = Manifest { previous: None, ..manifest.clone() };
        let checked = self.check_object(&manifest, policy.expected_kms_key.as_deref()).await?;
        match checked.checksum {
            Checksum::Equal => {}
            Checksum::Absent if policy.read_back || self.was_read_back(manifest.backup_id).await? => {
                tracing::info!(key = %manifest.key, "the store keeps no CRC-64/NVME; the archive was read back instead");
            }
            Checksum::Absent => {
                let key = manifest.key.to_string();
                return Err(Error::ObjectUnchecked { key, backup: manifest.backup_id });
            }
        }
        check_clock(&manifest, self.store.now().await?)?;
        self.put_manifest(&manifest).await?;
        if manifest.partial {
            return Ok(Outcome::Partial.with(false));
        }
        self.move_pointer(&manifest, policy).await
    }

    /// Creates the immutable manifest. One that is there already must say the same, up to fields that a later release added.
    async fn put_manifest(&self, manifest: &Manifest) -> Result<(), Error> {
        let key = key::manifest(manifest.backup_id);
        let same = |stored: &[u8]| read_manifest(&key, stored).is_ok_and(|stored| stored == *manifest);
        self.put_once(&key, manifest.to_json().into(), same).await.map(|_created| ())
    }

    async fn move_pointer(&self, manifest: &Manifest, policy: &PublishPolicy) -> Result<Published, Error> {
        let mut tried: Option<Tried> = None;
        for _ in 0..ATTEMPTS {
            let object = self.store.get(key::POINTER, None).await?;
            if let Some(Tried { bytes, before, forced }) = tried.take()
                && object.as_ref().is_some_and(|object| object.bytes == bytes)
            {
                // The write that was refused is there: its first reply was lost.
                report(manifest, before.as_ref(), &forced);
                return Ok(Published { pointer_moved: true, outcome: Outcome::Published, forced });
            }
            let condition = match &object {
                Some(object) => Condition::IfMatch(object.etag.clone()),
                None => Condition::IfAbsent,
            };
            let current = readable(object, policy)?;
            let forced = match decide(current.as_ref(), manifest, policy) {
                Decision::Move { forced } => forced,
                Decision::AlreadyPublished => return Ok(Outcome::AlreadyPublished.with(false)),
                Decision::Superseded { by } => return Ok(Outcome::Superseded { by }.with(false)),
                Decision::Suspicious(reasons) => {
                    return Err(Error::Suspicious { backup: manifest.backup_id, reasons });
                }
                Decision::Contradicted => return Err(contradiction(current.as_ref(), manifest)),
            };
            let next = Manifest { previous: current.as_ref().map(link), ..manifest.clone() };
            let bytes = Bytes::from(next.to_json());
            match self.store.put(key::POINTER, bytes.clone(), condition).await {
                Ok(_) => {
                    report(manifest, current.as_ref(), &forced);
                    return Ok(Published { pointer_moved: true, outcome: Outcome::Published, forced });
                }
                Err(PutError::PreconditionFailed { .. }) => {
                    tried = Some(Tried { bytes, before: current, forced })
                }
                Err(PutError::Other(error)) => return Err(error.into()),
            }
        }
        Err(Error::Contended { key: key::POINTER.to_owned(), attempts: ATTEMPTS })
    }
}

/// A write of the pointer that was refused, perhaps by what an earlier sending of it had made.
struct Tried {
    bytes: Bytes,
    before: Option<Pointer>,
    forced: Vec<Suspicion>,
}

/// The pointer that is to be replaced. A damaged one counts as none where a person insists; one from the future never does.
fn readable(object: Option<Object>, policy: &PublishPolicy) -> Result<Option<Pointer>, Error> {
    let Some(object) = object else { return Ok(None) };
    match read_pointer(object) {
        Ok(pointer) => Ok(Some(pointer)),
        Err(error @ Error::ManifestInvalid { source: InvalidManifest::NewerFormat { .. }, .. }) => Err(error),
        Err(error) if policy.force || policy.rollback => {
            tracing::warn!(
                error = chain(&error),
                "the pointer is damaged and will be replaced; its chain ends here"
            );
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn link(pointer: &Pointer) -> Previous {
    Previous { backup_id: pointer.manifest.backup_id, sha256: pointer.bytes_sha256.clone() }
}

fn contradiction(current: Option<&Pointer>, manifest: &Manifest) -> Error {
    Error::PointerContradicts {
        backup: manifest.backup_id,
        expected: manifest.key.to_string(),
        found: current.map(|current| current.manifest.key.to_string()).unwrap_or_default(),
    }
}

fn report(manifest: &Manifest, before: Option<&Pointer>, forced: &[Suspicion]) {
    let backup = manifest.backup_id;
    let previous = before.map(|pointer| pointer.manifest.backup_id.to_string());
    for reason in forced {
        tracing::warn!(%backup, %reason, "published by force");
    }
    if before.is_some_and(|pointer| pointer.manifest.backup_id > backup) {
        tracing::warn!(%backup, previous, "the pointer was rolled back");
    } else {
        tracing::info!(%backup, previous, "the pointer moved");
    }
}
