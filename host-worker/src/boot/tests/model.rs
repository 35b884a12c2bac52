//! A host and everything around it, in memory: what a power cut takes, and what it leaves. Whatever must never happen panics where it would.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    rc::Rc,
    time::Duration,
};

use futures::FutureExt;
use jiff::Timestamp;
use protocol::{BackupId, FailureKind, Verdict};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    boot::{
        BootResult, Host, Image, Order, Refused, Timing, Wanted, boot,
        record::{LocalSnapshot, Record, Rejected, Source, Step},
        sequence::LOOPBACK,
        warm_up::{WarmUp, Warmth},
    },
    cli::BootArgs,
    config::HostRole,
    error::Error,
    machine::{self, Addresses, Container, Disks, FileSystem, Launch, Lifecycle, Prepared},
    qdrant::{self, Cause, Operation, Version},
};

pub(super) const ENI: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 2, 15));
pub(super) const CONFIGURED: &str = "qdrant/qdrant:v1.18.3-unprivileged";

/// A backup in the bucket.
#[derive(Clone, Debug)]
pub(super) struct Backup {
    pub(super) version: &'static str,
    pub(super) proved: bool,
    pub(super) is: Quality,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quality {
    Good,
    /// Its data is not what was recorded.
    Wrong,
    /// A frame's hash is not as recorded.
    Corrupt,
    /// Qdrant dies of it, and of half of it each time it starts.
    Deadly,
    /// Qdrant dies of it once, and what it leaves is not as recorded.
    DeadlyOnce,
    /// The first attempt leaves half a collection that is not as recorded.
    HalfFirst,
}

/// What the bucket answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bucket {
    Answers,
    Denied,
    /// There are manifests, and none can be used.
    Unusable,
}

/// What is in Qdrant's data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Data {
    pub(super) of: String,
    pub(super) whole: bool,
    /// Accepted from clients.
    pub(super) writes: u32,
    pub(super) touched_by: Version,
}

pub(super) struct State {
    // What survives a power cut.
    pub(super) record: Option<Record>,
    pub(super) journal: Option<String>,
    pub(super) data: Option<Data>,
    pub(super) local_snapshots: bool,
    // What is elsewhere.
    pub(super) bucket: Bucket,
    pub(super) backups: BTreeMap<BackupId, Backup>,
    // What does not survive.
    pub(super) container: Option<Launch>,
    loaded_at: Option<Instant>,
    locked: bool,
    // What a test sets.
    pub(super) loading: Duration,
    /// Images that end at once.
    pub(super) dead_images: BTreeSet<String>,
    pub(super) address_at: Option<Instant>,
    pub(super) lifecycle_fails: u32,
    pub(super) nobody_waits: bool,
    pub(super) free_disk: bool,
    pub(super) fails_in: BTreeSet<String>,
    /// `--replace` was typed: data may go, whoever wrote it.
    pub(super) replacing: bool,
    pub(super) save_fails_at: Option<Step>,
    // What happened.
    pub(super) restores: u32,
    pub(super) starts: Vec<Launch>,
    pub(super) heartbeats: u32,
    pub(super) completed: u32,
    pub(super) served_empty: bool,
    effects: usize,
    cut_at: Option<usize>,
    dead: bool,
}

/// How a run ends from without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The process is killed; Qdrant's container goes on.
    Kill,
    /// The machine loses power.
    Power,
}

#[derive(Clone)]
pub(super) struct World {
    state: Rc<RefCell<State>>,
    died: Rc<Notify>,
}

pub(super) fn id(number: u32) -> BackupId {
    format!("20261123T05140{number}Z").parse().unwrap()
}

