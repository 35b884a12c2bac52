//! The real host: files below the workspace, the bucket, and Qdrant over REST.

use std::{net::IpAddr, path::PathBuf, sync::OnceLock};

use protocol::{GoldenSet, Manifest, manifest::Origin};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{
    Refused, choose,
    host::Host,
    local,
    record::{self, LocalSnapshot, Record, Rejected, Source, Stage},
    sequence::LOOPBACK,
    warm_up::{self, WarmUp},
};
use crate::{
    backup::{local as failed, require_free},
    cli::RestoreArgs,
    config::Config,
    error::Error,
    lock::HostLock,
    origin,
    progress::{Display, Phases},
    qdrant,
    restore::{self, JournalAfterwards},
    select,
    session::{Session, qdrant_client},
    verify,
};

/// A host with these settings. Its session is with the Qdrant on 127.0.0.1.
#[derive(Debug)]
pub struct OnHost {
    config: Config,
    session: Session,
    display: Display,
    lock: OnceLock<HostLock>,
}

impl OnHost {
    /// Builds the clients; calls nobody yet.
    pub async fn open(config: Config, cancel: CancellationToken, display: Display) -> Result<Self, Error> {
        let session = Session::open(config.with_qdrant_at(LOOPBACK)?, cancel).await?;
        Ok(Self { config, session, display, lock: OnceLock::new() })
    }

    /// The manifest of a backup that was chosen, and its golden set.
    async fn recorded(&self, source: &Source) -> Result<Option<(Manifest, GoldenSet)>, Error> {
        let Source::Backup { backup_id, why, .. } = source else { return Ok(None) };
        let manifest = select::by_id(&self.session, *backup_id, why.clone()).await?.manifest;
        let golden = verify::golden(&self.session, &manifest).await?;
        Ok(Some((manifest, golden)))
    }

    async fn restore_backup(&self, chosen: select::Chosen) -> Result<(), Error> {
        let Some(lock) = self.lock.get() else {
            return Err(Error::Request {
                problem: "a restore without the host's lock".to_owned(),
                hint: "this is a fault of this program".to_owned(),
            });
        };
        let args = RestoreArgs::of(chosen.manifest.backup_id);
        let (mut phases, journal) = (Phases::new(self.display), JournalAfterwards::Stays);
        let done = restore::restore_chosen(lock, &self.session, &args, chosen, journal, &mut phases).await;
        phases.finish();
        let done = done?;
        info!(backup = %done.backup_id, bytes = done.bytes, kept_bytes = done.kept_bytes, timings = ?done.timings, "restored and verified");
        Ok(())
    }

    /// What did not come from a backup is not what a pointer should follow.
    fn write_degraded_origin(&self) -> Result<(), Error> {
        origin::write(&self.config.work_dir(), &Origin { backup_id: None, degraded: true })
    }

    async fn require_empty(&self) -> Result<(), Error> {
        let found = self.session.qdrant()?.collections().await?;
        if found.is_empty() {
            return Ok(());
        }
        Err(Refused::NotEmpty { found: found.iter().map(ToString::to_string).collect() }.into())
    }

    fn local_snapshots(&self) -> Result<Vec<LocalSnapshot>, Error> {
        local::find(&self.config.snapshots_dir()?.host)
    }

    async fn unless_cancelled<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.session.unless_cancelled(work).await?
    }
}

impl Host for OnHost {
    fn open(&self) -> Result<Option<Record>, Error> {
        let work_dir = self.config.work_dir();
        if self.lock.get().is_none() {
            // Nobody else sets it: this is called by one boot, again and again.
            let _unset = self.lock.set(HostLock::acquire(&work_dir, "boot")?);
        }
        record::read(&work_dir)
    }

    fn save(&self, record: &Record) -> Result<(), Error> {
        if record.stage != Stage::Missing {
            // Qdrant writes on after its own sync. What a record calls restored or complete is on the disk before the record is.
            let data_dir = self.config.data_dir();
            let synced = fs_err::File::open(&data_dir)
                .and_then(|dir| rustix::fs::syncfs(dir.file()).map_err(std::io::Error::from));
            synced.map_err(|source| failed(&data_dir, "sync", source))?;
        }
        record::write(&self.config.work_dir(), record)
    }

    fn data_dir(&self) -> PathBuf {
        self.config.data_dir()
    }

