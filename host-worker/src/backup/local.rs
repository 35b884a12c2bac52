//! Qdrant's own snapshots on this host's disk: which of them this program made, and which may go.
//!
//! Qdrant has no retention, and a person's snapshots are nobody's to delete: only what the list in the work directory names is ever removed.

use std::path::{Path, PathBuf};

use jiff::{Timestamp, tz::TimeZone};
use protocol::CollectionName;
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::{
    error::Error,
    qdrant::{self, CreatedSnapshot},
};

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
    /// It was asked for at this time.
    AskedAt(Timestamp),
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

    /// Notes that a snapshot is about to be asked for.
    pub(super) fn ask(&mut self, collection: &CollectionName, now: Timestamp) -> Result<(), Error> {
        self.list.push(LocalSnapshot { collection: collection.clone(), state: State::AskedAt(now) });
        self.save()
    }

    /// Notes the snapshot that was asked for last. One that already ran is ours only if an earlier backup of this program asked for it.
    pub(super) fn made(&mut self, made: &CreatedSnapshot) -> Result<(), Error> {
        let Some(mut last) = self.list.pop() else { return Ok(()) };
        let torn = |entry: &LocalSnapshot| {
            entry.collection == last.collection && matches!(entry.state, State::AskedAt(_))
        };
        if made.adopted && !self.list.iter().any(torn) {
            info!(collection = %last.collection, snapshot = made.name, "the snapshot was somebody else's and stays");
        } else {
            last.state = State::Snapshot(made.name.clone());
            self.list.push(last);
        }
        self.save()
    }

    /// Deletes the snapshots of the backup that runs.
    pub(super) async fn discard_run(&mut self, qdrant: &qdrant::Client) -> Result<(), Error> {
        self.delete_where(qdrant, |list, run, index| {
            index >= run || matches!(list[index].state, State::AskedAt(_))
        })
        .await
    }

    /// Deletes all but the newest `keep` snapshots of each collection. What was just uploaded counts as the newest.
    pub(super) async fn rotate(&mut self, qdrant: &qdrant::Client, keep: usize) -> Result<(), Error> {
        self.delete_where(qdrant, |list, _, index| match &list[index].state {
            State::AskedAt(_) => true,
            State::Snapshot(_) => {
                let same = |other: &&LocalSnapshot| {
                    other.collection == list[index].collection && matches!(other.state, State::Snapshot(_))
                };
                list[index + 1..].iter().filter(same).count() >= keep
            }
        })
        .await?;
        self.run = self.list.len();
        Ok(())
    }

    /// Deletes what `doomed` (list, first of this run, index) says. A snapshot that Qdrant is still writing keeps its note, for the next time.
    async fn delete_where(
        &mut self,
        qdrant: &qdrant::Client,
        doomed: impl Fn(&[LocalSnapshot], usize, usize) -> bool,
    ) -> Result<(), Error> {
        if self.list.is_empty() {
            return Ok(());
        }
        let running = qdrant.metrics().await?.snapshots_running;
        let mut index = 0;
        while index < self.list.len() {
            let LocalSnapshot { collection, state } = self.list[index].clone();
            let being_written =
                matches!(state, State::AskedAt(_)) && running.contains_key(collection.as_str());
            if being_written || !doomed(&self.list, self.run, index) {
                index += 1;
                continue;
            }
            let name = match state {
                State::Snapshot(name) => Some(name),
                State::AskedAt(asked) => self.left_behind(qdrant, &collection, asked).await?,
            };
            if let Some(name) = name {
                // Absent is as good as deleted: somebody else was tidier.
                qdrant.delete_snapshot(&collection, &name).await?;
                info!(%collection, snapshot = name, "local snapshot deleted");
            }
            self.list.remove(index);
            if index < self.run {
                self.run -= 1;
            }
            self.save()?;
        }
        Ok(())
    }

    /// The snapshot that a job finished after its worker was gone: the one whose name says that it was begun when ours was asked for.
    async fn left_behind(
        &self,
        qdrant: &qdrant::Client,
        collection: &CollectionName,
        asked: Timestamp,
    ) -> Result<Option<String>, Error> {
        let listed = match qdrant.snapshots(collection).await {
            Ok(listed) => listed,
            Err(error) if error.is_not_found() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let known =
            |name: &String| self.list.iter().any(|entry| entry.state == State::Snapshot(name.clone()));
        let ours = |name: &String| begun_at(name).is_some_and(|begun| is_soon_after(begun, asked));
        Ok(listed.into_iter().map(|info| info.name).find(|name| ours(name) && !known(name)))
    }

    fn save(&self) -> Result<(), Error> {
        let bytes = serde_json::to_vec_pretty(&self.list)
            .map_err(|source| local(&self.path, "write", source.into()))?;
        write_durably(&self.path, &bytes)
    }
}