impl World {
    pub(super) fn new(backups: &[(u32, &'static str, bool, Quality)]) -> Self {
        let backups = backups
            .iter()
            .map(|&(number, version, proved, is)| (id(number), Backup { version, proved, is }))
            .collect();
        let state = State {
            record: None,
            journal: None,
            data: None,
            local_snapshots: false,
            bucket: Bucket::Answers,
            backups,
            container: None,
            loaded_at: None,
            locked: false,
            loading: Duration::from_secs(3),
            dead_images: BTreeSet::new(),
            address_at: None,
            lifecycle_fails: 0,
            nobody_waits: false,
            free_disk: true,
            fails_in: BTreeSet::new(),
            replacing: false,
            save_fails_at: None,
            restores: 0,
            starts: Vec::new(),
            heartbeats: 0,
            completed: 0,
            served_empty: false,
            effects: 0,
            cut_at: None,
            dead: false,
        };
        Self { state: Rc::new(RefCell::new(state)), died: Rc::default() }
    }

    pub(super) fn state(&self) -> std::cell::RefMut<'_, State> {
        self.state.borrow_mut()
    }

    /// Something that a cut can come before or after. Whether it happens.
    fn effect(&self, happens: impl FnOnce(&mut State)) -> bool {
        let mut state = self.state();
        if state.dead {
            return false;
        }
        state.effects += 1;
        let (before, after) = (2 * state.effects - 1, 2 * state.effects);
        if state.cut_at != Some(before) {
            happens(&mut state);
        }
        if state.cut_at == Some(before) || state.cut_at == Some(after) {
            state.dead = true;
            self.died.notify_one();
        }
        !state.dead
    }

    /// As [`Self::effect`], for calls that can wait for their end.
    async fn async_effect(&self, happens: impl FnOnce(&mut State)) {
        if !self.effect(happens) {
            std::future::pending::<()>().await;
        }
    }

    pub(super) fn effects(&self) -> usize {
        self.state().effects
    }

    /// Runs the program until it ends, or is cut before or after an effect (`2n - 1` and `2n` for the n-th). `None` if it was cut.
    pub(super) async fn run(
        &self,
        order: &Order,
        cut: Option<(usize, Cut)>,
    ) -> Option<Result<BootResult, Error>> {
        {
            let mut state = self.state();
            (state.effects, state.cut_at, state.dead, state.locked) = (0, cut.map(|cut| cut.0), false, false);
        }
        // The death of the run before may not have been noticed.
        let _earlier = self.died.notified().now_or_never();
        let cancel = CancellationToken::new();
        let ended = tokio::select! {
            biased;
            () = self.died.notified() => None,
            result = boot(self, self, order, &cancel) => Some(result),
            () = sleep(Duration::from_secs(7 * 86_400)) => {
                panic!("it is still held after a week: {:?}", self.state().record)
            }
        };
        let mut state = self.state();
        state.locked = false;
        // What ends in the same moment has not ended.
        let ended = ended.filter(|_| !state.dead);
        if ended.is_none() && cut.is_some_and(|(_, cut)| cut == Cut::Power) {
            state.container = None;
        }
        ended
    }

    /// Runs the program until it holds or ends, or for a time, and stops it with SIGTERM.
    pub(super) async fn run_for(&self, order: &Order, time: Duration) -> Result<BootResult, Error> {
        self.state().effects = 0;
        let cancel = CancellationToken::new();
        let running = boot(self, self, order, &cancel);
        tokio::pin!(running);
        let result = match timeout(time, &mut running).await {
            Ok(result) => result,
            Err(_) => {
                cancel.cancel();
                timeout(Duration::from_secs(60), &mut running).await.expect("SIGTERM ends it")
            }
        };
        self.state().locked = false;
        result
    }

    pub(super) fn held(&self) -> Option<(Step, FailureKind, bool)> {
        let state = self.state();
        let held = state.record.as_ref()?.held.as_ref()?;
        Some((held.step, held.kind, held.for_a_person()))
    }

    /// What is served, and how many writes it has.
    pub(super) fn served(&self) -> Option<(String, u32)> {
        let state = self.state();
        let at_address = state.container.as_ref().is_some_and(|launch| launch.address == ENI);
        let data =
            state.data.as_ref().map_or(("nothing".to_owned(), 0), |data| (data.of.clone(), data.writes));
        at_address.then_some(data)
    }
}

pub(super) fn order(image: &str, args: BootArgs) -> Order {
    Order {
        wanted: Wanted { image: Image::new(image).unwrap(), address: ENI },
        role: HostRole::Production,
        args,
        timing: Timing::STANDARD,
        started_at: "2026-11-28T00:00:00Z".parse().unwrap(),
    }
}

pub(super) fn plain() -> Order {
    order(CONFIGURED, BootArgs::default())
}

fn version_of(launch: &Launch) -> Version {
    Image::new(&launch.image).unwrap().version()
}

fn unavailable() -> Error {
    let source = Cause::TimedOut { after: Duration::from_secs(1) };
    qdrant::Error::AnswerLost { operation: Operation::Version, waited: Duration::ZERO, source }.into()
}

fn not_as_recorded(backup: BackupId) -> Error {
    let verdict = Box::new(Verdict { passed: false, checks: Vec::new() });
    Error::NotAsRecorded { backup, verdict, fidelity: Vec::new(), left: Vec::new(), aliases_set: false }
}

fn machine_failure() -> machine::Error {
    machine::Error::NotRun { program: "model", source: std::io::Error::other("as the test says") }
}

impl Disks for World {
    async fn prepare(&self) -> Result<Prepared, machine::Error> {
        if self.state().fails_in.contains("prepare") {
            return Err(machine_failure());
        }
        self.async_effect(|_| ()).await;
        Ok(Prepared { how: FileSystem::Mounted, devices: Vec::new() })
    }
}

impl Container for World {
    async fn running(&self) -> Result<Option<Launch>, machine::Error> {
        Ok(self.state().container.clone())
    }

