//! The work of a simulated host: a small Qdrant whose snapshot is a few parts, the real upload with its journal, the real side files and the real hand-over.
//!
//! What is not here is `host-worker`'s own talk with Qdrant, which end-to-end tests drive. The rule by which an interrupted backup is gone on with is
//! the worker's: the same id on the same disk.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use catalog::{Catalog, ObjectStore, store::Condition};
use host_worker::{
    lock::HostLock,
    pulse::{Phase, Pulse},
    task::{Failure, Work},
};
use protocol::{
    AttemptId, BackupId, Envelope, FailureKind, Layout, Manifest, TaskKind,
    key::{self, ArchiveKey},
    manifest::{Archive, FORMAT_VERSION, QdrantServer, Tool},
    task::{Quiesced, Stored},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_util::sync::CancellationToken;
use transfer::{Content, EntrySpec, Geometry, RetryPolicy, Source, Threads, UploadOptions, Uploaded};

use super::{
    ports::{Archives, BUCKET, Documents},
    world::{Actor, World},
};

/// The size of a frame, a part and a range here.
const PART: u32 = 8 << 10;
/// The size of a snapshot: three parts.
const SNAPSHOT: usize = 3 * (PART as usize) - 1000;

/// The work of one process.
#[derive(Debug)]
pub(super) struct SmallWork {
    pub(super) world: World,
    pub(super) actor: Actor,
    pub(super) host: usize,
    pub(super) disk: PathBuf,
}

/// A backup that is captured and not handed over.
#[derive(Serialize, Deserialize)]
struct Unfinished {
    id: BackupId,
    key: ArchiveKey,
}

impl Work for SmallWork {
    async fn run(
        &self,
        envelope: &Envelope,
        _lock: &HostLock,
        pulse: &Pulse,
        cancel: &CancellationToken,
    ) -> Result<Value, Failure> {
        let id = envelope.task.backup;
        match envelope.task.kind {
            TaskKind::Quiesce => {
                pulse.enter(Phase::Quiesce);
                self.qdrant("is anything written?").await?;
                let quiesced = Quiesced { backup_id: id, waited_seconds: 0.0 };
                serde_json::to_value(quiesced).map_err(|error| local(&error))
            }
            TaskKind::Backup => {
                let stored = self.stored(id, pulse, cancel).await?;
                serde_json::to_value(stored).map_err(|error| local(&error))
            }
            TaskKind::Drill => Err(local(&"there are no drills here")),
        }
    }
}

impl SmallWork {
    async fn stored(
        &self,
        id: BackupId,
        pulse: &Pulse,
        cancel: &CancellationToken,
    ) -> Result<Stored, Failure> {
        let waiting = self.disk.join(format!("{id}.manifest.json"));
        let resumed = waiting.exists() || self.unfinished(id)?.is_some();
        let bytes = match fs_err::read(&waiting) {
            Ok(bytes) => bytes,
            Err(_) => self.uploaded(id, pulse, cancel).await?.to_json(),
        };
        fs_err::write(&waiting, &bytes).map_err(|error| local(&error))?;
        let manifest = Manifest::from_json(&bytes).map_err(|error| local(&error))?;
        pulse.enter(Phase::HandOver);
        let catalog = self.catalog();
        catalog.put_side_file(&manifest.key.manifest(), bytes.clone()).await.map_err(failure)?;
        if self.world.state().mutation.worker_publishes {
            let put = catalog.store().put(key::POINTER, bytes.clone().into(), Condition::None);
            put.await.map_err(|error| local(&error))?;
        }
        // From here on the manifest is what a repetition finds.
        let _gone = fs_err::remove_file(self.state_file());
        Ok(Stored {
            backup_id: id,
            manifest_sha256: Manifest::digest(&bytes),
            size_bytes: manifest.size_bytes,
            collections: 0,
            points: 0,
            key: manifest.key,
            read_back: false,
            resumed,
            timings: Vec::new(),
        })
    }

    /// Stores the archive and what goes beside it: that of an interrupted run, or a new one.
    async fn uploaded(
        &self,
        id: BackupId,
        pulse: &Pulse,
        cancel: &CancellationToken,
    ) -> Result<Manifest, Failure> {
        let archives = Archives { world: self.world.clone(), actor: self.actor.clone(), host: self.host };
        let journal = self.disk.join("upload.journal");
        let unfinished = match self.unfinished(id)? {
            Some(unfinished) => unfinished,
            None => {
                transfer::abandon(&archives, &journal, RetryPolicy::STANDARD).await;
                self.captured(id, pulse).await?
            }
        };
        pulse.enter(Phase::Upload);
        let snapshot = fs_err::read(self.snapshot_file()).map_err(|error| local(&error))?;
        let description = json!({ "backup_id": id }).to_string().into_bytes();
        let sources = vec![
            Source {
                entry: EntrySpec {
                    name: "snapshots/docs/docs.snapshot".to_owned(),
                    size: snapshot.len() as u64,
                },
                content: Content::File(self.snapshot_file()),
                expected_sha256: Some(Sha256::digest(&snapshot).into()),
            },
            Source {
                entry: EntrySpec { name: key::BACKUP_JSON.to_owned(), size: description.len() as u64 },
                content: Content::Bytes(description.into()),
                expected_sha256: None,
            },
        ];
        let mut options = UploadOptions::new(4 << 20);
        options.threads = Threads::Inline;
        options.concurrency = Some(1);
        options.geometry =
            Geometry { frame_raw_max: PART, part_size: Some(PART.into()), range_size: PART.into() };
        options.metadata = vec![("backup-id".to_owned(), id.to_string())];
        options.journal = Some(journal);
        options.cancel = cancel.clone();
        let name = unfinished.key.to_string();
        let uploaded = transfer::upload(&archives, &name, sources, options).await;
        let uploaded = match uploaded {
            Ok(uploaded) => uploaded,
            Err(error) => {
                if !error.is_resumable() {
                    let _gone = fs_err::remove_file(self.state_file());
                }
                return Err(Failure { kind: error.kind(), cause: error.to_string() });
            }
        };
        pulse.enter(Phase::SideFiles);
        let catalog = self.catalog();
        let key = &unfinished.key;
        catalog.put_side_file(&key.sha256(), uploaded.sha256.clone().into_bytes()).await.map_err(failure)?;
        catalog.put_side_file(&key.frames(), uploaded.index.to_json_zst()).await.map_err(failure)?;
        catalog.put_side_file(&key.golden(), b"golden".to_vec()).await.map_err(failure)?;
        Ok(self.manifest(id, key, &uploaded))
    }

    /// Takes a snapshot, and keeps on the disk what is needed to store it.
    async fn captured(&self, id: BackupId, pulse: &Pulse) -> Result<Unfinished, Failure> {
        pulse.enter(Phase::Snapshot);
        self.qdrant("make a snapshot").await?;
        let (seed, attempt) = {
            let mut state = self.world.state();
            state.snapshots += 1;
            if !state.mutation.one_key {
                state.attempts += 1;
            }
            (state.snapshots, state.attempts)
        };
        fs_err::write(self.snapshot_file(), noise(seed)).map_err(|error| local(&error))?;
        let key = layout().archive(id, AttemptId::from_bits(attempt));
        let unfinished = Unfinished { id, key };
        let bytes = serde_json::to_vec(&unfinished).map_err(|error| local(&error))?;
        fs_err::write(self.state_file(), bytes).map_err(|error| local(&error))?;
        Ok(unfinished)
    }

    fn unfinished(&self, id: BackupId) -> Result<Option<Unfinished>, Failure> {
        let Ok(bytes) = fs_err::read(self.state_file()) else { return Ok(None) };
        let unfinished: Unfinished = serde_json::from_slice(&bytes).map_err(|error| local(&error))?;
        Ok((unfinished.id == id).then_some(unfinished))
    }

    async fn qdrant(&self, what: &str) -> Result<(), Failure> {
        let lost = || {
            Err(Failure { kind: FailureKind::QdrantUnavailable, cause: "no answer, as planned".to_owned() })
        };
        self.world.call(&self.actor, format!("qdrant: {what}"), || async { Ok(()) }, lost).await
    }

    fn catalog(&self) -> Catalog<Documents> {
        let documents = Documents { world: self.world.clone(), actor: self.actor.clone() };
        Catalog::new(documents, BUCKET, layout())
    }

    fn manifest(&self, id: BackupId, key: &ArchiveKey, uploaded: &Uploaded) -> Manifest {
        Manifest {
            backup_and_restore_path: "/workspace/qdrant/data/".to_owned(),
            latest_snapshot: key.file_name(),
            latest_snapshot_from_path: "/workspace/qdrant/snapshots".to_owned(),
            latest_snapshot_to_path: format!("s3://{BUCKET}/{key}"),
            latest_snapshot_size_in_mb: 0.0,
            multipart_upload_concurrency: uploaded.concurrency,
            latest_snapshot_upload_duration_in_seconds: 0.0,
            format_version: FORMAT_VERSION,
            backup_id: id,
            created_at: self.world.clock().now(),
            key: key.clone(),
            size_bytes: uploaded.size_bytes,
            sha256: uploaded.sha256.clone(),
            crc64nvme: uploaded.crc64nvme.clone(),
            version_id: uploaded.version_id.clone(),
            archive: Archive {
                raw_bytes: uploaded.raw_bytes,
                frame_count: uploaded.index.frames.len() as u64,
                frames_root: uploaded.index.root_hex(),
                golden_sha256: hex::encode(Sha256::digest(b"golden")),
                entries: uploaded.entries.clone(),
            },
            qdrant: QdrantServer { version: "1.18.3".to_owned(), image: None },
            collections: Vec::new(),
            aliases: BTreeMap::new(),
            quiesced: true,
            indexing: None,
            origin: None,
            partial: false,
            timings: Vec::new(),
            tool: Tool { name: "simulation".to_owned(), version: "0".to_owned() },
            previous: None,
        }
    }

    fn state_file(&self) -> PathBuf {
        self.disk.join("unfinished.json")
    }

    fn snapshot_file(&self) -> PathBuf {
        self.disk.join("docs.snapshot")
    }
}

/// Where the objects are.
pub(super) fn layout() -> Layout {
    Layout::new(default_prefix())
}

#[expect(clippy::expect_used, reason = "the default of the protocol follows the protocol's rule")]
fn default_prefix() -> protocol::key::Prefix {
    key::DEFAULT_PREFIX.parse().expect("the default prefix is one")
}

/// Bytes that do not compress, a function of `seed`.
fn noise(seed: u64) -> Vec<u8> {
    let block = |number: u64| Sha256::digest([seed.to_le_bytes(), number.to_le_bytes()].concat());
    (0..).flat_map(block).take(SNAPSHOT).collect()
}

fn failure(error: catalog::Error) -> Failure {
    Failure { kind: error.kind(), cause: error.to_string() }
}

fn local(error: &impl ToString) -> Failure {
    Failure { kind: FailureKind::Internal, cause: error.to_string() }
}

/// The work directory of the worker on a disk.
pub(super) fn work_dir(disk: &Path) -> PathBuf {
    disk.join("work")
}
