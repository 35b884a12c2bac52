//! The running server: collections, aliases, jobs, and the switch that kills it.

use super::collection::Collection;
use super::config::Config;
use super::faults::{Change, Faults};
use super::operation::Op;
use super::reply::ApiError;
use super::service::{CallLog, Counters, SnapshotCounters};
use super::{lock, mix, read, write};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a stand-in is, fixed for its whole life.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) version: String,
    pub(super) commit: String,
    pub(super) api_key: Option<String>,
    pub(super) read_only_key: Option<String>,
    pub(super) storage_dir: PathBuf,
    pub(super) snapshots_dir: PathBuf,
    pub(super) snapshot_bytes_per_second: Option<u64>,
    pub(super) wal_bytes: u64,
    pub(super) background_replay: bool,
    pub(super) grey_after_restart: bool,
}

#[derive(Debug, Default)]
pub(super) struct Catalog {
    pub(super) collections: BTreeMap<String, Arc<Collection>>,
    pub(super) aliases: BTreeMap<String, String>,
}

impl Catalog {
    /// Follows an alias; a name that is none stays what it is.
    pub(super) fn resolve<'a>(&'a self, name: &'a str) -> &'a str {
        if self.collections.contains_key(name) {
            return name;
        }
        self.aliases.get(name).map_or(name, String::as_str)
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Collection>> {
        self.collections.get(self.resolve(name))
    }
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) settings: Settings,
    pub(super) faults: Faults,
    pub(super) calls: CallLog,
    pub(super) counters: Counters,
    pub(super) snapshot_counters: Mutex<BTreeMap<String, SnapshotCounters>>,
    catalog: RwLock<Catalog>,
    jobs: Mutex<JoinSet<()>>,
    /// Cancelled when the server is killed, from outside or by a fault.
    pub(super) death: CancellationToken,
    pub(super) started_at: jiff::Timestamp,
    /// In every snapshot's name; the same for the life of a storage directory.
    pub(super) peer_id: u64,
    /// Identifies the process in the telemetry.
    pub(super) process_id: uuid::Uuid,
}

