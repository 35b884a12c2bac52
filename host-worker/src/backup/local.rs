//! Qdrant's own snapshots on this host's disk: which of them this program made, and which may go.
//!
//! Qdrant has no retention, and a person's snapshots are nobody's to delete: only what the list in the work directory names is ever removed.

use std::path::{Path, PathBuf};

use protocol::CollectionName;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use crate::{error::Error, qdrant};

/// The list of snapshots that this program asked Qdrant for and has not deleted, oldest first.
#[derive(Debug)]
pub(super) struct LocalSnapshots {
    path: PathBuf,
    list: Vec<LocalSnapshot>,
    /// Where those of the backup that runs begin.
    run: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LocalSnapshot {
    collection: CollectionName,
    #[serde(flatten)]
    state: State,
}

/// A snapshot is noted before it is asked for: the job outlives a worker that is killed meanwhile, and what it leaves is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum State {
    /// It was asked for when these were there.
    AskedForBeside(Vec<String>),
    /// Its name.
    Snapshot(String),
}

impl LocalSnapshots {
    /// Reads the list in `work_dir`; there is none before the first backup.
    pub(super) fn open(work_dir: &Path) -> Result<Self, Error> {
        let path = work_dir.join("local-snapshots.json");
        let list: Vec<LocalSnapshot> = match fs_err::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|source| local(&path, "read", source.into()))?
            }
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(local(&path, "read", source)),
        };
        let run = list.len();
        Ok(Self { path, list, run })
    }

    /// Notes that a snapshot is about to be asked for, beside those that are `there`.
    pub(super) fn ask(&mut self, collection: &CollectionName, there: Vec<String>) -> Result<(), Error> {
        self.list.push(LocalSnapshot { collection: collection.clone(), state: State::AskedForBeside(there) });
        self.save()
    }

    /// Notes the name of the snapshot that was asked for last.
    pub(super) fn made(&mut self, snapshot: &str) -> Result<(), Error> {
        if let Some(last) = self.list.last_mut() {
            last.state = State::Snapshot(snapshot.to_owned());
        }
        self.save()
    }

    /// Deletes the snapshots of the backup that runs. Of one that Qdrant is still writing the note stays, for the next backup.
    pub(super) async fn discard_run(&mut self, qdrant: &qdrant::Client) -> Result<(), Error> {
        let running = qdrant.metrics().await?.snapshots_running;
        let mut index = self.run;
        while let Some(LocalSnapshot { collection, state }) = self.list.get(index) {
            if matches!(state, State::AskedForBeside(_)) && running.contains_key(collection.as_str()) {
                index += 1;
            } else {
                self.delete(qdrant, index).await?;
            }
        }
        Ok(())
    }

    /// Deletes all but the newest `keep` snapshots of each collection. What was just uploaded counts as the newest.
    pub(super) async fn rotate(&mut self, qdrant: &qdrant::Client, keep: usize) -> Result<(), Error> {
        let mut index = 0;
        while index < self.list.len() {
            let LocalSnapshot { collection, state } = &self.list[index];
            let newer = self.list[index + 1..].iter().filter(|other| other.collection == *collection).count();
            let torn = matches!(state, State::AskedForBeside(_));
            if torn || newer >= keep {
                self.delete(qdrant, index).await?;
            } else {
                index += 1;
            }
        }
        self.run = self.list.len();
        Ok(())
    }

    async fn delete(&mut self, qdrant: &qdrant::Client, index: usize) -> Result<(), Error> {
        let LocalSnapshot { collection, state } = self.list[index].clone();
        let name = match state {
            State::Snapshot(name) => Some(name),
            State::AskedForBeside(there) => left_behind(qdrant, &collection, &there).await?,
        };
        if let Some(name) = name {
            // Absent is as good as deleted: somebody else was tidier, or the collection went with its snapshots.
            qdrant.delete_snapshot(&collection, &name).await?;
            info!(%collection, snapshot = name, "local snapshot deleted");
        }
        self.list.remove(index);
        self.save()
    }

    fn save(&self) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(&self.list)
            .map_err(|source| local(&self.path, "write", source.into()))?;
        write_durably(&self.path, &bytes)
    }
}

/// The snapshot that a job finished after its worker was gone: the one that was not there before. Of several, one may be a person's, and
/// none is touched.
async fn left_behind(
    qdrant: &qdrant::Client,
    collection: &CollectionName,
    there: &[String],
) -> Result<Option<String>, Error> {
    let listed = match qdrant.snapshots(collection).await {
        Ok(listed) => listed,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut strange: Vec<String> =
        listed.into_iter().map(|info| info.name).filter(|name| !there.contains(name)).collect();
    if strange.len() > 1 {
        warn!(%collection, snapshots = ?strange, "one of these was left by a backup that was killed, the others are not known: delete what is not needed");
        return Ok(None);
    }
    Ok(strange.pop())
}

/// Replaces the file as a whole or not at all: written beside it, synced, renamed.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    use std::io::Write;
    let failed = |source| local(path, "write", source);
    let temporary = path.with_extension("tmp");
    let mut file = fs_err::File::create(&temporary).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs_err::rename(&temporary, path).map_err(failed)?;
    if let Some(parent) = path.parent() {
        fs_err::File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)?;
    }
    Ok(())
}

/// Fails unless the disk of `dir` has `needed` bytes free for this user.
pub(crate) fn require_free(dir: &Path, needed: u64, purpose: &'static str) -> Result<(), Error> {
    let free = free_bytes(dir)?;
    if free < needed { Err(Error::LowDisk { path: dir.to_owned(), free, needed, purpose }) } else { Ok(()) }
}

/// Bytes free for this user on the disk of `dir`.
pub(crate) fn free_bytes(dir: &Path) -> Result<u64, Error> {
    let stat = rustix::fs::statvfs(dir).map_err(|source| local(dir, "look at the disk of", source.into()))?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn local(path: &Path, action: &str, source: std::io::Error) -> Error {
    Error::Local { what: format!("{action} `{}`", path.display()), source }
}