/// When Qdrant began a snapshot, as its name says: `<collection>-<peer>-2026-11-23-05-14-00.snapshot`, in UTC.
pub(crate) fn begun_at(snapshot: &str) -> Option<Timestamp> {
    const STAMP: usize = "2026-11-23-05-14-00".len();
    let stem = snapshot.strip_suffix(".snapshot")?;
    let stamp = stem.get(stem.len().checked_sub(STAMP)?..)?;
    let time = jiff::civil::DateTime::strptime("%Y-%m-%d-%H-%M-%S", stamp).ok()?;
    Some(time.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Qdrant names a snapshot when it begins it, which is at once; its name has whole seconds. A person's snapshot of the same minute would
/// be taken for ours, which the host's lock makes unlikely enough.
fn is_soon_after(begun: Timestamp, asked: Timestamp) -> bool {
    (-1..=60).contains(&(begun.as_second() - asked.as_second()))
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

pub(crate) fn local(path: &Path, action: &str, source: std::io::Error) -> Error {
    Error::Local { what: format!("{action} `{}`", path.display()), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshots_name_says_when_it_was_begun() {
        let begun = begun_at("docs-2-7123578331081622-2026-11-23-06-41-46.snapshot").unwrap();
        assert_eq!(begun.to_string(), "2026-11-23T06:41:46Z");
        for other in [
            "by-hand.snapshot",
            "docs-2026-13-23-06-41-46.snapshot",
            "docs-7-2026-11-23-06-41-46.tar",
            ".snapshot",
        ] {
            assert_eq!(begun_at(other), None, "{other}");
        }
        let asked: Timestamp = "2026-11-23T06:41:46.9Z".parse().unwrap();
        assert!(is_soon_after(begun, asked));
        assert!(!is_soon_after("2026-11-23T06:43:00Z".parse().unwrap(), asked), "that one a person took");
        assert!(!is_soon_after("2026-11-23T06:40:00Z".parse().unwrap(), asked));
    }

    #[test]
    fn an_adopted_snapshot_is_ours_only_if_we_had_asked_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let (docs, now) = ("docs".parse().unwrap(), Timestamp::UNIX_EPOCH);
        let checksum = "ab".repeat(32).parse().unwrap();
        let adopted = CreatedSnapshot { name: "a.snapshot".to_owned(), size: 1, checksum, adopted: true };
        let mut list = LocalSnapshots::open(dir.path()).unwrap();
        list.ask(&docs, now).unwrap();
        list.made(&adopted).unwrap();
        assert_eq!(list.list, [], "a person's");
        list.ask(&docs, now).unwrap();
        let mut list = LocalSnapshots::open(dir.path()).unwrap();
        assert_eq!(list.list.len(), 1, "the note outlives its worker");
        list.ask(&docs, now).unwrap();
        list.made(&adopted).unwrap();
        assert_eq!(list.list[1].state, State::Snapshot("a.snapshot".to_owned()));
    }
}
