//! The catalogue: reading single documents, and writing those that are written once.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use protocol::{BackupId, Layout, Manifest, Proof, ProofLevel, SuccessMarker, key};

use crate::{
    Error,
    error::chain,
    store::{Condition, Object, ObjectStore, PutError},
};

/// Requests in flight while many small documents are read.
pub(crate) const CONCURRENCY: usize = 16;

/// How often a conditional write that lost a race is decided anew.
pub(crate) const ATTEMPTS: u32 = 5;

/// The backups of one bucket.
#[derive(Clone, Debug)]
pub struct Catalog<S> {
    pub(crate) store: S,
    pub(crate) bucket: String,
    pub(crate) layout: Layout,
}

/// The pointer as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Pointer {
    /// The backup that it names, with the link of the chain in `previous`.
    pub manifest: Manifest,
    /// The tag by which the next write names this state.
    pub etag: String,
    /// SHA-256 of the pointer's bytes, 64 lower-case hexadecimal digits: what the next link of the chain records.
    pub bytes_sha256: String,
    /// When it was written, by the store's clock.
    pub last_modified: Timestamp,
}

impl<S: ObjectStore> Catalog<S> {
    /// The catalogue of `bucket`, which `store` reaches. The name is for messages only.
    pub fn new(store: S, bucket: impl Into<String>, layout: Layout) -> Self {
        Self { store, bucket: bucket.into(), layout }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// Where the objects are.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The time by the store's own clock.
    pub async fn now(&self) -> Result<Timestamp, Error> {
        Ok(self.store.now().await?)
    }

    /// The pointer; `None` only when the store says that there is none.
    pub async fn pointer(&self) -> Result<Option<Pointer>, Error> {
        self.store.get(key::POINTER, None).await?.map(read_pointer).transpose()
    }

    /// The immutable manifest of a backup.
    pub async fn manifest(&self, backup: BackupId) -> Result<Manifest, Error> {
        let key = key::manifest(backup);
        let Some(object) = self.store.get(&key, None).await? else {
            return Err(Error::NoSuchBackup { key, bucket: self.bucket.clone() });
        };
        let manifest = read_manifest(&key, &object.bytes)?;
        if manifest.backup_id != backup {
            return Err(Error::ManifestMisplaced { key, found: manifest.backup_id });
        }
        Ok(manifest)
    }

    /// The indexing job's success marker; `None` where it has written none.
    pub async fn success_marker(&self, key: &str) -> Result<Option<SuccessMarker>, Error> {
        let Some(object) = self.store.get(key, None).await? else { return Ok(None) };
        SuccessMarker::from_json(&object.bytes)
            .map(Some)
            .map_err(|source| Error::MarkerInvalid { key: key.to_owned(), source })
    }

    /// Stores a file that belongs to an archive, once: the same bytes again are no error, others are.
    pub async fn put_side_file(&self, key: &str, bytes: impl Into<Bytes>) -> Result<(), Error> {
        self.put_once(key, bytes.into(), |_| false).await.map(|_created| ())
    }

    /// Reads a file that belongs to an archive, of at most `max` bytes.
    pub async fn get_side_file(&self, key: &str, max: u64) -> Result<Option<Bytes>, Error> {
        let Some(object) = self.store.get(key, None).await? else { return Ok(None) };
        let size = object.bytes.len() as u64;
        if size > max {
            return Err(Error::SideFileTooLarge { key: key.to_owned(), size, max });
        }
        Ok(Some(object.bytes))
    }

    /// What has been proved of a backup, earliest first. A proof that cannot be read is passed over with a warning.
    pub async fn proofs(&self, backup: BackupId) -> Result<Vec<Proof>, Error> {
        let listed = self.store.list(&key::proofs(backup)).await?;
        let keys =
            listed.into_iter().map(|object| object.key).filter(|key| key::parse_proof(key) == Some(backup));
        self.read_proofs(keys.collect()).await
    }

    /// Records a proof next to its backup.
    pub async fn put_proof(&self, proof: &Proof) -> Result<(), Error> {
        let key = key::proof(proof.backup_id, proof.proved_at);
        let mut bytes = serde_json::to_vec_pretty(proof)
            .map_err(|source| Error::ProofUnwritable { key: key.clone(), source })?;
        bytes.push(b'\n');
        self.put_once(&key, bytes.into(), |_| false).await.map(|_created| ())
    }

    pub(crate) async fn read_proofs(&self, keys: Vec<String>) -> Result<Vec<Proof>, Error> {
        let read = |key: String| async move { self.read_proof(&key).await };
        let found: Vec<Option<Proof>> =
            stream::iter(keys).map(read).buffered(CONCURRENCY).try_collect().await?;
        let mut proofs: Vec<Proof> = found.into_iter().flatten().collect();
        proofs.sort_by_key(|proof| proof.proved_at);
        Ok(proofs)
    }

    async fn read_proof(&self, key: &str) -> Result<Option<Proof>, Error> {
        let Some(object) = self.store.get(key, None).await? else { return Ok(None) };
        match serde_json::from_slice::<Proof>(&object.bytes) {
            Ok(proof) if key::parse_proof(key) == Some(proof.backup_id) => Ok(Some(proof)),
            Ok(proof) => {
                tracing::warn!(key, backup = %proof.backup_id, "the proof is of another backup; passed over");
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(key, error = chain(&error), "the proof cannot be read; passed over");
                Ok(None)
            }
        }
    }

    /// Whether somebody has read every byte of the backup's archive back.
    pub(crate) async fn was_read_back(&self, backup: BackupId) -> Result<bool, Error> {
        Ok(self.proofs(backup).await?.iter().any(|proof| proof.level >= ProofLevel::ReRead))
    }

    /// Creates an immutable object; whether this call did. Where it exists, its bytes must be equal or `same` says so.
    ///
    /// A client's own retry, a duplicate call and a call after a crash all end here.
    pub(crate) async fn put_once(
        &self,
        key: &str,
        bytes: Bytes,
        same: impl Fn(&[u8]) -> bool + Send,
    ) -> Result<bool, Error> {
        for _ in 0..ATTEMPTS {
            match self.store.put(key, bytes.clone(), Condition::IfAbsent).await {
                Ok(_) => return Ok(true),
                Err(PutError::PreconditionFailed { .. }) => {}
                Err(PutError::Other(error)) => return Err(error.into()),
            }
            // Absent again: the write that stood in the way failed, so ours has another chance.
            let Some(stored) = self.store.get(key, None).await? else { continue };
            if stored.bytes == bytes || same(&stored.bytes) {
                return Ok(false);
            }
            return Err(Error::Conflict {
                key: key.to_owned(),
                expected: Manifest::digest(&bytes),
                found: Manifest::digest(&stored.bytes),
            });
        }
        Err(Error::Contended { key: key.to_owned(), attempts: ATTEMPTS })
    }
}

pub(crate) fn read_manifest(key: &str, bytes: &[u8]) -> Result<Manifest, Error> {
    Manifest::from_json(bytes).map_err(|source| Error::ManifestInvalid { key: key.to_owned(), source })
}

pub(crate) fn read_pointer(object: Object) -> Result<Pointer, Error> {
    Ok(Pointer {
        manifest: read_manifest(key::POINTER, &object.bytes)?,
        etag: object.etag,
        bytes_sha256: Manifest::digest(&object.bytes),
        last_modified: object.last_modified,
    })
}