    fn holds_data(&self) -> Result<bool, Error> {
        // A Qdrant that has only been started has made the directory, and nothing in it.
        let collections = self.config.data_dir().join("collections");
        match fs_err::read_dir(&collections) {
            Ok(mut entries) => Ok(entries.next().is_some()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(failed(&collections, "look into", source)),
        }
    }

    fn clear(&self) -> Result<(), Error> {
        let data_dir = self.config.data_dir();
        let entries = match fs_err::read_dir(&data_dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(failed(&data_dir, "look into", source)),
        };
        for entry in entries {
            let path = entry.map_err(|source| failed(&data_dir, "look into", source))?.path();
            let removed = match fs_err::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => fs_err::remove_dir_all(&path),
                Ok(_) => fs_err::remove_file(&path),
                Err(error) => Err(error),
            };
            removed.map_err(|source| failed(&path, "remove", source))?;
        }
        let synced = fs_err::File::open(&data_dir).and_then(|dir| dir.sync_all());
        synced.map_err(|source| failed(&data_dir, "sync", source))?;
        info!(path = %data_dir.display(), "what was in Qdrant's data directory is removed");
        Ok(())
    }

    async fn choose(&self, rejected: &[Rejected]) -> Result<Option<Source>, Error> {
        let local = self.local_snapshots()?;
        self.unless_cancelled(choose::choose(&self.session.catalog, rejected, local)).await
    }

    async fn require_room(&self, source: &Source) -> Result<(), Error> {
        let snapshots = self.config.snapshots_dir()?;
        match source {
            Source::Backup { backup_id, why, .. } => {
                let chosen = select::by_id(&self.session, *backup_id, why.clone());
                let manifest = self.unless_cancelled(chosen).await?.manifest;
                restore::require_room_for(&manifest, &snapshots, &self.config.data_dir())
            }
            Source::LocalSnapshots { files, .. } => {
                let needed = local::bytes(&snapshots.host, files);
                require_free(&snapshots.host, needed, "the collections of the local snapshots")
            }
            Source::Nothing | Source::Adopted => Ok(()),
        }
    }

    async fn answers(&self, address: IpAddr) -> Result<(), Error> {
        let client = qdrant_client(&self.config.with_qdrant_at(address)?)?;
        self.unless_cancelled(async { Ok(client.version().await?) }).await?;
        Ok(())
    }

    async fn restore(&self, source: &Source) -> Result<(), Error> {
        match source {
            Source::Backup { backup_id, why, .. } => {
                let chosen = select::by_id(&self.session, *backup_id, why.clone());
                self.restore_backup(self.unless_cancelled(chosen).await?).await
            }
            Source::LocalSnapshots { files, .. } => {
                self.write_degraded_origin()?;
                let (client, snapshots) = (self.session.qdrant()?, self.config.snapshots_dir()?);
                self.unless_cancelled(local::restore(&client, &snapshots, files)).await
            }
            Source::Nothing => {
                self.write_degraded_origin()?;
                self.unless_cancelled(self.require_empty()).await
            }
            Source::Adopted => Ok(()),
        }
    }

    async fn verify(&self, source: &Source) -> Result<(), Error> {
        let verify = async {
            match source {
                Source::Backup { .. } => {
                    let Some((manifest, golden)) = self.recorded(source).await? else { return Ok(()) };
                    let verdict = verify::compare_whole(&self.session, &manifest, &golden).await?;
                    if verdict.passed {
                        return Ok(());
                    }
                    let left = manifest.collections.iter().map(|record| record.name.to_string()).collect();
                    let (backup, verdict) = (manifest.backup_id, Box::new(verdict));
                    Err(Error::NotAsRecorded {
                        backup,
                        verdict,
                        fidelity: Vec::new(),
                        left,
                        aliases_set: true,
                    })
                }
                Source::LocalSnapshots { files, .. } => local::check(&self.session.qdrant()?, files).await,
                Source::Nothing => self.require_empty().await,
                Source::Adopted => Ok(()),
            }
        };
        self.unless_cancelled(verify).await
    }

    async fn warm_up(&self, source: &Source) -> Result<WarmUp, Error> {
        let golden = self.unless_cancelled(self.recorded(source)).await?.map(|(_, golden)| golden);
        let client: qdrant::Client = self.session.qdrant()?;
        let goal = warm_up::Goal::of(&self.config);
        let data_dir = self.config.data_dir();
        self.unless_cancelled(async { warm_up::warm_up(&client, golden.as_ref(), &data_dir, goal).await })
            .await
    }
}