    async fn start(&self, launch: &Launch) -> Result<(), machine::Error> {
        self.async_effect(|state| {
            state.starts.push(launch.clone());
            let version = version_of(launch);
            if let Some(data) = &mut state.data {
                assert!(
                    qdrant::version::can_restore(data.touched_by, version).is_ok(),
                    "{version} runs on data that {} has touched",
                    data.touched_by
                );
                data.touched_by = version;
            }
            let marker = state.record.as_ref().is_some_and(|record| record.marker.is_some());
            if launch.address == LOOPBACK {
                assert!(!marker, "with the marker there is no way back to 127.0.0.1");
            } else {
                assert!(marker, "served without a marker on the disk");
                match &mut state.data {
                    Some(data) => {
                        assert!(data.whole, "half a restore is served");
                        // Clients do not wait until the boot has noticed.
                        data.writes += 1;
                    }
                    None => state.served_empty = true,
                }
            }
            let deadly = |data: &Data| {
                !data.whole && data.of.parse().is_ok_and(|id| state.backups[&id].is == Quality::Deadly)
            };
            let dies = state.dead_images.contains(&launch.image) || state.data.as_ref().is_some_and(deadly);
            state.container = (!dies).then(|| launch.clone());
            state.loaded_at = Some(Instant::now() + state.loading);
        })
        .await;
        Ok(())
    }

    async fn stop(&self) -> Result<(), machine::Error> {
        self.async_effect(|state| state.container = None).await;
        Ok(())
    }
}

impl Addresses for World {
    fn has(&self, _address: IpAddr) -> bool {
        self.state().address_at.is_none_or(|at| Instant::now() >= at)
    }
}

impl Lifecycle for World {
    async fn heartbeat(&self) -> Result<bool, machine::Error> {
        let mut state = self.state();
        state.heartbeats += 1;
        if state.lifecycle_fails > 0 { Err(machine_failure()) } else { Ok(!state.nobody_waits) }
    }

