//! The last resort but one: snapshots that Qdrant has left on this host's own disk, when the bucket has nothing that can be used.
//!
//! Qdrant lists them only for collections that it has, so that it cannot be asked; the files are looked at. Nothing was recorded of them: what can be said is
//! that their bytes are those that Qdrant hashed, and that Qdrant loads them. They may be of different times.

use std::{collections::BTreeMap, io, path::Path};

use jiff::Timestamp;
use protocol::CollectionName;
use sha2::{Digest, Sha256};
use tracing::{info, warn};

use super::{Refused, record::LocalSnapshot};
use crate::{
    backup::{begun_at, local},
    config::SnapshotsDir,
    error::Error,
    observe,
    qdrant::{self, Checksum, CollectionStatus, OptimizerStatus},
    restore::REPLAY_PATIENCE,
};

/// The newest snapshot of each collection, by the time in its name, or else that of its file.
pub(super) fn find(snapshots: &Path) -> Result<Vec<LocalSnapshot>, Error> {
    let mut newest: BTreeMap<CollectionName, LocalSnapshot> = BTreeMap::new();
    for (name, path) in entries(snapshots)? {
        let Ok(collection) = name.parse::<CollectionName>() else { continue };
        // Beside the directories of collections may lie snapshots of everything, which only a start with `--storage-snapshot` takes.
        if !path.is_dir() || name == "tmp" {
            continue;
        }
        for (file, path) in entries(&path)? {
            let Ok(found) = fs_err::symlink_metadata(&path) else { continue };
            if !file.ends_with(".snapshot") || !found.is_file() {
                continue;
            }
            let modified = || found.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
            let Some(taken_at) = begun_at(&file).or_else(modified) else { continue };
            let file = format!("{name}/{file}");
            let snapshot = LocalSnapshot { collection: collection.clone(), file, taken_at };
            let best = newest.entry(collection.clone()).or_insert_with(|| snapshot.clone());
            if (best.taken_at, &best.file) < (taken_at, &snapshot.file) {
                *best = snapshot;
            }
        }
    }
    Ok(newest.into_values().collect())
}

/// The names in a directory, and their paths; none where there is no directory.
fn entries(dir: &Path) -> Result<Vec<(String, std::path::PathBuf)>, Error> {
    let failed = |source| local(dir, "look into", source);
    let entries = match fs_err::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if let Ok(name) = entry.file_name().into_string() {
            found.push((name, entry.path()));
        }
    }
    Ok(found)
}

/// The bytes that the snapshots take, and about as many that their collections will.
pub(super) fn bytes(snapshots: &Path, files: &[LocalSnapshot]) -> u64 {
    let size = |snapshot: &LocalSnapshot| fs_err::metadata(snapshots.join(&snapshot.file));
    files.iter().filter_map(|snapshot| Some(size(snapshot).ok()?.len())).sum()
}

/// Recovers each snapshot.
pub(super) async fn restore(
    client: &qdrant::Client,
    snapshots: &SnapshotsDir,
    files: &[LocalSnapshot],
) -> Result<(), Error> {
    for snapshot in files {
        let LocalSnapshot { collection, file, taken_at } = snapshot;
        let checksum = proved_checksum(&snapshots.host.join(file), snapshot).await?;
        let path = snapshots.qdrant.join(file);
        let location = reqwest::Url::from_file_path(&path).map_err(|()| Error::BadSetting {
            name: "qdrant-snapshots-path",
            problem: format!("`{}` cannot be written as a file:// URL", path.display()),
        })?;
        // An earlier run may have asked for it.
        client.wait_for_recovery(collection).await?;
        info!(%collection, file, %taken_at, "recovering a local snapshot");
        client.recover(collection, location.as_str(), &checksum).await?;
    }
    check(client, files).await
}

