//! A backup that is captured and not in the catalogue yet, as this host's disk keeps it.
//!
//! Whoever is killed, stopped or cut off from the store leaves it behind, and the next backup goes on with it: the same
//! snapshots, the same golden set, the same description byte by byte, and so the same archive under the same key.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use protocol::{
    BackupId, CollectionName, SuccessMarker,
    key::ArchiveKey,
    manifest::{BackupDescription, Origin, Tool},
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tracing::{info, warn};
use transfer::RetryPolicy;

use super::{
    local::{local, write_durably},
    order::Order,
    pack::tool,
    waiting::manifest_path,
};
use crate::{error::Error, origin, qdrant::Checksum, session::Session};

/// How long after its begin a backup is still gone on with. The retries of a workflow come within the hour and a person's within the shift;
/// tomorrow's backup should be of tomorrow's data.
const RESUMED_WITHIN: SignedDuration = SignedDuration::from_hours(6);
/// How far ahead of the clock a backup may have begun. One from further ahead could not be published: see `catalog`.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(5);

/// All that is needed to store a backup whose snapshots are on the disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Prepared {
    /// What was asked for.
    request: Request,
    /// The attempt's key.
    pub(super) key: ArchiveKey,
    /// What the archive says about itself, frozen before its first byte goes.
    pub(super) description: BackupDescription,
    /// The snapshots, in the order of the description's collections.
    pub(super) snapshots: Vec<SnapshotFile>,
    /// SHA-256 of the golden set's file.
    golden_sha256: String,
    /// The golden set, as it is stored beside the archive.
    #[serde(skip)]
    pub(super) golden: Vec<u8>,
    /// Whether an earlier run has prepared it.
    #[serde(skip)]
    pub(super) resumed: bool,
}

/// A snapshot on this host's disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct SnapshotFile {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    pub(super) sha256: String,
}

/// What a backup was asked for. Another wish is another backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Request {
    bucket: String,
    collections: Vec<CollectionName>,
    level: Option<i32>,
    /// Whether to wait until nothing is being written.
    quiesce: bool,
}

impl Request {
    pub(super) fn new(session: &Session, order: &Order) -> Self {
        let bucket = session.catalog.bucket().to_owned();
        let collections = order.collections.clone();
        Self { bucket, collections, level: order.level, quiesce: order.quiesce.is_some() }
    }

    /// Whether only some collections are wanted.
    pub(super) fn is_partial(&self) -> bool {
        !self.collections.is_empty()
    }
}

impl Prepared {
    pub(super) fn new(
        request: Request,
        key: ArchiveKey,
        description: BackupDescription,
        snapshots: Vec<SnapshotFile>,
        golden: Vec<u8>,
    ) -> Self {
        let golden_sha256 = hex::encode(Sha256::digest(&golden));
        Self { request, key, description, snapshots, golden_sha256, golden, resumed: false }
    }

    pub(super) fn id(&self) -> BackupId {
        self.description.backup_id
    }

    /// Why the backup is not gone on with; `None` if it is.
    fn obstacle(&self, today: &Today, stored: bool) -> Option<String> {
        let age = today.now.duration_since(self.description.created_at);
        let batch = |marker: Option<&SuccessMarker>| marker.map(|marker| marker.batch_id.clone());
        if let Some(id) = today.id.filter(|id| *id != self.id()) {
            Some(format!("backup {id} is asked for"))
        } else if self.description.tool != today.tool {
            Some(format!("version {} began it", self.description.tool.version))
        } else if self.request != today.request {
            Some("another bucket, level or quiescence, or other collections, are asked for".to_owned())
        } else if age > RESUMED_WITHIN {
            Some(format!("it began {:.1} hours ago", age.as_secs_f64() / 3600.0))
        } else if age < -CLOCK_TOLERANCE {
            Some("by this host's clock, which was set back, it begins in the future".to_owned())
        } else if batch(self.description.indexing.as_ref()) != batch(today.marker.as_ref()) {
            Some("the indexing job has marked another batch since".to_owned())
        } else if self.description.origin != today.origin {
            Some("this host was restored, or acknowledged, since".to_owned())
        } else if stored {
            None
        } else {
            let gone = self.snapshots.iter().find(|snapshot| {
                fs_err::metadata(&snapshot.path).map(|metadata| metadata.len()).ok() != Some(snapshot.size)
            })?;
            Some(format!("the snapshot `{}` is not there any more", gone.path.display()))
        }
    }
}

/// What an unfinished backup is held against.
pub(super) struct Today {
    /// The id that is asked for, where one is.
    id: Option<BackupId>,
    pub(super) request: Request,
    pub(super) marker: Option<SuccessMarker>,
    /// When this run began, by this host's clock.
    pub(super) now: Timestamp,
    /// The same moment, by a clock that nobody sets.
    since: Instant,
    origin: Option<Origin>,
    tool: Tool,
}