    async fn complete(&self) -> Result<(), machine::Error> {
        if self.state().lifecycle_fails > 0 {
            self.state().lifecycle_fails -= 1;
            return Err(machine_failure());
        }
        self.async_effect(|state| state.completed += 1).await;
        Ok(())
    }
}

impl Host for World {
    fn open(&self) -> Result<Option<Record>, Error> {
        let mut state = self.state();
        if std::mem::replace(&mut state.locked, true) && state.fails_in.contains("lock") {
            return Err(Error::Locked { path: "lock".into(), holder: "boot (process 7)".to_owned() });
        }
        // As through the file.
        let bytes = state.record.as_ref().map(|record| serde_json::to_vec(record).unwrap());
        if state.fails_in.contains("record") {
            return Err(Refused::RecordNewer { path: "boot.json".into(), found: 9 }.into());
        }
        Ok(bytes.map(|bytes| serde_json::from_slice(&bytes).unwrap()))
    }

    fn save(&self, record: &Record) -> Result<(), Error> {
        let full = || Error::Local {
            what: "write `boot.json`".to_owned(),
            source: std::io::Error::from(std::io::ErrorKind::StorageFull),
        };
        let marks =
            record.marker.is_some() && self.state().record.as_ref().is_none_or(|r| r.marker.is_none());
        if marks && self.state().save_fails_at == Some(Step::Mark) {
            self.state().save_fails_at = None;
            return Err(full());
        }
        if self.effect(|state| state.record = Some(record.clone())) { Ok(()) } else { Err(full()) }
    }

    fn data_dir(&self) -> PathBuf {
        "/workspace/qdrant/data".into()
    }

    fn holds_data(&self) -> Result<bool, Error> {
        Ok(self.state().data.is_some())
    }

    fn clear(&self) -> Result<(), Error> {
        let cleared = self.effect(|state| {
            assert!(state.container.is_none(), "cleared below a running Qdrant");
            let writes = state.data.as_ref().map_or(0, |data| data.writes);
            assert!(writes == 0 || state.replacing, "accepted writes are removed");
            state.data = None;
        });
        if cleared { Ok(()) } else { Err(unavailable()) }
    }

    async fn choose(&self, rejected: &[Rejected]) -> Result<Option<Source>, Error> {
        let state = self.state();
        let source = |(id, backup): (&BackupId, &Backup), degraded| Source::Backup {
            backup_id: *id,
            qdrant: backup.version.parse().unwrap(),
            why: "the model says so".to_owned(),
            degraded,
        };
        let local = || {
            let file = "docs/docs-1-2026-11-23-05-14-00.snapshot".to_owned();
            let (collection, taken_at) = ("docs".parse().unwrap(), Timestamp::UNIX_EPOCH);
            let files = vec![LocalSnapshot { collection, file, taken_at }];
            state.local_snapshots.then(|| Source::LocalSnapshots { files, why: "nothing else".to_owned() })
        };
        let store = |kind| {
            let (bucket, key, code) = ("bucket".to_owned(), "pointer".to_owned(), "403".to_owned());
            let operation = catalog::store::Operation::Get;
            let error = catalog::store::StoreError::Denied { operation, bucket, key, code, source: kind };
            Error::Catalog(catalog::Error::Store(error))
        };
        match state.bucket {
            Bucket::Denied => return Err(store("403".into())),
            Bucket::Unusable => return local().map(Some).ok_or(Error::NoBackup),
            Bucket::Answers => {}
        }
        let tried = |id: &BackupId| rejected.iter().any(|rejected| rejected.source.backup() == Some(*id));
        let mut newest_first = state.backups.iter().rev();
        match newest_first.next() {
            None => Ok(local().or(Some(Source::Nothing))),
            Some(newest) if !tried(newest.0) => Ok(Some(source(newest, false))),
            Some(_) => {
                let older = newest_first.find(|(id, backup)| backup.proved && !tried(id));
                Ok(older.map(|older| source(older, true)))
            }
        }
    }

    async fn require_room(&self, _source: &Source) -> Result<(), Error> {
        if self.state().free_disk {
            return Ok(());
        }
        Err(Error::LowDisk { path: "/workspace".into(), free: 1, needed: 2, purpose: "the collections" })
    }

