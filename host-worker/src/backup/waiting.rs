//! Manifests that wait on this host's disk: of backups that are stored, and that the catalogue may not know of yet.
//!
//! Such a manifest is never lost before it is published, whoever publishes it: only what the catalogue has, word by word, is removed.

use std::path::{Path, PathBuf};

use protocol::{BackupId, Manifest};
use tracing::{info, warn};

use super::local::{local, write_durably};
use crate::{error::Error, session::Session};

const SUFFIX: &str = ".manifest.json";

/// A manifest as it lies on the disk.
pub(super) struct Waiting {
    pub(super) manifest: Manifest,
    /// Its bytes, which are what is handed over.
    pub(super) bytes: Vec<u8>,
}

impl Waiting {
    /// As it is written by this version.
    pub(super) fn of(manifest: Manifest) -> Self {
        let bytes = manifest.to_json();
        Self { manifest, bytes }
    }

    /// Reads the manifest of `backup`; `None` where none waits.
    pub(super) fn read(work_dir: &Path, backup: BackupId) -> Result<Option<Self>, Error> {
        let path = manifest_path(work_dir, backup);
        let bytes = match fs_err::read(&path) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(local(&path, "read", source)),
        };
        let manifest = Manifest::from_json(&bytes)
            .map_err(|source| local(&path, "read", std::io::Error::other(source)))?;
        Ok(Some(Self { manifest, bytes }))
    }

    /// Keeps the manifest on this host until it is published.
    pub(super) fn keep(&self, work_dir: &Path) -> Result<PathBuf, Error> {
        let path = manifest_path(work_dir, self.manifest.backup_id);
        write_durably(&path, &self.bytes)?;
        Ok(path)
    }
}

/// Where the manifest of a backup that was not published waits.
pub(super) fn manifest_path(work_dir: &Path, backup: BackupId) -> PathBuf {
    work_dir.join(format!("{backup}{SUFFIX}"))
}

/// The manifest of a backup that waits for publication.
pub(crate) fn waiting_manifest(work_dir: &Path, backup: BackupId) -> Result<Option<Manifest>, Error> {
    Ok(Waiting::read(work_dir, backup)?.map(|waiting| waiting.manifest))
}

/// Removes it when the catalogue has it. One that stays is harmless: publishing it again changes nothing.
pub(crate) fn remove_manifest(work_dir: &Path, backup: BackupId) {
    match fs_err::remove_file(manifest_path(work_dir, backup)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            warn!(error = &error as &dyn std::error::Error, "the manifest on this host stays");
        }
        Ok(()) | Err(_) => {}
    }
}

/// Removes what others have published since: every manifest that the catalogue has with the same content, but those of `needed` backups.
pub(super) async fn sweep(session: &Session, needed: &[BackupId]) -> Result<(), Error> {
    let work_dir = session.config.work_dir();
    for backup in backups(&work_dir)?.into_iter().filter(|backup| !needed.contains(backup)) {
        let Ok(Some(Waiting { manifest, .. })) = Waiting::read(&work_dir, backup) else { continue };
        // Not there, or not to be read: then it is not known to be safe.
        let published = session.unless_cancelled(session.catalog.manifest(backup)).await?;
        if published.is_ok_and(|published| published == manifest) {
            info!(%backup, "the catalogue has the manifest that waited on this host");
            remove_manifest(&work_dir, backup);
        }
    }
    Ok(())
}

/// The backups whose manifests wait.
fn backups(work_dir: &Path) -> Result<Vec<BackupId>, Error> {
    let failed = |source| local(work_dir, "read", source);
    let mut backups = Vec::new();
    for entry in fs_err::read_dir(work_dir).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let id: Option<BackupId> =
            name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|id| id.parse().ok());
        backups.extend(id);
    }
    backups.sort_unstable();
    Ok(backups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_manifests_of_backups_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second): (BackupId, BackupId) =
            ("20261122T051400Z".parse().unwrap(), "20261123T051400Z".parse().unwrap());
        assert!(backups(dir.path()).unwrap().is_empty());
        for path in [manifest_path(dir.path(), second), manifest_path(dir.path(), first)] {
            fs_err::write(path, b"{}").unwrap();
        }
        for other in ["lock", "origin.json", "today.manifest.json", "20261123T051400Z.manifest.tmp"] {
            fs_err::write(dir.path().join(other), b"{}").unwrap();
        }
        assert_eq!(backups(dir.path()).unwrap(), [first, second]);
        remove_manifest(dir.path(), first);
        remove_manifest(dir.path(), first);
        assert_eq!(backups(dir.path()).unwrap(), [second]);
    }

    #[test]
    fn a_damaged_manifest_is_not_taken_for_an_absent_one() {
        let dir = tempfile::tempdir().unwrap();
        let backup: BackupId = "20261123T051400Z".parse().unwrap();
        assert!(Waiting::read(dir.path(), backup).unwrap().is_none());
        fs_err::write(manifest_path(dir.path(), backup), b"{}").unwrap();
        let error = Waiting::read(dir.path(), backup).err().unwrap();
        assert!(error.to_string().contains("20261123T051400Z.manifest.json"), "{error}");
    }
}