impl Today {
    pub(super) fn new(
        session: &Session,
        order: &Order,
        marker: Option<SuccessMarker>,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let origin = origin::read(&session.config.work_dir())?;
        let (id, request) = (order.id, Request::new(session, order));
        Ok(Self { id, request, marker, now, since: Instant::now(), origin, tool: tool() })
    }

    /// What time it is, by this host's clock as it was when this run began.
    pub(super) fn time(&self) -> Timestamp {
        self.now.saturating_add(self.since.elapsed()).unwrap_or(self.now)
    }
}

/// The place of an unfinished backup.
#[derive(Debug)]
pub(super) struct Unfinished {
    work_dir: PathBuf,
    dir: PathBuf,
}

impl Unfinished {
    pub(super) fn of(work_dir: &Path) -> Self {
        Self { work_dir: work_dir.to_owned(), dir: work_dir.join("unfinished") }
    }

    /// The journal of the upload.
    pub(super) fn journal(&self) -> PathBuf {
        self.dir.join("upload.journal")
    }

    /// The backup that an earlier run has left, if there is one that can be read.
    pub(super) fn id(&self) -> Option<BackupId> {
        self.read().ok().flatten().map(|prepared| prepared.id())
    }

    /// Keeps a backup until it is in the catalogue, or handed over to whoever puts it there.
    pub(super) fn keep(&self, prepared: &Prepared) -> Result<(), Error> {
        fs_err::create_dir_all(&self.dir).map_err(|source| local(&self.dir, "create", source))?;
        write_durably(&self.golden(), &prepared.golden)?;
        let state =
            serde_json::to_vec(prepared).map_err(|source| local(&self.state(), "write", source.into()))?;
        write_durably(&self.state(), &state)
    }

    /// The backup that an earlier run has left, if it is still what is wanted `today`. Otherwise it is put away.
    pub(super) async fn take_up(&self, session: &Session, fresh: bool, today: &Today) -> Option<Prepared> {
        let prepared = match self.read() {
            Ok(prepared) => prepared?,
            Err(error) => {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "an interrupted backup cannot be read: beginning anew"
                );
                self.put_away(session).await;
                return None;
            }
        };
        let stored = manifest_path(&self.work_dir, prepared.id()).exists();
        let obstacle = if fresh {
            Some("a fresh one is asked for".to_owned())
        } else {
            prepared.obstacle(today, stored)
        };
        match obstacle {
            None => {
                info!(backup = %prepared.id(), "an interrupted backup goes on");
                Some(Prepared { resumed: true, ..prepared })
            }
            Some(why) => {
                info!(backup = %prepared.id(), why, "an interrupted backup is given up: beginning anew");
                self.put_away(session).await;
                None
            }
        }
    }

    /// Aborts the upload of a backup that will not be, and forgets the backup.
    pub(super) async fn put_away(&self, session: &Session) {
        let journal = self.journal();
        let abandon = transfer::abandon(&session.objects, &journal, RetryPolicy::STANDARD);
        if session.unless_cancelled(abandon).await.is_err() {
            return;
        }
        // A journal that is still there is of an upload that could not be aborted: the upload that takes its place tries again.
        let forgotten = if journal.exists() { self.forget_state() } else { self.forget_all() };
        told(forgotten);
    }

    /// Forgets a backup that is in the catalogue, or handed over, or will never be. What cannot be removed is found out about by the next backup.
    pub(super) fn forget(&self) {
        told(self.forget_all());
    }

    fn forget_all(&self) -> std::io::Result<()> {
        // First what makes it a backup that can be gone on with.
        self.forget_state()?;
        absent(fs_err::remove_dir_all(&self.dir))
    }

    fn forget_state(&self) -> std::io::Result<()> {
        absent(fs_err::remove_file(self.state()))
    }

    fn read(&self) -> Result<Option<Prepared>, Error> {
        let path = self.state();
        let bytes = match fs_err::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(local(&path, "read", source)),
        };
        let mut prepared: Prepared =
            serde_json::from_slice(&bytes).map_err(|source| local(&path, "read", source.into()))?;
        let golden = self.golden();
        prepared.golden = fs_err::read(&golden).map_err(|source| local(&golden, "read", source))?;
        if hex::encode(Sha256::digest(&prepared.golden)) != prepared.golden_sha256 {
            return Err(local(&golden, "read", std::io::Error::other("it is not what was written")));
        }
        Ok(Some(prepared))
    }

    fn state(&self) -> PathBuf {
        self.dir.join("backup.json")
    }

    fn golden(&self) -> PathBuf {
        self.dir.join("golden.json.zst")
    }
}