impl Node {
    pub(super) fn new(
        settings: Settings,
        faults: Faults,
        calls: CallLog,
        catalog: Catalog,
        peer_id: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            settings,
            faults,
            calls,
            counters: Counters::default(),
            snapshot_counters: Mutex::default(),
            catalog: RwLock::new(catalog),
            jobs: Mutex::default(),
            death: CancellationToken::new(),
            started_at: jiff::Timestamp::now(),
            peer_id,
            process_id: uuid::Uuid::from_u64_pair(mix(peer_id), mix(!peer_id)),
        })
    }

    pub(super) fn catalog<T>(&self, look: impl FnOnce(&Catalog) -> T) -> T {
        look(&read(&self.catalog))
    }

    /// Changes collections or aliases, all at once for every reader, and keeps the result on disk.
    pub(super) fn change_catalog<T>(
        &self,
        change: impl FnOnce(&mut Catalog) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        let mut catalog = write(&self.catalog);
        let result = change(&mut catalog);
        // What was changed before an error stays changed, on disk as in memory.
        super::persistence::save_catalog(&self.settings.storage_dir, self.peer_id, &catalog)?;
        result
    }

    /// A collection by its name or alias.
    pub(super) fn collection(&self, name: &str) -> Result<Arc<Collection>, ApiError> {
        self.catalog(|catalog| catalog.get(name).cloned()).ok_or_else(|| missing(name))
    }

    /// One entry per collection, and per name that a snapshot or recovery was asked for.
    pub(super) fn snapshot_counters(&self) -> BTreeMap<String, SnapshotCounters> {
        let mut counters = lock(&self.snapshot_counters).clone();
        for collection in self.collections() {
            counters.entry(collection.name.clone()).or_default();
        }
        counters
    }

    pub(super) fn collections(&self) -> Vec<Arc<Collection>> {
        self.catalog(|catalog| catalog.collections.values().cloned().collect())
    }

    pub(super) fn create(&self, name: &str, body: &Map<String, Value>) -> Result<(), ApiError> {
        let taken = self.catalog(|catalog| catalog.collections.len());
        let uuid = uuid::Uuid::from_u64_pair(mix(self.peer_id), mix(super::len_u64(taken)));
        self.insert(name, Config::create(body, uuid.to_string())?)
    }

    pub(super) fn insert(&self, name: &str, config: Config) -> Result<(), ApiError> {
        if let Some(why) = self.faults.recovery_mode() {
            return Err(ApiError::service(format!("Failed to Create collection,  {why}")));
        }
        let collection = Collection::new(name, config)?;
        self.change_catalog(|catalog| {
            if catalog.collections.contains_key(name) {
                return Err(ApiError::already_exists(format!("Collection `{name}` already exists!")));
            }
            if catalog.aliases.contains_key(name) {
                return Err(ApiError::bad_input(format!(
                    "Can't create collection with name {name}. Alias with the same name already exists"
                )));
            }
            catalog.collections.insert(name.to_owned(), collection);
            Ok(())
        })
    }

    /// True when it was there. Its aliases go with it, its snapshot files stay.
    pub(super) fn delete(&self, name: &str) -> Result<bool, ApiError> {
        let existed = self.change_catalog(|catalog| {
            catalog.aliases.retain(|_, collection| collection != name);
            Ok(catalog.collections.remove(name).is_some())
        })?;
        super::persistence::remove_collection(&self.settings.storage_dir, name)?;
        Ok(existed)
    }

    /// Applies an update as the queue would: at once, or later when the queue is slow and nobody waits.
    /// Answers the operation's number and whether it is done.
    pub(super) fn update(
        self: &Arc<Self>,
        collection: &Arc<Collection>,
        op: Op,
        wait: bool,
    ) -> Result<(u64, bool), ApiError> {
        if self.faults.disk_full() {
            return Err(ApiError::service(
                "No space left on device: WAL buffer size exceeds available disk space",
            ));
        }
        collection.set_grey(false);
        let slow = self.faults.queue_slow(&collection.name);
        let mut inner = collection.write();
        let shard = inner.shard_mut("Update Points")?;
        match slow {
            Some(each) if !wait => {
                let number = shard.enqueue(op);
                if shard.pending.len() == 1 {
                    let job = drain_slowly(Arc::clone(collection), each);
                    self.spawn(job);
                }
                Ok((number, false))
            }
            Some(_) | None => shard.apply(op).map(|number| (number, wait)),
        }
    }

    /// Runs a job that outlives the request that started it, but not the server.
    pub(super) fn spawn(&self, job: impl Future<Output = ()> + Send + 'static) {
        let mut jobs = lock(&self.jobs);
        while jobs.try_join_next().is_some() {}
        if !self.death.is_cancelled() {
            jobs.spawn(job);
        }
    }

    /// Ends every job where it stands.
    pub(super) async fn end_jobs(&self) {
        let mut jobs = std::mem::take(&mut *lock(&self.jobs));
        jobs.shutdown().await;
    }

    /// As by SIGKILL. The caller is a job or a request and will be dropped.
    pub(super) async fn die(&self) {
        self.death.cancel();
        std::future::pending::<()>().await;
    }

    pub(super) fn apply_change(self: &Arc<Self>, change: &Change) -> Result<(), ApiError> {
        match change {
            Change::Create(name, body) => self.create(name, &body.as_object().cloned().unwrap_or_default()),
            Change::Drop(name) => self.delete(name).map(|_| ()),
            Change::Aliases(body) => super::aliases::apply(self, body.clone()),
            Change::Upsert(name, body) => {
                let collection = self.collection(name)?;
                let op = super::points::parse_upsert(&collection, body.clone())?;
                self.update(&collection, op, true).map(|_| ())
            }
        }
    }

    pub(super) fn collection_snapshots(&self, name: &str) -> PathBuf {
        self.settings.snapshots_dir.join(name)
    }

    pub(super) fn temp_dir(&self) -> PathBuf {
        temp_dir(&self.settings.storage_dir)
    }
}

/// `storage/tmp`: emptied at every start.
pub(super) fn temp_dir(storage_dir: &Path) -> PathBuf {
    storage_dir.join("tmp")
}

pub(super) fn missing(name: &str) -> ApiError {
    ApiError::not_found(format!("Collection `{name}` doesn't exist!"))
}

/// Applies what is pending, one operation after the other.
pub(super) async fn drain_slowly(collection: Arc<Collection>, each: Duration) {
    loop {
        tokio::time::sleep(each).await;
        let mut inner = collection.write();
        let Ok(shard) = inner.shard_mut("Update Points") else {
            return;
        };
        if !shard.step() || shard.pending.is_empty() {
            return;
        }
    }
}