    async fn answers(&self, address: IpAddr) -> Result<(), Error> {
        let state = self.state();
        let loaded = state.loaded_at.is_some_and(|at| Instant::now() >= at);
        match &state.container {
            Some(launch) if launch.address == address && loaded => Ok(()),
            Some(_) | None => Err(unavailable()),
        }
    }

    async fn restore(&self, source: &Source) -> Result<(), Error> {
        let Some(launch) = self.state().container.clone() else { return Err(unavailable()) };
        let name = match source {
            Source::Backup { backup_id, .. } => backup_id.to_string(),
            Source::LocalSnapshots { .. } => "local".to_owned(),
            Source::Nothing | Source::Adopted => return Ok(()),
        };
        let version = version_of(&launch);
        let is = source.backup().map_or(Quality::Good, |id| self.state().backups[&id].is);
        if let Source::Backup { qdrant, .. } = source {
            qdrant::version::can_restore(*qdrant, version)?;
        }
        if self.state().data.is_some() && self.state().journal.as_ref() != Some(&name) {
            return Err(Error::InTheWay { what: "Qdrant is not empty".to_owned() });
        }
        if is == Quality::HalfFirst && self.state().data.as_ref().is_some_and(|data| !data.whole) {
            let found = "half of it".to_owned();
            let collection = "docs".parse().unwrap();
            return Err(Error::HalfInTheWay { collection, found, remedy: "replace it".to_owned() });
        }
        if is == Quality::Corrupt {
            return Err(Error::GoldenMismatch { key: name });
        }
        let put = |whole| {
            let of = name.clone();
            move |state: &mut State| {
                let writes = state.data.as_ref().map_or(0, |data| data.writes);
                assert_eq!(writes, 0, "accepted writes are overwritten");
                state.journal = Some(of.clone());
                state.data = Some(Data { of, whole, writes: 0, touched_by: version });
            }
        };
        self.state().restores += 1;
        self.async_effect(put(false)).await;
        if is == Quality::HalfFirst && self.state().restores == 1 {
            return Err(unavailable());
        }
        if is == Quality::Deadly || (is == Quality::DeadlyOnce && self.state().restores == 1) {
            self.state().container = None;
            // The answer is lost, and is waited for as long as the client waits.
            let comes_back = timeout(Duration::from_secs(600), async {
                while self.state().container.is_none() {
                    sleep(Duration::from_secs(2)).await;
                }
            });
            if comes_back.await.is_err() {
                return Err(unavailable());
            }
            let (collection, found) = ("docs".parse().unwrap(), "half of it".to_owned());
            return Err(Error::HalfInTheWay { collection, found, remedy: "restore it again".to_owned() });
        }
        sleep(Duration::from_secs(1200)).await;
        self.async_effect(put(true)).await;
        match (is, source.backup()) {
            (Quality::Wrong, Some(backup)) => Err(not_as_recorded(backup)),
            _ => Ok(()),
        }
    }

    async fn verify(&self, source: &Source) -> Result<(), Error> {
        let state = self.state();
        match source.backup() {
            Some(backup) if state.fails_in.contains("verify") => Err(not_as_recorded(backup)),
            _ if state.container.is_none() => Err(unavailable()),
            _ => Ok(()),
        }
    }

    async fn warm_up(&self, _source: &Source) -> Result<WarmUp, Error> {
        if self.state().fails_in.contains("warm-up") {
            return Err(unavailable());
        }
        sleep(Duration::from_secs(30)).await;
        Ok(WarmUp {
            outcome: Warmth::Warm,
            rounds: 2,
            searches: 8,
            p95_before_milliseconds: Some(80.0),
            p95_after_milliseconds: Some(20.0),
            target_milliseconds: 50.0,
            bytes_read: 1 << 30,
            seconds: 30.0,
        })
    }
}
