//! What a staging instance is: a host with an agent, a Qdrant and directories of its own, which go with it.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use anyhow::Context as _;

use crate::{
    ec2::{Fleet, Instance},
    qdrant::{Server, ServerOptions},
    ssm::{HostOptions, Ssm},
};

/// Changes a host before it is registered.
type Change = Box<dyn Fn(&Server, &mut HostOptions) + Send + Sync>;

/// The staging hosts that are up.
pub struct StagingHosts {
    ssm: Arc<Ssm>,
    dir: PathBuf,
    qdrant: ServerOptions,
    /// As a production host is set up; none before the endpoints are known.
    base: Mutex<Option<HostOptions>>,
    change: Mutex<Option<Change>>,
    up: Mutex<BTreeMap<String, Server>>,
}

impl fmt::Debug for StagingHosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StagingHosts")
            .field("dir", &self.dir)
            .field("up", &self.ids())
            .finish_non_exhaustive()
    }
}

impl StagingHosts {
    pub(super) fn new(ssm: Arc<Ssm>, dir: PathBuf, qdrant: ServerOptions) -> Self {
        let (base, change, up) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { ssm, dir, qdrant, base, change, up }
    }

    /// From here on hosts are set up as this one, but for what is their own.
    pub(super) fn set_base(&self, base: HostOptions) {
        *lock(&self.base) = Some(base);
    }

    /// From here on hosts are changed by this just before their agent is online: their Qdrant too.
    pub fn on_boot(&self, change: impl Fn(&Server, &mut HostOptions) + Send + Sync + 'static) {
        *lock(&self.change) = Some(Box::new(change));
    }

    /// The ids of those that are up.
    pub fn ids(&self) -> Vec<String> {
        lock(&self.up).keys().cloned().collect()
    }

    /// The directories of those that are up.
    pub fn dirs(&self) -> Vec<PathBuf> {
        let entries = fs_err::read_dir(&self.dir).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
    }

    /// Looks at the Qdrant of a host that is up.
    pub fn with_qdrant<T>(&self, instance_id: &str, look: impl FnOnce(&Server) -> T) -> Option<T> {
        lock(&self.up).get(instance_id).map(look)
    }

    fn options(&self, instance: &Instance, qdrant: &Server) -> anyhow::Result<HostOptions> {
        let mut options = lock(&self.base).clone().context("hosts are not set up yet")?;
        let dir = self.dir.join(&instance.id);
        options.instance_id.clone_from(&instance.id);
        options.tags.clone_from(&instance.tags);
        options.orchestration = dir.join("agent");
        let mut own = BTreeMap::from([
            ("QDRANT_BACKUP_HOST_ROLE", "staging".to_owned()),
            ("QDRANT_BACKUP_QDRANT_URL", qdrant.url()),
        ]);
        let mut paths = BTreeMap::from([
            ("QDRANT_BACKUP_SNAPSHOTS_DIR", qdrant.snapshots_dir().to_owned()),
            ("QDRANT_BACKUP_QDRANT_SNAPSHOTS_PATH", qdrant.server_snapshots_dir().to_owned()),
            ("QDRANT_BACKUP_WORK_DIR", dir.join("host")),
        ]);
        if let Some(key) = qdrant.api_key() {
            let path = dir.join("api-key");
            fs_err::write(&path, key)?;
            paths.insert("QDRANT_BACKUP_QDRANT_API_KEY_FILE", path);
        }
        for (name, path) in paths {
            own.insert(
                name,
                path.into_os_string().into_string().ok().context("a path of the host is no text")?,
            );
        }
        options.env.extend(own.into_iter().map(|(name, value)| (name.to_owned(), value)));
        if let Some(change) = &*lock(&self.change) {
            change(qdrant, &mut options);
        }
        Ok(options)
    }
}

#[async_trait::async_trait]
impl Fleet for StagingHosts {
    async fn boot(&self, instance: &Instance) -> anyhow::Result<()> {
        fs_err::create_dir_all(self.dir.join(&instance.id))?;
        let qdrant = Server::choose(self.qdrant.clone()).await?;
        let options = self.options(instance, &qdrant)?;
        lock(&self.up).insert(instance.id.clone(), qdrant);
        self.ssm.add_host(options)
    }

    async fn halt(&self, instance_id: &str) {
        // It may not have come so far; and nobody is left to be told.
        let _never_online = self.ssm.lose_host(instance_id);
        let _never_registered = self.ssm.remove_host(instance_id);
        let qdrant = lock(&self.up).remove(instance_id);
        drop(qdrant);
        let _never_made = fs_err::remove_dir_all(self.dir.join(instance_id));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