/// Looks whether every collection is there and can be counted.
pub(super) async fn check(client: &qdrant::Client, files: &[LocalSnapshot]) -> Result<(), Error> {
    observe::wait_for_empty_queues(client, files.iter().map(|file| &file.collection), REPLAY_PATIENCE)
        .await?;
    for snapshot in files {
        let info = match client.collection(&snapshot.collection).await {
            Ok(info) => info,
            Err(error) if error.is_not_found() => {
                return Err(broken(snapshot, "it is not there".to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        match (info.status, info.optimizer_status) {
            (CollectionStatus::Red, OptimizerStatus::Error(problem)) => {
                return Err(broken(snapshot, problem));
            }
            (CollectionStatus::Red, OptimizerStatus::Ok) => {
                return Err(broken(snapshot, "its status is red".to_owned()));
            }
            _ => {}
        }
        let points = client.count_exact(&snapshot.collection, None).await?;
        info!(collection = %snapshot.collection, points, "a collection is back from a local snapshot");
    }
    Ok(())
}

/// The SHA-256 of the file's bytes, compared with the one that Qdrant has put beside it.
async fn proved_checksum(path: &Path, snapshot: &LocalSnapshot) -> Result<Checksum, Error> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".checksum");
    let recorded = match fs_err::read_to_string(Path::new(&beside)) {
        Ok(text) => text.trim().parse::<Checksum>().ok(),
        Err(_) => None,
    };
    let hashed = path.to_owned();
    let found = tokio::task::spawn_blocking(move || sha256(&hashed)).await;
    let found = found
        .map_err(|panicked| local(path, "hash", io::Error::other(panicked)))?
        .map_err(|source| local(path, "hash", source))?;
    match recorded {
        Some(recorded) if recorded != found => {
            Err(broken(snapshot, format!("its SHA-256 is {found}, and Qdrant recorded {recorded}")))
        }
        Some(_) => Ok(found),
        None => {
            warn!(
                file = snapshot.file,
                "Qdrant has left no checksum beside the snapshot: its bytes are taken as they are"
            );
            Ok(found)
        }
    }
}

fn sha256(path: &Path) -> io::Result<Checksum> {
    let mut hasher = Sha256::new();
    let mut file = fs_err::File::open(path)?;
    io::copy(&mut file, &mut Writer(&mut hasher))?;
    hex::encode(hasher.finalize()).parse().map_err(io::Error::other)
}

/// What is written is hashed.
struct Writer<'a>(&'a mut Sha256);

impl io::Write for Writer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn broken(snapshot: &LocalSnapshot, found: String) -> Error {
    let LocalSnapshot { collection, file, .. } = snapshot;
    Refused::LocalSnapshotBroken { collection: collection.to_string(), file: file.clone(), found }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, file: &str) {
        let path = dir.join(file);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, file).unwrap();
    }

    #[test]
    fn the_newest_of_each_collection_is_found_by_its_name_or_its_file() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(find(&dir.path().join("absent")).unwrap(), []);
        for file in [
            "docs/docs-7-2026-11-23-06-41-46.snapshot",
            "docs/docs-7-2026-11-24-06-41-46.snapshot",
            "docs/docs-7-2026-11-24-06-41-46.snapshot.checksum",
            "docs/docs-7-2026-11-22-06-41-46.snapshot",
            "faq/by-hand.snapshot",
            "tmp/half-7-2026-11-25-06-41-46.snapshot",
            "qdrant-backup:restore/20261123T051400Z-ab/0.snapshot",
            "full-snapshot-2026-11-23-06-41-46.snapshot",
            "empty/readme.txt",
        ] {
            write(dir.path(), file);
        }
        let found: Vec<String> = find(dir.path()).unwrap().into_iter().map(|found| found.file).collect();
        assert_eq!(found, ["docs/docs-7-2026-11-24-06-41-46.snapshot", "faq/by-hand.snapshot"]);
    }

    #[tokio::test]
    async fn a_snapshot_that_is_not_what_qdrant_hashed_is_not_recovered() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "docs/a.snapshot");
        let snapshot = find(dir.path()).unwrap().remove(0);
        let path = dir.path().join(&snapshot.file);
        let checksum = proved_checksum(&path, &snapshot).await.unwrap();
        assert_eq!(checksum.as_str(), hex::encode(Sha256::digest("docs/a.snapshot")));
        fs_err::write(dir.path().join("docs/a.snapshot.checksum"), checksum.as_str()).unwrap();
        assert_eq!(proved_checksum(&path, &snapshot).await.unwrap(), checksum);
        fs_err::write(&path, "other").unwrap();
        let error = proved_checksum(&path, &snapshot).await.unwrap_err();
        assert_eq!(error.kind(), protocol::FailureKind::VerificationFailed);
        assert!(error.to_string().contains("Qdrant recorded"), "{error}");
    }
}