/// What is not there is as good as removed.
fn absent(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn told(forgotten: std::io::Result<()>) {
    if let Err(error) = forgotten {
        warn!(error = &error as &dyn std::error::Error, "what a backup needed stays on the disk");
    }
}

impl SnapshotFile {
    pub(super) fn new(path: PathBuf, size: u64, sha256: &Checksum) -> Self {
        Self { path, size, sha256: sha256.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use protocol::manifest::{self, QdrantServer};

    use super::*;

    fn prepared(dir: &Path) -> Prepared {
        let path = dir.join("a.snapshot");
        fs_err::write(&path, b"four").unwrap();
        let at: Timestamp = "2026-11-23T05:14:00Z".parse().unwrap();
        let request = Request { bucket: "b".to_owned(), collections: Vec::new(), level: None, quiesce: true };
        let description = BackupDescription {
            format_version: manifest::FORMAT_VERSION,
            backup_id: BackupId::from_time(at).unwrap(),
            created_at: at,
            qdrant: QdrantServer { version: "1.18.3".to_owned(), image: None },
            collections: Vec::new(),
            aliases: std::collections::BTreeMap::new(),
            quiesced: true,
            indexing: None,
            origin: None,
            partial: false,
            tool: tool(),
        };
        let key = "qdrant/backups/qdrant_snapshot_20261123T051400Z-0badcafe.tar.zst".parse().unwrap();
        let snapshots = vec![SnapshotFile { path, size: 4, sha256: "ab".repeat(32) }];
        Prepared::new(request, key, description, snapshots, b"golden".to_vec())
    }

    fn today(prepared: &Prepared, hours: i64) -> Today {
        Today {
            id: None,
            since: Instant::now(),
            request: prepared.request.clone(),
            marker: None,
            now: prepared.description.created_at + SignedDuration::from_hours(hours),
            origin: None,
            tool: tool(),
        }
    }

    fn marker(batch: &str) -> SuccessMarker {
        let json = format!(r#"{{"batch_id":"{batch}","finished_at":"2026-11-23T05:00:00Z"}}"#);
        SuccessMarker::from_json(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_backup_is_gone_on_with_while_it_is_what_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let prepared = prepared(dir.path());
        let of = |change: &dyn Fn(&mut Today)| {
            let mut today = today(&prepared, 1);
            change(&mut today);
            prepared.obstacle(&today, false)
        };
        assert_eq!(of(&|_| {}), None);
        let begin = prepared.description.created_at;
        for (seconds, resumed) in [
            (0, true),
            (6 * 3600, true),
            (6 * 3600 + 1, false),
            (-300, true),
            (-301, false),
            (9_000_000, false),
        ] {
            let found = of(&|today| today.now = begin + SignedDuration::from_secs(seconds));
            assert_eq!(found.is_none(), resumed, "{seconds}: {found:?}");
        }
        let says = |found: Option<String>, text: &str| assert!(found.unwrap().contains(text), "{text}");
        assert_eq!(of(&|today| today.id = Some(prepared.id())), None);
        let other = "20261123T051401Z".parse().unwrap();
        says(of(&|today| today.id = Some(other)), "backup 20261123T051401Z is asked for");
        says(of(&|today| today.request.level = Some(1)), "asked for");
        says(of(&|today| today.request.quiesce = false), "asked for");
        says(of(&|today| today.request.bucket = "c".to_owned()), "asked for");
        says(of(&|today| today.marker = Some(marker("7"))), "another batch");
        says(of(&|today| today.origin = Some(Origin { backup_id: None, degraded: true })), "was restored");
        says(of(&|today| today.tool.version = "9.9.9".to_owned()), "began it");

        fs_err::write(&prepared.snapshots[0].path, b"fives").unwrap();
        says(of(&|_| {}), "is not there any more");
        fs_err::remove_file(&prepared.snapshots[0].path).unwrap();
        says(of(&|_| {}), "is not there any more");
        assert_eq!(prepared.obstacle(&today(&prepared, 1), true), None, "what is stored needs no snapshots");
    }

    #[test]
    fn what_is_kept_is_read_again_and_damage_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let unfinished = Unfinished::of(dir.path());
        assert!(unfinished.read().unwrap().is_none());
        let kept = prepared(dir.path());
        unfinished.keep(&kept).unwrap();
        let read = unfinished.read().unwrap().unwrap();
        assert_eq!((&read.key, &read.golden, read.resumed), (&kept.key, &kept.golden, false));
        assert_eq!(read.description.to_json(), kept.description.to_json());

        fs_err::write(unfinished.golden(), b"other").unwrap();
        assert!(unfinished.read().is_err());
        unfinished.keep(&kept).unwrap();
        fs_err::write(unfinished.state(), b"{\"key\":").unwrap();
        assert!(unfinished.read().is_err());
        unfinished.forget();
        assert!(unfinished.read().unwrap().is_none() && !unfinished.dir.exists());
        unfinished.forget();
    }
}
